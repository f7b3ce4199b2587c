/* SPDX-License-Identifier: Apache-2.0 */
/* The snapshot of all counters. Callers: the public. Lock: the store's, once, so that the books balance. */
#include <stdio.h>
#include <string.h>

#include "api/manager.h"

static void tier_stats(const struct kvbi_pool *pool, struct kvb_tier_stats *stats)
{
    *stats = (struct kvb_tier_stats){.block_count = pool->block_count,
                                     .free_count = pool->free_count,
                                     .held_count = pool->held_count,
                                     .parked_count = pool->parked_count,
                                     .retired_count = pool->retired_count,
                                     .transfer_count = pool->transfer_count,
                                     .available_count = kvbi_pool_available(pool),
                                     .allocated = pool->allocated,
                                     .evicted = pool->evicted,
                                     .registered = pool->registered,
                                     .duplicates = pool->duplicates,
                                     .collisions = pool->collisions,
                                     .stale = pool->stale,
                                     .hits = pool->hits};
}

static void lane_stats(const struct kvbi_lane_book *book, uint32_t queued, uint32_t ondeck,
                       uint64_t now_ns, struct kvb_lane_stats *stats)
{
    *stats = book->stats;
    stats->queued = queued;
    stats->ondeck = ondeck;
    stats->inflight = book->inflight;
    stats->pending = (uint64_t)queued + ondeck + book->inflight;
    if (book->inflight > 0 && now_ns > book->busy_since_ns)
        stats->busy_ns += now_ns - book->busy_since_ns;
    if (book->throttled && now_ns > book->throttled_since_ns)
        stats->throttled_ns += now_ns - book->throttled_since_ns;
}

static void stats_locked(struct kvb_manager *manager, struct kvb_stats *stats)
{
    struct kvbi_store *store = &manager->store;
    struct kvbi_pipeline *pipeline = &manager->pipeline;
    uint64_t now_ns = kvbi_clock_now(&manager->clock);
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++)
        if (store->pools[tier].slots != NULL) {
            tier_stats(&store->pools[tier], &stats->tiers[tier]);
            stats->tiers[tier].out_of_service = !(store->serving & 1u << tier);
        }
    for (uint32_t i = 0; i < pipeline->lanes.count; i++)
        lane_stats(&pipeline->lanes.all[i].book, kvbi_in_queue_count(&pipeline->lanes.all[i].queue),
                   kvbi_lane_ondeck(&pipeline->lanes.all[i]), now_ns,
                   &stats->lanes[stats->lane_count++]);
    for (uint32_t i = 0; i < stats->lane_count; i++) {
        struct kvb_tier_stats *below = &stats->tiers[stats->lanes[i].to_tier];
        below->bytes_per_hit = below->hits > 0 ? stats->lanes[i].bytes / below->hits : 0;
    }
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++)
        if (kvbi_lanes_leave(&pipeline->lanes, tier))
            lane_stats(&pipeline->onboard.lanes[tier].book,
                       kvbi_onboard_lane_queued(&pipeline->onboard.lanes[tier]), 0, now_ns,
                       &stats->lanes[stats->lane_count++]);
    stats->index_entries = store->index.count;
    stats->index_capacity = store->index.capacity;
    stats->events = store->events.sequence;
    stats->events_lost = store->events.lost_total;
    stats->pins = store->pins.count;
    stats->pins_expired = store->pins_expired;
    stats->ops_started = pipeline->onboard.started;
    stats->ops_completed = pipeline->onboard.completed;
    stats->ops_cancelled = pipeline->onboard.cancelled;
    stats->ops_timed_out = pipeline->onboard.timed_out;
    kvbi_tiers_statistics(manager->tiers, stats);
    stats->table_bytes = kvbi_store_bytes(store) + kvbi_pipeline_bytes(pipeline) +
                         kvbi_tiers_bytes(manager->tiers) + sizeof *manager;
}

int kvb_manager_stats(struct kvb_manager *manager, struct kvb_stats *stats)
{
    int error = kvbi_enter(manager);
    if (error == 0)
        error = kvbi_refuse_out(manager, KVBI_CALL_MANAGER_STATS, "stats", "kvb_stats", stats,
                                sizeof *stats);
    if (error != 0)
        return error;
    *stats = (struct kvb_stats){.size = sizeof *stats};
    kvbi_lock_take(&manager->store.lock);
    stats_locked(manager, stats);
    kvbi_lock_release(&manager->store.lock);
    (void)snprintf(stats->engine, sizeof stats->engine, "%s", manager->pipeline.engines.said);
    (void)snprintf(stats->hash, sizeof stats->hash, "%s", manager->store.hash.ops->name);
    return 0;
}
