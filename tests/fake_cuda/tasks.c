/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tasks - one piece of a stream's work
 *
 * Owns the life of tasks and points. A task belongs to its stream's queue, to the log of races.c,
 * or to both.
 * Callers: copies.c, streams.c, events.c and kernels make tasks; the stream's thread runs them.
 * Lock: fake_task_run runs without, and touches only what nobody writes after the enqueueing.
 */
#include "internal.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

struct fake_task *fake_task_new(enum fake_task_kind kind, const char *call)
{
    struct fake_task *task = calloc(1, sizeof *task);
    if (!task)
        abort();
    task->kind = kind;
    task->call = call;
    return task;
}

void fake_task_release(struct fake_task *task)
{
    if (task->queued || task->logged)
        return;
    if (task->point)
        fake_point_unref(task->point);
    free(task->reads.items);
    free(task->writes.items);
    free(task->copies);
    free(task->args);
    free(task);
}

void fake_task_copy(struct fake_task *task, void *to, const void *from, size_t bytes)
{
    if (!bytes)
        return;
    fake_spans_add(&task->reads, from, bytes);
    fake_spans_add(&task->writes, to, bytes);
    task->copies =
        fake_grow(task->copies, task->copy_count, &task->copy_capacity, sizeof *task->copies);
    task->copies[task->copy_count++] =
        (struct fake_copy){.to = fake_storage(to), .from = fake_storage(from), .bytes = bytes};
}

struct fake_point *fake_point_new(const struct fake_clock *clock)
{
    struct fake_point *point = calloc(1, sizeof *point);
    if (!point)
        abort();
    point->references = 1;
    point->clock = *clock;
    return point;
}

void fake_point_unref(struct fake_point *point)
{
    if (!--point->references)
        free(point);
}

static uint64_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

/* The copies of a batch in an order of the seed's choice. */
static void shuffle(struct fake_task *task, uint64_t *random)
{
    for (size_t left = task->copy_count; left > 1; left--) {
        size_t other = (size_t)(next_random(random) % left);
        struct fake_copy copy = task->copies[left - 1];
        task->copies[left - 1] = task->copies[other];
        task->copies[other] = copy;
    }
}

static void run_copies(const struct fake_task *task)
{
    size_t count = task->breaks ? task->copy_count / 2 : task->copy_count;
    for (size_t i = 0; i < count; i++)
        memcpy(task->copies[i].to, task->copies[i].from, task->copies[i].bytes);
    if (task->breaks && count < task->copy_count)
        memcpy(task->copies[count].to, task->copies[count].from, task->copies[count].bytes / 2);
}

static void run_host_function(const struct fake_task *task)
{
    fake_lock();
    fake_host_observes(&task->point->clock);
    fake_this_thread()->in_host_function = true;
    fake_unlock();
    task->host_function(task->user_data);
    fake_lock();
    fake_this_thread()->in_host_function = false;
    fake_unlock();
}

void fake_task_run(struct fake_task *task, struct fake_stream *stream)
{
    fake_edge_to(task);
    if (fake.config.seed) {
        shuffle(task, &stream->random);
        for (uint64_t yields = next_random(&stream->random) % 4; yields; yields--)
            sched_yield();
    }
    if (task->kind == FAKE_TASK_COPY)
        run_copies(task);
    else if (task->kind == FAKE_TASK_KERNEL && task->kernel)
        task->kernel(task->args);
    else if (task->kind == FAKE_TASK_RECORD)
        fake_edge_from(task->point);
    else if (task->kind == FAKE_TASK_WAIT)
        fake_edge_to(task->point);
    else if (task->kind == FAKE_TASK_WORD)
        fake_word_written(task);
    else if (task->kind == FAKE_TASK_HOST_FUNCTION)
        run_host_function(task);
}
