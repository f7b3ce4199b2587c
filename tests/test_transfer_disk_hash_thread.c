/* SPDX-License-Identifier: Apache-2.0 */
/* The thread of the uring engine that makes and compares checksums: when there is one, and that nothing is lost in its hands. */
#include <dirent.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "support/disk_rig.h"
#include "transfer/disk/tier.h"

/* Long enough under the thread's hands to be met there. */
#define BLOCK_BYTES ((uint64_t)1 << 20)
#define N 16u

static const struct rig_variant threaded = {.name = "uring", .engine = KVBI_DISK_URING};
static const struct rig_variant polled = {.name = "uring in poll",
                                          .engine = KVBI_DISK_URING,
                                          .poll = true};

static void set_up(struct rig *rig, const struct rig_variant *variant)
{
    if (rig_open(rig, variant, BLOCK_BYTES, N, NULL) != 0)
        fail_msg("%s", rig->message);
    if (rig_start(rig) != 0)
        fail_msg("%s", rig->said);
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
    closedir(tasks);
    return found;
}

/* No thread outlives its engine; /proc shows it a little longer than its join takes. */
static void tear_down(struct rig *rig)
{
    time_t give_up = time(NULL) + KV_GIVE_UP_S;
    assert_true(rig_close(rig));
    while (has_thread() && time(NULL) < give_up)
        (void)sched_yield();
    assert_false(has_thread());
}

static void submit_writes(struct rig *rig)
{
    for (uint32_t i = 0; i < N; i++) {
        struct kvbi_copy copy = rig_down(rig, i, i, i, i);
        rig_fill(rig, i, i);
        assert_int_equal(rig->engine->ops->submit(rig->engine, &copy, 1, false), 0);
    }
}

/* Into the same slots of memory, emptied before. */
static void submit_reads(struct rig *rig)
{
    for (uint32_t i = 0; i < N; i++) {
        struct kvbi_copy copy = rig_up(rig, i, i, i, i);
        rig_fill(rig, i, 1000);
        assert_int_equal(rig->engine->ops->submit(rig->engine, &copy, 1, true), 0);
    }
}

static void flip_byte_of_slot(const struct rig *rig, uint32_t slot)
{
    unsigned char byte = 0;
    FILE *file = fopen(rig->place.file, "r+");
    assert_non_null(file);
    assert_int_equal(
        fseek(file, (long)kvbi_disk_offset(kvbi_disk_of(&rig->disk), slot) + 777, SEEK_SET), 0);
    assert_int_equal(fread(&byte, 1, 1, file), 1);
    byte ^= 1;
    assert_int_equal(fseek(file, -1, SEEK_CUR), 0);
    assert_int_equal(fwrite(&byte, 1, 1, file), 1);
    assert_int_equal(fclose(file), 0);
}

/* ---- When there is one -------------------------------------------------------------------------------------------- */

static void test_hash_thread_runs_with_threads_allowed_and_two_processors(void **state)
{
    struct rig rig;
    cpu_set_t set;
    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof set, &set), 0);
    set_up(&rig, &threaded);
    assert_int_equal(has_thread(), CPU_COUNT(&set) > 1);
    tear_down(&rig);
}

static void test_hash_thread_is_not_started_in_poll_mode(void **state)
{
    struct rig rig;
    (void)state;
    set_up(&rig, &polled);
    assert_false(has_thread());
    tear_down(&rig);
}

static void test_hash_thread_is_not_started_on_one_processor(void **state)
{
    struct rig rig;
    cpu_set_t before, one;
    size_t first = 0;
    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    while (!CPU_ISSET(first, &before))
        first++;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    set_up(&rig, &threaded);
    assert_false(has_thread());
    submit_writes(&rig);
    assert_true(rig_wait(&rig, N));
    submit_reads(&rig);
    assert_true(rig_wait(&rig, 2 * N));
    for (uint32_t i = 0; i < N; i++)
        assert_true(rig.results[i] == 0 && rig_has(&rig, i, i));
    tear_down(&rig);
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
}

/* ---- What is in its hands ----------------------------------------------------------------------------------------- */

/* Each result belongs to its own block, whichever is compared first. */
static void test_hash_thread_tells_corrupt_blocks_from_their_neighbours(void **state)
{
    struct rig rig;
    (void)state;
    set_up(&rig, &threaded);
    submit_writes(&rig);
    assert_true(rig_wait(&rig, N));
    for (uint32_t i = 1; i < N; i += 3)
        flip_byte_of_slot(&rig, i);
    submit_reads(&rig);
    assert_true(rig_wait(&rig, 2 * N));
    for (uint32_t i = 0; i < N; i++) {
        assert_int_equal(rig.results[i], i % 3 == 1 ? KVB_ECORRUPT : 0);
        assert_true(i % 3 == 1 || rig_has(&rig, i, i));
    }
    tear_down(&rig);
}

/* Whether it was being hashed, staged, flying or waiting: it ends once, and is whole or was never begun. */
static void test_drain_waits_for_what_is_being_hashed(void **state)
{
    struct rig rig;
    (void)state;
    set_up(&rig, &threaded);
    submit_writes(&rig);
    rig.engine->ops->drain(rig.engine);
    for (bool more = true; more;)
        assert_true(rig_reap(&rig, 64, &more));
    assert_int_equal(rig.done, N);
    submit_writes(&rig);
    assert_true(rig_wait(&rig, 2 * N));
    submit_reads(&rig);
    rig.engine->ops->drain(rig.engine);
    for (bool more = true; more;)
        assert_true(rig_reap(&rig, 64, &more));
    assert_int_equal(rig.done, 3 * N);
    for (uint32_t i = 0; i < N; i++)
        assert_true(rig.results[i] == KVB_ECANCELED ||
                    (rig.results[i] == 0 && rig_has(&rig, i, i)));
    tear_down(&rig);
}

static void test_engine_destroyed_with_staged_blocks_waits(void **state)
{
    struct rig rig;
    (void)state;
    set_up(&rig, &threaded);
    submit_writes(&rig);
    tear_down(&rig); /* sanitizers watch the memory */
}

static void test_engine_destroyed_with_unverified_blocks_waits(void **state)
{
    struct rig rig;
    bool more;
    (void)state;
    set_up(&rig, &threaded);
    submit_writes(&rig);
    assert_true(rig_wait(&rig, N));
    submit_reads(&rig);
    struct pollfd event = {.fd = rig.engine->ops->event_fd(rig.engine), .events = POLLIN};
    assert_int_equal(poll(&event, 1, KV_GIVE_UP_MS), 1);
    assert_true(rig_reap(&rig, 0, &more)); /* the first that were read go to the thread */
    tear_down(&rig);
}

static void test_child_destroys_the_engine_while_the_thread_works_in_the_parent(void **state)
{
    struct rig rig;
    int status;
    (void)state;
    set_up(&rig, &threaded);
    submit_writes(&rig);
    pid_t child = fork();
    if (child == 0) {
        rig.engine->ops->destroy(rig.engine); /* without waiting for a thread that is not there */
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_true(rig_wait(&rig, N));
    for (uint32_t i = 0; i < N; i++)
        assert_int_equal(rig.results[i], 0);
    tear_down(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hash_thread_runs_with_threads_allowed_and_two_processors),
        cmocka_unit_test(test_hash_thread_is_not_started_in_poll_mode),
        cmocka_unit_test(test_hash_thread_is_not_started_on_one_processor),
        cmocka_unit_test(test_hash_thread_tells_corrupt_blocks_from_their_neighbours),
        cmocka_unit_test(test_drain_waits_for_what_is_being_hashed),
        cmocka_unit_test(test_engine_destroyed_with_staged_blocks_waits),
        cmocka_unit_test(test_engine_destroyed_with_unverified_blocks_waits),
        cmocka_unit_test(test_child_destroys_the_engine_while_the_thread_works_in_the_parent),
    };
    struct rig rig;
    bool works = rig_open(&rig, &threaded, 4096, 1, NULL) == 0 && rig_start(&rig) == 0;
    if (!works)
        (void)fprintf(stderr, "no ring here: %s%s\n", rig.message, rig.said);
    (void)rig_close(&rig);
    return works ? cmocka_run_group_tests(tests, NULL, NULL) : 77;
}
