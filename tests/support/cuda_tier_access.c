/* SPDX-License-Identifier: Apache-2.0 */
/* See cuda_tier_access.h. */
#include "support/cuda_tier_access.h"

#include "transfer/cuda/device.h"

static unsigned char *take_block(const struct kvbi_tier *tier)
{
    unsigned char *block = malloc((size_t)tier->block_bytes);
    if (block == NULL)
        abort();
    return block;
}

/* Chunk i of the block, as they follow one another in all other memory. */
static unsigned char *chunk_at(const struct kvbi_tier *tier, uint32_t slot, uint32_t i)
{
    const struct kvbi_cuda *cuda = tier->self;
    uint32_t parts = cuda->strides.parts;
    return kvbi_strides_chunk(&cuda->strides, tier->base, slot, i / parts, i % parts);
}

static void fill_cuda(const struct kvbi_tier *tier, uint32_t slot, uint64_t key)
{
    const struct kvbi_strides *strides = &((const struct kvbi_cuda *)tier->self)->strides;
    unsigned char *block = take_block(tier);
    content_write(block, tier->block_bytes, key);
    for (uint32_t i = 0; i < strides->layers * strides->parts; i++)
        fake_cuda_write(chunk_at(tier, slot, i), block + i * strides->chunk, strides->chunk);
    free(block);
}

static bool cuda_has(const struct kvbi_tier *tier, uint32_t slot, uint64_t key)
{
    const struct kvbi_strides *strides = &((const struct kvbi_cuda *)tier->self)->strides;
    unsigned char *block = take_block(tier);
    for (uint32_t i = 0; i < strides->layers * strides->parts; i++)
        fake_cuda_read(block + i * strides->chunk, chunk_at(tier, slot, i), strides->chunk);
    bool has = content_is(block, tier->block_bytes, key);
    free(block);
    return has;
}

const struct tier_access tier_access_cuda = {.fill = fill_cuda, .has = cuda_has};

static void fill_pinned(const struct kvbi_tier *tier, uint32_t slot, uint64_t key)
{
    unsigned char *at = kvbi_tier_address(tier, slot);
    if (fake_cuda_is_pinned(at, tier->block_bytes))
        fake_cuda_host_writes(at, tier->block_bytes);
    tier_access_memory.fill(tier, slot, key);
}

static bool pinned_has(const struct kvbi_tier *tier, uint32_t slot, uint64_t key)
{
    const unsigned char *at = kvbi_tier_address(tier, slot);
    if (fake_cuda_is_pinned(at, tier->block_bytes))
        fake_cuda_host_reads(at, tier->block_bytes);
    return tier_access_memory.has(tier, slot, key);
}

const struct tier_access tier_access_pinned = {.fill = fill_pinned, .has = pinned_has};
