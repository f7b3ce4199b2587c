/* SPDX-License-Identifier: Apache-2.0 */
/* What a disk tier's file still holds after a restart: blocks, and their order of use. */
#include <stdio.h>
#include <unistd.h>

#include "support/disk_shelf.h"
#include "support/disk_table.h"
#include "transfer/disk/io.h"

#define BASE 1000

/* ---- Restarts -------------------------------------------------------------------------------- */

static void test_durable_blocks_are_found_after_a_kill(void **state)
{
    struct disk_shelf *shelf = *state;
    shelf_open(shelf);
    shelf_fill(shelf, BASE);
    shelf_kill(shelf);
    shelf_open(shelf);
    assert_true(shelf->disk->files[0].kept);
    shelf_expect_all(shelf, BASE);
    assert_int_equal(shelf_dropped(shelf), 0);
}

static void test_durable_blocks_are_found_after_a_clean_close(void **state)
{
    struct disk_shelf *shelf = *state;
    shelf_open(shelf);
    shelf_fill(shelf, BASE);
    shelf_close(shelf, NULL, 0);
    shelf_open(shelf);
    shelf_expect_all(shelf, BASE);
}

static void test_durable_new_file_holds_nothing(void **state)
{
    struct disk_shelf *shelf = *state;
    shelf_open(shelf);
    assert_false(shelf->disk->files[0].kept);
    assert_int_equal(shelf_scan(shelf), 0);
    shelf_kill(shelf);
    shelf_open(shelf);
    assert_int_equal(shelf_scan(shelf), 0);
    assert_int_equal(shelf_dropped(shelf), 0);
}

static void test_durable_payload_without_entry_is_not_found(void **state)
{
    struct disk_shelf *shelf = *state;
    shelf_open(shelf);
    (void)shelf_write(shelf, 3, BASE);
    shelf_kill(shelf);
    shelf_open(shelf);
    assert_int_equal(shelf_scan(shelf), 0);
}

/* Killed while a slot is written again: its old entry is there, and what it says is not. */
static void test_durable_half_overwritten_slot_is_not_believed(void **state)
{
    struct disk_shelf *shelf = *state;
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
    struct disk_shelf *shelf = *state;
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
static uint64_t publish_at_once(struct disk_shelf *shelf, uint32_t count, uint32_t step)
{
    struct kvbi_disk_publication list[KVBI_DISK_PUBLISH_MAX];
    struct kvbi_label labels[KVBI_DISK_PUBLISH_MAX];
    for (uint32_t i = 0; i < count; i++) {
        uint32_t slot = i * step % SHELF_SLOTS_MAX;
        const struct kvbi_identity identity = shelf_identity(BASE + slot);
        labels[i] = shelf_label(BASE + slot, 0);
        list[i] = (struct kvbi_disk_publication){
            .slot = slot,
            .identity = kvbi_disk_identity(shelf->disk, slot, &identity),
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
static void expect_writes(struct disk_shelf *shelf, uint64_t expected)
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

static void open_three(struct disk_shelf *shelf)
{
    shelf->config.block_count = SHELF_SLOTS_MAX;
    shelf->config.path_count = 3;
    shelf_open(shelf);
}

static void test_durable_publications_into_mapped_tables_are_no_writes(void **state)
{
    struct disk_shelf *shelf = *state;
    open_three(shelf);
    for (uint32_t i = 0; i < 3; i++)
        assert_non_null(shelf->disk->files[i].table);
    expect_writes(shelf, 0);
}

/* The system gives no memory that is a file. */
static void test_durable_publications_of_one_call_share_a_write_a_file(void **state)
{
    struct disk_shelf *shelf = *state;
    open_three(shelf);
    kvbi_disk_scatter_close(&shelf->disk->scatter);
    expect_writes(shelf, 3);
}

/* One of three files cannot be mapped: it is written to. */
static void test_durable_unmapped_table_is_written_to(void **state)
{
    struct disk_shelf *shelf = *state;
    open_three(shelf);
    kvbi_disk_scatter_unmap(shelf->disk->files[1].table, shelf->disk->files[1].slot_count);
    shelf->disk->files[1].table = NULL;
    expect_writes(shelf, 1);
}

/*
 * Somebody has cut the file within a page of the table: what the rest of that page would take in is
 * written, and makes it longer again.
 */
static void test_durable_entry_behind_a_cut_within_its_page_is_there_after_a_kill(void **state)
{
    struct disk_shelf *shelf = *state;
    shelf_open(shelf);
    const struct kvbi_disk_file *file = &shelf->disk->files[0];
    assert_non_null(file->table);
    assert_int_equal(
        ftruncate(file->io.table_fd, (off_t)(file->table_offset + 2 * KVBI_DISK_ENTRY_BYTES + 100)),
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
    struct disk_shelf *shelf = *state;
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
    struct disk_shelf *shelf = *state;
    shelf->config.path_count = 2;
    shelf_open(shelf);
    disk_table_break(&shelf->disk->files[1]);
    assert_int_equal(shelf_put_after(shelf, 3, BASE, 0), KVB_ENOSPC);
    assert_false(shelf_get(shelf, 3, BASE));
    assert_int_equal(shelf_put_after(shelf, 4, BASE, 0), 0);
    assert_true(shelf_get(shelf, 4, BASE));
}

/* ---- Order ----------------------------------------------------------------------------------- */

static uint64_t age(const struct disk_shelf *shelf, uint32_t slot)
{
    assert_true(shelf->seen[slot]);
    return shelf->found[slot].age;
}

static void test_durable_order_of_use_survives_a_clean_close(void **state)
{
    struct disk_shelf *shelf = *state;
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
    struct disk_shelf *shelf = *state;
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
    struct disk_shelf *shelf = *state;
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
    struct disk_shelf *shelf = *state;
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
    struct disk_shelf *shelf = *state;
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
    struct disk_shelf *shelf = *state;
    shelf_open(shelf);
    assert_int_equal(shelf_superblock(shelf).flags, 0);
    shelf_close(shelf, NULL, 0);
    assert_int_equal(shelf_superblock(shelf).flags, KVBI_DISK_CLEAN);
    shelf_open(shelf);
    assert_int_equal(shelf_superblock(shelf).flags, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(disk_shelf, test_durable_blocks_are_found_after_a_kill),
        TEST(disk_shelf, test_durable_blocks_are_found_after_a_clean_close),
        TEST(disk_shelf, test_durable_new_file_holds_nothing),
        TEST(disk_shelf, test_durable_payload_without_entry_is_not_found),
        TEST(disk_shelf, test_durable_half_overwritten_slot_is_not_believed),
        TEST(disk_shelf, test_durable_rewritten_slot_holds_the_new_content),
        TEST(disk_shelf, test_durable_publications_into_mapped_tables_are_no_writes),
        TEST(disk_shelf, test_durable_publications_of_one_call_share_a_write_a_file),
        TEST(disk_shelf, test_durable_unmapped_table_is_written_to),
        TEST(disk_shelf, test_durable_entry_behind_a_cut_within_its_page_is_there_after_a_kill),
        TEST(disk_shelf, test_durable_publications_with_gaps_each_find_their_place),
        TEST(disk_shelf, test_durable_failed_publication_names_nothing),
        TEST(disk_shelf, test_durable_order_of_use_survives_a_clean_close),
        TEST(disk_shelf, test_durable_slot_outside_the_order_keeps_its_age),
        TEST(disk_shelf, test_durable_without_a_clean_close_writes_tell_the_age),
        TEST(disk_shelf, test_durable_damaged_stamps_cost_the_order_only),
        TEST(disk_shelf, test_durable_sequence_goes_on_after_a_restart),
        TEST(disk_shelf, test_durable_open_file_says_that_it_is_not_closed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
