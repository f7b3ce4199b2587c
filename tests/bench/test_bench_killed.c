/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A benchmark of the disk is killed while its files are there: nothing of it is left, and what was
 * there before is.
 */
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/inotify.h>

#include <cmocka.h>

#include "support/disk_path.h"

/*
 * A benchmark that has been started. Whatever it leaves behind to run has the other end of `output`
 * open.
 */
struct run {
    struct disk_path place;
    int notes; /* what is created in `place` */
    int output;
    pid_t process;
};

static void prepare(struct run *run)
{
    disk_path_make(&run->place);
    run->notes = inotify_init1(IN_CLOEXEC);
    assert_true(run->notes >= 0);
    assert_true(inotify_add_watch(run->notes, run->place.directory, IN_CREATE) >= 0);
}

static void start(struct run *run, const char *only)
{
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    run->process = fork();
    assert_true(run->process >= 0);
    if (run->process == 0) {
        if (dup2(ends[1], STDOUT_FILENO) >= 0)
            (void)execl(BENCH_DISK_PATH, "bench_disk", "--quick", "--baseline", "bare", "--only",
                        only, "--path", run->place.file, (char *)NULL);
        _exit(99);
    }
    (void)close(ends[1]);
    run->output = ends[0];
}

/* False: nobody can write there any more. */
static bool read_output(const struct run *run)
{
    char text[4096];
    return read(run->output, text, sizeof text) > 0;
}

static bool is_noted(const struct run *run, const char *name)
{
    _Alignas(struct inotify_event) char notes[4096];
    bool noted = false;
    ssize_t got = read(run->notes, notes, sizeof notes);
    assert_true(got > 0);
    for (ssize_t at = 0; at < got;) {
        const struct inotify_event *note = (const void *)(notes + at);
        noted |= note->len > 0 && strcmp(note->name, name) == 0;
        at += (ssize_t)(sizeof *note + note->len);
    }
    return noted;
}

/* False: the benchmark has ended and there was none. */
static bool wait_for_file(const struct run *run, const char *name)
{
    struct pollfd either[] = {{.fd = run->notes, .events = POLLIN},
                              {.fd = run->output, .events = POLLIN}};
    for (;;) {
        assert_true(poll(either, 2, -1) > 0);
        if (either[0].revents != 0 && is_noted(run, name))
            return true;
        if (either[1].revents != 0 && !read_output(run))
            return false;
    }
}

static uint32_t files_left(const struct run *run)
{
    uint32_t count = 0;
    DIR *directory = opendir(run->place.directory);
    assert_non_null(directory);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;)
        count += entry->d_name[0] != '.';
    (void)closedir(directory);
    return count;
}

/*
 * Killed once it has made `name`; what it leaves is counted when the last process of it has ended.
 */
static void kill_at(struct run *run, const char *name, uint32_t left)
{
    int status;
    bool there = wait_for_file(run, name);
    if (there)
        assert_int_equal(kill(run->process, SIGKILL), 0);
    assert_int_equal(waitpid(run->process, &status, 0), run->process);
    while (read_output(run)) {
    }
    assert_int_equal(files_left(run), left);
    (void)close(run->output), (void)close(run->notes);
    disk_path_remove(&run->place);
    if (!there && WIFEXITED(status) && WEXITSTATUS(status) == 77)
        skip(); /* no ring to compare with */
    assert_true(there && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void test_bench_killed_over_one_file_leaves_nothing(void **state)
{
    struct run run;
    (void)state;
    prepare(&run);
    start(&run, "1m");
    kill_at(&run, "blocks", 0);
}

static void test_bench_killed_over_two_files_leaves_nothing(void **state)
{
    struct run run;
    (void)state;
    prepare(&run);
    start(&run, "1m");
    kill_at(&run, "blocks.ring", 0);
}

/* The file is made by a child of the benchmark, which ends with it. */
static void test_bench_killed_before_a_recovery_leaves_nothing(void **state)
{
    struct run run;
    (void)state;
    prepare(&run);
    start(&run, "recovery");
    kill_at(&run, "blocks", 0);
}

static void test_bench_killed_keeps_the_file_that_was_there_before(void **state)
{
    struct run run;
    (void)state;
    prepare(&run);
    (void)close(open(run.place.file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    start(&run, "1m");
    kill_at(&run, "blocks.ring", 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bench_killed_over_one_file_leaves_nothing),
        cmocka_unit_test(test_bench_killed_over_two_files_leaves_nothing),
        cmocka_unit_test(test_bench_killed_before_a_recovery_leaves_nothing),
        cmocka_unit_test(test_bench_killed_keeps_the_file_that_was_there_before),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
