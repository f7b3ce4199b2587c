/* SPDX-License-Identifier: Apache-2.0 */
/* What a lane is made of, from the configuration of its two tiers. See lane.h. */
#include "offload/lane.h"

/* The pool's word on a block that is on deck. */
static void note_revocable(void *context, const struct kvb_block *block, bool is_revocable)
{
    struct kvbi_lane *lane = context;
    if (is_revocable)
        kvbi_revocable_add(&lane->revocable, block->offer);
    else
        kvbi_revocable_remove(&lane->revocable, block->offer);
}

int kvbi_lane_create(struct kvbi_lane *lane, struct kvbi_store *store,
                     const struct kvbi_engines *engines, const struct kvb_tier_config *configs,
                     const struct kvbi_tier *from, const struct kvbi_tier *to)
{
    const struct kvb_tier_config *config = &configs[from->tier], *below = &configs[to->tier];
    *lane = (struct kvbi_lane){.store = store,
                               .from = &store->pools[from->tier],
                               .to = &store->pools[to->tier],
                               .from_tier = from,
                               .to_tier = to,
                               .trigger = config->trigger,
                               .ondeck_capacity = config->ondeck_capacity,
                               .inflight_max = config->batch * config->depth,
                               .unready_max = config->batch * config->depth / 2,
                               .engines = engines,
                               .batch = config->batch};
    lane->book.stats.from_tier = from->tier;
    lane->book.stats.to_tier = to->tier;
    int error = kvbi_in_queue_create(&lane->queue, store->memory, config->queue_capacity,
                                     lane->ondeck_capacity + lane->inflight_max);
    if (error == 0)
        error = kvbi_revocable_create(&lane->revocable, store->memory, lane->queue.offers,
                                      lane->ondeck_capacity);
    if (error != 0)
        return error;
    lane->from->watch = (struct kvbi_pool_watch){note_revocable, lane};
    kvbi_bands_init(&lane->deck, &lane->queue.offers[0].node, sizeof *lane->queue.offers);
    kvbi_budget_init(&lane->budget, below->write_bytes_per_second, below->write_bytes_per_day,
                     to->block_bytes);
    return to->lasting != NULL
               ? kvbi_labels_create(&lane->labels, store->memory, lane->inflight_max)
               : 0;
}

void kvbi_lane_destroy(struct kvbi_lane *lane)
{
    kvbi_labels_destroy(&lane->labels);
    kvbi_revocable_destroy(&lane->revocable);
    kvbi_in_queue_destroy(&lane->queue);
}

size_t kvbi_lane_bytes(const struct kvbi_lane *lane)
{
    return kvbi_in_queue_bytes(&lane->queue) + kvbi_revocable_bytes(&lane->revocable) +
           kvbi_labels_bytes(&lane->labels);
}
