/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The disk tier through the public interface: down, evicted above, found, up again; who waits for
 * whom; the end.
 */
#include "support/disk_scene.h"

/* ---- Down and up ----------------------------------------------------------------------------- */

static void test_registered_blocks_go_down_both_lanes(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    mv_park(&scene->rig, &run, KVB_TIER_DEVICE, 1, 10);
    flush_and_check(scene);
    assert_int_equal(mv_lane(&scene->rig, KVB_TIER_DEVICE, KVB_TIER_HOST).transferred, 10);
    assert_int_equal(mv_lane(&scene->rig, KVB_TIER_HOST, KVB_TIER_DISK).transferred, 10);
    assert_int_equal(mv_event_count(&scene->rig, KVB_EVENT_STORED, KVB_TIER_DISK), 10);
}

static void test_blocks_evicted_above_are_found_on_disk(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    struct kvb_hit hits[MV_RUN_MAX];
    store_on_disk(scene, &run, 1, 10);
    assert_int_equal(hold(scene, &run, hits), 10);
    for (uint32_t i = 0; i < 10; i++)
        assert_int_equal(hits[i].tier, KVB_TIER_DISK);
    mv_drop(&scene->rig, &run);
}

/* Cold is HOST's default. Whatever is evicted there has its copy below by then. */
static void test_blocks_go_down_before_they_are_evicted_from_host(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run runs[50];
    scene_tiers(scene, 20, DISK_BLOCKS);
    scene->rig.tiers[1].trigger = KVB_OFFLOAD_DEFAULT;
    scene_open(scene);
    for (uint32_t i = 0; i < 50; i++) {
        mv_park(&scene->rig, &runs[i], KVB_TIER_DEVICE, i + 1, 1);
        flush_and_check(scene);
    }
    assert_true(mv_lane(&scene->rig, KVB_TIER_HOST, KVB_TIER_DISK).transferred < 50);
    for (uint32_t i = 0; i < 50; i++)
        assert_int_equal(mv_found(&scene->rig, &runs[i]), 1);
}

static void test_blocks_come_back_to_device_with_their_bytes(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    store_on_disk(scene, &run, 1, 10);
    assert_int_equal(fetch(scene, &run), 10);
    mv_expect_in(&scene->rig, &run, KVB_TIER_DEVICE);
}

static void test_blocks_that_came_up_stay_in_host_and_on_disk(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    store_on_disk(scene, &run, 1, 10);
    assert_int_equal(fetch(scene, &run), 10);
    mv_evict_all(&scene->rig, KVB_TIER_DEVICE);
    mv_expect_in(&scene->rig, &run, KVB_TIER_HOST);
    mv_evict_all(&scene->rig, KVB_TIER_HOST);
    assert_int_equal(mv_in_tier(&scene->rig, &run, KVB_TIER_DISK), 10);
    assert_int_equal(mv_lane(&scene->rig, KVB_TIER_HOST, KVB_TIER_DISK).transferred, 10);
}

static void test_prefetch_brings_blocks_into_host_only(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    store_on_disk(scene, &run, 1, 10);
    assert_int_equal(finish(scene, &run, bring_up(scene, &run, KVB_TIER_HOST, NULL, 0)), 10);
    mv_expect_in(&scene->rig, &run, KVB_TIER_HOST);
}

static void test_without_host_blocks_go_down_and_come_back(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    scene_open_with(scene, 0, DISK_BLOCKS);
    store_on_disk(scene, &run, 1, 20);
    assert_int_equal(mv_lane(&scene->rig, KVB_TIER_DEVICE, KVB_TIER_DISK).transferred, 20);
    assert_int_equal(fetch(scene, &run), 20);
    assert_int_equal(mv_lane(&scene->rig, KVB_TIER_DISK, KVB_TIER_DEVICE).transferred, 20);
}

static void come_back_with_chunks_of(void **state, uint64_t chunk_bytes, uint32_t count)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    scene->rig.layout.chunk_bytes = chunk_bytes;
    for (uint32_t i = 0; i < 3; i++)
        scene->rig.tiers[i].block_count = count;
    scene_open(scene);
    store_on_disk(scene, &run, 1, count / 2);
    assert_int_equal(fetch(scene, &run), count / 2);
}

static void test_blocks_of_whole_pages_come_back(void **state)
{
    come_back_with_chunks_of(state, 1024, 16);
}

/* Of several I/Os each, the last of which ends within a page. */
static void test_blocks_of_several_megabytes_come_back(void **state)
{
    come_back_with_chunks_of(state, (640u << 10) + 64, 4);
}

static void test_small_disk_gives_back_only_what_it_still_holds(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run runs[30];
    uint32_t found = 0;
    scene_open_with(scene, HOST_BLOCKS, 8);
    for (uint32_t i = 0; i < 30; i++) {
        mv_park(&scene->rig, &runs[i], KVB_TIER_DEVICE, i + 1, 1);
        flush_and_check(scene);
    }
    evict_above(scene);
    for (uint32_t i = 0; i < 30; i++) {
        if (mv_found(&scene->rig, &runs[i]) == 0)
            continue;
        found++;
        assert_int_equal(fetch(scene, &runs[i]), 1);
    }
    assert_int_equal(found, 8);
}

static void test_invalidated_block_is_not_found_on_disk(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    store_on_disk(scene, &run, 1, 3);
    kv_ok(kvb_invalidate(scene->rig.kv, &run.seqs[1], 1, NULL));
    flush_and_check(scene);
    assert_int_equal(mv_found(&scene->rig, &run), 1);
    assert_int_equal(mv_event(&scene->rig, KVB_EVENT_REMOVED, KVB_TIER_DISK, 0), run.seqs[1].hash);
}

static void test_file_opened_to_start_empty_holds_nothing(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    store_on_disk(scene, &run, 1, 10);
    kv_rig_close(&scene->rig);
    disk_config(scene)->disk_flags = KVB_DISK_START_EMPTY;
    scene_open(scene);
    assert_int_equal(mv_found(&scene->rig, &run), 0);
    assert_int_equal(kv_stats(&scene->rig).tiers[KVB_TIER_DISK].free_count, DISK_BLOCKS);
}

static void test_serving_takes_no_memory(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    uint64_t calls = scene->rig.heap.calls;
    store_on_disk(scene, &run, 1, 10);
    assert_int_equal(fetch(scene, &run), 10);
    assert_int_equal(scene->rig.heap.calls, calls);
}

static void test_statistics_and_log_name_the_engine(void **state)
{
    struct disk_scene *scene = *state;
    const char *name = scene->variant->engine == KVB_DISK_ENGINE_URING ? "uring" : "posix";
    struct kvb_stats stats = kv_stats(&scene->rig);
    assert_non_null(strstr(stats.engine, name));
    assert_true(kv_log_has(&scene->rig.log, stats.engine));
}

static void test_file_tier_has_no_blocks_to_allocate(void **state)
{
    struct disk_scene *scene = *state;
    struct kvb_block *block = (struct kvb_block *)scene;
    kv_expect(kvb_alloc(scene->rig.kv, KVB_TIER_DISK, 1, NULL, &block, NULL), KVB_EUNSUPPORTED);
    assert_null(block);
}

static void test_file_tier_has_no_addresses(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    struct kvb_hit hits[MV_RUN_MAX];
    void *address = scene;
    store_on_disk(scene, &run, 1, 1);
    assert_int_equal(hold(scene, &run, hits), 1);
    kv_expect(kvb_block_address(scene->rig.kv, run.blocks[0], 0, 0, &address), KVB_EUNSUPPORTED);
    assert_null(address);
    mv_drop(&scene->rig, &run);
}

static void test_file_tier_has_no_memory(void **state)
{
    struct disk_scene *scene = *state;
    void *base = scene;
    uint64_t bytes = 1;
    kv_expect(kvb_tier_memory(scene->rig.kv, KVB_TIER_DISK, &base, &bytes), KVB_EUNSUPPORTED);
    assert_null(base);
    assert_int_equal(bytes, 0);
}

/* ---- Tokens ---------------------------------------------------------------------------------- */

static int count_tokens(void *arg, const struct kvb_event *event)
{
    uint32_t *known = arg;
    known[event->tier] += event->tokens != NULL;
    return 0;
}

static uint32_t known_tokens(struct disk_scene *scene, uint32_t tier)
{
    uint32_t known[KVB_TIER_COUNT] = {0};
    kv_ok(kvb_index_walk(scene->rig.kv, count_tokens, known));
    return known[tier];
}

static void test_tokens_of_blocks_on_disk_alone_are_not_kept(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    store_on_disk(scene, &run, 1, 5);
    assert_int_equal(known_tokens(scene, KVB_TIER_DISK), 0);
}

static void test_tokens_are_known_again_after_a_match_of_what_came_back(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    store_on_disk(scene, &run, 1, 5);
    assert_int_equal(fetch(scene, &run), 5);
    mv_expect_in(&scene->rig, &run, KVB_TIER_DEVICE);
    assert_int_equal(known_tokens(scene, KVB_TIER_DEVICE), 5);
}

/* A key that is right does not help where the tokens are not. */
static void test_other_tokens_do_not_match_a_block_on_disk_alone(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    uint64_t tiers[KVB_TIER_COUNT];
    store_on_disk(scene, &run, 1, 1);
    struct kvb_seq key = {.hash = run.seqs[0].hash};
    uint32_t tokens[KV_TOKENS];
    kv_tokens(tokens, KV_TOKENS, 2);
    struct kvb_query query = kv_query(0, tokens, KV_TOKENS);
    query.keys = &key;
    query.key_count = 1;
    kv_ok(kvb_lookup(scene->rig.kv, &query, tiers));
    assert_int_equal(tiers[KVB_TIER_DISK], 0);
}

/* ---- Joining --------------------------------------------------------------------------------- */

/* The second of two operations over the same blocks into DEVICE: each block is read once. */
static void join_an_operation_into(struct disk_scene *scene, uint32_t tier, uint64_t free_since)
{
    struct mv_run run, other;
    store_on_disk(scene, &run, 1, 8);
    other = run;
    struct kvb_op *first = bring_up(scene, &run, tier, NULL, 1);
    struct kvb_op *second = bring_up(scene, &other, KVB_TIER_DEVICE, NULL, free_since);
    mv_signal(&scene->rig, 1);
    assert_int_equal(finish(scene, &run, first), 8);
    assert_int_equal(finish(scene, &other, second), 8);
    assert_int_equal(scene->io.reads, 8);
}

static void test_two_operations_over_two_hops_read_each_block_once(void **state)
{
    join_an_operation_into(*state, KVB_TIER_DEVICE, 1);
}

static void test_operation_to_device_joins_a_prefetch_into_host(void **state)
{
    join_an_operation_into(*state, KVB_TIER_HOST, 0);
}

/* ---- Pace ------------------------------------------------------------------------------------ */

#define ONDECK 3
#define BATCH 2
#define DEPTH 2

/* Blocks of HOST that a disk behind a fence does not take. */
static struct disk_scene *scene_with_slow_disk(void **state, struct mv_run *run, uint32_t count)
{
    struct disk_scene *scene = *state;
    mv_bounds(&scene->rig, 1, ONDECK, BATCH, DEPTH, 64);
    scene_open(scene);
    mv_store_after(&scene->rig, run, KVB_TIER_HOST, 1, count, 1);
    mv_drop(&scene->rig, run);
    kv_expect(kvb_manager_flush(scene->rig.kv, 0), KVB_ETIMEDOUT);
    return scene;
}

static void test_slow_disk_holds_no_more_than_its_lane_may(void **state)
{
    struct mv_run run;
    struct disk_scene *scene = scene_with_slow_disk(state, &run, HOST_BLOCKS);
    mv_expect_books(&scene->rig, false);
    mv_signal(&scene->rig, 1);
    flush_and_check(scene);
    assert_true(mv_lane(&scene->rig, KVB_TIER_HOST, KVB_TIER_DISK).pinned_max <=
                ONDECK + BATCH * DEPTH);
    assert_int_equal(mv_lane(&scene->rig, KVB_TIER_HOST, KVB_TIER_DISK).transferred, HOST_BLOCKS);
}

static void test_slow_disk_leaves_the_server_all_but_what_is_in_transfer(void **state)
{
    struct mv_run run;
    struct kvb_block *blocks[HOST_BLOCKS];
    struct disk_scene *scene = scene_with_slow_disk(state, &run, HOST_BLOCKS);
    kv_ok(kvb_alloc(scene->rig.kv, KVB_TIER_HOST, HOST_BLOCKS - BATCH * DEPTH, NULL, blocks, NULL));
    kv_check(&scene->rig);
    kv_ok(kvb_block_unref(scene->rig.kv, blocks, HOST_BLOCKS - BATCH * DEPTH, NULL));
    mv_signal(&scene->rig, 1);
}

static void test_slow_disk_does_not_hold_up_device_and_host(void **state)
{
    struct mv_run slow, run;
    struct disk_scene *scene = scene_with_slow_disk(state, &slow, 8);
    mv_park(&scene->rig, &run, KVB_TIER_DEVICE, 2, 4);
    kv_expect(kvb_manager_flush(scene->rig.kv, 0), KVB_ETIMEDOUT); /* starts it in poll mode */
    while (mv_in_tier(&scene->rig, &run, KVB_TIER_DEVICE) == 4 &&
           mv_lane(&scene->rig, KVB_TIER_DEVICE, KVB_TIER_HOST).transferred < 4)
        kv_expect(kvb_manager_flush(scene->rig.kv, 0), KVB_ETIMEDOUT);
    mv_evict_all(&scene->rig, KVB_TIER_DEVICE);
    assert_int_equal(finish(scene, &run, bring_up(scene, &run, KVB_TIER_DEVICE, NULL, 0)), 4);
    mv_signal(&scene->rig, 1);
}

/* ---- I/O that is under way ------------------------------------------------------------------- */

static void test_cancel_does_not_wait_for_the_disk(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    struct mv_done done;
    store_on_disk(scene, &run, 1, 2);
    hold_io(scene, true);
    struct kvb_op *op = bring_up(scene, &run, KVB_TIER_DEVICE, &done, 0);
    wait_for_held_io(scene);
    kv_ok(kvb_op_cancel(scene->rig.kv, op));
    kv_expect(kvb_op_wait(scene->rig.kv, op, KVB_FOREVER), KVB_ECANCELED);
    assert_int_equal(mv_take(&scene->rig, &run, op), 0);
    hold_io(scene, false);
    mv_drop_taken(&scene->rig, &run);
}

static void test_block_invalidated_while_it_is_read_is_a_miss(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    store_on_disk(scene, &run, 1, 1);
    hold_io(scene, true);
    struct kvb_op *op = bring_up(scene, &run, KVB_TIER_DEVICE, NULL, 0);
    wait_for_held_io(scene);
    kv_ok(kvb_invalidate(scene->rig.kv, &run.seqs[0], 1, NULL));
    kv_check(&scene->rig);
    hold_io(scene, false);
    assert_int_equal(finish(scene, &run, op), 0);
    assert_int_equal(mv_found(&scene->rig, &run), 0);
}

static void test_block_invalidated_while_it_is_written_is_not_findable(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    hold_io(scene, true);
    mv_park(&scene->rig, &run, KVB_TIER_DEVICE, 1, 1);
    wait_for_held_io(scene);
    kv_ok(kvb_invalidate(scene->rig.kv, &run.seqs[0], 1, NULL));
    kv_check(&scene->rig);
    hold_io(scene, false);
    flush_and_check(scene);
    assert_int_equal(mv_found(&scene->rig, &run), 0);
    assert_int_equal(mv_event_count(&scene->rig, KVB_EVENT_STORED, KVB_TIER_DISK), 0);
    assert_int_equal(mv_lane(&scene->rig, KVB_TIER_HOST, KVB_TIER_DISK).failed_invalidated, 1);
}

/* ---- Destroy --------------------------------------------------------------------------------- */

static void test_destroy_ends_what_reads_and_writes(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run up, down;
    struct mv_done done;
    store_on_disk(scene, &up, 1, 8);
    (void)bring_up(scene, &up, KVB_TIER_DEVICE, &done, 0);
    mv_park(&scene->rig, &down, KVB_TIER_DEVICE, 2, 8);
    if (scene->variant->progress == KVB_PROGRESS_POLL)
        assert_true(kvb_manager_poll(scene->rig.kv, 0) >= 0);
    kv_rig_close(&scene->rig);
    assert_int_equal(done.calls, 1);
}

static void test_destroy_gives_up_what_waits_for_a_fence(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    struct mv_done done;
    store_on_disk(scene, &run, 1, 8);
    (void)bring_up(scene, &run, KVB_TIER_HOST, &done, 1);
    if (scene->variant->progress == KVB_PROGRESS_POLL)
        kv_poll(&scene->rig);
    kv_rig_close(&scene->rig);
    assert_int_equal(done.calls, 1);
    assert_int_equal(done.status, KVB_ECANCELED);
    assert_int_equal(done.good_count, 0);
}

/*
 * Contents on the disk alone are on their way up; the same contents are computed in HOST meanwhile
 * and evicted there. What is only awaited must not keep a name for itself besides its target's own:
 * there is one a block, and every block gets one.
 */
static void test_contents_awaited_and_evicted_leave_names_for_all_blocks(void **state)
{
    enum { BLOCKS = 40, AWAITED = 30 };
    struct disk_scene *scene = *state;
    struct mv_run run, again;
    struct kvb_hit hits[MV_RUN_MAX];
    struct kvb_block *targets[AWAITED], *room[BLOCKS];
    struct kvb_op *op = NULL;
    bool polled = scene->variant->progress == KVB_PROGRESS_POLL;
    scene_tiers(scene, BLOCKS, 80);
    scene->rig.tiers[0].block_count = BLOCKS;
    scene->rig.config.event_capacity = 0;
    scene->rig.config.sink = (struct kvb_event_sink){0};
    scene_open(scene);
    struct kvb_manager *kv = scene->rig.kv;
    store_on_disk(scene, &run, 1, AWAITED);
    assert_int_equal(hold(scene, &run, hits), AWAITED);
    kv_ok(kvb_alloc(kv, KVB_TIER_DEVICE, AWAITED, NULL, targets, NULL));
    struct kvb_onboard request = mv_request(run.blocks, targets, AWAITED, NULL);
    kv_ok(kvb_onboard(kv, &request, &op));
    if (polled) { /* else they do not wait */
        mv_park(&scene->rig, &again, KVB_TIER_HOST, 1, AWAITED);
        kv_ok(kvb_alloc(kv, KVB_TIER_HOST, BLOCKS, NULL, room, NULL));
        kv_ok(kvb_block_unref(kv, room, BLOCKS, NULL));
    }
    kv_ok(kvb_op_release(kv, op));
    flush_and_check(scene);
    kv_ok(kvb_block_unref(kv, run.blocks, AWAITED, NULL));
}

static struct {
    pthread_t thread;
    bool runs;
    int result;
} destroyer;

static void *destroy_manager(void *argument)
{
    struct disk_scene *scene = argument;
    destroyer.result = kvb_manager_destroy(scene->rig.kv);
    if (destroyer.result == 0)
        scene->rig.kv = NULL;
    return NULL;
}

static void wait_for_destroyer(void)
{
    if (destroyer.runs && pthread_join(destroyer.thread, NULL) == 0)
        destroyer.runs = false;
}

static int destroyed_scene_setup(void **state)
{
    return disk_scene_opened_setup(state);
}

static int destroyed_scene_teardown(void **state)
{
    hold_io(*state, false);
    wait_for_destroyer();
    return disk_scene_teardown(state);
}

static void test_destroy_waits_for_io_that_has_begun(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    struct mv_done done;
    store_on_disk(scene, &run, 1, 8);
    hold_io(scene, true);
    (void)bring_up(scene, &run, KVB_TIER_DEVICE, &done, 0);
    wait_for_held_io(scene);
    assert_int_equal(pthread_create(&destroyer.thread, NULL, destroy_manager, scene), 0);
    destroyer.runs = true;
    hold_io(scene, false);
    wait_for_destroyer();
    kv_ok(destroyer.result);
    assert_int_equal(done.calls, 1);
    assert_int_equal(scene->rig.heap.live_blocks, 0);
}

/* ---------------------------------------------------------------------------------------------- */

int main(void)
{
    static const struct CMUnitTest each[] = {
        TEST(disk_scene, test_contents_awaited_and_evicted_leave_names_for_all_blocks),
        TEST(disk_scene_opened, test_registered_blocks_go_down_both_lanes),
        TEST(disk_scene_opened, test_blocks_evicted_above_are_found_on_disk),
        TEST(disk_scene, test_blocks_go_down_before_they_are_evicted_from_host),
        TEST(disk_scene_opened, test_blocks_come_back_to_device_with_their_bytes),
        TEST(disk_scene_opened, test_blocks_that_came_up_stay_in_host_and_on_disk),
        TEST(disk_scene_opened, test_prefetch_brings_blocks_into_host_only),
        TEST(disk_scene, test_without_host_blocks_go_down_and_come_back),
        TEST(disk_scene, test_blocks_of_whole_pages_come_back),
        TEST(disk_scene, test_blocks_of_several_megabytes_come_back),
        TEST(disk_scene, test_small_disk_gives_back_only_what_it_still_holds),
        TEST(disk_scene_opened, test_invalidated_block_is_not_found_on_disk),
        TEST(disk_scene_opened, test_file_opened_to_start_empty_holds_nothing),
        TEST(disk_scene_opened, test_serving_takes_no_memory),
        TEST(disk_scene_opened, test_statistics_and_log_name_the_engine),
        TEST(disk_scene_opened, test_file_tier_has_no_blocks_to_allocate),
        TEST(disk_scene_opened, test_file_tier_has_no_addresses),
        TEST(disk_scene_opened, test_file_tier_has_no_memory),
        TEST(disk_scene_opened, test_tokens_of_blocks_on_disk_alone_are_not_kept),
        TEST(disk_scene_opened, test_tokens_are_known_again_after_a_match_of_what_came_back),
        TEST(disk_scene_opened, test_other_tokens_do_not_match_a_block_on_disk_alone),
        TEST(disk_scene_opened, test_two_operations_over_two_hops_read_each_block_once),
        TEST(disk_scene_opened, test_operation_to_device_joins_a_prefetch_into_host),
        TEST(disk_scene, test_slow_disk_holds_no_more_than_its_lane_may),
        TEST(disk_scene, test_slow_disk_leaves_the_server_all_but_what_is_in_transfer),
        TEST(disk_scene, test_slow_disk_does_not_hold_up_device_and_host),
        TEST(disk_scene_opened, test_destroy_ends_what_reads_and_writes),
        TEST(disk_scene_opened, test_destroy_gives_up_what_waits_for_a_fence),
    };
    static const struct CMUnitTest once[] = {
        TEST(disk_scene_opened, test_cancel_does_not_wait_for_the_disk),
        TEST(disk_scene_opened, test_block_invalidated_while_it_is_read_is_a_miss),
        TEST(disk_scene_opened, test_block_invalidated_while_it_is_written_is_not_findable),
        TEST(destroyed_scene, test_destroy_waits_for_io_that_has_begun),
    };
    return run_disk_tests(each, sizeof each / sizeof *each, once, sizeof once / sizeof *once);
}
