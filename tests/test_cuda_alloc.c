/* SPDX-License-Identifier: Apache-2.0 */
/* The fence of an alloc, and other threads that let go of blocks while it is under way. */
#include "support/cuda_scene.h"

struct other_thread {
    struct cuda_scene *scene;
    const struct mv_run *run;
    bool armed;
};

/*
 * The clock is asked between the fence and the taking, with no lock held: just then another thread matches a parked block, launches
 * attention on the same stream, and lets go.
 */
static uint64_t now_of_another_thread(void *context)
{
    struct other_thread *other = context;
    struct kv_rig *rig = &other->scene->rig;
    struct kvb_hit hit;
    size_t count = 0;
    if (!other->armed)
        return kv_clock_now(&rig->clock);
    other->armed = false;
    struct kvb_query query = kv_query(0, other->run->tokens, KV_TOKENS);
    kv_ok(kvb_match(rig->kv, &query, &hit, 1, &count));
    assert_int_equal(count, 1);
    cuda_scene_attend(other->scene, hit.block);
    kv_ok(kvb_block_unref(rig->kv, &hit.block, 1, NULL));
    return kv_clock_now(&rig->clock);
}

static void open_scene(struct cuda_scene *scene, struct other_thread *other)
{
    cuda_scene_init(scene, 1, 4);
    *other = (struct other_thread){.scene = scene};
    scene->rig.config.clock = (struct kvb_clock){.now_ns = now_of_another_thread, .context = other};
    cuda_scene_open(scene);
}

static void test_alloc_fence_covers_what_was_let_go_of_before_the_last_block_was_taken(void **state)
{
    (void)state;
    struct cuda_scene scene;
    struct other_thread other;
    struct mv_run host, parked;
    struct mv_done done;
    struct kvb_op *op = NULL;
    struct kvb_block *target = NULL;
    open_scene(&scene, &other);
    struct kv_rig *rig = &scene.rig;
    mv_park(rig, &host, KVB_TIER_HOST, 1, 1);
    mv_park(rig, &parked, KVB_TIER_DEVICE, 2, 1);
    assert_int_equal(mv_match(rig, &host), 1);
    fake_cuda_hold(scene.server);
    struct kvb_fence fence = cuda_scene_fence(&scene);
    other.run = &parked;
    other.armed = true;
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, &fence, &target, NULL));
    assert_false(other.armed);
    struct kvb_onboard request = mv_request(host.blocks, &target, 1, &done);
    kv_ok(kvb_onboard(rig->kv, &request, &op));
    mv_drop(rig, &host);
    mv_step(rig);
    assert_int_equal(done.calls, 0); /* it waits for the attention */
    fake_cuda_release(scene.server);
    mv_step(rig);
    assert_int_equal(mv_take(rig, &host, op), 1);
    mv_drop_taken(rig, &host);
    cuda_scene_close(&scene); /* and the stand-in has seen no race */
}

/* The point cannot be taken anew: nothing is handed out, and what was taken is there for the next. */
static void test_alloc_whose_point_cannot_be_taken_anew_gives_everything_back(void **state)
{
    (void)state;
    struct cuda_scene scene;
    struct other_thread other;
    struct mv_run parked;
    struct kvb_block *block = NULL;
    open_scene(&scene, &other);
    struct kv_rig *rig = &scene.rig;
    mv_park(rig, &parked, KVB_TIER_DEVICE, 2, 1);
    struct kvb_fence fence = cuda_scene_fence(&scene);
    other.run = &parked;
    other.armed = true;
    fake_cuda_fail("cudaEventRecord", 2, cudaErrorInvalidValue, FAKE_CUDA_ONCE);
    kv_expect(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, &fence, &block, NULL), KVB_EINVAL);
    assert_false(other.armed);
    assert_null(block);
    kv_check(rig);
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_DEVICE].free_count, 1);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, &fence, &block, NULL));
    kv_unref(rig, block);
    cuda_scene_close(&scene);
}

static void test_alloc_that_nobody_disturbs_spends_one_fence(void **state)
{
    (void)state;
    struct cuda_scene scene;
    struct kvb_block *block = NULL;
    cuda_scene_init(&scene, 1, 4);
    cuda_scene_open(&scene);
    struct kvb_fence fence = cuda_scene_fence(&scene);
    unsigned before = fake_cuda_calls("cudaEventRecord");
    kv_ok(kvb_alloc(scene.rig.kv, KVB_TIER_DEVICE, 1, &fence, &block, NULL));
    assert_int_equal(fake_cuda_calls("cudaEventRecord") - before, 1);
    kv_unref(&scene.rig, block);
    cuda_scene_close(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            test_alloc_fence_covers_what_was_let_go_of_before_the_last_block_was_taken),
        cmocka_unit_test(test_alloc_whose_point_cannot_be_taken_anew_gives_everything_back),
        cmocka_unit_test(test_alloc_that_nobody_disturbs_spends_one_fence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
