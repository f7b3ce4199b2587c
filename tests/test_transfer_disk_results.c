/* SPDX-License-Identifier: Apache-2.0 */
/* What every disk engine makes of I/O that fails, is short, or is to be repeated. */
#include <errno.h>
#include <unistd.h>

#include "base/lock.h"
#include "support/disk_engines.h"
#include "support/disk_table.h"
#include "transfer/disk/tier.h"

/* A write of a block, or a read of what it holds: the next ones, as rig->plan says. */
static int move_as_planned(struct disk_rig *rig)
{
    rig->hooks = rig_planned(rig);
    rig_fill(rig, 1, 20);
    int result =
        rig->plan.write ? rig_move(rig, rig_down(rig, 1, 1, 20, 0), false) : rig_load(rig, 1, 20);
    rig->hooks = (struct kvbi_hooks){.context = NULL};
    return result;
}

/* ---- Slots ----------------------------------------------------------------------------------- */

static void test_disk_engine_says_which_slots_are_condemned_and_why(void **state)
{
    struct disk_rig *rig = *state;
    rig_begin(rig, 65536, 8);
    const struct kvbi_disk_file *file = &kvbi_disk_of(&rig->disk)->files[0];
    rig_store(rig, 1, 20);
    rig_flip(rig, 1, 5);
    assert_int_equal(rig_load(rig, 1, 20), KVB_ECORRUPT);
    assert_false(rig->condemned[0]);
    assert_int_equal(rig_load(rig, 1, 20), KVB_ECORRUPT);
    assert_true(rig->condemned[0]); /* the second time */
    assert_int_equal(file->read_errors[KVBI_DISK_CAUSE_CHECKSUM], 2);
    rig_store(rig, 1, 20);
    rig->plan = (struct rig_plan){.results = {-EIO}, .count = 1};
    assert_int_equal(move_as_planned(rig), KVB_EIO);
    assert_true(rig->condemned[0]);
    assert_int_equal(file->read_errors[KVBI_DISK_CAUSE_IO], 1);
    rig_store(rig, 3, 30);
    assert_int_equal(rig_load(rig, 3, 31), KVB_ECORRUPT);
    assert_false(rig->condemned[0]);
    assert_int_equal(file->read_errors[KVBI_DISK_CAUSE_IDENTITY], 1);
    assert_int_equal(
        truncate(rig->place.file, (off_t)kvbi_disk_offset(kvbi_disk_of(&rig->disk), 3)), 0);
    assert_int_equal(rig_load(rig, 3, 30), KVB_EIO);
    assert_int_equal(file->read_errors[KVBI_DISK_CAUSE_SHORT], 1);
    rig->plan = (struct rig_plan){.results = {-ENOSPC}, .count = 1, .write = true};
    assert_int_equal(move_as_planned(rig), KVB_ENOSPC);
    assert_false(rig->condemned[0]);
    rig->plan = (struct rig_plan){.results = {-EIO}, .count = 1, .write = true};
    assert_int_equal(move_as_planned(rig), KVB_EIO);
    assert_true(rig->condemned[0]);
    assert_int_equal(file->write_errors, 2);
}

/* A table that cannot be written: the copy fails, whatever its payload did. */
static void test_disk_engine_unpublished_block_fails(void **state)
{
    struct disk_rig *rig = *state;
    static struct kvbi_label label;
    label = rig_label(9);
    rig_begin(rig, 65536, 8);
    disk_table_break(&kvbi_disk_of(&rig->disk)->files[0]);
    struct kvbi_copy copy = rig_down(rig, 1, 1, 9, 0);
    copy.label = &label;
    rig_fill(rig, 1, 9);
    assert_int_equal(rig_move(rig, copy, false), KVB_ENOSPC);
    assert_int_equal(rig_load(rig, 1, 9), KVB_ECORRUPT);
}

/* ---- Results of I/O -------------------------------------------------------------------------- */

static void test_disk_engine_file_cut_under_it_fails(void **state)
{
    static const uint64_t sizes[] = {8192, 2 << 20};
    struct disk_rig *rig = *state;
    for (size_t i = 0; i < 2; i++) {
        rig_begin(rig, sizes[i], 4);
        rig_store(rig, 1, 5);
        rig_store(rig, 3, 6);
        off_t end = (off_t)kvbi_disk_offset(kvbi_disk_of(&rig->disk), 3);
        assert_int_equal(truncate(rig->place.file, end + (off_t)sizes[i] / 2), 0);
        assert_int_equal(rig_load(rig, 3, 6), KVB_EIO);
        assert_int_equal(truncate(rig->place.file, end + 100), 0);
        assert_int_equal(rig_load(rig, 3, 6), KVB_EIO);
        assert_int_equal(truncate(rig->place.file, end), 0);
        assert_int_equal(rig_load(rig, 3, 6), KVB_EIO);
        assert_int_equal(rig_load(rig, 1, 5), 0);
        rig_store(rig, 3, 7); /* and grows again */
        assert_int_equal(rig_load(rig, 3, 7), 0);
        assert_true(rig_close(rig));
    }
}

static void test_disk_engine_failed_io_fails_its_block(void **state)
{
    static const struct {
        int64_t error;
        int result;
    } cases[] = {{-EIO, KVB_EIO},       {-ENOSPC, KVB_ENOSPC}, {-EDQUOT, KVB_ENOSPC},
                 {-EFBIG, KVB_ENOSPC},  {-EBADF, KVB_EIO},     {-EINVAL, KVB_EIO},
                 {-ECANCELED, KVB_EIO}, {0, KVB_EIO},          {INT64_MAX, KVB_EIO},
                 {65537, KVB_EIO},      {-EOPNOTSUPP, KVB_EIO}};
    struct disk_rig *rig = *state;
    rig_begin(rig, 65536, 4);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rig->plan = (struct rig_plan){.results = {cases[i].error}, .count = 1, .write = true};
        rig_store(rig, 1, 20);
        assert_int_equal(move_as_planned(rig), cases[i].result);
        /* What may be there now is not to be had. */
        assert_int_equal(rig_load(rig, 1, 20), KVB_ECORRUPT);
        rig_store(rig, 1, 20);
        rig->plan = (struct rig_plan){.results = {cases[i].error}, .count = 1};
        assert_int_equal(move_as_planned(rig), cases[i].result);
        assert_int_equal(rig_load(rig, 1, 20), 0);
    }
}

static void test_disk_engine_interrupted_io_is_repeated(void **state)
{
    struct disk_rig *rig = *state;
    rig_begin(rig, 65536, 4);
    for (int write = 1; write >= 0; write--) {
        rig->plan = (struct rig_plan){
            .results = {-EINTR, -EAGAIN, -EAGAIN, -EINTR}, .count = 4, .write = write};
        assert_int_equal(move_as_planned(rig), 0);
        assert_int_equal(rig->plan.at, 4);
        rig->plan =
            (struct rig_plan){.results = {-EAGAIN}, .count = 1, .write = write, .for_ever = true};
        assert_int_equal(move_as_planned(rig), KVB_EIO); /* not for ever */
        rig_store(rig, 1, 20);
    }
}

static void test_disk_engine_short_io_goes_on_with_the_rest(void **state)
{
    static const uint64_t sizes[] = {65536, 70001, 3 << 20};
    struct disk_rig *rig = *state;
    for (size_t i = 0; i < 3; i++) {
        rig_begin(rig, sizes[i], 4);
        for (int write = 1; write >= 0; write--) {
            rig->plan =
                (struct rig_plan){.results = {4096, 8192, 12345, 100}, .count = 4, .write = write};
            assert_int_equal(move_as_planned(rig), 0);
            assert_int_equal(rig_load(rig, 1, 20), 0);
        }
        assert_true(rig_close(rig));
    }
}

/* Some pieces of a block fail, others are under way: one result, after the last of them. */
static void test_disk_engine_block_with_failed_pieces_completes_once(void **state)
{
    struct disk_rig *rig = *state;
    rig_begin(rig, 4 << 20, 8);
    for (int write = 1; write >= 0; write--) {
        rig->plan = (struct rig_plan){
            .results = {4096, -EIO, -EAGAIN, -ENOSPC}, .count = 4, .write = write};
        rig->hooks = rig_planned(rig);
        rig->done = 0;
        for (uint32_t i = 0; i < 8; i++)
            rig_submit(rig, write ? rig_down(rig, i, i, i, i) : rig_up(rig, i, i, i, i), false);
        assert_true(rig_wait(rig, 8));
        int failed = 0;
        for (uint32_t i = 0; i < 8; i++)
            failed += rig->results[i] != 0;
        assert_in_range(failed, 1, 2);
        rig->hooks = (struct kvbi_hooks){.context = NULL};
        for (uint32_t i = 0; i < 8; i++)
            rig_store(rig, i, i);
    }
}

static int fail_odd_slots(void *context, uint32_t from_tier, uint32_t from_slot, uint32_t to_tier,
                          uint32_t to_slot)
{
    (void)context, (void)to_slot;
    kvbi_lock_assert_none_held();
    assert_true(from_tier != to_tier);
    return from_slot % 2 != 0 ? KVB_EDEVICE : 0;
}

static void test_disk_engine_copy_fault_fails_without_io(void **state)
{
    struct disk_rig *rig = *state;
    rig_begin(rig, 65536, 8);
    for (uint32_t i = 0; i < 8; i++)
        rig_store(rig, i, i);
    rig->hooks = (struct kvbi_hooks){.copy_fault = fail_odd_slots};
    for (uint32_t i = 0; i < 8; i++) {
        rig_fill(rig, i, 99);
        assert_int_equal(rig_load(rig, i, i), i % 2 != 0 ? KVB_EDEVICE : 0);
        assert_true(rig_has(rig, i, i % 2 != 0 ? 99 : i));
        rig_fill(rig, i, i);
        assert_int_equal(rig_move(rig, rig_down(rig, i, i, i, 0), false),
                         i % 2 != 0 ? KVB_EDEVICE : 0);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(disk_rig, test_disk_engine_says_which_slots_are_condemned_and_why),
        TEST(disk_rig, test_disk_engine_unpublished_block_fails),
        TEST(disk_rig, test_disk_engine_file_cut_under_it_fails),
        TEST(disk_rig, test_disk_engine_failed_io_fails_its_block),
        TEST(disk_rig, test_disk_engine_interrupted_io_is_repeated),
        TEST(disk_rig, test_disk_engine_short_io_goes_on_with_the_rest),
        TEST(disk_rig, test_disk_engine_block_with_failed_pieces_completes_once),
        TEST(disk_rig, test_disk_engine_copy_fault_fails_without_io),
    };
    return run_disk_engine_tests(tests, sizeof tests / sizeof *tests);
}
