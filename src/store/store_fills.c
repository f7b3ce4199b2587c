/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A transfer writes a slot: its content is expected there, arrives, or does not.
 *
 * Callers    offload/ and store_adopt, through store.h. Lock: the store's.
 */
#include "store/contents.h"
#include "store/store.h"

void kvbi_store_fill_begin_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                                  struct kvb_block *target, uint32_t entry)
{
    kvbi_lock_assert_held(&store->lock);
    struct kvbi_move nothing = {0};
    struct kvbi_entry *content = kvbi_index_at(&store->index, entry);
    KVBI_ASSERT(content->copies[pool->tier] == KVBI_NONE);
    int error = kvbi_life_move(target, KVBI_EDGE_FILL, &nothing, NULL);
    KVBI_ASSERT(error == 0);
    (void)error;
    if (target->place == KVBI_PLACE_USED)
        kvbi_pool_hold(pool, target);
    target->entry = entry;
    content->copies[pool->tier] = kvbi_pool_slot(pool, target);
}

void kvbi_store_order_below_parent_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                                          struct kvb_block *block, uint64_t now_ns)
{
    kvbi_lock_assert_held(&store->lock);
    const struct kvbi_entry *entry = kvbi_index_at(&store->index, block->entry);
    const void *parent_key =
        store->index.key_bytes > 0 ? kvbi_index_parent_key(&store->index, block->entry) : NULL;
    uint32_t parent = KVBI_NONE;
    if (entry->flags & KVBI_ENTRY_HAS_PARENT)
        parent = kvbi_store_find_locked(store, entry->parent_hash, parent_key);
    uint64_t deadline_ns;
    unsigned band = kvbi_pool_band(block, now_ns, &deadline_ns);
    const struct kvbi_policy_ops *policy = pool->policy->ops;
    if (parent != KVBI_NONE && (kvbi_index_at(&store->index, parent)->ready & 1u << pool->tier))
        policy->insert_below(pool->policy, kvbi_pool_slot(pool, block), band, deadline_ns,
                             kvbi_index_at(&store->index, parent)->copies[pool->tier], now_ns);
    else
        policy->insert(pool->policy, kvbi_pool_slot(pool, block), band, deadline_ns, now_ns);
}

static void publish_fill(struct kvbi_store *store, struct kvbi_pool *pool, struct kvb_block *target,
                         uint64_t now_ns)
{
    struct kvbi_move move = {.tokens_per_block = store->hash.tokens_per_block};
    struct kvbi_entry *entry = kvbi_index_at(&store->index, target->entry);
    int error = kvbi_life_move(target, KVBI_EDGE_FILLED, &move, NULL);
    KVBI_ASSERT(error == 0);
    (void)error;
    kvbi_records_unref(&store->records, target->record); /* from now on it shares the entry's */
    target->record = KVBI_NONE;
    entry->ready |= (uint8_t)(1u << pool->tier);
    pool->registered++;
    kvbi_store_emit_locked(store, KVB_EVENT_STORED, pool->tier, target->entry);
    if (target->place == KVBI_PLACE_USED)
        return;
    kvbi_pool_leave(pool, target);
    kvbi_pool_enter(pool, target, KVBI_PLACE_PARKED);
    kvbi_store_order_below_parent_locked(store, pool, target, now_ns);
    kvbi_store_note_room_locked(store, pool);
}

static void reset_fill(struct kvbi_store *store, struct kvbi_pool *pool, struct kvb_block *target)
{
    struct kvbi_move nothing = {0};
    if (target->entry != KVBI_NONE)
        kvbi_store_detach_locked(store, pool, target);
    kvbi_slot_forget_content(target);
    int error = kvbi_life_move(target, KVBI_EDGE_FILL_FAILED, &nothing, NULL);
    KVBI_ASSERT(error == 0);
    (void)error;
}

bool kvbi_store_fill_end_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                                struct kvb_block *target, bool verified, uint64_t now_ns)
{
    kvbi_lock_assert_held(&store->lock);
    if (target->entry != KVBI_NONE &&
        !kvbi_index_alive(&store->index, kvbi_index_at(&store->index, target->entry)))
        kvbi_store_forget_locked(store, target->entry);
    bool publish = verified && target->entry != KVBI_NONE;
    kvbi_pool_unhold(pool, target, now_ns);
    if (publish) {
        publish_fill(store, pool, target, now_ns);
        return true;
    }
    reset_fill(store, pool, target);
    if (target->place != KVBI_PLACE_USED)
        kvbi_store_free_locked(store, pool, target);
    return false;
}

void kvbi_store_fill_abandon_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                                    struct kvb_block *target)
{
    kvbi_lock_assert_held(&store->lock);
    kvbi_pool_unhold(pool, target, 0);
    reset_fill(store, pool, target);
}
