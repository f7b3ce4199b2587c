/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading one tier of a configuration. See config_tier.h; the ranges are those of
 * include/kvblock.h.
 */
#include "api/config_tier.h"

#include <stdio.h>

#include "api/manager.h"
#include "base/hooks.h"
#include "base/struct_in.h"
#include "transfer/kind.h"

#define PIN_THREADS_MAX 64
#define BLOCKS_MAX (UINT32_MAX - 1)

/* The tier that is being read, and whom to tell. */
struct tier_reader {
    struct kvb_diagnosis *diagnosis;
    char name[24]; /* "tiers[1] (HOST)" */
};

/* Refuses what the reader has before it: "tiers[1] (HOST): ...". */
#define refuse_tier(at, format, ...)                                                               \
    kvbi_diagnose((at)->diagnosis, KVB_EINVAL, "%s: " format, (at)->name, __VA_ARGS__)

static int tier_range(const struct tier_reader *at, const char *name, uint32_t *value,
                      uint32_t otherwise, uint32_t high)
{
    char where[sizeof at->name + 2];
    (void)snprintf(where, sizeof where, "%s: ", at->name);
    return kvbi_config_range(at->diagnosis, where, name, value, otherwise, 1, high);
}

static int read_lane(struct kvb_tier_config *tier, const struct tier_reader *at)
{
    if (tier->trigger > KVB_OFFLOAD_MANUAL)
        return refuse_tier(at, "trigger is %u, must be 0..%d (enum kvb_trigger)", tier->trigger,
                           KVB_OFFLOAD_MANUAL);
    if (tier->trigger == KVB_OFFLOAD_DEFAULT)
        tier->trigger =
            tier->tier == KVB_TIER_DEVICE ? KVB_OFFLOAD_ON_REGISTER : KVB_OFFLOAD_ON_COLD;
    int error = tier_range(at, "ondeck_capacity", &tier->ondeck_capacity, 64, 65536);
    if (error == 0)
        error = tier_range(at, "batch", &tier->batch, 32, KVBI_LOCK_BATCH);
    if (error == 0)
        error = tier_range(at, "depth", &tier->depth, 2, 64);
    if (error == 0)
        error = tier_range(at, "queue_capacity", &tier->queue_capacity, 65536, 1u << 24);
    return error;
}

static int read_memory_kind(const struct kvb_tier_config *tier, const struct tier_reader *at)
{
    if (tier->memory_kind > KVB_MEMORY_CUDA)
        return refuse_tier(at, "memory_kind is %u, must be 0..%d (enum kvb_memory_kind)",
                           tier->memory_kind, KVB_MEMORY_CUDA);
    if (tier->copy_method > KVB_COPY_KERNEL)
        return refuse_tier(at, "copy_method is %u, must be 0..%d (enum kvb_copy_method)",
                           tier->copy_method, KVB_COPY_KERNEL);
    if (tier->pin_threads > PIN_THREADS_MAX)
        return refuse_tier(at, "pin_threads is %u, must be 0..%d", tier->pin_threads,
                           PIN_THREADS_MAX);
    if (tier->pin_duty_percent > 100)
        return refuse_tier(at, "pin_duty_percent is %u, must be 0..100", tier->pin_duty_percent);
    if (tier->reserved_tail != 0)
        return refuse_tier(at, "reserved_tail is %u, must be 0", tier->reserved_tail);
    return 0;
}

static int read_paths(const struct kvb_tier_config *tier, const struct tier_reader *at)
{
    if (tier->path != NULL && tier->path_count > 0)
        return refuse_tier(at, "path and path_count (%u) are given, must be one of them",
                           tier->path_count);
    if (tier->path_count > KVB_DISK_PATHS_MAX)
        return refuse_tier(at, "path_count is %u, must be 0..%d", tier->path_count,
                           KVB_DISK_PATHS_MAX);
    if (tier->path_count > 0 && tier->paths == NULL)
        return refuse_tier(at, "paths is NULL, path_count is %u", tier->path_count);
    if (tier->path_count == 0 && tier->paths != NULL)
        return refuse_tier(at, "path_count is 0, must be 1..%d where paths is given",
                           KVB_DISK_PATHS_MAX);
    for (uint32_t i = 0; i < tier->path_count; i++)
        if (tier->paths[i] == NULL)
            return refuse_tier(at, "paths[%u] is NULL, path_count is %u", i, tier->path_count);
        else if (tier->paths[i][0] == '\0')
            return refuse_tier(at, "paths[%u] is \"\", must name a file", i);
    if (tier->path_count > tier->block_count)
        return refuse_tier(at, "path_count is %u, must be at most block_count (%u)",
                           tier->path_count, tier->block_count);
    if (tier->path != NULL && tier->path[0] == '\0')
        return refuse_tier(at, "%s", "path is \"\", must name a file, or be NULL");
    return 0;
}

static int read_disk_options(const struct kvb_tier_config *tier, const struct tier_reader *at)
{
    const uint32_t known =
        KVB_DISK_START_EMPTY | KVB_DISK_EMPTY_ON_MISMATCH | KVB_DISK_ALLOW_SPARSE;
    if (tier->disk_engine > KVB_DISK_ENGINE_POSIX)
        return refuse_tier(at, "disk_engine is %u, must be 0..%d (enum kvb_disk_engine)",
                           tier->disk_engine, KVB_DISK_ENGINE_POSIX);
    if (tier->reserved != 0)
        return refuse_tier(at, "reserved is %u, must be 0", tier->reserved);
    if (tier->disk_flags & ~known)
        return refuse_tier(at, "disk_flags is 0x%x, must be of 0x%x (enum kvb_disk_flags)",
                           tier->disk_flags, known);
    return 0;
}

/* Whose memory it is: what no kind has is refused by what it lacks. */
static int find_kind(struct kvbi_config *config, const struct kvb_tier_config *tier,
                     const struct tier_reader *at)
{
    const struct kvbi_hooks *hooks = config->hooks;
    const struct kvbi_kind **kind = &config->kinds[tier->tier];
    char message[sizeof at->diagnosis->message] = "";
    if (hooks != NULL && hooks->kinds[tier->tier] != NULL)
        *kind = hooks->kinds[tier->tier];
    else
        *kind = kvbi_kind_of(tier);
    if (*kind == NULL && tier->tier == KVB_TIER_DISK)
        return refuse_tier(at, "%s", "path and paths are NULL, one of them must name its files");
    if (*kind == NULL)
        return kvbi_diagnose(at->diagnosis, KVB_EUNSUPPORTED,
                             "%s: needs a store, and this version has none", at->name);
    int error = (*kind)->check(tier, &config->layout, config->block_bytes, message, sizeof message);
    return error == 0 ? 0 : kvbi_diagnose(at->diagnosis, error, "%s: %s", at->name, message);
}

/* Which tier it is, and how many blocks. */
static int read_place(const struct kvb_tier_config *tier, uint32_t position, int previous,
                      struct tier_reader *at)
{
    (void)snprintf(at->name, sizeof at->name, "tiers[%u]", position);
    if (tier->tier >= KVB_TIER_COUNT)
        return refuse_tier(at, "tier is %u, must be 0..%d (enum kvb_tier)", tier->tier,
                           KVB_TIER_COUNT - 1);
    (void)snprintf(at->name, sizeof at->name, "tiers[%u] (%s)", position,
                   kvbi_tier_name(tier->tier));
    if ((int)tier->tier <= previous)
        return refuse_tier(at, "tier is %u, must be above %d, that of the one before it",
                           tier->tier, previous);
    if (tier->block_count == 0 || tier->block_count > BLOCKS_MAX)
        return refuse_tier(at, "block_count is %u, must be 1..%u", tier->block_count, BLOCKS_MAX);
    return 0;
}

int kvbi_config_read_tier(struct kvbi_config *config, const void *given, uint32_t position,
                          int *previous, struct kvb_diagnosis *diagnosis)
{
    struct kvb_tier_config tier;
    struct tier_reader at = {.diagnosis = diagnosis};
    if (kvbi_struct_in(&tier, sizeof tier, sizeof tier, given) != 0) {
        (void)snprintf(at.name, sizeof at.name, "tiers[%u]", position);
        return kvbi_config_refuse_struct(diagnosis, at.name, "kvb_tier_config", given,
                                         ((const struct kvb_tier_config *)given)->size,
                                         sizeof tier);
    }
    int error = read_place(&tier, position, *previous, &at);
    if (error != 0)
        return error;
    config->depths_given |= (tier.depth != 0 ? 1u : 0u) << tier.tier;
    error = read_lane(&tier, &at);
    if (error == 0)
        error = read_memory_kind(&tier, &at);
    if (error == 0)
        error = read_disk_options(&tier, &at);
    if (error == 0)
        error = read_paths(&tier, &at);
    if (error == 0)
        error = find_kind(config, &tier, &at);
    *previous = (int)tier.tier;
    struct kvb_tier_config *kept = &config->tiers[tier.tier];
    *kept = tier;
    if (tier.path != NULL) {
        kept->paths = &kept->path;
        kept->path_count = 1;
    }
    return error;
}
