/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The same content computed twice in one store.
 */
#include "support/store_scene.h"

/* The same content once more; `flags` of register. The caller holds what comes back. */
static struct kvb_block *store_again(struct kv_rig *rig, uint64_t seed, uint32_t flags)
{
    uint32_t tokens[KV_TOKENS];
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    struct kvb_register options = {.size = sizeof options, .flags = flags};
    kv_tokens(tokens, KV_TOKENS, seed);
    kv_complete(rig, block, 0, 0, NULL, tokens);
    kv_ok(kvb_block_register(rig->kv, &block, 1, &options, NULL, NULL));
    return block;
}

static void test_duplicate_keep_of_held_block_leaves_both_alive(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *first = life_store(rig, 1), *second = store_again(rig, 1, 0);
    assert_ptr_not_equal(first, second);
    assert_int_equal(kv_describe(rig, first).indexed, 1);
    assert_int_equal(kv_describe(rig, second).indexed, 0);
    assert_int_equal(kv_describe(rig, second).state, KVB_STATE_REGISTERED);
    assert_int_equal(device_stats(rig).duplicates, 1);
    kv_unref(rig, second);
    kv_unref(rig, first);
}

static void test_duplicate_keep_of_parked_block_takes_its_place(void **state)
{
    struct kv_rig *rig = *state;
    kv_unref(rig, life_store(rig, 1));
    struct kvb_block *second = store_again(rig, 1, 0);
    assert_int_equal(kv_describe(rig, second).indexed, 1);
    assert_int_equal(device_stats(rig).parked_count, 0);
    assert_int_equal(device_stats(rig).held_count, 1);
    kv_unref(rig, second);
    assert_int_equal(device_stats(rig).parked_count, 1);
    assert_true(store_has(rig, 1));
}

static void test_duplicate_taking_over_emits_nothing(void **state)
{
    struct kv_rig *rig = *state;
    kv_unref(rig, life_store(rig, 1));
    kv_unref(rig, store_again(rig, 1, 0));
    kv_poll(rig);
    assert_int_equal(rig->events.count, 1);
    assert_int_equal(rig->events.list[0].kind, KVB_EVENT_STORED);
}

static void test_duplicate_unindexed_is_reset_at_its_last_unref(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *first = life_store(rig, 1), *second = store_again(rig, 1, 0);
    uint64_t free_before = device_stats(rig).free_count;
    kv_unref(rig, second);
    assert_int_equal(device_stats(rig).free_count, free_before + 1);
    assert_int_equal(device_stats(rig).parked_count, 0);
    assert_true(store_has(rig, 1));
    kv_unref(rig, first);
}

static void test_duplicate_share_hands_out_the_registered_block(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *first = life_store(rig, 1), *second = store_again(rig, 1, KVB_REGISTER_SHARE);
    assert_ptr_equal(first, second);
    assert_int_equal(kv_describe(rig, first).holder_count, 2);
    assert_int_equal(device_stats(rig).free_count, KV_BLOCKS - 1);
    kv_unref(rig, first);
    kv_unref(rig, second);
}

static void test_duplicate_share_of_parked_block_holds_it(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *first = life_store(rig, 1);
    kv_unref(rig, first);
    assert_ptr_equal(store_again(rig, 1, KVB_REGISTER_SHARE), first);
    assert_int_equal(device_stats(rig).parked_count, 0);
    assert_int_equal(device_stats(rig).free_count, KV_BLOCKS - 1);
    kv_unref(rig, first);
}

static void test_duplicate_share_of_new_content_keeps_the_block(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = store_again(rig, 1, KVB_REGISTER_SHARE);
    assert_int_equal(kv_describe(rig, block).indexed, 1);
    assert_int_equal(device_stats(rig).duplicates, 0);
    kv_unref(rig, block);
}

static void test_duplicate_policy_of_the_manager_is_used_and_overridden(void **state)
{
    struct kv_rig *rig = *state;
    rig->config.duplicate = KVB_DUPLICATE_SHARE;
    kv_rig_open(rig);
    struct kvb_block *first = life_store(rig, 1);
    struct kvb_block *shared = store_again(rig, 1, 0),
                     *kept = store_again(rig, 1, KVB_REGISTER_KEEP);
    assert_ptr_equal(shared, first);
    assert_ptr_not_equal(kept, first);
    kv_unref(rig, kept);
    kv_unref(rig, shared);
    kv_unref(rig, first);
}

static void test_register_with_both_duplicate_flags_is_invalid(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    struct kvb_register options = {.size = sizeof options,
                                   .flags = KVB_REGISTER_KEEP | KVB_REGISTER_SHARE};
    kv_complete(rig, block, 0, 0, NULL, store_tokens);
    kv_expect(kvb_block_register(rig->kv, &block, 1, &options, NULL, NULL), KVB_EINVAL);
    options.flags = 4;
    kv_expect(kvb_block_register(rig->kv, &block, 1, &options, NULL, NULL), KVB_EINVAL);
    assert_int_equal(kv_describe(rig, block).state, KVB_STATE_COMPLETE);
    kv_unref(rig, block);
}

static void test_duplicate_within_one_array_is_found(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *blocks[2];
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 2, NULL, blocks, NULL));
    kv_complete(rig, blocks[0], 0, 0, NULL, store_tokens);
    kv_complete(rig, blocks[1], 0, 0, NULL, store_tokens);
    kv_ok(kvb_block_register(rig->kv, blocks, 2, NULL, NULL, NULL));
    assert_int_equal(kv_describe(rig, blocks[0]).indexed + kv_describe(rig, blocks[1]).indexed, 1);
    assert_int_equal(device_stats(rig).duplicates, 1);
    kv_ok(kvb_block_unref(rig->kv, blocks, 2, NULL));
    assert_int_equal(device_stats(rig).parked_count, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(store_scene, test_duplicate_keep_of_held_block_leaves_both_alive),
        TEST(store_scene, test_duplicate_keep_of_parked_block_takes_its_place),
        TEST(store_scene, test_duplicate_taking_over_emits_nothing),
        TEST(store_scene, test_duplicate_unindexed_is_reset_at_its_last_unref),
        TEST(store_scene, test_duplicate_share_hands_out_the_registered_block),
        TEST(store_scene, test_duplicate_share_of_parked_block_holds_it),
        TEST(store_scene, test_duplicate_share_of_new_content_keeps_the_block),
        TEST(kv_rig, test_duplicate_policy_of_the_manager_is_used_and_overridden),
        TEST(store_scene, test_register_with_both_duplicate_flags_is_invalid),
        TEST(store_scene, test_duplicate_within_one_array_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
