/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walking the index: its entries in batches, each with a user of its record.
 *
 * Owns       the batch, in the walker's memory; in the store, how many walk and what they hold.
 * Callers    api/walk.
 * Invariants entries are walked in the order of their ids. An entry keeps its id for as long as it
 *            has a copy, so what is there from begin to end is in one batch. A batch that was taken
 *            down is given back by the next call; each of KVBI_WALKERS_MAX walks may hold one.
 * Lock       the store's.
 * Why        a batch is taken down with users of its records so that names and tokens stay readable
 *            while their blocks are evicted. Pictures lie in the walker's memory (10 KiB): a walk
 *            allocates nothing.
 */
#ifndef KVBI_STORE_WALK_H
#define KVBI_STORE_WALK_H

#include <stdbool.h>
#include <stdint.h>

#include "store/store.h"

struct kvbi_walk {
    uint32_t next;  /* the first entry that has not been looked at */
    uint32_t count; /* entries of the latest batch that have copies to show */
    struct kvbi_event_item items[KVBI_LOCK_BATCH];
    uint8_t tiers[KVBI_LOCK_BATCH]; /* of each: bit per tier with a copy */
};

/*
 * The first batch. False: there is nothing to walk, or (*admitted is false) there are too many
 * walks.
 */
bool kvbi_walk_begin_locked(struct kvbi_walk *walk, struct kvbi_store *store, bool *admitted);
/* The next batch in place of this one; `stop`: none. False: the walk is over. */
bool kvbi_walk_next_locked(struct kvbi_walk *walk, struct kvbi_store *store, bool stop);

/* Entry i of the batch, as its receiver sees it. No lock. */
static inline struct kvb_event kvbi_walk_view(const struct kvbi_walk *walk,
                                              const struct kvbi_store *store, uint32_t i)
{
    return kvbi_event_view(&walk->items[i], &store->records);
}

#endif
