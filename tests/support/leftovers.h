/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a program makes and removes itself is removed as well where it cannot: it was killed.
 *
 *     static char *const command[] = {"/bin/rm", "-rf", folder, NULL};
 *     leftovers_at_end(command);          // before anything is made there
 *
 * A process of its own runs the command at the end of this program and of all that it has forked,
 * however they end. It has left the program's process group and family, so that nobody who ends
 * those ends it. It knows the end by a pipe, of which only they have the other end. Standard output
 * and standard error stay open in it: who reads them to their end finds all done.
 */
#ifndef KVB_TEST_LEFTOVERS_H
#define KVB_TEST_LEFTOVERS_H

#include <stdbool.h>

/* False: there is no such process, and a kill leaves what it leaves. */
bool leftovers_at_end(char *const command[]);

#endif
