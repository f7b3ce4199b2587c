/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cuda/absent - what a build without CUDA has in place of transfer/cuda/
 *
 * A tier in CUDA memory is refused at create, in words, so nothing else of that interface is ever reached.
 */
#include "transfer/cuda/cuda.h"

#include <stdio.h>

int kvbi_tier_cuda_create(struct kvbi_tier *tier, const struct kvbi_memory *memory,
                          const struct kvb_tier_config *config, const struct kvb_layout *layout,
                          uint64_t block_bytes, char *message, size_t message_bytes)
{
    (void)memory, (void)config, (void)layout, (void)block_bytes;
    *tier = (struct kvbi_tier){.memory = NULL};
    (void)snprintf(
        message, message_bytes,
        "tiers[DEVICE].memory_kind: this libkvblock was built without CUDA (KVB_CUDA=ON with a toolkit of 12.0 or newer)");
    return KVB_EUNSUPPORTED;
}

void kvbi_cuda_close(struct kvbi_cuda *cuda, unsigned char *owned_base)
{
    (void)cuda, (void)owned_base;
}

bool kvbi_cuda_lost(const struct kvbi_cuda *cuda)
{
    (void)cuda;
    return false;
}

void kvbi_cuda_why(const struct kvbi_cuda *cuda, char *why, size_t bytes)
{
    (void)cuda;
    (void)snprintf(why, bytes, "%s", "");
}

int kvbi_pinning_create(struct kvbi_tier *tier, struct kvbi_cuda *cuda, const struct kvbi_log *log,
                        uint32_t threads)
{
    (void)tier, (void)cuda, (void)log, (void)threads;
    return KVB_EUNSUPPORTED;
}

bool kvbi_pinning_destroy(struct kvbi_pinning *pinning)
{
    (void)pinning;
    return true;
}

uint64_t kvbi_pinning_bytes(const struct kvbi_pinning *pinning)
{
    (void)pinning;
    return 0;
}

uint64_t kvbi_pinning_refused_bytes(const struct kvbi_pinning *pinning)
{
    (void)pinning;
    return 0;
}

int kvbi_engine_cuda_create(struct kvbi_engine **engine, const struct kvbi_memory *memory,
                            const struct kvbi_engine_cuda_config *config, char *said,
                            size_t said_bytes)
{
    (void)memory, (void)config;
    *engine = NULL;
    (void)snprintf(said, said_bytes, "%s", "");
    return KVB_EUNSUPPORTED;
}

uint32_t kvbi_engine_cuda_flight(struct kvbi_engine *engine, uint32_t slot)
{
    (void)engine, (void)slot;
    return KVBI_FLIGHT_NONE;
}

bool kvbi_engine_cuda_spoiled(struct kvbi_engine *engine, uint64_t event)
{
    (void)engine, (void)event;
    return false;
}

uint64_t kvbi_engine_cuda_reached(struct kvbi_engine *engine)
{
    (void)engine;
    return 0;
}

void kvbi_engine_cuda_watch(struct kvbi_engine *engine, uint64_t until)
{
    (void)engine, (void)until;
}

int kvbi_engine_cuda_wait(struct kvbi_engine *engine, uint64_t flights, uint64_t event,
                          void *stream, uint32_t layer, struct kvbi_why *why)
{
    (void)engine, (void)flights, (void)event, (void)stream, (void)layer, (void)why;
    return KVB_EUNSUPPORTED;
}
