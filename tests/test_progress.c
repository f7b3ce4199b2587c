/* SPDX-License-Identifier: Apache-2.0 */
/* Progress, by the caller's polls and by the manager's own thread: what both promise. */
#include <sys/wait.h>
#include <unistd.h>

#include "support/modes.h"

static void test_flush_returns_when_lanes_are_idle_and_events_delivered(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    mv_open_two(rig, 8, 8, KVB_OFFLOAD_ON_REGISTER);
    mv_store_beside(rig, &run, KVB_TIER_DEVICE, 1, 6, 0);
    modes_settle(rig);
    assert_int_equal(mv_down(rig).transferred, 6);
    assert_int_equal(modes_events_seen(rig), 12);
    mv_expect_books(rig, true);
    mv_drop_beside(rig, &run);
    modes_settle(rig);
}

static void test_flush_of_an_idle_manager_returns_at_once(void **state)
{
    struct kv_rig *rig = *state;
    mv_open_two(rig, 8, 8, KVB_OFFLOAD_MANUAL);
    modes_settle(rig);
    modes_settle(rig);
}

static void test_flush_times_out_while_a_fence_is_not_signalled(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    mv_open_two(rig, 8, 8, KVB_OFFLOAD_ON_REGISTER);
    mv_store_beside(rig, &run, KVB_TIER_DEVICE, 1, 2, 1);
    kv_expect(kvb_manager_flush(rig->kv, 0), KVB_ETIMEDOUT);
    kv_expect(kvb_manager_flush(rig->kv, KV_MS), KVB_ETIMEDOUT);
    kv_ok(kvb_fence_signal(rig->kv, 0, 1));
    modes_settle(rig);
    assert_int_equal(mv_down(rig).transferred, 2);
    mv_drop_beside(rig, &run);
    modes_settle(rig);
}

static void test_wait_returns_after_done_with_its_status(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done done;
    mv_open_two(rig, 8, 8, KVB_OFFLOAD_MANUAL);
    mv_store_beside(rig, &run, KVB_TIER_HOST, 1, 4, 0);
    struct kvb_op *op = mv_bring_beside(rig, &run, KVB_TIER_DEVICE, 0, 0, &done);
    kv_ok(kvb_op_wait(rig->kv, op, KVB_FOREVER));
    assert_int_equal(done.calls, 1);
    assert_int_equal(done.good_count, 4);
    mv_drop_beside(rig, &run);
    modes_settle(rig);
    assert_int_equal(mv_take(rig, &run, op), 4);
    mv_drop_beside(rig, &run);
    modes_settle(rig);
    assert_int_equal(done.calls, 1);
}

static void test_wait_times_out_and_the_operation_goes_on(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done done;
    mv_open_two(rig, 8, 8, KVB_OFFLOAD_MANUAL);
    mv_store_beside(rig, &run, KVB_TIER_HOST, 1, 2, 0);
    struct kvb_op *op = mv_bring_beside(rig, &run, KVB_TIER_DEVICE, 1, 0, &done);
    kv_expect(kvb_op_wait(rig->kv, op, KV_MS), KVB_ETIMEDOUT);
    assert_int_equal(done.calls, 0);
    kv_ok(kvb_fence_signal(rig->kv, 0, 1));
    kv_ok(kvb_op_wait(rig->kv, op, KVB_FOREVER));
    assert_int_equal(done.calls, 1);
    kv_ok(kvb_op_release(rig->kv, op));
    mv_drop_beside(rig, &run);
    modes_settle(rig);
}

static void test_cancelled_operation_ends_while_its_fence_is_open(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done done;
    mv_open_two(rig, 8, 8, KVB_OFFLOAD_MANUAL);
    mv_store_beside(rig, &run, KVB_TIER_HOST, 1, 2, 0);
    struct kvb_op *op = mv_bring_beside(rig, &run, KVB_TIER_DEVICE, 1, 0, &done);
    kv_ok(kvb_op_cancel(rig->kv, op));
    kv_expect(kvb_op_wait(rig->kv, op, KVB_FOREVER), KVB_ECANCELED);
    assert_int_equal(done.calls, 1);
    assert_int_equal(done.status, KVB_ECANCELED);
    kv_ok(kvb_op_release(rig->kv, op));
    mv_drop_beside(rig, &run);
    kv_ok(kvb_fence_signal(rig->kv, 0, 1));
    modes_settle(rig);
}

static void test_deadline_of_the_injected_clock_ends_an_operation(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done done;
    mv_open_two(rig, 8, 8, KVB_OFFLOAD_MANUAL);
    mv_store_beside(rig, &run, KVB_TIER_HOST, 1, 2, 0);
    struct kvb_op *op = mv_bring_beside(rig, &run, KVB_TIER_DEVICE, 1, 5 * KV_SECOND, &done);
    kv_expect(kvb_op_wait(rig->kv, op, 0), KVB_ETIMEDOUT);
    assert_int_equal(done.calls, 0);
    kv_advance(rig, 5 * KV_SECOND);
    kv_expect(kvb_op_wait(rig->kv, op, KVB_FOREVER), KVB_ETIMEDOUT);
    assert_int_equal(done.calls, 1);
    assert_int_equal(done.status, KVB_ETIMEDOUT);
    kv_ok(kvb_op_release(rig->kv, op));
    mv_drop_beside(rig, &run);
    kv_ok(kvb_fence_signal(rig->kv, 0, 1));
    modes_settle(rig);
}

static void test_events_come_in_order_stored_before_removed(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run, more;
    mv_open_two(rig, 8, 8, KVB_OFFLOAD_ON_REGISTER);
    mv_store_beside(rig, &run, KVB_TIER_DEVICE, 1, 8, 0);
    modes_settle(rig);
    mv_drop_beside(rig, &run);
    mv_store_beside(rig, &more, KVB_TIER_DEVICE, 2, 8, 0); /* evicts above, and then below */
    modes_settle(rig);
    mv_drop_beside(rig, &more);
    modes_settle(rig);
    assert_int_equal(modes_events_seen(rig), 4 * 8 + 2 * 8);
    for (size_t i = 0; i < rig->events.count; i++)
        assert_int_equal(rig->events.list[i].sequence, rig->events.list[0].sequence + i);
    for (uint32_t tier = 0; tier < 2; tier++)
        for (uint32_t i = 0; i < 8; i++) {
            size_t stored = 0, removed = 0;
            for (size_t at = 0; at < rig->events.count; at++) {
                const struct kv_event_record *event = &rig->events.list[at];
                if (event->tier != tier ||
                    memcmp(event->key, &run.seqs[i], sizeof run.seqs[i]) != 0)
                    continue;
                *(event->kind == KVB_EVENT_STORED ? &stored : &removed) = at + 1;
            }
            assert_true(stored > 0 && removed > stored);
        }
}

static void test_eviction_by_alloc_is_delivered_without_another_call(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct kvb_block *blocks[8];
    mv_open_two(rig, 8, 8, KVB_OFFLOAD_MANUAL);
    mv_store_beside(rig, &run, KVB_TIER_DEVICE, 1, 8, 0);
    mv_drop_beside(rig, &run);
    modes_settle(rig);
    assert_int_equal(modes_events_seen(rig), 8);
    mv_alloc_many(rig, KVB_TIER_DEVICE, 8, blocks);
    if (modes_is_polled(rig)) {
        uint64_t timeout_ns = KVB_FOREVER;
        kv_ok(kvb_manager_next_timeout(rig->kv, &timeout_ns));
        assert_true(timeout_ns == 0);
    }
    modes_await(rig, modes_events_seen(rig) == 16);
    kv_ok(kvb_block_unref(rig->kv, blocks, 8, NULL));
    modes_settle(rig);
}

static void test_every_call_that_makes_work_sets_it_off(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run, below;
    struct mv_done done, cut;
    mv_open_two(rig, 8, 8, KVB_OFFLOAD_MANUAL);
    mv_store_beside(rig, &run, KVB_TIER_DEVICE, 1, 1, 1);
    mv_store_beside(rig, &below, KVB_TIER_HOST, 2, 1, 0);
    modes_settle(rig);
    kv_ok(kvb_block_offload(rig->kv, run.blocks, 1, 50, NULL, NULL));
    modes_await(rig, mv_down(rig).inflight == 1);
    kv_ok(kvb_fence_signal(rig->kv, 0, 1));
    modes_await(rig, mv_down(rig).transferred == 1);
    struct kvb_op *op = mv_bring_beside(rig, &below, KVB_TIER_DEVICE, 0, 0, &done);
    modes_await(rig, done.calls == 1);
    kv_ok(kvb_op_release(rig->kv, op));
    modes_settle(rig);
    kv_ok(kvb_invalidate(rig->kv, below.seqs, 1, NULL));
    /* Stored above, below, once each by a lane; two removed. */
    modes_await(rig, modes_events_seen(rig) == 3 + 1 + 2);
    mv_drop_beside(rig, &below);
    mv_store_beside(rig, &below, KVB_TIER_HOST, 3, 1, 0);
    op = mv_bring_beside(rig, &below, KVB_TIER_DEVICE, 9, 0, &cut);
    modes_await(rig, mv_up(rig).inflight == 1);
    kv_ok(kvb_op_cancel(rig->kv, op));
    modes_await(rig, cut.calls == 1);
    kv_ok(kvb_op_release(rig->kv, op));
    kv_ok(kvb_fence_signal(rig->kv, 0, 9));
    mv_drop_beside(rig, &run);
    mv_drop_beside(rig, &below);
    modes_settle(rig);
}

static void test_parking_sets_off_an_offload(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    mv_open_two(rig, 8, 8, KVB_OFFLOAD_ON_PARK);
    mv_store_beside(rig, &run, KVB_TIER_DEVICE, 1, 4, 0);
    modes_settle(rig);
    mv_drop_beside(rig, &run);
    modes_await(rig, mv_down(rig).transferred == 4);
    modes_settle(rig);
}

static void test_last_pin_sets_off_an_offload(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    mv_open_two(rig, 8, 8, KVB_OFFLOAD_ON_PARK);
    mv_store_beside(rig, &run, KVB_TIER_DEVICE, 1, 4, 0);
    kv_ok(kvb_pin(rig->kv, 3, run.blocks, 4, 0, NULL));
    mv_drop_beside(rig, &run);
    modes_settle(rig);
    kv_ok(kvb_unpin(rig->kv, 3, run.blocks, 2, NULL));
    modes_await(rig, mv_down(rig).transferred == 2);
    kv_ok(kvb_unpin_all(rig->kv, 3, NULL));
    modes_await(rig, mv_down(rig).transferred == 4);
    modes_settle(rig);
}

/* What a callback gets when it calls what would wait for itself, and what would not. */
struct caller {
    struct kv_rig rig;
    struct kvb_op *op;
    _Atomic uint32_t calls;
    int poll, flush, wait, destroy, stats;
};

static int polled_caller_setup(void **state)
{
    struct caller *caller = kv_scene_begin(state, sizeof *caller);
    caller->rig.config.progress = KVB_PROGRESS_POLL;
    return 0;
}
#define polled_caller_teardown kv_scene_end

static int threaded_caller_setup(void **state)
{
    struct caller *caller = kv_scene_begin(state, sizeof *caller);
    caller->rig.config.progress = KVB_PROGRESS_THREAD;
    return 0;
}
#define threaded_caller_teardown kv_scene_end

static void call_everything(struct caller *caller)
{
    struct kvb_stats stats = {.size = sizeof stats};
    struct kvb_manager *kv = caller->rig.kv;
    caller->poll = kvb_manager_poll(kv, 0);
    caller->flush = kvb_manager_flush(kv, 0);
    caller->wait = caller->op == NULL ? KVB_EDEADLK : kvb_op_wait(kv, caller->op, 0);
    caller->destroy = kvb_manager_destroy(kv);
    caller->stats = kvb_manager_stats(kv, &stats);
    atomic_fetch_add(&caller->calls, 1);
}

static void expect_refused(const struct caller *caller)
{
    assert_true(caller->calls > 0);
    assert_int_equal(caller->poll, KVB_EDEADLK);
    assert_int_equal(caller->flush, KVB_EDEADLK);
    assert_int_equal(caller->wait, KVB_EDEADLK);
    assert_int_equal(caller->destroy, KVB_EDEADLK);
    assert_int_equal(caller->stats, 0);
}

static void call_from_done(void *arg, struct kvb_op *op, int status, uint32_t good_count)
{
    (void)status;
    (void)good_count;
    struct caller *caller = arg;
    caller->op = op;
    call_everything(caller);
}

static void call_from_sink(void *context, const struct kvb_event *event)
{
    (void)event;
    call_everything(context);
}

static int call_from_admission(void *context, const struct kvb_admission_request *request)
{
    (void)request;
    call_everything(context);
    return 1;
}

static void test_waiting_from_within_done_is_refused(void **state)
{
    struct caller *caller = *state;
    struct kv_rig *rig = &caller->rig;
    struct mv_run run;
    struct kvb_block *target = NULL;
    mv_open_two(rig, 8, 8, KVB_OFFLOAD_MANUAL);
    mv_store_beside(rig, &run, KVB_TIER_HOST, 1, 1, 0);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, NULL, &target, NULL));
    struct kvb_onboard request = mv_request(run.blocks, &target, 1, NULL);
    request.done = call_from_done;
    request.arg = caller;
    struct kvb_op *op = mv_onboard(rig, &request);
    kv_ok(kvb_op_wait(rig->kv, op, KVB_FOREVER));
    expect_refused(caller);
    kv_ok(kvb_op_release(rig->kv, op));
    mv_drop_beside(rig, &run);
    modes_settle(rig);
}

static void test_waiting_from_within_the_event_sink_is_refused(void **state)
{
    struct caller *caller = *state;
    struct kv_rig *rig = &caller->rig;
    struct mv_run run;
    mv_two_tiers(rig, 8, 8, KVB_OFFLOAD_MANUAL);
    rig->config.sink = (struct kvb_event_sink){call_from_sink, caller};
    kv_rig_open(rig);
    mv_store_beside(rig, &run, KVB_TIER_DEVICE, 1, 1, 0);
    kv_flush(rig);
    expect_refused(caller);
    mv_drop_beside(rig, &run);
    modes_settle(rig);
}

static void test_waiting_from_within_admission_is_refused(void **state)
{
    struct caller *caller = *state;
    struct kv_rig *rig = &caller->rig;
    struct mv_run run;
    mv_two_tiers(rig, 8, 8, KVB_OFFLOAD_ON_REGISTER);
    rig->config.admission = (struct kvb_admission){call_from_admission, caller};
    kv_rig_open(rig);
    mv_store_beside(rig, &run, KVB_TIER_DEVICE, 1, 1, 0);
    kv_flush(rig);
    expect_refused(caller);
    mv_drop_beside(rig, &run);
    modes_settle(rig);
}

/* In the child: every call says so. 0 if it does. */
static int call_as_child(struct kv_rig *rig, struct kvb_block *block, struct kvb_op *op)
{
    struct kvb_stats stats = {.size = sizeof stats};
    uint64_t timeout_ns;
    uint32_t good;
    struct kvb_block *got = NULL;
    struct kvb_seq seq = {0};
    int wrong = 0;
    wrong += kvb_manager_poll(rig->kv, 0) != KVB_EFORK;
    wrong += kvb_manager_flush(rig->kv, 0) != KVB_EFORK;
    wrong += kvb_manager_event_fd(rig->kv) != KVB_EFORK;
    wrong += kvb_manager_next_timeout(rig->kv, &timeout_ns) != KVB_EFORK;
    wrong += kvb_manager_clear(rig->kv) != KVB_EFORK;
    wrong += kvb_manager_stats(rig->kv, &stats) != KVB_EFORK;
    wrong += kvb_fence_signal(rig->kv, 0, 1) != KVB_EFORK;
    wrong += kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, NULL, &got, NULL) != KVB_EFORK;
    wrong += kvb_block_unref(rig->kv, &block, 1, NULL) != KVB_EFORK;
    wrong += kvb_block_offload(rig->kv, &block, 1, 50, NULL, NULL) != KVB_EFORK;
    wrong += kvb_invalidate(rig->kv, &seq, 1, NULL) != KVB_EFORK;
    wrong += kvb_op_take(rig->kv, op, &got, 1, &good) != KVB_EFORK;
    wrong += kvb_op_wait(rig->kv, op, 0) != KVB_EFORK;
    wrong += kvb_op_cancel(rig->kv, op) != KVB_EFORK;
    wrong += kvb_op_release(rig->kv, op) != KVB_EFORK;
    wrong += kvb_manager_destroy(rig->kv) != KVB_EFORK;
    return wrong;
}

static void test_child_after_fork_is_refused_and_the_parent_goes_on(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done done;
    mv_open_two(rig, 8, 8, KVB_OFFLOAD_ON_REGISTER);
    mv_store_beside(rig, &run, KVB_TIER_HOST, 1, 1, 0);
    struct kvb_op *op = mv_bring_beside(rig, &run, KVB_TIER_DEVICE, 1, 0, &done);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(call_as_child(rig, run.blocks[0], op));
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    kv_ok(kvb_fence_signal(rig->kv, 0, 1));
    kv_ok(kvb_op_wait(rig->kv, op, KVB_FOREVER));
    assert_int_equal(done.calls, 1);
    kv_ok(kvb_op_release(rig->kv, op));
    mv_drop_beside(rig, &run);
    modes_settle(rig);
}

int main(void)
{
    const struct CMUnitTest by_polls[] = {
        TEST(polled, test_flush_returns_when_lanes_are_idle_and_events_delivered),
        TEST(polled, test_flush_of_an_idle_manager_returns_at_once),
        TEST(polled, test_flush_times_out_while_a_fence_is_not_signalled),
        TEST(polled, test_wait_returns_after_done_with_its_status),
        TEST(polled, test_wait_times_out_and_the_operation_goes_on),
        TEST(polled, test_cancelled_operation_ends_while_its_fence_is_open),
        TEST(polled, test_deadline_of_the_injected_clock_ends_an_operation),
        TEST(polled, test_events_come_in_order_stored_before_removed),
        TEST(polled, test_eviction_by_alloc_is_delivered_without_another_call),
        TEST(polled, test_every_call_that_makes_work_sets_it_off),
        TEST(polled, test_parking_sets_off_an_offload),
        TEST(polled, test_last_pin_sets_off_an_offload),
        TEST(polled_caller, test_waiting_from_within_done_is_refused),
        TEST(polled_caller, test_waiting_from_within_the_event_sink_is_refused),
        TEST(polled_caller, test_waiting_from_within_admission_is_refused),
        TEST(polled, test_child_after_fork_is_refused_and_the_parent_goes_on),
    };
    const struct CMUnitTest by_thread[] = {
        TEST(threaded, test_flush_returns_when_lanes_are_idle_and_events_delivered),
        TEST(threaded, test_flush_of_an_idle_manager_returns_at_once),
        TEST(threaded, test_flush_times_out_while_a_fence_is_not_signalled),
        TEST(threaded, test_wait_returns_after_done_with_its_status),
        TEST(threaded, test_wait_times_out_and_the_operation_goes_on),
        TEST(threaded, test_cancelled_operation_ends_while_its_fence_is_open),
        TEST(threaded, test_deadline_of_the_injected_clock_ends_an_operation),
        TEST(threaded, test_events_come_in_order_stored_before_removed),
        TEST(threaded, test_eviction_by_alloc_is_delivered_without_another_call),
        TEST(threaded, test_every_call_that_makes_work_sets_it_off),
        TEST(threaded, test_parking_sets_off_an_offload),
        TEST(threaded, test_last_pin_sets_off_an_offload),
        TEST(threaded_caller, test_waiting_from_within_done_is_refused),
        TEST(threaded_caller, test_waiting_from_within_the_event_sink_is_refused),
        TEST(threaded_caller, test_waiting_from_within_admission_is_refused),
        TEST(threaded, test_child_after_fork_is_refused_and_the_parent_goes_on),
    };
    return cmocka_run_group_tests_name("progress, polled", by_polls, NULL, NULL) +
           cmocka_run_group_tests_name("progress, threaded", by_thread, NULL, NULL);
}
