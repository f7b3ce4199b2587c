/* SPDX-License-Identifier: Apache-2.0 */
/* One round of progress. See round.h. */
#include "offload/round.h"

#include "offload/progress.h"
#include "store/contents.h"

/*
 * A copy's cookie says whose it is: an item of onboarding (KVBI_COOKIE_ONBOARD), or an offer of the
 * lane with this number in the list.
 */
#define TAG_LANE_SHIFT 32

/* ---- Before the engine ----------------------------------------------------------------------- */

static bool expire_pins(struct kvbi_progress *progress, uint64_t now_ns)
{
    struct kvbi_store *store = progress->store;
    struct kvbi_parking parking = {0};
    uint64_t owners[KVBI_LOCK_BATCH];
    uint32_t count = 0;
    kvbi_lock_take(&store->lock);
    struct kvb_block *block;
    while (count < KVBI_LOCK_BATCH &&
           (block = kvbi_pins_pop_due(&store->pins, now_ns, &owners[count])) != NULL) {
        store->pins_expired++;
        count++;
        kvbi_lanes_unref_locked(&progress->pipeline->lanes, &parking,
                                kvbi_store_pool_of(store, block), block, now_ns);
    }
    kvbi_lanes_parked_locked(&progress->pipeline->lanes, &parking);
    kvbi_lock_release(&store->lock);
    for (uint32_t i = 0; i < count; i++)
        kvbi_log(store->log, KVB_LOG_WARN, 0, "pin of owner %llu released: its lifetime has ended",
                 (unsigned long long)owners[i]);
    return count > 0;
}

/*
 * Who waited for a fill that is over is told in a section of its own; who is left, in the rounds
 * that follow.
 */
static void wake_waiters(struct kvbi_progress *progress, uint64_t now_ns)
{
    kvbi_lock_take(&progress->store->lock);
    (void)kvbi_onboarding_wake_locked(&progress->pipeline->onboard, now_ns);
    kvbi_lock_release(&progress->store->lock);
}

static bool cut_operations(struct kvbi_progress *progress, uint64_t now_ns)
{
    struct kvbi_onboarding *onboarding = &progress->pipeline->onboard;
    kvbi_lock_take(&progress->store->lock);
    bool had = onboarding->cut_first != KVBI_NONE;
    bool more = kvbi_onboarding_cut_locked(onboarding, now_ns);
    bool ended = kvbi_waiters_any_ended(&onboarding->waiters);
    kvbi_lock_release(&progress->store->lock);
    if (ended)
        wake_waiters(progress, now_ns);
    return had || more || ended;
}

/* Who waits for tickets in front of a tier that is lost now waits in vain. */
static bool look_at_health(struct kvbi_progress *progress)
{
    if (!kvbi_health_look(&progress->pipeline->health))
        return false;
    kvbi_lock_take(&progress->store->lock);
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++)
        kvbi_deferred_look(&progress->pipeline->onboard.lanes[tier].deferred);
    kvbi_lock_release(&progress->store->lock);
    return true;
}

static bool forget_lost(struct kvbi_progress *progress)
{
    kvbi_lock_take(&progress->store->lock);
    bool worked = kvbi_health_forget_locked(&progress->pipeline->health);
    kvbi_lock_release(&progress->store->lock);
    return worked;
}

static bool offer_cold(struct kvbi_progress *progress, uint64_t now_ns)
{
    bool more = false;
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++) {
        if (!kvbi_lanes_leave(&progress->pipeline->lanes, tier))
            continue;
        kvbi_lock_take(&progress->store->lock);
        more |= kvbi_lanes_cold_locked(&progress->pipeline->lanes, &progress->store->pools[tier],
                                       now_ns);
        kvbi_lock_release(&progress->store->lock);
    }
    return more;
}

/* ---- Into the engine ------------------------------------------------------------------------- */

static struct kvbi_engine *engine_of(const struct kvbi_engines *engines,
                                     const struct kvbi_copy *copy)
{
    return kvbi_engines_between(engines, copy->from, copy->to);
}

/* What comes up may come from several tiers: each to the engine that moves it. */
static void submit(struct kvbi_progress *progress, struct kvbi_copy *copies, uint32_t count,
                   bool urgent)
{
    const struct kvbi_engines *engines = &progress->pipeline->engines;
    for (uint32_t first = 0, n; first < count; first += n) {
        struct kvbi_engine *engine = engine_of(engines, &copies[first]);
        for (n = 1; first + n < count && engine_of(engines, &copies[first + n]) == engine;)
            n++;
        int error = engine->ops->submit(engine, &copies[first], n, urgent);
        KVBI_ASSERT(error == 0); /* its capacity is the sum of what the lanes may have there */
        (void)error;
    }
}

static bool submit_onboard(struct kvbi_progress *progress, uint32_t tier, uint64_t now_ns)
{
    struct kvbi_copy copies[KVBI_LOCK_BATCH];
    struct kvbi_onboarding *onboarding = &progress->pipeline->onboard;
    kvbi_lock_take(&progress->store->lock);
    const struct kvbi_onboard_lane *lane = &onboarding->lanes[tier];
    uint32_t before = lane->queue.count;
    uint64_t changes = lane->deferred.changes;
    uint32_t count = kvbi_onboarding_take_locked(onboarding, tier, copies, KVBI_LOCK_BATCH, now_ns);
    bool worked = count > 0 || lane->queue.count != before || lane->search_on ||
                  lane->deferred.changes != changes || lane->deferred.walking;
    for (uint32_t i = 0; i < count; i++)
        kvbi_health_begun_locked(&progress->pipeline->health,
                                 &progress->store->pools[copies[i].from->tier],
                                 copies[i].from_slot);
    bool ended = kvbi_waiters_any_ended(&onboarding->waiters);
    kvbi_lock_release(&progress->store->lock);
    for (uint32_t i = 0; i < count; i++)
        copies[i].cookie |= KVBI_COOKIE_ONBOARD;
    submit(progress, copies, count, true);
    if (ended)
        wake_waiters(progress, now_ns);
    return worked || ended;
}

static bool admitted(struct kvbi_progress *progress, const struct kvbi_lane *lane,
                     const struct kvbi_event_item *item, uint32_t priority)
{
    const struct kvb_admission *admission = &progress->pipeline->admission;
    struct kvb_admission_request request = {.size = sizeof request,
                                            .from_tier = lane->from->tier,
                                            .to_tier = lane->to->tier,
                                            .namespace_id = item->namespace_id,
                                            .priority = priority,
                                            .key = item->key};
    return admission->admit(admission->context, &request) != 0;
}

/*
 * Asks about each taken offer, with no lock held; refused ones are dropped. Returns how many are
 * left.
 */
static uint32_t ask_admission(struct kvbi_progress *progress, struct kvbi_lane *lane,
                              uint32_t *offers, uint32_t count, uint64_t now_ns)
{
    uint32_t kept = 0;
    if (progress->pipeline->admission.admit == NULL)
        return count;
    for (uint32_t i = 0; i < count; i++) {
        struct kvbi_event_item item;
        kvbi_lock_take(&progress->store->lock);
        const struct kvbi_offer *offer = kvbi_in_queue_at(&lane->queue, offers[i]);
        uint32_t entry = lane->from->slots[offer->slot].entry;
        uint32_t priority = offer->priority;
        bool asked = offer->admitted;
        if (entry != KVBI_NONE)
            kvbi_store_picture_locked(progress->store, KVB_EVENT_STORED, lane->from->tier, entry,
                                      &item);
        kvbi_lock_release(&progress->store->lock);
        if (entry == KVBI_NONE || asked || admitted(progress, lane, &item, priority)) {
            offers[kept++] = offers[i]; /* invalidated meanwhile: aiming will find out */
            continue;
        }
        kvbi_lock_take(&progress->store->lock);
        kvbi_lane_refuse_locked(lane, offers[i], now_ns);
        kvbi_lock_release(&progress->store->lock);
    }
    return kept;
}

static bool submit_offload(struct kvbi_progress *progress, uint32_t number, uint64_t now_ns)
{
    struct kvbi_lane *lane = &progress->pipeline->lanes.all[number];
    struct kvbi_copy copies[KVBI_LOCK_BATCH];
    uint32_t offers[KVBI_LOCK_BATCH], ready = 0;
    kvbi_lock_take(&progress->store->lock);
    uint32_t queued = kvbi_in_queue_ready(&lane->queue);
    uint64_t changes = lane->queue.deferred.changes;
    uint32_t count = kvbi_lane_take_locked(lane, offers, KVBI_LOCK_BATCH, now_ns);
    bool sorted = kvbi_in_queue_ready(&lane->queue) != queued ||
                  lane->queue.deferred.changes != changes || lane->queue.deferred.walking;
    kvbi_lock_release(&progress->store->lock);
    if (count == 0)
        return sorted;
    uint32_t kept = ask_admission(progress, lane, offers, count, now_ns);
    kvbi_lock_take(&progress->store->lock);
    kvbi_lane_warm_aim_locked(lane, offers, kept);
    for (uint32_t i = 0; i < kept;) {
        enum kvbi_aim aim = kvbi_lane_aim_locked(lane, offers[i], &copies[ready], now_ns);
        if (aim == KVBI_AIM_AGAIN) { /* let others in */
            kvbi_lock_release(&progress->store->lock);
            kvbi_lock_take(&progress->store->lock);
            continue;
        }
        i++;
        if (aim == KVBI_AIM_DROPPED)
            continue;
        kvbi_health_begun_locked(&progress->pipeline->health, lane->to, copies[ready].to_slot);
        ready++;
    }
    kvbi_lock_release(&progress->store->lock);
    for (uint32_t i = 0; i < ready; i++)
        copies[i].cookie |= (uint64_t)number << TAG_LANE_SHIFT;
    submit(progress, copies, ready, false);
    return true;
}

/* ---- Out of the engine ----------------------------------------------------------------------- */

static void apply_offload(struct kvbi_progress *progress, const struct kvbi_completion *completion,
                          uint64_t now_ns)
{
    struct kvbi_pipeline *pipeline = progress->pipeline;
    struct kvbi_lane *lane = &pipeline->lanes.all[completion->cookie >> TAG_LANE_SHIFT];
    uint32_t offer = (uint32_t)completion->cookie;
    uint32_t slot = kvbi_in_queue_at(&lane->queue, offer)->target;
    int result = completion->result;
    /* retired when it is given back, which is now */
    if (completion->condemned && lane->to->in_memory)
        lane->to->slots[slot].flags |= KVBI_SLOT_CONDEMNED;
    kvbi_health_answered_locked(&pipeline->health, lane->to, slot, result, completion->condemned);
    if (result == 0 &&
        !(kvbi_store_serves(progress->store, lane->from->tier) && kvbi_pool_serves(lane->to, slot)))
        result = KVB_EIO; /* what a lost tier or file says now is not believed */
    struct kvb_block *block = kvbi_lane_complete_locked(lane, offer, result, now_ns);
    kvbi_onboarding_filled_locked(&pipeline->onboard, lane->to->tier, slot, block != NULL);
    if (block != NULL)
        kvbi_lanes_arrived_locked(&pipeline->lanes, lane->to, block);
}

static void apply_onboard(struct kvbi_progress *progress, const struct kvbi_completion *completion,
                          uint64_t now_ns)
{
    struct kvbi_pipeline *pipeline = progress->pipeline;
    uint32_t item = (uint32_t)completion->cookie;
    const struct kvb_block *source = kvbi_onboarding_source_locked(&pipeline->onboard, item);
    struct kvbi_pool *from = kvbi_store_pool_of(progress->store, source);
    kvbi_health_answered_locked(&pipeline->health, from, kvbi_pool_slot(from, source),
                                completion->result, completion->condemned);
    kvbi_onboarding_complete_locked(&pipeline->onboard, item, completion->result, now_ns);
}

static void apply(struct kvbi_progress *progress, const struct kvbi_completion *completion,
                  uint64_t now_ns)
{
    kvbi_lock_step();
    if (completion->cookie & KVBI_COOKIE_ONBOARD)
        apply_onboard(progress, completion, now_ns);
    else
        apply_offload(progress, completion, now_ns);
}

/* Warms what applying them will touch, all of it at once. */
static void warm(const struct kvbi_pipeline *pipeline, const struct kvbi_completion *completions,
                 uint32_t count)
{
    uint32_t ids[KVBI_LOCK_BATCH], onboarded = 0;
    for (uint32_t i = 0; i < count; i++)
        if (completions[i].cookie & KVBI_COOKIE_ONBOARD)
            ids[onboarded++] = (uint32_t)completions[i].cookie;
    kvbi_onboarding_warm_complete_locked(&pipeline->onboard, ids, onboarded);
    for (uint32_t lane = 0; lane < pipeline->lanes.count && onboarded < count; lane++) {
        uint32_t offloaded = 0;
        for (uint32_t i = 0; i < count; i++)
            if (completions[i].cookie >> TAG_LANE_SHIFT == lane)
                ids[offloaded++] = (uint32_t)completions[i].cookie;
        if (offloaded > 0)
            kvbi_lane_warm_complete_locked(&pipeline->lanes.all[lane], ids, offloaded);
    }
}

static bool reap(struct kvbi_progress *progress, struct kvbi_engine *engine, uint64_t until_ns)
{
    struct kvbi_completion completions[KVBI_LOCK_BATCH];
    bool more = false;
    uint32_t count = engine->ops->reap(engine, completions, KVBI_LOCK_BATCH, until_ns, &more);
    if (count == 0)
        return more;
    uint64_t now_ns = kvbi_clock_now(progress->store->clock);
    kvbi_lock_take(&progress->store->lock);
    warm(progress->pipeline, completions, count);
    for (uint32_t i = 0; i < count; i++)
        apply(progress, &completions[i], now_ns);
    bool ended = kvbi_waiters_any_ended(&progress->pipeline->onboard.waiters);
    kvbi_lock_release(&progress->store->lock);
    if (ended)
        wake_waiters(progress, now_ns);
    kvbi_health_tell(&progress->pipeline->health);
    for (uint32_t i = 0; i < count; i++)
        if (completions[i].result != 0 && completions[i].result != KVB_ECANCELED)
            kvbi_log(progress->store->log, KVB_LOG_WARN, completions[i].result,
                     "a block's transfer failed: a miss");
    return true;
}

/* ---- Delivery -------------------------------------------------------------------------------- */

static void give_back_released(struct kvbi_progress *progress, struct kvb_op *op)
{
    struct kvbi_onboarding *onboarding = &progress->pipeline->onboard;
    bool more = true;
    while (more) {
        kvbi_lock_take(&progress->store->lock);
        more = kvbi_op_take_locked(onboarding, op, NULL, kvbi_clock_now(progress->store->clock));
        if (!more)
            kvbi_op_free_locked(onboarding, op);
        kvbi_lock_release(&progress->store->lock);
    }
}

static bool deliver_op(struct kvbi_progress *progress)
{
    kvbi_lock_take(&progress->store->lock);
    struct kvb_op *op = kvbi_onboarding_next_finished_locked(&progress->pipeline->onboard);
    kvbi_lock_release(&progress->store->lock);
    if (op == NULL)
        return false;
    kvbi_lock_assert_none_held();
    if (op->done != NULL)
        op->done(op->arg, op, op->status, op->failed_at);
    kvbi_lock_take(&progress->store->lock);
    op->state = KVBI_OP_DELIVERED;
    bool released = op->released;
    kvbi_cond_broadcast(&progress->changed);
    kvbi_lock_release(&progress->store->lock);
    if (released)
        give_back_released(progress, op);
    return true;
}

/*
 * Up to KVBI_LOCK_BATCH of them: out of the ring in one section, their records given back in
 * another.
 */
static bool deliver_events(struct kvbi_progress *progress)
{
    struct kvbi_store *store = progress->store;
    struct kvbi_event_item items[KVBI_LOCK_BATCH];
    uint32_t count = 0;
    if (progress->sink.deliver == NULL)
        return false;
    kvbi_lock_take(&store->lock);
    while (count < KVBI_LOCK_BATCH && kvbi_event_log_pop(&store->events, &items[count]))
        count++;
    kvbi_lock_release(&store->lock);
    if (count == 0)
        return false;
    kvbi_lock_assert_none_held();
    for (uint32_t i = 0; i < count; i++) {
        struct kvb_event event = kvbi_event_view(&items[i], &store->records);
        progress->sink.deliver(progress->sink.context, &event);
    }
    kvbi_lock_take(&store->lock);
    for (uint32_t i = 0; i < count; i++)
        kvbi_event_log_release(&store->events, &store->records, &items[i]);
    kvbi_lock_release(&store->lock);
    return true;
}

bool kvbi_round(struct kvbi_progress *progress, uint64_t until_ns)
{
    uint64_t now_ns = kvbi_clock_now(progress->store->clock);
    const struct kvbi_lines *lines = &progress->pipeline->engines.lines;
    uint64_t moves = atomic_load(&lines->moves);
    bool worked = cut_operations(progress, now_ns);
    worked |= expire_pins(progress, now_ns);
    worked |= look_at_health(progress);
    worked |= forget_lost(progress);
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++)
        if (kvbi_lanes_leave(&progress->pipeline->lanes, tier))
            worked |= submit_onboard(progress, tier, now_ns);
    worked |= offer_cold(progress, now_ns);
    for (uint32_t lane = 0; lane < progress->pipeline->lanes.count; lane++)
        worked |= submit_offload(progress, lane, now_ns);
    /* the disk's first: the memory's copies here */
    for (uint32_t i = progress->pipeline->engines.count; i-- > 0;)
        worked |= reap(progress, progress->pipeline->engines.all[i], until_ns);
    /* a look at the GPU's tickets came with it: somebody may wait for one in front of a lane */
    kvbi_engines_advance(&progress->pipeline->engines);
    worked |= atomic_load(&lines->moves) != moves;
    for (uint32_t n = 0; n < KVBI_LOCK_BATCH && deliver_op(progress); n++)
        worked = true;
    worked |= deliver_events(progress);
    return worked;
}
