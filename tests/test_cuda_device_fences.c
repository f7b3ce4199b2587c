/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fences, with the manager's own thread: the server's stream stands still while that thread goes
 * on. Something without a fence, given to the same lane later, has been moved by then, so that
 * bytes which came too early would be in place before the stream goes on, and be seen as wrong.
 */
#include "support/device_scene.h"

#define LAYERS 3u
#define PARTS 2u
#define CHUNK 4096u
#define BLOCK_BYTES ((size_t)LAYERS * PARTS * CHUNK)
#define STALE UINT64_C(0x57a1e) /* what is in a block before the server writes it */
#define AHEAD 6u                /* blocks without a fence that pass the one that waits */

struct step {
    struct device_scene scene; /* comes first: *state is that as well */
    unsigned char *pinned;     /* a block's bytes, on their way to or from the device */
    cudaEvent_t event;
    struct kvb_fence fence; /* of the latest record_fence */
};

static int step_setup(void **state)
{
    (void)device_scene_make(state, sizeof(struct step));
    return 0;
}

static int step_teardown(void **state)
{
    struct step *step = *state;
    kv_device_let_go();
    bool good = step->event == NULL || cudaEventDestroy(step->event) == cudaSuccess;
    good = device_scene_end(&step->scene) && good;
    free(step);
    return good ? 0 : -1;
}

static void open_step(struct step *step, uint32_t device_blocks, uint32_t host_blocks)
{
    device_scene_init(&step->scene, device_blocks, host_blocks);
    device_scene_layout(&step->scene, LAYERS, PARTS, CHUNK);
    step->scene.rig.config.progress = KVB_PROGRESS_THREAD;
    step->pinned = device_scene_malloc_pinned(&step->scene, BLOCK_BYTES);
    cuda_ok(cudaEventCreateWithFlags(&step->event, cudaEventDisableTiming));
    kv_rig_open(&step->scene.rig);
}

/* What the server has enqueued so far, as a fence of the kind. */
static const struct kvb_fence *record_fence(struct step *step, uint32_t kind)
{
    if (kind == KVB_FENCE_CUDA_EVENT)
        cuda_ok(cudaEventRecord(step->event, step->scene.server));
    step->fence = (struct kvb_fence){.kind = kind,
                                     .handle = kind == KVB_FENCE_CUDA_EVENT
                                                   ? (uint64_t)(uintptr_t)step->event
                                                   : (uint64_t)(uintptr_t)step->scene.server};
    return &step->fence;
}

/* ---- The server's stream --------------------------------------------------------------------- */

static unsigned char payload(uint64_t seed, uint32_t layer, uint32_t part, uint64_t i)
{
    return (unsigned char)kv_mix(seed + ((uint64_t)layer << 48) + ((uint64_t)part << 40) + i);
}

static void enqueue_copies(struct step *step, struct kvb_block *block, bool to_device)
{
    unsigned char *pinned = step->pinned;
    for (uint32_t layer = 0; layer < LAYERS; layer++)
        for (uint32_t part = 0; part < PARTS; part++, pinned += CHUNK) {
            void *chunk = NULL;
            kv_ok(kvb_block_address(step->scene.rig.kv, block, layer, part, &chunk));
            cuda_ok(cudaMemcpyAsync(
                to_device ? chunk : (void *)pinned, to_device ? (void *)pinned : chunk, CHUNK,
                to_device ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToHost, step->scene.server));
        }
}

/* The forward pass. */
static void enqueue_write(struct step *step, struct kvb_block *block, uint64_t seed)
{
    for (size_t i = 0; i < BLOCK_BYTES; i++)
        step->pinned[i] =
            payload(seed, (uint32_t)(i / CHUNK / PARTS), (uint32_t)(i / CHUNK % PARTS), i % CHUNK);
    enqueue_copies(step, block, true);
}

/* Attention: what it has read is in `pinned` once the stream has been waited for. */
static void enqueue_read(struct step *step, struct kvb_block *block)
{
    memset(step->pinned, 0, BLOCK_BYTES);
    enqueue_copies(step, block, false);
}

static void let_go(struct step *step)
{
    kv_device_release(step->scene.server);
    cuda_ok(cudaStreamSynchronize(step->scene.server));
}

static void expect_read(struct step *step, uint64_t seed)
{
    for (size_t i = 0; i < BLOCK_BYTES; i++)
        assert_int_equal(step->pinned[i], payload(seed, (uint32_t)(i / CHUNK / PARTS),
                                                  (uint32_t)(i / CHUNK % PARTS), i % CHUNK));
}

/* ---- Written late ---------------------------------------------------------------------------- */

/* One block, all its tokens named; the server's stream stands, and will write it. */
static void launch_late_write(struct step *step, struct mv_run *run)
{
    struct kv_rig *rig = &step->scene.rig;
    mv_name(rig, run, 1, 1);
    run->blocks[0] = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_payload_fill(rig, run->blocks[0], STALE);
    kv_init(rig, run->blocks[0], 0, 0, NULL);
    kv_append(rig, run->blocks[0], run->tokens, KV_TOKENS, 0);
    kv_schedule(rig, run->blocks[0]);
    kv_device_hold(step->scene.server);
    enqueue_write(step, run->blocks[0], run->seqs[0].hash);
}

static void compute_done(struct step *step, struct mv_run *run, const struct kvb_fence *fence)
{
    uint32_t computed = KV_TOKENS;
    kv_ok(kvb_block_compute_done(step->scene.rig.kv, run->blocks, &computed, 1, fence, NULL));
}

/* Moves blocks that need not wait, all the way, while the stream stands. */
static void others_go_ahead(struct step *step, const struct mv_run *ahead)
{
    kv_ok(kvb_block_offload(step->scene.rig.kv, ahead->blocks, AHEAD, 50, NULL, NULL));
    device_scene_await_transferred(&step->scene, KVB_TIER_DEVICE, KVB_TIER_HOST, AHEAD);
}

static uint64_t moved_down(struct step *step)
{
    return mv_lane(&step->scene.rig, KVB_TIER_DEVICE, KVB_TIER_HOST).transferred;
}

static void expect_down(struct step *step, struct mv_run *run, struct mv_run *ahead)
{
    struct kv_rig *rig = &step->scene.rig;
    device_scene_flush(&step->scene);
    assert_int_equal(moved_down(step), AHEAD + 1);
    mv_drop(rig, run);
    mv_drop(rig, ahead);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    mv_expect_in(rig, run, KVB_TIER_HOST);
    mv_expect_in(rig, ahead, KVB_TIER_HOST);
}

/* Where the fence is given, if not with compute_done. */
enum place { WITH_COMPUTE_DONE, WITH_REGISTER, WITH_OFFLOAD };

static void offload_what_is_written_late(struct step *step, uint32_t kind, enum place place)
{
    struct kv_rig *rig = &step->scene.rig;
    struct mv_run run, ahead;
    open_step(step, AHEAD + 1, AHEAD + 1);
    mv_store_beside(rig, &ahead, KVB_TIER_DEVICE, 7, AHEAD, 0);
    launch_late_write(step, &run);
    const struct kvb_fence *fence = record_fence(step, kind);
    compute_done(step, &run, place == WITH_COMPUTE_DONE ? fence : NULL);
    kv_ok(kvb_block_register(rig->kv, run.blocks, 1, NULL, place == WITH_REGISTER ? fence : NULL,
                             NULL));
    kv_ok(
        kvb_block_offload(rig->kv, run.blocks, 1, 50, place == WITH_OFFLOAD ? fence : NULL, NULL));
    others_go_ahead(step, &ahead);
    assert_int_equal(moved_down(step), AHEAD);
    let_go(step);
    expect_down(step, &run, &ahead);
}

static void test_block_written_late_is_copied_behind_its_stream(void **state)
{
    offload_what_is_written_late(*state, KVB_FENCE_CUDA_STREAM, WITH_COMPUTE_DONE);
}

static void test_block_written_late_is_copied_behind_its_event(void **state)
{
    offload_what_is_written_late(*state, KVB_FENCE_CUDA_EVENT, WITH_COMPUTE_DONE);
}

static void test_fence_of_register_holds_as_well(void **state)
{
    offload_what_is_written_late(*state, KVB_FENCE_CUDA_STREAM, WITH_REGISTER);
}

static void test_fence_of_offload_holds_as_well(void **state)
{
    offload_what_is_written_late(*state, KVB_FENCE_CUDA_EVENT, WITH_OFFLOAD);
}

/* The event is recorded anew for the next step; the fence is what it was when it was given. */
static void test_event_that_is_recorded_again_is_the_fence_that_it_was(void **state)
{
    struct step *step = *state;
    struct kv_rig *rig = &step->scene.rig;
    struct mv_run run, ahead;
    cudaStream_t other;
    open_step(step, AHEAD + 1, AHEAD + 1);
    cuda_ok(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    mv_store_beside(rig, &ahead, KVB_TIER_DEVICE, 7, AHEAD, 0);
    launch_late_write(step, &run);
    compute_done(step, &run, record_fence(step, KVB_FENCE_CUDA_EVENT));
    cuda_ok(cudaEventRecord(step->event, other)); /* reached at once */
    kv_ok(kvb_block_register(rig->kv, run.blocks, 1, NULL, NULL, NULL));
    kv_ok(kvb_block_offload(rig->kv, run.blocks, 1, 50, NULL, NULL));
    others_go_ahead(step, &ahead);
    assert_int_equal(moved_down(step), AHEAD);
    let_go(step);
    expect_down(step, &run, &ahead);
    cuda_ok(cudaStreamSynchronize(other));
    cuda_ok(cudaStreamDestroy(other));
}

/* Another request finds the block before the step has run, and reads it behind that step. */
static void test_request_that_finds_a_block_written_late_reads_what_was_written(void **state)
{
    struct step *step = *state;
    struct kv_rig *rig = &step->scene.rig;
    struct mv_run run, found;
    open_step(step, 2, 2);
    launch_late_write(step, &run);
    compute_done(step, &run, record_fence(step, KVB_FENCE_CUDA_STREAM));
    kv_ok(kvb_block_register(rig->kv, run.blocks, 1, NULL, NULL, NULL));
    found = run;
    device_scene_hold(&step->scene, &found, KVB_TIER_DEVICE);
    assert_ptr_equal(found.blocks[0], run.blocks[0]);
    enqueue_copies(step, found.blocks[0], false); /* the same stream: behind the write */
    kv_ok(kvb_block_offload(rig->kv, found.blocks, 1, 50, NULL, NULL));
    let_go(step);
    expect_read(step, run.seqs[0].hash);
    device_scene_flush(&step->scene);
    mv_drop_beside(rig, &found);
    mv_drop(rig, &run);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    mv_expect_in(rig, &run, KVB_TIER_HOST);
}

/* ---- Free late ------------------------------------------------------------------------------- */

enum target_place { WITH_ALLOC, WITH_ONBOARD };

/* The target is the slot that the server's stream still reads, after `hands` other owners. */
static void onboard_into_what_is_read_late(struct step *step, uint32_t kind,
                                           enum target_place place, uint32_t hands)
{
    struct kv_rig *rig = &step->scene.rig;
    struct mv_run low, ahead;
    struct kvb_block *taken[AHEAD], *target = NULL;
    open_step(step, AHEAD + 1, AHEAD + 1);
    mv_store_beside(rig, &low, KVB_TIER_HOST, 3, 1, 0);
    mv_store_beside(rig, &ahead, KVB_TIER_HOST, 4, AHEAD, 0);
    mv_alloc_many(rig, KVB_TIER_DEVICE, AHEAD, taken);
    struct kvb_block *old = kv_alloc(rig, KVB_TIER_DEVICE);
    uint32_t slot = kvb_block_slot(rig->kv, old);
    kv_payload_fill(rig, old, STALE);
    kv_device_hold(step->scene.server);
    enqueue_read(step, old);
    kv_unref(rig, old);
    const struct kvb_fence *fence = record_fence(step, kind);
    kv_ok(
        kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, place == WITH_ALLOC ? fence : NULL, &target, NULL));
    for (uint32_t i = 0; i < hands; i++) {
        kv_unref(rig, target);
        target = kv_alloc(rig, KVB_TIER_DEVICE);
    }
    assert_int_equal(kvb_block_slot(rig->kv, target), slot);
    struct kvb_onboard request = mv_request(low.blocks, &target, 1, NULL);
    request.fence = place == WITH_ONBOARD ? fence : NULL;
    struct kvb_op *late = mv_onboard(rig, &request);
    struct kvb_onboard others = mv_request(ahead.blocks, taken, AHEAD, NULL);
    struct kvb_op *early = mv_onboard(rig, &others);
    device_scene_wait(&step->scene, early);
    uint32_t good = 0;
    kv_expect(kvb_op_take(rig->kv, late, &target, 1, &good), KVB_EAGAIN);
    assert_int_equal(mv_lane(rig, KVB_TIER_HOST, KVB_TIER_DEVICE).transferred, AHEAD);
    let_go(step);
    expect_read(step, STALE); /* nothing was written over what was still to be read */
    device_scene_wait(&step->scene, late);
    device_scene_flush(&step->scene);
    mv_drop(rig, &low);
    mv_drop(rig, &ahead);
    mv_end(rig, &low, late, 1);
    mv_end(rig, &ahead, early, AHEAD);
}

static void test_slot_read_late_is_written_behind_its_stream(void **state)
{
    onboard_into_what_is_read_late(*state, KVB_FENCE_CUDA_STREAM, WITH_ALLOC, 0);
}

static void test_slot_read_late_is_written_behind_its_event(void **state)
{
    onboard_into_what_is_read_late(*state, KVB_FENCE_CUDA_EVENT, WITH_ALLOC, 0);
}

static void test_fence_of_onboard_holds_as_well(void **state)
{
    onboard_into_what_is_read_late(*state, KVB_FENCE_CUDA_STREAM, WITH_ONBOARD, 0);
}

/*
 * A slot goes through several owners while the stream still reads it for the first: the fence stays
 * with the memory, whatever they know of it.
 */
static void test_fence_stays_with_a_slot_that_changes_hands(void **state)
{
    onboard_into_what_is_read_late(*state, KVB_FENCE_CUDA_STREAM, WITH_ALLOC, 3);
}

/* ---- One slot, step after step --------------------------------------------------------------- */

/*
 * Written late, copied down, evicted, taken again and written late again, with no wait of the
 * server's in between: each content must come down with its own bytes.
 */
static void test_contents_that_follow_each_other_through_a_slot_keep_their_bytes(void **state)
{
    enum { CONTENTS = 12 };
    struct step *step = *state;
    struct kv_rig *rig = &step->scene.rig;
    static struct mv_run runs[CONTENTS];
    uint32_t computed = KV_TOKENS;
    open_step(step, 1, CONTENTS);
    for (uint32_t i = 0; i < CONTENTS; i++) {
        struct mv_run *run = &runs[i];
        uint32_t kind = i % 2 == 0 ? KVB_FENCE_CUDA_STREAM : KVB_FENCE_CUDA_EVENT;
        mv_name(rig, run, 50 + i, 1);
        kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, record_fence(step, kind), run->blocks, NULL));
        kv_init(rig, run->blocks[0], 0, 0, NULL);
        kv_append(rig, run->blocks[0], run->tokens, KV_TOKENS, 0);
        kv_schedule(rig, run->blocks[0]);
        kv_device_hold(step->scene.server);
        enqueue_write(step, run->blocks[0], run->seqs[0].hash);
        kv_ok(kvb_block_compute_done(rig->kv, run->blocks, &computed, 1, record_fence(step, kind),
                                     NULL));
        kv_ok(kvb_block_register(rig->kv, run->blocks, 1, NULL, NULL, NULL));
        kv_ok(kvb_block_offload(rig->kv, run->blocks, 1, 50, NULL, NULL));
        assert_int_equal(moved_down(step), i);
        let_go(step); /* `pinned` may be written again; the copy down may still be under way */
        device_scene_await_transferred(&step->scene, KVB_TIER_DEVICE, KVB_TIER_HOST, i + 1);
        mv_drop_beside(rig, run);
    }
    device_scene_flush(&step->scene);
    for (uint32_t i = 0; i + 1 < CONTENTS; i++)
        mv_expect_in(rig, &runs[i], KVB_TIER_HOST);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    mv_expect_in(rig, &runs[CONTENTS - 1], KVB_TIER_HOST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(step, test_block_written_late_is_copied_behind_its_stream),
        TEST(step, test_block_written_late_is_copied_behind_its_event),
        TEST(step, test_fence_of_register_holds_as_well),
        TEST(step, test_fence_of_offload_holds_as_well),
        TEST(step, test_event_that_is_recorded_again_is_the_fence_that_it_was),
        TEST(step, test_request_that_finds_a_block_written_late_reads_what_was_written),
        TEST(step, test_slot_read_late_is_written_behind_its_stream),
        TEST(step, test_slot_read_late_is_written_behind_its_event),
        TEST(step, test_fence_of_onboard_holds_as_well),
        TEST(step, test_fence_stays_with_a_slot_that_changes_hands),
        TEST(step, test_contents_that_follow_each_other_through_a_slot_keep_their_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
