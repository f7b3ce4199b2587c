/* SPDX-License-Identifier: Apache-2.0 */
#include "support/disk_table.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "support/test.h"

void disk_table_break(const struct kvbi_disk_path *path)
{
    size_t bytes = path->slot_count * sizeof(struct kvbi_disk_record);
    int fd = open("/dev/full", O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_true(dup2(fd, path->file.table_fd) >= 0);
    close(fd);
    if (path->table != NULL)
        assert_int_equal(mprotect(path->table, bytes, PROT_NONE), 0);
}
