/* SPDX-License-Identifier: Apache-2.0 */
/* Moving up: operations, joined transfers, hops, partial success, cancel and deadline, fences, every error. */
#include "support/move_test.h"

static struct kvb_lane_stats up(struct kv_rig *rig)
{
    return mv_lane(rig, KVB_TIER_HOST, KVB_TIER_DEVICE);
}

static void alloc_many(struct kv_rig *rig, uint32_t tier, uint32_t count, struct kvb_block **blocks)
{
    kv_ok(kvb_alloc(rig->kv, tier, count, NULL, blocks, NULL));
}

/* The request's status once `done` has run; asked again it is the same. */
static void expect_done(const struct mv_done *done, int status, uint32_t good_count)
{
    assert_int_equal(done->calls, 1);
    assert_int_equal(done->status, status);
    assert_int_equal(done->good_count, good_count);
}

/* ---- Success ------------------------------------------------------------------------------------------------------ */

static void test_onboard_of_one_block_brings_its_bytes(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    struct mv_done done;
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    mv_park(&rig, &run, KVB_TIER_HOST, 1, 1);
    struct kvb_op *op = mv_bring_up(&rig, &run, KVB_TIER_DEVICE, &done);
    mv_step(&rig);
    expect_done(&done, 0, 1);
    assert_ptr_equal(done.op, op);
    assert_int_equal(mv_take(&rig, &run, op), 1);
    assert_int_equal(kv_describe(&rig, run.blocks[0]).tier, KVB_TIER_DEVICE);
    mv_drop(&rig, &run);
    mv_expect_in(&rig, &run, KVB_TIER_DEVICE);
    kv_rig_close(&rig);
}

static void test_onboard_of_many_blocks_keeps_their_order(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    struct mv_done done;
    mv_two_tiers(&rig, 40, 40, KVB_OFFLOAD_MANUAL);
    mv_bounds(&rig, 0, 4, 3, 2, 8);
    kv_rig_open(&rig);
    mv_park(&rig, &run, KVB_TIER_HOST, 1, 40);
    struct kvb_op *op = mv_bring_up(&rig, &run, KVB_TIER_DEVICE, &done);
    mv_step(&rig);
    expect_done(&done, 0, 40);
    assert_int_equal(mv_take(&rig, &run, op), 40);
    mv_drop(&rig, &run);
    assert_int_equal(up(&rig).transferred, 40);
    mv_expect_books(&rig, true);
    kv_rig_close(&rig);
}

static void test_onboarded_block_keeps_its_lower_copy_and_is_not_written_down_again(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_ON_REGISTER);
    kv_rig_open(&rig);
    mv_park(&rig, &run, KVB_TIER_HOST, 1, 2);
    struct kvb_op *op = mv_bring_up(&rig, &run, KVB_TIER_DEVICE, NULL);
    mv_step(&rig);
    assert_int_equal(mv_take(&rig, &run, op), 2);
    mv_drop(&rig, &run);
    mv_step(&rig);
    assert_int_equal(mv_lane(&rig, KVB_TIER_DEVICE, KVB_TIER_HOST).transferred, 0);
    mv_evict_all(&rig, KVB_TIER_DEVICE);
    mv_expect_in(&rig, &run, KVB_TIER_HOST);
    kv_rig_close(&rig);
}

static void test_prefetch_brings_blocks_to_the_middle_tier(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    struct mv_done done;
    mv_three_tiers(&rig, 4, 4, 4);
    kv_rig_open(&rig);
    mv_park(&rig, &run, KVB_TIER_DISK, 1, 3);
    struct kvb_op *op = mv_bring_up(&rig, &run, KVB_TIER_HOST, &done);
    mv_step(&rig);
    expect_done(&done, 0, 3);
    kv_ok(kvb_op_release(rig.kv, op));
    mv_expect_in(&rig, &run, KVB_TIER_HOST);
    kv_rig_close(&rig);
}

static void test_priority_decides_between_operations(void **state)
{
    (void)state;
    static const uint32_t priorities[] = {10, 35, 90, 35};
    static const uint32_t expected[] = {2, 1, 3, 0};
    struct kv_rig rig;
    struct mv_copies copies;
    struct mv_run runs[4];
    struct kvb_block *targets[4];
    struct kvb_op *ops[4];
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_bounds(&rig, 0, 1, 1, 1, 8);
    mv_open(&rig, &copies);
    mv_store_each(&rig, runs, KVB_TIER_HOST, 1, 4);
    alloc_many(&rig, KVB_TIER_DEVICE, 4, targets);
    for (uint32_t i = 0; i < 4; i++) {
        struct kvb_onboard request = mv_request(runs[i].blocks, &targets[i], 1, NULL);
        request.flags = i == 3 ? 0 : KVB_ONBOARD_PRIORITY; /* without the flag: the default */
        request.priority = i == 3 ? 100 : priorities[i];
        kv_ok(kvb_onboard(rig.kv, &request, &ops[i]));
    }
    mv_step(&rig);
    assert_int_equal(copies.count, 4);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(copies.list[i].from_slot,
                         kvb_block_slot(rig.kv, runs[expected[i]].blocks[0]));
    for (uint32_t i = 0; i < 4; i++) {
        kv_ok(kvb_op_release(rig.kv, ops[i]));
        mv_drop(&rig, &runs[i]);
    }
    kv_rig_close(&rig);
}

static void test_onboarding_goes_before_offloading(void **state)
{
    (void)state;
    struct kvb_fence fence = {.kind = KVB_FENCE_COUNTER, .handle = 1};
    struct kv_rig rig;
    struct mv_copies copies;
    struct mv_run down, run;
    struct kvb_block *targets[3];
    struct kvb_op *op = NULL;
    mv_two_tiers(&rig, 8, 8, KVB_OFFLOAD_MANUAL);
    mv_open(&rig, &copies);
    mv_store(&rig, &run, KVB_TIER_HOST, 1, 3);
    mv_store_after(&rig, &down, KVB_TIER_DEVICE, 2, 3, 1);
    for (uint32_t i = 0; i < 3; i++)
        mv_offer(&rig, down.blocks[i], 100);
    mv_step(&rig); /* the offers are with the engine first; all six wait there for the same fence */
    kv_ok(kvb_alloc(rig.kv, KVB_TIER_DEVICE, 3, &fence, targets, NULL));
    struct kvb_onboard request = mv_request(run.blocks, targets, 3, NULL);
    kv_ok(kvb_onboard(rig.kv, &request, &op));
    mv_step(&rig);
    assert_int_equal(copies.count, 0);
    mv_signal(&rig, 1);
    mv_step(&rig);
    assert_int_equal(copies.count, 6);
    for (uint32_t i = 0; i < 6; i++)
        assert_int_equal(copies.list[i].to_tier, i < 3 ? KVB_TIER_DEVICE : KVB_TIER_HOST);
    kv_ok(kvb_op_release(rig.kv, op));
    mv_drop(&rig, &run);
    mv_drop(&rig, &down);
    kv_rig_close(&rig);
}

static void test_sources_may_be_dropped_and_their_tier_filled_at_once(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    mv_park(&rig, &run, KVB_TIER_HOST, 1, 2);
    struct kvb_op *op = mv_bring_up(&rig, &run, KVB_TIER_DEVICE, NULL); /* drops them */
    assert_int_equal(kv_stats(&rig).tiers[KVB_TIER_HOST].available_count, 2);
    mv_evict_all(&rig, KVB_TIER_HOST); /* all but what is pinned, scribbled over */
    mv_step(&rig);
    assert_int_equal(mv_take(&rig, &run, op), 2);
    mv_drop(&rig, &run);
    kv_rig_close(&rig);
}

/* ---- Joining ------------------------------------------------------------------------------------------------------ */

/* Two operations for the same content, the first one's targets held back by a fence. */
struct pair {
    struct kv_rig rig;
    struct mv_copies copies;
    struct mv_run first, second;
    struct kvb_block *targets[2][4];
    struct kvb_op *ops[2];
    struct mv_done dones[2];
};

static void start_pair(struct pair *pair, uint32_t count, bool moving)
{
    struct kvb_fence fence = {.kind = KVB_FENCE_COUNTER, .handle = 1};
    mv_two_tiers(&pair->rig, 10, 8, KVB_OFFLOAD_MANUAL);
    mv_open(&pair->rig, &pair->copies);
    pair->rig.hooks.keeps = true;
    mv_park(&pair->rig, &pair->first, KVB_TIER_HOST, 1, count);
    mv_name(&pair->rig, &pair->second, 1, count);
    for (uint32_t i = 0; i < 2; i++) {
        struct mv_run *run = i == 0 ? &pair->first : &pair->second;
        assert_int_equal(mv_match(&pair->rig, run), count);
        alloc_many(&pair->rig, KVB_TIER_DEVICE, count, pair->targets[i]);
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
    kv_rig_close(&pair->rig);
}

static void test_same_content_twice_is_one_transfer_and_good_for_both(void **state)
{
    (void)state;
    struct pair pair;
    start_pair(&pair, 2, true);
    mv_signal(&pair.rig, 1);
    mv_step(&pair.rig);
    assert_int_equal(pair.copies.count, 2);
    assert_int_equal(up(&pair.rig).joined, 2);
    assert_int_equal(up(&pair.rig).offered, 2);
    expect_done(&pair.dones[0], 0, 2);
    expect_done(&pair.dones[1], 0, 2);
    end_pair(&pair);
}

static void test_joined_block_replaces_the_target_which_goes_back(void **state)
{
    (void)state;
    struct pair pair;
    start_pair(&pair, 1, false);
    mv_signal(&pair.rig, 1);
    mv_step(&pair.rig);
    uint32_t good = 0;
    struct kvb_block *a = NULL, *b = NULL;
    kv_ok(kvb_op_take(pair.rig.kv, pair.ops[0], &a, 1, &good));
    kv_ok(kvb_op_take(pair.rig.kv, pair.ops[1], &b, 1, &good));
    kv_check(&pair.rig);
    assert_ptr_equal(a, pair.targets[0][0]);
    assert_ptr_equal(b, a);
    assert_int_equal(kv_describe(&pair.rig, a).holder_count, 2);
    assert_int_equal(kv_stats(&pair.rig).tiers[KVB_TIER_DEVICE].held_count, 1);
    kv_unref(&pair.rig, a);
    kv_unref(&pair.rig, b);
    end_pair(&pair);
}

static void test_copy_that_is_there_already_is_joined_without_a_transfer(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_copies copies;
    struct mv_run below, above;
    struct mv_done done;
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_open(&rig, &copies);
    mv_store(&rig, &below, KVB_TIER_HOST, 1, 1);
    mv_store(&rig, &above, KVB_TIER_DEVICE, 1, 1);
    struct kvb_block *target = kv_alloc(&rig, KVB_TIER_DEVICE);
    struct kvb_onboard request = mv_request(below.blocks, &target, 1, &done);
    struct kvb_op *op = NULL;
    kv_ok(kvb_onboard(rig.kv, &request, &op));
    kv_check(&rig);
    assert_int_equal(done.calls, 0); /* only progress delivers */
    mv_step(&rig);
    expect_done(&done, 0, 1);
    assert_int_equal(copies.count, 0);
    mv_drop(&rig, &below);
    assert_int_equal(mv_take(&rig, &below, op), 1);
    assert_ptr_equal(below.blocks[0], above.blocks[0]);
    mv_drop(&rig, &below);
    mv_drop(&rig, &above);
    kv_rig_close(&rig);
}

static void test_failed_transfer_fails_everybody_who_joined(void **state)
{
    (void)state;
    struct pair pair;
    start_pair(&pair, 2, true);
    mv_fail(&pair.copies, 1, false);
    mv_signal(&pair.rig, 1);
    mv_step(&pair.rig);
    expect_done(&pair.dones[0], 0, 0);
    expect_done(&pair.dones[1], 0, 0);
    for (uint32_t i = 0; i < 2; i++) {
        struct kvb_block *blocks[2];
        uint32_t good = 9;
        kv_ok(kvb_op_take(pair.rig.kv, pair.ops[i], blocks, 2, &good));
        kv_check(&pair.rig);
        assert_int_equal(good, 0);
        assert_int_equal(kv_describe(&pair.rig, blocks[0]).state, KVB_STATE_EMPTY);
        kv_ok(kvb_block_unref(pair.rig.kv, blocks, 2, NULL));
    }
    assert_int_equal(mv_in_tier(&pair.rig, &pair.first, KVB_TIER_HOST), 1);
    end_pair(&pair);
}

static void expect_second_gets_the_block_of_the_cancelled_first(bool moving)
{
    struct pair pair;
    start_pair(&pair, 2, moving);
    kv_ok(kvb_op_cancel(pair.rig.kv, pair.ops[0]));
    mv_step(&pair.rig);
    expect_done(&pair.dones[0], KVB_ECANCELED, 0);
    assert_int_equal(pair.dones[1].calls, 0);
    struct kvb_block *blocks[2];
    uint32_t good = 9;
    kv_ok(kvb_op_take(pair.rig.kv, pair.ops[0], blocks, 2, &good));
    kv_check(&pair.rig);
    assert_int_equal(good, 0);
    for (uint32_t i = 0; i < 2; i++) /* at once, and no block lost */
        assert_int_equal(kv_describe(&pair.rig, blocks[i]).state, KVB_STATE_EMPTY);
    kv_ok(kvb_block_unref(pair.rig.kv, blocks, 2, NULL));
    mv_signal(&pair.rig, 1);
    mv_step(&pair.rig);
    expect_done(&pair.dones[1], 0, 2);
    assert_int_equal(pair.copies.count, 2);
    mv_expect_in(&pair.rig, &pair.second, KVB_TIER_DEVICE);
    end_pair(&pair);
}

static void test_cancel_of_a_queued_operation_hands_the_transfer_to_who_joined(void **state)
{
    (void)state;
    expect_second_gets_the_block_of_the_cancelled_first(false);
}

static void test_cancel_of_a_moving_operation_hands_the_transfer_to_who_joined(void **state)
{
    (void)state;
    expect_second_gets_the_block_of_the_cancelled_first(true);
}

static void test_cancel_of_who_joined_leaves_the_first_alone(void **state)
{
    (void)state;
    struct pair pair;
    start_pair(&pair, 2, true);
    kv_ok(kvb_op_cancel(pair.rig.kv, pair.ops[1]));
    mv_step(&pair.rig);
    expect_done(&pair.dones[1], KVB_ECANCELED, 0);
    mv_signal(&pair.rig, 1);
    mv_step(&pair.rig);
    expect_done(&pair.dones[0], 0, 2);
    end_pair(&pair);
}

static void test_two_targets_for_one_content_in_one_operation_are_both_good(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_copies copies;
    struct mv_run run;
    struct mv_done done;
    struct kvb_block *targets[2], *sources[2], *blocks[2];
    uint32_t good = 0;
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_open(&rig, &copies);
    mv_store(&rig, &run, KVB_TIER_HOST, 1, 1);
    sources[0] = sources[1] = run.blocks[0];
    alloc_many(&rig, KVB_TIER_DEVICE, 2, targets);
    struct kvb_onboard request = mv_request(sources, targets, 2, &done);
    struct kvb_op *op = NULL;
    kv_ok(kvb_onboard(rig.kv, &request, &op));
    mv_step(&rig);
    expect_done(&done, 0, 2);
    assert_int_equal(copies.count, 1);
    kv_ok(kvb_op_take(rig.kv, op, blocks, 2, &good));
    assert_ptr_equal(blocks[0], blocks[1]);
    kv_ok(kvb_op_release(rig.kv, op));
    kv_ok(kvb_block_unref(rig.kv, blocks, 2, NULL));
    mv_drop(&rig, &run);
    kv_rig_close(&rig);
}

static void test_onboard_of_what_an_offload_is_writing_there_joins_it(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_copies copies;
    struct mv_run disk, device;
    struct mv_done done;
    mv_three_tiers(&rig, 4, 4, 4);
    mv_open(&rig, &copies);
    mv_store(&rig, &disk, KVB_TIER_DISK, 1, 1);
    mv_store_after(&rig, &device, KVB_TIER_DEVICE, 1, 1, 1);
    mv_offer(&rig, device.blocks[0], 50);
    mv_step(&rig); /* DEVICE -> HOST is under way */
    struct kvb_block *target = kv_alloc(&rig, KVB_TIER_HOST);
    struct kvb_onboard request = mv_request(disk.blocks, &target, 1, &done);
    struct kvb_op *op = NULL;
    kv_ok(kvb_onboard(rig.kv, &request, &op));
    mv_step(&rig);
    assert_int_equal(done.calls, 0);
    mv_signal(&rig, 1);
    mv_step(&rig);
    expect_done(&done, 0, 1);
    assert_int_equal(copies.count, 1);
    kv_ok(kvb_op_release(rig.kv, op));
    mv_drop(&rig, &disk);
    mv_drop(&rig, &device);
    kv_rig_close(&rig);
}

static void test_offer_of_what_an_onboarding_is_bringing_there_is_skipped(void **state)
{
    (void)state;
    struct kvb_fence fence = {.kind = KVB_FENCE_COUNTER, .handle = 1};
    struct kv_rig rig;
    struct mv_run disk, device;
    mv_three_tiers(&rig, 4, 4, 4);
    kv_rig_open(&rig);
    mv_store(&rig, &disk, KVB_TIER_DISK, 1, 1);
    mv_store(&rig, &device, KVB_TIER_DEVICE, 1, 1);
    struct kvb_block *target = kv_alloc(&rig, KVB_TIER_HOST);
    struct kvb_onboard request = mv_request(disk.blocks, &target, 1, NULL);
    request.fence = &fence;
    struct kvb_op *op = NULL;
    kv_ok(kvb_onboard(rig.kv, &request, &op));
    mv_step(&rig);
    mv_offer(&rig, device.blocks[0], 50);
    assert_int_equal(mv_lane(&rig, KVB_TIER_DEVICE, KVB_TIER_HOST).skipped_present, 1);
    mv_signal(&rig, 1);
    mv_step(&rig);
    kv_ok(kvb_op_release(rig.kv, op));
    mv_drop(&rig, &disk);
    mv_drop(&rig, &device);
    kv_rig_close(&rig);
}

/* ---- Partial success ---------------------------------------------------------------------------------------------- */

static void test_failure_of_one_block_ends_the_good_prefix_before_it(void **state)
{
    (void)state;
    for (uint32_t k = 0; k < 6; k++) {
        struct kv_rig rig;
        struct mv_copies copies;
        struct mv_run run;
        struct mv_done done;
        mv_two_tiers(&rig, 8, 8, KVB_OFFLOAD_MANUAL);
        mv_open(&rig, &copies);
        mv_park(&rig, &run, KVB_TIER_HOST, 1, 6);
        struct kvb_op *op = mv_bring_up(&rig, &run, KVB_TIER_DEVICE, &done);
        mv_fail(&copies, k + 1, false);
        mv_step(&rig);
        expect_done(&done, 0, k);
        assert_int_equal(mv_take(&rig, &run, op), k);
        for (uint32_t i = k; i < 6; i++)
            assert_non_null(run.blocks[i]);
        assert_int_equal(mv_in_tier(&rig, &run, KVB_TIER_DEVICE),
                         k);       /* nothing else is findable there */
        mv_compute(&rig, &run, k); /* what did not come is computed */
        kv_ok(kvb_block_register(rig.kv, run.blocks + k, 6 - k, NULL, NULL, NULL));
        mv_drop(&rig, &run);
        mv_expect_in(&rig, &run, KVB_TIER_DEVICE);
        mv_evict_all(&rig, KVB_TIER_DEVICE);
        mv_expect_in(&rig, &run, KVB_TIER_HOST); /* the sources are still there */
        kv_rig_close(&rig);
    }
}

static void test_block_past_the_good_prefix_that_others_share_is_replaced(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_copies copies;
    struct mv_run run, tail;
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_open(&rig, &copies);
    mv_park(&rig, &run, KVB_TIER_HOST, 1, 2);
    struct kvb_op *op = mv_bring_up(&rig, &run, KVB_TIER_DEVICE, NULL);
    mv_fail(&copies, 1, false);
    mv_step(&rig);
    mv_name(&rig, &tail, 1,
            2); /* somebody matches the second block's copy above: by its key alone */
    struct kvb_query query = {.size = sizeof query, .keys = &tail.seqs[1], .key_count = 1};
    struct kvb_hit hit;
    size_t count = 0;
    kv_ok(kvb_match(rig.kv, &query, &hit, 1, &count));
    assert_int_equal(count, 1);
    assert_int_equal(hit.tier, KVB_TIER_DEVICE);
    assert_int_equal(mv_take(&rig, &run, op), 0);
    assert_non_null(run.blocks[1]);
    assert_ptr_not_equal(run.blocks[1], hit.block);
    assert_true(mv_bytes_are(&rig, hit.block, &tail.seqs[1]));
    kv_unref(&rig, hit.block);
    mv_drop_taken(&rig, &run);
    kv_rig_close(&rig);
}

static void test_block_past_the_good_prefix_is_missing_when_shared_and_nothing_is_free(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_copies copies;
    struct mv_run run;
    mv_two_tiers(&rig, 2, 4, KVB_OFFLOAD_MANUAL);
    mv_open(&rig, &copies);
    mv_park(&rig, &run, KVB_TIER_HOST, 1, 2);
    struct kvb_op *op = mv_bring_up(&rig, &run, KVB_TIER_DEVICE, NULL);
    mv_fail(&copies, 1, false);
    mv_step(&rig);
    struct kvb_query query = {.size = sizeof query, .keys = &run.seqs[1], .key_count = 1};
    struct kvb_hit hit;
    size_t count = 0;
    kv_ok(kvb_match(rig.kv, &query, &hit, 1, &count));
    assert_int_equal(count, 1);
    assert_int_equal(mv_take(&rig, &run, op), 0);
    assert_non_null(run.blocks[0]);
    assert_null(run.blocks[1]);
    kv_unref(&rig, hit.block);
    mv_drop_taken(&rig, &run);
    kv_rig_close(&rig);
}

static void test_joined_block_past_the_good_prefix_gives_the_own_target_back_empty(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_copies copies;
    struct mv_run run, above;
    struct kvb_block *targets[2], *taken[2];
    uint32_t good = 9;
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_open(&rig, &copies);
    mv_store(&rig, &run, KVB_TIER_HOST, 1, 2);
    mv_store(&rig, &above, KVB_TIER_DEVICE, 1, 2);
    kv_unref(&rig, above.blocks[0]);
    struct kvb_block *spare = kv_alloc(&rig, KVB_TIER_DEVICE);
    kv_unref(&rig, spare);
    struct kvb_block *only[3];
    alloc_many(&rig, KVB_TIER_DEVICE, 3, only); /* evicts the first block's copy above */
    targets[0] = only[0];
    targets[1] = only[1];
    struct kvb_onboard request = mv_request(run.blocks, targets, 2, NULL);
    struct kvb_op *op = NULL;
    kv_ok(kvb_onboard(rig.kv, &request, &op));
    mv_fail(&copies, 1, false);
    mv_step(&rig);
    kv_ok(kvb_op_take(rig.kv, op, taken, 2, &good));
    kv_check(&rig);
    assert_int_equal(good, 0);
    assert_ptr_equal(taken[0], targets[0]);
    assert_ptr_equal(taken[1], targets[1]);
    assert_int_equal(kv_describe(&rig, taken[1]).state, KVB_STATE_EMPTY);
    assert_true(mv_bytes_are(&rig, above.blocks[1], &above.seqs[1]));
    kv_ok(kvb_op_release(rig.kv, op));
    kv_ok(kvb_block_unref(rig.kv, taken, 2, NULL));
    kv_unref(&rig, only[2]);
    kv_unref(&rig, above.blocks[1]);
    mv_drop(&rig, &run);
    kv_rig_close(&rig);
}

static void test_failure_waits_for_what_is_being_written_and_loses_no_block(void **state)
{
    (void)state;
    struct kvb_fence fence = {.kind = KVB_FENCE_COUNTER, .handle = 1};
    struct kv_rig rig;
    struct mv_copies copies;
    struct mv_run run;
    struct mv_done done;
    struct kvb_block *targets[2];
    struct kvb_op *op = NULL;
    mv_two_tiers(&rig, 2, 4, KVB_OFFLOAD_MANUAL);
    mv_open(&rig, &copies);
    mv_store(&rig, &run, KVB_TIER_HOST, 1, 2);
    targets[0] = kv_alloc(&rig, KVB_TIER_DEVICE);
    kv_ok(kvb_alloc(rig.kv, KVB_TIER_DEVICE, 1, &fence, &targets[1], NULL));
    struct kvb_onboard request = mv_request(run.blocks, targets, 2, &done);
    kv_ok(kvb_onboard(rig.kv, &request, &op));
    mv_drop(&rig, &run);
    mv_fail(&copies, 1, false);
    mv_step(&rig);
    assert_int_equal(done.calls, 0);
    mv_signal(&rig, 1);
    mv_step(&rig);
    expect_done(&done, 0, 0);
    assert_int_equal(mv_take(&rig, &run, op), 0);
    assert_non_null(run.blocks[0]);
    assert_non_null(run.blocks[1]);
    mv_drop_taken(&rig, &run);
    kv_rig_close(&rig);
}

static void test_content_invalidated_while_queued_is_a_miss(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    struct mv_done done;
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    mv_park(&rig, &run, KVB_TIER_HOST, 1, 2);
    struct kvb_op *op = mv_bring_up(&rig, &run, KVB_TIER_DEVICE, &done);
    kv_ok(kvb_invalidate(rig.kv, &run.seqs[1], 1, NULL));
    kv_check(&rig);
    mv_step(&rig);
    expect_done(&done, 0, 1);
    assert_int_equal(up(&rig).discarded, 1);
    assert_int_equal(mv_take(&rig, &run, op), 1);
    assert_int_equal(mv_found(&rig, &run), 1);
    mv_drop_taken(&rig, &run);
    assert_int_equal(kv_stats(&rig).tiers[KVB_TIER_HOST].free_count, 3);
    kv_rig_close(&rig);
}

static void expect_miss_when_forgotten_in_transfer(bool clear)
{
    struct pair pair;
    start_pair(&pair, 1, true);
    if (clear)
        kv_ok(kvb_manager_clear(pair.rig.kv));
    else
        kv_ok(kvb_invalidate(pair.rig.kv, pair.first.seqs, 1, NULL));
    kv_check(&pair.rig);
    mv_signal(&pair.rig, 1);
    mv_step(&pair.rig);
    expect_done(&pair.dones[0], 0, 0);
    expect_done(&pair.dones[1], 0, 0);
    assert_int_equal(up(&pair.rig).failed_invalidated, 1);
    assert_int_equal(mv_found(&pair.rig, &pair.first), 0);
    end_pair(&pair);
}

static void test_content_invalidated_while_moving_is_a_miss(void **state)
{
    (void)state;
    expect_miss_when_forgotten_in_transfer(false);
}

static void test_content_cleared_while_moving_is_a_miss(void **state)
{
    (void)state;
    expect_miss_when_forgotten_in_transfer(true);
}

static void test_source_that_is_no_longer_indexed_is_a_miss(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    struct mv_done done;
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    mv_store(&rig, &run, KVB_TIER_HOST, 1, 1);
    kv_ok(kvb_invalidate(rig.kv, run.seqs, 1, NULL));
    struct kvb_block *target = kv_alloc(&rig, KVB_TIER_DEVICE);
    struct kvb_onboard request = mv_request(run.blocks, &target, 1, &done);
    struct kvb_op *op = NULL;
    kv_ok(kvb_onboard(rig.kv, &request, &op));
    mv_step(&rig);
    expect_done(&done, 0, 0);
    mv_drop(&rig, &run);
    assert_int_equal(mv_take(&rig, &run, op), 0);
    assert_ptr_equal(run.blocks[0], target);
    mv_drop_taken(&rig, &run);
    kv_rig_close(&rig);
}

/* ---- Cancel and deadline ------------------------------------------------------------------------------------------ */

static void test_cancel_before_any_poll_ends_with_nothing_copied(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_copies copies;
    struct mv_run run;
    struct mv_done done;
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_open(&rig, &copies);
    mv_park(&rig, &run, KVB_TIER_HOST, 1, 3);
    struct kvb_op *op = mv_bring_up(&rig, &run, KVB_TIER_DEVICE, &done);
    kv_ok(kvb_op_cancel(rig.kv, op));
    kv_check(&rig);
    assert_int_equal(done.calls, 0);
    mv_step(&rig);
    expect_done(&done, KVB_ECANCELED, 0);
    assert_int_equal(copies.count, 0);
    assert_int_equal(up(&rig).cancelled, 3);
    kv_expect(kvb_op_wait(rig.kv, op, 0), KVB_ECANCELED);
    assert_int_equal(mv_take(&rig, &run, op), 0);
    for (uint32_t i = 0; i < 3; i++)
        assert_non_null(run.blocks[i]);
    mv_drop_taken(&rig, &run);
    mv_expect_in(&rig, &run, KVB_TIER_HOST);
    kv_rig_close(&rig);
}

/* One operation of two blocks whose transfer waits for fence value 1, and counts as begun. */
static struct kvb_op *start_moving(struct kv_rig *rig, struct mv_run *run, uint32_t device_blocks,
                                   uint64_t timeout_ns, struct mv_done *done)
{
    static const struct kvbi_hooks keeps = {.keeps = true};
    struct kvb_fence fence = {.kind = KVB_FENCE_COUNTER, .handle = 1};
    struct kvb_block *targets[2];
    struct kvb_op *op = NULL;
    mv_two_tiers(rig, device_blocks, 4, KVB_OFFLOAD_MANUAL);
    kv_rig_open_hooked(rig, &keeps);
    mv_store(rig, run, KVB_TIER_HOST, 1, 2);
    alloc_many(rig, KVB_TIER_DEVICE, 2, targets);
    struct kvb_onboard request = mv_request(run->blocks, targets, 2, done);
    request.fence = &fence;
    request.timeout_ns = timeout_ns;
    kv_ok(kvb_onboard(rig->kv, &request, &op));
    mv_drop(rig, run);
    mv_step(rig);
    assert_int_equal(up(rig).inflight, 2);
    return op;
}

static void test_cancel_in_transfer_gives_other_blocks_and_quarantines_the_targets(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    struct mv_done done;
    struct kvb_op *op = start_moving(&rig, &run, 4, 0, &done);
    kv_ok(kvb_op_cancel(rig.kv, op));
    mv_step(&rig);
    expect_done(&done, KVB_ECANCELED, 0);
    assert_int_equal(kv_stats(&rig).tiers[KVB_TIER_DEVICE].transfer_count, 2);
    assert_int_equal(mv_take(&rig, &run, op), 0);
    assert_non_null(run.blocks[0]);
    assert_non_null(run.blocks[1]);
    mv_drop_taken(&rig, &run);
    mv_signal(&rig, 1);
    mv_step(&rig);
    assert_int_equal(kv_stats(&rig).tiers[KVB_TIER_DEVICE].transfer_count, 0);
    mv_expect_in(&rig, &run, KVB_TIER_DEVICE); /* what could not be stopped arrived, parked */
    kv_rig_close(&rig);
}

static void test_cancel_in_transfer_gives_no_blocks_where_none_is_free(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    struct mv_done done;
    struct kvb_block *block = NULL;
    struct kvb_op *op = start_moving(&rig, &run, 2, 0, &done);
    kv_ok(kvb_op_cancel(rig.kv, op));
    mv_step(&rig);
    expect_done(&done, KVB_ECANCELED, 0);
    assert_int_equal(mv_take(&rig, &run, op), 0);
    assert_null(run.blocks[0]);
    assert_null(run.blocks[1]);
    kv_expect(kvb_alloc(rig.kv, KVB_TIER_DEVICE, 1, NULL, &block, NULL), KVB_EAGAIN);
    mv_signal(&rig, 1);
    mv_step(&rig);
    mv_expect_in(&rig, &run, KVB_TIER_DEVICE);
    kv_rig_close(&rig);
}

static void test_cancel_after_completion_changes_nothing(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    struct mv_done done;
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    mv_park(&rig, &run, KVB_TIER_HOST, 1, 2);
    struct kvb_op *op = mv_bring_up(&rig, &run, KVB_TIER_DEVICE, &done);
    mv_step(&rig);
    kv_ok(kvb_op_cancel(rig.kv, op));
    mv_step(&rig);
    expect_done(&done, 0, 2);
    kv_ok(kvb_op_wait(rig.kv, op, 0));
    assert_int_equal(mv_take(&rig, &run, op), 2);
    mv_drop(&rig, &run);
    kv_rig_close(&rig);
}

static void test_what_has_arrived_before_a_cancel_counts(void **state)
{
    (void)state;
    struct kvb_fence fence = {.kind = KVB_FENCE_COUNTER, .handle = 1};
    struct kv_rig rig;
    struct mv_run run;
    struct mv_done done;
    struct kvb_block *targets[3];
    struct kvb_op *op = NULL;
    mv_two_tiers(&rig, 8, 4, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    mv_store(&rig, &run, KVB_TIER_HOST, 1, 3);
    alloc_many(&rig, KVB_TIER_DEVICE, 2, targets);
    kv_ok(kvb_alloc(rig.kv, KVB_TIER_DEVICE, 1, &fence, &targets[2],
                    NULL)); /* only the last one is not free yet */
    struct kvb_onboard request = mv_request(run.blocks, targets, 3, &done);
    kv_ok(kvb_onboard(rig.kv, &request, &op));
    mv_drop(&rig, &run);
    mv_step(&rig);
    assert_int_equal(done.calls, 0);
    kv_ok(kvb_op_cancel(rig.kv, op));
    mv_step(&rig);
    expect_done(&done, KVB_ECANCELED, 2);
    assert_int_equal(mv_take(&rig, &run, op), 2);
    mv_drop_taken(&rig, &run);
    mv_signal(&rig, 1);
    mv_step(&rig);
    kv_rig_close(&rig);
}

static void test_deadline_ends_the_operation_and_quarantines_its_memory(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    struct mv_done done;
    struct kvb_op *op = start_moving(&rig, &run, 2, 3 * KV_MS, &done);
    kv_advance(&rig, 3 * KV_MS - 1);
    mv_step(&rig);
    assert_int_equal(done.calls, 0);
    kv_advance(&rig, 1);
    mv_step(&rig);
    expect_done(&done, KVB_ETIMEDOUT, 0);
    assert_int_equal(kv_stats(&rig).ops_timed_out, 1);
    assert_int_equal(mv_take(&rig, &run, op), 0);
    assert_null(run.blocks[0]);
    assert_int_equal(kv_stats(&rig).tiers[KVB_TIER_DEVICE].transfer_count, 2);
    mv_signal(&rig, 1);
    mv_step(&rig);
    mv_expect_in(&rig, &run, KVB_TIER_DEVICE);
    kv_rig_close(&rig);
}

static void test_deadline_that_is_not_reached_does_nothing(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    struct mv_done done;
    struct kvb_op *op = start_moving(&rig, &run, 2, 3 * KV_MS, &done);
    mv_signal(&rig, 1);
    mv_step(&rig);
    kv_advance(&rig, KV_SECOND);
    mv_step(&rig);
    expect_done(&done, 0, 2);
    assert_int_equal(mv_take(&rig, &run, op), 2);
    mv_drop(&rig, &run);
    kv_rig_close(&rig);
}

static void test_deadline_at_the_end_of_time_is_none(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    struct mv_done done;
    uint64_t timeout_ns = 0;
    struct kvb_op *op = start_moving(&rig, &run, 2, KVB_FOREVER, &done);
    kv_ok(kvb_manager_next_timeout(rig.kv, &timeout_ns));
    assert_true(timeout_ns == KVB_FOREVER);
    mv_signal(&rig, 1);
    mv_step(&rig);
    kv_ok(kvb_op_release(rig.kv, op));
    kv_rig_close(&rig);
}

static void test_orphaned_transfer_that_fails_frees_its_memory(void **state)
{
    (void)state;
    struct pair pair;
    start_pair(&pair, 2, true);
    kv_ok(kvb_op_cancel(pair.rig.kv, pair.ops[1]));
    kv_ok(kvb_op_cancel(pair.rig.kv, pair.ops[0]));
    mv_step(&pair.rig);
    assert_int_equal(kv_stats(&pair.rig).tiers[KVB_TIER_DEVICE].transfer_count, 2);
    mv_fail(&pair.copies, 1, true);
    mv_signal(&pair.rig, 1);
    mv_step(&pair.rig);
    assert_int_equal(kv_stats(&pair.rig).tiers[KVB_TIER_DEVICE].transfer_count, 0);
    assert_int_equal(mv_in_tier(&pair.rig, &pair.first, KVB_TIER_HOST), 2);
    end_pair(&pair);
}

static void test_orphaned_transfer_is_joined_by_a_later_operation(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    struct mv_done first, second;
    struct kvb_op *op = start_moving(&rig, &run, 6, 0, &first);
    kv_ok(kvb_op_release(rig.kv, op)); /* cancelled */
    mv_step(&rig);
    expect_done(&first, KVB_ECANCELED, 0);
    op = mv_bring_up(&rig, &run, KVB_TIER_DEVICE, &second);
    mv_step(&rig);
    assert_int_equal(up(&rig).offered, 2);
    assert_int_equal(second.calls, 0);
    mv_signal(&rig, 1);
    mv_step(&rig);
    expect_done(&second, 0, 2);
    assert_int_equal(mv_take(&rig, &run, op), 2);
    mv_drop(&rig, &run);
    kv_rig_close(&rig);
}

/* ---- Two hops ----------------------------------------------------------------------------------------------------- */

static void test_two_hops_leave_a_copy_in_the_middle(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_copies copies;
    struct mv_run run;
    struct mv_done done;
    mv_three_tiers(&rig, 4, 4, 4);
    mv_open(&rig, &copies);
    mv_park(&rig, &run, KVB_TIER_DISK, 1, 3);
    struct kvb_op *op = mv_bring_up(&rig, &run, KVB_TIER_DEVICE, &done);
    mv_step(&rig);
    expect_done(&done, 0, 3);
    assert_int_equal(copies.count, 6);
    assert_int_equal(mv_take(&rig, &run, op), 3);
    mv_drop(&rig, &run);
    mv_evict_all(&rig, KVB_TIER_DEVICE);
    mv_expect_in(&rig, &run, KVB_TIER_HOST);
    mv_evict_all(&rig, KVB_TIER_HOST);
    mv_expect_in(&rig, &run, KVB_TIER_DISK);
    mv_expect_books(&rig, true);
    kv_rig_close(&rig);
}

static void test_two_hops_use_the_copy_that_came_to_the_middle_meanwhile(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_copies copies;
    struct mv_run disk, host;
    struct mv_done done;
    mv_three_tiers(&rig, 4, 4, 4);
    mv_open(&rig, &copies);
    mv_park(&rig, &disk, KVB_TIER_DISK, 1, 1);
    struct kvb_op *op = mv_bring_up(&rig, &disk, KVB_TIER_DEVICE, &done);
    mv_store(&rig, &host, KVB_TIER_HOST, 1, 1);
    mv_step(&rig);
    expect_done(&done, 0, 1);
    assert_int_equal(copies.count, 1);
    assert_int_equal(mv_take(&rig, &disk, op), 1);
    mv_drop(&rig, &disk);
    mv_drop(&rig, &host);
    kv_rig_close(&rig);
}

static void test_failure_of_either_hop_is_a_miss(void **state)
{
    (void)state;
    for (uint32_t hop = 1; hop <= 2; hop++) {
        struct kv_rig rig;
        struct mv_copies copies;
        struct mv_run run;
        struct mv_done done;
        mv_three_tiers(&rig, 4, 4, 4);
        mv_open(&rig, &copies);
        mv_park(&rig, &run, KVB_TIER_DISK, 1, 1);
        struct kvb_op *op = mv_bring_up(&rig, &run, KVB_TIER_DEVICE, &done);
        mv_fail(&copies, hop, false);
        mv_step(&rig);
        expect_done(&done, 0, 0);
        assert_int_equal(mv_take(&rig, &run, op), 0);
        mv_drop_taken(&rig, &run);
        mv_expect_in(&rig, &run, hop == 1 ? KVB_TIER_DISK : KVB_TIER_HOST);
        kv_rig_close(&rig);
    }
}

/* A prefetch from DISK to HOST that waits for fence value 1, and an operation to DEVICE for the same content. */
struct middle {
    struct kv_rig rig;
    struct mv_copies copies;
    struct mv_run run;
    struct kvb_op *prefetch, *op;
    struct mv_done prefetched, done;
};

static void start_middle(struct middle *middle, bool prefetch_first)
{
    struct kvb_fence fence = {.kind = KVB_FENCE_COUNTER, .handle = 1};
    mv_three_tiers(&middle->rig, 4, 4, 4);
    mv_open(&middle->rig, &middle->copies);
    mv_store_after(&middle->rig, &middle->run, KVB_TIER_DISK, 1, 2, prefetch_first ? 0 : 1);
    for (uint32_t i = 0; i < 2; i++) {
        bool prefetch = prefetch_first == (i == 0);
        struct kvb_block *targets[2];
        alloc_many(&middle->rig, prefetch ? KVB_TIER_HOST : KVB_TIER_DEVICE, 2, targets);
        struct kvb_onboard request = mv_request(middle->run.blocks, targets, 2,
                                                prefetch ? &middle->prefetched : &middle->done);
        request.fence = prefetch ? &fence : NULL;
        kv_ok(kvb_onboard(middle->rig.kv, &request, prefetch ? &middle->prefetch : &middle->op));
        mv_step(&middle->rig);
    }
    mv_drop(&middle->rig, &middle->run);
}

static void end_middle(struct middle *middle)
{
    kv_ok(kvb_op_release(middle->rig.kv, middle->prefetch));
    kv_ok(kvb_op_release(middle->rig.kv, middle->op));
    mv_step(&middle->rig);
    mv_expect_books(&middle->rig, true);
    kv_rig_close(&middle->rig);
}

static void test_two_hops_join_a_prefetch_in_the_middle(void **state)
{
    (void)state;
    for (int prefetch_first = 0; prefetch_first < 2; prefetch_first++) {
        struct middle middle;
        start_middle(&middle, prefetch_first == 1);
        assert_int_equal(middle.prefetched.calls + middle.done.calls, 0);
        mv_signal(&middle.rig, 1);
        mv_step(&middle.rig);
        expect_done(&middle.prefetched, 0, 2);
        expect_done(&middle.done, 0, 2);
        assert_int_equal(middle.copies.count,
                         4); /* one DISK -> HOST each, one HOST -> DEVICE each */
        mv_expect_in(&middle.rig, &middle.run, KVB_TIER_DEVICE);
        end_middle(&middle);
    }
}

static void test_two_hops_go_on_when_the_prefetch_they_joined_is_cancelled(void **state)
{
    (void)state;
    struct middle middle;
    start_middle(&middle, true);
    kv_ok(kvb_op_cancel(middle.rig.kv, middle.prefetch));
    mv_step(&middle.rig);
    expect_done(&middle.prefetched, KVB_ECANCELED, 0);
    mv_signal(&middle.rig, 1);
    mv_step(&middle.rig);
    expect_done(&middle.done, 0, 2);
    mv_expect_in(&middle.rig, &middle.run, KVB_TIER_DEVICE);
    end_middle(&middle);
}

static void test_prefetch_goes_on_when_the_two_hops_it_joined_are_cancelled(void **state)
{
    (void)state;
    struct middle middle;
    start_middle(&middle, false);
    kv_ok(kvb_op_cancel(middle.rig.kv, middle.op));
    mv_step(&middle.rig);
    expect_done(&middle.done, KVB_ECANCELED, 0);
    mv_signal(&middle.rig, 1);
    mv_step(&middle.rig);
    expect_done(&middle.prefetched, 0, 2);
    assert_int_equal(mv_in_tier(&middle.rig, &middle.run, KVB_TIER_HOST), 2);
    end_middle(&middle);
}

/* As mv_bring_up, with a priority. */
static struct kvb_op *bring_up_with(struct kv_rig *rig, struct mv_run *run, uint32_t tier,
                                    uint32_t priority, struct mv_done *done)
{
    struct kvb_block *targets[MV_RUN_MAX];
    struct kvb_op *op = NULL;
    kv_ok(kvb_alloc(rig->kv, tier, run->count, NULL, targets, NULL));
    struct kvb_onboard request = mv_request(run->blocks, targets, run->count, done);
    request.flags = KVB_ONBOARD_PRIORITY;
    request.priority = priority;
    kv_ok(kvb_onboard(rig->kv, &request, &op));
    kv_check(rig);
    return op;
}

static void test_queued_prefetch_that_is_cancelled_still_serves_the_hop_that_waits_for_it(
    void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run other, run;
    struct mv_done prefetched, done;
    mv_three_tiers(&rig, 4, 4, 4);
    mv_bounds(&rig, 1, 1, 1, 1, 4); /* one at a time into HOST */
    kv_rig_open(&rig);
    mv_store_after(&rig, &other, KVB_TIER_DISK, 9, 1, 1);
    mv_store_after(&rig, &run, KVB_TIER_DISK, 1, 1, 1);
    struct kvb_op *prefetch = bring_up_with(&rig, &run, KVB_TIER_HOST, 10, &prefetched);
    struct kvb_op *op = bring_up_with(&rig, &run, KVB_TIER_DEVICE, 90, &done);
    struct kvb_op *between = bring_up_with(&rig, &other, KVB_TIER_HOST, 90, NULL);
    mv_step(&rig); /* the hop waits for the prefetch, which waits for its source's fence */
    kv_ok(kvb_op_cancel(rig.kv, prefetch));
    mv_step(&rig);
    expect_done(&prefetched, KVB_ECANCELED, 0);
    assert_int_equal(done.calls, 0);
    mv_signal(&rig, 1);
    mv_step(&rig);
    expect_done(&done, 0, 1);
    mv_drop(&rig, &run);
    assert_int_equal(mv_take(&rig, &run, op), 1);
    mv_drop(&rig, &run);
    mv_drop(&rig, &other);
    kv_ok(kvb_op_release(rig.kv, prefetch));
    kv_ok(kvb_op_release(rig.kv, between));
    mv_step(&rig);
    mv_expect_books(&rig, true);
    kv_rig_close(&rig);
}

static void test_hop_without_room_in_the_middle_is_a_miss(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    struct mv_done done;
    struct kvb_block *held[2];
    mv_three_tiers(&rig, 4, 2, 4);
    kv_rig_open(&rig);
    mv_park(&rig, &run, KVB_TIER_DISK, 1, 1);
    alloc_many(&rig, KVB_TIER_HOST, 2, held);
    struct kvb_op *op = mv_bring_up(&rig, &run, KVB_TIER_DEVICE, &done);
    mv_step(&rig);
    expect_done(&done, 0, 0);
    assert_int_equal(mv_lane(&rig, KVB_TIER_DISK, KVB_TIER_HOST).skipped_no_target, 1);
    assert_int_equal(mv_take(&rig, &run, op), 0);
    mv_drop_taken(&rig, &run);
    kv_ok(kvb_block_unref(rig.kv, held, 2, NULL));
    kv_rig_close(&rig);
}

static void test_hop_waits_while_a_transfer_writes_the_room_in_the_middle(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run, down;
    struct mv_done done;
    mv_three_tiers(&rig, 4, 1, 4);
    kv_rig_open(&rig);
    mv_store_after(&rig, &down, KVB_TIER_DEVICE, 2, 1, 1);
    mv_offer(&rig, down.blocks[0], 50);
    mv_step(&rig); /* HOST's only block is being written */
    mv_park(&rig, &run, KVB_TIER_DISK, 1, 1);
    struct kvb_op *op = mv_bring_up(&rig, &run, KVB_TIER_DEVICE, &done);
    mv_step(&rig);
    assert_int_equal(done.calls, 0);
    mv_signal(&rig, 1);
    mv_step(&rig);
    expect_done(&done, 0, 1);
    assert_int_equal(mv_take(&rig, &run, op), 1);
    mv_drop(&rig, &run);
    mv_drop(&rig, &down);
    kv_rig_close(&rig);
}

static void test_hop_waits_while_a_transfer_reads_the_room_in_the_middle(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run, host;
    struct mv_done done;
    mv_three_tiers(&rig, 4, 1, 4);
    kv_rig_open(&rig);
    mv_store_after(&rig, &host, KVB_TIER_HOST, 2, 1, 1);
    mv_offer(&rig, host.blocks[0], 50);
    mv_drop(&rig, &host);
    mv_step(&rig); /* HOST's only block is being read */
    mv_park(&rig, &run, KVB_TIER_DISK, 1, 1);
    struct kvb_op *op = mv_bring_up(&rig, &run, KVB_TIER_DEVICE, &done);
    mv_step(&rig);
    assert_int_equal(done.calls, 0);
    mv_signal(&rig, 1);
    mv_step(&rig);
    expect_done(&done, 0, 1);
    assert_int_equal(mv_take(&rig, &run, op), 1);
    mv_drop(&rig, &run);
    kv_rig_close(&rig);
}

static void test_operation_waiting_for_room_in_the_middle_can_be_cancelled(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run, down;
    struct mv_done done;
    mv_three_tiers(&rig, 4, 1, 4);
    kv_rig_open(&rig);
    mv_store_after(&rig, &down, KVB_TIER_DEVICE, 2, 1, 1);
    mv_offer(&rig, down.blocks[0], 50);
    mv_step(&rig);
    mv_park(&rig, &run, KVB_TIER_DISK, 1, 1);
    struct kvb_op *op = mv_bring_up(&rig, &run, KVB_TIER_DEVICE, &done);
    mv_step(&rig);
    kv_ok(kvb_op_cancel(rig.kv, op));
    mv_step(&rig);
    expect_done(&done, KVB_ECANCELED, 0);
    kv_ok(kvb_op_release(rig.kv, op));
    mv_signal(&rig, 1);
    mv_step(&rig);
    mv_drop(&rig, &down);
    kv_rig_close(&rig);
}

/* ---- `done`, take, release ---------------------------------------------------------------------------------------- */

static void test_release_before_done_still_delivers_it_once(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    struct mv_done done;
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    mv_park(&rig, &run, KVB_TIER_HOST, 1, 2);
    struct kvb_op *op = mv_bring_up(&rig, &run, KVB_TIER_DEVICE, &done);
    kv_ok(kvb_op_release(rig.kv, op));
    kv_check(&rig);
    assert_int_equal(done.calls, 0);
    mv_step(&rig);
    mv_step(&rig);
    expect_done(&done, KVB_ECANCELED, 0);
    assert_int_equal(kv_stats(&rig).tiers[KVB_TIER_DEVICE].free_count, 4);
    kv_expect(kvb_op_release(rig.kv, op), KVB_EINVAL);
    kv_rig_close(&rig);
}

static void test_release_without_take_parks_what_arrived(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    struct mv_done done;
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    mv_park(&rig, &run, KVB_TIER_HOST, 1, 2);
    struct kvb_op *op = mv_bring_up(&rig, &run, KVB_TIER_DEVICE, &done);
    mv_step(&rig);
    kv_ok(kvb_op_release(rig.kv, op));
    kv_check(&rig);
    mv_step(&rig);
    expect_done(&done, 0, 2);
    assert_int_equal(kv_stats(&rig).tiers[KVB_TIER_DEVICE].held_count, 0);
    mv_expect_in(&rig, &run, KVB_TIER_DEVICE);
    kv_rig_close(&rig);
}

static void test_take_before_the_end_is_again_and_twice_is_a_state_error(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    struct kvb_block *blocks[3];
    uint32_t good = 9;
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    mv_park(&rig, &run, KVB_TIER_HOST, 1, 2);
    struct kvb_op *op = mv_bring_up(&rig, &run, KVB_TIER_DEVICE, NULL);
    kv_expect(kvb_op_take(rig.kv, op, blocks, 2, &good), KVB_EAGAIN);
    assert_int_equal(good, 0);
    mv_step(&rig);
    kv_expect(kvb_op_take(rig.kv, op, blocks, 1, &good), KVB_EINVAL);
    kv_expect(kvb_op_take(rig.kv, op, blocks, 3, &good), KVB_EINVAL);
    kv_expect(kvb_op_take(rig.kv, op, NULL, 2, &good), KVB_EINVAL);
    kv_ok(kvb_op_take(rig.kv, op, blocks, 2, &good));
    assert_int_equal(good, 2);
    kv_expect(kvb_op_take(rig.kv, op, run.blocks, 2, &good), KVB_ESTATE);
    kv_check(&rig);
    kv_ok(kvb_op_release(rig.kv, op));
    kv_ok(kvb_block_unref(rig.kv, blocks, 2, NULL));
    kv_rig_close(&rig);
}

struct taker {
    struct kv_rig *rig;
    struct kvb_block *blocks[2];
    uint32_t good_count, calls;
    int take, release, wait, poll;
};

static void take_and_release(void *arg, struct kvb_op *op, int status, uint32_t good_count)
{
    struct taker *taker = arg;
    (void)status;
    (void)good_count;
    taker->calls++;
    taker->take = kvb_op_take(taker->rig->kv, op, taker->blocks, 2, &taker->good_count);
    taker->wait = kvb_op_wait(taker->rig->kv, op, 0);
    taker->poll = kvb_manager_poll(taker->rig->kv, 0);
    taker->release = kvb_op_release(taker->rig->kv, op);
}

static void test_take_and_release_from_within_done_work(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    struct kvb_block *targets[2];
    struct taker taker = {.rig = &rig};
    struct kvb_op *op = NULL;
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    mv_store(&rig, &run, KVB_TIER_HOST, 1, 2);
    alloc_many(&rig, KVB_TIER_DEVICE, 2, targets);
    struct kvb_onboard request = mv_request(run.blocks, targets, 2, NULL);
    request.done = take_and_release;
    request.arg = &taker;
    kv_ok(kvb_onboard(rig.kv, &request, &op));
    mv_drop(&rig, &run);
    mv_step(&rig);
    assert_int_equal(taker.calls, 1);
    assert_int_equal(taker.take, 0);
    assert_int_equal(taker.release, 0);
    assert_int_equal(taker.wait, KVB_EDEADLK);
    assert_int_equal(taker.poll, KVB_EDEADLK);
    assert_int_equal(taker.good_count, 2);
    for (uint32_t i = 0; i < 2; i++)
        assert_true(mv_bytes_are(&rig, taker.blocks[i], &run.seqs[i]));
    kv_ok(kvb_block_unref(rig.kv, taker.blocks, 2, NULL));
    kv_expect(kvb_op_cancel(rig.kv, op), KVB_EINVAL); /* released */
    kv_rig_close(&rig);
}

struct chain_start {
    struct kv_rig *rig;
    struct mv_run *next;
    struct kvb_block *target;
    struct kvb_op *op;
    struct mv_done done;
    int code;
};

static void start_another(void *arg, struct kvb_op *op, int status, uint32_t good_count)
{
    struct chain_start *start = arg;
    (void)status;
    (void)good_count;
    struct kvb_onboard request = mv_request(start->next->blocks, &start->target, 1, &start->done);
    start->code = kvb_onboard(start->rig->kv, &request, &start->op);
    (void)kvb_op_release(start->rig->kv, op);
}

static void test_done_may_start_another_operation(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run runs[2];
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    mv_store_each(&rig, runs, KVB_TIER_HOST, 1, 2);
    struct kvb_block *target = kv_alloc(&rig, KVB_TIER_DEVICE);
    struct chain_start start = {
        .rig = &rig, .next = &runs[1], .target = kv_alloc(&rig, KVB_TIER_DEVICE)};
    struct kvb_onboard request = mv_request(runs[0].blocks, &target, 1, NULL);
    struct kvb_op *op = NULL;
    request.done = start_another;
    request.arg = &start;
    kv_ok(kvb_onboard(rig.kv, &request, &op));
    mv_step(&rig);
    assert_int_equal(start.code, 0);
    expect_done(&start.done, 0, 1);
    kv_ok(kvb_op_release(rig.kv, start.op));
    mv_drop(&rig, &runs[0]);
    mv_drop(&rig, &runs[1]);
    kv_rig_close(&rig);
}

static void test_wait_drives_progress_and_returns_the_status(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    struct mv_done done;
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    mv_park(&rig, &run, KVB_TIER_HOST, 1, 2);
    struct kvb_op *op = mv_bring_up(&rig, &run, KVB_TIER_DEVICE, &done);
    kv_ok(kvb_op_wait(rig.kv, op, KVB_FOREVER));
    expect_done(&done, 0, 2);
    assert_int_equal(mv_take(&rig, &run, op), 2);
    mv_drop(&rig, &run);
    kv_rig_close(&rig);
}

static void test_wait_that_runs_out_of_time_leaves_the_operation_running(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    struct mv_done done;
    struct kvb_block *blocks[2];
    uint32_t good;
    struct kvb_op *op = start_moving(&rig, &run, 4, 0, &done);
    kv_expect(kvb_op_wait(rig.kv, op, 0), KVB_ETIMEDOUT);
    kv_expect(kvb_op_take(rig.kv, op, blocks, 2, &good), KVB_EAGAIN);
    mv_signal(&rig, 1);
    kv_ok(kvb_op_wait(rig.kv, op, KVB_FOREVER));
    assert_int_equal(mv_take(&rig, &run, op), 2);
    mv_drop(&rig, &run);
    kv_rig_close(&rig);
}

/* ---- Fences ------------------------------------------------------------------------------------------------------- */

/* The server's own late write into the target's memory. True if the onboarded bytes survive it. */
static bool survives_late_write(bool with_alloc, bool with_onboard)
{
    struct kvb_fence fence = {.kind = KVB_FENCE_COUNTER, .handle = 1};
    struct kv_rig rig;
    struct mv_run run;
    struct kvb_block *target = NULL;
    struct kvb_op *op = NULL;
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    mv_store(&rig, &run, KVB_TIER_HOST, 1, 1);
    kv_ok(kvb_alloc(rig.kv, KVB_TIER_DEVICE, 1, with_alloc ? &fence : NULL, &target, NULL));
    struct kvb_onboard request = mv_request(run.blocks, &target, 1, NULL);
    request.fence = with_onboard ? &fence : NULL;
    kv_ok(kvb_onboard(rig.kv, &request, &op));
    mv_drop(&rig, &run);
    mv_step(&rig);
    kv_payload_fill(&rig, target,
                    UINT64_C(0xbad)); /* what used the memory before is over only now ... */
    mv_signal(&rig, 1);               /* ... and says so */
    mv_step(&rig);
    uint32_t good = 0;
    kv_ok(kvb_op_take(rig.kv, op, &run.blocks[0], 1, &good));
    assert_int_equal(good, 1);
    bool right = mv_bytes_are(&rig, run.blocks[0], &run.seqs[0]);
    kv_ok(kvb_op_release(rig.kv, op));
    mv_drop(&rig, &run);
    kv_rig_close(&rig);
    return right;
}

static void test_fence_of_alloc_keeps_a_transfer_out_of_memory_in_use(void **state)
{
    (void)state;
    assert_true(survives_late_write(true, false));
}

static void test_fence_of_onboard_keeps_a_transfer_out_of_memory_in_use(void **state)
{
    (void)state;
    assert_true(survives_late_write(false, true));
}

static void test_no_fence_lets_a_late_write_spoil_the_block(void **state)
{
    (void)state;
    assert_false(survives_late_write(false, false));
}

static void test_written_after_fence_of_the_source_is_waited_for(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    struct mv_done done;
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    mv_store_after(&rig, &run, KVB_TIER_HOST, 1, 1, 1);
    kv_payload_fill(&rig, run.blocks[0], UINT64_C(0xbad));
    struct kvb_block *target = kv_alloc(&rig, KVB_TIER_DEVICE);
    struct kvb_onboard request = mv_request(run.blocks, &target, 1, &done);
    struct kvb_op *op = NULL;
    kv_ok(kvb_onboard(rig.kv, &request, &op));
    mv_step(&rig);
    assert_int_equal(done.calls, 0);
    kv_payload_fill(&rig, run.blocks[0], run.seqs[0].hash);
    mv_signal(&rig, 1);
    mv_step(&rig);
    mv_drop(&rig, &run);
    assert_int_equal(mv_take(&rig, &run, op), 1);
    mv_drop(&rig, &run);
    kv_rig_close(&rig);
}

/* ---- Errors ------------------------------------------------------------------------------------------------------- */

static void test_op_capacity_reached_is_again_until_one_is_released(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    struct kvb_block *targets[3];
    struct kvb_op *ops[3] = {NULL, NULL, (struct kvb_op *)&rig};
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_MANUAL);
    rig.config.op_capacity = 2;
    kv_rig_open(&rig);
    mv_store(&rig, &run, KVB_TIER_HOST, 1, 3);
    alloc_many(&rig, KVB_TIER_DEVICE, 3, targets);
    for (uint32_t i = 0; i < 3; i++) {
        struct kvb_onboard request = mv_request(&run.blocks[i], &targets[i], 1, NULL);
        kv_expect(kvb_onboard(rig.kv, &request, &ops[i]), i < 2 ? KVB_OK : KVB_EAGAIN);
    }
    assert_null(ops[2]);
    mv_step(&rig);
    struct kvb_onboard request = mv_request(&run.blocks[2], &targets[2], 1, NULL);
    kv_expect(kvb_onboard(rig.kv, &request, &ops[2]), KVB_EAGAIN); /* finished, not released */
    kv_ok(kvb_op_release(rig.kv, ops[0]));
    kv_ok(kvb_onboard(rig.kv, &request, &ops[2]));
    mv_step(&rig);
    kv_ok(kvb_op_release(rig.kv, ops[1]));
    kv_ok(kvb_op_release(rig.kv, ops[2]));
    mv_drop(&rig, &run);
    kv_rig_close(&rig);
}

struct bad {
    struct kv_rig rig;
    struct mv_run host, device;
    struct kvb_block *targets[2], *sources[2];
    struct mv_done done;
    struct kvb_onboard request;
};

static void start_bad(struct bad *bad)
{
    mv_three_tiers(&bad->rig, 8, 4, 4);
    kv_rig_open(&bad->rig);
    mv_store(&bad->rig, &bad->host, KVB_TIER_HOST, 1, 2);
    mv_store(&bad->rig, &bad->device, KVB_TIER_DEVICE, 2, 1);
    alloc_many(&bad->rig, KVB_TIER_DEVICE, 2, bad->targets);
    memcpy(bad->sources, bad->host.blocks, sizeof bad->sources);
    bad->request = mv_request(bad->sources, bad->targets, 2, &bad->done);
}

/* The request is refused with `code`, nothing has changed, and without the mistake it works. */
static void end_bad(struct bad *bad, int code)
{
    struct kvb_op *op = (struct kvb_op *)bad;
    kv_expect(kvb_onboard(bad->rig.kv, &bad->request, &op), code);
    assert_null(op);
    kv_check(&bad->rig);
    mv_step(&bad->rig);
    assert_int_equal(bad->done.calls, 0);
    assert_int_equal(up(&bad->rig).offered, 0);
    assert_int_equal(kv_stats(&bad->rig).ops_started, 0);
    assert_int_equal(kv_describe(&bad->rig, bad->targets[0]).state, KVB_STATE_EMPTY);
    memcpy(bad->sources, bad->host.blocks, sizeof bad->sources);
    bad->request = mv_request(bad->sources, bad->targets, 2, &bad->done);
    kv_ok(kvb_onboard(bad->rig.kv, &bad->request, &op));
    mv_step(&bad->rig);
    expect_done(&bad->done, 0, 2);
    kv_ok(kvb_op_release(bad->rig.kv, op));
    mv_drop(&bad->rig, &bad->host);
    mv_drop(&bad->rig, &bad->device);
    kv_rig_close(&bad->rig);
}

static void test_onboard_of_nothing_is_invalid(void **state)
{
    (void)state;
    struct bad bad;
    start_bad(&bad);
    bad.request.count = 0;
    end_bad(&bad, KVB_EINVAL);
}

static void test_onboard_without_arrays_is_invalid(void **state)
{
    (void)state;
    struct bad bad;
    start_bad(&bad);
    bad.request.sources = NULL;
    end_bad(&bad, KVB_EINVAL);
    start_bad(&bad);
    bad.request.targets = NULL;
    end_bad(&bad, KVB_EINVAL);
}

static void test_onboard_with_an_unknown_flag_or_size_is_invalid(void **state)
{
    (void)state;
    struct bad bad;
    start_bad(&bad);
    bad.request.flags = 1u << 31;
    end_bad(&bad, KVB_EINVAL);
    start_bad(&bad);
    bad.request.size = 0;
    end_bad(&bad, KVB_EINVAL);
}

static void test_onboard_with_a_priority_above_the_highest_is_invalid(void **state)
{
    (void)state;
    struct bad bad;
    start_bad(&bad);
    bad.request.flags = KVB_ONBOARD_PRIORITY;
    bad.request.priority = 101;
    end_bad(&bad, KVB_EINVAL);
}

static void test_onboard_with_an_unknown_fence_is_invalid(void **state)
{
    (void)state;
    struct kvb_fence fence = {.kind = 7};
    struct bad bad;
    start_bad(&bad);
    bad.request.fence = &fence;
    end_bad(&bad, KVB_EINVAL);
}

static void test_onboard_with_a_target_twice_is_invalid(void **state)
{
    (void)state;
    struct bad bad;
    start_bad(&bad);
    struct kvb_block *keep = bad.targets[1];
    struct kvb_block *twice[2] = {bad.targets[0], bad.targets[0]};
    bad.request.targets = twice;
    end_bad(&bad, KVB_EINVAL);
    (void)keep;
}

static void test_onboard_with_targets_of_two_tiers_is_invalid(void **state)
{
    (void)state;
    struct bad bad;
    start_bad(&bad);
    struct kvb_block *host = kv_alloc(&bad.rig, KVB_TIER_HOST);
    struct kvb_block *mixed[2] = {bad.targets[0], host};
    struct kvb_op *op = NULL;
    bad.request.targets = mixed;
    kv_expect(kvb_onboard(bad.rig.kv, &bad.request, &op), KVB_EINVAL);
    kv_unref(&bad.rig, host);
    end_bad(&bad, KVB_EINVAL); /* and now it is held by nobody */
}

static void test_onboard_from_the_targets_tier_or_above_is_invalid(void **state)
{
    (void)state;
    struct bad bad;
    start_bad(&bad);
    bad.sources[1] = bad.device.blocks[0];
    end_bad(&bad, KVB_EINVAL);
}

static void test_onboard_of_a_foreign_or_missing_block_is_invalid(void **state)
{
    (void)state;
    struct bad bad;
    start_bad(&bad);
    bad.sources[1] = NULL;
    end_bad(&bad, KVB_EINVAL);
    start_bad(&bad);
    bad.sources[0] = (struct kvb_block *)&bad;
    end_bad(&bad, KVB_EINVAL);
}

static void test_onboard_of_an_unregistered_source_is_a_state_error(void **state)
{
    (void)state;
    struct bad bad;
    start_bad(&bad);
    struct kvb_block *empty = kv_alloc(&bad.rig, KVB_TIER_HOST);
    struct kvb_op *op = NULL;
    bad.sources[1] = empty;
    kv_expect(kvb_onboard(bad.rig.kv, &bad.request, &op), KVB_ESTATE);
    kv_unref(&bad.rig, empty);
    end_bad(&bad, KVB_EINVAL);
}

static void test_onboard_into_a_target_in_use_is_a_state_error(void **state)
{
    (void)state;
    struct bad bad;
    start_bad(&bad);
    kv_init(&bad.rig, bad.targets[1], 0, 0, NULL);
    struct kvb_op *op = NULL;
    kv_expect(kvb_onboard(bad.rig.kv, &bad.request, &op), KVB_ESTATE);
    assert_null(op);
    kv_ok(kvb_block_reset(bad.rig.kv, &bad.targets[1], 1, NULL));
    bad.request.count = 0;
    end_bad(&bad, KVB_EINVAL);
}

static void test_onboard_into_a_target_that_others_hold_is_shared(void **state)
{
    (void)state;
    struct bad bad;
    start_bad(&bad);
    kv_ok(kvb_block_ref(bad.rig.kv, &bad.targets[1], 1, NULL));
    struct kvb_op *op = NULL;
    kv_expect(kvb_onboard(bad.rig.kv, &bad.request, &op), KVB_ESHARED);
    assert_null(op);
    kv_unref(&bad.rig, bad.targets[1]);
    bad.request.count = 0;
    end_bad(&bad, KVB_EINVAL);
}

static void test_onboard_into_the_lowest_tier_is_invalid(void **state)
{
    (void)state;
    struct bad bad;
    start_bad(&bad);
    struct kvb_block *disk = kv_alloc(&bad.rig, KVB_TIER_DISK);
    struct kvb_onboard request = mv_request(bad.sources, &disk, 1, NULL);
    struct kvb_op *op = NULL;
    kv_expect(kvb_onboard(bad.rig.kv, &request, &op), KVB_EINVAL);
    kv_expect(kvb_onboard(bad.rig.kv, &request, NULL), KVB_EINVAL);
    kv_expect(kvb_onboard(bad.rig.kv, NULL, &op), KVB_EINVAL);
    kv_unref(&bad.rig, disk);
    bad.request.count = 0;
    end_bad(&bad, KVB_EINVAL);
}

static void test_calls_on_a_foreign_operation_are_invalid(void **state)
{
    (void)state;
    struct kv_rig rig;
    uint32_t good;
    struct kvb_block *block;
    struct kvb_op *foreign = (struct kvb_op *)&rig;
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    kv_expect(kvb_op_take(rig.kv, foreign, &block, 1, &good), KVB_EINVAL);
    kv_expect(kvb_op_wait(rig.kv, foreign, 0), KVB_EINVAL);
    kv_expect(kvb_op_cancel(rig.kv, foreign), KVB_EINVAL);
    kv_expect(kvb_op_release(rig.kv, foreign), KVB_EINVAL);
    kv_expect(kvb_op_cancel(rig.kv, NULL), KVB_EINVAL);
    kv_ok(kvb_op_release(rig.kv, NULL));
    kv_rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_onboard_of_one_block_brings_its_bytes),
        cmocka_unit_test(test_onboard_of_many_blocks_keeps_their_order),
        cmocka_unit_test(test_onboarded_block_keeps_its_lower_copy_and_is_not_written_down_again),
        cmocka_unit_test(test_prefetch_brings_blocks_to_the_middle_tier),
        cmocka_unit_test(test_priority_decides_between_operations),
        cmocka_unit_test(test_onboarding_goes_before_offloading),
        cmocka_unit_test(test_sources_may_be_dropped_and_their_tier_filled_at_once),
        cmocka_unit_test(test_same_content_twice_is_one_transfer_and_good_for_both),
        cmocka_unit_test(test_joined_block_replaces_the_target_which_goes_back),
        cmocka_unit_test(test_copy_that_is_there_already_is_joined_without_a_transfer),
        cmocka_unit_test(test_failed_transfer_fails_everybody_who_joined),
        cmocka_unit_test(test_cancel_of_a_queued_operation_hands_the_transfer_to_who_joined),
        cmocka_unit_test(test_cancel_of_a_moving_operation_hands_the_transfer_to_who_joined),
        cmocka_unit_test(test_cancel_of_who_joined_leaves_the_first_alone),
        cmocka_unit_test(test_two_targets_for_one_content_in_one_operation_are_both_good),
        cmocka_unit_test(test_onboard_of_what_an_offload_is_writing_there_joins_it),
        cmocka_unit_test(test_offer_of_what_an_onboarding_is_bringing_there_is_skipped),
        cmocka_unit_test(test_failure_of_one_block_ends_the_good_prefix_before_it),
        cmocka_unit_test(test_block_past_the_good_prefix_that_others_share_is_replaced),
        cmocka_unit_test(
            test_block_past_the_good_prefix_is_missing_when_shared_and_nothing_is_free),
        cmocka_unit_test(test_joined_block_past_the_good_prefix_gives_the_own_target_back_empty),
        cmocka_unit_test(test_failure_waits_for_what_is_being_written_and_loses_no_block),
        cmocka_unit_test(test_content_invalidated_while_queued_is_a_miss),
        cmocka_unit_test(test_content_invalidated_while_moving_is_a_miss),
        cmocka_unit_test(test_content_cleared_while_moving_is_a_miss),
        cmocka_unit_test(test_source_that_is_no_longer_indexed_is_a_miss),
        cmocka_unit_test(test_cancel_before_any_poll_ends_with_nothing_copied),
        cmocka_unit_test(test_cancel_in_transfer_gives_other_blocks_and_quarantines_the_targets),
        cmocka_unit_test(test_cancel_in_transfer_gives_no_blocks_where_none_is_free),
        cmocka_unit_test(test_cancel_after_completion_changes_nothing),
        cmocka_unit_test(test_what_has_arrived_before_a_cancel_counts),
        cmocka_unit_test(test_deadline_ends_the_operation_and_quarantines_its_memory),
        cmocka_unit_test(test_deadline_that_is_not_reached_does_nothing),
        cmocka_unit_test(test_deadline_at_the_end_of_time_is_none),
        cmocka_unit_test(test_orphaned_transfer_that_fails_frees_its_memory),
        cmocka_unit_test(test_orphaned_transfer_is_joined_by_a_later_operation),
        cmocka_unit_test(test_two_hops_leave_a_copy_in_the_middle),
        cmocka_unit_test(test_two_hops_use_the_copy_that_came_to_the_middle_meanwhile),
        cmocka_unit_test(test_failure_of_either_hop_is_a_miss),
        cmocka_unit_test(test_two_hops_join_a_prefetch_in_the_middle),
        cmocka_unit_test(test_two_hops_go_on_when_the_prefetch_they_joined_is_cancelled),
        cmocka_unit_test(test_prefetch_goes_on_when_the_two_hops_it_joined_are_cancelled),
        cmocka_unit_test(
            test_queued_prefetch_that_is_cancelled_still_serves_the_hop_that_waits_for_it),
        cmocka_unit_test(test_hop_without_room_in_the_middle_is_a_miss),
        cmocka_unit_test(test_hop_waits_while_a_transfer_writes_the_room_in_the_middle),
        cmocka_unit_test(test_hop_waits_while_a_transfer_reads_the_room_in_the_middle),
        cmocka_unit_test(test_operation_waiting_for_room_in_the_middle_can_be_cancelled),
        cmocka_unit_test(test_release_before_done_still_delivers_it_once),
        cmocka_unit_test(test_release_without_take_parks_what_arrived),
        cmocka_unit_test(test_take_before_the_end_is_again_and_twice_is_a_state_error),
        cmocka_unit_test(test_take_and_release_from_within_done_work),
        cmocka_unit_test(test_done_may_start_another_operation),
        cmocka_unit_test(test_wait_drives_progress_and_returns_the_status),
        cmocka_unit_test(test_wait_that_runs_out_of_time_leaves_the_operation_running),
        cmocka_unit_test(test_fence_of_alloc_keeps_a_transfer_out_of_memory_in_use),
        cmocka_unit_test(test_fence_of_onboard_keeps_a_transfer_out_of_memory_in_use),
        cmocka_unit_test(test_no_fence_lets_a_late_write_spoil_the_block),
        cmocka_unit_test(test_written_after_fence_of_the_source_is_waited_for),
        cmocka_unit_test(test_op_capacity_reached_is_again_until_one_is_released),
        cmocka_unit_test(test_onboard_of_nothing_is_invalid),
        cmocka_unit_test(test_onboard_without_arrays_is_invalid),
        cmocka_unit_test(test_onboard_with_an_unknown_flag_or_size_is_invalid),
        cmocka_unit_test(test_onboard_with_a_priority_above_the_highest_is_invalid),
        cmocka_unit_test(test_onboard_with_an_unknown_fence_is_invalid),
        cmocka_unit_test(test_onboard_with_a_target_twice_is_invalid),
        cmocka_unit_test(test_onboard_with_targets_of_two_tiers_is_invalid),
        cmocka_unit_test(test_onboard_from_the_targets_tier_or_above_is_invalid),
        cmocka_unit_test(test_onboard_of_a_foreign_or_missing_block_is_invalid),
        cmocka_unit_test(test_onboard_of_an_unregistered_source_is_a_state_error),
        cmocka_unit_test(test_onboard_into_a_target_in_use_is_a_state_error),
        cmocka_unit_test(test_onboard_into_a_target_that_others_hold_is_shared),
        cmocka_unit_test(test_onboard_into_the_lowest_tier_is_invalid),
        cmocka_unit_test(test_calls_on_a_foreign_operation_are_invalid),
    };
    return cmocka_run_group_tests_name("onboard", tests, NULL, NULL);
}
