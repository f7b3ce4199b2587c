/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file of a disk tier on file systems that are full, read-only, without fallocate, and on a block device. They are mounted in
 * a namespace of this process; where it may have none, the program is skipped.
 */
#include "transfer/tier_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "support/disk_path.h"

struct fixture {
    struct kvbi_memory memory;
    struct disk_path place;
    struct kvbi_tier tier;
    struct kvbi_disk_config config;
    char message[256];
};

static bool write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY);
    if (fd < 0)
        return false;
    bool written = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    close(fd);
    return written;
}

static bool enter_namespace(void)
{
    unsigned uid = getuid();
    char map[64];
    if (uid != 0) {
        (void)snprintf(map, sizeof map, "0 %u 1", uid);
        if (unshare(CLONE_NEWUSER) != 0 || !write_text("/proc/self/uid_map", map))
            return false;
    }
    return unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_int_equal(kvbi_memory_init(&f->memory, NULL), 0);
    disk_path_make(&f->place);
    f->config = (struct kvbi_disk_config){.path = f->place.file, .block_count = 8, .block_bytes = 65536};
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    kvbi_tier_destroy(&f->tier);
    (void)umount(f->place.directory);
    disk_path_remove(&f->place);
    free(f);
    return 0;
}

static void mount_here(struct fixture *f, const char *type, const char *options)
{
    assert_int_equal(mount("none", f->place.directory, type, 0, options), 0);
}

static int open_tier(struct fixture *f)
{
    return kvbi_tier_disk_create(&f->tier, &f->memory, KVB_TIER_DISK, &f->config, f->message, sizeof f->message);
}

static void expect_refusal(struct fixture *f, int code, const char *words)
{
    int result = open_tier(f);
    if (result != code || strstr(f->message, words) == NULL)
        fail_msg("%d (expected %d): \"%s\" (expected \"%s\")", result, code, f->message, words);
}

static void test_mounts_tmpfs_is_taken(void **state)
{
    struct fixture *f = *state;
    mount_here(f, "tmpfs", "size=2m");
    assert_int_equal(open_tier(f), 0);
}

static void test_mounts_full_file_system_is_refused_at_once(void **state)
{
    struct fixture *f = *state;
    struct stat status;
    mount_here(f, "tmpfs", "size=1m");
    expect_refusal(f, KVB_ENOSPC, "no room for 1572864 bytes");
    assert_int_equal(stat(f->place.file, &status), -1);
}

static void test_mounts_no_inode_left_is_refused(void **state)
{
    struct fixture *f = *state;
    mount_here(f, "tmpfs", "size=2m,nr_inodes=1");
    expect_refusal(f, KVB_ENOSPC, "cannot be created");
}

static void test_mounts_read_only_file_system_is_refused(void **state)
{
    struct fixture *f = *state;
    mount_here(f, "tmpfs", "size=2m");
    assert_int_equal(open_tier(f), 0);
    kvbi_tier_destroy(&f->tier);
    assert_int_equal(mount("none", f->place.directory, NULL, MS_REMOUNT | MS_RDONLY, NULL), 0);
    expect_refusal(f, KVB_EUNSUPPORTED, "read-only");
    char other[128];
    (void)snprintf(other, sizeof other, "%s/new", f->place.directory);
    f->config.path = other;
    expect_refusal(f, KVB_EUNSUPPORTED, "read-only");
}

static void test_mounts_file_system_without_fallocate_is_named(void **state)
{
    struct fixture *f = *state;
    mount_here(f, "ramfs", NULL);
    expect_refusal(f, KVB_EUNSUPPORTED, "cannot preallocate (no fallocate)");
}

/* A loop device of 4 MiB at `path`, or false: none is to be had here. */
static bool make_device(const char *backing, char *path, size_t path_bytes)
{
    int control = open("/dev/loop-control", O_RDWR), file = open(backing, O_RDWR | O_CREAT, 0600);
    int number = control >= 0 ? ioctl(control, LOOP_CTL_GET_FREE) : -1;
    (void)snprintf(path, path_bytes, "/dev/loop%d", number);
    int device = number >= 0 ? open(path, O_RDWR) : -1;
    bool made = device >= 0 && ftruncate(file, 4 << 20) == 0 && ioctl(device, LOOP_SET_FD, file) == 0;
    close(control), close(file), close(device);
    return made;
}

static void test_mounts_block_device_is_taken_if_large_enough(void **state)
{
    struct fixture *f = *state;
    char backing[128], path[64], junk[4096];
    (void)snprintf(backing, sizeof backing, "%s/backing", f->place.directory);
    if (!make_device(backing, path, sizeof path)) {
        print_message("no loop devices here: block devices are not tested\n");
        return;
    }
    f->config.path = path;
    assert_int_equal(open_tier(f), 0);
    kvbi_tier_destroy(&f->tier);
    f->config.block_count = 64;
    expect_refusal(f, KVB_ENOSPC, "the device has 4194304 bytes");
    f->config.block_count = 8;
    int fd = open(path, O_RDWR);
    memset(junk, 'x', sizeof junk);
    assert_int_equal(write(fd, junk, sizeof junk), sizeof junk);
    expect_refusal(f, KVB_EMISMATCH, "has not written");
    (void)ioctl(fd, LOOP_CLR_FD, 0);
    close(fd);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_mounts_tmpfs_is_taken),
        TEST(test_mounts_full_file_system_is_refused_at_once),
        TEST(test_mounts_no_inode_left_is_refused),
        TEST(test_mounts_read_only_file_system_is_refused),
        TEST(test_mounts_file_system_without_fallocate_is_named),
        TEST(test_mounts_block_device_is_taken_if_large_enough),
    };
    if (!enter_namespace()) {
        (void)fprintf(stderr, "skipped: no mount namespace for this process: %s\n", strerror(errno));
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
