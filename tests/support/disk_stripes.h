/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk tier over three files or one, on top of disk_scene.h, of which one path fails: by writes
 * that do not succeed, or by what the pipeline is told.
 *
 *     struct disk_scene *scene = *state;          // TEST(three_paths, ...) or TEST(one_path, ...)
 *     lose_by_writes(scene, ENOSPC);
 *     assert_int_equal(state_of(scene, FAILING), KVBI_FILE_OUT_OF_SERVICE);
 */
#ifndef KVB_TEST_DISK_STRIPES_H
#define KVB_TEST_DISK_STRIPES_H

#include "api/manager.h"
#include "support/disk_scene.h"

enum { PATHS = DISK_FILES, FAILING = 1 }; /* of one path, the only one */

/* DEVICE, HOST and DISK in so many files, open; faults strike the failing one only. */
int three_paths_setup(void **state);
int three_paths_teardown(void **state);
int one_path_setup(void **state);
int one_path_teardown(void **state);

/* The same in a scene that is not open, with so many blocks. */
void stripes_open(struct disk_scene *scene, uint32_t disk_blocks, uint32_t path_count);

struct kvbi_pool *disk_pool(struct disk_scene *scene);

uint32_t path_of_slot(struct disk_scene *scene, uint32_t slot);

enum kvbi_file_state state_of(struct disk_scene *scene, uint32_t path);

uint32_t retired_on(struct disk_scene *scene, uint32_t path);

/* Writes to the failing path do not succeed, until it is out of service. */
void lose_by_writes(struct disk_scene *scene, int error);

/* The engine reports so many results in a row from a path, without any I/O. */
void report_locked(struct disk_scene *scene, uint32_t path, uint32_t count, int result);

void report(struct disk_scene *scene, uint32_t path, uint32_t count, int result);

void report_failures(struct disk_scene *scene, uint32_t path, uint32_t count);

/* Out of service as far as the store knows, and nothing is forgotten yet. */
void set_out(struct disk_scene *scene, uint32_t path, bool out);

bool put_back_step(struct disk_scene *scene, uint32_t path);

uint32_t put_back(struct disk_scene *scene, uint32_t path);

/* A run on the disk only, with the slot of each of its blocks. */
void store_with_slots(struct disk_scene *scene, struct mv_run *run, uint64_t seed, uint32_t count,
                      uint32_t *slots);

#endif
