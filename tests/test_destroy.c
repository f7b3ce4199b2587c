/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of a manager, in both modes of progress: what it delivers first, what it cancels, what it
 * refuses.
 */
#include <semaphore.h>

#include "support/modes.h"

#include "offload/onboard.h"

static void configure(struct kv_rig *rig, uint32_t trigger)
{
    mv_three_tiers(rig, 100, 100, 100);
    rig->tiers[0].trigger = trigger;
    rig->config.op_capacity = 100;
}

/* It goes, and every byte comes back. */
static void destroy(struct kv_rig *rig)
{
    kv_ok(kvb_manager_destroy(rig->kv));
    rig->kv = NULL;
    assert_int_equal(rig->heap.live_blocks, 0);
    assert_int_equal(rig->heap.live_bytes, 0);
    assert_int_equal(rig->heap.wrong_frees, 0);
}

/* ---- What it ends ---------------------------------------------------------------------------- */

static void test_destroy_of_nothing_is_no_error(void **state)
{
    (void)state;
    kv_ok(kvb_manager_destroy(NULL));
}

static void test_destroy_of_a_fresh_manager_gives_everything_back(void **state)
{
    struct kv_rig *rig = *state;
    configure(rig, KVB_OFFLOAD_MANUAL);
    kv_rig_open(rig);
    destroy(rig);
}

static void test_destroy_cancels_offers_of_every_stage(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run, ready;
    configure(rig, KVB_OFFLOAD_ON_REGISTER);
    mv_bounds(rig, 0, 2, 2, 2, 16);
    kv_rig_open(rig);
    mv_store_beside(rig, &run, KVB_TIER_DEVICE, 1, 10, 1);
    modes_await(rig, mv_down(rig).inflight == 2);
    assert_int_equal(mv_down(rig).queued, 8);
    mv_store_beside(rig, &ready, KVB_TIER_DEVICE, 2, 4, 0);
    if (modes_is_polled(rig)) { /* nobody takes what is on deck */
        struct kvb_lane_stats lane = mv_down(rig);
        assert_int_equal(lane.ondeck, 2);
        assert_int_equal(lane.queued, 10);
    }
    mv_drop_beside(rig, &run);
    mv_drop_beside(rig, &ready);
    destroy(rig);
    if (modes_is_polled(rig))
        assert_int_equal(mv_event_count(rig, KVB_EVENT_STORED, KVB_TIER_HOST), 0);
}

static void test_destroy_ends_more_copies_than_one_batch(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run runs[2];
    configure(rig, KVB_OFFLOAD_ON_REGISTER);
    mv_bounds(rig, 0, 100, 50, 4, 8);
    kv_rig_open(rig);
    for (uint32_t i = 0; i < 2; i++)
        mv_store_beside(rig, &runs[i], KVB_TIER_DEVICE, i + 1, 50, 1);
    modes_await(rig, mv_down(rig).inflight == 100);
    mv_drop_beside(rig, &runs[0]);
    mv_drop_beside(rig, &runs[1]);
    destroy(rig);
}

static void test_destroy_delivers_done_of_a_moving_operation_once(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done done;
    configure(rig, KVB_OFFLOAD_MANUAL);
    kv_rig_open(rig);
    mv_store_beside(rig, &run, KVB_TIER_HOST, 1, 3, 0);
    (void)mv_bring_beside(rig, &run, KVB_TIER_DEVICE, 1, 0, &done);
    modes_await(rig, mv_up(rig).inflight == 3);
    mv_drop_beside(rig, &run);
    destroy(rig);
    assert_int_equal(done.calls, 1);
    assert_int_equal(done.status, KVB_ECANCELED);
    assert_int_equal(done.good_count, 0);
}

static void test_destroy_delivers_done_of_a_queued_operation_once(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run runs[2];
    struct mv_done dones[2];
    configure(rig, KVB_OFFLOAD_MANUAL);
    mv_bounds(rig, 0, 2, 1, 2, 8);
    kv_rig_open(rig);
    mv_store_beside(rig, &runs[0], KVB_TIER_HOST, 1, 1, 0);
    mv_store_beside(rig, &runs[1], KVB_TIER_HOST, 2, 3, 0);
    (void)mv_bring_beside(rig, &runs[0], KVB_TIER_DEVICE, 1, 0, &dones[0]);
    modes_await(rig, mv_up(rig).inflight == 1);
    (void)mv_bring_beside(rig, &runs[1], KVB_TIER_DEVICE, 1, 0, &dones[1]);
    mv_drop_beside(rig, &runs[0]);
    mv_drop_beside(rig, &runs[1]);
    destroy(rig);
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(dones[i].calls, 1);
        assert_int_equal(dones[i].status, KVB_ECANCELED);
    }
}

static void test_destroy_delivers_done_of_operations_that_joined_and_hop(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done dones[3];
    configure(rig, KVB_OFFLOAD_MANUAL);
    kv_rig_open(rig);
    mv_store_beside(rig, &run, KVB_TIER_DISK, 1, 2, 0);
    (void)mv_bring_beside(rig, &run, KVB_TIER_HOST, 1, 0, &dones[0]);
    (void)mv_bring_beside(rig, &run, KVB_TIER_HOST, 1, 0, &dones[1]);
    (void)mv_bring_beside(rig, &run, KVB_TIER_DEVICE, 0, 0, &dones[2]);
    modes_await(rig, mv_lane(rig, KVB_TIER_DISK, KVB_TIER_HOST).inflight == 2);
    mv_drop_beside(rig, &run);
    destroy(rig);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(dones[i].calls, 1);
        assert_int_equal(dones[i].status, KVB_ECANCELED);
    }
}

static void test_destroy_delivers_done_of_more_operations_than_one_batch(void **state)
{
    struct kv_rig *rig = *state;
    static struct mv_done dones[90];
    struct mv_run runs[90];
    configure(rig, KVB_OFFLOAD_MANUAL);
    kv_rig_open(rig);
    for (uint32_t i = 0; i < 90; i++) {
        mv_store_beside(rig, &runs[i], KVB_TIER_HOST, i + 1, 1, 0);
        (void)mv_bring_beside(rig, &runs[i], KVB_TIER_DEVICE, 1, 0, &dones[i]);
        mv_drop_beside(rig, &runs[i]);
    }
    destroy(rig);
    for (uint32_t i = 0; i < 90; i++) {
        assert_int_equal(dones[i].calls, 1);
        assert_int_equal(dones[i].status, KVB_ECANCELED);
    }
}

static void test_destroy_delivers_done_of_a_released_operation_once(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done done;
    configure(rig, KVB_OFFLOAD_MANUAL);
    kv_rig_open(rig);
    mv_store_beside(rig, &run, KVB_TIER_HOST, 1, 3, 0);
    struct kvb_op *op = mv_bring_beside(rig, &run, KVB_TIER_DEVICE, 1, 0, &done);
    kv_ok(kvb_op_release(rig->kv, op));
    mv_drop_beside(rig, &run);
    destroy(rig);
    assert_int_equal(done.calls, 1);
    assert_int_equal(done.status, KVB_ECANCELED);
}

static void test_destroy_delivers_the_result_of_what_was_good_already(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run below, above;
    struct mv_done done;
    configure(rig, KVB_OFFLOAD_MANUAL);
    kv_rig_open(rig);
    mv_store_beside(rig, &below, KVB_TIER_HOST, 1, 2, 0);
    mv_store_beside(rig, &above, KVB_TIER_DEVICE, 1, 2, 0);
    (void)mv_bring_beside(rig, &below, KVB_TIER_DEVICE, 0, 0, &done); /* both joined on the spot */
    mv_drop_beside(rig, &below);
    mv_drop_beside(rig, &above);
    destroy(rig);
    assert_int_equal(done.calls, 1);
    assert_int_equal(done.status, 0);
    assert_int_equal(done.good_count, 2);
}

static void test_destroy_takes_an_operation_that_nobody_took_or_released(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done done;
    configure(rig, KVB_OFFLOAD_MANUAL);
    kv_rig_open(rig);
    mv_store_beside(rig, &run, KVB_TIER_HOST, 1, 3, 0);
    struct kvb_op *op = mv_bring_beside(rig, &run, KVB_TIER_DEVICE, 0, 0, &done);
    kv_ok(kvb_op_wait(rig->kv, op, KVB_FOREVER));
    mv_drop_beside(rig, &run);
    destroy(rig);
    assert_int_equal(done.calls, 1);
}

static void test_destroy_delivers_every_event_first(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run runs[2];
    configure(rig, KVB_OFFLOAD_MANUAL);
    kv_rig_open(rig);
    for (uint32_t i = 0; i < 2; i++) {
        mv_store_beside(rig, &runs[i], KVB_TIER_DEVICE, i + 1, 50, 0);
        mv_drop_beside(rig, &runs[i]);
    }
    destroy(rig);
    assert_int_equal(mv_event_count(rig, KVB_EVENT_STORED, KVB_TIER_DEVICE), 100);
}

static void test_destroy_releases_pins(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    configure(rig, KVB_OFFLOAD_ON_PARK);
    kv_rig_open(rig);
    mv_store_beside(rig, &run, KVB_TIER_DEVICE, 1, 3, 0);
    kv_ok(kvb_pin(rig->kv, 5, run.blocks, 3, 0, NULL));
    kv_ok(kvb_pin(rig->kv, 6, run.blocks, 3, 0, NULL));
    mv_drop_beside(rig, &run);
    destroy(rig);
}

static void test_destroy_after_a_quarantine_does_not_wait_for_the_fence(void **state)
{
    struct kv_rig *rig = *state;
    static const struct kvbi_hooks keeps = {.keeps = true};
    struct mv_run run;
    struct mv_done done;
    configure(rig, KVB_OFFLOAD_MANUAL);
    kv_rig_open_hooked(rig, &keeps);
    mv_store_beside(rig, &run, KVB_TIER_HOST, 1, 3, 0);
    struct kvb_op *op = mv_bring_beside(rig, &run, KVB_TIER_DEVICE, 1, 0, &done);
    modes_await(rig, mv_up(rig).inflight == 3);
    kv_ok(kvb_op_cancel(rig->kv, op));
    kv_expect(kvb_op_wait(rig->kv, op, KVB_FOREVER), KVB_ECANCELED);
    kv_ok(kvb_op_release(rig->kv, op));
    mv_drop_beside(rig, &run);
    destroy(rig);
}

/* ---- What it refuses ------------------------------------------------------------------------- */

/*
 * Refused; then a whole life of blocks passes through the manager, up and down, as if nothing had
 * been asked.
 */
static void expect_busy_and_alive(struct kv_rig *rig)
{
    struct mv_run run;
    struct mv_done done;
    kv_expect(kvb_manager_destroy(rig->kv), KVB_EBUSY);
    mv_store_beside(rig, &run, KVB_TIER_DEVICE, 77, 4, 0);
    mv_drop_beside(rig, &run);
    kv_flush(rig);
    mv_expect_in(rig, &run, KVB_TIER_DEVICE);
    mv_store_beside(rig, &run, KVB_TIER_HOST, 78, 4, 0);
    struct kvb_op *op = mv_bring_beside(rig, &run, KVB_TIER_DEVICE, 0, 0, &done);
    kv_ok(kvb_op_wait(rig->kv, op, KVB_FOREVER));
    assert_int_equal(done.good_count, 4);
    kv_ok(kvb_op_release(rig->kv, op));
    mv_drop_beside(rig, &run);
    kv_flush(rig);
}

static void test_destroy_while_an_empty_block_is_held_is_busy(void **state)
{
    struct kv_rig *rig = *state;
    configure(rig, KVB_OFFLOAD_ON_REGISTER);
    kv_rig_open(rig);
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    expect_busy_and_alive(rig);
    kv_unref(rig, block);
    destroy(rig);
}

static void test_destroy_while_a_match_is_held_is_busy(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    configure(rig, KVB_OFFLOAD_ON_REGISTER);
    kv_rig_open(rig);
    mv_store_beside(rig, &run, KVB_TIER_DEVICE, 1, 2, 0);
    mv_drop_beside(rig, &run);
    assert_int_equal(mv_match(rig, &run), 2);
    expect_busy_and_alive(rig);
    mv_drop_beside(rig, &run);
    destroy(rig);
}

static void test_destroy_while_a_step_is_outstanding_is_busy(void **state)
{
    struct kv_rig *rig = *state;
    static const uint32_t full = KV_TOKENS;
    struct mv_run run;
    configure(rig, KVB_OFFLOAD_ON_REGISTER);
    kv_rig_open(rig);
    mv_name(rig, &run, 1, 1);
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_init(rig, block, 0, 0, NULL);
    kv_append(rig, block, run.tokens, KV_TOKENS, 0);
    kv_schedule(rig, block);
    kv_unref(rig, block);
    expect_busy_and_alive(rig);
    kv_ok(kvb_block_compute_done(rig->kv, &block, &full, 1, NULL, NULL));
    destroy(rig);
}

static void test_destroy_while_taken_blocks_are_held_is_busy(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done done;
    configure(rig, KVB_OFFLOAD_ON_REGISTER);
    kv_rig_open(rig);
    mv_store_beside(rig, &run, KVB_TIER_HOST, 1, 2, 0);
    struct kvb_op *op = mv_bring_beside(rig, &run, KVB_TIER_DEVICE, 0, 0, &done);
    kv_ok(kvb_op_wait(rig->kv, op, KVB_FOREVER));
    mv_drop_beside(rig, &run);
    uint32_t good = 0;
    kv_ok(kvb_op_take(rig->kv, op, run.blocks, 2, &good));
    expect_busy_and_alive(rig);
    mv_drop_beside(rig, &run);
    destroy(rig); /* the op itself was not released: no matter */
}

static void test_refused_destroy_leaves_operations_and_offers_running(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run, below;
    struct mv_done done;
    configure(rig, KVB_OFFLOAD_ON_REGISTER);
    kv_rig_open(rig);
    mv_store_beside(rig, &run, KVB_TIER_DEVICE, 1, 2, 1);
    mv_store_beside(rig, &below, KVB_TIER_HOST, 2, 2, 0);
    struct kvb_op *op = mv_bring_beside(rig, &below, KVB_TIER_DEVICE, 1, 0, &done);
    mv_drop_beside(rig, &below);
    kv_expect(kvb_manager_destroy(rig->kv), KVB_EBUSY);
    assert_int_equal(done.calls, 0);
    kv_ok(kvb_fence_signal(rig->kv, 0, 1));
    kv_flush(rig);
    assert_int_equal(done.calls, 1);
    assert_int_equal(done.good_count, 2);
    assert_int_equal(mv_down(rig).transferred, 2);
    kv_ok(kvb_op_release(rig->kv, op));
    mv_drop_beside(rig, &run);
    destroy(rig);
}

struct last_call {
    struct kv_rig *rig;
    struct kvb_block *source, *target;
    struct kvb_weak weak; /* of a parked block */
    uint32_t calls, good_count;
    int take, destroy, flush, onboard, alloc, upgrade, match;
};

static void call_at_the_end(void *arg, struct kvb_op *op, int status, uint32_t good_count)
{
    struct last_call *call = arg;
    struct kvb_block *block = NULL;
    struct kvb_op *another = NULL;
    (void)status;
    (void)good_count;
    struct kvb_onboard request = mv_request(&call->source, &call->target, 1, NULL);
    call->calls++;
    call->take = kvb_op_take(call->rig->kv, op, &block, 1, &call->good_count);
    call->destroy = kvb_manager_destroy(call->rig->kv);
    call->flush = kvb_manager_flush(call->rig->kv, 0);
    call->onboard = kvb_onboard(call->rig->kv, &request, &another);
    call->alloc = kvb_alloc(call->rig->kv, KVB_TIER_DEVICE, 1, NULL, &block, NULL);
    call->upgrade = kvb_weak_upgrade(call->rig->kv, &call->weak, 1, &block, NULL);
    uint32_t tokens[KV_TOKENS] = {0};
    struct kvb_query query = {.size = sizeof query, .tokens = tokens, .token_count = KV_TOKENS};
    struct kvb_hit hit;
    size_t found;
    call->match = kvb_match(call->rig->kv, &query, &hit, 1, &found);
}

static void test_done_during_destroy_can_neither_take_nor_start_anything(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct last_call call = {.rig = rig};
    configure(rig, KVB_OFFLOAD_MANUAL);
    /* A copy that waits is not with the engine: the target stays what it is. */
    mv_bounds(rig, 0, 1, 1, 1, 8);
    kv_rig_open(rig);
    mv_store_beside(rig, &run, KVB_TIER_HOST, 1, 1, 0);
    struct kvb_fence fence = mv_fence(1);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, &fence, &call.target, NULL));
    call.source = run.blocks[0];
    struct kvb_onboard request = mv_request(run.blocks, &call.target, 1, NULL);
    request.done = call_at_the_end;
    request.arg = &call;
    kv_ok(kvb_block_weak(rig->kv, run.blocks[0], &call.weak));
    (void)mv_onboard(rig, &request);
    mv_drop_beside(rig, &run);
    destroy(rig);
    assert_int_equal(call.calls, 1);
    assert_int_equal(call.take, KVB_ESTATE);
    assert_int_equal(call.destroy, KVB_EDEADLK);
    assert_int_equal(call.flush, KVB_EDEADLK);
    assert_int_equal(call.onboard, KVB_ESTATE);
    assert_int_equal(call.alloc, KVB_ESTATE);
    assert_int_equal(call.upgrade, KVB_ESTATE);
    assert_int_equal(call.match, KVB_ESTATE);
}

/* `done` takes its blocks while another thread destroys, after destroy has looked for handles. */
struct late_take {
    struct kv_rig rig;
    sem_t entered, go, over;
    pthread_t destroyer;
    _Atomic bool armed;
    int take;
};

static int late_take_setup(void **state)
{
    struct late_take *late = kv_scene_begin(state, sizeof *late);
    late->rig.config.progress = KVB_PROGRESS_THREAD;
    late->destroyer = pthread_self();
    return sem_init(&late->entered, 0, 0) | sem_init(&late->go, 0, 0) | sem_init(&late->over, 0, 0);
}

/* `done` may wait to be told yet. */
static int late_take_teardown(void **state)
{
    struct late_take *late = *state;
    atomic_store(&late->armed, false);
    (void)sem_post(&late->go);
    return kv_scene_end(state);
}

static void take_when_told(void *arg, struct kvb_op *op, int status, uint32_t good_count)
{
    struct late_take *late = arg;
    struct kvb_block *block = NULL;
    (void)status;
    (void)good_count;
    (void)sem_post(&late->entered);
    (void)sem_wait(&late->go);
    late->take = kvb_op_take(late->rig.kv, op, &block, 1, &good_count);
    (void)sem_post(&late->over);
}

/* A clock is what destroy calls while it holds no lock: here it gives way to `done`. */
static uint64_t clock_that_gives_way(void *context)
{
    struct late_take *late = context;
    if (atomic_load(&late->armed) && pthread_equal(pthread_self(), late->destroyer)) {
        atomic_store(&late->armed, false);
        (void)sem_post(&late->go);
        (void)sem_wait(&late->over);
    }
    return 1;
}

static void test_destroy_and_take_do_not_both_succeed(void **state)
{
    struct late_take *late = *state;
    struct kv_rig *rig = &late->rig;
    struct mv_run run;
    struct kvb_block *target;
    configure(rig, KVB_OFFLOAD_MANUAL);
    rig->config.clock = (struct kvb_clock){clock_that_gives_way, late};
    kv_rig_open(rig);
    mv_store_beside(rig, &run, KVB_TIER_HOST, 1, 1, 0);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, NULL, &target, NULL));
    struct kvb_onboard request = mv_request(run.blocks, &target, 1, NULL);
    request.done = take_when_told;
    request.arg = late;
    (void)mv_onboard(rig, &request);
    mv_drop_beside(rig, &run);
    (void)sem_wait(&late->entered);
    atomic_store(&late->armed, true);
    destroy(rig);
    assert_int_equal(late->take, KVB_ESTATE);
}

static void test_destroy_while_blocks_are_being_taken_is_busy(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done done = {0};
    configure(rig, KVB_OFFLOAD_MANUAL);
    kv_rig_open(rig);
    mv_store_beside(rig, &run, KVB_TIER_HOST, 1, 2, 0);
    struct kvb_op *op = mv_bring_beside(rig, &run, KVB_TIER_DEVICE, 0, 0, &done);
    mv_drop_beside(rig, &run);
    kv_ok(kvb_op_wait(rig->kv, op, KVB_FOREVER));
    op->taken = true; /* another thread is between the first section of kvb_op_take and the next */
    kv_expect(kvb_manager_destroy(rig->kv), KVB_EBUSY);
    op->taken = false;
    destroy(rig);
}

int main(void)
{
    const struct CMUnitTest by_polls[] = {
        TEST(bare, test_destroy_of_nothing_is_no_error),
        TEST(polled, test_destroy_of_a_fresh_manager_gives_everything_back),
        TEST(polled, test_destroy_cancels_offers_of_every_stage),
        TEST(polled, test_destroy_ends_more_copies_than_one_batch),
        TEST(polled, test_destroy_delivers_done_of_a_moving_operation_once),
        TEST(polled, test_destroy_delivers_done_of_a_queued_operation_once),
        TEST(polled, test_destroy_delivers_done_of_operations_that_joined_and_hop),
        TEST(polled, test_destroy_delivers_done_of_more_operations_than_one_batch),
        TEST(polled, test_destroy_delivers_done_of_a_released_operation_once),
        TEST(polled, test_destroy_delivers_the_result_of_what_was_good_already),
        TEST(polled, test_destroy_takes_an_operation_that_nobody_took_or_released),
        TEST(polled, test_destroy_delivers_every_event_first),
        TEST(polled, test_destroy_releases_pins),
        TEST(polled, test_destroy_after_a_quarantine_does_not_wait_for_the_fence),
        TEST(polled, test_destroy_while_an_empty_block_is_held_is_busy),
        TEST(polled, test_destroy_while_a_match_is_held_is_busy),
        TEST(polled, test_destroy_while_a_step_is_outstanding_is_busy),
        TEST(polled, test_destroy_while_taken_blocks_are_held_is_busy),
        TEST(polled, test_refused_destroy_leaves_operations_and_offers_running),
        TEST(polled, test_done_during_destroy_can_neither_take_nor_start_anything),
        TEST(polled, test_destroy_while_blocks_are_being_taken_is_busy),
    };
    const struct CMUnitTest by_thread[] = {
        TEST(threaded, test_destroy_of_a_fresh_manager_gives_everything_back),
        TEST(threaded, test_destroy_cancels_offers_of_every_stage),
        TEST(threaded, test_destroy_ends_more_copies_than_one_batch),
        TEST(threaded, test_destroy_delivers_done_of_a_moving_operation_once),
        TEST(threaded, test_destroy_delivers_done_of_a_queued_operation_once),
        TEST(threaded, test_destroy_delivers_done_of_operations_that_joined_and_hop),
        TEST(threaded, test_destroy_delivers_done_of_more_operations_than_one_batch),
        TEST(threaded, test_destroy_delivers_done_of_a_released_operation_once),
        TEST(threaded, test_destroy_delivers_the_result_of_what_was_good_already),
        TEST(threaded, test_destroy_takes_an_operation_that_nobody_took_or_released),
        TEST(threaded, test_destroy_delivers_every_event_first),
        TEST(threaded, test_destroy_releases_pins),
        TEST(threaded, test_destroy_after_a_quarantine_does_not_wait_for_the_fence),
        TEST(threaded, test_destroy_while_an_empty_block_is_held_is_busy),
        TEST(threaded, test_destroy_while_a_match_is_held_is_busy),
        TEST(threaded, test_destroy_while_a_step_is_outstanding_is_busy),
        TEST(threaded, test_destroy_while_taken_blocks_are_held_is_busy),
        TEST(threaded, test_refused_destroy_leaves_operations_and_offers_running),
        TEST(threaded, test_done_during_destroy_can_neither_take_nor_start_anything),
        TEST(threaded, test_destroy_while_blocks_are_being_taken_is_busy),
        TEST(late_take, test_destroy_and_take_do_not_both_succeed),
    };
    return cmocka_run_group_tests_name("destroy, polled", by_polls, NULL, NULL) +
           cmocka_run_group_tests_name("destroy, threaded", by_thread, NULL, NULL);
}
