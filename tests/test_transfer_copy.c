/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every copy kernel that this machine runs is byte-exact at every alignment, and writes nothing
 * beside its target.
 */
#include "support/test.h"
#include "transfer/memory/copy.h"

#include <stdlib.h>
#include <string.h>

#define ALIGNMENTS 64u
#define GUARD 128u
#define BYTES_MAX (KVBI_COPY_STREAM_BYTES * 8)
#define ROOM (BYTES_MAX + ALIGNMENTS + 2 * GUARD)

static unsigned char *source_memory, *target_memory, *untouched;

static int kernels_setup(void **state)
{
    (void)state;
    source_memory = aligned_alloc(64, ROOM);
    target_memory = aligned_alloc(64, ROOM);
    untouched = malloc(ROOM);
    if (source_memory == NULL || target_memory == NULL || untouched == NULL)
        return -1;
    memset(untouched, 0xee, ROOM);
    uint64_t random = 88172645463325252u;
    for (size_t i = 0; i < ROOM; i++) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        source_memory[i] = (unsigned char)(random >> 32);
    }
    return 0;
}

static int kernels_teardown(void **state)
{
    (void)state;
    free(source_memory);
    free(target_memory);
    free(untouched);
    return 0;
}

static void check(const struct kvbi_copy_ops *ops, size_t to_offset, size_t from_offset,
                  size_t bytes)
{
    unsigned char *target = target_memory + GUARD + to_offset;
    const unsigned char *source = source_memory + GUARD + from_offset;
    size_t used = GUARD + to_offset + bytes + GUARD;
    memset(target_memory, 0xee, used);
    ops->copy(target, source, bytes);
    if (memcmp(target, source, bytes) != 0 ||
        memcmp(target_memory, untouched, GUARD + to_offset) != 0 ||
        memcmp(target + bytes, untouched, GUARD) != 0)
        fail_msg("%s: %zu bytes to offset %zu from offset %zu", ops->name, bytes, to_offset,
                 from_offset);
}

/* The best of this machine and everything below. */
static uint32_t kernels(const struct kvbi_copy_ops *ops[3])
{
    uint32_t count = 0;
    for (int isa = KVBI_ISA_BASELINE; isa <= (int)kvbi_isa_detect(); isa++) {
        const struct kvbi_copy_ops *kernel = kvbi_copy_select((enum kvbi_isa)isa);
        assert_non_null(kernel);
        if (count == 0 || ops[count - 1] != kernel)
            ops[count++] = kernel;
    }
    return count;
}

static void test_copy_around_the_threshold_at_every_alignment_is_exact(void **state)
{
    (void)state;
    const struct kvbi_copy_ops *ops[3];
    uint32_t count = kernels(ops);
    for (uint32_t k = 0; k < count; k++)
        for (size_t to = 0; to < ALIGNMENTS; to++) {
            size_t from = to * 37 % ALIGNMENTS;
            for (size_t bytes = KVBI_COPY_STREAM_BYTES - 2; bytes <= KVBI_COPY_STREAM_BYTES + 2;
                 bytes++) {
                check(ops[k], to, from, bytes);
                check(ops[k], to, 0, bytes);
                check(ops[k], 0, to, bytes);
            }
        }
}

/* More than one step of the loop's width, so that every length of the tail occurs. */
static void test_copy_of_every_tail_length_is_exact(void **state)
{
    (void)state;
    const struct kvbi_copy_ops *ops[3];
    uint32_t count = kernels(ops);
    for (uint32_t k = 0; k < count; k++)
        for (size_t tail = 0; tail <= 320; tail++)
            check(ops[k], tail * 29 % ALIGNMENTS, tail * 11 % ALIGNMENTS,
                  KVBI_COPY_STREAM_BYTES + tail);
}

static void test_copy_of_small_sizes_is_exact(void **state)
{
    (void)state;
    const struct kvbi_copy_ops *ops[3];
    uint32_t count = kernels(ops);
    for (uint32_t k = 0; k < count; k++)
        for (size_t bytes = 0; bytes <= 600; bytes++)
            check(ops[k], bytes % ALIGNMENTS, bytes * 7 % ALIGNMENTS, bytes);
}

static void test_copy_of_random_sizes_is_exact(void **state)
{
    (void)state;
    const struct kvbi_copy_ops *ops[3];
    uint32_t count = kernels(ops);
    uint64_t random = 1;
    for (uint32_t k = 0; k < count; k++)
        for (int i = 0; i < 400; i++) {
            random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            check(ops[k], (random >> 33) % ALIGNMENTS, (random >> 40) % ALIGNMENTS,
                  (random >> 20) % BYTES_MAX);
        }
}

static void test_copy_of_nothing_accepts_null(void **state)
{
    (void)state;
    const struct kvbi_copy_ops *ops[3];
    uint32_t count = kernels(ops);
    for (uint32_t k = 0; k < count; k++)
        ops[k]->copy(NULL, NULL, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kernels, test_copy_around_the_threshold_at_every_alignment_is_exact),
        TEST(kernels, test_copy_of_every_tail_length_is_exact),
        TEST(kernels, test_copy_of_small_sizes_is_exact),
        TEST(kernels, test_copy_of_random_sizes_is_exact),
        TEST(kernels, test_copy_of_nothing_accepts_null),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
