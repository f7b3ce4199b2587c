/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names that are made to collide: whatever is refused, nobody is served another's block.
 */
#include "support/find.h"

#include "base/hash.h"

/* XXH3, except that a run of tokens that begins with B hashes as if it began with A. */
enum { A = 1111, B = 2222 };
static bool collide_128; /* the digest too */
static bool ignore_seed; /* and salts make no difference to the 64-bit hash */

static const void *disguise(const void *data, size_t bytes, unsigned char *copy)
{
    uint32_t first = 0;
    if (bytes != KV_TOKENS * sizeof first)
        return data;
    memcpy(copy, data, bytes);
    memcpy(&first, copy, sizeof first);
    if (first == B) {
        first = A;
        memcpy(copy, &first, sizeof first);
    }
    return copy;
}

static uint64_t colliding_64(const void *data, size_t bytes, uint64_t seed)
{
    unsigned char copy[KV_TOKENS * sizeof(uint32_t)];
    return kvbi_hash_baseline.hash64(disguise(data, bytes, copy), bytes, ignore_seed ? 0 : seed);
}

static struct kvbi_hash128 colliding_128(const void *data, size_t bytes, uint64_t seed)
{
    unsigned char copy[KV_TOKENS * sizeof(uint32_t)];
    return kvbi_hash_baseline.hash128(collide_128 ? disguise(data, bytes, copy) : data, bytes,
                                      seed);
}

static const uint32_t ROOT_A[] = {A, 2, 3, 4, 5, 6, 7, 8};
/* The same child: all its names collide. */
static const uint32_t ROOT_B[] = {B, 2, 3, 4, 5, 6, 7, 8};
/* A child of its own. */
static const uint32_t ROOT_B_OWN[] = {B, 2, 3, 4, 9, 9, 9, 9};

typedef uint64_t hash64_function(const void *data, size_t bytes, uint64_t seed);
typedef struct kvbi_hash128 hash128_function(const void *data, size_t bytes, uint64_t seed);

static void open_with(struct kv_rig *rig, hash64_function *hash64, hash128_function *hash128)
{
    static struct kvbi_hash_ops ops;
    const struct kvbi_hooks hooks = {.hash = &ops};
    ops = (struct kvbi_hash_ops){hash64, hash128, "test"};
    kv_rig_open_hooked(rig, &hooks);
}

/* Two tiers, to be opened with the hashes that the test is about. */
static int hashes_setup(void **state)
{
    collide_128 = false;
    ignore_seed = false;
    return kv_two_tiers_setup(state);
}

#define hashes_teardown kv_scene_end

static int collisions_setup(void **state)
{
    (void)hashes_setup(state);
    open_with(*state, colliding_64, colliding_128);
    return 0;
}

#define collisions_teardown kv_scene_end

static void test_collision_is_forced_by_the_test_hash(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_seq a, b;
    find_name(rig, 0, ROOT_A, 1, &a);
    find_name(rig, 0, ROOT_B, 1, &b);
    assert_true(a.hash == b.hash);
    assert_memory_not_equal(a.digest, b.digest, sizeof a.digest);
}

static void test_collision_register_is_refused_and_stays_complete(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *a = find_try_register(rig, 0, 0, NULL, ROOT_A, 0);
    struct kvb_block *b = find_try_register(rig, 0, 0, NULL, ROOT_B, KVB_ECOLLISION);
    assert_int_equal(kv_describe(rig, b).state, KVB_STATE_COMPLETE);
    assert_int_equal(kv_describe(rig, b).indexed, 0);
    assert_int_equal(kv_stats(rig).tiers[0].collisions, 1);
    kv_unref(rig, b);
    kv_unref(rig, a);
}

static void test_collision_serves_neither_the_others_block(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *a = find_try_register(rig, 0, 0, NULL, ROOT_A, 0);
    struct kvb_block *b = find_try_register(rig, 0, 0, NULL, ROOT_B, KVB_ECOLLISION);
    assert_int_equal(find_match_tokens(rig, 0, ROOT_A, 1), 1);
    assert_int_equal(find_match_tokens(rig, 0, ROOT_B, 1), 0);
    kv_unref(rig, b);
    kv_unref(rig, a);
}

static void test_collision_key_with_digest_finds_nothing(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_seq b;
    struct kvb_hit hits[FIND_RUN];
    struct kvb_block *a = find_try_register(rig, 0, 0, NULL, ROOT_A, 0);
    find_name(rig, 0, ROOT_B, 1, &b);
    struct kvb_query query = find_by_keys(&b, 1);
    assert_int_equal(find_match(rig, &query, hits), 0);
    query = find_by_both(0, ROOT_B, &b, 1);
    assert_int_equal(find_match(rig, &query, hits), 0);
    kv_unref(rig, a);
}

static void test_collision_descendants_are_refused(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_seq b;
    struct kvb_block *a = find_try_register(rig, 0, 0, NULL, ROOT_A, 0);
    find_name(rig, 0, ROOT_B, 1, &b);
    struct kvb_block *same = find_try_register(rig, 0, 1, &b, ROOT_B + 4, KVB_ECOLLISION);
    struct kvb_block *own = find_try_register(rig, 0, 1, &b, ROOT_B_OWN + 4, KVB_ECOLLISION);
    kv_unref(rig, own);
    kv_unref(rig, same);
    kv_unref(rig, a);
}

static void test_collision_of_a_whole_chain_serves_the_first_only(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_seq b;
    find_park(rig, KVB_TIER_DEVICE, 0, ROOT_A, 2);
    find_name(rig, 0, ROOT_B, 1, &b);
    kv_unref(rig, find_try_register(rig, 0, 0, NULL, ROOT_B, KVB_ECOLLISION));
    kv_unref(rig, find_try_register(rig, 0, 1, &b, ROOT_B + 4, KVB_ECOLLISION));
    assert_int_equal(find_match_tokens(rig, 0, ROOT_A, 2), 2);
    assert_int_equal(find_match_tokens(rig, 0, ROOT_B, 2), 0);
}

static void test_collision_emits_no_event(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *a = find_try_register(rig, 0, 0, NULL, ROOT_A, 0);
    kv_unref(rig, find_try_register(rig, 0, 0, NULL, ROOT_B, KVB_ECOLLISION));
    kv_poll(rig);
    assert_int_equal(rig->events.count, 1);
    kv_unref(rig, a);
}

static void test_collision_across_namespaces_is_refused(void **state)
{
    struct kv_rig *rig = *state;
    uint32_t ns = 0;
    ignore_seed = true;
    kv_ok(kvb_namespace_open(rig->kv, "other", 5, NULL, 0, &ns));
    struct kvb_block *a = find_try_register(rig, 0, 0, NULL, ROOT_A, 0);
    struct kvb_block *b = find_try_register(rig, ns, 0, NULL, ROOT_A, KVB_ECOLLISION);
    assert_int_equal(find_match_tokens(rig, ns, ROOT_A, 1), 0);
    assert_int_equal(find_match_tokens(rig, 0, ROOT_A, 1), 1);
    kv_unref(rig, b);
    kv_unref(rig, a);
}

static void test_collision_of_hash_and_digest_is_told_by_tokens(void **state)
{
    struct kv_rig *rig = *state;
    collide_128 = true;
    struct kvb_block *a = find_try_register(rig, 0, 0, NULL, ROOT_A, 0);
    struct kvb_block *b = find_try_register(rig, 0, 0, NULL, ROOT_B, KVB_ECOLLISION);
    assert_int_equal(find_match_tokens(rig, 0, ROOT_B, 1), 0);
    assert_int_equal(find_match_tokens(rig, 0, ROOT_A, 1), 1);
    kv_unref(rig, b);
    kv_unref(rig, a);
}

/* Equal digests under different hashes: two entries, each found by its own tokens. */
static void test_collision_of_the_digest_alone_keeps_contents_apart(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_hit hit_a[FIND_RUN], hit_b[FIND_RUN];
    collide_128 = true;
    open_with(rig, kvbi_hash_baseline.hash64, colliding_128);
    struct kvb_block *a = find_try_register(rig, 0, 0, NULL, ROOT_A, 0);
    struct kvb_block *b = find_try_register(rig, 0, 0, NULL, ROOT_B, 0);
    struct kvb_query query_a = kv_query(0, ROOT_A, KV_TOKENS),
                     query_b = kv_query(0, ROOT_B, KV_TOKENS);
    assert_int_equal(find_match(rig, &query_a, hit_a), 1);
    assert_int_equal(find_match(rig, &query_b, hit_b), 1);
    assert_ptr_equal(hit_a[0].block, a);
    assert_ptr_equal(hit_b[0].block, b);
    kv_unref(rig, b);
    kv_unref(rig, a);
}

/* The worst hash there is: whatever is refused, nothing wrong is served. */
static void test_collision_of_everything_serves_exact_contents_only(void **state)
{
    struct kv_rig *rig = *state;
    open_with(rig, find_constant_64, colliding_128);
    uint32_t tokens[6][KV_TOKENS];
    struct kvb_block *blocks[6];
    for (uint32_t i = 0; i < 6; i++) {
        kv_tokens(tokens[i], KV_TOKENS, i);
        blocks[i] = find_try_register(rig, 0, 0, NULL, tokens[i], i == 0 ? 0 : KVB_ECOLLISION);
    }
    for (uint32_t i = 0; i < 6; i++)
        assert_int_equal(find_match_tokens(rig, 0, tokens[i], 1), i == 0 ? 1 : 0);
    find_unref(rig, blocks, 6);
}

static void test_collision_name_is_free_again_after_eviction(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_seq a;
    kv_unref(rig, find_try_register(rig, 0, 0, NULL, ROOT_A, 0));
    find_name(rig, 0, ROOT_A, 1, &a);
    kv_ok(kvb_invalidate(rig->kv, &a, 1, NULL));
    kv_unref(rig, find_try_register(rig, 0, 0, NULL, ROOT_B, 0));
    assert_int_equal(find_match_tokens(rig, 0, ROOT_B, 1), 1);
    assert_int_equal(find_match_tokens(rig, 0, ROOT_A, 1), 0);
}

/*
 * A's child is still there under a name that both children have, when B's root takes the name of
 * A's.
 */
static void test_collision_child_of_a_root_that_is_gone_is_not_served_to_another(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_seq a;
    find_park(rig, KVB_TIER_DEVICE, 0, ROOT_A, 2);
    find_name(rig, 0, ROOT_A, 1, &a);
    kv_ok(kvb_invalidate(rig->kv, &a, 1, NULL));
    kv_unref(rig, find_try_register(rig, 0, 0, NULL, ROOT_B, 0));
    assert_int_equal(find_match_tokens(rig, 0, ROOT_B, 2), 1);
}

static uint64_t tokens_only_64(const void *data, size_t bytes, uint64_t seed)
{
    (void)seed;
    return kvbi_hash_baseline.hash64(data, bytes, 0);
}

static struct kvbi_hash128 constant_128(const void *data, size_t bytes, uint64_t seed)
{
    (void)data;
    (void)bytes;
    (void)seed;
    return (struct kvbi_hash128){42, 42};
}

/* Equal tokens, equal hash, equal digest: the namespace itself is compared. */
static void test_collision_of_all_names_across_namespaces_serves_one_tenant_only(void **state)
{
    struct kv_rig *rig = *state;
    uint32_t ns = 0;
    open_with(rig, tokens_only_64, constant_128);
    kv_ok(kvb_namespace_open(rig->kv, "other", 5, NULL, 0, &ns));
    struct kvb_block *a = find_try_register(rig, 0, 0, NULL, ROOT_A, 0);
    struct kvb_block *b = find_try_register(rig, ns, 0, NULL, ROOT_A, KVB_ECOLLISION);
    assert_int_equal(find_match_tokens(rig, 0, ROOT_A, 1), 1);
    assert_int_equal(find_match_tokens(rig, ns, ROOT_A, 1), 0);
    kv_unref(rig, b);
    kv_unref(rig, a);
}

static void test_invalidate_by_colliding_key_leaves_the_other_alone(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_seq b;
    kv_unref(rig, find_try_register(rig, 0, 0, NULL, ROOT_A, 0));
    find_name(rig, 0, ROOT_B, 1, &b);
    kv_expect(kvb_invalidate(rig->kv, &b, 1, NULL), KVB_ENOENT);
    assert_int_equal(find_match_tokens(rig, 0, ROOT_A, 1), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(collisions, test_collision_is_forced_by_the_test_hash),
        TEST(collisions, test_collision_register_is_refused_and_stays_complete),
        TEST(collisions, test_collision_serves_neither_the_others_block),
        TEST(collisions, test_collision_key_with_digest_finds_nothing),
        TEST(collisions, test_collision_descendants_are_refused),
        TEST(collisions, test_collision_of_a_whole_chain_serves_the_first_only),
        TEST(collisions, test_collision_emits_no_event),
        TEST(collisions, test_collision_across_namespaces_is_refused),
        TEST(collisions, test_collision_of_hash_and_digest_is_told_by_tokens),
        TEST(hashes, test_collision_of_the_digest_alone_keeps_contents_apart),
        TEST(hashes, test_collision_of_everything_serves_exact_contents_only),
        TEST(collisions, test_collision_name_is_free_again_after_eviction),
        TEST(collisions, test_collision_child_of_a_root_that_is_gone_is_not_served_to_another),
        TEST(hashes, test_collision_of_all_names_across_namespaces_serves_one_tenant_only),
        TEST(collisions, test_invalidate_by_colliding_key_leaves_the_other_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
