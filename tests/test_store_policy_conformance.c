/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every eviction policy that policy.c knows against what store/policy.h promises: a policy that is
 * added there is tested without a word here. And policies that are broken on purpose: the checks
 * find each of them.
 */
#include "support/policy_conformance.h"
#include "support/test.h"

#include <stdio.h>
#include <string.h>

#include <kvblock.h>

enum { NAMES_BYTES = 1024, NAME_BYTES = 160, CASES_MAX = 1024 };

/* ---- Broken ones ----------------------------------------------------------------------------- */

/* The default policy, which a broken one is but for an operation or a few. */
static const struct kvbi_policy_ops *sound;

/* Says that it has them all, and lets a slot go unseen. */
static struct {
    bool lost;
    uint32_t slot;
} loss;

static void losing_insert(struct kvbi_policy *policy, uint32_t slot, unsigned band,
                          uint64_t deadline_ns, uint64_t now_ns)
{
    if (!loss.lost && sound->count(policy) == 5) {
        loss.lost = true;
        loss.slot = slot;
        return;
    }
    sound->insert(policy, slot, band, deadline_ns, now_ns);
}

static bool losing_contains(const struct kvbi_policy *policy, uint32_t slot)
{
    return (loss.lost && slot == loss.slot) || sound->contains(policy, slot);
}

static uint32_t losing_count(const struct kvbi_policy *policy)
{
    return sound->count(policy) + loss.lost;
}

static void losing_remove(struct kvbi_policy *policy, uint32_t slot)
{
    if (loss.lost && slot == loss.slot)
        loss.lost = false;
    else
        sound->remove(policy, slot);
}

static void losing_destroy(struct kvbi_policy *policy)
{
    loss.lost = false;
    sound->destroy(policy);
}

static uint32_t keeping_victim(struct kvbi_policy *policy, uint64_t now_ns, uint32_t *budget,
                               unsigned *band)
{
    uint32_t slot = sound->victim(policy, now_ns, budget, band);
    return sound->count(policy) > 1 ? slot : KVBI_NONE;
}

/* Takes two neighbouring bands for one. */
static void band_blind_insert(struct kvbi_policy *policy, uint32_t slot, unsigned band,
                              uint64_t deadline_ns, uint64_t now_ns)
{
    sound->insert(policy, slot, band == 72 ? 71 : band, deadline_ns, now_ns);
}

/* Says the right band, and the wrong slot. */
static uint32_t highest_first_victim(struct kvbi_policy *policy, uint64_t now_ns, uint32_t *budget,
                                     unsigned *band)
{
    static uint32_t slots[POLICY_SLOTS_MAX];
    uint32_t slot = sound->victim(policy, now_ns, budget, band);
    if (slot == KVBI_NONE)
        return slot;
    return slots[sound->ahead(policy, slots, POLICY_SLOTS_MAX) - 1];
}

static uint32_t taking_victim(struct kvbi_policy *policy, uint64_t now_ns, uint32_t *budget,
                              unsigned *band)
{
    uint32_t slot = sound->victim(policy, now_ns, budget, band);
    if (slot != KVBI_NONE)
        sound->remove(policy, slot);
    return slot;
}

static uint32_t spendthrift_victim(struct kvbi_policy *policy, uint64_t now_ns, uint32_t *budget,
                                   unsigned *band)
{
    uint32_t all = KVBI_LOCK_BATCH;
    *budget = 0;
    return sound->victim(policy, now_ns, &all, band);
}

static void late_insert(struct kvbi_policy *policy, uint32_t slot, unsigned band,
                        uint64_t deadline_ns, uint64_t now_ns)
{
    sound->insert(policy, slot, band, deadline_ns + (deadline_ns != 0), now_ns);
}

static void eager_insert(struct kvbi_policy *policy, uint32_t slot, unsigned band,
                         uint64_t deadline_ns, uint64_t now_ns)
{
    sound->insert(policy, slot, band, deadline_ns, now_ns);
    (void)sound->order(policy, NULL, 0); /* which deals with all that have passed */
}

static void parentless_insert_below(struct kvbi_policy *policy, uint32_t slot, unsigned band,
                                    uint64_t deadline_ns, uint32_t parent, uint64_t now_ns)
{
    (void)parent;
    sound->insert(policy, slot, band, deadline_ns, now_ns);
}

static void youngest_insert_oldest(struct kvbi_policy *policy, uint32_t slot, unsigned band,
                                   uint64_t deadline_ns)
{
    sound->insert(policy, slot, band, deadline_ns, 0);
}

static struct kvb_block *scribbled;

static int scribbling_create(struct kvbi_policy **policy, const struct kvbi_memory *memory,
                             struct kvb_block *slots, uint32_t count)
{
    scribbled = slots;
    return sound->create(policy, memory, slots, count);
}

static void scribbling_remove(struct kvbi_policy *policy, uint32_t slot)
{
    sound->remove(policy, slot);
    scribbled[slot].priority = 0;
}

static uint32_t doubling_ahead(const struct kvbi_policy *policy, uint32_t *slots, uint32_t max)
{
    uint32_t count = sound->ahead(policy, slots, max);
    if (count > 1)
        slots[1] = slots[0];
    return count;
}

static uint32_t cut_order(struct kvbi_policy *policy, uint32_t *slots, uint32_t max)
{
    return sound->order(policy, slots, max < 100 ? max : 100);
}

static uint32_t forgetful_next_cold(struct kvbi_policy *policy, uint64_t now_ns)
{
    (void)sound->next_cold(policy, now_ns);
    return sound->next_cold(policy, now_ns);
}

static size_t half_the_bytes(const struct kvbi_policy *policy)
{
    return sound->bytes(policy) / 2;
}

static void leaking_destroy(struct kvbi_policy *policy)
{
    /* seen from here, so that a sanitizer has no word to say */
    static struct kvbi_policy *volatile leaked;
    leaked = policy;
    (void)leaked;
}

/* ---- Which check finds it -------------------------------------------------------------------- */

struct broken {
    const char *what;
    const char *check;
    struct kvbi_policy_ops ops; /* what it replaces of the default policy */
};

static const struct broken brokens[] = {
    {"one that loses a slot",
     "every_slot_inserted_comes_out_once",
     {.insert = losing_insert,
      .contains = losing_contains,
      .count = losing_count,
      .remove = losing_remove,
      .destroy = losing_destroy}},
    {"one that keeps the last for itself",
     "every_slot_inserted_comes_out_once",
     {.victim = keeping_victim}},
    {"one that takes two bands for one",
     "order_of_bands_is_lowest_first",
     {.insert = band_blind_insert}},
    {"one that evicts from the highest band",
     "order_of_bands_is_lowest_first",
     {.victim = highest_first_victim}},
    {"one whose victim has left", "victim_stays_where_it_is", {.victim = taking_victim}},
    {"one that spends a budget that it does not need",
     "victim_keeps_to_its_budget",
     {.victim = spendthrift_victim}},
    {"one that ends retention late",
     "retention_ends_at_its_deadline_and_not_before",
     {.insert = late_insert}},
    {"one that deals with all deadlines at once",
     "no_call_deals_with_all_deadlines_at_once",
     {.insert = eager_insert}},
    {"one that knows no parent",
     "inserted_below_a_parent_is_directly_before_it",
     {.insert_below = parentless_insert_below}},
    {"one that takes those passed for the youngest",
     "inserted_oldest_goes_before_all_of_its_band",
     {.insert_oldest = youngest_insert_oldest}},
    {"one that writes to what is not its own",
     "first_middle_last_and_only_one_can_be_removed",
     {.create = scribbling_create, .remove = scribbling_remove}},
    {"one that looks ahead double", "looking_ahead_changes_nothing", {.ahead = doubling_ahead}},
    {"one whose order ends early", "order_is_the_whole_and_can_be_cut", {.order = cut_order}},
    {"one that tells of every other cold one",
     "the_oldest_tenth_is_told_each_once",
     {.next_cold = forgetful_next_cold}},
    {"one that hides its memory", "bytes_is_what_create_took", {.bytes = half_the_bytes}},
    {"one that leaks", "what_is_created_is_empty", {.destroy = leaking_destroy}},
    {"one without a name", "every_operation_is_there", {.name = ""}},
};

#define BROKEN_COUNT (sizeof brokens / sizeof *brokens)

static struct kvbi_policy_ops broken_ops(const struct kvbi_policy_ops *b)
{
    struct kvbi_policy_ops ops = *sound;
#define REPLACE(operation) ops.operation = b->operation != NULL ? b->operation : ops.operation
    REPLACE(name);
    REPLACE(create);
    REPLACE(destroy);
    REPLACE(insert);
    REPLACE(insert_below);
    REPLACE(insert_oldest);
    REPLACE(remove);
    REPLACE(contains);
    REPLACE(victim);
    REPLACE(order);
    REPLACE(ahead);
    REPLACE(next_cold);
    REPLACE(bytes);
    REPLACE(count);
#undef REPLACE
    return ops;
}

static const struct policy_check *check_of(const char *name)
{
    const struct policy_check *check;
    for (uint32_t i = 0; (check = policy_check_at(i)) != NULL; i++)
        if (strcmp(check->name, name) == 0)
            return check;
    fail_msg("there is no check %s", name);
    return NULL;
}

static void test_broken_policy_is_found_by_its_check(void **state)
{
    const struct broken *broken = *state;
    const struct policy_check *check = check_of(broken->check);
    struct kvbi_policy_ops ops = broken_ops(&broken->ops);
    struct policy_finding finding;
    if (policy_passes(&ops, check, &finding))
        fail_msg("%s finds nothing", check->name);
    print_message("found: %s\n", finding.text);
}

/* ---- Those that there are -------------------------------------------------------------------- */

/* One check of one policy, or a broken one. */
struct test_case {
    char name[NAME_BYTES];
    const struct kvbi_policy_ops *ops;
    const struct policy_check *check;
};

static void test_policy_keeps_its_promise(void **state)
{
    const struct test_case *test = *state;
    struct policy_finding finding;
    if (!policy_passes(test->ops, test->check, &finding))
        fail_msg("%s", finding.text);
}

static void test_every_name_finds_a_policy_of_that_name(void **state)
{
    (void)state;
    char names[NAMES_BYTES], *rest = names;
    uint32_t count = 0;
    kvbi_policy_names(names, sizeof names);
    for (char *name; (name = strtok_r(rest, ", ", &rest)) != NULL; count++) {
        const struct kvbi_policy_ops *ops = kvbi_policy_find(name);
        assert_non_null(ops);
        assert_string_equal(ops->name, name);
    }
    assert_true(count > 0);
    assert_ptr_equal(kvbi_policy_find(NULL), sound);
    assert_ptr_equal(kvbi_policy_find(sound->name), sound);
    assert_null(kvbi_policy_find("no such policy"));
}

static struct test_case cases[CASES_MAX];

/* Every check of every policy. */
static uint32_t make_cases(void)
{
    char names[NAMES_BYTES], *rest = names;
    uint32_t count = 0;
    kvbi_policy_names(names, sizeof names);
    for (char *name; (name = strtok_r(rest, ", ", &rest)) != NULL;) {
        const struct policy_check *check;
        for (uint32_t i = 0; (check = policy_check_at(i)) != NULL && count < CASES_MAX; i++) {
            struct test_case *test = &cases[count++];
            (void)snprintf(test->name, sizeof test->name, "%s: %s", name, check->name);
            test->ops = kvbi_policy_find(name);
            test->check = check;
        }
    }
    return count;
}

int main(void)
{
    sound = kvbi_policy_find(NULL);
    uint32_t case_count = make_cases();
    struct CMUnitTest tests[1 + case_count + BROKEN_COUNT], *next = tests;
    *next++ = (struct CMUnitTest)TEST(bare, test_every_name_finds_a_policy_of_that_name);
    for (uint32_t i = 0; i < case_count; i++, next++) {
        *next = (struct CMUnitTest)TEST(bare, test_policy_keeps_its_promise);
        next->name = cases[i].name;
        next->initial_state = &cases[i];
    }
    for (uint32_t i = 0; i < BROKEN_COUNT; i++, next++) {
        *next = (struct CMUnitTest)TEST(bare, test_broken_policy_is_found_by_its_check);
        next->name = brokens[i].what;
        next->initial_state = (void *)(uintptr_t)&brokens[i];
    }
    return cmocka_run_group_tests_name("policies", tests, NULL, NULL);
}
