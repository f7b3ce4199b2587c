/* SPDX-License-Identifier: Apache-2.0 */
/* What each tier is made of. See tiers.h. */
#include "transfer/tiers.h"

#include <stdio.h>
#include <string.h>

#include "transfer/cuda/cuda.h"
#include "transfer/disk/tier.h"

static int create_disk(struct kvbi_tier *tier, const struct kvbi_memory *memory,
                       const struct kvbi_tiers_config *config, const struct kvb_tier_config *given,
                       char *message, size_t message_bytes)
{
    const char *model = config->model != NULL ? config->model : "";
    struct kvbi_hash128 fingerprint = config->hash->hash128(model, strlen(model), 0);
    struct kvbi_disk_config disk = {.paths = given->paths,
                                    .path_count = given->path_count,
                                    .block_count = given->block_count,
                                    .purpose = {.block_bytes = config->block_bytes,
                                                .layers = config->layout->layers,
                                                .parts = config->layout->parts,
                                                .chunk_bytes = config->layout->chunk_bytes,
                                                .tokens_per_block = config->tokens_per_block,
                                                .key_bytes = config->key_bytes,
                                                .digest_seed = config->digest_seed,
                                                .fingerprint = {fingerprint.low, fingerprint.high}},
                                    .flags = given->disk_flags,
                                    .hash = config->hash};
    return kvbi_tier_disk_create(tier, memory, given->tier, &disk, message, message_bytes);
}

static int create_one(struct kvbi_tier *tier, const struct kvbi_memory *memory,
                      const struct kvbi_tiers_config *config, const struct kvb_tier_config *given,
                      uint32_t position, char *message, size_t message_bytes)
{
    if (given->block_count == 0)
        return 0;
    if (given->path_count > 0)
        return create_disk(tier, memory, config, given, message, message_bytes);
    if (given->memory_kind == KVB_MEMORY_CUDA)
        return kvbi_tier_cuda_create(tier, memory, given, config->layout, config->block_bytes,
                                     message, message_bytes);
    int error = kvbi_tier_host_create(tier, memory, given->tier, given->block_count,
                                      config->block_bytes, given->memory);
    if (error != 0)
        (void)snprintf(message, message_bytes,
                       "tiers[%u]: the allocator gave no memory for block_count %u x %llu bytes",
                       position, given->block_count, (unsigned long long)config->block_bytes);
    return error;
}

int kvbi_tiers_create(struct kvbi_tier *tiers, const struct kvbi_memory *memory,
                      const struct kvbi_tiers_config *config, char *message, size_t message_bytes)
{
    int error = 0;
    uint32_t position = 0; /* in the configuration, which has no gaps */
    for (uint32_t tier = 0; error == 0 && tier < KVB_TIER_COUNT; tier++) {
        const struct kvb_tier_config *given = &config->configs[tier];
        error = create_one(&tiers[tier], memory, config, given, position, message, message_bytes);
        position += given->block_count > 0;
    }
    if (error != 0)
        kvbi_tiers_destroy(tiers);
    return error;
}

int kvbi_tiers_pin(struct kvbi_tier *tiers, const struct kvb_tier_config *configs,
                   const struct kvbi_log *log)
{
    struct kvbi_cuda *cuda = tiers[KVB_TIER_DEVICE].cuda;
    uint32_t below = KVB_TIER_DEVICE + 1;
    while (below < KVB_TIER_COUNT && tiers[below].block_count == 0)
        below++;
    if (cuda == NULL || below == KVB_TIER_COUNT || tiers[below].disk != NULL)
        return 0;
    return kvbi_pinning_create(&tiers[below], cuda, log, configs[below].pin_threads);
}

void kvbi_tiers_destroy(struct kvbi_tier *tiers)
{
    for (uint32_t tier = KVB_TIER_COUNT; tier-- > 0;) /* a GPU after what is pinned for it */
        kvbi_tier_destroy(&tiers[tier]);
}

struct kvbi_disk *kvbi_tiers_disk(const struct kvbi_tier *tiers)
{
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++)
        if (tiers[tier].disk != NULL)
            return tiers[tier].disk;
    return NULL;
}
