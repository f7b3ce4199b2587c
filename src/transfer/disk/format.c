/* SPDX-License-Identifier: Apache-2.0 */
/* disk/format - see format.h. */
#include "transfer/disk/format.h"

#include <stdio.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "what lies in memory is what lies in the file");
_Static_assert(sizeof(struct kvbi_disk_purpose) == 56, "without padding");
_Static_assert(sizeof(struct kvbi_disk_superblock) == 184, "without padding");

#define SUPERBLOCK_CHECKED offsetof(struct kvbi_disk_superblock, checksum)
#define RECORD_CHECKED offsetof(struct kvbi_disk_entry, checksum)

static bool all_zero(const void *bytes, size_t count)
{
    const unsigned char *at = bytes;
    return count == 0 || (at[0] == 0 && memcmp(at, at + 1, count - 1) == 0);
}

static uint64_t aligned_up(uint64_t bytes)
{
    return (bytes + KVBI_DISK_ALIGN - 1) & ~(KVBI_DISK_ALIGN - 1);
}

/* ---- Superblocks ----------------------------------------------------------------------------- */

uint64_t kvbi_disk_slot_bytes(uint64_t block_bytes)
{
    return aligned_up(block_bytes);
}

bool kvbi_disk_place(struct kvbi_disk_superblock *superblock, uint64_t block_bytes,
                     uint32_t slot_count)
{
    uint64_t data;
    if (slot_count == 0 || block_bytes == 0 || block_bytes > UINT32_MAX)
        return false;
    superblock->slot_bytes = kvbi_disk_slot_bytes(block_bytes);
    superblock->slot_count = slot_count;
    superblock->entry_bytes = (uint32_t)KVBI_DISK_ENTRY_BYTES;
    superblock->data_offset = KVBI_DISK_DATA_OFFSET;
    if (__builtin_mul_overflow(superblock->slot_bytes, (uint64_t)slot_count, &data))
        return false;
    uint64_t table = aligned_up(slot_count * KVBI_DISK_ENTRY_BYTES);
    uint64_t stamps = aligned_up(slot_count * sizeof(uint64_t));
    if (data > INT64_MAX - KVBI_DISK_DATA_OFFSET - table - stamps)
        return false;
    superblock->table_offset = KVBI_DISK_DATA_OFFSET + data;
    superblock->stamps_offset = superblock->table_offset + table;
    superblock->file_bytes = superblock->stamps_offset + stamps;
    return true;
}

static uint64_t superblock_checksum(const struct kvbi_hash_ops *hash,
                                    const struct kvbi_disk_superblock *superblock)
{
    return hash->hash64(superblock, SUPERBLOCK_CHECKED, KVBI_DISK_VERSION);
}

void kvbi_disk_superblock_seal(const struct kvbi_hash_ops *hash,
                               struct kvbi_disk_superblock *superblock)
{
    memcpy(superblock->magic, KVBI_DISK_MAGIC, sizeof superblock->magic);
    superblock->version = KVBI_DISK_VERSION;
    superblock->bytes = sizeof *superblock;
    superblock->checksum = superblock_checksum(hash, superblock);
}

static bool superblock_consistent(const struct kvbi_disk_superblock *found)
{
    struct kvbi_disk_superblock placed = *found;
    return found->bytes == sizeof *found && found->zero == 0 &&
           (found->flags & ~(uint32_t)KVBI_DISK_CLEAN) == 0 &&
           kvbi_disk_place(&placed, found->purpose.block_bytes, found->slot_count) &&
           memcmp(&placed, found, sizeof placed) == 0;
}

/* Would it be whole if it had the magic? */
static bool magic_alone_damaged(const struct kvbi_hash_ops *hash,
                                const struct kvbi_disk_superblock *found)
{
    struct kvbi_disk_superblock repaired = *found;
    memcpy(repaired.magic, KVBI_DISK_MAGIC, sizeof repaired.magic);
    return repaired.checksum == superblock_checksum(hash, &repaired);
}

enum kvbi_disk_verdict kvbi_disk_superblock_judge(const struct kvbi_hash_ops *hash,
                                                  const void *page,
                                                  struct kvbi_disk_superblock *superblock)
{
    memcpy(superblock, page, sizeof *superblock);
    if (all_zero(page, KVBI_DISK_SUPERBLOCK_BYTES))
        return KVBI_DISK_BLANK;
    if (memcmp(superblock->magic, KVBI_DISK_MAGIC, sizeof superblock->magic) != 0)
        return magic_alone_damaged(hash, superblock) ? KVBI_DISK_DAMAGED : KVBI_DISK_FOREIGN;
    if (superblock->version != KVBI_DISK_VERSION)
        return KVBI_DISK_VERSION_UNKNOWN;
    if (superblock->checksum != superblock_checksum(hash, superblock) ||
        !superblock_consistent(superblock) ||
        !all_zero((const char *)page + sizeof *superblock,
                  KVBI_DISK_SUPERBLOCK_BYTES - sizeof *superblock))
        return KVBI_DISK_DAMAGED;
    return KVBI_DISK_VALID;
}

static bool differs(const char *field, uint64_t wanted, uint64_t found, char *words,
                    size_t words_bytes)
{
    if (wanted == found)
        return false;
    (void)snprintf(words, words_bytes, "%s is %llu, the file's is %llu", field,
                   (unsigned long long)wanted, (unsigned long long)found);
    return true;
}

bool kvbi_disk_purpose_differs(const struct kvbi_disk_purpose *wanted,
                               const struct kvbi_disk_purpose *found, char *words,
                               size_t words_bytes)
{
    if (differs("layout.layers", wanted->layers, found->layers, words, words_bytes) ||
        differs("layout.parts", wanted->parts, found->parts, words, words_bytes) ||
        differs("layout.chunk_bytes", wanted->chunk_bytes, found->chunk_bytes, words,
                words_bytes) ||
        differs("the size of a block", wanted->block_bytes, found->block_bytes, words,
                words_bytes) ||
        differs("tokens_per_block", wanted->tokens_per_block, found->tokens_per_block, words,
                words_bytes) ||
        differs("key_bytes", wanted->key_bytes, found->key_bytes, words, words_bytes))
        return true;
    if (memcmp(wanted->fingerprint, found->fingerprint, sizeof wanted->fingerprint) == 0)
        return false;
    (void)snprintf(words, words_bytes, "model is another one than that of the file");
    return true;
}

/* ---- Entries --------------------------------------------------------------------------------- */

static uint64_t record_checksum(const struct kvbi_hash_ops *hash,
                                const struct kvbi_disk_entry *entry)
{
    return hash->hash64(entry, RECORD_CHECKED, entry->slot);
}

void kvbi_disk_entry_seal(const struct kvbi_hash_ops *hash, struct kvbi_disk_entry *entry)
{
    entry->checksum = record_checksum(hash, entry);
}

bool kvbi_disk_entry_blank(const struct kvbi_disk_entry *entry)
{
    return entry->checksum == 0 && all_zero(entry, sizeof *entry);
}

static bool label_consistent(const struct kvbi_disk_purpose *purpose,
                             const struct kvbi_label *label)
{
    size_t rest = KVB_KEY_BYTES_MAX - purpose->key_bytes;
    return label->payload_bytes == purpose->block_bytes && label->has_parent <= 1 &&
           label->priority <= KVB_PRIORITY_MAX && all_zero(label->zero, sizeof label->zero) &&
           all_zero(label->key + purpose->key_bytes, rest) &&
           all_zero(label->parent_key + purpose->key_bytes, rest);
}

bool kvbi_disk_entry_valid(const struct kvbi_hash_ops *hash,
                           const struct kvbi_disk_superblock *superblock, uint32_t slot,
                           const struct kvbi_disk_entry *entry)
{
    if (entry->slot != slot || memcmp(entry->uuid, superblock->uuid, sizeof entry->uuid) != 0 ||
        entry->checksum != record_checksum(hash, entry) || entry->sequence == 0)
        return false;
    if (entry->state == KVBI_DISK_ENTRY_RETIRED)
        return all_zero(&entry->label, sizeof entry->label) && entry->payload_checksum == 0;
    return entry->state == KVBI_DISK_ENTRY_BLOCK &&
           label_consistent(&superblock->purpose, &entry->label);
}

uint64_t kvbi_disk_identity_of(const struct kvbi_hash_ops *hash, const uint64_t uuid[2],
                               uint32_t slot, uint64_t key_hash, const uint64_t digest[2],
                               uint64_t generation)
{
    const uint64_t words[] = {uuid[0], uuid[1], slot, key_hash, digest[0], digest[1], generation};
    uint64_t identity = hash->hash64(words, sizeof words, 0);
    return identity != 0 ? identity : 1;
}

uint64_t kvbi_disk_stamps_checksum(const struct kvbi_hash_ops *hash, const uint64_t *stamps,
                                   size_t count, uint64_t before)
{
    return hash->hash64(stamps, count * sizeof *stamps, before);
}
