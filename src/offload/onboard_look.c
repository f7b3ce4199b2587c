/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Onboarding from outside: what statistics, destroy and tests see of it.
 *
 * Callers    offload/pipeline and api/, through onboard.h. Lock: the store's.
 */
#include "offload/onboard.h"

uint64_t kvbi_onboarding_handles_locked(const struct kvbi_onboarding *onboarding)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    uint64_t handles = 0;
    for (uint32_t i = 0; i < onboarding->item_count; i++) {
        const struct kvbi_item *item = &onboarding->items[i];
        if (item->op == KVBI_NONE || onboarding->ops[item->op].taken)
            continue; /* of the latter, the handles are the caller's from the first one on */
        handles += item->stage == KVBI_ITEM_GOOD && item->result != item->target ? 2 : 1;
    }
    return handles;
}

void kvbi_onboarding_stats_locked(const struct kvbi_onboarding *onboarding, uint64_t now_ns,
                                  struct kvb_stats *stats)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++) {
        const struct kvbi_onboard_lane *lane = &onboarding->lanes[tier];
        if (kvbi_lanes_leave(onboarding->down, tier))
            kvbi_lane_book_stats(&lane->book, kvbi_onboard_lane_queued(lane), 0, now_ns,
                                 &stats->lanes[stats->lane_count++]);
    }
    stats->ops_started = onboarding->started;
    stats->ops_completed = onboarding->completed;
    stats->ops_cancelled = onboarding->cancelled;
    stats->ops_timed_out = onboarding->timed_out;
}

/* A block that has come is pinned while somebody who waited for it is to be told. */
static bool came_and_stays(const struct kvbi_onboarding *onboarding, uint32_t id)
{
    uint32_t slot = kvbi_waiters_came(&onboarding->waiters, id);
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT && slot != KVBI_NONE; tier++) {
        const struct kvbi_pool *pool = &onboarding->store->pools[tier];
        uint32_t base = onboarding->base[tier];
        if (base != KVBI_NONE && slot >= base && slot - base < pool->block_count)
            return pool->slots[slot - base].holds > 0;
    }
    return true;
}

/* Who waits is WAITING, for something that is as urgent. */
static const char *check_waiting(const struct kvbi_onboarding *onboarding)
{
    for (uint32_t id = 0; id < onboarding->item_count; id++) {
        const struct kvbi_item *item = &onboarding->items[id];
        uint32_t on = kvbi_waiters_on(&onboarding->waiters, id);
        if ((item->stage == KVBI_ITEM_WAITING) != kvbi_waiters_waits(&onboarding->waiters, id))
            return "an item is WAITING exactly while it is among those who wait";
        if (!came_and_stays(onboarding, id))
            return "a block that has come stays until its joiners are told";
        if (on == KVBI_NONE || onboarding->items[on].stage == KVBI_ITEM_NONE)
            continue; /* it is to be told, or a lane fills what it waits for */
        if (onboarding->items[on].priority < item->priority)
            return "what is waited for is as urgent as who waits";
        if (!onboarding->items[on].claims)
            return "what is waited for is being filled";
    }
    return kvbi_waiters_check(&onboarding->waiters);
}

const char *kvbi_onboarding_check_locked(const struct kvbi_onboarding *onboarding)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    const char *wrong = check_waiting(onboarding);
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT && wrong == NULL; tier++) {
        const struct kvbi_onboard_lane *lane = &onboarding->lanes[tier];
        wrong = kvbi_lane_book_check(&lane->book, kvbi_onboard_lane_queued(lane));
    }
    return wrong;
}

void kvbi_onboarding_mute_locked(struct kvbi_onboarding *onboarding)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    for (uint32_t i = 0; i < onboarding->op_capacity; i++)
        if (onboarding->ops[i].state == KVBI_OP_RUNNING)
            onboarding->ops[i].done = NULL;
    for (uint32_t i = onboarding->finished.first; i != KVBI_NONE; i = onboarding->ops[i].next)
        onboarding->ops[i].done = NULL;
}
