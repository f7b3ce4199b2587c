/* SPDX-License-Identifier: Apache-2.0 */
/* Moving down: whom a copy waits for, and what eviction sees of it. */
#include "support/move_test.h"
#include "support/test.h"

/* ---- Fences ---------------------------------------------------------------------------------- */

enum fence_at { FENCE_NOWHERE, FENCE_AT_DONE, FENCE_AT_REGISTER, FENCE_AT_OFFER };

/*
 * A block whose bytes are written after compute_done, as by a device. True if the copy below has
 * them.
 */
static bool copy_has_late_bytes(struct kv_rig *rig, enum fence_at where)
{
    static const uint32_t full = KV_TOKENS;
    struct kvb_fence fence = mv_fence(5);
    struct mv_run run;
    mv_open_two(rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_name(rig, &run, 1, 1);
    struct kvb_block *block = run.blocks[0] = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_init(rig, block, 0, 0, NULL);
    kv_append(rig, block, run.tokens, KV_TOKENS, 0);
    kv_schedule(rig, block);
    kv_payload_fill(rig, block, UINT64_C(0xbad));
    kv_ok(kvb_block_compute_done(rig->kv, &block, &full, 1, where == FENCE_AT_DONE ? &fence : NULL,
                                 NULL));
    kv_ok(kvb_block_register(rig->kv, &block, 1, NULL, where == FENCE_AT_REGISTER ? &fence : NULL,
                             NULL));
    kv_ok(kvb_block_offload(rig->kv, &block, 1, 50, where == FENCE_AT_OFFER ? &fence : NULL, NULL));
    mv_step(rig);
    mv_reach(rig, 4);
    /* The device writes now, and says so. */
    kv_payload_fill(rig, block, run.seqs[0].hash);
    mv_reach(rig, 5);
    assert_int_equal(mv_down(rig).transferred, 1);
    kv_unref(rig, block);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    struct kvb_query query = kv_query(0, run.tokens, KV_TOKENS);
    struct kvb_hit hit;
    size_t count = 0;
    kv_ok(kvb_match(rig->kv, &query, &hit, 1, &count));
    assert_int_equal(count, 1);
    assert_int_equal(hit.tier, KVB_TIER_HOST);
    bool late = mv_bytes_are(rig, hit.block, &run.seqs[0]);
    kv_unref(rig, hit.block);
    return late;
}

static void test_fence_of_compute_done_is_waited_for(void **state)
{
    assert_true(copy_has_late_bytes(*state, FENCE_AT_DONE));
}

static void test_fence_of_register_is_waited_for(void **state)
{
    assert_true(copy_has_late_bytes(*state, FENCE_AT_REGISTER));
}

static void test_fence_of_offload_is_waited_for(void **state)
{
    assert_true(copy_has_late_bytes(*state, FENCE_AT_OFFER));
}

static void test_no_fence_copies_what_is_there_too_early(void **state)
{
    assert_false(copy_has_late_bytes(*state, FENCE_NOWHERE));
}

static void test_later_of_two_fences_counts(void **state)
{
    struct kv_rig *rig = *state;
    static const uint32_t full = KV_TOKENS;
    struct kvb_fence early = mv_fence(3);
    struct kvb_fence late = mv_fence(6);
    struct mv_run run;
    mv_open_two(rig, 4, 4, KVB_OFFLOAD_ON_REGISTER);
    mv_name(rig, &run, 1, 1);
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_init(rig, block, 0, 0, NULL);
    kv_append(rig, block, run.tokens, KV_TOKENS, 0);
    kv_schedule(rig, block);
    kv_ok(kvb_block_compute_done(rig->kv, &block, &full, 1, &late, NULL));
    kv_ok(kvb_block_register(rig->kv, &block, 1, NULL, &early, NULL));
    mv_reach(rig, 5);
    assert_int_equal(mv_down(rig).transferred, 0);
    mv_reach(rig, 6);
    assert_int_equal(mv_down(rig).transferred, 1);
    kv_unref(rig, block);
}

/* ---- What eviction sees of it ---------------------------------------------------------------- */

static void test_transfer_does_not_change_recency(void **state)
{
    struct kv_rig *rig = *state;
    static const uint32_t offer_order[] = {3, 1, 0, 2};
    struct mv_run runs[4];
    mv_two_tiers(rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_bounds(rig, 0, 1, 1, 1, 8); /* all but one are upgraded from weak handles */
    kv_rig_open(rig);
    mv_store_each(rig, runs, KVB_TIER_DEVICE, 1, 4);
    for (uint32_t i = 0; i < 4; i++)
        mv_offer(rig, runs[offer_order[i]].blocks[0], 50);
    mv_drop_each(rig, runs, 4);
    mv_step(rig);
    assert_int_equal(mv_down(rig).transferred, 4);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    mv_step(rig);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(mv_event(rig, KVB_EVENT_REMOVED, KVB_TIER_DEVICE, i),
                         runs[i].seqs[0].hash);
}

static void test_transfer_that_an_eviction_met_keeps_its_block_the_next_to_go(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run moving, others[2];
    mv_open_two(rig, 3, 4, KVB_OFFLOAD_MANUAL);
    mv_store_after(rig, &moving, KVB_TIER_DEVICE, 1, 1, 1);
    mv_store_each(rig, others, KVB_TIER_DEVICE, 2, 2);
    mv_offer(rig, moving.blocks[0], 50);
    mv_drop(rig, &moving); /* the oldest */
    mv_drop_each(rig, others, 2);
    mv_step(rig);
    /* Passes the oldest by: it is being read. */
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_check(rig);
    assert_int_equal(mv_in_tier(rig, &moving, KVB_TIER_DEVICE), 1);
    assert_int_equal(mv_found(rig, &others[0]), 0);
    mv_reach(rig, 1);
    kv_unref(rig, block);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    mv_step(rig);
    assert_int_equal(mv_event(rig, KVB_EVENT_REMOVED, KVB_TIER_DEVICE, 1), moving.seqs[0].hash);
    assert_int_equal(mv_event(rig, KVB_EVENT_REMOVED, KVB_TIER_DEVICE, 2), others[1].seqs[0].hash);
}

static void test_block_parked_by_a_lane_goes_before_its_parent(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run chain, other;
    mv_open_two(rig, 4, 3, KVB_OFFLOAD_MANUAL);
    mv_store(rig, &chain, KVB_TIER_DEVICE, 1, 2);
    mv_store(rig, &other, KVB_TIER_DEVICE, 2, 1);
    mv_offer(rig, chain.blocks[0], 50);
    mv_offer(rig, other.blocks[0], 50);
    mv_offer(rig, chain.blocks[1], 50); /* the youngest arrival, but below its parent */
    mv_step(rig);
    mv_evict_all(rig, KVB_TIER_HOST);
    mv_step(rig);
    assert_int_equal(mv_event(rig, KVB_EVENT_REMOVED, KVB_TIER_HOST, 0), chain.seqs[1].hash);
    assert_int_equal(mv_event(rig, KVB_EVENT_REMOVED, KVB_TIER_HOST, 1), chain.seqs[0].hash);
    assert_int_equal(mv_event(rig, KVB_EVENT_REMOVED, KVB_TIER_HOST, 2), other.seqs[0].hash);
    mv_drop(rig, &chain);
    mv_drop(rig, &other);
}

static void test_chain_parked_by_a_lane_is_evicted_tail_first(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    mv_open_two(rig, 4, 4, KVB_OFFLOAD_ON_REGISTER);
    mv_store(rig, &run, KVB_TIER_DEVICE, 1, 4);
    mv_step(rig);
    mv_evict_all(rig, KVB_TIER_HOST);
    mv_step(rig);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(mv_event(rig, KVB_EVENT_REMOVED, KVB_TIER_HOST, i), run.seqs[3 - i].hash);
    mv_drop(rig, &run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kv_rig, test_fence_of_compute_done_is_waited_for),
        TEST(kv_rig, test_fence_of_register_is_waited_for),
        TEST(kv_rig, test_fence_of_offload_is_waited_for),
        TEST(kv_rig, test_no_fence_copies_what_is_there_too_early),
        TEST(kv_rig, test_later_of_two_fences_counts),
        TEST(kv_rig, test_transfer_does_not_change_recency),
        TEST(kv_rig, test_transfer_that_an_eviction_met_keeps_its_block_the_next_to_go),
        TEST(kv_rig, test_block_parked_by_a_lane_goes_before_its_parent),
        TEST(kv_rig, test_chain_parked_by_a_lane_is_evicted_tail_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
