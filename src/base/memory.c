/* SPDX-License-Identifier: Apache-2.0 */
/* memory - see memory.h. */
#include "base/memory.h"

#include "base/debug.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define HUGE_PAGE_BYTES ((size_t)2 << 20)

static size_t round_up(size_t value, size_t power_of_two)
{
    return (value + power_of_two - 1) & ~(power_of_two - 1);
}

static size_t page_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

/*
 * Maps `length` bytes (whole pages) that start at a multiple of `alignment`: maps more and trims
 * both ends.
 */
static void *map_aligned(size_t length, size_t alignment)
{
    size_t extra = alignment > page_bytes() ? alignment : 0;
    if (length > PTRDIFF_MAX - extra)
        return NULL;
    char *start =
        mmap(NULL, length + extra, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED)
        return NULL;
    if (extra == 0)
        return start;
    size_t head = round_up((uintptr_t)start, alignment) - (uintptr_t)start;
    if (head > 0)
        (void)munmap(start, head);
    if (extra > head)
        (void)munmap(start + head + length, extra - head);
    return start + head;
}

static void *default_alloc(void *context, size_t bytes, size_t alignment)
{
    (void)context;
    if (bytes > (size_t)PTRDIFF_MAX / 2 || alignment > (size_t)PTRDIFF_MAX / 4)
        return NULL;
    if (bytes < KVBI_MAP_BYTES)
        return aligned_alloc(alignment, round_up(bytes, alignment));
    size_t length = round_up(bytes, page_bytes());
    bool huge = bytes >= KVBI_HUGE_BYTES;
    if (huge && alignment < HUGE_PAGE_BYTES)
        alignment = HUGE_PAGE_BYTES;
    void *memory = map_aligned(length, alignment);
    /* advice: a kernel without huge pages refuses, no harm done */
    if (memory != NULL && huge)
        (void)madvise(memory, length, MADV_HUGEPAGE);
    return memory;
}

static void default_free(void *context, void *memory, size_t bytes)
{
    (void)context;
    if (bytes < KVBI_MAP_BYTES)
        free(memory);
    else
        (void)munmap(memory, round_up(bytes, page_bytes()));
}

int kvbi_memory_init(struct kvbi_memory *memory, const struct kvb_allocator *allocator)
{
    memory->a =
        (struct kvb_allocator){.alloc = default_alloc, .free = default_free, .context = NULL};
    if (allocator == NULL || (allocator->alloc == NULL && allocator->free == NULL))
        return 0;
    if (allocator->alloc == NULL || allocator->free == NULL)
        return KVB_EINVAL;
    memory->a = *allocator;
    return 0;
}

/*
 * False: the product does not fit. An allocation of nothing is one of one byte, here and in free
 * alike.
 */
static bool total_bytes(size_t count, size_t size, size_t *bytes)
{
    if (__builtin_mul_overflow(count, size, bytes))
        return false;
    if (*bytes == 0)
        *bytes = 1;
    return true;
}

void *kvbi_memory_alloc_raw(const struct kvbi_memory *memory, size_t count, size_t size,
                            size_t alignment)
{
    size_t bytes;
    if (alignment == 0)
        alignment = _Alignof(max_align_t);
    KVBI_ASSERT((alignment & (alignment - 1)) == 0);
    if (!total_bytes(count, size, &bytes))
        return NULL;
    void *pointer = memory->a.alloc(memory->a.context, bytes, alignment);
    if (((uintptr_t)pointer & (alignment - 1)) != 0) {
        memory->a.free(memory->a.context, pointer, bytes);
        return NULL;
    }
    return pointer;
}

void *kvbi_memory_alloc(const struct kvbi_memory *memory, size_t count, size_t size,
                        size_t alignment)
{
    void *pointer = kvbi_memory_alloc_raw(memory, count, size, alignment);
    if (pointer == NULL)
        return NULL;
    bool fresh_pages = memory->a.alloc == default_alloc && count * size >= KVBI_MAP_BYTES;
    if (!fresh_pages)
        memset(pointer, 0, count * size);
    return pointer;
}

void kvbi_memory_free(const struct kvbi_memory *memory, void *pointer, size_t count, size_t size)
{
    size_t bytes;
    if (pointer == NULL)
        return;
    bool fits = total_bytes(count, size, &bytes);
    KVBI_ASSERT(fits);
    (void)fits;
    memory->a.free(memory->a.context, pointer, bytes);
}
