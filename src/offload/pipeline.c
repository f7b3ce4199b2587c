/* SPDX-License-Identifier: Apache-2.0 */
/* Lanes, triggers and room. See pipeline.h. */
#include "offload/pipeline.h"

#include <stdio.h>

#include "transfer/tier_disk.h"

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
            error = kvbi_lane_create(&pipeline->lanes[tier], pipeline->store, &config->tiers[tier],
                                     &pipeline->tiers[tier], &pipeline->tiers[pipeline->lower[tier]]);
    return error;
}

/* What all lanes together may have with the engine, both ways. */
static uint32_t engine_capacity(const struct kvbi_pipeline *pipeline, const struct kvbi_pipeline_config *config)
{
    uint32_t sum = 0;
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++)
        if (kvbi_pipeline_has_lane(pipeline, tier))
            sum += 2 * config->tiers[tier].batch * config->tiers[tier].depth;
    return sum > 0 ? sum : 1;
}

static int create_tiers(struct kvbi_pipeline *pipeline, const struct kvbi_pipeline_config *config, char *message,
                        size_t message_bytes)
{
    const struct kvbi_memory *memory = pipeline->store->memory;
    int error = 0;
    for (uint32_t tier = 0; error == 0 && tier < KVB_TIER_COUNT; tier++) {
        const struct kvb_tier_config *given = &config->tiers[tier];
        struct kvbi_disk_config disk = {
            .path = given->path, .block_count = given->block_count, .block_bytes = config->block_bytes};
        if (given->block_count > 0 && given->path != NULL)
            error = kvbi_tier_disk_create(&pipeline->tiers[tier], memory, tier, &disk, message, message_bytes);
        else if (given->block_count > 0)
            error = kvbi_tier_host_create(&pipeline->tiers[tier], memory, tier, given->block_count, config->block_bytes,
                                          given->memory);
    }
    return error;
}

static int create_engines(struct kvbi_pipeline *pipeline, const struct kvbi_pipeline_config *config, char *message,
                          size_t message_bytes)
{
    struct kvbi_store *store = pipeline->store;
    struct kvbi_engines_config engines = {.tiers = pipeline->tiers,
                                          .configs = config->tiers,
                                          .capacity = engine_capacity(pipeline, config),
                                          .own_thread = config->own_thread,
                                          .hooks = config->hooks};
    int error = kvbi_engines_create(&pipeline->engines, store->memory, store->clock, &engines);
    if (error != 0 && pipeline->engines.said[0] != '\0')
        (void)snprintf(message, message_bytes, "%s", pipeline->engines.said);
    return error;
}

int kvbi_pipeline_create(struct kvbi_pipeline *pipeline, struct kvbi_store *store,
                         const struct kvbi_pipeline_config *config, char *message, size_t message_bytes)
{
    *pipeline = (struct kvbi_pipeline){.store = store, .admission = config->admission, .lost_cursor = KVBI_NONE};
    link_tiers(pipeline, config->tiers);
    int error = create_tiers(pipeline, config, message, message_bytes);
    if (error == 0)
        error = create_lanes(pipeline, config);
    if (error == 0)
        error = kvbi_onboarding_create(&pipeline->onboard, pipeline, config->tiers, config->op_capacity);
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
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++) {
        kvbi_lane_destroy(&pipeline->lanes[tier]);
        kvbi_tier_destroy(&pipeline->tiers[tier]);
    }
    *pipeline = (struct kvbi_pipeline){0};
}

size_t kvbi_pipeline_bytes(const struct kvbi_pipeline *pipeline)
{
    size_t bytes = kvbi_onboarding_bytes(&pipeline->onboard);
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++)
        bytes += kvbi_in_queue_bytes(&pipeline->lanes[tier].queue);
    for (uint32_t i = 0; i < pipeline->engines.count; i++)
        bytes += pipeline->engines.all[i]->ops->bytes(pipeline->engines.all[i]);
    if (pipeline->tiers[KVB_TIER_DISK].disk != NULL)
        bytes += kvbi_disk_bytes(pipeline->tiers[KVB_TIER_DISK].disk);
    return bytes;
}

struct kvb_block *kvbi_pipeline_take_locked(struct kvbi_pipeline *pipeline, struct kvbi_pool *pool, bool user,
                                            uint64_t now_ns)
{
    for (;;) {
        struct kvb_block *block = kvbi_store_take_locked(pipeline->store, pool, user, KVB_PRIORITY_MAX, now_ns);
        if (block != NULL || !kvbi_pipeline_has_lane(pipeline, pool->tier) ||
            !kvbi_lane_revoke_locked(&pipeline->lanes[pool->tier], now_ns))
            return block;
    }
}

static void trigger(struct kvbi_pipeline *pipeline, struct kvbi_pool *pool, struct kvb_block *block, uint32_t when)
{
    if (!kvbi_pipeline_has_lane(pipeline, pool->tier) || pipeline->lanes[pool->tier].trigger != when)
        return;
    if (block->entry == KVBI_NONE || block->offer != KVBI_NONE)
        return; /* an unindexed duplicate is never offered; one offer at a time */
    uint64_t deadline_ns;
    unsigned priority = kvbi_pool_band(block, kvbi_clock_now(pipeline->store->clock), &deadline_ns);
    kvbi_lane_offer_locked(&pipeline->lanes[pool->tier], block, priority);
}

void kvbi_pipeline_registered_locked(struct kvbi_pipeline *pipeline, struct kvbi_pool *pool, struct kvb_block *block)
{
    trigger(pipeline, pool, block, KVB_OFFLOAD_ON_REGISTER);
}

void kvbi_pipeline_release_locked(struct kvbi_pipeline *pipeline, struct kvbi_parking *parking, struct kvbi_pool *pool,
                                  struct kvb_block *block, uint64_t now_ns)
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
        if (block->place == KVBI_PLACE_PARKED) /* else it was needed for something else in the same breath */
            trigger(pipeline, kvbi_store_pool_of(pipeline->store, block), block, KVB_OFFLOAD_ON_PARK);
    }
}

void kvbi_pipeline_arrived_locked(struct kvbi_pipeline *pipeline, struct kvbi_pool *pool, struct kvb_block *block)
{
    trigger(pipeline, pool, block, KVB_OFFLOAD_ON_REGISTER);
    if (block->place == KVBI_PLACE_PARKED)
        trigger(pipeline, pool, block, KVB_OFFLOAD_ON_PARK);
}

bool kvbi_pipeline_cold_locked(struct kvbi_pipeline *pipeline, struct kvbi_pool *pool, uint64_t now_ns)
{
    if (!kvbi_pipeline_has_lane(pipeline, pool->tier) || pipeline->lanes[pool->tier].trigger != KVB_OFFLOAD_ON_COLD)
        return false;
    for (uint32_t n = 0; n < KVBI_LOCK_BATCH; n++) {
        uint32_t slot = pool->policy->ops->next_cold(pool->policy, now_ns);
        if (slot == KVBI_NONE)
            return false;
        trigger(pipeline, pool, &pool->slots[slot], KVB_OFFLOAD_ON_COLD);
    }
    return true;
}

void kvbi_pipeline_note_disk_locked(struct kvbi_pipeline *pipeline, struct kvbi_pool *pool, int result)
{
    uint8_t bit = (uint8_t)(1u << pool->tier);
    if (result == KVB_ECANCELED)
        return;
    pipeline->disk_errors = result == 0 ? 0 : pipeline->disk_errors + 1;
    if (pipeline->disk_errors < KVB_DISK_ERRORS_MAX || !(pipeline->store->serving & bit))
        return;
    pipeline->store->serving &= (uint8_t)~bit;
    pipeline->disk_lost_unsaid = true;
    pipeline->lost_cursor = 0;
}

bool kvbi_pipeline_forget_lost_locked(struct kvbi_pipeline *pipeline)
{
    struct kvbi_pool *pool = &pipeline->store->pools[KVB_TIER_DISK];
    if (pipeline->lost_cursor == KVBI_NONE)
        return false;
    for (uint32_t n = 0; n < KVBI_LOCK_BATCH && pipeline->lost_cursor < pool->block_count; n++) {
        struct kvb_block *block = &pool->slots[pipeline->lost_cursor++];
        if (block->entry != KVBI_NONE && kvbi_life_get(block).state == KVB_STATE_REGISTERED)
            kvbi_store_forget_copy_locked(pipeline->store, pool, block);
    }
    if (pipeline->lost_cursor == pool->block_count)
        pipeline->lost_cursor = KVBI_NONE;
    return true;
}

bool kvbi_pipeline_idle_locked(const struct kvbi_pipeline *pipeline)
{
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++)
        if (kvbi_pipeline_has_lane(pipeline, tier) && kvbi_lane_pending(&pipeline->lanes[tier]) > 0)
            return false;
    return kvbi_onboarding_idle_locked(&pipeline->onboard);
}
