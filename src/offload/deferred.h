/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What waits for its tickets, in front of a lane: in order of priority, holding nothing and taking
 * no place from what is ready.
 *
 * Owns       the links of the nodes that it was given, and how far a walk over them is.
 * Callers    offload/in_queue (offers), offload/onboard (items): each a list of its own.
 * Invariants `awaited` has one ticket at least of each node: as long as none there is reached, no
 *            node has to be looked at. `cursor` is the next node of a walk that is under way.
 * Lock       the store's.
 * Why        tickets of one line are reached in order, a step's at once: one comparison a line says
 *            that there is nothing to do, and a walk finds most of what it looks at ready. It is
 *            made in turns, so that no section grows with the list.
 */
#ifndef KVBI_OFFLOAD_DEFERRED_H
#define KVBI_OFFLOAD_DEFERRED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bands.h"
#include "block/ticket.h"

struct kvbi_deferred {
    struct kvbi_bands list;
    const struct kvbi_lines *lines;
    uint32_t cursor;
    bool walking;
    bool for_room;      /* some wait because no slot was ready for them: another one may be, once */
    uint64_t room_seen; /* the target's pool.room is another */
    uint64_t changes;   /* how often a node has come or gone */
    struct kvbi_awaited awaited; /* last: seldom looked at, and large */
};

/* `lines` must outlive it. */
void kvbi_deferred_init(struct kvbi_deferred *deferred, const struct kvbi_lines *lines, void *nodes,
                        size_t stride);

/*
 * The node waits for `tickets`; where both are reached, for any of `targets`, which is what was
 * awaited of targets that are not ready (NULL: there is something to look at).
 */
void kvbi_deferred_add(struct kvbi_deferred *deferred, uint32_t index, unsigned band,
                       struct kvbi_tickets tickets, const struct kvbi_awaited *targets);
void kvbi_deferred_remove(struct kvbi_deferred *deferred, uint32_t index);
/* To a higher band, behind those that are there. It waits for what it waited for. */
void kvbi_deferred_raise(struct kvbi_deferred *deferred, uint32_t index, unsigned band);

/*
 * Where no slot is ready for a node that is added, `room` is the pool's count of those that it has
 * had.
 */
void kvbi_deferred_await_room(struct kvbi_deferred *deferred, uint64_t room);
/* All are looked at if there has been room since. */
void kvbi_deferred_note_room(struct kvbi_deferred *deferred, uint64_t room);

/* All are to be looked at, for another reason than their tickets. */
static inline void kvbi_deferred_look(struct kvbi_deferred *deferred)
{
    deferred->awaited.now |= kvbi_bands_count(&deferred->list) > 0;
}

/* Is there anything to look at? */
bool kvbi_deferred_due(const struct kvbi_deferred *deferred);
/*
 * The next node of the walk, which begins if none is under way. KVBI_NONE: it is over. Each is
 * removed, or kept.
 */
uint32_t kvbi_deferred_next(struct kvbi_deferred *deferred);
void kvbi_deferred_keep(struct kvbi_deferred *deferred, struct kvbi_tickets tickets);

static inline uint32_t kvbi_deferred_count(const struct kvbi_deferred *deferred)
{
    return kvbi_bands_count(&deferred->list);
}

#endif
