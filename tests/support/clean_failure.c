/* SPDX-License-Identifier: Apache-2.0 */
#include "support/clean_failure.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "support/disk_path.h"
#include "support/disk_scene.h"
#include "support/give_up.h"

extern char **environ;

/* ---- The child ------------------------------------------------------------------------------- */

struct left_behind {
    uint32_t threads, descriptors, folders;
};

static uint32_t entries_of(const char *path)
{
    uint32_t count = 0;
    DIR *directory = opendir(path);
    for (struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL;)
        count += entry->d_name[0] != '.';
    if (directory != NULL)
        (void)closedir(directory);
    return count;
}

static struct left_behind look(void)
{
    return (struct left_behind){.threads = entries_of("/proc/self/task"),
                                .descriptors = entries_of("/proc/self/fd"),
                                .folders = folders_left()};
}

static void *say_who(void *who)
{
    *(pid_t *)who = gettid();
    return NULL;
}

/* The first thread of the program, of which nothing is left: sanitizers start theirs with it. */
static void have_had_a_thread(void)
{
    char task[64];
    pthread_t thread;
    pid_t who = 0;
    if (pthread_create(&thread, NULL, say_who, &who) != 0 || pthread_join(thread, NULL) != 0)
        abort();
    (void)snprintf(task, sizeof task, "/proc/self/task/%ld", (long)who);
    while (access(task, F_OK) == 0)
        (void)sched_yield();
}

/* /proc shows a thread a little longer than its join takes. */
static struct left_behind look_again(uint32_t threads)
{
    time_t give_up = time(NULL) + KV_GIVE_UP_S;
    struct left_behind left = look();
    while (left.threads > threads && time(NULL) < give_up) {
        (void)sched_yield();
        left = look();
    }
    return left;
}

/* The child's exit status says in which of these points it was not as it should be. */
enum { NOT_FAILED = 1, THREADS = 2, DESCRIPTORS = 4, FOLDERS = 8, NO_SUCH_TEST = 16 };

int run_failing_test(const struct CMUnitTest *failing, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(failing[i].name, name) != 0)
            continue;
        const struct CMUnitTest tests[] = {failing[i]};
        disk_path_remove_at_end(); /* keeps a descriptor */
        (void)folder_remove_at_end(folder_parent(), DISK_SCENE_FOLDER);
        have_had_a_thread();
        struct left_behind before = look();
        int failed = cmocka_run_group_tests(tests, NULL, NULL);
        struct left_behind after = look_again(before.threads);
        return (failed == 1 ? 0 : NOT_FAILED) | (after.threads == before.threads ? 0 : THREADS) |
               (after.descriptors == before.descriptors ? 0 : DESCRIPTORS) |
               (after.folders == 0 ? 0 : FOLDERS);
    }
    return NO_SUCH_TEST;
}

/* ---- And who starts it ----------------------------------------------------------------------- */

struct failing_child {
    int status;
    char said[4096];
};

/* The text is cut where it is longer; all of it is read, so that nobody waits to say the rest. */
static void read_all(int from, char *text, size_t bytes)
{
    char said[512];
    size_t length = 0;
    for (ssize_t got; (got = read(from, said, sizeof said)) > 0;) {
        size_t room = bytes - 1 - length, kept = (size_t)got < room ? (size_t)got : room;
        memcpy(text + length, said, kept);
        length += kept;
    }
    text[length] = '\0';
}

static void run_child(const char *name, struct failing_child *child)
{
    posix_spawn_file_actions_t actions;
    char program[] = "/proc/self/exe", test[64];
    char *const arguments[] = {program, test, NULL};
    int ends[2];
    pid_t pid = 0;
    (void)snprintf(test, sizeof test, "%s", name);
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    (void)posix_spawn_file_actions_init(&actions);
    (void)posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    (void)posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
    int error = posix_spawn(&pid, program, &actions, NULL, arguments, environ);
    (void)posix_spawn_file_actions_destroy(&actions);
    (void)close(ends[1]);
    if (error == 0) {
        read_all(ends[0], child->said, sizeof child->said);
        error = waitpid(pid, &child->status, 0) == pid ? 0 : -1;
    }
    (void)close(ends[0]);
    assert_int_equal(error, 0);
}

void expect_clean_failure(const char *name, const char *words)
{
    struct failing_child child;
    run_child(name, &child);
    if (!WIFEXITED(child.status) || WEXITSTATUS(child.status) != 0 ||
        strstr(child.said, words) == NULL)
        fail_msg("%s: status %x\n%s", name, (unsigned)child.status, child.said);
}
