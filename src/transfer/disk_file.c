/* SPDX-License-Identifier: Apache-2.0 */
/* disk_file - see disk_file.h. */
#include "transfer/disk_file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

struct opening {
    const char *path;
    uint64_t bytes;
    char *message;
    size_t message_bytes;
    int fd;
    bool created, device;
};

const char *kvbi_errno_text(int error)
{
    const char *text = strerrordesc_np(error);
    return text != NULL ? text : "unknown error";
}

int kvbi_disk_error_of(int error)
{
    return error == ENOSPC || error == EDQUOT || error == EFBIG ? KVB_ENOSPC : KVB_EIO;
}

__attribute__((format(printf, 3, 4))) static int refuse(const struct opening *o, int code, const char *format, ...)
{
    va_list arguments;
    if (o->message_bytes == 0)
        return code;
    int used = snprintf(o->message, o->message_bytes, "%s: ", o->path);
    if (used < 0 || (size_t)used >= o->message_bytes)
        return code;
    va_start(arguments, format);
    (void)vsnprintf(o->message + used, o->message_bytes - (size_t)used, format, arguments);
    va_end(arguments);
    return code;
}

/* ---- What it is --------------------------------------------------------------------------------------------------- */

static const char *unfit_kind(mode_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFREG:
    case S_IFBLK:
        return NULL;
    case S_IFDIR:
        return "is a directory";
    case S_IFLNK:
        return "is a symbolic link, which is not followed";
    case S_IFIFO:
        return "is a FIFO";
    case S_IFSOCK:
        return "is a socket";
    case S_IFCHR:
        return "is a character device";
    default:
        return "is neither a file nor a block device";
    }
}

static int check_kind(struct opening *o, const struct stat *status)
{
    const char *unfit = unfit_kind(status->st_mode);
    if (unfit != NULL)
        return refuse(o, KVB_EINVAL, "%s", unfit);
    o->device = S_ISBLK(status->st_mode);
    /* Who may open a device is decided by its group as a rule. */
    if (!o->device && status->st_uid != geteuid())
        return refuse(o, KVB_EINVAL, "belongs to user %u, not to user %u who runs this process",
                      (unsigned)status->st_uid, (unsigned)geteuid());
    return 0;
}

static int refuse_open(const struct opening *o, int error)
{
    switch (error) {
    case ENOENT:
    case ENOTDIR:
        return refuse(o, KVB_ENOENT, "its directory does not exist");
    case EROFS:
        return refuse(o, KVB_EUNSUPPORTED, "is on a read-only file system");
    case EACCES:
    case EPERM:
        return refuse(o, KVB_EINVAL, "may not be %s: %s", o->created ? "created" : "read and written",
                      kvbi_errno_text(error));
    case EBUSY:
    case ETXTBSY:
        return refuse(o, KVB_EBUSY, "is in use");
    case ENOSPC:
    case EDQUOT:
        return refuse(o, KVB_ENOSPC, "cannot be created: %s", kvbi_errno_text(error));
    case EMFILE:
    case ENFILE:
        return refuse(o, KVB_ENOMEM, "no file descriptor left (RLIMIT_NOFILE): %s", kvbi_errno_text(error));
    case ENAMETOOLONG:
    case EISDIR: /* ends in a slash */
    case ELOOP:
        return refuse(o, KVB_EINVAL, "%s", kvbi_errno_text(error));
    default:
        return refuse(o, KVB_EIO, "cannot be opened: %s", kvbi_errno_text(error));
    }
}

/*
 * Looked at before it is opened, because opening a device or a FIFO may have effects of its own, and again through the
 * descriptor, because another file may lie there by then.
 */
static int open_existing(struct opening *o, const struct stat *before)
{
    struct stat now;
    int error = check_kind(o, before);
    if (error != 0)
        return error;
    o->fd = open(o->path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | (o->device ? O_EXCL : 0));
    if (o->fd < 0)
        return refuse_open(o, errno);
    if (fstat(o->fd, &now) != 0)
        return refuse_open(o, errno);
    return check_kind(o, &now);
}

static int open_any(struct opening *o)
{
    struct stat status;
    if (lstat(o->path, &status) == 0)
        return open_existing(o, &status);
    if (errno != ENOENT)
        return refuse_open(o, errno);
    o->created = true;
    o->fd = open(o->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (o->fd >= 0)
        return 0;
    int error = errno;
    if (error == EEXIST)
        return refuse(o, KVB_EBUSY, "was created by somebody else at this moment");
    return refuse_open(o, error);
}

static int take_lock(struct opening *o)
{
    if (flock(o->fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    if (errno == EWOULDBLOCK)
        return refuse(o, KVB_EBUSY, "is open in another process or another manager");
    return refuse(o, KVB_EIO, "cannot be locked: %s", kvbi_errno_text(errno));
}

/* Only zeros, or a header of ours: then nothing is lost by writing there. */
static int check_content(struct opening *o)
{
    char head[KVBI_DISK_ALIGN] = {0};
    ssize_t got;
    do
        got = pread(o->fd, head, sizeof head, 0);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return refuse(o, KVB_EIO, "cannot be read: %s", kvbi_errno_text(errno));
    if (memcmp(head, KVBI_DISK_MAGIC, sizeof KVBI_DISK_MAGIC) == 0)
        return 0;
    for (size_t i = 0; i < sizeof head; i++)
        if (head[i] != 0)
            return refuse(o, KVB_EMISMATCH, "holds something that kvblock has not written; it is left alone");
    return 0;
}

/* ---- Room --------------------------------------------------------------------------------------------------------- */

static int check_device_size(struct opening *o)
{
    uint64_t bytes = 0;
    if (ioctl(o->fd, BLKGETSIZE64, &bytes) != 0)
        return refuse(o, KVB_EIO, "does not tell its size: %s", kvbi_errno_text(errno));
    if (bytes < o->bytes)
        return refuse(o, KVB_ENOSPC, "the device has %llu bytes, %llu are needed", (unsigned long long)bytes,
                      (unsigned long long)o->bytes);
    return 0;
}

/* A write beyond the limit would raise SIGXFSZ, which ends a process that does not expect it. */
static int check_limit(struct opening *o)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur >= o->bytes)
        return 0;
    return refuse(o, KVB_ENOSPC, "RLIMIT_FSIZE allows files of %llu bytes, %llu are needed",
                  (unsigned long long)limit.rlim_cur, (unsigned long long)o->bytes);
}

static int refuse_room(const struct opening *o, int error)
{
    unsigned long long bytes = (unsigned long long)o->bytes;
    switch (error) {
    case EOPNOTSUPP:
    case ENOSYS:
        return refuse(o, KVB_EUNSUPPORTED, "its file system cannot preallocate (no fallocate)");
    case ENOSPC:
        return refuse(o, KVB_ENOSPC, "its file system has no room for %llu bytes", bytes);
    case EDQUOT:
        return refuse(o, KVB_ENOSPC, "the quota has no room for %llu bytes", bytes);
    case EFBIG:
        return refuse(o, KVB_ENOSPC, "its file system has no files of %llu bytes", bytes);
    default:
        return refuse(o, KVB_EIO, "%llu bytes cannot be preallocated: %s", bytes, kvbi_errno_text(error));
    }
}

static int take_room(struct opening *o)
{
    struct stat status;
    if (o->device)
        return check_device_size(o);
    int result = check_limit(o);
    if (result != 0)
        return result;
    if (fchmod(o->fd, 0600) != 0 || fstat(o->fd, &status) != 0)
        return refuse(o, KVB_EIO, "cannot be made private: %s", kvbi_errno_text(errno));
    do
        result = fallocate(o->fd, 0, 0, (off_t)o->bytes);
    while (result != 0 && errno == EINTR);
    if (result != 0)
        return refuse_room(o, errno);
    if ((uint64_t)status.st_size > o->bytes && ftruncate(o->fd, (off_t)o->bytes) != 0)
        return refuse(o, KVB_EIO, "cannot be cut to its size: %s", kvbi_errno_text(errno));
    return 0;
}

/* ---- Direct or buffered ------------------------------------------------------------------------------------------- */

static int set_direct(int fd, bool direct)
{
    return fcntl(fd, F_SETFL, direct ? O_DIRECT : 0) == 0 ? 0 : errno;
}

/* One aligned page out and back. 0 or an errno. */
static int write_header(int fd, const struct kvbi_disk_header *header)
{
    _Alignas(KVBI_DISK_ALIGN) char out[KVBI_DISK_ALIGN] = {0};
    _Alignas(KVBI_DISK_ALIGN) char back[KVBI_DISK_ALIGN];
    ssize_t done;
    memcpy(out, header, sizeof *header);
    do
        done = pwrite(fd, out, sizeof out, 0);
    while (done < 0 && errno == EINTR);
    if (done != (ssize_t)sizeof out)
        return done < 0 ? errno : EIO;
    do
        done = pread(fd, back, sizeof back, 0);
    while (done < 0 && errno == EINTR);
    if (done != (ssize_t)sizeof back)
        return done < 0 ? errno : EIO;
    return memcmp(out, back, sizeof out) == 0 ? 0 : EIO;
}

static int choose_mode(struct opening *o, const struct kvbi_disk_header *header, bool buffered,
                       struct kvbi_disk_file *file)
{
    int error = buffered ? 0 : set_direct(o->fd, true);
    if (!buffered && error == 0)
        error = write_header(o->fd, header);
    file->direct = !buffered && error == 0;
    if (file->direct) {
        (void)snprintf(file->mode, sizeof file->mode, "O_DIRECT");
        return 0;
    }
    (void)snprintf(file->mode, sizeof file->mode, buffered ? "buffered (asked for)" : "buffered (no O_DIRECT: %s)",
                   kvbi_errno_text(error));
    error = set_direct(o->fd, false);
    if (error == 0)
        error = write_header(o->fd, header);
    if (error != 0)
        return refuse(o, kvbi_disk_error_of(error), "a trial write failed: %s", kvbi_errno_text(error));
    return 0;
}

/* ---- Open and close ----------------------------------------------------------------------------------------------- */

int kvbi_disk_file_open(struct kvbi_disk_file *file, const char *path, uint64_t bytes,
                        const struct kvbi_disk_header *header, bool buffered, char *message, size_t message_bytes)
{
    struct opening o = {
        .path = path != NULL ? path : "", .bytes = bytes, .message = message, .message_bytes = message_bytes, .fd = -1};
    *file = (struct kvbi_disk_file){.fd = -1};
    if (message_bytes > 0)
        message[0] = '\0';
    if (o.path[0] == '\0')
        return refuse(&o, KVB_EINVAL, "a disk tier needs a path");
    int error = open_any(&o);
    if (error == 0)
        error = take_lock(&o);
    if (error == 0 && !o.created)
        error = check_content(&o);
    if (error == 0)
        error = take_room(&o);
    if (error == 0)
        error = choose_mode(&o, header, buffered, file);
    file->fd = o.fd;
    if (error == 0)
        return 0;
    if (o.created && o.fd >= 0)
        (void)unlink(path);
    kvbi_disk_file_close(file);
    return error;
}

void kvbi_disk_file_close(struct kvbi_disk_file *file)
{
    if (file->fd >= 0) {
        (void)flock(file->fd, LOCK_UN);
        (void)close(file->fd);
    }
    *file = (struct kvbi_disk_file){.fd = -1};
}
