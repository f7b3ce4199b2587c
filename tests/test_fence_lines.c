/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counters on several lines: what waits for one does not wait for another, and both can be waited
 * for.
 */
#include "support/kv_asleep.h"
#include "support/kv_wait.h"
#include "support/move_test.h"
#include "support/test.h"

#define STEPS 0u
#define NIC 63u
#define CPU 7u

static struct kvb_fence on_line(uint32_t line, uint64_t value)
{
    return (struct kvb_fence){.kind = KVB_FENCE_COUNTER, .line = line, .handle = value};
}

static void reach(struct kv_rig *rig, uint32_t line, uint64_t value)
{
    kv_ok(kvb_fence_signal(rig->kv, line, value));
    mv_step(rig);
}

/* A block that is computed, and offered behind the fence. */
static void offer_behind(struct kv_rig *rig, struct mv_run *run, uint64_t seed,
                         struct kvb_fence fence)
{
    mv_store(rig, run, KVB_TIER_DEVICE, seed, 1);
    kv_ok(kvb_block_offload(rig->kv, run->blocks, 1, 50, &fence, NULL));
}

static int lines_setup(void **state)
{
    int error = kv_rig_setup(state);
    struct kv_rig *rig = *state;
    if (error != 0)
        return error;
    mv_two_tiers(rig, 8, 8, KVB_OFFLOAD_MANUAL);
    mv_bounds(rig, 0, 1, 1, 1, 64);
    return 0;
}
#define lines_teardown kv_rig_teardown

/* One place with the engine, none for what is not ready: all wait in front of the lane. */
static void test_what_waits_for_one_line_goes_when_that_comes(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run runs[3];
    kv_rig_open(rig);
    offer_behind(rig, &runs[0], 1, on_line(STEPS, 100));
    offer_behind(rig, &runs[1], 2, on_line(NIC, 5));
    offer_behind(rig, &runs[2], 3, on_line(CPU, 7));
    mv_step(rig);
    assert_int_equal(mv_down(rig).transferred, 0);
    reach(rig, CPU, 6);
    assert_int_equal(mv_down(rig).transferred, 0);
    reach(rig, CPU, 7);
    assert_int_equal(mv_in_tier(rig, &runs[2], KVB_TIER_DEVICE), 1);
    assert_int_equal(mv_down(rig).transferred, 1);
    reach(rig, NIC, 9);
    assert_int_equal(mv_down(rig).transferred, 2);
    reach(rig, STEPS, 99);
    assert_int_equal(mv_down(rig).transferred, 2);
    reach(rig, STEPS, 100);
    assert_int_equal(mv_down(rig).transferred, 3);
    mv_drop_each(rig, runs, 3);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    mv_expect_each_in(rig, runs, 3, KVB_TIER_HOST);
    mv_expect_books(rig, true);
}

/* Free since one point, written after another: as a server gives them. */
static void give_two(struct kv_rig *rig, struct mv_run *run, struct kvb_fence free_since,
                     struct kvb_fence written)
{
    uint32_t computed = KV_TOKENS;
    mv_name(rig, run, 1, 1);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, &free_since, run->blocks, NULL));
    kv_init(rig, run->blocks[0], 0, 0, NULL);
    kv_append(rig, run->blocks[0], run->tokens, KV_TOKENS, 0);
    kv_schedule(rig, run->blocks[0]);
    kv_ok(kvb_block_compute_done(rig->kv, run->blocks, &computed, 1, &written, NULL));
    kv_ok(kvb_block_register(rig->kv, run->blocks, 1, NULL, NULL, NULL));
    mv_offer(rig, run->blocks[0], 50);
    mv_step(rig);
}

static void waits_for_both(struct kv_rig *rig, uint32_t comes_first, uint32_t comes_last)
{
    struct mv_run run;
    kv_rig_open(rig);
    give_two(rig, &run, on_line(NIC, 5), on_line(CPU, 5));
    reach(rig, comes_first, 5);
    assert_int_equal(mv_down(rig).transferred, 0);
    reach(rig, comes_last, 5);
    assert_int_equal(mv_down(rig).transferred, 1);
    mv_drop(rig, &run);
}

static void test_block_with_fences_of_two_lines_waits_for_the_one_that_comes_last(void **state)
{
    waits_for_both(*state, NIC, CPU);
}

static void test_block_with_fences_of_two_lines_waits_for_the_other_too(void **state)
{
    waits_for_both(*state, CPU, NIC);
}

static void test_fence_of_another_line_replaces_one_that_is_reached(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    kv_rig_open(rig);
    kv_ok(kvb_fence_signal(rig->kv, NIC, 5));
    give_two(rig, &run, on_line(NIC, 5), on_line(CPU, 5));
    assert_int_equal(kvbi_ticket_line(run.blocks[0]->ticket), CPU);
    reach(rig, CPU, 5);
    assert_int_equal(mv_down(rig).transferred, 1);
    mv_drop(rig, &run);
}

/* The fence of the offload comes on top of what register had; under the lock no driver is asked. */
static void test_fences_of_register_and_offload_are_both_waited_for(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct kvb_fence later = on_line(CPU, 1);
    kv_rig_open(rig);
    mv_store_after(rig, &run, KVB_TIER_DEVICE, 1, 1, 4);
    kv_ok(kvb_block_offload(rig->kv, run.blocks, 1, 50, &later, NULL));
    assert_int_equal(kvbi_ticket_line(run.blocks[0]->ticket), KVBI_LINE_JOINT);
    reach(rig, CPU, 1);
    assert_int_equal(mv_down(rig).transferred, 0);
    reach(rig, STEPS, 4);
    assert_int_equal(mv_down(rig).transferred, 1);
    mv_drop(rig, &run);
}

/* Both slots of HOST are behind a line; the lane takes the one whose line comes. */
static void test_target_behind_one_line_is_passed_over_for_one_behind_another(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct kvb_block *slots[2];
    struct kvb_fence never = on_line(NIC, 1), soon = on_line(CPU, 1);
    mv_two_tiers(rig, 8, 2, KVB_OFFLOAD_MANUAL);
    mv_bounds(rig, 0, 1, 1, 1, 64);
    kv_rig_open(rig);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_HOST, 1, &never, &slots[0], NULL));
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_HOST, 1, &soon, &slots[1], NULL));
    kv_ok(kvb_block_unref(rig->kv, slots, 2, NULL));
    mv_store(rig, &run, KVB_TIER_DEVICE, 1, 1);
    mv_offer(rig, run.blocks[0], 50);
    mv_step(rig);
    assert_int_equal(mv_down(rig).transferred, 0);
    reach(rig, CPU, 1);
    assert_int_equal(mv_down(rig).transferred, 1);
    mv_drop(rig, &run);
}

/* ---- Waking ---------------------------------------------------------------------------------- */

static void asleep_until(struct kv_rig *rig, struct mv_run *run, struct kvb_op **op,
                         struct kv_wait *done, const struct kvb_fence *fences, uint32_t count)
{
    struct kvb_block *target = NULL;
    rig->config.progress = KVB_PROGRESS_THREAD;
    kv_rig_open(rig);
    kv_wait_init(done);
    mv_store(rig, run, KVB_TIER_HOST, 1, 1);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, &fences[0], &target, NULL));
    struct kvb_onboard request = mv_request(run->blocks, &target, 1, NULL);
    request.fence = count > 1 ? &fences[1] : NULL;
    request.done = mv_done_signal;
    request.arg = done;
    *op = mv_onboard(rig, &request);
    assert_true(kv_falls_asleep(rig->kv));
}

static void test_signal_of_the_line_wakes_who_sleeps_and_of_another_does_not(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct kvb_op *op;
    static struct kv_wait done;
    const struct kvb_fence fence = on_line(NIC, 5);
    asleep_until(rig, &run, &op, &done, &fence, 1);
    kv_ok(kvb_fence_signal(rig->kv, STEPS, 1000));
    kv_ok(kvb_fence_signal(rig->kv, NIC, 4));
    assert_false(atomic_load(&rig->kv->progress.signalled)); /* for nothing */
    kv_ok(kvb_fence_signal(rig->kv, NIC, 5));
    assert_true(kv_wait_for(&done, 1));
    mv_drop(rig, &run);
    mv_end(rig, &run, op, 1);
}

static void test_last_of_two_lines_wakes_who_sleeps(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct kvb_op *op;
    static struct kv_wait done;
    const struct kvb_fence fences[2] = {on_line(NIC, 5), on_line(CPU, 6)};
    asleep_until(rig, &run, &op, &done, fences, 2);
    kv_ok(kvb_fence_signal(rig->kv, NIC, 5));
    assert_true(kv_falls_asleep(rig->kv));
    kv_ok(kvb_fence_signal(rig->kv, CPU, 6));
    assert_true(kv_wait_for(&done, 1));
    mv_drop(rig, &run);
    mv_end(rig, &run, op, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(lines, test_what_waits_for_one_line_goes_when_that_comes),
        TEST(lines, test_block_with_fences_of_two_lines_waits_for_the_one_that_comes_last),
        TEST(lines, test_block_with_fences_of_two_lines_waits_for_the_other_too),
        TEST(lines, test_fence_of_another_line_replaces_one_that_is_reached),
        TEST(lines, test_fences_of_register_and_offload_are_both_waited_for),
        TEST(lines, test_target_behind_one_line_is_passed_over_for_one_behind_another),
        TEST(lines, test_signal_of_the_line_wakes_who_sleeps_and_of_another_does_not),
        TEST(lines, test_last_of_two_lines_wakes_who_sleeps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
