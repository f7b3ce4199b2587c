/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Order between the server's streams and the lanes: what a fence holds back, what a stream waits for, and that without either the
 * stand-in sees the race that a GPU would have.
 */
#include "support/cuda_scene.h"
#include "transfer/cuda/cuda.h"
#include "transfer/cuda/fences.h"

/* ---- Written after this ------------------------------------------------------------------------------------------- */

/* The server is slow: its stream is held while the lane would like to copy. Returns with everything over. */
static void offload_what_is_being_computed(struct cuda_scene *scene, struct mv_run *run,
                                           const struct kvb_fence *fence)
{
    fake_cuda_hold(scene->server);
    cuda_scene_store(scene, run, 1, 2, fence);
    for (uint32_t i = 0; i < 2; i++)
        mv_offer(&scene->rig, run->blocks[i], 50);
    mv_step(&scene->rig);
    fake_cuda_release(scene->server);
    mv_step(&scene->rig);
    mv_drop(&scene->rig, run);
}

static void test_copy_out_waits_for_the_stream_that_writes(void **state)
{
    (void)state;
    struct cuda_scene scene;
    struct mv_run run;
    cuda_scene_init(&scene, 4, 4);
    cuda_scene_open(&scene);
    struct kvb_fence fence = cuda_scene_fence(&scene);
    offload_what_is_being_computed(&scene, &run, &fence);
    mv_evict_all(&scene.rig, KVB_TIER_DEVICE);
    mv_expect_in(&scene.rig, &run, KVB_TIER_HOST);
    cuda_scene_close(&scene);
}

static void test_copy_out_without_a_fence_is_a_race(void **state)
{
    (void)state;
    struct cuda_scene scene;
    struct mv_run run;
    cuda_scene_init(&scene, 4, 4);
    cuda_scene_open(&scene);
    offload_what_is_being_computed(&scene, &run, NULL);
    assert_true(fake_cuda_take_reports(FAKE_CUDA_RACE) > 0);
    cuda_scene_close(&scene);
}

static void test_copy_out_waits_for_an_event_of_the_server(void **state)
{
    (void)state;
    struct cuda_scene scene;
    struct mv_run run;
    cudaEvent_t event;
    cuda_scene_init(&scene, 4, 4);
    cuda_scene_open(&scene);
    cuda_ok(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    fake_cuda_hold(scene.server);
    cuda_scene_store(&scene, &run, 1, 1, NULL);
    cuda_ok(cudaEventRecord(event, scene.server));
    struct kvb_fence fence = {.kind = KVB_FENCE_CUDA_EVENT, .handle = (uint64_t)(uintptr_t)event};
    kv_ok(kvb_block_offload(scene.rig.kv, run.blocks, 1, 50, &fence, NULL));
    cuda_ok(cudaEventDestroy(event)); /* nothing of the caller's is kept */
    mv_step(&scene.rig);
    assert_int_equal(mv_lane(&scene.rig, KVB_TIER_DEVICE, KVB_TIER_HOST).transferred, 0);
    fake_cuda_release(scene.server);
    mv_step(&scene.rig);
    assert_int_equal(mv_lane(&scene.rig, KVB_TIER_DEVICE, KVB_TIER_HOST).transferred, 1);
    mv_drop(&scene.rig, &run);
    cuda_scene_close(&scene);
}

static void test_waiting_copies_hold_up_nobody(void **state)
{
    (void)state;
    struct cuda_scene scene;
    struct mv_run old, young;
    cuda_scene_init(&scene, 4, 4);
    cuda_scene_open(&scene);
    cuda_scene_store(&scene, &old, 1, 1, NULL);
    cuda_ok(cudaStreamSynchronize(scene.server));
    fake_cuda_hold(scene.server);
    struct kvb_fence fence = cuda_scene_fence(&scene);
    cuda_scene_store(&scene, &young, 2, 1, &fence);
    mv_offer(&scene.rig, young.blocks[0], 90);
    mv_step(&scene.rig);
    mv_offer(&scene.rig, old.blocks[0], 10);
    mv_step(&scene.rig);
    assert_int_equal(mv_in_tier(&scene.rig, &old, KVB_TIER_DEVICE), 1);
    assert_int_equal(mv_lane(&scene.rig, KVB_TIER_DEVICE, KVB_TIER_HOST).transferred, 1);
    fake_cuda_release(scene.server);
    mv_step(&scene.rig);
    assert_int_equal(mv_lane(&scene.rig, KVB_TIER_DEVICE, KVB_TIER_HOST).transferred, 2);
    mv_drop(&scene.rig, &old);
    mv_drop(&scene.rig, &young);
    cuda_scene_close(&scene);
}

static void test_fence_given_at_register_holds_the_copy_back(void **state)
{
    (void)state;
    struct cuda_scene scene;
    struct mv_run run;
    cuda_scene_init(&scene, 4, 4);
    cuda_scene_open(&scene);
    struct kvb_fence fence = cuda_scene_fence(&scene);
    uint32_t computed = KV_TOKENS;
    fake_cuda_hold(scene.server);
    mv_name(&scene.rig, &run, 1, 1);
    run.blocks[0] = kv_alloc(&scene.rig, KVB_TIER_DEVICE);
    kv_init(&scene.rig, run.blocks[0], 0, 0, NULL);
    kv_append(&scene.rig, run.blocks[0], run.tokens, KV_TOKENS, 0);
    kv_schedule(&scene.rig, run.blocks[0]);
    cuda_scene_compute(&scene, run.blocks[0], run.seqs[0].hash);
    kv_ok(kvb_block_compute_done(scene.rig.kv, run.blocks, &computed, 1, NULL, NULL));
    kv_ok(kvb_block_register(scene.rig.kv, run.blocks, 1, NULL, &fence, NULL));
    mv_offer(&scene.rig, run.blocks[0], 50);
    mv_step(&scene.rig);
    assert_int_equal(mv_lane(&scene.rig, KVB_TIER_DEVICE, KVB_TIER_HOST).transferred, 0);
    fake_cuda_release(scene.server);
    mv_step(&scene.rig);
    assert_int_equal(mv_lane(&scene.rig, KVB_TIER_DEVICE, KVB_TIER_HOST).transferred, 1);
    mv_drop(&scene.rig, &run);
    cuda_scene_close(&scene);
}

static void test_later_fence_of_a_block_holds_too(void **state)
{
    (void)state;
    struct cuda_scene scene;
    struct mv_run run;
    cuda_scene_init(&scene, 4, 4);
    cuda_scene_open(&scene);
    struct kvb_fence fence = cuda_scene_fence(&scene);
    cuda_scene_store(&scene, &run, 1, 1, &fence);
    fake_cuda_settle(); /* the first is reached */
    fake_cuda_hold(scene.server);
    cuda_scene_compute(&scene, run.blocks[0], run.seqs[0].hash);
    kv_ok(kvb_block_offload(scene.rig.kv, run.blocks, 1, 50, &fence, NULL));
    mv_step(&scene.rig);
    assert_int_equal(mv_lane(&scene.rig, KVB_TIER_DEVICE, KVB_TIER_HOST).transferred, 0);
    fake_cuda_release(scene.server);
    mv_step(&scene.rig);
    assert_int_equal(mv_lane(&scene.rig, KVB_TIER_DEVICE, KVB_TIER_HOST).transferred, 1);
    mv_drop(&scene.rig, &run);
    cuda_scene_close(&scene);
}

/* One flight each: more than may wait at once. */
static void test_onboarding_without_a_fence_passes_any_number_of_waiting_copies(void **state)
{
    (void)state;
    struct cuda_scene scene;
    struct mv_run up, down;
    struct mv_done done;
    cuda_scene_init(&scene, 64, 64);
    cuda_scene_open(&scene);
    struct kv_rig *rig = &scene.rig;
    mv_park(rig, &up, KVB_TIER_HOST, 1, 1);
    fake_cuda_hold(scene.server);
    struct kvb_fence fence = cuda_scene_fence(&scene);
    cuda_scene_store(&scene, &down, 2, 40, &fence);
    for (uint32_t i = 0; i < 40; i++) {
        mv_offer(rig, down.blocks[i], 50);
        mv_step(rig);
    }
    struct kvb_op *op = mv_bring_up(rig, &up, KVB_TIER_DEVICE, &done);
    mv_step(rig);
    assert_int_equal(done.calls, 1);
    assert_int_equal(mv_lane(rig, KVB_TIER_DEVICE, KVB_TIER_HOST).transferred, 0);
    fake_cuda_release(scene.server);
    mv_step(rig);
    kv_settle(rig);
    assert_int_equal(mv_lane(rig, KVB_TIER_DEVICE, KVB_TIER_HOST).transferred, 40);
    assert_int_equal(mv_take(rig, &up, op), 1);
    mv_drop_taken(rig, &up);
    mv_drop(rig, &down);
    cuda_scene_close(&scene);
}

/* Pinned buffers are half for those that need not wait, too. */
/* Sixteen copies down stand behind a step. What comes up behind it too, as every alloc of a server's asks for, gets to a stream all the same. */
static void test_copies_down_behind_a_step_leave_room_for_copies_up_behind_it(void **state)
{
    (void)state;
    struct cuda_scene scene;
    struct mv_run up, down;
    struct mv_done done;
    struct kvb_op *op = NULL;
    struct kvb_block *target = NULL;
    cuda_scene_init(&scene, 64, 64);
    cuda_scene_open(&scene);
    struct kv_rig *rig = &scene.rig;
    mv_park(rig, &up, KVB_TIER_HOST, 1, 1);
    fake_cuda_hold(scene.server);
    struct kvb_fence fence = cuda_scene_fence(&scene);
    cuda_scene_store(&scene, &down, 2, 16, &fence);
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
    kv_ok(kvb_op_wait_stream(rig->kv, op, scene.server, KVB_ALL_LAYERS));
    fake_cuda_release(scene.server);
    mv_step(rig);
    kv_settle(rig);
    assert_int_equal(mv_take(rig, &up, op), 1);
    mv_drop_taken(rig, &up);
    mv_drop(rig, &down);
    cuda_scene_close(&scene);
}

static void test_waiting_copies_leave_buffers_to_the_others(void **state)
{
    (void)state;
    struct cuda_scene scene;
    struct mv_run up, down;
    struct mv_done done;
    kv_device_config.register_bytes = 4096;
    cuda_scene_init(&scene, 64, 64);
    scene.rig.layout.chunk_bytes = 1024; /* a block is a page */
    cuda_scene_open(&scene);
    kv_device_config.register_bytes = 0;
    struct kv_rig *rig = &scene.rig;
    mv_park(rig, &up, KVB_TIER_HOST, 1, 1);
    fake_cuda_hold(scene.server);
    struct kvb_fence fence = cuda_scene_fence(&scene);
    cuda_scene_store(&scene, &down, 2, 32, &fence);
    for (uint32_t i = 0; i < 32; i++)
        mv_offer(rig, down.blocks[i], 50);
    mv_step(rig);
    struct kvb_op *op = mv_bring_up(rig, &up, KVB_TIER_DEVICE, &done);
    mv_step(rig);
    assert_int_equal(done.calls, 1);
    fake_cuda_release(scene.server);
    mv_step(rig);
    kv_settle(rig);
    assert_int_equal(mv_lane(rig, KVB_TIER_DEVICE, KVB_TIER_HOST).transferred, 32);
    assert_int_equal(mv_take(rig, &up, op), 1);
    mv_drop_taken(rig, &up);
    mv_drop(rig, &down);
    cuda_scene_close(&scene);
}

/* ---- Free since this ---------------------------------------------------------------------------------------------- */

/* Attention still reads a block that the server has dropped, while its slot is taken for an onboarding. */
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
    (void)state;
    struct cuda_scene scene;
    cuda_scene_init(&scene, 1, 4);
    cuda_scene_open(&scene);
    bring_up_into_what_is_being_read(&scene, true);
    cuda_scene_close(&scene);
}

static void test_copy_in_without_a_fence_is_a_race(void **state)
{
    (void)state;
    struct cuda_scene scene;
    cuda_scene_init(&scene, 1, 4);
    cuda_scene_open(&scene);
    bring_up_into_what_is_being_read(&scene, false);
    assert_true(fake_cuda_take_reports(FAKE_CUDA_RACE) > 0);
    cuda_scene_close(&scene);
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
    (void)state;
    struct cuda_scene scene;
    struct mv_run run;
    struct mv_done done;
    cuda_scene_init(&scene, 4, 4);
    cuda_scene_open(&scene);
    mv_park(&scene.rig, &run, KVB_TIER_HOST, 1, 1);
    struct kvb_fence fence = cuda_scene_fence(&scene);
    struct kvb_block *target = kv_alloc(&scene.rig, KVB_TIER_DEVICE);
    fake_cuda_hold(scene.server);
    cuda_scene_attend(&scene, target);
    struct kvb_op *op = bring_up_behind_server(&scene, &run, target, &fence, &done);
    assert_int_equal(done.calls, 0);
    fake_cuda_release(scene.server);
    mv_step(&scene.rig);
    assert_int_equal(mv_take(&scene.rig, &run, op), 1);
    mv_drop_taken(&scene.rig, &run);
    cuda_scene_close(&scene);
}

static void test_block_that_stands_in_for_a_cancelled_target_waits_for_its_fence(void **state)
{
    (void)state;
    struct cuda_scene scene;
    struct mv_run runs[2];
    struct mv_done done[2];
    struct kvb_block *stand_in = NULL;
    uint32_t good = 0;
    cuda_scene_init(&scene, 4, 4);
    cuda_scene_open(&scene);
    mv_park(&scene.rig, &runs[0], KVB_TIER_HOST, 1, 1);
    mv_park(&scene.rig, &runs[1], KVB_TIER_HOST, 2, 1);
    struct kvb_fence fence = cuda_scene_fence(&scene);
    struct kvb_block *target = kv_alloc(&scene.rig, KVB_TIER_DEVICE);
    fake_cuda_hold(scene.server);
    cuda_scene_attend(&scene, target);
    struct kvb_op *cut = bring_up_behind_server(&scene, &runs[0], target, &fence, &done[0]);
    kv_ok(kvb_op_cancel(scene.rig.kv, cut));
    mv_step(&scene.rig);
    assert_int_equal(done[0].status, KVB_ECANCELED);
    kv_ok(kvb_op_take(scene.rig.kv, cut, &stand_in, 1, &good));
    kv_ok(kvb_op_release(scene.rig.kv, cut));
    assert_non_null(stand_in);
    assert_ptr_not_equal(stand_in, target);
    struct kvb_op *op = bring_up_behind_server(&scene, &runs[1], stand_in, NULL, &done[1]);
    assert_int_equal(done[1].calls, 0);
    fake_cuda_release(scene.server);
    mv_step(&scene.rig);
    assert_int_equal(mv_take(&scene.rig, &runs[1], op), 1);
    mv_drop_taken(&scene.rig, &runs[1]);
    cuda_scene_close(&scene);
}

/* ---- Streams that wait for an operation --------------------------------------------------------------------------- */

struct rising {
    struct cuda_scene scene;
    struct mv_run run;
    struct mv_done done;
    struct kvb_op *op;
    struct kvb_block *targets[4];
};

/* Four blocks on their way up, with the copies on held streams. */
static void start_rising(struct rising *r, uint32_t flags)
{
    cuda_scene_init(&r->scene, 8, 8);
    cuda_scene_open(&r->scene);
    struct kv_rig *rig = &r->scene.rig;
    mv_park(rig, &r->run, KVB_TIER_HOST, 3, 4);
    assert_int_equal(mv_match(rig, &r->run), 4);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 4, NULL, r->targets, NULL));
    struct kvb_onboard request = mv_request(r->run.blocks, r->targets, 4, &r->done);
    request.flags = flags;
    kv_ok(kvb_onboard(rig->kv, &request, &r->op));
    mv_drop(rig, &r->run);
    fake_cuda_hold(NULL);
}

static void end_rising(struct rising *r)
{
    fake_cuda_release(NULL);
    mv_step(&r->scene.rig);
    assert_int_equal(mv_take(&r->scene.rig, &r->run, r->op), 4);
    mv_drop_taken(&r->scene.rig, &r->run);
    cuda_scene_close(&r->scene);
}

static void test_attention_waits_on_its_stream_for_blocks_on_their_way(void **state)
{
    (void)state;
    struct rising r;
    start_rising(&r, 0);
    kv_expect(kvb_op_wait_stream(r.scene.rig.kv, r.op, r.scene.server, KVB_ALL_LAYERS),
              KVB_EAGAIN); /* no progress yet */
    assert_int_equal(kvb_manager_poll(r.scene.rig.kv, KVB_FOREVER), 0);
    fake_cuda_server_thread(true);
    kv_ok(kvb_op_wait_stream(r.scene.rig.kv, r.op, r.scene.server, KVB_ALL_LAYERS));
    fake_cuda_server_thread(false);
    for (uint32_t i = 0; i < 4; i++)
        cuda_scene_attend(&r.scene, r.targets[i]);
    assert_int_equal(r.done.calls, 0);
    end_rising(&r);
}

static void test_attention_that_does_not_wait_is_a_race(void **state)
{
    (void)state;
    struct rising r;
    start_rising(&r, 0);
    assert_int_equal(kvb_manager_poll(r.scene.rig.kv, KVB_FOREVER), 0);
    cuda_scene_attend(&r.scene, r.targets[3]);
    assert_true(fake_cuda_take_reports(FAKE_CUDA_RACE) > 0);
    end_rising(&r);
}

static void test_layer_0_may_run_while_layer_1_arrives(void **state)
{
    (void)state;
    struct rising r;
    start_rising(&r, KVB_ONBOARD_LAYERS);
    assert_int_equal(kvb_manager_poll(r.scene.rig.kv, KVB_FOREVER), 0);
    kv_ok(kvb_op_wait_stream(r.scene.rig.kv, r.op, r.scene.server, 0));
    for (uint32_t i = 0; i < 4; i++)
        cuda_scene_launch(&r.scene, r.targets[i], 0, 1, false, 0);
    assert_int_equal(fake_cuda_report_count(), 0);
    cuda_scene_launch(&r.scene, r.targets[0], 1, 1, false, 0); /* layer 1 was not waited for */
    assert_true(fake_cuda_take_reports(FAKE_CUDA_RACE) > 0);
    kv_ok(kvb_op_wait_stream(r.scene.rig.kv, r.op, r.scene.server, 1));
    cuda_scene_launch(&r.scene, r.targets[1], 1, 1, false, 0);
    end_rising(&r);
}

/* A flight is copied by layers or it is not: in one with the plain block, the first layer would be over with the last. */
static void test_layers_are_waited_for_beside_an_op_without_them(void **state)
{
    (void)state;
    struct rising r;
    struct mv_run run;
    struct mv_done done;
    struct kvb_op *op = NULL;
    start_rising(&r, 0);
    struct kv_rig *rig = &r.scene.rig;
    mv_park(rig, &run, KVB_TIER_HOST, 9, 1);
    assert_int_equal(mv_match(rig, &run), 1);
    struct kvb_block *target = kv_alloc(rig, KVB_TIER_DEVICE);
    struct kvb_onboard request = mv_request(run.blocks, &target, 1, &done);
    request.flags = KVB_ONBOARD_LAYERS;
    kv_ok(kvb_onboard(rig->kv, &request, &op));
    mv_drop(rig, &run);
    assert_int_equal(kvb_manager_poll(rig->kv, KVB_FOREVER), 0);
    kv_ok(kvb_op_wait_stream(rig->kv, op, r.scene.server, 0));
    cuda_scene_launch(&r.scene, target, 0, 1, false, 0);
    assert_int_equal(fake_cuda_report_count(), 0);
    cuda_scene_launch(&r.scene, target, 1, 1, false, 0);
    assert_true(fake_cuda_take_reports(FAKE_CUDA_RACE) > 0);
    fake_cuda_release(NULL);
    mv_step(rig);
    assert_int_equal(mv_take(rig, &run, op), 1);
    mv_drop_taken(rig, &run);
    end_rising(&r);
}

static void test_op_that_joins_waits_for_the_transfer_of_the_other(void **state)
{
    (void)state;
    struct rising r;
    struct mv_done done;
    struct kvb_block *targets[4];
    struct kvb_op *joined = NULL;
    start_rising(&r, 0);
    struct kv_rig *rig = &r.scene.rig;
    assert_int_equal(kvb_manager_poll(rig->kv, KVB_FOREVER), 0);
    assert_int_equal(mv_match(rig, &r.run), 4);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 4, NULL, targets, NULL));
    struct kvb_onboard request = mv_request(r.run.blocks, targets, 4, &done);
    kv_ok(kvb_onboard(rig->kv, &request, &joined));
    mv_drop(rig, &r.run);
    kv_ok(kvb_op_wait_stream(rig->kv, joined, r.scene.server,
                             KVB_ALL_LAYERS)); /* without progress: it is under way already */
    cuda_scene_attend(&r.scene, r.targets[0]);
    fake_cuda_release(NULL);
    mv_step(rig);
    kv_ok(kvb_op_release(rig->kv, joined));
    end_rising(&r);
}

/* The server computes what another request would bring up: the op finds it there and joins it. Takes one block of each tier. */
static struct kvb_op *join_computed(struct cuda_scene *scene, struct mv_run *computed,
                                    struct mv_done *done)
{
    struct kv_rig *rig = &scene->rig;
    struct mv_run below;
    struct kvb_op *op = NULL;
    struct kvb_fence fence = cuda_scene_fence(scene);
    mv_park(rig, &below, KVB_TIER_HOST, 1, 1);
    assert_int_equal(mv_match(rig, &below), 1);
    struct kvb_block *target = kv_alloc(rig, KVB_TIER_DEVICE);
    cuda_scene_store(scene, computed, 1, 1, &fence);
    struct kvb_onboard request = mv_request(below.blocks, &target, 1, done);
    kv_ok(kvb_onboard(rig->kv, &request, &op));
    mv_drop(rig, &below);
    return op;
}

static void test_stream_waits_for_the_fence_of_a_computed_block_that_is_joined(void **state)
{
    (void)state;
    struct cuda_scene scene;
    struct mv_run computed;
    struct mv_done done;
    struct kvb_block *block = NULL;
    uint32_t good = 0;
    cuda_scene_init(&scene, 4, 4);
    cuda_scene_open(&scene);
    struct kv_rig *rig = &scene.rig;
    cudaStream_t server = scene.server, other;
    cuda_ok(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    fake_cuda_hold(server);
    struct kvb_op *op = join_computed(&scene, &computed, &done);
    assert_int_equal(kvb_manager_poll(rig->kv, KVB_FOREVER), 0);
    assert_int_equal(done.good_count, 1);
    kv_ok(kvb_op_wait_stream(rig->kv, op, other, KVB_ALL_LAYERS));
    kv_ok(kvb_op_take(rig->kv, op, &block, 1, &good));
    assert_ptr_equal(block, computed.blocks[0]);
    scene.server = other;
    cuda_scene_attend(&scene, block);
    scene.server = server;
    assert_int_equal(fake_cuda_report_count(), 0);
    kv_ok(kvb_op_release(rig->kv, op));
    fake_cuda_release(server);
    mv_step(rig);
    kv_unref(rig, block);
    mv_drop(rig, &computed);
    cuda_ok(cudaStreamSynchronize(other));
    cuda_ok(cudaStreamDestroy(other));
    cuda_scene_close(&scene);
}

static void test_stream_cannot_wait_for_a_joined_block_whose_fence_is_part_of_a_graph(void **state)
{
    (void)state;
    struct cuda_scene scene;
    struct mv_run computed;
    struct mv_done done;
    cuda_scene_init(&scene, 4, 4);
    cuda_scene_open(&scene);
    struct kvb_op *op = join_computed(&scene, &computed, &done);
    fake_cuda_fail("cudaEventQuery", 1, cudaErrorCapturedEvent, FAKE_CUDA_ONCE);
    mv_step(&scene.rig);
    kv_expect(kvb_op_wait_stream(scene.rig.kv, op, scene.server, KVB_ALL_LAYERS), KVB_EINVAL);
    kv_ok(kvb_op_release(scene.rig.kv, op));
    mv_drop(&scene.rig, &computed);
    cuda_scene_close(&scene);
}

static void test_fence_covers_those_given_before_it(void **state)
{
    (void)state;
    struct cuda_scene scene;
    struct mv_run run;
    cudaStream_t other;
    cuda_scene_init(&scene, 4, 4);
    cuda_scene_open(&scene);
    cuda_ok(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    struct kvb_fence first = cuda_scene_fence(&scene);
    struct kvb_fence second = {.kind = KVB_FENCE_CUDA_STREAM, .handle = (uint64_t)(uintptr_t)other};
    fake_cuda_hold(scene.server);
    cuda_scene_store(&scene, &run, 1, 1, &first);
    kv_ok(kvb_block_offload(scene.rig.kv, run.blocks, 1, 50, &second,
                            NULL)); /* must not make it forget the first */
    mv_step(&scene.rig);
    assert_int_equal(mv_lane(&scene.rig, KVB_TIER_DEVICE, KVB_TIER_HOST).transferred, 0);
    fake_cuda_release(scene.server);
    mv_step(&scene.rig);
    assert_int_equal(mv_lane(&scene.rig, KVB_TIER_DEVICE, KVB_TIER_HOST).transferred, 1);
    mv_drop(&scene.rig, &run);
    cuda_ok(cudaStreamDestroy(other));
    cuda_scene_close(&scene);
}

static void test_op_whose_copy_has_no_end_to_wait_for_says_try_again(void **state)
{
    (void)state;
    struct rising r;
    start_rising(&r, KVB_ONBOARD_LAYERS);
    struct kv_rig *rig = &r.scene.rig;
    fake_cuda_fail("cudaEventRecord", KV_LAYERS + 1, cudaErrorMemoryAllocation,
                   FAKE_CUDA_ONCE); /* behind the last layer */
    assert_int_equal(kvb_manager_poll(rig->kv, KVB_FOREVER), 0);
    uint64_t tasks = fake_cuda_tasks_enqueued();
    kv_expect(kvb_op_wait_stream(rig->kv, r.op, r.scene.server, KVB_ALL_LAYERS), KVB_EAGAIN);
    kv_expect(kvb_op_wait_stream(rig->kv, r.op, r.scene.server, 0), KVB_EAGAIN);
    assert_int_equal(fake_cuda_tasks_enqueued(), tasks);
    fake_cuda_release(NULL);
    mv_step(rig);
    kv_ok(kvb_op_wait_stream(rig->kv, r.op, r.scene.server,
                             KVB_ALL_LAYERS)); /* nothing is good, so nothing is waited for */
    assert_int_equal(mv_take(rig, &r.run, r.op), 0);
    mv_drop_taken(rig, &r.run);
    cuda_scene_close(&r.scene);
}

static void test_op_that_is_over_needs_no_wait(void **state)
{
    (void)state;
    struct rising r;
    start_rising(&r, 0);
    fake_cuda_release(NULL);
    mv_step(&r.scene.rig);
    uint64_t tasks = fake_cuda_tasks_enqueued();
    kv_ok(kvb_op_wait_stream(r.scene.rig.kv, r.op, r.scene.server, KVB_ALL_LAYERS));
    assert_int_equal(fake_cuda_tasks_enqueued(), tasks);
    kv_expect(kvb_op_wait_stream(r.scene.rig.kv, r.op, r.scene.server, KV_LAYERS), KVB_EINVAL);
    kv_expect(kvb_op_wait_stream(r.scene.rig.kv, r.op, NULL, KVB_ALL_LAYERS), KVB_EINVAL);
    end_rising(&r);
}

static void test_op_behind_a_counter_fence_says_try_again(void **state)
{
    (void)state;
    struct rising r;
    cuda_scene_init(&r.scene, 4, 4);
    cuda_scene_open(&r.scene);
    struct kv_rig *rig = &r.scene.rig;
    struct kvb_fence fence = {.kind = KVB_FENCE_COUNTER, .handle = 5};
    mv_park(rig, &r.run, KVB_TIER_HOST, 3, 1);
    assert_int_equal(mv_match(rig, &r.run), 1);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, &fence, r.targets, NULL));
    struct kvb_onboard request = mv_request(r.run.blocks, r.targets, 1, &r.done);
    kv_ok(kvb_onboard(rig->kv, &request, &r.op));
    mv_drop(rig, &r.run);
    mv_step(rig);
    kv_expect(kvb_op_wait_stream(rig->kv, r.op, r.scene.server, KVB_ALL_LAYERS), KVB_EAGAIN);
    mv_signal(rig, 5);
    mv_step(rig);
    kv_ok(kvb_op_wait_stream(rig->kv, r.op, r.scene.server, KVB_ALL_LAYERS));
    assert_int_equal(mv_take(rig, &r.run, r.op), 1);
    mv_drop_taken(rig, &r.run);
    cuda_scene_close(&r.scene);
}

/* ---- Numbers ------------------------------------------------------------------------------------------------------ */

static cudaStream_t held_stream(void)
{
    cudaStream_t stream;
    cuda_ok(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    fake_cuda_hold(stream);
    return stream;
}

static uint64_t import_stream(struct kvbi_cuda_fences *fences, cudaStream_t stream)
{
    struct kvb_fence fence = {.kind = KVB_FENCE_CUDA_STREAM, .handle = (uint64_t)(uintptr_t)stream};
    uint64_t number = 0;
    kv_ok(kvbi_cuda_fences_import(fences, &fence, &number, NULL));
    return number;
}

/* A call has taken the second number and has not got to its stream yet, while a third one is there to be waited for. */
static void test_number_that_was_left_out_is_waited_for_once_it_is_recorded(void **state)
{
    (void)state;
    struct kvbi_memory memory;
    struct kvbi_cuda *cuda = NULL;
    struct kvbi_cuda_fences fences;
    struct kvbi_cuda_scope scope;
    cudaStream_t streams[3], ours;
    uint64_t waited = 0;
    char message[200];
    kv_device_start(NULL, 0);
    assert_int_equal(kvbi_memory_init(&memory, NULL), 0);
    assert_int_equal(kvbi_cuda_open(&cuda, &memory, 0, message, sizeof message), 0);
    assert_int_equal(kvbi_cuda_fences_create(&fences, cuda, NULL), 0);
    cuda_ok(cudaSetDevice(0));
    cuda_ok(cudaStreamCreateWithFlags(&ours, cudaStreamNonBlocking));
    for (uint32_t i = 0; i < 3; i++) {
        streams[i] = held_stream();
        assert_int_equal(import_stream(&fences, streams[i]), i + 1);
    }
    fences.ring[2].recorded = false;
    kvbi_cuda_enter(cuda, &scope);
    cuda_ok(kvbi_cuda_fences_wait(&fences, ours, &waited, 3));
    assert_int_equal(waited, 1);
    fences.ring[2].recorded = true;
    cuda_ok(kvbi_cuda_fences_wait(&fences, ours, &waited, 3));
    assert_int_equal(waited, 3);
    kvbi_cuda_leave(&scope);
    fake_cuda_release(streams[0]);
    fake_cuda_release(streams[2]);
    fake_cuda_settle();
    assert_int_equal(cudaStreamQuery(ours), cudaErrorNotReady); /* behind the second */
    fake_cuda_release(streams[1]);
    cuda_ok(cudaStreamSynchronize(ours));
    for (uint32_t i = 0; i < 3; i++)
        cuda_ok(cudaStreamDestroy(streams[i]));
    cuda_ok(cudaStreamDestroy(ours));
    kvbi_cuda_fences_destroy(&fences);
    kvbi_cuda_close(cuda, NULL);
    assert_int_equal(kv_device_end(), 0);
}

/* ---- What is no fence --------------------------------------------------------------------------------------------- */

static void expect_refused(struct cuda_scene *scene, uint32_t tier, uint32_t kind, uint64_t handle,
                           int code)
{
    struct kvb_fence fence = {.kind = kind, .handle = handle};
    struct kvb_block *block = NULL;
    kv_expect(kvb_alloc(scene->rig.kv, tier, 1, &fence, &block, NULL), code);
    assert_null(block);
    kv_check(&scene->rig);
}

static void test_default_streams_are_refused(void **state)
{
    (void)state;
    struct cuda_scene scene;
    cuda_scene_init(&scene, 4, 4);
    cuda_scene_open(&scene);
    for (uint64_t handle = 0; handle <= 2; handle++)
        expect_refused(&scene, KVB_TIER_DEVICE, KVB_FENCE_CUDA_STREAM, handle, KVB_EINVAL);
    expect_refused(&scene, KVB_TIER_DEVICE, KVB_FENCE_CUDA_EVENT, 0, KVB_EINVAL);
    assert_true(kv_log_has(&scene.rig.log, "default stream"));
    cuda_scene_close(&scene);
}

static void test_fence_of_the_gpu_on_a_host_block_is_unsupported(void **state)
{
    (void)state;
    struct cuda_scene scene;
    cuda_scene_init(&scene, 4, 4);
    cuda_scene_open(&scene);
    expect_refused(&scene, KVB_TIER_HOST, KVB_FENCE_CUDA_STREAM, (uint64_t)(uintptr_t)scene.server,
                   KVB_EUNSUPPORTED);
    cuda_scene_close(&scene);
}

static void test_counter_from_2_to_the_63_is_refused(void **state)
{
    (void)state;
    struct cuda_scene scene;
    cuda_scene_init(&scene, 4, 4);
    cuda_scene_open(&scene);
    expect_refused(&scene, KVB_TIER_DEVICE, KVB_FENCE_COUNTER, UINT64_C(1) << 63, KVB_EINVAL);
    cuda_scene_close(&scene);
}

static void test_fences_are_bounded_and_come_back(void **state)
{
    (void)state;
    struct cuda_scene scene;
    struct kvb_block *block = NULL;
    cuda_scene_init(&scene, 4, 4);
    cuda_scene_open(&scene);
    fake_cuda_hold(scene.server);
    cuda_scene_attend(&scene, (block = kv_alloc(&scene.rig, KVB_TIER_DEVICE)));
    struct kvb_fence fence = cuda_scene_fence(&scene);
    int code = 0;
    uint32_t given = 0;
    for (; code == 0 && given < 5000; given += code == 0) {
        struct kvb_block *other = NULL;
        code = kvb_alloc(scene.rig.kv, KVB_TIER_DEVICE, 1, &fence, &other, NULL);
        if (code == 0)
            kv_unref(&scene.rig, other);
    }
    kv_expect(code, KVB_EAGAIN);
    assert_int_equal(given, 1024);
    fake_cuda_release(scene.server);
    fake_cuda_settle();
    struct kvb_block *other = NULL;
    kv_ok(kvb_alloc(scene.rig.kv, KVB_TIER_DEVICE, 1, &fence, &other, NULL));
    kv_unref(&scene.rig, other);
    kv_unref(&scene.rig, block);
    cuda_scene_close(&scene);
}

static void test_call_that_finds_no_room_spends_no_fence(void **state)
{
    (void)state;
    struct cuda_scene scene;
    struct kvb_block *blocks[4], *more[2];
    uint32_t missing = 0;
    cuda_scene_init(&scene, 4, 4);
    cuda_scene_open(&scene);
    kv_ok(kvb_alloc(scene.rig.kv, KVB_TIER_DEVICE, 4, NULL, blocks, NULL));
    fake_cuda_hold(scene.server);
    cuda_scene_attend(&scene, blocks[0]);
    struct kvb_fence fence = cuda_scene_fence(&scene);
    unsigned before = fake_cuda_calls("cudaEventRecord");
    kv_expect(kvb_alloc(scene.rig.kv, KVB_TIER_DEVICE, 2, &fence, more, &missing), KVB_ENOSPC);
    assert_int_equal(missing, 2);
    assert_int_equal(fake_cuda_calls("cudaEventRecord"), before);
    fake_cuda_release(scene.server);
    kv_ok(kvb_block_unref(scene.rig.kv, blocks, 4, NULL));
    cuda_scene_close(&scene);
}

/* ---- Captures ----------------------------------------------------------------------------------------------------- */

static void test_capture_survives_every_call_and_its_stream_is_refused(void **state)
{
    (void)state;
    struct cuda_scene scene;
    struct mv_run run;
    cudaStream_t captured;
    cuda_scene_init(&scene, 4, 4);
    cuda_scene_open(&scene);
    cuda_ok(cudaStreamCreateWithFlags(&captured, cudaStreamNonBlocking));
    cuda_ok(fake_cuda_capture_begin(captured, cudaStreamCaptureModeGlobal));
    struct kvb_fence fence = cuda_scene_fence(&scene);
    cuda_scene_store(&scene, &run, 1, 2, &fence);
    mv_offer(&scene.rig, run.blocks[0], 50);
    mv_step(&scene.rig);
    assert_int_equal(mv_lane(&scene.rig, KVB_TIER_DEVICE, KVB_TIER_HOST).transferred, 1);
    expect_refused(&scene, KVB_TIER_DEVICE, KVB_FENCE_CUDA_STREAM, (uint64_t)(uintptr_t)captured,
                   KVB_EINVAL);
    assert_true(kv_log_has(&scene.rig.log, "captured into a graph"));
    cuda_ok(fake_cuda_capture_end(captured));
    enum cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
    cuda_ok(cudaThreadExchangeStreamCaptureMode(&mode));
    assert_int_equal(mode, cudaStreamCaptureModeGlobal); /* as the server's thread had it */
    cuda_ok(cudaStreamDestroy(captured));
    mv_drop(&scene.rig, &run);
    cuda_scene_close(&scene);
}

/* The stream begins to be captured between the question and the record. */
static void test_stream_that_is_captured_meanwhile_is_refused_and_costs_nothing(void **state)
{
    (void)state;
    struct cuda_scene scene;
    struct mv_run run;
    cuda_scene_init(&scene, 4, 4);
    cuda_scene_open(&scene);
    fake_cuda_fail("cudaStreamIsCapturing", 2, cudaErrorStreamCaptureInvalidated, FAKE_CUDA_ONCE);
    expect_refused(&scene, KVB_TIER_DEVICE, KVB_FENCE_CUDA_STREAM,
                   (uint64_t)(uintptr_t)scene.server, KVB_EINVAL);
    struct kvb_fence fence = cuda_scene_fence(&scene);
    cuda_scene_store(&scene, &run, 1, 1, &fence);
    mv_offer(&scene.rig, run.blocks[0], 50);
    mv_step(&scene.rig);
    assert_int_equal(mv_lane(&scene.rig, KVB_TIER_DEVICE, KVB_TIER_HOST).transferred, 1);
    mv_drop(&scene.rig, &run);
    cuda_scene_close(&scene);
}

static void test_fence_that_has_become_part_of_a_graph_fails_what_waits_for_it(void **state)
{
    (void)state;
    struct cuda_scene scene;
    struct mv_run run;
    cuda_scene_init(&scene, 4, 4);
    cuda_scene_open(&scene);
    struct kvb_fence fence = cuda_scene_fence(&scene);
    cuda_scene_store(&scene, &run, 1, 1, &fence);
    mv_offer(&scene.rig, run.blocks[0], 50);
    fake_cuda_fail("cudaEventQuery", 1, cudaErrorCapturedEvent, FAKE_CUDA_ONCE);
    mv_step(&scene.rig);
    assert_int_equal(kv_stats(&scene.rig).tiers[KVB_TIER_DEVICE].out_of_service, 0);
    assert_int_equal(mv_lane(&scene.rig, KVB_TIER_DEVICE, KVB_TIER_HOST).failed_transfer, 1);
    assert_true(kv_log_has(&scene.rig.log, "what waits for it fails"));
    kv_ok(kvb_block_offload(scene.rig.kv, run.blocks, 1, 50, &fence,
                            NULL)); /* with a point that there is */
    mv_step(&scene.rig);
    assert_int_equal(mv_lane(&scene.rig, KVB_TIER_DEVICE, KVB_TIER_HOST).transferred, 1);
    mv_drop(&scene.rig, &run);
    cuda_scene_close(&scene);
}

/* The block's next owner knows nothing of that fence, and its transfers do not fail for it. */
static void test_fence_that_has_become_part_of_a_graph_ends_with_its_blocks_owner(void **state)
{
    (void)state;
    struct cuda_scene scene;
    struct mv_run run, host;
    struct mv_done done;
    cuda_scene_init(&scene, 1, 4);
    cuda_scene_open(&scene);
    mv_park(&scene.rig, &host, KVB_TIER_HOST, 2, 1);
    struct kvb_fence fence = cuda_scene_fence(&scene);
    cuda_scene_store(&scene, &run, 1, 1, &fence);
    mv_offer(&scene.rig, run.blocks[0], 50);
    fake_cuda_fail("cudaEventQuery", 1, cudaErrorCapturedEvent, FAKE_CUDA_ONCE);
    mv_step(&scene.rig);
    assert_int_equal(mv_lane(&scene.rig, KVB_TIER_DEVICE, KVB_TIER_HOST).failed_transfer, 1);
    mv_drop(&scene.rig, &run);
    cuda_ok(cudaStreamSynchronize(
        scene.server)); /* the server knows that its step is over, and needs no fence */
    struct kvb_op *op = mv_bring_up(&scene.rig, &host, KVB_TIER_DEVICE, &done);
    mv_step(&scene.rig);
    assert_int_equal(mv_take(&scene.rig, &host, op), 1);
    mv_drop_taken(&scene.rig, &host);
    cuda_scene_close(&scene);
}

/* A fence that nobody can wait for does not stand in the way of others, though nothing is moved that would look at it. */
static void test_fence_that_has_become_part_of_a_graph_does_not_use_up_the_others(void **state)
{
    (void)state;
    struct cuda_scene scene;
    struct kvb_block *block = NULL;
    cuda_scene_init(&scene, 4, 4);
    cuda_scene_open(&scene);
    struct kvb_fence fence = cuda_scene_fence(&scene);
    for (uint32_t i = 0; i < 1024; i++) {
        kv_ok(kvb_alloc(scene.rig.kv, KVB_TIER_DEVICE, 1, &fence, &block, NULL));
        kv_unref(&scene.rig, block);
    }
    fake_cuda_settle();
    fake_cuda_fail("cudaEventQuery", 1, cudaErrorCapturedEvent, FAKE_CUDA_ONCE);
    kv_ok(kvb_alloc(scene.rig.kv, KVB_TIER_DEVICE, 1, &fence, &block, NULL));
    kv_unref(&scene.rig, block);
    cuda_scene_close(&scene);
}

static void test_copy_whose_event_a_capture_stands_before_is_over_when_its_stream_says_so(
    void **state)
{
    (void)state;
    struct cuda_scene scene;
    struct mv_run run;
    cuda_scene_init(&scene, 4, 4);
    cuda_scene_open(&scene);
    mv_store(&scene.rig, &run, KVB_TIER_DEVICE, 1, 1);
    mv_offer(&scene.rig, run.blocks[0], 50);
    fake_cuda_fail("cudaEventQuery", 1, cudaErrorStreamCaptureUnsupported, FAKE_CUDA_ONCE);
    mv_step(&scene.rig);
    assert_int_equal(kv_stats(&scene.rig).tiers[KVB_TIER_DEVICE].out_of_service, 0);
    assert_int_equal(mv_lane(&scene.rig, KVB_TIER_DEVICE, KVB_TIER_HOST).transferred, 1);
    mv_drop(&scene.rig, &run);
    cuda_scene_close(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copy_out_waits_for_the_stream_that_writes),
        cmocka_unit_test(test_copy_out_without_a_fence_is_a_race),
        cmocka_unit_test(test_copy_out_waits_for_an_event_of_the_server),
        cmocka_unit_test(test_waiting_copies_hold_up_nobody),
        cmocka_unit_test(test_fence_given_at_register_holds_the_copy_back),
        cmocka_unit_test(test_later_fence_of_a_block_holds_too),
        cmocka_unit_test(test_onboarding_without_a_fence_passes_any_number_of_waiting_copies),
        cmocka_unit_test(test_copies_down_behind_a_step_leave_room_for_copies_up_behind_it),
        cmocka_unit_test(test_waiting_copies_leave_buffers_to_the_others),
        cmocka_unit_test(test_copy_in_waits_for_the_stream_that_reads),
        cmocka_unit_test(test_copy_in_without_a_fence_is_a_race),
        cmocka_unit_test(test_fence_of_the_onboarding_itself_holds_the_copy_back),
        cmocka_unit_test(test_block_that_stands_in_for_a_cancelled_target_waits_for_its_fence),
        cmocka_unit_test(test_attention_waits_on_its_stream_for_blocks_on_their_way),
        cmocka_unit_test(test_attention_that_does_not_wait_is_a_race),
        cmocka_unit_test(test_layer_0_may_run_while_layer_1_arrives),
        cmocka_unit_test(test_layers_are_waited_for_beside_an_op_without_them),
        cmocka_unit_test(test_op_that_joins_waits_for_the_transfer_of_the_other),
        cmocka_unit_test(test_stream_waits_for_the_fence_of_a_computed_block_that_is_joined),
        cmocka_unit_test(test_stream_cannot_wait_for_a_joined_block_whose_fence_is_part_of_a_graph),
        cmocka_unit_test(test_fence_covers_those_given_before_it),
        cmocka_unit_test(test_op_whose_copy_has_no_end_to_wait_for_says_try_again),
        cmocka_unit_test(test_op_that_is_over_needs_no_wait),
        cmocka_unit_test(test_op_behind_a_counter_fence_says_try_again),
        cmocka_unit_test(test_number_that_was_left_out_is_waited_for_once_it_is_recorded),
        cmocka_unit_test(test_default_streams_are_refused),
        cmocka_unit_test(test_fence_of_the_gpu_on_a_host_block_is_unsupported),
        cmocka_unit_test(test_counter_from_2_to_the_63_is_refused),
        cmocka_unit_test(test_fences_are_bounded_and_come_back),
        cmocka_unit_test(test_call_that_finds_no_room_spends_no_fence),
        cmocka_unit_test(test_capture_survives_every_call_and_its_stream_is_refused),
        cmocka_unit_test(test_stream_that_is_captured_meanwhile_is_refused_and_costs_nothing),
        cmocka_unit_test(test_fence_that_has_become_part_of_a_graph_fails_what_waits_for_it),
        cmocka_unit_test(test_fence_that_has_become_part_of_a_graph_ends_with_its_blocks_owner),
        cmocka_unit_test(test_fence_that_has_become_part_of_a_graph_does_not_use_up_the_others),
        cmocka_unit_test(
            test_copy_whose_event_a_capture_stands_before_is_over_when_its_stream_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
