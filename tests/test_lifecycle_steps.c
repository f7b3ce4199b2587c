/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Steps of computation: what they report, overlapped ones, and requests that are aborted in flight.
 */
#include "support/life.h"

/* ---- compute_done and compute_failed --------------------------------------------------------- */

static void test_compute_done_of_all_tokens_completes(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_complete(rig, block, 0, 0, NULL, life_tokens);
    struct kvb_block_info info = kv_describe(rig, block);
    assert_int_equal(info.state, KVB_STATE_COMPLETE);
    assert_int_equal(info.computed_count, KV_TOKENS);
    assert_int_equal(info.step_count, 0);
    assert_int_equal(info.holder_count, 1);
    kv_unref(rig, block);
}

static void test_compute_done_of_some_tokens_of_a_full_block_is_partial(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_init(rig, block, 0, 0, NULL);
    kv_append(rig, block, life_tokens, KV_TOKENS, 0);
    kv_schedule(rig, block);
    kv_done(rig, block, 2);
    assert_int_equal(kv_describe(rig, block).state, KVB_STATE_PARTIAL);
    assert_int_equal(kv_describe(rig, block).token_count, KV_TOKENS);
    assert_int_equal(kv_describe(rig, block).computed_count, 2);
    kv_append(rig, block, NULL, 0, 0);
    kv_schedule(rig, block);
    kv_done(rig, block, KV_TOKENS);
    assert_int_equal(kv_describe(rig, block).state, KVB_STATE_COMPLETE);
    kv_unref(rig, block);
}

static void test_compute_done_above_named_tokens_is_invalid(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_block_in(rig, KVB_STATE_INFLIGHT);
    struct kvb_block_info before = kv_describe(rig, block);
    kv_expect(kvb_block_compute_done(rig->kv, &block, &(uint32_t){3}, 1, NULL, NULL), KVB_EINVAL);
    struct kvb_block_info after = kv_describe(rig, block);
    assert_memory_equal(&before, &after, sizeof before);
    life_drop(rig, block);
}

static void test_compute_done_below_reported_tokens_is_invalid(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_block_in(rig, KVB_STATE_INFLIGHT);
    kv_done(rig, block, 2);
    kv_append(rig, block, life_tokens + 2, 1, 0);
    kv_schedule(rig, block);
    struct kvb_block_info before = kv_describe(rig, block);
    kv_expect(kvb_block_compute_done(rig->kv, &block, &(uint32_t){1}, 1, NULL, NULL), KVB_EINVAL);
    struct kvb_block_info after = kv_describe(rig, block);
    assert_memory_equal(&before, &after, sizeof before);
    life_drop(rig, block);
}

static void test_compute_done_of_same_count_as_before_is_legal(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_block_in(rig, KVB_STATE_INFLIGHT);
    kv_done(rig, block, 0);
    assert_int_equal(kv_describe(rig, block).computed_count, 0);
    assert_int_equal(kv_describe(rig, block).state, KVB_STATE_PARTIAL);
    kv_unref(rig, block);
}

static void test_compute_done_once_more_than_scheduled_is_refused(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_block_in(rig, KVB_STATE_INFLIGHT);
    kv_done(rig, block, 2);
    kv_expect(kvb_block_compute_done(rig->kv, &block, &(uint32_t){2}, 1, NULL, NULL), KVB_ESTATE);
    assert_int_equal(kv_describe(rig, block).holder_count, 1);
    kv_unref(rig, block);
}

static void test_decode_token_by_token_completes_at_the_last(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_init(rig, block, 0, 0, NULL);
    for (uint32_t i = 0; i < KV_TOKENS; i++) {
        assert_int_equal(kv_describe(rig, block).state, KVB_STATE_PARTIAL);
        kv_append(rig, block, life_tokens + i, 1, 0);
        kv_schedule(rig, block);
        kv_done(rig, block, i + 1);
    }
    assert_int_equal(kv_describe(rig, block).state, KVB_STATE_COMPLETE);
    kv_unref(rig, block);
}

/* Two tokens under way, two more named, a second step launched. */
static struct kvb_block *two_steps_out(struct kv_rig *rig)
{
    struct kvb_block *block = life_block_in(rig, KVB_STATE_INFLIGHT);
    kv_append(rig, block, life_tokens + 2, 2, 0);
    kv_schedule(rig, block);
    return block;
}

static void test_overlapped_steps_are_counted(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = two_steps_out(rig);
    struct kvb_block_info info = kv_describe(rig, block);
    assert_int_equal(info.step_count, 2);
    assert_int_equal(info.holder_count, 3);
    assert_int_equal(info.token_count, KV_TOKENS);
    assert_int_equal(info.computed_count, 0);
    life_drop(rig, block);
}

static void test_overlapped_steps_first_done_stays_inflight(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = two_steps_out(rig);
    kv_done(rig, block, 2);
    struct kvb_block_info info = kv_describe(rig, block);
    assert_int_equal(info.state, KVB_STATE_INFLIGHT);
    assert_int_equal(info.step_count, 1);
    assert_int_equal(info.computed_count, 2);
    life_drop(rig, block);
}

static void test_overlapped_steps_both_done_completes(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = two_steps_out(rig);
    kv_done(rig, block, 2);
    kv_done(rig, block, 4);
    struct kvb_block_info info = kv_describe(rig, block);
    assert_int_equal(info.state, KVB_STATE_COMPLETE);
    assert_int_equal(info.step_count, 0);
    kv_unref(rig, block);
}

static void test_overlapped_steps_first_failed_stays_inflight(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = two_steps_out(rig);
    kv_ok(kvb_block_compute_failed(rig->kv, &block, 1, NULL));
    struct kvb_block_info info = kv_describe(rig, block);
    assert_int_equal(info.state, KVB_STATE_INFLIGHT);
    assert_int_equal(info.step_count, 1);
    life_drop(rig, block);
}

static void test_overlapped_steps_both_failed_is_ready(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = two_steps_out(rig);
    kv_ok(kvb_block_compute_failed(rig->kv, &block, 1, NULL));
    kv_ok(kvb_block_compute_failed(rig->kv, &block, 1, NULL));
    struct kvb_block_info info = kv_describe(rig, block);
    assert_int_equal(info.state, KVB_STATE_READY);
    assert_int_equal(info.computed_count, 0);
    assert_int_equal(info.holder_count, 1);
    kv_unref(rig, block);
}

/* The second step built on what the first did not write. */
static void test_overlapped_steps_done_after_failed_is_ignored(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = two_steps_out(rig);
    kv_ok(kvb_block_compute_failed(rig->kv, &block, 1, NULL));
    kv_done(rig, block, 4);
    struct kvb_block_info info = kv_describe(rig, block);
    assert_int_equal(info.computed_count, 0);
    assert_int_equal(info.step_count, 0);
    assert_int_not_equal(info.state, KVB_STATE_COMPLETE);
    assert_int_not_equal(info.state, KVB_STATE_INFLIGHT);
    kv_unref(rig, block);
}

static void test_overlapped_steps_second_failed_keeps_what_first_wrote(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = two_steps_out(rig);
    kv_done(rig, block, 2);
    kv_ok(kvb_block_compute_failed(rig->kv, &block, 1, NULL));
    struct kvb_block_info info = kv_describe(rig, block);
    assert_int_equal(info.state, KVB_STATE_READY);
    assert_int_equal(info.computed_count, 2);
    kv_unref(rig, block);
}

/*
 * All of it was computed by then, but a step has failed since: the block is not Complete by itself.
 */
static void test_overlapped_steps_done_failed_done_is_partial(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = two_steps_out(rig);
    kv_schedule(rig, block);
    kv_done(rig, block, 4);
    kv_ok(kvb_block_compute_failed(rig->kv, &block, 1, NULL));
    kv_done(rig, block, 4);
    struct kvb_block_info info = kv_describe(rig, block);
    assert_int_equal(info.state, KVB_STATE_PARTIAL);
    assert_int_equal(info.computed_count, 4);
    struct kvb_append none = {.size = sizeof none};
    kv_ok(kvb_block_append(rig->kv, &block, &none, 1, NULL));
    kv_schedule(rig, block);
    kv_done(rig, block, 4);
    assert_int_equal(kv_describe(rig, block).state, KVB_STATE_COMPLETE);
    kv_unref(rig, block);
}

static void test_compute_failed_then_scheduled_again_completes(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_init(rig, block, 0, 0, NULL);
    kv_append(rig, block, life_tokens, KV_TOKENS, 0);
    kv_schedule(rig, block);
    kv_ok(kvb_block_compute_failed(rig->kv, &block, 1, NULL));
    kv_schedule(rig, block);
    kv_done(rig, block, KV_TOKENS);
    assert_int_equal(kv_describe(rig, block).state, KVB_STATE_COMPLETE);
    kv_unref(rig, block);
}

static void test_schedule_beyond_4095_steps_says_again(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_block_in(rig, KVB_STATE_READY);
    for (int i = 0; i < 4095; i++)
        kv_schedule(rig, block);
    kv_expect(kvb_block_schedule(rig->kv, &block, 1, NULL), KVB_EAGAIN);
    assert_int_equal(kv_describe(rig, block).step_count, 4095);
    assert_int_equal(kv_describe(rig, block).holder_count, 4096);
    life_drop(rig, block);
}

/* ---- A request aborted in flight ------------------------------------------------------------- */

static void test_abort_in_flight_keeps_slot_until_step_reports(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_block_in(rig, KVB_STATE_INFLIGHT);
    kv_unref(rig, block);
    struct kvb_stats stats = kv_stats(rig);
    assert_int_equal(stats.tiers[0].held_count, 1);
    assert_int_equal(stats.tiers[0].free_count, KV_BLOCKS - 1);

    struct kvb_block *others[KV_BLOCKS];
    kv_expect(kvb_alloc(rig->kv, KVB_TIER_DEVICE, KV_BLOCKS, NULL, others, NULL), KVB_ENOSPC);
    kv_done(rig, block, 2);
    assert_int_equal(kv_stats(rig).tiers[0].free_count, KV_BLOCKS);
}

static void test_abort_in_flight_frees_slot_when_step_fails(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_block_in(rig, KVB_STATE_INFLIGHT);
    kv_unref(rig, block);
    kv_ok(kvb_block_compute_failed(rig->kv, &block, 1, NULL));
    assert_int_equal(kv_stats(rig).tiers[0].free_count, KV_BLOCKS);
}

static void test_abort_with_two_steps_frees_slot_with_the_last(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = two_steps_out(rig);
    kv_unref(rig, block);
    kv_done(rig, block, 2);
    assert_int_equal(kv_stats(rig).tiers[0].held_count, 1);
    kv_done(rig, block, 4);
    assert_int_equal(kv_stats(rig).tiers[0].held_count, 0);
    assert_int_equal(kv_stats(rig).tiers[0].free_count, KV_BLOCKS);
}

static void test_abort_in_flight_leaves_nothing_to_find(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    struct kvb_weak weak;
    kv_init(rig, block, 0, 0, NULL);
    kv_append(rig, block, life_tokens, KV_TOKENS, 0);
    kv_schedule(rig, block);
    kv_ok(kvb_block_weak(rig->kv, block, &weak));
    kv_unref(rig, block);
    kv_done(rig, block, KV_TOKENS);
    assert_int_equal(kv_run_length(rig, 0, life_tokens, KV_TOKENS), 0);
    kv_expect(kvb_weak_upgrade(rig->kv, &weak, 1, &block, NULL), KVB_ESTALE);
}

static void test_abort_in_flight_and_report_again_is_invalid(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_block_in(rig, KVB_STATE_INFLIGHT);
    kv_unref(rig, block);
    kv_done(rig, block, 2);
    kv_expect(kvb_block_compute_done(rig->kv, &block, &(uint32_t){2}, 1, NULL, NULL), KVB_EINVAL);
}

static void test_abort_in_flight_and_unref_again_is_invalid(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_block_in(rig, KVB_STATE_INFLIGHT);
    kv_unref(rig, block);
    kv_expect(kvb_block_unref(rig->kv, &block, 1, NULL), KVB_EINVAL);
    assert_int_equal(kv_describe(rig, block).holder_count, 1); /* the step's */
    kv_done(rig, block, 2);
}

static void test_abort_in_flight_and_unref_again_keeps_slot_until_step_reports(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *others[KV_BLOCKS], *block = life_block_in(rig, KVB_STATE_INFLIGHT);
    kv_unref(rig, block);
    kv_expect(kvb_block_unref(rig->kv, &block, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_alloc(rig->kv, KVB_TIER_DEVICE, KV_BLOCKS, NULL, others, NULL), KVB_ENOSPC);
    kv_done(rig, block, 2);
    assert_int_equal(kv_stats(rig).tiers[0].free_count, KV_BLOCKS);
}

static void test_abort_with_two_steps_and_unref_again_is_invalid(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = two_steps_out(rig);
    kv_unref(rig, block);
    kv_expect(kvb_block_unref(rig->kv, &block, 1, NULL), KVB_EINVAL);
    assert_int_equal(kv_describe(rig, block).holder_count, 2);
    kv_done(rig, block, 2);
    kv_done(rig, block, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kv_opened, test_compute_done_of_all_tokens_completes),
        TEST(kv_opened, test_compute_done_of_some_tokens_of_a_full_block_is_partial),
        TEST(kv_opened, test_compute_done_above_named_tokens_is_invalid),
        TEST(kv_opened, test_compute_done_below_reported_tokens_is_invalid),
        TEST(kv_opened, test_compute_done_of_same_count_as_before_is_legal),
        TEST(kv_opened, test_compute_done_once_more_than_scheduled_is_refused),
        TEST(kv_opened, test_decode_token_by_token_completes_at_the_last),
        TEST(kv_opened, test_overlapped_steps_are_counted),
        TEST(kv_opened, test_overlapped_steps_first_done_stays_inflight),
        TEST(kv_opened, test_overlapped_steps_both_done_completes),
        TEST(kv_opened, test_overlapped_steps_first_failed_stays_inflight),
        TEST(kv_opened, test_overlapped_steps_both_failed_is_ready),
        TEST(kv_opened, test_overlapped_steps_done_after_failed_is_ignored),
        TEST(kv_opened, test_overlapped_steps_second_failed_keeps_what_first_wrote),
        TEST(kv_opened, test_overlapped_steps_done_failed_done_is_partial),
        TEST(kv_opened, test_compute_failed_then_scheduled_again_completes),
        TEST(kv_opened, test_schedule_beyond_4095_steps_says_again),
        TEST(kv_opened, test_abort_in_flight_keeps_slot_until_step_reports),
        TEST(kv_opened, test_abort_in_flight_frees_slot_when_step_fails),
        TEST(kv_opened, test_abort_with_two_steps_frees_slot_with_the_last),
        TEST(kv_opened, test_abort_in_flight_leaves_nothing_to_find),
        TEST(kv_opened, test_abort_in_flight_and_report_again_is_invalid),
        TEST(kv_opened, test_abort_in_flight_and_unref_again_is_invalid),
        TEST(kv_opened, test_abort_in_flight_and_unref_again_keeps_slot_until_step_reports),
        TEST(kv_opened, test_abort_with_two_steps_and_unref_again_is_invalid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
