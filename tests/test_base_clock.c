/* SPDX-License-Identifier: Apache-2.0 */
/* Time never goes backwards, whatever the caller gives. */
#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>

static uint64_t scripted_now(void *context)
{
    return *(uint64_t *)context;
}

static void test_clock_stepping_back_is_held_at_its_maximum(void **state)
{
    (void)state;
    uint64_t now = 1000;
    struct kvbi_clock clock;
    kvbi_clock_init(&clock, &(struct kvb_clock){scripted_now, &now});
    assert_int_equal(kvbi_clock_now(&clock), 1000);
    now = 10;
    assert_int_equal(kvbi_clock_now(&clock), 1000);
    now = 1001;
    assert_int_equal(kvbi_clock_now(&clock), 1001);
}

static void test_clock_default_advances(void **state)
{
    (void)state;
    struct kvbi_clock clock;
    kvbi_clock_init(&clock, NULL);
    uint64_t before = kvbi_clock_now(&clock);
    assert_true(before > 0);
    while (kvbi_clock_now(&clock) == before)
        ;
    assert_true(kvbi_clock_now(&clock) > before);
}

static void test_clock_without_function_is_the_default(void **state)
{
    (void)state;
    struct kvbi_clock clock;
    kvbi_clock_init(&clock, &(struct kvb_clock){NULL, NULL});
    assert_true(kvbi_clock_now(&clock) > 0);
}

static void *watch(void *argument)
{
    uint64_t last = 0, backwards = 0;
    for (int i = 0; i < 20000; i++) {
        uint64_t now = kvbi_clock_now(argument);
        backwards += now < last;
        last = now;
    }
    return (void *)(uintptr_t)backwards;
}

static void test_clock_from_many_threads_never_goes_back(void **state)
{
    (void)state;
    struct kvbi_clock clock;
    pthread_t threads[3];
    kvbi_clock_init(&clock, NULL);
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, watch, &clock), 0);
    for (int i = 0; i < 3; i++) {
        void *backwards;
        assert_int_equal(pthread_join(threads[i], &backwards), 0);
        assert_null(backwards);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clock_stepping_back_is_held_at_its_maximum),
        cmocka_unit_test(test_clock_default_advances),
        cmocka_unit_test(test_clock_without_function_is_the_default),
        cmocka_unit_test(test_clock_from_many_threads_never_goes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
