/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The thread of the uring engine that makes and compares checksums: when there is one, and that
 * nothing is lost in its hands.
 */
#include <dirent.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "support/child.h"
#include "support/disk_rig.h"
#include "support/give_up.h"

/* Long enough under the thread's hands to be met there. */
#define BLOCK_BYTES ((uint64_t)1 << 20)
#define N 16u

static const struct disk_rig_variant threaded = {.name = "uring", .engine = KVBI_DISK_URING};
static const struct disk_rig_variant polled = {.name = "uring in poll",
                                               .engine = KVBI_DISK_URING,
                                               .poll = true};

static void begin(struct disk_rig *rig, const struct disk_rig_variant *variant)
{
    rig->variant = variant;
    rig_begin(rig, BLOCK_BYTES, N);
}

static bool has_thread(void)
{
    char path[300], name[32];
    bool found = false;
    DIR *tasks = opendir("/proc/self/task");
    assert_non_null(tasks);
    for (const struct dirent *task; (task = readdir(tasks)) != NULL;) {
        (void)snprintf(path, sizeof path, "/proc/self/task/%s/comm", task->d_name);
        FILE *file = fopen(path, "r");
        found |= file != NULL && fgets(name, sizeof name, file) != NULL &&
                 strcmp(name, "kvblock hash\n") == 0;
        if (file != NULL)
            (void)fclose(file);
    }
    (void)closedir(tasks);
    return found;
}

/* What this process may run on, also after a test that has taken some away. */
static cpu_set_t processors;

static int hashed_setup(void **state)
{
    return sched_getaffinity(0, sizeof processors, &processors) == 0 ? disk_rig_setup(state) : -1;
}

/* No thread outlives its engine; /proc shows it a little longer than its join takes. */
static int hashed_teardown(void **state)
{
    time_t give_up = time(NULL) + KV_GIVE_UP_S;
    int result = disk_rig_teardown(state);
    if (sched_setaffinity(0, sizeof processors, &processors) != 0)
        result = -1;
    while (has_thread())
        if (time(NULL) >= give_up || sched_yield() != 0) {
            print_error("the thread has outlived its engine\n");
            return -1;
        }
    return result;
}

static void submit_writes(struct disk_rig *rig)
{
    for (uint32_t i = 0; i < N; i++) {
        struct kvbi_copy copy = rig_down(rig, i, i, i, i);
        rig_fill(rig, i, i);
        assert_int_equal(rig->engine->ops->submit(rig->engine, &copy, 1, false), 0);
    }
}

/* Into the same slots of memory, emptied before. */
static void submit_reads(struct disk_rig *rig)
{
    for (uint32_t i = 0; i < N; i++) {
        struct kvbi_copy copy = rig_up(rig, i, i, i, i);
        rig_fill(rig, i, 1000);
        assert_int_equal(rig->engine->ops->submit(rig->engine, &copy, 1, true), 0);
    }
}

/* ---- When there is one ----------------------------------------------------------------------- */

static void test_hash_thread_runs_with_threads_allowed_and_two_processors(void **state)
{
    struct disk_rig *rig = *state;
    begin(rig, &threaded);
    assert_int_equal(has_thread(), CPU_COUNT(&processors) > 1);
}

static void test_hash_thread_is_not_started_in_poll_mode(void **state)
{
    struct disk_rig *rig = *state;
    begin(rig, &polled);
    assert_false(has_thread());
}

static void test_hash_thread_is_not_started_on_one_processor(void **state)
{
    struct disk_rig *rig = *state;
    cpu_set_t one;
    size_t first = 0;
    while (!CPU_ISSET(first, &processors))
        first++;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    begin(rig, &threaded);
    assert_false(has_thread());
    submit_writes(rig);
    assert_true(rig_wait(rig, N));
    submit_reads(rig);
    assert_true(rig_wait(rig, 2 * N));
    for (uint32_t i = 0; i < N; i++)
        assert_true(rig->results[i] == 0 && rig_has(rig, i, i));
}

/* ---- What is in its hands -------------------------------------------------------------------- */

/* Each result belongs to its own block, whichever is compared first. */
static void test_hash_thread_tells_corrupt_blocks_from_their_neighbours(void **state)
{
    struct disk_rig *rig = *state;
    begin(rig, &threaded);
    submit_writes(rig);
    assert_true(rig_wait(rig, N));
    for (uint32_t i = 1; i < N; i += 3)
        rig_flip(rig, i, 777);
    submit_reads(rig);
    assert_true(rig_wait(rig, 2 * N));
    for (uint32_t i = 0; i < N; i++) {
        assert_int_equal(rig->results[i], i % 3 == 1 ? KVB_ECORRUPT : 0);
        assert_true(i % 3 == 1 || rig_has(rig, i, i));
    }
}

/*
 * Whether it was being hashed, staged, flying or waiting: it ends once, and is whole or was never
 * begun.
 */
static void test_drain_waits_for_what_is_being_hashed(void **state)
{
    struct disk_rig *rig = *state;
    begin(rig, &threaded);
    submit_writes(rig);
    rig->engine->ops->drain(rig->engine);
    for (bool more = true; more;)
        assert_true(rig_reap(rig, 64, &more));
    assert_int_equal(rig->done, N);
    submit_writes(rig);
    assert_true(rig_wait(rig, 2 * N));
    submit_reads(rig);
    rig->engine->ops->drain(rig->engine);
    for (bool more = true; more;)
        assert_true(rig_reap(rig, 64, &more));
    assert_int_equal(rig->done, 3 * N);
    for (uint32_t i = 0; i < N; i++)
        assert_true(rig->results[i] == KVB_ECANCELED ||
                    (rig->results[i] == 0 && rig_has(rig, i, i)));
}

static void test_engine_destroyed_with_staged_blocks_waits(void **state)
{
    struct disk_rig *rig = *state;
    begin(rig, &threaded);
    submit_writes(rig);
    assert_true(rig_close(rig)); /* sanitizers watch the memory */
}

static void test_engine_destroyed_with_unverified_blocks_waits(void **state)
{
    struct disk_rig *rig = *state;
    bool more;
    begin(rig, &threaded);
    submit_writes(rig);
    assert_true(rig_wait(rig, N));
    submit_reads(rig);
    struct pollfd event = {.fd = rig->engine->ops->wake_fd(rig->engine), .events = POLLIN};
    assert_int_equal(poll(&event, 1, KV_GIVE_UP_MS), 1);
    assert_true(rig_reap(rig, 0, &more)); /* the first that were read go to the thread */
}

/* Without waiting for a thread that is not there. */
static int destroy(void *argument)
{
    struct disk_rig *rig = argument;
    rig->engine->ops->destroy(rig->engine);
    return 0;
}

static void test_child_destroys_the_engine_while_the_thread_works_in_the_parent(void **state)
{
    struct disk_rig *rig = *state;
    begin(rig, &threaded);
    submit_writes(rig);
    assert_int_equal(child_run(destroy, rig), 0);
    assert_true(rig_wait(rig, N));
    for (uint32_t i = 0; i < N; i++)
        assert_int_equal(rig->results[i], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(hashed, test_hash_thread_runs_with_threads_allowed_and_two_processors),
        TEST(hashed, test_hash_thread_is_not_started_in_poll_mode),
        TEST(hashed, test_hash_thread_is_not_started_on_one_processor),
        TEST(hashed, test_hash_thread_tells_corrupt_blocks_from_their_neighbours),
        TEST(hashed, test_drain_waits_for_what_is_being_hashed),
        TEST(hashed, test_engine_destroyed_with_staged_blocks_waits),
        TEST(hashed, test_engine_destroyed_with_unverified_blocks_waits),
        TEST(hashed, test_child_destroys_the_engine_while_the_thread_works_in_the_parent),
    };
    return rig_works(&threaded) ? cmocka_run_group_tests(tests, NULL, NULL) : 77;
}
