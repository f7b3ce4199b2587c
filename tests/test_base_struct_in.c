/* SPDX-License-Identifier: Apache-2.0 */
/* How structs from older and newer callers are read. */
#include "base/struct_in.h"
#include "support/test.h"

#include <string.h>

/* The struct as three versions of a header have it. */
struct first {
    uint32_t size;
    uint32_t a;
};
struct known {
    uint32_t size;
    uint32_t a;
    uint64_t b;
};
struct newer {
    uint32_t size;
    uint32_t a;
    uint64_t b;
    uint64_t c;
};

static int read_in(struct known *dst, const void *src)
{
    memset(dst, 0xee, sizeof *dst);
    return kvbi_struct_in(dst, sizeof *dst, sizeof(struct first), src);
}

static void test_struct_in_same_version_is_copied(void **state)
{
    (void)state;
    struct known got, given = {.size = sizeof given, .a = 1, .b = 2};
    assert_int_equal(read_in(&got, &given), 0);
    assert_memory_equal(&got, &given, sizeof got);
}

static void test_struct_in_older_caller_gets_defaults(void **state)
{
    (void)state;
    struct known got;
    struct first given = {.size = sizeof given, .a = 1};
    assert_int_equal(read_in(&got, &given), 0);
    assert_int_equal(got.size, sizeof got);
    assert_int_equal(got.a, 1);
    assert_int_equal(got.b, 0);
}

static void test_struct_in_newer_caller_with_zero_tail_is_read(void **state)
{
    (void)state;
    struct known got;
    struct newer given = {.size = sizeof given, .a = 1, .b = 2};
    assert_int_equal(read_in(&got, &given), 0);
    assert_int_equal(got.size, sizeof got);
    assert_int_equal(got.b, 2);
}

static void test_struct_in_newer_caller_asking_for_more_is_invalid(void **state)
{
    (void)state;
    struct known got, zero = {0};
    struct newer given = {.size = sizeof given, .c = UINT64_C(1) << 63};
    assert_int_equal(read_in(&got, &given), KVB_EINVAL);
    assert_memory_equal(&got, &zero, sizeof got);
}

static void test_struct_in_too_small_is_invalid(void **state)
{
    (void)state;
    struct known got, given = {.size = sizeof(struct first) - 1, .a = 1};
    assert_int_equal(read_in(&got, &given), KVB_EINVAL);
    given.size = 0;
    assert_int_equal(read_in(&got, &given), KVB_EINVAL);
}

static void test_struct_in_absurd_size_is_invalid_and_not_read(void **state)
{
    (void)state;
    struct known got, given = {.size = UINT32_MAX};
    assert_int_equal(read_in(&got, &given), KVB_EINVAL);
    given.size = KVBI_STRUCT_BYTES_MAX + 1;
    assert_int_equal(read_in(&got, &given), KVB_EINVAL);
}

static void test_struct_in_null_is_invalid(void **state)
{
    (void)state;
    struct known got;
    assert_int_equal(read_in(&got, NULL), KVB_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(bare, test_struct_in_same_version_is_copied),
        TEST(bare, test_struct_in_older_caller_gets_defaults),
        TEST(bare, test_struct_in_newer_caller_with_zero_tail_is_read),
        TEST(bare, test_struct_in_newer_caller_asking_for_more_is_invalid),
        TEST(bare, test_struct_in_too_small_is_invalid),
        TEST(bare, test_struct_in_absurd_size_is_invalid_and_not_read),
        TEST(bare, test_struct_in_null_is_invalid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
