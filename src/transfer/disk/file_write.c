/* SPDX-License-Identifier: Apache-2.0 */
/* Superblocks, written: one of the two places, or both. See file.h. */
#include <errno.h>
#include <string.h>

#include "transfer/disk/file.h"
#include "transfer/disk/io.h"

int kvbi_disk_file_write(struct kvbi_disk_file *file, const struct kvbi_hash_ops *hash,
                         struct kvbi_disk_superblock *next)
{
    _Alignas(KVBI_DISK_ALIGN) unsigned char page[KVBI_DISK_SUPERBLOCK_BYTES] = {0};
    uint32_t at = 1 - file->superblock_at;
    next->serial = file->superblock.serial + 1;
    kvbi_disk_superblock_seal(hash, next);
    memcpy(page, next, sizeof *next);
    int error =
        kvbi_disk_write_synced(file->io.fd, page, sizeof page, at * KVBI_DISK_SUPERBLOCK_BYTES);
    if (error != 0)
        return error;
    file->superblock = *next;
    file->superblock_at = at;
    return 0;
}

int kvbi_disk_file_write_both(struct kvbi_disk_file *file, const struct kvbi_hash_ops *hash,
                              struct kvbi_disk_superblock *next)
{
    int error = kvbi_disk_file_write(file, hash, next);
    return error != 0 ? error : kvbi_disk_file_write(file, hash, next);
}
