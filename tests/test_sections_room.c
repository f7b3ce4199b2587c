/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much is done under one hold of the lock where thousands of held blocks are on deck, or
 * thousands of pinned ones are in front of those that can go; and in destroy.
 */
#include "support/crowd.h"

/* ---- Room ------------------------------------------------------------------------------------ */

/*
 * CROWD blocks on deck of a lane that stands; all are held but the oldest, which are let go one by
 * one.
 */
static void test_revoking_among_many_held_blocks_on_deck_takes_short_sections(void **state)
{
    struct crowd *crowd = *state;
    struct kvb_block *one = NULL;
    crowd_configure(crowd, CROWD, 8, KVB_OFFLOAD_ON_REGISTER);
    mv_bounds(&crowd->rig, 0, CROWD, 1, 1, CROWD);
    kv_rig_open(&crowd->rig);
    crowd_put(crowd, KVB_TIER_DEVICE, 1, crowd->blocks, CROWD);
    assert_int_equal(mv_down(&crowd->rig).ondeck, CROWD);
    kv_expect(kvb_alloc(crowd->rig.kv, KVB_TIER_DEVICE, 1, NULL, &one, NULL), KVB_ENOSPC);
    for (uint32_t i = 0; i < 20; i++) {
        kv_unref(&crowd->rig, crowd->blocks[i]);
        crowd_forget_holds(crowd);
        crowd->blocks[i] = kv_alloc(&crowd->rig, KVB_TIER_DEVICE);
        assert_true(crowd_longest_hold(crowd) <= 8);
    }
    kv_check(&crowd->rig);
    kv_ok(kvb_block_unref(crowd->rig.kv, crowd->blocks, CROWD, NULL));
    kv_check(&crowd->rig);
    /* All of them at once: what is revoked, evicted and handed out is looked at a few times. */
    crowd_forget_holds(crowd);
    kv_ok(kvb_alloc(crowd->rig.kv, KVB_TIER_DEVICE, CROWD, NULL, crowd->blocks, NULL));
    assert_true(crowd_longest_hold(crowd) <= 8 * KVBI_LOCK_BATCH);
    kv_check(&crowd->rig);
    crowd->source = crowd->blocks[CROWD - 1];
    kv_ok(kvb_block_unref(crowd->rig.kv, crowd->blocks, CROWD - 1, NULL));
    crowd_end(crowd);
}

/*
 * One parked block in HOST that can go, behind CROWD that an operation is to read: it waits for
 * fence 1, and nothing of it moves.
 */
static void park_behind_pinned(struct crowd *crowd)
{
    static struct kvb_block *sources[CROWD];
    struct kvb_fence fence = mv_fence(1);
    crowd_put(crowd, KVB_TIER_HOST, 1, sources, CROWD);
    kv_ok(kvb_alloc(crowd->rig.kv, KVB_TIER_DEVICE, CROWD, &fence, crowd->blocks, NULL));
    struct kvb_onboard request = {.size = sizeof request,
                                  .sources = sources,
                                  .targets = crowd->blocks,
                                  .count = CROWD,
                                  .done = crowd_count_done,
                                  .arg = crowd};
    kv_ok(kvb_onboard(crowd->rig.kv, &request, &crowd->ops[0]));
    for (uint32_t i = 0; i < CROWD; i++)
        kv_unref(&crowd->rig, sources[i]);
    kv_poll(&crowd->rig);
    kv_check(&crowd->rig);
    crowd_put(crowd, KVB_TIER_HOST, 6000, &crowd->source, 1);
    kv_unref(&crowd->rig, crowd->source);
    crowd_forget_holds(crowd);
}

static void test_alloc_passes_many_blocks_that_are_held_in_short_sections(void **state)
{
    struct crowd *crowd = *state;
    struct kvb_block *one = NULL, *two[2];
    uint32_t missing = 0;
    crowd_configure(crowd, CROWD, CROWD + 1, KVB_OFFLOAD_MANUAL);
    mv_bounds(&crowd->rig, 0, 8, 1, 1, 8);
    kv_rig_open(&crowd->rig);
    park_behind_pinned(crowd);
    kv_expect(kvb_alloc(crowd->rig.kv, KVB_TIER_HOST, 2, NULL, two, &missing), KVB_EAGAIN);
    assert_int_equal(missing, 1);
    kv_ok(kvb_alloc(crowd->rig.kv, KVB_TIER_HOST, 1, NULL, &one, NULL));
    assert_in_range(crowd_longest_hold(crowd), KVBI_LOCK_BATCH, KVBI_LOCK_BATCH + 4);
    kv_check(&crowd->rig);
    mv_signal(&crowd->rig, 1);
    kv_poll(&crowd->rig);
    assert_int_equal(crowd->good, CROWD);
    crowd->source = one;
    crowd_end(crowd);
}

/* A lane down into the tier passes them too, in several sections of one round. */
static void test_lane_passes_many_blocks_that_are_held_in_short_sections(void **state)
{
    struct crowd *crowd = *state;
    struct kvb_block *down = NULL;
    crowd_configure(crowd, CROWD + 1, CROWD + 1, KVB_OFFLOAD_MANUAL);
    mv_bounds(&crowd->rig, 0, 8, 1, 1, 8);
    kv_rig_open(&crowd->rig);
    crowd_put(crowd, KVB_TIER_DEVICE, 5000, &down, 1);
    park_behind_pinned(crowd);
    mv_offer(&crowd->rig, down, 50);
    kv_poll(&crowd->rig);
    assert_in_range(crowd_longest_hold(crowd), KVBI_LOCK_BATCH, KVBI_LOCK_BATCH + 4);
    assert_int_equal(mv_down(&crowd->rig).transferred, 1);
    kv_check(&crowd->rig);
    mv_signal(&crowd->rig, 1);
    crowd->source = down;
    crowd_end(crowd);
}

/* So does a block that needs room in the tier on its way up: rounds go on until it is found. */
static void test_carrier_passes_many_blocks_that_are_held_in_short_sections(void **state)
{
    struct crowd *crowd = *state;
    struct kvb_block *low = NULL, *target = NULL;
    struct kvb_op *op = NULL;
    crowd_configure(crowd, CROWD + 1, CROWD + 1, KVB_OFFLOAD_MANUAL);
    kv_rig_add_tier(&crowd->rig, KVB_TIER_DISK, 8, KVB_OFFLOAD_MANUAL);
    mv_bounds(&crowd->rig, 0, 8, 1, 1, 8);
    kv_rig_open(&crowd->rig);
    crowd_put(crowd, KVB_TIER_DISK, 5000, &low, 1);
    target = kv_alloc(&crowd->rig, KVB_TIER_DEVICE);
    park_behind_pinned(crowd);
    struct kvb_onboard request = {
        .size = sizeof request, .sources = &low, .targets = &target, .count = 1};
    kv_ok(kvb_onboard(crowd->rig.kv, &request, &op));
    kv_poll(&crowd->rig);
    assert_in_range(crowd_longest_hold(crowd), KVBI_LOCK_BATCH, KVBI_LOCK_BATCH + 4);
    assert_int_equal(mv_lane(&crowd->rig, KVB_TIER_DISK, KVB_TIER_HOST).transferred, 1);
    kv_check(&crowd->rig);
    mv_signal(&crowd->rig, 1);
    kv_poll(&crowd->rig);
    kv_ok(kvb_op_release(crowd->rig.kv, op));
    crowd->source = low;
    crowd_end(crowd);
}

/* DEVICE has room for `left` blocks more than CROWD + 1, which are registered and held. */
static void open_before_full_deck(struct crowd *crowd, uint32_t left)
{
    crowd_configure(crowd, CROWD + 1 + left, CROWD + 8, KVB_OFFLOAD_MANUAL);
    mv_bounds(&crowd->rig, 0, CROWD, 4, 2, CROWD);
    mv_open_recorded(&crowd->rig);
    crowd->rig.hooks.keeps = true;
    crowd_put(crowd, KVB_TIER_DEVICE, 1, &crowd->source, 1);
    crowd_put(crowd, KVB_TIER_DEVICE, 2, crowd->blocks, CROWD);
}

/* CROWD of them are parked and on deck, where they can be revoked once all are passed. */
static void fill_deck(struct crowd *crowd)
{
    kv_ok(kvb_block_offload(crowd->rig.kv, crowd->blocks, CROWD, 50, NULL, NULL));
    kv_ok(kvb_block_unref(crowd->rig.kv, crowd->blocks, CROWD, NULL));
    kv_check(&crowd->rig);
}

/* The stand-in for a target that is still written comes from behind all that is on deck. */
static void test_operation_that_is_cut_short_finds_a_stand_in_in_short_sections(void **state)
{
    struct crowd *crowd = *state;
    struct kvb_fence fence = mv_fence(1);
    struct kvb_block *low = NULL, *target = NULL, *taken = NULL;
    struct kvb_op *op = NULL;
    uint32_t good = 0;
    open_before_full_deck(crowd, 1);
    crowd_put(crowd, KVB_TIER_HOST, 5000, &low, 1);
    target = kv_alloc(&crowd->rig, KVB_TIER_DEVICE);
    struct kvb_onboard request = {
        .size = sizeof request, .sources = &low, .targets = &target, .count = 1, .fence = &fence};
    kv_ok(kvb_onboard(crowd->rig.kv, &request, &op));
    kv_poll(&crowd->rig);
    fill_deck(crowd);
    crowd_forget_holds(crowd);
    kv_ok(kvb_op_cancel(crowd->rig.kv, op));
    kv_poll(&crowd->rig);
    assert_in_range(crowd_longest_hold(crowd), KVBI_LOCK_BATCH, 4 * KVBI_LOCK_BATCH);
    kv_check(&crowd->rig);
    kv_ok(kvb_op_take(crowd->rig.kv, op, &taken, 1, &good));
    assert_int_equal(good, 0);
    assert_non_null(taken);
    assert_ptr_not_equal(taken, target);
    kv_unref(&crowd->rig, taken);
    kv_unref(&crowd->rig, low);
    kv_ok(kvb_op_release(crowd->rig.kv, op));
    mv_signal(&crowd->rig, 1);
    crowd_end(crowd);
}

/* So does the one for a block that has come behind one that has not, and that others share. */
static void test_take_finds_a_stand_in_for_a_shared_block_in_short_sections(void **state)
{
    struct crowd *crowd = *state;
    struct kvb_block *low[2], *targets[3], *taken[2], *joined = NULL;
    struct kvb_op *op = NULL, *joiner = NULL;
    uint32_t good = 0;
    open_before_full_deck(crowd, 3);
    crowd_put(crowd, KVB_TIER_HOST, 5000, low, 2);
    kv_ok(kvb_alloc(crowd->rig.kv, KVB_TIER_DEVICE, 3, NULL, targets, NULL));
    struct kvb_onboard request = {
        .size = sizeof request, .sources = low, .targets = targets, .count = 2};
    kv_ok(kvb_onboard(crowd->rig.kv, &request, &op));
    request = (struct kvb_onboard){
        .size = sizeof request, .sources = &low[1], .targets = &targets[2], .count = 1};
    kv_ok(kvb_onboard(crowd->rig.kv, &request, &joiner));
    mv_fail(&crowd->rig.copies, 1, false); /* the first of the two */
    kv_poll(&crowd->rig);
    kv_ok(kvb_op_take(crowd->rig.kv, joiner, &joined, 1, &good));
    assert_int_equal(good, 1);
    assert_ptr_equal(joined, targets[1]);
    struct kvb_block *last = kv_alloc(&crowd->rig, KVB_TIER_DEVICE); /* the joiner's own target */
    fill_deck(crowd);
    crowd_forget_holds(crowd);
    kv_ok(kvb_op_take(crowd->rig.kv, op, taken, 2, &good));
    assert_in_range(crowd_longest_hold(crowd), KVBI_LOCK_BATCH, 4 * KVBI_LOCK_BATCH);
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
    crowd_end(crowd);
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
    uint32_t longest = kvbi_testing_longest_section(words->crowd->rig.kv);
    words->longest = longest > words->longest ? longest : words->longest;
    words->calls++;
}

static void test_destroy_ends_many_offers_and_operations_in_short_sections(void **state)
{
    struct crowd *crowd = *state;
    struct last_words words = {.crowd = crowd};
    struct kvb_block *targets[CROWD], *low = NULL;
    struct kvb_op *op = NULL;
    open_before_full_deck(crowd, CROWD);
    crowd_put(crowd, KVB_TIER_HOST, 5000, &low, 1);
    struct kvb_fence fence = mv_fence(1);
    kv_ok(kvb_alloc(crowd->rig.kv, KVB_TIER_DEVICE, CROWD, &fence, targets, NULL));
    for (uint32_t i = 0; i < CROWD; i++) {
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
    assert_int_equal(mv_down(&crowd->rig).pending, CROWD);
    crowd_forget_holds(crowd);
    kv_rig_close(&crowd->rig);
    assert_int_equal(words.calls, CROWD);
    assert_in_range(words.longest, KVBI_LOCK_BATCH, 2 * KVBI_LOCK_BATCH);
}

/* CROWD retentions have ended, and nobody has looked since. */
static void test_alloc_deals_with_many_ended_retentions_in_short_sections(void **state)
{
    struct crowd *crowd = *state;
    struct kvb_block *taken[2 * KVBI_LOCK_BATCH];
    for (uint32_t priority = 0; priority <= KVB_PRIORITY_MAX; priority += KVB_PRIORITY_MAX) {
        crowd_configure(crowd, CROWD + 1, 8, KVB_OFFLOAD_MANUAL);
        kv_rig_open(&crowd->rig);
        crowd_put(crowd, KVB_TIER_DEVICE, 1, crowd->blocks, CROWD + 1);
        kv_ok(
            kvb_block_set_priority(crowd->rig.kv, crowd->blocks, CROWD, priority, KV_SECOND, NULL));
        kv_ok(kvb_block_unref(crowd->rig.kv, crowd->blocks, CROWD + 1, NULL));
        kv_advance(&crowd->rig, 2 * KV_SECOND);
        crowd_forget_holds(crowd);
        kv_ok(kvb_alloc(crowd->rig.kv, KVB_TIER_DEVICE, 2 * KVBI_LOCK_BATCH, NULL, taken, NULL));
        assert_in_range(crowd_longest_hold(crowd), KVBI_LOCK_BATCH, 4 * KVBI_LOCK_BATCH);
        kv_check(&crowd->rig);
        kv_ok(kvb_block_unref(crowd->rig.kv, taken, 2 * KVBI_LOCK_BATCH, NULL));
        kv_rig_close(&crowd->rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(crowd, test_revoking_among_many_held_blocks_on_deck_takes_short_sections),
        TEST(crowd, test_alloc_passes_many_blocks_that_are_held_in_short_sections),
        TEST(crowd, test_lane_passes_many_blocks_that_are_held_in_short_sections),
        TEST(crowd, test_carrier_passes_many_blocks_that_are_held_in_short_sections),
        TEST(crowd, test_operation_that_is_cut_short_finds_a_stand_in_in_short_sections),
        TEST(crowd, test_take_finds_a_stand_in_for_a_shared_block_in_short_sections),
        TEST(crowd, test_destroy_ends_many_offers_and_operations_in_short_sections),
        TEST(crowd, test_alloc_deals_with_many_ended_retentions_in_short_sections),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
