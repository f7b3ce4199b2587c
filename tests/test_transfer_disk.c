/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file of a disk tier: what is taken, what is refused and in which words; names and checksums
 * of slots.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/child.h"
#include "support/disk_path.h"
#include "support/failing_memory.h"
#include "support/test.h"
#include "transfer/disk/tier.h"

#define BLOCKS 8

static bool no_direct_writes;

/* In place of the C library's. */
ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t offset, int flags)
{
    if (no_direct_writes && (fcntl(fd, F_GETFL) & O_DIRECT) != 0) {
        errno = EINVAL;
        return -1;
    }
    return syscall(SYS_pwritev2, fd, parts, count, (unsigned long)offset, 0UL, flags);
}

struct disk_tier {
    struct failing_memory failing;
    struct kvbi_memory memory;
    struct disk_path place;
    struct kvbi_tier tier;
    const char *paths[1];
    struct kvbi_disk_config config;
    char message[256];
    int answers[2]; /* a pipe from a child */
    __rlimit_resource_t limited;
    struct rlimit limit;
    pid_t child; /* that waits to be killed; 0: none */
};

static int disk_tier_setup(void **state)
{
    struct disk_tier *f = calloc(1, sizeof *f);
    if (f == NULL || pipe2(f->answers, O_CLOEXEC) != 0)
        return -1;
    f->memory = failing_memory(&f->failing, INT64_MAX);
    disk_path_make(&f->place);
    f->paths[0] = f->place.file;
    f->config = (struct kvbi_disk_config){.paths = f->paths,
                                          .path_count = 1,
                                          .block_count = BLOCKS,
                                          .purpose = {.block_bytes = 65536}};
    *state = f;
    return 0;
}

static void kill_child(struct disk_tier *f)
{
    if (f->child > 0 && kill(f->child, SIGKILL) == 0)
        (void)waitpid(f->child, NULL, 0);
    f->child = 0;
}

static int disk_tier_teardown(void **state)
{
    struct disk_tier *f = *state;
    kill_child(f);
    no_direct_writes = false;
    kvbi_tier_destroy(&f->tier);
    disk_path_remove(&f->place);
    close(f->answers[0]), close(f->answers[1]);
    bool left = f->failing.live_count != 0;
    if (left)
        print_error("the tier has not given all its memory back\n");
    free(f);
    return left ? -1 : 0;
}

static int open_tier(struct disk_tier *f)
{
    strcpy(f->message, "untouched");
    int error = kvbi_tier_disk_create(&f->tier, &f->memory, KVB_TIER_DISK, &f->config, f->message,
                                      sizeof f->message);
    return error == 0 ? kvbi_disk_commit(kvbi_disk_of(&f->tier), f->message, sizeof f->message)
                      : error;
}

/* What a file of so many slots of 64 KiB takes. */
static uint64_t bytes_of(uint32_t slots)
{
    struct kvbi_disk_superblock placed;
    assert_true(kvbi_disk_place(&placed, 65536, slots));
    return placed.file_bytes;
}

static void publish(struct disk_tier *f, uint32_t slot, uint64_t name, uint64_t checksum)
{
    struct kvbi_disk_publication publication = {
        .slot = slot, .identity = name, .checksum = checksum};
    kvbi_disk_publish(kvbi_disk_of(&f->tier), &publication, 1);
    assert_int_equal(publication.result, 0);
}

/* Refused with that code, the path and these words; nothing is left open. */
static void expect_refusal(struct disk_tier *f, int code, const char *words)
{
    int result = open_tier(f);
    if (result != code || strstr(f->message, words) == NULL ||
        (f->paths[0] != NULL && strstr(f->message, f->paths[0]) == NULL))
        fail_msg("%d (expected %d): \"%s\" (expected \"%s\")", result, code, f->message, words);
    assert_null(kvbi_disk_of(&f->tier));
    assert_int_equal(f->failing.live_count, 0);
}

static void write_file(const char *path, const char *bytes, size_t count)
{
    int fd = open(path, O_WRONLY | O_CREAT, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, count), (ssize_t)count);
    close(fd);
}

static bool exists(const char *path)
{
    struct stat status;
    return lstat(path, &status) == 0;
}

/* ---- What is taken --------------------------------------------------------------------------- */

static void test_disk_new_file_is_private_and_has_its_space(void **state)
{
    struct disk_tier *f = *state;
    struct stat status;
    assert_int_equal(open_tier(f), 0);
    assert_string_equal(f->message, "");
    assert_int_equal(stat(f->place.file, &status), 0);
    assert_int_equal(status.st_mode, S_IFREG | 0600);
    assert_int_equal(status.st_size, bytes_of(BLOCKS));
    assert_true(status.st_blocks * 512 >= status.st_size);
    assert_true((fcntl(kvbi_disk_of(&f->tier)->files[0].io.fd, F_GETFD) & FD_CLOEXEC) != 0);
    assert_int_equal(f->tier.tier, KVB_TIER_DISK);
    assert_int_equal(f->tier.block_count, BLOCKS);
    assert_int_equal(f->tier.block_bytes, 65536);
    assert_null(f->tier.base);
    assert_int_equal(kvbi_disk_of(&f->tier)->slot_bytes, 65536);
    assert_true(kvbi_disk_bytes(kvbi_disk_of(&f->tier)) >= BLOCKS * 16);
}

static void test_disk_mode_says_direct_or_why_not(void **state)
{
    struct disk_tier *f = *state;
    assert_int_equal(open_tier(f), 0);
    bool direct = (fcntl(kvbi_disk_of(&f->tier)->files[0].io.fd, F_GETFL) & O_DIRECT) != 0;
    assert_int_equal(kvbi_disk_of(&f->tier)->files[0].io.direct, direct);
    assert_int_equal(strcmp(kvbi_disk_of(&f->tier)->mode, "O_DIRECT") == 0, direct);
    assert_int_equal(strstr(kvbi_disk_of(&f->tier)->mode, "buffered (no O_DIRECT: ") != NULL,
                     !direct);
    kvbi_tier_destroy(&f->tier);
    f->config.buffered = true;
    assert_int_equal(open_tier(f), 0);
    assert_int_equal(fcntl(kvbi_disk_of(&f->tier)->files[0].io.fd, F_GETFL) & O_DIRECT, 0);
    assert_string_equal(kvbi_disk_of(&f->tier)->mode, "buffered (asked for)");
}

static void test_disk_that_takes_no_direct_writes_is_buffered_and_says_so(void **state)
{
    struct disk_tier *f = *state;
    assert_int_equal(open_tier(f), 0);
    bool direct = kvbi_disk_of(&f->tier)->files[0].io.direct;
    kvbi_tier_destroy(&f->tier);
    no_direct_writes = true;
    assert_int_equal(open_tier(f), 0);
    assert_false(kvbi_disk_of(&f->tier)->files[0].io.direct);
    assert_non_null(strstr(kvbi_disk_of(&f->tier)->mode, "buffered (no O_DIRECT: "));
    assert_int_equal(
        strstr(kvbi_disk_of(&f->tier)->files[0].note, "takes no direct writes") != NULL, direct);
}

static void test_disk_odd_block_is_padded_and_says_so(void **state)
{
    struct disk_tier *f = *state;
    f->config.purpose.block_bytes = 5000;
    assert_int_equal(open_tier(f), 0);
    assert_int_equal(kvbi_disk_of(&f->tier)->slot_bytes, 8192);
    assert_non_null(strstr(kvbi_disk_of(&f->tier)->mode, "blocks of 5000 bytes padded to 8192"));
    assert_int_equal(kvbi_disk_offset(kvbi_disk_of(&f->tier), 3), KVBI_DISK_DATA_OFFSET + 3 * 8192);
}

static void test_disk_file_of_zeros_is_taken(void **state)
{
    struct disk_tier *f = *state;
    char zeros[10000] = {0};
    write_file(f->place.file, zeros, sizeof zeros);
    assert_int_equal(open_tier(f), 0);
}

static void test_disk_earlier_file_is_made_private_and_cut(void **state)
{
    struct disk_tier *f = *state;
    struct stat status;
    assert_int_equal(open_tier(f), 0);
    kvbi_tier_destroy(&f->tier);
    assert_int_equal(chmod(f->place.file, 0644), 0);
    f->config.block_count = 2;
    assert_int_equal(open_tier(f), 0);
    assert_int_equal(stat(f->place.file, &status), 0);
    assert_int_equal(status.st_mode, S_IFREG | 0600);
    assert_int_equal(status.st_size, bytes_of(2));
}

/* ---- Names and checksums --------------------------------------------------------------------- */

static void test_disk_name_depends_on_slot_and_all_of_the_identity(void **state)
{
    struct disk_tier *f = *state;
    const struct kvbi_identity who[] = {{.hash = 1, .digest = {2, 3}, .generation = 4},
                                        {.hash = 9, .digest = {2, 3}, .generation = 4},
                                        {.hash = 1, .digest = {9, 3}, .generation = 4},
                                        {.hash = 1, .digest = {2, 9}, .generation = 4},
                                        {.hash = 1, .digest = {2, 3}, .generation = 9}};
    assert_int_equal(open_tier(f), 0);
    uint64_t name = kvbi_disk_identity(kvbi_disk_of(&f->tier), 1, &who[0]);
    assert_true(name != 0 && name == kvbi_disk_identity(kvbi_disk_of(&f->tier), 1, &who[0]));
    assert_true(name != kvbi_disk_identity(kvbi_disk_of(&f->tier), 2, &who[0]));
    for (int i = 1; i < 5; i++)
        assert_true(name != kvbi_disk_identity(kvbi_disk_of(&f->tier), 1, &who[i]));
}

static void test_disk_checksum_depends_on_name_and_every_byte(void **state)
{
    struct disk_tier *f = *state;
    unsigned char payload[5000];
    f->config.purpose.block_bytes = sizeof payload;
    assert_int_equal(open_tier(f), 0);
    memset(payload, 7, sizeof payload);
    uint64_t checksum = kvbi_disk_checksum(kvbi_disk_of(&f->tier), 1, payload);
    assert_true(checksum != kvbi_disk_checksum(kvbi_disk_of(&f->tier), 2, payload));
    publish(f, 0, 1, checksum);
    assert_true(kvbi_disk_verify(kvbi_disk_of(&f->tier), 0, 1, payload));
    assert_false(kvbi_disk_verify(kvbi_disk_of(&f->tier), 0, 2, payload));
    for (size_t i = 0; i < sizeof payload; i++) {
        payload[i] ^= 1;
        assert_false(kvbi_disk_verify(kvbi_disk_of(&f->tier), 0, 1, payload));
        payload[i] ^= 1;
    }
    kvbi_disk_forget(kvbi_disk_of(&f->tier), 0);
    assert_false(kvbi_disk_verify(kvbi_disk_of(&f->tier), 0, 1, payload));
}

/* ---- What is refused ------------------------------------------------------------------------- */

static void test_disk_no_path_is_refused(void **state)
{
    struct disk_tier *f = *state;
    f->paths[0] = NULL;
    expect_refusal(f, KVB_EINVAL, "needs a path");
    f->paths[0] = "";
    expect_refusal(f, KVB_EINVAL, "needs a path");
}

static void test_disk_sizes_that_no_file_has_are_refused(void **state)
{
    struct disk_tier *f = *state;
    f->config.purpose.block_bytes = 0;
    expect_refusal(f, KVB_EINVAL, "more than a file can have");
    f->config.purpose.block_bytes = UINT64_MAX;
    expect_refusal(f, KVB_EINVAL, "more than a file can have");
    f->config.purpose.block_bytes = UINT64_C(1) << 61;
    expect_refusal(f, KVB_EINVAL, "more than a file can have");
    f->config.purpose.block_bytes = 4096;
    f->config.block_count = 0;
    expect_refusal(f, KVB_EINVAL, "more than a file can have");
    assert_false(exists(f->place.file));
}

static void test_disk_missing_directory_is_refused(void **state)
{
    struct disk_tier *f = *state;
    f->paths[0] = "no_such_directory/blocks";
    expect_refusal(f, KVB_ENOENT, "directory does not exist");
    write_file(f->place.file, "x", 1);
    char below[128];
    (void)snprintf(below, sizeof below, "%s/blocks", f->place.file);
    f->paths[0] = below;
    expect_refusal(f, KVB_ENOENT, "directory does not exist");
}

static void test_disk_directory_is_refused(void **state)
{
    struct disk_tier *f = *state;
    char slash[128];
    f->paths[0] = f->place.directory;
    expect_refusal(f, KVB_EINVAL, "is a directory");
    (void)snprintf(slash, sizeof slash, "%s/new/", f->place.directory);
    f->paths[0] = slash;
    expect_refusal(f, KVB_EINVAL, "Is a directory");
}

static void test_disk_symbolic_link_is_refused(void **state)
{
    struct disk_tier *f = *state;
    assert_int_equal(symlink("elsewhere", f->place.file), 0);
    expect_refusal(f, KVB_EINVAL, "symbolic link");
    char target[128];
    (void)snprintf(target, sizeof target, "%s/elsewhere", f->place.directory);
    assert_false(exists(target));
}

static void test_disk_fifo_is_refused_without_waiting_for_a_writer(void **state)
{
    struct disk_tier *f = *state;
    assert_int_equal(mkfifo(f->place.file, 0600), 0);
    expect_refusal(f, KVB_EINVAL, "FIFO");
}

static void test_disk_socket_is_refused(void **state)
{
    struct disk_tier *f = *state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", f->place.file);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    expect_refusal(f, KVB_EINVAL, "socket");
    close(fd);
}

static void test_disk_character_device_is_refused(void **state)
{
    struct disk_tier *f = *state;
    f->paths[0] = "/dev/zero";
    expect_refusal(f, KVB_EINVAL, "character device");
}

static void test_disk_file_of_another_user_is_refused(void **state)
{
    struct disk_tier *f = *state;
    f->paths[0] = "/etc/passwd";
    if (geteuid() == 0) {
        f->paths[0] = f->place.file;
        write_file(f->place.file, "", 0);
        assert_int_equal(chown(f->place.file, 12345, 12345), 0);
    }
    expect_refusal(f, KVB_EINVAL, "belongs to user");
}

static void test_disk_file_with_other_content_is_left_alone(void **state)
{
    struct disk_tier *f = *state;
    char back[16] = {0};
    write_file(f->place.file, "my thesis", 9);
    expect_refusal(f, KVB_EMISMATCH, "has not written");
    int fd = open(f->place.file, O_RDONLY);
    assert_int_equal(read(fd, back, sizeof back), 9);
    assert_string_equal(back, "my thesis");
    close(fd);
}

static void test_disk_file_in_use_is_refused(void **state)
{
    struct disk_tier *f = *state;
    struct kvbi_tier second;
    assert_int_equal(open_tier(f), 0);
    assert_int_equal(kvbi_tier_disk_create(&second, &f->memory, KVB_TIER_DISK, &f->config,
                                           f->message, sizeof f->message),
                     KVB_EBUSY);
    assert_non_null(strstr(f->message, "another process"));
    kvbi_tier_destroy(&f->tier);
    assert_int_equal(open_tier(f), 0);
}

static int do_nothing(void *argument)
{
    (void)argument;
    while (pause() < 0) {
    }
    return 0;
}

static int hold_file(void *argument)
{
    struct disk_tier *f = argument;
    char answer = open_tier(f) == 0 ? 'y' : 'n';
    (void)!write(f->answers[1], &answer, 1);
    return do_nothing(NULL);
}

/* In a process of its own, which holds it until it is killed. */
static void test_disk_lock_of_a_killed_process_is_gone(void **state)
{
    struct disk_tier *f = *state;
    char answer = 0;
    f->child = child_start(hold_file, f);
    assert_int_equal(read(f->answers[0], &answer, 1), 1);
    assert_int_equal(answer, 'y');
    expect_refusal(f, KVB_EBUSY, "another process");
    kill_child(f);
    assert_int_equal(open_tier(f), 0);
}

/* flock goes with the open file, which a forked child has too. */
static void test_disk_closed_file_is_free_while_a_child_has_it_open(void **state)
{
    struct disk_tier *f = *state;
    assert_int_equal(open_tier(f), 0);
    f->child = child_start(do_nothing, NULL);
    kvbi_tier_destroy(&f->tier);
    assert_int_equal(open_tier(f), 0);
}

static int open_and_tell(void *argument)
{
    struct disk_tier *f = argument;
    int result = setrlimit(f->limited, &f->limit) == 0 ? open_tier(f) : -255;
    (void)!write(f->answers[1], f->message, sizeof f->message);
    return -result;
}

/*
 * The result of opening in a child with one soft limit, its message in f->message. Positive: the
 * child was ended, by SIGXFSZ for example.
 */
static int open_with_limit(struct disk_tier *f, __rlimit_resource_t which, rlim_t value)
{
    f->limited = which;
    f->limit = (struct rlimit){.rlim_cur = value, .rlim_max = value};
    pid_t child = child_start(open_and_tell, f);
    assert_int_equal(read(f->answers[0], f->message, sizeof f->message), sizeof f->message);
    return -child_status(child);
}

static void test_disk_file_size_limit_is_named(void **state)
{
    struct disk_tier *f = *state;
    assert_int_equal(open_with_limit(f, RLIMIT_FSIZE, 1 << 20), KVB_ENOSPC);
    assert_non_null(strstr(f->message, "RLIMIT_FSIZE allows files of 1048576 bytes"));
    assert_false(exists(f->place.file));
    assert_int_equal(open_with_limit(f, RLIMIT_FSIZE, bytes_of(BLOCKS)), 0);
}

static void test_disk_descriptor_limit_is_named(void **state)
{
    struct disk_tier *f = *state;
    assert_int_equal(open_with_limit(f, RLIMIT_NOFILE, 3), KVB_ENOMEM);
    assert_non_null(strstr(f->message, "RLIMIT_NOFILE"));
    assert_false(exists(f->place.file));
}

static int open_without_permission(void *argument)
{
    struct disk_tier *f = argument;
    if (geteuid() == 0 && setresuid(65534, 65534, 65534) != 0)
        return 99;
    int result = open_tier(f);
    return result == KVB_EINVAL && strstr(f->message, "may not be") != NULL ? 0 : 1;
}

static void test_disk_without_permission_is_refused(void **state)
{
    struct disk_tier *f = *state;
    assert_int_equal(chmod(f->place.directory, 0500), 0);
    assert_int_equal(child_run(open_without_permission, f), 0);
}

static void test_disk_allocation_failures_leave_nothing(void **state)
{
    struct disk_tier *f = *state;
    int64_t successes = 0;
    for (;; successes++) {
        f->memory = failing_memory(&f->failing, successes);
        if (open_tier(f) == 0)
            break;
        assert_int_equal(f->failing.live_count, 0);
        assert_non_null(strstr(f->message, "no memory"));
        assert_false(exists(f->place.file));
    }
    assert_int_equal(successes, 6); /* the tier, its paths, entries, failures, a buffer, a name */
}

static void test_disk_message_is_cut_or_left_out(void **state)
{
    struct disk_tier *f = *state;
    f->paths[0] = f->place.directory;
    assert_int_equal(kvbi_tier_disk_create(&f->tier, &f->memory, 2, &f->config, NULL, 0),
                     KVB_EINVAL);
    for (size_t bytes = 1; bytes < 60; bytes++) {
        memset(f->message, 'x', sizeof f->message);
        assert_int_equal(
            kvbi_tier_disk_create(&f->tier, &f->memory, 2, &f->config, f->message, bytes),
            KVB_EINVAL);
        assert_true(strlen(f->message) < bytes);
        assert_int_equal(f->message[bytes], 'x');
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(disk_tier, test_disk_new_file_is_private_and_has_its_space),
        TEST(disk_tier, test_disk_mode_says_direct_or_why_not),
        TEST(disk_tier, test_disk_that_takes_no_direct_writes_is_buffered_and_says_so),
        TEST(disk_tier, test_disk_odd_block_is_padded_and_says_so),
        TEST(disk_tier, test_disk_file_of_zeros_is_taken),
        TEST(disk_tier, test_disk_earlier_file_is_made_private_and_cut),
        TEST(disk_tier, test_disk_name_depends_on_slot_and_all_of_the_identity),
        TEST(disk_tier, test_disk_checksum_depends_on_name_and_every_byte),
        TEST(disk_tier, test_disk_no_path_is_refused),
        TEST(disk_tier, test_disk_sizes_that_no_file_has_are_refused),
        TEST(disk_tier, test_disk_missing_directory_is_refused),
        TEST(disk_tier, test_disk_directory_is_refused),
        TEST(disk_tier, test_disk_symbolic_link_is_refused),
        TEST(disk_tier, test_disk_fifo_is_refused_without_waiting_for_a_writer),
        TEST(disk_tier, test_disk_socket_is_refused),
        TEST(disk_tier, test_disk_character_device_is_refused),
        TEST(disk_tier, test_disk_file_of_another_user_is_refused),
        TEST(disk_tier, test_disk_file_with_other_content_is_left_alone),
        TEST(disk_tier, test_disk_file_in_use_is_refused),
        TEST(disk_tier, test_disk_lock_of_a_killed_process_is_gone),
        TEST(disk_tier, test_disk_closed_file_is_free_while_a_child_has_it_open),
        TEST(disk_tier, test_disk_file_size_limit_is_named),
        TEST(disk_tier, test_disk_descriptor_limit_is_named),
        TEST(disk_tier, test_disk_without_permission_is_refused),
        TEST(disk_tier, test_disk_allocation_failures_leave_nothing),
        TEST(disk_tier, test_disk_message_is_cut_or_left_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
