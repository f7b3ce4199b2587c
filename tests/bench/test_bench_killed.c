/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A benchmark of the disk is killed while its files are there: nothing of it is left, and what was
 * there before is.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/disk_path.h"
#include "support/test.h"

/*
 * A benchmark that has been started. Whatever it leaves behind to run has the other end of `output`
 * open.
 */
struct bench {
    struct disk_path place;
    int notes; /* what is created in `place` */
    int output;
    pid_t process; /* 0: none runs */
};

/* False: nobody can write there any more. */
static bool read_output(const struct bench *bench)
{
    char text[4096];
    return read(bench->output, text, sizeof text) > 0;
}

static int bench_teardown(void **state)
{
    struct bench *bench = *state;
    if (bench->process > 0 && kill(bench->process, SIGKILL) == 0)
        (void)waitpid(bench->process, NULL, 0);
    while (read_output(bench)) {
    }
    (void)close(bench->output), (void)close(bench->notes);
    disk_path_remove(&bench->place);
    free(bench);
    return 0;
}

static int bench_setup(void **state)
{
    struct bench *bench = calloc(1, sizeof *bench);
    if (bench == NULL)
        return -1;
    disk_path_make(&bench->place);
    bench->output = -1;
    bench->notes = inotify_init1(IN_CLOEXEC);
    *state = bench;
    if (inotify_add_watch(bench->notes, bench->place.directory, IN_CREATE) >= 0)
        return 0;
    (void)bench_teardown(state);
    return -1;
}

static void start(struct bench *bench, const char *only)
{
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    bench->process = fork();
    assert_true(bench->process >= 0);
    if (bench->process == 0) {
        if (dup2(ends[1], STDOUT_FILENO) >= 0)
            (void)execl(BENCH_DISK_PATH, "bench_disk", "--quick", "--baseline", "bare", "--only",
                        only, "--path", bench->place.file, (char *)NULL);
        _exit(99);
    }
    (void)close(ends[1]);
    bench->output = ends[0];
}

static bool is_noted(const struct bench *bench, const char *name)
{
    _Alignas(struct inotify_event) char notes[4096];
    bool noted = false;
    ssize_t got = read(bench->notes, notes, sizeof notes);
    assert_true(got > 0);
    for (ssize_t at = 0; at < got;) {
        const struct inotify_event *note = (const void *)(notes + at);
        noted |= note->len > 0 && strcmp(note->name, name) == 0;
        at += (ssize_t)(sizeof *note + note->len);
    }
    return noted;
}

/* False: the benchmark has ended and there was none. */
static bool wait_for_file(const struct bench *bench, const char *name)
{
    struct pollfd either[] = {{.fd = bench->notes, .events = POLLIN},
                              {.fd = bench->output, .events = POLLIN}};
    for (;;) {
        assert_true(poll(either, 2, -1) > 0);
        if (either[0].revents != 0 && is_noted(bench, name))
            return true;
        if (either[1].revents != 0 && !read_output(bench))
            return false;
    }
}

/*
 * Killed once it has made `name`; what it leaves is counted when the last process of it has ended.
 */
static void kill_at(struct bench *bench, const char *name, uint32_t left)
{
    int status;
    bool there = wait_for_file(bench, name);
    if (there)
        assert_int_equal(kill(bench->process, SIGKILL), 0);
    assert_int_equal(waitpid(bench->process, &status, 0), bench->process);
    bench->process = 0;
    while (read_output(bench)) {
    }
    assert_int_equal(folder_files(bench->place.directory), left);
    if (!there && WIFEXITED(status) && WEXITSTATUS(status) == 77)
        skip(); /* no ring to compare with */
    assert_true(there && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void test_bench_killed_over_one_file_leaves_nothing(void **state)
{
    struct bench *bench = *state;
    start(bench, "1m");
    kill_at(bench, "blocks", 0);
}

static void test_bench_killed_over_two_files_leaves_nothing(void **state)
{
    struct bench *bench = *state;
    start(bench, "1m");
    kill_at(bench, "blocks.ring", 0);
}

/* The file is made by a child of the benchmark, which ends with it. */
static void test_bench_killed_before_a_recovery_leaves_nothing(void **state)
{
    struct bench *bench = *state;
    start(bench, "recovery");
    kill_at(bench, "blocks", 0);
}

static void test_bench_killed_keeps_the_file_that_was_there_before(void **state)
{
    struct bench *bench = *state;
    (void)close(open(bench->place.file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    start(bench, "1m");
    kill_at(bench, "blocks.ring", 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(bench, test_bench_killed_over_one_file_leaves_nothing),
        TEST(bench, test_bench_killed_over_two_files_leaves_nothing),
        TEST(bench, test_bench_killed_before_a_recovery_leaves_nothing),
        TEST(bench, test_bench_killed_keeps_the_file_that_was_there_before),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
