/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One block whose operation is cut short: handed over, orphaned, or given up.
 *
 * Callers    onboard.c, through onboard.h. Lock: the store's.
 */
#include "offload/onboard_item.h"

/*
 * The transfer goes on for the one who wants to join: the two operations exchange their targets,
 * and the one that gives up has an Empty block at once. Each memory keeps its own tickets.
 */
static void hand_over(struct kvbi_onboarding *onboarding, struct kvbi_item *item,
                      struct kvbi_item *waiter, uint64_t now_ns)
{
    kvbi_item_stop_waiting(onboarding, waiter, now_ns);
    kvbi_op_swap_locked(onboarding, item, waiter);
    kvbi_op_resolve_locked(onboarding, waiter, false);
}

/*
 * The target is written and cannot be stopped, or somebody on the way up needs it: the operation
 * lets go of it and gets another block, if there is one. False: that is not known yet, and nothing
 * has been done.
 */
static bool orphan(struct kvbi_onboarding *onboarding, struct kvbi_item *item, uint64_t now_ns)
{
    struct kvbi_pool *pool = kvbi_item_pool(onboarding, item);
    struct kvb_block *other = kvbi_lanes_take_locked(onboarding->down, pool, true, now_ns);
    if (other == NULL && pool->cut_short)
        return false;
    const struct kvb_op *op = &onboarding->ops[item->op];
    if (other != NULL) {
        struct kvbi_item *replacement =
            kvbi_item_at(onboarding, item->tier, kvbi_pool_slot(pool, other));
        kvbi_op_replace_locked(onboarding, item, replacement);
        replacement->target = other;
        kvbi_op_set_tickets_locked(onboarding, op, other);
        kvbi_op_resolve_locked(onboarding, replacement, false);
    } else {
        uint8_t stage = item->stage;
        kvbi_op_resolve_locked(onboarding, item, false);
        kvbi_op_unlink_locked(onboarding, item);
        item->stage = stage;
    }
    item->op = KVBI_NONE;
    kvbi_store_unref_locked(onboarding->store, pool, item->target, now_ns);
    return true;
}

static void leave_queue(struct kvbi_onboarding *onboarding, struct kvbi_item *item, uint64_t now_ns)
{
    struct kvbi_onboard_lane *lane = kvbi_item_lane(onboarding, item);
    kvbi_item_leave_line_locked(onboarding, (uint32_t)(lane - onboarding->lanes), item);
    lane->book.stats.cancelled++;
    kvbi_item_drop_source(onboarding, item, now_ns);
}

static void leave_slot(struct kvbi_onboarding *onboarding, struct kvbi_item *item, uint64_t now_ns);

/* One that is neither read nor written by an engine, and that nobody waits for. */
static void give_up(struct kvbi_onboarding *onboarding, struct kvbi_item *item, uint64_t now_ns)
{
    if (item->stage == KVBI_ITEM_QUEUED)
        leave_queue(onboarding, item, now_ns);
    else
        leave_slot(onboarding, item, now_ns);
    kvbi_item_fail_claim(onboarding, item);
}

/*
 * It waits no more for the slot that is filled. If that was for nobody else, and for no operation
 * of its own, it ends too, or is recalled if it can be: the chain is as long as there are tiers.
 */
static void leave_slot(struct kvbi_onboarding *onboarding, struct kvbi_item *item, uint64_t now_ns)
{
    uint32_t on = kvbi_waiters_on(&onboarding->waiters, kvbi_item_id(onboarding, item));
    kvbi_item_stop_waiting(onboarding, item, now_ns);
    if (on == KVBI_NONE)
        return; /* the fill is over */
    struct kvbi_item *filling = &onboarding->items[on];
    if (filling->op != KVBI_NONE || kvbi_item_waiter(onboarding, filling, KVBI_WAIT_JOIN) != NULL ||
        kvbi_item_waiter(onboarding, filling, KVBI_WAIT_HOP) != NULL)
        return;
    if (filling->stage == KVBI_ITEM_MOVING)
        (void)kvbi_item_recall_locked(onboarding, filling);
    else if (filling->stage == KVBI_ITEM_QUEUED || filling->stage == KVBI_ITEM_WAITING)
        give_up(onboarding, filling, now_ns);
}

bool kvbi_item_cut_locked(struct kvbi_onboarding *onboarding, struct kvbi_item *item,
                          uint64_t now_ns)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    bool forced = onboarding->ops[item->op].abort != 0;
    if (item->stage >= KVBI_ITEM_GOOD || (item->stage == KVBI_ITEM_MOVING && !forced))
        return true;
    struct kvbi_item *joiner = kvbi_item_waiter(onboarding, item, KVBI_WAIT_JOIN);
    if (joiner != NULL && joiner->op == item->op) {
        /*
         * Of one operation the first is written, so this one stands behind it, and is to be cut
         * too.
         */
        KVBI_ASSERT(joiner->index > item->index);
        give_up(onboarding, joiner, now_ns);
        return false;
    }
    if (joiner != NULL)
        hand_over(onboarding, item, joiner, now_ns);
    else if (kvbi_item_waiter(onboarding, item, KVBI_WAIT_HOP) != NULL)
        return orphan(onboarding, item, now_ns);
    else if (item->stage == KVBI_ITEM_MOVING) /* one that is recalled is over with the next reap */
        return kvbi_item_recall_locked(onboarding, item) || orphan(onboarding, item, now_ns);
    else
        give_up(onboarding, item, now_ns);
    return true;
}

bool kvbi_item_restart_locked(struct kvbi_onboarding *onboarding, struct kvbi_item *item,
                              uint64_t now_ns)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    struct kvbi_item *joiner = kvbi_item_waiter(onboarding, item, KVBI_WAIT_JOIN);
    bool wanted = joiner != NULL || kvbi_item_waiter(onboarding, item, KVBI_WAIT_HOP) != NULL;
    if (!wanted || atomic_load(&onboarding->store->closing))
        return false;
    if (item->op != KVBI_NONE && joiner != NULL && joiner->op != item->op)
        hand_over(onboarding, item, joiner, now_ns);
    else if (item->op != KVBI_NONE && !orphan(onboarding, item, now_ns))
        return false;
    if (kvbi_item_content(onboarding, item) == KVBI_NONE)
        return false;
    kvbi_item_queue_again(onboarding, item);
    return true;
}
