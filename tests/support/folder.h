/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A folder of a test's own. A program that is killed leaves none behind.
 *
 *     char folder[FOLDER_BYTES];
 *     folder_make(folder, folder_parent(), "kvb_test")         // in a rig's setup
 *     folder_remove(folder);                                   // in its teardown
 */
#ifndef KVB_TEST_FOLDER_H
#define KVB_TEST_FOLDER_H

#include <stdbool.h>
#include <stdint.h>

#define FOLDER_BYTES 80

/* Where temporary files go: TMPDIR, or /tmp. */
const char *folder_parent(void);

/* `parent`/`name`.*; in the working directory if `parent` is NULL. False, and why is said: none. */
bool folder_make(char folder[FOLDER_BYTES], const char *parent, const char *name);

/* With what is in it: files, and folders that are empty. */
void folder_remove(const char *folder);

/*
 * All that this process makes under that name goes at its end, however it ends. The first
 * folder_make asks for it; before that only a program that changes what a process sees of the file
 * system. False: a kill leaves what it leaves.
 */
bool folder_remove_at_end(const char *parent, const char *name);

/* How many folders of this process there are now. */
uint32_t folders_left(void);

/* How many files are in a folder, hidden ones left out. */
uint32_t folder_files(const char *folder);

#endif
