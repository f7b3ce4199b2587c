/* SPDX-License-Identifier: Apache-2.0 */
/* The answers of tiers that have nothing to say. See tier.h. */
#include "transfer/tier.h"

const char *kvbi_tier_name(uint32_t tier)
{
    static const char *const names[KVB_TIER_COUNT] = {"DEVICE", "HOST", "DISK", "REMOTE"};
    return tier < KVB_TIER_COUNT ? names[tier] : "";
}

void kvbi_tier_destroy(struct kvbi_tier *tier)
{
    if (tier->ops != NULL)
        tier->ops->destroy(tier);
    *tier = (struct kvbi_tier){.ops = NULL};
}

unsigned char *kvbi_tier_no_chunk(const struct kvbi_tier *tier, uint32_t slot, uint32_t layer,
                                  uint32_t part, const struct kvb_layout *layout)
{
    (void)tier, (void)slot, (void)layer, (void)part, (void)layout;
    return NULL;
}

const char *kvbi_tier_not_apart(const struct kvbi_tier *tier)
{
    (void)tier;
    return NULL;
}

size_t kvbi_tier_no_bytes(const struct kvbi_tier *tier)
{
    (void)tier;
    return 0;
}

void kvbi_tier_no_statistics(const struct kvbi_tier *tier, struct kvb_stats *stats)
{
    (void)tier, (void)stats;
}

bool kvbi_tier_never_lost(const struct kvbi_tier *tier, char *why, size_t why_bytes)
{
    (void)tier, (void)why, (void)why_bytes;
    return false;
}

int kvbi_tier_registers_nothing(const struct kvbi_tier *tier, struct kvbi_tier *host,
                                const struct kvbi_register_config *config)
{
    (void)tier, (void)host, (void)config;
    return 0;
}
