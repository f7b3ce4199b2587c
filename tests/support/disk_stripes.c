/* SPDX-License-Identifier: Apache-2.0 */
#include "support/disk_stripes.h"

#include "store/contents.h"

struct kvbi_pool *disk_pool(struct disk_scene *scene)
{
    return &scene->rig.kv->store.pools[KVB_TIER_DISK];
}

void stripes_open(struct disk_scene *scene, uint32_t disk_blocks, uint32_t path_count)
{
    scene_tiers(scene, HOST_BLOCKS, disk_blocks);
    scene_stripe(scene, path_count);
    scene->io.path_count = path_count;
    scene->io.path = FAILING % path_count;
    scene_open(scene);
}

static int set_up(void **state, uint32_t path_count)
{
    int error = disk_scene_setup(state);
    if (error == 0)
        stripes_open(*state, DISK_BLOCKS, path_count);
    return error;
}

int three_paths_setup(void **state)
{
    return set_up(state, DISK_FILES);
}

int three_paths_teardown(void **state)
{
    return disk_scene_teardown(state);
}

int one_path_setup(void **state)
{
    return set_up(state, 1);
}

int one_path_teardown(void **state)
{
    return disk_scene_teardown(state);
}

uint32_t path_of_slot(struct disk_scene *scene, uint32_t slot)
{
    return slot % disk_pool(scene)->file_count;
}

enum kvbi_file_state state_of(struct disk_scene *scene, uint32_t path)
{
    kvbi_lock(scene->rig.kv);
    enum kvbi_file_state state =
        kvbi_health_state_locked(&scene->rig.kv->pipeline.health, disk_pool(scene), path);
    kvbi_unlock(scene->rig.kv);
    return state;
}

uint32_t retired_on(struct disk_scene *scene, uint32_t path)
{
    kvbi_lock(scene->rig.kv);
    uint32_t retired = disk_pool(scene)->files[path].retired;
    kvbi_unlock(scene->rig.kv);
    return retired;
}

/* Writes to the failing path do not succeed, until it is out of service. */
void lose_by_writes(struct disk_scene *scene, int error)
{
    uint32_t path = FAILING % disk_pool(scene)->file_count;
    struct mv_run run;
    scene->io.write_errno = error;
    for (uint64_t seed = 1000; state_of(scene, path) == KVBI_FILE_IN_SERVICE; seed++) {
        assert_true(seed < 1010);
        mv_park(&scene->rig, &run, KVB_TIER_DEVICE, seed, 20);
        flush_and_check(scene);
    }
    scene->io.write_errno = 0;
}

/* The engine reports so many results in a row from a path, without any I/O. */
void report_locked(struct disk_scene *scene, uint32_t path, uint32_t count, int result)
{
    struct kvbi_health *health = &scene->rig.kv->pipeline.health;
    for (uint32_t i = 0; i < count; i++) {
        kvbi_health_begun_locked(health, disk_pool(scene), path);
        kvbi_health_answered_locked(health, disk_pool(scene), path, result, false);
    }
}

void report(struct disk_scene *scene, uint32_t path, uint32_t count, int result)
{
    kvbi_lock(scene->rig.kv);
    report_locked(scene, path, count, result);
    kvbi_unlock(scene->rig.kv);
}

void report_failures(struct disk_scene *scene, uint32_t path, uint32_t count)
{
    report(scene, path, count, KVB_EIO);
}

/* Out of service as far as the store knows, and nothing is forgotten yet. */
void set_out(struct disk_scene *scene, uint32_t path, bool out)
{
    kvbi_lock(scene->rig.kv);
    if (out)
        kvbi_store_lose_file_locked(&scene->rig.kv->store, disk_pool(scene), path);
    else
        kvbi_store_serve_file_locked(&scene->rig.kv->store, disk_pool(scene), path);
    kvbi_unlock(scene->rig.kv);
}

bool put_back_step(struct disk_scene *scene, uint32_t path)
{
    kvbi_lock(scene->rig.kv);
    bool more =
        kvbi_health_put_back_locked(&scene->rig.kv->pipeline.health, disk_pool(scene), path);
    kvbi_unlock(scene->rig.kv);
    return more;
}

uint32_t put_back(struct disk_scene *scene, uint32_t path)
{
    uint32_t calls = 1;
    while (put_back_step(scene, path))
        calls++;
    kv_check(&scene->rig);
    return calls;
}

/* A run on the disk only, with the slot of each of its blocks. */
void store_with_slots(struct disk_scene *scene, struct mv_run *run, uint64_t seed, uint32_t count,
                      uint32_t *slots)
{
    struct kvb_hit hits[MV_RUN_MAX];
    store_on_disk(scene, run, seed, count);
    assert_int_equal(hold(scene, run, hits), count);
    for (uint32_t i = 0; i < count; i++)
        slots[i] = hits[i].slot;
    mv_drop(&scene->rig, run);
}
