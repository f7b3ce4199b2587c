/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pins - see pins.h.
 *
 * References between tables are index + 1, 0 for none, so that zeroed memory is an empty table.
 * Both hash tables chain; new pins go to the front of their chain, so that the first match is the
 * latest pin. Chains of pins are doubly linked: a deadline takes a pin out of the middle.
 */
#include "store/pins.h"

#include "base/debug.h"

#include <stddef.h>

struct kvbi_pin {
    struct kvb_block *block; /* NULL: free */
    uint32_t owner;          /* reference */
    uint32_t chain_next;     /* in the bucket; of a free pin: the next free one */
    uint32_t chain_prev;
    uint32_t older, newer; /* of the same owner */
};

struct kvbi_pin_owner {
    uint64_t owner;
    uint32_t latest;     /* pin */
    uint32_t chain_next; /* in the bucket; of a free one: the next free one */
};

static uint32_t bucket_count(uint32_t capacity)
{
    uint32_t count = 1;
    while (count < capacity)
        count *= 2;
    return count;
}

/* splitmix64's finalizer (Steele, Lea, Flood 2014). */
static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static uint32_t *owner_bucket(const struct kvbi_pins *pins, uint64_t owner)
{
    return &pins->owner_buckets[mix(owner) & pins->bucket_mask];
}

static uint32_t *pin_bucket(const struct kvbi_pins *pins, uint64_t owner,
                            const struct kvb_block *block)
{
    return &pins->pin_buckets[mix(mix(owner) + (uintptr_t)block) & pins->bucket_mask];
}

static struct kvbi_pin *pin_at(const struct kvbi_pins *pins, uint32_t reference)
{
    KVBI_ASSERT(reference > 0 && reference <= pins->capacity);
    return &pins->pins[reference - 1];
}

static struct kvbi_pin_owner *owner_at(const struct kvbi_pins *pins, uint32_t reference)
{
    KVBI_ASSERT(reference > 0 && reference <= pins->capacity);
    return &pins->owners[reference - 1];
}

static void link_free(struct kvbi_pins *pins)
{
    for (uint32_t i = 0; i + 1 < pins->capacity; i++) {
        pins->pins[i].chain_next = i + 2;
        pins->owners[i].chain_next = i + 2;
    }
    pins->free_pin = pins->free_owner = pins->capacity > 0 ? 1 : 0;
}

int kvbi_pins_create(struct kvbi_pins *pins, const struct kvbi_memory *memory, uint32_t capacity)
{
    uint32_t buckets = bucket_count(capacity);
    *pins = (struct kvbi_pins){.memory = memory, .capacity = capacity, .bucket_mask = buckets - 1};
    pins->pins = kvbi_memory_alloc(memory, capacity, sizeof *pins->pins, 0);
    pins->owners = kvbi_memory_alloc(memory, capacity, sizeof *pins->owners, 0);
    pins->pin_buckets = kvbi_memory_alloc(memory, buckets, sizeof *pins->pin_buckets, 0);
    pins->owner_buckets = kvbi_memory_alloc(memory, buckets, sizeof *pins->owner_buckets, 0);
    if (pins->pins == NULL || pins->owners == NULL || pins->pin_buckets == NULL ||
        pins->owner_buckets == NULL ||
        kvbi_deadlines_create(&pins->deadlines, memory, capacity) != 0) {
        kvbi_pins_destroy(pins);
        return KVB_ENOMEM;
    }
    link_free(pins);
    return 0;
}

void kvbi_pins_destroy(struct kvbi_pins *pins)
{
    if (pins->memory == NULL)
        return;
    size_t buckets = (size_t)pins->bucket_mask + 1;
    kvbi_deadlines_destroy(&pins->deadlines);
    kvbi_memory_free(pins->memory, pins->owner_buckets, buckets, sizeof *pins->owner_buckets);
    kvbi_memory_free(pins->memory, pins->pin_buckets, buckets, sizeof *pins->pin_buckets);
    kvbi_memory_free(pins->memory, pins->owners, pins->capacity, sizeof *pins->owners);
    kvbi_memory_free(pins->memory, pins->pins, pins->capacity, sizeof *pins->pins);
    *pins = (struct kvbi_pins){.memory = NULL};
}

size_t kvbi_pins_bytes(const struct kvbi_pins *pins)
{
    if (pins->memory == NULL)
        return 0;
    size_t buckets = (size_t)pins->bucket_mask + 1;
    size_t deadline = sizeof *pins->deadlines.heap + sizeof *pins->deadlines.place;
    return buckets * (sizeof *pins->pin_buckets + sizeof *pins->owner_buckets) +
           (size_t)pins->capacity * (sizeof *pins->pins + sizeof *pins->owners + deadline);
}

/* 0: the owner has no pins. */
static uint32_t find_owner(const struct kvbi_pins *pins, uint64_t owner)
{
    uint32_t reference = *owner_bucket(pins, owner);
    while (reference != 0 && owner_at(pins, reference)->owner != owner)
        reference = owner_at(pins, reference)->chain_next;
    return reference;
}

static uint32_t open_owner(struct kvbi_pins *pins, uint64_t owner)
{
    uint32_t reference = find_owner(pins, owner);
    if (reference != 0)
        return reference;
    uint32_t *bucket = owner_bucket(pins, owner);
    reference = pins->free_owner; /* there are as many as pins, and one pin is free */
    struct kvbi_pin_owner *entry = owner_at(pins, reference);
    pins->free_owner = entry->chain_next;
    *entry = (struct kvbi_pin_owner){.owner = owner, .chain_next = *bucket};
    *bucket = reference;
    return reference;
}

static void close_owner(struct kvbi_pins *pins, uint32_t reference)
{
    struct kvbi_pin_owner *entry = owner_at(pins, reference);
    uint32_t *link = owner_bucket(pins, entry->owner);
    while (*link != reference)
        link = &owner_at(pins, *link)->chain_next;
    *link = entry->chain_next;
    *entry = (struct kvbi_pin_owner){.chain_next = pins->free_owner};
    pins->free_owner = reference;
}

int kvbi_pins_add(struct kvbi_pins *pins, uint64_t owner, struct kvb_block *block,
                  uint64_t deadline_ns)
{
    if (pins->free_pin == 0)
        return KVB_ENOSPC;
    uint32_t reference = pins->free_pin;
    uint32_t *bucket = pin_bucket(pins, owner, block);
    struct kvbi_pin *pin = pin_at(pins, reference);
    pins->free_pin = pin->chain_next;
    *pin =
        (struct kvbi_pin){.block = block, .owner = open_owner(pins, owner), .chain_next = *bucket};
    if (*bucket != 0)
        pin_at(pins, *bucket)->chain_prev = reference;
    *bucket = reference;

    struct kvbi_pin_owner *entry = owner_at(pins, pin->owner);
    pin->older = entry->latest;
    if (pin->older != 0)
        pin_at(pins, pin->older)->newer = reference;
    entry->latest = reference;

    if (deadline_ns != 0)
        kvbi_deadlines_set(&pins->deadlines, reference - 1, deadline_ns);
    pins->count++;
    return 0;
}

/* Out of bucket, owner's list and deadlines. */
static struct kvb_block *take_out(struct kvbi_pins *pins, uint32_t reference)
{
    struct kvbi_pin *pin = pin_at(pins, reference);
    struct kvb_block *block = pin->block;
    struct kvbi_pin_owner *entry = owner_at(pins, pin->owner);
    KVBI_ASSERT(block != NULL && pins->count > 0);
    if (pin->chain_prev != 0)
        pin_at(pins, pin->chain_prev)->chain_next = pin->chain_next;
    else
        *pin_bucket(pins, entry->owner, block) = pin->chain_next;
    if (pin->chain_next != 0)
        pin_at(pins, pin->chain_next)->chain_prev = pin->chain_prev;

    if (pin->newer != 0)
        pin_at(pins, pin->newer)->older = pin->older;
    else
        entry->latest = pin->older;
    if (pin->older != 0)
        pin_at(pins, pin->older)->newer = pin->newer;
    if (entry->latest == 0)
        close_owner(pins, pin->owner);

    kvbi_deadlines_remove(&pins->deadlines, reference - 1);
    *pin = (struct kvbi_pin){.chain_next = pins->free_pin};
    pins->free_pin = reference;
    pins->count--;
    return block;
}

int kvbi_pins_remove(struct kvbi_pins *pins, uint64_t owner, struct kvb_block *block)
{
    uint32_t reference = *pin_bucket(pins, owner, block);
    for (; reference != 0; reference = pin_at(pins, reference)->chain_next) {
        const struct kvbi_pin *pin = pin_at(pins, reference);
        if (pin->block == block && owner_at(pins, pin->owner)->owner == owner) {
            (void)take_out(pins, reference);
            return 0;
        }
    }
    return KVB_ENOENT;
}

struct kvb_block *kvbi_pins_pop_owner(struct kvbi_pins *pins, uint64_t owner)
{
    uint32_t reference = find_owner(pins, owner);
    return reference != 0 ? take_out(pins, owner_at(pins, reference)->latest) : NULL;
}

struct kvb_block *kvbi_pins_pop_due(struct kvbi_pins *pins, uint64_t now_ns, uint64_t *owner)
{
    uint32_t id;
    *owner = 0;
    if (!kvbi_deadlines_pop_due(&pins->deadlines, now_ns, &id))
        return NULL;
    *owner = owner_at(pins, pins->pins[id].owner)->owner;
    return take_out(pins, id + 1);
}

bool kvbi_pins_next_deadline(const struct kvbi_pins *pins, uint64_t *deadline_ns)
{
    struct kvbi_deadline first;
    *deadline_ns = 0;
    if (!kvbi_deadlines_first(&pins->deadlines, &first))
        return false;
    *deadline_ns = first.deadline_ns;
    return true;
}
