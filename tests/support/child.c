/* SPDX-License-Identifier: Apache-2.0 */
#include "support/child.h"

#include <sys/wait.h>
#include <unistd.h>

#include "support/test.h"

pid_t child_start(int (*body)(void *argument), void *argument)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(body(argument));
    return child;
}

int child_status(pid_t child)
{
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int child_run(int (*body)(void *argument), void *argument)
{
    return child_status(child_start(body, argument));
}
