/* SPDX-License-Identifier: Apache-2.0 */
/* The checks of the order and of who is in it. See policy_conformance.h. */
#include "support/policy_conformance.h"

#include <kvblock.h>

/* MANY: deadlines of which one call must not deal with all. */
enum { FEW = 12, SOME = 300, MANY = 3000 };
enum { LOW = KVB_PRIORITY_DEFAULT - 1, DEFAULT, HIGH };

/* ---- Created and destroyed ------------------------------------------------------------------- */

static void every_operation_is_there(struct policy_trial *trial)
{
    const struct kvbi_policy_ops *o = trial->ops;
    policy_trial_demand(trial, o->name != NULL && o->name[0] != '\0', "it has no name");
    bool all = o->create && o->destroy && o->insert && o->insert_below && o->insert_oldest &&
               o->remove && o->contains && o->victim && o->order && o->ahead && o->warm &&
               o->next_cold && o->bytes && o->count;
    policy_trial_demand(trial, all, "an operation is missing");
}

static void what_is_created_is_empty(struct policy_trial *trial)
{
    policy_trial_open(trial, FEW);
    policy_trial_members(trial);
    policy_trial_demand(trial, policy_trial_victim(trial) == KVBI_NONE, "somebody is to go");
    policy_trial_order(trial, FEW);
    policy_trial_ahead(trial, FEW);
    policy_trial_demand(trial, policy_trial_next_cold(trial) == KVBI_NONE, "somebody is cold");
    policy_trial_close(trial);
}

static void create_that_lacks_memory_leaves_nothing(struct policy_trial *trial)
{
    int code = KVB_ENOMEM;
    for (int64_t allocations = 0; code != 0; allocations++) {
        code = policy_trial_create(trial, SOME, allocations);
        policy_trial_demand(trial, code == 0 || code == KVB_ENOMEM, "create returns %d", code);
        policy_trial_demand(trial, code == 0 || trial->failing.live_count == 0,
                            "create that fails leaves %lld bytes",
                            (long long)trial->failing.live_bytes);
        policy_trial_demand(trial, allocations < 1000, "create fails though there is memory");
    }
    policy_trial_close(trial);
}

static void bytes_is_what_create_took(struct policy_trial *trial)
{
    static const uint32_t counts[] = {1, FEW, SOME, MANY};
    for (uint32_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        policy_trial_open(trial, counts[i]);
        size_t bytes = trial->ops->bytes(trial->policy);
        policy_trial_demand(trial, (int64_t)bytes == trial->failing.live_bytes,
                            "bytes says %zu, and create took %lld", bytes,
                            (long long)trial->failing.live_bytes);
        for (uint32_t slot = 0; slot < counts[i]; slot++)
            policy_trial_insert(trial, slot, slot % KVBI_BAND_COUNT,
                                policy_trial_deadline(trial, 1));
        policy_trial_demand(trial, trial->ops->bytes(trial->policy) == bytes,
                            "bytes changes with what is in the order");
        policy_trial_close(trial); /* with all of them in it */
    }
}

/* ---- In and out ------------------------------------------------------------------------------ */

static void every_slot_inserted_comes_out_once(struct policy_trial *trial)
{
    static const uint32_t counts[] = {1, 2, FEW, SOME};
    for (uint32_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        policy_trial_open(trial, counts[i]);
        for (uint32_t round = 0; round < 3; round++) { /* again, into what has been empty */
            for (uint32_t slot = 0; slot < counts[i]; slot++) {
                unsigned band = policy_trial_random(trial, KVBI_BAND_COUNT);
                uint64_t deadline_ns = policy_trial_deadline(trial, 1);
                policy_trial_insert(trial, slot, band, slot % 3 == 1 ? deadline_ns : 0);
                trial->now_ns += slot % 2 * POLICY_SLOTS_MAX;
            }
            policy_trial_members(trial);
            policy_trial_evict_all(trial);
        }
        policy_trial_close(trial);
    }
}

static void first_middle_last_and_only_one_can_be_removed(struct policy_trial *trial)
{
    policy_trial_open(trial, FEW);
    policy_trial_insert_run(trial, 0, 8, DEFAULT);
    policy_trial_insert(trial, 9, HIGH, 0);
    policy_trial_remove(trial, 0);
    policy_trial_remove(trial, 4);
    policy_trial_remove(trial, 8);
    policy_trial_remove(trial, 9);
    policy_trial_members(trial);
    policy_trial_insert(trial, 4, DEFAULT, 0);
    policy_trial_evict_run(trial, 1, 3);
    policy_trial_evict_run(trial, 5, 7);
    policy_trial_evict_slot(trial, 4);
    policy_trial_evict_all(trial);
    policy_trial_close(trial);
}

static void removed_before_its_deadline_or_after_it_stays_out(struct policy_trial *trial)
{
    policy_trial_open(trial, MANY);
    uint64_t end_ns = policy_trial_insert_retained(trial, MANY);
    for (uint32_t slot = 0; slot < MANY; slot += 2)
        policy_trial_remove(trial, slot);
    trial->now_ns = end_ns;
    for (uint32_t slot = 1; slot < MANY; slot += 4) /* passed, and nobody has looked */
        policy_trial_remove(trial, slot);
    policy_trial_insert(trial, 0, HIGH, 0); /* its former deadline is none of its */
    policy_trial_insert(trial, 1, 0, 0);
    policy_trial_members(trial);
    policy_trial_evict_all(trial);
    policy_trial_close(trial);
}

static void removed_next_to_one_that_was_put_below_it_leaves_that_one(struct policy_trial *trial)
{
    policy_trial_open(trial, FEW);
    policy_trial_insert_run(trial, 0, 2, DEFAULT);
    policy_trial_insert_below(trial, 3, DEFAULT, 0, 1);
    policy_trial_remove(trial, 1);
    policy_trial_insert_below(trial, 4, DEFAULT, 0, 3);
    policy_trial_evict_slot(trial, 0);
    policy_trial_evict_slot(trial, 4);
    policy_trial_evict_slot(trial, 3);
    policy_trial_evict_slot(trial, 2);
    policy_trial_close(trial);
}

/* ---- The order ------------------------------------------------------------------------------- */

static void order_of_bands_is_lowest_first(struct policy_trial *trial)
{
    policy_trial_open(trial, 2 * KVBI_BAND_COUNT);
    for (uint32_t i = 0; i < KVBI_BAND_COUNT; i++) /* 37 and 101 have no divisor in common */
        policy_trial_insert(trial, i * 37 % KVBI_BAND_COUNT, i * 37 % KVBI_BAND_COUNT, 0);
    for (uint32_t band = KVBI_BAND_COUNT; band-- > 0;)
        policy_trial_insert(trial, KVBI_BAND_COUNT + band, band, 0);
    for (uint32_t band = 0; band < KVBI_BAND_COUNT; band++) {
        policy_trial_evict_slot(trial, band);
        policy_trial_evict_slot(trial, KVBI_BAND_COUNT + band);
    }
    policy_trial_close(trial);
}

static void inserted_is_the_youngest_of_its_band(struct policy_trial *trial)
{
    policy_trial_open(trial, FEW);
    policy_trial_insert_run(trial, 0, 5, DEFAULT);
    policy_trial_insert(trial, 6, LOW, 0);
    policy_trial_insert(trial, 7, HIGH, 0);
    policy_trial_insert(trial, 8, DEFAULT, 0);
    policy_trial_evict_slot(trial, 6);
    policy_trial_evict_run(trial, 0, 5);
    policy_trial_evict_slot(trial, 8);
    policy_trial_evict_slot(trial, 7);
    policy_trial_close(trial);
}

static void touched_is_the_youngest_of_its_band_again(struct policy_trial *trial)
{
    policy_trial_open(trial, FEW);
    policy_trial_insert_run(trial, 0, 3, DEFAULT);
    policy_trial_insert_run(trial, 4, 7, HIGH);
    policy_trial_touch(trial, 0);
    policy_trial_touch(trial, 2);
    policy_trial_touch(trial, 2);
    policy_trial_touch(trial, 7);
    policy_trial_touch(trial, 5);
    static const uint32_t order[] = {1, 3, 0, 2, 4, 6, 7, 5};
    for (uint32_t i = 0; i < sizeof order / sizeof *order; i++)
        policy_trial_evict_slot(trial, order[i]);
    policy_trial_close(trial);
}

static void inserted_below_a_parent_is_directly_before_it(struct policy_trial *trial)
{
    static const unsigned bands[] = {0, DEFAULT, KVB_PRIORITY_MAX};
    for (uint32_t i = 0; i < sizeof bands / sizeof *bands; i++) {
        policy_trial_open(trial, FEW);
        policy_trial_insert_run(trial, 0, 2, bands[i]);
        policy_trial_insert_below(trial, 3, bands[i], 0, 0);
        policy_trial_insert_below(trial, 4, bands[i], 0, 2);
        policy_trial_insert_below(trial, 5, bands[i], 0, 2); /* between its parent and 4 */
        policy_trial_insert_below(trial, 6, bands[i], 0, 4);
        static const uint32_t order[] = {3, 0, 1, 6, 4, 5, 2};
        for (uint32_t n = 0; n < sizeof order / sizeof *order; n++)
            policy_trial_evict_slot(trial, order[n]);
        policy_trial_close(trial);
    }
}

static void inserted_below_a_parent_elsewhere_is_the_youngest(struct policy_trial *trial)
{
    policy_trial_open(trial, FEW);
    policy_trial_insert_run(trial, 0, 2, DEFAULT);
    policy_trial_insert(trial, 3, LOW, 0);
    policy_trial_insert(trial, 4, HIGH, 0);
    policy_trial_insert_below(trial, 5, DEFAULT, 0, 3);
    policy_trial_insert_below(trial, 6, DEFAULT, 0, 4);
    policy_trial_insert_below(trial, 7, DEFAULT, 0, 9); /* not in the order */
    policy_trial_remove(trial, 1);
    policy_trial_insert_below(trial, 8, DEFAULT, 0, 1); /* not any more */
    static const uint32_t order[] = {3, 0, 2, 5, 6, 7, 8, 4};
    for (uint32_t n = 0; n < sizeof order / sizeof *order; n++)
        policy_trial_evict_slot(trial, order[n]);
    policy_trial_close(trial);
}

static void inserted_oldest_goes_before_all_of_its_band(struct policy_trial *trial)
{
    policy_trial_open(trial, FEW);
    policy_trial_insert_run(trial, 0, 2, DEFAULT);
    policy_trial_insert(trial, 3, LOW, 0);
    policy_trial_insert_oldest(trial, 4, DEFAULT, 0);
    policy_trial_insert_oldest(trial, 5, HIGH, 0);
    policy_trial_insert(trial, 6, HIGH, 0);
    policy_trial_insert(trial, 7, DEFAULT, 0);
    static const uint32_t order[] = {3, 4, 0, 1, 2, 7, 5, 6};
    for (uint32_t n = 0; n < sizeof order / sizeof *order; n++)
        policy_trial_evict_slot(trial, order[n]);
    policy_trial_close(trial);
}

/* In which order they go themselves is nobody's promise. */
static void all_that_are_inserted_oldest_go_before_the_others(struct policy_trial *trial)
{
    policy_trial_open(trial, SOME);
    policy_trial_insert_run(trial, 0, 49, DEFAULT);
    for (uint32_t slot = 50; slot < 200; slot++)
        policy_trial_insert_oldest(trial, slot, slot % 3 == 0 ? HIGH : DEFAULT, 0);
    policy_trial_insert_run(trial, 200, 249, HIGH);
    policy_trial_evict_all(trial);
    policy_trial_close(trial);
}

/* ---- Looking --------------------------------------------------------------------------------- */

static void victim_stays_where_it_is(struct policy_trial *trial)
{
    policy_trial_open(trial, FEW);
    policy_trial_insert_run(trial, 0, 5, DEFAULT);
    policy_trial_insert(trial, 6, HIGH, 0);
    for (uint32_t times = 0; times < 4; times++)
        policy_trial_demand(trial, policy_trial_victim(trial) == 0, "another one is to go now");
    policy_trial_order(trial, FEW);
    policy_trial_close(trial);
}

static void order_is_the_whole_and_can_be_cut(struct policy_trial *trial)
{
    policy_trial_open(trial, SOME);
    for (uint32_t slot = 0; slot < 200; slot++)
        policy_trial_insert(trial, slot, slot * 37 % KVBI_BAND_COUNT,
                            slot % 2 ? policy_trial_deadline(trial, UINT64_C(1) << 40) : 0);
    policy_trial_order(trial, 0);
    policy_trial_order(trial, 1);
    policy_trial_order(trial, 199);
    policy_trial_order(trial, 200);
    policy_trial_order(trial, SOME);
    policy_trial_evict_all(trial); /* they have stayed */
    policy_trial_close(trial);
}

static void order_deals_with_all_deadlines_that_have_passed(struct policy_trial *trial)
{
    policy_trial_open(trial, MANY);
    trial->now_ns = policy_trial_insert_retained(trial, MANY - 10);
    policy_trial_insert(trial, MANY - 10, DEFAULT, 0); /* which tells it the time */
    policy_trial_insert(trial, MANY - 9, LOW, 0);
    policy_trial_order(trial, MANY);
    policy_trial_close(trial);
}

static void looking_ahead_changes_nothing(struct policy_trial *trial)
{
    policy_trial_open(trial, SOME);
    for (uint32_t round = 0; round < 2; round++) {
        for (uint32_t slot = 0; slot < 200; slot++)
            policy_trial_insert(trial, slot, slot * 37 % KVBI_BAND_COUNT,
                                slot % 2 ? policy_trial_deadline(trial, 1) : 0);
        trial->now_ns += round * SOME * POLICY_SLOTS_MAX; /* with deadlines in the way, or none */
        static const uint32_t max[] = {0, 1, 64, 200, SOME};
        for (uint32_t i = 0; i < sizeof max / sizeof *max; i++)
            policy_trial_ahead(trial, max[i]);
        for (uint32_t slot = 0; slot < SOME; slot++) /* whether it is in the order or not */
            policy_trial_warm(trial, slot);
        policy_trial_evict_all(trial);
    }
    policy_trial_close(trial);
}

/* ---------------------------------------------------------------------------------------------- */

static const struct policy_check checks[] = {
    POLICY_CHECK(every_operation_is_there),
    POLICY_CHECK(what_is_created_is_empty),
    POLICY_CHECK(create_that_lacks_memory_leaves_nothing),
    POLICY_CHECK(bytes_is_what_create_took),
    POLICY_CHECK(every_slot_inserted_comes_out_once),
    POLICY_CHECK(first_middle_last_and_only_one_can_be_removed),
    POLICY_CHECK(removed_before_its_deadline_or_after_it_stays_out),
    POLICY_CHECK(removed_next_to_one_that_was_put_below_it_leaves_that_one),
    POLICY_CHECK(order_of_bands_is_lowest_first),
    POLICY_CHECK(inserted_is_the_youngest_of_its_band),
    POLICY_CHECK(touched_is_the_youngest_of_its_band_again),
    POLICY_CHECK(inserted_below_a_parent_is_directly_before_it),
    POLICY_CHECK(inserted_below_a_parent_elsewhere_is_the_youngest),
    POLICY_CHECK(inserted_oldest_goes_before_all_of_its_band),
    POLICY_CHECK(all_that_are_inserted_oldest_go_before_the_others),
    POLICY_CHECK(victim_stays_where_it_is),
    POLICY_CHECK(order_is_the_whole_and_can_be_cut),
    POLICY_CHECK(order_deals_with_all_deadlines_that_have_passed),
    POLICY_CHECK(looking_ahead_changes_nothing),
};

const struct policy_check *policy_check_at(uint32_t number)
{
    const uint32_t count = sizeof checks / sizeof *checks;
    if (number < count)
        return &checks[number];
    return number - count < policy_timed_check_count ? &policy_timed_checks[number - count] : NULL;
}

bool policy_passes(const struct kvbi_policy_ops *ops, const struct policy_check *check,
                   struct policy_finding *finding)
{
    return policy_trial_run(ops, check->run, finding);
}
