/* SPDX-License-Identifier: Apache-2.0 */
/* What must hold between operations, and when nothing is left to do. */
#include <string.h>

#include "world.h"

uint32_t check_joins(const struct world *w, const struct block *b)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < LIFTS; i++) {
        const struct lift_model *lift = &w->lifts[i];
        for (uint32_t j = 0; lift->op != NULL && !lift->taken && j < lift->count; j++)
            count += lift->contents[j] == b->content && b->content >= 0;
    }
    return count;
}

void check_block(struct world *w, const struct block *b)
{
    struct block_facts facts;
    expect_code(w, "describe", kv_describe(w->kv, b->handle, &facts), OK);
    if (facts.tier != b->tier || facts.slot != b->slot || facts.state != b->state ||
        facts.tokens != b->tokens || facts.computed != b->computed || facts.steps != b->steps)
        differ(w,
               "%s/%u: state %u, %u tokens, %u computed, %u steps; it is said to be in %s/%u, "
               "state %u, %u tokens, %u computed, %u steps",
               tier_name(b->tier), b->slot, b->state, b->tokens, b->computed, b->steps,
               tier_name(facts.tier), facts.slot, facts.state, facts.tokens, facts.computed,
               facts.steps);
    if (facts.holders < holders(b) || facts.holders > holders(b) + check_joins(w, b))
        differ(w, "%s/%u has %u holders, it is said to have %u", tier_name(b->tier), b->slot,
               holders(b), facts.holders);
    if (facts.indexed != b->indexed)
        differ(w, "%s/%u (content %d) is%s indexed, it is said to be%s", tier_name(b->tier),
               b->slot, b->content, b->indexed ? "" : " not", facts.indexed ? "" : " not");
    if (b->priority_known && facts.priority != priority_now(w, b))
        differ(w, "%s/%u has priority %u, it is said to have %u", tier_name(b->tier), b->slot,
               priority_now(w, b), facts.priority);
}

void check_key(struct world *w, const struct block *b)
{
    struct name name;
    int code = kv_key(w->kv, b->handle, &name), content = b->given >= 0 ? b->given : b->content;
    bool known = b->state == REGISTERED ? b->indexed : b->named && b->state != EMPTY;
    if (b->state != REGISTERED || known) /* an unindexed one may know its name, or not */
        expect_code(w, "key", code, known ? OK : E_NOENT);
    if (code == OK && memcmp(name.bytes, w->names[content].bytes, kv_name_bytes(w->kv)) != 0)
        differ(w, "%s/%u is to be content %d, and has another's key", tier_name(b->tier), b->slot,
               content);
}

static void check_books(struct world *w, const struct lane_facts *lane)
{
    uint64_t ends = lane->transferred + lane->skipped + lane->discarded + lane->shed +
                    lane->failed + lane->cancelled;
    if (lane->offered != ends + lane->pending)
        differ(w, "lane %s to %s: %llu offered, %llu ended, %llu pending", tier_name(lane->from),
               tier_name(lane->to), (unsigned long long)lane->offered, (unsigned long long)ends,
               (unsigned long long)lane->pending);
    if (lane->pending != lane->queued + lane->ondeck + lane->inflight)
        differ(w, "lane %s to %s: %llu pending, %llu queued, %llu on deck, %llu in flight",
               tier_name(lane->from), tier_name(lane->to), (unsigned long long)lane->pending,
               (unsigned long long)lane->queued, (unsigned long long)lane->ondeck,
               (unsigned long long)lane->inflight);
}

/* What lanes hold of a tier and cannot be asked to give back. */
static uint64_t lanes_keep(const struct facts *facts, uint32_t tier)
{
    uint64_t kept = 0;
    for (uint32_t i = 0; i < facts->lane_count; i++) {
        const struct lane_facts *lane = &facts->lanes[i];
        bool down = lane->from < lane->to;
        if (lane->from == tier || lane->to == tier)
            kept += down ? lane->inflight : lane->pending;
    }
    return kept;
}

static void check_tier(struct world *w, const struct facts *facts, uint32_t t)
{
    uint64_t blocks = facts->tiers[t].blocks, held_count = facts->tiers[t].held, mine = 0,
             lifted = 0;
    uint64_t free_count = facts->tiers[t].free, parked = facts->tiers[t].parked,
             transfer = facts->tiers[t].transfer, available = facts->tiers[t].available;
    if (free_count + held_count + parked + transfer + facts->tiers[t].retired != blocks ||
        blocks != w->setup.tiers[t].blocks || facts->tiers[t].retired != 0)
        differ(w, "%s: %llu free, %llu held, %llu parked, %llu in transfer, %llu retired of %llu",
               tier_name(t), (unsigned long long)free_count, (unsigned long long)held_count,
               (unsigned long long)parked, (unsigned long long)transfer,
               (unsigned long long)facts->tiers[t].retired, (unsigned long long)blocks);
    for (uint32_t s = 0; s < blocks; s++)
        mine += held(&w->blocks[t][s]);
    for (uint32_t i = 0; i < LIFTS; i++) /* a target in reserve beside each joined block */
        if (w->lifts[i].op != NULL && !w->lifts[i].taken && w->lifts[i].tier == t)
            lifted += 2 * w->lifts[i].count;
    if (held_count < mine || held_count > mine + lifted)
        differ(w, "%s: %llu blocks are held, %llu are said to be", tier_name(t),
               (unsigned long long)(mine + lifted), (unsigned long long)held_count);
    if (available > free_count + parked)
        differ(w, "%s: %llu available, %llu free, %llu parked", tier_name(t),
               (unsigned long long)available, (unsigned long long)free_count,
               (unsigned long long)parked);
    uint64_t kept = lanes_keep(facts, t);
    if (!avoids(w, AVOID_CLEAR_STUCK) && available + held_count + kept < blocks)
        differ(w, "%s: of %llu blocks %llu are held, lanes move %llu, and %llu are available",
               tier_name(t), (unsigned long long)blocks, (unsigned long long)held_count,
               (unsigned long long)kept, (unsigned long long)available);
}

void check_counts(struct world *w)
{
    struct facts facts;
    uint32_t pins = 0;
    kv_facts(w->kv, &facts);
    for (uint32_t t = 0; t < TIERS; t++)
        check_tier(w, &facts, t);
    for (uint32_t i = 0; i < facts.lane_count; i++)
        check_books(w, &facts.lanes[i]);
    for (uint32_t i = 0; i < PINS; i++)
        pins += w->pins[i].block != NULL;
    if (facts.pins != pins)
        differ(w, "%u pins are set, %llu are said to be", pins, (unsigned long long)facts.pins);
}

/* By its name alone a content is found wherever its parents are. */
static void check_found(struct world *w, int content)
{
    uint64_t counts[TIERS];
    bool doubt;
    struct query query = {.names = &w->names[content], .count = 1};
    expect_code(w, "lookup", kv_lookup(w->kv, &query, counts), OK);
    uint32_t tier = truth_tier(w, content, &doubt);
    for (uint32_t t = 0; t < TIERS; t++)
        if (counts[t] != (t == tier))
            differ(w, "content %d is in %s, a lookup finds it %llu times in %s", content,
                   tier_name(tier), (unsigned long long)counts[t], tier_name(t));
}

static void check_parked(struct world *w, const struct facts *facts, uint32_t t)
{
    uint64_t stored = 0, in_use = 0;
    for (uint32_t c = 0; c < w->contents; c++)
        stored += w->presence[c][t] == YES;
    for (uint32_t s = 0; s < w->setup.tiers[t].blocks; s++)
        in_use += held(&w->blocks[t][s]) && w->blocks[t][s].indexed;
    if (facts->tiers[t].parked != stored - in_use)
        differ(w, "%s: %llu copies are stored and %llu of them held, %llu are said to be parked",
               tier_name(t), (unsigned long long)stored, (unsigned long long)in_use,
               (unsigned long long)facts->tiers[t].parked);
}

void check_quiet(struct world *w)
{
    struct facts facts;
    char why[256] = "";
    uint64_t entries = 0, moving = 0;
    for (uint32_t c = 0; c < w->contents; c++) {
        bool there = false;
        for (uint32_t t = 0; t < TIERS; t++)
            there |= w->presence[c][t] == YES;
        entries += there;
        check_found(w, (int)c);
    }
    op_walk(w);
    kv_facts(w->kv, &facts);
    for (uint32_t i = 0; i < facts.lane_count; i++)
        moving += facts.lanes[i].pending;
    if (moving == 0 && facts.index_entries != entries)
        differ(w, "%llu contents are stored, the index has %llu", (unsigned long long)entries,
               (unsigned long long)facts.index_entries);
    for (uint32_t t = 0; t < TIERS; t++)
        if (lifts_active(w) == 0 && moving == 0)
            check_parked(w, &facts, t);
    if (kv_check_tables(w->kv, why, sizeof why) != OK)
        differ(w, "the library's tables: %s", why);
}

/* ---- The end --------------------------------------------------------------------------------- */

static void end_steps(struct world *w, struct block *b)
{
    while (b->steps > 0) {
        if (b->refs + b->pins > 1) { /* sole holders only */
            struct block *again[1] = {b};
            if (b->refs == 0)
                differ(w, "%s/%u has a step and two pins", tier_name(b->tier), b->slot);
            unref_blocks(w, again, 1);
            continue;
        }
        b->failed = true;
        note(w, "the last step of %s/%u fails", tier_name(b->tier), b->slot);
        expect_code(w, "compute_failed", kv_compute_failed(w->kv, b->handle), OK);
        if (--b->steps == 0) {
            b->state = READY;
            b->failed = false;
        }
        block_release(w, b);
    }
}

static void release_lifts(struct world *w)
{
    w->left = true;
    for (uint32_t tries = 0; lifts_active(w) > 0; tries++) {
        for (uint32_t i = 0; i < LIFTS * 8; i++)
            op_lift_end(w);
        poll_to_quiet(w);
        if (tries > 100)
            differ(w, "operations do not end");
    }
    w->left = false;
}

void let_go_of_everything(struct world *w)
{
    release_lifts(w);
    for (uint64_t owner = 1; owner <= 4; owner++) {
        uint32_t released;
        expect_code(w, "unpin all", kv_unpin_all(w->kv, owner, &released), OK);
        for (uint32_t i = 0; i < PINS; i++) {
            if (w->pins[i].owner != owner)
                continue;
            w->pins[i].block->pins--;
            block_release(w, w->pins[i].block);
            w->pins[i] = (struct pin_model){0};
        }
    }
    for (uint32_t t = 0; t < TIERS; t++)
        for (uint32_t s = 0; s < w->setup.tiers[t].blocks; s++) {
            struct block *b = &w->blocks[t][s], *again[1] = {b};
            end_steps(w, b);
            while (b->refs > 0)
                unref_blocks(w, again, 1);
        }
    check_counts(w);
}
