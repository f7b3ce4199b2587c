/* SPDX-License-Identifier: Apache-2.0 */
/* See find.h. */
#include "support/find.h"

const uint32_t find_tokens[FIND_RUN * KV_TOKENS] = {
    0x9e3779b9, 501, 502, 503, 0x85ebca6b, 511, 512, 513,
    0xc2b2ae35, 521, 522, 523, 0x27d4eb2f, 531, 532, 533,
};

void find_park(struct kv_rig *rig, uint32_t tier, uint32_t ns, const uint32_t *tokens,
               uint32_t count)
{
    struct kvb_block *blocks[FIND_RUN];
    assert_true(count <= FIND_RUN);
    kv_store_run(rig, tier, ns, tokens, count, blocks);
    find_unref(rig, blocks, count);
}

void find_unref(struct kv_rig *rig, struct kvb_block **blocks, uint32_t count)
{
    kv_ok(kvb_block_unref(rig->kv, blocks, count, NULL));
}

void find_name(struct kv_rig *rig, uint32_t ns, const uint32_t *tokens, size_t blocks,
               struct kvb_seq *seqs)
{
    size_t count = 0;
    kv_ok(kvb_hash_tokens(rig->kv, ns, NULL, tokens, blocks * KV_TOKENS, seqs, blocks, &count));
    assert_int_equal(count, blocks);
}

struct kvb_query find_by_keys(const void *keys, size_t count)
{
    return (struct kvb_query){.size = sizeof(struct kvb_query), .keys = keys, .key_count = count};
}

struct kvb_query find_by_both(uint32_t ns, const uint32_t *tokens, const void *keys, size_t count)
{
    struct kvb_query query = kv_query(ns, tokens, count * KV_TOKENS);
    query.keys = keys;
    query.key_count = count;
    return query;
}

size_t find_match(struct kv_rig *rig, const struct kvb_query *query, struct kvb_hit *hits)
{
    size_t count = 99;
    kv_ok(kvb_match(rig->kv, query, hits, FIND_RUN, &count));
    assert_in_range(count, 0, FIND_RUN);
    for (size_t i = 0; i < count; i++) {
        assert_non_null(hits[i].block);
        kv_unref(rig, hits[i].block);
    }
    return count;
}

size_t find_match_tokens(struct kv_rig *rig, uint32_t ns, const uint32_t *tokens, size_t blocks)
{
    struct kvb_hit hits[FIND_RUN];
    struct kvb_query query = kv_query(ns, tokens, blocks * KV_TOKENS);
    return find_match(rig, &query, hits);
}

void find_refused(struct kv_rig *rig, struct kvb_query query, int code)
{
    struct kvb_hit hits[FIND_RUN];
    uint64_t tiers[KVB_TIER_COUNT];
    size_t count = 9;
    kv_expect(kvb_match(rig->kv, &query, hits, FIND_RUN, &count), code);
    assert_int_equal(count, 0);
    kv_expect(kvb_lookup(rig->kv, &query, tiers), code);
}

struct kvb_block *find_try_register(struct kv_rig *rig, uint32_t ns, uint32_t position,
                                    const struct kvb_seq *parent, const uint32_t *tokens, int code)
{
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    struct kvb_block *registered = block;
    kv_complete(rig, block, ns, position, parent, tokens);
    kv_expect(kvb_block_register(rig->kv, &registered, 1, NULL, NULL, NULL), code);
    return registered;
}

uint64_t find_constant_64(const void *data, size_t bytes, uint64_t seed)
{
    (void)data;
    (void)bytes;
    (void)seed;
    return 42;
}
