/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All lanes of offloading: which there are, what triggers them, and how room is made when they
 * stand in the way.
 *
 * Owns       the lanes, in a list; for each tier those that leave it, in order, and their offers.
 * Callers    api/ after each store operation that a trigger cares about; offload/onboard, which
 *            makes room and gives blocks back; offload/pipeline, which builds it, offload/round and
 *            offload/progress, which drive it. It knows nothing of onboarding.
 * Invariants a lane goes to a lower tier, and one lane at most goes into a tier. Lanes out of one
 *            tier know nothing of each other: a block is offered to each, copied by each, and what
 *            one does with its offer is nothing to the others. Only who needs the block's slot,
 *            or its content no more, asks all of them.
 * Lock       the store's for everything named ..._locked; the rest is fixed at create.
 */
#ifndef KVBI_OFFLOAD_LANES_H
#define KVBI_OFFLOAD_LANES_H

#include <stdbool.h>
#include <stdint.h>

#include <kvblock.h>

#include "offload/lane.h"
#include "store/store.h"
#include "transfer/engines.h"
#include "transfer/tier.h"

/* From one tier into another. */
struct kvbi_route {
    uint32_t from, to;
};

/* One into each tier but the highest. */
#define KVBI_LANE_MAX (KVB_TIER_COUNT - 1)

/* What leaves a tier. */
struct kvbi_lanes_out {
    struct kvbi_lane *lanes[KVBI_LANE_MAX]; /* in the order in which they are asked */
    uint32_t count;
    struct kvbi_offers offers;
};

struct kvbi_lanes {
    struct kvbi_store *store;
    struct kvbi_engines *engines;
    const struct kvbi_tier *tiers; /* KVB_TIER_COUNT, by tier */
    struct kvbi_lane all[KVBI_LANE_MAX];
    uint32_t count;
    struct kvbi_lanes_out out[KVB_TIER_COUNT]; /* by tier */
    uint32_t upper[KVB_TIER_COUNT];            /* the tier that the lane into this one leaves */
};

struct kvbi_lanes_config {
    const struct kvb_tier_config *configs; /* defaults resolved; one a tier, by index */
    const struct kvbi_tier *tiers;         /* by tier; must outlive the lanes, as the next */
    struct kvbi_engines *engines;          /* looked at once there are offers */
    const struct kvbi_route *routes;       /* those out of one tier next to each other, in order */
    uint32_t route_count;
};

/*
 * From here on the store asks the lanes to drop offers, and its pools tell them of what can be
 * revoked: they stay where they are. KVB_ENOMEM: kvbi_lanes_destroy is still to be called.
 */
int kvbi_lanes_create(struct kvbi_lanes *lanes, struct kvbi_store *store,
                      const struct kvbi_lanes_config *config);
void kvbi_lanes_destroy(struct kvbi_lanes *lanes); /* legal on a zeroed object */
size_t kvbi_lanes_bytes(const struct kvbi_lanes *lanes);

/* Does a lane leave the tier? */
static inline bool kvbi_lanes_leave(const struct kvbi_lanes *lanes, uint32_t tier)
{
    return lanes->out[tier].count > 0;
}

/* ---- By hand --------------------------------------------------------------------------------- */

/*
 * Offers a block to each lane out of its tier that has no offer of it; its transfers wait for
 * `ticket`. 0, KVB_ESTATE (not Registered and indexed), KVB_ENOENT (no lane leaves the tier),
 * KVB_EBUSY (every lane has an offer of it) or KVB_EUNSUPPORTED (the ticket).
 */
int kvbi_lanes_offer_locked(struct kvbi_lanes *lanes, struct kvbi_pool *pool,
                            struct kvb_block *block, uint32_t priority, uint64_t ticket);
/*
 * Takes back what waits, in every lane. 0; KVB_ENOENT (there is no offer of it) or KVB_EBUSY (an
 * offer does not wait any more, and goes on).
 */
int kvbi_lanes_cancel_locked(struct kvbi_lanes *lanes, const struct kvbi_pool *pool,
                             struct kvb_block *block);

/* ---- Room ------------------------------------------------------------------------------------ */

/*
 * One block, for a user or as a transfer's target: free, evicted, or freed from the deck. NULL:
 * there is none, or the search is cut short (pool->cut_short), as kvbi_store_take_locked has it.
 */
struct kvb_block *kvbi_lanes_take_locked(struct kvbi_lanes *lanes, struct kvbi_pool *pool,
                                         bool user, uint64_t now_ns);

/*
 * The same for a transfer's target, one that is ready before any that is not:
 * kvbi_store_take_target_locked.
 */
struct kvb_block *kvbi_lanes_take_target_locked(struct kvbi_lanes *lanes, struct kvbi_pool *pool,
                                                struct kvbi_criteria *criteria, uint64_t now_ns);

/* How many copies that read or write blocks of the tier these lanes have with an engine. */
uint32_t kvbi_lanes_moving_locked(const struct kvbi_lanes *lanes, uint32_t tier);

/* ---- Triggers -------------------------------------------------------------------------------- */

void kvbi_lanes_registered_locked(struct kvbi_lanes *lanes, struct kvbi_pool *pool,
                                  struct kvb_block *block);
/*
 * A lane has published it here: the chain goes on, as registered, and as parked if nobody uses 
 * it.
 */
void kvbi_lanes_arrived_locked(struct kvbi_lanes *lanes, struct kvbi_pool *pool,
                               struct kvb_block *block);

/*
 * Blocks are parked tail first, so that tails are evicted before heads, and offered head first, so
 * that a full in-queue sheds tails. This remembers who was parked in one section, until
 * the offers are made at its end.
 */
struct kvbi_parking {
    uint32_t count;
    struct kvb_block *blocks[KVBI_LOCK_BATCH];
};

/*
 * One user less. What is parked by it is noted; at most KVBI_LOCK_BATCH before
 * kvbi_lanes_parked_locked.
 */
void kvbi_lanes_unref_locked(struct kvbi_lanes *lanes, struct kvbi_parking *parking,
                             struct kvbi_pool *pool, struct kvb_block *block, uint64_t now_ns);
/* Offers them, the last parked first. Before the lock is released. */
void kvbi_lanes_parked_locked(struct kvbi_lanes *lanes, struct kvbi_parking *parking);

/*
 * Offers blocks of the pool that have become cold, KVBI_LOCK_BATCH at most. True if there may be
 * more.
 */
bool kvbi_lanes_cold_locked(struct kvbi_lanes *lanes, struct kvbi_pool *pool, uint64_t now_ns);

/* No trigger offers anything any more. */
void kvbi_lanes_close_locked(struct kvbi_lanes *lanes);

/* ---- Fences ---------------------------------------------------------------------------------- */

/*
 * May this block wait for this fence? A point in a device's streams is for blocks in its memory. 0
 * or KVB_EUNSUPPORTED.
 */
static inline int kvbi_lanes_takes_ticket(const struct kvbi_lanes *lanes,
                                          const struct kvbi_pool *pool, uint64_t ticket)
{
    return kvbi_ticket_is_stream(ticket) && !lanes->tiers[pool->tier].on_streams ? KVB_EUNSUPPORTED
                                                                                 : 0;
}

/*
 * The block's transfers wait for it, and for what they wait for already. Of a block that takes it:
 * the sole user's, with no lock held, since a stream of ours may have to wait for both.
 */
static inline void kvbi_lanes_set_ticket(const struct kvbi_lanes *lanes, struct kvb_block *block,
                                         uint64_t ticket)
{
    block->ticket = kvbi_engines_both(lanes->engines, block->ticket, ticket);
}
/* The same of a block that others may use: the host may have to wait for both. */
static inline void kvbi_lanes_set_ticket_locked(const struct kvbi_lanes *lanes,
                                                struct kvb_block *block, uint64_t ticket)
{
    kvbi_lock_assert_held(&lanes->store->lock);
    block->ticket = kvbi_engines_latest(lanes->engines, block->ticket, ticket);
}

/* ---- For offload/progress -------------------------------------------------------------------- */

/* Adds what offers that wait in front of a lane are to be looked at for. */
void kvbi_lanes_await_locked(const struct kvbi_lanes *lanes, struct kvbi_awaited *awaited);

/* Nothing queued, on deck or in transfer. */
bool kvbi_lanes_idle_locked(const struct kvbi_lanes *lanes);

/*
 * Adds what there is to say of each lane to the picture, and to the tier below it: what is known of
 * the tiers stands there already.
 */
void kvbi_lanes_stats_locked(const struct kvbi_lanes *lanes, uint64_t now_ns,
                             struct kvb_stats *stats);

/* ---- Checking -------------------------------------------------------------------------------- */

/* Every invariant of lanes and offers, by walking everything. NULL, or which one is broken. */
const char *kvbi_lanes_check_locked(const struct kvbi_lanes *lanes);

#endif
