/* SPDX-License-Identifier: Apache-2.0 */
/* XXH3: known values, and every variant that this processor runs gives the same ones. */
#include "base/hash.h"
#include "support/test.h"

#include <stdlib.h>
#include <string.h>

#define LONGEST 8192

static void test_hash_known_values(void **state)
{
    (void)state;
    const struct kvbi_hash_ops *hash = kvbi_hash_select(KVBI_ISA_BASELINE);
    /* xxHash's own: nothing, seed 0. */
    assert_true(hash->hash64("", 0, 0) == UINT64_C(0x2d06800538d394c2));
    struct kvbi_hash128 empty = hash->hash128("", 0, 0);
    assert_true(empty.low == UINT64_C(0x6001c324468d497f) &&
                empty.high == UINT64_C(0x99aa06d3014798d8));
}

static void test_hash_token_chain_has_the_routers_values(void **state)
{
    (void)state;
    const struct kvbi_hash_ops *hash = kvbi_hash_select(kvbi_isa_detect());
    static const uint32_t tokens[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    static const uint64_t blocks[3] = {UINT64_C(14643705804678351452),
                                       UINT64_C(16777012769546811212),
                                       UINT64_C(483935686894639516)};
    static const uint64_t chain[3] = {UINT64_C(14643705804678351452), UINT64_C(4945711292740353085),
                                      UINT64_C(12583592247330656132)};
    uint64_t sequence = 0;
    for (int i = 0; i < 3; i++) {
        uint64_t block = hash->hash64(&tokens[4 * i], 16, 1337);
        assert_true(block == blocks[i]);
        sequence = i == 0 ? block : hash->hash64((uint64_t[2]){sequence, block}, 16, 1337);
        assert_true(sequence == chain[i]);
    }
}

static void test_hash_variants_agree_at_every_length(void **state)
{
    (void)state;
    static unsigned char data[LONGEST + 8];
    uint64_t random = 88172645463325252u;
    const struct kvbi_hash_ops *baseline = kvbi_hash_select(KVBI_ISA_BASELINE);
    for (size_t i = 0; i < sizeof data; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        data[i] = (unsigned char)(random >> 56);
    }
    for (int isa = KVBI_ISA_BASELINE + 1; isa <= (int)kvbi_isa_detect(); isa++) {
        const struct kvbi_hash_ops *variant = kvbi_hash_select((enum kvbi_isa)isa);
        assert_string_not_equal(variant->name, baseline->name);
        for (size_t length = 0; length <= LONGEST; length += length < 600 ? 1 : 61) {
            const unsigned char *from = data + length % 8; /* unaligned too */
            uint64_t seed = length % 3 == 0 ? 0 : random ^ length;
            assert_true(variant->hash64(from, length, seed) ==
                        baseline->hash64(from, length, seed));
            struct kvbi_hash128 a = variant->hash128(from, length, seed);
            struct kvbi_hash128 b = baseline->hash128(from, length, seed);
            assert_true(a.low == b.low && a.high == b.high);
        }
    }
}

static void test_hash_every_bit_matters(void **state)
{
    (void)state;
    const struct kvbi_hash_ops *hash = kvbi_hash_select(kvbi_isa_detect());
    unsigned char data[300] = {0};
    uint64_t whole = hash->hash64(data, sizeof data, 1);
    for (size_t bit = 0; bit < 8 * sizeof data; bit++) {
        data[bit / 8] ^= (unsigned char)(1u << (bit % 8));
        assert_true(hash->hash64(data, sizeof data, 1) != whole);
        data[bit / 8] ^= (unsigned char)(1u << (bit % 8));
    }
    assert_true(hash->hash64(data, sizeof data, 2) != whole);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(bare, test_hash_known_values),
        TEST(bare, test_hash_token_chain_has_the_routers_values),
        TEST(bare, test_hash_variants_agree_at_every_length),
        TEST(bare, test_hash_every_bit_matters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
