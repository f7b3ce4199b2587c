/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copies between the stand-in's device memory and host memory: every method moves every byte of
 * every layout to where it belongs, pinned or not, and what is next to each other goes in one.
 */
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/timerfd.h>

#include "api/manager.h"
#include "support/cuda_scene.h"
#include "support/give_up.h"

/* ---- Layouts --------------------------------------------------------------------------------- */

#define BLOCKS 6u
#define LAYERS 3u
#define PARTS 2u
#define CHUNK 96u

/* Memory of the server's, and how its chunks lie there. */
struct shape {
    const char *name;
    uint64_t layer, part, block; /* strides */
    bool layered;
    bool rect; /* copies in rectangles are possible */
};

static const struct shape shapes[] = {
    {"contiguous", 0, 0, 0, false, true},
    {"one tensor a layer, K and V apart", 0, BLOCKS *CHUNK, CHUNK, true, true},
    {"all layers in one tensor, K and V apart", 2 * BLOCKS *CHUNK, BLOCKS *CHUNK, CHUNK, false,
     true},
    {"parts outermost", BLOCKS *CHUNK, LAYERS *BLOCKS *CHUNK, CHUNK, false, true},
    {"with gaps", 4 * CHUNK, CHUNK + 32, 16 * CHUNK, false, true},
};

static uint64_t span_of(const struct shape *shape)
{
    uint64_t part = shape->part != 0 ? shape->part : CHUNK;
    uint64_t layer = shape->layer != 0 ? shape->layer : PARTS * CHUNK;
    uint64_t block = shape->block != 0 ? shape->block : LAYERS * PARTS * CHUNK;
    return (BLOCKS - 1) * block + (PARTS - 1) * part + (shape->layered ? 0 : (LAYERS - 1) * layer) +
           CHUNK;
}

struct workshop {
    struct cuda_scene scene; /* comes first: *state is that as well */
    void *layers[LAYERS];    /* each layer's memory, where it has some of its own */
};

static int workshop_setup(void **state)
{
    (void)cuda_scene_make(state, sizeof(struct workshop));
    return 0;
}

#define workshop_teardown cuda_scene_teardown

static void open_workshop(struct workshop *w, const struct shape *shape,
                          enum kvb_copy_method method)
{
    cuda_scene_init(&w->scene, BLOCKS, 2 * BLOCKS);
    struct kvb_tier_config *device = &w->scene.rig.tiers[0];
    w->scene.rig.layout = (struct kvb_layout){.size = sizeof(struct kvb_layout),
                                              .layers = LAYERS,
                                              .parts = PARTS,
                                              .chunk_bytes = CHUNK,
                                              .layer_stride = shape->layer,
                                              .part_stride = shape->part,
                                              .block_stride = shape->block};
    device->memory_kind = KVB_MEMORY_CUDA;
    device->copy_method = method;
    device->memory_bytes = span_of(shape);
    for (uint32_t i = 0; i < (shape->layered ? LAYERS : 1); i++)
        w->layers[i] = cuda_scene_malloc(&w->scene, device->memory_bytes);
    if (shape->layered)
        device->layer_memory = w->layers;
    else
        device->memory = w->layers[0];
    cuda_scene_open(&w->scene);
}

/* Down, gone, up again; each block's every byte is compared on the way. */
static void round_trip(struct workshop *w, uint32_t flags)
{
    struct kv_rig *rig = &w->scene.rig;
    struct mv_run run;
    struct mv_done done;
    struct kvb_block *targets[BLOCKS];
    struct kvb_op *op = NULL;
    mv_store(rig, &run, KVB_TIER_DEVICE, 1, BLOCKS);
    cuda_scene_offer(&w->scene, &run);
    mv_step(rig);
    mv_drop(rig, &run);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    mv_expect_in(rig, &run, KVB_TIER_HOST);
    assert_int_equal(mv_match(rig, &run), BLOCKS);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, BLOCKS, NULL, targets, NULL));
    struct kvb_onboard request = mv_request(run.blocks, targets, BLOCKS, &done);
    request.flags = flags;
    kv_ok(kvb_onboard(rig->kv, &request, &op));
    mv_drop(rig, &run);
    mv_step(rig);
    assert_int_equal(mv_take(rig, &run, op), BLOCKS);
    mv_drop_taken(rig, &run);
}

static void every_shape(struct workshop *w, enum kvb_copy_method method)
{
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        open_workshop(w, &shapes[i], method);
        round_trip(w, 0);
        round_trip(w, KVB_ONBOARD_LAYERS);
        cuda_scene_close(&w->scene);
    }
}

static void test_plain_copies_move_every_byte_of_every_layout(void **state)
{
    every_shape(*state, KVB_COPY_PLAIN);
}

static void test_rectangles_move_every_byte_of_every_layout(void **state)
{
    every_shape(*state, KVB_COPY_RECT);
}

static void test_batches_move_every_byte_of_every_layout(void **state)
{
    every_shape(*state, KVB_COPY_BATCH);
}

static void test_kernels_move_every_byte_of_every_layout(void **state)
{
    every_shape(*state, KVB_COPY_KERNEL);
}

static void test_calibration_chooses_what_moves_every_byte(void **state)
{
    every_shape(*state, KVB_COPY_AUTO);
}

/* ---- What is called -------------------------------------------------------------------------- */

static unsigned calls_of_a_round_trip(struct workshop *w, const struct shape *shape,
                                      enum kvb_copy_method method, const char *call)
{
    open_workshop(w, shape, method);
    unsigned before = fake_cuda_calls(call);
    round_trip(w, 0);
    unsigned calls = fake_cuda_calls(call) - before;
    cuda_scene_close(&w->scene);
    return calls;
}

static void test_adjacent_slots_are_one_copy(void **state)
{
    struct workshop *w = *state;
    struct kv_rig *rig = &w->scene.rig;
    struct mv_run run;
    open_workshop(w, &shapes[0], KVB_COPY_PLAIN);
    mv_store(rig, &run, KVB_TIER_DEVICE, 1, BLOCKS);
    unsigned before = fake_cuda_calls("cudaMemcpyAsync");
    cuda_scene_offer(&w->scene, &run);
    mv_step(rig);
    assert_int_equal(fake_cuda_calls("cudaMemcpyAsync") - before, 1);
    mv_drop(rig, &run);
}

static void test_batch_is_one_call_each_way(void **state)
{
    struct workshop *w = *state;
    assert_int_equal(calls_of_a_round_trip(w, &shapes[2], KVB_COPY_BATCH, "cudaMemcpyBatchAsync"),
                     2);
    assert_int_equal(calls_of_a_round_trip(w, &shapes[2], KVB_COPY_BATCH, "cudaMemcpyAsync"), 0);
}

static void test_rectangle_is_one_call_a_block(void **state)
{
    struct workshop *w = *state;
    assert_int_equal(calls_of_a_round_trip(w, &shapes[2], KVB_COPY_RECT, "cudaMemcpy2DAsync"),
                     2 * BLOCKS);
    assert_int_equal(calls_of_a_round_trip(w, &shapes[4], KVB_COPY_RECT, "cudaMemcpy3DAsync"),
                     2 * BLOCKS);
    assert_int_equal(calls_of_a_round_trip(w, &shapes[3], KVB_COPY_RECT, "cudaMemcpy2DAsync"),
                     2 * BLOCKS * LAYERS);
}

static void test_kernel_is_one_launch_each_way(void **state)
{
    struct workshop *w = *state;
    assert_int_equal(calls_of_a_round_trip(w, &shapes[1], KVB_COPY_KERNEL, "fake_cuda_kernel"), 2);
}

static void test_statistics_name_engine_and_methods(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    cuda_scene_init(scene, 4, 4);
    rig->tiers[0].copy_method = KVB_COPY_KERNEL;
    cuda_scene_open(scene);
    struct kvb_stats stats = kv_stats(rig);
    uint32_t down = 0, up = 0;
    const char *words = strstr(stats.engine, "cuda 0, ");
    assert_non_null(words);
    /* of 132 multiprocessors it may take 8; how many it takes is a matter of time */
    assert_int_equal(sscanf(words, "cuda 0, down kernel x%u, up kernel x%u", &down, &up), 2);
    assert_true(down == 2 || down == 4 || down == 8);
    assert_true(up == 2 || up == 4 || up == 8);
    cuda_scene_close(scene);
    cuda_scene_init(scene, 4, 4);
    rig->tiers[0].copy_method = KVB_COPY_BATCH;
    cuda_scene_open(scene);
    stats = kv_stats(rig);
    assert_non_null(strstr(stats.engine, "cuda 0, down batch, up batch"));
}

static void test_driver_without_batches_gets_plain_copies(void **state)
{
    struct workshop *w = *state;
    cuda_scene_begin(&w->scene);
    fake_cuda_fail("cudaMemcpyBatchAsync", 1, cudaErrorNotSupported, FAKE_CUDA_FOR_EVER);
    open_workshop(w, &shapes[2], KVB_COPY_AUTO);
    unsigned before = fake_cuda_calls("cudaMemcpyBatchAsync");
    round_trip(w, 0);
    assert_int_equal(fake_cuda_calls("cudaMemcpyBatchAsync"), before);
}

/* ---- Host memory that is not pinned ---------------------------------------------------------- */

/* At most so many bytes can be pinned besides what the engine takes for itself at create. */
static void open_with_pinnable(struct cuda_scene *scene, uint64_t bytes)
{
    kv_device_config.register_bytes = bytes;
    cuda_scene_init(scene, 8, 64);
    scene->rig.layout.chunk_bytes = 1024; /* a block is a page */
    cuda_scene_open(scene);
}

static void test_blocks_that_cannot_be_pinned_take_a_detour_and_are_counted(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    struct mv_done done;
    open_with_pinnable(scene, 4096);
    struct kvb_stats stats = kv_stats(rig);
    assert_int_equal(stats.pinned_bytes, 0);
    assert_int_equal(stats.unpinnable_bytes, 64 * 4096);
    assert_true(kv_log_has(&rig->log, "cannot be pinned"));
    mv_store(rig, &run, KVB_TIER_DEVICE, 1, 8);
    cuda_scene_offer(scene, &run);
    mv_step(rig);
    mv_drop(rig, &run);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    mv_expect_in(rig, &run, KVB_TIER_HOST);
    struct kvb_op *op = mv_bring_up(rig, &run, KVB_TIER_DEVICE, &done);
    mv_step(rig);
    assert_int_equal(mv_take(rig, &run, op), 8);
    mv_drop_taken(rig, &run);
}

static void test_more_unpinned_blocks_than_buffers_take_turns(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    kv_device_config.register_bytes = 4096;
    cuda_scene_init(scene, 40, 64);
    rig->layout.chunk_bytes = 1024;
    mv_bounds(rig, 0, 64, 40, 1, 64);
    cuda_scene_open(scene);
    mv_store(rig, &run, KVB_TIER_DEVICE, 1, 40);
    cuda_scene_offer(scene, &run);
    mv_step(rig);
    mv_drop(rig, &run);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    mv_expect_in(rig, &run, KVB_TIER_HOST);
}

static void test_memory_that_the_caller_has_pinned_is_used_as_it_is(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    cuda_scene_init(scene, 4, 8);
    rig->tiers[1].memory = cuda_scene_malloc_pinned(scene, 8 * 256);
    rig->tiers[1].memory_bytes = 8 * 256;
    unsigned before = fake_cuda_calls("cudaHostRegister");
    cuda_scene_open(scene);
    assert_int_equal(fake_cuda_calls("cudaHostRegister"), before);
    assert_int_equal(kv_stats(rig).pinned_bytes, 8 * 256);
    cuda_scene_store(scene, &run, 1, 2, NULL);
    cuda_ok(cudaStreamSynchronize(scene->server));
    mv_offer(rig, run.blocks[0], 50);
    mv_offer(rig, run.blocks[1], 50);
    mv_step(rig);
    mv_drop(rig, &run);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    mv_expect_in(rig, &run, KVB_TIER_HOST);
}

static void test_pinning_in_the_background_pins_all_of_it(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    cuda_scene_init(scene, 4, 64);
    rig->config.progress = KVB_PROGRESS_THREAD;
    rig->tiers[1].pin_threads = 2;
    cuda_scene_open(scene);
    while (kv_stats(rig).pinned_bytes < 64 * 256)
        ; /* ends, or the test's time does */
    mv_store(rig, &run, KVB_TIER_DEVICE, 1, 4);
    for (uint32_t i = 0; i < 4; i++)
        kv_ok(kvb_block_offload(rig->kv, &run.blocks[i], 1, 50, NULL, NULL));
    kv_flush(rig);
    kv_ok(kvb_block_unref(rig->kv, run.blocks, 4, NULL));
    mv_evict_all(rig, KVB_TIER_DEVICE);
    kv_flush(rig);
    mv_expect_in(rig, &run, KVB_TIER_HOST);
}

/* ---- Sleeping -------------------------------------------------------------------------------- */

static void test_descriptor_becomes_readable_when_a_copy_is_over(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    mv_store(rig, &run, KVB_TIER_DEVICE, 1, 1);
    mv_offer(rig, run.blocks[0], 50);
    fake_cuda_hold(NULL);
    assert_int_equal(kvb_manager_poll(rig->kv, KVB_FOREVER), 0);
    fake_cuda_release(NULL);
    fake_cuda_quiesce();
    struct pollfd wait = {.fd = kvb_manager_event_fd(rig->kv), .events = POLLIN};
    assert_int_equal(poll(&wait, 1, KV_GIVE_UP_MS), 1);
    assert_in_range(kvb_manager_poll(rig->kv, KVB_FOREVER), 0, 1);
    assert_int_equal(cuda_scene_down(scene).transferred, 1);
    mv_step(rig);
    assert_int_equal(poll(&wait, 1, 0), 0); /* nothing is under way: nobody is woken */
    mv_drop(rig, &run);
}

static long tick_ns(struct kvbi_engine *engine)
{
    struct itimerspec timer;
    assert_int_equal(timerfd_gettime(engine->ops->wake_fd(engine), &timer), 0);
    return timer.it_interval.tv_nsec;
}

static void test_copy_behind_a_step_is_looked_at_seldom(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    struct kvbi_engine *engine = rig->kv->pipeline.engines.streams;
    fake_cuda_hold(NULL);
    struct kvb_fence fence = cuda_scene_fence(scene);
    cuda_scene_store(scene, &run, 1, 1, &fence);
    mv_offer(rig, run.blocks[0], 50);
    assert_int_equal(tick_ns(engine), 0);
    assert_int_equal(kvb_manager_poll(rig->kv, KVB_FOREVER), 0);
    long behind = tick_ns(engine);
    unsigned before = fake_cuda_calls("cudaEventQuery");
    kv_advance(rig, KV_MS);
    assert_false(engine->ops->ready(engine)); /* what a thread that is awake asks again and again */
    assert_int_equal(fake_cuda_calls("cudaEventQuery"), before);
    fake_cuda_release(scene->server); /* the step is over, the copy is not */
    fake_cuda_quiesce();
    assert_int_equal(kvb_manager_poll(rig->kv, KVB_FOREVER), 0);
    long under_way = tick_ns(engine);
    assert_in_range(under_way, 1, behind / 5);
    kv_advance(rig, KV_MS);
    assert_false(engine->ops->ready(engine));
    assert_int_not_equal(fake_cuda_calls("cudaEventQuery"), before);
    fake_cuda_release(NULL);
    mv_step(rig);
    assert_int_equal(cuda_scene_down(scene).transferred, 1);
    mv_drop(rig, &run);
}

struct asking {
    struct kvbi_engine *engine;
    _Atomic bool stop;
};

static void *ask_and_ask(void *argument)
{
    struct asking *asking = argument;
    while (!asking->stop)
        (void)asking->engine->ops->ready(asking->engine);
    return NULL;
}

/* Sixteen flights at once, which end together. */
static void fly(struct cuda_scene *scene, struct mv_run *run)
{
    fake_cuda_hold(NULL);
    for (uint32_t i = 0; i < run->count; i++) {
        mv_offer(&scene->rig, run->blocks[i], 50);
        assert_in_range(kvb_manager_poll(scene->rig.kv, KVB_FOREVER), 0, 1);
    }
    fake_cuda_release(NULL);
    mv_step(&scene->rig);
}

/* Any thread may ask while another one works. ThreadSanitizer sees what they share. */
static void test_engine_is_asked_by_one_thread_while_another_works(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct mv_run run;
    pthread_t thread;
    cuda_scene_open_tiers(scene, 16, 32);
    struct asking asking = {.engine = rig->kv->pipeline.engines.streams};
    assert_int_equal(pthread_create(&thread, NULL, ask_and_ask, &asking), 0);
    for (uint32_t round = 0; round < 50; round++) {
        mv_store(rig, &run, KVB_TIER_DEVICE, 1 + round, 16);
        fly(scene, &run);
        mv_drop(rig, &run);
    }
    asking.stop = true;
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(cuda_scene_down(scene).transferred, 50 * 16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(workshop, test_plain_copies_move_every_byte_of_every_layout),
        TEST(workshop, test_rectangles_move_every_byte_of_every_layout),
        TEST(workshop, test_batches_move_every_byte_of_every_layout),
        TEST(workshop, test_kernels_move_every_byte_of_every_layout),
        TEST(workshop, test_calibration_chooses_what_moves_every_byte),
        TEST(workshop, test_adjacent_slots_are_one_copy),
        TEST(workshop, test_batch_is_one_call_each_way),
        TEST(workshop, test_rectangle_is_one_call_a_block),
        TEST(workshop, test_kernel_is_one_launch_each_way),
        TEST(cuda_scene, test_statistics_name_engine_and_methods),
        TEST(workshop, test_driver_without_batches_gets_plain_copies),
        TEST(cuda_scene, test_blocks_that_cannot_be_pinned_take_a_detour_and_are_counted),
        TEST(cuda_scene, test_more_unpinned_blocks_than_buffers_take_turns),
        TEST(cuda_scene, test_memory_that_the_caller_has_pinned_is_used_as_it_is),
        TEST(cuda_scene, test_pinning_in_the_background_pins_all_of_it),
        TEST(cuda_opened, test_descriptor_becomes_readable_when_a_copy_is_over),
        TEST(cuda_opened, test_copy_behind_a_step_is_looked_at_seldom),
        TEST(cuda_scene, test_engine_is_asked_by_one_thread_while_another_works),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
