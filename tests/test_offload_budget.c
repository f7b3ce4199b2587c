/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The budget of writes: alone, and in the lane above a disk, where held back means neither lost nor
 * busy.
 */
#include <errno.h>

#include "support/disk_scene.h"
#include "support/kv_asleep.h"

#include "offload/budget.h"

#define HOUR_NS (3600 * KV_SECOND)
#define DAY_NS (24 * HOUR_NS)
#define BLOCK_BYTES ((uint64_t)KV_LAYERS * KV_PARTS * KV_CHUNK)

/* ---- Alone ----------------------------------------------------------------------------------- */

static struct kvbi_budget budget_of(uint64_t per_second, uint64_t per_day, uint64_t block_bytes)
{
    struct kvbi_budget budget;
    kvbi_budget_init(&budget, per_second, per_day, block_bytes);
    return budget;
}

/* Spends all that is allowed at `now_ns`; how many blocks that was. */
static uint32_t spend_all(struct kvbi_budget *budget, uint64_t now_ns)
{
    uint32_t count = 0;
    while (kvbi_budget_blocks(budget, 1, now_ns) == 1) {
        kvbi_budget_spend(budget, now_ns);
        count++;
        assert_true(count < 1000000);
    }
    return count;
}

static void test_budget_without_limits_allows_all(void **state)
{
    (void)state;
    struct kvbi_budget budget = budget_of(0, 0, 4096);
    kvbi_budget_spend(&budget, 5);
    assert_int_equal(kvbi_budget_blocks(&budget, 64, 5), 64);
    assert_true(kvbi_budget_next_ns(&budget) <= 5);
}

static void test_budget_begins_with_what_a_second_allows(void **state)
{
    (void)state;
    struct kvbi_budget budget = budget_of(10 * 4096 + 4095, 0, 4096);
    assert_int_equal(kvbi_budget_blocks(&budget, 64, 0), 10);
    assert_int_equal(kvbi_budget_blocks(&budget, 3, 0), 3);
    assert_int_equal(spend_all(&budget, 0), 10);
}

static void test_budget_fills_block_by_block(void **state)
{
    (void)state;
    struct kvbi_budget budget = budget_of(10 * 4096, 0, 4096);
    assert_int_equal(spend_all(&budget, 0), 10);
    assert_int_equal(kvbi_budget_blocks(&budget, 64, KV_SECOND / 10 - 1), 0);
    assert_int_equal(kvbi_budget_blocks(&budget, 64, KV_SECOND / 10), 1);
    assert_int_equal(kvbi_budget_blocks(&budget, 64, KV_SECOND / 2), 5);
}

static void test_budget_saves_up_no_more_than_a_second(void **state)
{
    (void)state;
    struct kvbi_budget budget = budget_of(10 * 4096, 0, 4096);
    assert_int_equal(spend_all(&budget, HOUR_NS), 10);
    assert_int_equal(spend_all(&budget, 2 * HOUR_NS), 10);
}

static void test_budget_says_to_the_nanosecond_when_the_next_block_may_go(void **state)
{
    (void)state;
    struct kvbi_budget budget = budget_of(3000, 0, 4096); /* 1.365 s a block */
    (void)spend_all(&budget, 77);
    uint64_t next_ns = kvbi_budget_next_ns(&budget);
    assert_int_equal(kvbi_budget_blocks(&budget, 64, next_ns - 1), 0);
    assert_int_equal(kvbi_budget_blocks(&budget, 64, next_ns), 1);
    assert_int_equal(next_ns, 77 + 1365333334);
}

static void test_budget_of_less_than_a_block_allows_one_block(void **state)
{
    (void)state;
    struct kvbi_budget budget = budget_of(1, 0, 4096);
    assert_int_equal(spend_all(&budget, 0), 1);
    assert_int_equal(kvbi_budget_next_ns(&budget), 4096 * KV_SECOND);
}

static void test_budget_of_a_day_holds_an_hours_share(void **state)
{
    (void)state;
    struct kvbi_budget budget = budget_of(0, 240 * 4096, 4096);
    assert_int_equal(spend_all(&budget, 0), 10);
    assert_int_equal(spend_all(&budget, HOUR_NS / 2), 5);
    assert_int_equal(spend_all(&budget, 3 * DAY_NS), 10);
}

static void test_budget_of_a_day_allows_one_block_at_least(void **state)
{
    (void)state;
    struct kvbi_budget budget = budget_of(0, 2 * 4096, 4096);
    assert_int_equal(spend_all(&budget, 0), 1);
    assert_int_equal(kvbi_budget_next_ns(&budget), DAY_NS / 2);
}

/* Any 24 hours, the first ones included, which begin with a full bucket. */
static void test_budget_of_a_day_is_exceeded_by_an_hours_share_at_most(void **state)
{
    (void)state;
    struct kvbi_budget budget = budget_of(0, 2400 * 4096, 4096);
    uint32_t spent = 0;
    for (uint64_t now_ns = 0; now_ns < DAY_NS; now_ns += HOUR_NS / 60)
        spent += spend_all(&budget, now_ns);
    assert_in_range(spent, 2400, 2500);
}

static void test_budget_obeys_both_limits(void **state)
{
    (void)state;
    struct kvbi_budget budget = budget_of(100 * 4096, 24 * 150 * 4096, 4096);
    assert_int_equal(spend_all(&budget, 0), 100);
    assert_int_equal(spend_all(&budget, KV_SECOND), 50);
    assert_int_equal(kvbi_budget_next_ns(&budget), DAY_NS / (24 * 150));
}

/*
 * Whatever the rhythm: never more than a second's worth to begin with and what has filled up since,
 * and hardly less.
 */
static void test_budget_holds_over_random_rhythms(void **state)
{
    (void)state;
    uint64_t seed = 3, now_ns = 0, spent = 0;
    struct kvbi_budget budget = budget_of(7 * 1000 + 13, 0, 1000);
    while (now_ns < 1000 * KV_SECOND) {
        now_ns += kv_random(&seed, 400000000);
        spent += spend_all(&budget, now_ns);
        assert_true(spent * 1000 <= 7013 + (uint64_t)((double)now_ns * 7013 / 1e9));
    }
    assert_true(spent * 1000 >= 7013 * 990);
}

static void test_budget_of_extremes_does_not_overflow(void **state)
{
    (void)state;
    struct kvbi_budget slow = budget_of(0, 1, UINT32_MAX),
                       fast = budget_of(UINT64_MAX, UINT64_MAX, 1);
    uint64_t late = UINT64_MAX / 4;
    assert_int_equal(spend_all(&slow, late), 1);
    assert_true(kvbi_budget_next_ns(&slow) > late);
    assert_int_equal(kvbi_budget_blocks(&fast, 64, 0), 64);
}

/* ---- In the lane ----------------------------------------------------------------------------- */

/*
 * DEVICE, HOST, DISK; so many blocks may be written to DISK a second, or a day: then the first
 * hour's share at once.
 */
static struct disk_scene *scene_with_budget(void **state, uint64_t blocks_per_second,
                                            uint64_t blocks_per_day)
{
    struct disk_scene *scene = *state;
    scene->rig.tiers[2].write_bytes_per_second = blocks_per_second * BLOCK_BYTES;
    scene->rig.tiers[2].write_bytes_per_day = blocks_per_day * BLOCK_BYTES;
    scene_open(scene);
    return scene;
}

static struct kvb_lane_stats to_disk(struct disk_scene *scene)
{
    return mv_lane(&scene->rig, KVB_TIER_HOST, KVB_TIER_DISK);
}

/* Until nothing could move now, the disk's answers included. */
static void run_dry(struct disk_scene *scene)
{
    do
        kv_poll(&scene->rig);
    while (to_disk(scene).inflight > 0);
    kv_check(&scene->rig);
    mv_expect_books(&scene->rig, false);
}

static uint64_t timeout_of(struct disk_scene *scene)
{
    uint64_t timeout_ns = 0;
    kv_ok(kvb_manager_next_timeout(scene->rig.kv, &timeout_ns));
    return timeout_ns;
}

static void test_lane_writes_what_the_budget_allows_and_keeps_the_rest(void **state)
{
    struct disk_scene *scene = scene_with_budget(state, 4, 0);
    struct mv_run run;
    mv_park(&scene->rig, &run, KVB_TIER_DEVICE, 1, 10);
    run_dry(scene);
    assert_int_equal(to_disk(scene).transferred, 4);
    assert_int_equal(to_disk(scene).pending, 6);
    assert_int_equal(mv_lane(&scene->rig, KVB_TIER_DEVICE, KVB_TIER_HOST).transferred, 10);
}

static void test_lane_sleeps_until_the_budget_lets_go_of_the_next_block(void **state)
{
    struct disk_scene *scene = scene_with_budget(state, 4, 0);
    struct mv_run run;
    mv_park(&scene->rig, &run, KVB_TIER_DEVICE, 1, 10);
    run_dry(scene);
    assert_int_equal(timeout_of(scene), KV_SECOND / 4);
    kv_advance(&scene->rig, KV_SECOND / 4 - 1);
    assert_int_equal(timeout_of(scene), 1);
    run_dry(scene);
    assert_int_equal(to_disk(scene).transferred, 4);
    kv_advance(&scene->rig, 1);
    assert_int_equal(timeout_of(scene), 0);
    run_dry(scene);
    assert_int_equal(to_disk(scene).transferred, 5);
    assert_int_equal(timeout_of(scene), KV_SECOND / 4);
}

static void test_lane_goes_by_itself_from_timeout_to_timeout(void **state)
{
    struct disk_scene *scene = scene_with_budget(state, 4, 0);
    struct mv_run run;
    uint32_t sleeps = 0;
    mv_park(&scene->rig, &run, KVB_TIER_DEVICE, 1, 10);
    for (run_dry(scene); to_disk(scene).pending > 0; run_dry(scene)) {
        kv_advance(&scene->rig, timeout_of(scene));
        sleeps++;
    }
    assert_int_equal(sleeps, 6);
    assert_int_equal(timeout_of(scene), KVB_FOREVER);
    flush_and_check(scene);
    evict_above(scene);
    assert_int_equal(fetch(scene, &run), 10);
    flush_and_check(scene);
}

static void test_lane_counts_the_time_for_which_blocks_were_held_back(void **state)
{
    struct disk_scene *scene = scene_with_budget(state, 0, 24 * 5);
    struct mv_run run;
    mv_park(&scene->rig, &run, KVB_TIER_DEVICE, 1, 6);
    run_dry(scene);
    assert_int_equal(to_disk(scene).throttled_ns, 0);
    kv_advance(&scene->rig, KV_SECOND);
    assert_int_equal(to_disk(scene).throttled_ns, KV_SECOND);
    kv_advance(&scene->rig, HOUR_NS / 5 - KV_SECOND);
    run_dry(scene);
    assert_int_equal(to_disk(scene).transferred, 6);
    kv_advance(&scene->rig, HOUR_NS);
    assert_int_equal(to_disk(scene).throttled_ns, HOUR_NS / 5);
    flush_and_check(scene);
}

/*
 * A wall clock that is set back: what a second allows is written in the next second all the same.
 */
static void test_lane_goes_on_writing_after_the_clock_has_been_set_back(void **state)
{
    struct disk_scene *scene = scene_with_budget(state, 4, 0);
    struct mv_run run;
    kv_advance(&scene->rig, HOUR_NS);
    mv_park(&scene->rig, &run, KVB_TIER_DEVICE, 1, 10);
    run_dry(scene);
    assert_int_equal(to_disk(scene).transferred, 4);
    atomic_fetch_sub(&scene->rig.clock.now_ns, HOUR_NS);
    run_dry(scene);
    assert_int_equal(to_disk(scene).transferred, 4);
    kv_advance(&scene->rig, KV_SECOND);
    run_dry(scene);
    assert_int_equal(to_disk(scene).transferred, 8);
}

static void test_lane_pays_for_writes_that_fail(void **state)
{
    struct disk_scene *scene = scene_with_budget(state, 4, 0);
    struct mv_run run;
    scene->io.write_errno = ENOSPC;
    mv_park(&scene->rig, &run, KVB_TIER_DEVICE, 1, 10);
    run_dry(scene);
    assert_int_equal(to_disk(scene).failed_transfer, 4);
    assert_int_equal(to_disk(scene).pending, 6);
}

static int admit_none(void *context, const struct kvb_admission_request *request)
{
    (void)context;
    return request->to_tier != KVB_TIER_DISK;
}

static void test_lane_does_not_pay_for_what_admission_refuses(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    scene->rig.tiers[2].write_bytes_per_day = BLOCK_BYTES;
    scene->rig.config.admission.admit = admit_none;
    scene_open(scene);
    mv_park(&scene->rig, &run, KVB_TIER_DEVICE, 1, 10);
    run_dry(scene);
    assert_int_equal(to_disk(scene).skipped_admission, 10);
    flush_and_check(scene);
}

static void test_onboarding_does_not_wait_for_the_budget(void **state)
{
    struct disk_scene *scene = scene_with_budget(state, 0, 24 * 6);
    struct mv_run run;
    store_on_disk(scene, &run, 1, 6);
    assert_int_equal(fetch(scene, &run), 6);
    assert_int_equal(to_disk(scene).throttled_ns, 0);
    flush_and_check(scene);
}

static void test_flush_waits_for_the_budget_up_to_its_timeout(void **state)
{
    struct disk_scene *scene = scene_with_budget(state, 0, 24 * 2);
    struct mv_run run;
    mv_park(&scene->rig, &run, KVB_TIER_DEVICE, 1, 3);
    run_dry(scene); /* two are written, the third is held back */
    kv_expect(kvb_manager_flush(scene->rig.kv, KV_MS), KVB_ETIMEDOUT);
    kv_advance(&scene->rig, HOUR_NS / 2);
    kv_ok(kvb_manager_flush(scene->rig.kv, KVB_FOREVER));
    assert_int_equal(to_disk(scene).transferred, 3);
    flush_and_check(scene);
}

static void test_destroy_does_not_wait_for_the_budget(void **state)
{
    struct disk_scene *scene = scene_with_budget(state, 0, 24 * 2);
    struct mv_run run;
    mv_park(&scene->rig, &run, KVB_TIER_DEVICE, 1, 10);
    run_dry(scene);
    assert_int_equal(to_disk(scene).pending, 8);
    kv_rig_close(&scene->rig);
}

/* The lane has written so many blocks. Nobody calls what would wake the thread. */
static void await_transferred(struct disk_scene *scene, uint64_t count)
{
    time_t give_up = time(NULL) + KV_GIVE_UP_S;
    while (to_disk(scene).transferred < count) {
        assert_true(time(NULL) < give_up);
        (void)sched_yield();
    }
    assert_true(kv_falls_asleep(scene->rig.kv));
    assert_int_equal(to_disk(scene).transferred, count);
}

/* The clock goes on, and nobody calls: 20 blocks at once, the other three 50 ms apart. */
static void test_own_thread_goes_on_when_the_budget_does(void **state)
{
    struct disk_scene *scene = scene_with_budget(state, 20, 0);
    struct mv_run run;
    mv_park(&scene->rig, &run, KVB_TIER_DEVICE, 1, 23);
    await_transferred(scene, 20);
    assert_int_equal(to_disk(scene).pending, 3);
    kv_advance(&scene->rig, 50 * KV_MS);
    await_transferred(scene, 21);
    kv_advance(&scene->rig, 100 * KV_MS);
    await_transferred(scene, 23);
    assert_int_equal(to_disk(scene).throttled_ns, 150 * KV_MS);
    flush_and_check(scene);
}

/* ---------------------------------------------------------------------------------------------- */

static const struct CMUnitTest alone[] = {
    TEST(bare, test_budget_without_limits_allows_all),
    TEST(bare, test_budget_begins_with_what_a_second_allows),
    TEST(bare, test_budget_fills_block_by_block),
    TEST(bare, test_budget_saves_up_no_more_than_a_second),
    TEST(bare, test_budget_says_to_the_nanosecond_when_the_next_block_may_go),
    TEST(bare, test_budget_of_less_than_a_block_allows_one_block),
    TEST(bare, test_budget_of_a_day_holds_an_hours_share),
    TEST(bare, test_budget_of_a_day_allows_one_block_at_least),
    TEST(bare, test_budget_of_a_day_is_exceeded_by_an_hours_share_at_most),
    TEST(bare, test_budget_obeys_both_limits),
    TEST(bare, test_budget_holds_over_random_rhythms),
    TEST(bare, test_budget_of_extremes_does_not_overflow),
};

int main(void)
{
    static const struct CMUnitTest polled[] = {
        TEST(disk_scene_cut_short, test_lane_writes_what_the_budget_allows_and_keeps_the_rest),
        TEST(disk_scene_cut_short, test_lane_sleeps_until_the_budget_lets_go_of_the_next_block),
        TEST(disk_scene_cut_short, test_lane_goes_by_itself_from_timeout_to_timeout),
        TEST(disk_scene_cut_short, test_lane_counts_the_time_for_which_blocks_were_held_back),
        TEST(disk_scene_cut_short, test_lane_goes_on_writing_after_the_clock_has_been_set_back),
        TEST(disk_scene_cut_short, test_lane_pays_for_writes_that_fail),
        TEST(disk_scene_cut_short, test_lane_does_not_pay_for_what_admission_refuses),
        TEST(disk_scene_cut_short, test_onboarding_does_not_wait_for_the_budget),
        TEST(disk_scene_cut_short, test_flush_waits_for_the_budget_up_to_its_timeout),
        TEST(disk_scene_cut_short, test_destroy_does_not_wait_for_the_budget),
    };
    static const struct CMUnitTest threaded[] = {
        TEST(disk_scene_cut_short, test_own_thread_goes_on_when_the_budget_does),
    };
    int failed = cmocka_run_group_tests_name("alone", alone, NULL, NULL);
    return failed + run_disk_tests_by_progress(polled, sizeof polled / sizeof *polled, threaded,
                                               sizeof threaded / sizeof *threaded);
}
