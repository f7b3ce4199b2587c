/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The order of eviction, where it is promised to the block: in worlds of one tier, where no lane
 * holds or parks anything. Lowest priority first, then least recently used; whose retention has
 * ended counts as used at its end.
 */
#include "world.h"

uint32_t priority_now(const struct world *w, const struct block *b)
{
    bool over = b->retained_until != 0 && w->now >= b->retained_until;
    return over ? DEFAULT_PRIORITY : b->priority;
}

static void expire_block(struct world *w, struct block *b)
{
    if (b->retained_until == 0 || b->retained_until > w->now)
        return;
    b->priority = DEFAULT_PRIORITY;
    if (b->parked)
        b->used_at = b->retained_until;
    b->retained_until = 0;
    w->tally->expired++;
}

void order_expire(struct world *w)
{
    for (uint32_t t = 0; t < TIERS; t++)
        for (uint32_t s = 0; s < w->setup.tiers[t].blocks; s++)
            expire_block(w, &w->blocks[t][s]);
}

void order_park(struct world *w, struct block *b)
{
    b->used_at = w->now;
    b->used_order = w->used_order++;
}

static bool goes_before(const struct block *a, const struct block *b)
{
    if (a->priority != b->priority)
        return a->priority < b->priority;
    if (a->used_at != b->used_at)
        return a->used_at < b->used_at;
    return a->used_order < b->used_order;
}

struct block *order_victim(struct world *w, uint32_t tier)
{
    struct block *victim = NULL;
    for (uint32_t s = 0; s < w->setup.tiers[tier].blocks; s++) {
        struct block *b = &w->blocks[tier][s];
        if (b->parked && (victim == NULL || goes_before(b, victim)))
            victim = b;
    }
    return victim;
}
