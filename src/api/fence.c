/* SPDX-License-Identifier: Apache-2.0 */
/* Fences that calls take: imported, or refused by name. Callers: api/ with no lock held. */
#include "api/manager.h"

#define STREAM_FENCES_NEED "needs a tier in CUDA memory"

static const char *kind_name(uint32_t kind)
{
    static const char *const names[] = {"KVB_FENCE_NONE", "KVB_FENCE_COUNTER",
                                        "KVB_FENCE_CUDA_STREAM", "KVB_FENCE_CUDA_EVENT"};
    return kind < sizeof names / sizeof *names ? names[kind] : "unknown";
}

/* What can be seen from here, if the engine has said nothing. */
static void say_why(const struct kvb_manager *manager, const struct kvb_fence *fence,
                    struct kvbi_why *why)
{
    bool streams = kvbi_pipeline_engines(&manager->pipeline)->streams != NULL;
    if (fence->kind > KVB_FENCE_CUDA_EVENT || streams)
        kvbi_why_else(why, "must be one of 0..%d, with a handle of that kind",
                      streams ? KVB_FENCE_CUDA_EVENT : KVB_FENCE_COUNTER);
    else
        kvbi_why_else(why, STREAM_FENCES_NEED ", which this manager has not");
}

int kvbi_import_fence(struct kvb_manager *manager, enum kvbi_call call,
                      const struct kvb_fence *fence, uint64_t *ticket)
{
    struct kvbi_why why;
    *ticket = 0;
    if (fence == NULL)
        return 0;
    why.text[0] = '\0';
    int error = kvbi_engines_import(kvbi_pipeline_engines(&manager->pipeline), fence, ticket, &why);
    if (error == 0)
        return 0;
    if (error == KVB_EDEVICE) {
        kvbi_progress_wake(&manager->progress); /* it takes the tier out of service */
        kvbi_why_else(&why, "the GPU has failed");
    }
    say_why(manager, fence, &why);
    return kvbi_refuse(manager, call, error, "fence of kind %u (%s), handle 0x%llx: %s",
                       fence->kind, kind_name(fence->kind), (unsigned long long)fence->handle,
                       why.text);
}

int kvbi_takes_fence(struct kvb_manager *manager, enum kvbi_call call, const struct kvbi_pool *pool,
                     const struct kvb_fence *fence, uint64_t ticket)
{
    int error = kvbi_lanes_takes_ticket(kvbi_pipeline_lanes(&manager->pipeline), pool, ticket);
    return error == 0
               ? 0
               : kvbi_refuse(manager, call, error,
                             "fence of kind %u (%s) " STREAM_FENCES_NEED ", and %s is not",
                             fence->kind, kind_name(fence->kind), kvbi_tier_name(pool->tier));
}

void kvbi_roll_fence(struct kvbi_roll *roll, uint32_t i, const struct kvb_block *block,
                     const struct kvb_fence *fence)
{
    (void)kvbi_roll_why(roll, i, KVB_EUNSUPPORTED, block,
                        ": a fence of kind %u (%s) " STREAM_FENCES_NEED ", and this tier is not",
                        fence->kind, kind_name(fence->kind));
}
