/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Truth: who holds what, and which contents may be found.
 *
 * presence says of each (content, tier) what is certain. A registration makes YES, forgetting makes
 * NO. An eviction of the library's choice makes MAYBE of all that it may have met; the events tell
 * which, once progress has delivered them.
 */
#include <string.h>

#include "world.h"

uint32_t holders(const struct block *b)
{
    return b->refs + b->pins + b->steps;
}

void block_forget(struct block *b)
{
    *b = (struct block){.tier = b->tier,
                        .slot = b->slot,
                        .of_lift = b->of_lift,
                        .life = b->life + 1,
                        .parent = -1,
                        .branch = -1,
                        .given = -1,
                        .content = -1,
                        .priority = DEFAULT_PRIORITY};
}

void block_fresh(struct world *w, struct block *b, block_handle handle)
{
    b->of_lift = false; /* operations may have exchanged their targets */
    if (held(b))
        differ(w, "%s/%u was given out, and somebody holds it", tier_name(b->tier), b->slot);
    if (b->parked && b->sure && w->presence[b->content][b->tier] == YES)
        differ(w, "%s/%u was given out, and content %d is found there", tier_name(b->tier), b->slot,
               b->content);
    block_forget(b);
    b->handle = handle;
    b->refs = 1;
    b->priority_known = true;
}

void block_found(struct world *w, uint32_t tier, uint32_t slot, block_handle handle, int content)
{
    if (tier >= TIERS || slot >= w->setup.tiers[tier].blocks)
        differ(w, "content %d is said to be in tier %u, slot %u", content, tier, slot);
    struct block *b = &w->blocks[tier][slot];
    if (held(b)) {
        if (!b->indexed || b->content != content)
            differ(w, "content %d is found in %s/%u, where content %d is held%s", content,
                   tier_name(tier), slot, b->content, b->indexed ? "" : ", unindexed");
        b->refs++;
        return;
    }
    if (!b->parked || b->content != content) {
        if (w->exact)
            differ(w, "content %d is found in %s/%u, where it was never put", content,
                   tier_name(tier), slot);
        block_forget(b);
        b->state = REGISTERED;
        b->tokens = b->computed = w->tokens;
        b->content = content;
        b->space = w->space_of[content];
        b->position = w->depth_of[content];
        b->parent = w->parent_of[content];
        b->branch = w->branch_of[content];
    }
    if (!w->exact && !b->sure)
        b->priority_known = false;
    b->clears_at = w->clears;
    b->space_at = w->space_epoch[b->space];
    b->born = w->invalidations;
    b->bytes = bytes_expected(w, content);
    b->named = true;
    b->handle = handle;
    b->refs = 1;
    b->indexed = true;
    b->parked = false;
    w->presence[content][tier] = YES;
}

void weaks_drop(struct world *w, const struct block *b)
{
    for (uint32_t i = 0; i < WEAKS; i++)
        if (w->weaks[i].block == b)
            w->weaks[i] = (struct weak_model){0};
}

void block_release(struct world *w, struct block *b)
{
    if (held(b))
        return;
    if (b->of_lift || check_joins(w, b) > 0)
        weaks_drop(w, b);
    if (b->state == REGISTERED && b->indexed && !b->of_lift) {
        b->parked = b->sure = true;
        b->indexed = false;
        order_park(w, b);
    } else {
        block_forget(b);
    }
}

enum presence block_outdated(const struct world *w, const struct block *b)
{
    if (b->clears_at != w->clears || b->space_at != w->space_epoch[b->space] ||
        w->invalidated_at[b->content] > b->born)
        return YES;
    return w->invalidations > b->born ? MAYBE : NO;
}

/* ---- What may be found ----------------------------------------------------------------------- */

void truth_registered(struct world *w, struct block *b)
{
    w->presence[b->content][b->tier] = YES;
    w->allowed[b->content] = w->since_clear[b->content] = true;
    b->indexed = true;
    w->tally->registered++;
}

static void forget_copy(int content, struct block *b)
{
    if (b->content != content)
        return;
    if (b->parked)
        block_forget(b);
    else
        b->indexed = false;
}

void truth_forget(struct world *w, int content)
{
    w->allowed[content] = false;
    w->unproven[content] &= w->file; /* there it may come back */
    for (uint32_t i = 0; i < LIFTS; i++)
        for (uint32_t j = 0; j < w->lifts[i].count; j++)
            w->lifts[i].disturbed |= w->lifts[i].contents[j] == content;
    for (uint32_t t = 0; t < TIERS; t++) {
        w->presence[content][t] = NO;
        for (uint32_t s = 0; s < w->setup.tiers[t].blocks; s++)
            forget_copy(content, &w->blocks[t][s]);
    }
}

uint32_t truth_tier(const struct world *w, int content, bool *doubt)
{
    *doubt = false;
    for (uint32_t t = 0; t < TIERS; t++) {
        if (w->presence[content][t] == YES)
            return t;
        *doubt |= w->presence[content][t] == MAYBE;
    }
    return TIERS;
}

static bool somebody_has(const struct world *w, int content, uint32_t tier)
{
    for (uint32_t s = 0; s < w->setup.tiers[tier].blocks; s++) {
        const struct block *b = &w->blocks[tier][s];
        if (b->content == content && b->indexed && held(b))
            return true;
    }
    return false;
}

static void doubt_tier(struct world *w, uint32_t tier)
{
    bool kept[CONTENTS_MAX] = {0};
    for (uint32_t s = 0; s < w->setup.tiers[tier].blocks; s++) {
        struct block *b = &w->blocks[tier][s];
        if (b->parked)
            b->sure = false;
        else if (held(b) && b->indexed)
            kept[b->content] = true;
    }
    for (uint32_t c = 0; c < w->contents; c++)
        if (w->presence[c][tier] == YES && !kept[c])
            w->presence[c][tier] = MAYBE;
}

void truth_learn(struct world *w)
{
    struct facts facts;
    if (w->exact)
        return;
    kv_facts(w->kv, &facts);
    for (uint32_t t = 0; t < TIERS; t++) {
        if (facts.tiers[t].evicted != w->evicted_seen[t])
            doubt_tier(w, t);
        w->tally->evicted += facts.tiers[t].evicted - w->evicted_seen[t];
        w->evicted_seen[t] = facts.tiers[t].evicted;
    }
}

void truth_blur(struct world *w)
{
    truth_learn(w);
    if (w->exact)
        return;
    for (uint32_t t = 0; t < TIERS; t++)
        for (uint32_t c = 0; has_tier(w, t) && c < w->contents; c++)
            if (w->allowed[c] && w->presence[c][t] == NO)
                w->presence[c][t] = MAYBE;
}

static void compare_copy(struct world *w, int content, uint32_t tier, uint64_t *lost)
{
    enum presence was = w->presence[content][tier];
    bool is = w->picture[content][tier];
    if (is && !w->allowed[content])
        differ(w, "events say that content %d is in %s: it was forgotten, and not registered since",
               content, tier_name(tier));
    if (is && was == NO && (w->exact || !has_tier(w, tier)))
        differ(w, "events say that content %d is in %s: nobody put it there", content,
               tier_name(tier));
    if (!is && was == YES) {
        if (w->exact || somebody_has(w, content, tier))
            differ(w, "events say that content %d is not in %s: it was registered there%s", content,
                   tier_name(tier), w->exact ? ", and is not the next to go" : " and is held");
        ++*lost;
        note(w, "  content %d is gone from %s", content, tier_name(tier));
    }
    if (is && was == NO && tier > 0)
        w->tally->moved_down++;
    w->presence[content][tier] = is ? YES : NO;
}

void truth_compare(struct world *w)
{
    struct facts facts;
    kv_facts(w->kv, &facts);
    for (uint32_t t = 0; t < TIERS; t++) {
        uint64_t lost = 0, evicted = facts.tiers[t].evicted - w->evicted_seen[t];
        for (uint32_t c = 0; c < w->contents; c++)
            compare_copy(w, (int)c, t, &lost);
        if (lost > evicted)
            differ(w, "%llu copies are gone from %s, but %llu were evicted",
                   (unsigned long long)lost, tier_name(t), (unsigned long long)evicted);
        for (uint32_t s = 0; s < w->setup.tiers[t].blocks; s++) {
            struct block *b = &w->blocks[t][s];
            if (b->parked && w->presence[b->content][t] == NO)
                block_forget(b);
            else if (b->parked && evicted > 0 && !w->exact)
                b->sure = false;
        }
        w->tally->evicted += evicted;
        w->evicted_seen[t] = facts.tiers[t].evicted;
    }
}

/* ---- Events ---------------------------------------------------------------------------------- */

static int event_content(struct world *w, const struct event *event)
{
    int content = content_find(w, &event->name);
    if (content < 0)
        differ(w, "event %llu names a block that nobody named",
               (unsigned long long)event->sequence);
    int parent = w->parent_of[content];
    size_t bytes = w->keyed ? w->setup.key_bytes : sizeof(uint64_t);
    if (event->namespace_id != w->space_ids[w->space_of[content]])
        differ(w, "event %llu: content %d is in namespace %u", (unsigned long long)event->sequence,
               content, event->namespace_id);
    if (event->has_parent != (parent >= 0) ||
        (parent >= 0 && memcmp(event->parent.bytes, w->names[parent].bytes, bytes) != 0))
        differ(w, "event %llu: another parent for content %d", (unsigned long long)event->sequence,
               content);
    if (event->tokens != NULL) {
        uint32_t tokens[TOKENS_MAX];
        content_tokens(w, w->branch_of[content], tokens);
        if (memcmp(tokens, event->tokens, w->tokens * sizeof *tokens) != 0)
            differ(w, "event %llu: other tokens for content %d",
                   (unsigned long long)event->sequence, content);
    }
    return content;
}

void truth_event(void *context, const struct event *event)
{
    struct world *w = context;
    uint64_t step = event->kind == EVENT_LOST ? event->lost_count : 1;
    if (w->sequence != 0 && event->sequence != w->sequence + step)
        differ(w, "event %llu (kind %d) after event %llu", (unsigned long long)event->sequence,
               event->kind, (unsigned long long)w->sequence);
    w->sequence = event->sequence;
    if (event->kind == EVENT_LOST) {
        w->tally->lost += event->lost_count;
        w->lost = w->lossy_so_far = true;
    }
    if (event->kind == EVENT_CLEARED)
        memset(w->picture, 0, sizeof w->picture);
    if (event->kind != EVENT_STORED && event->kind != EVENT_REMOVED)
        return;
    int content = event_content(w, event);
    bool stored = event->kind == EVENT_STORED;
    if (w->picture[content][event->tier] == stored && !w->lossy_so_far)
        differ(w, "event %llu: content %d was %s in %s already",
               (unsigned long long)event->sequence, content, stored ? "stored" : "removed",
               tier_name(event->tier));
    w->picture[content][event->tier] = stored;
}

static void rebuild_visit(void *arg, const struct event *event)
{
    struct world *w = arg;
    w->picture[event_content(w, event)][event->tier] = true;
}

void truth_rebuild(struct world *w)
{
    if (!w->lost)
        return;
    w->lost = false;
    memset(w->picture, 0, sizeof w->picture);
    expect_code(w, "walk", kv_walk(w->kv, rebuild_visit, w), OK);
}
