/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a disk tier's file brings back when it is opened again, through the public interface:
 * contents and events; and what never comes back. test_disk_mismatch.c: files that are refused or
 * damaged.
 */
#include "api/manager.h"
#include "support/child.h"
#include "support/disk_restart.h"

/* ---- Contents -------------------------------------------------------------------------------- */

static void test_restart_finds_every_block_with_its_bytes(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    store_on_disk(scene, &run, 1, 20);
    restart(scene);
    assert_int_equal(mv_in_tier(&scene->rig, &run, KVB_TIER_DISK), 20);
    assert_int_equal(fetch(scene, &run), 20);
}

static void test_restart_after_a_kill_finds_every_block_with_its_bytes(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    store_on_disk(scene, &run, 1, 20);
    restart_killed(scene);
    assert_int_equal(mv_in_tier(&scene->rig, &run, KVB_TIER_DISK), 20);
    assert_int_equal(fetch(scene, &run), 20);
}

static void test_restart_without_host_finds_every_block_with_its_bytes(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    scene_open_with(scene, 0, DISK_BLOCKS);
    store_on_disk(scene, &run, 1, 20);
    restart(scene);
    assert_int_equal(fetch(scene, &run), 20);
}

static void test_restart_with_the_other_engine_finds_every_block(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    store_on_disk(scene, &run, 1, 20);
    stop(scene);
    disk_config(scene)->disk_engine = KVB_DISK_ENGINE_AUTO;
    if (scene->variant->engine == KVB_DISK_ENGINE_URING)
        disk_config(scene)->disk_engine = KVB_DISK_ENGINE_POSIX;
    scene_open(scene);
    assert_int_equal(fetch(scene, &run), 20);
}

static void test_restart_many_times_keeps_what_each_run_stored(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run runs[6];
    for (uint32_t i = 0; i < 6; i++) {
        store_on_disk(scene, &runs[i], i + 1, 5);
        if (i % 2 == 0)
            restart(scene);
        else
            restart_killed(scene);
    }
    for (uint32_t i = 0; i < 6; i++)
        assert_int_equal(fetch(scene, &runs[i]), 5);
}

/* Padded slots, several I/Os a block: whatever the size, it is the file that knows. */
static void restart_with_chunks_of(void **state, uint64_t chunk_bytes)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    scene_tiers(scene, 8, 8);
    scene->rig.layout.chunk_bytes = chunk_bytes;
    scene->rig.tiers[0].block_count = 8;
    scene_open(scene);
    store_on_disk(scene, &run, 1, 4);
    restart(scene);
    assert_int_equal(fetch(scene, &run), 4);
}

static void test_restart_finds_padded_blocks(void **state)
{
    restart_with_chunks_of(state, 1040);
}

static void test_restart_finds_large_blocks(void **state)
{
    restart_with_chunks_of(state, 300u << 10);
}

static void test_restart_recovers_nothing_that_was_only_in_memory(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    scene->rig.tiers[0].trigger = KVB_OFFLOAD_MANUAL;
    scene_open(scene);
    mv_park(&scene->rig, &run, KVB_TIER_DEVICE, 1, 5);
    restart(scene);
    assert_int_equal(mv_found(&scene->rig, &run), 0);
    assert_int_equal(kv_stats(&scene->rig).tiers[KVB_TIER_DISK].free_count, DISK_BLOCKS);
}

static void test_restart_counts_what_it_recovered(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    store_on_disk(scene, &run, 1, 12);
    assert_int_equal(path_stats(scene, 0).recovered, 0);
    restart(scene);
    struct kvb_disk_stats stats = path_stats(scene, 0);
    assert_int_equal(stats.recovered, 12);
    assert_int_equal(stats.dropped, 0);
    assert_int_equal(stats.superseded, 0);
    assert_int_equal(stats.path_count, 1);
    assert_int_equal(stats.slot_count, DISK_BLOCKS);
    assert_int_equal(kv_stats(&scene->rig).tiers[KVB_TIER_DISK].parked_count, 12);
    assert_true(kv_log_has(&scene->rig.log, scene->path));
}

/* Its slot was given up and its content written to another: the file tells of both. */
static void test_restart_takes_the_later_of_two_slots_with_one_content(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run runs[2], again;
    store_each(scene, runs, 1, 2);
    kv_ok(kvb_invalidate(scene->rig.kv, &runs[0].seqs[0], 1, NULL));
    kv_ok(kvb_invalidate(scene->rig.kv, &runs[1].seqs[0], 1, NULL));
    flush_and_check(scene);
    /* the same as runs[0], in the slot that was freed last: that of runs[1] */
    store_on_disk(scene, &again, 1000, 1);
    restart(scene);
    assert_int_equal(path_stats(scene, 0).superseded, 1);
    assert_int_equal(path_stats(scene, 0).recovered, 1);
    assert_int_equal(fetch(scene, &runs[0]), 1);
    assert_false(is_found(scene, &runs[1], 0));
}

/* What has been invalidated may be found again; if it is, it is what it was. */
static void test_restart_may_bring_back_what_was_invalidated_but_never_wrong(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    store_on_disk(scene, &run, 1, 3);
    kv_ok(kvb_invalidate(scene->rig.kv, &run.seqs[1], 1, NULL));
    restart(scene);
    run.count = (uint32_t)mv_found(&scene->rig, &run);
    assert_true(run.count == 1 || run.count == 3);
    assert_int_equal(fetch(scene, &run), run.count);
}

/* More than KVB_DISK_ERRORS_MAX, side by side, and nothing else is read in between. */
static void test_blocks_that_a_kill_has_torn_are_misses_and_the_disk_stays_in_service(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run runs[KVB_DISK_ERRORS_MAX + 4], good;
    store_each(scene, runs, 1, KVB_DISK_ERRORS_MAX + 4);
    store_on_disk(scene, &good, 2, 3);
    stop_killed(scene);
    for (uint32_t slot = 0; slot < KVB_DISK_ERRORS_MAX + 4; slot++)
        flip_payload(scene, slot);
    scene_open(scene);
    for (uint32_t i = 0; i < KVB_DISK_ERRORS_MAX + 4; i++)
        assert_int_equal(fetch(scene, &runs[i]), 0);
    assert_int_equal(path_stats(scene, 0).read_errors_checksum, KVB_DISK_ERRORS_MAX + 4);
    assert_int_equal(path_stats(scene, 0).out_of_service, 0);
    assert_int_equal(fetch(scene, &good), 3);
}

/* ---- Events ---------------------------------------------------------------------------------- */

static void test_restart_announces_every_recovered_block(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    uint32_t announced = 0;
    store_on_disk(scene, &run, 1, 10);
    restart(scene);
    flush_and_check(scene);
    assert_int_equal(mv_event_count(&scene->rig, KVB_EVENT_STORED, KVB_TIER_DISK), 10);
    for (uint32_t i = 0; i < 10; i++)
        for (size_t nth = 0; nth < 10; nth++)
            announced +=
                mv_event(&scene->rig, KVB_EVENT_STORED, KVB_TIER_DISK, nth) == run.seqs[i].hash;
    assert_int_equal(announced, 10);
}

static int count_stored(void *arg, const struct kvb_event *event)
{
    *(uint32_t *)arg += event->kind == KVB_EVENT_STORED && event->tier == KVB_TIER_DISK;
    return 0;
}

static void test_restart_with_a_small_ring_says_lost_and_a_walk_gives_all(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    uint32_t walked = 0, lost = 0;
    store_on_disk(scene, &run, 1, 10);
    stop(scene);
    scene->rig.config.event_capacity = 4;
    scene_open(scene);
    flush_and_check(scene);
    for (size_t i = 0; i < scene->rig.events.count; i++)
        if (scene->rig.events.list[i].kind == KVB_EVENT_LOST)
            lost += scene->rig.events.list[i].lost_count;
    assert_int_equal(lost + mv_event_count(&scene->rig, KVB_EVENT_STORED, KVB_TIER_DISK), 10);
    assert_true(lost > 0);
    kv_ok(kvb_index_walk(scene->rig.kv, count_stored, &walked));
    assert_int_equal(walked, 10);
}

/* ---- Clear ----------------------------------------------------------------------------------- */

static void clear_and(void **state, void (*again)(struct disk_scene *))
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    store_on_disk(scene, &run, 1, 10);
    kv_ok(kvb_manager_clear(scene->rig.kv));
    again(scene);
    for (uint32_t i = 0; i < 10; i++)
        assert_false(is_found(scene, &run, i));
    assert_int_equal(path_stats(scene, 0).recovered, 0);
    assert_int_equal(kv_stats(&scene->rig).tiers[KVB_TIER_DISK].free_count, DISK_BLOCKS);
}

static void test_cleared_blocks_do_not_come_back_after_a_restart(void **state)
{
    clear_and(state, restart);
}

static void test_cleared_blocks_do_not_come_back_after_a_kill(void **state)
{
    clear_and(state, restart_killed);
}

static void test_blocks_stored_after_a_clear_come_back_alone(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run before, after;
    store_on_disk(scene, &before, 1, 10);
    kv_ok(kvb_manager_clear(scene->rig.kv));
    store_on_disk(scene, &after, 2, 4);
    restart_killed(scene);
    assert_int_equal(mv_found(&scene->rig, &before), 0);
    assert_int_equal(fetch(scene, &after), 4);
}

static void test_epoch_counts_clears_over_restarts(void **state)
{
    struct disk_scene *scene = *state;
    uint64_t epoch = path_stats(scene, 0).epoch;
    for (uint64_t i = 1; i <= 3; i++) {
        kv_ok(kvb_manager_clear(scene->rig.kv));
        kv_ok(kvb_manager_clear(scene->rig.kv));
        assert_int_equal(path_stats(scene, 0).epoch, epoch + 2 * i);
        restart(scene);
        assert_int_equal(path_stats(scene, 0).epoch, epoch + 2 * i);
    }
}

/* Its write had begun before the clear and ended after it. */
static void test_block_under_way_during_a_clear_does_not_come_back(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    hold_io(scene, true);
    mv_park(&scene->rig, &run, KVB_TIER_DEVICE, 1, 1);
    wait_for_held_io(scene);
    kv_ok(kvb_manager_clear(scene->rig.kv));
    hold_io(scene, false);
    restart_killed(scene);
    assert_false(is_found(scene, &run, 0));
}

/* ---- Fork ------------------------------------------------------------------------------------ */

/* What a child of the server may accidentally do, the end of which closes all that it inherited. */
static int misuse(void *argument)
{
    struct kvb_manager *kv = argument;
    struct kvb_stats stats = {.size = sizeof stats};
    struct kvb_disk_stats path = {.size = sizeof path};
    struct kvb_block *block = NULL;
    bool refused = kvb_manager_stats(kv, &stats) == KVB_EFORK &&
                   kvb_disk_stats(kv, 0, &path) == KVB_EFORK &&
                   kvb_disk_put_back(kv, 0) == KVB_EFORK && kvb_manager_clear(kv) == KVB_EFORK &&
                   kvb_alloc(kv, KVB_TIER_DEVICE, 1, NULL, &block, NULL) == KVB_EFORK &&
                   kvb_manager_poll(kv, KVB_FOREVER) == KVB_EFORK &&
                   kvb_manager_flush(kv, 0) == KVB_EFORK && kvb_manager_destroy(kv) == KVB_EFORK;
    return refused ? 0 : 1;
}

static void test_child_of_a_fork_is_refused_and_the_parents_transfers_complete(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run, more;
    store_on_disk(scene, &run, 1, 20);
    struct kvb_op *op = bring_up(scene, &run, KVB_TIER_DEVICE, NULL, 0);
    if (scene->variant->progress == KVB_PROGRESS_POLL)
        assert_true(kvb_manager_poll(scene->rig.kv, 0) >= 0); /* reads are under way */
    pid_t child = child_start(misuse, scene->rig.kv);
    assert_int_equal(finish(scene, &run, op), 20);
    assert_int_equal(child_status(child), 0);
    store_on_disk(scene, &more, 2, 20);
    assert_int_equal(fetch(scene, &more), 20);
    restart(scene);
    assert_int_equal(fetch(scene, &run), 20);
}

/* A clear holds its lock while it writes to the disk. */
static void test_statistics_of_a_path_do_not_wait_for_a_clear(void **state)
{
    struct disk_scene *scene = *state;
    struct kvbi_lock *clear = &scene->rig.kv->store.clear_lock;
    struct kvb_disk_stats stats = {.size = sizeof stats};
    kv_ok(kvb_manager_clear(scene->rig.kv));
    kvbi_lock_take(clear);
    int code = kvb_disk_stats(scene->rig.kv, 0, &stats);
    kvbi_lock_release(clear);
    kv_ok(code);
    assert_int_equal(stats.epoch, 1);
}

int main(void)
{
    static const struct CMUnitTest each[] = {
        TEST(disk_scene_opened, test_restart_finds_every_block_with_its_bytes),
        TEST(disk_scene_opened, test_restart_after_a_kill_finds_every_block_with_its_bytes),
        TEST(disk_scene, test_restart_without_host_finds_every_block_with_its_bytes),
        TEST(disk_scene_opened, test_restart_with_the_other_engine_finds_every_block),
        TEST(disk_scene_opened, test_restart_many_times_keeps_what_each_run_stored),
        TEST(disk_scene, test_restart_finds_padded_blocks),
        TEST(disk_scene, test_restart_finds_large_blocks),
        TEST(disk_scene, test_restart_recovers_nothing_that_was_only_in_memory),
        TEST(disk_scene_opened, test_restart_takes_the_later_of_two_slots_with_one_content),
        TEST(disk_scene_opened, test_restart_may_bring_back_what_was_invalidated_but_never_wrong),
        TEST(disk_scene_opened,
             test_blocks_that_a_kill_has_torn_are_misses_and_the_disk_stays_in_service),
        TEST(disk_scene_opened, test_restart_announces_every_recovered_block),
        TEST(disk_scene_opened, test_restart_with_a_small_ring_says_lost_and_a_walk_gives_all),
        TEST(disk_scene_opened, test_cleared_blocks_do_not_come_back_after_a_restart),
        TEST(disk_scene_opened, test_cleared_blocks_do_not_come_back_after_a_kill),
        TEST(disk_scene_opened, test_blocks_stored_after_a_clear_come_back_alone),
        TEST(disk_scene_opened, test_child_of_a_fork_is_refused_and_the_parents_transfers_complete),
    };
    static const struct CMUnitTest once[] = {
        TEST(disk_scene_opened, test_restart_counts_what_it_recovered),
        TEST(disk_scene_opened, test_epoch_counts_clears_over_restarts),
        TEST(disk_scene_opened, test_block_under_way_during_a_clear_does_not_come_back),
        TEST(disk_scene_opened, test_statistics_of_a_path_do_not_wait_for_a_clear),
    };
    return run_disk_tests(each, sizeof each / sizeof *each, once, sizeof once / sizeof *once);
}
