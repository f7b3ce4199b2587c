/* SPDX-License-Identifier: Apache-2.0 */
/* The count and the table of keys. See moments.h. */
#include "store/moments.h"

#include <kvblock.h>

#define KEYS_MIN 1024u
#define BLOCKS_A_KEY 4u

/*
 * Multiplicative hashing (Knuth): the top bits of the product depend on all bits of the hash. 2^64
 * / golden ratio.
 */
#define SPREAD UINT64_C(0x9e3779b97f4a7c15)

int kvbi_moments_create(struct kvbi_moments *moments, const struct kvbi_memory *memory,
                        uint32_t blocks)
{
    uint32_t count = KEYS_MIN, shift = 64;
    while (count < blocks / BLOCKS_A_KEY)
        count *= 2;
    for (uint32_t left = count; left > 1; left /= 2)
        shift--;
    *moments =
        (struct kvbi_moments){.memory = memory,
                              .keys = kvbi_memory_alloc(memory, count, sizeof *moments->keys, 0),
                              .key_shift = shift,
                              .key_count = count};
    if (moments->keys != NULL)
        return 0;
    *moments = (struct kvbi_moments){.memory = NULL};
    return KVB_ENOMEM;
}

void kvbi_moments_destroy(struct kvbi_moments *moments)
{
    if (moments->memory == NULL)
        return;
    kvbi_memory_free(moments->memory, moments->keys, moments->key_count, sizeof *moments->keys);
    *moments = (struct kvbi_moments){.memory = NULL};
}

size_t kvbi_moments_bytes(const struct kvbi_moments *moments)
{
    return (size_t)moments->key_count * sizeof *moments->keys;
}

static uint64_t *place_of(const struct kvbi_moments *moments, uint64_t hash)
{
    return &moments->keys[hash * SPREAD >> moments->key_shift];
}

/* Written under the store's lock: no other writer comes in between. */
uint64_t kvbi_moments_next(struct kvbi_moments *moments)
{
    uint64_t next = kvbi_moments_now(moments) + 1;
    atomic_store_explicit(&moments->now, next, memory_order_relaxed);
    return next;
}

void kvbi_moments_clear(struct kvbi_moments *moments)
{
    moments->cleared = kvbi_moments_next(moments);
}

void kvbi_moments_forget_key(struct kvbi_moments *moments, uint64_t hash)
{
    *place_of(moments, hash) = kvbi_moments_next(moments);
}

bool kvbi_moments_stale(const struct kvbi_moments *moments, uint64_t moment, uint64_t space,
                        uint64_t hash)
{
    return moment < moments->cleared || moment < space || moment < *place_of(moments, hash);
}
