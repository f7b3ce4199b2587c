/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding under the caller's own keys, at every size of keys.
 */
#include "support/find.h"

#include "base/hash.h"

static const uint32_t key_sizes[] = {1, 2, 8, 15, 16, 17, 24, 32, 64};

static unsigned char keys[FIND_RUN * KVB_KEY_BYTES_MAX]; /* packed, key_bytes apart */

/*
 * Two tiers, not open yet. Keys differ in their last byte only: a library that looks at a prefix
 * would confuse them. Their size is the initial state.
 */
static struct kv_rig *keyed_begin(void **state)
{
    uint32_t key_bytes = *(const uint32_t *)*state;
    struct kv_rig *rig = kv_scene_begin(state, sizeof *rig);
    kv_rig_add_host(rig);
    rig->config.key_bytes = key_bytes;
    memset(keys, 0x77, sizeof keys);
    for (uint32_t i = 0; i < FIND_RUN; i++)
        keys[(size_t)(i + 1) * key_bytes - 1] = (unsigned char)(i + 1);
    return rig;
}

static int keyed_setup(void **state)
{
    kv_rig_open(keyed_begin(state));
    return 0;
}

#define keyed_teardown kv_scene_end

/* All keys have one hash in the index. */
static int one_tag_setup(void **state)
{
    static struct kvbi_hash_ops ops;
    const struct kvbi_hooks hooks = {.hash = &ops};
    ops = (struct kvbi_hash_ops){find_constant_64, kvbi_hash_baseline.hash128, "test"};
    kv_rig_open_hooked(keyed_begin(state), &hooks);
    return 0;
}

#define one_tag_teardown kv_scene_end

static const void *key_at(struct kv_rig *rig, uint32_t i)
{
    return keys + (size_t)i * rig->config.key_bytes;
}

/* Compute the run find_tokens and register it under `keys`; the caller holds the blocks. */
static void store_keyed_run(struct kv_rig *rig, struct kvb_block **blocks, uint32_t count)
{
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, count, NULL, blocks, NULL));
    for (uint32_t i = 0; i < count; i++)
        kv_complete(rig, blocks[i], 0, i, i == 0 ? NULL : key_at(rig, i - 1),
                    find_tokens + (size_t)i * KV_TOKENS);
    struct kvb_register options = {.size = sizeof options, .keys = keys};
    kv_ok(kvb_block_register(rig->kv, blocks, count, &options, NULL, NULL));
}

static void test_keyed_key_bytes_is_the_configured_size(void **state)
{
    struct kv_rig *rig = *state;
    assert_int_equal(kvb_key_bytes(rig->kv), rig->config.key_bytes);
}

static void test_keyed_match_by_keys_finds_the_run(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *blocks[FIND_RUN];
    struct kvb_hit hits[FIND_RUN];
    store_keyed_run(rig, blocks, 3);
    struct kvb_query query = find_by_keys(keys, FIND_RUN);
    assert_int_equal(find_match(rig, &query, hits), 3);
    for (int i = 0; i < 3; i++)
        assert_ptr_equal(hits[i].block, blocks[i]);
    find_unref(rig, blocks, 3);
}

static void test_keyed_match_by_keys_and_tokens_compares_tokens(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *blocks[FIND_RUN];
    struct kvb_hit hits[FIND_RUN];
    uint32_t other[FIND_RUN * KV_TOKENS];
    store_keyed_run(rig, blocks, FIND_RUN);
    struct kvb_query query = find_by_both(0, find_tokens, keys, FIND_RUN);
    assert_int_equal(find_match(rig, &query, hits), FIND_RUN);
    memcpy(other, find_tokens, sizeof other);
    other[2 * KV_TOKENS] ^= 1;
    query = find_by_both(0, other, keys, FIND_RUN);
    assert_int_equal(find_match(rig, &query, hits), 2);
    find_unref(rig, blocks, FIND_RUN);
}

static void test_keyed_match_by_tokens_alone_is_unsupported(void **state)
{
    struct kv_rig *rig = *state;
    find_refused(rig, kv_query(0, find_tokens, KV_TOKENS), KVB_EUNSUPPORTED);
}

static void test_keyed_match_in_another_namespace_finds_nothing(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *blocks[FIND_RUN];
    struct kvb_hit hits[FIND_RUN];
    uint32_t ns = 0;
    kv_ok(kvb_namespace_open(rig->kv, "a", 1, NULL, 0, &ns));
    store_keyed_run(rig, blocks, 1);
    struct kvb_query query = find_by_both(ns, find_tokens, keys, 1);
    assert_int_equal(find_match(rig, &query, hits), 0);
    find_unref(rig, blocks, 1);
}

static void test_keyed_register_without_key_is_invalid(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = find_try_register(rig, 0, 0, NULL, find_tokens, KVB_EINVAL);
    assert_int_equal(kv_describe(rig, block).state, KVB_STATE_COMPLETE);
    kv_unref(rig, block);
}

static void test_keyed_register_takes_the_key_of_init(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_hit hits[FIND_RUN];
    unsigned char key[KVB_KEY_BYTES_MAX];
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    struct kvb_block_init init = {.size = sizeof init, .key = key_at(rig, 1)};
    kv_ok(kvb_block_init(rig->kv, &block, &init, 1, NULL));
    kv_append(rig, block, find_tokens, KV_TOKENS, 0);
    kv_schedule(rig, block);
    kv_done(rig, block, KV_TOKENS);
    kv_register(rig, block);
    kv_ok(kvb_block_key(rig->kv, block, key));
    assert_memory_equal(key, key_at(rig, 1), rig->config.key_bytes);
    struct kvb_query query = find_by_keys(key_at(rig, 1), 1);
    assert_int_equal(find_match(rig, &query, hits), 1);
    kv_unref(rig, block);
}

static void test_keyed_events_show_key_and_parent(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *blocks[FIND_RUN];
    store_keyed_run(rig, blocks, 2);
    kv_poll(rig);
    assert_int_equal(rig->events.count, 2);
    const struct kv_event_record *first = &rig->events.list[0], *second = &rig->events.list[1];
    assert_int_equal(first->kind, KVB_EVENT_STORED);
    assert_memory_equal(first->key, key_at(rig, 0), rig->config.key_bytes);
    assert_false(first->has_parent);
    assert_memory_equal(second->key, key_at(rig, 1), rig->config.key_bytes);
    assert_true(second->has_parent);
    assert_memory_equal(second->parent, key_at(rig, 0), rig->config.key_bytes);
    assert_int_equal(second->token_count, KV_TOKENS);
    assert_int_equal(second->first_token, find_tokens[KV_TOKENS]);
    find_unref(rig, blocks, 2);
}

static void test_keyed_invalidate_forgets_one_key(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *blocks[FIND_RUN];
    struct kvb_hit hits[FIND_RUN];
    store_keyed_run(rig, blocks, FIND_RUN);
    kv_ok(kvb_invalidate(rig->kv, key_at(rig, 2), 1, NULL));
    struct kvb_query query = find_by_keys(keys, FIND_RUN);
    assert_int_equal(find_match(rig, &query, hits), 2);
    query = find_by_keys(key_at(rig, 3), 1);
    assert_int_equal(find_match(rig, &query, hits), 1);
    find_unref(rig, blocks, FIND_RUN);
}

static void test_keyed_register_of_other_tokens_under_a_taken_key_collides(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *blocks[FIND_RUN];
    struct kvb_hit hits[FIND_RUN];
    store_keyed_run(rig, blocks, 1);
    struct kvb_block *other = kv_alloc(rig, KVB_TIER_DEVICE);
    struct kvb_register options = {.size = sizeof options, .keys = keys};
    kv_complete(rig, other, 0, 0, NULL, find_tokens + KV_TOKENS);
    kv_expect(kvb_block_register(rig->kv, &other, 1, &options, NULL, NULL), KVB_ECOLLISION);
    struct kvb_query query = find_by_keys(keys, 1);
    assert_int_equal(find_match(rig, &query, hits), 1);
    assert_ptr_equal(hits[0].block, blocks[0]);
    kv_unref(rig, other);
    find_unref(rig, blocks, 1);
}

static void test_keyed_init_with_itself_as_parent_is_invalid(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    struct kvb_block_init init = {
        .size = sizeof init, .position = 1, .parent = key_at(rig, 0), .key = key_at(rig, 0)};
    kv_expect(kvb_block_init(rig->kv, &block, &init, 1, NULL), KVB_EINVAL);
    assert_int_equal(kv_describe(rig, block).state, KVB_STATE_EMPTY);
    kv_unref(rig, block);
}

static void test_keyed_register_with_its_parents_key_is_invalid(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    struct kvb_register options = {.size = sizeof options, .keys = key_at(rig, 0)};
    kv_complete(rig, block, 0, 1, key_at(rig, 0), find_tokens + KV_TOKENS);
    kv_expect(kvb_block_register(rig->kv, &block, 1, &options, NULL, NULL), KVB_EINVAL);
    assert_int_equal(kv_describe(rig, block).state, KVB_STATE_COMPLETE);
    kv_unref(rig, block);
}

/*
 * Under the root's key there are `tokens` by now; its child was computed behind find_tokens. Both
 * are held.
 */
static void replace_root(struct kv_rig *rig, struct kvb_block **blocks, const uint32_t *tokens)
{
    struct kvb_register options = {.size = sizeof options, .keys = key_at(rig, 0)};
    store_keyed_run(rig, blocks, 2);
    kv_unref(rig, blocks[0]);
    kv_ok(kvb_invalidate(rig->kv, key_at(rig, 0), 1, NULL));
    blocks[0] = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_complete(rig, blocks[0], 0, 0, NULL, tokens);
    kv_ok(kvb_block_register(rig->kv, &blocks[0], 1, &options, NULL, NULL));
}

static void test_keyed_child_behind_other_content_of_its_parent_is_not_served(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *blocks[FIND_RUN];
    struct kvb_hit hits[FIND_RUN];
    uint32_t other[FIND_RUN * KV_TOKENS];
    memcpy(other, find_tokens, sizeof other);
    other[0] ^= 1;
    replace_root(rig, blocks, other);
    struct kvb_query query = find_by_both(0, other, keys, 2);
    assert_int_equal(find_match(rig, &query, hits), 1);
    find_unref(rig, blocks, 2);
}

static void test_keyed_child_behind_the_same_content_of_its_parent_is_served(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *blocks[FIND_RUN];
    struct kvb_hit hits[FIND_RUN];
    replace_root(rig, blocks, find_tokens);
    struct kvb_query query = find_by_both(0, find_tokens, keys, 2);
    assert_int_equal(find_match(rig, &query, hits), 2);
    find_unref(rig, blocks, 2);
}

/* Refused or stored, a key never finds another key's block. */
static void test_keyed_collision_of_tags_serves_exact_keys_only(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *blocks[FIND_RUN];
    int codes[FIND_RUN];
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, FIND_RUN, NULL, blocks, NULL));
    for (uint32_t i = 0; i < FIND_RUN; i++) {
        struct kvb_register options = {.size = sizeof options, .keys = key_at(rig, i)};
        kv_complete(rig, blocks[i], 0, 0, NULL, find_tokens + (size_t)i * KV_TOKENS);
        codes[i] = kvb_block_register(rig->kv, &blocks[i], 1, &options, NULL, NULL);
        assert_true(codes[i] == 0 || codes[i] == KVB_ECOLLISION);
    }
    assert_int_equal(codes[0], 0);
    for (uint32_t i = 0; i < FIND_RUN; i++) {
        struct kvb_hit hits[FIND_RUN];
        struct kvb_query query = find_by_keys(key_at(rig, i), 1);
        assert_int_equal(find_match(rig, &query, hits), codes[i] == 0 ? 1 : 0);
        if (codes[i] == 0)
            assert_ptr_equal(hits[0].block, blocks[i]);
    }
    find_unref(rig, blocks, FIND_RUN);
}

static void test_match_of_more_than_64_keyed_blocks_hands_out_all(void **state)
{
    struct kv_rig *rig = *state;
    enum { COUNT = 150, KEY = 24 };
    static uint32_t tokens[COUNT * KV_TOKENS];
    static unsigned char long_keys[COUNT * KEY];
    static struct kvb_block *blocks[COUNT];
    uint64_t tiers[KVB_TIER_COUNT];
    rig->tiers[0].block_count = COUNT;
    rig->config.key_bytes = KEY;
    kv_rig_open(rig);
    kv_tokens(tokens, COUNT * KV_TOKENS, 8);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, COUNT, NULL, blocks, NULL));
    for (uint32_t i = 0; i < COUNT; i++) {
        memcpy(long_keys + i * KEY + KEY - sizeof i, &i, sizeof i);
        kv_complete(rig, blocks[i], 0, i, i == 0 ? NULL : long_keys + (i - 1) * KEY,
                    tokens + (size_t)i * KV_TOKENS);
    }
    struct kvb_register options = {.size = sizeof options, .keys = long_keys};
    kv_ok(kvb_block_register(rig->kv, blocks, COUNT, &options, NULL, NULL));
    kv_ok(kvb_block_unref(rig->kv, blocks, COUNT, NULL));
    struct kvb_query query = kv_query(0, tokens, COUNT * KV_TOKENS);
    query.keys = long_keys;
    query.key_count = COUNT;
    kv_ok(kvb_lookup(rig->kv, &query, tiers));
    assert_int_equal(tiers[KVB_TIER_DEVICE], COUNT);
    query.tokens = NULL;
    query.token_count = 0;
    kv_ok(kvb_lookup(rig->kv, &query, tiers));
    assert_int_equal(tiers[KVB_TIER_DEVICE], COUNT);
}

/* Every test of keys at every size of keys. */
static int run_keyed(void)
{
    static const struct CMUnitTest each[] = {
        TEST(keyed, test_keyed_key_bytes_is_the_configured_size),
        TEST(keyed, test_keyed_match_by_keys_finds_the_run),
        TEST(keyed, test_keyed_match_by_keys_and_tokens_compares_tokens),
        TEST(keyed, test_keyed_match_by_tokens_alone_is_unsupported),
        TEST(keyed, test_keyed_match_in_another_namespace_finds_nothing),
        TEST(keyed, test_keyed_register_without_key_is_invalid),
        TEST(keyed, test_keyed_register_takes_the_key_of_init),
        TEST(keyed, test_keyed_events_show_key_and_parent),
        TEST(keyed, test_keyed_invalidate_forgets_one_key),
        TEST(keyed, test_keyed_register_of_other_tokens_under_a_taken_key_collides),
        TEST(keyed, test_keyed_init_with_itself_as_parent_is_invalid),
        TEST(keyed, test_keyed_register_with_its_parents_key_is_invalid),
        TEST(keyed, test_keyed_child_behind_other_content_of_its_parent_is_not_served),
        TEST(keyed, test_keyed_child_behind_the_same_content_of_its_parent_is_served),
        TEST(one_tag, test_keyed_collision_of_tags_serves_exact_keys_only),
    };
    enum { TESTS = sizeof each / sizeof *each, SIZES = sizeof key_sizes / sizeof *key_sizes };
    static struct CMUnitTest tests[TESTS * SIZES];
    static char names[TESTS * SIZES][96];
    for (size_t s = 0; s < SIZES; s++)
        for (size_t t = 0; t < TESTS; t++) {
            size_t i = s * TESTS + t;
            tests[i] = each[t];
            (void)snprintf(names[i], sizeof names[i], "%s_%u_bytes", each[t].name, key_sizes[s]);
            tests[i].name = names[i];
            tests[i].initial_state = (void *)(uintptr_t)&key_sizes[s];
        }
    return cmocka_run_group_tests_name("the caller's keys", tests, NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kv_rig, test_match_of_more_than_64_keyed_blocks_hands_out_all),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return failed + run_keyed();
}
