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
 * Why        batches of entries are the store's (store/walk.h); they lie on the stack here.
 */
#include "api/manager.h"

#include "store/walk.h"

static int visit_batch(const struct kvbi_store *store, struct kvbi_walk *walk,
                       int (*visit)(void *arg, const struct kvb_event *event), void *arg)
{
    int result = 0;
    for (uint32_t i = 0; i < walk->count && result == 0; i++) {
        struct kvb_event event = kvbi_walk_view(walk, store, i);
        for (event.tier = 0; event.tier < KVB_TIER_COUNT && result == 0; event.tier++)
            if (walk->tiers[i] & 1u << event.tier)
                result = visit(arg, &event);
    }
    return result;
}

/* False: there is nothing to visit, or (*error: KVB_EAGAIN) there are too many walks. */
static bool begin(struct kvb_manager *manager, struct kvbi_walk *walk, int *error)
{
    bool admitted;
    kvbi_lock(manager);
    bool more = kvbi_walk_begin_locked(walk, &manager->store, &admitted);
    kvbi_unlock(manager);
    *error = admitted ? 0 : KVB_EAGAIN;
    return more;
}

/* To the next batch, unless the visitor has said stop. False: the walk is over. */
static bool go_on(struct kvb_manager *manager, struct kvbi_walk *walk, bool stop)
{
    kvbi_lock(manager);
    bool more = kvbi_walk_next_locked(walk, &manager->store, stop);
    kvbi_unlock(manager);
    return more;
}

int kvb_index_walk(struct kvb_manager *manager,
                   int (*visit)(void *arg, const struct kvb_event *event), void *arg)
{
    struct kvbi_walk walk;
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
