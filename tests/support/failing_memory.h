/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that fails on the n-th allocation, counts what is live, and hands out dirty bytes; for tests of one module.
 *
 *     struct failing_memory failing;
 *     struct kvbi_memory memory = failing_memory(&failing, 2);  // two succeed, from then on all fail
 *     ...
 *     assert_int_equal(failing.live_bytes, 0);                  // freed with the sizes they were allocated with
 */
#ifndef KVB_TEST_FAILING_MEMORY_H
#define KVB_TEST_FAILING_MEMORY_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

struct failing_memory {
    int64_t left;
    int64_t live_bytes;
    int64_t live_count;
};

static inline void *failing_memory_alloc(void *context, size_t bytes, size_t alignment)
{
    struct failing_memory *failing = context;
    if (failing->left-- <= 0)
        return NULL;
    void *pointer = aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
    if (pointer == NULL)
        return NULL;
    memset(pointer, 0xa5, bytes);
    failing->live_bytes += (int64_t)bytes;
    failing->live_count++;
    return pointer;
}

static inline void failing_memory_free(void *context, void *pointer, size_t bytes)
{
    struct failing_memory *failing = context;
    failing->live_bytes -= (int64_t)bytes;
    failing->live_count--;
    free(pointer);
}

static inline struct kvbi_memory failing_memory(struct failing_memory *failing, int64_t successes)
{
    *failing = (struct failing_memory){.left = successes};
    return (struct kvbi_memory){{failing_memory_alloc, failing_memory_free, failing}};
}

#endif
