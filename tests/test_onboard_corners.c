/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Onboarding where room is short or many meet: chains longer than the tier in between, items that stand in each other's
 * way, room that comes up unasked, memory that is not free yet, and many operations in one round.
 */
#include "support/kv_asleep.h"
#include "support/kv_wait.h"
#include "support/move_test.h"

#include "api/manager.h"

/* The run's blocks, whichever tier they are in, on their way into `targets`. The sources are let go at once. */
static struct kvb_op *start_into(struct kv_rig *rig, struct mv_run *run,
                                 struct kvb_block *const *targets, struct mv_done *done)
{
    struct kvb_op *op = NULL;
    assert_int_equal(mv_match(rig, run), run->count);
    struct kvb_onboard request = mv_request(run->blocks, targets, run->count, done);
    kv_ok(kvb_onboard(rig->kv, &request, &op));
    kv_check(rig);
    mv_drop(rig, run);
    return op;
}

/* A content of one block on its way into a fresh block of `tier`. */
static struct kvb_op *start_one(struct kv_rig *rig, struct mv_run *run, uint32_t tier,
                                uint32_t priority, struct mv_done *done)
{
    struct kvb_op *op = NULL;
    struct kvb_block *target = kv_alloc(rig, tier);
    assert_int_equal(mv_match(rig, run), 1);
    struct kvb_onboard request = mv_request(run->blocks, &target, 1, done);
    request.flags = KVB_ONBOARD_PRIORITY;
    request.priority = priority;
    kv_ok(kvb_onboard(rig->kv, &request, &op));
    kv_check(rig);
    mv_drop(rig, run);
    return op;
}

static void expect_done(const struct mv_done *done, int status, uint32_t good_count)
{
    assert_int_equal(done->calls, 1);
    assert_int_equal(done->status, status);
    assert_int_equal(done->good_count, good_count);
}

static struct kvb_block *alloc_after(struct kv_rig *rig, uint32_t tier, uint64_t fence_value)
{
    struct kvb_fence fence = {.kind = KVB_FENCE_COUNTER, .handle = fence_value};
    struct kvb_block *block = NULL;
    kv_ok(kvb_alloc(rig->kv, tier, 1, &fence, &block, NULL));
    return block;
}

/* ---- Chains and the tier in between ------------------------------------------------------------------------------- */

static void test_onboard_of_more_blocks_than_the_tier_in_between_brings_all(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    struct mv_done done;
    mv_three_tiers(&rig, 64, 8, 64);
    kv_rig_open(&rig);
    mv_park(&rig, &run, KVB_TIER_DISK, 1, 24);
    struct kvb_op *op = mv_bring_up(&rig, &run, KVB_TIER_DEVICE, &done);
    mv_step(&rig);
    expect_done(&done, 0, 24);
    assert_int_equal(mv_take(&rig, &run, op), 24);
    mv_drop(&rig, &run);
    assert_int_equal(mv_lane(&rig, KVB_TIER_DISK, KVB_TIER_HOST).skipped_no_target, 0);
    mv_expect_books(&rig, true);
    kv_rig_close(&rig);
}

/*
 * Two HOST blocks, both targets: of a prefetch that was cancelled but whose copy somebody waits for, and of another. An
 * item that needs a third one stands before the first in line. All but the cancelled one end well.
 */
static void test_item_without_room_does_not_hold_up_those_behind_it(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run runs[3];
    struct mv_done prefetched, joined, roomless, other;
    mv_three_tiers(&rig, 8, 2, 8);
    mv_bounds(&rig, 1, 4, 1, 1, 8);
    kv_rig_open(&rig);
    mv_store_each(&rig, runs, KVB_TIER_DISK, 1, 3);
    for (int i = 0; i < 3; i++) {
        mv_drop(&rig, &runs[i]);
    }
    struct kvb_op *ops[4];
    ops[0] = start_one(&rig, &runs[0], KVB_TIER_HOST, 10, &prefetched);
    ops[1] = start_one(&rig, &runs[0], KVB_TIER_DEVICE, 90, &joined);
    ops[2] = start_one(&rig, &runs[1], KVB_TIER_HOST, 90, &other);
    assert_int_equal(kvb_manager_poll(rig.kv, 0), 1);
    assert_int_equal(prefetched.calls, 0);
    ops[3] = start_one(&rig, &runs[2], KVB_TIER_DEVICE, 95, &roomless);
    kv_ok(kvb_op_cancel(rig.kv, ops[0]));
    mv_step(&rig);
    expect_done(&prefetched, KVB_ECANCELED, 0);
    expect_done(&joined, 0, 1);
    expect_done(&other, 0, 1);
    expect_done(&roomless, 0, 1);
    mv_expect_books(&rig, true);
    for (int i = 0; i < 4; i++) {
        kv_ok(kvb_op_release(rig.kv, ops[i]));
    }
    kv_rig_close(&rig);
}

/* ---- Room that comes up ------------------------------------------------------------------------------------------- */

/*
 * An operation from DISK to DEVICE that waits for room in HOST: one of the two blocks there is held, the other is the target
 * of an offload that waits for fence 5.
 */
struct waiting {
    struct mv_run run, offered;
    struct kvb_block *held, *target;
    struct kvb_op *op;
};

static void configure_waiting(struct kv_rig *rig)
{
    mv_three_tiers(rig, 8, 2, 8);
}

/* `kv_settle` in between would wait for the fence: nothing here looks at the invariants, as a thread may be at work. */
static void name_and_store(struct kv_rig *rig, struct mv_run *run, uint32_t tier, uint64_t seed,
                           uint64_t fence_value)
{
    struct kvb_fence fence = {.kind = KVB_FENCE_COUNTER, .handle = fence_value};
    mv_name(rig, run, seed, 1);
    run->blocks[0] = kv_alloc(rig, tier);
    mv_compute(rig, run, 0);
    kv_ok(kvb_block_register(rig->kv, run->blocks, 1, NULL, &fence, NULL));
}

static void store_for_waiting(struct kv_rig *rig, struct waiting *waiting)
{
    name_and_store(rig, &waiting->run, KVB_TIER_DISK, 1, 0);
    name_and_store(rig, &waiting->offered, KVB_TIER_DEVICE, 2, 5);
    kv_ok(kvb_block_offload(rig->kv, waiting->offered.blocks, 1, 50, NULL, NULL));
}

static void start_waiting(struct kv_rig *rig, struct waiting *waiting, kvb_onboard_done done,
                          void *arg)
{
    waiting->held = kv_alloc(rig, KVB_TIER_HOST);
    waiting->target = kv_alloc(rig, KVB_TIER_DEVICE);
    struct kvb_onboard request = mv_request(waiting->run.blocks, &waiting->target, 1, NULL);
    request.done = done;
    request.arg = arg;
    kv_ok(kvb_onboard(rig->kv, &request, &waiting->op));
}

static void end_waiting(struct kv_rig *rig, struct waiting *waiting)
{
    kv_ok(kvb_op_release(rig->kv, waiting->op));
    kv_unref(rig, waiting->run.blocks[0]);
    kv_unref(rig, waiting->offered.blocks[0]);
    kv_ok(kvb_fence_signal(rig->kv, 5));
    kv_settle(rig);
    kv_rig_close(rig);
}

static void test_room_that_a_lane_waits_for_asks_for_a_poll(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct waiting waiting;
    struct mv_done done = {0};
    uint64_t timeout_ns = 0;
    configure_waiting(&rig);
    kv_rig_open(&rig);
    store_for_waiting(&rig, &waiting);
    mv_step(&rig);
    start_waiting(&rig, &waiting, mv_done_record, &done);
    mv_step(&rig);
    kv_ok(kvb_manager_next_timeout(rig.kv, &timeout_ns));
    assert_true(timeout_ns == KVB_FOREVER);
    kv_unref(&rig, waiting.held);
    kv_ok(kvb_manager_next_timeout(rig.kv, &timeout_ns));
    assert_true(timeout_ns == 0);
    end_waiting(&rig, &waiting);
}

static void test_onboard_that_waits_for_room_ends_once_room_is_there(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct waiting waiting;
    struct mv_done done = {0};
    configure_waiting(&rig);
    kv_rig_open(&rig);
    store_for_waiting(&rig, &waiting);
    mv_step(&rig);
    start_waiting(&rig, &waiting, mv_done_record, &done);
    mv_step(&rig);
    assert_int_equal(done.calls, 0);
    kv_unref(&rig, waiting.held);
    mv_step(&rig);
    expect_done(&done, 0, 1);
    end_waiting(&rig, &waiting);
}

static void signal_done(void *arg, struct kvb_op *op, int status, uint32_t good_count)
{
    (void)op, (void)status, (void)good_count;
    kv_wait_signal(arg);
}

/* No call after the unref touches the manager until `done` has run. */
static void test_onboard_that_waits_for_room_under_a_thread_ends_unasked(void **state)
{
    (void)state;
    static struct kv_rig rig;
    static struct waiting waiting;
    static struct kv_wait done;
    kv_wait_init(&done);
    configure_waiting(&rig);
    rig.config.progress = KVB_PROGRESS_THREAD;
    kv_rig_open(&rig);
    store_for_waiting(&rig, &waiting);
    assert_true(kv_falls_asleep(rig.kv));
    start_waiting(&rig, &waiting, signal_done, &done);
    assert_true(kv_falls_asleep(rig.kv));
    assert_int_equal(done.count, 0);
    kv_unref(&rig, waiting.held);
    assert_true(kv_wait_for(&done, 1));
    end_waiting(&rig, &waiting);
}

/* ---- Memory that is not free yet ---------------------------------------------------------------------------------- */

/*
 * The target's own memory is under a transfer that waits for fence 5, so the operation gets another block; that one's memory,
 * too, is only known to be free at fence 5.
 */
static void test_replacement_after_cancel_is_free_since_the_operations_fence(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_copies copies;
    struct mv_run first, second;
    struct mv_done done;
    mv_two_tiers(&rig, 2, 8, KVB_OFFLOAD_MANUAL);
    mv_open(&rig, &copies);
    rig.hooks.keeps = true;
    mv_park(&rig, &first, KVB_TIER_HOST, 1, 1);
    mv_park(&rig, &second, KVB_TIER_HOST, 2, 1);
    struct kvb_block *target = alloc_after(&rig, KVB_TIER_DEVICE, 5);
    struct kvb_op *op = start_into(&rig, &first, &target, &done);
    mv_step(&rig);
    kv_ok(kvb_op_cancel(rig.kv, op));
    mv_step(&rig);
    expect_done(&done, KVB_ECANCELED, 0);
    assert_int_equal(mv_take(&rig, &first, op), 0);
    assert_non_null(first.blocks[0]);
    assert_ptr_not_equal(first.blocks[0], target);

    op = start_into(&rig, &second, first.blocks, &done);
    mv_step(&rig);
    assert_int_equal(done.calls, 0);
    assert_int_equal(copies.count, 0);
    mv_signal(&rig, 5);
    mv_step(&rig);
    expect_done(&done, 0, 1);
    kv_ok(kvb_op_release(rig.kv, op));
    kv_rig_close(&rig);
}

/* The second block arrives and is shared by now, the first does not: in place of the second there is another one. */
static void test_replacement_of_a_shared_block_is_free_since_the_operations_fence(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_copies copies;
    struct mv_run run, second;
    struct mv_done done;
    struct kvb_hit hits[2];
    size_t count = 0;
    mv_two_tiers(&rig, 4, 8, KVB_OFFLOAD_MANUAL);
    mv_open(&rig, &copies);
    mv_park(&rig, &run, KVB_TIER_HOST, 1, 2);
    mv_park(&rig, &second, KVB_TIER_HOST, 2, 1);
    struct kvb_block *targets[2] = {alloc_after(&rig, KVB_TIER_DEVICE, 9),
                                    alloc_after(&rig, KVB_TIER_DEVICE, 5)};
    struct kvb_op *op = start_into(&rig, &run, targets, &done);
    mv_signal(&rig, 5);
    mv_step(&rig);
    struct kvb_query query = kv_query(0, run.tokens, 2 * KV_TOKENS);
    kv_ok(kvb_match(rig.kv, &query, hits, 2, &count));
    assert_int_equal(count, 2);
    assert_ptr_equal(hits[1].block, targets[1]);
    kv_ok(kvb_op_cancel(rig.kv, op));
    mv_step(&rig);
    expect_done(&done, KVB_ECANCELED, 0);
    assert_int_equal(mv_take(&rig, &run, op), 0);
    assert_non_null(run.blocks[1]);
    assert_ptr_not_equal(run.blocks[1], targets[1]);

    uint32_t before = copies.count;
    op = start_into(&rig, &second, &run.blocks[1], &done);
    mv_step(&rig);
    assert_int_equal(done.calls, 0);
    assert_int_equal(copies.count, before);
    mv_signal(&rig, 9);
    mv_step(&rig);
    expect_done(&done, 0, 1);
    kv_ok(kvb_op_release(rig.kv, op));
    if (run.blocks[0] != NULL) {
        kv_unref(&rig, run.blocks[0]);
    }
    kv_unref(&rig, hits[0].block);
    kv_unref(&rig, hits[1].block);
    kv_rig_close(&rig);
}

/* ---- Many operations in one round --------------------------------------------------------------------------------- */

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
        struct kvb_block *target = alloc_after(rig, KVB_TIER_DEVICE, 5);
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
    for (uint32_t i = 0; i < OPS; i++) {
        kv_ok(kvb_op_release(rig->kv, ops[i]));
    }
    mv_signal(rig, 5);
    mv_step(rig);
}

/*
 * The first of three contents is invalidated between match and onboard, and the second one is on
 * its way for somebody else: no target gets a content, none keeps what was said of its source.
 */
static void test_empty_blocks_that_are_handed_back_have_the_default_priority(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    struct kvb_block *targets[4];
    struct kvb_op *other = NULL, *op = NULL;
    mv_two_tiers(&rig, 8, 8, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    mv_store(&rig, &run, KVB_TIER_HOST, 1, 3);
    kv_ok(kvb_block_set_priority(rig.kv, run.blocks, 3, 90, KV_SECOND, NULL));
    kv_ok(kvb_invalidate(rig.kv, run.seqs, 1, NULL));
    kv_ok(kvb_alloc(rig.kv, KVB_TIER_DEVICE, 4, NULL, targets, NULL));
    struct kvb_onboard first = mv_request(run.blocks + 1, targets, 1, NULL);
    kv_ok(kvb_onboard(rig.kv, &first, &other));
    struct kvb_onboard request = mv_request(run.blocks, targets + 1, 3, NULL);
    kv_ok(kvb_onboard(rig.kv, &request, &op));
    mv_step(&rig);
    uint32_t good = 99;
    kv_ok(kvb_op_take(rig.kv, op, targets + 1, 3, &good));
    assert_int_equal(good, 0);
    for (uint32_t i = 1; i < 4; i++) {
        struct kvb_block_info info = kv_describe(&rig, targets[i]);
        assert_int_equal(info.state, KVB_STATE_EMPTY);
        assert_int_equal(info.priority, KVB_PRIORITY_DEFAULT);
    }
    kv_ok(kvb_op_take(rig.kv, other, targets, 1, &good));
    assert_int_equal(good, 1);
    assert_int_equal(kv_describe(&rig, targets[0]).priority, 90);
    kv_ok(kvb_block_unref(rig.kv, targets, 4, NULL));
    mv_drop(&rig, &run);
    kv_ok(kvb_op_release(rig.kv, other));
    kv_ok(kvb_op_release(rig.kv, op));
    kv_rig_close(&rig);
}

static void test_done_of_many_operations_is_called_in_bounded_steps(void **state)
{
    (void)state;
    if (kv_device_is_cuda()) /* about copies that poll makes itself, in slices of its time */
        return;
    struct kv_rig rig;
    struct mv_run run;
    struct kvb_op *ops[OPS];
    static struct mv_done done[OPS];
    open_for_many(&rig);
    start_many(&rig, &run, ops, done, 0);
    mv_signal(&rig, 5);
    assert_int_equal(kvb_manager_poll(rig.kv, 0), 1);
    assert_in_range(called(done), 1, KVBI_LOCK_BATCH);
    mv_step(&rig);
    assert_int_equal(called(done), OPS);
    release_many(&rig, ops);
    kv_rig_close(&rig);
}

/* Operations that are to be cut short, or have been. */
static uint32_t aborted(const struct kvb_manager *kv)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < OPS; i++) {
        count += kv->pipeline.onboard.ops[i].abort != 0;
    }
    return count;
}

static void test_operations_that_time_out_together_are_ended_in_bounded_steps(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    struct kvb_op *ops[OPS];
    static struct mv_done done[OPS];
    open_for_many(&rig);
    start_many(&rig, &run, ops, done, KV_SECOND);
    kv_advance(&rig, 2 * KV_SECOND);
    assert_int_equal(kvb_manager_poll(rig.kv, 0), 1);
    assert_in_range(aborted(rig.kv), 1, KVBI_LOCK_BATCH);
    mv_step(&rig);
    assert_int_equal(called(done), OPS);
    for (uint32_t i = 0; i < OPS; i++) {
        expect_done(&done[i], KVB_ETIMEDOUT, 0);
    }
    release_many(&rig, ops);
    kv_rig_close(&rig);
}

/* ---- Waits that are over ------------------------------------------------------------------------------------------ */

/* Every copy takes 10 ms of the injected clock, which is more than progress does between two looks at the time. */
static int slow_copy(void *context, uint32_t from_tier, uint32_t from_slot, uint32_t to_tier,
                     uint32_t to_slot)
{
    (void)from_tier, (void)from_slot, (void)to_tier, (void)to_slot;
    kv_advance(context, 10 * KV_MS);
    return 0;
}

static void test_op_wait_for_no_time_returns_while_copies_are_left(void **state)
{
    (void)state;
    if (kv_device_is_cuda()) /* about copies that poll makes itself, in slices of its time */
        return;
    struct kv_rig rig;
    struct mv_run run;
    struct mv_done done;
    struct kvbi_hooks hooks = {.copy_fault = slow_copy, .context = &rig};
    mv_two_tiers(&rig, 40, 40, KVB_OFFLOAD_MANUAL);
    kv_rig_open_hooked(&rig, &hooks);
    mv_park(&rig, &run, KVB_TIER_HOST, 1, 40);
    struct kvb_op *op = mv_bring_up(&rig, &run, KVB_TIER_DEVICE, &done);
    kv_expect(kvb_op_wait(rig.kv, op, 0), KVB_ETIMEDOUT);
    assert_in_range(mv_lane(&rig, KVB_TIER_HOST, KVB_TIER_DEVICE).transferred, 1, 39);
    mv_step(&rig);
    expect_done(&done, 0, 40);
    kv_ok(kvb_op_release(rig.kv, op));
    kv_rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_onboard_of_more_blocks_than_the_tier_in_between_brings_all),
        cmocka_unit_test(test_item_without_room_does_not_hold_up_those_behind_it),
        cmocka_unit_test(test_room_that_a_lane_waits_for_asks_for_a_poll),
        cmocka_unit_test(test_onboard_that_waits_for_room_ends_once_room_is_there),
        cmocka_unit_test(test_onboard_that_waits_for_room_under_a_thread_ends_unasked),
        cmocka_unit_test(test_replacement_after_cancel_is_free_since_the_operations_fence),
        cmocka_unit_test(test_replacement_of_a_shared_block_is_free_since_the_operations_fence),
        cmocka_unit_test(test_empty_blocks_that_are_handed_back_have_the_default_priority),
        cmocka_unit_test(test_done_of_many_operations_is_called_in_bounded_steps),
        cmocka_unit_test(test_operations_that_time_out_together_are_ended_in_bounded_steps),
        cmocka_unit_test(test_op_wait_for_no_time_returns_while_copies_are_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
