/* SPDX-License-Identifier: Apache-2.0 */
/* debug - see debug.h. */
#include "base/debug.h"

#if KVBI_DEBUG

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void kvbi_debug_fail(const char *what)
{
    /* write(2), not stdio: the failing thread may hold any lock, stdio's included. */
    const char *parts[] = {"kvblock: ", what, "\n"};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        ssize_t written = write(STDERR_FILENO, parts[i], strlen(parts[i]));
        (void)written;
    }
    abort();
}

#endif
