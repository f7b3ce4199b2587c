/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk/format - the bytes of a disk tier's file, and what makes them believable
 *
 * Owns       the layout (docs/disk-format.md describes it byte by byte), its checksums, and the
 *            judgement of what was read.
 * Callers    transfer/disk/file reads and writes superblocks, transfer/disk/tier entries. Pure
 *            functions: no I/O, no lock.
 * Invariants every struct here is written as it lies in memory, little-endian, without padding;
 *            bytes that mean nothing are zero and checked. A change of meaning is a new version.
 * Why        entries lie in one table, not in front of each payload: 4 KiB a slot would be 6 % of a
 *            block of 64 KiB, and a restart would read them one by one (100,000 a second; a table
 *            of 256 bytes an entry comes at 2 GB/s).
 */
#ifndef KVBI_TRANSFER_DISK_FORMAT_H
#define KVBI_TRANSFER_DISK_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <kvblock.h>

#include "base/hash.h"
#include "transfer/label.h"

#define KVBI_DISK_MAGIC "kvblock"
#define KVBI_DISK_VERSION 1

/*
 * Direct I/O wants memory, offset and length in multiples of the device's block: never more than
 * this in practice.
 */
#define KVBI_DISK_ALIGN ((uint64_t)4096)

/*
 * The first slot starts here: past the superblocks, and on a boundary of every stripe or erase
 * block worth having.
 */
#define KVBI_DISK_DATA_OFFSET ((uint64_t)1 << 20)

/* Superblock i of two lies at i x this. */
#define KVBI_DISK_SUPERBLOCK_BYTES ((uint64_t)4096)

enum kvbi_disk_superblock_flags {
    KVBI_DISK_CLEAN = 1, /* closed, nothing written since: the stamps are those of the close */
};

/* What a file is for: a file of another purpose is refused. */
struct kvbi_disk_purpose {
    uint64_t block_bytes;   /* payload */
    uint32_t layers, parts; /* struct kvb_layout */
    uint64_t chunk_bytes;
    uint32_t tokens_per_block;
    uint32_t key_bytes;   /* 0: built-in sequence hashes; else the caller's keys of this length */
    uint64_t digest_seed; /* of the 128-bit digests, and of the hashes of the caller's keys */
    /* of kvb_config.model: XXH3-128, seed 0; of no bytes if there is none */
    uint64_t fingerprint[2];
};

struct kvbi_disk_superblock {
    char magic[8];
    uint32_t version;
    uint32_t bytes; /* of this struct: what the checksum covers */
    uint64_t uuid[2];
    uint64_t serial; /* the newer of two valid superblocks has the larger one */
    uint64_t epoch;  /* entries of another epoch stand for nothing: cleared */
    struct kvbi_disk_purpose purpose;
    uint64_t slot_bytes; /* block_bytes, padded to KVBI_DISK_ALIGN */
    uint32_t slot_count;
    uint32_t entry_bytes;
    uint64_t data_offset, table_offset, stamps_offset, file_bytes;
    /* with KVBI_DISK_CLEAN: kvbi_disk_stamps_checksum of all, begun with the serial. Else 0 */
    uint64_t stamps_checksum;
    uint64_t sequence; /* none larger had been given out at the last clean close */
    uint32_t flags;
    uint32_t zero;
    uint64_t checksum; /* XXH3-64 of all before it, seed: version. The rest of the page is zero */
};

/*
 * A slot that never had anything is all zeros; of a retired one only state, slot, uuid, sequence
 * and checksum are not.
 */
enum kvbi_disk_entry_state {
    KVBI_DISK_ENTRY_NONE = 0,
    KVBI_DISK_ENTRY_BLOCK = 1,
    KVBI_DISK_ENTRY_RETIRED = 2
};

/*
 * The label is what a block is, apart from where it lies: all that is needed to find it again. Zero
 * where it does not apply.
 */
struct kvbi_disk_entry {
    uint32_t state; /* enum kvbi_disk_entry_state */
    uint32_t slot;  /* of the file */
    uint64_t uuid[2];
    /*
     * of the write, from 1, in this and all other files of the tier: the newer of two has the
     * larger one
     */
    uint64_t sequence;
    /* clears: the epoch; payload_bytes: those of every block of the file */
    struct kvbi_label label;
    /* XXH3-64 of block_bytes, seeded with the identity (kvbi_disk_identity_of) */
    uint64_t payload_checksum;
    uint64_t checksum; /* XXH3-64 of all before it, seed: slot */
};

#define KVBI_DISK_ENTRY_BYTES ((uint64_t)sizeof(struct kvbi_disk_entry))
_Static_assert(sizeof(struct kvbi_label) == 208, "without padding");
_Static_assert(sizeof(struct kvbi_disk_entry) == 256, "16 entries a page, none across two");

/*
 * How many slots' stamps are checked together: kvbi_disk_stamps_checksum is a chain, each link
 * begun with the one before.
 */
#define KVBI_DISK_STAMPS_LINK ((uint32_t)131072)

/* What a block takes: padded to KVBI_DISK_ALIGN. */
uint64_t kvbi_disk_slot_bytes(uint64_t block_bytes);

/*
 * Where things lie in a file of so many slots. False: nothing to keep, blocks of 4 GiB, or no file
 * can be that long.
 */
bool kvbi_disk_place(struct kvbi_disk_superblock *superblock, uint64_t block_bytes,
                     uint32_t slot_count);

/* Sets the checksum. */
void kvbi_disk_superblock_seal(const struct kvbi_hash_ops *hash,
                               struct kvbi_disk_superblock *superblock);
void kvbi_disk_entry_seal(const struct kvbi_hash_ops *hash, struct kvbi_disk_entry *entry);

enum kvbi_disk_verdict {
    KVBI_DISK_VALID,
    KVBI_DISK_BLANK,   /* zeros: never written */
    KVBI_DISK_FOREIGN, /* not kvblock's */
    KVBI_DISK_VERSION_UNKNOWN,
    /* checksum, a field that contradicts another, or something where nothing should be */
    KVBI_DISK_DAMAGED
};

/* Of KVBI_DISK_SUPERBLOCK_BYTES as read. `superblock` is what lies there, whatever the verdict. */
enum kvbi_disk_verdict kvbi_disk_superblock_judge(const struct kvbi_hash_ops *hash,
                                                  const void *page,
                                                  struct kvbi_disk_superblock *superblock);

/*
 * What differs, in words ("tokens_per_block is 16, the file's is 32"), or false: nothing does. The
 * digest seed is not looked at.
 */
bool kvbi_disk_purpose_differs(const struct kvbi_disk_purpose *wanted,
                               const struct kvbi_disk_purpose *found, char *words,
                               size_t words_bytes);

bool kvbi_disk_entry_blank(const struct kvbi_disk_entry *entry);

/*
 * An entry as read from the place of `slot`: whole, of this file and this slot? Whatever its epoch;
 * not of a blank one.
 */
bool kvbi_disk_entry_valid(const struct kvbi_hash_ops *hash,
                           const struct kvbi_disk_superblock *superblock, uint32_t slot,
                           const struct kvbi_disk_entry *entry);

/* The identity of this content in this slot of this file: seeds its payload's checksum. Never 0. */
uint64_t kvbi_disk_identity_of(const struct kvbi_hash_ops *hash, const uint64_t uuid[2],
                               uint32_t slot, uint64_t key_hash, const uint64_t digest[2],
                               uint64_t generation);

/*
 * The next link; `before`: the link before, at first the superblock's serial. KVBI_DISK_STAMPS_LINK
 * stamps but for the last one.
 */
uint64_t kvbi_disk_stamps_checksum(const struct kvbi_hash_ops *hash, const uint64_t *stamps,
                                   size_t count, uint64_t before);

#endif
