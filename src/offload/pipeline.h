/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pipeline: what moves blocks, put together.
 *
 * Owns       the lanes of both directions, the engines, and how the tiers are. Those must outlive it.
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

/* Beyond which point somebody who waits for a fence in front of a lane is to be looked at. */
struct kvbi_point kvbi_pipeline_until_locked(const struct kvbi_pipeline *pipeline);

/* Nothing queued, on deck or in transfer in any lane, no operation unfinished. */
bool kvbi_pipeline_idle_locked(const struct kvbi_pipeline *pipeline);

#endif
