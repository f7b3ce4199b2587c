/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk/scatter - table entries to places all over mapped files, many in one system call
 *
 * Owns       a page or so of staging memory that is also a file (memfd), and the mappings that it
 *            gives out.
 * Callers    transfer/disk/table; one thread at a time.
 * Invariants nobody but the kernel touches a mapping. What it cannot put there (the file was cut,
 *            its medium failed, no space) ends the call early (EFAULT) and is no signal: SIGBUS
 *            would be the end of a process that is not ours. Of a file that was cut within a page
 *            the rest of that page takes entries and loses them: the caller looks where the file
 *            ends.
 *            A mapping is not inherited by fork: unmapping it belongs to the process that has
 *            mapped it.
 *            What has got there is in the page cache: it outlives the process, and a sync of the
 *            file takes it along.
 * Why        a write(2) of one entry takes 2.4 us, most of it of the file system's; into a mapped
 *            page it takes 0.06 us, and after a write-back once as long as a write. At 64 KiB a
 *            block that is a quarter of the CPU time of blocks whose slots are no neighbours (Linux
 *            6.18, ext4; docs/performance.md).
 */
#ifndef KVBI_TRANSFER_DISK_SCATTER_H
#define KVBI_TRANSFER_DISK_SCATTER_H

#include <kvblock.h>
#include <stdint.h>

#include "transfer/disk/format.h"

/* Entries in one call at most. */
#define KVBI_DISK_SCATTER_MAX 64

struct kvbi_disk_scatter {
    int fd;    /* -1: the system gives none, and nothing is ever put anywhere */
    int error; /* then: the errno why */
    struct kvbi_disk_entry *entries; /* KVBI_DISK_SCATTER_MAX, to be filled by the caller */
};

/* Cannot fail: without it entries are written one by one. */
void kvbi_disk_scatter_open(struct kvbi_disk_scatter *scatter);
void kvbi_disk_scatter_close(struct kvbi_disk_scatter *scatter); /* legal on {.fd = -1} */

/*
 * `count` entries of a file, from `offset` on. NULL, with an errno: not on this file system, or
 * `offset` is inside a page.
 */
unsigned char *kvbi_disk_scatter_map(int fd, uint64_t offset, uint32_t count, int *error);
void kvbi_disk_scatter_unmap(unsigned char *table, uint32_t count); /* NULL is legal */

/*
 * entries[i] to places[i], in a table mapped here, in this order. Returns how many are there; 0
 * also if it is closed.
 */
uint32_t kvbi_disk_scatter_put(const struct kvbi_disk_scatter *scatter,
                               unsigned char *const *places, uint32_t count);

#endif
