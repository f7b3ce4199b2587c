/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A clear of everything outlives the process, for what was named before it too: nothing of it comes
 * back from a disk's file, in whatever state it was at the clear.
 */
#include "support/disk_restart.h"

/* Computed and registered around a clear; let go. */
static void park_across_clear(struct disk_scene *scene, struct mv_run *run)
{
    struct kv_rig *rig = &scene->rig;
    mv_name(rig, run, 1, 4);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, run->count, NULL, run->blocks, NULL));
    mv_compute(rig, run, 0);
    kv_ok(kvb_manager_clear(rig->kv));
    kv_ok(kvb_block_register(rig->kv, run->blocks, run->count, NULL, NULL, NULL));
    mv_drop(rig, run);
    flush_and_check(scene);
}

static void test_named_before_a_clear_and_registered_after_it_does_not_come_back(void **state)
{
    struct disk_scene *scene = *state;
    for (int killed = 0; killed < 2; killed++) {
        struct mv_run run;
        scene_open(scene);
        park_across_clear(scene, &run);
        assert_int_equal(mv_found(&scene->rig, &run), 0);
        assert_int_equal(kv_stats(&scene->rig).tiers[KVB_TIER_DEVICE].stale, run.count);
        if (killed)
            restart_killed(scene);
        else
            restart(scene);
        assert_int_equal(path_stats(scene, 0).recovered, 0);
        assert_int_equal(mv_found(&scene->rig, &run), 0);
        scene_again(scene);
    }
}

static void test_named_after_a_clear_comes_back(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    park_across_clear(scene, &run);
    store_on_disk(scene, &run, 1, 4);
    restart_killed(scene);
    assert_int_equal(fetch(scene, &run), 4);
}

/*
 * A write to the disk is under way, other blocks are named and not registered: all of it is of
 * before.
 */
static void test_clear_beside_a_write_under_way_leaves_nothing_to_come_back(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run written, named;
    hold_io(scene, true);
    mv_park(&scene->rig, &written, KVB_TIER_DEVICE, 1, 1);
    wait_for_held_io(scene);
    mv_name(&scene->rig, &named, 2, 2);
    kv_ok(kvb_alloc(scene->rig.kv, KVB_TIER_DEVICE, 2, NULL, named.blocks, NULL));
    mv_compute(&scene->rig, &named, 0);
    kv_ok(kvb_manager_clear(scene->rig.kv));
    kv_ok(kvb_block_register(scene->rig.kv, named.blocks, 2, NULL, NULL, NULL));
    hold_io(scene, false);
    mv_drop(&scene->rig, &named);
    restart_killed(scene);
    assert_int_equal(path_stats(scene, 0).recovered, 0);
    assert_int_equal(mv_found(&scene->rig, &written), 0);
    assert_int_equal(mv_found(&scene->rig, &named), 0);
}

int main(void)
{
    static const struct CMUnitTest each[] = {
        TEST(disk_scene, test_named_before_a_clear_and_registered_after_it_does_not_come_back),
        TEST(disk_scene_opened, test_named_after_a_clear_comes_back),
    };
    static const struct CMUnitTest once[] = {
        TEST(disk_scene_opened, test_clear_beside_a_write_under_way_leaves_nothing_to_come_back),
    };
    return run_disk_tests(each, sizeof each / sizeof *each, once, sizeof once / sizeof *once);
}
