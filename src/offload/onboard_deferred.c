/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Items that are not ready: whose source is still being written, or whose target still used.
 *
 * Callers    onboard.c and onboard_item.c, through onboard.h. Lock: the store's.
 * Why        as lane_deferred.c's: what waits for its tickets is not to take a place that something
 *            ready could use. Such an item goes on holding the source: it is bounded by the targets
 *            that callers have allocated.
 */
#include "offload/onboard.h"

static uint32_t id_of(const struct kvbi_onboarding *onboarding, const struct kvbi_item *item)
{
    return (uint32_t)(item - onboarding->items);
}

static bool reached(const struct kvbi_onboarding *onboarding, struct kvbi_tickets tickets)
{
    return kvbi_tickets_reached(&onboarding->engines->lines, tickets);
}

struct kvbi_tickets kvbi_item_tickets(uint32_t tier, const struct kvbi_item *item)
{
    return (struct kvbi_tickets){.source = item->source->ticket,
                                 .target = tier == item->tier ? item->target->ticket : 0};
}

bool kvbi_item_may_move_locked(const struct kvbi_onboarding *onboarding, uint32_t tier,
                               struct kvbi_tickets tickets)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    const struct kvbi_onboard_lane *lane = &onboarding->lanes[tier];
    return lane->unready < lane->unready_max || reached(onboarding, tickets);
}

struct kvbi_criteria kvbi_carrier_criteria(const struct kvbi_onboarding *onboarding, uint32_t tier)
{
    const struct kvbi_onboard_lane *lane = &onboarding->lanes[tier];
    return (struct kvbi_criteria){.band_max = KVB_PRIORITY_MAX,
                                  .lines = &onboarding->engines->lines,
                                  .allow_unready = lane->unready < lane->unready_max};
}

void kvbi_item_defer_locked(struct kvbi_onboarding *onboarding, uint32_t tier,
                            struct kvbi_item *item, bool for_target)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    struct kvbi_pool *pool = &onboarding->store->pools[tier];
    item->node.mark = KVBI_ITEM_DEFERRED;
    kvbi_deferred_add(&onboarding->lanes[tier].deferred, id_of(onboarding, item), item->priority,
                      kvbi_item_tickets(tier, item),
                      for_target ? &onboarding->store->awaited[tier] : NULL);
    if (!for_target)
        return;
    kvbi_deferred_await_room(&onboarding->lanes[tier].deferred, pool->room);
    pool->room_awaited = true;
}

void kvbi_item_claim_locked(struct kvbi_onboarding *onboarding, uint32_t tier,
                            struct kvbi_item *item)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    bool unready = !reached(onboarding, kvbi_item_tickets(tier, item));
    item->node.mark = unready ? KVBI_ITEM_UNREADY : 0;
    onboarding->lanes[tier].unready += unready;
}

void kvbi_item_unclaim_locked(struct kvbi_onboarding *onboarding, struct kvbi_item *item)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    onboarding->lanes[item->tier].unready -= item->node.mark == KVBI_ITEM_UNREADY;
    item->node.mark = 0;
}

void kvbi_item_leave_line_locked(struct kvbi_onboarding *onboarding, uint32_t tier,
                                 struct kvbi_item *item)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    struct kvbi_onboard_lane *lane = &onboarding->lanes[tier];
    if (item->node.mark == KVBI_ITEM_DEFERRED)
        kvbi_deferred_remove(&lane->deferred, id_of(onboarding, item));
    else
        kvbi_bands_remove(&lane->queue, id_of(onboarding, item));
    item->node.mark = 0;
}

void kvbi_onboarding_resume_locked(struct kvbi_onboarding *onboarding, uint32_t tier)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    struct kvbi_onboard_lane *lane = &onboarding->lanes[tier];
    uint32_t id;
    kvbi_deferred_note_room(&lane->deferred, onboarding->store->pools[tier].room);
    if (!kvbi_deferred_due(&lane->deferred))
        return;
    for (uint32_t n = 0;
         n < KVBI_LOCK_BATCH && (id = kvbi_deferred_next(&lane->deferred)) != KVBI_NONE; n++) {
        struct kvbi_item *item = &onboarding->items[id];
        struct kvbi_tickets tickets = kvbi_item_tickets(tier, item);
        /* into a tier that is lost: nobody may say any more when its tickets are reached */
        if (!reached(onboarding, tickets) && kvbi_store_serves(onboarding->store, item->tier)) {
            kvbi_deferred_keep(&lane->deferred, tickets);
            continue;
        }
        kvbi_item_leave_line_locked(onboarding, tier, item);
        kvbi_bands_push_young(&lane->queue, id, item->priority);
    }
}

bool kvbi_item_recall_locked(const struct kvbi_onboarding *onboarding, const struct kvbi_item *item)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    if (item->node.mark != KVBI_ITEM_UNREADY)
        return false;
    const struct kvbi_pool *from = kvbi_store_pool_of(onboarding->store, item->source);
    return kvbi_engines_recall(onboarding->engines, &onboarding->tiers[from->tier],
                               &onboarding->tiers[item->tier], item->node.extra,
                               KVBI_COOKIE_ONBOARD | id_of(onboarding, item));
}
