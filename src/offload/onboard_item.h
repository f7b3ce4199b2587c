/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files about one block on its way up share.
 *
 *   onboard_item.c  beginning, hopping, moving      onboard_wait.c  waiting for a fill, and what
 *   its end means to who waits onboard_cut.c   being cut off
 *
 * Callers    these three. Lock: the store's.
 */
#ifndef KVBI_OFFLOAD_ONBOARD_ITEM_H
#define KVBI_OFFLOAD_ONBOARD_ITEM_H

#include "offload/onboard.h"

static inline uint32_t kvbi_item_id(const struct kvbi_onboarding *onboarding,
                                    const struct kvbi_item *item)
{
    return (uint32_t)(item - onboarding->items);
}

static inline struct kvbi_pool *kvbi_item_pool(const struct kvbi_onboarding *onboarding,
                                               const struct kvbi_item *item)
{
    return &onboarding->store->pools[item->tier];
}

/* The content that a claiming item brings. KVBI_NONE: it was invalidated meanwhile. */
static inline uint32_t kvbi_item_content(const struct kvbi_onboarding *onboarding,
                                         const struct kvbi_item *item)
{
    return kvbi_store_is_known_locked(onboarding->store, item->target) ? item->target->entry
                                                                       : KVBI_NONE;
}

/* ---- onboard_item.c -------------------------------------------------------------------------- */

/* The lane that takes the item's source one tier up. */
struct kvbi_onboard_lane *kvbi_item_lane(struct kvbi_onboarding *onboarding,
                                         const struct kvbi_item *item);
/* In line to read `source`, which it holds. */
void kvbi_item_queue_up(struct kvbi_onboarding *onboarding, struct kvbi_item *item,
                        struct kvb_block *source);
/* The same with the source that it has. */
void kvbi_item_queue_again(struct kvbi_onboarding *onboarding, struct kvbi_item *item);
void kvbi_item_drop_source(struct kvbi_onboarding *onboarding, struct kvbi_item *item,
                           uint64_t now_ns);

/* ---- onboard_cut.c --------------------------------------------------------------------------- */

/*
 * A copy that was recalled has come back before it had begun, and meanwhile somebody has come to
 * wait for its end: it sets off anew, for them. False: nobody waits, or nothing is begun any more.
 */
bool kvbi_item_restart_locked(struct kvbi_onboarding *onboarding, struct kvbi_item *item,
                              uint64_t now_ns);

/* ---- onboard_wait.c -------------------------------------------------------------------------- */

/*
 * For the fill of another item's target, or of one that an offload lane fills: that is as urgent
 * from now on.
 */
void kvbi_item_wait_on(struct kvbi_onboarding *onboarding, struct kvbi_item *item,
                       struct kvbi_item *filling);
void kvbi_item_stop_waiting(struct kvbi_onboarding *onboarding, struct kvbi_item *item,
                            uint64_t now_ns);
/* The first in line of those who wait for the item's target. NULL: none. */
struct kvbi_item *kvbi_item_waiter(const struct kvbi_onboarding *onboarding,
                                   const struct kvbi_item *item, enum kvbi_wait kind);
/* The item is good or has failed, to its operation if it has one. */
void kvbi_item_resolve(struct kvbi_onboarding *onboarding, struct kvbi_item *item, bool good);
/*
 * The target is not written by anybody: it is Empty again, and who waited for its content has lost
 * too.
 */
void kvbi_item_fail_claim(struct kvbi_onboarding *onboarding, struct kvbi_item *item);
/* The fill of the item's target is over: who waits for it is to be woken, but not in this step. */
void kvbi_item_filled(struct kvbi_onboarding *onboarding, const struct kvbi_item *item, bool good);

#endif
