/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pipeline: which lanes there are, what triggers them, and how room is made when they stand in the way.
 *
 * Owns       the lanes of both directions, the engines. The tiers must outlive it.
 * Callers    api/ after each store operation that a trigger cares about; offload/progress.
 * Invariants tiers are linked in order of speed; lanes[t] exists where tier t has a lower neighbour, and onboard.lanes[t] likewise.
 * Lock       the store's for everything named ..._locked; the rest is fixed at create.
 */
#ifndef KVBI_OFFLOAD_PIPELINE_H
#define KVBI_OFFLOAD_PIPELINE_H

#include <stdbool.h>
#include <stdint.h>

#include <kvblock.h>

#include "offload/health.h"
#include "offload/lane.h"
#include "offload/onboard.h"
#include "store/store.h"
#include "transfer/engines.h"
#include "transfer/tier.h"

struct kvbi_pipeline {
    struct kvbi_store *store;
    struct kvbi_engines engines;
    struct kvb_admission admission;
    struct kvbi_tier *tiers; /* KVB_TIER_COUNT, by tier */
    struct kvbi_health health;
    uint32_t lower[KVB_TIER_COUNT], upper[KVB_TIER_COUNT]; /* neighbours, or KVBI_NONE */
    struct kvbi_lane lanes[KVB_TIER_COUNT];
    struct kvbi_onboarding onboard;
};

struct kvbi_pipeline_config {
    const struct kvb_tier_config
        *configs; /* defaults resolved; one a tier, by index; block_count 0: absent */
    struct kvbi_tier *tiers;
    struct kvb_admission admission;
    uint32_t op_capacity;
    bool own_thread;
    const struct kvbi_hooks *hooks;
};

int kvbi_pipeline_create(struct kvbi_pipeline *pipeline, struct kvbi_store *store,
                         const struct kvbi_pipeline_config *config, char *message,
                         size_t message_bytes);
void kvbi_pipeline_destroy(struct kvbi_pipeline *pipeline); /* legal on a zeroed object */
size_t kvbi_pipeline_bytes(const struct kvbi_pipeline *pipeline);

static inline bool kvbi_pipeline_has_lane(const struct kvbi_pipeline *pipeline, uint32_t tier)
{
    return pipeline->lower[tier] != KVBI_NONE;
}

/*
 * One block, for a user or as a transfer's target: free, evicted, or freed from the deck. NULL:
 * there is none, or the search is cut short (pool->cut_short), as kvbi_store_take_locked has it.
 */
struct kvb_block *kvbi_pipeline_take_locked(struct kvbi_pipeline *pipeline, struct kvbi_pool *pool,
                                            bool user, uint64_t now_ns);

/*
 * The same for a transfer's target, one that is ready before any that is not:
 * kvbi_store_take_target_locked.
 */
struct kvb_block *kvbi_pipeline_take_target_locked(struct kvbi_pipeline *pipeline,
                                                   struct kvbi_pool *pool, struct kvbi_wish *wish,
                                                   uint64_t now_ns);
/* Beyond which point somebody who waits for a fence in front of a lane is to be looked at. */
struct kvbi_point kvbi_pipeline_until_locked(const struct kvbi_pipeline *pipeline);

/* Triggers. */
void kvbi_pipeline_registered_locked(struct kvbi_pipeline *pipeline, struct kvbi_pool *pool,
                                     struct kvb_block *block);
/* A lane has published it here: the chain goes on, as registered, and as parked if nobody took hold of it. */
void kvbi_pipeline_arrived_locked(struct kvbi_pipeline *pipeline, struct kvbi_pool *pool,
                                  struct kvb_block *block);

/*
 * Blocks are parked tail first, so that tails are evicted before heads, and offered head first, so that a full in-queue sheds
 * tails. This remembers who was parked under one hold of the lock, until the offers are made at its end.
 */
struct kvbi_parking {
    uint32_t count;
    struct kvb_block *blocks[KVBI_LOCK_BATCH];
};

/* One user less. What is parked by it is noted; at most KVBI_LOCK_BATCH before kvbi_pipeline_parked_locked. */
void kvbi_pipeline_release_locked(struct kvbi_pipeline *pipeline, struct kvbi_parking *parking,
                                  struct kvbi_pool *pool, struct kvb_block *block, uint64_t now_ns);
/* Offers them, the last parked first. Before the lock is released. */
void kvbi_pipeline_parked_locked(struct kvbi_pipeline *pipeline, struct kvbi_parking *parking);

/* Offers blocks of the pool that have become cold, KVBI_LOCK_BATCH at most. True if there may be more. */
bool kvbi_pipeline_cold_locked(struct kvbi_pipeline *pipeline, struct kvbi_pool *pool,
                               uint64_t now_ns);

/* ---- Fences ---------------------------------------------------------------------------------- */

/*
 * May this block wait for this fence? A point in the streams of a device is for blocks in its
 * memory. 0 or KVB_EUNSUPPORTED.
 */
static inline int kvbi_pipeline_takes_ticket(const struct kvbi_pipeline *pipeline,
                                             const struct kvbi_pool *pool, uint64_t ticket)
{
    return kvbi_engines_is_event(&pipeline->engines, ticket) &&
                   !pipeline->tiers[pool->tier].on_streams
               ? KVB_EUNSUPPORTED
               : 0;
}

/* The block's transfers wait for it, and for what they wait for already. Of a block that takes it. */
static inline void kvbi_pipeline_set_ticket(const struct kvbi_pipeline *pipeline,
                                            const struct kvbi_pool *pool, struct kvb_block *block,
                                            uint64_t ticket)
{
    if (kvbi_engines_is_event(&pipeline->engines, ticket))
        kvbi_engines_set_event(&pipeline->engines, kvbi_pool_slot(pool, block), ticket);
    else if (ticket > block->ticket)
        block->ticket = ticket;
}

/* Nothing queued, on deck or in transfer in any lane, no operation unfinished. */
bool kvbi_pipeline_idle_locked(const struct kvbi_pipeline *pipeline);

#endif
