/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ref and unref of a held block, beside an increment and a decrement of one atomic counter: one
 * thread, and two threads on the same block or counter. With two threads a figure is the time of a
 * pair as each of them sees it.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>

#include "suites.h"

#define BATCH 32u

struct target {
    struct kvb_manager *manager;
    struct kvb_block *blocks[BATCH];
    uint32_t batch; /* blocks a call */
    _Alignas(64) _Atomic uint64_t counter;
};

struct contender {
    struct target *target;
    void (*work)(struct target *target, uint32_t times);
    uint32_t times;
    _Atomic uint32_t *waiting;
    int cpu;
    uint64_t ns;
};

static void pairs_of_handles(struct target *target, uint32_t times)
{
    for (uint32_t i = 0; i < times; i++) {
        CALL(kvb_block_ref(target->manager, target->blocks, target->batch, NULL));
        CALL(kvb_block_unref(target->manager, target->blocks, target->batch, NULL));
    }
}

static void pairs_of_atomics(struct target *target, uint32_t times)
{
    for (uint32_t i = 0; i < times; i++) {
        atomic_fetch_add_explicit(&target->counter, 1, memory_order_relaxed);
        atomic_fetch_sub_explicit(&target->counter, 1, memory_order_acq_rel);
    }
}

static double alone_ns(struct target *target, void (*work)(struct target *target, uint32_t times),
                       uint32_t times)
{
    uint64_t since = now_ns();
    work(target, times);
    return (double)(now_ns() - since) / times;
}

/* The n-th CPU that this process may use, or -1. */
static int nth_cpu(const cpu_set_t *allowed, int n)
{
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET((size_t)cpu, allowed) && n-- == 0)
            return cpu;
    return -1;
}

static void run_on(int cpu)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET((size_t)cpu, &one);
    (void)pthread_setaffinity_np(pthread_self(), sizeof one, &one);
}

/* On a CPU of its own: two threads that take turns on one do not contend. */
static void *contend(void *argument)
{
    struct contender *self = argument;
    if (self->cpu >= 0)
        run_on(self->cpu);
    atomic_fetch_sub(self->waiting, 1);
    while (atomic_load(self->waiting) > 0)
        ;
    uint64_t since = now_ns();
    self->work(self->target, self->times);
    self->ns = now_ns() - since;
    return NULL;
}

static double contended_ns(struct target *target,
                           void (*work)(struct target *target, uint32_t times), uint32_t times)
{
    _Atomic uint32_t waiting = 2;
    struct contender both[2];
    pthread_t threads[2];
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    (void)sched_getaffinity(0, sizeof allowed, &allowed);
    for (int i = 0; i < 2; i++) {
        both[i] = (struct contender){.target = target,
                                     .work = work,
                                     .times = times,
                                     .waiting = &waiting,
                                     .cpu = nth_cpu(&allowed, i)};
        if (pthread_create(&threads[i], NULL, contend, &both[i]) != 0)
            CALL(KVB_ENOMEM);
    }
    for (int i = 0; i < 2; i++)
        (void)pthread_join(threads[i], NULL);
    return (double)(both[0].ns + both[1].ns) / 2 / times;
}

void suite_handles(const struct plan *plan)
{
    static struct samples one, batch, two, atomics_one, atomics_two;
    struct target target = {.manager = manager_of(1024), .batch = 1};
    uint32_t times = 20000, samples = plan->rounds * (plan->quick ? 1 : 20);
    CALL(kvb_alloc(target.manager, KVB_TIER_DEVICE, BATCH, NULL, target.blocks, NULL));
    for (uint32_t sample = 0; sample < samples; sample++) {
        samples_add(&atomics_one, alone_ns(&target, pairs_of_atomics, times));
        samples_add(&one, alone_ns(&target, pairs_of_handles, times));
        target.batch = BATCH;
        samples_add(&batch, alone_ns(&target, pairs_of_handles, times / BATCH) / BATCH);
        target.batch = 1;
        samples_add(&atomics_two, contended_ns(&target, pairs_of_atomics, times));
        samples_add(&two, contended_ns(&target, pairs_of_handles, times));
    }
    struct row rows[] = {
        row_of("handle.ref+unref", "ns/pair", &one, &atomics_one, "fetch_add + fetch_sub"),
        row_of("handle.ref+unref.32_a_call", "ns/pair", &batch, &atomics_one,
               "fetch_add + fetch_sub"),
        row_of("handle.ref+unref.2_threads", "ns/pair", &two, &atomics_two,
               "fetch_add + fetch_sub, two threads"),
    };
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++)
        report_row(plan->report, &rows[i]);
    CALL(kvb_block_unref(target.manager, target.blocks, BATCH, NULL));
    CALL(kvb_manager_destroy(target.manager));
}
