/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dropping contents from the index: one copy (eviction), all copies (invalidation), everything
 * (clear); and the events about it.
 *
 * Callers    store/, offload/ and api/ through store.h. Lock: the store's; clear and sweep also
 *            clear_lock.
 * Why        clear is one step for everybody who looks (the epoch moves, CLEARED gets its number)
 *            and many short ones for the memory behind it, so that no call waits for a sweep of
 *            millions of entries.
 */
#include <string.h>

#include "store/contents.h"
#include "store/store.h"

void kvbi_store_picture_locked(const struct kvbi_store *store, uint32_t kind, uint32_t tier,
                               uint32_t id, struct kvbi_event_item *item)
{
    kvbi_lock_assert_held(&store->lock);
    const struct kvbi_entry *entry = kvbi_index_at(&store->index, id);
    item->kind = kind;
    item->tier = tier;
    item->sequence = store->events.sequence;
    item->namespace_id = entry->namespace_id;
    item->record = kind == KVB_EVENT_STORED ? entry->record : KVBI_NONE;
    item->lost_count = 0;
    item->has_parent = entry->flags & KVBI_ENTRY_HAS_PARENT;
    if (store->index.key_bytes > 0) {
        memcpy(item->key, kvbi_index_key(&store->index, id), store->index.key_bytes);
        memcpy(item->parent, kvbi_index_parent_key(&store->index, id), store->index.key_bytes);
    } else {
        struct kvb_seq parent = {.hash = entry->parent_hash};
        memcpy(item->key, &entry->name, sizeof entry->name);
        memcpy(item->parent, &parent, sizeof parent);
    }
}

void kvbi_store_emit_locked(struct kvbi_store *store, uint32_t kind, uint32_t tier, uint32_t id)
{
    kvbi_lock_assert_held(&store->lock);
    struct kvbi_event_item item;
    if (store->events.capacity == 0) { /* nobody listens */
        store->events.sequence++;
        return;
    }
    kvbi_store_picture_locked(store, kind, tier, id, &item);
    kvbi_event_log_push(&store->events, &store->records, &item);
    store->work = true;
}

/* A ready one: a target that is being filled has a record of its own, and there is one a block. */
static bool has_copy_in_memory(const struct kvbi_store *store, const struct kvbi_entry *entry)
{
    for (unsigned tier = 0; tier < KVB_TIER_COUNT; tier++)
        if ((entry->ready & 1u << tier) && store->pools[tier].in_memory)
            return true;
    return false;
}

static bool has_copy(const struct kvbi_entry *entry)
{
    for (unsigned tier = 0; tier < KVB_TIER_COUNT; tier++)
        if (entry->copies[tier] != KVBI_NONE)
            return true;
    return false;
}

void kvbi_store_detach_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                              struct kvb_block *block)
{
    kvbi_lock_assert_held(&store->lock);
    uint32_t id = block->entry, tier = pool->tier;
    struct kvbi_entry *entry = kvbi_index_at(&store->index, id);
    if ((entry->ready & 1u << tier) && kvbi_index_alive(&store->index, entry))
        kvbi_store_emit_locked(store, KVB_EVENT_REMOVED, tier, id);
    entry->ready &= (uint8_t) ~(1u << tier);
    entry->copies[tier] = KVBI_NONE;
    block->entry = KVBI_NONE;
    if (!has_copy_in_memory(store, entry)) {
        kvbi_records_unref(&store->records, entry->record);
        entry->record = KVBI_NONE;
    }
    if (!has_copy(entry))
        kvbi_index_erase(&store->index, id);
}

/*
 * The copy is not in the index any more: what nobody uses goes, at once or when the engine that
 * reads it lets go. A lane that stands does not keep it: what it has waiting goes too.
 */
static void abandon(struct kvbi_store *store, struct kvbi_pool *pool, struct kvb_block *block)
{
    kvbi_store_drop_offer_locked(store, pool, block);
    if (block->place != KVBI_PLACE_PARKED)
        return; /* its users, or the transfer that fills it, deal with it */
    kvbi_pool_take_out_of_order(pool, block);
    if (block->holds == 0) {
        kvbi_store_free_locked(store, pool, block);
    } else {
        kvbi_pool_leave(pool, block);
        kvbi_pool_enter(pool, block, KVBI_PLACE_QUARANTINED);
    }
}

void kvbi_store_forget_copy_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                                   struct kvb_block *block)
{
    kvbi_lock_assert_held(&store->lock);
    kvbi_store_detach_locked(store, pool, block);
    abandon(store, pool, block);
}

void kvbi_store_forget_locked(struct kvbi_store *store, uint32_t id)
{
    kvbi_lock_assert_held(&store->lock);
    uint32_t copies[KVB_TIER_COUNT];
    store->work = true; /* for lanes that have it queued or in transfer */
    memcpy(copies, kvbi_index_at(&store->index, id)->copies, sizeof copies);
    for (unsigned tier = 0; tier < KVB_TIER_COUNT; tier++) {
        if (copies[tier] == KVBI_NONE)
            continue;
        struct kvbi_pool *pool = &store->pools[tier];
        struct kvb_block *block = &pool->slots[copies[tier]];
        kvbi_store_detach_locked(store, pool, block);
        abandon(store, pool, block);
    }
}

int kvbi_store_invalidate_locked(struct kvbi_store *store, const void *key)
{
    kvbi_lock_assert_held(&store->lock);
    struct kvb_seq name = {0};
    if (store->index.key_bytes > 0)
        name.hash = kvbi_key_hash(&store->hash, key, store->index.key_bytes);
    else
        memcpy(&name, key, sizeof name);
    kvbi_moments_forget_key(&store->moments, name.hash);
    uint32_t entry = kvbi_store_find_locked(store, name.hash, key);
    if (entry == KVBI_NONE)
        return KVB_ENOENT;
    const struct kvb_seq *indexed = &kvbi_index_at(&store->index, entry)->name;
    if (store->index.key_bytes == 0 && kvbi_digest_known(name.digest) &&
        (indexed->digest[0] != name.digest[0] || indexed->digest[1] != name.digest[1]))
        return KVB_ENOENT; /* other content under the same hash */
    kvbi_store_forget_locked(store, entry);
    return 0;
}

void kvbi_store_forget_namespace_locked(struct kvbi_store *store, uint32_t namespace_id)
{
    kvbi_lock_assert_held(&store->lock);
    store->namespaces.entries[namespace_id].forgotten = kvbi_moments_next(&store->moments);
}

bool kvbi_store_sweep_locked(struct kvbi_store *store, uint32_t *cursor,
                             const uint32_t *namespace_id, uint64_t *removed)
{
    kvbi_lock_assert_held(&store->lock);
    struct kvbi_index *index = &store->index;
    uint32_t end =
        *cursor + KVBI_LOCK_BATCH < index->untouched ? *cursor + KVBI_LOCK_BATCH : index->untouched;
    for (; *cursor < end; ++*cursor) {
        kvbi_lock_step();
        const struct kvbi_entry *entry = kvbi_index_at(index, *cursor);
        if (!entry->used)
            continue;
        bool alive = kvbi_index_alive(index, entry);
        if (namespace_id == NULL ? alive : !alive || entry->namespace_id != *namespace_id)
            continue;
        kvbi_store_forget_locked(store, *cursor);
        ++*removed;
    }
    return *cursor < index->untouched;
}

uint64_t kvbi_store_begin_clear_locked(struct kvbi_store *store)
{
    struct kvbi_event_item item = {.kind = KVB_EVENT_CLEARED, .record = KVBI_NONE};
    kvbi_lock_assert_held(&store->lock);
    kvbi_event_log_push(&store->events, &store->records, &item);
    store->work = true;
    kvbi_moments_clear(&store->moments);
    store->index.epoch++;
    return ++store->clears;
}
