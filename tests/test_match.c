/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding: the leading run, its tiers, by tokens and by keys; nobody is served another's block, not even where hashes are
 * made to collide; and all of it again under the caller's own keys.
 */
#include "support/kv_test.h"

#include "base/hash.h"

static struct kv_rig rig;

enum { RUN = 4 };
static uint32_t T[RUN * KV_TOKENS];

static void prepare(void)
{
    kv_rig_init(&rig);
    kv_tokens(T, RUN * KV_TOKENS, 5);
}

static int setup(void **state)
{
    (void)state;
    prepare();
    kv_rig_add_tier(&rig, KVB_TIER_HOST, KV_BLOCKS, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    kv_rig_close(&rig);
    return 0;
}

static void unref_all(struct kvb_block **blocks, uint32_t count)
{
    kv_ok(kvb_block_unref(rig.kv, blocks, count, NULL));
}

static void park_run(uint32_t tier, uint32_t ns, const uint32_t *tokens, uint32_t count)
{
    struct kvb_block *blocks[RUN];
    kv_store_run(&rig, tier, ns, tokens, count, blocks);
    unref_all(blocks, count);
}

/* How many blocks this query hands out; the first RUN of them are left in `hits`, all are given back. */
static size_t match(const struct kvb_query *query, struct kvb_hit *hits)
{
    size_t count = 99;
    kv_ok(kvb_match(rig.kv, query, hits, RUN, &count));
    assert_in_range(count, 0, RUN);
    for (size_t i = 0; i < count; i++) {
        assert_non_null(hits[i].block);
        kv_unref(&rig, hits[i].block);
    }
    return count;
}

static size_t match_tokens(uint32_t ns, const uint32_t *tokens, size_t blocks)
{
    struct kvb_hit hits[RUN];
    struct kvb_query query = kv_query(ns, tokens, blocks * KV_TOKENS);
    return match(&query, hits);
}

static void name_run(uint32_t ns, const uint32_t *tokens, size_t blocks, struct kvb_seq *seqs)
{
    size_t count = 0;
    kv_ok(kvb_hash_tokens(rig.kv, ns, NULL, tokens, blocks * KV_TOKENS, seqs, blocks, &count));
    assert_int_equal(count, blocks);
}

/* ---- The run ------------------------------------------------------------------------------------------------------ */

static void test_match_of_nothing_stored_is_empty(void **state)
{
    (void)state;
    assert_int_equal(match_tokens(0, T, RUN), 0);
}

static void test_match_hands_out_a_handle_for_every_block_in_order(void **state)
{
    (void)state;
    struct kvb_block *blocks[RUN];
    struct kvb_hit hits[RUN];
    size_t count = 0;
    kv_store_run(&rig, KVB_TIER_DEVICE, 0, T, RUN, blocks);
    struct kvb_query query = kv_query(0, T, RUN * KV_TOKENS);
    kv_ok(kvb_match(rig.kv, &query, hits, RUN, &count));
    assert_int_equal(count, RUN);
    for (int i = 0; i < RUN; i++) {
        assert_ptr_equal(hits[i].block, blocks[i]);
        assert_int_equal(hits[i].tier, KVB_TIER_DEVICE);
        assert_int_equal(hits[i].slot, kvb_block_slot(rig.kv, blocks[i]));
        assert_int_equal(kv_describe(&rig, blocks[i]).holder_count, 2);
        kv_unref(&rig, hits[i].block);
    }
    unref_all(blocks, RUN);
}

static void test_match_of_parked_blocks_holds_them(void **state)
{
    (void)state;
    struct kvb_hit hits[RUN];
    size_t count = 0;
    park_run(KVB_TIER_DEVICE, 0, T, 2);
    struct kvb_query query = kv_query(0, T, 2 * KV_TOKENS);
    kv_ok(kvb_match(rig.kv, &query, hits, RUN, &count));
    assert_int_equal(kv_stats(&rig).tiers[0].parked_count, 0);
    assert_int_equal(kv_stats(&rig).tiers[0].held_count, 2);
    kv_unref(&rig, hits[0].block);
    kv_unref(&rig, hits[1].block);
}

static void test_match_stops_at_the_first_gap(void **state)
{
    (void)state;
    struct kvb_seq seqs[RUN];
    park_run(KVB_TIER_DEVICE, 0, T, RUN);
    name_run(0, T, RUN, seqs);
    kv_ok(kvb_invalidate(rig.kv, &seqs[2], 1, NULL));
    assert_int_equal(match_tokens(0, T, RUN), 2);
}

static void test_match_stops_where_tokens_differ(void **state)
{
    (void)state;
    uint32_t other[RUN * KV_TOKENS];
    park_run(KVB_TIER_DEVICE, 0, T, RUN);
    memcpy(other, T, sizeof other);
    other[KV_TOKENS] ^= 1;
    assert_int_equal(match_tokens(0, other, RUN), 1);
}

static void test_match_of_longer_prompt_ends_with_what_is_stored(void **state)
{
    (void)state;
    park_run(KVB_TIER_DEVICE, 0, T, 2);
    assert_int_equal(match_tokens(0, T, RUN), 2);
}

static void test_match_stops_at_capacity(void **state)
{
    (void)state;
    struct kvb_hit hits[2];
    size_t count = 0;
    park_run(KVB_TIER_DEVICE, 0, T, RUN);
    struct kvb_query query = kv_query(0, T, RUN * KV_TOKENS);
    kv_ok(kvb_match(rig.kv, &query, hits, 2, &count));
    assert_int_equal(count, 2);
    assert_int_equal(kv_stats(&rig).tiers[0].held_count, 2);
    kv_unref(&rig, hits[0].block);
    kv_unref(&rig, hits[1].block);
}

static void test_match_ignores_an_incomplete_tail(void **state)
{
    (void)state;
    struct kvb_hit hits[RUN];
    park_run(KVB_TIER_DEVICE, 0, T, 2);
    struct kvb_query query = kv_query(0, T, 2 * KV_TOKENS - 1);
    assert_int_equal(match(&query, hits), 1);
    query.token_count = KV_TOKENS - 1;
    assert_int_equal(match(&query, hits), 0);
}

static void test_match_finds_no_unregistered_block(void **state)
{
    (void)state;
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    kv_complete(&rig, block, 0, 0, NULL, T);
    assert_int_equal(match_tokens(0, T, 1), 0);
    kv_unref(&rig, block);
}

static void test_match_of_more_than_64_blocks_hands_out_all(void **state)
{
    (void)state;
    enum { COUNT = 150 };
    static struct kv_rig large;
    static uint32_t tokens[COUNT * KV_TOKENS];
    static struct kvb_block *blocks[COUNT];
    static struct kvb_hit hits[COUNT];
    size_t count = 0;
    uint64_t tiers[KVB_TIER_COUNT];
    kv_rig_init(&large);
    large.tiers[0].block_count = COUNT;
    kv_rig_open(&large);
    kv_tokens(tokens, COUNT * KV_TOKENS, 8);
    kv_store_run(&large, KVB_TIER_DEVICE, 0, tokens, COUNT, blocks);
    kv_ok(kvb_block_unref(large.kv, blocks, COUNT, NULL));

    struct kvb_query query = kv_query(0, tokens, COUNT * KV_TOKENS);
    kv_ok(kvb_lookup(large.kv, &query, tiers));
    assert_int_equal(tiers[KVB_TIER_DEVICE], COUNT);
    kv_ok(kvb_match(large.kv, &query, hits, COUNT, &count));
    assert_int_equal(count, COUNT);
    int wrong = 0;
    for (int i = 0; i < COUNT; i++) {
        wrong += hits[i].block != blocks[i];
        kv_unref(&large, hits[i].block);
    }
    assert_int_equal(wrong, 0);

    static struct kvb_seq seqs[COUNT]; /* and by names, with tokens and without */
    kv_ok(kvb_hash_tokens(large.kv, 0, NULL, tokens, COUNT * KV_TOKENS, seqs, COUNT, &count));
    query.keys = seqs;
    query.key_count = COUNT;
    kv_ok(kvb_lookup(large.kv, &query, tiers));
    assert_int_equal(tiers[KVB_TIER_DEVICE], COUNT);
    query.tokens = NULL;
    query.token_count = 0;
    kv_ok(kvb_lookup(large.kv, &query, tiers));
    assert_int_equal(tiers[KVB_TIER_DEVICE], COUNT);
    kv_rig_close(&large);
}

static void test_match_of_more_than_64_keyed_blocks_hands_out_all(void **state)
{
    (void)state;
    enum { COUNT = 150, KEY = 24 };
    static struct kv_rig large;
    static uint32_t tokens[COUNT * KV_TOKENS];
    static unsigned char long_keys[COUNT * KEY];
    static struct kvb_block *blocks[COUNT];
    uint64_t tiers[KVB_TIER_COUNT];
    kv_rig_init(&large);
    large.tiers[0].block_count = COUNT;
    large.config.key_bytes = KEY;
    kv_rig_open(&large);
    kv_tokens(tokens, COUNT * KV_TOKENS, 8);
    kv_ok(kvb_alloc(large.kv, KVB_TIER_DEVICE, COUNT, NULL, blocks, NULL));
    for (uint32_t i = 0; i < COUNT; i++) {
        memcpy(long_keys + i * KEY + KEY - sizeof i, &i, sizeof i);
        kv_complete(&large, blocks[i], 0, i, i == 0 ? NULL : long_keys + (i - 1) * KEY,
                    tokens + (size_t)i * KV_TOKENS);
    }
    struct kvb_register options = {.size = sizeof options, .keys = long_keys};
    kv_ok(kvb_block_register(large.kv, blocks, COUNT, &options, NULL, NULL));
    kv_ok(kvb_block_unref(large.kv, blocks, COUNT, NULL));
    struct kvb_query query = kv_query(0, tokens, COUNT * KV_TOKENS);
    query.keys = long_keys;
    query.key_count = COUNT;
    kv_ok(kvb_lookup(large.kv, &query, tiers));
    assert_int_equal(tiers[KVB_TIER_DEVICE], COUNT);
    query.tokens = NULL;
    query.token_count = 0;
    kv_ok(kvb_lookup(large.kv, &query, tiers));
    assert_int_equal(tiers[KVB_TIER_DEVICE], COUNT);
    kv_rig_close(&large);
}

/* ---- Tiers -------------------------------------------------------------------------------------------------------- */

static void test_match_says_the_tier_that_has_the_copy(void **state)
{
    (void)state;
    struct kvb_hit hits[RUN];
    park_run(KVB_TIER_HOST, 0, T, 1);
    struct kvb_query query = kv_query(0, T, KV_TOKENS);
    assert_int_equal(match(&query, hits), 1);
    assert_int_equal(hits[0].tier, KVB_TIER_HOST);
}

static void test_match_takes_the_copy_in_the_fastest_tier(void **state)
{
    (void)state;
    struct kvb_hit hits[RUN];
    park_run(KVB_TIER_HOST, 0, T, 2);
    park_run(KVB_TIER_DEVICE, 0, T, 1);
    struct kvb_query query = kv_query(0, T, 2 * KV_TOKENS);
    assert_int_equal(match(&query, hits), 2);
    assert_int_equal(hits[0].tier, KVB_TIER_DEVICE);
    assert_int_equal(hits[1].tier, KVB_TIER_HOST);
}

static void test_lookup_counts_the_fastest_copy_of_each_block(void **state)
{
    (void)state;
    uint64_t tiers[KVB_TIER_COUNT] = {9, 9, 9, 9};
    park_run(KVB_TIER_HOST, 0, T, 3);
    park_run(KVB_TIER_DEVICE, 0, T, 1);
    struct kvb_query query = kv_query(0, T, RUN * KV_TOKENS);
    kv_ok(kvb_lookup(rig.kv, &query, tiers));
    assert_int_equal(tiers[KVB_TIER_DEVICE], 1);
    assert_int_equal(tiers[KVB_TIER_HOST], 2);
    assert_int_equal(tiers[KVB_TIER_DISK], 0);
    assert_int_equal(tiers[KVB_TIER_REMOTE], 0);
}

static void test_lookup_holds_nothing(void **state)
{
    (void)state;
    park_run(KVB_TIER_DEVICE, 0, T, RUN);
    assert_int_equal(kv_run_length(&rig, 0, T, RUN * KV_TOKENS), RUN);
    assert_int_equal(kv_stats(&rig).tiers[0].held_count, 0);
    assert_int_equal(kv_stats(&rig).tiers[0].hits, 0);
}

static void test_match_counts_hits_by_tier(void **state)
{
    (void)state;
    park_run(KVB_TIER_HOST, 0, T, 2);
    park_run(KVB_TIER_DEVICE, 0, T, 1);
    assert_int_equal(match_tokens(0, T, 2), 2);
    assert_int_equal(kv_stats(&rig).tiers[KVB_TIER_DEVICE].hits, 1);
    assert_int_equal(kv_stats(&rig).tiers[KVB_TIER_HOST].hits, 1);
}

/* ---- Tokens and keys ---------------------------------------------------------------------------------------------- */

static struct kvb_query by_keys(const void *keys, size_t count)
{
    return (struct kvb_query){.size = sizeof(struct kvb_query), .keys = keys, .key_count = count};
}

static struct kvb_query by_both(uint32_t ns, const uint32_t *tokens, const void *keys, size_t count)
{
    struct kvb_query query = kv_query(ns, tokens, count * KV_TOKENS);
    query.keys = keys;
    query.key_count = count;
    return query;
}

static void test_match_by_keys_alone_finds_the_run(void **state)
{
    (void)state;
    struct kvb_seq seqs[RUN];
    struct kvb_hit hits[RUN];
    park_run(KVB_TIER_DEVICE, 0, T, 3);
    name_run(0, T, RUN, seqs);
    struct kvb_query query = by_keys(seqs, RUN);
    assert_int_equal(match(&query, hits), 3);
}

static void test_match_by_keys_and_tokens_finds_the_run(void **state)
{
    (void)state;
    struct kvb_seq seqs[RUN];
    struct kvb_hit hits[RUN];
    park_run(KVB_TIER_DEVICE, 0, T, 3);
    name_run(0, T, RUN, seqs);
    struct kvb_query query = by_both(0, T, seqs, RUN);
    assert_int_equal(match(&query, hits), 3);
}

static void test_match_by_keys_with_other_tokens_finds_nothing(void **state)
{
    (void)state;
    struct kvb_seq seqs[RUN];
    struct kvb_hit hits[RUN];
    uint32_t other[RUN * KV_TOKENS];
    park_run(KVB_TIER_DEVICE, 0, T, RUN);
    name_run(0, T, RUN, seqs);
    kv_tokens(other, RUN * KV_TOKENS, 6);
    struct kvb_query query = by_both(0, other, seqs, RUN);
    assert_int_equal(match(&query, hits), 0);
}

static void test_match_by_keys_with_tokens_of_another_namespace_finds_nothing(void **state)
{
    (void)state;
    struct kvb_seq seqs[RUN];
    struct kvb_hit hits[RUN];
    uint32_t ns = 0;
    kv_ok(kvb_namespace_open(rig.kv, "a", 1, NULL, 0, &ns));
    park_run(KVB_TIER_DEVICE, 0, T, RUN);
    name_run(0, T, RUN, seqs);
    struct kvb_query query = by_both(ns, T, seqs, RUN);
    assert_int_equal(match(&query, hits), 0);
}

static void test_match_by_key_with_unknown_digest_trusts_the_caller(void **state)
{
    (void)state;
    struct kvb_seq seq;
    struct kvb_hit hits[RUN];
    park_run(KVB_TIER_DEVICE, 0, T, 1);
    name_run(0, T, 1, &seq);
    seq.digest[0] = seq.digest[1] = 0;
    struct kvb_query query = by_keys(&seq, 1);
    assert_int_equal(match(&query, hits), 1);
}

/* Names as a router has them: hashes without digests. Tokens are there to be compared in their stead. */
static void name_run_without_digests(struct kvb_seq *seqs)
{
    name_run(0, T, RUN, seqs);
    for (int i = 0; i < RUN; i++) {
        seqs[i].digest[0] = seqs[i].digest[1] = 0;
    }
}

static void test_match_by_keys_with_unknown_digests_and_tokens_finds_the_run(void **state)
{
    (void)state;
    struct kvb_seq seqs[RUN];
    struct kvb_hit hits[RUN];
    park_run(KVB_TIER_DEVICE, 0, T, RUN);
    name_run_without_digests(seqs);
    struct kvb_query query = by_both(0, T, seqs, RUN);
    assert_int_equal(match(&query, hits), RUN);
}

static void test_match_by_keys_with_unknown_digests_and_other_tokens_stops_there(void **state)
{
    (void)state;
    struct kvb_seq seqs[RUN];
    struct kvb_hit hits[RUN];
    uint32_t other[RUN * KV_TOKENS];
    park_run(KVB_TIER_DEVICE, 0, T, RUN);
    name_run_without_digests(seqs);
    memcpy(other, T, sizeof other);
    other[2 * KV_TOKENS] ^= 1;
    struct kvb_query query = by_both(0, other, seqs, RUN);
    assert_int_equal(match(&query, hits), 2);
}

static void test_lookup_by_keys_with_unknown_digests_and_tokens_counts_the_run(void **state)
{
    (void)state;
    struct kvb_seq seqs[RUN];
    uint64_t tiers[KVB_TIER_COUNT];
    park_run(KVB_TIER_DEVICE, 0, T, RUN);
    name_run_without_digests(seqs);
    struct kvb_query query = by_both(0, T, seqs, RUN);
    kv_ok(kvb_lookup(rig.kv, &query, tiers));
    assert_int_equal(tiers[KVB_TIER_DEVICE], RUN);
}

static void test_match_by_key_with_wrong_digest_finds_nothing(void **state)
{
    (void)state;
    struct kvb_seq seq;
    struct kvb_hit hits[RUN];
    park_run(KVB_TIER_DEVICE, 0, T, 1);
    name_run(0, T, 1, &seq);
    seq.digest[1] ^= 1;
    struct kvb_query query = by_keys(&seq, 1);
    assert_int_equal(match(&query, hits), 0);
}

static void test_match_of_the_same_tokens_by_another_tenant_finds_nothing(void **state)
{
    (void)state;
    uint32_t a = 0, b = 0;
    kv_ok(kvb_namespace_open(rig.kv, "tenant a", 8, NULL, 0, &a));
    kv_ok(kvb_namespace_open(rig.kv, "tenant b", 8, NULL, 0, &b));
    park_run(KVB_TIER_DEVICE, a, T, RUN);
    assert_int_equal(match_tokens(a, T, RUN), RUN);
    assert_int_equal(match_tokens(b, T, RUN), 0);
    assert_int_equal(match_tokens(0, T, RUN), 0);
}

static void test_match_with_another_adapter_finds_nothing(void **state)
{
    (void)state;
    uint32_t plain = 0, tuned = 0;
    kv_ok(kvb_namespace_open(rig.kv, "t", 1, NULL, 0, &plain));
    kv_ok(kvb_namespace_open(rig.kv, "t", 1, "lora", 4, &tuned));
    park_run(KVB_TIER_DEVICE, tuned, T, RUN);
    assert_int_equal(match_tokens(plain, T, RUN), 0);
}

static void test_match_of_a_later_block_as_root_finds_nothing(void **state)
{
    (void)state;
    park_run(KVB_TIER_DEVICE, 0, T, RUN);
    assert_int_equal(match_tokens(0, T + KV_TOKENS, 1), 0);
}

/* ---- Bad queries -------------------------------------------------------------------------------------------------- */

static void refused(struct kvb_query query, int code)
{
    struct kvb_hit hits[RUN];
    uint64_t tiers[KVB_TIER_COUNT];
    size_t count = 9;
    kv_expect(kvb_match(rig.kv, &query, hits, RUN, &count), code);
    assert_int_equal(count, 0);
    kv_expect(kvb_lookup(rig.kv, &query, tiers), code);
}

static void test_query_without_tokens_and_keys_is_invalid(void **state)
{
    (void)state;
    refused((struct kvb_query){.size = sizeof(struct kvb_query)}, KVB_EINVAL);
}

static void test_query_with_counts_but_no_arrays_is_invalid(void **state)
{
    (void)state;
    refused((struct kvb_query){.size = sizeof(struct kvb_query), .token_count = KV_TOKENS},
            KVB_EINVAL);
    refused((struct kvb_query){.size = sizeof(struct kvb_query), .key_count = 1}, KVB_EINVAL);
}

static void test_query_with_unknown_flags_is_invalid(void **state)
{
    (void)state;
    struct kvb_query query = kv_query(0, T, KV_TOKENS);
    query.flags = 1;
    refused(query, KVB_EINVAL);
}

static void test_query_in_unknown_namespace_is_not_found(void **state)
{
    (void)state;
    refused(kv_query(9, T, KV_TOKENS), KVB_ENOENT);
}

static void test_query_without_size_is_invalid(void **state)
{
    (void)state;
    struct kvb_query query = kv_query(0, T, KV_TOKENS);
    query.size = 0;
    refused(query, KVB_EINVAL);
}

/* ---- Forced collisions -------------------------------------------------------------------------------------------- */

/* XXH3, except that a run of tokens that begins with B hashes as if it began with A. */
enum { A = 1111, B = 2222 };
static bool collide_128; /* the digest too */
static bool ignore_seed; /* and salts make no difference to the 64-bit hash */

static const void *disguise(const void *data, size_t bytes, unsigned char *copy)
{
    uint32_t first = 0;
    if (bytes != KV_TOKENS * sizeof first) {
        return data;
    }
    memcpy(copy, data, bytes);
    memcpy(&first, copy, sizeof first);
    if (first == B) {
        first = A;
        memcpy(copy, &first, sizeof first);
    }
    return copy;
}

static uint64_t colliding_64(const void *data, size_t bytes, uint64_t seed)
{
    unsigned char copy[KV_TOKENS * sizeof(uint32_t)];
    return kvbi_hash_baseline.hash64(disguise(data, bytes, copy), bytes, ignore_seed ? 0 : seed);
}

static struct kvbi_hash128 colliding_128(const void *data, size_t bytes, uint64_t seed)
{
    unsigned char copy[KV_TOKENS * sizeof(uint32_t)];
    return kvbi_hash_baseline.hash128(collide_128 ? disguise(data, bytes, copy) : data, bytes,
                                      seed);
}

static uint64_t only_128_collides_64(const void *data, size_t bytes, uint64_t seed)
{
    return kvbi_hash_baseline.hash64(data, bytes, seed);
}

static uint64_t constant_64(const void *data, size_t bytes, uint64_t seed)
{
    (void)data;
    (void)bytes;
    (void)seed;
    return 42;
}

static const uint32_t ROOT_A[] = {A, 2, 3, 4, 5, 6, 7, 8};
static const uint32_t ROOT_B[] = {B, 2, 3, 4,
                                  5, 6, 7, 8}; /* the same child: all its names collide */
static const uint32_t ROOT_B_OWN[] = {B, 2, 3, 4, 9, 9, 9, 9}; /* a child of its own */

static void open_colliding(uint64_t (*hash64)(const void *, size_t, uint64_t))
{
    static struct kvbi_hash_ops ops;
    struct kvbi_hooks hooks = {.hash = &ops};
    ops = (struct kvbi_hash_ops){hash64, colliding_128, "test"};
    prepare();
    kv_rig_open_hooked(&rig, &hooks);
}

static int setup_collisions(void **state)
{
    (void)state;
    collide_128 = false;
    ignore_seed = false;
    open_colliding(colliding_64);
    return 0;
}

/* Compute a block and try to register it. The caller holds it. */
static struct kvb_block *try_register(uint32_t ns, uint32_t position, const struct kvb_seq *parent,
                                      const uint32_t *tokens, int code)
{
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    struct kvb_block *registered = block;
    kv_complete(&rig, block, ns, position, parent, tokens);
    kv_expect(kvb_block_register(rig.kv, &registered, 1, NULL, NULL, NULL), code);
    return registered;
}

static void test_collision_is_forced_by_the_test_hash(void **state)
{
    (void)state;
    struct kvb_seq a, b;
    name_run(0, ROOT_A, 1, &a);
    name_run(0, ROOT_B, 1, &b);
    assert_true(a.hash == b.hash);
    assert_memory_not_equal(a.digest, b.digest, sizeof a.digest);
}

static void test_collision_register_is_refused_and_stays_complete(void **state)
{
    (void)state;
    struct kvb_block *a = try_register(0, 0, NULL, ROOT_A, 0);
    struct kvb_block *b = try_register(0, 0, NULL, ROOT_B, KVB_ECOLLISION);
    assert_int_equal(kv_describe(&rig, b).state, KVB_STATE_COMPLETE);
    assert_int_equal(kv_describe(&rig, b).indexed, 0);
    assert_int_equal(kv_stats(&rig).tiers[0].collisions, 1);
    kv_unref(&rig, b);
    kv_unref(&rig, a);
}

static void test_collision_serves_neither_the_others_block(void **state)
{
    (void)state;
    struct kvb_block *a = try_register(0, 0, NULL, ROOT_A, 0);
    struct kvb_block *b = try_register(0, 0, NULL, ROOT_B, KVB_ECOLLISION);
    assert_int_equal(match_tokens(0, ROOT_A, 1), 1);
    assert_int_equal(match_tokens(0, ROOT_B, 1), 0);
    kv_unref(&rig, b);
    kv_unref(&rig, a);
}

static void test_collision_key_with_digest_finds_nothing(void **state)
{
    (void)state;
    struct kvb_seq b;
    struct kvb_hit hits[RUN];
    struct kvb_block *a = try_register(0, 0, NULL, ROOT_A, 0);
    name_run(0, ROOT_B, 1, &b);
    struct kvb_query query = by_keys(&b, 1);
    assert_int_equal(match(&query, hits), 0);
    query = by_both(0, ROOT_B, &b, 1);
    assert_int_equal(match(&query, hits), 0);
    kv_unref(&rig, a);
}

static void test_collision_descendants_are_refused(void **state)
{
    (void)state;
    struct kvb_seq b;
    struct kvb_block *a = try_register(0, 0, NULL, ROOT_A, 0);
    name_run(0, ROOT_B, 1, &b);
    struct kvb_block *same = try_register(0, 1, &b, ROOT_B + 4, KVB_ECOLLISION);
    struct kvb_block *own = try_register(0, 1, &b, ROOT_B_OWN + 4, KVB_ECOLLISION);
    kv_unref(&rig, own);
    kv_unref(&rig, same);
    kv_unref(&rig, a);
}

static void test_collision_of_a_whole_chain_serves_the_first_only(void **state)
{
    (void)state;
    struct kvb_seq b;
    park_run(KVB_TIER_DEVICE, 0, ROOT_A, 2);
    name_run(0, ROOT_B, 1, &b);
    kv_unref(&rig, try_register(0, 0, NULL, ROOT_B, KVB_ECOLLISION));
    kv_unref(&rig, try_register(0, 1, &b, ROOT_B + 4, KVB_ECOLLISION));
    assert_int_equal(match_tokens(0, ROOT_A, 2), 2);
    assert_int_equal(match_tokens(0, ROOT_B, 2), 0);
}

static void test_collision_emits_no_event(void **state)
{
    (void)state;
    struct kvb_block *a = try_register(0, 0, NULL, ROOT_A, 0);
    kv_unref(&rig, try_register(0, 0, NULL, ROOT_B, KVB_ECOLLISION));
    kv_poll(&rig);
    assert_int_equal(rig.events.count, 1);
    kv_unref(&rig, a);
}

static void test_collision_across_namespaces_is_refused(void **state)
{
    (void)state;
    uint32_t ns = 0;
    ignore_seed = true;
    kv_ok(kvb_namespace_open(rig.kv, "other", 5, NULL, 0, &ns));
    struct kvb_block *a = try_register(0, 0, NULL, ROOT_A, 0);
    struct kvb_block *b = try_register(ns, 0, NULL, ROOT_A, KVB_ECOLLISION);
    assert_int_equal(match_tokens(ns, ROOT_A, 1), 0);
    assert_int_equal(match_tokens(0, ROOT_A, 1), 1);
    kv_unref(&rig, b);
    kv_unref(&rig, a);
}

static void test_collision_of_hash_and_digest_is_told_by_tokens(void **state)
{
    (void)state;
    collide_128 = true;
    struct kvb_block *a = try_register(0, 0, NULL, ROOT_A, 0);
    struct kvb_block *b = try_register(0, 0, NULL, ROOT_B, KVB_ECOLLISION);
    assert_int_equal(match_tokens(0, ROOT_B, 1), 0);
    assert_int_equal(match_tokens(0, ROOT_A, 1), 1);
    kv_unref(&rig, b);
    kv_unref(&rig, a);
}

/* Equal digests under different hashes: two entries, each found by its own tokens. */
static void test_collision_of_the_digest_alone_keeps_contents_apart(void **state)
{
    (void)state;
    struct kvb_hit hit_a[RUN], hit_b[RUN];
    collide_128 = true;
    open_colliding(only_128_collides_64);
    struct kvb_block *a = try_register(0, 0, NULL, ROOT_A, 0);
    struct kvb_block *b = try_register(0, 0, NULL, ROOT_B, 0);
    struct kvb_query query_a = kv_query(0, ROOT_A, KV_TOKENS),
                     query_b = kv_query(0, ROOT_B, KV_TOKENS);
    assert_int_equal(match(&query_a, hit_a), 1);
    assert_int_equal(match(&query_b, hit_b), 1);
    assert_ptr_equal(hit_a[0].block, a);
    assert_ptr_equal(hit_b[0].block, b);
    kv_unref(&rig, b);
    kv_unref(&rig, a);
    kv_rig_close(&rig);
    collide_128 = false;
}

/* The worst hash there is: whatever is refused, nothing wrong is served. */
static void test_collision_of_everything_serves_exact_contents_only(void **state)
{
    (void)state;
    open_colliding(constant_64);
    uint32_t tokens[6][KV_TOKENS];
    struct kvb_block *blocks[6];
    for (uint32_t i = 0; i < 6; i++) {
        kv_tokens(tokens[i], KV_TOKENS, i);
        blocks[i] = try_register(0, 0, NULL, tokens[i], i == 0 ? 0 : KVB_ECOLLISION);
    }
    for (uint32_t i = 0; i < 6; i++) {
        assert_int_equal(match_tokens(0, tokens[i], 1), i == 0 ? 1 : 0);
    }
    unref_all(blocks, 6);
    kv_rig_close(&rig);
}

static void test_collision_name_is_free_again_after_eviction(void **state)
{
    (void)state;
    struct kvb_seq a;
    kv_unref(&rig, try_register(0, 0, NULL, ROOT_A, 0));
    name_run(0, ROOT_A, 1, &a);
    kv_ok(kvb_invalidate(rig.kv, &a, 1, NULL));
    kv_unref(&rig, try_register(0, 0, NULL, ROOT_B, 0));
    assert_int_equal(match_tokens(0, ROOT_B, 1), 1);
    assert_int_equal(match_tokens(0, ROOT_A, 1), 0);
}

/* A's child is still there under a name that both children have, when B's root takes the name of A's. */
static void test_collision_child_of_a_root_that_is_gone_is_not_served_to_another(void **state)
{
    (void)state;
    struct kvb_seq a;
    park_run(KVB_TIER_DEVICE, 0, ROOT_A, 2);
    name_run(0, ROOT_A, 1, &a);
    kv_ok(kvb_invalidate(rig.kv, &a, 1, NULL));
    kv_unref(&rig, try_register(0, 0, NULL, ROOT_B, 0));
    assert_int_equal(match_tokens(0, ROOT_B, 2), 1);
}

static uint64_t tokens_only_64(const void *data, size_t bytes, uint64_t seed)
{
    (void)seed;
    return kvbi_hash_baseline.hash64(data, bytes, 0);
}

static struct kvbi_hash128 constant_128(const void *data, size_t bytes, uint64_t seed)
{
    (void)data;
    (void)bytes;
    (void)seed;
    return (struct kvbi_hash128){42, 42};
}

/* Equal tokens, equal hash, equal digest: the namespace itself is compared. */
static void test_collision_of_all_names_across_namespaces_serves_one_tenant_only(void **state)
{
    (void)state;
    static const struct kvbi_hash_ops ops = {tokens_only_64, constant_128, "test"};
    const struct kvbi_hooks hooks = {.hash = &ops};
    uint32_t ns = 0;
    prepare();
    kv_rig_open_hooked(&rig, &hooks);
    kv_ok(kvb_namespace_open(rig.kv, "other", 5, NULL, 0, &ns));
    struct kvb_block *a = try_register(0, 0, NULL, ROOT_A, 0);
    struct kvb_block *b = try_register(ns, 0, NULL, ROOT_A, KVB_ECOLLISION);
    assert_int_equal(match_tokens(0, ROOT_A, 1), 1);
    assert_int_equal(match_tokens(ns, ROOT_A, 1), 0);
    kv_unref(&rig, b);
    kv_unref(&rig, a);
    kv_rig_close(&rig);
}

static void test_invalidate_by_colliding_key_leaves_the_other_alone(void **state)
{
    (void)state;
    struct kvb_seq b;
    kv_unref(&rig, try_register(0, 0, NULL, ROOT_A, 0));
    name_run(0, ROOT_B, 1, &b);
    kv_expect(kvb_invalidate(rig.kv, &b, 1, NULL), KVB_ENOENT);
    assert_int_equal(match_tokens(0, ROOT_A, 1), 1);
}

/* ---- The caller's keys -------------------------------------------------------------------------------------------- */

static const uint32_t key_sizes[] = {1, 2, 8, 15, 16, 17, 24, 32, 64};

static unsigned char keys[RUN * KVB_KEY_BYTES_MAX]; /* packed, key_bytes apart */

/* Keys differ in their last byte only: a library that looks at a prefix would confuse them. */
static void prepare_keys(uint32_t key_bytes)
{
    prepare();
    rig.config.key_bytes = key_bytes;
    memset(keys, 0x77, sizeof keys);
    for (uint32_t i = 0; i < RUN; i++) {
        keys[(size_t)(i + 1) * key_bytes - 1] = (unsigned char)(i + 1);
    }
}

static int setup_keys(void **state)
{
    prepare_keys(*(const uint32_t *)*state);
    kv_rig_open(&rig);
    return 0;
}

static const void *key_at(uint32_t i)
{
    return keys + (size_t)i * rig.config.key_bytes;
}

/* Compute the run T and register it under `keys`; the caller holds the blocks. */
static void store_keyed_run(struct kvb_block **blocks, uint32_t count)
{
    kv_ok(kvb_alloc(rig.kv, KVB_TIER_DEVICE, count, NULL, blocks, NULL));
    for (uint32_t i = 0; i < count; i++) {
        kv_complete(&rig, blocks[i], 0, i, i == 0 ? NULL : key_at(i - 1),
                    T + (size_t)i * KV_TOKENS);
    }
    struct kvb_register options = {.size = sizeof options, .keys = keys};
    kv_ok(kvb_block_register(rig.kv, blocks, count, &options, NULL, NULL));
}

static void test_keyed_key_bytes_is_the_configured_size(void **state)
{
    (void)state;
    assert_int_equal(kvb_key_bytes(rig.kv), rig.config.key_bytes);
}

static void test_keyed_match_by_keys_finds_the_run(void **state)
{
    (void)state;
    struct kvb_block *blocks[RUN];
    struct kvb_hit hits[RUN];
    store_keyed_run(blocks, 3);
    struct kvb_query query = by_keys(keys, RUN);
    assert_int_equal(match(&query, hits), 3);
    for (int i = 0; i < 3; i++) {
        assert_ptr_equal(hits[i].block, blocks[i]);
    }
    unref_all(blocks, 3);
}

static void test_keyed_match_by_keys_and_tokens_compares_tokens(void **state)
{
    (void)state;
    struct kvb_block *blocks[RUN];
    struct kvb_hit hits[RUN];
    uint32_t other[RUN * KV_TOKENS];
    store_keyed_run(blocks, RUN);
    struct kvb_query query = by_both(0, T, keys, RUN);
    assert_int_equal(match(&query, hits), RUN);
    memcpy(other, T, sizeof other);
    other[2 * KV_TOKENS] ^= 1;
    query = by_both(0, other, keys, RUN);
    assert_int_equal(match(&query, hits), 2);
    unref_all(blocks, RUN);
}

static void test_keyed_match_by_tokens_alone_is_unsupported(void **state)
{
    (void)state;
    refused(kv_query(0, T, KV_TOKENS), KVB_EUNSUPPORTED);
}

static void test_keyed_match_in_another_namespace_finds_nothing(void **state)
{
    (void)state;
    struct kvb_block *blocks[RUN];
    struct kvb_hit hits[RUN];
    uint32_t ns = 0;
    kv_ok(kvb_namespace_open(rig.kv, "a", 1, NULL, 0, &ns));
    store_keyed_run(blocks, 1);
    struct kvb_query query = by_both(ns, T, keys, 1);
    assert_int_equal(match(&query, hits), 0);
    unref_all(blocks, 1);
}

static void test_keyed_register_without_key_is_invalid(void **state)
{
    (void)state;
    struct kvb_block *block = try_register(0, 0, NULL, T, KVB_EINVAL);
    assert_int_equal(kv_describe(&rig, block).state, KVB_STATE_COMPLETE);
    kv_unref(&rig, block);
}

static void test_keyed_register_takes_the_key_of_init(void **state)
{
    (void)state;
    struct kvb_hit hits[RUN];
    unsigned char key[KVB_KEY_BYTES_MAX];
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    struct kvb_block_init init = {.size = sizeof init, .key = key_at(1)};
    kv_ok(kvb_block_init(rig.kv, &block, &init, 1, NULL));
    kv_append(&rig, block, T, KV_TOKENS, 0);
    kv_schedule(&rig, block);
    kv_done(&rig, block, KV_TOKENS);
    kv_register(&rig, block);
    kv_ok(kvb_block_key(rig.kv, block, key));
    assert_memory_equal(key, key_at(1), rig.config.key_bytes);
    struct kvb_query query = by_keys(key_at(1), 1);
    assert_int_equal(match(&query, hits), 1);
    kv_unref(&rig, block);
}

static void test_keyed_events_show_key_and_parent(void **state)
{
    (void)state;
    struct kvb_block *blocks[RUN];
    store_keyed_run(blocks, 2);
    kv_poll(&rig);
    assert_int_equal(rig.events.count, 2);
    const struct kv_event_record *first = &rig.events.list[0], *second = &rig.events.list[1];
    assert_int_equal(first->kind, KVB_EVENT_STORED);
    assert_memory_equal(first->key, key_at(0), rig.config.key_bytes);
    assert_false(first->has_parent);
    assert_memory_equal(second->key, key_at(1), rig.config.key_bytes);
    assert_true(second->has_parent);
    assert_memory_equal(second->parent, key_at(0), rig.config.key_bytes);
    assert_int_equal(second->token_count, KV_TOKENS);
    assert_int_equal(second->first_token, T[KV_TOKENS]);
    unref_all(blocks, 2);
}

static void test_keyed_invalidate_forgets_one_key(void **state)
{
    (void)state;
    struct kvb_block *blocks[RUN];
    struct kvb_hit hits[RUN];
    store_keyed_run(blocks, RUN);
    kv_ok(kvb_invalidate(rig.kv, key_at(2), 1, NULL));
    struct kvb_query query = by_keys(keys, RUN);
    assert_int_equal(match(&query, hits), 2);
    query = by_keys(key_at(3), 1);
    assert_int_equal(match(&query, hits), 1);
    unref_all(blocks, RUN);
}

static void test_keyed_register_of_other_tokens_under_a_taken_key_collides(void **state)
{
    (void)state;
    struct kvb_block *blocks[RUN];
    struct kvb_hit hits[RUN];
    store_keyed_run(blocks, 1);
    struct kvb_block *other = kv_alloc(&rig, KVB_TIER_DEVICE);
    struct kvb_register options = {.size = sizeof options, .keys = keys};
    kv_complete(&rig, other, 0, 0, NULL, T + KV_TOKENS);
    kv_expect(kvb_block_register(rig.kv, &other, 1, &options, NULL, NULL), KVB_ECOLLISION);
    struct kvb_query query = by_keys(keys, 1);
    assert_int_equal(match(&query, hits), 1);
    assert_ptr_equal(hits[0].block, blocks[0]);
    kv_unref(&rig, other);
    unref_all(blocks, 1);
}

static void test_keyed_init_with_itself_as_parent_is_invalid(void **state)
{
    (void)state;
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    struct kvb_block_init init = {
        .size = sizeof init, .position = 1, .parent = key_at(0), .key = key_at(0)};
    kv_expect(kvb_block_init(rig.kv, &block, &init, 1, NULL), KVB_EINVAL);
    assert_int_equal(kv_describe(&rig, block).state, KVB_STATE_EMPTY);
    kv_unref(&rig, block);
}

static void test_keyed_register_with_its_parents_key_is_invalid(void **state)
{
    (void)state;
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    struct kvb_register options = {.size = sizeof options, .keys = key_at(0)};
    kv_complete(&rig, block, 0, 1, key_at(0), T + KV_TOKENS);
    kv_expect(kvb_block_register(rig.kv, &block, 1, &options, NULL, NULL), KVB_EINVAL);
    assert_int_equal(kv_describe(&rig, block).state, KVB_STATE_COMPLETE);
    kv_unref(&rig, block);
}

/* Under the root's key there are `tokens` by now; its child was computed behind T. Both are held. */
static void replace_root(struct kvb_block **blocks, const uint32_t *tokens)
{
    struct kvb_register options = {.size = sizeof options, .keys = key_at(0)};
    store_keyed_run(blocks, 2);
    kv_unref(&rig, blocks[0]);
    kv_ok(kvb_invalidate(rig.kv, key_at(0), 1, NULL));
    blocks[0] = kv_alloc(&rig, KVB_TIER_DEVICE);
    kv_complete(&rig, blocks[0], 0, 0, NULL, tokens);
    kv_ok(kvb_block_register(rig.kv, &blocks[0], 1, &options, NULL, NULL));
}

static void test_keyed_child_behind_other_content_of_its_parent_is_not_served(void **state)
{
    (void)state;
    struct kvb_block *blocks[RUN];
    struct kvb_hit hits[RUN];
    uint32_t other[RUN * KV_TOKENS];
    memcpy(other, T, sizeof other);
    other[0] ^= 1;
    replace_root(blocks, other);
    struct kvb_query query = by_both(0, other, keys, 2);
    assert_int_equal(match(&query, hits), 1);
    unref_all(blocks, 2);
}

static void test_keyed_child_behind_the_same_content_of_its_parent_is_served(void **state)
{
    (void)state;
    struct kvb_block *blocks[RUN];
    struct kvb_hit hits[RUN];
    replace_root(blocks, T);
    struct kvb_query query = by_both(0, T, keys, 2);
    assert_int_equal(match(&query, hits), 2);
    unref_all(blocks, 2);
}

/* All keys have one tag in the index: refused or stored, a key never finds another key's block. */
static void test_keyed_collision_of_tags_serves_exact_keys_only(void **state)
{
    static struct kvbi_hash_ops ops;
    struct kvbi_hooks hooks = {.hash = &ops};
    ops = (struct kvbi_hash_ops){constant_64, kvbi_hash_baseline.hash128, "test"};
    prepare_keys(*(const uint32_t *)*state);
    kv_rig_open_hooked(&rig, &hooks);
    struct kvb_block *blocks[RUN];
    int codes[RUN];
    kv_ok(kvb_alloc(rig.kv, KVB_TIER_DEVICE, RUN, NULL, blocks, NULL));
    for (uint32_t i = 0; i < RUN; i++) {
        struct kvb_register options = {.size = sizeof options, .keys = key_at(i)};
        kv_complete(&rig, blocks[i], 0, 0, NULL, T + (size_t)i * KV_TOKENS);
        codes[i] = kvb_block_register(rig.kv, &blocks[i], 1, &options, NULL, NULL);
        assert_true(codes[i] == 0 || codes[i] == KVB_ECOLLISION);
    }
    assert_int_equal(codes[0], 0);
    for (uint32_t i = 0; i < RUN; i++) {
        struct kvb_hit hits[RUN];
        struct kvb_query query = by_keys(key_at(i), 1);
        assert_int_equal(match(&query, hits), codes[i] == 0 ? 1 : 0);
        if (codes[i] == 0) {
            assert_ptr_equal(hits[0].block, blocks[i]);
        }
    }
    unref_all(blocks, RUN);
    kv_rig_close(&rig);
}

/* Every test of keys at every size of keys. */
static int run_keyed(void)
{
    const struct CMUnitTest each[] = {
        {"key_bytes_is_the_configured_size", test_keyed_key_bytes_is_the_configured_size,
         setup_keys, teardown, NULL},
        {"match_by_keys_finds_the_run", test_keyed_match_by_keys_finds_the_run, setup_keys,
         teardown, NULL},
        {"match_by_keys_and_tokens_compares_tokens",
         test_keyed_match_by_keys_and_tokens_compares_tokens, setup_keys, teardown, NULL},
        {"match_by_tokens_alone_is_unsupported", test_keyed_match_by_tokens_alone_is_unsupported,
         setup_keys, teardown, NULL},
        {"match_in_another_namespace_finds_nothing",
         test_keyed_match_in_another_namespace_finds_nothing, setup_keys, teardown, NULL},
        {"register_without_key_is_invalid", test_keyed_register_without_key_is_invalid, setup_keys,
         teardown, NULL},
        {"register_takes_the_key_of_init", test_keyed_register_takes_the_key_of_init, setup_keys,
         teardown, NULL},
        {"events_show_key_and_parent", test_keyed_events_show_key_and_parent, setup_keys, teardown,
         NULL},
        {"invalidate_forgets_one_key", test_keyed_invalidate_forgets_one_key, setup_keys, teardown,
         NULL},
        {"register_of_other_tokens_under_a_taken_key_collides",
         test_keyed_register_of_other_tokens_under_a_taken_key_collides, setup_keys, teardown,
         NULL},
        {"init_with_itself_as_parent_is_invalid", test_keyed_init_with_itself_as_parent_is_invalid,
         setup_keys, teardown, NULL},
        {"register_with_its_parents_key_is_invalid",
         test_keyed_register_with_its_parents_key_is_invalid, setup_keys, teardown, NULL},
        {"child_behind_other_content_of_its_parent_is_not_served",
         test_keyed_child_behind_other_content_of_its_parent_is_not_served, setup_keys, teardown,
         NULL},
        {"child_behind_the_same_content_of_its_parent_is_served",
         test_keyed_child_behind_the_same_content_of_its_parent_is_served, setup_keys, teardown,
         NULL},
        {"collision_of_tags_serves_exact_keys_only",
         test_keyed_collision_of_tags_serves_exact_keys_only, NULL, NULL, NULL},
    };
    enum { TESTS = sizeof each / sizeof *each, SIZES = sizeof key_sizes / sizeof *key_sizes };
    static struct CMUnitTest tests[TESTS * SIZES];
    static char names[TESTS * SIZES][96];
    for (size_t s = 0; s < SIZES; s++) {
        for (size_t t = 0; t < TESTS; t++) {
            size_t i = s * TESTS + t;
            tests[i] = each[t];
            (void)snprintf(names[i], sizeof names[i], "test_keyed_%s_%u_bytes", each[t].name,
                           key_sizes[s]);
            tests[i].name = names[i];
            tests[i].initial_state = (void *)(uintptr_t)&key_sizes[s];
        }
    }
    return cmocka_run_group_tests_name("the caller's keys", tests, NULL, NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define COLLISION(name) cmocka_unit_test_setup_teardown(name, setup_collisions, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_match_of_nothing_stored_is_empty),
        TEST(test_match_hands_out_a_handle_for_every_block_in_order),
        TEST(test_match_of_parked_blocks_holds_them),
        TEST(test_match_stops_at_the_first_gap),
        TEST(test_match_stops_where_tokens_differ),
        TEST(test_match_of_longer_prompt_ends_with_what_is_stored),
        TEST(test_match_stops_at_capacity),
        TEST(test_match_ignores_an_incomplete_tail),
        TEST(test_match_finds_no_unregistered_block),
        cmocka_unit_test(test_match_of_more_than_64_blocks_hands_out_all),
        cmocka_unit_test(test_match_of_more_than_64_keyed_blocks_hands_out_all),
        TEST(test_match_says_the_tier_that_has_the_copy),
        TEST(test_match_takes_the_copy_in_the_fastest_tier),
        TEST(test_lookup_counts_the_fastest_copy_of_each_block),
        TEST(test_lookup_holds_nothing),
        TEST(test_match_counts_hits_by_tier),
        TEST(test_match_by_keys_alone_finds_the_run),
        TEST(test_match_by_keys_and_tokens_finds_the_run),
        TEST(test_match_by_keys_with_other_tokens_finds_nothing),
        TEST(test_match_by_keys_with_tokens_of_another_namespace_finds_nothing),
        TEST(test_match_by_key_with_unknown_digest_trusts_the_caller),
        TEST(test_match_by_keys_with_unknown_digests_and_tokens_finds_the_run),
        TEST(test_match_by_keys_with_unknown_digests_and_other_tokens_stops_there),
        TEST(test_lookup_by_keys_with_unknown_digests_and_tokens_counts_the_run),
        TEST(test_match_by_key_with_wrong_digest_finds_nothing),
        TEST(test_match_of_the_same_tokens_by_another_tenant_finds_nothing),
        TEST(test_match_with_another_adapter_finds_nothing),
        TEST(test_match_of_a_later_block_as_root_finds_nothing),
        TEST(test_query_without_tokens_and_keys_is_invalid),
        TEST(test_query_with_counts_but_no_arrays_is_invalid),
        TEST(test_query_with_unknown_flags_is_invalid),
        TEST(test_query_in_unknown_namespace_is_not_found),
        TEST(test_query_without_size_is_invalid),
        COLLISION(test_collision_is_forced_by_the_test_hash),
        COLLISION(test_collision_register_is_refused_and_stays_complete),
        COLLISION(test_collision_serves_neither_the_others_block),
        COLLISION(test_collision_key_with_digest_finds_nothing),
        COLLISION(test_collision_descendants_are_refused),
        COLLISION(test_collision_of_a_whole_chain_serves_the_first_only),
        COLLISION(test_collision_emits_no_event),
        COLLISION(test_collision_across_namespaces_is_refused),
        COLLISION(test_collision_of_hash_and_digest_is_told_by_tokens),
        cmocka_unit_test(test_collision_of_the_digest_alone_keeps_contents_apart),
        cmocka_unit_test(test_collision_of_everything_serves_exact_contents_only),
        COLLISION(test_collision_name_is_free_again_after_eviction),
        COLLISION(test_collision_child_of_a_root_that_is_gone_is_not_served_to_another),
        cmocka_unit_test(test_collision_of_all_names_across_namespaces_serves_one_tenant_only),
        COLLISION(test_invalidate_by_colliding_key_leaves_the_other_alone),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return failed + run_keyed();
}
