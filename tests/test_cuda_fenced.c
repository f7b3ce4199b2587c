/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What waits for a ticket of the GPU's in front of a lane, as test_fenced.c has it for the
 * counter's: what is ready passes, and nobody but the GPU says when the ticket is reached.
 */
#include "support/cuda_scene.h"
#include "support/kv_wait.h"

/*
 * An engine with one place for the lane, and a block whose kernel is held, offered. The server's
 * stream has nothing else.
 */
static void open_fenced(struct cuda_scene *scene, struct mv_run *late, uint32_t progress)
{
    cuda_scene_init(scene, 4, 4);
    mv_bounds(&scene->rig, 0, 1, 1, 1, 8);
    scene->rig.config.progress = progress;
    cuda_scene_open(scene);
    struct kvb_fence fence = cuda_scene_fence(scene);
    fake_cuda_hold(scene->server);
    cuda_scene_store(scene, late, 1, 1, &fence);
}

static void test_ready_offer_passes_one_behind_a_step(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run late, ready;
    open_fenced(scene, &late, KVB_PROGRESS_POLL);
    mv_offer(rig, late.blocks[0], 90);
    mv_step(rig);
    assert_int_equal(cuda_scene_down(scene).queued, 1);
    mv_store(rig, &ready, KVB_TIER_DEVICE, 2, 1);
    mv_offer(rig, ready.blocks[0], 10);
    mv_step(rig);
    assert_int_equal(cuda_scene_down(scene).transferred, 1);
    assert_int_equal(cuda_scene_down(scene).queued, 1);
    fake_cuda_release(scene->server);
    mv_step(rig);
    assert_int_equal(cuda_scene_down(scene).transferred, 2);
    mv_drop(rig, &late);
    mv_drop(rig, &ready);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    mv_expect_in(rig, &late, KVB_TIER_HOST);
    mv_expect_books(rig, true);
}

/* A descriptor becomes readable now and then, though the engine has nothing to do. */
static void test_who_flushes_is_woken_by_the_end_of_a_step(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run late;
    open_fenced(scene, &late, KVB_PROGRESS_POLL);
    mv_offer(rig, late.blocks[0], 90);
    mv_step(rig);
    fake_cuda_release(scene->server);
    fake_cuda_quiesce();
    kv_ok(kvb_manager_flush(rig->kv, KVB_FOREVER));
    assert_int_equal(cuda_scene_down(scene).transferred, 1);
    mv_drop(rig, &late);
}

static void signal_done(void *arg, struct kvb_op *op, int status, uint32_t good_count)
{
    (void)op, (void)status, (void)good_count;
    kv_wait_signal(arg);
}

static void test_thread_is_woken_by_the_end_of_a_step(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run late, run;
    struct kv_wait done;
    struct kvb_op *op = NULL;
    struct kvb_block *target = NULL;
    open_fenced(scene, &late, KVB_PROGRESS_THREAD);
    kv_wait_init(&done);
    struct kvb_fence fence = cuda_scene_fence(scene);
    mv_store(rig, &run, KVB_TIER_HOST, 2, 1);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, &fence, &target, NULL));
    struct kvb_onboard request = mv_request(run.blocks, &target, 1, NULL);
    request.done = signal_done;
    request.arg = &done;
    kv_ok(kvb_onboard(rig->kv, &request, &op));
    kv_expect(kvb_op_wait(rig->kv, op, 0), KVB_ETIMEDOUT);
    fake_cuda_release(scene->server);
    fake_cuda_quiesce();
    assert_true(kv_wait_for(&done, 1));
    mv_drop(rig, &run);
    mv_drop(rig, &late);
    assert_int_equal(mv_take(rig, &run, op), 1);
    mv_drop(rig, &run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(cuda_scene, test_ready_offer_passes_one_behind_a_step),
        TEST(cuda_scene, test_who_flushes_is_woken_by_the_end_of_a_step),
        TEST(cuda_scene, test_thread_is_woken_by_the_end_of_a_step),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
