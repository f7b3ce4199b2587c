/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whatever ends an operation's wait for a fence: the fence, a cancel, a deadline, a newer content.
 */
#include "support/kv_asleep.h"
#include "support/move_test.h"
#include "support/test.h"

#include "offload/deferred.h"

#define FENCE 9

/* ---- Operations behind a fence --------------------------------------------------------------- */

/* One operation that waits in front of a lane whose engine has one place. */
static struct kvb_op *open_op_fenced(struct kv_rig *rig, struct mv_run *run, struct mv_done *done)
{
    mv_open_narrow(rig, 4, 4);
    mv_park(rig, run, KVB_TIER_HOST, 1, 1);
    struct kvb_op *op =
        mv_bring_with_priority(rig, run, mv_alloc_after(rig, KVB_TIER_DEVICE, FENCE), 50, done);
    mv_step(rig);
    assert_int_equal(mv_up(rig).queued, 1);
    return op;
}

static void test_operation_behind_a_fence_is_cancelled_at_once(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done done;
    struct kvb_op *op = open_op_fenced(rig, &run, &done);
    kv_ok(kvb_op_cancel(rig->kv, op));
    mv_step(rig);
    assert_int_equal(done.status, KVB_ECANCELED);
    assert_int_equal(mv_up(rig).cancelled, 1);
    mv_end(rig, &run, op, 0);
    mv_reach(rig, FENCE);
    mv_expect_books(rig, true);
}

static void test_operation_behind_a_fence_is_handed_to_who_joined_it(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run, joined;
    struct mv_done done, second;
    struct kvb_op *op = open_op_fenced(rig, &run, &done);
    joined = run;
    struct kvb_op *other =
        mv_bring_with_priority(rig, &joined, mv_alloc_after(rig, KVB_TIER_DEVICE, 0), 50, &second);
    kv_ok(kvb_op_cancel(rig->kv, op));
    mv_step(rig);
    assert_int_equal(done.status, KVB_ECANCELED);
    assert_int_equal(second.calls, 0);
    mv_end(rig, &run, op, 0);
    mv_reach(rig, FENCE);
    mv_end(rig, &joined, other, 1);
    mv_expect_books(rig, true);
}

/* ---- Recall ---------------------------------------------------------------------------------- */

/* The engine has one place for what waits: the first operation's copy is there. */
static struct kvb_op *open_op_moving(struct kv_rig *rig, struct mv_run *run,
                                     struct kvb_block **target, struct mv_done *done)
{
    mv_two_tiers(rig, 2, 4, KVB_OFFLOAD_MANUAL);
    mv_bounds(rig, 0, 1, 1, 2, 8);
    kv_rig_open(rig);
    mv_park(rig, run, KVB_TIER_HOST, 1, 1);
    *target = mv_alloc_after(rig, KVB_TIER_DEVICE, FENCE);
    assert_int_equal(mv_match(rig, run), 1);
    struct kvb_onboard request = mv_request(run->blocks, target, 1, done);
    request.timeout_ns = 3 * KV_MS;
    struct kvb_op *op = mv_onboard(rig, &request);
    mv_drop(rig, run);
    mv_step(rig);
    assert_int_equal(mv_up(rig).inflight, 1);
    return op;
}

/*
 * It is over: its own block is back, Empty, and the place too. The memory still waits for its
 * fence.
 */
static void expect_recalled(struct kv_rig *rig, struct mv_run *run, struct kvb_block *target,
                            struct kvb_op *op)
{
    struct mv_done done;
    assert_int_equal(mv_up(rig).inflight, 0);
    assert_int_equal(mv_up(rig).cancelled, 1);
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_DEVICE].transfer_count, 0);
    assert_int_equal(mv_take(rig, run, op), 0);
    assert_ptr_equal(run->blocks[0], target);
    mv_drop_taken(rig, run);
    op = mv_bring_with_priority(rig, run, mv_alloc_after(rig, KVB_TIER_DEVICE, 0), 50, &done);
    mv_step(rig);
    assert_int_equal(done.calls, 0);
    assert_int_equal(mv_up(rig).inflight, 1);
    mv_reach(rig, FENCE);
    mv_end(rig, run, op, 1);
    mv_expect_books(rig, true);
}

static void test_cancelled_copy_that_waits_for_a_fence_gives_place_and_memory_back(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done done;
    struct kvb_block *target = NULL;
    struct kvb_op *op = open_op_moving(rig, &run, &target, &done);
    kv_ok(kvb_op_cancel(rig->kv, op));
    mv_step(rig);
    assert_int_equal(done.status, KVB_ECANCELED);
    expect_recalled(rig, &run, target, op);
}

static void test_copy_past_its_deadline_that_waits_for_a_fence_gives_place_and_memory_back(
    void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done done;
    struct kvb_block *target = NULL;
    struct kvb_op *op = open_op_moving(rig, &run, &target, &done);
    kv_advance(rig, 3 * KV_MS);
    mv_step(rig);
    assert_int_equal(done.status, KVB_ETIMEDOUT);
    expect_recalled(rig, &run, target, op);
}

static void test_copy_that_another_waits_for_is_not_recalled(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run, joined;
    struct mv_done done, second;
    struct kvb_block *target = NULL;
    struct kvb_op *op = open_op_moving(rig, &run, &target, &done);
    joined = run;
    struct kvb_op *other =
        mv_bring_with_priority(rig, &joined, mv_alloc_after(rig, KVB_TIER_DEVICE, 0), 50, &second);
    kv_ok(kvb_op_cancel(rig->kv, op));
    mv_step(rig);
    assert_int_equal(done.status, KVB_ECANCELED);
    assert_int_equal(mv_up(rig).inflight, 1);
    mv_end(rig, &run, op, 0);
    mv_reach(rig, FENCE);
    mv_end(rig, &joined, other, 1);
    mv_expect_books(rig, true);
}

/* The block in between waits for its memory's fence, for an operation that is cancelled. */
static void test_cancel_gives_back_the_block_in_between_too(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done done;
    mv_open_three(rig, 2, 1, 2);
    mv_park(rig, &run, KVB_TIER_DISK, 1, 1);
    kv_unref(rig, mv_alloc_after(rig, KVB_TIER_HOST, FENCE));
    struct kvb_op *op = mv_bring_up(rig, &run, KVB_TIER_DEVICE, &done);
    mv_step(rig);
    assert_int_equal(mv_lane(rig, KVB_TIER_DISK, KVB_TIER_HOST).inflight, 1);
    kv_ok(kvb_op_cancel(rig->kv, op));
    mv_step(rig);
    assert_int_equal(mv_lane(rig, KVB_TIER_DISK, KVB_TIER_HOST).inflight, 0);
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_HOST].free_count, 1);
    mv_end(rig, &run, op, 0);
    mv_expect_books(rig, true);
}

/*
 * A prefetch is given up while its copy waits for a fence, and in the same round another operation,
 * which has to pass through that tier, comes to wait for the very copy: it goes on for that one.
 */
static void test_copy_that_is_recalled_goes_on_for_who_comes_meanwhile(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run, passing;
    struct mv_done given_up, done;
    struct kvb_op *prefetch = NULL;
    mv_open_three(rig, 2, 2, 2);
    mv_park(rig, &run, KVB_TIER_DISK, 1, 1);
    struct kvb_block *target = mv_alloc_after(rig, KVB_TIER_HOST, FENCE);
    assert_int_equal(mv_match(rig, &run), 1);
    struct kvb_onboard request = mv_request(run.blocks, &target, 1, &given_up);
    kv_ok(kvb_onboard(rig->kv, &request, &prefetch));
    mv_drop(rig, &run);
    mv_step(rig);
    assert_int_equal(mv_lane(rig, KVB_TIER_DISK, KVB_TIER_HOST).inflight, 1);
    kv_ok(kvb_op_cancel(rig->kv, prefetch));
    passing = run;
    struct kvb_op *op = mv_bring_up(rig, &passing, KVB_TIER_DEVICE, &done);
    mv_step(rig);
    assert_int_equal(given_up.status, KVB_ECANCELED);
    assert_int_equal(done.calls, 0);
    mv_end(rig, &run, prefetch, 0);
    mv_reach(rig, FENCE);
    mv_end(rig, &passing, op, 1);
    mv_expect_books(rig, true);
}

/* ---- The list -------------------------------------------------------------------------------- */

/*
 * A signal comes between a look at the counter and the list: nothing else will ask about the node.
 */
static void test_node_whose_ticket_is_reached_by_now_is_looked_at(void **state)
{
    (void)state;
    struct kvbi_band_node nodes[3] = {{0}};
    struct kvbi_deferred deferred;
    static struct kvbi_lines lines;
    const struct kvbi_tickets later = {kvbi_ticket(3, 9), kvbi_ticket(64, 3)},
                              by_now = {.source = kvbi_ticket(3, 7)},
                              other = {.target = kvbi_ticket(64, 2)};
    (void)kvbi_lines_advance(&lines, 3, 7);
    (void)kvbi_lines_advance(&lines, 64, 3);
    kvbi_deferred_init(&deferred, &lines, nodes, sizeof *nodes);
    kvbi_deferred_add(&deferred, 0, 50, later, NULL);
    assert_false(kvbi_deferred_due(&deferred));
    kvbi_deferred_add(&deferred, 1, 50, by_now, NULL);
    assert_true(kvbi_deferred_due(&deferred));
    assert_int_equal(kvbi_deferred_next(&deferred), 0);
    kvbi_deferred_keep(&deferred, later);
    assert_int_equal(kvbi_deferred_next(&deferred), 1);
    kvbi_deferred_remove(&deferred, 1);
    assert_int_equal(kvbi_deferred_next(&deferred), KVBI_NONE);
    assert_false(kvbi_deferred_due(&deferred));
    kvbi_deferred_add(&deferred, 2, 50, other, NULL);
    assert_true(kvbi_deferred_due(&deferred));
}

/* ---- Waking ---------------------------------------------------------------------------------- */

static void test_signal_wakes_who_sleeps_while_all_waits_for_its_fence(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    static struct kv_wait done;
    mv_two_tiers(rig, 2, 2, KVB_OFFLOAD_MANUAL);
    mv_bounds(rig, 0, 1, 1, 1, 8);
    rig->config.progress = KVB_PROGRESS_THREAD;
    kv_rig_open(rig);
    kv_wait_init(&done);
    mv_store(rig, &run, KVB_TIER_HOST, 1, 1);
    struct kvb_block *target = mv_alloc_after(rig, KVB_TIER_DEVICE, FENCE);
    struct kvb_onboard request = mv_request(run.blocks, &target, 1, NULL);
    request.done = mv_done_signal;
    request.arg = &done;
    struct kvb_op *op = mv_onboard(rig, &request);
    assert_true(kv_falls_asleep(rig->kv));
    kv_ok(kvb_fence_signal(rig->kv, 0, FENCE - 1));
    assert_false(atomic_load(&rig->kv->progress.signalled)); /* for nothing */
    kv_ok(kvb_fence_signal(rig->kv, 0, FENCE));
    assert_true(kv_wait_for(&done, 1));
    mv_drop(rig, &run);
    mv_end(rig, &run, op, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kv_rig, test_operation_behind_a_fence_is_cancelled_at_once),
        TEST(kv_rig, test_operation_behind_a_fence_is_handed_to_who_joined_it),
        TEST(kv_rig, test_cancelled_copy_that_waits_for_a_fence_gives_place_and_memory_back),
        TEST(kv_rig,
             test_copy_past_its_deadline_that_waits_for_a_fence_gives_place_and_memory_back),
        TEST(kv_rig, test_copy_that_another_waits_for_is_not_recalled),
        TEST(kv_rig, test_cancel_gives_back_the_block_in_between_too),
        TEST(kv_rig, test_copy_that_is_recalled_goes_on_for_who_comes_meanwhile),
        TEST(bare, test_node_whose_ticket_is_reached_by_now_is_looked_at),
        TEST(kv_rig, test_signal_wakes_who_sleeps_while_all_waits_for_its_fence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
