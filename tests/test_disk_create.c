/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which configurations of a disk tier are refused, in which words, and that nothing is left of
 * them.
 */
#include <fcntl.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "support/child.h"
#include "support/disk_restart.h"

/* ---- At the moment before a file is locked --------------------------------------------------- */

static void (*before_lock)(void);
static const char *contested;
static int thief = -1;

/* In place of the C library's. */
int flock(int fd, int operation)
{
    if (before_lock != NULL && (operation & LOCK_EX) != 0)
        before_lock();
    before_lock = NULL;
    return (int)syscall(SYS_flock, fd, operation);
}

static void somebody_else_locks_it(void)
{
    thief = open(contested, O_RDWR | O_CLOEXEC);
    assert_int_equal(syscall(SYS_flock, thief, LOCK_EX), 0);
}

static void somebody_else_deletes_it(void)
{
    assert_int_equal(unlink(contested), 0);
}

/* ---- Create ---------------------------------------------------------------------------------- */

/* Create fails with this code, says `named`, and leaves nothing allocated that was not before. */
static void expect_clean_refusal(struct disk_scene *scene, int code, const char *named)
{
    struct kvb_diagnosis diagnosis = {.size = sizeof diagnosis};
    struct kvb_manager *manager = (struct kvb_manager *)scene;
    const int64_t blocks = scene->rig.heap.live_blocks, bytes = scene->rig.heap.live_bytes;
    int got = kvb_manager_create(&scene->rig.config, &manager, &diagnosis);
    if (got == 0 && scene->rig.kv == NULL)
        scene->rig.kv = manager; /* for the teardown */
    kv_expect(got, code);
    assert_null(manager);
    assert_int_equal(diagnosis.code, code);
    if (strstr(diagnosis.message, named) == NULL)
        fail_msg("'%s' expected in: %s", named, diagnosis.message);
    assert_int_equal(scene->rig.heap.live_blocks, blocks);
    assert_int_equal(scene->rig.heap.live_bytes, bytes);
    assert_int_equal(scene->rig.heap.wrong_frees, 0);
}

static void test_path_of_another_tier_is_refused(void **state)
{
    struct disk_scene *scene = *state;
    scene->rig.tiers[1].path = scene->path;
    expect_clean_refusal(scene, KVB_EINVAL, "tiers[1] (HOST): path is given");
}

static void test_path_and_memory_are_refused(void **state)
{
    static _Alignas(64) unsigned char memory[DISK_BLOCKS * KV_LAYERS * KV_PARTS * KV_CHUNK];
    struct disk_scene *scene = *state;
    disk_config(scene)->memory = memory;
    disk_config(scene)->memory_bytes = sizeof memory;
    expect_clean_refusal(scene, KVB_EINVAL, "path and memory");
}

static void test_unknown_disk_engine_is_refused(void **state)
{
    struct disk_scene *scene = *state;
    disk_config(scene)->disk_engine = KVB_DISK_ENGINE_POSIX + 1;
    expect_clean_refusal(scene, KVB_EINVAL, "disk_engine is 3, must be 0..2");
}

static void test_unknown_disk_flags_are_refused(void **state)
{
    struct disk_scene *scene = *state;
    disk_config(scene)->disk_flags = 8;
    expect_clean_refusal(scene, KVB_EINVAL, "tiers[2] (DISK): disk_flags is 0x8, must be of 0x7");
}

static void test_path_beside_paths_is_refused(void **state)
{
    struct disk_scene *scene = *state;
    const char *paths[] = {scene->path};
    disk_config(scene)->paths = paths;
    disk_config(scene)->path_count = 1;
    expect_clean_refusal(scene, KVB_EINVAL,
                         "path and path_count (1) are given, must be one of them");
}

static void test_paths_and_their_count_come_together(void **state)
{
    struct disk_scene *scene = *state;
    const char *paths[] = {scene->path};
    disk_config(scene)->path = NULL;
    disk_config(scene)->path_count = 1;
    expect_clean_refusal(scene, KVB_EINVAL, "tiers[2] (DISK): paths is NULL, path_count is 1");
    disk_config(scene)->paths = paths;
    disk_config(scene)->path_count = 0;
    expect_clean_refusal(scene, KVB_EINVAL,
                         "tiers[2] (DISK): path_count is 0, must be 1..16 where paths is given");
    disk_config(scene)->path_count = KVB_DISK_PATHS_MAX + 1;
    expect_clean_refusal(scene, KVB_EINVAL, "tiers[2] (DISK): path_count is 17, must be 0..16");
}

static void test_missing_one_of_several_paths_is_refused_by_its_number(void **state)
{
    struct disk_scene *scene = *state;
    const char *paths[] = {scene->path, NULL};
    disk_config(scene)->path = NULL;
    disk_config(scene)->paths = paths;
    disk_config(scene)->path_count = 2;
    expect_clean_refusal(scene, KVB_EINVAL, "tiers[2] (DISK): paths[1] is NULL, path_count is 2");
}

static void test_more_paths_than_blocks_are_refused(void **state)
{
    struct disk_scene *scene = *state;
    scene_tiers(scene, HOST_BLOCKS, 1);
    const char *paths[] = {scene->path, scene->path};
    disk_config(scene)->path = NULL;
    disk_config(scene)->paths = paths;
    disk_config(scene)->path_count = 2;
    expect_clean_refusal(scene, KVB_EINVAL, "path_count is 2, must be at most block_count (1)");
}

/*
 * The files of one tier are made in turn: what came before the one that fails is closed, and
 * removed if it was made here.
 */
static void test_one_bad_path_of_several_leaves_nothing_of_the_others(void **state)
{
    struct disk_scene *scene = *state;
    const char *paths[] = {scene->path, "/nonexistent/kv"};
    disk_config(scene)->path = NULL;
    disk_config(scene)->paths = paths;
    disk_config(scene)->path_count = 2;
    expect_clean_refusal(scene, KVB_ENOENT, "/nonexistent/kv");
    assert_int_equal(access(scene->path, F_OK), -1);
}

static void test_disk_options_without_a_file_are_refused(void **state)
{
    struct disk_scene *scene = *state;
    struct kvb_tier_config *host = &scene->rig.tiers[1];
    host->write_bytes_per_day = 1;
    expect_clean_refusal(scene, KVB_EINVAL, "write_bytes_per_day is 1, must be 0 without path");
    host->write_bytes_per_day = 0;
    host->disk_flags = KVB_DISK_START_EMPTY;
    expect_clean_refusal(scene, KVB_EINVAL, "disk_flags is 0x1, must be 0 without path");
}

static void test_disk_alone_is_refused(void **state)
{
    struct disk_scene *scene = *state;
    kv_rig_no_tiers(&scene->rig);
    scene_add_disk(scene, DISK_BLOCKS);
    expect_clean_refusal(scene, KVB_EINVAL, "tiers[0] (DISK): must have a tier in memory above it");
}

static void test_tier_below_a_file_is_refused(void **state)
{
    struct disk_scene *scene = *state;
    kv_rig_add_tier(&scene->rig, KVB_TIER_REMOTE, 8, KVB_OFFLOAD_MANUAL);
    expect_clean_refusal(scene, KVB_EUNSUPPORTED, "tiers[3] (REMOTE): ");
}

static void test_path_in_no_directory_is_refused(void **state)
{
    struct disk_scene *scene = *state;
    scene_file(scene, "nowhere/disk");
    expect_clean_refusal(scene, KVB_ENOENT, scene->path);
}

static void test_path_of_a_directory_is_refused(void **state)
{
    struct disk_scene *scene = *state;
    scene_file(scene, ".");
    expect_clean_refusal(scene, KVB_EINVAL, "directory");
}

static void test_path_of_a_fifo_is_refused(void **state)
{
    struct disk_scene *scene = *state;
    assert_int_equal(mkfifo(scene->path, 0600), 0);
    expect_clean_refusal(scene, KVB_EINVAL, "FIFO");
}

static void test_path_of_a_symbolic_link_is_refused(void **state)
{
    struct disk_scene *scene = *state;
    assert_int_equal(symlink("elsewhere", scene->path), 0);
    expect_clean_refusal(scene, KVB_EINVAL, "symbolic link");
}

static void test_file_of_somebody_elses_content_is_refused(void **state)
{
    struct disk_scene *scene = *state;
    FILE *file = fopen(scene->path, "w");
    assert_non_null(file);
    assert_true(fputs("a letter\n", file) >= 0);
    assert_int_equal(fclose(file), 0);
    expect_clean_refusal(scene, KVB_EMISMATCH, scene->path);
}

static void test_file_open_in_another_manager_is_refused(void **state)
{
    expect_clean_refusal(*state, KVB_EBUSY, "another manager");
}

/* Two starts at once, neither of which finds a file: it belongs to the one that locks it. */
static void test_lost_race_for_a_new_file_leaves_it_to_the_winner(void **state)
{
    struct disk_scene *scene = *state;
    contested = scene->path;
    before_lock = somebody_else_locks_it;
    expect_clean_refusal(scene, KVB_EBUSY, "another manager");
    assert_int_equal(access(scene->path, F_OK), 0);
    assert_int_equal(close(thief), 0);
}

static void test_file_deleted_before_it_is_locked_is_said_to_be(void **state)
{
    struct disk_scene *scene = *state;
    kv_rig_close(&scene->rig);
    contested = scene->path;
    before_lock = somebody_else_deletes_it;
    expect_clean_refusal(scene, KVB_EBUSY, "was deleted at this moment");
}

static void test_missing_device_is_not_made_as_a_file(void **state)
{
    static const char *const paths[] = {"/dev/kvb_no_such_device",
                                        "/dev/../dev/kvb_no_such_device"};
    struct disk_scene *scene = *state;
    for (size_t i = 0; i < 2; i++) {
        (void)unlink(paths[i]); /* of a run that has failed */
        disk_config(scene)->path = paths[i];
        expect_clean_refusal(scene, KVB_ENOENT, "no such device");
        assert_int_equal(access(paths[i], F_OK), -1);
    }
}

static void test_file_in_shared_memory_is_made(void **state)
{
    struct disk_scene *scene = *state;
    folder_remove(scene->folder);
    if (!folder_make(scene->folder, "/dev/shm", "kvb_disk")) {
        print_message("/dev/shm cannot be written here: left out\n");
        return;
    }
    scene_file(scene, "blocks");
    scene_open(scene);
    kv_rig_close(&scene->rig);
    assert_int_equal(access(scene->path, F_OK), 0);
}

/* The reason is what is wanted: of the path its end. */
static void test_long_path_leaves_room_for_the_reason(void **state)
{
    struct disk_scene *scene = *state;
    char path[600] = "/";
    for (int i = 0; i < 2; i++) {
        memset(path + strlen(path), 'a' + i, 240);
        (void)strcat(path, "/");
    }
    (void)strcat(path, "the.end");
    disk_config(scene)->path = path;
    expect_clean_refusal(scene, KVB_ENOENT, "bbb/the.end: its directory does not exist");
}

/* Not as root, whom permissions do not stop. */
static int create_without_rights(void *argument)
{
    struct disk_scene *scene = argument;
    struct kvb_diagnosis diagnosis = {.size = sizeof diagnosis};
    if (geteuid() == 0 && setuid(65534) != 0)
        return 77;
    int code = kvb_manager_create(&scene->rig.config, &scene->rig.kv, &diagnosis);
    return code == KVB_EINVAL && strstr(diagnosis.message, scene->path) != NULL ? 0 : 1;
}

static void test_path_in_a_read_only_directory_is_refused(void **state)
{
    struct disk_scene *scene = *state;
    assert_int_equal(chmod(scene->folder, 0555), 0);
    int status = child_run(create_without_rights, scene);
    if (status != 77)
        assert_int_equal(status, 0);
}

static void test_file_is_private_and_has_its_size_at_once(void **state)
{
    struct disk_scene *scene = *state;
    struct stat status;
    assert_int_equal(stat(scene->path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    /* 64 slots of a page, 64 entries of 256 bytes, 64 stamps */
    assert_int_equal(status.st_size,
                     KVBI_DISK_DATA_OFFSET + (DISK_BLOCKS + 4 + 1) * KVBI_DISK_ALIGN);
}

static void test_file_can_be_opened_again_after_destroy(void **state)
{
    struct disk_scene *scene = *state;
    kv_rig_close(&scene->rig);
    scene_open(scene);
}

/* False once there is no n-th allocation. A file that was not there is not there afterwards. */
static bool create_fails(struct disk_scene *scene, uint64_t nth, bool onwards)
{
    (void)unlink(scene->path);
    struct kvb_diagnosis diagnosis = {.size = sizeof diagnosis};
    struct kv_heap *heap = &scene->rig.heap;
    *heap = (struct kv_heap){.fail_at = nth, .fail_onwards = onwards};
    int code = kvb_manager_create(&scene->rig.config, &scene->rig.kv, &diagnosis);
    if (code == 0) { /* without what it can do without, or with all of it */
        kv_rig_close(&scene->rig);
    } else {
        kv_expect(code, KVB_ENOMEM);
        assert_null(scene->rig.kv);
        assert_true(diagnosis.message[0] != '\0');
        assert_int_equal(access(scene->path, F_OK), -1);
    }
    assert_int_equal(heap->live_blocks, 0);
    assert_int_equal(heap->live_bytes, 0);
    assert_int_equal(heap->wrong_frees, 0);
    return heap->calls >= nth;
}

static void test_any_allocation_of_create_may_fail(void **state)
{
    struct disk_scene *scene = *state;
    for (int onwards = 0; onwards < 2; onwards++) {
        uint64_t n = 1;
        while (create_fails(scene, n, onwards == 1))
            n++;
        assert_true(n > 15);
    }
}

static void fill_and_close(struct disk_scene *scene, struct mv_run *run)
{
    scene->rig.config.model = "the former";
    scene_open(scene);
    store_on_disk(scene, run, 1, 10);
    stop(scene);
}

/*
 * Which would have emptied the file, or made it larger: it is closed cleanly still, and holds what
 * it held.
 */
static void test_create_that_fails_for_want_of_memory_leaves_the_file_as_it_was(void **state)
{
    struct disk_scene *scene = *state;
    struct kvbi_disk_superblock before, after;
    struct stat was, is;
    struct mv_run run;
    uint32_t failed = 0;
    fill_and_close(scene, &run);
    superblock_of(scene->path, &before);
    assert_int_equal(stat(scene->path, &was), 0);
    disk_config(scene)->disk_flags = KVB_DISK_EMPTY_ON_MISMATCH;
    for (uint64_t nth = 1;; nth++) {
        struct kvb_diagnosis diagnosis = {.size = sizeof diagnosis};
        scene->rig.config.model = nth % 2 == 0 ? "another" : "the former";
        disk_config(scene)->block_count = nth % 2 == 0 ? DISK_BLOCKS : 8 * DISK_BLOCKS;
        scene->rig.heap = (struct kv_heap){.fail_at = nth, .fail_onwards = true};
        if (kvb_manager_create(&scene->rig.config, &scene->rig.kv, &diagnosis) == 0)
            break;
        failed++;
        superblock_of(scene->path, &after);
        assert_memory_equal(&before, &after, sizeof before);
        assert_int_equal(stat(scene->path, &is), 0);
        assert_int_equal(was.st_size, is.st_size);
    }
    assert_true(failed > 15);
    scene->rig.heap.fail_at = 0;
}

/* Progress needs some when all else is there. */
static void test_create_that_fails_for_want_of_a_descriptor_leaves_the_file_as_it_was(void **state)
{
    struct disk_scene *scene = *state;
    struct kvbi_disk_superblock before, after;
    struct rlimit usual;
    struct mv_run run;
    int code = KVB_ENOMEM, failed = 0;
    fill_and_close(scene, &run);
    superblock_of(scene->path, &before);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &usual), 0);
    scene->rig.config.model = "another";
    disk_config(scene)->disk_flags = KVB_DISK_EMPTY_ON_MISMATCH;
    for (rlim_t limit = 3; code != 0; limit++, failed += code != 0) {
        const struct rlimit few = {.rlim_cur = limit, .rlim_max = usual.rlim_max};
        struct kvb_diagnosis diagnosis = {.size = sizeof diagnosis};
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
        code = kvb_manager_create(&scene->rig.config, &scene->rig.kv, &diagnosis);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &usual), 0);
        superblock_of(scene->path, &after);
        assert_int_equal(memcmp(&before, &after, sizeof before) == 0, code != 0);
    }
    assert_true(failed > 3); /* file, table, and of progress at least one */
}

/* ---------------------------------------------------------------------------------------------- */

int main(void)
{
    static const struct CMUnitTest each[] = {
        TEST(disk_scene, test_any_allocation_of_create_may_fail),
        TEST(disk_scene, test_create_that_fails_for_want_of_memory_leaves_the_file_as_it_was),
    };
    static const struct CMUnitTest once[] = {
        TEST(disk_scene, test_path_of_another_tier_is_refused),
        TEST(disk_scene, test_path_and_memory_are_refused),
        TEST(disk_scene, test_unknown_disk_engine_is_refused),
        TEST(disk_scene, test_unknown_disk_flags_are_refused),
        TEST(disk_scene, test_path_beside_paths_is_refused),
        TEST(disk_scene, test_paths_and_their_count_come_together),
        TEST(disk_scene, test_missing_one_of_several_paths_is_refused_by_its_number),
        TEST(disk_scene, test_more_paths_than_blocks_are_refused),
        TEST(disk_scene, test_one_bad_path_of_several_leaves_nothing_of_the_others),
        TEST(disk_scene, test_disk_options_without_a_file_are_refused),
        TEST(disk_scene, test_disk_alone_is_refused),
        TEST(disk_scene, test_tier_below_a_file_is_refused),
        TEST(disk_scene, test_path_in_no_directory_is_refused),
        TEST(disk_scene, test_path_of_a_directory_is_refused),
        TEST(disk_scene, test_path_of_a_fifo_is_refused),
        TEST(disk_scene, test_path_of_a_symbolic_link_is_refused),
        TEST(disk_scene, test_file_of_somebody_elses_content_is_refused),
        TEST(disk_scene_opened, test_file_open_in_another_manager_is_refused),
        TEST(disk_scene, test_lost_race_for_a_new_file_leaves_it_to_the_winner),
        TEST(disk_scene_opened, test_file_deleted_before_it_is_locked_is_said_to_be),
        TEST(disk_scene, test_missing_device_is_not_made_as_a_file),
        TEST(disk_scene, test_file_in_shared_memory_is_made),
        TEST(disk_scene, test_long_path_leaves_room_for_the_reason),
        TEST(disk_scene, test_create_that_fails_for_want_of_a_descriptor_leaves_the_file_as_it_was),
        TEST(disk_scene, test_path_in_a_read_only_directory_is_refused),
        TEST(disk_scene_opened, test_file_is_private_and_has_its_size_at_once),
        TEST(disk_scene_opened, test_file_can_be_opened_again_after_destroy),
    };
    return run_disk_tests(each, sizeof each / sizeof *each, once, sizeof once / sizeof *once);
}
