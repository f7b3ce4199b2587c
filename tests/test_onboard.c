/* SPDX-License-Identifier: Apache-2.0 */
/* Moving up: operations that bring their blocks, and several that want the same ones. */
#include "support/kv_scene.h"
#include "support/move_test.h"

/* ---- Success --------------------------------------------------------------------------------- */

static void test_onboard_of_one_block_brings_its_bytes(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done done;
    mv_open_two(rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_park(rig, &run, KVB_TIER_HOST, 1, 1);
    struct kvb_op *op = mv_bring_up(rig, &run, KVB_TIER_DEVICE, &done);
    mv_step(rig);
    mv_expect_done(&done, 0, 1);
    assert_ptr_equal(done.op, op);
    assert_int_equal(mv_take(rig, &run, op), 1);
    assert_int_equal(kv_describe(rig, run.blocks[0]).tier, KVB_TIER_DEVICE);
    mv_drop(rig, &run);
    mv_expect_in(rig, &run, KVB_TIER_DEVICE);
}

static void test_onboard_of_many_blocks_keeps_their_order(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done done;
    mv_two_tiers(rig, 40, 40, KVB_OFFLOAD_MANUAL);
    mv_bounds(rig, 0, 4, 3, 2, 8);
    kv_rig_open(rig);
    mv_park(rig, &run, KVB_TIER_HOST, 1, 40);
    struct kvb_op *op = mv_bring_up(rig, &run, KVB_TIER_DEVICE, &done);
    mv_step(rig);
    mv_expect_done(&done, 0, 40);
    mv_end(rig, &run, op, 40);
    assert_int_equal(mv_up(rig).transferred, 40);
    mv_expect_books(rig, true);
}

static void test_onboarded_block_keeps_its_lower_copy_and_is_not_written_down_again(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    mv_open_two(rig, 4, 4, KVB_OFFLOAD_ON_REGISTER);
    mv_park(rig, &run, KVB_TIER_HOST, 1, 2);
    struct kvb_op *op = mv_bring_up(rig, &run, KVB_TIER_DEVICE, NULL);
    mv_step(rig);
    mv_end(rig, &run, op, 2);
    mv_step(rig);
    assert_int_equal(mv_down(rig).transferred, 0);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    mv_expect_in(rig, &run, KVB_TIER_HOST);
}

static void test_prefetch_brings_blocks_to_the_middle_tier(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done done;
    mv_open_three(rig, 4, 4, 4);
    mv_park(rig, &run, KVB_TIER_DISK, 1, 3);
    struct kvb_op *op = mv_bring_up(rig, &run, KVB_TIER_HOST, &done);
    mv_step(rig);
    mv_expect_done(&done, 0, 3);
    kv_ok(kvb_op_release(rig->kv, op));
    mv_expect_in(rig, &run, KVB_TIER_HOST);
}

static void test_priority_decides_between_operations(void **state)
{
    struct kv_rig *rig = *state;
    static const uint32_t priorities[] = {10, 35, 90, 35};
    static const uint32_t expected[] = {2, 1, 3, 0};
    struct mv_run runs[4];
    struct kvb_block *targets[4];
    struct kvb_op *ops[4];
    mv_two_tiers(rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_bounds(rig, 0, 1, 1, 1, 8);
    mv_open_recorded(rig);
    mv_store_each(rig, runs, KVB_TIER_HOST, 1, 4);
    mv_alloc_many(rig, KVB_TIER_DEVICE, 4, targets);
    for (uint32_t i = 0; i < 4; i++) {
        struct kvb_onboard request = mv_request(runs[i].blocks, &targets[i], 1, NULL);
        request.flags = i == 3 ? 0 : KVB_ONBOARD_PRIORITY; /* without the flag: the default */
        request.priority = i == 3 ? 100 : priorities[i];
        kv_ok(kvb_onboard(rig->kv, &request, &ops[i]));
    }
    mv_step(rig);
    assert_int_equal(rig->copies.count, 4);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(rig->copies.list[i].from_slot,
                         kvb_block_slot(rig->kv, runs[expected[i]].blocks[0]));
    for (uint32_t i = 0; i < 4; i++) {
        kv_ok(kvb_op_release(rig->kv, ops[i]));
        mv_drop(rig, &runs[i]);
    }
}

static void test_onboarding_goes_before_offloading(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_fence fence = mv_fence(1);
    struct mv_run down, run;
    struct kvb_block *targets[3];
    mv_two_tiers(rig, 8, 8, KVB_OFFLOAD_MANUAL);
    mv_open_recorded(rig);
    mv_store(rig, &run, KVB_TIER_HOST, 1, 3);
    mv_store_after(rig, &down, KVB_TIER_DEVICE, 2, 3, 1);
    for (uint32_t i = 0; i < 3; i++)
        mv_offer(rig, down.blocks[i], 100);
    mv_step(rig); /* the offers are with the engine first; all six wait there for the same fence */
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 3, &fence, targets, NULL));
    struct kvb_onboard request = mv_request(run.blocks, targets, 3, NULL);
    struct kvb_op *op = mv_onboard(rig, &request);
    mv_step(rig);
    assert_int_equal(rig->copies.count, 0);
    mv_reach(rig, 1);
    assert_int_equal(rig->copies.count, 6);
    for (uint32_t i = 0; i < 6; i++)
        assert_int_equal(rig->copies.list[i].to_tier, i < 3 ? KVB_TIER_DEVICE : KVB_TIER_HOST);
    kv_ok(kvb_op_release(rig->kv, op));
    mv_drop(rig, &run);
    mv_drop(rig, &down);
}

static void test_sources_may_be_dropped_and_their_tier_filled_at_once(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    mv_open_two(rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_park(rig, &run, KVB_TIER_HOST, 1, 2);
    struct kvb_op *op = mv_bring_up(rig, &run, KVB_TIER_DEVICE, NULL); /* drops them */
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_HOST].available_count, 2);
    mv_evict_all(rig, KVB_TIER_HOST); /* all but what lanes hold, scribbled over */
    mv_step(rig);
    mv_end(rig, &run, op, 2);
}

/* ---- Joining --------------------------------------------------------------------------------- */

/* Two operations for the same content, the first one's targets held back by a fence. */
struct pair {
    struct kv_rig rig;
    struct mv_run first, second;
    struct kvb_block *targets[2][4];
    struct kvb_op *ops[2];
    struct mv_done dones[2];
};

static int pair_setup(void **state)
{
    (void)kv_scene_begin(state, sizeof(struct pair));
    return 0;
}

#define pair_teardown kv_scene_end

static void start_pair(struct pair *pair, uint32_t count, bool moving)
{
    struct kvb_fence fence = mv_fence(1);
    mv_two_tiers(&pair->rig, 10, 8, KVB_OFFLOAD_MANUAL);
    mv_open_recorded(&pair->rig);
    pair->rig.hooks.keeps = true;
    mv_park(&pair->rig, &pair->first, KVB_TIER_HOST, 1, count);
    mv_name(&pair->rig, &pair->second, 1, count);
    for (uint32_t i = 0; i < 2; i++) {
        struct mv_run *run = i == 0 ? &pair->first : &pair->second;
        assert_int_equal(mv_match(&pair->rig, run), count);
        mv_alloc_many(&pair->rig, KVB_TIER_DEVICE, count, pair->targets[i]);
        struct kvb_onboard request =
            mv_request(run->blocks, pair->targets[i], count, &pair->dones[i]);
        request.fence = &fence;
        kv_ok(kvb_onboard(pair->rig.kv, &request, &pair->ops[i]));
        mv_drop(&pair->rig, run);
        if (i == 0 && moving)
            mv_step(&pair->rig);
    }
}

static void end_pair(struct pair *pair)
{
    for (uint32_t i = 0; i < 2; i++) {
        kv_ok(kvb_op_release(pair->rig.kv, pair->ops[i]));
        kv_check(&pair->rig);
    }
    mv_expect_books(&pair->rig, true);
}

static void test_same_content_twice_is_one_transfer_and_good_for_both(void **state)
{
    struct pair *pair = *state;
    start_pair(pair, 2, true);
    mv_reach(&pair->rig, 1);
    assert_int_equal(pair->rig.copies.count, 2);
    assert_int_equal(mv_up(&pair->rig).joined, 2);
    assert_int_equal(mv_up(&pair->rig).offered, 2);
    mv_expect_done(&pair->dones[0], 0, 2);
    mv_expect_done(&pair->dones[1], 0, 2);
    end_pair(pair);
}

static void test_joined_block_replaces_the_target_which_goes_back(void **state)
{
    struct pair *pair = *state;
    start_pair(pair, 1, false);
    mv_reach(&pair->rig, 1);
    uint32_t good = 0;
    struct kvb_block *a = NULL, *b = NULL;
    kv_ok(kvb_op_take(pair->rig.kv, pair->ops[0], &a, 1, &good));
    kv_ok(kvb_op_take(pair->rig.kv, pair->ops[1], &b, 1, &good));
    kv_check(&pair->rig);
    assert_ptr_equal(a, pair->targets[0][0]);
    assert_ptr_equal(b, a);
    assert_int_equal(kv_describe(&pair->rig, a).holder_count, 2);
    assert_int_equal(kv_stats(&pair->rig).tiers[KVB_TIER_DEVICE].held_count, 1);
    kv_unref(&pair->rig, a);
    kv_unref(&pair->rig, b);
    end_pair(pair);
}

static void test_copy_that_is_there_already_is_joined_without_a_transfer(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run below, above;
    struct mv_done done;
    mv_two_tiers(rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_open_recorded(rig);
    mv_store(rig, &below, KVB_TIER_HOST, 1, 1);
    mv_store(rig, &above, KVB_TIER_DEVICE, 1, 1);
    struct kvb_block *target = kv_alloc(rig, KVB_TIER_DEVICE);
    struct kvb_onboard request = mv_request(below.blocks, &target, 1, &done);
    struct kvb_op *op = mv_onboard(rig, &request);
    kv_check(rig);
    assert_int_equal(done.calls, 0); /* only progress delivers */
    mv_step(rig);
    mv_expect_done(&done, 0, 1);
    assert_int_equal(rig->copies.count, 0);
    mv_drop(rig, &below);
    assert_int_equal(mv_take(rig, &below, op), 1);
    assert_ptr_equal(below.blocks[0], above.blocks[0]);
    mv_drop(rig, &below);
    mv_drop(rig, &above);
}

static void test_failed_transfer_fails_everybody_who_joined(void **state)
{
    struct pair *pair = *state;
    start_pair(pair, 2, true);
    mv_fail(&pair->rig.copies, 1, false);
    mv_reach(&pair->rig, 1);
    mv_expect_done(&pair->dones[0], 0, 0);
    mv_expect_done(&pair->dones[1], 0, 0);
    for (uint32_t i = 0; i < 2; i++) {
        struct kvb_block *blocks[2];
        uint32_t good = 9;
        kv_ok(kvb_op_take(pair->rig.kv, pair->ops[i], blocks, 2, &good));
        kv_check(&pair->rig);
        assert_int_equal(good, 0);
        assert_int_equal(kv_describe(&pair->rig, blocks[0]).state, KVB_STATE_EMPTY);
        kv_ok(kvb_block_unref(pair->rig.kv, blocks, 2, NULL));
    }
    assert_int_equal(mv_in_tier(&pair->rig, &pair->first, KVB_TIER_HOST), 1);
    end_pair(pair);
}

static void expect_second_gets_the_block_of_the_cancelled_first(struct pair *pair, bool moving)
{
    start_pair(pair, 2, moving);
    kv_ok(kvb_op_cancel(pair->rig.kv, pair->ops[0]));
    mv_step(&pair->rig);
    mv_expect_done(&pair->dones[0], KVB_ECANCELED, 0);
    assert_int_equal(pair->dones[1].calls, 0);
    struct kvb_block *blocks[2];
    uint32_t good = 9;
    kv_ok(kvb_op_take(pair->rig.kv, pair->ops[0], blocks, 2, &good));
    kv_check(&pair->rig);
    assert_int_equal(good, 0);
    for (uint32_t i = 0; i < 2; i++) /* at once, and no block lost */
        assert_int_equal(kv_describe(&pair->rig, blocks[i]).state, KVB_STATE_EMPTY);
    kv_ok(kvb_block_unref(pair->rig.kv, blocks, 2, NULL));
    mv_reach(&pair->rig, 1);
    mv_expect_done(&pair->dones[1], 0, 2);
    assert_int_equal(pair->rig.copies.count, 2);
    mv_expect_in(&pair->rig, &pair->second, KVB_TIER_DEVICE);
    end_pair(pair);
}

static void test_cancel_of_a_queued_operation_hands_the_transfer_to_who_joined(void **state)
{
    expect_second_gets_the_block_of_the_cancelled_first(*state, false);
}

static void test_cancel_of_a_moving_operation_hands_the_transfer_to_who_joined(void **state)
{
    expect_second_gets_the_block_of_the_cancelled_first(*state, true);
}

static void test_cancel_of_who_joined_leaves_the_first_alone(void **state)
{
    struct pair *pair = *state;
    start_pair(pair, 2, true);
    kv_ok(kvb_op_cancel(pair->rig.kv, pair->ops[1]));
    mv_step(&pair->rig);
    mv_expect_done(&pair->dones[1], KVB_ECANCELED, 0);
    mv_reach(&pair->rig, 1);
    mv_expect_done(&pair->dones[0], 0, 2);
    end_pair(pair);
}

static void test_two_targets_for_one_content_in_one_operation_are_both_good(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done done;
    struct kvb_block *targets[2], *sources[2], *blocks[2];
    uint32_t good = 0;
    mv_two_tiers(rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_open_recorded(rig);
    mv_store(rig, &run, KVB_TIER_HOST, 1, 1);
    sources[0] = sources[1] = run.blocks[0];
    mv_alloc_many(rig, KVB_TIER_DEVICE, 2, targets);
    struct kvb_onboard request = mv_request(sources, targets, 2, &done);
    struct kvb_op *op = mv_onboard(rig, &request);
    mv_step(rig);
    mv_expect_done(&done, 0, 2);
    assert_int_equal(rig->copies.count, 1);
    kv_ok(kvb_op_take(rig->kv, op, blocks, 2, &good));
    assert_ptr_equal(blocks[0], blocks[1]);
    kv_ok(kvb_op_release(rig->kv, op));
    kv_ok(kvb_block_unref(rig->kv, blocks, 2, NULL));
    mv_drop(rig, &run);
}

static void test_onboard_of_what_an_offload_is_writing_there_joins_it(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run disk, device;
    struct mv_done done;
    mv_three_tiers(rig, 4, 4, 4);
    mv_open_recorded(rig);
    mv_store(rig, &disk, KVB_TIER_DISK, 1, 1);
    mv_store_after(rig, &device, KVB_TIER_DEVICE, 1, 1, 1);
    mv_offer(rig, device.blocks[0], 50);
    mv_step(rig); /* DEVICE -> HOST is under way */
    struct kvb_block *target = kv_alloc(rig, KVB_TIER_HOST);
    struct kvb_onboard request = mv_request(disk.blocks, &target, 1, &done);
    struct kvb_op *op = mv_onboard(rig, &request);
    mv_step(rig);
    assert_int_equal(done.calls, 0);
    mv_reach(rig, 1);
    mv_expect_done(&done, 0, 1);
    assert_int_equal(rig->copies.count, 1);
    kv_ok(kvb_op_release(rig->kv, op));
    mv_drop(rig, &disk);
    mv_drop(rig, &device);
}

static void test_offer_of_what_an_onboarding_is_bringing_there_is_skipped(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_fence fence = mv_fence(1);
    struct mv_run disk, device;
    mv_open_three(rig, 4, 4, 4);
    mv_store(rig, &disk, KVB_TIER_DISK, 1, 1);
    mv_store(rig, &device, KVB_TIER_DEVICE, 1, 1);
    struct kvb_block *target = kv_alloc(rig, KVB_TIER_HOST);
    struct kvb_onboard request = mv_request(disk.blocks, &target, 1, NULL);
    request.fence = &fence;
    struct kvb_op *op = mv_onboard(rig, &request);
    mv_step(rig);
    mv_offer(rig, device.blocks[0], 50);
    assert_int_equal(mv_down(rig).skipped_present, 1);
    mv_reach(rig, 1);
    kv_ok(kvb_op_release(rig->kv, op));
    mv_drop(rig, &disk);
    mv_drop(rig, &device);
}

static void expect_miss_when_forgotten_in_transfer(struct pair *pair, bool clear)
{
    start_pair(pair, 1, true);
    if (clear)
        kv_ok(kvb_manager_clear(pair->rig.kv));
    else
        kv_ok(kvb_invalidate(pair->rig.kv, pair->first.seqs, 1, NULL));
    kv_check(&pair->rig);
    mv_reach(&pair->rig, 1);
    mv_expect_done(&pair->dones[0], 0, 0);
    mv_expect_done(&pair->dones[1], 0, 0);
    assert_int_equal(mv_up(&pair->rig).failed_invalidated, 1);
    assert_int_equal(mv_found(&pair->rig, &pair->first), 0);
    end_pair(pair);
}

static void test_content_invalidated_while_moving_is_a_miss(void **state)
{
    expect_miss_when_forgotten_in_transfer(*state, false);
}

static void test_content_cleared_while_moving_is_a_miss(void **state)
{
    expect_miss_when_forgotten_in_transfer(*state, true);
}

static void test_orphaned_transfer_that_fails_frees_its_memory(void **state)
{
    struct pair *pair = *state;
    start_pair(pair, 2, true);
    kv_ok(kvb_op_cancel(pair->rig.kv, pair->ops[1]));
    kv_ok(kvb_op_cancel(pair->rig.kv, pair->ops[0]));
    mv_step(&pair->rig);
    assert_int_equal(kv_stats(&pair->rig).tiers[KVB_TIER_DEVICE].transfer_count, 2);
    mv_fail(&pair->rig.copies, 1, true);
    mv_reach(&pair->rig, 1);
    assert_int_equal(kv_stats(&pair->rig).tiers[KVB_TIER_DEVICE].transfer_count, 0);
    assert_int_equal(mv_in_tier(&pair->rig, &pair->first, KVB_TIER_HOST), 2);
    end_pair(pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kv_rig, test_onboard_of_one_block_brings_its_bytes),
        TEST(kv_rig, test_onboard_of_many_blocks_keeps_their_order),
        TEST(kv_rig, test_onboarded_block_keeps_its_lower_copy_and_is_not_written_down_again),
        TEST(kv_rig, test_prefetch_brings_blocks_to_the_middle_tier),
        TEST(kv_rig, test_priority_decides_between_operations),
        TEST(kv_rig, test_onboarding_goes_before_offloading),
        TEST(kv_rig, test_sources_may_be_dropped_and_their_tier_filled_at_once),
        TEST(pair, test_same_content_twice_is_one_transfer_and_good_for_both),
        TEST(pair, test_joined_block_replaces_the_target_which_goes_back),
        TEST(kv_rig, test_copy_that_is_there_already_is_joined_without_a_transfer),
        TEST(pair, test_failed_transfer_fails_everybody_who_joined),
        TEST(pair, test_cancel_of_a_queued_operation_hands_the_transfer_to_who_joined),
        TEST(pair, test_cancel_of_a_moving_operation_hands_the_transfer_to_who_joined),
        TEST(pair, test_cancel_of_who_joined_leaves_the_first_alone),
        TEST(kv_rig, test_two_targets_for_one_content_in_one_operation_are_both_good),
        TEST(kv_rig, test_onboard_of_what_an_offload_is_writing_there_joins_it),
        TEST(kv_rig, test_offer_of_what_an_onboarding_is_bringing_there_is_skipped),
        TEST(pair, test_content_invalidated_while_moving_is_a_miss),
        TEST(pair, test_content_cleared_while_moving_is_a_miss),
        TEST(pair, test_orphaned_transfer_that_fails_frees_its_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
