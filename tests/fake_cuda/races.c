/* SPDX-License-Identifier: Apache-2.0 */
/*
 * races - which task is ordered after which, and which two are not but should be
 *
 * Owns the log: every task with its ranges, from its enqueueing until the host has observed its
 * end.
 * Why decided at enqueueing: the order between tasks is fixed there (streams are FIFO, a wait means
 * the event's record of that moment), and a task can only be ordered after tasks enqueued before
 * it. So each new task is compared with the log, and the answer does not depend on when anything
 * runs. What the host has observed is ordered before all that is enqueued later: it leaves the log.
 */
#include "internal.h"

#include <stdlib.h>

static struct fake_task *logged;

void fake_spans_add(struct fake_spans *spans, const void *start, size_t bytes)
{
    if (!bytes)
        return;
    spans->items = fake_grow(spans->items, spans->count, &spans->capacity, sizeof *spans->items);
    spans->items[spans->count++] =
        (struct fake_span){.start = (uintptr_t)start, .end = (uintptr_t)start + bytes};
}

static int by_start(const void *left, const void *right)
{
    const struct fake_span *a = left, *b = right;
    return (a->start > b->start) - (a->start < b->start);
}

bool fake_spans_sort(struct fake_spans *spans)
{
    if (!spans->count)
        return true;
    bool disjoint = true;
    size_t last = 0;
    qsort(spans->items, spans->count, sizeof *spans->items, by_start);
    for (size_t i = 1; i < spans->count; i++) {
        struct fake_span *into = &spans->items[last], span = spans->items[i];
        if (span.start > into->end) {
            spans->items[++last] = span;
            continue;
        }
        disjoint = disjoint && span.start == into->end;
        if (span.end > into->end)
            into->end = span.end;
    }
    spans->count = last + 1;
    return disjoint;
}

const struct fake_span *fake_spans_meet(const struct fake_spans *left,
                                        const struct fake_spans *right)
{
    size_t l = 0, r = 0;
    while (l < left->count && r < right->count) {
        const struct fake_span *a = &left->items[l], *b = &right->items[r];
        if (a->end <= b->start)
            l++;
        else if (b->end <= a->start)
            r++;
        else
            return a->start > b->start ? a : b;
    }
    return NULL;
}

void fake_clock_join(struct fake_clock *into, const struct fake_clock *from)
{
    for (unsigned slot = 0; slot < FAKE_MAX_STREAMS; slot++)
        if (into->tick[slot] < from->tick[slot])
            into->tick[slot] = from->tick[slot];
}

static bool over(const struct fake_task *task, const struct fake_clock *clock)
{
    return clock->tick[task->slot] >= task->tick;
}

/* One report a pair of tasks. */
static bool report_race(const struct fake_task *task, const struct fake_task *other,
                        const struct fake_span *where, const char *does, const char *did)
{
    if (!where)
        return false;
    fake_report(FAKE_CUDA_RACE, "%s on stream %u %s %#lx, which %s on stream %u may still be %s",
                task->call, task->slot, does, (unsigned long)where->start, other->call, other->slot,
                did);
    return true;
}

/* False: reported. */
static bool check_pair(const struct fake_task *task, const struct fake_task *other,
                       bool reads_ordered, bool writes_ordered)
{
    if (!writes_ordered && report_race(task, other, fake_spans_meet(&task->writes, &other->writes),
                                       "writes", "writing"))
        return false;
    if (!writes_ordered && report_race(task, other, fake_spans_meet(&task->writes, &other->reads),
                                       "writes", "reading"))
        return false;
    return reads_ordered || !report_race(task, other, fake_spans_meet(&task->reads, &other->writes),
                                         "reads", "writing");
}

void fake_log_add(struct fake_task *task, const struct fake_clock *reads_after,
                  const struct fake_clock *writes_after)
{
    if (!task->reads.count && !task->writes.count)
        return;
    for (const struct fake_task *other = logged; other; other = other->next_logged)
        if (!other->dropped &&
            !check_pair(task, other, over(other, reads_after), over(other, writes_after)))
            task->dropped = true;
    task->logged = true;
    task->next_logged = logged;
    logged = task;
}

bool fake_log_has(unsigned slot)
{
    for (const struct fake_task *task = logged; task; task = task->next_logged)
        if (task->slot == slot)
            return true;
    return false;
}

bool fake_log_check_host(const void *start, size_t bytes, bool written, const char *who)
{
    bool clean = true;
    struct fake_span span = {.start = (uintptr_t)start, .end = (uintptr_t)start + bytes};
    struct fake_spans spans = {.items = &span, .count = bytes ? 1 : 0};
    for (const struct fake_task *task = logged; task; task = task->next_logged) {
        const char *doing = fake_spans_meet(&spans, &task->writes)             ? "writing"
                            : written && fake_spans_meet(&spans, &task->reads) ? "reading"
                                                                               : NULL;
        if (!doing || task->dropped)
            continue;
        clean = false;
        fake_report(FAKE_CUDA_HOST_RACE, "%s %s %p + %zu, which %s on stream %u may still be %s",
                    who, written ? "writes" : "reads", start, bytes, task->call, task->slot, doing);
    }
    return clean;
}

void fake_log_drop(const void *start, size_t bytes, const char *who)
{
    struct fake_span span = {.start = (uintptr_t)start, .end = (uintptr_t)start + bytes};
    struct fake_spans spans = {.items = &span, .count = bytes ? 1 : 0};
    struct fake_task *task = logged;
    while (task) {
        bool meets =
            fake_spans_meet(&spans, &task->writes) || fake_spans_meet(&spans, &task->reads);
        if (meets && task->running) { /* the log may change meanwhile */
            fake_wait(&fake.changed);
            task = logged;
            continue;
        }
        if (meets && !task->dropped) {
            fake_report(FAKE_CUDA_FREED_IN_USE,
                        "%s of %p + %zu, where the host has not seen %s on stream %u end", who,
                        start, bytes, task->call, task->slot);
            task->dropped = true;
            fake_edge_to(&fake.streams[task->slot]); /* said once is enough */
        }
        task = task->next_logged;
    }
}

void fake_log_clear(void)
{
    while (logged) {
        struct fake_task *task = logged;
        logged = task->next_logged;
        task->logged = false;
        fake_task_release(task);
    }
}

void fake_host_observes(const struct fake_clock *clock)
{
    fake_clock_join(&fake.host, clock);
    struct fake_task **link = &logged;
    while (*link) {
        struct fake_task *task = *link;
        if (!over(task, &fake.host)) {
            link = &task->next_logged;
            continue;
        }
        *link = task->next_logged;
        task->logged = false;
        fake_task_release(task);
    }
}

void fake_cuda_host_reads(const void *pinned, size_t bytes)
{
    fake_enter_helper();
    fake_log_check_host(pinned, bytes, false, "host code");
    fake_unlock();
}

void fake_cuda_host_writes(const void *pinned, size_t bytes)
{
    fake_enter_helper();
    fake_log_check_host(pinned, bytes, true, "host code");
    fake_unlock();
}
