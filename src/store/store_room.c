/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slots for new content: free ones, evicted ones, and giving back. Which one a transfer writes is
 * store_target.c's.
 *
 * Callers    store/, offload/ and api/, through store.h. Lock: the store's.
 */
#include "store/contents.h"
#include "store/store.h"

void kvbi_store_free_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                            struct kvb_block *block)
{
    kvbi_lock_assert_held(&store->lock);
    struct kvbi_move nothing = {0};
    bool registered = kvbi_life_get(block).state == KVB_STATE_REGISTERED;
    int error =
        kvbi_life_move(block, registered ? KVBI_EDGE_EVICT : KVBI_EDGE_RESET, &nothing, NULL);
    kvbi_records_unref(&store->records, block->record);
    block->record = KVBI_NONE;
    if (error == 0) {
        kvbi_pool_give(pool, block);
    } else {
        kvbi_pool_leave(pool, block);
        kvbi_pool_enter(pool, block, KVBI_PLACE_RETIRED);
    }
    kvbi_store_note_room_locked(store, pool);
}

void kvbi_store_evict_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                             struct kvb_block *block)
{
    kvbi_lock_assert_held(&store->lock);
    kvbi_pool_take_out_of_order(pool, block);
    kvbi_store_drop_offer_locked(store, pool, block);
    kvbi_store_detach_locked(store, pool, block);
    kvbi_store_free_locked(store, pool, block);
    pool->evicted++;
}

struct kvb_block *kvbi_store_take_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                                         bool user, unsigned band_max, uint64_t now_ns)
{
    kvbi_lock_assert_held(&store->lock);
    struct kvb_block *block;
    kvbi_pool_search(pool, store->lock.section);
    while ((block = kvbi_pool_take(pool, user ? KVBI_PLACE_USED : KVBI_PLACE_TRANSFER)) == NULL) {
        struct kvb_block *victim =
            pool->cut_short ? NULL : kvbi_pool_victim(pool, band_max, now_ns);
        if (victim == NULL)
            return NULL;
        kvbi_store_evict_locked(store, pool, victim);
        if (pool->free_count == 0 && !kvbi_pool_pass(pool)) /* the slot has been retired */
            return NULL;
    }
    if (user) {
        block->record = kvbi_records_take(&store->records);
        atomic_fetch_add_explicit(&block->word, 1, memory_order_relaxed);
    } else {
        kvbi_pool_hold(pool, block);
    }
    pool->allocated++;
    return block;
}
