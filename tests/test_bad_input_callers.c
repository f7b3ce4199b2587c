/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls from the wrong thread, from within a callback, and destroy while handles are held.
 */
#include "support/kv_scene.h"

static const uint32_t T[] = {1, 2, 3, 4, 5, 6, 7, 8};

static int visit_nothing(void *arg, const struct kvb_event *event)
{
    (void)arg;
    (void)event;
    return 0;
}

/* ---- The wrong thread, and callbacks --------------------------------------------------------- */

struct elsewhere {
    struct kvb_manager *kv;
    int poll, flush;
};

static void *poll_elsewhere(void *arg)
{
    struct elsewhere *answers = arg;
    answers->poll = kvb_manager_poll(answers->kv, 0);
    answers->flush = kvb_manager_flush(answers->kv, 0);
    return NULL;
}

static void test_poll_from_another_thread_is_refused(void **state)
{
    struct kv_rig *rig = *state;
    struct elsewhere answers = {rig->kv, 0, 0};
    pthread_t thread;
    kv_poll(rig);
    assert_int_equal(pthread_create(&thread, NULL, poll_elsewhere, &answers), 0);
    pthread_join(thread, NULL);
    kv_expect(answers.poll, KVB_ETHREAD);
    kv_expect(answers.flush, KVB_ETHREAD);
}

/* Two threads that were let go at the same time; each polls once. */
struct race {
    struct kvb_manager *kv;
    _Atomic int ready;
    _Atomic int accepted, refused;
};

static void *poll_in_a_race(void *arg)
{
    struct race *race = arg;
    atomic_fetch_add(&race->ready, 1);
    while (atomic_load(&race->ready) < 2) {
    }
    int code = kvb_manager_poll(race->kv, 0);
    atomic_fetch_add(&race->accepted, code >= 0);
    atomic_fetch_add(&race->refused, code == KVB_ETHREAD);
    return NULL;
}

static void test_first_poll_by_two_threads_at_once_is_accepted_from_one(void **state)
{
    struct kv_rig *rig = *state;
    for (int round = 0; round < 500; round++) {
        pthread_t threads[2];
        kv_rig_open(rig);
        struct race race = {.kv = rig->kv};
        for (int i = 0; i < 2; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, poll_in_a_race, &race), 0);
        for (int i = 0; i < 2; i++)
            pthread_join(threads[i], NULL);
        assert_int_equal(race.accepted, 1);
        assert_int_equal(race.refused, 1);
        kv_rig_close(rig);
    }
}

static void test_poll_of_a_manager_with_a_thread_is_refused(void **state)
{
    struct kv_rig *rig = *state;
    rig->config.progress = KVB_PROGRESS_THREAD;
    kv_rig_open(rig);
    kv_expect(kvb_manager_poll(rig->kv, 0), KVB_ETHREAD);
    kv_expect(kvb_manager_event_fd(rig->kv), KVB_EUNSUPPORTED);
    kv_ok(kvb_manager_flush(rig->kv, KVB_FOREVER));
}

/* What a sink was told that calls back in. */
static struct from_sink {
    struct kvb_manager *kv;
    int calls, poll, flush, destroy, lookup, walk;
} from_sink;

static void call_back_in(void *context, const struct kvb_event *event)
{
    struct from_sink *got = context;
    struct kvb_query query = kv_query(0, T, KV_TOKENS);
    uint64_t tiers[KVB_TIER_COUNT];
    (void)event;
    got->calls++;
    got->poll = kvb_manager_poll(got->kv, 0);
    got->flush = kvb_manager_flush(got->kv, KVB_FOREVER);
    got->destroy = kvb_manager_destroy(got->kv);
    got->lookup = kvb_lookup(got->kv, &query, tiers);
    got->walk = kvb_index_walk(got->kv, visit_nothing, NULL);
}

static void call_from_sink(struct kv_rig *rig, uint32_t progress)
{
    struct kvb_block *block = NULL;
    memset(&from_sink, 0, sizeof from_sink);
    rig->config.progress = progress;
    rig->config.sink = (struct kvb_event_sink){call_back_in, &from_sink};
    kv_rig_open(rig);
    from_sink.kv = rig->kv; /* no event before the first register */
    kv_store_run(rig, KVB_TIER_DEVICE, 0, T, 1, &block);
    kv_flush(rig);
    kv_unref(rig, block);
    kv_rig_close(rig);
    assert_int_equal(from_sink.calls, 1);
}

static void test_waiting_from_within_a_callback_would_deadlock(void **state)
{
    call_from_sink(*state, KVB_PROGRESS_POLL);
    kv_expect(from_sink.poll, KVB_EDEADLK);
    kv_expect(from_sink.flush, KVB_EDEADLK);
    kv_expect(from_sink.destroy, KVB_EDEADLK);
}

static void test_waiting_from_within_a_callback_of_the_thread_would_deadlock(void **state)
{
    call_from_sink(*state, KVB_PROGRESS_THREAD);
    kv_expect(from_sink.flush, KVB_EDEADLK);
    kv_expect(from_sink.destroy, KVB_EDEADLK);
}

static void test_other_calls_from_within_a_callback_are_legal(void **state)
{
    call_from_sink(*state, KVB_PROGRESS_POLL);
    kv_ok(from_sink.lookup);
}

static void test_walk_from_within_a_callback_would_stop_progress(void **state)
{
    struct kv_rig *rig = *state;
    call_from_sink(rig, KVB_PROGRESS_POLL);
    kv_expect(from_sink.walk, KVB_EDEADLK);
    call_from_sink(rig, KVB_PROGRESS_THREAD);
    kv_expect(from_sink.walk, KVB_EDEADLK);
}

/* ---- destroy --------------------------------------------------------------------------------- */

static void test_destroy_with_held_handles_is_busy_and_changes_nothing(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *run[2];
    kv_store_run(rig, KVB_TIER_DEVICE, 0, T, 2, run);
    kv_unref(rig, run[1]);
    kv_expect(kvb_manager_destroy(rig->kv), KVB_EBUSY);
    assert_int_equal(kv_describe(rig, run[0]).holder_count, 1);
    assert_int_equal(kv_run_length(rig, 0, T, 8), 2);
    kv_poll(rig);
    assert_int_equal(rig->events.count, 2);
    kv_unref(rig, run[0]);
}

static void test_refused_destroy_leaves_polling_to_another_thread(void **state)
{
    struct kv_rig *rig = *state;
    struct elsewhere answers = {rig->kv, 1, 1};
    pthread_t thread;
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_expect(kvb_manager_destroy(rig->kv), KVB_EBUSY);
    assert_int_equal(pthread_create(&thread, NULL, poll_elsewhere, &answers), 0);
    pthread_join(thread, NULL);
    kv_ok(answers.poll);
    kv_ok(answers.flush);
    kv_unref(rig, block);
}

static void test_destroy_delivers_outstanding_events(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = NULL;
    kv_rig_open(rig);
    kv_store_run(rig, KVB_TIER_DEVICE, 0, T, 1, &block);
    kv_unref(rig, block);
    assert_int_equal(rig->events.count, 0);
    kv_rig_close(rig);
    assert_int_equal(rig->events.count, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kv_opened_two_tiers, test_poll_from_another_thread_is_refused),
        TEST(kv_two_tiers, test_first_poll_by_two_threads_at_once_is_accepted_from_one),
        TEST(kv_two_tiers, test_poll_of_a_manager_with_a_thread_is_refused),
        TEST(kv_two_tiers, test_waiting_from_within_a_callback_would_deadlock),
        TEST(kv_two_tiers, test_waiting_from_within_a_callback_of_the_thread_would_deadlock),
        TEST(kv_two_tiers, test_walk_from_within_a_callback_would_stop_progress),
        TEST(kv_two_tiers, test_other_calls_from_within_a_callback_are_legal),
        TEST(kv_opened_two_tiers, test_destroy_with_held_handles_is_busy_and_changes_nothing),
        TEST(kv_opened_two_tiers, test_refused_destroy_leaves_polling_to_another_thread),
        TEST(kv_two_tiers, test_destroy_delivers_outstanding_events),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
