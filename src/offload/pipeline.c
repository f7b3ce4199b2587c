/* SPDX-License-Identifier: Apache-2.0 */
/* Lanes, onboarding and engines, put together. See pipeline.h. */
#include "offload/pipeline.h"

#include <stdio.h>

/* Each tier into the next one down. Returns how many. */
static uint32_t find_routes(const struct kvb_tier_config *configs,
                            struct kvbi_route routes[KVB_TIER_COUNT])
{
    uint32_t count = 0, above = KVBI_NONE;
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++) {
        if (configs[tier].block_count == 0)
            continue;
        if (above != KVBI_NONE)
            routes[count++] = (struct kvbi_route){above, tier};
        above = tier;
    }
    return count;
}

static int create_lanes(struct kvbi_pipeline *pipeline, const struct kvbi_pipeline_config *config)
{
    struct kvbi_route routes[KVB_TIER_COUNT];
    struct kvbi_lanes_config lanes = {.configs = config->configs,
                                      .tiers = config->tiers,
                                      .engines = &pipeline->engines,
                                      .routes = routes,
                                      .route_count = find_routes(config->configs, routes)};
    return kvbi_lanes_create(&pipeline->lanes, pipeline->store, &lanes);
}

/* What all lanes together may have with the engine, both ways. */
static uint32_t engine_capacity(const struct kvbi_pipeline *pipeline)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < pipeline->lanes.count; i++)
        sum += pipeline->lanes.all[i].inflight_max;
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++)
        sum += pipeline->onboard.lanes[tier].inflight_max;
    return sum > 0 ? sum : 1;
}

static int create_engines(struct kvbi_pipeline *pipeline, const struct kvbi_pipeline_config *config,
                          char *message, size_t message_bytes)
{
    struct kvbi_store *store = pipeline->store;
    struct kvbi_engines_config engines = {.tiers = pipeline->tiers,
                                          .configs = config->configs,
                                          .capacity = engine_capacity(pipeline),
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

int kvbi_pipeline_create(struct kvbi_pipeline *pipeline, struct kvbi_store *store,
                         const struct kvbi_pipeline_config *config, char *message,
                         size_t message_bytes)
{
    *pipeline = (struct kvbi_pipeline){
        .store = store, .tiers = config->tiers, .admission = config->admission};
    kvbi_health_init(&pipeline->health, store, config->tiers);
    int error = create_lanes(pipeline, config);
    if (error == 0)
        error = kvbi_onboarding_create(&pipeline->onboard, &pipeline->lanes, config->configs,
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
    kvbi_lanes_destroy(&pipeline->lanes);
    *pipeline = (struct kvbi_pipeline){0};
}

size_t kvbi_pipeline_bytes(const struct kvbi_pipeline *pipeline)
{
    return kvbi_onboarding_bytes(&pipeline->onboard) + kvbi_lanes_bytes(&pipeline->lanes) +
           kvbi_engines_bytes(&pipeline->engines);
}

void kvbi_pipeline_await_locked(const struct kvbi_pipeline *pipeline, struct kvbi_awaited *awaited)
{
    kvbi_lock_assert_held(&pipeline->store->lock);
    kvbi_awaited_clear(awaited);
    kvbi_lanes_await_locked(&pipeline->lanes, awaited);
    kvbi_onboarding_await_locked(&pipeline->onboard, awaited);
}

bool kvbi_pipeline_idle_locked(const struct kvbi_pipeline *pipeline)
{
    kvbi_lock_assert_held(&pipeline->store->lock);
    return kvbi_lanes_idle_locked(&pipeline->lanes) &&
           kvbi_onboarding_idle_locked(&pipeline->onboard);
}

void kvbi_pipeline_stats_locked(const struct kvbi_pipeline *pipeline, uint64_t now_ns,
                                struct kvb_stats *stats)
{
    kvbi_lock_assert_held(&pipeline->store->lock);
    kvbi_lanes_stats_locked(&pipeline->lanes, now_ns, stats);
    kvbi_onboarding_stats_locked(&pipeline->onboard, now_ns, stats);
}

const char *kvbi_pipeline_check_locked(const struct kvbi_pipeline *pipeline)
{
    kvbi_lock_assert_held(&pipeline->store->lock);
    const char *wrong = kvbi_onboarding_check_locked(&pipeline->onboard);
    return wrong != NULL ? wrong : kvbi_lanes_check_locked(&pipeline->lanes);
}
