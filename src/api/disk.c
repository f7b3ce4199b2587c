/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files of the disk tier, which the header calls by their paths: their counters, and putting
 * one back. Callers: the public. Lock: the store's; put back also clear_lock.
 */
#include "api/manager.h"

/* 0, or what is wrong with the question. */
static int enter_path(struct kvb_manager *manager, enum kvbi_call call, uint32_t path)
{
    int error = kvbi_enter(manager);
    if (error != 0)
        return error;
    const struct kvbi_tier *files = kvbi_tiers_lasting(manager->tiers);
    if (files == NULL)
        return kvbi_refuse(manager, call, KVB_ENOENT,
                           "path is %u, and no tier of this manager is kept in files", path);
    uint32_t count = files->lasting->file_count(files);
    if (path >= count)
        return kvbi_refuse(manager, call, KVB_ENOENT, "path is %u, must be 0..%u", path, count - 1);
    return 0;
}

static struct kvbi_pool *pool_of(struct kvb_manager *manager)
{
    return kvbi_store_pool(&manager->store, kvbi_tiers_lasting(manager->tiers)->tier);
}

static void slot_stats(struct kvb_manager *manager, uint32_t path, struct kvb_disk_stats *stats)
{
    const struct kvbi_pool *pool = pool_of(manager);
    kvbi_lock(manager);
    stats->slot_count = kvbi_pool_file_slots(pool, path);
    stats->retired_count = pool->files[path].retired;
    stats->hits = pool->files[path].hits;
    stats->out_of_service = kvbi_health_state_locked(kvbi_pipeline_health(&manager->pipeline), pool,
                                                     path) != KVBI_FILE_IN_SERVICE;
    kvbi_unlock(manager);
}

int kvb_disk_stats(struct kvb_manager *manager, uint32_t path, struct kvb_disk_stats *stats)
{
    int error = kvbi_enter(manager);
    if (error == 0)
        error = kvbi_refuse_out(manager, KVBI_CALL_DISK_STATS, "stats", "kvb_disk_stats", stats,
                                sizeof *stats);
    if (error != 0)
        return error;
    *stats = (struct kvb_disk_stats){.size = sizeof *stats};
    error = enter_path(manager, KVBI_CALL_DISK_STATS, path);
    if (error != 0)
        return error;
    const struct kvbi_tier *files = kvbi_tiers_lasting(manager->tiers);
    const struct kvbi_recovery *recovery = &manager->recovery;
    stats->recovered = recovery->files[path].recovered;
    stats->dropped = recovery->files[path].dropped;
    stats->superseded = recovery->files[path].superseded;
    stats->recovery_ns = recovery->elapsed_ns;
    slot_stats(manager, path, stats);
    files->lasting->file_statistics(files, path, stats);
    return 0;
}

/* What was there before is forgotten by now, and nothing moves there. */
static int renew(struct kvb_manager *manager, uint32_t path)
{
    struct kvbi_tier *files = kvbi_tiers_lasting(manager->tiers);
    struct kvbi_health *health = kvbi_pipeline_health(&manager->pipeline);
    kvbi_lock(manager);
    enum kvbi_file_state state = kvbi_health_state_locked(health, pool_of(manager), path);
    kvbi_unlock(manager);
    if (state != KVBI_FILE_OUT_OF_SERVICE)
        return state == KVBI_FILE_IN_SERVICE ? KVB_ESTATE : KVB_EBUSY;
    int error = files->lasting->renew(files, path);
    for (bool more = error == 0; more;) {
        kvbi_lock(manager);
        more = kvbi_health_put_back_locked(health, pool_of(manager), path);
        kvbi_unlock(manager);
    }
    return error;
}

static const char *file_path(struct kvb_manager *manager, uint32_t path)
{
    const struct kvbi_tier *files = kvbi_tiers_lasting(manager->tiers);
    return files->lasting->file_path(files, path);
}

static int refuse_put_back(struct kvb_manager *manager, uint32_t path, int error)
{
    const char *why =
        error == KVB_ESTATE ? "it is in service"
        : error == KVB_EBUSY
            ? "transfers of before are under way there, or its contents are being forgotten"
            : "the trial write failed: it stays out of service";
    return kvbi_refuse(manager, KVBI_CALL_DISK_PUT_BACK, error, "path %u (%s): %s", path,
                       file_path(manager, path), why);
}

int kvb_disk_put_back(struct kvb_manager *manager, uint32_t path)
{
    int error = enter_path(manager, KVBI_CALL_DISK_PUT_BACK, path);
    if (error == 0 && kvbi_progress_in_callback(&manager->progress))
        error = kvbi_refuse(manager, KVBI_CALL_DISK_PUT_BACK, KVB_EDEADLK, KVBI_IN_CALLBACK);
    if (error != 0)
        return error;
    kvbi_store_lock_clear(&manager->store);
    error = renew(manager, path);
    kvbi_store_unlock_clear(&manager->store);
    if (error != 0)
        return refuse_put_back(manager, path, error);
    kvbi_log(&manager->log, KVB_LOG_INFO, 0, "tier %s: %s is in service again, empty",
             kvbi_tier_name(kvbi_tiers_lasting(manager->tiers)->tier), file_path(manager, path));
    return 0;
}
