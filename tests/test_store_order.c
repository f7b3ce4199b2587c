/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The order in which one store evicts: recency, priority, retention.
 */
#include "support/store_scene.h"

#include "base/lock.h"
#include "block/slot.h"

static void test_eviction_goes_from_tail_to_head_of_a_sequence(void **state)
{
    struct store_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct kvb_block *run[4];
    kv_store_run(rig, KVB_TIER_DEVICE, 0, store_tokens, 4, run);
    kv_ok(kvb_block_unref(rig->kv, run, 4, NULL));
    store_take_all_free(scene);
    for (uint64_t left = 4; left > 0; left--) {
        assert_int_equal(kv_run_length(rig, 0, store_tokens, 4 * KV_TOKENS), left);
        store_take(scene, 1);
    }
    assert_int_equal(kv_run_length(rig, 0, store_tokens, 4 * KV_TOKENS), 0);
}

static void test_eviction_takes_the_least_recently_used(void **state)
{
    struct store_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    store_park(rig, 1, 35, 0);
    store_park(rig, 2, 35, 0);
    store_park(rig, 3, 35, 0);
    uint32_t tokens[KV_TOKENS];
    struct kvb_hit hit;
    size_t count = 0;
    kv_tokens(tokens, KV_TOKENS, 1);
    struct kvb_query query = kv_query(0, tokens, KV_TOKENS);
    kv_ok(kvb_match(rig->kv, &query, &hit, 1, &count));
    kv_unref(rig, hit.block);
    store_take_all_free(scene);
    store_evicts(scene, 2);
    store_evicts(scene, 3);
    store_evicts(scene, 1);
}

static void test_eviction_order_is_not_changed_by_lookup(void **state)
{
    struct store_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    store_park(rig, 1, 35, 0);
    store_park(rig, 2, 35, 0);
    store_take_all_free(scene);
    assert_true(store_has(rig, 1));
    store_evicts(scene, 1);
    store_evicts(scene, 2);
}

static void test_eviction_takes_low_priority_first(void **state)
{
    struct store_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    store_park(rig, 1, 100, 0);
    store_park(rig, 2, 0, 0);
    store_park(rig, 3, 36, 0);
    store_park(rig, 4, 34, 0);
    store_park(rig, 5, 35, 0);
    store_take_all_free(scene);
    store_evicts(scene, 2);
    store_evicts(scene, 4);
    store_evicts(scene, 5);
    store_evicts(scene, 3);
    store_evicts(scene, 1);
}

static void test_priority_of_a_new_block_is_the_default(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    assert_int_equal(kv_describe(rig, block).priority, KVB_PRIORITY_DEFAULT);
    kv_unref(rig, block);
}

static void test_priority_does_not_outlive_the_block(void **state)
{
    struct kv_rig *rig = *state;
    store_park(rig, 1, 90, 0);
    struct kvb_seq key = life_name(rig, 1);
    kv_ok(kvb_invalidate(rig->kv, &key, 1, NULL));
    struct kvb_block *blocks[KV_BLOCKS];
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, KV_BLOCKS, NULL, blocks, NULL));
    for (uint32_t i = 0; i < KV_BLOCKS; i++)
        assert_int_equal(kv_describe(rig, blocks[i]).priority, KVB_PRIORITY_DEFAULT);
    kv_ok(kvb_block_unref(rig->kv, blocks, KV_BLOCKS, NULL));
}

static void test_priority_can_be_changed_while_another_parks_it_again(void **state)
{
    struct store_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    store_park(rig, 1, 90, 0);
    store_park(rig, 2, 50, 0);
    uint32_t tokens[KV_TOKENS];
    struct kvb_hit hit;
    size_t count = 0;
    kv_tokens(tokens, KV_TOKENS, 1);
    struct kvb_query query = kv_query(0, tokens, KV_TOKENS);
    kv_ok(kvb_match(rig->kv, &query, &hit, 1, &count));
    kv_ok(kvb_block_set_priority(rig->kv, &hit.block, 1, 10, 0, NULL));
    kv_unref(rig, hit.block);
    store_take_all_free(scene);
    store_evicts(scene, 1);
    store_evicts(scene, 2);
}

static void test_priority_above_100_is_invalid(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_expect(kvb_block_set_priority(rig->kv, &block, 1, 101, 0, NULL), KVB_EINVAL);
    assert_int_equal(kv_describe(rig, block).priority, KVB_PRIORITY_DEFAULT);
    kv_unref(rig, block);
}

static void test_retention_holds_until_its_deadline(void **state)
{
    struct store_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    store_park(rig, 1, 90, 10 * KV_SECOND);
    store_park(rig, 2, 60, 0);
    kv_advance(rig, 10 * KV_SECOND - 1);
    store_take_all_free(scene);
    store_evicts(scene, 2);
    store_evicts(scene, 1);
}

static void test_retention_past_its_deadline_is_default_priority(void **state)
{
    struct store_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    store_park(rig, 1, 90, 10 * KV_SECOND);
    store_park(rig, 2, 60, 0);
    kv_advance(rig, 10 * KV_SECOND);
    store_take_all_free(scene);
    store_evicts(scene, 1);
    store_evicts(scene, 2);
}

static void test_retention_of_low_priority_ends_too(void **state)
{
    struct store_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    store_park(rig, 1, 5, 10 * KV_SECOND);
    store_park(rig, 2, 20, 0);
    kv_advance(rig, 11 * KV_SECOND);
    store_take_all_free(scene);
    store_evicts(scene, 2);
    store_evicts(scene, 1);
}

static void test_retention_that_ends_while_held_is_default_priority(void **state)
{
    struct store_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct kvb_block *block = life_store(rig, 1);
    kv_ok(kvb_block_set_priority(rig->kv, &block, 1, 90, KV_SECOND, NULL));
    assert_int_equal(kv_describe(rig, block).priority, 90);
    kv_advance(rig, 2 * KV_SECOND);
    kv_unref(rig, block);
    store_park(rig, 2, 60, 0);
    store_take_all_free(scene);
    store_evicts(scene, 1);
    store_evicts(scene, 2);
}

static void test_retention_past_its_deadline_shows_default_priority(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_store(rig, 1);
    kv_ok(kvb_block_set_priority(rig->kv, &block, 1, 90, KV_SECOND, NULL));
    kv_advance(rig, KV_SECOND);
    assert_int_equal(kv_describe(rig, block).priority, KVB_PRIORITY_DEFAULT);
    kv_unref(rig, block);
}

/*
 * "As if last used then": younger than what was used before the deadline, older than what was used
 * after.
 */
static void test_retention_past_its_deadline_counts_as_last_used_then(void **state)
{
    struct store_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    store_park(rig, 1, 90, 10 * KV_SECOND);
    kv_advance(rig, KV_SECOND);
    store_park(rig, 2, KVB_PRIORITY_DEFAULT, 0);
    kv_advance(rig, 20 * KV_SECOND);
    store_park(rig, 3, KVB_PRIORITY_DEFAULT, 0);
    store_take_all_free(scene);
    store_evicts(scene, 2);
    store_evicts(scene, 1);
    store_evicts(scene, 3);
}

enum { RETAINED = 3 * KVBI_LOCK_BATCH };

/*
 * A tier of blocks that are all parked and retained until the same moment, which has passed: nobody
 * has looked since.
 */
static void open_with_ended_retentions(struct kv_rig *rig, struct kvb_block **blocks)
{
    static uint32_t tokens[RETAINED * KV_TOKENS];
    kv_rig_no_tiers(rig);
    kv_rig_add_tier(rig, KVB_TIER_DEVICE, RETAINED, KVB_OFFLOAD_MANUAL);
    kv_rig_open(rig);
    kv_tokens(tokens, RETAINED * KV_TOKENS, 1);
    kv_store_run(rig, KVB_TIER_DEVICE, 0, tokens, RETAINED, blocks);
    kv_ok(kvb_block_set_priority(rig->kv, blocks, RETAINED, 80, KV_SECOND, NULL));
    kv_ok(kvb_block_unref(rig->kv, blocks, RETAINED, NULL));
    kv_advance(rig, 2 * KV_SECOND);
}

/* How many are still where their retention had put them in the eviction order. */
static uint32_t still_retained(struct kvb_block **blocks)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < RETAINED; i++)
        count += blocks[i]->order.linked && blocks[i]->order.band == 80;
    return count;
}

static void test_retentions_that_end_together_are_ended_in_bounded_steps(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *blocks[RETAINED];
    open_with_ended_retentions(rig, blocks);
    assert_int_equal(still_retained(blocks), RETAINED);
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    assert_in_range(still_retained(blocks), RETAINED - KVBI_LOCK_BATCH, RETAINED - 1);
    kv_unref(rig, block);
}

static void test_retentions_that_end_together_are_all_ended_by_later_calls(void **state)
{
    struct kv_rig *rig = *state;
    enum { CALLS = RETAINED / KVBI_LOCK_BATCH };
    struct kvb_block *blocks[RETAINED], *others[CALLS];
    open_with_ended_retentions(rig, blocks);
    for (uint32_t i = 0; i < CALLS; i++) { /* nothing is free: every one looks at the order */
        others[i] = kv_alloc(rig, KVB_TIER_DEVICE);
        kv_check(rig);
    }
    assert_int_equal(still_retained(blocks), 0);
    kv_ok(kvb_block_unref(rig->kv, others, CALLS, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(store_scene, test_eviction_goes_from_tail_to_head_of_a_sequence),
        TEST(store_scene, test_eviction_takes_the_least_recently_used),
        TEST(store_scene, test_eviction_order_is_not_changed_by_lookup),
        TEST(store_scene, test_eviction_takes_low_priority_first),
        TEST(store_scene, test_priority_of_a_new_block_is_the_default),
        TEST(store_scene, test_priority_does_not_outlive_the_block),
        TEST(store_scene, test_priority_can_be_changed_while_another_parks_it_again),
        TEST(store_scene, test_priority_above_100_is_invalid),
        TEST(store_scene, test_retention_holds_until_its_deadline),
        TEST(store_scene, test_retention_past_its_deadline_is_default_priority),
        TEST(store_scene, test_retention_of_low_priority_ends_too),
        TEST(store_scene, test_retention_that_ends_while_held_is_default_priority),
        TEST(store_scene, test_retention_past_its_deadline_shows_default_priority),
        TEST(store_scene, test_retention_past_its_deadline_counts_as_last_used_then),
        TEST(kv_rig, test_retentions_that_end_together_are_ended_in_bounded_steps),
        TEST(kv_rig, test_retentions_that_end_together_are_all_ended_by_later_calls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
