/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who uses a block: users, and lanes that pin it. What becomes of it when the last of them has
 * gone.
 *
 * Callers    offload/ and api/, through store.h. Lock: the store's, of what is named ..._locked.
 */
#include "store/contents.h"
#include "store/store.h"

struct kvbi_pool *kvbi_store_pool_of(struct kvbi_store *store, const struct kvb_block *block)
{
    for (unsigned tier = 0; tier < KVB_TIER_COUNT; tier++)
        if (kvbi_pool_owns(&store->pools[tier], block))
            return &store->pools[tier];
    return NULL;
}

uint32_t kvbi_store_slot_of(const struct kvbi_store *store, const struct kvb_block *block)
{
    for (unsigned tier = 0; tier < KVB_TIER_COUNT; tier++)
        if (kvbi_pool_owns(&store->pools[tier], block))
            return kvbi_pool_slot(&store->pools[tier], block);
    return KVBI_NONE;
}

int kvbi_store_ref_locked(struct kvbi_store *store, struct kvbi_pool *pool, struct kvb_block *block)
{
    kvbi_lock_assert_held(&store->lock);
    if (block->place != KVBI_PLACE_PARKED)
        return kvbi_slot_ref(block);
    kvbi_pool_take_out_of_order(pool, block);
    kvbi_pool_leave(pool, block);
    atomic_fetch_add_explicit(&block->word, 1, memory_order_relaxed);
    kvbi_pool_enter(pool, block, KVBI_PLACE_USED);
    return 0;
}

/*
 * Copies further down are used by this use: an inclusive lower tier keeps the order in which blocks
 * were really used.
 */
static void touch_copies_below(struct kvbi_store *store, const struct kvbi_entry *entry,
                               uint32_t tier, uint64_t now_ns)
{
    for (uint32_t below = tier + 1; below < KVB_TIER_COUNT; below++) {
        if (!(entry->ready & 1u << below))
            continue;
        struct kvbi_pool *pool = &store->pools[below];
        struct kvb_block *copy = &pool->slots[entry->copies[below]];
        if (copy->place != KVBI_PLACE_PARKED)
            continue;
        uint64_t deadline_ns;
        unsigned band = kvbi_pool_band(copy, now_ns, &deadline_ns);
        kvbi_pool_take_out_of_order(pool, copy);
        pool->policy->ops->insert(pool->policy, entry->copies[below], band, deadline_ns, now_ns);
    }
}

static void park(struct kvbi_store *store, struct kvbi_pool *pool, struct kvb_block *block,
                 uint64_t now_ns)
{
    uint64_t deadline_ns;
    unsigned band = kvbi_pool_band(block, now_ns, &deadline_ns);
    kvbi_pool_leave(pool, block);
    kvbi_pool_enter(pool, block, KVBI_PLACE_PARKED);
    pool->policy->ops->insert(pool->policy, kvbi_pool_slot(pool, block), band, deadline_ns, now_ns);
    touch_copies_below(store, kvbi_index_at(&store->index, block->entry), pool->tier, now_ns);
    kvbi_store_note_room_locked(store, pool);
}

/*
 * A lane still holds the slot, and nobody uses it any more. What a transfer fills may be there,
 * whole, in the end, but to those who knew the block it is gone, and stays gone: it goes on in a
 * new generation. If there is none, its content does not come any more.
 */
static void quarantine(struct kvbi_store *store, struct kvbi_pool *pool, struct kvb_block *block)
{
    uint64_t word = atomic_load_explicit(&block->word, memory_order_relaxed);
    kvbi_pool_leave(pool, block);
    kvbi_pool_enter(pool, block, KVBI_PLACE_QUARANTINED);
    if (kvbi_life_get(block).state == KVB_STATE_REGISTERED)
        return; /* it is read, and freed afterwards */
    if (kvbi_word_generation(word) < KVBI_GENERATION_MAX)
        atomic_store_explicit(&block->word, word + (UINT64_C(1) << KVBI_USERS_BITS),
                              memory_order_release);
    else if (block->entry != KVBI_NONE)
        kvbi_store_detach_locked(store, pool, block);
}

enum kvbi_unref kvbi_store_unref_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                                        struct kvb_block *block, uint64_t now_ns)
{
    kvbi_lock_assert_held(&store->lock);
    /* Acquire: what former users read and wrote happens before the slot is parked or used again. */
    uint64_t before = atomic_fetch_sub_explicit(&block->word, 1, memory_order_acq_rel);
    KVBI_ASSERT(kvbi_word_users(before) > 0);
    if (kvbi_word_users(before) > 1)
        return KVBI_UNREF_SHARED;
    pool->last_unrefs++;
    if (block->entry != KVBI_NONE &&
        !kvbi_index_alive(&store->index, kvbi_index_at(&store->index, block->entry)))
        kvbi_store_forget_locked(store, block->entry);
    if (kvbi_life_get(block).state == KVB_STATE_REGISTERED && block->entry != KVBI_NONE) {
        park(store, pool, block, now_ns);
        return KVBI_UNREF_PARKED;
    }
    if (block->holds > 0) {
        quarantine(store, pool, block);
        return KVBI_UNREF_QUARANTINED;
    }
    kvbi_store_free_locked(store, pool, block);
    return KVBI_UNREF_FREED;
}

void kvbi_store_unhold_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                              struct kvb_block *block, uint64_t now_ns)
{
    kvbi_lock_assert_held(&store->lock);
    kvbi_pool_unhold(pool, block, now_ns);
    kvbi_store_note_room_locked(store, pool);
    if (block->holds == 0 && block->place == KVBI_PLACE_QUARANTINED)
        kvbi_store_free_locked(store, pool, block);
}

uint64_t kvbi_store_handles_locked(const struct kvbi_store *store)
{
    uint64_t handles = 0;
    kvbi_lock_assert_held(&store->lock);
    for (unsigned tier = 0; tier < KVB_TIER_COUNT; tier++) {
        const struct kvbi_pool *pool = &store->pools[tier];
        for (uint32_t i = 0; pool->slots != NULL && i < pool->block_count; i++)
            handles += kvbi_word_users(atomic_load(&pool->slots[i].word));
    }
    return handles - store->pins.count;
}
