/* SPDX-License-Identifier: Apache-2.0 */
/* memory/tier - see tier.h. */
#include "transfer/memory/tier.h"

#include <stddef.h>
#include <stdio.h>

#include "base/debug.h"
#include "transfer/engine.h"
#include "transfer/memory/engine.h"

#define PAGE_BYTES 4096u
#define MEMORY_ALIGNMENT 64

/* ---- Operations ------------------------------------------------------------------------------ */

void kvbi_memory_destroy(struct kvbi_tier *tier)
{
    struct kvbi_registration *registration = tier->registration;
    bool released = registration == NULL || registration->ops->destroy(registration);
    if (tier->owned && released) /* else it is lost: better than wrong bytes */
        kvbi_memory_free(tier->memory, tier->base, tier->block_count, (size_t)tier->block_bytes);
}

unsigned char *kvbi_memory_chunk(const struct kvbi_tier *tier, uint32_t slot, uint32_t layer,
                                 uint32_t part, const struct kvb_layout *layout)
{
    return kvbi_tier_address(tier, slot) +
           ((uint64_t)layer * layout->parts + part) * layout->chunk_bytes;
}

void kvbi_memory_statistics(const struct kvbi_tier *tier, struct kvb_stats *stats)
{
    const struct kvbi_registration *registration = tier->registration;
    if (registration == NULL)
        return;
    stats->pinned_bytes += registration->ops->bytes(registration);
    stats->unpinnable_bytes += registration->ops->refused_bytes(registration);
}

int kvbi_memory_create_engine(const struct kvbi_tier *tier, struct kvbi_engine **engine,
                              const struct kvbi_engines_config *config, char *said)
{
    (void)tier;
    *engine = config->host;
    int error = 0;
    if (*engine == NULL)
        error = kvbi_engine_memcpy_create(engine, config->memory, config->clock, config->lines,
                                          config->capacity, config->hooks);
    if (error == 0)
        (void)snprintf(said, KVBI_ENGINE_SAID_BYTES, "%s", (*engine)->ops->name);
    return error;
}

static const struct kvbi_tier_ops memory_ops = {.kind = "memory",
                                                .destroy = kvbi_memory_destroy,
                                                .create_engine = kvbi_memory_create_engine,
                                                .chunk = kvbi_memory_chunk,
                                                .apart = kvbi_tier_not_apart,
                                                .bytes = kvbi_tier_no_bytes,
                                                .statistics = kvbi_memory_statistics,
                                                .lost = kvbi_tier_never_lost,
                                                .register_memory = kvbi_tier_registers_nothing};

int kvbi_tier_host_create(struct kvbi_tier *tier, const struct kvbi_memory *memory, uint32_t id,
                          uint32_t block_count, uint64_t block_bytes, void *base)
{
    *tier = (struct kvbi_tier){.ops = &memory_ops,
                               .tier = id,
                               .block_count = block_count,
                               .block_bytes = block_bytes,
                               .base = base,
                               .owned = base == NULL,
                               .on_host = true,
                               .memory = memory};
    if (base != NULL)
        return 0;
    KVBI_ASSERT(block_bytes <= SIZE_MAX);
    tier->base = kvbi_memory_alloc_raw(memory, block_count, (size_t)block_bytes, PAGE_BYTES);
    if (tier->base != NULL)
        return 0;
    *tier = (struct kvbi_tier){.ops = NULL};
    return KVB_ENOMEM;
}

/* ---- The kind -------------------------------------------------------------------------------- */

static bool is_memory(const struct kvb_tier_config *config)
{
    return config->memory_kind == KVB_MEMORY_HOST && config->path == NULL &&
           config->path_count == 0 &&
           (config->tier == KVB_TIER_DEVICE || config->tier == KVB_TIER_HOST);
}

static int check(const struct kvb_tier_config *config, const struct kvb_layout *layout,
                 uint64_t block_bytes, char *message, size_t message_bytes)
{
    uint64_t needed;
    (void)layout;
    int error = kvbi_kind_without_device(config, message, message_bytes);
    if (error != 0)
        return error;
    if (__builtin_mul_overflow((uint64_t)config->block_count, block_bytes, &needed) ||
        needed > SIZE_MAX / 2)
        return kvbi_kind_refuse(message, message_bytes, KVB_EINVAL,
                                "block_count is %u, too many of %llu bytes each",
                                config->block_count, (unsigned long long)block_bytes);
    if (config->memory == NULL && config->memory_bytes != 0)
        return kvbi_kind_refuse(message, message_bytes, KVB_EINVAL,
                                "memory_bytes is %llu without memory, must be 0",
                                (unsigned long long)config->memory_bytes);
    if ((uintptr_t)config->memory % MEMORY_ALIGNMENT != 0)
        return kvbi_kind_refuse(message, message_bytes, KVB_EINVAL,
                                "memory is %p, must be aligned to %d", config->memory,
                                MEMORY_ALIGNMENT);
    if (config->memory != NULL && config->memory_bytes < needed)
        return kvbi_kind_refuse(message, message_bytes, KVB_EINVAL,
                                "memory_bytes is %llu, must be at least %llu for its blocks",
                                (unsigned long long)config->memory_bytes,
                                (unsigned long long)needed);
    return kvbi_kind_without_files(config, message, message_bytes);
}

static int create(struct kvbi_tier *tier, const struct kvbi_memory *memory,
                  const struct kvb_tier_config *config, const struct kvbi_purpose *purpose,
                  char *message, size_t message_bytes)
{
    int error = kvbi_tier_host_create(tier, memory, config->tier, config->block_count,
                                      purpose->block_bytes, config->memory);
    return error == 0
               ? 0
               : kvbi_kind_refuse(
                     message, message_bytes, error,
                     "tiers[%s]: the allocator gave no memory for block_count %u x %llu bytes",
                     kvbi_tier_name(config->tier), config->block_count,
                     (unsigned long long)purpose->block_bytes);
}

const struct kvbi_kind kvbi_kind_memory = {.name = "memory",
                                           .is = is_memory,
                                           .check = check,
                                           .create = create,
                                           .in_memory = true};
