/* SPDX-License-Identifier: Apache-2.0 */
/* Moving up: each mistake of a caller is refused, and changes nothing. */
#include "support/kv_scene.h"
#include "support/move_test.h"

static void test_op_capacity_reached_is_again_until_one_is_released(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct kvb_block *targets[3];
    struct kvb_op *ops[3] = {NULL, NULL, (struct kvb_op *)rig};
    mv_two_tiers(rig, 4, 4, KVB_OFFLOAD_MANUAL);
    rig->config.op_capacity = 2;
    kv_rig_open(rig);
    mv_store(rig, &run, KVB_TIER_HOST, 1, 3);
    mv_alloc_many(rig, KVB_TIER_DEVICE, 3, targets);
    for (uint32_t i = 0; i < 3; i++) {
        struct kvb_onboard request = mv_request(&run.blocks[i], &targets[i], 1, NULL);
        kv_expect(kvb_onboard(rig->kv, &request, &ops[i]), i < 2 ? KVB_OK : KVB_EAGAIN);
    }
    assert_null(ops[2]);
    mv_step(rig);
    struct kvb_onboard request = mv_request(&run.blocks[2], &targets[2], 1, NULL);
    kv_expect(kvb_onboard(rig->kv, &request, &ops[2]), KVB_EAGAIN); /* finished, not released */
    kv_ok(kvb_op_release(rig->kv, ops[0]));
    kv_ok(kvb_onboard(rig->kv, &request, &ops[2]));
    mv_step(rig);
    kv_ok(kvb_op_release(rig->kv, ops[1]));
    kv_ok(kvb_op_release(rig->kv, ops[2]));
    mv_drop(rig, &run);
}

struct bad {
    struct kv_rig rig;
    struct mv_run host, device;
    struct kvb_block *targets[2], *sources[2];
    struct mv_done done;
    struct kvb_onboard request;
};

static int bad_setup(void **state)
{
    (void)kv_scene_begin(state, sizeof(struct bad));
    return 0;
}

#define bad_teardown kv_scene_end

/* Afresh each time. */
static void start_bad(struct bad *bad)
{
    if (bad->rig.kv != NULL)
        kv_rig_close(&bad->rig);
    mv_three_tiers(&bad->rig, 8, 4, 4);
    kv_rig_open(&bad->rig);
    mv_store(&bad->rig, &bad->host, KVB_TIER_HOST, 1, 2);
    mv_store(&bad->rig, &bad->device, KVB_TIER_DEVICE, 2, 1);
    mv_alloc_many(&bad->rig, KVB_TIER_DEVICE, 2, bad->targets);
    memcpy(bad->sources, bad->host.blocks, sizeof bad->sources);
    bad->request = mv_request(bad->sources, bad->targets, 2, &bad->done);
}

/* The request is refused with `code`, nothing has changed, and without the mistake it works. */
static void end_bad(struct bad *bad, int code)
{
    struct kvb_op *op = (struct kvb_op *)bad;
    kv_expect(kvb_onboard(bad->rig.kv, &bad->request, &op), code);
    assert_null(op);
    kv_check(&bad->rig);
    mv_step(&bad->rig);
    assert_int_equal(bad->done.calls, 0);
    assert_int_equal(mv_up(&bad->rig).offered, 0);
    assert_int_equal(kv_stats(&bad->rig).ops_started, 0);
    assert_int_equal(kv_describe(&bad->rig, bad->targets[0]).state, KVB_STATE_EMPTY);
    memcpy(bad->sources, bad->host.blocks, sizeof bad->sources);
    bad->request = mv_request(bad->sources, bad->targets, 2, &bad->done);
    kv_ok(kvb_onboard(bad->rig.kv, &bad->request, &op));
    mv_step(&bad->rig);
    mv_expect_done(&bad->done, 0, 2);
    kv_ok(kvb_op_release(bad->rig.kv, op));
    mv_drop(&bad->rig, &bad->host);
    mv_drop(&bad->rig, &bad->device);
}

static void test_onboard_of_nothing_is_invalid(void **state)
{
    struct bad *bad = *state;
    start_bad(bad);
    bad->request.count = 0;
    end_bad(bad, KVB_EINVAL);
}

static void test_onboard_without_arrays_is_invalid(void **state)
{
    struct bad *bad = *state;
    start_bad(bad);
    bad->request.sources = NULL;
    end_bad(bad, KVB_EINVAL);
    start_bad(bad);
    bad->request.targets = NULL;
    end_bad(bad, KVB_EINVAL);
}

static void test_onboard_with_an_unknown_flag_or_size_is_invalid(void **state)
{
    struct bad *bad = *state;
    start_bad(bad);
    bad->request.flags = 1u << 31;
    end_bad(bad, KVB_EINVAL);
    start_bad(bad);
    bad->request.size = 0;
    end_bad(bad, KVB_EINVAL);
}

static void test_onboard_with_a_priority_above_the_highest_is_invalid(void **state)
{
    struct bad *bad = *state;
    start_bad(bad);
    bad->request.flags = KVB_ONBOARD_PRIORITY;
    bad->request.priority = 101;
    end_bad(bad, KVB_EINVAL);
}

static void test_onboard_with_an_unknown_fence_is_invalid(void **state)
{
    struct bad *bad = *state;
    struct kvb_fence fence = {.kind = 7};
    start_bad(bad);
    bad->request.fence = &fence;
    end_bad(bad, KVB_EINVAL);
}

static void test_onboard_with_a_target_twice_is_invalid(void **state)
{
    struct bad *bad = *state;
    start_bad(bad);
    struct kvb_block *twice[2] = {bad->targets[0], bad->targets[0]};
    bad->request.targets = twice;
    end_bad(bad, KVB_EINVAL);
}

static void test_onboard_with_targets_of_two_tiers_is_invalid(void **state)
{
    struct bad *bad = *state;
    start_bad(bad);
    struct kvb_block *host = kv_alloc(&bad->rig, KVB_TIER_HOST);
    struct kvb_block *mixed[2] = {bad->targets[0], host};
    struct kvb_op *op = NULL;
    bad->request.targets = mixed;
    kv_expect(kvb_onboard(bad->rig.kv, &bad->request, &op), KVB_EINVAL);
    kv_unref(&bad->rig, host);
    end_bad(bad, KVB_EINVAL); /* and now it is held by nobody */
}

static void test_onboard_from_the_targets_tier_or_above_is_invalid(void **state)
{
    struct bad *bad = *state;
    start_bad(bad);
    bad->sources[1] = bad->device.blocks[0];
    end_bad(bad, KVB_EINVAL);
}

static void test_onboard_of_a_foreign_or_missing_block_is_invalid(void **state)
{
    struct bad *bad = *state;
    start_bad(bad);
    bad->sources[1] = NULL;
    end_bad(bad, KVB_EINVAL);
    start_bad(bad);
    bad->sources[0] = (struct kvb_block *)bad;
    end_bad(bad, KVB_EINVAL);
}

static void test_onboard_of_an_unregistered_source_is_a_state_error(void **state)
{
    struct bad *bad = *state;
    start_bad(bad);
    struct kvb_block *empty = kv_alloc(&bad->rig, KVB_TIER_HOST);
    struct kvb_op *op = NULL;
    bad->sources[1] = empty;
    kv_expect(kvb_onboard(bad->rig.kv, &bad->request, &op), KVB_ESTATE);
    kv_unref(&bad->rig, empty);
    end_bad(bad, KVB_EINVAL);
}

static void test_onboard_into_a_target_in_use_is_a_state_error(void **state)
{
    struct bad *bad = *state;
    start_bad(bad);
    kv_init(&bad->rig, bad->targets[1], 0, 0, NULL);
    struct kvb_op *op = NULL;
    kv_expect(kvb_onboard(bad->rig.kv, &bad->request, &op), KVB_ESTATE);
    assert_null(op);
    kv_ok(kvb_block_reset(bad->rig.kv, &bad->targets[1], 1, NULL));
    bad->request.count = 0;
    end_bad(bad, KVB_EINVAL);
}

static void test_onboard_into_a_target_that_others_hold_is_shared(void **state)
{
    struct bad *bad = *state;
    start_bad(bad);
    kv_ok(kvb_block_ref(bad->rig.kv, &bad->targets[1], 1, NULL));
    struct kvb_op *op = NULL;
    kv_expect(kvb_onboard(bad->rig.kv, &bad->request, &op), KVB_ESHARED);
    assert_null(op);
    kv_unref(&bad->rig, bad->targets[1]);
    bad->request.count = 0;
    end_bad(bad, KVB_EINVAL);
}

static void test_onboard_into_the_lowest_tier_is_invalid(void **state)
{
    struct bad *bad = *state;
    start_bad(bad);
    struct kvb_block *disk = kv_alloc(&bad->rig, KVB_TIER_DISK);
    struct kvb_onboard request = mv_request(bad->sources, &disk, 1, NULL);
    struct kvb_op *op = NULL;
    kv_expect(kvb_onboard(bad->rig.kv, &request, &op), KVB_EINVAL);
    kv_expect(kvb_onboard(bad->rig.kv, &request, NULL), KVB_EINVAL);
    kv_expect(kvb_onboard(bad->rig.kv, NULL, &op), KVB_EINVAL);
    kv_unref(&bad->rig, disk);
    bad->request.count = 0;
    end_bad(bad, KVB_EINVAL);
}

static void test_calls_on_a_foreign_operation_are_invalid(void **state)
{
    struct kv_rig *rig = *state;
    uint32_t good;
    struct kvb_block *block;
    struct kvb_op *foreign = (struct kvb_op *)rig;
    mv_open_two(rig, 4, 4, KVB_OFFLOAD_MANUAL);
    kv_expect(kvb_op_take(rig->kv, foreign, &block, 1, &good), KVB_EINVAL);
    kv_expect(kvb_op_wait(rig->kv, foreign, 0), KVB_EINVAL);
    kv_expect(kvb_op_cancel(rig->kv, foreign), KVB_EINVAL);
    kv_expect(kvb_op_release(rig->kv, foreign), KVB_EINVAL);
    kv_expect(kvb_op_cancel(rig->kv, NULL), KVB_EINVAL);
    kv_ok(kvb_op_release(rig->kv, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kv_rig, test_op_capacity_reached_is_again_until_one_is_released),
        TEST(bad, test_onboard_of_nothing_is_invalid),
        TEST(bad, test_onboard_without_arrays_is_invalid),
        TEST(bad, test_onboard_with_an_unknown_flag_or_size_is_invalid),
        TEST(bad, test_onboard_with_a_priority_above_the_highest_is_invalid),
        TEST(bad, test_onboard_with_an_unknown_fence_is_invalid),
        TEST(bad, test_onboard_with_a_target_twice_is_invalid),
        TEST(bad, test_onboard_with_targets_of_two_tiers_is_invalid),
        TEST(bad, test_onboard_from_the_targets_tier_or_above_is_invalid),
        TEST(bad, test_onboard_of_a_foreign_or_missing_block_is_invalid),
        TEST(bad, test_onboard_of_an_unregistered_source_is_a_state_error),
        TEST(bad, test_onboard_into_a_target_in_use_is_a_state_error),
        TEST(bad, test_onboard_into_a_target_that_others_hold_is_shared),
        TEST(bad, test_onboard_into_the_lowest_tier_is_invalid),
        TEST(kv_rig, test_calls_on_a_foreign_operation_are_invalid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
