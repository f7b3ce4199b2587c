/* SPDX-License-Identifier: Apache-2.0 */
/* Time never goes backwards, whatever the caller gives. */
#include "base/clock.h"
#include "support/test.h"

#include <pthread.h>
#include <time.h>

static uint64_t scripted_now(void *context)
{
    return *(uint64_t *)context;
}

static void test_clock_stepping_back_adds_nothing_and_goes_on(void **state)
{
    (void)state;
    uint64_t now = 1000;
    struct kvbi_clock clock;
    kvbi_clock_init(&clock, &(struct kvb_clock){scripted_now, &now});
    assert_int_equal(kvbi_clock_now(&clock), 1000);
    now = 10;
    assert_int_equal(kvbi_clock_now(&clock), 1000);
    now = 13;
    assert_int_equal(kvbi_clock_now(&clock), 1003);
    now = 1013;
    assert_int_equal(kvbi_clock_now(&clock), 2003);
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

/* The caller's clock is right, and readings of it overtake each other. */
static uint64_t real_now(void *context)
{
    struct timespec now;
    (void)context;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void watch_from_many_threads(const struct kvb_clock *source)
{
    struct kvbi_clock clock;
    pthread_t threads[3];
    kvbi_clock_init(&clock, source);
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, watch, &clock), 0);
    for (int i = 0; i < 3; i++) {
        void *backwards;
        assert_int_equal(pthread_join(threads[i], &backwards), 0);
        assert_null(backwards);
    }
}

static void test_clock_from_many_threads_never_goes_back(void **state)
{
    (void)state;
    watch_from_many_threads(NULL);
    watch_from_many_threads(&(struct kvb_clock){real_now, NULL});
}

static void test_clock_read_by_many_threads_gains_nothing(void **state)
{
    (void)state;
    struct kvbi_clock clock;
    pthread_t threads[3];
    kvbi_clock_init(&clock, &(struct kvb_clock){real_now, NULL});
    uint64_t before = real_now(NULL), first = kvbi_clock_now(&clock);
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, watch, &clock), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    uint64_t last = kvbi_clock_now(&clock);
    assert_true(last - first <= real_now(NULL) - before); /* overtaken readings would add twice */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(bare, test_clock_stepping_back_adds_nothing_and_goes_on),
        TEST(bare, test_clock_default_advances),
        TEST(bare, test_clock_without_function_is_the_default),
        TEST(bare, test_clock_from_many_threads_never_goes_back),
        TEST(bare, test_clock_read_by_many_threads_gains_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
