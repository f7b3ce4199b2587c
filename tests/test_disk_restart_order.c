/* SPDX-License-Identifier: Apache-2.0 */
/*
 * In which order blocks that a disk tier's file has brought back are evicted.
 */
#include "support/disk_restart.h"

/* ---- Order ----------------------------------------------------------------------------------- */

#define FEW 8

/* A disk of FEW blocks, full, on which the first three have been used last. */
static struct disk_scene *scene_with_used(void **state, struct mv_run *runs)
{
    struct disk_scene *scene = *state;
    scene_open_with(scene, HOST_BLOCKS, FEW);
    store_each(scene, runs, 1, FEW);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(fetch(scene, &runs[i]), 1);
    return scene;
}

static void test_restart_evicts_the_longest_unused_first(void **state)
{
    struct mv_run runs[FEW], more[3];
    struct disk_scene *scene = scene_with_used(state, runs);
    restart(scene);
    store_each(scene, more, 2, 3);
    for (uint32_t i = 0; i < FEW; i++)
        assert_int_equal(is_found(scene, &runs[i], 0), i < 3 || i >= 6);
}

/* Uses are written down at a clean close only: after a kill the order is that of the writes. */
static void test_restart_after_a_kill_evicts_the_longest_written_first(void **state)
{
    struct mv_run runs[FEW], more[3];
    struct disk_scene *scene = scene_with_used(state, runs);
    restart_killed(scene);
    store_each(scene, more, 2, 3);
    for (uint32_t i = 0; i < FEW; i++)
        assert_int_equal(is_found(scene, &runs[i], 0), i >= 3);
}

static void test_restart_after_a_restart_keeps_the_order(void **state)
{
    struct mv_run runs[FEW], more[3];
    struct disk_scene *scene = scene_with_used(state, runs);
    restart(scene);
    restart(scene);
    store_each(scene, more, 2, 3);
    for (uint32_t i = 0; i < FEW; i++)
        assert_int_equal(is_found(scene, &runs[i], 0), i < 3 || i >= 6);
}

static void test_blocks_stored_after_a_restart_are_younger_than_recovered_ones(void **state)
{
    struct mv_run runs[FEW], more[3];
    struct disk_scene *scene = *state;
    scene_open_with(scene, HOST_BLOCKS, FEW);
    store_each(scene, runs, 1, FEW - 3);
    restart(scene);
    store_each(scene, more, 2, 3);
    restart_killed(scene);
    store_each(scene, runs + FEW - 3, 3, 3);
    assert_int_equal(count_found(scene, more, 3), 3);
    assert_int_equal(count_found(scene, runs, 3), 0);
}

/*
 * One chain, written block by block, fills the disk; it is its tail that another block pushes out.
 */
static void evict_the_tail_after(void **state, void (*again)(struct disk_scene *))
{
    struct disk_scene *scene = *state;
    struct mv_run run, more;
    scene_tiers(scene, HOST_BLOCKS, FEW);
    scene->rig.tiers[1].batch = scene->rig.tiers[1].depth = 1;
    scene_open(scene);
    store_on_disk(scene, &run, 1, FEW);
    again(scene);
    store_on_disk(scene, &more, 2, 1);
    assert_int_equal(mv_found(&scene->rig, &run), FEW - 1);
}

static void test_restart_evicts_tails_before_heads(void **state)
{
    evict_the_tail_after(state, restart);
}

static void test_restart_after_a_kill_evicts_tails_before_heads(void **state)
{
    evict_the_tail_after(state, restart_killed);
}

/* Children are put below their parents only where nothing is known of their use. */
static void test_restart_keeps_a_child_that_was_used_after_its_parent(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run, runs[FEW - 2], more;
    struct kvb_hit hit;
    size_t count = 0;
    scene_open_with(scene, HOST_BLOCKS, FEW);
    store_on_disk(scene, &run, 1, 2);
    store_each(scene, runs, 2, FEW - 2);
    struct kvb_query child = {.size = sizeof child, .keys = &run.seqs[1], .key_count = 1};
    kv_ok(kvb_match(scene->rig.kv, &child, &hit, 1, &count));
    kv_ok(kvb_block_unref(scene->rig.kv, &hit.block, 1, NULL));
    restart(scene);
    store_on_disk(scene, &more, 3, 1);
    assert_false(is_found(scene, &run, 0));
    assert_true(is_found(scene, &run, 1));
}

static void test_restart_takes_what_was_pinned_at_the_end_for_used_last(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run runs[FEW], more;
    struct kvb_hit hits[MV_RUN_MAX];
    scene_open_with(scene, HOST_BLOCKS, FEW);
    store_each(scene, runs, 1, FEW);
    assert_int_equal(hold(scene, &runs[0], hits), 1);
    kv_ok(kvb_pin(scene->rig.kv, 5, runs[0].blocks, 1, 0, NULL));
    mv_drop(&scene->rig, &runs[0]);
    restart(scene);
    store_on_disk(scene, &more, 2, 1);
    assert_true(is_found(scene, &runs[0], 0));
    assert_false(is_found(scene, &runs[1], 0));
}

/* Registered with a priority of its own, and on the disk only. */
static void store_with_priority(struct disk_scene *scene, struct mv_run *run, uint64_t seed,
                                uint32_t priority)
{
    struct kv_rig *rig = &scene->rig;
    mv_name(rig, run, seed, 1);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, NULL, run->blocks, NULL));
    mv_compute(rig, run, 0);
    kv_ok(kvb_block_set_priority(rig->kv, run->blocks, 1, priority, 0, NULL));
    kv_ok(kvb_block_register(rig->kv, run->blocks, 1, NULL, NULL, NULL));
    mv_drop(rig, run);
    flush_and_check(scene);
    evict_above(scene);
    assert_int_equal(mv_in_tier(rig, run, KVB_TIER_DISK), 1);
}

static void evict_by_priority_after(void **state, void (*again)(struct disk_scene *))
{
    struct disk_scene *scene = *state;
    struct mv_run high, runs[FEW - 1], more[FEW - 1];
    struct kvb_hit hits[MV_RUN_MAX];
    scene_open_with(scene, HOST_BLOCKS, FEW);
    store_with_priority(scene, &high, 77, 90);
    store_each(scene, runs, 1, FEW - 1);
    again(scene);
    store_each(scene, more, 2, FEW - 1);
    assert_int_equal(count_found(scene, runs, FEW - 1), 0);
    assert_int_equal(hold(scene, &high, hits), 1);
    assert_int_equal(kv_describe(&scene->rig, hits[0].block).priority, 90);
    mv_drop(&scene->rig, &high);
}

static void test_restart_keeps_priorities(void **state)
{
    evict_by_priority_after(state, restart);
}

static void test_restart_after_a_kill_keeps_priorities(void **state)
{
    evict_by_priority_after(state, restart_killed);
}

int main(void)
{
    static const struct CMUnitTest each[] = {
        TEST(disk_scene, test_restart_evicts_the_longest_unused_first),
        TEST(disk_scene, test_restart_after_a_kill_evicts_the_longest_written_first),
    };
    static const struct CMUnitTest once[] = {
        TEST(disk_scene, test_restart_after_a_restart_keeps_the_order),
        TEST(disk_scene, test_blocks_stored_after_a_restart_are_younger_than_recovered_ones),
        TEST(disk_scene, test_restart_evicts_tails_before_heads),
        TEST(disk_scene, test_restart_after_a_kill_evicts_tails_before_heads),
        TEST(disk_scene, test_restart_keeps_a_child_that_was_used_after_its_parent),
        TEST(disk_scene, test_restart_takes_what_was_pinned_at_the_end_for_used_last),
        TEST(disk_scene, test_restart_keeps_priorities),
        TEST(disk_scene, test_restart_after_a_kill_keeps_priorities),
    };
    return run_disk_tests(each, sizeof each / sizeof *each, once, sizeof once / sizeof *once);
}
