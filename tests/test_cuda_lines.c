/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A line for each stream of the server: what waits for one stream does not wait for another, and
 * what waits for two is never early.
 */
#include "support/cuda_scene.h"

#include "transfer/cuda/tickets.h"

#define STREAMS 64

struct town {
    struct cuda_scene scene; /* comes first: *state is that as well */
    cudaStream_t streams[STREAMS];
    uint32_t count;
};

static cudaStream_t street(struct town *town, bool held)
{
    cudaStream_t *stream = &town->streams[town->count++];
    cuda_ok(cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking));
    if (held)
        fake_cuda_hold(*stream);
    return *stream;
}

static int town_setup(void **state)
{
    struct town *town = cuda_scene_make(state, sizeof *town);
    cuda_scene_open_tiers(&town->scene, 64, 64);
    return 0;
}

static int town_teardown(void **state)
{
    struct town *town = *state;
    bool good = true;
    for (uint32_t i = 0; i < town->count; i++) {
        fake_cuda_release(town->streams[i]);
        good = cudaStreamSynchronize(town->streams[i]) == cudaSuccess &&
               cudaStreamDestroy(town->streams[i]) == cudaSuccess && good;
    }
    return cuda_scene_teardown(state) == 0 && good ? 0 : -1;
}

/* A kernel on this stream writes the block, which is registered behind it. */
static void write_on(struct town *town, struct mv_run *run, uint64_t seed, cudaStream_t stream)
{
    struct cuda_scene *scene = &town->scene;
    cudaStream_t server = scene->server;
    struct kvb_fence fence = cuda_stream_fence(stream);
    scene->server = stream;
    cuda_scene_store(scene, run, seed, 1, &fence);
    scene->server = server;
}

static uint64_t moved(struct town *town)
{
    mv_step(&town->scene.rig);
    return cuda_scene_down(&town->scene).transferred;
}

static void test_copy_behind_one_stream_passes_those_behind_another(void **state)
{
    struct town *town = *state;
    struct kv_rig *rig = &town->scene.rig;
    struct mv_run runs[3];
    cudaStream_t streams[3];
    for (uint32_t i = 0; i < 3; i++) {
        streams[i] = street(town, true);
        write_on(town, &runs[i], 1 + i, streams[i]);
        mv_offer(rig, runs[i].blocks[0], 50);
    }
    assert_int_equal(moved(town), 0);
    for (uint32_t i = 3; i-- > 0;) { /* the last that was given comes first */
        fake_cuda_release(streams[i]);
        fake_cuda_quiesce();
        assert_int_equal(moved(town), 3 - i);
    }
    mv_drop_each(rig, runs, 3);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    mv_expect_each_in(rig, runs, 3, KVB_TIER_HOST);
}

/* More blocks than a lane may have waiting, all behind a stream that stands still. */
static void test_lane_full_of_copies_behind_one_stream_moves_those_of_another(void **state)
{
    struct town *town = *state;
    struct kv_rig *rig = &town->scene.rig;
    struct mv_run late[40], early;
    cudaStream_t stands = street(town, true), runs = street(town, true);
    for (uint32_t i = 0; i < 40; i++) {
        write_on(town, &late[i], 100 + i, stands);
        mv_offer(rig, late[i].blocks[0], 90);
    }
    write_on(town, &early, 1, runs);
    mv_offer(rig, early.blocks[0], 10);
    assert_int_equal(moved(town), 0);
    fake_cuda_release(runs);
    fake_cuda_quiesce();
    assert_int_equal(moved(town), 1);
    assert_int_equal(mv_in_tier(rig, &early, KVB_TIER_DEVICE), 1);
    fake_cuda_release(stands);
    fake_cuda_quiesce();
    assert_int_equal(moved(town), 41);
    mv_drop_each(rig, late, 40);
    mv_drop(rig, &early);
}

/* Written on one stream, and once more on another: no stream of the server's orders the two. */
static void moves_after_both(struct town *town, uint32_t first, uint32_t last)
{
    struct cuda_scene *scene = &town->scene;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    struct kvb_block *block = NULL;
    uint32_t computed = KV_TOKENS;
    cudaStream_t server = scene->server, streams[2] = {street(town, true), street(town, true)};
    struct kvb_fence reads = cuda_stream_fence(streams[0]), writes = cuda_stream_fence(streams[1]);
    mv_name(rig, &run, 1, 1);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, &reads, &block, NULL));
    run.blocks[0] = block;
    kv_init(rig, block, 0, 0, NULL);
    kv_append(rig, block, run.tokens, KV_TOKENS, 0);
    kv_schedule(rig, block);
    scene->server = streams[1];
    cuda_scene_compute(scene, block, run.seqs[0].hash);
    scene->server = server;
    kv_ok(kvb_block_compute_done(rig->kv, run.blocks, &computed, 1, &writes, NULL));
    assert_true(kvbi_ticket_is_stream(block->ticket)); /* a stream of ours waits for both */
    kv_ok(kvb_block_register(rig->kv, run.blocks, 1, NULL, NULL, NULL));
    mv_offer(rig, block, 50);
    assert_int_equal(moved(town), 0);
    fake_cuda_release(streams[first]);
    fake_cuda_quiesce();
    assert_int_equal(moved(town), 0);
    fake_cuda_release(streams[last]);
    fake_cuda_quiesce();
    assert_int_equal(moved(town), 1);
    mv_drop(rig, &run);
}

/* All have the same two points: the driver is asked once, however many steps are under way. */
static void test_blocks_of_one_call_have_one_ticket_for_both(void **state)
{
    enum { BLOCKS = 60, STEPS = 20 };
    struct town *town = *state;
    struct kv_rig *rig = &town->scene.rig;
    struct kvb_fence reads = cuda_stream_fence(street(town, true)),
                     writes = cuda_stream_fence(street(town, true));
    struct kvb_block *blocks[BLOCKS], *step = NULL;
    uint32_t computed[BLOCKS];
    for (uint32_t i = 0; i < STEPS; i++) {
        kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, &reads, &step, NULL));
        kv_unref(rig, step);
    }
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, BLOCKS, &reads, blocks, NULL));
    for (uint32_t i = 0; i < BLOCKS; i++) {
        const uint32_t tokens[KV_TOKENS] = {i};
        computed[i] = KV_TOKENS;
        kv_init(rig, blocks[i], 0, 0, NULL);
        kv_append(rig, blocks[i], tokens, KV_TOKENS, 0);
        kv_schedule(rig, blocks[i]);
    }
    unsigned waits = fake_cuda_calls("cudaStreamWaitEvent"),
             records = fake_cuda_calls("cudaEventRecord");
    kv_ok(kvb_block_compute_done(rig->kv, blocks, computed, BLOCKS, &writes, NULL));
    assert_int_equal(fake_cuda_calls("cudaEventRecord") - records, 2);
    assert_int_equal(fake_cuda_calls("cudaStreamWaitEvent") - waits, STEPS + 2);
    for (uint32_t i = 0; i < BLOCKS; i++) {
        assert_true(kvbi_ticket_is_stream(blocks[i]->ticket));
        assert_int_equal(blocks[i]->ticket, blocks[0]->ticket);
    }
    kv_ok(kvb_block_unref(rig->kv, blocks, BLOCKS, NULL));
}

static void test_block_of_two_streams_waits_for_the_later_one(void **state)
{
    moves_after_both(*state, 0, 1);
}

static void test_block_of_two_streams_waits_for_the_earlier_one_too(void **state)
{
    moves_after_both(*state, 1, 0);
}

/* A counter of the host's and a stream: neither can be made to wait for the other. */
static void counter_and_stream(struct town *town, bool counter_first)
{
    struct cuda_scene *scene = &town->scene;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    cudaStream_t stream = street(town, true);
    struct kvb_fence counter = {.kind = KVB_FENCE_COUNTER, .line = 5, .handle = 9};
    write_on(town, &run, 1, stream);
    kv_ok(kvb_block_offload(rig->kv, run.blocks, 1, 50, &counter, NULL));
    assert_int_equal(kvbi_ticket_line(run.blocks[0]->ticket), KVBI_LINE_JOINT);
    assert_int_equal(moved(town), 0);
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(cuda_scene_down(scene).transferred, 0);
        if ((i == 0) == counter_first)
            kv_ok(kvb_fence_signal(rig->kv, 5, 9));
        else
            fake_cuda_release(stream);
        fake_cuda_quiesce();
        mv_step(rig);
    }
    assert_int_equal(cuda_scene_down(scene).transferred, 1);
    mv_drop(rig, &run);
}

static void test_block_of_a_stream_and_a_counter_waits_for_the_stream(void **state)
{
    counter_and_stream(*state, true);
}

static void test_block_of_a_stream_and_a_counter_waits_for_the_counter(void **state)
{
    counter_and_stream(*state, false);
}

/* A fence that is never reached takes one place of 1024 and stands in nobody's way. */
static void test_fence_that_stands_leaves_room_for_any_number_of_others(void **state)
{
    struct town *town = *state;
    struct kv_rig *rig = &town->scene.rig;
    struct mv_run run;
    write_on(town, &run, 1, street(town, true));
    mv_offer(rig, run.blocks[0], 50);
    assert_int_equal(moved(town), 0);
    struct kvb_fence fence = cuda_stream_fence(street(town, false));
    for (uint32_t i = 0; i < 3 * KVBI_CUDA_TICKETS; i++) {
        struct kvb_block *block = NULL;
        kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, &fence, &block, NULL));
        kv_unref(rig, block);
        if (i % 512 == 0) {
            fake_cuda_quiesce();
            mv_step(rig);
        }
    }
    assert_int_equal(moved(town), 0);
    mv_drop(rig, &run);
}

/* There are 61 lines for streams; those beyond share one, and are waited for all the same. */
static void test_more_streams_than_lines_are_all_waited_for(void **state)
{
    struct town *town = *state;
    struct kv_rig *rig = &town->scene.rig;
    static struct mv_run runs[63];
    for (uint32_t i = 0; i < 63; i++)
        write_on(town, &runs[i], 1 + i, street(town, true));
    for (uint32_t i = 0; i < 63; i++)
        mv_offer(rig, runs[i].blocks[0], 50);
    assert_int_equal(moved(town), 0);
    for (uint32_t i = 0; i < 63; i++) {
        fake_cuda_release(town->streams[62 - i]);
        fake_cuda_quiesce();
        assert_true(moved(town) <= i + 1);
    }
    assert_int_equal(moved(town), 63);
    mv_drop_each(rig, runs, 63);
}

/* What a stream's line was is another's once all of it is reached. */
static void test_lines_are_used_again(void **state)
{
    struct town *town = *state;
    struct kv_rig *rig = &town->scene.rig;
    for (uint32_t i = 0; i < 200; i++) {
        struct mv_run run;
        cudaStream_t stream;
        cuda_ok(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
        fake_cuda_hold(stream);
        write_on(town, &run, 1 + i, stream);
        assert_true(kvbi_ticket_line(run.blocks[0]->ticket) >=
                    KVBI_LINE_STREAM + KVBI_CUDA_OWN_LINES);
        mv_offer(rig, run.blocks[0], 50);
        assert_int_equal(moved(town), i);
        fake_cuda_release(stream);
        cuda_ok(cudaStreamSynchronize(stream));
        cuda_ok(cudaStreamDestroy(stream));
        assert_int_equal(moved(town), i + 1);
        mv_drop(rig, &run);
        mv_evict_all(rig, KVB_TIER_DEVICE);
        mv_evict_all(rig, KVB_TIER_HOST);
    }
}

/* ---- Streams of the server that wait --------------------------------------------------------- */

/* An op joins blocks that two streams still write: the server's stream waits for both. */
static void test_stream_waits_for_joined_blocks_of_two_streams(void **state)
{
    struct town *town = *state;
    struct cuda_scene *scene = &town->scene;
    struct kv_rig *rig = &scene->rig;
    struct mv_run runs[2];
    struct kvb_block *sources[2], *targets[2];
    struct mv_done done;
    struct kvb_op *op = NULL;
    cudaStream_t streams[2] = {street(town, true), street(town, true)};
    for (uint32_t i = 0; i < 2; i++) {
        mv_park(rig, &runs[i], KVB_TIER_HOST, 1 + i, 1);
        assert_int_equal(mv_match(rig, &runs[i]), 1);
        sources[i] = runs[i].blocks[0];
        targets[i] = kv_alloc(rig, KVB_TIER_DEVICE);
    }
    struct mv_run computed[2];
    for (uint32_t i = 0; i < 2; i++)
        write_on(town, &computed[i], 1 + i, streams[i]);
    struct kvb_onboard request = mv_request(sources, targets, 2, &done);
    kv_ok(kvb_onboard(rig->kv, &request, &op));
    kv_ok(kvb_op_wait_stream(rig->kv, op, scene->server, KVB_ALL_LAYERS));
    cuda_scene_attend(scene, computed[0].blocks[0]);
    cuda_scene_attend(scene, computed[1].blocks[0]); /* or the stand-in reports a race */
    mv_step(rig);
    fake_cuda_release(streams[1]);
    fake_cuda_quiesce();
    assert_int_equal(cudaStreamQuery(scene->server), cudaErrorNotReady);
    fake_cuda_release(streams[0]);
    cuda_ok(cudaStreamSynchronize(scene->server));
    kv_ok(kvb_op_release(rig->kv, op));
    for (uint32_t i = 0; i < 2; i++) {
        mv_drop(rig, &runs[i]);
        mv_drop(rig, &computed[i]);
    }
}

/*
 * Two streams of ours wait for two of the server's; what comes up behind a third waits at the host
 * until one of them is free.
 */
static void test_copy_behind_a_third_stream_begins_once_there_is_room_on_a_stream(void **state)
{
    struct town *town = *state;
    struct cuda_scene *scene = &town->scene;
    struct kv_rig *rig = &scene->rig;
    struct mv_run runs[3];
    struct mv_done done[3];
    struct kvb_op *ops[3];
    cudaStream_t streams[3];
    for (uint32_t i = 0; i < 3; i++)
        mv_park(rig, &runs[i], KVB_TIER_HOST, 1 + i, 1);
    for (uint32_t i = 0; i < 3; i++) {
        struct kvb_block *target = NULL;
        streams[i] = street(town, true);
        struct kvb_fence fence = cuda_stream_fence(streams[i]);
        kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, &fence, &target, NULL));
        ops[i] = mv_bring_with_priority(rig, &runs[i], target, 50, &done[i]);
        mv_step(rig);
    }
    kv_ok(kvb_op_wait_stream(rig->kv, ops[1], scene->server, KVB_ALL_LAYERS));
    kv_expect(kvb_op_wait_stream(rig->kv, ops[2], scene->server, KVB_ALL_LAYERS), KVB_EAGAIN);
    fake_cuda_release(streams[0]);
    fake_cuda_quiesce();
    mv_step(rig);
    assert_int_equal(done[0].calls, 1);
    kv_ok(kvb_op_wait_stream(rig->kv, ops[2], scene->server, KVB_ALL_LAYERS));
    fake_cuda_release(streams[1]);
    fake_cuda_release(streams[2]);
    fake_cuda_quiesce();
    mv_step(rig);
    for (uint32_t i = 0; i < 3; i++)
        mv_end(rig, &runs[i], ops[i], 1);
}

/* A counter no stream can wait for: told, where it was passed over before. */
static void test_stream_cannot_wait_for_a_joined_block_behind_a_counter(void **state)
{
    struct town *town = *state;
    struct cuda_scene *scene = &town->scene;
    struct kv_rig *rig = &scene->rig;
    struct mv_run host, computed;
    struct mv_done done;
    struct kvb_op *op = NULL;
    struct kvb_fence counter = {.kind = KVB_FENCE_COUNTER, .line = 1, .handle = 1};
    mv_park(rig, &host, KVB_TIER_HOST, 1, 1);
    assert_int_equal(mv_match(rig, &host), 1);
    struct kvb_block *target = kv_alloc(rig, KVB_TIER_DEVICE);
    cuda_scene_store(scene, &computed, 1, 1, &counter);
    struct kvb_onboard request = mv_request(host.blocks, &target, 1, &done);
    kv_ok(kvb_onboard(rig->kv, &request, &op));
    kv_expect(kvb_op_wait_stream(rig->kv, op, scene->server, KVB_ALL_LAYERS), KVB_EAGAIN);
    kv_ok(kvb_fence_signal(rig->kv, 1, 1));
    kv_ok(kvb_op_wait_stream(rig->kv, op, scene->server, KVB_ALL_LAYERS));
    mv_step(rig);
    kv_ok(kvb_op_release(rig->kv, op));
    mv_drop(rig, &host);
    mv_drop(rig, &computed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(town, test_copy_behind_one_stream_passes_those_behind_another),
        TEST(town, test_lane_full_of_copies_behind_one_stream_moves_those_of_another),
        TEST(town, test_blocks_of_one_call_have_one_ticket_for_both),
        TEST(town, test_block_of_two_streams_waits_for_the_later_one),
        TEST(town, test_block_of_two_streams_waits_for_the_earlier_one_too),
        TEST(town, test_block_of_a_stream_and_a_counter_waits_for_the_stream),
        TEST(town, test_block_of_a_stream_and_a_counter_waits_for_the_counter),
        TEST(town, test_fence_that_stands_leaves_room_for_any_number_of_others),
        TEST(town, test_more_streams_than_lines_are_all_waited_for),
        TEST(town, test_lines_are_used_again),
        TEST(town, test_stream_waits_for_joined_blocks_of_two_streams),
        TEST(town, test_copy_behind_a_third_stream_begins_once_there_is_room_on_a_stream),
        TEST(town, test_stream_cannot_wait_for_a_joined_block_behind_a_counter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
