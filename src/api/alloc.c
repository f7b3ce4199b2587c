/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Room: blocks for the server to compute in, and the fence that their memory is free behind.
 *
 * Callers    the public. Lock: the store's, in turns of KVBI_LOCK_BATCH blocks.
 */
#include <string.h>

#include "api/manager.h"

#include "store/contents.h"

/* Why there is not enough: EAGAIN if what transfers hold would do. */
static int shortage_locked(const struct kvbi_pool *pool, uint32_t missing)
{
    uint32_t coming = pool->transfer_count + pool->parked_held_count - pool->revocable_count;
    return coming >= missing ? KVB_EAGAIN : KVB_ENOSPC;
}

/* 0, or why the pool cannot give `wanted` blocks, and how many are missing. */
static int look_for_room_locked(const struct kvbi_pool *pool, uint32_t wanted, uint32_t *missing)
{
    uint32_t available = kvbi_pool_available(pool);
    if (available >= wanted)
        return 0;
    *missing = wanted - available;
    return shortage_locked(pool, *missing);
}

/*
 * Before a fence is imported: one for a call that fails for want of room would be spent for
 * nothing. *released: what the pool counted before the fence.
 */
static int look_for_room(struct kvb_manager *manager, const struct kvbi_pool *pool, uint32_t wanted,
                         uint32_t *missing, uint64_t *released)
{
    kvbi_lock(manager);
    int error = look_for_room_locked(pool, wanted, missing);
    *released = pool->last_unrefs;
    kvbi_unlock(manager);
    return error;
}

/* Blocks [taken, count) in turns. Returns 0, or why it cannot go on; *taken says how far it got. */
static int alloc_some(struct kvb_manager *manager, struct kvbi_pool *pool, uint32_t count,
                      struct kvb_block **blocks, uint32_t *taken, uint32_t *missing)
{
    uint64_t now_ns = kvbi_clock_now(&manager->clock);
    kvbi_lock(manager);
    uint32_t wanted = count - *taken;
    int error = kvbi_store_is_closing(&manager->store)
                    ? KVB_ESTATE
                    : look_for_room_locked(pool, wanted, missing);
    uint32_t end = wanted > KVBI_LOCK_BATCH ? *taken + KVBI_LOCK_BATCH : count;
    if (error == 0)
        kvbi_store_warm_take_locked(&manager->store, pool, end - *taken);
    while (error == 0 && *taken < end) {
        struct kvb_block *block =
            kvbi_lanes_take_locked(kvbi_pipeline_lanes(&manager->pipeline), pool, true, now_ns);
        if (block == NULL && pool->cut_short)
            break; /* many that lanes hold stand before those that can go: on in the next section */
        if (block == NULL) { /* only if slots were retired under our hands */
            *missing = count - *taken;
            error = shortage_locked(pool, *missing);
            break;
        }
        blocks[(*taken)++] = block;
    }
    kvbi_unlock(manager);
    return error;
}

/* Has anybody let go of a block of the pool since? It may be one of those that were taken. */
static bool released_since(struct kvb_manager *manager, const struct kvbi_pool *pool,
                           uint64_t released)
{
    kvbi_lock(manager);
    bool more = pool->last_unrefs != released;
    kvbi_unlock(manager);
    return more;
}

/*
 * All are taken. If meanwhile other threads have let go of blocks, behind work that they had
 * enqueued on the fence's stream, the point on that stream is taken anew, after it.
 */
static int set_fences(struct kvb_manager *manager, const struct kvbi_pool *pool,
                      const struct kvb_fence *fence, uint64_t released, uint64_t ticket,
                      struct kvb_block *const *blocks, uint32_t count)
{
    int error = 0;
    if (fence != NULL && fence->kind == KVB_FENCE_CUDA_STREAM &&
        released_since(manager, pool, released))
        error = kvbi_import_fence(manager, KVBI_CALL_ALLOC, fence, &ticket);
    const struct kvbi_engines *engines = kvbi_pipeline_engines(&manager->pipeline);
    for (uint32_t i = 0; error == 0 && i < count; i++) {
        kvbi_engines_forget_captured(engines, &blocks[i]->ticket);
        kvbi_lanes_set_ticket(kvbi_pipeline_lanes(&manager->pipeline), blocks[i], ticket);
    }
    return error;
}

/* 0, or why nothing can be taken from this tier. */
static int check_tier(struct kvb_manager *manager, uint32_t tier)
{
    if (tier >= KVB_TIER_COUNT)
        return kvbi_refuse(manager, KVBI_CALL_ALLOC, KVB_EINVAL, "tier is %u, must be 0..%d", tier,
                           KVB_TIER_COUNT - 1);
    if (kvbi_store_pool(&manager->store, tier)->slots == NULL)
        return kvbi_refuse(manager, KVBI_CALL_ALLOC, KVB_ENOENT,
                           "tier is %u (%s), which is not configured", tier, kvbi_tier_name(tier));
    if (!kvbi_store_pool(&manager->store, tier)->in_memory)
        return kvbi_refuse(manager, KVBI_CALL_ALLOC, KVB_EUNSUPPORTED,
                           "tier is %u (%s), which is kept in a file: only lanes take blocks there",
                           tier, kvbi_tier_name(tier));
    const struct kvbi_tier *memory = &manager->tiers[tier];
    if (!memory->ops->lost(memory, NULL, 0))
        return 0;
    kvbi_progress_wake(&manager->progress); /* it takes the tier out of service */
    return kvbi_refuse(
        manager, KVBI_CALL_ALLOC, KVB_EDEVICE,
        "tier is %u (%s), whose memory has failed: nothing can be had there any more", tier,
        kvbi_tier_name(tier));
}

static void say_shortage(struct kvb_manager *manager, const struct kvbi_pool *pool, int error,
                         uint32_t count, uint32_t missing)
{
    const char *why = error == KVB_EAGAIN         ? "which transfers will give back"
                      : count > pool->block_count ? "and the tier has fewer in all"
                                                  : "and held by the caller";
    (void)kvbi_refuse(manager, KVBI_CALL_ALLOC, error,
                      "%u of %u blocks of tier %s (%u in all) are missing, %s", missing, count,
                      kvbi_tier_name(pool->tier), pool->block_count, why);
}

int kvb_alloc(struct kvb_manager *manager, uint32_t tier, uint32_t count,
              const struct kvb_fence *fence, struct kvb_block **blocks, uint32_t *missing)
{
    uint64_t ticket, released = 0;
    uint32_t taken = 0, lacking = 0;
    int error = kvbi_enter_array(manager, KVBI_CALL_ALLOC, "blocks", blocks, count);
    if (missing != NULL)
        *missing = 0;
    if (blocks != NULL && count > 0)
        memset(blocks, 0, count * sizeof *blocks);
    if (error == 0)
        error = check_tier(manager, tier);
    struct kvbi_pool *pool = error == 0 ? kvbi_store_pool(&manager->store, tier) : NULL;
    if (error == 0 && fence != NULL)
        error = look_for_room(manager, pool, count, &lacking, &released);
    if (error == 0)
        error = kvbi_import_fence(manager, KVBI_CALL_ALLOC, fence, &ticket);
    if (error == 0)
        error = kvbi_takes_fence(manager, KVBI_CALL_ALLOC, pool, fence, ticket);
    while (error == 0 && taken < count)
        error = alloc_some(manager, pool, count, blocks, &taken, &lacking);
    if (error == 0)
        error = set_fences(manager, pool, fence, released, ticket, blocks, count);
    if (error != 0 && taken > 0) {
        (void)kvb_block_unref(manager, blocks, taken, NULL);
        memset(blocks, 0, taken * sizeof *blocks);
    }
    if (missing != NULL)
        *missing = lacking;
    if (lacking > 0)
        say_shortage(manager, pool, error, count, lacking);
    else if (error == KVB_ESTATE)
        (void)kvbi_refuse(manager, KVBI_CALL_ALLOC, error, KVBI_CLOSING);
    return error;
}
