/* SPDX-License-Identifier: Apache-2.0 */
/* Every disk engine between threads, under signals, and in the child of a fork. */
#include <signal.h>
#include <sys/time.h>

#include "support/child.h"
#include "support/disk_engines.h"
#include "support/signal.h"

/* ---- Threads --------------------------------------------------------------------------------- */

static void *fill_and_signal(void *argument)
{
    struct disk_rig *rig = argument;
    for (uint32_t slot = 0; slot < 32; slot++) {
        rig_fill(rig, slot, slot);
        if (signal_line(&rig->lines, rig->engine, 0, slot + 1))
            (void)rig->engine->ops->ready(rig->engine);
    }
    return NULL;
}

/* What the signalling thread wrote before is what is stored. */
static void test_disk_engine_signals_from_another_thread_release_copies(void **state)
{
    struct disk_rig *rig = *state;
    bool more;
    rig_begin(rig, 65536, 32);
    for (uint32_t slot = 0; slot < 32; slot++) {
        struct kvbi_copy copy = rig_down(rig, slot, slot, slot, slot);
        copy.tickets.source = slot + 1;
        rig_submit(rig, copy, false);
    }
    rig_spawn(rig, fill_and_signal);
    while (rig->done < 32)
        assert_true(rig_reap(rig, 64, &more));
    (void)rig_join(rig);
    for (uint32_t slot = 0; slot < 32; slot++) {
        rig_fill(rig, slot, 1000);
        assert_int_equal(rig_load(rig, slot, slot), 0);
    }
}

static void *submit_some(void *argument)
{
    struct disk_rig *rig = argument;
    for (uint32_t slot = 0; slot < 16; slot++) {
        struct kvbi_copy copy = rig_down(rig, slot, slot, slot, slot);
        if (rig->engine->ops->submit(rig->engine, &copy, 1, false) != 0)
            return rig;
    }
    return NULL;
}

/*
 * Who submitted may be gone. A single-issuer ring answers nobody else: it is used by one thread
 * only.
 */
static void test_disk_engine_work_of_a_gone_thread_completes(void **state)
{
    struct disk_rig *rig = *state;
    bool all_from_one = rig->variant->engine == KVBI_DISK_URING && !rig->variant->shared;
    rig_begin(rig, 1 << 20, 16);
    for (uint32_t slot = 0; slot < 16; slot++)
        rig_fill(rig, slot, slot);
    if (!all_from_one) {
        rig_spawn(rig, submit_some);
        assert_null(rig_join(rig));
        assert_true(rig_wait(rig, 16));
    }
}

/* ---- Signals --------------------------------------------------------------------------------- */

static const struct itimerval often = {.it_interval = {.tv_usec = 200},
                                       .it_value = {.tv_usec = 200}},
                              never;
static struct sigaction before;

static void ignore(int number)
{
    (void)number;
}

static int stormed_rig_setup(void **state)
{
    const struct sigaction action = {.sa_handler = ignore};
    return sigaction(SIGALRM, &action, &before) == 0 ? disk_rig_setup(state) : -1;
}

static int stormed_rig_teardown(void **state)
{
    bool calm = setitimer(ITIMER_REAL, &never, NULL) == 0 && sigaction(SIGALRM, &before, NULL) == 0;
    return disk_rig_teardown(state) == 0 && calm ? 0 : -1;
}

static void test_disk_engine_storm_of_signals_loses_nothing(void **state)
{
    struct disk_rig *rig = *state;
    rig_begin(rig, 1 << 20, 16);
    assert_int_equal(setitimer(ITIMER_REAL, &often, NULL), 0);
    for (int round = 0; round < 4; round++) {
        for (uint32_t slot = 0; slot < 16; slot++)
            rig_submit(rig, rig_down(rig, slot, slot, slot, slot), false);
        if (round == 2)
            rig->engine->ops->drain(rig->engine);
        assert_true(rig_wait(rig, (uint32_t)(round + 1) * 16));
    }
    assert_int_equal(setitimer(ITIMER_REAL, &never, NULL), 0);
    for (uint32_t slot = 0; slot < 16; slot++)
        assert_int_equal(rig->results[slot], 0);
}

/* ---- Forks ----------------------------------------------------------------------------------- */

static int use_in_child(void *argument)
{
    struct disk_rig *rig = argument;
    const struct kvbi_engine_ops *ops = rig->engine->ops;
    struct kvbi_completion completion;
    struct kvbi_copy copy = rig_down(rig, 0, 0, 0, 60);
    bool more = true;
    if (ops->submit(rig->engine, &copy, 1, true) != KVB_EFORK)
        return 1;
    if (ops->reap(rig->engine, &completion, 1, 0, &more) != 0 || more)
        return 2;
    ops->drain(rig->engine);
    if (ops->ready(rig->engine) || signal_line(&rig->lines, rig->engine, 0, 9))
        return 3;
    ops->destroy(rig->engine);
    return 0;
}

/* With copies in flight. The child touches nothing of the parent's, whose copies all complete. */
static void test_disk_engine_child_is_kept_out(void **state)
{
    struct disk_rig *rig = *state;
    rig_begin(rig, 1 << 20, 16);
    for (uint32_t slot = 0; slot < 16; slot++) {
        rig_fill(rig, slot, slot);
        rig_submit(rig, rig_down(rig, slot, slot, slot, slot), false);
    }
    assert_int_equal(child_run(use_in_child, rig), 0);
    assert_true(rig_wait(rig, 16));
    for (uint32_t slot = 0; slot < 16; slot++)
        assert_int_equal(rig_load(rig, slot, slot), 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(disk_rig, test_disk_engine_signals_from_another_thread_release_copies),
        TEST(disk_rig, test_disk_engine_work_of_a_gone_thread_completes),
        TEST(stormed_rig, test_disk_engine_storm_of_signals_loses_nothing),
        TEST(disk_rig, test_disk_engine_child_is_kept_out),
    };
    return run_disk_engine_tests(tests, sizeof tests / sizeof *tests);
}
