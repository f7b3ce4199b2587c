/* SPDX-License-Identifier: Apache-2.0 */
/* Moving up: a block that does not come, and what becomes of those behind it. */
#include "support/move_test.h"
#include "support/test.h"

static void test_failure_of_one_block_ends_the_good_prefix_before_it(void **state)
{
    struct kv_rig *rig = *state;
    for (uint32_t k = 0; k < 6; k++) {
        struct mv_run run;
        struct mv_done done;
        mv_two_tiers(rig, 8, 8, KVB_OFFLOAD_MANUAL);
        mv_open_recorded(rig);
        mv_park(rig, &run, KVB_TIER_HOST, 1, 6);
        struct kvb_op *op = mv_bring_up(rig, &run, KVB_TIER_DEVICE, &done);
        mv_fail(&rig->copies, k + 1, false);
        mv_step(rig);
        mv_expect_done(&done, 0, k);
        assert_int_equal(mv_take(rig, &run, op), k);
        for (uint32_t i = k; i < 6; i++)
            assert_non_null(run.blocks[i]);
        /* Nothing else is findable there. What did not come is computed. */
        assert_int_equal(mv_in_tier(rig, &run, KVB_TIER_DEVICE), k);
        mv_compute(rig, &run, k);
        kv_ok(kvb_block_register(rig->kv, run.blocks + k, 6 - k, NULL, NULL, NULL));
        mv_drop(rig, &run);
        mv_expect_in(rig, &run, KVB_TIER_DEVICE);
        mv_evict_all(rig, KVB_TIER_DEVICE);
        mv_expect_in(rig, &run, KVB_TIER_HOST); /* the sources are still there */
        kv_rig_close(rig);
    }
}

static void test_block_past_the_good_prefix_that_others_share_is_replaced(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run, tail;
    mv_two_tiers(rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_open_recorded(rig);
    mv_park(rig, &run, KVB_TIER_HOST, 1, 2);
    struct kvb_op *op = mv_bring_up(rig, &run, KVB_TIER_DEVICE, NULL);
    mv_fail(&rig->copies, 1, false);
    mv_step(rig);
    mv_name(rig, &tail, 1, 2);
    /* Somebody matches the second block's copy above: by its key alone. */
    struct kvb_query query = {.size = sizeof query, .keys = &tail.seqs[1], .key_count = 1};
    struct kvb_hit hit;
    size_t count = 0;
    kv_ok(kvb_match(rig->kv, &query, &hit, 1, &count));
    assert_int_equal(count, 1);
    assert_int_equal(hit.tier, KVB_TIER_DEVICE);
    assert_int_equal(mv_take(rig, &run, op), 0);
    assert_non_null(run.blocks[1]);
    assert_ptr_not_equal(run.blocks[1], hit.block);
    assert_true(mv_bytes_are(rig, hit.block, &tail.seqs[1]));
    kv_unref(rig, hit.block);
    mv_drop_taken(rig, &run);
}

static void test_block_past_the_good_prefix_is_missing_when_shared_and_nothing_is_free(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    mv_two_tiers(rig, 2, 4, KVB_OFFLOAD_MANUAL);
    mv_open_recorded(rig);
    mv_park(rig, &run, KVB_TIER_HOST, 1, 2);
    struct kvb_op *op = mv_bring_up(rig, &run, KVB_TIER_DEVICE, NULL);
    mv_fail(&rig->copies, 1, false);
    mv_step(rig);
    struct kvb_query query = {.size = sizeof query, .keys = &run.seqs[1], .key_count = 1};
    struct kvb_hit hit;
    size_t count = 0;
    kv_ok(kvb_match(rig->kv, &query, &hit, 1, &count));
    assert_int_equal(count, 1);
    assert_int_equal(mv_take(rig, &run, op), 0);
    assert_non_null(run.blocks[0]);
    assert_null(run.blocks[1]);
    kv_unref(rig, hit.block);
    mv_drop_taken(rig, &run);
}

static void test_joined_block_past_the_good_prefix_gives_the_own_target_back_empty(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run, above;
    struct kvb_block *targets[2], *taken[2];
    uint32_t good = 9;
    mv_two_tiers(rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_open_recorded(rig);
    mv_store(rig, &run, KVB_TIER_HOST, 1, 2);
    mv_store(rig, &above, KVB_TIER_DEVICE, 1, 2);
    kv_unref(rig, above.blocks[0]);
    struct kvb_block *spare = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_unref(rig, spare);
    struct kvb_block *only[3];
    mv_alloc_many(rig, KVB_TIER_DEVICE, 3, only); /* evicts the first block's copy above */
    targets[0] = only[0];
    targets[1] = only[1];
    struct kvb_onboard request = mv_request(run.blocks, targets, 2, NULL);
    struct kvb_op *op = mv_onboard(rig, &request);
    mv_fail(&rig->copies, 1, false);
    mv_step(rig);
    kv_ok(kvb_op_take(rig->kv, op, taken, 2, &good));
    kv_check(rig);
    assert_int_equal(good, 0);
    assert_ptr_equal(taken[0], targets[0]);
    assert_ptr_equal(taken[1], targets[1]);
    assert_int_equal(kv_describe(rig, taken[1]).state, KVB_STATE_EMPTY);
    assert_true(mv_bytes_are(rig, above.blocks[1], &above.seqs[1]));
    kv_ok(kvb_op_release(rig->kv, op));
    kv_ok(kvb_block_unref(rig->kv, taken, 2, NULL));
    kv_unref(rig, only[2]);
    kv_unref(rig, above.blocks[1]);
    mv_drop(rig, &run);
}

static void test_failure_waits_for_what_is_being_written_and_loses_no_block(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done done;
    struct kvb_block *targets[2];
    mv_two_tiers(rig, 2, 4, KVB_OFFLOAD_MANUAL);
    mv_open_recorded(rig);
    mv_store(rig, &run, KVB_TIER_HOST, 1, 2);
    targets[0] = kv_alloc(rig, KVB_TIER_DEVICE);
    targets[1] = mv_alloc_after(rig, KVB_TIER_DEVICE, 1);
    struct kvb_onboard request = mv_request(run.blocks, targets, 2, &done);
    struct kvb_op *op = mv_onboard(rig, &request);
    mv_drop(rig, &run);
    mv_fail(&rig->copies, 1, false);
    mv_step(rig);
    assert_int_equal(done.calls, 0);
    mv_reach(rig, 1);
    mv_expect_done(&done, 0, 0);
    assert_int_equal(mv_take(rig, &run, op), 0);
    assert_non_null(run.blocks[0]);
    assert_non_null(run.blocks[1]);
    mv_drop_taken(rig, &run);
}

static void test_content_invalidated_while_queued_is_a_miss(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done done;
    mv_open_two(rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_park(rig, &run, KVB_TIER_HOST, 1, 2);
    struct kvb_op *op = mv_bring_up(rig, &run, KVB_TIER_DEVICE, &done);
    kv_ok(kvb_invalidate(rig->kv, &run.seqs[1], 1, NULL));
    kv_check(rig);
    mv_step(rig);
    mv_expect_done(&done, 0, 1);
    assert_int_equal(mv_up(rig).discarded, 1);
    assert_int_equal(mv_take(rig, &run, op), 1);
    assert_int_equal(mv_found(rig, &run), 1);
    mv_drop_taken(rig, &run);
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_HOST].free_count, 3);
}

static void test_source_that_is_no_longer_indexed_is_a_miss(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done done;
    mv_open_two(rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_store(rig, &run, KVB_TIER_HOST, 1, 1);
    kv_ok(kvb_invalidate(rig->kv, run.seqs, 1, NULL));
    struct kvb_block *target = kv_alloc(rig, KVB_TIER_DEVICE);
    struct kvb_onboard request = mv_request(run.blocks, &target, 1, &done);
    struct kvb_op *op = mv_onboard(rig, &request);
    mv_step(rig);
    mv_expect_done(&done, 0, 0);
    mv_drop(rig, &run);
    assert_int_equal(mv_take(rig, &run, op), 0);
    assert_ptr_equal(run.blocks[0], target);
    mv_drop_taken(rig, &run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kv_rig, test_failure_of_one_block_ends_the_good_prefix_before_it),
        TEST(kv_rig, test_block_past_the_good_prefix_that_others_share_is_replaced),
        TEST(kv_rig, test_block_past_the_good_prefix_is_missing_when_shared_and_nothing_is_free),
        TEST(kv_rig, test_joined_block_past_the_good_prefix_gives_the_own_target_back_empty),
        TEST(kv_rig, test_failure_waits_for_what_is_being_written_and_loses_no_block),
        TEST(kv_rig, test_content_invalidated_while_queued_is_a_miss),
        TEST(kv_rig, test_source_that_is_no_longer_indexed_is_a_miss),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
