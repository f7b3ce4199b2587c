/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nothing that serves allocates: only creating a manager and opening a namespace do.
 */
#include "support/kv_scene.h"

static void serve_once(struct kv_rig *rig, uint64_t seed)
{
    struct kvb_manager *kv = rig->kv;
    uint32_t tokens[2 * KV_TOKENS];
    struct kvb_block *run[2], *targets[2], *sources[2];
    struct kvb_hit hits[2];
    struct kvb_weak weak;
    struct kvb_op *op = NULL;
    size_t count = 0;
    uint32_t good = 0;
    kv_tokens(tokens, 2 * KV_TOKENS, seed);
    kv_store_run(rig, KVB_TIER_DEVICE, 0, tokens, 2, run);
    kv_ok(kvb_block_ref(kv, run, 2, NULL));
    kv_ok(kvb_block_unref(kv, run, 2, NULL));
    kv_ok(kvb_block_weak(kv, run[0], &weak));
    kv_ok(kvb_block_set_priority(kv, run, 2, 50, KV_SECOND, NULL));
    kv_ok(kvb_pin(kv, seed + 1, run, 2, KV_SECOND, NULL));
    kv_ok(kvb_block_offload(kv, run, 2, 50, NULL, NULL));
    kv_flush(rig);
    kv_ok(kvb_unpin_all(kv, seed + 1, NULL));
    kv_ok(kvb_block_unref(kv, run, 2, NULL));
    kv_ok(kvb_weak_upgrade(kv, &weak, 1, run, NULL));
    kv_unref(rig, run[0]);

    struct kvb_block *all[KV_BLOCKS]; /* evict the copies above */
    kv_ok(kvb_alloc(kv, KVB_TIER_DEVICE, KV_BLOCKS, NULL, all, NULL));
    kv_ok(kvb_block_unref(kv, all, KV_BLOCKS, NULL));
    struct kvb_query query = kv_query(0, tokens, 2 * KV_TOKENS);
    kv_ok(kvb_match(kv, &query, hits, 2, &count));
    assert_int_equal(count, 2);
    assert_int_equal(hits[0].tier, KVB_TIER_HOST);
    sources[0] = hits[0].block;
    sources[1] = hits[1].block;
    kv_ok(kvb_alloc(kv, KVB_TIER_DEVICE, 2, NULL, targets, NULL));
    struct kvb_onboard onboard = {
        .size = sizeof onboard, .sources = sources, .targets = targets, .count = 2};
    kv_ok(kvb_onboard(kv, &onboard, &op));
    kv_ok(kvb_block_unref(kv, sources, 2, NULL));
    kv_ok(kvb_op_wait(kv, op, KVB_FOREVER));
    kv_ok(kvb_op_take(kv, op, targets, 2, &good));
    assert_int_equal(good, 2);
    kv_ok(kvb_op_release(kv, op));
    kv_ok(kvb_block_unref(kv, targets, 2, NULL));
    if (seed % 10 == 9)
        kv_ok(kvb_invalidate_namespace(kv, 0, NULL));
    if (seed % 10 == 4)
        kv_ok(kvb_manager_clear(kv));
    (void)kv_stats(rig);
    kv_advance(rig, KV_SECOND / 4);
}

static void serving_allocates_nothing(struct kv_rig *rig, uint32_t progress)
{
    rig->config.progress = progress;
    kv_rig_open(rig);
    uint64_t calls = rig->heap.calls;
    for (uint64_t seed = 0; seed < 200; seed++)
        serve_once(rig, seed);
    assert_int_equal(rig->heap.calls, calls);
}

static void test_serving_by_poll_allocates_nothing(void **state)
{
    serving_allocates_nothing(*state, KVB_PROGRESS_POLL);
}

static void test_serving_by_thread_allocates_nothing(void **state)
{
    serving_allocates_nothing(*state, KVB_PROGRESS_THREAD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kv_two_tiers, test_serving_by_poll_allocates_nothing),
        TEST(kv_two_tiers, test_serving_by_thread_allocates_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
