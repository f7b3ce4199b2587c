/* SPDX-License-Identifier: Apache-2.0 */
/* In which order every disk engine works, what wakes whoever waits for it, and how it ends. */
#include <errno.h>
#include <poll.h>

#include "support/disk_engines.h"
#include "support/give_up.h"
#include "support/signal.h"
#include "transfer/disk/io.h"
#include "transfer/disk/tier.h"

/* ---- Order ----------------------------------------------------------------------------------- */

static void test_disk_engine_fence_holds_back_its_copy_only(void **state)
{
    struct disk_rig *rig = *state;
    rig_begin(rig, 65536, 8);
    struct kvbi_copy held = rig_down(rig, 1, 1, 1, 1), free = rig_down(rig, 2, 2, 2, 2);
    bool more;
    held.tickets.source = 5;
    rig_submit(rig, held, false);
    rig_submit(rig, free, false);
    assert_true(rig_wait(rig, 1));
    assert_int_equal(rig->order[0], 2);
    assert_false(signal_line(&rig->lines, rig->engine, 0, 4));
    assert_true(rig_reap(rig, 64, &more));
    assert_false(more);
    assert_int_equal(rig->done, 1);
    rig_fill(rig, 1, 1); /* what is there when the fence is reached is what is written */
    assert_true(signal_line(&rig->lines, rig->engine, 0, 5));
    assert_true(rig_wait(rig, 2));
    assert_int_equal(rig_load(rig, 1, 1), 0);
}

static struct {
    uint32_t reads, reads_after_a_write, writes;
} order;

/* With one I/O at a time, these are asked in the order of the I/Os. */
static int note_order(void *context, bool write, uint32_t slot, int64_t *result)
{
    (void)context, (void)slot, (void)result;
    order.reads += !write;
    order.reads_after_a_write += !write && order.writes > 0;
    order.writes += write;
    return 0;
}

static void test_disk_engine_urgent_copies_go_first(void **state)
{
    enum { N = 24 };
    struct disk_rig *rig = *state;
    rig_must_open(rig, 2 << 20, N, NULL);
    rig->config.inflight_count = 1;
    rig->config.threads = 1;
    rig_must_start(rig);
    for (uint32_t i = 0; i < N / 2; i++)
        rig_store(rig, i, i);
    rig->done = 0;
    order.reads = order.reads_after_a_write = order.writes = 0;
    rig->hooks = (struct kvbi_hooks){.io_fault = note_order};
    for (uint32_t i = 0; i < N; i++) {
        uint32_t slot = i % 2 == 0 ? N / 2 + i / 2 : i / 2;
        struct kvbi_copy copy =
            i % 2 == 0 ? rig_down(rig, slot, slot, slot, i) : rig_up(rig, slot, slot, slot, i);
        copy.tickets.source = 1;
        rig_submit(rig, copy, i % 2 != 0);
    }
    assert_true(signal_line(&rig->lines, rig->engine, 0, 1));
    assert_true(rig_wait(rig, N));
    assert_in_range(order.reads, N / 2, N); /* one or two pieces a block */
    assert_in_range(order.writes, N / 2, N);
    assert_int_equal(order.reads_after_a_write, 0);
}

static void test_disk_engine_descriptor_is_readable_when_done(void **state)
{
    struct disk_rig *rig = *state;
    bool more;
    rig_begin(rig, 65536, 8);
    struct pollfd event = {.fd = rig->engine->ops->wake_fd(rig->engine), .events = POLLIN};
    if (rig->variant->poll && rig->variant->engine == KVBI_DISK_POSIX) {
        assert_int_equal(event.fd, -1);
        return;
    }
    assert_false(rig->engine->ops->ready(rig->engine));
    assert_int_equal(poll(&event, 1, 0), 0);
    for (uint32_t i = 0; i < 8; i++)
        rig_submit(rig, rig_down(rig, i, i, i, i), false);
    do /* it may be readable before there is something to do, and stays so */
        assert_int_equal(poll(&event, 1, KV_GIVE_UP_MS), 1);
    while (!rig->engine->ops->ready(rig->engine));
    assert_true(rig_wait(rig, 8));
    do /* a signal may come later than what it announces: reap takes it away */
        assert_true(rig_reap(rig, 64, &more));
    while (poll(&event, 1, 0) == 1);
    assert_false(more);
    assert_false(rig->engine->ops->ready(rig->engine));
}

/*
 * Done by itself, one after the other: meanwhile the disk ends what was submitted before, as a
 * rule.
 */
static void read_as_many_directly(const struct disk_rig *rig, uint32_t count)
{
    _Alignas(KVBI_DISK_ALIGN) char page[KVBI_DISK_ALIGN];
    const struct kvbi_disk *disk = kvbi_disk_of(&rig->disk);
    for (uint32_t i = 0; i < count; i++)
        assert_int_equal(kvbi_disk_read(disk->files[0].io.fd, page, sizeof page,
                                        disk->files[0].superblock_at * KVBI_DISK_SUPERBLOCK_BYTES),
                         0);
}

/* The kernel brings out a part of what has completed at a time; the rest must not be slept over. */
static void test_disk_engine_many_completions_at_once_are_all_seen(void **state)
{
    struct disk_rig *rig = *state;
    rig_begin(rig, 4096, 128);
    for (uint32_t round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < 128; i++)
            rig_submit(rig, rig_down(rig, i, i, i, i), false);
        read_as_many_directly(rig, 128);
        assert_true(rig_wait(rig, 128 * (round + 1)));
    }
}

static void test_disk_engine_reap_stops_at_max(void **state)
{
    struct disk_rig *rig = *state;
    bool more;
    rig_begin(rig, 4096, 8);
    for (uint32_t i = 0; i < 8; i++)
        rig_submit(rig, rig_down(rig, i, i, i, i), false);
    for (uint32_t i = 0; i < 8;) {
        uint32_t before = rig->done;
        assert_true(rig_reap(rig, i % 2, &more));
        assert_true(rig->done <= before + i % 2);
        i += i % 2 == 0 || rig->done > before;
    }
    assert_true(rig_wait(rig, 8));
}

/* ---- Drain ----------------------------------------------------------------------------------- */

static void test_disk_engine_drain_ends_everything(void **state)
{
    enum { N = 40 };
    struct disk_rig *rig = *state;
    uint32_t cancelled = 0;
    rig_begin(rig, 2 << 20, N);
    for (uint32_t i = 0; i < N; i++) {
        struct kvbi_copy copy = rig_down(rig, i, i, i, i);
        rig_fill(rig, i, i);
        copy.tickets.source = i < 3 ? 7 : 0;
        rig_submit(rig, copy, i % 4 == 0);
    }
    rig->engine->ops->drain(rig->engine);
    assert_false(signal_line(&rig->lines, rig->engine, 0, 7));
    int event = rig->engine->ops->wake_fd(rig->engine);
    assert_true(rig->engine->ops->ready(rig->engine));
    for (bool more = true; more;)
        assert_true(rig_reap(rig, 7, &more));
    assert_int_equal(rig->done, N); /* none is left to come: reap had them all without waiting */
    assert_true(event < 0 || !rig->engine->ops->ready(rig->engine));
    for (uint32_t i = 0; i < N; i++) {
        assert_true(rig->results[i] == 0 || rig->results[i] == KVB_ECANCELED);
        cancelled += rig->results[i] == KVB_ECANCELED;
    }
    assert_in_range(cancelled, 3, N);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(rig->results[i], KVB_ECANCELED);
    rig_store(rig, 0, 77); /* and is whole again */
    assert_int_equal(rig_load(rig, 0, 77), 0);
}

static void test_disk_engine_destroyed_with_copies_in_flight_waits(void **state)
{
    struct disk_rig *rig = *state;
    rig_begin(rig, 2 << 20, 8);
    for (uint32_t i = 0; i < 8; i++)
        rig_submit(rig, rig_down(rig, i, i, i, i), false);
    assert_true(rig_close(rig)); /* sanitizers watch the memory */
}

/*
 * Random copies up and down, fences, faults, drains: each completes once, and what succeeds is
 * right.
 */
static void test_disk_engine_random_work_completes_exactly_once(void **state)
{
    enum { N = 48 };
    struct disk_rig *rig = *state;
    uint64_t random = 88172645463325252u, counter = 0, stored[N] = {0}, ticket[N] = {0};
    bool up[N] = {false}, out[N] = {false};
    uint32_t submitted = 0;
    rig_must_open(rig, 20000, N, NULL);
    rig->plan = (struct rig_plan){.results = {-EIO, 4096, -EAGAIN, 0}, .count = 4};
    rig->config.inflight_count = 5;
    rig->config.capacity = 32;
    rig_must_start(rig);
    for (int step = 0; step < 6000; step++) {
        uint32_t slot = (uint32_t)(rig_random(&random) >> 20) % N, before = rig->done;
        bool more;
        switch (random % 16) {
        case 0:
            if (random % 256 < 16)
                rig->engine->ops->drain(rig->engine);
            break;
        case 1:
            (void)signal_line(&rig->lines, rig->engine, 0, ++counter);
            break;
        case 2:
        case 3:
        case 4:
            assert_true(rig_reap(rig, (uint32_t)(random >> 40) % 8, &more));
            for (uint32_t i = before; i < rig->done; i++) {
                uint32_t at = rig->order[i % RIG_COOKIES];
                assert_true(out[at]);
                assert_true(rig->results[at] == KVB_ECANCELED || ticket[at] <= counter);
                if (up[at])
                    assert_true(rig->results[at] != 0 || rig_has(rig, at, stored[at]));
                else if (rig->results[at] != 0 && rig->results[at] != KVB_ECANCELED)
                    stored[at] = 0;
                else if (rig->results[at] == KVB_ECANCELED)
                    stored[at] = 0; /* or what it was: not asked for any more */
                out[at] = false;
            }
            break;
        case 5: /* faults are planned while nothing is under way: threads read the plan */
            if (rig->done == submitted) {
                rig->plan.at = 0;
                rig->plan.write = random >> 60 != 0;
                rig->hooks = random >> 63 ? rig_planned(rig) : (struct kvbi_hooks){.context = NULL};
            }
            break;
        default:
            if (out[slot])
                break;
            up[slot] = stored[slot] != 0 && (random >> 33) % 2 != 0;
            struct kvbi_copy copy;
            if (up[slot])
                copy = rig_up(rig, slot, slot, stored[slot], slot);
            else
                copy = rig_down(rig, slot, slot, (uint64_t)step + 1, slot);
            rig_fill(rig, slot, up[slot] ? 0 : (uint64_t)step + 1);
            copy.tickets.source = ticket[slot] =
                (random >> 45) % 4 == 0 ? counter + (random >> 47) % 3 : 0;
            if (rig->engine->ops->submit(rig->engine, &copy, 1, up[slot]) == 0) {
                if (!up[slot])
                    stored[slot] = (uint64_t)step + 1;
                out[slot] = true;
                submitted++;
            }
            break;
        }
    }
    rig->engine->ops->drain(rig->engine);
    for (bool more = true; more;)
        assert_true(rig_reap(rig, 64, &more));
    assert_int_equal(rig->done, submitted);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(disk_rig, test_disk_engine_fence_holds_back_its_copy_only),
        TEST(disk_rig, test_disk_engine_urgent_copies_go_first),
        TEST(disk_rig, test_disk_engine_descriptor_is_readable_when_done),
        TEST(disk_rig, test_disk_engine_many_completions_at_once_are_all_seen),
        TEST(disk_rig, test_disk_engine_reap_stops_at_max),
        TEST(disk_rig, test_disk_engine_drain_ends_everything),
        TEST(disk_rig, test_disk_engine_destroyed_with_copies_in_flight_waits),
        TEST(disk_rig, test_disk_engine_random_work_completes_exactly_once),
    };
    return run_disk_engine_tests(tests, sizeof tests / sizeof *tests);
}
