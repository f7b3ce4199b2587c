/* SPDX-License-Identifier: Apache-2.0 */
/* Ranked locks: the order is enforced in debug builds; condition variables wake and time out. */
#include "base/lock.h"
#include "support/test.h"

#include <signal.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static struct kvbi_lock store, engine;

static int locks_setup(void **state)
{
    (void)state;
    return kvbi_lock_init(&store, KVBI_RANK_STORE) != 0 ||
                   kvbi_lock_init(&engine, KVBI_RANK_ENGINE) != 0
               ? -1
               : 0;
}

static int locks_teardown(void **state)
{
    (void)state;
    kvbi_lock_fini(&store);
    kvbi_lock_fini(&engine);
    return 0;
}

/* The signal that ends `body` in a child process; 0 if it returns. */
static int signal_of(void (*body)(void))
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        (void)signal(SIGABRT, SIG_DFL);
        (void)close(STDERR_FILENO);
        body();
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void take_in_order(void)
{
    kvbi_lock_assert_none_held();
    kvbi_lock_take(&store);
    kvbi_lock_take(&engine);
    kvbi_lock_assert_held(&store);
    kvbi_lock_assert_held(&engine);
    kvbi_lock_release(&store);
    kvbi_lock_release(&engine);
    kvbi_lock_assert_none_held();
}

static void take_against_order(void)
{
    kvbi_lock_take(&engine);
    kvbi_lock_take(&store);
}

static void take_two_of_one_rank(void)
{
    struct kvbi_lock other;
    if (kvbi_lock_init(&other, KVBI_RANK_STORE) != 0)
        return;
    kvbi_lock_take(&store);
    kvbi_lock_take(&other);
}

static void take_twice(void)
{
    kvbi_lock_take(&store);
    kvbi_lock_take(&store);
}

static void release_unheld(void)
{
    kvbi_lock_release(&store);
}

static void assert_held_unheld(void)
{
    kvbi_lock_assert_held(&store);
}

static void assert_none_held_while_held(void)
{
    kvbi_lock_take(&store);
    kvbi_lock_assert_none_held();
}

static void wait_with_higher_rank_held(void)
{
    struct kvbi_cond cond;
    if (kvbi_cond_init(&cond) != 0)
        return;
    kvbi_lock_take(&store);
    kvbi_lock_take(&engine);
    (void)kvbi_cond_timedwait(&cond, &store, 1);
}

static void test_lock_in_rank_order_passes(void **state)
{
    (void)state;
    take_in_order();
    assert_int_equal(signal_of(take_in_order), 0);
}

static void test_lock_misuse_aborts_in_debug_builds(void **state)
{
    (void)state;
    assert_int_equal(signal_of(take_against_order), SIGABRT);
    assert_int_equal(signal_of(take_two_of_one_rank), SIGABRT);
    assert_int_equal(signal_of(take_twice), SIGABRT);
    assert_int_equal(signal_of(release_unheld), SIGABRT);
    assert_int_equal(signal_of(assert_held_unheld), SIGABRT);
    assert_int_equal(signal_of(assert_none_held_while_held), SIGABRT);
    assert_int_equal(signal_of(wait_with_higher_rank_held), SIGABRT);
}

struct shared {
    struct kvbi_lock lock;
    struct kvbi_cond cond;
    uint64_t count;
    bool go;
};

static void *count_up(void *argument)
{
    struct shared *shared = argument;
    kvbi_lock_take(&shared->lock);
    while (!shared->go)
        kvbi_cond_wait(&shared->cond, &shared->lock);
    kvbi_lock_assert_held(&shared->lock);
    kvbi_lock_release(&shared->lock);
    for (int i = 0; i < 10000; i++) {
        kvbi_lock_take(&shared->lock);
        shared->count++;
        kvbi_lock_release(&shared->lock);
    }
    return NULL;
}

static void test_lock_excludes_and_broadcast_wakes_every_waiter(void **state)
{
    (void)state;
    struct shared shared = {.count = 0, .go = false};
    pthread_t threads[3];
    assert_int_equal(kvbi_lock_init(&shared.lock, KVBI_RANK_STORE), 0);
    assert_int_equal(kvbi_cond_init(&shared.cond), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count_up, &shared), 0);
    kvbi_lock_take(&shared.lock);
    shared.go = true;
    kvbi_cond_broadcast(&shared.cond);
    kvbi_lock_release(&shared.lock);
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(shared.count, 30000);
    kvbi_cond_fini(&shared.cond);
    kvbi_lock_fini(&shared.lock);
}

static uint64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void test_cond_timedwait_ends_after_its_time(void **state)
{
    (void)state;
    struct kvbi_cond cond;
    assert_int_equal(kvbi_cond_init(&cond), 0);
    kvbi_lock_take(&store);
    uint64_t start = monotonic_ns();
    while (kvbi_cond_timedwait(&cond, &store, 2000000) == 0)
        start = monotonic_ns();
    assert_true(monotonic_ns() - start >= 2000000);
    kvbi_lock_assert_held(&store);
    kvbi_lock_release(&store);
    kvbi_cond_fini(&cond);
}

static void *wake_later(void *argument)
{
    struct shared *shared = argument;
    kvbi_lock_take(&shared->lock);
    shared->go = true;
    kvbi_lock_release(&shared->lock);
    kvbi_cond_broadcast(&shared->cond);
    return NULL;
}

static void test_cond_timedwait_for_ever_is_woken(void **state)
{
    (void)state;
    const uint64_t long_times[] = {UINT64_MAX, UINT64_MAX / 2, 3600000000000u};
    for (int i = 0; i < 3; i++) {
        struct shared shared = {.go = false};
        pthread_t thread;
        assert_int_equal(kvbi_lock_init(&shared.lock, KVBI_RANK_ENGINE), 0);
        assert_int_equal(kvbi_cond_init(&shared.cond), 0);
        kvbi_lock_take(&shared.lock);
        assert_int_equal(pthread_create(&thread, NULL, wake_later, &shared), 0);
        while (!shared.go)
            assert_int_equal(kvbi_cond_timedwait(&shared.cond, &shared.lock, long_times[i]), 0);
        kvbi_lock_release(&shared.lock);
        assert_int_equal(pthread_join(thread, NULL), 0);
        kvbi_cond_fini(&shared.cond);
        kvbi_lock_fini(&shared.lock);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(locks, test_lock_in_rank_order_passes),
        TEST(locks, test_lock_misuse_aborts_in_debug_builds),
        TEST(bare, test_lock_excludes_and_broadcast_wakes_every_waiter),
        TEST(locks, test_cond_timedwait_ends_after_its_time),
        TEST(bare, test_cond_timedwait_for_ever_is_woken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
