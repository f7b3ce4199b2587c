/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Least recently used within priority bands.
 *
 * Owns       the band lists, the deadlines of retained blocks, the boundary between cold and warm.
 * Invariants within a band the warm blocks are younger than `first_warm`, which is the oldest warm
 *            one, or KVBI_NONE. Blocks older than it are cold. A block that is put among cold ones
 *            is cold at once and waits on the `told` stack until next_cold hands it out. Cold
 *            blocks are at least a tenth of all once next_cold says there are no more. A block
 *            whose deadline has passed is in the order of deadlines until it is dealt with,
 *            wherever it is linked: its place is behind all of the default band, and before those
 *            whose deadline is later. While there are any, a block that is used is put among them,
 *            as if retained until then. One that a lane parks below such a block is linked directly
 *            before it and comes to its turn directly before it: of such a group the oldest has the
 *            deadline, and hands it to the next when it goes.
 * Why        the boundary moves by one link per change, so that "the oldest tenth" never needs a
 *            walk.
 *
 * Use of order.mark: 1 cold, 2 on the stack (linked by order.extra), 4 in the group of its older
 * neighbour; the stack is cleaned lazily.
 */
#include "store/policy.h"

#include <kvblock.h>

#include "base/bands.h"
#include "base/deadlines.h"
#include "base/lock.h"

/*
 * Retentions that end in one call of which there may be 64 in one section: should
 * thousands end at once, the others follow with the next calls. At least one more than such a call
 * adds to them.
 */
#define EXPIRE_FEW 2
#define COLD_FRACTION 10 /* the oldest tenth, as the trigger promises */

enum { MARK_COLD = 1, MARK_STACKED = 2, MARK_GROUPED = 4 };

struct lru {
    struct kvbi_policy base;
    const struct kvbi_memory *memory;
    struct kvb_block *slots;
    uint32_t slot_count;
    struct kvbi_bands bands;
    struct kvbi_deadlines deadlines;
    uint32_t first_warm[KVBI_BAND_COUNT];
    uint32_t cold_in_band[KVBI_BAND_COUNT];
    uint64_t warm_bands[2];
    uint32_t cold_count;
    uint64_t now_ns;   /* the latest that was told */
    uint32_t returned; /* the latest that came back from being passed, while it is in the order */
    uint32_t told;     /* top of the stack of blocks that became cold on arrival */
};

static struct kvbi_band_node *node_of(const struct lru *lru, uint32_t slot)
{
    return &lru->slots[slot].order;
}

static void set_first_warm(struct lru *lru, unsigned band, uint32_t slot)
{
    lru->first_warm[band] = slot;
    if (slot == KVBI_NONE)
        lru->warm_bands[band / 64] &= ~(UINT64_C(1) << band % 64);
    else
        lru->warm_bands[band / 64] |= UINT64_C(1) << band % 64;
}

static unsigned lowest_warm_band(const struct lru *lru)
{
    if (lru->warm_bands[0] != 0)
        return (unsigned)__builtin_ctzll(lru->warm_bands[0]);
    if (lru->warm_bands[1] != 0)
        return 64 + (unsigned)__builtin_ctzll(lru->warm_bands[1]);
    return KVBI_BAND_COUNT;
}

static void make_cold(struct lru *lru, uint32_t slot)
{
    struct kvbi_band_node *node = node_of(lru, slot);
    node->mark |= MARK_COLD;
    lru->cold_count++;
    lru->cold_in_band[node->band]++;
}

static void make_cold_on_arrival(struct lru *lru, uint32_t slot)
{
    struct kvbi_band_node *node = node_of(lru, slot);
    make_cold(lru, slot);
    if (!(node->mark & MARK_STACKED)) {
        node->mark |= MARK_STACKED;
        node->extra = lru->told;
        lru->told = slot;
    }
}

static void set_deadline(struct lru *lru, uint32_t slot, uint64_t deadline_ns)
{
    if (deadline_ns != 0)
        kvbi_deadlines_set(&lru->deadlines, slot, deadline_ns);
}

static void put_youngest(struct lru *lru, uint32_t slot, unsigned band, uint64_t deadline_ns)
{
    kvbi_bands_push_young(&lru->bands, slot, band);
    if (lru->first_warm[band] == KVBI_NONE)
        set_first_warm(lru, band, slot);
    set_deadline(lru, slot, deadline_ns);
}

static bool is_grouped(const struct lru *lru, uint32_t slot)
{
    return slot != KVBI_NONE && (node_of(lru, slot)->mark & MARK_GROUPED) != 0;
}

static bool has_ended(const struct lru *lru, uint32_t slot, uint64_t now_ns)
{
    return is_grouped(lru, slot) || kvbi_deadlines_is_due(&lru->deadlines, slot, now_ns);
}

/* The next of its group, if there is one, is the oldest from now on. */
static void leave_group(struct lru *lru, uint32_t slot)
{
    uint32_t next = kvbi_bands_next(&lru->bands, slot);
    if (is_grouped(lru, slot)) {
        node_of(lru, slot)->mark &= (uint8_t)~MARK_GROUPED;
    } else if (is_grouped(lru, next)) {
        node_of(lru, next)->mark &= (uint8_t)~MARK_GROUPED;
        kvbi_deadlines_hand_over(&lru->deadlines, slot, next);
    }
}

static void take_out(struct lru *lru, uint32_t slot)
{
    struct kvbi_band_node *node = node_of(lru, slot);
    leave_group(lru, slot);
    if (node->mark & MARK_COLD) {
        node->mark &= (uint8_t)~MARK_COLD;
        lru->cold_count--;
        lru->cold_in_band[node->band]--;
    } else if (lru->first_warm[node->band] == slot) {
        set_first_warm(lru, node->band, kvbi_bands_next(&lru->bands, slot));
    }
    if (lru->returned == slot)
        lru->returned = KVBI_NONE;
    kvbi_bands_remove(&lru->bands, slot);
    kvbi_deadlines_remove(&lru->deadlines, slot);
}

/*
 * Retention has ended: default priority, as if used at that moment. One that was put there to wait
 * its turn has its own deadline again: it may have passed meanwhile, and then that turn is to come.
 * Returns how many.
 */
static uint32_t expire(struct lru *lru, uint64_t now_ns, uint32_t max)
{
    struct kvbi_deadline first;
    uint32_t n = 0;
    lru->now_ns = now_ns;
    for (; n < max && kvbi_deadlines_first(&lru->deadlines, &first) && first.deadline_ns <= now_ns;
         n++) {
        uint64_t own_ns = lru->slots[first.id].retention_ns;
        kvbi_lock_step();
        take_out(lru, first.id);
        put_youngest(lru, first.id, KVB_PRIORITY_DEFAULT, own_ns > first.deadline_ns ? own_ns : 0);
    }
    return n;
}

/* Some have ended and are not dealt with yet. */
static bool has_ended_ones(const struct lru *lru)
{
    struct kvbi_deadline first;
    return kvbi_deadlines_first(&lru->deadlines, &first) && first.deadline_ns <= lru->now_ns;
}

static void lru_insert(struct kvbi_policy *policy, uint32_t slot, unsigned band,
                       uint64_t deadline_ns, uint64_t now_ns)
{
    struct lru *lru = (struct lru *)policy;
    (void)expire(lru, now_ns, EXPIRE_FEW);
    if (band == KVB_PRIORITY_DEFAULT && has_ended_ones(lru))
        put_youngest(lru, slot, KVB_PRIORITY_MAX, now_ns); /* behind them: its turn comes */
    else
        put_youngest(lru, slot, band, deadline_ns);
}

/* In its band, cold if that is. */
static void put_before(struct lru *lru, uint32_t slot, uint32_t younger)
{
    const struct kvbi_band_node *node = node_of(lru, younger);
    kvbi_bands_insert_older_than(&lru->bands, slot, younger);
    if (node->mark & MARK_COLD)
        make_cold_on_arrival(lru, slot);
    else if (lru->first_warm[node->band] == younger)
        set_first_warm(lru, node->band, slot);
}

static void lru_insert_below(struct kvbi_policy *policy, uint32_t slot, unsigned band,
                             uint64_t deadline_ns, uint32_t parent, uint64_t now_ns)
{
    struct lru *lru = (struct lru *)policy;
    (void)expire(lru, now_ns, EXPIRE_FEW);
    struct kvbi_band_node *above = node_of(lru, parent);
    bool ended = above->linked && has_ended(lru, parent, now_ns);
    if (!above->linked || (ended ? band != KVB_PRIORITY_DEFAULT : above->band != band)) {
        lru_insert(policy, slot, band, deadline_ns, now_ns);
        return;
    }
    put_before(lru, slot, parent);
    if (!ended) {
        set_deadline(lru, slot, deadline_ns);
    } else if (is_grouped(lru, parent)) {
        node_of(lru, slot)->mark |= MARK_GROUPED;
    } else {
        kvbi_deadlines_hand_over(&lru->deadlines, parent, slot);
        above->mark |= MARK_GROUPED;
    }
}

/*
 * Oldest of its band, but behind one that came back just before: they were passed, and are let go,
 * oldest first.
 */
static void lru_insert_oldest(struct kvbi_policy *policy, uint32_t slot, unsigned band,
                              uint64_t deadline_ns)
{
    struct lru *lru = (struct lru *)policy;
    uint32_t younger = kvbi_bands_first(&lru->bands, band);
    if (lru->returned != KVBI_NONE && node_of(lru, lru->returned)->band == band &&
        !is_grouped(lru, kvbi_bands_next(&lru->bands, lru->returned)))
        younger = kvbi_bands_next(&lru->bands, lru->returned);
    lru->returned = slot;
    if (younger == KVBI_NONE) {
        put_youngest(lru, slot, band, deadline_ns);
        return;
    }
    put_before(lru, slot, younger);
    set_deadline(lru, slot, deadline_ns);
}

static void lru_remove(struct kvbi_policy *policy, uint32_t slot)
{
    take_out((struct lru *)policy, slot);
}

static bool lru_contains(const struct kvbi_policy *policy, uint32_t slot)
{
    return kvbi_bands_is_linked(&((const struct lru *)policy)->bands, slot);
}

static uint32_t lru_victim(struct kvbi_policy *policy, uint64_t now_ns, uint32_t *budget,
                           unsigned *band)
{
    struct lru *lru = (struct lru *)policy;
    *budget -= expire(lru, now_ns, *budget);
    uint32_t slot = kvbi_bands_lowest(&lru->bands);
    if (slot == KVBI_NONE)
        return KVBI_NONE;
    *band = node_of(lru, slot)->band;
    /* Those that have ended and are left are younger than all of the default band, and go before
     * all above it. */
    if (kvbi_deadlines_is_due(&lru->deadlines, slot, now_ns) ||
        (*band > KVB_PRIORITY_DEFAULT && has_ended_ones(lru))) {
        *band = KVBI_BAND_AGAIN;
        return KVBI_NONE;
    }
    return slot;
}

static uint32_t lru_ahead(const struct kvbi_policy *policy, uint32_t *slots, uint32_t max)
{
    const struct lru *lru = (const struct lru *)policy;
    uint32_t count = 0, slot = kvbi_bands_lowest(&lru->bands);
    for (; count < max && slot != KVBI_NONE; slot = kvbi_bands_next_in_order(&lru->bands, slot))
        slots[count++] = slot;
    return count;
}

static uint32_t lru_order(struct kvbi_policy *policy, uint32_t *slots, uint32_t max)
{
    struct lru *lru = (struct lru *)policy;
    (void)expire(lru, lru->now_ns, UINT32_MAX);
    return lru_ahead(policy, slots, max);
}

static void lru_warm(const struct kvbi_policy *policy, uint32_t slot)
{
    const struct lru *lru = (const struct lru *)policy;
    const struct kvbi_band_node *node = node_of(lru, slot);
    if (node->linked && node->prev != KVBI_NONE)
        __builtin_prefetch(node_of(lru, node->prev), 1);
    if (node->linked && node->next != KVBI_NONE)
        __builtin_prefetch(node_of(lru, node->next), 1);
}

static uint32_t pop_told(struct lru *lru)
{
    while (lru->told != KVBI_NONE) {
        uint32_t slot = lru->told;
        struct kvbi_band_node *node = node_of(lru, slot);
        lru->told = node->extra;
        node->mark &= (uint8_t)~MARK_STACKED;
        if (node->mark & MARK_COLD)
            return slot;
    }
    return KVBI_NONE;
}

static bool colder_than_a_cold_one(const struct lru *lru, unsigned band)
{
    for (unsigned above = band + 1; above < KVBI_BAND_COUNT; above++)
        if (lru->cold_in_band[above] > 0)
            return true;
    return false;
}

static uint32_t lru_next_cold(struct kvbi_policy *policy, uint64_t now_ns)
{
    struct lru *lru = (struct lru *)policy;
    (void)expire(lru, now_ns, EXPIRE_FEW);
    uint32_t told = pop_told(lru);
    if (told != KVBI_NONE)
        return told;
    unsigned band = lowest_warm_band(lru);
    if (band == KVBI_BAND_COUNT)
        return KVBI_NONE;
    uint32_t tenth = (kvbi_bands_count(&lru->bands) + COLD_FRACTION - 1) / COLD_FRACTION;
    if (lru->cold_count >= tenth && !colder_than_a_cold_one(lru, band))
        return KVBI_NONE;
    uint32_t slot = lru->first_warm[band];
    set_first_warm(lru, band, kvbi_bands_next(&lru->bands, slot));
    make_cold(lru, slot);
    return slot;
}

static void lru_destroy(struct kvbi_policy *policy)
{
    struct lru *lru = (struct lru *)policy;
    kvbi_deadlines_destroy(&lru->deadlines);
    kvbi_memory_free(lru->memory, lru, 1, sizeof *lru);
}

static int lru_create(struct kvbi_policy **policy, const struct kvbi_memory *memory,
                      struct kvb_block *slots, uint32_t count)
{
    struct lru *lru = kvbi_memory_alloc(memory, 1, sizeof *lru, 64);
    if (lru == NULL)
        return KVB_ENOMEM;
    *lru = (struct lru){.base.ops = &kvbi_policy_lru,
                        .memory = memory,
                        .slots = slots,
                        .slot_count = count,
                        .returned = KVBI_NONE,
                        .told = KVBI_NONE};
    kvbi_bands_init(&lru->bands, &slots[0].order, sizeof *slots);
    for (unsigned band = 0; band < KVBI_BAND_COUNT; band++)
        lru->first_warm[band] = KVBI_NONE;
    if (kvbi_deadlines_create(&lru->deadlines, memory, count) != 0) {
        lru_destroy(&lru->base);
        return KVB_ENOMEM;
    }
    *policy = &lru->base;
    return 0;
}

static size_t lru_bytes(const struct kvbi_policy *policy)
{
    const struct lru *lru = (const struct lru *)policy;
    return sizeof *lru +
           (size_t)lru->slot_count * (sizeof(struct kvbi_deadline) + sizeof(uint32_t));
}

static uint32_t lru_count(const struct kvbi_policy *policy)
{
    return kvbi_bands_count(&((const struct lru *)policy)->bands);
}

const struct kvbi_policy_ops kvbi_policy_lru = {
    .name = "lru",
    .create = lru_create,
    .destroy = lru_destroy,
    .insert = lru_insert,
    .insert_below = lru_insert_below,
    .insert_oldest = lru_insert_oldest,
    .remove = lru_remove,
    .contains = lru_contains,
    .victim = lru_victim,
    .order = lru_order,
    .ahead = lru_ahead,
    .warm = lru_warm,
    .next_cold = lru_next_cold,
    .bytes = lru_bytes,
    .count = lru_count,
};
