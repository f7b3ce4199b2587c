/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The disk tier through the public interface on one file system: blocks of 4 KiB to 4 MiB go down,
 * survive a restart and come back, with each engine; what is full or read-only is refused and left
 * as it was.
 *
 *     test_disk_filesystems             where it is started
 *     test_disk_filesystems xfs         on one that it mounts for itself, see `systems` below
 *
 * Mounts are made in a namespace of this process, and gone with it. What cannot be mounted is
 * skipped: 77, and why.
 */
#include <errno.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include "support/disk_restart.h"
#include "support/leftovers.h"

/* ---- Mounting -------------------------------------------------------------------------------- */

static char directory[32], image[64];

__attribute__((format(printf, 1, 2))) static bool shell(const char *format, ...)
{
    char command[512];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(command, sizeof command, format, arguments);
    va_end(arguments);
    return system(command) == 0;
}

static bool mount_tmpfs(const char *options)
{
    return mount("none", directory, "tmpfs", 0, options) == 0;
}

static bool mount_large_tmpfs(void)
{
    return mount_tmpfs("size=256m");
}

static bool mount_small_tmpfs(void)
{
    return mount_tmpfs("size=3m");
}

/* Upper and lower half on the file system of the working directory. */
static bool mount_overlay(void)
{
    return shell("mkdir %s/lower %s/upper %s/work && mkdir %s/top", directory, directory, directory,
                 directory) &&
           shell("mount -t overlay overlay -o lowerdir=%s/lower,upperdir=%s/upper,"
                 "workdir=%s/work %s/top",
                 directory, directory, directory, directory) &&
           strcat(directory, "/top") != NULL;
}

/*
 * An image in the working directory. mkfs.xfs makes none below 300 MB; blocks that nobody writes
 * take no space.
 */
static bool mount_image(const char *make, const char *options)
{
    (void)snprintf(image, sizeof image, "%s.image", directory);
    return shell("truncate -s 400M %s && %s %s >/dev/null", image, make, image) &&
           shell("mount -o loop%s %s %s", options, image, directory);
}

static bool mount_xfs(void)
{
    return mount_image("mkfs.xfs -q -f", "");
}

static bool mount_ext4(void)
{
    return mount_image("mkfs.ext4 -q -F", "");
}

/* Where data goes through the journal there is no direct I/O. */
static bool mount_ext4_journal(void)
{
    return mount_image("mkfs.ext4 -q -F", ",data=journal");
}

static void unmount(void)
{
    char *top = strstr(directory, "/top");
    (void)umount(directory);
    if (top != NULL)
        *top = '\0';
    (void)shell("rm -rf %s", directory);
    if (image[0] != '\0')
        (void)unlink(image);
}

/* ---- Round trips ----------------------------------------------------------------------------- */

/* Down, stopped, up: with blocks of so many bytes. */
static void round_trip(void **state, uint64_t block_bytes, void (*again)(struct disk_scene *))
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    scene_tiers(scene, 4, 6);
    scene->rig.layout.chunk_bytes = block_bytes / (KV_LAYERS * KV_PARTS);
    scene->rig.tiers[0].block_count = 4;
    scene_open(scene);
    store_on_disk(scene, &run, 1, 4);
    assert_int_equal(fetch(scene, &run), 4);
    again(scene);
    assert_int_equal(path_stats(scene, 0).recovered, 4);
    assert_int_equal(fetch(scene, &run), 4);
    scene_again(scene);
}

static void test_blocks_of_all_sizes_survive_a_restart(void **state)
{
    static const uint64_t sizes[] = {4096, 65536, 1u << 20, 4u << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        round_trip(state, sizes[i], restart);
}

/* No multiples of a page: padded, by way of buffers of the engine. */
static void test_blocks_of_odd_sizes_survive_a_restart(void **state)
{
    static const uint64_t sizes[] = {4160, 65536 + 64, (1u << 20) - 64};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        round_trip(state, sizes[i], restart);
}

static void test_blocks_survive_a_kill(void **state)
{
    round_trip(state, 65536, restart_killed);
    round_trip(state, 4160, restart_killed);
}

static void test_blocks_overwritten_many_times_survive_a_restart(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run runs[40];
    scene_tiers(scene, 8, 8);
    scene->rig.layout.chunk_bytes = 65536 / (KV_LAYERS * KV_PARTS);
    scene->rig.tiers[0].block_count = 8;
    scene_open(scene);
    store_each(scene, runs, 1, 40);
    restart(scene);
    for (uint32_t i = 0; i < 40; i++)
        assert_int_equal(is_found(scene, &runs[i], 0), i >= 32);
    for (uint32_t i = 32; i < 40; i++)
        assert_int_equal(fetch(scene, &runs[i]), 1);
}

static void test_cleared_blocks_stay_away(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    store_on_disk(scene, &run, 1, 10);
    kv_ok(kvb_manager_clear(scene->rig.kv));
    restart_killed(scene);
    assert_int_equal(mv_found(&scene->rig, &run), 0);
}

/* Direct, or which error kept it from that: never silently. */
static void test_the_way_of_input_and_output_is_said(void **state)
{
    struct disk_scene *scene = *state;
    struct kvb_stats stats = kv_stats(&scene->rig);
    assert_true((strstr(stats.engine, "O_DIRECT") != NULL) ||
                (strstr(stats.engine, "buffered") != NULL));
    print_message("%s\n", stats.engine);
}

/* ---- No room, no writing --------------------------------------------------------------------- */

#define TOO_MANY 2000 /* blocks of KVBI_DISK_ALIGN: 8 MiB */

static void test_full_file_system_is_refused_and_nothing_is_left(void **state)
{
    struct disk_scene *scene = *state;
    scene_tiers(scene, HOST_BLOCKS, TOO_MANY);
    expect_refused(scene, KVB_ENOSPC, "no room for");
    assert_int_equal(folder_files(scene->folder), 0);
}

/* The first of two would have fitted. */
static void test_full_file_system_is_refused_for_all_paths_together(void **state)
{
    struct disk_scene *scene = *state;
    scene_tiers(scene, HOST_BLOCKS, 800);
    scene_stripe(scene, 2);
    expect_refused(scene, KVB_ENOSPC, scene->files[1]);
    assert_int_equal(folder_files(scene->folder), 0);
}

static void test_file_that_cannot_grow_is_left_as_it_was(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    store_on_disk(scene, &run, 1, 10);
    stop(scene);
    disk_config(scene)->block_count = TOO_MANY;
    expect_refused(scene, KVB_ENOSPC, "no room for");
    disk_config(scene)->block_count = DISK_BLOCKS;
    scene_open(scene);
    assert_int_equal(fetch(scene, &run), 10);
}

static int remounted_scene_setup(void **state)
{
    return disk_scene_opened_setup(state);
}

static int remounted_scene_teardown(void **state)
{
    bool writable = mount("none", directory, NULL, MS_REMOUNT, NULL) == 0;
    return disk_scene_teardown(state) == 0 && writable ? 0 : -1;
}

static void test_read_only_mount_is_refused(void **state)
{
    struct disk_scene *scene = *state;
    struct mv_run run;
    store_on_disk(scene, &run, 1, 10);
    stop(scene);
    assert_int_equal(mount("none", directory, NULL, MS_REMOUNT | MS_RDONLY, NULL), 0);
    expect_refused(scene, KVB_EUNSUPPORTED, "read-only");
    assert_int_equal(mount("none", directory, NULL, MS_REMOUNT, NULL), 0);
    scene_open(scene);
    assert_int_equal(fetch(scene, &run), 10);
}

/* ---------------------------------------------------------------------------------------------- */

static const struct CMUnitTest trips[] = {
    TEST(disk_scene, test_blocks_of_all_sizes_survive_a_restart),
    TEST(disk_scene, test_blocks_of_odd_sizes_survive_a_restart),
    TEST(disk_scene, test_blocks_survive_a_kill),
    TEST(disk_scene, test_blocks_overwritten_many_times_survive_a_restart),
    TEST(disk_scene_opened, test_cleared_blocks_stay_away),
    TEST(disk_scene_opened, test_the_way_of_input_and_output_is_said),
};

static const struct CMUnitTest limits[] = {
    TEST(disk_scene, test_full_file_system_is_refused_and_nothing_is_left),
    TEST(disk_scene, test_full_file_system_is_refused_for_all_paths_together),
    TEST(disk_scene_opened, test_file_that_cannot_grow_is_left_as_it_was),
    TEST(remounted_scene, test_read_only_mount_is_refused),
};

static const struct {
    const char *name;
    bool (*mount)(void);
    bool limited; /* small */
} systems[] = {
    {"tmpfs", mount_large_tmpfs, false},
    {"overlay", mount_overlay, false},
    {"xfs", mount_xfs, false},
    {"ext4", mount_ext4, false},
    {"ext4-journal", mount_ext4_journal, false},
    {"full", mount_small_tmpfs, true},
};
#define SYSTEMS (sizeof systems / sizeof *systems)

static int run_in(const char *where, bool limited)
{
    const struct CMUnitTest *tests = limited ? limits : trips;
    size_t count = limited ? sizeof limits / sizeof *limits : sizeof trips / sizeof *trips;
    if (setenv("TMPDIR", where, 1) != 0)
        return 1;
    return limited ? run_disk_tests(NULL, 0, tests, count) : run_disk_tests(tests, count, NULL, 0);
}

static int run_mounted(size_t system)
{
    static char *const command[] = {"/bin/sh", "-c", "rm -rf \"$0\" \"$0\".*", directory, NULL};
    (void)snprintf(directory, sizeof directory, "disk_fs.XXXXXX");
    if (mkdtemp(directory) == NULL) {
        perror(directory);
        return 1;
    }
    (void)leftovers_at_end(command); /* outside of the namespace that the mounts are in */
    int status = 77;
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        (void)fprintf(stderr, "skipped: no mount namespace for this process: %s\n",
                      strerror(errno));
    else if (!systems[system].mount())
        (void)fprintf(stderr, "skipped: %s cannot be mounted here\n", systems[system].name);
    else
        status = run_in(directory, systems[system].limited);
    unmount();
    return status;
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return run_in(".", false);
    for (size_t i = 0; i < SYSTEMS; i++)
        if (strcmp(argv[1], systems[i].name) == 0)
            return run_mounted(i);
    (void)fprintf(stderr, "unknown file system: %s\n", argv[1]);
    return 1;
}
