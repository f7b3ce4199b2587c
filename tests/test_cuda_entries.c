/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What stands on the engine's streams is bounded: a call of progress never waits because a stream
 * takes no more (the stand-in reports the one that would), and what is kept back for that goes on
 * by itself.
 */
#include "support/cuda_scene.h"
#include "transfer/cuda/dispatch.h"

#define BLOCKS 64u
#define LAYERS 16u
#define PARTS 2u
#define CHUNK 32u

static struct kvbi_cuda_engine *engine_of(struct cuda_scene *scene)
{
    return (struct kvbi_cuda_engine *)(void *)scene->rig.kv->pipeline.engines.streams;
}

/* Blocks of which no two chunks are neighbours: each is a copy, with KVB_COPY_PLAIN. */
static void open_scattered(struct cuda_scene *scene, enum kvb_copy_method method, uint32_t layers)
{
    cuda_scene_init(scene, BLOCKS, 2 * BLOCKS);
    struct kv_rig *rig = &scene->rig;
    rig->layout = (struct kvb_layout){.size = sizeof rig->layout,
                                      .layers = layers,
                                      .parts = PARTS,
                                      .chunk_bytes = CHUNK,
                                      .layer_stride = (uint64_t)2 * PARTS * BLOCKS * CHUNK,
                                      .part_stride = (uint64_t)2 * BLOCKS * CHUNK,
                                      .block_stride = 2 * CHUNK};
    rig->tiers[0].copy_method = method;
    rig->tiers[0].memory_kind = KVB_MEMORY_CUDA;
    rig->tiers[0].memory_bytes = layers * rig->layout.layer_stride;
    rig->tiers[0].memory = cuda_scene_malloc(scene, rig->tiers[0].memory_bytes);
    mv_bounds(rig, 0, BLOCKS, BLOCKS, 2, 2 * BLOCKS);
    cuda_scene_open(scene);
}

static uint32_t entries_there(struct cuda_scene *scene)
{
    uint32_t most = 0;
    for (uint32_t i = 0; i < 2 * KVBI_STREAMS_EACH_WAY; i++) {
        uint32_t entries = engine_of(scene)->flights.streams[i].entries;
        most = entries > most ? entries : most;
    }
    return most;
}

static void expect_all_down(struct cuda_scene *scene, struct mv_run *run)
{
    struct kv_rig *rig = &scene->rig;
    fake_cuda_release(NULL);
    mv_step(rig);
    assert_int_equal(cuda_scene_down(scene).transferred, run->count);
    assert_int_equal(entries_there(scene), 0);
    mv_drop(rig, run);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    mv_expect_in(rig, run, KVB_TIER_HOST);
    assert_int_equal(fake_cuda_report_count(), 0);
}

static void test_copies_behind_a_step_leave_their_stream_room(void **state)
{
    struct cuda_scene *scene = *state;
    struct mv_run run;
    open_scattered(scene, KVB_COPY_PLAIN, LAYERS);
    fake_cuda_hold(scene->server);
    struct kvb_fence fence = cuda_scene_fence(scene);
    cuda_scene_store(scene, &run, 1, BLOCKS, &fence); /* a fence a block */
    cuda_scene_offer(scene, &run);
    mv_step(&scene->rig);
    assert_in_range(entries_there(scene), KVBI_STREAM_ENTRIES / 2, KVBI_STREAM_ENTRIES);
    assert_true(engine_of(scene)->deferred[0].count > 0);
    expect_all_down(scene, &run);
}

static void test_copies_that_wait_for_nothing_leave_their_streams_room(void **state)
{
    struct cuda_scene *scene = *state;
    struct mv_run run;
    open_scattered(scene, KVB_COPY_PLAIN, LAYERS);
    mv_store(&scene->rig, &run, KVB_TIER_DEVICE, 1, BLOCKS);
    fake_cuda_hold(NULL);
    cuda_scene_offer(scene, &run);
    assert_int_equal(kvb_manager_poll(scene->rig.kv, KVB_FOREVER), 0);
    assert_in_range(entries_there(scene), KVBI_STREAM_ENTRIES / 2, KVBI_STREAM_ENTRIES);
    expect_all_down(scene, &run);
}

/* Layers cost an event each besides. */
static void test_layers_leave_their_stream_room(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    struct mv_done done;
    struct kvb_block *targets[BLOCKS];
    struct kvb_op *op = NULL;
    open_scattered(scene, KVB_COPY_PLAIN, 30); /* eight blocks fit, but not with their events */
    mv_park(rig, &run, KVB_TIER_HOST, 1, BLOCKS);
    assert_int_equal(mv_match(rig, &run), BLOCKS);
    fake_cuda_hold(NULL);
    struct kvb_fence fence = cuda_scene_fence(scene);
    cuda_ok(fake_cuda_kernel(scene->server, NULL, NULL, 0, NULL, 0));
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, BLOCKS, &fence, targets, NULL));
    struct kvb_onboard request = mv_request(run.blocks, targets, BLOCKS, &done);
    request.flags = KVB_ONBOARD_LAYERS;
    kv_ok(kvb_onboard(rig->kv, &request, &op));
    mv_drop(rig, &run);
    assert_int_equal(kvb_manager_poll(rig->kv, KVB_FOREVER), 0);
    assert_in_range(entries_there(scene), KVBI_STREAM_ENTRIES / 2, KVBI_STREAM_ENTRIES);
    assert_true(engine_of(scene)->deferred[1].count > 0);
    fake_cuda_release(NULL);
    mv_step(rig);
    assert_int_equal(mv_take(rig, &run, op), BLOCKS);
    mv_drop_taken(rig, &run);
}

/* The ways up are full; that is no reason to do nothing in the other direction. */
static void test_full_direction_does_not_stand_in_the_way_of_the_other(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run up, down;
    struct mv_done done;
    open_scattered(scene, KVB_COPY_PLAIN, LAYERS);
    mv_park(rig, &up, KVB_TIER_HOST, 1, BLOCKS - 4);
    mv_store(rig, &down, KVB_TIER_DEVICE, 100, 4);
    struct kvb_op *op = mv_bring_up(rig, &up, KVB_TIER_DEVICE, &done);
    fake_cuda_hold(NULL);
    assert_int_equal(kvb_manager_poll(rig->kv, KVB_FOREVER), 0);
    assert_true(engine_of(scene)->queue.ready[1].count > 0);
    cuda_scene_offer(scene, &down);
    assert_int_equal(kvb_manager_poll(rig->kv, KVB_FOREVER), 0);
    assert_int_equal(engine_of(scene)->queue.ready[0].count, 0);
    expect_all_down(scene, &down);
    mv_step(rig);
    assert_int_equal(mv_take(rig, &up, op), BLOCKS - 4);
    mv_drop_taken(rig, &up);
}

/* One block alone has more entries than a stream may have behind a step. */
static void test_block_that_is_too_much_for_a_stream_waits_at_the_host(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    open_scattered(scene, KVB_COPY_PLAIN, KVBI_STREAM_ENTRIES / PARTS);
    mv_store(rig, &run, KVB_TIER_DEVICE, 1, 2);
    fake_cuda_hold(scene->server);
    cuda_ok(fake_cuda_kernel(scene->server, NULL, NULL, 0, NULL, 0));
    struct kvb_fence fence = cuda_scene_fence(scene);
    for (uint32_t i = 0; i < 2; i++)
        kv_ok(kvb_block_offload(rig->kv, &run.blocks[i], 1, 50, &fence, NULL));
    mv_step(rig);
    assert_int_equal(entries_there(scene), 0);
    assert_int_equal(engine_of(scene)->deferred[0].count, 2);
    expect_all_down(scene, &run);
}

/* What fails is tried block by block, as far as the stream has room; the others fail. */
static void test_method_that_fails_behind_a_step_fills_no_stream(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    open_scattered(scene, KVB_COPY_BATCH, LAYERS);
    fake_cuda_hold(scene->server);
    struct kvb_fence fence = cuda_scene_fence(scene);
    cuda_scene_store(scene, &run, 1, BLOCKS, &fence);
    fake_cuda_fail("cudaMemcpyBatchAsync", 1, cudaErrorInvalidValue, FAKE_CUDA_ONCE);
    cuda_scene_offer(scene, &run);
    mv_step(rig);
    assert_true(entries_there(scene) > KVBI_STREAM_ENTRIES);
    fake_cuda_release(scene->server);
    mv_step(rig);
    struct kvb_lane_stats down = cuda_scene_down(scene);
    assert_int_equal(down.transferred + down.failed_transfer, BLOCKS);
    assert_true(down.transferred > 0 && down.failed_transfer > 0);
    mv_drop(rig, &run);
}

/* The streams that wait for the server's events are ours, and have two entries for each. */
static void test_fences_that_are_events_are_bounded_and_come_back(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct kvb_block *block = NULL;
    cudaEvent_t event;
    cuda_ok(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    fake_cuda_hold(scene->server);
    cuda_ok(cudaEventRecord(event, scene->server));
    struct kvb_fence fence = {.kind = KVB_FENCE_CUDA_EVENT, .handle = (uint64_t)(uintptr_t)event};
    for (uint32_t i = 0; i < 256; i++) {
        kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, &fence, &block, NULL));
        kv_unref(rig, block);
    }
    kv_expect(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, &fence, &block, NULL), KVB_EAGAIN);
    assert_true(kv_log_has(&rig->log, "or 256 that are events, are not reached"));
    struct kvb_fence other = cuda_scene_fence(scene);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, &other, &block, NULL));
    kv_unref(rig, block);
    fake_cuda_release(scene->server);
    fake_cuda_quiesce();
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, &fence, &block, NULL));
    kv_unref(rig, block);
    cuda_ok(cudaEventDestroy(event));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(cuda_scene, test_copies_behind_a_step_leave_their_stream_room),
        TEST(cuda_scene, test_copies_that_wait_for_nothing_leave_their_streams_room),
        TEST(cuda_scene, test_layers_leave_their_stream_room),
        TEST(cuda_scene, test_full_direction_does_not_stand_in_the_way_of_the_other),
        TEST(cuda_scene, test_block_that_is_too_much_for_a_stream_waits_at_the_host),
        TEST(cuda_scene, test_method_that_fails_behind_a_step_fills_no_stream),
        TEST(cuda_opened, test_fences_that_are_events_are_bounded_and_come_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
