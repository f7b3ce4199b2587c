/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between a device and a file, with no tier of the host's in between: every byte, for blocks that
 * fill a file's slots and for those that do not, by each engine that works here.
 */
#include "support/device_scene.h"
#include "support/disk_path.h"
#include "support/variants.h"

#define LAYERS 3u
#define PARTS 2u
#define BLOCKS 40u /* more than the pinned blocks in between are at their fewest */

struct way {
    uint32_t engine, progress;
    const char *name;
};

static const struct way ways[] = {
    {KVB_DISK_ENGINE_URING, KVB_PROGRESS_POLL, "uring, polled"},
    {KVB_DISK_ENGINE_URING, KVB_PROGRESS_THREAD, "uring, own thread"},
    {KVB_DISK_ENGINE_POSIX, KVB_PROGRESS_POLL, "posix, polled"},
    {KVB_DISK_ENGINE_POSIX, KVB_PROGRESS_THREAD, "posix, own thread"},
};

struct straits {
    struct device_scene scene; /* comes first: *state is that as well */
    const struct way *way;
    struct disk_path place;
};

static int straits_setup(void **state)
{
    const struct way *way = *state;
    struct straits *straits = device_scene_make(state, sizeof *straits);
    straits->way = way;
    disk_path_make(&straits->place);
    return 0;
}

static int straits_teardown(void **state)
{
    struct straits *straits = *state;
    bool good = device_scene_end(&straits->scene);
    disk_path_remove(&straits->place);
    free(straits);
    return good ? 0 : -1;
}

static void open_straits(struct straits *straits, uint64_t chunk_bytes)
{
    struct kv_rig *rig = &straits->scene.rig;
    device_scene_init(&straits->scene, BLOCKS, 0);
    device_scene_layout(&straits->scene, LAYERS, PARTS, chunk_bytes);
    struct kvb_tier_config *disk = kv_rig_add_tier(rig, KVB_TIER_DISK, BLOCKS, KVB_OFFLOAD_MANUAL);
    disk->path = straits->place.file;
    disk->disk_engine = straits->way->engine;
    disk->disk_flags = KVB_DISK_START_EMPTY | KVB_DISK_EMPTY_ON_MISMATCH;
    rig->config.progress = straits->way->progress;
    kv_rig_open(rig);
}

static void there_and_back(struct straits *straits, uint64_t chunk_bytes)
{
    open_straits(straits, chunk_bytes);
    device_scene_round_trip(&straits->scene, 1, BLOCKS, 0);
    assert_int_equal(mv_lane(&straits->scene.rig, KVB_TIER_DEVICE, KVB_TIER_DISK).transferred,
                     BLOCKS);
    assert_int_equal(mv_lane(&straits->scene.rig, KVB_TIER_DISK, KVB_TIER_DEVICE).transferred,
                     BLOCKS);
    mv_expect_books(&straits->scene.rig, true);
}

static void test_blocks_smaller_than_a_page_come_back(void **state)
{
    there_and_back(*state, 64);
}

static void test_blocks_that_fill_pages_come_back(void **state)
{
    there_and_back(*state, 4096);
}

static void test_blocks_that_end_within_a_page_come_back(void **state)
{
    there_and_back(*state, 4999);
}

static void test_blocks_larger_than_one_io_come_back(void **state)
{
    there_and_back(*state, UINT64_C(200) << 10); /* 1.2 MB a block: I/O is split at 1 MiB */
}

/* What a file holds outlives the manager, and another one brings it into a device. */
static void test_another_manager_brings_up_what_the_file_holds(void **state)
{
    struct straits *straits = *state;
    struct mv_run run;
    open_straits(straits, 4096);
    device_scene_sink(&straits->scene, &run, 2, BLOCKS);
    kv_rig_close(&straits->scene.rig);
    straits->scene.rig.tiers[1].disk_flags = 0;
    kv_rig_open(&straits->scene.rig);
    device_scene_lift(&straits->scene, &run, KVB_TIER_DISK, NULL, 0);
}

/* Both ways at once share the pinned blocks in between. */
static void test_blocks_go_both_ways_at_once(void **state)
{
    struct straits *straits = *state;
    struct device_scene *scene = &straits->scene;
    struct kv_rig *rig = &scene->rig;
    struct kvb_block *targets[BLOCKS / 2];
    struct mv_run low, high;
    open_straits(straits, 4096);
    device_scene_sink(scene, &low, 3, BLOCKS / 2);
    mv_store_beside(rig, &high, KVB_TIER_DEVICE, 4, BLOCKS / 2, 0);
    device_scene_hold(scene, &low, KVB_TIER_DISK);
    mv_alloc_many(rig, KVB_TIER_DEVICE, BLOCKS / 2, targets);
    kv_ok(kvb_block_offload(rig->kv, high.blocks, BLOCKS / 2, 50, NULL, NULL));
    struct kvb_onboard request = mv_request(low.blocks, targets, BLOCKS / 2, NULL);
    struct kvb_op *op = mv_onboard(rig, &request);
    mv_drop_beside(rig, &low);
    device_scene_flush(scene);
    assert_int_equal(mv_take(rig, &low, op), BLOCKS / 2);
    mv_drop_taken(rig, &low);
    mv_drop(rig, &high);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    device_scene_lift(scene, &high, KVB_TIER_DISK, NULL, 0);
    device_scene_lift(scene, &low, KVB_TIER_DISK, NULL, 0);
}

/* False, and why, where this machine refuses the engine. Other failures are for the tests to show.
 */
static bool works_here(const struct way *way)
{
    struct disk_path place;
    struct kvb_layout layout = {
        .size = sizeof layout, .layers = 1, .parts = 1, .chunk_bytes = 4096};
    struct kvb_diagnosis diagnosis = {.size = sizeof diagnosis};
    struct kvb_manager *manager = NULL;
    disk_path_make(&place);
    struct kvb_tier_config tiers[] = {
        {.size = sizeof *tiers, .tier = KVB_TIER_DEVICE, .block_count = 1},
        {.size = sizeof *tiers,
         .tier = KVB_TIER_DISK,
         .block_count = 1,
         .path = place.file,
         .disk_engine = way->engine}};
    struct kvb_config config = {.size = sizeof config,
                                .tokens_per_block = 1,
                                .layout = &layout,
                                .tiers = tiers,
                                .tier_count = 2,
                                .progress = KVB_PROGRESS_POLL};
    int code = kvb_manager_create(&config, &manager, &diagnosis);
    if (kvb_manager_destroy(manager) != 0)
        return true;
    disk_path_remove(&place);
    if (code == KVB_EUNSUPPORTED)
        (void)fprintf(stderr, "left out: %s: %s\n", way->name, diagnosis.message);
    return code != KVB_EUNSUPPORTED;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(straits, test_blocks_smaller_than_a_page_come_back),
        TEST(straits, test_blocks_that_fill_pages_come_back),
        TEST(straits, test_blocks_that_end_within_a_page_come_back),
        TEST(straits, test_blocks_larger_than_one_io_come_back),
        TEST(straits, test_another_manager_brings_up_what_the_file_holds),
        TEST(straits, test_blocks_go_both_ways_at_once),
    };
    int failed = 0;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        if (works_here(&ways[i]))
            failed += run_variant(ways[i].name, &ways[i], tests, sizeof tests / sizeof *tests);
    return failed;
}
