/* SPDX-License-Identifier: Apache-2.0 */
/* disk/path - see path.h. */
#include "transfer/disk/path.h"

#include "transfer/disk/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Adds to the note. */
__attribute__((format(printf, 2, 3))) static void note(struct kvbi_disk_path *path,
                                                       const char *format, ...)
{
    va_list arguments;
    size_t used = strlen(path->note);
    if (used > 0 && used + 2 < sizeof path->note)
        used += (size_t)snprintf(path->note + used, sizeof path->note - used, "; ");
    va_start(arguments, format);
    (void)vsnprintf(path->note + used, sizeof path->note - used, format, arguments);
    va_end(arguments);
}

/* ---- Superblocks -------------------------------------------------------------------------------------------------- */

int kvbi_disk_path_write(struct kvbi_disk_path *path, const struct kvbi_hash_ops *hash,
                         struct kvbi_disk_superblock *next)
{
    _Alignas(KVBI_DISK_ALIGN) unsigned char page[KVBI_DISK_SUPERBLOCK_BYTES] = {0};
    uint32_t at = 1 - path->superblock_at;
    next->serial = path->superblock.serial + 1;
    kvbi_disk_superblock_seal(hash, next);
    memcpy(page, next, sizeof *next);
    int error =
        kvbi_disk_write_synced(path->file.fd, page, sizeof page, at * KVBI_DISK_SUPERBLOCK_BYTES);
    if (error != 0)
        return error;
    path->superblock = *next;
    path->superblock_at = at;
    return 0;
}

int kvbi_disk_path_write_both(struct kvbi_disk_path *path, const struct kvbi_hash_ops *hash,
                              struct kvbi_disk_superblock *next)
{
    int error = kvbi_disk_path_write(path, hash, next);
    return error != 0 ? error : kvbi_disk_path_write(path, hash, next);
}

struct finding {
    enum kvbi_disk_verdict verdict;
    struct kvbi_disk_superblock superblock;
    int error; /* it could not be read: says as little as a blank one */
};

static struct finding read_superblock(const struct kvbi_disk_path *path,
                                      const struct kvbi_hash_ops *hash, uint32_t at)
{
    struct finding found = {.verdict = KVBI_DISK_BLANK};
    _Alignas(KVBI_DISK_ALIGN) unsigned char page[KVBI_DISK_SUPERBLOCK_BYTES];
    found.error = kvbi_disk_read(path->file.fd, page, sizeof page, at * KVBI_DISK_SUPERBLOCK_BYTES);
    if (found.error == 0)
        found.verdict = kvbi_disk_superblock_judge(hash, page, &found.superblock);
    return found;
}

static void take_finding(struct kvbi_disk_path *path, const struct finding *found, uint32_t at)
{
    path->verdict = found->verdict;
    path->superblock_at = at;
    if (found->verdict == KVBI_DISK_VALID)
        path->superblock = found->superblock;
    else if (found->verdict == KVBI_DISK_VERSION_UNKNOWN)
        path->version = found->superblock.version;
}

/* The newer of two whole ones counts; a whole one beside anything else; else whatever says most about what the file is. */
static int read_superblocks(struct kvbi_disk_path *path, const struct kvbi_hash_ops *hash,
                            const struct kvbi_disk_say *say)
{
    static const enum kvbi_disk_verdict order[] = {KVBI_DISK_VALID, KVBI_DISK_VERSION_UNKNOWN,
                                                   KVBI_DISK_DAMAGED, KVBI_DISK_FOREIGN,
                                                   KVBI_DISK_BLANK};
    struct finding found[2] = {read_superblock(path, hash, 0), read_superblock(path, hash, 1)};
    if (found[0].error != 0 && found[1].error != 0)
        return kvbi_disk_refuse(say, KVB_EIO, "cannot be read: %s",
                                kvbi_errno_text(found[0].error));
    /* A file system, a partition table, a volume or swap made there since: it need not have reached the other one. */
    for (int i = 0; path->file.device && i < 2; i++)
        if (found[i].verdict == KVBI_DISK_FOREIGN)
            found[1 - i] = found[i];
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        bool first = found[0].verdict == order[i], second = found[1].verdict == order[i];
        if (!first && !second)
            continue;
        uint32_t at =
            !first || (second && found[1].superblock.serial >= found[0].superblock.serial);
        take_finding(path, &found[at], at);
        if (path->verdict == KVBI_DISK_VALID && found[1 - at].verdict != KVBI_DISK_VALID)
            note(path, "superblock %u of 2 was not whole, the other one counts", 2 - at);
        break;
    }
    return 0;
}

/* ---- What is there ------------------------------------------------------------------------------------------------ */

/* From `offset` on, up to `end`, holes of a file passed over: what need not be zero. */
static uint64_t next_data(const struct kvbi_disk_path *path, uint64_t offset, uint64_t end)
{
    if (path->file.device)
        return offset;
    off_t at = lseek(path->file.fd, (off_t)offset, SEEK_DATA);
    if (at < 0)
        return errno == ENXIO ? end : offset;
    return (uint64_t)at;
}

/* Nothing but zeros between here and the end? Of a device: of its first MiB, which no file system or partition table leaves empty. */
static int check_blank(const struct kvbi_disk_path *path, const struct kvbi_disk_terms *terms,
                       uint64_t offset, const struct kvbi_disk_say *say)
{
    uint64_t end = KVBI_DISK_DATA_OFFSET;
    int refused = path->file.device ? 0 : kvbi_disk_file_size(&path->file, &end, say);
    while (refused == 0 && (offset = next_data(path, offset, end)) < end) {
        size_t bytes =
            end - offset < KVBI_DISK_BUFFER_BYTES ? (size_t)(end - offset) : KVBI_DISK_BUFFER_BYTES;
        int error = kvbi_disk_read(path->file.fd, terms->buffer, bytes, offset);
        if (error != 0)
            return kvbi_disk_refuse(say, KVB_EIO, "cannot be read: %s", kvbi_errno_text(error));
        if (terms->buffer[0] != 0 || memcmp(terms->buffer, terms->buffer + 1, bytes - 1) != 0)
            return kvbi_disk_refuse(
                say, KVB_EMISMATCH,
                "holds something that kvblock has not written; it is left alone");
        offset += bytes;
    }
    return refused;
}

static int look(struct kvbi_disk_path *path, const struct kvbi_disk_terms *terms,
                const struct kvbi_disk_say *say)
{
    uint64_t bytes = 0;
    int error = read_superblocks(path, terms->hash, say);
    if (error != 0)
        return error;
    if (path->verdict == KVBI_DISK_BLANK || path->verdict == KVBI_DISK_FOREIGN)
        return check_blank(path, terms, 0, say);
    if (path->file.device)
        error = check_blank(path, terms, 2 * KVBI_DISK_SUPERBLOCK_BYTES, say);
    if (error != 0)
        return error;
    error = kvbi_disk_file_size(&path->file, &bytes, say);
    if (error == 0 && path->verdict == KVBI_DISK_VALID && bytes < path->superblock.file_bytes)
        note(path, "had been cut from %llu to %llu bytes, what lay behind is lost",
             (unsigned long long)path->superblock.file_bytes, (unsigned long long)bytes);
    return error;
}

int kvbi_disk_path_open(struct kvbi_disk_path *path, const struct kvbi_disk_terms *terms,
                        const struct kvbi_disk_say *say)
{
    path->verdict = KVBI_DISK_BLANK;
    path->superblock_at = 1;
    int error = kvbi_disk_file_open(&path->file, say);
    return error == 0 && !path->file.created ? look(path, terms, say) : error;
}

/* Why it cannot be kept, or false. */
static bool unfit(const struct kvbi_disk_path *path, const struct kvbi_disk_terms *terms,
                  uint64_t seed, char *words, size_t words_bytes)
{
    const struct kvbi_disk_purpose *has = &path->superblock.purpose;
    if (path->verdict == KVBI_DISK_VERSION_UNKNOWN)
        (void)snprintf(words, words_bytes, "is of format version %u, this library knows %u",
                       path->version, (unsigned)KVBI_DISK_VERSION);
    else if (path->verdict == KVBI_DISK_DAMAGED)
        (void)snprintf(words, words_bytes, "both of its superblocks are damaged");
    else if (kvbi_disk_purpose_differs(&terms->purpose, has, words, words_bytes))
        return true;
    else if (seed != 0 && has->digest_seed != seed)
        (void)snprintf(words, words_bytes, "digest_seed is another one than that of the file%s",
                       terms->purpose.digest_seed != 0 ? "" : "; a path before it decides");
    else
        return false;
    return true;
}

int kvbi_disk_path_decide(struct kvbi_disk_path *path, const struct kvbi_disk_terms *terms,
                          uint64_t *seed, const struct kvbi_disk_say *say)
{
    char words[128];
    if (path->verdict == KVBI_DISK_BLANK || (terms->flags & KVB_DISK_START_EMPTY) != 0)
        return 0;
    if (!unfit(path, terms, *seed, words, sizeof words)) {
        path->kept = true;
        *seed = path->superblock.purpose.digest_seed;
        return 0;
    }
    if ((terms->flags & KVB_DISK_EMPTY_ON_MISMATCH) == 0)
        return kvbi_disk_refuse(say, KVB_EMISMATCH, "%s; it is left alone", words);
    note(path, "starts empty: %s", words);
    return 0;
}

static void say_mode(struct kvbi_disk_path *path, const char *format, const char *reason)
{
    int used = snprintf(path->mode, sizeof path->mode, format, reason);
    if (used > 0 && (size_t)used < sizeof path->mode && path->file.sparse)
        (void)snprintf(path->mode + used, sizeof path->mode - (size_t)used,
                       ", sparse: no fallocate");
}

static int use_buffers(struct kvbi_disk_path *path, int why)
{
    int error = kvbi_disk_file_set_direct(&path->file, false);
    say_mode(path, "buffered (no O_DIRECT: %s)", kvbi_errno_text(why));
    return error;
}

/* Direct I/O, if one page can be read that way: writing is tried by settle. */
static int choose_mode(struct kvbi_disk_path *path, const struct kvbi_disk_terms *terms)
{
    _Alignas(KVBI_DISK_ALIGN) unsigned char page[KVBI_DISK_SUPERBLOCK_BYTES];
    if (terms->buffered) {
        say_mode(path, "buffered (%s)", "asked for");
        return 0;
    }
    int error = kvbi_disk_file_set_direct(&path->file, true);
    if (error == 0)
        error = kvbi_disk_read(path->file.fd, page, sizeof page,
                               path->superblock_at * KVBI_DISK_SUPERBLOCK_BYTES);
    if (error != 0)
        return use_buffers(path, error);
    say_mode(path, "%s", "O_DIRECT");
    return 0;
}

int kvbi_disk_path_take_room(struct kvbi_disk_path *path, const struct kvbi_disk_terms *terms,
                             uint32_t slot_count, const struct kvbi_disk_say *say)
{
    struct kvbi_disk_superblock placed;
    if (!kvbi_disk_place(&placed, terms->purpose.block_bytes, slot_count))
        return kvbi_disk_refuse(say, KVB_EINVAL,
                                "blocks x bytes is nothing, or more than a file can have");
    int refused = kvbi_disk_file_take_room(&path->file, placed.file_bytes,
                                           (terms->flags & KVB_DISK_ALLOW_SPARSE) != 0, say);
    if (refused != 0)
        return refused;
    int error = choose_mode(path, terms);
    return error == 0
               ? 0
               : kvbi_disk_refuse(say, KVB_EIO, "cannot be used: %s", kvbi_errno_text(error));
}

/* ---- Table and stamps --------------------------------------------------------------------------------------------- */

static int zero(const struct kvbi_disk_path *path, uint64_t offset, uint64_t bytes,
                unsigned char *buffer)
{
    int error = 0;
    if (bytes == 0 || fallocate(path->file.table_fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
                                (off_t)offset, (off_t)bytes) == 0)
        return 0;
    memset(buffer, 0, KVBI_DISK_BUFFER_BYTES);
    for (uint64_t done = 0; error == 0 && done < bytes; done += KVBI_DISK_BUFFER_BYTES) {
        uint64_t left = bytes - done;
        error = kvbi_disk_write(
            path->file.table_fd, buffer,
            left < KVBI_DISK_BUFFER_BYTES ? (size_t)left : KVBI_DISK_BUFFER_BYTES, offset + done);
    }
    return error;
}

struct array {
    uint64_t from, to, item_bytes;
    uint64_t before, after; /* items */
};

/* What fits, from the end that no part still to be moved is overwritten at; zeros behind it. */
static int move_array(const struct kvbi_disk_path *path, const struct array *array,
                      unsigned char *buffer)
{
    uint64_t kept =
                 (array->before < array->after ? array->before : array->after) * array->item_bytes,
             step;
    int error = 0, fd = path->file.table_fd;
    for (uint64_t done = 0; error == 0 && done < kept; done += step) {
        step = kept - done < KVBI_DISK_BUFFER_BYTES ? kept - done : KVBI_DISK_BUFFER_BYTES;
        uint64_t at = array->to > array->from ? kept - done - step : done;
        error = kvbi_disk_read(fd, buffer, (size_t)step, array->from + at);
        if (error == 0)
            error = kvbi_disk_write(fd, buffer, (size_t)step, array->to + at);
    }
    return error != 0
               ? error
               : zero(path, array->to + kept, array->after * array->item_bytes - kept, buffer);
}

/*
 * To where they belong with another number of slots: synced before a superblock says so. When the file grows, the stamps have to be out
 * of the way first; when it shrinks, the table. Interrupted, it costs entries: those that are not in their place are not believed.
 */
static int move_table(const struct kvbi_disk_path *path, const struct kvbi_disk_superblock *next,
                      unsigned char *buffer)
{
    const struct kvbi_disk_superblock *now = &path->superblock;
    const struct array table = {now->table_offset, next->table_offset, KVBI_DISK_ENTRY_BYTES,
                                now->slot_count, next->slot_count};
    const struct array stamps = {now->stamps_offset, next->stamps_offset, sizeof(uint64_t),
                                 now->slot_count, next->slot_count};
    bool grows = next->slot_count > now->slot_count;
    int error = move_array(path, grows ? &stamps : &table, buffer);
    if (error == 0)
        error = move_array(path, grows ? &table : &stamps, buffer);
    return error != 0 ? error : kvbi_disk_sync(path->file.table_fd);
}

/* Are the stamps those that a clean close has written? */
static bool stamps_fit(const struct kvbi_disk_path *path, const struct kvbi_disk_terms *terms)
{
    const struct kvbi_disk_superblock *now = &path->superblock;
    uint64_t *stamps = (uint64_t *)(void *)terms->buffer, sum = now->serial;
    if ((now->flags & KVBI_DISK_CLEAN) == 0)
        return false;
    for (uint32_t first = 0; first < now->slot_count; first += KVBI_DISK_STAMPS_LINK) {
        uint32_t left = now->slot_count - first;
        size_t count = left < KVBI_DISK_STAMPS_LINK ? left : KVBI_DISK_STAMPS_LINK;
        if (kvbi_disk_read(path->file.table_fd, stamps, count * sizeof *stamps,
                           now->stamps_offset + first * sizeof *stamps) != 0)
            return false;
        sum = kvbi_disk_stamps_checksum(terms->hash, stamps, count, sum);
    }
    return sum == now->stamps_checksum;
}

/* ---- Ready -------------------------------------------------------------------------------------------------------- */

static int write_and_compare(struct kvbi_disk_path *path, const struct kvbi_hash_ops *hash,
                             struct kvbi_disk_superblock *next)
{
    int error = kvbi_disk_path_write(path, hash, next);
    if (error != 0)
        return error;
    struct finding back = read_superblock(path, hash, path->superblock_at);
    if (back.error != 0)
        return back.error;
    return back.verdict == KVBI_DISK_VALID && memcmp(&back.superblock, next, sizeof *next) == 0
               ? 0
               : EIO;
}

/* The first superblock is the trial of writing, after that of reading in choose_mode: one page out and back. */
static int write_first(struct kvbi_disk_path *path, const struct kvbi_disk_terms *terms,
                       struct kvbi_disk_superblock *next, const struct kvbi_disk_say *say)
{
    int error = write_and_compare(path, terms->hash, next);
    if (error != 0 && path->file.direct) {
        note(path, "takes no direct writes: %s", kvbi_errno_text(error));
        error = use_buffers(path, error);
        if (error == 0)
            error = write_and_compare(path, terms->hash, next);
    }
    if (error != 0)
        return kvbi_disk_refuse(say, kvbi_disk_error_of(error), "a trial write failed: %s",
                                kvbi_errno_text(error));
    return 0;
}

/* Table, and stamps if they count, to their places in `next`. *moved: its uuid or geometry is not that of the file. */
static int arrange(struct kvbi_disk_path *path, const struct kvbi_disk_terms *terms,
                   const struct kvbi_disk_superblock *next, bool *moved)
{
    path->stamped = path->kept && stamps_fit(path, terms);
    *moved = !path->kept || next->slot_count != path->superblock.slot_count;
    if (path->kept && *moved)
        return move_table(path, next, terms->buffer);
    if (!path->kept && !path->file.created)
        return zero(path, next->table_offset, next->file_bytes - next->table_offset, terms->buffer);
    return 0;
}

/* Space that an earlier, larger file had; not that of a file that was not ours, however empty. */
static int cut(const struct kvbi_disk_path *path, uint64_t bytes)
{
    uint64_t has = 0;
    static const struct kvbi_disk_say nobody = {.path = ""};
    if (path->file.device || path->verdict == KVBI_DISK_BLANK ||
        kvbi_disk_file_size(&path->file, &has, &nobody) != 0 || has <= bytes)
        return 0;
    return ftruncate(path->file.fd, (off_t)bytes) == 0 ? 0 : errno;
}

static int settle_as(struct kvbi_disk_path *path, const struct kvbi_disk_terms *terms,
                     struct kvbi_disk_superblock *next, const struct kvbi_disk_say *say)
{
    bool moved = false;
    int error = arrange(path, terms, next, &moved);
    if (error != 0)
        return kvbi_disk_refuse(say, kvbi_disk_error_of(error), "its table cannot be written: %s",
                                kvbi_errno_text(error));
    int refused = write_first(path, terms, next, say);
    if (refused != 0)
        return refused;
    if (moved)
        error = kvbi_disk_path_write(path, terms->hash, next);
    if (error == 0)
        error = cut(path, next->file_bytes);
    if (error != 0)
        return kvbi_disk_refuse(say, kvbi_disk_error_of(error), "cannot be brought to its size: %s",
                                kvbi_errno_text(error));
    return 0;
}

int kvbi_disk_path_settle(struct kvbi_disk_path *path, const struct kvbi_disk_terms *terms,
                          uint32_t slot_count, const struct kvbi_disk_say *say)
{
    struct kvbi_disk_superblock next = {.uuid = {path->uuid[0], path->uuid[1]},
                                        .purpose = terms->purpose};
    path->settling = true;
    if (path->kept)
        next = path->superblock;
    next.flags = 0;
    next.stamps_checksum = 0;
    if (!kvbi_disk_place(&next, terms->purpose.block_bytes, slot_count))
        return kvbi_disk_refuse(say, KVB_EINVAL,
                                "blocks x bytes is nothing, or more than a file can have");
    int error = settle_as(path, terms, &next, say);
    if (error != 0)
        return error;
    memcpy(path->uuid, next.uuid, sizeof path->uuid);
    path->table_offset = next.table_offset;
    path->slot_count = slot_count;
    atomic_store_explicit(&path->epoch_base, next.epoch, memory_order_relaxed);
    return 0;
}

void kvbi_disk_path_close(struct kvbi_disk_path *path, bool discard)
{
    kvbi_disk_file_close(&path->file, path->name,
                         discard && (path->file.created || !path->settling));
}
