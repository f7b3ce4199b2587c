/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which slot a transfer writes: one that is ready, if there is one.
 *
 * Callers    offload/, through store.h. Lock: the store's.
 * Why        memory that its last owner may still be writing cannot be filled yet. A copy that is
 *            given such a slot waits, while the next slot could be filled at once. As long as
 *            nobody waits for tickets the first one looked at is ready, and this costs one
 *            comparison.
 */
#include "store/store.h"

static bool ready(struct kvbi_store *store, struct kvbi_pool *pool, struct kvbi_criteria *criteria,
                  const struct kvb_block *block)
{
    if (kvbi_ticket_reached(criteria->lines, block->ticket))
        return true;
    kvbi_lock_step();
    pool->unready++;
    if (!criteria->unready)
        kvbi_awaited_clear(&store->awaited[pool->tier]);
    criteria->unready = true;
    kvbi_awaited_add(&store->awaited[pool->tier], block->ticket);
    return false;
}

/* Brings a ready one to the top of the free stack. False: there is none among the first ones. */
static bool ready_on_top(struct kvbi_store *store, struct kvbi_pool *pool,
                         struct kvbi_criteria *criteria)
{
    uint32_t top = pool->free_count - 1;
    for (uint32_t n = 0; n < KVBI_LOCK_BATCH && n <= top; n++) {
        uint32_t slot = pool->free_stack[top - n];
        if (!ready(store, pool, criteria, &pool->slots[slot]))
            continue;
        pool->free_stack[top - n] = pool->free_stack[top];
        pool->free_stack[top] = slot;
        return true;
    }
    return false;
}

/* A ready one among those that go next, in their order. NULL: there is none. */
static struct kvb_block *ready_ahead(struct kvbi_store *store, struct kvbi_pool *pool,
                                     struct kvbi_criteria *criteria, uint64_t now_ns)
{
    uint32_t slots[KVBI_LOCK_BATCH];
    uint32_t count = pool->policy->ops->ahead(pool->policy, slots, KVBI_LOCK_BATCH);
    for (uint32_t i = 0; i < count; i++) {
        struct kvb_block *block = &pool->slots[slots[i]];
        uint64_t deadline_ns;
        if (block->holds == 0 &&
            kvbi_pool_band(block, now_ns, &deadline_ns) <= criteria->band_max &&
            ready(store, pool, criteria, block))
            return block;
    }
    return NULL;
}

/* Makes a ready slot free, by an eviction. False: there is none. */
static bool evict_ready(struct kvbi_store *store, struct kvbi_pool *pool,
                        struct kvbi_criteria *criteria, uint64_t now_ns)
{
    struct kvb_block *victim = kvbi_pool_victim(pool, criteria->band_max, now_ns);
    if (victim != NULL && !ready(store, pool, criteria, victim))
        victim = ready_ahead(store, pool, criteria, now_ns);
    if (victim == NULL)
        return false;
    kvbi_store_evict_locked(store, pool, victim);
    return true;
}

struct kvb_block *kvbi_store_take_target_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                                                struct kvbi_criteria *criteria, uint64_t now_ns)
{
    kvbi_lock_assert_held(&store->lock);
    criteria->unready = false;
    /* nearly always */
    if (pool->free_count > 0 &&
        kvbi_ticket_reached(criteria->lines,
                            pool->slots[pool->free_stack[pool->free_count - 1]].ticket))
        return kvbi_store_take_locked(store, pool, false, criteria->band_max, now_ns);
    kvbi_pool_search(pool, store->lock.section);
    pool->cut_short = pool->unready > KVBI_LOCK_BATCH; /* enough for this section */
    if (pool->cut_short)
        return NULL;
    while (pool->free_count == 0 || !ready_on_top(store, pool, criteria)) {
        if (!pool->cut_short && evict_ready(store, pool, criteria, now_ns)) {
            pool->cut_short = !kvbi_pool_pass(pool);
            continue; /* on top by now, unless it has been retired */
        }
        if (pool->cut_short || !criteria->unready || !criteria->allow_unready)
            return NULL;
        break;
    }
    return kvbi_store_take_locked(store, pool, false, criteria->band_max, now_ns);
}
