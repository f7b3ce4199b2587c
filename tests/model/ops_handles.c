/* SPDX-License-Identifier: Apache-2.0 */
/* Room, handles strong and weak, pins, priority. */
#include "world.h"

struct block *pick_block(struct world *w,
                         bool (*fits)(const struct world *w, const struct block *b))
{
    uint32_t total = 0, nth;
    for (uint32_t t = 0; t < TIERS; t++)
        for (uint32_t s = 0; s < w->setup.tiers[t].blocks; s++)
            total += fits(w, &w->blocks[t][s]);
    if (total == 0)
        return NULL;
    nth = pick(w, total);
    for (uint32_t t = 0; t < TIERS; t++)
        for (uint32_t s = 0; s < w->setup.tiers[t].blocks; s++)
            if (fits(w, &w->blocks[t][s]) && nth-- == 0)
                return &w->blocks[t][s];
    return NULL;
}

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

/* ---- Room ------------------------------------------------------------------------------------ */

static void evict_exactly(struct world *w, uint32_t tier, uint32_t count, uint64_t free_count)
{
    for (uint64_t room = free_count; room < count; room++) {
        struct block *victim = order_victim(w, tier);
        if (victim == NULL)
            differ(w, "%s gave %u blocks, more than are free or parked", tier_name(tier), count);
        note(w, "  content %d goes from %s/%u", victim->content, tier_name(tier), victim->slot);
        w->presence[victim->content][tier] = NO;
        w->tally->evicted++;
        block_forget(victim);
    }
}

static void check_refused(struct world *w, uint32_t tier, uint32_t count, uint32_t missing,
                          int code, const struct facts *before)
{
    uint64_t available = before->tiers[tier].available;
    if (count <= available)
        differ(w, "%u blocks of %s refused (%s), %llu are available", count, tier_name(tier),
               kv_code_name(code), (unsigned long long)available);
    if (missing != count - available)
        differ(w, "%u blocks of %s: %u are said to be missing, %llu are available", count,
               tier_name(tier), missing, (unsigned long long)available);
    uint64_t coming = before->tiers[tier].blocks - before->tiers[tier].held -
                      before->tiers[tier].retired - available;
    expect_code(w, "alloc without room", code, coming >= missing ? E_AGAIN : E_NOSPC);
}

uint32_t alloc_blocks(struct world *w, uint32_t tier, uint32_t count, uint64_t fence,
                      struct block **blocks)
{
    block_handle handles[SLOTS_MAX];
    struct facts before;
    uint32_t missing = 0;
    kv_facts(w->kv, &before);
    int code = kv_alloc(w->kv, tier, count, fence, handles, &missing);
    note(w, "alloc %u of %s, fence %llu: %s", count, tier_name(tier), (unsigned long long)fence,
         kv_code_name(code));
    if (code != OK) {
        check_refused(w, tier, count, missing, code, &before);
        return 0;
    }
    if (count > before.tiers[tier].available || missing != 0)
        differ(w, "%u blocks given, %u missing, %llu were available", count, missing,
               (unsigned long long)before.tiers[tier].available);
    if (w->exact)
        evict_exactly(w, tier, count, before.tiers[tier].free);
    truth_learn(w);
    for (uint32_t i = 0; i < count; i++) {
        struct block_facts facts;
        expect_code(w, "describe", kv_describe(w->kv, handles[i], &facts), OK);
        if (facts.tier != tier || facts.slot >= w->setup.tiers[tier].blocks)
            differ(w, "alloc of %s gave tier %u, slot %u", tier_name(tier), facts.tier, facts.slot);
        blocks[i] = &w->blocks[tier][facts.slot];
        block_fresh(w, blocks[i], handles[i]);
        check_block(w, blocks[i]);
        give_fence(w, blocks[i], fence);
        if (fence > w->fence_reached) /* the server's earlier work there goes on until then */
            bytes_write(w, blocks[i], mix(w->late_order) | 1, fence);
    }
    return count;
}

void op_alloc(struct world *w)
{
    struct block *blocks[SLOTS_MAX];
    uint32_t tier = pick(w, TIERS), count = 1 + pick(w, 4), missing;
    block_handle none[4];
    if (chance(w, 60))
        tier = TIER_DEVICE;
    if (!has_tier(w, tier)) {
        expect_code(w, "alloc in no tier", kv_alloc(w->kv, tier, count, 0, none, &missing),
                    E_NOENT);
        return;
    }
    if (!in_memory(w, tier)) {
        expect_code(w, "alloc in a file", kv_alloc(w->kv, tier, count, 0, none, &missing),
                    E_UNSUPPORTED);
        return;
    }
    if (chance(w, 3)) /* more than there can be, or nearly all */
        count = w->setup.tiers[tier].blocks - pick(w, 3) + 1;
    alloc_blocks(w, tier, count, chance(w, 15) ? fence_later(w) : 0, blocks);
}

/* ---- Handles --------------------------------------------------------------------------------- */

void op_ref(struct world *w)
{
    struct block *b = pick_block(w, mine);
    if (b == NULL)
        return;
    note(w, "ref %s/%u", tier_name(b->tier), b->slot);
    expect_code(w, "ref", kv_ref(w->kv, &b->handle, 1, NULL), OK);
    b->refs++;
    check_block(w, b);
}

void unref_blocks(struct world *w, struct block **blocks, uint32_t count)
{
    block_handle handles[MANY] = {NULL};
    int results[MANY] = {0};
    for (uint32_t i = 0; i < count; i++) {
        fence_before_leaving(w, blocks[i]);
        handles[i] = blocks[i]->handle;
        note(w, "unref %s/%u (content %d, %u handles)", tier_name(blocks[i]->tier), blocks[i]->slot,
             blocks[i]->content, blocks[i]->refs);
    }
    expect_code(w, "unref", kv_unref(w->kv, handles, count, results), OK);
    for (uint32_t i = count; i-- > 0;) {
        expect_code(w, "unref of one", results[i], OK);
        blocks[i]->refs--;
        block_release(w, blocks[i]);
    }
}

void op_unref(struct world *w)
{
    struct block *blocks[8];
    uint32_t count = 0, wanted = 1 + pick(w, 6);
    while (count < wanted) {
        struct block *b = pick_block(w, mine);
        uint32_t again = 0;
        if (b == NULL)
            break;
        for (uint32_t i = 0; i < count; i++)
            again += blocks[i] == b;
        if (again == b->refs)
            break;
        blocks[count++] = b;
    }
    if (count > 0)
        unref_blocks(w, blocks, count);
}

void op_weak(struct world *w)
{
    struct block *b = pick_block(w, mine);
    struct weak_model *weak = &w->weaks[pick(w, WEAKS)];
    if (b == NULL)
        return;
    expect_code(w, "weak", kv_weak(w->kv, b->handle, &weak->weak), OK);
    if (weak->weak.tier != b->tier || weak->weak.slot != b->slot)
        differ(w, "the weak handle of %s/%u names tier %u, slot %u", tier_name(b->tier), b->slot,
               weak->weak.tier, weak->weak.slot);
    weak->block = b;
    weak->life = b->life;
    weak->stale = false;
}

void op_upgrade(struct world *w)
{
    struct weak_model *weak = &w->weaks[pick(w, WEAKS)];
    struct block *b = weak->block;
    block_handle handle;
    int code = kv_upgrade(w->kv, &weak->weak, 1, &handle, NULL);
    if (b == NULL) {
        expect_code(w, "upgrade of nothing", code, E_STALE);
        return;
    }
    bool same = weak->life == b->life && !weak->stale;
    note(w, "upgrade %s/%u (content %d): %s", tier_name(b->tier), b->slot, b->content,
         kv_code_name(code));
    if (!same || (!held(b) && !b->parked))
        expect_code(w, "upgrade of what is gone", code, E_STALE);
    else if (held(b) || (b->sure && w->presence[b->content][b->tier] == YES))
        expect_code(w, "upgrade of what is there", code, OK);
    else
        expect_either(w, "upgrade", code, OK, E_STALE);
    weak->stale |= code == E_STALE;
    if (code != OK) {
        if (same && b->parked)
            block_forget(b);
        return;
    }
    if (b->parked)
        block_found(w, b->tier, b->slot, handle, b->content);
    else
        b->refs++;
    check_block(w, b);
    bytes_check(w, b, "after an upgrade");
}

/* ---- Pins ------------------------------------------------------------------------------------ */

void op_pin(struct world *w)
{
    struct block *b = pick_block(w, chance(w, 80) ? registered : mine);
    uint64_t owner = 1 + pick(w, 4), lifetime = chance(w, 40) ? 1000 * (1 + pick(w, 60)) : 0;
    uint32_t used = 0;
    struct pin_model *pin = NULL;
    for (uint32_t i = 0; i < PINS; i++) {
        used += w->pins[i].block != NULL;
        pin = w->pins[i].block == NULL ? &w->pins[i] : pin;
    }
    if (b == NULL)
        return;
    int code = kv_pin(w->kv, owner, &b->handle, 1, lifetime, NULL);
    note(w, "pin %s/%u for %llu: %s", tier_name(b->tier), b->slot, (unsigned long long)owner,
         kv_code_name(code));
    expect_code(w, "pin", code, used >= w->setup.pin_capacity ? E_NOSPC : OK);
    if (code != OK)
        return;
    *pin = (struct pin_model){owner, lifetime == 0 ? 0 : w->now + lifetime, w->pin_order++, b};
    b->pins++;
    check_block(w, b);
}

static void unpin(struct world *w, struct pin_model *pin)
{
    struct block *b = pin->block;
    fence_before_leaving(w, b);
    *pin = (struct pin_model){0};
    b->pins--;
    block_release(w, b);
}

/* The owner's latest; of one block, or of any. */
static struct pin_model *latest_pin(struct world *w, uint64_t owner, const struct block *b)
{
    struct pin_model *latest = NULL;
    for (uint32_t i = 0; i < PINS; i++) {
        struct pin_model *pin = &w->pins[i];
        if (pin->block != NULL && pin->owner == owner && (b == NULL || pin->block == b) &&
            (latest == NULL || pin->order > latest->order))
            latest = pin;
    }
    return latest;
}

static bool pinned(const struct world *w, const struct block *b)
{
    (void)w;
    return b->pins > 0;
}

void op_unpin(struct world *w)
{
    uint64_t owner = 1 + pick(w, 4);
    uint32_t released = 0, right = 0;
    struct pin_model *pin;
    struct block *b = pick_block(w, pinned);
    if (b != NULL && chance(w, 70)) {
        pin = latest_pin(w, owner, b);
        note(w, "unpin %s/%u for %llu", tier_name(b->tier), b->slot, (unsigned long long)owner);
        expect_code(w, "unpin", kv_unpin(w->kv, owner, &b->handle, 1, NULL),
                    pin == NULL ? E_NOENT : OK);
        if (pin != NULL)
            unpin(w, pin);
        return;
    }
    note(w, "unpin all of %llu", (unsigned long long)owner);
    expect_code(w, "unpin all", kv_unpin_all(w->kv, owner, &released), OK);
    for (; (pin = latest_pin(w, owner, NULL)) != NULL; right++)
        unpin(w, pin);
    if (released != right)
        differ(w, "unpin all of %llu released %u pins of %u", (unsigned long long)owner, released,
               right);
}

/*
 * What the library says it has released must have been due; those that were due first are the ones.
 */
void pins_expire(struct world *w)
{
    struct facts facts;
    kv_facts(w->kv, &facts);
    while (w->pins_expired < facts.pins_expired) {
        struct pin_model *due = NULL;
        for (uint32_t i = 0; i < PINS; i++) {
            struct pin_model *pin = &w->pins[i];
            if (pin->block != NULL && pin->deadline != 0 && pin->deadline <= w->now &&
                (due == NULL || pin->deadline < due->deadline))
                due = pin;
        }
        if (due == NULL)
            differ(w, "a pin was released before its time");
        note(w, "the pin of %s/%u for %llu is over", tier_name(due->block->tier), due->block->slot,
             (unsigned long long)due->owner);
        w->pins_expired++;
        unpin(w, due);
    }
}

/* ---- Priority -------------------------------------------------------------------------------- */

static uint64_t retention(struct world *w, uint32_t steps)
{
    /* no two end at once: nothing says which of them goes first */
    return 1000 * (uint64_t)pick(w, steps) + 1 + w->retentions++ % 999;
}

static void set_priority(struct world *w, struct block *b, uint32_t priority, uint64_t duration)
{
    note(w, "priority %u for %llu ns: %s/%u", priority, (unsigned long long)duration,
         tier_name(b->tier), b->slot);
    expect_code(w, "set priority", kv_set_priority(w->kv, &b->handle, 1, priority, duration), OK);
    b->priority = priority;
    b->priority_known = true;
    b->retained_until = duration == 0 ? 0 : w->now + duration;
}

void op_priority(struct world *w)
{
    struct block *b = pick_block(w, mine);
    if (b == NULL)
        return;
    /* no retention of the default: whether it was taken over could not be seen */
    uint32_t priority = pick(w, 101);
    bool retain = priority != DEFAULT_PRIORITY && chance(w, 50);
    set_priority(w, b, priority, retain ? retention(w, 40) : 0);
    check_block(w, b);
}

static uint32_t hold_all(struct world *w, struct block **blocks, uint32_t limit)
{
    uint32_t count = 0;
    bool have[CONTENTS_MAX] = {0};
    for (uint32_t c = w->contents; c-- > 0 && count + DEPTH_MAX <= limit;) { /* the longest first */
        if (have[c] || w->presence[c][TIER_DEVICE] != YES)
            continue;
        uint32_t found = match_path(w, (int)c, 1, blocks + count);
        for (uint32_t i = 0; i < found; i++)
            have[blocks[count + i]->content] = true;
        count += found;
    }
    return count;
}

/* Until nothing is free: whoever wants room then evicts. */
static void fill(struct world *w)
{
    uint32_t used = 0, blocks = w->setup.tiers[TIER_DEVICE].blocks;
    for (uint32_t s = 0; s < blocks; s++)
        used += held(&w->blocks[TIER_DEVICE][s]) || w->blocks[TIER_DEVICE][s].parked;
    for (int c = 0; c < (int)w->contents && used < blocks; c++) {
        struct block *b;
        if (w->presence[c][TIER_DEVICE] != NO || alloc_blocks(w, TIER_DEVICE, 1, 0, &b) == 0)
            continue;
        compute_block(w, b, w->space_of[c], w->parent_of[c], w->branch_of[c], 0);
        if (b->state == COMPLETE && register_block(w, &b, KEEP, 0) == OK)
            used++;
        unref_blocks(w, &b, 1);
    }
}

/* Many are retained and let go at once, their retention ends, and room is wanted. */
void op_retain_many(struct world *w)
{
    struct block *blocks[MANY], *fresh[4];
    uint32_t priority = chance(w, 50) ? 0 : 100;
    if (w->exact && chance(w, 60))
        fill(w);
    uint32_t count = hold_all(w, blocks, avoids(w, AVOID_EXPIRY) ? 30 : MANY);
    for (uint32_t i = 0; i < count; i++)
        set_priority(w, blocks[i], priority, retention(w, 3));
    unref_blocks(w, blocks, count);
    if (chance(w, 70))
        world_advance(w, 1000 * (1 + pick(w, 6)));
    if (chance(w, 70))
        alloc_blocks(w, TIER_DEVICE, 1 + pick(w, 4), 0, fresh);
}
