/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What waits for a fence, in front of a lane: in order of priority, pinning nothing and taking no
 * place from what is ready.
 *
 * Owns       the links of the nodes that it was given, and how far a walk over them is.
 * Callers    offload/in_queue (offers), offload/onboard (items): each a list of its own.
 * Invariants as long as nothing beyond `until` is reached, in either order, no node has to be
 *            looked at: each waits for more than that in one of them. `cursor` is the next node of
 *            a walk that is under way.
 * Lock       the store's.
 * Why        points come up nearly in order, a step's at once: one comparison says that there is
 *            nothing to do, and a walk finds most of what it looks at ready. It is made in turns,
 *            so that no hold of the lock grows with the list.
 */
#ifndef KVBI_OFFLOAD_FENCED_H
#define KVBI_OFFLOAD_FENCED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bands.h"
#include "transfer/engine.h"

struct kvbi_fenced {
    struct kvbi_bands list;
    struct kvbi_point until;
    uint32_t cursor;
    bool walking;
    bool for_room;      /* some wait because no slot was ready for them: another one may be, once */
    uint64_t room_seen; /* the target's pool.room is another */
    uint64_t changes;   /* how often a node has come or gone */
};

void kvbi_fenced_init(struct kvbi_fenced *fenced, void *nodes, size_t stride);

/*
 * Of `point` a half that is reached does not count; where all of it is, there is something to look
 * at.
 */
void kvbi_fenced_add(struct kvbi_fenced *fenced, uint32_t index, unsigned band,
                     struct kvbi_point point, struct kvbi_point reached);
void kvbi_fenced_remove(struct kvbi_fenced *fenced, uint32_t index);
/* To a higher band, behind those that are there. It waits for what it waited for. */
void kvbi_fenced_raise(struct kvbi_fenced *fenced, uint32_t index, unsigned band);

/*
 * Where no slot is ready for a node that is added, `room` is the pool's count of those that it has
 * had.
 */
void kvbi_fenced_want_room(struct kvbi_fenced *fenced, uint64_t room);
/* All are looked at if there has been room since. */
void kvbi_fenced_note_room(struct kvbi_fenced *fenced, uint64_t room);

/* Is there anything to look at, now that `reached` is? */
bool kvbi_fenced_due(const struct kvbi_fenced *fenced, struct kvbi_point reached);
/*
 * The next node of the walk, which begins if none is under way. KVBI_NONE: it is over. Each is
 * removed, or kept.
 */
uint32_t kvbi_fenced_next(struct kvbi_fenced *fenced);
void kvbi_fenced_keep(struct kvbi_fenced *fenced, struct kvbi_point point,
                      struct kvbi_point reached);

/* `until`, or in either order what comes before it here. */
static inline struct kvbi_point kvbi_fenced_earlier(const struct kvbi_fenced *fenced,
                                                    struct kvbi_point until)
{
    if (fenced->until.ticket < until.ticket)
        until.ticket = fenced->until.ticket;
    if (fenced->until.event < until.event)
        until.event = fenced->until.event;
    return until;
}

static inline uint32_t kvbi_fenced_count(const struct kvbi_fenced *fenced)
{
    return kvbi_bands_count(&fenced->list);
}

#endif
