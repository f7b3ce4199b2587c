/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The in-queue of a lane: offers that wait, as weak handles, best first; and apart from them those
 * that wait for a fence.
 *
 * Owns       the order of the lane's waiting offers: higher priority first, first-in-first-out
 *            within.
 * Callers    offload/lane, offload/lane_fenced.
 * Invariants at most `capacity` offers wait, of both kinds; one more sheds the youngest of the
 *            lowest priority, which may be the new one. Of equal priority one that waits for a
 *            fence goes before one that is ready. A waiting offer pins nothing: its block may be
 *            gone by the time it comes up.
 * Lock       the store's.
 */
#ifndef KVBI_OFFLOAD_IN_QUEUE_H
#define KVBI_OFFLOAD_IN_QUEUE_H

#include <stdint.h>

#include "base/bands.h"
#include "offload/fenced.h"
#include "offload/offers.h"

struct kvbi_in_queue {
    struct kvbi_offer *offers; /* of the lane's tier, by id */
    struct kvbi_bands waiting;
    struct kvbi_fenced fenced;
    uint32_t capacity; /* waiting at most */
};

/* `offers` must outlive it. */
void kvbi_in_queue_init(struct kvbi_in_queue *queue, struct kvbi_offer *offers, uint32_t capacity);

static inline struct kvbi_offer *kvbi_in_queue_at(const struct kvbi_in_queue *queue, uint32_t id)
{
    return &queue->offers[id];
}

/* Puts an offer in line. Returns the one that is shed for it (taken out, not freed), which may be itself, or KVBI_NONE. */
uint32_t kvbi_in_queue_push(struct kvbi_in_queue *queue, uint32_t id);
/* The best, taken out. KVBI_NONE: nothing waits that is ready. */
uint32_t kvbi_in_queue_pop(struct kvbi_in_queue *queue);
/* Of either kind. */
void kvbi_in_queue_remove(struct kvbi_in_queue *queue, uint32_t id);

/* The same for an offer that waits for `point`, which is not reached. */
uint32_t kvbi_in_queue_fence(struct kvbi_in_queue *queue, uint32_t id, struct kvbi_point point,
                             struct kvbi_point reached);
/* One that waited for a fence is in line again: nobody is shed for it. */
void kvbi_in_queue_unfence(struct kvbi_in_queue *queue, uint32_t id);

/* Those that are ready, as far as is known. */
static inline uint32_t kvbi_in_queue_ready(const struct kvbi_in_queue *queue)
{
    return kvbi_bands_count(&queue->waiting);
}

/* All that wait. */
static inline uint32_t kvbi_in_queue_count(const struct kvbi_in_queue *queue)
{
    return kvbi_in_queue_ready(queue) + kvbi_fenced_count(&queue->fenced);
}

#endif
