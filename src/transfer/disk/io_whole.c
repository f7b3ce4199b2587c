/* SPDX-License-Identifier: Apache-2.0 */
/* Whole reads and writes, and what an errno says. See io.h. */
#include "transfer/disk/io.h"

#include <errno.h>
#include <kvblock.h>
#include <limits.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

const char *kvbi_errno_text(int error)
{
    const char *text = strerrordesc_np(error);
    return text != NULL ? text : "unknown error";
}

int kvbi_disk_error_of(int error)
{
    return error == ENOSPC || error == EDQUOT || error == EFBIG ? KVB_ENOSPC : KVB_EIO;
}

bool kvbi_disk_is_medium_error(int error)
{
    return error == EIO || error == EREMOTEIO || error == ENODATA;
}

int kvbi_disk_read(int fd, void *bytes, size_t count, uint64_t offset)
{
    unsigned char *at = bytes;
    while (count > 0) {
        ssize_t got = pread(fd, at, count, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return errno;
        if (got == 0) {
            memset(at, 0, count);
            return 0;
        }
        at += got, offset += (uint64_t)got, count -= (size_t)got;
    }
    return 0;
}

static int write_all(int fd, const void *bytes, size_t count, uint64_t offset, int flags)
{
    const unsigned char *at = bytes;
    while (count > 0) {
        const struct iovec rest = {.iov_base = (void *)(uintptr_t)at, .iov_len = count};
        ssize_t put = pwritev2(fd, &rest, 1, (off_t)offset, flags);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return put < 0 ? errno : EIO;
        at += put, offset += (uint64_t)put, count -= (size_t)put;
    }
    return 0;
}

int kvbi_disk_write(int fd, const void *bytes, size_t count, uint64_t offset)
{
    return write_all(fd, bytes, count, offset, 0);
}

int kvbi_disk_sync(int fd)
{
    return fdatasync(fd) == 0 ? 0 : errno;
}

int kvbi_disk_write_synced(int fd, const void *bytes, size_t count, uint64_t offset)
{
    int error = write_all(fd, bytes, count, offset, RWF_DSYNC);
    if (error != EOPNOTSUPP && error != ENOSYS)
        return error;
    error = write_all(fd, bytes, count, offset, 0);
    return error != 0 ? error : kvbi_disk_sync(fd);
}
