/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory/tier - see tier.h.
 *
 * Memory that is taken here starts on a page: registering it for I/O or pinning it for a GPU works by pages.
 */
#include "transfer/tier.h"
#include "base/debug.h"
#include "transfer/cuda/cuda.h"
#include "transfer/disk/tier.h"
#include "transfer/strides.h"

#include <stddef.h>

#define PAGE_BYTES 4096u

int kvbi_tier_host_create(struct kvbi_tier *tier, const struct kvbi_memory *memory, uint32_t id,
                          uint32_t block_count, uint64_t block_bytes, void *base)
{
    *tier = (struct kvbi_tier){.tier = id,
                               .block_count = block_count,
                               .block_bytes = block_bytes,
                               .base = base,
                               .owned = base == NULL,
                               .memory = memory};
    if (base != NULL)
        return 0;
    KVBI_ASSERT(block_bytes <= SIZE_MAX);
    tier->base = kvbi_memory_alloc_raw(memory, block_count, (size_t)block_bytes, PAGE_BYTES);
    if (tier->base != NULL)
        return 0;
    *tier = (struct kvbi_tier){.memory = NULL};
    return KVB_ENOMEM;
}

void kvbi_tier_destroy(struct kvbi_tier *tier)
{
    kvbi_disk_close(tier->disk);
    bool released = kvbi_pinning_destroy(tier->pinning);
    if (tier->cuda != NULL)
        kvbi_cuda_close(tier->cuda, tier->owned ? tier->base : NULL);
    else if (tier->memory != NULL && tier->owned &&
             released) /* else it is lost: better than wrong bytes */
        kvbi_memory_free(tier->memory, tier->base, tier->block_count, (size_t)tier->block_bytes);
    *tier = (struct kvbi_tier){.memory = NULL};
}

unsigned char *kvbi_tier_chunk(const struct kvbi_tier *tier, uint32_t slot, uint32_t layer,
                               uint32_t part, const struct kvb_layout *layout)
{
    if (tier->strides != NULL)
        return kvbi_strides_chunk(tier->strides, tier->base, slot, layer, part);
    return kvbi_tier_address(tier, slot) +
           ((uint64_t)layer * layout->parts + part) * layout->chunk_bytes;
}
