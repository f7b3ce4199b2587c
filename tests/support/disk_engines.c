/* SPDX-License-Identifier: Apache-2.0 */
#include "support/disk_engines.h"

#include <stdio.h>

#include "support/variants.h"

static const struct disk_rig_variant variants[] = {
    {.name = "uring direct", .engine = KVBI_DISK_URING},
    {.name = "uring buffered", .engine = KVBI_DISK_URING, .buffered = true},
    {.name = "uring many issuers", .engine = KVBI_DISK_URING, .shared = true},
    {.name = "uring unregistered", .engine = KVBI_DISK_URING, .unregistered = true},
    {.name = "uring inline", .engine = KVBI_DISK_URING, .poll = true},
    {.name = "threads direct", .engine = KVBI_DISK_POSIX},
    {.name = "threads buffered", .engine = KVBI_DISK_POSIX, .buffered = true},
    {.name = "inline direct", .engine = KVBI_DISK_POSIX, .poll = true},
    {.name = "inline buffered", .engine = KVBI_DISK_POSIX, .poll = true, .buffered = true},
};
#define VARIANTS (sizeof variants / sizeof *variants)

int run_disk_engine_tests(const struct CMUnitTest *tests, size_t count)
{
    bool have_uring = rig_works(&variants[0]);
    int failed = 0;
    for (size_t i = 0; i < VARIANTS; i++)
        if (have_uring || variants[i].engine != KVBI_DISK_URING)
            failed += run_variant(variants[i].name, &variants[i], tests, count);
    return failed;
}
