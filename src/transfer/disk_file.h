/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_file - which path may become the file of a disk tier, and how it is opened
 *
 * Owns       the rules: what is refused, in which words; preallocation; whether direct I/O works there. Nothing after return.
 * Callers    transfer/tier_disk. No lock.
 * Invariants a refused path is left as it was found: what was created here is removed again, and a file with bytes in it that are
 *            not a kvblock file's is never written to. An opened one is locked (flock) until it is closed, has all its space,
 *            belongs to this user and is closed to all others.
 * Why        direct I/O is established by doing it. Names say little: tmpfs and overlay take O_DIRECT on new kernels and not on
 *            old ones. All space is taken at open: a write that extends a file is serialised by the file system (up to 5 times
 *            slower at 64 KiB), and a full disk is an error now instead of lost blocks later.
 */
#ifndef KVBI_TRANSFER_DISK_FILE_H
#define KVBI_TRANSFER_DISK_FILE_H

#include <kvblock.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Direct I/O wants memory, offset and length in multiples of the device's block: never more than this in practice. */
#define KVBI_DISK_ALIGN ((uint64_t)4096)

/* The first slot starts here: past the header, and on a boundary of every stripe or erase block worth having. */
#define KVBI_DISK_DATA_OFFSET ((uint64_t)1 << 20)

/* At offset 0, padded with zeros to KVBI_DISK_ALIGN. Only `magic` is ever read: it says that the file may be overwritten. */
struct kvbi_disk_header {
    char magic[8];
    uint32_t version; /* 0: nothing in the file outlives its process */
    uint32_t slot_count;
    uint64_t slot_bytes;
    uint64_t uuid[2];
};
#define KVBI_DISK_MAGIC "kvblock"

struct kvbi_disk_file {
    int fd;
    bool direct;
    char mode[64]; /* "O_DIRECT", or "buffered (why)" */
};

/*
 * Opens `path` for `bytes` bytes, creating it if need be, and writes the header. `buffered`: do not try direct I/O.
 *
 * Errors, each with path and reason in `message` (may be NULL with 0 bytes):
 *   KVB_ENOENT        its directory does not exist
 *   KVB_EINVAL        no path; a directory, symbolic link, FIFO, socket or character device; another user's; no permission
 *   KVB_EBUSY         open in another process or manager; a block device in use
 *   KVB_EMISMATCH     holds something that kvblock has not written
 *   KVB_ENOSPC        no room in the file system, quota, device, RLIMIT_FSIZE or the file system's largest file
 *   KVB_EUNSUPPORTED  read-only; no fallocate there
 *   KVB_ENOMEM        no descriptor left        KVB_EIO  anything else
 */
KVB_NODISCARD int kvbi_disk_file_open(struct kvbi_disk_file *file, const char *path, uint64_t bytes,
                                      const struct kvbi_disk_header *header, bool buffered, char *message,
                                      size_t message_bytes);
void kvbi_disk_file_close(
    struct kvbi_disk_file *file); /* gives the lock back even while a forked child has the file open */

/* The code of a failed I/O: KVB_ENOSPC or KVB_EIO. */
int kvbi_disk_error_of(int error);

/* The words for an errno. Static storage, any thread. */
const char *kvbi_errno_text(int error);

#endif
