/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a configuration. See config.h; the ranges are those of include/kvblock.h. */
#include "api/config_tier.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>

#include "api/manager.h"
#include "base/struct_in.h"

#define PIN_THREADS 4
#define PIN_DUTY_PERCENT 50
#define EVENTS_DEFAULT_MIN 4096
#define EVENTS_DEFAULT_MAX (1u << 20)

#define LAYOUT_BYTES_MAX UINT32_MAX

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

int kvbi_config_range(struct kvb_diagnosis *diagnosis, const char *where, const char *name,
                      uint32_t *value, uint32_t otherwise, uint32_t low, uint32_t high)
{
    if (*value == 0)
        *value = otherwise;
    if (*value >= low && *value <= high)
        return 0;
    if (otherwise == 0) /* the default is not one number */
        return kvbi_diagnose(diagnosis, KVB_EINVAL,
                             "%s%s is %u, must be %u..%u, or 0 for the default", where, name,
                             *value, low, high);
    return kvbi_diagnose(diagnosis, KVB_EINVAL, "%s%s is %u, must be %u..%u, or 0 for %u", where,
                         name, *value, low, high, otherwise);
}

int kvbi_config_refuse_struct(struct kvb_diagnosis *diagnosis, const char *name, const char *type,
                              const void *given, uint32_t size, size_t known)
{
    struct kvbi_why why;
    kvbi_struct_why(&why, name, type, given, size, known);
    return kvbi_diagnose(diagnosis, KVB_EINVAL, "%s", why.text);
}

static int range(struct kvb_diagnosis *diagnosis, const char *name, uint32_t *value,
                 uint32_t otherwise, uint32_t low, uint32_t high)
{
    return kvbi_config_range(diagnosis, "", name, value, otherwise, low, high);
}

/* A number that must not be 0. */
static int not_zero(struct kvb_diagnosis *diagnosis, const char *name, uint64_t value)
{
    return value != 0 ? 0
                      : kvbi_diagnose(diagnosis, KVB_EINVAL, "layout.%s is 0, must be 1..%u", name,
                                      LAYOUT_BYTES_MAX);
}

static int read_layout(struct kvbi_config *config, struct kvb_diagnosis *diagnosis)
{
    struct kvb_layout *layout = &config->layout;
    const struct kvb_layout *given = config->c.layout;
    uint64_t bytes;
    if (kvbi_struct_in(layout, sizeof *layout, sizeof *layout, given) != 0)
        return kvbi_config_refuse_struct(diagnosis, "layout", "kvb_layout", given,
                                         given == NULL ? 0 : given->size, sizeof *layout);
    int error = not_zero(diagnosis, "layers", layout->layers);
    if (error == 0)
        error = not_zero(diagnosis, "parts", layout->parts);
    if (error == 0)
        error = not_zero(diagnosis, "chunk_bytes", layout->chunk_bytes);
    if (error != 0)
        return error;
    if (layout->reserved != 0)
        return kvbi_diagnose(diagnosis, KVB_EINVAL, "layout.reserved is %u, must be 0",
                             layout->reserved);
    if (__builtin_mul_overflow((uint64_t)layout->layers * layout->parts, layout->chunk_bytes,
                               &bytes) ||
        bytes > LAYOUT_BYTES_MAX)
        return kvbi_diagnose(
            diagnosis, KVB_EINVAL,
            "layout: a block of %u layers x %u parts x %llu chunk_bytes is 4 GiB or more, must be "
            "at most %u bytes",
            layout->layers, layout->parts, (unsigned long long)layout->chunk_bytes,
            LAYOUT_BYTES_MAX);
    config->block_bytes = bytes;
    return 0;
}

/* A kind may want more on its way to it than others. */
static void deepen_lanes(struct kvbi_config *config)
{
    uint32_t above = KVBI_NONE;
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++) {
        const struct kvbi_kind *kind = config->kinds[tier];
        if (kind == NULL)
            continue;
        if (above != KVBI_NONE && kind->lane_depth != 0 && !(config->depths_given & 1u << above))
            config->tiers[above].depth = kind->lane_depth;
        above = tier;
    }
}

/* What some kinds ask of their neighbours. `last`: the lowest tier. */
static int check_neighbours(const struct kvbi_config *config, uint32_t last,
                            struct kvb_diagnosis *diagnosis)
{
    const struct kvbi_kind *above = NULL;
    for (uint32_t tier = 0, position = 0; tier < KVB_TIER_COUNT; tier++) {
        const struct kvbi_kind *kind = config->kinds[tier];
        if (kind == NULL)
            continue;
        if (kind->below_memory && tier != last)
            return kvbi_diagnose(diagnosis, KVB_EINVAL,
                                 "tiers[%u] (%s): must be the lowest, there is a tier below it",
                                 position, kvbi_tier_name(tier));
        if (kind->below_memory && (above == NULL || !above->in_memory))
            return kvbi_diagnose(diagnosis, KVB_EINVAL,
                                 "tiers[%u] (%s): must have a tier in memory above it", position,
                                 kvbi_tier_name(tier));
        above = kind;
        position++;
    }
    return 0;
}

/* Memory below a device is registered with it, by threads unless the manager is to run without. */
static int pair_with_device(struct kvbi_config *config, struct kvb_diagnosis *diagnosis)
{
    const struct kvb_layout *layout = &config->layout;
    const struct kvbi_kind *device = config->kinds[KVB_TIER_DEVICE];
    struct kvb_tier_config *host = &config->tiers[KVB_TIER_HOST];
    bool strided = device != NULL && device->strided;
    bool registers = device != NULL && device->registers_memory;
    if (!strided && (layout->layer_stride | layout->part_stride | layout->block_stride) != 0)
        return kvbi_diagnose(diagnosis, KVB_EINVAL,
                             "layout.%s is given, must be 0 without a tier in CUDA memory",
                             layout->layer_stride != 0  ? "layer_stride"
                             : layout->part_stride != 0 ? "part_stride"
                                                        : "block_stride");
    for (unsigned tier = 0, position = 0; tier < KVB_TIER_COUNT; tier++) {
        const struct kvb_tier_config *c = &config->tiers[tier];
        if ((c->pin_threads | c->pin_duty_percent) != 0 && (!registers || tier != KVB_TIER_HOST))
            return kvbi_diagnose(
                diagnosis, KVB_EINVAL,
                "tiers[%u] (%s): %s is %u, must be 0 but for a HOST below CUDA memory", position,
                kvbi_tier_name(tier), c->pin_threads != 0 ? "pin_threads" : "pin_duty_percent",
                c->pin_threads != 0 ? c->pin_threads : c->pin_duty_percent);
        position += c->block_count > 0;
    }
    if (registers && host->pin_threads == 0 && config->c.progress == KVB_PROGRESS_THREAD)
        host->pin_threads = PIN_THREADS;
    /* where create does it, its caller waits, and nobody launches through this manager yet */
    for (unsigned tier = 0; tier < KVB_TIER_COUNT; tier++)
        if (config->tiers[tier].pin_duty_percent == 0)
            config->tiers[tier].pin_duty_percent =
                config->tiers[tier].pin_threads != 0 ? PIN_DUTY_PERCENT : 100;
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
    if (config->c.tier_count == 0 || config->c.tier_count > KVB_TIER_COUNT)
        return kvbi_diagnose(diagnosis, KVB_EINVAL, "tier_count is %u, must be 1..%d",
                             config->c.tier_count, KVB_TIER_COUNT);
    if (config->c.tiers == NULL)
        return kvbi_diagnose(diagnosis, KVB_EINVAL, "tiers is NULL, tier_count is %u",
                             config->c.tier_count);
    if (config->c.tiers[0].size % _Alignof(struct kvb_tier_config) != 0)
        return kvbi_diagnose(
            diagnosis, KVB_EINVAL,
            "tiers[0].size is %u, must be a multiple of %zu, from %zu (sizeof(struct "
            "kvb_tier_config))",
            config->c.tiers[0].size, _Alignof(struct kvb_tier_config),
            sizeof(struct kvb_tier_config));
    for (uint32_t i = 0; error == 0 && i < config->c.tier_count; i++)
        error =
            kvbi_config_read_tier(config, kvbi_stride(config->c.tiers, config->c.tiers[0].size, i),
                                  i, &previous, diagnosis);
    if (error == 0)
        error = check_neighbours(config, (uint32_t)previous, diagnosis);
    if (error == 0)
        error = pair_with_device(config, diagnosis);
    deepen_lanes(config);
    for (unsigned tier = 0; tier < KVB_TIER_COUNT; tier++)
        blocks += config->tiers[tier].block_count;
    default_event_capacity(&config->c, blocks);
    if (error == 0 && blocks + config->c.event_capacity + KVBI_RECORDS_SPARE >= UINT32_MAX)
        return kvbi_diagnose(
            diagnosis, KVB_EINVAL,
            "tiers: block_count is %llu in all, must be below %u with event_capacity (%u)",
            (unsigned long long)blocks, UINT32_MAX - KVBI_RECORDS_SPARE, config->c.event_capacity);
    return error;
}

static int read_capacities(struct kvb_config *c, struct kvb_diagnosis *diagnosis)
{
    bool has_sink = c->sink.deliver != NULL;
    int error = 0;
    if (!has_sink && c->event_capacity != 0)
        return kvbi_diagnose(diagnosis, KVB_EINVAL,
                             "event_capacity is %u, must be 0 without a sink", c->event_capacity);
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
    char names[64];
    if (c->tokens_per_block == 0 || c->tokens_per_block > KVB_TOKENS_PER_BLOCK_MAX)
        return kvbi_diagnose(diagnosis, KVB_EINVAL, "tokens_per_block is %u, must be 1..%d",
                             c->tokens_per_block, KVB_TOKENS_PER_BLOCK_MAX);
    if (c->key_bytes > KVB_KEY_BYTES_MAX)
        return kvbi_diagnose(diagnosis, KVB_EINVAL, "key_bytes is %u, must be 0..%d", c->key_bytes,
                             KVB_KEY_BYTES_MAX);
    if (c->progress > KVB_PROGRESS_POLL)
        return kvbi_diagnose(diagnosis, KVB_EINVAL,
                             "progress is %u, must be 0..%d (enum kvb_progress)", c->progress,
                             KVB_PROGRESS_POLL);
    if (c->duplicate > KVB_DUPLICATE_SHARE)
        return kvbi_diagnose(diagnosis, KVB_EINVAL,
                             "duplicate is %u, must be 0..%d (enum kvb_duplicate)", c->duplicate,
                             KVB_DUPLICATE_SHARE);
    if ((c->allocator.alloc == NULL) != (c->allocator.free == NULL))
        return kvbi_diagnose(diagnosis, KVB_EINVAL,
                             "allocator.%s is NULL, must be given with the other, or both be NULL",
                             c->allocator.alloc == NULL ? "alloc" : "free");
    config->policy = kvbi_policy_find(c->policy);
    if (config->policy == NULL) {
        kvbi_policy_names(names, sizeof names);
        return kvbi_diagnose(diagnosis, KVB_EUNSUPPORTED,
                             "policy \"%.64s\" is not known; known: %s", c->policy, names);
    }
    return read_capacities(c, diagnosis);
}

int kvbi_config_read(struct kvbi_config *config, const struct kvb_config *given,
                     const struct kvbi_hooks *hooks, struct kvb_diagnosis *diagnosis)
{
    *config = (struct kvbi_config){.hooks = hooks};
    if (given == NULL)
        return kvbi_diagnose(diagnosis, KVB_EINVAL, "config is NULL");
    if (kvbi_struct_in(&config->c, sizeof config->c, sizeof config->c, given) != 0)
        return kvbi_config_refuse_struct(diagnosis, "config", "kvb_config", given, given->size,
                                         sizeof config->c);
    int error = read_scalars(config, diagnosis);
    if (error == 0)
        error = read_layout(config, diagnosis);
    if (error == 0)
        error = read_tiers(config, diagnosis);
    return error;
}

void kvbi_config_log_refusal(const struct kvb_config *given, const struct kvb_diagnosis *diagnosis)
{
    struct kvbi_log log;
    if (given == NULL || given->size < sizeof *given || given->size > KVBI_STRUCT_BYTES_MAX)
        return;
    kvbi_log_init(&log, &given->logger);
    kvbi_log(&log, KVB_LOG_WARN, diagnosis->code, "kvb_manager_create: %s", diagnosis->message);
}
