/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What goes wrong on a GPU: a copy fails alone, a lost context takes the tier out of service and says so once, and the server's own
 * state in the runtime is left as it was.
 */
#include "support/cuda_scene.h"
#include "transfer/cuda/cuda.h"
#include "transfer/cuda/device.h"

/* ---- One copy ----------------------------------------------------------------------------------------------------- */

static void offer_all(struct cuda_scene *scene, struct mv_run *run)
{
    for (uint32_t i = 0; i < run->count; i++)
        mv_offer(&scene->rig, run->blocks[i], 50);
    mv_step(&scene->rig);
}

static struct kvb_lane_stats down(struct cuda_scene *scene)
{
    return mv_lane(&scene->rig, KVB_TIER_DEVICE, KVB_TIER_HOST);
}

static void test_copy_that_cannot_be_enqueued_fails_its_block_alone(void **state)
{
    (void)state;
    struct cuda_scene scene;
    struct mv_run run;
    cuda_scene_init(&scene, 4, 4);
    cuda_scene_open(&scene);
    mv_store(&scene.rig, &run, KVB_TIER_DEVICE, 1, 4);
    fake_cuda_fail("cudaMemcpyBatchAsync", 1, cudaErrorInvalidValue, FAKE_CUDA_ONCE);
    fake_cuda_fail("cudaMemcpyAsync", 3, cudaErrorInvalidValue, FAKE_CUDA_ONCE);
    offer_all(&scene, &run);
    assert_int_equal(down(&scene).failed_transfer, 1);
    assert_int_equal(down(&scene).transferred, 3);
    assert_int_equal(cudaPeekAtLastError(), cudaSuccess);
    mv_drop(&scene.rig, &run);
    mv_evict_all(&scene.rig, KVB_TIER_DEVICE);
    assert_int_equal(mv_in_tier(&scene.rig, &run, KVB_TIER_HOST), 2);
    cuda_scene_close(&scene);
}

static void test_failed_descriptor_of_a_batch_costs_nothing_but_time(void **state)
{
    (void)state;
    struct cuda_scene scene;
    struct mv_run runs[4];
    cuda_scene_init(&scene, 8, 8);
    cuda_scene_open(&scene);
    mv_store_each(&scene.rig, runs, KVB_TIER_DEVICE, 1, 4);
    fake_cuda_fail_descriptor(2, cudaErrorInvalidValue);
    for (uint32_t i = 4; i-- > 0;) /* backwards: nothing is adjacent */
        mv_offer(&scene.rig, runs[i].blocks[0], 50);
    mv_step(&scene.rig);
    assert_int_equal(down(&scene).transferred, 4);
    for (uint32_t i = 0; i < 4; i++)
        mv_drop(&scene.rig, &runs[i]);
    mv_evict_all(&scene.rig, KVB_TIER_DEVICE);
    for (uint32_t i = 0; i < 4; i++)
        mv_expect_in(&scene.rig, &runs[i], KVB_TIER_HOST);
    cuda_scene_close(&scene);
}

static void test_flight_whose_end_cannot_be_recorded_is_not_believed(void **state)
{
    (void)state;
    struct cuda_scene scene;
    struct mv_run run;
    cuda_scene_init(&scene, 4, 4);
    cuda_scene_open(&scene);
    mv_store(&scene.rig, &run, KVB_TIER_DEVICE, 1, 2);
    fake_cuda_fail("cudaEventRecord", 1, cudaErrorMemoryAllocation, FAKE_CUDA_ONCE);
    offer_all(&scene, &run);
    assert_int_equal(down(&scene).failed_transfer, 2);
    offer_all(&scene, &run);
    assert_int_equal(down(&scene).transferred, 2);
    mv_drop(&scene.rig, &run);
    cuda_scene_close(&scene);
}

static void test_fence_that_cannot_be_waited_for_fails_the_copy(void **state)
{
    (void)state;
    struct cuda_scene scene;
    struct mv_run run;
    cuda_scene_init(&scene, 4, 4);
    cuda_scene_open(&scene);
    fake_cuda_hold(scene.server);
    struct kvb_fence fence = cuda_scene_fence(&scene);
    cuda_scene_store(&scene, &run, 1, 1, &fence);
    fake_cuda_fail("cudaStreamWaitEvent", 1, cudaErrorInvalidResourceHandle, FAKE_CUDA_ONCE);
    mv_offer(&scene.rig, run.blocks[0], 50);
    mv_step(&scene.rig);
    fake_cuda_release(scene.server);
    mv_step(&scene.rig);
    assert_int_equal(down(&scene).failed_transfer, 1);
    mv_drop(&scene.rig, &run);
    cuda_scene_close(&scene);
}

static void test_fence_that_cannot_be_recorded_changes_nothing(void **state)
{
    (void)state;
    struct cuda_scene scene;
    struct kvb_block *block = NULL;
    cuda_scene_init(&scene, 4, 4);
    cuda_scene_open(&scene);
    struct kvb_fence fence = cuda_scene_fence(&scene);
    fake_cuda_fail("cudaEventRecord", 1, cudaErrorInvalidResourceHandle, FAKE_CUDA_ONCE);
    kv_expect(kvb_alloc(scene.rig.kv, KVB_TIER_DEVICE, 1, &fence, &block, NULL), KVB_EINVAL);
    assert_null(block);
    assert_int_equal(cudaPeekAtLastError(), cudaSuccess);
    kv_ok(kvb_alloc(scene.rig.kv, KVB_TIER_DEVICE, 1, &fence, &block, NULL));
    kv_unref(&scene.rig, block);
    cuda_scene_close(&scene);
}

/* ---- The whole context -------------------------------------------------------------------------------------------- */

static size_t times_logged(const struct kv_log *log, const char *text)
{
    size_t times = 0;
    for (size_t i = 0; i < (log->count < KV_LOG_MAX ? log->count : KV_LOG_MAX); i++)
        times += strstr(log->lines[i].text, text) != NULL;
    return times;
}

/* Destroy works with a context that is lost. */
static void close_lost(struct cuda_scene *scene)
{
    cuda_scene_close_lost(scene, &scene->rig.kv->pipeline.tiers[KVB_TIER_HOST]);
}

static void test_lost_context_takes_the_tier_out_of_service_and_the_rest_goes_on(void **state)
{
    (void)state;
    struct cuda_scene scene;
    struct mv_run run, below;
    struct kvb_block *block = NULL;
    cuda_scene_init(&scene, 8, 8);
    cuda_scene_open(&scene);
    mv_park(&scene.rig, &below, KVB_TIER_HOST, 2, 2);
    mv_store(&scene.rig, &run, KVB_TIER_DEVICE, 1, 4);
    for (uint32_t i = 0; i < 4; i++)
        mv_offer(&scene.rig, run.blocks[i], 50);
    fake_cuda_hold(NULL);
    assert_int_equal(kvb_manager_poll(scene.rig.kv, KVB_FOREVER), 0);
    fake_cuda_break_device(0, cudaErrorLaunchFailure);
    fake_cuda_release(NULL);
    mv_step(&scene.rig);
    assert_int_equal(kv_stats(&scene.rig).tiers[KVB_TIER_DEVICE].out_of_service, 1);
    assert_int_equal(down(&scene).failed_transfer, 4);
    mv_expect_books(&scene.rig, true);
    assert_int_equal(mv_found(&scene.rig, &run), 0);
    assert_int_equal(mv_event_count(&scene.rig, KVB_EVENT_REMOVED, KVB_TIER_DEVICE), 4);
    assert_int_equal(mv_in_tier(&scene.rig, &below, KVB_TIER_HOST), 2);
    kv_expect(kvb_alloc(scene.rig.kv, KVB_TIER_DEVICE, 1, NULL, &block, NULL), KVB_EDEVICE);
    kv_ok(kvb_alloc(scene.rig.kv, KVB_TIER_HOST, 1, NULL, &block, NULL));
    kv_unref(&scene.rig, block);
    kv_ok(kvb_block_unref(scene.rig.kv, run.blocks, 4, NULL));
    mv_step(&scene.rig);
    assert_int_equal(times_logged(&scene.rig.log, "tier DEVICE is out of service"), 1);
    assert_true(kv_log_has(&scene.rig.log, "cudaErrorLaunchFailure (719)"));
    close_lost(&scene);
}

static void test_context_that_breaks_in_the_middle_of_a_copy_publishes_nothing(void **state)
{
    (void)state;
    struct cuda_scene scene;
    struct mv_run run;
    struct mv_done done;
    cuda_scene_init(&scene, 8, 8);
    cuda_scene_open(&scene);
    mv_park(&scene.rig, &run, KVB_TIER_HOST, 1, 4);
    struct kvb_op *op = mv_bring_up(&scene.rig, &run, KVB_TIER_DEVICE, &done);
    fake_cuda_break_in_copy(1, cudaErrorIllegalAddress);
    mv_step(&scene.rig);
    assert_int_equal(done.calls, 1);
    assert_int_equal(done.good_count, 0);
    assert_int_equal(mv_in_tier(&scene.rig, &run, KVB_TIER_HOST), 4);
    kv_ok(kvb_op_release(scene.rig.kv, op));
    close_lost(&scene);
}

/* A copy engine may be in the middle of them: what HOST put there next would not be what it serves. */
static void test_host_blocks_that_a_lost_gpu_may_still_write_are_not_used_again(void **state)
{
    (void)state;
    struct cuda_scene scene;
    struct mv_run run;
    struct kvb_block *block = NULL;
    cuda_scene_init(&scene, 4, 3);
    cuda_scene_open(&scene);
    mv_store(&scene.rig, &run, KVB_TIER_DEVICE, 1, 2);
    fake_cuda_hold(NULL);
    for (uint32_t i = 0; i < 2; i++)
        mv_offer(&scene.rig, run.blocks[i], 50);
    assert_int_equal(kvb_manager_poll(scene.rig.kv, KVB_FOREVER), 0);
    fake_cuda_break_device(0, cudaErrorLaunchFailure);
    mv_step(&scene.rig);
    assert_int_equal(down(&scene).failed_transfer, 2);
    assert_int_equal(kv_stats(&scene.rig).tiers[KVB_TIER_HOST].retired_count, 2);
    kv_ok(kvb_alloc(scene.rig.kv, KVB_TIER_HOST, 1, NULL, &block, NULL));
    kv_unref(&scene.rig, block);
    kv_ok(kvb_block_unref(scene.rig.kv, run.blocks, 2, NULL));
    close_lost(&scene);
}

static void test_host_blocks_behind_buffers_are_used_on_when_the_gpu_is_lost(void **state)
{
    (void)state;
    struct cuda_scene scene;
    struct mv_run run;
    cuda_scene_init(&scene, 4, 3);
    fake_cuda_fail("cudaHostRegister", 1, cudaErrorMemoryAllocation, FAKE_CUDA_FOR_EVER);
    cuda_scene_open(&scene);
    mv_store(&scene.rig, &run, KVB_TIER_DEVICE, 1, 2);
    fake_cuda_hold(NULL);
    for (uint32_t i = 0; i < 2; i++)
        mv_offer(&scene.rig, run.blocks[i], 50);
    assert_int_equal(kvb_manager_poll(scene.rig.kv, KVB_FOREVER), 0);
    fake_cuda_break_device(0, cudaErrorLaunchFailure);
    mv_step(&scene.rig);
    assert_int_equal(down(&scene).failed_transfer, 2);
    assert_int_equal(kv_stats(&scene.rig).tiers[KVB_TIER_HOST].retired_count, 0);
    kv_ok(kvb_block_unref(scene.rig.kv, run.blocks, 2, NULL));
    scene.server = NULL; /* went with its context */
    cuda_scene_close(&scene);
}

/* An answer that no list has: the GPU is lost, and the memory is not given away before its stream says that the copy is over. */
static void test_event_that_cannot_be_asked_loses_the_gpu_and_keeps_the_memory(void **state)
{
    (void)state;
    struct cuda_scene scene;
    struct mv_run run;
    struct kvb_block *block = NULL;
    cuda_scene_init(&scene, 4, 1);
    cuda_scene_open(&scene);
    mv_store(&scene.rig, &run, KVB_TIER_DEVICE, 1, 1);
    fake_cuda_hold(NULL);
    mv_offer(&scene.rig, run.blocks[0], 50);
    assert_int_equal(kvb_manager_poll(scene.rig.kv, KVB_FOREVER), 0);
    fake_cuda_fail("cudaEventQuery", 1, cudaErrorNotPermitted, FAKE_CUDA_ONCE);
    mv_step(&scene.rig);
    assert_int_equal(kv_stats(&scene.rig).tiers[KVB_TIER_DEVICE].out_of_service, 1);
    assert_true(kv_log_has(&scene.rig.log, "cudaErrorNotPermitted"));
    kv_expect(kvb_alloc(scene.rig.kv, KVB_TIER_HOST, 1, NULL, &block, NULL), KVB_EAGAIN);
    fake_cuda_release(NULL);
    mv_step(&scene.rig);
    assert_int_equal(down(&scene).failed_transfer, 1);
    kv_ok(kvb_alloc(scene.rig.kv, KVB_TIER_HOST, 1, NULL, &block, NULL));
    kv_unref(&scene.rig, block);
    kv_ok(kvb_block_unref(scene.rig.kv, run.blocks, 1, NULL));
    fake_cuda_break_device(
        0, cudaErrorLaunchFailure); /* so that what destroy leaves there is none of its leaks */
    close_lost(&scene);
}

static void test_fence_is_told_of_a_lost_context_first(void **state)
{
    (void)state;
    struct cuda_scene scene;
    struct kvb_block *block = NULL;
    cuda_scene_init(&scene, 4, 4);
    cuda_scene_open(&scene);
    struct kvb_fence fence = cuda_scene_fence(&scene);
    fake_cuda_break_device(0, cudaErrorIllegalAddress);
    kv_expect(kvb_alloc(scene.rig.kv, KVB_TIER_DEVICE, 1, &fence, &block, NULL), KVB_EDEVICE);
    mv_step(&scene.rig);
    assert_int_equal(kv_stats(&scene.rig).tiers[KVB_TIER_DEVICE].out_of_service, 1);
    assert_int_equal(times_logged(&scene.rig.log, "tier DEVICE is out of service"), 1);
    close_lost(&scene);
}

/* Whoever sees it first, progress takes the tier out of service: a server that sleeps on the descriptor is woken for it. */
static void test_stream_that_is_told_of_a_lost_context_first_wakes_progress(void **state)
{
    (void)state;
    struct cuda_scene scene;
    struct mv_run run;
    struct mv_done done;
    cuda_scene_init(&scene, 4, 4);
    cuda_scene_open(&scene);
    mv_park(&scene.rig, &run, KVB_TIER_HOST, 1, 1);
    struct kvb_op *op = mv_bring_up(&scene.rig, &run, KVB_TIER_DEVICE, &done);
    mv_step(&scene.rig);
    assert_int_equal(done.calls, 1);
    uint64_t timeout_ns = 0;
    kv_ok(kvb_manager_next_timeout(scene.rig.kv, &timeout_ns));
    assert_int_not_equal(timeout_ns, 0);
    fake_cuda_break_device(0, cudaErrorLaunchFailure);
    kv_expect(kvb_op_wait_stream(scene.rig.kv, op, scene.server, KVB_ALL_LAYERS), KVB_EDEVICE);
    kv_ok(kvb_manager_next_timeout(scene.rig.kv, &timeout_ns));
    assert_int_equal(timeout_ns, 0);
    kv_poll_here_at(__FILE__, __LINE__, &scene.rig);
    assert_int_equal(kv_stats(&scene.rig).tiers[KVB_TIER_DEVICE].out_of_service, 1);
    kv_ok(kvb_op_release(scene.rig.kv, op));
    close_lost(&scene);
}

static void test_call_that_finds_the_context_lost_wakes_progress(void **state)
{
    (void)state;
    struct cuda_scene scene;
    struct mv_run run;
    struct kvb_block *block = NULL;
    uint64_t timeout_ns = 0;
    cuda_scene_init(&scene, 4, 4);
    cuda_scene_open(&scene);
    mv_store(&scene.rig, &run, KVB_TIER_DEVICE, 1, 1);
    mv_step(&scene.rig);
    (void)kvbi_cuda_check_own(
        &(struct kvbi_cuda_scope){.cuda =
                                      kvbi_cuda_of(&scene.rig.kv->pipeline.tiers[KVB_TIER_DEVICE])},
        cudaErrorLaunchFailure); /* as some thread's call has seen it that nobody was told of */
    kv_expect(kvb_alloc(scene.rig.kv, KVB_TIER_DEVICE, 1, NULL, &block, NULL), KVB_EDEVICE);
    kv_ok(kvb_manager_next_timeout(scene.rig.kv, &timeout_ns));
    assert_int_equal(timeout_ns, 0);
    mv_step(&scene.rig);
    assert_int_equal(kv_stats(&scene.rig).tiers[KVB_TIER_DEVICE].out_of_service, 1);
    kv_ok(kvb_block_unref(scene.rig.kv, run.blocks, 1, NULL));
    fake_cuda_break_device(0, cudaErrorLaunchFailure);
    close_lost(&scene);
}

static void test_op_on_a_lost_context_ends_and_its_stream_is_told(void **state)
{
    (void)state;
    struct cuda_scene scene;
    struct mv_run run;
    struct mv_done done;
    cuda_scene_init(&scene, 4, 4);
    cuda_scene_open(&scene);
    mv_park(&scene.rig, &run, KVB_TIER_HOST, 1, 1);
    struct kvb_op *op = mv_bring_up(&scene.rig, &run, KVB_TIER_DEVICE, &done);
    fake_cuda_hold(NULL);
    assert_int_equal(kvb_manager_poll(scene.rig.kv, KVB_FOREVER), 0);
    fake_cuda_break_device(0, cudaErrorLaunchFailure);
    kv_expect(kvb_op_wait_stream(scene.rig.kv, op, scene.server, KVB_ALL_LAYERS), KVB_EDEVICE);
    mv_step(&scene.rig);
    assert_int_equal(done.calls, 1);
    assert_int_equal(done.good_count, 0);
    kv_ok(kvb_op_release(scene.rig.kv, op));
    close_lost(&scene);
}

/* The server has two, and hands over a stream of the one that is not the tier's. */
static void test_gpu_that_breaks_beside_ours_costs_ours_nothing(void **state)
{
    (void)state;
    struct cuda_scene scene;
    struct mv_run run;
    struct mv_done done;
    struct kvb_block *block = NULL;
    cudaStream_t other;
    kv_device_config.devices = 2;
    cuda_scene_init(&scene, 4, 4);
    kv_device_config.devices = 0;
    cuda_scene_open(&scene);
    cuda_ok(cudaSetDevice(1));
    cuda_ok(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    cuda_ok(cudaSetDevice(0));
    mv_park(&scene.rig, &run, KVB_TIER_HOST, 1, 1);
    struct kvb_op *op = mv_bring_up(&scene.rig, &run, KVB_TIER_DEVICE, &done);
    fake_cuda_break_device(1, cudaErrorIllegalAddress);
    assert_int_equal(kvb_manager_poll(scene.rig.kv, KVB_FOREVER), 0);
    struct kvb_fence fence = {.kind = KVB_FENCE_CUDA_STREAM, .handle = (uint64_t)(uintptr_t)other};
    kv_expect(kvb_op_wait_stream(scene.rig.kv, op, other, KVB_ALL_LAYERS), KVB_EINVAL);
    kv_expect(kvb_alloc(scene.rig.kv, KVB_TIER_DEVICE, 1, &fence, &block, NULL), KVB_EINVAL);
    mv_step(&scene.rig);
    assert_int_equal(kv_stats(&scene.rig).tiers[KVB_TIER_DEVICE].out_of_service, 0);
    assert_int_equal(mv_take(&scene.rig, &run, op), 1);
    mv_drop_taken(&scene.rig, &run);
    cuda_scene_close(&scene);
}

static void test_memory_freed_under_us_is_said_and_takes_the_tier_out_of_service(void **state)
{
    (void)state;
    struct cuda_scene scene;
    struct mv_run run;
    void *memory = NULL;
    cuda_scene_init(&scene, 4, 4);
    cuda_ok(cudaMalloc(&memory, 4 * 256));
    scene.rig.tiers[0].memory_kind = KVB_MEMORY_CUDA;
    scene.rig.tiers[0].copy_method = KVB_COPY_BATCH;
    scene.rig.tiers[0].memory = memory;
    scene.rig.tiers[0].memory_bytes = 4 * 256;
    cuda_scene_open(&scene);
    mv_store(&scene.rig, &run, KVB_TIER_DEVICE, 1, 2);
    cuda_ok(cudaFree(memory));
    offer_all(&scene, &run);
    assert_int_equal(down(&scene).failed_transfer, 2);
    assert_int_equal(kv_stats(&scene.rig).tiers[KVB_TIER_DEVICE].out_of_service, 1);
    assert_true(kv_log_has(&scene.rig.log, "freed while in use"));
    assert_true(fake_cuda_take_reports(FAKE_CUDA_FREED) > 0);
    kv_ok(kvb_block_unref(scene.rig.kv, run.blocks, 2, NULL));
    cuda_scene_close(&scene);
}

static void test_stalled_stream_ends_the_operation_and_keeps_the_memory(void **state)
{
    (void)state;
    struct cuda_scene scene;
    struct mv_run run;
    struct mv_done done;
    struct kvb_block *target = NULL;
    struct kvb_op *op = NULL;
    cuda_scene_init(&scene, 1, 4);
    cuda_scene_open(&scene);
    mv_park(&scene.rig, &run, KVB_TIER_HOST, 1, 1);
    assert_int_equal(mv_match(&scene.rig, &run), 1);
    kv_ok(kvb_alloc(scene.rig.kv, KVB_TIER_DEVICE, 1, NULL, &target, NULL));
    struct kvb_onboard request = mv_request(run.blocks, &target, 1, &done);
    request.timeout_ns = KV_SECOND;
    kv_ok(kvb_onboard(scene.rig.kv, &request, &op));
    mv_drop(&scene.rig, &run);
    fake_cuda_hold(NULL);
    mv_step(&scene.rig);
    kv_advance(&scene.rig, 2 * KV_SECOND);
    mv_step(&scene.rig);
    assert_int_equal(done.status, KVB_ETIMEDOUT);
    kv_expect(kvb_alloc(scene.rig.kv, KVB_TIER_DEVICE, 1, NULL, &target, NULL), KVB_EAGAIN);
    fake_cuda_release(NULL);
    mv_step(&scene.rig);
    kv_ok(kvb_op_release(scene.rig.kv, op));
    kv_ok(kvb_alloc(scene.rig.kv, KVB_TIER_DEVICE, 1, NULL, &target, NULL));
    kv_unref(&scene.rig, target);
    cuda_scene_close(&scene);
}

/* ---- The server's own state --------------------------------------------------------------------------------------- */

static void test_pending_error_of_the_server_is_still_pending_afterwards(void **state)
{
    (void)state;
    struct cuda_scene scene;
    struct mv_run run;
    cuda_scene_init(&scene, 4, 4);
    cuda_scene_open(&scene);
    struct kvb_fence fence = cuda_scene_fence(&scene);
    assert_int_equal(cudaSetDevice(99),
                     cudaErrorInvalidDevice); /* as the server would, and it does not look yet */
    cuda_scene_store(&scene, &run, 1, 2, &fence);
    offer_all(&scene, &run);
    assert_int_equal(down(&scene).transferred, 2);
    assert_int_not_equal(cudaGetLastError(), cudaSuccess);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    mv_drop(&scene.rig, &run);
    cuda_scene_close(&scene);
}

static void test_no_error_of_ours_is_left(void **state)
{
    (void)state;
    struct cuda_scene scene;
    struct mv_run run;
    cuda_scene_init(&scene, 4, 4);
    cuda_scene_open(&scene);
    mv_store(&scene.rig, &run, KVB_TIER_DEVICE, 1, 2);
    fake_cuda_hold(NULL);
    for (uint32_t i = 0; i < 2; i++)
        mv_offer(&scene.rig, run.blocks[i], 50);
    assert_int_equal(kvb_manager_poll(scene.rig.kv, KVB_FOREVER),
                     0); /* asks an event that is not ready */
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    fake_cuda_release(NULL);
    mv_step(&scene.rig);
    mv_drop(&scene.rig, &run);
    cuda_scene_close(&scene);
}

static void test_current_device_stays_and_other_gpus_get_no_context(void **state)
{
    (void)state;
    struct cuda_scene scene;
    struct mv_run run;
    int device = -1;
    kv_device_config.devices = 3;
    cuda_scene_init(&scene, 4, 4);
    kv_device_config.devices = 0;
    scene.rig.tiers[0].device = 2;
    kv_rig_open(&scene.rig);
    mv_store(&scene.rig, &run, KVB_TIER_DEVICE, 1, 2);
    offer_all(&scene, &run);
    assert_int_equal(down(&scene).transferred, 2);
    cuda_ok(cudaGetDevice(&device));
    assert_int_equal(device, 0);
    assert_false(fake_cuda_has_context(0));
    assert_false(fake_cuda_has_context(1));
    assert_true(fake_cuda_has_context(2));
    mv_drop(&scene.rig, &run);
    cuda_scene_close(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copy_that_cannot_be_enqueued_fails_its_block_alone),
        cmocka_unit_test(test_failed_descriptor_of_a_batch_costs_nothing_but_time),
        cmocka_unit_test(test_flight_whose_end_cannot_be_recorded_is_not_believed),
        cmocka_unit_test(test_fence_that_cannot_be_waited_for_fails_the_copy),
        cmocka_unit_test(test_fence_that_cannot_be_recorded_changes_nothing),
        cmocka_unit_test(test_lost_context_takes_the_tier_out_of_service_and_the_rest_goes_on),
        cmocka_unit_test(test_context_that_breaks_in_the_middle_of_a_copy_publishes_nothing),
        cmocka_unit_test(test_host_blocks_that_a_lost_gpu_may_still_write_are_not_used_again),
        cmocka_unit_test(test_host_blocks_behind_buffers_are_used_on_when_the_gpu_is_lost),
        cmocka_unit_test(test_event_that_cannot_be_asked_loses_the_gpu_and_keeps_the_memory),
        cmocka_unit_test(test_fence_is_told_of_a_lost_context_first),
        cmocka_unit_test(test_call_that_finds_the_context_lost_wakes_progress),
        cmocka_unit_test(test_stream_that_is_told_of_a_lost_context_first_wakes_progress),
        cmocka_unit_test(test_op_on_a_lost_context_ends_and_its_stream_is_told),
        cmocka_unit_test(test_gpu_that_breaks_beside_ours_costs_ours_nothing),
        cmocka_unit_test(test_memory_freed_under_us_is_said_and_takes_the_tier_out_of_service),
        cmocka_unit_test(test_stalled_stream_ends_the_operation_and_keeps_the_memory),
        cmocka_unit_test(test_pending_error_of_the_server_is_still_pending_afterwards),
        cmocka_unit_test(test_no_error_of_ours_is_left),
        cmocka_unit_test(test_current_device_stays_and_other_gpus_get_no_context),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
