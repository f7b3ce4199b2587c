/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a lane does with offers that are not ready: whose source is still being written, or whose
 * target still used.
 *
 * Callers    lane.c. Lock: the store's.
 * Why        such a copy would hold its place on deck and with the engine for as long as a step of
 *            the server lasts, or for ever. Some may: a GPU's stream waits without the host. The
 *            rest waits where it pins nothing.
 */
#include "offload/lane.h"

static const struct kvb_block *source_of(const struct kvbi_lane *lane,
                                         const struct kvbi_offer *offer)
{
    return &lane->from->slots[offer->slot];
}

static struct kvbi_point source_point(const struct kvbi_lane *lane, const struct kvbi_offer *offer)
{
    return kvbi_engines_point(lane->engines, lane->from_tier, offer->slot,
                              source_of(lane, offer)->ticket);
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
    bool reached =
        kvbi_point_reached(source_point(lane, offer), kvbi_engines_reached(lane->engines));
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
    if (ticket > kvbi_engines_reached(lane->engines).ticket)
        mark(lane, offer, true);
}

void kvbi_lane_unclaim_locked(struct kvbi_lane *lane, struct kvbi_offer *offer)
{
    kvbi_lock_assert_held(&lane->store->lock);
    mark(lane, offer, false);
}

void kvbi_lane_fence_locked(struct kvbi_lane *lane, uint32_t id, uint64_t ticket)
{
    kvbi_lock_assert_held(&lane->store->lock);
    struct kvbi_offer *offer = kvbi_in_queue_at(&lane->queue, id);
    struct kvbi_point target = {.ticket = ticket},
                      point = kvbi_point_latest(source_point(lane, offer), target);
    mark(lane, offer, false);
    uint32_t shed =
        kvbi_in_queue_fence(&lane->queue, id, point, kvbi_engines_reached(lane->engines));
    if (shed == KVBI_NONE)
        return;
    lane->book.stats.shed++;
    kvbi_lane_drop_locked(lane, shed);
}

/* Of content that is gone nobody waits for the fence: it is discarded as it comes up. */
static bool is_over(const struct kvbi_lane *lane, const struct kvbi_offer *offer,
                    struct kvbi_point reached)
{
    uint64_t word = atomic_load_explicit(&source_of(lane, offer)->word, memory_order_relaxed);
    return kvbi_word_generation(word) != offer->generation ||
           kvbi_point_reached(source_point(lane, offer), reached);
}

void kvbi_lane_unfence_locked(struct kvbi_lane *lane)
{
    kvbi_lock_assert_held(&lane->store->lock);
    struct kvbi_fenced *fenced = &lane->queue.fenced;
    struct kvbi_point reached = kvbi_engines_reached(lane->engines);
    uint32_t id;
    kvbi_fenced_note_room(fenced, lane->to->room);
    if (!kvbi_fenced_due(fenced, reached))
        return;
    for (uint32_t n = 0; n < KVBI_LOCK_BATCH && (id = kvbi_fenced_next(fenced)) != KVBI_NONE; n++) {
        const struct kvbi_offer *offer = kvbi_in_queue_at(&lane->queue, id);
        if (is_over(lane, offer, reached))
            kvbi_in_queue_unfence(&lane->queue, id);
        else
            kvbi_fenced_keep(fenced, source_point(lane, offer), reached);
    }
}
