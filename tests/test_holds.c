/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much is done under one hold of the lock, whatever callers did before: thousands who wait for
 * one block, thousands of held blocks on deck, thousands of pinned ones in front of those that can
 * go. Steps are counted (kvbi_testing_longest_hold), never time. The bound is KVBI_LOCK_BATCH
 * wherever one call or round does one kind of thing.
 */
#include "support/move_test.h"

#include <stdlib.h>

#include "api/manager.h"

enum { MANY = 1500 };

struct crowd {
    struct kv_rig rig;
    struct kvb_block *source, *blocks[MANY + 1];
    struct kvb_op *ops[MANY + 1];
    uint32_t done, good, cancelled;
};

static void open_crowd(struct crowd *crowd, uint32_t device_blocks, uint32_t host_blocks,
                       uint32_t trigger)
{
    mv_two_tiers(&crowd->rig, device_blocks, host_blocks, trigger);
    crowd->rig.config.op_capacity = MANY + 3;
    crowd->rig.config.key_bytes = sizeof(uint64_t);
}

/* Registered root blocks, held: the keys are their numbers, from `first` on. */
static void put(struct crowd *crowd, uint32_t tier, uint64_t first, struct kvb_block **blocks,
                uint32_t count)
{
    struct kv_rig *rig = &crowd->rig;
    kv_ok(kvb_alloc(rig->kv, tier, count, NULL, blocks, NULL));
    for (uint32_t i = 0; i < count; i++) {
        uint64_t key = first + i;
        uint32_t tokens[KV_TOKENS];
        struct kvb_block_init init = {.size = sizeof init, .key = &key};
        kv_tokens(tokens, KV_TOKENS, key);
        kv_ok(kvb_block_init(rig->kv, &blocks[i], &init, 1, NULL));
        kv_append(rig, blocks[i], tokens, KV_TOKENS, 0);
        kv_schedule(rig, blocks[i]);
        kv_done(rig, blocks[i], KV_TOKENS);
    }
    kv_ok(kvb_block_register(rig->kv, blocks, count, NULL, NULL, NULL));
}

static void count_done(void *arg, struct kvb_op *op, int status, uint32_t good_count)
{
    struct crowd *crowd = arg;
    (void)op;
    crowd->done++;
    crowd->good += good_count;
    crowd->cancelled += status == KVB_ECANCELED;
}

/* MANY + 1 operations want the same block, which the first one brings up behind fence 1. */
static void join_many(struct crowd *crowd)
{
    struct kvb_fence fence = {.kind = KVB_FENCE_COUNTER, .handle = 1};
    memset(crowd, 0, sizeof *crowd);
    open_crowd(crowd, MANY + 8, 8, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&crowd->rig);
    put(crowd, KVB_TIER_HOST, 1, &crowd->source, 1);
    kv_ok(kvb_alloc(crowd->rig.kv, KVB_TIER_DEVICE, MANY + 1, &fence, crowd->blocks, NULL));
    for (uint32_t i = 0; i <= MANY; i++) {
        struct kvb_onboard request = {.size = sizeof request,
                                      .sources = &crowd->source,
                                      .targets = &crowd->blocks[i],
                                      .count = 1,
                                      .done = count_done,
                                      .arg = crowd};
        kv_ok(kvb_onboard(crowd->rig.kv, &request, &crowd->ops[i]));
    }
    kv_poll(&crowd->rig);
    kv_check(&crowd->rig);
    assert_int_equal(crowd->done, 0);
    (void)kvbi_testing_longest_hold(crowd->rig.kv);
}

static void poll_once(struct crowd *crowd)
{
    assert_in_range(kvb_manager_poll(crowd->rig.kv, 0), 0, 1);
}

static void expect_short_holds(struct crowd *crowd)
{
    uint32_t longest = kvbi_testing_longest_hold(crowd->rig.kv);
    if (longest > KVBI_LOCK_BATCH) {
        fail_msg("%u steps under one hold", longest);
    }
    assert_true(longest > 1); /* something was counted at all */
}

static void close_crowd(struct crowd *crowd)
{
    for (uint32_t i = 0; i <= MANY; i++) {
        if (crowd->ops[i] != NULL) {
            kv_ok(kvb_op_release(crowd->rig.kv, crowd->ops[i]));
        }
    }
    kv_unref(&crowd->rig, crowd->source);
    kv_poll(&crowd->rig);
    mv_expect_books(&crowd->rig, true);
    kv_rig_close(&crowd->rig);
    free(crowd);
}

static struct crowd *new_crowd(void)
{
    struct crowd *crowd = calloc(1, sizeof *crowd);
    assert_non_null(crowd);
    return crowd;
}

/* ---- Who waits for one block ----------------------------------------------------------------- */

static void test_many_joiners_of_a_block_that_arrives_are_woken_in_short_holds(void **state)
{
    (void)state;
    struct crowd *crowd = new_crowd();
    join_many(crowd);
    mv_signal(&crowd->rig, 1);
    kv_poll(&crowd->rig);
    expect_short_holds(crowd);
    assert_int_equal(crowd->done, MANY + 1);
    assert_int_equal(crowd->good, MANY + 1);
    close_crowd(crowd);
}

static void test_many_joiners_of_a_block_that_fails_are_woken_in_short_holds(void **state)
{
    (void)state;
    struct crowd *crowd = new_crowd();
    join_many(crowd);
    uint64_t key = 1;
    kv_ok(kvb_invalidate(crowd->rig.kv, &key, 1, NULL));
    (void)kvbi_testing_longest_hold(crowd->rig.kv);
    mv_signal(&crowd->rig, 1);
    kv_poll(&crowd->rig);
    expect_short_holds(crowd);
    assert_int_equal(crowd->done, MANY + 1);
    assert_int_equal(crowd->good, 0);
    close_crowd(crowd);
}

/* The transfer goes from hand to hand, and the last one orphans it. */
static void test_many_joiners_that_are_cancelled_in_order_are_cut_in_short_holds(void **state)
{
    (void)state;
    struct crowd *crowd = new_crowd();
    join_many(crowd);
    for (uint32_t i = 0; i <= MANY; i++) {
        kv_ok(kvb_op_cancel(crowd->rig.kv, crowd->ops[i]));
    }
    kv_poll(&crowd->rig);
    expect_short_holds(crowd);
    assert_int_equal(crowd->cancelled, MANY + 1);
    mv_signal(&crowd->rig, 1);
    close_crowd(crowd);
}

/* Cutting all short takes about one step each: that one waits does not make the others dearer. */
static void test_cancelling_joiners_takes_one_step_each(void **state)
{
    (void)state;
    struct crowd *crowd = new_crowd();
    join_many(crowd);
    for (uint32_t i = 1; i <= MANY; i++) {
        kv_ok(kvb_op_cancel(crowd->rig.kv, crowd->ops[i]));
    }
    uint32_t rounds = 0;
    while (crowd->cancelled < MANY && rounds < 10 * MANY) {
        poll_once(crowd);
        rounds++;
    }
    expect_short_holds(crowd);
    assert_true(rounds <= 2 * MANY / KVBI_LOCK_BATCH + 4);
    mv_signal(&crowd->rig, 1);
    kv_poll(&crowd->rig);
    assert_int_equal(crowd->good, 1);
    close_crowd(crowd);
}

/* One operation that wants one block many times over waits for itself. */
static void test_operation_that_joins_itself_many_times_is_cut_in_short_holds(void **state)
{
    (void)state;
    struct crowd *crowd = new_crowd();
    struct kvb_fence fence = {.kind = KVB_FENCE_COUNTER, .handle = 1};
    open_crowd(crowd, MANY + 8, 8, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&crowd->rig);
    put(crowd, KVB_TIER_HOST, 1, &crowd->source, 1);
    kv_ok(kvb_alloc(crowd->rig.kv, KVB_TIER_DEVICE, MANY, &fence, crowd->blocks, NULL));
    struct kvb_block **sources = calloc(MANY, sizeof(struct kvb_block *));
    for (uint32_t i = 0; i < MANY; i++) {
        sources[i] = crowd->source;
    }
    struct kvb_onboard request = {.size = sizeof request,
                                  .sources = sources,
                                  .targets = crowd->blocks,
                                  .count = MANY,
                                  .done = count_done,
                                  .arg = crowd};
    kv_ok(kvb_onboard(crowd->rig.kv, &request, &crowd->ops[0]));
    free(sources);
    kv_poll(&crowd->rig);
    (void)kvbi_testing_longest_hold(crowd->rig.kv);
    kv_ok(kvb_op_cancel(crowd->rig.kv, crowd->ops[0]));
    kv_poll(&crowd->rig);
    kv_check(&crowd->rig);
    expect_short_holds(crowd);
    assert_int_equal(crowd->cancelled, 1);
    assert_int_equal(crowd->good, 0);
    mv_signal(&crowd->rig, 1);
    close_crowd(crowd);
}

/*
 * The block has come, and not all are told yet: it stays, though nobody holds it and room is
 * wanted. What is told later gets it all the same.
 */
static void test_block_stays_until_the_last_of_its_joiners_is_told(void **state)
{
    (void)state;
    struct crowd *crowd = new_crowd();
    join_many(crowd);
    mv_signal(&crowd->rig, 1);
    poll_once(crowd);
    kv_check(&crowd->rig);
    assert_true(crowd->done < MANY);
    while (crowd->done == 0) {
        poll_once(crowd);
    }
    for (uint32_t i = 0; i < crowd->done; i++) { /* all that was handed out so far goes back */
        kv_ok(kvb_op_release(crowd->rig.kv, crowd->ops[i]));
        crowd->ops[i] = NULL;
    }
    struct kvb_block *others[MANY];
    uint64_t room = kv_stats(&crowd->rig).tiers[KVB_TIER_DEVICE].available_count;
    assert_true(room < MANY);
    kv_ok(kvb_alloc(crowd->rig.kv, KVB_TIER_DEVICE, (uint32_t)room, NULL, others, NULL));
    kv_check(&crowd->rig);
    kv_ok(kvb_block_unref(crowd->rig.kv, others, (uint32_t)room, NULL));
    kv_poll(&crowd->rig);
    assert_int_equal(crowd->good, MANY + 1);
    close_crowd(crowd);
}

/* A block that is forgotten between its arrival and the telling is nobody's result. */
static void test_block_that_is_invalidated_before_its_joiners_are_told_is_a_miss_for_them(
    void **state)
{
    (void)state;
    struct crowd *crowd = new_crowd();
    uint64_t key = 1;
    join_many(crowd);
    mv_signal(&crowd->rig, 1);
    while (crowd->done == 0) {
        poll_once(crowd);
    }
    kv_ok(kvb_invalidate(crowd->rig.kv, &key, 1, NULL));
    uint32_t told = crowd->good;
    kv_poll(&crowd->rig);
    kv_check(&crowd->rig);
    assert_int_equal(crowd->done, MANY + 1);
    assert_true(crowd->good >= told && crowd->good <= told + 3 * KVBI_LOCK_BATCH);
    close_crowd(crowd);
}

/*
 * A slot whose fill has failed is filled well while those of the former fill wait to be told: not
 * for them.
 */
static void test_slot_is_filled_anew_while_joiners_of_its_failed_fill_are_not_told_yet(void **state)
{
    (void)state;
    struct crowd *crowd = new_crowd();
    struct kvb_block *taken = NULL, *other = NULL;
    struct kvb_op *again[2];
    uint64_t key = 1;
    uint32_t good = 0;
    join_many(crowd);
    put(crowd, KVB_TIER_HOST, 2, &other, 1);
    kv_ok(kvb_invalidate(crowd->rig.kv, &key, 1, NULL));
    mv_signal(&crowd->rig, 1);
    while (crowd->done == 0) {
        poll_once(crowd);
    }
    kv_ok(kvb_op_take(crowd->rig.kv, crowd->ops[0], &taken, 1, &good));
    assert_int_equal(good, 0);
    assert_ptr_equal(taken, crowd->blocks[0]);
    struct kvb_fence fence = {.kind = KVB_FENCE_COUNTER, .handle = 2};
    struct kvb_onboard request = {
        .size = sizeof request, .sources = &other, .targets = &taken, .count = 1, .fence = &fence};
    kv_ok(kvb_onboard(crowd->rig.kv, &request, &again[0]));
    struct kvb_block *fresh = kv_alloc(&crowd->rig, KVB_TIER_DEVICE);
    request.targets = &fresh;
    kv_ok(kvb_onboard(crowd->rig.kv, &request, &again[1]));
    kv_check(&crowd->rig);
    assert_true(crowd->done < MANY + 1);
    mv_signal(&crowd->rig, 2);
    poll_once(crowd);
    kv_check(&crowd->rig);
    assert_true(crowd->done < MANY + 1);
    kv_poll(&crowd->rig);
    kv_check(&crowd->rig);
    assert_int_equal(crowd->done, MANY + 1);
    assert_int_equal(crowd->good, 0);
    for (int i = 0; i < 2; i++) {
        kv_ok(kvb_op_take(crowd->rig.kv, again[i], &taken, 1, &good));
        assert_int_equal(good, 1);
        assert_ptr_equal(taken, crowd->blocks[0]);
        kv_unref(&crowd->rig, taken);
        kv_ok(kvb_op_release(crowd->rig.kv, again[i]));
    }
    kv_unref(&crowd->rig, other);
    close_crowd(crowd);
}

/* ---- Room ------------------------------------------------------------------------------------ */

/*
 * MANY blocks on deck of a lane that stands; all are held but the oldest, which are let go one by
 * one.
 */
static void test_revoking_among_many_held_blocks_on_deck_takes_short_holds(void **state)
{
    (void)state;
    struct crowd *crowd = new_crowd();
    struct kvb_block *one = NULL;
    open_crowd(crowd, MANY, 8, KVB_OFFLOAD_ON_REGISTER);
    mv_bounds(&crowd->rig, 0, MANY, 1, 1, MANY);
    kv_rig_open(&crowd->rig);
    put(crowd, KVB_TIER_DEVICE, 1, crowd->blocks, MANY);
    assert_int_equal(mv_lane(&crowd->rig, KVB_TIER_DEVICE, KVB_TIER_HOST).ondeck, MANY);
    kv_expect(kvb_alloc(crowd->rig.kv, KVB_TIER_DEVICE, 1, NULL, &one, NULL), KVB_ENOSPC);
    for (uint32_t i = 0; i < 20; i++) {
        kv_unref(&crowd->rig, crowd->blocks[i]);
        (void)kvbi_testing_longest_hold(crowd->rig.kv);
        crowd->blocks[i] = kv_alloc(&crowd->rig, KVB_TIER_DEVICE);
        assert_true(kvbi_testing_longest_hold(crowd->rig.kv) <= 8);
    }
    kv_check(&crowd->rig);
    kv_ok(kvb_block_unref(crowd->rig.kv, crowd->blocks, MANY, NULL));
    kv_check(&crowd->rig);
    /* All of them at once: what is revoked, evicted and handed out is looked at a few times. */
    (void)kvbi_testing_longest_hold(crowd->rig.kv);
    kv_ok(kvb_alloc(crowd->rig.kv, KVB_TIER_DEVICE, MANY, NULL, crowd->blocks, NULL));
    assert_true(kvbi_testing_longest_hold(crowd->rig.kv) <= 8 * KVBI_LOCK_BATCH);
    kv_check(&crowd->rig);
    crowd->source = crowd->blocks[MANY - 1];
    kv_ok(kvb_block_unref(crowd->rig.kv, crowd->blocks, MANY - 1, NULL));
    close_crowd(crowd);
}

/* MANY parked blocks in HOST that an operation is to read, behind fence 1: nothing of it moves. */
static void pin_in_host(struct crowd *crowd, struct kvb_block **sources)
{
    struct kvb_fence fence = {.kind = KVB_FENCE_COUNTER, .handle = 1};
    put(crowd, KVB_TIER_HOST, 1, sources, MANY);
    kv_ok(kvb_alloc(crowd->rig.kv, KVB_TIER_DEVICE, MANY, &fence, crowd->blocks, NULL));
    struct kvb_onboard request = {.size = sizeof request,
                                  .sources = sources,
                                  .targets = crowd->blocks,
                                  .count = MANY,
                                  .done = count_done,
                                  .arg = crowd};
    kv_ok(kvb_onboard(crowd->rig.kv, &request, &crowd->ops[0]));
    for (uint32_t i = 0; i < MANY; i++) {
        kv_unref(&crowd->rig, sources[i]);
    }
    kv_poll(&crowd->rig);
    kv_check(&crowd->rig);
}

static void test_alloc_passes_many_pinned_blocks_in_short_holds(void **state)
{
    (void)state;
    struct crowd *crowd = new_crowd();
    struct kvb_block *sources[MANY], *one = NULL, *two[2];
    uint32_t missing = 0;
    open_crowd(crowd, MANY, MANY + 1, KVB_OFFLOAD_MANUAL);
    mv_bounds(&crowd->rig, 0, 8, 1, 1, 8);
    kv_rig_open(&crowd->rig);
    pin_in_host(crowd, sources);
    put(crowd, KVB_TIER_HOST, 6000, &crowd->source, 1);
    kv_unref(&crowd->rig, crowd->source);
    (void)kvbi_testing_longest_hold(crowd->rig.kv);
    kv_expect(kvb_alloc(crowd->rig.kv, KVB_TIER_HOST, 2, NULL, two, &missing), KVB_EAGAIN);
    assert_int_equal(missing, 1);
    kv_ok(kvb_alloc(crowd->rig.kv, KVB_TIER_HOST, 1, NULL, &one, NULL));
    assert_in_range(kvbi_testing_longest_hold(crowd->rig.kv), KVBI_LOCK_BATCH, KVBI_LOCK_BATCH + 4);
    kv_check(&crowd->rig);
    mv_signal(&crowd->rig, 1);
    kv_poll(&crowd->rig);
    assert_int_equal(crowd->good, MANY);
    crowd->source = one;
    close_crowd(crowd);
}

/* A lane down into the tier passes them too, in several holds of one round. */
static void test_lane_passes_many_pinned_blocks_in_short_holds(void **state)
{
    (void)state;
    struct crowd *crowd = new_crowd();
    struct kvb_block *sources[MANY], *down = NULL;
    open_crowd(crowd, MANY + 1, MANY + 1, KVB_OFFLOAD_MANUAL);
    mv_bounds(&crowd->rig, 0, 8, 1, 1, 8);
    kv_rig_open(&crowd->rig);
    put(crowd, KVB_TIER_DEVICE, 5000, &down, 1);
    pin_in_host(crowd, sources);
    put(crowd, KVB_TIER_HOST, 6000, &crowd->source, 1);
    kv_unref(&crowd->rig, crowd->source);
    (void)kvbi_testing_longest_hold(crowd->rig.kv);
    mv_offer(&crowd->rig, down, 50);
    kv_poll(&crowd->rig);
    assert_in_range(kvbi_testing_longest_hold(crowd->rig.kv), KVBI_LOCK_BATCH, KVBI_LOCK_BATCH + 4);
    assert_int_equal(mv_lane(&crowd->rig, KVB_TIER_DEVICE, KVB_TIER_HOST).transferred, 1);
    kv_check(&crowd->rig);
    mv_signal(&crowd->rig, 1);
    crowd->source = down;
    close_crowd(crowd);
}

/* So does a block that needs room in the tier on its way up: rounds go on until it is found. */
static void test_carrier_passes_many_pinned_blocks_in_short_holds(void **state)
{
    (void)state;
    struct crowd *crowd = new_crowd();
    struct kvb_block *sources[MANY], *low = NULL, *target = NULL;
    struct kvb_op *op = NULL;
    open_crowd(crowd, MANY + 1, MANY + 1, KVB_OFFLOAD_MANUAL);
    kv_rig_add_tier(&crowd->rig, KVB_TIER_DISK, 8, KVB_OFFLOAD_MANUAL);
    mv_bounds(&crowd->rig, 0, 8, 1, 1, 8);
    kv_rig_open(&crowd->rig);
    put(crowd, KVB_TIER_DISK, 5000, &low, 1);
    target = kv_alloc(&crowd->rig, KVB_TIER_DEVICE);
    pin_in_host(crowd, sources);
    put(crowd, KVB_TIER_HOST, 6000, &crowd->source, 1);
    kv_unref(&crowd->rig, crowd->source);
    (void)kvbi_testing_longest_hold(crowd->rig.kv);
    struct kvb_onboard request = {
        .size = sizeof request, .sources = &low, .targets = &target, .count = 1};
    kv_ok(kvb_onboard(crowd->rig.kv, &request, &op));
    kv_poll(&crowd->rig);
    assert_in_range(kvbi_testing_longest_hold(crowd->rig.kv), KVBI_LOCK_BATCH, KVBI_LOCK_BATCH + 4);
    assert_int_equal(mv_lane(&crowd->rig, KVB_TIER_DISK, KVB_TIER_HOST).transferred, 1);
    kv_check(&crowd->rig);
    mv_signal(&crowd->rig, 1);
    kv_poll(&crowd->rig);
    kv_ok(kvb_op_release(crowd->rig.kv, op));
    crowd->source = low;
    close_crowd(crowd);
}

/* DEVICE has room for `left` blocks more than MANY + 1, which are registered and held. */
static void open_before_full_deck(struct crowd *crowd, uint32_t left, struct mv_copies *copies)
{
    open_crowd(crowd, MANY + 1 + left, MANY + 8, KVB_OFFLOAD_MANUAL);
    mv_bounds(&crowd->rig, 0, MANY, 4, 2, MANY);
    memset(copies, 0, sizeof *copies);
    copies->hooks =
        (struct kvbi_hooks){.copy_fault = mv_copy_fault, .keeps = true, .context = copies};
    kv_rig_open_hooked(&crowd->rig, &copies->hooks);
    put(crowd, KVB_TIER_DEVICE, 1, &crowd->source, 1);
    put(crowd, KVB_TIER_DEVICE, 2, crowd->blocks, MANY);
}

/* MANY of them are parked and on deck, where they can be revoked once all are passed. */
static void fill_deck(struct crowd *crowd)
{
    kv_ok(kvb_block_offload(crowd->rig.kv, crowd->blocks, MANY, 50, NULL, NULL));
    kv_ok(kvb_block_unref(crowd->rig.kv, crowd->blocks, MANY, NULL));
    kv_check(&crowd->rig);
}

/* The stand-in for a target that is still written comes from behind all that is on deck. */
static void test_operation_that_is_cut_short_finds_a_stand_in_in_short_holds(void **state)
{
    (void)state;
    struct crowd *crowd = new_crowd();
    struct mv_copies copies;
    struct kvb_fence fence = {.kind = KVB_FENCE_COUNTER, .handle = 1};
    struct kvb_block *low = NULL, *target = NULL, *taken = NULL;
    struct kvb_op *op = NULL;
    uint32_t good = 0;
    open_before_full_deck(crowd, 1, &copies);
    put(crowd, KVB_TIER_HOST, 5000, &low, 1);
    target = kv_alloc(&crowd->rig, KVB_TIER_DEVICE);
    struct kvb_onboard request = {
        .size = sizeof request, .sources = &low, .targets = &target, .count = 1, .fence = &fence};
    kv_ok(kvb_onboard(crowd->rig.kv, &request, &op));
    kv_poll(&crowd->rig);
    fill_deck(crowd);
    (void)kvbi_testing_longest_hold(crowd->rig.kv);
    kv_ok(kvb_op_cancel(crowd->rig.kv, op));
    kv_poll(&crowd->rig);
    assert_in_range(kvbi_testing_longest_hold(crowd->rig.kv), KVBI_LOCK_BATCH, 4 * KVBI_LOCK_BATCH);
    kv_check(&crowd->rig);
    kv_ok(kvb_op_take(crowd->rig.kv, op, &taken, 1, &good));
    assert_int_equal(good, 0);
    assert_non_null(taken);
    assert_ptr_not_equal(taken, target);
    kv_unref(&crowd->rig, taken);
    kv_unref(&crowd->rig, low);
    kv_ok(kvb_op_release(crowd->rig.kv, op));
    mv_signal(&crowd->rig, 1);
    close_crowd(crowd);
}

/* So does the one for a block that has come behind one that has not, and that others share. */
static void test_take_finds_a_stand_in_for_a_shared_block_in_short_holds(void **state)
{
    (void)state;
    struct crowd *crowd = new_crowd();
    struct mv_copies copies;
    struct kvb_block *low[2], *targets[3], *taken[2], *joined = NULL;
    struct kvb_op *op = NULL, *joiner = NULL;
    uint32_t good = 0;
    open_before_full_deck(crowd, 3, &copies);
    put(crowd, KVB_TIER_HOST, 5000, low, 2);
    kv_ok(kvb_alloc(crowd->rig.kv, KVB_TIER_DEVICE, 3, NULL, targets, NULL));
    struct kvb_onboard request = {
        .size = sizeof request, .sources = low, .targets = targets, .count = 2};
    kv_ok(kvb_onboard(crowd->rig.kv, &request, &op));
    request = (struct kvb_onboard){
        .size = sizeof request, .sources = &low[1], .targets = &targets[2], .count = 1};
    kv_ok(kvb_onboard(crowd->rig.kv, &request, &joiner));
    mv_fail(&copies, 1, false); /* the first of the two */
    kv_poll(&crowd->rig);
    kv_ok(kvb_op_take(crowd->rig.kv, joiner, &joined, 1, &good));
    assert_int_equal(good, 1);
    assert_ptr_equal(joined, targets[1]);
    struct kvb_block *last = kv_alloc(&crowd->rig, KVB_TIER_DEVICE); /* the joiner's own target */
    fill_deck(crowd);
    (void)kvbi_testing_longest_hold(crowd->rig.kv);
    kv_ok(kvb_op_take(crowd->rig.kv, op, taken, 2, &good));
    assert_in_range(kvbi_testing_longest_hold(crowd->rig.kv), KVBI_LOCK_BATCH, 4 * KVBI_LOCK_BATCH);
    assert_int_equal(good, 0);
    assert_ptr_equal(taken[0], targets[0]);
    assert_non_null(taken[1]);
    assert_ptr_not_equal(taken[1], targets[1]);
    kv_check(&crowd->rig);
    kv_ok(kvb_block_unref(crowd->rig.kv, taken, 2, NULL));
    kv_ok(kvb_block_unref(crowd->rig.kv, low, 2, NULL));
    kv_unref(&crowd->rig, joined);
    kv_unref(&crowd->rig, last);
    kv_ok(kvb_op_release(crowd->rig.kv, op));
    kv_ok(kvb_op_release(crowd->rig.kv, joiner));
    mv_signal(&crowd->rig, 1);
    close_crowd(crowd);
}

/* ---- Destroy --------------------------------------------------------------------------------- */

struct last_words {
    struct crowd *crowd;
    uint32_t calls, longest;
};

/* Runs within destroy: what it has done so far is still to be asked for. */
static void ask_longest(void *arg, struct kvb_op *op, int status, uint32_t good_count)
{
    struct last_words *words = arg;
    (void)op;
    (void)good_count;
    assert_true(status == KVB_ECANCELED || status == 0); /* what is moving may end well */
    uint32_t longest = kvbi_testing_longest_hold(words->crowd->rig.kv);
    words->longest = longest > words->longest ? longest : words->longest;
    words->calls++;
}

static void test_destroy_ends_many_offers_and_operations_in_short_holds(void **state)
{
    (void)state;
    struct crowd *crowd = new_crowd();
    struct mv_copies copies;
    struct last_words words = {.crowd = crowd};
    struct kvb_block *targets[MANY], *low = NULL;
    struct kvb_op *op = NULL;
    open_before_full_deck(crowd, MANY, &copies);
    put(crowd, KVB_TIER_HOST, 5000, &low, 1);
    struct kvb_fence fence = {.kind = KVB_FENCE_COUNTER, .handle = 1};
    kv_ok(kvb_alloc(crowd->rig.kv, KVB_TIER_DEVICE, MANY, &fence, targets, NULL));
    for (uint32_t i = 0; i < MANY; i++) {
        struct kvb_onboard request = {.size = sizeof request,
                                      .sources = &low,
                                      .targets = &targets[i],
                                      .count = 1,
                                      .done = ask_longest,
                                      .arg = &words};
        kv_ok(kvb_onboard(crowd->rig.kv, &request, &op));
    }
    kv_unref(&crowd->rig, low);
    kv_unref(&crowd->rig, crowd->source);
    kv_poll(&crowd->rig);
    fill_deck(crowd);
    assert_int_equal(words.calls, 0);
    assert_int_equal(mv_lane(&crowd->rig, KVB_TIER_DEVICE, KVB_TIER_HOST).pending, MANY);
    (void)kvbi_testing_longest_hold(crowd->rig.kv);
    kv_rig_close(&crowd->rig);
    assert_int_equal(words.calls, MANY);
    assert_in_range(words.longest, KVBI_LOCK_BATCH, 2 * KVBI_LOCK_BATCH);
    free(crowd);
}

/* MANY retentions have ended, and nobody has looked since. */
static void test_alloc_deals_with_many_ended_retentions_in_short_holds(void **state)
{
    (void)state;
    struct crowd *crowd = new_crowd();
    struct kvb_block *taken[2 * KVBI_LOCK_BATCH];
    for (uint32_t priority = 0; priority <= KVB_PRIORITY_MAX; priority += KVB_PRIORITY_MAX) {
        memset(crowd, 0, sizeof *crowd);
        open_crowd(crowd, MANY + 1, 8, KVB_OFFLOAD_MANUAL);
        kv_rig_open(&crowd->rig);
        put(crowd, KVB_TIER_DEVICE, 1, crowd->blocks, MANY + 1);
        kv_ok(
            kvb_block_set_priority(crowd->rig.kv, crowd->blocks, MANY, priority, KV_SECOND, NULL));
        kv_ok(kvb_block_unref(crowd->rig.kv, crowd->blocks, MANY + 1, NULL));
        kv_advance(&crowd->rig, 2 * KV_SECOND);
        (void)kvbi_testing_longest_hold(crowd->rig.kv);
        kv_ok(kvb_alloc(crowd->rig.kv, KVB_TIER_DEVICE, 2 * KVBI_LOCK_BATCH, NULL, taken, NULL));
        assert_in_range(kvbi_testing_longest_hold(crowd->rig.kv), KVBI_LOCK_BATCH,
                        4 * KVBI_LOCK_BATCH);
        kv_check(&crowd->rig);
        kv_ok(kvb_block_unref(crowd->rig.kv, taken, 2 * KVBI_LOCK_BATCH, NULL));
        kv_rig_close(&crowd->rig);
    }
    free(crowd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_joiners_of_a_block_that_arrives_are_woken_in_short_holds),
        cmocka_unit_test(test_many_joiners_of_a_block_that_fails_are_woken_in_short_holds),
        cmocka_unit_test(test_many_joiners_that_are_cancelled_in_order_are_cut_in_short_holds),
        cmocka_unit_test(test_cancelling_joiners_takes_one_step_each),
        cmocka_unit_test(test_operation_that_joins_itself_many_times_is_cut_in_short_holds),
        cmocka_unit_test(test_block_stays_until_the_last_of_its_joiners_is_told),
        cmocka_unit_test(
            test_block_that_is_invalidated_before_its_joiners_are_told_is_a_miss_for_them),
        cmocka_unit_test(
            test_slot_is_filled_anew_while_joiners_of_its_failed_fill_are_not_told_yet),
        cmocka_unit_test(test_revoking_among_many_held_blocks_on_deck_takes_short_holds),
        cmocka_unit_test(test_alloc_passes_many_pinned_blocks_in_short_holds),
        cmocka_unit_test(test_lane_passes_many_pinned_blocks_in_short_holds),
        cmocka_unit_test(test_carrier_passes_many_pinned_blocks_in_short_holds),
        cmocka_unit_test(test_operation_that_is_cut_short_finds_a_stand_in_in_short_holds),
        cmocka_unit_test(test_take_finds_a_stand_in_for_a_shared_block_in_short_holds),
        cmocka_unit_test(test_destroy_ends_many_offers_and_operations_in_short_holds),
        cmocka_unit_test(test_alloc_deals_with_many_ended_retentions_in_short_holds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
