/* SPDX-License-Identifier: Apache-2.0 */
/* Moving down: the three stages of a lane, its bounds and counters, triggers, fences, and what eviction sees of it. */
#include "support/move_test.h"

static struct kvb_lane_stats down(struct kv_rig *rig)
{
    return mv_lane(rig, KVB_TIER_DEVICE, KVB_TIER_HOST);
}

/* ---- On deck, in-queue, order ------------------------------------------------------------------------------------- */

static void test_offer_with_room_goes_on_deck(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_bounds(&rig, 0, 2, 1, 1, 8);
    kv_rig_open(&rig);
    mv_store(&rig, &run, KVB_TIER_DEVICE, 1, 1);
    mv_offer(&rig, run.blocks[0], 50);
    assert_int_equal(down(&rig).ondeck, 1);
    assert_int_equal(down(&rig).queued, 0);
    assert_int_equal(down(&rig).pending, 1);
    mv_drop(&rig, &run);
    kv_rig_close(&rig);
}

static void test_offer_beyond_the_deck_is_demoted_to_the_queue(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run runs[3];
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_bounds(&rig, 0, 2, 1, 1, 8);
    kv_rig_open(&rig);
    mv_store_each(&rig, runs, KVB_TIER_DEVICE, 1, 3);
    for (uint32_t i = 0; i < 3; i++)
        mv_offer(&rig, runs[i].blocks[0], 50);
    assert_int_equal(down(&rig).ondeck, 2);
    assert_int_equal(down(&rig).queued, 1);
    for (uint32_t i = 0; i < 3; i++)
        mv_drop(&rig, &runs[i]);
    kv_rig_close(&rig);
}

static void test_queue_gives_the_highest_priority_first_and_within_it_the_oldest(void **state)
{
    (void)state;
    static const uint32_t priorities[] = {0, 10, 50, 50, 10, 90};
    static const uint32_t expected[] = {0, 5, 2, 3, 1, 4};
    struct kv_rig rig;
    struct mv_copies copies;
    struct mv_run runs[6];
    mv_two_tiers(&rig, 8, 8, KVB_OFFLOAD_MANUAL);
    mv_bounds(&rig, 0, 1, 1, 1, 8);
    mv_open(&rig, &copies);
    mv_store_each(&rig, runs, KVB_TIER_DEVICE, 1, 6);
    for (uint32_t i = 0; i < 6; i++)
        mv_offer(&rig, runs[i].blocks[0], priorities[i]);
    mv_step(&rig);
    assert_int_equal(copies.count, 6);
    for (uint32_t i = 0; i < 6; i++)
        assert_int_equal(copies.list[i].from_slot,
                         kvb_block_slot(rig.kv, runs[expected[i]].blocks[0]));
    for (uint32_t i = 0; i < 6; i++)
        mv_drop(&rig, &runs[i]);
    kv_rig_close(&rig);
}

static void test_deck_is_refilled_when_the_engine_takes_from_it(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run runs[6];
    mv_two_tiers(&rig, 8, 8, KVB_OFFLOAD_MANUAL);
    mv_bounds(&rig, 0, 2, 2, 1, 8);
    kv_rig_open(&rig);
    for (uint32_t i = 0; i < 6; i++) {
        mv_store_after(&rig, &runs[i], KVB_TIER_DEVICE, i + 1, 1, i == 0 ? 7 : 0);
        mv_offer(&rig, runs[i].blocks[0], 50);
    }
    assert_true(kvb_manager_poll(rig.kv, 0) >= 0); /* one round */
    kv_check(&rig);
    assert_int_equal(down(&rig).inflight + down(&rig).transferred, 2);
    assert_int_equal(down(&rig).ondeck, 2);
    assert_int_equal(down(&rig).queued, 2);
    mv_signal(&rig, 7);
    mv_step(&rig);
    assert_int_equal(down(&rig).transferred, 6);
    for (uint32_t i = 0; i < 6; i++)
        mv_drop(&rig, &runs[i]);
    kv_rig_close(&rig);
}

static void test_transfer_delivers_the_same_bytes(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    mv_two_tiers(&rig, 8, 8, KVB_OFFLOAD_ON_REGISTER);
    kv_rig_open(&rig);
    mv_park(&rig, &run, KVB_TIER_DEVICE, 1, 8);
    mv_step(&rig);
    mv_evict_all(&rig, KVB_TIER_DEVICE);
    mv_expect_in(&rig, &run, KVB_TIER_HOST);
    assert_int_equal(down(&rig).transferred, 8);
    assert_int_equal(down(&rig).bytes, 8 * KV_LAYERS * KV_PARTS * KV_CHUNK);
    kv_rig_close(&rig);
}

static void test_device_and_disk_alone_are_neighbours(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    kv_rig_init(&rig);
    rig.tiers[0].trigger = KVB_OFFLOAD_ON_REGISTER;
    kv_rig_add_tier(&rig, KVB_TIER_DISK, 8, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    mv_park(&rig, &run, KVB_TIER_DEVICE, 1, 4);
    mv_step(&rig);
    mv_evict_all(&rig, KVB_TIER_DEVICE);
    mv_expect_in(&rig, &run, KVB_TIER_DISK);
    kv_rig_close(&rig);
}

/* ---- What does not get there -------------------------------------------------------------------------------------- */

static void test_queued_offer_of_an_evicted_block_is_discarded(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run runs[2];
    struct kvb_block *blocks[3];
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_bounds(&rig, 0, 1, 1, 1, 8);
    kv_rig_open(&rig);
    mv_store_each(&rig, runs, KVB_TIER_DEVICE, 1, 2);
    mv_offer(&rig, runs[0].blocks[0], 50);
    mv_offer(&rig, runs[1].blocks[0], 50);
    mv_drop(&rig, &runs[0]);
    mv_drop(&rig, &runs[1]);
    kv_ok(kvb_alloc(rig.kv, KVB_TIER_DEVICE, 3, NULL, blocks, NULL));
    kv_check(&rig);
    mv_step(&rig);
    assert_int_equal(down(&rig).transferred, 1);
    assert_int_equal(down(&rig).discarded, 1);
    assert_int_equal(mv_in_tier(&rig, &runs[0], KVB_TIER_DEVICE), 1);
    assert_int_equal(mv_found(&rig, &runs[1]), 0);
    kv_ok(kvb_block_unref(rig.kv, blocks, 3, NULL));
    kv_rig_close(&rig);
}

static void test_discarded_offer_leaves_the_slots_next_life_alone(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run runs[4];
    mv_two_tiers(&rig, 2, 4, KVB_OFFLOAD_MANUAL);
    mv_bounds(&rig, 0, 1, 1, 1, 8);
    kv_rig_open(&rig);
    mv_store_each(&rig, runs, KVB_TIER_DEVICE, 1, 2);
    mv_offer(&rig, runs[0].blocks[0], 50);
    mv_offer(&rig, runs[1].blocks[0], 50);
    mv_drop(&rig, &runs[1]);
    mv_store(&rig, &runs[2], KVB_TIER_DEVICE, 77, 1); /* in the slot of runs[1] */
    mv_offer(&rig, runs[2].blocks[0], 50);
    mv_step(&rig);
    assert_int_equal(down(&rig).discarded, 1);
    assert_int_equal(down(&rig).transferred, 2);
    mv_drop(&rig, &runs[0]);
    mv_drop(&rig, &runs[2]);
    mv_evict_all(&rig, KVB_TIER_DEVICE);
    mv_expect_in(&rig, &runs[0], KVB_TIER_HOST);
    mv_expect_in(&rig, &runs[2], KVB_TIER_HOST);
    kv_rig_close(&rig);
}

static void test_offer_of_what_is_below_already_is_skipped(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    mv_store(&rig, &run, KVB_TIER_DEVICE, 1, 1);
    mv_offer(&rig, run.blocks[0], 50);
    mv_step(&rig);
    mv_offer(&rig, run.blocks[0], 50);
    assert_int_equal(down(&rig).offered, 2);
    assert_int_equal(down(&rig).skipped_present, 1);
    mv_drop(&rig, &run);
    kv_rig_close(&rig);
}

static void test_queued_offer_is_skipped_when_the_content_came_below_meanwhile(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run runs[2], host;
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_bounds(&rig, 0, 1, 1, 1, 8);
    kv_rig_open(&rig);
    mv_store_each(&rig, runs, KVB_TIER_DEVICE, 1, 2);
    mv_offer(&rig, runs[0].blocks[0], 50);
    mv_offer(&rig, runs[1].blocks[0], 50);
    mv_store(&rig, &host, KVB_TIER_HOST, 1001, 1); /* the content of runs[1] */
    mv_step(&rig);
    assert_int_equal(down(&rig).skipped_present, 1);
    assert_int_equal(down(&rig).transferred, 1);
    mv_drop(&rig, &runs[0]);
    mv_drop(&rig, &runs[1]);
    mv_drop(&rig, &host);
    kv_rig_close(&rig);
}

static void test_full_queue_sheds_an_incoming_offer_that_is_no_better(void **state)
{
    (void)state;
    static const uint32_t priorities[] = {50, 20, 30, 20, 10};
    struct kv_rig rig;
    struct mv_run runs[5];
    mv_two_tiers(&rig, 8, 8, KVB_OFFLOAD_MANUAL);
    mv_bounds(&rig, 0, 1, 1, 1, 2);
    kv_rig_open(&rig);
    mv_store_each(&rig, runs, KVB_TIER_DEVICE, 1, 5);
    for (uint32_t i = 0; i < 5; i++)
        mv_offer(&rig, runs[i].blocks[0], priorities[i]);
    assert_int_equal(down(&rig).shed, 2);
    mv_step(&rig);
    for (uint32_t i = 0; i < 5; i++)
        mv_drop(&rig, &runs[i]);
    mv_evict_all(&rig, KVB_TIER_DEVICE);
    for (uint32_t i = 0; i < 5; i++)
        assert_int_equal(mv_found(&rig, &runs[i]), i < 3);
    kv_rig_close(&rig);
}

static void test_full_queue_sheds_the_youngest_of_its_lowest_for_a_better_one(void **state)
{
    (void)state;
    static const uint32_t priorities[] = {50, 20, 20, 30};
    struct kv_rig rig;
    struct mv_run runs[4];
    mv_two_tiers(&rig, 8, 8, KVB_OFFLOAD_MANUAL);
    mv_bounds(&rig, 0, 1, 1, 1, 2);
    kv_rig_open(&rig);
    mv_store_each(&rig, runs, KVB_TIER_DEVICE, 1, 4);
    for (uint32_t i = 0; i < 4; i++)
        mv_offer(&rig, runs[i].blocks[0], priorities[i]);
    assert_int_equal(down(&rig).shed, 1);
    mv_step(&rig);
    for (uint32_t i = 0; i < 4; i++)
        mv_drop(&rig, &runs[i]);
    mv_evict_all(&rig, KVB_TIER_DEVICE);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(mv_found(&rig, &runs[i]), i != 2);
    kv_rig_close(&rig);
}

static void test_shed_block_may_be_offered_again(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run runs[3];
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_bounds(&rig, 0, 1, 1, 1, 1);
    kv_rig_open(&rig);
    mv_store_each(&rig, runs, KVB_TIER_DEVICE, 1, 3);
    for (uint32_t i = 0; i < 3; i++)
        mv_offer(&rig, runs[i].blocks[0], 50);
    assert_int_equal(down(&rig).shed, 1);
    mv_step(&rig);
    mv_offer(&rig, runs[2].blocks[0], 50);
    mv_step(&rig);
    assert_int_equal(down(&rig).transferred, 3);
    for (uint32_t i = 0; i < 3; i++)
        mv_drop(&rig, &runs[i]);
    kv_rig_close(&rig);
}

static void test_lane_never_pins_more_than_its_bounds(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run runs[12];
    mv_two_tiers(&rig, 16, 16, KVB_OFFLOAD_MANUAL);
    mv_bounds(&rig, 0, 2, 2, 2, 16);
    kv_rig_open(&rig);
    for (uint32_t i = 0; i < 12; i++) {
        mv_store_after(&rig, &runs[i], KVB_TIER_DEVICE, i + 1, 1, i < 2 ? 1 : 0);
        mv_offer(&rig, runs[i].blocks[0], 50);
        if (i == 1)
            mv_step(&rig);
    }
    assert_int_equal(down(&rig).inflight, 2);
    assert_int_equal(down(&rig).ondeck, 2);
    assert_int_equal(down(&rig).queued, 8);
    mv_step(&rig);
    assert_int_equal(down(&rig).inflight, 2);
    assert_int_equal(down(&rig).transferred, 10);
    mv_signal(&rig, 1);
    mv_step(&rig);
    assert_int_equal(down(&rig).transferred, 12);
    assert_int_equal(down(&rig).pinned_max, 2 + 2 * 2);
    for (uint32_t i = 0; i < 12; i++)
        mv_drop(&rig, &runs[i]);
    kv_rig_close(&rig);
}

static void test_batch_with_little_room_below_moves_what_fits(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run runs[3];
    struct kvb_block *held[3];
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_bounds(&rig, 0, 4, 4, 1, 8);
    kv_rig_open(&rig);
    kv_ok(kvb_alloc(rig.kv, KVB_TIER_HOST, 3, NULL, held, NULL));
    mv_store_each(&rig, runs, KVB_TIER_DEVICE, 1, 3);
    for (uint32_t i = 0; i < 3; i++) {
        mv_offer(&rig, runs[i].blocks[0], 50);
    }
    for (uint32_t i = 0; i < 3; i++)
        mv_drop(&rig, &runs[i]);
    mv_step(&rig);
    assert_int_equal(down(&rig).transferred, 1);
    assert_int_equal(down(&rig).skipped_no_target, 2);
    mv_evict_all(&rig, KVB_TIER_DEVICE);
    mv_expect_in(&rig, &runs[0], KVB_TIER_HOST);
    kv_ok(kvb_block_unref(rig.kv, held, 3, NULL));
    kv_rig_close(&rig);
}

static void test_nothing_of_higher_priority_is_evicted_below(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run below[2], run;
    mv_two_tiers(&rig, 4, 2, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    mv_store_each(&rig, below, KVB_TIER_HOST, 1, 2);
    for (uint32_t i = 0; i < 2; i++) {
        kv_ok(kvb_block_set_priority(rig.kv, below[i].blocks, 1, 51, 0, NULL));
        mv_drop(&rig, &below[i]);
    }
    mv_store(&rig, &run, KVB_TIER_DEVICE, 9, 1);
    mv_offer(&rig, run.blocks[0], 50);
    mv_step(&rig);
    assert_int_equal(down(&rig).skipped_no_target, 1);
    mv_expect_in(&rig, &below[0], KVB_TIER_HOST);
    mv_expect_in(&rig, &below[1], KVB_TIER_HOST);
    mv_drop(&rig, &run);
    kv_rig_close(&rig);
}

static void test_equal_priority_is_evicted_below(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run below, run;
    mv_two_tiers(&rig, 4, 1, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    mv_store(&rig, &below, KVB_TIER_HOST, 1, 1);
    kv_ok(kvb_block_set_priority(rig.kv, below.blocks, 1, 50, 0, NULL));
    mv_drop(&rig, &below);
    mv_store(&rig, &run, KVB_TIER_DEVICE, 9, 1);
    mv_offer(&rig, run.blocks[0], 50);
    mv_step(&rig);
    assert_int_equal(down(&rig).transferred, 1);
    assert_int_equal(mv_found(&rig, &below), 0);
    mv_drop(&rig, &run);
    kv_rig_close(&rig);
}

static void test_triggered_offer_past_its_retention_has_the_default_priority(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run below, run;
    mv_two_tiers(&rig, 4, 1, KVB_OFFLOAD_ON_PARK);
    kv_rig_open(&rig);
    mv_store(&rig, &below, KVB_TIER_HOST, 1, 1);
    kv_ok(kvb_block_set_priority(rig.kv, below.blocks, 1, KVB_PRIORITY_DEFAULT + 1, 0, NULL));
    mv_drop(&rig, &below);
    mv_store(&rig, &run, KVB_TIER_DEVICE, 9, 1);
    kv_ok(kvb_block_set_priority(rig.kv, run.blocks, 1, 100, KV_MS, NULL));
    kv_advance(&rig, 2 * KV_MS);
    mv_drop(&rig, &run);
    mv_step(&rig);
    assert_int_equal(down(&rig).skipped_no_target, 1);
    mv_expect_in(&rig, &below, KVB_TIER_HOST);
    kv_rig_close(&rig);
}

/* ---- Failure ------------------------------------------------------------------------------------------------------ */

static void test_failed_copy_is_counted_and_never_findable(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_copies copies;
    struct mv_run run;
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_open(&rig, &copies);
    mv_store(&rig, &run, KVB_TIER_DEVICE, 1, 1);
    mv_fail(&copies, 1, false);
    mv_offer(&rig, run.blocks[0], 50);
    mv_drop(&rig, &run);
    mv_step(&rig);
    assert_int_equal(down(&rig).failed_transfer, 1);
    assert_int_equal(down(&rig).transferred, 0);
    assert_int_equal(mv_event_count(&rig, KVB_EVENT_STORED, KVB_TIER_HOST), 0);
    assert_int_equal(kv_stats(&rig).tiers[KVB_TIER_HOST].free_count, 4);
    mv_expect_in(&rig, &run, KVB_TIER_DEVICE);
    mv_evict_all(&rig, KVB_TIER_DEVICE);
    assert_int_equal(mv_found(&rig, &run), 0);
    kv_rig_close(&rig);
}

static void test_failed_block_of_a_batch_fails_alone(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_copies copies;
    struct mv_run runs[5];
    mv_two_tiers(&rig, 8, 8, KVB_OFFLOAD_MANUAL);
    mv_open(&rig, &copies);
    mv_store_each(&rig, runs, KVB_TIER_DEVICE, 1, 5);
    mv_fail(&copies, 3, false);
    for (uint32_t i = 0; i < 5; i++)
        mv_offer(&rig, runs[i].blocks[0], 50);
    mv_step(&rig);
    assert_int_equal(down(&rig).transferred, 4);
    assert_int_equal(down(&rig).failed_transfer, 1);
    for (uint32_t i = 0; i < 5; i++)
        mv_drop(&rig, &runs[i]);
    mv_evict_all(&rig, KVB_TIER_DEVICE);
    for (uint32_t i = 0; i < 5; i++) {
        if (i == 2)
            assert_int_equal(mv_found(&rig, &runs[i]), 0);
        else
            mv_expect_in(&rig, &runs[i], KVB_TIER_HOST);
    }
    kv_rig_close(&rig);
}

static void test_failed_block_may_be_offered_again(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_copies copies;
    struct mv_run run;
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_open(&rig, &copies);
    mv_store(&rig, &run, KVB_TIER_DEVICE, 1, 1);
    mv_fail(&copies, 1, false);
    mv_offer(&rig, run.blocks[0], 50);
    mv_step(&rig);
    mv_offer(&rig, run.blocks[0], 50);
    mv_step(&rig);
    assert_int_equal(down(&rig).transferred, 1);
    mv_drop(&rig, &run);
    kv_rig_close(&rig);
}

/* A block in transfer, held there by a fence that only the test signals. */
static void put_in_flight(struct kv_rig *rig, struct mv_run *run)
{
    mv_two_tiers(rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_bounds(rig, 0, 1, 1, 2, 8);
    kv_rig_open(rig);
    mv_store_after(rig, run, KVB_TIER_DEVICE, 1, 1, 1);
    mv_offer(rig, run->blocks[0], 50);
    mv_step(rig);
    assert_int_equal(down(rig).inflight, 1);
}

static void test_content_invalidated_in_transfer_is_not_published(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    put_in_flight(&rig, &run);
    mv_drop(&rig, &run);
    kv_ok(kvb_invalidate(rig.kv, run.seqs, 1, NULL));
    kv_check(&rig);
    mv_signal(&rig, 1);
    mv_step(&rig);
    assert_int_equal(down(&rig).failed_invalidated, 1);
    assert_int_equal(mv_found(&rig, &run), 0);
    assert_int_equal(mv_event_count(&rig, KVB_EVENT_STORED, KVB_TIER_HOST), 0);
    assert_int_equal(kv_stats(&rig).tiers[KVB_TIER_DEVICE].free_count, 4);
    assert_int_equal(kv_stats(&rig).tiers[KVB_TIER_HOST].free_count, 4);
    kv_rig_close(&rig);
}

static void test_content_cleared_in_transfer_is_not_published(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    put_in_flight(&rig, &run);
    kv_ok(kvb_manager_clear(rig.kv));
    kv_check(&rig);
    mv_signal(&rig, 1);
    mv_step(&rig);
    assert_int_equal(down(&rig).failed_invalidated, 1);
    assert_int_equal(mv_found(&rig, &run), 0);
    assert_true(mv_bytes_are(&rig, run.blocks[0], &run.seqs[0]));
    mv_drop(&rig, &run);
    assert_int_equal(kv_stats(&rig).tiers[KVB_TIER_DEVICE].free_count, 4);
    kv_rig_close(&rig);
}

static void test_content_invalidated_in_transfer_may_be_computed_anew_meanwhile(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run, again;
    put_in_flight(&rig, &run);
    mv_drop(&rig, &run);
    kv_ok(kvb_invalidate(rig.kv, run.seqs, 1, NULL));
    mv_park(&rig, &again, KVB_TIER_DEVICE, 1, 1);
    mv_signal(&rig, 1);
    mv_step(&rig);
    assert_int_equal(down(&rig).failed_invalidated, 1);
    mv_expect_in(&rig, &again, KVB_TIER_DEVICE);
    kv_rig_close(&rig);
}

static void test_content_invalidated_before_transfer_is_discarded(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run runs[2];
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_bounds(&rig, 0, 1, 1, 1, 8);
    kv_rig_open(&rig);
    mv_store_each(&rig, runs, KVB_TIER_DEVICE, 1, 2);
    for (uint32_t i = 0; i < 2; i++) /* one on deck, one queued */
        mv_offer(&rig, runs[i].blocks[0], 50);
    for (uint32_t i = 0; i < 2; i++) {
        kv_ok(kvb_invalidate(rig.kv, runs[i].seqs, 1, NULL));
        kv_check(&rig);
    }
    mv_step(&rig);
    assert_int_equal(down(&rig).discarded, 2);
    mv_drop(&rig, &runs[0]);
    mv_drop(&rig, &runs[1]);
    assert_int_equal(kv_stats(&rig).tiers[KVB_TIER_DEVICE].free_count, 4);
    kv_rig_close(&rig);
}

/* ---- Offering and cancelling by hand ------------------------------------------------------------------------------ */

static void test_cancel_takes_back_only_what_waits(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run runs[4];
    struct kvb_block *blocks[4];
    int results[4];
    mv_two_tiers(&rig, 8, 4, KVB_OFFLOAD_MANUAL);
    mv_bounds(&rig, 0, 1, 1, 2, 8);
    kv_rig_open(&rig);
    for (uint32_t i = 0; i < 4; i++) {
        mv_store_after(&rig, &runs[i], KVB_TIER_DEVICE, i + 1, 1, i == 0 ? 1 : 0);
        blocks[i] = runs[i].blocks[0];
    }
    mv_offer(&rig, blocks[0], 50);
    mv_step(&rig); /* in transfer */
    mv_offer(&rig, blocks[1], 50);
    mv_offer(&rig, blocks[2], 50);
    kv_expect(kvb_block_offload_cancel(rig.kv, blocks, 4, results), KVB_EBUSY);
    kv_check(&rig);
    assert_int_equal(results[0], KVB_EBUSY);
    assert_int_equal(results[1], KVB_EBUSY); /* on deck */
    assert_int_equal(results[2], KVB_OK);
    assert_int_equal(results[3], KVB_ENOENT);
    assert_int_equal(down(&rig).cancelled, 1);
    mv_signal(&rig, 1);
    mv_step(&rig);
    assert_int_equal(down(&rig).transferred, 2);
    for (uint32_t i = 0; i < 4; i++)
        mv_drop(&rig, &runs[i]);
    kv_rig_close(&rig);
}

static void test_offer_twice_is_busy_in_every_stage(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run runs[4];
    mv_two_tiers(&rig, 4, 8, KVB_OFFLOAD_MANUAL);
    mv_bounds(&rig, 0, 1, 1, 2, 8);
    kv_rig_open(&rig);
    for (uint32_t i = 0; i < 4; i++) {
        mv_store_after(&rig, &runs[i], KVB_TIER_DEVICE, i + 1, 1, i < 2 ? 1 : 0);
        mv_offer(&rig, runs[i].blocks[0], 50);
        if (i < 2)
            mv_step(&rig); /* the first is taken, the second waits for its fence */
    }
    assert_int_equal(down(&rig).inflight, 1);
    assert_int_equal(down(&rig).ondeck, 1);
    assert_int_equal(down(&rig).queued, 2);
    for (uint32_t i = 0; i < 4; i++)
        kv_expect(kvb_block_offload(rig.kv, runs[i].blocks, 1, 50, NULL, NULL), KVB_EBUSY);
    assert_int_equal(down(&rig).offered, 4);
    mv_signal(&rig, 1);
    mv_step(&rig);
    for (uint32_t i = 0; i < 4; i++)
        mv_drop(&rig, &runs[i]);
    kv_rig_close(&rig);
}

static void test_offer_of_a_wrong_block_changes_nothing(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run, below, twin;
    struct kvb_fence strange = {.kind = 9};
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    struct kvb_block *empty = kv_alloc(&rig, KVB_TIER_DEVICE);
    mv_store(&rig, &run, KVB_TIER_DEVICE, 1, 1);
    mv_store(&rig, &twin, KVB_TIER_DEVICE, 1, 1); /* an unindexed duplicate */
    mv_store(&rig, &below, KVB_TIER_HOST, 2, 1);
    kv_expect(kvb_block_offload(rig.kv, &empty, 1, 50, NULL, NULL), KVB_ESTATE);
    kv_expect(kvb_block_offload(rig.kv, twin.blocks, 1, 50, NULL, NULL), KVB_ESTATE);
    kv_expect(kvb_block_offload(rig.kv, below.blocks, 1, 50, NULL, NULL), KVB_ENOENT);
    kv_expect(kvb_block_offload(rig.kv, run.blocks, 1, 101, NULL, NULL), KVB_EINVAL);
    kv_expect(kvb_block_offload(rig.kv, run.blocks, 1, 50, &strange, NULL), KVB_EINVAL);
    kv_expect(kvb_block_offload_cancel(rig.kv, below.blocks, 1, NULL), KVB_ENOENT);
    kv_check(&rig);
    assert_int_equal(down(&rig).offered, 0);
    kv_ok(kvb_invalidate(rig.kv, run.seqs, 1, NULL));
    kv_expect(kvb_block_offload(rig.kv, run.blocks, 1, 50, NULL, NULL), KVB_ESTATE);
    kv_unref(&rig, empty);
    mv_drop(&rig, &run);
    mv_drop(&rig, &twin);
    mv_drop(&rig, &below);
    kv_rig_close(&rig);
}

static void test_unindexed_duplicate_is_never_offered(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run, twin;
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_ON_REGISTER);
    kv_rig_open(&rig);
    mv_store(&rig, &run, KVB_TIER_DEVICE, 1, 1);
    mv_store(&rig, &twin, KVB_TIER_DEVICE, 1, 1);
    mv_step(&rig);
    assert_int_equal(down(&rig).offered, 1);
    mv_drop(&rig, &twin);
    mv_drop(&rig, &run);
    kv_rig_close(&rig);
}

/* ---- Room ---------------------------------------------------------------------------------------------------------- */

static void test_alloc_turns_on_deck_handles_into_weak_ones(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run runs[4];
    struct kvb_block *blocks[4];
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    mv_store_each(&rig, runs, KVB_TIER_DEVICE, 1, 4);
    for (uint32_t i = 0; i < 4; i++)
        mv_offer(&rig, runs[i].blocks[0], 50);
    for (uint32_t i = 0; i < 4; i++)
        mv_drop(&rig, &runs[i]);
    assert_int_equal(down(&rig).ondeck, 4);
    assert_int_equal(kv_stats(&rig).tiers[KVB_TIER_DEVICE].available_count, 4);
    kv_ok(kvb_alloc(rig.kv, KVB_TIER_DEVICE, 4, NULL, blocks, NULL));
    kv_check(&rig);
    mv_step(&rig);
    assert_int_equal(down(&rig).discarded, 4);
    kv_ok(kvb_block_unref(rig.kv, blocks, 4, NULL));
    kv_rig_close(&rig);
}

static void test_revoked_handles_of_blocks_that_stay_are_transferred_later(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run runs[4];
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    mv_store_each(&rig, runs, KVB_TIER_DEVICE, 1, 4);
    for (uint32_t i = 0; i < 4; i++)
        mv_offer(&rig, runs[i].blocks[0], 50);
    for (uint32_t i = 0; i < 4; i++)
        mv_drop(&rig, &runs[i]);
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    kv_check(&rig);
    mv_step(&rig);
    assert_int_equal(down(&rig).transferred, 3);
    assert_int_equal(down(&rig).discarded, 1);
    kv_unref(&rig, block);
    kv_rig_close(&rig);
}

static void test_alloc_says_again_when_transfers_alone_hold_what_is_missing(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    struct kvb_block *blocks[4];
    uint32_t missing = 0;
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    mv_store_after(&rig, &run, KVB_TIER_DEVICE, 1, 4, 1);
    for (uint32_t i = 0; i < 4; i++)
        mv_offer(&rig, run.blocks[i], 50);
    mv_step(&rig);
    mv_drop(&rig, &run);
    kv_expect(kvb_alloc(rig.kv, KVB_TIER_DEVICE, 3, NULL, blocks, &missing), KVB_EAGAIN);
    assert_int_equal(missing, 3);
    assert_null(blocks[0]);
    mv_signal(&rig, 1);
    mv_step(&rig);
    kv_ok(kvb_alloc(rig.kv, KVB_TIER_DEVICE, 4, NULL, blocks, NULL));
    kv_ok(kvb_block_unref(rig.kv, blocks, 4, NULL));
    kv_rig_close(&rig);
}

static void test_alloc_says_no_space_when_the_caller_holds_a_part_of_what_is_missing(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    struct kvb_block *blocks[4];
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    mv_store_after(&rig, &run, KVB_TIER_DEVICE, 1, 3, 1);
    for (uint32_t i = 0; i < 3; i++)
        mv_offer(&rig, run.blocks[i], 50);
    mv_step(&rig);
    mv_drop(&rig, &run);
    struct kvb_block *held = kv_alloc(&rig, KVB_TIER_DEVICE);
    kv_expect(kvb_alloc(rig.kv, KVB_TIER_DEVICE, 4, NULL, blocks, NULL), KVB_ENOSPC);
    kv_check(&rig);
    kv_unref(&rig, held);
    mv_signal(&rig, 1);
    mv_step(&rig);
    kv_rig_close(&rig);
}

/* ---- Triggers ----------------------------------------------------------------------------------------------------- */

static void test_trigger_register_offers_at_register(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_ON_REGISTER);
    kv_rig_open(&rig);
    mv_store(&rig, &run, KVB_TIER_DEVICE, 1, 3);
    assert_int_equal(down(&rig).offered, 3);
    mv_step(&rig);
    assert_int_equal(down(&rig).transferred, 3);
    mv_drop(&rig, &run);
    kv_rig_close(&rig);
}

static void test_trigger_park_offers_when_the_last_user_leaves(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_ON_PARK);
    kv_rig_open(&rig);
    mv_store(&rig, &run, KVB_TIER_DEVICE, 1, 1);
    kv_ok(kvb_block_ref(rig.kv, run.blocks, 1, NULL));
    kv_unref(&rig, run.blocks[0]);
    mv_step(&rig);
    assert_int_equal(down(&rig).offered, 0);
    mv_drop(&rig, &run);
    assert_int_equal(down(&rig).offered, 1);
    mv_step(&rig);
    assert_int_equal(down(&rig).transferred, 1);
    kv_rig_close(&rig);
}

static void test_trigger_park_offers_the_first_of_an_array_first(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_copies copies;
    struct mv_run run;
    uint32_t slots[4];
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_ON_PARK);
    mv_open(&rig, &copies);
    mv_store(&rig, &run, KVB_TIER_DEVICE, 1, 4);
    for (uint32_t i = 0; i < 4; i++)
        slots[i] = kvb_block_slot(rig.kv, run.blocks[i]);
    mv_drop(&rig, &run);
    mv_step(&rig);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(copies.list[i].from_slot, slots[i]);
    kv_rig_close(&rig);
}

static void test_trigger_park_offers_when_the_last_pin_ends(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_ON_PARK);
    kv_rig_open(&rig);
    mv_store(&rig, &run, KVB_TIER_DEVICE, 1, 1);
    kv_ok(kvb_pin(rig.kv, 7, run.blocks, 1, KV_MS, NULL));
    mv_drop(&rig, &run);
    mv_step(&rig);
    assert_int_equal(down(&rig).offered, 0);
    kv_advance(&rig, KV_MS);
    mv_step(&rig);
    assert_int_equal(down(&rig).transferred, 1);
    kv_rig_close(&rig);
}

static void test_trigger_park_offers_what_an_operation_gives_back(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    mv_two_tiers(&rig, 4, 1, KVB_OFFLOAD_ON_PARK);
    kv_rig_open(&rig);
    mv_park(&rig, &run, KVB_TIER_HOST, 1, 1);
    struct kvb_op *op = mv_bring_up(&rig, &run, KVB_TIER_DEVICE, NULL);
    mv_step(&rig);
    mv_evict_all(&rig, KVB_TIER_HOST);
    kv_ok(kvb_op_release(rig.kv, op)); /* not taken: parked */
    kv_check(&rig);
    mv_step(&rig);
    assert_int_equal(down(&rig).transferred, 1);
    mv_evict_all(&rig, KVB_TIER_DEVICE);
    mv_expect_in(&rig, &run, KVB_TIER_HOST);
    kv_rig_close(&rig);
}

static void test_trigger_manual_never_offers_by_itself(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    mv_park(&rig, &run, KVB_TIER_DEVICE, 1, 4);
    mv_step(&rig);
    assert_int_equal(down(&rig).offered, 0);
    kv_rig_close(&rig);
}

static void test_trigger_cold_offers_exactly_the_oldest_tenth(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run runs[20];
    mv_two_tiers(&rig, 20, 20, KVB_OFFLOAD_ON_COLD);
    kv_rig_open(&rig);
    mv_store_each(&rig, runs, KVB_TIER_DEVICE, 1, 20);
    for (uint32_t i = 0; i < 20; i++)
        mv_drop(&rig, &runs[i]);
    mv_step(&rig);
    assert_int_equal(down(&rig).transferred, 2);
    mv_evict_all(&rig, KVB_TIER_DEVICE);
    for (uint32_t i = 0; i < 20; i++)
        assert_int_equal(mv_found(&rig, &runs[i]), i < 2);
    kv_rig_close(&rig);
}

static void test_trigger_cold_counts_from_a_blocks_latest_use(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run runs[20];
    mv_two_tiers(&rig, 20, 20, KVB_OFFLOAD_ON_COLD);
    kv_rig_open(&rig);
    mv_store_each(&rig, runs, KVB_TIER_DEVICE, 1, 20);
    for (uint32_t i = 0; i < 20; i++)
        mv_drop(&rig, &runs[i]);
    assert_int_equal(mv_match(&rig, &runs[0]), 1); /* used once more: the youngest */
    mv_drop(&rig, &runs[0]);
    mv_step(&rig);
    mv_evict_all(&rig, KVB_TIER_DEVICE);
    for (uint32_t i = 0; i < 20; i++)
        assert_int_equal(mv_found(&rig, &runs[i]), i == 1 || i == 2);
    kv_rig_close(&rig);
}

static void test_trigger_cold_offers_again_what_became_cold_again(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_copies copies;
    struct mv_run runs[10];
    mv_two_tiers(&rig, 10, 10, KVB_OFFLOAD_ON_COLD);
    mv_open(&rig, &copies);
    mv_store_each(&rig, runs, KVB_TIER_DEVICE, 1, 10);
    mv_fail(&copies, 1, false);
    for (uint32_t i = 0; i < 10; i++)
        mv_drop(&rig, &runs[i]);
    mv_step(&rig);
    assert_int_equal(down(&rig).failed_transfer, 1);
    mv_step(&rig);
    assert_int_equal(down(&rig).offered, 1); /* cold still, and offered once */
    for (uint32_t i = 0; i < 10; i++) {      /* used once more, in the same order */
        assert_int_equal(mv_match(&rig, &runs[i]), 1);
        mv_drop(&rig, &runs[i]);
    }
    mv_step(&rig);
    assert_int_equal(down(&rig).transferred, 1);
    mv_evict_all(&rig, KVB_TIER_DEVICE);
    mv_expect_in(&rig, &runs[0], KVB_TIER_HOST);
    kv_rig_close(&rig);
}

/* ---- Admission ---------------------------------------------------------------------------------------------------- */

struct gate {
    uint64_t refused_hash;
    uint32_t asked;
    struct kvb_admission_request last;
};

static int admit(void *context, const struct kvb_admission_request *request)
{
    struct gate *gate = context;
    gate->asked++;
    gate->last = *request;
    return ((const struct kvb_seq *)request->key)->hash != gate->refused_hash;
}

static void test_admission_refusal_skips_the_block_and_counts(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct gate gate = {0};
    struct mv_run runs[3];
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_MANUAL);
    rig.config.admission = (struct kvb_admission){admit, &gate};
    kv_rig_open(&rig);
    mv_store_each(&rig, runs, KVB_TIER_DEVICE, 1, 3);
    gate.refused_hash = runs[1].seqs[0].hash;
    for (uint32_t i = 0; i < 3; i++)
        mv_offer(&rig, runs[i].blocks[0], 42);
    mv_step(&rig);
    assert_int_equal(gate.asked, 3);
    assert_int_equal(down(&rig).skipped_admission, 1);
    assert_int_equal(down(&rig).transferred, 2);
    for (uint32_t i = 0; i < 3; i++)
        mv_drop(&rig, &runs[i]);
    mv_evict_all(&rig, KVB_TIER_DEVICE);
    assert_int_equal(mv_found(&rig, &runs[1]), 0);
    kv_rig_close(&rig);
}

static void test_admission_is_told_what_is_to_be_copied(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct gate gate = {0};
    struct mv_run run;
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_MANUAL);
    rig.config.admission = (struct kvb_admission){admit, &gate};
    kv_rig_open(&rig);
    mv_store(&rig, &run, KVB_TIER_DEVICE, 1, 1);
    mv_offer(&rig, run.blocks[0], 42);
    mv_step(&rig);
    assert_int_equal(gate.last.size, sizeof gate.last);
    assert_int_equal(gate.last.from_tier, KVB_TIER_DEVICE);
    assert_int_equal(gate.last.to_tier, KVB_TIER_HOST);
    assert_int_equal(gate.last.namespace_id, 0);
    assert_int_equal(gate.last.priority, 42);
    mv_drop(&rig, &run);
    kv_rig_close(&rig);
}

/* ---- Chains of tiers ---------------------------------------------------------------------------------------------- */

static void test_chain_with_register_triggers_fills_all_tiers(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    mv_three_tiers(&rig, 4, 4, 4);
    rig.tiers[0].trigger = rig.tiers[1].trigger = KVB_OFFLOAD_ON_REGISTER;
    kv_rig_open(&rig);
    mv_park(&rig, &run, KVB_TIER_DEVICE, 1, 4);
    mv_step(&rig);
    mv_expect_in(&rig, &run, KVB_TIER_DEVICE);
    mv_evict_all(&rig, KVB_TIER_DEVICE);
    mv_expect_in(&rig, &run, KVB_TIER_HOST);
    mv_evict_all(&rig, KVB_TIER_HOST);
    mv_expect_in(&rig, &run, KVB_TIER_DISK);
    mv_expect_books(&rig, true);
    kv_rig_close(&rig);
}

static void test_chain_with_park_triggers_fills_all_tiers(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    mv_three_tiers(&rig, 4, 4, 4);
    rig.tiers[0].trigger = rig.tiers[1].trigger = KVB_OFFLOAD_ON_PARK;
    kv_rig_open(&rig);
    mv_store(&rig, &run, KVB_TIER_DEVICE, 1, 4);
    mv_step(&rig);
    assert_int_equal(down(&rig).offered, 0);
    mv_drop(&rig, &run);
    mv_step(&rig);
    mv_evict_all(&rig, KVB_TIER_DEVICE);
    mv_expect_in(&rig, &run, KVB_TIER_HOST);
    mv_evict_all(&rig, KVB_TIER_HOST);
    mv_expect_in(&rig, &run, KVB_TIER_DISK);
    kv_rig_close(&rig);
}

static void test_chain_with_cold_trigger_below_moves_the_oldest_tenth_on(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run runs[20];
    mv_three_tiers(&rig, 20, 20, 20);
    rig.tiers[0].trigger = KVB_OFFLOAD_ON_REGISTER;
    rig.tiers[1].trigger = KVB_OFFLOAD_ON_COLD;
    kv_rig_open(&rig);
    mv_store_each(&rig, runs, KVB_TIER_DEVICE, 1, 20);
    mv_step(&rig); /* parked below in the order of their offers, all of them in one go */
    for (uint32_t i = 0; i < 20; i++)
        mv_drop(&rig, &runs[i]);
    mv_evict_all(&rig, KVB_TIER_DEVICE);
    mv_evict_all(&rig, KVB_TIER_HOST);
    for (uint32_t i = 0; i < 20; i++)
        assert_int_equal(mv_in_tier(&rig, &runs[i], KVB_TIER_DISK), i < 2);
    assert_int_equal(mv_lane(&rig, KVB_TIER_HOST, KVB_TIER_DISK).transferred, 2);
    kv_rig_close(&rig);
}

/* ---- Fences ------------------------------------------------------------------------------------------------------- */

enum fence_at { FENCE_NOWHERE, FENCE_AT_DONE, FENCE_AT_REGISTER, FENCE_AT_OFFER };

/* A block whose bytes are written after compute_done, as by a device. True if the copy below has them. */
static bool copy_has_late_bytes(enum fence_at where)
{
    static const uint32_t full = KV_TOKENS;
    struct kvb_fence fence = {.kind = KVB_FENCE_COUNTER, .handle = 5};
    struct kv_rig rig;
    struct mv_run run;
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    mv_name(&rig, &run, 1, 1);
    struct kvb_block *block = run.blocks[0] = kv_alloc(&rig, KVB_TIER_DEVICE);
    kv_init(&rig, block, 0, 0, NULL);
    kv_append(&rig, block, run.tokens, KV_TOKENS, 0);
    kv_schedule(&rig, block);
    kv_payload_fill(&rig, block, UINT64_C(0xbad));
    kv_ok(kvb_block_compute_done(rig.kv, &block, &full, 1, where == FENCE_AT_DONE ? &fence : NULL,
                                 NULL));
    kv_ok(kvb_block_register(rig.kv, &block, 1, NULL, where == FENCE_AT_REGISTER ? &fence : NULL,
                             NULL));
    kv_ok(kvb_block_offload(rig.kv, &block, 1, 50, where == FENCE_AT_OFFER ? &fence : NULL, NULL));
    mv_step(&rig);
    mv_signal(&rig, 4);
    mv_step(&rig);
    kv_payload_fill(&rig, block, run.seqs[0].hash); /* the device writes now ... */
    mv_signal(&rig, 5);                             /* ... and says so */
    mv_step(&rig);
    assert_int_equal(down(&rig).transferred, 1);
    kv_unref(&rig, block);
    mv_evict_all(&rig, KVB_TIER_DEVICE);
    struct kvb_query query = kv_query(0, run.tokens, KV_TOKENS);
    struct kvb_hit hit;
    size_t count = 0;
    kv_ok(kvb_match(rig.kv, &query, &hit, 1, &count));
    assert_int_equal(count, 1);
    assert_int_equal(hit.tier, KVB_TIER_HOST);
    bool late = mv_bytes_are(&rig, hit.block, &run.seqs[0]);
    kv_unref(&rig, hit.block);
    kv_rig_close(&rig);
    return late;
}

static void test_fence_of_compute_done_is_waited_for(void **state)
{
    (void)state;
    assert_true(copy_has_late_bytes(FENCE_AT_DONE));
}

static void test_fence_of_register_is_waited_for(void **state)
{
    (void)state;
    assert_true(copy_has_late_bytes(FENCE_AT_REGISTER));
}

static void test_fence_of_offload_is_waited_for(void **state)
{
    (void)state;
    assert_true(copy_has_late_bytes(FENCE_AT_OFFER));
}

static void test_no_fence_copies_what_is_there_too_early(void **state)
{
    (void)state;
    assert_false(copy_has_late_bytes(FENCE_NOWHERE));
}

static void test_later_of_two_fences_counts(void **state)
{
    (void)state;
    static const uint32_t full = KV_TOKENS;
    struct kvb_fence early = {.kind = KVB_FENCE_COUNTER, .handle = 3};
    struct kvb_fence late = {.kind = KVB_FENCE_COUNTER, .handle = 6};
    struct kv_rig rig;
    struct mv_run run;
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_ON_REGISTER);
    kv_rig_open(&rig);
    mv_name(&rig, &run, 1, 1);
    struct kvb_block *block = kv_alloc(&rig, KVB_TIER_DEVICE);
    kv_init(&rig, block, 0, 0, NULL);
    kv_append(&rig, block, run.tokens, KV_TOKENS, 0);
    kv_schedule(&rig, block);
    kv_ok(kvb_block_compute_done(rig.kv, &block, &full, 1, &late, NULL));
    kv_ok(kvb_block_register(rig.kv, &block, 1, NULL, &early, NULL));
    mv_signal(&rig, 5);
    mv_step(&rig);
    assert_int_equal(down(&rig).transferred, 0);
    mv_signal(&rig, 6);
    mv_step(&rig);
    assert_int_equal(down(&rig).transferred, 1);
    kv_unref(&rig, block);
    kv_rig_close(&rig);
}

/* ---- What eviction sees of it ------------------------------------------------------------------------------------- */

static void test_transfer_does_not_change_recency(void **state)
{
    (void)state;
    static const uint32_t offer_order[] = {3, 1, 0, 2};
    struct kv_rig rig;
    struct mv_run runs[4];
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_bounds(&rig, 0, 1, 1, 1, 8); /* all but one are upgraded from weak handles */
    kv_rig_open(&rig);
    mv_store_each(&rig, runs, KVB_TIER_DEVICE, 1, 4);
    for (uint32_t i = 0; i < 4; i++)
        mv_offer(&rig, runs[offer_order[i]].blocks[0], 50);
    for (uint32_t i = 0; i < 4; i++)
        mv_drop(&rig, &runs[i]);
    mv_step(&rig);
    assert_int_equal(down(&rig).transferred, 4);
    mv_evict_all(&rig, KVB_TIER_DEVICE);
    mv_step(&rig);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(mv_event(&rig, KVB_EVENT_REMOVED, KVB_TIER_DEVICE, i),
                         runs[i].seqs[0].hash);
    kv_rig_close(&rig);
}

static void test_transfer_that_an_eviction_met_keeps_its_block_the_next_to_go(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run moving, others[2];
    mv_two_tiers(&rig, 3, 4, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    mv_store_after(&rig, &moving, KVB_TIER_DEVICE, 1, 1, 1);
    mv_store_each(&rig, others, KVB_TIER_DEVICE, 2, 2);
    mv_offer(&rig, moving.blocks[0], 50);
    mv_drop(&rig, &moving); /* the oldest */
    mv_drop(&rig, &others[0]);
    mv_drop(&rig, &others[1]);
    mv_step(&rig);
    struct kvb_block *block =
        kv_alloc(&rig, KVB_TIER_DEVICE); /* passes the oldest by: it is being read */
    kv_check(&rig);
    assert_int_equal(mv_in_tier(&rig, &moving, KVB_TIER_DEVICE), 1);
    assert_int_equal(mv_found(&rig, &others[0]), 0);
    mv_signal(&rig, 1);
    mv_step(&rig);
    kv_unref(&rig, block);
    mv_evict_all(&rig, KVB_TIER_DEVICE);
    mv_step(&rig);
    assert_int_equal(mv_event(&rig, KVB_EVENT_REMOVED, KVB_TIER_DEVICE, 1), moving.seqs[0].hash);
    assert_int_equal(mv_event(&rig, KVB_EVENT_REMOVED, KVB_TIER_DEVICE, 2), others[1].seqs[0].hash);
    kv_rig_close(&rig);
}

static void test_block_parked_by_a_lane_goes_before_its_parent(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run chain, other;
    mv_two_tiers(&rig, 4, 3, KVB_OFFLOAD_MANUAL);
    kv_rig_open(&rig);
    mv_store(&rig, &chain, KVB_TIER_DEVICE, 1, 2);
    mv_store(&rig, &other, KVB_TIER_DEVICE, 2, 1);
    mv_offer(&rig, chain.blocks[0], 50);
    mv_offer(&rig, other.blocks[0], 50);
    mv_offer(&rig, chain.blocks[1], 50); /* the youngest arrival, but below its parent */
    mv_step(&rig);
    mv_evict_all(&rig, KVB_TIER_HOST);
    mv_step(&rig);
    assert_int_equal(mv_event(&rig, KVB_EVENT_REMOVED, KVB_TIER_HOST, 0), chain.seqs[1].hash);
    assert_int_equal(mv_event(&rig, KVB_EVENT_REMOVED, KVB_TIER_HOST, 1), chain.seqs[0].hash);
    assert_int_equal(mv_event(&rig, KVB_EVENT_REMOVED, KVB_TIER_HOST, 2), other.seqs[0].hash);
    mv_drop(&rig, &chain);
    mv_drop(&rig, &other);
    kv_rig_close(&rig);
}

static void test_chain_parked_by_a_lane_is_evicted_tail_first(void **state)
{
    (void)state;
    struct kv_rig rig;
    struct mv_run run;
    mv_two_tiers(&rig, 4, 4, KVB_OFFLOAD_ON_REGISTER);
    kv_rig_open(&rig);
    mv_store(&rig, &run, KVB_TIER_DEVICE, 1, 4);
    mv_step(&rig);
    mv_evict_all(&rig, KVB_TIER_HOST);
    mv_step(&rig);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(mv_event(&rig, KVB_EVENT_REMOVED, KVB_TIER_HOST, i), run.seqs[3 - i].hash);
    mv_drop(&rig, &run);
    kv_rig_close(&rig);
}

/* ---- Whatever happens --------------------------------------------------------------------------------------------- */

#define CHAINS 5
#define CHAIN_LENGTH 4

struct world {
    struct kv_rig rig;
    struct mv_copies copies;
    struct mv_run chains[CHAINS];
    struct kvb_block *held[8]; /* Registered, each with its content's hash */
    uint64_t held_hash[8];
    struct kvb_op *ops[4];
    struct mv_run op_runs[4];
    uint64_t seed, fence;
    uint64_t verified;
};

/* An ordinary outcome: 0, or one of two errors that the state of things may call for. */
static void world_expect(int code, int or_this, int or_that)
{
    if (code != or_this && code != or_that)
        kv_expect(code, KVB_OK);
}

static void world_keep(struct world *world, struct kvb_block *block, uint64_t hash)
{
    for (uint32_t i = 0; i < 8; i++) {
        if (world->held[i] == NULL) {
            world->held[i] = block;
            world->held_hash[i] = hash;
            return;
        }
    }
    kv_unref(&world->rig, block);
}

static void world_let_go(struct world *world, uint32_t which)
{
    if (world->held[which] == NULL)
        return;
    assert_true(kv_payload_is(&world->rig, world->held[which], world->held_hash[which]));
    world->verified++;
    kv_unref(&world->rig, world->held[which]);
    world->held[which] = NULL;
}

/* Compute what is missing of a chain, in a random tier; sometimes the bytes are only there when a fence says so. */
static void world_compute(struct world *world, struct mv_run *chain, uint32_t tier)
{
    struct kvb_fence fence = {.kind = KVB_FENCE_COUNTER, .handle = world->fence + 1};
    uint32_t found = mv_match(&world->rig, chain);
    uint32_t missing = chain->count - found;
    int code = kvb_alloc(world->rig.kv, tier, missing, NULL, chain->blocks + found, NULL);
    if (code == 0) {
        mv_compute(&world->rig, chain, found);
        bool late = kv_random(&world->seed, 4) == 0;
        kv_ok(kvb_block_register(world->rig.kv, chain->blocks + found, missing, NULL,
                                 late ? &fence : NULL, NULL));
        found = chain->count;
    }
    world_expect(code, KVB_EAGAIN, KVB_ENOSPC);
    for (uint32_t i = found; i-- > 0;) {
        if (kv_random(&world->seed, 4) == 0)
            world_keep(world, chain->blocks[i], chain->seqs[i].hash);
        else
            kv_unref(&world->rig, chain->blocks[i]);
    }
}

static void world_onboard(struct world *world, const struct mv_run *chain)
{
    uint32_t which = kv_random(&world->seed, 4);
    if (world->ops[which] != NULL) {
        kv_ok(kvb_op_cancel(world->rig.kv, world->ops[which]));
        return;
    }
    struct mv_run *run = &world->op_runs[which];
    struct kvb_block *targets[CHAIN_LENGTH];
    *run = *chain;
    uint32_t found = mv_match(&world->rig, run), tier = kv_random(&world->seed, 2);
    bool above = found > 0 && kvb_alloc(world->rig.kv, tier, found, NULL, targets, NULL) == 0;
    if (above) {
        struct kvb_onboard request = mv_request(run->blocks, targets, found, NULL);
        request.timeout_ns = kv_random(&world->seed, 3) == 0 ? KV_MS : 0;
        int code = kvb_onboard(world->rig.kv, &request, &world->ops[which]);
        if (code != 0) {
            assert_int_equal(code,
                             KVB_EINVAL); /* a source is in the target's tier already, or above */
            kv_ok(kvb_block_unref(world->rig.kv, targets, found, NULL));
        }
    }
    kv_ok(kvb_block_unref(world->rig.kv, run->blocks, found, NULL));
    run->count = found;
}

static void world_take(struct world *world, uint32_t which)
{
    uint32_t good = 0;
    struct mv_run *run = &world->op_runs[which];
    if (world->ops[which] == NULL)
        return;
    int code = kvb_op_take(world->rig.kv, world->ops[which], run->blocks, run->count, &good);
    if (code == KVB_EAGAIN)
        return;
    kv_expect(code, KVB_OK);
    kv_ok(kvb_op_release(world->rig.kv, world->ops[which]));
    world->ops[which] = NULL;
    for (uint32_t i = run->count; i-- > 0;) {
        if (run->blocks[i] == NULL)
            continue;
        if (i < good)
            assert_true(mv_bytes_are(&world->rig, run->blocks[i], &run->seqs[i]));
        kv_unref(&world->rig, run->blocks[i]);
    }
}

static void world_step(struct world *world)
{
    struct kv_rig *rig = &world->rig;
    struct mv_run *chain = &world->chains[kv_random(&world->seed, CHAINS)];
    uint32_t any = kv_random(&world->seed, 8);
    switch (kv_random(&world->seed, 14)) {
    case 0:
    case 1:
    case 2:
        world_compute(world, chain, KVB_TIER_DEVICE);
        break;
    case 3:
        world_compute(world, chain, KVB_TIER_HOST + kv_random(&world->seed, 2));
        break;
    case 4:
        if (world->held[any] != NULL)
            world_expect(kvb_block_offload(rig->kv, &world->held[any], 1,
                                           kv_random(&world->seed, 101), NULL, NULL),
                         KVB_EBUSY,
                         kv_describe(rig, world->held[any]).indexed ? KVB_ENOENT : KVB_ESTATE);
        break;
    case 5:
        if (world->held[any] != NULL)
            world_expect(kvb_block_offload_cancel(rig->kv, &world->held[any], 1, NULL), KVB_EBUSY,
                         KVB_ENOENT);
        break;
    case 6:
        if (world->held[any] != NULL)
            kv_ok(kvb_block_set_priority(rig->kv, &world->held[any], 1,
                                         kv_random(&world->seed, 101), KV_MS, NULL));
        break;
    case 7:
        world_let_go(world, any);
        break;
    case 8:
        world_onboard(world, chain);
        break;
    case 9:
        world_take(world, any % 4);
        break;
    case 10:
        world_expect(kvb_invalidate(rig->kv, &chain->seqs[any % CHAIN_LENGTH], 1, NULL), KVB_ENOENT,
                     KVB_OK);
        if (any == 0)
            kv_ok(kvb_manager_clear(rig->kv));
        break;
    case 11:
        kv_ok(kvb_fence_signal(rig->kv, ++world->fence));
        kv_advance(rig, KV_MS / 4);
        break;
    case 12:
        mv_fail(&world->copies, 1 + any, false);
        break;
    default:
        world_expect(kvb_manager_poll(rig->kv, any < 4 ? 0 : KVB_FOREVER), 1, KVB_OK);
        break;
    }
    kv_check(rig);
    mv_expect_books(rig, false);
}

static void run_world(uint64_t seed)
{
    struct world *world = calloc(1, sizeof *world);
    assert_non_null(world);
    mv_three_tiers(&world->rig, 9, 8, 10);
    world->seed = seed * UINT64_C(1000003);
    world->rig.tiers[0].trigger = 1 + kv_random(&world->seed, 4);
    world->rig.tiers[1].trigger = 1 + kv_random(&world->seed, 4);
    for (uint32_t i = 0; i < 2; i++)
        mv_bounds(&world->rig, i, 1 + kv_random(&world->seed, 3), 1 + kv_random(&world->seed, 3),
                  1 + kv_random(&world->seed, 2), 1 + kv_random(&world->seed, 4));
    mv_open(&world->rig, &world->copies);
    for (uint32_t i = 0; i < CHAINS; i++)
        mv_name(&world->rig, &world->chains[i], i + 1, CHAIN_LENGTH);
    for (uint32_t step = 0; step < 400; step++)
        world_step(world);
    kv_ok(kvb_fence_signal(world->rig.kv, UINT64_MAX));
    mv_step(&world->rig);
    for (uint32_t i = 0; i < 4; i++)
        world_take(world, i);
    for (uint32_t i = 0; i < 8; i++)
        world_let_go(world, i);
    mv_step(&world->rig);
    mv_expect_books(&world->rig, true);
    assert_true(world->verified > 0);
    kv_rig_close(&world->rig);
    free(world);
}

static void test_books_and_invariants_hold_under_random_calls(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++)
        run_world(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_offer_with_room_goes_on_deck),
        cmocka_unit_test(test_offer_beyond_the_deck_is_demoted_to_the_queue),
        cmocka_unit_test(test_queue_gives_the_highest_priority_first_and_within_it_the_oldest),
        cmocka_unit_test(test_deck_is_refilled_when_the_engine_takes_from_it),
        cmocka_unit_test(test_transfer_delivers_the_same_bytes),
        cmocka_unit_test(test_device_and_disk_alone_are_neighbours),
        cmocka_unit_test(test_queued_offer_of_an_evicted_block_is_discarded),
        cmocka_unit_test(test_discarded_offer_leaves_the_slots_next_life_alone),
        cmocka_unit_test(test_offer_of_what_is_below_already_is_skipped),
        cmocka_unit_test(test_queued_offer_is_skipped_when_the_content_came_below_meanwhile),
        cmocka_unit_test(test_full_queue_sheds_an_incoming_offer_that_is_no_better),
        cmocka_unit_test(test_full_queue_sheds_the_youngest_of_its_lowest_for_a_better_one),
        cmocka_unit_test(test_shed_block_may_be_offered_again),
        cmocka_unit_test(test_lane_never_pins_more_than_its_bounds),
        cmocka_unit_test(test_batch_with_little_room_below_moves_what_fits),
        cmocka_unit_test(test_nothing_of_higher_priority_is_evicted_below),
        cmocka_unit_test(test_equal_priority_is_evicted_below),
        cmocka_unit_test(test_triggered_offer_past_its_retention_has_the_default_priority),
        cmocka_unit_test(test_failed_copy_is_counted_and_never_findable),
        cmocka_unit_test(test_failed_block_of_a_batch_fails_alone),
        cmocka_unit_test(test_failed_block_may_be_offered_again),
        cmocka_unit_test(test_content_invalidated_in_transfer_is_not_published),
        cmocka_unit_test(test_content_cleared_in_transfer_is_not_published),
        cmocka_unit_test(test_content_invalidated_in_transfer_may_be_computed_anew_meanwhile),
        cmocka_unit_test(test_content_invalidated_before_transfer_is_discarded),
        cmocka_unit_test(test_cancel_takes_back_only_what_waits),
        cmocka_unit_test(test_offer_twice_is_busy_in_every_stage),
        cmocka_unit_test(test_offer_of_a_wrong_block_changes_nothing),
        cmocka_unit_test(test_unindexed_duplicate_is_never_offered),
        cmocka_unit_test(test_alloc_turns_on_deck_handles_into_weak_ones),
        cmocka_unit_test(test_revoked_handles_of_blocks_that_stay_are_transferred_later),
        cmocka_unit_test(test_alloc_says_again_when_transfers_alone_hold_what_is_missing),
        cmocka_unit_test(test_alloc_says_no_space_when_the_caller_holds_a_part_of_what_is_missing),
        cmocka_unit_test(test_trigger_register_offers_at_register),
        cmocka_unit_test(test_trigger_park_offers_when_the_last_user_leaves),
        cmocka_unit_test(test_trigger_park_offers_the_first_of_an_array_first),
        cmocka_unit_test(test_trigger_park_offers_when_the_last_pin_ends),
        cmocka_unit_test(test_trigger_park_offers_what_an_operation_gives_back),
        cmocka_unit_test(test_trigger_manual_never_offers_by_itself),
        cmocka_unit_test(test_trigger_cold_offers_exactly_the_oldest_tenth),
        cmocka_unit_test(test_trigger_cold_counts_from_a_blocks_latest_use),
        cmocka_unit_test(test_trigger_cold_offers_again_what_became_cold_again),
        cmocka_unit_test(test_admission_refusal_skips_the_block_and_counts),
        cmocka_unit_test(test_admission_is_told_what_is_to_be_copied),
        cmocka_unit_test(test_chain_with_register_triggers_fills_all_tiers),
        cmocka_unit_test(test_chain_with_park_triggers_fills_all_tiers),
        cmocka_unit_test(test_chain_with_cold_trigger_below_moves_the_oldest_tenth_on),
        cmocka_unit_test(test_fence_of_compute_done_is_waited_for),
        cmocka_unit_test(test_fence_of_register_is_waited_for),
        cmocka_unit_test(test_fence_of_offload_is_waited_for),
        cmocka_unit_test(test_no_fence_copies_what_is_there_too_early),
        cmocka_unit_test(test_later_of_two_fences_counts),
        cmocka_unit_test(test_transfer_does_not_change_recency),
        cmocka_unit_test(test_transfer_that_an_eviction_met_keeps_its_block_the_next_to_go),
        cmocka_unit_test(test_block_parked_by_a_lane_goes_before_its_parent),
        cmocka_unit_test(test_chain_parked_by_a_lane_is_evicted_tail_first),
        cmocka_unit_test(test_books_and_invariants_hold_under_random_calls),
    };
    return cmocka_run_group_tests_name("offload", tests, NULL, NULL);
}
