/* SPDX-License-Identifier: Apache-2.0 */
/* tier_disk - see tier_disk.h. */
#include "transfer/tier_disk.h"

#include <stdio.h>
#include <string.h>

#include "base/debug.h"
#include "base/platform.h"

/* ---- Entries ------------------------------------------------------------------------------------------------------ */

uint64_t kvbi_disk_name(const struct kvbi_disk *disk, uint32_t slot, const struct kvbi_identity *identity)
{
    const uint64_t words[] = {disk->uuid[0],       disk->uuid[1],       slot, identity->hash, identity->digest[0],
                              identity->digest[1], identity->generation};
    uint64_t name = disk->hash->hash64(words, sizeof words, 0);
    return name != 0 ? name : 1;
}

uint64_t kvbi_disk_checksum(const struct kvbi_disk *disk, uint64_t name, const void *payload)
{
    return disk->hash->hash64(payload, (size_t)disk->block_bytes, name);
}

bool kvbi_disk_holds(const struct kvbi_disk *disk, uint32_t slot, uint64_t name)
{
    return disk->entries[slot].name == name;
}

bool kvbi_disk_verify(const struct kvbi_disk *disk, uint32_t slot, uint64_t name, const void *payload)
{
    const struct kvbi_disk_entry *entry = &disk->entries[slot];
    return entry->name == name && entry->checksum == kvbi_disk_checksum(disk, name, payload);
}

void kvbi_disk_forget(struct kvbi_disk *disk, uint32_t slot)
{
    disk->entries[slot] = (struct kvbi_disk_entry){.name = 0};
}

void kvbi_disk_publish(struct kvbi_disk *disk, uint32_t slot, uint64_t name, uint64_t checksum)
{
    KVBI_ASSERT(name != 0);
    disk->entries[slot] = (struct kvbi_disk_entry){.name = name, .checksum = checksum};
}

size_t kvbi_disk_bytes(const struct kvbi_disk *disk)
{
    return sizeof *disk + disk->slot_count * sizeof *disk->entries;
}

/* ---- Create and destroy ------------------------------------------------------------------------------------------- */

static int say(char *message, size_t message_bytes, const char *path, const char *what, int code)
{
    if (message_bytes > 0)
        (void)snprintf(message, message_bytes, "%s: %s", path != NULL ? path : "", what);
    return code;
}

/* False: no file can be that long. */
static bool file_bytes(const struct kvbi_disk_config *config, uint64_t *slot_bytes, uint64_t *bytes)
{
    uint64_t data;
    if (config->block_count == 0 || config->block_bytes == 0 || config->block_bytes > INT64_MAX - KVBI_DISK_ALIGN)
        return false;
    *slot_bytes = (config->block_bytes + KVBI_DISK_ALIGN - 1) & ~(KVBI_DISK_ALIGN - 1);
    if (__builtin_mul_overflow(*slot_bytes, (uint64_t)config->block_count, &data) ||
        data > INT64_MAX - KVBI_DISK_DATA_OFFSET)
        return false;
    *bytes = KVBI_DISK_DATA_OFFSET + data;
    return true;
}

static void describe(struct kvbi_disk *disk)
{
    int used = snprintf(disk->mode, sizeof disk->mode, "%s", disk->file.mode);
    if (disk->slot_bytes != disk->block_bytes)
        (void)snprintf(disk->mode + used, sizeof disk->mode - (size_t)used, ", blocks of %llu bytes padded to %llu",
                       (unsigned long long)disk->block_bytes, (unsigned long long)disk->slot_bytes);
}

int kvbi_tier_disk_create(struct kvbi_tier *tier, const struct kvbi_memory *memory, uint32_t id,
                          const struct kvbi_disk_config *config, char *message, size_t message_bytes)
{
    struct kvbi_disk_header header = {.magic = KVBI_DISK_MAGIC, .slot_count = config->block_count};
    uint64_t bytes;
    int error = KVB_ENOMEM;
    *tier = (struct kvbi_tier){.memory = NULL};
    if (!file_bytes(config, &header.slot_bytes, &bytes))
        return say(message, message_bytes, config->path, "blocks x bytes is nothing, or more than a file can have",
                   KVB_EINVAL);
    if (kvbi_random_u64(&header.uuid[0]) != 0 || kvbi_random_u64(&header.uuid[1]) != 0)
        return say(message, message_bytes, config->path, "the system gives no random numbers to name its content by",
                   KVB_EUNSUPPORTED);
    struct kvbi_disk *disk = kvbi_memory_alloc(memory, 1, sizeof *disk, 0);
    if (disk == NULL)
        goto no_memory;
    disk->entries = kvbi_memory_alloc(memory, config->block_count, sizeof *disk->entries, 0);
    if (disk->entries == NULL)
        goto no_memory;
    error = kvbi_disk_file_open(&disk->file, config->path, bytes, &header, config->buffered, message, message_bytes);
    if (error != 0)
        goto free_disk;
    disk->memory = memory;
    disk->hash = config->hash != NULL ? config->hash : kvbi_hash_select(kvbi_isa_detect());
    disk->block_bytes = config->block_bytes;
    disk->slot_bytes = header.slot_bytes;
    disk->slot_count = config->block_count;
    memcpy(disk->uuid, header.uuid, sizeof disk->uuid);
    describe(disk);
    *tier = (struct kvbi_tier){.tier = id,
                               .block_count = config->block_count,
                               .block_bytes = config->block_bytes,
                               .memory = memory,
                               .disk = disk};
    return 0;

no_memory:
    error = say(message, message_bytes, config->path, "no memory for the table of its slots", KVB_ENOMEM);
free_disk:
    if (disk != NULL)
        kvbi_memory_free(memory, disk->entries, config->block_count, sizeof *disk->entries);
    kvbi_memory_free(memory, disk, 1, sizeof *disk);
    return error;
}

void kvbi_disk_close(struct kvbi_disk *disk)
{
    if (disk == NULL)
        return;
    const struct kvbi_memory *memory = disk->memory;
    kvbi_disk_file_close(&disk->file);
    kvbi_memory_free(memory, disk->entries, disk->slot_count, sizeof *disk->entries);
    kvbi_memory_free(memory, disk, 1, sizeof *disk);
}
