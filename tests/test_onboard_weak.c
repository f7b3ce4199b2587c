/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Weak handles of blocks that an operation fills: they upgrade while the operation holds the block,
 * and once they are stale they are so for ever, whatever the transfer does with the slot
 * afterwards.
 */
#include "support/move_test.h"

#include "api/manager.h"

struct scene {
    struct kv_rig rig;
    struct mv_run run;
    struct kvb_block *target;
    struct kvb_weak before, during; /* of the target, taken before the fill and while it goes on */
    struct kvb_op *op;
};

/* The transfer into the target is with the engine, behind fence 1. */
static void open_scene(struct scene *scene, uint64_t generation)
{
    struct kvb_fence fence = {.kind = KVB_FENCE_COUNTER, .handle = 1};
    memset(scene, 0, sizeof *scene);
    static const struct kvbi_hooks keeps = {.keeps =
                                                true}; /* what the engine has cannot be recalled */
    mv_two_tiers(&scene->rig, 4, 4, KVB_OFFLOAD_MANUAL);
    kv_rig_open_hooked(&scene->rig, &keeps);
    mv_park(&scene->rig, &scene->run, KVB_TIER_HOST, 1, 1);
    scene->target = kv_alloc(&scene->rig, KVB_TIER_DEVICE);
    if (generation != 0) {
        kvbi_testing_set_generation(scene->rig.kv, scene->target, generation);
    }
    kv_ok(kvb_block_weak(scene->rig.kv, scene->target, &scene->before));
    assert_int_equal(mv_match(&scene->rig, &scene->run), 1);
    struct kvb_onboard request = mv_request(scene->run.blocks, &scene->target, 1, NULL);
    request.fence = &fence;
    kv_ok(kvb_onboard(scene->rig.kv, &request, &scene->op));
    mv_drop(&scene->rig, &scene->run);
    mv_step(&scene->rig);
    kv_ok(kvb_block_weak(scene->rig.kv, scene->target, &scene->during));
}

static int upgrade(struct scene *scene, const struct kvb_weak *weak)
{
    struct kvb_block *block = NULL;
    int error = kvb_weak_upgrade(scene->rig.kv, weak, 1, &block, NULL);
    if (error == 0) {
        kv_unref(&scene->rig, block);
    }
    return error;
}

static void expect_both(struct scene *scene, int code)
{
    kv_expect(upgrade(scene, &scene->before), code);
    kv_expect(upgrade(scene, &scene->during), code);
}

static void close_scene(struct scene *scene)
{
    kv_ok(kvb_op_release(scene->rig.kv, scene->op));
    mv_step(&scene->rig);
    mv_expect_books(&scene->rig, true);
    kv_rig_close(&scene->rig);
}

static void test_weak_handle_of_a_target_upgrades_until_it_is_handed_out_and_after(void **state)
{
    (void)state;
    struct scene scene;
    open_scene(&scene, 0);
    expect_both(&scene, 0);
    mv_signal(&scene.rig, 1);
    mv_step(&scene.rig);
    expect_both(&scene, 0);
    assert_int_equal(mv_take(&scene.rig, &scene.run, scene.op), 1);
    scene.op = NULL;
    expect_both(&scene, 0);
    mv_drop(&scene.rig, &scene.run);
    expect_both(&scene, 0);
    close_scene(&scene);
}

static void test_weak_handle_of_a_target_that_is_given_up_is_stale_for_ever(void **state)
{
    (void)state;
    struct scene scene;
    open_scene(&scene, 0);
    kv_ok(kvb_op_cancel(scene.rig.kv, scene.op));
    mv_step(&scene.rig);
    expect_both(&scene, KVB_ESTALE);
    mv_signal(&scene.rig, 1);
    mv_step(&scene.rig);
    assert_int_equal(mv_in_tier(&scene.rig, &scene.run, KVB_TIER_DEVICE), 1); /* it has come */
    expect_both(&scene, KVB_ESTALE);
    mv_expect_in(&scene.rig, &scene.run, KVB_TIER_DEVICE);
    expect_both(&scene, KVB_ESTALE);
    close_scene(&scene);
}

/* Somebody has upgraded: the block is his, and stays what it is until he lets go. */
static void test_weak_handle_of_a_target_is_stale_from_the_last_holder_on(void **state)
{
    (void)state;
    struct scene scene;
    struct kvb_block *held = NULL;
    open_scene(&scene, 0);
    kv_ok(kvb_weak_upgrade(scene.rig.kv, &scene.before, 1, &held, NULL));
    kv_ok(kvb_op_cancel(scene.rig.kv, scene.op));
    mv_step(&scene.rig);
    expect_both(&scene, 0);
    kv_unref(&scene.rig, held);
    expect_both(&scene, KVB_ESTALE);
    mv_signal(&scene.rig, 1);
    mv_step(&scene.rig);
    expect_both(&scene, KVB_ESTALE);
    close_scene(&scene);
}

static void test_target_without_another_generation_is_given_up_with_its_content(void **state)
{
    (void)state;
    struct scene scene;
    open_scene(&scene, KVBI_GENERATION_MAX);
    kv_ok(kvb_op_cancel(scene.rig.kv, scene.op));
    mv_step(&scene.rig);
    expect_both(&scene, KVB_ESTALE);
    mv_signal(&scene.rig, 1);
    mv_step(&scene.rig);
    expect_both(&scene, KVB_ESTALE);
    assert_int_equal(mv_in_tier(&scene.rig, &scene.run, KVB_TIER_DEVICE), 0);
    assert_int_equal(kv_stats(&scene.rig).tiers[KVB_TIER_DEVICE].retired_count, 1);
    close_scene(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weak_handle_of_a_target_upgrades_until_it_is_handed_out_and_after),
        cmocka_unit_test(test_weak_handle_of_a_target_that_is_given_up_is_stale_for_ever),
        cmocka_unit_test(test_weak_handle_of_a_target_is_stale_from_the_last_holder_on),
        cmocka_unit_test(test_target_without_another_generation_is_given_up_with_its_content),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
