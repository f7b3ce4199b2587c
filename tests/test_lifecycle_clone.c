/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rejected drafts, which are truncated, and clones, which go on from the same tokens.
 */
#include "support/life.h"

/* ---- truncate: rejected drafts --------------------------------------------------------------- */

static struct kvb_block_info truncate_to(struct kv_rig *rig, struct kvb_block *block, uint32_t keep)
{
    kv_ok(kvb_block_truncate(rig->kv, &block, &keep, 1, NULL));
    return kv_describe(rig, block);
}

static void test_truncate_of_complete_block_keeps_the_first_tokens(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_block_in(rig, KVB_STATE_COMPLETE);
    struct kvb_block_info info = truncate_to(rig, block, 3);
    assert_int_equal(info.state, KVB_STATE_PARTIAL);
    assert_int_equal(info.token_count, 3);
    assert_int_equal(info.computed_count, 3);
    kv_unref(rig, block);
}

static void test_truncate_above_computed_keeps_computed_count(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_block_in(rig, KVB_STATE_INFLIGHT);
    kv_append(rig, block, life_tokens + 2, 2, 0);
    kv_done(rig, block, 2);
    struct kvb_block_info info = truncate_to(rig, block, 3);
    assert_int_equal(info.token_count, 3);
    assert_int_equal(info.computed_count, 2);
    kv_unref(rig, block);
}

static void test_truncate_to_none_leaves_partial_without_tokens(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_block_in(rig, KVB_STATE_READY);
    struct kvb_block_info info = truncate_to(rig, block, 0);
    assert_int_equal(info.state, KVB_STATE_PARTIAL);
    assert_int_equal(info.token_count, 0);
    kv_unref(rig, block);
}

static void test_truncate_above_named_tokens_is_invalid(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_block_in(rig, KVB_STATE_PARTIAL);
    kv_expect(kvb_block_truncate(rig->kv, &block, &(uint32_t){3}, 1, NULL), KVB_EINVAL);
    assert_int_equal(kv_describe(rig, block).token_count, 2);
    kv_unref(rig, block);
}

static void test_truncate_forgets_the_name(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_block_in(rig, KVB_STATE_COMPLETE);
    struct kvb_seq key;
    kv_ok(kvb_block_key(rig->kv, block, &key));
    truncate_to(rig, block, 3);
    kv_expect(kvb_block_key(rig->kv, block, &key), KVB_ENOENT);
    kv_unref(rig, block);
}

static void test_rejected_draft_block_is_found_by_accepted_tokens_only(void **state)
{
    struct kv_rig *rig = *state;
    const uint32_t draft[] = {1, 2, 3, 99};
    const uint32_t accepted[] = {1, 2, 3, 4};
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_complete(rig, block, 0, 0, NULL, draft);
    truncate_to(rig, block, 3);
    kv_append(rig, block, accepted + 3, 1, 0);
    kv_schedule(rig, block);
    kv_done(rig, block, KV_TOKENS);
    kv_register(rig, block);
    assert_int_equal(kv_run_length(rig, 0, accepted, KV_TOKENS), 1);
    assert_int_equal(kv_run_length(rig, 0, draft, KV_TOKENS), 0);
    kv_unref(rig, block);
}

/* Nothing was rejected: the same tokens again, computed again, have the same name again. */
static void test_truncate_to_all_tokens_can_be_registered_later(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_block_in(rig, KVB_STATE_COMPLETE);
    truncate_to(rig, block, KV_TOKENS);
    kv_append(rig, block, NULL, 0, 0);
    kv_schedule(rig, block);
    kv_done(rig, block, KV_TOKENS);
    kv_register(rig, block);
    assert_int_equal(kv_run_length(rig, 0, life_tokens, KV_TOKENS), 1);
    kv_unref(rig, block);
}

/* ---- clone ----------------------------------------------------------------------------------- */

static void test_clone_of_complete_block_has_names_and_nothing_computed(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *source = life_block_in(rig, KVB_STATE_COMPLETE);
    struct kvb_block *target = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_ok(kvb_block_clone(rig->kv, source, target));
    struct kvb_block_info info = kv_describe(rig, target);
    assert_int_equal(info.state, KVB_STATE_PARTIAL);
    assert_int_equal(info.token_count, KV_TOKENS);
    assert_int_equal(info.computed_count, 0);
    kv_unref(rig, source);
    kv_unref(rig, target);
}

static void test_clone_leaves_the_source_as_it_was(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *source = life_block_in(rig, KVB_STATE_INFLIGHT);
    struct kvb_block *target = kv_alloc(rig, KVB_TIER_DEVICE);
    struct kvb_block_info before = kv_describe(rig, source);
    kv_ok(kvb_block_clone(rig->kv, source, target));
    struct kvb_block_info after = kv_describe(rig, source);
    assert_memory_equal(&before, &after, sizeof before);
    life_drop(rig, source);
    kv_unref(rig, target);
}

static void test_clone_computed_and_registered_is_a_duplicate(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *source = life_block_in(rig, KVB_STATE_REGISTERED);
    struct kvb_block *target = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_ok(kvb_block_clone(rig->kv, source, target));
    kv_append(rig, target, NULL, 0, 0);
    kv_schedule(rig, target);
    kv_done(rig, target, KV_TOKENS);
    kv_register(rig, target);
    assert_int_equal(kv_describe(rig, target).state, KVB_STATE_REGISTERED);
    assert_int_equal(kv_describe(rig, source).indexed, 1);
    assert_int_equal(kv_describe(rig, target).indexed, 0);
    assert_int_equal(kv_stats(rig).tiers[0].duplicates, 1);
    kv_unref(rig, source);
    kv_unref(rig, target);
}

static void test_clone_of_partial_block_diverges(void **state)
{
    struct kv_rig *rig = *state;
    const uint32_t fork[] = {11, 12, 51, 52};
    struct kvb_block *source = life_block_in(rig, KVB_STATE_PARTIAL);
    struct kvb_block *target = kv_alloc(rig, KVB_TIER_DEVICE);
    struct kvb_block *both[] = {source, target};
    kv_ok(kvb_block_clone(rig->kv, source, target));
    kv_append(rig, source, life_tokens + 2, 2, 0);
    kv_append(rig, target, fork + 2, 2, 0);
    kv_ok(kvb_block_schedule(rig->kv, both, 2, NULL));
    kv_ok(kvb_block_compute_done(rig->kv, both, (uint32_t[]){4, 4}, 2, NULL, NULL));
    kv_ok(kvb_block_register(rig->kv, both, 2, NULL, NULL, NULL));
    assert_int_equal(kv_run_length(rig, 0, life_tokens, KV_TOKENS), 1);
    assert_int_equal(kv_run_length(rig, 0, fork, KV_TOKENS), 1);
    assert_int_equal(kv_stats(rig).tiers[0].duplicates, 0);
    kv_ok(kvb_block_unref(rig->kv, both, 2, NULL));
}

/*
 * The source's name was given ahead of its tokens: the fork goes another way, and has another name.
 */
static void test_clone_of_partial_block_with_given_key_diverges(void **state)
{
    struct kv_rig *rig = *state;
    const uint32_t fork[] = {11, 12, 51, 52};
    struct kvb_seq seqs[2], key;
    size_t count = 0;
    struct kvb_block *source = kv_alloc(rig, KVB_TIER_DEVICE),
                     *target = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_ok(kvb_hash_tokens(rig->kv, 0, NULL, life_tokens, KV_TOKENS, &seqs[0], 1, &count));
    kv_ok(kvb_hash_tokens(rig->kv, 0, NULL, fork, KV_TOKENS, &seqs[1], 1, &count));
    struct kvb_block_init init = {.size = sizeof init, .key = &seqs[0]};
    kv_ok(kvb_block_init(rig->kv, &source, &init, 1, NULL));
    kv_append(rig, source, life_tokens, 2, KVB_MORE);
    kv_ok(kvb_block_clone(rig->kv, source, target));
    kv_append(rig, target, fork + 2, 2, 0);
    kv_ok(kvb_block_key(rig->kv, target, &key));
    assert_memory_equal(&key, &seqs[1], sizeof key);
    kv_unref(rig, source);
    kv_unref(rig, target);
}

static void test_clone_of_later_block_keeps_its_parent(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *run[2];
    struct kvb_seq source_key, target_key;
    kv_store_run(rig, KVB_TIER_DEVICE, 0, life_tokens, 2, run);
    struct kvb_block *target = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_ok(kvb_block_clone(rig->kv, run[1], target));
    kv_ok(kvb_block_key(rig->kv, run[1], &source_key));
    kv_ok(kvb_block_key(rig->kv, target, &target_key));
    assert_memory_equal(&source_key, &target_key, sizeof source_key);
    kv_unref(rig, target);
    kv_ok(kvb_block_unref(rig->kv, run, 2, NULL));
}

static void test_clone_into_named_block_is_refused(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *source = life_block_in(rig, KVB_STATE_COMPLETE);
    struct kvb_block *target = life_block_in(rig, KVB_STATE_PARTIAL);
    kv_expect(kvb_block_clone(rig->kv, source, target), KVB_ESTATE);
    kv_unref(rig, source);
    kv_unref(rig, target);
}

static void test_clone_of_empty_block_is_refused(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *source = life_block_in(rig, KVB_STATE_EMPTY);
    struct kvb_block *target = life_block_in(rig, KVB_STATE_EMPTY);
    kv_expect(kvb_block_clone(rig->kv, source, target), KVB_ESTATE);
    kv_unref(rig, source);
    kv_unref(rig, target);
}

static void test_clone_of_itself_is_invalid(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = life_block_in(rig, KVB_STATE_EMPTY);
    kv_expect(kvb_block_clone(rig->kv, block, block), KVB_EINVAL);
    kv_unref(rig, block);
}

static void test_clone_into_shared_block_is_refused(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *source = life_block_in(rig, KVB_STATE_COMPLETE);
    struct kvb_block *target = life_block_in(rig, KVB_STATE_EMPTY);
    kv_ok(kvb_block_ref(rig->kv, &target, 1, NULL));
    kv_expect(kvb_block_clone(rig->kv, source, target), KVB_ESHARED);
    assert_int_equal(kv_describe(rig, target).state, KVB_STATE_EMPTY);
    kv_unref(rig, source);
    kv_unref(rig, target);
    kv_unref(rig, target);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kv_opened, test_truncate_of_complete_block_keeps_the_first_tokens),
        TEST(kv_opened, test_truncate_above_computed_keeps_computed_count),
        TEST(kv_opened, test_truncate_to_none_leaves_partial_without_tokens),
        TEST(kv_opened, test_truncate_above_named_tokens_is_invalid),
        TEST(kv_opened, test_truncate_forgets_the_name),
        TEST(kv_opened, test_truncate_to_all_tokens_can_be_registered_later),
        TEST(kv_opened, test_rejected_draft_block_is_found_by_accepted_tokens_only),
        TEST(kv_opened, test_clone_of_complete_block_has_names_and_nothing_computed),
        TEST(kv_opened, test_clone_leaves_the_source_as_it_was),
        TEST(kv_opened, test_clone_computed_and_registered_is_a_duplicate),
        TEST(kv_opened, test_clone_of_partial_block_diverges),
        TEST(kv_opened, test_clone_of_partial_block_with_given_key_diverges),
        TEST(kv_opened, test_clone_of_later_block_keeps_its_parent),
        TEST(kv_opened, test_clone_into_named_block_is_refused),
        TEST(kv_opened, test_clone_of_empty_block_is_refused),
        TEST(kv_opened, test_clone_of_itself_is_invalid),
        TEST(kv_opened, test_clone_into_shared_block_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
