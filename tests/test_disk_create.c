/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which configurations of a disk tier are refused, in which words, and that nothing is left of them.
 */
#include <sys/stat.h>
#include <sys/wait.h>

#include "support/disk_scene.h"

/* ---- Create ------------------------------------------------------------------------------------------------------- */

/* Create fails with this code, says `named`, and leaves nothing behind. */
static void expect_refused(struct scene *scene, int code, const char *named)
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
    expect_refused(scene, KVB_EINVAL, "tiers[HOST].path");
    scene_free(scene);
}

static void test_path_and_memory_are_refused(void **state)
{
    static _Alignas(64) unsigned char memory[DISK_BLOCKS * KV_LAYERS * KV_PARTS * KV_CHUNK];
    struct scene *scene = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
    disk_of(scene)->memory = memory;
    disk_of(scene)->memory_bytes = sizeof memory;
    expect_refused(scene, KVB_EINVAL, "path and memory");
    scene_free(scene);
}

static void test_unknown_disk_engine_is_refused(void **state)
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
    disk_of(scene)->disk_engine = KVB_DISK_ENGINE_POSIX + 1;
    expect_refused(scene, KVB_EINVAL, "disk_engine: 3");
    scene_free(scene);
}

static void test_disk_alone_is_refused(void **state)
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
    kv_rig_no_tiers(&scene->rig);
    add_disk(scene, DISK_BLOCKS);
    expect_refused(scene, KVB_EINVAL, "tiers[DISK].path");
    scene_free(scene);
}

static void test_tier_below_a_file_is_refused(void **state)
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
    kv_rig_add_tier(&scene->rig, KVB_TIER_REMOTE, 8, KVB_OFFLOAD_MANUAL);
    expect_refused(scene, KVB_EINVAL, "tiers[REMOTE]");
    scene_free(scene);
}

static void test_path_in_no_directory_is_refused(void **state)
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
    path_of(scene->path, "nowhere/disk");
    expect_refused(scene, KVB_ENOENT, scene->path);
    scene_free(scene);
}

static void test_path_of_a_directory_is_refused(void **state)
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
    path_of(scene->path, ".");
    expect_refused(scene, KVB_EINVAL, "directory");
    scene_free(scene);
}

static void test_path_of_a_fifo_is_refused(void **state)
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
    assert_int_equal(mkfifo(scene->path, 0600), 0);
    expect_refused(scene, KVB_EINVAL, "FIFO");
    scene_free(scene);
}

static void test_path_of_a_symbolic_link_is_refused(void **state)
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
    assert_int_equal(symlink("elsewhere", scene->path), 0);
    expect_refused(scene, KVB_EINVAL, "symbolic link");
    scene_free(scene);
}

static void test_file_of_somebody_elses_content_is_refused(void **state)
{
    struct scene *scene = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
    FILE *file = fopen(scene->path, "w");
    assert_non_null(file);
    assert_true(fputs("a letter\n", file) >= 0);
    assert_int_equal(fclose(file), 0);
    expect_refused(scene, KVB_EMISMATCH, scene->path);
    scene_free(scene);
}

static void test_file_open_in_another_manager_is_refused(void **state)
{
    struct scene *scene = scene_begin(state), *other = scene_new(*state, HOST_BLOCKS, DISK_BLOCKS);
    memcpy(other->path, scene->path, sizeof other->path);
    expect_refused(other, KVB_EBUSY, "another manager");
    free(other);
    scene_end(scene);
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
    assert_int_equal(status.st_size, KVBI_DISK_DATA_OFFSET + DISK_BLOCKS * KVBI_DISK_ALIGN);
    scene_end(scene);
}

static void test_file_can_be_opened_again_after_destroy(void **state)
{
    struct scene *scene = scene_begin(state);
    kv_rig_close(&scene->rig);
    scene_open(scene);
    scene_end(scene);
}

/* False once there is no n-th allocation. */
static bool create_fails(struct scene *scene, uint64_t nth, bool onwards)
{
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

/* ------------------------------------------------------------------------------------------------------------------- */

int main(void)
{
    static const struct disk_test each[] = {
        DISK_TEST(test_any_allocation_of_create_may_fail),
    };
    static const struct disk_test once[] = {
        DISK_TEST(test_path_of_another_tier_is_refused),
        DISK_TEST(test_path_and_memory_are_refused),
        DISK_TEST(test_unknown_disk_engine_is_refused),
        DISK_TEST(test_disk_alone_is_refused),
        DISK_TEST(test_tier_below_a_file_is_refused),
        DISK_TEST(test_path_in_no_directory_is_refused),
        DISK_TEST(test_path_of_a_directory_is_refused),
        DISK_TEST(test_path_of_a_fifo_is_refused),
        DISK_TEST(test_path_of_a_symbolic_link_is_refused),
        DISK_TEST(test_file_of_somebody_elses_content_is_refused),
        DISK_TEST(test_file_open_in_another_manager_is_refused),
        DISK_TEST(test_path_in_a_read_only_directory_is_refused),
        DISK_TEST(test_file_is_private_and_has_its_size_at_once),
        DISK_TEST(test_file_can_be_opened_again_after_destroy),
    };
    return run_disk_tests(each, sizeof each / sizeof *each, once, sizeof once / sizeof *once);
}
