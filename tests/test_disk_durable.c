/* SPDX-License-Identifier: Apache-2.0 */
/* What a disk tier's file still holds after a restart, and that no damage to it brings back anything else. */
#include "support/disk_shelf.h"
#include "support/disk_table.h"
#include "transfer/disk/io.h"

#include <errno.h>

#define BASE 1000

/* ---- Restarts ----------------------------------------------------------------------------------------------------- */

static void test_durable_blocks_are_found_after_a_kill(void **state)
{
    struct shelf *shelf = *state;
    shelf_open(shelf);
    shelf_fill(shelf, BASE);
    shelf_kill(shelf);
    shelf_open(shelf);
    assert_true(shelf->disk->paths[0].kept);
    shelf_expect_all(shelf, BASE);
    assert_int_equal(shelf_dropped(shelf), 0);
}

static void test_durable_blocks_are_found_after_a_clean_close(void **state)
{
    struct shelf *shelf = *state;
    shelf_open(shelf);
    shelf_fill(shelf, BASE);
    shelf_close(shelf, NULL, 0);
    shelf_open(shelf);
    shelf_expect_all(shelf, BASE);
}

static void test_durable_new_file_holds_nothing(void **state)
{
    struct shelf *shelf = *state;
    shelf_open(shelf);
    assert_false(shelf->disk->paths[0].kept);
    assert_int_equal(shelf_scan(shelf), 0);
    shelf_kill(shelf);
    shelf_open(shelf);
    assert_int_equal(shelf_scan(shelf), 0);
    assert_int_equal(shelf_dropped(shelf), 0);
}

static void test_durable_payload_without_entry_is_not_found(void **state)
{
    struct shelf *shelf = *state;
    shelf_open(shelf);
    (void)shelf_write(shelf, 3, BASE);
    shelf_kill(shelf);
    shelf_open(shelf);
    assert_int_equal(shelf_scan(shelf), 0);
}

/* Killed while a slot is written again: its old entry is there, and what it says is not. */
static void test_durable_half_overwritten_slot_is_not_believed(void **state)
{
    struct shelf *shelf = *state;
    shelf_open(shelf);
    shelf_put(shelf, 3, BASE);
    (void)shelf_write(shelf, 3, BASE + 1);
    shelf_kill(shelf);
    shelf_open(shelf);
    assert_int_equal(shelf_scan(shelf), 1);
    assert_false(shelf_get(shelf, 3, BASE));
    assert_false(shelf_get(shelf, 3, BASE + 1));
}

static void test_durable_rewritten_slot_holds_the_new_content(void **state)
{
    struct shelf *shelf = *state;
    shelf_open(shelf);
    shelf_put(shelf, 3, BASE);
    shelf_kill(shelf);
    shelf_open(shelf);
    assert_int_equal(shelf_scan(shelf), 1);
    shelf_put(shelf, 3, BASE + 1);
    shelf_kill(shelf);
    shelf_open(shelf);
    assert_int_equal(shelf_scan(shelf), 1);
    shelf_expect(shelf, 3, BASE + 1);
    assert_false(shelf_get(shelf, 3, BASE));
}

/* Write calls of this process so far, or 0: the kernel does not tell. */
static uint64_t write_calls(void)
{
    unsigned long long calls = 0;
    char line[64];
    FILE *file = fopen("/proc/self/io", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "syscw: %llu", &calls) == 1)
            break;
    if (file != NULL)
        (void)fclose(file);
    return calls;
}

/* `count` blocks in one call, in slots i * step % SHELF_SLOTS_MAX. How many writes that took. */
static uint64_t publish_at_once(struct shelf *shelf, uint32_t count, uint32_t step)
{
    struct kvbi_disk_publication list[KVBI_DISK_PUBLISH_MAX];
    struct kvbi_label labels[KVBI_DISK_PUBLISH_MAX];
    for (uint32_t i = 0; i < count; i++) {
        uint32_t slot = i * step % SHELF_SLOTS_MAX;
        const struct kvbi_identity identity = shelf_identity(BASE + slot);
        labels[i] = shelf_label(BASE + slot, 0);
        list[i] =
            (struct kvbi_disk_publication){.slot = slot,
                                           .name = kvbi_disk_name(shelf->disk, slot, &identity),
                                           .checksum = shelf_write(shelf, slot, BASE + slot),
                                           .label = &labels[i],
                                           .result = 99};
    }
    uint64_t before = write_calls();
    kvbi_disk_publish(shelf->disk, list, count);
    uint64_t after = write_calls();
    for (uint32_t i = 0; i < count; i++)
        assert_int_equal(list[i].result, 0);
    return after - before;
}

/* All slots of three files in one call: that many writes, and each entry in its place. */
static void expect_writes(struct shelf *shelf, uint64_t expected)
{
    uint64_t calls = publish_at_once(shelf, SHELF_SLOTS_MAX, 37);
    if (write_calls() == 0)
        print_message("/proc/self/io tells nothing here: writes are not counted\n");
    else
        assert_int_equal(calls, expected);
    shelf_kill(shelf);
    shelf_open(shelf);
    shelf_expect_all(shelf, BASE);
}

static void open_three(struct shelf *shelf)
{
    shelf->config.block_count = SHELF_SLOTS_MAX;
    shelf->config.path_count = 3;
    shelf_open(shelf);
}

static void test_durable_publications_into_mapped_tables_are_no_writes(void **state)
{
    struct shelf *shelf = *state;
    open_three(shelf);
    for (uint32_t i = 0; i < 3; i++)
        assert_non_null(shelf->disk->paths[i].table);
    expect_writes(shelf, 0);
}

/* The system gives no memory that is a file. */
static void test_durable_publications_of_one_call_share_a_write_a_file(void **state)
{
    struct shelf *shelf = *state;
    open_three(shelf);
    kvbi_disk_scatter_close(&shelf->disk->scatter);
    expect_writes(shelf, 3);
}

/* One of three files cannot be mapped: it is written to. */
static void test_durable_unmapped_table_is_written_to(void **state)
{
    struct shelf *shelf = *state;
    open_three(shelf);
    kvbi_disk_scatter_unmap(shelf->disk->paths[1].table, shelf->disk->paths[1].slot_count);
    shelf->disk->paths[1].table = NULL;
    expect_writes(shelf, 1);
}

/* Somebody has cut the file within a page of the table: what the rest of that page would take in is written, and makes it longer again. */
static void test_durable_entry_behind_a_cut_within_its_page_is_there_after_a_kill(void **state)
{
    struct shelf *shelf = *state;
    shelf_open(shelf);
    const struct kvbi_disk_path *path = &shelf->disk->paths[0];
    assert_non_null(path->table);
    assert_int_equal(ftruncate(path->file.table_fd,
                               (off_t)(path->table_offset + 2 * KVBI_DISK_ENTRY_BYTES + 100)),
                     0);
    shelf_put(shelf, 1, BASE + 1);
    shelf_put(shelf, 5, BASE + 5);
    shelf_kill(shelf);
    shelf_open(shelf);
    assert_int_equal(shelf_scan(shelf), 2);
    shelf_expect(shelf, 1, BASE + 1);
    shelf_expect(shelf, 5, BASE + 5);
}

static void test_durable_publications_with_gaps_each_find_their_place(void **state)
{
    struct shelf *shelf = *state;
    open_three(shelf);
    kvbi_disk_scatter_close(&shelf->disk->scatter);
    (void)publish_at_once(shelf, 20, 11);
    shelf_kill(shelf);
    shelf_open(shelf);
    assert_int_equal(shelf_scan(shelf), 20);
    for (uint32_t i = 0; i < 20; i++)
        shelf_expect(shelf, i * 11 % SHELF_SLOTS_MAX, BASE + i * 11 % SHELF_SLOTS_MAX);
}

/* A table that cannot be written: nothing is named, and the neighbours in another file are. */
static void test_durable_failed_publication_names_nothing(void **state)
{
    struct shelf *shelf = *state;
    shelf->config.path_count = 2;
    shelf_open(shelf);
    disk_table_break(&shelf->disk->paths[1]);
    assert_int_equal(shelf_put_after(shelf, 3, BASE, 0), KVB_ENOSPC);
    assert_false(shelf_get(shelf, 3, BASE));
    assert_int_equal(shelf_put_after(shelf, 4, BASE, 0), 0);
    assert_true(shelf_get(shelf, 4, BASE));
}

/* ---- Order -------------------------------------------------------------------------------------------------------- */

static uint64_t age(const struct shelf *shelf, uint32_t slot)
{
    assert_true(shelf->seen[slot]);
    return shelf->found[slot].age;
}

static void test_durable_order_of_use_survives_a_clean_close(void **state)
{
    struct shelf *shelf = *state;
    uint32_t order[SHELF_SLOTS];
    shelf_open(shelf);
    shelf_fill(shelf, BASE);
    for (uint32_t i = 0; i < SHELF_SLOTS; i++)
        order[i] = i * 7 % SHELF_SLOTS;
    shelf_close(shelf, order, SHELF_SLOTS);
    shelf_open(shelf);
    shelf_expect_all(shelf, BASE);
    for (uint32_t i = 1; i < SHELF_SLOTS; i++)
        assert_true(age(shelf, order[i]) > age(shelf, order[i - 1]));
}

static void test_durable_slot_outside_the_order_keeps_its_age(void **state)
{
    struct shelf *shelf = *state;
    const uint32_t order[] = {2, 1};
    shelf_open(shelf);
    for (uint32_t slot = 0; slot < 3; slot++)
        shelf_put(shelf, slot, BASE + slot);
    shelf_close(shelf, order, 2);
    shelf_open(shelf);
    assert_int_equal(shelf_scan(shelf), 3);
    assert_int_equal(age(shelf, 0), shelf->found[0].sequence);
    assert_true(age(shelf, 2) > age(shelf, 0) && age(shelf, 1) > age(shelf, 2));
}

/* Stamps speak of the time before the last run. */
static void test_durable_without_a_clean_close_writes_tell_the_age(void **state)
{
    struct shelf *shelf = *state;
    const uint32_t order[] = {1, 0};
    shelf_open(shelf);
    shelf_put(shelf, 0, BASE);
    shelf_put(shelf, 1, BASE + 1);
    shelf_close(shelf, order, 2);
    shelf_open(shelf);
    shelf_kill(shelf);
    shelf_open(shelf);
    assert_int_equal(shelf_scan(shelf), 2);
    for (uint32_t slot = 0; slot < 2; slot++)
        assert_int_equal(age(shelf, slot), shelf->found[slot].sequence);
    assert_true(age(shelf, 1) > age(shelf, 0));
}

static void test_durable_damaged_stamps_cost_the_order_only(void **state)
{
    struct shelf *shelf = *state;
    const uint32_t order[] = {1, 0};
    shelf_open(shelf);
    shelf_put(shelf, 0, BASE);
    shelf_put(shelf, 1, BASE + 1);
    shelf_close(shelf, order, 2);
    shelf_flip(shelf, shelf_places(SHELF_SLOTS).stamps_offset);
    shelf_open(shelf);
    assert_int_equal(shelf_scan(shelf), 2);
    assert_true(age(shelf, 1) > age(shelf, 0));
}

static void test_durable_sequence_goes_on_after_a_restart(void **state)
{
    struct shelf *shelf = *state;
    const uint32_t order[] = {0};
    uint64_t last = 0;
    for (uint32_t round = 0; round < 4; round++) {
        shelf_open(shelf);
        (void)shelf_scan(shelf);
        shelf_put(shelf, 0, BASE + round);
        if (round % 2 == 0)
            shelf_close(shelf, order, 1);
        else
            shelf_kill(shelf);
        shelf_open(shelf);
        assert_int_equal(shelf_scan(shelf), 1);
        assert_true(shelf->found[0].sequence > last);
        last = age(shelf, 0);
        shelf_kill(shelf);
    }
}

static void test_durable_open_file_says_that_it_is_not_closed(void **state)
{
    struct shelf *shelf = *state;
    shelf_open(shelf);
    assert_int_equal(shelf_superblock(shelf).flags, 0);
    shelf_close(shelf, NULL, 0);
    assert_int_equal(shelf_superblock(shelf).flags, KVBI_DISK_CLEAN);
    shelf_open(shelf);
    assert_int_equal(shelf_superblock(shelf).flags, 0);
}

/* ---- Damaged superblocks ------------------------------------------------------------------------------------------ */

/* Which bytes make a difference is test_disk_format's to say, of every bit. */
static void test_durable_any_byte_of_one_superblock_may_be_damaged(void **state)
{
    struct shelf *shelf = *state;
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
        assert_non_null(strstr(shelf->disk->paths[0].note,
                               at < 4096 ? "superblock 1 of 2" : "superblock 2 of 2"));
        shelf_kill(shelf);
        if (at % 4 != 0)
            continue;
        shelf_open(shelf); /* and it is whole again */
        assert_string_equal(shelf->disk->paths[0].note, "");
        shelf_kill(shelf);
    }
}

static void test_durable_overwritten_superblock_costs_nothing(void **state)
{
    struct shelf *shelf = *state;
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
    struct shelf *shelf = *state;
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
    struct shelf *shelf = *state;
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

/* ---- Damaged slots ------------------------------------------------------------------------------------------------ */

static void test_durable_flipped_payload_bit_fails_its_block_only(void **state)
{
    struct shelf *shelf = *state;
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
    struct shelf *shelf = *state;
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

static void swap(const struct shelf *shelf, uint64_t one, uint64_t two, size_t bytes)
{
    unsigned char a[SHELF_SLOT_BYTES], b[SHELF_SLOT_BYTES];
    shelf_peek(shelf, one, a, bytes);
    shelf_peek(shelf, two, b, bytes);
    shelf_poke(shelf, one, b, bytes);
    shelf_poke(shelf, two, a, bytes);
}

static void swap_payloads(const struct shelf *shelf)
{
    swap(shelf, shelf_payload_at(1), shelf_payload_at(6), SHELF_SLOT_BYTES);
}

static void swap_entries(const struct shelf *shelf)
{
    swap(shelf, shelf_entry_at(SHELF_SLOTS, 1), shelf_entry_at(SHELF_SLOTS, 6),
         KVBI_DISK_ENTRY_BYTES);
}

static void swapped(struct shelf *shelf, bool payloads, bool entries)
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
static void make_history(struct shelf *shelf, struct snapshot *snapshot)
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
    struct shelf *shelf = *state;
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
    struct shelf *shelf = *state;
    struct snapshot snapshot;
    make_history(shelf, &snapshot);
    shelf_poke(shelf, shelf_entry_at(SHELF_SLOTS, 3), snapshot.entry, sizeof snapshot.entry);
    shelf_open(shelf);
    assert_int_equal(shelf_scan(shelf), 1);
    assert_false(shelf_get(shelf, 3, BASE + 1));
    assert_false(shelf_get(shelf, 3, BASE));
}

/* Both together are what they say: an older block under its own name, never under the newer one's. */
static void test_durable_older_slot_serves_its_own_name_only(void **state)
{
    struct shelf *shelf = *state;
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
    struct shelf *shelf = *state;
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
    struct shelf *shelf = *state;
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
    struct shelf *shelf = *state;
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
    struct shelf *shelf = *state;
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
    struct shelf *shelf = *state;
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

/* ---- Epochs ------------------------------------------------------------------------------------------------------- */

static void test_durable_clear_outlives_the_process(void **state)
{
    struct shelf *shelf = *state;
    shelf_open(shelf);
    shelf_fill(shelf, BASE);
    assert_int_equal(kvbi_disk_clear(shelf->disk, 1), 0);
    assert_int_equal(shelf_put_after(shelf, 2, BASE + 500, 1), 0);
    shelf_kill(shelf);
    shelf_open(shelf);
    assert_int_equal(shelf_scan(shelf), 1);
    shelf_expect(shelf, 2, BASE + 500);
    assert_int_equal(shelf_dropped(shelf), 0);
}

static void test_durable_write_decided_before_a_clear_counts_for_nothing(void **state)
{
    struct shelf *shelf = *state;
    shelf_open(shelf);
    assert_int_equal(kvbi_disk_clear(shelf->disk, 1), 0);
    assert_int_equal(kvbi_disk_clear(shelf->disk, 2), 0);
    assert_int_equal(shelf_put_after(shelf, 1, BASE + 1, 1), 0);
    assert_int_equal(shelf_put_after(shelf, 2, BASE + 2, 2), 0);
    shelf_kill(shelf);
    shelf_open(shelf);
    assert_int_equal(shelf_scan(shelf), 1);
    shelf_expect(shelf, 2, BASE + 2);
}

static void test_durable_each_run_clears_what_earlier_ones_left(void **state)
{
    struct shelf *shelf = *state;
    for (uint32_t run = 0; run < 3; run++) {
        shelf_open(shelf);
        assert_int_equal(shelf_scan(shelf), run == 0 ? 0 : SHELF_SLOTS);
        assert_int_equal(kvbi_disk_clear(shelf->disk, 1), 0);
        for (uint32_t slot = 0; slot < SHELF_SLOTS; slot++)
            assert_int_equal(shelf_put_after(shelf, slot, BASE + slot, 1), 0);
        shelf_kill(shelf);
    }
    shelf_open(shelf);
    assert_int_equal(shelf_superblock(shelf).epoch, 3);
    shelf_expect_all(shelf, BASE);
}

/* A clear that had begun when the process was killed: what was written after it is there; the next clear voids that too. */
static void test_durable_clear_that_did_not_reach_the_file_loses_nothing_written_later(void **state)
{
    struct shelf *shelf = *state;
    shelf_open(shelf);
    shelf_put(shelf, 1, BASE + 1);
    assert_int_equal(shelf_put_after(shelf, 2, BASE + 2, 1), 0);
    shelf_kill(shelf);
    shelf_open(shelf);
    assert_int_equal(shelf_scan(shelf), 2);
    shelf_expect(shelf, 2, BASE + 2);
    shelf_put(shelf, 3, BASE + 3);
    assert_int_equal(kvbi_disk_clear(shelf->disk, 1), 0);
    shelf_kill(shelf);
    shelf_open(shelf);
    assert_int_equal(shelf_scan(shelf), 0);
}

static void test_durable_clear_of_a_file_that_cannot_be_written_says_so(void **state)
{
    struct shelf *shelf = *state;
    shelf->config.path_count = 2;
    shelf_open(shelf);
    shelf_put(shelf, 0, BASE);
    shelf_put(shelf, 1, BASE + 1);
    int fd = open("/dev/full", O_RDWR | O_CLOEXEC);
    assert_true(dup2(fd, shelf->disk->paths[0].file.fd) >= 0);
    close(fd);
    assert_int_equal(kvbi_disk_clear(shelf->disk, 1), KVB_ENOSPC);
    shelf_kill(shelf);
    shelf_open(shelf);
    assert_int_equal(shelf_scan(shelf), 1); /* the other file's clear has reached it */
    shelf_expect(shelf, 0, BASE);
}

/* The clear of a file that takes no writes for a while: `again` is what happens once it does. */
static void clear_in_vain(struct shelf *shelf, void (*again)(struct shelf *shelf))
{
    shelf_open(shelf);
    shelf_fill(shelf, BASE);
    int fd = shelf->disk->paths[0].file.fd, kept = dup(fd),
        full = open("/dev/full", O_RDWR | O_CLOEXEC);
    assert_true(dup2(full, fd) >= 0);
    assert_int_equal(kvbi_disk_clear(shelf->disk, 1), KVB_ENOSPC);
    assert_true(dup2(kept, fd) >= 0);
    close(kept), close(full);
    assert_int_equal(shelf_put_after(shelf, 2, BASE + 500, 1), 0);
    again(shelf);
    shelf_open(shelf);
    assert_int_equal(shelf_scan(shelf), 1);
    shelf_expect(shelf, 2, BASE + 500);
}

static void close_cleanly(struct shelf *shelf)
{
    const uint32_t order[] = {2};
    shelf_close(shelf, order, 1);
}

static void test_durable_clear_that_failed_is_made_good_by_a_clean_close(void **state)
{
    struct shelf *shelf = *state;
    clear_in_vain(shelf, close_cleanly);
    assert_true(shelf->disk->paths[0].stamped);
    shelf_kill(shelf);
    for (uint64_t at = 0; at < 2; at++) { /* in both superblocks */
        shelf_flip(shelf, at * KVBI_DISK_SUPERBLOCK_BYTES + 48);
        shelf_open(shelf);
        assert_int_equal(shelf_scan(shelf), 1);
        shelf_kill(shelf);
    }
}

/* Of an earlier run, with entries on both sides of it: its clean close is no clear. */
static void test_durable_clear_that_was_cut_short_is_not_repeated_by_the_next_run(void **state)
{
    struct shelf *shelf = *state;
    shelf_open(shelf);
    shelf_put(shelf, 1, BASE + 1);
    assert_int_equal(shelf_put_after(shelf, 2, BASE + 2, 1), 0);
    shelf_kill(shelf);
    shelf_open(shelf);
    assert_int_equal(shelf_scan(shelf), 2);
    shelf_close(shelf, NULL, 0);
    shelf_open(shelf);
    assert_int_equal(shelf_scan(shelf), 2);
}

static void test_durable_renewed_file_is_empty_and_goes_on(void **state)
{
    struct shelf *shelf = *state;
    shelf->config.path_count = 2;
    shelf_open(shelf);
    shelf_fill(shelf, BASE);
    assert_int_equal(kvbi_disk_clear(shelf->disk, 1), 0);
    for (uint32_t slot = 0; slot < SHELF_SLOTS; slot++)
        assert_int_equal(shelf_put_after(shelf, slot, BASE + slot, 1), 0);
    assert_int_equal(kvbi_disk_renew(shelf->disk, 1), 0);
    for (uint32_t slot = 0; slot < SHELF_SLOTS; slot++)
        assert_int_equal(shelf_get(shelf, slot, BASE + slot), slot % 2 == 0);
    assert_int_equal(shelf_put_after(shelf, 5, BASE + 77, 1), 0);
    shelf_kill(shelf);
    shelf_open(shelf);
    assert_int_equal(shelf_scan(shelf), SHELF_SLOTS / 2 + 1);
    shelf_expect(shelf, 5, BASE + 77);
    shelf_expect(shelf, 4, BASE + 4);
}

static void test_durable_file_that_takes_no_write_is_not_renewed(void **state)
{
    struct shelf *shelf = *state;
    shelf_open(shelf);
    int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    assert_true(dup2(fd, shelf->disk->paths[0].file.fd) >= 0);
    close(fd);
    uint64_t epoch = shelf->disk->paths[0].epoch_base;
    assert_int_equal(kvbi_disk_renew(shelf->disk, 0), KVB_EIO);
    assert_int_equal(shelf->disk->paths[0].epoch_base, epoch);
}

/* ---- Slots that are not to be used -------------------------------------------------------------------------------- */

static void test_durable_retired_slot_stays_so(void **state)
{
    struct shelf *shelf = *state;
    shelf_open(shelf);
    shelf_fill(shelf, BASE);
    kvbi_disk_retire(shelf->disk, 7);
    assert_false(shelf_get(shelf, 7, BASE + 7));
    shelf_close(shelf, NULL, 0);
    shelf_open(shelf);
    assert_int_equal(shelf_scan(shelf), SHELF_SLOTS - 1);
    assert_true(shelf->retired == 1 && shelf->found[7].retired);
    assert_int_equal(kvbi_disk_clear(shelf->disk, 1), 0);
    assert_int_equal(kvbi_disk_renew(shelf->disk, 0), 0);
    shelf_kill(shelf);
    shelf_open(shelf);
    assert_int_equal(shelf_scan(shelf), 0);
    assert_true(shelf->retired == 1 && shelf->found[7].retired);
    assert_int_equal(shelf_dropped(shelf), 0);
}

static void test_durable_io_error_condemns_at_once_other_failures_the_second_time(void **state)
{
    struct shelf *shelf = *state;
    static const enum kvbi_disk_cause mild[] = {KVBI_DISK_CAUSE_SHORT, KVBI_DISK_CAUSE_IDENTITY,
                                                KVBI_DISK_CAUSE_CHECKSUM};
    shelf_open(shelf);
    struct kvbi_disk *disk = shelf->disk;
    assert_true(kvbi_disk_note_read(disk, 0, KVB_EIO, KVBI_DISK_CAUSE_IO, true));
    for (uint32_t i = 0; i < 3; i++) {
        assert_false(kvbi_disk_note_read(disk, 1 + i, KVB_ECORRUPT, mild[i], false));
        assert_true(kvbi_disk_note_read(disk, 1 + i, KVB_ECORRUPT, mild[i], false));
    }
    assert_false(kvbi_disk_note_read(disk, 5, KVB_ECORRUPT, KVBI_DISK_CAUSE_CHECKSUM, false));
    assert_false(kvbi_disk_note_read(disk, 5, 0, KVBI_DISK_CAUSE_IO, false));
    assert_false(kvbi_disk_note_read(disk, 5, KVB_ECORRUPT, KVBI_DISK_CAUSE_CHECKSUM,
                                     false)); /* not in a row */
    assert_true(kvbi_disk_note_write(disk, 6, KVB_EIO, true));
    assert_false(kvbi_disk_note_write(disk, 7, KVB_ENOSPC, false));
    assert_false(kvbi_disk_note_write(disk, 8, 0, false));
    const struct kvbi_disk_path *path = &disk->paths[0];
    assert_int_equal(path->read_errors[KVBI_DISK_CAUSE_IO], 1);
    assert_int_equal(path->read_errors[KVBI_DISK_CAUSE_SHORT], 2);
    assert_int_equal(path->read_errors[KVBI_DISK_CAUSE_IDENTITY], 2);
    assert_int_equal(path->read_errors[KVBI_DISK_CAUSE_CHECKSUM], 4);
    assert_int_equal(path->write_errors, 2);
    assert_int_equal(path->bytes_written, SHELF_BLOCK_BYTES);
    assert_int_equal(path->bytes_read, SHELF_BLOCK_BYTES);
}

static void test_durable_error_on_the_way_to_the_medium_condemns_no_slot(void **state)
{
    struct shelf *shelf = *state;
    shelf_open(shelf);
    for (int i = 0; i < 3; i++) {
        assert_false(kvbi_disk_note_read(shelf->disk, 0, KVB_EIO, KVBI_DISK_CAUSE_IO, false));
        assert_false(kvbi_disk_note_write(shelf->disk, 0, KVB_EIO, false));
    }
}

static void test_durable_only_errors_of_the_medium_blame_it(void **state)
{
    (void)state;
    static const int medium[] = {EIO, EREMOTEIO, ENODATA},
                     way[] = {0,      ENOSPC, EDQUOT,    EFBIG, ETIMEDOUT, ENXIO,
                              ENODEV, EAGAIN, ESHUTDOWN, EROFS, ENOLINK,   EINVAL};
    for (size_t i = 0; i < sizeof medium / sizeof *medium; i++)
        assert_true(kvbi_disk_blames_medium(medium[i]));
    for (size_t i = 0; i < sizeof way / sizeof *way; i++)
        assert_false(kvbi_disk_blames_medium(way[i]));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, shelf_set_up, shelf_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_durable_blocks_are_found_after_a_kill),
        TEST(test_durable_blocks_are_found_after_a_clean_close),
        TEST(test_durable_new_file_holds_nothing),
        TEST(test_durable_payload_without_entry_is_not_found),
        TEST(test_durable_half_overwritten_slot_is_not_believed),
        TEST(test_durable_rewritten_slot_holds_the_new_content),
        TEST(test_durable_publications_into_mapped_tables_are_no_writes),
        TEST(test_durable_publications_of_one_call_share_a_write_a_file),
        TEST(test_durable_unmapped_table_is_written_to),
        TEST(test_durable_entry_behind_a_cut_within_its_page_is_there_after_a_kill),
        TEST(test_durable_publications_with_gaps_each_find_their_place),
        TEST(test_durable_failed_publication_names_nothing),
        TEST(test_durable_order_of_use_survives_a_clean_close),
        TEST(test_durable_slot_outside_the_order_keeps_its_age),
        TEST(test_durable_without_a_clean_close_writes_tell_the_age),
        TEST(test_durable_damaged_stamps_cost_the_order_only),
        TEST(test_durable_sequence_goes_on_after_a_restart),
        TEST(test_durable_open_file_says_that_it_is_not_closed),
        TEST(test_durable_any_byte_of_one_superblock_may_be_damaged),
        TEST(test_durable_overwritten_superblock_costs_nothing),
        TEST(test_durable_two_damaged_superblocks_are_refused_and_left_alone),
        TEST(test_durable_cleared_content_stays_away_whichever_superblock_is_damaged),
        TEST(test_durable_flipped_payload_bit_fails_its_block_only),
        TEST(test_durable_damaged_entry_is_dropped),
        TEST(test_durable_swapped_payloads_are_not_served),
        TEST(test_durable_swapped_entries_are_not_served),
        TEST(test_durable_swapped_slots_are_not_served),
        TEST(test_durable_older_payload_is_not_served),
        TEST(test_durable_older_entry_is_not_served),
        TEST(test_durable_older_slot_serves_its_own_name_only),
        TEST(test_durable_older_slot_of_before_a_clear_is_void),
        TEST(test_durable_torn_payload_is_not_served),
        TEST(test_durable_torn_entry_is_dropped),
        TEST(test_durable_lost_page_of_the_table_costs_its_newest_blocks),
        TEST(test_durable_pages_of_the_table_in_each_others_place_are_dropped),
        TEST(test_durable_clear_outlives_the_process),
        TEST(test_durable_write_decided_before_a_clear_counts_for_nothing),
        TEST(test_durable_each_run_clears_what_earlier_ones_left),
        TEST(test_durable_clear_that_did_not_reach_the_file_loses_nothing_written_later),
        TEST(test_durable_clear_of_a_file_that_cannot_be_written_says_so),
        TEST(test_durable_clear_that_failed_is_made_good_by_a_clean_close),
        TEST(test_durable_clear_that_was_cut_short_is_not_repeated_by_the_next_run),
        TEST(test_durable_renewed_file_is_empty_and_goes_on),
        TEST(test_durable_file_that_takes_no_write_is_not_renewed),
        TEST(test_durable_retired_slot_stays_so),
        TEST(test_durable_io_error_condemns_at_once_other_failures_the_second_time),
        TEST(test_durable_error_on_the_way_to_the_medium_condemns_no_slot),
        TEST(test_durable_only_errors_of_the_medium_blame_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
