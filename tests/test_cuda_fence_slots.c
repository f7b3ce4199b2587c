/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tickets of the GPU's order outlive who named them, as those of test_fence_slots.c do: a copy into
 * a slot of the device waits for the kernel that writes what was there before. The stand-in reports
 * the race wherever it does not.
 */
#include "support/cuda_scene.h"

/* A content whose kernels are held, parked. */
static void park_late(struct cuda_scene *scene, struct mv_run *old, uint32_t count)
{
    struct kvb_fence fence = cuda_scene_fence(scene);
    fake_cuda_hold(scene->server);
    cuda_scene_store(scene, old, 1, count, &fence);
    mv_drop(&scene->rig, old);
}

static void test_target_of_a_new_owner_waits_for_the_former_ones_kernel(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run old, run;
    struct mv_done done;
    cuda_scene_open_tiers(scene, 1, 2);
    mv_park(rig, &run, KVB_TIER_HOST, 2, 1);
    park_late(scene, &old, 1);
    struct kvb_op *op = mv_bring_up(rig, &run, KVB_TIER_DEVICE, &done);
    mv_step(rig);
    assert_int_equal(done.calls, 0);
    fake_cuda_release(scene->server);
    mv_step(rig);
    assert_int_equal(done.calls, 1);
    assert_int_equal(mv_take(rig, &run, op), 1);
    mv_drop(rig, &run);
}

static void test_stand_in_waits_for_the_kernel_that_writes_its_memory(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run old, first, second;
    struct mv_done done;
    struct kvb_block *target = NULL;
    struct kvb_op *op = NULL;
    cuda_scene_open_tiers(scene, 2, 4);
    struct kvb_fence fence = cuda_scene_fence(scene);
    mv_park(rig, &first, KVB_TIER_HOST, 2, 1);
    mv_park(rig, &second, KVB_TIER_HOST, 3, 1);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, &fence, &target, NULL));
    park_late(scene, &old, 1);
    assert_int_equal(mv_match(rig, &first), 1);
    struct kvb_onboard request = mv_request(first.blocks, &target, 1, &done);
    request.fence = &fence; /* keeps it on its way until it is cancelled */
    kv_ok(kvb_onboard(rig->kv, &request, &op));
    mv_drop(rig, &first);
    mv_step(rig);
    kv_ok(kvb_op_cancel(rig->kv, op));
    mv_step(rig);
    assert_int_equal(done.status, KVB_ECANCELED);
    assert_int_equal(mv_take(rig, &first, op), 0);
    assert_non_null(first.blocks[0]);
    assert_ptr_not_equal(first.blocks[0], target);

    assert_int_equal(mv_match(rig, &second), 1);
    request = mv_request(second.blocks, first.blocks, 1, &done);
    kv_ok(kvb_onboard(rig->kv, &request, &op));
    mv_drop(rig, &second);
    mv_step(rig);
    assert_int_equal(done.calls, 0);
    fake_cuda_release(scene->server);
    mv_step(rig);
    assert_int_equal(done.calls, 1);
    assert_int_equal(mv_take(rig, &second, op), 1);
    mv_drop(rig, &second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(cuda_scene, test_target_of_a_new_owner_waits_for_the_former_ones_kernel),
        TEST(cuda_scene, test_stand_in_waits_for_the_kernel_that_writes_its_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
