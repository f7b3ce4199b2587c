/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One store: room and the order of eviction, duplicates, forgetting, the books.
 */
#include "support/kv_test.h"

#include "block/slot.h"
#include "store/store.h"

static struct kv_rig rig;

enum { RUN = 8 };
static uint32_t T[RUN * KV_TOKENS];

static int setup(void **state)
{
    (void)state;
    kv_rig_init(&rig);
    kv_tokens(T, RUN * KV_TOKENS, 5);
    kv_rig_open(&rig);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    kv_rig_close(&rig);
    return 0;
}

static struct kvb_tier_stats device(void)
{
    return kv_stats(&rig).tiers[KVB_TIER_DEVICE];
}

/* A root block of its own for every seed, registered and held. */
static struct kvb_block *store_one(uint64_t seed)
{
    uint32_t tokens[KV_TOKENS];
    struct kvb_block *block = NULL;
    kv_tokens(tokens, KV_TOKENS, seed);
    kv_store_run(&rig, KVB_TIER_DEVICE, 0, tokens, 1, &block);
    return block;
}

static void park_one(uint64_t seed, uint32_t priority, uint64_t duration_ns)
{
    struct kvb_block *block = store_one(seed);
    kv_ok(kvb_block_set_priority(rig.kv, &block, 1, priority, duration_ns, NULL));
    kv_unref(&rig, block);
}

static bool is_stored(uint64_t seed)
{
    uint32_t tokens[KV_TOKENS];
    kv_tokens(tokens, KV_TOKENS, seed);
    return kv_run_length(&rig, 0, tokens, KV_TOKENS) == 1;
}

static struct kvb_seq name_of(uint64_t seed)
{
    uint32_t tokens[KV_TOKENS];
    struct kvb_seq seq = {0};
    size_t count = 0;
    kv_tokens(tokens, KV_TOKENS, seed);
    kv_ok(kvb_hash_tokens(rig.kv, 0, NULL, tokens, KV_TOKENS, &seq, 1, &count));
    return seq;
}

/* Blocks taken to leave no room, given back together. */
static struct kvb_block *taken[KV_BLOCKS];
static uint32_t taken_count;

static void take(uint32_t count)
{
    kv_ok(kvb_alloc(rig.kv, KVB_TIER_DEVICE, count, NULL, taken + taken_count, NULL));
    taken_count += count;
}

static void take_all_free(void)
{
    taken_count = 0;
    take((uint32_t)device().free_count);
}

static void give_back_taken(void)
{
    kv_ok(kvb_block_unref(rig.kv, taken, taken_count, NULL));
    taken_count = 0;
}

/* Evict one block; it must be the one of this seed. */
static void evicts(uint64_t seed)
{
    assert_true(is_stored(seed));
    uint64_t parked = device().parked_count;
    take(1);
    assert_int_equal(device().parked_count, parked - 1);
    assert_false(is_stored(seed));
}

/* ---- alloc -------------------------------------------------------------------------------------------------------- */

static void test_alloc_beyond_room_takes_nothing_and_says_what_is_missing(void **state)
{
    (void)state;
    struct kvb_block *held[5], *blocks[4];
    uint32_t missing = 99;
    memset(blocks, 0x55, sizeof blocks);
    kv_ok(kvb_alloc(rig.kv, KVB_TIER_DEVICE, 5, NULL, held, NULL));
    kv_expect(kvb_alloc(rig.kv, KVB_TIER_DEVICE, 4, NULL, blocks, &missing), KVB_ENOSPC);
    assert_int_equal(missing, 1);
    for (int i = 0; i < 4; i++) {
        assert_null(blocks[i]);
    }
    assert_int_equal(device().free_count, 3);
    kv_ok(kvb_block_unref(rig.kv, held, 5, NULL));
}

static void test_alloc_that_fails_evicts_nothing(void **state)
{
    (void)state;
    struct kvb_block *blocks[3];
    uint32_t missing = 99;
    park_one(1, 35, 0);
    park_one(2, 35, 0);
    take_all_free();
    kv_expect(kvb_alloc(rig.kv, KVB_TIER_DEVICE, 3, NULL, blocks, &missing), KVB_ENOSPC);
    assert_int_equal(missing, 1);
    assert_true(is_stored(1) && is_stored(2));
    give_back_taken();
}

static void test_alloc_of_all_that_is_available_succeeds(void **state)
{
    (void)state;
    struct kvb_block *blocks[KV_BLOCKS];
    uint32_t missing = 99;
    for (uint64_t i = 0; i < KV_BLOCKS; i++) {
        park_one(i, 100, 0);
    }
    assert_int_equal(device().available_count, KV_BLOCKS);
    kv_ok(kvb_alloc(rig.kv, KVB_TIER_DEVICE, KV_BLOCKS, NULL, blocks, &missing));
    assert_int_equal(missing, 0);
    assert_int_equal(device().available_count, 0);
    assert_int_equal(device().evicted, KV_BLOCKS);
    kv_ok(kvb_block_unref(rig.kv, blocks, KV_BLOCKS, NULL));
}

static void test_alloc_takes_free_blocks_before_it_evicts(void **state)
{
    (void)state;
    park_one(1, 0, 0);
    taken_count = 0;
    take(KV_BLOCKS - 1);
    assert_true(is_stored(1));
    give_back_taken();
}

static void test_alloc_of_more_than_the_tier_has_says_what_is_missing(void **state)
{
    (void)state;
    static struct kvb_block *blocks[1000];
    uint32_t missing = 0;
    kv_expect(kvb_alloc(rig.kv, KVB_TIER_DEVICE, 1000, NULL, blocks, &missing), KVB_ENOSPC);
    assert_int_equal(missing, 1000 - KV_BLOCKS);
}

static void test_alloc_of_none_does_nothing(void **state)
{
    (void)state;
    uint32_t missing = 9;
    kv_ok(kvb_alloc(rig.kv, KVB_TIER_DEVICE, 0, NULL, NULL, &missing));
    assert_int_equal(missing, 0);
}

static void test_alloc_in_a_tier_that_is_not_configured_is_not_found(void **state)
{
    (void)state;
    struct kvb_block *block = (struct kvb_block *)(uintptr_t)1;
    kv_expect(kvb_alloc(rig.kv, KVB_TIER_DISK, 1, NULL, &block, NULL), KVB_ENOENT);
    assert_null(block);
}

static void test_alloc_in_a_tier_out_of_range_is_invalid(void **state)
{
    (void)state;
    struct kvb_block *block = (struct kvb_block *)(uintptr_t)1;
    kv_expect(kvb_alloc(rig.kv, KVB_TIER_COUNT, 1, NULL, &block, NULL), KVB_EINVAL);
    assert_null(block);
}

static void test_alloc_of_more_than_64_blocks_evicts_and_hands_out_all(void **state)
{
    (void)state;
    enum { COUNT = 200 };
    static struct kv_rig large;
    static struct kvb_block *blocks[COUNT];
    static uint32_t tokens[COUNT * KV_TOKENS];
    kv_rig_init(&large);
    large.tiers[0].block_count = COUNT;
    kv_rig_open(&large);
    kv_tokens(tokens, COUNT * KV_TOKENS, 8);
    kv_store_run(&large, KVB_TIER_DEVICE, 0, tokens, COUNT, blocks);
    kv_ok(kvb_block_unref(large.kv, blocks, COUNT, NULL));
    kv_ok(kvb_alloc(large.kv, KVB_TIER_DEVICE, COUNT - 10, NULL, blocks, NULL));
    /* Tail first: what is left is the head. */
    assert_int_equal(kv_run_length(&large, 0, tokens, COUNT * KV_TOKENS), 10);
    kv_ok(kvb_block_unref(large.kv, blocks, COUNT - 10, NULL));
    kv_rig_close(&large);
}

/* ---- The order of eviction ---------------------------------------------------------------------------------------- */

static void test_eviction_goes_from_tail_to_head_of_a_sequence(void **state)
{
    (void)state;
    struct kvb_block *run[4];
    kv_store_run(&rig, KVB_TIER_DEVICE, 0, T, 4, run);
    kv_ok(kvb_block_unref(rig.kv, run, 4, NULL));
    take_all_free();
    for (uint64_t left = 4; left > 0; left--) {
        assert_int_equal(kv_run_length(&rig, 0, T, 4 * KV_TOKENS), left);
        take(1);
    }
    assert_int_equal(kv_run_length(&rig, 0, T, 4 * KV_TOKENS), 0);
    give_back_taken();
}

static void test_eviction_takes_the_least_recently_used(void **state)
{
    (void)state;
    park_one(1, 35, 0);
    park_one(2, 35, 0);
    park_one(3, 35, 0);
    uint32_t tokens[KV_TOKENS];
    struct kvb_hit hit;
    size_t count = 0;
    kv_tokens(tokens, KV_TOKENS, 1);
    struct kvb_query query = kv_query(0, tokens, KV_TOKENS);
    kv_ok(kvb_match(rig.kv, &query, &hit, 1, &count));
    kv_unref(&rig, hit.block);
    take_all_free();
    evicts(2);
    evicts(3);
    evicts(1);
    give_back_taken();
}

static void test_eviction_order_is_not_changed_by_lookup(void **state)
{
    (void)state;
    park_one(1, 35, 0);
    park_one(2, 35, 0);
    take_all_free();
    assert_true(is_stored(1));
    evicts(1);
    evicts(2);
    give_back_taken();
}

static void test_eviction_takes_low_priority_first(void **state)
{
    (void)state;
    park_one(1, 100, 0);
    park_one(2, 0, 0);
    park_one(3, 36, 0);
    park_one(4, 34, 0);
    park_one(5, 35, 0);
    take_all_free();
    evicts(2);
    evicts(4);
    evicts(5);
    evicts(3);
    evicts(1);
    give_back_taken();
}

static void test_priority_of_a_new_block_is_the_default(void **state)
{
    (void)state;
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    assert_int_equal(kv_describe(&rig, block).priority, KVB_PRIORITY_DEFAULT);
    kv_unref(&rig, block);
}

static void test_priority_does_not_outlive_the_block(void **state)
{
    (void)state;
    park_one(1, 90, 0);
    struct kvb_seq key = name_of(1);
    kv_ok(kvb_invalidate(rig.kv, &key, 1, NULL));
    struct kvb_block *blocks[KV_BLOCKS];
    kv_ok(kvb_alloc(rig.kv, KVB_TIER_DEVICE, KV_BLOCKS, NULL, blocks, NULL));
    for (uint32_t i = 0; i < KV_BLOCKS; i++) {
        assert_int_equal(kv_describe(&rig, blocks[i]).priority, KVB_PRIORITY_DEFAULT);
    }
    kv_ok(kvb_block_unref(rig.kv, blocks, KV_BLOCKS, NULL));
}

static void test_priority_can_be_changed_while_another_parks_it_again(void **state)
{
    (void)state;
    park_one(1, 90, 0);
    park_one(2, 50, 0);
    uint32_t tokens[KV_TOKENS];
    struct kvb_hit hit;
    size_t count = 0;
    kv_tokens(tokens, KV_TOKENS, 1);
    struct kvb_query query = kv_query(0, tokens, KV_TOKENS);
    kv_ok(kvb_match(rig.kv, &query, &hit, 1, &count));
    kv_ok(kvb_block_set_priority(rig.kv, &hit.block, 1, 10, 0, NULL));
    kv_unref(&rig, hit.block);
    take_all_free();
    evicts(1);
    evicts(2);
    give_back_taken();
}

static void test_priority_above_100_is_invalid(void **state)
{
    (void)state;
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    kv_expect(kvb_block_set_priority(rig.kv, &block, 1, 101, 0, NULL), KVB_EINVAL);
    assert_int_equal(kv_describe(&rig, block).priority, KVB_PRIORITY_DEFAULT);
    kv_unref(&rig, block);
}

static void test_retention_holds_until_its_deadline(void **state)
{
    (void)state;
    park_one(1, 90, 10 * KV_SECOND);
    park_one(2, 60, 0);
    kv_advance(&rig, 10 * KV_SECOND - 1);
    take_all_free();
    evicts(2);
    evicts(1);
    give_back_taken();
}

static void test_retention_past_its_deadline_is_default_priority(void **state)
{
    (void)state;
    park_one(1, 90, 10 * KV_SECOND);
    park_one(2, 60, 0);
    kv_advance(&rig, 10 * KV_SECOND);
    take_all_free();
    evicts(1);
    evicts(2);
    give_back_taken();
}

static void test_retention_of_low_priority_ends_too(void **state)
{
    (void)state;
    park_one(1, 5, 10 * KV_SECOND);
    park_one(2, 20, 0);
    kv_advance(&rig, 11 * KV_SECOND);
    take_all_free();
    evicts(2);
    evicts(1);
    give_back_taken();
}

static void test_retention_that_ends_while_held_is_default_priority(void **state)
{
    (void)state;
    struct kvb_block *block = store_one(1);
    kv_ok(kvb_block_set_priority(rig.kv, &block, 1, 90, KV_SECOND, NULL));
    assert_int_equal(kv_describe(&rig, block).priority, 90);
    kv_advance(&rig, 2 * KV_SECOND);
    kv_unref(&rig, block);
    park_one(2, 60, 0);
    take_all_free();
    evicts(1);
    evicts(2);
    give_back_taken();
}

static void test_retention_past_its_deadline_shows_default_priority(void **state)
{
    (void)state;
    struct kvb_block *block = store_one(1);
    kv_ok(kvb_block_set_priority(rig.kv, &block, 1, 90, KV_SECOND, NULL));
    kv_advance(&rig, KV_SECOND);
    assert_int_equal(kv_describe(&rig, block).priority, KVB_PRIORITY_DEFAULT);
    kv_unref(&rig, block);
}

/* "As if last used then": younger than what was used before the deadline, older than what was used after. */
static void test_retention_past_its_deadline_counts_as_last_used_then(void **state)
{
    (void)state;
    park_one(1, 90, 10 * KV_SECOND);
    kv_advance(&rig, KV_SECOND);
    park_one(2, KVB_PRIORITY_DEFAULT, 0);
    kv_advance(&rig, 20 * KV_SECOND);
    park_one(3, KVB_PRIORITY_DEFAULT, 0);
    take_all_free();
    evicts(2);
    evicts(1);
    evicts(3);
    give_back_taken();
}

enum { RETAINED = 3 * KVBI_LOCK_BATCH };

/* A tier of blocks that are all parked and retained until the same moment, which has passed: nobody has looked since. */
static void open_with_ended_retentions(struct kvb_block **blocks)
{
    static uint32_t tokens[RETAINED * KV_TOKENS];
    kv_rig_init(&rig);
    kv_rig_no_tiers(&rig);
    kv_rig_add_tier(&rig, KVB_TIER_DEVICE, RETAINED, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    kv_tokens(tokens, RETAINED * KV_TOKENS, 1);
    kv_store_run(&rig, KVB_TIER_DEVICE, 0, tokens, RETAINED, blocks);
    kv_ok(kvb_block_set_priority(rig.kv, blocks, RETAINED, 80, KV_SECOND, NULL));
    kv_ok(kvb_block_unref(rig.kv, blocks, RETAINED, NULL));
    kv_advance(&rig, 2 * KV_SECOND);
}

/* How many are still where their retention had put them in the eviction order. */
static uint32_t still_retained(struct kvb_block **blocks)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < RETAINED; i++) {
        count += blocks[i]->order.linked && blocks[i]->order.band == 80;
    }
    return count;
}

static void test_retentions_that_end_together_are_ended_in_bounded_steps(void **state)
{
    (void)state;
    struct kvb_block *blocks[RETAINED];
    open_with_ended_retentions(blocks);
    assert_int_equal(still_retained(blocks), RETAINED);
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    assert_in_range(still_retained(blocks), RETAINED - KVBI_LOCK_BATCH, RETAINED - 1);
    kv_unref(&rig, block);
    kv_rig_close(&rig);
}

static void test_retentions_that_end_together_are_all_ended_by_later_calls(void **state)
{
    (void)state;
    enum { CALLS = RETAINED / KVBI_LOCK_BATCH };
    struct kvb_block *blocks[RETAINED], *others[CALLS];
    open_with_ended_retentions(blocks);
    for (uint32_t i = 0; i < CALLS; i++) { /* nothing is free: every one looks at the order */
        others[i] = kv_alloc(&rig, KVB_TIER_DEVICE);
        kv_check(&rig);
    }
    assert_int_equal(still_retained(blocks), 0);
    kv_ok(kvb_block_unref(rig.kv, others, CALLS, NULL));
    kv_rig_close(&rig);
}

/* ---- Duplicates --------------------------------------------------------------------------------------------------- */

/* The same content once more; `flags` of register. The caller holds what comes back. */
static struct kvb_block *store_again(uint64_t seed, uint32_t flags)
{
    uint32_t tokens[KV_TOKENS];
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    struct kvb_register options = {.size = sizeof options, .flags = flags};
    kv_tokens(tokens, KV_TOKENS, seed);
    kv_complete(&rig, block, 0, 0, NULL, tokens);
    kv_ok(kvb_block_register(rig.kv, &block, 1, &options, NULL, NULL));
    return block;
}

static void test_duplicate_keep_of_held_block_leaves_both_alive(void **state)
{
    (void)state;
    struct kvb_block *first = store_one(1), *second = store_again(1, 0);
    assert_ptr_not_equal(first, second);
    assert_int_equal(kv_describe(&rig, first).indexed, 1);
    assert_int_equal(kv_describe(&rig, second).indexed, 0);
    assert_int_equal(kv_describe(&rig, second).state, KVB_STATE_REGISTERED);
    assert_int_equal(device().duplicates, 1);
    kv_unref(&rig, second);
    kv_unref(&rig, first);
}

static void test_duplicate_keep_of_parked_block_takes_its_place(void **state)
{
    (void)state;
    kv_unref(&rig, store_one(1));
    struct kvb_block *second = store_again(1, 0);
    assert_int_equal(kv_describe(&rig, second).indexed, 1);
    assert_int_equal(device().parked_count, 0);
    assert_int_equal(device().held_count, 1);
    kv_unref(&rig, second);
    assert_int_equal(device().parked_count, 1);
    assert_true(is_stored(1));
}

static void test_duplicate_taking_over_emits_nothing(void **state)
{
    (void)state;
    kv_unref(&rig, store_one(1));
    kv_unref(&rig, store_again(1, 0));
    kv_poll(&rig);
    assert_int_equal(rig.events.count, 1);
    assert_int_equal(rig.events.list[0].kind, KVB_EVENT_STORED);
}

static void test_duplicate_unindexed_is_reset_at_its_last_unref(void **state)
{
    (void)state;
    struct kvb_block *first = store_one(1), *second = store_again(1, 0);
    uint64_t free_before = device().free_count;
    kv_unref(&rig, second);
    assert_int_equal(device().free_count, free_before + 1);
    assert_int_equal(device().parked_count, 0);
    assert_true(is_stored(1));
    kv_unref(&rig, first);
}

static void test_duplicate_share_hands_out_the_registered_block(void **state)
{
    (void)state;
    struct kvb_block *first = store_one(1), *second = store_again(1, KVB_REGISTER_SHARE);
    assert_ptr_equal(first, second);
    assert_int_equal(kv_describe(&rig, first).holder_count, 2);
    assert_int_equal(device().free_count, KV_BLOCKS - 1);
    kv_unref(&rig, first);
    kv_unref(&rig, second);
}

static void test_duplicate_share_of_parked_block_holds_it(void **state)
{
    (void)state;
    struct kvb_block *first = store_one(1);
    kv_unref(&rig, first);
    assert_ptr_equal(store_again(1, KVB_REGISTER_SHARE), first);
    assert_int_equal(device().parked_count, 0);
    assert_int_equal(device().free_count, KV_BLOCKS - 1);
    kv_unref(&rig, first);
}

static void test_duplicate_share_of_new_content_keeps_the_block(void **state)
{
    (void)state;
    struct kvb_block *block = store_again(1, KVB_REGISTER_SHARE);
    assert_int_equal(kv_describe(&rig, block).indexed, 1);
    assert_int_equal(device().duplicates, 0);
    kv_unref(&rig, block);
}

static void test_duplicate_policy_of_the_manager_is_used_and_overridden(void **state)
{
    (void)state;
    kv_rig_init(&rig);
    rig.config.duplicate = KVB_DUPLICATE_SHARE;
    kv_rig_open(&rig);
    struct kvb_block *first = store_one(1);
    struct kvb_block *shared = store_again(1, 0), *kept = store_again(1, KVB_REGISTER_KEEP);
    assert_ptr_equal(shared, first);
    assert_ptr_not_equal(kept, first);
    kv_unref(&rig, kept);
    kv_unref(&rig, shared);
    kv_unref(&rig, first);
    kv_rig_close(&rig);
}

static void test_register_with_both_duplicate_flags_is_invalid(void **state)
{
    (void)state;
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    struct kvb_register options = {.size = sizeof options,
                                   .flags = KVB_REGISTER_KEEP | KVB_REGISTER_SHARE};
    kv_complete(&rig, block, 0, 0, NULL, T);
    kv_expect(kvb_block_register(rig.kv, &block, 1, &options, NULL, NULL), KVB_EINVAL);
    options.flags = 4;
    kv_expect(kvb_block_register(rig.kv, &block, 1, &options, NULL, NULL), KVB_EINVAL);
    assert_int_equal(kv_describe(&rig, block).state, KVB_STATE_COMPLETE);
    kv_unref(&rig, block);
}

static void test_duplicate_within_one_array_is_found(void **state)
{
    (void)state;
    struct kvb_block *blocks[2];
    kv_ok(kvb_alloc(rig.kv, KVB_TIER_DEVICE, 2, NULL, blocks, NULL));
    kv_complete(&rig, blocks[0], 0, 0, NULL, T);
    kv_complete(&rig, blocks[1], 0, 0, NULL, T);
    kv_ok(kvb_block_register(rig.kv, blocks, 2, NULL, NULL, NULL));
    assert_int_equal(kv_describe(&rig, blocks[0]).indexed + kv_describe(&rig, blocks[1]).indexed,
                     1);
    assert_int_equal(device().duplicates, 1);
    kv_ok(kvb_block_unref(rig.kv, blocks, 2, NULL));
    assert_int_equal(device().parked_count, 1);
}

/* ---- Forgetting --------------------------------------------------------------------------------------------------- */

static void test_invalidate_frees_a_parked_block(void **state)
{
    (void)state;
    struct kvb_seq key = name_of(1);
    kv_unref(&rig, store_one(1));
    kv_ok(kvb_invalidate(rig.kv, &key, 1, NULL));
    assert_false(is_stored(1));
    assert_int_equal(device().free_count, KV_BLOCKS);
}

static void test_invalidate_leaves_a_held_block_to_its_holder(void **state)
{
    (void)state;
    struct kvb_seq key = name_of(1);
    struct kvb_block *block = store_one(1);
    kv_ok(kvb_invalidate(rig.kv, &key, 1, NULL));
    assert_false(is_stored(1));
    assert_int_equal(kv_describe(&rig, block).state, KVB_STATE_REGISTERED);
    assert_int_equal(kv_describe(&rig, block).indexed, 0);
    assert_true(kv_payload_is(&rig, block, key.hash));
    kv_unref(&rig, block);
    assert_int_equal(device().free_count, KV_BLOCKS);
}

static void test_invalidate_takes_the_key_from_a_held_block(void **state)
{
    (void)state;
    struct kvb_seq key = name_of(1);
    struct kvb_block *block = store_one(1);
    kv_ok(kvb_invalidate(rig.kv, &key, 1, NULL));
    kv_expect(kvb_block_key(rig.kv, block, &key), KVB_ENOENT);
    kv_unref(&rig, block);
}

static void test_invalidate_emits_removed(void **state)
{
    (void)state;
    struct kvb_seq key = name_of(1);
    kv_unref(&rig, store_one(1));
    kv_ok(kvb_invalidate(rig.kv, &key, 1, NULL));
    kv_poll(&rig);
    assert_int_equal(rig.events.count, 2);
    assert_int_equal(rig.events.list[1].kind, KVB_EVENT_REMOVED);
    assert_memory_equal(rig.events.list[1].key, &key, sizeof key);
}

static void test_invalidate_of_unknown_keys_is_judged_by_element(void **state)
{
    (void)state;
    struct kvb_seq keys[] = {name_of(1), name_of(2), name_of(3)};
    int results[3] = {1, 1, 1};
    kv_unref(&rig, store_one(1));
    kv_unref(&rig, store_one(3));
    kv_expect(kvb_invalidate(rig.kv, keys, 3, results), KVB_ENOENT);
    assert_int_equal(results[0], 0);
    assert_int_equal(results[1], KVB_ENOENT);
    assert_int_equal(results[2], 0);
    assert_false(is_stored(1) || is_stored(3));
}

static void test_invalidated_content_can_be_stored_again_beside_the_holder(void **state)
{
    (void)state;
    struct kvb_seq key = name_of(1);
    struct kvb_block *old = store_one(1);
    kv_ok(kvb_invalidate(rig.kv, &key, 1, NULL));
    struct kvb_block *fresh = store_one(1);
    assert_int_equal(kv_describe(&rig, fresh).indexed, 1);
    assert_int_equal(device().duplicates, 0);
    kv_unref(&rig, old);
    assert_true(is_stored(1));
    kv_unref(&rig, fresh);
}

static void test_invalidate_namespace_forgets_its_contents_only(void **state)
{
    (void)state;
    uint32_t ns = 0;
    uint64_t removed = 99;
    struct kvb_block *run[3];
    kv_ok(kvb_namespace_open(rig.kv, "t", 1, NULL, 0, &ns));
    kv_store_run(&rig, KVB_TIER_DEVICE, ns, T, 3, run);
    kv_ok(kvb_block_unref(rig.kv, run + 1, 2, NULL)); /* one held, two parked */
    kv_unref(&rig, store_one(1));
    kv_ok(kvb_invalidate_namespace(rig.kv, ns, &removed));
    assert_int_equal(removed, 3);
    assert_int_equal(kv_run_length(&rig, ns, T, 3 * KV_TOKENS), 0);
    assert_true(is_stored(1));
    assert_int_equal(device().held_count, 1);
    assert_int_equal(device().parked_count, 1);
    kv_unref(&rig, run[0]);
}

static void test_invalidate_of_unknown_namespace_is_not_found(void **state)
{
    (void)state;
    uint64_t removed = 99;
    kv_expect(kvb_invalidate_namespace(rig.kv, 4, &removed), KVB_ENOENT);
    assert_int_equal(removed, 0);
}

static void test_clear_frees_what_is_parked(void **state)
{
    (void)state;
    kv_unref(&rig, store_one(1));
    kv_unref(&rig, store_one(2));
    kv_ok(kvb_manager_clear(rig.kv));
    assert_false(is_stored(1) || is_stored(2));
    assert_int_equal(device().free_count, KV_BLOCKS);
}

static void test_clear_leaves_held_blocks_unindexed(void **state)
{
    (void)state;
    struct kvb_block *block = store_one(1);
    kv_ok(kvb_manager_clear(rig.kv));
    assert_int_equal(kv_describe(&rig, block).indexed, 0);
    assert_int_equal(kv_describe(&rig, block).state, KVB_STATE_REGISTERED);
    assert_int_equal(kv_describe(&rig, block).holder_count, 1);
    assert_true(kv_payload_is(&rig, block, name_of(1).hash));
    kv_unref(&rig, block);
    assert_int_equal(device().free_count, KV_BLOCKS);
}

static void test_clear_leaves_unregistered_blocks_alone(void **state)
{
    (void)state;
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    kv_complete(&rig, block, 0, 0, NULL, T);
    kv_ok(kvb_manager_clear(rig.kv));
    assert_int_equal(kv_describe(&rig, block).state, KVB_STATE_COMPLETE);
    assert_int_equal(kv_describe(&rig, block).token_count, KV_TOKENS);
    kv_register(&rig, block); /* test_names_forgotten.c says what becomes of it */
    kv_unref(&rig, block);
}

static void test_clear_then_store_again_is_found(void **state)
{
    (void)state;
    struct kvb_block *old = store_one(1);
    kv_ok(kvb_manager_clear(rig.kv));
    struct kvb_block *fresh = store_one(1);
    assert_true(is_stored(1));
    assert_int_equal(kv_describe(&rig, fresh).indexed, 1);
    kv_unref(&rig, fresh);
    kv_unref(&rig, old);
    assert_int_equal(device().parked_count, 1);
}

/* ---- The books ---------------------------------------------------------------------------------------------------- */

static void test_stats_places_add_up(void **state)
{
    (void)state;
    struct kvb_block *held = store_one(1);
    struct kvb_block *inflight = kv_alloc(&rig, KVB_TIER_DEVICE);
    kv_init(&rig, inflight, 0, 0, NULL);
    kv_append(&rig, inflight, T, 1, 0);
    kv_schedule(&rig, inflight);
    kv_unref(&rig, inflight);
    kv_unref(&rig, store_one(2));
    kv_unref(&rig, store_one(3));
    struct kvb_tier_stats stats = device();
    assert_int_equal(stats.block_count, KV_BLOCKS);
    assert_int_equal(stats.held_count, 2);
    assert_int_equal(stats.parked_count, 2);
    assert_int_equal(stats.transfer_count, 0);
    assert_int_equal(
        stats.free_count + stats.held_count + stats.parked_count + stats.transfer_count, KV_BLOCKS);
    assert_int_equal(stats.available_count, KV_BLOCKS - 2);
    assert_int_equal(stats.allocated, 4);
    assert_int_equal(stats.registered, 3);
    assert_int_equal(kv_stats(&rig).index_entries, 3);
    kv_done(&rig, inflight, 1);
    kv_unref(&rig, held);
}

static void test_stats_table_bytes_are_what_was_allocated_beside_the_tiers(void **state)
{
    (void)state;
    uint64_t tier_bytes = (uint64_t)KV_BLOCKS * KV_LAYERS * KV_PARTS * KV_CHUNK;
    uint64_t allocated = (uint64_t)rig.heap.live_bytes;
    assert_in_range(kv_stats(&rig).table_bytes, allocated - tier_bytes - 4096,
                    allocated - tier_bytes + 4096);
}

static void test_tier_memory_is_where_blocks_lie(void **state)
{
    (void)state;
    void *base = NULL, *address = NULL;
    uint64_t bytes = 0, block_bytes = KV_LAYERS * KV_PARTS * KV_CHUNK;
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    kv_ok(kvb_tier_memory(rig.kv, KVB_TIER_DEVICE, &base, &bytes));
    assert_int_equal(bytes, KV_BLOCKS * block_bytes);
    kv_ok(kvb_block_address(rig.kv, block, 1, 1, &address));
    assert_ptr_equal((char *)address, (char *)base + kvb_block_slot(rig.kv, block) * block_bytes +
                                          (KV_PARTS + 1) * KV_CHUNK);
    kv_expect(kvb_block_address(rig.kv, block, KV_LAYERS, 0, &address), KVB_EINVAL);
    kv_expect(kvb_block_address(rig.kv, block, 0, KV_PARTS, &address), KVB_EINVAL);
    kv_expect(kvb_tier_memory(rig.kv, KVB_TIER_HOST, &base, &bytes), KVB_ENOENT);
    kv_expect(kvb_tier_memory(rig.kv, KVB_TIER_COUNT, &base, &bytes), KVB_EINVAL);
    kv_unref(&rig, block);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_alloc_beyond_room_takes_nothing_and_says_what_is_missing),
        TEST(test_alloc_that_fails_evicts_nothing),
        TEST(test_alloc_of_all_that_is_available_succeeds),
        TEST(test_alloc_takes_free_blocks_before_it_evicts),
        TEST(test_alloc_of_more_than_the_tier_has_says_what_is_missing),
        TEST(test_alloc_of_none_does_nothing),
        TEST(test_alloc_in_a_tier_that_is_not_configured_is_not_found),
        TEST(test_alloc_in_a_tier_out_of_range_is_invalid),
        cmocka_unit_test(test_alloc_of_more_than_64_blocks_evicts_and_hands_out_all),
        TEST(test_eviction_goes_from_tail_to_head_of_a_sequence),
        TEST(test_eviction_takes_the_least_recently_used),
        TEST(test_eviction_order_is_not_changed_by_lookup),
        TEST(test_eviction_takes_low_priority_first),
        TEST(test_priority_of_a_new_block_is_the_default),
        TEST(test_priority_does_not_outlive_the_block),
        TEST(test_priority_can_be_changed_while_another_parks_it_again),
        TEST(test_priority_above_100_is_invalid),
        TEST(test_retention_holds_until_its_deadline),
        TEST(test_retention_past_its_deadline_is_default_priority),
        TEST(test_retention_of_low_priority_ends_too),
        TEST(test_retention_that_ends_while_held_is_default_priority),
        TEST(test_retention_past_its_deadline_shows_default_priority),
        TEST(test_retention_past_its_deadline_counts_as_last_used_then),
        cmocka_unit_test(test_retentions_that_end_together_are_ended_in_bounded_steps),
        cmocka_unit_test(test_retentions_that_end_together_are_all_ended_by_later_calls),
        TEST(test_duplicate_keep_of_held_block_leaves_both_alive),
        TEST(test_duplicate_keep_of_parked_block_takes_its_place),
        TEST(test_duplicate_taking_over_emits_nothing),
        TEST(test_duplicate_unindexed_is_reset_at_its_last_unref),
        TEST(test_duplicate_share_hands_out_the_registered_block),
        TEST(test_duplicate_share_of_parked_block_holds_it),
        TEST(test_duplicate_share_of_new_content_keeps_the_block),
        cmocka_unit_test(test_duplicate_policy_of_the_manager_is_used_and_overridden),
        TEST(test_register_with_both_duplicate_flags_is_invalid),
        TEST(test_duplicate_within_one_array_is_found),
        TEST(test_invalidate_frees_a_parked_block),
        TEST(test_invalidate_leaves_a_held_block_to_its_holder),
        TEST(test_invalidate_takes_the_key_from_a_held_block),
        TEST(test_invalidate_emits_removed),
        TEST(test_invalidate_of_unknown_keys_is_judged_by_element),
        TEST(test_invalidated_content_can_be_stored_again_beside_the_holder),
        TEST(test_invalidate_namespace_forgets_its_contents_only),
        TEST(test_invalidate_of_unknown_namespace_is_not_found),
        TEST(test_clear_frees_what_is_parked),
        TEST(test_clear_leaves_held_blocks_unindexed),
        TEST(test_clear_leaves_unregistered_blocks_alone),
        TEST(test_clear_then_store_again_is_found),
        TEST(test_stats_places_add_up),
        TEST(test_stats_table_bytes_are_what_was_allocated_beside_the_tiers),
        TEST(test_tier_memory_is_where_blocks_lie),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
