/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory - every allocation of the library
 *
 * Owns the caller's allocator (copied) and the default one. Nothing else in src/ calls malloc, free
 * or mmap for memory.
 * Callers: anything in src/; any thread, as far as the caller's allocator allows. May be called
 * under locks: the header forbids an allocator to call back into the library.
 * Invariants: count * size never wraps; memory is freed with the count and size it was allocated
 * with (sized free).
 * Lock: none of its own.
 * Why: pools and indexes are a few huge arrays that live as long as their manager. From 1 MiB on
 * the default maps pages, which come zeroed without being touched and go back to the system at
 * once; from 4 MiB on the mapping starts on a 2 MiB boundary and asks for huge pages: a match over
 * an index of a million entries is bound by cache and TLB misses, and registering 1 GiB for I/O
 * took 2 ms with huge pages against 13 ms without (Xeon, Linux 6.18).
 */
#ifndef KVBI_BASE_MEMORY_H
#define KVBI_BASE_MEMORY_H

#include <kvblock.h>
#include <stddef.h>

#define KVBI_MAP_BYTES ((size_t)1 << 20)
#define KVBI_HUGE_BYTES ((size_t)4 << 20)

struct kvbi_memory {
    struct kvb_allocator a;
};

/*
 * `allocator` is copied; NULL, or one without functions, stands for the default. KVB_EINVAL: only
 * one of its functions.
 */
KVB_NODISCARD int kvbi_memory_init(struct kvbi_memory *memory,
                                   const struct kvb_allocator *allocator);

/*
 * count * size zeroed bytes. alignment: a power of two, or 0 for what malloc gives. NULL: no
 * memory, the product does not fit, or the caller's allocator broke the alignment. A size of 0
 * yields a pointer that can be freed.
 */
KVB_NODISCARD void *kvbi_memory_alloc(const struct kvbi_memory *memory, size_t count, size_t size,
                                      size_t alignment);

/* The same, not zeroed. */
KVB_NODISCARD void *kvbi_memory_alloc_raw(const struct kvbi_memory *memory, size_t count,
                                          size_t size, size_t alignment);

/* count and size as allocated. NULL is legal. */
void kvbi_memory_free(const struct kvbi_memory *memory, void *pointer, size_t count, size_t size);

#endif
