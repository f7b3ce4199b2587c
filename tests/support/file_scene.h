/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A manager with a tier DISK in a file, for tests that are not about the disk: DEVICE, HOST and
 * DISK of KV_BLOCKS each, and nothing goes down by itself. Not open yet.
 */
#ifndef KVB_TEST_SUPPORT_FILE_SCENE_H
#define KVB_TEST_SUPPORT_FILE_SCENE_H

#include "support/disk_path.h"
#include "support/kv_scene.h"

struct file_scene {
    struct kv_rig rig;
    struct disk_path place;
};

int file_scene_setup(void **state);
int file_scene_teardown(void **state);

/* A larger scene that begins with this one. */
void *file_scene_begin(void **state, size_t bytes);

/* The rig as it was at first, which is not open. */
void file_scene_reset(struct file_scene *scene);

#endif
