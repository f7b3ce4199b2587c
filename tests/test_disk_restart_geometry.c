/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a disk tier's files keep when they are opened again with another size or with other paths.
 */
#include <sys/stat.h>

#include "support/disk_restart.h"

/* ---- Geometry -------------------------------------------------------------------------------- */

static void test_file_of_more_blocks_keeps_all(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    store_on_disk(scene, &run, 1, 20);
    stop(scene);
    disk_config(scene)->block_count = 3 * DISK_BLOCKS;
    scene_open(scene);
    assert_int_equal(fetch(scene, &run), 20);
    restart(scene);
    assert_int_equal(fetch(scene, &run), 20);
}

static void test_file_of_fewer_blocks_keeps_what_fits(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run runs[20];
    store_each(scene, runs, 1, 20);
    stop(scene);
    disk_config(scene)->block_count = 8;
    scene_open(scene);
    assert_int_equal(count_found(scene, runs, 20), 8);
    for (uint32_t i = 0; i < 20; i++)
        if (is_found(scene, &runs[i], 0))
            assert_int_equal(fetch(scene, &runs[i]), 1);
    struct stat status;
    assert_int_equal(stat(scene->path, &status), 0);
    assert_true((uint64_t)status.st_size < KVBI_DISK_DATA_OFFSET + DISK_BLOCKS * KVBI_DISK_ALIGN);
}

static void test_restart_over_three_files_finds_every_block(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    scene_stripe(scene, 3);
    scene_open(scene);
    store_on_disk(scene, &run, 1, 20);
    for (uint32_t i = 0; i < 3; i++)
        assert_true(path_stats(scene, i).bytes_written > 0);
    restart(scene);
    assert_int_equal(path_stats(scene, 0).recovered + path_stats(scene, 1).recovered +
                         path_stats(scene, 2).recovered,
                     20);
    assert_int_equal(fetch(scene, &run), 20);
}

static void test_path_that_is_left_out_takes_its_blocks_along_and_brings_them_back(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run runs[20];
    uint32_t without = 0;
    scene_stripe(scene, 2);
    scene_open(scene);
    store_each(scene, runs, 1, 20);
    stop(scene);
    disk_config(scene)->path_count = 1;
    scene_open(scene);
    without = count_found(scene, runs, 20);
    assert_int_equal(without, path_stats(scene, 0).recovered);
    assert_true(without > 0 && without < 20);
    for (uint32_t i = 0; i < 20; i++)
        if (is_found(scene, &runs[i], 0))
            assert_int_equal(fetch(scene, &runs[i]), 1);
    stop(scene);
    disk_config(scene)->path_count = 2;
    scene_open(scene);
    for (uint32_t i = 0; i < 20; i++)
        assert_int_equal(fetch(scene, &runs[i]), 1);
}

static void test_path_that_is_added_costs_nothing_that_fits(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    scene_stripe(scene, 2);
    scene_open(scene);
    store_on_disk(scene, &run, 1, 20);
    stop(scene);
    disk_config(scene)->path_count = 3;
    scene_open(scene);
    assert_int_equal(fetch(scene, &run), 20);
}

int main(void)
{
    static const struct CMUnitTest each[] = {
        TEST(disk_scene, test_restart_over_three_files_finds_every_block),
    };
    static const struct CMUnitTest once[] = {
        TEST(disk_scene_opened, test_file_of_more_blocks_keeps_all),
        TEST(disk_scene_opened, test_file_of_fewer_blocks_keeps_what_fits),
        TEST(disk_scene, test_path_that_is_left_out_takes_its_blocks_along_and_brings_them_back),
        TEST(disk_scene, test_path_that_is_added_costs_nothing_that_fits),
    };
    return run_disk_tests(each, sizeof each / sizeof *each, once, sizeof once / sizeof *once);
}
