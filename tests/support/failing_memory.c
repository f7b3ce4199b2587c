/* SPDX-License-Identifier: Apache-2.0 */
/* See failing_memory.h. */
#include "support/failing_memory.h"

#include "support/test.h"

static void *failing_memory_alloc(void *context, size_t bytes, size_t alignment)
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

static void failing_memory_free(void *context, void *pointer, size_t bytes)
{
    struct failing_memory *failing = context;
    failing->live_bytes -= (int64_t)bytes;
    failing->live_count--;
    free(pointer);
}

struct kvbi_memory failing_memory(struct failing_memory *failing, int64_t successes)
{
    *failing = (struct failing_memory){.left = successes};
    return (struct kvbi_memory){{failing_memory_alloc, failing_memory_free, failing}};
}

bool failing_memory_is_back(const struct failing_memory *failing)
{
    bool back = failing->live_bytes == 0 && failing->live_count == 0;
    if (!back)
        print_error("%lld bytes in %lld pieces not freed\n", (long long)failing->live_bytes,
                    (long long)failing->live_count);
    return back;
}
