/* SPDX-License-Identifier: Apache-2.0 */
/* Between the stand-in's GPU and a file, with no host tier in between. */
#include <errno.h>
#include <stdatomic.h>

#include "support/cuda_scene.h"
#include "support/disk_path.h"

struct straits {
    struct cuda_scene scene; /* comes first: *state is that as well */
    struct disk_path place;
    struct kvbi_hooks hooks;
    _Atomic bool disk_fails;
    _Atomic uint32_t reads;
};

static int io_fault(void *context, bool write, uint32_t slot, int64_t *result)
{
    struct straits *s = context;
    (void)slot;
    s->reads += !write;
    if (s->disk_fails)
        *result = -EIO;
    return s->disk_fails;
}

static int straits_setup(void **state)
{
    struct straits *s = cuda_scene_make(state, sizeof *s);
    disk_path_make(&s->place);
    s->hooks = (struct kvbi_hooks){.io_fault = io_fault, .context = s};
    return 0;
}

static int straits_teardown(void **state)
{
    struct straits *s = *state;
    bool good = cuda_scene_end(&s->scene);
    disk_path_remove(&s->place);
    free(s);
    return good ? 0 : -1;
}

/* With what the file holds. */
static void open_with_depth(struct straits *s, uint32_t device_blocks, uint32_t disk_blocks,
                            uint32_t depth)
{
    struct kv_rig *rig = &s->scene.rig;
    cuda_scene_begin(&s->scene);
    kv_rig_add_tier(rig, KVB_TIER_DEVICE, device_blocks, KVB_OFFLOAD_MANUAL);
    kv_rig_add_tier(rig, KVB_TIER_DISK, disk_blocks, KVB_OFFLOAD_MANUAL)->path = s->place.file;
    if (depth > 0)
        mv_bounds(rig, 0, 64, 64, depth, 64);
    cuda_scene_open_hooked(&s->scene, &s->hooks);
}

static void open_straits(struct straits *s, uint32_t device_blocks, uint32_t disk_blocks)
{
    open_with_depth(s, device_blocks, disk_blocks, 0);
}

static void sink(struct straits *s, struct mv_run *run, uint64_t seed, uint32_t count)
{
    mv_store(&s->scene.rig, run, KVB_TIER_DEVICE, seed, count);
    cuda_scene_offer(&s->scene, run);
    kv_flush(&s->scene.rig);
    mv_drop(&s->scene.rig, run);
    mv_evict_all(&s->scene.rig, KVB_TIER_DEVICE);
    assert_int_equal(mv_in_tier(&s->scene.rig, run, KVB_TIER_DISK), count);
}

/* The run's blocks, held by name only: their bytes cannot be looked at where they are. */
static struct kvb_op *lift(struct straits *s, struct mv_run *run, const struct kvb_fence *fence,
                           struct mv_done *done)
{
    struct kv_rig *rig = &s->scene.rig;
    struct kvb_query query = kv_query(0, run->tokens, (size_t)run->count * KV_TOKENS);
    struct kvb_hit hits[MV_RUN_MAX];
    struct kvb_block *targets[MV_RUN_MAX];
    struct kvb_op *op = NULL;
    size_t count = 0;
    kv_ok(kvb_match(rig->kv, &query, hits, MV_RUN_MAX, &count));
    assert_int_equal(count, run->count);
    for (size_t i = 0; i < count; i++)
        run->blocks[i] = hits[i].block;
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, run->count, fence, targets, NULL));
    struct kvb_onboard request = mv_request(run->blocks, targets, run->count, done);
    kv_ok(kvb_onboard(rig->kv, &request, &op));
    mv_drop(rig, run);
    return op;
}

static void test_blocks_go_to_the_disk_and_come_back(void **state)
{
    struct straits *s = *state;
    struct kv_rig *rig = &s->scene.rig;
    struct mv_run run;
    struct mv_done done;
    open_straits(s, 40, 80);
    sink(s, &run, 1, 40);
    struct kvb_op *op = lift(s, &run, NULL, &done);
    kv_flush(rig);
    assert_int_equal(mv_take(rig, &run, op), 40);
    mv_drop_taken(rig, &run);
}

/*
 * The disk reads first, however long that takes; then there is a copy, and the server's stream can
 * wait for it.
 */
static void expect_copy_behind_a_read(struct straits *s, struct kvb_op *op)
{
    struct kvb_manager *kv = s->scene.rig.kv;
    int code = KVB_EAGAIN;
    while (code == KVB_EAGAIN) {
        assert_in_range(kvb_manager_poll(kv, 0), 0, 1);
        code = kvb_op_wait_stream(kv, op, s->scene.server, KVB_ALL_LAYERS);
    }
    kv_ok(code);
}

static void test_fence_holds_at_the_leg_that_touches_the_gpu(void **state)
{
    struct straits *s = *state;
    struct kv_rig *rig = &s->scene.rig;
    struct mv_run run;
    struct mv_done done;
    open_straits(s, 2, 8);
    sink(s, &run, 1, 1);
    fake_cuda_hold(s->scene.server);
    struct kvb_block *old = kv_alloc(rig, KVB_TIER_DEVICE);
    cuda_scene_attend(&s->scene, old);
    kv_unref(rig, old);
    struct kvb_fence fence = cuda_scene_fence(&s->scene);
    struct kvb_op *op = lift(s, &run, &fence, &done);
    expect_copy_behind_a_read(s, op);
    assert_int_equal(done.calls, 0);
    fake_cuda_release(s->scene.server);
    kv_flush(rig);
    assert_int_equal(mv_take(rig, &run, op), 1);
    mv_drop_taken(rig, &run);
}

static void test_blocks_on_their_way_down_behind_a_step_leave_room_for_those_up(void **state)
{
    struct straits *s = *state;
    struct kv_rig *rig = &s->scene.rig;
    struct mv_run up, low;
    struct mv_done done;
    open_with_depth(s, 80, 80, 1);
    sink(s, &up, 1, 1);
    fake_cuda_hold(s->scene.server);
    struct kvb_fence fence = cuda_scene_fence(&s->scene);
    cuda_scene_store(&s->scene, &low, 2, 64, &fence);
    cuda_scene_offer(&s->scene, &low); /* as many as there are blocks in between */
    mv_step(rig);
    struct kvb_op *op = lift(s, &up, NULL, &done);
    kv_ok(kvb_op_wait(rig->kv, op, KVB_FOREVER));
    assert_int_equal(mv_lane(rig, KVB_TIER_DEVICE, KVB_TIER_DISK).transferred, 1);
    fake_cuda_release(s->scene.server);
    kv_flush(rig);
    assert_int_equal(mv_lane(rig, KVB_TIER_DEVICE, KVB_TIER_DISK).transferred, 65);
    assert_int_equal(mv_take(rig, &up, op), 1);
    mv_drop_taken(rig, &up);
    mv_drop(rig, &low);
}

static void test_blocks_behind_a_step_leave_room_for_those_that_are_ready(void **state)
{
    struct straits *s = *state;
    struct kv_rig *rig = &s->scene.rig;
    struct mv_run late, ready;
    open_with_depth(s, 80, 80, 2);
    fake_cuda_hold(s->scene.server);
    struct kvb_fence fence = cuda_scene_fence(&s->scene);
    cuda_scene_store(&s->scene, &late, 2, 64, &fence);
    /* as many as there are blocks in between, and half of the lane's places */
    cuda_scene_offer(&s->scene, &late);
    mv_step(rig);
    assert_int_equal(mv_lane(rig, KVB_TIER_DEVICE, KVB_TIER_DISK).inflight, 64);
    mv_store(rig, &ready, KVB_TIER_DEVICE, 1, 8);
    for (uint32_t i = 0; i < 8; i++)
        mv_offer(rig, ready.blocks[i], 10);
    while (mv_lane(rig, KVB_TIER_DEVICE, KVB_TIER_DISK).transferred < 8)
        mv_step(rig); /* ends, or the test's time does */
    fake_cuda_release(s->scene.server);
    kv_flush(rig);
    assert_int_equal(mv_lane(rig, KVB_TIER_DEVICE, KVB_TIER_DISK).transferred, 72);
    mv_drop(rig, &late);
    mv_drop(rig, &ready);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    assert_int_equal(mv_in_tier(rig, &late, KVB_TIER_DISK), 64);
}

static void test_copy_that_fails_on_the_gpu_is_not_written(void **state)
{
    struct straits *s = *state;
    struct kv_rig *rig = &s->scene.rig;
    struct mv_run run;
    open_straits(s, 4, 8);
    mv_store(rig, &run, KVB_TIER_DEVICE, 1, 1);
    fake_cuda_fail("cudaMemcpyBatchAsync", 1, cudaErrorInvalidValue, FAKE_CUDA_ONCE);
    fake_cuda_fail("cudaMemcpyAsync", 1, cudaErrorInvalidValue, FAKE_CUDA_ONCE);
    mv_offer(rig, run.blocks[0], 50);
    kv_flush(rig);
    assert_int_equal(mv_lane(rig, KVB_TIER_DEVICE, KVB_TIER_DISK).failed_transfer, 1);
    mv_drop(rig, &run);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    assert_int_equal(mv_found(rig, &run), 0);
}

/* ---- Whose failure it is --------------------------------------------------------------------- */

static struct kvb_disk_stats disk_stats(struct straits *s)
{
    struct kvb_disk_stats stats = {.size = sizeof stats};
    kv_ok(kvb_disk_stats(s->scene.rig.kv, 0, &stats));
    return stats;
}

static void fail_on_the_gpu(void)
{
    fake_cuda_fail("cudaMemcpyBatchAsync", 1, cudaErrorInvalidValue, FAKE_CUDA_FOR_EVER);
    fake_cuda_fail("cudaMemcpyAsync", 1, cudaErrorInvalidValue, FAKE_CUDA_FOR_EVER);
}

/* Brings the run up again; how many blocks of it arrive, whose bytes are right. */
static uint32_t fetch(struct straits *s, struct mv_run *run)
{
    struct mv_done done;
    struct kvb_op *op = lift(s, run, NULL, &done);
    kv_flush(&s->scene.rig);
    uint32_t good = mv_take(&s->scene.rig, run, op);
    mv_drop_taken(&s->scene.rig, run);
    return good;
}

static void test_failures_of_the_gpu_do_not_count_against_the_disk(void **state)
{
    struct straits *s = *state;
    struct kv_rig *rig = &s->scene.rig;
    struct mv_run run;
    open_straits(s, 40, 80);
    mv_store(rig, &run, KVB_TIER_DEVICE, 1, KVB_DISK_ERRORS_MAX);
    fail_on_the_gpu();
    cuda_scene_offer(&s->scene, &run);
    kv_flush(rig);
    fake_cuda_forget_faults();
    assert_int_equal(mv_lane(rig, KVB_TIER_DEVICE, KVB_TIER_DISK).failed_transfer,
                     KVB_DISK_ERRORS_MAX);
    assert_int_equal(disk_stats(s).out_of_service, 0);
    mv_drop(rig, &run);
}

static void test_block_that_fails_on_the_gpu_stays_on_the_disk(void **state)
{
    struct straits *s = *state;
    struct mv_run run;
    open_straits(s, 40, 80);
    sink(s, &run, 1, 2 * KVB_DISK_ERRORS_MAX);
    fail_on_the_gpu();
    assert_int_equal(fetch(s, &run), 0);
    fake_cuda_forget_faults();
    assert_int_equal(disk_stats(s).out_of_service, 0);
    assert_int_equal(fetch(s, &run), run.count);
}

static void test_disk_that_fails_goes_out_of_service_and_can_be_put_back(void **state)
{
    struct straits *s = *state;
    struct kv_rig *rig = &s->scene.rig;
    struct mv_run old, lost, fresh;
    open_straits(s, 40, 80);
    sink(s, &old, 1, 4);
    mv_store(rig, &lost, KVB_TIER_DEVICE, 2, KVB_DISK_ERRORS_MAX);
    s->disk_fails = true;
    cuda_scene_offer(&s->scene, &lost);
    kv_flush(rig);
    assert_int_equal(disk_stats(s).out_of_service, 1);
    assert_int_equal(mv_found(rig, &old), 0);
    assert_int_equal(mv_in_tier(rig, &lost, KVB_TIER_DEVICE), lost.count);
    mv_drop(rig, &lost);
    s->disk_fails = false;
    kv_ok(kvb_disk_put_back(rig->kv, 0));
    sink(s, &fresh, 3, 4);
    assert_int_equal(fetch(s, &fresh), 4);
}

static void test_slot_that_the_disk_cannot_read_is_retired(void **state)
{
    struct straits *s = *state;
    struct kv_rig *rig = &s->scene.rig;
    struct mv_run bad, good;
    open_straits(s, 8, 8);
    sink(s, &bad, 1, 1);
    s->disk_fails = true;
    assert_int_equal(fetch(s, &bad), 0);
    s->disk_fails = false;
    assert_int_equal(mv_found(rig, &bad), 0);
    sink(s, &good, 2, 1);
    assert_int_equal(disk_stats(s).retired_count, 1);
}

/* ---- Beyond the process ---------------------------------------------------------------------- */

static void test_blocks_are_found_again_after_a_restart(void **state)
{
    struct straits *s = *state;
    struct mv_run run;
    open_straits(s, 8, 16);
    sink(s, &run, 1, 6);
    cuda_scene_close(&s->scene);
    open_straits(s, 8, 16);
    assert_int_equal(disk_stats(s).recovered, 6);
    assert_int_equal(fetch(s, &run), 6);
}

static void test_lost_gpu_costs_no_block_of_the_disk(void **state)
{
    struct straits *s = *state;
    struct kv_rig *rig = &s->scene.rig;
    struct mv_run run;
    struct mv_done done;
    open_straits(s, 8, 16);
    sink(s, &run, 1, 6);
    struct kvb_op *op = lift(s, &run, NULL, &done);
    fake_cuda_break_device(0, cudaErrorLaunchFailure);
    kv_flush(rig);
    assert_int_equal(done.good_count, 0);
    kv_ok(kvb_op_release(rig->kv, op));
    kv_flush(rig);
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_DEVICE].out_of_service, 1);
    assert_int_equal(disk_stats(s).out_of_service, 0);
    assert_int_equal(mv_in_tier(rig, &run, KVB_TIER_DISK), 6);
    cuda_scene_close_lost(&s->scene, &rig->kv->pipeline.engines.between);
    open_straits(s, 8, 16);
    assert_int_equal(fetch(s, &run), 6);
}

/*
 * A copy engine may have begun when the context was lost: what the disk reads into the same block
 * might not be what is checked.
 */
static void test_blocks_in_between_that_a_lost_gpu_may_still_write_are_not_used_again(void **state)
{
    struct straits *s = *state;
    struct kv_rig *rig = &s->scene.rig;
    struct mv_run up, low;
    struct mv_done done;
    open_with_depth(s, 96, 128, 1);
    sink(s, &up, 1, 17);
    s->reads = 0;
    mv_store(rig, &low, KVB_TIER_DEVICE, 2, 48);
    fake_cuda_hold(NULL);
    cuda_scene_offer(&s->scene, &low); /* all of the 64 but those that are for what comes up */
    mv_step(rig);
    struct kvb_op *op = lift(s, &up, NULL, &done);
    /* the seventeenth has got no block */
    kv_expect(kvb_manager_flush(rig->kv, 20 * KV_MS), KVB_ETIMEDOUT);
    fake_cuda_break_device(0, cudaErrorLaunchFailure);
    kv_flush(rig);
    assert_int_equal(done.calls, 1);
    assert_in_range(s->reads, 0, 16);
    assert_int_equal(disk_stats(s).out_of_service, 0);
    assert_int_equal(mv_in_tier(rig, &up, KVB_TIER_DISK), 17);
    kv_ok(kvb_op_release(rig->kv, op));
    kv_ok(kvb_block_unref(rig->kv, low.blocks, 48, NULL));
    kv_flush(rig);
    cuda_scene_close_lost(&s->scene, &rig->kv->pipeline.engines.between);
}

static void test_destroy_ends_what_is_half_way(void **state)
{
    struct straits *s = *state;
    struct kv_rig *rig = &s->scene.rig;
    struct mv_run run;
    struct mv_done done;
    open_straits(s, 8, 8);
    sink(s, &run, 1, 4);
    (void)lift(s, &run, NULL, &done);
    assert_in_range(kvb_manager_poll(rig->kv, 0), 0, 1);
    cuda_scene_close(&s->scene);
    assert_int_equal(done.calls, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(straits, test_blocks_go_to_the_disk_and_come_back),
        TEST(straits, test_fence_holds_at_the_leg_that_touches_the_gpu),
        TEST(straits, test_blocks_on_their_way_down_behind_a_step_leave_room_for_those_up),
        TEST(straits, test_blocks_behind_a_step_leave_room_for_those_that_are_ready),
        TEST(straits, test_copy_that_fails_on_the_gpu_is_not_written),
        TEST(straits, test_failures_of_the_gpu_do_not_count_against_the_disk),
        TEST(straits, test_block_that_fails_on_the_gpu_stays_on_the_disk),
        TEST(straits, test_disk_that_fails_goes_out_of_service_and_can_be_put_back),
        TEST(straits, test_slot_that_the_disk_cannot_read_is_retired),
        TEST(straits, test_blocks_are_found_again_after_a_restart),
        TEST(straits, test_lost_gpu_costs_no_block_of_the_disk),
        TEST(straits, test_blocks_in_between_that_a_lost_gpu_may_still_write_are_not_used_again),
        TEST(straits, test_destroy_ends_what_is_half_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
