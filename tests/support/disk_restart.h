/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Restarts, on top of disk_scene.h: a manager is closed and another one opened on the same file, as by a server that was stopped;
 * or on the file as it was while the first one was still open, as after a kill.
 *
 *     store_on_disk(scene, &run, 1, 10);
 *     restart(scene);                        // or restart_killed(scene)
 *     assert_int_equal(fetch(scene, &run), 10);
 *
 * Events and messages of before are forgotten. Between the two, the test may change scene->rig.config, layout and tiers.
 */
#ifndef KVB_TEST_DISK_RESTART_H
#define KVB_TEST_DISK_RESTART_H

#include <sys/stat.h>
#include <sys/wait.h>

#include "support/disk_scene.h"
#include "transfer/disk/format.h"

static inline struct kvb_tier_config *disk_config(struct scene *scene)
{
    return &scene->rig.tiers[scene->rig.config.tier_count - 1];
}

static inline struct kvb_disk_stats path_stats(struct scene *scene, uint32_t path)
{
    struct kvb_disk_stats stats = {.size = sizeof stats};
    kv_ok(kvb_disk_stats(scene->rig.kv, path, &stats));
    return stats;
}

static inline void forget_past(struct scene *scene)
{
    memset(scene->rig.events.list, 0, sizeof scene->rig.events.list);
    scene->rig.events.count = 0;
    scene->rig.log.count = 0;
}

/* Every byte of a file, under another name. */
static inline void copy_file(const char *from, const char *to)
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

static inline void stop(struct scene *scene)
{
    settle(scene);
    kv_rig_close(&scene->rig);
    forget_past(scene);
}

/* The file is left as it is at this moment: not what closing makes of it. */
static inline void stop_killed(struct scene *scene)
{
    char copy[sizeof scene->path + 8];
    (void)snprintf(copy, sizeof copy, "%s.copy", scene->path);
    settle(scene);
    copy_file(scene->path, copy);
    kv_rig_close(&scene->rig);
    assert_int_equal(rename(copy, scene->path), 0);
    forget_past(scene);
}

static inline void restart(struct scene *scene)
{
    stop(scene);
    scene_open(scene);
}

static inline void restart_killed(struct scene *scene)
{
    stop_killed(scene);
    scene_open(scene);
}

/* Create says no, with words about the scene's path that contain these. */
#define expect_refused(scene, code, words)                                                         \
    expect_refused_at((scene), (code), (words), __FILE__, __LINE__)
static inline void expect_refused_at(struct scene *scene, int code, const char *words,
                                     const char *file, int line)
{
    struct kvb_diagnosis diagnosis = {.size = sizeof diagnosis};
    struct kvb_manager *manager = (struct kvb_manager *)scene;
    int got = kvb_manager_create(&scene->rig.config, &manager, &diagnosis);
    kv_expect_at(got, code, "kvb_manager_create", file, line);
    assert_null(manager);
    if (strstr(diagnosis.message, words) == NULL || strstr(diagnosis.message, folder) == NULL) {
        print_error("\"%s\" does not say \"%s\", or not of which file\n", diagnosis.message, words);
        _fail(file, line);
    }
}

static inline void superblock_of(const char *path, struct kvbi_disk_superblock *newest)
{
    struct kvbi_disk_superblock both[2];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    for (uint32_t i = 0; i < 2; i++)
        assert_int_equal(pread(fd, &both[i], sizeof *both, (off_t)(i * KVBI_DISK_SUPERBLOCK_BYTES)),
                         sizeof *both);
    assert_int_equal(close(fd), 0);
    *newest = both[both[1].serial > both[0].serial];
}

/* One bit of a file. The page cache is told, should the next read go past it. */
static inline void flip_bit(const char *path, uint64_t offset)
{
    unsigned char byte;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, (off_t)offset), 1);
    byte ^= 0x10;
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)offset), 1);
    assert_int_equal(fsync(fd), 0);
    assert_int_equal(close(fd), 0);
}

/* In the payload of a slot of a tier with one file, whose blocks are no larger than KVBI_DISK_ALIGN. */
static inline void flip_payload(const struct scene *scene, uint32_t slot)
{
    flip_bit(scene->path, KVBI_DISK_DATA_OFFSET + slot * KVBI_DISK_ALIGN + 7);
}

/* `count` contents of one block each that only the disk has, stored one after the other. */
static inline void store_each(struct scene *scene, struct mv_run *runs, uint64_t seed,
                              uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        store_on_disk(scene, &runs[i], seed * 1000 + i, 1);
}

static inline uint32_t count_found(struct scene *scene, const struct mv_run *runs, uint32_t count)
{
    uint32_t found = 0;
    for (uint32_t i = 0; i < count; i++)
        found += is_found(scene, &runs[i], 0);
    return found;
}

#endif
