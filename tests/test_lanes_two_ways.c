/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two lanes out of one tier: a block is offered to each, and each does with its offer as if it were
 * alone; who needs the slot, or forgets the content, asks both.
 */
#include "support/test.h"
#include "support/two_ways.h"

/* ---- Offering ------------------------------------------------------------------------------- */

static void test_block_offered_to_two_lanes_arrives_in_both(void **state)
{
    struct ways *w = ways_open(state, KVB_OFFLOAD_MANUAL, WAYS_BLOCKS);
    struct kvb_block *block = ways_store_one(w);
    assert_int_equal(ways_offer(w, block), 0);
    ways_expect_stages(w, block, KVBI_OFFER_ONDECK, KVBI_OFFER_ONDECK);
    ways_move_all(w, KVB_TIER_REMOTE);
    assert_true(ways_has_copy(w, block, KVB_TIER_REMOTE));
    ways_expect_stages(w, block, KVBI_OFFER_ONDECK, KVBI_OFFER_FREE);
    ways_move_all(w, KVB_TIER_HOST);
    assert_true(ways_has_copy(w, block, KVB_TIER_HOST));
    assert_int_equal(block->offer, KVBI_NONE);
    ways_let_go(w, block);
}

static void test_each_lane_keeps_its_own_books(void **state)
{
    struct ways *w = ways_open(state, KVB_OFFLOAD_ON_REGISTER, WAYS_BLOCKS);
    for (uint32_t i = 0; i < 3; i++)
        ways_let_go(w, ways_store_one(w));
    ways_move_all(w, KVB_TIER_HOST);
    assert_int_equal(ways_stats(w, KVB_TIER_HOST)->transferred, 3);
    assert_int_equal(ways_stats(w, KVB_TIER_REMOTE)->offered, 3);
    assert_int_equal(ways_stats(w, KVB_TIER_REMOTE)->transferred, 0);
    assert_int_equal(kvbi_lane_ondeck(ways_lane_into(w, KVB_TIER_REMOTE)), 3);
}

static void test_trigger_offers_to_the_lanes_that_wait_for_it(void **state)
{
    struct ways *w = ways_open(state, KVB_OFFLOAD_ON_PARK, WAYS_BLOCKS);
    ways_lane_into(w, KVB_TIER_REMOTE)->trigger = KVB_OFFLOAD_ON_REGISTER;
    struct kvb_block *block = ways_store_one(w);
    ways_expect_stages(w, block, KVBI_OFFER_FREE, KVBI_OFFER_ONDECK);
    ways_let_go(w, block);
    ways_expect_stages(w, block, KVBI_OFFER_ONDECK, KVBI_OFFER_ONDECK);
}

static void test_offer_by_hand_is_busy_while_both_lanes_have_one(void **state)
{
    struct ways *w = ways_open(state, KVB_OFFLOAD_ON_REGISTER, WAYS_BLOCKS);
    struct kvb_block *block = ways_store_one(w);
    assert_int_equal(ways_offer(w, block), KVB_EBUSY);
    assert_int_equal(ways_stats(w, KVB_TIER_HOST)->offered, 1);
    ways_let_go(w, block);
}

static void test_offer_by_hand_goes_to_the_lane_that_has_none(void **state)
{
    struct ways *w = ways_open(state, KVB_OFFLOAD_ON_REGISTER, WAYS_BLOCKS);
    struct kvb_block *block = ways_store_one(w);
    w->fails_into = KVB_TIER_HOST;
    ways_move_all(w, KVB_TIER_HOST);
    ways_expect_stages(w, block, KVBI_OFFER_FREE, KVBI_OFFER_ONDECK);
    assert_int_equal(ways_offer(w, block), 0);
    ways_expect_stages(w, block, KVBI_OFFER_ONDECK, KVBI_OFFER_ONDECK);
    assert_int_equal(ways_stats(w, KVB_TIER_HOST)->offered, 2);
    assert_int_equal(ways_stats(w, KVB_TIER_REMOTE)->offered, 1);
    ways_let_go(w, block);
}

static void test_failed_copy_of_one_lane_leaves_the_other(void **state)
{
    struct ways *w = ways_open(state, KVB_OFFLOAD_ON_REGISTER, WAYS_BLOCKS);
    struct kvb_block *block = ways_store_one(w);
    w->fails_into = KVB_TIER_HOST;
    ways_move_all(w, KVB_TIER_HOST);
    ways_move_all(w, KVB_TIER_REMOTE);
    assert_false(ways_has_copy(w, block, KVB_TIER_HOST));
    assert_true(ways_has_copy(w, block, KVB_TIER_REMOTE));
    assert_int_equal(ways_stats(w, KVB_TIER_HOST)->failed, 1);
    assert_int_equal(ways_stats(w, KVB_TIER_REMOTE)->failed, 0);
    ways_let_go(w, block);
}

/* ---- Taking back ---------------------------------------------------------------------------- */

/* One block on each deck, which has room for one: whatever is offered next waits. */
static struct ways *open_with_full_decks(void **state)
{
    struct ways *w = ways_open(state, KVB_OFFLOAD_ON_REGISTER, 1);
    ways_let_go(w, ways_store_one(w));
    return w;
}

static void test_cancel_takes_back_both_offers(void **state)
{
    struct ways *w = open_with_full_decks(state);
    struct kvb_block *block = ways_store_one(w);
    ways_expect_stages(w, block, KVBI_OFFER_QUEUED, KVBI_OFFER_QUEUED);
    assert_int_equal(ways_cancel(w, block), 0);
    ways_expect_stages(w, block, KVBI_OFFER_FREE, KVBI_OFFER_FREE);
    assert_int_equal(ways_cancel(w, block), KVB_ENOENT);
    assert_int_equal(ways_stats(w, KVB_TIER_HOST)->cancelled, 1);
    assert_int_equal(ways_stats(w, KVB_TIER_REMOTE)->cancelled, 1);
    ways_let_go(w, block);
}

/* The deck of HOST has been worked off, and has taken the block up; that of REMOTE has not. */
static void test_cancel_of_an_offer_that_one_lane_has_on_deck_is_busy_and_takes_the_other(
    void **state)
{
    struct ways *w = open_with_full_decks(state);
    struct kvb_block *block = ways_store_one(w);
    struct ways_batch batch;
    ways_lane_into(w, KVB_TIER_HOST)->batch = 1;
    ways_take(w, KVB_TIER_HOST, &batch);
    ways_expect_stages(w, block, KVBI_OFFER_ONDECK, KVBI_OFFER_QUEUED);
    assert_int_equal(ways_cancel(w, block), KVB_EBUSY);
    ways_expect_stages(w, block, KVBI_OFFER_ONDECK, KVBI_OFFER_FREE);
    assert_int_equal(ways_stats(w, KVB_TIER_HOST)->cancelled, 0);
    assert_int_equal(ways_stats(w, KVB_TIER_REMOTE)->cancelled, 1);
    ways_carry_out(w, KVB_TIER_HOST, &batch);
    ways_let_go(w, block);
}

/* ---- Losing the content --------------------------------------------------------------------- */

static void test_eviction_discards_both_offers(void **state)
{
    struct ways *w = open_with_full_decks(state);
    struct kvb_block *block = ways_store_one(w), *held[WAYS_BLOCKS];
    uint32_t count = 0;
    ways_let_go(w, block);
    ways_expect_stages(w, block, KVBI_OFFER_QUEUED, KVBI_OFFER_QUEUED);
    do /* all that is free, and then this */
        held[count] = ways_alloc_one(w);
    while (held[count++] != block);
    ways_expect_stages(w, block, KVBI_OFFER_FREE, KVBI_OFFER_FREE);
    assert_int_equal(ways_stats(w, KVB_TIER_HOST)->discarded, 1);
    assert_int_equal(ways_stats(w, KVB_TIER_REMOTE)->discarded, 1);
    while (count-- > 0)
        ways_let_go(w, held[count]);
}

static void test_forgotten_content_leaves_both_decks_and_its_slot_is_free(void **state)
{
    struct ways *w = ways_open(state, KVB_OFFLOAD_ON_REGISTER, WAYS_BLOCKS);
    struct kvb_block *block = ways_store_one(w);
    ways_let_go(w, block);
    ways_expect_stages(w, block, KVBI_OFFER_ONDECK, KVBI_OFFER_ONDECK);
    ways_forget(w, block);
    ways_expect_stages(w, block, KVBI_OFFER_FREE, KVBI_OFFER_FREE);
    assert_int_equal(block->place, KVBI_PLACE_FREE);
    assert_int_equal(ways_stats(w, KVB_TIER_HOST)->discarded, 1);
    assert_int_equal(ways_stats(w, KVB_TIER_REMOTE)->discarded, 1);
}

/* What the engine reads stays; the offer of the other lane is worth nothing any more. */
static void test_forgotten_content_that_one_lane_reads_is_free_when_it_has_been_read(void **state)
{
    struct ways *w = ways_open(state, KVB_OFFLOAD_ON_REGISTER, WAYS_BLOCKS);
    struct kvb_block *block = ways_store_one(w);
    struct ways_batch batch;
    ways_let_go(w, block);
    ways_take(w, KVB_TIER_REMOTE, &batch);
    ways_forget(w, block);
    ways_expect_stages(w, block, KVBI_OFFER_FREE, KVBI_OFFER_TAKEN);
    assert_int_equal(block->place, KVBI_PLACE_QUARANTINED);
    ways_carry_out(w, KVB_TIER_REMOTE, &batch);
    ways_expect_stages(w, block, KVBI_OFFER_FREE, KVBI_OFFER_FREE);
    assert_int_equal(block->place, KVBI_PLACE_FREE);
    assert_int_equal(ways_stats(w, KVB_TIER_HOST)->discarded, 1);
    assert_int_equal(ways_stats(w, KVB_TIER_REMOTE)->failed_invalidated, 1);
}

/* ---- Room ----------------------------------------------------------------------------------- */

static void test_revoking_one_offer_leaves_the_other_on_deck(void **state)
{
    struct ways *w = ways_open(state, KVB_OFFLOAD_ON_REGISTER, WAYS_BLOCKS);
    struct kvb_block *block = ways_store_one(w);
    struct kvbi_lane *lane = ways_lane_into(w, KVB_TIER_HOST);
    ways_let_go(w, block);
    ways_lock(w);
    kvbi_lane_revoke_locked(lane, kvbi_offers_find(lane->offers, block, lane->number), 0);
    ways_unlock(w);
    ways_expect_stages(w, block, KVBI_OFFER_QUEUED, KVBI_OFFER_ONDECK);
    assert_int_equal(block->holds, 1);
    ways_move_all(w, KVB_TIER_HOST);
    ways_move_all(w, KVB_TIER_REMOTE);
    assert_true(ways_has_copy(w, block, KVB_TIER_HOST));
    assert_true(ways_has_copy(w, block, KVB_TIER_REMOTE));
}

/* Parked, all that there are. */
static struct ways *open_with_all_on_both_decks(void **state)
{
    struct ways *w = ways_open(state, KVB_OFFLOAD_ON_REGISTER, WAYS_BLOCKS);
    for (uint32_t i = 0; i < WAYS_BLOCKS; i++)
        ways_let_go(w, ways_store_one(w));
    return w;
}

/* It is pinned twice, and yet nobody but decks has hold of it. */
static void test_block_on_two_decks_is_available_unless_one_has_been_taken(void **state)
{
    struct ways *w = ways_open(state, KVB_OFFLOAD_ON_REGISTER, WAYS_BLOCKS);
    struct kvb_block *block = ways_store_one(w);
    struct ways_batch batch;
    ways_let_go(w, block);
    assert_int_equal(block->holds, 2);
    assert_int_equal(kvbi_pool_available(w->pool), WAYS_BLOCKS);
    ways_take(w, KVB_TIER_HOST, &batch);
    assert_int_equal(kvbi_pool_available(w->pool), WAYS_BLOCKS - 1);
    ways_carry_out(w, KVB_TIER_HOST, &batch);
    assert_int_equal(kvbi_pool_available(w->pool), WAYS_BLOCKS);
    ways_expect_stages(w, block, KVBI_OFFER_FREE, KVBI_OFFER_ONDECK);
}

static void test_room_is_made_of_blocks_that_are_on_both_decks(void **state)
{
    struct ways *w = open_with_all_on_both_decks(state);
    assert_int_equal(w->pool->parked_held_count, WAYS_BLOCKS);
    ways_alloc_all(w);
    assert_int_equal(ways_stats(w, KVB_TIER_HOST)->discarded, WAYS_BLOCKS);
    assert_int_equal(ways_stats(w, KVB_TIER_REMOTE)->discarded, WAYS_BLOCKS);
}

/* What one deck lets go of the other does too: a batch of offers, half of it of each. */
static void test_room_for_a_block_takes_the_same_batch_off_both_decks(void **state)
{
    struct ways *w = open_with_all_on_both_decks(state);
    ways_let_go(w, ways_alloc_one(w));
    assert_int_equal(kvbi_lane_ondeck(ways_lane_into(w, KVB_TIER_HOST)),
                     WAYS_BLOCKS - KVBI_LOCK_BATCH / 2);
    assert_int_equal(kvbi_lane_ondeck(ways_lane_into(w, KVB_TIER_REMOTE)),
                     WAYS_BLOCKS - KVBI_LOCK_BATCH / 2);
}

/* The deck of HOST is empty: what REMOTE's has alone is let go of as well. */
static void test_room_is_made_of_blocks_that_are_on_the_second_deck_only(void **state)
{
    struct ways *w = open_with_all_on_both_decks(state);
    ways_move_all(w, KVB_TIER_HOST);
    ways_alloc_all(w);
    assert_int_equal(ways_stats(w, KVB_TIER_HOST)->transferred, WAYS_BLOCKS);
    assert_int_equal(ways_stats(w, KVB_TIER_REMOTE)->discarded, WAYS_BLOCKS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(ways, test_block_offered_to_two_lanes_arrives_in_both),
        TEST(ways, test_each_lane_keeps_its_own_books),
        TEST(ways, test_trigger_offers_to_the_lanes_that_wait_for_it),
        TEST(ways, test_offer_by_hand_is_busy_while_both_lanes_have_one),
        TEST(ways, test_offer_by_hand_goes_to_the_lane_that_has_none),
        TEST(ways, test_failed_copy_of_one_lane_leaves_the_other),
        TEST(ways, test_cancel_takes_back_both_offers),
        TEST(ways, test_cancel_of_an_offer_that_one_lane_has_on_deck_is_busy_and_takes_the_other),
        TEST(ways, test_eviction_discards_both_offers),
        TEST(ways, test_forgotten_content_leaves_both_decks_and_its_slot_is_free),
        TEST(ways, test_forgotten_content_that_one_lane_reads_is_free_when_it_has_been_read),
        TEST(ways, test_revoking_one_offer_leaves_the_other_on_deck),
        TEST(ways, test_block_on_two_decks_is_available_unless_one_has_been_taken),
        TEST(ways, test_room_is_made_of_blocks_that_are_on_both_decks),
        TEST(ways, test_room_for_a_block_takes_the_same_batch_off_both_decks),
        TEST(ways, test_room_is_made_of_blocks_that_are_on_the_second_deck_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
