/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvb_replay with a disk tier, from outside: where its hits come from, that every byte is right at
 * any pace, what a run that resumes finds of an earlier one, however that ended, and which
 * combinations of options are refused.
 */
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/replay_run.h"
#include "transfer/disk/format.h"

#define SMALL_TIERS "--device-blocks 130 --host-blocks 400 --disk-blocks 2500 --disk blocks "

static void assert_lane(const struct run *run, const char *from, const char *to)
{
    char lane[64];
    (void)snprintf(lane, sizeof lane, "\"from\": \"%s\", \"to\": \"%s\"", from, to);
    const char *found = strstr(run->out, lane);
    if (found == NULL)
        fail_msg("no lane %s to %s in: %s", from, to, run->out);
    assert_true(value_of(found, "transferred") > 0);
}

static void test_replay_hits_in_all_three_tiers(void **state)
{
    struct replay_folder *folder = *state;
    struct run run;
    replay(folder, &run, QUIET_JSON SMALL_TIERS "--limit 1000 --seed 3");
    assert_good(&run);
    const char *hits = strstr(run.out, "\"hits\": {");
    assert_non_null(hits);
    assert_true(value_of(hits, "device") > 0);
    assert_true(value_of(hits, "host") > 0);
    assert_true(value_of(hits, "disk") > 0);
}

static void test_replay_moves_over_host_both_ways(void **state)
{
    struct replay_folder *folder = *state;
    struct run run;
    replay(folder, &run, QUIET_JSON SMALL_TIERS "--limit 1000 --seed 3");
    assert_good(&run);
    assert_lane(&run, "device", "host");
    assert_lane(&run, "host", "disk");
    assert_lane(&run, "disk", "host");
    assert_lane(&run, "host", "device");
}

static void test_replay_without_host_moves_between_device_and_disk(void **state)
{
    struct replay_folder *folder = *state;
    struct run run;
    for (size_t i = 0; i < 2; i++) {
        replay(folder, &run,
               QUIET_JSON "--device-blocks 130 --host-blocks 0 --disk-blocks 2500 --disk blocks "
                          "--limit 500 --seed 3 --progress %s",
               progress_modes[i]);
        assert_good(&run);
        assert_lane(&run, "device", "disk");
        assert_lane(&run, "disk", "device");
    }
}

static void test_replay_with_a_disk_without_pace_serves_no_wrong_byte(void **state)
{
    struct replay_folder *folder = *state;
    static const char *const triggers[] = {"register", "park", "cold"};
    for (size_t i = 0; i < 6; i++) {
        struct run run;
        replay(folder, &run,
               QUIET_JSON SMALL_TIERS "--limit 500 --seed 9 --pace none --trigger %s --progress %s",
               triggers[i / 2], progress_modes[i % 2]);
        assert_good(&run);
    }
}

static void test_replay_without_host_and_pace_serves_no_wrong_byte(void **state)
{
    struct replay_folder *folder = *state;
    for (size_t i = 0; i < 2; i++) {
        struct run run;
        replay(folder, &run,
               QUIET_JSON "--device-blocks 130 --host-blocks 0 --disk-blocks 900 --disk blocks "
                          "--limit 500 --seed 9 --pace none --progress %s",
               progress_modes[i]);
        assert_good(&run);
    }
}

/* Not whole pages: every slot has padding. */
static void test_replay_of_padded_blocks_serves_no_wrong_byte(void **state)
{
    struct replay_folder *folder = *state;
    struct run run;
    replay(folder, &run, "--block-bytes 4160 --quiet --json - " SMALL_TIERS "--limit 500 --seed 2");
    assert_good(&run);
}

/* ---- Resuming -------------------------------------------------------------------------------- */

/* All that is computed goes straight to the file, which has room for all of it. */
#define STRAIGHT_DOWN "--device-blocks 130 --host-blocks 0 --disk-blocks 60000 "

static void remove_file(const struct replay_folder *folder, const char *name)
{
    char path[128];
    path_in_folder(folder, path, name);
    (void)unlink(path);
}

static void test_replay_without_resume_starts_empty(void **state)
{
    struct replay_folder *folder = *state;
    struct run run;
    for (int i = 0; i < 2; i++) {
        replay(folder, &run, QUIET_JSON STRAIGHT_DOWN "--disk blocks --limit 100 --progress poll");
        assert_good(&run);
        assert_true(value_of(run.out, "recovered") == 0);
        assert_true(value_of(run.out, "saved_hits") == 0);
    }
}

static void test_replay_that_resumes_finds_all_that_the_same_trace_needs(void **state)
{
    struct replay_folder *folder = *state;
    for (size_t i = 0; i < 2; i++) {
        struct run first, second;
        remove_file(folder, "blocks");
        replay(folder, &first, QUIET_JSON STRAIGHT_DOWN "--disk blocks --limit 300 --progress %s",
               progress_modes[i]);
        assert_good(&first);
        replay(folder, &second,
               QUIET_JSON STRAIGHT_DOWN "--disk blocks --resume --limit 300 --progress %s",
               progress_modes[i]);
        assert_good(&second);
        double computed = value_of(first.out, "block_refs") - hits_of(first.out);
        assert_true(value_of(second.out, "recovered") == computed);
        assert_true(value_of(second.out, "saved_contents") == computed);
        assert_true(hits_of(second.out) == value_of(second.out, "block_refs"));
        assert_true(value_of(second.out, "saved_hits") == value_of(second.out, "block_refs"));
    }
}

static void test_replay_that_resumes_from_no_file_makes_one(void **state)
{
    struct replay_folder *folder = *state;
    struct run run;
    replay(folder, &run, QUIET_JSON STRAIGHT_DOWN "--disk blocks --resume --limit 100");
    assert_good(&run);
    assert_true(value_of(run.out, "recovered") == 0);
    assert_true(value_of(run.out, "saved_hits") == 0);
}

/* Hits on what this run has computed itself are not the restart's merit. */
static void test_replay_counts_only_what_it_has_not_computed_as_saved(void **state)
{
    struct replay_folder *folder = *state;
    struct run head, whole;
    replay(folder, &head, QUIET_JSON STRAIGHT_DOWN "--disk blocks --limit 50 --progress poll");
    assert_good(&head);
    replay(folder, &whole,
           QUIET_JSON STRAIGHT_DOWN "--disk blocks --resume --limit 400 --progress poll");
    assert_good(&whole);
    assert_true(value_of(whole.out, "saved_contents") ==
                value_of(head.out, "block_refs") - hits_of(head.out));
    assert_true(value_of(whole.out, "saved_hits") > value_of(whole.out, "saved_contents"));
    assert_true(value_of(whole.out, "saved_hits") < hits_of(whole.out));
}

static void test_replay_over_several_files_resumes_from_all(void **state)
{
    struct replay_folder *folder = *state;
    struct run first, second;
    replay(folder, &first,
           QUIET_JSON STRAIGHT_DOWN "--disk blocks --disk blocks1 --disk=blocks2 --limit 200");
    assert_good(&first);
    replay(folder, &second,
           QUIET_JSON STRAIGHT_DOWN
           "--disk blocks --disk blocks1 --disk blocks2 --resume --limit 200");
    assert_good(&second);
    assert_true(hits_of(second.out) == value_of(second.out, "block_refs"));
    assert_true(value_of(second.out, "recovered") ==
                value_of(first.out, "block_refs") - hits_of(first.out));
}

/*
 * A replay that cannot end by itself: the results, which it writes before it closes its file, go
 * into a pipe in which there is no room for another byte, and nobody reads from it.
 */
static struct {
    int pipe[2];
    pid_t process; /* 0: none */
} endless;

static int endless_replay_setup(void **state)
{
    static const char bytes[4096];
    if (pipe2(endless.pipe, O_NONBLOCK | O_CLOEXEC) != 0)
        return -1;
    while (write(endless.pipe[1], bytes, sizeof bytes) > 0) {
    }
    while (write(endless.pipe[1], bytes, 1) > 0) {
    }
    return fcntl(endless.pipe[1], F_SETFL, 0) == 0 ? replay_folder_setup(state) : -1;
}

static void kill_replay(void)
{
    if (endless.process > 0 && kill(endless.process, SIGKILL) == 0)
        (void)waitpid(endless.process, NULL, 0);
    endless.process = 0;
}

static int endless_replay_teardown(void **state)
{
    kill_replay();
    (void)close(endless.pipe[0]), (void)close(endless.pipe[1]);
    return replay_folder_teardown(state);
}

static void start_replay(const struct replay_folder *folder, char *const arguments[])
{
    endless.process = fork();
    if (endless.process == 0) {
        int nowhere = open("/dev/null", O_WRONLY);
        if (chdir(folder->path) != 0 || dup2(endless.pipe[1], STDOUT_FILENO) < 0 ||
            dup2(nowhere, STDERR_FILENO) < 0)
            _exit(99);
        (void)execv(folder->program, arguments);
        _exit(99);
    }
    assert_true(endless.process > 0);
}

/* How many blocks a file's table names now; 0 as long as there is no file with a superblock. */
static uint32_t blocks_in_table(const struct replay_folder *folder, const char *name)
{
    static struct kvbi_disk_entry entries[60000];
    struct kvbi_disk_superblock superblock = {.slot_count = 0};
    char path[128];
    path_in_folder(folder, path, name);
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        return 0;
    ssize_t got = 0;
    if (pread(fd, &superblock, sizeof superblock, 0) == sizeof superblock &&
        strcmp(superblock.magic, KVBI_DISK_MAGIC) == 0)
        got = pread(fd, entries, sizeof entries, (off_t)superblock.table_offset);
    close(fd);
    uint32_t count = 0;
    for (size_t i = 0; got > 0 && i < (size_t)got / sizeof *entries; i++)
        count += entries[i].state == KVBI_DISK_ENTRY_BLOCK;
    return count;
}

/* Kills the replay once its file names `count` blocks; how many it named then. */
static uint32_t kill_replay_at(const struct replay_folder *folder, uint32_t count)
{
    uint32_t named;
    int status;
    while ((named = blocks_in_table(folder, "blocks")) < count) {
        if (waitpid(endless.process, &status, WNOHANG) != 0) {
            endless.process = 0;
            fail_msg("the replay ended before it could be killed: status %d", status);
        }
        (void)sched_yield();
    }
    kill_replay();
    return named;
}

/*
 * The kernel holds a file's lock until the I/O of the process that is gone has ended, however long
 * that takes.
 */
static void wait_until_let_go(const struct replay_folder *folder, const char *name)
{
    char path[128];
    path_in_folder(folder, path, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    (void)close(fd);
}

static void test_replay_resumes_after_a_kill_with_all_that_was_stored(void **state)
{
    struct replay_folder *folder = *state;
    for (size_t i = 0; i < 2; i++) {
        const char *const words[] = {
            "kvb_replay",    "--quiet", "--block-bytes", "4096",           "--device-blocks", "130",
            "--disk",        "blocks",  "--pace",        "none",           "--host-blocks",   "0",
            "--disk-blocks", "60000",   "--progress",    progress_modes[i]};
        char *arguments[sizeof words / sizeof *words + 1] = {NULL};
        memcpy(arguments, words, sizeof words);
        struct run run;
        remove_file(folder, "blocks");
        start_replay(folder, arguments);
        uint32_t named = kill_replay_at(folder, 300);
        wait_until_let_go(folder, "blocks");
        replay(folder, &run, QUIET_JSON STRAIGHT_DOWN "--disk blocks --resume --limit 300");
        assert_good(&run);
        assert_true(value_of(run.out, "recovered") >= named);
        assert_true(value_of(run.out, "dropped") == 0);
        /* How many depends on what was shed before the kill. */
        assert_true(value_of(run.out, "saved_contents") > 0);
        assert_true(value_of(run.out, "corrupt") == 0);
    }
}

static void test_replay_disk_and_disk_blocks_come_together(void **state)
{
    struct replay_folder *folder = *state;
    assert_refused(folder, "--disk blocks --limit 1", "--disk-blocks");
    assert_refused(folder, "--disk-blocks 100 --limit 1", "--disk");
    assert_refused(folder, "--disk blocks --disk-blocks 0 --limit 1", "--disk-blocks");
}

static void test_replay_resume_without_disk_is_refused_by_name(void **state)
{
    struct replay_folder *folder = *state;
    assert_refused(folder, "--resume --limit 1", "--resume");
    assert_refused(folder, "--resume=yes --disk blocks --disk-blocks 10 --limit 1", "--resume");
}

static void test_replay_of_other_block_bytes_does_not_resume(void **state)
{
    struct replay_folder *folder = *state;
    struct run run;
    replay(folder, &run, QUIET_JSON "--disk blocks --disk-blocks 100 --limit 1");
    assert_good(&run);
    assert_refused(folder, "--disk blocks --disk-blocks 100 --limit 1 --resume --block-bytes 8192",
                   "--disk: blocks:");
    assert_refused(folder, "--disk blocks --disk-blocks 100 --limit 1 --resume --block-bytes 8192",
                   "--block-bytes of the run");
}

static void test_replay_bad_disk_options_are_refused_by_name(void **state)
{
    struct replay_folder *folder = *state;
    assert_refused(folder, "--disk", "--disk");
    assert_refused(folder, "--disk= --disk-blocks 10", "--disk");
    assert_refused(
        folder,
        "--disk-blocks 100 --disk 0 --disk 1 --disk 2 --disk 3 --disk 4 --disk 5 --disk 6 "
        "--disk 7 --disk 8 --disk 9 --disk a --disk b --disk c --disk d --disk e --disk f --disk g",
        "--disk: more than 16");
    assert_refused(folder, "--disk-blocks 1x --disk blocks", "--disk-blocks");
    assert_refused(folder, "--disk-blocks 4294967294 --disk blocks --limit 1", "--disk-blocks");
}

static void test_replay_disk_that_cannot_be_is_refused_by_path(void **state)
{
    struct replay_folder *folder = *state;
    assert_refused(folder, "--disk nowhere/blocks --disk-blocks 10 --limit 1",
                   "--disk: nowhere/blocks");
    assert_refused(folder, "--disk . --disk-blocks 10 --limit 1", "--disk: .: is a directory");
    write_text(folder, "letter", "not a file of blocks\n");
    assert_refused(folder, "--disk letter --disk-blocks 10 --limit 1", "--disk: letter");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(replay_folder, test_replay_hits_in_all_three_tiers),
        TEST(replay_folder, test_replay_moves_over_host_both_ways),
        TEST(replay_folder, test_replay_without_host_moves_between_device_and_disk),
        TEST(replay_folder, test_replay_with_a_disk_without_pace_serves_no_wrong_byte),
        TEST(replay_folder, test_replay_without_host_and_pace_serves_no_wrong_byte),
        TEST(replay_folder, test_replay_of_padded_blocks_serves_no_wrong_byte),
        TEST(replay_folder, test_replay_without_resume_starts_empty),
        TEST(replay_folder, test_replay_that_resumes_finds_all_that_the_same_trace_needs),
        TEST(replay_folder, test_replay_that_resumes_from_no_file_makes_one),
        TEST(replay_folder, test_replay_counts_only_what_it_has_not_computed_as_saved),
        TEST(replay_folder, test_replay_over_several_files_resumes_from_all),
        TEST(endless_replay, test_replay_resumes_after_a_kill_with_all_that_was_stored),
        TEST(replay_folder, test_replay_resume_without_disk_is_refused_by_name),
        TEST(replay_folder, test_replay_of_other_block_bytes_does_not_resume),
        TEST(replay_folder, test_replay_disk_and_disk_blocks_come_together),
        TEST(replay_folder, test_replay_bad_disk_options_are_refused_by_name),
        TEST(replay_folder, test_replay_disk_that_cannot_be_is_refused_by_path),
    };
    return run_replay_tests(KVB_REPLAY_PATH, tests, sizeof tests / sizeof *tests);
}
