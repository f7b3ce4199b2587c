/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rig of the tests itself: a test that fails midway leaves nothing behind. test_rig_disk.c: the
 * scenes of the disk.
 */
#include "api/manager.h"
#include "support/clean_failure.h"
#include "support/disk_path.h"
#include "support/move_test.h"

/* ---- Tests that fail ------------------------------------------------------------------------- */

static void fails_with_handles_held(void **state)
{
    struct kv_rig *rig = *state;
    kv_rig_open(rig);
    (void)kv_alloc(rig, KVB_TIER_DEVICE);
    fail_msg("midway, on purpose");
}

static void ends_with_handles_held(void **state)
{
    struct kv_rig *rig = *state;
    kv_rig_open(rig);
    (void)kv_alloc(rig, KVB_TIER_DEVICE);
}

static void ends_with_a_broken_invariant(void **state)
{
    struct kv_rig *rig = *state;
    kv_rig_open(rig);
    rig->kv->store.pools[KVB_TIER_DEVICE].used_count++;
}

static void fails_before_it_opens(void **state)
{
    struct kv_rig *rig = *state;
    rig->config.tokens_per_block = 0;
    kv_rig_open(rig);
}

/* What `done` would write to is on the stack of the test. */
static void fails_with_an_operation_under_way(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run;
    struct mv_done done;
    struct kvb_fence never = {.kind = KVB_FENCE_COUNTER, .handle = 1};
    struct kvb_block *target = NULL;
    struct kvb_op *op = NULL;
    mv_two_tiers(rig, 2, 2, KVB_OFFLOAD_MANUAL);
    rig->config.progress = KVB_PROGRESS_THREAD;
    kv_rig_open(rig);
    mv_store(rig, &run, KVB_TIER_HOST, 1, 1);
    target = kv_alloc(rig, KVB_TIER_DEVICE);
    struct kvb_onboard request = mv_request(run.blocks, &target, 1, &done);
    request.fence = &never;
    kv_ok(kvb_onboard(rig->kv, &request, &op));
    fail_msg("midway, on purpose");
}

/* ---- A rig with a disk, as a scene around the house's ---------------------------------------- */

struct on_disk {
    struct kv_rig rig;
    struct disk_path place;
};

static int on_disk_setup(void **state)
{
    struct on_disk *scene = malloc(sizeof *scene);
    *state = scene;
    if (scene == NULL)
        return -1;
    kv_rig_init(&scene->rig);
    mv_two_tiers(&scene->rig, 4, 4, KVB_OFFLOAD_ON_REGISTER);
    disk_path_make(&scene->place);
    kv_rig_add_tier(&scene->rig, KVB_TIER_DISK, 8, KVB_OFFLOAD_DEFAULT)->path = scene->place.file;
    scene->rig.tiers[1].trigger = KVB_OFFLOAD_ON_REGISTER;
    scene->rig.config.progress = KVB_PROGRESS_THREAD;
    return 0;
}

static int on_disk_teardown(void **state)
{
    struct on_disk *scene = *state;
    bool good = kv_rig_end(&scene->rig);
    disk_path_remove(&scene->place);
    free(scene);
    return good ? 0 : -1;
}

static void fails_with_writes_to_a_disk_under_way(void **state)
{
    struct on_disk *scene = *state;
    struct mv_run run;
    kv_rig_open(&scene->rig);
    mv_store(&scene->rig, &run, KVB_TIER_DEVICE, 1, 4);
    fail_msg("midway, on purpose");
}

static const struct CMUnitTest failing[] = {
    TEST(kv_rig, fails_with_handles_held),
    TEST(kv_rig, ends_with_handles_held),
    TEST(kv_rig, ends_with_a_broken_invariant),
    TEST(kv_rig, fails_before_it_opens),
    TEST(kv_rig, fails_with_an_operation_under_way),
    TEST(on_disk, fails_with_writes_to_a_disk_under_way),
};

/* ---- What is left of them -------------------------------------------------------------------- */

static void test_failed_test_that_holds_handles_leaves_nothing_behind(void **state)
{
    (void)state;
    expect_clean_failure("fails_with_handles_held", "midway, on purpose");
}

static void test_test_that_ends_with_handles_held_fails(void **state)
{
    (void)state;
    expect_clean_failure("ends_with_handles_held", "1 handles are still held");
}

static void test_test_that_ends_with_a_broken_invariant_fails(void **state)
{
    (void)state;
    expect_clean_failure("ends_with_a_broken_invariant", "invariant broken");
}

static void test_test_whose_manager_is_not_created_fails(void **state)
{
    (void)state;
    expect_clean_failure("fails_before_it_opens", "tokens_per_block");
}

static void test_failed_test_with_an_operation_under_way_leaves_nothing_behind(void **state)
{
    (void)state;
    expect_clean_failure("fails_with_an_operation_under_way", "midway, on purpose");
}

static void test_failed_test_that_writes_to_a_disk_leaves_nothing_behind(void **state)
{
    (void)state;
    expect_clean_failure("fails_with_writes_to_a_disk_under_way", "midway, on purpose");
}

int main(int count, char **arguments)
{
    const struct CMUnitTest tests[] = {
        TEST(bare, test_failed_test_that_holds_handles_leaves_nothing_behind),
        TEST(bare, test_test_that_ends_with_handles_held_fails),
        TEST(bare, test_test_that_ends_with_a_broken_invariant_fails),
        TEST(bare, test_test_whose_manager_is_not_created_fails),
        TEST(bare, test_failed_test_with_an_operation_under_way_leaves_nothing_behind),
        TEST(bare, test_failed_test_that_writes_to_a_disk_leaves_nothing_behind),
    };
    if (count == 2)
        return run_failing_test(failing, sizeof failing / sizeof *failing, arguments[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
