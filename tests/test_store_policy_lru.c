/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the LRU policy promises beyond store/policy.h: of several whose retention ends at the same
 * moment the one that was parked first goes first, whatever is used or goes meanwhile, and those
 * that an eviction has passed keep their order.
 */
#include "support/kv_test.h"
#include "support/test.h"

#include "store/pool.h"

enum { SLOTS = 600 };

/* What the model knows of a slot. Who compares less goes first. */
struct use {
    bool linked;
    unsigned band;
    uint64_t at_ns, deadline_ns; /* used; end of retention, 0: none */
    uint64_t order;              /* of insertion */
};

struct fixture {
    struct kvbi_memory memory;
    struct kvb_block *slots;
    struct kvbi_policy *policy;
    struct use uses[SLOTS];
    uint64_t now_ns, order, seed;
};

static int lru_teardown(void **state)
{
    struct fixture *f = *state;
    if (f->policy != NULL)
        f->policy->ops->destroy(f->policy);
    kvbi_memory_free(&f->memory, f->slots, SLOTS, sizeof *f->slots);
    free(f);
    return 0;
}

static int lru_setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    *state = f;
    if (f == NULL || kvbi_memory_init(&f->memory, NULL) != 0)
        return -1;
    f->now_ns = 1000;
    f->slots = kvbi_memory_alloc(&f->memory, SLOTS, sizeof *f->slots, 64);
    const struct kvbi_policy_ops *ops = kvbi_policy_find("lru");
    return f->slots != NULL && ops->create(&f->policy, &f->memory, f->slots, SLOTS) == 0 ? 0 : -1;
}

/* Past its deadline a block has default priority, as if last used then. */
static struct use as_of(const struct fixture *f, uint32_t slot)
{
    struct use use = f->uses[slot];
    if (use.deadline_ns != 0 && use.deadline_ns <= f->now_ns) {
        use.band = KVB_PRIORITY_DEFAULT;
        use.at_ns = use.deadline_ns;
    }
    return use;
}

static bool goes_before(const struct fixture *f, uint32_t a_slot, uint32_t b_slot)
{
    struct use a = as_of(f, a_slot), b = as_of(f, b_slot);
    if (a.band != b.band)
        return a.band < b.band;
    if (a.at_ns != b.at_ns)
        return a.at_ns < b.at_ns;
    return a.order < b.order;
}

static uint32_t first_of(const struct fixture *f)
{
    uint32_t first = KVBI_NONE;
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        if (f->uses[slot].linked && (first == KVBI_NONE || goes_before(f, slot, first)))
            first = slot;
    return first;
}

static void insert(struct fixture *f, uint32_t slot, unsigned band, uint64_t deadline_ns)
{
    f->slots[slot].priority = (uint8_t)band;
    f->slots[slot].retention_ns = deadline_ns;
    f->uses[slot] = (struct use){.linked = true,
                                 .band = band,
                                 .at_ns = f->now_ns,
                                 .deadline_ns = deadline_ns,
                                 .order = f->order++};
    f->policy->ops->insert(f->policy, slot, band, deadline_ns, f->now_ns);
}

static void remove_slot(struct fixture *f, uint32_t slot)
{
    f->uses[slot].linked = false;
    f->policy->ops->remove(f->policy, slot);
}

/* The next to go, asked for as often as need be. */
static uint32_t victim(struct fixture *f)
{
    for (uint32_t calls = 0; calls <= 100 * SLOTS; calls++) {
        unsigned band = 0;
        uint32_t budget = kv_random(&f->seed, 65);
        uint32_t slot = f->policy->ops->victim(f->policy, f->now_ns, &budget, &band);
        if (slot != KVBI_NONE || band != KVBI_BAND_AGAIN)
            return slot;
    }
    fail_msg("it never comes to an end");
    return KVBI_NONE;
}

static void evict_one(struct fixture *f)
{
    uint32_t slot = victim(f);
    assert_int_equal(slot, first_of(f));
    if (slot != KVBI_NONE)
        remove_slot(f, slot);
}

static void evict_all(struct fixture *f)
{
    while (first_of(f) != KVBI_NONE)
        evict_one(f);
    assert_int_equal(victim(f), KVBI_NONE);
}

/* A few moments, so that many retentions end at the same one. */
static void step(struct fixture *f)
{
    static const unsigned bands[] = {0, 20, KVB_PRIORITY_DEFAULT, 50, KVB_PRIORITY_MAX};
    uint32_t slot = kv_random(&f->seed, SLOTS), what = kv_random(&f->seed, 100);
    if (what < 55 && !f->uses[slot].linked) {
        unsigned band = bands[kv_random(&f->seed, 5)];
        bool retained = band != KVB_PRIORITY_DEFAULT && kv_random(&f->seed, 3) > 0;
        insert(f, slot, band,
               retained ? f->now_ns + 1 + UINT64_C(50) * kv_random(&f->seed, 10) : 0);
    } else if (what < 60 && f->uses[slot].linked) {
        remove_slot(f, slot);
    } else if (what < 70) {
        evict_one(f);
    } else if (what == 99) {
        f->now_ns += UINT64_C(50) * kv_random(&f->seed, 12);
    }
}

static void test_order_over_random_uses_is_that_of_the_model(void **state)
{
    struct fixture *f = *state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        f->seed = seed << 32;
        for (uint32_t i = 0; i < 4000; i++)
            step(f);
        evict_all(f);
    }
}

/*
 * What is used while hundreds that have ended wait is younger than they, and keeps its own order.
 */
static void test_used_after_hundreds_have_ended_is_younger_than_all_of_them(void **state)
{
    struct fixture *f = *state;
    for (uint32_t slot = 0; slot < 500; slot++)
        insert(f, slot, slot % 2 ? KVB_PRIORITY_MAX : 0, 1100);
    f->now_ns = 1200;
    for (uint32_t slot = 500; slot < 510; slot++)
        insert(f, slot, KVB_PRIORITY_DEFAULT, slot % 3 ? 0 : 5000);
    for (uint32_t slot = 0; slot < 510; slot++) {
        assert_int_equal(victim(f), slot);
        remove_slot(f, slot);
    }
}

static void test_used_before_hundreds_have_ended_is_older_than_all_of_them(void **state)
{
    struct fixture *f = *state;
    insert(f, 599, KVB_PRIORITY_DEFAULT, 0);
    for (uint32_t slot = 0; slot < 500; slot++)
        insert(f, slot, 0, 1100);
    f->now_ns = 1200;
    assert_int_equal(victim(f), 599);
    remove_slot(f, 599);
    evict_all(f);
}

/* A block that a lane parks goes directly before its parent, be the parent's turn still to come. */
static void test_insert_below_a_parent_that_has_ended_is_before_it(void **state)
{
    struct fixture *f = *state;
    uint32_t order[4];
    for (uint32_t slot = 0; slot < 500; slot++)
        insert(f, slot, KVB_PRIORITY_MAX, 1100);
    f->now_ns = 1200;
    f->policy->ops->insert_below(f->policy, 550, KVB_PRIORITY_DEFAULT, 0, 400, f->now_ns);
    for (uint32_t slot = 0; slot < 399; slot++) {
        assert_int_equal(victim(f), slot);
        remove_slot(f, slot);
    }
    assert_int_equal(f->policy->ops->order(f->policy, order, 4), 4);
    assert_int_equal(order[0], 399);
    assert_int_equal(order[1], 550);
    assert_int_equal(order[2], 400);
    assert_int_equal(order[3], 401);
}

/* The order that outlives the process knows of all that have ended. */
static void test_order_deals_with_all_that_have_ended(void **state)
{
    struct fixture *f = *state;
    static uint32_t order[SLOTS];
    for (uint32_t slot = 0; slot < 500; slot++)
        insert(f, slot, slot % 2 ? KVB_PRIORITY_MAX : 0, 1100);
    f->now_ns = 1200;
    insert(f, 500, KVB_PRIORITY_DEFAULT, 0);
    assert_int_equal(f->policy->ops->order(f->policy, order, SLOTS), 501);
    for (uint32_t i = 0; i <= 500; i++)
        assert_int_equal(order[i], i);
}

/* They were passed oldest first, and are let go in this order. */
static void test_those_passed_come_back_in_the_order_in_which_they_went(void **state)
{
    struct fixture *f = *state;
    uint32_t order[5];
    for (uint32_t slot = 0; slot < 5; slot++)
        insert(f, slot, KVB_PRIORITY_DEFAULT, 0);
    for (uint32_t slot = 0; slot < 3; slot++)
        remove_slot(f, slot);
    for (uint32_t slot = 0; slot < 3; slot++)
        f->policy->ops->insert_oldest(f->policy, slot, KVB_PRIORITY_DEFAULT, 0);
    assert_int_equal(f->policy->ops->order(f->policy, order, 5), 5);
    for (uint32_t slot = 0; slot < 5; slot++)
        assert_int_equal(order[slot], slot);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(lru, test_order_over_random_uses_is_that_of_the_model),
        TEST(lru, test_used_after_hundreds_have_ended_is_younger_than_all_of_them),
        TEST(lru, test_used_before_hundreds_have_ended_is_older_than_all_of_them),
        TEST(lru, test_insert_below_a_parent_that_has_ended_is_before_it),
        TEST(lru, test_order_deals_with_all_that_have_ended),
        TEST(lru, test_those_passed_come_back_in_the_order_in_which_they_went),
    };
    return cmocka_run_group_tests_name("lru", tests, NULL, NULL);
}
