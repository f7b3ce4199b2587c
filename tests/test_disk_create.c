/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which configurations of a disk tier are refused, in which words, and that nothing is left of them.
 */
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "support/disk_restart.h"

/* ---- At the moment before a file is locked ------------------------------------------------------------------------ */

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

/* ---- Create ------------------------------------------------------------------------------------------------------- */

/* Create fails with this code, says `named`, and leaves nothing allocated. */
static void expect_clean_refusal(struct scene *scene, int code, const char *named)
{
    struct kvb_diagnosis diagnosis = {.size = sizeof diagnosis};
    struct kvb_manager *manager = (struct kvb_manager *)scene;
    kv_expect(kvb_manager_create(&scene->rig.config, &manager, &diagnosis), code);
    assert_null(manager);
    assert_int_equal(diagnosis.code, code);
    if (strstr(diagnosis.message, named) == NULL)
        fail_msg("'%s' expected in: %s", named, diagnosis.message);
    assert_int_equal(scene->rig.heap.live_blocks, 0);
    assert_int_equal(scene->rig.heap.live_bytes, 0);
    assert_int_equal(scene->rig.heap.wrong_frees, 0);
}

static struct kvb_tier_config *disk_of(struct scene *scene)
{
    return &scene->rig.tiers[scene->rig.config.tier_count - 1];
}

static void test_path_of_another_tier_is_refused(void **state)
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
    scene->rig.tiers[1].path = scene->path;
    expect_clean_refusal(scene, KVB_EINVAL, "tiers[1] (HOST): path is given");
    scene_free(scene);
}

static void test_path_and_memory_are_refused(void **state)
{
    static _Alignas(64) unsigned char memory[DISK_BLOCKS * KV_LAYERS * KV_PARTS * KV_CHUNK];
    struct scene *scene = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
    disk_of(scene)->memory = memory;
    disk_of(scene)->memory_bytes = sizeof memory;
    expect_clean_refusal(scene, KVB_EINVAL, "path and memory");
    scene_free(scene);
}

static void test_unknown_disk_engine_is_refused(void **state)
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
    disk_of(scene)->disk_engine = KVB_DISK_ENGINE_POSIX + 1;
    expect_clean_refusal(scene, KVB_EINVAL, "disk_engine is 3, must be 0..2");
    scene_free(scene);
}

static void test_unknown_disk_flags_are_refused(void **state)
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
    disk_of(scene)->disk_flags = 8;
    expect_clean_refusal(scene, KVB_EINVAL, "tiers[2] (DISK): disk_flags is 0x8, must be of 0x7");
    scene_free(scene);
}

static void test_path_beside_paths_is_refused(void **state)
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
    const char *paths[] = {scene->path};
    disk_of(scene)->paths = paths;
    disk_of(scene)->path_count = 1;
    expect_clean_refusal(scene, KVB_EINVAL,
                         "path and path_count (1) are given, must be one of them");
    scene_free(scene);
}

static void test_paths_and_their_count_come_together(void **state)
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
    const char *paths[] = {scene->path};
    disk_of(scene)->path = NULL;
    disk_of(scene)->path_count = 1;
    expect_clean_refusal(scene, KVB_EINVAL, "tiers[2] (DISK): paths is NULL, path_count is 1");
    disk_of(scene)->paths = paths;
    disk_of(scene)->path_count = 0;
    expect_clean_refusal(scene, KVB_EINVAL,
                         "tiers[2] (DISK): path_count is 0, must be 1..16 where paths is given");
    disk_of(scene)->path_count = KVB_DISK_PATHS_MAX + 1;
    expect_clean_refusal(scene, KVB_EINVAL, "tiers[2] (DISK): path_count is 17, must be 0..16");
    scene_free(scene);
}

static void test_missing_one_of_several_paths_is_refused_by_its_number(void **state)
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
    const char *paths[] = {scene->path, NULL};
    disk_of(scene)->path = NULL;
    disk_of(scene)->paths = paths;
    disk_of(scene)->path_count = 2;
    expect_clean_refusal(scene, KVB_EINVAL, "tiers[2] (DISK): paths[1] is NULL, path_count is 2");
    scene_free(scene);
}

static void test_more_paths_than_blocks_are_refused(void **state)
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, 1);
    const char *paths[] = {scene->path, scene->path};
    disk_of(scene)->path = NULL;
    disk_of(scene)->paths = paths;
    disk_of(scene)->path_count = 2;
    expect_clean_refusal(scene, KVB_EINVAL, "path_count is 2, must be at most block_count (1)");
    scene_free(scene);
}

/* The files of one tier are made in turn: what came before the one that fails is closed, and removed if it was made here. */
static void test_one_bad_path_of_several_leaves_nothing_of_the_others(void **state)
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
    const char *paths[] = {scene->path, "/nonexistent/kv"};
    disk_of(scene)->path = NULL;
    disk_of(scene)->paths = paths;
    disk_of(scene)->path_count = 2;
    expect_clean_refusal(scene, KVB_ENOENT, "/nonexistent/kv");
    assert_int_equal(access(scene->path, F_OK), -1);
    scene_free(scene);
}

static void test_disk_options_without_a_file_are_refused(void **state)
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
    struct kvb_tier_config *host = &scene->rig.tiers[1];
    host->write_bytes_per_day = 1;
    expect_clean_refusal(scene, KVB_EINVAL, "write_bytes_per_day is 1, must be 0 without path");
    host->write_bytes_per_day = 0;
    host->disk_flags = KVB_DISK_START_EMPTY;
    expect_clean_refusal(scene, KVB_EINVAL, "disk_flags is 0x1, must be 0 without path");
    scene_free(scene);
}

static void test_disk_alone_is_refused(void **state)
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
    kv_rig_no_tiers(&scene->rig);
    add_disk(scene, DISK_BLOCKS);
    expect_clean_refusal(scene, KVB_EINVAL, "tiers[0] (DISK): must have a tier in memory above it");
    scene_free(scene);
}

static void test_tier_below_a_file_is_refused(void **state)
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
    kv_rig_add_tier(&scene->rig, KVB_TIER_REMOTE, 8, KVB_OFFLOAD_MANUAL);
    expect_clean_refusal(scene, KVB_EUNSUPPORTED, "tiers[3] (REMOTE): ");
    scene_free(scene);
}

static void test_path_in_no_directory_is_refused(void **state)
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
    path_of(scene->path, "nowhere/disk");
    expect_clean_refusal(scene, KVB_ENOENT, scene->path);
    scene_free(scene);
}

static void test_path_of_a_directory_is_refused(void **state)
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
    path_of(scene->path, ".");
    expect_clean_refusal(scene, KVB_EINVAL, "directory");
    scene_free(scene);
}

static void test_path_of_a_fifo_is_refused(void **state)
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
    assert_int_equal(mkfifo(scene->path, 0600), 0);
    expect_clean_refusal(scene, KVB_EINVAL, "FIFO");
    scene_free(scene);
}

static void test_path_of_a_symbolic_link_is_refused(void **state)
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
    assert_int_equal(symlink("elsewhere", scene->path), 0);
    expect_clean_refusal(scene, KVB_EINVAL, "symbolic link");
    scene_free(scene);
}

static void test_file_of_somebody_elses_content_is_refused(void **state)
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
    FILE *file = fopen(scene->path, "w");
    assert_non_null(file);
    assert_true(fputs("a letter\n", file) >= 0);
    assert_int_equal(fclose(file), 0);
    expect_clean_refusal(scene, KVB_EMISMATCH, scene->path);
    scene_free(scene);
}

static void test_file_open_in_another_manager_is_refused(void **state)
{
    struct scene *scene = scene_begin(state), *other = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
    memcpy(other->path, scene->path, sizeof other->path);
    expect_clean_refusal(other, KVB_EBUSY, "another manager");
    free(other);
    scene_end(scene);
}

/* Two starts at once, neither of which finds a file: it belongs to the one that locks it. */
static void test_lost_race_for_a_new_file_leaves_it_to_the_winner(void **state)
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
    contested = scene->path;
    before_lock = somebody_else_locks_it;
    expect_clean_refusal(scene, KVB_EBUSY, "another manager");
    assert_int_equal(access(scene->path, F_OK), 0);
    assert_int_equal(close(thief), 0);
    scene_free(scene);
}

static void test_file_deleted_before_it_is_locked_is_said_to_be(void **state)
{
    struct scene *scene = scene_begin(state);
    kv_rig_close(&scene->rig);
    contested = scene->path;
    before_lock = somebody_else_deletes_it;
    expect_clean_refusal(scene, KVB_EBUSY, "was deleted at this moment");
    scene_free(scene);
}

static void test_missing_device_is_not_made_as_a_file(void **state)
{
    static const char *const paths[] = {"/dev/kvb_no_such_device",
                                        "/dev/../dev/kvb_no_such_device"};
    struct scene *scene = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
    for (size_t i = 0; i < 2; i++) {
        (void)unlink(paths[i]); /* of a run that has failed */
        disk_of(scene)->path = paths[i];
        expect_clean_refusal(scene, KVB_ENOENT, "no such device");
        assert_int_equal(access(paths[i], F_OK), -1);
    }
    scene_free(scene);
}

static void test_file_in_shared_memory_is_made(void **state)
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
    char directory[] = "/dev/shm/kvb_test_XXXXXX";
    if (mkdtemp(directory) == NULL) {
        print_message("/dev/shm cannot be written here: left out\n");
    } else {
        (void)snprintf(scene->path, sizeof scene->path, "%s/blocks", directory);
        scene_open(scene);
        kv_rig_close(&scene->rig);
        assert_int_equal(unlink(scene->path), 0);
        assert_int_equal(rmdir(directory), 0);
    }
    scene_free(scene);
}

/* The reason is what is wanted: of the path its end. */
static void test_long_path_leaves_room_for_the_reason(void **state)
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
    char path[600] = "/";
    for (int i = 0; i < 2; i++) {
        memset(path + strlen(path), 'a' + i, 240);
        (void)strcat(path, "/");
    }
    (void)strcat(path, "the.end");
    disk_of(scene)->path = path;
    expect_clean_refusal(scene, KVB_ENOENT, "bbb/the.end: its directory does not exist");
    scene_free(scene);
}

/* In a child that is not root, whom permissions do not stop. */
static void test_path_in_a_read_only_directory_is_refused(void **state)
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
    struct kvb_diagnosis diagnosis = {.size = sizeof diagnosis};
    int status = -1;
    assert_int_equal(chmod(folder, 0555), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (geteuid() == 0 && setuid(65534) != 0)
            _exit(77);
        int code = kvb_manager_create(&scene->rig.config, &scene->rig.kv, &diagnosis);
        _exit(code == KVB_EINVAL && strstr(diagnosis.message, scene->path) != NULL ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(chmod(folder, 0700), 0);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) != 77)
        assert_int_equal(WEXITSTATUS(status), 0);
    scene_free(scene);
}

static void test_file_is_private_and_has_its_size_at_once(void **state)
{
    struct scene *scene = scene_begin(state);
    struct stat status;
    assert_int_equal(stat(scene->path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    /* 64 slots of a page, 64 entries of 256 bytes, 64 stamps */
    assert_int_equal(status.st_size,
                     KVBI_DISK_DATA_OFFSET + (DISK_BLOCKS + 4 + 1) * KVBI_DISK_ALIGN);
    scene_end(scene);
}

static void test_file_can_be_opened_again_after_destroy(void **state)
{
    struct scene *scene = scene_begin(state);
    kv_rig_close(&scene->rig);
    scene_open(scene);
    scene_end(scene);
}

/* False once there is no n-th allocation. A file that was not there is not there afterwards. */
static bool create_fails(struct scene *scene, uint64_t nth, bool onwards)
{
    (void)unlink(scene->path);
    struct kvb_diagnosis diagnosis = {.size = sizeof diagnosis};
    struct kv_heap *heap = &scene->rig.heap;
    *heap = (struct kv_heap){.fail_at = nth, .fail_onwards = onwards};
    int code = kvb_manager_create(&scene->rig.config, &scene->rig.kv, &diagnosis);
    if (code == 0) { /* without what it can do without, or with all of it */
        kv_ok(kvb_manager_destroy(scene->rig.kv));
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
    struct scene *scene = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
    for (int onwards = 0; onwards < 2; onwards++) {
        uint64_t n = 1;
        while (create_fails(scene, n, onwards == 1))
            n++;
        assert_true(n > 15);
    }
    scene_free(scene);
}

static void fill_and_close(struct scene *scene, struct mv_run *run)
{
    scene->rig.config.model = "the former";
    scene_open(scene);
    store_on_disk(scene, run, 1, 10);
    stop(scene);
}

/* Which would have emptied the file, or made it larger: it is closed cleanly still, and holds what it held. */
static void test_create_that_fails_for_want_of_memory_leaves_the_file_as_it_was(void **state)
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
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
    scene->rig.heap = (struct kv_heap){0};
    kv_ok(kvb_manager_destroy(scene->rig.kv));
    scene_free(scene);
}

/* Progress needs some when all else is there. */
static void test_create_that_fails_for_want_of_a_descriptor_leaves_the_file_as_it_was(void **state)
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
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
    kv_ok(kvb_manager_destroy(scene->rig.kv));
    scene_free(scene);
}

/* ------------------------------------------------------------------------------------------------------------------- */

int main(void)
{
    static const struct disk_test each[] = {
        DISK_TEST(test_any_allocation_of_create_may_fail),
        DISK_TEST(test_create_that_fails_for_want_of_memory_leaves_the_file_as_it_was),
    };
    static const struct disk_test once[] = {
        DISK_TEST(test_path_of_another_tier_is_refused),
        DISK_TEST(test_path_and_memory_are_refused),
        DISK_TEST(test_unknown_disk_engine_is_refused),
        DISK_TEST(test_unknown_disk_flags_are_refused),
        DISK_TEST(test_path_beside_paths_is_refused),
        DISK_TEST(test_paths_and_their_count_come_together),
        DISK_TEST(test_missing_one_of_several_paths_is_refused_by_its_number),
        DISK_TEST(test_more_paths_than_blocks_are_refused),
        DISK_TEST(test_one_bad_path_of_several_leaves_nothing_of_the_others),
        DISK_TEST(test_disk_options_without_a_file_are_refused),
        DISK_TEST(test_disk_alone_is_refused),
        DISK_TEST(test_tier_below_a_file_is_refused),
        DISK_TEST(test_path_in_no_directory_is_refused),
        DISK_TEST(test_path_of_a_directory_is_refused),
        DISK_TEST(test_path_of_a_fifo_is_refused),
        DISK_TEST(test_path_of_a_symbolic_link_is_refused),
        DISK_TEST(test_file_of_somebody_elses_content_is_refused),
        DISK_TEST(test_file_open_in_another_manager_is_refused),
        DISK_TEST(test_lost_race_for_a_new_file_leaves_it_to_the_winner),
        DISK_TEST(test_file_deleted_before_it_is_locked_is_said_to_be),
        DISK_TEST(test_missing_device_is_not_made_as_a_file),
        DISK_TEST(test_file_in_shared_memory_is_made),
        DISK_TEST(test_long_path_leaves_room_for_the_reason),
        DISK_TEST(test_create_that_fails_for_want_of_a_descriptor_leaves_the_file_as_it_was),
        DISK_TEST(test_path_in_a_read_only_directory_is_refused),
        DISK_TEST(test_file_is_private_and_has_its_size_at_once),
        DISK_TEST(test_file_can_be_opened_again_after_destroy),
    };
    return run_disk_tests(each, sizeof each / sizeof *each, once, sizeof once / sizeof *once);
}
