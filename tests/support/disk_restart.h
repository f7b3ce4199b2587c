/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Restarts, on top of disk_scene.h: a manager is closed and another one opened on the same file, as
 * by a server that was stopped; or on the file as it was while the first one was still open, as
 * after a kill.
 *
 *     store_on_disk(scene, &run, 1, 10);
 *     restart(scene);                        // or restart_killed(scene)
 *     assert_int_equal(fetch(scene, &run), 10);
 *
 * Events and messages of before are forgotten. Between the two, the test may change
 * scene->rig.config, layout and tiers.
 */
#ifndef KVB_TEST_DISK_RESTART_H
#define KVB_TEST_DISK_RESTART_H

#include "support/disk_scene.h"

struct kvb_disk_stats path_stats(struct disk_scene *scene, uint32_t path);

void stop(struct disk_scene *scene);

/* The file is left as it is at this moment: not what closing makes of it. */
void stop_killed(struct disk_scene *scene);

void restart(struct disk_scene *scene);
void restart_killed(struct disk_scene *scene);

/* Create says no, with words about the scene's path that contain these. */
#define expect_refused(scene, code, words)                                                         \
    expect_refused_at((scene), (code), (words), __FILE__, __LINE__)
void expect_refused_at(struct disk_scene *scene, int code, const char *words, const char *file,
                       int line);

/* ---- Bytes of a file ------------------------------------------------------------------------- */

/* Every byte of it, under another name. */
void copy_file(const char *from, const char *to);

/* The page cache is told, should the next read go past it. */
void peek_file(const char *path, uint64_t offset, void *bytes, size_t count);
void poke_file(const char *path, uint64_t offset, const void *bytes, size_t count);
/* One bit of the byte there. */
void flip_bit(const char *path, uint64_t offset);

/* In a tier of one file, whose blocks are no larger than KVBI_DISK_ALIGN. */
uint64_t payload_offset(uint32_t slot);
void flip_payload(const struct disk_scene *scene, uint32_t slot);

void superblock_of(const char *path, struct kvbi_disk_superblock *newest);

#endif
