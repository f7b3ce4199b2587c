/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slots of the disk that the engine condemns: what was there is a miss, and the slot is never used
 * again; by later runs either, once its path has shown that it is not the path's fault.
 */
#include <errno.h>

#include "support/disk_restart.h"

#include "api/manager.h"
#include "transfer/disk/tier.h"

/* The disk's engine, which condemns the slot of every copy that fails. */
static struct kvbi_engine_ops condemning;
static const struct kvbi_engine_ops *real;

static uint32_t reap_and_condemn(struct kvbi_engine *engine, struct kvbi_completion *completions,
                                 uint32_t max, uint64_t until_ns, bool *more)
{
    uint32_t count = real->reap(engine, completions, max, until_ns, more);
    for (uint32_t i = 0; i < count; i++)
        completions[i].condemned =
            completions[i].result != 0 && completions[i].result != KVB_ECANCELED;
    return count;
}

static struct disk_scene *scene_that_condemns(void **state, uint32_t host_blocks)
{
    struct disk_scene *scene = *state;
    scene_open_with(scene, host_blocks, DISK_BLOCKS);
    struct kvbi_engine *engine = scene->rig.kv->pipeline.engines.all[1];
    real = engine->ops;
    condemning = *real;
    condemning.reap = reap_and_condemn;
    engine->ops = &condemning; /* polled: nobody runs it now */
    return scene;
}

static const struct kvbi_pool *disk_pool(struct disk_scene *scene)
{
    return &scene->rig.kv->store.pools[KVB_TIER_DISK];
}

static uint64_t retired(struct disk_scene *scene)
{
    return kv_stats(&scene->rig).tiers[KVB_TIER_DISK].retired_count;
}

/* `run` is on the disk only and its block `index` cannot be read. The slot of that. */
static uint32_t store_unreadable(struct disk_scene *scene, struct mv_run *run, uint32_t count,
                                 uint32_t index)
{
    store_on_disk(scene, run, 1, count);
    return make_unreadable(scene, run, index);
}

static void test_slot_that_cannot_be_read_is_retired(void **state)
{
    struct disk_scene *scene = scene_that_condemns(state, HOST_BLOCKS);
    struct mv_run run;
    uint32_t slot = store_unreadable(scene, &run, 6, 3);
    assert_int_equal(fetch(scene, &run), 3);
    assert_false(is_found(scene, &run, 3));
    assert_int_equal(disk_pool(scene)->slots[slot].place, KVBI_PLACE_RETIRED);
    assert_int_equal(retired(scene), 1);
}

static bool is_told(struct disk_scene *scene, uint32_t slot)
{
    char line[64];
    (void)snprintf(line, sizeof line, "slot %u is not used any more", slot);
    return kv_log_has(&scene->rig.log, line);
}

static void test_slot_of_an_error_is_retired_in_the_file_once_its_path_has_worked_since(
    void **state)
{
    struct disk_scene *scene = scene_that_condemns(state, HOST_BLOCKS);
    struct mv_run run, other;
    uint32_t slot = store_unreadable(scene, &run, 1, 0);
    assert_int_equal(fetch(scene, &run), 0);
    assert_int_equal(retired(scene), 1);
    assert_false(is_told(scene, slot));
    store_on_disk(scene, &other, 2, 1);
    assert_true(is_told(scene, slot));
    assert_int_equal(retired(scene), 1);
    assert_int_equal(kvbi_disk_of(&scene->rig.kv->tiers[KVB_TIER_DISK])->tags[slot].identity, 0);
    assert_int_equal(scene->rig.kv->pipeline.health.files[KVB_TIER_DISK][0].moving, 0);
    restart(scene);
    assert_int_equal(retired(scene), 1);
}

/* It may have been the path's: the next run tries it again. */
static void test_slot_of_an_error_that_nothing_followed_is_tried_by_the_next_run(void **state)
{
    struct disk_scene *scene = scene_that_condemns(state, HOST_BLOCKS);
    struct mv_run run;
    (void)store_unreadable(scene, &run, 1, 0);
    assert_int_equal(fetch(scene, &run), 0);
    restart(scene);
    scene->io.read_errno = 0;
    assert_int_equal(retired(scene), 0);
    assert_int_equal(fetch(scene, &run), 1);
}

/* What does not verify is not the path's fault. */
static void test_slot_condemned_for_its_content_is_retired_in_the_file_at_once(void **state)
{
    struct disk_scene *scene = scene_that_condemns(state, HOST_BLOCKS);
    struct mv_run run;
    store_on_disk(scene, &run, 1, 1);
    uint32_t slot = slot_on_disk(scene, &run, 0);
    flip_payload(scene, slot);
    assert_int_equal(fetch(scene, &run), 0);
    assert_true(is_told(scene, slot));
    assert_int_equal(scene->rig.kv->pipeline.health.files[KVB_TIER_DISK][0].moving, 0);
    restart(scene);
    assert_int_equal(retired(scene), 1);
}

static void test_retired_slot_is_not_written_again(void **state)
{
    struct disk_scene *scene = scene_that_condemns(state, HOST_BLOCKS);
    struct mv_run run, other;
    struct kvb_hit hits[MV_RUN_MAX];
    uint32_t slot = store_unreadable(scene, &run, 6, 3);
    assert_int_equal(fetch(scene, &run), 3);
    for (uint64_t seed = 2; seed < 8; seed++) {
        store_on_disk(scene, &other, seed, 20);
        uint32_t count = hold(scene, &other, hits);
        for (uint32_t i = 0; i < count; i++)
            assert_int_not_equal(hits[i].slot, slot);
        mv_drop(&scene->rig, &other);
    }
    assert_int_equal(retired(scene), 1);
}

static void test_slot_that_cannot_be_written_is_retired_and_another_takes_the_block(void **state)
{
    struct disk_scene *scene = scene_that_condemns(state, HOST_BLOCKS);
    struct mv_run run;
    scene->io.write_errno = EIO;
    mv_park(&scene->rig, &run, KVB_TIER_DEVICE, 1, 1);
    flush_and_check(scene);
    assert_int_equal(retired(scene), 1);
    assert_int_equal(mv_event_count(&scene->rig, KVB_EVENT_STORED, KVB_TIER_DISK), 0);
    scene->io.write_errno = 0;
    mv_evict_all(&scene->rig, KVB_TIER_DEVICE);
    assert_int_equal(mv_match(&scene->rig, &run), 1);
    kv_ok(kvb_block_offload(scene->rig.kv, run.blocks, 1, KVB_PRIORITY_DEFAULT, NULL, NULL));
    mv_drop(&scene->rig, &run);
    flush_and_check(scene);
    mv_evict_all(&scene->rig, KVB_TIER_HOST);
    assert_int_equal(fetch(scene, &run), 1);
    assert_int_equal(retired(scene), 1);
}

static void test_slot_of_a_held_block_is_retired_at_its_last_unref(void **state)
{
    struct disk_scene *scene = scene_that_condemns(state, HOST_BLOCKS);
    struct mv_run run;
    struct kvb_hit hits[MV_RUN_MAX];
    (void)store_unreadable(scene, &run, 1, 0);
    assert_int_equal(hold(scene, &run, hits), 1);
    struct kvb_block *held = run.blocks[0];
    assert_int_equal(fetch(scene, &run), 0);
    assert_int_equal(retired(scene), 0);
    assert_int_equal(kv_describe(&scene->rig, held).indexed, 0);
    kv_unref(&scene->rig, held);
    assert_int_equal(retired(scene), 1);
}

static void test_weak_handle_of_a_retired_slot_is_stale(void **state)
{
    struct disk_scene *scene = scene_that_condemns(state, HOST_BLOCKS);
    struct mv_run run;
    struct kvb_hit hits[MV_RUN_MAX];
    struct kvb_weak weak;
    struct kvb_block *block;
    (void)store_unreadable(scene, &run, 1, 0);
    assert_int_equal(hold(scene, &run, hits), 1);
    kv_ok(kvb_block_weak(scene->rig.kv, run.blocks[0], &weak));
    mv_drop(&scene->rig, &run);
    assert_int_equal(fetch(scene, &run), 0);
    kv_expect(kvb_weak_upgrade(scene->rig.kv, &weak, 1, &block, NULL), KVB_ESTALE);
}

static void test_content_of_a_retired_slot_can_be_stored_again(void **state)
{
    struct disk_scene *scene = scene_that_condemns(state, 0);
    struct mv_run run;
    (void)store_unreadable(scene, &run, 4, 2);
    assert_int_equal(fetch(scene, &run), 2);
    store_on_disk(scene, &run, 1, 4);
    scene->io.read_errno = 0;
    assert_int_equal(fetch(scene, &run), 4);
}

int main(void)
{
    static const struct CMUnitTest polled[] = {
        TEST(disk_scene, test_slot_that_cannot_be_read_is_retired),
        TEST(disk_scene,
             test_slot_of_an_error_is_retired_in_the_file_once_its_path_has_worked_since),
        TEST(disk_scene, test_slot_of_an_error_that_nothing_followed_is_tried_by_the_next_run),
        TEST(disk_scene, test_slot_condemned_for_its_content_is_retired_in_the_file_at_once),
        TEST(disk_scene, test_retired_slot_is_not_written_again),
        TEST(disk_scene, test_slot_that_cannot_be_written_is_retired_and_another_takes_the_block),
        TEST(disk_scene, test_slot_of_a_held_block_is_retired_at_its_last_unref),
        TEST(disk_scene, test_weak_handle_of_a_retired_slot_is_stale),
        TEST(disk_scene, test_content_of_a_retired_slot_can_be_stored_again),
    };
    return run_disk_tests_by_progress(polled, sizeof polled / sizeof *polled, NULL, 0);
}
