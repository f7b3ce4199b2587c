/* SPDX-License-Identifier: Apache-2.0 */
/* Which engines there are. See engines.h. */
#include "transfer/engines.h"

#include <stdio.h>
#include <string.h>

#include "base/hooks.h"
#include "transfer/cuda/cuda.h"
#include "transfer/disk/engine.h"
#include "transfer/relay.h"

/* What a relay holds between a GPU and a disk: enough for the disk's queue, unless blocks are large. */
#define BETWEEN_BYTES ((uint64_t)64 << 20)
#define BETWEEN_BLOCKS_MIN 4u
#define BETWEEN_BLOCKS_MAX 64u

static const struct kvbi_tier *disk_of(const struct kvbi_engines_config *config)
{
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++)
        if (config->tiers[tier].disk != NULL)
            return &config->tiers[tier];
    return NULL;
}

static int create_disk(struct kvbi_engines *engines, const struct kvbi_memory *memory,
                       struct kvbi_clock *clock, const struct kvbi_engines_config *config,
                       const struct kvbi_tier *disk)
{
    char said[KVBI_DISK_SAID_BYTES] = "";
    const struct kvbi_tier *memories[KVB_TIER_COUNT + 1];
    struct kvbi_disk_engine_config engine = {
        .engine = (enum kvbi_disk_engine)config->configs[disk->tier].disk_engine,
        .disk = disk->disk,
        .memories = memories,
        .capacity = config->capacity,
        .single_issuer = config->own_thread,
        .edges = config->own_thread && engines->between.block_count == 0,
        .poll = !config->own_thread,
        .hooks = config->hooks};
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++)
        if (config->tiers[tier].block_count > 0 && config->tiers[tier].disk == NULL &&
            config->tiers[tier].cuda == NULL)
            memories[engine.memory_count++] = &config->tiers[tier];
    if (engines->between.block_count > 0)
        memories[engine.memory_count++] = &engines->between;
    int error = kvbi_disk_engine_create(&engines->all[engines->count], memory, clock, &engine, said,
                                        sizeof said);
    size_t used = error == 0 ? strlen(engines->said) : 0;
    (void)snprintf(engines->said + used, sizeof engines->said - used, "%s%s", used > 0 ? "; " : "",
                   said);
    engines->disk = engines->all[engines->count];
    engines->count += error == 0;
    return error;
}

static int create_cuda(struct kvbi_engines *engines, const struct kvbi_memory *memory,
                       const struct kvbi_engines_config *config, const struct kvbi_tier *device)
{
    char said[KVBI_DISK_SAID_BYTES] = "";
    struct kvbi_engine_cuda_config engine = {
        .device = device,
        .method = (enum kvb_copy_method)config->configs[device->tier].copy_method,
        .capacity = config->capacity,
        .log = config->log,
        .hooks = config->hooks};
    engines->events = kvbi_memory_alloc(memory, device->block_count, sizeof *engines->events, 0);
    if (engines->events == NULL)
        return KVB_ENOMEM;
    engines->memory = memory;
    engines->device = device;
    int error = kvbi_engine_cuda_create(&engines->cuda, memory, &engine, said, sizeof said);
    size_t used = error == 0 ? strlen(engines->said) : 0;
    (void)snprintf(engines->said + used, sizeof engines->said - used, "%s%s", used > 0 ? "; " : "",
                   said);
    engines->all[engines->count] = engines->cuda;
    engines->count += error == 0;
    return error;
}

static int create_between(struct kvbi_engines *engines, const struct kvbi_memory *memory,
                          const struct kvbi_engines_config *config, const struct kvbi_tier *device)
{
    uint64_t blocks = BETWEEN_BYTES / device->block_bytes;
    blocks = blocks < BETWEEN_BLOCKS_MIN   ? BETWEEN_BLOCKS_MIN
             : blocks > BETWEEN_BLOCKS_MAX ? BETWEEN_BLOCKS_MAX
                                           : blocks;
    int error = kvbi_tier_host_create(&engines->between, memory, KVB_TIER_HOST, (uint32_t)blocks,
                                      device->block_bytes, NULL);
    return error != 0 ? error
                      : kvbi_pinning_create(&engines->between, device->cuda, config->log, 0);
}

/* The GPU's engine and the disk's become one. */
static int create_relay(struct kvbi_engines *engines, const struct kvbi_memory *memory,
                        const struct kvbi_engines_config *config)
{
    struct kvbi_relay_config relay = {.device = engines->cuda,
                                      .disk = engines->disk,
                                      .between = &engines->between,
                                      .capacity = config->capacity};
    engines->count -= 2;
    int error = kvbi_engine_relay_create(&engines->disk, memory, &relay);
    engines->all[engines->count] = engines->disk;
    engines->count += error == 0;
    return error;
}

int kvbi_engines_create(struct kvbi_engines *engines, const struct kvbi_memory *memory,
                        struct kvbi_clock *clock, const struct kvbi_engines_config *config)
{
    *engines = (struct kvbi_engines){.awaited = UINT64_MAX, .hooks = config->hooks};
    int error =
        kvbi_engine_memcpy_create(&engines->all[0], memory, clock, config->capacity, config->hooks);
    if (error != 0)
        return error;
    engines->count = 1;
    (void)snprintf(engines->said, sizeof engines->said, "%s", engines->all[0]->ops->name);
    if (config->tiers[KVB_TIER_DEVICE].cuda != NULL)
        error = create_cuda(engines, memory, config, &config->tiers[KVB_TIER_DEVICE]);
    const struct kvbi_tier *disk = disk_of(config), *device = engines->device;
    bool relay = device != NULL && disk != NULL && config->tiers[KVB_TIER_HOST].block_count == 0;
    if (error == 0 && relay)
        error = create_between(engines, memory, config, device);
    if (error == 0 && disk != NULL)
        error = create_disk(engines, memory, clock, config, disk);
    return error == 0 && relay ? create_relay(engines, memory, config) : error;
}

void kvbi_engines_destroy(struct kvbi_engines *engines)
{
    while (engines->count > 0) {
        struct kvbi_engine *engine = engines->all[--engines->count];
        engine->ops->destroy(engine);
    }
    kvbi_tier_destroy(&engines->between);
    if (engines->events != NULL)
        kvbi_memory_free(engines->memory, engines->events, engines->device->block_count,
                         sizeof *engines->events);
    engines->events = NULL;
}

struct kvbi_engine *kvbi_engines_between(const struct kvbi_engines *engines,
                                         const struct kvbi_tier *from, const struct kvbi_tier *to)
{
    if (from->disk != NULL || to->disk != NULL)
        return engines->disk;
    return from->cuda != NULL || to->cuda != NULL ? engines->cuda : engines->all[0];
}

int kvbi_engines_import(const struct kvbi_engines *engines, const struct kvb_fence *fence,
                        uint64_t *ticket, struct kvbi_why *why)
{
    struct kvbi_engine *engine = engines->cuda != NULL ? engines->cuda : engines->all[0];
    return engine->ops->import(engine, fence, ticket, why);
}

void kvbi_engines_forget_spoiled(const struct kvbi_engines *engines, const struct kvbi_tier *tier,
                                 uint32_t slot)
{
    uint64_t event = kvbi_engines_event(engines, tier, slot);
    if (event != 0 && kvbi_engine_cuda_spoiled(engines->cuda, event))
        atomic_store_explicit(&engines->events[slot], 0, memory_order_relaxed);
}

void kvbi_engines_set_event(const struct kvbi_engines *engines, uint32_t slot, uint64_t ticket)
{
    uint64_t event = ticket & ~KVBI_TICKET_EVENT,
             before = atomic_load_explicit(&engines->events[slot], memory_order_relaxed);
    while (before < event &&
           !atomic_compare_exchange_weak_explicit(&engines->events[slot], &before, event,
                                                  memory_order_relaxed, memory_order_relaxed))
        ;
}

uint64_t kvbi_engines_event(const struct kvbi_engines *engines, const struct kvbi_tier *tier,
                            uint32_t slot)
{
    return tier->cuda != NULL ? atomic_load_explicit(&engines->events[slot], memory_order_relaxed)
                              : 0;
}

bool kvbi_engines_device_lost(const struct kvbi_engines *engines)
{
    return engines->device != NULL && kvbi_cuda_lost(engines->device->cuda);
}

bool kvbi_engines_signal(struct kvbi_engines *engines, uint64_t value)
{
    bool ready = false;
    for (uint32_t i = 0; i < engines->count; i++)
        ready |= engines->all[i]->ops->signal(engines->all[i], value);
    uint64_t before = atomic_load(&engines->counter);
    while (before < value && !atomic_compare_exchange_weak(&engines->counter, &before, value))
        ;
    /*
     * After the counter: whoever is about to sleep writes `awaited` and then looks at the counter.
     */
    return ready || (before < value && value > atomic_load(&engines->awaited));
}

uint64_t kvbi_engines_event_reached(const struct kvbi_engines *engines)
{
    return kvbi_engines_device_lost(engines) ? UINT64_MAX : kvbi_engine_cuda_reached(engines->cuda);
}

bool kvbi_engines_await(struct kvbi_engines *engines, struct kvbi_point until)
{
    atomic_store(&engines->awaited, until.ticket);
    if (engines->cuda != NULL)
        kvbi_engine_cuda_watch(engines->cuda, until.event);
    struct kvbi_point reached = kvbi_engines_reached(engines);
    return reached.ticket <= until.ticket && reached.event <= until.event;
}

bool kvbi_engines_recall(const struct kvbi_engines *engines, const struct kvbi_tier *from,
                         const struct kvbi_tier *to, uint32_t place, uint64_t tag)
{
    struct kvbi_engine *engine = kvbi_engines_between(engines, from, to);
    bool keeps = engines->hooks != NULL && engines->hooks->keeps;
    return !keeps && engine->ops->recall(engine, place, tag);
}

bool kvbi_engines_ready(const struct kvbi_engines *engines)
{
    bool ready = false;
    for (uint32_t i = 0; i < engines->count && !ready; i++)
        ready = engines->all[i]->ops->ready(engines->all[i]);
    return ready;
}

void kvbi_engines_drain(const struct kvbi_engines *engines)
{
    for (uint32_t i = 0; i < engines->count; i++)
        engines->all[i]->ops->drain(engines->all[i]);
}
