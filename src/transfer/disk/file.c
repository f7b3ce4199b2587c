/* SPDX-License-Identifier: Apache-2.0 */
/* disk/file - see file.h. */
#include "transfer/disk/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "transfer/disk/io.h"

__attribute__((format(printf, 2, 3))) static void note(struct kvbi_disk_file *file,
                                                       const char *format, ...)
{
    va_list arguments;
    size_t used = strlen(file->note);
    if (used > 0 && used + 2 < sizeof file->note)
        used += (size_t)snprintf(file->note + used, sizeof file->note - used, "; ");
    va_start(arguments, format);
    (void)vsnprintf(file->note + used, sizeof file->note - used, format, arguments);
    va_end(arguments);
}

/* ---- Superblocks ----------------------------------------------------------------------------- */

struct finding {
    enum kvbi_disk_verdict verdict;
    struct kvbi_disk_superblock superblock;
    int error; /* it could not be read: says as little as a blank one */
};

static struct finding read_superblock(const struct kvbi_disk_file *file,
                                      const struct kvbi_hash_ops *hash, uint32_t at)
{
    struct finding found = {.verdict = KVBI_DISK_BLANK};
    _Alignas(KVBI_DISK_ALIGN) unsigned char page[KVBI_DISK_SUPERBLOCK_BYTES];
    found.error = kvbi_disk_read(file->io.fd, page, sizeof page, at * KVBI_DISK_SUPERBLOCK_BYTES);
    if (found.error == 0)
        found.verdict = kvbi_disk_superblock_judge(hash, page, &found.superblock);
    return found;
}

static void take_finding(struct kvbi_disk_file *file, const struct finding *found, uint32_t at)
{
    file->verdict = found->verdict;
    file->superblock_at = at;
    if (found->verdict == KVBI_DISK_VALID)
        file->superblock = found->superblock;
    else if (found->verdict == KVBI_DISK_VERSION_UNKNOWN)
        file->version = found->superblock.version;
}

/*
 * The newer of two whole ones counts; a whole one beside anything else; else whatever says most
 * about what the file is.
 */
static int read_superblocks(struct kvbi_disk_file *file, const struct kvbi_hash_ops *hash,
                            const struct kvbi_disk_say *say)
{
    static const enum kvbi_disk_verdict order[] = {KVBI_DISK_VALID, KVBI_DISK_VERSION_UNKNOWN,
                                                   KVBI_DISK_DAMAGED, KVBI_DISK_FOREIGN,
                                                   KVBI_DISK_BLANK};
    struct finding found[2] = {read_superblock(file, hash, 0), read_superblock(file, hash, 1)};
    if (found[0].error != 0 && found[1].error != 0)
        return kvbi_disk_refuse(say, KVB_EIO, "cannot be read: %s",
                                kvbi_errno_text(found[0].error));
    /*
     * A file system, a partition table, a volume or swap made there since: it need not have reached
     * the other one.
     */
    for (int i = 0; file->io.device && i < 2; i++)
        if (found[i].verdict == KVBI_DISK_FOREIGN)
            found[1 - i] = found[i];
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        bool first = found[0].verdict == order[i], second = found[1].verdict == order[i];
        if (!first && !second)
            continue;
        uint32_t at =
            !first || (second && found[1].superblock.serial >= found[0].superblock.serial);
        take_finding(file, &found[at], at);
        if (file->verdict == KVBI_DISK_VALID && found[1 - at].verdict != KVBI_DISK_VALID)
            note(file, "superblock %u of 2 was not whole, the other one counts", 2 - at);
        break;
    }
    return 0;
}

/* ---- What is there --------------------------------------------------------------------------- */

/* From `offset` on, up to `end`, holes of a file passed over: what need not be zero. */
static uint64_t next_data(const struct kvbi_disk_file *file, uint64_t offset, uint64_t end)
{
    if (file->io.device)
        return offset;
    off_t at = lseek(file->io.fd, (off_t)offset, SEEK_DATA);
    if (at < 0)
        return errno == ENXIO ? end : offset;
    return (uint64_t)at;
}

/*
 * Nothing but zeros between here and the end? Of a device: of its first MiB, which no file system
 * or partition table leaves empty.
 */
static int check_blank(const struct kvbi_disk_file *file, const struct kvbi_disk_terms *terms,
                       uint64_t offset, const struct kvbi_disk_say *say)
{
    uint64_t end = KVBI_DISK_DATA_OFFSET;
    int refused = file->io.device ? 0 : kvbi_disk_io_size(&file->io, &end, say);
    while (refused == 0 && (offset = next_data(file, offset, end)) < end) {
        size_t bytes =
            end - offset < KVBI_DISK_BUFFER_BYTES ? (size_t)(end - offset) : KVBI_DISK_BUFFER_BYTES;
        int error = kvbi_disk_read(file->io.fd, terms->buffer, bytes, offset);
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

static int look(struct kvbi_disk_file *file, const struct kvbi_disk_terms *terms,
                const struct kvbi_disk_say *say)
{
    uint64_t bytes = 0;
    int error = read_superblocks(file, terms->hash, say);
    if (error != 0)
        return error;
    if (file->verdict == KVBI_DISK_BLANK || file->verdict == KVBI_DISK_FOREIGN)
        return check_blank(file, terms, 0, say);
    if (file->io.device)
        error = check_blank(file, terms, 2 * KVBI_DISK_SUPERBLOCK_BYTES, say);
    if (error != 0)
        return error;
    error = kvbi_disk_io_size(&file->io, &bytes, say);
    if (error == 0 && file->verdict == KVBI_DISK_VALID && bytes < file->superblock.file_bytes)
        note(file, "had been cut from %llu to %llu bytes, what lay behind is lost",
             (unsigned long long)file->superblock.file_bytes, (unsigned long long)bytes);
    return error;
}

int kvbi_disk_file_open(struct kvbi_disk_file *file, const struct kvbi_disk_terms *terms,
                        const struct kvbi_disk_say *say)
{
    file->verdict = KVBI_DISK_BLANK;
    file->superblock_at = 1;
    int error = kvbi_disk_io_open(&file->io, say);
    return error == 0 && !file->io.created ? look(file, terms, say) : error;
}

/* Why it cannot be kept, or false. */
static bool unfit(const struct kvbi_disk_file *file, const struct kvbi_disk_terms *terms,
                  uint64_t seed, char *words, size_t words_bytes)
{
    const struct kvbi_disk_purpose *has = &file->superblock.purpose;
    if (file->verdict == KVBI_DISK_VERSION_UNKNOWN)
        (void)snprintf(words, words_bytes, "is of format version %u, this library knows %u",
                       file->version, (unsigned)KVBI_DISK_VERSION);
    else if (file->verdict == KVBI_DISK_DAMAGED)
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

int kvbi_disk_file_decide(struct kvbi_disk_file *file, const struct kvbi_disk_terms *terms,
                          uint64_t *seed, const struct kvbi_disk_say *say)
{
    char words[128];
    if (file->verdict == KVBI_DISK_BLANK || (terms->flags & KVB_DISK_START_EMPTY) != 0)
        return 0;
    if (!unfit(file, terms, *seed, words, sizeof words)) {
        file->kept = true;
        *seed = file->superblock.purpose.digest_seed;
        return 0;
    }
    if ((terms->flags & KVB_DISK_EMPTY_ON_MISMATCH) == 0)
        return kvbi_disk_refuse(say, KVB_EMISMATCH, "%s; it is left alone", words);
    note(file, "starts empty: %s", words);
    return 0;
}

static void say_mode(struct kvbi_disk_file *file, const char *format, const char *reason)
{
    int used = snprintf(file->mode, sizeof file->mode, format, reason);
    if (used > 0 && (size_t)used < sizeof file->mode && file->io.sparse)
        (void)snprintf(file->mode + used, sizeof file->mode - (size_t)used,
                       ", sparse: no fallocate");
}

static int use_buffers(struct kvbi_disk_file *file, int why)
{
    int error = kvbi_disk_io_set_direct(&file->io, false);
    say_mode(file, "buffered (no O_DIRECT: %s)", kvbi_errno_text(why));
    return error;
}

/* Direct I/O, if one page can be read that way: writing is tried by commit. */
static int choose_mode(struct kvbi_disk_file *file, const struct kvbi_disk_terms *terms)
{
    _Alignas(KVBI_DISK_ALIGN) unsigned char page[KVBI_DISK_SUPERBLOCK_BYTES];
    if (terms->buffered) {
        say_mode(file, "buffered (%s)", "asked for");
        return 0;
    }
    int error = kvbi_disk_io_set_direct(&file->io, true);
    if (error == 0)
        error = kvbi_disk_read(file->io.fd, page, sizeof page,
                               file->superblock_at * KVBI_DISK_SUPERBLOCK_BYTES);
    if (error != 0)
        return use_buffers(file, error);
    say_mode(file, "%s", "O_DIRECT");
    return 0;
}

int kvbi_disk_file_take_room(struct kvbi_disk_file *file, const struct kvbi_disk_terms *terms,
                             uint32_t slot_count, const struct kvbi_disk_say *say)
{
    struct kvbi_disk_superblock placed;
    if (!kvbi_disk_place(&placed, terms->purpose.block_bytes, slot_count))
        return kvbi_disk_refuse(say, KVB_EINVAL,
                                "blocks x bytes is nothing, or more than a file can have");
    int refused = kvbi_disk_io_take_room(&file->io, placed.file_bytes,
                                         (terms->flags & KVB_DISK_ALLOW_SPARSE) != 0, say);
    if (refused != 0)
        return refused;
    int error = choose_mode(file, terms);
    return error == 0
               ? 0
               : kvbi_disk_refuse(say, KVB_EIO, "cannot be used: %s", kvbi_errno_text(error));
}

/* ---- Table and stamps ------------------------------------------------------------------------ */

static int zero(const struct kvbi_disk_file *file, uint64_t offset, uint64_t bytes,
                unsigned char *buffer)
{
    int error = 0;
    if (bytes == 0 || fallocate(file->io.table_fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
                                (off_t)offset, (off_t)bytes) == 0)
        return 0;
    memset(buffer, 0, KVBI_DISK_BUFFER_BYTES);
    for (uint64_t done = 0; error == 0 && done < bytes; done += KVBI_DISK_BUFFER_BYTES) {
        uint64_t left = bytes - done;
        error = kvbi_disk_write(
            file->io.table_fd, buffer,
            left < KVBI_DISK_BUFFER_BYTES ? (size_t)left : KVBI_DISK_BUFFER_BYTES, offset + done);
    }
    return error;
}

struct array {
    uint64_t from, to, item_bytes;
    uint64_t before, after; /* items */
};

/* What fits, from the end that no part still to be moved is overwritten at; zeros behind it. */
static int move_array(const struct kvbi_disk_file *file, const struct array *array,
                      unsigned char *buffer)
{
    uint64_t kept =
                 (array->before < array->after ? array->before : array->after) * array->item_bytes,
             step;
    int error = 0, fd = file->io.table_fd;
    for (uint64_t done = 0; error == 0 && done < kept; done += step) {
        step = kept - done < KVBI_DISK_BUFFER_BYTES ? kept - done : KVBI_DISK_BUFFER_BYTES;
        uint64_t at = array->to > array->from ? kept - done - step : done;
        error = kvbi_disk_read(fd, buffer, (size_t)step, array->from + at);
        if (error == 0)
            error = kvbi_disk_write(fd, buffer, (size_t)step, array->to + at);
    }
    return error != 0
               ? error
               : zero(file, array->to + kept, array->after * array->item_bytes - kept, buffer);
}

/*
 * To where they belong with another number of slots: synced before a superblock says so. When the
 * file grows, the stamps have to be out of the way first; when it shrinks, the table. Interrupted,
 * it costs entries: those that are not in their place are not believed.
 */
static int move_table(const struct kvbi_disk_file *file, const struct kvbi_disk_superblock *next,
                      unsigned char *buffer)
{
    const struct kvbi_disk_superblock *now = &file->superblock;
    const struct array table = {now->table_offset, next->table_offset, KVBI_DISK_ENTRY_BYTES,
                                now->slot_count, next->slot_count};
    const struct array stamps = {now->stamps_offset, next->stamps_offset, sizeof(uint64_t),
                                 now->slot_count, next->slot_count};
    bool grows = next->slot_count > now->slot_count;
    int error = move_array(file, grows ? &stamps : &table, buffer);
    if (error == 0)
        error = move_array(file, grows ? &table : &stamps, buffer);
    return error != 0 ? error : kvbi_disk_sync(file->io.table_fd);
}

/* Are the stamps those that a clean close has written? */
static bool stamps_fit(const struct kvbi_disk_file *file, const struct kvbi_disk_terms *terms)
{
    const struct kvbi_disk_superblock *now = &file->superblock;
    uint64_t *stamps = (uint64_t *)(void *)terms->buffer, sum = now->serial;
    if ((now->flags & KVBI_DISK_CLEAN) == 0)
        return false;
    for (uint32_t first = 0; first < now->slot_count; first += KVBI_DISK_STAMPS_LINK) {
        uint32_t left = now->slot_count - first;
        size_t count = left < KVBI_DISK_STAMPS_LINK ? left : KVBI_DISK_STAMPS_LINK;
        if (kvbi_disk_read(file->io.table_fd, stamps, count * sizeof *stamps,
                           now->stamps_offset + first * sizeof *stamps) != 0)
            return false;
        sum = kvbi_disk_stamps_checksum(terms->hash, stamps, count, sum);
    }
    return sum == now->stamps_checksum;
}

/* ---- Ready ----------------------------------------------------------------------------------- */

static int write_and_compare(struct kvbi_disk_file *file, const struct kvbi_hash_ops *hash,
                             struct kvbi_disk_superblock *next)
{
    int error = kvbi_disk_file_write(file, hash, next);
    if (error != 0)
        return error;
    struct finding back = read_superblock(file, hash, file->superblock_at);
    if (back.error != 0)
        return back.error;
    return back.verdict == KVBI_DISK_VALID && memcmp(&back.superblock, next, sizeof *next) == 0
               ? 0
               : EIO;
}

/*
 * The first superblock is the trial of writing, after that of reading in choose_mode: one page out
 * and back.
 */
static int write_first(struct kvbi_disk_file *file, const struct kvbi_disk_terms *terms,
                       struct kvbi_disk_superblock *next, const struct kvbi_disk_say *say)
{
    int error = write_and_compare(file, terms->hash, next);
    if (error != 0 && file->io.direct) {
        note(file, "takes no direct writes: %s", kvbi_errno_text(error));
        error = use_buffers(file, error);
        if (error == 0)
            error = write_and_compare(file, terms->hash, next);
    }
    if (error != 0)
        return kvbi_disk_refuse(say, kvbi_disk_error_of(error), "a trial write failed: %s",
                                kvbi_errno_text(error));
    return 0;
}

/*
 * Table, and stamps if they count, to their places in `next`. *moved: its uuid or geometry is not
 * that of the file.
 */
static int arrange(struct kvbi_disk_file *file, const struct kvbi_disk_terms *terms,
                   const struct kvbi_disk_superblock *next, bool *moved)
{
    file->stamped = file->kept && stamps_fit(file, terms);
    *moved = !file->kept || next->slot_count != file->superblock.slot_count;
    if (file->kept && *moved)
        return move_table(file, next, terms->buffer);
    if (!file->kept && !file->io.created)
        return zero(file, next->table_offset, next->file_bytes - next->table_offset, terms->buffer);
    return 0;
}

/* Space that an earlier, larger file had; not that of a file that was not ours, however empty. */
static int cut(const struct kvbi_disk_file *file, uint64_t bytes)
{
    uint64_t has = 0;
    static const struct kvbi_disk_say nobody = {.path = ""};
    if (file->io.device || file->verdict == KVBI_DISK_BLANK ||
        kvbi_disk_io_size(&file->io, &has, &nobody) != 0 || has <= bytes)
        return 0;
    return ftruncate(file->io.fd, (off_t)bytes) == 0 ? 0 : errno;
}

static int commit_as(struct kvbi_disk_file *file, const struct kvbi_disk_terms *terms,
                     struct kvbi_disk_superblock *next, const struct kvbi_disk_say *say)
{
    bool moved = false;
    int error = arrange(file, terms, next, &moved);
    if (error != 0)
        return kvbi_disk_refuse(say, kvbi_disk_error_of(error), "its table cannot be written: %s",
                                kvbi_errno_text(error));
    int refused = write_first(file, terms, next, say);
    if (refused != 0)
        return refused;
    if (moved)
        error = kvbi_disk_file_write(file, terms->hash, next);
    if (error == 0)
        error = cut(file, next->file_bytes);
    if (error != 0)
        return kvbi_disk_refuse(say, kvbi_disk_error_of(error), "cannot be brought to its size: %s",
                                kvbi_errno_text(error));
    return 0;
}

int kvbi_disk_file_commit(struct kvbi_disk_file *file, const struct kvbi_disk_terms *terms,
                          uint32_t slot_count, const struct kvbi_disk_say *say)
{
    struct kvbi_disk_superblock next = {.uuid = {file->uuid[0], file->uuid[1]},
                                        .purpose = terms->purpose};
    file->committing = true;
    if (file->kept)
        next = file->superblock;
    next.flags = 0;
    next.stamps_checksum = 0;
    if (!kvbi_disk_place(&next, terms->purpose.block_bytes, slot_count))
        return kvbi_disk_refuse(say, KVB_EINVAL,
                                "blocks x bytes is nothing, or more than a file can have");
    int error = commit_as(file, terms, &next, say);
    if (error != 0)
        return error;
    memcpy(file->uuid, next.uuid, sizeof file->uuid);
    file->table_offset = next.table_offset;
    file->slot_count = slot_count;
    atomic_store_explicit(&file->epoch_base, next.epoch, memory_order_relaxed);
    return 0;
}

void kvbi_disk_file_close(struct kvbi_disk_file *file, bool discard)
{
    kvbi_disk_io_close(&file->io, file->path, discard && (file->io.created || !file->committing));
}
