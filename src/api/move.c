/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moving registered blocks: offers by hand, onboarding, its operations.
 *
 * Callers    the public. Lock: the store's, in turns of KVBI_LOCK_BATCH blocks.
 */
#include <string.h>

#include "api/explain.h"
#include "api/manager.h"
#include "base/struct_in.h"
#include "store/contents.h"

/* ---- Down ------------------------------------------------------------------------------------ */

int kvb_block_offload(struct kvb_manager *manager, struct kvb_block *const *blocks, uint32_t count,
                      uint32_t priority, const struct kvb_fence *fence, int *results)
{
    struct kvbi_roll roll;
    uint64_t ticket;
    int error = kvbi_enter_array(manager, KVBI_CALL_BLOCK_OFFLOAD, "blocks", blocks, count);
    if (error == 0 && priority > KVB_PRIORITY_MAX)
        error = kvbi_refuse(manager, KVBI_CALL_BLOCK_OFFLOAD, KVB_EINVAL,
                            "priority is %u, must be 0..%d", priority, KVB_PRIORITY_MAX);
    if (error == 0)
        error = kvbi_import_fence(manager, KVBI_CALL_BLOCK_OFFLOAD, fence, &ticket);
    if (error != 0)
        return error;
    kvbi_roll_begin(&roll, manager, KVBI_CALL_BLOCK_OFFLOAD, "blocks", count, results);
    struct kvbi_section section = {.manager = manager};
    for (uint32_t i = 0; i < count; i++) {
        struct kvbi_pool *pool = kvbi_held_pool(manager, blocks[i]);
        kvbi_section_next(&section);
        kvbi_note(&roll, i,
                  pool == NULL ? KVB_EINVAL
                               : kvbi_lanes_offer_locked(kvbi_pipeline_lanes(&manager->pipeline),
                                                         pool, blocks[i], priority, ticket));
    }
    kvbi_section_end(&section);
    if (kvbi_roll_unexplained(&roll))
        kvbi_explain_offload(&roll, blocks[roll.told_at], fence);
    return kvbi_roll_end(&roll);
}

int kvb_block_offload_cancel(struct kvb_manager *manager, struct kvb_block *const *blocks,
                             uint32_t count, int *results)
{
    struct kvbi_roll roll;
    int error = kvbi_enter_array(manager, KVBI_CALL_BLOCK_OFFLOAD_CANCEL, "blocks", blocks, count);
    if (error != 0)
        return error;
    kvbi_roll_begin(&roll, manager, KVBI_CALL_BLOCK_OFFLOAD_CANCEL, "blocks", count, results);
    struct kvbi_section section = {.manager = manager};
    for (uint32_t i = 0; i < count; i++) {
        const struct kvbi_pool *pool = kvbi_held_pool(manager, blocks[i]);
        kvbi_section_next(&section);
        kvbi_note(&roll, i,
                  pool == NULL ? KVB_EINVAL
                               : kvbi_lanes_cancel_locked(kvbi_pipeline_lanes(&manager->pipeline),
                                                          pool, blocks[i]));
    }
    kvbi_section_end(&section);
    if (kvbi_roll_unexplained(&roll))
        kvbi_explain_offload_cancel(&roll, blocks[roll.told_at]);
    return kvbi_roll_end(&roll);
}

/* ---- Up -------------------------------------------------------------------------------------- */

/* The request's fields, and the tier of its targets, which must have a lane into it. */
static int read_request(struct kvb_manager *manager, const struct kvb_onboard *given,
                        struct kvb_onboard *request, struct kvbi_pool **pool)
{
    struct kvbi_why why;
    if (kvbi_struct_in(request, sizeof *request, sizeof *request, given) != 0) {
        kvbi_struct_why(&why, "request", "kvb_onboard", given, given == NULL ? 0 : given->size,
                        sizeof *request);
        return kvbi_refuse(manager, KVBI_CALL_ONBOARD, KVB_EINVAL, "%s", why.text);
    }
    if (!(request->flags & KVB_ONBOARD_PRIORITY))
        request->priority = KVB_PRIORITY_DEFAULT;
    int error = kvbi_check_request(manager, request);
    if (error != 0)
        return error;
    *pool = kvbi_held_pool(manager, request->targets[0]);
    if (*pool == NULL)
        return kvbi_refuse_not_held(manager, KVBI_CALL_ONBOARD, "request.targets[0]",
                                    request->targets[0]);
    if (!kvbi_lanes_leave(kvbi_pipeline_lanes(&manager->pipeline), (*pool)->tier))
        return kvbi_refuse(
            manager, KVBI_CALL_ONBOARD, KVB_EINVAL,
            "targets[0] is in tier %s, the lowest, must be in one with a tier below it",
            kvbi_tier_name((*pool)->tier));
    if ((request->flags & KVB_ONBOARD_LAYERS) && !manager->tiers[(*pool)->tier].on_streams)
        return kvbi_refuse(
            manager, KVBI_CALL_ONBOARD, KVB_EUNSUPPORTED,
            "request.flags has KVB_ONBOARD_LAYERS, which is for targets in CUDA memory; targets[0] "
            "is in tier %s",
            kvbi_tier_name((*pool)->tier));
    return 0;
}

/* Blocks of the request from `at` on, as many as one turn has. */
static uint32_t batch_from(const struct kvb_onboard *request, uint32_t at)
{
    uint32_t left = request->count - at;
    return left < KVBI_LOCK_BATCH ? left : KVBI_LOCK_BATCH;
}

/*
 * Slots and items will be looked at. Nobody has looked yet whether they are blocks at all: asking
 * for them does no harm.
 */
static void warm_blocks(struct kvb_manager *manager, const struct kvb_op *op,
                        const struct kvb_onboard *request, uint32_t at)
{
    const struct kvbi_pool *pool = kvbi_store_pool(&manager->store, op->tier);
    for (uint32_t end = at + batch_from(request, at); at < end; at++) {
        __builtin_prefetch(request->sources[at], 1);
        __builtin_prefetch(request->targets[at], 1);
        if (kvbi_pool_owns(pool, request->targets[at]))
            __builtin_prefetch(kvbi_item_at(kvbi_pipeline_onboarding(&manager->pipeline), op->tier,
                                            kvbi_pool_slot(pool, request->targets[at])),
                               1);
    }
}

/* Marks all targets, or none; then *refused is the pair that would not be. */
static int reserve(struct kvb_manager *manager, struct kvb_op *op,
                   const struct kvb_onboard *request, uint32_t *refused)
{
    struct kvbi_onboarding *onboarding = kvbi_pipeline_onboarding(&manager->pipeline);
    struct kvbi_section section = {.manager = manager};
    int error = 0;
    uint32_t i = 0;
    for (; i < request->count; i++) {
        if (i % KVBI_LOCK_BATCH == 0)
            warm_blocks(manager, op, request, i);
        kvbi_section_next(&section);
        error = kvbi_op_reserve_locked(onboarding, op, request->sources[i], request->targets[i]);
        if (error != 0)
            break;
    }
    *refused = i;
    while (error != 0 && i-- > 0) {
        kvbi_section_next(&section);
        kvbi_op_unreserve_locked(onboarding, op, request->targets[i]);
    }
    kvbi_section_end(&section);
    return error;
}

static void launch(struct kvb_manager *manager, struct kvb_op *op,
                   const struct kvb_onboard *request, uint64_t ticket)
{
    struct kvbi_onboarding *onboarding = kvbi_pipeline_onboarding(&manager->pipeline);
    for (uint32_t i = 0; i < request->count && ticket != 0; i++)
        kvbi_lanes_set_ticket(kvbi_pipeline_lanes(&manager->pipeline), request->targets[i], ticket);
    struct kvbi_section section = {.manager = manager};
    uint64_t now_ns = kvbi_clock_now(&manager->clock);
    bool timed = request->timeout_ns != 0 && request->timeout_ns < UINT64_MAX - now_ns;
    for (uint32_t i = 0; i < request->count; i++) {
        kvbi_section_next(&section);
        if (i % KVBI_LOCK_BATCH == 0)
            kvbi_store_warm_contents_locked(&manager->store, request->sources + i,
                                            batch_from(request, i));
        kvbi_op_add_locked(onboarding, op, request->sources[i], request->targets[i],
                           request->priority);
    }
    kvbi_section_next(&section);
    kvbi_op_start_locked(onboarding, op, timed ? now_ns + request->timeout_ns : 0);
    kvbi_section_end(&section);
}

int kvb_onboard(struct kvb_manager *manager, const struct kvb_onboard *given, struct kvb_op **out)
{
    struct kvb_onboard request;
    struct kvbi_pool *pool = NULL;
    uint64_t ticket;
    uint32_t refused;
    int error = kvbi_enter(manager);
    if (out != NULL)
        *out = NULL;
    if (error == 0)
        error = kvbi_refuse_null(manager, KVBI_CALL_ONBOARD, "op", out);
    if (error == 0)
        error = read_request(manager, given, &request, &pool);
    if (error == 0)
        error = kvbi_import_fence(manager, KVBI_CALL_ONBOARD, request.fence, &ticket);
    if (error == 0)
        error = kvbi_takes_fence(manager, KVBI_CALL_ONBOARD, pool, request.fence, ticket);
    if (error != 0)
        return error;
    kvbi_lock(manager);
    bool closing = kvbi_store_is_closing(&manager->store);
    struct kvb_op *op = closing ? NULL
                                : kvbi_op_new_locked(kvbi_pipeline_onboarding(&manager->pipeline),
                                                     &request, pool->tier);
    kvbi_unlock(manager);
    if (op == NULL)
        return closing ? kvbi_refuse(manager, KVBI_CALL_ONBOARD, KVB_ESTATE, KVBI_CLOSING)
                       : kvbi_refuse(manager, KVBI_CALL_ONBOARD, KVB_EAGAIN,
                                     "%u operations are not released, as many as there can be "
                                     "(op_capacity)",
                                     kvbi_onboarding_capacity(
                                         kvbi_pipeline_onboarding(&manager->pipeline)));
    error = reserve(manager, op, &request, &refused);
    if (error != 0) {
        kvbi_lock(manager);
        kvbi_op_free_locked(kvbi_pipeline_onboarding(&manager->pipeline), op);
        kvbi_unlock(manager);
        return kvbi_refuse_pair(manager, &request, refused, error);
    }
    *out = op; /* before it can finish: `done` may run before this returns */
    launch(manager, op, &request, ticket);
    return 0;
}

/* 0, or the error of a call that names an operation. */
static int enter_op(struct kvb_manager *manager, enum kvbi_call call, const struct kvb_op *op)
{
    int error = kvbi_enter(manager);
    if (error != 0)
        return error;
    kvbi_lock(manager);
    bool valid = kvbi_op_valid_locked(kvbi_pipeline_onboarding(&manager->pipeline), op);
    kvbi_unlock(manager);
    if (valid)
        return 0;
    return op == NULL
               ? kvbi_refuse_null(manager, call, "op", op)
               : kvbi_refuse(
                     manager, call, KVB_EINVAL,
                     "op is %p, which is no operation of this manager, or one that was released",
                     (const void *)op);
}

int kvb_op_take(struct kvb_manager *manager, struct kvb_op *op, struct kvb_block **blocks,
                uint32_t count, uint32_t *good_count)
{
    int error = enter_op(manager, KVBI_CALL_OP_TAKE, op);
    if (good_count != NULL)
        *good_count = 0;
    if (error == 0)
        error = kvbi_refuse_null(manager, KVBI_CALL_OP_TAKE, "blocks", blocks);
    if (error == 0)
        error = kvbi_refuse_null(manager, KVBI_CALL_OP_TAKE, "good_count", good_count);
    if (error != 0)
        return error;
    kvbi_lock(manager);
    if (count != op->count)
        error = KVB_EINVAL;
    else if (op->state < KVBI_OP_FINISHED)
        error = KVB_EAGAIN;
    else if (op->taken || kvbi_store_is_closing(&manager->store))
        error = KVB_ESTATE;
    else
        op->taken = true;
    kvbi_unlock(manager);
    if (error != KVB_EINVAL) /* else the array may not be as long as it is said to be */
        memset(blocks, 0, count * sizeof *blocks);
    if (error != 0)
        return kvbi_refuse_take(manager, op, count, error);
    *good_count = op->failed_at;
    for (bool more = true; more;) {
        kvbi_lock(manager);
        more = kvbi_op_take_locked(kvbi_pipeline_onboarding(&manager->pipeline), op, blocks,
                                   kvbi_clock_now(&manager->clock));
        kvbi_unlock(manager);
    }
    return 0;
}

int kvb_op_wait(struct kvb_manager *manager, struct kvb_op *op, uint64_t timeout_ns)
{
    int error = enter_op(manager, KVBI_CALL_OP_WAIT, op);
    if (error == 0)
        error = kvbi_may_wait(manager, KVBI_CALL_OP_WAIT);
    if (error != 0)
        return error;
    error = kvbi_progress_wait_op(&manager->progress, op, timeout_ns);
    return error == 0 ? op->status
                      : kvbi_refuse(manager, KVBI_CALL_OP_WAIT, error,
                                    "the operation was not finished within %llu ns",
                                    (unsigned long long)timeout_ns);
}

int kvb_op_wait_stream(struct kvb_manager *manager, struct kvb_op *op, void *stream, uint32_t layer)
{
    struct kvbi_why why;
    int error = enter_op(manager, KVBI_CALL_OP_WAIT_STREAM, op);
    const struct kvbi_onboarding *onboarding = kvbi_pipeline_onboarding(&manager->pipeline);
    uint32_t cursor = KVBI_NONE;
    struct kvbi_op_writers writers = {0};
    if (error == 0 && layer >= manager->layout.layers && layer != KVB_ALL_LAYERS)
        error = kvbi_refuse(manager, KVBI_CALL_OP_WAIT_STREAM, KVB_EINVAL,
                            "layer is %u, must be 0..%u or KVB_ALL_LAYERS", layer,
                            manager->layout.layers - 1);
    if (error == 0 && !manager->tiers[op->tier].on_streams)
        error = kvbi_refuse(manager, KVBI_CALL_OP_WAIT_STREAM, KVB_EUNSUPPORTED,
                            "the operation's targets are in tier %s, which is not in CUDA memory",
                            kvbi_tier_name(op->tier));
    if (error != 0)
        return error;
    why.text[0] = '\0';
    for (int more = 1; more > 0;) {
        kvbi_lock(manager);
        more = op->taken ? KVB_ESTATE : kvbi_op_writers_locked(onboarding, op, &cursor, &writers);
        kvbi_unlock(manager);
        error = more < 0 ? more : 0;
    }
    if (error == 0)
        error = kvbi_engines_wait_stream(kvbi_pipeline_engines(&manager->pipeline), writers.flights,
                                         &writers.points, stream, layer, &why);
    if (error == KVB_EDEVICE)
        kvbi_progress_wake(&manager->progress); /* it takes the tier out of service */
    return error == 0 ? 0 : kvbi_refuse_wait_stream(manager, stream, error, &why);
}

int kvb_op_cancel(struct kvb_manager *manager, struct kvb_op *op)
{
    int error = enter_op(manager, KVBI_CALL_OP_CANCEL, op);
    if (error != 0)
        return error;
    kvbi_lock(manager);
    kvbi_op_abort_locked(kvbi_pipeline_onboarding(&manager->pipeline), op, KVB_ECANCELED);
    kvbi_unlock(manager);
    return 0;
}

int kvb_op_release(struct kvb_manager *manager, struct kvb_op *op)
{
    int error = kvbi_enter(manager);
    if (error != 0 || op == NULL)
        return error;
    error = enter_op(manager, KVBI_CALL_OP_RELEASE, op);
    if (error != 0)
        return error;
    struct kvbi_onboarding *onboarding = kvbi_pipeline_onboarding(&manager->pipeline);
    kvbi_lock(manager);
    op->released = true; /* if `done` is still to come, progress frees the operation after it */
    bool over = op->state == KVBI_OP_DELIVERED;
    kvbi_op_abort_locked(onboarding, op, KVB_ECANCELED);
    kvbi_unlock(manager);
    for (bool more = over; more;) {
        kvbi_lock(manager);
        more = kvbi_op_take_locked(onboarding, op, NULL, kvbi_clock_now(&manager->clock));
        if (!more)
            kvbi_op_free_locked(onboarding, op);
        kvbi_unlock(manager);
    }
    return 0;
}
