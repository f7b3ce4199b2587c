/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Progress: by the caller's polls and by the manager's own thread. What both promise is tested in both, by the same tests.
 * Where the manager's thread has to get somewhere, tests wait for that very state, with a limit that only a hang reaches.
 */
#include <dirent.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "support/give_up.h"
#include "support/move_test.h"

static uint32_t in_poll_mode = KVB_PROGRESS_POLL, in_thread_mode = KVB_PROGRESS_THREAD;

static bool polled(const struct kv_rig *rig)
{
    return rig->config.progress == KVB_PROGRESS_POLL;
}

/* The condition becomes true by progress alone. */
#define eventually(rig, condition)                                                                 \
    do {                                                                                           \
        time_t give_up_ = time(NULL) + KV_GIVE_UP_S;                                               \
        for (;;) {                                                                                 \
            if (polled(rig))                                                                       \
                kv_poll(rig);                                                                      \
            if (condition)                                                                         \
                break;                                                                             \
            if (time(NULL) > give_up_)                                                             \
                fail_msg("never: %s", #condition);                                                 \
            (void)sched_yield();                                                                   \
        }                                                                                          \
    } while (0)

static struct kvb_lane_stats down(struct kv_rig *rig)
{
    return mv_lane(rig, KVB_TIER_DEVICE, KVB_TIER_HOST);
}

static size_t events_seen(struct kv_rig *rig)
{
    pthread_mutex_lock(&rig->events.mutex);
    size_t count = rig->events.count;
    pthread_mutex_unlock(&rig->events.mutex);
    return count;
}

static void configure(struct kv_rig *rig, void **state, uint32_t trigger)
{
    mv_two_tiers(rig, 8, 8, trigger);
    rig->config.progress = *(const uint32_t *)*state;
}

/* Flushed, so that nobody is inside a call: then the invariants can be looked at in either mode. */
static void settle(struct kv_rig *rig)
{
    kv_settle(rig);
    kv_check(rig);
}

/* As mv_store, without a look at the invariants while the manager's thread is at work. */
static void store(struct kv_rig *rig, struct mv_run *run, uint32_t tier, uint64_t seed,
                  uint32_t count, uint64_t fence_value)
{
    struct kvb_fence fence = {.kind = KVB_FENCE_COUNTER, .handle = fence_value};
    mv_name(rig, run, seed, count);
    kv_ok(kvb_alloc(rig->kv, tier, count, NULL, run->blocks, NULL));
    mv_compute(rig, run, 0);
    kv_ok(kvb_block_register(rig->kv, run->blocks, count, NULL, &fence, NULL));
}

static void drop(struct kv_rig *rig, struct mv_run *run)
{
    kv_ok(kvb_block_unref(rig->kv, run->blocks, run->count, NULL));
}

/* The run's blocks on their way from HOST into fresh DEVICE blocks, which are free only at `fence_value`. */
static struct kvb_op *start_op(struct kv_rig *rig, struct mv_run *run, uint64_t fence_value,
                               uint64_t timeout_ns, struct mv_done *done)
{
    struct kvb_fence fence = {.kind = KVB_FENCE_COUNTER, .handle = fence_value};
    struct kvb_block *targets[MV_RUN_MAX];
    struct kvb_op *op = NULL;
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, run->count, &fence, targets, NULL));
    struct kvb_onboard request = mv_request(run->blocks, targets, run->count, done);
    request.timeout_ns = timeout_ns;
    kv_ok(kvb_onboard(rig->kv, &request, &op));
    return op;
}

/* ---- In both modes ------------------------------------------------------------------------------------------------ */

static void test_flush_returns_when_lanes_are_idle_and_events_delivered(void **state)
{
    struct kv_rig rig;
    struct mv_run run;
    configure(&rig, state, KVB_OFFLOAD_ON_REGISTER);
    kv_rig_open(&rig);
    store(&rig, &run, KVB_TIER_DEVICE, 1, 6, 0);
    settle(&rig);
    assert_int_equal(down(&rig).transferred, 6);
    assert_int_equal(events_seen(&rig), 12);
    mv_expect_books(&rig, true);
    drop(&rig, &run);
    settle(&rig);
    kv_rig_close(&rig);
}

static void test_flush_of_an_idle_manager_returns_at_once(void **state)
{
    struct kv_rig rig;
    configure(&rig, state, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    settle(&rig);
    settle(&rig);
    kv_rig_close(&rig);
}

static void test_flush_times_out_while_a_fence_is_not_signalled(void **state)
{
    struct kv_rig rig;
    struct mv_run run;
    configure(&rig, state, KVB_OFFLOAD_ON_REGISTER);
    kv_rig_open(&rig);
    store(&rig, &run, KVB_TIER_DEVICE, 1, 2, 1);
    kv_expect(kvb_manager_flush(rig.kv, 0), KVB_ETIMEDOUT);
    kv_expect(kvb_manager_flush(rig.kv, KV_MS), KVB_ETIMEDOUT);
    kv_ok(kvb_fence_signal(rig.kv, 1));
    settle(&rig);
    assert_int_equal(down(&rig).transferred, 2);
    drop(&rig, &run);
    settle(&rig);
    kv_rig_close(&rig);
}

static void test_wait_returns_after_done_with_its_status(void **state)
{
    struct kv_rig rig;
    struct mv_run run;
    struct mv_done done;
    configure(&rig, state, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    store(&rig, &run, KVB_TIER_HOST, 1, 4, 0);
    struct kvb_op *op = start_op(&rig, &run, 0, 0, &done);
    kv_ok(kvb_op_wait(rig.kv, op, KVB_FOREVER));
    assert_int_equal(done.calls, 1);
    assert_int_equal(done.good_count, 4);
    drop(&rig, &run);
    settle(&rig);
    assert_int_equal(mv_take(&rig, &run, op), 4);
    drop(&rig, &run);
    settle(&rig);
    assert_int_equal(done.calls, 1);
    kv_rig_close(&rig);
}

static void test_wait_times_out_and_the_operation_goes_on(void **state)
{
    struct kv_rig rig;
    struct mv_run run;
    struct mv_done done;
    configure(&rig, state, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    store(&rig, &run, KVB_TIER_HOST, 1, 2, 0);
    struct kvb_op *op = start_op(&rig, &run, 1, 0, &done);
    kv_expect(kvb_op_wait(rig.kv, op, KV_MS), KVB_ETIMEDOUT);
    assert_int_equal(done.calls, 0);
    kv_ok(kvb_fence_signal(rig.kv, 1));
    kv_ok(kvb_op_wait(rig.kv, op, KVB_FOREVER));
    assert_int_equal(done.calls, 1);
    kv_ok(kvb_op_release(rig.kv, op));
    drop(&rig, &run);
    settle(&rig);
    kv_rig_close(&rig);
}

static void test_cancelled_operation_ends_while_its_fence_is_open(void **state)
{
    struct kv_rig rig;
    struct mv_run run;
    struct mv_done done;
    configure(&rig, state, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    store(&rig, &run, KVB_TIER_HOST, 1, 2, 0);
    struct kvb_op *op = start_op(&rig, &run, 1, 0, &done);
    kv_ok(kvb_op_cancel(rig.kv, op));
    kv_expect(kvb_op_wait(rig.kv, op, KVB_FOREVER), KVB_ECANCELED);
    assert_int_equal(done.calls, 1);
    assert_int_equal(done.status, KVB_ECANCELED);
    kv_ok(kvb_op_release(rig.kv, op));
    drop(&rig, &run);
    kv_ok(kvb_fence_signal(rig.kv, 1));
    settle(&rig);
    kv_rig_close(&rig);
}

static void test_deadline_of_the_injected_clock_ends_an_operation(void **state)
{
    struct kv_rig rig;
    struct mv_run run;
    struct mv_done done;
    configure(&rig, state, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    store(&rig, &run, KVB_TIER_HOST, 1, 2, 0);
    struct kvb_op *op = start_op(&rig, &run, 1, 5 * KV_SECOND, &done);
    kv_expect(kvb_op_wait(rig.kv, op, 0), KVB_ETIMEDOUT);
    assert_int_equal(done.calls, 0);
    kv_advance(&rig, 5 * KV_SECOND);
    kv_expect(kvb_op_wait(rig.kv, op, KVB_FOREVER), KVB_ETIMEDOUT);
    assert_int_equal(done.calls, 1);
    assert_int_equal(done.status, KVB_ETIMEDOUT);
    kv_ok(kvb_op_release(rig.kv, op));
    drop(&rig, &run);
    kv_ok(kvb_fence_signal(rig.kv, 1));
    settle(&rig);
    kv_rig_close(&rig);
}

static void test_events_come_in_order_stored_before_removed(void **state)
{
    struct kv_rig rig;
    struct mv_run run, more;
    configure(&rig, state, KVB_OFFLOAD_ON_REGISTER);
    kv_rig_open(&rig);
    store(&rig, &run, KVB_TIER_DEVICE, 1, 8, 0);
    settle(&rig);
    drop(&rig, &run);
    store(&rig, &more, KVB_TIER_DEVICE, 2, 8, 0); /* evicts above, and then below */
    settle(&rig);
    drop(&rig, &more);
    settle(&rig);
    assert_int_equal(events_seen(&rig), 4 * 8 + 2 * 8);
    for (size_t i = 0; i < rig.events.count; i++)
        assert_int_equal(rig.events.list[i].sequence, rig.events.list[0].sequence + i);
    for (uint32_t tier = 0; tier < 2; tier++)
        for (uint32_t i = 0; i < 8; i++) {
            size_t stored = 0, removed = 0;
            for (size_t at = 0; at < rig.events.count; at++) {
                const struct kv_event_record *event = &rig.events.list[at];
                if (event->tier != tier ||
                    memcmp(event->key, &run.seqs[i], sizeof run.seqs[i]) != 0)
                    continue;
                *(event->kind == KVB_EVENT_STORED ? &stored : &removed) = at + 1;
            }
            assert_true(stored > 0 && removed > stored);
        }
    kv_rig_close(&rig);
}

static void test_eviction_by_alloc_is_delivered_without_another_call(void **state)
{
    struct kv_rig rig;
    struct mv_run run;
    struct kvb_block *blocks[8];
    configure(&rig, state, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    store(&rig, &run, KVB_TIER_DEVICE, 1, 8, 0);
    drop(&rig, &run);
    settle(&rig);
    assert_int_equal(events_seen(&rig), 8);
    kv_ok(kvb_alloc(rig.kv, KVB_TIER_DEVICE, 8, NULL, blocks, NULL));
    if (polled(&rig)) {
        uint64_t timeout_ns = KVB_FOREVER;
        kv_ok(kvb_manager_next_timeout(rig.kv, &timeout_ns));
        assert_true(timeout_ns == 0);
    }
    eventually(&rig, events_seen(&rig) == 16);
    kv_ok(kvb_block_unref(rig.kv, blocks, 8, NULL));
    settle(&rig);
    kv_rig_close(&rig);
}

static void test_every_call_that_makes_work_sets_it_off(void **state)
{
    struct kv_rig rig;
    struct mv_run run, below;
    struct mv_done done, cut;
    configure(&rig, state, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    store(&rig, &run, KVB_TIER_DEVICE, 1, 1, 1);
    store(&rig, &below, KVB_TIER_HOST, 2, 1, 0);
    settle(&rig);
    kv_ok(kvb_block_offload(rig.kv, run.blocks, 1, 50, NULL, NULL));
    eventually(&rig, down(&rig).inflight == 1);
    kv_ok(kvb_fence_signal(rig.kv, 1));
    eventually(&rig, down(&rig).transferred == 1);
    struct kvb_op *op = start_op(&rig, &below, 0, 0, &done);
    eventually(&rig, done.calls == 1);
    kv_ok(kvb_op_release(rig.kv, op));
    settle(&rig);
    kv_ok(kvb_invalidate(rig.kv, below.seqs, 1, NULL));
    eventually(&rig, events_seen(&rig) ==
                         3 + 1 + 2); /* stored above, below, once each by a lane; two removed */
    drop(&rig, &below);
    store(&rig, &below, KVB_TIER_HOST, 3, 1, 0);
    op = start_op(&rig, &below, 9, 0, &cut);
    eventually(&rig, mv_lane(&rig, KVB_TIER_HOST, KVB_TIER_DEVICE).inflight == 1);
    kv_ok(kvb_op_cancel(rig.kv, op));
    eventually(&rig, cut.calls == 1);
    kv_ok(kvb_op_release(rig.kv, op));
    kv_ok(kvb_fence_signal(rig.kv, 9));
    drop(&rig, &run);
    drop(&rig, &below);
    settle(&rig);
    kv_rig_close(&rig);
}

static void test_parking_sets_off_an_offload(void **state)
{
    struct kv_rig rig;
    struct mv_run run;
    configure(&rig, state, KVB_OFFLOAD_ON_PARK);
    kv_rig_open(&rig);
    store(&rig, &run, KVB_TIER_DEVICE, 1, 4, 0);
    settle(&rig);
    drop(&rig, &run);
    eventually(&rig, down(&rig).transferred == 4);
    settle(&rig);
    kv_rig_close(&rig);
}

static void test_last_pin_sets_off_an_offload(void **state)
{
    struct kv_rig rig;
    struct mv_run run;
    configure(&rig, state, KVB_OFFLOAD_ON_PARK);
    kv_rig_open(&rig);
    store(&rig, &run, KVB_TIER_DEVICE, 1, 4, 0);
    kv_ok(kvb_pin(rig.kv, 3, run.blocks, 4, 0, NULL));
    drop(&rig, &run);
    settle(&rig);
    kv_ok(kvb_unpin(rig.kv, 3, run.blocks, 2, NULL));
    eventually(&rig, down(&rig).transferred == 2);
    kv_ok(kvb_unpin_all(rig.kv, 3, NULL));
    eventually(&rig, down(&rig).transferred == 4);
    settle(&rig);
    kv_rig_close(&rig);
}

/* What a callback gets when it calls what would wait for itself, and what would not. */
struct caller {
    struct kv_rig *rig;
    struct kvb_op *op;
    _Atomic uint32_t calls;
    int poll, flush, wait, destroy, stats;
};

static void call_everything(struct caller *caller)
{
    struct kvb_stats stats = {.size = sizeof stats};
    struct kvb_manager *kv = caller->rig->kv;
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
    struct kv_rig rig;
    struct mv_run run;
    struct kvb_block *target = NULL;
    struct kvb_op *op = NULL;
    struct caller caller = {.rig = &rig};
    configure(&rig, state, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    store(&rig, &run, KVB_TIER_HOST, 1, 1, 0);
    kv_ok(kvb_alloc(rig.kv, KVB_TIER_DEVICE, 1, NULL, &target, NULL));
    struct kvb_onboard request = mv_request(run.blocks, &target, 1, NULL);
    request.done = call_from_done;
    request.arg = &caller;
    kv_ok(kvb_onboard(rig.kv, &request, &op));
    kv_ok(kvb_op_wait(rig.kv, op, KVB_FOREVER));
    expect_refused(&caller);
    kv_ok(kvb_op_release(rig.kv, op));
    drop(&rig, &run);
    settle(&rig);
    kv_rig_close(&rig);
}

static void test_waiting_from_within_the_event_sink_is_refused(void **state)
{
    struct kv_rig rig;
    struct mv_run run;
    struct caller caller = {.rig = &rig};
    configure(&rig, state, KVB_OFFLOAD_MANUAL);
    rig.config.sink = (struct kvb_event_sink){call_from_sink, &caller};
    kv_rig_open(&rig);
    store(&rig, &run, KVB_TIER_DEVICE, 1, 1, 0);
    kv_settle(&rig);
    expect_refused(&caller);
    drop(&rig, &run);
    settle(&rig);
    kv_rig_close(&rig);
}

static void test_waiting_from_within_admission_is_refused(void **state)
{
    struct kv_rig rig;
    struct mv_run run;
    struct caller caller = {.rig = &rig};
    configure(&rig, state, KVB_OFFLOAD_ON_REGISTER);
    rig.config.admission = (struct kvb_admission){call_from_admission, &caller};
    kv_rig_open(&rig);
    store(&rig, &run, KVB_TIER_DEVICE, 1, 1, 0);
    kv_settle(&rig);
    expect_refused(&caller);
    drop(&rig, &run);
    settle(&rig);
    kv_rig_close(&rig);
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
    wrong += kvb_fence_signal(rig->kv, 1) != KVB_EFORK;
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
    struct kv_rig rig;
    struct mv_run run;
    struct mv_done done;
    configure(&rig, state, KVB_OFFLOAD_ON_REGISTER);
    kv_rig_open(&rig);
    store(&rig, &run, KVB_TIER_HOST, 1, 1, 0);
    struct kvb_op *op = start_op(&rig, &run, 1, 0, &done);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(call_as_child(&rig, run.blocks[0], op));
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    kv_ok(kvb_fence_signal(rig.kv, 1));
    kv_ok(kvb_op_wait(rig.kv, op, KVB_FOREVER));
    assert_int_equal(done.calls, 1);
    kv_ok(kvb_op_release(rig.kv, op));
    drop(&rig, &run);
    settle(&rig);
    kv_rig_close(&rig);
}

/* ---- By polls ----------------------------------------------------------------------------------------------------- */

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
    struct kv_rig rig;
    struct mv_run run;
    struct elsewhere elsewhere = {.rig = &rig};
    configure(&rig, state, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    store(&rig, &run, KVB_TIER_HOST, 1, 1, 0);
    elsewhere.op = start_op(&rig, &run, 0, 0, NULL);
    mv_step(&rig);
    run_elsewhere(&elsewhere, call_elsewhere);
    assert_int_equal(elsewhere.poll, KVB_ETHREAD);
    assert_int_equal(elsewhere.flush, KVB_ETHREAD);
    assert_int_equal(elsewhere.wait, KVB_ETHREAD);
    mv_step(&rig);
    kv_ok(kvb_op_release(rig.kv, elsewhere.op));
    drop(&rig, &run);
    kv_rig_close(&rig);
}

static void test_refused_destroy_elsewhere_does_not_claim_the_polling(void **state)
{
    struct kv_rig rig;
    struct elsewhere elsewhere = {.rig = &rig};
    configure(&rig, state, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    run_elsewhere(&elsewhere, destroy_elsewhere);
    assert_int_equal(elsewhere.destroy, KVB_EBUSY);
    mv_step(&rig);
    kv_unref(&rig, block);
    kv_rig_close(&rig);
}

static void test_destroy_works_from_a_thread_that_never_polled(void **state)
{
    struct kv_rig rig;
    struct mv_run run;
    struct elsewhere elsewhere = {.rig = &rig};
    configure(&rig, state, KVB_OFFLOAD_ON_REGISTER);
    kv_rig_open(&rig);
    mv_step(&rig);
    store(&rig, &run, KVB_TIER_DEVICE, 1, 2, 1);
    mv_step(&rig);
    drop(&rig, &run);
    run_elsewhere(&elsewhere, destroy_elsewhere);
    assert_int_equal(elsewhere.destroy, 0);
    assert_int_equal(kv_device_end(), 0);
    assert_int_equal(rig.heap.live_bytes, 0);
}

/* A clock that goes on by a millisecond each time somebody looks. */
static uint64_t ticking_now(void *context)
{
    return atomic_fetch_add((_Atomic uint64_t *)context, KV_MS);
}

static void test_poll_stops_when_its_time_is_over_and_says_that_work_is_left(void **state)
{
    if (kv_device_is_cuda()) /* about copies that poll makes itself, in slices of its time */
        return;
    struct kv_rig rig;
    struct mv_copies copies;
    struct mv_run runs[8];
    _Atomic uint64_t now_ns = KV_SECOND;
    configure(&rig, state, KVB_OFFLOAD_MANUAL);
    rig.config.clock = (struct kvb_clock){ticking_now, &now_ns};
    mv_bounds(&rig, 0, 16, 8, 2, 16);
    mv_open(&rig, &copies);
    mv_store_each(&rig, runs, KVB_TIER_DEVICE, 1, 8);
    for (uint32_t i = 8; i-- > 0;) /* backwards: no two are neighbours, each is a copy of its own */
        mv_offer(&rig, runs[i].blocks[0], 50);
    assert_int_equal(kvb_manager_poll(rig.kv, 3 * KV_MS), 1);
    kv_check(&rig);
    assert_in_range(copies.count, 1, 4);
    uint32_t before = copies.count;
    assert_int_equal(kvb_manager_poll(rig.kv, 0), 1);
    assert_in_range(copies.count, before + 1, before + 2);
    mv_step(&rig);
    assert_int_equal(copies.count, 8);
    assert_int_equal(kvb_manager_poll(rig.kv, 3 * KV_MS), 0);
    for (uint32_t i = 0; i < 8; i++)
        mv_drop(&rig, &runs[i]);
    kv_rig_close(&rig);
}

static bool readable(struct kv_rig *rig)
{
    struct pollfd ready = {.fd = kvb_manager_event_fd(rig->kv), .events = POLLIN};
    assert_true(ready.fd >= 0);
    return poll(&ready, 1, 0) == 1;
}

static void test_event_fd_is_readable_exactly_while_there_is_something_to_do(void **state)
{
    struct kv_rig rig;
    struct mv_run run;
    struct mv_done done;
    struct kvb_block *blocks[8];
    configure(&rig, state, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    mv_step(&rig);
    assert_false(readable(&rig));
    mv_store_after(&rig, &run, KVB_TIER_DEVICE, 1, 2, 1); /* two events to deliver */
    assert_true(readable(&rig));
    assert_true(readable(&rig));
    mv_step(&rig);
    assert_false(readable(&rig));
    mv_offer(&rig, run.blocks[0], 50);
    assert_true(readable(&rig));
    mv_step(&rig);
    assert_false(readable(&rig)); /* only the fence can go on */
    mv_signal(&rig, 1);
    assert_true(readable(&rig));
    mv_step(&rig);
    assert_false(readable(&rig));
    mv_drop(&rig, &run);
    assert_false(readable(&rig)); /* parking is nothing to do with this trigger */
    mv_evict_all(&rig, KVB_TIER_DEVICE);
    assert_true(readable(&rig)); /* two more events */
    mv_step(&rig);
    assert_false(readable(&rig));
    run.count = 1;
    struct kvb_op *op = mv_bring_up(&rig, &run, KVB_TIER_DEVICE, &done);
    assert_true(readable(&rig));
    mv_step(&rig);
    assert_false(readable(&rig));
    assert_int_equal(done.calls, 1);
    kv_ok(kvb_op_release(rig.kv, op));
    mv_step(&rig);
    kv_ok(kvb_alloc(rig.kv, KVB_TIER_DEVICE, 7, NULL, blocks, NULL));
    assert_false(readable(&rig)); /* nothing was evicted */
    kv_ok(kvb_block_unref(rig.kv, blocks, 7, NULL));
    kv_rig_close(&rig);
}

static void test_next_timeout_is_work_or_the_next_deadline_or_for_ever(void **state)
{
    struct kv_rig rig;
    struct mv_run run;
    struct mv_done done;
    uint64_t timeout_ns = 1;
    configure(&rig, state, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    mv_store(&rig, &run, KVB_TIER_HOST, 1, 1);
    kv_ok(kvb_manager_next_timeout(rig.kv, &timeout_ns));
    assert_true(timeout_ns == 0);
    mv_step(&rig);
    kv_ok(kvb_manager_next_timeout(rig.kv, &timeout_ns));
    assert_true(timeout_ns == KVB_FOREVER);
    struct kvb_op *op = start_op(&rig, &run, 1, 9 * KV_MS, &done);
    mv_step(&rig);
    kv_advance(&rig, 4 * KV_MS);
    kv_ok(kvb_manager_next_timeout(rig.kv, &timeout_ns));
    assert_true(timeout_ns == 5 * KV_MS);
    kv_ok(kvb_pin(rig.kv, 1, run.blocks, 1, 2 * KV_MS, NULL));
    mv_step(&rig);
    kv_ok(kvb_manager_next_timeout(rig.kv, &timeout_ns));
    assert_true(timeout_ns == 2 * KV_MS);
    kv_advance(&rig, 7 * KV_MS);
    kv_ok(kvb_manager_next_timeout(rig.kv, &timeout_ns));
    assert_true(timeout_ns == 0);
    mv_step(&rig);
    kv_ok(kvb_manager_next_timeout(rig.kv, &timeout_ns));
    assert_true(timeout_ns == KVB_FOREVER);
    assert_int_equal(done.status, KVB_ETIMEDOUT);
    kv_ok(kvb_op_release(rig.kv, op));
    drop(&rig, &run);
    mv_signal(&rig, 1);
    mv_step(&rig);
    kv_rig_close(&rig);
}

/* ---- By the manager's own thread ---------------------------------------------------------------------------------- */

static void test_polling_is_refused_where_the_manager_has_its_own_thread(void **state)
{
    struct kv_rig rig;
    configure(&rig, state, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    kv_expect(kvb_manager_poll(rig.kv, 0), KVB_ETHREAD);
    kv_expect(kvb_manager_event_fd(rig.kv), KVB_EUNSUPPORTED);
    settle(&rig);
    kv_rig_close(&rig);
}

/* Threads of this process that are called "kvblock" and have every signal blocked that can be. */
static uint32_t own_threads(bool *all_blocked)
{
    DIR *tasks = opendir("/proc/self/task");
    uint32_t count = 0;
    assert_non_null(tasks);
    *all_blocked = true;
    for (struct dirent *task; (task = readdir(tasks)) != NULL;) {
        char path[300], line[256];
        unsigned long long blocked = 0;
        bool ours = false;
        if (task->d_name[0] == '.')
            continue;
        (void)snprintf(path, sizeof path, "/proc/self/task/%s/status", task->d_name);
        FILE *status = fopen(path, "r");
        if (status == NULL)
            continue;
        while (fgets(line, sizeof line, status) != NULL) {
            ours |= strcmp(line, "Name:\tkvblock\n") == 0;
            (void)sscanf(line, "SigBlk: %llx", &blocked);
        }
        fclose(status);
        count += ours;
        *all_blocked &= !ours || (blocked & 0x7ffffffeULL & ~(1ULL << 8) & ~(1ULL << 18)) ==
                                     (0x7ffffffeULL & ~(1ULL << 8) & ~(1ULL << 18));
    }
    closedir(tasks);
    return count;
}

static void test_one_named_thread_with_signals_blocked_lives_as_long_as_the_manager(void **state)
{
    struct kv_rig rig;
    bool blocked = false;
    configure(&rig, state, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    settle(&rig);
    assert_int_equal(own_threads(&blocked), 1);
    assert_true(blocked);
    kv_rig_close(&rig);
    eventually(&rig, own_threads(&blocked) ==
                         0); /* /proc shows a thread a little longer than its join takes */
}

static void *flush_for_ever(void *argument)
{
    struct elsewhere *elsewhere = argument;
    elsewhere->flush = kvb_manager_flush(elsewhere->rig->kv, KVB_FOREVER);
    return NULL;
}

static void *wait_for_ever(void *argument)
{
    struct elsewhere *elsewhere = argument;
    elsewhere->wait = kvb_op_wait(elsewhere->rig->kv, elsewhere->op, KVB_FOREVER);
    return NULL;
}

static void test_several_threads_wait_at_once_and_all_return(void **state)
{
    struct kv_rig rig;
    struct mv_run run, below;
    struct mv_done done;
    pthread_t threads[4];
    configure(&rig, state, KVB_OFFLOAD_ON_REGISTER);
    kv_rig_open(&rig);
    store(&rig, &below, KVB_TIER_HOST, 2, 2, 0);
    struct kvb_op *op = start_op(&rig, &below, 1, 0, &done);
    struct elsewhere elsewhere[4];
    for (uint32_t i = 0; i < 4; i++) {
        elsewhere[i] = (struct elsewhere){.rig = &rig, .op = op, .flush = 1, .wait = 1};
        assert_int_equal(pthread_create(&threads[i], NULL,
                                        i % 2 == 0 ? flush_for_ever : wait_for_ever, &elsewhere[i]),
                         0);
    }
    store(&rig, &run, KVB_TIER_DEVICE, 1, 2, 1);
    kv_ok(kvb_fence_signal(rig.kv, 1));
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(i % 2 == 0 ? elsewhere[i].flush : elsewhere[i].wait, 0);
    }
    kv_ok(kvb_op_release(rig.kv, op));
    drop(&rig, &run);
    drop(&rig, &below);
    settle(&rig);
    kv_rig_close(&rig);
}

#define IN_POLL_MODE(test)                                                                         \
    {                                                                                              \
        .name = #test "_in_poll_mode", .test_func = test, .initial_state = &in_poll_mode           \
    }
#define IN_THREAD_MODE(test)                                                                       \
    {                                                                                              \
        .name = #test "_in_thread_mode", .test_func = test, .initial_state = &in_thread_mode       \
    }
#define IN_BOTH_MODES(test) IN_POLL_MODE(test), IN_THREAD_MODE(test)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_BOTH_MODES(test_flush_returns_when_lanes_are_idle_and_events_delivered),
        IN_BOTH_MODES(test_flush_of_an_idle_manager_returns_at_once),
        IN_BOTH_MODES(test_flush_times_out_while_a_fence_is_not_signalled),
        IN_BOTH_MODES(test_wait_returns_after_done_with_its_status),
        IN_BOTH_MODES(test_wait_times_out_and_the_operation_goes_on),
        IN_BOTH_MODES(test_cancelled_operation_ends_while_its_fence_is_open),
        IN_BOTH_MODES(test_deadline_of_the_injected_clock_ends_an_operation),
        IN_BOTH_MODES(test_events_come_in_order_stored_before_removed),
        IN_BOTH_MODES(test_eviction_by_alloc_is_delivered_without_another_call),
        IN_BOTH_MODES(test_every_call_that_makes_work_sets_it_off),
        IN_BOTH_MODES(test_parking_sets_off_an_offload),
        IN_BOTH_MODES(test_last_pin_sets_off_an_offload),
        IN_BOTH_MODES(test_waiting_from_within_done_is_refused),
        IN_BOTH_MODES(test_waiting_from_within_the_event_sink_is_refused),
        IN_BOTH_MODES(test_waiting_from_within_admission_is_refused),
        IN_BOTH_MODES(test_child_after_fork_is_refused_and_the_parent_goes_on),
        IN_POLL_MODE(test_poll_belongs_to_the_thread_of_its_first_call),
        IN_POLL_MODE(test_refused_destroy_elsewhere_does_not_claim_the_polling),
        IN_POLL_MODE(test_destroy_works_from_a_thread_that_never_polled),
        IN_POLL_MODE(test_poll_stops_when_its_time_is_over_and_says_that_work_is_left),
        IN_POLL_MODE(test_event_fd_is_readable_exactly_while_there_is_something_to_do),
        IN_POLL_MODE(test_next_timeout_is_work_or_the_next_deadline_or_for_ever),
        IN_THREAD_MODE(test_polling_is_refused_where_the_manager_has_its_own_thread),
        IN_THREAD_MODE(test_one_named_thread_with_signals_blocked_lives_as_long_as_the_manager),
        IN_THREAD_MODE(test_several_threads_wait_at_once_and_all_return),
    };
    return cmocka_run_group_tests_name("progress", tests, NULL, NULL);
}
