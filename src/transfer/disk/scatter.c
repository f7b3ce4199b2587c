/* SPDX-License-Identifier: Apache-2.0 */
/* disk/scatter - see scatter.h. */
#include "transfer/disk/scatter.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/debug.h"

#define STAGING_BYTES (KVBI_DISK_SCATTER_MAX * sizeof(struct kvbi_disk_entry))

/* Since Linux 6.3, and asked for there; before that an unknown flag. */
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

/*
 * NULL, with an errno: refused. A child would have a second hand in it. In a process that locks all
 * it maps (mlockall, MCL_FUTURE) the pages come when they are needed all the same, for a table may
 * be gigabytes: without access nothing is brought in, and then it is not locked.
 */
static void *map_shared(int fd, uint64_t offset, size_t bytes, int *error)
{
    void *at = mmap(NULL, bytes, PROT_NONE, MAP_SHARED, fd, (off_t)offset);
    *error = at == MAP_FAILED ? errno : 0;
    if (at == MAP_FAILED)
        return NULL;
    (void)munlock(at, bytes);
    (void)madvise(at, bytes, MADV_DONTFORK);
    if (mprotect(at, bytes, PROT_READ | PROT_WRITE) == 0)
        return at;
    *error = errno;
    (void)munmap(at, bytes);
    return NULL;
}

static int make_file(void)
{
    int fd = memfd_create("kvblock entries", MFD_CLOEXEC | MFD_NOEXEC_SEAL);
    return fd < 0 && errno == EINVAL ? memfd_create("kvblock entries", MFD_CLOEXEC) : fd;
}

void kvbi_disk_scatter_open(struct kvbi_disk_scatter *scatter)
{
    *scatter = (struct kvbi_disk_scatter){.fd = make_file()};
    int error = scatter->fd < 0 || ftruncate(scatter->fd, (off_t)STAGING_BYTES) != 0 ? errno : 0;
    if (error == 0)
        scatter->entries = map_shared(scatter->fd, 0, STAGING_BYTES, &error);
    if (error != 0)
        kvbi_disk_scatter_close(scatter);
    scatter->error = error;
}

void kvbi_disk_scatter_close(struct kvbi_disk_scatter *scatter)
{
    if (scatter->entries != NULL)
        (void)munmap(scatter->entries, STAGING_BYTES);
    if (scatter->fd >= 0)
        (void)close(scatter->fd);
    *scatter = (struct kvbi_disk_scatter){.fd = -1};
}

unsigned char *kvbi_disk_scatter_map(int fd, uint64_t offset, uint32_t count, int *error)
{
    size_t bytes = (size_t)count * sizeof(struct kvbi_disk_entry);
    *error = EINVAL;
    if (offset % (uint64_t)sysconf(_SC_PAGESIZE) != 0)
        return NULL;
    unsigned char *table = map_shared(fd, offset, bytes, error);
    if (table != NULL) /* what lies around it is payload, which is to stay out of the page cache */
        (void)madvise(table, bytes, MADV_RANDOM);
    return table;
}

void kvbi_disk_scatter_unmap(unsigned char *table, uint32_t count)
{
    if (table != NULL)
        (void)munmap(table, (size_t)count * sizeof(struct kvbi_disk_entry));
}

uint32_t kvbi_disk_scatter_put(const struct kvbi_disk_scatter *scatter,
                               unsigned char *const *places, uint32_t count)
{
    struct iovec parts[KVBI_DISK_SCATTER_MAX];
    KVBI_ASSERT(count <= KVBI_DISK_SCATTER_MAX);
    if (scatter->fd < 0 || count == 0)
        return 0;
    for (uint32_t i = 0; i < count; i++)
        parts[i] = (struct iovec){.iov_base = places[i], .iov_len = sizeof(struct kvbi_disk_entry)};
    ssize_t put;
    do
        put = preadv(scatter->fd, parts, (int)count, 0);
    while (put < 0 && errno == EINTR);
    return put < 0 ? 0 : (uint32_t)((size_t)put / sizeof(struct kvbi_disk_entry));
}
