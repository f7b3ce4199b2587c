/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One slot of a pool: the struct behind the public `struct kvb_block *`.
 *
 * Owns       the layout of the slot and the two atomic words in it.
 * Callers    block/ and store/ write; offload/ and api/ go through them.
 * Invariants word: generation (44 bits, from 1) and users (20 bits). users goes 0->1 and 1->0 under
 *            the store lock only; between counts above 0 it moves without a lock. generation moves
 *            under the store lock while users is 0, or with the sole user's reset. `life` is
 *            written by lifecycle.c and by nothing else.
 *            ticket: whoever has the slot, a transfer waits for all points that were ever named
 *            for its memory. One that is reached delays nobody, so none is ever taken back; of two
 *            that are not, it is one that covers both (transfer/engines).
 * Why        64 bytes, one cache line: a step, a ref and a park of one block touch one line, and
 *            neighbours in the pool never share one. Where the slot is (place) and what is in it
 *            (life) are two machines and stay two fields.
 *
 * Wrap-around: a slot that is reused 10,000 times a second takes 55 years to use up 2^44
 * generations. It is then retired (never given out again) instead of wrapping, so an old weak
 * handle can never match.
 */
#ifndef KVBI_BLOCK_SLOT_H
#define KVBI_BLOCK_SLOT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <kvblock.h>

#include "base/bands.h"

#define KVBI_USERS_BITS 20
#define KVBI_USERS_MAX ((UINT64_C(1) << KVBI_USERS_BITS) - 1)
#define KVBI_GENERATION_MAX ((UINT64_C(1) << (64 - KVBI_USERS_BITS)) - 1)

/* Where the slot is. Guarded by the store lock. */
enum kvbi_place {
    KVBI_PLACE_FREE = 0, /* on the free stack */
    KVBI_PLACE_USED,     /* users > 0 */
    KVBI_PLACE_PARKED,   /* Registered and indexed, users == 0: evictable unless a lane holds it */
    KVBI_PLACE_TRANSFER, /* users == 0, a transfer writes it (a lane's target) */
    KVBI_PLACE_QUARANTINED, /* as TRANSFER, but its owner has given up on it */
    /* not given out: out of generations, condemned, or in a file that is out of service */
    KVBI_PLACE_RETIRED
};

/* From this bit of the flags on: how many of a slot's pins are on a lane's deck, 15 at most. */
#define KVBI_SLOT_ONDECK_SHIFT 4

enum kvbi_slot_flags {
    /* parked, but taken out of the order by an eviction that met a lane's hold */
    KVBI_SLOT_PASSED = 1,
    /* retired instead of freed, and still marked: its place fails, a lost GPU may write it */
    KVBI_SLOT_CONDEMNED = 4,
    KVBI_SLOT_LOST = 8, /* retired with its file, and comes back with it */
    KVBI_SLOT_ONDECK = 1 << KVBI_SLOT_ONDECK_SHIFT /* one of those pins */
};

struct kvb_block {
    _Atomic uint64_t word; /* generation << 20 | users */
    _Atomic uint64_t life; /* see lifecycle.h */

    /* the sole user's while unregistered, then the store lock's */
    /* what a transfer into or out of this slot waits for (block/ticket.h) */
    uint64_t ticket;
    uint32_t record; /* names and tokens it owns, or KVBI_NONE */

    /* the store lock's */
    uint32_t entry; /* index entry, or KVBI_NONE */
    uint32_t offer; /* the first of its pending offers to lanes, or KVBI_NONE */
    uint8_t place;  /* enum kvbi_place */
    uint8_t priority;
    uint8_t holds; /* lanes and operations that read or write the slot */
    uint8_t flags;
    uint64_t retention_ns;       /* when priority falls back to the default; 0: never */
    struct kvbi_band_node order; /* the eviction policy's */
};

_Static_assert(sizeof(struct kvb_block) == 64, "a slot is one cache line");

static inline uint32_t kvbi_slot_ondeck(const struct kvb_block *block)
{
    return block->flags >> KVBI_SLOT_ONDECK_SHIFT;
}

/*
 * Is it pinned by on-deck offers alone, which no engine has taken? Then the pins can be taken back.
 */
static inline bool kvbi_slot_is_revocable(const struct kvb_block *block)
{
    return block->holds > 0 && block->holds == kvbi_slot_ondeck(block);
}

static inline uint64_t kvbi_word_users(uint64_t word)
{
    return word & KVBI_USERS_MAX;
}

static inline uint64_t kvbi_word_generation(uint64_t word)
{
    return word >> KVBI_USERS_BITS;
}

/*
 * The content goes, and what was said of it: the slot becomes Empty. Whoever makes it so calls
 * this.
 */
static inline void kvbi_slot_forget_content(struct kvb_block *block)
{
    block->priority = KVB_PRIORITY_DEFAULT;
    block->retention_ns = 0;
}

/*
 * One more user of a block that has some already. 0, KVB_EINVAL (nobody uses it) or KVB_EAGAIN (the
 * count is full).
 */
int kvbi_slot_ref(struct kvb_block *block);

/*
 * One user less, unless it is the last one. True if done; false: users was 1 or 0, the store
 * decides under its lock.
 */
bool kvbi_slot_unref_shared(struct kvb_block *block);

/*
 * Upgrade while somebody uses it. 0; KVB_ESTALE: other generation; KVB_EAGAIN: count full;
 * KVB_EBUSY: nobody does.
 */
int kvbi_slot_upgrade_used(struct kvb_block *block, uint64_t generation);

#endif
