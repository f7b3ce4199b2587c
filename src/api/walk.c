/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The index walk: everything there is, shown to the caller as *stored* events.
 *
 * Callers    the public. Lock: the store's, once for KVBI_LOCK_BATCH entries, and never during a
 *            visit.
 * Rules      entries are walked in the order of their ids. An entry keeps its id for as long as it
 *            has a copy, so what is there from begin to end is shown once. A content that goes and
 *            comes back may get an id on the other side of the walk: it is shown twice or not at
 *            all, and its events tell which is true (include/kvblock.h says how). Not from within a
 *            callback: nothing moves until that returns, and the ring that overflows meanwhile asks
 *            for the next walk.
 * Why        a batch of entries is taken down, each with a user of its record, so that names and
 *            tokens stay readable while their blocks are evicted. The pictures lie on the stack (10
 *            KiB): a walk allocates nothing.
 */
#include "api/manager.h"

struct walk {
    uint32_t next;  /* the first entry that has not been looked at */
    uint32_t count; /* entries of the latest batch that have copies to show */
    struct kvbi_event_item items[KVBI_LOCK_BATCH];
    uint8_t tiers[KVBI_LOCK_BATCH]; /* of each: bit per tier with a copy */
};

static void give_back_locked(struct kvbi_store *store, struct walk *walk)
{
    for (uint32_t i = 0; i < walk->count; i++) {
        store->walked -= walk->items[i].record != KVBI_NONE;
        kvbi_records_unref(&store->records, walk->items[i].record);
    }
    walk->count = 0;
}

/* Entries may lie one after the other, their records do not. */
static void expect_records(const struct kvbi_store *store, uint32_t first, uint32_t end)
{
    for (uint32_t id = first; id < end; id++) {
        uint32_t record = kvbi_index_at(&store->index, id)->record;
        if (record != KVBI_NONE)
            __builtin_prefetch(kvbi_records_at(&store->records, record), 1);
    }
}

static void take_down_locked(struct kvbi_store *store, struct walk *walk, uint32_t id)
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
static bool next_batch_locked(struct kvbi_store *store, struct walk *walk)
{
    uint32_t first = walk->next, untouched = store->index.untouched;
    give_back_locked(store, walk);
    if (first >= untouched)
        return false;
    uint32_t end = untouched - first > KVBI_LOCK_BATCH ? first + KVBI_LOCK_BATCH : untouched;
    expect_records(store, first, end);
    for (uint32_t id = first; id < end; id++)
        take_down_locked(store, walk, id);
    walk->next = end;
    return true;
}

static int visit_batch(const struct kvbi_store *store, struct walk *walk,
                       int (*visit)(void *arg, const struct kvb_event *event), void *arg)
{
    int result = 0;
    for (uint32_t i = 0; i < walk->count && result == 0; i++) {
        struct kvb_event event = kvbi_event_view(&walk->items[i], &store->records);
        for (event.tier = 0; event.tier < KVB_TIER_COUNT && result == 0; event.tier++)
            if (walk->tiers[i] & 1u << event.tier)
                result = visit(arg, &event);
    }
    return result;
}

/*
 * False: there is nothing to visit, or (*error: KVB_EAGAIN) there are too many walks; each may keep
 * a batch of records alive.
 */
static bool begin(struct kvb_manager *manager, struct walk *walk, int *error)
{
    struct kvbi_store *store = &manager->store;
    walk->next = walk->count = 0;
    kvbi_lock(manager);
    bool admitted = store->walkers < KVBI_WALKERS_MAX;
    bool more = admitted && next_batch_locked(store, walk);
    store->walkers += more;
    kvbi_unlock(manager);
    *error = admitted ? 0 : KVB_EAGAIN;
    return more;
}

/* To the next batch, unless the visitor has said stop. False: the walk is over. */
static bool go_on(struct kvb_manager *manager, struct walk *walk, bool stop)
{
    struct kvbi_store *store = &manager->store;
    kvbi_lock(manager);
    if (stop)
        give_back_locked(store, walk);
    bool more = !stop && next_batch_locked(store, walk);
    store->walkers -= !more;
    kvbi_unlock(manager);
    return more;
}

int kvb_index_walk(struct kvb_manager *manager,
                   int (*visit)(void *arg, const struct kvb_event *event), void *arg)
{
    struct walk walk;
    int result = kvbi_enter(manager);
    if (result == 0)
        result = visit != NULL
                     ? 0
                     : kvbi_refuse(manager, KVBI_CALL_INDEX_WALK, KVB_EINVAL, "visit is NULL");
    if (result != 0)
        return result;
    if (kvbi_progress_in_callback(&manager->progress))
        return kvbi_refuse(manager, KVBI_CALL_INDEX_WALK, KVB_EDEADLK,
                           "called from a callback: nothing moves until that returns");
    bool more = begin(manager, &walk, &result);
    if (result != 0)
        return kvbi_refuse(manager, KVBI_CALL_INDEX_WALK, result,
                           "%d walks are under way, as many as there can be", KVBI_WALKERS_MAX);
    while (more) {
        result = visit_batch(&manager->store, &walk, visit, arg);
        more = go_on(manager, &walk, result != 0);
    }
    return result;
}
