/* SPDX-License-Identifier: Apache-2.0 */
/* Moving up: operations that are cancelled, or whose deadline comes first. */
#include "support/move_test.h"
#include "support/test.h"

static void test_cancel_before_any_poll_ends_with_nothing_copied(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done done;
    mv_two_tiers(rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_open_recorded(rig);
    mv_park(rig, &run, KVB_TIER_HOST, 1, 3);
    struct kvb_op *op = mv_bring_up(rig, &run, KVB_TIER_DEVICE, &done);
    kv_ok(kvb_op_cancel(rig->kv, op));
    kv_check(rig);
    assert_int_equal(done.calls, 0);
    mv_step(rig);
    mv_expect_done(&done, KVB_ECANCELED, 0);
    assert_int_equal(rig->copies.count, 0);
    assert_int_equal(mv_up(rig).cancelled, 3);
    kv_expect(kvb_op_wait(rig->kv, op, 0), KVB_ECANCELED);
    assert_int_equal(mv_take(rig, &run, op), 0);
    for (uint32_t i = 0; i < 3; i++)
        assert_non_null(run.blocks[i]);
    mv_drop_taken(rig, &run);
    mv_expect_in(rig, &run, KVB_TIER_HOST);
}

/* One operation of two blocks whose transfer waits for fence value 1, and counts as begun. */
static struct kvb_op *start_moving(struct kv_rig *rig, struct mv_run *run, uint32_t device_blocks,
                                   uint64_t timeout_ns, struct mv_done *done)
{
    static const struct kvbi_hooks keeps = {.keeps = true};
    struct kvb_fence fence = mv_fence(1);
    struct kvb_block *targets[2];
    mv_two_tiers(rig, device_blocks, 4, KVB_OFFLOAD_MANUAL);
    kv_rig_open_hooked(rig, &keeps);
    mv_store(rig, run, KVB_TIER_HOST, 1, 2);
    mv_alloc_many(rig, KVB_TIER_DEVICE, 2, targets);
    struct kvb_onboard request = mv_request(run->blocks, targets, 2, done);
    request.fence = &fence;
    request.timeout_ns = timeout_ns;
    struct kvb_op *op = mv_onboard(rig, &request);
    mv_drop(rig, run);
    mv_step(rig);
    assert_int_equal(mv_up(rig).inflight, 2);
    return op;
}

static void test_cancel_in_transfer_gives_other_blocks_and_quarantines_the_targets(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done done;
    struct kvb_op *op = start_moving(rig, &run, 4, 0, &done);
    kv_ok(kvb_op_cancel(rig->kv, op));
    mv_step(rig);
    mv_expect_done(&done, KVB_ECANCELED, 0);
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_DEVICE].transfer_count, 2);
    assert_int_equal(mv_take(rig, &run, op), 0);
    assert_non_null(run.blocks[0]);
    assert_non_null(run.blocks[1]);
    mv_drop_taken(rig, &run);
    mv_reach(rig, 1);
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_DEVICE].transfer_count, 0);
    mv_expect_in(rig, &run, KVB_TIER_DEVICE); /* what could not be stopped arrived, parked */
}

static void test_cancel_in_transfer_gives_no_blocks_where_none_is_free(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done done;
    struct kvb_block *block = NULL;
    struct kvb_op *op = start_moving(rig, &run, 2, 0, &done);
    kv_ok(kvb_op_cancel(rig->kv, op));
    mv_step(rig);
    mv_expect_done(&done, KVB_ECANCELED, 0);
    assert_int_equal(mv_take(rig, &run, op), 0);
    assert_null(run.blocks[0]);
    assert_null(run.blocks[1]);
    kv_expect(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, NULL, &block, NULL), KVB_EAGAIN);
    mv_reach(rig, 1);
    mv_expect_in(rig, &run, KVB_TIER_DEVICE);
}

static void test_cancel_after_completion_changes_nothing(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done done;
    mv_open_two(rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_park(rig, &run, KVB_TIER_HOST, 1, 2);
    struct kvb_op *op = mv_bring_up(rig, &run, KVB_TIER_DEVICE, &done);
    mv_step(rig);
    kv_ok(kvb_op_cancel(rig->kv, op));
    mv_step(rig);
    mv_expect_done(&done, 0, 2);
    kv_ok(kvb_op_wait(rig->kv, op, 0));
    mv_end(rig, &run, op, 2);
}

static void test_what_has_arrived_before_a_cancel_counts(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done done;
    struct kvb_block *targets[3];
    mv_open_two(rig, 8, 4, KVB_OFFLOAD_MANUAL);
    mv_store(rig, &run, KVB_TIER_HOST, 1, 3);
    mv_alloc_many(rig, KVB_TIER_DEVICE, 2, targets);
    targets[2] = mv_alloc_after(rig, KVB_TIER_DEVICE, 1); /* only this one is not free yet */
    struct kvb_onboard request = mv_request(run.blocks, targets, 3, &done);
    struct kvb_op *op = mv_onboard(rig, &request);
    mv_drop(rig, &run);
    mv_step(rig);
    assert_int_equal(done.calls, 0);
    kv_ok(kvb_op_cancel(rig->kv, op));
    mv_step(rig);
    mv_expect_done(&done, KVB_ECANCELED, 2);
    mv_end(rig, &run, op, 2);
    mv_reach(rig, 1);
}

static void test_deadline_ends_the_operation_and_quarantines_its_memory(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done done;
    struct kvb_op *op = start_moving(rig, &run, 2, 3 * KV_MS, &done);
    kv_advance(rig, 3 * KV_MS - 1);
    mv_step(rig);
    assert_int_equal(done.calls, 0);
    kv_advance(rig, 1);
    mv_step(rig);
    mv_expect_done(&done, KVB_ETIMEDOUT, 0);
    assert_int_equal(kv_stats(rig).ops_timed_out, 1);
    assert_int_equal(mv_take(rig, &run, op), 0);
    assert_null(run.blocks[0]);
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_DEVICE].transfer_count, 2);
    mv_reach(rig, 1);
    mv_expect_in(rig, &run, KVB_TIER_DEVICE);
}

static void test_deadline_that_is_not_reached_does_nothing(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done done;
    struct kvb_op *op = start_moving(rig, &run, 2, 3 * KV_MS, &done);
    mv_reach(rig, 1);
    kv_advance(rig, KV_SECOND);
    mv_step(rig);
    mv_expect_done(&done, 0, 2);
    mv_end(rig, &run, op, 2);
}

static void test_deadline_at_the_end_of_time_is_none(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done done;
    uint64_t timeout_ns = 0;
    struct kvb_op *op = start_moving(rig, &run, 2, KVB_FOREVER, &done);
    kv_ok(kvb_manager_next_timeout(rig->kv, &timeout_ns));
    assert_true(timeout_ns == KVB_FOREVER);
    mv_reach(rig, 1);
    kv_ok(kvb_op_release(rig->kv, op));
}

static void test_orphaned_transfer_is_joined_by_a_later_operation(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done first, second;
    struct kvb_op *op = start_moving(rig, &run, 6, 0, &first);
    kv_ok(kvb_op_release(rig->kv, op)); /* cancelled */
    mv_step(rig);
    mv_expect_done(&first, KVB_ECANCELED, 0);
    op = mv_bring_up(rig, &run, KVB_TIER_DEVICE, &second);
    mv_step(rig);
    assert_int_equal(mv_up(rig).offered, 2);
    assert_int_equal(second.calls, 0);
    mv_reach(rig, 1);
    mv_expect_done(&second, 0, 2);
    mv_end(rig, &run, op, 2);
}

static void test_wait_that_runs_out_of_time_leaves_the_operation_running(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done done;
    struct kvb_block *blocks[2];
    uint32_t good;
    struct kvb_op *op = start_moving(rig, &run, 4, 0, &done);
    kv_expect(kvb_op_wait(rig->kv, op, 0), KVB_ETIMEDOUT);
    kv_expect(kvb_op_take(rig->kv, op, blocks, 2, &good), KVB_EAGAIN);
    mv_signal(rig, 1);
    kv_ok(kvb_op_wait(rig->kv, op, KVB_FOREVER));
    mv_end(rig, &run, op, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kv_rig, test_cancel_before_any_poll_ends_with_nothing_copied),
        TEST(kv_rig, test_cancel_in_transfer_gives_other_blocks_and_quarantines_the_targets),
        TEST(kv_rig, test_cancel_in_transfer_gives_no_blocks_where_none_is_free),
        TEST(kv_rig, test_cancel_after_completion_changes_nothing),
        TEST(kv_rig, test_what_has_arrived_before_a_cancel_counts),
        TEST(kv_rig, test_deadline_ends_the_operation_and_quarantines_its_memory),
        TEST(kv_rig, test_deadline_that_is_not_reached_does_nothing),
        TEST(kv_rig, test_deadline_at_the_end_of_time_is_none),
        TEST(kv_rig, test_orphaned_transfer_is_joined_by_a_later_operation),
        TEST(kv_rig, test_wait_that_runs_out_of_time_leaves_the_operation_running),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
