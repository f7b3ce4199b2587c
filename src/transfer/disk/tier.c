/* SPDX-License-Identifier: Apache-2.0 */
/* disk/tier - see tier.h. What outlives the process is in table.c. */
#include "transfer/disk/tier.h"

#include <stdio.h>
#include <string.h>

#include "base/debug.h"
#include "base/platform.h"
#include "transfer/disk/io.h"

/* ---- Tags ------------------------------------------------------------------------------------ */

uint64_t kvbi_disk_identity(const struct kvbi_disk *disk, uint32_t slot,
                            const struct kvbi_identity *identity)
{
    return kvbi_disk_identity_of(disk->hash, kvbi_disk_file_of(disk, slot)->uuid,
                                 kvbi_disk_place_of(disk, slot), identity->hash, identity->digest,
                                 identity->generation);
}

uint64_t kvbi_disk_checksum(const struct kvbi_disk *disk, uint64_t identity, const void *payload)
{
    return disk->hash->hash64(payload, (size_t)disk->block_bytes, identity);
}

bool kvbi_disk_has(const struct kvbi_disk *disk, uint32_t slot, uint64_t identity)
{
    return disk->tags[slot].identity == identity;
}

bool kvbi_disk_verify(const struct kvbi_disk *disk, uint32_t slot, uint64_t identity,
                      const void *payload)
{
    const struct kvbi_disk_tag *tag = &disk->tags[slot];
    return tag->identity == identity &&
           tag->checksum == kvbi_disk_checksum(disk, identity, payload);
}

void kvbi_disk_forget(struct kvbi_disk *disk, uint32_t slot)
{
    disk->tags[slot] = (struct kvbi_disk_tag){.identity = 0};
}

/* ---- Counters -------------------------------------------------------------------------------- */

static void count(_Atomic uint64_t *counter, uint64_t by)
{
    atomic_fetch_add_explicit(counter, by, memory_order_relaxed);
}

bool kvbi_disk_note_read(struct kvbi_disk *disk, uint32_t slot, int result,
                         enum kvbi_disk_cause cause, bool medium)
{
    struct kvbi_disk_file *file = kvbi_disk_file_of(disk, slot);
    if (result == 0) {
        count(&file->bytes_read, disk->block_bytes);
        disk->failures[slot] = 0;
        return false;
    }
    count(&file->read_errors[cause], 1);
    if (cause == KVBI_DISK_CAUSE_IO)
        return medium;
    if (disk->failures[slot] < UINT8_MAX)
        disk->failures[slot]++;
    return disk->failures[slot] > 1;
}

bool kvbi_disk_note_write(struct kvbi_disk *disk, uint32_t slot, int result, bool medium)
{
    struct kvbi_disk_file *file = kvbi_disk_file_of(disk, slot);
    if (result == 0)
        count(&file->bytes_written, disk->block_bytes);
    else
        count(&file->write_errors, 1);
    return result != 0 && medium;
}

size_t kvbi_disk_bytes(const struct kvbi_disk *disk)
{
    return sizeof *disk + disk->file_count * sizeof *disk->files + KVBI_DISK_BUFFER_BYTES +
           disk->slot_count * (sizeof *disk->tags + sizeof *disk->failures);
}

/* ---- Files ----------------------------------------------------------------------------------- */

static uint32_t slots_of(const struct kvbi_disk *disk, uint32_t file)
{
    return disk->slot_count / disk->file_count + (file < disk->slot_count % disk->file_count);
}

/* Two names of one file: said as that, not as somebody else's lock. */
static int check_twins(const struct kvbi_disk *disk, uint32_t at, const struct kvbi_disk_say *say)
{
    for (uint32_t i = 0; i < at; i++)
        if (kvbi_disk_io_is(&disk->files[i].io, disk->files[at].path))
            return kvbi_disk_refuse(say, KVB_EBUSY, "is the same file as %s", disk->files[i].path);
    return 0;
}

/* What each has, and whether that is to be kept. */
static int look_at_all(struct kvbi_disk *disk, struct kvbi_disk_say *say)
{
    struct kvbi_disk_terms *terms = &disk->terms;
    uint64_t seed = terms->purpose.digest_seed;
    for (uint32_t i = 0; i < disk->file_count; i++) {
        struct kvbi_disk_file *file = &disk->files[i];
        say->path = file->path;
        int error = check_twins(disk, i, say);
        if (error == 0)
            error = kvbi_disk_file_open(file, terms, say);
        if (error == 0)
            error = kvbi_disk_file_decide(file, terms, &seed, say);
        if (error != 0)
            return error;
        if (kvbi_random_u64(&file->uuid[0]) != 0 || kvbi_random_u64(&file->uuid[1]) != 0)
            return kvbi_disk_refuse(say, KVB_EUNSUPPORTED,
                                    "the system gives no random numbers to name its content by");
    }
    while (seed == 0)
        if (kvbi_random_u64(&seed) != 0)
            return kvbi_disk_refuse(say, KVB_EUNSUPPORTED,
                                    "the system gives no random numbers for a digest seed");
    terms->purpose.digest_seed = disk->digest_seed = seed;
    return 0;
}

static int take_all_room(struct kvbi_disk *disk, struct kvbi_disk_say *say)
{
    int error = 0;
    for (uint32_t i = 0; error == 0 && i < disk->file_count; i++) {
        say->path = disk->files[i].path;
        error = kvbi_disk_file_take_room(&disk->files[i], &disk->terms, slots_of(disk, i), say);
    }
    return error;
}

/* Tables where commit will put them. What cannot be mapped is written to. 0, or the first errno. */
static int map_tables(struct kvbi_disk *disk)
{
    struct kvbi_disk_superblock placed;
    kvbi_disk_scatter_open(&disk->scatter);
    int first = disk->scatter.error, error;
    for (uint32_t i = 0; disk->scatter.entries != NULL && i < disk->file_count; i++) {
        if (!kvbi_disk_place(&placed, disk->block_bytes, slots_of(disk, i)))
            continue; /* checked at the beginning */
        disk->files[i].table = kvbi_disk_scatter_map(
            disk->files[i].io.table_fd, placed.table_offset, slots_of(disk, i), &error);
        first = first != 0 ? first : error;
    }
    return first;
}

/* The first file's mode, and those of others where they differ. */
static void describe(struct kvbi_disk *disk)
{
    const struct kvbi_disk_file *first = &disk->files[0];
    size_t used = (size_t)snprintf(disk->mode, sizeof disk->mode, "%s", first->mode);
    for (uint32_t i = 1; i < disk->file_count && used < sizeof disk->mode; i++)
        if (strcmp(disk->files[i].mode, first->mode) != 0)
            used += (size_t)snprintf(disk->mode + used, sizeof disk->mode - used, ", path %u %s", i,
                                     disk->files[i].mode);
    if (used < sizeof disk->mode && disk->slot_bytes != disk->block_bytes)
        (void)snprintf(disk->mode + used, sizeof disk->mode - used,
                       ", blocks of %llu bytes padded to %llu",
                       (unsigned long long)disk->block_bytes, (unsigned long long)disk->slot_bytes);
    used = strlen(disk->mode);
    if (disk->map_error != 0)
        (void)snprintf(disk->mode + used, sizeof disk->mode - used, ", table not mapped: %s",
                       kvbi_errno_text(disk->map_error));
}

/* ---- Create and destroy ---------------------------------------------------------------------- */

static const char *path_at(const struct kvbi_disk_config *config, uint32_t at)
{
    return config->path_count > at && config->paths[at] != NULL ? config->paths[at] : "";
}

static void free_disk(struct kvbi_disk *disk, bool discard)
{
    const struct kvbi_memory *memory = disk->memory;
    for (uint32_t i = 0; disk->files != NULL && i < disk->file_count; i++) {
        struct kvbi_disk_file *file = &disk->files[i];
        if (file->path == NULL)
            continue;
        kvbi_disk_scatter_unmap(file->table, slots_of(disk, i));
        kvbi_disk_file_close(file, discard);
        kvbi_memory_free(memory, file->path, strlen(file->path) + 1, 1);
    }
    kvbi_disk_scatter_close(&disk->scatter);
    kvbi_memory_free(memory, disk->buffer, 1, KVBI_DISK_BUFFER_BYTES);
    kvbi_memory_free(memory, disk->failures, disk->slot_count, sizeof *disk->failures);
    kvbi_memory_free(memory, disk->tags, disk->slot_count, sizeof *disk->tags);
    kvbi_memory_free(memory, disk->files, disk->file_count, sizeof *disk->files);
    kvbi_memory_free(memory, disk, 1, sizeof *disk);
}

static struct kvbi_disk *take_memory(const struct kvbi_memory *memory,
                                     const struct kvbi_disk_config *config)
{
    struct kvbi_disk *disk = kvbi_memory_alloc(memory, 1, sizeof *disk, 0);
    if (disk == NULL)
        return NULL;
    disk->memory = memory;
    disk->scatter.fd = -1;
    disk->file_count = config->path_count;
    disk->slot_count = config->block_count;
    disk->files = kvbi_memory_alloc(memory, disk->file_count, sizeof *disk->files, 0);
    disk->tags = kvbi_memory_alloc(memory, disk->slot_count, sizeof *disk->tags, 0);
    disk->failures = kvbi_memory_alloc(memory, disk->slot_count, sizeof *disk->failures, 0);
    disk->buffer = kvbi_memory_alloc_raw(memory, 1, KVBI_DISK_BUFFER_BYTES, KVBI_DISK_ALIGN);
    bool whole =
        disk->files != NULL && disk->tags != NULL && disk->failures != NULL && disk->buffer != NULL;
    for (uint32_t i = 0; whole && i < disk->file_count; i++) {
        size_t bytes = strlen(path_at(config, i)) + 1;
        disk->files[i].io = (struct kvbi_disk_io){.fd = -1, .table_fd = -1};
        disk->files[i].path = kvbi_memory_alloc_raw(memory, bytes, 1, 0);
        whole = disk->files[i].path != NULL;
        if (whole)
            memcpy(disk->files[i].path, path_at(config, i), bytes);
    }
    if (whole)
        return disk;
    free_disk(disk, false);
    return NULL;
}

static int check_config(const struct kvbi_disk_config *config, const struct kvbi_disk_say *say)
{
    struct kvbi_disk_superblock largest;
    if (config->path_count == 0)
        return kvbi_disk_refuse(say, KVB_EINVAL, "a disk tier needs a path");
    if (config->path_count > KVBI_DISK_FILES_MAX)
        return kvbi_disk_refuse(say, KVB_EINVAL, "and others are %u paths, more than %u",
                                config->path_count, KVBI_DISK_FILES_MAX);
    if (config->block_count > 0 && config->block_count < config->path_count)
        return kvbi_disk_refuse(say, KVB_EINVAL, "and others are %u paths for %u blocks",
                                config->path_count, config->block_count);
    uint32_t slots =
        config->block_count / config->path_count + (config->block_count % config->path_count != 0);
    if (!kvbi_disk_place(&largest, config->purpose.block_bytes, slots))
        return kvbi_disk_refuse(say, KVB_EINVAL,
                                "blocks x bytes is nothing, or more than a file can have");
    return 0;
}

int kvbi_tier_disk_create(struct kvbi_tier *tier, const struct kvbi_memory *memory, uint32_t id,
                          const struct kvbi_disk_config *config, char *message,
                          size_t message_bytes)
{
    struct kvbi_disk_say say = {
        .path = path_at(config, 0), .text = message, .bytes = message_bytes};
    *tier = (struct kvbi_tier){.ops = NULL};
    if (message_bytes > 0)
        message[0] = '\0';
    int error = check_config(config, &say);
    if (error != 0)
        return error;
    struct kvbi_disk *disk = take_memory(memory, config);
    if (disk == NULL)
        return kvbi_disk_refuse(&say, KVB_ENOMEM, "no memory for the table of its slots");
    disk->hash = config->hash != NULL ? config->hash : kvbi_hash_select(kvbi_isa_detect());
    disk->block_bytes = config->purpose.block_bytes;
    disk->slot_bytes = kvbi_disk_slot_bytes(disk->block_bytes);
    disk->terms = (struct kvbi_disk_terms){.purpose = config->purpose,
                                           .flags = config->flags,
                                           .buffered = config->buffered,
                                           .hash = disk->hash,
                                           .buffer = disk->buffer};
    error = look_at_all(disk, &say);
    if (error == 0)
        error = take_all_room(disk, &say);
    if (error != 0) {
        free_disk(disk, true);
        return error;
    }
    disk->map_error = map_tables(disk);
    describe(disk);
    *tier = (struct kvbi_tier){.ops = &kvbi_disk_ops,
                               .tier = id,
                               .block_count = disk->slot_count,
                               .block_bytes = disk->block_bytes,
                               .lasting = &kvbi_disk_lasting_ops,
                               .memory = memory,
                               .self = disk};
    return 0;
}

int kvbi_disk_commit(struct kvbi_disk *disk, char *message, size_t message_bytes)
{
    struct kvbi_disk_say say = {.text = message, .bytes = message_bytes};
    int error = 0;
    for (uint32_t i = 0; error == 0 && i < disk->file_count; i++) {
        struct kvbi_disk_file *file = &disk->files[i];
        say.path = file->path;
        error = kvbi_disk_file_commit(file, &disk->terms, slots_of(disk, i), &say);
        if (disk->sequence < file->superblock.sequence)
            disk->sequence = file->superblock.sequence;
    }
    disk->committed = error == 0;
    describe(disk); /* one may have turned out to take no direct writes */
    return error;
}

void kvbi_disk_close(struct kvbi_disk *disk)
{
    if (disk != NULL)
        free_disk(disk, !disk->committed);
}
