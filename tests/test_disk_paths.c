/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Paths of the disk tier: one that fails is lost by itself, and the others go on. One path and
 * three.
 */
#include <errno.h>

#include "support/disk_stripes.h"

/* ---- Losing ---------------------------------------------------------------------------------- */

static void lose_one_of(struct disk_scene *scene)
{
    const uint32_t path_count = disk_pool(scene)->file_count;
    struct mv_run run;
    uint32_t slots[12], lost = 0;
    store_with_slots(scene, &run, 1, 12, slots);
    lose_by_writes(scene, ENOSPC);
    for (uint32_t i = 0; i < 12; i++) {
        bool on_lost = path_of_slot(scene, slots[i]) == FAILING % path_count;
        assert_int_equal(is_found(scene, &run, i), !on_lost);
        lost += on_lost;
    }
    assert_int_equal(lost, 12 / path_count);
    assert_int_equal(mv_event_count(&scene->rig, KVB_EVENT_REMOVED, KVB_TIER_DISK), lost);
    assert_int_equal(disk_lost(scene), path_count == 1);
}

static void test_lost_path_is_forgotten_and_the_others_are_not(void **state)
{
    lose_one_of(*state);
}

static void test_lost_path_that_is_the_only_one_takes_the_tier_along(void **state)
{
    lose_one_of(*state);
}

static void test_blocks_of_a_lost_path_are_not_found_even_before_they_are_forgotten(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    struct kvb_hit hits[MV_RUN_MAX];
    uint32_t slots[6], before = 0;
    store_with_slots(scene, &run, 1, 6, slots);
    while (path_of_slot(scene, slots[before]) != FAILING)
        before++;
    set_out(scene, FAILING, true);
    assert_int_equal(mv_found(&scene->rig, &run), before);
    assert_int_equal(hold(scene, &run, hits), before);
    kv_ok(kvb_block_unref(scene->rig.kv, run.blocks, before, NULL));
    set_out(scene, FAILING, false);
    assert_int_equal(mv_found(&scene->rig, &run), 6);
}

static void test_copy_in_memory_is_found_when_the_one_on_a_lost_path_is_not(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    mv_park(&scene->rig, &run, KVB_TIER_DEVICE, 1, 6);
    flush_and_check(scene);
    set_out(scene, FAILING, true);
    mv_evict_all(&scene->rig, KVB_TIER_DEVICE);
    mv_expect_in(&scene->rig, &run, KVB_TIER_HOST);
    set_out(scene, FAILING, false);
}

static void test_lost_path_is_logged_once_by_its_name(void **state)
{
    struct disk_scene *scene = *state;
    char words[200];
    uint32_t lines = 0;
    (void)snprintf(words, sizeof words, "path 1, %s, is out of service", scene->files[FAILING]);
    lose_by_writes(scene, ENOSPC);
    for (size_t i = 0; i < KV_LOG_MAX && i < scene->rig.log.count; i++)
        lines += strstr(scene->rig.log.lines[i].text, words) != NULL;
    assert_int_equal(lines, 1);
}

static void test_blocks_go_on_to_the_other_paths(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    uint32_t slots[20];
    lose_by_writes(scene, ENOSPC);
    store_with_slots(scene, &run, 1, 20, slots);
    for (uint32_t i = 0; i < 20; i++)
        assert_int_not_equal(path_of_slot(scene, slots[i]), FAILING);
    assert_int_equal(mv_lane(&scene->rig, KVB_TIER_HOST, KVB_TIER_DISK).skipped_out_of_service, 0);
    assert_int_equal(fetch(scene, &run), 20);
}

/*
 * More than the other paths hold: evicting there goes on, and the slots of the lost one are not
 * touched.
 */
static void test_slots_of_a_lost_path_are_never_given_out(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    lose_by_writes(scene, ENOSPC);
    uint32_t writes = scene->io.writes;
    for (uint64_t seed = 1; seed <= 6; seed++)
        store_on_disk(scene, &run, seed, 20);
    struct kvb_tier_stats stats = kv_stats(&scene->rig).tiers[KVB_TIER_DISK];
    assert_int_equal(scene->io.writes, writes + 120);
    assert_int_equal(retired_on(scene, FAILING), kvbi_pool_file_slots(disk_pool(scene), FAILING));
    assert_int_equal(stats.parked_count, DISK_BLOCKS - retired_on(scene, FAILING));
    assert_int_equal(stats.free_count, 0);
}

static void test_errors_are_counted_by_path(void **state)
{
    struct disk_scene *scene = *state;
    for (uint32_t path = 0; path < PATHS; path++)
        report_failures(scene, path, KVB_DISK_ERRORS_MAX - 1);
    flush_and_check(scene);
    for (uint32_t path = 0; path < PATHS; path++)
        assert_int_equal(state_of(scene, path), KVBI_FILE_IN_SERVICE);
    report_failures(scene, 2, 1);
    flush_and_check(scene);
    assert_int_equal(state_of(scene, 0), KVBI_FILE_IN_SERVICE);
    assert_int_equal(state_of(scene, 2), KVBI_FILE_OUT_OF_SERVICE);
}

/* The device did what it was asked to. A kill leaves torn blocks behind, and side by side. */
static void test_content_that_fails_verification_says_nothing_about_its_path(void **state)
{
    struct disk_scene *scene = *state;
    report(scene, FAILING, 3 * KVB_DISK_ERRORS_MAX, KVB_ECORRUPT);
    assert_int_equal(state_of(scene, FAILING), KVBI_FILE_IN_SERVICE);
    report_failures(scene, FAILING, KVB_DISK_ERRORS_MAX - 1);
    report(scene, FAILING, 1, KVB_ECORRUPT);
    assert_int_equal(state_of(scene, FAILING), KVBI_FILE_IN_SERVICE);
    report_failures(scene, FAILING, 1);
    flush_and_check(scene);
    assert_int_equal(state_of(scene, FAILING), KVBI_FILE_OUT_OF_SERVICE);
}

static void test_success_between_errors_begins_the_count_anew(void **state)
{
    struct disk_scene *scene = *state;
    report_failures(scene, FAILING, KVB_DISK_ERRORS_MAX - 1);
    report(scene, FAILING, 1, KVB_OK);
    report_failures(scene, FAILING, KVB_DISK_ERRORS_MAX - 1);
    assert_int_equal(state_of(scene, FAILING), KVBI_FILE_IN_SERVICE);
}

static void test_tier_is_out_of_service_with_its_last_path(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    for (uint32_t path = 0; path < PATHS; path++) {
        assert_false(disk_lost(scene));
        report_failures(scene, path, KVB_DISK_ERRORS_MAX);
    }
    assert_true(disk_lost(scene));
    mv_park(&scene->rig, &run, KVB_TIER_DEVICE, 1, 6);
    flush_and_check(scene);
    assert_int_equal(mv_lane(&scene->rig, KVB_TIER_HOST, KVB_TIER_DISK).skipped_out_of_service, 6);
}

static void test_content_on_a_lost_path_can_be_written_to_another_at_once(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    mv_park(&scene->rig, &run, KVB_TIER_DEVICE, 1, 6);
    flush_and_check(scene);
    mv_evict_all(&scene->rig, KVB_TIER_DEVICE);
    set_out(scene, FAILING, true);
    assert_int_equal(mv_match(&scene->rig, &run), 6);
    kv_ok(kvb_block_offload(scene->rig.kv, run.blocks, 6, KVB_PRIORITY_DEFAULT, NULL, NULL));
    mv_drop(&scene->rig, &run);
    flush_and_check(scene);
    assert_int_equal(mv_lane(&scene->rig, KVB_TIER_HOST, KVB_TIER_DISK).transferred, 8);
    assert_int_equal(mv_lane(&scene->rig, KVB_TIER_HOST, KVB_TIER_DISK).skipped_present, 4);
    mv_evict_all(&scene->rig, KVB_TIER_HOST);
    assert_int_equal(fetch(scene, &run), 6);
    set_out(scene, FAILING, false);
}

/* ---- Under way ------------------------------------------------------------------------------- */

/* Every block of `run` is being written when the failing path is lost. */
static struct disk_scene *scene_with_writes_under_way(void **state, struct mv_run *run)
{
    struct disk_scene *scene = *state;
    hold_io(scene, true);
    mv_park(&scene->rig, run, KVB_TIER_DEVICE, 1, 6);
    wait_for_held_io(scene);
    while (mv_lane(&scene->rig, KVB_TIER_HOST, KVB_TIER_DISK).inflight < 6)
        ; /* the first is held, the others follow without being asked */
    report_failures(scene, FAILING, KVB_DISK_ERRORS_MAX);
    return scene;
}

static void test_write_to_a_lost_path_is_not_believed(void **state)
{
    struct mv_run run;
    struct disk_scene *scene = scene_with_writes_under_way(state, &run);
    hold_io(scene, false);
    flush_and_check(scene);
    assert_int_equal(mv_lane(&scene->rig, KVB_TIER_HOST, KVB_TIER_DISK).transferred, 4);
    assert_int_equal(mv_lane(&scene->rig, KVB_TIER_HOST, KVB_TIER_DISK).failed_transfer, 2);
    assert_int_equal(mv_event_count(&scene->rig, KVB_EVENT_STORED, KVB_TIER_DISK), 4);
}

static void test_path_is_busy_while_something_moves_there(void **state)
{
    struct mv_run run;
    struct disk_scene *scene = scene_with_writes_under_way(state, &run);
    assert_int_equal(state_of(scene, FAILING), KVBI_FILE_BUSY);
    assert_false(put_back_step(scene, FAILING));
    kv_expect(kvb_disk_put_back(scene->rig.kv, FAILING), KVB_EBUSY);
    assert_int_equal(state_of(scene, FAILING), KVBI_FILE_BUSY);
    hold_io(scene, false);
    flush_and_check(scene);
    assert_int_equal(state_of(scene, FAILING), KVBI_FILE_OUT_OF_SERVICE);
}

/*
 * Blocks on the failing path are queued to be read when `interfere` gets between; they are misses,
 * and nothing tries to read them.
 */
static void interfere_with_queued_reads(void **state, void (*interfere)(struct disk_scene *scene))
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    uint32_t slots[6], before = 0;
    store_with_slots(scene, &run, 1, 6, slots);
    while (path_of_slot(scene, slots[before]) != FAILING)
        before++;
    struct kvb_op *op = bring_up(scene, &run, KVB_TIER_HOST, NULL, 0);
    interfere(scene);
    assert_int_equal(finish(scene, &run, op), before);
    assert_true(mv_lane(&scene->rig, KVB_TIER_DISK, KVB_TIER_HOST).discarded > 0);
    assert_int_equal(mv_lane(&scene->rig, KVB_TIER_DISK, KVB_TIER_HOST).failed, 0);
}

static void take_path_out(struct disk_scene *scene)
{
    set_out(scene, FAILING, true);
}

static void test_queued_read_from_a_path_that_is_out_is_not_begun(void **state)
{
    interfere_with_queued_reads(state, take_path_out);
}

static void lose_and_put_back(struct disk_scene *scene)
{
    report_failures(scene, FAILING, KVB_DISK_ERRORS_MAX);
    kvbi_lock(scene->rig.kv);
    while (kvbi_health_forget_locked(&scene->rig.kv->pipeline.health))
        ;
    kvbi_unlock(scene->rig.kv);
    (void)put_back(scene, FAILING);
}

static void test_queued_read_from_before_a_path_was_put_back_is_not_begun(void **state)
{
    interfere_with_queued_reads(state, lose_and_put_back);
}

int main(void)
{
    static const struct CMUnitTest each[] = {
        TEST(three_paths, test_lost_path_is_forgotten_and_the_others_are_not),
        TEST(one_path, test_lost_path_that_is_the_only_one_takes_the_tier_along),
        TEST(three_paths, test_blocks_of_a_lost_path_are_not_found_even_before_they_are_forgotten),
        TEST(three_paths, test_copy_in_memory_is_found_when_the_one_on_a_lost_path_is_not),
        TEST(three_paths, test_lost_path_is_logged_once_by_its_name),
        TEST(three_paths, test_blocks_go_on_to_the_other_paths),
        TEST(three_paths, test_slots_of_a_lost_path_are_never_given_out),
        TEST(three_paths, test_errors_are_counted_by_path),
        TEST(three_paths, test_content_that_fails_verification_says_nothing_about_its_path),
        TEST(three_paths, test_success_between_errors_begins_the_count_anew),
        TEST(three_paths, test_tier_is_out_of_service_with_its_last_path),
        TEST(three_paths, test_content_on_a_lost_path_can_be_written_to_another_at_once),
    };
    static const struct CMUnitTest once[] = {
        TEST(three_paths, test_write_to_a_lost_path_is_not_believed),
        TEST(three_paths, test_path_is_busy_while_something_moves_there),
    };
    static const struct CMUnitTest polled[] = {
        TEST(three_paths, test_queued_read_from_a_path_that_is_out_is_not_begun),
        TEST(three_paths, test_queued_read_from_before_a_path_was_put_back_is_not_begun),
    };
    int failed = run_disk_tests(each, sizeof each / sizeof *each, once, sizeof once / sizeof *once);
    return failed + run_disk_tests_by_progress(polled, sizeof polled / sizeof *polled, NULL, 0);
}
