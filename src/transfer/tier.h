/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where one tier's bytes lie: what engines read and write. Knows addresses, no store.
 *
 * Owns       the memory of the tier, unless it is the caller's; the file of a disk tier (transfer/tier_disk.h).
 * Callers    api/manager creates and destroys; engines and kvb_block_address read. Immutable after create: no lock.
 */
#ifndef KVBI_TRANSFER_TIER_H
#define KVBI_TRANSFER_TIER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/memory.h"

struct kvbi_disk;

struct kvbi_tier {
    uint32_t tier; /* enum kvb_tier */
    uint32_t block_count;
    uint64_t block_bytes;
    unsigned char *base;
    bool owned;
    const struct kvbi_memory *memory;
    struct kvbi_disk *disk; /* owned; NULL: the tier is memory, at `base` */
};

/* Host memory: `base` of the caller, or NULL to take block_count x block_bytes (not zeroed). KVB_ENOMEM. */
int kvbi_tier_host_create(struct kvbi_tier *tier, const struct kvbi_memory *memory, uint32_t id, uint32_t block_count,
                          uint64_t block_bytes, void *base);
void kvbi_tier_destroy(struct kvbi_tier *tier); /* legal on a zeroed object */

static inline unsigned char *kvbi_tier_address(const struct kvbi_tier *tier, uint32_t slot)
{
    return tier->base + (uint64_t)slot * tier->block_bytes;
}

#endif
