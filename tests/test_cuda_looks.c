/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the engine learns that a flight is over: by its word, without the driver; by its event once a
 * millisecond, for what a word never says; and by events at pauses where there are no words.
 */
#include <sys/timerfd.h>

#include "support/cuda_scene.h"
#include "transfer/cuda/dispatch.h"

#define LOOKS 1000u

static struct kvbi_cuda_engine *engine_of(struct cuda_scene *scene)
{
    return (struct kvbi_cuda_engine *)(void *)scene->rig.kv->pipeline.engines.streams;
}

static bool looks_ready(struct cuda_scene *scene)
{
    struct kvbi_engine *engine = scene->rig.kv->pipeline.engines.streams;
    return engine->ops->ready(engine);
}

/* `count` blocks on their way down, a flight each, on held streams. */
static void take_off(struct cuda_scene *scene, struct mv_run *run, uint32_t count)
{
    struct kv_rig *rig = &scene->rig;
    mv_store(rig, run, KVB_TIER_DEVICE, 1, count);
    fake_cuda_hold(NULL);
    for (uint32_t i = 0; i < count; i++) {
        mv_offer(rig, run->blocks[i], 50);
        assert_int_equal(kvb_manager_poll(rig->kv, KVB_FOREVER), 0);
    }
}

static void fly_on(void)
{
    fake_cuda_release(NULL);
    fake_cuda_quiesce();
}

static void expect_landed(struct cuda_scene *scene, struct mv_run *run)
{
    struct kv_rig *rig = &scene->rig;
    fake_cuda_release(NULL);
    mv_step(rig);
    assert_int_equal(cuda_scene_down(scene).transferred, run->count);
    assert_int_equal(cuda_scene_down(scene).failed_transfer, 0);
    mv_drop(rig, run);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    mv_expect_in(rig, run, KVB_TIER_HOST);
}

/* So that no time passes but the clock's: the timer counts for as much. */
static void stop_timer(struct kvbi_cuda_engine *e)
{
    const struct itimerspec never = {0};
    assert_int_equal(timerfd_settime(e->timer, 0, &never, NULL), 0);
    e->ticked_ns = 0;
    e->ticked = false;
}

/* No words, and nothing but the clock says when to ask: who polls may ask as often as he likes. */
static void take_off_without_words(struct cuda_scene *scene, struct mv_run *run)
{
    kv_device_config.no_write_value = true;
    cuda_scene_open_tiers(scene, 4, 4);
    take_off(scene, run, 1);
    engine_of(scene)->own_thread = true;
    stop_timer(engine_of(scene));
}

/* ---- Words ----------------------------------------------------------------------------------- */

static void test_looks_make_no_call_while_words_answer(void **state)
{
    struct cuda_scene *scene = *state;
    struct mv_run run;
    take_off(scene, &run, 1);
    unsigned before = fake_cuda_calls(NULL);
    for (uint32_t i = 0; i < LOOKS; i++)
        assert_false(looks_ready(scene));
    fly_on();
    assert_true(looks_ready(scene));
    assert_int_equal(fake_cuda_calls(NULL), before);
    expect_landed(scene, &run);
}

static void test_flights_land_by_their_words_alone(void **state)
{
    struct cuda_scene *scene = *state;
    struct mv_run run;
    take_off(scene, &run, 4);
    stop_timer(engine_of(scene));
    unsigned before = fake_cuda_calls("cudaEventQuery") + fake_cuda_calls("cudaStreamQuery");
    expect_landed(scene, &run);
    assert_int_equal(fake_cuda_calls("cudaEventQuery") + fake_cuda_calls("cudaStreamQuery"),
                     before);
}

static void test_each_stream_is_asked_once_a_millisecond(void **state)
{
    struct cuda_scene *scene = *state;
    struct mv_run run;
    take_off(scene, &run, 4); /* on two streams */
    unsigned before = fake_cuda_calls("cudaEventQuery");
    for (unsigned round = 1; round <= 3; round++) {
        kv_advance(&scene->rig, KV_MS);
        for (uint32_t i = 0; i < LOOKS; i++)
            assert_false(looks_ready(scene));
        assert_int_equal(fake_cuda_calls("cudaEventQuery"), before + 2 * round);
    }
    expect_landed(scene, &run);
}

static void test_lost_gpu_is_found_within_a_millisecond_and_ends_each_copy_once(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    take_off(scene, &run, 4);
    fake_cuda_break_device(0, cudaErrorIllegalAddress);
    fake_cuda_release(NULL);
    stop_timer(engine_of(scene));
    assert_false(looks_ready(scene)); /* no word says so */
    kv_advance(rig, KV_MS);
    assert_true(looks_ready(scene));
    mv_step(rig);
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_DEVICE].out_of_service, 1);
    assert_int_equal(cuda_scene_down(scene).failed_transfer, 4);
    assert_int_equal(cuda_scene_down(scene).transferred, 0);
    assert_false(looks_ready(scene));
    kv_ok(kvb_block_unref(rig->kv, run.blocks, 4, NULL));
    cuda_scene_close_lost(scene, &rig->kv->pipeline.tiers[KVB_TIER_HOST]);
}

/* The clock of the server's may stand still: then the engine's timer counts. */
static void test_error_is_found_by_the_timer_where_the_clock_stands(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    take_off(scene, &run, 1);
    /* that no other call is told */
    fake_cuda_fail("cudaEventQuery", 1, cudaErrorNotPermitted, FAKE_CUDA_ONCE);
    while (kv_stats(rig).tiers[KVB_TIER_DEVICE].out_of_service == 0)
        mv_step(rig); /* ends, or the test's time does */
    fake_cuda_release(NULL);
    mv_step(rig);
    assert_int_equal(cuda_scene_down(scene).failed_transfer, 1);
    kv_ok(kvb_block_unref(rig->kv, run.blocks, 1, NULL));
    fake_cuda_break_device(0, cudaErrorLaunchFailure);
    cuda_scene_close_lost(scene, &rig->kv->pipeline.tiers[KVB_TIER_HOST]);
}

/* A timer that has always fired is no reason to ask more often than the clock says. */
static void test_timer_counts_for_nothing_while_the_clock_goes_on(void **state)
{
    struct cuda_scene *scene = *state;
    struct mv_run run;
    const struct itimerspec always = {.it_interval.tv_nsec = 1, .it_value.tv_nsec = 1};
    take_off(scene, &run, 1);
    unsigned before = fake_cuda_calls("cudaEventQuery");
    assert_int_equal(timerfd_settime(engine_of(scene)->timer, 0, &always, NULL), 0);
    for (uint32_t i = 0; i < 100; i++) {
        kv_advance(&scene->rig, 1);
        assert_int_equal(kvb_manager_poll(scene->rig.kv, KVB_FOREVER), 0);
    }
    assert_int_equal(fake_cuda_calls("cudaEventQuery"), before);
    expect_landed(scene, &run);
}

/* A flight's number is its own: what an earlier one has written says nothing. */
static void test_word_of_an_earlier_flight_says_nothing(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    for (uint32_t round = 0; round < 40; round++) {
        mv_store(rig, &run, KVB_TIER_DEVICE, 1 + round, 1);
        fake_cuda_hold(NULL);
        mv_offer(rig, run.blocks[0], 50);
        assert_int_equal(kvb_manager_poll(rig->kv, KVB_FOREVER), 0);
        fake_cuda_quiesce();
        assert_false(looks_ready(scene));
        assert_int_equal(cuda_scene_down(scene).transferred, round);
        fake_cuda_release(NULL);
        mv_step(rig);
        assert_int_equal(cuda_scene_down(scene).transferred, round + 1);
        mv_drop(rig, &run);
        mv_evict_all(rig, KVB_TIER_DEVICE);
    }
}

/* ---- Without words --------------------------------------------------------------------------- */

static void expect_paced(struct cuda_scene *scene)
{
    struct mv_run run;
    take_off(scene, &run, 1);
    unsigned before = fake_cuda_calls("cudaEventQuery");
    for (unsigned round = 0; round <= 3; round++) {
        for (uint32_t i = 0; i < LOOKS; i++)
            assert_false(looks_ready(scene));
        assert_int_equal(fake_cuda_calls("cudaEventQuery"), before + round);
        kv_advance(&scene->rig, 8000);
    }
    fly_on();
    assert_true(looks_ready(scene));
    expect_landed(scene, &run);
}

static void test_driver_without_words_is_asked_at_pauses(void **state)
{
    struct cuda_scene *scene = *state;
    kv_device_config.no_write_value = true;
    cuda_scene_open_tiers(scene, 4, 4);
    assert_null(engine_of(scene)->flights.words.host);
    expect_paced(scene);
}

static void test_device_that_refuses_words_is_asked_at_pauses(void **state)
{
    struct cuda_scene *scene = *state;
    cuda_scene_init(scene, 4, 4);
    fake_cuda_fail("cuStreamWriteValue32", 1, cudaErrorNotSupported, FAKE_CUDA_FOR_EVER);
    cuda_scene_open(scene);
    assert_null(engine_of(scene)->flights.words.host);
    expect_paced(scene);
}

static void test_flight_whose_word_is_refused_is_asked_for_at_pauses(void **state)
{
    struct cuda_scene *scene = *state;
    fake_cuda_fail("cuStreamWriteValue32", 1, cudaErrorNotSupported, FAKE_CUDA_ONCE);
    expect_paced(scene);
}

/* What a look has been told, the round behind it is told as well, without a further pause. */
static void test_what_a_look_was_told_is_asked_again_by_progress(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    take_off_without_words(scene, &run);
    fly_on();
    assert_int_equal(kvb_manager_poll(rig->kv, KVB_FOREVER), 0);
    assert_int_equal(cuda_scene_down(scene).transferred, 0);
    kv_advance(rig, 8000);
    assert_true(looks_ready(scene));
    assert_in_range(kvb_manager_poll(rig->kv, KVB_FOREVER), 0, 1);
    assert_int_equal(cuda_scene_down(scene).transferred, 1);
    engine_of(scene)->own_thread = false;
    expect_landed(scene, &run);
}

/* Destroy waits for them, and no time need pass behind that. */
static void test_flights_without_words_are_over_once_they_were_waited_for(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    take_off_without_words(scene, &run);
    fake_cuda_release(NULL);
    engine_of(scene)->engine.ops->drain(&engine_of(scene)->engine);
    assert_in_range(kvb_manager_poll(rig->kv, KVB_FOREVER), 0, 1);
    assert_int_equal(cuda_scene_down(scene).transferred, 1);
    engine_of(scene)->own_thread = false;
    expect_landed(scene, &run);
}

/* ---- Tickets --------------------------------------------------------------------------------- */

static void test_own_thread_asks_for_a_step_at_pauses(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    fake_cuda_hold(scene->server);
    struct kvb_fence fence = cuda_scene_fence(scene);
    cuda_scene_store(scene, &run, 1, 1, &fence);
    mv_offer(rig, run.blocks[0], 50);
    mv_step(rig);
    struct kvbi_cuda_engine *e = engine_of(scene);
    e->own_thread = true;
    stop_timer(e);
    unsigned before = fake_cuda_calls("cudaEventQuery");
    for (unsigned round = 0; round <= 3; round++) {
        for (uint32_t i = 0; i < 20; i++)
            assert_int_equal(kvb_manager_poll(rig->kv, KVB_FOREVER), 0);
        assert_int_equal(fake_cuda_calls("cudaEventQuery"), before + round);
        kv_advance(rig, 8000);
    }
    e->own_thread = false;
    fake_cuda_release(scene->server);
    expect_landed(scene, &run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(cuda_opened, test_looks_make_no_call_while_words_answer),
        TEST(cuda_opened, test_flights_land_by_their_words_alone),
        TEST(cuda_opened, test_each_stream_is_asked_once_a_millisecond),
        TEST(cuda_opened, test_lost_gpu_is_found_within_a_millisecond_and_ends_each_copy_once),
        TEST(cuda_opened, test_error_is_found_by_the_timer_where_the_clock_stands),
        TEST(cuda_opened, test_timer_counts_for_nothing_while_the_clock_goes_on),
        TEST(cuda_opened, test_word_of_an_earlier_flight_says_nothing),
        TEST(cuda_scene, test_driver_without_words_is_asked_at_pauses),
        TEST(cuda_scene, test_device_that_refuses_words_is_asked_at_pauses),
        TEST(cuda_opened, test_flight_whose_word_is_refused_is_asked_for_at_pauses),
        TEST(cuda_scene, test_what_a_look_was_told_is_asked_again_by_progress),
        TEST(cuda_scene, test_flights_without_words_are_over_once_they_were_waited_for),
        TEST(cuda_opened, test_own_thread_asks_for_a_step_at_pauses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
