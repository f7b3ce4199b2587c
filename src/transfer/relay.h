/* SPDX-License-Identifier: Apache-2.0 */
/*
 * relay - between a GPU and a disk with no host tier in between: two engines, one after the other, through pinned memory
 *
 * Owns       both engines, the pinned memory between them, and the copies on their way.
 * Callers    see engine.h; offload/engines creates it.
 * Invariants a copy that has begun holds one block of the memory in between until it is over; copies down begin only while more than a
 *            quarter of them is free, copies behind a fence of the GPU only while those have less
 *            than half of them. Both engines carry copies of the relay's only, tagged with the
 *            item. A failed copy is KVB_EDEVICE if it was the GPU's half that failed; all else, and
 *            what is condemned, is the disk's word. What the GPU condemns are blocks in between:
 *            from then on nothing begins.
 * Lock       the queue's own. Where a copy is on its way is progress's alone.
 * Why        neither engine need know of the other: a disk reads and writes host memory, a GPU's engine fills and empties it, and what
 *            each promises about fences, verification and errors holds unchanged.
 */
#ifndef KVBI_TRANSFER_RELAY_H
#define KVBI_TRANSFER_RELAY_H

#include <kvblock.h>

#include "base/memory.h"
#include "transfer/engine.h"
#include "transfer/tier.h"

struct kvbi_relay_config {
    struct kvbi_engine *device, *disk; /* taken over, also by a create that fails */
    struct kvbi_tier *between;         /* pinned host memory; must outlive it */
    uint32_t capacity;
};

/* KVB_ENOMEM. */
int kvbi_engine_relay_create(struct kvbi_engine **engine, const struct kvbi_memory *memory,
                             const struct kvbi_relay_config *config);

#endif
