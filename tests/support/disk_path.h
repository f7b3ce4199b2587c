/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A directory of a test's own, for files of disk tiers. In the working directory, where direct I/O is as good as the disk.
 * A test that fails or is killed leaves none behind.
 *
 *     struct disk_path place;
 *     disk_path_make(&place);          // place.file does not exist yet
 *     ...
 *     disk_path_remove(&place);        // with what is in it
 */
#ifndef KVB_TEST_DISK_PATH_H
#define KVB_TEST_DISK_PATH_H

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "support/leftovers.h"

struct disk_path {
    char directory[64];
    char file[96];
};

/* Once a process: all its directories have its number in their names. */
static inline void disk_path_remove_at_end(void)
{
    static char prefix[32];
    static char *const command[] = {"/bin/sh", "-c", "rm -rf \"$0\".*", prefix, NULL};
    static pid_t process;
    if (process == getpid())
        return;
    process = getpid();
    (void)snprintf(prefix, sizeof prefix, "disk_test.%ld", (long)process);
    (void)leftovers_at_end(command);
}

static inline void disk_path_make(struct disk_path *place)
{
    disk_path_remove_at_end();
    (void)snprintf(place->directory, sizeof place->directory, "disk_test.%ld.XXXXXX",
                   (long)getpid());
    if (mkdtemp(place->directory) == NULL)
        abort();
    (void)snprintf(place->file, sizeof place->file, "%s/blocks", place->directory);
}

static inline void disk_path_remove(const struct disk_path *place)
{
    char path[400];
    DIR *directory = opendir(place->directory);
    for (struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL;) {
        (void)snprintf(path, sizeof path, "%s/%s", place->directory, entry->d_name);
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            unlink(path) != 0)
            (void)rmdir(path);
    }
    if (directory != NULL)
        (void)closedir(directory);
    (void)rmdir(place->directory);
}

#endif
