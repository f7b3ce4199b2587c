/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What goes wrong on a GPU: a copy fails alone, a lost context takes the tier out of service and
 * says so once, and the server's own state in the runtime is left as it was.
 */
#include "support/cuda_scene.h"
#include "transfer/cuda/cuda.h"
#include "transfer/cuda/device.h"

/* ---- One copy -------------------------------------------------------------------------------- */

static void offer_all(struct cuda_scene *scene, struct mv_run *run)
{
    cuda_scene_offer(scene, run);
    mv_step(&scene->rig);
}

static void test_copy_that_cannot_be_enqueued_fails_its_block_alone(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    mv_store(rig, &run, KVB_TIER_DEVICE, 1, 4);
    fake_cuda_fail("cudaMemcpyBatchAsync", 1, cudaErrorInvalidValue, FAKE_CUDA_ONCE);
    fake_cuda_fail("cudaMemcpyAsync", 3, cudaErrorInvalidValue, FAKE_CUDA_ONCE);
    offer_all(scene, &run);
    assert_int_equal(cuda_scene_down(scene).failed_transfer, 1);
    assert_int_equal(cuda_scene_down(scene).transferred, 3);
    assert_int_equal(cudaPeekAtLastError(), cudaSuccess);
    mv_drop(rig, &run);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    assert_int_equal(mv_in_tier(rig, &run, KVB_TIER_HOST), 2);
}

static void test_failed_descriptor_of_a_batch_costs_nothing_but_time(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run runs[4];
    cuda_scene_open_tiers(scene, 8, 8);
    mv_store_each(rig, runs, KVB_TIER_DEVICE, 1, 4);
    fake_cuda_fail_descriptor(2, cudaErrorInvalidValue);
    for (uint32_t i = 4; i-- > 0;) /* backwards: nothing is adjacent */
        mv_offer(rig, runs[i].blocks[0], 50);
    mv_step(rig);
    assert_int_equal(cuda_scene_down(scene).transferred, 4);
    for (uint32_t i = 0; i < 4; i++)
        mv_drop(rig, &runs[i]);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    for (uint32_t i = 0; i < 4; i++)
        mv_expect_in(rig, &runs[i], KVB_TIER_HOST);
}

static void test_flight_whose_end_cannot_be_recorded_is_not_believed(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    mv_store(rig, &run, KVB_TIER_DEVICE, 1, 2);
    fake_cuda_fail("cudaEventRecord", 1, cudaErrorMemoryAllocation, FAKE_CUDA_ONCE);
    offer_all(scene, &run);
    assert_int_equal(cuda_scene_down(scene).failed_transfer, 2);
    offer_all(scene, &run);
    assert_int_equal(cuda_scene_down(scene).transferred, 2);
    mv_drop(rig, &run);
}

static void test_fence_that_cannot_be_waited_for_fails_the_copy(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    fake_cuda_hold(scene->server);
    struct kvb_fence fence = cuda_scene_fence(scene);
    cuda_scene_store(scene, &run, 1, 1, &fence);
    fake_cuda_fail("cudaStreamWaitEvent", 1, cudaErrorInvalidResourceHandle, FAKE_CUDA_ONCE);
    mv_offer(rig, run.blocks[0], 50);
    mv_step(rig);
    fake_cuda_release(scene->server);
    mv_step(rig);
    assert_int_equal(cuda_scene_down(scene).failed_transfer, 1);
    mv_drop(rig, &run);
}

static void test_fence_that_cannot_be_recorded_changes_nothing(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct kvb_block *block = NULL;
    struct kvb_fence fence = cuda_scene_fence(scene);
    fake_cuda_fail("cudaEventRecord", 1, cudaErrorInvalidResourceHandle, FAKE_CUDA_ONCE);
    kv_expect(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, &fence, &block, NULL), KVB_EINVAL);
    assert_null(block);
    assert_int_equal(cudaPeekAtLastError(), cudaSuccess);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, &fence, &block, NULL));
    kv_unref(rig, block);
}

/* ---- The whole context ----------------------------------------------------------------------- */

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
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run, below;
    struct kvb_block *block = NULL;
    cuda_scene_open_tiers(scene, 8, 8);
    mv_park(rig, &below, KVB_TIER_HOST, 2, 2);
    mv_store(rig, &run, KVB_TIER_DEVICE, 1, 4);
    cuda_scene_offer(scene, &run);
    fake_cuda_hold(NULL);
    assert_int_equal(kvb_manager_poll(rig->kv, KVB_FOREVER), 0);
    fake_cuda_break_device(0, cudaErrorLaunchFailure);
    fake_cuda_release(NULL);
    mv_step(rig);
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_DEVICE].out_of_service, 1);
    assert_int_equal(cuda_scene_down(scene).failed_transfer, 4);
    mv_expect_books(rig, true);
    assert_int_equal(mv_found(rig, &run), 0);
    assert_int_equal(mv_event_count(rig, KVB_EVENT_REMOVED, KVB_TIER_DEVICE), 4);
    assert_int_equal(mv_in_tier(rig, &below, KVB_TIER_HOST), 2);
    kv_expect(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, NULL, &block, NULL), KVB_EDEVICE);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_HOST, 1, NULL, &block, NULL));
    kv_unref(rig, block);
    kv_ok(kvb_block_unref(rig->kv, run.blocks, 4, NULL));
    mv_step(rig);
    assert_int_equal(times_logged(&rig->log, "tier DEVICE is out of service"), 1);
    assert_true(kv_log_has(&rig->log, "cudaErrorLaunchFailure (719)"));
    close_lost(scene);
}

/* More than may be with the engine: nobody will say any more that their fence is reached. */
static void test_offers_that_wait_for_a_fence_end_with_the_context(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    cuda_scene_open_tiers(scene, 64, 64);
    struct kvb_fence fence = cuda_scene_fence(scene);
    fake_cuda_hold(scene->server);
    cuda_scene_store(scene, &run, 1, 50, &fence);
    cuda_scene_offer(scene, &run);
    mv_step(rig);
    assert_int_equal(cuda_scene_down(scene).pending, 50);
    assert_true(cuda_scene_down(scene).queued > 0);
    fake_cuda_break_device(0, cudaErrorLaunchFailure);
    mv_step(rig);
    assert_int_equal(cuda_scene_down(scene).pending, 0);
    kv_flush(rig);
    mv_drop(rig, &run);
    close_lost(scene);
}

static void test_operations_that_wait_for_a_fence_end_with_the_context(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    struct mv_done done;
    struct kvb_block *targets[50];
    struct kvb_op *op = NULL;
    cuda_scene_open_tiers(scene, 64, 64);
    mv_park(rig, &run, KVB_TIER_HOST, 1, 50);
    struct kvb_fence fence = cuda_scene_fence(scene);
    fake_cuda_hold(scene->server);
    cuda_scene_attend(scene, run.blocks[0] = kv_alloc(rig, KVB_TIER_DEVICE));
    kv_unref(rig, run.blocks[0]);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 50, &fence, targets, NULL));
    assert_int_equal(mv_match(rig, &run), 50);
    struct kvb_onboard request = mv_request(run.blocks, targets, 50, &done);
    kv_ok(kvb_onboard(rig->kv, &request, &op));
    mv_drop(rig, &run);
    mv_step(rig);
    assert_int_equal(done.calls, 0);
    assert_true(mv_up(rig).queued > 0);
    fake_cuda_break_device(0, cudaErrorLaunchFailure);
    mv_step(rig);
    assert_int_equal(done.calls, 1);
    assert_int_equal(done.good_count, 0);
    kv_ok(kvb_op_release(rig->kv, op));
    close_lost(scene);
}

/* In front of a lane with one place, for a counter that nobody will signal any more. */
static void test_operation_that_waits_for_a_counter_ends_with_the_context(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    struct mv_done done;
    struct kvb_block *target = NULL;
    struct kvb_fence never = {.kind = KVB_FENCE_COUNTER, .line = 3, .handle = 7};
    cuda_scene_init(scene, 4, 4);
    mv_bounds(rig, 0, 1, 1, 1, 64);
    cuda_scene_open(scene);
    mv_park(rig, &run, KVB_TIER_HOST, 1, 1);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, &never, &target, NULL));
    struct kvb_op *op = mv_bring_with_priority(rig, &run, target, 50, &done);
    mv_step(rig);
    assert_int_equal(done.calls, 0);
    fake_cuda_break_device(0, cudaErrorLaunchFailure);
    kv_expect(kvb_op_wait_stream(rig->kv, op, scene->server, KVB_ALL_LAYERS), KVB_EAGAIN);
    struct kvb_fence fence = cuda_scene_fence(scene);
    kv_expect(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, &fence, &target, NULL), KVB_EDEVICE);
    mv_step(rig);
    assert_int_equal(done.calls, 1);
    assert_int_equal(done.good_count, 0);
    kv_ok(kvb_op_release(rig->kv, op));
    close_lost(scene);
}

static void test_context_that_breaks_in_the_middle_of_a_copy_publishes_nothing(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    struct mv_done done;
    cuda_scene_open_tiers(scene, 8, 8);
    mv_park(rig, &run, KVB_TIER_HOST, 1, 4);
    struct kvb_op *op = mv_bring_up(rig, &run, KVB_TIER_DEVICE, &done);
    fake_cuda_break_in_copy(1, cudaErrorIllegalAddress);
    mv_step(rig);
    assert_int_equal(done.calls, 1);
    assert_int_equal(done.good_count, 0);
    assert_int_equal(mv_in_tier(rig, &run, KVB_TIER_HOST), 4);
    kv_ok(kvb_op_release(rig->kv, op));
    close_lost(scene);
}

/*
 * A copy engine may be in the middle of them: what HOST put there next would not be what it serves.
 */
static void test_host_blocks_that_a_lost_gpu_may_still_write_are_not_used_again(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    struct kvb_block *block = NULL;
    cuda_scene_open_tiers(scene, 4, 3);
    mv_store(rig, &run, KVB_TIER_DEVICE, 1, 2);
    fake_cuda_hold(NULL);
    cuda_scene_offer(scene, &run);
    assert_int_equal(kvb_manager_poll(rig->kv, KVB_FOREVER), 0);
    fake_cuda_break_device(0, cudaErrorLaunchFailure);
    mv_step(rig);
    assert_int_equal(cuda_scene_down(scene).failed_transfer, 2);
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_HOST].retired_count, 2);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_HOST, 1, NULL, &block, NULL));
    kv_unref(rig, block);
    kv_ok(kvb_block_unref(rig->kv, run.blocks, 2, NULL));
    close_lost(scene);
}

static void test_host_blocks_behind_buffers_are_used_on_when_the_gpu_is_lost(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    cuda_scene_init(scene, 4, 3);
    fake_cuda_fail("cudaHostRegister", 1, cudaErrorMemoryAllocation, FAKE_CUDA_FOR_EVER);
    cuda_scene_open(scene);
    mv_store(rig, &run, KVB_TIER_DEVICE, 1, 2);
    fake_cuda_hold(NULL);
    cuda_scene_offer(scene, &run);
    assert_int_equal(kvb_manager_poll(rig->kv, KVB_FOREVER), 0);
    fake_cuda_break_device(0, cudaErrorLaunchFailure);
    mv_step(rig);
    assert_int_equal(cuda_scene_down(scene).failed_transfer, 2);
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_HOST].retired_count, 0);
    kv_ok(kvb_block_unref(rig->kv, run.blocks, 2, NULL));
    scene->server = NULL; /* went with its context */
}

/*
 * An answer that no list has: the GPU is lost, and the memory is not given away before its stream
 * says that the copy is over.
 */
static void test_event_that_cannot_be_asked_loses_the_gpu_and_keeps_the_memory(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    struct kvb_block *block = NULL;
    cuda_scene_open_tiers(scene, 4, 1);
    mv_store(rig, &run, KVB_TIER_DEVICE, 1, 1);
    fake_cuda_hold(NULL);
    mv_offer(rig, run.blocks[0], 50);
    assert_int_equal(kvb_manager_poll(rig->kv, KVB_FOREVER), 0);
    fake_cuda_fail("cudaEventQuery", 1, cudaErrorNotPermitted, FAKE_CUDA_ONCE);
    mv_step(rig);
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_DEVICE].out_of_service, 0);
    kv_advance(rig, KV_MS); /* so often events are asked */
    mv_step(rig);
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_DEVICE].out_of_service, 1);
    assert_true(kv_log_has(&rig->log, "cudaErrorNotPermitted"));
    kv_expect(kvb_alloc(rig->kv, KVB_TIER_HOST, 1, NULL, &block, NULL), KVB_EAGAIN);
    fake_cuda_release(NULL);
    mv_step(rig);
    assert_int_equal(cuda_scene_down(scene).failed_transfer, 1);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_HOST, 1, NULL, &block, NULL));
    kv_unref(rig, block);
    kv_ok(kvb_block_unref(rig->kv, run.blocks, 1, NULL));
    /* so that what destroy leaves there is none of its leaks */
    fake_cuda_break_device(0, cudaErrorLaunchFailure);
    close_lost(scene);
}

static void test_fence_is_told_of_a_lost_context_first(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct kvb_block *block = NULL;
    struct kvb_fence fence = cuda_scene_fence(scene);
    fake_cuda_break_device(0, cudaErrorIllegalAddress);
    kv_expect(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, &fence, &block, NULL), KVB_EDEVICE);
    mv_step(rig);
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_DEVICE].out_of_service, 1);
    assert_int_equal(times_logged(&rig->log, "tier DEVICE is out of service"), 1);
    close_lost(scene);
}

/*
 * Whoever sees it first, progress takes the tier out of service: a server that sleeps on the
 * descriptor is woken for it.
 */
static void test_stream_that_is_told_of_a_lost_context_first_wakes_progress(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    struct mv_done done;
    mv_park(rig, &run, KVB_TIER_HOST, 1, 1);
    struct kvb_op *op = mv_bring_up(rig, &run, KVB_TIER_DEVICE, &done);
    mv_step(rig);
    assert_int_equal(done.calls, 1);
    uint64_t timeout_ns = 0;
    kv_ok(kvb_manager_next_timeout(rig->kv, &timeout_ns));
    assert_int_not_equal(timeout_ns, 0);
    fake_cuda_break_device(0, cudaErrorLaunchFailure);
    kv_expect(kvb_op_wait_stream(rig->kv, op, scene->server, KVB_ALL_LAYERS), KVB_EDEVICE);
    kv_ok(kvb_manager_next_timeout(rig->kv, &timeout_ns));
    assert_int_equal(timeout_ns, 0);
    kv_poll_here_at(__FILE__, __LINE__, rig);
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_DEVICE].out_of_service, 1);
    kv_ok(kvb_op_release(rig->kv, op));
    close_lost(scene);
}

static void test_call_that_finds_the_context_lost_wakes_progress(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    struct kvb_block *block = NULL;
    uint64_t timeout_ns = 0;
    mv_store(rig, &run, KVB_TIER_DEVICE, 1, 1);
    mv_step(rig);
    (void)kvbi_cuda_check_own(
        &(struct kvbi_cuda_scope){.cuda = kvbi_cuda_of(&rig->kv->pipeline.tiers[KVB_TIER_DEVICE])},
        cudaErrorLaunchFailure); /* as some thread's call has seen it that nobody was told of */
    kv_expect(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, NULL, &block, NULL), KVB_EDEVICE);
    kv_ok(kvb_manager_next_timeout(rig->kv, &timeout_ns));
    assert_int_equal(timeout_ns, 0);
    mv_step(rig);
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_DEVICE].out_of_service, 1);
    kv_ok(kvb_block_unref(rig->kv, run.blocks, 1, NULL));
    fake_cuda_break_device(0, cudaErrorLaunchFailure);
    close_lost(scene);
}

static void test_op_on_a_lost_context_ends_and_its_stream_is_told(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    struct mv_done done;
    mv_park(rig, &run, KVB_TIER_HOST, 1, 1);
    struct kvb_op *op = mv_bring_up(rig, &run, KVB_TIER_DEVICE, &done);
    fake_cuda_hold(NULL);
    assert_int_equal(kvb_manager_poll(rig->kv, KVB_FOREVER), 0);
    fake_cuda_break_device(0, cudaErrorLaunchFailure);
    kv_expect(kvb_op_wait_stream(rig->kv, op, scene->server, KVB_ALL_LAYERS), KVB_EDEVICE);
    mv_step(rig);
    assert_int_equal(done.calls, 1);
    assert_int_equal(done.good_count, 0);
    kv_ok(kvb_op_release(rig->kv, op));
    close_lost(scene);
}

/* The server has two, and hands over a stream of the one that is not the tier's. */
static void test_gpu_that_breaks_beside_ours_costs_ours_nothing(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    struct mv_done done;
    struct kvb_block *block = NULL;
    cudaStream_t other;
    kv_device_config.devices = 2;
    cuda_scene_open_tiers(scene, 4, 4);
    cuda_ok(cudaSetDevice(1));
    cuda_ok(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    cuda_ok(cudaSetDevice(0));
    mv_park(rig, &run, KVB_TIER_HOST, 1, 1);
    struct kvb_op *op = mv_bring_up(rig, &run, KVB_TIER_DEVICE, &done);
    fake_cuda_break_device(1, cudaErrorIllegalAddress);
    assert_int_equal(kvb_manager_poll(rig->kv, KVB_FOREVER), 0);
    struct kvb_fence fence = {.kind = KVB_FENCE_CUDA_STREAM, .handle = (uint64_t)(uintptr_t)other};
    kv_expect(kvb_op_wait_stream(rig->kv, op, other, KVB_ALL_LAYERS), KVB_EINVAL);
    kv_expect(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, &fence, &block, NULL), KVB_EINVAL);
    mv_step(rig);
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_DEVICE].out_of_service, 0);
    assert_int_equal(mv_take(rig, &run, op), 1);
    mv_drop_taken(rig, &run);
}

static void test_memory_freed_under_us_is_said_and_takes_the_tier_out_of_service(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    cuda_scene_init(scene, 4, 4);
    void *memory = NULL;
    cuda_ok(cudaMalloc(&memory, 4 * 256));
    rig->tiers[0].memory_kind = KVB_MEMORY_CUDA;
    rig->tiers[0].copy_method = KVB_COPY_BATCH;
    rig->tiers[0].memory = memory;
    rig->tiers[0].memory_bytes = 4 * 256;
    cuda_scene_open(scene);
    mv_store(rig, &run, KVB_TIER_DEVICE, 1, 2);
    cuda_ok(cudaFree(memory));
    offer_all(scene, &run);
    assert_int_equal(cuda_scene_down(scene).failed_transfer, 2);
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_DEVICE].out_of_service, 1);
    assert_true(kv_log_has(&rig->log, "freed while in use"));
    assert_true(fake_cuda_take_reports(FAKE_CUDA_FREED) > 0);
    kv_ok(kvb_block_unref(rig->kv, run.blocks, 2, NULL));
}

static void test_stalled_stream_ends_the_operation_and_keeps_the_memory(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    struct mv_done done;
    struct kvb_block *target = NULL;
    struct kvb_op *op = NULL;
    cuda_scene_open_tiers(scene, 1, 4);
    mv_park(rig, &run, KVB_TIER_HOST, 1, 1);
    assert_int_equal(mv_match(rig, &run), 1);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, NULL, &target, NULL));
    struct kvb_onboard request = mv_request(run.blocks, &target, 1, &done);
    request.timeout_ns = KV_SECOND;
    kv_ok(kvb_onboard(rig->kv, &request, &op));
    mv_drop(rig, &run);
    fake_cuda_hold(NULL);
    mv_step(rig);
    kv_advance(rig, 2 * KV_SECOND);
    mv_step(rig);
    assert_int_equal(done.status, KVB_ETIMEDOUT);
    kv_expect(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, NULL, &target, NULL), KVB_EAGAIN);
    fake_cuda_release(NULL);
    mv_step(rig);
    kv_ok(kvb_op_release(rig->kv, op));
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, NULL, &target, NULL));
    kv_unref(rig, target);
}

/* ---- The server's own state ------------------------------------------------------------------ */

static void test_pending_error_of_the_server_is_still_pending_afterwards(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    struct kvb_fence fence = cuda_scene_fence(scene);
    /* as the server would, and it does not look yet */
    assert_int_equal(cudaSetDevice(99), cudaErrorInvalidDevice);
    cuda_scene_store(scene, &run, 1, 2, &fence);
    offer_all(scene, &run);
    assert_int_equal(cuda_scene_down(scene).transferred, 2);
    assert_int_not_equal(cudaGetLastError(), cudaSuccess);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    mv_drop(rig, &run);
}

static void test_no_error_of_ours_is_left(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    mv_store(rig, &run, KVB_TIER_DEVICE, 1, 2);
    fake_cuda_hold(NULL);
    cuda_scene_offer(scene, &run);
    /* asks an event that is not ready */
    assert_int_equal(kvb_manager_poll(rig->kv, KVB_FOREVER), 0);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    fake_cuda_release(NULL);
    mv_step(rig);
    mv_drop(rig, &run);
}

static void test_current_device_stays_and_other_gpus_get_no_context(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    int device = -1;
    kv_device_config.devices = 3;
    cuda_scene_init(scene, 4, 4);
    rig->tiers[0].device = 2;
    kv_rig_open(rig);
    mv_store(rig, &run, KVB_TIER_DEVICE, 1, 2);
    offer_all(scene, &run);
    assert_int_equal(cuda_scene_down(scene).transferred, 2);
    cuda_ok(cudaGetDevice(&device));
    assert_int_equal(device, 0);
    assert_false(fake_cuda_has_context(0));
    assert_false(fake_cuda_has_context(1));
    assert_true(fake_cuda_has_context(2));
    mv_drop(rig, &run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(cuda_opened, test_copy_that_cannot_be_enqueued_fails_its_block_alone),
        TEST(cuda_scene, test_failed_descriptor_of_a_batch_costs_nothing_but_time),
        TEST(cuda_opened, test_flight_whose_end_cannot_be_recorded_is_not_believed),
        TEST(cuda_opened, test_fence_that_cannot_be_waited_for_fails_the_copy),
        TEST(cuda_opened, test_fence_that_cannot_be_recorded_changes_nothing),
        TEST(cuda_scene, test_lost_context_takes_the_tier_out_of_service_and_the_rest_goes_on),
        TEST(cuda_scene, test_offers_that_wait_for_a_fence_end_with_the_context),
        TEST(cuda_scene, test_operations_that_wait_for_a_fence_end_with_the_context),
        TEST(cuda_scene, test_operation_that_waits_for_a_counter_ends_with_the_context),
        TEST(cuda_scene, test_context_that_breaks_in_the_middle_of_a_copy_publishes_nothing),
        TEST(cuda_scene, test_host_blocks_that_a_lost_gpu_may_still_write_are_not_used_again),
        TEST(cuda_scene, test_host_blocks_behind_buffers_are_used_on_when_the_gpu_is_lost),
        TEST(cuda_scene, test_event_that_cannot_be_asked_loses_the_gpu_and_keeps_the_memory),
        TEST(cuda_opened, test_fence_is_told_of_a_lost_context_first),
        TEST(cuda_opened, test_stream_that_is_told_of_a_lost_context_first_wakes_progress),
        TEST(cuda_opened, test_call_that_finds_the_context_lost_wakes_progress),
        TEST(cuda_opened, test_op_on_a_lost_context_ends_and_its_stream_is_told),
        TEST(cuda_scene, test_gpu_that_breaks_beside_ours_costs_ours_nothing),
        TEST(cuda_scene, test_memory_freed_under_us_is_said_and_takes_the_tier_out_of_service),
        TEST(cuda_scene, test_stalled_stream_ends_the_operation_and_keeps_the_memory),
        TEST(cuda_opened, test_pending_error_of_the_server_is_still_pending_afterwards),
        TEST(cuda_opened, test_no_error_of_ours_is_left),
        TEST(cuda_scene, test_current_device_stays_and_other_gpus_get_no_context),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
