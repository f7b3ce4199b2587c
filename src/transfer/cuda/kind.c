/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cuda/kind - the memory of a GPU, as the rest of the library knows it: the operations of
 * transfer/tier.h
 *
 * Callers    transfer/kinds lists it. Lock: none; tier.h says what may be called when.
 */
#include "transfer/cuda/cuda.h"
#include "transfer/cuda/device.h"
#include "transfer/cuda/registration.h"

/* ---- Operations ------------------------------------------------------------------------------ */

static void destroy(struct kvbi_tier *tier)
{
    kvbi_cuda_close(tier->self, tier->owned ? tier->base : NULL);
}

static int create_engine(const struct kvbi_tier *tier, struct kvbi_engine **engine,
                         const struct kvbi_engines_config *config, char *said)
{
    struct kvbi_engine_cuda_config cuda = {
        .device = tier,
        .method = (enum kvb_copy_method)config->configs[tier->tier].copy_method,
        .capacity = config->capacity,
        .lines = config->lines,
        .own_thread = config->own_thread,
        .clock = config->clock,
        .log = config->log,
        .hooks = config->hooks};
    return kvbi_engine_cuda_create(engine, config->memory, &cuda, said, KVBI_ENGINE_SAID_BYTES);
}

static unsigned char *chunk(const struct kvbi_tier *tier, uint32_t slot, uint32_t layer,
                            uint32_t part, const struct kvb_layout *layout)
{
    const struct kvbi_cuda *cuda = tier->self;
    (void)layout;
    return kvbi_strides_chunk(&cuda->strides, tier->base, slot, layer, part);
}

static const char *apart(const struct kvbi_tier *tier)
{
    const struct kvbi_cuda *cuda = tier->self;
    return kvbi_strides_contiguous(&cuda->strides)
               ? NULL
               : "whose blocks lie apart (strides): ask kvb_block_address";
}

static bool lost(const struct kvbi_tier *tier, char *why, size_t why_bytes)
{
    if (!kvbi_cuda_lost(tier->self))
        return false;
    if (why != NULL)
        kvbi_cuda_why(tier->self, why, why_bytes);
    return true;
}

static int register_memory(const struct kvbi_tier *tier, struct kvbi_tier *host,
                           const struct kvbi_register_config *config)
{
    return kvbi_cuda_registration_create(host, tier->self, config);
}

const struct kvbi_tier_ops kvbi_cuda_ops = {.kind = "cuda",
                                            .destroy = destroy,
                                            .create_engine = create_engine,
                                            .chunk = chunk,
                                            .apart = apart,
                                            .bytes = kvbi_tier_no_bytes,
                                            .statistics = kvbi_tier_no_statistics,
                                            .lost = lost,
                                            .register_memory = register_memory};

/* ---- The kind -------------------------------------------------------------------------------- */

static bool is_cuda(const struct kvb_tier_config *config)
{
    return config->memory_kind == KVB_MEMORY_CUDA;
}

static int create(struct kvbi_tier *tier, const struct kvbi_memory *memory,
                  const struct kvb_tier_config *config, const struct kvbi_purpose *purpose,
                  char *message, size_t message_bytes)
{
    return kvbi_tier_cuda_create(tier, memory, config, purpose->layout, purpose->block_bytes,
                                 message, message_bytes);
}

const struct kvbi_kind kvbi_kind_cuda = {.name = "cuda",
                                         .is = is_cuda,
                                         .check = kvbi_cuda_check_config,
                                         .create = create,
                                         .strided = true,
                                         .in_memory = true,
                                         .registers_memory = true};
