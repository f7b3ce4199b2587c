/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of a manager: who still holds something, what is in the files, and then nothing.
 *
 * Callers    the public, once. Lock: the store's, for one look at all handles.
 */
#include "api/manager.h"

/*
 * Handles that neither pins nor operations account for: the caller's. Steps under way are the
 * caller's too. One look at every slot, however many there are: what is counted must not change.
 */
static uint64_t foreign_handles_locked(struct kvb_manager *manager)
{
    return kvbi_store_handles_locked(&manager->store) -
           kvbi_onboarding_handles_locked(kvbi_pipeline_onboarding(&manager->pipeline));
}

/*
 * Nobody holds anything, and nothing is handed out any more: decided in one section, and before the
 * count for those who take a handle without the lock (kvb_weak_upgrade).
 */
static int close_to_callers(struct kvb_manager *manager)
{
    struct kvbi_store *store = &manager->store;
    uint64_t handles = 0;
    kvbi_lock(manager);
    bool already = !kvbi_store_close(store);
    if (!already)
        handles = foreign_handles_locked(manager);
    if (handles > 0)
        kvbi_store_reopen(store);
    kvbi_unlock(manager);
    if (already)
        return kvbi_refuse(manager, KVBI_CALL_MANAGER_DESTROY, KVB_EDEADLK,
                           "another thread destroys this manager");
    if (handles > 0)
        return kvbi_refuse(manager, KVBI_CALL_MANAGER_DESTROY, KVB_EBUSY,
                           "%llu handles are still held, must be 0 (those of steps included)",
                           (unsigned long long)handles);
    return 0;
}

/* Nothing moves any more: the order of use goes into the files. */
static void close_files(struct kvb_manager *manager)
{
    struct kvbi_tier *files = kvbi_tiers_lasting(manager->tiers);
    if (files == NULL)
        return;
    const struct kvbi_pool *pool = kvbi_store_pool(&manager->store, files->tier);
    uint32_t *order = kvbi_memory_alloc_raw(&manager->memory, pool->block_count, sizeof *order, 0);
    kvbi_lock(manager);
    uint32_t count = order != NULL ? kvbi_pool_order(pool, order, pool->block_count) : 0;
    kvbi_unlock(manager);
    files->lasting->close(files, order, count);
    kvbi_memory_free(&manager->memory, order, pool->block_count, sizeof *order);
}

int kvb_manager_destroy(struct kvb_manager *manager)
{
    if (manager == NULL)
        return 0;
    int error = kvbi_enter(manager);
    if (error != 0)
        return error;
    if (kvbi_progress_in_callback(&manager->progress))
        return kvbi_refuse(manager, KVBI_CALL_MANAGER_DESTROY, KVB_EDEADLK, KVBI_IN_CALLBACK);
    error = close_to_callers(manager);
    if (error != 0)
        return error;
    kvbi_progress_close(&manager->progress);
    close_files(manager);
    kvbi_manager_free(manager);
    return 0;
}
