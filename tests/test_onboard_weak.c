/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Weak handles of blocks that an operation fills: they upgrade while the operation holds the block,
 * and once they are stale they are so for ever, whatever the transfer does with the slot
 * afterwards.
 */
#include "support/kv_scene.h"
#include "support/move_test.h"

#include "api/manager.h"

struct transfer {
    struct kv_rig rig;
    struct mv_run run;
    struct kvb_block *target;
    struct kvb_weak before, during; /* of the target, taken before the fill and while it goes on */
    struct kvb_op *op;
};

static int transfer_setup(void **state)
{
    (void)kv_scene_begin(state, sizeof(struct transfer));
    return 0;
}

#define transfer_teardown kv_scene_end

/* The transfer into the target is with the engine, behind fence 1. */
static void open_transfer(struct transfer *transfer, uint64_t generation)
{
    struct kvb_fence fence = mv_fence(1);
    /* what the engine has cannot be recalled */
    static const struct kvbi_hooks keeps = {.keeps = true};
    mv_two_tiers(&transfer->rig, 4, 4, KVB_OFFLOAD_MANUAL);
    kv_rig_open_hooked(&transfer->rig, &keeps);
    mv_park(&transfer->rig, &transfer->run, KVB_TIER_HOST, 1, 1);
    transfer->target = kv_alloc(&transfer->rig, KVB_TIER_DEVICE);
    if (generation != 0)
        kvbi_testing_set_generation(transfer->rig.kv, transfer->target, generation);
    kv_ok(kvb_block_weak(transfer->rig.kv, transfer->target, &transfer->before));
    assert_int_equal(mv_match(&transfer->rig, &transfer->run), 1);
    struct kvb_onboard request = mv_request(transfer->run.blocks, &transfer->target, 1, NULL);
    request.fence = &fence;
    kv_ok(kvb_onboard(transfer->rig.kv, &request, &transfer->op));
    mv_drop(&transfer->rig, &transfer->run);
    mv_step(&transfer->rig);
    kv_ok(kvb_block_weak(transfer->rig.kv, transfer->target, &transfer->during));
}

static int upgrade(struct transfer *transfer, const struct kvb_weak *weak)
{
    struct kvb_block *block = NULL;
    int error = kvb_weak_upgrade(transfer->rig.kv, weak, 1, &block, NULL);
    if (error == 0)
        kv_unref(&transfer->rig, block);
    return error;
}

static void expect_both(struct transfer *transfer, int code)
{
    kv_expect(upgrade(transfer, &transfer->before), code);
    kv_expect(upgrade(transfer, &transfer->during), code);
}

static void close_transfer(struct transfer *transfer)
{
    kv_ok(kvb_op_release(transfer->rig.kv, transfer->op));
    mv_step(&transfer->rig);
    mv_expect_books(&transfer->rig, true);
}

static void test_weak_handle_of_a_target_upgrades_until_it_is_handed_out_and_after(void **state)
{
    struct transfer *transfer = *state;
    open_transfer(transfer, 0);
    expect_both(transfer, 0);
    mv_reach(&transfer->rig, 1);
    expect_both(transfer, 0);
    assert_int_equal(mv_take(&transfer->rig, &transfer->run, transfer->op), 1);
    transfer->op = NULL;
    expect_both(transfer, 0);
    mv_drop(&transfer->rig, &transfer->run);
    expect_both(transfer, 0);
    close_transfer(transfer);
}

static void test_weak_handle_of_a_target_that_is_given_up_is_stale_for_ever(void **state)
{
    struct transfer *transfer = *state;
    open_transfer(transfer, 0);
    kv_ok(kvb_op_cancel(transfer->rig.kv, transfer->op));
    mv_step(&transfer->rig);
    expect_both(transfer, KVB_ESTALE);
    mv_reach(&transfer->rig, 1);
    /* It has come. */
    assert_int_equal(mv_in_tier(&transfer->rig, &transfer->run, KVB_TIER_DEVICE), 1);
    expect_both(transfer, KVB_ESTALE);
    mv_expect_in(&transfer->rig, &transfer->run, KVB_TIER_DEVICE);
    expect_both(transfer, KVB_ESTALE);
    close_transfer(transfer);
}

/* Somebody has upgraded: the block is his, and stays what it is until he lets go. */
static void test_weak_handle_of_a_target_is_stale_from_the_last_holder_on(void **state)
{
    struct transfer *transfer = *state;
    struct kvb_block *held = NULL;
    open_transfer(transfer, 0);
    kv_ok(kvb_weak_upgrade(transfer->rig.kv, &transfer->before, 1, &held, NULL));
    kv_ok(kvb_op_cancel(transfer->rig.kv, transfer->op));
    mv_step(&transfer->rig);
    expect_both(transfer, 0);
    kv_unref(&transfer->rig, held);
    expect_both(transfer, KVB_ESTALE);
    mv_reach(&transfer->rig, 1);
    expect_both(transfer, KVB_ESTALE);
    close_transfer(transfer);
}

static void test_target_without_another_generation_is_given_up_with_its_content(void **state)
{
    struct transfer *transfer = *state;
    open_transfer(transfer, KVBI_GENERATION_MAX);
    kv_ok(kvb_op_cancel(transfer->rig.kv, transfer->op));
    mv_step(&transfer->rig);
    expect_both(transfer, KVB_ESTALE);
    mv_reach(&transfer->rig, 1);
    expect_both(transfer, KVB_ESTALE);
    assert_int_equal(mv_in_tier(&transfer->rig, &transfer->run, KVB_TIER_DEVICE), 0);
    assert_int_equal(kv_stats(&transfer->rig).tiers[KVB_TIER_DEVICE].retired_count, 1);
    close_transfer(transfer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(transfer, test_weak_handle_of_a_target_upgrades_until_it_is_handed_out_and_after),
        TEST(transfer, test_weak_handle_of_a_target_that_is_given_up_is_stale_for_ever),
        TEST(transfer, test_weak_handle_of_a_target_is_stale_from_the_last_holder_on),
        TEST(transfer, test_target_without_another_generation_is_given_up_with_its_content),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
