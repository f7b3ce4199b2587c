/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every disk engine must do: blocks come back as they were written, or not at all; and what an
 * engine is when it is created.
 */
#include <string.h>

#include "support/disk_engines.h"
#include "support/signal.h"
#include "transfer/disk/tier.h"

/* ---- Round trips ----------------------------------------------------------------------------- */

static void round_trip(struct disk_rig *rig, uint64_t block_bytes, void *base)
{
    enum { N = 6 };
    rig_must_open(rig, block_bytes, 2 * N, base);
    rig_must_start(rig);
    for (uint32_t i = 0; i < 2 * N; i++)
        rig_fill(rig, i, 100 + i);
    for (uint32_t i = 0; i < N; i++)
        rig_submit(rig, rig_down(rig, i, (i * 5) % (2 * N), 100 + i, i), false);
    assert_true(rig_wait(rig, N));
    /* Every other slot of the upper half: neighbours stay as they are. */
    for (uint32_t i = 0; i < N; i += 2)
        rig_submit(rig, rig_up(rig, (i * 5) % (2 * N), N + i, 100 + i, N + i), true);
    assert_true(rig_wait(rig, N + N / 2));
    for (uint32_t i = 0; i < N; i++) {
        assert_int_equal(rig->results[i], 0);
        assert_true(rig_has(rig, i, 100 + i));
        assert_true(rig_has(rig, N + i, i % 2 == 0 ? 100 + i : 100 + N + i));
    }
    assert_true(rig_close(rig));
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
    static _Alignas(4096) char memory[12 * (2 << 20) + 4096];
    round_trip(*state, 65536, memory + 8);
    round_trip(*state, 2 << 20, memory + 512);
}

/*
 * Padding is zeros, not what the buffer held before; a block has no bytes in its neighbour's slot.
 */
static void test_disk_engine_padding_holds_no_other_content(void **state)
{
    struct disk_rig *rig = *state;
    unsigned char bytes[8192];
    rig_begin(rig, 5000, 4);
    for (uint32_t i = 0; i < 200; i++)
        rig_store(rig, i % 4, i);
    rig_peek(rig, 2, 0, bytes, sizeof bytes);
    for (size_t i = 5000; i < sizeof bytes; i++)
        assert_int_equal(bytes[i], 0);
}

static void test_disk_engine_thousand_copies_through_a_small_ring(void **state)
{
    enum { N = 128 };
    struct disk_rig *rig = *state;
    uint64_t random = 4711;
    uint32_t slots[N];
    rig_must_open(rig, 16384, N, NULL);
    rig->config.inflight_count = 3;
    rig->config.capacity = N;
    rig_must_start(rig);
    for (uint32_t i = 0; i < N; i++)
        slots[i] = i;
    for (uint32_t round = 0; round < 8; round++) {
        for (uint32_t i = N - 1; i > 0; i--) {
            uint32_t j = (uint32_t)(rig_random(&random) % (i + 1)), swap = slots[i];
            slots[i] = slots[j], slots[j] = swap;
        }
        for (uint32_t i = 0; i < N; i++) {
            if (round % 2 == 0)
                rig_fill(rig, slots[i], round * N + slots[i]);
            uint64_t key = (round & ~1u) * N + slots[i];
            rig_submit(rig,
                       round % 2 == 0 ? rig_down(rig, slots[i], slots[i], key, i)
                                      : rig_up(rig, slots[i], slots[i], key, i),
                       round % 2 != 0);
        }
        if (round % 2 != 0)
            for (uint32_t i = 0; i < 8; i++)
                assert_int_equal(rig->engine->ops->submit(rig->engine, NULL, 0, true), 0);
        assert_true(rig_wait(rig, (round + 1) * N));
        for (uint32_t i = 0; i < N; i++) {
            assert_int_equal(rig->results[i], 0);
            assert_true(rig_has(rig, slots[i], (round & ~1u) * N + slots[i]));
        }
        for (uint32_t i = 0; round % 2 == 0 && i < N; i++)
            rig_fill(rig, i, 0);
    }
}

static void test_disk_engine_takes_all_or_nothing(void **state)
{
    struct disk_rig *rig = *state;
    struct kvbi_copy copies[9];
    rig_must_open(rig, 4096, 16, NULL);
    rig->config.capacity = 8;
    rig_must_start(rig);
    for (uint32_t i = 0; i < 9; i++) {
        copies[i] = rig_down(rig, i, i, i, i);
        copies[i].tickets.source = 1;
    }
    assert_int_equal(rig->engine->ops->submit(rig->engine, copies, 9, false), KVB_EAGAIN);
    assert_int_equal(rig->engine->ops->submit(rig->engine, copies, 8, false), 0);
    assert_int_equal(rig->engine->ops->submit(rig->engine, copies + 8, 1, false), KVB_EAGAIN);
    assert_true(signal_line(&rig->lines, rig->engine, 0, 1));
    assert_true(rig_wait(rig, 8));
    assert_int_equal(rig->engine->ops->submit(rig->engine, copies + 8, 1, false), 0);
    assert_true(rig_wait(rig, 9));
}

/* ---- Verification ---------------------------------------------------------------------------- */

static void test_disk_engine_flipped_bit_is_corrupt(void **state)
{
    static const uint64_t sizes[] = {4096, 5000, 2 << 20};
    struct disk_rig *rig = *state;
    for (size_t i = 0; i < 3; i++) {
        rig_begin(rig, sizes[i], 4);
        const uint64_t offsets[] = {0, 1, sizes[i] / 2, sizes[i] - 1};
        rig_store(rig, 2, 7);
        for (size_t j = 0; j < 4; j++) {
            rig_flip(rig, 2, offsets[j]);
            assert_int_equal(rig_load(rig, 2, 7), KVB_ECORRUPT);
            rig_flip(rig, 2, offsets[j]);
            assert_int_equal(rig_load(rig, 2, 7), 0);
        }
        assert_true(rig_close(rig));
    }
}

static void test_disk_engine_torn_block_is_corrupt(void **state)
{
    struct disk_rig *rig = *state;
    static char before[65536], after[65536];
    rig_begin(rig, sizeof before, 2);
    rig_store(rig, 1, 5);
    rig_peek(rig, 1, 0, before, sizeof before);
    rig_store(rig, 1, 6);
    rig_peek(rig, 1, 0, after, sizeof after);
    for (size_t torn = 512; torn < sizeof before; torn += 8192) {
        rig_poke(rig, 1, 0, before, torn);
        assert_int_equal(rig_load(rig, 1, 6), KVB_ECORRUPT);
        rig_poke(rig, 1, 0, after, torn);
    }
    rig_poke(rig, 1, 0, before, sizeof before); /* a lost write */
    assert_int_equal(rig_load(rig, 1, 6), KVB_ECORRUPT);
    assert_int_equal(rig_load(rig, 1, 5), KVB_ECORRUPT);
}

static void test_disk_engine_swapped_slots_are_corrupt(void **state)
{
    struct disk_rig *rig = *state;
    static char one[65536], two[65536];
    rig_begin(rig, sizeof one, 4);
    rig_store(rig, 1, 11);
    rig_store(rig, 2, 11); /* the same content: only the place differs */
    rig_store(rig, 3, 13);
    rig_peek(rig, 1, 0, one, sizeof one);
    rig_peek(rig, 3, 0, two, sizeof two);
    rig_poke(rig, 1, 0, two, sizeof two);
    rig_poke(rig, 3, 0, one, sizeof one);
    assert_int_equal(rig_load(rig, 1, 11), KVB_ECORRUPT);
    assert_int_equal(rig_load(rig, 3, 13), KVB_ECORRUPT);
    assert_int_equal(rig_load(rig, 2, 11), 0);
}

static void test_disk_engine_other_identity_is_corrupt(void **state)
{
    struct disk_rig *rig = *state;
    rig_begin(rig, 4096, 4);
    assert_int_equal(rig_load(rig, 1, 1), KVB_ECORRUPT); /* never written */
    rig_store(rig, 1, 1);
    for (int i = 0; i < 4; i++) {
        struct kvbi_copy copy = rig_up(rig, 1, 1, 1, 0);
        uint64_t *fields[] = {&copy.identity.hash, &copy.identity.digest[0],
                              &copy.identity.digest[1], &copy.identity.generation};
        *fields[i] += 1;
        assert_int_equal(rig_move(rig, copy, true), KVB_ECORRUPT);
    }
    assert_int_equal(rig_load(rig, 1, 1), 0);
    struct kvbi_copy later = rig_down(rig, 1, 1, 1, 0);
    later.identity.generation = 2;
    assert_int_equal(rig_move(rig, later, false), 0);
    assert_int_equal(rig_load(rig, 1, 1), KVB_ECORRUPT); /* a stale generation */
}

/* ---- What outlives the process --------------------------------------------------------------- */

/*
 * Blocks with labels, of any order, over several files: found after a kill, in their slots, and
 * read back by the engine.
 */
static void test_disk_engine_labelled_blocks_are_found_by_the_next_process(void **state)
{
    enum { N = 40 };
    static struct kvbi_label labels[N];
    struct disk_rig *rig = *state;
    struct kvbi_found found[N + 1];
    uint64_t cursor = 0;
    rig_must_open(rig, 20000, N, NULL);
    assert_int_equal(rig_reopen(rig, 3), 0);
    rig_must_start(rig);
    for (uint32_t i = 0; i < N; i++) {
        uint32_t slot = i * 7 % N;
        struct kvbi_copy copy = rig_down(rig, slot, slot, 100 + slot, slot);
        labels[slot] = rig_label(100 + slot);
        copy.label = &labels[slot];
        rig_fill(rig, slot, 100 + slot);
        rig_submit(rig, copy, false);
    }
    assert_true(rig_wait(rig, N));
    assert_int_equal(rig_reopen(rig, 3), 0);
    rig_must_start(rig);
    assert_int_equal(kvbi_disk_scan(kvbi_disk_of(&rig->disk), &cursor, found, N + 1), N);
    for (uint32_t i = 0; i < N; i++) {
        uint32_t slot = found[i].slot;
        assert_int_equal(found[i].label.hash, 100 + slot);
        rig_fill(rig, slot, 0);
        assert_int_equal(rig_load(rig, slot, 100 + slot), 0);
    }
}

/* ---- Create ---------------------------------------------------------------------------------- */

static void test_disk_engine_allocation_failures_leave_nothing(void **state)
{
    struct disk_rig *rig = *state;
    int64_t successes = 0;
    rig_must_open(rig, 5000, 4, NULL);
    for (;; successes++) {
        int64_t live = rig->failing.live_count;
        rig->failing.left = successes;
        int error = rig_start(rig);
        rig->failing.left = INT64_MAX;
        if (error == 0 && strstr(rig->said, "Cannot allocate memory") == NULL)
            break;
        if (error == 0) /* works, without its memory registered */
            rig->engine->ops->destroy(rig->engine);
        else
            assert_int_equal(error, KVB_ENOMEM);
        assert_true(error != 0 || rig->engine != NULL);
        rig->engine = NULL;
        assert_int_equal(rig->failing.live_count, live);
    }
    assert_true(successes >= 3);
    rig_store(rig, 1, 1);
    assert_int_equal(rig_load(rig, 1, 1), 0);
}

static void test_disk_engine_says_what_it_is(void **state)
{
    struct disk_rig *rig = *state;
    const struct disk_rig_variant *variant = rig->variant;
    rig_begin(rig, 65536, 4);
    assert_non_null(strstr(rig->said, variant->engine == KVBI_DISK_URING ? "uring (" : "posix, "));
    assert_non_null(strstr(rig->said, kvbi_disk_of(&rig->disk)->mode));
    assert_string_equal(rig->engine->ops->name,
                        variant->engine == KVBI_DISK_URING ? "uring" : "posix");
    if (variant->engine == KVBI_DISK_URING)
        assert_non_null(strstr(
            rig->said, variant->unregistered ? "buffers not registered: asked for" : "buffers"));
    else
        assert_non_null(
            strstr(rig->said, variant->poll ? "inside poll (asked for)" : "8 threads (asked for)"));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(disk_rig, test_disk_engine_brings_back_what_was_written),
        TEST(disk_rig, test_disk_engine_takes_unaligned_memory),
        TEST(disk_rig, test_disk_engine_padding_holds_no_other_content),
        TEST(disk_rig, test_disk_engine_thousand_copies_through_a_small_ring),
        TEST(disk_rig, test_disk_engine_takes_all_or_nothing),
        TEST(disk_rig, test_disk_engine_flipped_bit_is_corrupt),
        TEST(disk_rig, test_disk_engine_torn_block_is_corrupt),
        TEST(disk_rig, test_disk_engine_swapped_slots_are_corrupt),
        TEST(disk_rig, test_disk_engine_other_identity_is_corrupt),
        TEST(disk_rig, test_disk_engine_labelled_blocks_are_found_by_the_next_process),
        TEST(disk_rig, test_disk_engine_allocation_failures_leave_nothing),
        TEST(disk_rig, test_disk_engine_says_what_it_is),
    };
    return run_disk_engine_tests(tests, sizeof tests / sizeof *tests);
}
