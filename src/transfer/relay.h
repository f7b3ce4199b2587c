/* SPDX-License-Identifier: Apache-2.0 */
/*
 * relay - between a device and a lower tier with no memory on the host in between: two engines, one
 * after the other, through memory of its own
 *
 * Owns       both engines, and the copies on their way.
 * Callers    see engine.h; transfer/engines creates it.
 * Invariants a copy that has begun has one block of the memory in between until it is over; copies
 *            down begin only while more than a quarter of them is free, copies behind a fence of
 *            the device only while those have less than half of them. Both engines carry copies of
 *            the relay's only, whose cookie is the item. A failed copy is KVB_EDEVICE if it was the
 *            device's half that failed; all else, and what is condemned, is the lower tier's word.
 *            What the device condemns are blocks in between: from then on nothing begins.
 * Lock       the queue's own. Where a copy is on its way is progress's alone.
 * Why        neither engine need know of the other: a disk reads and writes host memory, a GPU's
 *            engine fills and empties it, and what each promises about tickets, verification and
 *            errors is unchanged.
 */
#ifndef KVBI_TRANSFER_RELAY_H
#define KVBI_TRANSFER_RELAY_H

#include <kvblock.h>

#include "base/memory.h"
#include "transfer/engine.h"
#include "transfer/tier.h"

struct kvbi_relay_config {
    /* Both taken over, also by a create that fails; `device` has streams. */
    struct kvbi_engine *device, *lower;
    struct kvbi_tier *between;      /* registered host memory; must outlive it */
    const struct kvbi_lines *lines; /* must outlive it */
    uint32_t capacity;
};

/* KVB_ENOMEM. */
int kvbi_engine_relay_create(struct kvbi_engine **engine, const struct kvbi_memory *memory,
                             const struct kvbi_relay_config *config);

#endif
