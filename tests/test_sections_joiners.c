/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much is done under one hold of the lock where thousands wait for one block.
 */
#include "support/crowd.h"

/* CROWD + 1 operations want the same block, which the first one brings up behind fence 1. */
static void join_many(struct crowd *crowd)
{
    struct kvb_fence fence = mv_fence(1);
    crowd_configure(crowd, CROWD + 8, 8, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&crowd->rig);
    crowd_put(crowd, KVB_TIER_HOST, 1, &crowd->source, 1);
    kv_ok(kvb_alloc(crowd->rig.kv, KVB_TIER_DEVICE, CROWD + 1, &fence, crowd->blocks, NULL));
    for (uint32_t i = 0; i <= CROWD; i++) {
        struct kvb_onboard request = {.size = sizeof request,
                                      .sources = &crowd->source,
                                      .targets = &crowd->blocks[i],
                                      .count = 1,
                                      .done = crowd_count_done,
                                      .arg = crowd};
        kv_ok(kvb_onboard(crowd->rig.kv, &request, &crowd->ops[i]));
    }
    kv_poll(&crowd->rig);
    kv_check(&crowd->rig);
    assert_int_equal(crowd->done, 0);
    crowd_forget_holds(crowd);
}

static void test_many_joiners_of_a_block_that_arrives_are_woken_in_short_sections(void **state)
{
    struct crowd *crowd = *state;
    join_many(crowd);
    mv_signal(&crowd->rig, 1);
    kv_poll(&crowd->rig);
    crowd_expect_short_sections(crowd);
    assert_int_equal(crowd->done, CROWD + 1);
    assert_int_equal(crowd->good, CROWD + 1);
    crowd_end(crowd);
}

static void test_many_joiners_of_a_block_that_fails_are_woken_in_short_sections(void **state)
{
    struct crowd *crowd = *state;
    join_many(crowd);
    uint64_t key = 1;
    kv_ok(kvb_invalidate(crowd->rig.kv, &key, 1, NULL));
    crowd_forget_holds(crowd);
    mv_signal(&crowd->rig, 1);
    kv_poll(&crowd->rig);
    crowd_expect_short_sections(crowd);
    assert_int_equal(crowd->done, CROWD + 1);
    assert_int_equal(crowd->good, 0);
    crowd_end(crowd);
}

/* The transfer goes from hand to hand, and the last one orphans it. */
static void test_many_joiners_that_are_cancelled_in_order_are_cut_in_short_sections(void **state)
{
    struct crowd *crowd = *state;
    join_many(crowd);
    for (uint32_t i = 0; i <= CROWD; i++)
        kv_ok(kvb_op_cancel(crowd->rig.kv, crowd->ops[i]));
    kv_poll(&crowd->rig);
    crowd_expect_short_sections(crowd);
    assert_int_equal(crowd->cancelled, CROWD + 1);
    mv_signal(&crowd->rig, 1);
    crowd_end(crowd);
}

/* Cutting all short takes about one step each: that one waits does not make the others dearer. */
static void test_cancelling_joiners_takes_one_step_each(void **state)
{
    struct crowd *crowd = *state;
    join_many(crowd);
    for (uint32_t i = 1; i <= CROWD; i++)
        kv_ok(kvb_op_cancel(crowd->rig.kv, crowd->ops[i]));
    uint32_t rounds = 0;
    while (crowd->cancelled < CROWD && rounds < 10 * CROWD) {
        crowd_poll_once(crowd);
        rounds++;
    }
    crowd_expect_short_sections(crowd);
    assert_true(rounds <= 2 * CROWD / KVBI_LOCK_BATCH + 4);
    mv_signal(&crowd->rig, 1);
    kv_poll(&crowd->rig);
    assert_int_equal(crowd->good, 1);
    crowd_end(crowd);
}

/* One operation that wants one block many times over waits for itself. */
static void test_operation_that_joins_itself_many_times_is_cut_in_short_sections(void **state)
{
    struct crowd *crowd = *state;
    struct kvb_fence fence = mv_fence(1);
    crowd_configure(crowd, CROWD + 8, 8, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&crowd->rig);
    crowd_put(crowd, KVB_TIER_HOST, 1, &crowd->source, 1);
    kv_ok(kvb_alloc(crowd->rig.kv, KVB_TIER_DEVICE, CROWD, &fence, crowd->blocks, NULL));
    struct kvb_block **sources = calloc(CROWD, sizeof(struct kvb_block *));
    for (uint32_t i = 0; i < CROWD; i++)
        sources[i] = crowd->source;
    struct kvb_onboard request = {.size = sizeof request,
                                  .sources = sources,
                                  .targets = crowd->blocks,
                                  .count = CROWD,
                                  .done = crowd_count_done,
                                  .arg = crowd};
    kv_ok(kvb_onboard(crowd->rig.kv, &request, &crowd->ops[0]));
    free(sources);
    kv_poll(&crowd->rig);
    crowd_forget_holds(crowd);
    kv_ok(kvb_op_cancel(crowd->rig.kv, crowd->ops[0]));
    kv_poll(&crowd->rig);
    kv_check(&crowd->rig);
    crowd_expect_short_sections(crowd);
    assert_int_equal(crowd->cancelled, 1);
    assert_int_equal(crowd->good, 0);
    mv_signal(&crowd->rig, 1);
    crowd_end(crowd);
}

/*
 * The block has come, and not all are told yet: it stays, though nobody holds it and room is
 * wanted. What is told later gets it all the same.
 */
static void test_block_stays_until_the_last_of_its_joiners_is_told(void **state)
{
    struct crowd *crowd = *state;
    join_many(crowd);
    mv_signal(&crowd->rig, 1);
    crowd_poll_once(crowd);
    kv_check(&crowd->rig);
    assert_true(crowd->done < CROWD);
    while (crowd->done == 0)
        crowd_poll_once(crowd);
    for (uint32_t i = 0; i < crowd->done; i++) { /* all that was handed out so far goes back */
        kv_ok(kvb_op_release(crowd->rig.kv, crowd->ops[i]));
        crowd->ops[i] = NULL;
    }
    struct kvb_block *others[CROWD];
    uint64_t room = kv_stats(&crowd->rig).tiers[KVB_TIER_DEVICE].available_count;
    assert_true(room < CROWD);
    kv_ok(kvb_alloc(crowd->rig.kv, KVB_TIER_DEVICE, (uint32_t)room, NULL, others, NULL));
    kv_check(&crowd->rig);
    kv_ok(kvb_block_unref(crowd->rig.kv, others, (uint32_t)room, NULL));
    kv_poll(&crowd->rig);
    assert_int_equal(crowd->good, CROWD + 1);
    crowd_end(crowd);
}

/* A block that is forgotten between its arrival and the telling is nobody's result. */
static void test_block_that_is_invalidated_before_its_joiners_are_told_is_a_miss_for_them(
    void **state)
{
    struct crowd *crowd = *state;
    uint64_t key = 1;
    join_many(crowd);
    mv_signal(&crowd->rig, 1);
    while (crowd->done == 0)
        crowd_poll_once(crowd);
    kv_ok(kvb_invalidate(crowd->rig.kv, &key, 1, NULL));
    uint32_t told = crowd->good;
    kv_poll(&crowd->rig);
    kv_check(&crowd->rig);
    assert_int_equal(crowd->done, CROWD + 1);
    assert_true(crowd->good >= told && crowd->good <= told + 3 * KVBI_LOCK_BATCH);
    crowd_end(crowd);
}

/*
 * A slot whose fill has failed is filled well while those of the former fill wait to be told: not
 * for them.
 */
static void test_slot_is_filled_anew_while_joiners_of_its_failed_fill_are_not_told_yet(void **state)
{
    struct crowd *crowd = *state;
    struct kvb_block *taken = NULL, *other = NULL;
    struct kvb_op *again[2];
    uint64_t key = 1;
    uint32_t good = 0;
    join_many(crowd);
    crowd_put(crowd, KVB_TIER_HOST, 2, &other, 1);
    kv_ok(kvb_invalidate(crowd->rig.kv, &key, 1, NULL));
    mv_signal(&crowd->rig, 1);
    while (crowd->done == 0)
        crowd_poll_once(crowd);
    kv_ok(kvb_op_take(crowd->rig.kv, crowd->ops[0], &taken, 1, &good));
    assert_int_equal(good, 0);
    assert_ptr_equal(taken, crowd->blocks[0]);
    struct kvb_fence fence = mv_fence(2);
    struct kvb_onboard request = {
        .size = sizeof request, .sources = &other, .targets = &taken, .count = 1, .fence = &fence};
    kv_ok(kvb_onboard(crowd->rig.kv, &request, &again[0]));
    struct kvb_block *fresh = kv_alloc(&crowd->rig, KVB_TIER_DEVICE);
    request.targets = &fresh;
    kv_ok(kvb_onboard(crowd->rig.kv, &request, &again[1]));
    kv_check(&crowd->rig);
    assert_true(crowd->done < CROWD + 1);
    mv_signal(&crowd->rig, 2);
    crowd_poll_once(crowd);
    kv_check(&crowd->rig);
    assert_true(crowd->done < CROWD + 1);
    kv_poll(&crowd->rig);
    kv_check(&crowd->rig);
    assert_int_equal(crowd->done, CROWD + 1);
    assert_int_equal(crowd->good, 0);
    for (int i = 0; i < 2; i++) {
        kv_ok(kvb_op_take(crowd->rig.kv, again[i], &taken, 1, &good));
        assert_int_equal(good, 1);
        assert_ptr_equal(taken, crowd->blocks[0]);
        kv_unref(&crowd->rig, taken);
        kv_ok(kvb_op_release(crowd->rig.kv, again[i]));
    }
    kv_unref(&crowd->rig, other);
    crowd_end(crowd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(crowd, test_many_joiners_of_a_block_that_arrives_are_woken_in_short_sections),
        TEST(crowd, test_many_joiners_of_a_block_that_fails_are_woken_in_short_sections),
        TEST(crowd, test_many_joiners_that_are_cancelled_in_order_are_cut_in_short_sections),
        TEST(crowd, test_cancelling_joiners_takes_one_step_each),
        TEST(crowd, test_operation_that_joins_itself_many_times_is_cut_in_short_sections),
        TEST(crowd, test_block_stays_until_the_last_of_its_joiners_is_told),
        TEST(crowd, test_block_that_is_invalidated_before_its_joiners_are_told_is_a_miss_for_them),
        TEST(crowd, test_slot_is_filled_anew_while_joiners_of_its_failed_fill_are_not_told_yet),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
