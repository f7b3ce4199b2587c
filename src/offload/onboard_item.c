/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One block on its way up: beginning, hopping, moving. Who waits for it is in onboard_wait.c, being
 * cut off in onboard_cut.c.
 *
 * Callers    onboard.c and offload/progress, through onboard.h. Lock: the store's.
 */
#include "offload/onboard_item.h"

#include "store/contents.h"

struct kvbi_item *kvbi_item_at(const struct kvbi_onboarding *onboarding, uint32_t tier,
                               uint32_t slot)
{
    return &onboarding->items[onboarding->base[tier] + slot];
}

/* ---- Moving ---------------------------------------------------------------------------------- */

static void set_source(struct kvbi_onboarding *onboarding, struct kvbi_item *item,
                       struct kvb_block *source)
{
    item->source = source;
    kvbi_store_hold_locked(onboarding->store, kvbi_store_pool_of(onboarding->store, source),
                           source);
}

void kvbi_item_drop_source(struct kvbi_onboarding *onboarding, struct kvbi_item *item,
                           uint64_t now_ns)
{
    struct kvb_block *source = item->source;
    item->source = NULL;
    kvbi_store_unhold_locked(onboarding->store, kvbi_store_pool_of(onboarding->store, source),
                             source, now_ns);
}

struct kvbi_onboard_lane *kvbi_item_lane(struct kvbi_onboarding *onboarding,
                                         const struct kvbi_item *item)
{
    const struct kvbi_pool *pool = kvbi_store_pool_of(onboarding->store, item->source);
    return &onboarding->lanes[onboarding->down->upper[pool->tier]];
}

void kvbi_item_queue_up(struct kvbi_onboarding *onboarding, struct kvbi_item *item,
                        struct kvb_block *source)
{
    set_source(onboarding, item, source);
    kvbi_item_queue_again(onboarding, item);
}

void kvbi_item_queue_again(struct kvbi_onboarding *onboarding, struct kvbi_item *item)
{
    struct kvbi_onboard_lane *lane = kvbi_item_lane(onboarding, item);
    item->stage = KVBI_ITEM_QUEUED;
    lane->book.stats.offered++;
    onboarding->store->work = true;
    kvbi_bands_push_young(&lane->queue, kvbi_item_id(onboarding, item), item->priority);
}

void kvbi_item_begin_locked(struct kvbi_onboarding *onboarding, struct kvbi_item *item,
                            struct kvb_block *source)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    struct kvbi_pool *pool = kvbi_item_pool(onboarding, item);
    struct kvbi_index *index = &onboarding->store->index;
    if (!kvbi_store_is_known_locked(onboarding->store, source)) {
        kvbi_op_resolve_locked(onboarding, item, false);
        return;
    }
    const struct kvbi_entry *entry = kvbi_index_at(index, source->entry);
    uint32_t slot = entry->copies[item->tier];
    if (slot == KVBI_NONE) {
        item->target->priority = source->priority; /* only of a target that gets the content */
        item->target->retention_ns = source->retention_ns;
        kvbi_store_fill_begin_locked(onboarding->store, pool, item->target, source->entry);
        item->claims = true;
        kvbi_item_queue_up(onboarding, item, source);
        return;
    }
    onboarding->lanes[item->tier].book.stats.joined++;
    if (!(entry->ready & 1u << item->tier)) {
        kvbi_item_wait_on(onboarding, item, kvbi_item_at(onboarding, item->tier, slot));
    } else if (kvbi_store_ref_locked(onboarding->store, pool, &pool->slots[slot]) == 0) {
        item->result = &pool->slots[slot];
        kvbi_op_resolve_locked(onboarding, item, true);
    } else {
        kvbi_op_resolve_locked(onboarding, item, false);
    }
}

/* ---- The engine ------------------------------------------------------------------------------ */

static void move(struct kvbi_onboarding *onboarding, struct kvbi_item *item, struct kvbi_copy *copy)
{
    const struct kvbi_pool *from = kvbi_store_pool_of(onboarding->store, item->source);
    item->stage = KVBI_ITEM_MOVING;
    *copy = (struct kvbi_copy){
        .from = &onboarding->tiers[from->tier],
        .to = &onboarding->tiers[item->tier],
        .from_slot = kvbi_pool_slot(from, item->source),
        .to_slot = kvbi_pool_slot(kvbi_item_pool(onboarding, item), item->target),
        .tickets = {.source = item->source->ticket, .target = item->target->ticket},
        .cookie = kvbi_item_id(onboarding, item),
        .place = &item->node.extra,
        .layered = item->op != KVBI_NONE && onboarding->ops[item->op].layered,
        .identity = kvbi_lane_identity(onboarding->store, item->target, item->source)};
}

/*
 * A block in between carries the content up; the item waits for it. NULL: there is no room for one,
 * or none that meets `criteria`.
 */
static struct kvbi_item *make_carrier(struct kvbi_onboarding *onboarding, struct kvbi_item *item,
                                      uint32_t tier, struct kvbi_criteria *criteria,
                                      uint64_t now_ns)
{
    struct kvbi_pool *pool = &onboarding->store->pools[tier];
    struct kvb_block *target =
        kvbi_lanes_take_target_locked(onboarding->down, pool, criteria, now_ns);
    if (target == NULL)
        return NULL;
    kvbi_engines_forget_captured(onboarding->engines, &target->ticket);
    struct kvbi_item *carrier = kvbi_item_at(onboarding, tier, kvbi_pool_slot(pool, target));
    *carrier = (struct kvbi_item){.op = KVBI_NONE,
                                  .prev = KVBI_NONE,
                                  .next = KVBI_NONE,
                                  .priority = item->priority,
                                  .tier = (uint8_t)tier,
                                  .claims = true,
                                  .target = target,
                                  .source = item->source};
    target->priority = item->source->priority;
    target->retention_ns = item->source->retention_ns;
    kvbi_store_fill_begin_locked(onboarding->store, pool, target,
                                 kvbi_item_content(onboarding, item));
    item->source = NULL; /* the carrier holds it from here on */
    kvbi_item_wait_on(onboarding, item, carrier);
    return carrier;
}

/* Whoever else brings it into the tier in between, or has, saves this item the trip. */
static bool use_copy_between(struct kvbi_onboarding *onboarding, struct kvbi_item *item,
                             uint32_t tier, uint64_t now_ns)
{
    const struct kvbi_entry *entry =
        kvbi_index_at(&onboarding->store->index, kvbi_item_content(onboarding, item));
    uint32_t slot = entry->copies[tier];
    if (slot == KVBI_NONE)
        return false;
    onboarding->lanes[tier].book.stats.skipped++;
    onboarding->lanes[tier].book.stats.skipped_present++;
    kvbi_item_drop_source(onboarding, item, now_ns);
    if (entry->ready & 1u << tier)
        kvbi_item_queue_up(onboarding, item, &onboarding->store->pools[tier].slots[slot]);
    else
        kvbi_item_wait_on(onboarding, item, kvbi_item_at(onboarding, tier, slot));
    return true;
}

/* Is what the item reads still the content that it brings? */
static bool is_readable(const struct kvbi_onboarding *onboarding, const struct kvbi_item *item)
{
    const struct kvbi_pool *from = kvbi_store_pool_of(onboarding->store, item->source);
    return kvbi_item_content(onboarding, item) != KVBI_NONE && item->source->entry != KVBI_NONE &&
           kvbi_pool_serves(from, kvbi_pool_slot(from, item->source));
}

enum taken { TAKEN_COPY, TAKEN_OTHERWISE, TAKEN_NO_ROOM };

/*
 * An item off the lane's queue becomes a copy for the engine, or waits for another's, or has ended;
 * or there is no room for it.
 */
static enum taken take_one(struct kvbi_onboarding *onboarding, uint32_t tier,
                           struct kvbi_item *item, struct kvbi_copy *copy, uint64_t now_ns)
{
    struct kvbi_lane_book *book = &onboarding->lanes[tier].book;
    struct kvbi_item *moves = item;
    struct kvbi_criteria criteria = kvbi_carrier_criteria(onboarding, tier);
    if (!is_readable(onboarding, item) || !kvbi_store_serves(onboarding->store, item->tier)) {
        book->stats.discarded++;
        kvbi_item_drop_source(onboarding, item, now_ns);
        kvbi_item_fail_claim(onboarding, item);
        return TAKEN_OTHERWISE;
    }
    if (tier != item->tier && use_copy_between(onboarding, item, tier, now_ns))
        return TAKEN_OTHERWISE;
    bool ready = kvbi_item_may_move_locked(onboarding, tier, kvbi_item_tickets(tier, item));
    if (ready && tier != item->tier)
        moves = make_carrier(onboarding, item, tier, &criteria, now_ns);
    bool cut_short = ready && moves == NULL && onboarding->store->pools[tier].cut_short;
    if (!ready || (moves == NULL && !cut_short && criteria.unready)) {
        kvbi_item_defer_locked(onboarding, tier, item, criteria.unready);
        return TAKEN_OTHERWISE;
    }
    if (moves == NULL)
        return TAKEN_NO_ROOM;
    move(onboarding, moves, copy);
    kvbi_item_claim_locked(onboarding, tier, moves);
    kvbi_lane_book_begin(book, 1, now_ns);
    return TAKEN_COPY;
}

/* Will a transfer that writes or reads a block of the tier give one back, or one who is to be told
 * of its end? If not, waiting for it would be for ever. */
static bool room_is_coming(const struct kvbi_onboarding *onboarding, uint32_t tier)
{
    uint32_t above = onboarding->down->upper[tier];
    uint64_t moving = (uint64_t)onboarding->lanes[tier].book.inflight +
                      kvbi_lanes_moving_locked(onboarding->down, tier);
    /* what is queued there reads blocks of this tier, and needs no room in it */
    if (above != KVBI_NONE)
        moving += onboarding->lanes[above].book.inflight +
                  kvbi_onboard_lane_queued(&onboarding->lanes[above]);
    return moving > 0 || kvbi_waiters_any_ended(&onboarding->waiters);
}

/*
 * Items for which no room was found: back in line, in order, if some may come; else they have lost.
 */
static void set_back(struct kvbi_onboarding *onboarding, uint32_t tier, const uint32_t *items,
                     uint32_t count, uint64_t now_ns)
{
    struct kvbi_onboard_lane *lane = &onboarding->lanes[tier];
    bool wait = count > 0 && (lane->search_on || room_is_coming(onboarding, tier));
    onboarding->store->pools[tier].room_awaited |= wait;
    while (count-- > 0) {
        struct kvbi_item *item = &onboarding->items[items[count]];
        if (wait) {
            kvbi_bands_push_old(&lane->queue, items[count], item->priority);
            continue;
        }
        lane->book.stats.skipped++;
        lane->book.stats.skipped_no_target++;
        kvbi_item_drop_source(onboarding, item, now_ns);
        kvbi_item_fail_claim(onboarding, item);
    }
}

/* Both ends of items, and what is in them, will be looked at. */
static void warm_ends(const struct kvbi_onboarding *onboarding, const uint32_t *items,
                      uint32_t count)
{
    struct kvb_block *targets[KVBI_LOCK_BATCH];
    for (uint32_t i = 0; i < count; i++) {
        targets[i] = onboarding->items[items[i]].target;
        __builtin_prefetch(targets[i], 1);
        __builtin_prefetch(onboarding->items[items[i]].source, 1);
    }
    kvbi_store_warm_contents_locked(onboarding->store, targets, count);
}

/* The first `max` in line, taken out of it. */
static uint32_t pop_items(struct kvbi_onboarding *onboarding, struct kvbi_onboard_lane *lane,
                          uint32_t *items, uint32_t max)
{
    uint32_t count = 0;
    for (; count < max && lane->queue.count > 0; count++) {
        kvbi_lock_step();
        items[count] = kvbi_bands_highest(&lane->queue);
        kvbi_bands_remove(&lane->queue, items[count]);
    }
    warm_ends(onboarding, items, count);
    return count;
}

uint32_t kvbi_onboarding_take_locked(struct kvbi_onboarding *onboarding, uint32_t tier,
                                     struct kvbi_copy *copies, uint32_t max, uint64_t now_ns)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    struct kvbi_onboard_lane *lane = &onboarding->lanes[tier];
    uint32_t items[KVBI_LOCK_BATCH], roomless[KVBI_LOCK_BATCH], roomless_count = 0, taken = 0,
                                                                looked = 0, count;
    uint32_t room = lane->inflight_max - lane->book.inflight;
    lane->search_on = false;
    if (max > lane->batch)
        max = lane->batch;
    if (max > room)
        max = room;
    kvbi_onboarding_resume_locked(onboarding, tier);
    do {
        uint32_t left = KVBI_LOCK_BATCH - looked;
        count = pop_items(onboarding, lane, items, max - taken < left ? max - taken : left);
        for (uint32_t i = 0; i < count; i++) {
            switch (
                take_one(onboarding, tier, &onboarding->items[items[i]], &copies[taken], now_ns)) {
            case TAKEN_COPY:
                taken++;
                break;
            case TAKEN_NO_ROOM: /* what stands behind it may need none */
                lane->search_on |= onboarding->store->pools[tier].cut_short;
                roomless[roomless_count++] = items[i];
                break;
            case TAKEN_OTHERWISE:
                break;
            }
        }
        looked += count;
    } while (count > 0 && looked < KVBI_LOCK_BATCH);
    set_back(onboarding, tier, roomless, roomless_count, now_ns);
    if (lane->book.inflight > lane->book.stats.pinned_max)
        lane->book.stats.pinned_max = lane->book.inflight;
    return taken;
}

/* What a disk does not give back as it was written is not offered again. Memory's copies are not to
 * blame for a failure, nor is a disk for a GPU's. */
static void forget_unreadable(struct kvbi_onboarding *onboarding, struct kvb_block *source,
                              int result)
{
    struct kvbi_pool *pool = kvbi_store_pool_of(onboarding->store, source);
    if (!pool->in_memory && result != 0 && result != KVB_ECANCELED && result != KVB_EDEVICE &&
        source->entry != KVBI_NONE)
        kvbi_store_forget_copy_locked(onboarding->store, pool, source);
}

void kvbi_onboarding_warm_complete_locked(const struct kvbi_onboarding *onboarding,
                                          const uint32_t *items, uint32_t count)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    for (uint32_t i = 0; i < count; i++)
        __builtin_prefetch(&onboarding->items[items[i]].target, 1);
    warm_ends(onboarding, items, count);
}

const struct kvb_block *kvbi_onboarding_source_locked(const struct kvbi_onboarding *onboarding,
                                                      uint32_t id)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    return onboarding->items[id].source;
}

struct kvb_block *kvbi_onboarding_complete_locked(struct kvbi_onboarding *onboarding, uint32_t id,
                                                  int result, uint64_t now_ns)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    struct kvbi_item *item = &onboarding->items[id];
    int said = result;
    kvbi_item_unclaim_locked(onboarding, item);
    if (result == KVB_ECANCELED && kvbi_item_restart_locked(onboarding, item, now_ns)) {
        kvbi_lane_book_complete(&onboarding->lanes[item->tier].book, result, false, 0, now_ns);
        forget_unreadable(onboarding, item->source, said);
        return NULL;
    }
    if (result == 0 && !kvbi_store_serves(onboarding->store, item->tier))
        result = KVB_EDEVICE; /* what a lost tier says now is not believed */
    bool published = kvbi_store_fill_end_locked(onboarding->store, kvbi_item_pool(onboarding, item),
                                                item->target, result == 0, now_ns);
    kvbi_lane_book_complete(&onboarding->lanes[item->tier].book, result, published,
                            onboarding->tiers[item->tier].block_bytes, now_ns);
    forget_unreadable(onboarding, item->source, said);
    kvbi_item_drop_source(onboarding, item, now_ns);
    item->claims = false;
    kvbi_item_filled(onboarding, item, published);
    struct kvb_block *target = item->target;
    if (published)
        item->result = target;
    kvbi_item_resolve(onboarding, item, published);
    return published ? target : NULL;
}
