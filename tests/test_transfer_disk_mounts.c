/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file of a disk tier on file systems that are full, read-only, without fallocate, and on a
 * block device. They are mounted in a namespace of this process; where it may have none, the
 * program is skipped.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "support/disk_path.h"
#include "support/test.h"
#include "transfer/disk/tier.h"

struct mounted {
    struct kvbi_memory memory;
    struct disk_path place;
    struct kvbi_tier tier;
    const char *paths[1];
    struct kvbi_disk_config config;
    char message[256];
    char device[64]; /* a loop device that this test has; empty: none */
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

static int holder = -1, pauses;

static void let_go(void)
{
    if (holder >= 0)
        close(holder);
    holder = -1;
}

/* In place of the C library's: nobody waits here. What is held is let go after the third time. */
int nanosleep(const struct timespec *time, struct timespec *left)
{
    (void)time, (void)left;
    if (++pauses == 3)
        let_go();
    return 0;
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

static int mounted_setup(void **state)
{
    struct mounted *f = calloc(1, sizeof *f);
    if (f == NULL || kvbi_memory_init(&f->memory, NULL) != 0)
        return -1;
    disk_path_make(&f->place);
    f->paths[0] = f->place.file;
    f->config = (struct kvbi_disk_config){
        .paths = f->paths, .path_count = 1, .block_count = 8, .purpose = {.block_bytes = 65536}};
    *state = f;
    return 0;
}

static void drop_device(const char *path)
{
    int fd = open(path, O_RDWR);
    (void)ioctl(fd, LOOP_CLR_FD, 0);
    close(fd);
}

static int mounted_teardown(void **state)
{
    struct mounted *f = *state;
    kvbi_tier_destroy(&f->tier);
    let_go();
    (void)umount(f->place.directory);
    if (f->device[0] != '\0')
        drop_device(f->device);
    disk_path_remove(&f->place);
    free(f);
    return 0;
}

static void mount_here(struct mounted *f, const char *type, const char *options)
{
    assert_int_equal(mount("none", f->place.directory, type, 0, options), 0);
}

static int open_tier(struct mounted *f)
{
    int error = kvbi_tier_disk_create(&f->tier, &f->memory, KVB_TIER_DISK, &f->config, f->message,
                                      sizeof f->message);
    return error == 0 ? kvbi_disk_commit(kvbi_disk_of(&f->tier), f->message, sizeof f->message)
                      : error;
}

static void expect_refusal(struct mounted *f, int code, const char *words)
{
    int result = open_tier(f);
    if (result != code || strstr(f->message, words) == NULL)
        fail_msg("%d (expected %d): \"%s\" (expected \"%s\")", result, code, f->message, words);
}

static void test_mounts_tmpfs_is_taken(void **state)
{
    struct mounted *f = *state;
    mount_here(f, "tmpfs", "size=2m");
    assert_int_equal(open_tier(f), 0);
}

static void test_mounts_full_file_system_is_refused_at_once(void **state)
{
    struct mounted *f = *state;
    struct stat status;
    mount_here(f, "tmpfs", "size=1m");
    expect_refusal(f, KVB_ENOSPC, "no room for 1581056 bytes");
    assert_int_equal(stat(f->place.file, &status), -1);
}

static void test_mounts_no_inode_left_is_refused(void **state)
{
    struct mounted *f = *state;
    mount_here(f, "tmpfs", "size=2m,nr_inodes=1");
    expect_refusal(f, KVB_ENOSPC, "cannot be created");
}

static void test_mounts_read_only_file_system_is_refused(void **state)
{
    struct mounted *f = *state;
    mount_here(f, "tmpfs", "size=2m");
    assert_int_equal(open_tier(f), 0);
    kvbi_tier_destroy(&f->tier);
    assert_int_equal(mount("none", f->place.directory, NULL, MS_REMOUNT | MS_RDONLY, NULL), 0);
    expect_refusal(f, KVB_EUNSUPPORTED, "read-only");
    char other[128];
    (void)snprintf(other, sizeof other, "%s/new", f->place.directory);
    f->paths[0] = other;
    expect_refusal(f, KVB_EUNSUPPORTED, "read-only");
}

static void test_mounts_file_system_without_fallocate_is_named(void **state)
{
    struct mounted *f = *state;
    mount_here(f, "ramfs", NULL);
    expect_refusal(f, KVB_EUNSUPPORTED, "cannot preallocate (no fallocate)");
}

static void test_mounts_file_system_without_fallocate_is_taken_if_configured(void **state)
{
    struct mounted *f = *state;
    struct stat status;
    mount_here(f, "ramfs", NULL);
    f->config.flags = KVB_DISK_ALLOW_SPARSE;
    for (int run = 0; run < 2; run++) {
        assert_int_equal(open_tier(f), 0);
        assert_non_null(strstr(kvbi_disk_of(&f->tier)->mode, "sparse: no fallocate"));
        assert_int_equal(kvbi_disk_of(&f->tier)->files[0].kept, run > 0);
        assert_int_equal(stat(f->place.file, &status), 0);
        assert_int_equal(status.st_size, kvbi_disk_of(&f->tier)->files[0].superblock.file_bytes);
        kvbi_tier_destroy(&f->tier);
    }
}

static void test_mounts_flag_for_sparse_files_changes_nothing_elsewhere(void **state)
{
    struct mounted *f = *state;
    mount_here(f, "tmpfs", "size=1m");
    f->config.flags = KVB_DISK_ALLOW_SPARSE;
    expect_refusal(f, KVB_ENOSPC, "no room for 1581056 bytes");
}

/* It is refused, and as it was. */
static void test_mounts_file_that_finds_no_room_to_grow_is_kept(void **state)
{
    struct mounted *f = *state;
    mount_here(f, "tmpfs", "size=2m");
    assert_int_equal(open_tier(f), 0);
    uint64_t uuid = kvbi_disk_of(&f->tier)->files[0].uuid[0];
    kvbi_disk_close_clean(kvbi_disk_of(&f->tier), NULL, 0);
    kvbi_tier_destroy(&f->tier);
    f->config.block_count = 64;
    expect_refusal(f, KVB_ENOSPC, "no room for");
    f->config.block_count = 8;
    assert_int_equal(open_tier(f), 0);
    assert_true(kvbi_disk_of(&f->tier)->files[0].kept);
    assert_int_equal(kvbi_disk_of(&f->tier)->files[0].uuid[0], uuid);
    assert_string_equal(kvbi_disk_of(&f->tier)->files[0].note, "");
}

/* 0, or an errno; EBUSY: somebody else has taken the device that was free. */
static int attach_free_device(int control, int file, char *path, size_t path_bytes)
{
    int number = ioctl(control, LOOP_CTL_GET_FREE);
    if (number < 0)
        return errno;
    (void)snprintf(path, path_bytes, "/dev/loop%d", number);
    int device = open(path, O_RDWR | O_CLOEXEC);
    int error = device < 0 || ioctl(device, LOOP_SET_FD, file) != 0 ? errno : 0;
    if (device >= 0)
        close(device);
    return error;
}

/* A loop device of 4 MiB at `path`, or false: none is to be had here. */
static bool make_device(const char *backing, char *path, size_t path_bytes)
{
    int control = open("/dev/loop-control", O_RDWR), file = open(backing, O_RDWR | O_CREAT, 0600);
    int error = control >= 0 && file >= 0 && ftruncate(file, 4 << 20) == 0 ? EBUSY : ENOENT;
    while (error == EBUSY)
        error = attach_free_device(control, file, path, path_bytes);
    close(control), close(file);
    return error == 0;
}

/* The tier's path. False, and that is said: none is to be had here. */
static bool take_device(struct mounted *f)
{
    char backing[128];
    (void)snprintf(backing, sizeof backing, "%s/backing", f->place.directory);
    if (!make_device(backing, f->device, sizeof f->device)) {
        print_message("no loop devices here: block devices are not tested\n");
        f->device[0] = '\0';
        return false;
    }
    f->paths[0] = f->device;
    return true;
}

static void test_mounts_block_device_is_taken_if_large_enough(void **state)
{
    struct mounted *f = *state;
    if (!take_device(f))
        return;
    assert_int_equal(open_tier(f), 0);
    kvbi_tier_destroy(&f->tier);
    f->config.block_count = 64;
    expect_refusal(f, KVB_ENOSPC, "the device has 4194304 bytes");
    for (uint32_t count = 8; count <= 16; count += 8) { /* found again, and with another size too */
        f->config.block_count = count;
        assert_int_equal(open_tier(f), 0);
        assert_true(kvbi_disk_of(&f->tier)->files[0].kept);
        kvbi_tier_destroy(&f->tier);
    }
}

/*
 * Whatever a volume manager, a RAID or a file system spares of what was there: its own is seen, and
 * no flag takes it.
 */
static void test_mounts_block_device_that_was_given_to_others_is_refused(void **state)
{
    struct mounted *f = *state;
    char before[4096], junk[4096], back[4096];
    static const off_t places[] = {0, 4096, 8192, 65536, (1 << 20) - 4096};
    if (!take_device(f))
        return;
    assert_int_equal(open_tier(f), 0);
    kvbi_tier_destroy(&f->tier);
    memset(junk, 'x', sizeof junk);
    int fd = open(f->device, O_RDWR);
    for (size_t i = 0; i < 2 * sizeof places / sizeof *places; i++) {
        off_t at = places[i / 2];
        f->config.flags = i % 2 == 0 ? 0 : KVB_DISK_START_EMPTY;
        assert_int_equal(pread(fd, before, sizeof before, at), sizeof before);
        assert_int_equal(pwrite(fd, junk, sizeof junk, at), sizeof junk);
        expect_refusal(f, KVB_EMISMATCH, "has not written");
        assert_int_equal(pread(fd, back, sizeof back, at), sizeof back);
        assert_memory_equal(back, junk, sizeof junk);
        assert_int_equal(pwrite(fd, before, sizeof before, at), sizeof before);
    }
    close(fd);
    f->config.flags = 0;
    assert_int_equal(open_tier(f), 0);
    assert_true(kvbi_disk_of(&f->tier)->files[0].kept);
    kvbi_tier_destroy(&f->tier);
}

/* As after a kill, while the kernel ends the I/O of the process that is gone. */
static void test_mounts_block_device_that_is_let_go_of_soon_is_waited_for(void **state)
{
    struct mounted *f = *state;
    if (!take_device(f))
        return;
    holder = open(f->device, O_RDONLY | O_EXCL);
    assert_true(holder >= 0);
    pauses = 0;
    assert_int_equal(open_tier(f), 0);
    assert_int_equal(pauses, 3);
    kvbi_tier_destroy(&f->tier);
    holder = open(f->device, O_RDONLY | O_EXCL);
    expect_refusal(f, KVB_EBUSY, "is in use");
}

/*
 * Space that was taken for one path, and behind the end of a file, on a file system that does not
 * undo that by itself.
 */
static void test_mounts_refused_growth_gives_its_space_back(void **state)
{
    struct mounted *f = *state;
    struct stat before, after;
    char other[128];
    if (!take_device(f))
        return;
    char command[200];
    (void)snprintf(command, sizeof command, "mkfs.ext4 -q -F -m 0 -O ^has_journal %s", f->device);
    if (system(command) != 0 || mount(f->device, f->place.directory, "ext4", 0, NULL) != 0) {
        print_message("no ext4 here: left out\n");
    } else {
        (void)snprintf(other, sizeof other, "%s/other", f->place.directory);
        const char *const paths[] = {f->place.file, other};
        f->config.paths = paths;
        f->config.path_count = 2;
        f->config.block_count = 4;
        assert_int_equal(open_tier(f), 0);
        kvbi_tier_destroy(&f->tier);
        for (int i = 0; i < 2; i++) {
            f->config.block_count = i == 0 ? 32 : 1000; /* the first fits; none does */
            assert_int_equal(stat(paths[0], &before), 0);
            expect_refusal(f, KVB_ENOSPC, "no room for");
            assert_non_null(strstr(f->message, paths[1 - i]));
            assert_int_equal(stat(paths[0], &after), 0);
            assert_int_equal(before.st_size, after.st_size);
            assert_int_equal(before.st_blocks, after.st_blocks);
        }
        f->config.block_count = 4;
        assert_int_equal(open_tier(f), 0);
        /* And put back where there is no room any more. */
        assert_int_equal(truncate(paths[0], 8192), 0);
        kvbi_disk_of(&f->tier)->files[0].superblock.file_bytes = 16 << 20;
        assert_int_equal(stat(paths[0], &before), 0);
        assert_int_equal(kvbi_disk_renew(kvbi_disk_of(&f->tier), 0), KVB_ENOSPC);
        assert_int_equal(stat(paths[0], &after), 0);
        assert_int_equal(before.st_size, after.st_size);
        assert_int_equal(before.st_blocks, after.st_blocks);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(mounted, test_mounts_tmpfs_is_taken),
        TEST(mounted, test_mounts_full_file_system_is_refused_at_once),
        TEST(mounted, test_mounts_no_inode_left_is_refused),
        TEST(mounted, test_mounts_read_only_file_system_is_refused),
        TEST(mounted, test_mounts_file_system_without_fallocate_is_named),
        TEST(mounted, test_mounts_file_system_without_fallocate_is_taken_if_configured),
        TEST(mounted, test_mounts_flag_for_sparse_files_changes_nothing_elsewhere),
        TEST(mounted, test_mounts_file_that_finds_no_room_to_grow_is_kept),
        TEST(mounted, test_mounts_block_device_is_taken_if_large_enough),
        TEST(mounted, test_mounts_block_device_that_was_given_to_others_is_refused),
        TEST(mounted, test_mounts_block_device_that_is_let_go_of_soon_is_waited_for),
        TEST(mounted, test_mounts_refused_growth_gives_its_space_back),
    };
    disk_path_remove_at_end(); /* outside of the namespace that the mounts are in */
    if (!enter_namespace()) {
        (void)fprintf(stderr, "skipped: no mount namespace for this process: %s\n",
                      strerror(errno));
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
