/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of a disk tier that are opened with another purpose, size or set of paths than they were made for, that were made by another
 * version, or cut.
 */
#include "support/disk_shelf.h"

#include <sys/stat.h>

#include "golden/disk_v1.h"

#define BASE 1000

static uint64_t file_bytes(const struct shelf *shelf)
{
    struct stat status;
    assert_int_equal(stat(shelf->paths[0], &status), 0);
    return (uint64_t)status.st_size;
}

/* A file with a block in every slot. */
static void make_full(struct shelf *shelf)
{
    shelf_open(shelf);
    shelf_fill(shelf, BASE);
    shelf_close(shelf, NULL, 0);
}

/* ---- Versions ----------------------------------------------------------------------------------------------------- */

static void poke_hex(const struct shelf *shelf, uint64_t offset, const char *hex)
{
    unsigned char bytes[512];
    size_t count = strlen(hex) / 2;
    for (size_t i = 0; i < count; i++) {
        const char pair[3] = {hex[2 * i], hex[2 * i + 1], '\0'};
        bytes[i] = (unsigned char)strtoul(pair, NULL, 16);
    }
    shelf_poke(shelf, offset, bytes, count);
}

static void make_golden(struct shelf *shelf)
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
    struct shelf *shelf = *state;
    static unsigned char payload[GOLDEN_DISK_V1_PAYLOAD_BYTES];
    const struct kvbi_identity identity = {
        .hash = 0xaaa1, .digest = {0xaaa2, 0xaaa3}, .generation = 4};
    make_golden(shelf);
    shelf_open(shelf);
    assert_string_equal(shelf->disk->paths[0].note, "");
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
        kvbi_disk_verify(shelf->disk, 1, kvbi_disk_name(shelf->disk, 1, &identity), payload));
    payload[0] ^= 1;
    assert_false(
        kvbi_disk_verify(shelf->disk, 1, kvbi_disk_name(shelf->disk, 1, &identity), payload));
}

/* The version lies at byte 8 of each superblock. */
static void set_version(const struct shelf *shelf, uint32_t version)
{
    shelf_poke(shelf, 8, &version, sizeof version);
    shelf_poke(shelf, KVBI_DISK_SUPERBLOCK_BYTES + 8, &version, sizeof version);
}

static void test_reshape_unknown_version_is_refused_by_name(void **state)
{
    struct shelf *shelf = *state;
    make_full(shelf);
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
    struct shelf *shelf = *state;
    unsigned char header[65536] = "kvblock";
    header[12] = 8;
    close(open(shelf->paths[0], O_WRONLY | O_CREAT | O_EXCL, 0600));
    shelf_poke(shelf, 0, header, sizeof header);
    shelf_expect_refusal(shelf, KVB_EMISMATCH, "is of format version 0, this library knows 1");
    shelf->config.flags = KVB_DISK_EMPTY_ON_MISMATCH;
    shelf_open(shelf);
    assert_non_null(strstr(shelf->disk->paths[0].note, "starts empty: is of format version 0"));
    assert_int_equal(shelf_scan(shelf), 0);
    shelf_fill(shelf, BASE);
    shelf_kill(shelf);
    shelf->config.flags = 0;
    shelf_open(shelf);
    shelf_expect_all(shelf, BASE);
}

/* ---- Another purpose ---------------------------------------------------------------------------------------------- */

static void expect_mismatch(struct shelf *shelf, const char *words)
{
    shelf_expect_refusal(shelf, KVB_EMISMATCH, words);
    assert_non_null(strstr(shelf->message, "; it is left alone"));
}

static void test_reshape_other_purpose_is_refused_by_name_and_left_alone(void **state)
{
    struct shelf *shelf = *state;
    make_full(shelf);
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
    struct shelf *shelf = *state;
    make_full(shelf);
    uint64_t uuid = shelf_superblock(shelf).uuid[0];
    shelf->config.flags = KVB_DISK_EMPTY_ON_MISMATCH;
    shelf_open(shelf); /* it fits: kept */
    shelf_expect_all(shelf, BASE);
    shelf_close(shelf, NULL, 0);
    shelf->config.purpose.tokens_per_block = 32;
    shelf_open(shelf);
    assert_false(shelf->disk->paths[0].kept);
    assert_string_equal(shelf->disk->paths[0].note,
                        "starts empty: tokens_per_block is 32, the file's is 16");
    assert_int_equal(shelf_scan(shelf), 0);
    assert_int_equal(shelf_dropped(shelf), 0);
    assert_true(shelf_superblock(shelf).uuid[0] != uuid);
    shelf_kill(shelf);
    shelf_open(shelf);
    assert_true(shelf->disk->paths[0].kept);
    assert_int_equal(shelf_scan(shelf), 0);
    assert_int_equal(shelf_dropped(shelf), 0); /* nothing of the former table is left */
}

static void test_reshape_start_empty_forgets_and_stays_empty(void **state)
{
    struct shelf *shelf = *state;
    make_full(shelf);
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
    struct shelf *shelf = *state;
    make_full(shelf);
    shelf_flip(shelf, 100);
    shelf_flip(shelf, KVBI_DISK_SUPERBLOCK_BYTES + 100);
    shelf->config.flags = KVB_DISK_START_EMPTY;
    shelf_open(shelf);
    assert_int_equal(shelf_scan(shelf), 0);
}

static void test_reshape_no_flag_takes_what_kvblock_has_not_written(void **state)
{
    struct shelf *shelf = *state;
    char thesis[] = "my thesis", back[sizeof thesis];
    close(open(shelf->paths[0], O_WRONLY | O_CREAT | O_EXCL, 0600));
    for (uint64_t at = 0; at < 4 * KVBI_DISK_DATA_OFFSET;
         at += 65536) { /* zeros before it prove nothing */
        assert_int_equal(truncate(shelf->paths[0], 0), 0);
        shelf_poke(shelf, at, thesis, sizeof thesis);
        for (uint32_t flags = 0; flags < 8; flags++) {
            shelf->config.flags = flags;
            shelf_expect_refusal(shelf, KVB_EMISMATCH, "has not written; it is left alone");
        }
        shelf_peek(shelf, at, back, sizeof back);
        assert_string_equal(back, thesis);
        assert_int_equal(file_bytes(shelf), at + sizeof thesis);
    }
}

/* Holes and zeros are nobody's, but the space is somebody's. */
static void test_reshape_empty_file_is_taken_and_not_cut(void **state)
{
    struct shelf *shelf = *state;
    static const unsigned char zeros[10000];
    const uint64_t bytes = UINT64_C(1) << 40;
    close(open(shelf->paths[0], O_WRONLY | O_CREAT | O_EXCL, 0600));
    shelf_poke(shelf, 3 << 20, zeros, sizeof zeros);
    assert_int_equal(truncate(shelf->paths[0], (off_t)bytes), 0);
    shelf_open(shelf);
    assert_int_equal(file_bytes(shelf), bytes);
    shelf_fill(shelf, BASE);
    for (uint32_t slot = 0; slot < SHELF_SLOTS; slot++)
        assert_true(shelf_get(shelf, slot, BASE + slot));
}

/* ---- A create that fails after the files were opened -------------------------------------------------------------- */

/* Opened with the configuration of now, and closed before it is settled. */
static void open_in_vain(struct shelf *shelf)
{
    assert_int_equal(kvbi_tier_disk_create(&shelf->tier, &shelf->memory, KVB_TIER_DISK,
                                           &shelf->config, shelf->message, sizeof shelf->message),
                     0);
    kvbi_tier_destroy(&shelf->tier);
}

static void test_reshape_files_that_are_not_settled_are_as_they_were(void **state)
{
    struct shelf *shelf = *state;
    static unsigned char before[2 << 20], after[2 << 20];
    const struct kvbi_disk_purpose purpose = shelf->config.purpose;
    uint64_t bytes = shelf_places(SHELF_SLOTS).file_bytes;
    assert_true(bytes <= sizeof before);
    make_full(shelf);
    shelf_peek(shelf, 0, before, bytes);
    for (int i = 0; i < 5; i++) {
        shelf->config.flags = i == 1 ? KVB_DISK_START_EMPTY : KVB_DISK_EMPTY_ON_MISMATCH;
        shelf->config.purpose.tokens_per_block = i == 2 ? 32 : purpose.tokens_per_block;
        shelf->config.block_count = i == 3   ? 8 * SHELF_SLOTS
                                    : i == 4 ? SHELF_SLOTS / 2
                                             : SHELF_SLOTS;
        open_in_vain(shelf);
        assert_int_equal(file_bytes(shelf), bytes);
        shelf_peek(shelf, 0, after, bytes);
        assert_memory_equal(before, after, bytes);
    }
    shelf->config.block_count = SHELF_SLOTS;
    shelf_open(shelf);
    assert_true(shelf->disk->paths[0].stamped);
    shelf_expect_all(shelf, BASE);
}

static void test_reshape_new_files_that_are_not_settled_are_gone(void **state)
{
    struct shelf *shelf = *state;
    struct stat status;
    shelf->config.path_count = 2;
    open_in_vain(shelf);
    assert_int_equal(stat(shelf->files[0], &status), -1);
    assert_int_equal(stat(shelf->files[1], &status), -1);
}

/* By then it is another file: somebody has moved one there. */
static void test_reshape_what_took_the_place_of_a_new_file_is_left_alone(void **state)
{
    struct shelf *shelf = *state;
    struct stat status;
    assert_int_equal(kvbi_tier_disk_create(&shelf->tier, &shelf->memory, KVB_TIER_DISK,
                                           &shelf->config, shelf->message, sizeof shelf->message),
                     0);
    close(open(shelf->files[1], O_WRONLY | O_CREAT | O_EXCL, 0600));
    assert_int_equal(rename(shelf->files[1], shelf->files[0]), 0);
    kvbi_tier_destroy(&shelf->tier);
    assert_int_equal(stat(shelf->files[0], &status), 0);
}

/* ---- Digest seeds ------------------------------------------------------------------------------------------------- */

static void test_reshape_seed_of_a_file_is_taken_over(void **state)
{
    struct shelf *shelf = *state;
    shelf_open(shelf);
    uint64_t seed = shelf->disk->digest_seed;
    assert_true(seed != 0);
    shelf_kill(shelf);
    shelf_open(shelf);
    assert_int_equal(shelf->disk->digest_seed, seed);
    shelf_kill(shelf);
    shelf->config.purpose.digest_seed = seed;
    shelf_open(shelf);
    assert_true(shelf->disk->paths[0].kept);
}

static void test_reshape_configured_seed_goes_into_new_files(void **state)
{
    struct shelf *shelf = *state;
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
    struct shelf *shelf = *state;
    make_full(shelf);
    shelf->paths[0] = shelf->files[1];
    make_full(shelf);
    shelf->paths[1] = shelf->files[0];
    shelf->config.path_count = 2;
    shelf->config.block_count = 2 * SHELF_SLOTS;
    shelf_expect_refusal(shelf, KVB_EMISMATCH,
                         "digest_seed is another one than that of the file; a path before it");
    assert_non_null(strstr(shelf->message, shelf->files[0]));
    assert_int_equal(shelf_superblock(shelf).flags,
                     KVBI_DISK_CLEAN); /* nor was the first one touched */
    shelf->config.flags = KVB_DISK_EMPTY_ON_MISMATCH;
    shelf_open(shelf);
    assert_true(shelf->disk->paths[0].kept);
    assert_false(shelf->disk->paths[1].kept);
    assert_int_equal(shelf_scan(shelf), SHELF_SLOTS);
}

/* ---- Several paths ------------------------------------------------------------------------------------------------ */

static void test_reshape_slots_go_round_the_paths(void **state)
{
    struct shelf *shelf = *state;
    shelf->config.path_count = 3;
    shelf->config.block_count = 8;
    shelf_open(shelf);
    assert_int_equal(shelf->disk->paths[0].slot_count, 3);
    assert_int_equal(shelf->disk->paths[1].slot_count, 3);
    assert_int_equal(shelf->disk->paths[2].slot_count, 2);
    shelf_fill(shelf, BASE);
    shelf_close(shelf, NULL, 0);
    shelf_open(shelf);
    shelf_expect_all(shelf, BASE);
    assert_ptr_equal(kvbi_disk_path_of(shelf->disk, 7), &shelf->disk->paths[1]);
    assert_int_equal(kvbi_disk_offset(shelf->disk, 7), shelf_payload_at(2));
}

static void test_reshape_order_of_use_spans_the_paths(void **state)
{
    struct shelf *shelf = *state;
    const uint32_t order[] = {5, 3, 4, 0, 2, 1};
    shelf->config.path_count = 3;
    shelf->config.block_count = 6;
    shelf_open(shelf);
    shelf_fill(shelf, BASE);
    shelf_close(shelf, order, 6);
    shelf_open(shelf);
    assert_int_equal(shelf_scan(shelf), 6);
    for (uint32_t i = 1; i < 6; i++)
        assert_true(shelf->found[order[i]].age > shelf->found[order[i - 1]].age);
}

static void test_reshape_paths_may_change_places(void **state)
{
    struct shelf *shelf = *state;
    shelf->config.path_count = 3;
    shelf_open(shelf);
    shelf_fill(shelf, BASE);
    shelf_kill(shelf);
    for (int i = 0; i < 3; i++)
        shelf->paths[i] = shelf->files[2 - i];
    shelf_open(shelf);
    assert_int_equal(shelf_scan(shelf), SHELF_SLOTS);
    for (uint32_t slot = 0; slot < SHELF_SLOTS; slot++)
        shelf_expect(shelf, slot, BASE + slot - slot % 3 + (2 - slot % 3));
}

/* One path fewer: what the others hold is there, in other slots. */
static void test_reshape_removed_path_takes_only_its_own_blocks(void **state)
{
    struct shelf *shelf = *state;
    shelf->config.path_count = 3;
    shelf_open(shelf);
    shelf_fill(shelf, BASE);
    shelf_kill(shelf);
    shelf->paths[1] = shelf->files[2];
    shelf->config.path_count = 2;
    shelf->config.block_count = SHELF_SLOTS / 3 * 2;
    shelf_open(shelf);
    assert_int_equal(shelf_scan(shelf), SHELF_SLOTS / 3 * 2);
    for (uint32_t slot = 0; slot < SHELF_SLOTS / 3 * 2; slot++)
        shelf_expect(shelf, slot, BASE + slot / 2 * 3 + (slot % 2 != 0 ? 2 : 0));
}

static void test_reshape_added_path_starts_empty(void **state)
{
    struct shelf *shelf = *state;
    shelf->config.path_count = 2;
    shelf->config.block_count = 16;
    shelf_open(shelf);
    shelf_fill(shelf, BASE);
    shelf_kill(shelf);
    shelf->config.path_count = 3;
    shelf->config.block_count = 24;
    shelf_open(shelf);
    assert_int_equal(shelf_scan(shelf), 16);
    for (uint32_t slot = 0; slot < 24; slot++)
        assert_int_equal(shelf->seen[slot], slot % 3 != 2);
    shelf_put(shelf, 2, BASE + 500);
    assert_int_equal(kvbi_disk_clear(shelf->disk, 1), 0);
    shelf_kill(shelf);
    shelf_open(shelf);
    assert_int_equal(shelf_scan(shelf), 0);
}

static void test_reshape_same_file_twice_is_named(void **state)
{
    struct shelf *shelf = *state;
    char words[256];
    shelf->config.path_count = 2;
    shelf->paths[1] = shelf->files[0];
    (void)snprintf(words, sizeof words, "%s: is the same file as %s", shelf->files[0],
                   shelf->files[0]);
    shelf_expect_refusal(shelf, KVB_EBUSY, words);
    shelf->config.path_count = 1;
    shelf_open(shelf);
    shelf_kill(shelf);
    assert_int_equal(link(shelf->files[0], shelf->files[1]), 0);
    shelf->paths[1] = shelf->files[1];
    shelf->config.path_count = 2;
    (void)snprintf(words, sizeof words, "%s: is the same file as %s", shelf->files[1],
                   shelf->files[0]);
    shelf_expect_refusal(shelf, KVB_EBUSY, words);
}

static void test_reshape_refused_path_is_named_and_costs_the_others_nothing(void **state)
{
    struct shelf *shelf = *state;
    struct stat status;
    make_full(shelf);
    shelf->config.path_count = 3;
    shelf->paths[2] = "no_such_directory/blocks";
    shelf_expect_refusal(shelf, KVB_ENOENT,
                         "no_such_directory/blocks: its directory does not exist");
    assert_int_equal(shelf_superblock(shelf).flags, KVBI_DISK_CLEAN);
    assert_int_equal(stat(shelf->files[1], &status), -1);
    shelf->config.path_count = 1;
    shelf_open(shelf);
    shelf_expect_all(shelf, BASE);
}

static void test_reshape_more_paths_than_blocks_are_refused(void **state)
{
    struct shelf *shelf = *state;
    shelf->config.path_count = 3;
    shelf->config.block_count = 2;
    shelf_expect_refusal(shelf, KVB_EINVAL, "3 paths for 2 blocks");
    shelf->config.path_count = 0;
    shelf_expect_refusal(shelf, KVB_EINVAL, "needs a path");
}

/* ---- Another size ------------------------------------------------------------------------------------------------- */

/* What lies below the smaller of two sizes is kept, in order; and again when it is opened once more. */
static void reshape(struct shelf *shelf, uint32_t before, uint32_t after)
{
    uint32_t order[SHELF_SLOTS_MAX], fits = before < after ? before : after;
    shelf->config.block_count = before;
    shelf_open(shelf);
    shelf_fill(shelf, BASE);
    for (uint32_t i = 0; i < before; i++)
        order[i] = before - 1 - i;
    shelf_close(shelf, order, before);
    shelf->config.block_count = after;
    for (int run = 0; run < 2; run++) {
        shelf_open(shelf);
        assert_int_equal(file_bytes(shelf), shelf_places(after).file_bytes);
        assert_int_equal(shelf_scan(shelf), fits);
        assert_int_equal(shelf_dropped(shelf), 0);
        for (uint32_t slot = 0; slot < fits; slot++)
            shelf_expect(shelf, slot, BASE + slot);
        for (uint32_t slot = 1; slot < fits && run == 0; slot++)
            assert_true(shelf->found[slot].age < shelf->found[slot - 1].age);
        shelf_kill(shelf);
    }
}

static void test_reshape_larger_file_keeps_all(void **state)
{
    reshape(*state, 20, 60);
}

static void test_reshape_slightly_larger_file_keeps_all(void **state)
{
    reshape(*state, 63, 64);
}

static void test_reshape_smaller_file_keeps_what_fits(void **state)
{
    reshape(*state, 60, 20);
}

static void test_reshape_slightly_smaller_file_keeps_what_fits(void **state)
{
    reshape(*state, 64, 63);
}

/* Small blocks, many slots: the table moves by less than its own length, in several steps. */
static void test_reshape_table_longer_than_its_way_arrives_whole(void **state)
{
    struct shelf *shelf = *state;
    enum { FEW = 9000, MANY = 9001 };
    uint32_t sizes[] = {MANY, FEW, MANY + 1};
    shelf->config.purpose.block_bytes = 512;
    shelf->config.block_count = FEW;
    shelf_open(shelf);
    for (uint32_t slot = 0; slot < FEW; slot++) {
        const struct kvbi_identity identity = shelf_identity(BASE + slot);
        const struct kvbi_label label = shelf_label(BASE + slot, 0);
        struct kvbi_disk_publication publication = {
            .slot = slot,
            .name = kvbi_disk_name(shelf->disk, slot, &identity),
            .checksum = slot,
            .label = &label};
        kvbi_disk_publish(shelf->disk, &publication, 1);
    }
    shelf_kill(shelf);
    for (int i = 0; i < 3; i++) {
        struct kvbi_found found[64];
        uint64_t cursor = 0;
        uint32_t count, next = 0;
        shelf->config.block_count = sizes[i];
        shelf_open(shelf);
        while ((count = kvbi_disk_scan(shelf->disk, &cursor, found, 64)) > 0)
            for (uint32_t j = 0; j < count; j++, next++)
                assert_true(found[j].slot == next && found[j].label.hash == BASE + next);
        assert_int_equal(next, FEW);
        assert_int_equal(shelf_dropped(shelf), 0);
        shelf_kill(shelf);
    }
}

/*
 * Stopped after the new table was written and before a superblock said so: the old superblocks, and behind the new end what was there.
 * What is left of the `before` blocks when it is opened with the old size, and then with the new one, is at least that.
 */
static void interrupted(struct shelf *shelf, uint32_t before, uint32_t after, uint32_t at_least)
{
    static unsigned char tail[64 * SHELF_SLOT_BYTES];
    unsigned char old_pages[2 * KVBI_DISK_SUPERBLOCK_BYTES];
    uint64_t old_end = shelf_places(before).file_bytes, new_end = shelf_places(after).file_bytes;
    shelf->config.block_count = before;
    make_full(shelf);
    shelf_peek(shelf, 0, old_pages, sizeof old_pages);
    if (new_end < old_end)
        shelf_peek(shelf, new_end, tail, old_end - new_end);
    shelf->config.block_count = after;
    shelf_open(shelf);
    shelf_kill(shelf);
    shelf_poke(shelf, 0, old_pages, sizeof old_pages);
    if (new_end < old_end)
        shelf_poke(shelf, new_end, tail, old_end - new_end);
    for (int run = 0; run < 2; run++) {
        shelf->config.block_count = run == 0 ? before : after;
        shelf_open(shelf);
        assert_string_equal(shelf->disk->paths[0].note, "");
        assert_true(shelf_survivors(shelf, BASE) >= at_least);
        shelf_kill(shelf);
    }
    shelf_open(shelf);
    shelf_put(shelf, 1, BASE + 500);
    shelf_kill(shelf);
    shelf_open(shelf);
    assert_true(shelf_scan(shelf) > 0);
    shelf_expect(shelf, 1, BASE + 500);
}

static void test_reshape_interrupted_growth_serves_nothing_wrong(void **state)
{
    interrupted(*state, 20, 60, 20);
}

static void test_reshape_interrupted_slight_growth_serves_nothing_wrong(void **state)
{
    interrupted(*state, 63, 64, 31); /* the second half of the table lies over the first one */
}

static void test_reshape_interrupted_shrinking_serves_nothing_wrong(void **state)
{
    interrupted(*state, 60, 20, 20);
}

/* The same, with a superblock of the new size that the other does not agree with: the newer one counts. */
static void test_reshape_resize_between_its_two_superblocks_is_done(void **state)
{
    struct shelf *shelf = *state;
    unsigned char old_pages[2 * KVBI_DISK_SUPERBLOCK_BYTES];
    struct kvbi_disk_superblock first;
    make_full(shelf);
    shelf_peek(shelf, 0, old_pages, sizeof old_pages);
    shelf->config.block_count = 2 * SHELF_SLOTS;
    shelf_open(shelf);
    uint64_t newest = shelf->disk->paths[0].superblock_at * KVBI_DISK_SUPERBLOCK_BYTES;
    shelf_kill(shelf);
    shelf_poke(shelf, newest, old_pages + newest,
               KVBI_DISK_SUPERBLOCK_BYTES); /* the second one was not written yet */
    first = shelf_superblock(shelf);
    assert_int_equal(first.slot_count, 2 * SHELF_SLOTS);
    shelf_open(shelf);
    assert_int_equal(shelf_scan(shelf), SHELF_SLOTS);
    for (uint32_t slot = 0; slot < SHELF_SLOTS; slot++)
        shelf_expect(shelf, slot, BASE + slot);
}

/* ---- Cut and grown ------------------------------------------------------------------------------------------------ */

static void test_reshape_cut_file_keeps_what_is_left(void **state)
{
    struct shelf *shelf = *state;
    shelf->config.block_count = 40;
    const struct kvbi_disk_superblock places = shelf_places(40);
    const struct {
        uint64_t bytes;
        uint32_t good;
    } cuts[] = {{places.stamps_offset + 3, 40},        {places.stamps_offset, 40},
                {places.table_offset + 4096, 16},      {places.table_offset + 2560, 10},
                {places.table_offset + 2600, 10},      {places.table_offset, 0},
                {places.table_offset - 1, 0},          {KVBI_DISK_DATA_OFFSET + 100, 0},
                {KVBI_DISK_SUPERBLOCK_BYTES + 184, 0}, {KVBI_DISK_SUPERBLOCK_BYTES, 0},
                {KVBI_DISK_SUPERBLOCK_BYTES / 2, 0}};
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        shelf_open(shelf);
        shelf_fill(shelf, BASE);
        shelf_close(shelf, NULL, 0);
        assert_int_equal(truncate(shelf->paths[0], (off_t)cuts[i].bytes), 0);
        shelf_open(shelf);
        assert_non_null(strstr(shelf->disk->paths[0].note, "had been cut from"));
        assert_int_equal(shelf_survivors(shelf, BASE), cuts[i].good);
        assert_int_equal(file_bytes(shelf), places.file_bytes);
        shelf_kill(shelf);
    }
}

static void test_reshape_file_cut_before_its_first_superblock_ends_is_refused(void **state)
{
    struct shelf *shelf = *state;
    make_full(shelf);
    assert_int_equal(truncate(shelf->paths[0], 100), 0);
    shelf_expect_refusal(shelf, KVB_EMISMATCH, "both of its superblocks are damaged");
}

static void test_reshape_something_behind_the_end_is_cut_off(void **state)
{
    struct shelf *shelf = *state;
    make_full(shelf);
    assert_int_equal(truncate(shelf->paths[0], (off_t)shelf_places(SHELF_SLOTS).file_bytes + 12345),
                     0);
    shelf_open(shelf);
    shelf_expect_all(shelf, BASE);
    assert_int_equal(file_bytes(shelf), shelf_places(SHELF_SLOTS).file_bytes);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, shelf_set_up, shelf_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_reshape_file_of_version_1_is_read),
        TEST(test_reshape_unknown_version_is_refused_by_name),
        TEST(test_reshape_file_of_version_0_is_refused_unless_it_may_start_empty),
        TEST(test_reshape_other_purpose_is_refused_by_name_and_left_alone),
        TEST(test_reshape_other_purpose_may_start_empty),
        TEST(test_reshape_start_empty_forgets_and_stays_empty),
        TEST(test_reshape_start_empty_takes_a_file_whose_superblocks_are_damaged),
        TEST(test_reshape_no_flag_takes_what_kvblock_has_not_written),
        TEST(test_reshape_empty_file_is_taken_and_not_cut),
        TEST(test_reshape_files_that_are_not_settled_are_as_they_were),
        TEST(test_reshape_new_files_that_are_not_settled_are_gone),
        TEST(test_reshape_what_took_the_place_of_a_new_file_is_left_alone),
        TEST(test_reshape_seed_of_a_file_is_taken_over),
        TEST(test_reshape_configured_seed_goes_into_new_files),
        TEST(test_reshape_files_of_different_seeds_do_not_go_together),
        TEST(test_reshape_slots_go_round_the_paths),
        TEST(test_reshape_order_of_use_spans_the_paths),
        TEST(test_reshape_paths_may_change_places),
        TEST(test_reshape_removed_path_takes_only_its_own_blocks),
        TEST(test_reshape_added_path_starts_empty),
        TEST(test_reshape_same_file_twice_is_named),
        TEST(test_reshape_refused_path_is_named_and_costs_the_others_nothing),
        TEST(test_reshape_more_paths_than_blocks_are_refused),
        TEST(test_reshape_larger_file_keeps_all),
        TEST(test_reshape_slightly_larger_file_keeps_all),
        TEST(test_reshape_smaller_file_keeps_what_fits),
        TEST(test_reshape_slightly_smaller_file_keeps_what_fits),
        TEST(test_reshape_table_longer_than_its_way_arrives_whole),
        TEST(test_reshape_interrupted_growth_serves_nothing_wrong),
        TEST(test_reshape_interrupted_slight_growth_serves_nothing_wrong),
        TEST(test_reshape_interrupted_shrinking_serves_nothing_wrong),
        TEST(test_reshape_resize_between_its_two_superblocks_is_done),
        TEST(test_reshape_cut_file_keeps_what_is_left),
        TEST(test_reshape_file_cut_before_its_first_superblock_ends_is_refused),
        TEST(test_reshape_something_behind_the_end_is_cut_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
