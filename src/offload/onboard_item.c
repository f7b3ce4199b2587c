/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One block on its way up: joining, hopping, moving, failing, being cut off.
 *
 * Callers    onboard.c and offload/progress, through onboard.h. Lock: the store's.
 * Why        everything hangs on the slot that is filled: whoever wants its content waits on that slot's list, be it another
 *            operation (join), or the next hop of the same block. So one transfer serves all, and one failure fails all.
 */
#include "offload/onboard.h"

#include "offload/pipeline.h"

static uint32_t id_of(const struct kvbi_onboarding *onboarding, const struct kvbi_item *item)
{
    return (uint32_t)(item - onboarding->items);
}

struct kvbi_item *kvbi_item_at(const struct kvbi_onboarding *onboarding, uint32_t tier,
                               uint32_t slot)
{
    return &onboarding->items[onboarding->base[tier] + slot];
}

static struct kvbi_pool *pool_of(const struct kvbi_onboarding *onboarding,
                                 const struct kvbi_item *item)
{
    return &onboarding->store->pools[item->tier];
}

/* The content that a claiming item brings. KVBI_NONE: it was invalidated meanwhile. */
static uint32_t content_of(const struct kvbi_onboarding *onboarding, const struct kvbi_item *item)
{
    uint32_t entry = item->target->entry;
    const struct kvbi_index *index = &onboarding->store->index;
    return entry != KVBI_NONE && kvbi_index_alive(index, kvbi_index_at(index, entry)) ? entry
                                                                                      : KVBI_NONE;
}

/* ---- Waiting ---------------------------------------------------------------------------------------------------- */

static void wait_on(struct kvbi_onboarding *onboarding, struct kvbi_item *item,
                    struct kvbi_item *filling)
{
    item->stage = KVBI_ITEM_WAITING;
    item->waits_on = id_of(onboarding, filling);
    item->next_waiter = filling->first_waiter;
    filling->first_waiter = id_of(onboarding, item);
}

static void stop_waiting(struct kvbi_onboarding *onboarding, struct kvbi_item *item)
{
    uint32_t *link = &onboarding->items[item->waits_on].first_waiter;
    while (*link != id_of(onboarding, item))
        link = &onboarding->items[*link].next_waiter;
    *link = item->next_waiter;
    item->waits_on = KVBI_NONE;
}

/* ---- Moving ----------------------------------------------------------------------------------------------------- */

static void set_source(struct kvbi_onboarding *onboarding, struct kvbi_item *item,
                       struct kvb_block *source)
{
    item->source = source;
    kvbi_store_pin_locked(kvbi_store_pool_of(onboarding->store, source), source);
}

static void drop_source(struct kvbi_onboarding *onboarding, struct kvbi_item *item, uint64_t now_ns)
{
    struct kvb_block *source = item->source;
    item->source = NULL;
    kvbi_store_unpin_locked(onboarding->store, kvbi_store_pool_of(onboarding->store, source),
                            source, now_ns);
}

/* The lane that takes the item's source one tier up. */
static struct kvbi_onboard_lane *lane_of(struct kvbi_onboarding *onboarding,
                                         const struct kvbi_item *item)
{
    const struct kvbi_pool *pool = kvbi_store_pool_of(onboarding->store, item->source);
    return &onboarding->lanes[onboarding->pipeline->upper[pool->tier]];
}

static void queue_up(struct kvbi_onboarding *onboarding, struct kvbi_item *item,
                     struct kvb_block *source)
{
    set_source(onboarding, item, source);
    struct kvbi_onboard_lane *lane = lane_of(onboarding, item);
    item->stage = KVBI_ITEM_QUEUED;
    lane->book.stats.offered++;
    onboarding->store->work = true;
    kvbi_bands_push_young(&lane->queue, id_of(onboarding, item), item->priority);
}

void kvbi_item_begin_locked(struct kvbi_onboarding *onboarding, struct kvbi_item *item,
                            struct kvb_block *source)
{
    struct kvbi_pool *pool = pool_of(onboarding, item);
    struct kvbi_index *index = &onboarding->store->index;
    if (source->entry == KVBI_NONE ||
        !kvbi_index_alive(index, kvbi_index_at(index, source->entry))) {
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
        queue_up(onboarding, item, source);
        return;
    }
    onboarding->lanes[item->tier].book.stats.joined++;
    if (!(entry->ready & 1u << item->tier)) {
        wait_on(onboarding, item, kvbi_item_at(onboarding, item->tier, slot));
    } else if (kvbi_store_hold_locked(onboarding->store, pool, &pool->slots[slot]) == 0) {
        item->result = &pool->slots[slot];
        kvbi_op_resolve_locked(onboarding, item, true);
    } else {
        kvbi_op_resolve_locked(onboarding, item, false);
    }
}

/* ---- Ending ----------------------------------------------------------------------------------------------------- */

static void wake(struct kvbi_onboarding *onboarding, struct kvbi_item *filled, bool good,
                 uint64_t now_ns);

static void resolve(struct kvbi_onboarding *onboarding, struct kvbi_item *item, bool good)
{
    if (item->op != KVBI_NONE)
        kvbi_op_resolve_locked(onboarding, item, good);
    else
        item->stage = KVBI_ITEM_NONE;
}

/* The target is not written by anybody: it is Empty again, and who waited for its content has lost too. */
static void fail_claim(struct kvbi_onboarding *onboarding, struct kvbi_item *item, uint64_t now_ns)
{
    if (item->claims) {
        item->claims = false;
        kvbi_store_fill_abandon_locked(onboarding->store, pool_of(onboarding, item), item->target);
        if (item->target->place != KVBI_PLACE_HELD)
            kvbi_store_free_locked(onboarding->store, pool_of(onboarding, item), item->target);
        wake(onboarding, item, false, now_ns);
    }
    resolve(onboarding, item, false);
}

static void wake_one(struct kvbi_onboarding *onboarding, struct kvbi_item *filled,
                     struct kvbi_item *item, bool good, uint64_t now_ns)
{
    item->waits_on = KVBI_NONE;
    if (item->claims) {
        if (good && content_of(onboarding, item) != KVBI_NONE)
            queue_up(onboarding, item, filled->target);
        else
            fail_claim(onboarding, item, now_ns);
        return;
    }
    if (good &&
        kvbi_store_hold_locked(onboarding->store, pool_of(onboarding, filled), filled->target) == 0)
        item->result = filled->target;
    resolve(onboarding, item, item->result != NULL);
}

static void wake(struct kvbi_onboarding *onboarding, struct kvbi_item *filled, bool good,
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
    wake(onboarding, filled, good, now_ns);
}

/* ---- The engine ------------------------------------------------------------------------------------------------- */

static void move(struct kvbi_onboarding *onboarding, struct kvbi_item *item, struct kvbi_copy *copy)
{
    const struct kvbi_pipeline *pipeline = onboarding->pipeline;
    const struct kvbi_pool *from = kvbi_store_pool_of(onboarding->store, item->source);
    uint64_t after = item->source->ticket, free_since = item->target->ticket;
    item->stage = KVBI_ITEM_MOVING;
    kvbi_pipeline_disk_begun_locked(onboarding->pipeline, from, kvbi_pool_slot(from, item->source));
    *copy = (struct kvbi_copy){
        .from = &pipeline->tiers[from->tier],
        .to = &pipeline->tiers[item->tier],
        .from_slot = kvbi_pool_slot(from, item->source),
        .to_slot = kvbi_pool_slot(pool_of(onboarding, item), item->target),
        .ticket = after > free_since ? after : free_since,
        .tag = id_of(onboarding, item),
        .layered = item->op != KVBI_NONE && onboarding->ops[item->op].layered,
        .identity = kvbi_lane_identity(onboarding->store, item->target, item->source)};
}

/* A block in between carries the content up; the item waits for it. NULL: there is no room for one. */
static struct kvbi_item *make_carrier(struct kvbi_onboarding *onboarding, struct kvbi_item *item,
                                      uint32_t tier, uint64_t now_ns)
{
    struct kvbi_pool *pool = &onboarding->store->pools[tier];
    struct kvb_block *target = kvbi_pipeline_take_locked(onboarding->pipeline, pool, false, now_ns);
    if (target == NULL)
        return NULL;
    struct kvbi_item *carrier = kvbi_item_at(onboarding, tier, kvbi_pool_slot(pool, target));
    *carrier = (struct kvbi_item){.op = KVBI_NONE,
                                  .prev = KVBI_NONE,
                                  .next = KVBI_NONE,
                                  .waits_on = KVBI_NONE,
                                  .first_waiter = KVBI_NONE,
                                  .priority = item->priority,
                                  .tier = (uint8_t)tier,
                                  .claims = true,
                                  .target = target,
                                  .source = item->source};
    target->priority = item->source->priority;
    target->retention_ns = item->source->retention_ns;
    kvbi_store_fill_begin_locked(onboarding->store, pool, target, content_of(onboarding, item));
    item->source = NULL; /* its pin went to the carrier */
    wait_on(onboarding, item, carrier);
    return carrier;
}

/* Whoever else brings it into the tier in between, or has, saves this item the trip. */
static bool use_copy_between(struct kvbi_onboarding *onboarding, struct kvbi_item *item,
                             uint32_t tier, uint64_t now_ns)
{
    const struct kvbi_entry *entry =
        kvbi_index_at(&onboarding->store->index, content_of(onboarding, item));
    uint32_t slot = entry->copies[tier];
    if (slot == KVBI_NONE)
        return false;
    onboarding->lanes[tier].book.stats.skipped++;
    onboarding->lanes[tier].book.stats.skipped_present++;
    drop_source(onboarding, item, now_ns);
    if (entry->ready & 1u << tier)
        queue_up(onboarding, item, &onboarding->store->pools[tier].slots[slot]);
    else
        wait_on(onboarding, item, kvbi_item_at(onboarding, tier, slot));
    return true;
}

/* Is what the item reads still the content that it brings? */
static bool is_readable(const struct kvbi_onboarding *onboarding, const struct kvbi_item *item)
{
    const struct kvbi_pool *from = kvbi_store_pool_of(onboarding->store, item->source);
    return content_of(onboarding, item) != KVBI_NONE && item->source->entry != KVBI_NONE &&
           kvbi_pool_serves(from, kvbi_pool_slot(from, item->source));
}

enum taken { TAKEN_COPY, TAKEN_OTHERWISE, TAKEN_NO_ROOM };

/* An item off the lane's queue becomes a copy for the engine, or waits for another's, or has ended; or there is no room for it. */
static enum taken take_one(struct kvbi_onboarding *onboarding, uint32_t tier,
                           struct kvbi_item *item, struct kvbi_copy *copy, uint64_t now_ns)
{
    struct kvbi_lane_book *book = &onboarding->lanes[tier].book;
    struct kvbi_item *moves = item;
    if (!is_readable(onboarding, item) || !kvbi_pipeline_serves(onboarding->pipeline, item->tier)) {
        book->stats.discarded++;
        drop_source(onboarding, item, now_ns);
        fail_claim(onboarding, item, now_ns);
        return TAKEN_OTHERWISE;
    }
    if (tier != item->tier) {
        if (use_copy_between(onboarding, item, tier, now_ns))
            return TAKEN_OTHERWISE;
        moves = make_carrier(onboarding, item, tier, now_ns);
    }
    if (moves == NULL)
        return TAKEN_NO_ROOM;
    move(onboarding, moves, copy);
    kvbi_lane_book_begin(book, 1, now_ns);
    return TAKEN_COPY;
}

/* Will a transfer that writes or reads a block of the tier give one back? If not, waiting for it would be for ever. */
static bool room_is_coming(const struct kvbi_onboarding *onboarding, uint32_t tier)
{
    const struct kvbi_pipeline *pipeline = onboarding->pipeline;
    uint32_t above = pipeline->upper[tier];
    uint64_t moving = onboarding->lanes[tier].book.inflight + pipeline->lanes[tier].book.inflight;
    if (above !=
        KVBI_NONE) /* what is queued there reads blocks of this tier, and needs no room in it */
        moving += onboarding->lanes[above].book.inflight + onboarding->lanes[above].queue.count +
                  pipeline->lanes[above].book.inflight;
    return moving > 0;
}

/* Items for which there was no room: back in line, in order, if room will come; else they have lost. */
static void set_back(struct kvbi_onboarding *onboarding, uint32_t tier, const uint32_t *items,
                     uint32_t count, uint64_t now_ns)
{
    struct kvbi_onboard_lane *lane = &onboarding->lanes[tier];
    bool wait = count > 0 && room_is_coming(onboarding, tier);
    onboarding->store->pools[tier].room_wanted |= wait;
    while (count-- > 0) {
        struct kvbi_item *item = &onboarding->items[items[count]];
        if (wait) {
            kvbi_bands_push_old(&lane->queue, items[count], item->priority);
            continue;
        }
        lane->book.stats.skipped++;
        lane->book.stats.skipped_no_target++;
        drop_source(onboarding, item, now_ns);
        fail_claim(onboarding, item, now_ns);
    }
}

/* Both ends of items, and what is in them, will be looked at. */
static void expect_ends(const struct kvbi_onboarding *onboarding, const uint32_t *items,
                        uint32_t count)
{
    struct kvb_block *targets[KVBI_LOCK_BATCH];
    for (uint32_t i = 0; i < count; i++) {
        targets[i] = onboarding->items[items[i]].target;
        __builtin_prefetch(targets[i], 1);
        __builtin_prefetch(onboarding->items[items[i]].source, 1);
    }
    kvbi_store_expect_contents_locked(onboarding->store, targets, count);
}

/* The first `max` in line, taken out of it. */
static uint32_t pop_items(struct kvbi_onboarding *onboarding, struct kvbi_onboard_lane *lane,
                          uint32_t *items, uint32_t max)
{
    uint32_t count = 0;
    for (; count < max && lane->queue.count > 0; count++) {
        items[count] = kvbi_bands_highest(&lane->queue);
        kvbi_bands_remove(&lane->queue, items[count]);
    }
    expect_ends(onboarding, items, count);
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
    if (max > lane->batch)
        max = lane->batch;
    if (max > room)
        max = room;
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

/* What a disk does not give back as it was written is not offered again. Memory's copies are not to blame for a failure, nor is a disk
 * for a GPU's. */
static void forget_unreadable(struct kvbi_onboarding *onboarding, struct kvb_block *source,
                              int result, bool condemned)
{
    struct kvbi_pool *pool = kvbi_store_pool_of(onboarding->store, source);
    if (pool->in_memory)
        return;
    kvbi_pipeline_disk_answered_locked(onboarding->pipeline, pool, kvbi_pool_slot(pool, source),
                                       result, condemned);
    if (result != 0 && result != KVB_ECANCELED && result != KVB_EDEVICE &&
        source->entry != KVBI_NONE)
        kvbi_store_forget_copy_locked(onboarding->store, pool, source);
}

void kvbi_onboarding_expect_complete_locked(const struct kvbi_onboarding *onboarding,
                                            const uint32_t *items, uint32_t count)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    for (uint32_t i = 0; i < count; i++)
        __builtin_prefetch(&onboarding->items[items[i]].target, 1);
    expect_ends(onboarding, items, count);
}

struct kvb_block *kvbi_onboarding_complete_locked(struct kvbi_onboarding *onboarding, uint32_t id,
                                                  int result, bool condemned, uint64_t now_ns)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    struct kvbi_item *item = &onboarding->items[id];
    int said = result;
    if (result == 0 && !kvbi_pipeline_serves(onboarding->pipeline, item->tier))
        result = KVB_EDEVICE; /* what a lost tier says now is not believed */
    bool published = kvbi_store_fill_end_locked(onboarding->store, pool_of(onboarding, item),
                                                item->target, result == 0, now_ns);
    kvbi_lane_book_complete(&onboarding->lanes[item->tier].book, result, published,
                            onboarding->pipeline->tiers[item->tier].block_bytes, now_ns);
    forget_unreadable(onboarding, item->source, said, condemned);
    drop_source(onboarding, item, now_ns);
    item->claims = false;
    item->target->ticket = 0; /* nobody needs to wait for it any more */
    wake(onboarding, item, published, now_ns);
    struct kvb_block *target = item->target;
    if (published)
        item->result = target;
    resolve(onboarding, item, published);
    return published ? target : NULL;
}

/* ---- Being cut off ---------------------------------------------------------------------------------------------- */

/* Somebody of another operation who waits for the item's target: to join (claims false), or to go on from there (true). */
static struct kvbi_item *other_waiter(const struct kvbi_onboarding *onboarding,
                                      const struct kvbi_item *item, bool claims)
{
    for (uint32_t id = item->claims ? item->first_waiter : KVBI_NONE; id != KVBI_NONE;
         id = onboarding->items[id].next_waiter)
        if (onboarding->items[id].op != item->op && onboarding->items[id].claims == claims)
            return &onboarding->items[id];
    return NULL;
}

/*
 * The transfer goes on for the one who wants to join: the two operations exchange their targets, and the one that gives up
 * has an Empty block at once.
 */
static void hand_over(struct kvbi_onboarding *onboarding, struct kvbi_item *item,
                      struct kvbi_item *waiter)
{
    stop_waiting(onboarding, waiter);
    kvbi_op_swap_locked(onboarding, item, waiter);
    kvbi_op_resolve_locked(onboarding, waiter, false);
}

/*
 * The target is written and cannot be stopped, or somebody on the way up needs it: the operation lets go of it and gets
 * another block, if there is one.
 */
static void orphan(struct kvbi_onboarding *onboarding, struct kvbi_item *item, uint64_t now_ns)
{
    struct kvbi_pool *pool = pool_of(onboarding, item);
    struct kvb_block *other = kvbi_pipeline_take_locked(onboarding->pipeline, pool, true, now_ns);
    const struct kvb_op *op = &onboarding->ops[item->op];
    if (other != NULL) {
        struct kvbi_item *replacement =
            kvbi_item_at(onboarding, item->tier, kvbi_pool_slot(pool, other));
        kvbi_op_replace_locked(onboarding, item, replacement);
        replacement->target = other;
        kvbi_op_fence_locked(onboarding, op, other);
        kvbi_op_resolve_locked(onboarding, replacement, false);
    } else {
        uint8_t stage = item->stage;
        kvbi_op_resolve_locked(onboarding, item, false);
        kvbi_op_unlink_locked(onboarding, item);
        item->stage = stage;
    }
    item->op = KVBI_NONE;
    kvbi_store_release_locked(onboarding->store, pool, item->target, now_ns);
}

static void leave_queue(struct kvbi_onboarding *onboarding, struct kvbi_item *item, uint64_t now_ns)
{
    struct kvbi_onboard_lane *lane = lane_of(onboarding, item);
    kvbi_bands_remove(&lane->queue, id_of(onboarding, item));
    lane->book.stats.cancelled++;
    drop_source(onboarding, item, now_ns);
}

void kvbi_item_cut_locked(struct kvbi_onboarding *onboarding, struct kvbi_item *item,
                          uint64_t now_ns)
{
    bool forced = onboarding->ops[item->op].abort != 0;
    if (item->stage >= KVBI_ITEM_GOOD || (item->stage == KVBI_ITEM_MOVING && !forced))
        return;
    struct kvbi_item *joiner = other_waiter(onboarding, item, false);
    if (joiner != NULL) {
        hand_over(onboarding, item, joiner);
    } else if (item->stage == KVBI_ITEM_MOVING || other_waiter(onboarding, item, true) != NULL) {
        orphan(onboarding, item, now_ns);
    } else {
        if (item->stage == KVBI_ITEM_QUEUED)
            leave_queue(onboarding, item, now_ns);
        else
            stop_waiting(onboarding, item);
        fail_claim(onboarding, item, now_ns);
    }
}
