/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names from tokens: the interoperable chain, what salts and adapters do to it, the digest beside it, and namespaces.
 */
#include "support/kv_test.h"

#include "base/hash.h"

static struct kv_rig rig;

static int setup(void **state)
{
    (void)state;
    kv_rig_init(&rig);
    kv_rig_open(&rig);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    kv_rig_close(&rig);
    return 0;
}

static const uint32_t ONE_TO_TWELVE[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};

static uint32_t open_namespace(const char *salt, const char *adapter)
{
    uint32_t id = UINT32_MAX;
    kv_ok(kvb_namespace_open(rig.kv, salt, strlen(salt), adapter, strlen(adapter), &id));
    return id;
}

static struct kvb_seq name_of(struct kv_rig *of, uint32_t ns, const struct kvb_seq *parent,
                              const uint32_t *tokens)
{
    struct kvb_seq seq = {0};
    size_t count = 0;
    kv_ok(kvb_hash_tokens(of->kv, ns, parent, tokens, KV_TOKENS, &seq, 1, &count));
    assert_int_equal(count, 1);
    return seq;
}

static bool same_digest(const struct kvb_seq *a, const struct kvb_seq *b)
{
    return memcmp(a->digest, b->digest, sizeof a->digest) == 0;
}

/* ---- The chain ---------------------------------------------------------------------------------------------------- */

/* The constants are NVIDIA Dynamo's own: salt hash 1337, four tokens a block. */
static void test_hash_of_tokens_1_to_12_is_dynamos(void **state)
{
    (void)state;
    struct kvb_seq seqs[3];
    size_t count = 0;
    kv_ok(kvb_hash_tokens(rig.kv, 0, NULL, ONE_TO_TWELVE, 12, seqs, 3, &count));
    assert_int_equal(count, 3);
    assert_true(seqs[0].hash == UINT64_C(14643705804678351452));
    assert_true(seqs[1].hash == UINT64_C(4945711292740353085));
    assert_true(seqs[2].hash == UINT64_C(12583592247330656132));
}

/* interop: salt_hash = 1337 + xxh3_64(adapter, seed 0) + xxh3_64(salt, seed 1) */
static void test_hash_with_salt_and_adapter_is_dynamos_formula(void **state)
{
    (void)state;
    const struct kvbi_hash_ops *xxh3 = &kvbi_hash_baseline;
    uint64_t salt_hash = 1337 + xxh3->hash64("adapter", 7, 0) + xxh3->hash64("salt", 4, 1);
    uint64_t expected[2];
    expected[0] = xxh3->hash64(ONE_TO_TWELVE, 16, salt_hash);
    uint64_t link[2] = {expected[0], xxh3->hash64(ONE_TO_TWELVE + 4, 16, salt_hash)};
    expected[1] = xxh3->hash64(link, sizeof link, 1337);

    struct kvb_seq seqs[2];
    size_t count = 0;
    kv_ok(kvb_hash_tokens(rig.kv, open_namespace("salt", "adapter"), NULL, ONE_TO_TWELVE, 8, seqs,
                          2, &count));
    assert_true(seqs[0].hash == expected[0]);
    assert_true(seqs[1].hash == expected[1]);
}

static void test_hash_with_adapter_only_adds_its_hash_only(void **state)
{
    (void)state;
    const struct kvbi_hash_ops *xxh3 = &kvbi_hash_baseline;
    uint64_t expected = xxh3->hash64(ONE_TO_TWELVE, 16, 1337 + xxh3->hash64("lora", 4, 0));
    assert_true(name_of(&rig, open_namespace("", "lora"), NULL, ONE_TO_TWELVE).hash == expected);
}

static void test_hash_continued_from_parent_equals_one_run(void **state)
{
    (void)state;
    enum { BLOCKS = 70 };
    static uint32_t tokens[BLOCKS * KV_TOKENS];
    static struct kvb_seq whole[BLOCKS], parts[BLOCKS];
    size_t count = 0;
    kv_tokens(tokens, BLOCKS * KV_TOKENS, 1);
    kv_ok(kvb_hash_tokens(rig.kv, 0, NULL, tokens, BLOCKS * KV_TOKENS, whole, BLOCKS, &count));
    for (size_t i = 0; i < BLOCKS; i++) {
        kv_ok(kvb_hash_tokens(rig.kv, 0, i == 0 ? NULL : &parts[i - 1], tokens + i * KV_TOKENS,
                              KV_TOKENS, &parts[i], 1, &count));
    }
    assert_memory_equal(whole, parts, sizeof whole);
}

static void test_hash_batch_beyond_64_blocks_follows_the_formula(void **state)
{
    (void)state;
    enum { BLOCKS = 300 };
    static uint32_t tokens[BLOCKS * KV_TOKENS];
    static struct kvb_seq seqs[BLOCKS];
    size_t count = 0;
    int wrong = 0;
    const struct kvbi_hash_ops *xxh3 = &kvbi_hash_baseline;
    kv_tokens(tokens, BLOCKS * KV_TOKENS, 2);
    kv_ok(kvb_hash_tokens(rig.kv, 0, NULL, tokens, BLOCKS * KV_TOKENS, seqs, BLOCKS, &count));
    assert_int_equal(count, BLOCKS);
    uint64_t expected = xxh3->hash64(tokens, KV_TOKENS * 4, 1337);
    for (size_t i = 0; i < BLOCKS; i++) {
        if (i > 0) {
            uint64_t link[2] = {expected,
                                xxh3->hash64(tokens + i * KV_TOKENS, KV_TOKENS * 4, 1337)};
            expected = xxh3->hash64(link, sizeof link, 1337);
        }
        wrong += seqs[i].hash != expected;
    }
    assert_int_equal(wrong, 0);
}

static void test_hash_leaves_out_an_incomplete_tail(void **state)
{
    (void)state;
    struct kvb_seq seqs[3], whole[2];
    size_t count = 0;
    memset(seqs, 0x55, sizeof seqs);
    struct kvb_seq untouched = seqs[2];
    kv_ok(kvb_hash_tokens(rig.kv, 0, NULL, ONE_TO_TWELVE, 11, seqs, 3, &count));
    assert_int_equal(count, 2);
    assert_memory_equal(&seqs[2], &untouched, sizeof untouched);
    kv_ok(kvb_hash_tokens(rig.kv, 0, NULL, ONE_TO_TWELVE, 8, whole, 2, &count));
    assert_memory_equal(seqs, whole, sizeof whole);
}

static void test_hash_of_less_than_a_block_is_nothing(void **state)
{
    (void)state;
    size_t count = 9;
    kv_ok(kvb_hash_tokens(rig.kv, 0, NULL, ONE_TO_TWELVE, 3, NULL, 0, &count));
    assert_int_equal(count, 0);
}

static void test_hash_with_too_little_capacity_says_how_much_is_needed(void **state)
{
    (void)state;
    struct kvb_seq seqs[3];
    size_t count = 0;
    kv_expect(kvb_hash_tokens(rig.kv, 0, NULL, ONE_TO_TWELVE, 12, seqs, 2, &count), KVB_ENOSPC);
    assert_int_equal(count, 3);
    kv_expect(kvb_hash_tokens(rig.kv, 0, NULL, ONE_TO_TWELVE, 12, NULL, 0, &count), KVB_ENOSPC);
    assert_int_equal(count, 3);
}

static void test_hash_of_other_tokens_differs(void **state)
{
    (void)state;
    struct kvb_seq a = name_of(&rig, 0, NULL, ONE_TO_TWELVE),
                   b = name_of(&rig, 0, NULL, ONE_TO_TWELVE + 1);
    assert_true(a.hash != b.hash);
    assert_false(same_digest(&a, &b));
}

static void test_hash_after_another_parent_differs(void **state)
{
    (void)state;
    struct kvb_seq p = name_of(&rig, 0, NULL, ONE_TO_TWELVE),
                   q = name_of(&rig, 0, NULL, ONE_TO_TWELVE + 1);
    struct kvb_seq a = name_of(&rig, 0, &p, ONE_TO_TWELVE + 8),
                   b = name_of(&rig, 0, &q, ONE_TO_TWELVE + 8);
    assert_true(a.hash != b.hash);
    assert_false(same_digest(&a, &b));
}

static void test_hash_in_unknown_namespace_is_not_found(void **state)
{
    (void)state;
    struct kvb_seq seq;
    size_t count = 9;
    kv_expect(kvb_hash_tokens(rig.kv, 3, NULL, ONE_TO_TWELVE, 4, &seq, 1, &count), KVB_ENOENT);
    assert_int_equal(count, 0);
}

static void test_hash_with_callers_keys_is_unsupported(void **state)
{
    (void)state;
    static struct kv_rig keyed;
    struct kvb_seq seq;
    size_t count = 9;
    kv_rig_init(&keyed);
    keyed.config.key_bytes = 32;
    kv_rig_open(&keyed);
    kv_expect(kvb_hash_tokens(keyed.kv, 0, NULL, ONE_TO_TWELVE, 4, &seq, 1, &count),
              KVB_EUNSUPPORTED);
    assert_int_equal(count, 0);
    kv_rig_close(&keyed);
}

/* ---- The digest --------------------------------------------------------------------------------------------------- */

static void test_digest_is_never_all_zero(void **state)
{
    (void)state;
    uint32_t tokens[KV_TOKENS];
    for (uint64_t i = 0; i < 1000; i++) {
        kv_tokens(tokens, KV_TOKENS, i);
        struct kvb_seq seq = name_of(&rig, 0, NULL, tokens);
        assert_true((seq.digest[0] | seq.digest[1]) != 0);
    }
}

/* The name of a block of eight tokens in a manager of its own with this seed. */
static struct kvb_seq name_with_seed(uint64_t seed)
{
    static struct kv_rig own;
    kv_rig_init(&own);
    own.config.digest_seed = seed;
    kv_rig_open(&own);
    struct kvb_seq parent = name_of(&own, 0, NULL, ONE_TO_TWELVE);
    struct kvb_seq seq = name_of(&own, 0, &parent, ONE_TO_TWELVE + 4);
    kv_rig_close(&own);
    return seq;
}

static void test_digest_with_the_same_seed_is_reproducible(void **state)
{
    (void)state;
    struct kvb_seq a = name_with_seed(99), b = name_with_seed(99);
    assert_memory_equal(&a, &b, sizeof a);
}

static void test_digest_with_another_seed_differs_and_hash_does_not(void **state)
{
    (void)state;
    struct kvb_seq a = name_with_seed(99), b = name_with_seed(100);
    assert_true(a.hash == b.hash);
    assert_false(same_digest(&a, &b));
}

static void test_digest_without_seed_is_random(void **state)
{
    (void)state;
    struct kvb_seq a = name_with_seed(0), b = name_with_seed(0);
    assert_true(a.hash == b.hash);
    assert_false(same_digest(&a, &b));
}

/* ---- Namespaces --------------------------------------------------------------------------------------------------- */

static void test_namespace_of_equal_bytes_has_the_same_id(void **state)
{
    (void)state;
    char salt[] = "tenant";
    uint32_t first = open_namespace(salt, "a");
    salt[0] = 'x'; /* it was copied */
    assert_int_equal(open_namespace("tenant", "a"), first);
}

static void test_namespace_of_nothing_is_0(void **state)
{
    (void)state;
    uint32_t id = 9;
    kv_ok(kvb_namespace_open(rig.kv, NULL, 0, NULL, 0, &id));
    assert_int_equal(id, 0);
}

static void test_namespaces_differ_in_id_hash_and_digest(void **state)
{
    (void)state;
    const uint32_t ids[] = {0,
                            open_namespace("a", ""),
                            open_namespace("", "a"),
                            open_namespace("ab", "c"),
                            open_namespace("a", "bc"),
                            open_namespace("a", "c")};
    enum { COUNT = sizeof ids / sizeof *ids };
    struct kvb_seq names[COUNT];
    for (int i = 0; i < COUNT; i++) {
        names[i] = name_of(&rig, ids[i], NULL, ONE_TO_TWELVE);
        for (int j = 0; j < i; j++) {
            assert_int_not_equal(ids[i], ids[j]);
            assert_true(names[i].hash != names[j].hash);
            assert_false(same_digest(&names[i], &names[j]));
        }
    }
}

static void test_namespace_of_bytes_with_zeroes_is_its_own(void **state)
{
    (void)state;
    uint32_t a = 0, b = 0;
    kv_ok(kvb_namespace_open(rig.kv, "a\0b", 3, NULL, 0, &a));
    kv_ok(kvb_namespace_open(rig.kv, "a\0c", 3, NULL, 0, &b));
    assert_int_not_equal(a, b);
}

static void test_namespace_strings_up_to_4096_bytes(void **state)
{
    (void)state;
    static unsigned char bytes[4097];
    uint32_t id = 9;
    kv_ok(kvb_namespace_open(rig.kv, bytes, 4096, bytes, 4096, &id));
    assert_int_not_equal(id, 0);
    kv_expect(kvb_namespace_open(rig.kv, bytes, 4097, NULL, 0, &id), KVB_EINVAL);
    kv_expect(kvb_namespace_open(rig.kv, NULL, 0, bytes, 4097, &id), KVB_EINVAL);
    kv_expect(kvb_namespace_open(rig.kv, bytes, SIZE_MAX, NULL, 0, &id), KVB_EINVAL);
}

static void test_namespace_beyond_capacity_has_no_space(void **state)
{
    (void)state;
    char salt[16];
    uint32_t id = 0, opened = 0;
    int code = 0;
    for (; opened < 100; opened++) {
        (void)snprintf(salt, sizeof salt, "%u", opened);
        code = kvb_namespace_open(rig.kv, salt, strlen(salt), NULL, 0, &id);
        if (code != 0) {
            break;
        }
    }
    assert_int_equal(code, KVB_ENOSPC);
    /* Whether id 0 counts is not promised. */
    assert_in_range(opened, rig.config.namespace_capacity - 1, rig.config.namespace_capacity);
    kv_ok(kvb_namespace_open(rig.kv, "0", 1, NULL, 0, &id)); /* what is there stays there */
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_hash_of_tokens_1_to_12_is_dynamos),
        TEST(test_hash_with_salt_and_adapter_is_dynamos_formula),
        TEST(test_hash_with_adapter_only_adds_its_hash_only),
        TEST(test_hash_continued_from_parent_equals_one_run),
        TEST(test_hash_batch_beyond_64_blocks_follows_the_formula),
        TEST(test_hash_leaves_out_an_incomplete_tail),
        TEST(test_hash_of_less_than_a_block_is_nothing),
        TEST(test_hash_with_too_little_capacity_says_how_much_is_needed),
        TEST(test_hash_of_other_tokens_differs),
        TEST(test_hash_after_another_parent_differs),
        TEST(test_hash_in_unknown_namespace_is_not_found),
        cmocka_unit_test(test_hash_with_callers_keys_is_unsupported),
        TEST(test_digest_is_never_all_zero),
        cmocka_unit_test(test_digest_with_the_same_seed_is_reproducible),
        cmocka_unit_test(test_digest_with_another_seed_differs_and_hash_does_not),
        cmocka_unit_test(test_digest_without_seed_is_random),
        TEST(test_namespace_of_equal_bytes_has_the_same_id),
        TEST(test_namespace_of_nothing_is_0),
        TEST(test_namespaces_differ_in_id_hash_and_digest),
        TEST(test_namespace_of_bytes_with_zeroes_is_its_own),
        TEST(test_namespace_strings_up_to_4096_bytes),
        TEST(test_namespace_beyond_capacity_has_no_space),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
