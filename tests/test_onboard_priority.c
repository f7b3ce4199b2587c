/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Priority is handed on: whatever somebody waits for goes as early as the most urgent of those who
 * wait, through tiers in between and from hand to hand. The engine takes one block at a time, so
 * that the order of its copies is the order of the lanes.
 */
#include "support/kv_scene.h"
#include "support/move_test.h"

#include "api/manager.h"
#include "store/contents.h"

enum { ORDINARY = 6 };

struct traffic {
    struct kv_rig rig;
    struct mv_run wanted, ordinary[ORDINARY];
    struct kvb_op *ops[3 * ORDINARY];
    uint32_t op_count;
};

static int traffic_setup(void **state)
{
    (void)kv_scene_begin(state, sizeof(struct traffic));
    return 0;
}

#define traffic_teardown kv_scene_end

/* The wanted block and the ordinary ones are parked in `tier`; nothing moves yet. */
static void open_traffic(struct traffic *traffic, uint32_t tier)
{
    struct kv_rig *rig = &traffic->rig;
    mv_three_tiers(rig, 16, 16, 16);
    rig->config.op_capacity = 3 * ORDINARY;
    mv_bounds(rig, 0, 1, 1, 1, 16);
    mv_bounds(rig, 1, 1, 1, 1, 16);
    mv_open_recorded(rig);
    mv_park(rig, &traffic->wanted, tier, 1, 1);
    for (uint32_t i = 0; i < ORDINARY; i++)
        mv_park(rig, &traffic->ordinary[i], tier, 10 + i, 1);
}

static struct kvb_op *start(struct traffic *traffic, struct mv_run *run, uint32_t tier,
                            uint32_t priority)
{
    struct kv_rig *rig = &traffic->rig;
    struct kvb_op *op = mv_bring_with_priority(rig, run, kv_alloc(rig, tier), priority, NULL);
    traffic->ops[traffic->op_count++] = op;
    return op;
}

static void start_ordinary(struct traffic *traffic, uint32_t tier)
{
    for (uint32_t i = 0; i < ORDINARY; i++)
        start(traffic, &traffic->ordinary[i], tier, 50);
}

static uint32_t slot_in(struct traffic *traffic, const struct mv_run *run, uint32_t tier)
{
    struct kvbi_store *store = &traffic->rig.kv->store;
    kvbi_lock_take(&store->lock);
    uint32_t entry = kvbi_store_find_locked(store, run->seqs[0].hash, NULL);
    uint32_t slot = kvbi_index_at(&store->index, entry)->copies[tier];
    kvbi_lock_release(&store->lock);
    return slot;
}

/* Which copy into `tier`, from 1, brought the wanted block. 0: none. */
static uint32_t place_in(struct traffic *traffic, uint32_t tier)
{
    uint32_t slot = slot_in(traffic, &traffic->wanted, tier), place = 0;
    for (uint32_t i = 0; i < traffic->rig.copies.count; i++) {
        place += traffic->rig.copies.list[i].to_tier == tier;
        if (traffic->rig.copies.list[i].to_tier == tier &&
            traffic->rig.copies.list[i].to_slot == slot)
            return place;
    }
    return 0;
}

static void close_traffic(struct traffic *traffic)
{
    for (uint32_t i = 0; i < traffic->op_count; i++)
        kv_ok(kvb_op_release(traffic->rig.kv, traffic->ops[i]));
    kv_poll(&traffic->rig);
    mv_expect_books(&traffic->rig, true);
}

static void test_block_that_is_joined_rises_to_the_joiners_priority(void **state)
{
    struct traffic *traffic = *state;
    open_traffic(traffic, KVB_TIER_HOST);
    start(traffic, &traffic->wanted, KVB_TIER_DEVICE, 0);
    start_ordinary(traffic, KVB_TIER_DEVICE);
    start(traffic, &traffic->wanted, KVB_TIER_DEVICE, 100);
    mv_step(&traffic->rig);
    assert_int_equal(place_in(traffic, KVB_TIER_DEVICE), 1);
    close_traffic(traffic);
}

static void test_block_that_rises_stands_behind_those_of_that_priority(void **state)
{
    struct traffic *traffic = *state;
    open_traffic(traffic, KVB_TIER_HOST);
    start(traffic, &traffic->wanted, KVB_TIER_DEVICE, 0);
    start_ordinary(traffic, KVB_TIER_DEVICE);
    start(traffic, &traffic->wanted, KVB_TIER_DEVICE, 50);
    mv_step(&traffic->rig);
    assert_int_equal(place_in(traffic, KVB_TIER_DEVICE), ORDINARY + 1);
    close_traffic(traffic);
}

static void test_joiner_of_lower_priority_changes_nothing(void **state)
{
    struct traffic *traffic = *state;
    open_traffic(traffic, KVB_TIER_HOST);
    start_ordinary(traffic, KVB_TIER_DEVICE);
    start(traffic, &traffic->wanted, KVB_TIER_DEVICE, 60);
    start(traffic, &traffic->wanted, KVB_TIER_DEVICE, 10);
    mv_step(&traffic->rig);
    assert_int_equal(place_in(traffic, KVB_TIER_DEVICE), 1);
    close_traffic(traffic);
}

/* The urgent one finds the block on its way into HOST, in another's name, and waits for that. */
static void test_hop_raises_the_prefetch_that_it_waits_for(void **state)
{
    struct traffic *traffic = *state;
    open_traffic(traffic, KVB_TIER_DISK);
    start(traffic, &traffic->wanted, KVB_TIER_HOST, 0);
    start_ordinary(traffic, KVB_TIER_HOST);
    start(traffic, &traffic->wanted, KVB_TIER_DEVICE, 100);
    mv_step(&traffic->rig);
    assert_int_equal(place_in(traffic, KVB_TIER_HOST), 1);
    close_traffic(traffic);
}

/* A hop waits for a prefetch into HOST. Who joins the hop raises the prefetch through it. */
static void test_priority_goes_through_a_hop_that_waits_itself(void **state)
{
    struct traffic *traffic = *state;
    open_traffic(traffic, KVB_TIER_DISK);
    start(traffic, &traffic->wanted, KVB_TIER_HOST, 10);
    start(traffic, &traffic->wanted, KVB_TIER_DEVICE, 55);
    start(traffic, &traffic->ordinary[0], KVB_TIER_HOST, 55);
    /* The hop finds the prefetch, which goes behind the other of that priority: the one copy. */
    assert_int_equal(kvb_manager_poll(traffic->rig.kv, 0), 1);
    assert_int_equal(traffic->rig.copies.count, 1);
    for (uint32_t i = 1; i < ORDINARY; i++)
        start(traffic, &traffic->ordinary[i], KVB_TIER_HOST, 60);
    start(traffic, &traffic->wanted, KVB_TIER_DEVICE, 100);
    kv_check(&traffic->rig);
    mv_step(&traffic->rig);
    assert_int_equal(place_in(traffic, KVB_TIER_HOST), 2);
    close_traffic(traffic);
}

/*
 * The carrier is under way when the urgent one joins: what it hands on to is as urgent in its turn.
 */
static void test_second_hop_goes_by_the_priority_of_who_joined_meanwhile(void **state)
{
    struct traffic *traffic = *state;
    open_traffic(traffic, KVB_TIER_DISK);
    start(traffic, &traffic->wanted, KVB_TIER_DEVICE, 10);
    assert_int_equal(kvb_manager_poll(traffic->rig.kv, 0), 1); /* the carrier brings it into HOST */
    struct mv_run below[ORDINARY];
    mv_store_each(&traffic->rig, below, KVB_TIER_HOST, 200, ORDINARY);
    for (uint32_t i = 0; i < ORDINARY; i++) {
        mv_drop(&traffic->rig, &below[i]);
        start(traffic, &below[i], KVB_TIER_DEVICE, 50);
    }
    start(traffic, &traffic->wanted, KVB_TIER_DEVICE, 100);
    mv_step(&traffic->rig);
    assert_in_range(place_in(traffic, KVB_TIER_DEVICE), 1, 2);
    close_traffic(traffic);
}

/*
 * Who joined takes the transfer over from the one who gives up, at the priority that it has by
 * then.
 */
static void test_block_that_is_handed_over_keeps_the_highest_priority(void **state)
{
    struct traffic *traffic = *state;
    open_traffic(traffic, KVB_TIER_HOST);
    struct kvb_op *first = start(traffic, &traffic->wanted, KVB_TIER_DEVICE, 0);
    start_ordinary(traffic, KVB_TIER_DEVICE);
    start(traffic, &traffic->wanted, KVB_TIER_DEVICE, 20);
    start(traffic, &traffic->wanted, KVB_TIER_DEVICE, 100);
    kv_ok(kvb_op_cancel(traffic->rig.kv, first));
    mv_step(&traffic->rig);
    assert_int_equal(place_in(traffic, KVB_TIER_DEVICE), 1);
    close_traffic(traffic);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(traffic, test_block_that_is_joined_rises_to_the_joiners_priority),
        TEST(traffic, test_block_that_rises_stands_behind_those_of_that_priority),
        TEST(traffic, test_joiner_of_lower_priority_changes_nothing),
        TEST(traffic, test_hop_raises_the_prefetch_that_it_waits_for),
        TEST(traffic, test_priority_goes_through_a_hop_that_waits_itself),
        TEST(traffic, test_second_hop_goes_by_the_priority_of_who_joined_meanwhile),
        TEST(traffic, test_block_that_is_handed_over_keeps_the_highest_priority),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
