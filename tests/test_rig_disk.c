/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scenes of the disk's tests themselves: a test that fails midway leaves nothing behind,
 * whatever it has under way or held up.
 */
#include "support/clean_failure.h"
#include "support/disk_restart.h"
#include "support/disk_rig.h"
#include "support/disk_shelf.h"

/* ---- A scene --------------------------------------------------------------------------------- */

/* An engine of threads, and the manager's own. */
static int threaded_scene_setup(void **state)
{
    static const struct disk_variant threads = {KVB_DISK_ENGINE_POSIX, KVB_PROGRESS_THREAD,
                                                "posix, own thread"};
    *state = (void *)(uintptr_t)&threads;
    return disk_scene_opened_setup(state);
}

static int threaded_scene_teardown(void **state)
{
    return disk_scene_opened_teardown(state);
}

static void fails_with_writes_held_up(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    hold_io(scene, true);
    mv_park(&scene->rig, &run, KVB_TIER_DEVICE, 1, 8);
    wait_for_held_io(scene);
    fail_msg("midway, on purpose");
}

/* What `done` would write to is on the stack of the test. */
static void fails_with_reads_behind_a_fence(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    struct mv_done done;
    store_on_disk(scene, &run, 1, 8);
    (void)bring_up(scene, &run, KVB_TIER_DEVICE, &done, 1);
    fail_msg("midway, on purpose");
}

static void fails_with_blocks_on_disk_held(void **state)
{
    struct disk_scene *scene = *state;
    struct kvb_hit hits[MV_RUN_MAX];
    struct mv_run run;
    store_on_disk(scene, &run, 1, 8);
    assert_int_equal(hold(scene, &run, hits), 8);
    fail_msg("midway, on purpose");
}

static void fails_between_two_managers_with_a_copy_of_the_file(void **state)
{
    struct disk_scene *scene = *state;
    char copy[sizeof scene->path + 8];
    (void)snprintf(copy, sizeof copy, "%s.copy", scene->path);
    stop(scene);
    copy_file(scene->path, copy);
    fail_msg("midway, on purpose");
}

static void opens_where_it_should_be_refused(void **state)
{
    struct disk_scene *scene = *state;
    stop(scene);
    expect_refused(scene, KVB_EMISMATCH, "nothing");
}

/* ---- A shelf --------------------------------------------------------------------------------- */

static void fails_with_an_open_shelf(void **state)
{
    struct disk_shelf *shelf = *state;
    shelf->config.path_count = SHELF_PATHS;
    shelf_open(shelf);
    shelf_fill(shelf, 1000);
    fail_msg("midway, on purpose");
}

/* ---- An engine ------------------------------------------------------------------------------- */

static const struct disk_rig_variant threads = {.name = "threads", .engine = KVBI_DISK_POSIX};

static void *fill_all(void *argument)
{
    struct disk_rig *rig = argument;
    for (uint32_t slot = 4; slot < 8; slot++)
        rig_fill(rig, slot, slot);
    return NULL;
}

static void fails_with_copies_behind_a_fence_and_a_thread(void **state)
{
    struct disk_rig *rig = *state;
    rig->variant = &threads;
    rig_begin(rig, 1 << 20, 8);
    for (uint32_t slot = 0; slot < 8; slot++) {
        struct kvbi_copy copy = rig_down(rig, slot, slot, slot, slot);
        copy.tickets.source = slot < 4 ? 0 : 7;
        rig_submit(rig, copy, false);
    }
    rig_spawn(rig, fill_all);
    fail_msg("midway, on purpose");
}

/* ---- What is left of them -------------------------------------------------------------------- */

static const struct CMUnitTest failing[] = {
    TEST(threaded_scene, fails_with_writes_held_up),
    TEST(threaded_scene, fails_with_reads_behind_a_fence),
    TEST(threaded_scene, fails_with_blocks_on_disk_held),
    TEST(threaded_scene, fails_between_two_managers_with_a_copy_of_the_file),
    TEST(threaded_scene, opens_where_it_should_be_refused),
    TEST(disk_shelf, fails_with_an_open_shelf),
    TEST(disk_rig, fails_with_copies_behind_a_fence_and_a_thread),
};

static void test_failed_test_that_holds_up_writes_leaves_nothing_behind(void **state)
{
    (void)state;
    expect_clean_failure("fails_with_writes_held_up", "midway, on purpose");
}

static void test_failed_test_that_waits_for_reads_leaves_nothing_behind(void **state)
{
    (void)state;
    expect_clean_failure("fails_with_reads_behind_a_fence", "midway, on purpose");
}

static void test_failed_test_that_holds_blocks_on_disk_leaves_nothing_behind(void **state)
{
    (void)state;
    expect_clean_failure("fails_with_blocks_on_disk_held", "midway, on purpose");
}

static void test_failed_test_leaves_no_copy_of_a_file_behind(void **state)
{
    (void)state;
    expect_clean_failure("fails_between_two_managers_with_a_copy_of_the_file",
                         "midway, on purpose");
}

static void test_failed_test_leaves_no_manager_behind_that_should_not_be(void **state)
{
    (void)state;
    expect_clean_failure("opens_where_it_should_be_refused", "expected KVB_EMISMATCH");
}

static void test_failed_test_of_a_tier_leaves_nothing_behind(void **state)
{
    (void)state;
    expect_clean_failure("fails_with_an_open_shelf", "midway, on purpose");
}

static void test_failed_test_of_an_engine_leaves_nothing_behind(void **state)
{
    (void)state;
    expect_clean_failure("fails_with_copies_behind_a_fence_and_a_thread", "midway, on purpose");
}

int main(int count, char **arguments)
{
    const struct CMUnitTest tests[] = {
        TEST(bare, test_failed_test_that_holds_up_writes_leaves_nothing_behind),
        TEST(bare, test_failed_test_that_waits_for_reads_leaves_nothing_behind),
        TEST(bare, test_failed_test_that_holds_blocks_on_disk_leaves_nothing_behind),
        TEST(bare, test_failed_test_leaves_no_copy_of_a_file_behind),
        TEST(bare, test_failed_test_leaves_no_manager_behind_that_should_not_be),
        TEST(bare, test_failed_test_of_a_tier_leaves_nothing_behind),
        TEST(bare, test_failed_test_of_an_engine_leaves_nothing_behind),
    };
    if (count == 2)
        return run_failing_test(failing, sizeof failing / sizeof *failing, arguments[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
