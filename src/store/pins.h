/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pins with an owner: which handles an owner has, and until when.
 *
 * Owns       the table of pins: by (owner, block), by owner in the order of pinning, by deadline.
 *            It does not touch the blocks: whoever calls takes and gives back the handle that a pin
 *            stands for.
 * Callers    api/ (pin, unpin, unpin_all, destroy), offload/progress (expiry).
 * Invariants every pin is in exactly one owner's list and one bucket; owners exist exactly while
 *            they have pins.
 * Lock       the store's.
 * Why        fixed tables taken at create: pinning allocates nothing, and every call is O(1) a pin
 *            (O(log n) with a deadline).
 */
#ifndef KVBI_STORE_PINS_H
#define KVBI_STORE_PINS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/deadlines.h"
#include "base/memory.h"

struct kvb_block;
struct kvbi_pin;
struct kvbi_pin_owner;

struct kvbi_pins {
    const struct kvbi_memory *memory;
    struct kvbi_pin *pins;
    struct kvbi_pin_owner *owners;
    uint32_t *pin_buckets, *owner_buckets;
    uint32_t bucket_mask;
    uint32_t capacity, count;
    uint32_t free_pin, free_owner;
    struct kvbi_deadlines deadlines;
};

int kvbi_pins_create(struct kvbi_pins *pins, const struct kvbi_memory *memory, uint32_t capacity);
void kvbi_pins_destroy(struct kvbi_pins *pins); /* legal on a zeroed object */
size_t kvbi_pins_bytes(const struct kvbi_pins *pins);

/* 0 or KVB_ENOSPC. deadline_ns 0: none. */
int kvbi_pins_add(struct kvbi_pins *pins, uint64_t owner, struct kvb_block *block,
                  uint64_t deadline_ns);
/* One pin of this owner on this block: the latest. 0 or KVB_ENOENT. */
int kvbi_pins_remove(struct kvbi_pins *pins, uint64_t owner, struct kvb_block *block);
/* The owner's latest pin, taken out. NULL: none left. */
struct kvb_block *kvbi_pins_pop_owner(struct kvbi_pins *pins, uint64_t owner);
/* One pin whose deadline has passed, taken out; its owner in *owner. NULL: none due. */
struct kvb_block *kvbi_pins_pop_due(struct kvbi_pins *pins, uint64_t now_ns, uint64_t *owner);
/* The earliest deadline; false: none. */
bool kvbi_pins_next_deadline(const struct kvbi_pins *pins, uint64_t *deadline_ns);

#endif
