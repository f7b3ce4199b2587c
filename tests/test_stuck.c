/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What nobody waits for any more, or what can go on, does not stay behind a fence that never comes:
 * the server may end, or have given up, before it signals.
 */
#include "support/kv_scene.h"
#include "support/move_test.h"

#include <poll.h>
#include <sched.h>
#include <semaphore.h>

#include "api/manager.h"

enum { NEVER = 100 }; /* `count` slots of the tier are free, and not ready. */
static void spoil(struct kv_rig *rig, uint32_t tier, uint32_t count)
{
    struct kvb_block *blocks[8];
    struct kvb_fence fence = mv_fence(NEVER);
    kv_ok(kvb_alloc(rig->kv, tier, count, &fence, blocks, NULL));
    kv_ok(kvb_block_unref(rig->kv, blocks, count, NULL));
}

/* Brings the run up into `target`. */
static struct kvb_op *bring_into(struct kv_rig *rig, struct mv_run *run, struct kvb_block *target,
                                 uint64_t timeout_ns, struct mv_done *done)
{
    struct kvb_op *op = NULL;
    assert_int_equal(mv_match(rig, run), 1);
    struct kvb_onboard request = mv_request(run->blocks, &target, 1, done);
    request.timeout_ns = timeout_ns;
    kv_ok(kvb_onboard(rig->kv, &request, &op));
    mv_drop(rig, run);
    return op;
}

/* ---- Operations ------------------------------------------------------------------------------ */

/* A prefetch waits for its target's fence, another operation for its block; both are given up. */
static void test_fill_that_the_last_waiter_leaves_ends_with_it(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done first, second;
    mv_three_tiers(rig, 4, 4, 4);
    mv_bounds(rig, 1, 1, 1, 1, 8); /* the engine has no place for a copy that waits */
    kv_rig_open(rig);
    mv_park(rig, &run, KVB_TIER_DISK, 1, 1);
    struct kvb_op *prefetch =
        bring_into(rig, &run, mv_alloc_after(rig, KVB_TIER_HOST, NEVER), 0, &first);
    mv_step(rig);
    struct kvb_op *passing = bring_into(rig, &run, kv_alloc(rig, KVB_TIER_DEVICE), 0, &second);
    mv_step(rig);
    kv_ok(kvb_op_cancel(rig->kv, prefetch));
    mv_step(rig);
    assert_int_equal(first.status, KVB_ECANCELED);
    assert_int_equal(second.calls, 0);
    kv_ok(kvb_op_cancel(rig->kv, passing));
    mv_step(rig);
    assert_int_equal(second.status, KVB_ECANCELED);
    kv_ok(kvb_op_release(rig->kv, prefetch));
    kv_ok(kvb_op_release(rig->kv, passing));
    mv_step(rig);
    assert_int_equal(mv_lane(rig, KVB_TIER_DISK, KVB_TIER_HOST).pending, 0);
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_HOST].free_count, 4);
    kv_ok(kvb_manager_flush(rig->kv, 0));
    mv_expect_books(rig, true);
}

/* It queues nothing, so that its deadline alone asks for progress. */
static void test_deadline_of_an_operation_that_only_joins_wakes_progress(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done first, second;
    mv_open_two(rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_park(rig, &run, KVB_TIER_HOST, 1, 1);
    struct kvb_op *op =
        bring_into(rig, &run, mv_alloc_after(rig, KVB_TIER_DEVICE, NEVER), 0, &first);
    mv_step(rig);
    struct pollfd ready = {.fd = kvb_manager_event_fd(rig->kv), .events = POLLIN};
    assert_int_equal(poll(&ready, 1, 0), 0);
    struct kvb_op *joined = bring_into(rig, &run, kv_alloc(rig, KVB_TIER_DEVICE), KV_MS, &second);
    assert_int_equal(poll(&ready, 1, 0), 1);
    kv_ok(kvb_op_release(rig->kv, op));
    kv_ok(kvb_op_release(rig->kv, joined));
    mv_step(rig);
}

/* ---- Offers ---------------------------------------------------------------------------------- */

/*
 * One target of four is ready. The first offer takes it, two wait with the engine, the fourth found
 * none; then the first has arrived, and its slot may be evicted.
 */
static void test_offer_that_waits_for_a_ready_target_takes_one_that_has_just_arrived(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    mv_two_tiers(rig, 16, 4, KVB_OFFLOAD_ON_REGISTER);
    mv_bounds(rig, 0, 8, 4, 1, 8);
    kv_rig_open(rig);
    struct kvb_block *ready = kv_alloc(rig, KVB_TIER_HOST);
    spoil(rig, KVB_TIER_HOST, 3);
    kv_unref(rig, ready);
    mv_store(rig, &run, KVB_TIER_DEVICE, 1, 4);
    mv_step(rig);
    struct kvb_lane_stats lane = mv_down(rig);
    assert_int_equal(lane.transferred, 2);
    assert_int_equal(lane.inflight, 2);
    assert_int_equal(lane.queued, 0);
    mv_drop(rig, &run);
    mv_reach(rig, NEVER);
    mv_expect_books(rig, true);
}

static void test_offer_behind_a_fence_leaves_with_its_evicted_block(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct kvb_block *others[4];
    mv_two_tiers(rig, 4, 8, KVB_OFFLOAD_ON_REGISTER);
    mv_bounds(rig, 0, 1, 1, 1, 8);
    kv_rig_open(rig);
    mv_store_after(rig, &run, KVB_TIER_DEVICE, 1, 4, NEVER);
    mv_drop(rig, &run);
    mv_step(rig);
    assert_int_equal(mv_down(rig).queued, 4);
    mv_alloc_many(rig, KVB_TIER_DEVICE, 4, others);
    assert_int_equal(mv_down(rig).queued, 0);
    assert_int_equal(mv_down(rig).discarded, 4);
    kv_ok(kvb_manager_flush(rig->kv, 0));
    kv_ok(kvb_block_unref(rig->kv, others, 4, NULL));
    mv_expect_books(rig, true);
}

/* ---- Destroy --------------------------------------------------------------------------------- */

/* An offer that has been taken is asked about; the answer comes when destroy waits for the rest. */
struct late_answer {
    struct kv_rig rig;
    sem_t asked, answer;
};

static int late_answer_setup(void **state)
{
    struct late_answer *late = kv_scene_begin(state, sizeof *late);
    return sem_init(&late->asked, 0, 0) | sem_init(&late->answer, 0, 0);
}

/* Somebody may wait for the answer yet. */
static int late_answer_teardown(void **state)
{
    struct late_answer *late = *state;
    (void)sem_post(&late->answer);
    return kv_scene_end(state);
}

static int answer_late(void *context, const struct kvb_admission_request *request)
{
    struct late_answer *late = context;
    (void)request;
    (void)sem_post(&late->asked);
    (void)sem_wait(&late->answer);
    return 1;
}

static void *let_it_answer(void *arg)
{
    struct late_answer *late = arg;
    struct kvbi_progress *progress = &late->rig.kv->progress;
    for (bool waits = false; !waits; (void)sched_yield()) {
        kvbi_lock_take(&progress->store->lock);
        waits = progress->flushers > 0;
        kvbi_lock_release(&progress->store->lock);
    }
    (void)sem_post(&late->answer);
    return NULL;
}

static void test_destroy_ends_an_offer_that_finds_no_ready_target_meanwhile(void **state)
{
    struct late_answer *late = *state;
    struct mv_run run;
    pthread_t other;
    mv_two_tiers(&late->rig, 4, 4, KVB_OFFLOAD_ON_REGISTER);
    mv_bounds(&late->rig, 0, 1, 1, 1, 8);
    late->rig.config.progress = KVB_PROGRESS_THREAD;
    late->rig.config.admission = (struct kvb_admission){.admit = answer_late, .context = late};
    kv_rig_open(&late->rig);
    spoil(&late->rig, KVB_TIER_HOST, 4);
    mv_store(&late->rig, &run, KVB_TIER_DEVICE, 1, 1);
    (void)sem_wait(&late->asked);
    mv_drop(&late->rig, &run);
    assert_int_equal(pthread_create(&other, NULL, let_it_answer, late), 0);
    kv_ok(kvb_manager_destroy(late->rig.kv));
    late->rig.kv = NULL;
    assert_int_equal(pthread_join(other, NULL), 0);
    assert_int_equal(late->rig.heap.live_blocks, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kv_rig, test_fill_that_the_last_waiter_leaves_ends_with_it),
        TEST(kv_rig, test_deadline_of_an_operation_that_only_joins_wakes_progress),
        TEST(kv_rig, test_offer_that_waits_for_a_ready_target_takes_one_that_has_just_arrived),
        TEST(kv_rig, test_offer_behind_a_fence_leaves_with_its_evicted_block),
        TEST(late_answer, test_destroy_ends_an_offer_that_finds_no_ready_target_meanwhile),
    };
    return cmocka_run_group_tests_name("stuck", tests, NULL, NULL);
}
