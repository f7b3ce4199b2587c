/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Paths of the disk tier: one that fails is lost by itself, the others go on; put back, it is used again. One path and three.
 */
#include "support/disk_scene.h"

#include "api/manager.h"

enum { PATHS = 3, FAILING = 1 };

static struct kvbi_pool *disk_pool(struct scene *scene)
{
    return &scene->rig.kv->store.pools[KVB_TIER_DISK];
}

static char names[PATHS][140];
static const char *const paths[PATHS] = {names[0], names[1], names[2]};

/* DEVICE, HOST and DISK in so many files; io_fault strikes the failing one only. */
static struct scene *scene_striped(void **state, uint32_t disk_blocks, uint32_t path_count)
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, disk_blocks);
    struct kvb_tier_config *disk = &scene->rig.tiers[2];
    for (uint32_t i = 0; i < PATHS; i++)
        (void)snprintf(names[i], sizeof names[i], "%s.%u", scene->path, i);
    disk->path = NULL;
    disk->paths = paths;
    disk->path_count = path_count;
    atomic_store(&scene->io.path_count, path_count);
    atomic_store(&scene->io.path, FAILING % path_count);
    scene_open(scene);
    return scene;
}

static void scene_close(struct scene *scene)
{
    scene_end(scene);
    for (uint32_t i = 0; i < PATHS; i++)
        (void)unlink(names[i]);
}

static uint32_t path_of_slot(struct scene *scene, uint32_t slot)
{
    return slot % disk_pool(scene)->path_count;
}

static enum kvbi_file_state state_of(struct scene *scene, uint32_t path)
{
    kvbi_lock(scene->rig.kv);
    enum kvbi_file_state state =
        kvbi_health_state_locked(&scene->rig.kv->pipeline.health, disk_pool(scene), path);
    kvbi_unlock(scene->rig.kv);
    return state;
}

static uint32_t retired_on(struct scene *scene, uint32_t path)
{
    kvbi_lock(scene->rig.kv);
    uint32_t retired = disk_pool(scene)->paths[path].retired;
    kvbi_unlock(scene->rig.kv);
    return retired;
}

/* Writes to the failing path do not succeed, until it is out of service. */
static void lose_by_writes(struct scene *scene, int error)
{
    uint32_t path = FAILING % disk_pool(scene)->path_count;
    struct mv_run run;
    scene->io.write_errno = error;
    for (uint64_t seed = 1000; state_of(scene, path) == KVBI_FILE_IN_SERVICE; seed++) {
        assert_true(seed < 1010);
        mv_park(&scene->rig, &run, KVB_TIER_DEVICE, seed, 20);
        settle(scene);
    }
    scene->io.write_errno = 0;
}

/* The engine reports so many results in a row from a path, without any I/O. */
static void report_locked(struct scene *scene, uint32_t path, uint32_t count, int result)
{
    struct kvbi_health *health = &scene->rig.kv->pipeline.health;
    for (uint32_t i = 0; i < count; i++) {
        kvbi_health_begun_locked(health, disk_pool(scene), path);
        kvbi_health_answered_locked(health, disk_pool(scene), path, result, false);
    }
}

static void report(struct scene *scene, uint32_t path, uint32_t count, int result)
{
    kvbi_lock(scene->rig.kv);
    report_locked(scene, path, count, result);
    kvbi_unlock(scene->rig.kv);
}

static void report_failures(struct scene *scene, uint32_t path, uint32_t count)
{
    report(scene, path, count, KVB_EIO);
}

/* Out of service as far as the store knows, and nothing is forgotten yet. */
static void set_out(struct scene *scene, uint32_t path, bool out)
{
    kvbi_lock(scene->rig.kv);
    if (out)
        kvbi_store_lose_path_locked(&scene->rig.kv->store, disk_pool(scene), path);
    else
        kvbi_store_serve_path_locked(&scene->rig.kv->store, disk_pool(scene), path);
    kvbi_unlock(scene->rig.kv);
}

static bool put_back_step(struct scene *scene, uint32_t path)
{
    kvbi_lock(scene->rig.kv);
    bool more =
        kvbi_health_put_back_locked(&scene->rig.kv->pipeline.health, disk_pool(scene), path);
    kvbi_unlock(scene->rig.kv);
    return more;
}

static uint32_t put_back(struct scene *scene, uint32_t path)
{
    uint32_t calls = 1;
    while (put_back_step(scene, path))
        calls++;
    kv_check(&scene->rig);
    return calls;
}

/* A run on the disk only, with the slot of each of its blocks. */
static void store_with_slots(struct scene *scene, struct mv_run *run, uint64_t seed, uint32_t count,
                             uint32_t *slots)
{
    struct kvb_hit hits[MV_RUN_MAX];
    store_on_disk(scene, run, seed, count);
    assert_int_equal(hold(scene, run, hits), count);
    for (uint32_t i = 0; i < count; i++)
        slots[i] = hits[i].slot;
    mv_drop(&scene->rig, run);
}

/* ---- Losing ------------------------------------------------------------------------------------------------------- */

static void lose_one_of(void **state, uint32_t path_count)
{
    struct scene *scene = scene_striped(state, DISK_BLOCKS, path_count);
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
    scene_close(scene);
}

static void test_lost_path_is_forgotten_and_the_others_are_not(void **state)
{
    lose_one_of(state, PATHS);
}

static void test_lost_path_that_is_the_only_one_takes_the_tier_along(void **state)
{
    lose_one_of(state, 1);
}

static void test_blocks_of_a_lost_path_are_not_found_even_before_they_are_forgotten(void **state)
{
    struct scene *scene = scene_striped(state, DISK_BLOCKS, PATHS);
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
    scene_close(scene);
}

static void test_copy_in_memory_is_found_when_the_one_on_a_lost_path_is_not(void **state)
{
    struct scene *scene = scene_striped(state, DISK_BLOCKS, PATHS);
    struct mv_run run;
    mv_park(&scene->rig, &run, KVB_TIER_DEVICE, 1, 6);
    settle(scene);
    set_out(scene, FAILING, true);
    mv_evict_all(&scene->rig, KVB_TIER_DEVICE);
    mv_expect_in(&scene->rig, &run, KVB_TIER_HOST);
    set_out(scene, FAILING, false);
    scene_close(scene);
}

static void test_lost_path_is_logged_once_by_its_name(void **state)
{
    struct scene *scene = scene_striped(state, DISK_BLOCKS, PATHS);
    char words[200];
    uint32_t lines = 0;
    (void)snprintf(words, sizeof words, "path 1, %s, is out of service", names[FAILING]);
    lose_by_writes(scene, ENOSPC);
    for (size_t i = 0; i < KV_LOG_MAX && i < scene->rig.log.count; i++)
        lines += strstr(scene->rig.log.lines[i].text, words) != NULL;
    assert_int_equal(lines, 1);
    scene_close(scene);
}

static void test_blocks_go_on_to_the_other_paths(void **state)
{
    struct scene *scene = scene_striped(state, DISK_BLOCKS, PATHS);
    struct mv_run run;
    uint32_t slots[20];
    lose_by_writes(scene, ENOSPC);
    store_with_slots(scene, &run, 1, 20, slots);
    for (uint32_t i = 0; i < 20; i++)
        assert_int_not_equal(path_of_slot(scene, slots[i]), FAILING);
    assert_int_equal(mv_lane(&scene->rig, KVB_TIER_HOST, KVB_TIER_DISK).skipped_out_of_service, 0);
    assert_int_equal(fetch(scene, &run), 20);
    scene_close(scene);
}

/* More than the other paths hold: evicting there goes on, and the slots of the lost one are not touched. */
static void test_slots_of_a_lost_path_are_never_given_out(void **state)
{
    struct scene *scene = scene_striped(state, DISK_BLOCKS, PATHS);
    struct mv_run run;
    lose_by_writes(scene, ENOSPC);
    uint32_t writes = scene->io.writes;
    for (uint64_t seed = 1; seed <= 6; seed++)
        store_on_disk(scene, &run, seed, 20);
    struct kvb_tier_stats stats = kv_stats(&scene->rig).tiers[KVB_TIER_DISK];
    assert_int_equal(scene->io.writes, writes + 120);
    assert_int_equal(retired_on(scene, FAILING), kvbi_pool_path_slots(disk_pool(scene), FAILING));
    assert_int_equal(stats.parked_count, DISK_BLOCKS - retired_on(scene, FAILING));
    assert_int_equal(stats.free_count, 0);
    scene_close(scene);
}

static void test_errors_are_counted_by_path(void **state)
{
    struct scene *scene = scene_striped(state, DISK_BLOCKS, PATHS);
    for (uint32_t path = 0; path < PATHS; path++)
        report_failures(scene, path, KVB_DISK_ERRORS_MAX - 1);
    settle(scene);
    for (uint32_t path = 0; path < PATHS; path++)
        assert_int_equal(state_of(scene, path), KVBI_FILE_IN_SERVICE);
    report_failures(scene, 2, 1);
    settle(scene);
    assert_int_equal(state_of(scene, 0), KVBI_FILE_IN_SERVICE);
    assert_int_equal(state_of(scene, 2), KVBI_FILE_OUT_OF_SERVICE);
    scene_close(scene);
}

/* The device did what it was asked to. A kill leaves torn blocks behind, and side by side. */
static void test_content_that_fails_verification_says_nothing_about_its_path(void **state)
{
    struct scene *scene = scene_striped(state, DISK_BLOCKS, PATHS);
    report(scene, FAILING, 3 * KVB_DISK_ERRORS_MAX, KVB_ECORRUPT);
    assert_int_equal(state_of(scene, FAILING), KVBI_FILE_IN_SERVICE);
    report_failures(scene, FAILING, KVB_DISK_ERRORS_MAX - 1);
    report(scene, FAILING, 1, KVB_ECORRUPT);
    assert_int_equal(state_of(scene, FAILING), KVBI_FILE_IN_SERVICE);
    report_failures(scene, FAILING, 1);
    settle(scene);
    assert_int_equal(state_of(scene, FAILING), KVBI_FILE_OUT_OF_SERVICE);
    scene_close(scene);
}

static void test_success_between_errors_begins_the_count_anew(void **state)
{
    struct scene *scene = scene_striped(state, DISK_BLOCKS, PATHS);
    report_failures(scene, FAILING, KVB_DISK_ERRORS_MAX - 1);
    report(scene, FAILING, 1, KVB_OK);
    report_failures(scene, FAILING, KVB_DISK_ERRORS_MAX - 1);
    assert_int_equal(state_of(scene, FAILING), KVBI_FILE_IN_SERVICE);
    scene_close(scene);
}

static void test_tier_is_out_of_service_with_its_last_path(void **state)
{
    struct scene *scene = scene_striped(state, DISK_BLOCKS, PATHS);
    struct mv_run run;
    for (uint32_t path = 0; path < PATHS; path++) {
        assert_false(disk_lost(scene));
        report_failures(scene, path, KVB_DISK_ERRORS_MAX);
    }
    assert_true(disk_lost(scene));
    mv_park(&scene->rig, &run, KVB_TIER_DEVICE, 1, 6);
    settle(scene);
    assert_int_equal(mv_lane(&scene->rig, KVB_TIER_HOST, KVB_TIER_DISK).skipped_out_of_service, 6);
    scene_close(scene);
}

static void test_content_on_a_lost_path_can_be_written_to_another_at_once(void **state)
{
    struct scene *scene = scene_striped(state, DISK_BLOCKS, PATHS);
    struct mv_run run;
    mv_park(&scene->rig, &run, KVB_TIER_DEVICE, 1, 6);
    settle(scene);
    mv_evict_all(&scene->rig, KVB_TIER_DEVICE);
    set_out(scene, FAILING, true);
    assert_int_equal(mv_match(&scene->rig, &run), 6);
    kv_ok(kvb_block_offload(scene->rig.kv, run.blocks, 6, KVB_PRIORITY_DEFAULT, NULL, NULL));
    mv_drop(&scene->rig, &run);
    settle(scene);
    assert_int_equal(mv_lane(&scene->rig, KVB_TIER_HOST, KVB_TIER_DISK).transferred, 8);
    assert_int_equal(mv_lane(&scene->rig, KVB_TIER_HOST, KVB_TIER_DISK).skipped_present, 4);
    mv_evict_all(&scene->rig, KVB_TIER_HOST);
    assert_int_equal(fetch(scene, &run), 6);
    set_out(scene, FAILING, false);
    scene_close(scene);
}

/* ---- Under way ---------------------------------------------------------------------------------------------------- */

/* Every block of `run` is being written when the failing path is lost. */
static struct scene *scene_with_writes_under_way(void **state, struct mv_run *run)
{
    struct scene *scene = scene_striped(state, DISK_BLOCKS, PATHS);
    hold_io(&scene->io, true);
    mv_park(&scene->rig, run, KVB_TIER_DEVICE, 1, 6);
    wait_for_held_io(&scene->io);
    while (mv_lane(&scene->rig, KVB_TIER_HOST, KVB_TIER_DISK).inflight < 6)
        ; /* the first is held, the others follow without being asked */
    report_failures(scene, FAILING, KVB_DISK_ERRORS_MAX);
    return scene;
}

static void test_write_to_a_lost_path_is_not_believed(void **state)
{
    struct mv_run run;
    struct scene *scene = scene_with_writes_under_way(state, &run);
    hold_io(&scene->io, false);
    settle(scene);
    assert_int_equal(mv_lane(&scene->rig, KVB_TIER_HOST, KVB_TIER_DISK).transferred, 4);
    assert_int_equal(mv_lane(&scene->rig, KVB_TIER_HOST, KVB_TIER_DISK).failed_transfer, 2);
    assert_int_equal(mv_event_count(&scene->rig, KVB_EVENT_STORED, KVB_TIER_DISK), 4);
    scene_close(scene);
}

static void test_path_is_busy_while_something_moves_there(void **state)
{
    struct mv_run run;
    struct scene *scene = scene_with_writes_under_way(state, &run);
    assert_int_equal(state_of(scene, FAILING), KVBI_FILE_BUSY);
    assert_false(put_back_step(scene, FAILING));
    kv_expect(kvb_disk_put_back(scene->rig.kv, FAILING), KVB_EBUSY);
    assert_int_equal(state_of(scene, FAILING), KVBI_FILE_BUSY);
    hold_io(&scene->io, false);
    settle(scene);
    assert_int_equal(state_of(scene, FAILING), KVBI_FILE_OUT_OF_SERVICE);
    scene_close(scene);
}

/* Blocks on the failing path are queued to be read when `interfere` gets between; they are misses, and nothing tries to read them. */
static void interfere_with_queued_reads(void **state, void (*interfere)(struct scene *scene))
{
    struct scene *scene = scene_striped(state, DISK_BLOCKS, PATHS);
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
    scene_close(scene);
}

static void take_path_out(struct scene *scene)
{
    set_out(scene, FAILING, true);
}

static void test_queued_read_from_a_path_that_is_out_is_not_begun(void **state)
{
    interfere_with_queued_reads(state, take_path_out);
}

static void lose_and_put_back(struct scene *scene)
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

/* ---- Putting back ------------------------------------------------------------------------------------------------- */

static void put_back_one_of(void **state, uint32_t path_count)
{
    struct scene *scene = scene_striped(state, DISK_BLOCKS, path_count);
    uint32_t path = FAILING % path_count, slots[20], there = 0;
    struct mv_run run;
    store_on_disk(scene, &run, 1, 12);
    lose_by_writes(scene, ENOSPC);
    settle(scene);
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
    scene_close(scene);
}

static void test_path_put_back_is_used_again(void **state)
{
    put_back_one_of(state, PATHS);
}

static void test_only_path_put_back_is_used_again(void **state)
{
    put_back_one_of(state, 1);
}

static void test_path_put_back_is_lost_again_only_after_as_many_errors(void **state)
{
    struct scene *scene = scene_striped(state, DISK_BLOCKS, PATHS);
    lose_by_writes(scene, ENOSPC);
    settle(scene);
    (void)put_back(scene, FAILING);
    report_failures(scene, FAILING, KVB_DISK_ERRORS_MAX - 1);
    assert_int_equal(state_of(scene, FAILING), KVBI_FILE_IN_SERVICE);
    report_failures(scene, FAILING, 1);
    settle(scene);
    assert_int_equal(state_of(scene, FAILING), KVBI_FILE_OUT_OF_SERVICE);
    scene_close(scene);
}

static void test_slot_condemned_by_itself_stays_retired_when_its_path_is_put_back(void **state)
{
    struct scene *scene = scene_striped(state, DISK_BLOCKS, PATHS);
    struct mv_run run;
    uint32_t slots[6], condemned = 0;
    store_with_slots(scene, &run, 1, 6, slots);
    while (path_of_slot(scene, slots[condemned]) != FAILING)
        condemned++;
    kvbi_lock(scene->rig.kv);
    disk_pool(scene)->slots[slots[condemned]].flags |= KVBI_SLOT_CONDEMNED;
    kvbi_unlock(scene->rig.kv);
    report_failures(scene, FAILING, KVB_DISK_ERRORS_MAX);
    settle(scene);
    (void)put_back(scene, FAILING);
    assert_int_equal(retired_on(scene, FAILING), 1);
    assert_int_equal(disk_pool(scene)->slots[slots[condemned]].place, KVBI_PLACE_RETIRED);
    scene_close(scene);
}

/* A cable is pulled and put back, again and again. */
static void outages_cost_no_slots(void **state, uint32_t path_count)
{
    struct scene *scene = scene_striped(state, DISK_BLOCKS, path_count);
    uint32_t path = FAILING % path_count;
    struct mv_run run;
    for (uint32_t outage = 0; outage < 4; outage++) {
        lose_by_writes(scene, EIO);
        settle(scene);
        assert_true(retired_on(scene, path) > 0);
        kv_ok(kvb_disk_put_back(scene->rig.kv, path));
        assert_int_equal(retired_on(scene, path), 0);
        kv_check(&scene->rig);
    }
    assert_false(kv_log_has(&scene->rig.log, "is not used any more"));
    store_on_disk(scene, &run, 1, 20);
    assert_int_equal(fetch(scene, &run), 20);
    assert_int_equal(retired_on(scene, path), 0);
    scene_close(scene);
}

static void test_slots_of_the_errors_that_lost_a_path_come_back_with_it(void **state)
{
    outages_cost_no_slots(state, PATHS);
}

static void test_slots_of_the_errors_that_lost_the_only_path_come_back_with_it(void **state)
{
    outages_cost_no_slots(state, 1);
}

/* Condemned for an error while somebody holds its block, lost with its path, let go before the path is back, or after. */
static void hold_a_suspect_over_the_loss(void **state, bool past_the_return)
{
    struct scene *scene = scene_striped(state, DISK_BLOCKS, 1);
    struct mv_run run;
    struct kvb_hit hits[MV_RUN_MAX];
    store_on_disk(scene, &run, 1, 1);
    assert_int_equal(hold(scene, &run, hits), 1);
    struct kvb_block *held = run.blocks[0];
    scene->io.read_errno = EIO;
    assert_int_equal(fetch(scene, &run), 0);
    assert_int_equal(disk_pool(scene)->slots[hits[0].slot].flags, KVBI_SLOT_CONDEMNED);
    report_failures(scene, 0, KVB_DISK_ERRORS_MAX - 1);
    settle(scene);
    assert_int_equal(state_of(scene, 0), KVBI_FILE_OUT_OF_SERVICE);
    if (!past_the_return)
        kv_unref(&scene->rig, held);
    (void)put_back(scene, 0);
    if (past_the_return)
        kv_unref(&scene->rig, held);
    assert_int_equal(kv_stats(&scene->rig).tiers[KVB_TIER_DISK].free_count, DISK_BLOCKS);
    scene_close(scene);
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
    struct scene *scene = scene_striped(state, DISK_BLOCKS, PATHS);
    report_failures(scene, FAILING, KVB_DISK_ERRORS_MAX - 1);
    assert_false(put_back_step(scene, FAILING));
    kv_expect(kvb_disk_put_back(scene->rig.kv, FAILING), KVB_ESTATE);
    report_failures(scene, FAILING, 1); /* the errors before it still count */
    settle(scene);
    assert_int_equal(state_of(scene, FAILING), KVBI_FILE_OUT_OF_SERVICE);
    scene_close(scene);
}

static void test_put_back_goes_in_steps(void **state)
{
    struct scene *scene = scene_striped(state, 200, 1);
    report_failures(scene, 0, KVB_DISK_ERRORS_MAX);
    settle(scene);
    assert_int_equal(put_back(scene, 0), (200 + KVBI_LOCK_BATCH - 1) / KVBI_LOCK_BATCH);
    scene_close(scene);
}

static void test_put_back_ends_when_the_path_is_lost_again(void **state)
{
    struct scene *scene = scene_striped(state, 200, 1);
    report_failures(scene, 0, KVB_DISK_ERRORS_MAX);
    settle(scene);
    assert_true(put_back_step(scene, 0));
    kvbi_lock(scene->rig.kv); /* or progress may have forgotten the path by the second step */
    report_locked(scene, 0, KVB_DISK_ERRORS_MAX, KVB_EIO);
    assert_false(kvbi_health_put_back_locked(&scene->rig.kv->pipeline.health, disk_pool(scene), 0));
    kvbi_unlock(scene->rig.kv);
    settle(scene);
    assert_int_equal(state_of(scene, 0), KVBI_FILE_OUT_OF_SERVICE);
    scene_close(scene);
}

/* Matched before the loss, let go after the path is back: the slot is free like any other. */
static void test_block_held_over_loss_and_return_frees_its_slot(void **state)
{
    struct scene *scene = scene_striped(state, DISK_BLOCKS, 1);
    struct mv_run run;
    struct kvb_hit hits[MV_RUN_MAX];
    store_on_disk(scene, &run, 1, 1);
    assert_int_equal(hold(scene, &run, hits), 1);
    report_failures(scene, 0, KVB_DISK_ERRORS_MAX);
    settle(scene);
    (void)put_back(scene, 0);
    mv_drop(&scene->rig, &run);
    assert_int_equal(kv_stats(&scene->rig).tiers[KVB_TIER_DISK].free_count, DISK_BLOCKS);
    scene_close(scene);
}

/* ------------------------------------------------------------------------------------------------------------------- */

int main(void)
{
    static const struct disk_test each[] = {
        DISK_TEST(test_lost_path_is_forgotten_and_the_others_are_not),
        DISK_TEST(test_lost_path_that_is_the_only_one_takes_the_tier_along),
        DISK_TEST(test_blocks_of_a_lost_path_are_not_found_even_before_they_are_forgotten),
        DISK_TEST(test_copy_in_memory_is_found_when_the_one_on_a_lost_path_is_not),
        DISK_TEST(test_lost_path_is_logged_once_by_its_name),
        DISK_TEST(test_blocks_go_on_to_the_other_paths),
        DISK_TEST(test_slots_of_a_lost_path_are_never_given_out),
        DISK_TEST(test_errors_are_counted_by_path),
        DISK_TEST(test_content_that_fails_verification_says_nothing_about_its_path),
        DISK_TEST(test_success_between_errors_begins_the_count_anew),
        DISK_TEST(test_tier_is_out_of_service_with_its_last_path),
        DISK_TEST(test_content_on_a_lost_path_can_be_written_to_another_at_once),
        DISK_TEST(test_path_put_back_is_used_again),
        DISK_TEST(test_only_path_put_back_is_used_again),
        DISK_TEST(test_path_put_back_is_lost_again_only_after_as_many_errors),
        DISK_TEST(test_slot_condemned_by_itself_stays_retired_when_its_path_is_put_back),
        DISK_TEST(test_slots_of_the_errors_that_lost_a_path_come_back_with_it),
        DISK_TEST(test_slots_of_the_errors_that_lost_the_only_path_come_back_with_it),
        DISK_TEST(test_held_slot_of_an_error_that_lost_its_path_comes_back_with_it),
        DISK_TEST(test_held_slot_of_an_error_that_lost_its_path_is_free_once_let_go),
        DISK_TEST(test_put_back_of_a_path_in_service_does_nothing),
        DISK_TEST(test_put_back_goes_in_steps),
        DISK_TEST(test_put_back_ends_when_the_path_is_lost_again),
        DISK_TEST(test_block_held_over_loss_and_return_frees_its_slot),
    };
    static const struct disk_test once[] = {
        DISK_TEST(test_write_to_a_lost_path_is_not_believed),
        DISK_TEST(test_path_is_busy_while_something_moves_there),
    };
    static const struct disk_test polled[] = {
        DISK_TEST(test_queued_read_from_a_path_that_is_out_is_not_begun),
        DISK_TEST(test_queued_read_from_before_a_path_was_put_back_is_not_begun),
    };
    int failed = run_disk_tests(each, sizeof each / sizeof *each, once, sizeof once / sizeof *once);
    return failed + run_disk_tests_by_progress(polled, sizeof polled / sizeof *polled, NULL, 0);
}
