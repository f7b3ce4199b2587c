/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk/io - whole reads and writes of an open file, and what an errno says
 *
 * Owns       nothing.
 * Callers    transfer/disk/. Any thread, no lock. Reads and writes return 0 or an errno.
 */
#ifndef KVBI_TRANSFER_DISK_IO_H
#define KVBI_TRANSFER_DISK_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <kvblock.h>

/* What lies behind the end of the file reads as zeros. */
KVB_NODISCARD int kvbi_disk_read(int fd, void *bytes, size_t count, uint64_t offset);
KVB_NODISCARD int kvbi_disk_write(int fd, const void *bytes, size_t count, uint64_t offset);
/* Durable when it returns. */
KVB_NODISCARD int kvbi_disk_write_synced(int fd, const void *bytes, size_t count, uint64_t offset);
KVB_NODISCARD int kvbi_disk_sync(int fd);

/* The code of a failed I/O: KVB_ENOSPC or KVB_EIO. */
int kvbi_disk_error_of(int error);

/* Does it speak of one place on the medium, rather than of the way there? */
bool kvbi_disk_blames_medium(int error);

/* The words for an errno. Static storage, any thread. */
const char *kvbi_errno_text(int error);

#endif
