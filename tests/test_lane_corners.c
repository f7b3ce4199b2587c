/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Offload lanes where order and bounds meet: who is offered first when many are parked at once, how
 * much is looked at in one round, and waits that are over before the lane is idle.
 */
#include "support/move_test.h"
#include "support/test.h"

#include "store/store.h"

/* ---- Parked together ------------------------------------------------------------------------- */

/* The run has arrived in HOST in order, head first. */
static void expect_arrived_in_order(struct kv_rig *rig, const struct mv_run *run)
{
    assert_int_equal(mv_event_count(rig, KVB_EVENT_STORED, KVB_TIER_HOST), run->count);
    for (uint32_t i = 0; i < run->count; i++)
        assert_true(mv_event(rig, KVB_EVENT_STORED, KVB_TIER_HOST, i) == run->seqs[i].hash);
}

static void test_park_of_a_sequence_offers_it_head_first(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    mv_two_tiers(rig, 16, 16, KVB_OFFLOAD_ON_PARK);
    mv_bounds(rig, 0, 16, 1, 1, 16);
    kv_rig_open(rig);
    mv_park(rig, &run, KVB_TIER_DEVICE, 1, 8);
    mv_step(rig);
    expect_arrived_in_order(rig, &run);
}

static void test_park_by_unpin_all_offers_a_sequence_head_first(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    mv_two_tiers(rig, 16, 16, KVB_OFFLOAD_ON_PARK);
    mv_bounds(rig, 0, 16, 1, 1, 16);
    kv_rig_open(rig);
    mv_store(rig, &run, KVB_TIER_DEVICE, 1, 8);
    kv_ok(kvb_pin(rig->kv, 7, run.blocks, run.count, 0, NULL));
    mv_drop(rig, &run);
    kv_ok(kvb_unpin_all(rig->kv, 7, NULL));
    mv_step(rig);
    expect_arrived_in_order(rig, &run);
}

/* One on deck, two in the in-queue: what is shed is the tail, so what arrives is a prefix. */
static void test_park_of_more_than_the_in_queue_holds_sheds_the_tail(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    mv_two_tiers(rig, 16, 16, KVB_OFFLOAD_ON_PARK);
    mv_bounds(rig, 0, 1, 1, 1, 2);
    kv_rig_open(rig);
    mv_park(rig, &run, KVB_TIER_DEVICE, 1, 8);
    assert_int_equal(mv_down(rig).shed, 5);
    mv_step(rig);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    assert_int_equal(mv_found(rig, &run), 3);
}

/* ---- Offers that are worth nothing ----------------------------------------------------------- */

enum { STALE = 4 * KVBI_LOCK_BATCH };

/* A queue of offers that are worth nothing would shed those that are. */
static void test_offers_of_evicted_blocks_leave_the_in_queue_at_once(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *blocks[STALE];
    static uint32_t tokens[STALE * KV_TOKENS];
    mv_two_tiers(rig, STALE, STALE, KVB_OFFLOAD_MANUAL);
    mv_bounds(rig, 0, 1, 1, 1, STALE);
    kv_rig_open(rig);
    kv_tokens(tokens, STALE * KV_TOKENS, 1);
    kv_store_run(rig, KVB_TIER_DEVICE, 0, tokens, STALE, blocks);
    kv_ok(kvb_block_offload(rig->kv, blocks, STALE, 50, NULL, NULL));
    kv_ok(kvb_block_unref(rig->kv, blocks, STALE, NULL));
    assert_int_equal(mv_down(rig).pending, STALE);
    mv_alloc_many(rig, KVB_TIER_DEVICE, STALE, blocks);
    assert_int_equal(mv_down(rig).discarded, STALE);
    assert_int_equal(mv_down(rig).pending, 0);
    mv_expect_books(rig, true);
    kv_ok(kvb_block_unref(rig->kv, blocks, STALE, NULL));
}

/* ---- A lane that stands ---------------------------------------------------------------------- */

/* Nobody drives progress: all of the run is on deck or in the in-queue, and stays there. */
static void open_standing(struct kv_rig *rig, struct mv_run *run, uint32_t deck, bool parked)
{
    mv_two_tiers(rig, 16, 16, KVB_OFFLOAD_ON_REGISTER);
    mv_bounds(rig, 0, deck, 1, 1, 16);
    kv_rig_open(rig);
    mv_store(rig, run, KVB_TIER_DEVICE, 1, 16);
    if (parked)
        mv_drop(rig, run);
}

static void expect_all_free(struct kv_rig *rig)
{
    struct kvb_block *blocks[16];
    kv_check(rig);
    assert_int_equal(mv_down(rig).discarded, 16);
    assert_int_equal(mv_down(rig).pending, 0);
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_DEVICE].available_count, 16);
    mv_alloc_many(rig, KVB_TIER_DEVICE, 16, blocks);
    kv_ok(kvb_block_unref(rig->kv, blocks, 16, NULL));
}

static void test_cleared_blocks_on_deck_of_a_standing_lane_are_free_at_once(void **state)
{
    struct kv_rig *rig = *state;
    for (uint32_t deck = 1; deck <= 16; deck *= 4) {
        struct mv_run run;
        open_standing(rig, &run, deck, true);
        kv_ok(kvb_manager_clear(rig->kv));
        expect_all_free(rig);
        kv_rig_close(rig);
    }
}

static void test_invalidated_blocks_on_deck_of_a_standing_lane_are_free_at_once(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    open_standing(rig, &run, 8, true);
    kv_ok(kvb_invalidate(rig->kv, run.seqs, 4, NULL));
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_DEVICE].free_count, 4);
    kv_ok(kvb_invalidate_namespace(rig->kv, 0, NULL));
    expect_all_free(rig);
}

/* Held through the clear, and let go of after it. */
static void test_held_blocks_on_deck_are_free_when_let_go_of_after_a_clear(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    open_standing(rig, &run, 8, false);
    kv_ok(kvb_manager_clear(rig->kv));
    mv_drop(rig, &run);
    expect_all_free(rig);
}

/* ---- Waits that are over --------------------------------------------------------------------- */

static void test_flush_for_no_time_returns_while_copies_are_left(void **state)
{
    struct kv_rig *rig = *state;
    if (kv_device_is_cuda()) /* about copies that poll makes itself, in slices of its time */
        return;
    struct mv_run run;
    mv_two_tiers(rig, 40, 40, KVB_OFFLOAD_ON_REGISTER);
    mv_open_slow(rig);
    mv_store(rig, &run, KVB_TIER_DEVICE, 1, 40);
    kv_expect(kvb_manager_flush(rig->kv, 0), KVB_ETIMEDOUT);
    assert_in_range(mv_down(rig).transferred, 1, 39);
    mv_step(rig);
    assert_int_equal(mv_down(rig).transferred, 40);
    mv_drop(rig, &run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kv_rig, test_park_of_a_sequence_offers_it_head_first),
        TEST(kv_rig, test_park_by_unpin_all_offers_a_sequence_head_first),
        TEST(kv_rig, test_park_of_more_than_the_in_queue_holds_sheds_the_tail),
        TEST(kv_rig, test_offers_of_evicted_blocks_leave_the_in_queue_at_once),
        TEST(kv_rig, test_cleared_blocks_on_deck_of_a_standing_lane_are_free_at_once),
        TEST(kv_rig, test_invalidated_blocks_on_deck_of_a_standing_lane_are_free_at_once),
        TEST(kv_rig, test_held_blocks_on_deck_are_free_when_let_go_of_after_a_clear),
        TEST(kv_rig, test_flush_for_no_time_returns_while_copies_are_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
