/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The snapshot of all counters. Callers: the public. Lock: the store's, once, so that the books
 * balance.
 */
#include <stdio.h>
#include <string.h>

#include "api/manager.h"

#include "store/contents.h"

static void stats_locked(struct kvb_manager *manager, struct kvb_stats *stats)
{
    kvbi_store_stats_locked(&manager->store, stats);
    kvbi_pipeline_stats_locked(&manager->pipeline, kvbi_clock_now(&manager->clock), stats);
    kvbi_tiers_statistics(manager->tiers, stats);
    stats->table_bytes = kvbi_store_bytes(&manager->store) +
                         kvbi_pipeline_bytes(&manager->pipeline) +
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
    kvbi_store_lock(&manager->store);
    stats_locked(manager, stats);
    kvbi_store_unlock(&manager->store);
    (void)snprintf(stats->engine, sizeof stats->engine, "%s",
                   kvbi_pipeline_said(&manager->pipeline));
    (void)snprintf(stats->hash, sizeof stats->hash, "%s",
                   kvbi_store_hash(&manager->store)->ops->name);
    return 0;
}
