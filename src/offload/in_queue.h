/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The in-queue of a lane: offers that wait, as weak handles, best first; and apart from them those
 * that wait for a fence.
 *
 * Owns       the lane's offers (every stage of them) and the order of the waiting ones: higher priority first, first-in-first-out within.
 * Callers    offload/lane, offload/lane_fenced.
 * Invariants at most `capacity` offers wait, of both kinds; one more sheds the youngest of the
 *            lowest priority, which may be the new one. Of equal priority one that waits for a
 *            fence goes before one that is ready. A waiting offer pins nothing: its block may be
 *            gone by the time it comes up.
 * Lock       the store's.
 */
#ifndef KVBI_OFFLOAD_IN_QUEUE_H
#define KVBI_OFFLOAD_IN_QUEUE_H

#include <stddef.h>
#include <stdint.h>

#include "base/bands.h"
#include "base/memory.h"
#include "offload/fenced.h"

struct kvbi_label;

enum kvbi_offer_stage {
    KVBI_OFFER_FREE = 0,
    KVBI_OFFER_QUEUED,
    KVBI_OFFER_FENCED,
    KVBI_OFFER_ONDECK,
    KVBI_OFFER_TAKEN
};

struct kvbi_offer {
    struct kvbi_band_node
        node; /* of a list of waiting ones, of the deck, or of the free list (next) */
    uint64_t generation;
    uint32_t slot;
    uint32_t target; /* TAKEN: slot in the target tier, or KVBI_NONE */
    union {
        struct kvbi_label *label; /* TAKEN and aimed, of a copy to a disk */
        uint64_t ondeck_age;      /* ONDECK: how many have gone there before it */
    };
    uint8_t stage;
    uint8_t priority;
    bool unready;  /* ONDECK, TAKEN: one of the few of its lane that may wait there for a fence */
    bool admitted; /* admission has been asked */
};

struct kvbi_in_queue {
    const struct kvbi_memory *memory;
    struct kvbi_offer *offers;
    struct kvbi_bands waiting;
    struct kvbi_fenced fenced;
    uint32_t capacity, offer_count; /* waiting at most; of all stages */
    uint32_t free_head, untouched;
};

/* `others`: offers of other stages that may exist beside `capacity` waiting ones. KVB_ENOMEM. */
int kvbi_in_queue_create(struct kvbi_in_queue *queue, const struct kvbi_memory *memory,
                         uint32_t capacity, uint32_t others);
void kvbi_in_queue_destroy(struct kvbi_in_queue *queue); /* legal on a zeroed object */
size_t kvbi_in_queue_bytes(const struct kvbi_in_queue *queue);

static inline struct kvbi_offer *kvbi_in_queue_at(const struct kvbi_in_queue *queue, uint32_t id)
{
    return &queue->offers[id];
}

uint32_t kvbi_in_queue_new(struct kvbi_in_queue *queue, uint32_t slot, uint64_t generation,
                           uint8_t priority);
void kvbi_in_queue_free(struct kvbi_in_queue *queue, uint32_t id);

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
