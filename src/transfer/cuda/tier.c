/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cuda/tier - a tier in the memory of a GPU
 *
 * Owns       nothing beyond what device.h says: it finds out whether memory is what the
 *            configuration says, once, at create.
 * Callers    transfer/cuda/kind.
 * Why        a pointer of the wrong kind is found here, in words, instead of as an illegal address
 *            in the middle of serving, which would take the server's whole context with it. The
 *            first and the last byte of each layer are looked at: an allocation is contiguous, so
 *            both ends in memory of the same GPU are all that the runtime can say.
 */
#include <stdio.h>

#include "transfer/cuda/cuda.h"
#include "transfer/cuda/device.h"

static const char *kind_name(enum cudaMemoryType type)
{
    return type == cudaMemoryTypeHost      ? "pinned host memory"
           : type == cudaMemoryTypeManaged ? "managed memory"
                                           : "host memory";
}

static int check_byte(struct kvbi_cuda_scope *scope, const char *name, const unsigned char *byte,
                      char *message, size_t message_bytes)
{
    struct cudaPointerAttributes attributes = {.type = cudaMemoryTypeUnregistered};
    cudaError_t error = kvbi_cuda_check(scope, cudaPointerGetAttributes(&attributes, byte));
    if (error != cudaSuccess && error != cudaErrorInvalidValue) {
        (void)snprintf(message, message_bytes, "%s: CUDA does not tell what it is: %s (%d)", name,
                       cudaGetErrorName(error), (int)error);
        return KVB_EDEVICE;
    }
    if (error != cudaSuccess || attributes.type != cudaMemoryTypeDevice) {
        (void)snprintf(
            message, message_bytes, "%s: byte %p is %s, not memory of a CUDA device", name,
            (const void *)byte,
            kind_name(error == cudaSuccess ? attributes.type : cudaMemoryTypeUnregistered));
        return KVB_EINVAL;
    }
    if (attributes.device == scope->cuda->device)
        return 0;
    (void)snprintf(message, message_bytes,
                   "%s: byte %p is memory of CUDA device %d, the tier's is %d", name,
                   (const void *)byte, attributes.device, scope->cuda->device);
    return KVB_EINVAL;
}

/* Both ends of what lies at one base. */
static int check_range(struct kvbi_cuda_scope *scope, const char *name, const unsigned char *base,
                       char *message, size_t message_bytes)
{
    int error = check_byte(scope, name, base, message, message_bytes);
    if (error == 0)
        error = check_byte(scope, name, base + scope->cuda->strides.span_bytes - 1, message,
                           message_bytes);
    return error;
}

static int take_memory(struct kvbi_cuda_scope *scope, struct kvbi_tier *tier, char *message,
                       size_t message_bytes)
{
    void *base = NULL;
    uint64_t bytes = scope->cuda->strides.span_bytes;
    cudaError_t error = kvbi_cuda_check(scope, cudaMalloc(&base, bytes));
    if (error == cudaSuccess) {
        tier->base = base;
        tier->owned = true;
        return 0;
    }
    (void)snprintf(
        message, message_bytes, "tiers[DEVICE]: CUDA device %d does not give %llu bytes: %s (%d)",
        scope->cuda->device, (unsigned long long)bytes, cudaGetErrorName(error), (int)error);
    return error == cudaErrorMemoryAllocation ? KVB_ENOMEM : KVB_EDEVICE;
}

static int use_layers(struct kvbi_cuda_scope *scope, const struct kvb_tier_config *config,
                      char *message, size_t message_bytes)
{
    struct kvbi_strides *strides = &scope->cuda->strides;
    strides->bases =
        kvbi_memory_alloc(scope->cuda->memory, strides->layers, sizeof *strides->bases, 0);
    int error = strides->bases == NULL ? KVB_ENOMEM : 0;
    for (uint32_t i = 0; error == 0 && i < strides->layers; i++) {
        char name[48];
        (void)snprintf(name, sizeof name, "tiers[DEVICE].layer_memory[%u]", i);
        strides->bases[i] = config->layer_memory[i];
        error = check_range(scope, name, strides->bases[i], message, message_bytes);
    }
    return error;
}

static int find_memory(struct kvbi_cuda_scope *scope, struct kvbi_tier *tier,
                       const struct kvb_tier_config *config, char *message, size_t message_bytes)
{
    if (config->layer_memory != NULL)
        return use_layers(scope, config, message, message_bytes);
    if (config->memory == NULL)
        return take_memory(scope, tier, message, message_bytes);
    tier->base = config->memory;
    return check_range(scope, "tiers[DEVICE].memory", tier->base, message, message_bytes);
}

int kvbi_tier_cuda_create(struct kvbi_tier *tier, const struct kvbi_memory *memory,
                          const struct kvb_tier_config *config, const struct kvb_layout *layout,
                          uint64_t block_bytes, char *message, size_t message_bytes)
{
    struct kvbi_cuda_scope scope;
    struct kvbi_cuda *cuda;
    *tier = (struct kvbi_tier){.ops = NULL};
    int error = kvbi_cuda_open(&cuda, memory, config->device, message, message_bytes);
    if (error != 0)
        return error;
    *tier = (struct kvbi_tier){.ops = &kvbi_cuda_ops,
                               .tier = config->tier,
                               .block_count = config->block_count,
                               .block_bytes = block_bytes,
                               .on_streams = true,
                               .memory = memory,
                               .self = cuda};
    kvbi_cuda_enter(cuda, &scope);
    error = kvbi_strides_read(&cuda->strides, layout, config->block_count,
                              config->layer_memory != NULL, message, message_bytes);
    if (error == 0)
        error = find_memory(&scope, tier, config, message, message_bytes);
    kvbi_cuda_leave(&scope);
    if (error == 0 && kvbi_cuda_lost(cuda)) {
        kvbi_cuda_why(cuda, message, message_bytes);
        error = KVB_EDEVICE;
    }
    if (error != 0) {
        kvbi_tier_destroy(tier);
        return error;
    }
    cuda->first_byte = kvbi_strides_chunk(&cuda->strides, tier->base, 0, 0, 0);
    return 0;
}
