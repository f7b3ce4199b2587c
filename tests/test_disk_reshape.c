/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of a disk tier that are opened with another size or other paths than they were made for, or
 * cut.
 */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/disk_shelf.h"

#define BASE 1000

/* ---- Several paths --------------------------------------------------------------------------- */

static void test_reshape_slots_go_round_the_paths(void **state)
{
    struct disk_shelf *shelf = *state;
    shelf->config.path_count = 3;
    shelf->config.block_count = 8;
    shelf_open(shelf);
    assert_int_equal(shelf->disk->files[0].slot_count, 3);
    assert_int_equal(shelf->disk->files[1].slot_count, 3);
    assert_int_equal(shelf->disk->files[2].slot_count, 2);
    shelf_fill(shelf, BASE);
    shelf_close(shelf, NULL, 0);
    shelf_open(shelf);
    shelf_expect_all(shelf, BASE);
    assert_ptr_equal(kvbi_disk_file_of(shelf->disk, 7), &shelf->disk->files[1]);
    assert_int_equal(kvbi_disk_offset(shelf->disk, 7), shelf_payload_at(2));
}

static void test_reshape_order_of_use_spans_the_paths(void **state)
{
    struct disk_shelf *shelf = *state;
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
    struct disk_shelf *shelf = *state;
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
    struct disk_shelf *shelf = *state;
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
    struct disk_shelf *shelf = *state;
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
    struct disk_shelf *shelf = *state;
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
    struct disk_shelf *shelf = *state;
    struct stat status;
    shelf_make_full(shelf, BASE);
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
    struct disk_shelf *shelf = *state;
    shelf->config.path_count = 3;
    shelf->config.block_count = 2;
    shelf_expect_refusal(shelf, KVB_EINVAL, "3 paths for 2 blocks");
    shelf->config.path_count = 0;
    shelf_expect_refusal(shelf, KVB_EINVAL, "needs a path");
}

/* ---- Another size ---------------------------------------------------------------------------- */

/*
 * What lies below the smaller of two sizes is kept, in order; and again when it is opened once
 * more.
 */
static void reshape(struct disk_shelf *shelf, uint32_t before, uint32_t after)
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
        assert_int_equal(shelf_file_bytes(shelf), shelf_places(after).file_bytes);
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
    struct disk_shelf *shelf = *state;
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
            .identity = kvbi_disk_identity(shelf->disk, slot, &identity),
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
 * Stopped after the new table was written and before a superblock said so: the old superblocks, and
 * behind the new end what was there. What is left of the `before` blocks when it is opened with the
 * old size, and then with the new one, is at least that.
 */
static void interrupted(struct disk_shelf *shelf, uint32_t before, uint32_t after,
                        uint32_t at_least)
{
    static unsigned char tail[64 * SHELF_SLOT_BYTES];
    unsigned char old_pages[2 * KVBI_DISK_SUPERBLOCK_BYTES];
    uint64_t old_end = shelf_places(before).file_bytes, new_end = shelf_places(after).file_bytes;
    shelf->config.block_count = before;
    shelf_make_full(shelf, BASE);
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
        assert_string_equal(shelf->disk->files[0].note, "");
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

/*
 * The same, with a superblock of the new size that the other does not agree with: the newer one
 * counts.
 */
static void test_reshape_resize_between_its_two_superblocks_is_done(void **state)
{
    struct disk_shelf *shelf = *state;
    unsigned char old_pages[2 * KVBI_DISK_SUPERBLOCK_BYTES];
    struct kvbi_disk_superblock first;
    shelf_make_full(shelf, BASE);
    shelf_peek(shelf, 0, old_pages, sizeof old_pages);
    shelf->config.block_count = 2 * SHELF_SLOTS;
    shelf_open(shelf);
    uint64_t newest = shelf->disk->files[0].superblock_at * KVBI_DISK_SUPERBLOCK_BYTES;
    shelf_kill(shelf);
    /* the second one was not written yet */
    shelf_poke(shelf, newest, old_pages + newest, KVBI_DISK_SUPERBLOCK_BYTES);
    first = shelf_superblock(shelf);
    assert_int_equal(first.slot_count, 2 * SHELF_SLOTS);
    shelf_open(shelf);
    assert_int_equal(shelf_scan(shelf), SHELF_SLOTS);
    for (uint32_t slot = 0; slot < SHELF_SLOTS; slot++)
        shelf_expect(shelf, slot, BASE + slot);
}

/* ---- Cut and grown --------------------------------------------------------------------------- */

static void test_reshape_cut_file_keeps_what_is_left(void **state)
{
    struct disk_shelf *shelf = *state;
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
        assert_non_null(strstr(shelf->disk->files[0].note, "had been cut from"));
        assert_int_equal(shelf_survivors(shelf, BASE), cuts[i].good);
        assert_int_equal(shelf_file_bytes(shelf), places.file_bytes);
        shelf_kill(shelf);
    }
}

static void test_reshape_file_cut_before_its_first_superblock_ends_is_refused(void **state)
{
    struct disk_shelf *shelf = *state;
    shelf_make_full(shelf, BASE);
    assert_int_equal(truncate(shelf->paths[0], 100), 0);
    shelf_expect_refusal(shelf, KVB_EMISMATCH, "both of its superblocks are damaged");
}

static void test_reshape_something_behind_the_end_is_cut_off(void **state)
{
    struct disk_shelf *shelf = *state;
    shelf_make_full(shelf, BASE);
    assert_int_equal(truncate(shelf->paths[0], (off_t)shelf_places(SHELF_SLOTS).file_bytes + 12345),
                     0);
    shelf_open(shelf);
    shelf_expect_all(shelf, BASE);
    assert_int_equal(shelf_file_bytes(shelf), shelf_places(SHELF_SLOTS).file_bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(disk_shelf, test_reshape_slots_go_round_the_paths),
        TEST(disk_shelf, test_reshape_order_of_use_spans_the_paths),
        TEST(disk_shelf, test_reshape_paths_may_change_places),
        TEST(disk_shelf, test_reshape_removed_path_takes_only_its_own_blocks),
        TEST(disk_shelf, test_reshape_added_path_starts_empty),
        TEST(disk_shelf, test_reshape_same_file_twice_is_named),
        TEST(disk_shelf, test_reshape_refused_path_is_named_and_costs_the_others_nothing),
        TEST(disk_shelf, test_reshape_more_paths_than_blocks_are_refused),
        TEST(disk_shelf, test_reshape_larger_file_keeps_all),
        TEST(disk_shelf, test_reshape_slightly_larger_file_keeps_all),
        TEST(disk_shelf, test_reshape_smaller_file_keeps_what_fits),
        TEST(disk_shelf, test_reshape_slightly_smaller_file_keeps_what_fits),
        TEST(disk_shelf, test_reshape_table_longer_than_its_way_arrives_whole),
        TEST(disk_shelf, test_reshape_interrupted_growth_serves_nothing_wrong),
        TEST(disk_shelf, test_reshape_interrupted_slight_growth_serves_nothing_wrong),
        TEST(disk_shelf, test_reshape_interrupted_shrinking_serves_nothing_wrong),
        TEST(disk_shelf, test_reshape_resize_between_its_two_superblocks_is_done),
        TEST(disk_shelf, test_reshape_cut_file_keeps_what_is_left),
        TEST(disk_shelf, test_reshape_file_cut_before_its_first_superblock_ends_is_refused),
        TEST(disk_shelf, test_reshape_something_behind_the_end_is_cut_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
