/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk/copy - what every disk engine does with one block around its I/O
 *
 * Owns       the order of things: begin (fault hooks, tag emptied), hash if it is a write, the I/O
 *            of each piece and its result, hash if it is a read, end (entries published).
 * Callers    engine_uring, engine_posix: each I/O in between is theirs. Any thread, one at a time
 *            for one copy; the end of all copies in reap. No lock.
 * Invariants a write is published only when each of its pieces was reported written in full; a read
 *            passes only if its slot has that identity and the payload that checksum. Nothing is
 *            done by halves: a result that is neither full nor an error leads to another I/O for
 *            the rest.
 */
#ifndef KVBI_TRANSFER_DISK_COPY_H
#define KVBI_TRANSFER_DISK_COPY_H

#include <stdbool.h>
#include <stdint.h>

#include "transfer/disk/tier.h"
#include "transfer/engine.h"

/*
 * No I/O is larger. One reader at depth 8 got 2.46 GB/s with 1 MiB and 1.97 GB/s with 4 MiB, p99
 * 3.6 ms against 17.7 ms (virtio disk, Linux 6.18).
 */
#define KVBI_DISK_PIECE_BYTES ((uint64_t)1 << 20)

/*
 * How often an I/O that makes no progress (EINTR, EAGAIN, less than one aligned page) is tried
 * before it counts as failed.
 */
#define KVBI_DISK_RETRIES 100

struct kvbi_disk_copy {
    struct kvbi_disk *disk;
    struct kvbi_disk_file *file; /* of the slot */
    const struct kvbi_label *label;
    unsigned char *memory; /* the block at the other end */
    uint32_t slot;
    bool write;
    bool bounce; /* direct I/O does not take that memory: the pieces go through a buffer */
    enum kvbi_disk_cause cause; /* of a result that is not 0 ... */
    bool medium;                /* ... and whether kvbi_disk_is_medium_error */
    uint64_t identity, checksum;
};

/* One I/O: `io_bytes` (with the padding) at `offset` within the slot, of which `done` are done. */
struct kvbi_disk_piece {
    uint64_t offset;
    uint32_t payload_bytes, io_bytes, done, retries;
};

/* Does direct I/O need a bounce buffer for this tier's blocks? */
bool kvbi_disk_bounces(const struct kvbi_disk *disk, const struct kvbi_tier *memory);

/* What the largest piece takes in a bounce buffer, aligned to KVBI_DISK_ALIGN. */
uint64_t kvbi_disk_piece_max(const struct kvbi_disk *disk);

/* 0: go on to the I/O. Otherwise the copy is over with this result. */
KVB_NODISCARD int kvbi_disk_copy_begin(struct kvbi_disk_copy *state, const struct kvbi_copy *copy,
                                       const struct kvbi_hooks *hooks);

/* The piece at `offset`; the next is at offset + payload_bytes. */
struct kvbi_disk_piece kvbi_disk_piece_at(const struct kvbi_disk_copy *state, uint64_t offset);

/*
 * Before the first I/O of a piece that is written, and after the last of one that was read, if it
 * bounces.
 */
void kvbi_disk_bounce_out(const struct kvbi_disk_copy *state, const struct kvbi_disk_piece *piece,
                          void *buffer);
void kvbi_disk_bounce_in(const struct kvbi_disk_copy *state, const struct kvbi_disk_piece *piece,
                         const void *buffer);

/*
 * `result` as of pread: 1 the piece is complete, 0 another I/O is needed for what is left, or the
 * KVB_E... it failed with.
 */
KVB_NODISCARD int kvbi_disk_piece_advance(struct kvbi_disk_copy *state,
                                          struct kvbi_disk_piece *piece, int64_t result,
                                          const struct kvbi_hooks *hooks);

/*
 * The one step that takes its time (17 us for 256 KiB), once for each copy: makes the checksum of
 * what is to be written, before the first I/O, or compares that of what was read, after the last. 0
 * or KVB_ECORRUPT.
 */
KVB_NODISCARD int kvbi_disk_copy_hash(struct kvbi_disk_copy *state);

/* A copy that is over, with the first result of its steps that is not 0. */
struct kvbi_disk_ending {
    const struct kvbi_disk_copy *state;
    uint64_t cookie;
    int result;
};

/* Publishes what was written, all together, and counts. In reap. KVBI_DISK_PUBLISH_MAX at most. */
void kvbi_disk_copies_end(struct kvbi_disk *disk, const struct kvbi_disk_ending *endings,
                          uint32_t count, struct kvbi_completion *completions);

#endif
