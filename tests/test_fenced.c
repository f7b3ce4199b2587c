/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What waits for a fence takes no place from what is ready: in the in-queue, on deck, with the
 * engine, in the tiers. And whatever ends such a wait: the fence, a cancel, a deadline, a newer
 * content, destroy.
 */
#include "support/give_up.h"
#include "support/kv_wait.h"
#include "support/move_test.h"

#include <sched.h>
#include <time.h>

#include "api/manager.h"

#define FENCE 9
#define MANY 12

static struct kvb_lane_stats down(struct kv_rig *rig)
{
    return mv_lane(rig, KVB_TIER_DEVICE, KVB_TIER_HOST);
}

static struct kvb_lane_stats up(struct kv_rig *rig)
{
    return mv_lane(rig, KVB_TIER_HOST, KVB_TIER_DEVICE);
}

/*
 * A content of one block each, registered after `fence_value` (0: ready), offered. The caller holds
 * them.
 */
static void offer_each(struct kv_rig *rig, struct mv_run *runs, uint64_t seed, uint32_t count,
                       uint64_t fence_value, uint32_t priority)
{
    for (uint32_t i = 0; i < count; i++) {
        mv_store_after(rig, &runs[i], KVB_TIER_DEVICE, seed * 1000 + i, 1, fence_value);
        mv_offer(rig, runs[i].blocks[0], priority);
    }
}

static void drop_each(struct kv_rig *rig, struct mv_run *runs, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        mv_drop(rig, &runs[i]);
}

static struct kvb_block *alloc_after(struct kv_rig *rig, uint32_t tier, uint64_t fence_value)
{
    struct kvb_fence fence = {.kind = KVB_FENCE_COUNTER, .handle = fence_value};
    struct kvb_block *block = NULL;
    kv_ok(kvb_alloc(rig->kv, tier, 1, &fence, &block, NULL));
    return block;
}

/* One content, held nowhere, on its way into a block of `tier` that is free since `fence_value`. */
static struct kvb_op *start(struct kv_rig *rig, struct mv_run *run, uint32_t tier,
                            uint64_t fence_value, uint32_t priority, struct mv_done *done)
{
    struct kvb_op *op = NULL;
    struct kvb_block *target = alloc_after(rig, tier, fence_value);
    assert_int_equal(mv_match(rig, run), 1);
    struct kvb_onboard request = mv_request(run->blocks, &target, 1, done);
    request.flags = KVB_ONBOARD_PRIORITY;
    request.priority = priority;
    kv_ok(kvb_onboard(rig->kv, &request, &op));
    mv_drop(rig, run);
    return op;
}

static void end(struct kv_rig *rig, struct mv_run *run, struct kvb_op *op, uint32_t good)
{
    assert_int_equal(mv_take(rig, run, op), good);
    mv_drop_taken(rig, run);
}

/* Where a content is, whose bytes are right. */
static void expect_each_in(struct kv_rig *rig, struct mv_run *runs, uint32_t count, uint32_t tier)
{
    for (uint32_t i = 0; i < count; i++)
        mv_expect_in(rig, &runs[i], tier);
}

/* ---- Places ---------------------------------------------------------------------------------- */

/* A lane full of offers behind a fence, of the highest priority, and a ready one of the lowest. */
static void pass_by_down(uint32_t ondeck, uint32_t batch, uint32_t depth)
{
    struct kv_rig rig;
    struct mv_run late[MANY], ready;
    mv_two_tiers(&rig, MANY + 1, MANY + 1, KVB_OFFLOAD_MANUAL);
    mv_bounds(&rig, 0, ondeck, batch, depth, 64);
    kv_rig_open(&rig);
    offer_each(&rig, late, 1, MANY, FENCE, 100);
    mv_step(&rig);
    assert_int_equal(down(&rig).inflight, batch * depth / 2);
    assert_int_equal(down(&rig).ondeck, 0);
    assert_int_equal(down(&rig).pending, MANY);
    offer_each(&rig, &ready, 2, 1, 0, 0);
    mv_step(&rig);
    assert_int_equal(down(&rig).transferred, 1);
    assert_int_equal(down(&rig).pending, MANY);
    kv_expect(kvb_manager_flush(rig.kv, 0), KVB_ETIMEDOUT);
    mv_signal(&rig, FENCE);
    mv_step(&rig);
    assert_int_equal(down(&rig).transferred, MANY + 1);
    drop_each(&rig, late, MANY);
    mv_drop(&rig, &ready);
    mv_evict_all(&rig, KVB_TIER_DEVICE);
    expect_each_in(&rig, late, MANY, KVB_TIER_HOST);
    mv_expect_in(&rig, &ready, KVB_TIER_HOST);
    mv_expect_books(&rig, true);
    kv_rig_close(&rig);
}

static void test_ready_offer_passes_a_lane_full_of_others_that_are_not(void **state)
{
    (void)state;
    pass_by_down(8, 2, 2);
}

static void test_ready_offer_passes_where_the_engine_has_one_place(void **state)
{
    (void)state;
    pass_by_down(1, 1, 1);
}

static void pass_by_up(uint32_t batch, uint32_t depth)
{
    struct kv_rig rig;
    struct mv_run late[MANY], ready;
    struct mv_done dones[MANY], done;
    struct kvb_op *ops[MANY];
    mv_two_tiers(&rig, MANY + 1, MANY + 1, KVB_OFFLOAD_MANUAL);
    mv_bounds(&rig, 0, 1, batch, depth, 64);
    rig.config.op_capacity = MANY + 1;
    kv_rig_open(&rig);
    for (uint32_t i = 0; i < MANY; i++) {
        mv_park(&rig, &late[i], KVB_TIER_HOST, 1000 + i, 1);
        ops[i] = start(&rig, &late[i], KVB_TIER_DEVICE, FENCE, 100, &dones[i]);
    }
    mv_step(&rig);
    assert_int_equal(up(&rig).inflight, batch * depth / 2);
    assert_int_equal(up(&rig).pending, MANY);
    mv_park(&rig, &ready, KVB_TIER_HOST, 2, 1);
    struct kvb_op *op = start(&rig, &ready, KVB_TIER_DEVICE, 0, 0, &done);
    mv_step(&rig);
    assert_int_equal(done.calls, 1);
    assert_int_equal(up(&rig).pending, MANY);
    kv_expect(kvb_manager_flush(rig.kv, 0), KVB_ETIMEDOUT);
    mv_signal(&rig, FENCE);
    mv_step(&rig);
    for (uint32_t i = 0; i < MANY; i++) {
        assert_int_equal(dones[i].calls, 1);
        end(&rig, &late[i], ops[i], 1);
    }
    end(&rig, &ready, op, 1);
    mv_expect_books(&rig, true);
    kv_rig_close(&rig);
}

static void test_ready_block_on_its_way_up_passes_others_that_are_not(void **state)
{
    (void)state;
    pass_by_up(2, 2);
}

static void test_ready_block_on_its_way_up_passes_where_the_engine_has_one_place(void **state)
{
    (void)state;
    pass_by_up(1, 1);
}

static void test_each_fence_lets_go_of_its_own(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run runs[3][2];
    mv_two_tiers(&rig, 6, 6, KVB_OFFLOAD_MANUAL);
    mv_bounds(&rig, 0, 1, 1, 1, 64);
    kv_rig_open(&rig);
    offer_each(&rig, runs[2], 3, 2, 30, 50);
    offer_each(&rig, runs[0], 1, 2, 10, 50);
    offer_each(&rig, runs[1], 2, 2, 20, 50);
    for (uint64_t n = 0; n < 3; n++) {
        mv_signal(&rig, 10 * (n + 1) - 1);
        mv_step(&rig);
        assert_int_equal(down(&rig).transferred, 2 * n);
        mv_signal(&rig, 10 * (n + 1));
        mv_step(&rig);
        assert_int_equal(down(&rig).transferred, 2 * (n + 1));
        drop_each(&rig, runs[n], 2);
    }
    mv_expect_books(&rig, true);
    kv_rig_close(&rig);
}

/* The value that a counter can have at most is a fence as any other. */
static void test_last_value_of_the_counter_is_a_fence_too(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    mv_two_tiers(&rig, 2, 2, KVB_OFFLOAD_MANUAL);
    mv_bounds(&rig, 0, 1, 1, 1, 64);
    kv_rig_open(&rig);
    if (kv_device_is_cuda()) { /* there it is not */
        kv_rig_close(&rig);
        return;
    }
    offer_each(&rig, &run, 1, 1, UINT64_MAX, 50);
    mv_signal(&rig, UINT64_MAX - 1);
    mv_step(&rig);
    assert_int_equal(down(&rig).pending, 1);
    mv_signal(&rig, UINT64_MAX);
    mv_step(&rig);
    assert_int_equal(down(&rig).transferred, 1);
    mv_drop(&rig, &run);
    kv_rig_close(&rig);
}

/* More than one hold of the lock looks at. */
static void test_many_offers_behind_one_fence_all_come_up(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run runs[3];
    mv_two_tiers(&rig, 192, 192, KVB_OFFLOAD_MANUAL);
    mv_bounds(&rig, 0, 1, 1, 1, 256);
    kv_rig_open(&rig);
    for (uint32_t i = 0; i < 3; i++) {
        mv_store_after(&rig, &runs[i], KVB_TIER_DEVICE, i + 1, 64, FENCE + i % 2);
        kv_ok(kvb_block_offload(rig.kv, runs[i].blocks, 64, 10 * i, NULL, NULL));
    }
    mv_step(&rig);
    assert_int_equal(down(&rig).queued, 192);
    mv_signal(&rig, FENCE);
    mv_step(&rig);
    assert_int_equal(down(&rig).transferred, 128);
    mv_signal(&rig, FENCE + 1);
    mv_step(&rig);
    assert_int_equal(down(&rig).transferred, 192);
    for (uint32_t i = 0; i < 3; i++)
        mv_drop(&rig, &runs[i]);
    mv_expect_books(&rig, true);
    kv_rig_close(&rig);
}

/* ---- Offers behind a fence ------------------------------------------------------------------- */

/*
 * `count` offers, each a content of its own, behind a fence, in a lane where none of them goes to
 * the engine.
 */
static void open_fenced(struct kv_rig *rig, struct mv_run *runs, uint32_t count, uint32_t queue)
{
    mv_two_tiers(rig, 6, 6, KVB_OFFLOAD_MANUAL);
    mv_bounds(rig, 0, 1, 1, 1, queue);
    kv_rig_open(rig);
    offer_each(rig, runs, 1, count, FENCE, 50);
    mv_step(rig);
    assert_int_equal(down(rig).queued, count);
}

static void test_offer_behind_a_fence_pins_nothing_and_is_discarded_once_its_block_is_gone(
    void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run runs[2];
    open_fenced(&rig, runs, 2, 8);
    drop_each(&rig, runs, 2);
    assert_int_equal(kv_stats(&rig).tiers[KVB_TIER_DEVICE].available_count, 6);
    mv_evict_all(&rig, KVB_TIER_DEVICE);
    mv_signal(&rig, FENCE);
    mv_step(&rig);
    assert_int_equal(down(&rig).discarded, 2);
    mv_expect_books(&rig, true);
    kv_rig_close(&rig);
}

static void test_offer_behind_a_fence_is_discarded_once_its_content_is_forgotten(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run runs[2];
    open_fenced(&rig, runs, 2, 8);
    kv_ok(kvb_invalidate(rig.kv, runs[0].seqs, 1, NULL));
    kv_ok(kvb_manager_clear(rig.kv));
    mv_step(&rig);
    mv_signal(&rig, FENCE);
    mv_step(&rig);
    assert_int_equal(down(&rig).discarded, 2);
    drop_each(&rig, runs, 2);
    mv_expect_books(&rig, true);
    kv_rig_close(&rig);
}

static void test_offer_behind_a_fence_can_be_taken_back(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run runs[3];
    open_fenced(&rig, runs, 3, 8);
    kv_expect(kvb_block_offload(rig.kv, runs[1].blocks, 1, 50, NULL, NULL), KVB_EBUSY);
    kv_ok(kvb_block_offload_cancel(rig.kv, runs[1].blocks, 1, NULL));
    kv_check(&rig);
    assert_int_equal(down(&rig).cancelled, 1);
    mv_signal(&rig, FENCE);
    mv_step(&rig);
    assert_int_equal(down(&rig).transferred, 2);
    assert_int_equal(mv_in_tier(&rig, &runs[1], KVB_TIER_DEVICE), 1);
    drop_each(&rig, runs, 3);
    mv_expect_books(&rig, true);
    kv_rig_close(&rig);
}

static void test_full_in_queue_sheds_what_waits_for_a_fence_before_what_is_as_good_and_ready(
    void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run late[3], ready[3];
    open_fenced(&rig, late, 2, 2);
    offer_each(&rig, ready, 2, 3, 0, 50); /* one goes on deck */
    assert_int_equal(down(&rig).shed, 2);
    assert_int_equal(down(&rig).ondeck, 1);
    assert_int_equal(down(&rig).queued, 2);
    drop_each(&rig, ready, 1);
    mv_store_after(&rig, &late[2], KVB_TIER_DEVICE, 77, 1, FENCE);
    mv_offer(&rig, late[2].blocks[0], 50); /* no better than those that are ready */
    assert_int_equal(down(&rig).shed, 3);
    mv_step(&rig);
    assert_int_equal(down(&rig).transferred, 3);
    drop_each(&rig, late, 3);
    drop_each(&rig, ready + 1, 2);
    mv_expect_books(&rig, true);
    kv_rig_close(&rig);
}

static void test_full_in_queue_sheds_the_lowest_priority_ready_or_not(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run runs[2], low, high;
    open_fenced(&rig, runs, 2, 2);
    mv_store_after(&rig, &low, KVB_TIER_DEVICE, 7, 1, FENCE);
    mv_offer(&rig, low.blocks[0], 40);
    assert_int_equal(down(&rig).shed, 1);
    mv_store_after(&rig, &high, KVB_TIER_DEVICE, 8, 1, FENCE);
    mv_offer(&rig, high.blocks[0], 60);
    assert_int_equal(down(&rig).shed, 2);
    mv_signal(&rig, FENCE);
    mv_step(&rig);
    assert_int_equal(down(&rig).transferred, 2);
    drop_each(&rig, runs, 2);
    mv_drop(&rig, &low);
    mv_drop(&rig, &high);
    mv_evict_all(&rig, KVB_TIER_DEVICE);
    mv_expect_in(&rig, &high, KVB_TIER_HOST);
    mv_expect_in(&rig, &runs[0], KVB_TIER_HOST);
    mv_expect_books(&rig, true);
    kv_rig_close(&rig);
}

/* ---- Targets --------------------------------------------------------------------------------- */

/*
 * HOST has a slot that is ready, and one that is written until FENCE, which is to be had first. A
 * ready content goes down.
 */
static void expect_ready_target(struct kv_rig *rig)
{
    struct mv_run run;
    mv_store(rig, &run, KVB_TIER_DEVICE, 50, 1);
    mv_offer(rig, run.blocks[0], 50);
    mv_step(rig);
    assert_int_equal(down(rig).transferred, 1);
    mv_drop(rig, &run);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    mv_expect_in(rig, &run, KVB_TIER_HOST);
}

static void test_lane_prefers_a_free_slot_that_is_ready(void **state)
{
    (void)state;
    struct kv_rig rig;
    mv_two_tiers(&rig, 2, 2, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    kv_unref(&rig, alloc_after(&rig, KVB_TIER_HOST, FENCE)); /* on top of what is free */
    expect_ready_target(&rig);
    assert_int_equal(kv_stats(&rig).tiers[KVB_TIER_HOST].free_count, 1);
    kv_rig_close(&rig);
}

static void test_lane_evicts_what_is_ready_before_it_takes_a_slot_that_is_not(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run late, old;
    mv_two_tiers(&rig, 2, 3, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    struct kvb_block *block = alloc_after(&rig, KVB_TIER_HOST, FENCE);
    mv_store_after(&rig, &late, KVB_TIER_HOST, 1, 1, FENCE);
    mv_drop(&rig, &late); /* the next to be evicted */
    mv_park(&rig, &old, KVB_TIER_HOST, 2, 1);
    kv_unref(&rig, block);
    expect_ready_target(&rig);
    assert_int_equal(mv_found(&rig, &late), 1);
    assert_int_equal(mv_found(&rig, &old), 0);
    kv_rig_close(&rig);
}

static void test_lane_evicts_nothing_of_higher_priority_for_a_slot_that_is_ready(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run old, run;
    mv_two_tiers(&rig, 2, 2, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    struct kvb_block *block = alloc_after(&rig, KVB_TIER_HOST, FENCE);
    mv_store(&rig, &old, KVB_TIER_HOST, 2, 1);
    kv_ok(kvb_block_set_priority(rig.kv, old.blocks, 1, 90, 0, NULL));
    mv_drop(&rig, &old);
    kv_unref(&rig, block);
    offer_each(&rig, &run, 3, 1, 0, 50);
    mv_step(&rig);
    assert_int_equal(down(&rig).transferred, 0);
    assert_int_equal(mv_found(&rig, &old), 1);
    mv_signal(&rig, FENCE);
    mv_step(&rig);
    assert_int_equal(down(&rig).transferred, 1);
    mv_drop(&rig, &run);
    kv_rig_close(&rig);
}

static int count_and_admit(void *context, const struct kvb_admission_request *request)
{
    (void)request;
    ++*(uint32_t *)context;
    return 1;
}

/*
 * None of the targets is ready, and the engine has no place for one that waits: the offer waits,
 * asked about once.
 */
static void test_offer_waits_where_no_target_is_ready(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    uint32_t asked = 0;
    mv_two_tiers(&rig, 2, 1, KVB_OFFLOAD_MANUAL);
    mv_bounds(&rig, 0, 1, 1, 1, 8);
    rig.config.admission.admit = count_and_admit;
    rig.config.admission.context = &asked;
    kv_rig_open(&rig);
    kv_unref(&rig, alloc_after(&rig, KVB_TIER_HOST, FENCE));
    offer_each(&rig, &run, 1, 1, 0, 50);
    mv_step(&rig);
    assert_int_equal(down(&rig).queued, 1);
    assert_int_equal(kv_stats(&rig).tiers[KVB_TIER_HOST].free_count, 1);
    mv_signal(&rig, FENCE);
    mv_step(&rig);
    assert_int_equal(down(&rig).transferred, 1);
    assert_int_equal(asked, 1);
    mv_drop(&rig, &run);
    mv_expect_books(&rig, true);
    kv_rig_close(&rig);
}

static void test_carrier_prefers_a_slot_that_is_ready(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    struct mv_done done;
    mv_three_tiers(&rig, 2, 2, 2);
    kv_rig_open(&rig);
    mv_park(&rig, &run, KVB_TIER_DISK, 1, 1);
    kv_unref(&rig, alloc_after(&rig, KVB_TIER_HOST, FENCE));
    struct kvb_op *op = mv_bring_up(&rig, &run, KVB_TIER_DEVICE, &done);
    mv_step(&rig);
    assert_int_equal(done.good_count, 1);
    end(&rig, &run, op, 1);
    kv_rig_close(&rig);
}

static void test_hop_waits_where_no_slot_in_between_is_ready(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    struct mv_done done;
    mv_three_tiers(&rig, 2, 1, 2);
    mv_bounds(&rig, 1, 1, 1, 1, 8);
    kv_rig_open(&rig);
    mv_park(&rig, &run, KVB_TIER_DISK, 1, 1);
    kv_unref(&rig, alloc_after(&rig, KVB_TIER_HOST, FENCE));
    struct kvb_op *op = mv_bring_up(&rig, &run, KVB_TIER_DEVICE, &done);
    mv_step(&rig);
    assert_int_equal(done.calls, 0);
    assert_int_equal(mv_lane(&rig, KVB_TIER_DISK, KVB_TIER_HOST).queued, 1);
    mv_signal(&rig, FENCE);
    mv_step(&rig);
    assert_int_equal(done.good_count, 1);
    end(&rig, &run, op, 1);
    mv_expect_books(&rig, true);
    kv_rig_close(&rig);
}

/* The fence is not reached, but somebody lets go of a slot that is ready. */
static void test_offer_that_waits_for_a_ready_target_takes_the_next_one_that_comes_free(
    void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    mv_two_tiers(&rig, 2, 2, KVB_OFFLOAD_MANUAL);
    mv_bounds(&rig, 0, 1, 1, 1, 8);
    kv_rig_open(&rig);
    struct kvb_block *held = kv_alloc(&rig, KVB_TIER_HOST);
    kv_unref(&rig, alloc_after(&rig, KVB_TIER_HOST, FENCE));
    offer_each(&rig, &run, 1, 1, 0, 50);
    mv_step(&rig);
    assert_int_equal(down(&rig).queued, 1);
    kv_unref(&rig, held);
    mv_step(&rig);
    assert_int_equal(down(&rig).transferred, 1);
    mv_drop(&rig, &run);
    mv_expect_books(&rig, true);
    kv_rig_close(&rig);
}

static void test_hop_that_waits_for_a_ready_slot_takes_the_next_one_that_comes_free(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    struct mv_done done;
    mv_three_tiers(&rig, 2, 2, 2);
    mv_bounds(&rig, 1, 1, 1, 1, 8);
    kv_rig_open(&rig);
    mv_park(&rig, &run, KVB_TIER_DISK, 1, 1);
    struct kvb_block *held = kv_alloc(&rig, KVB_TIER_HOST);
    kv_unref(&rig, alloc_after(&rig, KVB_TIER_HOST, FENCE));
    struct kvb_op *op = mv_bring_up(&rig, &run, KVB_TIER_DEVICE, &done);
    mv_step(&rig);
    assert_int_equal(done.calls, 0);
    kv_unref(&rig, held);
    mv_step(&rig);
    end(&rig, &run, op, 1);
    mv_expect_books(&rig, true);
    kv_rig_close(&rig);
}

/* ---- Operations behind a fence --------------------------------------------------------------- */

/* One operation that waits in front of a lane whose engine has one place. */
static struct kvb_op *open_op_fenced(struct kv_rig *rig, struct mv_run *run, struct mv_done *done)
{
    mv_two_tiers(rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_bounds(rig, 0, 1, 1, 1, 8);
    kv_rig_open(rig);
    mv_park(rig, run, KVB_TIER_HOST, 1, 1);
    struct kvb_op *op = start(rig, run, KVB_TIER_DEVICE, FENCE, 50, done);
    mv_step(rig);
    assert_int_equal(up(rig).queued, 1);
    return op;
}

static void test_operation_behind_a_fence_is_cancelled_at_once(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    struct mv_done done;
    struct kvb_op *op = open_op_fenced(&rig, &run, &done);
    kv_ok(kvb_op_cancel(rig.kv, op));
    mv_step(&rig);
    assert_int_equal(done.status, KVB_ECANCELED);
    assert_int_equal(up(&rig).cancelled, 1);
    end(&rig, &run, op, 0);
    mv_signal(&rig, FENCE);
    mv_step(&rig);
    mv_expect_books(&rig, true);
    kv_rig_close(&rig);
}

static void test_operation_behind_a_fence_is_handed_to_who_joined_it(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run, joined;
    struct mv_done done, second;
    struct kvb_op *op = open_op_fenced(&rig, &run, &done);
    joined = run;
    struct kvb_op *other = start(&rig, &joined, KVB_TIER_DEVICE, 0, 50, &second);
    kv_ok(kvb_op_cancel(rig.kv, op));
    mv_step(&rig);
    assert_int_equal(done.status, KVB_ECANCELED);
    assert_int_equal(second.calls, 0);
    end(&rig, &run, op, 0);
    mv_signal(&rig, FENCE);
    mv_step(&rig);
    end(&rig, &joined, other, 1);
    mv_expect_books(&rig, true);
    kv_rig_close(&rig);
}

/* ---- Recall ---------------------------------------------------------------------------------- */

/* The engine has one place for what waits: the first operation's copy is there. */
static struct kvb_op *open_op_moving(struct kv_rig *rig, struct mv_run *run,
                                     struct kvb_block **target, struct mv_done *done)
{
    struct kvb_op *op = NULL;
    mv_two_tiers(rig, 2, 4, KVB_OFFLOAD_MANUAL);
    mv_bounds(rig, 0, 1, 1, 2, 8);
    kv_rig_open(rig);
    mv_park(rig, run, KVB_TIER_HOST, 1, 1);
    *target = alloc_after(rig, KVB_TIER_DEVICE, FENCE);
    assert_int_equal(mv_match(rig, run), 1);
    struct kvb_onboard request = mv_request(run->blocks, target, 1, done);
    request.timeout_ns = 3 * KV_MS;
    kv_ok(kvb_onboard(rig->kv, &request, &op));
    mv_drop(rig, run);
    mv_step(rig);
    assert_int_equal(up(rig).inflight, 1);
    return op;
}

/*
 * It is over: its own block is back, Empty, and the place too. The memory still waits for its
 * fence.
 */
static void expect_recalled(struct kv_rig *rig, struct mv_run *run, struct kvb_block *target,
                            struct kvb_op *op)
{
    struct mv_done done;
    assert_int_equal(up(rig).inflight, 0);
    assert_int_equal(up(rig).cancelled, 1);
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_DEVICE].transfer_count, 0);
    assert_int_equal(mv_take(rig, run, op), 0);
    assert_ptr_equal(run->blocks[0], target);
    mv_drop_taken(rig, run);
    op = start(rig, run, KVB_TIER_DEVICE, 0, 50, &done);
    mv_step(rig);
    assert_int_equal(done.calls, 0);
    assert_int_equal(up(rig).inflight, 1);
    mv_signal(rig, FENCE);
    mv_step(rig);
    end(rig, run, op, 1);
    mv_expect_books(rig, true);
}

static void test_cancelled_copy_that_waits_for_a_fence_gives_place_and_memory_back(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    struct mv_done done;
    struct kvb_block *target = NULL;
    struct kvb_op *op = open_op_moving(&rig, &run, &target, &done);
    kv_ok(kvb_op_cancel(rig.kv, op));
    mv_step(&rig);
    assert_int_equal(done.status, KVB_ECANCELED);
    expect_recalled(&rig, &run, target, op);
    kv_rig_close(&rig);
}

static void test_copy_past_its_deadline_that_waits_for_a_fence_gives_place_and_memory_back(
    void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    struct mv_done done;
    struct kvb_block *target = NULL;
    struct kvb_op *op = open_op_moving(&rig, &run, &target, &done);
    kv_advance(&rig, 3 * KV_MS);
    mv_step(&rig);
    assert_int_equal(done.status, KVB_ETIMEDOUT);
    expect_recalled(&rig, &run, target, op);
    kv_rig_close(&rig);
}

static void test_copy_that_another_waits_for_is_not_recalled(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run, joined;
    struct mv_done done, second;
    struct kvb_block *target = NULL;
    struct kvb_op *op = open_op_moving(&rig, &run, &target, &done);
    joined = run;
    struct kvb_op *other = start(&rig, &joined, KVB_TIER_DEVICE, 0, 50, &second);
    kv_ok(kvb_op_cancel(rig.kv, op));
    mv_step(&rig);
    assert_int_equal(done.status, KVB_ECANCELED);
    assert_int_equal(up(&rig).inflight, 1);
    end(&rig, &run, op, 0);
    mv_signal(&rig, FENCE);
    mv_step(&rig);
    end(&rig, &joined, other, 1);
    mv_expect_books(&rig, true);
    kv_rig_close(&rig);
}

/* The block in between waits for its memory's fence, for an operation that is cancelled. */
static void test_cancel_gives_back_the_block_in_between_too(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    struct mv_done done;
    mv_three_tiers(&rig, 2, 1, 2);
    kv_rig_open(&rig);
    mv_park(&rig, &run, KVB_TIER_DISK, 1, 1);
    kv_unref(&rig, alloc_after(&rig, KVB_TIER_HOST, FENCE));
    struct kvb_op *op = mv_bring_up(&rig, &run, KVB_TIER_DEVICE, &done);
    mv_step(&rig);
    assert_int_equal(mv_lane(&rig, KVB_TIER_DISK, KVB_TIER_HOST).inflight, 1);
    kv_ok(kvb_op_cancel(rig.kv, op));
    mv_step(&rig);
    assert_int_equal(mv_lane(&rig, KVB_TIER_DISK, KVB_TIER_HOST).inflight, 0);
    assert_int_equal(kv_stats(&rig).tiers[KVB_TIER_HOST].free_count, 1);
    end(&rig, &run, op, 0);
    mv_expect_books(&rig, true);
    kv_rig_close(&rig);
}

/*
 * A prefetch is given up while its copy waits for a fence, and in the same round another operation,
 * which has to pass through that tier, comes to wait for the very copy: it goes on for that one.
 */
static void test_copy_that_is_recalled_goes_on_for_who_comes_meanwhile(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run, passing;
    struct mv_done given_up, done;
    struct kvb_op *prefetch = NULL;
    mv_three_tiers(&rig, 2, 2, 2);
    kv_rig_open(&rig);
    mv_park(&rig, &run, KVB_TIER_DISK, 1, 1);
    struct kvb_block *target = alloc_after(&rig, KVB_TIER_HOST, FENCE);
    assert_int_equal(mv_match(&rig, &run), 1);
    struct kvb_onboard request = mv_request(run.blocks, &target, 1, &given_up);
    kv_ok(kvb_onboard(rig.kv, &request, &prefetch));
    mv_drop(&rig, &run);
    mv_step(&rig);
    assert_int_equal(mv_lane(&rig, KVB_TIER_DISK, KVB_TIER_HOST).inflight, 1);
    kv_ok(kvb_op_cancel(rig.kv, prefetch));
    passing = run;
    struct kvb_op *op = mv_bring_up(&rig, &passing, KVB_TIER_DEVICE, &done);
    mv_step(&rig);
    assert_int_equal(given_up.status, KVB_ECANCELED);
    assert_int_equal(done.calls, 0);
    end(&rig, &run, prefetch, 0);
    mv_signal(&rig, FENCE);
    mv_step(&rig);
    end(&rig, &passing, op, 1);
    mv_expect_books(&rig, true);
    kv_rig_close(&rig);
}

/* ---- The list -------------------------------------------------------------------------------- */

/*
 * A signal comes between a look at the counter and the list: nothing else will ask about the node.
 */
static void test_node_whose_point_is_reached_by_now_is_looked_at(void **state)
{
    (void)state;
    struct kvbi_band_node nodes[3] = {{0}};
    struct kvbi_fenced fenced;
    struct kvbi_point reached = {.ticket = 7, .event = 3};
    kvbi_fenced_init(&fenced, nodes, sizeof *nodes);
    kvbi_fenced_add(&fenced, 0, 50, (struct kvbi_point){.ticket = 9, .event = 3}, reached);
    assert_false(kvbi_fenced_due(&fenced, reached));
    kvbi_fenced_add(&fenced, 1, 50, (struct kvbi_point){.ticket = 7}, reached);
    assert_true(kvbi_fenced_due(&fenced, reached));
    assert_int_equal(kvbi_fenced_next(&fenced), 0);
    kvbi_fenced_keep(&fenced, (struct kvbi_point){.ticket = 9}, reached);
    assert_int_equal(kvbi_fenced_next(&fenced), 1);
    kvbi_fenced_remove(&fenced, 1);
    assert_int_equal(kvbi_fenced_next(&fenced), KVBI_NONE);
    assert_false(kvbi_fenced_due(&fenced, reached));
    kvbi_fenced_add(&fenced, 2, 50, (struct kvbi_point){.event = 2}, reached);
    assert_true(kvbi_fenced_due(&fenced, reached));
}

/* ---- Waking ---------------------------------------------------------------------------------- */

static bool is_asleep(struct kvb_manager *kv)
{
    return !atomic_load(&kv->progress.signalled) && atomic_load(&kv->progress.sleeping);
}

static void await_sleep(struct kvb_manager *kv)
{
    time_t give_up = time(NULL) + KV_GIVE_UP_S;
    while (!is_asleep(kv)) {
        assert_true(time(NULL) < give_up);
        (void)sched_yield();
    }
}

static void signal_done(void *arg, struct kvb_op *op, int status, uint32_t good_count)
{
    (void)op, (void)status, (void)good_count;
    kv_wait_signal(arg);
}

static void test_signal_wakes_who_sleeps_while_all_waits_for_its_fence(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    struct kv_wait done;
    struct kvb_op *op = NULL;
    mv_two_tiers(&rig, 2, 2, KVB_OFFLOAD_MANUAL);
    mv_bounds(&rig, 0, 1, 1, 1, 8);
    rig.config.progress = KVB_PROGRESS_THREAD;
    kv_rig_open(&rig);
    kv_wait_init(&done);
    mv_store(&rig, &run, KVB_TIER_HOST, 1, 1);
    struct kvb_block *target = alloc_after(&rig, KVB_TIER_DEVICE, FENCE);
    struct kvb_onboard request = mv_request(run.blocks, &target, 1, NULL);
    request.done = signal_done;
    request.arg = &done;
    kv_ok(kvb_onboard(rig.kv, &request, &op));
    await_sleep(rig.kv);
    kv_ok(kvb_fence_signal(rig.kv, FENCE - 1));
    assert_false(atomic_load(&rig.kv->progress.signalled)); /* for nothing */
    kv_ok(kvb_fence_signal(rig.kv, FENCE));
    assert_true(kv_wait_for(&done, 1));
    mv_drop(&rig, &run);
    end(&rig, &run, op, 1);
    kv_rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ready_offer_passes_a_lane_full_of_others_that_are_not),
        cmocka_unit_test(test_ready_offer_passes_where_the_engine_has_one_place),
        cmocka_unit_test(test_ready_block_on_its_way_up_passes_others_that_are_not),
        cmocka_unit_test(test_ready_block_on_its_way_up_passes_where_the_engine_has_one_place),
        cmocka_unit_test(test_each_fence_lets_go_of_its_own),
        cmocka_unit_test(test_last_value_of_the_counter_is_a_fence_too),
        cmocka_unit_test(test_many_offers_behind_one_fence_all_come_up),
        cmocka_unit_test(
            test_offer_behind_a_fence_pins_nothing_and_is_discarded_once_its_block_is_gone),
        cmocka_unit_test(test_offer_behind_a_fence_is_discarded_once_its_content_is_forgotten),
        cmocka_unit_test(test_offer_behind_a_fence_can_be_taken_back),
        cmocka_unit_test(
            test_full_in_queue_sheds_what_waits_for_a_fence_before_what_is_as_good_and_ready),
        cmocka_unit_test(test_full_in_queue_sheds_the_lowest_priority_ready_or_not),
        cmocka_unit_test(test_lane_prefers_a_free_slot_that_is_ready),
        cmocka_unit_test(test_lane_evicts_what_is_ready_before_it_takes_a_slot_that_is_not),
        cmocka_unit_test(test_lane_evicts_nothing_of_higher_priority_for_a_slot_that_is_ready),
        cmocka_unit_test(test_offer_waits_where_no_target_is_ready),
        cmocka_unit_test(test_carrier_prefers_a_slot_that_is_ready),
        cmocka_unit_test(test_hop_waits_where_no_slot_in_between_is_ready),
        cmocka_unit_test(
            test_offer_that_waits_for_a_ready_target_takes_the_next_one_that_comes_free),
        cmocka_unit_test(test_hop_that_waits_for_a_ready_slot_takes_the_next_one_that_comes_free),
        cmocka_unit_test(test_operation_behind_a_fence_is_cancelled_at_once),
        cmocka_unit_test(test_operation_behind_a_fence_is_handed_to_who_joined_it),
        cmocka_unit_test(test_cancelled_copy_that_waits_for_a_fence_gives_place_and_memory_back),
        cmocka_unit_test(
            test_copy_past_its_deadline_that_waits_for_a_fence_gives_place_and_memory_back),
        cmocka_unit_test(test_copy_that_another_waits_for_is_not_recalled),
        cmocka_unit_test(test_copy_that_is_recalled_goes_on_for_who_comes_meanwhile),
        cmocka_unit_test(test_cancel_gives_back_the_block_in_between_too),
        cmocka_unit_test(test_node_whose_point_is_reached_by_now_is_looked_at),
        cmocka_unit_test(test_signal_wakes_who_sleeps_while_all_waits_for_its_fence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
