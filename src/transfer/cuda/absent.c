/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cuda/absent - what a build without CUDA has in place of this folder, but for check.c
 *
 * A tier in CUDA memory is refused at create, in words.
 */
#include "transfer/cuda/cuda.h"

static bool is_cuda(const struct kvb_tier_config *config)
{
    return config->memory_kind == KVB_MEMORY_CUDA;
}

static int create(struct kvbi_tier *tier, const struct kvbi_memory *memory,
                  const struct kvb_tier_config *config, const struct kvbi_purpose *purpose,
                  char *message, size_t message_bytes)
{
    (void)memory, (void)config, (void)purpose;
    *tier = (struct kvbi_tier){.ops = NULL};
    return kvbi_kind_refuse(message, message_bytes, KVB_EUNSUPPORTED,
                            "tiers[DEVICE].memory_kind: this libkvblock was built without CUDA "
                            "(KVB_CUDA=ON with a toolkit of 12.0 or newer)");
}

const struct kvbi_kind kvbi_kind_cuda = {.name = "cuda",
                                         .is = is_cuda,
                                         .check = kvbi_cuda_check_config,
                                         .create = create,
                                         .strided = true,
                                         .in_memory = true,
                                         .registers_memory = true};
