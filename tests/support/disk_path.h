/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A directory of a test's own, for files of disk tiers. In the working directory, where direct I/O
 * is as good as the disk. A program that is killed leaves none behind.
 *
 *     struct disk_path place;
 *     disk_path_make(&place);          // in a rig's setup; place.file does not exist yet
 *     ...
 *     disk_path_remove(&place);        // in its teardown: with what is in it
 */
#ifndef KVB_TEST_DISK_PATH_H
#define KVB_TEST_DISK_PATH_H

#include "support/folder.h"

struct disk_path {
    char directory[FOLDER_BYTES];
    char file[FOLDER_BYTES + 8];
};

void disk_path_make(struct disk_path *place);
void disk_path_remove(const struct disk_path *place);

/* Before the first of them, in a program that changes what a process sees of the file system. */
void disk_path_remove_at_end(void);

#endif
