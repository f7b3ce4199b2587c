/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Forgetting: by key, by namespace, everything; and what another process finds in the same file.
 * Time and progress.
 */
#include <string.h>

#include "world.h"

static enum presence anywhere(const struct world *w, int content)
{
    enum presence best = NO;
    for (uint32_t t = 0; t < TIERS; t++)
        best = w->presence[content][t] > best ? w->presence[content][t] : best;
    return best;
}

void op_invalidate(struct world *w)
{
    struct name names[3];
    int contents[3], results[3];
    uint32_t count = 1 + pick(w, 3);
    for (uint32_t i = 0; i < count; i++) {
        contents[i] = content_random(w);
        names[i] = w->names[contents[i]];
    }
    (void)kv_invalidate(w->kv, names, count, results);
    for (uint32_t i = 0; i < count; i++) {
        enum presence there = anywhere(w, contents[i]);
        note(w, "invalidate content %d: %s", contents[i], kv_code_name(results[i]));
        if (there == MAYBE)
            expect_either(w, "invalidate", results[i], OK, E_NOENT);
        else
            expect_code(w, "invalidate", results[i], there == YES ? OK : E_NOENT);
        w->invalidated_at[contents[i]] = ++w->invalidations;
        truth_forget(w, contents[i]);
    }
}

void op_invalidate_space(struct world *w)
{
    uint32_t space = pick(w, SPACES);
    uint64_t removed = 0, least = 0, most = 0;
    expect_code(w, "invalidate a namespace",
                kv_invalidate_namespace(w->kv, w->space_ids[space], &removed), OK);
    note(w, "invalidate namespace %u: %llu", space, (unsigned long long)removed);
    w->space_epoch[space]++;
    for (uint32_t node = 0; node < w->nodes; node++) {
        int content = (int)(space * w->nodes + node);
        least += anywhere(w, content) == YES;
        most += anywhere(w, content) != NO;
        truth_forget(w, content);
    }
    if (removed < least || removed > most)
        differ(w, "namespace %u had %llu to %llu contents, and %llu were forgotten", space,
               (unsigned long long)least, (unsigned long long)most, (unsigned long long)removed);
}

void op_clear(struct world *w)
{
    note(w, "clear");
    expect_code(w, "clear", kv_clear(w->kv), OK);
    w->clears++;
    for (uint32_t c = 0; c < w->contents; c++)
        truth_forget(w, (int)c);
    memset(w->since_clear, 0, sizeof w->since_clear);
    memset(w->unproven, 0, sizeof w->unproven);
}

void op_restart(struct world *w)
{
    if (!w->file)
        return;
    if (chance(w, 50))
        op_drain(w);
    note(w, "another process");
    let_go_of_everything(w);
    world_reopen(w);
    w->tally->restarts++;
}

/* ---- Time, fences, progress ------------------------------------------------------------------ */

void op_signal(struct world *w)
{
    if (w->fence_reached == w->fence_given)
        return;
    uint64_t ahead = w->fence_given - w->fence_reached;
    uint64_t value = w->fence_reached + 1 + pick(w, (uint32_t)ahead);
    note(w, "signal %llu of %llu", (unsigned long long)value, (unsigned long long)w->fence_given);
    fence_signal(w, value);
}

void op_time(struct world *w)
{
    if (!avoids(w, AVOID_CLOCK) && chance(w, 4)) {
        note(w, "the clock steps back");
        w->clock -= 1000 * (uint64_t)(1 + pick(w, 1000));
        kv_look_at_clock(w->kv);
        return;
    }
    world_advance(w, 1000 * (uint64_t)(1 + pick(w, 12)));
}

void poll_to_quiet(struct world *w)
{
    if (w->punctual && w->fence_given > w->fence_reached)
        fence_signal(w, w->fence_given);
    int code = kv_poll(w->kv);
    expect_code(w, "poll", code, OK);
    note(w, "poll to the end");
    truth_rebuild(w);
    pins_expire(w);
    for (uint32_t i = 0; i < PINS; i++)
        if (w->pins[i].block != NULL && w->pins[i].deadline != 0 && w->pins[i].deadline <= w->now)
            differ(w, "the pin of %s/%u is over its time, and is not released",
                   tier_name(w->pins[i].block->tier), w->pins[i].block->slot);
    truth_compare(w);
    lifts_collect(w);
    lifts_check(w);
}

void op_poll(struct world *w)
{
    if (chance(w, 25) && !w->file) {
        int code = kv_poll_once(w->kv);
        note(w, "poll once: %d", code);
        if (code < 0)
            differ(w, "poll: %s", kv_code_name(code));
        pins_expire(w);
        truth_rebuild(w);
        truth_blur(w);
        lifts_collect(w);
        return;
    }
    poll_to_quiet(w);
    if (chance(w, 15))
        check_quiet(w);
}

static uint64_t pending(struct world *w, struct lane_facts *which)
{
    struct facts facts;
    uint64_t sum = 0;
    kv_facts(w->kv, &facts);
    for (uint32_t i = 0; i < facts.lane_count; i++) {
        if (facts.lanes[i].pending > 0)
            *which = facts.lanes[i];
        sum += facts.lanes[i].pending;
    }
    return sum;
}

/* With all fences reached and time enough nothing can be left to move. */
void op_drain(struct world *w)
{
    struct lane_facts lane = {0};
    struct facts facts;
    if (w->fence_given > w->fence_reached)
        fence_signal(w, w->fence_given);
    poll_to_quiet(w);
    for (int i = 0; i < 12000 && w->file && pending(w, &lane) > 0; i++) {
        /* a disk takes its time */
        if (w->budget)
            world_advance(w, 1000000000);
        poll_to_quiet(w);
    }
    if (pending(w, &lane) > 0)
        differ(w, "every fence is reached, and %llu blocks from %s to %s are not moved",
               (unsigned long long)lane.pending, tier_name(lane.from), tier_name(lane.to));
    for (uint32_t i = 0; i < LIFTS; i++)
        if (w->lifts[i].op != NULL && w->lifts[i].done_calls == 0)
            differ(w, "every fence is reached, and operation %u does not end", w->lifts[i].number);
    kv_facts(w->kv, &facts);
    for (uint32_t t = 0; t < TIERS; t++)
        if (facts.tiers[t].transfer > 0)
            differ(w, "no lane has anything to do, and %llu blocks of %s are in transfer",
                   (unsigned long long)facts.tiers[t].transfer, tier_name(t));
    check_quiet(w);
}
