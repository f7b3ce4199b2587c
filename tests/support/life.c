/* SPDX-License-Identifier: Apache-2.0 */
/* See life.h. */
#include "support/life.h"

const uint32_t life_tokens[2 * KV_TOKENS] = {11, 12, 13, 14, 15, 16, 17, 18};

struct kvb_block *life_block_in(struct kv_rig *rig, int state)
{
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    if (state == KVB_STATE_EMPTY)
        return block;
    if (state >= KVB_STATE_COMPLETE) {
        kv_complete(rig, block, 0, 0, NULL, life_tokens);
    } else {
        kv_init(rig, block, 0, 0, NULL);
        kv_append(rig, block, life_tokens, 2, state == KVB_STATE_PARTIAL ? KVB_MORE : 0);
    }
    if (state == KVB_STATE_INFLIGHT)
        kv_schedule(rig, block);
    if (state == KVB_STATE_REGISTERED)
        kv_register(rig, block);
    assert_int_equal(kv_describe(rig, block).state, state);
    return block;
}

void life_drop(struct kv_rig *rig, struct kvb_block *block)
{
    uint32_t steps = kv_describe(rig, block).step_count;
    kv_unref(rig, block);
    for (uint32_t i = 0; i < steps; i++)
        kv_ok(kvb_block_compute_failed(rig->kv, &block, 1, NULL));
}

struct kvb_block *life_registered(struct kv_rig *rig, const uint32_t *tokens)
{
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_complete(rig, block, 0, 0, NULL, tokens);
    kv_register(rig, block);
    return block;
}

struct kvb_block *life_store(struct kv_rig *rig, uint64_t seed)
{
    uint32_t tokens[KV_TOKENS];
    struct kvb_block *block = NULL;
    kv_tokens(tokens, KV_TOKENS, seed);
    kv_store_run(rig, KVB_TIER_DEVICE, 0, tokens, 1, &block);
    return block;
}

void life_park(struct kv_rig *rig, uint64_t seed)
{
    kv_unref(rig, life_store(rig, seed));
}

struct kvb_seq life_name(struct kv_rig *rig, uint64_t seed)
{
    uint32_t tokens[KV_TOKENS];
    struct kvb_seq name = {0};
    size_t count = 0;
    kv_tokens(tokens, KV_TOKENS, seed);
    kv_ok(kvb_hash_tokens(rig->kv, 0, NULL, tokens, KV_TOKENS, &name, 1, &count));
    return name;
}

struct kvb_weak life_weak(struct kv_rig *rig, struct kvb_block *block)
{
    struct kvb_weak weak = {0};
    kv_ok(kvb_block_weak(rig->kv, block, &weak));
    return weak;
}

int life_upgrade(struct kv_rig *rig, struct kvb_weak weak, struct kvb_block **block)
{
    int result = 1;
    int code = kvb_weak_upgrade(rig->kv, &weak, 1, block, &result);
    assert_int_equal(code, result);
    return code;
}

void life_evict_all(struct kv_rig *rig)
{
    struct kvb_block *blocks[KV_BLOCKS];
    uint32_t count = (uint32_t)kv_stats(rig).tiers[KVB_TIER_DEVICE].available_count;
    assert_true(count <= KV_BLOCKS);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, count, NULL, blocks, NULL));
    kv_ok(kvb_block_unref(rig->kv, blocks, count, NULL));
}
