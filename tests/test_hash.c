/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names from tokens: the interoperable chain, what salts and adapters do to it, the digest beside
 * it, and namespaces.
 */
#include "support/kv_scene.h"

#include "base/hash.h"

static const uint32_t ONE_TO_TWELVE[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};

static uint32_t open_namespace(struct kv_rig *rig, const char *salt, const char *adapter)
{
    uint32_t id = UINT32_MAX;
    kv_ok(kvb_namespace_open(rig->kv, salt, strlen(salt), adapter, strlen(adapter), &id));
    return id;
}

static struct kvb_seq name_of(struct kv_rig *rig, uint32_t ns, const struct kvb_seq *parent,
                              const uint32_t *tokens)
{
    struct kvb_seq seq = {0};
    size_t count = 0;
    kv_ok(kvb_hash_tokens(rig->kv, ns, parent, tokens, KV_TOKENS, &seq, 1, &count));
    assert_int_equal(count, 1);
    return seq;
}

static bool same_digest(const struct kvb_seq *a, const struct kvb_seq *b)
{
    return memcmp(a->digest, b->digest, sizeof a->digest) == 0;
}

/* ---- The chain ------------------------------------------------------------------------------- */

/* The constants are NVIDIA Dynamo's own: salt hash 1337, four tokens a block. */
static void test_hash_of_tokens_1_to_12_is_dynamos(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_seq seqs[3];
    size_t count = 0;
    kv_ok(kvb_hash_tokens(rig->kv, 0, NULL, ONE_TO_TWELVE, 12, seqs, 3, &count));
    assert_int_equal(count, 3);
    assert_true(seqs[0].hash == UINT64_C(14643705804678351452));
    assert_true(seqs[1].hash == UINT64_C(4945711292740353085));
    assert_true(seqs[2].hash == UINT64_C(12583592247330656132));
}

/* interop: salt_hash = 1337 + xxh3_64(adapter, seed 0) + xxh3_64(salt, seed 1) */
static void test_hash_with_salt_and_adapter_is_dynamos_formula(void **state)
{
    struct kv_rig *rig = *state;
    const struct kvbi_hash_ops *xxh3 = &kvbi_hash_baseline;
    uint64_t salt_hash = 1337 + xxh3->hash64("adapter", 7, 0) + xxh3->hash64("salt", 4, 1);
    uint64_t expected[2];
    expected[0] = xxh3->hash64(ONE_TO_TWELVE, 16, salt_hash);
    uint64_t link[2] = {expected[0], xxh3->hash64(ONE_TO_TWELVE + 4, 16, salt_hash)};
    expected[1] = xxh3->hash64(link, sizeof link, 1337);

    struct kvb_seq seqs[2];
    size_t count = 0;
    kv_ok(kvb_hash_tokens(rig->kv, open_namespace(rig, "salt", "adapter"), NULL, ONE_TO_TWELVE, 8,
                          seqs, 2, &count));
    assert_true(seqs[0].hash == expected[0]);
    assert_true(seqs[1].hash == expected[1]);
}

static void test_hash_with_adapter_only_adds_its_hash_only(void **state)
{
    struct kv_rig *rig = *state;
    const struct kvbi_hash_ops *xxh3 = &kvbi_hash_baseline;
    uint64_t expected = xxh3->hash64(ONE_TO_TWELVE, 16, 1337 + xxh3->hash64("lora", 4, 0));
    assert_true(name_of(rig, open_namespace(rig, "", "lora"), NULL, ONE_TO_TWELVE).hash ==
                expected);
}

static void test_hash_continued_from_parent_equals_one_run(void **state)
{
    struct kv_rig *rig = *state;
    enum { BLOCKS = 70 };
    static uint32_t tokens[BLOCKS * KV_TOKENS];
    static struct kvb_seq whole[BLOCKS], parts[BLOCKS];
    size_t count = 0;
    kv_tokens(tokens, BLOCKS * KV_TOKENS, 1);
    kv_ok(kvb_hash_tokens(rig->kv, 0, NULL, tokens, BLOCKS * KV_TOKENS, whole, BLOCKS, &count));
    for (size_t i = 0; i < BLOCKS; i++)
        kv_ok(kvb_hash_tokens(rig->kv, 0, i == 0 ? NULL : &parts[i - 1], tokens + i * KV_TOKENS,
                              KV_TOKENS, &parts[i], 1, &count));
    assert_memory_equal(whole, parts, sizeof whole);
}

static void test_hash_batch_beyond_64_blocks_follows_the_formula(void **state)
{
    struct kv_rig *rig = *state;
    enum { BLOCKS = 300 };
    static uint32_t tokens[BLOCKS * KV_TOKENS];
    static struct kvb_seq seqs[BLOCKS];
    size_t count = 0;
    int wrong = 0;
    const struct kvbi_hash_ops *xxh3 = &kvbi_hash_baseline;
    kv_tokens(tokens, BLOCKS * KV_TOKENS, 2);
    kv_ok(kvb_hash_tokens(rig->kv, 0, NULL, tokens, BLOCKS * KV_TOKENS, seqs, BLOCKS, &count));
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
    struct kv_rig *rig = *state;
    struct kvb_seq seqs[3], whole[2];
    size_t count = 0;
    memset(seqs, 0x55, sizeof seqs);
    struct kvb_seq untouched = seqs[2];
    kv_ok(kvb_hash_tokens(rig->kv, 0, NULL, ONE_TO_TWELVE, 11, seqs, 3, &count));
    assert_int_equal(count, 2);
    assert_memory_equal(&seqs[2], &untouched, sizeof untouched);
    kv_ok(kvb_hash_tokens(rig->kv, 0, NULL, ONE_TO_TWELVE, 8, whole, 2, &count));
    assert_memory_equal(seqs, whole, sizeof whole);
}

static void test_hash_of_less_than_a_block_is_nothing(void **state)
{
    struct kv_rig *rig = *state;
    size_t count = 9;
    kv_ok(kvb_hash_tokens(rig->kv, 0, NULL, ONE_TO_TWELVE, 3, NULL, 0, &count));
    assert_int_equal(count, 0);
}

static void test_hash_with_too_little_capacity_says_how_much_is_needed(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_seq seqs[3];
    size_t count = 0;
    kv_expect(kvb_hash_tokens(rig->kv, 0, NULL, ONE_TO_TWELVE, 12, seqs, 2, &count), KVB_ENOSPC);
    assert_int_equal(count, 3);
    kv_expect(kvb_hash_tokens(rig->kv, 0, NULL, ONE_TO_TWELVE, 12, NULL, 0, &count), KVB_ENOSPC);
    assert_int_equal(count, 3);
}

static void test_hash_of_other_tokens_differs(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_seq a = name_of(rig, 0, NULL, ONE_TO_TWELVE),
                   b = name_of(rig, 0, NULL, ONE_TO_TWELVE + 1);
    assert_true(a.hash != b.hash);
    assert_false(same_digest(&a, &b));
}

static void test_hash_after_another_parent_differs(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_seq p = name_of(rig, 0, NULL, ONE_TO_TWELVE),
                   q = name_of(rig, 0, NULL, ONE_TO_TWELVE + 1);
    struct kvb_seq a = name_of(rig, 0, &p, ONE_TO_TWELVE + 8),
                   b = name_of(rig, 0, &q, ONE_TO_TWELVE + 8);
    assert_true(a.hash != b.hash);
    assert_false(same_digest(&a, &b));
}

static void test_hash_in_unknown_namespace_is_not_found(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_seq seq;
    size_t count = 9;
    kv_expect(kvb_hash_tokens(rig->kv, 3, NULL, ONE_TO_TWELVE, 4, &seq, 1, &count), KVB_ENOENT);
    assert_int_equal(count, 0);
}

static void test_hash_with_callers_keys_is_unsupported(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_seq seq;
    size_t count = 9;
    rig->config.key_bytes = 32;
    kv_rig_open(rig);
    kv_expect(kvb_hash_tokens(rig->kv, 0, NULL, ONE_TO_TWELVE, 4, &seq, 1, &count),
              KVB_EUNSUPPORTED);
    assert_int_equal(count, 0);
}

/* ---- The digest ------------------------------------------------------------------------------ */

static void test_digest_is_never_all_zero(void **state)
{
    struct kv_rig *rig = *state;
    uint32_t tokens[KV_TOKENS];
    for (uint64_t i = 0; i < 1000; i++) {
        kv_tokens(tokens, KV_TOKENS, i);
        struct kvb_seq seq = name_of(rig, 0, NULL, tokens);
        assert_true((seq.digest[0] | seq.digest[1]) != 0);
    }
}

/* The name of a block of eight tokens in a manager of its own with this seed. */
static struct kvb_seq name_with_seed(struct kv_rig *rig, uint64_t seed)
{
    rig->config.digest_seed = seed;
    kv_rig_open(rig);
    struct kvb_seq parent = name_of(rig, 0, NULL, ONE_TO_TWELVE);
    struct kvb_seq seq = name_of(rig, 0, &parent, ONE_TO_TWELVE + 4);
    kv_rig_close(rig);
    return seq;
}

static void test_digest_with_the_same_seed_is_reproducible(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_seq a = name_with_seed(rig, 99), b = name_with_seed(rig, 99);
    assert_memory_equal(&a, &b, sizeof a);
}

static void test_digest_with_another_seed_differs_and_hash_does_not(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_seq a = name_with_seed(rig, 99), b = name_with_seed(rig, 100);
    assert_true(a.hash == b.hash);
    assert_false(same_digest(&a, &b));
}

static void test_digest_without_seed_is_random(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_seq a = name_with_seed(rig, 0), b = name_with_seed(rig, 0);
    assert_true(a.hash == b.hash);
    assert_false(same_digest(&a, &b));
}

/* ---- Namespaces ------------------------------------------------------------------------------ */

static void test_namespace_of_equal_bytes_has_the_same_id(void **state)
{
    struct kv_rig *rig = *state;
    char salt[] = "tenant";
    uint32_t first = open_namespace(rig, salt, "a");
    salt[0] = 'x'; /* it was copied */
    assert_int_equal(open_namespace(rig, "tenant", "a"), first);
}

static void test_namespace_of_nothing_is_0(void **state)
{
    struct kv_rig *rig = *state;
    uint32_t id = 9;
    kv_ok(kvb_namespace_open(rig->kv, NULL, 0, NULL, 0, &id));
    assert_int_equal(id, 0);
}

static void test_namespaces_differ_in_id_hash_and_digest(void **state)
{
    struct kv_rig *rig = *state;
    const uint32_t ids[] = {0,
                            open_namespace(rig, "a", ""),
                            open_namespace(rig, "", "a"),
                            open_namespace(rig, "ab", "c"),
                            open_namespace(rig, "a", "bc"),
                            open_namespace(rig, "a", "c")};
    enum { COUNT = sizeof ids / sizeof *ids };
    struct kvb_seq names[COUNT];
    for (int i = 0; i < COUNT; i++) {
        names[i] = name_of(rig, ids[i], NULL, ONE_TO_TWELVE);
        for (int j = 0; j < i; j++) {
            assert_int_not_equal(ids[i], ids[j]);
            assert_true(names[i].hash != names[j].hash);
            assert_false(same_digest(&names[i], &names[j]));
        }
    }
}

static void test_namespace_of_bytes_with_zeroes_is_its_own(void **state)
{
    struct kv_rig *rig = *state;
    uint32_t a = 0, b = 0;
    kv_ok(kvb_namespace_open(rig->kv, "a\0b", 3, NULL, 0, &a));
    kv_ok(kvb_namespace_open(rig->kv, "a\0c", 3, NULL, 0, &b));
    assert_int_not_equal(a, b);
}

static void test_namespace_strings_up_to_4096_bytes(void **state)
{
    struct kv_rig *rig = *state;
    static unsigned char bytes[4097];
    uint32_t id = 9;
    kv_ok(kvb_namespace_open(rig->kv, bytes, 4096, bytes, 4096, &id));
    assert_int_not_equal(id, 0);
    kv_expect(kvb_namespace_open(rig->kv, bytes, 4097, NULL, 0, &id), KVB_EINVAL);
    kv_expect(kvb_namespace_open(rig->kv, NULL, 0, bytes, 4097, &id), KVB_EINVAL);
    kv_expect(kvb_namespace_open(rig->kv, bytes, SIZE_MAX, NULL, 0, &id), KVB_EINVAL);
}

static void test_namespace_beyond_capacity_has_no_space(void **state)
{
    struct kv_rig *rig = *state;
    char salt[16];
    uint32_t id = 0, opened = 0;
    int code = 0;
    for (; opened < 100; opened++) {
        (void)snprintf(salt, sizeof salt, "%u", opened);
        code = kvb_namespace_open(rig->kv, salt, strlen(salt), NULL, 0, &id);
        if (code != 0)
            break;
    }
    assert_int_equal(code, KVB_ENOSPC);
    /* Whether id 0 counts is not promised. */
    assert_in_range(opened, rig->config.namespace_capacity - 1, rig->config.namespace_capacity);
    kv_ok(kvb_namespace_open(rig->kv, "0", 1, NULL, 0, &id)); /* what is there stays there */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kv_opened, test_hash_of_tokens_1_to_12_is_dynamos),
        TEST(kv_opened, test_hash_with_salt_and_adapter_is_dynamos_formula),
        TEST(kv_opened, test_hash_with_adapter_only_adds_its_hash_only),
        TEST(kv_opened, test_hash_continued_from_parent_equals_one_run),
        TEST(kv_opened, test_hash_batch_beyond_64_blocks_follows_the_formula),
        TEST(kv_opened, test_hash_leaves_out_an_incomplete_tail),
        TEST(kv_opened, test_hash_of_less_than_a_block_is_nothing),
        TEST(kv_opened, test_hash_with_too_little_capacity_says_how_much_is_needed),
        TEST(kv_opened, test_hash_of_other_tokens_differs),
        TEST(kv_opened, test_hash_after_another_parent_differs),
        TEST(kv_opened, test_hash_in_unknown_namespace_is_not_found),
        TEST(kv_rig, test_hash_with_callers_keys_is_unsupported),
        TEST(kv_opened, test_digest_is_never_all_zero),
        TEST(kv_rig, test_digest_with_the_same_seed_is_reproducible),
        TEST(kv_rig, test_digest_with_another_seed_differs_and_hash_does_not),
        TEST(kv_rig, test_digest_without_seed_is_random),
        TEST(kv_opened, test_namespace_of_equal_bytes_has_the_same_id),
        TEST(kv_opened, test_namespace_of_nothing_is_0),
        TEST(kv_opened, test_namespaces_differ_in_id_hash_and_digest),
        TEST(kv_opened, test_namespace_of_bytes_with_zeroes_is_its_own),
        TEST(kv_opened, test_namespace_strings_up_to_4096_bytes),
        TEST(kv_opened, test_namespace_beyond_capacity_has_no_space),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
