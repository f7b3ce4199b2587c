/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who waits for the fill of a slot.
 *
 *    wait ──► the slot's rings ──the fill ends──► the ended ones, in order ─next─► told, a few
 *                     └──────────────── stop ───────────┘
 *
 * Owns       for each slot a ring of those that want its content there (JOIN) and one of those that
 *            read it and go on (HOP); one ring of all those whose fill has ended and who have not
 *            been told yet. Slots and waiters have numbers of one kind: who waits is named by a
 *            slot of its own, which may be waited for as well.
 * Callers    offload/onboard_wait. It knows neither blocks nor operations.
 * Invariants who waits is in one ring, in the order of coming. Those of one ended fill stand next
 *            to each other. A slot whose fill ended well is not filled again before the last of
 *            them has gone: the caller sees to it that its content stays, from `end` until `last`.
 * Lock       the store's.
 * Why        every operation is O(1), whatever waits: a fill that thousands wait for ends in one
 *            step, and they are told in many sections. A slot whose fill has failed can be
 *            filled anew at once, while those of the fill before are still to be told: a fill has a
 *            number.
 */
#ifndef KVBI_OFFLOAD_WAITERS_H
#define KVBI_OFFLOAD_WAITERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <kvblock.h>

#include "base/bands.h"
#include "base/memory.h"

enum kvbi_wait { KVBI_WAIT_JOIN, KVBI_WAIT_HOP };
#define KVBI_WAIT_KINDS 2

struct kvbi_waiter {
    /* as a slot: the rings of this fill, 1 + the oldest; 0: none */
    uint32_t first[KVBI_WAIT_KINDS];
    uint32_t fill;       /* as a slot: fills that have ended and were waited for */
    uint32_t on;         /* as who waits: 1 + the slot; 0: does not wait */
    uint32_t on_fill;    /* the number of the fill that it waits for */
    uint32_t prev, next; /* in its ring, which is closed */
    uint8_t kind;        /* enum kvbi_wait */
    uint8_t good;        /* as a slot: how the latest of those ended */
};

struct kvbi_waiters {
    const struct kvbi_memory *memory;
    struct kvbi_waiter *nodes;
    uint32_t count;
    uint32_t ended; /* 1 + the next to be told; 0: none */
};

/* Somebody who has left a ring. */
struct kvbi_waited {
    uint32_t id, slot;
    bool ended; /* the fill is over; if it is not, the others are false */
    bool good;  /* how it ended */
    bool last;  /* nobody is left of those who waited for this fill */
};

/* KVB_ENOMEM */
KVB_NODISCARD int kvbi_waiters_create(struct kvbi_waiters *waiters,
                                      const struct kvbi_memory *memory, uint32_t count);
void kvbi_waiters_destroy(struct kvbi_waiters *waiters); /* legal on a zeroed object */
size_t kvbi_waiters_bytes(const struct kvbi_waiters *waiters);

/* `id`, which does not wait yet, waits for the fill of `slot` that is under way. */
void kvbi_waiters_wait(struct kvbi_waiters *waiters, uint32_t id, uint32_t slot,
                       enum kvbi_wait kind);
/* The one that came first. KVBI_NONE: nobody of this kind waits for the fill under way. */
uint32_t kvbi_waiters_first(const struct kvbi_waiters *waiters, uint32_t slot, enum kvbi_wait kind);
/* What `id` waits for. KVBI_NONE: for nothing that is still being filled. */
uint32_t kvbi_waiters_on(const struct kvbi_waiters *waiters, uint32_t id);
bool kvbi_waiters_waits(const struct kvbi_waiters *waiters, uint32_t id);
/* The slot whose fill `id` waited for, if that ended well and it is to be told. KVBI_NONE: else. */
uint32_t kvbi_waiters_came(const struct kvbi_waiters *waiters, uint32_t id);

/* The fill of the slot is over. True: somebody has waited, and is to be told. */
bool kvbi_waiters_end(struct kvbi_waiters *waiters, uint32_t slot, bool good);
/* The next one to be told, taken out. False: nobody is left. */
bool kvbi_waiters_next(struct kvbi_waiters *waiters, struct kvbi_waited *waited);
/* `id` waits no longer, whether the fill is over or not. */
struct kvbi_waited kvbi_waiters_stop(struct kvbi_waiters *waiters, uint32_t id);

static inline bool kvbi_waiters_any_ended(const struct kvbi_waiters *waiters)
{
    return waiters->ended != 0;
}

/* Every invariant, by walking everything. For tests. NULL, or which one is broken. */
const char *kvbi_waiters_check(const struct kvbi_waiters *waiters);

#endif
