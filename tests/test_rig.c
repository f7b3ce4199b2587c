/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rig of the tests itself: a test that fails midway leaves nothing behind. Such tests run in a
 * child, which is this program again with the name of the test: it says what its CMocka has
 * counted, and what is left afterwards.
 */
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <spawn.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "api/manager.h"
#include "support/disk_path.h"
#include "support/give_up.h"
#include "support/move_test.h"
#include "support/test.h"

extern char **environ;

/* ---- Tests that fail ------------------------------------------------------------------------- */

static void fails_with_handles_held(void **state)
{
    struct kv_rig *rig = *state;
    kv_rig_open(rig);
    (void)kv_alloc(rig, KVB_TIER_DEVICE);
    fail_msg("midway, on purpose");
}

static void ends_with_handles_held(void **state)
{
    struct kv_rig *rig = *state;
    kv_rig_open(rig);
    (void)kv_alloc(rig, KVB_TIER_DEVICE);
}

static void ends_with_a_broken_invariant(void **state)
{
    struct kv_rig *rig = *state;
    kv_rig_open(rig);
    rig->kv->store.pools[KVB_TIER_DEVICE].held_count++;
}

static void fails_before_it_opens(void **state)
{
    struct kv_rig *rig = *state;
    rig->config.tokens_per_block = 0;
    kv_rig_open(rig);
}

/* What `done` would write to is on the stack of the test. */
static void fails_with_an_operation_under_way(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done done;
    struct kvb_fence never = {.kind = KVB_FENCE_COUNTER, .handle = 1};
    struct kvb_block *target = NULL;
    struct kvb_op *op = NULL;
    mv_two_tiers(rig, 2, 2, KVB_OFFLOAD_MANUAL);
    rig->config.progress = KVB_PROGRESS_THREAD;
    kv_rig_open(rig);
    mv_store(rig, &run, KVB_TIER_HOST, 1, 1);
    target = kv_alloc(rig, KVB_TIER_DEVICE);
    struct kvb_onboard request = mv_request(run.blocks, &target, 1, &done);
    request.fence = &never;
    kv_ok(kvb_onboard(rig->kv, &request, &op));
    fail_msg("midway, on purpose");
}

/* ---- A rig with a disk, as a scene around the house's ---------------------------------------- */

struct on_disk {
    struct kv_rig rig;
    struct disk_path place;
};

static int on_disk_setup(void **state)
{
    struct on_disk *scene = malloc(sizeof *scene);
    *state = scene;
    if (scene == NULL)
        return -1;
    kv_rig_init(&scene->rig);
    mv_two_tiers(&scene->rig, 4, 4, KVB_OFFLOAD_ON_REGISTER);
    disk_path_make(&scene->place);
    kv_rig_add_tier(&scene->rig, KVB_TIER_DISK, 8, KVB_OFFLOAD_DEFAULT)->path = scene->place.file;
    scene->rig.tiers[1].trigger = KVB_OFFLOAD_ON_REGISTER;
    scene->rig.config.progress = KVB_PROGRESS_THREAD;
    return 0;
}

static int on_disk_teardown(void **state)
{
    struct on_disk *scene = *state;
    bool good = kv_rig_end(&scene->rig);
    disk_path_remove(&scene->place);
    free(scene);
    return good ? 0 : -1;
}

static void fails_with_writes_to_a_disk_under_way(void **state)
{
    struct on_disk *scene = *state;
    struct mv_run run;
    kv_rig_open(&scene->rig);
    mv_store(&scene->rig, &run, KVB_TIER_DEVICE, 1, 4);
    fail_msg("midway, on purpose");
}

/* ---- The child ------------------------------------------------------------------------------- */

static const struct CMUnitTest failing[] = {
    TEST(kv_rig, fails_with_handles_held),
    TEST(kv_rig, ends_with_handles_held),
    TEST(kv_rig, ends_with_a_broken_invariant),
    TEST(kv_rig, fails_before_it_opens),
    TEST(kv_rig, fails_with_an_operation_under_way),
    TEST(on_disk, fails_with_writes_to_a_disk_under_way),
};
#define FAILING (sizeof failing / sizeof failing[0])

static uint32_t entries_of(const char *path, const char *prefix)
{
    uint32_t count = 0;
    DIR *directory = opendir(path);
    for (struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL;)
        count += entry->d_name[0] != '.' && strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
    if (directory != NULL)
        (void)closedir(directory);
    return count;
}

struct left_behind {
    uint32_t threads, descriptors, folders;
};

static struct left_behind look(void)
{
    char prefix[32];
    (void)snprintf(prefix, sizeof prefix, "disk_test.%ld.", (long)getpid());
    return (struct left_behind){.threads = entries_of("/proc/self/task", ""),
                                .descriptors = entries_of("/proc/self/fd", ""),
                                .folders = entries_of(".", prefix)};
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
static bool threads_fall_to(uint32_t count)
{
    time_t give_up = time(NULL) + KV_GIVE_UP_S;
    while (look().threads > count)
        if (time(NULL) > give_up)
            return false;
    return true;
}

/* The child's exit status says in which of these points it was not as it should be. */
enum { NOT_FAILED = 1, THREADS = 2, DESCRIPTORS = 4, FOLDERS = 8, NO_SUCH_TEST = 16 };

static int run_failing(const char *name)
{
    for (size_t i = 0; i < FAILING; i++) {
        if (strcmp(failing[i].name, name) != 0)
            continue;
        const struct CMUnitTest tests[] = {failing[i]};
        disk_path_remove_at_end(); /* keeps a descriptor */
        have_had_a_thread();
        struct left_behind before = look();
        int failed = cmocka_run_group_tests(tests, NULL, NULL);
        bool joined = threads_fall_to(before.threads);
        struct left_behind after = look();
        return (failed == 1 ? 0 : NOT_FAILED) | (joined ? 0 : THREADS) |
               (after.descriptors == before.descriptors ? 0 : DESCRIPTORS) |
               (after.folders == 0 ? 0 : FOLDERS);
    }
    return NO_SUCH_TEST;
}

/* ---- And who starts it ----------------------------------------------------------------------- */

struct child {
    int status;
    char said[4096];
};

/* The text is cut where it is longer; all of it is read, so that nobody waits to say the rest. */
static void read_all(int from, char *text, size_t bytes)
{
    char rest[512];
    size_t length = 0;
    for (ssize_t got; (got = read(from, rest, sizeof rest)) > 0;) {
        size_t room = bytes - 1 - length, kept = (size_t)got < room ? (size_t)got : room;
        memcpy(text + length, rest, kept);
        length += kept;
    }
    text[length] = '\0';
}

static void run_child(const char *name, struct child *child)
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

/* It fails, says `words`, and nothing is left of it. */
static void expect_clean_failure(const char *name, const char *words)
{
    struct child child;
    run_child(name, &child);
    if (!WIFEXITED(child.status) || WEXITSTATUS(child.status) != 0 ||
        strstr(child.said, words) == NULL)
        print_error("status %x\n%s\n", (unsigned)child.status, child.said);
    assert_true(WIFEXITED(child.status));
    assert_int_equal(WEXITSTATUS(child.status), 0);
    assert_non_null(strstr(child.said, words));
}

static void test_failed_test_that_holds_handles_leaves_nothing_behind(void **state)
{
    (void)state;
    expect_clean_failure("fails_with_handles_held", "midway, on purpose");
}

static void test_test_that_ends_with_handles_held_fails(void **state)
{
    (void)state;
    expect_clean_failure("ends_with_handles_held", "1 handles are still held");
}

static void test_test_that_ends_with_a_broken_invariant_fails(void **state)
{
    (void)state;
    expect_clean_failure("ends_with_a_broken_invariant", "invariant broken");
}

static void test_test_whose_manager_is_not_created_fails(void **state)
{
    (void)state;
    expect_clean_failure("fails_before_it_opens", "tokens_per_block");
}

static void test_failed_test_with_an_operation_under_way_leaves_nothing_behind(void **state)
{
    (void)state;
    expect_clean_failure("fails_with_an_operation_under_way", "midway, on purpose");
}

static void test_failed_test_that_writes_to_a_disk_leaves_nothing_behind(void **state)
{
    (void)state;
    expect_clean_failure("fails_with_writes_to_a_disk_under_way", "midway, on purpose");
}

int main(int count, char **arguments)
{
    const struct CMUnitTest tests[] = {
        TEST(bare, test_failed_test_that_holds_handles_leaves_nothing_behind),
        TEST(bare, test_test_that_ends_with_handles_held_fails),
        TEST(bare, test_test_that_ends_with_a_broken_invariant_fails),
        TEST(bare, test_test_whose_manager_is_not_created_fails),
        TEST(bare, test_failed_test_with_an_operation_under_way_leaves_nothing_behind),
        TEST(bare, test_failed_test_that_writes_to_a_disk_leaves_nothing_behind),
    };
    if (count == 2)
        return run_failing(arguments[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
