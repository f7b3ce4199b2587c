/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What waits for a fence takes no place from what is ready: in the in-queue, on deck, with the
 * engine.
 */
#include "support/move_test.h"
#include "support/test.h"

#define FENCE 9
#define MANY 12
#define LAST ((UINT64_C(1) << 56) - 1)

/* ---- Places ---------------------------------------------------------------------------------- */

/* A lane full of offers behind a fence, of the highest priority, and a ready one of the lowest. */
static void pass_by_down(struct kv_rig *rig, uint32_t ondeck, uint32_t batch, uint32_t depth)
{
    struct mv_run late[MANY], ready;
    mv_two_tiers(rig, MANY + 1, MANY + 1, KVB_OFFLOAD_MANUAL);
    mv_bounds(rig, 0, ondeck, batch, depth, 64);
    kv_rig_open(rig);
    mv_offer_after(rig, late, 1, MANY, FENCE, 100);
    mv_step(rig);
    assert_int_equal(mv_down(rig).inflight, batch * depth / 2);
    assert_int_equal(mv_down(rig).ondeck, 0);
    assert_int_equal(mv_down(rig).pending, MANY);
    mv_offer_after(rig, &ready, 2, 1, 0, 0);
    mv_step(rig);
    assert_int_equal(mv_down(rig).transferred, 1);
    assert_int_equal(mv_down(rig).pending, MANY);
    kv_expect(kvb_manager_flush(rig->kv, 0), KVB_ETIMEDOUT);
    mv_reach(rig, FENCE);
    assert_int_equal(mv_down(rig).transferred, MANY + 1);
    mv_drop_each(rig, late, MANY);
    mv_drop(rig, &ready);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    mv_expect_each_in(rig, late, MANY, KVB_TIER_HOST);
    mv_expect_in(rig, &ready, KVB_TIER_HOST);
    mv_expect_books(rig, true);
}

static void test_ready_offer_passes_a_lane_full_of_others_that_are_not(void **state)
{
    pass_by_down(*state, 8, 2, 2);
}

static void test_ready_offer_passes_where_the_engine_has_one_place(void **state)
{
    pass_by_down(*state, 1, 1, 1);
}

static void pass_by_up(struct kv_rig *rig, uint32_t batch, uint32_t depth)
{
    struct mv_run late[MANY], ready;
    struct mv_done dones[MANY], done;
    struct kvb_op *ops[MANY];
    mv_two_tiers(rig, MANY + 1, MANY + 1, KVB_OFFLOAD_MANUAL);
    mv_bounds(rig, 0, 1, batch, depth, 64);
    rig->config.op_capacity = MANY + 1;
    kv_rig_open(rig);
    for (uint32_t i = 0; i < MANY; i++) {
        mv_park(rig, &late[i], KVB_TIER_HOST, 1000 + i, 1);
        ops[i] = mv_bring_with_priority(rig, &late[i], mv_alloc_after(rig, KVB_TIER_DEVICE, FENCE),
                                        100, &dones[i]);
    }
    mv_step(rig);
    assert_int_equal(mv_up(rig).inflight, batch * depth / 2);
    assert_int_equal(mv_up(rig).pending, MANY);
    mv_park(rig, &ready, KVB_TIER_HOST, 2, 1);
    struct kvb_op *op =
        mv_bring_with_priority(rig, &ready, mv_alloc_after(rig, KVB_TIER_DEVICE, 0), 0, &done);
    mv_step(rig);
    assert_int_equal(done.calls, 1);
    assert_int_equal(mv_up(rig).pending, MANY);
    kv_expect(kvb_manager_flush(rig->kv, 0), KVB_ETIMEDOUT);
    mv_reach(rig, FENCE);
    for (uint32_t i = 0; i < MANY; i++) {
        assert_int_equal(dones[i].calls, 1);
        mv_end(rig, &late[i], ops[i], 1);
    }
    mv_end(rig, &ready, op, 1);
    mv_expect_books(rig, true);
}

static void test_ready_block_on_its_way_up_passes_others_that_are_not(void **state)
{
    pass_by_up(*state, 2, 2);
}

static void test_ready_block_on_its_way_up_passes_where_the_engine_has_one_place(void **state)
{
    pass_by_up(*state, 1, 1);
}

static void test_each_fence_lets_go_of_its_own(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run runs[3][2];
    mv_two_tiers(rig, 6, 6, KVB_OFFLOAD_MANUAL);
    mv_bounds(rig, 0, 1, 1, 1, 64);
    kv_rig_open(rig);
    mv_offer_after(rig, runs[2], 3, 2, 30, 50);
    mv_offer_after(rig, runs[0], 1, 2, 10, 50);
    mv_offer_after(rig, runs[1], 2, 2, 20, 50);
    for (uint64_t n = 0; n < 3; n++) {
        mv_reach(rig, 10 * (n + 1) - 1);
        assert_int_equal(mv_down(rig).transferred, 2 * n);
        mv_reach(rig, 10 * (n + 1));
        assert_int_equal(mv_down(rig).transferred, 2 * (n + 1));
        mv_drop_each(rig, runs[n], 2);
    }
    mv_expect_books(rig, true);
}

/* The value that a counter can have at most is a fence as any other. */
static void test_last_value_of_the_counter_is_a_fence_too(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    mv_two_tiers(rig, 2, 2, KVB_OFFLOAD_MANUAL);
    mv_bounds(rig, 0, 1, 1, 1, 64);
    kv_rig_open(rig);
    mv_offer_after(rig, &run, 1, 1, LAST, 50);
    mv_reach(rig, LAST - 1);
    assert_int_equal(mv_down(rig).pending, 1);
    mv_reach(rig, LAST);
    assert_int_equal(mv_down(rig).transferred, 1);
    mv_drop(rig, &run);
}

/* More than one section looks at. */
static void test_many_offers_behind_one_fence_all_come_up(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run runs[3];
    mv_two_tiers(rig, 192, 192, KVB_OFFLOAD_MANUAL);
    mv_bounds(rig, 0, 1, 1, 1, 256);
    kv_rig_open(rig);
    for (uint32_t i = 0; i < 3; i++) {
        mv_store_after(rig, &runs[i], KVB_TIER_DEVICE, i + 1, 64, FENCE + i % 2);
        kv_ok(kvb_block_offload(rig->kv, runs[i].blocks, 64, 10 * i, NULL, NULL));
    }
    mv_step(rig);
    assert_int_equal(mv_down(rig).queued, 192);
    mv_reach(rig, FENCE);
    assert_int_equal(mv_down(rig).transferred, 128);
    mv_reach(rig, FENCE + 1);
    assert_int_equal(mv_down(rig).transferred, 192);
    mv_drop_each(rig, runs, 3);
    mv_expect_books(rig, true);
}

/* ---- Offers behind a fence ------------------------------------------------------------------- */

/*
 * `count` offers, each a content of its own, behind a fence, in a lane where none of them goes to
 * the engine.
 */
static void open_fenced(struct kv_rig *rig, struct mv_run *runs, uint32_t count, uint32_t queue)
{
    mv_two_tiers(rig, 6, 6, KVB_OFFLOAD_MANUAL);
    mv_bounds(rig, 0, 1, 1, 1, queue);
    kv_rig_open(rig);
    mv_offer_after(rig, runs, 1, count, FENCE, 50);
    mv_step(rig);
    assert_int_equal(mv_down(rig).queued, count);
}

static void test_offer_behind_a_fence_holds_nothing_and_is_discarded_once_its_block_is_gone(
    void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run runs[2];
    open_fenced(rig, runs, 2, 8);
    mv_drop_each(rig, runs, 2);
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_DEVICE].available_count, 6);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    mv_reach(rig, FENCE);
    assert_int_equal(mv_down(rig).discarded, 2);
    mv_expect_books(rig, true);
}

static void test_offer_behind_a_fence_is_discarded_once_its_content_is_forgotten(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run runs[2];
    open_fenced(rig, runs, 2, 8);
    kv_ok(kvb_invalidate(rig->kv, runs[0].seqs, 1, NULL));
    kv_ok(kvb_manager_clear(rig->kv));
    mv_step(rig);
    mv_reach(rig, FENCE);
    assert_int_equal(mv_down(rig).discarded, 2);
    mv_drop_each(rig, runs, 2);
    mv_expect_books(rig, true);
}

static void test_offer_behind_a_fence_can_be_taken_back(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run runs[3];
    open_fenced(rig, runs, 3, 8);
    kv_expect(kvb_block_offload(rig->kv, runs[1].blocks, 1, 50, NULL, NULL), KVB_EBUSY);
    kv_ok(kvb_block_offload_cancel(rig->kv, runs[1].blocks, 1, NULL));
    kv_check(rig);
    assert_int_equal(mv_down(rig).cancelled, 1);
    mv_reach(rig, FENCE);
    assert_int_equal(mv_down(rig).transferred, 2);
    assert_int_equal(mv_in_tier(rig, &runs[1], KVB_TIER_DEVICE), 1);
    mv_drop_each(rig, runs, 3);
    mv_expect_books(rig, true);
}

static void test_full_in_queue_sheds_what_waits_for_a_fence_before_what_is_as_good_and_ready(
    void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run late[3], ready[3];
    open_fenced(rig, late, 2, 2);
    mv_offer_after(rig, ready, 2, 3, 0, 50); /* one goes on deck */
    assert_int_equal(mv_down(rig).shed, 2);
    assert_int_equal(mv_down(rig).ondeck, 1);
    assert_int_equal(mv_down(rig).queued, 2);
    mv_drop_each(rig, ready, 1);
    mv_store_after(rig, &late[2], KVB_TIER_DEVICE, 77, 1, FENCE);
    mv_offer(rig, late[2].blocks[0], 50); /* no better than those that are ready */
    assert_int_equal(mv_down(rig).shed, 3);
    mv_step(rig);
    assert_int_equal(mv_down(rig).transferred, 3);
    mv_drop_each(rig, late, 3);
    mv_drop_each(rig, ready + 1, 2);
    mv_expect_books(rig, true);
}

static void test_full_in_queue_sheds_the_lowest_priority_ready_or_not(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run runs[2], low, high;
    open_fenced(rig, runs, 2, 2);
    mv_store_after(rig, &low, KVB_TIER_DEVICE, 7, 1, FENCE);
    mv_offer(rig, low.blocks[0], 40);
    assert_int_equal(mv_down(rig).shed, 1);
    mv_store_after(rig, &high, KVB_TIER_DEVICE, 8, 1, FENCE);
    mv_offer(rig, high.blocks[0], 60);
    assert_int_equal(mv_down(rig).shed, 2);
    mv_reach(rig, FENCE);
    assert_int_equal(mv_down(rig).transferred, 2);
    mv_drop_each(rig, runs, 2);
    mv_drop(rig, &low);
    mv_drop(rig, &high);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    mv_expect_in(rig, &high, KVB_TIER_HOST);
    mv_expect_in(rig, &runs[0], KVB_TIER_HOST);
    mv_expect_books(rig, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kv_rig, test_ready_offer_passes_a_lane_full_of_others_that_are_not),
        TEST(kv_rig, test_ready_offer_passes_where_the_engine_has_one_place),
        TEST(kv_rig, test_ready_block_on_its_way_up_passes_others_that_are_not),
        TEST(kv_rig, test_ready_block_on_its_way_up_passes_where_the_engine_has_one_place),
        TEST(kv_rig, test_each_fence_lets_go_of_its_own),
        TEST(kv_rig, test_last_value_of_the_counter_is_a_fence_too),
        TEST(kv_rig, test_many_offers_behind_one_fence_all_come_up),
        TEST(kv_rig,
             test_offer_behind_a_fence_holds_nothing_and_is_discarded_once_its_block_is_gone),
        TEST(kv_rig, test_offer_behind_a_fence_is_discarded_once_its_content_is_forgotten),
        TEST(kv_rig, test_offer_behind_a_fence_can_be_taken_back),
        TEST(kv_rig,
             test_full_in_queue_sheds_what_waits_for_a_fence_before_what_is_as_good_and_ready),
        TEST(kv_rig, test_full_in_queue_sheds_the_lowest_priority_ready_or_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
