/* SPDX-License-Identifier: Apache-2.0 */
/* What outlives the process: entries, epochs, the order of use. See disk/tier.h. */
#include "transfer/disk/tier.h"

#include <fcntl.h>
#include <stddef.h>
#include <string.h>

#include "base/debug.h"
#include "transfer/disk/io.h"

static uint64_t entry_offset(const struct kvbi_disk *disk, uint32_t slot)
{
    return kvbi_disk_file_of(disk, slot)->table_offset +
           kvbi_disk_place_of(disk, slot) * KVBI_DISK_ENTRY_BYTES;
}

/* ---- Entries out ----------------------------------------------------------------------------- */

static struct kvbi_disk_entry entry_of(struct kvbi_disk *disk,
                                       const struct kvbi_disk_publication *publication)
{
    const struct kvbi_disk_file *file = kvbi_disk_file_of(disk, publication->slot);
    struct kvbi_disk_entry entry = {.state = KVBI_DISK_ENTRY_BLOCK,
                                    .slot = kvbi_disk_place_of(disk, publication->slot),
                                    .uuid = {file->uuid[0], file->uuid[1]},
                                    .sequence = ++disk->sequence,
                                    .label = *publication->label,
                                    .payload_checksum = publication->checksum};
    entry.label.clears += atomic_load_explicit(&file->epoch_base, memory_order_relaxed);
    entry.label.payload_bytes = (uint32_t)disk->block_bytes;
    kvbi_disk_entry_seal(disk->hash, &entry);
    return entry;
}

/*
 * Where the file ends, as far as that is to be trusted: in the last page of a mapping there is room
 * behind the end of a file that was cut, and what is put there is nowhere. A write there makes the
 * file longer.
 */
static uint64_t end_of(const struct kvbi_disk_file *file)
{
    static const struct kvbi_disk_say nobody = {.path = ""};
    uint64_t bytes = 0;
    return kvbi_disk_io_size(&file->io, &bytes, &nobody) == 0 ? bytes : 0;
}

/*
 * As many as the system puts into their mapped tables at once. What it does not, for whatever
 * reason, is left to be written.
 */
static void publish_mapped(struct kvbi_disk *disk, struct kvbi_disk_publication *list,
                           uint32_t count)
{
    unsigned char *places[KVBI_DISK_PUBLISH_MAX];
    uint32_t which[KVBI_DISK_PUBLISH_MAX], staged = 0;
    uint64_t ends[KVBI_DISK_FILES_MAX] = {0}; /* by file; 0: not looked at yet */
    if (disk->scatter.entries == NULL)
        return;
    for (uint32_t i = 0; i < count; i++) {
        const struct kvbi_disk_file *file = kvbi_disk_file_of(disk, list[i].slot);
        uint64_t *end = &ends[list[i].slot % disk->file_count];
        if (list[i].label == NULL || file->table == NULL)
            continue;
        if (*end == 0)
            *end = end_of(file);
        if (entry_offset(disk, list[i].slot) + KVBI_DISK_ENTRY_BYTES > *end)
            continue;
        disk->scatter.entries[staged] = entry_of(disk, &list[i]);
        places[staged] =
            file->table + kvbi_disk_place_of(disk, list[i].slot) * KVBI_DISK_ENTRY_BYTES;
        which[staged++] = i;
    }
    for (uint32_t put = kvbi_disk_scatter_put(&disk->scatter, places, staged); put > 0; put--)
        list[which[put - 1]].written = true;
}

/* By file, then by place in its table. Few, and mostly in order already. */
static void sort_by_place(const struct kvbi_disk *disk, struct kvbi_disk_publication *list,
                          uint32_t count)
{
    for (uint32_t i = 1; i < count; i++) {
        const struct kvbi_disk_publication moved = list[i];
        uint32_t file = moved.slot % disk->file_count, at = i;
        for (; at > 0; at--) {
            uint32_t other = list[at - 1].slot % disk->file_count;
            if (other < file || (other == file && list[at - 1].slot < moved.slot))
                break;
            list[at] = list[at - 1];
        }
        list[at] = moved;
    }
}

/* How many from list[0] on lie side by side in one table. */
static uint32_t run_length(const struct kvbi_disk *disk, const struct kvbi_disk_publication *list,
                           uint32_t count)
{
    uint32_t length = 1;
    while (length < count && list[length].label != NULL && !list[length].written &&
           list[length].slot == list[length - 1].slot + disk->file_count)
        length++;
    return length;
}

static void publish_run(struct kvbi_disk *disk, struct kvbi_disk_publication *list, uint32_t count)
{
    struct kvbi_disk_entry entries[KVBI_DISK_PUBLISH_MAX];
    for (uint32_t i = 0; i < count; i++)
        entries[i] = entry_of(disk, &list[i]);
    int error = kvbi_disk_write(kvbi_disk_file_of(disk, list[0].slot)->io.table_fd, entries,
                                count * sizeof *entries, entry_offset(disk, list[0].slot));
    for (uint32_t i = 0; i < count; i++) {
        list[i].result = error == 0 ? 0 : kvbi_disk_error_of(error);
        list[i].medium = kvbi_disk_is_medium_error(error);
        list[i].written = error == 0;
    }
}

/* One call for each run of neighbours. */
static void publish_runs(struct kvbi_disk *disk, struct kvbi_disk_publication *list, uint32_t count)
{
    sort_by_place(disk, list, count);
    for (uint32_t i = 0, length; i < count; i += length) {
        length = 1;
        if (list[i].label == NULL || list[i].written)
            continue;
        length = run_length(disk, list + i, count - i);
        publish_run(disk, list + i, length);
    }
}

void kvbi_disk_publish(struct kvbi_disk *disk, struct kvbi_disk_publication *list, uint32_t count)
{
    bool all = true;
    KVBI_ASSERT(count <= KVBI_DISK_PUBLISH_MAX);
    for (uint32_t i = 0; i < count; i++) {
        __builtin_prefetch(&disk->tags[list[i].slot], 1);
        list[i].result = 0;
        list[i].written = false;
    }
    publish_mapped(disk, list, count);
    for (uint32_t i = 0; i < count; i++)
        all &= list[i].written || list[i].label == NULL;
    if (!all)
        publish_runs(disk, list, count);
    for (uint32_t i = 0; i < count; i++) {
        KVBI_ASSERT(list[i].identity != 0);
        if (list[i].result == 0)
            disk->tags[list[i].slot] =
                (struct kvbi_disk_tag){.identity = list[i].identity, .checksum = list[i].checksum};
    }
}

void kvbi_disk_retire(struct kvbi_disk *disk, uint32_t slot)
{
    const struct kvbi_disk_file *file = kvbi_disk_file_of(disk, slot);
    struct kvbi_disk_entry entry = {.state = KVBI_DISK_ENTRY_RETIRED,
                                    .slot = kvbi_disk_place_of(disk, slot),
                                    .uuid = {file->uuid[0], file->uuid[1]},
                                    .sequence = ++disk->sequence};
    kvbi_disk_entry_seal(disk->hash, &entry);
    kvbi_disk_forget(disk, slot);
    (void)!kvbi_disk_write(file->io.table_fd, &entry, sizeof entry, entry_offset(disk, slot));
}

/* ---- Entries in ------------------------------------------------------------------------------ */

/* As many as fit into the buffer, stamps behind them. */
#define WINDOW ((uint32_t)3968)
_Static_assert(WINDOW *(KVBI_DISK_ENTRY_BYTES + sizeof(uint64_t)) <= KVBI_DISK_BUFFER_BYTES,
               "entries and stamps");
#define AHEAD_BYTES ((off_t)4 << 20)

static struct kvbi_disk_entry *entry_at(const struct kvbi_disk *disk, uint32_t at)
{
    return (struct kvbi_disk_entry *)(void *)disk->buffer + at;
}

static uint64_t *stamps_of(const struct kvbi_disk *disk)
{
    return (uint64_t *)(void *)entry_at(disk, WINDOW);
}

/* A page that cannot be read costs its own entries only. */
static void read_pages(struct kvbi_disk *disk, struct kvbi_disk_file *file, uint64_t offset,
                       uint32_t count)
{
    const uint32_t each = (uint32_t)(KVBI_DISK_ALIGN / KVBI_DISK_ENTRY_BYTES);
    for (uint32_t at = 0; at < count; at += each) {
        uint32_t part = count - at < each ? count - at : each;
        size_t bytes = part * sizeof(struct kvbi_disk_entry);
        if (kvbi_disk_read(file->io.table_fd, entry_at(disk, at), bytes,
                           offset + at * KVBI_DISK_ENTRY_BYTES) == 0)
            continue;
        memset(entry_at(disk, at), 0, bytes);
        file->dropped += part;
    }
}

static void read_window(struct kvbi_disk *disk, uint32_t index, uint32_t first)
{
    struct kvbi_disk_file *file = &disk->files[index];
    int fd = file->io.table_fd;
    uint32_t left = file->slot_count - first, count = left < WINDOW ? left : WINDOW;
    uint64_t offset = file->table_offset + first * KVBI_DISK_ENTRY_BYTES;
    uint64_t end = offset + count * KVBI_DISK_ENTRY_BYTES;
    if (kvbi_disk_read(fd, disk->buffer, count * sizeof(struct kvbi_disk_entry), offset) != 0)
        read_pages(disk, file, offset, count);
    /* while these are looked at */
    (void)posix_fadvise(fd, (off_t)end, AHEAD_BYTES, POSIX_FADV_WILLNEED);
    if (!file->stamped ||
        kvbi_disk_read(fd, stamps_of(disk), count * sizeof(uint64_t),
                       file->superblock.stamps_offset + first * sizeof(uint64_t)) != 0)
        memset(stamps_of(disk), 0, count * sizeof(uint64_t));
    disk->window.file = index;
    disk->window.first = first;
    disk->window.count = count;
}

static bool in_window(const struct kvbi_disk *disk, uint32_t index, uint32_t place)
{
    return disk->window.file == index && place >= disk->window.first &&
           place - disk->window.first < disk->window.count;
}

/*
 * An epoch that lies ahead of the superblock's is of a clear that did not reach the file: its
 * entries are later than all others, and clears to come must void them too.
 */
static bool epoch_counts(struct kvbi_disk_file *file, uint64_t epoch)
{
    if (epoch > atomic_load_explicit(&file->epoch_base, memory_order_relaxed))
        atomic_store_explicit(&file->epoch_base, epoch, memory_order_relaxed);
    return epoch >= file->superblock.epoch;
}

/* False: nothing to tell about that slot. */
static bool take_entry(struct kvbi_disk *disk, uint32_t index, uint32_t place,
                       struct kvbi_found *found)
{
    struct kvbi_disk_file *file = &disk->files[index];
    const struct kvbi_disk_entry *entry = entry_at(disk, place - disk->window.first);
    uint32_t slot = place * disk->file_count + index;
    if (kvbi_disk_entry_blank(entry))
        return false;
    if (!kvbi_disk_entry_valid(disk->hash, &file->superblock, place, entry)) {
        file->dropped++;
        return false;
    }
    if (entry->sequence > disk->sequence)
        disk->sequence = entry->sequence;
    bool retired = entry->state == KVBI_DISK_ENTRY_RETIRED;
    if (!retired && !epoch_counts(file, entry->label.clears))
        return false;
    uint64_t stamp = stamps_of(disk)[place - disk->window.first];
    *found = (struct kvbi_found){.slot = slot,
                                 .retired = retired,
                                 .label = entry->label,
                                 .sequence = entry->sequence,
                                 .age = stamp != 0 ? stamp : entry->sequence};
    if (!retired)
        disk->tags[slot] = (struct kvbi_disk_tag){
            .identity = kvbi_disk_identity_of(disk->hash, file->uuid, place, entry->label.hash,
                                              entry->label.digest, entry->label.generation),
            .checksum = entry->payload_checksum};
    return true;
}

/* The cursor: a file in its upper half, a place in its table in the lower. */
uint32_t kvbi_disk_scan(struct kvbi_disk *disk, uint64_t *cursor, struct kvbi_found *found,
                        uint32_t max)
{
    uint32_t count = 0, index = (uint32_t)(*cursor >> 32), place = (uint32_t)*cursor;
    while (count < max && index < disk->file_count) {
        struct kvbi_disk_file *file = &disk->files[index];
        if (place == 0)
            file->dropped = 0;
        if (!file->kept || place == file->slot_count) {
            index++;
            place = 0;
            continue;
        }
        if (!in_window(disk, index, place))
            read_window(disk, index, place);
        count += take_entry(disk, index, place++, &found[count]);
    }
    *cursor = (uint64_t)index << 32 | place;
    return count;
}

/* ---- Epochs ---------------------------------------------------------------------------------- */

static int write_epoch(const struct kvbi_disk *disk, struct kvbi_disk_file *file, uint64_t epoch)
{
    struct kvbi_disk_superblock next = file->superblock;
    next.epoch = epoch;
    int error = kvbi_disk_file_write_both(file, disk->hash, &next);
    return error != 0 ? kvbi_disk_error_of(error) : 0;
}

/* Of what is written to that file from now on. */
static uint64_t epoch_of(const struct kvbi_disk *disk, const struct kvbi_disk_file *file)
{
    return atomic_load_explicit(&file->epoch_base, memory_order_relaxed) +
           atomic_load_explicit(&disk->clears, memory_order_relaxed);
}

int kvbi_disk_clear(struct kvbi_disk *disk, uint64_t clears)
{
    int first = 0;
    atomic_store_explicit(&disk->clears, clears, memory_order_relaxed);
    for (uint32_t i = 0; i < disk->file_count; i++) {
        int error = write_epoch(disk, &disk->files[i], epoch_of(disk, &disk->files[i]));
        if (first == 0)
            first = error;
    }
    return first;
}

int kvbi_disk_renew(struct kvbi_disk *disk, uint32_t index)
{
    struct kvbi_disk_file *file = &disk->files[index];
    static const struct kvbi_disk_say nobody = {.path = ""};
    int error =
        kvbi_disk_io_take_room(&file->io, file->superblock.file_bytes, file->io.sparse, &nobody);
    if (error == 0)
        error = write_epoch(disk, file, epoch_of(disk, file) + 1);
    if (error != 0)
        return error == KVB_ENOSPC ? KVB_ENOSPC : KVB_EIO;
    atomic_fetch_add_explicit(&file->epoch_base, 1, memory_order_relaxed);
    for (uint32_t slot = index; slot < disk->slot_count; slot += disk->file_count) {
        kvbi_disk_forget(disk, slot);
        disk->failures[slot] = 0;
    }
    return 0;
}

/* ---- Clean close ----------------------------------------------------------------------------- */

/*
 * Nobody reads tags any more: a slot's stamp takes the place of its checksum. One scale with the
 * sequences: later writes are later.
 */
static void stamp_tags(struct kvbi_disk *disk, const uint32_t *order, uint32_t count)
{
    for (uint32_t slot = 0; slot < disk->slot_count; slot++)
        disk->tags[slot] = (struct kvbi_disk_tag){.identity = 0, .checksum = 0};
    for (uint32_t i = 0; i < count; i++)
        disk->tags[order[i]].checksum = ++disk->sequence;
}

/* 0 or an errno. *sum: their checksum. */
static int write_stamps(const struct kvbi_disk *disk, uint32_t index, uint64_t *sum)
{
    const struct kvbi_disk_file *file = &disk->files[index];
    uint64_t *stamps = (uint64_t *)(void *)disk->buffer;
    int error = 0;
    for (uint32_t first = 0; error == 0 && first < file->slot_count;
         first += KVBI_DISK_STAMPS_LINK) {
        uint32_t left = file->slot_count - first,
                 count = left < KVBI_DISK_STAMPS_LINK ? left : KVBI_DISK_STAMPS_LINK;
        for (uint32_t i = 0; i < count; i++)
            stamps[i] = disk->tags[(first + i) * disk->file_count + index].checksum;
        *sum = kvbi_disk_stamps_checksum(disk->hash, stamps, count, *sum);
        error = kvbi_disk_write(file->io.table_fd, stamps, count * sizeof *stamps,
                                file->superblock.stamps_offset + first * sizeof *stamps);
    }
    return error;
}

/* Makes good a clear that could not be written to this file. 0 or an error. */
static int repeat_clear(const struct kvbi_disk *disk, struct kvbi_disk_file *file)
{
    uint64_t epoch = epoch_of(disk, file);
    bool cleared = atomic_load_explicit(&disk->clears, memory_order_relaxed) > 0;
    return cleared && file->superblock.epoch < epoch ? write_epoch(disk, file, epoch) : 0;
}

/* What the superblock will vouch for is durable before it. */
static void close_file(struct kvbi_disk *disk, uint32_t index)
{
    struct kvbi_disk_file *file = &disk->files[index];
    if (repeat_clear(disk, file) != 0)
        return;
    struct kvbi_disk_superblock next = file->superblock;
    next.flags = KVBI_DISK_CLEAN;
    next.sequence = disk->sequence;
    next.stamps_checksum = file->superblock.serial + 1; /* that of `next` begins the chain */
    if (write_stamps(disk, index, &next.stamps_checksum) != 0 ||
        kvbi_disk_sync(file->io.table_fd) != 0)
        return;
    (void)!kvbi_disk_file_write(file, disk->hash, &next);
}

void kvbi_disk_close_clean(struct kvbi_disk *disk, const uint32_t *order, uint32_t count)
{
    stamp_tags(disk, order, count);
    for (uint32_t i = 0; i < disk->file_count; i++)
        close_file(disk, i);
}
