/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The names and texts of errors, and the version, are the header's.
 */
#include <stdio.h>

#include <kvblock.h>

#include "support/test.h"

static void test_error_names_and_texts_are_the_headers(void **state)
{
    (void)state;
#define CHECK(name, number, text)                                                                  \
    assert_int_equal(KVB_##name, number);                                                          \
    assert_string_equal(kvb_error_name(number), "KVB_" #name);                                     \
    assert_string_equal(kvb_strerror(number), text);
    KVB_ERROR_MAP(CHECK)
#undef CHECK
}

static void test_error_names_of_other_numbers_are_never_null(void **state)
{
    (void)state;
    const int others[] = {1, -21, -1000, INT32_MAX, INT32_MIN};
    assert_string_equal(kvb_error_name(0), "KVB_OK");
    assert_string_equal(kvb_strerror(0), "success");
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        assert_string_equal(kvb_error_name(others[i]), "KVB_UNKNOWN");
        assert_string_equal(kvb_strerror(others[i]), "unknown error");
    }
}

static void test_version_is_the_headers(void **state)
{
    (void)state;
    char expected[32];
    (void)snprintf(expected, sizeof expected, "%d.%d.%d", KVB_VERSION_MAJOR, KVB_VERSION_MINOR,
                   KVB_VERSION_PATCH);
    assert_string_equal(kvb_version(), expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(bare, test_error_names_and_texts_are_the_headers),
        TEST(bare, test_error_names_of_other_numbers_are_never_null),
        TEST(bare, test_version_is_the_headers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
