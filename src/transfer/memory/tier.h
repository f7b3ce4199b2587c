/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory/tier - a tier in host memory: the caller's, or its own
 *
 * Owns       the memory, unless it is the caller's; its registration with a device, if it has one.
 * Callers    transfer/kinds lists it; kinds that keep their blocks in host memory as well.
 * Why        memory that is taken here starts on a page: registering it for I/O or with a device
 *            works by pages. What a device has kept registered is lost rather than given back.
 */
#ifndef KVBI_TRANSFER_MEMORY_TIER_H
#define KVBI_TRANSFER_MEMORY_TIER_H

#include <stdint.h>

#include "base/memory.h"
#include "transfer/kind.h"
#include "transfer/tier.h"

/* `base` of the caller, or NULL to take block_count x block_bytes (not zeroed). KVB_ENOMEM. */
int kvbi_tier_host_create(struct kvbi_tier *tier, const struct kvbi_memory *memory, uint32_t id,
                          uint32_t block_count, uint64_t block_bytes, void *base);

/* For kinds that keep their blocks in host memory as well: operations of tier.h. */
unsigned char *kvbi_memory_chunk(const struct kvbi_tier *tier, uint32_t slot, uint32_t layer,
                                 uint32_t part, const struct kvb_layout *layout);
void kvbi_memory_destroy(struct kvbi_tier *tier);
void kvbi_memory_statistics(const struct kvbi_tier *tier, struct kvb_stats *stats);

#endif
