/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is no fence, and captures of the server's: those that calls meet, and those that a fence has
 * become a part of.
 */
#include "support/cuda_scene.h"

/* ---- What is no fence ------------------------------------------------------------------------ */

static void expect_refused(struct cuda_scene *scene, uint32_t tier, uint32_t kind, uint64_t handle,
                           int code)
{
    struct kvb_fence fence = {.kind = kind, .handle = handle};
    struct kvb_block *block = NULL;
    kv_expect(kvb_alloc(scene->rig.kv, tier, 1, &fence, &block, NULL), code);
    assert_null(block);
    kv_check(&scene->rig);
}

static void test_fence_without_an_event_is_refused(void **state)
{
    struct cuda_scene *scene = *state;
    expect_refused(scene, KVB_TIER_DEVICE, KVB_FENCE_CUDA_EVENT, 0, KVB_EINVAL);
}

static void test_fence_of_the_gpu_on_a_host_block_is_unsupported(void **state)
{
    struct cuda_scene *scene = *state;
    expect_refused(scene, KVB_TIER_HOST, KVB_FENCE_CUDA_STREAM, (uint64_t)(uintptr_t)scene->server,
                   KVB_EUNSUPPORTED);
}

static void test_counter_from_2_to_the_56_is_refused(void **state)
{
    struct cuda_scene *scene = *state;
    expect_refused(scene, KVB_TIER_DEVICE, KVB_FENCE_COUNTER, UINT64_C(1) << 56, KVB_EINVAL);
}

static void test_fences_are_bounded_and_come_back(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct kvb_block *block = NULL;
    fake_cuda_hold(scene->server);
    cuda_scene_attend(scene, (block = kv_alloc(rig, KVB_TIER_DEVICE)));
    struct kvb_fence fence = cuda_scene_fence(scene);
    int code = 0;
    uint32_t given = 0;
    for (; code == 0 && given < 5000; given += code == 0) {
        struct kvb_block *other = NULL;
        code = kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, &fence, &other, NULL);
        if (code == 0)
            kv_unref(rig, other);
    }
    kv_expect(code, KVB_EAGAIN);
    assert_int_equal(given, 1024);
    /* the server's stream takes no more, and the server's call waits for it */
    assert_true(fake_cuda_take_reports(FAKE_CUDA_FULL) > 0);
    fake_cuda_release(scene->server);
    fake_cuda_quiesce();
    struct kvb_block *other = NULL;
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, &fence, &other, NULL));
    kv_unref(rig, other);
    kv_unref(rig, block);
}

static void test_call_that_finds_no_room_spends_no_fence(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct kvb_block *blocks[4], *more[2];
    uint32_t missing = 0;
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 4, NULL, blocks, NULL));
    fake_cuda_hold(scene->server);
    cuda_scene_attend(scene, blocks[0]);
    struct kvb_fence fence = cuda_scene_fence(scene);
    unsigned before = fake_cuda_calls("cudaEventRecord");
    kv_expect(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 2, &fence, more, &missing), KVB_ENOSPC);
    assert_int_equal(missing, 2);
    assert_int_equal(fake_cuda_calls("cudaEventRecord"), before);
    fake_cuda_release(scene->server);
    kv_ok(kvb_block_unref(rig->kv, blocks, 4, NULL));
}

/* ---- Captures -------------------------------------------------------------------------------- */

static void test_capture_survives_every_call_and_its_stream_is_refused(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    cudaStream_t captured;
    cuda_ok(cudaStreamCreateWithFlags(&captured, cudaStreamNonBlocking));
    cuda_ok(fake_cuda_capture_begin(captured, cudaStreamCaptureModeGlobal));
    struct kvb_fence fence = cuda_scene_fence(scene);
    cuda_scene_store(scene, &run, 1, 2, &fence);
    mv_offer(rig, run.blocks[0], 50);
    mv_step(rig);
    assert_int_equal(cuda_scene_down(scene).transferred, 1);
    expect_refused(scene, KVB_TIER_DEVICE, KVB_FENCE_CUDA_STREAM, (uint64_t)(uintptr_t)captured,
                   KVB_EINVAL);
    assert_true(kv_log_has(&rig->log, "captured into a graph"));
    cuda_ok(fake_cuda_capture_end(captured));
    enum cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
    cuda_ok(cudaThreadExchangeStreamCaptureMode(&mode));
    assert_int_equal(mode, cudaStreamCaptureModeGlobal); /* as the server's thread had it */
    cuda_ok(cudaStreamDestroy(captured));
    mv_drop(rig, &run);
}

/* The stream begins to be captured between the question and the record. */
static void test_stream_that_is_captured_meanwhile_is_refused_and_costs_nothing(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    fake_cuda_fail("cudaStreamIsCapturing", 2, cudaErrorStreamCaptureInvalidated, FAKE_CUDA_ONCE);
    expect_refused(scene, KVB_TIER_DEVICE, KVB_FENCE_CUDA_STREAM,
                   (uint64_t)(uintptr_t)scene->server, KVB_EINVAL);
    struct kvb_fence fence = cuda_scene_fence(scene);
    cuda_scene_store(scene, &run, 1, 1, &fence);
    mv_offer(rig, run.blocks[0], 50);
    mv_step(rig);
    assert_int_equal(cuda_scene_down(scene).transferred, 1);
    mv_drop(rig, &run);
}

static void test_fence_that_has_become_part_of_a_graph_fails_what_waits_for_it(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    struct kvb_fence fence = cuda_scene_fence(scene);
    cuda_scene_store(scene, &run, 1, 1, &fence);
    mv_offer(rig, run.blocks[0], 50);
    fake_cuda_fail("cudaEventQuery", 1, cudaErrorCapturedEvent, FAKE_CUDA_ONCE);
    mv_step(rig);
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_DEVICE].out_of_service, 0);
    assert_int_equal(cuda_scene_down(scene).failed_transfer, 1);
    assert_true(kv_log_has(&rig->log, "what waits for it fails"));
    /* with a ticket that there is */
    kv_ok(kvb_block_offload(rig->kv, run.blocks, 1, 50, &fence, NULL));
    mv_step(rig);
    assert_int_equal(cuda_scene_down(scene).transferred, 1);
    mv_drop(rig, &run);
}

/* The block's next owner knows nothing of that fence, and its transfers do not fail for it. */
static void test_fence_that_has_become_part_of_a_graph_ends_with_its_blocks_owner(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run, host;
    struct mv_done done;
    cuda_scene_open_tiers(scene, 1, 4);
    mv_park(rig, &host, KVB_TIER_HOST, 2, 1);
    struct kvb_fence fence = cuda_scene_fence(scene);
    cuda_scene_store(scene, &run, 1, 1, &fence);
    mv_offer(rig, run.blocks[0], 50);
    fake_cuda_fail("cudaEventQuery", 1, cudaErrorCapturedEvent, FAKE_CUDA_ONCE);
    mv_step(rig);
    assert_int_equal(cuda_scene_down(scene).failed_transfer, 1);
    mv_drop(rig, &run);
    /* the server knows that its step is over, and needs no fence */
    cuda_ok(cudaStreamSynchronize(scene->server));
    struct kvb_op *op = mv_bring_up(rig, &host, KVB_TIER_DEVICE, &done);
    mv_step(rig);
    assert_int_equal(mv_take(rig, &host, op), 1);
    mv_drop_taken(rig, &host);
}

/*
 * A fence that nobody can wait for does not stand in the way of others, though nothing is moved
 * that would look at it.
 */
static void test_fence_that_has_become_part_of_a_graph_does_not_use_up_the_others(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct kvb_block *block = NULL;
    struct kvb_fence fence = cuda_scene_fence(scene);
    for (uint32_t i = 0; i < 1024; i++) {
        kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, &fence, &block, NULL));
        kv_unref(rig, block);
    }
    fake_cuda_quiesce();
    fake_cuda_fail("cudaEventQuery", 1, cudaErrorCapturedEvent, FAKE_CUDA_ONCE);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, &fence, &block, NULL));
    kv_unref(rig, block);
}

static void test_copy_whose_event_a_capture_stands_before_is_over_when_its_stream_says_so(
    void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    mv_store(rig, &run, KVB_TIER_DEVICE, 1, 1);
    mv_offer(rig, run.blocks[0], 50);
    fake_cuda_fail("cuStreamWriteValue32", 1, cudaErrorNotSupported, FAKE_CUDA_ONCE);
    fake_cuda_fail("cudaEventQuery", 1, cudaErrorStreamCaptureUnsupported, FAKE_CUDA_ONCE);
    mv_step(rig);
    assert_int_equal(fake_cuda_calls("cudaStreamQuery"), 1);
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_DEVICE].out_of_service, 0);
    assert_int_equal(cuda_scene_down(scene).transferred, 1);
    mv_drop(rig, &run);
}

/* Found before the block is offered; what comes without a fence names no other point. */
static void fails_though_named_without_a_fence(struct cuda_scene *scene, bool registered_before)
{
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    struct kvb_fence fence = cuda_scene_fence(scene);
    uint32_t computed = KV_TOKENS;
    mv_name(rig, &run, 1, 1);
    run.blocks[0] = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_init(rig, run.blocks[0], 0, 0, NULL);
    kv_append(rig, run.blocks[0], run.tokens, KV_TOKENS, 0);
    kv_schedule(rig, run.blocks[0]);
    cuda_scene_compute(scene, run.blocks[0], run.seqs[0].hash);
    kv_ok(kvb_block_compute_done(rig->kv, run.blocks, &computed, 1, &fence, NULL));
    if (registered_before)
        kv_ok(kvb_block_register(rig->kv, run.blocks, 1, NULL, NULL, NULL));
    fake_cuda_fail("cudaEventQuery", 1, cudaErrorCapturedEvent, FAKE_CUDA_ONCE);
    mv_step(rig);
    assert_true(kv_log_has(&rig->log, "what waits for it fails"));
    if (!registered_before)
        kv_ok(kvb_block_register(rig->kv, run.blocks, 1, NULL, NULL, NULL));
    mv_offer(rig, run.blocks[0], 50);
    mv_step(rig);
    assert_int_equal(cuda_scene_down(scene).failed_transfer, 1);
    mv_drop(rig, &run);
}

static void test_block_of_a_captured_fence_fails_though_registered_without_one(void **state)
{
    fails_though_named_without_a_fence(*state, false);
}

static void test_block_of_a_captured_fence_fails_though_offered_without_one(void **state)
{
    fails_though_named_without_a_fence(*state, true);
}

/*
 * A slot of HOST was given two counters while a stream's point, captured, was one of the same set.
 */
static void test_slot_that_a_lane_takes_is_rid_of_a_captured_ticket(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run, later;
    struct kvb_block *slot = NULL;
    struct kvb_fence counters[3];
    for (uint32_t i = 0; i < 3; i++)
        counters[i] = (struct kvb_fence){.kind = KVB_FENCE_COUNTER, .line = i, .handle = 1};
    fake_cuda_hold(scene->server);
    struct kvb_fence fence = cuda_scene_fence(scene);
    cuda_scene_store(scene, &run, 1, 1, &fence);
    kv_ok(kvb_block_offload(rig->kv, run.blocks, 1, 50, &counters[2], NULL));
    for (uint32_t i = 0; i < 2; i++) {
        kv_ok(kvb_alloc(rig->kv, KVB_TIER_HOST, 1, &counters[i], &slot, NULL));
        kv_unref(rig, slot);
    }
    mv_step(rig);
    fake_cuda_release(scene->server);
    fake_cuda_quiesce();
    cuda_ok(cudaStreamSynchronize(scene->server));
    fake_cuda_fail("cudaEventQuery", 1, cudaErrorCapturedEvent, FAKE_CUDA_ONCE);
    for (uint32_t i = 0; i < 3; i++)
        kv_ok(kvb_fence_signal(rig->kv, i, 1));
    mv_step(rig);
    uint64_t failed = cuda_scene_down(scene).failed_transfer;
    assert_true(kvbi_lines_captured(&rig->kv->pipeline.engines.lines, slot->ticket));
    mv_drop(rig, &run);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    for (uint32_t i = 0; i < 4; i++) { /* as many as HOST has */
        mv_store(rig, &later, KVB_TIER_DEVICE, 100 + i, 1);
        mv_offer(rig, later.blocks[0], 50);
        mv_step(rig);
        mv_drop(rig, &later);
    }
    assert_int_equal(cuda_scene_down(scene).failed_transfer, failed);
    assert_int_equal(slot->ticket, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(cuda_opened, test_block_of_a_captured_fence_fails_though_registered_without_one),
        TEST(cuda_opened, test_block_of_a_captured_fence_fails_though_offered_without_one),
        TEST(cuda_opened, test_slot_that_a_lane_takes_is_rid_of_a_captured_ticket),
        TEST(cuda_opened, test_fence_without_an_event_is_refused),
        TEST(cuda_opened, test_fence_of_the_gpu_on_a_host_block_is_unsupported),
        TEST(cuda_opened, test_counter_from_2_to_the_56_is_refused),
        TEST(cuda_opened, test_fences_are_bounded_and_come_back),
        TEST(cuda_opened, test_call_that_finds_no_room_spends_no_fence),
        TEST(cuda_opened, test_capture_survives_every_call_and_its_stream_is_refused),
        TEST(cuda_opened, test_stream_that_is_captured_meanwhile_is_refused_and_costs_nothing),
        TEST(cuda_opened, test_fence_that_has_become_part_of_a_graph_fails_what_waits_for_it),
        TEST(cuda_scene, test_fence_that_has_become_part_of_a_graph_ends_with_its_blocks_owner),
        TEST(cuda_opened, test_fence_that_has_become_part_of_a_graph_does_not_use_up_the_others),
        TEST(cuda_opened,
             test_copy_whose_event_a_capture_stands_before_is_over_when_its_stream_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
