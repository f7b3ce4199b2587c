/* SPDX-License-Identifier: Apache-2.0 */
/*
 * uring_ring - a ring that is known to work: set up, entered and used for a real read before
 * anything depends on it
 *
 * Owns       which set-up flags a kernel takes, the registration of the disk's files and of the
 *            tiers' memory, and their undoing.
 * Callers    engine_uring. No lock: before the first submit any thread, one at a time; afterwards
 *            the issuing one.
 * Invariants kvbi_uring_ring_fd is readable once something has completed, until
 *            kvbi_uring_ring_drain. Where task running is deferred this takes an eventfd: the
 *            ring's own descriptor wakes no sleeper then (Linux 6.18: epoll never, poll when it
 *            happens to).
 * Why        sandboxes refuse any of the three system calls, with any error number: only use shows
 *            what works. The issuing thread is not known at create, and a single-issuer ring
 *            belongs to the thread that enables it: it starts disabled.
 */
#ifndef KVBI_TRANSFER_DISK_URING_RING_H
#define KVBI_TRANSFER_DISK_URING_RING_H

#include <liburing.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/platform.h"

#include "transfer/disk/engine.h"

/* One tier's memory as registered buffers: `block_count` blocks in each, from buffer `first` on. */
struct kvbi_uring_range {
    const struct kvbi_tier *tier;
    uint32_t first, blocks;
};

struct kvbi_uring_ring {
    struct io_uring ring;
    unsigned flags;
    struct kvbi_wake wake; /* fd -1: the ring's descriptor serves */
    bool enabled, fixed_file, fixed_buffers;
    struct kvbi_uring_range ranges[KVBI_DISK_MEMORIES_MAX];
    uint32_t range_count;
    uint32_t bounce_index; /* buffer of the bounce memory, if fixed_buffers and there is any */
};

/*
 * A ring for `entries` I/Os at once on the disk's files; the fixed file of each has its number.
 * bounce: `bounce_bytes` of memory to register beside the tiers', or NULL. `why`: how it works, or
 * what was refused. KVB_EUNSUPPORTED; KVB_ENOMEM.
 */
KVB_NODISCARD int kvbi_uring_ring_open(struct kvbi_uring_ring *ring,
                                       const struct kvbi_memory *memory,
                                       const struct kvbi_disk_engine_config *config,
                                       uint32_t entries, void *bounce, size_t bounce_bytes,
                                       char *why);

/* Makes the calling thread the issuer. 0 or an errno. */
KVB_NODISCARD int kvbi_uring_ring_enable(struct kvbi_uring_ring *ring);

/* in_child: the ring is the parent's, only this process' descriptor of it is closed. */
void kvbi_uring_ring_close(struct kvbi_uring_ring *ring, bool in_child);

int kvbi_uring_ring_fd(const struct kvbi_uring_ring *ring); /* any thread */
void kvbi_uring_ring_drain(const struct kvbi_uring_ring *ring);

/*
 * Completions are there that only entering brings out: the kernel runs 20 deferred ones at a time
 * at most.
 */
bool kvbi_uring_ring_has_task_work(const struct kvbi_uring_ring *ring);

/* The registered buffer of a block, or -1. */
int kvbi_uring_buffer_of(const struct kvbi_uring_ring *ring, const struct kvbi_tier *tier,
                         uint32_t slot);

#endif
