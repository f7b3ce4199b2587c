/* SPDX-License-Identifier: Apache-2.0 */
/* Registering, finding, reading; and the whole request that a server makes of them. */
#include <string.h>

#include "world.h"

/* With the caller's keys nothing says, then, what comes before the block. */
static bool parent_unproven(const struct world *w, const struct block *b)
{
    bool doubt;
    return w->keyed && b->parent >= 0 &&
           (w->unproven[b->parent] || truth_tier(w, b->parent, &doubt) == TIERS);
}

/* Faults that a run steers round begin at register. */
static bool avoided(const struct world *w, const struct block *b)
{
    bool doubt;
    if (b->content < 0)
        return false;
    if (avoids(w, AVOID_STALE_NAMES) && block_outdated(w, b) != NO)
        return true;
    return avoids(w, AVOID_KEYED_ORDER) && w->keyed && b->parent >= 0 &&
           truth_tier(w, b->parent, &doubt) == TIERS;
}

static bool complete(const struct world *w, const struct block *b)
{
    return b->refs > 0 && b->state == COMPLETE && !avoided(w, b);
}

static bool mine(const struct world *w, const struct block *b)
{
    return b->refs > 0 && !avoided(w, b);
}

static bool registered(const struct world *w, const struct block *b)
{
    (void)w;
    return b->refs > 0 && b->state == REGISTERED;
}

/* ---- Register -------------------------------------------------------------------------------- */

struct block *indexed_copy(struct world *w, int content, uint32_t tier)
{
    for (uint32_t s = 0; s < w->setup.tiers[tier].blocks; s++) {
        struct block *b = &w->blocks[tier][s];
        if (b->content == content && (b->parked || (held(b) && b->indexed)))
            return b;
    }
    return NULL;
}

/* A lane may be filling the block of that tier already, or reading the one that is there. */
static bool lanes_busy(struct world *w, uint32_t tier)
{
    struct facts facts;
    kv_facts(w->kv, &facts);
    for (uint32_t i = 0; i < facts.lane_count; i++)
        if ((facts.lanes[i].to == tier || facts.lanes[i].from == tier) &&
            facts.lanes[i].pending > 0)
            return true;
    return false;
}

static void registered_shared(struct world *w, struct block **b, block_handle handle, bool share)
{
    struct block *own = *b;
    struct block_facts facts;
    int content = own->content;
    uint32_t tier = own->tier;
    expect_code(w, "describe", kv_describe(w->kv, handle, &facts), OK);
    if (!share || w->presence[content][tier] == NO || facts.tier != tier)
        differ(w, "register of content %d gave %s/%u in place of %s/%u", content,
               tier_name(facts.tier), facts.slot, tier_name(tier), own->slot);
    own->refs--;
    block_release(w, own);
    block_found(w, tier, facts.slot, handle, content);
    *b = &w->blocks[tier][facts.slot];
    w->tally->shared++;
    check_block(w, *b);
    bytes_check(w, *b, "after register with SHARE");
}

/*
 * With the caller's keys, where it is not known what comes before one of the two, both live. The
 * one of which it is known is indexed, and makes another forgotten; a query with tokens may have
 * made it known.
 */
static bool may_be_unproven(const struct world *w, const struct block *b)
{
    return w->allowed[b->content] && (w->unproven[b->content] || parent_unproven(w, b));
}

static void registered_indexed(struct world *w, struct block *b, const struct block_facts *facts)
{
    struct block *old = indexed_copy(w, b->content, b->tier);
    if (old != NULL && old->parked) { /* it takes the place of one that nobody holds */
        /* not taken over */
        bool forgotten = may_be_unproven(w, b) && facts->priority == b->priority;
        if (!forgotten && b->priority_known && b->priority == DEFAULT_PRIORITY &&
            b->retained_until == 0) {
            b->priority = old->priority;
            b->retained_until = old->retained_until;
            b->priority_known = w->exact;
        }
        w->tally->takeovers++;
        block_forget(old);
    } else if (w->presence[b->content][b->tier] != NO) {
        b->priority_known = false;
    }
    w->unproven[b->content] =
        parent_unproven(w, b) || (w->unproven[b->content] && (w->allowed[b->content] || w->file));
    truth_registered(w, b);
}

static void learn_replaced(struct world *w, const struct block *fresh)
{
    int content = fresh->content;
    for (uint32_t i = 0; i < LIFTS; i++)
        for (uint32_t j = 0; j < w->lifts[i].count; j++)
            w->lifts[i].disturbed |= w->lifts[i].contents[j] == content;
    for (uint32_t t = 0; t < TIERS; t++) {
        bool kept = t == fresh->tier;
        for (uint32_t s = 0; s < w->setup.tiers[t].blocks; s++) {
            struct block *b = &w->blocks[t][s];
            struct block_facts facts;
            if (b == fresh || b->content != content)
                continue;
            b->sure = false;
            if (!held(b) || !b->indexed)
                continue;
            expect_code(w, "describe", kv_describe(w->kv, b->handle, &facts), OK);
            b->indexed = facts.indexed;
            kept |= facts.indexed;
        }
        if (!kept && w->presence[content][t] == YES)
            w->presence[content][t] = MAYBE;
    }
}

/* The block kept its place: was it right to be indexed, or not to be? */
static void registered_own(struct world *w, struct block *b, bool share)
{
    struct block_facts facts;
    enum presence there = w->presence[b->content][b->tier], outdated = block_outdated(w, b);
    const struct block *old = indexed_copy(w, b->content, b->tier);
    bool unproven = may_be_unproven(w, b);
    b->state = REGISTERED;
    expect_code(w, "describe", kv_describe(w->kv, b->handle, &facts), OK);
    if (facts.indexed) {
        if (outdated == YES)
            differ(w, "content %d was named before it was forgotten, and register indexed it",
                   b->content);
        if (unproven)
            learn_replaced(w, b);
        else if (there == YES && (share || (old != NULL && held(old))))
            differ(w, "content %d is indexed in %s, and register indexed it again", b->content,
                   tier_name(b->tier));
        registered_indexed(w, b, &facts);
        return;
    }
    w->tally->unindexed++;
    if (outdated != NO || there == MAYBE || unproven)
        return;
    if (there == YES && share)
        differ(w, "content %d is in %s, and register with SHARE did not give it", b->content,
               tier_name(b->tier));
    if (there == YES && old != NULL && old->parked && w->exact)
        differ(w, "nobody holds content %d, and register left the new block unindexed", b->content);
    if (there == NO && (w->exact || (!lanes_busy(w, b->tier) && check_joins(w, b) == 0)))
        differ(w, "content %d is not in %s, and register left it unindexed", b->content,
               tier_name(b->tier));
}

int register_block(struct world *w, struct block **block, enum duplicate duplicate, uint64_t fence)
{
    struct block *b = *block;
    struct name key;
    block_handle handle = b->handle;
    bool share = duplicate == SHARE || (duplicate == BY_WORLD && w->setup.share);
    bool give = w->keyed && b->content >= 0 && (!b->named || chance(w, 20));
    if (give)
        key = w->names[b->content];
    bool shared = b->refs + b->pins > 1 || (b->state == REGISTERED && check_joins(w, b) > 0);
    if (share)
        fence_before_leaving(w, b);
    int code = kv_register(w->kv, &handle, 1, duplicate, give ? &key : NULL, fence, NULL);
    note(w, "register %s/%u (content %d, %s): %s", tier_name(b->tier), b->slot, b->content,
         share ? "SHARE" : "KEEP", kv_code_name(code));
    if (shared)
        expect_either(w, "register", code, E_SHARED, b->state == COMPLETE ? E_SHARED : E_STATE);
    else if (b->state != COMPLETE)
        expect_code(w, "register", code, E_STATE);
    else
        expect_code(w, "register", code, b->content < 0 ? E_INVAL : OK);
    if (code != OK)
        return code;
    give_fence(w, b, fence);
    b->named = true;
    if (handle != b->handle)
        registered_shared(w, block, handle, share);
    else
        registered_own(w, b, share);
    check_block(w, *block);
    return code;
}

void op_register(struct world *w)
{
    struct block *b = pick_block(w, chance(w, 95) ? complete : mine);
    if (b == NULL)
        return;
    /* what a late writer is still to write is no block to share */
    enum duplicate duplicate =
        bytes_pending(w, b, NULL) > 0 ? KEEP : (enum duplicate)pick(w, SHARE + 1);
    register_block(w, &b, duplicate, chance(w, 10) ? fence_later(w) : 0);
}

/* ---- Finding --------------------------------------------------------------------------------- */

static struct query query_of(struct world *w, int content, int how, int path[DEPTH_MAX],
                             uint32_t tokens[DEPTH_MAX * TOKENS_MAX], struct name names[DEPTH_MAX])
{
    uint32_t count = content_path(w, content, path);
    for (uint32_t i = 0; i < count; i++) {
        content_tokens(w, w->branch_of[path[i]], tokens + i * w->tokens);
        names[i] = w->names[path[i]];
    }
    struct query query = {.namespace_id = w->space_ids[w->space_of[content]], .count = count};
    if (how != 1)
        query.tokens = tokens;
    if (how != 0 || w->keyed)
        query.names = names;
    return query;
}

/* The run ended before `content`: must it have? */
static void missed(struct world *w, int content, bool safe)
{
    bool doubt;
    uint32_t tier = truth_tier(w, content, &doubt);
    /*
     * whose parent was not there when it was registered is found by its name only, once it came
     * from a file
     */
    bool by_name_only = w->unproven[content] && w->file && safe;
    if (tier < TIERS && !by_name_only)
        differ(w, "content %d is in %s, and was not found%s", content, tier_name(tier),
               safe ? "" : " by its name");
    w->tally->misses++;
    if (tier == TIERS && !safe)
        for (uint32_t t = 0; t < TIERS; t++)
            w->presence[content][t] = NO;
}

static void found_in(struct world *w, int content, uint32_t tier)
{
    if (tier >= TIERS || w->presence[content][tier] == NO)
        differ(w, "content %d was found in %s, where it cannot be%s", content, tier_name(tier),
               w->allowed[content] ? "" : ": it was forgotten, and not registered since");
    for (uint32_t t = 0; t < tier; t++)
        if (w->presence[content][t] == YES)
            differ(w, "content %d was found in %s, it is in %s", content, tier_name(tier),
                   tier_name(t));
    w->tally->hits++;
}

uint32_t match_path(struct world *w, int content, int how, struct block **found)
{
    int path[DEPTH_MAX];
    uint32_t tokens[DEPTH_MAX * TOKENS_MAX], count = 0;
    struct name names[DEPTH_MAX];
    struct hit hits[DEPTH_MAX];
    struct query query = query_of(w, content, how, path, tokens, names);
    expect_code(w, "match", kv_match(w->kv, &query, hits, DEPTH_MAX, &count), OK);
    note(w, "match %u blocks to content %d by %s: %u", query.count, content,
         how == 0   ? "tokens"
         : how == 1 ? "names"
                    : "both",
         count);
    if (count > query.count)
        differ(w, "match of %u blocks found %u", query.count, count);
    for (uint32_t i = 0; i < count; i++) {
        found_in(w, path[i], hits[i].tier);
        block_found(w, hits[i].tier, hits[i].slot, hits[i].block, path[i]);
        found[i] = &w->blocks[hits[i].tier][hits[i].slot];
        bytes_check(w, found[i], "after a match");
        check_block(w, found[i]);
    }
    if (count < query.count)
        missed(w, path[count], how != 1);
    return count;
}

void op_match(struct world *w)
{
    struct block *found[DEPTH_MAX];
    uint32_t count = match_path(w, content_random(w), (int)pick(w, 3), found);
    if (count > 0 && chance(w, 70))
        unref_blocks(w, found, count);
}

void op_lookup(struct world *w)
{
    int path[DEPTH_MAX], how = (int)pick(w, 3);
    uint32_t tokens[DEPTH_MAX * TOKENS_MAX];
    struct name names[DEPTH_MAX];
    uint64_t counts[TIERS], run = 0, sure = 0, by_tier[TIERS] = {0};
    struct query query = query_of(w, content_random(w), how, path, tokens, names);
    bool doubts = false;
    expect_code(w, "lookup", kv_lookup(w->kv, &query, counts), OK);
    for (uint32_t t = 0; t < TIERS; t++)
        run += counts[t];
    for (; sure < query.count; sure++) {
        bool doubt;
        uint32_t tier = truth_tier(w, path[sure], &doubt);
        doubts |= doubt;
        doubts |= w->unproven[path[sure]] && w->file;
        if (tier == TIERS || (w->unproven[path[sure]] && w->file))
            break;
        by_tier[tier]++;
    }
    if (run < sure || (!doubts && run != sure))
        differ(w, "lookup of %u blocks to content %d: %llu, %llu are there", query.count,
               path[query.count - 1], (unsigned long long)run, (unsigned long long)sure);
    if (!doubts && memcmp(counts, by_tier, sizeof by_tier) != 0)
        differ(w, "lookup of %u blocks to content %d: other tiers", query.count,
               path[query.count - 1]);
}

void op_read(struct world *w)
{
    struct block *b = pick_block(w, chance(w, 80) ? registered : mine);
    if (b == NULL)
        return;
    if (b->state == REGISTERED)
        bytes_check(w, b, "while it is held");
    check_block(w, b);
    check_key(w, b);
}

struct walked {
    struct world *w;
    uint32_t seen[CONTENTS_MAX][TIERS];
};

static void walk_visit(void *arg, const struct event *event)
{
    struct walked *walked = arg;
    int content = content_find(walked->w, &event->name);
    if (content < 0 || event->kind != EVENT_STORED || event->tier >= TIERS)
        differ(walked->w, "a walk shows what nobody named");
    walked->seen[content][event->tier]++;
}

void op_walk(struct world *w)
{
    struct walked walked = {.w = w};
    expect_code(w, "walk", kv_walk(w->kv, walk_visit, &walked), OK);
    w->tally->walks++;
    for (uint32_t c = 0; c < w->contents; c++)
        for (uint32_t t = 0; t < TIERS; t++) {
            uint32_t seen = walked.seen[c][t];
            enum presence there = w->presence[c][t];
            if (seen > 1 || (there == YES && seen == 0) || (there == NO && seen > 0))
                differ(w, "a walk shows content %u in %s %u times", c, tier_name(t), seen);
        }
}

/* ---- A request ------------------------------------------------------------------------------- */

/* Matches, computes what is missing, registers it; lets go at once or later. */
void op_request(struct world *w)
{
    struct block *blocks[DEPTH_MAX];
    int content = content_random(w), path[DEPTH_MAX];
    uint32_t count = content_path(w, content, path), have = 0;
    if (chance(w, 85))
        have = match_path(w, content, (int)pick(w, 3), blocks);
    uint32_t tier = chance(w, 90) ? TIER_DEVICE : pick(w, TIERS);
    if (!in_memory(w, tier))
        tier = TIER_DEVICE;
    uint32_t fresh = count - have;
    if (fresh > 0 &&
        alloc_blocks(w, tier, fresh, chance(w, 8) ? fence_later(w) : 0, blocks + have) == 0) {
        unref_blocks(w, blocks, have);
        return;
    }
    uint64_t fence = chance(w, 20) ? fence_later(w) : 0;
    for (uint32_t i = have; i < count; i++)
        compute_block(w, blocks[i], w->space_of[path[i]], w->parent_of[path[i]],
                      w->branch_of[path[i]], fence);
    if (chance(w, 2)) { /* between naming and registering */
        void (*const forget[])(struct world *) = {op_invalidate, op_invalidate_space, op_clear};
        forget[pick(w, 3)](w);
    }
    bool backwards = w->keyed && chance(w, 20); /* with the caller's keys children may come first */
    for (uint32_t i = have; i < count; i++) {
        uint32_t at = backwards ? count - 1 - (i - have) : i;
        bool pending = bytes_pending(w, blocks[at], NULL) > 0;
        if (chance(w, 95) && blocks[at]->state == COMPLETE && !avoided(w, blocks[at]))
            register_block(w, &blocks[at], pending ? KEEP : (enum duplicate)pick(w, SHARE + 1), 0);
    }
    if (chance(w, 60))
        unref_blocks(w, blocks, count);
}
