/* SPDX-License-Identifier: Apache-2.0 */
/* What is ready gets a slot that is ready, in every tier, and waits where there is none. */
#include "support/move_test.h"
#include "support/test.h"

#define FENCE 9

/*
 * HOST has a slot that is ready, and one that is written until FENCE, which is to be had first. A
 * ready content goes down.
 */
static void expect_ready_target(struct kv_rig *rig)
{
    struct mv_run run;
    mv_store(rig, &run, KVB_TIER_DEVICE, 50, 1);
    mv_offer(rig, run.blocks[0], 50);
    mv_step(rig);
    assert_int_equal(mv_down(rig).transferred, 1);
    mv_drop(rig, &run);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    mv_expect_in(rig, &run, KVB_TIER_HOST);
}

static void test_lane_prefers_a_free_slot_that_is_ready(void **state)
{
    struct kv_rig *rig = *state;
    mv_open_two(rig, 2, 2, KVB_OFFLOAD_MANUAL);
    kv_unref(rig, mv_alloc_after(rig, KVB_TIER_HOST, FENCE)); /* on top of what is free */
    expect_ready_target(rig);
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_HOST].free_count, 1);
}

static void test_lane_evicts_what_is_ready_before_it_takes_a_slot_that_is_not(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run late, old;
    mv_open_two(rig, 2, 3, KVB_OFFLOAD_MANUAL);
    struct kvb_block *block = mv_alloc_after(rig, KVB_TIER_HOST, FENCE);
    mv_store_after(rig, &late, KVB_TIER_HOST, 1, 1, FENCE);
    mv_drop(rig, &late); /* the next to be evicted */
    mv_park(rig, &old, KVB_TIER_HOST, 2, 1);
    kv_unref(rig, block);
    expect_ready_target(rig);
    assert_int_equal(mv_found(rig, &late), 1);
    assert_int_equal(mv_found(rig, &old), 0);
}

static void test_lane_evicts_nothing_of_higher_priority_for_a_slot_that_is_ready(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run old, run;
    mv_open_two(rig, 2, 2, KVB_OFFLOAD_MANUAL);
    struct kvb_block *block = mv_alloc_after(rig, KVB_TIER_HOST, FENCE);
    mv_store(rig, &old, KVB_TIER_HOST, 2, 1);
    kv_ok(kvb_block_set_priority(rig->kv, old.blocks, 1, 90, 0, NULL));
    mv_drop(rig, &old);
    kv_unref(rig, block);
    mv_offer_after(rig, &run, 3, 1, 0, 50);
    mv_step(rig);
    assert_int_equal(mv_down(rig).transferred, 0);
    assert_int_equal(mv_found(rig, &old), 1);
    mv_reach(rig, FENCE);
    assert_int_equal(mv_down(rig).transferred, 1);
    mv_drop(rig, &run);
}

static int count_and_admit(void *context, const struct kvb_admission_request *request)
{
    (void)request;
    ++*(uint32_t *)context;
    return 1;
}

/*
 * None of the targets is ready, and the engine has no place for one that waits: the offer waits,
 * asked about once.
 */
static void test_offer_waits_where_no_target_is_ready(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    static uint32_t asked;
    asked = 0;
    mv_two_tiers(rig, 2, 1, KVB_OFFLOAD_MANUAL);
    mv_bounds(rig, 0, 1, 1, 1, 8);
    rig->config.admission.admit = count_and_admit;
    rig->config.admission.context = &asked;
    kv_rig_open(rig);
    kv_unref(rig, mv_alloc_after(rig, KVB_TIER_HOST, FENCE));
    mv_offer_after(rig, &run, 1, 1, 0, 50);
    mv_step(rig);
    assert_int_equal(mv_down(rig).queued, 1);
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_HOST].free_count, 1);
    mv_reach(rig, FENCE);
    assert_int_equal(mv_down(rig).transferred, 1);
    assert_int_equal(asked, 1);
    mv_drop(rig, &run);
    mv_expect_books(rig, true);
}

static void test_carrier_prefers_a_slot_that_is_ready(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done done;
    mv_open_three(rig, 2, 2, 2);
    mv_park(rig, &run, KVB_TIER_DISK, 1, 1);
    kv_unref(rig, mv_alloc_after(rig, KVB_TIER_HOST, FENCE));
    struct kvb_op *op = mv_bring_up(rig, &run, KVB_TIER_DEVICE, &done);
    mv_step(rig);
    assert_int_equal(done.good_count, 1);
    mv_end(rig, &run, op, 1);
}

static void test_hop_waits_where_no_slot_in_between_is_ready(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done done;
    mv_three_tiers(rig, 2, 1, 2);
    mv_bounds(rig, 1, 1, 1, 1, 8);
    kv_rig_open(rig);
    mv_park(rig, &run, KVB_TIER_DISK, 1, 1);
    kv_unref(rig, mv_alloc_after(rig, KVB_TIER_HOST, FENCE));
    struct kvb_op *op = mv_bring_up(rig, &run, KVB_TIER_DEVICE, &done);
    mv_step(rig);
    assert_int_equal(done.calls, 0);
    assert_int_equal(mv_lane(rig, KVB_TIER_DISK, KVB_TIER_HOST).queued, 1);
    mv_reach(rig, FENCE);
    assert_int_equal(done.good_count, 1);
    mv_end(rig, &run, op, 1);
    mv_expect_books(rig, true);
}

/* The fence is not reached, but somebody lets go of a slot that is ready. */
static void test_offer_that_waits_for_a_ready_target_takes_the_next_one_that_comes_free(
    void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    mv_open_narrow(rig, 2, 2);
    struct kvb_block *held = kv_alloc(rig, KVB_TIER_HOST);
    kv_unref(rig, mv_alloc_after(rig, KVB_TIER_HOST, FENCE));
    mv_offer_after(rig, &run, 1, 1, 0, 50);
    mv_step(rig);
    assert_int_equal(mv_down(rig).queued, 1);
    kv_unref(rig, held);
    mv_step(rig);
    assert_int_equal(mv_down(rig).transferred, 1);
    mv_drop(rig, &run);
    mv_expect_books(rig, true);
}

static void test_hop_that_waits_for_a_ready_slot_takes_the_next_one_that_comes_free(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done done;
    mv_three_tiers(rig, 2, 2, 2);
    mv_bounds(rig, 1, 1, 1, 1, 8);
    kv_rig_open(rig);
    mv_park(rig, &run, KVB_TIER_DISK, 1, 1);
    struct kvb_block *held = kv_alloc(rig, KVB_TIER_HOST);
    kv_unref(rig, mv_alloc_after(rig, KVB_TIER_HOST, FENCE));
    struct kvb_op *op = mv_bring_up(rig, &run, KVB_TIER_DEVICE, &done);
    mv_step(rig);
    assert_int_equal(done.calls, 0);
    kv_unref(rig, held);
    mv_step(rig);
    mv_end(rig, &run, op, 1);
    mv_expect_books(rig, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kv_rig, test_lane_prefers_a_free_slot_that_is_ready),
        TEST(kv_rig, test_lane_evicts_what_is_ready_before_it_takes_a_slot_that_is_not),
        TEST(kv_rig, test_lane_evicts_nothing_of_higher_priority_for_a_slot_that_is_ready),
        TEST(kv_rig, test_offer_waits_where_no_target_is_ready),
        TEST(kv_rig, test_carrier_prefers_a_slot_that_is_ready),
        TEST(kv_rig, test_hop_waits_where_no_slot_in_between_is_ready),
        TEST(kv_rig, test_offer_that_waits_for_a_ready_target_takes_the_next_one_that_comes_free),
        TEST(kv_rig, test_hop_that_waits_for_a_ready_slot_takes_the_next_one_that_comes_free),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
