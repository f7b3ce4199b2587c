/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which on-deck offers may be revoked, the youngest first.
 *
 * Owns       a heap of offers by the time at which they went on deck, and in each offer its place
 *            there (node.extra). It says nothing about those on deck whose block somebody uses.
 * Callers    offload/lanes, which is told by the pool whenever a block becomes revocable or is no
 *            longer; offload/lane.
 * Lock       the store's.
 * Why        a block becomes revocable long after its offer went on deck, when its last user lets
 *            go. To look for the youngest along the deck is to pass all that are used, under the
 *            lock.
 */
#ifndef KVBI_OFFLOAD_REVOCABLE_H
#define KVBI_OFFLOAD_REVOCABLE_H

#include "offload/offers.h"

struct kvbi_revocable_offer {
    uint64_t age;
    uint32_t offer;
};

struct kvbi_revocable {
    const struct kvbi_memory *memory;
    struct kvbi_offer *offers; /* of the lane's tier, by id */
    struct kvbi_revocable_offer *heap;
    uint32_t count, capacity;
};

/* capacity: as many as can be on deck. `offers` must outlive it. KVB_ENOMEM. */
int kvbi_revocable_create(struct kvbi_revocable *revocable, const struct kvbi_memory *memory,
                          struct kvbi_offer *offers, uint32_t capacity);
void kvbi_revocable_destroy(struct kvbi_revocable *revocable); /* legal on a zeroed object */
size_t kvbi_revocable_bytes(const struct kvbi_revocable *revocable);

/* By the offer's ondeck_age. It must not be there, or must be. */
void kvbi_revocable_add(struct kvbi_revocable *revocable, uint32_t offer);
void kvbi_revocable_remove(struct kvbi_revocable *revocable, uint32_t offer);

/* Left in place. KVBI_NONE: there is none. */
static inline uint32_t kvbi_revocable_youngest(const struct kvbi_revocable *revocable)
{
    return revocable->count > 0 ? revocable->heap[0].offer : KVBI_NONE;
}

#endif
