/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine_uring - memory to disk and back through io_uring
 *
 * Owns       one ring; `depth` flights (I/Os in the ring's hands) with a bounce buffer each where direct I/O needs one; what it
 *            knows of each begun block.
 * Callers    see engine.h. No thread of its own: the disk works by itself, the checksums are made in submit and reap.
 * Invariants at most `depth` flights and `inflight_bytes` in flight, so neither queue of the ring can overflow; a block is in
 *            `landed` once none of its flights is left and no further one is to come. Of each class (urgent or not) at most one
 *            block has flights both under way and to come: `issuing`. While the ring is full the next ones are begun and
 *            `staged`, so that room never waits for a checksum (writes of 64 KiB: 1.0 of a bare ring, 0.87 without); for drain
 *            they have not begun. The ring is filled up whenever a completion was taken from it, and again while checksums of
 *            what has landed are compared: it is never drained between batches.
 *            No buffer is given back before its flight is over: direct I/O in flight cannot be cancelled.
 * Lock       the queue's, for the queue's lists, `landed`, `staged` and `full`; everything else is the issuing thread's. No
 *            system call and no checksum under it.
 * Why        adjacent slots are not one I/O: each block has a checksum and a result of its own, and at 64 KiB depth makes up for
 *            size. No SQPOLL and no IOPOLL: no gain in throughput, 10 to 100 times the CPU (Linux 6.18, virtio disk).
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <time.h>

#include "base/clock.h"
#include "base/debug.h"
#include "base/platform.h"

#include "transfer/disk_copy.h"
#include "transfer/disk_engine.h"
#include "transfer/ticket_queue.h"
#include "transfer/uring_ring.h"

/* TSan does not see that the kernel orders what comes out of a ring behind what went in. */
#if defined(__SANITIZE_THREAD__)
#define KVBI_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define KVBI_TSAN 1
#endif
#endif
#if defined(KVBI_TSAN)
void __tsan_acquire(void *address);
void __tsan_release(void *address);
#define tsan_acquire(address) __tsan_acquire(address)
#define tsan_release(address) __tsan_release(address)
#else
#define tsan_acquire(address) ((void)(address))
#define tsan_release(address) ((void)(address))
#endif

/* A ring that refuses to be entered (a sandbox put on later) completes nothing: until then the disk has surely finished. */
#define BROKEN_WAIT_NS UINT64_C(5000000000)

struct block {
    struct kvbi_disk_copy state;
    uint64_t issued; /* payload bytes for which flights have begun */
    uint32_t flights;
    int error;
    int buffer; /* registered buffer of its memory, or -1 */
};

struct flight {
    struct kvbi_disk_piece piece;
    uint32_t item;
    bool used;
};

struct uring_engine {
    struct kvbi_engine engine;
    struct kvbi_memory memory;
    struct kvbi_clock *clock;
    const struct kvbi_hooks *hooks;
    struct kvbi_disk *disk;
    struct kvbi_fork_guard guard;
    struct kvbi_uring_ring ring;
    struct block *blocks; /* by item */
    struct flight *flights;
    uint32_t *free_flights; /* a stack of depth - flying */
    unsigned char *bounce;  /* depth x piece_bytes, or NULL */
    uint64_t piece_bytes, limit_bytes, flying_bytes, prepared_bytes;
    uint32_t depth, flying;
    uint32_t issuing[2]; /* by urgent: an item, or KVBI_NONE */
    bool broken;
    uint64_t broken_until_ns;

    struct kvbi_ticket_queue queue;
    struct kvbi_ticket_list landed;
    struct kvbi_ticket_list staged[2]; /* by urgent */
    bool full;                         /* nothing more can be begun now */
};

static struct uring_engine *of(struct kvbi_engine *engine)
{
    return (struct uring_engine *)(void *)engine; /* its first member */
}

static uint64_t real_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* ---- The ring ----------------------------------------------------------------------------------------------------- */

static void break_ring(struct uring_engine *e, int error)
{
    KVBI_ASSERT(error != EEXIST); /* another thread than the issuing one: the caller's mistake */
    (void)error;
    e->broken = true;
    e->broken_until_ns = real_ns() + BROKEN_WAIT_NS;
}

/* Hands over what is prepared and lets completions be posted; `wait`: at least one. */
static void enter(struct uring_engine *e, bool wait)
{
    int result = 0;
    if (e->broken || e->flying == 0)
        return;
    e->prepared_bytes = 0;
    do
        result = wait ? io_uring_submit_and_wait(&e->ring.ring, 1) : io_uring_submit_and_get_events(&e->ring.ring);
    while (result == -EINTR);
    /* Short of memory, or completions have to be taken first: what was not taken is handed over next time. */
    if (result < 0 && result != -EAGAIN && result != -EBUSY)
        break_ring(e, -result);
}

static unsigned char *bounce_of(const struct uring_engine *e, uint32_t index)
{
    return e->bounce + index * e->piece_bytes;
}

static void prepare(struct uring_engine *e, uint32_t index)
{
    struct flight *flight = &e->flights[index];
    const struct block *block = &e->blocks[flight->item];
    const struct kvbi_disk_copy *state = &block->state;
    const struct kvbi_disk_piece *piece = &flight->piece;
    struct io_uring_sqe *sqe = io_uring_get_sqe(&e->ring.ring);
    KVBI_ASSERT(sqe != NULL); /* one for each flight */
    unsigned char *at = (state->bounce ? bounce_of(e, index) : state->memory + piece->offset) + piece->done;
    uint64_t offset = kvbi_disk_offset(e->disk, state->slot) + piece->offset + piece->done;
    unsigned bytes = piece->io_bytes - piece->done;
    int fd = e->ring.fixed_file ? 0 : e->disk->file.fd;
    int buffer = state->bounce && e->ring.fixed_buffers ? (int)e->ring.bounce_index : block->buffer;
    if (buffer >= 0 && state->write)
        io_uring_prep_write_fixed(sqe, fd, at, bytes, offset, buffer);
    else if (buffer >= 0)
        io_uring_prep_read_fixed(sqe, fd, at, bytes, offset, buffer);
    else if (state->write)
        io_uring_prep_write(sqe, fd, at, bytes, offset);
    else
        io_uring_prep_read(sqe, fd, at, bytes, offset);
    if (e->ring.fixed_file)
        io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
    io_uring_sqe_set_data64(sqe, index);
    e->prepared_bytes += bytes;
    tsan_release(flight);
}

/* ---- Blocks into flights ------------------------------------------------------------------------------------------ */

static bool has_room(const struct uring_engine *e)
{
    if (e->flying == 0)
        return true;
    return e->flying < e->depth && e->flying_bytes + e->piece_bytes <= e->limit_bytes;
}

static void land(struct uring_engine *e, uint32_t item)
{
    kvbi_lock_take(&e->queue.lock);
    kvbi_ticket_push_locked(&e->queue, &e->landed, item);
    kvbi_lock_release(&e->queue.lock);
}

/* Fault hooks and, for a write, the checksum: what may take its time. */
static void begin(struct uring_engine *e, uint32_t item)
{
    struct block *block = &e->blocks[item];
    const struct kvbi_copy *copy = &e->queue.items[item].copy;
    *block = (struct block){.buffer = -1};
    block->error = kvbi_disk_copy_begin(&block->state, copy, e->hooks);
    if (!block->state.bounce)
        block->buffer = kvbi_uring_buffer_of(&e->ring, block->state.write ? copy->from : copy->to,
                                             block->state.write ? copy->from_slot : copy->to_slot);
    if (block->error == 0 && e->broken)
        block->error = KVB_EIO;
}

/* A block with flights to come, urgent ones first; it may have to be begun. KVBI_NONE: none is ready. */
static uint32_t next_locked(struct uring_engine *e, bool begun_only, bool *fresh)
{
    kvbi_ticket_promote_locked(&e->queue);
    for (int urgent = 1; urgent >= 0; urgent--) {
        *fresh = false;
        if (e->issuing[urgent] != KVBI_NONE)
            return e->issuing[urgent];
        if (begun_only)
            continue;
        *fresh = e->staged[urgent].count == 0;
        struct kvbi_ticket_list *list = *fresh ? &e->queue.ready[urgent] : &e->staged[urgent];
        if (list->count > 0)
            return kvbi_ticket_pop_locked(&e->queue, list);
    }
    return KVBI_NONE;
}

static uint32_t next_block(struct uring_engine *e, bool begun_only)
{
    bool fresh = false;
    kvbi_lock_take(&e->queue.lock);
    uint32_t item = next_locked(e, begun_only, &fresh);
    kvbi_lock_release(&e->queue.lock);
    if (item != KVBI_NONE && fresh) {
        /* a checksum takes a while: the disk works meanwhile. Otherwise one entry for all: each wakes the device anew */
        if (e->prepared_bytes >= KVBI_DISK_PIECE_BYTES && e->queue.items[item].copy.to->disk != NULL)
            enter(e, false);
        begin(e, item);
    }
    return item;
}

/*
 * While the ring is full: begins blocks of which flights can follow at once when there is room. About one piece's worth, so that
 * completions are looked at in between. False: nothing to do.
 */
static bool stage(struct uring_engine *e)
{
    uint64_t bytes = 0;
    while (bytes < KVBI_DISK_PIECE_BYTES) {
        uint32_t item = KVBI_NONE;
        kvbi_lock_take(&e->queue.lock);
        uint64_t staged = (e->staged[0].count + e->staged[1].count) * e->disk->block_bytes;
        struct kvbi_ticket_list *ready = kvbi_ticket_next_locked(&e->queue);
        bool urgent = ready == &e->queue.ready[1];
        if (e->full && ready->count > 0 && (staged == 0 || staged + e->disk->block_bytes <= e->limit_bytes))
            item = kvbi_ticket_pop_locked(&e->queue, ready);
        kvbi_lock_release(&e->queue.lock);
        if (item == KVBI_NONE)
            return bytes > 0;
        begin(e, item);
        kvbi_lock_take(&e->queue.lock);
        kvbi_ticket_push_locked(&e->queue, e->blocks[item].error != 0 ? &e->landed : &e->staged[urgent], item);
        kvbi_lock_release(&e->queue.lock);
        bytes += e->disk->block_bytes;
    }
    return true;
}

static void launch(struct uring_engine *e, uint32_t item)
{
    struct block *block = &e->blocks[item];
    uint32_t index = e->free_flights[e->depth - ++e->flying];
    struct flight *flight = &e->flights[index];
    *flight = (struct flight){.piece = kvbi_disk_piece_at(&block->state, block->issued), .item = item, .used = true};
    block->issued += flight->piece.payload_bytes;
    block->flights++;
    e->flying_bytes += flight->piece.io_bytes;
    if (block->state.write && block->state.bounce)
        kvbi_disk_bounce_out(&block->state, &flight->piece, bounce_of(e, index));
    prepare(e, index);
}

/* As many flights as there is room for. begun_only: no block that has none yet. */
static void refill(struct uring_engine *e, bool begun_only)
{
    bool room = has_room(e);
    while (room) {
        uint32_t item = next_block(e, begun_only);
        if (item == KVBI_NONE)
            break;
        struct block *block = &e->blocks[item];
        bool urgent = e->queue.items[item].urgent;
        if (e->broken && block->error == 0)
            block->error = KVB_EIO; /* staged before the ring broke: nothing more goes into it */
        if (block->error == 0)
            launch(e, item);
        else if (block->flights == 0)
            land(e, item); /* else its last flight does */
        e->issuing[urgent] = block->error == 0 && block->issued < e->disk->block_bytes ? item : KVBI_NONE;
        room = has_room(e);
    }
    if (e->prepared_bytes > 0)
        enter(e, false);
    kvbi_lock_take(&e->queue.lock);
    e->full = !room;
    kvbi_lock_release(&e->queue.lock);
}

/* ---- Flights into blocks ------------------------------------------------------------------------------------------ */

static void end_flight(struct uring_engine *e, uint32_t index, int error)
{
    struct flight *flight = &e->flights[index];
    struct block *block = &e->blocks[flight->item];
    bool urgent = e->queue.items[flight->item].urgent;
    if (error == 0 && !block->state.write && block->state.bounce)
        kvbi_disk_bounce_in(&block->state, &flight->piece, bounce_of(e, index));
    if (error != 0 && block->error == 0)
        block->error = error;
    if (block->error != 0 && e->issuing[urgent] == flight->item)
        e->issuing[urgent] = KVBI_NONE; /* the rest of it is not worth an I/O */
    flight->used = false;
    e->flying_bytes -= flight->piece.io_bytes;
    e->free_flights[e->depth - e->flying--] = index;
    if (--block->flights == 0 && (block->error != 0 || block->issued == e->disk->block_bytes))
        land(e, flight->item);
}

static void take_result(struct uring_engine *e, uint32_t index, int64_t result)
{
    struct flight *flight = &e->flights[index];
    const struct block *block = &e->blocks[flight->item];
    tsan_acquire(flight);
    int outcome = kvbi_disk_piece_advance(&block->state, &flight->piece, result, e->hooks);
    if (outcome == 0 && e->broken)
        outcome = KVB_EIO;
    if (outcome == 0)
        prepare(e, index);
    else
        end_flight(e, index, outcome > 0 ? 0 : outcome);
}

static void give_up_if_broken(struct uring_engine *e)
{
    if (!e->broken || e->flying == 0 || real_ns() < e->broken_until_ns)
        return;
    for (uint32_t i = 0; i < e->depth; i++)
        if (e->flights[i].used)
            end_flight(e, i, KVB_EIO);
}

/* Takes what the ring has posted. */
static void harvest(struct uring_engine *e)
{
    struct io_uring_cqe *cqe;
    unsigned head, count = 0;
    io_uring_for_each_cqe(&e->ring.ring, head, cqe)
    {
        take_result(e, (uint32_t)cqe->user_data, cqe->res);
        count++;
    }
    io_uring_cq_advance(&e->ring.ring, count);
    give_up_if_broken(e);
}

/* One turn: what has come in is taken, what fits goes out. */
static void turn(struct uring_engine *e)
{
    do {
        do {
            enter(e, false);
            harvest(e);
        } while (!e->broken && e->flying > 0 && kvbi_uring_ring_deferred(&e->ring));
        refill(e, false);
    } while (stage(e));
}

/* ---- The interface ------------------------------------------------------------------------------------------------ */

static int uring_submit(struct kvbi_engine *engine, const struct kvbi_copy *copies, uint32_t count, bool urgent)
{
    struct uring_engine *e = of(engine);
    if (kvbi_fork_guard_is_child(&e->guard))
        return KVB_EFORK;
    int result = kvbi_ticket_queue_submit(&e->queue, copies, count, urgent);
    if (result != 0 || count == 0)
        return result;
    int error = kvbi_uring_ring_enable(&e->ring);
    if (error != 0)
        break_ring(e, error);
    refill(e, false);
    return 0;
}

/* Compares and completes what has landed; keeps the ring filled meanwhile. */
static uint32_t complete_landed(struct uring_engine *e, struct kvbi_completion *completions, uint32_t max,
                                uint64_t until_ns)
{
    uint64_t bytes = 0;
    uint32_t count = 0, item = KVBI_NONE;
    for (bool time_left = true; time_left && count < max; time_left = kvbi_clock_now(e->clock) < until_ns) {
        kvbi_lock_take(&e->queue.lock);
        if (item != KVBI_NONE)
            kvbi_ticket_push_locked(&e->queue, &e->queue.free, item);
        item = e->landed.count > 0 ? kvbi_ticket_pop_locked(&e->queue, &e->landed) : KVBI_NONE;
        kvbi_lock_release(&e->queue.lock);
        if (item == KVBI_NONE)
            return count;
        struct block *block = &e->blocks[item];
        completions[count++] = (struct kvbi_completion){.tag = e->queue.items[item].copy.tag,
                                                        .result = kvbi_disk_copy_end(&block->state, block->error)};
        bytes += e->disk->block_bytes;
        if (bytes >= KVBI_DISK_PIECE_BYTES) {
            bytes = 0;
            turn(e);
        }
    }
    if (item != KVBI_NONE) {
        kvbi_lock_take(&e->queue.lock);
        kvbi_ticket_push_locked(&e->queue, &e->queue.free, item);
        kvbi_lock_release(&e->queue.lock);
    }
    return count;
}

/* Can reap do something that no event of the ring will announce? */
static bool more_locked(struct uring_engine *e)
{
    if (e->landed.count > 0 || e->queue.cancelled.count > 0)
        return true;
    return !e->full && kvbi_ticket_ready_locked(&e->queue);
}

static uint32_t uring_reap(struct kvbi_engine *engine, struct kvbi_completion *completions, uint32_t max,
                           uint64_t until_ns, bool *more)
{
    struct uring_engine *e = of(engine);
    *more = false;
    if (kvbi_fork_guard_is_child(&e->guard))
        return 0;
    kvbi_lock_take(&e->queue.lock);
    uint32_t count = kvbi_ticket_complete_cancelled_locked(&e->queue, completions, max);
    kvbi_lock_release(&e->queue.lock);
    kvbi_uring_ring_attend(&e->ring); /* before looking: what comes later announces itself anew */
    turn(e);
    count += complete_landed(e, completions + count, max - count, until_ns);
    kvbi_lock_take(&e->queue.lock);
    *more = more_locked(e);
    kvbi_lock_release(&e->queue.lock);
    *more |= e->flying > 0 && (e->broken || io_uring_sq_ready(&e->ring.ring) > 0 || kvbi_uring_ring_deferred(&e->ring));
    return count;
}

static int uring_event_fd(struct kvbi_engine *engine)
{
    return kvbi_uring_ring_fd(&of(engine)->ring);
}

static bool uring_ready(struct kvbi_engine *engine)
{
    struct uring_engine *e = of(engine);
    struct pollfd posted = {.fd = kvbi_uring_ring_fd(&e->ring), .events = POLLIN};
    if (kvbi_fork_guard_is_child(&e->guard))
        return false;
    kvbi_lock_take(&e->queue.lock);
    bool more = more_locked(e);
    kvbi_lock_release(&e->queue.lock);
    return more || (poll(&posted, 1, 0) == 1 && (posted.revents & POLLIN) != 0);
}

static void uring_drain(struct kvbi_engine *engine)
{
    struct uring_engine *e = of(engine);
    const struct timespec nap = {.tv_nsec = 1000000};
    if (kvbi_fork_guard_is_child(&e->guard))
        return;
    kvbi_lock_take(&e->queue.lock);
    kvbi_ticket_append_locked(&e->queue, &e->queue.cancelled, &e->staged[1]);
    kvbi_ticket_append_locked(&e->queue, &e->queue.cancelled, &e->staged[0]);
    kvbi_ticket_cancel_locked(&e->queue);
    kvbi_lock_release(&e->queue.lock);
    for (refill(e, true); e->flying > 0; refill(e, true)) {
        if (e->broken)
            (void)nanosleep(&nap, NULL);
        enter(e, true);
        harvest(e);
    }
}

static int uring_import(struct kvbi_engine *engine, const struct kvb_fence *fence, uint64_t *ticket)
{
    (void)engine;
    return kvbi_ticket_import(fence, ticket);
}

static bool uring_signal(struct kvbi_engine *engine, uint64_t value)
{
    struct uring_engine *e = of(engine);
    return !kvbi_fork_guard_is_child(&e->guard) && kvbi_ticket_signal(&e->queue, value);
}

static size_t uring_bytes(const struct kvbi_engine *engine)
{
    const struct uring_engine *e = (const struct uring_engine *)(const void *)engine;
    return sizeof *e + kvbi_ticket_queue_bytes(&e->queue) + e->queue.capacity * sizeof *e->blocks +
           e->depth * (sizeof *e->flights + sizeof *e->free_flights) +
           (e->bounce != NULL ? (size_t)(e->depth * e->piece_bytes) : 0);
}

/* ---- Create and destroy ------------------------------------------------------------------------------------------- */

static void free_memory(struct uring_engine *e)
{
    struct kvbi_memory memory = e->memory;
    kvbi_memory_free(&memory, e->bounce, e->depth, (size_t)e->piece_bytes);
    kvbi_memory_free(&memory, e->free_flights, e->depth, sizeof *e->free_flights);
    kvbi_memory_free(&memory, e->flights, e->depth, sizeof *e->flights);
    kvbi_memory_free(&memory, e->blocks, e->queue.capacity, sizeof *e->blocks);
    kvbi_fork_guard_destroy(&e->guard);
    kvbi_memory_free(&memory, e, 1, sizeof *e);
}

static void uring_destroy(struct kvbi_engine *engine)
{
    struct uring_engine *e = of(engine);
    bool child = kvbi_fork_guard_is_child(&e->guard);
    if (!child && e->flying > 0)
        uring_drain(engine);
    kvbi_uring_ring_close(&e->ring, child);
    if (child)
        kvbi_memory_free(&e->memory, e->queue.items, e->queue.capacity, sizeof *e->queue.items);
    else
        kvbi_ticket_queue_destroy(&e->queue);
    free_memory(e);
}

static const struct kvbi_engine_ops ops = {.name = "uring",
                                           .destroy = uring_destroy,
                                           .submit = uring_submit,
                                           .reap = uring_reap,
                                           .event_fd = uring_event_fd,
                                           .ready = uring_ready,
                                           .drain = uring_drain,
                                           .import = uring_import,
                                           .signal = uring_signal,
                                           .bytes = uring_bytes};

/* How much may be in flight, and the arrays for it. */
static int take_flights(struct uring_engine *e, const struct kvbi_disk_engine_config *config)
{
    bool bounces = false;
    for (uint32_t i = 0; i < config->memory_count; i++)
        bounces |= kvbi_disk_bounces(e->disk, config->memories[i]);
    e->piece_bytes = kvbi_disk_piece_max(e->disk);
    e->limit_bytes = config->inflight_bytes != 0 ? config->inflight_bytes : KVBI_DISK_INFLIGHT_BYTES;
    e->depth = config->inflight_count != 0 ? config->inflight_count : KVBI_DISK_INFLIGHT_COUNT;
    if (e->depth > e->limit_bytes / e->piece_bytes)
        e->depth = e->limit_bytes > e->piece_bytes ? (uint32_t)(e->limit_bytes / e->piece_bytes) : 1;
    e->flights = kvbi_memory_alloc(&e->memory, e->depth, sizeof *e->flights, 0);
    e->free_flights = kvbi_memory_alloc_raw(&e->memory, e->depth, sizeof *e->free_flights, 0);
    if (bounces)
        e->bounce = kvbi_memory_alloc_raw(&e->memory, e->depth, (size_t)e->piece_bytes, KVBI_DISK_ALIGN);
    if (e->flights == NULL || e->free_flights == NULL || (bounces && e->bounce == NULL))
        return KVB_ENOMEM;
    for (uint32_t i = 0; i < e->depth; i++)
        e->free_flights[i] = i;
    return 0;
}

static int prepare_engine(struct uring_engine *e, const struct kvbi_disk_engine_config *config)
{
    e->blocks = kvbi_memory_alloc_raw(&e->memory, config->capacity, sizeof *e->blocks, 0);
    if (e->blocks == NULL || take_flights(e, config) != 0)
        return KVB_ENOMEM;
    return kvbi_fork_guard_create(&e->guard);
}

int kvbi_engine_uring_create(struct kvbi_engine **engine, const struct kvbi_memory *memory, struct kvbi_clock *clock,
                             const struct kvbi_disk_engine_config *config, char *why)
{
    *engine = NULL;
    (void)snprintf(why, KVBI_DISK_SAID_BYTES, "no memory");
    struct uring_engine *e = kvbi_memory_alloc(memory, 1, sizeof *e, _Alignof(struct uring_engine));
    if (e == NULL)
        return KVB_ENOMEM;
    *e = (struct uring_engine){.engine = {.ops = &ops},
                               .memory = *memory,
                               .clock = clock,
                               .hooks = config->hooks,
                               .disk = config->disk,
                               .ring = {.ring = {.ring_fd = -1}, .wake = {.fd = -1}},
                               .issuing = {KVBI_NONE, KVBI_NONE},
                               .queue = {.capacity = config->capacity}};
    kvbi_fork_guard_create_by_pid(&e->guard);
    int error = prepare_engine(e, config);
    if (error == 0)
        error = kvbi_uring_ring_open(&e->ring, &e->memory, config, e->depth, e->bounce,
                                     (size_t)(e->depth * e->piece_bytes), why);
    if (error == 0)
        error = kvbi_ticket_queue_create(&e->queue, &e->memory, config->capacity);
    if (error == 0) {
        *engine = &e->engine;
        return 0;
    }
    kvbi_uring_ring_close(&e->ring, false);
    free_memory(e);
    return error;
}
