/* SPDX-License-Identifier: Apache-2.0 */
/*
 * streams - a thread a stream, which runs its tasks in the order of their enqueueing
 *
 * Owns the table of streams. A slot of the table is also the stream's place in every clock, so that
 * it is used again only when nothing of the former stream can race with anything any more.
 * Invariants: a handle is slot and generation and no address, so that a stale one is recognised and
 * a dereferenced one crashes. A stream that was destroyed runs what is queued, and then its thread
 * ends.
 */
#include "internal.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define STREAM_TAG ((uintptr_t)0x57)

unsigned fake_stream_slot(const struct fake_stream *stream)
{
    return (unsigned)(stream - fake.streams);
}

static struct fake_stream *default_stream(bool legacy);

static cudaStream_t handle_of(const struct fake_stream *stream)
{
    return (cudaStream_t)(STREAM_TAG << 56 | (uintptr_t)stream->generation << 8 |
                          fake_stream_slot(stream));
}

/* What a server does there, and what a library may that is told of one. */
static bool takes_default(const char *call)
{
    return !strcmp(call, "cudaEventRecord") || !strcmp(call, "cudaStreamWaitEvent") ||
           !strcmp(call, "cudaStreamIsCapturing") || !strncmp(call, "fake_cuda_", 10);
}

struct fake_stream *fake_stream_find(cudaStream_t handle, const char *call)
{
    if (!handle || handle == cudaStreamLegacy || handle == cudaStreamPerThread) {
        if (takes_default(call))
            return default_stream(handle != cudaStreamPerThread);
        fake_report(FAKE_CUDA_DEFAULT_STREAM, "%s on the %s default stream", call,
                    handle == cudaStreamPerThread ? "per-thread" : "legacy");
        return NULL;
    }
    struct fake_stream *stream = &fake.streams[(uintptr_t)handle % FAKE_MAX_STREAMS];
    if (stream->live && handle_of(stream) == handle)
        return stream;
    fake_report(FAKE_CUDA_BAD_HANDLE, "%s: %p is no stream, or one that was destroyed", call,
                (void *)handle);
    return NULL;
}

/* ---- The thread ------------------------------------------------------------------------------ */

bool fake_stream_may_run(const struct fake_stream *stream)
{
    const struct fake_task *task = stream->first;
    if (!task || (stream->held && !stream->allowance))
        return false;
    return task->dropped || task->kind != FAKE_TASK_WAIT || task->point->reached ||
           task->point->lost;
}

static struct fake_task *take_first(struct fake_stream *stream)
{
    struct fake_task *task = stream->first;
    stream->entries--;
    stream->first = task->next_queued;
    if (!stream->first)
        stream->last = NULL;
    if (stream->held)
        stream->allowance--;
    return task;
}

/* A task that was dropped keeps its place in the order, and moves nothing. */
static void finish(struct fake_stream *stream, struct fake_task *task)
{
    if (task->kind == FAKE_TASK_RECORD)
        task->point->reached = true;
    fake.tasks_run += !task->dropped;
    task->queued = false;
    task->running = false;
    fake_task_release(task);
    stream->running = false;
    fake_streams_wake();
}

static void run_first(struct fake_stream *stream)
{
    struct fake_task *task = take_first(stream);
    cudaError_t broken = cudaSuccess;
    stream->running = true;
    stream->tick_running = task->tick;
    if (!task->dropped) {
        task->running = true;
        if (task->kind == FAKE_TASK_COPY)
            broken = fake_break_planned();
        task->breaks = broken != cudaSuccess;
        fake_unlock();
        fake_task_run(task, stream);
        fake_edge_from(stream);
        fake_lock();
    }
    if (broken)
        fake_break(stream->device, broken);
    finish(stream, task);
}

static void *stream_main(void *argument)
{
    struct fake_stream *stream = argument;
    fake_lock();
    for (;;) {
        if (fake_stream_may_run(stream))
            run_first(stream);
        else if (stream->closing && !stream->first)
            break;
        else
            fake_wait(&stream->work);
    }
    fake_unlock();
    return NULL;
}

void fake_streams_wake(void)
{
    for (unsigned slot = 0; slot < FAKE_MAX_STREAMS; slot++) {
        struct fake_stream *stream = &fake.streams[slot];
        if (stream->has_thread && !stream->running &&
            (fake_stream_may_run(stream) || stream->closing))
            pthread_cond_signal(&stream->work);
    }
    pthread_cond_broadcast(&fake.changed);
}

/* ---- The queue ------------------------------------------------------------------------------- */

/* A stream that goes on takes more before long, and how soon is no fact of the test's. */
static void append(struct fake_stream *stream, struct fake_task *task,
                   const struct fake_clock *reads_after)
{
    unsigned slot = fake_stream_slot(stream);
    if (stream->entries++ >= fake.config.stream_entries && !stream->running &&
        !fake_stream_may_run(stream))
        fake_report(FAKE_CUDA_FULL, "%s waits: stream %u has %zu entries", task->call, slot,
                    stream->entries - 1);
    if (task->kind == FAKE_TASK_WAIT)
        fake_clock_join(&stream->clock, &task->point->clock);
    task->slot = slot;
    task->tick = stream->clock.tick[slot] + 1;
    fake_log_add(task, reads_after ? reads_after : &stream->clock, &stream->clock);
    stream->clock.tick[slot] = task->tick;
    task->queued = true;
    *(stream->last ? &stream->last->next_queued : &stream->first) = task;
    stream->last = task;
    fake.tasks_enqueued++;
    fake_edge_from(task);
    fake_streams_wake();
}

/* What `later` is given from now on comes after all that `earlier` has been given. */
static void order(struct fake_stream *earlier, struct fake_stream *later)
{
    unsigned slot = fake_stream_slot(earlier);
    if (later->clock.tick[slot] >= earlier->clock.tick[slot])
        return;
    struct fake_task *record = fake_task_new(FAKE_TASK_RECORD, "the legacy stream's order"),
                     *wait = fake_task_new(FAKE_TASK_WAIT, record->call);
    record->point = wait->point = fake_point_new(&earlier->clock);
    wait->point->references++;
    append(earlier, record, NULL);
    wait->point->clock.tick[slot] = record->tick;
    append(later, wait, NULL);
}

void fake_stream_meet_default(struct fake_stream *stream)
{
    for (unsigned slot = 0; stream->blocking && slot < FAKE_MAX_STREAMS; slot++) {
        struct fake_stream *other = &fake.streams[slot];
        if (other != stream && other->blocking && other->device == stream->device &&
            (stream->legacy || other->legacy) && !fake.broken[stream->device])
            order(other, stream);
    }
}

void fake_stream_enqueue(struct fake_stream *stream, struct fake_task *task,
                         const struct fake_clock *reads_after)
{
    fake_stream_meet_default(stream);
    append(stream, task, reads_after);
}

bool fake_stream_idle(const struct fake_stream *stream)
{
    return !stream->first && !stream->running;
}

bool fake_stream_over(const struct fake_stream *stream, uint64_t tick)
{
    if (stream->running && stream->tick_running <= tick)
        return false;
    return !stream->first || stream->first->tick > tick;
}

void fake_stream_drop(struct fake_stream *stream)
{
    while (stream->first) {
        struct fake_task *task = stream->first;
        stream->first = task->next_queued;
        stream->entries--;
        task->queued = false;
        if (task->kind == FAKE_TASK_RECORD)
            task->point->lost = true;
        fake_task_release(task);
    }
    stream->last = NULL;
}

/* ---- Life ------------------------------------------------------------------------------------ */

static bool slot_is_free(const struct fake_stream *stream)
{
    return !stream->live && fake_stream_idle(stream) && !fake_log_has(fake_stream_slot(stream));
}

static void join_thread(struct fake_stream *stream)
{
    if (!stream->has_thread)
        return;
    pthread_t thread = stream->thread;
    stream->has_thread = false;
    fake_unlock();
    pthread_join(thread, NULL);
    fake_lock();
    pthread_cond_destroy(&stream->work);
}

static struct fake_stream *find_slot(void)
{
    for (unsigned slot = 0; slot < FAKE_MAX_STREAMS; slot++)
        if (slot_is_free(&fake.streams[slot]))
            return &fake.streams[slot];
    return NULL;
}

/* Is a stream that was destroyed about to finish its work? */
static bool one_is_ending(void)
{
    for (unsigned slot = 0; slot < FAKE_MAX_STREAMS; slot++) {
        const struct fake_stream *stream = &fake.streams[slot];
        if (!stream->live && (stream->running || fake_stream_may_run(stream)))
            return true;
    }
    return false;
}

static struct fake_stream *take_slot(void)
{
    struct fake_stream *stream;
    while (!(stream = find_slot()) && one_is_ending())
        fake_wait(&fake.changed);
    if (!stream)
        return NULL;
    /* nobody else takes it while its former thread ends, and the former handle is stale */
    stream->live = true;
    stream->generation++;
    join_thread(stream);
    return stream;
}

static bool start_thread(struct fake_stream *stream)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_cond_init(&stream->work, NULL);
    stream->has_thread = !pthread_create(&stream->thread, NULL, stream_main, stream);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return stream->has_thread;
}

/* Of the thread's current device. NULL after a report. */
static struct fake_stream *create_stream(bool blocking)
{
    struct fake_stream *stream = take_slot();
    if (!stream) {
        fake_report(FAKE_CUDA_MISUSE,
                    "more than %d streams that live, or whose end the host has not seen",
                    FAKE_MAX_STREAMS);
        return NULL;
    }
    uint64_t tick = stream->clock.tick[fake_stream_slot(stream)];
    unsigned generation = stream->generation;
    *stream = (struct fake_stream){.live = true,
                                   .blocking = blocking,
                                   .generation = generation,
                                   .device = fake_this_thread()->device};
    stream->clock.tick[fake_stream_slot(stream)] = tick;
    stream->held = fake.hold_new_streams;
    stream->random = fake.config.seed + fake_stream_slot(stream);
    if (!start_thread(stream)) {
        stream->live = false;
        return NULL;
    }
    return stream;
}

/* Made when it is first named; it ends with the run. */
static struct fake_stream *default_stream(bool legacy)
{
    const void *owner = legacy ? (const void *)&fake : fake_this_thread();
    for (unsigned slot = 0; slot < FAKE_MAX_STREAMS; slot++)
        if (fake.streams[slot].owner == owner &&
            fake.streams[slot].device == fake_this_thread()->device)
            return &fake.streams[slot];
    struct fake_stream *stream = create_stream(true);
    if (!stream)
        return NULL;
    stream->legacy = legacy;
    stream->owner = owner;
    return stream;
}

static cudaError_t create_with_flags(const char *call, cudaStream_t *handle, unsigned flags)
{
    cudaError_t error = fake_enter(call, FAKE_MAKES_CONTEXT);
    if (!error && flags != cudaStreamDefault && flags != cudaStreamNonBlocking)
        error = cudaErrorInvalidValue;
    if (!error && flags == cudaStreamDefault)
        fake_report(FAKE_CUDA_DEFAULT_STREAM,
                    "%s: a stream that waits for the legacy default stream", call);
    struct fake_stream *stream = error ? NULL : create_stream(flags == cudaStreamDefault);
    if (!error && !stream)
        error = cudaErrorMemoryAllocation;
    if (!error)
        *handle = handle_of(stream);
    return fake_leave(error);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *handle, unsigned int flags)
{
    return create_with_flags(__func__, handle, flags);
}

/* The priority is a hint, and clamped where it is out of range. */
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *handle, unsigned int flags, int priority)
{
    (void)priority;
    return create_with_flags(__func__, handle, flags);
}

cudaError_t cudaStreamDestroy(cudaStream_t handle)
{
    struct fake_stream *stream;
    cudaError_t error = fake_enter_stream(__func__, 0, handle, &stream);
    if (!error) {
        stream->live = false;
        stream->closing = true;
        fake_streams_wake();
    }
    return fake_leave(error);
}

void fake_streams_end(void)
{
    fake_lock();
    for (unsigned slot = 0; slot < FAKE_MAX_STREAMS; slot++) {
        fake_stream_drop(&fake.streams[slot]);
        fake.streams[slot].closing = true;
    }
    fake_streams_wake();
    for (unsigned slot = 0; slot < FAKE_MAX_STREAMS; slot++)
        join_thread(&fake.streams[slot]);
    fake_unlock();
}
