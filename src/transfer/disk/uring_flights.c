/* SPDX-License-Identifier: Apache-2.0 */
/* uring_flights - see uring_flights.h. */
#include "transfer/disk/uring_flights.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "base/debug.h"

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

/*
 * A ring that refuses to be entered (a sandbox put on later) completes nothing: until then the disk
 * has surely finished.
 */
#define BROKEN_WAIT_NS UINT64_C(5000000000)

static uint64_t real_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* ---- Out ------------------------------------------------------------------------------------- */

static void break_ring(struct kvbi_uring_flights *flights, int error)
{
    KVBI_ASSERT(error != EEXIST); /* another thread than the issuing one: the caller's mistake */
    (void)error;
    flights->broken = true;
    flights->broken_until_ns = real_ns() + BROKEN_WAIT_NS;
}

void kvbi_uring_flights_enable(struct kvbi_uring_flights *flights)
{
    int error = kvbi_uring_ring_enable(&flights->ring);
    if (error != 0)
        break_ring(flights, error);
}

uint32_t kvbi_uring_flights_room(const struct kvbi_uring_flights *flights)
{
    uint32_t places = flights->depth - flights->count;
    uint64_t left =
        flights->limit_bytes > flights->bytes ? flights->limit_bytes - flights->bytes : 0;
    uint64_t pieces = left / flights->piece_bytes;
    if (flights->count == 0 && pieces == 0)
        return 1; /* however large it is */
    return pieces < places ? (uint32_t)pieces : places;
}

static unsigned char *bounce_of(const struct kvbi_uring_flights *flights,
                                const struct kvbi_uring_flight *flight)
{
    return flights->bounce + (size_t)(flight - flights->all) * flights->piece_bytes;
}

/* One I/O on the file of `copy`: into or out of one part of memory, or several. */
static void fill(const struct kvbi_uring_flights *flights, struct io_uring_sqe *sqe,
                 const struct kvbi_disk_copy *copy, uint64_t offset, const struct iovec *parts,
                 uint32_t part_count, int buffer)
{
    int fd = flights->ring.fixed_file ? (int)(copy->slot % flights->disk->file_count)
                                      : copy->file->io.fd;
    unsigned bytes = (unsigned)parts[0].iov_len;
    if (part_count > 1 && copy->write)
        io_uring_prep_writev(sqe, fd, parts, part_count, offset);
    else if (part_count > 1)
        io_uring_prep_readv(sqe, fd, parts, part_count, offset);
    else if (buffer >= 0 && copy->write)
        io_uring_prep_write_fixed(sqe, fd, parts[0].iov_base, bytes, offset, buffer);
    else if (buffer >= 0)
        io_uring_prep_read_fixed(sqe, fd, parts[0].iov_base, bytes, offset, buffer);
    else if (copy->write)
        io_uring_prep_write(sqe, fd, parts[0].iov_base, bytes, offset);
    else
        io_uring_prep_read(sqe, fd, parts[0].iov_base, bytes, offset);
    if (flights->ring.fixed_file)
        io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
}

/* By itself: what is left of its piece. */
static struct io_uring_sqe *prepare(struct kvbi_uring_flights *flights,
                                    struct kvbi_uring_flight *flight)
{
    const struct kvbi_disk_copy *copy = flight->copy;
    const struct kvbi_disk_piece *piece = &flight->piece;
    struct io_uring_sqe *sqe = io_uring_get_sqe(&flights->ring.ring);
    KVBI_ASSERT(sqe != NULL); /* one for each flight */
    unsigned char *at = copy->bounce ? bounce_of(flights, flight) : copy->memory + piece->offset;
    const struct iovec part = {.iov_base = at + piece->done,
                               .iov_len = piece->io_bytes - piece->done};
    int buffer = copy->bounce && flights->ring.fixed_buffers ? (int)flights->ring.bounce_index
                                                             : flight->buffer;
    fill(flights, sqe, copy,
         kvbi_disk_offset(flights->disk, copy->slot) + piece->offset + piece->done, &part, 1,
         buffer);
    io_uring_sqe_set_data64(sqe, (uint64_t)(flight - flights->all));
    flights->prepared_bytes += part.iov_len;
    flights->open.first = flight->next = KVBI_NONE;
    tsan_release(flight);
    return sqe;
}

/* ---- Runs ------------------------------------------------------------------------------------ */

static struct iovec *parts_of(const struct kvbi_uring_flights *flights, uint32_t first)
{
    return flights->parts + (size_t)first * KVBI_URING_RUN_MAX;
}

/* Whole blocks only, as they lie in memory and in the file. */
static bool may_run(const struct kvbi_uring_flights *flights,
                    const struct kvbi_uring_flight *flight)
{
    return flights->parts != NULL && !flight->copy->bounce &&
           flight->piece.io_bytes == flights->disk->slot_bytes &&
           flights->disk->slot_bytes == flights->disk->block_bytes;
}

static bool continues(const struct kvbi_uring_flights *flights,
                      const struct kvbi_uring_flight *flight)
{
    const struct kvbi_uring_run *run = &flights->open;
    if (run->first == KVBI_NONE || run->count == KVBI_URING_RUN_MAX ||
        run->bytes + flight->piece.io_bytes > KVBI_DISK_PIECE_BYTES)
        return false;
    const struct kvbi_disk_copy *last = flights->all[run->last].copy;
    return flight->copy->write == last->write &&
           flight->copy->slot == last->slot + flights->disk->file_count;
}

static void begin_run(struct kvbi_uring_flights *flights, const struct kvbi_uring_flight *flight,
                      struct io_uring_sqe *sqe)
{
    uint32_t id = (uint32_t)(flight - flights->all);
    flights->open = (struct kvbi_uring_run){.first = id,
                                            .last = id,
                                            .count = 1,
                                            .part_count = 1,
                                            .bytes = flight->piece.io_bytes,
                                            .sqe = sqe};
    *parts_of(flights, id) =
        (struct iovec){.iov_base = flight->copy->memory, .iov_len = flight->piece.io_bytes};
}

/* The request that is prepared already moves this flight's block too. */
static void join_run(struct kvbi_uring_flights *flights, struct kvbi_uring_flight *flight)
{
    struct kvbi_uring_run *run = &flights->open;
    struct iovec *parts = parts_of(flights, run->first), *part = &parts[run->part_count - 1];
    struct kvbi_uring_flight *last = &flights->all[run->last];
    const struct kvbi_disk_copy *first = flights->all[run->first].copy;
    uint32_t bytes = flight->piece.io_bytes;
    if ((unsigned char *)part->iov_base + part->iov_len == flight->copy->memory &&
        flight->buffer == last->buffer)
        part->iov_len += bytes;
    else
        parts[run->part_count++] =
            (struct iovec){.iov_base = flight->copy->memory, .iov_len = bytes};
    fill(flights, run->sqe, first, kvbi_disk_offset(flights->disk, first->slot), parts,
         run->part_count, last->buffer);
    io_uring_sqe_set_data64(run->sqe, run->first);
    flights->prepared_bytes += bytes;
    flight->next = KVBI_NONE;
    last->next = run->last = (uint32_t)(flight - flights->all);
    run->count++;
    run->bytes += bytes;
    tsan_release(flight);
}

uint32_t kvbi_uring_flights_launch(struct kvbi_uring_flights *flights, struct kvbi_disk_copy *copy,
                                   uint64_t offset, uint32_t item, int buffer)
{
    struct kvbi_uring_flight *flight =
        &flights->all[flights->free[flights->depth - ++flights->count]];
    *flight = (struct kvbi_uring_flight){.copy = copy,
                                         .piece = kvbi_disk_piece_at(copy, offset),
                                         .item = item,
                                         .buffer = buffer,
                                         .used = true};
    flights->bytes += flight->piece.io_bytes;
    if (copy->write && copy->bounce)
        kvbi_disk_bounce_out(copy, &flight->piece, bounce_of(flights, flight));
    bool runs = may_run(flights, flight);
    if (runs && continues(flights, flight)) {
        join_run(flights, flight);
        return flight->piece.payload_bytes;
    }
    struct io_uring_sqe *sqe = prepare(flights, flight);
    if (runs)
        begin_run(flights, flight, sqe);
    return flight->piece.payload_bytes;
}

bool kvbi_uring_flights_idle(const struct kvbi_uring_flights *flights, uint32_t count)
{
    return flights->prepared_bytes == flights->bytes &&
           io_uring_sq_ready(&flights->ring.ring) >= count;
}

void kvbi_uring_flights_enter(struct kvbi_uring_flights *flights, bool wait)
{
    struct io_uring *ring = &flights->ring.ring;
    int result = 0;
    if (flights->broken || flights->count == 0)
        return;
    flights->open.first = KVBI_NONE;
    do
        result = wait ? io_uring_submit_and_wait(ring, 1) : io_uring_submit_and_get_events(ring);
    while (result == -EINTR);
    /*
     * Short of memory, or completions have to be taken first: what was not taken is handed over
     * next time.
     */
    if (io_uring_sq_ready(ring) == 0)
        flights->prepared_bytes = 0;
    if (result < 0 && result != -EAGAIN && result != -EBUSY)
        break_ring(flights, -result);
}

/* ---- In -------------------------------------------------------------------------------------- */

static void end(struct kvbi_uring_flights *flights, struct kvbi_uring_flight *flight)
{
    flight->used = false;
    flights->bytes -= flight->piece.io_bytes;
    flights->free[flights->depth - flights->count--] = (uint32_t)(flight - flights->all);
}

/* True: over, with *error; false: handed over again. */
static bool take_result(struct kvbi_uring_flights *flights, struct kvbi_uring_flight *flight,
                        int64_t result, int *error)
{
    int outcome = kvbi_disk_piece_advance(flight->copy, &flight->piece, result, flights->hooks);
    if (outcome == 0 && !flights->broken) {
        (void)prepare(flights, flight);
        return false;
    }
    *error = outcome > 0 ? 0 : outcome < 0 ? outcome : KVB_EIO;
    if (*error == 0 && !flight->copy->write && flight->copy->bounce)
        kvbi_disk_bounce_in(flight->copy, &flight->piece, bounce_of(flights, flight));
    end(flights, flight);
    return true;
}

/* The same of one flight of a run. */
static bool take_from_run(struct kvbi_uring_flights *flights, struct kvbi_uring_flight *flight,
                          int *error)
{
    if (flights->landing_whole)
        return take_result(flights, flight, flight->piece.io_bytes, error);
    *error = KVB_EIO;
    if (flights->broken)
        end(flights, flight);
    else
        (void)prepare(flights, flight);
    return flights->broken;
}

static void land_run(struct kvbi_uring_flights *flights, uint32_t first, int64_t result)
{
    int64_t bytes = 0;
    for (uint32_t id = first; id != KVBI_NONE; id = flights->all[id].next)
        bytes += flights->all[id].piece.io_bytes;
    flights->landing = first;
    flights->landing_whole = result == bytes;
}

static bool give_up_one(struct kvbi_uring_flights *flights, uint32_t *item, int *error)
{
    uint32_t i = 0;
    if (!flights->broken || flights->count == 0 || real_ns() < flights->broken_until_ns)
        return false;
    while (!flights->all[i].used)
        i++;
    *item = flights->all[i].item;
    *error = KVB_EIO;
    end(flights, &flights->all[i]);
    return true;
}

/*
 * The next flight of a run that has come back, or of the next completion. NULL: none. *result: of
 * one that flew alone.
 */
static struct kvbi_uring_flight *next_landed(struct kvbi_uring_flights *flights, bool *alone,
                                             int64_t *result)
{
    struct io_uring *ring = &flights->ring.ring;
    struct io_uring_cqe *cqe;
    *alone = false;
    if (flights->landing == KVBI_NONE) {
        if (io_uring_cq_ready(ring) == 0 || io_uring_peek_cqe(ring, &cqe) != 0)
            return NULL;
        uint32_t first = (uint32_t)cqe->user_data;
        *result = cqe->res;
        io_uring_cqe_seen(ring, cqe);
        *alone = flights->all[first].next == KVBI_NONE;
        if (*alone)
            return &flights->all[first];
        land_run(flights, first, *result);
    }
    struct kvbi_uring_flight *flight = &flights->all[flights->landing];
    flights->landing = flight->next;
    return flight;
}

bool kvbi_uring_flights_next(struct kvbi_uring_flights *flights, uint32_t *item, int *error)
{
    struct kvbi_uring_flight *flight;
    bool alone;
    int64_t result;
    while ((flight = next_landed(flights, &alone, &result)) != NULL) {
        if (!flight->used)
            continue; /* given up, and now a broken ring speaks after all */
        tsan_acquire(flight);
        *item = flight->item;
        if (alone ? take_result(flights, flight, result, error)
                  : take_from_run(flights, flight, error))
            return true;
    }
    return give_up_one(flights, item, error);
}

bool kvbi_uring_flights_pending(const struct kvbi_uring_flights *flights)
{
    const struct io_uring *ring = &flights->ring.ring;
    return IO_URING_READ_ONCE(*ring->cq.khead) != io_uring_smp_load_acquire(ring->cq.ktail) ||
           kvbi_uring_ring_has_task_work(&flights->ring);
}

/* ---- Create and destroy ---------------------------------------------------------------------- */

/* How much may be in flight, and the arrays for it. */
static int take_memory(struct kvbi_uring_flights *flights,
                       const struct kvbi_disk_engine_config *config)
{
    bool bounces = false;
    for (uint32_t i = 0; i < config->memory_count; i++)
        bounces |= kvbi_disk_bounces(flights->disk, config->memories[i]);
    flights->piece_bytes = kvbi_disk_piece_max(flights->disk);
    flights->limit_bytes =
        config->inflight_bytes != 0 ? config->inflight_bytes : KVBI_DISK_INFLIGHT_BYTES;
    flights->depth =
        config->inflight_count != 0 ? config->inflight_count : KVBI_DISK_INFLIGHT_COUNT;
    if (flights->depth > flights->limit_bytes / flights->piece_bytes)
        flights->depth = flights->limit_bytes > flights->piece_bytes
                             ? (uint32_t)(flights->limit_bytes / flights->piece_bytes)
                             : 1;
    flights->all = kvbi_memory_alloc(&flights->memory, flights->depth, sizeof *flights->all, 0);
    flights->free =
        kvbi_memory_alloc_raw(&flights->memory, flights->depth, sizeof *flights->free, 0);
    if (bounces)
        flights->bounce = kvbi_memory_alloc_raw(&flights->memory, flights->depth,
                                                (size_t)flights->piece_bytes, KVBI_DISK_ALIGN);
    bool runs = flights->piece_bytes * 2 <= KVBI_DISK_PIECE_BYTES;
    if (runs)
        flights->parts = kvbi_memory_alloc_raw(&flights->memory, flights->depth,
                                               KVBI_URING_RUN_MAX * sizeof *flights->parts, 0);
    if (flights->all == NULL || flights->free == NULL || (bounces && flights->bounce == NULL) ||
        (runs && flights->parts == NULL))
        return KVB_ENOMEM;
    for (uint32_t i = 0; i < flights->depth; i++)
        flights->free[i] = i;
    return 0;
}

int kvbi_uring_flights_create(struct kvbi_uring_flights *flights, const struct kvbi_memory *memory,
                              const struct kvbi_disk_engine_config *config, char *why)
{
    *flights = (struct kvbi_uring_flights){.memory = *memory,
                                           .hooks = config->hooks,
                                           .disk = config->disk,
                                           .open = {.first = KVBI_NONE},
                                           .landing = KVBI_NONE,
                                           .ring = {.ring = {.ring_fd = -1}, .wake = {.fd = -1}}};
    (void)snprintf(why, KVBI_ENGINE_SAID_BYTES, "no memory");
    int error = take_memory(flights, config);
    if (error == 0)
        error =
            kvbi_uring_ring_open(&flights->ring, memory, config, flights->depth, flights->bounce,
                                 (size_t)(flights->depth * flights->piece_bytes), why);
    if (error != 0)
        kvbi_uring_flights_destroy(flights, false);
    return error;
}

void kvbi_uring_flights_destroy(struct kvbi_uring_flights *flights, bool in_child)
{
    struct kvbi_memory memory = flights->memory;
    if (flights->all == NULL && flights->free == NULL && flights->bounce == NULL &&
        flights->parts == NULL)
        return;
    kvbi_uring_ring_close(&flights->ring, in_child);
    kvbi_memory_free(&memory, flights->parts, flights->depth,
                     KVBI_URING_RUN_MAX * sizeof *flights->parts);
    kvbi_memory_free(&memory, flights->bounce, flights->depth, (size_t)flights->piece_bytes);
    kvbi_memory_free(&memory, flights->free, flights->depth, sizeof *flights->free);
    kvbi_memory_free(&memory, flights->all, flights->depth, sizeof *flights->all);
    *flights = (struct kvbi_uring_flights){.depth = 0};
}

size_t kvbi_uring_flights_bytes(const struct kvbi_uring_flights *flights)
{
    return flights->depth * (sizeof *flights->all + sizeof *flights->free) +
           (flights->parts != NULL ? flights->depth * KVBI_URING_RUN_MAX * sizeof *flights->parts
                                   : 0) +
           (flights->bounce != NULL ? (size_t)(flights->depth * flights->piece_bytes) : 0);
}
