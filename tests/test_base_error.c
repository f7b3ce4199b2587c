/* SPDX-License-Identifier: Apache-2.0 */
/* Names and texts of the error codes. */
#include "support/test.h"
#include <kvblock.h>

static void test_error_every_code_has_its_name_and_text(void **state)
{
    (void)state;
#define X(name, number, text)                                                                      \
    assert_int_equal(KVB_##name, number);                                                          \
    assert_string_equal(kvb_error_name(number), "KVB_" #name);                                     \
    assert_string_equal(kvb_strerror(number), text);
    KVB_ERROR_MAP(X)
#undef X
}

static void test_error_codes_are_negative_and_distinct(void **state)
{
    (void)state;
#define X(name, number, text) number,
    static const int codes[] = {KVB_ERROR_MAP(X)};
#undef X
    size_t count = sizeof codes / sizeof codes[0];
    for (size_t i = 0; i < count; i++) {
        assert_true(codes[i] < 0);
        for (size_t j = 0; j < i; j++)
            assert_int_not_equal(codes[i], codes[j]);
    }
}

static void test_error_zero_is_success(void **state)
{
    (void)state;
    assert_string_equal(kvb_strerror(0), "success");
    assert_string_equal(kvb_error_name(0), "KVB_OK");
}

static void test_error_unknown_code_says_so(void **state)
{
    (void)state;
    assert_string_equal(kvb_strerror(1), "unknown error");
    assert_string_equal(kvb_strerror(-9999), "unknown error");
    assert_string_equal(kvb_error_name(1), "KVB_UNKNOWN");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(bare, test_error_every_code_has_its_name_and_text),
        TEST(bare, test_error_codes_are_negative_and_distinct),
        TEST(bare, test_error_zero_is_success),
        TEST(bare, test_error_unknown_code_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
