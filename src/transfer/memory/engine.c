/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory/engine - copies between tiers in host memory; stands in for a GPU's copy engine where
 * there is none
 *
 * Owns       nothing but its queue. "Begun" are the items in the run that reap is copying.
 * Callers    see engine.h. No thread of its own: the copying is done in reap, without the lock.
 * Lock       the queue's; a begun item is reap's alone.
 * Why        a run of adjacent slots is one copy of up to RUN_BYTES: 1 MiB is where the kernel is
 *            at its full speed (see copy.h), and takes some 0.1 ms, which bounds by how much reap
 *            oversteps its time.
 */
#include "base/clock.h"
#include "base/debug.h"
#include "base/hooks.h"
#include "base/platform.h"

#include "transfer/copy_queue.h"
#include "transfer/memory/copy.h"
#include "transfer/memory/engine.h"

#define RUN_BYTES ((uint64_t)1 << 20)

struct memcpy_engine {
    struct kvbi_engine engine;
    struct kvbi_memory memory;
    struct kvbi_clock *clock;
    const struct kvbi_hooks *hooks;
    const struct kvbi_copy_ops *kernel;
    struct kvbi_copy_queue queue;
};

static struct memcpy_engine *of(struct kvbi_engine *engine)
{
    return (struct memcpy_engine *)(void *)engine; /* its first member */
}

/* ---- Submitting ------------------------------------------------------------------------------ */

static int memcpy_submit(struct kvbi_engine *engine, const struct kvbi_copy *copies, uint32_t count,
                         bool urgent)
{
    return kvbi_copy_queue_submit(&of(engine)->queue, copies, count, urgent);
}

/* ---- Copying --------------------------------------------------------------------------------- */

/*
 * `b` directly behind `a` on both sides. Within one tier a copy may read what the one before it
 * wrote: never one run.
 */
static bool adjacent(const struct kvbi_copy *a, const struct kvbi_copy *b)
{
    return a->from == b->from && a->to == b->to && a->from != a->to &&
           a->from_slot + 1 == b->from_slot && a->to_slot + 1 == b->to_slot;
}

/*
 * Takes at most `max` items to copy as one run: RUN_BYTES, but at least one block. Empty if none is
 * ready.
 */
static struct kvbi_copy_list take_run_locked(struct memcpy_engine *e, uint32_t max)
{
    struct kvbi_copy_list run = {.first = KVBI_NONE}, *ready = kvbi_copy_next_locked(&e->queue);
    if (max == 0 || ready->count == 0)
        return run;
    const struct kvbi_copy_item *last = &e->queue.items[ready->first];
    uint64_t block_bytes = last->copy.from->block_bytes,
             blocks = RUN_BYTES / (block_bytes > 0 ? block_bytes : 1);
    if (max > blocks)
        max = blocks > 0 ? (uint32_t)blocks : 1;
    kvbi_copy_push_locked(&e->queue, &run, kvbi_copy_pop_locked(&e->queue, ready));
    while (run.count < max && ready->count > 0 &&
           adjacent(&last->copy, &e->queue.items[ready->first].copy)) {
        last = &e->queue.items[ready->first];
        kvbi_copy_push_locked(&e->queue, &run, kvbi_copy_pop_locked(&e->queue, ready));
    }
    return run;
}

static int fault_of(const struct memcpy_engine *e, const struct kvbi_copy *copy)
{
    if (e->hooks == NULL || e->hooks->copy_fault == NULL)
        return 0;
    return e->hooks->copy_fault(e->hooks->context, copy->from->tier, copy->from_slot,
                                copy->to->tier, copy->to_slot);
}

static void copy_blocks(const struct memcpy_engine *e, const struct kvbi_copy *first,
                        uint32_t count)
{
    if (count > 0)
        e->kernel->copy(kvbi_tier_address(first->to, first->to_slot),
                        kvbi_tier_address(first->from, first->from_slot),
                        (size_t)(count * first->from->block_bytes));
}

/*
 * Copies a run, around the blocks that are to fail, and writes a completion each. No lock is held.
 */
static void copy_run(const struct memcpy_engine *e, const struct kvbi_copy_list *run,
                     struct kvbi_completion *completions)
{
    const struct kvbi_copy *start = NULL;
    uint32_t pending = 0, index = run->first;
    for (uint32_t i = 0; i < run->count; i++, index = e->queue.items[index].next) {
        const struct kvbi_copy *copy = &e->queue.items[index].copy;
        completions[i] =
            (struct kvbi_completion){.cookie = copy->cookie, .result = fault_of(e, copy)};
        if (completions[i].result == 0) {
            start = pending++ == 0 ? copy : start;
            continue;
        }
        copy_blocks(e, start, pending);
        pending = 0;
    }
    copy_blocks(e, start, pending);
}

static uint32_t memcpy_reap(struct kvbi_engine *engine, struct kvbi_completion *completions,
                            uint32_t max, uint64_t until_ns, bool *more)
{
    struct memcpy_engine *e = of(engine);
    kvbi_lock_take(&e->queue.lock);
    uint32_t count = kvbi_copy_complete_cancelled_locked(&e->queue, completions, max);
    for (bool time_left = true; time_left;) {
        kvbi_copy_promote_locked(&e->queue);
        struct kvbi_copy_list run = take_run_locked(e, max - count);
        if (run.count == 0)
            break;
        kvbi_lock_release(&e->queue.lock);
        copy_run(e, &run, completions + count);
        count += run.count;
        time_left = kvbi_clock_now(e->clock) < until_ns;
        kvbi_lock_take(&e->queue.lock);
        kvbi_copy_append_locked(&e->queue, &e->queue.free, &run);
    }
    *more = kvbi_copy_ready_locked(&e->queue);
    kvbi_lock_release(&e->queue.lock);
    return count;
}

static bool memcpy_ready(struct kvbi_engine *engine)
{
    struct memcpy_engine *e = of(engine);
    kvbi_lock_take(&e->queue.lock);
    bool ready = kvbi_copy_ready_locked(&e->queue);
    kvbi_lock_release(&e->queue.lock);
    return ready;
}

/*
 * Nothing is begun here: reap completes what it begins before it returns, and no two calls of the
 * pipeline overlap.
 */
static void memcpy_drain(struct kvbi_engine *engine)
{
    struct memcpy_engine *e = of(engine);
    kvbi_lock_take(&e->queue.lock);
    kvbi_copy_cancel_locked(&e->queue);
    KVBI_ASSERT(e->queue.cancelled.count + e->queue.free.count == e->queue.capacity);
    kvbi_lock_release(&e->queue.lock);
}

static int memcpy_wake_fd(struct kvbi_engine *engine)
{
    (void)engine;
    return -1;
}

static bool memcpy_signal(struct kvbi_engine *engine)
{
    return kvbi_copy_queue_signal(&of(engine)->queue);
}

static bool memcpy_recall(struct kvbi_engine *engine, uint32_t place, uint64_t cookie)
{
    return kvbi_copy_queue_recall(&of(engine)->queue, place, cookie);
}

static size_t memcpy_bytes(const struct kvbi_engine *engine)
{
    return sizeof(struct memcpy_engine) +
           kvbi_copy_queue_bytes(&((const struct memcpy_engine *)(const void *)engine)->queue);
}

/* ---- Create and destroy ---------------------------------------------------------------------- */

static void memcpy_destroy(struct kvbi_engine *engine)
{
    struct memcpy_engine *e = of(engine);
    struct kvbi_memory memory = e->memory;
    kvbi_copy_queue_destroy(&e->queue);
    kvbi_memory_free(&memory, e, 1, sizeof *e);
}

#define MEMCPY_OPS(engine_name)                                                                    \
    {                                                                                              \
        .name = engine_name, .destroy = memcpy_destroy, .submit = memcpy_submit,                   \
        .reap = memcpy_reap, .wake_fd = memcpy_wake_fd, .ready = memcpy_ready,                     \
        .drain = memcpy_drain, .signal = memcpy_signal, .recall = memcpy_recall,                   \
        .bytes = memcpy_bytes                                                                      \
    }

/* The same functions: they differ in what they tell the statistics about the kernel. */
static const struct kvbi_engine_ops ops_baseline = MEMCPY_OPS("memcpy");
static const struct kvbi_engine_ops ops_avx2 = MEMCPY_OPS("memcpy avx2");

int kvbi_engine_memcpy_create(struct kvbi_engine **engine, const struct kvbi_memory *memory,
                              struct kvbi_clock *clock, const struct kvbi_lines *lines,
                              uint32_t capacity, const struct kvbi_hooks *hooks)
{
    *engine = NULL;
    struct memcpy_engine *e =
        kvbi_memory_alloc(memory, 1, sizeof *e, _Alignof(struct memcpy_engine));
    if (e == NULL)
        return KVB_ENOMEM;
    e->memory = *memory;
    if (kvbi_copy_queue_create(&e->queue, &e->memory, lines, capacity) != 0) {
        kvbi_memory_free(memory, e, 1, sizeof *e);
        return KVB_ENOMEM;
    }
    e->clock = clock;
    e->hooks = hooks;
    e->kernel = kvbi_copy_select(kvbi_isa_detect());
    e->engine.ops = e->kernel == &kvbi_copy_baseline ? &ops_baseline : &ops_avx2;
    *engine = &e->engine;
    return 0;
}
