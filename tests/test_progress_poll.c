/* SPDX-License-Identifier: Apache-2.0 */
/* Progress by the caller's polls. */
#include <poll.h>
#include <pthread.h>

#include "support/modes.h"

struct elsewhere {
    struct kv_rig *rig;
    struct kvb_op *op;
    int poll, flush, wait, destroy;
};

static void *call_elsewhere(void *argument)
{
    struct elsewhere *elsewhere = argument;
    elsewhere->poll = kvb_manager_poll(elsewhere->rig->kv, 0);
    elsewhere->flush = kvb_manager_flush(elsewhere->rig->kv, 0);
    elsewhere->wait = kvb_op_wait(elsewhere->rig->kv, elsewhere->op, 0);
    return NULL;
}

static void *destroy_elsewhere(void *argument)
{
    struct elsewhere *elsewhere = argument;
    elsewhere->destroy = kvb_manager_destroy(elsewhere->rig->kv);
    return NULL;
}

static void run_elsewhere(struct elsewhere *elsewhere, void *(*run)(void *))
{
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, run, elsewhere), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

static void test_poll_belongs_to_the_thread_of_its_first_call(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct elsewhere elsewhere = {.rig = rig};
    mv_open_two(rig, 8, 8, KVB_OFFLOAD_MANUAL);
    mv_store_beside(rig, &run, KVB_TIER_HOST, 1, 1, 0);
    elsewhere.op = mv_bring_beside(rig, &run, KVB_TIER_DEVICE, 0, 0, NULL);
    mv_step(rig);
    run_elsewhere(&elsewhere, call_elsewhere);
    assert_int_equal(elsewhere.poll, KVB_ETHREAD);
    assert_int_equal(elsewhere.flush, KVB_ETHREAD);
    assert_int_equal(elsewhere.wait, KVB_ETHREAD);
    mv_step(rig);
    kv_ok(kvb_op_release(rig->kv, elsewhere.op));
    mv_drop_beside(rig, &run);
}

static void test_refused_destroy_elsewhere_does_not_claim_the_polling(void **state)
{
    struct kv_rig *rig = *state;
    struct elsewhere elsewhere = {.rig = rig};
    mv_open_two(rig, 8, 8, KVB_OFFLOAD_MANUAL);
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    run_elsewhere(&elsewhere, destroy_elsewhere);
    assert_int_equal(elsewhere.destroy, KVB_EBUSY);
    mv_step(rig);
    kv_unref(rig, block);
}

static void test_destroy_works_from_a_thread_that_never_polled(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct elsewhere elsewhere = {.rig = rig};
    mv_open_two(rig, 8, 8, KVB_OFFLOAD_ON_REGISTER);
    mv_step(rig);
    mv_store_beside(rig, &run, KVB_TIER_DEVICE, 1, 2, 1);
    mv_step(rig);
    mv_drop_beside(rig, &run);
    run_elsewhere(&elsewhere, destroy_elsewhere);
    assert_int_equal(elsewhere.destroy, 0);
    rig->kv = NULL;
    assert_int_equal(rig->heap.live_bytes, 0);
}

/* It goes on by a millisecond each time somebody looks. */
static uint64_t ticking_now(void *context)
{
    struct kv_clock *clock = context;
    return atomic_fetch_add(&clock->now_ns, KV_MS);
}

static void test_poll_stops_when_its_time_is_over_and_says_that_work_is_left(void **state)
{
    struct kv_rig *rig = *state;
    if (kv_device_is_cuda()) /* about copies that poll makes itself, in slices of its time */
        return;
    struct mv_run runs[8];
    mv_two_tiers(rig, 8, 8, KVB_OFFLOAD_MANUAL);
    rig->config.clock.now_ns = ticking_now;
    mv_bounds(rig, 0, 16, 8, 2, 16);
    mv_open_recorded(rig);
    mv_store_each(rig, runs, KVB_TIER_DEVICE, 1, 8);
    for (uint32_t i = 8; i-- > 0;) /* backwards: no two are neighbours, each is a copy of its own */
        mv_offer(rig, runs[i].blocks[0], 50);
    assert_int_equal(kvb_manager_poll(rig->kv, 3 * KV_MS), 1);
    kv_check(rig);
    assert_in_range(rig->copies.count, 1, 4);
    uint32_t before = rig->copies.count;
    assert_int_equal(kvb_manager_poll(rig->kv, 0), 1);
    assert_in_range(rig->copies.count, before + 1, before + 2);
    mv_step(rig);
    assert_int_equal(rig->copies.count, 8);
    assert_int_equal(kvb_manager_poll(rig->kv, 3 * KV_MS), 0);
    mv_drop_each(rig, runs, 8);
}

static bool readable(struct kv_rig *rig)
{
    struct pollfd ready = {.fd = kvb_manager_event_fd(rig->kv), .events = POLLIN};
    assert_true(ready.fd >= 0);
    return poll(&ready, 1, 0) == 1;
}

static void test_event_fd_is_readable_exactly_while_there_is_something_to_do(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done done;
    struct kvb_block *blocks[8];
    mv_open_two(rig, 8, 8, KVB_OFFLOAD_MANUAL);
    mv_step(rig);
    assert_false(readable(rig));
    mv_store_after(rig, &run, KVB_TIER_DEVICE, 1, 2, 1); /* two events to deliver */
    assert_true(readable(rig));
    assert_true(readable(rig));
    mv_step(rig);
    assert_false(readable(rig));
    mv_offer(rig, run.blocks[0], 50);
    assert_true(readable(rig));
    mv_step(rig);
    assert_false(readable(rig)); /* only the fence can go on */
    mv_signal(rig, 1);
    assert_true(readable(rig));
    mv_step(rig);
    assert_false(readable(rig));
    mv_drop(rig, &run);
    assert_false(readable(rig)); /* parking is nothing to do with this trigger */
    mv_evict_all(rig, KVB_TIER_DEVICE);
    assert_true(readable(rig)); /* two more events */
    mv_step(rig);
    assert_false(readable(rig));
    run.count = 1;
    struct kvb_op *op = mv_bring_up(rig, &run, KVB_TIER_DEVICE, &done);
    assert_true(readable(rig));
    mv_step(rig);
    assert_false(readable(rig));
    assert_int_equal(done.calls, 1);
    kv_ok(kvb_op_release(rig->kv, op));
    mv_step(rig);
    mv_alloc_many(rig, KVB_TIER_DEVICE, 7, blocks);
    assert_false(readable(rig)); /* nothing was evicted */
    kv_ok(kvb_block_unref(rig->kv, blocks, 7, NULL));
}

static void test_next_timeout_is_work_or_the_next_deadline_or_for_ever(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done done;
    uint64_t timeout_ns = 1;
    mv_open_two(rig, 8, 8, KVB_OFFLOAD_MANUAL);
    mv_store(rig, &run, KVB_TIER_HOST, 1, 1);
    kv_ok(kvb_manager_next_timeout(rig->kv, &timeout_ns));
    assert_true(timeout_ns == 0);
    mv_step(rig);
    kv_ok(kvb_manager_next_timeout(rig->kv, &timeout_ns));
    assert_true(timeout_ns == KVB_FOREVER);
    struct kvb_op *op = mv_bring_beside(rig, &run, KVB_TIER_DEVICE, 1, 9 * KV_MS, &done);
    mv_step(rig);
    kv_advance(rig, 4 * KV_MS);
    kv_ok(kvb_manager_next_timeout(rig->kv, &timeout_ns));
    assert_true(timeout_ns == 5 * KV_MS);
    kv_ok(kvb_pin(rig->kv, 1, run.blocks, 1, 2 * KV_MS, NULL));
    mv_step(rig);
    kv_ok(kvb_manager_next_timeout(rig->kv, &timeout_ns));
    assert_true(timeout_ns == 2 * KV_MS);
    kv_advance(rig, 7 * KV_MS);
    kv_ok(kvb_manager_next_timeout(rig->kv, &timeout_ns));
    assert_true(timeout_ns == 0);
    mv_step(rig);
    kv_ok(kvb_manager_next_timeout(rig->kv, &timeout_ns));
    assert_true(timeout_ns == KVB_FOREVER);
    assert_int_equal(done.status, KVB_ETIMEDOUT);
    kv_ok(kvb_op_release(rig->kv, op));
    mv_drop_beside(rig, &run);
    mv_reach(rig, 1);
}

int main(void)
{
    const struct CMUnitTest by_polls[] = {
        TEST(polled, test_poll_belongs_to_the_thread_of_its_first_call),
        TEST(polled, test_refused_destroy_elsewhere_does_not_claim_the_polling),
        TEST(polled, test_destroy_works_from_a_thread_that_never_polled),
        TEST(polled, test_poll_stops_when_its_time_is_over_and_says_that_work_is_left),
        TEST(polled, test_event_fd_is_readable_exactly_while_there_is_something_to_do),
        TEST(polled, test_next_timeout_is_work_or_the_next_deadline_or_for_ever),
    };
    return cmocka_run_group_tests_name("progress, polled", by_polls, NULL, NULL);
}
