/* SPDX-License-Identifier: Apache-2.0 */
/* What statistics say of the store. Callers: api/, through store.h. Lock: the store's. */
#include "store/contents.h"
#include "store/store.h"

static void tier_stats(const struct kvbi_pool *pool, struct kvb_tier_stats *stats)
{
    *stats = (struct kvb_tier_stats){.block_count = pool->block_count,
                                     .free_count = pool->free_count,
                                     .held_count = pool->used_count,
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

void kvbi_store_stats_locked(const struct kvbi_store *store, struct kvb_stats *stats)
{
    kvbi_lock_assert_held(&store->lock);
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++)
        if (store->pools[tier].slots != NULL) {
            tier_stats(&store->pools[tier], &stats->tiers[tier]);
            stats->tiers[tier].out_of_service = !kvbi_store_serves(store, tier);
        }
    stats->index_entries = store->index.count;
    stats->index_capacity = store->index.capacity;
    stats->events = store->events.sequence;
    stats->events_lost = store->events.lost_total;
    stats->pins = store->pins.count;
    stats->pins_expired = store->pins_expired;
}
