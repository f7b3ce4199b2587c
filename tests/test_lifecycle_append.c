/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the state table does not say of init and append: what may come first, and how many tokens
 * fit.
 */
#include "support/life.h"

/* ---- init ------------------------------------------------------------------------------------ */

static void test_init_with_parent_at_position_0_is_invalid(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_block_in(rig, KVB_STATE_EMPTY);
    struct kvb_seq parent = {.hash = 1};
    struct kvb_block_init init = {.size = sizeof init, .parent = &parent};
    kv_expect(kvb_block_init(rig->kv, &block, &init, 1, NULL), KVB_EINVAL);
    assert_int_equal(kv_describe(rig, block).state, KVB_STATE_EMPTY);
    kv_unref(rig, block);
}

static void test_init_with_itself_as_parent_is_invalid(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_seq seq = {0};
    size_t count = 0;
    kv_ok(kvb_hash_tokens(rig->kv, 0, NULL, life_tokens, KV_TOKENS, &seq, 1, &count));
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    struct kvb_block_init init = {.size = sizeof init, .position = 1, .parent = &seq, .key = &seq};
    kv_expect(kvb_block_init(rig->kv, &block, &init, 1, NULL), KVB_EINVAL);
    assert_int_equal(kv_describe(rig, block).state, KVB_STATE_EMPTY);
    kv_unref(rig, block);
}

static void test_init_in_unknown_namespace_is_not_found(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_block_in(rig, KVB_STATE_EMPTY);
    struct kvb_block_init init = {.size = sizeof init, .namespace_id = 5};
    kv_expect(kvb_block_init(rig->kv, &block, &init, 1, NULL), KVB_ENOENT);
    assert_int_equal(kv_describe(rig, block).state, KVB_STATE_EMPTY);
    kv_unref(rig, block);
}

static void test_init_without_parent_can_be_computed_not_registered(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_complete(rig, block, 0, 3, NULL, life_tokens);
    struct kvb_block *blocks[] = {block};
    kv_expect(kvb_block_register(rig->kv, blocks, 1, NULL, NULL, NULL), KVB_EINVAL);
    assert_int_equal(kv_describe(rig, block).state, KVB_STATE_COMPLETE);
    assert_int_equal(kv_describe(rig, block).indexed, 0);
    kv_unref(rig, block);
}

/* ---- append ---------------------------------------------------------------------------------- */

static struct kvb_block_info append_to(struct kv_rig *rig, struct kvb_block *block, uint32_t count,
                                       uint32_t flags, uint32_t taken, int code)
{
    struct kvb_append append = {
        .size = sizeof append, .flags = flags, .tokens = life_tokens, .count = count, .taken = 99};
    kv_expect(kvb_block_append(rig->kv, &block, &append, 1, NULL), code);
    assert_int_equal(append.taken, taken);
    return kv_describe(rig, block);
}

static void test_append_more_with_space_left_stays_partial(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_block_in(rig, KVB_STATE_PARTIAL);
    struct kvb_block_info info = append_to(rig, block, 1, KVB_MORE, 1, 0);
    assert_int_equal(info.state, KVB_STATE_PARTIAL);
    assert_int_equal(info.token_count, 3);
    kv_unref(rig, block);
}

static void test_append_more_that_fills_becomes_ready(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_block_in(rig, KVB_STATE_PARTIAL);
    struct kvb_block_info info = append_to(rig, block, 2, KVB_MORE, 2, 0);
    assert_int_equal(info.state, KVB_STATE_READY);
    kv_unref(rig, block);
}

static void test_append_without_more_not_full_becomes_ready(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_block_in(rig, KVB_STATE_PARTIAL);
    struct kvb_block_info info = append_to(rig, block, 1, 0, 1, 0);
    assert_int_equal(info.state, KVB_STATE_READY);
    assert_int_equal(info.token_count, 3);
    kv_unref(rig, block);
}

static void test_append_of_more_tokens_than_fit_takes_what_fits(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_block_in(rig, KVB_STATE_PARTIAL);
    struct kvb_block_info info = append_to(rig, block, 8, 0, 2, 0);
    assert_int_equal(info.state, KVB_STATE_READY);
    assert_int_equal(info.token_count, KV_TOKENS);
    kv_unref(rig, block);
}

static void test_append_of_more_tokens_than_fit_with_more_becomes_ready(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_block_in(rig, KVB_STATE_PARTIAL);
    struct kvb_block_info info = append_to(rig, block, 3, KVB_MORE, 2, 0);
    assert_int_equal(info.state, KVB_STATE_READY);
    kv_unref(rig, block);
}

static void test_append_of_none_makes_partial_block_ready(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_block_in(rig, KVB_STATE_PARTIAL);
    struct kvb_block_info info = append_to(rig, block, 0, 0, 0, 0);
    assert_int_equal(info.state, KVB_STATE_READY);
    assert_int_equal(info.token_count, 2);
    kv_unref(rig, block);
}

static void test_append_of_none_makes_full_partial_block_ready(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_init(rig, block, 0, 0, NULL);
    kv_append(rig, block, life_tokens, KV_TOKENS, 0);
    kv_ok(kvb_block_cancel(rig->kv, &block, 1, NULL));
    assert_int_equal(kv_describe(rig, block).state, KVB_STATE_PARTIAL);
    struct kvb_block_info info = append_to(rig, block, 0, 0, 0, 0);
    assert_int_equal(info.state, KVB_STATE_READY);
    kv_unref(rig, block);
}

static void test_append_of_none_to_block_without_tokens_is_invalid(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_init(rig, block, 0, 0, NULL);
    struct kvb_block_info info = append_to(rig, block, 0, 0, 0, KVB_EINVAL);
    assert_int_equal(info.state, KVB_STATE_PARTIAL);
    kv_unref(rig, block);
}

static void test_append_of_none_with_more_changes_nothing(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_block_in(rig, KVB_STATE_PARTIAL);
    struct kvb_block_info before = kv_describe(rig, block);
    struct kvb_block_info after = append_to(rig, block, 0, KVB_MORE, 0, 0);
    assert_memory_equal(&before, &after, sizeof before);
    kv_unref(rig, block);
}

static void test_append_to_full_partial_block_has_no_space(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_init(rig, block, 0, 0, NULL);
    kv_append(rig, block, life_tokens, KV_TOKENS, 0);
    kv_ok(kvb_block_cancel(rig->kv, &block, 1, NULL));
    struct kvb_block_info info = append_to(rig, block, 1, 0, 0, KVB_ENOSPC);
    assert_int_equal(info.state, KVB_STATE_PARTIAL);
    assert_int_equal(info.token_count, KV_TOKENS);
    kv_unref(rig, block);
}

static void test_append_to_full_inflight_block_has_no_space(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_block_in(rig, KVB_STATE_INFLIGHT);
    kv_append(rig, block, life_tokens + 2, 2, 0);
    struct kvb_block_info info = append_to(rig, block, 1, 0, 0, KVB_ENOSPC);
    assert_int_equal(info.state, KVB_STATE_INFLIGHT);
    assert_int_equal(info.token_count, KV_TOKENS);
    life_drop(rig, block);
}

static void test_append_in_inflight_takes_what_fits(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_block_in(rig, KVB_STATE_INFLIGHT);
    struct kvb_block_info info = append_to(rig, block, 8, 0, 2, 0);
    assert_int_equal(info.state, KVB_STATE_INFLIGHT);
    assert_int_equal(info.token_count, KV_TOKENS);
    assert_int_equal(info.step_count, 1);
    life_drop(rig, block);
}

static void test_append_with_unknown_flag_is_invalid(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_block_in(rig, KVB_STATE_PARTIAL);
    struct kvb_block_info info = append_to(rig, block, 1, 2, 0, KVB_EINVAL);
    assert_int_equal(info.token_count, 2);
    kv_unref(rig, block);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kv_opened, test_init_with_parent_at_position_0_is_invalid),
        TEST(kv_opened, test_init_with_itself_as_parent_is_invalid),
        TEST(kv_opened, test_init_in_unknown_namespace_is_not_found),
        TEST(kv_opened, test_init_without_parent_can_be_computed_not_registered),
        TEST(kv_opened, test_append_more_with_space_left_stays_partial),
        TEST(kv_opened, test_append_more_that_fills_becomes_ready),
        TEST(kv_opened, test_append_without_more_not_full_becomes_ready),
        TEST(kv_opened, test_append_of_more_tokens_than_fit_takes_what_fits),
        TEST(kv_opened, test_append_of_more_tokens_than_fit_with_more_becomes_ready),
        TEST(kv_opened, test_append_of_none_makes_partial_block_ready),
        TEST(kv_opened, test_append_of_none_makes_full_partial_block_ready),
        TEST(kv_opened, test_append_of_none_to_block_without_tokens_is_invalid),
        TEST(kv_opened, test_append_of_none_with_more_changes_nothing),
        TEST(kv_opened, test_append_to_full_partial_block_has_no_space),
        TEST(kv_opened, test_append_to_full_inflight_block_has_no_space),
        TEST(kv_opened, test_append_in_inflight_takes_what_fits),
        TEST(kv_opened, test_append_with_unknown_flag_is_invalid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
