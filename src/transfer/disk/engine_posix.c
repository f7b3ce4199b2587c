/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine_posix - memory to disk and back by pread and pwrite: threads of its own, or inside reap
 *
 * Owns       its threads, or none (poll mode); one bounce buffer each, of one piece. What surrounds
 *            the I/O is disk/hasher's.
 * Callers    see engine.h.
 * Invariants `active` copies are in the hands of threads, each in no list; a thread has one copy at
 *            a time, so that threads x one piece bound the bytes in flight, and an urgent copy
 *            waits for one block at most.
 *            The wake-up descriptor is readable, or soon will be by the hasher's doing, while
 *            anything has landed or is cancelled (and now and then without cause).
 * Lock       the queue's, for all below `threads`. No I/O and no checksum under it.
 * Why        one thread of 1 MiB reads is at 0.9 of a ring of depth 8, four of 64 KiB at 0.7, with
 *            four times the CPU: a usable fallback where io_uring is refused.
 */
#include <errno.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/debug.h"
#include "base/platform.h"

#include "transfer/copy_queue.h"
#include "transfer/disk/engine.h"
#include "transfer/disk/hasher.h"

/* Blocks that were written and wait for the end of others, at most. */
#define TOGETHER 16u

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
    /* the first lends its buffer to reap in poll mode */
    struct worker workers[KVBI_DISK_THREADS_MAX];
    uint32_t worker_count;
    bool threads;

    struct kvbi_copy_queue queue;
    struct kvbi_cond work, idle;
    struct kvbi_disk_hasher hasher;
    uint32_t active, waiting; /* threads with a copy; without anything to do */
    bool stop;
};

static struct posix_engine *of(struct kvbi_engine *engine)
{
    return (struct posix_engine *)(void *)engine; /* its first member */
}

/* ---- One block ------------------------------------------------------------------------------- */

static int64_t do_io(const struct kvbi_disk_copy *state, const struct kvbi_disk_piece *piece,
                     unsigned char *buffer)
{
    unsigned char *at = (state->bounce ? buffer : state->memory + piece->offset) + piece->done;
    off_t offset =
        (off_t)(kvbi_disk_offset(state->disk, state->slot) + piece->offset + piece->done);
    size_t bytes = piece->io_bytes - piece->done;
    int fd = state->file->io.fd;
    ssize_t result = state->write ? pwrite(fd, at, bytes, offset) : pread(fd, at, bytes, offset);
    return result < 0 ? -errno : result;
}

static int move_piece(const struct posix_engine *e, struct kvbi_disk_copy *state,
                      struct kvbi_disk_piece *piece, unsigned char *buffer)
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

static int move_block(const struct posix_engine *e, struct kvbi_disk_copy *state,
                      unsigned char *buffer)
{
    int result = 0;
    for (uint64_t offset = 0; result == 0 && offset < e->disk->block_bytes;) {
        struct kvbi_disk_piece piece = kvbi_disk_piece_at(state, offset);
        result = move_piece(e, state, &piece, buffer);
        offset += piece.payload_bytes;
    }
    return result;
}

/* Moves a block with no lock held; without a thread for checksums also what surrounds that. */
static void carry(struct posix_engine *e, uint32_t item, bool fresh, unsigned char *buffer)
{
    struct kvbi_disk_block *block = &e->hasher.blocks[item];
    if (fresh)
        kvbi_disk_hasher_begin(&e->hasher, item);
    if (block->error == 0)
        block->error = move_block(e, &block->copy, buffer);
    if (block->error == 0 && !block->copy.write && !e->hasher.threaded)
        block->error = kvbi_disk_copy_hash(&block->copy);
}

/* ---- Threads --------------------------------------------------------------------------------- */

static uint32_t next_locked(struct posix_engine *e, bool *fresh)
{
    kvbi_copy_promote_locked(&e->queue);
    uint32_t item = kvbi_disk_hasher_take_locked(&e->hasher, true, fresh);
    return item != KVBI_NONE ? item : kvbi_disk_hasher_take_locked(&e->hasher, false, fresh);
}

/*
 * Takes the next block, moves it, lands it; the lock is released meanwhile. False: none is ready.
 */
static bool move_next_locked(struct posix_engine *e, unsigned char *buffer)
{
    bool fresh;
    uint32_t item = next_locked(e, &fresh);
    if (item == KVBI_NONE)
        return false;
    e->active++;
    kvbi_disk_hasher_wake_locked(&e->hasher); /* room was made ahead */
    kvbi_lock_release(&e->queue.lock);
    carry(e, item, fresh, buffer);
    kvbi_lock_take(&e->queue.lock);
    kvbi_disk_hasher_land_locked(&e->hasher, item, !e->hasher.threaded);
    kvbi_disk_hasher_wake_locked(&e->hasher);
    if (--e->active == 0)
        kvbi_cond_broadcast(&e->idle);
    return true;
}

static void wait_for_work_locked(struct posix_engine *e)
{
    e->waiting++;
    e->hasher.has_room = true;
    kvbi_cond_wait(&e->work, &e->queue.lock);
    e->waiting--;
    e->hasher.has_room = e->waiting > 0;
}

/* The hasher's thread: for reap and for idle threads. */
static void tell_locked(void *engine)
{
    struct posix_engine *e = engine;
    if (e->hasher.landed.count > 0)
        kvbi_wake_signal(&e->wake);
    if (e->waiting > 0)
        kvbi_cond_broadcast(&e->work);
}

/*
 * Entries are written through the page cache, which takes the file's lock exclusively (ext4, xfs):
 * it waits for every write under way, and they for it. So what was written waits for company, as
 * long as there is more to come; what was read does not.
 */
static bool should_tell_locked(const struct posix_engine *e)
{
    const struct kvbi_copy_list *landed = &e->hasher.landed;
    if (landed->count == 0)
        return false;
    return e->active == 0 || landed->count >= TOGETHER ||
           e->queue.items[landed->last].copy.to->lasting == NULL;
}

static void *run_worker(void *argument)
{
    struct worker *worker = argument;
    struct posix_engine *e = worker->engine;
    kvbi_lock_take(&e->queue.lock);
    while (!e->stop) {
        if (!move_next_locked(e, worker->buffer))
            wait_for_work_locked(e);
        else if (should_tell_locked(e))
            kvbi_wake_signal(&e->wake);
    }
    kvbi_lock_release(&e->queue.lock);
    return NULL;
}

/* ---- The interface --------------------------------------------------------------------------- */

static int posix_submit(struct kvbi_engine *engine, const struct kvbi_copy *copies, uint32_t count,
                        bool urgent)
{
    struct posix_engine *e = of(engine);
    if (kvbi_fork_guard_is_child(&e->guard))
        return KVB_EFORK;
    int result = kvbi_copy_queue_submit(&e->queue, copies, count, urgent);
    if (result == 0 && count > 0)
        kvbi_cond_broadcast(&e->work);
    return result;
}

static bool ready_locked(const struct posix_engine *e)
{
    if (!e->threads)
        return e->hasher.landed.count > 0 || kvbi_copy_ready_locked(&e->queue);
    return e->hasher.landed.count > 0 || e->queue.cancelled.count > 0;
}

/* In poll mode: the next block's I/O, here. False: none is ready. */
static bool move_next(struct posix_engine *e)
{
    kvbi_lock_take(&e->queue.lock);
    bool moved = move_next_locked(e, e->workers[0].buffer);
    kvbi_lock_release(&e->queue.lock);
    return moved;
}

static uint32_t posix_reap(struct kvbi_engine *engine, struct kvbi_completion *completions,
                           uint32_t max, uint64_t until_ns, bool *more)
{
    struct posix_engine *e = of(engine);
    *more = false;
    if (kvbi_fork_guard_is_child(&e->guard))
        return 0;
    kvbi_lock_take(&e->queue.lock);
    uint32_t count = kvbi_copy_complete_cancelled_locked(&e->queue, completions, max);
    kvbi_lock_release(&e->queue.lock);
    uint32_t landed = 0;
    while (!e->threads && count + landed < max &&
           (landed == 0 || kvbi_clock_now(e->clock) < until_ns) && move_next(e))
        landed++;
    count += kvbi_disk_hasher_end(&e->hasher, completions + count, max - count);
    kvbi_lock_take(&e->queue.lock);
    *more = ready_locked(e);
    if (e->threads && !*more)
        (void)kvbi_wake_drain(&e->wake);
    kvbi_lock_release(&e->queue.lock);
    return count;
}

static int posix_wake_fd(struct kvbi_engine *engine)
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
    kvbi_disk_hasher_cancel_locked(&e->hasher);
    while (e->active > 0)
        kvbi_cond_wait(&e->idle, &e->queue.lock);
    kvbi_disk_hasher_drain_locked(&e->hasher);
    if (e->threads && ready_locked(e))
        kvbi_wake_signal(&e->wake);
    kvbi_lock_release(&e->queue.lock);
}

static bool posix_signal(struct kvbi_engine *engine)
{
    struct posix_engine *e = of(engine);
    if (kvbi_fork_guard_is_child(&e->guard))
        return false;
    bool reached = kvbi_copy_queue_signal(&e->queue);
    if (reached)
        kvbi_cond_broadcast(&e->work);
    return reached;
}

static bool posix_recall(struct kvbi_engine *engine, uint32_t place, uint64_t cookie)
{
    if (kvbi_fork_guard_is_child(&of(engine)->guard))
        return false;
    return kvbi_copy_queue_recall(&of(engine)->queue, place, cookie);
}

static size_t posix_bytes(const struct kvbi_engine *engine)
{
    const struct posix_engine *e = (const struct posix_engine *)(const void *)engine;
    size_t bytes =
        sizeof *e + kvbi_copy_queue_bytes(&e->queue) + kvbi_disk_hasher_bytes(&e->hasher);
    for (uint32_t i = 0; i < e->worker_count; i++)
        if (e->workers[i].buffer != NULL)
            bytes += (size_t)kvbi_disk_piece_max(e->disk);
    return bytes;
}

/* ---- Create and destroy ---------------------------------------------------------------------- */

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
    kvbi_wake_destroy(&e->wake);
    kvbi_fork_guard_destroy(&e->guard);
    kvbi_memory_free(&memory, e, 1, sizeof *e);
}

static void posix_destroy(struct kvbi_engine *engine)
{
    struct posix_engine *e = of(engine);
    if (kvbi_fork_guard_is_child(&e->guard)) {
        /* it has neither the threads nor whoever held the lock */
        kvbi_disk_hasher_destroy(&e->hasher, true);
        kvbi_memory_free(&e->memory, e->queue.items, e->queue.capacity, sizeof *e->queue.items);
        free_memory(e);
        return;
    }
    stop_threads(e);
    kvbi_disk_hasher_destroy(&e->hasher, false);
    kvbi_cond_fini(&e->idle);
    kvbi_cond_fini(&e->work);
    kvbi_copy_queue_destroy(&e->queue);
    free_memory(e);
}

static const struct kvbi_engine_ops ops = {.name = "posix",
                                           .destroy = posix_destroy,
                                           .submit = posix_submit,
                                           .reap = posix_reap,
                                           .wake_fd = posix_wake_fd,
                                           .ready = posix_ready,
                                           .drain = posix_drain,
                                           .signal = posix_signal,
                                           .recall = posix_recall,
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
        error =
            kvbi_thread_start(&e->workers[i].thread, "kvblock disk", run_worker, &e->workers[i]);
        e->workers[i].started = error == 0;
    }
    return error;
}

int kvbi_engine_posix_create(struct kvbi_engine **engine, const struct kvbi_memory *memory,
                             struct kvbi_clock *clock, const struct kvbi_disk_engine_config *config)
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
    e->worker_count = config->poll                      ? 1
                      : threads < KVBI_DISK_THREADS_MAX ? threads
                                                        : KVBI_DISK_THREADS_MAX;
    for (uint32_t i = 0; i < e->worker_count; i++)
        e->workers[i].engine = e;
    kvbi_fork_guard_create_by_pid(&e->guard);
    if (take_buffers(e, config) != 0 || kvbi_fork_guard_create(&e->guard) != 0 ||
        (e->threads && kvbi_wake_create(&e->wake) != 0) ||
        kvbi_copy_queue_create(&e->queue, &e->memory, config->lines, config->capacity) != 0)
        goto free_engine;
    if (kvbi_cond_init(&e->work) != 0)
        goto destroy_queue;
    if (kvbi_cond_init(&e->idle) != 0)
        goto fini_work;
    if (kvbi_disk_hasher_create(&e->hasher, memory, config, &e->queue, tell_locked, e) != 0)
        goto fini_idle;
    if (kvbi_disk_hasher_start(&e->hasher, config) != 0 || start_threads(e) != 0) {
        posix_destroy(&e->engine);
        return KVB_ENOMEM;
    }
    *engine = &e->engine;
    return 0;

fini_idle:
    kvbi_cond_fini(&e->idle);
fini_work:
    kvbi_cond_fini(&e->work);
destroy_queue:
    kvbi_copy_queue_destroy(&e->queue);
free_engine:
    free_memory(e);
    return KVB_ENOMEM;
}
