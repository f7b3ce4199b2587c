/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The generator behind kvb_replay's verdict: bytes in the wrong place, and bytes of another block,
 * never verify.
 */
#include <stdlib.h>
#include <string.h>

#include "support/test.h"

#include "../examples/replay/payload.c"

#define WORDS 512
#define BYTES (WORDS * sizeof(uint64_t))

static uint64_t memory[WORDS + 8];

static void test_payload_as_filled_verifies_in_pieces_too(void **state)
{
    (void)state;
    replay_payload_fill(7, 0, memory, BYTES);
    assert_true(replay_payload_verify(7, 0, memory, BYTES));
    for (size_t first = 0; first < WORDS; first += 64)
        assert_true(replay_payload_verify(7, first, memory + first, 64 * sizeof *memory));
}

static void test_payload_one_bit_flipped_does_not_verify(void **state)
{
    (void)state;
    replay_payload_fill(7, 0, memory, BYTES);
    for (size_t bit = 0; bit < WORDS * 64; bit++) {
        memory[bit / 64] ^= UINT64_C(1) << bit % 64;
        assert_false(replay_payload_verify(7, 0, memory, BYTES));
        memory[bit / 64] ^= UINT64_C(1) << bit % 64;
    }
}

static void test_payload_shifted_by_any_distance_does_not_verify(void **state)
{
    (void)state;
    replay_payload_fill(7, 0, memory, BYTES);
    for (uint64_t shift = 1; shift < 100000; shift++) {
        assert_false(replay_payload_verify(7, shift, memory, sizeof *memory));
        assert_false(replay_payload_verify(7, (uint64_t)0 - shift, memory, sizeof *memory));
    }
}

static void test_payload_shifted_by_bytes_does_not_verify(void **state)
{
    (void)state;
    for (size_t shift = 1; shift < 8; shift++) {
        replay_payload_fill(7, 0, memory, BYTES);
        memmove((char *)memory + shift, memory, BYTES - shift);
        for (size_t word = 1; word < WORDS; word++)
            assert_false(replay_payload_verify(7, word, memory + word, sizeof *memory));
    }
}

static int compare_words(const void *left, const void *right)
{
    const uint64_t *a = left, *b = right;
    return (*a > *b) - (*a < *b);
}

static void test_payload_words_of_many_blocks_never_repeat(void **state)
{
    enum { BLOCKS = 2000 };
    uint64_t *words = malloc(BLOCKS * BYTES);
    (void)state;
    assert_non_null(words);
    for (uint64_t id = 0; id < BLOCKS; id++)
        replay_payload_fill(id % 2 ? id : id << 40, 0, words + id * WORDS, BYTES);
    qsort(words, BLOCKS * WORDS, sizeof *words, compare_words);
    for (size_t i = 1; i < BLOCKS * WORDS; i++)
        assert_true(words[i - 1] != words[i]);
    free(words);
}

static void test_tokens_of_different_ids_differ(void **state)
{
    uint32_t tokens[REPLAY_TOKENS_PER_BLOCK], others[REPLAY_TOKENS_PER_BLOCK];
    (void)state;
    for (unsigned bit = 0; bit < 64; bit++) {
        replay_tokens(12345, tokens);
        replay_tokens(12345 ^ UINT64_C(1) << bit, others);
        assert_memory_not_equal(tokens, others, 4 * sizeof *tokens);
        assert_memory_not_equal(tokens + 4, others + 4, sizeof tokens - 4 * sizeof *tokens);
        replay_tokens(12345, others);
        assert_memory_equal(tokens, others, sizeof tokens);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(bare, test_payload_as_filled_verifies_in_pieces_too),
        TEST(bare, test_payload_one_bit_flipped_does_not_verify),
        TEST(bare, test_payload_shifted_by_any_distance_does_not_verify),
        TEST(bare, test_payload_shifted_by_bytes_does_not_verify),
        TEST(bare, test_payload_words_of_many_blocks_never_repeat),
        TEST(bare, test_tokens_of_different_ids_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
