/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The names of a block, what a reset leaves of it, and many blocks in one call.
 */
#include "support/life.h"

/* ---- Names, resets, arrays ------------------------------------------------------------------- */

static void test_key_before_the_last_token_is_not_there(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_block_in(rig, KVB_STATE_PARTIAL);
    struct kvb_seq key;
    kv_expect(kvb_block_key(rig->kv, block, &key), KVB_ENOENT);
    kv_unref(rig, block);
}

static void test_key_after_the_last_token_is_the_sequence_hash(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_block_in(rig, KVB_STATE_PARTIAL);
    struct kvb_seq key, seq;
    size_t count = 0;
    kv_append(rig, block, life_tokens + 2, 2, 0);
    kv_ok(kvb_block_key(rig->kv, block, &key));
    kv_ok(kvb_hash_tokens(rig->kv, 0, NULL, life_tokens, KV_TOKENS, &seq, 1, &count));
    assert_memory_equal(&key, &seq, sizeof key);
    kv_unref(rig, block);
}

static void test_key_given_at_init_is_there_at_once(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    struct kvb_seq key, seq;
    size_t count = 0;
    kv_ok(kvb_hash_tokens(rig->kv, 0, NULL, life_tokens, KV_TOKENS, &seq, 1, &count));
    struct kvb_block_init init = {.size = sizeof init, .key = &seq};
    kv_ok(kvb_block_init(rig->kv, &block, &init, 1, NULL));
    kv_ok(kvb_block_key(rig->kv, block, &key));
    assert_memory_equal(&key, &seq, sizeof key);
    kv_unref(rig, block);
}

static void test_reset_kills_weak_handles_of_the_old_content(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_block_in(rig, KVB_STATE_COMPLETE);
    struct kvb_block *upgraded = NULL;
    struct kvb_weak weak;
    kv_ok(kvb_block_weak(rig->kv, block, &weak));
    kv_ok(kvb_block_reset(rig->kv, &block, 1, NULL));
    kv_expect(kvb_weak_upgrade(rig->kv, &weak, 1, &upgraded, NULL), KVB_ESTALE);
    assert_null(upgraded);
    kv_unref(rig, block);
}

static void test_reset_forgets_the_contents_priority(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_init(rig, block, 0, 0, NULL);
    kv_ok(kvb_block_set_priority(rig->kv, &block, 1, 100, KV_SECOND, NULL));
    kv_ok(kvb_block_reset(rig->kv, &block, 1, NULL));
    assert_int_equal(kv_describe(rig, block).priority, KVB_PRIORITY_DEFAULT);
    kv_unref(rig, block);
}

static void test_reset_block_can_live_again(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_block_in(rig, KVB_STATE_COMPLETE);
    kv_ok(kvb_block_reset(rig->kv, &block, 1, NULL));
    kv_complete(rig, block, 0, 0, NULL, life_tokens + 4);
    kv_register(rig, block);
    assert_int_equal(kv_run_length(rig, 0, life_tokens + 4, KV_TOKENS), 1);
    assert_int_equal(kv_run_length(rig, 0, life_tokens, KV_TOKENS), 0);
    kv_unref(rig, block);
}

static void test_array_with_one_refused_element_moves_the_others(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *blocks[] = {life_block_in(rig, KVB_STATE_READY),
                                  life_block_in(rig, KVB_STATE_PARTIAL),
                                  life_block_in(rig, KVB_STATE_READY)};
    int results[3] = {1, 1, 1};
    kv_expect(kvb_block_schedule(rig->kv, blocks, 3, results), KVB_ESTATE);
    assert_int_equal(results[0], 0);
    assert_int_equal(results[1], KVB_ESTATE);
    assert_int_equal(results[2], 0);
    assert_int_equal(kv_describe(rig, blocks[0]).state, KVB_STATE_INFLIGHT);
    assert_int_equal(kv_describe(rig, blocks[1]).state, KVB_STATE_PARTIAL);
    assert_int_equal(kv_describe(rig, blocks[2]).state, KVB_STATE_INFLIGHT);
    for (int i = 0; i < 3; i++)
        life_drop(rig, blocks[i]);
}

static void test_array_with_the_same_block_twice_moves_it_twice(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_block_in(rig, KVB_STATE_READY);
    struct kvb_block *blocks[] = {block, block};
    kv_ok(kvb_block_schedule(rig->kv, blocks, 2, NULL));
    assert_int_equal(kv_describe(rig, block).step_count, 2);
    life_drop(rig, block);
}

static void test_array_of_200_blocks_lives_from_empty_to_registered(void **state)
{
    struct kv_rig *rig = *state;
    enum { COUNT = 200 };
    static struct kvb_block *blocks[COUNT];
    static uint32_t tokens[COUNT * KV_TOKENS];
    int parked = 0;

    rig->tiers[0].block_count = COUNT;
    kv_rig_open(rig);
    kv_tokens(tokens, COUNT * KV_TOKENS, 3);
    static struct kvb_seq seqs[COUNT];
    static struct kvb_block_init inits[COUNT];
    static struct kvb_append appends[COUNT];
    static uint32_t computed[COUNT];
    static int results[COUNT];
    size_t count = 0;
    kv_ok(kvb_hash_tokens(rig->kv, 0, NULL, tokens, COUNT * KV_TOKENS, seqs, COUNT, &count));
    for (uint32_t i = 0; i < COUNT; i++) {
        inits[i] = (struct kvb_block_init){.size = sizeof inits[i],
                                           .position = i,
                                           .parent = i == 0 ? NULL : &seqs[i - 1],
                                           .key = &seqs[i]};
        appends[i] = (struct kvb_append){.size = sizeof appends[i],
                                         .tokens = tokens + (size_t)i * KV_TOKENS,
                                         .count = KV_TOKENS};
        computed[i] = KV_TOKENS;
    }
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, COUNT, NULL, blocks, NULL));
    kv_ok(kvb_block_init(rig->kv, blocks, inits, COUNT, results));
    kv_ok(kvb_block_append(rig->kv, blocks, appends, COUNT, results));
    kv_ok(kvb_block_schedule(rig->kv, blocks, COUNT, results));
    kv_ok(kvb_block_compute_done(rig->kv, blocks, computed, COUNT, NULL, results));
    kv_ok(kvb_block_register(rig->kv, blocks, COUNT, NULL, NULL, results));
    for (int i = 0; i < COUNT; i++)
        parked += kv_describe(rig, blocks[i]).state == KVB_STATE_REGISTERED;
    assert_int_equal(parked, COUNT);
    kv_ok(kvb_block_unref(rig->kv, blocks, COUNT, results));
    assert_int_equal(kv_stats(rig).tiers[0].parked_count, COUNT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kv_opened, test_reset_forgets_the_contents_priority),
        TEST(kv_opened, test_key_before_the_last_token_is_not_there),
        TEST(kv_opened, test_key_after_the_last_token_is_the_sequence_hash),
        TEST(kv_opened, test_key_given_at_init_is_there_at_once),
        TEST(kv_opened, test_reset_kills_weak_handles_of_the_old_content),
        TEST(kv_opened, test_reset_block_can_live_again),
        TEST(kv_opened, test_array_with_one_refused_element_moves_the_others),
        TEST(kv_opened, test_array_with_the_same_block_twice_moves_it_twice),
        TEST(kv_rig, test_array_of_200_blocks_lives_from_empty_to_registered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
