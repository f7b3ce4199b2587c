/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Weak handles: upgrades against eviction and slot reuse, and the end of the generations.
 */
#include "support/life.h"

#include "block/slot.h"

/* ---- Weak handles ---------------------------------------------------------------------------- */

static void test_upgrade_while_held_adds_a_holder(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_registered(rig, life_tokens), *upgraded = NULL;
    kv_ok(life_upgrade(rig, life_weak(rig, block), &upgraded));
    assert_ptr_equal(upgraded, block);
    assert_int_equal(kv_describe(rig, block).holder_count, 2);
    kv_unref(rig, block);
    kv_unref(rig, upgraded);
}

static void test_weak_handle_pins_nothing(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_registered(rig, life_tokens);
    (void)life_weak(rig, block);
    assert_int_equal(kv_describe(rig, block).holder_count, 1);
    kv_unref(rig, block);
    life_evict_all(rig);
    assert_int_equal(kv_run_length(rig, 0, life_tokens, KV_TOKENS), 0);
}

static void test_upgrade_while_parked_holds_the_content(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_registered(rig, life_tokens), *upgraded = NULL;
    struct kvb_weak weak = life_weak(rig, block);
    kv_unref(rig, block);
    kv_ok(life_upgrade(rig, weak, &upgraded));
    assert_ptr_equal(upgraded, block);
    assert_int_equal(kv_stats(rig).tiers[0].parked_count, 0);
    life_evict_all(rig);
    assert_int_equal(kv_run_length(rig, 0, life_tokens, KV_TOKENS), 1);
    kv_unref(rig, upgraded);
}

static void test_upgrade_of_unregistered_block_while_held_works(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE), *upgraded = NULL;
    kv_init(rig, block, 0, 0, NULL);
    kv_ok(life_upgrade(rig, life_weak(rig, block), &upgraded));
    assert_ptr_equal(upgraded, block);
    kv_unref(rig, block);
    kv_unref(rig, upgraded);
}

static void test_upgrade_survives_later_steps_of_the_same_content(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE), *upgraded = NULL;
    kv_init(rig, block, 0, 0, NULL);
    struct kvb_weak weak = life_weak(rig, block);
    kv_append(rig, block, life_tokens, KV_TOKENS, 0);
    kv_schedule(rig, block);
    kv_done(rig, block, KV_TOKENS);
    kv_register(rig, block);
    kv_unref(rig, block);
    kv_ok(life_upgrade(rig, weak, &upgraded));
    kv_unref(rig, upgraded);
}

static void test_upgrade_after_eviction_is_stale(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_registered(rig, life_tokens), *upgraded = block;
    struct kvb_weak weak = life_weak(rig, block);
    kv_unref(rig, block);
    life_evict_all(rig);
    kv_expect(life_upgrade(rig, weak, &upgraded), KVB_ESTALE);
    assert_null(upgraded);
}

static void test_upgrade_after_last_unref_of_unregistered_block_is_stale(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE), *upgraded = block;
    struct kvb_weak weak = life_weak(rig, block);
    kv_unref(rig, block);
    kv_expect(life_upgrade(rig, weak, &upgraded), KVB_ESTALE);
    assert_null(upgraded);
}

static void test_upgrade_after_reset_is_stale_for_the_holder_too(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE), *upgraded = block;
    kv_init(rig, block, 0, 0, NULL);
    struct kvb_weak weak = life_weak(rig, block);
    kv_ok(kvb_block_reset(rig->kv, &block, 1, NULL));
    kv_expect(life_upgrade(rig, weak, &upgraded), KVB_ESTALE);
    kv_unref(rig, block);
}

static void test_upgrade_when_the_same_content_is_computed_again_stays_stale(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_registered(rig, life_tokens), *upgraded = NULL;
    struct kvb_weak weak = life_weak(rig, block);
    kv_unref(rig, block);
    life_evict_all(rig);
    block = life_registered(rig, life_tokens);
    kv_expect(life_upgrade(rig, weak, &upgraded), KVB_ESTALE);
    kv_unref(rig, block);
}

static void test_upgrade_after_many_reuses_of_the_slot_is_stale(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE), *upgraded = NULL;
    struct kvb_weak weak = life_weak(rig, block);
    uint32_t slot = kvb_block_slot(rig->kv, block);
    int reuses = 0, wrong = 0;
    kv_unref(rig, block);
    for (int i = 0; i < 20000; i++) {
        block = kv_alloc(rig, KVB_TIER_DEVICE);
        reuses += kvb_block_slot(rig->kv, block) == slot;
        wrong += kvb_weak_upgrade(rig->kv, &weak, 1, &upgraded, NULL) != KVB_ESTALE;
        kv_unref(rig, block);
    }
    assert_true(reuses > 2000);
    assert_int_equal(wrong, 0);
}

static void test_upgrade_of_all_zero_is_stale(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE), *upgraded = block;
    struct kvb_weak weak = {0};
    kv_expect(life_upgrade(rig, weak, &upgraded), KVB_ESTALE);
    assert_null(upgraded);
    kv_unref(rig, block);
}

static void test_upgrade_of_unknown_tier_is_invalid(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_registered(rig, life_tokens), *upgraded = block;
    struct kvb_weak weak = life_weak(rig, block);
    weak.tier = KVB_TIER_HOST;
    kv_expect(life_upgrade(rig, weak, &upgraded), KVB_EINVAL);
    assert_null(upgraded);
    weak.tier = UINT32_MAX;
    kv_expect(life_upgrade(rig, weak, &upgraded), KVB_EINVAL);
    kv_unref(rig, block);
}

static void test_upgrade_of_unknown_slot_is_invalid(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_registered(rig, life_tokens), *upgraded = block;
    struct kvb_weak weak = life_weak(rig, block);
    weak.slot = KV_BLOCKS;
    kv_expect(life_upgrade(rig, weak, &upgraded), KVB_EINVAL);
    assert_null(upgraded);
    kv_unref(rig, block);
}

static void test_upgrade_of_an_array_judges_each(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_registered(rig, life_tokens),
                     *upgraded[3] = {block, block, block};
    struct kvb_weak good = life_weak(rig, block), stale = good;
    stale.generation += 1;
    struct kvb_weak weaks[] = {good, stale, good};
    int results[3] = {1, 1, 1};
    kv_expect(kvb_weak_upgrade(rig->kv, weaks, 3, upgraded, results), KVB_ESTALE);
    assert_int_equal(results[0], 0);
    assert_int_equal(results[1], KVB_ESTALE);
    assert_int_equal(results[2], 0);
    assert_null(upgraded[1]);
    assert_int_equal(kv_describe(rig, block).holder_count, 3);
    kv_unref(rig, upgraded[0]);
    kv_unref(rig, upgraded[2]);
    kv_unref(rig, block);
}

/* ---- The end of the generations -------------------------------------------------------------- */

static bool slot_is_given_out(struct kv_rig *rig, uint32_t slot)
{
    struct kvb_block *blocks[KV_BLOCKS];
    bool seen = false;
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, KV_BLOCKS - 1, NULL, blocks, NULL));
    for (uint32_t i = 0; i < KV_BLOCKS - 1; i++)
        seen |= kvb_block_slot(rig->kv, blocks[i]) == slot;
    struct kvb_block *one_more = NULL;
    kv_expect(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, NULL, &one_more, NULL), KVB_ENOSPC);
    kv_ok(kvb_block_unref(rig->kv, blocks, KV_BLOCKS - 1, NULL));
    return seen;
}

static void test_slot_out_of_generations_is_retired_when_freed(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    uint32_t slot = kvb_block_slot(rig->kv, block);
    kvbi_testing_set_generation(rig->kv, block, KVBI_GENERATION_MAX);
    kv_unref(rig, block);
    assert_false(slot_is_given_out(rig, slot));
}

static void test_slot_out_of_generations_is_retired_when_evicted(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_registered(rig, life_tokens), *upgraded = NULL;
    uint32_t slot = kvb_block_slot(rig->kv, block);
    kvbi_testing_set_generation(rig->kv, block, KVBI_GENERATION_MAX);
    struct kvb_weak weak = life_weak(rig, block);
    kv_unref(rig, block);
    kv_ok(kvb_invalidate_namespace(rig->kv, 0, NULL));
    assert_false(slot_is_given_out(rig, slot));
    kv_expect(life_upgrade(rig, weak, &upgraded), KVB_ESTALE);
}

static void test_slot_before_its_last_generation_is_given_out_again(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *blocks[KV_BLOCKS];
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    kvbi_testing_set_generation(rig->kv, block, KVBI_GENERATION_MAX - 1);
    kv_unref(rig, block);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, KV_BLOCKS, NULL, blocks, NULL));
    kv_ok(kvb_block_unref(rig->kv, blocks, KV_BLOCKS, NULL));
}

static void test_old_weak_handle_with_generation_near_the_end_is_stale(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE), *upgraded = NULL;
    struct kvb_weak first = life_weak(rig, block);
    kvbi_testing_set_generation(rig->kv, block, KVBI_GENERATION_MAX);
    kv_expect(life_upgrade(rig, first, &upgraded), KVB_ESTALE);
    kv_unref(rig, block);
    kv_expect(life_upgrade(rig, first, &upgraded), KVB_ESTALE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kv_opened, test_upgrade_while_held_adds_a_holder),
        TEST(kv_opened, test_weak_handle_pins_nothing),
        TEST(kv_opened, test_upgrade_while_parked_holds_the_content),
        TEST(kv_opened, test_upgrade_of_unregistered_block_while_held_works),
        TEST(kv_opened, test_upgrade_survives_later_steps_of_the_same_content),
        TEST(kv_opened, test_upgrade_after_eviction_is_stale),
        TEST(kv_opened, test_upgrade_after_last_unref_of_unregistered_block_is_stale),
        TEST(kv_opened, test_upgrade_after_reset_is_stale_for_the_holder_too),
        TEST(kv_opened, test_upgrade_when_the_same_content_is_computed_again_stays_stale),
        TEST(kv_opened, test_upgrade_after_many_reuses_of_the_slot_is_stale),
        TEST(kv_opened, test_upgrade_of_all_zero_is_stale),
        TEST(kv_opened, test_upgrade_of_unknown_tier_is_invalid),
        TEST(kv_opened, test_upgrade_of_unknown_slot_is_invalid),
        TEST(kv_opened, test_upgrade_of_an_array_judges_each),
        TEST(kv_opened, test_slot_out_of_generations_is_retired_when_freed),
        TEST(kv_opened, test_slot_out_of_generations_is_retired_when_evicted),
        TEST(kv_opened, test_slot_before_its_last_generation_is_given_out_again),
        TEST(kv_opened, test_old_weak_handle_with_generation_near_the_end_is_stale),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
