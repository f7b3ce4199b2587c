/* SPDX-License-Identifier: Apache-2.0 */
/* Moving up through the tier in between. */
#include "support/kv_scene.h"
#include "support/move_test.h"

static void test_two_hops_leave_a_copy_in_the_middle(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done done;
    mv_three_tiers(rig, 4, 4, 4);
    mv_open_recorded(rig);
    mv_park(rig, &run, KVB_TIER_DISK, 1, 3);
    struct kvb_op *op = mv_bring_up(rig, &run, KVB_TIER_DEVICE, &done);
    mv_step(rig);
    mv_expect_done(&done, 0, 3);
    assert_int_equal(rig->copies.count, 6);
    mv_end(rig, &run, op, 3);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    mv_expect_in(rig, &run, KVB_TIER_HOST);
    mv_evict_all(rig, KVB_TIER_HOST);
    mv_expect_in(rig, &run, KVB_TIER_DISK);
    mv_expect_books(rig, true);
}

static void test_two_hops_use_the_copy_that_came_to_the_middle_meanwhile(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run disk, host;
    struct mv_done done;
    mv_three_tiers(rig, 4, 4, 4);
    mv_open_recorded(rig);
    mv_park(rig, &disk, KVB_TIER_DISK, 1, 1);
    struct kvb_op *op = mv_bring_up(rig, &disk, KVB_TIER_DEVICE, &done);
    mv_store(rig, &host, KVB_TIER_HOST, 1, 1);
    mv_step(rig);
    mv_expect_done(&done, 0, 1);
    assert_int_equal(rig->copies.count, 1);
    mv_end(rig, &disk, op, 1);
    mv_drop(rig, &host);
}

static void test_failure_of_either_hop_is_a_miss(void **state)
{
    struct kv_rig *rig = *state;
    for (uint32_t hop = 1; hop <= 2; hop++) {
        struct mv_run run;
        struct mv_done done;
        mv_three_tiers(rig, 4, 4, 4);
        mv_open_recorded(rig);
        mv_park(rig, &run, KVB_TIER_DISK, 1, 1);
        struct kvb_op *op = mv_bring_up(rig, &run, KVB_TIER_DEVICE, &done);
        mv_fail(&rig->copies, hop, false);
        mv_step(rig);
        mv_expect_done(&done, 0, 0);
        mv_end(rig, &run, op, 0);
        mv_expect_in(rig, &run, hop == 1 ? KVB_TIER_DISK : KVB_TIER_HOST);
        kv_rig_close(rig);
    }
}

/*
 * A prefetch from DISK to HOST that waits for fence value 1, and an operation to DEVICE for the
 * same content.
 */
struct middle {
    struct kv_rig rig;
    struct mv_run run;
    struct kvb_op *prefetch, *op;
    struct mv_done prefetched, done;
};

static int middle_setup(void **state)
{
    (void)kv_scene_begin(state, sizeof(struct middle));
    return 0;
}

#define middle_teardown kv_scene_end

static void start_middle(struct middle *middle, bool prefetch_first)
{
    struct kvb_fence fence = mv_fence(1);
    mv_three_tiers(&middle->rig, 4, 4, 4);
    mv_open_recorded(&middle->rig);
    mv_store_after(&middle->rig, &middle->run, KVB_TIER_DISK, 1, 2, prefetch_first ? 0 : 1);
    for (uint32_t i = 0; i < 2; i++) {
        bool prefetch = prefetch_first == (i == 0);
        struct kvb_block *targets[2];
        mv_alloc_many(&middle->rig, prefetch ? KVB_TIER_HOST : KVB_TIER_DEVICE, 2, targets);
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
    struct middle *middle = *state;
    for (int prefetch_first = 0; prefetch_first < 2; prefetch_first++) {
        start_middle(middle, prefetch_first == 1);
        assert_int_equal(middle->prefetched.calls + middle->done.calls, 0);
        mv_reach(&middle->rig, 1);
        mv_expect_done(&middle->prefetched, 0, 2);
        mv_expect_done(&middle->done, 0, 2);
        /* One DISK -> HOST each, one HOST -> DEVICE each. */
        assert_int_equal(middle->rig.copies.count, 4);
        mv_expect_in(&middle->rig, &middle->run, KVB_TIER_DEVICE);
        end_middle(middle);
    }
}

static void test_two_hops_go_on_when_the_prefetch_they_joined_is_cancelled(void **state)
{
    struct middle *middle = *state;
    start_middle(middle, true);
    kv_ok(kvb_op_cancel(middle->rig.kv, middle->prefetch));
    mv_step(&middle->rig);
    mv_expect_done(&middle->prefetched, KVB_ECANCELED, 0);
    mv_reach(&middle->rig, 1);
    mv_expect_done(&middle->done, 0, 2);
    mv_expect_in(&middle->rig, &middle->run, KVB_TIER_DEVICE);
    end_middle(middle);
}

static void test_prefetch_goes_on_when_the_two_hops_it_joined_are_cancelled(void **state)
{
    struct middle *middle = *state;
    start_middle(middle, false);
    kv_ok(kvb_op_cancel(middle->rig.kv, middle->op));
    mv_step(&middle->rig);
    mv_expect_done(&middle->done, KVB_ECANCELED, 0);
    mv_reach(&middle->rig, 1);
    mv_expect_done(&middle->prefetched, 0, 2);
    assert_int_equal(mv_in_tier(&middle->rig, &middle->run, KVB_TIER_HOST), 2);
    end_middle(middle);
}

/* As mv_bring_up, with a priority. */
static struct kvb_op *bring_up_with(struct kv_rig *rig, struct mv_run *run, uint32_t tier,
                                    uint32_t priority, struct mv_done *done)
{
    struct kvb_block *targets[MV_RUN_MAX];
    kv_ok(kvb_alloc(rig->kv, tier, run->count, NULL, targets, NULL));
    struct kvb_onboard request = mv_request(run->blocks, targets, run->count, done);
    request.flags = KVB_ONBOARD_PRIORITY;
    request.priority = priority;
    struct kvb_op *op = mv_onboard(rig, &request);
    kv_check(rig);
    return op;
}

static void test_queued_prefetch_that_is_cancelled_still_serves_the_hop_that_waits_for_it(
    void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run other, run;
    struct mv_done prefetched, done;
    mv_three_tiers(rig, 4, 4, 4);
    mv_bounds(rig, 1, 1, 1, 1, 4); /* one at a time into HOST */
    kv_rig_open(rig);
    mv_store_after(rig, &other, KVB_TIER_DISK, 9, 1, 1);
    mv_store_after(rig, &run, KVB_TIER_DISK, 1, 1, 1);
    struct kvb_op *prefetch = bring_up_with(rig, &run, KVB_TIER_HOST, 10, &prefetched);
    struct kvb_op *op = bring_up_with(rig, &run, KVB_TIER_DEVICE, 90, &done);
    struct kvb_op *between = bring_up_with(rig, &other, KVB_TIER_HOST, 90, NULL);
    mv_step(rig); /* the hop waits for the prefetch, which waits for its source's fence */
    kv_ok(kvb_op_cancel(rig->kv, prefetch));
    mv_step(rig);
    mv_expect_done(&prefetched, KVB_ECANCELED, 0);
    assert_int_equal(done.calls, 0);
    mv_reach(rig, 1);
    mv_expect_done(&done, 0, 1);
    mv_drop(rig, &run);
    mv_end(rig, &run, op, 1);
    mv_drop(rig, &other);
    kv_ok(kvb_op_release(rig->kv, prefetch));
    kv_ok(kvb_op_release(rig->kv, between));
    mv_step(rig);
    mv_expect_books(rig, true);
}

static void test_hop_without_room_in_the_middle_is_a_miss(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done done;
    struct kvb_block *held[2];
    mv_open_three(rig, 4, 2, 4);
    mv_park(rig, &run, KVB_TIER_DISK, 1, 1);
    mv_alloc_many(rig, KVB_TIER_HOST, 2, held);
    struct kvb_op *op = mv_bring_up(rig, &run, KVB_TIER_DEVICE, &done);
    mv_step(rig);
    mv_expect_done(&done, 0, 0);
    assert_int_equal(mv_lane(rig, KVB_TIER_DISK, KVB_TIER_HOST).skipped_no_target, 1);
    mv_end(rig, &run, op, 0);
    kv_ok(kvb_block_unref(rig->kv, held, 2, NULL));
}

static void test_hop_waits_while_a_transfer_writes_the_room_in_the_middle(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run, down;
    struct mv_done done;
    mv_open_three(rig, 4, 1, 4);
    mv_store_after(rig, &down, KVB_TIER_DEVICE, 2, 1, 1);
    mv_offer(rig, down.blocks[0], 50);
    mv_step(rig); /* HOST's only block is being written */
    mv_park(rig, &run, KVB_TIER_DISK, 1, 1);
    struct kvb_op *op = mv_bring_up(rig, &run, KVB_TIER_DEVICE, &done);
    mv_step(rig);
    assert_int_equal(done.calls, 0);
    mv_reach(rig, 1);
    mv_expect_done(&done, 0, 1);
    mv_end(rig, &run, op, 1);
    mv_drop(rig, &down);
}

static void test_hop_waits_while_a_transfer_reads_the_room_in_the_middle(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run, host;
    struct mv_done done;
    mv_open_three(rig, 4, 1, 4);
    mv_store_after(rig, &host, KVB_TIER_HOST, 2, 1, 1);
    mv_offer(rig, host.blocks[0], 50);
    mv_drop(rig, &host);
    mv_step(rig); /* HOST's only block is being read */
    mv_park(rig, &run, KVB_TIER_DISK, 1, 1);
    struct kvb_op *op = mv_bring_up(rig, &run, KVB_TIER_DEVICE, &done);
    mv_step(rig);
    assert_int_equal(done.calls, 0);
    mv_reach(rig, 1);
    mv_expect_done(&done, 0, 1);
    mv_end(rig, &run, op, 1);
}

static void test_operation_waiting_for_room_in_the_middle_can_be_cancelled(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run, down;
    struct mv_done done;
    mv_open_three(rig, 4, 1, 4);
    mv_store_after(rig, &down, KVB_TIER_DEVICE, 2, 1, 1);
    mv_offer(rig, down.blocks[0], 50);
    mv_step(rig);
    mv_park(rig, &run, KVB_TIER_DISK, 1, 1);
    struct kvb_op *op = mv_bring_up(rig, &run, KVB_TIER_DEVICE, &done);
    mv_step(rig);
    kv_ok(kvb_op_cancel(rig->kv, op));
    mv_step(rig);
    mv_expect_done(&done, KVB_ECANCELED, 0);
    kv_ok(kvb_op_release(rig->kv, op));
    mv_reach(rig, 1);
    mv_drop(rig, &down);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kv_rig, test_two_hops_leave_a_copy_in_the_middle),
        TEST(kv_rig, test_two_hops_use_the_copy_that_came_to_the_middle_meanwhile),
        TEST(kv_rig, test_failure_of_either_hop_is_a_miss),
        TEST(middle, test_two_hops_join_a_prefetch_in_the_middle),
        TEST(middle, test_two_hops_go_on_when_the_prefetch_they_joined_is_cancelled),
        TEST(middle, test_prefetch_goes_on_when_the_two_hops_it_joined_are_cancelled),
        TEST(kv_rig, test_queued_prefetch_that_is_cancelled_still_serves_the_hop_that_waits_for_it),
        TEST(kv_rig, test_hop_without_room_in_the_middle_is_a_miss),
        TEST(kv_rig, test_hop_waits_while_a_transfer_writes_the_room_in_the_middle),
        TEST(kv_rig, test_hop_waits_while_a_transfer_reads_the_room_in_the_middle),
        TEST(kv_rig, test_operation_waiting_for_room_in_the_middle_can_be_cancelled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
