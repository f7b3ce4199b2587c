/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that fails on the n-th allocation, counts what is live, and hands out dirty bytes; for
 * tests of one module.
 *
 *     struct failing_memory failing;
 *     struct kvbi_memory memory = failing_memory(&failing, 2);  // two succeed, then none
 *     ...
 *     assert_int_equal(failing.live_bytes, 0);  // freed with the sizes they were allocated with
 */
#ifndef KVB_TEST_FAILING_MEMORY_H
#define KVB_TEST_FAILING_MEMORY_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

struct failing_memory {
    int64_t left;
    int64_t live_bytes;
    int64_t live_count;
};

struct kvbi_memory failing_memory(struct failing_memory *failing, int64_t successes);

/* Whether all of it has been freed; says so where not. For teardowns. */
bool failing_memory_is_back(const struct failing_memory *failing);

#endif
