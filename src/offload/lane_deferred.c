/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a lane does with offers that are not ready: whose source is still being written, or whose
 * target still used.
 *
 * Callers    lane.c. Lock: the store's.
 * Why        such a copy would keep its place on deck and with the engine for as long as a step of
 *            the server lasts, or for ever. Some may: a GPU's stream waits without the host. The
 *            rest waits where it holds nothing.
 */
#include "offload/lane.h"

static const struct kvb_block *source_of(const struct kvbi_lane *lane,
                                         const struct kvbi_offer *offer)
{
    return &lane->from->slots[offer->slot];
}

static struct kvbi_tickets source_tickets(const struct kvbi_lane *lane,
                                          const struct kvbi_offer *offer)
{
    return (struct kvbi_tickets){.source = source_of(lane, offer)->ticket};
}

static void mark(struct kvbi_lane *lane, struct kvbi_offer *offer, bool unready)
{
    lane->unready += unready;
    lane->unready -= offer->unready;
    offer->unready = unready;
}

bool kvbi_lane_claim_locked(struct kvbi_lane *lane, struct kvbi_offer *offer)
{
    kvbi_lock_assert_held(&lane->store->lock);
    bool reached = kvbi_tickets_reached(&lane->engines->lines, source_tickets(lane, offer));
    if (reached && !offer->unready)
        return true;
    if (!reached && !offer->unready && lane->unready >= lane->unready_max)
        return false;
    mark(lane, offer, !reached);
    return true;
}

void kvbi_lane_claim_target_locked(struct kvbi_lane *lane, struct kvbi_offer *offer,
                                   uint64_t ticket)
{
    kvbi_lock_assert_held(&lane->store->lock);
    if (!kvbi_ticket_reached(&lane->engines->lines, ticket))
        mark(lane, offer, true);
}

void kvbi_lane_unclaim_locked(struct kvbi_lane *lane, struct kvbi_offer *offer)
{
    kvbi_lock_assert_held(&lane->store->lock);
    mark(lane, offer, false);
}

void kvbi_lane_defer_locked(struct kvbi_lane *lane, uint32_t id, bool for_target)
{
    kvbi_lock_assert_held(&lane->store->lock);
    struct kvbi_offer *offer = kvbi_in_queue_at(&lane->queue, id);
    mark(lane, offer, false);
    uint32_t shed = kvbi_in_queue_defer(&lane->queue, id, source_tickets(lane, offer),
                                        for_target ? &lane->store->awaited[lane->to->tier] : NULL);
    if (shed == KVBI_NONE)
        return;
    lane->book.stats.shed++;
    kvbi_lane_drop_locked(lane, shed);
}

/* Of content that is gone nobody waits for the tickets: it is discarded as it comes up. */
static bool is_over(const struct kvbi_lane *lane, const struct kvbi_offer *offer)
{
    uint64_t word = atomic_load_explicit(&source_of(lane, offer)->word, memory_order_relaxed);
    return kvbi_word_generation(word) != offer->generation ||
           kvbi_tickets_reached(&lane->engines->lines, source_tickets(lane, offer));
}

void kvbi_lane_resume_locked(struct kvbi_lane *lane)
{
    kvbi_lock_assert_held(&lane->store->lock);
    struct kvbi_deferred *deferred = &lane->queue.deferred;
    uint32_t id;
    kvbi_deferred_note_room(deferred, lane->to->room);
    if (!kvbi_deferred_due(deferred))
        return;
    for (uint32_t n = 0; n < KVBI_LOCK_BATCH && (id = kvbi_deferred_next(deferred)) != KVBI_NONE;
         n++) {
        const struct kvbi_offer *offer = kvbi_in_queue_at(&lane->queue, id);
        if (is_over(lane, offer))
            kvbi_in_queue_resume(&lane->queue, id);
        else
            kvbi_deferred_keep(deferred, source_tickets(lane, offer));
    }
}
