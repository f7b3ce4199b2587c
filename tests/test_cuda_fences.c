/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Order between the server's streams and the lanes: what a fence holds back, and that without it
 * the stand-in sees the race that a GPU would have.
 */
#include "support/cuda_scene.h"

/* ---- Written after this ---------------------------------------------------------------------- */

/*
 * The server is slow: its stream is held while the lane would like to copy. Returns with everything
 * over.
 */
static void offload_what_is_being_computed(struct cuda_scene *scene, struct mv_run *run,
                                           const struct kvb_fence *fence)
{
    fake_cuda_hold(scene->server);
    cuda_scene_store(scene, run, 1, 2, fence);
    cuda_scene_offer(scene, run);
    mv_step(&scene->rig);
    fake_cuda_release(scene->server);
    mv_step(&scene->rig);
    mv_drop(&scene->rig, run);
}

static void test_copy_out_waits_for_the_stream_that_writes(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    struct kvb_fence fence = cuda_scene_fence(scene);
    offload_what_is_being_computed(scene, &run, &fence);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    mv_expect_in(rig, &run, KVB_TIER_HOST);
}

static void test_copy_out_without_a_fence_is_a_race(void **state)
{
    struct cuda_scene *scene = *state;
    struct mv_run run;
    offload_what_is_being_computed(scene, &run, NULL);
    assert_true(fake_cuda_take_reports(FAKE_CUDA_RACE) > 0);
}

static void test_copy_out_waits_for_an_event_of_the_server(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    cudaEvent_t event;
    cuda_ok(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    fake_cuda_hold(scene->server);
    cuda_scene_store(scene, &run, 1, 1, NULL);
    cuda_ok(cudaEventRecord(event, scene->server));
    struct kvb_fence fence = {.kind = KVB_FENCE_CUDA_EVENT, .handle = (uint64_t)(uintptr_t)event};
    kv_ok(kvb_block_offload(rig->kv, run.blocks, 1, 50, &fence, NULL));
    cuda_ok(cudaEventDestroy(event)); /* nothing of the caller's is kept */
    mv_step(rig);
    assert_int_equal(cuda_scene_down(scene).transferred, 0);
    fake_cuda_release(scene->server);
    mv_step(rig);
    assert_int_equal(cuda_scene_down(scene).transferred, 1);
    mv_drop(rig, &run);
}

static void test_waiting_copies_hold_up_nobody(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run old, young;
    cuda_scene_store(scene, &old, 1, 1, NULL);
    cuda_ok(cudaStreamSynchronize(scene->server));
    fake_cuda_hold(scene->server);
    struct kvb_fence fence = cuda_scene_fence(scene);
    cuda_scene_store(scene, &young, 2, 1, &fence);
    mv_offer(rig, young.blocks[0], 90);
    mv_step(rig);
    mv_offer(rig, old.blocks[0], 10);
    mv_step(rig);
    assert_int_equal(mv_in_tier(rig, &old, KVB_TIER_DEVICE), 1);
    assert_int_equal(cuda_scene_down(scene).transferred, 1);
    fake_cuda_release(scene->server);
    mv_step(rig);
    assert_int_equal(cuda_scene_down(scene).transferred, 2);
    mv_drop(rig, &old);
    mv_drop(rig, &young);
}

static void test_fence_given_at_register_holds_the_copy_back(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    struct kvb_fence fence = cuda_scene_fence(scene);
    uint32_t computed = KV_TOKENS;
    fake_cuda_hold(scene->server);
    mv_name(rig, &run, 1, 1);
    run.blocks[0] = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_init(rig, run.blocks[0], 0, 0, NULL);
    kv_append(rig, run.blocks[0], run.tokens, KV_TOKENS, 0);
    kv_schedule(rig, run.blocks[0]);
    cuda_scene_compute(scene, run.blocks[0], run.seqs[0].hash);
    kv_ok(kvb_block_compute_done(rig->kv, run.blocks, &computed, 1, NULL, NULL));
    kv_ok(kvb_block_register(rig->kv, run.blocks, 1, NULL, &fence, NULL));
    mv_offer(rig, run.blocks[0], 50);
    mv_step(rig);
    assert_int_equal(cuda_scene_down(scene).transferred, 0);
    fake_cuda_release(scene->server);
    mv_step(rig);
    assert_int_equal(cuda_scene_down(scene).transferred, 1);
    mv_drop(rig, &run);
}

static void test_later_fence_of_a_block_holds_too(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    struct kvb_fence fence = cuda_scene_fence(scene);
    cuda_scene_store(scene, &run, 1, 1, &fence);
    fake_cuda_quiesce(); /* the first is reached */
    fake_cuda_hold(scene->server);
    cuda_scene_compute(scene, run.blocks[0], run.seqs[0].hash);
    kv_ok(kvb_block_offload(rig->kv, run.blocks, 1, 50, &fence, NULL));
    mv_step(rig);
    assert_int_equal(cuda_scene_down(scene).transferred, 0);
    fake_cuda_release(scene->server);
    mv_step(rig);
    assert_int_equal(cuda_scene_down(scene).transferred, 1);
    mv_drop(rig, &run);
}

/* One flight each: more than may wait at once. */
static void test_onboarding_without_a_fence_passes_any_number_of_waiting_copies(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run up, down;
    struct mv_done done;
    cuda_scene_open_tiers(scene, 64, 64);
    mv_park(rig, &up, KVB_TIER_HOST, 1, 1);
    fake_cuda_hold(scene->server);
    struct kvb_fence fence = cuda_scene_fence(scene);
    cuda_scene_store(scene, &down, 2, 40, &fence);
    for (uint32_t i = 0; i < 40; i++) {
        mv_offer(rig, down.blocks[i], 50);
        mv_step(rig);
    }
    struct kvb_op *op = mv_bring_up(rig, &up, KVB_TIER_DEVICE, &done);
    mv_step(rig);
    assert_int_equal(done.calls, 1);
    assert_int_equal(cuda_scene_down(scene).transferred, 0);
    fake_cuda_release(scene->server);
    mv_step(rig);
    kv_flush(rig);
    assert_int_equal(cuda_scene_down(scene).transferred, 40);
    assert_int_equal(mv_take(rig, &up, op), 1);
    mv_drop_taken(rig, &up);
    mv_drop(rig, &down);
}

/*
 * Sixteen copies down stand behind a step. What comes up behind it too, as every alloc of a
 * server's asks for, gets to a stream all the same.
 */
static void test_copies_down_behind_a_step_leave_room_for_copies_up_behind_it(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run up, down;
    struct mv_done done;
    struct kvb_op *op = NULL;
    struct kvb_block *target = NULL;
    cuda_scene_open_tiers(scene, 64, 64);
    mv_park(rig, &up, KVB_TIER_HOST, 1, 1);
    fake_cuda_hold(scene->server);
    struct kvb_fence fence = cuda_scene_fence(scene);
    cuda_scene_store(scene, &down, 2, 16, &fence);
    for (uint32_t i = 0; i < 16; i++) {
        mv_offer(rig, down.blocks[i], 50);
        mv_step(rig);
    }
    assert_int_equal(mv_match(rig, &up), 1);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, &fence, &target, NULL));
    struct kvb_onboard request = mv_request(up.blocks, &target, 1, &done);
    kv_ok(kvb_onboard(rig->kv, &request, &op));
    mv_drop(rig, &up);
    mv_step(rig);
    kv_ok(kvb_op_wait_stream(rig->kv, op, scene->server, KVB_ALL_LAYERS));
    fake_cuda_release(scene->server);
    mv_step(rig);
    kv_flush(rig);
    assert_int_equal(mv_take(rig, &up, op), 1);
    mv_drop_taken(rig, &up);
    mv_drop(rig, &down);
}

/* Pinned buffers are half for those that need not wait, too. */
static void test_waiting_copies_leave_buffers_to_the_others(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run up, down;
    struct mv_done done;
    kv_device_config.register_bytes = 4096;
    cuda_scene_init(scene, 64, 64);
    rig->layout.chunk_bytes = 1024; /* a block is a page */
    cuda_scene_open(scene);
    mv_park(rig, &up, KVB_TIER_HOST, 1, 1);
    fake_cuda_hold(scene->server);
    struct kvb_fence fence = cuda_scene_fence(scene);
    cuda_scene_store(scene, &down, 2, 32, &fence);
    cuda_scene_offer(scene, &down);
    mv_step(rig);
    struct kvb_op *op = mv_bring_up(rig, &up, KVB_TIER_DEVICE, &done);
    mv_step(rig);
    assert_int_equal(done.calls, 1);
    fake_cuda_release(scene->server);
    mv_step(rig);
    kv_flush(rig);
    assert_int_equal(cuda_scene_down(scene).transferred, 32);
    assert_int_equal(mv_take(rig, &up, op), 1);
    mv_drop_taken(rig, &up);
    mv_drop(rig, &down);
}

/* ---- Free since this ------------------------------------------------------------------------- */

/*
 * Attention still reads a block that the server has dropped, while its slot is taken for an
 * onboarding.
 */
static void bring_up_into_what_is_being_read(struct cuda_scene *scene, bool with_fence)
{
    struct mv_run host;
    struct mv_done done;
    struct kvb_block *target = NULL;
    mv_park(&scene->rig, &host, KVB_TIER_HOST, 7, 1);
    fake_cuda_hold(scene->server);
    struct kvb_block *old = kv_alloc(&scene->rig, KVB_TIER_DEVICE);
    cuda_scene_attend(scene, old);
    kv_unref(&scene->rig, old);
    struct kvb_fence fence = cuda_scene_fence(scene);
    kv_ok(kvb_alloc(scene->rig.kv, KVB_TIER_DEVICE, 1, with_fence ? &fence : NULL, &target, NULL));
    assert_ptr_equal(target, old);
    assert_int_equal(mv_match(&scene->rig, &host), 1);
    struct kvb_onboard request = mv_request(host.blocks, &target, 1, &done);
    struct kvb_op *op = NULL;
    kv_ok(kvb_onboard(scene->rig.kv, &request, &op));
    mv_drop(&scene->rig, &host);
    mv_step(&scene->rig);
    assert_int_equal(done.calls, with_fence ? 0 : 1);
    fake_cuda_release(scene->server);
    mv_step(&scene->rig);
    if (with_fence) { /* else the bytes are anybody's guess */
        assert_int_equal(mv_take(&scene->rig, &host, op), 1);
        mv_drop_taken(&scene->rig, &host);
    } else {
        kv_ok(kvb_op_release(scene->rig.kv, op));
    }
}

static void test_copy_in_waits_for_the_stream_that_reads(void **state)
{
    struct cuda_scene *scene = *state;
    cuda_scene_open_tiers(scene, 1, 4);
    bring_up_into_what_is_being_read(scene, true);
}

static void test_copy_in_without_a_fence_is_a_race(void **state)
{
    struct cuda_scene *scene = *state;
    cuda_scene_open_tiers(scene, 1, 4);
    bring_up_into_what_is_being_read(scene, false);
    assert_true(fake_cuda_take_reports(FAKE_CUDA_RACE) > 0);
}

/* An onboarding of one block that names the server's stream itself. */
static struct kvb_op *bring_up_behind_server(struct cuda_scene *scene, struct mv_run *run,
                                             struct kvb_block *target,
                                             const struct kvb_fence *fence, struct mv_done *done)
{
    struct kvb_op *op = NULL;
    assert_int_equal(mv_match(&scene->rig, run), 1);
    struct kvb_onboard request = mv_request(run->blocks, &target, 1, done);
    request.fence = fence;
    kv_ok(kvb_onboard(scene->rig.kv, &request, &op));
    mv_drop(&scene->rig, run);
    mv_step(&scene->rig);
    return op;
}

static void test_fence_of_the_onboarding_itself_holds_the_copy_back(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    struct mv_done done;
    mv_park(rig, &run, KVB_TIER_HOST, 1, 1);
    struct kvb_fence fence = cuda_scene_fence(scene);
    struct kvb_block *target = kv_alloc(rig, KVB_TIER_DEVICE);
    fake_cuda_hold(scene->server);
    cuda_scene_attend(scene, target);
    struct kvb_op *op = bring_up_behind_server(scene, &run, target, &fence, &done);
    assert_int_equal(done.calls, 0);
    fake_cuda_release(scene->server);
    mv_step(rig);
    assert_int_equal(mv_take(rig, &run, op), 1);
    mv_drop_taken(rig, &run);
}

static void test_block_that_stands_in_for_a_cancelled_target_waits_for_its_fence(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run runs[2];
    struct mv_done done[2];
    struct kvb_block *stand_in = NULL;
    uint32_t good = 0;
    mv_park(rig, &runs[0], KVB_TIER_HOST, 1, 1);
    mv_park(rig, &runs[1], KVB_TIER_HOST, 2, 1);
    struct kvb_fence fence = cuda_scene_fence(scene);
    struct kvb_block *target = kv_alloc(rig, KVB_TIER_DEVICE);
    fake_cuda_hold(scene->server);
    cuda_scene_attend(scene, target);
    struct kvb_op *cut = bring_up_behind_server(scene, &runs[0], target, &fence, &done[0]);
    kv_ok(kvb_op_cancel(rig->kv, cut));
    mv_step(rig);
    assert_int_equal(done[0].status, KVB_ECANCELED);
    kv_ok(kvb_op_take(rig->kv, cut, &stand_in, 1, &good));
    kv_ok(kvb_op_release(rig->kv, cut));
    assert_non_null(stand_in);
    assert_ptr_not_equal(stand_in, target);
    struct kvb_op *op = bring_up_behind_server(scene, &runs[1], stand_in, NULL, &done[1]);
    assert_int_equal(done[1].calls, 0);
    fake_cuda_release(scene->server);
    mv_step(rig);
    assert_int_equal(mv_take(rig, &runs[1], op), 1);
    mv_drop_taken(rig, &runs[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(cuda_opened, test_copy_out_waits_for_the_stream_that_writes),
        TEST(cuda_opened, test_copy_out_without_a_fence_is_a_race),
        TEST(cuda_opened, test_copy_out_waits_for_an_event_of_the_server),
        TEST(cuda_opened, test_waiting_copies_hold_up_nobody),
        TEST(cuda_opened, test_fence_given_at_register_holds_the_copy_back),
        TEST(cuda_opened, test_later_fence_of_a_block_holds_too),
        TEST(cuda_scene, test_onboarding_without_a_fence_passes_any_number_of_waiting_copies),
        TEST(cuda_scene, test_copies_down_behind_a_step_leave_room_for_copies_up_behind_it),
        TEST(cuda_scene, test_waiting_copies_leave_buffers_to_the_others),
        TEST(cuda_scene, test_copy_in_waits_for_the_stream_that_reads),
        TEST(cuda_scene, test_copy_in_without_a_fence_is_a_race),
        TEST(cuda_opened, test_fence_of_the_onboarding_itself_holds_the_copy_back),
        TEST(cuda_opened, test_block_that_stands_in_for_a_cancelled_target_waits_for_its_fence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
