/* SPDX-License-Identifier: Apache-2.0 */
/* No damage to a disk tier's file brings back anything but what was stored. */
#include <string.h>

#include "support/disk_shelf.h"

#define BASE 1000

/* ---- Damaged superblocks --------------------------------------------------------------------- */

/* Which bytes make a difference is test_disk_format's to say, of every bit. */
static void test_durable_any_byte_of_one_superblock_may_be_damaged(void **state)
{
    struct disk_shelf *shelf = *state;
    unsigned char pages[2 * KVBI_DISK_SUPERBLOCK_BYTES];
    shelf_open(shelf);
    shelf_fill(shelf, BASE);
    shelf_close(shelf, NULL, 0);
    shelf_peek(shelf, 0, pages, sizeof pages);
    for (uint64_t at = 0; at < sizeof pages;
         at += at % 4096 < sizeof(struct kvbi_disk_superblock) ? 5 : 1499) {
        shelf_poke(shelf, 0, pages, sizeof pages);
        shelf_flip(shelf, at);
        shelf_open(shelf);
        shelf_expect_all(shelf, BASE);
        assert_non_null(strstr(shelf->disk->files[0].note,
                               at < 4096 ? "superblock 1 of 2" : "superblock 2 of 2"));
        shelf_kill(shelf);
        if (at % 4 != 0)
            continue;
        shelf_open(shelf); /* and it is whole again */
        assert_string_equal(shelf->disk->files[0].note, "");
        shelf_kill(shelf);
    }
}

static void test_durable_overwritten_superblock_costs_nothing(void **state)
{
    struct disk_shelf *shelf = *state;
    unsigned char junk[KVBI_DISK_SUPERBLOCK_BYTES];
    memset(junk, 0xa5, sizeof junk);
    for (uint64_t at = 0; at < 2; at++) {
        shelf_open(shelf);
        shelf_fill(shelf, BASE);
        shelf_kill(shelf);
        shelf_poke(shelf, at * sizeof junk, junk, sizeof junk);
        shelf_open(shelf);
        shelf_expect_all(shelf, BASE);
        shelf_kill(shelf);
    }
}

static void test_durable_two_damaged_superblocks_are_refused_and_left_alone(void **state)
{
    struct disk_shelf *shelf = *state;
    unsigned char before[65536], after[65536];
    shelf_open(shelf);
    shelf_fill(shelf, BASE);
    shelf_kill(shelf);
    shelf_flip(shelf, 100);
    shelf_flip(shelf, KVBI_DISK_SUPERBLOCK_BYTES + 60);
    shelf_peek(shelf, 0, before, sizeof before);
    shelf_expect_refusal(shelf, KVB_EMISMATCH,
                         "both of its superblocks are damaged; it is left alone");
    shelf_peek(shelf, 0, after, sizeof after);
    assert_memory_equal(before, after, sizeof before);
    shelf_flip(shelf, 100);
    shelf_open(shelf);
    shelf_expect_all(shelf, BASE);
}

/* The older superblock says nothing that was true before a clear. */
static void test_durable_cleared_content_stays_away_whichever_superblock_is_damaged(void **state)
{
    struct disk_shelf *shelf = *state;
    for (uint64_t at = 0; at < 2; at++) {
        shelf_open(shelf);
        shelf_fill(shelf, BASE);
        assert_int_equal(kvbi_disk_clear(shelf->disk, 1), 0);
        shelf_kill(shelf);
        shelf_flip(shelf, at * KVBI_DISK_SUPERBLOCK_BYTES + 48);
        shelf_open(shelf);
        assert_int_equal(shelf_scan(shelf), 0);
        shelf_kill(shelf);
    }
}

/* ---- Damaged slots --------------------------------------------------------------------------- */

static void test_durable_flipped_payload_bit_fails_its_block_only(void **state)
{
    struct disk_shelf *shelf = *state;
    shelf_open(shelf);
    shelf_fill(shelf, BASE);
    shelf_kill(shelf);
    shelf_flip(shelf, shelf_payload_at(2) + 0);
    shelf_flip(shelf, shelf_payload_at(5) + SHELF_BLOCK_BYTES - 1);
    shelf_open(shelf);
    assert_int_equal(shelf_survivors(shelf, BASE), SHELF_SLOTS - 2);
    assert_false(shelf_get(shelf, 2, BASE + 2));
    assert_false(shelf_get(shelf, 5, BASE + 5));
}

static void test_durable_damaged_entry_is_dropped(void **state)
{
    struct disk_shelf *shelf = *state;
    shelf_open(shelf);
    shelf_fill(shelf, BASE);
    shelf_kill(shelf);
    for (uint64_t byte = 0; byte < KVBI_DISK_ENTRY_BYTES; byte += 5) {
        shelf_flip(shelf, shelf_entry_at(SHELF_SLOTS, 4) + byte);
        shelf_open(shelf);
        assert_int_equal(shelf_scan(shelf), SHELF_SLOTS - 1);
        assert_false(shelf->seen[4]);
        assert_false(shelf_get(shelf, 4, BASE + 4));
        assert_int_equal(shelf_dropped(shelf), 1);
        shelf_kill(shelf);
        shelf_flip(shelf, shelf_entry_at(SHELF_SLOTS, 4) + byte);
    }
}

static void swap(const struct disk_shelf *shelf, uint64_t one, uint64_t two, size_t bytes)
{
    unsigned char a[SHELF_SLOT_BYTES], b[SHELF_SLOT_BYTES];
    shelf_peek(shelf, one, a, bytes);
    shelf_peek(shelf, two, b, bytes);
    shelf_poke(shelf, one, b, bytes);
    shelf_poke(shelf, two, a, bytes);
}

static void swap_payloads(const struct disk_shelf *shelf)
{
    swap(shelf, shelf_payload_at(1), shelf_payload_at(6), SHELF_SLOT_BYTES);
}

static void swap_entries(const struct disk_shelf *shelf)
{
    swap(shelf, shelf_entry_at(SHELF_SLOTS, 1), shelf_entry_at(SHELF_SLOTS, 6),
         KVBI_DISK_ENTRY_BYTES);
}

static void swapped(struct disk_shelf *shelf, bool payloads, bool entries)
{
    shelf_open(shelf);
    shelf_fill(shelf, BASE);
    shelf_kill(shelf);
    if (payloads)
        swap_payloads(shelf);
    if (entries)
        swap_entries(shelf);
    shelf_open(shelf);
    assert_int_equal(shelf_survivors(shelf, BASE), SHELF_SLOTS - 2);
    assert_false(shelf_get(shelf, 1, BASE + 6));
    assert_false(shelf_get(shelf, 6, BASE + 1));
    assert_int_equal(shelf_dropped(shelf), entries ? 2 : 0);
}

static void test_durable_swapped_payloads_are_not_served(void **state)
{
    swapped(*state, true, false);
}

static void test_durable_swapped_entries_are_not_served(void **state)
{
    swapped(*state, false, true);
}

static void test_durable_swapped_slots_are_not_served(void **state)
{
    swapped(*state, true, true);
}

struct snapshot {
    unsigned char payload[SHELF_SLOT_BYTES], entry[KVBI_DISK_ENTRY_BYTES];
};

/* Slot 3 held BASE, of which a snapshot was taken, and holds BASE + 1. */
static void make_history(struct disk_shelf *shelf, struct snapshot *snapshot)
{
    shelf_open(shelf);
    shelf_put(shelf, 3, BASE);
    shelf_peek(shelf, shelf_payload_at(3), snapshot->payload, sizeof snapshot->payload);
    shelf_peek(shelf, shelf_entry_at(SHELF_SLOTS, 3), snapshot->entry, sizeof snapshot->entry);
    shelf_put(shelf, 3, BASE + 1);
    shelf_kill(shelf);
}

static void test_durable_older_payload_is_not_served(void **state)
{
    struct disk_shelf *shelf = *state;
    struct snapshot snapshot;
    make_history(shelf, &snapshot);
    shelf_poke(shelf, shelf_payload_at(3), snapshot.payload, sizeof snapshot.payload);
    shelf_open(shelf);
    assert_int_equal(shelf_scan(shelf), 1);
    assert_false(shelf_get(shelf, 3, BASE + 1));
    assert_false(shelf_get(shelf, 3, BASE));
}

static void test_durable_older_entry_is_not_served(void **state)
{
    struct disk_shelf *shelf = *state;
    struct snapshot snapshot;
    make_history(shelf, &snapshot);
    shelf_poke(shelf, shelf_entry_at(SHELF_SLOTS, 3), snapshot.entry, sizeof snapshot.entry);
    shelf_open(shelf);
    assert_int_equal(shelf_scan(shelf), 1);
    assert_false(shelf_get(shelf, 3, BASE + 1));
    assert_false(shelf_get(shelf, 3, BASE));
}

/*
 * Both together are what they say: an older block under its own name, never under the newer one's.
 */
static void test_durable_older_slot_serves_its_own_name_only(void **state)
{
    struct disk_shelf *shelf = *state;
    struct snapshot snapshot;
    make_history(shelf, &snapshot);
    shelf_poke(shelf, shelf_payload_at(3), snapshot.payload, sizeof snapshot.payload);
    shelf_poke(shelf, shelf_entry_at(SHELF_SLOTS, 3), snapshot.entry, sizeof snapshot.entry);
    shelf_open(shelf);
    assert_int_equal(shelf_scan(shelf), 1);
    assert_false(shelf_get(shelf, 3, BASE + 1));
    shelf_expect(shelf, 3, BASE);
}

/* ... and not even that after a clear. */
static void test_durable_older_slot_of_before_a_clear_is_void(void **state)
{
    struct disk_shelf *shelf = *state;
    struct snapshot snapshot;
    make_history(shelf, &snapshot);
    shelf_open(shelf);
    assert_int_equal(kvbi_disk_clear(shelf->disk, 1), 0);
    shelf_kill(shelf);
    shelf_poke(shelf, shelf_payload_at(3), snapshot.payload, sizeof snapshot.payload);
    shelf_poke(shelf, shelf_entry_at(SHELF_SLOTS, 3), snapshot.entry, sizeof snapshot.entry);
    shelf_open(shelf);
    assert_int_equal(shelf_scan(shelf), 0);
}

/* A power failure in the middle of a payload: any sectors of the new one over the old one. */
static void test_durable_torn_payload_is_not_served(void **state)
{
    struct disk_shelf *shelf = *state;
    struct snapshot old;
    unsigned char now[SHELF_SLOT_BYTES], torn[SHELF_SLOT_BYTES];
    make_history(shelf, &old);
    shelf_peek(shelf, shelf_payload_at(3), now, sizeof now);
    for (unsigned sectors = 1; sectors < 1u << 10; sectors = sectors * 5 / 2 + 1) {
        for (size_t i = 0; i < sizeof torn; i++)
            torn[i] = sectors >> (i / 512) & 1 ? old.payload[i] : now[i];
        shelf_poke(shelf, shelf_payload_at(3), torn, sizeof torn);
        shelf_open(shelf);
        assert_int_equal(shelf_scan(shelf), 1);
        assert_false(shelf_get(shelf, 3, BASE + 1));
        assert_false(shelf_get(shelf, 3, BASE));
        shelf_kill(shelf);
    }
}

/* The same within an entry, and holes of zeros. */
static void test_durable_torn_entry_is_dropped(void **state)
{
    struct disk_shelf *shelf = *state;
    struct snapshot old;
    unsigned char now[KVBI_DISK_ENTRY_BYTES], torn[KVBI_DISK_ENTRY_BYTES];
    make_history(shelf, &old);
    shelf_peek(shelf, shelf_entry_at(SHELF_SLOTS, 3), now, sizeof now);
    for (size_t bytes = 8; bytes < sizeof torn; bytes += 8)
        for (int zeros = 0; zeros < 2; zeros++) {
            memcpy(torn, now, sizeof torn);
            if (zeros)
                memset(torn, 0, bytes);
            else
                memcpy(torn, old.entry, bytes);
            if (memcmp(torn, now, sizeof torn) == 0)
                continue; /* they begin alike */
            shelf_poke(shelf, shelf_entry_at(SHELF_SLOTS, 3), torn, sizeof torn);
            shelf_open(shelf);
            assert_int_equal(shelf_scan(shelf), 0);
            assert_int_equal(shelf_dropped(shelf), 1);
            shelf_kill(shelf);
        }
}

/* Pages of the table that reached the disk, and pages that did not. */
static void test_durable_lost_page_of_the_table_costs_its_newest_blocks(void **state)
{
    struct disk_shelf *shelf = *state;
    unsigned char before[4096];
    uint64_t page = shelf_places(SHELF_SLOTS).table_offset;
    shelf_open(shelf);
    shelf_fill(shelf, BASE);
    shelf_peek(shelf, page, before, sizeof before);
    shelf_fill(shelf, BASE + 500);
    shelf_kill(shelf);
    shelf_poke(shelf, page, before, sizeof before);
    shelf_open(shelf);
    assert_int_equal(shelf_survivors(shelf, BASE + 500), SHELF_SLOTS - 16);
    assert_int_equal(shelf_survivors(shelf, BASE), 0);
}

static void test_durable_pages_of_the_table_in_each_others_place_are_dropped(void **state)
{
    struct disk_shelf *shelf = *state;
    uint64_t page = shelf_places(32).table_offset;
    shelf->config.block_count = 32;
    shelf_open(shelf);
    shelf_fill(shelf, BASE);
    shelf_kill(shelf);
    swap(shelf, page, page + 4096, 4096);
    shelf_open(shelf);
    assert_int_equal(shelf_scan(shelf), 0);
    assert_int_equal(shelf_dropped(shelf), 32);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(disk_shelf, test_durable_any_byte_of_one_superblock_may_be_damaged),
        TEST(disk_shelf, test_durable_overwritten_superblock_costs_nothing),
        TEST(disk_shelf, test_durable_two_damaged_superblocks_are_refused_and_left_alone),
        TEST(disk_shelf, test_durable_cleared_content_stays_away_whichever_superblock_is_damaged),
        TEST(disk_shelf, test_durable_flipped_payload_bit_fails_its_block_only),
        TEST(disk_shelf, test_durable_damaged_entry_is_dropped),
        TEST(disk_shelf, test_durable_swapped_payloads_are_not_served),
        TEST(disk_shelf, test_durable_swapped_entries_are_not_served),
        TEST(disk_shelf, test_durable_swapped_slots_are_not_served),
        TEST(disk_shelf, test_durable_older_payload_is_not_served),
        TEST(disk_shelf, test_durable_older_entry_is_not_served),
        TEST(disk_shelf, test_durable_older_slot_serves_its_own_name_only),
        TEST(disk_shelf, test_durable_older_slot_of_before_a_clear_is_void),
        TEST(disk_shelf, test_durable_torn_payload_is_not_served),
        TEST(disk_shelf, test_durable_torn_entry_is_dropped),
        TEST(disk_shelf, test_durable_lost_page_of_the_table_costs_its_newest_blocks),
        TEST(disk_shelf, test_durable_pages_of_the_table_in_each_others_place_are_dropped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
