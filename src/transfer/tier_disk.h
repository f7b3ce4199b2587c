/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tier_disk - the slots of a disk tier: where they lie in the file, and what each of them is known to hold
 *
 * Owns       the file (opened by disk_file), and in memory 16 bytes a slot: the name of what was written there, and its checksum.
 * Callers    api/manager creates (kvbi_tier_destroy closes); engines write and read slots through transfer/disk_copy.
 * Invariants a slot whose entry names X holds X: the entry is emptied before a write begins and filled after its last byte was
 *            reported written. A file starts empty: a fresh random uuid is part of every name, and names are kept here only, so
 *            nothing that an earlier run left in the file can be taken for content.
 * Lock       none. The entry of a slot belongs to the one copy that is under way to it, or to those from it, and the engine's
 *            queue orders one after the other; that no copy to a slot overlaps another copy is the pipeline's promise.
 * Why        a name is the hash of (uuid, slot, identity), and the seed of the checksum over the payload: a payload of another
 *            slot, of an earlier generation, of other content or of another file fails, as torn and flipped bytes do. 64 bits, of
 *            which nobody outside knows the uuid: one wrong block in 2^64 wrong reads would pass.
 */
#ifndef KVBI_TRANSFER_TIER_DISK_H
#define KVBI_TRANSFER_TIER_DISK_H

#include <kvblock.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/hash.h"
#include "base/memory.h"

#include "transfer/disk_file.h"
#include "transfer/engine.h"
#include "transfer/tier.h"

struct kvbi_disk_entry {
    uint64_t name; /* 0: nothing that may be read */
    uint64_t checksum;
};

struct kvbi_disk {
    const struct kvbi_memory *memory;
    const struct kvbi_hash_ops *hash;
    struct kvbi_disk_file file;
    uint64_t block_bytes; /* payload */
    uint64_t slot_bytes;  /* in the file: padded to KVBI_DISK_ALIGN */
    uint32_t slot_count;
    uint64_t uuid[2];
    struct kvbi_disk_entry *entries;
    char mode[160]; /* for logs: "O_DIRECT, blocks of 5000 bytes padded to 8192" */
};

struct kvbi_disk_config {
    const char *path; /* copied nowhere: needed during the call only */
    uint32_t block_count;
    uint64_t block_bytes;
    bool buffered;                    /* never direct I/O */
    const struct kvbi_hash_ops *hash; /* NULL: the fastest of this machine */
};

/*
 * A tier of enum kvb_tier `id` with a disk and no addresses. `memory` must outlive it. kvbi_tier_destroy closes the file.
 * Errors     those of kvbi_disk_file_open, each with words in `message`        KVB_ENOMEM
 *            KVB_EINVAL  also: no blocks, or more bytes than a file can have       KVB_EUNSUPPORTED  also: no random numbers
 */
KVB_NODISCARD int kvbi_tier_disk_create(struct kvbi_tier *tier, const struct kvbi_memory *memory, uint32_t id,
                                        const struct kvbi_disk_config *config, char *message, size_t message_bytes);
void kvbi_disk_close(struct kvbi_disk *disk); /* NULL is legal */

/* For statistics: what the tables take. */
size_t kvbi_disk_bytes(const struct kvbi_disk *disk);

static inline uint64_t kvbi_disk_offset(const struct kvbi_disk *disk, uint32_t slot)
{
    return KVBI_DISK_DATA_OFFSET + (uint64_t)slot * disk->slot_bytes;
}

/* What this identity is called in this slot of this file. Never 0. */
uint64_t kvbi_disk_name(const struct kvbi_disk *disk, uint32_t slot, const struct kvbi_identity *identity);

/* Of block_bytes bytes. */
uint64_t kvbi_disk_checksum(const struct kvbi_disk *disk, uint64_t name, const void *payload);

bool kvbi_disk_holds(const struct kvbi_disk *disk, uint32_t slot, uint64_t name);
bool kvbi_disk_verify(const struct kvbi_disk *disk, uint32_t slot, uint64_t name, const void *payload);
void kvbi_disk_forget(struct kvbi_disk *disk, uint32_t slot);
void kvbi_disk_publish(struct kvbi_disk *disk, uint32_t slot, uint64_t name, uint64_t checksum);

#endif
