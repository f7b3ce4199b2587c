/* SPDX-License-Identifier: Apache-2.0 */
/* Allocation: overflow, alignment, zeroing, sized free, a failing allocator. */
#include "base/memory.h"
#include "support/test.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* An allocator that counts, dirties what it gives, and can be told to fail or to misalign. */
struct counting {
    size_t allocs, frees;
    size_t live_bytes;
    bool fail;
    size_t shift;
};

static void *counting_alloc(void *context, size_t bytes, size_t alignment)
{
    struct counting *counting = context;
    counting->allocs++;
    if (counting->fail)
        return NULL;
    size_t rounded = (bytes + counting->shift + alignment - 1) / alignment * alignment;
    char *memory = aligned_alloc(alignment, rounded);
    assert_non_null(memory);
    memset(memory, 0xee, rounded);
    counting->live_bytes += bytes;
    return memory + counting->shift;
}

static void counting_free(void *context, void *memory, size_t bytes)
{
    struct counting *counting = context;
    counting->frees++;
    if (memory != NULL)
        counting->live_bytes -= bytes;
    free(memory == NULL ? NULL : (char *)memory - counting->shift);
}

static struct kvbi_memory with(struct counting *counting)
{
    struct kvbi_memory memory;
    struct kvb_allocator allocator = {counting_alloc, counting_free, counting};
    assert_int_equal(kvbi_memory_init(&memory, &allocator), 0);
    return memory;
}

static struct kvbi_memory with_default(void)
{
    struct kvbi_memory memory;
    assert_int_equal(kvbi_memory_init(&memory, NULL), 0);
    return memory;
}

static void test_memory_product_overflow_is_no_memory(void **state)
{
    (void)state;
    struct counting counting = {0};
    struct kvbi_memory memory = with(&counting);
    assert_null(kvbi_memory_alloc(&memory, SIZE_MAX / 2 + 1, 2, 0));
    assert_null(kvbi_memory_alloc_raw(&memory, SIZE_MAX, SIZE_MAX, 0));
    assert_int_equal(counting.allocs, 0);
}

static void test_memory_default_refuses_impossible_sizes(void **state)
{
    (void)state;
    struct kvbi_memory memory = with_default();
    assert_null(kvbi_memory_alloc_raw(&memory, SIZE_MAX, 1, 0));
    assert_null(kvbi_memory_alloc_raw(&memory, SIZE_MAX - 4096, 1, 0));
    assert_null(kvbi_memory_alloc_raw(&memory, (size_t)PTRDIFF_MAX / 2, 1, 0));
    assert_null(kvbi_memory_alloc_raw(&memory, 1, 1, SIZE_MAX / 2 + 1));
}

static void test_memory_failing_allocator_is_no_memory(void **state)
{
    (void)state;
    struct counting counting = {.fail = true};
    struct kvbi_memory memory = with(&counting);
    assert_null(kvbi_memory_alloc(&memory, 4, 4, 0));
    assert_null(kvbi_memory_alloc_raw(&memory, 4, 4, 0));
    assert_int_equal(counting.allocs, 2);
    assert_int_equal(counting.frees, 0);
}

static void test_memory_misaligned_allocator_is_no_memory_and_no_leak(void **state)
{
    (void)state;
    struct counting counting = {.shift = 8};
    struct kvbi_memory memory = with(&counting);
    assert_null(kvbi_memory_alloc(&memory, 100, 1, 64));
    assert_int_equal(counting.frees, 1);
    assert_int_equal(counting.live_bytes, 0);
}

static void test_memory_caller_memory_is_zeroed_and_freed_with_its_size(void **state)
{
    (void)state;
    struct counting counting = {0};
    struct kvbi_memory memory = with(&counting);
    /* above the size from which the default allocator need not zero */
    size_t count = KVBI_MAP_BYTES / 8 + 3;
    uint64_t *words = kvbi_memory_alloc(&memory, count, 8, 64);
    assert_non_null(words);
    for (size_t i = 0; i < count; i++)
        assert_true(words[i] == 0);
    assert_int_equal(counting.live_bytes, count * 8);
    kvbi_memory_free(&memory, words, count, 8);
    assert_int_equal(counting.live_bytes, 0);
}

static void test_memory_default_is_zeroed_and_aligned_at_every_size(void **state)
{
    (void)state;
    struct kvbi_memory memory = with_default();
    const size_t sizes[] = {
        1,       63,      4096,    KVBI_MAP_BYTES - 1,  KVBI_MAP_BYTES, KVBI_MAP_BYTES + 1,
        3000001, 4194303, 4194304, KVBI_HUGE_BYTES + 7, 9000000};
    const size_t alignments[] = {0, 1, 2, 8, 64, 4096, 65536, 4194304};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        for (size_t j = 0; j < sizeof alignments / sizeof alignments[0]; j++) {
            unsigned char *bytes = kvbi_memory_alloc(&memory, sizes[i], 1, alignments[j]);
            assert_non_null(bytes);
            if (alignments[j] != 0)
                assert_int_equal((uintptr_t)bytes % alignments[j], 0);
            if (sizes[i] >= KVBI_HUGE_BYTES)
                assert_int_equal((uintptr_t)bytes % (2u << 20), 0);
            assert_int_equal(bytes[0], 0);
            assert_int_equal(memcmp(bytes, bytes + 1, sizes[i] - 1), 0);
            memset(bytes, 0xee, sizes[i]);
            kvbi_memory_free(&memory, bytes, sizes[i], 1);
        }
}

static void test_memory_nothing_can_be_allocated_and_freed(void **state)
{
    (void)state;
    struct kvbi_memory memory = with_default();
    void *nothing = kvbi_memory_alloc(&memory, 0, 16, 0);
    assert_non_null(nothing);
    kvbi_memory_free(&memory, nothing, 0, 16);
    kvbi_memory_free(&memory, NULL, 5, 16);
}

static void test_memory_half_an_allocator_is_invalid(void **state)
{
    (void)state;
    struct kvbi_memory memory;
    struct kvb_allocator no_free = {counting_alloc, NULL, NULL};
    struct kvb_allocator no_alloc = {NULL, counting_free, NULL};
    struct kvb_allocator empty = {NULL, NULL, NULL};
    assert_int_equal(kvbi_memory_init(&memory, &no_free), KVB_EINVAL);
    assert_int_equal(kvbi_memory_init(&memory, &no_alloc), KVB_EINVAL);
    assert_int_equal(kvbi_memory_init(&memory, &empty), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(bare, test_memory_product_overflow_is_no_memory),
        TEST(bare, test_memory_default_refuses_impossible_sizes),
        TEST(bare, test_memory_failing_allocator_is_no_memory),
        TEST(bare, test_memory_misaligned_allocator_is_no_memory_and_no_leak),
        TEST(bare, test_memory_caller_memory_is_zeroed_and_freed_with_its_size),
        TEST(bare, test_memory_default_is_zeroed_and_aligned_at_every_size),
        TEST(bare, test_memory_nothing_can_be_allocated_and_freed),
        TEST(bare, test_memory_half_an_allocator_is_invalid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
