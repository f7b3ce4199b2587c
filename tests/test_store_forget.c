/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Forgetting in one store: invalidate, invalidate_namespace and clear.
 */
#include "support/store_scene.h"

static void test_invalidate_frees_a_parked_block(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_seq key = life_name(rig, 1);
    kv_unref(rig, life_store(rig, 1));
    kv_ok(kvb_invalidate(rig->kv, &key, 1, NULL));
    assert_false(store_has(rig, 1));
    assert_int_equal(device_stats(rig).free_count, KV_BLOCKS);
}

static void test_invalidate_leaves_a_held_block_to_its_holder(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_seq key = life_name(rig, 1);
    struct kvb_block *block = life_store(rig, 1);
    kv_ok(kvb_invalidate(rig->kv, &key, 1, NULL));
    assert_false(store_has(rig, 1));
    assert_int_equal(kv_describe(rig, block).state, KVB_STATE_REGISTERED);
    assert_int_equal(kv_describe(rig, block).indexed, 0);
    assert_true(kv_payload_is(rig, block, key.hash));
    kv_unref(rig, block);
    assert_int_equal(device_stats(rig).free_count, KV_BLOCKS);
}

static void test_invalidate_takes_the_key_from_a_held_block(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_seq key = life_name(rig, 1);
    struct kvb_block *block = life_store(rig, 1);
    kv_ok(kvb_invalidate(rig->kv, &key, 1, NULL));
    kv_expect(kvb_block_key(rig->kv, block, &key), KVB_ENOENT);
    kv_unref(rig, block);
}

static void test_invalidate_emits_removed(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_seq key = life_name(rig, 1);
    kv_unref(rig, life_store(rig, 1));
    kv_ok(kvb_invalidate(rig->kv, &key, 1, NULL));
    kv_poll(rig);
    assert_int_equal(rig->events.count, 2);
    assert_int_equal(rig->events.list[1].kind, KVB_EVENT_REMOVED);
    assert_memory_equal(rig->events.list[1].key, &key, sizeof key);
}

static void test_invalidate_of_unknown_keys_is_judged_by_element(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_seq keys[] = {life_name(rig, 1), life_name(rig, 2), life_name(rig, 3)};
    int results[3] = {1, 1, 1};
    kv_unref(rig, life_store(rig, 1));
    kv_unref(rig, life_store(rig, 3));
    kv_expect(kvb_invalidate(rig->kv, keys, 3, results), KVB_ENOENT);
    assert_int_equal(results[0], 0);
    assert_int_equal(results[1], KVB_ENOENT);
    assert_int_equal(results[2], 0);
    assert_false(store_has(rig, 1) || store_has(rig, 3));
}

static void test_invalidated_content_can_be_stored_again_beside_the_holder(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_seq key = life_name(rig, 1);
    struct kvb_block *old = life_store(rig, 1);
    kv_ok(kvb_invalidate(rig->kv, &key, 1, NULL));
    struct kvb_block *fresh = life_store(rig, 1);
    assert_int_equal(kv_describe(rig, fresh).indexed, 1);
    assert_int_equal(device_stats(rig).duplicates, 0);
    kv_unref(rig, old);
    assert_true(store_has(rig, 1));
    kv_unref(rig, fresh);
}

static void test_invalidate_namespace_forgets_its_contents_only(void **state)
{
    struct kv_rig *rig = *state;
    uint32_t ns = 0;
    uint64_t removed = 99;
    struct kvb_block *run[3];
    kv_ok(kvb_namespace_open(rig->kv, "t", 1, NULL, 0, &ns));
    kv_store_run(rig, KVB_TIER_DEVICE, ns, store_tokens, 3, run);
    kv_ok(kvb_block_unref(rig->kv, run + 1, 2, NULL)); /* one held, two parked */
    kv_unref(rig, life_store(rig, 1));
    kv_ok(kvb_invalidate_namespace(rig->kv, ns, &removed));
    assert_int_equal(removed, 3);
    assert_int_equal(kv_run_length(rig, ns, store_tokens, 3 * KV_TOKENS), 0);
    assert_true(store_has(rig, 1));
    assert_int_equal(device_stats(rig).held_count, 1);
    assert_int_equal(device_stats(rig).parked_count, 1);
    kv_unref(rig, run[0]);
}

static void test_invalidate_of_unknown_namespace_is_not_found(void **state)
{
    struct kv_rig *rig = *state;
    uint64_t removed = 99;
    kv_expect(kvb_invalidate_namespace(rig->kv, 4, &removed), KVB_ENOENT);
    assert_int_equal(removed, 0);
}

static void test_clear_frees_what_is_parked(void **state)
{
    struct kv_rig *rig = *state;
    kv_unref(rig, life_store(rig, 1));
    kv_unref(rig, life_store(rig, 2));
    kv_ok(kvb_manager_clear(rig->kv));
    assert_false(store_has(rig, 1) || store_has(rig, 2));
    assert_int_equal(device_stats(rig).free_count, KV_BLOCKS);
}

static void test_clear_leaves_held_blocks_unindexed(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_store(rig, 1);
    kv_ok(kvb_manager_clear(rig->kv));
    assert_int_equal(kv_describe(rig, block).indexed, 0);
    assert_int_equal(kv_describe(rig, block).state, KVB_STATE_REGISTERED);
    assert_int_equal(kv_describe(rig, block).holder_count, 1);
    assert_true(kv_payload_is(rig, block, life_name(rig, 1).hash));
    kv_unref(rig, block);
    assert_int_equal(device_stats(rig).free_count, KV_BLOCKS);
}

static void test_clear_leaves_unregistered_blocks_alone(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_complete(rig, block, 0, 0, NULL, store_tokens);
    kv_ok(kvb_manager_clear(rig->kv));
    assert_int_equal(kv_describe(rig, block).state, KVB_STATE_COMPLETE);
    assert_int_equal(kv_describe(rig, block).token_count, KV_TOKENS);
    kv_register(rig, block); /* test_names_forgotten.c says what becomes of it */
    kv_unref(rig, block);
}

static void test_clear_then_store_again_is_found(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *old = life_store(rig, 1);
    kv_ok(kvb_manager_clear(rig->kv));
    struct kvb_block *fresh = life_store(rig, 1);
    assert_true(store_has(rig, 1));
    assert_int_equal(kv_describe(rig, fresh).indexed, 1);
    kv_unref(rig, fresh);
    kv_unref(rig, old);
    assert_int_equal(device_stats(rig).parked_count, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(store_scene, test_invalidate_frees_a_parked_block),
        TEST(store_scene, test_invalidate_leaves_a_held_block_to_its_holder),
        TEST(store_scene, test_invalidate_takes_the_key_from_a_held_block),
        TEST(store_scene, test_invalidate_emits_removed),
        TEST(store_scene, test_invalidate_of_unknown_keys_is_judged_by_element),
        TEST(store_scene, test_invalidated_content_can_be_stored_again_beside_the_holder),
        TEST(store_scene, test_invalidate_namespace_forgets_its_contents_only),
        TEST(store_scene, test_invalidate_of_unknown_namespace_is_not_found),
        TEST(store_scene, test_clear_frees_what_is_parked),
        TEST(store_scene, test_clear_leaves_held_blocks_unindexed),
        TEST(store_scene, test_clear_leaves_unregistered_blocks_alone),
        TEST(store_scene, test_clear_then_store_again_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
