/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks under the caller's keys that are registered before their parents: found by a query with
 * tokens all the same, behind what they were first found behind and behind nothing else.
 */
#include "support/kv_scene.h"

#define LENGTH 4
#define KEY_BYTES 16

static unsigned char keys[LENGTH][KEY_BYTES];
static uint32_t tokens[LENGTH * KV_TOKENS], others[LENGTH * KV_TOKENS];
static struct kvb_block *blocks[LENGTH];

/* To be opened with the caller's keys; nothing is stored. */
static int unopened_setup(void **state)
{
    struct kv_rig *rig = kv_scene_begin(state, sizeof *rig);
    rig->config.key_bytes = KEY_BYTES;
    kv_tokens(tokens, LENGTH * KV_TOKENS, 1);
    memcpy(others, tokens, sizeof others);
    others[0] ^= 1; /* of the root; the rest is the same */
    for (uint32_t i = 0; i < LENGTH; i++)
        memset(keys[i], 'a' + (int)i, KEY_BYTES);
    memset(blocks, 0, sizeof blocks);
    return 0;
}
#define unopened_teardown kv_scene_end

static int opened_setup(void **state)
{
    (void)unopened_setup(state);
    kv_rig_open(*state);
    return 0;
}

static void drop_all(struct kv_rig *rig)
{
    for (uint32_t i = 0; i < LENGTH; i++)
        if (blocks[i] != NULL)
            (void)kvb_block_unref(rig->kv, &blocks[i], 1, NULL);
    memset(blocks, 0, sizeof blocks);
}

static int opened_teardown(void **state)
{
    drop_all(*state);
    return kv_scene_end(state);
}

static int try_register(struct kv_rig *rig, struct kvb_block **block, uint32_t ns, uint32_t i,
                        const void *parent, const uint32_t *run)
{
    struct kvb_register options = {.size = sizeof options, .keys = keys[i]};
    *block = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_complete(rig, *block, ns, i, parent, run + i * KV_TOKENS);
    int code = kvb_block_register(rig->kv, block, 1, &options, NULL, NULL);
    kv_check(rig);
    return code;
}

/* Block i of the run, behind the key before it; held in blocks[i]. */
static void store(struct kv_rig *rig, uint32_t i, const uint32_t *run)
{
    kv_ok(try_register(rig, &blocks[i], 0, i, i == 0 ? NULL : keys[i - 1], run));
}

static void forget(struct kv_rig *rig, uint32_t i)
{
    kv_ok(kvb_invalidate(rig->kv, keys[i], 1, NULL));
    kv_unref(rig, blocks[i]);
    blocks[i] = NULL;
}

static struct kvb_query query_of(uint32_t ns, const uint32_t *run)
{
    return (struct kvb_query){.size = sizeof(struct kvb_query),
                              .namespace_id = ns,
                              .tokens = run,
                              .token_count = LENGTH * KV_TOKENS,
                              .keys = keys,
                              .key_count = LENGTH};
}

/* How many leading blocks are found with tokens compared: by lookup and by match, which agree. */
static size_t found_in(struct kv_rig *rig, uint32_t ns, const uint32_t *run)
{
    struct kvb_query query = query_of(ns, run);
    struct kvb_hit hits[LENGTH];
    uint64_t tiers[KVB_TIER_COUNT];
    size_t count;
    kv_ok(kvb_lookup(rig->kv, &query, tiers));
    kv_ok(kvb_match(rig->kv, &query, hits, LENGTH, &count));
    assert_int_equal(tiers[KVB_TIER_DEVICE], count);
    for (size_t i = 0; i < count; i++)
        kv_unref(rig, hits[i].block);
    kv_check(rig);
    return count;
}

static size_t found(struct kv_rig *rig, const uint32_t *run)
{
    return found_in(rig, 0, run);
}

/* ---- Found ----------------------------------------------------------------------------------- */

static void test_run_is_found_in_whatever_order_it_was_registered(void **state)
{
    struct kv_rig *rig = *state;
    for (uint32_t order = 0; order < 256; order++) {
        uint32_t at[LENGTH], seen = 0;
        for (uint32_t i = 0; i < LENGTH; i++) {
            at[i] = order >> 2 * i & 3;
            seen |= 1u << at[i];
        }
        if (seen != (1u << LENGTH) - 1)
            continue; /* no permutation */
        kv_rig_open(rig);
        for (uint32_t i = 0; i < LENGTH; i++)
            store(rig, at[i], tokens);
        assert_int_equal(found(rig, tokens), LENGTH);
        assert_int_equal(found(rig, tokens), LENGTH);
        drop_all(rig);
        kv_rig_close(rig);
    }
}

static void test_run_longer_than_a_section_is_found_tail_first(void **state)
{
    enum { LONG = 150 };
    struct kv_rig *rig = *state;
    unsigned char long_keys[LONG][KEY_BYTES] = {{0}};
    static uint32_t run[LONG * KV_TOKENS];
    struct kvb_block *held[LONG];
    struct kvb_hit hits[LONG];
    size_t count = 0;
    rig->tiers[0].block_count = LONG;
    kv_rig_open(rig);
    kv_tokens(run, LONG * KV_TOKENS, 2);
    for (uint32_t i = 0; i < LONG; i++)
        long_keys[i][0] = (unsigned char)(i + 1);
    for (uint32_t i = LONG; i-- > 0;) {
        struct kvb_register options = {.size = sizeof options, .keys = long_keys[i]};
        held[i] = kv_alloc(rig, KVB_TIER_DEVICE);
        kv_complete(rig, held[i], 0, i, i == 0 ? NULL : long_keys[i - 1], run + i * KV_TOKENS);
        kv_ok(kvb_block_register(rig->kv, &held[i], 1, &options, NULL, NULL));
    }
    struct kvb_query query = {.size = sizeof query,
                              .tokens = run,
                              .token_count = LONG * KV_TOKENS,
                              .keys = long_keys,
                              .key_count = LONG};
    kv_ok(kvb_match(rig->kv, &query, hits, LONG, &count));
    assert_int_equal(count, LONG);
    for (size_t i = 0; i < count; i++)
        kv_unref(rig, hits[i].block);
    kv_ok(kvb_block_unref(rig->kv, held, LONG, NULL));
}

/* ---- Not found ------------------------------------------------------------------------------- */

static void test_child_alone_is_not_found(void **state)
{
    struct kv_rig *rig = *state;
    store(rig, 1, tokens);
    assert_int_equal(found(rig, tokens), 0);
}

static void test_child_of_other_tokens_is_not_found(void **state)
{
    struct kv_rig *rig = *state;
    uint32_t asked[LENGTH * KV_TOKENS];
    memcpy(asked, tokens, sizeof asked);
    asked[KV_TOKENS] ^= 1;
    store(rig, 1, tokens);
    store(rig, 0, tokens);
    assert_int_equal(found(rig, asked), 1);
    assert_int_equal(found(rig, tokens), 2); /* who asked for other tokens has bound nothing */
}

static void test_child_of_another_namespace_is_not_found(void **state)
{
    struct kv_rig *rig = *state;
    uint32_t ns = 0;
    kv_ok(kvb_namespace_open(rig->kv, "a", 1, NULL, 0, &ns));
    kv_ok(try_register(rig, &blocks[1], ns, 1, keys[0], tokens));
    store(rig, 0, tokens);
    assert_int_equal(found(rig, tokens), 1);
}

static void test_child_behind_another_key_is_not_found(void **state)
{
    struct kv_rig *rig = *state;
    kv_ok(try_register(rig, &blocks[1], 0, 1, keys[3], tokens));
    store(rig, 0, tokens);
    assert_int_equal(found(rig, tokens), 1);
}

/* ---- Bound ----------------------------------------------------------------------------------- */

static void replace_root(struct kv_rig *rig)
{
    forget(rig, 0);
    store(rig, 0, others);
}

static void test_child_that_was_found_is_not_found_behind_other_content(void **state)
{
    struct kv_rig *rig = *state;
    store(rig, 2, tokens);
    store(rig, 1, tokens);
    store(rig, 0, tokens);
    assert_int_equal(found(rig, tokens), 3);
    replace_root(rig);
    assert_int_equal(found(rig, others), 1);
    forget(rig, 0);
    store(rig, 0, tokens);
    assert_int_equal(found(rig, tokens), 3);
}

static void test_lookup_binds_as_match_does(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_query query = query_of(0, tokens);
    uint64_t tiers[KVB_TIER_COUNT];
    store(rig, 1, tokens);
    store(rig, 0, tokens);
    kv_ok(kvb_lookup(rig->kv, &query, tiers));
    assert_int_equal(tiers[KVB_TIER_DEVICE], 2);
    replace_root(rig);
    assert_int_equal(found(rig, others), 1);
}

/* A grandchild that comes after the binding is known to stand behind all of it. */
static void test_block_registered_behind_a_bound_one_is_bound_with_it(void **state)
{
    struct kv_rig *rig = *state;
    store(rig, 1, tokens);
    store(rig, 0, tokens);
    assert_int_equal(found(rig, tokens), 2);
    store(rig, 2, tokens);
    replace_root(rig);
    forget(rig, 1);
    store(rig, 1, others);
    assert_int_equal(found(rig, others), 2);
}

/*
 * The same content again, behind the parent by now: told from other content by what it is bound to,
 * and no successor.
 */
static void test_bound_block_that_is_held_stays_indexed_beside_its_duplicate(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *again;
    store(rig, 1, tokens);
    store(rig, 0, tokens);
    assert_int_equal(found(rig, tokens), 2);
    kv_ok(try_register(rig, &again, 0, 1, keys[0], tokens));
    assert_int_equal(kv_describe(rig, blocks[1]).indexed, 1);
    assert_int_equal(kv_describe(rig, again).indexed, 0);
    kv_unref(rig, again);
    assert_int_equal(found(rig, tokens), 2);
}

static void test_bound_block_and_the_same_tokens_behind_other_content_collide(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *other;
    store(rig, 1, tokens);
    store(rig, 0, tokens);
    assert_int_equal(found(rig, tokens), 2);
    replace_root(rig);
    kv_expect(try_register(rig, &other, 0, 1, keys[0], others), KVB_ECOLLISION);
    kv_unref(rig, other);
    assert_int_equal(found(rig, others), 1);
}

/*
 * What comes before the new one is not known, and what the index promises of the old one is:
 * nothing takes its place.
 */
static void test_bound_block_gives_no_place_to_one_that_is_not_known_to_be_the_same(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *again, *old;
    store(rig, 1, tokens);
    store(rig, 0, tokens);
    assert_int_equal(found(rig, tokens), 2);
    forget(rig, 0);
    old = blocks[1];
    kv_unref(rig, old); /* parked */
    blocks[1] = NULL;
    kv_ok(try_register(rig, &again, 0, 1, keys[0], tokens));
    assert_int_equal(kv_describe(rig, again).indexed, 0);
    kv_unref(rig, again);
    store(rig, 0, tokens);
    assert_int_equal(found(rig, tokens), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(unopened, test_run_is_found_in_whatever_order_it_was_registered),
        TEST(unopened, test_run_longer_than_a_section_is_found_tail_first),
        TEST(opened, test_child_alone_is_not_found),
        TEST(opened, test_child_of_other_tokens_is_not_found),
        TEST(opened, test_child_of_another_namespace_is_not_found),
        TEST(opened, test_child_behind_another_key_is_not_found),
        TEST(opened, test_child_that_was_found_is_not_found_behind_other_content),
        TEST(opened, test_lookup_binds_as_match_does),
        TEST(opened, test_block_registered_behind_a_bound_one_is_bound_with_it),
        TEST(opened, test_bound_block_that_is_held_stays_indexed_beside_its_duplicate),
        TEST(opened, test_bound_block_and_the_same_tokens_behind_other_content_collide),
        TEST(opened, test_bound_block_gives_no_place_to_one_that_is_not_known_to_be_the_same),
    };
    return cmocka_run_group_tests_name("names_order", tests, NULL, NULL);
}
