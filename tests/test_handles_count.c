/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Strong handles: counting, and the limit of the count.
 */
#include "support/life.h"

/* ---- Counting -------------------------------------------------------------------------------- */

static void test_alloc_hands_out_one_handle(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    assert_int_equal(kv_describe(rig, block).holder_count, 1);
    kv_unref(rig, block);
}

static void test_ref_and_unref_move_the_count(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    struct kvb_block *twice[] = {block, block};
    kv_ok(kvb_block_ref(rig->kv, twice, 2, NULL));
    assert_int_equal(kv_describe(rig, block).holder_count, 3);
    kv_ok(kvb_block_unref(rig->kv, twice, 2, NULL));
    assert_int_equal(kv_describe(rig, block).holder_count, 1);
    kv_unref(rig, block);
}

static void test_last_unref_parks_a_registered_block(void **state)
{
    struct kv_rig *rig = *state;
    kv_unref(rig, life_registered(rig, life_tokens));
    struct kvb_stats stats = kv_stats(rig);
    assert_int_equal(stats.tiers[0].parked_count, 1);
    assert_int_equal(stats.tiers[0].held_count, 0);
    assert_int_equal(kv_run_length(rig, 0, life_tokens, KV_TOKENS), 1);
}

static void test_last_unref_frees_an_unregistered_block(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_complete(rig, block, 0, 0, NULL, life_tokens);
    kv_unref(rig, block);
    assert_int_equal(kv_stats(rig).tiers[0].free_count, KV_BLOCKS);
}

static void test_unref_without_holder_is_invalid(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_unref(rig, block);
    int result = 0;
    kv_expect(kvb_block_unref(rig->kv, &block, 1, &result), KVB_EINVAL);
    assert_int_equal(result, KVB_EINVAL);
    assert_int_equal(kv_stats(rig).tiers[0].free_count, KV_BLOCKS);
}

static void test_unref_of_parked_block_is_invalid(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_registered(rig, life_tokens);
    kv_unref(rig, block);
    kv_expect(kvb_block_unref(rig->kv, &block, 1, NULL), KVB_EINVAL);
    assert_int_equal(kv_stats(rig).tiers[0].parked_count, 1);
}

static void test_unref_twice_in_one_array_is_invalid_once(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    struct kvb_block *twice[] = {block, block};
    int results[] = {1, 1};
    kv_expect(kvb_block_unref(rig->kv, twice, 2, results), KVB_EINVAL);
    assert_int_equal(results[0] + results[1], KVB_EINVAL);
    assert_int_equal(kv_stats(rig).tiers[0].free_count, KV_BLOCKS);
}

static void test_ref_without_holder_is_invalid(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_registered(rig, life_tokens);
    kv_unref(rig, block);
    kv_expect(kvb_block_ref(rig->kv, &block, 1, NULL), KVB_EINVAL);
    assert_int_equal(kv_stats(rig).tiers[0].held_count, 0);
}

/* Bring one block to 2^20 - 1 handles; returns how many were added. */
static uint32_t fill_count(struct kv_rig *rig, struct kvb_block *block)
{
    enum { LIMIT = (1 << 20) - 1, STEP = 1 << 12 };
    struct kvb_block **many = malloc(STEP * sizeof(struct kvb_block *));
    assert_non_null(many);
    for (uint32_t i = 0; i < STEP; i++)
        many[i] = block;
    uint32_t added = LIMIT - kv_describe(rig, block).holder_count;
    for (uint32_t left = added; left > 0;) {
        uint32_t step = left < STEP ? left : STEP;
        kv_ok(kvb_block_ref(rig->kv, many, step, NULL));
        left -= step;
    }
    free(many);
    return added;
}

static void give_back(struct kv_rig *rig, struct kvb_block *block, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        kv_unref(rig, block);
}

static void test_ref_beyond_the_limit_says_again(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_registered(rig, life_tokens);
    uint32_t added = fill_count(rig, block);
    kv_expect(kvb_block_ref(rig->kv, &block, 1, NULL), KVB_EAGAIN);
    assert_int_equal(kv_describe(rig, block).holder_count, (1u << 20) - 1);
    give_back(rig, block, added);
    kv_unref(rig, block);
}

static void test_match_at_the_limit_ends_the_run_and_says_again(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *run[2];
    struct kvb_hit hits[2];
    size_t count = 9;
    kv_store_run(rig, KVB_TIER_DEVICE, 0, life_tokens, 2, run);
    uint32_t added = fill_count(rig, run[1]);
    struct kvb_query query = kv_query(0, life_tokens, 8);
    kv_expect(kvb_match(rig->kv, &query, hits, 2, &count), KVB_EAGAIN);
    assert_int_equal(count, 1);
    assert_ptr_equal(hits[0].block, run[0]);
    assert_int_equal(kv_describe(rig, run[0]).holder_count, 2);
    kv_unref(rig, hits[0].block);
    give_back(rig, run[1], added);
    kv_ok(kvb_block_unref(rig->kv, run, 2, NULL));
}

static void test_upgrade_at_the_limit_hands_out_nothing(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_registered(rig, life_tokens), *upgraded = block;
    struct kvb_weak weak = life_weak(rig, block);
    uint32_t added = fill_count(rig, block);
    kv_expect(life_upgrade(rig, weak, &upgraded), KVB_EAGAIN);
    assert_null(upgraded);
    give_back(rig, block, added);
    kv_unref(rig, block);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kv_opened, test_alloc_hands_out_one_handle),
        TEST(kv_opened, test_ref_and_unref_move_the_count),
        TEST(kv_opened, test_last_unref_parks_a_registered_block),
        TEST(kv_opened, test_last_unref_frees_an_unregistered_block),
        TEST(kv_opened, test_unref_without_holder_is_invalid),
        TEST(kv_opened, test_unref_of_parked_block_is_invalid),
        TEST(kv_opened, test_unref_twice_in_one_array_is_invalid_once),
        TEST(kv_opened, test_ref_without_holder_is_invalid),
        TEST(kv_opened, test_ref_beyond_the_limit_says_again),
        TEST(kv_opened, test_match_at_the_limit_ends_the_run_and_says_again),
        TEST(kv_opened, test_upgrade_at_the_limit_hands_out_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
