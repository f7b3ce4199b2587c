/* SPDX-License-Identifier: Apache-2.0 */
#include "support/disk_restart.h"

#include <fcntl.h>
#include <unistd.h>

struct kvb_disk_stats path_stats(struct disk_scene *scene, uint32_t path)
{
    struct kvb_disk_stats stats = {.size = sizeof stats};
    kv_ok(kvb_disk_stats(scene->rig.kv, path, &stats));
    return stats;
}

static void forget_past(struct disk_scene *scene)
{
    memset(scene->rig.events.list, 0, sizeof scene->rig.events.list);
    scene->rig.events.count = 0;
    scene->rig.log.count = 0;
}

void copy_file(const char *from, const char *to)
{
    unsigned char bytes[65536];
    int source = open(from, O_RDONLY | O_CLOEXEC),
        target = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(source >= 0 && target >= 0);
    ssize_t got;
    while ((got = read(source, bytes, sizeof bytes)) > 0)
        assert_int_equal(write(target, bytes, (size_t)got), got);
    assert_int_equal(got, 0);
    assert_int_equal(close(source), 0);
    assert_int_equal(close(target), 0);
}

void stop(struct disk_scene *scene)
{
    flush_and_check(scene);
    kv_rig_close(&scene->rig);
    forget_past(scene);
}

void stop_killed(struct disk_scene *scene)
{
    char copy[sizeof scene->path + 8];
    (void)snprintf(copy, sizeof copy, "%s.copy", scene->path);
    flush_and_check(scene);
    copy_file(scene->path, copy);
    kv_rig_close(&scene->rig);
    assert_int_equal(rename(copy, scene->path), 0);
    forget_past(scene);
}

void restart(struct disk_scene *scene)
{
    stop(scene);
    scene_open(scene);
}

void restart_killed(struct disk_scene *scene)
{
    stop_killed(scene);
    scene_open(scene);
}

void expect_refused_at(struct disk_scene *scene, int code, const char *words, const char *file,
                       int line)
{
    struct kvb_diagnosis diagnosis = {.size = sizeof diagnosis};
    struct kvb_manager *manager = (struct kvb_manager *)scene;
    int got = kvb_manager_create(&scene->rig.config, &manager, &diagnosis);
    if (got == 0 && scene->rig.kv == NULL)
        scene->rig.kv = manager; /* for the teardown */
    kv_expect_at(got, code, "kvb_manager_create", file, line);
    assert_null(manager);
    if (strstr(diagnosis.message, words) == NULL ||
        strstr(diagnosis.message, scene->folder) == NULL) {
        print_error("\"%s\" does not say \"%s\", or not of which file\n", diagnosis.message, words);
        _fail(file, line);
    }
}

void peek_file(const char *path, uint64_t offset, void *bytes, size_t count)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, bytes, count, (off_t)offset), (ssize_t)count);
    assert_int_equal(close(fd), 0);
}

void poke_file(const char *path, uint64_t offset, const void *bytes, size_t count)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, count, (off_t)offset), (ssize_t)count);
    assert_int_equal(fsync(fd), 0);
    assert_int_equal(close(fd), 0);
}

void flip_bit(const char *path, uint64_t offset)
{
    unsigned char byte;
    peek_file(path, offset, &byte, 1);
    byte ^= 0x10;
    poke_file(path, offset, &byte, 1);
}

uint64_t payload_offset(uint32_t slot)
{
    return KVBI_DISK_DATA_OFFSET + (uint64_t)slot * KVBI_DISK_ALIGN;
}

void flip_payload(const struct disk_scene *scene, uint32_t slot)
{
    flip_bit(scene->path, payload_offset(slot) + 7);
}

void superblock_of(const char *path, struct kvbi_disk_superblock *newest)
{
    struct kvbi_disk_superblock both[2];
    for (uint32_t i = 0; i < 2; i++)
        peek_file(path, i * KVBI_DISK_SUPERBLOCK_BYTES, &both[i], sizeof *both);
    *newest = both[both[1].serial > both[0].serial];
}
