/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of a disk tier that were made by another version, for another purpose or with another seed,
 * or by somebody else; and what a create leaves of them that fails after it has opened them.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "golden/disk_v1.h"
#include "support/disk_shelf.h"

#define BASE 1000

/* ---- Versions -------------------------------------------------------------------------------- */

static void poke_hex(const struct disk_shelf *shelf, uint64_t offset, const char *hex)
{
    unsigned char bytes[512];
    size_t count = strlen(hex) / 2;
    for (size_t i = 0; i < count; i++) {
        const char pair[3] = {hex[2 * i], hex[2 * i + 1], '\0'};
        bytes[i] = (unsigned char)strtoul(pair, NULL, 16);
    }
    shelf_poke(shelf, offset, bytes, count);
}

static void make_golden(struct disk_shelf *shelf)
{
    unsigned char payload[GOLDEN_DISK_V1_PAYLOAD_BYTES];
    close(open(shelf->paths[0], O_WRONLY | O_CREAT | O_EXCL, 0600));
    assert_int_equal(truncate(shelf->paths[0], GOLDEN_DISK_V1_BYTES), 0);
    for (size_t i = 0; i < sizeof golden_disk_v1 / sizeof *golden_disk_v1; i++)
        poke_hex(shelf, golden_disk_v1[i].offset, golden_disk_v1[i].hex);
    for (size_t i = 0; i < sizeof payload; i++)
        payload[i] = (unsigned char)(i * 7 + i / 256);
    shelf_poke(shelf, GOLDEN_DISK_V1_PAYLOAD_OFFSET, payload, sizeof payload);
    shelf->config.block_count = 2;
    shelf->config.purpose = (struct kvbi_disk_purpose){.block_bytes = GOLDEN_DISK_V1_PAYLOAD_BYTES,
                                                       .layers = 5,
                                                       .parts = 2,
                                                       .chunk_bytes = 400,
                                                       .tokens_per_block = 16,
                                                       .fingerprint = {0xf1, 0xf2}};
}

static void test_reshape_file_of_version_1_is_read(void **state)
{
    struct disk_shelf *shelf = *state;
    static unsigned char payload[GOLDEN_DISK_V1_PAYLOAD_BYTES];
    const struct kvbi_identity identity = {
        .hash = 0xaaa1, .digest = {0xaaa2, 0xaaa3}, .generation = 4};
    make_golden(shelf);
    shelf_open(shelf);
    assert_string_equal(shelf->disk->files[0].note, "");
    assert_int_equal(shelf->disk->digest_seed, 0x5eed);
    assert_int_equal(shelf_scan(shelf), 1);
    assert_true(shelf->found[0].retired);
    const struct kvbi_found *found = &shelf->found[1];
    assert_int_equal(found->sequence, 41);
    assert_int_equal(found->age, 43);
    assert_true(found->label.parent_hash == 0xbbb1 && found->label.has_parent == 1 &&
                found->label.priority == 70);
    shelf_peek(shelf, GOLDEN_DISK_V1_PAYLOAD_OFFSET, payload, sizeof payload);
    assert_true(
        kvbi_disk_verify(shelf->disk, 1, kvbi_disk_identity(shelf->disk, 1, &identity), payload));
    payload[0] ^= 1;
    assert_false(
        kvbi_disk_verify(shelf->disk, 1, kvbi_disk_identity(shelf->disk, 1, &identity), payload));
}

/* The version lies at byte 8 of each superblock. */
static void set_version(const struct disk_shelf *shelf, uint32_t version)
{
    shelf_poke(shelf, 8, &version, sizeof version);
    shelf_poke(shelf, KVBI_DISK_SUPERBLOCK_BYTES + 8, &version, sizeof version);
}

static void test_reshape_unknown_version_is_refused_by_name(void **state)
{
    struct disk_shelf *shelf = *state;
    shelf_make_full(shelf, BASE);
    set_version(shelf, 7);
    shelf_expect_refusal(shelf, KVB_EMISMATCH,
                         "is of format version 7, this library knows 1; it is left alone");
    set_version(shelf, KVBI_DISK_VERSION);
    shelf_open(shelf);
    shelf_expect_all(shelf, BASE);
}

/* Its header: the magic and version 0, in a page of zeros. What it held was void at each open. */
static void test_reshape_file_of_version_0_is_refused_unless_it_may_start_empty(void **state)
{
    struct disk_shelf *shelf = *state;
    unsigned char header[65536] = "kvblock";
    header[12] = 8;
    close(open(shelf->paths[0], O_WRONLY | O_CREAT | O_EXCL, 0600));
    shelf_poke(shelf, 0, header, sizeof header);
    shelf_expect_refusal(shelf, KVB_EMISMATCH, "is of format version 0, this library knows 1");
    shelf->config.flags = KVB_DISK_EMPTY_ON_MISMATCH;
    shelf_open(shelf);
    assert_non_null(strstr(shelf->disk->files[0].note, "starts empty: is of format version 0"));
    assert_int_equal(shelf_scan(shelf), 0);
    shelf_fill(shelf, BASE);
    shelf_kill(shelf);
    shelf->config.flags = 0;
    shelf_open(shelf);
    shelf_expect_all(shelf, BASE);
}

/* ---- Another purpose ------------------------------------------------------------------------- */

static void expect_mismatch(struct disk_shelf *shelf, const char *words)
{
    shelf_expect_refusal(shelf, KVB_EMISMATCH, words);
    assert_non_null(strstr(shelf->message, "; it is left alone"));
}

static void test_reshape_other_purpose_is_refused_by_name_and_left_alone(void **state)
{
    struct disk_shelf *shelf = *state;
    shelf_make_full(shelf, BASE);
    const struct kvbi_disk_purpose purpose = shelf->config.purpose;
    struct kvbi_disk_purpose *now = &shelf->config.purpose;
    now->layers = 6;
    expect_mismatch(shelf, "layout.layers is 6, the file's is 5");
    *now = purpose;
    now->block_bytes = 6000;
    expect_mismatch(shelf, "the size of a block is 6000, the file's is 5000");
    *now = purpose;
    now->tokens_per_block = 32;
    expect_mismatch(shelf, "tokens_per_block is 32, the file's is 16");
    *now = purpose;
    now->key_bytes = 0;
    expect_mismatch(shelf, "key_bytes is 0, the file's is 8");
    *now = purpose;
    now->fingerprint[1]++;
    expect_mismatch(shelf, "model is another one");
    *now = purpose;
    now->digest_seed = shelf_superblock(shelf).purpose.digest_seed + 1;
    expect_mismatch(shelf, "digest_seed is another one");
    *now = purpose;
    assert_int_equal(shelf_superblock(shelf).flags, KVBI_DISK_CLEAN); /* nothing was written */
    shelf_open(shelf);
    shelf_expect_all(shelf, BASE);
}

static void test_reshape_other_purpose_may_start_empty(void **state)
{
    struct disk_shelf *shelf = *state;
    shelf_make_full(shelf, BASE);
    uint64_t uuid = shelf_superblock(shelf).uuid[0];
    shelf->config.flags = KVB_DISK_EMPTY_ON_MISMATCH;
    shelf_open(shelf); /* it fits: kept */
    shelf_expect_all(shelf, BASE);
    shelf_close(shelf, NULL, 0);
    shelf->config.purpose.tokens_per_block = 32;
    shelf_open(shelf);
    assert_false(shelf->disk->files[0].kept);
    assert_string_equal(shelf->disk->files[0].note,
                        "starts empty: tokens_per_block is 32, the file's is 16");
    assert_int_equal(shelf_scan(shelf), 0);
    assert_int_equal(shelf_dropped(shelf), 0);
    assert_true(shelf_superblock(shelf).uuid[0] != uuid);
    shelf_kill(shelf);
    shelf_open(shelf);
    assert_true(shelf->disk->files[0].kept);
    assert_int_equal(shelf_scan(shelf), 0);
    assert_int_equal(shelf_dropped(shelf), 0); /* nothing of the former table is left */
}

static void test_reshape_start_empty_forgets_and_stays_empty(void **state)
{
    struct disk_shelf *shelf = *state;
    shelf_make_full(shelf, BASE);
    shelf->config.flags = KVB_DISK_START_EMPTY;
    shelf_open(shelf);
    assert_int_equal(shelf_scan(shelf), 0);
    shelf_put(shelf, 1, BASE + 500);
    shelf_kill(shelf);
    shelf->config.flags = 0;
    shelf_flip(shelf, 100); /* neither superblock knows the former file */
    shelf_open(shelf);
    assert_int_equal(shelf_scan(shelf), 1);
    shelf_expect(shelf, 1, BASE + 500);
    shelf_kill(shelf);
    shelf_flip(shelf, KVBI_DISK_SUPERBLOCK_BYTES + 100);
    shelf_open(shelf);
    assert_int_equal(shelf_scan(shelf), 1);
}

static void test_reshape_start_empty_takes_a_file_whose_superblocks_are_damaged(void **state)
{
    struct disk_shelf *shelf = *state;
    shelf_make_full(shelf, BASE);
    shelf_flip(shelf, 100);
    shelf_flip(shelf, KVBI_DISK_SUPERBLOCK_BYTES + 100);
    shelf->config.flags = KVB_DISK_START_EMPTY;
    shelf_open(shelf);
    assert_int_equal(shelf_scan(shelf), 0);
}

static void test_reshape_no_flag_takes_what_kvblock_has_not_written(void **state)
{
    struct disk_shelf *shelf = *state;
    char thesis[] = "my thesis", back[sizeof thesis];
    close(open(shelf->paths[0], O_WRONLY | O_CREAT | O_EXCL, 0600));
    for (uint64_t at = 0; at < 4 * KVBI_DISK_DATA_OFFSET; at += 65536) {
        /* zeros before it prove nothing */
        assert_int_equal(truncate(shelf->paths[0], 0), 0);
        shelf_poke(shelf, at, thesis, sizeof thesis);
        for (uint32_t flags = 0; flags < 8; flags++) {
            shelf->config.flags = flags;
            shelf_expect_refusal(shelf, KVB_EMISMATCH, "has not written; it is left alone");
        }
        shelf_peek(shelf, at, back, sizeof back);
        assert_string_equal(back, thesis);
        assert_int_equal(shelf_file_bytes(shelf), at + sizeof thesis);
    }
}

/* Holes and zeros are nobody's, but the space is somebody's. */
static void test_reshape_empty_file_is_taken_and_not_cut(void **state)
{
    struct disk_shelf *shelf = *state;
    static const unsigned char zeros[10000];
    const uint64_t bytes = UINT64_C(1) << 40;
    close(open(shelf->paths[0], O_WRONLY | O_CREAT | O_EXCL, 0600));
    shelf_poke(shelf, 3 << 20, zeros, sizeof zeros);
    assert_int_equal(truncate(shelf->paths[0], (off_t)bytes), 0);
    shelf_open(shelf);
    assert_int_equal(shelf_file_bytes(shelf), bytes);
    shelf_fill(shelf, BASE);
    for (uint32_t slot = 0; slot < SHELF_SLOTS; slot++)
        assert_true(shelf_get(shelf, slot, BASE + slot));
}

/* ---- A create that fails after the files were opened ----------------------------------------- */

/* Opened with the configuration of now, and closed before it is committed. */
static void open_in_vain(struct disk_shelf *shelf)
{
    assert_int_equal(kvbi_tier_disk_create(&shelf->tier, &shelf->memory, KVB_TIER_DISK,
                                           &shelf->config, shelf->message, sizeof shelf->message),
                     0);
    kvbi_tier_destroy(&shelf->tier);
}

static void test_reshape_files_that_are_not_committed_are_as_they_were(void **state)
{
    struct disk_shelf *shelf = *state;
    static unsigned char before[2 << 20], after[2 << 20];
    const struct kvbi_disk_purpose purpose = shelf->config.purpose;
    uint64_t bytes = shelf_places(SHELF_SLOTS).file_bytes;
    assert_true(bytes <= sizeof before);
    shelf_make_full(shelf, BASE);
    shelf_peek(shelf, 0, before, bytes);
    for (int i = 0; i < 5; i++) {
        shelf->config.flags = i == 1 ? KVB_DISK_START_EMPTY : KVB_DISK_EMPTY_ON_MISMATCH;
        shelf->config.purpose.tokens_per_block = i == 2 ? 32 : purpose.tokens_per_block;
        shelf->config.block_count = i == 3   ? 8 * SHELF_SLOTS
                                    : i == 4 ? SHELF_SLOTS / 2
                                             : SHELF_SLOTS;
        open_in_vain(shelf);
        assert_int_equal(shelf_file_bytes(shelf), bytes);
        shelf_peek(shelf, 0, after, bytes);
        assert_memory_equal(before, after, bytes);
    }
    shelf->config.block_count = SHELF_SLOTS;
    shelf_open(shelf);
    assert_true(shelf->disk->files[0].stamped);
    shelf_expect_all(shelf, BASE);
}

static void test_reshape_new_files_that_are_not_committed_are_gone(void **state)
{
    struct disk_shelf *shelf = *state;
    struct stat status;
    shelf->config.path_count = 2;
    open_in_vain(shelf);
    assert_int_equal(stat(shelf->files[0], &status), -1);
    assert_int_equal(stat(shelf->files[1], &status), -1);
}

/* By then it is another file: somebody has moved one there. */
static void test_reshape_what_took_the_place_of_a_new_file_is_left_alone(void **state)
{
    struct disk_shelf *shelf = *state;
    struct stat status;
    assert_int_equal(kvbi_tier_disk_create(&shelf->tier, &shelf->memory, KVB_TIER_DISK,
                                           &shelf->config, shelf->message, sizeof shelf->message),
                     0);
    close(open(shelf->files[1], O_WRONLY | O_CREAT | O_EXCL, 0600));
    assert_int_equal(rename(shelf->files[1], shelf->files[0]), 0);
    kvbi_tier_destroy(&shelf->tier);
    assert_int_equal(stat(shelf->files[0], &status), 0);
}

/* ---- Digest seeds ---------------------------------------------------------------------------- */

static void test_reshape_seed_of_a_file_is_taken_over(void **state)
{
    struct disk_shelf *shelf = *state;
    shelf_open(shelf);
    uint64_t seed = shelf->disk->digest_seed;
    assert_true(seed != 0);
    shelf_kill(shelf);
    shelf_open(shelf);
    assert_int_equal(shelf->disk->digest_seed, seed);
    shelf_kill(shelf);
    shelf->config.purpose.digest_seed = seed;
    shelf_open(shelf);
    assert_true(shelf->disk->files[0].kept);
}

static void test_reshape_configured_seed_goes_into_new_files(void **state)
{
    struct disk_shelf *shelf = *state;
    shelf->config.purpose.digest_seed = 4711;
    shelf_open(shelf);
    assert_int_equal(shelf->disk->digest_seed, 4711);
    shelf_kill(shelf);
    shelf->config.purpose.digest_seed = 0;
    shelf_open(shelf);
    assert_int_equal(shelf->disk->digest_seed, 4711);
}

/* Two files that were made apart. The first one decides. */
static void test_reshape_files_of_different_seeds_do_not_go_together(void **state)
{
    struct disk_shelf *shelf = *state;
    shelf_make_full(shelf, BASE);
    shelf->paths[0] = shelf->files[1];
    shelf_make_full(shelf, BASE);
    shelf->paths[1] = shelf->files[0];
    shelf->config.path_count = 2;
    shelf->config.block_count = 2 * SHELF_SLOTS;
    shelf_expect_refusal(shelf, KVB_EMISMATCH,
                         "digest_seed is another one than that of the file; a path before it");
    assert_non_null(strstr(shelf->message, shelf->files[0]));
    /* nor was the first one touched */
    assert_int_equal(shelf_superblock(shelf).flags, KVBI_DISK_CLEAN);
    shelf->config.flags = KVB_DISK_EMPTY_ON_MISMATCH;
    shelf_open(shelf);
    assert_true(shelf->disk->files[0].kept);
    assert_false(shelf->disk->files[1].kept);
    assert_int_equal(shelf_scan(shelf), SHELF_SLOTS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(disk_shelf, test_reshape_file_of_version_1_is_read),
        TEST(disk_shelf, test_reshape_unknown_version_is_refused_by_name),
        TEST(disk_shelf, test_reshape_file_of_version_0_is_refused_unless_it_may_start_empty),
        TEST(disk_shelf, test_reshape_other_purpose_is_refused_by_name_and_left_alone),
        TEST(disk_shelf, test_reshape_other_purpose_may_start_empty),
        TEST(disk_shelf, test_reshape_start_empty_forgets_and_stays_empty),
        TEST(disk_shelf, test_reshape_start_empty_takes_a_file_whose_superblocks_are_damaged),
        TEST(disk_shelf, test_reshape_no_flag_takes_what_kvblock_has_not_written),
        TEST(disk_shelf, test_reshape_empty_file_is_taken_and_not_cut),
        TEST(disk_shelf, test_reshape_files_that_are_not_committed_are_as_they_were),
        TEST(disk_shelf, test_reshape_new_files_that_are_not_committed_are_gone),
        TEST(disk_shelf, test_reshape_what_took_the_place_of_a_new_file_is_left_alone),
        TEST(disk_shelf, test_reshape_seed_of_a_file_is_taken_over),
        TEST(disk_shelf, test_reshape_configured_seed_goes_into_new_files),
        TEST(disk_shelf, test_reshape_files_of_different_seeds_do_not_go_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
