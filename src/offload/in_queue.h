/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The in-queue of a lane: offers that wait, as weak handles, best first; and apart from them those
 * that are deferred until their tickets are reached.
 *
 * Owns       the order of the lane's waiting offers: higher priority first, first-in-first-out
 *            within.
 * Callers    offload/lane, offload/lane_deferred.
 * Invariants at most `capacity` offers wait, of both kinds; one more sheds the youngest of the
 *            lowest priority, which may be the new one. Of equal priority one that is deferred
 *            goes before one that is ready. A waiting offer holds nothing: its block may be
 *            gone by the time it comes up.
 * Lock       the store's.
 */
#ifndef KVBI_OFFLOAD_IN_QUEUE_H
#define KVBI_OFFLOAD_IN_QUEUE_H

#include <stdint.h>

#include "base/bands.h"
#include "offload/deferred.h"
#include "offload/offers.h"

struct kvbi_in_queue {
    struct kvbi_offer *offers; /* of the lane's tier, by id */
    struct kvbi_bands waiting;
    uint32_t capacity; /* waiting at most */
    struct kvbi_deferred deferred;
};

/* `offers` and `lines` must outlive it. */
void kvbi_in_queue_init(struct kvbi_in_queue *queue, const struct kvbi_lines *lines,
                        struct kvbi_offer *offers, uint32_t capacity);

static inline struct kvbi_offer *kvbi_in_queue_at(const struct kvbi_in_queue *queue, uint32_t id)
{
    return &queue->offers[id];
}

/*
 * Puts an offer in line. Returns the one that is shed for it (taken out, not freed), which may be
 * itself, or KVBI_NONE.
 */
uint32_t kvbi_in_queue_push(struct kvbi_in_queue *queue, uint32_t id);
/* The best, taken out. KVBI_NONE: nothing waits that is ready. */
uint32_t kvbi_in_queue_pop(struct kvbi_in_queue *queue);
/* Of either kind. */
void kvbi_in_queue_remove(struct kvbi_in_queue *queue, uint32_t id);

/* The same for an offer that waits, as kvbi_deferred_add says. */
uint32_t kvbi_in_queue_defer(struct kvbi_in_queue *queue, uint32_t id, struct kvbi_tickets tickets,
                             const struct kvbi_awaited *targets);
/* One that was deferred is in line again: nobody is shed for it. */
void kvbi_in_queue_resume(struct kvbi_in_queue *queue, uint32_t id);

/* Those that are ready, as far as is known. */
static inline uint32_t kvbi_in_queue_ready(const struct kvbi_in_queue *queue)
{
    return kvbi_bands_count(&queue->waiting);
}

/* All that wait. */
static inline uint32_t kvbi_in_queue_count(const struct kvbi_in_queue *queue)
{
    return kvbi_in_queue_ready(queue) + kvbi_deferred_count(&queue->deferred);
}

#endif
