/* SPDX-License-Identifier: Apache-2.0 */
/* The host engine: what is copied, in which order, after which fence, with which result. */
#include "support/test.h"
#include "transfer/engine.h"

#include <pthread.h>
#include <string.h>

#include "api/testing.h"
#include "base/clock.h"
#include "base/lock.h"
#include "support/failing_memory.h"
#include "support/signal.h"
#include "transfer/memory/engine.h"
#include "transfer/memory/tier.h"

#define FOREVER INT64_MAX
#define BLOCKS 32
#define CAPACITY 24

struct fixture {
    struct failing_memory failing;
    struct kvbi_memory memory;
    uint64_t now_ns, step_ns; /* the clock advances by step_ns at every reading */
    struct kvbi_clock clock;
    struct kvbi_hooks hooks;
    uint64_t faulty_slots; /* bit: the copy from that slot fails ... */
    int fault;             /* ... with this code */
    struct kvbi_tier device, host;
    struct kvbi_lines lines;
    struct kvbi_engine *engine;
    struct kvbi_completion done[BLOCKS];
    uint32_t done_count;
};

static uint64_t tick(void *context)
{
    struct fixture *f = context;
    f->now_ns += f->step_ns;
    return f->now_ns;
}

static int fault(void *context, uint32_t from_tier, uint32_t from_slot, uint32_t to_tier,
                 uint32_t to_slot)
{
    const struct fixture *f = context;
    (void)from_tier, (void)to_tier, (void)to_slot;
    kvbi_lock_assert_none_held();
    return (f->faulty_slots >> from_slot & 1) != 0 ? f->fault : 0;
}

static int memcpy_setup(void **state)
{
    static struct fixture f;
    memset(&f, 0, sizeof f);
    f.memory = failing_memory(&f.failing, FOREVER);
    f.fault = KVB_EIO;
    kvbi_clock_init(&f.clock, &(struct kvb_clock){.now_ns = tick, .context = &f});
    f.hooks = (struct kvbi_hooks){.copy_fault = fault, .context = &f};
    *state = &f;
    return 0;
}

static void close_engine(struct fixture *f)
{
    if (f->engine != NULL)
        f->engine->ops->destroy(f->engine);
    f->engine = NULL;
    kvbi_tier_destroy(&f->device);
    kvbi_tier_destroy(&f->host);
}

static int memcpy_teardown(void **state)
{
    struct fixture *f = *state;
    close_engine(f);
    return failing_memory_is_back(&f->failing) ? 0 : -1;
}

/* Instead of the one that is open. */
static void open_with(struct fixture *f, uint64_t block_bytes)
{
    close_engine(f);
    assert_int_equal(
        kvbi_tier_host_create(&f->device, &f->memory, KVB_TIER_DEVICE, BLOCKS, block_bytes, NULL),
        0);
    assert_int_equal(
        kvbi_tier_host_create(&f->host, &f->memory, KVB_TIER_HOST, BLOCKS, block_bytes, NULL), 0);
    for (uint32_t slot = 0; slot < BLOCKS; slot++) {
        memset(kvbi_tier_address(&f->device, slot), (int)(slot + 1), block_bytes);
        memset(kvbi_tier_address(&f->host, slot), 0xee, block_bytes);
    }
    assert_int_equal(kvbi_engine_memcpy_create(&f->engine, &f->memory, &f->clock, &f->lines,
                                               CAPACITY, &f->hooks),
                     0);
}

static void open_engine(struct fixture *f)
{
    open_with(f, 100);
}

/* Down, from device slot `from` to host slot `to`; its cookie is `from`. */
static struct kvbi_copy down(const struct fixture *f, uint32_t from, uint32_t to, uint64_t ticket)
{
    return (struct kvbi_copy){.from = &f->device,
                              .to = &f->host,
                              .from_slot = from,
                              .to_slot = to,
                              .tickets = {.source = ticket},
                              .cookie = from};
}

static int submit_one(struct fixture *f, uint32_t from, uint32_t to, uint64_t ticket, bool urgent)
{
    struct kvbi_copy copy = down(f, from, to, ticket);
    return f->engine->ops->submit(f->engine, &copy, 1, urgent);
}

/* Slots first .. first + count - 1, each to the slot of its own number. */
static void submit_run(struct fixture *f, uint32_t first, uint32_t count)
{
    struct kvbi_copy copies[BLOCKS];
    for (uint32_t i = 0; i < count; i++)
        copies[i] = down(f, first + i, first + i, 0);
    assert_int_equal(f->engine->ops->submit(f->engine, copies, count, false), 0);
}

static bool reap(struct fixture *f, uint32_t max, uint64_t until_ns)
{
    bool more = true;
    f->done_count = f->engine->ops->reap(f->engine, f->done, max, until_ns, &more);
    assert_true(f->done_count <= max);
    assert_int_equal(f->engine->ops->ready(f->engine), more);
    return more;
}

static void expect_done(const struct fixture *f, uint32_t at, uint64_t cookie, int result)
{
    assert_true(at < f->done_count);
    assert_int_equal(f->done[at].cookie, cookie);
    assert_int_equal(f->done[at].result, result);
}

/*
 * The host slot holds what the device slot held at the start; `from` BLOCKS: it was never written.
 */
static void expect_bytes(const struct fixture *f, uint32_t to, uint32_t from)
{
    const unsigned char *bytes = kvbi_tier_address(&f->host, to);
    for (uint64_t i = 0; i < f->host.block_bytes; i++)
        if (bytes[i] != (from == BLOCKS ? 0xee : (unsigned char)(from + 1)))
            fail_msg("host slot %u, byte %llu is %u", to, (unsigned long long)i, bytes[i]);
}

static void test_memcpy_idle_has_nothing_to_reap(void **state)
{
    struct fixture *f = *state;
    open_engine(f);
    assert_false(reap(f, BLOCKS, KVB_FOREVER));
    assert_int_equal(f->done_count, 0);
    assert_int_equal(f->engine->ops->wake_fd(f->engine), -1);
    assert_int_equal(strncmp(f->engine->ops->name, "memcpy", 6), 0);
}

static void test_memcpy_scattered_copies_arrive_in_order(void **state)
{
    struct fixture *f = *state;
    static const uint32_t slots[][2] = {{3, 9}, {4, 0}, {5, 1}, {2, 2}, {31, 31}, {0, 10}};
    open_engine(f);
    for (uint32_t i = 0; i < 6; i++)
        assert_int_equal(submit_one(f, slots[i][0], slots[i][1], 0, false), 0);
    assert_false(reap(f, BLOCKS, KVB_FOREVER));
    assert_int_equal(f->done_count, 6);
    for (uint32_t i = 0; i < 6; i++) {
        expect_done(f, i, slots[i][0], 0);
        expect_bytes(f, slots[i][1], slots[i][0]);
    }
    expect_bytes(f, 3, BLOCKS);
    expect_bytes(f, 11, BLOCKS);
    expect_bytes(f, 30, BLOCKS);
}

static void test_memcpy_adjacent_slots_copy_exactly_their_blocks(void **state)
{
    struct fixture *f = *state;
    static const uint64_t sizes[] = {1, 100, 4096, 5000, 300000, (1 << 20) + 1};
    for (uint32_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        open_with(f, sizes[i]);
        submit_run(f, 4, 8);
        assert_false(reap(f, BLOCKS, KVB_FOREVER));
        assert_int_equal(f->done_count, 8);
        expect_bytes(f, 3, BLOCKS);
        expect_bytes(f, 12, BLOCKS);
        for (uint32_t slot = 4; slot < 12; slot++) {
            expect_done(f, slot - 4, slot, 0);
            expect_bytes(f, slot, slot);
        }
    }
}

static void test_memcpy_up_and_down_share_a_queue(void **state)
{
    struct fixture *f = *state;
    struct kvbi_copy copies[3];
    open_engine(f);
    copies[0] = down(f, 1, 1, 0);
    copies[1] = (struct kvbi_copy){
        .from = &f->host, .to = &f->device, .from_slot = 1, .to_slot = 2, .cookie = 50};
    copies[2] = down(f, 2, 3, 0);
    assert_int_equal(f->engine->ops->submit(f->engine, copies, 3, false), 0);
    assert_false(reap(f, BLOCKS, KVB_FOREVER));
    assert_int_equal(f->done_count, 3);
    expect_bytes(f, 1, 1);
    expect_bytes(f, 3, 1); /* by way of device slot 2 */
}

static void test_memcpy_within_one_tier_is_done_one_by_one(void **state)
{
    struct fixture *f = *state;
    struct kvbi_copy copies[3];
    open_engine(f);
    assert_int_equal(submit_one(f, 7, 0, 0, false), 0);
    for (uint32_t i = 0; i < 3; i++)
        copies[i] = (struct kvbi_copy){
            .from = &f->host, .to = &f->host, .from_slot = i, .to_slot = i + 1, .cookie = i};
    assert_int_equal(f->engine->ops->submit(f->engine, copies, 3, false), 0);
    assert_false(reap(f, BLOCKS, KVB_FOREVER));
    for (uint32_t slot = 0; slot <= 3; slot++)
        expect_bytes(f, slot, 7);
}

static void test_memcpy_submit_takes_all_or_nothing(void **state)
{
    struct fixture *f = *state;
    struct kvbi_copy copies[CAPACITY + 1];
    open_engine(f);
    for (uint32_t i = 0; i <= CAPACITY; i++)
        copies[i] = down(f, i, i, 0);
    assert_int_equal(f->engine->ops->submit(f->engine, copies, CAPACITY + 1, false), KVB_EAGAIN);
    assert_false(f->engine->ops->ready(f->engine));
    assert_int_equal(f->engine->ops->submit(f->engine, copies, CAPACITY - 1, false), 0);
    assert_int_equal(f->engine->ops->submit(f->engine, copies, 2, true), KVB_EAGAIN);
    assert_int_equal(f->engine->ops->submit(f->engine, copies, 1, true), 0);
    assert_int_equal(f->engine->ops->submit(f->engine, NULL, 0, true), 0);
    assert_false(reap(f, BLOCKS, KVB_FOREVER));
    assert_int_equal(f->done_count, CAPACITY);
    assert_int_equal(f->engine->ops->submit(f->engine, copies, CAPACITY, false), 0);
}

static void test_memcpy_urgent_copies_go_first(void **state)
{
    struct fixture *f = *state;
    open_engine(f);
    assert_int_equal(submit_one(f, 1, 1, 0, false), 0);
    assert_int_equal(submit_one(f, 10, 10, 0, true), 0);
    assert_int_equal(submit_one(f, 2, 2, 0, false), 0);
    assert_int_equal(submit_one(f, 11, 11, 0, true), 0);
    assert_false(reap(f, BLOCKS, KVB_FOREVER));
    expect_done(f, 0, 10, 0);
    expect_done(f, 1, 11, 0);
    expect_done(f, 2, 1, 0);
    expect_done(f, 3, 2, 0);
}

static void test_memcpy_fence_holds_back_its_copy_only(void **state)
{
    struct fixture *f = *state;
    open_engine(f);
    assert_int_equal(submit_one(f, 1, 1, 5, true), 0);
    assert_int_equal(submit_one(f, 2, 2, 3, false), 0);
    assert_int_equal(submit_one(f, 3, 3, 0, false), 0);
    assert_false(reap(f, BLOCKS, KVB_FOREVER));
    assert_int_equal(f->done_count, 1);
    expect_done(f, 0, 3, 0);
    expect_bytes(f, 1, BLOCKS);
    assert_false(signal_line(&f->lines, f->engine, 0, 2));
    assert_true(signal_line(&f->lines, f->engine, 0, 3));
    assert_true(f->engine->ops->ready(f->engine));
    assert_false(reap(f, BLOCKS, KVB_FOREVER));
    assert_int_equal(f->done_count, 1);
    expect_done(f, 0, 2, 0);
    assert_true(signal_line(&f->lines, f->engine, 0, 100));
    assert_false(reap(f, BLOCKS, KVB_FOREVER));
    expect_done(f, 0, 1, 0);
    expect_bytes(f, 1, 1);
}

static void test_memcpy_counter_never_goes_back(void **state)
{
    struct fixture *f = *state;
    open_engine(f);
    assert_false(signal_line(&f->lines, f->engine, 0, 7));
    assert_false(signal_line(&f->lines, f->engine, 0, 3));
    assert_int_equal(submit_one(f, 1, 1, 7, false), 0);
    assert_int_equal(submit_one(f, 2, 2, KVBI_NUMBER_MAX, false), 0);
    assert_false(reap(f, BLOCKS, KVB_FOREVER));
    assert_int_equal(f->done_count, 1);
    assert_true(signal_line(&f->lines, f->engine, 0, KVBI_NUMBER_MAX));
    assert_false(reap(f, BLOCKS, KVB_FOREVER));
    expect_done(f, 0, 2, 0);
    assert_false(f->engine->ops->ready(f->engine));
}

static void test_memcpy_released_urgent_copy_goes_before_ready_ones(void **state)
{
    struct fixture *f = *state;
    open_engine(f);
    assert_int_equal(submit_one(f, 1, 1, 1, false), 0);
    assert_int_equal(submit_one(f, 2, 2, 1, true), 0);
    assert_int_equal(submit_one(f, 3, 3, 0, false), 0);
    assert_true(signal_line(&f->lines, f->engine, 0, 1));
    assert_false(reap(f, BLOCKS, KVB_FOREVER));
    expect_done(f, 0, 2, 0);
    expect_done(f, 1, 3, 0);
    expect_done(f, 2, 1, 0);
}

/*
 * Faults at the start, in the middle (two in a row), at the end, everywhere: the others of the run
 * are copied.
 */
static void test_memcpy_fault_fails_its_block_only(void **state)
{
    struct fixture *f = *state;
    static const uint64_t masks[] = {1 << 4, 3 << 6, 1 << 11, 0xff0,
                                     (1 << 4) | (1 << 6) | (1 << 8) | (1 << 11)};
    for (uint32_t i = 0; i < sizeof masks / sizeof *masks; i++) {
        open_engine(f);
        f->faulty_slots = masks[i];
        submit_run(f, 4, 8);
        assert_false(reap(f, BLOCKS, KVB_FOREVER));
        assert_int_equal(f->done_count, 8);
        for (uint32_t slot = 4; slot < 12; slot++) {
            bool faulty = (masks[i] >> slot & 1) != 0;
            expect_done(f, slot - 4, slot, faulty ? KVB_EIO : 0);
            expect_bytes(f, slot, faulty ? BLOCKS : slot);
        }
    }
}

static void test_memcpy_time_is_up_after_one_run(void **state)
{
    struct fixture *f = *state;
    open_engine(f);
    f->step_ns = 10;
    submit_run(f, 0, 3);
    assert_int_equal(submit_one(f, 20, 8, 0, false), 0);
    assert_int_equal(submit_one(f, 22, 6, 0, false), 0);
    assert_true(reap(f, BLOCKS, 0)); /* in the past: still one run */
    assert_int_equal(f->done_count, 3);
    assert_true(reap(f, BLOCKS, f->now_ns + 10));
    assert_int_equal(f->done_count, 1);
    assert_false(reap(f, BLOCKS, f->now_ns + 10));
    assert_int_equal(f->done_count, 1);
}

static void test_memcpy_long_run_is_broken_up_for_the_clock(void **state)
{
    struct fixture *f = *state;
    open_with(f, 256 << 10); /* four blocks to 1 MiB */
    f->step_ns = 10;
    submit_run(f, 0, 10);
    assert_true(reap(f, BLOCKS, f->now_ns + 20));
    assert_int_equal(f->done_count, 8);
    assert_false(reap(f, BLOCKS, f->now_ns + 20));
    assert_int_equal(f->done_count, 2);
    for (uint32_t slot = 0; slot < 10; slot++)
        expect_bytes(f, slot, slot);
}

static void test_memcpy_block_above_the_run_limit_is_copied_alone(void **state)
{
    struct fixture *f = *state;
    open_with(f, 3 << 20);
    submit_run(f, 0, 2);
    assert_true(reap(f, BLOCKS, 0));
    assert_int_equal(f->done_count, 1);
    expect_bytes(f, 0, 0);
    expect_bytes(f, 1, BLOCKS);
}

static void test_memcpy_reap_stops_at_max(void **state)
{
    struct fixture *f = *state;
    open_engine(f);
    submit_run(f, 0, 5);
    assert_true(reap(f, 0, KVB_FOREVER));
    assert_true(reap(f, 2, KVB_FOREVER));
    expect_done(f, 1, 1, 0);
    expect_bytes(f, 2, BLOCKS);
    assert_false(reap(f, 3, KVB_FOREVER));
    expect_done(f, 2, 4, 0);
}

static void test_memcpy_drain_cancels_what_has_not_begun(void **state)
{
    struct fixture *f = *state;
    open_engine(f);
    f->step_ns = 10;
    assert_int_equal(submit_one(f, 1, 1, 0, false), 0);
    assert_int_equal(submit_one(f, 5, 5, 0, false), 0);
    assert_int_equal(submit_one(f, 7, 7, 0, true), 0);
    assert_int_equal(submit_one(f, 9, 9, 3, true), 0);
    assert_true(reap(f, BLOCKS, 0));
    expect_done(f, 0, 7, 0);
    f->engine->ops->drain(f->engine);
    assert_true(f->engine->ops->ready(f->engine));
    assert_false(signal_line(&f->lines, f->engine, 0, 3));
    assert_true(reap(f, 2, KVB_FOREVER));
    expect_done(f, 0, 1, KVB_ECANCELED);
    expect_done(f, 1, 5, KVB_ECANCELED);
    assert_false(reap(f, 2, KVB_FOREVER));
    expect_done(f, 0, 9, KVB_ECANCELED);
    expect_bytes(f, 1, BLOCKS);
    expect_bytes(f, 9, BLOCKS);
    submit_run(f, 0, CAPACITY); /* and is whole again */
    assert_false(reap(f, BLOCKS, KVB_FOREVER));
    assert_int_equal(f->done_count, CAPACITY);
}

/*
 * Random batches, fences, faults and drains: every copy completes exactly once, and only successful
 * ones write.
 */
static void test_memcpy_random_work_completes_exactly_once(void **state)
{
    struct fixture *f = *state;
    uint64_t random = 88172645463325252u, counter = 0, ticket[BLOCKS] = {0};
    bool out[BLOCKS] = {false};
    uint32_t submitted = 0, completed = 0;
    open_engine(f);
    f->step_ns = 1;
    for (int step = 0; step < 20000; step++) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        uint32_t slot = (uint32_t)(random >> 20) % BLOCKS;
        f->faulty_slots = random & (random >> 32);
        switch (random % 16) {
        case 0:
            f->engine->ops->drain(f->engine);
            break;
        case 1:
            signal_line(&f->lines, f->engine, 0, ++counter);
            break;
        case 2:
        case 3:
        case 4:
            (void)reap(f, (uint32_t)(random >> 40) % 8, f->now_ns + (random >> 50) % 4);
            for (uint32_t i = 0; i < f->done_count; i++) {
                uint32_t at = (uint32_t)f->done[i].cookie;
                assert_true(out[at]);
                assert_true(f->done[i].result == KVB_ECANCELED || ticket[at] <= counter);
                expect_bytes(f, at, f->done[i].result == 0 ? at : BLOCKS);
                memset(kvbi_tier_address(&f->host, at), 0xee, f->host.block_bytes);
                out[at] = false;
                completed++;
            }
            break;
        default:
            if (out[slot])
                break;
            ticket[slot] = (random >> 45) % 4 == 0 ? counter + (random >> 47) % 3 : 0;
            if (submit_one(f, slot, slot, ticket[slot], (random >> 50) % 2 != 0) == 0) {
                out[slot] = true;
                submitted++;
            }
            break;
        }
    }
    f->engine->ops->drain(f->engine);
    assert_false(reap(f, BLOCKS, KVB_FOREVER));
    assert_int_equal(completed + f->done_count, submitted);
}

static void *write_and_signal(void *argument)
{
    struct fixture *f = argument;
    for (uint32_t slot = 0; slot < CAPACITY; slot++) {
        memset(kvbi_tier_address(&f->device, slot), (int)(slot + 1), f->device.block_bytes);
        signal_line(&f->lines, f->engine, 0, slot + 1);
    }
    return NULL;
}

/* What the signalling thread wrote before is what is copied. */
static void test_memcpy_signals_from_another_thread_release_copies(void **state)
{
    struct fixture *f = *state;
    pthread_t thread;
    uint32_t total = 0;
    open_engine(f);
    for (uint32_t slot = 0; slot < CAPACITY; slot++) {
        memset(kvbi_tier_address(&f->device, slot), 0, f->device.block_bytes);
        assert_int_equal(submit_one(f, slot, slot, slot + 1, false), 0);
    }
    assert_int_equal(pthread_create(&thread, NULL, write_and_signal, f), 0);
    while (total < CAPACITY) {
        bool more;
        total += f->engine->ops->reap(f->engine, f->done, BLOCKS, KVB_FOREVER, &more);
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    for (uint32_t slot = 0; slot < CAPACITY; slot++)
        expect_bytes(f, slot, slot);
}

static void test_memcpy_create_without_memory_leaks_nothing(void **state)
{
    (void)state;
    for (int successes = 0; successes < 2; successes++) {
        struct failing_memory failing;
        struct kvbi_memory memory = failing_memory(&failing, successes);
        struct kvbi_clock clock;
        struct kvbi_engine *engine = (struct kvbi_engine *)&failing;
        kvbi_clock_init(&clock, NULL);
        assert_int_equal(kvbi_engine_memcpy_create(&engine, &memory, &clock, NULL, 8, NULL),
                         KVB_ENOMEM);
        assert_null(engine);
        assert_int_equal(failing.live_bytes, 0);
    }
}

static void test_memcpy_without_hooks_and_capacity_refuses(void **state)
{
    struct fixture *f = *state;
    struct kvbi_engine *engine;
    open_engine(f);
    struct kvbi_copy copy = down(f, 0, 0, 0);
    assert_int_equal(kvbi_engine_memcpy_create(&engine, &f->memory, &f->clock, &f->lines, 0, NULL),
                     0);
    assert_int_equal(engine->ops->submit(engine, &copy, 1, false), KVB_EAGAIN);
    engine->ops->destroy(engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(memcpy, test_memcpy_idle_has_nothing_to_reap),
        TEST(memcpy, test_memcpy_scattered_copies_arrive_in_order),
        TEST(memcpy, test_memcpy_adjacent_slots_copy_exactly_their_blocks),
        TEST(memcpy, test_memcpy_up_and_down_share_a_queue),
        TEST(memcpy, test_memcpy_within_one_tier_is_done_one_by_one),
        TEST(memcpy, test_memcpy_submit_takes_all_or_nothing),
        TEST(memcpy, test_memcpy_urgent_copies_go_first),
        TEST(memcpy, test_memcpy_fence_holds_back_its_copy_only),
        TEST(memcpy, test_memcpy_counter_never_goes_back),
        TEST(memcpy, test_memcpy_released_urgent_copy_goes_before_ready_ones),
        TEST(memcpy, test_memcpy_fault_fails_its_block_only),
        TEST(memcpy, test_memcpy_time_is_up_after_one_run),
        TEST(memcpy, test_memcpy_long_run_is_broken_up_for_the_clock),
        TEST(memcpy, test_memcpy_block_above_the_run_limit_is_copied_alone),
        TEST(memcpy, test_memcpy_reap_stops_at_max),
        TEST(memcpy, test_memcpy_drain_cancels_what_has_not_begun),
        TEST(memcpy, test_memcpy_random_work_completes_exactly_once),
        TEST(memcpy, test_memcpy_signals_from_another_thread_release_copies),
        TEST(bare, test_memcpy_create_without_memory_leaks_nothing),
        TEST(memcpy, test_memcpy_without_hooks_and_capacity_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
