/* SPDX-License-Identifier: Apache-2.0 */
/* The three stages of moving down. See lane.h. */
#include "offload/lane.h"

#include "store/contents.h"

#define DECK_BAND 0

struct kvbi_identity kvbi_lane_identity(const struct kvbi_store *store,
                                        const struct kvb_block *named, const struct kvb_block *slot)
{
    const struct kvb_seq *name = &kvbi_index_at(&store->index, named->entry)->name;
    return (struct kvbi_identity){.hash = name->hash,
                                  .digest = {name->digest[0], name->digest[1]},
                                  .generation = kvbi_word_generation(
                                      atomic_load_explicit(&slot->word, memory_order_relaxed))};
}

static struct kvb_block *source_of(const struct kvbi_lane *lane, const struct kvbi_offer *offer)
{
    return &lane->from->slots[offer->slot];
}

/* Whether the content that was offered is still there and known. */
static bool still_there(const struct kvbi_lane *lane, const struct kvbi_offer *offer)
{
    const struct kvb_block *block = source_of(lane, offer);
    uint64_t word = atomic_load_explicit(&block->word, memory_order_relaxed);
    return kvbi_word_generation(word) == offer->generation &&
           kvbi_store_is_known_locked(lane->store, block);
}

/*
 * A copy in a file that is out of service counts for nothing, and is forgotten on the spot: it
 * would be in the way.
 */
static bool present_below(const struct kvbi_lane *lane, const struct kvb_block *block)
{
    const struct kvbi_entry *entry = kvbi_index_at(&lane->store->index, block->entry);
    uint32_t slot = entry->copies[lane->to->tier];
    if (slot == KVBI_NONE)
        return false;
    if (!(entry->ready & 1u << lane->to->tier) || kvbi_pool_serves(lane->to, slot))
        return true;
    kvbi_store_forget_copy_locked(lane->store, lane->to, &lane->to->slots[slot]);
    return false;
}

void kvbi_lane_drop_locked(struct kvbi_lane *lane, uint32_t id)
{
    kvbi_lock_assert_held(&lane->store->lock);
    struct kvbi_offer *offer = kvbi_in_queue_at(&lane->queue, id);
    struct kvb_block *block = source_of(lane, offer);
    kvbi_lane_unclaim_locked(lane, offer);
    kvbi_offers_unlink(lane->offers, block, id);
    kvbi_offers_free(lane->offers, id);
}

static void note_held(struct kvbi_lane *lane)
{
    uint64_t held = kvbi_lane_ondeck(lane) + lane->book.inflight;
    if (held > lane->book.stats.pinned_max)
        lane->book.stats.pinned_max = held;
}

static void put_on_deck(struct kvbi_lane *lane, uint32_t id)
{
    struct kvbi_offer *offer = kvbi_in_queue_at(&lane->queue, id);
    struct kvb_block *block = source_of(lane, offer);
    offer->ondeck_age = lane->ondeck_ages++;
    kvbi_bands_push_young(&lane->deck, id, DECK_BAND);
    kvbi_store_hold_locked(lane->store, lane->from, block);
    offer->stage = KVBI_OFFER_ONDECK; /* pinned already: now it may be said to be revocable */
    kvbi_pool_put_on_deck(lane->from, block);
    note_held(lane);
}

/* It is pinned still. */
static void take_off_deck(struct kvbi_lane *lane, uint32_t id)
{
    struct kvbi_offer *offer = kvbi_in_queue_at(&lane->queue, id);
    kvbi_bands_remove(&lane->deck, id);
    kvbi_pool_take_off_deck(lane->from, source_of(lane, offer));
    offer->stage = KVBI_OFFER_TAKEN;
}

static void unhold_source(struct kvbi_lane *lane, uint32_t id, uint64_t now_ns)
{
    kvbi_store_unhold_locked(lane->store, lane->from,
                             source_of(lane, kvbi_in_queue_at(&lane->queue, id)), now_ns);
}

/*
 * Ends an offer that pins its source. The order matters: unpinning may free the slot and forget its
 * offers.
 */
static void drop_held(struct kvbi_lane *lane, uint32_t id, uint64_t now_ns)
{
    struct kvb_block *block = source_of(lane, kvbi_in_queue_at(&lane->queue, id));
    kvbi_offers_unlink(lane->offers, block, id);
    unhold_source(lane, id, now_ns);
    kvbi_lane_drop_locked(lane, id);
}

/* An offer that holds its source is deferred instead. */
static void defer_offer(struct kvbi_lane *lane, uint32_t id, bool for_target, uint64_t now_ns)
{
    unhold_source(lane, id, now_ns);
    kvbi_lane_defer_locked(lane, id, for_target);
}

static void queue_up(struct kvbi_lane *lane, uint32_t id)
{
    kvbi_lane_unclaim_locked(lane, kvbi_in_queue_at(&lane->queue, id));
    uint32_t shed = kvbi_in_queue_push(&lane->queue, id);
    if (shed == KVBI_NONE)
        return;
    lane->book.stats.shed++;
    kvbi_lane_drop_locked(lane, shed);
}

void kvbi_lane_offer_locked(struct kvbi_lane *lane, struct kvb_block *block, uint32_t priority)
{
    kvbi_lock_assert_held(&lane->store->lock);
    KVBI_ASSERT(kvbi_offers_find(lane->offers, block, lane->number) == KVBI_NONE);
    KVBI_ASSERT(block->entry != KVBI_NONE);
    lane->book.stats.offered++;
    lane->store->work = true;
    bool in_service = lane->store->serving & 1u << lane->to->tier;
    if (!in_service || present_below(lane, block)) {
        lane->book.stats.skipped++;
        lane->book.stats.skipped_present += in_service;
        lane->book.stats.skipped_out_of_service += !in_service;
        return;
    }
    uint32_t id = kvbi_offers_new(lane->offers, block, kvbi_pool_slot(lane->from, block),
                                  lane->number, (uint8_t)priority);
    struct kvbi_offer *offer = kvbi_in_queue_at(&lane->queue, id);
    bool room =
        kvbi_lane_ondeck(lane) < lane->ondeck_capacity && kvbi_in_queue_ready(&lane->queue) == 0;
    if (!kvbi_lane_claim_locked(lane, offer) || (offer->unready && !room))
        kvbi_lane_defer_locked(lane, id, 0);
    else if (room)
        put_on_deck(lane, id);
    else
        queue_up(lane, id);
}

int kvbi_lane_cancel_locked(struct kvbi_lane *lane, struct kvb_block *block)
{
    kvbi_lock_assert_held(&lane->store->lock);
    uint32_t id = kvbi_offers_find(lane->offers, block, lane->number);
    if (id == KVBI_NONE)
        return KVB_ENOENT;
    if (kvbi_in_queue_at(&lane->queue, id)->stage >= KVBI_OFFER_ONDECK)
        return KVB_EBUSY;
    kvbi_in_queue_remove(&lane->queue, id);
    lane->book.stats.cancelled++;
    lane->store->work = true; /* who waits for idle lanes may look */
    kvbi_lane_drop_locked(lane, id);
    return 0;
}

void kvbi_lane_forget_locked(struct kvbi_lane *lane, uint32_t id)
{
    kvbi_lock_assert_held(&lane->store->lock);
    enum kvbi_offer_stage stage = kvbi_in_queue_at(&lane->queue, id)->stage;
    if (stage == KVBI_OFFER_TAKEN)
        return;
    lane->book.stats.discarded++;
    lane->store->work = true; /* who waits for idle lanes may look */
    if (stage < KVBI_OFFER_ONDECK) {
        kvbi_in_queue_remove(&lane->queue, id);
        kvbi_lane_drop_locked(lane, id);
    } else {
        take_off_deck(lane, id);
        drop_held(lane, id, 0); /* it leaves the order anyway: any time will do */
    }
}

void kvbi_lane_revoke_locked(struct kvbi_lane *lane, uint32_t id, uint64_t now_ns)
{
    kvbi_lock_assert_held(&lane->store->lock);
    kvbi_lock_step();
    take_off_deck(lane, id);
    unhold_source(lane, id, now_ns);
    queue_up(lane, id);
}

/* One offer that has not been taken. False: there is none. */
static bool cancel_one(struct kvbi_lane *lane, uint64_t now_ns)
{
    uint32_t id = kvbi_in_queue_pop(&lane->queue);
    bool deferred =
        id == KVBI_NONE && (id = kvbi_bands_lowest(&lane->queue.deferred.list)) != KVBI_NONE;
    bool held = id == KVBI_NONE && (id = kvbi_bands_lowest(&lane->deck)) != KVBI_NONE;
    if (id == KVBI_NONE)
        return false;
    kvbi_lock_step();
    lane->book.stats.cancelled++;
    if (deferred)
        kvbi_in_queue_remove(&lane->queue, id);
    if (!held) {
        kvbi_lane_drop_locked(lane, id);
    } else {
        take_off_deck(lane, id);
        drop_held(lane, id, now_ns);
    }
    return true;
}

bool kvbi_lane_cancel_all_locked(struct kvbi_lane *lane, uint64_t now_ns)
{
    uint32_t count = 0;
    kvbi_lock_assert_held(&lane->store->lock);
    while (count < KVBI_LOCK_BATCH && cancel_one(lane, now_ns))
        count++;
    return count > 0;
}

/* Offers' sources, and what is in them, will be looked at. */
static void warm_sources(const struct kvbi_lane *lane, const uint32_t *offers, uint32_t count)
{
    struct kvb_block *sources[KVBI_LOCK_BATCH];
    for (uint32_t i = 0; i < count; i++) {
        sources[i] = source_of(lane, kvbi_in_queue_at(&lane->queue, offers[i]));
        __builtin_prefetch(sources[i], 1);
    }
    kvbi_store_warm_contents_locked(lane->store, sources, count);
}

/* An offer out of the queue goes on deck, unless it is not worth it any more, or not ready. */
static void consider(struct kvbi_lane *lane, uint32_t id)
{
    kvbi_lock_step();
    struct kvb_lane_stats *stats = &lane->book.stats;
    struct kvbi_offer *offer = kvbi_in_queue_at(&lane->queue, id);
    if (!still_there(lane, offer)) {
        stats->discarded++;
        kvbi_lane_drop_locked(lane, id);
    } else if (present_below(lane, source_of(lane, offer))) {
        stats->skipped++;
        stats->skipped_present++;
        kvbi_lane_drop_locked(lane, id);
    } else if (kvbi_lane_claim_locked(lane, offer)) {
        put_on_deck(lane, id);
    } else {
        kvbi_lane_defer_locked(lane, id, 0);
    }
}

/*
 * Room on deck goes to the best that waits and is still worth it. KVBI_LOCK_BATCH at a time: after
 * a clear the whole queue may be stale. What is left over waits for the next round, which comes at
 * once.
 */
static void refill(struct kvbi_lane *lane)
{
    uint32_t offers[KVBI_LOCK_BATCH], looked = 0, count;
    do {
        uint32_t room = lane->ondeck_capacity - kvbi_lane_ondeck(lane),
                 left = KVBI_LOCK_BATCH - looked;
        uint32_t max = room < left ? room : left;
        for (count = 0; count < max && kvbi_in_queue_ready(&lane->queue) > 0; count++)
            offers[count] = kvbi_in_queue_pop(&lane->queue);
        warm_sources(lane, offers, count);
        for (uint32_t i = 0; i < count; i++)
            consider(lane, offers[i]);
        looked += count;
    } while (count > 0 && looked < KVBI_LOCK_BATCH);
}

/*
 * How many of those on deck may be taken now; whether the budget delays others, and how long it
 * did, is noted.
 */
static uint32_t within_budget(struct kvbi_lane *lane, uint32_t max, uint64_t now_ns)
{
    struct kvbi_lane_book *book = &lane->book;
    uint32_t wanted = kvbi_lane_ondeck(lane) < max ? kvbi_lane_ondeck(lane) : max;
    uint32_t allowed = kvbi_budget_blocks(&lane->budget, wanted, now_ns);
    if (book->throttled)
        book->stats.throttled_ns += now_ns - book->throttled_since_ns;
    book->throttled = allowed < wanted;
    book->throttled_since_ns = now_ns;
    return allowed;
}

bool kvbi_lane_next_locked(const struct kvbi_lane *lane, uint64_t *next_ns)
{
    kvbi_lock_assert_held(&lane->store->lock);
    *next_ns = kvbi_budget_next_ns(&lane->budget);
    return lane->book.throttled;
}

uint32_t kvbi_lane_take_locked(struct kvbi_lane *lane, uint32_t *offers, uint32_t max,
                               uint64_t now_ns)
{
    kvbi_lock_assert_held(&lane->store->lock);
    uint32_t room = lane->inflight_max - lane->book.inflight;
    uint32_t count = 0;
    if (max > lane->batch)
        max = lane->batch;
    if (max > room)
        max = room;
    kvbi_lane_resume_locked(lane);
    refill(lane);
    max = within_budget(lane, max, now_ns);
    for (uint32_t looked = 0, id; looked < KVBI_LOCK_BATCH && count < max; looked++) {
        kvbi_lock_step();
        if ((id = kvbi_bands_lowest(&lane->deck)) == KVBI_NONE)
            break;
        take_off_deck(lane, id);
        if (!kvbi_lane_claim_locked(lane, kvbi_in_queue_at(&lane->queue, id))) {
            defer_offer(lane, id, false, now_ns);
            continue;
        }
        offers[count++] = id;
    }
    kvbi_lane_book_begin(&lane->book, count, now_ns);
    refill(lane);
    note_held(lane);
    return count;
}

void kvbi_lane_refuse_locked(struct kvbi_lane *lane, uint32_t id, uint64_t now_ns)
{
    kvbi_lock_assert_held(&lane->store->lock);
    lane->book.stats.skipped++;
    lane->book.stats.skipped_admission++;
    kvbi_lane_book_end(&lane->book, now_ns);
    drop_held(lane, id, now_ns);
}

void kvbi_lane_warm_aim_locked(const struct kvbi_lane *lane, const uint32_t *offers, uint32_t count)
{
    kvbi_lock_assert_held(&lane->store->lock);
    warm_sources(lane, offers, count);
    kvbi_store_warm_take_locked(lane->store, lane->to, count);
}

/*
 * A taken offer has no target. `earliest`: there are some, which are ready then at the earliest,
 * and it waits; unless this is the end, after which nobody looks there.
 */
static void leave_without_target(struct kvbi_lane *lane, uint32_t id, bool unready, uint64_t now_ns)
{
    if (unready && !atomic_load(&lane->store->closing)) {
        kvbi_in_queue_at(&lane->queue, id)->admitted = true;
        defer_offer(lane, id, true, now_ns);
        kvbi_deferred_await_room(&lane->queue.deferred, lane->to->room);
        lane->to->room_awaited = true;
        return;
    }
    lane->book.stats.cancelled += unready;
    drop_held(lane, id, now_ns);
}

enum kvbi_aim kvbi_lane_aim_locked(struct kvbi_lane *lane, uint32_t id, struct kvbi_copy *copy,
                                   uint64_t now_ns)
{
    kvbi_lock_assert_held(&lane->store->lock);
    struct kvbi_offer *offer = kvbi_in_queue_at(&lane->queue, id);
    struct kvb_block *source = source_of(lane, offer);
    struct kvb_lane_stats *stats = &lane->book.stats;
    struct kvb_block *target = NULL;
    struct kvbi_criteria criteria = {.band_max = offer->priority,
                                     .lines = &lane->engines->lines,
                                     .allow_unready =
                                         offer->unready || lane->unready < lane->unready_max};
    if (!still_there(lane, offer)) {
        stats->discarded++;
    } else if (!(lane->store->serving & 1u << lane->to->tier)) {
        stats->skipped++;
        stats->skipped_out_of_service++;
    } else if (present_below(lane, source)) {
        stats->skipped++;
        stats->skipped_present++;
    } else {
        target = kvbi_store_take_target_locked(lane->store, lane->to, &criteria, now_ns);
        if (target == NULL && lane->to->cut_short)
            return KVBI_AIM_AGAIN;
        bool none = target == NULL && !criteria.unready;
        stats->skipped += none;
        stats->skipped_no_target += none;
    }
    if (target == NULL) {
        kvbi_lane_book_end(&lane->book, now_ns);
        leave_without_target(lane, id, criteria.unready, now_ns);
        return KVBI_AIM_DROPPED;
    }
    kvbi_engines_forget_captured(lane->engines, &target->ticket);
    kvbi_lane_claim_target_locked(lane, offer, target->ticket);
    target->priority = source->priority;
    target->retention_ns = source->retention_ns;
    kvbi_store_fill_begin_locked(lane->store, lane->to, target, source->entry);
    kvbi_budget_spend(&lane->budget, now_ns);
    offer->target = kvbi_pool_slot(lane->to, target);
    offer->label = NULL;
    if (lane->to_tier->lasting != NULL)
        offer->label = kvbi_labels_take_locked(&lane->labels, lane->store, target,
                                               (uint32_t)lane->to_tier->block_bytes);
    *copy = (struct kvbi_copy){.from = lane->from_tier,
                               .to = lane->to_tier,
                               .from_slot = offer->slot,
                               .to_slot = offer->target,
                               .tickets = {source->ticket, target->ticket},
                               .cookie = id,
                               .identity = kvbi_lane_identity(lane->store, target, target),
                               .label = offer->label};
    return KVBI_AIM_COPY;
}

void kvbi_lane_warm_complete_locked(const struct kvbi_lane *lane, const uint32_t *offers,
                                    uint32_t count)
{
    uint32_t targets[KVBI_LOCK_BATCH];
    kvbi_lock_assert_held(&lane->store->lock);
    for (uint32_t i = 0; i < count; i++)
        __builtin_prefetch(kvbi_in_queue_at(&lane->queue, offers[i]), 1);
    for (uint32_t i = 0; i < count; i++) {
        const struct kvbi_offer *offer = kvbi_in_queue_at(&lane->queue, offers[i]);
        targets[i] = offer->target;
        __builtin_prefetch(&lane->to->slots[targets[i]], 1);
        __builtin_prefetch(source_of(lane, offer), 1);
    }
    kvbi_store_warm_parked_locked(lane->store, lane->to, targets, count);
}

struct kvb_block *kvbi_lane_complete_locked(struct kvbi_lane *lane, uint32_t id, int result,
                                            uint64_t now_ns)
{
    kvbi_lock_assert_held(&lane->store->lock);
    const struct kvbi_offer *offer = kvbi_in_queue_at(&lane->queue, id);
    struct kvb_block *target = &lane->to->slots[offer->target];
    if (offer->label != NULL)
        kvbi_labels_give_locked(&lane->labels, lane->store, offer->label);
    bool published = kvbi_store_fill_end_locked(lane->store, lane->to, target, result == 0, now_ns);
    kvbi_lane_book_complete(&lane->book, result, published, lane->to_tier->block_bytes, now_ns);
    drop_held(lane, id, now_ns);
    return published ? target : NULL;
}
