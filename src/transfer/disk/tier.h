/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk/tier - the slots of a disk tier: in which file each lies, what it is known to have, and the
 * table that outlives the process
 *
 * Owns       the files (opened by disk/io), and in memory a tag of 16 bytes a slot, the identity of
 *            what was written there and its checksum, and one byte, how often it could not be read.
 * Callers    transfer/disk/kind, for transfer/tier.h: create, close, commit, and walking what an
 *            earlier run left; engines read and write slots through transfer/disk/copy and publish
 *            what they have written.
 * Invariants a slot whose tag says X has X: the tag is emptied before a write begins; the entry in
 *            the file is written after the last byte of the payload was reported written, and a
 *            block is only reported after that. An older entry may stay in the file while a slot is
 *            written: its checksum does not fit what is there then.
 *            Slot s of the tier is slot s / file_count of file s % file_count. Files know nothing
 *            of each other: each has its own uuid, epoch and table, so that any set of them can be
 *            opened in any order.
 * Lock       none. The tag of a slot belongs to the one copy that is under way to it, or to those
 *            from it, and the engine's queue orders one after the other; that no copy to a slot
 *            overlaps another copy is the pipeline's promise. Publishing, retiring and clearing
 *            come from one thread at a time (progress; clear under its lock writes superblocks
 *            only). Counters are atomic.
 * Why        an identity is the hash of (uuid, slot, content, generation), and the seed of the
 *            checksum over the payload: a payload of another slot, of an earlier generation, of
 *            other content or of another file fails, as torn and flipped bytes do. The table is
 *            written through the page cache (a microsecond, and it survives the process), payloads
 *            past it. Nothing is synced but superblocks: what a power failure loses or reorders is
 *            recognised, and costs the newest blocks only.
 */
#ifndef KVBI_TRANSFER_DISK_TIER_H
#define KVBI_TRANSFER_DISK_TIER_H

#include <kvblock.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/hash.h"
#include "base/memory.h"

#include "transfer/disk/file.h"
#include "transfer/disk/scatter.h"
#include "transfer/kind.h"
#include "transfer/label.h"
#include "transfer/tier.h"

struct kvbi_disk_tag {
    uint64_t identity; /* 0: nothing that may be read */
    uint64_t checksum;
};

struct kvbi_disk {
    const struct kvbi_memory *memory;
    const struct kvbi_hash_ops *hash;
    struct kvbi_disk_file *files;
    uint32_t file_count;
    uint32_t slot_count;
    uint64_t block_bytes;         /* payload */
    uint64_t slot_bytes;          /* in the file: padded to KVBI_DISK_ALIGN */
    uint64_t digest_seed;         /* of the files: the names in them were made with it */
    uint64_t sequence;            /* the largest one given out */
    _Atomic uint64_t clears;      /* of this process, whether or not they have reached each file */
    struct kvbi_disk_terms terms; /* as the files were opened */
    bool committed;
    struct kvbi_disk_tag *tags;
    struct kvbi_disk_scatter scatter;
    int map_error;     /* errno why not all tables are mapped, or 0 */
    uint8_t *failures; /* of reads, since the last one that passed */
    /*
     * KVBI_DISK_BUFFER_BYTES: of create, commit, scan and close_clean, which come one after the
     * other
     */
    unsigned char *buffer;
    struct {
        uint32_t file, first, count;
    } window; /* of scan: which entries are in the buffer */
    /*
     * for logs: "O_DIRECT, blocks of 5000 bytes padded to 8192"; of several files each that differs
     */
    char mode[192];
};

#define KVBI_DISK_FILES_MAX KVB_DISK_PATHS_MAX

struct kvbi_disk_config {
    const char *const *paths;         /* copied */
    uint32_t path_count;              /* 1..KVBI_DISK_FILES_MAX */
    uint32_t block_count;             /* of all files together; each has one slot at least */
    struct kvbi_disk_purpose purpose; /* digest_seed 0: that of the files, or a new random one */
    uint32_t flags;                   /* enum kvb_disk_flags */
    bool buffered;                    /* never direct I/O */
    const struct kvbi_hash_ops *hash; /* NULL: the fastest of this machine */
};

extern const struct kvbi_kind kvbi_kind_disk;

extern const struct kvbi_tier_ops kvbi_disk_ops;
extern const struct kvbi_lasting_ops kvbi_disk_lasting_ops;

/* The disk behind a tier of this kind; NULL: it is of another. */
static inline struct kvbi_disk *kvbi_disk_of(const struct kvbi_tier *tier)
{
    return tier->ops == &kvbi_disk_ops ? tier->self : NULL;
}

/*
 * A tier of enum kvb_tier `id` with a disk and no addresses. `memory` must outlive it.
 * kvbi_tier_destroy closes the files. The files are open, known to be fit, and have their space;
 * nothing is written yet: kvbi_disk_commit. Engines may be made for it.
 * Errors     those of kvbi_disk_file_*, each with words in `message`        KVB_ENOMEM
 *            KVB_EINVAL  also: no blocks, or fewer than paths, or more bytes than a file can have
 *            KVB_EBUSY   also: the same file twice       KVB_EUNSUPPORTED  also: no random numbers
 */
KVB_NODISCARD int kvbi_tier_disk_create(struct kvbi_tier *tier, const struct kvbi_memory *memory,
                                        uint32_t id, const struct kvbi_disk_config *config,
                                        char *message, size_t message_bytes);
/*
 * The point of no return of a create, after everything else that may fail: the files are brought to
 * their size, those that do not fit are emptied, and all say that they are open. Then
 * kvbi_disk_scan. KVB_EIO, KVB_ENOSPC with words in `message`: to be closed.
 */
KVB_NODISCARD int kvbi_disk_commit(struct kvbi_disk *disk, char *message, size_t message_bytes);

/*
 * Not a clean close: what is in the files stays as after a kill. Before commit: they are as they
 * were found. NULL is legal.
 */
void kvbi_disk_close(struct kvbi_disk *disk);

/* For statistics: what the tables take. */
size_t kvbi_disk_bytes(const struct kvbi_disk *disk);

static inline struct kvbi_disk_file *kvbi_disk_file_of(const struct kvbi_disk *disk, uint32_t slot)
{
    return &disk->files[slot % disk->file_count];
}

/* Which slot of its file it is. */
static inline uint32_t kvbi_disk_place_of(const struct kvbi_disk *disk, uint32_t slot)
{
    return slot / disk->file_count;
}

/* Where the payload begins in its file. */
static inline uint64_t kvbi_disk_offset(const struct kvbi_disk *disk, uint32_t slot)
{
    return KVBI_DISK_DATA_OFFSET + kvbi_disk_place_of(disk, slot) * disk->slot_bytes;
}

/* ---- Slots: engines -------------------------------------------------------------------------- */

/* The identity as it is in this slot of this file. Never 0. */
uint64_t kvbi_disk_identity(const struct kvbi_disk *disk, uint32_t slot,
                            const struct kvbi_identity *identity);

/* Of block_bytes bytes. */
uint64_t kvbi_disk_checksum(const struct kvbi_disk *disk, uint64_t identity, const void *payload);

bool kvbi_disk_has(const struct kvbi_disk *disk, uint32_t slot, uint64_t identity);
bool kvbi_disk_verify(const struct kvbi_disk *disk, uint32_t slot, uint64_t identity,
                      const void *payload);
/* In memory only. */
void kvbi_disk_forget(struct kvbi_disk *disk, uint32_t slot);

/*
 * Counts a failed read (result != 0, `cause` says why, `medium`: kvbi_disk_is_medium_error), or a
 * good one. True: the slot is not to be used again: its place on the medium failed, or it was the
 * second failure of another kind than I/O without a good read in between. What fails on the way
 * there (a cable, a controller, a full disk) says nothing about the slot. Progress.
 */
bool kvbi_disk_note_read(struct kvbi_disk *disk, uint32_t slot, int result,
                         enum kvbi_disk_cause cause, bool medium);
/* The same of a write. */
bool kvbi_disk_note_write(struct kvbi_disk *disk, uint32_t slot, int result, bool medium);

/* A block that has been written. */
struct kvbi_disk_publication {
    uint32_t slot;
    uint64_t identity, checksum;
    const struct kvbi_label *label; /* NULL: in memory only (engine tests without a store) */
    int result;                     /* out: 0 or KVB_EIO, KVB_ENOSPC: then it has nothing */
    bool medium;                    /* out, of a result that is not 0: kvbi_disk_is_medium_error */
    bool written;                   /* out: its entry is in the file */
};

/*
 * Writes their entries, all in one call where tables can be mapped, else neighbours in the table
 * together, and then sets their tags. A label of a time before the last clear that reached the file
 * is written all the same and counts for nothing. Progress; at most KVBI_DISK_PUBLISH_MAX; the
 * order of `list` may change.
 */
#define KVBI_DISK_PUBLISH_MAX KVBI_DISK_SCATTER_MAX
void kvbi_disk_publish(struct kvbi_disk *disk, struct kvbi_disk_publication *list, uint32_t count);

/* ---- What outlives the process --------------------------------------------------------------- */

/*
 * Reads the tables of the files that were kept, and sets the tags of what they have; whoever does
 * not want a block calls kvbi_disk_forget. Between create and the first copy. *cursor: 0 at first.
 * Returns how many of `found` it has filled, 0 at the end. Entries of an earlier epoch are passed
 * over, damaged ones are too and counted in their file's `dropped`.
 */
uint32_t kvbi_disk_scan(struct kvbi_disk *disk, uint64_t *cursor, struct kvbi_found *found,
                        uint32_t max);

/*
 * Everything written so far is void: durable in every file when it returns. `clears`: as in labels:
 * 0 before the first. Any thread; clear, renew and close_clean one at a time. KVB_EIO, KVB_ENOSPC:
 * what is in the files that could not be written may come back with a later run, unless a later
 * clear, renew or clean close reaches them.
 */
KVB_NODISCARD int kvbi_disk_clear(struct kvbi_disk *disk, uint64_t clears);

/*
 * The same for one file that takes synced writes, and its slots are as new in memory: nothing may
 * be under way to or from them. What has been cut off from it is taken again. KVB_EIO, KVB_ENOSPC:
 * it takes none.
 */
KVB_NODISCARD int kvbi_disk_renew(struct kvbi_disk *disk, uint32_t file);

/* The slot is not to be used again, by later runs too. Best effort: the file may be failing. */
void kvbi_disk_retire(struct kvbi_disk *disk, uint32_t slot);

/*
 * After the last copy: writes in which order the blocks were used, and that the files were closed.
 * order[0] goes first; slots that are not in it keep their age. Best effort: a file that cannot be
 * written stays as after a kill. Nothing but kvbi_disk_close may follow.
 */
void kvbi_disk_close_clean(struct kvbi_disk *disk, const uint32_t *order, uint32_t count);

#endif
