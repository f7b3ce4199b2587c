/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Order between the lanes and the server's streams: what a stream waits for, and that without it
 * the stand-in sees the race that a GPU would have.
 */
#include "support/cuda_scene.h"
#include "transfer/cuda/cuda.h"
#include "transfer/cuda/tickets.h"

/* ---- Streams that wait for an operation ------------------------------------------------------ */

struct rising {
    struct cuda_scene scene; /* comes first: *state is that as well */
    struct mv_run run;
    struct mv_done done;
    struct kvb_op *op;
    struct kvb_block *targets[4];
};

static int rising_setup(void **state)
{
    (void)cuda_scene_make(state, sizeof(struct rising));
    return 0;
}

#define rising_teardown cuda_scene_teardown

/* Four blocks on their way up, with the copies on held streams. */
static void start_rising(struct rising *r, uint32_t flags)
{
    cuda_scene_open_tiers(&r->scene, 8, 8);
    struct kv_rig *rig = &r->scene.rig;
    mv_park(rig, &r->run, KVB_TIER_HOST, 3, 4);
    assert_int_equal(mv_match(rig, &r->run), 4);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 4, NULL, r->targets, NULL));
    struct kvb_onboard request = mv_request(r->run.blocks, r->targets, 4, &r->done);
    request.flags = flags;
    kv_ok(kvb_onboard(rig->kv, &request, &r->op));
    mv_drop(rig, &r->run);
    fake_cuda_hold(NULL);
}

static void end_rising(struct rising *r)
{
    fake_cuda_release(NULL);
    mv_step(&r->scene.rig);
    assert_int_equal(mv_take(&r->scene.rig, &r->run, r->op), 4);
    mv_drop_taken(&r->scene.rig, &r->run);
}

static void test_attention_waits_on_its_stream_for_blocks_on_their_way(void **state)
{
    struct rising *r = *state;
    struct kv_rig *rig = &r->scene.rig;
    start_rising(r, 0);
    /* no progress yet */
    kv_expect(kvb_op_wait_stream(rig->kv, r->op, r->scene.server, KVB_ALL_LAYERS), KVB_EAGAIN);
    assert_int_equal(kvb_manager_poll(rig->kv, KVB_FOREVER), 0);
    fake_cuda_server_thread(true);
    kv_ok(kvb_op_wait_stream(rig->kv, r->op, r->scene.server, KVB_ALL_LAYERS));
    fake_cuda_server_thread(false);
    for (uint32_t i = 0; i < 4; i++)
        cuda_scene_attend(&r->scene, r->targets[i]);
    assert_int_equal(r->done.calls, 0);
    end_rising(r);
}

static void test_attention_that_does_not_wait_is_a_race(void **state)
{
    struct rising *r = *state;
    struct kv_rig *rig = &r->scene.rig;
    start_rising(r, 0);
    assert_int_equal(kvb_manager_poll(rig->kv, KVB_FOREVER), 0);
    cuda_scene_attend(&r->scene, r->targets[3]);
    assert_true(fake_cuda_take_reports(FAKE_CUDA_RACE) > 0);
    end_rising(r);
}

static void test_layer_0_may_run_while_layer_1_arrives(void **state)
{
    struct rising *r = *state;
    struct kv_rig *rig = &r->scene.rig;
    start_rising(r, KVB_ONBOARD_LAYERS);
    assert_int_equal(kvb_manager_poll(rig->kv, KVB_FOREVER), 0);
    kv_ok(kvb_op_wait_stream(rig->kv, r->op, r->scene.server, 0));
    for (uint32_t i = 0; i < 4; i++)
        cuda_scene_launch(&r->scene, r->targets[i], 0, 1, false, 0);
    assert_int_equal(fake_cuda_report_count(), 0);
    cuda_scene_launch(&r->scene, r->targets[0], 1, 1, false, 0); /* layer 1 was not waited for */
    assert_true(fake_cuda_take_reports(FAKE_CUDA_RACE) > 0);
    kv_ok(kvb_op_wait_stream(rig->kv, r->op, r->scene.server, 1));
    cuda_scene_launch(&r->scene, r->targets[1], 1, 1, false, 0);
    end_rising(r);
}

/*
 * A flight is copied by layers or it is not: in one with the plain block, the first layer would be
 * over with the last.
 */
static void test_layers_are_waited_for_beside_an_op_without_them(void **state)
{
    struct rising *r = *state;
    struct kv_rig *rig = &r->scene.rig;
    struct mv_run run;
    struct mv_done done;
    struct kvb_op *op = NULL;
    start_rising(r, 0);
    mv_park(rig, &run, KVB_TIER_HOST, 9, 1);
    assert_int_equal(mv_match(rig, &run), 1);
    struct kvb_block *target = kv_alloc(rig, KVB_TIER_DEVICE);
    struct kvb_onboard request = mv_request(run.blocks, &target, 1, &done);
    request.flags = KVB_ONBOARD_LAYERS;
    kv_ok(kvb_onboard(rig->kv, &request, &op));
    mv_drop(rig, &run);
    assert_int_equal(kvb_manager_poll(rig->kv, KVB_FOREVER), 0);
    kv_ok(kvb_op_wait_stream(rig->kv, op, r->scene.server, 0));
    cuda_scene_launch(&r->scene, target, 0, 1, false, 0);
    assert_int_equal(fake_cuda_report_count(), 0);
    cuda_scene_launch(&r->scene, target, 1, 1, false, 0);
    assert_true(fake_cuda_take_reports(FAKE_CUDA_RACE) > 0);
    fake_cuda_release(NULL);
    mv_step(rig);
    assert_int_equal(mv_take(rig, &run, op), 1);
    mv_drop_taken(rig, &run);
    end_rising(r);
}

static void test_op_that_joins_waits_for_the_transfer_of_the_other(void **state)
{
    struct rising *r = *state;
    struct kv_rig *rig = &r->scene.rig;
    struct mv_done done;
    struct kvb_block *targets[4];
    struct kvb_op *joined = NULL;
    start_rising(r, 0);
    assert_int_equal(kvb_manager_poll(rig->kv, KVB_FOREVER), 0);
    assert_int_equal(mv_match(rig, &r->run), 4);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 4, NULL, targets, NULL));
    struct kvb_onboard request = mv_request(r->run.blocks, targets, 4, &done);
    kv_ok(kvb_onboard(rig->kv, &request, &joined));
    mv_drop(rig, &r->run);
    /* without progress: it is under way already */
    kv_ok(kvb_op_wait_stream(rig->kv, joined, r->scene.server, KVB_ALL_LAYERS));
    cuda_scene_attend(&r->scene, r->targets[0]);
    fake_cuda_release(NULL);
    mv_step(rig);
    kv_ok(kvb_op_release(rig->kv, joined));
    end_rising(r);
}

/*
 * The server computes what another request would bring up: the op finds it there and joins it.
 * Takes one block of each tier.
 */
static struct kvb_op *join_computed(struct cuda_scene *scene, struct mv_run *computed,
                                    struct mv_done *done)
{
    struct kv_rig *rig = &scene->rig;
    struct mv_run below;
    struct kvb_op *op = NULL;
    struct kvb_fence fence = cuda_scene_fence(scene);
    mv_park(rig, &below, KVB_TIER_HOST, 1, 1);
    assert_int_equal(mv_match(rig, &below), 1);
    struct kvb_block *target = kv_alloc(rig, KVB_TIER_DEVICE);
    cuda_scene_store(scene, computed, 1, 1, &fence);
    struct kvb_onboard request = mv_request(below.blocks, &target, 1, done);
    kv_ok(kvb_onboard(rig->kv, &request, &op));
    mv_drop(rig, &below);
    return op;
}

static void test_stream_waits_for_the_fence_of_a_computed_block_that_is_joined(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run computed;
    struct mv_done done;
    struct kvb_block *block = NULL;
    uint32_t good = 0;
    cudaStream_t server = scene->server, other;
    cuda_ok(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    fake_cuda_hold(server);
    struct kvb_op *op = join_computed(scene, &computed, &done);
    assert_int_equal(kvb_manager_poll(rig->kv, KVB_FOREVER), 0);
    assert_int_equal(done.good_count, 1);
    kv_ok(kvb_op_wait_stream(rig->kv, op, other, KVB_ALL_LAYERS));
    kv_ok(kvb_op_take(rig->kv, op, &block, 1, &good));
    assert_ptr_equal(block, computed.blocks[0]);
    scene->server = other;
    cuda_scene_attend(scene, block);
    scene->server = server;
    assert_int_equal(fake_cuda_report_count(), 0);
    kv_ok(kvb_op_release(rig->kv, op));
    fake_cuda_release(server);
    mv_step(rig);
    kv_unref(rig, block);
    mv_drop(rig, &computed);
    cuda_ok(cudaStreamSynchronize(other));
    cuda_ok(cudaStreamDestroy(other));
}

static void test_stream_cannot_wait_for_a_joined_block_whose_fence_is_part_of_a_graph(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run computed;
    struct mv_done done;
    struct kvb_op *op = join_computed(scene, &computed, &done);
    fake_cuda_fail("cudaEventQuery", 1, cudaErrorCapturedEvent, FAKE_CUDA_ONCE);
    mv_step(rig);
    kv_expect(kvb_op_wait_stream(rig->kv, op, scene->server, KVB_ALL_LAYERS), KVB_EINVAL);
    kv_ok(kvb_op_release(rig->kv, op));
    mv_drop(rig, &computed);
}

static void test_fence_covers_those_given_before_it(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    cudaStream_t other;
    cuda_ok(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    struct kvb_fence first = cuda_scene_fence(scene);
    struct kvb_fence second = {.kind = KVB_FENCE_CUDA_STREAM, .handle = (uint64_t)(uintptr_t)other};
    fake_cuda_hold(scene->server);
    cuda_scene_store(scene, &run, 1, 1, &first);
    /* must not make it forget the first */
    kv_ok(kvb_block_offload(rig->kv, run.blocks, 1, 50, &second, NULL));
    mv_step(rig);
    assert_int_equal(cuda_scene_down(scene).transferred, 0);
    fake_cuda_release(scene->server);
    mv_step(rig);
    assert_int_equal(cuda_scene_down(scene).transferred, 1);
    mv_drop(rig, &run);
    cuda_ok(cudaStreamDestroy(other));
}

static void test_op_whose_copy_has_no_end_to_wait_for_says_try_again(void **state)
{
    struct rising *r = *state;
    struct kv_rig *rig = &r->scene.rig;
    start_rising(r, KVB_ONBOARD_LAYERS);
    /* behind the last layer */
    fake_cuda_fail("cudaEventRecord", KV_LAYERS + 1, cudaErrorMemoryAllocation, FAKE_CUDA_ONCE);
    assert_int_equal(kvb_manager_poll(rig->kv, KVB_FOREVER), 0);
    uint64_t tasks = fake_cuda_tasks_enqueued();
    kv_expect(kvb_op_wait_stream(rig->kv, r->op, r->scene.server, KVB_ALL_LAYERS), KVB_EAGAIN);
    kv_expect(kvb_op_wait_stream(rig->kv, r->op, r->scene.server, 0), KVB_EAGAIN);
    assert_int_equal(fake_cuda_tasks_enqueued(), tasks);
    fake_cuda_release(NULL);
    mv_step(rig);
    /* nothing is good, so nothing is waited for */
    kv_ok(kvb_op_wait_stream(rig->kv, r->op, r->scene.server, KVB_ALL_LAYERS));
    assert_int_equal(mv_take(rig, &r->run, r->op), 0);
    mv_drop_taken(rig, &r->run);
}

static void test_op_that_is_over_needs_no_wait(void **state)
{
    struct rising *r = *state;
    struct kv_rig *rig = &r->scene.rig;
    start_rising(r, 0);
    fake_cuda_release(NULL);
    mv_step(rig);
    uint64_t tasks = fake_cuda_tasks_enqueued();
    kv_ok(kvb_op_wait_stream(rig->kv, r->op, r->scene.server, KVB_ALL_LAYERS));
    assert_int_equal(fake_cuda_tasks_enqueued(), tasks);
    kv_expect(kvb_op_wait_stream(rig->kv, r->op, r->scene.server, KV_LAYERS), KVB_EINVAL);
    kv_ok(kvb_op_wait_stream(rig->kv, r->op, NULL, KVB_ALL_LAYERS)); /* a default stream */
    end_rising(r);
}

static void test_op_behind_a_counter_fence_says_try_again(void **state)
{
    struct rising *r = *state;
    struct kv_rig *rig = &r->scene.rig;
    cuda_scene_open_tiers(&r->scene, 4, 4);
    struct kvb_fence fence = {.kind = KVB_FENCE_COUNTER, .handle = 5};
    mv_park(rig, &r->run, KVB_TIER_HOST, 3, 1);
    assert_int_equal(mv_match(rig, &r->run), 1);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, &fence, r->targets, NULL));
    struct kvb_onboard request = mv_request(r->run.blocks, r->targets, 1, &r->done);
    kv_ok(kvb_onboard(rig->kv, &request, &r->op));
    mv_drop(rig, &r->run);
    mv_step(rig);
    kv_expect(kvb_op_wait_stream(rig->kv, r->op, r->scene.server, KVB_ALL_LAYERS), KVB_EAGAIN);
    mv_signal(rig, 5);
    mv_step(rig);
    kv_ok(kvb_op_wait_stream(rig->kv, r->op, r->scene.server, KVB_ALL_LAYERS));
    assert_int_equal(mv_take(rig, &r->run, r->op), 1);
    mv_drop_taken(rig, &r->run);
}

/* ---- Numbers --------------------------------------------------------------------------------- */

static cudaStream_t held_stream(void)
{
    cudaStream_t stream;
    cuda_ok(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    fake_cuda_hold(stream);
    return stream;
}

static uint64_t import_stream(struct kvbi_cuda_tickets *tickets, cudaStream_t stream)
{
    struct kvb_fence fence = {.kind = KVB_FENCE_CUDA_STREAM, .handle = (uint64_t)(uintptr_t)stream};
    uint64_t number = 0;
    kv_ok(kvbi_cuda_tickets_import(tickets, &fence, &number, NULL));
    return number;
}

struct numbered {
    struct cuda_scene scene; /* comes first: *state is that as well */
    struct kvbi_memory memory;
    struct kvbi_cuda *cuda;
    struct kvbi_lines lines;
    struct kvbi_cuda_tickets tickets;
    cudaStream_t streams[3], ours;
};

static int fences_setup(void **state)
{
    struct numbered *n = cuda_scene_make(state, sizeof *n);
    char message[200];
    cuda_scene_begin(&n->scene);
    assert_int_equal(kvbi_memory_init(&n->memory, NULL), 0);
    assert_int_equal(kvbi_cuda_open(&n->cuda, &n->memory, 0, message, sizeof message), 0);
    assert_int_equal(kvbi_cuda_tickets_create(&n->tickets, n->cuda, &n->lines, NULL), 0);
    cuda_ok(cudaSetDevice(0));
    cuda_ok(cudaStreamCreateWithFlags(&n->ours, cudaStreamNonBlocking));
    return 0;
}

static int fences_teardown(void **state)
{
    struct numbered *n = *state;
    bool good = cudaStreamDestroy(n->ours) == cudaSuccess;
    for (uint32_t i = 0; i < 3; i++)
        good = (n->streams[i] == NULL || cudaStreamDestroy(n->streams[i]) == cudaSuccess) && good;
    kvbi_cuda_tickets_destroy(&n->tickets);
    kvbi_cuda_close(n->cuda, NULL);
    return cuda_scene_teardown(state) == 0 && good ? 0 : -1;
}

/*
 * A call has taken the second number and has not got to the stream yet, while a third one is there
 * to be waited for.
 */
static void test_number_that_was_left_out_is_waited_for_once_it_is_recorded(void **state)
{
    struct numbered *n = *state;
    struct kvbi_cuda_tickets *tickets = &n->tickets;
    struct kvbi_cuda_scope scope;
    struct kvbi_cuda_waited waited = {{0}};
    uint64_t ticket[3];
    n->streams[0] = held_stream();
    for (uint32_t i = 0; i < 3; i++)
        ticket[i] = import_stream(tickets, n->streams[0]);
    uint32_t line = kvbi_ticket_line(ticket[0]) - KVBI_LINE_STREAM;
    struct kvbi_cuda_ticket *second =
        &tickets->ring[kvbi_ticket_number(ticket[1]) % KVBI_CUDA_TICKETS];
    unsigned before = fake_cuda_calls("cudaStreamWaitEvent");
    second->recorded = false;
    kvbi_cuda_enter(n->cuda, &scope);
    cuda_ok(kvbi_cuda_tickets_wait(tickets, n->ours, &waited, ticket[2]));
    assert_int_equal(fake_cuda_calls("cudaStreamWaitEvent") - before, 2);
    assert_int_equal(waited.numbers[line], 0);
    second->recorded = true;
    cuda_ok(kvbi_cuda_tickets_wait(tickets, n->ours, &waited, ticket[2]));
    assert_int_equal(fake_cuda_calls("cudaStreamWaitEvent") - before, 5);
    assert_int_equal(waited.numbers[line], kvbi_ticket_number(ticket[2]));
    cuda_ok(kvbi_cuda_tickets_wait(tickets, n->ours, &waited, ticket[2]));
    assert_int_equal(fake_cuda_calls("cudaStreamWaitEvent") - before, 5);
    kvbi_cuda_leave(&scope);
    fake_cuda_release(n->streams[0]);
    cuda_ok(cudaStreamSynchronize(n->ours));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(rising, test_attention_waits_on_its_stream_for_blocks_on_their_way),
        TEST(rising, test_attention_that_does_not_wait_is_a_race),
        TEST(rising, test_layer_0_may_run_while_layer_1_arrives),
        TEST(rising, test_layers_are_waited_for_beside_an_op_without_them),
        TEST(rising, test_op_that_joins_waits_for_the_transfer_of_the_other),
        TEST(cuda_opened, test_stream_waits_for_the_fence_of_a_computed_block_that_is_joined),
        TEST(cuda_opened,
             test_stream_cannot_wait_for_a_joined_block_whose_fence_is_part_of_a_graph),
        TEST(cuda_opened, test_fence_covers_those_given_before_it),
        TEST(rising, test_op_whose_copy_has_no_end_to_wait_for_says_try_again),
        TEST(rising, test_op_that_is_over_needs_no_wait),
        TEST(rising, test_op_behind_a_counter_fence_says_try_again),
        TEST(fences, test_number_that_was_left_out_is_waited_for_once_it_is_recorded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
