/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs tests of disk_rig.h with every disk engine, which all meet the same demands: io_uring,
 * threads, inside reap; with direct and with buffered I/O.
 */
#ifndef KVB_TEST_DISK_ENGINES_H
#define KVB_TEST_DISK_ENGINES_H

#include "support/disk_rig.h"

/* The program's exit status. Without the ring, and why is said, where this machine refuses it. */
int run_disk_engine_tests(const struct CMUnitTest *tests, size_t count);

#endif
