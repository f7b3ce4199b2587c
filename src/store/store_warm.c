/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a batch will touch is warmed before the first of it is needed: its cache lines are asked
 * for.
 *
 * Callers    api/ and offload/ through store.h, store_adopt. Lock: the store's, unless a name says
 *            otherwise.
 * Invariants nothing is changed, and nothing is decided by what is read here: a stale answer costs
 *            a cache miss later, no more.
 * Why        blocks of one batch lie anywhere in tables of hundreds of megabytes. Each costs a
 *            chain of misses (slot, entry, bucket, parent's entry, parent's slot); stage by stage
 *            those of all blocks overlap (docs/performance.md).
 */
#include "store/contents.h"
#include "store/store.h"

static struct kvbi_entry *entry_of(const struct kvbi_store *store, const struct kvb_block *block)
{
    return block->entry != KVBI_NONE ? kvbi_index_at(&store->index, block->entry) : NULL;
}

static void warm_parents_locked(const struct kvbi_store *store, const struct kvbi_pool *pool,
                                const uint32_t *slots, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct kvbi_entry *entry = entry_of(store, &pool->slots[slots[i]]);
        if (entry != NULL)
            kvbi_index_warm_bucket(&store->index, entry->parent_hash);
    }
    for (uint32_t i = 0; i < count; i++) {
        const struct kvbi_entry *entry = entry_of(store, &pool->slots[slots[i]]);
        if (entry != NULL)
            (void)kvbi_index_warm_entry(&store->index, entry->parent_hash);
    }
}

void kvbi_store_warm_contents_locked(const struct kvbi_store *store,
                                     struct kvb_block *const *blocks, uint32_t count)
{
    kvbi_lock_assert_held(&store->lock);
    for (uint32_t i = 0; i < count; i++)
        if (entry_of(store, blocks[i]) != NULL)
            __builtin_prefetch(entry_of(store, blocks[i]), 1);
}

void kvbi_store_warm_parked_locked(const struct kvbi_store *store, const struct kvbi_pool *pool,
                                   const uint32_t *slots, uint32_t count)
{
    kvbi_lock_assert_held(&store->lock);
    for (uint32_t i = 0; i < count; i++)
        if (entry_of(store, &pool->slots[slots[i]]) != NULL)
            __builtin_prefetch(entry_of(store, &pool->slots[slots[i]]), 1);
    warm_parents_locked(store, pool, slots, count);
}

void kvbi_store_warm_take_locked(const struct kvbi_store *store, const struct kvbi_pool *pool,
                                 uint32_t count)
{
    kvbi_lock_assert_held(&store->lock);
    uint32_t slots[KVBI_LOCK_BATCH];
    uint32_t evictions = count > pool->free_count ? count - pool->free_count : 0;
    uint32_t found = pool->policy->ops->ahead(
        pool->policy, slots, evictions < KVBI_LOCK_BATCH ? evictions : KVBI_LOCK_BATCH);
    const struct kvbi_index *index = &store->index;
    for (uint32_t i = 0; i < found; i++)
        __builtin_prefetch(kvbi_index_at(index, pool->slots[slots[i]].entry), 1);
    for (uint32_t i = 0; i < found; i++) {
        const struct kvbi_entry *entry = kvbi_index_at(index, pool->slots[slots[i]].entry);
        kvbi_index_warm_bucket(index, entry->name.hash);
        if (entry->record == KVBI_NONE)
            continue;
        struct kvbi_record *record = kvbi_store_record(store, entry->record);
        __builtin_prefetch(record, 1);
        /* its next owner's, soon */
        __builtin_prefetch(kvbi_record_tokens(&store->records.shape, record), 1);
    }
    for (uint32_t i = 0; i < found; i++)
        kvbi_index_warm_entry(index, kvbi_index_at(index, pool->slots[slots[i]].entry)->name.hash);
}

void kvbi_store_warm_names(const struct kvbi_store *store, struct kvb_block *const *blocks,
                           uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        kvbi_index_warm_bucket(&store->index,
                               kvbi_store_record(store, blocks[i]->record)->name.hash);
}

void kvbi_store_warm_names_locked(const struct kvbi_store *store, struct kvb_block *const *blocks,
                                  uint32_t count)
{
    kvbi_lock_assert_held(&store->lock);
    for (uint32_t i = 0; i < count; i++)
        kvbi_index_warm_entry(&store->index,
                              kvbi_store_record(store, blocks[i]->record)->name.hash);
}
