/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handing out what an operation has brought, or giving it back; and who in the GPU's memory still
 * writes it.
 *
 * Callers    api/move and offload/round, through onboard.h. Lock: the store's.
 */
#include "offload/onboard.h"

#include "store/contents.h"

/* What a batch of handing out has in common. */
struct handout {
    struct kvbi_onboarding *onboarding;
    const struct kvb_op *op;
    struct kvbi_pool *pool;
    struct kvbi_parking parking;
    uint64_t now_ns;
};

/* A handle that the operation gives up. It may be the block's last one, as any user's. */
static void give_up(struct handout *handout, struct kvb_block *block)
{
    kvbi_lanes_unref_locked(handout->onboarding->down, &handout->parking, handout->pool, block,
                            handout->now_ns);
}

/*
 * In place of a block that others share by now: another one, or NULL if none is free. Last of all
 * it may be the very one, which only a lane has left on deck. *again: more is to be looked at, in
 * another section.
 */
static struct kvb_block *exchange(struct handout *handout, struct kvb_block *block, bool *again)
{
    struct kvbi_lanes *lanes = handout->onboarding->down;
    struct kvb_block *other = kvbi_lanes_take_locked(lanes, handout->pool, true, handout->now_ns);
    *again = other == NULL && handout->pool->cut_short;
    if (*again)
        return NULL;
    give_up(handout, block);
    if (other == NULL)
        other = kvbi_lanes_take_locked(lanes, handout->pool, true, handout->now_ns);
    if (other != NULL)
        kvbi_op_set_tickets_locked(handout->onboarding, handout->op, other);
    return other;
}

/*
 * A block that arrived, but after one that did not: its user is to compute it, so it must be Empty.
 * If somebody shares it by now, it stays and the user gets another one, or NULL.
 */
static struct kvb_block *make_empty(struct handout *handout, struct kvb_block *block, bool *again)
{
    struct kvbi_store *store = handout->onboarding->store;
    uint64_t word = atomic_load_explicit(&block->word, memory_order_relaxed);
    uint64_t generation = kvbi_word_generation(word);
    uint64_t alone = generation << KVBI_USERS_BITS | 1,
             renewed = (generation + 1) << KVBI_USERS_BITS | 1;
    if (block->holds > 0 || generation == KVBI_GENERATION_MAX ||
        !atomic_compare_exchange_strong_explicit(&block->word, &alone, renewed,
                                                 memory_order_acq_rel, memory_order_relaxed))
        return exchange(handout, block, again);
    struct kvbi_move nothing = {0};
    kvbi_store_drop_offer_locked(store, handout->pool, block);
    if (block->entry != KVBI_NONE)
        kvbi_store_detach_locked(store, handout->pool, block);
    int error = kvbi_life_move(block, KVBI_EDGE_EVICT, &nothing, NULL);
    KVBI_ASSERT(error == 0);
    (void)error;
    KVBI_ASSERT(block->offer == KVBI_NONE);
    kvbi_slot_forget_content(block);
    block->record = kvbi_records_take(&store->records);
    return block;
}

/*
 * One handle on the right block for the caller; whatever else the item has goes back. Unless
 * *again.
 */
static struct kvb_block *hand_out(struct handout *handout, struct kvbi_item *item, bool *again)
{
    bool joined = item->result != NULL && item->result != item->target;
    if (item->stage == KVBI_ITEM_FAILED)
        return item->target;
    if (item->index < handout->op->failed_at) {
        if (joined)
            give_up(handout, item->target);
        return item->result;
    }
    if (!joined)
        return make_empty(handout, item->target, again);
    give_up(handout, item->result);
    return item->target;
}

static void give_back(struct handout *handout, struct kvbi_item *item)
{
    if (item->result != NULL && item->result != item->target)
        give_up(handout, item->result);
    give_up(handout, item->target);
}

bool kvbi_op_take_locked(struct kvbi_onboarding *onboarding, struct kvb_op *op,
                         struct kvb_block **blocks, uint64_t now_ns)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    struct handout handout = {.onboarding = onboarding,
                              .op = op,
                              .pool = &onboarding->store->pools[op->tier],
                              .now_ns = now_ns};
    for (uint32_t n = 0; n < KVBI_LOCK_BATCH && op->last != KVBI_NONE; n++) {
        kvbi_lock_step();
        struct kvbi_item *item = &onboarding->items[op->last]; /* tail first, as every release */
        bool again = false;
        if (blocks != NULL)
            blocks[item->index] = hand_out(&handout, item, &again);
        else
            give_back(&handout, item);
        if (again)
            break;
        kvbi_op_unlink_locked(onboarding, item);
    }
    kvbi_lanes_parked_locked(onboarding->down, &handout.parking);
    return op->last != KVBI_NONE;
}

/*
 * The flight that writes this item's block; KVB_EAGAIN: none yet. The block may be another
 * operation's, which it joins.
 */
static int flight_of(const struct kvbi_onboarding *onboarding, const struct kvbi_item *item,
                     uint64_t *flights)
{
    const struct kvbi_pool *pool = &onboarding->store->pools[item->tier];
    const struct kvbi_item *moving = item;
    if (item->stage == KVBI_ITEM_WAITING) {
        uint32_t on = kvbi_waiters_on(&onboarding->waiters, (uint32_t)(item - onboarding->items));
        if (on == KVBI_NONE)
            return KVB_EAGAIN; /* it has come, and its joiners are not told yet */
        moving = &onboarding->items[on];
    }
    if (moving->stage != KVBI_ITEM_MOVING || moving->tier != item->tier)
        return KVB_EAGAIN;
    uint32_t flight =
        kvbi_engines_flight(onboarding->engines, kvbi_pool_slot(pool, moving->target));
    if (flight >= KVBI_FLIGHT_NONE)
        return KVB_EAGAIN;
    *flights |= UINT64_C(1) << flight;
    return 0;
}

/*
 * Joined where the server has computed it: registered, but it may be written only when its ticket
 * is reached. KVB_EAGAIN: no stream can wait for that. KVB_EINVAL: nobody can say when it is.
 */
static int add_server(const struct kvbi_onboarding *onboarding, const struct kvbi_item *item,
                      struct kvbi_op_writers *writers)
{
    uint64_t ticket = item->result->ticket;
    if (item->result == item->target)
        return 0;
    if (kvbi_engines_captured(onboarding->engines, ticket))
        return KVB_EINVAL;
    if (kvbi_ticket_reached(&onboarding->engines->lines, ticket))
        return 0;
    if (!kvbi_ticket_is_stream(ticket))
        return KVB_EAGAIN;
    kvbi_stream_points_add(&writers->points, ticket);
    return 0;
}

int kvbi_op_writers_locked(const struct kvbi_onboarding *onboarding, const struct kvb_op *op,
                           uint32_t *cursor, struct kvbi_op_writers *writers)
{
    kvbi_lock_assert_held(&onboarding->store->lock);
    bool lost = *cursor == KVBI_NONE || onboarding->items[*cursor].op != kvbi_op_id(onboarding, op);
    /* the list has changed meanwhile: once more from its beginning */
    uint32_t id = lost ? op->first : *cursor;
    int error = 0;
    for (uint32_t n = 0; n < KVBI_LOCK_BATCH && id != KVBI_NONE && error == 0; n++) {
        const struct kvbi_item *item = &onboarding->items[id];
        if (item->stage == KVBI_ITEM_FAILED)
            return 0; /* the good prefix ends before it */
        if (item->stage != KVBI_ITEM_GOOD)
            error = flight_of(onboarding, item, &writers->flights);
        else
            error = add_server(onboarding, item, writers);
        id = item->next;
    }
    *cursor = id;
    return error != 0 ? error : id != KVBI_NONE;
}
