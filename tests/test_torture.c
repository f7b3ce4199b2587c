/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Torture: one representative scenario, again and again, with the n-th copy or the n-th allocation
 * failing, once and for ever, for every n. Whatever fails: no wrong byte, no leak, the books
 * balance, and the server gets all its blocks computed.
 */
#include "support/kv_scene.h"
#include "support/move_test.h"

#define REQUESTS 14
#define LENGTH 5

struct torture {
    struct kv_rig rig;
    uint64_t reused; /* blocks that did not have to be computed */
};

static int torture_setup(void **state)
{
    (void)kv_scene_begin(state, sizeof(struct torture));
    return 0;
}
#define torture_teardown kv_scene_end

/* Anew each time. */
static void configure(struct kv_rig *rig, uint32_t progress)
{
    kv_rig_init(rig);
    mv_three_tiers(rig, 12, 10, 30);
    rig->tiers[0].trigger = KVB_OFFLOAD_ON_REGISTER;
    rig->tiers[1].trigger = KVB_OFFLOAD_ON_PARK;
    for (uint32_t i = 0; i < 2; i++)
        mv_bounds(rig, i, 3, 2, 2, 8);
    rig->config.progress = progress;
}

/*
 * What is found further down comes up, what is missing is computed; every byte that was not
 * computed here is looked at.
 */
static void serve(struct torture *torture, struct mv_run *run, bool polls)
{
    struct kv_rig *rig = &torture->rig;
    struct kvb_query query = kv_query(0, run->tokens, (size_t)run->count * KV_TOKENS);
    struct kvb_block *targets[LENGTH], *sources[LENGTH];
    struct kvb_hit hits[LENGTH];
    size_t found = 0;
    uint32_t above = 0, below = 0, good = 0;
    kv_ok(kvb_match(rig->kv, &query, hits, LENGTH, &found));
    while (above < found && hits[above].tier == KVB_TIER_DEVICE) {
        run->blocks[above] = hits[above].block;
        above++;
    }
    while (above + below < found && hits[above + below].tier != KVB_TIER_DEVICE) {
        sources[below] = hits[above + below].block;
        below++;
    }
    for (size_t i = above + below; i < found; i++)
        kv_unref(rig, hits[i].block);
    uint32_t rest = run->count - above;
    if (rest > 0) {
        mv_alloc_many(rig, KVB_TIER_DEVICE, rest, targets);
        kv_check(rig);
    }
    memcpy(run->blocks + above, targets, rest * sizeof *targets);
    if (below > 0) {
        struct mv_done done;
        struct kvb_op *op = NULL;
        struct kvb_onboard request = mv_request(sources, targets, below, &done);
        kv_ok(kvb_onboard(rig->kv, &request, &op));
        kv_check(rig);
        kv_ok(kvb_block_unref(rig->kv, sources, below, NULL));
        kv_ok(kvb_op_wait(rig->kv, op, KVB_FOREVER));
        assert_int_equal(done.calls, 1);
        kv_ok(kvb_op_take(rig->kv, op, run->blocks + above, below, &good));
        kv_check(rig);
        assert_int_equal(good, done.good_count);
        kv_ok(kvb_op_release(rig->kv, op));
    }
    for (uint32_t i = 0; i < above + good; i++)
        assert_true(mv_bytes_are(rig, run->blocks[i], &run->seqs[i]));
    torture->reused += above + good;
    mv_compute(rig, run, above + good);
    kv_ok(kvb_block_register(rig->kv, run->blocks + above + good, run->count - above - good, NULL,
                             NULL, NULL));
    kv_check(rig);
    if (polls)
        mv_step(rig);
    for (uint32_t i = 0; i < run->count; i++)
        assert_true(mv_bytes_are(rig, run->blocks[i], &run->seqs[i]));
    mv_drop(rig, run);
    if (polls)
        mv_step(rig);
    mv_expect_books(rig, false);
}

/* Four conversations that come back by turns: too much for DEVICE and HOST, not for DISK. */
static void play(struct torture *torture, uint32_t fail_at, bool onwards)
{
    struct mv_run run;
    torture->reused = 0;
    configure(&torture->rig, KVB_PROGRESS_POLL);
    mv_open_recorded(&torture->rig);
    if (fail_at > 0)
        mv_fail(&torture->rig.copies, fail_at, onwards);
    for (uint32_t i = 0; i < REQUESTS; i++) {
        mv_name(&torture->rig, &run, i % 4 + 1, 3 + i / 4 % 3);
        serve(torture, &run, i % 3 != 1);
    }
    mv_step(&torture->rig);
    mv_expect_books(&torture->rig, true);
    for (uint32_t i = 0; i < 4; i++) { /* what is still found anywhere has the right bytes */
        mv_name(&torture->rig, &run, i + 1, LENGTH);
        run.count = mv_match(&torture->rig, &run);
        mv_drop(&torture->rig, &run);
    }
    mv_step(&torture->rig);
    kv_rig_close(&torture->rig);
}

static void test_scenario_uses_every_lane_and_finds_its_blocks_again(void **state)
{
    struct torture *torture = *state;
    play(torture, 0, false);
    assert_true(torture->rig.copies.count > 40);
    assert_true(torture->reused > 20);
}

static void play_with_each_copy_failing(struct torture *torture, bool onwards)
{
    play(torture, 0, false);
    uint32_t copies = torture->rig.copies.count;
    for (uint32_t n = 1; n <= copies; n++)
        play(torture, n, onwards);
}

static void test_any_single_copy_may_fail(void **state)
{
    play_with_each_copy_failing(*state, false);
}

static void test_all_copies_from_any_one_on_may_fail(void **state)
{
    play_with_each_copy_failing(*state, true);
}

static void test_scenario_takes_no_memory_after_create(void **state)
{
    struct torture *torture = *state;
    struct mv_run run;
    configure(&torture->rig, KVB_PROGRESS_POLL);
    mv_open_recorded(&torture->rig);
    uint64_t calls = torture->rig.heap.calls;
    for (uint32_t i = 0; i < REQUESTS; i++) {
        mv_name(&torture->rig, &run, i % 4 + 1, LENGTH);
        serve(torture, &run, true);
    }
    assert_int_equal(torture->rig.heap.calls, calls);
}

/*
 * Create with the n-th allocation failing; true if it failed, as it must while there is an n-th
 * one.
 */
static bool create_fails(struct kv_rig *rig, uint32_t progress, uint64_t nth, bool onwards)
{
    struct kvb_diagnosis diagnosis = {.size = sizeof diagnosis};
    configure(rig, progress);
    rig->heap.fail_at = nth;
    rig->heap.fail_onwards = onwards;
    rig->kv = (struct kvb_manager *)rig;
    kv_hooks_in_memory(&rig->hooks, &rig->config);
    int code = kvbi_manager_create_hooked(&rig->config, &rig->hooks, &rig->kv, &diagnosis);
    if (code == 0) {
        assert_true(rig->heap.calls < nth);
        kv_ok(kvb_manager_destroy(rig->kv));
        rig->kv = NULL;
    } else {
        kv_expect(code, KVB_ENOMEM);
        assert_int_equal(diagnosis.code, KVB_ENOMEM);
        assert_true(diagnosis.message[0] != '\0');
        assert_null(rig->kv);
    }
    assert_int_equal(rig->heap.live_blocks, 0);
    assert_int_equal(rig->heap.live_bytes, 0);
    assert_int_equal(rig->heap.wrong_frees, 0);
    return code != 0;
}

static void test_any_allocation_of_create_may_fail(void **state)
{
    struct kv_rig *rig = *state;
    for (uint32_t progress = KVB_PROGRESS_THREAD; progress <= KVB_PROGRESS_POLL; progress++)
        for (int onwards = 0; onwards < 2; onwards++) {
            uint64_t n = 1;
            while (create_fails(rig, progress, n, onwards == 1))
                n++;
            assert_true(n > 10);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(torture, test_scenario_uses_every_lane_and_finds_its_blocks_again),
        TEST(torture, test_any_single_copy_may_fail),
        TEST(torture, test_all_copies_from_any_one_on_may_fail),
        TEST(torture, test_scenario_takes_no_memory_after_create),
        TEST(kv_rig, test_any_allocation_of_create_may_fail),
    };
    return cmocka_run_group_tests_name("torture", tests, NULL, NULL);
}
