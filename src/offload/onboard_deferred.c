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

static struct kvbi_tickets tickets_of(const struct kvbi_onboarding *onboarding,
                                      const struct kvb_block *block)
{
    const struct kvbi_pool *pool = kvbi_store_pool_of(onboarding->store, block);
    return kvbi_engines_tickets(onboarding->engines, &onboarding->tiers[pool->tier],
                                kvbi_pool_slot(pool, block), block->ticket);
}

static struct kvbi_tickets reached(const struct kvbi_onboarding *onboarding)
{
    return kvbi_engines_reached(onboarding->engines);
}

struct kvbi_tickets kvbi_item_tickets(const struct kvbi_onboarding *onboarding, uint32_t tier,
                                      const struct kvbi_item *item)
{
    struct kvbi_tickets tickets = tickets_of(onboarding, item->source);
    return tier == item->tier ? kvbi_tickets_latest(tickets, tickets_of(onboarding, item->target))
                              : tickets;
}

bool kvbi_item_may_move_locked(const struct kvbi_onboarding *onboarding, uint32_t tier,
                               struct kvbi_tickets tickets)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    const struct kvbi_onboard_lane *lane = &onboarding->lanes[tier];
    return lane->unready < lane->unready_max || kvbi_tickets_reached(tickets, reached(onboarding));
}

struct kvbi_criteria kvbi_carrier_criteria(const struct kvbi_onboarding *onboarding, uint32_t tier)
{
    const struct kvbi_onboard_lane *lane = &onboarding->lanes[tier];
    return (struct kvbi_criteria){.band_max = KVB_PRIORITY_MAX,
                                  .counter = reached(onboarding).counter,
                                  .allow_unready = lane->unready < lane->unready_max};
}

void kvbi_item_defer_locked(struct kvbi_onboarding *onboarding, uint32_t tier,
                            struct kvbi_item *item, uint64_t ticket)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    struct kvbi_tickets target = {.counter = ticket};
    item->node.mark = KVBI_ITEM_DEFERRED;
    kvbi_deferred_add(&onboarding->lanes[tier].deferred, id_of(onboarding, item), item->priority,
                      kvbi_tickets_latest(kvbi_item_tickets(onboarding, tier, item), target),
                      reached(onboarding));
    if (ticket == 0)
        return;
    struct kvbi_pool *pool = &onboarding->store->pools[tier];
    kvbi_deferred_await_room(&onboarding->lanes[tier].deferred, pool->room);
    pool->room_awaited = true;
}

void kvbi_item_claim_locked(struct kvbi_onboarding *onboarding, uint32_t tier,
                            struct kvbi_item *item)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    struct kvbi_tickets tickets = kvbi_item_tickets(onboarding, tier, item);
    bool unready = !kvbi_tickets_reached(tickets, reached(onboarding));
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
    struct kvbi_tickets now = reached(onboarding);
    uint32_t id;
    kvbi_deferred_note_room(&lane->deferred, onboarding->store->pools[tier].room);
    if (!kvbi_deferred_due(&lane->deferred, now))
        return;
    for (uint32_t n = 0;
         n < KVBI_LOCK_BATCH && (id = kvbi_deferred_next(&lane->deferred)) != KVBI_NONE; n++) {
        struct kvbi_item *item = &onboarding->items[id];
        struct kvbi_tickets tickets = kvbi_item_tickets(onboarding, tier, item);
        if (!kvbi_tickets_reached(tickets, now)) {
            kvbi_deferred_keep(&lane->deferred, tickets, now);
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
