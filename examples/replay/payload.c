/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The generator of tokens and payload. A replay fills and verifies tens of gigabytes, so a word
 * costs a handful of additions, shifts and xors that every compiler turns into vector code; this
 * file wants -O3.
 *
 * word(id, i) = step(a(id) + i x STRIDE) + b(id), where a and b are two independent 64-bit mixes of
 * the id. `step` is a bijection, so the words of one block never repeat: a shifted or swapped chunk
 * differs in every word. For a run of two blocks to agree, shifted or not, a must fit and b as
 * well: about 2^-128 for a pair of ids and a distance.
 */
#include "payload.h"

/* 2^64 / golden ratio, odd: the counter of splitmix64 */
#define STRIDE UINT64_C(0x9e3779b97f4a7c15)

struct key {
    uint64_t a, b;
};

/*
 * The finaliser of splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number
 * generators", 2014).
 */
static uint64_t mix(uint64_t x)
{
    x ^= x >> 30;
    x *= UINT64_C(0xbf58476d1ce4e5b9);
    x ^= x >> 27;
    x *= UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static struct key key_of(uint64_t id)
{
    struct key key = {mix(id + STRIDE), mix(~id + 2 * STRIDE)};
    return key;
}

/*
 * Shifts, xors and additions only: SSE2 has no 64-bit multiplication. Each line can be undone,
 * hence a bijection.
 */
static inline uint64_t step(uint64_t x)
{
    x ^= x >> 29;
    x += x << 21;
    x ^= x >> 32;
    return x;
}

void replay_tokens(uint64_t id, uint32_t *tokens)
{
    /*
     * Like a vocabulary of 2^17. The first four spell the id, so that different ids differ whatever
     * the mix does.
     */
    uint64_t seed = mix(id);
    for (uint32_t i = 0; i < REPLAY_TOKENS_PER_BLOCK; i++)
        tokens[i] = (uint32_t)(step(seed + i * STRIDE) & 0x1ffff);
    for (uint32_t i = 0; i < 4; i++)
        tokens[i] = (uint32_t)(id >> (16 * i)) & 0xffff;
}

void replay_payload_fill(uint64_t id, uint64_t first_word, void *memory, size_t bytes)
{
    struct key key = key_of(id);
    uint64_t counter = key.a + first_word * STRIDE;
    uint64_t *words = memory;
    size_t count = bytes / sizeof *words;
    for (size_t i = 0; i < count; i++)
        words[i] = step(counter + i * STRIDE) + key.b;
}

int replay_payload_verify(uint64_t id, uint64_t first_word, const void *memory, size_t bytes)
{
    struct key key = key_of(id);
    uint64_t counter = key.a + first_word * STRIDE;
    const uint64_t *words = memory;
    size_t count = bytes / sizeof *words;
    uint64_t difference = 0;
    for (size_t i = 0; i < count; i++)
        difference |= words[i] ^ (step(counter + i * STRIDE) + key.b);
    return difference == 0;
}
