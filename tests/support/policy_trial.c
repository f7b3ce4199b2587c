/* SPDX-License-Identifier: Apache-2.0 */
/* See policy_trial.h. */
#include "support/policy_trial.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <kvblock.h>

#define START_NS 1000

void policy_trial_found(struct policy_trial *trial, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(trial->finding->text, sizeof trial->finding->text, format, arguments);
    va_end(arguments);
    longjmp(trial->out, 1);
}

/* ---- Opening --------------------------------------------------------------------------------- */

static void fini(struct policy_trial *trial)
{
    free(trial->slots);
    free(trial->slots_before);
    trial->slots = trial->slots_before = NULL;
    kvbi_lock_fini(&trial->lock);
}

int policy_trial_create(struct policy_trial *trial, uint32_t slot_count, int64_t allocations)
{
    size_t bytes = slot_count * sizeof *trial->slots;
    trial->slots = aligned_alloc(64, bytes);
    trial->slots_before = aligned_alloc(64, bytes);
    bool ready = trial->slots != NULL && trial->slots_before != NULL &&
                 kvbi_lock_init(&trial->lock, KVBI_RANK_STORE) == 0;
    policy_trial_demand(trial, ready, "the test itself has no memory");
    memset(trial->slots, 0, bytes);
    trial->slot_count = slot_count;
    trial->now_ns = START_NS;
    trial->behind = false;
    trial->deadlines = 0;
    policy_model_init(&trial->model, slot_count);
    trial->memory = failing_memory(&trial->failing, allocations);
    int code = trial->ops->create(&trial->policy, &trial->memory, trial->slots, slot_count);
    if (code != 0) {
        trial->policy = NULL;
        fini(trial);
    }
    trial->failing.left = 0; /* from now on it asks for none */
    return code;
}

void policy_trial_open(struct policy_trial *trial, uint32_t slot_count)
{
    policy_trial_demand(trial, policy_trial_create(trial, slot_count, INT64_MAX) == 0,
                        "create fails though there is memory");
}

static void close_whatever_is_left(struct policy_trial *trial)
{
    if (trial->policy != NULL)
        trial->ops->destroy(trial->policy);
    trial->policy = NULL;
    fini(trial);
}

void policy_trial_close(struct policy_trial *trial)
{
    close_whatever_is_left(trial);
    policy_trial_demand(trial, trial->failing.live_count == 0 && trial->failing.live_bytes == 0,
                        "destroy leaves %lld bytes", (long long)trial->failing.live_bytes);
}

bool policy_trial_run(const struct kvbi_policy_ops *ops, void (*check)(struct policy_trial *trial),
                      struct policy_finding *finding)
{
    struct policy_trial *trial = calloc(1, sizeof *trial);
    *finding = (struct policy_finding){.text = "the test itself has no memory"};
    if (trial == NULL)
        return false;
    trial->ops = ops;
    trial->finding = finding;
    finding->text[0] = '\0';
    if (setjmp(trial->out) == 0)
        check(trial);
    else if (trial->slots != NULL)
        close_whatever_is_left(trial);
    free(trial);
    return finding->text[0] == '\0';
}

uint32_t policy_trial_random(struct policy_trial *trial, uint32_t bound)
{
    trial->seed = trial->seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((trial->seed >> 33) % bound);
}

uint64_t policy_trial_deadline(struct policy_trial *trial, uint64_t ns)
{
    uint64_t at_ns = trial->now_ns + ns;
    return at_ns / POLICY_SLOTS_MAX * POLICY_SLOTS_MAX + POLICY_SLOTS_MAX +
           trial->deadlines++ % POLICY_SLOTS_MAX;
}

/* ---- What holds for every call --------------------------------------------------------------- */

static void begin_call(struct policy_trial *trial)
{
    memcpy(trial->slots_before, trial->slots, trial->slot_count * sizeof *trial->slots);
    trial->lock.steps_max = 0;
    kvbi_lock_take(&trial->lock);
}

/* Writes to `order` alone, of whom? */
static uint32_t slots_written(struct policy_trial *trial, const char *call)
{
    enum { ORDER = offsetof(struct kvb_block, order) };
    uint32_t written = 0;
    for (uint32_t slot = 0; slot < trial->slot_count; slot++) {
        const char *now = (const char *)&trial->slots[slot];
        const char *before = (const char *)&trial->slots_before[slot];
        if (memcmp(now, before, sizeof(struct kvb_block)) == 0)
            continue;
        written++;
        const size_t behind = ORDER + sizeof(struct kvbi_band_node);
        policy_trial_demand(
            trial,
            memcmp(now, before, ORDER) == 0 &&
                memcmp(now + behind, before + behind, sizeof(struct kvb_block) - behind) == 0,
            "%s writes to more than `order` of slot %u", call, slot);
    }
    return written;
}

/*
 * It may have dealt with `deadlines` that have passed, each of which moves one slot; which takes
 * four of them, and some more in a tree.
 */
static void end_call(struct policy_trial *trial, const char *call, uint32_t deadlines)
{
    kvbi_lock_release(&trial->lock);
    uint32_t may_write = 4 * deadlines + 8;
    for (uint32_t slots = trial->slot_count; slots > 1; slots /= 2)
        may_write += 4;
    uint32_t written = slots_written(trial, call);
    policy_trial_demand(trial, written <= may_write, "%s writes to %u slots", call, written);
    policy_trial_demand(trial, trial->lock.steps_max <= KVBI_LOCK_BATCH,
                        "%s looks at %u blocks in one call", call, trial->lock.steps_max);
    policy_trial_demand(trial, trial->failing.left == 0, "%s asks for memory", call);
    uint32_t count = trial->ops->count(trial->policy);
    policy_trial_demand(trial, count == trial->model.count, "%s: %u are in the order, not %u", call,
                        trial->model.count, count);
    policy_model_note_cold(&trial->model);
}

/* Nothing has changed by it. */
static void end_look(struct policy_trial *trial, const char *call)
{
    end_call(trial, call, 0);
    policy_trial_demand(trial, slots_written(trial, call) == 0, "%s changes something", call);
}

static void demand_member(struct policy_trial *trial, const char *call, uint32_t slot)
{
    bool linked = trial->model.slots[slot].linked;
    policy_trial_demand(trial, trial->ops->contains(trial->policy, slot) == linked,
                        "%s: slot %u %s in the order", call, slot, linked ? "is not" : "is");
}

/* The policy is told the time. */
static void tell_now(struct policy_trial *trial)
{
    if (policy_model_expire(&trial->model, trial->now_ns) > 0)
        trial->behind = true;
}

/* As the store leaves the slot of a block that it parks. */
static void describe(struct policy_trial *trial, uint32_t slot, unsigned band, uint64_t deadline_ns)
{
    trial->slots[slot].priority = (uint8_t)band;
    trial->slots[slot].retention_ns = deadline_ns;
}

/* ---- In and out ------------------------------------------------------------------------------ */

void policy_trial_insert(struct policy_trial *trial, uint32_t slot, unsigned band,
                         uint64_t deadline_ns)
{
    describe(trial, slot, band, deadline_ns);
    tell_now(trial);
    policy_model_insert(&trial->model, slot, band, deadline_ns);
    begin_call(trial);
    trial->ops->insert(trial->policy, slot, band, deadline_ns, trial->now_ns);
    end_call(trial, "insert", KVBI_LOCK_BATCH);
    demand_member(trial, "insert", slot);
}

void policy_trial_insert_below(struct policy_trial *trial, uint32_t slot, unsigned band,
                               uint64_t deadline_ns, uint32_t parent)
{
    describe(trial, slot, band, deadline_ns);
    tell_now(trial);
    policy_model_insert_below(&trial->model, slot, band, deadline_ns, parent);
    begin_call(trial);
    trial->ops->insert_below(trial->policy, slot, band, deadline_ns, parent, trial->now_ns);
    end_call(trial, "insert_below", KVBI_LOCK_BATCH);
    demand_member(trial, "insert_below", slot);
}

void policy_trial_insert_oldest(struct policy_trial *trial, uint32_t slot, unsigned band,
                                uint64_t deadline_ns)
{
    describe(trial, slot, band, deadline_ns);
    policy_model_insert_oldest(&trial->model, slot, band, deadline_ns);
    begin_call(trial);
    trial->ops->insert_oldest(trial->policy, slot, band, deadline_ns);
    end_call(trial, "insert_oldest", 0);
    demand_member(trial, "insert_oldest", slot);
}

void policy_trial_remove(struct policy_trial *trial, uint32_t slot)
{
    policy_model_remove(&trial->model, slot);
    begin_call(trial);
    trial->ops->remove(trial->policy, slot);
    end_call(trial, "remove", 0);
    demand_member(trial, "remove", slot);
}

void policy_trial_insert_run(struct policy_trial *trial, uint32_t first, uint32_t last,
                             unsigned band)
{
    for (uint32_t slot = first; slot <= last; slot++)
        policy_trial_insert(trial, slot, band, 0);
}

uint64_t policy_trial_insert_retained(struct policy_trial *trial, uint32_t count)
{
    uint64_t deadline_ns = 0;
    for (uint32_t slot = 0; slot < count; slot++) {
        deadline_ns = policy_trial_deadline(trial, POLICY_SLOTS_MAX);
        policy_trial_insert(trial, slot, slot % 2 ? KVB_PRIORITY_MAX : 0, deadline_ns);
    }
    return deadline_ns;
}

void policy_trial_touch(struct policy_trial *trial, uint32_t slot)
{
    struct kvb_block *block = &trial->slots[slot];
    bool ended = block->retention_ns != 0 && block->retention_ns <= trial->now_ns;
    policy_trial_remove(trial, slot);
    policy_trial_insert(trial, slot, ended ? KVB_PRIORITY_DEFAULT : block->priority,
                        ended ? 0 : block->retention_ns);
}

void policy_trial_members(struct policy_trial *trial)
{
    for (uint32_t slot = 0; slot < trial->slot_count; slot++)
        demand_member(trial, "contains", slot);
}

/* ---- The next to go -------------------------------------------------------------------------- */

static void check_victim(struct policy_trial *trial, uint32_t slot, unsigned band)
{
    const struct policy_model *model = &trial->model;
    if (slot == KVBI_NONE) {
        policy_trial_demand(trial, model->count == 0, "victim: nobody, with %u in the order",
                            model->count);
        return;
    }
    uint32_t first = policy_model_first(model);
    policy_trial_demand(trial, slot < trial->slot_count, "victim: slot %u, which is none", slot);
    policy_trial_demand(trial, policy_model_may_go_next(model, slot),
                        "victim: slot %u, before slot %u of band %u", slot, first,
                        first == KVBI_NONE ? 0 : model->slots[first].band);
    policy_trial_demand(trial, band == model->slots[slot].band,
                        "victim: slot %u is said to be in band %u, and is in band %u", slot, band,
                        model->slots[slot].band);
    demand_member(trial, "victim", slot);
}

bool policy_trial_ask(struct policy_trial *trial, uint32_t *budget, uint32_t *slot)
{
    uint32_t given = *budget;
    unsigned band = 0;
    tell_now(trial);
    begin_call(trial);
    *slot = trial->ops->victim(trial->policy, trial->now_ns, budget, &band);
    end_call(trial, "victim", given);
    policy_trial_demand(trial, *budget <= given, "victim: the budget grows");
    policy_trial_demand(trial, trial->lock.steps_max <= given,
                        "victim looks at %u blocks, with a budget of %u", trial->lock.steps_max,
                        given);
    if (*slot == KVBI_NONE && band == KVBI_BAND_AGAIN) {
        policy_trial_demand(trial, trial->behind, "victim: again, with no deadline in the way");
        policy_trial_demand(trial, *budget == 0, "victim: again, with a budget of %u left",
                            *budget);
        return false;
    }
    if (*budget > 0)
        trial->behind = false;
    check_victim(trial, *slot, band);
    return true;
}

uint32_t policy_trial_victim(struct policy_trial *trial)
{
    uint32_t slot, calls = 0;
    for (;;) {
        uint32_t budget = 1 + policy_trial_random(trial, KVBI_LOCK_BATCH);
        if (policy_trial_ask(trial, &budget, &slot))
            return slot;
        policy_trial_demand(trial, ++calls <= 3 * trial->slot_count, "victim: again, for ever");
    }
}

bool policy_trial_evict(struct policy_trial *trial)
{
    uint32_t slot = policy_trial_victim(trial);
    if (slot == KVBI_NONE)
        return false;
    policy_trial_remove(trial, slot);
    return true;
}

void policy_trial_evict_slot(struct policy_trial *trial, uint32_t slot)
{
    uint32_t first = policy_trial_victim(trial);
    policy_trial_demand(trial, first == slot, "slot %u goes, and it is the turn of slot %u", first,
                        slot);
    policy_trial_remove(trial, slot);
}

void policy_trial_evict_run(struct policy_trial *trial, uint32_t first, uint32_t last)
{
    for (uint32_t slot = first; slot <= last; slot++)
        policy_trial_evict_slot(trial, slot);
}

void policy_trial_evict_all(struct policy_trial *trial)
{
    while (policy_trial_evict(trial))
        ;
    policy_trial_members(trial);
}

void policy_trial_catch_up(struct policy_trial *trial)
{
    uint32_t slot, calls = 0, budget;
    do {
        budget = KVBI_LOCK_BATCH;
        (void)policy_trial_ask(trial, &budget, &slot);
        policy_trial_demand(trial, ++calls <= 3 * trial->slot_count,
                            "victim: a deadline to deal with, for ever");
    } while (budget < KVBI_LOCK_BATCH);
}

/* ---- The whole order ------------------------------------------------------------------------- */

void policy_trial_order(struct policy_trial *trial, uint32_t max)
{
    static struct policy_model left;
    static uint32_t slots[POLICY_SLOTS_MAX + 1];
    uint32_t expected = max < trial->model.count ? max : trial->model.count;
    left = trial->model;
    slots[max] = KVBI_NONE - 1;
    uint32_t count = trial->ops->order(trial->policy, slots, max);
    policy_trial_demand(trial, slots[max] == KVBI_NONE - 1, "order writes beyond its room");
    policy_trial_demand(trial, count == expected, "order: %u, not %u", count, expected);
    for (uint32_t i = 0; i < count; i++) {
        policy_trial_demand(trial, policy_model_may_go_next(&left, slots[i]),
                            "order: slot %u at place %u, before slot %u", slots[i], i,
                            policy_model_first(&left));
        policy_model_remove(&left, slots[i]);
    }
    policy_trial_members(trial);
}

void policy_trial_ahead(struct policy_trial *trial, uint32_t max)
{
    static uint32_t slots[POLICY_SLOTS_MAX + 1];
    static bool seen[POLICY_SLOTS_MAX];
    memset(seen, 0, sizeof seen);
    slots[max] = KVBI_NONE - 1;
    begin_call(trial);
    uint32_t count = trial->ops->ahead(trial->policy, slots, max);
    end_look(trial, "ahead");
    policy_trial_demand(trial, count <= max && slots[max] == KVBI_NONE - 1,
                        "ahead writes beyond its room");
    for (uint32_t i = 0; i < count; i++) {
        bool member = slots[i] < trial->slot_count && trial->model.slots[slots[i]].linked;
        policy_trial_demand(trial, member, "ahead: slot %u is not in the order", slots[i]);
        policy_trial_demand(trial, !seen[slots[i]], "ahead: slot %u twice", slots[i]);
        seen[slots[i]] = true;
    }
}

void policy_trial_warm(struct policy_trial *trial, uint32_t slot)
{
    begin_call(trial);
    trial->ops->warm(trial->policy, slot);
    end_look(trial, "warm");
}

/* ---- Cold ------------------------------------------------------------------------------------ */

uint32_t policy_trial_next_cold(struct policy_trial *trial)
{
    tell_now(trial);
    begin_call(trial);
    uint32_t slot = trial->ops->next_cold(trial->policy, trial->now_ns);
    end_call(trial, "next_cold", KVBI_LOCK_BATCH);
    if (slot == KVBI_NONE)
        return KVBI_NONE;
    struct policy_model_slot *s = &trial->model.slots[slot];
    policy_trial_demand(trial, slot < trial->slot_count && s->linked,
                        "next_cold: slot %u is not in the order", slot);
    policy_trial_demand(trial, trial->behind || !s->told, "next_cold: slot %u twice", slot);
    policy_trial_demand(trial, trial->behind || s->cold,
                        "next_cold: slot %u is not among the oldest tenth", slot);
    s->told = true;
    policy_model_note_cold(&trial->model);
    return slot;
}

void policy_trial_all_cold(struct policy_trial *trial)
{
    policy_trial_catch_up(trial);
    while (policy_trial_next_cold(trial) != KVBI_NONE)
        ;
    uint32_t slot = policy_model_untold(&trial->model);
    policy_trial_demand(trial, slot == KVBI_NONE,
                        "next_cold: slot %u is among the oldest tenth and was not told", slot);
}
