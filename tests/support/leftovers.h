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

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/wait.h>
#include <unistd.h>

/* Nothing here but system calls: the program may have had threads when it forked. */
_Noreturn static inline void leftovers_wait(int ends[2], char *const command[])
{
    char byte;
    if (setsid() < 0)
        _exit(1);
    pid_t child = fork();
    if (child != 0)
        _exit(child < 0);
    (void)close(ends[1]);
    (void)close(STDIN_FILENO);
    while (read(ends[0], &byte, 1) < 0 && errno == EINTR) {
    }
    (void)execv(command[0], command);
    _exit(1);
}

/* False: there is no such process, and a kill leaves what it leaves. */
static inline bool leftovers_at_end(char *const command[])
{
    int ends[2], status = 1;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return false;
    pid_t child = fork();
    if (child == 0)
        leftovers_wait(ends, command);
    (void)close(ends[0]); /* the other end stays open as long as this program lives */
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    return child > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

#endif
