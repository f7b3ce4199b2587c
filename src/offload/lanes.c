/* SPDX-License-Identifier: Apache-2.0 */
/* Triggers and room. See lanes.h. */
#include "offload/lanes.h"

static void link_tiers(struct kvbi_lanes *lanes, const struct kvb_tier_config *tiers)
{
    uint32_t above = KVBI_NONE;
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++) {
        lanes->lower[tier] = lanes->upper[tier] = KVBI_NONE;
        if (tiers[tier].block_count == 0)
            continue;
        lanes->upper[tier] = above;
        if (above != KVBI_NONE)
            lanes->lower[above] = tier;
        above = tier;
    }
}

static void drop_offer_locked(void *context, struct kvbi_pool *pool, struct kvb_block *block)
{
    struct kvbi_lanes *lanes = context;
    kvbi_lane_forget_locked(&lanes->all[pool->tier], block);
}

int kvbi_lanes_create(struct kvbi_lanes *lanes, struct kvbi_store *store,
                      const struct kvbi_engines *engines, const struct kvbi_tier *tiers,
                      const struct kvb_tier_config *configs)
{
    int error = 0;
    *lanes = (struct kvbi_lanes){.store = store, .engines = engines, .tiers = tiers};
    store->asks = (struct kvbi_store_asks){.drop_offer = drop_offer_locked, .context = lanes};
    link_tiers(lanes, configs);
    for (uint32_t tier = 0; error == 0 && tier < KVB_TIER_COUNT; tier++)
        if (kvbi_lanes_leave(lanes, tier))
            error = kvbi_lane_create(&lanes->all[tier], store, engines, configs, &tiers[tier],
                                     &tiers[lanes->lower[tier]]);
    return error;
}

void kvbi_lanes_destroy(struct kvbi_lanes *lanes)
{
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++)
        kvbi_lane_destroy(&lanes->all[tier]);
    *lanes = (struct kvbi_lanes){0};
}

size_t kvbi_lanes_bytes(const struct kvbi_lanes *lanes)
{
    size_t bytes = 0;
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++)
        bytes += kvbi_lane_bytes(&lanes->all[tier]);
    return bytes;
}

/* ---- Room ------------------------------------------------------------------------------------ */

struct kvb_block *kvbi_lanes_take_locked(struct kvbi_lanes *lanes, struct kvbi_pool *pool,
                                         bool user, uint64_t now_ns)
{
    for (;;) {
        struct kvb_block *block =
            kvbi_store_take_locked(lanes->store, pool, user, KVB_PRIORITY_MAX, now_ns);
        if (block != NULL || pool->cut_short || !kvbi_lanes_leave(lanes, pool->tier) ||
            !kvbi_lane_revoke_locked(&lanes->all[pool->tier], now_ns))
            return block;
    }
}

struct kvb_block *kvbi_lanes_take_target_locked(struct kvbi_lanes *lanes, struct kvbi_pool *pool,
                                                struct kvbi_wish *wish, uint64_t now_ns)
{
    for (;;) {
        struct kvb_block *block = kvbi_store_take_target_locked(lanes->store, pool, wish, now_ns);
        if (block != NULL || pool->cut_short || !kvbi_lanes_leave(lanes, pool->tier) ||
            !kvbi_lane_revoke_locked(&lanes->all[pool->tier], now_ns))
            return block;
    }
}

uint32_t kvbi_lanes_moving_locked(const struct kvbi_lanes *lanes, uint32_t tier)
{
    uint32_t above = lanes->upper[tier];
    kvbi_lock_assert_held(&lanes->store->lock);
    return lanes->all[tier].book.inflight +
           (above != KVBI_NONE ? lanes->all[above].book.inflight : 0);
}

/* ---- Triggers -------------------------------------------------------------------------------- */

static void trigger(struct kvbi_lanes *lanes, struct kvbi_pool *pool, struct kvb_block *block,
                    uint32_t when)
{
    if (!kvbi_lanes_leave(lanes, pool->tier) || lanes->all[pool->tier].trigger != when)
        return;
    if (block->entry == KVBI_NONE || block->offer != KVBI_NONE)
        return; /* an unindexed duplicate is never offered; one offer at a time */
    uint64_t deadline_ns;
    unsigned priority = kvbi_pool_band(block, kvbi_clock_now(lanes->store->clock), &deadline_ns);
    kvbi_lane_offer_locked(&lanes->all[pool->tier], block, priority);
}

void kvbi_lanes_registered_locked(struct kvbi_lanes *lanes, struct kvbi_pool *pool,
                                  struct kvb_block *block)
{
    trigger(lanes, pool, block, KVB_OFFLOAD_ON_REGISTER);
}

void kvbi_lanes_release_locked(struct kvbi_lanes *lanes, struct kvbi_parking *parking,
                               struct kvbi_pool *pool, struct kvb_block *block, uint64_t now_ns)
{
    if (kvbi_store_release_locked(lanes->store, pool, block, now_ns) != KVBI_RELEASE_PARKED ||
        !kvbi_lanes_leave(lanes, pool->tier))
        return;
    uint32_t when = lanes->all[pool->tier].trigger;
    lanes->store->work |= when == KVB_OFFLOAD_ON_COLD; /* the boundary has moved */
    if (when == KVB_OFFLOAD_ON_PARK)
        parking->blocks[parking->count++] = block;
}

void kvbi_lanes_parked_locked(struct kvbi_lanes *lanes, struct kvbi_parking *parking)
{
    while (parking->count > 0) {
        struct kvb_block *block = parking->blocks[--parking->count];
        if (block->place ==
            KVBI_PLACE_PARKED) /* else it was needed for something else in the same breath */
            trigger(lanes, kvbi_store_pool_of(lanes->store, block), block, KVB_OFFLOAD_ON_PARK);
    }
}

void kvbi_lanes_arrived_locked(struct kvbi_lanes *lanes, struct kvbi_pool *pool,
                               struct kvb_block *block)
{
    trigger(lanes, pool, block, KVB_OFFLOAD_ON_REGISTER);
    if (block->place == KVBI_PLACE_PARKED)
        trigger(lanes, pool, block, KVB_OFFLOAD_ON_PARK);
}

bool kvbi_lanes_cold_locked(struct kvbi_lanes *lanes, struct kvbi_pool *pool, uint64_t now_ns)
{
    if (!kvbi_lanes_leave(lanes, pool->tier) ||
        lanes->all[pool->tier].trigger != KVB_OFFLOAD_ON_COLD)
        return false;
    for (uint32_t n = 0; n < KVBI_LOCK_BATCH; n++) {
        uint32_t slot = pool->policy->ops->next_cold(pool->policy, now_ns);
        if (slot == KVBI_NONE)
            return false;
        trigger(lanes, pool, &pool->slots[slot], KVB_OFFLOAD_ON_COLD);
    }
    return true;
}

void kvbi_lanes_close_locked(struct kvbi_lanes *lanes)
{
    kvbi_lock_assert_held(&lanes->store->lock);
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++)
        if (kvbi_lanes_leave(lanes, tier))
            lanes->all[tier].trigger = KVB_OFFLOAD_MANUAL;
}

/* ---- For offload/progress -------------------------------------------------------------------- */

struct kvbi_point kvbi_lanes_until_locked(const struct kvbi_lanes *lanes, struct kvbi_point until)
{
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++)
        if (kvbi_lanes_leave(lanes, tier))
            until = kvbi_fenced_earlier(&lanes->all[tier].queue.fenced, until);
    return until;
}

bool kvbi_lanes_idle_locked(const struct kvbi_lanes *lanes)
{
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++)
        if (kvbi_lanes_leave(lanes, tier) && kvbi_lane_pending(&lanes->all[tier]) > 0)
            return false;
    return true;
}
