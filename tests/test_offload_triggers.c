/* SPDX-License-Identifier: Apache-2.0 */
/* Moving down by itself: triggers, admission, and chains of tiers. */
#include "support/kv_scene.h"
#include "support/move_test.h"

/* ---- Triggers -------------------------------------------------------------------------------- */

static void test_trigger_register_offers_at_register(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    mv_open_two(rig, 4, 4, KVB_OFFLOAD_ON_REGISTER);
    mv_store(rig, &run, KVB_TIER_DEVICE, 1, 3);
    assert_int_equal(mv_down(rig).offered, 3);
    mv_step(rig);
    assert_int_equal(mv_down(rig).transferred, 3);
    mv_drop(rig, &run);
}

static void test_trigger_park_offers_when_the_last_user_leaves(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    mv_open_two(rig, 4, 4, KVB_OFFLOAD_ON_PARK);
    mv_store(rig, &run, KVB_TIER_DEVICE, 1, 1);
    kv_ok(kvb_block_ref(rig->kv, run.blocks, 1, NULL));
    kv_unref(rig, run.blocks[0]);
    mv_step(rig);
    assert_int_equal(mv_down(rig).offered, 0);
    mv_drop(rig, &run);
    assert_int_equal(mv_down(rig).offered, 1);
    mv_step(rig);
    assert_int_equal(mv_down(rig).transferred, 1);
}

static void test_trigger_park_offers_the_first_of_an_array_first(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    uint32_t slots[4];
    mv_two_tiers(rig, 4, 4, KVB_OFFLOAD_ON_PARK);
    mv_open_recorded(rig);
    mv_store(rig, &run, KVB_TIER_DEVICE, 1, 4);
    for (uint32_t i = 0; i < 4; i++)
        slots[i] = kvb_block_slot(rig->kv, run.blocks[i]);
    mv_drop(rig, &run);
    mv_step(rig);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(rig->copies.list[i].from_slot, slots[i]);
}

static void test_trigger_park_offers_when_the_last_pin_ends(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    mv_open_two(rig, 4, 4, KVB_OFFLOAD_ON_PARK);
    mv_store(rig, &run, KVB_TIER_DEVICE, 1, 1);
    kv_ok(kvb_pin(rig->kv, 7, run.blocks, 1, KV_MS, NULL));
    mv_drop(rig, &run);
    mv_step(rig);
    assert_int_equal(mv_down(rig).offered, 0);
    kv_advance(rig, KV_MS);
    mv_step(rig);
    assert_int_equal(mv_down(rig).transferred, 1);
}

static void test_trigger_park_offers_what_an_operation_gives_back(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    mv_open_two(rig, 4, 1, KVB_OFFLOAD_ON_PARK);
    mv_park(rig, &run, KVB_TIER_HOST, 1, 1);
    struct kvb_op *op = mv_bring_up(rig, &run, KVB_TIER_DEVICE, NULL);
    mv_step(rig);
    mv_evict_all(rig, KVB_TIER_HOST);
    kv_ok(kvb_op_release(rig->kv, op)); /* not taken: parked */
    kv_check(rig);
    mv_step(rig);
    assert_int_equal(mv_down(rig).transferred, 1);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    mv_expect_in(rig, &run, KVB_TIER_HOST);
}

static void test_trigger_manual_never_offers_by_itself(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    mv_open_two(rig, 4, 4, KVB_OFFLOAD_MANUAL);
    mv_park(rig, &run, KVB_TIER_DEVICE, 1, 4);
    mv_step(rig);
    assert_int_equal(mv_down(rig).offered, 0);
}

static void test_trigger_cold_offers_exactly_the_oldest_tenth(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run runs[20];
    mv_open_two(rig, 20, 20, KVB_OFFLOAD_ON_COLD);
    mv_store_each(rig, runs, KVB_TIER_DEVICE, 1, 20);
    mv_drop_each(rig, runs, 20);
    mv_step(rig);
    assert_int_equal(mv_down(rig).transferred, 2);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    for (uint32_t i = 0; i < 20; i++)
        assert_int_equal(mv_found(rig, &runs[i]), i < 2);
}

static void test_trigger_cold_counts_from_a_blocks_latest_use(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run runs[20];
    mv_open_two(rig, 20, 20, KVB_OFFLOAD_ON_COLD);
    mv_store_each(rig, runs, KVB_TIER_DEVICE, 1, 20);
    mv_drop_each(rig, runs, 20);
    assert_int_equal(mv_match(rig, &runs[0]), 1); /* used once more: the youngest */
    mv_drop(rig, &runs[0]);
    mv_step(rig);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    for (uint32_t i = 0; i < 20; i++)
        assert_int_equal(mv_found(rig, &runs[i]), i == 1 || i == 2);
}

static void test_trigger_cold_offers_again_what_became_cold_again(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run runs[10];
    mv_two_tiers(rig, 10, 10, KVB_OFFLOAD_ON_COLD);
    mv_open_recorded(rig);
    mv_store_each(rig, runs, KVB_TIER_DEVICE, 1, 10);
    mv_fail(&rig->copies, 1, false);
    mv_drop_each(rig, runs, 10);
    mv_step(rig);
    assert_int_equal(mv_down(rig).failed_transfer, 1);
    mv_step(rig);
    assert_int_equal(mv_down(rig).offered, 1); /* cold still, and offered once */
    for (uint32_t i = 0; i < 10; i++) {        /* used once more, in the same order */
        assert_int_equal(mv_match(rig, &runs[i]), 1);
        mv_drop(rig, &runs[i]);
    }
    mv_step(rig);
    assert_int_equal(mv_down(rig).transferred, 1);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    mv_expect_in(rig, &runs[0], KVB_TIER_HOST);
}

/* ---- Admission ------------------------------------------------------------------------------- */

/* A server that lets all contents pass but one. */
struct gate {
    struct kv_rig rig;
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

static int gate_setup(void **state)
{
    struct gate *gate = kv_scene_begin(state, sizeof *gate);
    mv_two_tiers(&gate->rig, 4, 4, KVB_OFFLOAD_MANUAL);
    gate->rig.config.admission = (struct kvb_admission){admit, gate};
    kv_rig_open(&gate->rig);
    return 0;
}

#define gate_teardown kv_scene_end

static void test_admission_refusal_skips_the_block_and_counts(void **state)
{
    struct gate *gate = *state;
    struct kv_rig *rig = &gate->rig;
    struct mv_run runs[3];
    mv_store_each(rig, runs, KVB_TIER_DEVICE, 1, 3);
    gate->refused_hash = runs[1].seqs[0].hash;
    mv_offer_each(rig, runs, 3, 42);
    mv_step(rig);
    assert_int_equal(gate->asked, 3);
    assert_int_equal(mv_down(rig).skipped_admission, 1);
    assert_int_equal(mv_down(rig).transferred, 2);
    mv_drop_each(rig, runs, 3);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    assert_int_equal(mv_found(rig, &runs[1]), 0);
}

static void test_admission_is_told_what_is_to_be_copied(void **state)
{
    struct gate *gate = *state;
    struct kv_rig *rig = &gate->rig;
    struct mv_run run;
    mv_store(rig, &run, KVB_TIER_DEVICE, 1, 1);
    mv_offer(rig, run.blocks[0], 42);
    mv_step(rig);
    assert_int_equal(gate->last.size, sizeof gate->last);
    assert_int_equal(gate->last.from_tier, KVB_TIER_DEVICE);
    assert_int_equal(gate->last.to_tier, KVB_TIER_HOST);
    assert_int_equal(gate->last.namespace_id, 0);
    assert_int_equal(gate->last.priority, 42);
    mv_drop(rig, &run);
}

/* ---- Chains of tiers ------------------------------------------------------------------------- */

static void test_chain_with_register_triggers_fills_all_tiers(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    mv_three_tiers(rig, 4, 4, 4);
    rig->tiers[0].trigger = rig->tiers[1].trigger = KVB_OFFLOAD_ON_REGISTER;
    kv_rig_open(rig);
    mv_park(rig, &run, KVB_TIER_DEVICE, 1, 4);
    mv_step(rig);
    mv_expect_in(rig, &run, KVB_TIER_DEVICE);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    mv_expect_in(rig, &run, KVB_TIER_HOST);
    mv_evict_all(rig, KVB_TIER_HOST);
    mv_expect_in(rig, &run, KVB_TIER_DISK);
    mv_expect_books(rig, true);
}

static void test_chain_with_park_triggers_fills_all_tiers(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    mv_three_tiers(rig, 4, 4, 4);
    rig->tiers[0].trigger = rig->tiers[1].trigger = KVB_OFFLOAD_ON_PARK;
    kv_rig_open(rig);
    mv_store(rig, &run, KVB_TIER_DEVICE, 1, 4);
    mv_step(rig);
    assert_int_equal(mv_down(rig).offered, 0);
    mv_drop(rig, &run);
    mv_step(rig);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    mv_expect_in(rig, &run, KVB_TIER_HOST);
    mv_evict_all(rig, KVB_TIER_HOST);
    mv_expect_in(rig, &run, KVB_TIER_DISK);
}

static void test_chain_with_cold_trigger_below_moves_the_oldest_tenth_on(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run runs[20];
    mv_three_tiers(rig, 20, 20, 20);
    rig->tiers[0].trigger = KVB_OFFLOAD_ON_REGISTER;
    rig->tiers[1].trigger = KVB_OFFLOAD_ON_COLD;
    kv_rig_open(rig);
    mv_store_each(rig, runs, KVB_TIER_DEVICE, 1, 20);
    mv_step(rig); /* parked below in the order of their offers, all of them in one go */
    mv_drop_each(rig, runs, 20);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    mv_evict_all(rig, KVB_TIER_HOST);
    for (uint32_t i = 0; i < 20; i++)
        assert_int_equal(mv_in_tier(rig, &runs[i], KVB_TIER_DISK), i < 2);
    assert_int_equal(mv_lane(rig, KVB_TIER_HOST, KVB_TIER_DISK).transferred, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kv_rig, test_trigger_register_offers_at_register),
        TEST(kv_rig, test_trigger_park_offers_when_the_last_user_leaves),
        TEST(kv_rig, test_trigger_park_offers_the_first_of_an_array_first),
        TEST(kv_rig, test_trigger_park_offers_when_the_last_pin_ends),
        TEST(kv_rig, test_trigger_park_offers_what_an_operation_gives_back),
        TEST(kv_rig, test_trigger_manual_never_offers_by_itself),
        TEST(kv_rig, test_trigger_cold_offers_exactly_the_oldest_tenth),
        TEST(kv_rig, test_trigger_cold_counts_from_a_blocks_latest_use),
        TEST(kv_rig, test_trigger_cold_offers_again_what_became_cold_again),
        TEST(gate, test_admission_refusal_skips_the_block_and_counts),
        TEST(gate, test_admission_is_told_what_is_to_be_copied),
        TEST(kv_rig, test_chain_with_register_triggers_fills_all_tiers),
        TEST(kv_rig, test_chain_with_park_triggers_fills_all_tiers),
        TEST(kv_rig, test_chain_with_cold_trigger_below_moves_the_oldest_tenth_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
