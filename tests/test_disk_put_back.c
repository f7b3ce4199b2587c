/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Paths of the disk tier that have been lost and are put back: they are used again, with all of
 * their slots that are good. One path and three.
 */
#include <errno.h>

#include "support/disk_stripes.h"

/* ---- Putting back ---------------------------------------------------------------------------- */

static void put_back_one_of(struct disk_scene *scene)
{
    const uint32_t path_count = disk_pool(scene)->file_count;
    uint32_t path = FAILING % path_count, slots[20], there = 0;
    struct mv_run run;
    store_on_disk(scene, &run, 1, 12);
    lose_by_writes(scene, ENOSPC);
    flush_and_check(scene);
    assert_int_equal(state_of(scene, path), KVBI_FILE_OUT_OF_SERVICE);
    assert_true(retired_on(scene, path) >= 12 / path_count);
    kv_ok(kvb_disk_put_back(scene->rig.kv, path));
    assert_int_equal(state_of(scene, path), KVBI_FILE_IN_SERVICE);
    assert_int_equal(retired_on(scene, path), 0);
    assert_false(disk_lost(scene));
    store_with_slots(scene, &run, 2, 20, slots);
    for (uint32_t i = 0; i < 20; i++)
        there += path_of_slot(scene, slots[i]) == path;
    assert_true(there > 0);
    assert_int_equal(fetch(scene, &run), 20);
}

static void test_path_put_back_is_used_again(void **state)
{
    put_back_one_of(*state);
}

static void test_only_path_put_back_is_used_again(void **state)
{
    put_back_one_of(*state);
}

static void test_path_put_back_is_lost_again_only_after_as_many_errors(void **state)
{
    struct disk_scene *scene = *state;
    lose_by_writes(scene, ENOSPC);
    flush_and_check(scene);
    (void)put_back(scene, FAILING);
    report_failures(scene, FAILING, KVB_DISK_ERRORS_MAX - 1);
    assert_int_equal(state_of(scene, FAILING), KVBI_FILE_IN_SERVICE);
    report_failures(scene, FAILING, 1);
    flush_and_check(scene);
    assert_int_equal(state_of(scene, FAILING), KVBI_FILE_OUT_OF_SERVICE);
}

static void test_slot_condemned_by_itself_stays_retired_when_its_path_is_put_back(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    uint32_t slots[6], condemned = 0;
    store_with_slots(scene, &run, 1, 6, slots);
    while (path_of_slot(scene, slots[condemned]) != FAILING)
        condemned++;
    kvbi_lock(scene->rig.kv);
    disk_pool(scene)->slots[slots[condemned]].flags |= KVBI_SLOT_CONDEMNED;
    kvbi_unlock(scene->rig.kv);
    report_failures(scene, FAILING, KVB_DISK_ERRORS_MAX);
    flush_and_check(scene);
    (void)put_back(scene, FAILING);
    assert_int_equal(retired_on(scene, FAILING), 1);
    assert_int_equal(disk_pool(scene)->slots[slots[condemned]].place, KVBI_PLACE_RETIRED);
}

/* A cable is pulled and put back, again and again. */
static void outages_cost_no_slots(struct disk_scene *scene)
{
    const uint32_t path_count = disk_pool(scene)->file_count;
    uint32_t path = FAILING % path_count;
    struct mv_run run;
    for (uint32_t outage = 0; outage < 4; outage++) {
        lose_by_writes(scene, EIO);
        flush_and_check(scene);
        assert_true(retired_on(scene, path) > 0);
        kv_ok(kvb_disk_put_back(scene->rig.kv, path));
        assert_int_equal(retired_on(scene, path), 0);
        kv_check(&scene->rig);
    }
    assert_false(kv_log_has(&scene->rig.log, "is not used any more"));
    store_on_disk(scene, &run, 1, 20);
    assert_int_equal(fetch(scene, &run), 20);
    assert_int_equal(retired_on(scene, path), 0);
}

static void test_slots_of_the_errors_that_lost_a_path_come_back_with_it(void **state)
{
    outages_cost_no_slots(*state);
}

static void test_slots_of_the_errors_that_lost_the_only_path_come_back_with_it(void **state)
{
    outages_cost_no_slots(*state);
}

/*
 * Condemned for an error while somebody holds its block, lost with its path, let go before the path
 * is back, or after.
 */
static void hold_a_suspect_over_the_loss(void **state, bool past_the_return)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    struct kvb_hit hits[MV_RUN_MAX];
    store_on_disk(scene, &run, 1, 1);
    assert_int_equal(hold(scene, &run, hits), 1);
    struct kvb_block *held = run.blocks[0];
    scene->io.read_errno = EIO;
    assert_int_equal(fetch(scene, &run), 0);
    assert_int_equal(disk_pool(scene)->slots[hits[0].slot].flags, KVBI_SLOT_CONDEMNED);
    report_failures(scene, 0, KVB_DISK_ERRORS_MAX - 1);
    flush_and_check(scene);
    assert_int_equal(state_of(scene, 0), KVBI_FILE_OUT_OF_SERVICE);
    if (!past_the_return)
        kv_unref(&scene->rig, held);
    (void)put_back(scene, 0);
    if (past_the_return)
        kv_unref(&scene->rig, held);
    assert_int_equal(kv_stats(&scene->rig).tiers[KVB_TIER_DISK].free_count, DISK_BLOCKS);
}

static void test_held_slot_of_an_error_that_lost_its_path_comes_back_with_it(void **state)
{
    hold_a_suspect_over_the_loss(state, false);
}

static void test_held_slot_of_an_error_that_lost_its_path_is_free_once_let_go(void **state)
{
    hold_a_suspect_over_the_loss(state, true);
}

static void test_put_back_of_a_path_in_service_does_nothing(void **state)
{
    struct disk_scene *scene = *state;
    report_failures(scene, FAILING, KVB_DISK_ERRORS_MAX - 1);
    assert_false(put_back_step(scene, FAILING));
    kv_expect(kvb_disk_put_back(scene->rig.kv, FAILING), KVB_ESTATE);
    report_failures(scene, FAILING, 1); /* the errors before it still count */
    flush_and_check(scene);
    assert_int_equal(state_of(scene, FAILING), KVBI_FILE_OUT_OF_SERVICE);
}

static void test_put_back_goes_in_steps(void **state)
{
    struct disk_scene *scene = *state;
    stripes_open(scene, 200, 1);
    report_failures(scene, 0, KVB_DISK_ERRORS_MAX);
    flush_and_check(scene);
    assert_int_equal(put_back(scene, 0), (200 + KVBI_LOCK_BATCH - 1) / KVBI_LOCK_BATCH);
}

static void test_put_back_ends_when_the_path_is_lost_again(void **state)
{
    struct disk_scene *scene = *state;
    stripes_open(scene, 200, 1);
    report_failures(scene, 0, KVB_DISK_ERRORS_MAX);
    flush_and_check(scene);
    assert_true(put_back_step(scene, 0));
    kvbi_lock(scene->rig.kv); /* or progress may have forgotten the path by the second step */
    report_locked(scene, 0, KVB_DISK_ERRORS_MAX, KVB_EIO);
    bool more = kvbi_health_put_back_locked(&scene->rig.kv->pipeline.health, disk_pool(scene), 0);
    kvbi_unlock(scene->rig.kv);
    assert_false(more);
    flush_and_check(scene);
    assert_int_equal(state_of(scene, 0), KVBI_FILE_OUT_OF_SERVICE);
}

/* Matched before the loss, let go after the path is back: the slot is free like any other. */
static void test_block_held_over_loss_and_return_frees_its_slot(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    struct kvb_hit hits[MV_RUN_MAX];
    store_on_disk(scene, &run, 1, 1);
    assert_int_equal(hold(scene, &run, hits), 1);
    report_failures(scene, 0, KVB_DISK_ERRORS_MAX);
    flush_and_check(scene);
    (void)put_back(scene, 0);
    mv_drop(&scene->rig, &run);
    assert_int_equal(kv_stats(&scene->rig).tiers[KVB_TIER_DISK].free_count, DISK_BLOCKS);
}

int main(void)
{
    static const struct CMUnitTest each[] = {
        TEST(three_paths, test_path_put_back_is_used_again),
        TEST(one_path, test_only_path_put_back_is_used_again),
        TEST(three_paths, test_path_put_back_is_lost_again_only_after_as_many_errors),
        TEST(three_paths, test_slot_condemned_by_itself_stays_retired_when_its_path_is_put_back),
        TEST(three_paths, test_slots_of_the_errors_that_lost_a_path_come_back_with_it),
        TEST(one_path, test_slots_of_the_errors_that_lost_the_only_path_come_back_with_it),
        TEST(one_path, test_held_slot_of_an_error_that_lost_its_path_comes_back_with_it),
        TEST(one_path, test_held_slot_of_an_error_that_lost_its_path_is_free_once_let_go),
        TEST(three_paths, test_put_back_of_a_path_in_service_does_nothing),
        TEST(disk_scene, test_put_back_goes_in_steps),
        TEST(disk_scene, test_put_back_ends_when_the_path_is_lost_again),
        TEST(one_path, test_block_held_over_loss_and_return_frees_its_slot),
    };
    return run_disk_tests(each, sizeof each / sizeof *each, NULL, 0);
}
