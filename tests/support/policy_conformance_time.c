/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The checks of deadlines, of bounded steps, of what becomes cold, and all at random. See
 * policy_conformance.h.
 */
#include "support/policy_conformance.h"

#include <kvblock.h>

/* MANY: deadlines of which one call must not deal with all. */
enum { FEW = 12, SOME = 300, MANY = 3000 };
enum { LOW = KVB_PRIORITY_DEFAULT - 1, DEFAULT, HIGH };

/* ---- Deadlines ------------------------------------------------------------------------------- */

static void retention_ends_at_its_deadline_and_not_before(struct policy_trial *trial)
{
    static const unsigned bands[] = {0, LOW, HIGH, KVB_PRIORITY_MAX};
    for (uint32_t i = 0; i < sizeof bands / sizeof *bands; i++)
        for (uint64_t early_ns = 0; early_ns < 2; early_ns++) {
            policy_trial_open(trial, FEW);
            uint64_t deadline_ns = policy_trial_deadline(trial, 1);
            policy_trial_insert_run(trial, 0, 1, DEFAULT);
            policy_trial_insert(trial, 2, bands[i], deadline_ns);
            trial->now_ns = deadline_ns - early_ns;
            policy_trial_insert_run(trial, 3, 4, DEFAULT); /* after it, if it has ended */
            if (early_ns > 0 && bands[i] < DEFAULT)
                policy_trial_evict_slot(trial, 2);
            policy_trial_evict_run(trial, 0, 1);
            if (early_ns == 0)
                policy_trial_evict_slot(trial, 2);
            policy_trial_evict_run(trial, 3, 4);
            policy_trial_evict_all(trial);
            policy_trial_close(trial);
        }
}

static void retention_that_ended_counts_as_used_then(struct policy_trial *trial)
{
    policy_trial_open(trial, FEW);
    uint64_t first_ns = policy_trial_deadline(trial, 10 * POLICY_SLOTS_MAX);
    uint64_t second_ns = policy_trial_deadline(trial, 20 * POLICY_SLOTS_MAX);
    policy_trial_insert(trial, 0, HIGH, second_ns);
    policy_trial_insert(trial, 1, LOW, first_ns);
    policy_trial_insert(trial, 2, DEFAULT, 0);
    trial->now_ns = first_ns + 1;
    policy_trial_insert(trial, 3, DEFAULT, 0);
    trial->now_ns = second_ns + 1;
    policy_trial_insert(trial, 4, DEFAULT, 0);
    static const uint32_t order[] = {2, 1, 3, 0, 4};
    for (uint32_t n = 0; n < sizeof order / sizeof *order; n++)
        policy_trial_evict_slot(trial, order[n]);
    policy_trial_close(trial);
}

static void retention_in_the_default_band_counts_as_used_at_its_end(struct policy_trial *trial)
{
    policy_trial_open(trial, FEW);
    uint64_t deadline_ns = policy_trial_deadline(trial, 1);
    policy_trial_insert(trial, 0, DEFAULT, deadline_ns);
    policy_trial_insert(trial, 1, DEFAULT, 0);
    trial->now_ns = deadline_ns;
    policy_trial_insert(trial, 2, DEFAULT, 0);
    policy_trial_evict_slot(trial, 1);
    policy_trial_evict_slot(trial, 0);
    policy_trial_evict_slot(trial, 2);
    policy_trial_close(trial);
}

static void touched_after_its_deadline_has_no_deadline(struct policy_trial *trial)
{
    policy_trial_open(trial, FEW);
    uint64_t deadline_ns = policy_trial_deadline(trial, 1);
    policy_trial_insert(trial, 0, HIGH, deadline_ns);
    policy_trial_insert_run(trial, 1, 2, DEFAULT);
    trial->now_ns = deadline_ns;
    policy_trial_touch(trial, 0);
    policy_trial_insert(trial, 3, DEFAULT, 0);
    policy_trial_evict_run(trial, 1, 2);
    policy_trial_evict_slot(trial, 0);
    policy_trial_evict_slot(trial, 3);
    policy_trial_close(trial);
}

static void retention_of_those_put_elsewhere_ends_too(struct policy_trial *trial)
{
    policy_trial_open(trial, FEW);
    uint64_t below_ns = policy_trial_deadline(trial, 1);
    uint64_t oldest_ns = policy_trial_deadline(trial, POLICY_SLOTS_MAX);
    policy_trial_insert(trial, 0, HIGH, 0);
    policy_trial_insert_below(trial, 1, HIGH, below_ns, 0);
    policy_trial_insert_oldest(trial, 2, HIGH, oldest_ns);
    trial->now_ns = oldest_ns;
    policy_trial_insert(trial, 3, DEFAULT, 0);
    policy_trial_evict_run(trial, 1, 3);
    policy_trial_evict_slot(trial, 0);
    policy_trial_close(trial);
}

/* ---- Bounded steps --------------------------------------------------------------------------- */

/* Every call is made once while thousands wait: the trial looks how much it does. */
static void no_call_deals_with_all_deadlines_at_once(struct policy_trial *trial)
{
    policy_trial_open(trial, MANY + FEW);
    policy_trial_insert_run(trial, MANY, MANY + 2, DEFAULT);
    trial->now_ns = policy_trial_insert_retained(trial, MANY) + 1;
    policy_trial_insert(trial, MANY + 3, DEFAULT, 0);
    policy_trial_insert(trial, MANY + 4, HIGH, 0);
    policy_trial_insert_below(trial, MANY + 5, DEFAULT, 0, MANY - 1);
    policy_trial_insert_below(trial, MANY + 6, DEFAULT, 0, MANY + 1);
    policy_trial_insert_oldest(trial, MANY + 7, DEFAULT, 0);
    policy_trial_remove(trial, MANY / 2);
    policy_trial_remove(trial, MANY - 1);
    (void)policy_trial_next_cold(trial);
    policy_trial_ahead(trial, KVBI_LOCK_BATCH);
    policy_trial_warm(trial, 0);
    policy_trial_evict_all(trial);
    policy_trial_close(trial);
}

static void victim_keeps_to_its_budget(struct policy_trial *trial)
{
    policy_trial_open(trial, MANY);
    trial->now_ns = policy_trial_insert_retained(trial, MANY);
    for (uint32_t budget = 0; budget <= KVBI_LOCK_BATCH; budget++) {
        uint32_t left = budget, slot;
        (void)policy_trial_ask(trial, &left, &slot);
    }
    policy_trial_evict_all(trial);
    policy_trial_close(trial);
}

/*
 * Whatever is used, or parked by a lane, while hundreds of deadlines that have passed wait to be
 * dealt with.
 */
static void order_is_that_of_deadlines_dealt_with_on_time(struct policy_trial *trial)
{
    policy_trial_open(trial, SOME + FEW);
    uint64_t end_ns = policy_trial_insert_retained(trial, SOME);
    trial->now_ns = end_ns;
    policy_trial_insert(trial, SOME, DEFAULT, 0);
    policy_trial_insert(trial, SOME + 1, HIGH, end_ns + 100);
    policy_trial_insert(trial, SOME + 2, LOW, 0);
    policy_trial_insert_below(trial, SOME + 3, DEFAULT, 0, SOME / 2);
    policy_trial_insert_below(trial, SOME + 4, DEFAULT, 0, SOME);
    policy_trial_insert_below(trial, SOME + 5, HIGH, 0, SOME / 2);
    policy_trial_insert_oldest(trial, SOME + 6, DEFAULT, 0);
    trial->now_ns = end_ns + 200;
    policy_trial_insert(trial, SOME + 7, DEFAULT, 0);
    policy_trial_evict_all(trial);
    policy_trial_close(trial);
}

/* Several below one parent, and below one that is below it, while its own turn is still to come. */
static void several_below_a_parent_that_has_ended_are_in_their_order(struct policy_trial *trial)
{
    static const uint32_t below[][2] = {{9, 0}, {8, 0}, {7, 9}, {6, 8}, {5, 0}, {4, 7}, {3, 8}};
    for (uint32_t removed = 0; removed < FEW; removed++) {
        policy_trial_open(trial, SOME + FEW);
        trial->now_ns = policy_trial_insert_retained(trial, SOME);
        policy_trial_insert(trial, SOME, DEFAULT, 0);
        for (uint32_t i = 0; i < sizeof below / sizeof *below; i++)
            policy_trial_insert_below(trial, SOME + below[i][0], DEFAULT, 0, SOME + below[i][1]);
        policy_trial_insert(trial, SOME + 1, DEFAULT, 0);
        if (trial->model.slots[SOME + removed].linked)
            policy_trial_remove(trial, SOME + removed);
        policy_trial_insert_below(trial, SOME + 2, DEFAULT, 0, SOME + 8);
        policy_trial_insert_oldest(trial, SOME + 10, KVB_PRIORITY_MAX, 0);
        policy_trial_evict_all(trial);
        policy_trial_close(trial);
    }
}

/* It was used while others waited, and its own deadline has passed before its turn came. */
static void deadline_that_passes_before_its_turn_counts_as_used_then(struct policy_trial *trial)
{
    policy_trial_open(trial, SOME + FEW);
    uint64_t end_ns = policy_trial_insert_retained(trial, SOME);
    trial->now_ns = end_ns;
    policy_trial_insert(trial, SOME, DEFAULT, end_ns + 200);
    policy_trial_insert(trial, SOME + 1, HIGH, end_ns + 100);
    policy_trial_insert_below(trial, SOME + 2, DEFAULT, end_ns + 150, SOME / 2);
    trial->now_ns = end_ns + 300;
    policy_trial_insert(trial, SOME + 3, DEFAULT, 0);
    policy_trial_evict_all(trial);
    policy_trial_close(trial);
}

/* ---- Cold ------------------------------------------------------------------------------------ */

static void the_oldest_tenth_is_told_each_once(struct policy_trial *trial)
{
    policy_trial_open(trial, SOME);
    for (uint32_t slot = 0; slot < SOME; slot++) {
        policy_trial_insert(trial, slot, slot % 5 * 20, 0);
        if (slot % 7 == 0)
            policy_trial_all_cold(trial);
    }
    for (uint32_t slot = 0; slot < SOME; slot += 3) { /* once more, because it was inserted again */
        policy_trial_touch(trial, slot);
        policy_trial_all_cold(trial);
    }
    while (policy_trial_evict(trial))
        policy_trial_all_cold(trial);
    policy_trial_close(trial);
}

static void inserted_among_the_cold_is_told(struct policy_trial *trial)
{
    policy_trial_open(trial, SOME);
    policy_trial_insert_run(trial, 0, 199, DEFAULT);
    policy_trial_all_cold(trial);
    policy_trial_insert_below(trial, 200, DEFAULT, 0, 0);
    policy_trial_insert_below(trial, 201, DEFAULT, 0, 10);
    policy_trial_insert(trial, 202, LOW, 0);
    policy_trial_all_cold(trial);
    policy_trial_insert_oldest(trial, 203, DEFAULT, 0);
    policy_trial_insert_oldest(trial, 204, LOW, 0);
    policy_trial_all_cold(trial);
    policy_trial_insert_below(trial, 205, DEFAULT, 0, 5);
    policy_trial_remove(trial, 205); /* before anybody was told */
    policy_trial_all_cold(trial);
    policy_trial_close(trial);
}

/* ---- At random ------------------------------------------------------------------------------- */

static unsigned random_band(struct policy_trial *trial)
{
    static const unsigned bands[] = {0, LOW, DEFAULT, DEFAULT, HIGH, KVB_PRIORITY_MAX};
    uint32_t n = policy_trial_random(trial, 8);
    return n < 6 ? bands[n] : policy_trial_random(trial, KVBI_BAND_COUNT);
}

static uint64_t random_deadline(struct policy_trial *trial)
{
    uint64_t ns = POLICY_SLOTS_MAX * (uint64_t)policy_trial_random(trial, 20);
    return policy_trial_random(trial, 5) < 2 ? 0 : policy_trial_deadline(trial, ns);
}

static void random_step_out(struct policy_trial *trial, uint32_t slot, uint32_t what)
{
    unsigned band = random_band(trial);
    uint64_t deadline_ns = random_deadline(trial);
    if (what < 50)
        policy_trial_insert(trial, slot, band, deadline_ns);
    else if (what < 90)
        policy_trial_insert_below(trial, slot, band, deadline_ns,
                                  (slot + 1 + policy_trial_random(trial, trial->slot_count - 1)) %
                                      trial->slot_count);
}

static void random_step_in(struct policy_trial *trial, uint32_t slot, uint32_t what)
{
    if (what < 12) {
        policy_trial_remove(trial, slot);
    } else if (what < 30) {
        policy_trial_touch(trial, slot);
    } else if (what < 45) {
        (void)policy_trial_evict(trial);
    } else if (what < 50) {
        policy_trial_ahead(trial, policy_trial_random(trial, KVBI_LOCK_BATCH));
    } else if (what < 60) {
        uint32_t budget = policy_trial_random(trial, KVBI_LOCK_BATCH + 1), next;
        (void)policy_trial_ask(trial, &budget, &next);
    }
}

/* Time stands still for many steps and then leaps, so that hundreds of deadlines pass at once. */
static void random_steps(struct policy_trial *trial, uint32_t seed, bool cold)
{
    trial->seed = seed;
    policy_trial_open(trial, SOME);
    for (uint32_t i = 0; i < 2500; i++) {
        uint32_t slot = policy_trial_random(trial, SOME), what = policy_trial_random(trial, 100);
        bool linked = trial->model.slots[slot].linked;
        if (what == 99)
            trial->now_ns += POLICY_SLOTS_MAX * (uint64_t)policy_trial_random(trial, 30);
        else if (what > 94 && cold)
            policy_trial_all_cold(trial);
        else if (what > 90 && !cold && !linked)
            policy_trial_insert_oldest(trial, slot, random_band(trial), random_deadline(trial));
        else if (linked)
            random_step_in(trial, slot, what);
        else
            random_step_out(trial, slot, what);
    }
    policy_trial_members(trial);
    policy_trial_catch_up(trial);
    policy_trial_order(trial, SOME);
    policy_trial_evict_all(trial);
    policy_trial_close(trial);
}

static void random_operations_agree_with_the_model(struct policy_trial *trial)
{
    for (uint32_t seed = 1; seed <= 12; seed++)
        random_steps(trial, seed, false);
}

static void the_cold_of_random_operations_are_those_of_the_model(struct policy_trial *trial)
{
    for (uint32_t seed = 1; seed <= 12; seed++)
        random_steps(trial, seed, true);
}

/* ---------------------------------------------------------------------------------------------- */

const struct policy_check policy_timed_checks[] = {
    POLICY_CHECK(retention_ends_at_its_deadline_and_not_before),
    POLICY_CHECK(retention_that_ended_counts_as_used_then),
    POLICY_CHECK(retention_in_the_default_band_counts_as_used_at_its_end),
    POLICY_CHECK(touched_after_its_deadline_has_no_deadline),
    POLICY_CHECK(retention_of_those_put_elsewhere_ends_too),
    POLICY_CHECK(no_call_deals_with_all_deadlines_at_once),
    POLICY_CHECK(victim_keeps_to_its_budget),
    POLICY_CHECK(order_is_that_of_deadlines_dealt_with_on_time),
    POLICY_CHECK(several_below_a_parent_that_has_ended_are_in_their_order),
    POLICY_CHECK(deadline_that_passes_before_its_turn_counts_as_used_then),
    POLICY_CHECK(the_oldest_tenth_is_told_each_once),
    POLICY_CHECK(inserted_among_the_cold_is_told),
    POLICY_CHECK(random_operations_agree_with_the_model),
    POLICY_CHECK(the_cold_of_random_operations_are_those_of_the_model),
};

const uint32_t policy_timed_check_count = sizeof policy_timed_checks / sizeof *policy_timed_checks;
