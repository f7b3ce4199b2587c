/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What outlived an earlier process becomes findable: the blocks of a file, and the order in which
 * they were used.
 *
 * Callers    offload/recover through store.h, at create. Lock: the store's.
 * Rules      one name has one entry and one indexed copy in the tier; whoever calls says which of
 *            two slots that is. They may have different content: an invalidated name was registered
 *            again, for something else. What is not adopted stays free. A slot is never used again
 *            in a generation in which it was written before.
 * Why        in the order of the file, because that is how it is read: hashes are scattered over
 *            the index anyway, but slots, entries and generations are walked one after the other.
 *            The eviction order is another walk, since it is another order. The stack of free slots
 *            is made at the end: taking slots out of the middle of it would need to know where they
 *            are.
 */
#include <string.h>

#include "store/contents.h"
#include "store/store.h"

void kvbi_store_adopt_begin_locked(struct kvbi_store *store, struct kvbi_pool *pool)
{
    kvbi_lock_assert_held(&store->lock);
    KVBI_ASSERT(pool->parked_count + pool->used_count + pool->transfer_count == 0);
}

void kvbi_store_adopt_warm_locked(const struct kvbi_store *store, uint64_t hash)
{
    kvbi_lock_assert_held(&store->lock);
    kvbi_index_warm_bucket(&store->index, hash);
}

static bool is_possible(const struct kvbi_pool *pool, const struct kvbi_adoption *adoption)
{
    return adoption->slot < pool->block_count &&
           pool->slots[adoption->slot].place == KVBI_PLACE_FREE && adoption->generation > 0 &&
           adoption->generation < KVBI_GENERATION_MAX && adoption->priority <= KVB_PRIORITY_MAX;
}

static bool same_parent(const struct kvbi_store *store, uint32_t id,
                        const struct kvbi_adoption *adoption)
{
    const struct kvbi_entry *entry = kvbi_index_at(&store->index, id);
    if (adoption->has_parent != ((entry->flags & KVBI_ENTRY_HAS_PARENT) != 0))
        return false;
    if (!adoption->has_parent)
        return true;
    return entry->parent_hash == adoption->parent_hash &&
           (store->index.key_bytes == 0 ||
            memcmp(kvbi_index_parent_key(&store->index, id), adoption->parent_key,
                   store->index.key_bytes) == 0);
}

static bool same_content(const struct kvbi_store *store, uint32_t id,
                         const struct kvbi_adoption *adoption)
{
    const struct kvbi_entry *entry = kvbi_index_at(&store->index, id);
    return memcmp(entry->name.digest, adoption->name.digest, sizeof entry->name.digest) == 0 &&
           entry->namespace_id == adoption->namespace_id && same_parent(store, id, adoption);
}

static void describe(struct kvbi_store *store, uint32_t id, const struct kvbi_adoption *adoption)
{
    struct kvbi_entry *entry = kvbi_index_at(&store->index, id);
    entry->name = adoption->name;
    entry->namespace_id = adoption->namespace_id;
    entry->flags = adoption->has_parent ? KVBI_ENTRY_HAS_PARENT : 0;
    entry->parent_hash = adoption->has_parent ? adoption->parent_hash : 0;
    if (adoption->has_parent && store->index.key_bytes > 0)
        memcpy(kvbi_index_parent_key(&store->index, id), adoption->parent_key,
               store->index.key_bytes);
}

static void set_generation(struct kvb_block *block, uint64_t generation)
{
    atomic_store_explicit(&block->word, generation << KVBI_USERS_BITS, memory_order_release);
}

static void move(const struct kvbi_store *store, struct kvb_block *block, enum kvbi_edge edge)
{
    struct kvbi_move move = {.tokens_per_block = store->hash.tokens_per_block};
    int error = kvbi_life_move(block, edge, &move, NULL);
    KVBI_ASSERT(error == 0);
    (void)error;
}

static void move_in(struct kvbi_store *store, struct kvbi_pool *pool,
                    const struct kvbi_adoption *adoption, uint32_t id)
{
    struct kvbi_entry *entry = kvbi_index_at(&store->index, id);
    struct kvb_block *block = &pool->slots[adoption->slot];
    move(store, block, KVBI_EDGE_FILL);
    move(store, block, KVBI_EDGE_FILLED);
    set_generation(block, adoption->generation);
    block->priority = adoption->priority;
    block->entry = id;
    entry->copies[pool->tier] = adoption->slot;
    entry->ready |= (uint8_t)(1u << pool->tier);
    kvbi_pool_leave(pool, block);
    kvbi_pool_enter(pool, block, KVBI_PLACE_PARKED);
}

enum kvbi_adopt kvbi_store_adopt_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                                        const struct kvbi_adoption *adoption, uint32_t *other)
{
    kvbi_lock_assert_held(&store->lock);
    if (!is_possible(pool, adoption))
        return KVBI_ADOPT_REFUSED;
    uint32_t id = kvbi_index_find(&store->index, adoption->name.hash, adoption->key);
    if (id != KVBI_NONE) {
        *other = kvbi_index_at(&store->index, id)->copies[pool->tier];
        KVBI_ASSERT(*other != KVBI_NONE); /* nothing but adoption has been here */
        return KVBI_ADOPT_PRESENT;
    }
    id = kvbi_index_insert(&store->index, adoption->name.hash, adoption->key);
    describe(store, id, adoption);
    move_in(store, pool, adoption, id);
    kvbi_store_emit_locked(store, KVB_EVENT_STORED, pool->tier, id);
    return KVBI_ADOPTED;
}

static void retire(struct kvbi_pool *pool, struct kvb_block *block)
{
    kvbi_pool_leave(pool, block);
    kvbi_pool_enter(pool, block, KVBI_PLACE_RETIRED);
}

void kvbi_store_adopt_generation_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                                        uint32_t slot, uint64_t generation)
{
    struct kvb_block *block = &pool->slots[slot];
    kvbi_lock_assert_held(&store->lock);
    KVBI_ASSERT(block->place == KVBI_PLACE_FREE);
    if (generation >= KVBI_GENERATION_MAX)
        retire(pool, block);
    else if (generation >=
             kvbi_word_generation(atomic_load_explicit(&block->word, memory_order_relaxed)))
        set_generation(block, generation + 1);
}

void kvbi_store_adopt_retired_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                                     uint32_t slot)
{
    kvbi_lock_assert_held(&store->lock);
    KVBI_ASSERT(pool->slots[slot].place == KVBI_PLACE_FREE);
    retire(pool, &pool->slots[slot]);
}

void kvbi_store_adopt_replace_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                                     const struct kvbi_adoption *adoption, uint32_t other)
{
    struct kvb_block *old = &pool->slots[other];
    uint32_t id = old->entry;
    bool same = same_content(store, id, adoption);
    kvbi_lock_assert_held(&store->lock);
    KVBI_ASSERT(!pool->policy->ops->contains(pool->policy, other));
    move(store, old, KVBI_EDGE_EVICT);
    old->entry = KVBI_NONE;
    kvbi_slot_forget_content(old);
    kvbi_pool_leave(pool, old);
    kvbi_pool_enter(pool, old, KVBI_PLACE_FREE);
    kvbi_store_adopt_generation_locked(
        store, pool, other,
        kvbi_word_generation(atomic_load_explicit(&old->word, memory_order_relaxed)));
    if (!same) {
        kvbi_store_emit_locked(store, KVB_EVENT_REMOVED, pool->tier, id);
        describe(store, id, adoption);
        kvbi_store_emit_locked(store, KVB_EVENT_STORED, pool->tier, id);
    }
    move_in(store, pool, adoption, id);
}

void kvbi_store_adopt_order_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                                   const uint32_t *slots, uint32_t count, bool written)
{
    kvbi_lock_assert_held(&store->lock);
    KVBI_ASSERT(count <= KVBI_LOCK_BATCH);
    for (uint32_t i = 0; i < count; i++)
        __builtin_prefetch(&pool->slots[slots[i]], 1);
    if (written)
        kvbi_store_warm_parked_locked(store, pool, slots, count);
    for (uint32_t i = 0; i < count; i++) {
        struct kvb_block *block = &pool->slots[slots[i]];
        KVBI_ASSERT(block->place == KVBI_PLACE_PARKED);
        if (written) /* no deadlines: any time will do */
            kvbi_store_order_below_parent_locked(store, pool, block, 0);
        else
            pool->policy->ops->insert(pool->policy, slots[i], block->priority, 0, 0);
    }
}

void kvbi_store_adopt_end_locked(struct kvbi_store *store, struct kvbi_pool *pool)
{
    kvbi_lock_assert_held(&store->lock);
    KVBI_ASSERT(pool->policy->ops->count(pool->policy) == pool->parked_count);
    kvbi_pool_restack(pool);
    store->work = true;
}
