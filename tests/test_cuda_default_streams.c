/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fences and waits on the default streams, where many servers run: what they stand for, and the
 * captures that they must not meet.
 */
#include "support/cuda_scene.h"

/* The legacy stream by both of its names, and the calling thread's own. */
static const uintptr_t handles[] = {0, 1, 2};

static cudaStream_t name_of(uintptr_t handle)
{
    return handle == 0 ? cudaStreamLegacy : (cudaStream_t)handle; /* NULL: all streams */
}

static cudaStream_t blocking_stream(void)
{
    cudaStream_t stream;
    cuda_ok(cudaStreamCreateWithFlags(&stream, cudaStreamDefault));
    assert_true(fake_cuda_take_report(FAKE_CUDA_DEFAULT_STREAM)); /* the server may have one */
    return stream;
}

/* Down, not before the kernel is over, and its bytes are there. */
static void expect_offload_after(struct cuda_scene *scene, struct mv_run *run, cudaStream_t held)
{
    struct kv_rig *rig = &scene->rig;
    uint64_t before = cuda_scene_down(scene).transferred;
    mv_offer(rig, run->blocks[0], 50);
    mv_step(rig);
    assert_int_equal(cuda_scene_down(scene).transferred, before);
    fake_cuda_release(held);
    mv_step(rig);
    assert_int_equal(cuda_scene_down(scene).transferred, before + 1);
    mv_drop(rig, run);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    mv_expect_in(rig, run, KVB_TIER_HOST);
}

static void test_offload_comes_after_a_kernel_on_a_default_stream(void **state)
{
    struct cuda_scene *scene = *state;
    cudaStream_t server = scene->server;
    for (size_t i = 0; i < sizeof handles / sizeof *handles; i++) {
        struct mv_run run;
        scene->server = (cudaStream_t)handles[i];
        fake_cuda_hold(name_of(handles[i]));
        struct kvb_fence fence = cuda_scene_fence(scene);
        cuda_scene_store(scene, &run, 1 + i, 1, &fence);
        scene->server = server;
        expect_offload_after(scene, &run, name_of(handles[i]));
    }
}

/* A point on the legacy stream is one in every stream that synchronises with it. */
static void test_fence_of_the_legacy_stream_covers_blocking_streams(void **state)
{
    struct cuda_scene *scene = *state;
    struct mv_run run;
    cudaStream_t server = scene->server, blocking = blocking_stream();
    struct kvb_fence fence = cuda_stream_fence(NULL);
    fake_cuda_hold(blocking);
    scene->server = blocking;
    cuda_scene_store(scene, &run, 1, 1, &fence);
    scene->server = server;
    expect_offload_after(scene, &run, blocking);
    cuda_ok(cudaStreamDestroy(blocking));
}

static void test_fence_of_the_legacy_stream_does_not_cover_the_others(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    struct kvb_fence fence = cuda_stream_fence(NULL);
    fake_cuda_hold(scene->server);
    cuda_scene_store(scene, &run, 1, 1, &fence); /* by a stream that blocks nobody */
    mv_offer(rig, run.blocks[0], 50);
    mv_step(rig);
    assert_true(fake_cuda_take_reports(FAKE_CUDA_RACE) > 0);
    fake_cuda_release(scene->server);
    mv_step(rig);
    mv_drop(rig, &run);
}

static struct kvb_op *start_rising(struct cuda_scene *scene, struct mv_run *run,
                                   struct mv_done *done, struct kvb_block **target)
{
    struct kv_rig *rig = &scene->rig;
    struct kvb_op *op = NULL;
    mv_park(rig, run, KVB_TIER_HOST, 3, 1);
    assert_int_equal(mv_match(rig, run), 1);
    *target = kv_alloc(rig, KVB_TIER_DEVICE);
    struct kvb_onboard request = mv_request(run->blocks, target, 1, done);
    kv_ok(kvb_onboard(rig->kv, &request, &op));
    mv_drop(rig, run);
    fake_cuda_hold(NULL);
    assert_int_equal(kvb_manager_poll(rig->kv, KVB_FOREVER), 0);
    return op;
}

static void end_rising(struct cuda_scene *scene, struct mv_run *run, struct kvb_op *op)
{
    fake_cuda_release(NULL);
    mv_step(&scene->rig);
    assert_int_equal(mv_take(&scene->rig, run, op), 1);
    mv_drop_taken(&scene->rig, run);
}

static void attend_on(struct cuda_scene *scene, cudaStream_t stream, struct kvb_block *block)
{
    cudaStream_t server = scene->server;
    scene->server = stream;
    cuda_scene_attend(scene, block);
    scene->server = server;
}

/* The host has seen the end of all that is there. */
static void settle(cudaStream_t stream)
{
    cudaEvent_t event;
    cuda_ok(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    cuda_ok(cudaEventRecord(event, stream));
    cuda_ok(cudaEventSynchronize(event));
    cuda_ok(cudaEventDestroy(event));
}

static void test_kernel_on_a_default_stream_comes_after_the_copies_it_waits_for(void **state)
{
    struct cuda_scene *scene = *state;
    for (size_t i = 0; i < sizeof handles / sizeof *handles; i++) {
        struct kv_rig *rig = &scene->rig;
        struct mv_run run;
        struct mv_done done;
        struct kvb_block *target;
        cudaStream_t stream = (cudaStream_t)handles[i];
        struct kvb_op *op = start_rising(scene, &run, &done, &target);
        kv_ok(kvb_op_wait_stream(rig->kv, op, stream, KVB_ALL_LAYERS));
        attend_on(scene, stream, target);
        assert_int_equal(fake_cuda_report_count(), 0);
        end_rising(scene, &run, op);
        settle(stream);
        mv_evict_all(rig, KVB_TIER_DEVICE);
        mv_evict_all(rig, KVB_TIER_HOST);
    }
}

static void test_kernel_on_a_default_stream_that_does_not_wait_is_a_race(void **state)
{
    struct cuda_scene *scene = *state;
    struct mv_run run;
    struct mv_done done;
    struct kvb_block *target;
    struct kvb_op *op = start_rising(scene, &run, &done, &target);
    attend_on(scene, NULL, target);
    assert_true(fake_cuda_take_reports(FAKE_CUDA_RACE) > 0);
    end_rising(scene, &run, op);
}

/* ---- Captures -------------------------------------------------------------------------------- */

static int give_fence(struct cuda_scene *scene, cudaStream_t stream)
{
    struct kvb_fence fence = cuda_stream_fence(stream);
    struct kvb_block *block = NULL;
    int code = kvb_alloc(scene->rig.kv, KVB_TIER_DEVICE, 1, &fence, &block, NULL);
    if (code == 0)
        kv_unref(&scene->rig, block);
    return code;
}

static void test_legacy_stream_is_refused_while_a_blocking_stream_captures(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    struct mv_done done;
    struct kvb_block *target;
    cudaStream_t blocking = blocking_stream();
    struct kvb_op *op = start_rising(scene, &run, &done, &target);
    cuda_ok(fake_cuda_capture_begin(blocking, cudaStreamCaptureModeGlobal));
    kv_expect(give_fence(scene, NULL), KVB_EINVAL);
    assert_true(kv_log_has(&rig->log, "the legacy default stream"));
    kv_expect(give_fence(scene, cudaStreamLegacy), KVB_EINVAL);
    kv_expect(kvb_op_wait_stream(rig->kv, op, NULL, KVB_ALL_LAYERS), KVB_EINVAL);
    kv_ok(give_fence(scene, scene->server));
    cuda_ok(fake_cuda_capture_end(blocking)); /* nobody has broken it */
    kv_ok(give_fence(scene, NULL));
    end_rising(scene, &run, op);
    cuda_ok(cudaStreamDestroy(blocking));
}

static void test_legacy_stream_is_taken_while_a_stream_captures_that_blocks_nobody(void **state)
{
    struct cuda_scene *scene = *state;
    cudaStream_t captured;
    cuda_ok(cudaStreamCreateWithFlags(&captured, cudaStreamNonBlocking));
    cuda_ok(fake_cuda_capture_begin(captured, cudaStreamCaptureModeGlobal));
    kv_ok(give_fence(scene, NULL));
    kv_ok(give_fence(scene, cudaStreamPerThread));
    cuda_ok(fake_cuda_capture_end(captured));
    cuda_ok(cudaStreamDestroy(captured));
}

static void test_per_thread_stream_that_is_captured_is_refused(void **state)
{
    struct cuda_scene *scene = *state;
    cuda_ok(fake_cuda_capture_begin(cudaStreamPerThread, cudaStreamCaptureModeThreadLocal));
    kv_expect(give_fence(scene, cudaStreamPerThread), KVB_EINVAL);
    assert_true(kv_log_has(&scene->rig.log, "captured into a graph"));
    cuda_ok(fake_cuda_capture_end(cudaStreamPerThread));
    kv_ok(give_fence(scene, cudaStreamPerThread));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(cuda_opened, test_offload_comes_after_a_kernel_on_a_default_stream),
        TEST(cuda_opened, test_fence_of_the_legacy_stream_covers_blocking_streams),
        TEST(cuda_opened, test_fence_of_the_legacy_stream_does_not_cover_the_others),
        TEST(cuda_opened, test_kernel_on_a_default_stream_comes_after_the_copies_it_waits_for),
        TEST(cuda_opened, test_kernel_on_a_default_stream_that_does_not_wait_is_a_race),
        TEST(cuda_opened, test_legacy_stream_is_refused_while_a_blocking_stream_captures),
        TEST(cuda_opened, test_legacy_stream_is_taken_while_a_stream_captures_that_blocks_nobody),
        TEST(cuda_opened, test_per_thread_stream_that_is_captured_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
