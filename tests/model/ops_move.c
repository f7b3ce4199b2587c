/* SPDX-License-Identifier: Apache-2.0 */
/* Moving up: operations with joins, cancel and deadline. */
#include "world.h"

static bool mine(const struct world *w, const struct block *b)
{
    (void)w;
    return b->refs > 0;
}

/* ---- Up -------------------------------------------------------------------------------------- */

uint32_t lifts_active(const struct world *w)
{
    uint32_t active = 0;
    for (uint32_t i = 0; i < LIFTS; i++)
        active += w->lifts[i].op != NULL;
    return active;
}

static bool shares_content(const struct lift_model *a, const struct lift_model *b)
{
    for (uint32_t i = 0; i < a->count; i++)
        for (uint32_t j = 0; j < b->count; j++)
            if (a->contents[i] == b->contents[j])
                return true;
    return false;
}

/*
 * A run may steer round what befalls those who share a block with an operation that was cut short.
 */
static bool gave_up(const struct world *w, const struct lift_model *lift)
{
    bool other_ended = false;
    for (uint32_t i = 0; i < LIFTS; i++) {
        const struct lift_model *other = &w->lifts[i];
        other_ended |= other != lift && other->count > 0 && shares_content(lift, other) &&
                       (other->cancelled || (other->deadline != 0 && other->deadline <= w->now));
    }
    return other_ended && avoids(w, AVOID_JOIN_CANCELLED);
}

static struct world *lift_world; /* `done` has one argument, which names the operation */

static void lift_done(void *arg, op_handle op, int status, uint32_t good_count)
{
    struct lift_model *lift = arg;
    struct world *w = lift_world;
    note(w, "  done of operation %u: %s, %u of %u good", lift->number, kv_code_name(status),
         good_count, lift->count);
    if (lift->op == NULL || op != lift->op || lift->done_calls > 0)
        differ(w, "done of operation %u is called again, or for another", lift->number);
    if (good_count > lift->count)
        differ(w, "operation %u of %u blocks has %u good ones", lift->number, lift->count,
               good_count);
    if (status == E_CANCELED && !lift->cancelled)
        differ(w, "operation %u ends as cancelled, and nobody has", lift->number);
    if (status == E_TIMEDOUT && (lift->deadline == 0 || lift->deadline > w->now))
        differ(w, "operation %u ends before its time", lift->number);
    if (status != OK && status != E_CANCELED && status != E_TIMEDOUT)
        differ(w, "operation %u ends with %s", lift->number, kv_code_name(status));
    bool through = has_tier(w, TIER_HOST) && has_tier(w, TIER_DISK) && lift->tier == TIER_DEVICE;
    /* through a tier in between it may find no room there */
    if (status == OK && good_count < lift->count && !lift->disturbed && !through &&
        !gave_up(w, lift))
        differ(w, "nothing is in the way of operation %u, and %u of its %u blocks are good",
               lift->number, good_count, lift->count);
    if (lift->taken && good_count != lift->good)
        differ(w, "operation %u had %u good blocks when it was taken, %u when it was done",
               lift->number, lift->good, good_count);
    lift->done_calls = 1;
    lift->status = status;
    lift->good = good_count;
}

/* One that is in a lower tier alone, if there is any. */
static int content_below(struct world *w, uint32_t tier)
{
    uint32_t first = pick(w, w->contents);
    for (uint32_t i = 0; i < w->contents; i++) {
        bool doubt;
        int content = (int)((first + i) % w->contents);
        uint32_t there = truth_tier(w, content, &doubt);
        if (there < TIERS && there > tier)
            return content;
    }
    return content_random(w);
}

/* Hits of tiers below `tier`, in the order of the sequence; the others are let go. */
static uint32_t find_sources(struct world *w, uint32_t tier, struct block **sources)
{
    struct block *found[DEPTH_MAX], *others[DEPTH_MAX];
    uint32_t count = 0, other_count = 0;
    uint32_t run = match_path(w, content_below(w, tier), (int)pick(w, 3), found);
    for (uint32_t i = 0; i < run; i++) {
        if (found[i]->tier > tier)
            sources[count++] = found[i];
        else
            others[other_count++] = found[i];
    }
    if (other_count > 0)
        unref_blocks(w, others, other_count);
    return count;
}

/*
 * A block that is joined comes when whoever began it has it; should that one give up, with its
 * target.
 */
static void joins(struct world *w, struct lift_model *lift)
{
    for (uint32_t i = 0; i < LIFTS; i++) {
        const struct lift_model *other = &w->lifts[i];
        if (other == lift || other->op == NULL || other->done_calls > 0 ||
            !shares_content(lift, other))
            continue;
        if (other->ready_at > lift->ready_at)
            lift->ready_at = other->ready_at;
    }
}

static void own_targets(struct world *w, struct lift_model *lift, struct block **sources,
                        struct block **targets, uint64_t fence)
{
    for (uint32_t i = 0; i < lift->count; i++) {
        struct block *target = targets[i];
        if (fence > w->fence_reached)
            bytes_write(w, target, mix(w->late_order) | 1, fence);
        give_fence(w, target, fence);
        uint64_t source_at = w->ticket[sources[i]->tier][sources[i]->slot];
        uint64_t target_at = w->ticket[target->tier][target->slot];
        lift->ready_at = source_at > lift->ready_at ? source_at : lift->ready_at;
        lift->ready_at = target_at > lift->ready_at ? target_at : lift->ready_at;
        lift->targets[i] = target;
        lift->disturbed |= !sources[i]->indexed;
        lift->contents[i] = sources[i]->content;
        lift->bytes[i] = sources[i]->bytes;
        target->refs = 0;
        target->of_lift = true;
        weaks_drop(w, target);
    }
}

static uint64_t target_fence(struct world *w)
{
    return chance(w, 25) ? fence_later(w) : 0;
}

static void start_lift(struct world *w, struct lift_model *lift, struct block **sources,
                       struct block **targets, uint32_t count)
{
    block_handle from[LIFT_BLOCKS], to[LIFT_BLOCKS];
    struct lift request = {.sources = from,
                           .targets = to,
                           .count = count,
                           .priority = chance(w, 50) ? -1 : (int)pick(w, 101),
                           .timeout_ns = chance(w, 25) && !avoids(w, AVOID_FENCE_LOST)
                                             ? 1000 * (uint64_t)(1 + pick(w, 20))
                                             : 0,
                           .fence = target_fence(w),
                           .done = lift_done,
                           .arg = lift};
    for (uint32_t i = 0; i < count; i++) {
        from[i] = sources[i]->handle;
        to[i] = targets[i]->handle;
    }
    uint32_t active = lifts_active(w);
    lift_world = w;
    *lift = (struct lift_model){.number = w->lift_numbers++, .count = count};
    lift->tier = targets[0]->tier;
    lift->deadline = request.timeout_ns == 0 ? 0 : w->now + request.timeout_ns;
    op_handle op = NULL;
    int code = kv_lift(w->kv, &request, &op);
    note(w,
         "operation %u: %u blocks from content %d up to %s, priority %d, fence %llu, %llu ns: %s",
         lift->number, count, sources[0]->content, tier_name(lift->tier), request.priority,
         (unsigned long long)request.fence, (unsigned long long)request.timeout_ns,
         kv_code_name(code));
    expect_code(w, "operation", code, active >= w->setup.op_capacity ? E_AGAIN : OK);
    if (code != OK)
        return;
    lift->op = op;
    w->tally->lifted += count;
    own_targets(w, lift, sources, targets, request.fence);
    joins(w, lift);
}

static struct lift_model *free_lift(struct world *w)
{
    for (uint32_t i = 0; i < LIFTS; i++)
        if (w->lifts[i].op == NULL)
            return &w->lifts[i];
    return NULL;
}

/* Requests that nobody may make. */
static void wrong_lift(struct world *w)
{
    struct block *source = pick_block(w, mine), *target = pick_block(w, mine);
    struct lift request = {.count = 1, .priority = -1};
    op_handle op = NULL;
    if (source == NULL || target == NULL)
        return;
    if (source->state == REGISTERED && target->state == EMPTY && source->tier > target->tier &&
        target->refs + target->pins == 1)
        return;
    request.sources = &source->handle;
    request.targets = &target->handle;
    int code = kv_lift(w->kv, &request, &op);
    note(w, "wrong operation from %s/%u to %s/%u: %s", tier_name(source->tier), source->slot,
         tier_name(target->tier), target->slot, kv_code_name(code));
    if (code != E_INVAL && code != E_STATE && code != E_SHARED && code != E_AGAIN)
        differ(w, "an operation that may not be answers %s", kv_code_name(code));
}

void op_lift(struct world *w)
{
    struct block *sources[LIFT_BLOCKS], *targets[LIFT_BLOCKS];
    struct lift_model *lift = free_lift(w);
    uint32_t tier = chance(w, 75) ? TIER_DEVICE : TIER_HOST;
    if (lift == NULL || !has_tier(w, tier) || tier_below(w, tier) == UINT32_MAX)
        return;
    if (chance(w, 5)) {
        wrong_lift(w);
        return;
    }
    uint32_t count = find_sources(w, tier, sources);
    if (count == 0)
        return;
    if (alloc_blocks(w, tier, count, target_fence(w), targets) == 0) {
        unref_blocks(w, sources, count);
        return;
    }
    start_lift(w, lift, sources, targets, count);
    if (lift->op == NULL)
        unref_blocks(w, targets, count);
    if (chance(w, 80))
        unref_blocks(w, sources, count);
}

/* ---- Its end --------------------------------------------------------------------------------- */

static void disown_targets(struct lift_model *lift)
{
    for (uint32_t i = 0; i < lift->count; i++) {
        if (!lift->targets[i]->of_lift)
            continue; /* it was another operation's by then */
        lift->targets[i]->of_lift = false;
        if (!held(lift->targets[i])) /* else others have found what came into it */
            block_forget(lift->targets[i]);
    }
}

static void took_good(struct world *w, const struct lift_model *lift, uint32_t i,
                      block_handle handle)
{
    struct block_facts facts;
    int content = lift->contents[i];
    expect_code(w, "describe", kv_describe(w->kv, handle, &facts), OK);
    if (facts.tier != lift->tier || facts.state != REGISTERED)
        differ(w, "block %u of operation %u is good, and is in %s, state %u", i, lift->number,
               tier_name(facts.tier), facts.state);
    struct block *b = &w->blocks[facts.tier][facts.slot];
    w->tally->joined += b != lift->targets[i];
    if (facts.indexed) {
        if (w->presence[content][facts.tier] == NO)
            differ(w, "block %u of operation %u is indexed, and content %d was forgotten", i,
                   lift->number, content);
        block_found(w, facts.tier, facts.slot, handle, content);
    } else if (held(b)) {
        if (b->content != content || b->state != REGISTERED)
            differ(w, "block %u of operation %u is content %d, and %s/%u holds content %d", i,
                   lift->number, content, tier_name(b->tier), b->slot, b->content);
        b->refs++;
    } else {
        if (w->presence[content][facts.tier] == YES &&
            lift->bytes[i] == bytes_expected(w, content) && w->exact)
            differ(w, "block %u of operation %u is good, and is not indexed", i, lift->number);
        weaks_drop(w, b);
        block_forget(b);
        b->handle = handle;
        b->refs = 1;
        b->state = REGISTERED;
        b->tokens = b->computed = w->tokens;
        b->content = content;
        b->space = w->space_of[content];
        b->position = w->depth_of[content];
        b->parent = w->parent_of[content];
        b->branch = w->branch_of[content];
        b->bytes = lift->bytes[i];
        b->named = false; /* whoever clones it may be told that its names are gone */
        b->clears_at = UINT32_MAX;
    }
    check_block(w, b);
    bytes_check(w, b, "after an operation");
}

/* What has come behind the good prefix goes again, if nobody holds it. */
static void came_too_late(struct world *w, const struct lift_model *lift, uint32_t i)
{
    int content = lift->contents[i];
    struct block *b = indexed_copy(w, content, lift->tier);
    if (w->presence[content][lift->tier] != YES || (b != NULL && held(b)))
        return;
    w->presence[content][lift->tier] = MAYBE;
    if (b != NULL)
        b->sure = false;
}

/*
 * Nothing in place of a block: an operation whose transfers have ended gives none only where others
 * share the block, and no other was to be had: what was available stands for other shared blocks.
 */
static void gave_none(struct world *w, const struct lift_model *lift, const block_handle *handles,
                      uint32_t good, uint64_t room)
{
    uint32_t lacking = 0, others = 0;
    for (uint32_t i = good; i < lift->count; i++) {
        struct block_facts facts;
        if (handles[i] == NULL) {
            lacking++;
            continue;
        }
        expect_code(w, "describe", kv_describe(w->kv, handles[i], &facts), OK);
        others += &w->blocks[facts.tier][facts.slot] != lift->targets[i];
    }
    if (lacking > 0 && lift->done_calls > 0 && lift->status == OK && room > others)
        differ(w, "operation %u gives no block in place of %u, others in place of %u of %llu",
               lift->number, lacking, others, (unsigned long long)room);
}

static void take(struct world *w, struct lift_model *lift)
{
    block_handle handles[LIFT_BLOCKS];
    struct facts before;
    uint32_t good = 99;
    kv_facts(w->kv, &before);
    int code = kv_op_take(w->kv, lift->op, handles, lift->count, &good);
    note(w, "take operation %u: %s", lift->number, kv_code_name(code));
    if (lift->taken)
        expect_either(w, "take", code, E_STATE, lift->done_calls ? E_STATE : E_AGAIN);
    else /* it ends a moment before `done` runs */
        expect_either(w, "take", code, OK, lift->done_calls ? OK : E_AGAIN);
    if (code != OK)
        return;
    if (!lift->done_calls)
        lift->good = good;
    if (good != lift->good)
        differ(w, "operation %u had %u good blocks when it was done, %u when it was taken",
               lift->number, lift->good, good);
    lift->taken = true;
    gave_none(w, lift, handles, good, before.tiers[lift->tier].available);
    truth_learn(w);
    disown_targets(lift);
    for (uint32_t i = 0; i < lift->count; i++) {
        struct block_facts facts;
        if (i >= good)
            came_too_late(w, lift, i);
        if (i < good) {
            took_good(w, lift, i, handles[i]);
            continue;
        }
        if (handles[i] == NULL)
            continue;
        expect_code(w, "describe", kv_describe(w->kv, handles[i], &facts), OK);
        struct block *b = &w->blocks[facts.tier][facts.slot];
        block_fresh(w, b, handles[i]);
        if (avoids(w, AVOID_LEFTOVERS))
            b->priority_known = false;
        check_block(w, b);
    }
}

static void forget_lift(struct lift_model *lift)
{
    if (!lift->taken)
        disown_targets(lift);
    lift->op = NULL;
}

static void release(struct world *w, struct lift_model *lift)
{
    note(w, "release operation %u", lift->number);
    expect_code(w, "release", kv_op_release(w->kv, lift->op), OK);
    lift->released = lift->cancelled = true;
    if (lift->done_calls > 0)
        forget_lift(lift);
}

void lifts_collect(struct world *w)
{
    for (uint32_t i = 0; i < LIFTS; i++) {
        struct lift_model *lift = &w->lifts[i];
        if (lift->op != NULL && lift->released && lift->done_calls > 0)
            forget_lift(lift);
    }
}

void op_lift_end(struct world *w)
{
    struct lift_model *lift = &w->lifts[pick(w, LIFTS)];
    if (lift->op == NULL || lift->released)
        return;
    if (!lift->done_calls && chance(w, 50) && !w->left)
        return;
    if (avoids(w, AVOID_FENCE_LOST) && w->fence_given > w->fence_reached)
        fence_signal(w, w->fence_given);
    if (!lift->done_calls && chance(w, 50)) {
        note(w, "cancel operation %u", lift->number);
        expect_code(w, "cancel of an operation", kv_op_cancel(w->kv, lift->op), OK);
        lift->cancelled = true;
        return;
    }
    if (chance(w, 90))
        take(w, lift);
    if (lift->taken || chance(w, 50))
        release(w, lift);
}

/*
 * Only its own fences may hold an operation up, and those of whom it has joined. But a slot whose
 * fences are on two lines may wait for other such slots.
 */
static uint64_t waits_for(const struct world *w, const struct lift_model *lift)
{
    bool through = w->file || (has_tier(w, TIER_HOST) && has_tier(w, TIER_DISK));
    /* a carrier's slot has a fence, too; a file is slow */
    return through || w->setup.lines > 1 ? w->fence_given : lift->ready_at;
}

void lifts_check(struct world *w)
{
    for (uint32_t i = 0; i < LIFTS; i++) {
        const struct lift_model *lift = &w->lifts[i];
        if (lift->op == NULL || lift->done_calls > 0)
            continue;
        if (lift->cancelled)
            differ(w, "operation %u was cancelled, and does not end", lift->number);
        if (lift->deadline != 0 && lift->deadline <= w->now)
            differ(w, "operation %u is over its time, and does not end", lift->number);
        uint64_t fence = avoids(w, AVOID_FENCE_HOL) ? w->fence_given : waits_for(w, lift);
        if (fence <= w->fence_reached)
            differ(w, "operation %u waits for fence %llu, which is reached, and does not end",
                   lift->number, (unsigned long long)fence);
    }
}
