/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The offers out of one tier, of every lane and in every stage, and which of them are of one block.
 *
 *    block->offer ──► offer of one lane ──other──► offer of another lane ──other──► KVBI_NONE
 *
 * Owns       the offers, and the chain of each block's.
 * Callers    offload/lanes, which has one for each tier that lanes leave; offload/lane and
 *            offload/in_queue, each with the offers of its own lane.
 * Invariants an offer that is not free is in the chain of its slot's block, which has one of each
 *            lane at most. A slot that becomes free has none: what waits of it is dropped before,
 *            what is taken pins it. There are as many offers as all lanes out of the tier can have
 *            at once.
 * Lock       the store's.
 * Why        a slot is one cache line, with room for one number. An offer has room for the next,
 *            in a line that whoever goes that far needs anyway; so a block that is not offered, or
 *            to one lane only, costs what it would if there were one lane.
 */
#ifndef KVBI_OFFLOAD_OFFERS_H
#define KVBI_OFFLOAD_OFFERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bands.h"
#include "base/memory.h"
#include "block/slot.h"

struct kvbi_label;

enum kvbi_offer_stage {
    KVBI_OFFER_FREE = 0,
    KVBI_OFFER_QUEUED,
    KVBI_OFFER_DEFERRED,
    KVBI_OFFER_ONDECK,
    KVBI_OFFER_TAKEN /* off the deck, and pinned */
};

struct kvbi_offer {
    /* of a list of waiting ones, of the deck, or of the free list (next) */
    struct kvbi_band_node node;
    uint64_t generation;
    uint32_t slot;
    uint32_t target; /* TAKEN: slot in the target tier, or KVBI_NONE */
    union {
        struct kvbi_label *label; /* TAKEN and aimed, of a copy to a disk */
        uint64_t ondeck_age;      /* ONDECK: how many have gone there before it */
    };
    uint32_t other; /* the next in the block's chain, or KVBI_NONE */
    uint8_t stage;
    uint8_t priority;
    uint8_t lane; /* which of the lanes out of the tier */
    /* ONDECK, TAKEN: one of the few of its lane that may wait there for its tickets */
    bool unready : 1;
    bool admitted : 1; /* admission has been asked */
};

_Static_assert(sizeof(struct kvbi_offer) == 48, "there are as many as in-queues are long");

struct kvbi_offers {
    const struct kvbi_memory *memory;
    struct kvbi_offer *all;
    uint32_t count;
    uint32_t free_head, untouched;
};

/* count: as many as there can be at once. KVB_ENOMEM. */
int kvbi_offers_create(struct kvbi_offers *offers, const struct kvbi_memory *memory,
                       uint32_t count);
void kvbi_offers_destroy(struct kvbi_offers *offers); /* legal on a zeroed object */
size_t kvbi_offers_bytes(const struct kvbi_offers *offers);

static inline struct kvbi_offer *kvbi_offers_at(const struct kvbi_offers *offers, uint32_t id)
{
    return &offers->all[id];
}

/* A new one of the block in `slot`, in its chain. The lane has none of it. */
uint32_t kvbi_offers_new(struct kvbi_offers *offers, struct kvb_block *block, uint32_t slot,
                         uint8_t lane, uint8_t priority);
/* Out of the block's chain, if it is there. */
void kvbi_offers_unlink(const struct kvbi_offers *offers, struct kvb_block *block, uint32_t id);
/* One that is in no chain. */
void kvbi_offers_free(struct kvbi_offers *offers, uint32_t id);

/* The block's offer to a lane. KVBI_NONE: it has none. */
static inline uint32_t kvbi_offers_find(const struct kvbi_offers *offers,
                                        const struct kvb_block *block, uint8_t lane)
{
    uint32_t id = block->offer;
    while (id != KVBI_NONE && offers->all[id].lane != lane)
        id = offers->all[id].other;
    return id;
}

#endif
