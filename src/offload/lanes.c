/* SPDX-License-Identifier: Apache-2.0 */
/* Triggers and room. See lanes.h. */
#include "offload/lanes.h"

/* ---- What pools and store say ---------------------------------------------------------------- */

/* A block can be revoked, on all decks that it is on, or cannot any longer. */
static void note_revocable(void *context, const struct kvb_block *block, bool is_revocable)
{
    const struct kvbi_lanes_out *out = context;
    for (uint32_t id = block->offer; id != KVBI_NONE;) {
        const struct kvbi_offer *offer = kvbi_offers_at(&out->offers, id);
        struct kvbi_revocable *revocable = &out->lanes[offer->lane]->revocable;
        if (offer->stage == KVBI_OFFER_ONDECK && is_revocable)
            kvbi_revocable_add(revocable, id);
        else if (offer->stage == KVBI_OFFER_ONDECK)
            kvbi_revocable_remove(revocable, id);
        id = offer->other;
    }
}

static void drop_offers_locked(void *context, struct kvbi_pool *pool, struct kvb_block *block)
{
    const struct kvbi_lanes *lanes = context;
    const struct kvbi_lanes_out *out = &lanes->out[pool->tier];
    for (uint32_t id = block->offer, next; id != KVBI_NONE; id = next) {
        const struct kvbi_offer *offer = kvbi_offers_at(&out->offers, id);
        next = offer->other;
        kvbi_lane_forget_locked(out->lanes[offer->lane], id);
    }
}

/* ---- Create ---------------------------------------------------------------------------------- */

/* The offers of all lanes out of the tier. */
static int create_offers(struct kvbi_lanes *lanes, const struct kvbi_lanes_config *config,
                         uint32_t tier)
{
    struct kvbi_lanes_out *out = &lanes->out[tier];
    uint32_t routes = 0;
    for (uint32_t i = 0; i < config->route_count; i++)
        routes += config->routes[i].from == tier;
    lanes->store->pools[tier].watch = (struct kvbi_pool_watch){note_revocable, out};
    return kvbi_offers_create(&out->offers, lanes->store->memory,
                              routes * kvbi_lane_offer_count(&config->configs[tier]));
}

static int create_lane(struct kvbi_lanes *lanes, const struct kvbi_lanes_config *config,
                       const struct kvbi_route *route)
{
    struct kvbi_lanes_out *out = &lanes->out[route->from];
    KVBI_ASSERT(route->from < route->to && lanes->upper[route->to] == KVBI_NONE);
    int error = out->count == 0 ? create_offers(lanes, config, route->from) : 0;
    if (error != 0)
        return error;
    struct kvbi_lane_config lane = {.engines = config->engines,
                                    .from = &config->tiers[route->from],
                                    .to = &config->tiers[route->to],
                                    .above = &config->configs[route->from],
                                    .below = &config->configs[route->to],
                                    .offers = &out->offers,
                                    .number = (uint8_t)out->count};
    lanes->upper[route->to] = route->from;
    out->lanes[out->count++] = &lanes->all[lanes->count];
    return kvbi_lane_create(&lanes->all[lanes->count++], lanes->store, &lane);
}

int kvbi_lanes_create(struct kvbi_lanes *lanes, struct kvbi_store *store,
                      const struct kvbi_lanes_config *config)
{
    int error = 0;
    *lanes =
        (struct kvbi_lanes){.store = store, .engines = config->engines, .tiers = config->tiers};
    store->asks = (struct kvbi_store_asks){.drop_offer = drop_offers_locked, .context = lanes};
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++)
        lanes->upper[tier] = KVBI_NONE;
    for (uint32_t i = 0; error == 0 && i < config->route_count; i++)
        error = create_lane(lanes, config, &config->routes[i]);
    return error;
}

void kvbi_lanes_destroy(struct kvbi_lanes *lanes)
{
    for (uint32_t i = 0; i < lanes->count; i++)
        kvbi_lane_destroy(&lanes->all[i]);
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++)
        kvbi_offers_destroy(&lanes->out[tier].offers);
    *lanes = (struct kvbi_lanes){0};
}

size_t kvbi_lanes_bytes(const struct kvbi_lanes *lanes)
{
    size_t bytes = 0;
    for (uint32_t i = 0; i < lanes->count; i++)
        bytes += kvbi_lane_bytes(&lanes->all[i]);
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++)
        bytes += kvbi_offers_bytes(&lanes->out[tier].offers);
    return bytes;
}

/* ---- Room ------------------------------------------------------------------------------------ */

/* A block whose offer is the youngest that can be revoked, of the first lane that has one. */
static struct kvb_block *youngest_revocable(const struct kvbi_lanes_out *out,
                                            const struct kvbi_pool *pool)
{
    for (uint32_t i = 0; i < out->count; i++) {
        uint32_t id = kvbi_revocable_youngest(&out->lanes[i]->revocable);
        if (id != KVBI_NONE)
            return &pool->slots[kvbi_offers_at(&out->offers, id)->slot];
    }
    return NULL;
}

/* All decks let go of the block; how many. */
static uint32_t revoke_block(const struct kvbi_lanes_out *out, const struct kvb_block *block,
                             uint64_t now_ns)
{
    uint32_t revoked = 0;
    for (uint32_t id = block->offer, next; id != KVBI_NONE; id = next) {
        const struct kvbi_offer *offer = kvbi_offers_at(&out->offers, id);
        next = offer->other;
        if (offer->stage != KVBI_OFFER_ONDECK)
            continue;
        kvbi_lane_revoke_locked(out->lanes[offer->lane], id, now_ns);
        revoked++;
    }
    return revoked;
}

/*
 * Blocks that nobody but decks has hold of are let go by them, the youngest first, KVBI_LOCK_BATCH
 * offers and those of the last block. False: there are none.
 */
static bool revoke_some(const struct kvbi_lanes *lanes, const struct kvbi_pool *pool,
                        uint64_t now_ns)
{
    const struct kvbi_lanes_out *out = &lanes->out[pool->tier];
    const struct kvb_block *block;
    uint32_t revoked = 0;
    while (revoked < KVBI_LOCK_BATCH && (block = youngest_revocable(out, pool)) != NULL)
        revoked += revoke_block(out, block, now_ns);
    return revoked > 0;
}

struct kvb_block *kvbi_lanes_take_locked(struct kvbi_lanes *lanes, struct kvbi_pool *pool,
                                         bool user, uint64_t now_ns)
{
    kvbi_lock_assert_held(&lanes->store->lock);
    for (;;) {
        struct kvb_block *block =
            kvbi_store_take_locked(lanes->store, pool, user, KVB_PRIORITY_MAX, now_ns);
        if (block != NULL || pool->cut_short || !revoke_some(lanes, pool, now_ns))
            return block;
    }
}

struct kvb_block *kvbi_lanes_take_target_locked(struct kvbi_lanes *lanes, struct kvbi_pool *pool,
                                                struct kvbi_criteria *criteria, uint64_t now_ns)
{
    kvbi_lock_assert_held(&lanes->store->lock);
    for (;;) {
        struct kvb_block *block =
            kvbi_store_take_target_locked(lanes->store, pool, criteria, now_ns);
        if (block != NULL || pool->cut_short || !revoke_some(lanes, pool, now_ns))
            return block;
    }
}

uint32_t kvbi_lanes_moving_locked(const struct kvbi_lanes *lanes, uint32_t tier)
{
    uint32_t moving = 0;
    kvbi_lock_assert_held(&lanes->store->lock);
    for (uint32_t i = 0; i < lanes->count; i++)
        if (lanes->all[i].from->tier == tier || lanes->all[i].to->tier == tier)
            moving += lanes->all[i].book.inflight;
    return moving;
}

/* ---- By hand --------------------------------------------------------------------------------- */

static bool is_offered(const struct kvbi_lane *lane, const struct kvb_block *block)
{
    return kvbi_offers_find(lane->offers, block, lane->number) != KVBI_NONE;
}

/* May it be offered, to one lane at least? */
static int may_be_offered(const struct kvbi_lanes *lanes, const struct kvbi_pool *pool,
                          const struct kvb_block *block)
{
    const struct kvbi_lanes_out *out = &lanes->out[pool->tier];
    uint32_t offered = 0;
    if (kvbi_life_get(block).state != KVB_STATE_REGISTERED ||
        !kvbi_store_is_known_locked(lanes->store, block))
        return KVB_ESTATE;
    if (out->count == 0)
        return KVB_ENOENT;
    for (uint32_t i = 0; i < out->count; i++)
        offered += is_offered(out->lanes[i], block);
    return offered == out->count ? KVB_EBUSY : 0;
}

int kvbi_lanes_offer_locked(struct kvbi_lanes *lanes, struct kvbi_pool *pool,
                            struct kvb_block *block, uint32_t priority, uint64_t ticket)
{
    const struct kvbi_lanes_out *out = &lanes->out[pool->tier];
    kvbi_lock_assert_held(&lanes->store->lock);
    int error = may_be_offered(lanes, pool, block);
    if (error == 0)
        error = kvbi_lanes_takes_ticket(lanes, pool, ticket);
    if (error != 0)
        return error;
    kvbi_lanes_set_ticket_locked(lanes, block, ticket);
    for (uint32_t i = 0; i < out->count; i++)
        if (!is_offered(out->lanes[i], block))
            kvbi_lane_offer_locked(out->lanes[i], block, priority);
    return 0;
}

int kvbi_lanes_cancel_locked(struct kvbi_lanes *lanes, const struct kvbi_pool *pool,
                             struct kvb_block *block)
{
    const struct kvbi_lanes_out *out = &lanes->out[pool->tier];
    int result = KVB_ENOENT;
    kvbi_lock_assert_held(&lanes->store->lock);
    for (uint32_t i = 0; i < out->count; i++) {
        int error = kvbi_lane_cancel_locked(out->lanes[i], block);
        if (error == KVB_EBUSY || (error == 0 && result == KVB_ENOENT))
            result = error;
    }
    return result;
}

/* ---- Triggers -------------------------------------------------------------------------------- */

/* To each lane that is for this; an unindexed duplicate to none. */
static void trigger(struct kvbi_lanes *lanes, struct kvbi_pool *pool, struct kvb_block *block,
                    uint32_t when)
{
    const struct kvbi_lanes_out *out = &lanes->out[pool->tier];
    for (uint32_t i = 0; i < out->count; i++) {
        if (out->lanes[i]->trigger != when || block->entry == KVBI_NONE ||
            is_offered(out->lanes[i], block))
            continue;
        uint64_t deadline_ns, now_ns = kvbi_clock_now(lanes->store->clock);
        kvbi_lane_offer_locked(out->lanes[i], block, kvbi_pool_band(block, now_ns, &deadline_ns));
    }
}

/* Does a lane out of the tier wait for this? */
static bool waits_for(const struct kvbi_lanes *lanes, uint32_t tier, uint32_t when)
{
    const struct kvbi_lanes_out *out = &lanes->out[tier];
    uint32_t i = 0;
    while (i < out->count && out->lanes[i]->trigger != when)
        i++;
    return i < out->count;
}

void kvbi_lanes_registered_locked(struct kvbi_lanes *lanes, struct kvbi_pool *pool,
                                  struct kvb_block *block)
{
    kvbi_lock_assert_held(&lanes->store->lock);
    trigger(lanes, pool, block, KVB_OFFLOAD_ON_REGISTER);
}

void kvbi_lanes_unref_locked(struct kvbi_lanes *lanes, struct kvbi_parking *parking,
                             struct kvbi_pool *pool, struct kvb_block *block, uint64_t now_ns)
{
    kvbi_lock_assert_held(&lanes->store->lock);
    if (kvbi_store_unref_locked(lanes->store, pool, block, now_ns) != KVBI_UNREF_PARKED)
        return;
    if (waits_for(lanes, pool->tier, KVB_OFFLOAD_ON_COLD))
        lanes->store->work = true; /* the boundary has moved */
    if (waits_for(lanes, pool->tier, KVB_OFFLOAD_ON_PARK))
        parking->blocks[parking->count++] = block;
}

void kvbi_lanes_parked_locked(struct kvbi_lanes *lanes, struct kvbi_parking *parking)
{
    kvbi_lock_assert_held(&lanes->store->lock);
    while (parking->count > 0) {
        struct kvb_block *block = parking->blocks[--parking->count];
        /* else it was needed for something else in the same breath */
        if (block->place == KVBI_PLACE_PARKED)
            trigger(lanes, kvbi_store_pool_of(lanes->store, block), block, KVB_OFFLOAD_ON_PARK);
    }
}

void kvbi_lanes_arrived_locked(struct kvbi_lanes *lanes, struct kvbi_pool *pool,
                               struct kvb_block *block)
{
    kvbi_lock_assert_held(&lanes->store->lock);
    trigger(lanes, pool, block, KVB_OFFLOAD_ON_REGISTER);
    if (block->place == KVBI_PLACE_PARKED)
        trigger(lanes, pool, block, KVB_OFFLOAD_ON_PARK);
}

bool kvbi_lanes_cold_locked(struct kvbi_lanes *lanes, struct kvbi_pool *pool, uint64_t now_ns)
{
    kvbi_lock_assert_held(&lanes->store->lock);
    if (!waits_for(lanes, pool->tier, KVB_OFFLOAD_ON_COLD))
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
    for (uint32_t i = 0; i < lanes->count; i++)
        lanes->all[i].trigger = KVB_OFFLOAD_MANUAL;
}

/* ---- For offload/progress -------------------------------------------------------------------- */

void kvbi_lanes_await_locked(const struct kvbi_lanes *lanes, struct kvbi_awaited *awaited)
{
    kvbi_lock_assert_held(&lanes->store->lock);
    for (uint32_t i = 0; i < lanes->count; i++)
        kvbi_awaited_merge(awaited, &lanes->all[i].queue.deferred.awaited);
}

bool kvbi_lanes_idle_locked(const struct kvbi_lanes *lanes)
{
    kvbi_lock_assert_held(&lanes->store->lock);
    for (uint32_t i = 0; i < lanes->count; i++)
        if (kvbi_lane_pending(&lanes->all[i]) > 0)
            return false;
    return true;
}

void kvbi_lanes_stats_locked(const struct kvbi_lanes *lanes, uint64_t now_ns,
                             struct kvb_stats *stats)
{
    kvbi_lock_assert_held(&lanes->store->lock);
    for (uint32_t i = 0; i < lanes->count; i++) {
        const struct kvbi_lane *lane = &lanes->all[i];
        struct kvb_lane_stats *own = &stats->lanes[stats->lane_count++];
        struct kvb_tier_stats *below = &stats->tiers[lane->to->tier];
        kvbi_lane_book_stats(&lane->book, kvbi_in_queue_count(&lane->queue), kvbi_lane_ondeck(lane),
                             now_ns, own);
        below->bytes_per_hit = below->hits > 0 ? own->bytes / below->hits : 0;
    }
}
