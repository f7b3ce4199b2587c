/* SPDX-License-Identifier: Apache-2.0 */
/* Moving down: offers, and taking them back. */
#include "world.h"

static bool mine(const struct world *w, const struct block *b)
{
    (void)w;
    return b->refs > 0;
}

static bool registered(const struct world *w, const struct block *b)
{
    (void)w;
    return b->refs > 0 && b->state == REGISTERED;
}

void op_offload(struct world *w)
{
    struct block *b = pick_block(w, chance(w, 90) ? registered : mine);
    if (b == NULL)
        return;
    uint32_t priority = pick(w, 101);
    uint64_t fence = chance(w, 15) ? fence_later(w) : 0;
    int code = kv_offload(w->kv, &b->handle, 1, priority, fence, NULL);
    note(w, "offload %s/%u (content %d), priority %u, fence %llu: %s", tier_name(b->tier), b->slot,
         b->content, priority, (unsigned long long)fence, kv_code_name(code));
    bool below = tier_below(w, b->tier) != UINT32_MAX;
    if (b->state != REGISTERED || !b->indexed)
        expect_either(w, "offload", code, E_STATE, below ? E_STATE : E_NOENT);
    else
        expect_either(w, "offload", code, below ? OK : E_NOENT, below ? E_BUSY : E_NOENT);
    if (code == OK)
        give_fence(w, b, fence);
}

void op_offload_cancel(struct world *w)
{
    struct block *b = pick_block(w, registered);
    if (b == NULL)
        return;
    int code = kv_offload_cancel(w->kv, &b->handle, 1, NULL);
    note(w, "cancel the offer of %s/%u: %s", tier_name(b->tier), b->slot, kv_code_name(code));
    if (tier_below(w, b->tier) == UINT32_MAX)
        expect_code(w, "cancel without a lane", code, E_NOENT);
    else if (code != E_BUSY)
        expect_either(w, "cancel", code, OK, E_NOENT);
}
