/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fence of an alloc, and other threads that let go of blocks while it is under way. The
 * stand-in sees a race where one is not covered.
 */
#include "support/cuda_scene.h"

/* Another thread, in the clock. */
struct disturbed {
    struct cuda_scene scene; /* comes first: *state is that as well */
    const struct mv_run *run;
    bool armed;
};

/*
 * The clock is asked between the fence and the taking, with no lock held: just then another thread
 * matches a parked block, launches attention on the same stream, and lets go.
 */
static uint64_t now_of_another_thread(void *context)
{
    struct disturbed *d = context;
    struct kv_rig *rig = &d->scene.rig;
    struct kvb_hit hit;
    size_t count = 0;
    if (!d->armed)
        return kv_clock_now(&rig->clock);
    d->armed = false;
    struct kvb_query query = kv_query(0, d->run->tokens, KV_TOKENS);
    kv_ok(kvb_match(rig->kv, &query, &hit, 1, &count));
    assert_int_equal(count, 1);
    cuda_scene_attend(&d->scene, hit.block);
    kv_ok(kvb_block_unref(rig->kv, &hit.block, 1, NULL));
    return kv_clock_now(&rig->clock);
}

static int disturbed_setup(void **state)
{
    struct disturbed *d = cuda_scene_make(state, sizeof *d);
    cuda_scene_init(&d->scene, 1, 4);
    d->scene.rig.config.clock = (struct kvb_clock){.now_ns = now_of_another_thread, .context = d};
    cuda_scene_open(&d->scene);
    return 0;
}

#define disturbed_teardown cuda_scene_teardown

static void test_alloc_fence_covers_what_was_let_go_of_before_the_last_block_was_taken(void **state)
{
    struct disturbed *d = *state;
    struct kv_rig *rig = &d->scene.rig;
    struct mv_run host, parked;
    struct mv_done done;
    struct kvb_op *op = NULL;
    struct kvb_block *target = NULL;
    mv_park(rig, &host, KVB_TIER_HOST, 1, 1);
    mv_park(rig, &parked, KVB_TIER_DEVICE, 2, 1);
    assert_int_equal(mv_match(rig, &host), 1);
    fake_cuda_hold(d->scene.server);
    struct kvb_fence fence = cuda_scene_fence(&d->scene);
    d->run = &parked;
    d->armed = true;
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, &fence, &target, NULL));
    assert_false(d->armed);
    struct kvb_onboard request = mv_request(host.blocks, &target, 1, &done);
    kv_ok(kvb_onboard(rig->kv, &request, &op));
    mv_drop(rig, &host);
    mv_step(rig);
    assert_int_equal(done.calls, 0); /* it waits for the attention */
    fake_cuda_release(d->scene.server);
    mv_step(rig);
    assert_int_equal(mv_take(rig, &host, op), 1);
    mv_drop_taken(rig, &host);
}

/*
 * The ticket cannot be taken anew: nothing is handed out, and what was taken is there for the next.
 */
static void test_alloc_whose_ticket_cannot_be_taken_anew_gives_everything_back(void **state)
{
    struct disturbed *d = *state;
    struct kv_rig *rig = &d->scene.rig;
    struct mv_run parked;
    struct kvb_block *block = NULL;
    mv_park(rig, &parked, KVB_TIER_DEVICE, 2, 1);
    struct kvb_fence fence = cuda_scene_fence(&d->scene);
    d->run = &parked;
    d->armed = true;
    fake_cuda_fail("cudaEventRecord", 2, cudaErrorInvalidValue, FAKE_CUDA_ONCE);
    kv_expect(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, &fence, &block, NULL), KVB_EINVAL);
    assert_false(d->armed);
    assert_null(block);
    kv_check(rig);
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_DEVICE].free_count, 1);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, &fence, &block, NULL));
    kv_unref(rig, block);
}

static void test_alloc_that_nobody_disturbs_spends_one_fence(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct kvb_block *block = NULL;
    cuda_scene_open_tiers(scene, 1, 4);
    struct kvb_fence fence = cuda_scene_fence(scene);
    unsigned before = fake_cuda_calls("cudaEventRecord");
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, &fence, &block, NULL));
    assert_int_equal(fake_cuda_calls("cudaEventRecord") - before, 1);
    kv_unref(rig, block);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(disturbed, test_alloc_fence_covers_what_was_let_go_of_before_the_last_block_was_taken),
        TEST(disturbed, test_alloc_whose_ticket_cannot_be_taken_anew_gives_everything_back),
        TEST(cuda_scene, test_alloc_that_nobody_disturbs_spends_one_fence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
