/* SPDX-License-Identifier: Apache-2.0 */
/* Lanes, triggers and room. See pipeline.h. */
#include "offload/pipeline.h"

#include <stdio.h>

static void link_tiers(struct kvbi_pipeline *pipeline, const struct kvb_tier_config *tiers)
{
    uint32_t above = KVBI_NONE;
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++) {
        pipeline->lower[tier] = pipeline->upper[tier] = KVBI_NONE;
        if (tiers[tier].block_count == 0)
            continue;
        pipeline->upper[tier] = above;
        if (above != KVBI_NONE)
            pipeline->lower[above] = tier;
        above = tier;
    }
}

static int create_lanes(struct kvbi_pipeline *pipeline, const struct kvbi_pipeline_config *config)
{
    int error = 0;
    for (uint32_t tier = 0; error == 0 && tier < KVB_TIER_COUNT; tier++)
        if (kvbi_pipeline_has_lane(pipeline, tier))
            error = kvbi_lane_create(&pipeline->lanes[tier], pipeline->store, &pipeline->engines,
                                     config->configs, &pipeline->tiers[tier],
                                     &pipeline->tiers[pipeline->lower[tier]]);
    return error;
}

/* What all lanes together may have with the engine, both ways. */
static uint32_t engine_capacity(const struct kvbi_pipeline *pipeline,
                                const struct kvbi_pipeline_config *config)
{
    uint32_t sum = 0;
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++)
        if (kvbi_pipeline_has_lane(pipeline, tier))
            sum += 2 * config->configs[tier].batch * config->configs[tier].depth;
    return sum > 0 ? sum : 1;
}

static int create_engines(struct kvbi_pipeline *pipeline, const struct kvbi_pipeline_config *config,
                          char *message, size_t message_bytes)
{
    struct kvbi_store *store = pipeline->store;
    struct kvbi_engines_config engines = {.tiers = pipeline->tiers,
                                          .configs = config->configs,
                                          .capacity = engine_capacity(pipeline, config),
                                          .own_thread = config->own_thread,
                                          .memory = store->memory,
                                          .clock = store->clock,
                                          .log = store->log,
                                          .hooks = config->hooks};
    int error = kvbi_engines_create(&pipeline->engines, &engines);
    if (error != 0 && pipeline->engines.said[0] != '\0')
        (void)snprintf(message, message_bytes, "%s", pipeline->engines.said);
    return error;
}

static void drop_offer_locked(void *context, struct kvbi_pool *pool, struct kvb_block *block)
{
    struct kvbi_pipeline *pipeline = context;
    kvbi_lane_forget_locked(&pipeline->lanes[pool->tier], block);
}

int kvbi_pipeline_create(struct kvbi_pipeline *pipeline, struct kvbi_store *store,
                         const struct kvbi_pipeline_config *config, char *message,
                         size_t message_bytes)
{
    *pipeline = (struct kvbi_pipeline){
        .store = store, .tiers = config->tiers, .admission = config->admission};
    kvbi_health_init(&pipeline->health, store, config->tiers);
    store->asks = (struct kvbi_store_asks){.drop_offer = drop_offer_locked, .context = pipeline};
    link_tiers(pipeline, config->configs);
    int error = create_lanes(pipeline, config);
    if (error == 0)
        error = kvbi_onboarding_create(&pipeline->onboard, pipeline, config->configs,
                                       config->op_capacity);
    if (error == 0)
        error = create_engines(pipeline, config, message, message_bytes);
    if (error != 0)
        kvbi_pipeline_destroy(pipeline);
    return error;
}

void kvbi_pipeline_destroy(struct kvbi_pipeline *pipeline)
{
    kvbi_engines_destroy(&pipeline->engines);
    kvbi_onboarding_destroy(&pipeline->onboard);
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++)
        kvbi_lane_destroy(&pipeline->lanes[tier]);
    *pipeline = (struct kvbi_pipeline){0};
}

size_t kvbi_pipeline_bytes(const struct kvbi_pipeline *pipeline)
{
    size_t bytes = kvbi_onboarding_bytes(&pipeline->onboard);
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++)
        bytes += kvbi_lane_bytes(&pipeline->lanes[tier]);
    return bytes + kvbi_engines_bytes(&pipeline->engines);
}

struct kvb_block *kvbi_pipeline_take_locked(struct kvbi_pipeline *pipeline, struct kvbi_pool *pool,
                                            bool user, uint64_t now_ns)
{
    for (;;) {
        struct kvb_block *block =
            kvbi_store_take_locked(pipeline->store, pool, user, KVB_PRIORITY_MAX, now_ns);
        if (block != NULL || pool->cut_short || !kvbi_pipeline_has_lane(pipeline, pool->tier) ||
            !kvbi_lane_revoke_locked(&pipeline->lanes[pool->tier], now_ns))
            return block;
    }
}

struct kvb_block *kvbi_pipeline_take_target_locked(struct kvbi_pipeline *pipeline,
                                                   struct kvbi_pool *pool, struct kvbi_wish *wish,
                                                   uint64_t now_ns)
{
    for (;;) {
        struct kvb_block *block =
            kvbi_store_take_target_locked(pipeline->store, pool, wish, now_ns);
        if (block != NULL || pool->cut_short || !kvbi_pipeline_has_lane(pipeline, pool->tier) ||
            !kvbi_lane_revoke_locked(&pipeline->lanes[pool->tier], now_ns))
            return block;
    }
}

static void earlier(struct kvbi_point *until, const struct kvbi_fenced *fenced)
{
    if (fenced->until.ticket < until->ticket)
        until->ticket = fenced->until.ticket;
    if (fenced->until.event < until->event)
        until->event = fenced->until.event;
}

struct kvbi_point kvbi_pipeline_until_locked(const struct kvbi_pipeline *pipeline)
{
    struct kvbi_point until = {.ticket = UINT64_MAX, .event = UINT64_MAX};
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++)
        if (kvbi_pipeline_has_lane(pipeline, tier)) {
            earlier(&until, &pipeline->lanes[tier].queue.fenced);
            earlier(&until, &pipeline->onboard.lanes[tier].fenced);
        }
    return until;
}

static void trigger(struct kvbi_pipeline *pipeline, struct kvbi_pool *pool, struct kvb_block *block,
                    uint32_t when)
{
    if (!kvbi_pipeline_has_lane(pipeline, pool->tier) ||
        pipeline->lanes[pool->tier].trigger != when)
        return;
    if (block->entry == KVBI_NONE || block->offer != KVBI_NONE)
        return; /* an unindexed duplicate is never offered; one offer at a time */
    uint64_t deadline_ns;
    unsigned priority = kvbi_pool_band(block, kvbi_clock_now(pipeline->store->clock), &deadline_ns);
    kvbi_lane_offer_locked(&pipeline->lanes[pool->tier], block, priority);
}

void kvbi_pipeline_registered_locked(struct kvbi_pipeline *pipeline, struct kvbi_pool *pool,
                                     struct kvb_block *block)
{
    trigger(pipeline, pool, block, KVB_OFFLOAD_ON_REGISTER);
}

void kvbi_pipeline_release_locked(struct kvbi_pipeline *pipeline, struct kvbi_parking *parking,
                                  struct kvbi_pool *pool, struct kvb_block *block, uint64_t now_ns)
{
    if (kvbi_store_release_locked(pipeline->store, pool, block, now_ns) != KVBI_RELEASE_PARKED ||
        !kvbi_pipeline_has_lane(pipeline, pool->tier))
        return;
    uint32_t when = pipeline->lanes[pool->tier].trigger;
    pipeline->store->work |= when == KVB_OFFLOAD_ON_COLD; /* the boundary has moved */
    if (when == KVB_OFFLOAD_ON_PARK)
        parking->blocks[parking->count++] = block;
}

void kvbi_pipeline_parked_locked(struct kvbi_pipeline *pipeline, struct kvbi_parking *parking)
{
    while (parking->count > 0) {
        struct kvb_block *block = parking->blocks[--parking->count];
        if (block->place ==
            KVBI_PLACE_PARKED) /* else it was needed for something else in the same breath */
            trigger(pipeline, kvbi_store_pool_of(pipeline->store, block), block,
                    KVB_OFFLOAD_ON_PARK);
    }
}

void kvbi_pipeline_arrived_locked(struct kvbi_pipeline *pipeline, struct kvbi_pool *pool,
                                  struct kvb_block *block)
{
    trigger(pipeline, pool, block, KVB_OFFLOAD_ON_REGISTER);
    if (block->place == KVBI_PLACE_PARKED)
        trigger(pipeline, pool, block, KVB_OFFLOAD_ON_PARK);
}

bool kvbi_pipeline_cold_locked(struct kvbi_pipeline *pipeline, struct kvbi_pool *pool,
                               uint64_t now_ns)
{
    if (!kvbi_pipeline_has_lane(pipeline, pool->tier) ||
        pipeline->lanes[pool->tier].trigger != KVB_OFFLOAD_ON_COLD)
        return false;
    for (uint32_t n = 0; n < KVBI_LOCK_BATCH; n++) {
        uint32_t slot = pool->policy->ops->next_cold(pool->policy, now_ns);
        if (slot == KVBI_NONE)
            return false;
        trigger(pipeline, pool, &pool->slots[slot], KVB_OFFLOAD_ON_COLD);
    }
    return true;
}

bool kvbi_pipeline_idle_locked(const struct kvbi_pipeline *pipeline)
{
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++)
        if (kvbi_pipeline_has_lane(pipeline, tier) && kvbi_lane_pending(&pipeline->lanes[tier]) > 0)
            return false;
    return kvbi_onboarding_idle_locked(&pipeline->onboard);
}
