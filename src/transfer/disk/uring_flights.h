/* SPDX-License-Identifier: Apache-2.0 */
/*
 * uring_flights - what is in a ring's hands: pieces of blocks, until each is done or has failed
 *
 * Owns       the ring; `depth` flights, with a bounce buffer each where direct I/O needs one; the
 *            bytes in flight.
 * Callers    engine_uring, from the issuing thread; kvbi_uring_flights_pending from any.
 * Invariants a flight is one piece of one block. Blocks that are launched one after the other for
 *            neighbouring slots, up to a piece's worth of them, are a *run*: one I/O for several
 *            flights. A run that fails or comes back short says nothing about any of its blocks:
 *            each is handed over again by itself.
 *            At most `depth` flights and `inflight_bytes` in flight, so neither queue of the ring
 *            can overflow. What comes back short is handed over again for the rest: a flight is
 *            over when it has moved everything, or has failed.
 *            No buffer is given back before its flight is over: direct I/O in flight cannot be
 *            cancelled.
 * Lock       none.
 * Why        an I/O costs 2.5 us of CPU time whatever its size: at 64 KiB two thirds of it are
 *            saved by runs of 16, scattered in memory or not (Linux 6.18, ext4, virtio disk).
 */
#ifndef KVBI_TRANSFER_DISK_URING_FLIGHTS_H
#define KVBI_TRANSFER_DISK_URING_FLIGHTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/bands.h"
#include "base/memory.h"

#include "transfer/disk/copy.h"
#include "transfer/disk/engine.h"
#include "transfer/disk/uring_ring.h"

struct kvbi_uring_flight {
    struct kvbi_disk_copy *copy;
    struct kvbi_disk_piece piece;
    uint32_t item; /* the caller's */
    int buffer;    /* registered buffer of its memory, or -1 */
    uint32_t next; /* in its run, or KVBI_NONE */
    bool used;
};

/* Blocks of a run at most. */
#define KVBI_URING_RUN_MAX 16

/* The I/O that was prepared last, while it can still become longer. */
struct kvbi_uring_run {
    uint32_t first, last; /* flights; first: KVBI_NONE if there is none */
    uint32_t count, part_count;
    uint64_t bytes;
    struct io_uring_sqe *sqe;
};

struct kvbi_uring_flights {
    struct kvbi_memory memory;
    const struct kvbi_hooks *hooks;
    struct kvbi_disk *disk;
    struct kvbi_uring_ring ring;
    struct kvbi_uring_flight *all;
    uint32_t *free;        /* a stack of depth - count */
    unsigned char *bounce; /* depth x piece_bytes, or NULL */
    /*
     * KVBI_URING_RUN_MAX a flight: of the run that it begins; NULL: blocks are too large for runs
     */
    struct iovec *parts;
    struct kvbi_uring_run open;
    uint32_t landing;   /* next flight of the run that has come back, or KVBI_NONE */
    bool landing_whole; /* all of it was moved */
    uint64_t piece_bytes, limit_bytes;
    uint64_t bytes, prepared_bytes; /* in flight; of these not yet handed to the kernel */
    uint32_t depth, count;
    bool broken; /* the ring answers no more: everything ends with KVB_EIO */
    uint64_t broken_until_ns;
};

/*
 * `why`, of KVBI_ENGINE_SAID_BYTES: how the ring works, or what was refused. KVB_ENOMEM,
 * KVB_EUNSUPPORTED.
 */
KVB_NODISCARD int kvbi_uring_flights_create(struct kvbi_uring_flights *flights,
                                            const struct kvbi_memory *memory,
                                            const struct kvbi_disk_engine_config *config,
                                            char *why);
/* Nothing is in flight, or in_child: the ring is the parent's. Legal on a zeroed object. */
void kvbi_uring_flights_destroy(struct kvbi_uring_flights *flights, bool in_child);
/* what create has allocated */
size_t kvbi_uring_flights_bytes(const struct kvbi_uring_flights *flights);

/* Makes the calling thread the issuer. */
void kvbi_uring_flights_enable(struct kvbi_uring_flights *flights);

/* How many more may be launched. */
uint32_t kvbi_uring_flights_room(const struct kvbi_uring_flights *flights);

/*
 * Prepares the piece of `copy` at `offset`; its payload bytes. There is room. Launched in order of
 * their slots, blocks share I/Os. `copy` stays where it is until it has landed.
 */
uint32_t kvbi_uring_flights_launch(struct kvbi_uring_flights *flights, struct kvbi_disk_copy *copy,
                                   uint64_t offset, uint32_t item, int buffer);

/* Is all that is in flight still to be handed over, and that `count` I/Os or more? */
bool kvbi_uring_flights_idle(const struct kvbi_uring_flights *flights, uint32_t count);

/* Hands over what is prepared and lets completions be posted; `wait`: at least one. */
void kvbi_uring_flights_enter(struct kvbi_uring_flights *flights, bool wait);

/* Would entering, or looking at what is posted, bring something? Any thread. */
bool kvbi_uring_flights_pending(const struct kvbi_uring_flights *flights);

/* The next flight that is over: its item, and 0 or why it failed. False: none. */
bool kvbi_uring_flights_next(struct kvbi_uring_flights *flights, uint32_t *item, int *error);

#endif
