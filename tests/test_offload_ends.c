/* SPDX-License-Identifier: Apache-2.0 */
/* Moving down: copies that fail, contents that are forgotten meanwhile, and offers by hand. */
#include "support/move_test.h"
#include "support/test.h"

/* ---- Failure --------------------------------------------------------------------------------- */

static void test_failed_copy_is_counted_and_never_findable(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    mv_two_tiers(rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_open_recorded(rig);
    mv_store(rig, &run, KVB_TIER_DEVICE, 1, 1);
    mv_fail(&rig->copies, 1, false);
    mv_offer(rig, run.blocks[0], 50);
    mv_drop(rig, &run);
    mv_step(rig);
    assert_int_equal(mv_down(rig).failed_transfer, 1);
    assert_int_equal(mv_down(rig).transferred, 0);
    assert_int_equal(mv_event_count(rig, KVB_EVENT_STORED, KVB_TIER_HOST), 0);
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_HOST].free_count, 4);
    mv_expect_in(rig, &run, KVB_TIER_DEVICE);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    assert_int_equal(mv_found(rig, &run), 0);
}

static void test_failed_block_of_a_batch_fails_alone(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run runs[5];
    mv_two_tiers(rig, 8, 8, KVB_OFFLOAD_MANUAL);
    mv_open_recorded(rig);
    mv_store_each(rig, runs, KVB_TIER_DEVICE, 1, 5);
    mv_fail(&rig->copies, 3, false);
    mv_offer_each(rig, runs, 5, 50);
    mv_step(rig);
    assert_int_equal(mv_down(rig).transferred, 4);
    assert_int_equal(mv_down(rig).failed_transfer, 1);
    mv_drop_each(rig, runs, 5);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    for (uint32_t i = 0; i < 5; i++) {
        if (i == 2)
            assert_int_equal(mv_found(rig, &runs[i]), 0);
        else
            mv_expect_in(rig, &runs[i], KVB_TIER_HOST);
    }
}

static void test_failed_block_may_be_offered_again(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    mv_two_tiers(rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_open_recorded(rig);
    mv_store(rig, &run, KVB_TIER_DEVICE, 1, 1);
    mv_fail(&rig->copies, 1, false);
    mv_offer(rig, run.blocks[0], 50);
    mv_step(rig);
    mv_offer(rig, run.blocks[0], 50);
    mv_step(rig);
    assert_int_equal(mv_down(rig).transferred, 1);
    mv_drop(rig, &run);
}

/* A block in transfer, held there by a fence that only the test signals. */
static void put_in_flight(struct kv_rig *rig, struct mv_run *run)
{
    mv_two_tiers(rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_bounds(rig, 0, 1, 1, 2, 8);
    kv_rig_open(rig);
    mv_store_after(rig, run, KVB_TIER_DEVICE, 1, 1, 1);
    mv_offer(rig, run->blocks[0], 50);
    mv_step(rig);
    assert_int_equal(mv_down(rig).inflight, 1);
}

static void test_content_invalidated_in_transfer_is_not_published(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    put_in_flight(rig, &run);
    mv_drop(rig, &run);
    kv_ok(kvb_invalidate(rig->kv, run.seqs, 1, NULL));
    kv_check(rig);
    mv_reach(rig, 1);
    assert_int_equal(mv_down(rig).failed_invalidated, 1);
    assert_int_equal(mv_found(rig, &run), 0);
    assert_int_equal(mv_event_count(rig, KVB_EVENT_STORED, KVB_TIER_HOST), 0);
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_DEVICE].free_count, 4);
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_HOST].free_count, 4);
}

static void test_content_cleared_in_transfer_is_not_published(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    put_in_flight(rig, &run);
    kv_ok(kvb_manager_clear(rig->kv));
    kv_check(rig);
    mv_reach(rig, 1);
    assert_int_equal(mv_down(rig).failed_invalidated, 1);
    assert_int_equal(mv_found(rig, &run), 0);
    assert_true(mv_bytes_are(rig, run.blocks[0], &run.seqs[0]));
    mv_drop(rig, &run);
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_DEVICE].free_count, 4);
}

static void test_content_invalidated_in_transfer_may_be_computed_anew_meanwhile(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run, again;
    put_in_flight(rig, &run);
    mv_drop(rig, &run);
    kv_ok(kvb_invalidate(rig->kv, run.seqs, 1, NULL));
    mv_park(rig, &again, KVB_TIER_DEVICE, 1, 1);
    mv_reach(rig, 1);
    assert_int_equal(mv_down(rig).failed_invalidated, 1);
    mv_expect_in(rig, &again, KVB_TIER_DEVICE);
}

static void test_content_invalidated_before_transfer_is_discarded(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run runs[2];
    mv_open_narrow(rig, 4, 4);
    mv_store_each(rig, runs, KVB_TIER_DEVICE, 1, 2);
    mv_offer_each(rig, runs, 2, 50); /* one on deck, one queued */
    for (uint32_t i = 0; i < 2; i++) {
        kv_ok(kvb_invalidate(rig->kv, runs[i].seqs, 1, NULL));
        kv_check(rig);
    }
    mv_step(rig);
    assert_int_equal(mv_down(rig).discarded, 2);
    mv_drop_each(rig, runs, 2);
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_DEVICE].free_count, 4);
}

/* ---- Offering and cancelling by hand --------------------------------------------------------- */

static void test_cancel_takes_back_only_what_waits(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run runs[4];
    struct kvb_block *blocks[4];
    int results[4];
    mv_two_tiers(rig, 8, 4, KVB_OFFLOAD_MANUAL);
    mv_bounds(rig, 0, 1, 1, 2, 8);
    kv_rig_open(rig);
    for (uint32_t i = 0; i < 4; i++) {
        mv_store_after(rig, &runs[i], KVB_TIER_DEVICE, i + 1, 1, i == 0 ? 1 : 0);
        blocks[i] = runs[i].blocks[0];
    }
    mv_offer(rig, blocks[0], 50);
    mv_step(rig); /* in transfer */
    mv_offer(rig, blocks[1], 50);
    mv_offer(rig, blocks[2], 50);
    kv_expect(kvb_block_offload_cancel(rig->kv, blocks, 4, results), KVB_EBUSY);
    kv_check(rig);
    assert_int_equal(results[0], KVB_EBUSY);
    assert_int_equal(results[1], KVB_EBUSY); /* on deck */
    assert_int_equal(results[2], KVB_OK);
    assert_int_equal(results[3], KVB_ENOENT);
    assert_int_equal(mv_down(rig).cancelled, 1);
    mv_reach(rig, 1);
    assert_int_equal(mv_down(rig).transferred, 2);
    mv_drop_each(rig, runs, 4);
}

static void test_offer_twice_is_busy_in_every_stage(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run runs[4];
    mv_two_tiers(rig, 4, 8, KVB_OFFLOAD_MANUAL);
    mv_bounds(rig, 0, 1, 1, 2, 8);
    kv_rig_open(rig);
    for (uint32_t i = 0; i < 4; i++) {
        mv_store_after(rig, &runs[i], KVB_TIER_DEVICE, i + 1, 1, i < 2 ? 1 : 0);
        mv_offer(rig, runs[i].blocks[0], 50);
        if (i < 2)
            mv_step(rig); /* the first is taken, the second waits for its fence */
    }
    assert_int_equal(mv_down(rig).inflight, 1);
    assert_int_equal(mv_down(rig).ondeck, 1);
    assert_int_equal(mv_down(rig).queued, 2);
    for (uint32_t i = 0; i < 4; i++)
        kv_expect(kvb_block_offload(rig->kv, runs[i].blocks, 1, 50, NULL, NULL), KVB_EBUSY);
    assert_int_equal(mv_down(rig).offered, 4);
    mv_reach(rig, 1);
    mv_drop_each(rig, runs, 4);
}

static void test_offer_of_a_wrong_block_changes_nothing(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run, below, twin;
    struct kvb_fence strange = {.kind = 9};
    mv_open_two(rig, 4, 4, KVB_OFFLOAD_MANUAL);
    struct kvb_block *empty = kv_alloc(rig, KVB_TIER_DEVICE);
    mv_store(rig, &run, KVB_TIER_DEVICE, 1, 1);
    mv_store(rig, &twin, KVB_TIER_DEVICE, 1, 1); /* an unindexed duplicate */
    mv_store(rig, &below, KVB_TIER_HOST, 2, 1);
    kv_expect(kvb_block_offload(rig->kv, &empty, 1, 50, NULL, NULL), KVB_ESTATE);
    kv_expect(kvb_block_offload(rig->kv, twin.blocks, 1, 50, NULL, NULL), KVB_ESTATE);
    kv_expect(kvb_block_offload(rig->kv, below.blocks, 1, 50, NULL, NULL), KVB_ENOENT);
    kv_expect(kvb_block_offload(rig->kv, run.blocks, 1, 101, NULL, NULL), KVB_EINVAL);
    kv_expect(kvb_block_offload(rig->kv, run.blocks, 1, 50, &strange, NULL), KVB_EINVAL);
    kv_expect(kvb_block_offload_cancel(rig->kv, below.blocks, 1, NULL), KVB_ENOENT);
    kv_check(rig);
    assert_int_equal(mv_down(rig).offered, 0);
    kv_ok(kvb_invalidate(rig->kv, run.seqs, 1, NULL));
    kv_expect(kvb_block_offload(rig->kv, run.blocks, 1, 50, NULL, NULL), KVB_ESTATE);
    kv_unref(rig, empty);
    mv_drop(rig, &run);
    mv_drop(rig, &twin);
    mv_drop(rig, &below);
}

static void test_unindexed_duplicate_is_never_offered(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run, twin;
    mv_open_two(rig, 4, 4, KVB_OFFLOAD_ON_REGISTER);
    mv_store(rig, &run, KVB_TIER_DEVICE, 1, 1);
    mv_store(rig, &twin, KVB_TIER_DEVICE, 1, 1);
    mv_step(rig);
    assert_int_equal(mv_down(rig).offered, 1);
    mv_drop(rig, &twin);
    mv_drop(rig, &run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kv_rig, test_failed_copy_is_counted_and_never_findable),
        TEST(kv_rig, test_failed_block_of_a_batch_fails_alone),
        TEST(kv_rig, test_failed_block_may_be_offered_again),
        TEST(kv_rig, test_content_invalidated_in_transfer_is_not_published),
        TEST(kv_rig, test_content_cleared_in_transfer_is_not_published),
        TEST(kv_rig, test_content_invalidated_in_transfer_may_be_computed_anew_meanwhile),
        TEST(kv_rig, test_content_invalidated_before_transfer_is_discarded),
        TEST(kv_rig, test_cancel_takes_back_only_what_waits),
        TEST(kv_rig, test_offer_twice_is_busy_in_every_stage),
        TEST(kv_rig, test_offer_of_a_wrong_block_changes_nothing),
        TEST(kv_rig, test_unindexed_duplicate_is_never_offered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
