/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Neighbouring slots share an I/O of the ring: when they do, when they do not, and that each
 * block's result is its own all the same.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "support/disk_rig.h"
#include "transfer/disk/copy.h"
#include "transfer/disk/tier.h"
#include "transfer/disk/uring_flights.h"

#define KIB 1024u

static const struct disk_rig_variant direct = {.name = "uring", .engine = KVBI_DISK_URING};
static const struct disk_rig_variant unregistered = {.name = "uring",
                                                     .engine = KVBI_DISK_URING,
                                                     .unregistered = true};

/* ---- The ring's hands alone ------------------------------------------------------------------ */

struct flights {
    struct disk_rig rig;
    struct kvbi_uring_flights flights;
    struct kvbi_disk_copy copies[64];
    struct kvbi_copy moves[64];
    uint32_t launched;
    int errors[64];
    struct rlimit file_size; /* as it is for all but some tests */
};

static int flights_setup(void **state)
{
    struct flights *f = calloc(1, sizeof *f);
    if (f == NULL || getrlimit(RLIMIT_FSIZE, &f->file_size) != 0)
        return -1;
    f->rig.variant = &direct;
    *state = f;
    return 0;
}

/* Whatever is in the air lands before. True if nothing is left allocated. */
static bool close_flights(struct flights *f)
{
    uint32_t item;
    int error;
    while (f->flights.count > 0) {
        kvbi_uring_flights_enter(&f->flights, true);
        while (kvbi_uring_flights_next(&f->flights, &item, &error)) {
        }
    }
    kvbi_uring_flights_destroy(&f->flights, false);
    f->launched = 0;
    return rig_close(&f->rig);
}

static int flights_teardown(void **state)
{
    struct flights *f = *state;
    bool unlimited = setrlimit(RLIMIT_FSIZE, &f->file_size) == 0;
    (void)signal(SIGXFSZ, SIG_DFL);
    bool closed = close_flights(f);
    if (!closed)
        print_error("the ring's hands have not given all their memory back\n");
    free(f);
    return closed && unlimited ? 0 : -1;
}

static void open_flights(struct flights *f, uint64_t block_bytes, uint32_t paths)
{
    assert_true(close_flights(f));
    rig_must_open(&f->rig, block_bytes, 64, NULL);
    if (paths > 1)
        assert_int_equal(rig_reopen(&f->rig, paths), 0);
    if (kvbi_uring_flights_create(&f->flights, &f->rig.memory, &f->rig.config, f->rig.said) != 0) {
        print_message("no io_uring here: %s\n", f->rig.said);
        skip();
    }
    kvbi_uring_flights_enable(&f->flights);
}

static void launch(struct flights *f, uint32_t host, uint32_t slot, bool write)
{
    uint32_t at = f->launched++;
    f->moves[at] = write ? rig_down(&f->rig, host, slot, slot + 1000, at)
                         : rig_up(&f->rig, slot, host, slot + 1000, at);
    f->copies[at] = (struct kvbi_disk_copy){.write = write};
    if (write)
        rig_fill(&f->rig, host, slot + 1000);
    /* Who is who in the slot is nothing to a flight. */
    (void)!kvbi_disk_copy_begin(&f->copies[at], &f->moves[at], NULL);
    int buffer = kvbi_uring_buffer_of(&f->flights.ring, &f->rig.host, host);
    assert_true(kvbi_uring_flights_room(&f->flights) > 0);
    f->errors[at] = RIG_PENDING;
    assert_int_equal(kvbi_uring_flights_launch(&f->flights, &f->copies[at], 0, at, buffer),
                     f->rig.host.block_bytes);
}

static unsigned prepared(struct flights *f)
{
    return io_uring_sq_ready(&f->flights.ring.ring);
}

/* All that is launched lands, once each. */
static void finish(struct flights *f)
{
    for (uint32_t landed = 0; landed < f->launched;) {
        uint32_t item;
        int error;
        kvbi_uring_flights_enter(&f->flights, true);
        while (kvbi_uring_flights_next(&f->flights, &item, &error)) {
            assert_true(item < f->launched);
            assert_int_equal(f->errors[item], RIG_PENDING);
            f->errors[item] = error;
            landed++;
        }
    }
    assert_int_equal(f->flights.count, 0);
    assert_int_equal(f->flights.bytes, 0);
    f->launched = 0;
}

static void expect_no_errors(const struct flights *f, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        assert_int_equal(f->errors[i], 0);
}

/*
 * Down from one order of memory, up into another: `expected` I/Os each way, and every byte where it
 * belongs.
 */
static void round_trip(struct flights *f, uint64_t block_bytes, uint32_t count, uint32_t step,
                       unsigned expected)
{
    open_flights(f, block_bytes, 1);
    for (uint32_t i = 0; i < count; i++)
        launch(f, i * step % 64, i, true);
    assert_int_equal(prepared(f), expected);
    finish(f);
    expect_no_errors(f, count);
    for (uint32_t i = 0; i < count; i++)
        rig_fill(&f->rig, i, 0);
    for (uint32_t i = 0; i < count; i++)
        launch(f, 63 - i * step % 64, i, false);
    assert_int_equal(prepared(f), expected);
    finish(f);
    expect_no_errors(f, count);
    for (uint32_t i = 0; i < count; i++)
        assert_true(rig_has(&f->rig, 63 - i * step % 64, i + 1000));
}

static void test_runs_of_neighbours_in_memory_share_an_io(void **state)
{
    round_trip(*state, 64 * KIB, 16, 1, 1);
}

static void test_runs_of_blocks_scattered_in_memory_share_an_io(void **state)
{
    round_trip(*state, 64 * KIB, 16, 37, 1);
}

static void test_runs_end_after_a_mebibyte(void **state)
{
    round_trip(*state, 64 * KIB, 17, 37, 2);
    round_trip(*state, 256 * KIB, 9, 37, 3);
    round_trip(*state, 512 * KIB, 4, 1, 2);
    round_trip(*state, 1024 * KIB, 3, 1, 3);
}

static void test_runs_end_after_sixteen_blocks(void **state)
{
    round_trip(*state, 4 * KIB, 64, 37, 4);
}

static void test_runs_are_not_made_of_blocks_that_are_padded(void **state)
{
    round_trip(*state, 5000, 8, 1, 8);
}

static void test_runs_end_at_a_gap_and_at_a_turn(void **state)
{
    struct flights *f = *state;
    open_flights(f, 64 * KIB, 1);
    launch(f, 0, 3, true);
    launch(f, 1, 4, true);
    assert_int_equal(prepared(f), 1);
    launch(f, 2, 6, true); /* a gap */
    assert_int_equal(prepared(f), 2);
    launch(f, 3, 5, true); /* downwards */
    assert_int_equal(prepared(f), 3);
    finish(f);
    expect_no_errors(f, 4);
    launch(f, 4, 7, true);
    launch(f, 5, 8, false); /* the other way */
    assert_int_equal(prepared(f), 2);
    finish(f);
}

static void test_runs_are_of_one_file(void **state)
{
    struct flights *f = *state;
    open_flights(f, 64 * KIB, 2);
    for (uint32_t slot = 0; slot < 8; slot += 2)
        launch(f, slot, slot, true);
    assert_int_equal(prepared(f), 1);
    launch(f, 9, 9, true);
    assert_int_equal(prepared(f), 2);
    finish(f);
    expect_no_errors(f, 5);
}

static void test_runs_do_not_grow_once_handed_over(void **state)
{
    struct flights *f = *state;
    open_flights(f, 64 * KIB, 1);
    launch(f, 0, 0, true);
    kvbi_uring_flights_enter(&f->flights, false);
    assert_int_equal(prepared(f), 0);
    launch(f, 1, 1, true);
    assert_int_equal(prepared(f), 1);
    finish(f);
    expect_no_errors(f, 2);
}

/* A disk without work is not kept waiting for the rest of a batch; one that has some is. */
static void test_runs_and_single_blocks_are_handed_over_to_an_idle_disk_early(void **state)
{
    struct flights *f = *state;
    open_flights(f, 64 * KIB, 1);
    assert_false(kvbi_uring_flights_idle(&f->flights, 1));
    for (uint32_t i = 0; i < 3; i++) { /* three I/Os, two blocks each */
        launch(f, 2 * i, 3 * i, true);
        launch(f, 2 * i + 1, 3 * i + 1, true);
    }
    assert_true(kvbi_uring_flights_idle(&f->flights, 3));
    assert_false(kvbi_uring_flights_idle(&f->flights, 4));
    kvbi_uring_flights_enter(&f->flights, false);
    launch(f, 10, 30, true);
    launch(f, 11, 40, true);
    launch(f, 12, 50, true);
    assert_false(kvbi_uring_flights_idle(&f->flights, 3));
    finish(f);
    expect_no_errors(f, 9);
}

/* ---- Runs that fail -------------------------------------------------------------------------- */

/* Files may have so many bytes, and no more is an error. */
static void limit_files(const struct flights *f, uint64_t bytes)
{
    const struct rlimit limit = {.rlim_cur = bytes, .rlim_max = f->file_size.rlim_max};
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/*
 * One write for 16 slots, of which the system takes those before slot `good` only: short, or
 * refused at all.
 */
static void write_up_to(struct flights *f, uint32_t good)
{
    open_flights(f, 64 * KIB, 1);
    limit_files(f, kvbi_disk_offset(kvbi_disk_of(&f->rig.disk), good));
    for (uint32_t i = 0; i < 16; i++)
        launch(f, i, i, true);
    assert_int_equal(prepared(f), 1);
    finish(f);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &f->file_size), 0);
    expect_no_errors(f, good);
    for (uint32_t i = good; i < 16; i++)
        assert_true(f->errors[i] < 0);
}

static void test_runs_that_are_taken_in_part_fail_only_what_was_not(void **state)
{
    write_up_to(*state, 10);
}

static void test_runs_that_are_refused_fail_block_by_block(void **state)
{
    write_up_to(*state, 0);
}

static void test_runs_that_come_back_short_are_one_read_at_first(void **state)
{
    struct flights *f = *state;
    open_flights(f, 64 * KIB, 1);
    assert_int_equal(
        truncate(f->rig.place.file, (off_t)kvbi_disk_offset(kvbi_disk_of(&f->rig.disk), 3)), 0);
    for (uint32_t i = 0; i < 8; i++)
        launch(f, i, i, false);
    assert_int_equal(prepared(f), 1);
    finish(f);
    expect_no_errors(f, 3);
    for (uint32_t i = 3; i < 8; i++)
        assert_int_equal(f->errors[i], KVB_EIO);
}

/*
 * The ring was given up, with all that was in it, and then speaks after all: nobody is told twice.
 */
static void test_runs_that_were_given_up_are_not_heard_of_again(void **state)
{
    struct flights *f = *state;
    uint32_t item, landed = 0;
    int error;
    open_flights(f, 64 * KIB, 1);
    for (uint32_t i = 0; i < 4; i++)
        launch(f, i, i, true);
    launch(f, 6, 6, true);
    assert_int_equal(prepared(f), 2);
    f->flights.broken = true; /* since long ago */
    f->flights.broken_until_ns = 0;
    while (kvbi_uring_flights_next(&f->flights, &item, &error)) {
        assert_int_equal(error, KVB_EIO);
        landed++;
    }
    assert_int_equal(landed, 5);
    /* Handed over by the test, after all was given up: no I/O can have ended before. */
    assert_int_equal(io_uring_submit_and_wait(&f->flights.ring.ring, 2), 2);
    assert_int_equal(io_uring_cq_ready(&f->flights.ring.ring), 2);
    assert_false(kvbi_uring_flights_next(&f->flights, &item, &error));
    assert_int_equal(io_uring_cq_ready(&f->flights.ring.ring), 0);
    assert_int_equal(f->flights.count, 0);
}

/* ---- Whole engines --------------------------------------------------------------------------- */

#define COUNT 16u
#define GOOD 10u

static void open_engine(struct disk_rig *rig, const struct disk_rig_variant *variant)
{
    rig->variant = variant;
    rig_must_open(rig, 64 * KIB, COUNT, NULL);
    if (rig_start(rig) == 0)
        return;
    print_message("%s\n", rig->said);
    skip();
}

/* All slots in one call, slots as cookies. */
static void move_all(struct disk_rig *rig, bool write)
{
    struct kvbi_copy copies[COUNT];
    uint32_t expected = rig->done + COUNT;
    for (uint32_t i = 0; i < COUNT; i++) {
        uint32_t slot = (i * 7 + 3) % COUNT; /* in no order */
        if (write)
            rig_fill(rig, i, slot);
        copies[i] = write ? rig_down(rig, i, slot, slot, slot) : rig_up(rig, slot, i, slot, slot);
    }
    assert_int_equal(rig->engine->ops->submit(rig->engine, copies, COUNT, !write), 0);
    assert_true(rig_wait(rig, expected));
}

static void expect_good_before_the_end(const struct disk_rig *rig)
{
    for (uint32_t slot = 0; slot < GOOD; slot++)
        assert_int_equal(rig->results[slot], 0);
    for (uint32_t slot = GOOD; slot < COUNT; slot++)
        assert_true(rig->results[slot] < 0);
}

static void test_runs_that_come_back_short_fail_only_blocks_behind_the_end(void **state)
{
    struct disk_rig *rig = *state;
    open_engine(rig, &direct);
    move_all(rig, true);
    assert_int_equal(
        truncate(rig->place.file, (off_t)kvbi_disk_offset(kvbi_disk_of(&rig->disk), GOOD)), 0);
    move_all(rig, false);
    expect_good_before_the_end(rig);
    assert_int_equal(kvbi_disk_of(&rig->disk)->files[0].read_errors[KVBI_DISK_CAUSE_SHORT],
                     COUNT - GOOD);
}

static int fail_slot(void *context, bool write, uint32_t slot, int64_t *result)
{
    (void)write;
    if (slot != *(const uint32_t *)context)
        return 0;
    *result = -EIO;
    return 1;
}

static void test_runs_blame_the_block_that_failed(void **state)
{
    struct disk_rig *rig = *state;
    static uint32_t bad = 5;
    open_engine(rig, &direct);
    move_all(rig, true);
    rig->hooks = (struct kvbi_hooks){.io_fault = fail_slot, .context = &bad};
    move_all(rig, false);
    for (uint32_t slot = 0; slot < COUNT; slot++)
        assert_int_equal(rig->results[slot], slot == bad ? KVB_EIO : 0);
}

static void test_runs_need_no_registered_memory(void **state)
{
    struct disk_rig *rig = *state;
    open_engine(rig, &unregistered);
    move_all(rig, true);
    for (uint32_t i = 0; i < COUNT; i++)
        rig_fill(rig, i, 1000);
    move_all(rig, false);
    for (uint32_t i = 0; i < COUNT; i++) {
        assert_int_equal(rig->results[i], 0);
        assert_true(rig_has(rig, i, (i * 7 + 3) % COUNT));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(flights, test_runs_of_neighbours_in_memory_share_an_io),
        TEST(flights, test_runs_of_blocks_scattered_in_memory_share_an_io),
        TEST(flights, test_runs_end_after_a_mebibyte),
        TEST(flights, test_runs_end_after_sixteen_blocks),
        TEST(flights, test_runs_are_not_made_of_blocks_that_are_padded),
        TEST(flights, test_runs_end_at_a_gap_and_at_a_turn),
        TEST(flights, test_runs_are_of_one_file),
        TEST(flights, test_runs_do_not_grow_once_handed_over),
        TEST(disk_rig, test_runs_that_come_back_short_fail_only_blocks_behind_the_end),
        TEST(flights, test_runs_and_single_blocks_are_handed_over_to_an_idle_disk_early),
        TEST(flights, test_runs_that_are_taken_in_part_fail_only_what_was_not),
        TEST(flights, test_runs_that_are_refused_fail_block_by_block),
        TEST(flights, test_runs_that_come_back_short_are_one_read_at_first),
        TEST(flights, test_runs_that_were_given_up_are_not_heard_of_again),
        TEST(disk_rig, test_runs_blame_the_block_that_failed),
        TEST(disk_rig, test_runs_need_no_registered_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
