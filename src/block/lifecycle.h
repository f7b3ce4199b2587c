/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a block's content: one table, one function that moves a block.
 *
 *  (alloc) -> Empty --init--> Partial <--append, more to come, space remains--+
 *                              |  ^ ^ +----------------------------------------+
 *               append, done   |  | +-------- compute_done, not full ----+
 *               or now full    v  | cancel                               |
 *                      ReadyForScheduling --schedule--> Inflight --------+
 *                                 ^                       |              v compute_done, full
 *                                 +----compute_failed-----+         Complete -register-> Registered
 *
 *  edge \ state    Empty    Partial         Ready    Inflight                  Complete  Registered
 *  init            Partial  -               -        -                         -         -
 *  append          -        Partial|Ready   -        Inflight                  -         -
 *  schedule        -        -               Inflight Inflight                  -         -
 *  cancel          -        -               Partial  -                         -         -
 *  compute_done    -        -               -        Inflight|Partial|Complete -         -
 *  compute_failed  -        -               -        Ready|Inflight(1)         -         -
 *  truncate        -        Partial         Partial  -                         Partial   -
 *  register        -        -               -        -                         Registered -
 *  reset           Empty    Empty           Empty    -                         Empty     -
 *  evict           -        -               -        -                         -         Empty
 *  fill            Inflight -               -        -                         -         -
 *  filled          -        -               -        Registered                -         -
 *  fill_failed     -        -               -        Empty                     -         -
 *
 *  (1) a failed step that others still follow: a device may still write, so they finish first,
 *  what they report is ignored, and the last of them ends in Ready if it failed too, else in
 *  Partial, even where an earlier step had computed all of the block.
 *
 * Owns       the table, the packing of `life`, the invariants: computed <= named <=
 *            tokens_per_block; steps > 0 exactly in Inflight, except while a transfer fills the
 *            block; Complete and Registered are full; Empty names nothing.
 * Callers    api/ and store/. Nothing else writes `life`.
 * Lock       none: `life` is one atomic word, moved by compare-and-swap, so that two threads moving
 *            one block at once are caught (KVB_ESHARED) instead of corrupting it. Where the slot is
 *            (store/) is another machine.
 */
#ifndef KVBI_BLOCK_LIFECYCLE_H
#define KVBI_BLOCK_LIFECYCLE_H

#include <stdbool.h>
#include <stdint.h>

#include "block/slot.h"

enum kvbi_edge {
    KVBI_EDGE_INIT = 0,
    KVBI_EDGE_APPEND,
    KVBI_EDGE_SCHEDULE,
    KVBI_EDGE_CANCEL,
    KVBI_EDGE_COMPUTE_DONE,
    KVBI_EDGE_COMPUTE_FAILED,
    KVBI_EDGE_TRUNCATE,
    KVBI_EDGE_REGISTER,
    KVBI_EDGE_RESET,
    KVBI_EDGE_EVICT,
    KVBI_EDGE_FILL,
    KVBI_EDGE_FILLED,
    KVBI_EDGE_FILL_FAILED,
    KVBI_EDGE_COUNT
};

#define KVBI_STEPS_MAX 4095

/* `life`, unpacked. */
struct kvbi_life {
    uint8_t state; /* enum kvb_state */
    bool filling;  /* Inflight because a transfer writes it, not a step */
    bool failed;   /* a step has failed, later ones are still out */
    uint16_t steps;
    uint16_t tokens;
    uint16_t computed;
};

struct kvbi_move {
    uint32_t tokens_per_block;
    /*
     * append: tokens that fit; compute_done: computed; truncate: tokens to keep; init: tokens named
     */
    uint32_t count;
    bool more; /* append: KVB_MORE */
};

const char *kvbi_state_name(uint8_t state);
const char *kvbi_edge_name(enum kvbi_edge edge);
uint32_t kvbi_edge_from(enum kvbi_edge edge); /* the states that allow it, a bit each */
struct kvbi_life kvbi_life_get(const struct kvb_block *block);

/* A new slot's life: Empty. Only before anybody can see the slot. */
void kvbi_life_init(struct kvb_block *block);

/*
 * Move `block`. 0 and `*after` (may be NULL) is the new life. KVB_ESTATE: the table has a dash.
 * KVB_EINVAL: count out of range for the edge. KVB_EAGAIN: too many steps. KVB_ESHARED: another
 * thread moved it meanwhile. On errors nothing has changed.
 */
int kvbi_life_move(struct kvb_block *block, enum kvbi_edge edge, const struct kvbi_move *move,
                   struct kvbi_life *after);

/*
 * Whether the table allows the edge at all, before its work is done; the same answer kvbi_life_move
 * would give.
 */
bool kvbi_life_allows(const struct kvb_block *block, enum kvbi_edge edge);

/* The invariants above. NULL, or what is broken. */
const char *kvbi_life_check(const struct kvb_block *block, uint32_t tokens_per_block);

#endif
