/* SPDX-License-Identifier: Apache-2.0 */
/* What outlives the process: entries, epochs, the order of use. See disk/tier.h. */
#include "transfer/disk/tier.h"

#include <fcntl.h>
#include <stddef.h>
#include <string.h>

#include "base/debug.h"
#include "transfer/disk/file.h"

static uint64_t entry_offset(const struct kvbi_disk *disk, uint32_t slot)
{
    return kvbi_disk_path_of(disk, slot)->table_offset +
           kvbi_disk_place_of(disk, slot) * KVBI_DISK_ENTRY_BYTES;
}

/* ---- Entries out -------------------------------------------------------------------------------------------------- */

static struct kvbi_disk_record record_of(struct kvbi_disk *disk,
                                         const struct kvbi_disk_publication *publication)
{
    const struct kvbi_disk_path *path = kvbi_disk_path_of(disk, publication->slot);
    struct kvbi_disk_record record = {.state = KVBI_DISK_ENTRY_BLOCK,
                                      .slot = kvbi_disk_place_of(disk, publication->slot),
                                      .uuid = {path->uuid[0], path->uuid[1]},
                                      .sequence = ++disk->sequence,
                                      .label = *publication->label,
                                      .payload_checksum = publication->checksum};
    record.label.clears += atomic_load_explicit(&path->epoch_base, memory_order_relaxed);
    record.label.payload_bytes = (uint32_t)disk->block_bytes;
    kvbi_disk_record_seal(disk->hash, &record);
    return record;
}

/*
 * Where the file ends, as far as that is to be trusted: in the last page of a mapping there is room behind the end of a file that was cut,
 * and what is put there is nowhere. A write there makes the file longer.
 */
static uint64_t end_of(const struct kvbi_disk_path *path)
{
    static const struct kvbi_disk_say nobody = {.path = ""};
    uint64_t bytes = 0;
    return kvbi_disk_file_size(&path->file, &bytes, &nobody) == 0 ? bytes : 0;
}

/* As many as the system puts into their mapped tables at once. What it does not, for whatever reason, is left to be written. */
static void publish_mapped(struct kvbi_disk *disk, struct kvbi_disk_publication *list,
                           uint32_t count)
{
    unsigned char *places[KVBI_DISK_PUBLISH_MAX];
    uint32_t which[KVBI_DISK_PUBLISH_MAX], staged = 0;
    uint64_t ends[KVBI_DISK_PATHS_MAX] = {0}; /* by path; 0: not looked at yet */
    if (disk->scatter.records == NULL)
        return;
    for (uint32_t i = 0; i < count; i++) {
        const struct kvbi_disk_path *path = kvbi_disk_path_of(disk, list[i].slot);
        uint64_t *end = &ends[list[i].slot % disk->path_count];
        if (list[i].label == NULL || path->table == NULL)
            continue;
        if (*end == 0)
            *end = end_of(path);
        if (entry_offset(disk, list[i].slot) + KVBI_DISK_ENTRY_BYTES > *end)
            continue;
        disk->scatter.records[staged] = record_of(disk, &list[i]);
        places[staged] =
            path->table + kvbi_disk_place_of(disk, list[i].slot) * KVBI_DISK_ENTRY_BYTES;
        which[staged++] = i;
    }
    for (uint32_t put = kvbi_disk_scatter_put(&disk->scatter, places, staged); put > 0; put--)
        list[which[put - 1]].written = true;
}

/* By path, then by place in its table. Few, and mostly in order already. */
static void sort_by_place(const struct kvbi_disk *disk, struct kvbi_disk_publication *list,
                          uint32_t count)
{
    for (uint32_t i = 1; i < count; i++) {
        const struct kvbi_disk_publication moved = list[i];
        uint32_t path = moved.slot % disk->path_count, at = i;
        for (; at > 0; at--) {
            uint32_t other = list[at - 1].slot % disk->path_count;
            if (other < path || (other == path && list[at - 1].slot < moved.slot))
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
           list[length].slot == list[length - 1].slot + disk->path_count)
        length++;
    return length;
}

static void publish_run(struct kvbi_disk *disk, struct kvbi_disk_publication *list, uint32_t count)
{
    struct kvbi_disk_record records[KVBI_DISK_PUBLISH_MAX];
    for (uint32_t i = 0; i < count; i++)
        records[i] = record_of(disk, &list[i]);
    int error = kvbi_disk_write(kvbi_disk_path_of(disk, list[0].slot)->file.table_fd, records,
                                count * sizeof *records, entry_offset(disk, list[0].slot));
    for (uint32_t i = 0; i < count; i++) {
        list[i].result = error == 0 ? 0 : kvbi_disk_error_of(error);
        list[i].medium = kvbi_disk_blames_medium(error);
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
        __builtin_prefetch(&disk->entries[list[i].slot], 1);
        list[i].result = 0;
        list[i].written = false;
    }
    publish_mapped(disk, list, count);
    for (uint32_t i = 0; i < count; i++)
        all &= list[i].written || list[i].label == NULL;
    if (!all)
        publish_runs(disk, list, count);
    for (uint32_t i = 0; i < count; i++) {
        KVBI_ASSERT(list[i].name != 0);
        if (list[i].result == 0)
            disk->entries[list[i].slot] =
                (struct kvbi_disk_entry){.name = list[i].name, .checksum = list[i].checksum};
    }
}

void kvbi_disk_retire(struct kvbi_disk *disk, uint32_t slot)
{
    const struct kvbi_disk_path *path = kvbi_disk_path_of(disk, slot);
    struct kvbi_disk_record record = {.state = KVBI_DISK_ENTRY_RETIRED,
                                      .slot = kvbi_disk_place_of(disk, slot),
                                      .uuid = {path->uuid[0], path->uuid[1]},
                                      .sequence = ++disk->sequence};
    kvbi_disk_record_seal(disk->hash, &record);
    kvbi_disk_forget(disk, slot);
    (void)!kvbi_disk_write(path->file.table_fd, &record, sizeof record, entry_offset(disk, slot));
}

/* ---- Entries in --------------------------------------------------------------------------------------------------- */

/* As many as fit into the buffer, stamps behind them. */
#define WINDOW ((uint32_t)3968)
_Static_assert(WINDOW *(KVBI_DISK_ENTRY_BYTES + sizeof(uint64_t)) <= KVBI_DISK_BUFFER_BYTES,
               "entries and stamps");
#define AHEAD_BYTES ((off_t)4 << 20)

static struct kvbi_disk_record *record_at(const struct kvbi_disk *disk, uint32_t at)
{
    return (struct kvbi_disk_record *)(void *)disk->buffer + at;
}

static uint64_t *stamps_of(const struct kvbi_disk *disk)
{
    return (uint64_t *)(void *)record_at(disk, WINDOW);
}

/* A page that cannot be read costs its own entries only. */
static void read_pages(struct kvbi_disk *disk, struct kvbi_disk_path *path, uint64_t offset,
                       uint32_t count)
{
    const uint32_t each = (uint32_t)(KVBI_DISK_ALIGN / KVBI_DISK_ENTRY_BYTES);
    for (uint32_t at = 0; at < count; at += each) {
        uint32_t part = count - at < each ? count - at : each;
        size_t bytes = part * sizeof(struct kvbi_disk_record);
        if (kvbi_disk_read(path->file.table_fd, record_at(disk, at), bytes,
                           offset + at * KVBI_DISK_ENTRY_BYTES) == 0)
            continue;
        memset(record_at(disk, at), 0, bytes);
        path->dropped += part;
    }
}

static void read_window(struct kvbi_disk *disk, uint32_t index, uint32_t first)
{
    struct kvbi_disk_path *path = &disk->paths[index];
    int fd = path->file.table_fd;
    uint32_t left = path->slot_count - first, count = left < WINDOW ? left : WINDOW;
    uint64_t offset = path->table_offset + first * KVBI_DISK_ENTRY_BYTES;
    uint64_t end = offset + count * KVBI_DISK_ENTRY_BYTES;
    if (kvbi_disk_read(fd, disk->buffer, count * sizeof(struct kvbi_disk_record), offset) != 0)
        read_pages(disk, path, offset, count);
    (void)posix_fadvise(fd, (off_t)end, AHEAD_BYTES,
                        POSIX_FADV_WILLNEED); /* while these are looked at */
    if (!path->stamped ||
        kvbi_disk_read(fd, stamps_of(disk), count * sizeof(uint64_t),
                       path->superblock.stamps_offset + first * sizeof(uint64_t)) != 0)
        memset(stamps_of(disk), 0, count * sizeof(uint64_t));
    disk->window.path = index;
    disk->window.first = first;
    disk->window.count = count;
}

static bool in_window(const struct kvbi_disk *disk, uint32_t index, uint32_t place)
{
    return disk->window.path == index && place >= disk->window.first &&
           place - disk->window.first < disk->window.count;
}

/*
 * An epoch that lies ahead of the superblock's is of a clear that did not reach the file: its entries are later than all others, and
 * clears to come must void them too.
 */
static bool epoch_counts(struct kvbi_disk_path *path, uint64_t epoch)
{
    if (epoch > atomic_load_explicit(&path->epoch_base, memory_order_relaxed))
        atomic_store_explicit(&path->epoch_base, epoch, memory_order_relaxed);
    return epoch >= path->superblock.epoch;
}

/* False: nothing to tell about that slot. */
static bool take_record(struct kvbi_disk *disk, uint32_t index, uint32_t place,
                        struct kvbi_found *found)
{
    struct kvbi_disk_path *path = &disk->paths[index];
    const struct kvbi_disk_record *record = record_at(disk, place - disk->window.first);
    uint32_t slot = place * disk->path_count + index;
    if (kvbi_disk_record_blank(record))
        return false;
    if (!kvbi_disk_record_valid(disk->hash, &path->superblock, place, record)) {
        path->dropped++;
        return false;
    }
    if (record->sequence > disk->sequence)
        disk->sequence = record->sequence;
    bool retired = record->state == KVBI_DISK_ENTRY_RETIRED;
    if (!retired && !epoch_counts(path, record->label.clears))
        return false;
    uint64_t stamp = stamps_of(disk)[place - disk->window.first];
    *found = (struct kvbi_found){.slot = slot,
                                 .retired = retired,
                                 .label = record->label,
                                 .sequence = record->sequence,
                                 .age = stamp != 0 ? stamp : record->sequence};
    if (!retired)
        disk->entries[slot] = (struct kvbi_disk_entry){
            .name = kvbi_disk_name_of(disk->hash, path->uuid, place, record->label.hash,
                                      record->label.digest, record->label.generation),
            .checksum = record->payload_checksum};
    return true;
}

/* The cursor: a path in its upper half, a place in its table in the lower. */
uint32_t kvbi_disk_scan(struct kvbi_disk *disk, uint64_t *cursor, struct kvbi_found *found,
                        uint32_t max)
{
    uint32_t count = 0, index = (uint32_t)(*cursor >> 32), place = (uint32_t)*cursor;
    while (count < max && index < disk->path_count) {
        struct kvbi_disk_path *path = &disk->paths[index];
        if (place == 0)
            path->dropped = 0;
        if (!path->kept || place == path->slot_count) {
            index++;
            place = 0;
            continue;
        }
        if (!in_window(disk, index, place))
            read_window(disk, index, place);
        count += take_record(disk, index, place++, &found[count]);
    }
    *cursor = (uint64_t)index << 32 | place;
    return count;
}

/* ---- Epochs ------------------------------------------------------------------------------------------------------- */

static int write_epoch(const struct kvbi_disk *disk, struct kvbi_disk_path *path, uint64_t epoch)
{
    struct kvbi_disk_superblock next = path->superblock;
    next.epoch = epoch;
    int error = kvbi_disk_path_write_both(path, disk->hash, &next);
    return error != 0 ? kvbi_disk_error_of(error) : 0;
}

/* Of what is written to that file from now on. */
static uint64_t epoch_of(const struct kvbi_disk *disk, const struct kvbi_disk_path *path)
{
    return atomic_load_explicit(&path->epoch_base, memory_order_relaxed) +
           atomic_load_explicit(&disk->clears, memory_order_relaxed);
}

int kvbi_disk_clear(struct kvbi_disk *disk, uint64_t clears)
{
    int first = 0;
    atomic_store_explicit(&disk->clears, clears, memory_order_relaxed);
    for (uint32_t i = 0; i < disk->path_count; i++) {
        int error = write_epoch(disk, &disk->paths[i], epoch_of(disk, &disk->paths[i]));
        if (first == 0)
            first = error;
    }
    return first;
}

int kvbi_disk_renew(struct kvbi_disk *disk, uint32_t index)
{
    struct kvbi_disk_path *path = &disk->paths[index];
    static const struct kvbi_disk_say nobody = {.path = ""};
    int error = kvbi_disk_file_take_room(&path->file, path->superblock.file_bytes,
                                         path->file.sparse, &nobody);
    if (error == 0)
        error = write_epoch(disk, path, epoch_of(disk, path) + 1);
    if (error != 0)
        return error == KVB_ENOSPC ? KVB_ENOSPC : KVB_EIO;
    atomic_fetch_add_explicit(&path->epoch_base, 1, memory_order_relaxed);
    for (uint32_t slot = index; slot < disk->slot_count; slot += disk->path_count) {
        kvbi_disk_forget(disk, slot);
        disk->failures[slot] = 0;
    }
    return 0;
}

/* ---- Clean close -------------------------------------------------------------------------------------------------- */

/* Nobody reads entries any more: a slot's stamp takes the place of its checksum. One scale with the sequences: later writes are later. */
static void stamp_entries(struct kvbi_disk *disk, const uint32_t *order, uint32_t count)
{
    for (uint32_t slot = 0; slot < disk->slot_count; slot++)
        disk->entries[slot] = (struct kvbi_disk_entry){.name = 0, .checksum = 0};
    for (uint32_t i = 0; i < count; i++)
        disk->entries[order[i]].checksum = ++disk->sequence;
}

/* 0 or an errno. *sum: their checksum. */
static int write_stamps(const struct kvbi_disk *disk, uint32_t index, uint64_t *sum)
{
    const struct kvbi_disk_path *path = &disk->paths[index];
    uint64_t *stamps = (uint64_t *)(void *)disk->buffer;
    int error = 0;
    for (uint32_t first = 0; error == 0 && first < path->slot_count;
         first += KVBI_DISK_STAMPS_LINK) {
        uint32_t left = path->slot_count - first,
                 count = left < KVBI_DISK_STAMPS_LINK ? left : KVBI_DISK_STAMPS_LINK;
        for (uint32_t i = 0; i < count; i++)
            stamps[i] = disk->entries[(first + i) * disk->path_count + index].checksum;
        *sum = kvbi_disk_stamps_checksum(disk->hash, stamps, count, *sum);
        error = kvbi_disk_write(path->file.table_fd, stamps, count * sizeof *stamps,
                                path->superblock.stamps_offset + first * sizeof *stamps);
    }
    return error;
}

/* Makes good a clear that could not be written to this file. 0 or an error. */
static int repeat_clear(const struct kvbi_disk *disk, struct kvbi_disk_path *path)
{
    uint64_t epoch = epoch_of(disk, path);
    bool cleared = atomic_load_explicit(&disk->clears, memory_order_relaxed) > 0;
    return cleared && path->superblock.epoch < epoch ? write_epoch(disk, path, epoch) : 0;
}

/* What the superblock will vouch for is durable before it. */
static void close_path(struct kvbi_disk *disk, uint32_t index)
{
    struct kvbi_disk_path *path = &disk->paths[index];
    if (repeat_clear(disk, path) != 0)
        return;
    struct kvbi_disk_superblock next = path->superblock;
    next.flags = KVBI_DISK_CLEAN;
    next.sequence = disk->sequence;
    next.stamps_checksum = path->superblock.serial + 1; /* that of `next` begins the chain */
    if (write_stamps(disk, index, &next.stamps_checksum) != 0 ||
        kvbi_disk_sync(path->file.table_fd) != 0)
        return;
    (void)!kvbi_disk_path_write(path, disk->hash, &next);
}

void kvbi_disk_close_clean(struct kvbi_disk *disk, const uint32_t *order, uint32_t count)
{
    stamp_entries(disk, order, count);
    for (uint32_t i = 0; i < disk->path_count; i++)
        close_path(disk, i);
}
