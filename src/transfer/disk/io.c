/* SPDX-License-Identifier: Apache-2.0 */
/* disk/io - see io.h. */
#include "transfer/disk/io.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

int kvbi_disk_refuse(const struct kvbi_disk_say *say, int code, const char *format, ...)
{
    va_list arguments;
    size_t length = strlen(say->path), shown = say->bytes / 2; /* the other half is the reason's */
    if (say->bytes == 0)
        return code;
    int used = snprintf(say->text, say->bytes, "%s%s: ", length > shown ? "..." : "",
                        say->path + (length > shown ? length - shown : 0));
    if (used < 0 || (size_t)used >= say->bytes)
        return code;
    va_start(arguments, format);
    (void)vsnprintf(say->text + used, say->bytes - (size_t)used, format, arguments);
    va_end(arguments);
    return code;
}

/* ---- What it is ------------------------------------------------------------------------------ */

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

static void remember(struct kvbi_disk_io *io, const struct stat *status)
{
    io->device = S_ISBLK(status->st_mode);
    io->on = io->device ? status->st_rdev : status->st_dev;
    io->node = io->device ? 0 : status->st_ino;
}

static bool same(const struct kvbi_disk_io *one, const struct kvbi_disk_io *two)
{
    return one->device == two->device && one->on == two->on && one->node == two->node;
}

bool kvbi_disk_io_is(const struct kvbi_disk_io *io, const char *path)
{
    struct kvbi_disk_io other = {.fd = -1};
    struct stat status;
    if (lstat(path, &status) != 0)
        return false;
    remember(&other, &status);
    return same(io, &other);
}

static int check_kind(struct kvbi_disk_io *io, const struct stat *status,
                      const struct kvbi_disk_say *say)
{
    const char *unfit = unfit_kind(status->st_mode);
    if (unfit != NULL)
        return kvbi_disk_refuse(say, KVB_EINVAL, "%s", unfit);
    remember(io, status);
    /* Who may open a device is decided by its group as a rule. */
    if (!io->device && status->st_uid != geteuid())
        return kvbi_disk_refuse(say, KVB_EINVAL,
                                "belongs to user %u, not to user %u who runs this process",
                                (unsigned)status->st_uid, (unsigned)geteuid());
    return 0;
}

static int refuse_open(const struct kvbi_disk_io *io, int error, const struct kvbi_disk_say *say)
{
    switch (error) {
    case ENOENT:
    case ENOTDIR:
        return kvbi_disk_refuse(say, KVB_ENOENT, "its directory does not exist");
    case EROFS:
        return kvbi_disk_refuse(say, KVB_EUNSUPPORTED, "is on a read-only file system");
    case EACCES:
    case EPERM:
        return kvbi_disk_refuse(say, KVB_EINVAL, "may not be %s: %s",
                                io->created ? "created" : "read and written",
                                kvbi_errno_text(error));
    case EBUSY:
    case ETXTBSY:
        return kvbi_disk_refuse(say, KVB_EBUSY, "is in use");
    case ENOSPC:
    case EDQUOT:
        return kvbi_disk_refuse(say, KVB_ENOSPC, "cannot be created: %s", kvbi_errno_text(error));
    case EMFILE:
    case ENFILE:
        return kvbi_disk_refuse(say, KVB_ENOMEM, "no file descriptor left (RLIMIT_NOFILE): %s",
                                kvbi_errno_text(error));
    case ENAMETOOLONG:
    case EISDIR: /* ends in a slash */
    case ELOOP:
        return kvbi_disk_refuse(say, KVB_EINVAL, "%s", kvbi_errno_text(error));
    default:
        return kvbi_disk_refuse(say, KVB_EIO, "cannot be opened: %s", kvbi_errno_text(error));
    }
}

/*
 * A process that was killed holds its lock, and a device, until the kernel has ended its I/O, a
 * ring's some time after the process is gone (17 to 120 ms measured). Whoever is started in its
 * place waits for that: what still arrives would hit slots that are in use again.
 */
#define TRIES_MAX 500
static const struct timespec a_moment = {.tv_nsec = 2000000};

/* A descriptor, or -1 and errno. */
static int open_retrying(const struct kvbi_disk_io *io, const char *path)
{
    int fd = -1;
    for (uint32_t tries = 0; tries < TRIES_MAX; tries++) {
        fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | (io->device ? O_EXCL : 0));
        if (fd >= 0 || !io->device || errno != EBUSY)
            return fd;
        (void)nanosleep(&a_moment, NULL);
    }
    errno = EBUSY;
    return -1;
}

/*
 * Looked at before it is opened, because opening a device or a FIFO may have effects of its own,
 * and again through the descriptor, because another file may lie there by then.
 */
static int open_existing(struct kvbi_disk_io *io, const struct stat *before,
                         const struct kvbi_disk_say *say)
{
    struct stat now;
    int error = check_kind(io, before, say);
    if (error != 0)
        return error;
    io->fd = open_retrying(io, say->path);
    if (io->fd < 0 || fstat(io->fd, &now) != 0)
        return refuse_open(io, errno, say);
    return check_kind(io, &now, say);
}

static bool lies_under(const char *path, const char *directory)
{
    size_t length = strlen(directory);
    return strncmp(path, directory, length) == 0 && (path[length] == '\0' || path[length] == '/');
}

/*
 * Would a file made there lie among the device nodes? /dev itself need not be a mount; where it is
 * one, it may have other names.
 */
static bool among_devices(const char *path)
{
    char directory[PATH_MAX], real[PATH_MAX];
    struct stat root, devices, here;
    const char *name = strrchr(path, '/');
    (void)snprintf(directory, sizeof directory, "%.*s", name != NULL ? (int)(name - path) + 1 : 1,
                   name != NULL ? path : ".");
    if (realpath(directory, real) == NULL || lies_under(real, "/dev/shm"))
        return false;
    if (lies_under(real, "/dev"))
        return true;
    return stat("/", &root) == 0 && stat("/dev", &devices) == 0 && stat(real, &here) == 0 &&
           devices.st_dev != root.st_dev && devices.st_dev == here.st_dev;
}

static int open_any(struct kvbi_disk_io *io, const struct kvbi_disk_say *say)
{
    struct stat status;
    if (lstat(say->path, &status) == 0)
        return open_existing(io, &status, say);
    if (errno != ENOENT)
        return refuse_open(io, errno, say);
    if (among_devices(say->path))
        return kvbi_disk_refuse(say, KVB_ENOENT,
                                "there is no such device, and no file is made among the devices");
    io->created = true;
    io->fd = open(say->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (io->fd >= 0)
        return fstat(io->fd, &status) == 0 ? check_kind(io, &status, say)
                                           : refuse_open(io, errno, say);
    int error = errno;
    if (error == EEXIST)
        return kvbi_disk_refuse(say, KVB_EBUSY, "was created by somebody else at this moment");
    return refuse_open(io, error, say);
}

static int take_lock(struct kvbi_disk_io *io, const struct kvbi_disk_say *say)
{
    for (uint32_t tries = 0; tries < TRIES_MAX; tries++) {
        io->locked = flock(io->fd, LOCK_EX | LOCK_NB) == 0;
        if (io->locked)
            return 0;
        if (errno != EWOULDBLOCK)
            return kvbi_disk_refuse(say, KVB_EIO, "cannot be locked: %s", kvbi_errno_text(errno));
        (void)nanosleep(&a_moment, NULL);
    }
    return kvbi_disk_refuse(say, KVB_EBUSY, "is open in another process or another manager");
}

/*
 * An open file of its own, not a duplicate: whether I/O is direct is a property of the open file.
 * One lock is enough.
 */
static int open_table(struct kvbi_disk_io *io, const struct kvbi_disk_say *say)
{
    struct kvbi_disk_io second = {.fd = -1};
    struct stat status;
    io->table_fd = open(say->path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY);
    if (io->table_fd < 0 && errno == ENOENT) /* whoever had the lock has discarded it */
        return kvbi_disk_refuse(say, KVB_EBUSY, "was deleted at this moment");
    if (io->table_fd < 0 || fstat(io->table_fd, &status) != 0)
        return refuse_open(io, errno, say);
    int error = check_kind(&second, &status, say);
    if (error == 0 && !same(io, &second))
        error = kvbi_disk_refuse(say, KVB_EBUSY, "was replaced by another file at this moment");
    return error;
}

int kvbi_disk_io_open(struct kvbi_disk_io *io, const struct kvbi_disk_say *say)
{
    *io = (struct kvbi_disk_io){.fd = -1, .table_fd = -1};
    if (say->path[0] == '\0')
        return kvbi_disk_refuse(say, KVB_EINVAL, "a disk tier needs a path");
    int error = open_any(io, say);
    if (error == 0)
        error = take_lock(io, say);
    if (error == 0)
        error = open_table(io, say);
    if (error != 0)
        kvbi_disk_io_close(io, say->path, true);
    return error;
}

/* Also where its size is what it was: space may have been taken behind the end. */
static void give_back(struct kvbi_disk_io *io)
{
    if (io->took_room)
        (void)!ftruncate(io->fd, (off_t)io->before_bytes);
    io->took_room = false;
}

void kvbi_disk_io_close(struct kvbi_disk_io *io, const char *path, bool discard)
{
    if (discard && io->locked)
        give_back(io);
    if (discard && io->locked && io->created && kvbi_disk_io_is(io, path))
        (void)unlink(path);
    if (io->table_fd >= 0)
        (void)close(io->table_fd);
    if (io->fd >= 0) {
        (void)flock(io->fd, LOCK_UN);
        (void)close(io->fd);
    }
    io->fd = io->table_fd = -1;
    io->locked = false;
}

/* Some take O_DIRECT and buffer all the same (ext4 with data=journal); Linux 6.1 says which. */
static bool buffers_anyway(int fd)
{
#if defined(STATX_DIOALIGN)
    struct statx status;
    return statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &status) == 0 &&
           (status.stx_mask & STATX_DIOALIGN) && status.stx_dio_offset_align == 0;
#else
    (void)fd;
    return false;
#endif
}

int kvbi_disk_io_set_direct(struct kvbi_disk_io *io, bool direct)
{
    if (direct && buffers_anyway(io->fd))
        return EOPNOTSUPP;
    if (fcntl(io->fd, F_SETFL, direct ? O_DIRECT : 0) != 0)
        return errno;
    io->direct = direct;
    return 0;
}

/* ---- Room ------------------------------------------------------------------------------------ */

int kvbi_disk_io_size(const struct kvbi_disk_io *io, uint64_t *bytes,
                      const struct kvbi_disk_say *say)
{
    struct stat status;
    int result = io->device ? ioctl(io->fd, BLKGETSIZE64, bytes) : fstat(io->fd, &status);
    if (result != 0)
        return kvbi_disk_refuse(say, KVB_EIO, "does not tell its size: %s", kvbi_errno_text(errno));
    if (!io->device)
        *bytes = (uint64_t)status.st_size;
    return 0;
}

static int check_device(const struct kvbi_disk_io *io, uint64_t bytes,
                        const struct kvbi_disk_say *say)
{
    uint64_t has = 0;
    int error = kvbi_disk_io_size(io, &has, say);
    if (error == 0 && has < bytes)
        error = kvbi_disk_refuse(say, KVB_ENOSPC, "the device has %llu bytes, %llu are needed",
                                 (unsigned long long)has, (unsigned long long)bytes);
    return error;
}

/* A write beyond the limit would raise SIGXFSZ, which ends a process that does not expect it. */
static int check_limit(uint64_t bytes, const struct kvbi_disk_say *say)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
        limit.rlim_cur < bytes)
        return kvbi_disk_refuse(say, KVB_ENOSPC,
                                "RLIMIT_FSIZE allows files of %llu bytes, %llu are needed",
                                (unsigned long long)limit.rlim_cur, (unsigned long long)bytes);
    return 0;
}

static int refuse_room(uint64_t wanted, int error, const struct kvbi_disk_say *say)
{
    unsigned long long bytes = wanted;
    switch (error) {
    case EOPNOTSUPP:
    case ENOSYS:
        return kvbi_disk_refuse(say, KVB_EUNSUPPORTED,
                                "its file system cannot preallocate (no fallocate)");
    case ENOSPC:
        return kvbi_disk_refuse(say, KVB_ENOSPC, "its file system has no room for %llu bytes",
                                bytes);
    case EDQUOT:
        return kvbi_disk_refuse(say, KVB_ENOSPC, "the quota has no room for %llu bytes", bytes);
    case EFBIG:
        return kvbi_disk_refuse(say, KVB_ENOSPC, "its file system has no files of %llu bytes",
                                bytes);
    default:
        return kvbi_disk_refuse(say, KVB_EIO, "%llu bytes cannot be preallocated: %s", bytes,
                                kvbi_errno_text(error));
    }
}

/* 0 or an errno. */
static int preallocate(struct kvbi_disk_io *io, uint64_t bytes, bool sparse)
{
    struct stat status;
    while (fallocate(io->fd, 0, 0, (off_t)bytes) != 0) {
        if (errno == EINTR)
            continue;
        io->sparse = sparse && (errno == EOPNOTSUPP || errno == ENOSYS);
        if (!io->sparse || fstat(io->fd, &status) != 0)
            return errno;
        return (uint64_t)status.st_size >= bytes || ftruncate(io->fd, (off_t)bytes) == 0 ? 0
                                                                                         : errno;
    }
    return 0;
}

int kvbi_disk_io_take_room(struct kvbi_disk_io *io, uint64_t bytes, bool sparse,
                           const struct kvbi_disk_say *say)
{
    if (io->device)
        return check_device(io, bytes, say);
    int error = check_limit(bytes, say);
    if (error == 0)
        error = kvbi_disk_io_size(io, &io->before_bytes, say);
    if (error != 0)
        return error;
    if (fchmod(io->fd, 0600) != 0)
        return kvbi_disk_refuse(say, KVB_EIO, "cannot be made private: %s", kvbi_errno_text(errno));
    io->took_room = true;
    error = preallocate(io, bytes, sparse);
    if (error == 0)
        return 0;
    give_back(io); /* ext4 keeps what it got before the file system was full */
    return refuse_room(bytes, error, say);
}
