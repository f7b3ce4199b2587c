/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk/engine_uring - memory to disk and back through io_uring
 *
 * Owns       the ring (uring_flights) and which block goes into it next; the rest is disk/hasher's.
 * Callers    see engine.h. No thread of its own: the disk works by itself.
 * Invariants of each class (urgent or not) at most one block, `issuing`, has flights both under way
 *            and to come. A block lands once it has no flight left and none to come. The ring is
 *            filled up before anything is reported, and between checksums: never drained.
 * Lock       the queue's, for its lists and the hasher's; all else is the issuing thread's.
 * Why        no SQPOLL and no IOPOLL: no more throughput, 10 to 100 times the CPU (Linux 6.18).
 */
#include <stdio.h>
#include <time.h>

#include "base/clock.h"
#include "base/platform.h"

#include "transfer/copy_queue.h"
#include "transfer/disk/engine.h"
#include "transfer/disk/hasher.h"
#include "transfer/disk/uring_flights.h"

/* An idle disk gets so many I/Os at once, the rest while it works: handing over 64 costs ten. */
#define FIRST_IOS 8

struct uring_engine {
    struct kvbi_engine engine;
    struct kvbi_memory memory;
    struct kvbi_clock *clock;
    struct kvbi_disk *disk;
    struct kvbi_fork_guard guard;
    struct kvbi_uring_flights flights;
    uint32_t issuing[2]; /* by urgent: an item, or KVBI_NONE */

    struct kvbi_copy_queue queue;
    struct kvbi_disk_hasher hasher;
};

static struct uring_engine *of(struct kvbi_engine *engine)
{
    return (struct uring_engine *)(void *)engine; /* its first member */
}

/* ---- Blocks into flights --------------------------------------------------------------------- */

struct taken {
    uint32_t item;
    bool fresh; /* it is to be begun */
};

static void land(struct uring_engine *e, const uint32_t *items, uint32_t count)
{
    if (count == 0)
        return;
    kvbi_lock_take(&e->queue.lock);
    for (uint32_t i = 0; i < count; i++)
        kvbi_disk_hasher_land_locked(&e->hasher, items[i], false);
    kvbi_lock_release(&e->queue.lock);
}

/*
 * A block with flights to come, urgent ones first. begun_only: none that has no flight yet.
 * KVBI_NONE: none is ready.
 */
static struct taken next_locked(struct uring_engine *e, bool begun_only)
{
    struct taken next = {.item = KVBI_NONE};
    for (int urgent = 1; urgent >= 0 && next.item == KVBI_NONE; urgent--) {
        next = (struct taken){.item = e->issuing[urgent]};
        if (next.item == KVBI_NONE && !begun_only)
            next.item = kvbi_disk_hasher_take_locked(&e->hasher, urgent != 0, &next.fresh);
    }
    return next;
}

/*
 * Blocks of several pieces are taken one by one, and so are those whose checksum is yet to be made:
 * it may be, meanwhile, by the thread. So what is written before the thread has staged anything
 * shares I/Os only if it comes in the order of its slots.
 */
static bool taken_alone(const struct uring_engine *e, struct taken taken)
{
    return e->disk->block_bytes > KVBI_DISK_PIECE_BYTES ||
           (taken.fresh && e->queue.items[taken.item].copy.to->lasting != NULL);
}

/*
 * Blocks for `room` flights at most. Whoever hashes is told whether room was left: of a block taken
 * alone that is asked again at once.
 */
static uint32_t take_blocks(struct uring_engine *e, bool begun_only, struct taken *blocks,
                            uint32_t room)
{
    uint32_t count = 0, max = room < KVBI_DISK_PUBLISH_MAX ? room : KVBI_DISK_PUBLISH_MAX;
    bool alone = false;
    kvbi_lock_take(&e->queue.lock);
    kvbi_copy_promote_locked(&e->queue);
    while (count < max && !alone) {
        blocks[count] = next_locked(e, begun_only);
        if (blocks[count].item == KVBI_NONE)
            break;
        alone = taken_alone(e, blocks[count++]);
    }
    e->hasher.has_room = count < room;
    kvbi_disk_hasher_wake_locked(&e->hasher);
    kvbi_lock_release(&e->queue.lock);
    return count;
}

static void begin(struct uring_engine *e, uint32_t item)
{
    /*
     * a checksum takes a while: the disk works meanwhile. Otherwise one entry for all: each wakes
     * the device anew
     */
    if (e->flights.prepared_bytes >= KVBI_DISK_PIECE_BYTES &&
        e->queue.items[item].copy.to->lasting != NULL)
        kvbi_uring_flights_enter(&e->flights, false);
    kvbi_disk_hasher_begin(&e->hasher, item);
}

static int buffer_of(const struct uring_engine *e, uint32_t item)
{
    const struct kvbi_copy *copy = &e->queue.items[item].copy;
    const struct kvbi_disk_copy *state = &e->hasher.blocks[item].copy;
    if (state->bounce)
        return -1;
    return kvbi_uring_buffer_of(&e->flights.ring, state->write ? copy->from : copy->to,
                                state->write ? copy->from_slot : copy->to_slot);
}

/* The block's next flight, unless it has failed: then it lands, now or with its last flight. */
static void launch(struct uring_engine *e, uint32_t item)
{
    struct kvbi_disk_block *block = &e->hasher.blocks[item];
    bool urgent = e->queue.items[item].urgent;
    if (e->flights.broken && block->error == 0)
        block->error = KVB_EIO;
    if (block->error == 0) {
        block->issued += kvbi_uring_flights_launch(&e->flights, &block->copy, block->issued, item,
                                                   buffer_of(e, item));
        block->flights++;
    } else if (block->flights == 0) {
        land(e, &item, 1);
    }
    e->issuing[urgent] =
        block->error == 0 && block->issued < e->disk->block_bytes ? item : KVBI_NONE;
}

/* Where a block lies: by direction, file and place in it. */
static uint64_t place_of(const struct uring_engine *e, uint32_t item)
{
    const struct kvbi_copy *copy = &e->queue.items[item].copy;
    bool write = copy->to->lasting != NULL;
    uint32_t slot = write ? copy->to_slot : copy->from_slot;
    uint64_t file = slot % e->disk->file_count;
    return (uint64_t)write << 63 | file << 32 | kvbi_disk_place_of(e->disk, slot);
}

/*
 * Neighbours in a file one after the other: they share an I/O. All go in one entry, so none loses
 * more than the time of its I/O.
 */
static void sort_by_place(const struct uring_engine *e, struct taken *blocks, uint32_t count)
{
    uint64_t places[KVBI_DISK_PUBLISH_MAX];
    for (uint32_t i = 0; i < count; i++) {
        const struct taken moved = blocks[i];
        uint64_t place = place_of(e, moved.item);
        uint32_t at = i;
        for (; at > 0 && places[at - 1] > place; at--) {
            places[at] = places[at - 1];
            blocks[at] = blocks[at - 1];
        }
        places[at] = place;
        blocks[at] = moved;
    }
}

/* As many flights as there is room for. begun_only: no block that has none yet. */
static void refill(struct uring_engine *e, bool begun_only)
{
    struct taken blocks[KVBI_DISK_PUBLISH_MAX];
    uint32_t count;
    do {
        count = take_blocks(e, begun_only, blocks, kvbi_uring_flights_room(&e->flights));
        if (count > 1)
            sort_by_place(e, blocks, count);
        for (uint32_t i = 0; i < count; i++) {
            if (blocks[i].fresh)
                begin(e, blocks[i].item);
            launch(e, blocks[i].item);
            if (kvbi_uring_flights_idle(&e->flights, FIRST_IOS))
                kvbi_uring_flights_enter(&e->flights, false);
        }
    } while (count > 0 && kvbi_uring_flights_room(&e->flights) > 0);
    if (e->flights.prepared_bytes > 0)
        kvbi_uring_flights_enter(&e->flights, false);
}

/* ---- Flights into blocks --------------------------------------------------------------------- */

/* True: it was the block's last one. */
static bool end_flight(struct uring_engine *e, uint32_t item, int error)
{
    struct kvbi_disk_block *block = &e->hasher.blocks[item];
    bool urgent = e->queue.items[item].urgent;
    if (error != 0 && block->error == 0)
        block->error = error;
    if (block->error != 0 && e->issuing[urgent] == item)
        e->issuing[urgent] = KVBI_NONE; /* the rest of it is not worth an I/O */
    return --block->flights == 0 && (block->error != 0 || block->issued == e->disk->block_bytes);
}

static void harvest(struct uring_engine *e)
{
    uint32_t landed[KVBI_DISK_PUBLISH_MAX], count = 0, item;
    int error;
    while (kvbi_uring_flights_next(&e->flights, &item, &error)) {
        if (end_flight(e, item, error))
            landed[count++] = item;
        if (count == KVBI_DISK_PUBLISH_MAX) {
            land(e, landed, count);
            count = 0;
        }
    }
    land(e, landed, count);
}

/* One pass: what has come in is taken, all of it first, then what fits goes out in one entry. */
static void turn(struct uring_engine *e)
{
    do {
        if (kvbi_uring_flights_pending(&e->flights) || e->flights.prepared_bytes > 0)
            kvbi_uring_flights_enter(&e->flights, false);
        harvest(e);
    } while (!e->flights.broken && e->flights.count > 0 &&
             kvbi_uring_ring_has_task_work(&e->flights.ring));
    refill(e, false);
}

/* ---- The interface --------------------------------------------------------------------------- */

static int uring_submit(struct kvbi_engine *engine, const struct kvbi_copy *copies, uint32_t count,
                        bool urgent)
{
    struct uring_engine *e = of(engine);
    if (kvbi_fork_guard_is_child(&e->guard))
        return KVB_EFORK;
    int result = kvbi_copy_queue_submit(&e->queue, copies, count, urgent);
    if (result != 0 || count == 0)
        return result;
    kvbi_uring_flights_enable(&e->flights);
    refill(e, false);
    return 0;
}

/* Can reap do something that nothing will announce? */
static bool more_locked(struct uring_engine *e)
{
    if (e->hasher.landed.count > 0 || e->queue.cancelled.count > 0)
        return true;
    if (!e->hasher.threaded && kvbi_disk_hasher_has_work_locked(&e->hasher))
        return true;
    return e->hasher.has_room &&
           (kvbi_disk_hasher_has_staged_locked(&e->hasher) || kvbi_copy_ready_locked(&e->queue));
}

static uint32_t uring_reap(struct kvbi_engine *engine, struct kvbi_completion *completions,
                           uint32_t max, uint64_t until_ns, bool *more)
{
    struct uring_engine *e = of(engine);
    *more = false;
    if (kvbi_fork_guard_is_child(&e->guard))
        return 0;
    kvbi_lock_take(&e->queue.lock);
    uint32_t count = kvbi_copy_complete_cancelled_locked(&e->queue, completions, max);
    kvbi_lock_release(&e->queue.lock);
    /* before looking: what comes later announces itself anew */
    if (!engine->edge_triggered)
        kvbi_uring_ring_drain(&e->flights.ring);
    for (bool again = true; again;) {
        turn(e);
        count += kvbi_disk_hasher_end(&e->hasher, completions + count, max - count);
        again = !e->hasher.threaded && count < max &&
                (count == 0 || kvbi_clock_now(e->clock) < until_ns) &&
                kvbi_disk_hasher_work(&e->hasher);
    }
    kvbi_lock_take(&e->queue.lock);
    *more = more_locked(e);
    kvbi_lock_release(&e->queue.lock);
    *more |= e->flights.count > 0 && (e->flights.broken || e->flights.prepared_bytes > 0 ||
                                      kvbi_uring_ring_has_task_work(&e->flights.ring));
    return count;
}

static int uring_wake_fd(struct kvbi_engine *engine)
{
    return kvbi_uring_ring_fd(&of(engine)->flights.ring);
}

static bool uring_ready(struct kvbi_engine *engine)
{
    struct uring_engine *e = of(engine);
    if (kvbi_fork_guard_is_child(&e->guard))
        return false;
    kvbi_lock_take(&e->queue.lock);
    bool more = more_locked(e);
    kvbi_lock_release(&e->queue.lock);
    return more || kvbi_uring_flights_pending(&e->flights);
}

static void uring_drain(struct kvbi_engine *engine)
{
    struct uring_engine *e = of(engine);
    const struct timespec pause = {.tv_nsec = 1000000};
    if (kvbi_fork_guard_is_child(&e->guard))
        return;
    kvbi_lock_take(&e->queue.lock);
    kvbi_disk_hasher_cancel_locked(&e->hasher);
    kvbi_lock_release(&e->queue.lock);
    for (refill(e, true); e->flights.count > 0; refill(e, true)) {
        if (e->flights.broken)
            (void)nanosleep(&pause, NULL);
        kvbi_uring_flights_enter(&e->flights, true);
        harvest(e);
    }
    kvbi_lock_take(&e->queue.lock);
    kvbi_disk_hasher_drain_locked(&e->hasher);
    kvbi_lock_release(&e->queue.lock);
}

static bool uring_signal(struct kvbi_engine *engine)
{
    struct uring_engine *e = of(engine);
    return !kvbi_fork_guard_is_child(&e->guard) && kvbi_copy_queue_signal(&e->queue);
}

static bool uring_recall(struct kvbi_engine *engine, uint32_t place, uint64_t cookie)
{
    if (kvbi_fork_guard_is_child(&of(engine)->guard))
        return false;
    return kvbi_copy_queue_recall(&of(engine)->queue, place, cookie);
}

static size_t uring_bytes(const struct kvbi_engine *engine)
{
    const struct uring_engine *e = (const struct uring_engine *)(const void *)engine;
    return sizeof *e + kvbi_copy_queue_bytes(&e->queue) + kvbi_disk_hasher_bytes(&e->hasher) +
           kvbi_uring_flights_bytes(&e->flights);
}

/* ---- Create and destroy ---------------------------------------------------------------------- */

static void uring_destroy(struct kvbi_engine *engine)
{
    struct uring_engine *e = of(engine);
    struct kvbi_memory memory = e->memory;
    /* it has neither the ring nor whoever held the lock */
    bool child = kvbi_fork_guard_is_child(&e->guard);
    if (!child && e->flights.count > 0)
        uring_drain(engine);
    kvbi_disk_hasher_destroy(&e->hasher, child);
    kvbi_uring_flights_destroy(&e->flights, child);
    if (child)
        kvbi_memory_free(&memory, e->queue.items, e->queue.capacity, sizeof *e->queue.items);
    else
        kvbi_copy_queue_destroy(&e->queue);
    kvbi_fork_guard_destroy(&e->guard);
    kvbi_memory_free(&memory, e, 1, sizeof *e);
}

static const struct kvbi_engine_ops ops = {.name = "uring",
                                           .destroy = uring_destroy,
                                           .submit = uring_submit,
                                           .reap = uring_reap,
                                           .wake_fd = uring_wake_fd,
                                           .ready = uring_ready,
                                           .drain = uring_drain,
                                           .signal = uring_signal,
                                           .recall = uring_recall,
                                           .bytes = uring_bytes};

/* Reads are compared, writes staged: the issuer may be asleep. */
static void tell_issuer_locked(void *engine)
{
    struct uring_engine *e = engine;
    kvbi_wake_signal(&e->flights.ring.wake);
}

/*
 * Without a descriptor to wake the issuer by (a sandbox refused it) there is no thread that could.
 */
static int start_hasher(struct uring_engine *e, const struct kvbi_disk_engine_config *config)
{
    return e->flights.ring.wake.fd >= 0 ? kvbi_disk_hasher_start(&e->hasher, config) : 0;
}

int kvbi_engine_uring_create(struct kvbi_engine **engine, const struct kvbi_memory *memory,
                             struct kvbi_clock *clock, const struct kvbi_disk_engine_config *config,
                             char *why)
{
    *engine = NULL;
    (void)snprintf(why, KVBI_ENGINE_SAID_BYTES, "no memory");
    struct uring_engine *e = kvbi_memory_alloc(memory, 1, sizeof *e, _Alignof(struct uring_engine));
    if (e == NULL)
        return KVB_ENOMEM;
    *e = (struct uring_engine){.engine = {.ops = &ops, .edge_triggered = config->edge_triggered},
                               .memory = *memory,
                               .clock = clock,
                               .disk = config->disk,
                               .issuing = {KVBI_NONE, KVBI_NONE}};
    kvbi_fork_guard_create_by_pid(&e->guard);
    int error = KVB_ENOMEM;
    if (kvbi_fork_guard_create(&e->guard) != 0)
        goto free_engine;
    error = kvbi_uring_flights_create(&e->flights, memory, config, why);
    if (error != 0)
        goto destroy_guard;
    error = KVB_ENOMEM;
    if (kvbi_copy_queue_create(&e->queue, &e->memory, config->lines, config->capacity) != 0)
        goto destroy_flights;
    if (kvbi_disk_hasher_create(&e->hasher, memory, config, &e->queue, tell_issuer_locked, e) != 0)
        goto destroy_queue;
    if (start_hasher(e, config) != 0)
        goto destroy_hasher;
    *engine = &e->engine;
    return 0;

destroy_hasher:
    kvbi_disk_hasher_destroy(&e->hasher, false);
destroy_queue:
    kvbi_copy_queue_destroy(&e->queue);
destroy_flights:
    kvbi_uring_flights_destroy(&e->flights, false);
destroy_guard:
    kvbi_fork_guard_destroy(&e->guard);
free_engine:
    kvbi_memory_free(memory, e, 1, sizeof *e);
    return error;
}
