/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations: building, cutting short, finishing. What happens to one block is in onboard_item.c,
 * what becomes of the blocks of one that is finished in onboard_take.c.
 */
#include "offload/onboard.h"

/* ---- Create ---------------------------------------------------------------------------------- */

static void create_lane(struct kvbi_onboarding *onboarding, uint32_t tier,
                        const struct kvb_tier_config *config)
{
    struct kvbi_onboard_lane *lane = &onboarding->lanes[tier];
    kvbi_bands_init(&lane->queue, &onboarding->items[0].node, sizeof *onboarding->items);
    lane->batch = config->batch;
    kvbi_deferred_init(&lane->deferred, &onboarding->engines->lines, &onboarding->items[0].node,
                       sizeof *onboarding->items);
    lane->inflight_max = config->batch * config->depth;
    lane->unready_max = lane->inflight_max / 2;
    lane->book.stats.from_tier = onboarding->down->out[tier].lanes[0]->to->tier;
    lane->book.stats.to_tier = tier;
}

int kvbi_onboarding_create(struct kvbi_onboarding *onboarding, struct kvbi_lanes *down,
                           const struct kvb_tier_config *configs, uint32_t op_capacity)
{
    *onboarding = (struct kvbi_onboarding){.down = down,
                                           .store = down->store,
                                           .engines = down->engines,
                                           .tiers = down->tiers,
                                           .op_capacity = op_capacity,
                                           .aborted = op_capacity,
                                           .cut_first = KVBI_NONE,
                                           .finished = {KVBI_NONE, KVBI_NONE}};
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++) {
        bool has_lane = kvbi_lanes_leave(down, tier);
        onboarding->base[tier] = has_lane ? onboarding->item_count : KVBI_NONE;
        onboarding->item_count += has_lane ? configs[tier].block_count : 0;
    }
    const struct kvbi_memory *memory = onboarding->store->memory;
    uint32_t items = onboarding->item_count > 0 ? onboarding->item_count : 1;
    onboarding->items = kvbi_memory_alloc(memory, items, sizeof *onboarding->items, 64);
    onboarding->ops = kvbi_memory_alloc(memory, op_capacity, sizeof *onboarding->ops, 64);
    if (onboarding->items == NULL || onboarding->ops == NULL ||
        kvbi_waiters_create(&onboarding->waiters, memory, items) != 0 ||
        kvbi_deadlines_create(&onboarding->deadlines, memory, op_capacity) != 0) {
        kvbi_onboarding_destroy(onboarding);
        return KVB_ENOMEM;
    }
    for (uint32_t i = 0; i < items; i++)
        onboarding->items[i].op = KVBI_NONE;
    for (uint32_t i = 0; i < op_capacity; i++)
        onboarding->ops[i].next = i + 1 < op_capacity ? i + 1 : KVBI_NONE;
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++)
        if (kvbi_lanes_leave(down, tier))
            create_lane(onboarding, tier, &configs[tier]);
    return 0;
}

void kvbi_onboarding_destroy(struct kvbi_onboarding *onboarding)
{
    if (onboarding->store == NULL)
        return;
    const struct kvbi_memory *memory = onboarding->store->memory;
    kvbi_deadlines_destroy(&onboarding->deadlines);
    kvbi_waiters_destroy(&onboarding->waiters);
    kvbi_memory_free(memory, onboarding->ops, onboarding->op_capacity, sizeof *onboarding->ops);
    kvbi_memory_free(memory, onboarding->items,
                     onboarding->item_count > 0 ? onboarding->item_count : 1,
                     sizeof *onboarding->items);
    *onboarding = (struct kvbi_onboarding){0};
}

size_t kvbi_onboarding_bytes(const struct kvbi_onboarding *onboarding)
{
    return (size_t)onboarding->item_count * sizeof *onboarding->items +
           kvbi_waiters_bytes(&onboarding->waiters) +
           (size_t)onboarding->op_capacity *
               (sizeof *onboarding->ops + sizeof(struct kvbi_deadline) + sizeof(uint32_t));
}

static bool is_aborting(const struct kvbi_onboarding *onboarding)
{
    return onboarding->aborted < onboarding->op_capacity;
}

bool kvbi_onboarding_idle_locked(const struct kvbi_onboarding *onboarding)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++)
        if (kvbi_onboard_lane_queued(&onboarding->lanes[tier]) > 0 ||
            onboarding->lanes[tier].book.inflight > 0)
            return false;
    return onboarding->cut_first == KVBI_NONE && onboarding->finished.first == KVBI_NONE &&
           !kvbi_waiters_any_ended(&onboarding->waiters) && !is_aborting(onboarding);
}

void kvbi_onboarding_await_locked(const struct kvbi_onboarding *onboarding,
                                  struct kvbi_awaited *awaited)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++)
        if (kvbi_lanes_leave(onboarding->down, tier))
            kvbi_awaited_merge(awaited, &onboarding->lanes[tier].deferred.awaited);
}

/* ---- Lists ----------------------------------------------------------------------------------- */

static uint32_t item_id(const struct kvbi_onboarding *onboarding, const struct kvbi_item *item)
{
    return (uint32_t)(item - onboarding->items);
}

/*
 * The neighbours of `item` in its operation's list, which point at `was`, shall point at `before`
 * and `after` in its stead.
 */
static void redirect(struct kvbi_onboarding *onboarding, const struct kvbi_item *item, uint32_t was,
                     uint32_t before, uint32_t after)
{
    struct kvb_op *op = &onboarding->ops[item->op];
    if (item->prev != KVBI_NONE)
        onboarding->items[item->prev].next = after;
    else
        op->first = after;
    if (item->next != KVBI_NONE)
        onboarding->items[item->next].prev = before;
    else
        op->last = before;
    if (op->sweep == was)
        op->sweep = after;
}

void kvbi_op_unlink_locked(struct kvbi_onboarding *onboarding, struct kvbi_item *item)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    redirect(onboarding, item, item_id(onboarding, item), item->prev, item->next);
    item->stage = KVBI_ITEM_NONE;
    item->op = item->prev = item->next = KVBI_NONE;
}

/* `item` has taken over the links of `was`: make the neighbours agree. */
static void relink(struct kvbi_onboarding *onboarding, const struct kvbi_item *item, uint32_t was)
{
    redirect(onboarding, item, was, item_id(onboarding, item), item_id(onboarding, item));
}

void kvbi_op_swap_locked(struct kvbi_onboarding *onboarding, struct kvbi_item *a,
                         struct kvbi_item *b)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    uint32_t a_id = item_id(onboarding, a), b_id = item_id(onboarding, b);
    uint32_t op = a->op, index = a->index, prev = a->prev, next = a->next;
    KVBI_ASSERT(a->op != b->op);
    a->op = b->op, a->index = b->index, a->prev = b->prev, a->next = b->next;
    b->op = op, b->index = index, b->prev = prev, b->next = next;
    relink(onboarding, a, b_id);
    relink(onboarding, b, a_id);
}

void kvbi_op_replace_locked(struct kvbi_onboarding *onboarding, struct kvbi_item *old,
                            struct kvbi_item *item)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    *item = (struct kvbi_item){.op = old->op,
                               .index = old->index,
                               .prev = old->prev,
                               .next = old->next,
                               .tier = old->tier};
    relink(onboarding, item, item_id(onboarding, old));
    old->op = old->prev = old->next = KVBI_NONE;
}

/* ---- Building -------------------------------------------------------------------------------- */

bool kvbi_op_valid_locked(const struct kvbi_onboarding *onboarding, const struct kvb_op *op)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    uintptr_t first = (uintptr_t)onboarding->ops, address = (uintptr_t)op;
    return address >= first && address - first < (uintptr_t)onboarding->op_capacity * sizeof *op &&
           (address - first) % sizeof *op == 0 && op->state >= KVBI_OP_RUNNING && !op->released;
}

struct kvb_op *kvbi_op_new_locked(struct kvbi_onboarding *onboarding,
                                  const struct kvb_onboard *request, uint32_t tier)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    if (onboarding->op_count == onboarding->op_capacity)
        return NULL;
    struct kvb_op *op = &onboarding->ops[onboarding->op_free];
    onboarding->op_free = op->next;
    onboarding->op_count++;
    *op = (struct kvb_op){.first = KVBI_NONE,
                          .last = KVBI_NONE,
                          .pending = 1, /* the building itself */
                          .failed_at = request->count,
                          .sweep = KVBI_NONE,
                          .next = KVBI_NONE,
                          .next_cut = KVBI_NONE,
                          .tier = tier,
                          .state = KVBI_OP_BUILDING,
                          .layered = (request->flags & KVB_ONBOARD_LAYERS) != 0,
                          .done = request->done,
                          .arg = request->arg};
    return op;
}

int kvbi_op_reserve_locked(struct kvbi_onboarding *onboarding, struct kvb_op *op,
                           const struct kvb_block *source, struct kvb_block *target)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    struct kvbi_pool *from = kvbi_store_pool_of(onboarding->store, source);
    struct kvbi_pool *to = kvbi_store_pool_of(onboarding->store, target);
    if (from == NULL || to == NULL || to->tier != op->tier || from->tier <= to->tier)
        return KVB_EINVAL;
    uint64_t users = kvbi_word_users(atomic_load_explicit(&target->word, memory_order_acquire));
    if (users == 0 ||
        kvbi_word_users(atomic_load_explicit(&source->word, memory_order_acquire)) == 0)
        return KVB_EINVAL;
    if (kvbi_life_get(source).state != KVB_STATE_REGISTERED)
        return KVB_ESTATE;
    struct kvbi_item *item = kvbi_item_at(onboarding, to->tier, kvbi_pool_slot(to, target));
    if (item->stage != KVBI_ITEM_NONE)
        return item->op == kvbi_op_id(onboarding, op) ? KVB_EINVAL : KVB_ESTATE;
    if (kvbi_life_get(target).state != KVB_STATE_EMPTY)
        return KVB_ESTATE;
    if (users != 1)
        return KVB_ESHARED;
    *item = (struct kvbi_item){.op = kvbi_op_id(onboarding, op),
                               .prev = KVBI_NONE,
                               .next = KVBI_NONE,
                               .stage = KVBI_ITEM_RESERVED,
                               .tier = (uint8_t)to->tier,
                               .target = target};
    return 0;
}

void kvbi_op_unreserve_locked(struct kvbi_onboarding *onboarding, const struct kvb_op *op,
                              const struct kvb_block *target)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    struct kvbi_pool *pool = &onboarding->store->pools[op->tier];
    struct kvbi_item *item = kvbi_item_at(onboarding, op->tier, kvbi_pool_slot(pool, target));
    item->stage = KVBI_ITEM_NONE;
    item->op = KVBI_NONE;
}

void kvbi_op_add_locked(struct kvbi_onboarding *onboarding, struct kvb_op *op,
                        struct kvb_block *source, struct kvb_block *target, uint32_t priority)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    struct kvbi_pool *pool = &onboarding->store->pools[op->tier];
    struct kvbi_item *item = kvbi_item_at(onboarding, op->tier, kvbi_pool_slot(pool, target));
    uint32_t id = item_id(onboarding, item);
    item->index = op->count++;
    item->priority = (uint8_t)priority;
    item->prev = op->last;
    if (op->last != KVBI_NONE)
        onboarding->items[op->last].next = id;
    else
        op->first = id;
    op->last = id;
    op->pending++;
    op->ticket = kvbi_engines_latest(onboarding->engines, op->ticket, target->ticket);
    /* something before it has failed already */
    if (op->failed_at < item->index)
        kvbi_op_resolve_locked(onboarding, item, false);
    else
        kvbi_item_begin_locked(onboarding, item, source);
}

void kvbi_op_set_tickets_locked(struct kvbi_onboarding *onboarding, const struct kvb_op *op,
                                struct kvb_block *block)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    block->ticket = kvbi_engines_latest(onboarding->engines, block->ticket, op->ticket);
}

/* ---- Ending ---------------------------------------------------------------------------------- */

static void push(struct kvbi_onboarding *onboarding, struct kvbi_op_list *list, struct kvb_op *op)
{
    op->next = KVBI_NONE;
    if (list->last != KVBI_NONE)
        onboarding->ops[list->last].next = kvbi_op_id(onboarding, op);
    else
        list->first = kvbi_op_id(onboarding, op);
    list->last = kvbi_op_id(onboarding, op);
}

static void begin_cut(struct kvbi_onboarding *onboarding, struct kvb_op *op)
{
    if (op->on_cut_list)
        return;
    op->on_cut_list = true;
    op->prev_cut = KVBI_NONE;
    op->next_cut = onboarding->cut_first;
    if (op->next_cut != KVBI_NONE)
        onboarding->ops[op->next_cut].prev_cut = kvbi_op_id(onboarding, op);
    onboarding->cut_first = kvbi_op_id(onboarding, op);
    onboarding->store->work = true;
}

static void end_cut(struct kvbi_onboarding *onboarding, struct kvb_op *op)
{
    if (!op->on_cut_list)
        return;
    if (op->prev_cut != KVBI_NONE)
        onboarding->ops[op->prev_cut].next_cut = op->next_cut;
    else
        onboarding->cut_first = op->next_cut;
    if (op->next_cut != KVBI_NONE)
        onboarding->ops[op->next_cut].prev_cut = op->prev_cut;
    op->on_cut_list = false;
}

static void finish_if_over(struct kvbi_onboarding *onboarding, struct kvb_op *op)
{
    if (op->pending > 0)
        return;
    op->status = op->failed_at < op->count ? op->abort : 0;
    op->state = KVBI_OP_FINISHED;
    onboarding->completed += op->status == 0;
    onboarding->cancelled += op->status == KVB_ECANCELED;
    onboarding->timed_out += op->status == KVB_ETIMEDOUT;
    kvbi_deadlines_remove(&onboarding->deadlines, kvbi_op_id(onboarding, op));
    end_cut(onboarding, op);
    push(onboarding, &onboarding->finished, op);
    onboarding->store->work = true;
}

void kvbi_op_resolve_locked(struct kvbi_onboarding *onboarding, struct kvbi_item *item, bool good)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    struct kvb_op *op = &onboarding->ops[item->op];
    item->stage = good ? KVBI_ITEM_GOOD : KVBI_ITEM_FAILED;
    if (!good && item->index < op->failed_at) {
        op->failed_at = item->index;
        if (op->abort == 0 && item->next != KVBI_NONE) {
            /* what comes after is of no use to this operation */
            op->sweep = item->next;
            begin_cut(onboarding, op);
        }
    }
    op->pending--;
    finish_if_over(onboarding, op);
}

void kvbi_op_start_locked(struct kvbi_onboarding *onboarding, struct kvb_op *op,
                          uint64_t deadline_ns)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    op->state = KVBI_OP_RUNNING;
    onboarding->started++;
    if (deadline_ns != 0)
        kvbi_deadlines_set(&onboarding->deadlines, kvbi_op_id(onboarding, op), deadline_ns);
    onboarding->store->work |= deadline_ns != 0; /* progress may be asleep for longer than that */
    op->pending--;
    finish_if_over(onboarding, op);
}

void kvbi_op_abort_locked(struct kvbi_onboarding *onboarding, struct kvb_op *op, int status)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    if (op->state != KVBI_OP_RUNNING || op->abort != 0)
        return;
    op->abort = status;
    op->sweep = op->first;
    begin_cut(onboarding, op);
}

void kvbi_onboarding_abort_all_locked(struct kvbi_onboarding *onboarding)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    onboarding->aborted = 0;
}

static void abort_some(struct kvbi_onboarding *onboarding)
{
    for (uint32_t n = 0; n < KVBI_LOCK_BATCH && is_aborting(onboarding); n++) {
        kvbi_lock_step();
        kvbi_op_abort_locked(onboarding, &onboarding->ops[onboarding->aborted++], KVB_ECANCELED);
    }
}

bool kvbi_onboarding_cut_locked(struct kvbi_onboarding *onboarding, uint64_t now_ns)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    uint32_t id;
    for (uint32_t n = 0;
         n < KVBI_LOCK_BATCH && kvbi_deadlines_pop_due(&onboarding->deadlines, now_ns, &id); n++)
        kvbi_op_abort_locked(onboarding, &onboarding->ops[id], KVB_ETIMEDOUT);
    abort_some(onboarding);
    for (uint32_t looked = 0; looked < KVBI_LOCK_BATCH; looked++) {
        if (onboarding->cut_first == KVBI_NONE)
            return is_aborting(onboarding);
        struct kvb_op *op = &onboarding->ops[onboarding->cut_first];
        if (op->sweep == KVBI_NONE) {
            end_cut(onboarding, op);
            continue;
        }
        struct kvbi_item *item = &onboarding->items[op->sweep];
        kvbi_lock_step();
        op->sweep = item->next;
        if (!kvbi_item_cut_locked(onboarding, item, now_ns))
            op->sweep = item_id(onboarding, item); /* it is as before, and so are its neighbours */
    }
    return onboarding->cut_first != KVBI_NONE;
}

struct kvb_op *kvbi_onboarding_next_finished_locked(struct kvbi_onboarding *onboarding)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    if (onboarding->finished.first == KVBI_NONE)
        return NULL;
    struct kvb_op *op = &onboarding->ops[onboarding->finished.first];
    onboarding->finished.first = op->next;
    if (op->next == KVBI_NONE)
        onboarding->finished.last = KVBI_NONE;
    return op;
}

void kvbi_op_free_locked(struct kvbi_onboarding *onboarding, struct kvb_op *op)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    op->state = KVBI_OP_FREE;
    op->next = onboarding->op_free;
    onboarding->op_free = kvbi_op_id(onboarding, op);
    onboarding->op_count--;
}
