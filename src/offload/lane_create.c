/* SPDX-License-Identifier: Apache-2.0 */
/* What a lane is made of, from the configuration of its two tiers. See lane.h. */
#include "offload/lane.h"

static uint32_t inflight_max(const struct kvb_tier_config *above)
{
    return above->batch * above->depth;
}

/* One more: the new offer exists while room is made for it. */
uint32_t kvbi_lane_offer_count(const struct kvb_tier_config *above)
{
    return above->queue_capacity + above->ondeck_capacity + inflight_max(above) + 1;
}

int kvbi_lane_create(struct kvbi_lane *lane, struct kvbi_store *store,
                     const struct kvbi_lane_config *config)
{
    const struct kvb_tier_config *above = config->above, *below = config->below;
    const struct kvbi_tier *from = config->from, *to = config->to;
    *lane = (struct kvbi_lane){.store = store,
                               .offers = config->offers,
                               .number = config->number,
                               .from = &store->pools[from->tier],
                               .to = &store->pools[to->tier],
                               .from_tier = from,
                               .to_tier = to,
                               .trigger = above->trigger,
                               .ondeck_capacity = above->ondeck_capacity,
                               .inflight_max = inflight_max(above),
                               .unready_max = inflight_max(above) / 2,
                               .engines = config->engines,
                               .batch = above->batch};
    struct kvbi_offer *offers = config->offers->all;
    lane->book.stats.from_tier = from->tier;
    lane->book.stats.to_tier = to->tier;
    kvbi_in_queue_init(&lane->queue, &config->engines->lines, offers, above->queue_capacity);
    kvbi_bands_init(&lane->deck, &offers[0].node, sizeof *offers);
    kvbi_budget_init(&lane->budget, below->write_bytes_per_second, below->write_bytes_per_day,
                     to->block_bytes);
    int error =
        kvbi_revocable_create(&lane->revocable, store->memory, offers, lane->ondeck_capacity);
    if (error == 0 && to->lasting != NULL)
        error = kvbi_labels_create(&lane->labels, store->memory, lane->inflight_max);
    return error;
}

void kvbi_lane_destroy(struct kvbi_lane *lane)
{
    kvbi_labels_destroy(&lane->labels);
    kvbi_revocable_destroy(&lane->revocable);
}

size_t kvbi_lane_bytes(const struct kvbi_lane *lane)
{
    return kvbi_revocable_bytes(&lane->revocable) + kvbi_labels_bytes(&lane->labels);
}
