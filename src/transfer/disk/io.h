/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk/io - which path may become a file of a disk tier, how it is opened, and plain I/O on it
 *
 * Owns       the rules: what is refused, in which words; the lock; preallocation. Nothing after
 *            return.
 * Callers    transfer/disk/file and transfer/disk/tier. No lock.
 * Invariants a refused path is left as it was found: what was created here is removed again, space
 *            that was taken is given back. An opened one is locked (flock) until it is closed, and
 *            belongs to this user. Nothing is removed without that lock: by then it may be somebody
 *            else's.
 *            Payloads and superblocks go through `fd`, past the page cache where the file system
 *            allows it; table and stamps through `table_fd`, always by way of it: they outlive this
 *            process there without being synced.
 * Why        whether direct I/O works is found out by doing it (disk/file). Names say little: tmpfs
 *            and overlay take O_DIRECT on new kernels and not on old ones. All space is taken at
 *            open: a write that extends a file is serialised by the file system (up to 5 times
 *            slower at 64 KiB), and a full disk is an error now instead of lost blocks later.
 */
#ifndef KVBI_TRANSFER_DISK_IO_H
#define KVBI_TRANSFER_DISK_IO_H

#include <kvblock.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * Where an error is put into words: path (the end of a long one) and reason. `text` may be NULL
 * with 0 bytes.
 */
struct kvbi_disk_say {
    const char *path;
    char *text;
    size_t bytes;
};

/* Returns `code`. */
__attribute__((format(printf, 3, 4))) int kvbi_disk_refuse(const struct kvbi_disk_say *say,
                                                           int code, const char *format, ...);

struct kvbi_disk_io {
    int fd;       /* holds the lock */
    int table_fd; /* the same file */
    bool direct;  /* fd is O_DIRECT */
    bool device;  /* a block device: its size is what it is */
    bool created; /* by this open */
    bool locked;
    bool sparse;           /* no fallocate there */
    bool took_room;        /* and may give it back ... */
    uint64_t before_bytes; /* ... down to this */
    dev_t on;              /* with `node`: which file it is */
    ino_t node;
};

/*
 * Opens `path`, creating it if need be. Nothing is written yet.
 *
 * Errors, each in words:
 *   KVB_ENOENT        its directory does not exist; no such device
 *   KVB_EINVAL        no path; a directory, symbolic link, FIFO, socket or character device;
 *                     another user's; no permission
 *   KVB_EBUSY         open in another process or manager; a block device in use; replaced or
 *                     deleted while it was opened
 *   KVB_ENOSPC        no inode left         KVB_EUNSUPPORTED  read-only
 *   KVB_ENOMEM        no descriptor left    KVB_EIO  anything else
 */
KVB_NODISCARD int kvbi_disk_io_open(struct kvbi_disk_io *io, const struct kvbi_disk_say *say);

/* Is it what lies at `path` now, whatever the name it was opened by? */
bool kvbi_disk_io_is(const struct kvbi_disk_io *io, const char *path);

/*
 * Takes all space and closes it to others; on an error it has the size that it had before. It is
 * not cut: what lies behind stays. `sparse`: where there is no fallocate, go on.
 * KVB_ENOSPC: no room in the file system, quota, device, RLIMIT_FSIZE or the file system's largest
 * file.
 * KVB_EUNSUPPORTED: no fallocate. KVB_EIO.
 */
KVB_NODISCARD int kvbi_disk_io_take_room(struct kvbi_disk_io *io, uint64_t bytes, bool sparse,
                                         const struct kvbi_disk_say *say);

/* Of a file or a device. KVB_EIO. */
KVB_NODISCARD int kvbi_disk_io_size(const struct kvbi_disk_io *io, uint64_t *bytes,
                                    const struct kvbi_disk_say *say);

/* 0 or an errno. */
KVB_NODISCARD int kvbi_disk_io_set_direct(struct kvbi_disk_io *io, bool direct);

/*
 * Gives the lock back even while a forked child has the file open. discard: removes what the open
 * created, or gives back the space that was taken last. Legal twice.
 */
void kvbi_disk_io_close(struct kvbi_disk_io *io, const char *path, bool discard);

/* ---- Whole reads and writes: 0 or an errno (io_whole.c) ------------------------------------- */

/* What lies behind the end of the file reads as zeros. */
KVB_NODISCARD int kvbi_disk_read(int fd, void *bytes, size_t count, uint64_t offset);
KVB_NODISCARD int kvbi_disk_write(int fd, const void *bytes, size_t count, uint64_t offset);
/* Durable when it returns. */
KVB_NODISCARD int kvbi_disk_write_synced(int fd, const void *bytes, size_t count, uint64_t offset);
KVB_NODISCARD int kvbi_disk_sync(int fd);

/* The code of a failed I/O: KVB_ENOSPC or KVB_EIO. */
int kvbi_disk_error_of(int error);

/* Does it speak of one place on the medium, rather than of the way there? */
bool kvbi_disk_is_medium_error(int error);

/* The words for an errno. Static storage, any thread. */
const char *kvbi_errno_text(int error);

#endif
