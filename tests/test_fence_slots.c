/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A point that was named for a slot's memory outlives who named it: whoever gets the slot next, a
 * copy into it waits for the last writer. In each test somebody writes late, over the whole block,
 * just before that point is reached.
 */
#include "support/move_test.h"

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
    mv_signal(rig, FENCE);
    mv_step(rig);
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

static struct kvb_block *alloc_after(struct kv_rig *rig, uint32_t tier, uint64_t fence_value)
{
    struct kvb_fence fence = {.kind = KVB_FENCE_COUNTER, .handle = fence_value};
    struct kvb_block *block = NULL;
    kv_ok(kvb_alloc(rig->kv, tier, 1, &fence, &block, NULL));
    return block;
}

static struct kvb_op *start_into(struct kv_rig *rig, struct mv_run *run,
                                 struct kvb_block *const *targets, struct mv_done *done)
{
    struct kvb_op *op = NULL;
    assert_int_equal(mv_match(rig, run), run->count);
    struct kvb_onboard request = mv_request(run->blocks, targets, run->count, done);
    kv_ok(kvb_onboard(rig->kv, &request, &op));
    mv_drop(rig, run);
    return op;
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
    assert_int_equal(mv_lane(rig, KVB_TIER_DEVICE, KVB_TIER_HOST).transferred, 0);
    write_late(rig, writer);
    assert_int_equal(mv_lane(rig, KVB_TIER_DEVICE, KVB_TIER_HOST).transferred, 1);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    mv_expect_in(rig, &run, KVB_TIER_HOST);
    mv_expect_books(rig, true);
}

static void test_lane_that_evicts_waits_for_the_writer_of_what_was_there(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run old;
    mv_two_tiers(&rig, 2, 1, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    struct late_writer writer = park_late(&rig, &old, KVB_TIER_HOST, 1);
    offload_into(&rig, &writer);
    kv_rig_close(&rig);
}

static void test_lane_waits_for_the_writer_of_what_was_invalidated(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run old;
    mv_two_tiers(&rig, 2, 1, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    struct late_writer writer = park_late(&rig, &old, KVB_TIER_HOST, 1);
    kv_ok(kvb_invalidate(rig.kv, old.seqs, 1, NULL));
    offload_into(&rig, &writer);
    kv_rig_close(&rig);
}

static void test_lane_waits_for_the_writer_of_what_was_reset(void **state)
{
    (void)state;
    struct kv_rig rig;
    mv_two_tiers(&rig, 2, 1, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    struct kvb_block *block = alloc_after(&rig, KVB_TIER_HOST, FENCE);
    struct late_writer writer = writer_of(&rig, block);
    kv_init(&rig, block, 0, 0, NULL);
    kv_ok(kvb_block_reset(rig.kv, &block, 1, NULL));
    kv_unref(&rig, block);
    offload_into(&rig, &writer);
    kv_rig_close(&rig);
}

/* ---- An operation's blocks ------------------------------------------------------------------- */

static void test_target_of_a_new_owner_waits_for_the_former_ones_writer(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run old, run;
    struct mv_done done;
    mv_two_tiers(&rig, 1, 2, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    mv_park(&rig, &run, KVB_TIER_HOST, 2, 1);
    struct late_writer writer = park_late(&rig, &old, KVB_TIER_DEVICE, 1);
    struct kvb_op *op = mv_bring_up(&rig, &run, KVB_TIER_DEVICE, &done);
    mv_step(&rig);
    assert_int_equal(done.calls, 0);
    write_late(&rig, &writer);
    assert_int_equal(done.calls, 1);
    assert_int_equal(mv_take(&rig, &run, op), 1);
    mv_drop(&rig, &run);
    kv_rig_close(&rig);
}

static void test_carrier_waits_for_the_writer_of_what_was_there(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run old, run;
    struct mv_done done;
    mv_three_tiers(&rig, 1, 1, 1);
    kv_rig_open(&rig);
    mv_park(&rig, &run, KVB_TIER_DISK, 2, 1);
    struct late_writer writer = park_late(&rig, &old, KVB_TIER_HOST, 1);
    struct kvb_op *op = mv_bring_up(&rig, &run, KVB_TIER_DEVICE, &done);
    mv_step(&rig);
    assert_int_equal(done.calls, 0);
    write_late(&rig, &writer);
    assert_int_equal(done.calls, 1);
    assert_int_equal(mv_take(&rig, &run, op), 1);
    mv_drop(&rig, &run);
    mv_evict_all(&rig, KVB_TIER_DEVICE);
    mv_expect_in(&rig, &run, KVB_TIER_HOST);
    kv_rig_close(&rig);
}

/* ---- Stand-ins ------------------------------------------------------------------------------- */

/* The Empty block was the late writer's. A content comes up into it. */
static void onboard_into_stand_in(struct kv_rig *rig, struct kvb_block *block, struct mv_run *run,
                                  const struct late_writer *writer)
{
    struct mv_done done;
    assert_ptr_equal(writer_of(rig, block).chunks[0], writer->chunks[0]);
    struct kvb_op *op = start_into(rig, run, &block, &done);
    mv_signal(rig, FENCE - 1);
    mv_step(rig);
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
    (void)state;
    struct kv_rig rig;
    struct mv_copies copies;
    struct mv_run old, first, second;
    struct mv_done done;
    mv_two_tiers(&rig, 2, 8, KVB_OFFLOAD_MANUAL);
    mv_open(&rig, &copies);
    rig.hooks.keeps = true;
    mv_park(&rig, &first, KVB_TIER_HOST, 2, 1);
    mv_park(&rig, &second, KVB_TIER_HOST, 3, 1);
    struct kvb_block *target = alloc_after(&rig, KVB_TIER_DEVICE, EARLIER_FENCE);
    struct late_writer writer = park_late(&rig, &old, KVB_TIER_DEVICE, 1);
    struct kvb_op *op = start_into(&rig, &first, &target, &done);
    mv_step(&rig);
    kv_ok(kvb_op_cancel(rig.kv, op));
    mv_step(&rig);
    assert_int_equal(done.status, KVB_ECANCELED);
    assert_int_equal(mv_take(&rig, &first, op), 0);
    assert_ptr_not_equal(first.blocks[0], target);
    onboard_into_stand_in(&rig, first.blocks[0], &second, &writer);
    kv_rig_close(&rig);
}

/*
 * The second block arrives and is shared by now, the first does not: another block stands in for
 * the second.
 */
static void test_stand_in_for_a_shared_block_waits_for_its_own_writer(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_copies copies;
    struct mv_run old, run, second;
    struct mv_done done;
    struct kvb_hit hits[2];
    size_t count = 0;
    mv_two_tiers(&rig, 3, 8, KVB_OFFLOAD_MANUAL);
    mv_open(&rig, &copies);
    mv_park(&rig, &run, KVB_TIER_HOST, 2, 2);
    mv_park(&rig, &second, KVB_TIER_HOST, 3, 1);
    struct kvb_block *targets[2] = {alloc_after(&rig, KVB_TIER_DEVICE, EARLIER_FENCE + 1),
                                    alloc_after(&rig, KVB_TIER_DEVICE, EARLIER_FENCE)};
    struct late_writer writer = park_late(&rig, &old, KVB_TIER_DEVICE, 1);
    struct kvb_op *op = start_into(&rig, &run, targets, &done);
    mv_signal(&rig, EARLIER_FENCE);
    mv_step(&rig);
    struct kvb_query query = {.size = sizeof query, .keys = &run.seqs[1], .key_count = 1};
    kv_ok(kvb_match(rig.kv, &query, hits, 1, &count));
    assert_int_equal(count, 1);
    assert_ptr_equal(hits[0].block, targets[1]);
    mv_fail(&copies, 1, false);
    mv_signal(&rig, EARLIER_FENCE + 1);
    mv_step(&rig);
    assert_int_equal(done.good_count, 0);
    assert_int_equal(mv_take(&rig, &run, op), 0);
    assert_ptr_equal(run.blocks[0], targets[0]);
    assert_ptr_not_equal(run.blocks[1], targets[1]);
    onboard_into_stand_in(&rig, run.blocks[1], &second, &writer);
    kv_unref(&rig, hits[0].block);
    kv_unref(&rig, run.blocks[0]);
    kv_rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lane_that_evicts_waits_for_the_writer_of_what_was_there),
        cmocka_unit_test(test_lane_waits_for_the_writer_of_what_was_invalidated),
        cmocka_unit_test(test_lane_waits_for_the_writer_of_what_was_reset),
        cmocka_unit_test(test_target_of_a_new_owner_waits_for_the_former_ones_writer),
        cmocka_unit_test(test_carrier_waits_for_the_writer_of_what_was_there),
        cmocka_unit_test(test_stand_in_for_a_target_that_is_written_waits_for_its_own_writer),
        cmocka_unit_test(test_stand_in_for_a_shared_block_waits_for_its_own_writer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
