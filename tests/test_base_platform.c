/* SPDX-License-Identifier: Apache-2.0 */
/* Fork detection with real forks, threads without signals, random numbers, wake-ups. */
#include "base/platform.h"
#include "support/test.h"

#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* What the guard says in a child; `depth` forks below this process. */
static bool seen_by_descendant(const struct kvbi_fork_guard *guard, int depth)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (depth > 1)
            _exit(seen_by_descendant(guard, depth - 1) ? 1 : 0);
        _exit(kvbi_fork_guard_is_child(guard) ? 1 : 0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status) == 1;
}

static void check_guard(struct kvbi_fork_guard *guard)
{
    assert_false(kvbi_fork_guard_is_child(guard));
    assert_true(seen_by_descendant(guard, 1));
    assert_true(seen_by_descendant(guard, 2));
    assert_false(kvbi_fork_guard_is_child(guard));
}

static int guard_setup(void **state)
{
    static struct kvbi_fork_guard guard;
    guard = (struct kvbi_fork_guard){.page = NULL};
    *state = &guard;
    return 0;
}

static int guard_teardown(void **state)
{
    kvbi_fork_guard_destroy(*state);
    return 0;
}

static void test_fork_guard_tells_child_from_parent(void **state)
{
    struct kvbi_fork_guard *guard = *state;
    assert_int_equal(kvbi_fork_guard_create(guard), 0);
    check_guard(guard);
}

static void test_fork_guard_by_pid_tells_child_from_parent(void **state)
{
    struct kvbi_fork_guard *guard = *state;
    kvbi_fork_guard_create_by_pid(guard);
    check_guard(guard);
}

static void test_fork_guard_created_in_child_is_the_childs_own(void **state)
{
    (void)state;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct kvbi_fork_guard guard;
        if (kvbi_fork_guard_create(&guard) != 0)
            _exit(2);
        _exit(kvbi_fork_guard_is_child(&guard) ? 1 : 0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

struct thread_report {
    int open_signals;
};

static void *report_thread(void *argument)
{
    struct thread_report *report = argument;
    sigset_t blocked;
    (void)pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    for (int number = 1; number <= SIGRTMAX; number++)
        if (number != SIGKILL && number != SIGSTOP && (number < 32 || number >= SIGRTMIN))
            report->open_signals += sigismember(&blocked, number) == 0;
    return NULL;
}

static void test_thread_start_blocks_all_signals_and_leaves_the_callers_mask(void **state)
{
    (void)state;
    struct thread_report report = {.open_signals = 0};
    sigset_t before, after;
    pthread_t thread;
    (void)pthread_sigmask(SIG_SETMASK, NULL, &before);
    assert_int_equal(kvbi_thread_start(&thread, "kvb-test", report_thread, &report), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    (void)pthread_sigmask(SIG_SETMASK, NULL, &after);
    assert_int_equal(report.open_signals, 0);
    for (int number = 1; number < SIGRTMAX; number++)
        assert_int_equal(sigismember(&before, number), sigismember(&after, number));
}

static int wake_setup(void **state)
{
    static struct kvbi_wake wake;
    *state = &wake;
    return kvbi_wake_create(&wake);
}

static int wake_teardown(void **state)
{
    kvbi_wake_destroy(*state);
    return 0;
}

static void *wait_for_wake(void *argument)
{
    struct pollfd waited = {.fd = kvbi_wake_fd(argument), .events = POLLIN};
    while (poll(&waited, 1, -1) != 1)
        ;
    return NULL;
}

static void test_thread_start_names_the_thread_in_fifteen_bytes(void **state)
{
    struct kvbi_wake *wake = *state;
    pthread_t thread;
    char name[32];
    assert_int_equal(kvbi_thread_start(&thread, "kvb-name-longer-than-that", wait_for_wake, wake),
                     0);
    assert_int_equal(pthread_getname_np(thread, name, sizeof name), 0);
    kvbi_wake_signal(wake);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_string_equal(name, "kvb-name-longer");
}

static void test_random_differs_between_calls(void **state)
{
    (void)state;
    uint64_t a, b;
    assert_int_equal(kvbi_random_u64(&a), 0);
    assert_int_equal(kvbi_random_u64(&b), 0);
    assert_true(a != b);
}

static bool is_readable(const struct kvbi_wake *wake)
{
    struct pollfd polled = {.fd = kvbi_wake_fd(wake), .events = POLLIN};
    return poll(&polled, 1, 0) == 1;
}

static void test_wake_is_readable_from_signal_until_drain(void **state)
{
    struct kvbi_wake *wake = *state;
    assert_false(is_readable(wake));
    assert_false(kvbi_wake_drain(wake));
    kvbi_wake_signal(wake);
    kvbi_wake_signal(wake);
    assert_true(is_readable(wake));
    assert_true(kvbi_wake_drain(wake));
    assert_false(is_readable(wake));
}

static void test_wake_with_full_counter_does_not_block(void **state)
{
    struct kvbi_wake *wake = *state;
    uint64_t full = UINT64_MAX - 1;
    assert_int_equal(write(kvbi_wake_fd(wake), &full, sizeof full), sizeof full);
    kvbi_wake_signal(wake);
    assert_true(is_readable(wake));
}

static void test_wake_without_descriptors_is_no_memory(void **state)
{
    (void)state;
    struct kvbi_wake wake;
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &(struct rlimit){0, before.rlim_max}), 0);
    int result = kvbi_wake_create(&wake);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(result, KVB_ENOMEM);
    kvbi_wake_destroy(&wake);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(guard, test_fork_guard_tells_child_from_parent),
        TEST(guard, test_fork_guard_by_pid_tells_child_from_parent),
        TEST(bare, test_fork_guard_created_in_child_is_the_childs_own),
        TEST(bare, test_thread_start_blocks_all_signals_and_leaves_the_callers_mask),
        TEST(wake, test_thread_start_names_the_thread_in_fifteen_bytes),
        TEST(bare, test_random_differs_between_calls),
        TEST(wake, test_wake_is_readable_from_signal_until_drain),
        TEST(wake, test_wake_with_full_counter_does_not_block),
        TEST(bare, test_wake_without_descriptors_is_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
