/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cuda/check - what a configuration says of a tier in CUDA memory, as far as can be seen without a
 * GPU
 *
 * Callers    the kind, in a build with CUDA and in one without.
 * Why        what the memory really is only the GPU's runtime can tell (tier.c).
 */
#include "transfer/cuda/cuda.h"
#include "transfer/strides.h"

static int check_memory(const struct kvb_tier_config *config, const struct kvb_layout *layout,
                        char *message, size_t message_bytes)
{
    struct kvbi_strides strides;
    bool layered = config->layer_memory != NULL, given = layered || config->memory != NULL;
    if (layered && config->memory != NULL)
        return kvbi_kind_refuse(message, message_bytes, KVB_EINVAL,
                                "memory and layer_memory are given, must be one of them");
    if (!given && (layout->layer_stride | layout->part_stride | layout->block_stride) != 0)
        return kvbi_kind_refuse(
            message, message_bytes, KVB_EINVAL,
            "memory and layer_memory are NULL and the layout has strides, must be without");
    if (!given && config->memory_bytes != 0)
        return kvbi_kind_refuse(message, message_bytes, KVB_EINVAL,
                                "memory_bytes is %llu without memory, must be 0",
                                (unsigned long long)config->memory_bytes);
    int error =
        kvbi_strides_read(&strides, layout, config->block_count, layered, message, message_bytes);
    if (error == 0 && layered)
        error = kvbi_strides_check_bases(&strides, config->layer_memory, message, message_bytes);
    if (error == 0 && given && config->memory_bytes < strides.span_bytes)
        error = kvbi_kind_refuse(
            message, message_bytes, KVB_EINVAL,
            "memory_bytes is %llu, must be at least %llu: so much the strides span",
            (unsigned long long)config->memory_bytes, (unsigned long long)strides.span_bytes);
    return error;
}

int kvbi_cuda_check_config(const struct kvb_tier_config *config, const struct kvb_layout *layout,
                           uint64_t block_bytes, char *message, size_t message_bytes)
{
    (void)block_bytes;
    if (config->tier != KVB_TIER_DEVICE)
        return kvbi_kind_refuse(
            message, message_bytes, KVB_EINVAL,
            "memory_kind is KVB_MEMORY_CUDA, must be KVB_MEMORY_HOST below DEVICE");
    int error = check_memory(config, layout, message, message_bytes);
    return error == 0 ? kvbi_kind_without_files(config, message, message_bytes) : error;
}
