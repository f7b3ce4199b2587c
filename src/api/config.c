/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a configuration. See config.h; the ranges are those of include/kvblock.h. */
#include "api/config.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>

#include "api/manager.h"
#include "base/struct_in.h"
#include "transfer/strides.h"

#define MEMORY_ALIGNMENT 64
#define DEPTH_ABOVE_DISK 4
#define PIN_THREADS 4
#define PIN_THREADS_MAX 64
#define EVENTS_DEFAULT_MIN 4096
#define EVENTS_DEFAULT_MAX (1u << 20)

static const char *const tier_names[KVB_TIER_COUNT] = {"DEVICE", "HOST", "DISK", "REMOTE"};

int kvbi_diagnose(struct kvb_diagnosis *diagnosis, int code, const char *format, ...)
{
    if (diagnosis == NULL || diagnosis->size < sizeof *diagnosis)
        return code;
    va_list arguments;
    va_start(arguments, format);
    diagnosis->code = code;
    (void)vsnprintf(diagnosis->message, sizeof diagnosis->message, format, arguments);
    va_end(arguments);
    return code;
}

/* 0 becomes the default; anything outside [low, high] is refused by name. */
static int range(struct kvb_diagnosis *diagnosis, const char *name, uint32_t *value,
                 uint32_t otherwise, uint32_t low, uint32_t high)
{
    if (*value == 0)
        *value = otherwise;
    if (*value < low || *value > high)
        return kvbi_diagnose(diagnosis, KVB_EINVAL, "%s: %u is not in %u..%u", name, *value, low,
                             high);
    return 0;
}

static int read_layout(struct kvbi_config *config, struct kvb_diagnosis *diagnosis)
{
    struct kvb_layout *layout = &config->layout;
    uint64_t bytes;
    if (config->c.layout == NULL)
        return kvbi_diagnose(diagnosis, KVB_EINVAL, "layout: missing");
    if (kvbi_struct_in(layout, sizeof *layout, sizeof *layout, config->c.layout) != 0)
        return kvbi_diagnose(diagnosis, KVB_EINVAL,
                             "layout: size %u is wrong, or an unknown field is set",
                             config->c.layout->size);
    if (layout->layers == 0 || layout->parts == 0 || layout->chunk_bytes == 0 ||
        layout->reserved != 0)
        return kvbi_diagnose(
            diagnosis, KVB_EINVAL,
            "layout: layers, parts and chunk_bytes must not be 0, and reserved must be");
    if (__builtin_mul_overflow((uint64_t)layout->layers * layout->parts, layout->chunk_bytes,
                               &bytes) ||
        bytes > UINT32_MAX)
        return kvbi_diagnose(
            diagnosis, KVB_EINVAL, "layout: a block of %u x %u x %llu bytes is 4 GiB or more",
            layout->layers, layout->parts, (unsigned long long)layout->chunk_bytes);
    config->block_bytes = bytes;
    return 0;
}

static int read_lane(struct kvb_tier_config *tier, struct kvb_diagnosis *diagnosis)
{
    if (tier->trigger > KVB_OFFLOAD_MANUAL)
        return kvbi_diagnose(diagnosis, KVB_EINVAL, "tiers[%s].trigger: %u is none",
                             tier_names[tier->tier], tier->trigger);
    if (tier->trigger == KVB_OFFLOAD_DEFAULT)
        tier->trigger =
            tier->tier == KVB_TIER_DEVICE ? KVB_OFFLOAD_ON_REGISTER : KVB_OFFLOAD_ON_COLD;
    int error = range(diagnosis, "tiers[].ondeck_capacity", &tier->ondeck_capacity, 64, 1, 65536);
    if (error == 0)
        error = range(diagnosis, "tiers[].batch", &tier->batch, 32, 1, KVBI_LOCK_BATCH);
    if (error == 0)
        error = range(diagnosis, "tiers[].depth", &tier->depth, 2, 1, 64);
    if (error == 0)
        error =
            range(diagnosis, "tiers[].queue_capacity", &tier->queue_capacity, 65536, 1, 1u << 24);
    return error;
}

/* What the memory of a tier on a GPU spans. Whether it is what it is said to be only the GPU's runtime can tell. */
static int read_cuda_memory(const struct kvbi_config *config, const struct kvb_tier_config *tier,
                            struct kvb_diagnosis *diagnosis)
{
    struct kvbi_strides strides;
    char message[sizeof diagnosis->message] = "";
    bool layered = tier->layer_memory != NULL, given = layered || tier->memory != NULL;
    const struct kvb_layout *layout = &config->layout;
    if (layered && tier->memory != NULL)
        return kvbi_diagnose(diagnosis, KVB_EINVAL,
                             "tiers[DEVICE]: memory and layer_memory exclude each other");
    if (!given && (layout->layer_stride | layout->part_stride | layout->block_stride |
                   tier->memory_bytes) != 0)
        return kvbi_diagnose(diagnosis, KVB_EINVAL,
                             "tiers[DEVICE]: strides or memory_bytes are set without memory");
    if (kvbi_strides_read(&strides, layout, tier->block_count, layered, message, sizeof message) !=
            0 ||
        (layered &&
         kvbi_strides_check_bases(&strides, tier->layer_memory, message, sizeof message) != 0))
        return kvbi_diagnose(diagnosis, KVB_EINVAL, "tiers[DEVICE]: %s", message);
    if (given && tier->memory_bytes < strides.span_bytes)
        return kvbi_diagnose(
            diagnosis, KVB_EINVAL, "tiers[DEVICE].memory_bytes: %llu, but the strides span %llu",
            (unsigned long long)tier->memory_bytes, (unsigned long long)strides.span_bytes);
    return 0;
}

static int read_memory(const struct kvbi_config *config, const struct kvb_tier_config *tier,
                       struct kvb_diagnosis *diagnosis)
{
    if (tier->memory_kind == KVB_MEMORY_CUDA)
        return read_cuda_memory(config, tier, diagnosis);
    uint64_t needed;
    const char *name = tier_names[tier->tier];
    if (__builtin_mul_overflow((uint64_t)tier->block_count, config->block_bytes, &needed) ||
        needed > SIZE_MAX / 2)
        return kvbi_diagnose(diagnosis, KVB_EINVAL,
                             "tiers[%s].block_count: %u blocks of %llu bytes overflow", name,
                             tier->block_count, (unsigned long long)config->block_bytes);
    if (tier->memory == NULL && tier->memory_bytes != 0)
        return kvbi_diagnose(diagnosis, KVB_EINVAL, "tiers[%s].memory_bytes is set without memory",
                             name);
    if (tier->memory == NULL)
        return 0;
    if ((uintptr_t)tier->memory % MEMORY_ALIGNMENT != 0)
        return kvbi_diagnose(diagnosis, KVB_EINVAL, "tiers[%s].memory is not aligned to %d", name,
                             MEMORY_ALIGNMENT);
    if (tier->memory_bytes < needed)
        return kvbi_diagnose(diagnosis, KVB_EINVAL,
                             "tiers[%s].memory_bytes: %llu, but the blocks need %llu", name,
                             (unsigned long long)tier->memory_bytes, (unsigned long long)needed);
    return 0;
}

static int read_kind(const struct kvb_tier_config *tier, struct kvb_diagnosis *diagnosis)
{
    const char *name = tier_names[tier->tier];
    if (tier->memory_kind > KVB_MEMORY_CUDA)
        return kvbi_diagnose(diagnosis, KVB_EINVAL, "tiers[%s].memory_kind: %u is none", name,
                             tier->memory_kind);
    if (tier->memory_kind == KVB_MEMORY_CUDA && tier->tier != KVB_TIER_DEVICE)
        return kvbi_diagnose(diagnosis, KVB_EINVAL,
                             "tiers[%s].memory_kind: only DEVICE is in CUDA memory", name);
    if (tier->memory_kind == KVB_MEMORY_HOST &&
        (tier->device != 0 || tier->copy_method != 0 || tier->layer_memory != NULL))
        return kvbi_diagnose(
            diagnosis, KVB_EINVAL,
            "tiers[%s]: device, copy_method and layer_memory belong to memory_kind CUDA", name);
    if (tier->copy_method > KVB_COPY_KERNEL)
        return kvbi_diagnose(diagnosis, KVB_EINVAL, "tiers[%s].copy_method: %u is none", name,
                             tier->copy_method);
    if (tier->pin_threads > PIN_THREADS_MAX)
        return kvbi_diagnose(diagnosis, KVB_EINVAL, "tiers[%s].pin_threads: %u is not in 1..%d",
                             name, tier->pin_threads, PIN_THREADS_MAX);
    return 0;
}

static bool in_files(const struct kvb_tier_config *tier)
{
    return tier->path != NULL || tier->path_count > 0;
}

static int read_paths(const struct kvb_tier_config *tier, struct kvb_diagnosis *diagnosis)
{
    const char *name = tier_names[tier->tier];
    if (tier->path != NULL && tier->path_count > 0)
        return kvbi_diagnose(diagnosis, KVB_EINVAL, "tiers[%s]: path and paths exclude each other",
                             name);
    if ((tier->paths != NULL) != (tier->path_count > 0) || tier->path_count > KVB_DISK_PATHS_MAX)
        return kvbi_diagnose(diagnosis, KVB_EINVAL,
                             "tiers[%s].path_count: %u is not in 1..%d, or paths is NULL", name,
                             tier->path_count, KVB_DISK_PATHS_MAX);
    for (uint32_t i = 0; i < tier->path_count; i++)
        if (tier->paths[i] == NULL)
            return kvbi_diagnose(diagnosis, KVB_EINVAL, "tiers[%s].paths[%u] is NULL", name, i);
    if (tier->path_count > tier->block_count)
        return kvbi_diagnose(diagnosis, KVB_EINVAL, "tiers[%s].path_count: %u files for %u blocks",
                             name, tier->path_count, tier->block_count);
    return 0;
}

/* What only a tier in files may ask for. */
static int read_disk_options(const struct kvb_tier_config *tier, struct kvb_diagnosis *diagnosis)
{
    const uint32_t known =
        KVB_DISK_START_EMPTY | KVB_DISK_EMPTY_ON_MISMATCH | KVB_DISK_ALLOW_SPARSE;
    const char *name = tier_names[tier->tier];
    if (tier->disk_engine > KVB_DISK_ENGINE_POSIX || tier->reserved != 0)
        return kvbi_diagnose(diagnosis, KVB_EINVAL,
                             "tiers[%s].disk_engine: %u is none, or reserved is set", name,
                             tier->disk_engine);
    if (tier->disk_flags & ~known)
        return kvbi_diagnose(diagnosis, KVB_EINVAL, "tiers[%s].disk_flags: 0x%x has unknown bits",
                             name, tier->disk_flags);
    if (!in_files(tier) && (tier->disk_flags != 0 || tier->write_bytes_per_second != 0 ||
                            tier->write_bytes_per_day != 0))
        return kvbi_diagnose(diagnosis, KVB_EINVAL,
                             "tiers[%s]: disk_flags and write_bytes_per_... are for tiers in files",
                             name);
    return 0;
}

static int read_disk(const struct kvb_tier_config *tier, struct kvb_diagnosis *diagnosis)
{
    const char *name = tier_names[tier->tier];
    int error = read_disk_options(tier, diagnosis);
    if (error == 0)
        error = read_paths(tier, diagnosis);
    if (error != 0 || !in_files(tier))
        return error;
    if (tier->tier != KVB_TIER_DISK)
        return kvbi_diagnose(diagnosis, KVB_EINVAL, "tiers[%s].path: only DISK is kept in a file",
                             name);
    if (tier->memory != NULL)
        return kvbi_diagnose(diagnosis, KVB_EINVAL, "tiers[%s]: path and memory exclude each other",
                             name);
    return 0;
}

static int read_tier(struct kvbi_config *config, const void *given, uint32_t position,
                     int *previous, struct kvb_diagnosis *diagnosis)
{
    struct kvb_tier_config tier;
    if (kvbi_struct_in(&tier, sizeof tier, sizeof tier, given) != 0)
        return kvbi_diagnose(diagnosis, KVB_EINVAL,
                             "tiers[%u]: size is wrong, or an unknown field is set", position);
    if (tier.tier >= KVB_TIER_COUNT)
        return kvbi_diagnose(diagnosis, KVB_EINVAL, "tiers[%u].tier: %u is none", position,
                             tier.tier);
    if ((int)tier.tier <= *previous)
        return kvbi_diagnose(diagnosis, KVB_EINVAL,
                             "tiers[%u].tier: %s is not below the one before it", position,
                             tier_names[tier.tier]);
    if (tier.block_count == 0 || tier.block_count == UINT32_MAX)
        return kvbi_diagnose(diagnosis, KVB_EINVAL, "tiers[%s].block_count: %u is not in 1..2^32-2",
                             tier_names[tier.tier], tier.block_count);
    config->depths_given |= (tier.depth != 0 ? 1u : 0u) << tier.tier;
    int error = read_lane(&tier, diagnosis);
    if (error == 0)
        error = read_kind(&tier, diagnosis);
    if (error == 0)
        error = read_memory(config, &tier, diagnosis);
    if (error == 0)
        error = read_disk(&tier, diagnosis);
    *previous = (int)tier.tier;
    struct kvb_tier_config *kept = &config->tiers[tier.tier];
    *kept = tier;
    if (tier.path != NULL) {
        kept->paths = &kept->path;
        kept->path_count = 1;
    }
    return error;
}

/*
 * A lane to a file has twice as much with the engine as the engine has with the device: while what has come back together is
 * verified and applied, the device works on the rest. At 64 KiB that is 0.86 against 0.96 of a bare ring (docs/performance.md).
 */
static void deepen_lane_above_disk(struct kvbi_config *config)
{
    uint32_t above = KVB_TIER_DISK - 1;
    while (config->tiers[above].block_count == 0)
        above--;
    if (!(config->depths_given & 1u << above))
        config->tiers[above].depth = DEPTH_ABOVE_DISK;
}

/* A GPU's counterpart is pinned, by threads unless the manager is to run without any. */
static int pair_with_cuda(struct kvbi_config *config, struct kvb_diagnosis *diagnosis)
{
    const struct kvb_layout *layout = &config->layout;
    struct kvb_tier_config *device = &config->tiers[KVB_TIER_DEVICE],
                           *host = &config->tiers[KVB_TIER_HOST];
    bool cuda = device->memory_kind == KVB_MEMORY_CUDA;
    if (!cuda && (layout->layer_stride | layout->part_stride | layout->block_stride) != 0)
        return kvbi_diagnose(diagnosis, KVB_EINVAL,
                             "layout: strides are of a tier in CUDA memory, and there is none");
    for (unsigned tier = 0; tier < KVB_TIER_COUNT; tier++)
        if (config->tiers[tier].pin_threads != 0 && (!cuda || tier != KVB_TIER_HOST))
            return kvbi_diagnose(diagnosis, KVB_EINVAL,
                                 "tiers[%s].pin_threads: it is not below CUDA memory",
                                 tier_names[tier]);
    if (cuda && host->pin_threads == 0 && config->c.progress == KVB_PROGRESS_THREAD)
        host->pin_threads = PIN_THREADS;
    return 0;
}

/*
 * Where nothing was asked for: the ring holds a stored and a removed for every block there is, so
 * that no burst of the server's between two deliveries overflows it: a full tier registered and
 * evicted, all of it invalidated, a disk announced after a restart. A record of a few hundred bytes
 * each is little beside what the block itself takes in its tier.
 */
static void default_event_capacity(struct kvb_config *c, uint64_t blocks)
{
    if (c->sink.deliver == NULL || c->event_capacity != 0)
        return;
    uint64_t capacity = 2 * blocks;
    if (capacity < EVENTS_DEFAULT_MIN)
        capacity = EVENTS_DEFAULT_MIN;
    c->event_capacity = capacity < EVENTS_DEFAULT_MAX ? (uint32_t)capacity : EVENTS_DEFAULT_MAX;
}

static int read_tiers(struct kvbi_config *config, struct kvb_diagnosis *diagnosis)
{
    uint64_t blocks = 0;
    int previous = -1, error = 0;
    if (config->c.tiers == NULL || config->c.tier_count == 0 ||
        config->c.tier_count > KVB_TIER_COUNT)
        return kvbi_diagnose(diagnosis, KVB_EINVAL,
                             "tier_count: %u is not in 1..%d, or tiers is NULL",
                             config->c.tiers == NULL ? 0 : config->c.tier_count, KVB_TIER_COUNT);
    if (config->c.tiers[0].size % _Alignof(struct kvb_tier_config) != 0)
        return kvbi_diagnose(diagnosis, KVB_EINVAL, "tiers[0].size: %u is no multiple of %zu",
                             config->c.tiers[0].size, _Alignof(struct kvb_tier_config));
    for (uint32_t i = 0; error == 0 && i < config->c.tier_count; i++)
        error = read_tier(config, kvbi_stride(config->c.tiers, config->c.tiers[0].size, i), i,
                          &previous, diagnosis);
    if (error == 0 && in_files(&config->tiers[KVB_TIER_DISK]) && previous != KVB_TIER_DISK)
        return kvbi_diagnose(diagnosis, KVB_EINVAL,
                             "tiers[REMOTE]: nothing is below a DISK that is kept in a file");
    if (error == 0 && in_files(&config->tiers[KVB_TIER_DISK]) && config->c.tier_count == 1)
        return kvbi_diagnose(diagnosis, KVB_EINVAL,
                             "tiers[DISK].path: there is no tier in memory above it");
    if (error == 0 && in_files(&config->tiers[KVB_TIER_DISK]))
        deepen_lane_above_disk(config);
    if (error == 0)
        error = pair_with_cuda(config, diagnosis);
    for (unsigned tier = 0; tier < KVB_TIER_COUNT; tier++)
        blocks += config->tiers[tier].block_count;
    default_event_capacity(&config->c, blocks);
    if (error == 0 && blocks + config->c.event_capacity + KVBI_RECORDS_SPARE >= UINT32_MAX)
        return kvbi_diagnose(diagnosis, KVB_EINVAL,
                             "tiers: %llu blocks in all, fewer than 2^32 are possible",
                             (unsigned long long)blocks);
    return error;
}

static int read_capacities(struct kvb_config *c, struct kvb_diagnosis *diagnosis)
{
    bool has_sink = c->sink.deliver != NULL;
    int error = 0;
    if (!has_sink && c->event_capacity != 0)
        return kvbi_diagnose(diagnosis, KVB_EINVAL, "event_capacity is set without a sink");
    if (c->event_capacity != 0)
        error = range(diagnosis, "event_capacity", &c->event_capacity, 0, 2, 1u << 24);
    if (error == 0)
        error = range(diagnosis, "pin_capacity", &c->pin_capacity, 1024, 1, 1u << 24);
    if (error == 0)
        error = range(diagnosis, "op_capacity", &c->op_capacity, 1024, 1, 1u << 20);
    if (error == 0)
        error = range(diagnosis, "namespace_capacity", &c->namespace_capacity, 65536, 1, 1u << 24);
    return error;
}

static int read_scalars(struct kvbi_config *config, struct kvb_diagnosis *diagnosis)
{
    struct kvb_config *c = &config->c;
    if (c->tokens_per_block == 0 || c->tokens_per_block > KVB_TOKENS_PER_BLOCK_MAX)
        return kvbi_diagnose(diagnosis, KVB_EINVAL, "tokens_per_block: %u is not in 1..%d",
                             c->tokens_per_block, KVB_TOKENS_PER_BLOCK_MAX);
    if (c->key_bytes > KVB_KEY_BYTES_MAX)
        return kvbi_diagnose(diagnosis, KVB_EINVAL, "key_bytes: %u is not in 0..%d", c->key_bytes,
                             KVB_KEY_BYTES_MAX);
    if (c->progress > KVB_PROGRESS_POLL)
        return kvbi_diagnose(diagnosis, KVB_EINVAL, "progress: %u is none", c->progress);
    if (c->duplicate > KVB_DUPLICATE_SHARE)
        return kvbi_diagnose(diagnosis, KVB_EINVAL, "duplicate: %u is none", c->duplicate);
    if ((c->allocator.alloc == NULL) != (c->allocator.free == NULL))
        return kvbi_diagnose(diagnosis, KVB_EINVAL, "allocator: alloc and free come together");
    config->policy = kvbi_policy_find(c->policy);
    if (config->policy == NULL)
        return kvbi_diagnose(diagnosis, KVB_EUNSUPPORTED, "policy: \"%.64s\" is not known",
                             c->policy);
    return read_capacities(c, diagnosis);
}

int kvbi_config_read(struct kvbi_config *config, const struct kvb_config *given,
                     struct kvb_diagnosis *diagnosis)
{
    *config = (struct kvbi_config){0};
    if (given == NULL)
        return kvbi_diagnose(diagnosis, KVB_EINVAL, "config is NULL");
    if (kvbi_struct_in(&config->c, sizeof config->c, sizeof config->c, given) != 0)
        return kvbi_diagnose(diagnosis, KVB_EINVAL,
                             "config: size %u is wrong, or an unknown field is set", given->size);
    int error = read_scalars(config, diagnosis);
    if (error == 0)
        error = read_layout(config, diagnosis);
    if (error == 0)
        error = read_tiers(config, diagnosis);
    return error;
}
