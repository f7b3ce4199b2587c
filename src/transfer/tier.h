/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where one tier's bytes lie: what engines read and write. Knows addresses, no store.
 *
 * Owns       the memory of the tier, unless it is the caller's; the file of a disk tier (transfer/disk/tier.h); the GPU of a tier in
 *            CUDA memory, and what pins host memory for one (transfer/cuda/cuda.h).
 * Callers    api/manager creates and destroys; engines and kvb_block_address read. Immutable after create: no lock.
 */
#ifndef KVBI_TRANSFER_TIER_H
#define KVBI_TRANSFER_TIER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/memory.h"

struct kvbi_cuda;
struct kvbi_disk;
struct kvbi_pinning;
struct kvbi_strides;

struct kvbi_tier {
    uint32_t tier; /* enum kvb_tier */
    uint32_t block_count;
    uint64_t block_bytes;
    unsigned char *base;
    bool owned;
    const struct kvbi_memory *memory;
    struct kvbi_disk *disk; /* owned; NULL: the tier is memory, at `base` */
    struct kvbi_cuda
        *cuda; /* owned; the memory is a GPU's: addresses are not the host's to follow */
    const struct kvbi_strides
        *strides;                 /* of `cuda`: where its chunks lie; NULL: blocks are contiguous */
    struct kvbi_pinning *pinning; /* owned; pins it for a GPU */
};

/* Host memory: `base` of the caller, or NULL to take block_count x block_bytes (not zeroed). KVB_ENOMEM. */
int kvbi_tier_host_create(struct kvbi_tier *tier, const struct kvbi_memory *memory, uint32_t id,
                          uint32_t block_count, uint64_t block_bytes, void *base);
void kvbi_tier_destroy(struct kvbi_tier *tier); /* legal on a zeroed object */

static inline unsigned char *kvbi_tier_address(const struct kvbi_tier *tier, uint32_t slot)
{
    return tier->base + (uint64_t)slot * tier->block_bytes;
}

/* Where one chunk of a block lies. */
unsigned char *kvbi_tier_chunk(const struct kvbi_tier *tier, uint32_t slot, uint32_t layer,
                               uint32_t part, const struct kvb_layout *layout);

#endif
