/* SPDX-License-Identifier: Apache-2.0 */
/* The tiers of a manager. See tiers.h. */
#include "transfer/tiers.h"

int kvbi_tiers_create(struct kvbi_tier *tiers, const struct kvbi_memory *memory,
                      const struct kvbi_tiers_config *config, char *message, size_t message_bytes)
{
    int error = 0;
    for (uint32_t tier = 0; error == 0 && tier < KVB_TIER_COUNT; tier++)
        if (config->configs[tier].block_count > 0)
            error = config->kinds[tier]->create(&tiers[tier], memory, &config->configs[tier],
                                                &config->purpose, message, message_bytes);
    if (error != 0)
        kvbi_tiers_destroy(tiers);
    return error;
}

int kvbi_tiers_register(struct kvbi_tier *tiers, const struct kvb_tier_config *configs,
                        const struct kvbi_log *log, const struct kvbi_hooks *hooks)
{
    struct kvbi_tier *above = NULL;
    int error = 0;
    for (uint32_t i = 0; error == 0 && i < KVB_TIER_COUNT; i++) {
        struct kvbi_tier *tier = &tiers[i];
        if (tier->ops == NULL)
            continue;
        const struct kvbi_register_config config = {.log = log,
                                                    .hooks = hooks,
                                                    .threads = configs[i].pin_threads,
                                                    .duty_percent = configs[i].pin_duty_percent};
        if (above != NULL && tier->on_host)
            error = above->ops->register_memory(above, tier, &config);
        above = tier;
    }
    return error;
}

void kvbi_tiers_destroy(struct kvbi_tier *tiers)
{
    /* a device after what is registered with it */
    for (uint32_t tier = KVB_TIER_COUNT; tier-- > 0;)
        kvbi_tier_destroy(&tiers[tier]);
}

struct kvbi_tier *kvbi_tiers_lasting(struct kvbi_tier *tiers)
{
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++)
        if (tiers[tier].lasting != NULL)
            return &tiers[tier];
    return NULL;
}

size_t kvbi_tiers_bytes(const struct kvbi_tier *tiers)
{
    size_t bytes = 0;
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++)
        if (tiers[tier].ops != NULL)
            bytes += tiers[tier].ops->bytes(&tiers[tier]);
    return bytes;
}

void kvbi_tiers_statistics(const struct kvbi_tier *tiers, struct kvb_stats *stats)
{
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++)
        if (tiers[tier].ops != NULL)
            tiers[tier].ops->statistics(&tiers[tier], stats);
}
