/* SPDX-License-Identifier: Apache-2.0 */
/* The white-box doors of testing.h. Callers: tests. */
#include <stdio.h>

#include "api/manager.h"
#include "api/testing.h"

static const char *check_book(const struct kvb_lane_stats *stats, uint64_t pending)
{
    if (stats->offered != stats->transferred + stats->skipped + stats->discarded + stats->shed +
                              stats->failed + stats->cancelled + pending)
        return "offered = transferred + skipped + discarded + shed + failed + cancelled + pending";
    if (stats->skipped != stats->skipped_present + stats->skipped_no_target +
                              stats->skipped_admission + stats->skipped_out_of_service)
        return "every skip has a reason";
    if (stats->failed != stats->failed_transfer + stats->failed_invalidated)
        return "every failure has a reason";
    return NULL;
}

static const char *check_lane(const struct kvbi_lane *lane)
{
    uint32_t ondeck = kvbi_lane_ondeck(lane);
    if (ondeck > lane->ondeck_capacity || lane->book.inflight > lane->inflight_max)
        return "a lane pins no more than its bounds";
    return check_book(&lane->book.stats, kvbi_lane_pending(lane));
}

static const char *check_locked(struct kvb_manager *manager)
{
    struct kvbi_pipeline *pipeline = &manager->pipeline;
    const char *wrong = kvbi_store_check_locked(&manager->store);
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT && wrong == NULL; tier++) {
        if (!kvbi_pipeline_has_lane(pipeline, tier))
            continue;
        const struct kvbi_onboard_lane *up = &pipeline->onboard.lanes[tier];
        wrong = check_lane(&pipeline->lanes[tier]);
        if (wrong == NULL)
            wrong = check_book(&up->book.stats, (uint64_t)up->queue.count + up->book.inflight);
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

void kvbi_testing_set_generation(struct kvb_manager *manager, struct kvb_block *block,
                                 uint64_t generation)
{
    kvbi_lock_take(&manager->store.lock);
    uint64_t word = atomic_load(&block->word);
    atomic_store(&block->word, generation << KVBI_USERS_BITS | kvbi_word_users(word));
    kvbi_lock_release(&manager->store.lock);
}
