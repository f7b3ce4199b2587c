/* SPDX-License-Identifier: Apache-2.0 */
/* Batches of the index, taken down and given back. See walk.h. */
#include "store/walk.h"

#include "store/contents.h"

static void give_back(struct kvbi_walk *walk, struct kvbi_store *store)
{
    for (uint32_t i = 0; i < walk->count; i++) {
        store->walked -= walk->items[i].record != KVBI_NONE;
        kvbi_records_unref(&store->records, walk->items[i].record);
    }
    walk->count = 0;
}

/* Entries may lie one after the other, their records do not. */
static void warm_records(const struct kvbi_store *store, uint32_t first, uint32_t end)
{
    for (uint32_t id = first; id < end; id++) {
        uint32_t record = kvbi_index_at(&store->index, id)->record;
        if (record != KVBI_NONE)
            __builtin_prefetch(kvbi_records_at(&store->records, record), 1);
    }
}

static void take_down(struct kvbi_walk *walk, struct kvbi_store *store, uint32_t id)
{
    const struct kvbi_entry *entry = kvbi_index_at(&store->index, id);
    if (!entry->used || !kvbi_index_alive(&store->index, entry) || entry->ready == 0)
        return;
    struct kvbi_event_item *item = &walk->items[walk->count];
    kvbi_store_picture_locked(store, KVB_EVENT_STORED, 0, id, item);
    walk->tiers[walk->count++] = entry->ready;
    if (item->record == KVBI_NONE)
        return;
    kvbi_records_ref(&store->records, item->record);
    store->walked++;
}

/* The batch before is given back, the next one taken down. False: there is none. */
static bool next_batch(struct kvbi_walk *walk, struct kvbi_store *store)
{
    uint32_t first = walk->next, untouched = store->index.untouched;
    give_back(walk, store);
    if (first >= untouched)
        return false;
    uint32_t end = untouched - first > KVBI_LOCK_BATCH ? first + KVBI_LOCK_BATCH : untouched;
    warm_records(store, first, end);
    for (uint32_t id = first; id < end; id++)
        take_down(walk, store, id);
    walk->next = end;
    return true;
}

bool kvbi_walk_begin_locked(struct kvbi_walk *walk, struct kvbi_store *store, bool *admitted)
{
    kvbi_lock_assert_held(&store->lock);
    walk->next = walk->count = 0;
    *admitted = store->walkers < KVBI_WALKERS_MAX;
    bool more = *admitted && next_batch(walk, store);
    store->walkers += more;
    return more;
}

bool kvbi_walk_next_locked(struct kvbi_walk *walk, struct kvbi_store *store, bool stop)
{
    kvbi_lock_assert_held(&store->lock);
    if (stop)
        give_back(walk, store);
    bool more = !stop && next_batch(walk, store);
    store->walkers -= !more;
    return more;
}
