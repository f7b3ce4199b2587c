/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk/file - one file of a disk tier, from its path to a file that is known and ready; its
 * superblocks
 *
 * Owns       what is kept and what starts empty; the two superblocks; moving the table when the
 *            file gets another number of slots.
 * Callers    transfer/disk/tier, in this order: open, decide, take_room, commit; each for all files
 *            before the next for any, so that nothing is written before all are known to be fit,
 *            nor moved before all have their space.
 * Invariants nothing that an earlier run left is written to before commit, and until then all can
 *            be undone (close, discard). From then on the file says that it was not closed cleanly.
 *            A superblock is written over the older of the two, synced, and only then believed: one
 *            of them is whole at any moment. Both have the same uuid, epoch and geometry between
 *            calls: either may be damaged and nothing comes back or gets lost.
 * Lock       none. Superblocks are written by one thread at a time; `uuid`, `table_offset` and
 *            `slot_count` are for all to read.
 */
#ifndef KVBI_TRANSFER_DISK_FILE_H
#define KVBI_TRANSFER_DISK_FILE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "transfer/disk/format.h"
#include "transfer/disk/io.h"

/* Why a block could not be read. */
enum kvbi_disk_cause {
    KVBI_DISK_CAUSE_IO,       /* the system reported an error */
    KVBI_DISK_CAUSE_SHORT,    /* the file ends before the slot does */
    KVBI_DISK_CAUSE_IDENTITY, /* the slot has something else */
    KVBI_DISK_CAUSE_CHECKSUM, /* the payload is not what was written */
    KVBI_DISK_CAUSES
};

struct kvbi_disk_file {
    struct kvbi_disk_io io;
    enum kvbi_disk_verdict verdict; /* of what was there at open */
    /* the newer one, as in the file; before commit zeros if none was whole */
    struct kvbi_disk_superblock superblock;
    uint32_t superblock_at; /* in which of the two places */
    uint32_t version;       /* of a file whose version is not known here */
    uint64_t uuid[2];       /* before commit: what it gets if it starts empty */
    uint64_t table_offset;
    uint32_t slot_count;
    unsigned char *table; /* mapped, for disk/scatter alone, or NULL */
    char *path;           /* for messages */
    char mode[64];        /* "O_DIRECT", or "buffered (why)"; and "sparse: no fallocate" */
    char note[192];       /* what was unusual at open, for logs; "": nothing */
    bool kept;            /* opened with what it had */
    bool stamped;         /* its stamps are those of a clean close */
    bool committing;      /* commit has begun: what was there may be no more */
    /*
     * by the last scan: entries written by this format that are damaged, torn, misplaced or cannot
     * be read
     */
    uint64_t dropped;
    /* of entries before this process' first clear; renewing moves it */
    _Atomic uint64_t epoch_base;
    _Atomic uint64_t read_errors[KVBI_DISK_CAUSES], write_errors, bytes_written, bytes_read;
};

/* The size of the buffer that is lent for whatever goes through a table. */
#define KVBI_DISK_BUFFER_BYTES ((size_t)1 << 20)

/* What is common to all files of a tier. */
struct kvbi_disk_terms {
    struct kvbi_disk_purpose purpose; /* digest_seed: what files that start empty get */
    uint32_t flags;                   /* enum kvb_disk_flags */
    bool buffered;                    /* no direct I/O */
    const struct kvbi_hash_ops *hash;
    unsigned char *buffer; /* KVBI_DISK_BUFFER_BYTES, aligned to KVBI_DISK_ALIGN */
};

/*
 * Opens and looks. Errors of kvbi_disk_io_open; KVB_EMISMATCH: has something that kvblock has not
 * written.
 */
KVB_NODISCARD int kvbi_disk_file_open(struct kvbi_disk_file *file,
                                      const struct kvbi_disk_terms *terms,
                                      const struct kvbi_disk_say *say);

/*
 * Is what it has to be kept? *seed: the digest seed that it must have; 0: any, then its own.
 * KVB_EMISMATCH: of another purpose, seed or version, or both superblocks are damaged.
 */
KVB_NODISCARD int kvbi_disk_file_decide(struct kvbi_disk_file *file,
                                        const struct kvbi_disk_terms *terms, uint64_t *seed,
                                        const struct kvbi_disk_say *say);

/* Also finds out how I/O is done there, by reading. Errors of kvbi_disk_io_take_room. */
KVB_NODISCARD int kvbi_disk_file_take_room(struct kvbi_disk_file *file,
                                           const struct kvbi_disk_terms *terms, uint32_t slot_count,
                                           const struct kvbi_disk_say *say);

/* Makes it a file of so many slots, with what of its table fits. KVB_EIO, KVB_ENOSPC. */
KVB_NODISCARD int kvbi_disk_file_commit(struct kvbi_disk_file *file,
                                        const struct kvbi_disk_terms *terms, uint32_t slot_count,
                                        const struct kvbi_disk_say *say);

/*
 * Nothing is written. discard: a file that the open created is removed, another one is as it was
 * unless commit has begun.
 */
void kvbi_disk_file_close(struct kvbi_disk_file *file, bool discard);

/*
 * `next` becomes the newer superblock, durably; its serial and checksum are set here. 0 or an
 * errno.
 */
KVB_NODISCARD int kvbi_disk_file_write(struct kvbi_disk_file *file,
                                       const struct kvbi_hash_ops *hash,
                                       struct kvbi_disk_superblock *next);
/*
 * The same in both places: for uuid, epoch and geometry, whose former values must not come back if
 * one gets damaged.
 */
KVB_NODISCARD int kvbi_disk_file_write_both(struct kvbi_disk_file *file,
                                            const struct kvbi_hash_ops *hash,
                                            struct kvbi_disk_superblock *next);

#endif
