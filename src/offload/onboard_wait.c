/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waiting for the fill of a slot, and what its end means to who waits.
 *
 * Callers    onboard_item.c, onboard_cut.c; offload/progress through onboard.h. Lock: the store's.
 * Why        everything hangs on the slot that is filled: whoever wants its content waits on that
 *            slot's list, be it another operation (join), or the next hop of the same block. So one
 *            transfer serves all, and one failure fails all.
 */
#include "offload/onboard_item.h"

#include "offload/pipeline.h"

/* ---- Waiting ---------------------------------------------------------------------------------------------------- */

void kvbi_item_wait_on(struct kvbi_onboarding *onboarding, struct kvbi_item *item,
                       struct kvbi_item *filling)
{
    item->stage = KVBI_ITEM_WAITING;
    item->waits_on = kvbi_item_id(onboarding, filling);
    item->next_waiter = filling->first_waiter;
    filling->first_waiter = kvbi_item_id(onboarding, item);
}

void kvbi_item_stop_waiting(struct kvbi_onboarding *onboarding, struct kvbi_item *item)
{
    uint32_t *link = &onboarding->items[item->waits_on].first_waiter;
    while (*link != kvbi_item_id(onboarding, item))
        link = &onboarding->items[*link].next_waiter;
    *link = item->next_waiter;
    item->waits_on = KVBI_NONE;
}

/* ---- Ending ----------------------------------------------------------------------------------------------------- */

void kvbi_item_resolve(struct kvbi_onboarding *onboarding, struct kvbi_item *item, bool good)
{
    if (item->op != KVBI_NONE)
        kvbi_op_resolve_locked(onboarding, item, good);
    else
        item->stage = KVBI_ITEM_NONE;
}

void kvbi_item_fail_claim(struct kvbi_onboarding *onboarding, struct kvbi_item *item,
                          uint64_t now_ns)
{
    if (item->claims) {
        item->claims = false;
        kvbi_store_fill_abandon_locked(onboarding->store, kvbi_item_pool(onboarding, item),
                                       item->target);
        if (item->target->place != KVBI_PLACE_HELD)
            kvbi_store_free_locked(onboarding->store, kvbi_item_pool(onboarding, item),
                                   item->target);
        kvbi_item_wake(onboarding, item, false, now_ns);
    }
    kvbi_item_resolve(onboarding, item, false);
}

static void wake_one(struct kvbi_onboarding *onboarding, struct kvbi_item *filled,
                     struct kvbi_item *item, bool good, uint64_t now_ns)
{
    item->waits_on = KVBI_NONE;
    if (item->claims) {
        if (good && kvbi_item_content(onboarding, item) != KVBI_NONE)
            kvbi_item_queue_up(onboarding, item, filled->target);
        else
            kvbi_item_fail_claim(onboarding, item, now_ns);
        return;
    }
    if (good && kvbi_store_hold_locked(onboarding->store, kvbi_item_pool(onboarding, filled),
                                       filled->target) == 0)
        item->result = filled->target;
    kvbi_item_resolve(onboarding, item, item->result != NULL);
}

void kvbi_item_wake(struct kvbi_onboarding *onboarding, struct kvbi_item *filled, bool good,
                    uint64_t now_ns)
{
    uint32_t waiter = filled->first_waiter;
    filled->first_waiter = KVBI_NONE;
    while (waiter != KVBI_NONE) {
        struct kvbi_item *item = &onboarding->items[waiter];
        waiter = item->next_waiter;
        wake_one(onboarding, filled, item, good, now_ns);
    }
}

void kvbi_onboarding_filled_locked(struct kvbi_onboarding *onboarding, uint32_t tier, uint32_t slot,
                                   bool good, uint64_t now_ns)
{
    if (onboarding->base[tier] == KVBI_NONE)
        return; /* nobody onboards into the lowest tier */
    struct kvbi_item *filled = kvbi_item_at(onboarding, tier, slot);
    filled->target = &onboarding->store->pools[tier].slots[slot];
    filled->tier = (uint8_t)tier;
    kvbi_item_wake(onboarding, filled, good, now_ns);
}
