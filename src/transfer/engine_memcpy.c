/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine_memcpy - copies between tiers in host memory; stands in for a GPU's copy engine where there is none
 *
 * Owns       a fixed array of items and six lists through it. Every item is in exactly one: free, waiting (for the counter
 *            to reach its ticket), one of the two ready ones, cancelled (completes through reap), or in the run that reap
 *            is copying ("begun").
 * Callers    see engine.h. No thread of its own: the copying is done in reap, without the lock.
 * Invariants lists run first in, first out; waiting_ticket is the smallest ticket in the waiting list (UINT64_MAX: it is
 *            empty), so that the list is walked only when the counter has passed it: waiting copies hold up nobody.
 * Lock       `lock` guards all of struct memcpy_engine below it; a begun item is reap's alone.
 * Why        a run of adjacent slots is one copy of up to RUN_BYTES: 1 MiB is where the kernel is at its full speed (see
 *            copy.h), and takes some 0.1 ms, which bounds by how much reap oversteps its time.
 */
#include <string.h>

#include "base/bands.h"
#include "base/clock.h"
#include "base/debug.h"
#include "base/hooks.h"
#include "base/lock.h"
#include "base/platform.h"

#include "transfer/copy.h"
#include "transfer/engine.h"

#define RUN_BYTES ((uint64_t)1 << 20)

struct item {
    struct kvbi_copy copy;
    uint32_t next; /* in its list, or KVBI_NONE */
    bool urgent;
};

struct list {
    uint32_t first, last, count; /* first and last mean nothing while count is 0 */
};

struct memcpy_engine {
    struct kvbi_engine engine;
    struct kvbi_memory memory;
    struct kvbi_clock *clock;
    const struct kvbi_hooks *hooks;
    const struct kvbi_copy_ops *kernel;
    struct item *items;
    uint32_t capacity;

    struct kvbi_lock lock;
    struct list free, waiting, cancelled;
    struct list ready[2]; /* by urgent */
    uint64_t counter, waiting_ticket;
};

static struct memcpy_engine *of(struct kvbi_engine *engine)
{
    return (struct memcpy_engine *)(void *)engine; /* its first member */
}

/* ---- Lists -------------------------------------------------------------------------------------------------------- */

static void push_locked(struct memcpy_engine *e, struct list *list, uint32_t index)
{
    kvbi_lock_assert_held(&e->lock);
    e->items[index].next = KVBI_NONE;
    if (list->count++ == 0)
        list->first = index;
    else
        e->items[list->last].next = index;
    list->last = index;
}

static uint32_t pop_locked(struct memcpy_engine *e, struct list *list)
{
    kvbi_lock_assert_held(&e->lock);
    uint32_t index = list->first;
    KVBI_ASSERT(list->count > 0);
    list->first = e->items[index].next;
    list->count--;
    return index;
}

/* Empties `from`. O(1). */
static void append_list_locked(struct memcpy_engine *e, struct list *to, struct list *from)
{
    kvbi_lock_assert_held(&e->lock);
    if (from->count == 0)
        return;
    if (to->count == 0)
        to->first = from->first;
    else
        e->items[to->last].next = from->first;
    to->last = from->last;
    to->count += from->count;
    from->count = 0;
}

/* Into the ready list, or to wait for its ticket. */
static void enqueue_locked(struct memcpy_engine *e, uint32_t index)
{
    const struct item *item = &e->items[index];
    if (item->copy.ticket <= e->counter) {
        push_locked(e, &e->ready[item->urgent], index);
        return;
    }
    push_locked(e, &e->waiting, index);
    if (e->waiting_ticket > item->copy.ticket)
        e->waiting_ticket = item->copy.ticket;
}

/* Sorts the waiting list anew if the counter has reached one of its tickets. */
static void promote_locked(struct memcpy_engine *e)
{
    kvbi_lock_assert_held(&e->lock);
    if (e->counter < e->waiting_ticket)
        return;
    uint32_t count = e->waiting.count;
    e->waiting_ticket = UINT64_MAX;
    while (count-- > 0)
        enqueue_locked(e, pop_locked(e, &e->waiting));
}

static bool ready_locked(const struct memcpy_engine *e)
{
    kvbi_lock_assert_held(&e->lock);
    return e->ready[0].count > 0 || e->ready[1].count > 0 || e->cancelled.count > 0 ||
           (e->waiting.count > 0 && e->counter >= e->waiting_ticket);
}

/* ---- Submitting --------------------------------------------------------------------------------------------------- */

static int memcpy_submit(struct kvbi_engine *engine, const struct kvbi_copy *copies, uint32_t count, bool urgent)
{
    struct memcpy_engine *e = of(engine);
    int result = KVB_EAGAIN;
    kvbi_lock_take(&e->lock);
    if (count <= e->free.count) {
        for (uint32_t i = 0; i < count; i++) {
            KVBI_ASSERT(copies[i].from->block_bytes == copies[i].to->block_bytes);
            KVBI_ASSERT(copies[i].from_slot < copies[i].from->block_count);
            KVBI_ASSERT(copies[i].to_slot < copies[i].to->block_count);
            uint32_t index = pop_locked(e, &e->free);
            e->items[index] = (struct item){.copy = copies[i], .next = KVBI_NONE, .urgent = urgent};
            enqueue_locked(e, index);
        }
        result = 0;
    }
    kvbi_lock_release(&e->lock);
    return result;
}

/* ---- Copying ------------------------------------------------------------------------------------------------------ */

/* `b` directly behind `a` on both sides. Within one tier a copy may read what the one before it wrote: never one run. */
static bool adjacent(const struct kvbi_copy *a, const struct kvbi_copy *b)
{
    return a->from == b->from && a->to == b->to && a->from != a->to && a->from_slot + 1 == b->from_slot &&
           a->to_slot + 1 == b->to_slot;
}

/* Takes at most `max` items to copy as one run: RUN_BYTES, but at least one block. Empty if none is ready. */
static struct list take_run_locked(struct memcpy_engine *e, uint32_t max)
{
    struct list run = {.first = KVBI_NONE}, *ready = &e->ready[e->ready[1].count > 0];
    kvbi_lock_assert_held(&e->lock);
    if (max == 0 || ready->count == 0)
        return run;
    const struct item *last = &e->items[ready->first];
    uint64_t block_bytes = last->copy.from->block_bytes, blocks = RUN_BYTES / (block_bytes > 0 ? block_bytes : 1);
    if (max > blocks)
        max = blocks > 0 ? (uint32_t)blocks : 1;
    push_locked(e, &run, pop_locked(e, ready));
    while (run.count < max && ready->count > 0 && adjacent(&last->copy, &e->items[ready->first].copy)) {
        last = &e->items[ready->first];
        push_locked(e, &run, pop_locked(e, ready));
    }
    return run;
}

static int fault_of(const struct memcpy_engine *e, const struct kvbi_copy *copy)
{
    if (e->hooks == NULL || e->hooks->copy_fault == NULL)
        return 0;
    return e->hooks->copy_fault(e->hooks->context, copy->from->tier, copy->from_slot, copy->to->tier, copy->to_slot);
}

static void copy_blocks(const struct memcpy_engine *e, const struct kvbi_copy *first, uint32_t count)
{
    if (count > 0)
        e->kernel->copy(kvbi_tier_address(first->to, first->to_slot), kvbi_tier_address(first->from, first->from_slot),
                        (size_t)(count * first->from->block_bytes));
}

/* Copies a run, around the blocks that are to fail, and writes a completion each. No lock is held. */
static void copy_run(const struct memcpy_engine *e, const struct list *run, struct kvbi_completion *completions)
{
    const struct kvbi_copy *start = NULL;
    uint32_t pending = 0, index = run->first;
    for (uint32_t i = 0; i < run->count; i++, index = e->items[index].next) {
        const struct kvbi_copy *copy = &e->items[index].copy;
        completions[i] = (struct kvbi_completion){.tag = copy->tag, .result = fault_of(e, copy)};
        if (completions[i].result == 0) {
            start = pending++ == 0 ? copy : start;
            continue;
        }
        copy_blocks(e, start, pending);
        pending = 0;
    }
    copy_blocks(e, start, pending);
}

static uint32_t complete_cancelled_locked(struct memcpy_engine *e, struct kvbi_completion *completions, uint32_t max)
{
    uint32_t count = 0;
    while (count < max && e->cancelled.count > 0) {
        uint32_t index = pop_locked(e, &e->cancelled);
        completions[count++] = (struct kvbi_completion){.tag = e->items[index].copy.tag, .result = KVB_ECANCELED};
        push_locked(e, &e->free, index);
    }
    return count;
}

static uint32_t memcpy_reap(struct kvbi_engine *engine, struct kvbi_completion *completions, uint32_t max,
                            uint64_t until_ns, bool *more)
{
    struct memcpy_engine *e = of(engine);
    kvbi_lock_take(&e->lock);
    uint32_t count = complete_cancelled_locked(e, completions, max);
    for (bool time_left = true; time_left;) {
        promote_locked(e);
        struct list run = take_run_locked(e, max - count);
        if (run.count == 0)
            break;
        kvbi_lock_release(&e->lock);
        copy_run(e, &run, completions + count);
        count += run.count;
        time_left = kvbi_clock_now(e->clock) < until_ns;
        kvbi_lock_take(&e->lock);
        append_list_locked(e, &e->free, &run);
    }
    *more = ready_locked(e);
    kvbi_lock_release(&e->lock);
    return count;
}

static bool memcpy_ready(struct kvbi_engine *engine)
{
    struct memcpy_engine *e = of(engine);
    kvbi_lock_take(&e->lock);
    bool ready = ready_locked(e);
    kvbi_lock_release(&e->lock);
    return ready;
}

/* Nothing is begun here: reap finishes what it begins before it returns, and no two calls of the pipeline overlap. */
static void memcpy_drain(struct kvbi_engine *engine)
{
    struct memcpy_engine *e = of(engine);
    kvbi_lock_take(&e->lock);
    append_list_locked(e, &e->cancelled, &e->ready[1]);
    append_list_locked(e, &e->cancelled, &e->ready[0]);
    append_list_locked(e, &e->cancelled, &e->waiting);
    e->waiting_ticket = UINT64_MAX;
    KVBI_ASSERT(e->cancelled.count + e->free.count == e->capacity);
    kvbi_lock_release(&e->lock);
}

static int memcpy_event_fd(struct kvbi_engine *engine)
{
    (void)engine;
    return -1;
}

/* ---- Fences: a ticket is a value of the counter ------------------------------------------------------------------- */

static int memcpy_import(struct kvbi_engine *engine, const struct kvb_fence *fence, uint64_t *ticket)
{
    (void)engine;
    *ticket = 0;
    if (fence == NULL)
        return 0;
    if (fence->reserved != 0 || (fence->kind != KVB_FENCE_NONE && fence->kind != KVB_FENCE_COUNTER))
        return KVB_EINVAL;
    if (fence->kind == KVB_FENCE_COUNTER)
        *ticket = fence->handle;
    return 0;
}

static bool memcpy_signal(struct kvbi_engine *engine, uint64_t value)
{
    struct memcpy_engine *e = of(engine);
    bool reached = false;
    kvbi_lock_take(&e->lock);
    if (value > e->counter) {
        e->counter = value;
        reached = e->waiting.count > 0 && value >= e->waiting_ticket;
    }
    kvbi_lock_release(&e->lock);
    return reached;
}

/* ---- Create and destroy ------------------------------------------------------------------------------------------- */

static void memcpy_destroy(struct kvbi_engine *engine)
{
    struct memcpy_engine *e = of(engine);
    struct kvbi_memory memory = e->memory;
    kvbi_lock_fini(&e->lock);
    kvbi_memory_free(&memory, e->items, e->capacity, sizeof *e->items);
    kvbi_memory_free(&memory, e, 1, sizeof *e);
}

static size_t memcpy_bytes(const struct kvbi_engine *engine)
{
    const struct memcpy_engine *e = (const struct memcpy_engine *)(const void *)engine;
    return sizeof *e + (size_t)e->capacity * sizeof *e->items;
}

#define MEMCPY_OPS(engine_name)                                                                                        \
    {                                                                                                                  \
        .name = engine_name, .destroy = memcpy_destroy, .submit = memcpy_submit, .reap = memcpy_reap,                  \
        .event_fd = memcpy_event_fd, .ready = memcpy_ready, .drain = memcpy_drain, .import = memcpy_import,            \
        .signal = memcpy_signal, .bytes = memcpy_bytes                                                                 \
    }

/* The same functions: they differ in what they tell the statistics about the kernel. */
static const struct kvbi_engine_ops ops_baseline = MEMCPY_OPS("memcpy");
static const struct kvbi_engine_ops ops_avx2 = MEMCPY_OPS("memcpy avx2");

int kvbi_engine_memcpy_create(struct kvbi_engine **engine, const struct kvbi_memory *memory, struct kvbi_clock *clock,
                              uint32_t capacity, const struct kvbi_hooks *hooks)
{
    *engine = NULL;
    struct memcpy_engine *e = kvbi_memory_alloc(memory, 1, sizeof *e, _Alignof(struct memcpy_engine));
    if (e == NULL)
        return KVB_ENOMEM;
    e->items = kvbi_memory_alloc_raw(memory, capacity, sizeof *e->items, 0);
    if (e->items == NULL)
        goto free_engine;
    if (kvbi_lock_init(&e->lock, KVBI_RANK_ENGINE) != 0)
        goto free_items;
    e->memory = *memory;
    e->clock = clock;
    e->hooks = hooks;
    e->capacity = capacity;
    e->kernel = kvbi_copy_select(kvbi_isa_detect());
    e->engine.ops = e->kernel == &kvbi_copy_baseline ? &ops_baseline : &ops_avx2;
    e->waiting_ticket = UINT64_MAX;
    kvbi_lock_take(&e->lock);
    for (uint32_t i = 0; i < capacity; i++)
        push_locked(e, &e->free, i);
    kvbi_lock_release(&e->lock);
    *engine = &e->engine;
    return 0;

free_items:
    kvbi_memory_free(memory, e->items, capacity, sizeof *e->items);
free_engine:
    kvbi_memory_free(memory, e, 1, sizeof *e);
    return KVB_ENOMEM;
}
