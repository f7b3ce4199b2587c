/* SPDX-License-Identifier: Apache-2.0 */
/* Which engines there are. See engines.h. */
#include "offload/engines.h"

#include <stdio.h>
#include <string.h>

#include "transfer/disk_engine.h"

static const struct kvbi_tier *disk_of(const struct kvbi_engines_config *config)
{
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++)
        if (config->tiers[tier].disk != NULL)
            return &config->tiers[tier];
    return NULL;
}

static int create_disk(struct kvbi_engines *engines, const struct kvbi_memory *memory, struct kvbi_clock *clock,
                       const struct kvbi_engines_config *config, const struct kvbi_tier *disk)
{
    char said[KVBI_DISK_SAID_BYTES] = "";
    const struct kvbi_tier *memories[KVB_TIER_COUNT];
    struct kvbi_disk_engine_config engine = {.engine = (enum kvbi_disk_engine)config->configs[disk->tier].disk_engine,
                                             .disk = disk->disk,
                                             .memories = memories,
                                             .capacity = config->capacity,
                                             .single_issuer = config->own_thread,
                                             .poll = !config->own_thread,
                                             .hooks = config->hooks};
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++)
        if (config->tiers[tier].block_count > 0 && config->tiers[tier].disk == NULL)
            memories[engine.memory_count++] = &config->tiers[tier];
    int error = kvbi_disk_engine_create(&engines->all[engines->count], memory, clock, &engine, said, sizeof said);
    size_t used = error == 0 ? strlen(engines->said) : 0;
    (void)snprintf(engines->said + used, sizeof engines->said - used, "%s%s", used > 0 ? "; " : "", said);
    engines->count += error == 0;
    return error;
}

int kvbi_engines_create(struct kvbi_engines *engines, const struct kvbi_memory *memory, struct kvbi_clock *clock,
                        const struct kvbi_engines_config *config)
{
    *engines = (struct kvbi_engines){0};
    int error = kvbi_engine_memcpy_create(&engines->all[0], memory, clock, config->capacity, config->hooks);
    if (error != 0)
        return error;
    engines->count = 1;
    (void)snprintf(engines->said, sizeof engines->said, "%s", engines->all[0]->ops->name);
    const struct kvbi_tier *disk = disk_of(config);
    return disk != NULL ? create_disk(engines, memory, clock, config, disk) : 0;
}

void kvbi_engines_destroy(struct kvbi_engines *engines)
{
    while (engines->count > 0) {
        struct kvbi_engine *engine = engines->all[--engines->count];
        engine->ops->destroy(engine);
    }
}

struct kvbi_engine *kvbi_engines_between(const struct kvbi_engines *engines, const struct kvbi_tier *from,
                                         const struct kvbi_tier *to)
{
    return engines->all[from->disk != NULL || to->disk != NULL];
}

int kvbi_engines_import(const struct kvbi_engines *engines, const struct kvb_fence *fence, uint64_t *ticket)
{
    return engines->all[0]->ops->import(engines->all[0], fence, ticket);
}

bool kvbi_engines_signal(const struct kvbi_engines *engines, uint64_t value)
{
    bool ready = false;
    for (uint32_t i = 0; i < engines->count; i++)
        ready |= engines->all[i]->ops->signal(engines->all[i], value);
    return ready;
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
