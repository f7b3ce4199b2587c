/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pipeline: what moves blocks, put together.
 *
 * Owns       the lanes of both directions, the engines, and how the tiers are. Those must outlive
 *            it.
 * Callers    api/, offload/round, offload/progress. Nothing that it is made of knows it.
 * Invariants onboard.lanes[t] exists where a lane leaves tier t.
 * Lock       the store's for everything named ..._locked; the rest is fixed at create.
 */
#ifndef KVBI_OFFLOAD_PIPELINE_H
#define KVBI_OFFLOAD_PIPELINE_H

#include <stdbool.h>
#include <stdint.h>

#include <kvblock.h>

#include "offload/health.h"
#include "offload/lanes.h"
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
    struct kvbi_lanes lanes;
    struct kvbi_onboarding onboard;
};

struct kvbi_pipeline_config {
    /* defaults resolved; one a tier, by index; block_count 0: absent */
    const struct kvb_tier_config *configs;
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

/* What it is made of, for callers of those. Fixed at create: no lock. */
static inline struct kvbi_lanes *kvbi_pipeline_lanes(struct kvbi_pipeline *pipeline)
{
    return &pipeline->lanes;
}

static inline struct kvbi_onboarding *kvbi_pipeline_onboarding(struct kvbi_pipeline *pipeline)
{
    return &pipeline->onboard;
}

static inline struct kvbi_health *kvbi_pipeline_health(struct kvbi_pipeline *pipeline)
{
    return &pipeline->health;
}

static inline const struct kvbi_engines *kvbi_pipeline_engines(const struct kvbi_pipeline *pipeline)
{
    return &pipeline->engines;
}

/* KVB_FENCE_COUNTER has been signalled: kvbi_engines_signal. */
static inline bool kvbi_pipeline_signal(struct kvbi_pipeline *pipeline, uint32_t line,
                                        uint64_t value)
{
    return kvbi_engines_signal(&pipeline->engines, line, value);
}

/* Which engines there are, how they work, and why not others. */
static inline const char *kvbi_pipeline_said(const struct kvbi_pipeline *pipeline)
{
    return pipeline->engines.said;
}

/* What those who are deferred in front of lanes are to be looked at for. */
void kvbi_pipeline_await_locked(const struct kvbi_pipeline *pipeline, struct kvbi_awaited *awaited);

/* Nothing queued, on deck or in transfer in any lane, no operation unfinished. */
bool kvbi_pipeline_idle_locked(const struct kvbi_pipeline *pipeline);

/* Its part of the picture, after the store's: lanes and operations. */
void kvbi_pipeline_stats_locked(const struct kvbi_pipeline *pipeline, uint64_t now_ns,
                                struct kvb_stats *stats);
/* Every invariant, by walking everything. For tests. NULL, or which one is broken. */
const char *kvbi_pipeline_check_locked(const struct kvbi_pipeline *pipeline);

#endif
