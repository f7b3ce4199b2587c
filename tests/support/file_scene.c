/* SPDX-License-Identifier: Apache-2.0 */
/* See file_scene.h. */
#include "support/file_scene.h"

void file_scene_reset(struct file_scene *scene)
{
    struct kv_rig *rig = &scene->rig;
    kv_rig_init(rig);
    kv_rig_add_host(rig);
    kv_rig_add_tier(rig, KVB_TIER_DISK, KV_BLOCKS, KVB_OFFLOAD_MANUAL)->path = scene->place.file;
}

void *file_scene_begin(void **state, size_t bytes)
{
    struct file_scene *scene = kv_scene_begin(state, bytes);
    disk_path_make(&scene->place);
    file_scene_reset(scene);
    return scene;
}

int file_scene_setup(void **state)
{
    (void)file_scene_begin(state, sizeof(struct file_scene));
    return 0;
}

int file_scene_teardown(void **state)
{
    struct file_scene *scene = *state;
    struct disk_path place = scene->place;
    int code = kv_scene_end(state);
    disk_path_remove(&place);
    return code;
}
