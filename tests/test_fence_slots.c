/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A ticket that was named for a slot's memory outlives who named it: whoever gets the slot next, a
 * copy into it waits for the last writer. In each test somebody writes late, over the whole block,
 * just before that ticket is reached.
 */
#include "support/move_test.h"
#include "support/test.h"

#define FENCE 20
#define EARLIER_FENCE 5

/* Where a block's bytes lie. Its memory is written there whoever has the slot by then. */
struct late_writer {
    void *chunks[KV_LAYERS * KV_PARTS];
};

static struct late_writer writer_of(struct kv_rig *rig, struct kvb_block *block)
{
    struct late_writer writer;
    for (uint32_t layer = 0; layer < KV_LAYERS; layer++)
        for (uint32_t part = 0; part < KV_PARTS; part++)
            kv_ok(kvb_block_address(rig->kv, block, layer, part,
                                    &writer.chunks[layer * KV_PARTS + part]));
    return writer;
}

/* The work behind FENCE writes, and is over. */
static void write_late(struct kv_rig *rig, const struct late_writer *writer)
{
    for (uint32_t i = 0; i < KV_LAYERS * KV_PARTS; i++) {
        unsigned char *bytes = kv_device_begin_write(writer->chunks[i], KV_CHUNK);
        memset(bytes, 0xbd, KV_CHUNK);
        kv_device_end_write(writer->chunks[i], bytes, KV_CHUNK);
    }
    mv_reach(rig, FENCE);
}

/* A content of one block that is written until FENCE, parked. */
static struct late_writer park_late(struct kv_rig *rig, struct mv_run *run, uint32_t tier,
                                    uint64_t seed)
{
    mv_store_after(rig, run, tier, seed, 1, FENCE);
    struct late_writer writer = writer_of(rig, run->blocks[0]);
    mv_drop(rig, run);
    return writer;
}

/* ---- A lane's target ------------------------------------------------------------------------- */

/*
 * The only slot of HOST is the late writer's, and free or evictable. A content goes down from
 * DEVICE.
 */
static void offload_into(struct kv_rig *rig, const struct late_writer *writer)
{
    struct mv_run run;
    mv_store(rig, &run, KVB_TIER_DEVICE, 2, 1);
    mv_offer(rig, run.blocks[0], 50);
    mv_drop(rig, &run);
    mv_step(rig);
    assert_int_equal(mv_down(rig).transferred, 0);
    write_late(rig, writer);
    assert_int_equal(mv_down(rig).transferred, 1);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    mv_expect_in(rig, &run, KVB_TIER_HOST);
    mv_expect_books(rig, true);
}

static void test_lane_that_evicts_waits_for_the_writer_of_what_was_there(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run old;
    mv_open_two(rig, 2, 1, KVB_OFFLOAD_MANUAL);
    struct late_writer writer = park_late(rig, &old, KVB_TIER_HOST, 1);
    offload_into(rig, &writer);
}

static void test_lane_waits_for_the_writer_of_what_was_invalidated(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run old;
    mv_open_two(rig, 2, 1, KVB_OFFLOAD_MANUAL);
    struct late_writer writer = park_late(rig, &old, KVB_TIER_HOST, 1);
    kv_ok(kvb_invalidate(rig->kv, old.seqs, 1, NULL));
    offload_into(rig, &writer);
}

static void test_lane_waits_for_the_writer_of_what_was_reset(void **state)
{
    struct kv_rig *rig = *state;
    mv_open_two(rig, 2, 1, KVB_OFFLOAD_MANUAL);
    struct kvb_block *block = mv_alloc_after(rig, KVB_TIER_HOST, FENCE);
    struct late_writer writer = writer_of(rig, block);
    kv_init(rig, block, 0, 0, NULL);
    kv_ok(kvb_block_reset(rig->kv, &block, 1, NULL));
    kv_unref(rig, block);
    offload_into(rig, &writer);
}

/* ---- An operation's blocks ------------------------------------------------------------------- */

/* A content comes up, and has to have a slot of the late writer's for that. */
static void bring_up_into(struct kv_rig *rig, const struct late_writer *writer, struct mv_run *run)
{
    struct mv_done done;
    struct kvb_op *op = mv_bring_up(rig, run, KVB_TIER_DEVICE, &done);
    mv_step(rig);
    assert_int_equal(done.calls, 0);
    write_late(rig, writer);
    assert_int_equal(done.calls, 1);
    mv_end(rig, run, op, 1);
}

static void test_target_of_a_new_owner_waits_for_the_former_ones_writer(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run old, run;
    mv_open_two(rig, 1, 2, KVB_OFFLOAD_MANUAL);
    mv_park(rig, &run, KVB_TIER_HOST, 2, 1);
    struct late_writer writer = park_late(rig, &old, KVB_TIER_DEVICE, 1);
    bring_up_into(rig, &writer, &run);
}

static void test_carrier_waits_for_the_writer_of_what_was_there(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run old, run;
    mv_open_three(rig, 1, 1, 1);
    mv_park(rig, &run, KVB_TIER_DISK, 2, 1);
    struct late_writer writer = park_late(rig, &old, KVB_TIER_HOST, 1);
    bring_up_into(rig, &writer, &run);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    mv_expect_in(rig, &run, KVB_TIER_HOST);
}

/* ---- Stand-ins ------------------------------------------------------------------------------- */

/* The Empty block was the late writer's. A content comes up into it. */
static void onboard_into_stand_in(struct kv_rig *rig, struct kvb_block *block, struct mv_run *run,
                                  const struct late_writer *writer)
{
    struct mv_done done;
    assert_ptr_equal(writer_of(rig, block).chunks[0], writer->chunks[0]);
    struct kvb_op *op = mv_bring_into(rig, run, &block, &done);
    mv_reach(rig, FENCE - 1);
    assert_int_equal(done.calls, 0);
    write_late(rig, writer);
    assert_int_equal(done.calls, 1);
    assert_int_equal(done.good_count, 1);
    assert_int_equal(mv_take(rig, run, op), 1);
    mv_drop(rig, run);
}

/* The target is being written when the operation is cancelled: another block stands in for it. */
static void test_stand_in_for_a_target_that_is_written_waits_for_its_own_writer(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run old, first, second;
    mv_two_tiers(rig, 2, 8, KVB_OFFLOAD_MANUAL);
    mv_open_recorded(rig);
    rig->hooks.keeps = true;
    mv_park(rig, &first, KVB_TIER_HOST, 2, 1);
    mv_park(rig, &second, KVB_TIER_HOST, 3, 1);
    struct kvb_block *target = mv_alloc_after(rig, KVB_TIER_DEVICE, EARLIER_FENCE);
    struct late_writer writer = park_late(rig, &old, KVB_TIER_DEVICE, 1);
    mv_cancel_in_transfer(rig, &first, target);
    onboard_into_stand_in(rig, first.blocks[0], &second, &writer);
}

/*
 * The second block arrives and is shared by now, the first does not: another block stands in for
 * the second.
 */
static void test_stand_in_for_a_shared_block_waits_for_its_own_writer(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run old, run, second;
    struct mv_done done;
    struct kvb_hit hits[2];
    size_t count = 0;
    mv_two_tiers(rig, 3, 8, KVB_OFFLOAD_MANUAL);
    mv_open_recorded(rig);
    mv_park(rig, &run, KVB_TIER_HOST, 2, 2);
    mv_park(rig, &second, KVB_TIER_HOST, 3, 1);
    struct kvb_block *targets[2] = {mv_alloc_after(rig, KVB_TIER_DEVICE, EARLIER_FENCE + 1),
                                    mv_alloc_after(rig, KVB_TIER_DEVICE, EARLIER_FENCE)};
    struct late_writer writer = park_late(rig, &old, KVB_TIER_DEVICE, 1);
    struct kvb_op *op = mv_bring_into(rig, &run, targets, &done);
    mv_reach(rig, EARLIER_FENCE);
    struct kvb_query query = {.size = sizeof query, .keys = &run.seqs[1], .key_count = 1};
    kv_ok(kvb_match(rig->kv, &query, hits, 1, &count));
    assert_int_equal(count, 1);
    assert_ptr_equal(hits[0].block, targets[1]);
    mv_fail(&rig->copies, 1, false);
    mv_reach(rig, EARLIER_FENCE + 1);
    assert_int_equal(done.good_count, 0);
    assert_int_equal(mv_take(rig, &run, op), 0);
    assert_ptr_equal(run.blocks[0], targets[0]);
    assert_ptr_not_equal(run.blocks[1], targets[1]);
    onboard_into_stand_in(rig, run.blocks[1], &second, &writer);
    kv_unref(rig, hits[0].block);
    kv_unref(rig, run.blocks[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kv_rig, test_lane_that_evicts_waits_for_the_writer_of_what_was_there),
        TEST(kv_rig, test_lane_waits_for_the_writer_of_what_was_invalidated),
        TEST(kv_rig, test_lane_waits_for_the_writer_of_what_was_reset),
        TEST(kv_rig, test_target_of_a_new_owner_waits_for_the_former_ones_writer),
        TEST(kv_rig, test_carrier_waits_for_the_writer_of_what_was_there),
        TEST(kv_rig, test_stand_in_for_a_target_that_is_written_waits_for_its_own_writer),
        TEST(kv_rig, test_stand_in_for_a_shared_block_waits_for_its_own_writer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
