/* SPDX-License-Identifier: Apache-2.0 */
/* Moving up: `done`, take and release, and whom a copy up waits for. */
#include "support/move_test.h"
#include "support/test.h"

/* ---- `done`, take, release ------------------------------------------------------------------- */

static void test_release_before_done_still_delivers_it_once(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done done;
    mv_open_two(rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_park(rig, &run, KVB_TIER_HOST, 1, 2);
    struct kvb_op *op = mv_bring_up(rig, &run, KVB_TIER_DEVICE, &done);
    kv_ok(kvb_op_release(rig->kv, op));
    kv_check(rig);
    assert_int_equal(done.calls, 0);
    mv_step(rig);
    mv_step(rig);
    mv_expect_done(&done, KVB_ECANCELED, 0);
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_DEVICE].free_count, 4);
    kv_expect(kvb_op_release(rig->kv, op), KVB_EINVAL);
}

static void test_release_without_take_parks_what_arrived(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done done;
    mv_open_two(rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_park(rig, &run, KVB_TIER_HOST, 1, 2);
    struct kvb_op *op = mv_bring_up(rig, &run, KVB_TIER_DEVICE, &done);
    mv_step(rig);
    kv_ok(kvb_op_release(rig->kv, op));
    kv_check(rig);
    mv_step(rig);
    mv_expect_done(&done, 0, 2);
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_DEVICE].held_count, 0);
    mv_expect_in(rig, &run, KVB_TIER_DEVICE);
}

static void test_take_before_the_end_is_again_and_twice_is_a_state_error(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct kvb_block *blocks[3];
    uint32_t good = 9;
    mv_open_two(rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_park(rig, &run, KVB_TIER_HOST, 1, 2);
    struct kvb_op *op = mv_bring_up(rig, &run, KVB_TIER_DEVICE, NULL);
    kv_expect(kvb_op_take(rig->kv, op, blocks, 2, &good), KVB_EAGAIN);
    assert_int_equal(good, 0);
    mv_step(rig);
    kv_expect(kvb_op_take(rig->kv, op, blocks, 1, &good), KVB_EINVAL);
    kv_expect(kvb_op_take(rig->kv, op, blocks, 3, &good), KVB_EINVAL);
    kv_expect(kvb_op_take(rig->kv, op, NULL, 2, &good), KVB_EINVAL);
    kv_ok(kvb_op_take(rig->kv, op, blocks, 2, &good));
    assert_int_equal(good, 2);
    kv_expect(kvb_op_take(rig->kv, op, run.blocks, 2, &good), KVB_ESTATE);
    kv_check(rig);
    kv_ok(kvb_op_release(rig->kv, op));
    kv_ok(kvb_block_unref(rig->kv, blocks, 2, NULL));
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
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct kvb_block *targets[2];
    struct taker taker = {.rig = rig};
    mv_open_two(rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_store(rig, &run, KVB_TIER_HOST, 1, 2);
    mv_alloc_many(rig, KVB_TIER_DEVICE, 2, targets);
    struct kvb_onboard request = mv_request(run.blocks, targets, 2, NULL);
    request.done = take_and_release;
    request.arg = &taker;
    struct kvb_op *op = mv_onboard(rig, &request);
    mv_drop(rig, &run);
    mv_step(rig);
    assert_int_equal(taker.calls, 1);
    assert_int_equal(taker.take, 0);
    assert_int_equal(taker.release, 0);
    assert_int_equal(taker.wait, KVB_EDEADLK);
    assert_int_equal(taker.poll, KVB_EDEADLK);
    assert_int_equal(taker.good_count, 2);
    for (uint32_t i = 0; i < 2; i++)
        assert_true(mv_bytes_are(rig, taker.blocks[i], &run.seqs[i]));
    kv_ok(kvb_block_unref(rig->kv, taker.blocks, 2, NULL));
    kv_expect(kvb_op_cancel(rig->kv, op), KVB_EINVAL); /* released */
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
    struct kv_rig *rig = *state;
    struct mv_run runs[2];
    mv_open_two(rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_store_each(rig, runs, KVB_TIER_HOST, 1, 2);
    struct kvb_block *target = kv_alloc(rig, KVB_TIER_DEVICE);
    struct chain_start start = {
        .rig = rig, .next = &runs[1], .target = kv_alloc(rig, KVB_TIER_DEVICE)};
    struct kvb_onboard request = mv_request(runs[0].blocks, &target, 1, NULL);
    request.done = start_another;
    request.arg = &start;
    (void)mv_onboard(rig, &request);
    mv_step(rig);
    assert_int_equal(start.code, 0);
    mv_expect_done(&start.done, 0, 1);
    kv_ok(kvb_op_release(rig->kv, start.op));
    mv_drop_each(rig, runs, 2);
}

static void test_wait_drives_progress_and_returns_the_status(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done done;
    mv_open_two(rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_park(rig, &run, KVB_TIER_HOST, 1, 2);
    struct kvb_op *op = mv_bring_up(rig, &run, KVB_TIER_DEVICE, &done);
    kv_ok(kvb_op_wait(rig->kv, op, KVB_FOREVER));
    mv_expect_done(&done, 0, 2);
    mv_end(rig, &run, op, 2);
}

/* ---- Fences ---------------------------------------------------------------------------------- */

/* The server's own late write into the target's memory. True if the onboarded bytes survive it. */
static bool survives_late_write(struct kv_rig *rig, bool with_alloc, bool with_onboard)
{
    struct kvb_fence fence = mv_fence(1);
    struct mv_run run;
    struct kvb_block *target = NULL;
    mv_open_two(rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_store(rig, &run, KVB_TIER_HOST, 1, 1);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, with_alloc ? &fence : NULL, &target, NULL));
    struct kvb_onboard request = mv_request(run.blocks, &target, 1, NULL);
    request.fence = with_onboard ? &fence : NULL;
    struct kvb_op *op = mv_onboard(rig, &request);
    mv_drop(rig, &run);
    mv_step(rig);
    /* What used the memory before is over only now, and says so. */
    kv_payload_fill(rig, target, UINT64_C(0xbad));
    mv_reach(rig, 1);
    uint32_t good = 0;
    kv_ok(kvb_op_take(rig->kv, op, &run.blocks[0], 1, &good));
    assert_int_equal(good, 1);
    bool right = mv_bytes_are(rig, run.blocks[0], &run.seqs[0]);
    kv_ok(kvb_op_release(rig->kv, op));
    mv_drop(rig, &run);
    return right;
}

static void test_fence_of_alloc_keeps_a_transfer_out_of_memory_in_use(void **state)
{
    assert_true(survives_late_write(*state, true, false));
}

static void test_fence_of_onboard_keeps_a_transfer_out_of_memory_in_use(void **state)
{
    assert_true(survives_late_write(*state, false, true));
}

static void test_no_fence_lets_a_late_write_spoil_the_block(void **state)
{
    assert_false(survives_late_write(*state, false, false));
}

static void test_written_after_fence_of_the_source_is_waited_for(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done done;
    mv_open_two(rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_store_after(rig, &run, KVB_TIER_HOST, 1, 1, 1);
    kv_payload_fill(rig, run.blocks[0], UINT64_C(0xbad));
    struct kvb_block *target = kv_alloc(rig, KVB_TIER_DEVICE);
    struct kvb_onboard request = mv_request(run.blocks, &target, 1, &done);
    struct kvb_op *op = mv_onboard(rig, &request);
    mv_step(rig);
    assert_int_equal(done.calls, 0);
    kv_payload_fill(rig, run.blocks[0], run.seqs[0].hash);
    mv_reach(rig, 1);
    mv_drop(rig, &run);
    mv_end(rig, &run, op, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kv_rig, test_release_before_done_still_delivers_it_once),
        TEST(kv_rig, test_release_without_take_parks_what_arrived),
        TEST(kv_rig, test_take_before_the_end_is_again_and_twice_is_a_state_error),
        TEST(kv_rig, test_take_and_release_from_within_done_work),
        TEST(kv_rig, test_done_may_start_another_operation),
        TEST(kv_rig, test_wait_drives_progress_and_returns_the_status),
        TEST(kv_rig, test_fence_of_alloc_keeps_a_transfer_out_of_memory_in_use),
        TEST(kv_rig, test_fence_of_onboard_keeps_a_transfer_out_of_memory_in_use),
        TEST(kv_rig, test_no_fence_lets_a_late_write_spoil_the_block),
        TEST(kv_rig, test_written_after_fence_of_the_source_is_waited_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
