/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a disk tier's file does not bring back after a restart: what was cleared, renewed files, and
 * slots that are not to be used.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "support/disk_shelf.h"
#include "transfer/disk/io.h"

#define BASE 1000

/* ---- Epochs ---------------------------------------------------------------------------------- */

static void test_durable_clear_outlives_the_process(void **state)
{
    struct disk_shelf *shelf = *state;
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
    struct disk_shelf *shelf = *state;
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
    struct disk_shelf *shelf = *state;
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

/*
 * A clear that had begun when the process was killed: what was written after it is there; the next
 * clear voids that too.
 */
static void test_durable_clear_that_did_not_reach_the_file_loses_nothing_written_later(void **state)
{
    struct disk_shelf *shelf = *state;
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
    struct disk_shelf *shelf = *state;
    shelf->config.path_count = 2;
    shelf_open(shelf);
    shelf_put(shelf, 0, BASE);
    shelf_put(shelf, 1, BASE + 1);
    int fd = open("/dev/full", O_RDWR | O_CLOEXEC);
    assert_true(dup2(fd, shelf->disk->files[0].io.fd) >= 0);
    close(fd);
    assert_int_equal(kvbi_disk_clear(shelf->disk, 1), KVB_ENOSPC);
    shelf_kill(shelf);
    shelf_open(shelf);
    assert_int_equal(shelf_scan(shelf), 1); /* the other file's clear has reached it */
    shelf_expect(shelf, 0, BASE);
}

/* The clear of a file that takes no writes for a while: `again` is what happens once it does. */
static void clear_in_vain(struct disk_shelf *shelf, void (*again)(struct disk_shelf *shelf))
{
    shelf_open(shelf);
    shelf_fill(shelf, BASE);
    int fd = shelf->disk->files[0].io.fd, kept = dup(fd),
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

static void close_cleanly(struct disk_shelf *shelf)
{
    const uint32_t order[] = {2};
    shelf_close(shelf, order, 1);
}

static void test_durable_clear_that_failed_is_made_good_by_a_clean_close(void **state)
{
    struct disk_shelf *shelf = *state;
    clear_in_vain(shelf, close_cleanly);
    assert_true(shelf->disk->files[0].stamped);
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
    struct disk_shelf *shelf = *state;
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
    struct disk_shelf *shelf = *state;
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
    struct disk_shelf *shelf = *state;
    shelf_open(shelf);
    int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    assert_true(dup2(fd, shelf->disk->files[0].io.fd) >= 0);
    close(fd);
    uint64_t epoch = shelf->disk->files[0].epoch_base;
    assert_int_equal(kvbi_disk_renew(shelf->disk, 0), KVB_EIO);
    assert_int_equal(shelf->disk->files[0].epoch_base, epoch);
}

/* ---- Slots that are not to be used ----------------------------------------------------------- */

static void test_durable_retired_slot_stays_so(void **state)
{
    struct disk_shelf *shelf = *state;
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
    struct disk_shelf *shelf = *state;
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
    /* not in a row */
    assert_false(kvbi_disk_note_read(disk, 5, KVB_ECORRUPT, KVBI_DISK_CAUSE_CHECKSUM, false));
    assert_true(kvbi_disk_note_write(disk, 6, KVB_EIO, true));
    assert_false(kvbi_disk_note_write(disk, 7, KVB_ENOSPC, false));
    assert_false(kvbi_disk_note_write(disk, 8, 0, false));
    const struct kvbi_disk_file *file = &disk->files[0];
    assert_int_equal(file->read_errors[KVBI_DISK_CAUSE_IO], 1);
    assert_int_equal(file->read_errors[KVBI_DISK_CAUSE_SHORT], 2);
    assert_int_equal(file->read_errors[KVBI_DISK_CAUSE_IDENTITY], 2);
    assert_int_equal(file->read_errors[KVBI_DISK_CAUSE_CHECKSUM], 4);
    assert_int_equal(file->write_errors, 2);
    assert_int_equal(file->bytes_written, SHELF_BLOCK_BYTES);
    assert_int_equal(file->bytes_read, SHELF_BLOCK_BYTES);
}

static void test_durable_error_on_the_way_to_the_medium_condemns_no_slot(void **state)
{
    struct disk_shelf *shelf = *state;
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
        assert_true(kvbi_disk_is_medium_error(medium[i]));
    for (size_t i = 0; i < sizeof way / sizeof *way; i++)
        assert_false(kvbi_disk_is_medium_error(way[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(disk_shelf, test_durable_clear_outlives_the_process),
        TEST(disk_shelf, test_durable_write_decided_before_a_clear_counts_for_nothing),
        TEST(disk_shelf, test_durable_each_run_clears_what_earlier_ones_left),
        TEST(disk_shelf,
             test_durable_clear_that_did_not_reach_the_file_loses_nothing_written_later),
        TEST(disk_shelf, test_durable_clear_of_a_file_that_cannot_be_written_says_so),
        TEST(disk_shelf, test_durable_clear_that_failed_is_made_good_by_a_clean_close),
        TEST(disk_shelf, test_durable_clear_that_was_cut_short_is_not_repeated_by_the_next_run),
        TEST(disk_shelf, test_durable_renewed_file_is_empty_and_goes_on),
        TEST(disk_shelf, test_durable_file_that_takes_no_write_is_not_renewed),
        TEST(disk_shelf, test_durable_retired_slot_stays_so),
        TEST(disk_shelf, test_durable_io_error_condemns_at_once_other_failures_the_second_time),
        TEST(disk_shelf, test_durable_error_on_the_way_to_the_medium_condemns_no_slot),
        TEST(bare, test_durable_only_errors_of_the_medium_blame_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
