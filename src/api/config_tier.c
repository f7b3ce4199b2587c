/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading one tier of a configuration. See config_tier.h; the ranges are those of
 * include/kvblock.h.
 */
#include "api/config_tier.h"

#include <stdio.h>

#include "api/manager.h"
#include "base/struct_in.h"
#include "transfer/strides.h"

#define MEMORY_ALIGNMENT 64
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

/*
 * What the memory of a tier on a GPU spans. Whether it is what it is said to be only the GPU's
 * runtime can tell.
 */
static int read_cuda_memory(const struct kvbi_config *config, const struct kvb_tier_config *tier,
                            const struct tier_reader *at)
{
    struct kvbi_strides strides;
    char message[sizeof at->diagnosis->message] = "";
    bool layered = tier->layer_memory != NULL, given = layered || tier->memory != NULL;
    const struct kvb_layout *layout = &config->layout;
    if (layered && tier->memory != NULL)
        return refuse_tier(at, "%s", "memory and layer_memory are given, must be one of them");
    if (!given && (layout->layer_stride | layout->part_stride | layout->block_stride) != 0)
        return refuse_tier(
            at, "%s",
            "memory and layer_memory are NULL and the layout has strides, must be without");
    if (!given && tier->memory_bytes != 0)
        return refuse_tier(at, "memory_bytes is %llu without memory, must be 0",
                           (unsigned long long)tier->memory_bytes);
    if (kvbi_strides_read(&strides, layout, tier->block_count, layered, message, sizeof message) !=
            0 ||
        (layered &&
         kvbi_strides_check_bases(&strides, tier->layer_memory, message, sizeof message) != 0))
        return refuse_tier(at, "%s", message);
    if (given && tier->memory_bytes < strides.span_bytes)
        return refuse_tier(
            at, "memory_bytes is %llu, must be at least %llu: so much the strides span",
            (unsigned long long)tier->memory_bytes, (unsigned long long)strides.span_bytes);
    return 0;
}

static int read_memory(const struct kvbi_config *config, const struct kvb_tier_config *tier,
                       const struct tier_reader *at)
{
    if (tier->memory_kind == KVB_MEMORY_CUDA)
        return read_cuda_memory(config, tier, at);
    uint64_t needed;
    if (__builtin_mul_overflow((uint64_t)tier->block_count, config->block_bytes, &needed) ||
        needed > SIZE_MAX / 2)
        return refuse_tier(at, "block_count is %u, too many of %llu bytes each", tier->block_count,
                           (unsigned long long)config->block_bytes);
    if (tier->memory == NULL && tier->memory_bytes != 0)
        return refuse_tier(at, "memory_bytes is %llu without memory, must be 0",
                           (unsigned long long)tier->memory_bytes);
    if (tier->memory == NULL)
        return 0;
    if ((uintptr_t)tier->memory % MEMORY_ALIGNMENT != 0)
        return refuse_tier(at, "memory is %p, must be aligned to %d", tier->memory,
                           MEMORY_ALIGNMENT);
    if (tier->memory_bytes < needed)
        return refuse_tier(at, "memory_bytes is %llu, must be at least %llu for its blocks",
                           (unsigned long long)tier->memory_bytes, (unsigned long long)needed);
    return 0;
}

/* What only memory_kind CUDA has. */
static int read_host_kind(const struct kvb_tier_config *tier, const struct tier_reader *at)
{
    if (tier->device != 0)
        return refuse_tier(at, "device is %u, must be 0 unless memory_kind is KVB_MEMORY_CUDA",
                           tier->device);
    if (tier->copy_method != 0)
        return refuse_tier(at, "copy_method is %u, must be 0 unless memory_kind is KVB_MEMORY_CUDA",
                           tier->copy_method);
    if (tier->layer_memory != NULL)
        return refuse_tier(
            at, "%s", "layer_memory is given, must be NULL unless memory_kind is KVB_MEMORY_CUDA");
    return 0;
}

static int read_kind(const struct kvb_tier_config *tier, const struct tier_reader *at)
{
    if (tier->memory_kind > KVB_MEMORY_CUDA)
        return refuse_tier(at, "memory_kind is %u, must be 0..%d (enum kvb_memory_kind)",
                           tier->memory_kind, KVB_MEMORY_CUDA);
    if (tier->memory_kind == KVB_MEMORY_CUDA && tier->tier != KVB_TIER_DEVICE)
        return refuse_tier(at, "%s",
                           "memory_kind is KVB_MEMORY_CUDA, must be KVB_MEMORY_HOST below DEVICE");
    if (tier->copy_method > KVB_COPY_KERNEL)
        return refuse_tier(at, "copy_method is %u, must be 0..%d (enum kvb_copy_method)",
                           tier->copy_method, KVB_COPY_KERNEL);
    if (tier->pin_threads > PIN_THREADS_MAX)
        return refuse_tier(at, "pin_threads is %u, must be 0..%d", tier->pin_threads,
                           PIN_THREADS_MAX);
    return tier->memory_kind == KVB_MEMORY_HOST ? read_host_kind(tier, at) : 0;
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

/* What only a tier in files may ask for. */
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
    if (kvbi_config_in_files(tier))
        return 0;
    if (tier->disk_flags != 0)
        return refuse_tier(at, "disk_flags is 0x%x, must be 0 without path or paths",
                           tier->disk_flags);
    if (tier->write_bytes_per_second != 0)
        return refuse_tier(at, "write_bytes_per_second is %llu, must be 0 without path or paths",
                           (unsigned long long)tier->write_bytes_per_second);
    if (tier->write_bytes_per_day != 0)
        return refuse_tier(at, "write_bytes_per_day is %llu, must be 0 without path or paths",
                           (unsigned long long)tier->write_bytes_per_day);
    return 0;
}

static int read_disk(const struct kvb_tier_config *tier, const struct tier_reader *at)
{
    int error = read_disk_options(tier, at);
    if (error == 0)
        error = read_paths(tier, at);
    if (error != 0 || !kvbi_config_in_files(tier))
        return error;
    if (tier->tier != KVB_TIER_DISK)
        return refuse_tier(at, "%s is given, only DISK is kept in files",
                           tier->path != NULL ? "path" : "paths");
    if (tier->memory != NULL)
        return refuse_tier(at, "%s and memory are given, must be one of them",
                           tier->path != NULL ? "path" : "paths");
    return 0;
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
        error = read_kind(&tier, &at);
    if (error == 0)
        error = read_memory(config, &tier, &at);
    if (error == 0)
        error = read_disk(&tier, &at);
    *previous = (int)tier.tier;
    struct kvb_tier_config *kept = &config->tiers[tier.tier];
    *kept = tier;
    if (tier.path != NULL) {
        kept->paths = &kept->path;
        kept->path_count = 1;
    }
    return error;
}
