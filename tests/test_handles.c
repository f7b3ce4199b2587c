/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Strong and weak handles: counting, upgrades against eviction and slot reuse, the limits of both counters, pointers that
 * are not handles, and the 1 -> 0 -> 1 edge under threads.
 */
#include "support/kv_test.h"

#include "block/slot.h"

static struct kv_rig rig;

static int setup(void **state)
{
    (void)state;
    kv_rig_init(&rig);
    kv_rig_open(&rig);
    return 0;
}

/* A second tier, for calls that move blocks between tiers. */
static int setup_two_tiers(void **state)
{
    (void)state;
    kv_rig_init(&rig);
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

static const uint32_t T[] = {21, 22, 23, 24, 25, 26, 27, 28};

static struct kvb_block *registered(const uint32_t *tokens)
{
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    kv_complete(&rig, block, 0, 0, NULL, tokens);
    kv_register(&rig, block);
    return block;
}

static struct kvb_weak weak_of(struct kvb_block *block)
{
    struct kvb_weak weak = {0};
    kv_ok(kvb_block_weak(rig.kv, block, &weak));
    return weak;
}

static int upgrade(struct kvb_weak weak, struct kvb_block **block)
{
    int result = 1;
    int code = kvb_weak_upgrade(rig.kv, &weak, 1, block, &result);
    assert_int_equal(code, result);
    return code;
}

/* Take every block of the tier once, so that whatever is parked goes. */
static void evict_all(void)
{
    struct kvb_block *blocks[KV_BLOCKS];
    uint32_t count = (uint32_t)kv_stats(&rig).tiers[KVB_TIER_DEVICE].available_count;
    kv_ok(kvb_alloc(rig.kv, KVB_TIER_DEVICE, count, NULL, blocks, NULL));
    kv_ok(kvb_block_unref(rig.kv, blocks, count, NULL));
}

/* ---- Counting ----------------------------------------------------------------------------------------------------- */

static void test_alloc_hands_out_one_handle(void **state)
{
    (void)state;
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    assert_int_equal(kv_describe(&rig, block).holder_count, 1);
    kv_unref(&rig, block);
}

static void test_ref_and_unref_move_the_count(void **state)
{
    (void)state;
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    struct kvb_block *twice[] = {block, block};
    kv_ok(kvb_block_ref(rig.kv, twice, 2, NULL));
    assert_int_equal(kv_describe(&rig, block).holder_count, 3);
    kv_ok(kvb_block_unref(rig.kv, twice, 2, NULL));
    assert_int_equal(kv_describe(&rig, block).holder_count, 1);
    kv_unref(&rig, block);
}

static void test_last_unref_parks_a_registered_block(void **state)
{
    (void)state;
    kv_unref(&rig, registered(T));
    struct kvb_stats stats = kv_stats(&rig);
    assert_int_equal(stats.tiers[0].parked_count, 1);
    assert_int_equal(stats.tiers[0].held_count, 0);
    assert_int_equal(kv_run_length(&rig, 0, T, KV_TOKENS), 1);
}

static void test_last_unref_frees_an_unregistered_block(void **state)
{
    (void)state;
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    kv_complete(&rig, block, 0, 0, NULL, T);
    kv_unref(&rig, block);
    assert_int_equal(kv_stats(&rig).tiers[0].free_count, KV_BLOCKS);
}

static void test_unref_without_holder_is_invalid(void **state)
{
    (void)state;
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    kv_unref(&rig, block);
    int result = 0;
    kv_expect(kvb_block_unref(rig.kv, &block, 1, &result), KVB_EINVAL);
    assert_int_equal(result, KVB_EINVAL);
    assert_int_equal(kv_stats(&rig).tiers[0].free_count, KV_BLOCKS);
}

static void test_unref_of_parked_block_is_invalid(void **state)
{
    (void)state;
    struct kvb_block *block = registered(T);
    kv_unref(&rig, block);
    kv_expect(kvb_block_unref(rig.kv, &block, 1, NULL), KVB_EINVAL);
    assert_int_equal(kv_stats(&rig).tiers[0].parked_count, 1);
}

static void test_unref_twice_in_one_array_is_invalid_once(void **state)
{
    (void)state;
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    struct kvb_block *twice[] = {block, block};
    int results[] = {1, 1};
    kv_expect(kvb_block_unref(rig.kv, twice, 2, results), KVB_EINVAL);
    assert_int_equal(results[0] + results[1], KVB_EINVAL);
    assert_int_equal(kv_stats(&rig).tiers[0].free_count, KV_BLOCKS);
}

static void test_ref_without_holder_is_invalid(void **state)
{
    (void)state;
    struct kvb_block *block = registered(T);
    kv_unref(&rig, block);
    kv_expect(kvb_block_ref(rig.kv, &block, 1, NULL), KVB_EINVAL);
    assert_int_equal(kv_stats(&rig).tiers[0].held_count, 0);
}

/* Bring one block to 2^20 - 1 handles; returns how many were added. */
static uint32_t fill_count(struct kvb_block *block)
{
    enum { LIMIT = (1 << 20) - 1, STEP = 1 << 12 };
    struct kvb_block **many = malloc(STEP * sizeof(struct kvb_block *));
    assert_non_null(many);
    for (uint32_t i = 0; i < STEP; i++) {
        many[i] = block;
    }
    uint32_t added = LIMIT - kv_describe(&rig, block).holder_count;
    for (uint32_t left = added; left > 0;) {
        uint32_t step = left < STEP ? left : STEP;
        kv_ok(kvb_block_ref(rig.kv, many, step, NULL));
        left -= step;
    }
    free(many);
    return added;
}

static void give_back(struct kvb_block *block, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        kv_unref(&rig, block);
    }
}

static void test_ref_beyond_the_limit_says_again(void **state)
{
    (void)state;
    struct kvb_block *block = registered(T);
    uint32_t added = fill_count(block);
    kv_expect(kvb_block_ref(rig.kv, &block, 1, NULL), KVB_EAGAIN);
    assert_int_equal(kv_describe(&rig, block).holder_count, (1u << 20) - 1);
    give_back(block, added);
    kv_unref(&rig, block);
}

static void test_match_at_the_limit_ends_the_run_and_says_again(void **state)
{
    (void)state;
    struct kvb_block *run[2];
    struct kvb_hit hits[2];
    size_t count = 9;
    kv_store_run(&rig, KVB_TIER_DEVICE, 0, T, 2, run);
    uint32_t added = fill_count(run[1]);
    struct kvb_query query = kv_query(0, T, 8);
    kv_expect(kvb_match(rig.kv, &query, hits, 2, &count), KVB_EAGAIN);
    assert_int_equal(count, 1);
    assert_ptr_equal(hits[0].block, run[0]);
    assert_int_equal(kv_describe(&rig, run[0]).holder_count, 2);
    kv_unref(&rig, hits[0].block);
    give_back(run[1], added);
    kv_ok(kvb_block_unref(rig.kv, run, 2, NULL));
}

static void test_upgrade_at_the_limit_hands_out_nothing(void **state)
{
    (void)state;
    struct kvb_block *block = registered(T), *upgraded = block;
    struct kvb_weak weak = weak_of(block);
    uint32_t added = fill_count(block);
    kv_expect(upgrade(weak, &upgraded), KVB_EAGAIN);
    assert_null(upgraded);
    give_back(block, added);
    kv_unref(&rig, block);
}

/* ---- Weak handles ------------------------------------------------------------------------------------------------- */

static void test_upgrade_while_held_adds_a_holder(void **state)
{
    (void)state;
    struct kvb_block *block = registered(T), *upgraded = NULL;
    kv_ok(upgrade(weak_of(block), &upgraded));
    assert_ptr_equal(upgraded, block);
    assert_int_equal(kv_describe(&rig, block).holder_count, 2);
    kv_unref(&rig, block);
    kv_unref(&rig, upgraded);
}

static void test_weak_handle_pins_nothing(void **state)
{
    (void)state;
    struct kvb_block *block = registered(T);
    (void)weak_of(block);
    assert_int_equal(kv_describe(&rig, block).holder_count, 1);
    kv_unref(&rig, block);
    evict_all();
    assert_int_equal(kv_run_length(&rig, 0, T, KV_TOKENS), 0);
}

static void test_upgrade_while_parked_holds_the_content(void **state)
{
    (void)state;
    struct kvb_block *block = registered(T), *upgraded = NULL;
    struct kvb_weak weak = weak_of(block);
    kv_unref(&rig, block);
    kv_ok(upgrade(weak, &upgraded));
    assert_ptr_equal(upgraded, block);
    assert_int_equal(kv_stats(&rig).tiers[0].parked_count, 0);
    evict_all();
    assert_int_equal(kv_run_length(&rig, 0, T, KV_TOKENS), 1);
    kv_unref(&rig, upgraded);
}

static void test_upgrade_of_unregistered_block_while_held_works(void **state)
{
    (void)state;
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE), *upgraded = NULL;
    kv_init(&rig, block, 0, 0, NULL);
    kv_ok(upgrade(weak_of(block), &upgraded));
    assert_ptr_equal(upgraded, block);
    kv_unref(&rig, block);
    kv_unref(&rig, upgraded);
}

static void test_upgrade_survives_later_steps_of_the_same_content(void **state)
{
    (void)state;
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE), *upgraded = NULL;
    kv_init(&rig, block, 0, 0, NULL);
    struct kvb_weak weak = weak_of(block);
    kv_append(&rig, block, T, KV_TOKENS, 0);
    kv_schedule(&rig, block);
    kv_done(&rig, block, KV_TOKENS);
    kv_register(&rig, block);
    kv_unref(&rig, block);
    kv_ok(upgrade(weak, &upgraded));
    kv_unref(&rig, upgraded);
}

static void test_upgrade_after_eviction_is_stale(void **state)
{
    (void)state;
    struct kvb_block *block = registered(T), *upgraded = block;
    struct kvb_weak weak = weak_of(block);
    kv_unref(&rig, block);
    evict_all();
    kv_expect(upgrade(weak, &upgraded), KVB_ESTALE);
    assert_null(upgraded);
}

static void test_upgrade_after_last_unref_of_unregistered_block_is_stale(void **state)
{
    (void)state;
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE), *upgraded = block;
    struct kvb_weak weak = weak_of(block);
    kv_unref(&rig, block);
    kv_expect(upgrade(weak, &upgraded), KVB_ESTALE);
    assert_null(upgraded);
}

static void test_upgrade_after_reset_is_stale_for_the_holder_too(void **state)
{
    (void)state;
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE), *upgraded = block;
    kv_init(&rig, block, 0, 0, NULL);
    struct kvb_weak weak = weak_of(block);
    kv_ok(kvb_block_reset(rig.kv, &block, 1, NULL));
    kv_expect(upgrade(weak, &upgraded), KVB_ESTALE);
    kv_unref(&rig, block);
}

static void test_upgrade_when_the_same_content_is_computed_again_stays_stale(void **state)
{
    (void)state;
    struct kvb_block *block = registered(T), *upgraded = NULL;
    struct kvb_weak weak = weak_of(block);
    kv_unref(&rig, block);
    evict_all();
    block = registered(T);
    kv_expect(upgrade(weak, &upgraded), KVB_ESTALE);
    kv_unref(&rig, block);
}

static void test_upgrade_after_many_reuses_of_the_slot_is_stale(void **state)
{
    (void)state;
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE), *upgraded = NULL;
    struct kvb_weak weak = weak_of(block);
    uint32_t slot = kvb_block_slot(rig.kv, block);
    int reuses = 0, wrong = 0;
    kv_unref(&rig, block);
    for (int i = 0; i < 20000; i++) {
        block = kv_alloc(&rig, KVB_TIER_DEVICE);
        reuses += kvb_block_slot(rig.kv, block) == slot;
        wrong += kvb_weak_upgrade(rig.kv, &weak, 1, &upgraded, NULL) != KVB_ESTALE;
        kv_unref(&rig, block);
    }
    assert_true(reuses > 2000);
    assert_int_equal(wrong, 0);
}

static void test_upgrade_of_all_zero_is_stale(void **state)
{
    (void)state;
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE), *upgraded = block;
    struct kvb_weak weak = {0};
    kv_expect(upgrade(weak, &upgraded), KVB_ESTALE);
    assert_null(upgraded);
    kv_unref(&rig, block);
}

static void test_upgrade_of_unknown_tier_is_invalid(void **state)
{
    (void)state;
    struct kvb_block *block = registered(T), *upgraded = block;
    struct kvb_weak weak = weak_of(block);
    weak.tier = KVB_TIER_HOST;
    kv_expect(upgrade(weak, &upgraded), KVB_EINVAL);
    assert_null(upgraded);
    weak.tier = UINT32_MAX;
    kv_expect(upgrade(weak, &upgraded), KVB_EINVAL);
    kv_unref(&rig, block);
}

static void test_upgrade_of_unknown_slot_is_invalid(void **state)
{
    (void)state;
    struct kvb_block *block = registered(T), *upgraded = block;
    struct kvb_weak weak = weak_of(block);
    weak.slot = KV_BLOCKS;
    kv_expect(upgrade(weak, &upgraded), KVB_EINVAL);
    assert_null(upgraded);
    kv_unref(&rig, block);
}

static void test_upgrade_of_an_array_judges_each(void **state)
{
    (void)state;
    struct kvb_block *block = registered(T), *upgraded[3] = {block, block, block};
    struct kvb_weak good = weak_of(block), stale = good;
    stale.generation += 1;
    struct kvb_weak weaks[] = {good, stale, good};
    int results[3] = {1, 1, 1};
    kv_expect(kvb_weak_upgrade(rig.kv, weaks, 3, upgraded, results), KVB_ESTALE);
    assert_int_equal(results[0], 0);
    assert_int_equal(results[1], KVB_ESTALE);
    assert_int_equal(results[2], 0);
    assert_null(upgraded[1]);
    assert_int_equal(kv_describe(&rig, block).holder_count, 3);
    kv_unref(&rig, upgraded[0]);
    kv_unref(&rig, upgraded[2]);
    kv_unref(&rig, block);
}

/* ---- The end of the generations ----------------------------------------------------------------------------------- */

static bool slot_is_given_out(uint32_t slot)
{
    struct kvb_block *blocks[KV_BLOCKS];
    bool seen = false;
    kv_ok(kvb_alloc(rig.kv, KVB_TIER_DEVICE, KV_BLOCKS - 1, NULL, blocks, NULL));
    for (uint32_t i = 0; i < KV_BLOCKS - 1; i++) {
        seen |= kvb_block_slot(rig.kv, blocks[i]) == slot;
    }
    struct kvb_block *one_more = NULL;
    kv_expect(kvb_alloc(rig.kv, KVB_TIER_DEVICE, 1, NULL, &one_more, NULL), KVB_ENOSPC);
    kv_ok(kvb_block_unref(rig.kv, blocks, KV_BLOCKS - 1, NULL));
    return seen;
}

static void test_slot_out_of_generations_is_retired_when_freed(void **state)
{
    (void)state;
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    uint32_t slot = kvb_block_slot(rig.kv, block);
    kvbi_testing_set_generation(rig.kv, block, KVBI_GENERATION_MAX);
    kv_unref(&rig, block);
    assert_false(slot_is_given_out(slot));
}

static void test_slot_out_of_generations_is_retired_when_evicted(void **state)
{
    (void)state;
    struct kvb_block *block = registered(T), *upgraded = NULL;
    uint32_t slot = kvb_block_slot(rig.kv, block);
    kvbi_testing_set_generation(rig.kv, block, KVBI_GENERATION_MAX);
    struct kvb_weak weak = weak_of(block);
    kv_unref(&rig, block);
    kv_ok(kvb_invalidate_namespace(rig.kv, 0, NULL));
    assert_false(slot_is_given_out(slot));
    kv_expect(upgrade(weak, &upgraded), KVB_ESTALE);
}

static void test_slot_before_its_last_generation_is_given_out_again(void **state)
{
    (void)state;
    struct kvb_block *blocks[KV_BLOCKS];
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    kvbi_testing_set_generation(rig.kv, block, KVBI_GENERATION_MAX - 1);
    kv_unref(&rig, block);
    kv_ok(kvb_alloc(rig.kv, KVB_TIER_DEVICE, KV_BLOCKS, NULL, blocks, NULL));
    kv_ok(kvb_block_unref(rig.kv, blocks, KV_BLOCKS, NULL));
}

static void test_old_weak_handle_with_generation_near_the_end_is_stale(void **state)
{
    (void)state;
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE), *upgraded = NULL;
    struct kvb_weak first = weak_of(block);
    kvbi_testing_set_generation(rig.kv, block, KVBI_GENERATION_MAX);
    kv_expect(upgrade(first, &upgraded), KVB_ESTALE);
    kv_unref(&rig, block);
    kv_expect(upgrade(first, &upgraded), KVB_ESTALE);
}

/* ---- Pointers that are no handles --------------------------------------------------------------------------------- */

/* Every call that takes a block says KVB_EINVAL to this one, in a manager with the tiers DEVICE and HOST. */
static void refused_by_all(struct kvb_block *bad)
{
    struct kvb_manager *kv = rig.kv;
    struct kvb_block *good = kv_alloc(&rig, KVB_TIER_DEVICE);
    struct kvb_block *source = kv_alloc(&rig, KVB_TIER_HOST);
    struct kvb_block *in_place = bad;
    struct kvb_block_init init = {.size = sizeof init};
    struct kvb_append append = {.size = sizeof append, .tokens = T, .count = 1};
    struct kvb_block_info info = {.size = sizeof info};
    struct kvb_weak weak;
    struct kvb_seq key;
    struct kvb_op *op = NULL;
    void *address = NULL;
    uint32_t one = 1;

    kv_complete(&rig, source, 0, 0, NULL, T + 4);
    kv_register(&rig, source);
    kv_expect(kvb_block_ref(kv, &bad, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_block_unref(kv, &bad, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_block_weak(kv, bad, &weak), KVB_EINVAL);
    kv_expect(kvb_block_init(kv, &bad, &init, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_block_append(kv, &bad, &append, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_block_schedule(kv, &bad, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_block_cancel(kv, &bad, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_block_compute_done(kv, &bad, &one, 1, NULL, NULL), KVB_EINVAL);
    kv_expect(kvb_block_compute_failed(kv, &bad, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_block_truncate(kv, &bad, &one, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_block_reset(kv, &bad, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_block_clone(kv, bad, good), KVB_EINVAL);
    kv_expect(kvb_block_clone(kv, source, bad), KVB_EINVAL);
    kv_expect(kvb_block_register(kv, &in_place, 1, NULL, NULL, NULL), KVB_EINVAL);
    kv_expect(kvb_block_set_priority(kv, &bad, 1, 1, 0, NULL), KVB_EINVAL);
    kv_expect(kvb_block_describe(kv, bad, &info), KVB_EINVAL);
    kv_expect(kvb_block_key(kv, bad, &key), KVB_EINVAL);
    kv_expect(kvb_block_address(kv, bad, 0, 0, &address), KVB_EINVAL);
    kv_expect(kvb_pin(kv, 1, &bad, 1, 0, NULL), KVB_EINVAL);
    int unpin =
        kvb_unpin(kv, 1, &bad, 1,
                  NULL); /* of a block that is free or parked it may know that there is no pin */
    kv_expect(unpin, kvb_block_slot(kv, bad) == UINT32_MAX || unpin != KVB_ENOENT ? KVB_EINVAL
                                                                                  : KVB_ENOENT);
    kv_expect(kvb_block_offload(kv, &bad, 1, 1, NULL, NULL), KVB_EINVAL);
    kv_expect(kvb_block_offload_cancel(kv, &bad, 1, NULL), KVB_EINVAL);

    struct kvb_onboard onboard = {
        .size = sizeof onboard, .sources = &bad, .targets = &good, .count = 1};
    kv_expect(kvb_onboard(kv, &onboard, &op), KVB_EINVAL);
    onboard.sources = &source;
    onboard.targets = &bad;
    kv_expect(kvb_onboard(kv, &onboard, &op), KVB_EINVAL);

    assert_int_equal(kv_describe(&rig, good).state, KVB_STATE_EMPTY);
    assert_int_equal(kv_describe(&rig, good).holder_count, 1);
    kv_unref(&rig, good);
    kv_unref(&rig, source);
}

static void test_null_element_is_refused_by_every_call(void **state)
{
    (void)state;
    refused_by_all(NULL);
    assert_int_equal(kvb_block_slot(rig.kv, NULL), UINT32_MAX);
}

static void test_pointer_to_elsewhere_is_refused_by_every_call(void **state)
{
    (void)state;
    static _Alignas(64) unsigned char elsewhere[256];
    struct kvb_block *bad = (struct kvb_block *)(void *)(elsewhere + 64);
    refused_by_all(bad);
    assert_int_equal(kvb_block_slot(rig.kv, bad), UINT32_MAX);
}

static void test_pointer_to_nothing_is_refused_by_every_call(void **state)
{
    (void)state;
    struct kvb_block *low = (struct kvb_block *)(uintptr_t)64;
    struct kvb_block *high = (struct kvb_block *)(UINTPTR_MAX - 63);
    refused_by_all(low);
    refused_by_all(high);
    assert_int_equal(kvb_block_slot(rig.kv, low), UINT32_MAX);
    assert_int_equal(kvb_block_slot(rig.kv, high), UINT32_MAX);
}

static void test_misaligned_pointer_into_the_pool_is_refused_by_every_call(void **state)
{
    (void)state;
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    struct kvb_block *bad = (struct kvb_block *)((uintptr_t)block + 8);
    refused_by_all(bad);
    assert_int_equal(kvb_block_slot(rig.kv, bad), UINT32_MAX);
    kv_unref(&rig, block);
}

static void test_block_of_another_manager_is_refused_by_every_call(void **state)
{
    (void)state;
    static struct kv_rig other;
    kv_rig_init(&other);
    kv_rig_open(&other);
    struct kvb_block *bad = kv_alloc(&other, KVB_TIER_DEVICE);
    refused_by_all(bad);
    assert_int_equal(kvb_block_slot(rig.kv, bad), UINT32_MAX);
    kv_unref(&other, bad);
    kv_rig_close(&other);
}

static void test_free_block_is_refused_by_every_call(void **state)
{
    (void)state;
    struct kvb_block *blocks[KV_BLOCKS];
    kv_ok(kvb_alloc(rig.kv, KVB_TIER_HOST, KV_BLOCKS, NULL, blocks, NULL));
    kv_ok(kvb_block_unref(rig.kv, blocks, KV_BLOCKS, NULL));
    /* One of them is taken inside refused_by_all; which one is the pool's business, but it will be the same again. */
    struct kvb_block *next = kv_alloc(&rig, KVB_TIER_HOST);
    kv_unref(&rig, next);
    refused_by_all(blocks[0] != next ? blocks[0] : blocks[1]);
}

static void test_parked_block_is_refused_by_every_call(void **state)
{
    (void)state;
    struct kvb_block *bad = registered(T);
    kv_unref(&rig, bad);
    refused_by_all(bad);
    assert_int_equal(kv_run_length(&rig, 0, T, KV_TOKENS), 1);
}

/* ---- Threads ------------------------------------------------------------------------------------------------------ */

/*
 * Few blocks, many hands: each thread computes contents (which evicts), upgrades weak handles that others left, matches,
 * and lets go. The count of a block crosses 1 -> 0 -> 1 all the time while allocations evict it. A weak handle that
 * upgrades must show the content it was made of.
 */
enum { THREADS = 4, CONTENTS = 6, ROUNDS = 4000 };

struct shared {
    pthread_mutex_t mutex;
    struct kvb_weak weaks[CONTENTS];
    struct kvb_seq names[CONTENTS];
    uint32_t tokens[CONTENTS][KV_TOKENS];
    _Atomic int errors, upgraded, stale, computed, matched;
};

struct worker {
    pthread_t thread;
    struct shared *shared;
    uint64_t seed;
    uint32_t contents; /* how many of them it uses */
};

static void note(struct shared *shared, bool right)
{
    if (!right) {
        atomic_fetch_add(&shared->errors, 1);
    }
}

/* The holder of `block` looks at it: it is content `c`, for as long as it is held. */
static void look(struct shared *shared, struct kvb_block *block, uint32_t c)
{
    struct kvb_seq name = {0};
    struct kvb_block_info info = {.size = sizeof info};
    note(shared,
         kvb_block_describe(rig.kv, block, &info) == 0 && info.state == KVB_STATE_REGISTERED);
    note(shared, kvb_block_key(rig.kv, block, &name) == 0);
    note(shared, memcmp(&name, &shared->names[c], sizeof name) == 0);
    note(shared, kvb_block_ref(rig.kv, &block, 1, NULL) == 0);
    note(shared, kvb_block_unref(rig.kv, &block, 1, NULL) == 0);
}

static void compute(struct shared *shared, uint32_t c)
{
    struct kvb_block *block = NULL;
    struct kvb_block_init init = {.size = sizeof init};
    struct kvb_append append = {
        .size = sizeof append, .tokens = shared->tokens[c], .count = KV_TOKENS};
    struct kvb_weak weak;
    if (kvb_alloc(rig.kv, KVB_TIER_DEVICE, 1, NULL, &block, NULL) != 0) {
        return; /* the others hold them all */
    }
    note(shared, kvb_block_init(rig.kv, &block, &init, 1, NULL) == 0);
    note(shared, kvb_block_append(rig.kv, &block, &append, 1, NULL) == 0);
    note(shared, kvb_block_schedule(rig.kv, &block, 1, NULL) == 0);
    note(shared,
         kvb_block_compute_done(rig.kv, &block, &(uint32_t){KV_TOKENS}, 1, NULL, NULL) == 0);
    note(shared, kvb_block_register(rig.kv, &block, 1, NULL, NULL, NULL) == 0);
    note(shared, kvb_block_weak(rig.kv, block, &weak) == 0);
    look(shared, block, c);
    pthread_mutex_lock(&shared->mutex);
    shared->weaks[c] = weak;
    pthread_mutex_unlock(&shared->mutex);
    note(shared, kvb_block_unref(rig.kv, &block, 1, NULL) == 0);
    atomic_fetch_add(&shared->computed, 1);
}

static void try_upgrade(struct shared *shared, uint32_t c)
{
    struct kvb_block *block = NULL;
    pthread_mutex_lock(&shared->mutex);
    struct kvb_weak weak = shared->weaks[c];
    pthread_mutex_unlock(&shared->mutex);
    int code = kvb_weak_upgrade(rig.kv, &weak, 1, &block, NULL);
    if (code != 0) {
        note(shared, code == KVB_ESTALE && block == NULL);
        atomic_fetch_add(&shared->stale, 1);
        return;
    }
    look(shared, block, c);
    note(shared, kvb_block_unref(rig.kv, &block, 1, NULL) == 0);
    atomic_fetch_add(&shared->upgraded, 1);
}

static void try_match(struct shared *shared, uint32_t c)
{
    struct kvb_query query = kv_query(0, shared->tokens[c], KV_TOKENS);
    struct kvb_hit hit;
    size_t count = 0;
    note(shared, kvb_match(rig.kv, &query, &hit, 1, &count) == 0);
    if (count == 1) {
        look(shared, hit.block, c);
        note(shared, kvb_block_unref(rig.kv, &hit.block, 1, NULL) == 0);
        atomic_fetch_add(&shared->matched, 1);
    }
}

static void *work(void *arg)
{
    struct worker *worker = arg;
    for (int i = 0; i < ROUNDS; i++) {
        uint32_t c = kv_random(&worker->seed, worker->contents);
        switch (kv_random(&worker->seed, 4)) {
        case 0:
            compute(worker->shared, c);
            break;
        case 1:
            try_match(worker->shared, c);
            break;
        default:
            try_upgrade(worker->shared, c);
        }
    }
    return NULL;
}

static void run_threads(uint32_t block_count, uint32_t contents)
{
    static struct shared shared;
    static struct worker workers[THREADS];
    memset(&shared, 0, sizeof shared);
    pthread_mutex_init(&shared.mutex, NULL);
    kv_rig_init(&rig);
    rig.tiers[0].block_count = block_count;
    kv_rig_open(&rig);
    for (uint32_t c = 0; c < CONTENTS; c++) {
        size_t count = 0;
        kv_tokens(shared.tokens[c], KV_TOKENS, 100 + c);
        kv_ok(kvb_hash_tokens(rig.kv, 0, NULL, shared.tokens[c], KV_TOKENS, &shared.names[c], 1,
                              &count));
    }
    for (uint64_t i = 0; i < THREADS; i++) {
        workers[i].shared = &shared;
        workers[i].seed = kv_mix(i);
        workers[i].contents = contents;
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
    }
    assert_int_equal(shared.errors, 0);
    assert_true(shared.computed > 0 && shared.upgraded + shared.stale > 0);
    assert_int_equal(kv_stats(&rig).tiers[0].held_count, 0);
    kv_rig_close(&rig);
}

static void test_upgrade_against_eviction_by_threads_shows_the_right_content(void **state)
{
    (void)state;
    run_threads(4, CONTENTS);
}

/* One block, all threads on its edge: what is parked, upgraded and evicted is always the same slot. */
static void test_upgrade_of_the_only_block_by_threads_shows_the_right_content(void **state)
{
    (void)state;
    run_threads(1, CONTENTS);
}

/* One content: every block that is computed takes the place of the one before, while others upgrade that. */
static void test_upgrade_against_duplicates_by_threads_shows_the_right_content(void **state)
{
    (void)state;
    run_threads(4, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define FOREIGN(name) cmocka_unit_test_setup_teardown(name, setup_two_tiers, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_alloc_hands_out_one_handle),
        TEST(test_ref_and_unref_move_the_count),
        TEST(test_last_unref_parks_a_registered_block),
        TEST(test_last_unref_frees_an_unregistered_block),
        TEST(test_unref_without_holder_is_invalid),
        TEST(test_unref_of_parked_block_is_invalid),
        TEST(test_unref_twice_in_one_array_is_invalid_once),
        TEST(test_ref_without_holder_is_invalid),
        TEST(test_ref_beyond_the_limit_says_again),
        TEST(test_match_at_the_limit_ends_the_run_and_says_again),
        TEST(test_upgrade_at_the_limit_hands_out_nothing),
        TEST(test_upgrade_while_held_adds_a_holder),
        TEST(test_weak_handle_pins_nothing),
        TEST(test_upgrade_while_parked_holds_the_content),
        TEST(test_upgrade_of_unregistered_block_while_held_works),
        TEST(test_upgrade_survives_later_steps_of_the_same_content),
        TEST(test_upgrade_after_eviction_is_stale),
        TEST(test_upgrade_after_last_unref_of_unregistered_block_is_stale),
        TEST(test_upgrade_after_reset_is_stale_for_the_holder_too),
        TEST(test_upgrade_when_the_same_content_is_computed_again_stays_stale),
        TEST(test_upgrade_after_many_reuses_of_the_slot_is_stale),
        TEST(test_upgrade_of_all_zero_is_stale),
        TEST(test_upgrade_of_unknown_tier_is_invalid),
        TEST(test_upgrade_of_unknown_slot_is_invalid),
        TEST(test_upgrade_of_an_array_judges_each),
        TEST(test_slot_out_of_generations_is_retired_when_freed),
        TEST(test_slot_out_of_generations_is_retired_when_evicted),
        TEST(test_slot_before_its_last_generation_is_given_out_again),
        TEST(test_old_weak_handle_with_generation_near_the_end_is_stale),
        FOREIGN(test_null_element_is_refused_by_every_call),
        FOREIGN(test_pointer_to_elsewhere_is_refused_by_every_call),
        FOREIGN(test_pointer_to_nothing_is_refused_by_every_call),
        FOREIGN(test_misaligned_pointer_into_the_pool_is_refused_by_every_call),
        FOREIGN(test_block_of_another_manager_is_refused_by_every_call),
        FOREIGN(test_free_block_is_refused_by_every_call),
        FOREIGN(test_parked_block_is_refused_by_every_call),
        cmocka_unit_test(test_upgrade_against_eviction_by_threads_shows_the_right_content),
        cmocka_unit_test(test_upgrade_of_the_only_block_by_threads_shows_the_right_content),
        cmocka_unit_test(test_upgrade_against_duplicates_by_threads_shows_the_right_content),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
