/* SPDX-License-Identifier: Apache-2.0 */
/* The white-box doors of testing.h. Callers: tests. */
#include <stdio.h>

#include "api/manager.h"
#include "api/testing.h"

/* A block that has come is pinned while somebody who waited for it is to be told. */
static bool came_and_stays(const struct kvb_manager *manager, uint32_t id)
{
    const struct kvbi_onboarding *onboarding = &manager->pipeline.onboard;
    uint32_t slot = kvbi_waiters_came(&onboarding->waiters, id);
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT && slot != KVBI_NONE; tier++) {
        const struct kvbi_pool *pool = &manager->store.pools[tier];
        uint32_t base = onboarding->base[tier];
        if (base != KVBI_NONE && slot >= base && slot - base < pool->block_count)
            return pool->slots[slot - base].lane_pins > 0;
    }
    return true;
}

/* Who waits is WAITING, for something that is as urgent. */
static const char *check_waiting(const struct kvb_manager *manager)
{
    const struct kvbi_onboarding *onboarding = &manager->pipeline.onboard;
    for (uint32_t id = 0; id < onboarding->item_count; id++) {
        const struct kvbi_item *item = &onboarding->items[id];
        uint32_t on = kvbi_waiters_on(&onboarding->waiters, id);
        if ((item->stage == KVBI_ITEM_WAITING) != kvbi_waiters_waits(&onboarding->waiters, id))
            return "an item is WAITING exactly while it is among those who wait";
        if (!came_and_stays(manager, id))
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

static const char *check_locked(struct kvb_manager *manager)
{
    struct kvbi_pipeline *pipeline = &manager->pipeline;
    const char *wrong = kvbi_store_check_locked(&manager->store);
    if (wrong == NULL)
        wrong = check_waiting(manager);
    if (wrong == NULL)
        wrong = kvbi_lanes_check_locked(&pipeline->lanes);
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT && wrong == NULL; tier++) {
        const struct kvbi_onboard_lane *up = &pipeline->onboard.lanes[tier];
        wrong = kvbi_lane_book_check(&up->book, kvbi_onboard_lane_queued(up));
    }
    return wrong;
}

int kvbi_manager_check(struct kvb_manager *manager, char *message, size_t message_bytes)
{
    kvbi_lock_take(&manager->store.lock);
    const char *wrong = check_locked(manager);
    kvbi_lock_release(&manager->store.lock);
    if (message != NULL && message_bytes > 0)
        (void)snprintf(message, message_bytes, "%s", wrong == NULL ? "" : wrong);
    return wrong == NULL ? 0 : KVB_EINVAL;
}

uint32_t kvbi_testing_longest_hold(struct kvb_manager *manager)
{
    uint32_t longest = 0;
    kvbi_lock_take(&manager->store.lock);
#if KVBI_DEBUG
    longest = manager->store.lock.steps_max;
    manager->store.lock.steps_max = 0;
#endif
    kvbi_lock_release(&manager->store.lock);
    return longest;
}

void kvbi_testing_set_generation(struct kvb_manager *manager, struct kvb_block *block,
                                 uint64_t generation)
{
    kvbi_lock_take(&manager->store.lock);
    uint64_t word = atomic_load(&block->word);
    atomic_store(&block->word, generation << KVBI_USERS_BITS | kvbi_word_users(word));
    kvbi_lock_release(&manager->store.lock);
}

void kvbi_testing_mute(struct kvb_manager *manager)
{
    struct kvbi_onboarding *onboarding = &manager->pipeline.onboard;
    kvbi_lock_take(&manager->store.lock);
    for (uint32_t i = 0; i < onboarding->op_capacity; i++)
        if (onboarding->ops[i].state == KVBI_OP_RUNNING)
            onboarding->ops[i].done = NULL;
    for (uint32_t i = onboarding->finished.first; i != KVBI_NONE; i = onboarding->ops[i].next)
        onboarding->ops[i].done = NULL;
    kvbi_lock_release(&manager->store.lock);
}

void kvbi_testing_abandon(struct kvb_manager *manager)
{
    kvbi_testing_mute(manager);
    atomic_store(&manager->store.closing, true);
    kvbi_progress_close(&manager->progress);
    kvbi_manager_free(manager);
}
