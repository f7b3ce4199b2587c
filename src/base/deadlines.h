/* SPDX-License-Identifier: Apache-2.0 */
/*
 * deadlines - which of a fixed set of ids is due first
 *
 * Owns a binary min-heap of (deadline, order, id) and, by id, the place of each in it, so that a
 * deadline can be changed or taken back in O(log n). Equal deadlines come out in the order in which
 * they were set, as long as fewer than 2^31 others were set in between.
 * Callers: pins (leak deadlines), retention, transfers with a time limit. Times are
 * kvbi_clock_now's.
 * Invariants: heap[0] is due first; place[id] is 0 for an id without deadline, else 1 + its index
 * in the heap.
 * Lock: the caller's. Memory: everything is allocated at create, 20 bytes an id.
 */
#ifndef KVBI_BASE_DEADLINES_H
#define KVBI_BASE_DEADLINES_H

#include "base/memory.h"

#include <kvblock.h>
#include <stdbool.h>
#include <stdint.h>

struct kvbi_deadline {
    uint64_t deadline_ns;
    uint32_t id;
    uint32_t order; /* of setting */
};

struct kvbi_deadlines {
    const struct kvbi_memory *memory;
    struct kvbi_deadline *heap;
    uint32_t *place;
    uint32_t count;
    uint32_t capacity;
    uint32_t order; /* of the latest */
};

/* `memory` must outlive it. Ids are 0..capacity-1. KVB_ENOMEM. */
KVB_NODISCARD int kvbi_deadlines_create(struct kvbi_deadlines *deadlines,
                                        const struct kvbi_memory *memory, uint32_t capacity);

/* Legal on a zeroed object and after a failed create. */
void kvbi_deadlines_destroy(struct kvbi_deadlines *deadlines);

/* Gives the id a deadline, or another one. */
void kvbi_deadlines_set(struct kvbi_deadlines *deadlines, uint32_t id, uint64_t deadline_ns);

/* `to`, which has none, gets the deadline of `from`, which has one, and its turn among equals. */
void kvbi_deadlines_hand_over(struct kvbi_deadlines *deadlines, uint32_t from, uint32_t to);

/* Nothing happens if the id has none. */
void kvbi_deadlines_remove(struct kvbi_deadlines *deadlines, uint32_t id);

/* Has the id a deadline at or before now_ns? */
bool kvbi_deadlines_is_due(const struct kvbi_deadlines *deadlines, uint32_t id, uint64_t now_ns);
bool kvbi_deadlines_contains(const struct kvbi_deadlines *deadlines, uint32_t id);
uint32_t kvbi_deadlines_count(const struct kvbi_deadlines *deadlines);

/* The earliest, left in place. False if there is none. */
bool kvbi_deadlines_first(const struct kvbi_deadlines *deadlines, struct kvbi_deadline *first);

/* Takes out the earliest if it is at or before now_ns. False if none is due. */
bool kvbi_deadlines_pop_due(struct kvbi_deadlines *deadlines, uint64_t now_ns, uint32_t *id);

#endif
