/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine_posix - memory to disk and back by pread and pwrite: threads of its own, or inside reap
 *
 * Owns       its threads, or none (poll mode); one bounce buffer each, of one piece; the list of what is done.
 * Callers    see engine.h.
 * Invariants `active` copies are in the hands of threads, each in no list; a thread has one copy at a time, so that threads x one
 *            piece bound the bytes in flight, and an urgent copy waits for one block at most.
 *            The wake-up descriptor is readable while `done` or `cancelled` holds anything (and now and then without cause).
 * Lock       the queue's, for all below `threads`. No I/O and no checksum under it.
 * Why        one thread of 1 MiB reads is at 0.9 of a ring of depth 8, four of 64 KiB at 0.7, with four times the CPU: a usable
 *            fallback where io_uring is refused.
 */
#include <errno.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/debug.h"
#include "base/platform.h"

#include "transfer/disk_copy.h"
#include "transfer/disk_engine.h"
#include "transfer/ticket_queue.h"

struct posix_engine;

struct worker {
    struct posix_engine *engine;
    unsigned char *buffer;
    pthread_t thread;
    bool started;
};

struct posix_engine {
    struct kvbi_engine engine;
    struct kvbi_memory memory;
    struct kvbi_clock *clock;
    const struct kvbi_hooks *hooks;
    struct kvbi_disk *disk;
    struct kvbi_fork_guard guard;
    struct kvbi_wake wake;
    struct worker workers[KVBI_DISK_THREADS_MAX]; /* the first lends its buffer to reap in poll mode */
    uint32_t worker_count;
    bool threads;

    struct kvbi_ticket_queue queue;
    struct kvbi_cond work, idle;
    struct kvbi_ticket_list done;
    int *results; /* by item, of what is in `done` */
    uint32_t active;
    bool stop;
};

static struct posix_engine *of(struct kvbi_engine *engine)
{
    return (struct posix_engine *)(void *)engine; /* its first member */
}

/* ---- One block ---------------------------------------------------------------------------------------------------- */

static int64_t do_io(const struct kvbi_disk_copy *state, const struct kvbi_disk_piece *piece, unsigned char *buffer)
{
    unsigned char *at = (state->bounce ? buffer : state->memory + piece->offset) + piece->done;
    off_t offset = (off_t)(kvbi_disk_offset(state->disk, state->slot) + piece->offset + piece->done);
    size_t bytes = piece->io_bytes - piece->done;
    int fd = state->disk->file.fd;
    ssize_t result = state->write ? pwrite(fd, at, bytes, offset) : pread(fd, at, bytes, offset);
    return result < 0 ? -errno : result;
}

static int move_piece(const struct posix_engine *e, const struct kvbi_disk_copy *state, struct kvbi_disk_piece *piece,
                      unsigned char *buffer)
{
    int result = 0;
    if (state->write && state->bounce)
        kvbi_disk_bounce_out(state, piece, buffer);
    while (result == 0)
        result = kvbi_disk_piece_advance(state, piece, do_io(state, piece, buffer), e->hooks);
    if (result < 0)
        return result;
    if (!state->write && state->bounce)
        kvbi_disk_bounce_in(state, piece, buffer);
    return 0;
}

static int move_block(const struct posix_engine *e, const struct kvbi_copy *copy, unsigned char *buffer)
{
    struct kvbi_disk_copy state;
    int result = kvbi_disk_copy_begin(&state, copy, e->hooks);
    if (result != 0)
        return result;
    for (uint64_t offset = 0; result == 0 && offset < e->disk->block_bytes;) {
        struct kvbi_disk_piece piece = kvbi_disk_piece_at(&state, offset);
        result = move_piece(e, &state, &piece, buffer);
        offset += piece.payload_bytes;
    }
    return kvbi_disk_copy_end(&state, result);
}

/* ---- Threads ------------------------------------------------------------------------------------------------------ */

/* Takes the next ready item, moves it, puts it into `done`; the lock is released meanwhile. False: none is ready. */
static bool move_next_locked(struct posix_engine *e, unsigned char *buffer)
{
    kvbi_ticket_promote_locked(&e->queue);
    struct kvbi_ticket_list *ready = kvbi_ticket_next_locked(&e->queue);
    if (ready->count == 0)
        return false;
    uint32_t index = kvbi_ticket_pop_locked(&e->queue, ready);
    e->active++;
    kvbi_lock_release(&e->queue.lock);
    int result = move_block(e, &e->queue.items[index].copy, buffer);
    kvbi_lock_take(&e->queue.lock);
    e->results[index] = result;
    kvbi_ticket_push_locked(&e->queue, &e->done, index);
    if (--e->active == 0)
        kvbi_cond_broadcast(&e->idle);
    return true;
}

static void *run_worker(void *argument)
{
    struct worker *worker = argument;
    struct posix_engine *e = worker->engine;
    kvbi_lock_take(&e->queue.lock);
    while (!e->stop) {
        if (!move_next_locked(e, worker->buffer))
            kvbi_cond_wait(&e->work, &e->queue.lock);
        else if (e->done.count == 1)
            kvbi_wake_signal(&e->wake);
    }
    kvbi_lock_release(&e->queue.lock);
    return NULL;
}

/* ---- The interface ------------------------------------------------------------------------------------------------ */

static int posix_submit(struct kvbi_engine *engine, const struct kvbi_copy *copies, uint32_t count, bool urgent)
{
    struct posix_engine *e = of(engine);
    if (kvbi_fork_guard_is_child(&e->guard))
        return KVB_EFORK;
    int result = kvbi_ticket_queue_submit(&e->queue, copies, count, urgent);
    if (result == 0 && count > 0)
        kvbi_cond_broadcast(&e->work);
    return result;
}

static uint32_t complete_done_locked(struct posix_engine *e, struct kvbi_completion *completions, uint32_t max)
{
    uint32_t count = 0;
    while (count < max && e->done.count > 0) {
        uint32_t index = kvbi_ticket_pop_locked(&e->queue, &e->done);
        completions[count++] =
            (struct kvbi_completion){.tag = e->queue.items[index].copy.tag, .result = e->results[index]};
        kvbi_ticket_push_locked(&e->queue, &e->queue.free, index);
    }
    return count;
}

static bool ready_locked(const struct posix_engine *e)
{
    if (!e->threads)
        return e->done.count > 0 || kvbi_ticket_ready_locked(&e->queue);
    return e->done.count > 0 || e->queue.cancelled.count > 0;
}

static uint32_t posix_reap(struct kvbi_engine *engine, struct kvbi_completion *completions, uint32_t max,
                           uint64_t until_ns, bool *more)
{
    struct posix_engine *e = of(engine);
    *more = false;
    if (kvbi_fork_guard_is_child(&e->guard))
        return 0;
    kvbi_lock_take(&e->queue.lock);
    uint32_t count = kvbi_ticket_complete_cancelled_locked(&e->queue, completions, max);
    for (bool time_left = !e->threads; time_left && count < max && move_next_locked(e, e->workers[0].buffer);) {
        count += complete_done_locked(e, completions + count, max - count);
        time_left = kvbi_clock_now(e->clock) < until_ns;
    }
    count += complete_done_locked(e, completions + count, max - count);
    *more = ready_locked(e);
    if (e->threads && !*more)
        (void)kvbi_wake_drain(&e->wake);
    kvbi_lock_release(&e->queue.lock);
    return count;
}

static int posix_event_fd(struct kvbi_engine *engine)
{
    const struct posix_engine *e = of(engine);
    return e->threads ? kvbi_wake_fd(&e->wake) : -1;
}

static bool posix_ready(struct kvbi_engine *engine)
{
    struct posix_engine *e = of(engine);
    if (kvbi_fork_guard_is_child(&e->guard))
        return false;
    kvbi_lock_take(&e->queue.lock);
    bool ready = ready_locked(e);
    kvbi_lock_release(&e->queue.lock);
    return ready;
}

static void posix_drain(struct kvbi_engine *engine)
{
    struct posix_engine *e = of(engine);
    if (kvbi_fork_guard_is_child(&e->guard))
        return;
    kvbi_lock_take(&e->queue.lock);
    kvbi_ticket_cancel_locked(&e->queue);
    while (e->active > 0)
        kvbi_cond_wait(&e->idle, &e->queue.lock);
    if (e->threads && ready_locked(e))
        kvbi_wake_signal(&e->wake);
    kvbi_lock_release(&e->queue.lock);
}

static int posix_import(struct kvbi_engine *engine, const struct kvb_fence *fence, uint64_t *ticket)
{
    (void)engine;
    return kvbi_ticket_import(fence, ticket);
}

static bool posix_signal(struct kvbi_engine *engine, uint64_t value)
{
    struct posix_engine *e = of(engine);
    if (kvbi_fork_guard_is_child(&e->guard))
        return false;
    bool reached = kvbi_ticket_signal(&e->queue, value);
    if (reached)
        kvbi_cond_broadcast(&e->work);
    return reached;
}

static size_t posix_bytes(const struct kvbi_engine *engine)
{
    const struct posix_engine *e = (const struct posix_engine *)(const void *)engine;
    size_t bytes = sizeof *e + kvbi_ticket_queue_bytes(&e->queue) + e->queue.capacity * sizeof *e->results;
    for (uint32_t i = 0; i < e->worker_count; i++)
        if (e->workers[i].buffer != NULL)
            bytes += (size_t)kvbi_disk_piece_max(e->disk);
    return bytes;
}

/* ---- Create and destroy ------------------------------------------------------------------------------------------- */

static void stop_threads(struct posix_engine *e)
{
    kvbi_lock_take(&e->queue.lock);
    e->stop = true;
    kvbi_lock_release(&e->queue.lock);
    kvbi_cond_broadcast(&e->work);
    for (uint32_t i = 0; i < e->worker_count; i++)
        if (e->workers[i].started)
            (void)pthread_join(e->workers[i].thread, NULL);
}

static void free_memory(struct posix_engine *e)
{
    struct kvbi_memory memory = e->memory;
    for (uint32_t i = 0; i < e->worker_count; i++)
        kvbi_memory_free(&memory, e->workers[i].buffer, 1, (size_t)kvbi_disk_piece_max(e->disk));
    kvbi_memory_free(&memory, e->results, e->queue.capacity, sizeof *e->results);
    kvbi_wake_destroy(&e->wake);
    kvbi_fork_guard_destroy(&e->guard);
    kvbi_memory_free(&memory, e, 1, sizeof *e);
}

static void posix_destroy(struct kvbi_engine *engine)
{
    struct posix_engine *e = of(engine);
    if (kvbi_fork_guard_is_child(&e->guard)) { /* it has neither the threads nor whoever held the lock */
        kvbi_memory_free(&e->memory, e->queue.items, e->queue.capacity, sizeof *e->queue.items);
        free_memory(e);
        return;
    }
    stop_threads(e);
    kvbi_cond_fini(&e->idle);
    kvbi_cond_fini(&e->work);
    kvbi_ticket_queue_destroy(&e->queue);
    free_memory(e);
}

static const struct kvbi_engine_ops ops = {.name = "posix",
                                           .destroy = posix_destroy,
                                           .submit = posix_submit,
                                           .reap = posix_reap,
                                           .event_fd = posix_event_fd,
                                           .ready = posix_ready,
                                           .drain = posix_drain,
                                           .import = posix_import,
                                           .signal = posix_signal,
                                           .bytes = posix_bytes};

static int take_buffers(struct posix_engine *e, const struct kvbi_disk_engine_config *config)
{
    size_t bytes = (size_t)kvbi_disk_piece_max(e->disk);
    bool bounces = false;
    for (uint32_t i = 0; i < config->memory_count; i++)
        bounces |= kvbi_disk_bounces(e->disk, config->memories[i]);
    for (uint32_t i = 0; bounces && i < e->worker_count; i++) {
        e->workers[i].buffer = kvbi_memory_alloc_raw(&e->memory, 1, bytes, KVBI_DISK_ALIGN);
        if (e->workers[i].buffer == NULL)
            return KVB_ENOMEM;
    }
    return 0;
}

static int start_threads(struct posix_engine *e)
{
    int error = 0;
    for (uint32_t i = 0; e->threads && error == 0 && i < e->worker_count; i++) {
        error = kvbi_thread_start(&e->workers[i].thread, "kvblock disk", run_worker, &e->workers[i]);
        e->workers[i].started = error == 0;
    }
    return error;
}

int kvbi_engine_posix_create(struct kvbi_engine **engine, const struct kvbi_memory *memory, struct kvbi_clock *clock,
                             const struct kvbi_disk_engine_config *config)
{
    *engine = NULL;
    uint32_t threads = config->threads != 0 ? config->threads : KVBI_DISK_THREADS;
    struct posix_engine *e = kvbi_memory_alloc(memory, 1, sizeof *e, _Alignof(struct posix_engine));
    if (e == NULL)
        return KVB_ENOMEM;
    *e = (struct posix_engine){.engine = {.ops = &ops},
                               .memory = *memory,
                               .clock = clock,
                               .hooks = config->hooks,
                               .disk = config->disk,
                               .wake = {.fd = -1},
                               .threads = !config->poll};
    e->worker_count = config->poll ? 1 : threads < KVBI_DISK_THREADS_MAX ? threads : KVBI_DISK_THREADS_MAX;
    for (uint32_t i = 0; i < e->worker_count; i++)
        e->workers[i].engine = e;
    kvbi_fork_guard_create_by_pid(&e->guard);
    e->queue.capacity = config->capacity; /* free_memory asks for it */
    e->results = kvbi_memory_alloc_raw(memory, config->capacity, sizeof *e->results, 0);
    if (e->results == NULL || take_buffers(e, config) != 0 || kvbi_fork_guard_create(&e->guard) != 0 ||
        (e->threads && kvbi_wake_create(&e->wake) != 0) ||
        kvbi_ticket_queue_create(&e->queue, &e->memory, config->capacity) != 0)
        goto free_engine;
    if (kvbi_cond_init(&e->work) != 0)
        goto destroy_queue;
    if (kvbi_cond_init(&e->idle) != 0)
        goto fini_work;
    if (start_threads(e) != 0) {
        posix_destroy(&e->engine);
        return KVB_ENOMEM;
    }
    *engine = &e->engine;
    return 0;

fini_work:
    kvbi_cond_fini(&e->work);
destroy_queue:
    kvbi_ticket_queue_destroy(&e->queue);
free_engine:
    free_memory(e);
    return KVB_ENOMEM;
}
