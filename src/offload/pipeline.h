/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pipeline: which lanes there are, what triggers them, and how room is made when they stand in the way.
 *
 * Owns       the lanes of both directions, the tiers' memory, the engine.
 * Callers    api/ after each store operation that a trigger cares about; offload/progress.
 * Invariants tiers are linked in order of speed; lanes[t] exists where tier t has a lower neighbour, and onboard.lanes[t] likewise.
 * Lock       the store's for everything named ..._locked; the rest is fixed at create.
 */
#ifndef KVBI_OFFLOAD_PIPELINE_H
#define KVBI_OFFLOAD_PIPELINE_H

#include <stdbool.h>
#include <stdint.h>

#include <kvblock.h>

#include "offload/engines.h"
#include "offload/lane.h"
#include "offload/onboard.h"
#include "store/store.h"
#include "transfer/tier.h"

struct kvbi_pipeline {
    struct kvbi_store *store;
    struct kvbi_engines engines;
    struct kvb_admission admission;
    struct kvbi_tier tiers[KVB_TIER_COUNT];
    uint32_t lower[KVB_TIER_COUNT], upper[KVB_TIER_COUNT]; /* neighbours, or KVBI_NONE */
    struct kvbi_lane lanes[KVB_TIER_COUNT];
    struct kvbi_onboarding onboard;
    uint32_t disk_errors;  /* in a row */
    bool disk_lost_unsaid; /* out of service, and the log does not know yet */
    uint32_t lost_cursor;  /* next slot of the lost tier whose content is to be forgotten; KVBI_NONE: nothing to do */
};

struct kvbi_pipeline_config {
    const struct kvb_tier_config *tiers; /* defaults resolved; one a tier, by index; block_count 0: absent */
    struct kvb_admission admission;
    uint64_t block_bytes;
    uint32_t op_capacity;
    bool own_thread;
    const struct kvbi_hooks *hooks;
};

int kvbi_pipeline_create(struct kvbi_pipeline *pipeline, struct kvbi_store *store,
                         const struct kvbi_pipeline_config *config, char *message, size_t message_bytes);
void kvbi_pipeline_destroy(struct kvbi_pipeline *pipeline); /* legal on a zeroed object */
size_t kvbi_pipeline_bytes(const struct kvbi_pipeline *pipeline);

static inline bool kvbi_pipeline_has_lane(const struct kvbi_pipeline *pipeline, uint32_t tier)
{
    return pipeline->lower[tier] != KVBI_NONE;
}

/* One block, for a user or as a transfer's target: free, evicted, or freed from the deck. NULL: there is none. */
struct kvb_block *kvbi_pipeline_take_locked(struct kvbi_pipeline *pipeline, struct kvbi_pool *pool, bool user,
                                            uint64_t now_ns);

/* Triggers. */
void kvbi_pipeline_registered_locked(struct kvbi_pipeline *pipeline, struct kvbi_pool *pool, struct kvb_block *block);
/* A lane has published it here: the chain goes on, as registered, and as parked if nobody took hold of it. */
void kvbi_pipeline_arrived_locked(struct kvbi_pipeline *pipeline, struct kvbi_pool *pool, struct kvb_block *block);

/*
 * Blocks are parked tail first, so that tails are evicted before heads, and offered head first, so that a full in-queue sheds
 * tails. This remembers who was parked under one hold of the lock, until the offers are made at its end.
 */
struct kvbi_parking {
    uint32_t count;
    struct kvb_block *blocks[KVBI_LOCK_BATCH];
};

/* One user less. What is parked by it is noted; at most KVBI_LOCK_BATCH before kvbi_pipeline_parked_locked. */
void kvbi_pipeline_release_locked(struct kvbi_pipeline *pipeline, struct kvbi_parking *parking, struct kvbi_pool *pool,
                                  struct kvb_block *block, uint64_t now_ns);
/* Offers them, the last parked first. Before the lock is released. */
void kvbi_pipeline_parked_locked(struct kvbi_pipeline *pipeline, struct kvbi_parking *parking);

/* Offers blocks of the pool that have become cold, KVBI_LOCK_BATCH at most. True if there may be more. */
bool kvbi_pipeline_cold_locked(struct kvbi_pipeline *pipeline, struct kvbi_pool *pool, uint64_t now_ns);

/*
 * A disk has answered: KVB_DISK_ERRORS_MAX errors in a row take its tier out of service. Its copies are not found any more, its lane
 * takes nothing; what is in transfer ends.
 */
void kvbi_pipeline_note_disk_locked(struct kvbi_pipeline *pipeline, struct kvbi_pool *pool, int result);
/* Forgets what a lost tier held, with its events, KVBI_LOCK_BATCH slots at a time. True if there was something to do. */
bool kvbi_pipeline_forget_lost_locked(struct kvbi_pipeline *pipeline);

/* Nothing queued, on deck or in transfer in any lane, no operation unfinished. */
bool kvbi_pipeline_idle_locked(const struct kvbi_pipeline *pipeline);

#endif
