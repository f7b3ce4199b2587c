/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which paths of the disk are in service: what its answers say about them, losing one, putting one back.
 *
 *    SERVING ──KVB_DISK_ERRORS_MAX errors in a row──► FORGETTING ──all slots──► OUT
 *       ▲                                                ▲                       │ put back, once nothing moves there
 *       └─────────────all slots───────── RETURNING ──────┘ ◄─────────────────────┘
 *
 * Callers    offload/round, offload/onboard_item, api/disk, through pipeline.h. Lock: the store's.
 */
#include "offload/pipeline.h"

static struct kvbi_path *path_of(struct kvbi_pipeline *pipeline, const struct kvbi_pool *pool,
                                 uint32_t slot)
{
    return &pipeline->paths[kvbi_pool_path(pool, slot)];
}

void kvbi_pipeline_disk_begun_locked(struct kvbi_pipeline *pipeline, const struct kvbi_pool *pool,
                                     uint32_t slot)
{
    if (!pool->in_memory)
        path_of(pipeline, pool, slot)->moving++;
}

static struct kvb_block *slot_of(const struct kvbi_pipeline *pipeline, uint32_t slot)
{
    return &pipeline->store->pools[KVB_TIER_DISK].slots[slot];
}

static bool in_service(const struct kvbi_path *path)
{
    return path->stage == KVBI_PATH_STAGE_SERVING || path->stage == KVBI_PATH_STAGE_RETURNING;
}

static void lose(struct kvbi_pipeline *pipeline, struct kvbi_pool *pool, struct kvbi_path *path)
{
    uint32_t number = (uint32_t)(path - pipeline->paths);
    path->stage = KVBI_PATH_STAGE_FORGETTING;
    path->cursor = number;
    pipeline->lost_unsaid |= 1u << number;
    kvbi_store_lose_path_locked(pipeline->store, pool, number);
    while (path->suspect_count > 0)
        kvbi_pool_pardon(pool, slot_of(pipeline, path->suspects[--path->suspect_count]));
}

/* The disk is told with no lock held; until then the path counts as in use. */
static void retire_in_file(struct kvbi_pipeline *pipeline, struct kvbi_path *path, uint32_t slot)
{
    KVBI_ASSERT(pipeline->condemned_count < KVBI_CONDEMNED_MAX);
    path->moving++;
    pipeline->condemned[pipeline->condemned_count++] = slot;
}

/* True, once for each slot: it is now. */
static bool condemn(struct kvbi_pipeline *pipeline, uint32_t slot)
{
    struct kvb_block *block = slot_of(pipeline, slot);
    bool already = block->flags & KVBI_SLOT_CONDEMNED;
    block->flags |= KVBI_SLOT_CONDEMNED;
    return !already;
}

static void note_success(struct kvbi_pipeline *pipeline, struct kvbi_path *path)
{
    path->errors = 0;
    while (path->suspect_count > 0)
        retire_in_file(pipeline, path, path->suspects[--path->suspect_count]);
}

static void note_error(struct kvbi_pipeline *pipeline, struct kvbi_pool *pool,
                       struct kvbi_path *path, uint32_t slot, bool condemned)
{
    if (!in_service(path))
        return; /* its slots are lost anyway */
    if (condemned && condemn(pipeline, slot))
        path->suspects[path->suspect_count++] = slot;
    if (++path->errors == KVB_DISK_ERRORS_MAX)
        lose(pipeline, pool, path);
}

void kvbi_pipeline_disk_answered_locked(struct kvbi_pipeline *pipeline, struct kvbi_pool *pool,
                                        uint32_t slot, int result, bool condemned)
{
    if (pool->in_memory)
        return;
    struct kvbi_path *path = path_of(pipeline, pool, slot);
    path->moving--;
    if (result == 0)
        note_success(pipeline, path);
    else if (result != KVB_ECORRUPT && result != KVB_ECANCELED && result != KVB_EDEVICE)
        note_error(pipeline, pool, path, slot, condemned);
    else if (condemned && condemn(pipeline, slot))
        retire_in_file(pipeline, path, slot);
}

void kvbi_pipeline_disk_told_locked(struct kvbi_pipeline *pipeline)
{
    const struct kvbi_pool *pool = &pipeline->store->pools[KVB_TIER_DISK];
    while (pipeline->condemned_count > 0)
        path_of(pipeline, pool, pipeline->condemned[--pipeline->condemned_count])->moving--;
}

bool kvbi_pipeline_forget_lost_locked(struct kvbi_pipeline *pipeline)
{
    struct kvbi_pool *pool = &pipeline->store->pools[KVB_TIER_DISK];
    for (uint32_t number = 0; number < pool->path_count; number++) {
        struct kvbi_path *path = &pipeline->paths[number];
        if (path->stage != KVBI_PATH_STAGE_FORGETTING)
            continue;
        if (!kvbi_store_forget_path_locked(pipeline->store, pool, number, &path->cursor))
            path->stage = KVBI_PATH_STAGE_OUT;
        return true;
    }
    return false;
}

enum kvbi_path_state kvbi_pipeline_path_state_locked(const struct kvbi_pipeline *pipeline,
                                                     uint32_t number)
{
    const struct kvbi_path *path = &pipeline->paths[number];
    if (in_service(path))
        return KVBI_PATH_IN_SERVICE;
    return path->stage == KVBI_PATH_STAGE_OUT && path->moving == 0 ? KVBI_PATH_OUT : KVBI_PATH_BUSY;
}

bool kvbi_pipeline_put_back_locked(struct kvbi_pipeline *pipeline, uint32_t number)
{
    struct kvbi_pool *pool = &pipeline->store->pools[KVB_TIER_DISK];
    struct kvbi_path *path = &pipeline->paths[number];
    if (kvbi_pipeline_path_state_locked(pipeline, number) == KVBI_PATH_OUT) {
        *path = (struct kvbi_path){.stage = KVBI_PATH_STAGE_RETURNING, .cursor = number};
        kvbi_store_serve_path_locked(pipeline->store, pool,
                                     number); /* first: what it frees is not to be lost again */
    }
    if (path->stage != KVBI_PATH_STAGE_RETURNING)
        return false;
    if (kvbi_store_put_back_path_locked(pipeline->store, pool, number, &path->cursor))
        return true;
    path->stage = KVBI_PATH_STAGE_SERVING;
    return false;
}
