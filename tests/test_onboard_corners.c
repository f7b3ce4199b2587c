/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Onboarding where room is short or many meet: chains longer than the tier in between, items that
 * stand in each other's way, room that comes up unasked, memory that is not free yet, and many
 * operations in one round.
 */
#include "support/kv_asleep.h"
#include "support/kv_scene.h"
#include "support/move_test.h"

#include "api/manager.h"

/* ---- Chains and the tier in between ---------------------------------------------------------- */

static void test_onboard_of_more_blocks_than_the_tier_in_between_brings_all(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done done;
    mv_open_three(rig, 64, 8, 64);
    mv_park(rig, &run, KVB_TIER_DISK, 1, 24);
    struct kvb_op *op = mv_bring_up(rig, &run, KVB_TIER_DEVICE, &done);
    mv_step(rig);
    mv_expect_done(&done, 0, 24);
    mv_end(rig, &run, op, 24);
    assert_int_equal(mv_lane(rig, KVB_TIER_DISK, KVB_TIER_HOST).skipped_no_target, 0);
    mv_expect_books(rig, true);
}

/*
 * Two HOST blocks, both targets: of a prefetch that was cancelled but whose copy somebody waits
 * for, and of another. An item that needs a third one stands before the first in line. All but the
 * cancelled one end well.
 */
static void test_item_without_room_does_not_hold_up_those_behind_it(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run runs[3];
    struct mv_done prefetched, joined, roomless, other;
    mv_three_tiers(rig, 8, 2, 8);
    mv_bounds(rig, 1, 4, 1, 1, 8);
    kv_rig_open(rig);
    mv_store_each(rig, runs, KVB_TIER_DISK, 1, 3);
    mv_drop_each(rig, runs, 3);
    struct kvb_op *ops[4];
    ops[0] = mv_bring_with_priority(rig, &runs[0], kv_alloc(rig, KVB_TIER_HOST), 10, &prefetched);
    ops[1] = mv_bring_with_priority(rig, &runs[0], kv_alloc(rig, KVB_TIER_DEVICE), 90, &joined);
    ops[2] = mv_bring_with_priority(rig, &runs[1], kv_alloc(rig, KVB_TIER_HOST), 90, &other);
    assert_int_equal(kvb_manager_poll(rig->kv, 0), 1);
    assert_int_equal(prefetched.calls, 0);
    ops[3] = mv_bring_with_priority(rig, &runs[2], kv_alloc(rig, KVB_TIER_DEVICE), 95, &roomless);
    kv_ok(kvb_op_cancel(rig->kv, ops[0]));
    mv_step(rig);
    mv_expect_done(&prefetched, KVB_ECANCELED, 0);
    mv_expect_done(&joined, 0, 1);
    mv_expect_done(&other, 0, 1);
    mv_expect_done(&roomless, 0, 1);
    mv_expect_books(rig, true);
    for (int i = 0; i < 4; i++)
        kv_ok(kvb_op_release(rig->kv, ops[i]));
}

/* ---- Room that comes up ---------------------------------------------------------------------- */

/*
 * An operation from DISK to DEVICE that waits for room in HOST: one of the two blocks there is
 * held, the other is the target of an offload that waits for fence 5.
 */
struct waiting {
    struct kv_rig rig;
    struct mv_run run, offered;
    struct kvb_block *held, *target;
    struct kvb_op *op;
    struct mv_done done;
    struct kv_wait over;
};

static int waiting_setup(void **state)
{
    (void)kv_scene_begin(state, sizeof(struct waiting));
    return 0;
}

#define waiting_teardown kv_scene_end

/* Nothing here looks at the invariants, as a thread may be at work. */
static void open_waiting(struct waiting *waiting, uint32_t progress)
{
    struct kv_rig *rig = &waiting->rig;
    mv_three_tiers(rig, 8, 2, 8);
    rig->config.progress = progress;
    kv_rig_open(rig);
    mv_store_beside(rig, &waiting->run, KVB_TIER_DISK, 1, 1, 0);
    mv_store_beside(rig, &waiting->offered, KVB_TIER_DEVICE, 2, 1, 5);
    kv_ok(kvb_block_offload(rig->kv, waiting->offered.blocks, 1, 50, NULL, NULL));
}

static void start_waiting(struct waiting *waiting, kvb_onboard_done done, void *arg)
{
    struct kv_rig *rig = &waiting->rig;
    waiting->held = kv_alloc(rig, KVB_TIER_HOST);
    waiting->target = kv_alloc(rig, KVB_TIER_DEVICE);
    struct kvb_onboard request = mv_request(waiting->run.blocks, &waiting->target, 1, NULL);
    request.done = done;
    request.arg = arg;
    waiting->op = mv_onboard(rig, &request);
}

static void end_waiting(struct waiting *waiting)
{
    struct kv_rig *rig = &waiting->rig;
    kv_ok(kvb_op_release(rig->kv, waiting->op));
    kv_unref(rig, waiting->run.blocks[0]);
    kv_unref(rig, waiting->offered.blocks[0]);
    kv_ok(kvb_fence_signal(rig->kv, 0, 5));
    kv_flush(rig);
}

static void test_room_that_a_lane_waits_for_asks_for_a_poll(void **state)
{
    struct waiting *waiting = *state;
    struct kv_rig *rig = &waiting->rig;
    uint64_t timeout_ns = 0;
    open_waiting(waiting, KVB_PROGRESS_POLL);
    mv_step(rig);
    start_waiting(waiting, mv_done_record, &waiting->done);
    mv_step(rig);
    kv_ok(kvb_manager_next_timeout(rig->kv, &timeout_ns));
    assert_true(timeout_ns == KVB_FOREVER);
    kv_unref(rig, waiting->held);
    kv_ok(kvb_manager_next_timeout(rig->kv, &timeout_ns));
    assert_true(timeout_ns == 0);
    end_waiting(waiting);
}

static void test_onboard_that_waits_for_room_ends_once_room_is_there(void **state)
{
    struct waiting *waiting = *state;
    struct kv_rig *rig = &waiting->rig;
    open_waiting(waiting, KVB_PROGRESS_POLL);
    mv_step(rig);
    start_waiting(waiting, mv_done_record, &waiting->done);
    mv_step(rig);
    assert_int_equal(waiting->done.calls, 0);
    kv_unref(rig, waiting->held);
    mv_step(rig);
    mv_expect_done(&waiting->done, 0, 1);
    end_waiting(waiting);
}

/* No call after the unref touches the manager until `done` has run. */
static void test_onboard_that_waits_for_room_under_a_thread_ends_unasked(void **state)
{
    struct waiting *waiting = *state;
    kv_wait_init(&waiting->over);
    open_waiting(waiting, KVB_PROGRESS_THREAD);
    assert_true(kv_falls_asleep(waiting->rig.kv));
    start_waiting(waiting, mv_done_signal, &waiting->over);
    assert_true(kv_falls_asleep(waiting->rig.kv));
    assert_int_equal(waiting->over.count, 0);
    kv_unref(&waiting->rig, waiting->held);
    assert_true(kv_wait_for(&waiting->over, 1));
    end_waiting(waiting);
}

/* ---- Memory that is not free yet ------------------------------------------------------------- */

/*
 * The target's own memory is under a transfer that waits for fence 5, so the operation gets another
 * block; that one's memory, too, is only known to be free at fence 5.
 */
static void test_replacement_after_cancel_is_free_since_the_operations_fence(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run first, second;
    struct mv_done done;
    mv_two_tiers(rig, 2, 8, KVB_OFFLOAD_MANUAL);
    mv_open_recorded(rig);
    rig->hooks.keeps = true;
    mv_park(rig, &first, KVB_TIER_HOST, 1, 1);
    mv_park(rig, &second, KVB_TIER_HOST, 2, 1);
    struct kvb_block *target = mv_alloc_after(rig, KVB_TIER_DEVICE, 5);
    mv_cancel_in_transfer(rig, &first, target);
    struct kvb_op *op = mv_bring_into(rig, &second, first.blocks, &done);
    mv_step(rig);
    assert_int_equal(done.calls, 0);
    assert_int_equal(rig->copies.count, 0);
    mv_reach(rig, 5);
    mv_expect_done(&done, 0, 1);
    kv_ok(kvb_op_release(rig->kv, op));
}

/*
 * The second block arrives and is shared by now, the first does not: in place of the second there
 * is another one.
 */
static void test_replacement_of_a_shared_block_is_free_since_the_operations_fence(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run, second;
    struct mv_done done;
    struct kvb_hit hits[2];
    size_t count = 0;
    mv_two_tiers(rig, 4, 8, KVB_OFFLOAD_MANUAL);
    mv_open_recorded(rig);
    mv_park(rig, &run, KVB_TIER_HOST, 1, 2);
    mv_park(rig, &second, KVB_TIER_HOST, 2, 1);
    struct kvb_block *targets[2] = {mv_alloc_after(rig, KVB_TIER_DEVICE, 9),
                                    mv_alloc_after(rig, KVB_TIER_DEVICE, 5)};
    struct kvb_op *op = mv_bring_into(rig, &run, targets, &done);
    mv_reach(rig, 5);
    struct kvb_query query = kv_query(0, run.tokens, 2 * KV_TOKENS);
    kv_ok(kvb_match(rig->kv, &query, hits, 2, &count));
    assert_int_equal(count, 2);
    assert_ptr_equal(hits[1].block, targets[1]);
    kv_ok(kvb_op_cancel(rig->kv, op));
    mv_step(rig);
    mv_expect_done(&done, KVB_ECANCELED, 0);
    assert_int_equal(mv_take(rig, &run, op), 0);
    assert_non_null(run.blocks[1]);
    assert_ptr_not_equal(run.blocks[1], targets[1]);

    uint32_t before = rig->copies.count;
    op = mv_bring_into(rig, &second, &run.blocks[1], &done);
    mv_step(rig);
    assert_int_equal(done.calls, 0);
    assert_int_equal(rig->copies.count, before);
    mv_reach(rig, 9);
    mv_expect_done(&done, 0, 1);
    kv_ok(kvb_op_release(rig->kv, op));
    if (run.blocks[0] != NULL)
        kv_unref(rig, run.blocks[0]);
    kv_unref(rig, hits[0].block);
    kv_unref(rig, hits[1].block);
}

/* ---- Many operations in one round ------------------------------------------------------------ */

enum { OPS = 2 * KVBI_LOCK_BATCH };

static void open_for_many(struct kv_rig *rig)
{
    mv_two_tiers(rig, OPS, OPS, KVB_OFFLOAD_MANUAL);
    rig->config.op_capacity = OPS;
    kv_rig_open(rig);
}

static uint32_t called(const struct mv_done *done)
{
    uint32_t calls = 0;
    for (uint32_t i = 0; i < OPS; i++) {
        assert_in_range(done[i].calls, 0, 1);
        calls += done[i].calls;
    }
    return calls;
}

/* One transfer that all operations wait for, and that ends for all of them at once. */
static void start_many(struct kv_rig *rig, struct mv_run *run, struct kvb_op **ops,
                       struct mv_done *done, uint64_t timeout_ns)
{
    mv_store(rig, run, KVB_TIER_HOST, 1, 1);
    for (uint32_t i = 0; i < OPS; i++) {
        struct kvb_block *target = mv_alloc_after(rig, KVB_TIER_DEVICE, 5);
        struct kvb_onboard request = mv_request(run->blocks, &target, 1, &done[i]);
        request.timeout_ns = timeout_ns;
        kv_ok(kvb_onboard(rig->kv, &request, &ops[i]));
    }
    mv_drop(rig, run);
    mv_step(rig);
    assert_int_equal(called(done), 0);
}

static void release_many(struct kv_rig *rig, struct kvb_op **ops)
{
    for (uint32_t i = 0; i < OPS; i++)
        kv_ok(kvb_op_release(rig->kv, ops[i]));
    mv_reach(rig, 5);
}

/*
 * The first of three contents is invalidated between match and onboard, and the second one is on
 * its way for somebody else: no target gets a content, none keeps what was said of its source.
 */
static void test_empty_blocks_that_are_handed_back_have_the_default_priority(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct kvb_block *targets[4];
    struct kvb_op *other = NULL, *op = NULL;
    mv_open_two(rig, 8, 8, KVB_OFFLOAD_MANUAL);
    mv_store(rig, &run, KVB_TIER_HOST, 1, 3);
    kv_ok(kvb_block_set_priority(rig->kv, run.blocks, 3, 90, KV_SECOND, NULL));
    kv_ok(kvb_invalidate(rig->kv, run.seqs, 1, NULL));
    mv_alloc_many(rig, KVB_TIER_DEVICE, 4, targets);
    struct kvb_onboard first = mv_request(run.blocks + 1, targets, 1, NULL);
    kv_ok(kvb_onboard(rig->kv, &first, &other));
    struct kvb_onboard request = mv_request(run.blocks, targets + 1, 3, NULL);
    kv_ok(kvb_onboard(rig->kv, &request, &op));
    mv_step(rig);
    uint32_t good = 99;
    kv_ok(kvb_op_take(rig->kv, op, targets + 1, 3, &good));
    assert_int_equal(good, 0);
    for (uint32_t i = 1; i < 4; i++) {
        struct kvb_block_info info = kv_describe(rig, targets[i]);
        assert_int_equal(info.state, KVB_STATE_EMPTY);
        assert_int_equal(info.priority, KVB_PRIORITY_DEFAULT);
    }
    kv_ok(kvb_op_take(rig->kv, other, targets, 1, &good));
    assert_int_equal(good, 1);
    assert_int_equal(kv_describe(rig, targets[0]).priority, 90);
    kv_ok(kvb_block_unref(rig->kv, targets, 4, NULL));
    mv_drop(rig, &run);
    kv_ok(kvb_op_release(rig->kv, other));
    kv_ok(kvb_op_release(rig->kv, op));
}

static void test_done_of_many_operations_is_called_in_bounded_steps(void **state)
{
    struct kv_rig *rig = *state;
    if (kv_device_is_cuda()) /* about copies that poll makes itself, in slices of its time */
        return;
    struct mv_run run;
    struct kvb_op *ops[OPS];
    static struct mv_done done[OPS];
    open_for_many(rig);
    start_many(rig, &run, ops, done, 0);
    mv_signal(rig, 5);
    assert_int_equal(kvb_manager_poll(rig->kv, 0), 1);
    assert_in_range(called(done), 1, KVBI_LOCK_BATCH);
    mv_step(rig);
    assert_int_equal(called(done), OPS);
    release_many(rig, ops);
}

/* Operations that are to be cut short, or have been. */
static uint32_t aborted(const struct kvb_manager *kv)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < OPS; i++)
        count += kv->pipeline.onboard.ops[i].abort != 0;
    return count;
}

static void test_operations_that_time_out_together_are_ended_in_bounded_steps(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct kvb_op *ops[OPS];
    static struct mv_done done[OPS];
    open_for_many(rig);
    start_many(rig, &run, ops, done, KV_SECOND);
    kv_advance(rig, 2 * KV_SECOND);
    assert_int_equal(kvb_manager_poll(rig->kv, 0), 1);
    assert_in_range(aborted(rig->kv), 1, KVBI_LOCK_BATCH);
    mv_step(rig);
    assert_int_equal(called(done), OPS);
    for (uint32_t i = 0; i < OPS; i++)
        mv_expect_done(&done[i], KVB_ETIMEDOUT, 0);
    release_many(rig, ops);
}

/* ---- Waits that are over --------------------------------------------------------------------- */

static void test_op_wait_for_no_time_returns_while_copies_are_left(void **state)
{
    struct kv_rig *rig = *state;
    if (kv_device_is_cuda()) /* about copies that poll makes itself, in slices of its time */
        return;
    struct mv_run run;
    struct mv_done done;
    mv_two_tiers(rig, 40, 40, KVB_OFFLOAD_MANUAL);
    mv_open_slow(rig);
    mv_park(rig, &run, KVB_TIER_HOST, 1, 40);
    struct kvb_op *op = mv_bring_up(rig, &run, KVB_TIER_DEVICE, &done);
    kv_expect(kvb_op_wait(rig->kv, op, 0), KVB_ETIMEDOUT);
    assert_in_range(mv_up(rig).transferred, 1, 39);
    mv_step(rig);
    mv_expect_done(&done, 0, 40);
    kv_ok(kvb_op_release(rig->kv, op));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kv_rig, test_onboard_of_more_blocks_than_the_tier_in_between_brings_all),
        TEST(kv_rig, test_item_without_room_does_not_hold_up_those_behind_it),
        TEST(waiting, test_room_that_a_lane_waits_for_asks_for_a_poll),
        TEST(waiting, test_onboard_that_waits_for_room_ends_once_room_is_there),
        TEST(waiting, test_onboard_that_waits_for_room_under_a_thread_ends_unasked),
        TEST(kv_rig, test_replacement_after_cancel_is_free_since_the_operations_fence),
        TEST(kv_rig, test_replacement_of_a_shared_block_is_free_since_the_operations_fence),
        TEST(kv_rig, test_empty_blocks_that_are_handed_back_have_the_default_priority),
        TEST(kv_rig, test_done_of_many_operations_is_called_in_bounded_steps),
        TEST(kv_rig, test_operations_that_time_out_together_are_ended_in_bounded_steps),
        TEST(kv_rig, test_op_wait_for_no_time_returns_while_copies_are_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
