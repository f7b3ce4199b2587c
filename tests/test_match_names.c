/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding by tokens and by keys; nobody is served another's block; bad queries.
 */
#include "support/find.h"

/* ---- Tokens and keys ------------------------------------------------------------------------- */

static void test_match_by_keys_alone_finds_the_run(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_seq seqs[FIND_RUN];
    struct kvb_hit hits[FIND_RUN];
    find_park(rig, KVB_TIER_DEVICE, 0, find_tokens, 3);
    find_name(rig, 0, find_tokens, FIND_RUN, seqs);
    struct kvb_query query = find_by_keys(seqs, FIND_RUN);
    assert_int_equal(find_match(rig, &query, hits), 3);
}

static void test_match_by_keys_and_tokens_finds_the_run(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_seq seqs[FIND_RUN];
    struct kvb_hit hits[FIND_RUN];
    find_park(rig, KVB_TIER_DEVICE, 0, find_tokens, 3);
    find_name(rig, 0, find_tokens, FIND_RUN, seqs);
    struct kvb_query query = find_by_both(0, find_tokens, seqs, FIND_RUN);
    assert_int_equal(find_match(rig, &query, hits), 3);
}

static void test_match_by_keys_with_other_tokens_finds_nothing(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_seq seqs[FIND_RUN];
    struct kvb_hit hits[FIND_RUN];
    uint32_t other[FIND_RUN * KV_TOKENS];
    find_park(rig, KVB_TIER_DEVICE, 0, find_tokens, FIND_RUN);
    find_name(rig, 0, find_tokens, FIND_RUN, seqs);
    kv_tokens(other, FIND_RUN * KV_TOKENS, 6);
    struct kvb_query query = find_by_both(0, other, seqs, FIND_RUN);
    assert_int_equal(find_match(rig, &query, hits), 0);
}

static void test_match_by_keys_with_tokens_of_another_namespace_finds_nothing(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_seq seqs[FIND_RUN];
    struct kvb_hit hits[FIND_RUN];
    uint32_t ns = 0;
    kv_ok(kvb_namespace_open(rig->kv, "a", 1, NULL, 0, &ns));
    find_park(rig, KVB_TIER_DEVICE, 0, find_tokens, FIND_RUN);
    find_name(rig, 0, find_tokens, FIND_RUN, seqs);
    struct kvb_query query = find_by_both(ns, find_tokens, seqs, FIND_RUN);
    assert_int_equal(find_match(rig, &query, hits), 0);
}

static void test_match_by_key_with_unknown_digest_trusts_the_caller(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_seq seq;
    struct kvb_hit hits[FIND_RUN];
    find_park(rig, KVB_TIER_DEVICE, 0, find_tokens, 1);
    find_name(rig, 0, find_tokens, 1, &seq);
    seq.digest[0] = seq.digest[1] = 0;
    struct kvb_query query = find_by_keys(&seq, 1);
    assert_int_equal(find_match(rig, &query, hits), 1);
}

/*
 * Names as a router has them: hashes without digests. Tokens are there to be compared in their
 * stead.
 */
static void name_run_without_digests(struct kv_rig *rig, struct kvb_seq *seqs)
{
    find_name(rig, 0, find_tokens, FIND_RUN, seqs);
    for (int i = 0; i < FIND_RUN; i++)
        seqs[i].digest[0] = seqs[i].digest[1] = 0;
}

static void test_match_by_keys_with_unknown_digests_and_tokens_finds_the_run(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_seq seqs[FIND_RUN];
    struct kvb_hit hits[FIND_RUN];
    find_park(rig, KVB_TIER_DEVICE, 0, find_tokens, FIND_RUN);
    name_run_without_digests(rig, seqs);
    struct kvb_query query = find_by_both(0, find_tokens, seqs, FIND_RUN);
    assert_int_equal(find_match(rig, &query, hits), FIND_RUN);
}

static void test_match_by_keys_with_unknown_digests_and_other_tokens_stops_there(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_seq seqs[FIND_RUN];
    struct kvb_hit hits[FIND_RUN];
    uint32_t other[FIND_RUN * KV_TOKENS];
    find_park(rig, KVB_TIER_DEVICE, 0, find_tokens, FIND_RUN);
    name_run_without_digests(rig, seqs);
    memcpy(other, find_tokens, sizeof other);
    other[2 * KV_TOKENS] ^= 1;
    struct kvb_query query = find_by_both(0, other, seqs, FIND_RUN);
    assert_int_equal(find_match(rig, &query, hits), 2);
}

static void test_lookup_by_keys_with_unknown_digests_and_tokens_counts_the_run(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_seq seqs[FIND_RUN];
    uint64_t tiers[KVB_TIER_COUNT];
    find_park(rig, KVB_TIER_DEVICE, 0, find_tokens, FIND_RUN);
    name_run_without_digests(rig, seqs);
    struct kvb_query query = find_by_both(0, find_tokens, seqs, FIND_RUN);
    kv_ok(kvb_lookup(rig->kv, &query, tiers));
    assert_int_equal(tiers[KVB_TIER_DEVICE], FIND_RUN);
}

static void test_match_by_key_with_wrong_digest_finds_nothing(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_seq seq;
    struct kvb_hit hits[FIND_RUN];
    find_park(rig, KVB_TIER_DEVICE, 0, find_tokens, 1);
    find_name(rig, 0, find_tokens, 1, &seq);
    seq.digest[1] ^= 1;
    struct kvb_query query = find_by_keys(&seq, 1);
    assert_int_equal(find_match(rig, &query, hits), 0);
}

static void test_match_of_the_same_tokens_by_another_tenant_finds_nothing(void **state)
{
    struct kv_rig *rig = *state;
    uint32_t a = 0, b = 0;
    kv_ok(kvb_namespace_open(rig->kv, "tenant a", 8, NULL, 0, &a));
    kv_ok(kvb_namespace_open(rig->kv, "tenant b", 8, NULL, 0, &b));
    find_park(rig, KVB_TIER_DEVICE, a, find_tokens, FIND_RUN);
    assert_int_equal(find_match_tokens(rig, a, find_tokens, FIND_RUN), FIND_RUN);
    assert_int_equal(find_match_tokens(rig, b, find_tokens, FIND_RUN), 0);
    assert_int_equal(find_match_tokens(rig, 0, find_tokens, FIND_RUN), 0);
}

static void test_match_with_another_adapter_finds_nothing(void **state)
{
    struct kv_rig *rig = *state;
    uint32_t plain = 0, tuned = 0;
    kv_ok(kvb_namespace_open(rig->kv, "t", 1, NULL, 0, &plain));
    kv_ok(kvb_namespace_open(rig->kv, "t", 1, "lora", 4, &tuned));
    find_park(rig, KVB_TIER_DEVICE, tuned, find_tokens, FIND_RUN);
    assert_int_equal(find_match_tokens(rig, plain, find_tokens, FIND_RUN), 0);
}

static void test_match_of_a_later_block_as_root_finds_nothing(void **state)
{
    struct kv_rig *rig = *state;
    find_park(rig, KVB_TIER_DEVICE, 0, find_tokens, FIND_RUN);
    assert_int_equal(find_match_tokens(rig, 0, find_tokens + KV_TOKENS, 1), 0);
}

/* ---- Bad queries ----------------------------------------------------------------------------- */

static void test_query_without_tokens_and_keys_is_invalid(void **state)
{
    struct kv_rig *rig = *state;
    find_refused(rig, (struct kvb_query){.size = sizeof(struct kvb_query)}, KVB_EINVAL);
}

static void test_query_with_counts_but_no_arrays_is_invalid(void **state)
{
    struct kv_rig *rig = *state;
    find_refused(rig,
                 (struct kvb_query){.size = sizeof(struct kvb_query), .token_count = KV_TOKENS},
                 KVB_EINVAL);
    find_refused(rig, (struct kvb_query){.size = sizeof(struct kvb_query), .key_count = 1},
                 KVB_EINVAL);
}

static void test_query_with_unknown_flags_is_invalid(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_query query = kv_query(0, find_tokens, KV_TOKENS);
    query.flags = 1;
    find_refused(rig, query, KVB_EINVAL);
}

static void test_query_in_unknown_namespace_is_not_found(void **state)
{
    struct kv_rig *rig = *state;
    find_refused(rig, kv_query(9, find_tokens, KV_TOKENS), KVB_ENOENT);
}

static void test_query_without_size_is_invalid(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_query query = kv_query(0, find_tokens, KV_TOKENS);
    query.size = 0;
    find_refused(rig, query, KVB_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kv_opened_two_tiers, test_match_by_keys_alone_finds_the_run),
        TEST(kv_opened_two_tiers, test_match_by_keys_and_tokens_finds_the_run),
        TEST(kv_opened_two_tiers, test_match_by_keys_with_other_tokens_finds_nothing),
        TEST(kv_opened_two_tiers,
             test_match_by_keys_with_tokens_of_another_namespace_finds_nothing),
        TEST(kv_opened_two_tiers, test_match_by_key_with_unknown_digest_trusts_the_caller),
        TEST(kv_opened_two_tiers, test_match_by_keys_with_unknown_digests_and_tokens_finds_the_run),
        TEST(kv_opened_two_tiers,
             test_match_by_keys_with_unknown_digests_and_other_tokens_stops_there),
        TEST(kv_opened_two_tiers,
             test_lookup_by_keys_with_unknown_digests_and_tokens_counts_the_run),
        TEST(kv_opened_two_tiers, test_match_by_key_with_wrong_digest_finds_nothing),
        TEST(kv_opened_two_tiers, test_match_of_the_same_tokens_by_another_tenant_finds_nothing),
        TEST(kv_opened_two_tiers, test_match_with_another_adapter_finds_nothing),
        TEST(kv_opened_two_tiers, test_match_of_a_later_block_as_root_finds_nothing),
        TEST(kv_opened_two_tiers, test_query_without_tokens_and_keys_is_invalid),
        TEST(kv_opened_two_tiers, test_query_with_counts_but_no_arrays_is_invalid),
        TEST(kv_opened_two_tiers, test_query_with_unknown_flags_is_invalid),
        TEST(kv_opened_two_tiers, test_query_in_unknown_namespace_is_not_found),
        TEST(kv_opened_two_tiers, test_query_without_size_is_invalid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
