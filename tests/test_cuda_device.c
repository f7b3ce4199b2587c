/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What must hold on every machine with CUDA, the stand-in and a real GPU alike (tests/gpu compiles
 * this file a second time): bytes by each method, order with the server's streams, nothing left
 * behind. It makes no use of what only the stand-in can see.
 */
#include "support/device_scene.h"

#define LAYERS 3u
#define PARTS 2u
#define BLOCKS 24u

/* ---- A server -------------------------------------------------------------------------------- */

struct server {
    struct kv_rig rig; /* comes first: *state is a rig as well */
    bool begun;
    cudaStream_t stream;
    void *pinned; /* a block's bytes, on their way to or from the device */
    uint64_t chunk_bytes;
    void *tensors[LAYERS]; /* one a layer, K of all blocks before V; or NULL */
};

static int server_setup(void **state)
{
    (void)kv_scene_begin(state, sizeof(struct server));
    return 0;
}

/* With all that is the server's own. The manager is gone. */
static bool end_server(struct server *server)
{
    if (!server->begun)
        return true;
    bool good = true;
    for (uint32_t i = 0; i < LAYERS; i++) {
        good = cudaFree(server->tensors[i]) == cudaSuccess && good;
        server->tensors[i] = NULL;
    }
    good = cudaStreamSynchronize(server->stream) == cudaSuccess && good;
    good = cudaStreamDestroy(server->stream) == cudaSuccess && good;
    good = cudaFreeHost(server->pinned) == cudaSuccess && good;
    /* before the end: a call behind it would begin anew */
    const char *error = cudaGetErrorName(cudaPeekAtLastError());
    good = kv_device_end() == 0 && good;
    if (!good)
        print_error("the server's end has failed: %s\n", error);
    server->begun = false;
    return good;
}

static int server_teardown(void **state)
{
    struct server *server = *state;
    bool good = kv_rig_end(&server->rig);
    good = end_server(server) && good;
    free(server);
    return good ? 0 : -1;
}

static void prepare(struct server *server, uint64_t chunk_bytes)
{
    kv_rig_init(&server->rig);
    mv_two_tiers(&server->rig, BLOCKS, BLOCKS, KVB_OFFLOAD_MANUAL);
    server->chunk_bytes = chunk_bytes;
    server->rig.layout = (struct kvb_layout){.size = sizeof server->rig.layout,
                                             .layers = LAYERS,
                                             .parts = PARTS,
                                             .chunk_bytes = chunk_bytes};
    kv_device_start(NULL, 0);
    server->begun = true;
    cuda_ok(cudaStreamCreateWithFlags(&server->stream, cudaStreamNonBlocking));
    cuda_ok(cudaHostAlloc(&server->pinned, LAYERS * PARTS * chunk_bytes, cudaHostAllocPortable));
}

static void open_server(struct server *server)
{
    prepare(server, 4096);
    kv_rig_open(&server->rig);
}

static void give_tensors(struct server *server)
{
    struct kvb_tier_config *device = &server->rig.tiers[0];
    device->memory_kind = KVB_MEMORY_CUDA;
    device->memory_bytes = PARTS * BLOCKS * server->chunk_bytes;
    device->layer_memory = server->tensors;
    for (uint32_t i = 0; i < LAYERS; i++)
        cuda_ok(cudaMalloc(&server->tensors[i], device->memory_bytes));
    server->rig.layout.part_stride = BLOCKS * server->chunk_bytes;
    server->rig.layout.block_stride = server->chunk_bytes;
}

static uint64_t transferred(struct server *server, uint32_t from, uint32_t to)
{
    return mv_lane(&server->rig, from, to).transferred;
}

/* Without waiting for the device: much longer than a copy takes. */
static void poll_for_long(struct server *server)
{
    for (uint32_t i = 0; i < 5000; i++)
        assert_true(kvb_manager_poll(server->rig.kv, 0) >= 0);
}

/* ---- Every method ---------------------------------------------------------------------------- */

/* Down, gone, up again; each block's every byte is compared on the way. */
static void round_trip(struct server *server, uint32_t flags)
{
    struct kv_rig *rig = &server->rig;
    struct kvb_block *targets[BLOCKS];
    struct kvb_op *op = NULL;
    struct mv_run run;
    mv_store(rig, &run, KVB_TIER_DEVICE, 1, BLOCKS);
    kv_ok(kvb_block_offload(rig->kv, run.blocks, BLOCKS, 50, NULL, NULL));
    mv_step(rig);
    mv_drop(rig, &run);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    mv_expect_in(rig, &run, KVB_TIER_HOST);
    assert_int_equal(mv_match(rig, &run), BLOCKS);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, BLOCKS, NULL, targets, NULL));
    for (uint32_t i = 0; i < BLOCKS / 2; i++) { /* the other way round: neighbours go apart */
        struct kvb_block *last = targets[BLOCKS - 1 - i];
        targets[BLOCKS - 1 - i] = targets[i];
        targets[i] = last;
    }
    struct kvb_onboard request = mv_request(run.blocks, targets, BLOCKS, NULL);
    request.flags = flags;
    kv_ok(kvb_onboard(rig->kv, &request, &op));
    mv_drop(rig, &run);
    mv_step(rig);
    assert_int_equal(mv_take(rig, &run, op), BLOCKS);
    mv_drop_taken(rig, &run);
}

/* False: it cannot be had here. Only what needs a driver or a compiler may say so. */
static bool open_with_method(struct server *server, uint32_t method)
{
    struct kvb_diagnosis diagnosis = {.size = sizeof diagnosis};
    server->rig.tiers[0].copy_method = method;
    server->rig.tiers[0].memory_kind = KVB_MEMORY_CUDA;
    int error = kvb_manager_create(&server->rig.config, &server->rig.kv, &diagnosis);
    if (error == KVB_EUNSUPPORTED && (method == KVB_COPY_BATCH || method == KVB_COPY_KERNEL)) {
        print_message("left out: %s\n", diagnosis.message);
        return false;
    }
    kv_expect(error, KVB_OK);
    kv_device_start(NULL, 0);
    server->rig.on_device = true;
    return true;
}

static void move_by(struct server *server, uint32_t method)
{
    static const uint64_t chunks[] = {64, 4096, (33 << 10) + 16, (uint64_t)64 << 10};
    for (size_t i = 0; i < 2 * sizeof chunks / sizeof *chunks; i++) {
        prepare(server, chunks[i / 2]);
        if (i % 2 == 1)
            give_tensors(server);
        if (open_with_method(server, method)) {
            round_trip(server, 0);
            round_trip(server, KVB_ONBOARD_LAYERS);
            kv_rig_close(&server->rig);
        }
        assert_true(end_server(server));
    }
}

static void test_plain_copies_move_every_byte(void **state)
{
    move_by(*state, KVB_COPY_PLAIN);
}

static void test_rectangles_move_every_byte(void **state)
{
    move_by(*state, KVB_COPY_RECT);
}

static void test_batches_move_every_byte(void **state)
{
    move_by(*state, KVB_COPY_BATCH);
}

static void test_kernels_move_every_byte(void **state)
{
    move_by(*state, KVB_COPY_KERNEL);
}

static void test_what_calibration_chooses_moves_every_byte(void **state)
{
    move_by(*state, KVB_COPY_AUTO);
}

/* ---- Order ----------------------------------------------------------------------------------- */

static void *chunk_of(struct server *server, struct kvb_block *block, uint32_t layer, uint32_t part)
{
    void *address = NULL;
    kv_ok(kvb_block_address(server->rig.kv, block, layer, part, &address));
    return address;
}

static unsigned char *pinned_chunk(struct server *server, uint32_t layer, uint32_t part)
{
    return (unsigned char *)server->pinned + (layer * PARTS + part) * server->chunk_bytes;
}

/* The bytes that kv_payload_fill would give the chunk. */
static unsigned char expected_byte(uint64_t seed, uint32_t layer, uint32_t part, uint64_t i)
{
    return (unsigned char)kv_mix(seed + ((uint64_t)layer << 48) + ((uint64_t)part << 40) + i);
}

/* The forward pass: enqueued on the server's stream. */
static void compute(struct server *server, struct kvb_block *block, uint64_t seed)
{
    for (uint32_t layer = 0; layer < LAYERS; layer++)
        for (uint32_t part = 0; part < PARTS; part++) {
            unsigned char *from = pinned_chunk(server, layer, part);
            for (uint64_t i = 0; i < server->chunk_bytes; i++)
                from[i] = expected_byte(seed, layer, part, i);
            cuda_ok(cudaMemcpyAsync(chunk_of(server, block, layer, part), from, server->chunk_bytes,
                                    cudaMemcpyHostToDevice, server->stream));
        }
}

/* Attention: what it read is in `pinned` once the stream has been waited for. */
static void read_layer(struct server *server, struct kvb_block *block, uint32_t layer)
{
    for (uint32_t part = 0; part < PARTS; part++)
        cuda_ok(cudaMemcpyAsync(pinned_chunk(server, layer, part),
                                chunk_of(server, block, layer, part), server->chunk_bytes,
                                cudaMemcpyDeviceToHost, server->stream));
}

static void expect_read(struct server *server, uint64_t seed)
{
    for (uint32_t layer = 0; layer < LAYERS; layer++)
        for (uint32_t part = 0; part < PARTS; part++)
            for (uint64_t i = 0; i < server->chunk_bytes; i++)
                assert_int_equal(pinned_chunk(server, layer, part)[i],
                                 expected_byte(seed, layer, part, i));
}

static void test_copy_out_waits_for_the_stream_that_writes(void **state)
{
    struct server *server = *state;
    struct kv_rig *rig = &server->rig;
    struct mv_run run;
    uint32_t computed = KV_TOKENS;
    open_server(server);
    struct kvb_fence fence = {.kind = KVB_FENCE_CUDA_STREAM,
                              .handle = (uint64_t)(uintptr_t)server->stream};
    mv_name(rig, &run, 1, 1);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, NULL, run.blocks, NULL));
    kv_init(rig, run.blocks[0], 0, 0, NULL);
    kv_append(rig, run.blocks[0], run.tokens, KV_TOKENS, 0);
    kv_schedule(rig, run.blocks[0]);
    kv_device_hold(server->stream);
    compute(server, run.blocks[0], run.seqs[0].hash);
    kv_ok(kvb_block_compute_done(rig->kv, run.blocks, &computed, 1, &fence, NULL));
    kv_ok(kvb_block_register(rig->kv, run.blocks, 1, NULL, NULL, NULL));
    kv_ok(kvb_block_offload(rig->kv, run.blocks, 1, 50, NULL, NULL));
    poll_for_long(server);
    assert_int_equal(transferred(server, KVB_TIER_DEVICE, KVB_TIER_HOST), 0);
    kv_device_release(server->stream);
    cuda_ok(cudaStreamSynchronize(server->stream));
    mv_step(rig);
    assert_int_equal(transferred(server, KVB_TIER_DEVICE, KVB_TIER_HOST), 1);
    mv_drop(rig, &run);
    mv_evict_all(rig, KVB_TIER_DEVICE);
    mv_expect_in(rig, &run, KVB_TIER_HOST);
}

static struct kvb_op *bring_one_up(struct server *server, struct mv_run *run,
                                   struct kvb_block **target, const struct kvb_fence *fence,
                                   uint32_t flags)
{
    struct kvb_op *op = NULL;
    assert_int_equal(mv_match(&server->rig, run), 1);
    kv_ok(kvb_alloc(server->rig.kv, KVB_TIER_DEVICE, 1, fence, target, NULL));
    struct kvb_onboard request = mv_request(run->blocks, target, 1, NULL);
    request.flags = flags;
    kv_ok(kvb_onboard(server->rig.kv, &request, &op));
    mv_drop(&server->rig, run);
    return op;
}

static void test_copy_in_waits_for_the_stream_that_reads(void **state)
{
    struct server *server = *state;
    struct kv_rig *rig = &server->rig;
    struct mv_run run;
    struct kvb_block *target = NULL;
    open_server(server);
    struct kvb_fence fence = {.kind = KVB_FENCE_CUDA_STREAM,
                              .handle = (uint64_t)(uintptr_t)server->stream};
    mv_park(rig, &run, KVB_TIER_HOST, 2, 1);
    kv_device_hold(server->stream);
    struct kvb_op *op = bring_one_up(server, &run, &target, &fence, 0);
    poll_for_long(server);
    assert_int_equal(transferred(server, KVB_TIER_HOST, KVB_TIER_DEVICE), 0);
    kv_device_release(server->stream);
    cuda_ok(cudaStreamSynchronize(server->stream));
    mv_step(rig);
    assert_int_equal(mv_take(rig, &run, op), 1);
    mv_drop_taken(rig, &run);
}

/* Waits are enqueued as soon as the copies are: nothing here waits for them. */
static void wait_for_layer(struct server *server, struct kvb_op *op, uint32_t layer)
{
    int error;
    while ((error = kvb_op_wait_stream(server->rig.kv, op, server->stream, layer)) == KVB_EAGAIN)
        assert_true(kvb_manager_poll(server->rig.kv, 0) >= 0);
    kv_ok(error);
}

static void test_attention_reads_each_layer_behind_its_wait(void **state)
{
    struct server *server = *state;
    struct kv_rig *rig = &server->rig;
    struct mv_run run;
    struct kvb_block *target = NULL;
    open_server(server);
    mv_park(rig, &run, KVB_TIER_HOST, 3, 1);
    struct kvb_op *op = bring_one_up(server, &run, &target, NULL, KVB_ONBOARD_LAYERS);
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        wait_for_layer(server, op, layer);
        read_layer(server, target, layer);
    }
    cuda_ok(cudaStreamSynchronize(server->stream));
    expect_read(server, run.seqs[0].hash);
    mv_step(rig);
    assert_int_equal(mv_take(rig, &run, op), 1);
    mv_drop_taken(rig, &run);
}

/* ---- Good manners ---------------------------------------------------------------------------- */

static void test_capture_of_the_server_survives(void **state)
{
    struct server *server = *state;
    struct kv_rig *rig = &server->rig;
    struct mv_run run;
    cudaStream_t captured;
    open_server(server);
    struct kvb_fence fence = {.kind = KVB_FENCE_CUDA_STREAM};
    cuda_ok(cudaStreamCreateWithFlags(&captured, cudaStreamNonBlocking));
    mv_store(rig, &run, KVB_TIER_DEVICE, 4, 2);
    cuda_ok(kv_device_capture_begin(captured));
    kv_ok(kvb_block_offload(rig->kv, run.blocks, 1, 50, NULL, NULL));
    poll_for_long(server);
    fence.handle = (uint64_t)(uintptr_t)captured;
    kv_expect(kvb_block_offload(rig->kv, &run.blocks[1], 1, 50, &fence, NULL), KVB_EINVAL);
    fence.handle = (uint64_t)(uintptr_t)server->stream;
    kv_ok(kvb_block_offload(rig->kv, &run.blocks[1], 1, 50, &fence, NULL));
    poll_for_long(server);
    cuda_ok(kv_device_capture_end(captured));
    cuda_ok(cudaStreamDestroy(captured));
    mv_step(rig);
    assert_int_equal(transferred(server, KVB_TIER_DEVICE, KVB_TIER_HOST), 2);
    mv_drop(rig, &run);
}

static void test_pending_error_of_the_server_stays(void **state)
{
    struct server *server = *state;
    struct kv_rig *rig = &server->rig;
    void *nothing = NULL;
    prepare(server, 4096);
    assert_int_equal(cudaMalloc(&nothing, SIZE_MAX / 2), cudaErrorMemoryAllocation);
    assert_true(open_with_method(server, KVB_COPY_AUTO));
    /* no event: refused */
    struct kvb_fence fence = {.kind = KVB_FENCE_CUDA_EVENT, .handle = 0};
    struct kvb_block *block = NULL;
    kv_expect(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, &fence, &block, NULL), KVB_EINVAL);
    assert_int_equal(cudaPeekAtLastError(), cudaErrorMemoryAllocation);
    assert_int_equal(cudaGetLastError(), cudaErrorMemoryAllocation);
}

static void test_memory_of_the_host_is_no_device_memory(void **state)
{
    struct server *server = *state;
    struct kv_rig *rig = &server->rig;
    struct kvb_diagnosis diagnosis = {.size = sizeof diagnosis};
    prepare(server, 4096);
    struct kvb_tier_config *device = &rig->tiers[0];
    uint64_t bytes = BLOCKS * LAYERS * PARTS * UINT64_C(4096);
    device->memory_kind = KVB_MEMORY_CUDA;
    device->memory = aligned_alloc(4096, bytes);
    device->memory_bytes = bytes;
    kv_expect(kvb_manager_create(&rig->config, &rig->kv, &diagnosis), KVB_EINVAL);
    assert_non_null(strstr(diagnosis.message, "not memory of a CUDA device"));
    assert_int_equal(cudaPeekAtLastError(), cudaSuccess);
    free(device->memory);
    device->memory = NULL;
    device->memory_bytes = 0;
    device->device = 63;
    kv_expect(kvb_manager_create(&rig->config, &rig->kv, &diagnosis), KVB_EINVAL);
    assert_non_null(strstr(diagnosis.message, "63"));
}

static void test_host_tier_is_pinned_to_the_last_byte(void **state)
{
    struct server *server = *state;
    struct kv_rig *rig = &server->rig;
    prepare(server, 4096);
    rig->config.progress = KVB_PROGRESS_THREAD;
    assert_true(open_with_method(server, KVB_COPY_PLAIN));
    struct kvb_stats stats;
    do {
        stats = kv_stats(rig);
        assert_int_equal(stats.unpinnable_bytes, 0);
    } while (stats.pinned_bytes < BLOCKS * LAYERS * PARTS * UINT64_C(4096));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(server, test_plain_copies_move_every_byte),
        TEST(server, test_rectangles_move_every_byte),
        TEST(server, test_batches_move_every_byte),
        TEST(server, test_kernels_move_every_byte),
        TEST(server, test_what_calibration_chooses_moves_every_byte),
        TEST(server, test_copy_out_waits_for_the_stream_that_writes),
        TEST(server, test_copy_in_waits_for_the_stream_that_reads),
        TEST(server, test_attention_reads_each_layer_behind_its_wait),
        TEST(server, test_capture_of_the_server_survives),
        TEST(server, test_pending_error_of_the_server_stays),
        TEST(server, test_memory_of_the_host_is_no_device_memory),
        TEST(server, test_host_tier_is_pinned_to_the_last_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
