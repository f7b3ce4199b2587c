/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every invariant of the lanes and of their offers, by walking everything. For tests: no call of
 * the library's own comes here.
 *
 * Callers    offload/pipeline. Lock: the store's.
 */
#include "offload/lanes.h"

/* Those of one lane that were found in the chains of blocks. */
struct found {
    uint32_t waiting, ondeck, taken;
};

static const char *check_offer(const struct kvbi_lanes_out *out, const struct kvbi_pool *pool,
                               const struct kvb_block *block, uint32_t id)
{
    const struct kvbi_offer *offer = kvbi_offers_at(&out->offers, id);
    bool heaped = offer->node.extra != 0;
    if (offer->stage == KVBI_OFFER_FREE)
        return "a block's offers are not free";
    if (offer->lane >= out->count || offer->slot != kvbi_pool_slot(pool, block))
        return "a block's offers name it, and a lane out of its tier";
    if (kvbi_offers_find(&out->offers, block, offer->lane) != id)
        return "a block has one offer to a lane";
    if (heaped != (offer->stage == KVBI_OFFER_ONDECK && block->place == KVBI_PLACE_PARKED &&
                   kvbi_slot_is_revocable(block)))
        return "a deck knows which of its blocks it can let go of";
    return NULL;
}

static const char *check_chain(const struct kvbi_lanes_out *out, const struct kvbi_pool *pool,
                               const struct kvb_block *block, struct found *found)
{
    const char *wrong = NULL;
    uint32_t ondeck = 0;
    for (uint32_t id = block->offer; id != KVBI_NONE && wrong == NULL;) {
        const struct kvbi_offer *offer = kvbi_offers_at(&out->offers, id);
        wrong = check_offer(out, pool, block, id);
        if (wrong != NULL)
            break;
        struct found *lane = &found[offer->lane];
        ondeck += offer->stage == KVBI_OFFER_ONDECK;
        lane->ondeck += offer->stage == KVBI_OFFER_ONDECK;
        lane->taken += offer->stage == KVBI_OFFER_TAKEN;
        lane->waiting += offer->stage == KVBI_OFFER_QUEUED || offer->stage == KVBI_OFFER_DEFERRED;
        id = offer->other;
    }
    if (wrong == NULL && ondeck != kvbi_slot_ondeck(block))
        wrong = "a slot counts its pins that are on deck";
    return wrong;
}

static const char *check_lane(const struct kvbi_lane *lane, const struct found *found)
{
    uint32_t ondeck = kvbi_lane_ondeck(lane), waiting = kvbi_in_queue_count(&lane->queue);
    if (ondeck > lane->ondeck_capacity || lane->book.inflight > lane->inflight_max)
        return "a lane holds no more than its bounds";
    if (lane->unready > lane->unready_max || waiting > lane->queue.capacity)
        return "a lane lets no more wait than its bounds";
    if (found->waiting != waiting || found->ondeck != ondeck || found->taken != lane->book.inflight)
        return "every offer of a lane is in its block's chain";
    return kvbi_lane_book_check(&lane->book, waiting + ondeck);
}

static const char *check_out(const struct kvbi_lanes_out *out, const struct kvbi_pool *pool)
{
    struct found found[KVBI_LANE_MAX] = {{0}};
    const char *wrong = NULL;
    for (uint32_t slot = 0; slot < pool->block_count && wrong == NULL; slot++)
        wrong = check_chain(out, pool, &pool->slots[slot], found);
    for (uint32_t i = 0; i < out->count && wrong == NULL; i++)
        wrong = check_lane(out->lanes[i], &found[i]);
    return wrong;
}

const char *kvbi_lanes_check_locked(const struct kvbi_lanes *lanes)
{
    const char *wrong = NULL;
    kvbi_lock_assert_held(&lanes->store->lock);
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT && wrong == NULL; tier++)
        wrong = check_out(&lanes->out[tier], &lanes->store->pools[tier]);
    return wrong;
}
