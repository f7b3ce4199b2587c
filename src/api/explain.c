/* SPDX-License-Identifier: Apache-2.0 */
/* Words for what was refused under the store's lock, or several calls below. See explain.h. */
#include "api/explain.h"

#include "api/manager.h"

void kvbi_explain_ref(struct kvbi_roll *roll, const struct kvb_block *block)
{
    if (roll->told == KVB_EAGAIN)
        (void)kvbi_roll_why(roll, roll->told_at, KVB_EAGAIN, block,
                            " has all the %llu handles that it can have",
                            (unsigned long long)KVBI_USERS_MAX);
    else
        (void)kvbi_roll_not_held(roll, roll->told_at, block);
}

void kvbi_explain_unref(struct kvbi_roll *roll, const struct kvb_block *block)
{
    struct kvbi_store *store = &roll->manager->store;
    uint32_t steps = kvbi_store_pool_of(store, block) == NULL ? 0 : kvbi_life_get(block).steps;
    if (steps > 0)
        (void)kvbi_roll_why(roll, roll->told_at, KVB_EINVAL, block,
                            ": the %u handles left are of its steps: compute_done gives them back",
                            steps);
    else
        (void)kvbi_roll_not_held(roll, roll->told_at, block);
}

void kvbi_explain_upgrade(struct kvbi_roll *roll, const struct kvb_weak *weak)
{
    if (roll->told == KVB_EINVAL && weak->tier >= KVB_TIER_COUNT)
        (void)kvbi_roll_why(roll, roll->told_at, KVB_EINVAL, NULL, ".tier is %u, must be 0..%d",
                            weak->tier, KVB_TIER_COUNT - 1);
    else if (roll->told == KVB_EINVAL)
        (void)kvbi_roll_why(roll, roll->told_at, KVB_EINVAL, NULL,
                            ".slot is %u, but %s has %u blocks", weak->slot,
                            kvbi_tier_name(weak->tier),
                            kvbi_store_pool(&roll->manager->store, weak->tier)->block_count);
    else if (roll->told == KVB_EAGAIN)
        (void)kvbi_roll_why(roll, roll->told_at, KVB_EAGAIN, NULL,
                            " (%s/%u) has all the %llu handles that it can have",
                            kvbi_tier_name(weak->tier), weak->slot,
                            (unsigned long long)KVBI_USERS_MAX);
    else if (roll->told == KVB_ESTATE)
        (void)kvbi_roll_why(roll, roll->told_at, KVB_ESTATE, NULL, ": " KVBI_CLOSING);
    else
        (void)kvbi_roll_why(roll, roll->told_at, roll->told, NULL,
                            " (%s/%u, generation %llu): that content is gone from there",
                            kvbi_tier_name(weak->tier), weak->slot,
                            (unsigned long long)weak->generation);
}

void kvbi_explain_register(struct kvbi_roll *roll, const struct kvb_block *block,
                           const struct kvb_fence *fence)
{
    int code = roll->told;
    if (code == KVB_ECOLLISION)
        (void)kvbi_roll_why(roll, roll->told_at, code, block,
                            ": its hash, or its parent's, is indexed for other content; it stays "
                            "Complete and is not found");
    else if (code == KVB_EUNSUPPORTED)
        kvbi_roll_fence(roll, roll->told_at, block, fence);
    else if (code == KVB_EAGAIN)
        (void)kvbi_roll_why(
            roll, roll->told_at, code, block,
            ": the block that is registered already has all the %llu handles that it can have",
            (unsigned long long)KVBI_USERS_MAX);
    else
        (void)kvbi_roll_edge(roll, roll->told_at, code, block, KVBI_EDGE_REGISTER);
}

int kvbi_refuse_key(struct kvb_manager *manager, const struct kvb_block *block, int error)
{
    struct kvbi_roll roll;
    struct kvbi_life life = kvbi_life_get(block);
    kvbi_roll_begin(&roll, manager, KVBI_CALL_BLOCK_KEY, "block", KVBI_ALONE, NULL);
    if (life.state == KVB_STATE_REGISTERED)
        (void)kvbi_roll_why(&roll, 0, error, block,
                            " has no name any more: its content was invalidated or cleared");
    else
        (void)kvbi_roll_why(
            &roll, 0, error, block,
            " is %s with %u of %u tokens named: it has a name once all are, or if init gives a key",
            kvbi_state_name(life.state), life.tokens, kvbi_store_tokens_per_block(&manager->store));
    kvbi_note(&roll, 0, error);
    return kvbi_roll_end(&roll);
}

int kvbi_refuse_chunk(struct kvb_manager *manager, uint32_t layer, uint32_t part, void **address)
{
    const struct kvb_layout *layout = &manager->layout;
    if (address == NULL)
        return kvbi_refuse_null(manager, KVBI_CALL_BLOCK_ADDRESS, "address", address);
    if (layer >= layout->layers)
        return kvbi_refuse(manager, KVBI_CALL_BLOCK_ADDRESS, KVB_EINVAL,
                           "layer is %u, must be 0..%u", layer, layout->layers - 1);
    return kvbi_refuse(manager, KVBI_CALL_BLOCK_ADDRESS, KVB_EINVAL, "part is %u, must be 0..%u",
                       part, layout->parts - 1);
}

void kvbi_explain_offload(struct kvbi_roll *roll, const struct kvb_block *block,
                          const struct kvb_fence *fence)
{
    uint32_t i = roll->told_at;
    if (roll->told == KVB_EINVAL) {
        (void)kvbi_roll_not_held(roll, i, block);
        return;
    }
    const struct kvbi_pool *pool = kvbi_store_pool_of(&roll->manager->store, block);
    uint8_t state = kvbi_life_get(block).state;
    if (roll->told == KVB_EUNSUPPORTED)
        kvbi_roll_fence(roll, i, block, fence);
    else if (roll->told == KVB_ENOENT)
        (void)kvbi_roll_why(roll, i, roll->told, block,
                            " is in the lowest tier, there is none below %s",
                            kvbi_tier_name(pool->tier));
    else if (roll->told == KVB_EBUSY)
        (void)kvbi_roll_why(roll, i, roll->told, block,
                            " is offered already, and that offer is not done");
    else if (state == KVB_STATE_REGISTERED)
        (void)kvbi_roll_why(roll, i, roll->told, block,
                            " is not indexed: a duplicate, or its content was invalidated");
    else
        (void)kvbi_roll_why(roll, i, roll->told, block, " is %s, must be Registered",
                            kvbi_state_name(state));
}

void kvbi_explain_offload_cancel(struct kvbi_roll *roll, const struct kvb_block *block)
{
    uint32_t i = roll->told_at;
    if (roll->told == KVB_EINVAL)
        (void)kvbi_roll_not_held(roll, i, block);
    else if (roll->told == KVB_EBUSY)
        (void)kvbi_roll_why(roll, i, roll->told, block,
                            " is on deck or in transfer: its offer does not wait any more");
    else
        (void)kvbi_roll_why(roll, i, roll->told, block, " is not offered");
}

void kvbi_explain_pin(struct kvbi_roll *roll, const struct kvb_block *block)
{
    if (roll->told == KVB_ENOSPC)
        (void)kvbi_roll_why(roll, roll->told_at, roll->told, block,
                            " cannot be pinned: all %u pins are in use (pin_capacity)",
                            kvbi_store_pins(&roll->manager->store)->capacity);
    else
        kvbi_explain_ref(roll, block);
}

void kvbi_explain_unpin(struct kvbi_roll *roll, const struct kvb_block *block, uint64_t owner)
{
    if (roll->told == KVB_ENOENT)
        (void)kvbi_roll_why(roll, roll->told_at, roll->told, block, " has no pin of owner %llu",
                            (unsigned long long)owner);
    else
        (void)kvbi_roll_not_held(roll, roll->told_at, block);
}

/* ---- Operations ------------------------------------------------------------------------------ */

int kvbi_check_request(struct kvb_manager *manager, const struct kvb_onboard *request)
{
    const enum kvbi_call call = KVBI_CALL_ONBOARD;
    if (request->count == 0 || request->count == UINT32_MAX)
        return kvbi_refuse(manager, call, KVB_EINVAL, "request.count is %u, must be 1..%u",
                           request->count, UINT32_MAX - 1);
    if (request->sources == NULL)
        return kvbi_refuse(manager, call, KVB_EINVAL, "request.sources is NULL, count is %u",
                           request->count);
    if (request->targets == NULL)
        return kvbi_refuse(manager, call, KVB_EINVAL, "request.targets is NULL, count is %u",
                           request->count);
    if ((request->flags & ~(KVB_ONBOARD_PRIORITY | KVB_ONBOARD_LAYERS)) != 0)
        return kvbi_refuse(
            manager, call, KVB_EINVAL,
            "request.flags is 0x%x, must be of KVB_ONBOARD_PRIORITY (%u) and KVB_ONBOARD_LAYERS "
            "(%u)",
            request->flags, KVB_ONBOARD_PRIORITY, KVB_ONBOARD_LAYERS);
    if (request->priority > KVB_PRIORITY_MAX)
        return kvbi_refuse(manager, call, KVB_EINVAL, "request.priority is %u, must be 0..%d",
                           request->priority, KVB_PRIORITY_MAX);
    return 0;
}

/* The earlier pair with the same target; `i` if there is none. */
static uint32_t first_with_target(const struct kvb_onboard *request, uint32_t i)
{
    uint32_t earlier = 0;
    while (request->targets[earlier] != request->targets[i])
        earlier++;
    return earlier;
}

/* KVB_EINVAL: which of the two is not what it must be? */
static void explain_places(struct kvbi_roll *sources, struct kvbi_roll *targets,
                           const struct kvb_onboard *request, uint32_t i)
{
    struct kvb_manager *manager = sources->manager;
    const struct kvb_block *source = request->sources[i], *target = request->targets[i];
    const struct kvbi_pool *from = kvbi_held_pool(manager, source),
                           *to = kvbi_held_pool(manager, target),
                           *all = kvbi_store_pool_of(&manager->store, request->targets[0]);
    if (to == NULL)
        (void)kvbi_roll_not_held(targets, i, target);
    else if (from == NULL)
        (void)kvbi_roll_not_held(sources, i, source);
    else if (to != all)
        (void)kvbi_roll_why(targets, i, KVB_EINVAL, target,
                            " is in tier %s, must be in %s as targets[0] is",
                            kvbi_tier_name(to->tier), kvbi_tier_name(all->tier));
    else if (from->tier <= to->tier)
        (void)kvbi_roll_why(sources, i, KVB_EINVAL, source,
                            " is in tier %s, %s; a source must lie below its target",
                            kvbi_tier_name(from->tier),
                            from == to ? "the target's tier" : "above the target");
    else
        (void)kvbi_roll_why(targets, i, KVB_EINVAL, target,
                            " is given twice, as targets[%u] already",
                            first_with_target(request, i));
}

int kvbi_refuse_pair(struct kvb_manager *manager, const struct kvb_onboard *request, uint32_t i,
                     int code)
{
    struct kvbi_roll sources, targets;
    const struct kvb_block *source = request->sources[i], *target = request->targets[i];
    kvbi_roll_begin(&sources, manager, KVBI_CALL_ONBOARD, "sources", request->count, NULL);
    kvbi_roll_begin(&targets, manager, KVBI_CALL_ONBOARD, "targets", request->count, NULL);
    if (code == KVB_EINVAL)
        explain_places(&sources, &targets, request, i);
    else if (code == KVB_ESHARED)
        (void)kvbi_roll_why(&targets, i, code, target,
                            " has other holders, must be held by the caller alone");
    else if (kvbi_life_get(source).state != KVB_STATE_REGISTERED)
        (void)kvbi_roll_why(&sources, i, code, source, " is %s, must be Registered",
                            kvbi_state_name(kvbi_life_get(source).state));
    else if (kvbi_life_get(target).state != KVB_STATE_EMPTY)
        (void)kvbi_roll_why(&targets, i, code, target, " is %s, must be Empty",
                            kvbi_state_name(kvbi_life_get(target).state));
    else
        (void)kvbi_roll_why(&targets, i, code, target,
                            " is a target of another operation, which has it until kvb_op_take");
    struct kvbi_roll *told = sources.told != 0 ? &sources : &targets;
    return kvbi_refuse(manager, KVBI_CALL_ONBOARD, code, "%s", told->why.text);
}

int kvbi_refuse_take(struct kvb_manager *manager, const struct kvb_op *op, uint32_t count,
                     int error)
{
    if (error == KVB_EINVAL)
        return kvbi_refuse(manager, KVBI_CALL_OP_TAKE, error,
                           "count is %u, must be the operation's %u", count, op->count);
    if (error == KVB_EAGAIN)
        return kvbi_refuse(manager, KVBI_CALL_OP_TAKE, error, "the operation is not finished");
    return kvbi_refuse(manager, KVBI_CALL_OP_TAKE, error, "the operation's blocks %s",
                       op->taken ? "were taken already" : "are given back: destroy is under way");
}

int kvbi_refuse_wait_stream(struct kvb_manager *manager, const void *stream, int error,
                            struct kvbi_why *why)
{
    if (error == KVB_ESTATE)
        return kvbi_refuse(manager, KVBI_CALL_OP_WAIT_STREAM, error,
                           "the operation's blocks were taken already");
    if (error == KVB_EAGAIN)
        kvbi_why_else(why, "a block has not got to the GPU's queue, or waits for a counter, or "
                           "the end of its copy could not be recorded; nothing was enqueued");
    else if (error == KVB_EDEVICE)
        kvbi_why_else(why, "the GPU has failed");
    else
        kvbi_why_else(why, "a joined block's fence was part of a capture");
    return kvbi_refuse(manager, KVBI_CALL_OP_WAIT_STREAM, error, "stream %p: %s", stream,
                       why->text);
}
