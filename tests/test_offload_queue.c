/* SPDX-License-Identifier: Apache-2.0 */
/* Moving down: the three stages of a lane, its bounds, its order, and what does not get there. */
#include "support/move_test.h"
#include "support/test.h"

/* ---- On deck, in-queue, order ---------------------------------------------------------------- */

static void test_offer_with_room_goes_on_deck(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    mv_two_tiers(rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_bounds(rig, 0, 2, 1, 1, 8);
    kv_rig_open(rig);
    mv_store(rig, &run, KVB_TIER_DEVICE, 1, 1);
    mv_offer(rig, run.blocks[0], 50);
    assert_int_equal(mv_down(rig).ondeck, 1);
    assert_int_equal(mv_down(rig).queued, 0);
    assert_int_equal(mv_down(rig).pending, 1);
    mv_drop(rig, &run);
}

static void test_offer_beyond_the_deck_is_demoted_to_the_queue(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run runs[3];
    mv_two_tiers(rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_bounds(rig, 0, 2, 1, 1, 8);
    kv_rig_open(rig);
    mv_store_each(rig, runs, KVB_TIER_DEVICE, 1, 3);
    mv_offer_each(rig, runs, 3, 50);
    assert_int_equal(mv_down(rig).ondeck, 2);
    assert_int_equal(mv_down(rig).queued, 1);
    mv_drop_each(rig, runs, 3);
}

static void test_queue_gives_the_highest_priority_first_and_within_it_the_oldest(void **state)
{
    struct kv_rig *rig = *state;
    static const uint32_t priorities[] = {0, 10, 50, 50, 10, 90};
    static const uint32_t expected[] = {0, 5, 2, 3, 1, 4};
    struct mv_run runs[6];
    mv_two_tiers(rig, 8, 8, KVB_OFFLOAD_MANUAL);
    mv_bounds(rig, 0, 1, 1, 1, 8);
    mv_open_recorded(rig);
    mv_store_each(rig, runs, KVB_TIER_DEVICE, 1, 6);
    for (uint32_t i = 0; i < 6; i++)
        mv_offer(rig, runs[i].blocks[0], priorities[i]);
    mv_step(rig);
    assert_int_equal(rig->copies.count, 6);
    for (uint32_t i = 0; i < 6; i++)
        assert_int_equal(rig->copies.list[i].from_slot,
                         kvb_block_slot(rig->kv, runs[expected[i]].blocks[0]));
    mv_drop_each(rig, runs, 6);
}

static void test_deck_is_refilled_when_the_engine_takes_from_it(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run runs[6];
    mv_two_tiers(rig, 8, 8, KVB_OFFLOAD_MANUAL);
    mv_bounds(rig, 0, 2, 2, 1, 8);
    kv_rig_open(rig);
    for (uint32_t i = 0; i < 6; i++) {
        mv_store_after(rig, &runs[i], KVB_TIER_DEVICE, i + 1, 1, i == 0 ? 7 : 0);
        mv_offer(rig, runs[i].blocks[0], 50);
    }
    assert_true(kvb_manager_poll(rig->kv, 0) >= 0); /* one round */
    kv_check(rig);
    assert_int_equal(mv_down(rig).inflight + mv_down(rig).transferred, 2);
    assert_int_equal(mv_down(rig).ondeck, 2);
    assert_int_equal(mv_down(rig).queued, 2);
    mv_reach(rig, 7);
    assert_int_equal(mv_down(rig).transferred, 6);
    mv_drop_each(rig, runs, 6);
}

static void test_transfer_delivers_the_same_bytes(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    mv_open_two(rig, 8, 8, KVB_OFFLOAD_ON_REGISTER);
    mv_park(rig, &run, KVB_TIER_DEVICE, 1, 8);
    mv_step(rig);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    mv_expect_in(rig, &run, KVB_TIER_HOST);
    assert_int_equal(mv_down(rig).transferred, 8);
    assert_int_equal(mv_down(rig).bytes, 8 * KV_LAYERS * KV_PARTS * KV_CHUNK);
}

static void test_device_and_disk_alone_are_neighbours(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    rig->tiers[0].trigger = KVB_OFFLOAD_ON_REGISTER;
    kv_rig_add_tier(rig, KVB_TIER_DISK, 8, KVB_OFFLOAD_MANUAL);
    kv_rig_open(rig);
    mv_park(rig, &run, KVB_TIER_DEVICE, 1, 4);
    mv_step(rig);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    mv_expect_in(rig, &run, KVB_TIER_DISK);
}

/* ---- What does not get there ----------------------------------------------------------------- */

static void test_queued_offer_of_an_evicted_block_is_discarded(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run runs[2];
    struct kvb_block *blocks[3];
    mv_open_narrow(rig, 4, 4);
    mv_store_each(rig, runs, KVB_TIER_DEVICE, 1, 2);
    mv_offer_each(rig, runs, 2, 50);
    mv_drop_each(rig, runs, 2);
    mv_alloc_many(rig, KVB_TIER_DEVICE, 3, blocks);
    kv_check(rig);
    mv_step(rig);
    assert_int_equal(mv_down(rig).transferred, 1);
    assert_int_equal(mv_down(rig).discarded, 1);
    assert_int_equal(mv_in_tier(rig, &runs[0], KVB_TIER_DEVICE), 1);
    assert_int_equal(mv_found(rig, &runs[1]), 0);
    kv_ok(kvb_block_unref(rig->kv, blocks, 3, NULL));
}

static void test_discarded_offer_leaves_the_slots_next_life_alone(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run runs[4];
    mv_open_narrow(rig, 2, 4);
    mv_store_each(rig, runs, KVB_TIER_DEVICE, 1, 2);
    mv_offer_each(rig, runs, 2, 50);
    mv_drop(rig, &runs[1]);
    mv_store(rig, &runs[2], KVB_TIER_DEVICE, 77, 1); /* in the slot of runs[1] */
    mv_offer(rig, runs[2].blocks[0], 50);
    mv_step(rig);
    assert_int_equal(mv_down(rig).discarded, 1);
    assert_int_equal(mv_down(rig).transferred, 2);
    mv_drop(rig, &runs[0]);
    mv_drop(rig, &runs[2]);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    mv_expect_in(rig, &runs[0], KVB_TIER_HOST);
    mv_expect_in(rig, &runs[2], KVB_TIER_HOST);
}

static void test_offer_of_what_is_below_already_is_skipped(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    mv_open_two(rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_store(rig, &run, KVB_TIER_DEVICE, 1, 1);
    mv_offer(rig, run.blocks[0], 50);
    mv_step(rig);
    mv_offer(rig, run.blocks[0], 50);
    assert_int_equal(mv_down(rig).offered, 2);
    assert_int_equal(mv_down(rig).skipped_present, 1);
    mv_drop(rig, &run);
}

static void test_queued_offer_is_skipped_when_the_content_came_below_meanwhile(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run runs[2], host;
    mv_open_narrow(rig, 4, 4);
    mv_store_each(rig, runs, KVB_TIER_DEVICE, 1, 2);
    mv_offer_each(rig, runs, 2, 50);
    mv_store(rig, &host, KVB_TIER_HOST, 1001, 1); /* the content of runs[1] */
    mv_step(rig);
    assert_int_equal(mv_down(rig).skipped_present, 1);
    assert_int_equal(mv_down(rig).transferred, 1);
    mv_drop_each(rig, runs, 2);
    mv_drop(rig, &host);
}

static void test_full_queue_sheds_an_incoming_offer_that_is_no_better(void **state)
{
    struct kv_rig *rig = *state;
    static const uint32_t priorities[] = {50, 20, 30, 20, 10};
    struct mv_run runs[5];
    mv_two_tiers(rig, 8, 8, KVB_OFFLOAD_MANUAL);
    mv_bounds(rig, 0, 1, 1, 1, 2);
    kv_rig_open(rig);
    mv_store_each(rig, runs, KVB_TIER_DEVICE, 1, 5);
    for (uint32_t i = 0; i < 5; i++)
        mv_offer(rig, runs[i].blocks[0], priorities[i]);
    assert_int_equal(mv_down(rig).shed, 2);
    mv_step(rig);
    mv_drop_each(rig, runs, 5);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    for (uint32_t i = 0; i < 5; i++)
        assert_int_equal(mv_found(rig, &runs[i]), i < 3);
}

static void test_full_queue_sheds_the_youngest_of_its_lowest_for_a_better_one(void **state)
{
    struct kv_rig *rig = *state;
    static const uint32_t priorities[] = {50, 20, 20, 30};
    struct mv_run runs[4];
    mv_two_tiers(rig, 8, 8, KVB_OFFLOAD_MANUAL);
    mv_bounds(rig, 0, 1, 1, 1, 2);
    kv_rig_open(rig);
    mv_store_each(rig, runs, KVB_TIER_DEVICE, 1, 4);
    for (uint32_t i = 0; i < 4; i++)
        mv_offer(rig, runs[i].blocks[0], priorities[i]);
    assert_int_equal(mv_down(rig).shed, 1);
    mv_step(rig);
    mv_drop_each(rig, runs, 4);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(mv_found(rig, &runs[i]), i != 2);
}

static void test_shed_block_may_be_offered_again(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run runs[3];
    mv_two_tiers(rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_bounds(rig, 0, 1, 1, 1, 1);
    kv_rig_open(rig);
    mv_store_each(rig, runs, KVB_TIER_DEVICE, 1, 3);
    mv_offer_each(rig, runs, 3, 50);
    assert_int_equal(mv_down(rig).shed, 1);
    mv_step(rig);
    mv_offer(rig, runs[2].blocks[0], 50);
    mv_step(rig);
    assert_int_equal(mv_down(rig).transferred, 3);
    mv_drop_each(rig, runs, 3);
}

static void test_lane_never_holds_more_than_its_bounds(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run runs[12];
    mv_two_tiers(rig, 16, 16, KVB_OFFLOAD_MANUAL);
    mv_bounds(rig, 0, 2, 2, 2, 16);
    kv_rig_open(rig);
    for (uint32_t i = 0; i < 12; i++) {
        mv_store_after(rig, &runs[i], KVB_TIER_DEVICE, i + 1, 1, i < 2 ? 1 : 0);
        mv_offer(rig, runs[i].blocks[0], 50);
        if (i == 1)
            mv_step(rig);
    }
    assert_int_equal(mv_down(rig).inflight, 2);
    assert_int_equal(mv_down(rig).ondeck, 2);
    assert_int_equal(mv_down(rig).queued, 8);
    mv_step(rig);
    assert_int_equal(mv_down(rig).inflight, 2);
    assert_int_equal(mv_down(rig).transferred, 10);
    mv_reach(rig, 1);
    assert_int_equal(mv_down(rig).transferred, 12);
    assert_int_equal(mv_down(rig).pinned_max, 2 + 2 * 2);
    mv_drop_each(rig, runs, 12);
}

static void test_batch_with_little_room_below_moves_what_fits(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run runs[3];
    struct kvb_block *held[3];
    mv_two_tiers(rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_bounds(rig, 0, 4, 4, 1, 8);
    kv_rig_open(rig);
    mv_alloc_many(rig, KVB_TIER_HOST, 3, held);
    mv_store_each(rig, runs, KVB_TIER_DEVICE, 1, 3);
    mv_offer_each(rig, runs, 3, 50);
    mv_drop_each(rig, runs, 3);
    mv_step(rig);
    assert_int_equal(mv_down(rig).transferred, 1);
    assert_int_equal(mv_down(rig).skipped_no_target, 2);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    mv_expect_in(rig, &runs[0], KVB_TIER_HOST);
    kv_ok(kvb_block_unref(rig->kv, held, 3, NULL));
}

static void test_nothing_of_higher_priority_is_evicted_below(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run below[2], run;
    mv_open_two(rig, 4, 2, KVB_OFFLOAD_MANUAL);
    mv_store_each(rig, below, KVB_TIER_HOST, 1, 2);
    for (uint32_t i = 0; i < 2; i++) {
        kv_ok(kvb_block_set_priority(rig->kv, below[i].blocks, 1, 51, 0, NULL));
        mv_drop(rig, &below[i]);
    }
    mv_store(rig, &run, KVB_TIER_DEVICE, 9, 1);
    mv_offer(rig, run.blocks[0], 50);
    mv_step(rig);
    assert_int_equal(mv_down(rig).skipped_no_target, 1);
    mv_expect_each_in(rig, below, 2, KVB_TIER_HOST);
    mv_drop(rig, &run);
}

static void test_equal_priority_is_evicted_below(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run below, run;
    mv_open_two(rig, 4, 1, KVB_OFFLOAD_MANUAL);
    mv_store(rig, &below, KVB_TIER_HOST, 1, 1);
    kv_ok(kvb_block_set_priority(rig->kv, below.blocks, 1, 50, 0, NULL));
    mv_drop(rig, &below);
    mv_store(rig, &run, KVB_TIER_DEVICE, 9, 1);
    mv_offer(rig, run.blocks[0], 50);
    mv_step(rig);
    assert_int_equal(mv_down(rig).transferred, 1);
    assert_int_equal(mv_found(rig, &below), 0);
    mv_drop(rig, &run);
}

static void test_triggered_offer_past_its_retention_has_the_default_priority(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run below, run;
    mv_open_two(rig, 4, 1, KVB_OFFLOAD_ON_PARK);
    mv_store(rig, &below, KVB_TIER_HOST, 1, 1);
    kv_ok(kvb_block_set_priority(rig->kv, below.blocks, 1, KVB_PRIORITY_DEFAULT + 1, 0, NULL));
    mv_drop(rig, &below);
    mv_store(rig, &run, KVB_TIER_DEVICE, 9, 1);
    kv_ok(kvb_block_set_priority(rig->kv, run.blocks, 1, 100, KV_MS, NULL));
    kv_advance(rig, 2 * KV_MS);
    mv_drop(rig, &run);
    mv_step(rig);
    assert_int_equal(mv_down(rig).skipped_no_target, 1);
    mv_expect_in(rig, &below, KVB_TIER_HOST);
}

/* ---- Room ------------------------------------------------------------------------------------ */

static void test_alloc_turns_on_deck_handles_into_weak_ones(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run runs[4];
    struct kvb_block *blocks[4];
    mv_open_two(rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_store_each(rig, runs, KVB_TIER_DEVICE, 1, 4);
    mv_offer_each(rig, runs, 4, 50);
    mv_drop_each(rig, runs, 4);
    assert_int_equal(mv_down(rig).ondeck, 4);
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_DEVICE].available_count, 4);
    mv_alloc_many(rig, KVB_TIER_DEVICE, 4, blocks);
    kv_check(rig);
    mv_step(rig);
    assert_int_equal(mv_down(rig).discarded, 4);
    kv_ok(kvb_block_unref(rig->kv, blocks, 4, NULL));
}

static void test_revoked_handles_of_blocks_that_stay_are_transferred_later(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run runs[4];
    mv_open_two(rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_store_each(rig, runs, KVB_TIER_DEVICE, 1, 4);
    mv_offer_each(rig, runs, 4, 50);
    mv_drop_each(rig, runs, 4);
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_check(rig);
    mv_step(rig);
    assert_int_equal(mv_down(rig).transferred, 3);
    assert_int_equal(mv_down(rig).discarded, 1);
    kv_unref(rig, block);
}

static void test_alloc_says_again_when_transfers_alone_hold_what_is_missing(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct kvb_block *blocks[4];
    uint32_t missing = 0;
    mv_open_two(rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_store_after(rig, &run, KVB_TIER_DEVICE, 1, 4, 1);
    for (uint32_t i = 0; i < 4; i++)
        mv_offer(rig, run.blocks[i], 50);
    mv_step(rig);
    mv_drop(rig, &run);
    kv_expect(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 3, NULL, blocks, &missing), KVB_EAGAIN);
    assert_int_equal(missing, 3);
    assert_null(blocks[0]);
    mv_reach(rig, 1);
    mv_alloc_many(rig, KVB_TIER_DEVICE, 4, blocks);
    kv_ok(kvb_block_unref(rig->kv, blocks, 4, NULL));
}

static void test_alloc_says_no_space_when_the_caller_holds_a_part_of_what_is_missing(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct kvb_block *blocks[4];
    mv_open_two(rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_store_after(rig, &run, KVB_TIER_DEVICE, 1, 3, 1);
    for (uint32_t i = 0; i < 3; i++)
        mv_offer(rig, run.blocks[i], 50);
    mv_step(rig);
    mv_drop(rig, &run);
    struct kvb_block *held = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_expect(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 4, NULL, blocks, NULL), KVB_ENOSPC);
    kv_check(rig);
    kv_unref(rig, held);
    mv_reach(rig, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kv_rig, test_offer_with_room_goes_on_deck),
        TEST(kv_rig, test_offer_beyond_the_deck_is_demoted_to_the_queue),
        TEST(kv_rig, test_queue_gives_the_highest_priority_first_and_within_it_the_oldest),
        TEST(kv_rig, test_deck_is_refilled_when_the_engine_takes_from_it),
        TEST(kv_rig, test_transfer_delivers_the_same_bytes),
        TEST(kv_rig, test_device_and_disk_alone_are_neighbours),
        TEST(kv_rig, test_queued_offer_of_an_evicted_block_is_discarded),
        TEST(kv_rig, test_discarded_offer_leaves_the_slots_next_life_alone),
        TEST(kv_rig, test_offer_of_what_is_below_already_is_skipped),
        TEST(kv_rig, test_queued_offer_is_skipped_when_the_content_came_below_meanwhile),
        TEST(kv_rig, test_full_queue_sheds_an_incoming_offer_that_is_no_better),
        TEST(kv_rig, test_full_queue_sheds_the_youngest_of_its_lowest_for_a_better_one),
        TEST(kv_rig, test_shed_block_may_be_offered_again),
        TEST(kv_rig, test_lane_never_holds_more_than_its_bounds),
        TEST(kv_rig, test_batch_with_little_room_below_moves_what_fits),
        TEST(kv_rig, test_nothing_of_higher_priority_is_evicted_below),
        TEST(kv_rig, test_equal_priority_is_evicted_below),
        TEST(kv_rig, test_triggered_offer_past_its_retention_has_the_default_priority),
        TEST(kv_rig, test_alloc_turns_on_deck_handles_into_weak_ones),
        TEST(kv_rig, test_revoked_handles_of_blocks_that_stay_are_transferred_later),
        TEST(kv_rig, test_alloc_says_again_when_transfers_alone_hold_what_is_missing),
        TEST(kv_rig, test_alloc_says_no_space_when_the_caller_holds_a_part_of_what_is_missing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
