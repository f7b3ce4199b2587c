/* SPDX-License-Identifier: Apache-2.0 */
/* The bytes of a disk tier's file: what they are, and that no other bytes are taken for them. */
#include "transfer/disk/format.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/test.h"

static const struct kvbi_hash_ops *hash;

static struct kvbi_disk_superblock sample_superblock(void)
{
    struct kvbi_disk_superblock sample = {.uuid = {0x0123456789abcdef, 0xfedcba9876543210},
                                          .serial = 7,
                                          .epoch = 3,
                                          .purpose = {.layers = 8,
                                                      .parts = 2,
                                                      .chunk_bytes = 4096,
                                                      .block_bytes = 65536,
                                                      .tokens_per_block = 16,
                                                      .key_bytes = 4,
                                                      .digest_seed = 0x5eed,
                                                      .fingerprint = {0xaaaa, 0xbbbb}},
                                          .stamps_checksum = 0x57a3,
                                          .sequence = 99,
                                          .flags = KVBI_DISK_CLEAN};
    assert_true(kvbi_disk_place(&sample, sample.purpose.block_bytes, 1000));
    kvbi_disk_superblock_seal(hash, &sample);
    return sample;
}

static struct kvbi_disk_entry sample_record(void)
{
    struct kvbi_disk_entry sample = {.state = KVBI_DISK_ENTRY_BLOCK,
                                     .slot = 5,
                                     .uuid = {0x0123456789abcdef, 0xfedcba9876543210},
                                     .sequence = 42,
                                     .label = {.hash = 0x1111,
                                               .digest = {0x2222, 0x3333},
                                               .parent_hash = 0x4444,
                                               .space_hash = 0x5555,
                                               .space_digest = {0x6666, 0x7777},
                                               .generation = 9,
                                               .clears = 3,
                                               .has_parent = 1,
                                               .priority = 50,
                                               .payload_bytes = 65536,
                                               .key = "abcd",
                                               .parent_key = "wxyz"},
                                     .payload_checksum = 0x8888};
    kvbi_disk_entry_seal(hash, &sample);
    return sample;
}

static enum kvbi_disk_verdict judge(const unsigned char *page, struct kvbi_disk_superblock *found)
{
    return kvbi_disk_superblock_judge(hash, page, found);
}

static void page_of(const struct kvbi_disk_superblock *superblock, unsigned char *page)
{
    memset(page, 0, KVBI_DISK_SUPERBLOCK_BYTES);
    memcpy(page, superblock, sizeof *superblock);
}

/* ---- Golden bytes ---------------------------------------------------------------------------- */

/* Those of version 1. If one of these changes, so must KVBI_DISK_VERSION. */
static const char golden_superblock[] =
    "6b76626c6f636b0001000000b8000000efcdab89674523011032547698badcfe070000000000000003000000"
    "000000000000010000000000080000000200000000100000000000001000000004000000ed5e000000000000"
    "aaaa000000000000bbbb0000000000000000010000000000e80300000001000000001000000000000000f803"
    "0000000000f0fb03000000000010fc0300000000a35700000000000063000000000000000100000000000000"
    "e426407ca9dbcfef";
static const char golden_record[] =
    "0100000005000000efcdab89674523011032547698badcfe2a00000000000000111100000000000022220000"
    "0000000033330000000000004444000000000000555500000000000066660000000000007777000000000000"
    "0900000000000000030000000000000001320000000001006162636400000000000000000000000000000000"
    "0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
    "7778797a00000000000000000000000000000000000000000000000000000000000000000000000000000000"
    "0000000000000000000000000000000000000000"
    "8888000000000000c78bb64708614788";

static void expect_bytes(const void *bytes, size_t count, const char *golden)
{
    char hex[2 * sizeof(struct kvbi_disk_entry) + 1];
    const unsigned char *at = bytes;
    for (size_t i = 0; i < count; i++)
        (void)snprintf(hex + 2 * i, 3, "%02x", at[i]);
    assert_string_equal(hex, golden);
}

static void test_format_superblock_has_the_bytes_of_version_1(void **state)
{
    (void)state;
    const struct kvbi_disk_superblock sample = sample_superblock();
    expect_bytes(&sample, sizeof sample, golden_superblock);
}

static void test_format_record_has_the_bytes_of_version_1(void **state)
{
    (void)state;
    const struct kvbi_disk_entry sample = sample_record();
    expect_bytes(&sample, sizeof sample, golden_record);
}

static void test_format_name_and_stamps_are_those_of_version_1(void **state)
{
    (void)state;
    const uint64_t uuid[2] = {1, 2}, digest[2] = {5, 6}, stamps[] = {10, 0, 30};
    assert_int_equal(kvbi_disk_identity_of(hash, uuid, 3, 4, digest, 7),
                     UINT64_C(0xf104a76d62165084));
    assert_int_equal(kvbi_disk_stamps_checksum(hash, stamps, 3, 9), UINT64_C(0x5481e7d0e816e70a));
}

/* ---- Superblocks ----------------------------------------------------------------------------- */

static void test_format_superblock_survives_the_page(void **state)
{
    (void)state;
    const struct kvbi_disk_superblock sample = sample_superblock();
    struct kvbi_disk_superblock found;
    unsigned char page[KVBI_DISK_SUPERBLOCK_BYTES];
    page_of(&sample, page);
    assert_int_equal(judge(page, &found), KVBI_DISK_VALID);
    assert_memory_equal(&found, &sample, sizeof sample);
}

static void test_format_superblock_with_any_bit_flipped_is_not_valid(void **state)
{
    (void)state;
    const struct kvbi_disk_superblock sample = sample_superblock();
    struct kvbi_disk_superblock found;
    unsigned char page[KVBI_DISK_SUPERBLOCK_BYTES];
    page_of(&sample, page);
    for (size_t i = 0; i < sizeof page; i++)
        for (unsigned bit = 0; bit < 8; bit += i < sizeof sample ? 1 : 7) {
            page[i] ^= (unsigned char)(1u << bit);
            enum kvbi_disk_verdict verdict = judge(page, &found);
            bool version = i >= offsetof(struct kvbi_disk_superblock, version) &&
                           i < offsetof(struct kvbi_disk_superblock, bytes);
            if (verdict != (version ? KVBI_DISK_VERSION_UNKNOWN : KVBI_DISK_DAMAGED))
                fail_msg("byte %zu, bit %u: verdict %d", i, bit, (int)verdict);
            page[i] ^= (unsigned char)(1u << bit);
        }
    assert_int_equal(judge(page, &found), KVBI_DISK_VALID);
}

static void test_format_superblock_of_zeros_is_blank(void **state)
{
    (void)state;
    static const unsigned char page[KVBI_DISK_SUPERBLOCK_BYTES];
    struct kvbi_disk_superblock found;
    assert_int_equal(judge(page, &found), KVBI_DISK_BLANK);
}

static void test_format_page_of_somebody_else_is_foreign(void **state)
{
    (void)state;
    unsigned char page[KVBI_DISK_SUPERBLOCK_BYTES] = "SQLite format 3";
    struct kvbi_disk_superblock found;
    assert_int_equal(judge(page, &found), KVBI_DISK_FOREIGN);
    memset(page, 0, sizeof page);
    page[KVBI_DISK_SUPERBLOCK_BYTES - 1] = 1;
    assert_int_equal(judge(page, &found), KVBI_DISK_FOREIGN);
}

static void test_format_other_versions_are_told_from_damage(void **state)
{
    (void)state;
    struct kvbi_disk_superblock sample = sample_superblock(), found;
    unsigned char page[KVBI_DISK_SUPERBLOCK_BYTES];
    const uint32_t versions[] = {0, 2, 7, UINT32_MAX};
    for (size_t i = 0; i < 4; i++) {
        sample.version = versions[i];
        page_of(&sample, page);
        assert_int_equal(judge(page, &found), KVBI_DISK_VERSION_UNKNOWN);
        assert_int_equal(found.version, versions[i]);
    }
}

/* Whole, but not what this format writes. */
static void test_format_superblock_that_contradicts_itself_is_damaged(void **state)
{
    (void)state;
    unsigned char page[KVBI_DISK_SUPERBLOCK_BYTES];
    for (int field = 0; field < 10; field++) {
        struct kvbi_disk_superblock sample = sample_superblock(), found;
        uint64_t *const wide[] = {&sample.slot_bytes,   &sample.data_offset,
                                  &sample.table_offset, &sample.stamps_offset,
                                  &sample.file_bytes,   &sample.purpose.block_bytes};
        uint32_t *const narrow[] = {&sample.slot_count, &sample.entry_bytes, &sample.flags,
                                    &sample.zero};
        if (field < 6)
            *wide[field] += 4096;
        else
            *narrow[field - 6] += 2;
        kvbi_disk_superblock_seal(hash, &sample);
        page_of(&sample, page);
        assert_int_equal(judge(page, &found), KVBI_DISK_DAMAGED);
    }
}

static void test_format_parts_of_a_file_do_not_overlap(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {1, 4095, 4096, 4097, 65536, 5000000, 1 << 30};
    static const uint32_t counts[] = {1, 15, 16, 17, 511, 512, 513, 1000000, UINT32_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (size_t j = 0; j < sizeof counts / sizeof *counts; j++) {
            struct kvbi_disk_superblock placed;
            assert_true(kvbi_disk_place(&placed, sizes[i], counts[j]));
            assert_true(placed.data_offset >= 2 * KVBI_DISK_SUPERBLOCK_BYTES);
            assert_true(placed.slot_bytes >= sizes[i]);
            assert_true(placed.table_offset >= placed.data_offset + counts[j] * placed.slot_bytes);
            assert_true(placed.stamps_offset >=
                        placed.table_offset + counts[j] * KVBI_DISK_ENTRY_BYTES);
            assert_true(placed.file_bytes >= placed.stamps_offset + counts[j] * sizeof(uint64_t));
            assert_true(placed.file_bytes <= INT64_MAX);
            assert_int_equal((placed.data_offset | placed.slot_bytes | placed.table_offset |
                              placed.stamps_offset | placed.file_bytes) %
                                 KVBI_DISK_ALIGN,
                             0);
        }
}

static void test_format_sizes_that_cannot_be_are_refused(void **state)
{
    (void)state;
    struct kvbi_disk_superblock placed;
    assert_false(kvbi_disk_place(&placed, 0, 1));
    assert_false(kvbi_disk_place(&placed, 1, 0));
    assert_false(kvbi_disk_place(&placed, UINT64_C(1) << 32, 1));
    assert_false(kvbi_disk_place(&placed, UINT64_MAX, 1));
}

static void test_format_difference_of_purpose_is_named(void **state)
{
    (void)state;
    static const char *const names[] = {"layout.layers is 9, the file's is 8",
                                        "layout.parts is 3, the file's is 2",
                                        "layout.chunk_bytes is 4097, the file's is 4096",
                                        "the size of a block is 65537, the file's is 65536",
                                        "tokens_per_block is 17, the file's is 16",
                                        "key_bytes is 5, the file's is 4",
                                        "model is another one",
                                        "model is another one"};
    char words[128];
    for (int field = 0; field < 8; field++) {
        const struct kvbi_disk_purpose found = sample_superblock().purpose;
        struct kvbi_disk_purpose wanted = found;
        wanted.layers += field == 0;
        wanted.parts += field == 1;
        wanted.chunk_bytes += field == 2;
        wanted.block_bytes += field == 3;
        wanted.tokens_per_block += field == 4;
        wanted.key_bytes += field == 5;
        wanted.fingerprint[0] += field == 6;
        wanted.fingerprint[1] += field == 7;
        assert_true(kvbi_disk_purpose_differs(&wanted, &found, words, sizeof words));
        if (strstr(words, names[field]) != words)
            fail_msg("\"%s\" instead of \"%s\"", words, names[field]);
    }
}

static void test_format_digest_seed_is_no_purpose(void **state)
{
    (void)state;
    const struct kvbi_disk_purpose found = sample_superblock().purpose;
    struct kvbi_disk_purpose wanted = found;
    char words[128];
    wanted.digest_seed++;
    assert_false(kvbi_disk_purpose_differs(&wanted, &found, words, sizeof words));
}

/* ---- Entries --------------------------------------------------------------------------------- */

static bool valid(const struct kvbi_disk_entry *entry, uint32_t slot)
{
    const struct kvbi_disk_superblock superblock = sample_superblock();
    return kvbi_disk_entry_valid(hash, &superblock, slot, entry);
}

static void test_format_record_with_any_bit_flipped_is_not_valid(void **state)
{
    (void)state;
    struct kvbi_disk_entry sample = sample_record();
    unsigned char *bytes = (unsigned char *)&sample;
    assert_true(valid(&sample, 5));
    for (size_t i = 0; i < 8 * sizeof sample; i++) {
        bytes[i / 8] ^= (unsigned char)(1u << i % 8);
        if (valid(&sample, 5))
            fail_msg("byte %zu, bit %zu", i / 8, i % 8);
        bytes[i / 8] ^= (unsigned char)(1u << i % 8);
    }
    assert_true(valid(&sample, 5));
}

static void test_format_record_of_another_slot_is_not_valid(void **state)
{
    (void)state;
    const struct kvbi_disk_entry sample = sample_record();
    assert_false(valid(&sample, 4));
    assert_false(valid(&sample, 6));
}

static void test_format_record_of_another_file_is_not_valid(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct kvbi_disk_entry sample = sample_record();
        sample.uuid[i]++;
        kvbi_disk_entry_seal(hash, &sample);
        assert_false(valid(&sample, 5));
    }
}

static void test_format_record_of_zeros_is_blank_and_not_valid(void **state)
{
    (void)state;
    struct kvbi_disk_entry zeros = {.state = 0}, sample = sample_record();
    assert_true(kvbi_disk_entry_blank(&zeros));
    assert_false(valid(&zeros, 0));
    assert_false(kvbi_disk_entry_blank(&sample));
}

/* Whole, but not what this format writes: one case for each rule. */
static void test_format_record_that_this_format_does_not_write_is_not_valid(void **state)
{
    (void)state;
    for (int field = 0; field < 10; field++) {
        struct kvbi_disk_entry sample = sample_record();
        switch (field) {
        case 0:
            sample.label.key[4] = 1;
            break; /* behind key_bytes */
        case 1:
            sample.label.key[KVB_KEY_BYTES_MAX - 1] = 1;
            break;
        case 2:
            sample.label.parent_key[4] = 1;
            break;
        case 3:
            sample.label.zero[0] = 1;
            break;
        case 4:
            sample.label.zero[1] = 1;
            break;
        case 5:
            sample.label.has_parent = 2;
            break;
        case 6:
            sample.label.priority = KVB_PRIORITY_MAX + 1;
            break;
        case 7:
            sample.label.payload_bytes--;
            break;
        case 8:
            sample.state = 3;
            break;
        case 9:
            sample.sequence = 0; /* "no block" wherever sequences are compared */
            break;
        }
        kvbi_disk_entry_seal(hash, &sample);
        if (valid(&sample, 5))
            fail_msg("case %d", field);
    }
}

static void test_format_retired_entry_says_nothing_else(void **state)
{
    (void)state;
    struct kvbi_disk_entry sample = sample_record();
    sample.state = KVBI_DISK_ENTRY_RETIRED;
    kvbi_disk_entry_seal(hash, &sample);
    assert_false(valid(&sample, 5));
    memset(&sample.label, 0, sizeof sample.label);
    kvbi_disk_entry_seal(hash, &sample);
    assert_false(valid(&sample, 5));
    sample.payload_checksum = 0;
    kvbi_disk_entry_seal(hash, &sample);
    assert_true(valid(&sample, 5));
}

static void test_format_name_depends_on_all_that_it_names(void **state)
{
    (void)state;
    const uint64_t words[7] = {1, 2, 3, 4, 5, 6, 7};
    uint64_t name = kvbi_disk_identity_of(hash, words, 3, 4, words + 4, 7);
    assert_true(name != 0);
    for (int i = 0; i < 7; i++) {
        uint64_t other[7];
        memcpy(other, words, sizeof other);
        other[i]++;
        assert_true(name != kvbi_disk_identity_of(hash, other, (uint32_t)other[2], other[3],
                                                  other + 4, other[6]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(bare, test_format_superblock_has_the_bytes_of_version_1),
        TEST(bare, test_format_record_has_the_bytes_of_version_1),
        TEST(bare, test_format_name_and_stamps_are_those_of_version_1),
        TEST(bare, test_format_superblock_survives_the_page),
        TEST(bare, test_format_superblock_with_any_bit_flipped_is_not_valid),
        TEST(bare, test_format_superblock_of_zeros_is_blank),
        TEST(bare, test_format_page_of_somebody_else_is_foreign),
        TEST(bare, test_format_other_versions_are_told_from_damage),
        TEST(bare, test_format_superblock_that_contradicts_itself_is_damaged),
        TEST(bare, test_format_parts_of_a_file_do_not_overlap),
        TEST(bare, test_format_sizes_that_cannot_be_are_refused),
        TEST(bare, test_format_difference_of_purpose_is_named),
        TEST(bare, test_format_digest_seed_is_no_purpose),
        TEST(bare, test_format_record_with_any_bit_flipped_is_not_valid),
        TEST(bare, test_format_record_of_another_slot_is_not_valid),
        TEST(bare, test_format_record_of_another_file_is_not_valid),
        TEST(bare, test_format_record_of_zeros_is_blank_and_not_valid),
        TEST(bare, test_format_record_that_this_format_does_not_write_is_not_valid),
        TEST(bare, test_format_retired_entry_says_nothing_else),
        TEST(bare, test_format_name_depends_on_all_that_it_names),
    };
    hash = kvbi_hash_select(kvbi_isa_detect());
    return cmocka_run_group_tests(tests, NULL, NULL);
}
