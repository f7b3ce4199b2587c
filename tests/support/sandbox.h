/* SPDX-License-Identifier: Apache-2.0 */
/* A sandbox around the calling process, as containers have them: it cannot be taken back. */
#ifndef KVB_TEST_SANDBOX_H
#define KVB_TEST_SANDBOX_H

#include <stdbool.h>
#include <stddef.h>

/* These system calls, 7 at most, fail with `error` from now on. False: there is no seccomp here. */
bool sandbox_refuse(const int *calls, size_t count, int error);

#endif
