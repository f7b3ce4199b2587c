/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk/engine - which engine moves blocks between memory and a disk tier, and why that one
 *
 * Owns       the choice. `auto` takes io_uring if a ring can be set up, entered, and has read a
 *            page of the very file; on any failure, whatever its number, the threads of the posix
 *            engine. Either way it says so.
 * Callers    transfer/disk/kind creates one engine a disk tier. The engines are otherwise used
 *            through transfer/engine.h.
 * Lock       none.
 */
#ifndef KVBI_TRANSFER_DISK_ENGINE_H
#define KVBI_TRANSFER_DISK_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "transfer/disk/tier.h"
#include "transfer/engine.h"

/*
 * In flight at most, unless the configuration says otherwise: more only adds waiting (1 MiB at
 * depth 32: p99 58 ms).
 */
#define KVBI_DISK_INFLIGHT_BYTES ((uint64_t)8 << 20)
#define KVBI_DISK_INFLIGHT_COUNT 64
#define KVBI_DISK_THREADS 8
#define KVBI_DISK_THREADS_MAX 16
#define KVBI_DISK_MEMORIES_MAX 4

enum kvbi_disk_engine { KVBI_DISK_AUTO, KVBI_DISK_URING, KVBI_DISK_POSIX };

struct kvbi_disk_engine_config {
    enum kvbi_disk_engine engine;
    struct kvbi_disk *disk;                  /* must outlive the engine, as must all below */
    const struct kvbi_tier *const *memories; /* every memory tier that copies will name ... */
    uint32_t memory_count;                   /* ... KVBI_DISK_MEMORIES_MAX at most */
    uint32_t capacity;                       /* copies in the queue at most; taken at create */
    uint64_t inflight_bytes;                 /* 0: KVBI_DISK_INFLIGHT_BYTES */
    uint32_t inflight_count;                 /* uring: I/Os. 0: KVBI_DISK_INFLIGHT_COUNT */
    /*
     * uring: submit, reap and drain come from one thread, from the first submit to the last drain
     */
    bool single_issuer;
    /* uring: do not register the memories. Registering takes all of their pages at create */
    bool unregistered;
    /* uring: whoever sleeps on wake_fd waits edge-triggered, so reap need not drain it */
    bool edge_triggered;
    const struct kvbi_lines *lines; /* the manager's; must outlive it */
    bool poll;                      /* posix: no threads of its own, the I/O is done in reap */
    uint32_t threads;               /* posix: 0: KVBI_DISK_THREADS, KVBI_DISK_THREADS_MAX at most */
    const struct kvbi_hooks *hooks; /* may be NULL */
};

/*
 * `said`: which engine, how, and why not the other: "uring (single issuer), O_DIRECT, fixed file,
 * fixed buffers", or "posix, 8 threads (no io_uring: setup: Operation not permitted), O_DIRECT"; on
 * an error the reason.
 * Errors     KVB_ENOMEM  memory, threads, descriptors
 *            KVB_EUNSUPPORTED  KVBI_DISK_URING, and there is none
 */
KVB_NODISCARD int kvbi_disk_engine_create(struct kvbi_engine **engine,
                                          const struct kvbi_memory *memory,
                                          struct kvbi_clock *clock,
                                          const struct kvbi_disk_engine_config *config, char *said,
                                          size_t said_bytes);

/*
 * For kvbi_disk_engine_create: one each. `why`, of KVBI_ENGINE_SAID_BYTES: how it works, or why it
 * does not.
 */
int kvbi_engine_uring_create(struct kvbi_engine **engine, const struct kvbi_memory *memory,
                             struct kvbi_clock *clock, const struct kvbi_disk_engine_config *config,
                             char *why);
int kvbi_engine_posix_create(struct kvbi_engine **engine, const struct kvbi_memory *memory,
                             struct kvbi_clock *clock,
                             const struct kvbi_disk_engine_config *config);

#endif
