/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding the leading run of a prompt, and the tier that has each of its blocks.
 */
#include "support/find.h"

/* ---- The run --------------------------------------------------------------------------------- */

static void test_match_of_nothing_stored_is_empty(void **state)
{
    struct kv_rig *rig = *state;
    assert_int_equal(find_match_tokens(rig, 0, find_tokens, FIND_RUN), 0);
}

static void test_match_hands_out_a_handle_for_every_block_in_order(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *blocks[FIND_RUN];
    struct kvb_hit hits[FIND_RUN];
    size_t count = 0;
    kv_store_run(rig, KVB_TIER_DEVICE, 0, find_tokens, FIND_RUN, blocks);
    struct kvb_query query = kv_query(0, find_tokens, FIND_RUN * KV_TOKENS);
    kv_ok(kvb_match(rig->kv, &query, hits, FIND_RUN, &count));
    assert_int_equal(count, FIND_RUN);
    for (int i = 0; i < FIND_RUN; i++) {
        assert_ptr_equal(hits[i].block, blocks[i]);
        assert_int_equal(hits[i].tier, KVB_TIER_DEVICE);
        assert_int_equal(hits[i].slot, kvb_block_slot(rig->kv, blocks[i]));
        assert_int_equal(kv_describe(rig, blocks[i]).holder_count, 2);
        kv_unref(rig, hits[i].block);
    }
    find_unref(rig, blocks, FIND_RUN);
}

static void test_match_of_parked_blocks_holds_them(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_hit hits[FIND_RUN];
    size_t count = 0;
    find_park(rig, KVB_TIER_DEVICE, 0, find_tokens, 2);
    struct kvb_query query = kv_query(0, find_tokens, 2 * KV_TOKENS);
    kv_ok(kvb_match(rig->kv, &query, hits, FIND_RUN, &count));
    assert_int_equal(kv_stats(rig).tiers[0].parked_count, 0);
    assert_int_equal(kv_stats(rig).tiers[0].held_count, 2);
    kv_unref(rig, hits[0].block);
    kv_unref(rig, hits[1].block);
}

static void test_match_stops_at_the_first_gap(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_seq seqs[FIND_RUN];
    find_park(rig, KVB_TIER_DEVICE, 0, find_tokens, FIND_RUN);
    find_name(rig, 0, find_tokens, FIND_RUN, seqs);
    kv_ok(kvb_invalidate(rig->kv, &seqs[2], 1, NULL));
    assert_int_equal(find_match_tokens(rig, 0, find_tokens, FIND_RUN), 2);
}

static void test_match_stops_where_tokens_differ(void **state)
{
    struct kv_rig *rig = *state;
    uint32_t other[FIND_RUN * KV_TOKENS];
    find_park(rig, KVB_TIER_DEVICE, 0, find_tokens, FIND_RUN);
    memcpy(other, find_tokens, sizeof other);
    other[KV_TOKENS] ^= 1;
    assert_int_equal(find_match_tokens(rig, 0, other, FIND_RUN), 1);
}

static void test_match_of_longer_prompt_ends_with_what_is_stored(void **state)
{
    struct kv_rig *rig = *state;
    find_park(rig, KVB_TIER_DEVICE, 0, find_tokens, 2);
    assert_int_equal(find_match_tokens(rig, 0, find_tokens, FIND_RUN), 2);
}

static void test_match_stops_at_capacity(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_hit hits[2];
    size_t count = 0;
    find_park(rig, KVB_TIER_DEVICE, 0, find_tokens, FIND_RUN);
    struct kvb_query query = kv_query(0, find_tokens, FIND_RUN * KV_TOKENS);
    kv_ok(kvb_match(rig->kv, &query, hits, 2, &count));
    assert_int_equal(count, 2);
    assert_int_equal(kv_stats(rig).tiers[0].held_count, 2);
    kv_unref(rig, hits[0].block);
    kv_unref(rig, hits[1].block);
}

static void test_match_ignores_an_incomplete_tail(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_hit hits[FIND_RUN];
    find_park(rig, KVB_TIER_DEVICE, 0, find_tokens, 2);
    struct kvb_query query = kv_query(0, find_tokens, 2 * KV_TOKENS - 1);
    assert_int_equal(find_match(rig, &query, hits), 1);
    query.token_count = KV_TOKENS - 1;
    assert_int_equal(find_match(rig, &query, hits), 0);
}

static void test_match_finds_no_unregistered_block(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_complete(rig, block, 0, 0, NULL, find_tokens);
    assert_int_equal(find_match_tokens(rig, 0, find_tokens, 1), 0);
    kv_unref(rig, block);
}

static void test_match_of_more_than_64_blocks_hands_out_all(void **state)
{
    struct kv_rig *rig = *state;
    enum { COUNT = 150 };
    static uint32_t tokens[COUNT * KV_TOKENS];
    static struct kvb_block *blocks[COUNT];
    static struct kvb_hit hits[COUNT];
    size_t count = 0;
    uint64_t tiers[KVB_TIER_COUNT];
    rig->tiers[0].block_count = COUNT;
    kv_rig_open(rig);
    kv_tokens(tokens, COUNT * KV_TOKENS, 8);
    kv_store_run(rig, KVB_TIER_DEVICE, 0, tokens, COUNT, blocks);
    kv_ok(kvb_block_unref(rig->kv, blocks, COUNT, NULL));

    struct kvb_query query = kv_query(0, tokens, COUNT * KV_TOKENS);
    kv_ok(kvb_lookup(rig->kv, &query, tiers));
    assert_int_equal(tiers[KVB_TIER_DEVICE], COUNT);
    kv_ok(kvb_match(rig->kv, &query, hits, COUNT, &count));
    assert_int_equal(count, COUNT);
    int wrong = 0;
    for (int i = 0; i < COUNT; i++) {
        wrong += hits[i].block != blocks[i];
        kv_unref(rig, hits[i].block);
    }
    assert_int_equal(wrong, 0);

    static struct kvb_seq seqs[COUNT]; /* and by names, with tokens and without */
    kv_ok(kvb_hash_tokens(rig->kv, 0, NULL, tokens, COUNT * KV_TOKENS, seqs, COUNT, &count));
    query.keys = seqs;
    query.key_count = COUNT;
    kv_ok(kvb_lookup(rig->kv, &query, tiers));
    assert_int_equal(tiers[KVB_TIER_DEVICE], COUNT);
    query.tokens = NULL;
    query.token_count = 0;
    kv_ok(kvb_lookup(rig->kv, &query, tiers));
    assert_int_equal(tiers[KVB_TIER_DEVICE], COUNT);
}

/* ---- Tiers ----------------------------------------------------------------------------------- */

static void test_match_says_the_tier_that_has_the_copy(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_hit hits[FIND_RUN];
    find_park(rig, KVB_TIER_HOST, 0, find_tokens, 1);
    struct kvb_query query = kv_query(0, find_tokens, KV_TOKENS);
    assert_int_equal(find_match(rig, &query, hits), 1);
    assert_int_equal(hits[0].tier, KVB_TIER_HOST);
}

static void test_match_takes_the_copy_in_the_fastest_tier(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_hit hits[FIND_RUN];
    find_park(rig, KVB_TIER_HOST, 0, find_tokens, 2);
    find_park(rig, KVB_TIER_DEVICE, 0, find_tokens, 1);
    struct kvb_query query = kv_query(0, find_tokens, 2 * KV_TOKENS);
    assert_int_equal(find_match(rig, &query, hits), 2);
    assert_int_equal(hits[0].tier, KVB_TIER_DEVICE);
    assert_int_equal(hits[1].tier, KVB_TIER_HOST);
}

static void test_lookup_counts_the_fastest_copy_of_each_block(void **state)
{
    struct kv_rig *rig = *state;
    uint64_t tiers[KVB_TIER_COUNT] = {9, 9, 9, 9};
    find_park(rig, KVB_TIER_HOST, 0, find_tokens, 3);
    find_park(rig, KVB_TIER_DEVICE, 0, find_tokens, 1);
    struct kvb_query query = kv_query(0, find_tokens, FIND_RUN * KV_TOKENS);
    kv_ok(kvb_lookup(rig->kv, &query, tiers));
    assert_int_equal(tiers[KVB_TIER_DEVICE], 1);
    assert_int_equal(tiers[KVB_TIER_HOST], 2);
    assert_int_equal(tiers[KVB_TIER_DISK], 0);
    assert_int_equal(tiers[KVB_TIER_REMOTE], 0);
}

static void test_lookup_holds_nothing(void **state)
{
    struct kv_rig *rig = *state;
    find_park(rig, KVB_TIER_DEVICE, 0, find_tokens, FIND_RUN);
    assert_int_equal(kv_run_length(rig, 0, find_tokens, FIND_RUN * KV_TOKENS), FIND_RUN);
    assert_int_equal(kv_stats(rig).tiers[0].held_count, 0);
    assert_int_equal(kv_stats(rig).tiers[0].hits, 0);
}

static void test_match_counts_hits_by_tier(void **state)
{
    struct kv_rig *rig = *state;
    find_park(rig, KVB_TIER_HOST, 0, find_tokens, 2);
    find_park(rig, KVB_TIER_DEVICE, 0, find_tokens, 1);
    assert_int_equal(find_match_tokens(rig, 0, find_tokens, 2), 2);
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_DEVICE].hits, 1);
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_HOST].hits, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kv_opened_two_tiers, test_match_of_nothing_stored_is_empty),
        TEST(kv_opened_two_tiers, test_match_hands_out_a_handle_for_every_block_in_order),
        TEST(kv_opened_two_tiers, test_match_of_parked_blocks_holds_them),
        TEST(kv_opened_two_tiers, test_match_stops_at_the_first_gap),
        TEST(kv_opened_two_tiers, test_match_stops_where_tokens_differ),
        TEST(kv_opened_two_tiers, test_match_of_longer_prompt_ends_with_what_is_stored),
        TEST(kv_opened_two_tiers, test_match_stops_at_capacity),
        TEST(kv_opened_two_tiers, test_match_ignores_an_incomplete_tail),
        TEST(kv_opened_two_tiers, test_match_finds_no_unregistered_block),
        TEST(kv_rig, test_match_of_more_than_64_blocks_hands_out_all),
        TEST(kv_opened_two_tiers, test_match_says_the_tier_that_has_the_copy),
        TEST(kv_opened_two_tiers, test_match_takes_the_copy_in_the_fastest_tier),
        TEST(kv_opened_two_tiers, test_lookup_counts_the_fastest_copy_of_each_block),
        TEST(kv_opened_two_tiers, test_lookup_holds_nothing),
        TEST(kv_opened_two_tiers, test_match_counts_hits_by_tier),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
