/* SPDX-License-Identifier: Apache-2.0 */
#include "support/disk_table.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "support/test.h"

void disk_table_break(const struct kvbi_disk_file *file)
{
    size_t bytes = file->slot_count * sizeof(struct kvbi_disk_entry);
    int fd = open("/dev/full", O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_true(dup2(fd, file->io.table_fd) >= 0);
    close(fd);
    if (file->table != NULL)
        assert_int_equal(mprotect(file->table, bytes, PROT_NONE), 0);
}
