/* SPDX-License-Identifier: Apache-2.0 */
/* The same demands on every disk engine: io_uring, threads, inside reap; with direct and with buffered I/O. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/time.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "base/lock.h"
#include "support/disk_rig.h"
#include "support/disk_table.h"
#include "transfer/disk/io.h"
#include "transfer/disk/tier.h"

static const struct rig_variant variants[] = {
    {.name = "uring direct", .engine = KVBI_DISK_URING},
    {.name = "uring buffered", .engine = KVBI_DISK_URING, .buffered = true},
    {.name = "uring many issuers", .engine = KVBI_DISK_URING, .shared = true},
    {.name = "uring unregistered", .engine = KVBI_DISK_URING, .unregistered = true},
    {.name = "uring inline", .engine = KVBI_DISK_URING, .poll = true},
    {.name = "threads direct", .engine = KVBI_DISK_POSIX},
    {.name = "threads buffered", .engine = KVBI_DISK_POSIX, .buffered = true},
    {.name = "inline direct", .engine = KVBI_DISK_POSIX, .poll = true},
    {.name = "inline buffered", .engine = KVBI_DISK_POSIX, .poll = true, .buffered = true},
};
#define VARIANTS (sizeof variants / sizeof *variants)

static bool have_uring;

static void set_up_in(struct rig *rig, const struct rig_variant *variant, uint64_t block_bytes,
                      uint32_t slots, void *base)
{
    if (rig_open(rig, variant, block_bytes, slots, base) != 0)
        fail_msg("%s", rig->message);
}

static void start(struct rig *rig)
{
    if (rig_start(rig) != 0)
        fail_msg("%s", rig->said);
}

static void set_up(struct rig *rig, void **state, uint64_t block_bytes, uint32_t slots)
{
    set_up_in(rig, *state, block_bytes, slots, NULL);
    start(rig);
}

static void tear_down(struct rig *rig)
{
    assert_true(rig_close(rig));
}

static void submit(struct rig *rig, struct kvbi_copy copy, bool urgent)
{
    assert_int_equal(rig->engine->ops->submit(rig->engine, &copy, 1, urgent), 0);
}

/* The content `key` into disk slot `slot`, by way of the host slot of that number. */
static void store(struct rig *rig, uint32_t slot, uint64_t key)
{
    rig_fill(rig, slot, key);
    assert_int_equal(rig_move(rig, rig_down(rig, slot, slot, key, 0), false), 0);
    rig_fill(rig, slot, 0);
}

/* The result of reading it back there; the bytes are compared if it is 0. */
static int load(struct rig *rig, uint32_t slot, uint64_t key)
{
    int result = rig_move(rig, rig_up(rig, slot, slot, key, 0), true);
    if (result == 0)
        assert_true(rig_has(rig, slot, key));
    return result;
}

static void touch_file(const struct rig *rig, uint32_t slot, uint64_t offset, void *bytes,
                       size_t count, bool write)
{
    int fd = open(rig->place.file, O_RDWR | O_CLOEXEC);
    off_t at = (off_t)(kvbi_disk_offset(kvbi_disk_of(&rig->disk), slot) + offset);
    assert_int_equal(write ? pwrite(fd, bytes, count, at) : pread(fd, bytes, count, at),
                     (ssize_t)count);
    close(fd);
}

static void flip(const struct rig *rig, uint32_t slot, uint64_t offset)
{
    unsigned char byte;
    touch_file(rig, slot, offset, &byte, 1, false);
    byte ^= 0x10;
    touch_file(rig, slot, offset, &byte, 1, true);
}

/* ---- Round trips -------------------------------------------------------------------------------------------------- */

static void round_trip(const struct rig_variant *variant, uint64_t block_bytes, void *base)
{
    enum { N = 6 };
    struct rig rig;
    set_up_in(&rig, variant, block_bytes, 2 * N, base);
    start(&rig);
    for (uint32_t i = 0; i < 2 * N; i++)
        rig_fill(&rig, i, 100 + i);
    for (uint32_t i = 0; i < N; i++)
        submit(&rig, rig_down(&rig, i, (i * 5) % (2 * N), 100 + i, i), false);
    assert_true(rig_wait(&rig, N));
    for (uint32_t i = 0; i < N;
         i += 2) /* every other slot of the upper half: neighbours stay as they are */
        submit(&rig, rig_up(&rig, (i * 5) % (2 * N), N + i, 100 + i, N + i), true);
    assert_true(rig_wait(&rig, N + N / 2));
    for (uint32_t i = 0; i < N; i++) {
        assert_int_equal(rig.results[i], 0);
        assert_true(rig_has(&rig, i, 100 + i));
        assert_true(rig_has(&rig, N + i, i % 2 == 0 ? 100 + i : 100 + N + i));
    }
    tear_down(&rig);
}

static void test_disk_engine_brings_back_what_was_written(void **state)
{
    static const uint64_t sizes[] = {
        512, 4096, 5000, 65536, 100000, 1 << 20, (1 << 20) + 4096, (1 << 20) + 1, 4 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        round_trip(*state, sizes[i], NULL);
}

static void test_disk_engine_takes_unaligned_memory(void **state)
{
    char *memory = aligned_alloc(4096, 12 * (2 << 20) + 4096);
    round_trip(*state, 65536, memory + 8);
    round_trip(*state, 2 << 20, memory + 512);
    free(memory);
}

/* Padding is zeros, not what the buffer held before; a block has no bytes in its neighbour's slot. */
static void test_disk_engine_padding_holds_no_other_content(void **state)
{
    struct rig rig;
    unsigned char bytes[8192];
    set_up(&rig, state, 5000, 4);
    for (uint32_t i = 0; i < 200; i++)
        store(&rig, i % 4, i);
    touch_file(&rig, 2, 0, bytes, sizeof bytes, false);
    for (size_t i = 5000; i < sizeof bytes; i++)
        assert_int_equal(bytes[i], 0);
    tear_down(&rig);
}

static void test_disk_engine_thousand_copies_through_a_small_ring(void **state)
{
    enum { N = 128 };
    struct rig rig;
    uint64_t random = 4711;
    uint32_t slots[N];
    set_up_in(&rig, *state, 16384, N, NULL);
    rig.config.inflight_count = 3;
    rig.config.capacity = N;
    start(&rig);
    for (uint32_t i = 0; i < N; i++)
        slots[i] = i;
    for (uint32_t round = 0; round < 8; round++) {
        for (uint32_t i = N - 1; i > 0; i--) {
            uint32_t j = (uint32_t)(rig_random(&random) % (i + 1)), swap = slots[i];
            slots[i] = slots[j], slots[j] = swap;
        }
        for (uint32_t i = 0; i < N; i++) {
            if (round % 2 == 0)
                rig_fill(&rig, slots[i], round * N + slots[i]);
            uint64_t key = (round & ~1u) * N + slots[i];
            submit(&rig,
                   round % 2 == 0 ? rig_down(&rig, slots[i], slots[i], key, i)
                                  : rig_up(&rig, slots[i], slots[i], key, i),
                   round % 2 != 0);
        }
        if (round % 2 != 0)
            for (uint32_t i = 0; i < 8; i++)
                assert_int_equal(rig.engine->ops->submit(rig.engine, NULL, 0, true), 0);
        assert_true(rig_wait(&rig, (round + 1) * N));
        for (uint32_t i = 0; i < N; i++) {
            assert_int_equal(rig.results[i], 0);
            assert_true(rig_has(&rig, slots[i], (round & ~1u) * N + slots[i]));
        }
        for (uint32_t i = 0; round % 2 == 0 && i < N; i++)
            rig_fill(&rig, i, 0);
    }
    tear_down(&rig);
}

static void test_disk_engine_takes_all_or_nothing(void **state)
{
    struct rig rig;
    struct kvbi_copy copies[9];
    set_up_in(&rig, *state, 4096, 16, NULL);
    rig.config.capacity = 8;
    start(&rig);
    for (uint32_t i = 0; i < 9; i++) {
        copies[i] = rig_down(&rig, i, i, i, i);
        copies[i].ticket = 1;
    }
    assert_int_equal(rig.engine->ops->submit(rig.engine, copies, 9, false), KVB_EAGAIN);
    assert_int_equal(rig.engine->ops->submit(rig.engine, copies, 8, false), 0);
    assert_int_equal(rig.engine->ops->submit(rig.engine, copies + 8, 1, false), KVB_EAGAIN);
    assert_true(rig.engine->ops->signal(rig.engine, 1));
    assert_true(rig_wait(&rig, 8));
    assert_int_equal(rig.engine->ops->submit(rig.engine, copies + 8, 1, false), 0);
    assert_true(rig_wait(&rig, 9));
    tear_down(&rig);
}

/* ---- Verification ------------------------------------------------------------------------------------------------- */

static void test_disk_engine_flipped_bit_is_corrupt(void **state)
{
    static const uint64_t sizes[] = {4096, 5000, 2 << 20};
    for (size_t i = 0; i < 3; i++) {
        struct rig rig;
        set_up(&rig, state, sizes[i], 4);
        const uint64_t offsets[] = {0, 1, sizes[i] / 2, sizes[i] - 1};
        store(&rig, 2, 7);
        for (size_t j = 0; j < 4; j++) {
            flip(&rig, 2, offsets[j]);
            assert_int_equal(load(&rig, 2, 7), KVB_ECORRUPT);
            flip(&rig, 2, offsets[j]);
            assert_int_equal(load(&rig, 2, 7), 0);
        }
        tear_down(&rig);
    }
}

static void test_disk_engine_torn_block_is_corrupt(void **state)
{
    struct rig rig;
    static char before[65536], after[65536];
    set_up(&rig, state, sizeof before, 2);
    store(&rig, 1, 5);
    touch_file(&rig, 1, 0, before, sizeof before, false);
    store(&rig, 1, 6);
    touch_file(&rig, 1, 0, after, sizeof after, false);
    for (size_t torn = 512; torn < sizeof before; torn += 8192) {
        touch_file(&rig, 1, 0, before, torn, true);
        assert_int_equal(load(&rig, 1, 6), KVB_ECORRUPT);
        touch_file(&rig, 1, 0, after, torn, true);
    }
    touch_file(&rig, 1, 0, before, sizeof before, true); /* a lost write */
    assert_int_equal(load(&rig, 1, 6), KVB_ECORRUPT);
    assert_int_equal(load(&rig, 1, 5), KVB_ECORRUPT);
    tear_down(&rig);
}

static void test_disk_engine_swapped_slots_are_corrupt(void **state)
{
    struct rig rig;
    static char one[65536], two[65536];
    set_up(&rig, state, sizeof one, 4);
    store(&rig, 1, 11);
    store(&rig, 2, 11); /* the same content: only the place differs */
    store(&rig, 3, 13);
    touch_file(&rig, 1, 0, one, sizeof one, false);
    touch_file(&rig, 3, 0, two, sizeof two, false);
    touch_file(&rig, 1, 0, two, sizeof two, true);
    touch_file(&rig, 3, 0, one, sizeof one, true);
    assert_int_equal(load(&rig, 1, 11), KVB_ECORRUPT);
    assert_int_equal(load(&rig, 3, 13), KVB_ECORRUPT);
    assert_int_equal(load(&rig, 2, 11), 0);
    tear_down(&rig);
}

static void test_disk_engine_other_identity_is_corrupt(void **state)
{
    struct rig rig;
    set_up(&rig, state, 4096, 4);
    assert_int_equal(load(&rig, 1, 1), KVB_ECORRUPT); /* never written */
    store(&rig, 1, 1);
    for (int i = 0; i < 4; i++) {
        struct kvbi_copy copy = rig_up(&rig, 1, 1, 1, 0);
        uint64_t *fields[] = {&copy.identity.hash, &copy.identity.digest[0],
                              &copy.identity.digest[1], &copy.identity.generation};
        *fields[i] += 1;
        assert_int_equal(rig_move(&rig, copy, true), KVB_ECORRUPT);
    }
    assert_int_equal(load(&rig, 1, 1), 0);
    struct kvbi_copy later = rig_down(&rig, 1, 1, 1, 0);
    later.identity.generation = 2;
    assert_int_equal(rig_move(&rig, later, false), 0);
    assert_int_equal(load(&rig, 1, 1), KVB_ECORRUPT); /* a stale generation */
    tear_down(&rig);
}

/* ---- I/O that says something else --------------------------------------------------------------------------------- */

struct plan {
    int64_t results[4]; /* in place of the next ones */
    atomic_int at, count;
    bool for_ever, write;
};

static int replace(void *context, bool write, uint32_t slot, int64_t *result)
{
    struct plan *plan = context;
    (void)slot;
    kvbi_lock_assert_none_held();
    if (write != plan->write || plan->at >= plan->count)
        return 0;
    *result = plan->results[plan->for_ever ? 0 : plan->at++];
    return 1;
}

static int with_plan(struct rig *rig, struct plan *plan)
{
    rig->hooks = (struct kvbi_hooks){.io_fault = replace, .context = plan};
    rig_fill(rig, 1, 20);
    int result = plan->write ? rig_move(rig, rig_down(rig, 1, 1, 20, 0), false) : load(rig, 1, 20);
    rig->hooks = (struct kvbi_hooks){.context = NULL};
    return result;
}

/* ---- What outlives the process ------------------------------------------------------------------------------------ */

/* Blocks with labels, of any order, over several files: found after a kill, in their slots, and read back by the engine. */
static void test_disk_engine_labelled_blocks_are_found_by_the_next_process(void **state)
{
    enum { N = 40 };
    struct rig rig;
    struct kvbi_label labels[N];
    struct kvbi_found found[N + 1];
    uint64_t cursor = 0;
    set_up_in(&rig, *state, 20000, N, NULL);
    assert_int_equal(rig_reopen(&rig, 3), 0);
    start(&rig);
    for (uint32_t i = 0; i < N; i++) {
        uint32_t slot = i * 7 % N;
        struct kvbi_copy copy = rig_down(&rig, slot, slot, 100 + slot, slot);
        labels[slot] = rig_label(100 + slot);
        copy.label = &labels[slot];
        rig_fill(&rig, slot, 100 + slot);
        submit(&rig, copy, false);
    }
    assert_true(rig_wait(&rig, N));
    assert_int_equal(rig_reopen(&rig, 3), 0);
    start(&rig);
    assert_int_equal(kvbi_disk_scan(kvbi_disk_of(&rig.disk), &cursor, found, N + 1), N);
    for (uint32_t i = 0; i < N; i++) {
        uint32_t slot = found[i].slot;
        assert_int_equal(found[i].label.hash, 100 + slot);
        rig_fill(&rig, slot, 0);
        assert_int_equal(load(&rig, slot, 100 + slot), 0);
    }
    tear_down(&rig);
}

static void test_disk_engine_says_which_slots_are_condemned_and_why(void **state)
{
    struct rig rig;
    struct plan plan = {.results = {-EIO}, .count = 1};
    set_up(&rig, state, 65536, 8);
    const struct kvbi_disk_path *path = &kvbi_disk_of(&rig.disk)->paths[0];
    store(&rig, 1, 20);
    flip(&rig, 1, 5);
    assert_int_equal(load(&rig, 1, 20), KVB_ECORRUPT);
    assert_false(rig.condemned[0]);
    assert_int_equal(load(&rig, 1, 20), KVB_ECORRUPT);
    assert_true(rig.condemned[0]); /* the second time */
    assert_int_equal(path->read_errors[KVBI_DISK_CAUSE_CHECKSUM], 2);
    store(&rig, 1, 20);
    assert_int_equal(with_plan(&rig, &plan), KVB_EIO);
    assert_true(rig.condemned[0]);
    assert_int_equal(path->read_errors[KVBI_DISK_CAUSE_IO], 1);
    store(&rig, 3, 30);
    assert_int_equal(load(&rig, 3, 31), KVB_ECORRUPT);
    assert_false(rig.condemned[0]);
    assert_int_equal(path->read_errors[KVBI_DISK_CAUSE_IDENTITY], 1);
    assert_int_equal(truncate(rig.place.file, (off_t)kvbi_disk_offset(kvbi_disk_of(&rig.disk), 3)),
                     0);
    assert_int_equal(load(&rig, 3, 30), KVB_EIO);
    assert_int_equal(path->read_errors[KVBI_DISK_CAUSE_SHORT], 1);
    plan = (struct plan){.results = {-ENOSPC}, .count = 1, .write = true};
    assert_int_equal(with_plan(&rig, &plan), KVB_ENOSPC);
    assert_false(rig.condemned[0]);
    plan = (struct plan){.results = {-EIO}, .count = 1, .write = true};
    assert_int_equal(with_plan(&rig, &plan), KVB_EIO);
    assert_true(rig.condemned[0]);
    assert_int_equal(path->write_errors, 2);
    tear_down(&rig);
}

/* A table that cannot be written: the copy fails, whatever its payload did. */
static void test_disk_engine_unpublished_block_fails(void **state)
{
    struct rig rig;
    const struct kvbi_label label = rig_label(9);
    set_up(&rig, state, 65536, 8);
    disk_table_break(&kvbi_disk_of(&rig.disk)->paths[0]);
    struct kvbi_copy copy = rig_down(&rig, 1, 1, 9, 0);
    copy.label = &label;
    rig_fill(&rig, 1, 9);
    assert_int_equal(rig_move(&rig, copy, false), KVB_ENOSPC);
    assert_int_equal(load(&rig, 1, 9), KVB_ECORRUPT);
    tear_down(&rig);
}

/* ---- Results of I/O ----------------------------------------------------------------------------------------------- */

static void test_disk_engine_file_cut_under_it_fails(void **state)
{
    static const uint64_t sizes[] = {8192, 2 << 20};
    for (size_t i = 0; i < 2; i++) {
        struct rig rig;
        set_up(&rig, state, sizes[i], 4);
        store(&rig, 1, 5);
        store(&rig, 3, 6);
        off_t end = (off_t)kvbi_disk_offset(kvbi_disk_of(&rig.disk), 3);
        assert_int_equal(truncate(rig.place.file, end + (off_t)sizes[i] / 2), 0);
        assert_int_equal(load(&rig, 3, 6), KVB_EIO);
        assert_int_equal(truncate(rig.place.file, end + 100), 0);
        assert_int_equal(load(&rig, 3, 6), KVB_EIO);
        assert_int_equal(truncate(rig.place.file, end), 0);
        assert_int_equal(load(&rig, 3, 6), KVB_EIO);
        assert_int_equal(load(&rig, 1, 5), 0);
        store(&rig, 3, 7); /* and grows again */
        assert_int_equal(load(&rig, 3, 7), 0);
        tear_down(&rig);
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
    struct rig rig;
    set_up(&rig, state, 65536, 4);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct plan plan = {.results = {cases[i].error}, .count = 1, .write = true};
        store(&rig, 1, 20);
        assert_int_equal(with_plan(&rig, &plan), cases[i].result);
        assert_int_equal(load(&rig, 1, 20),
                         KVB_ECORRUPT); /* what may be there now is not to be had */
        store(&rig, 1, 20);
        plan = (struct plan){.results = {cases[i].error}, .count = 1};
        assert_int_equal(with_plan(&rig, &plan), cases[i].result);
        assert_int_equal(load(&rig, 1, 20), 0);
    }
    tear_down(&rig);
}

static void test_disk_engine_interrupted_io_is_repeated(void **state)
{
    struct rig rig;
    set_up(&rig, state, 65536, 4);
    for (int write = 1; write >= 0; write--) {
        struct plan plan = {
            .results = {-EINTR, -EAGAIN, -EAGAIN, -EINTR}, .count = 4, .write = write};
        assert_int_equal(with_plan(&rig, &plan), 0);
        assert_int_equal(plan.at, 4);
        plan = (struct plan){.results = {-EAGAIN}, .count = 1, .write = write, .for_ever = true};
        assert_int_equal(with_plan(&rig, &plan), KVB_EIO); /* not for ever */
        store(&rig, 1, 20);
    }
    tear_down(&rig);
}

static void test_disk_engine_short_io_goes_on_with_the_rest(void **state)
{
    static const uint64_t sizes[] = {65536, 70001, 3 << 20};
    for (size_t i = 0; i < 3; i++) {
        struct rig rig;
        set_up(&rig, state, sizes[i], 4);
        for (int write = 1; write >= 0; write--) {
            struct plan plan = {.results = {4096, 8192, 12345, 100}, .count = 4, .write = write};
            assert_int_equal(with_plan(&rig, &plan), 0);
            assert_int_equal(load(&rig, 1, 20), 0);
        }
        tear_down(&rig);
    }
}

/* Some pieces of a block fail, others are under way: one result, after the last of them. */
static void test_disk_engine_block_with_failed_pieces_completes_once(void **state)
{
    struct rig rig;
    set_up(&rig, state, 4 << 20, 8);
    for (int write = 1; write >= 0; write--) {
        struct plan plan = {.results = {4096, -EIO, -EAGAIN, -ENOSPC}, .count = 4, .write = write};
        rig.hooks = (struct kvbi_hooks){.io_fault = replace, .context = &plan};
        rig.done = 0;
        for (uint32_t i = 0; i < 8; i++)
            submit(&rig, write ? rig_down(&rig, i, i, i, i) : rig_up(&rig, i, i, i, i), false);
        assert_true(rig_wait(&rig, 8));
        int failed = 0;
        for (uint32_t i = 0; i < 8; i++)
            failed += rig.results[i] != 0;
        assert_in_range(failed, 1, 2);
        rig.hooks = (struct kvbi_hooks){.context = NULL};
        for (uint32_t i = 0; i < 8; i++)
            store(&rig, i, i);
    }
    tear_down(&rig);
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
    struct rig rig;
    set_up(&rig, state, 65536, 8);
    for (uint32_t i = 0; i < 8; i++)
        store(&rig, i, i);
    rig.hooks = (struct kvbi_hooks){.copy_fault = fail_odd_slots};
    for (uint32_t i = 0; i < 8; i++) {
        rig_fill(&rig, i, 99);
        assert_int_equal(load(&rig, i, i), i % 2 != 0 ? KVB_EDEVICE : 0);
        assert_true(rig_has(&rig, i, i % 2 != 0 ? 99 : i));
        rig_fill(&rig, i, i);
        assert_int_equal(rig_move(&rig, rig_down(&rig, i, i, i, 0), false),
                         i % 2 != 0 ? KVB_EDEVICE : 0);
    }
    tear_down(&rig);
}

/* ---- Order -------------------------------------------------------------------------------------------------------- */

static void test_disk_engine_fence_holds_back_its_copy_only(void **state)
{
    struct rig rig;
    set_up(&rig, state, 65536, 8);
    struct kvbi_copy held = rig_down(&rig, 1, 1, 1, 1), free = rig_down(&rig, 2, 2, 2, 2);
    const struct kvb_fence fence = {.kind = KVB_FENCE_COUNTER, .handle = 5};
    bool more;
    assert_int_equal(rig.engine->ops->import(rig.engine, &fence, &held.ticket, NULL), 0);
    assert_int_equal(
        rig.engine->ops->import(rig.engine, &(struct kvb_fence){.kind = 9}, &free.ticket, NULL),
        KVB_EINVAL);
    assert_int_equal(rig.engine->ops->import(rig.engine, NULL, &free.ticket, NULL), 0);
    submit(&rig, held, false);
    submit(&rig, free, false);
    assert_true(rig_wait(&rig, 1));
    assert_int_equal(rig.order[0], 2);
    assert_false(rig.engine->ops->signal(rig.engine, 4));
    assert_true(rig_reap(&rig, 64, &more));
    assert_false(more);
    assert_int_equal(rig.done, 1);
    rig_fill(&rig, 1, 1); /* what is there when the fence is reached is what is written */
    assert_true(rig.engine->ops->signal(rig.engine, 5));
    assert_true(rig_wait(&rig, 2));
    assert_int_equal(load(&rig, 1, 1), 0);
    tear_down(&rig);
}

struct order {
    uint32_t reads, reads_after_a_write, writes;
};

/* With one I/O at a time, these are asked in the order of the I/Os. */
static int note_order(void *context, bool write, uint32_t slot, int64_t *result)
{
    struct order *order = context;
    (void)slot, (void)result;
    order->reads += !write;
    order->reads_after_a_write += !write && order->writes > 0;
    order->writes += write;
    return 0;
}

static void test_disk_engine_urgent_copies_go_first(void **state)
{
    enum { N = 24 };
    struct rig rig;
    struct order order = {.reads = 0};
    set_up_in(&rig, *state, 2 << 20, N, NULL);
    rig.config.inflight_count = 1;
    rig.config.threads = 1;
    start(&rig);
    for (uint32_t i = 0; i < N / 2; i++)
        store(&rig, i, i);
    rig.done = 0;
    rig.hooks = (struct kvbi_hooks){.io_fault = note_order, .context = &order};
    for (uint32_t i = 0; i < N; i++) {
        uint32_t slot = i % 2 == 0 ? N / 2 + i / 2 : i / 2;
        struct kvbi_copy copy =
            i % 2 == 0 ? rig_down(&rig, slot, slot, slot, i) : rig_up(&rig, slot, slot, slot, i);
        copy.ticket = 1;
        submit(&rig, copy, i % 2 != 0);
    }
    assert_true(rig.engine->ops->signal(rig.engine, 1));
    assert_true(rig_wait(&rig, N));
    assert_in_range(order.reads, N / 2, N); /* one or two pieces a block */
    assert_in_range(order.writes, N / 2, N);
    assert_int_equal(order.reads_after_a_write, 0);
    tear_down(&rig);
}

static void test_disk_engine_event_is_readable_when_done(void **state)
{
    struct rig rig;
    bool more;
    set_up(&rig, state, 65536, 8);
    struct pollfd event = {.fd = rig.engine->ops->event_fd(rig.engine), .events = POLLIN};
    const struct rig_variant *variant = *state;
    if (variant->poll && variant->engine == KVBI_DISK_POSIX) {
        assert_int_equal(event.fd, -1);
        tear_down(&rig);
        return;
    }
    assert_false(rig.engine->ops->ready(rig.engine));
    assert_int_equal(poll(&event, 1, 0), 0);
    for (uint32_t i = 0; i < 8; i++)
        submit(&rig, rig_down(&rig, i, i, i, i), false);
    do /* it may be readable before there is something to do, and stays so */
        assert_int_equal(poll(&event, 1, KV_GIVE_UP_MS), 1);
    while (!rig.engine->ops->ready(rig.engine));
    assert_true(rig_wait(&rig, 8));
    do /* a signal may come later than what it announces: reap takes it away */
        assert_true(rig_reap(&rig, 64, &more));
    while (poll(&event, 1, 0) == 1);
    assert_false(more);
    assert_false(rig.engine->ops->ready(rig.engine));
    tear_down(&rig);
}

/*
 * Done by itself, one after the other: meanwhile the disk ends what was submitted before, as a
 * rule.
 */
static void read_as_many_directly(const struct rig *rig, uint32_t count)
{
    _Alignas(KVBI_DISK_ALIGN) char page[KVBI_DISK_ALIGN];
    const struct kvbi_disk *disk = kvbi_disk_of(&rig->disk);
    for (uint32_t i = 0; i < count; i++)
        assert_int_equal(kvbi_disk_read(disk->paths[0].file.fd, page, sizeof page,
                                        disk->paths[0].superblock_at * KVBI_DISK_SUPERBLOCK_BYTES),
                         0);
}

/* The kernel brings out a part of what has completed at a time; the rest must not be slept over. */
static void test_disk_engine_many_completions_at_once_are_all_seen(void **state)
{
    struct rig rig;
    set_up(&rig, state, 4096, 128);
    for (uint32_t round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < 128; i++)
            submit(&rig, rig_down(&rig, i, i, i, i), false);
        read_as_many_directly(&rig, 128);
        assert_true(rig_wait(&rig, 128 * (round + 1)));
    }
    tear_down(&rig);
}

static void test_disk_engine_reap_stops_at_max(void **state)
{
    struct rig rig;
    bool more;
    set_up(&rig, state, 4096, 8);
    for (uint32_t i = 0; i < 8; i++)
        submit(&rig, rig_down(&rig, i, i, i, i), false);
    for (uint32_t i = 0; i < 8;) {
        uint32_t before = rig.done;
        assert_true(rig_reap(&rig, i % 2, &more));
        assert_true(rig.done <= before + i % 2);
        i += i % 2 == 0 || rig.done > before;
    }
    assert_true(rig_wait(&rig, 8));
    tear_down(&rig);
}

/* ---- Drain -------------------------------------------------------------------------------------------------------- */

static void test_disk_engine_drain_ends_everything(void **state)
{
    enum { N = 40 };
    struct rig rig;
    uint32_t cancelled = 0;
    set_up(&rig, state, 2 << 20, N);
    for (uint32_t i = 0; i < N; i++) {
        struct kvbi_copy copy = rig_down(&rig, i, i, i, i);
        rig_fill(&rig, i, i);
        copy.ticket = i < 3 ? 7 : 0;
        submit(&rig, copy, i % 4 == 0);
    }
    rig.engine->ops->drain(rig.engine);
    assert_false(rig.engine->ops->signal(rig.engine, 7));
    int event = rig.engine->ops->event_fd(rig.engine);
    assert_true(rig.engine->ops->ready(rig.engine));
    for (bool more = true; more;)
        assert_true(rig_reap(&rig, 7, &more));
    assert_int_equal(rig.done, N); /* none is left to come: reap had them all without waiting */
    assert_true(event < 0 || !rig.engine->ops->ready(rig.engine));
    for (uint32_t i = 0; i < N; i++) {
        assert_true(rig.results[i] == 0 || rig.results[i] == KVB_ECANCELED);
        cancelled += rig.results[i] == KVB_ECANCELED;
    }
    assert_in_range(cancelled, 3, N);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(rig.results[i], KVB_ECANCELED);
    store(&rig, 0, 77); /* and is whole again */
    assert_int_equal(load(&rig, 0, 77), 0);
    tear_down(&rig);
}

static void test_disk_engine_destroyed_with_copies_in_flight_waits(void **state)
{
    struct rig rig;
    set_up(&rig, state, 2 << 20, 8);
    for (uint32_t i = 0; i < 8; i++)
        submit(&rig, rig_down(&rig, i, i, i, i), false);
    tear_down(&rig); /* sanitizers watch the memory */
}

/* Random copies up and down, fences, faults, drains: each completes once, and what succeeds is right. */
static void test_disk_engine_random_work_completes_exactly_once(void **state)
{
    enum { N = 48 };
    struct rig rig;
    struct plan plan = {.results = {-EIO, 4096, -EAGAIN, 0}, .count = 4, .write = true};
    uint64_t random = 88172645463325252u, counter = 0, stored[N] = {0}, ticket[N] = {0};
    bool up[N] = {false}, out[N] = {false};
    uint32_t submitted = 0;
    set_up_in(&rig, *state, 20000, N, NULL);
    rig.config.inflight_count = 5;
    rig.config.capacity = 32;
    start(&rig);
    for (int step = 0; step < 6000; step++) {
        uint32_t slot = (uint32_t)(rig_random(&random) >> 20) % N, before = rig.done;
        bool more;
        switch (random % 16) {
        case 0:
            if (random % 256 < 16)
                rig.engine->ops->drain(rig.engine);
            break;
        case 1:
            (void)rig.engine->ops->signal(rig.engine, ++counter);
            break;
        case 2:
        case 3:
        case 4:
            assert_true(rig_reap(&rig, (uint32_t)(random >> 40) % 8, &more));
            for (uint32_t i = before; i < rig.done; i++) {
                uint32_t at = rig.order[i % RIG_TAGS];
                assert_true(out[at]);
                assert_true(rig.results[at] == KVB_ECANCELED || ticket[at] <= counter);
                if (up[at])
                    assert_true(rig.results[at] != 0 || rig_has(&rig, at, stored[at]));
                else if (rig.results[at] != 0 && rig.results[at] != KVB_ECANCELED)
                    stored[at] = 0;
                else if (rig.results[at] == KVB_ECANCELED)
                    stored[at] = 0; /* or what it was: not asked for any more */
                out[at] = false;
            }
            break;
        case 5: /* faults are planned while nothing is under way: threads read the plan */
            if (rig.done == submitted) {
                plan.at = 0;
                plan.write = random >> 60 != 0;
                rig.hooks = (struct kvbi_hooks){.io_fault = random >> 63 ? replace : NULL,
                                                .context = &plan};
            }
            break;
        default:
            if (out[slot])
                break;
            up[slot] = stored[slot] != 0 && (random >> 33) % 2 != 0;
            struct kvbi_copy copy;
            if (up[slot])
                copy = rig_up(&rig, slot, slot, stored[slot], slot);
            else
                copy = rig_down(&rig, slot, slot, (uint64_t)step + 1, slot);
            rig_fill(&rig, slot, up[slot] ? 0 : (uint64_t)step + 1);
            copy.ticket = ticket[slot] = (random >> 45) % 4 == 0 ? counter + (random >> 47) % 3 : 0;
            if (rig.engine->ops->submit(rig.engine, &copy, 1, up[slot]) == 0) {
                if (!up[slot])
                    stored[slot] = (uint64_t)step + 1;
                out[slot] = true;
                submitted++;
            }
            break;
        }
    }
    rig.engine->ops->drain(rig.engine);
    for (bool more = true; more;)
        assert_true(rig_reap(&rig, 64, &more));
    assert_int_equal(rig.done, submitted);
    tear_down(&rig);
}

/* ---- Threads, signals, forks -------------------------------------------------------------------------------------- */

static void *fill_and_signal(void *argument)
{
    struct rig *rig = argument;
    for (uint32_t slot = 0; slot < 32; slot++) {
        rig_fill(rig, slot, slot);
        if (rig->engine->ops->signal(rig->engine, slot + 1))
            (void)rig->engine->ops->ready(rig->engine);
    }
    return NULL;
}

/* What the signalling thread wrote before is what is stored. */
static void test_disk_engine_signals_from_another_thread_release_copies(void **state)
{
    struct rig rig;
    pthread_t thread;
    bool more;
    set_up(&rig, state, 65536, 32);
    for (uint32_t slot = 0; slot < 32; slot++) {
        struct kvbi_copy copy = rig_down(&rig, slot, slot, slot, slot);
        copy.ticket = slot + 1;
        submit(&rig, copy, false);
    }
    assert_int_equal(pthread_create(&thread, NULL, fill_and_signal, &rig), 0);
    while (rig.done < 32)
        assert_true(rig_reap(&rig, 64, &more));
    assert_int_equal(pthread_join(thread, NULL), 0);
    for (uint32_t slot = 0; slot < 32; slot++) {
        rig_fill(&rig, slot, 1000);
        assert_int_equal(load(&rig, slot, slot), 0);
    }
    tear_down(&rig);
}

static void *submit_some(void *argument)
{
    struct rig *rig = argument;
    for (uint32_t slot = 0; slot < 16; slot++) {
        struct kvbi_copy copy = rig_down(rig, slot, slot, slot, slot);
        if (rig->engine->ops->submit(rig->engine, &copy, 1, false) != 0)
            return rig;
    }
    return NULL;
}

/* Who submitted may be gone. A single-issuer ring answers nobody else: it is used by one thread only. */
static void test_disk_engine_work_of_a_gone_thread_completes(void **state)
{
    struct rig rig;
    pthread_t thread;
    void *failed;
    const struct rig_variant *variant = *state;
    bool all_from_one = variant->engine == KVBI_DISK_URING && !variant->shared;
    set_up(&rig, state, 1 << 20, 16);
    for (uint32_t slot = 0; slot < 16; slot++)
        rig_fill(&rig, slot, slot);
    if (!all_from_one) {
        assert_int_equal(pthread_create(&thread, NULL, submit_some, &rig), 0);
        assert_int_equal(pthread_join(thread, &failed), 0);
        assert_null(failed);
        assert_true(rig_wait(&rig, 16));
    }
    tear_down(&rig);
}

static void ignore(int number)
{
    (void)number;
}

static void test_disk_engine_storm_of_signals_loses_nothing(void **state)
{
    struct rig rig;
    const struct sigaction action = {.sa_handler = ignore};
    const struct itimerval often = {.it_interval = {.tv_usec = 200}, .it_value = {.tv_usec = 200}},
                           never = {{0}, {0}};
    struct sigaction before;
    set_up(&rig, state, 1 << 20, 16);
    assert_int_equal(sigaction(SIGALRM, &action, &before), 0);
    assert_int_equal(setitimer(ITIMER_REAL, &often, NULL), 0);
    for (int round = 0; round < 4; round++) {
        for (uint32_t slot = 0; slot < 16; slot++)
            submit(&rig, rig_down(&rig, slot, slot, slot, slot), false);
        if (round == 2)
            rig.engine->ops->drain(rig.engine);
        assert_true(rig_wait(&rig, (uint32_t)(round + 1) * 16));
    }
    assert_int_equal(setitimer(ITIMER_REAL, &never, NULL), 0);
    assert_int_equal(sigaction(SIGALRM, &before, NULL), 0);
    for (uint32_t slot = 0; slot < 16; slot++)
        assert_int_equal(rig.results[slot], 0);
    tear_down(&rig);
}

static int use_in_child(struct rig *rig)
{
    const struct kvbi_engine_ops *ops = rig->engine->ops;
    struct kvbi_completion completion;
    struct kvbi_copy copy = rig_down(rig, 0, 0, 0, 60);
    bool more = true;
    if (ops->submit(rig->engine, &copy, 1, true) != KVB_EFORK)
        return 1;
    if (ops->reap(rig->engine, &completion, 1, 0, &more) != 0 || more)
        return 2;
    ops->drain(rig->engine);
    if (ops->ready(rig->engine) || ops->signal(rig->engine, 9))
        return 3;
    ops->destroy(rig->engine);
    return 0;
}

/* With copies in flight. The child touches nothing of the parent's, whose copies all complete. */
static void test_disk_engine_child_is_kept_out(void **state)
{
    struct rig rig;
    int status;
    set_up(&rig, state, 1 << 20, 16);
    for (uint32_t slot = 0; slot < 16; slot++) {
        rig_fill(&rig, slot, slot);
        submit(&rig, rig_down(&rig, slot, slot, slot, slot), false);
    }
    pid_t child = fork();
    if (child == 0)
        _exit(use_in_child(&rig));
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_true(rig_wait(&rig, 16));
    for (uint32_t slot = 0; slot < 16; slot++)
        assert_int_equal(load(&rig, slot, slot), 0);
    tear_down(&rig);
}

/* ---- Create ------------------------------------------------------------------------------------------------------- */

static void test_disk_engine_allocation_failures_leave_nothing(void **state)
{
    struct rig rig;
    int64_t successes = 0;
    set_up_in(&rig, *state, 5000, 4, NULL);
    for (;; successes++) {
        int64_t live = rig.failing.live_count;
        rig.failing.left = successes;
        int error = rig_start(&rig);
        rig.failing.left = INT64_MAX;
        if (error == 0 && strstr(rig.said, "Cannot allocate memory") == NULL)
            break;
        if (error == 0) /* works, without its memory registered */
            rig.engine->ops->destroy(rig.engine);
        else
            assert_int_equal(error, KVB_ENOMEM);
        assert_true(error != 0 || rig.engine != NULL);
        rig.engine = NULL;
        assert_int_equal(rig.failing.live_count, live);
    }
    assert_true(successes >= 3);
    store(&rig, 1, 1);
    assert_int_equal(load(&rig, 1, 1), 0);
    tear_down(&rig);
}

static void test_disk_engine_says_what_it_is(void **state)
{
    const struct rig_variant *variant = *state;
    struct rig rig;
    set_up(&rig, state, 65536, 4);
    assert_non_null(strstr(rig.said, variant->engine == KVBI_DISK_URING ? "uring (" : "posix, "));
    assert_non_null(strstr(rig.said, kvbi_disk_of(&rig.disk)->mode));
    assert_string_equal(rig.engine->ops->name,
                        variant->engine == KVBI_DISK_URING ? "uring" : "posix");
    if (variant->engine == KVBI_DISK_URING)
        assert_non_null(strstr(rig.said, variant->unregistered ? "buffers not registered: asked for"
                                                               : "buffers"));
    else
        assert_non_null(
            strstr(rig.said, variant->poll ? "inside poll (asked for)" : "8 threads (asked for)"));
    tear_down(&rig);
}

/* ---- Main --------------------------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    CMUnitTestFunction function;
} bodies[] = {
#define BODY(f)                                                                                    \
    {                                                                                              \
#f, f                                                                                      \
    }
    BODY(test_disk_engine_brings_back_what_was_written),
    BODY(test_disk_engine_takes_unaligned_memory),
    BODY(test_disk_engine_padding_holds_no_other_content),
    BODY(test_disk_engine_thousand_copies_through_a_small_ring),
    BODY(test_disk_engine_takes_all_or_nothing),
    BODY(test_disk_engine_flipped_bit_is_corrupt),
    BODY(test_disk_engine_torn_block_is_corrupt),
    BODY(test_disk_engine_swapped_slots_are_corrupt),
    BODY(test_disk_engine_other_identity_is_corrupt),
    BODY(test_disk_engine_labelled_blocks_are_found_by_the_next_process),
    BODY(test_disk_engine_says_which_slots_are_condemned_and_why),
    BODY(test_disk_engine_unpublished_block_fails),
    BODY(test_disk_engine_file_cut_under_it_fails),
    BODY(test_disk_engine_failed_io_fails_its_block),
    BODY(test_disk_engine_interrupted_io_is_repeated),
    BODY(test_disk_engine_short_io_goes_on_with_the_rest),
    BODY(test_disk_engine_block_with_failed_pieces_completes_once),
    BODY(test_disk_engine_copy_fault_fails_without_io),
    BODY(test_disk_engine_fence_holds_back_its_copy_only),
    BODY(test_disk_engine_urgent_copies_go_first),
    BODY(test_disk_engine_event_is_readable_when_done),
    BODY(test_disk_engine_many_completions_at_once_are_all_seen),
    BODY(test_disk_engine_reap_stops_at_max),
    BODY(test_disk_engine_drain_ends_everything),
    BODY(test_disk_engine_destroyed_with_copies_in_flight_waits),
    BODY(test_disk_engine_random_work_completes_exactly_once),
    BODY(test_disk_engine_signals_from_another_thread_release_copies),
    BODY(test_disk_engine_work_of_a_gone_thread_completes),
    BODY(test_disk_engine_storm_of_signals_loses_nothing),
    BODY(test_disk_engine_child_is_kept_out),
    BODY(test_disk_engine_allocation_failures_leave_nothing),
    BODY(test_disk_engine_says_what_it_is),
};
#define BODIES (sizeof bodies / sizeof *bodies)

static bool uring_works(void)
{
    struct rig rig;
    bool works = rig_open(&rig, &variants[0], 4096, 1, NULL) == 0 && rig_start(&rig) == 0;
    if (!works)
        (void)fprintf(stderr, "the ring is not tested: %s%s\n", rig.message, rig.said);
    (void)rig_close(&rig);
    return works;
}

int main(void)
{
    static struct CMUnitTest tests[VARIANTS * BODIES];
    static char names[VARIANTS * BODIES][128];
    size_t count = 0;
    have_uring = uring_works();
    for (size_t v = 0; v < VARIANTS; v++) {
        if (variants[v].engine == KVBI_DISK_URING && !have_uring)
            continue;
        for (size_t b = 0; b < BODIES; b++, count++) {
            (void)snprintf(names[count], sizeof names[count], "%s (%s)", bodies[b].name,
                           variants[v].name);
            tests[count] = (struct CMUnitTest){.name = names[count],
                                               .test_func = bodies[b].function,
                                               .initial_state = (void *)(uintptr_t)&variants[v]};
        }
    }
    return _cmocka_run_group_tests("disk engines", tests, count, NULL, NULL);
}
