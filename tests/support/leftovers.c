/* SPDX-License-Identifier: Apache-2.0 */
#include "support/leftovers.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

/* Nothing here but system calls: the program may have had threads when it forked. */
_Noreturn static void wait_for_the_end(int ends[2], char *const command[])
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

bool leftovers_at_end(char *const command[])
{
    int ends[2], status = 1;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return false;
    pid_t child = fork();
    if (child == 0)
        wait_for_the_end(ends, command);
    (void)close(ends[0]); /* the other end stays open as long as this program lives */
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    return child > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}
