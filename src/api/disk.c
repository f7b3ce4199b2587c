/* SPDX-License-Identifier: Apache-2.0 */
/* The paths of the disk tier: their counters, and putting one back. Callers: the public. Lock: the store's; put back also clear_lock. */
#include "api/manager.h"

#include "transfer/disk/tier.h"

/* 0, or what is wrong with the question. */
static int enter_path(struct kvb_manager *manager, enum kvbi_call call, uint32_t path)
{
    int error = kvbi_enter(manager);
    if (error != 0)
        return error;
    const struct kvbi_disk *disk = kvbi_tiers_disk(manager->tiers);
    if (disk == NULL)
        return kvbi_refuse(manager, call, KVB_ENOENT,
                           "path is %u, and no tier of this manager is kept in files", path);
    if (path >= disk->path_count)
        return kvbi_refuse(manager, call, KVB_ENOENT, "path is %u, must be 0..%u", path,
                           disk->path_count - 1);
    return 0;
}

static void slot_stats(struct kvb_manager *manager, uint32_t path, struct kvb_disk_stats *stats)
{
    kvbi_lock(manager);
    const struct kvbi_pool *pool = &manager->store.pools[KVB_TIER_DISK];
    stats->slot_count = kvbi_pool_path_slots(pool, path);
    stats->retired_count = pool->paths[path].retired;
    stats->hits = pool->paths[path].hits;
    stats->out_of_service =
        kvbi_pipeline_path_state_locked(&manager->pipeline, path) != KVBI_PATH_IN_SERVICE;
    kvbi_unlock(manager);
}

static uint64_t counted(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static void file_stats(const struct kvbi_disk_path *path, uint64_t clears,
                       struct kvb_disk_stats *stats)
{
    stats->epoch = counted(&path->epoch_base) + clears;
    stats->read_errors_io = counted(&path->read_errors[KVBI_DISK_CAUSE_IO]);
    stats->read_errors_short = counted(&path->read_errors[KVBI_DISK_CAUSE_SHORT]);
    stats->read_errors_identity = counted(&path->read_errors[KVBI_DISK_CAUSE_IDENTITY]);
    stats->read_errors_checksum = counted(&path->read_errors[KVBI_DISK_CAUSE_CHECKSUM]);
    stats->write_errors = counted(&path->write_errors);
    stats->bytes_written = counted(&path->bytes_written);
    stats->bytes_read = counted(&path->bytes_read);
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
    const struct kvbi_disk *disk = kvbi_tiers_disk(manager->tiers);
    const struct kvbi_recovery *recovery = &manager->recovery;
    stats->path_count = disk->path_count;
    stats->recovered = recovery->paths[path].recovered;
    stats->dropped = recovery->paths[path].dropped;
    stats->superseded = recovery->paths[path].superseded;
    stats->recovery_ns = recovery->elapsed_ns;
    slot_stats(manager, path, stats);
    file_stats(&disk->paths[path], counted(&disk->clears), stats);
    return 0;
}

/* What was there before is forgotten by now, and nothing moves there. */
static int renew(struct kvb_manager *manager, uint32_t path)
{
    kvbi_lock(manager);
    enum kvbi_path_state state = kvbi_pipeline_path_state_locked(&manager->pipeline, path);
    kvbi_unlock(manager);
    if (state != KVBI_PATH_OUT)
        return state == KVBI_PATH_IN_SERVICE ? KVB_ESTATE : KVB_EBUSY;
    int error = kvbi_disk_renew(kvbi_tiers_disk(manager->tiers), path);
    for (bool more = error == 0; more;) {
        kvbi_lock(manager);
        more = kvbi_pipeline_put_back_locked(&manager->pipeline, path);
        kvbi_unlock(manager);
    }
    return error;
}

static int refuse_put_back(struct kvb_manager *manager, uint32_t path, int error)
{
    const char *why =
        error == KVB_ESTATE ? "it is in service"
        : error == KVB_EBUSY
            ? "transfers of before are under way there, or its contents are being forgotten"
            : "the trial write failed: it stays out of service";
    return kvbi_refuse(manager, KVBI_CALL_DISK_PUT_BACK, error, "path %u (%s): %s", path,
                       kvbi_tiers_disk(manager->tiers)->paths[path].name, why);
}

int kvb_disk_put_back(struct kvb_manager *manager, uint32_t path)
{
    int error = enter_path(manager, KVBI_CALL_DISK_PUT_BACK, path);
    if (error == 0 && kvbi_progress_in_callback(&manager->progress))
        error = kvbi_refuse(manager, KVBI_CALL_DISK_PUT_BACK, KVB_EDEADLK, KVBI_IN_CALLBACK);
    if (error != 0)
        return error;
    kvbi_lock_take(&manager->store.clear_lock);
    error = renew(manager, path);
    kvbi_lock_release(&manager->store.clear_lock);
    if (error != 0)
        return refuse_put_back(manager, path, error);
    kvbi_log(&manager->log, KVB_LOG_INFO, 0, "tier DISK: %s is in service again, empty",
             kvbi_tiers_disk(manager->tiers)->paths[path].name);
    return 0;
}
