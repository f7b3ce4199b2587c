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

/* ---- Waiting --------------------------------------------------------------------------------- */

/* In the lane's queue, or deferred in front of it. False: in neither. */
static bool raise_in_line(struct kvbi_onboarding *onboarding, struct kvbi_item *item)
{
    uint32_t id = kvbi_item_id(onboarding, item);
    struct kvbi_onboard_lane *lane = kvbi_item_lane(onboarding, item);
    if (!kvbi_bands_is_linked(&lane->queue, id))
        return false;
    if (item->node.mark == KVBI_ITEM_DEFERRED) {
        kvbi_deferred_raise(&lane->deferred, id, item->priority);
    } else {
        kvbi_bands_remove(&lane->queue, id);
        kvbi_bands_push_young(&lane->queue, id, item->priority);
    }
    return true;
}

/*
 * Somebody of this priority waits for the item. Who waits on somebody in turn hands it on: the
 * chain is as long as there are tiers, and what is waited for has the priority of who waits
 * already.
 */
static void raise_item(struct kvbi_onboarding *onboarding, struct kvbi_item *item, uint8_t priority)
{
    while (item->stage != KVBI_ITEM_NONE && item->priority < priority) {
        uint32_t id = kvbi_item_id(onboarding, item);
        item->priority = priority;
        if (item->stage == KVBI_ITEM_QUEUED && !raise_in_line(onboarding, item))
            return; /* just taken out of it, and put back by its priority if at all */
        uint32_t on = kvbi_waiters_on(&onboarding->waiters, id);
        if (on == KVBI_NONE)
            return;
        item = &onboarding->items[on];
    }
}

void kvbi_item_wait_on(struct kvbi_onboarding *onboarding, struct kvbi_item *item,
                       struct kvbi_item *filling)
{
    item->stage = KVBI_ITEM_WAITING;
    kvbi_waiters_wait(&onboarding->waiters, kvbi_item_id(onboarding, item),
                      kvbi_item_id(onboarding, filling),
                      item->claims ? KVBI_WAIT_HOP : KVBI_WAIT_JOIN);
    raise_item(onboarding, filling, item->priority);
}

struct kvbi_item *kvbi_item_waiter(const struct kvbi_onboarding *onboarding,
                                   const struct kvbi_item *item, enum kvbi_wait kind)
{
    uint32_t id = kvbi_waiters_first(&onboarding->waiters, kvbi_item_id(onboarding, item), kind);
    return id != KVBI_NONE ? &onboarding->items[id] : NULL;
}

/* The block whose slot an item stands for. */
static struct kvb_block *block_of(const struct kvbi_onboarding *onboarding, uint32_t id,
                                  struct kvbi_pool **pool)
{
    uint32_t tier = 0;
    while (onboarding->base[tier] == KVBI_NONE || id < onboarding->base[tier] ||
           id - onboarding->base[tier] >= onboarding->store->pools[tier].block_count)
        tier++;
    *pool = &onboarding->store->pools[tier];
    return &(*pool)->slots[id - onboarding->base[tier]];
}

/*
 * The last of those who waited for a block that was filled well ends the hold that they had
 * together.
 */
static void forget_waited(struct kvbi_onboarding *onboarding, const struct kvbi_waited *waited,
                          uint64_t now_ns)
{
    struct kvbi_pool *pool;
    if (!waited->good || !waited->last)
        return;
    struct kvb_block *block = block_of(onboarding, waited->slot, &pool);
    kvbi_store_unhold_locked(onboarding->store, pool, block, now_ns);
}

void kvbi_item_stop_waiting(struct kvbi_onboarding *onboarding, struct kvbi_item *item,
                            uint64_t now_ns)
{
    struct kvbi_waited waited =
        kvbi_waiters_stop(&onboarding->waiters, kvbi_item_id(onboarding, item));
    forget_waited(onboarding, &waited, now_ns);
}

/* ---- Ending ---------------------------------------------------------------------------------- */

void kvbi_item_resolve(struct kvbi_onboarding *onboarding, struct kvbi_item *item, bool good)
{
    if (item->op != KVBI_NONE)
        kvbi_op_resolve_locked(onboarding, item, good);
    else
        item->stage = KVBI_ITEM_NONE;
}

void kvbi_item_fail_claim(struct kvbi_onboarding *onboarding, struct kvbi_item *item)
{
    if (item->claims) {
        item->claims = false;
        kvbi_store_fill_abandon_locked(onboarding->store, kvbi_item_pool(onboarding, item),
                                       item->target);
        if (item->target->place != KVBI_PLACE_USED)
            kvbi_store_free_locked(onboarding->store, kvbi_item_pool(onboarding, item),
                                   item->target);
        kvbi_item_filled(onboarding, item, false);
    }
    kvbi_item_resolve(onboarding, item, false);
}

/* The fill that it waited for has ended, with `filled` good, or NULL. */
static void wake_one(struct kvbi_onboarding *onboarding, struct kvbi_item *item,
                     struct kvbi_pool *pool, struct kvb_block *filled)
{
    if (item->claims) {
        if (filled != NULL && kvbi_item_content(onboarding, item) != KVBI_NONE)
            kvbi_item_queue_up(onboarding, item, filled);
        else
            kvbi_item_fail_claim(onboarding, item);
        return;
    }
    if (filled != NULL && kvbi_store_ref_locked(onboarding->store, pool, filled) == 0)
        item->result = filled;
    kvbi_item_resolve(onboarding, item, item->result != NULL);
}

static bool wake_next(struct kvbi_onboarding *onboarding, uint64_t now_ns)
{
    struct kvbi_waited waited;
    if (!kvbi_waiters_next(&onboarding->waiters, &waited))
        return false;
    kvbi_lock_step();
    struct kvbi_pool *pool;
    struct kvb_block *block = block_of(onboarding, waited.slot, &pool);
    /* it may have been invalidated since it was filled */
    bool good = waited.good && kvbi_store_is_known_locked(onboarding->store, block);
    wake_one(onboarding, &onboarding->items[waited.id], pool, good ? block : NULL);
    forget_waited(onboarding, &waited, now_ns);
    return true;
}

bool kvbi_onboarding_wake_locked(struct kvbi_onboarding *onboarding, uint64_t now_ns)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    for (uint32_t n = 0; n < KVBI_LOCK_BATCH && wake_next(onboarding, now_ns); n++)
        ;
    return kvbi_waiters_any_ended(&onboarding->waiters);
}

static void end_fill(struct kvbi_onboarding *onboarding, uint32_t id, bool good)
{
    struct kvbi_pool *pool;
    if (!kvbi_waiters_end(&onboarding->waiters, id, good) || !good)
        return;
    struct kvb_block *block = block_of(onboarding, id, &pool);
    /* until the last of them has been told */
    kvbi_store_hold_locked(onboarding->store, pool, block);
}

void kvbi_item_filled(struct kvbi_onboarding *onboarding, const struct kvbi_item *item, bool good)
{
    end_fill(onboarding, kvbi_item_id(onboarding, item), good);
}

void kvbi_onboarding_filled_locked(struct kvbi_onboarding *onboarding, uint32_t tier, uint32_t slot,
                                   bool good)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    if (onboarding->base[tier] != KVBI_NONE) /* nobody onboards into the lowest tier */
        end_fill(onboarding, onboarding->base[tier] + slot, good);
}
