/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Room in one store: what alloc takes and what it says, and the books of places and bytes.
 */
#include "support/store_scene.h"

/* ---- alloc ----------------------------------------------------------------------------------- */

static void test_alloc_beyond_room_takes_nothing_and_says_what_is_missing(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *held[5], *blocks[4];
    uint32_t missing = 99;
    memset(blocks, 0x55, sizeof blocks);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 5, NULL, held, NULL));
    kv_expect(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 4, NULL, blocks, &missing), KVB_ENOSPC);
    assert_int_equal(missing, 1);
    for (int i = 0; i < 4; i++)
        assert_null(blocks[i]);
    assert_int_equal(device_stats(rig).free_count, 3);
    kv_ok(kvb_block_unref(rig->kv, held, 5, NULL));
}

static void test_alloc_that_fails_evicts_nothing(void **state)
{
    struct store_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct kvb_block *blocks[3];
    uint32_t missing = 99;
    store_park(rig, 1, 35, 0);
    store_park(rig, 2, 35, 0);
    store_take_all_free(scene);
    kv_expect(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 3, NULL, blocks, &missing), KVB_ENOSPC);
    assert_int_equal(missing, 1);
    assert_true(store_has(rig, 1) && store_has(rig, 2));
}

static void test_alloc_of_all_that_is_available_succeeds(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *blocks[KV_BLOCKS];
    uint32_t missing = 99;
    for (uint64_t i = 0; i < KV_BLOCKS; i++)
        store_park(rig, i, 100, 0);
    assert_int_equal(device_stats(rig).available_count, KV_BLOCKS);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, KV_BLOCKS, NULL, blocks, &missing));
    assert_int_equal(missing, 0);
    assert_int_equal(device_stats(rig).available_count, 0);
    assert_int_equal(device_stats(rig).evicted, KV_BLOCKS);
    kv_ok(kvb_block_unref(rig->kv, blocks, KV_BLOCKS, NULL));
}

static void test_alloc_takes_free_blocks_before_it_evicts(void **state)
{
    struct store_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    store_park(rig, 1, 0, 0);
    store_take(scene, KV_BLOCKS - 1);
    assert_true(store_has(rig, 1));
}

static void test_alloc_of_more_than_the_tier_has_says_what_is_missing(void **state)
{
    struct kv_rig *rig = *state;
    static struct kvb_block *blocks[1000];
    uint32_t missing = 0;
    kv_expect(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1000, NULL, blocks, &missing), KVB_ENOSPC);
    assert_int_equal(missing, 1000 - KV_BLOCKS);
}

static void test_alloc_of_none_does_nothing(void **state)
{
    struct kv_rig *rig = *state;
    uint32_t missing = 9;
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 0, NULL, NULL, &missing));
    assert_int_equal(missing, 0);
}

static void test_alloc_in_a_tier_that_is_not_configured_is_not_found(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = (struct kvb_block *)(uintptr_t)1;
    kv_expect(kvb_alloc(rig->kv, KVB_TIER_DISK, 1, NULL, &block, NULL), KVB_ENOENT);
    assert_null(block);
}

static void test_alloc_in_a_tier_out_of_range_is_invalid(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = (struct kvb_block *)(uintptr_t)1;
    kv_expect(kvb_alloc(rig->kv, KVB_TIER_COUNT, 1, NULL, &block, NULL), KVB_EINVAL);
    assert_null(block);
}

static void test_alloc_of_more_than_64_blocks_evicts_and_hands_out_all(void **state)
{
    struct kv_rig *rig = *state;
    enum { COUNT = 200 };
    static struct kvb_block *blocks[COUNT];
    static uint32_t tokens[COUNT * KV_TOKENS];
    rig->tiers[0].block_count = COUNT;
    kv_rig_open(rig);
    kv_tokens(tokens, COUNT * KV_TOKENS, 8);
    kv_store_run(rig, KVB_TIER_DEVICE, 0, tokens, COUNT, blocks);
    kv_ok(kvb_block_unref(rig->kv, blocks, COUNT, NULL));
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, COUNT - 10, NULL, blocks, NULL));
    /* Tail first: what is left is the head. */
    assert_int_equal(kv_run_length(rig, 0, tokens, COUNT * KV_TOKENS), 10);
    kv_ok(kvb_block_unref(rig->kv, blocks, COUNT - 10, NULL));
}

/* ---- The books ------------------------------------------------------------------------------- */

static void test_stats_places_add_up(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *held = life_store(rig, 1);
    struct kvb_block *inflight = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_init(rig, inflight, 0, 0, NULL);
    kv_append(rig, inflight, store_tokens, 1, 0);
    kv_schedule(rig, inflight);
    kv_unref(rig, inflight);
    kv_unref(rig, life_store(rig, 2));
    kv_unref(rig, life_store(rig, 3));
    struct kvb_tier_stats stats = device_stats(rig);
    assert_int_equal(stats.block_count, KV_BLOCKS);
    assert_int_equal(stats.held_count, 2);
    assert_int_equal(stats.parked_count, 2);
    assert_int_equal(stats.transfer_count, 0);
    assert_int_equal(
        stats.free_count + stats.held_count + stats.parked_count + stats.transfer_count, KV_BLOCKS);
    assert_int_equal(stats.available_count, KV_BLOCKS - 2);
    assert_int_equal(stats.allocated, 4);
    assert_int_equal(stats.registered, 3);
    assert_int_equal(kv_stats(rig).index_entries, 3);
    kv_done(rig, inflight, 1);
    kv_unref(rig, held);
}

static void test_stats_table_bytes_are_what_was_allocated_beside_the_tiers(void **state)
{
    struct kv_rig *rig = *state;
    uint64_t tier_bytes = (uint64_t)KV_BLOCKS * KV_LAYERS * KV_PARTS * KV_CHUNK;
    uint64_t allocated = (uint64_t)rig->heap.live_bytes;
    assert_in_range(kv_stats(rig).table_bytes, allocated - tier_bytes - 4096,
                    allocated - tier_bytes + 4096);
}

static void test_tier_memory_is_where_blocks_lie(void **state)
{
    struct kv_rig *rig = *state;
    void *base = NULL, *address = NULL;
    uint64_t bytes = 0, block_bytes = KV_LAYERS * KV_PARTS * KV_CHUNK;
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_ok(kvb_tier_memory(rig->kv, KVB_TIER_DEVICE, &base, &bytes));
    assert_int_equal(bytes, KV_BLOCKS * block_bytes);
    kv_ok(kvb_block_address(rig->kv, block, 1, 1, &address));
    assert_ptr_equal((char *)address, (char *)base + kvb_block_slot(rig->kv, block) * block_bytes +
                                          (KV_PARTS + 1) * KV_CHUNK);
    kv_expect(kvb_block_address(rig->kv, block, KV_LAYERS, 0, &address), KVB_EINVAL);
    kv_expect(kvb_block_address(rig->kv, block, 0, KV_PARTS, &address), KVB_EINVAL);
    kv_expect(kvb_tier_memory(rig->kv, KVB_TIER_HOST, &base, &bytes), KVB_ENOENT);
    kv_expect(kvb_tier_memory(rig->kv, KVB_TIER_COUNT, &base, &bytes), KVB_EINVAL);
    kv_unref(rig, block);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(store_scene, test_alloc_beyond_room_takes_nothing_and_says_what_is_missing),
        TEST(store_scene, test_alloc_that_fails_evicts_nothing),
        TEST(store_scene, test_alloc_of_all_that_is_available_succeeds),
        TEST(store_scene, test_alloc_takes_free_blocks_before_it_evicts),
        TEST(store_scene, test_alloc_of_more_than_the_tier_has_says_what_is_missing),
        TEST(store_scene, test_alloc_of_none_does_nothing),
        TEST(store_scene, test_alloc_in_a_tier_that_is_not_configured_is_not_found),
        TEST(store_scene, test_alloc_in_a_tier_out_of_range_is_invalid),
        TEST(kv_rig, test_alloc_of_more_than_64_blocks_evicts_and_hands_out_all),
        TEST(store_scene, test_stats_places_add_up),
        TEST(store_scene, test_stats_table_bytes_are_what_was_allocated_beside_the_tiers),
        TEST(store_scene, test_tier_memory_is_where_blocks_lie),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
