/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk/hasher - what surrounds the I/O of blocks: checksums made before it or compared after it,
 * and the end of them all
 *
 * Owns       what is known of each copy in an engine's queue, from begin to end; the lists of
 *            blocks before and behind the I/O; one thread ("kvblock hash") unless the configuration
 *            wants none or there is only one processor.
 * Callers    engine_uring, engine_posix: the I/O in between is theirs.
 * Invariants a begun block is in one place: being hashed here, `staged` (a write with its
 *            checksum), the engine's, `unverified` (a read whose bytes are all there) or `landed`
 *            (over). Writes are staged ahead, `ahead_bytes` at most, so that room for an I/O never
 *            waits for a checksum; for drain staged ones have not begun. Whoever has room for I/O
 *            and finds nothing staged makes the checksum itself, so nothing ever waits for the
 *            thread but blocks that were read.
 * Lock       the queue's, for the lists and all below them; a block is of whoever has it in hand.
 *            No checksum under it.
 * Why        one thread that hashes between I/Os leaves the disk alone for 65 us a MiB: on two
 *            processors a ring then reads at 0.85 (64 KiB) to 0.92 (1 MiB) of a bare one and writes
 *            at 0.94; with a second thread all are 0.98 to 1.03 (virtio disk).
 */
#ifndef KVBI_TRANSFER_DISK_HASHER_H
#define KVBI_TRANSFER_DISK_HASHER_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "transfer/copy_queue.h"
#include "transfer/disk/copy.h"
#include "transfer/disk/engine.h"

struct kvbi_disk_block {
    struct kvbi_disk_copy copy;
    int error;        /* of the first step that failed */
    uint32_t flights; /* the engine's: I/Os under way, ... */
    uint64_t issued;  /* ... payload bytes for which they have begun */
};

struct kvbi_disk_hasher {
    struct kvbi_memory memory;
    const struct kvbi_hooks *hooks;
    struct kvbi_disk *disk;
    struct kvbi_copy_queue *queue;
    struct kvbi_disk_block *blocks; /* by item of the queue */
    uint64_t ahead_bytes;
    void (*tell_locked)(void *engine); /* blocks have landed, or are staged and `has_room` */
    void *engine;
    pthread_t thread;
    bool threaded;

    struct kvbi_copy_list staged[2]; /* by urgent */
    struct kvbi_copy_list unverified, landed;
    struct kvbi_cond work, idle; /* of the thread: there is something to hash; it sleeps */
    uint32_t hashing;            /* in somebody's hands here */
    uint64_t untold_bytes;       /* hashed by the thread since it last told the engine */
    bool has_room;               /* the engine has room for I/O */
    bool sleeping, stop;
};

/*
 * For the items of `queue`, which must outlive it. tell_locked: from the thread, with the queue's
 * lock. KVB_ENOMEM.
 */
KVB_NODISCARD int kvbi_disk_hasher_create(struct kvbi_disk_hasher *hasher,
                                          const struct kvbi_memory *memory,
                                          const struct kvbi_disk_engine_config *config,
                                          struct kvbi_copy_queue *queue,
                                          void (*tell_locked)(void *engine), void *engine);
/* The thread, if there is to be one: from here on tell_locked may run. KVB_ENOMEM. */
KVB_NODISCARD int kvbi_disk_hasher_start(struct kvbi_disk_hasher *hasher,
                                         const struct kvbi_disk_engine_config *config);
/*
 * in_child: the thread is the parent's, the lock perhaps somebody's. Nothing is in the engine's
 * hands. Legal on a zeroed object.
 */
void kvbi_disk_hasher_destroy(struct kvbi_disk_hasher *hasher, bool in_child);
/* what create has allocated */
size_t kvbi_disk_hasher_bytes(const struct kvbi_disk_hasher *hasher);

/* ---- Before the I/O -------------------------------------------------------------------------- */

/*
 * The next block for an I/O, of this class: staged, or *fresh: kvbi_disk_hasher_begin is to come.
 * KVBI_NONE: none is ready.
 */
uint32_t kvbi_disk_hasher_take_locked(struct kvbi_disk_hasher *hasher, bool urgent, bool *fresh);

/* Fault hooks, and the checksum of a write; the block's `error` says how it went. */
void kvbi_disk_hasher_begin(struct kvbi_disk_hasher *hasher, uint32_t item);

/* ---- Behind it ------------------------------------------------------------------------------- */

/*
 * No I/O of the block is left or to come. A read without error is yet to be compared, unless
 * `verified`.
 */
void kvbi_disk_hasher_land_locked(struct kvbi_disk_hasher *hasher, uint32_t item, bool verified);

/*
 * Ends what has landed, their entries written together: up to `max`, KVBI_DISK_PUBLISH_MAX at most.
 * In reap.
 */
uint32_t kvbi_disk_hasher_end(struct kvbi_disk_hasher *hasher, struct kvbi_completion *completions,
                              uint32_t max);

/* ---- Who hashes ------------------------------------------------------------------------------ */

/*
 * Without a thread: about one piece's worth, so that the I/O is looked at in between. False:
 * nothing to do.
 */
bool kvbi_disk_hasher_work(struct kvbi_disk_hasher *hasher);
/* Has kvbi_disk_hasher_work something to do? */
bool kvbi_disk_hasher_has_work_locked(struct kvbi_disk_hasher *hasher);
bool kvbi_disk_hasher_has_staged_locked(const struct kvbi_disk_hasher *hasher);

/*
 * With a thread: wakes it if it sleeps and has enough to do. After items have come, room was made
 * ahead, or reads have landed.
 */
void kvbi_disk_hasher_wake_locked(struct kvbi_disk_hasher *hasher);

/* ---- Drain ----------------------------------------------------------------------------------- */

/* Gives up all of the queue that has not begun, with what is staged. */
void kvbi_disk_hasher_cancel_locked(struct kvbi_disk_hasher *hasher);
/* Waits for what the thread has in hand, and cancels again. No I/O is under way. */
void kvbi_disk_hasher_drain_locked(struct kvbi_disk_hasher *hasher);

#endif
