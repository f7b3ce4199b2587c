/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a manager does to the process it lives in: contexts that it alone has made are gone after
 * it, and captures of other threads survive it. This program makes no call to CUDA but those that a
 * test is about, and has none of the rig's, which would make a context; blocks are filled in tier
 * HOST and come back there by way of the device.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cuda_runtime_api.h>

#include "support/test.h"
#include <kvblock.h>

#include "api/testing.h"
#include "support/give_up.h"
#include "support/kv_wait.h"

#if KVB_TEST_CUDA
#include "fake_cuda.h"
#endif

#define TOKENS 4u
#define BLOCKS 12u
#define LAYERS 3u
#define PARTS 2u
#define CHUNK 4096u
#define BLOCK_BYTES ((size_t)LAYERS * PARTS * CHUNK)
#define GIVE_UP_NS ((uint64_t)KV_GIVE_UP_S * 1000000000)

#define ok(call) assert_int_equal((call), 0)

/* ---- Where it runs --------------------------------------------------------------------------- */

#if KVB_TEST_CUDA

static void need_device(void)
{
}

static void begin_run(void)
{
    fake_cuda_start(&(struct fake_cuda_config){.seed = 5});
}

static bool end_run(void)
{
    return fake_cuda_end() == 0;
}

static bool has_context(void)
{
    return fake_cuda_has_context(0);
}

#else

/* Counts devices, which makes no context. */
static void need_device(void)
{
    int count = 0;
    cudaError_t error = cudaGetDeviceCount(&count);
    if (error == cudaSuccess && count > 0)
        return;
    (void)fprintf(stderr, "skipped: no GPU: %s\n", cudaGetErrorString(error));
    exit(77);
}

static void begin_run(void)
{
}

static bool end_run(void)
{
    return cudaGetLastError() == cudaSuccess;
}

static bool has_context(void)
{
    int (*get_state)(int device, unsigned *flags, int *active) = NULL;
    unsigned flags = 0;
    int active = -1;
    enum cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
    ok(cudaGetDriverEntryPointByVersion("cuDevicePrimaryCtxGetState", (void **)&get_state, 7000,
                                        cudaEnableDefault, &found));
#else
    ok(cudaGetDriverEntryPoint("cuDevicePrimaryCtxGetState", (void **)&get_state, cudaEnableDefault,
                               &found));
#endif
    assert_int_equal(found, cudaDriverEntryPointSuccess);
    ok(get_state(0, &flags, &active));
    return active != 0;
}

#endif

/* ---- A server -------------------------------------------------------------------------------- */

/* A thread of the server's that captures a graph as long as the test wants. */
struct capture {
    pthread_t thread;
    bool running;
    struct kv_wait begun, end;
    const char *failed; /* the call that did */
    cudaError_t error;
    unsigned char *pinned, *device;
};

struct server {
    struct kvb_manager *kv, *second; /* the second of a test that has two */
    struct capture capture;
    uint32_t tokens[BLOCKS * TOKENS];
    struct kvb_seq seqs[BLOCKS];
};

static int server_setup(void **state)
{
    *state = calloc(1, sizeof(struct server));
    begin_run();
    return *state == NULL ? -1 : 0;
}

static bool finish_capture(struct capture *capture)
{
    if (!capture->running)
        return true;
    kv_wait_signal(&capture->end);
    capture->running = false;
    return pthread_join(capture->thread, NULL) == 0;
}

/* A test that has failed midway leaves its managers, and blocks that it holds. */
static bool take_down(struct kvb_manager *kv)
{
    if (kv == NULL)
        return true;
    kvbi_testing_mute(kv);
    if (kvb_manager_destroy(kv) != 0)
        kvbi_testing_abandon(kv);
    return false;
}

static int server_teardown(void **state)
{
    struct server *server = *state;
    bool good = finish_capture(&server->capture);
    good = take_down(server->kv) && good;
    good = take_down(server->second) && good;
    free(server);
    return end_run() && good ? 0 : -1;
}

static void create(struct server *server, uint32_t progress)
{
    struct kvb_layout layout = {
        .size = sizeof layout, .layers = LAYERS, .parts = PARTS, .chunk_bytes = CHUNK};
    struct kvb_tier_config tiers[] = {{.size = sizeof *tiers,
                                       .tier = KVB_TIER_DEVICE,
                                       .block_count = BLOCKS,
                                       .trigger = KVB_OFFLOAD_MANUAL,
                                       .memory_kind = KVB_MEMORY_CUDA},
                                      {.size = sizeof *tiers,
                                       .tier = KVB_TIER_HOST,
                                       .block_count = BLOCKS,
                                       .trigger = KVB_OFFLOAD_MANUAL}};
    struct kvb_config config = {.size = sizeof config,
                                .tokens_per_block = TOKENS,
                                .layout = &layout,
                                .tiers = tiers,
                                .tier_count = 2,
                                .progress = progress};
    struct kvb_diagnosis diagnosis = {.size = sizeof diagnosis};
    if (kvb_manager_create(&config, &server->kv, &diagnosis) != 0)
        fail_msg("create: %s", diagnosis.message);
}

static void destroy(struct server *server)
{
    ok(kvb_manager_destroy(server->kv));
    server->kv = NULL;
}

/* A block of HOST is one piece. */
static unsigned char *bytes_of(struct server *server, struct kvb_block *block)
{
    void *address = NULL;
    ok(kvb_block_address(server->kv, block, 0, 0, &address));
    return address;
}

static unsigned char value(uint32_t block, size_t i)
{
    return (unsigned char)((block + 1) * 37 + i * 11 + (i >> 8) * 5);
}

static void store_in_host(struct server *server)
{
    struct kvb_block *blocks[BLOCKS];
    size_t named = 0;
    for (uint32_t i = 0; i < BLOCKS * TOKENS; i++)
        server->tokens[i] = 500 + i;
    ok(kvb_hash_tokens(server->kv, 0, NULL, server->tokens, BLOCKS * TOKENS, server->seqs, BLOCKS,
                       &named));
    ok(kvb_alloc(server->kv, KVB_TIER_HOST, BLOCKS, NULL, blocks, NULL));
    for (uint32_t i = 0; i < BLOCKS; i++) {
        struct kvb_block_init init = {
            .size = sizeof init, .position = i, .parent = i == 0 ? NULL : &server->seqs[i - 1]};
        struct kvb_append append = {
            .size = sizeof append, .tokens = server->tokens + i * TOKENS, .count = TOKENS};
        ok(kvb_block_init(server->kv, &blocks[i], &init, 1, NULL));
        ok(kvb_block_append(server->kv, &blocks[i], &append, 1, NULL));
        ok(kvb_block_schedule(server->kv, &blocks[i], 1, NULL));
        unsigned char *bytes = bytes_of(server, blocks[i]);
        for (size_t at = 0; at < BLOCK_BYTES; at++)
            bytes[at] = value(i, at);
        ok(kvb_block_compute_done(server->kv, &blocks[i], &append.taken, 1, NULL, NULL));
    }
    ok(kvb_block_register(server->kv, blocks, BLOCKS, NULL, NULL, NULL));
    ok(kvb_block_unref(server->kv, blocks, BLOCKS, NULL));
}

static void find_in(struct server *server, uint32_t tier, struct kvb_block **blocks)
{
    struct kvb_query query = {
        .size = sizeof query, .tokens = server->tokens, .token_count = BLOCKS * TOKENS};
    struct kvb_hit hits[BLOCKS];
    size_t count = 0;
    ok(kvb_match(server->kv, &query, hits, BLOCKS, &count));
    assert_int_equal(count, BLOCKS);
    for (uint32_t i = 0; i < BLOCKS; i++) {
        assert_int_equal(hits[i].tier, tier);
        blocks[i] = hits[i].block;
    }
}

/* Nothing is parked there any more; in HOST no byte is left of it. */
static void evict(struct server *server, uint32_t tier)
{
    struct kvb_block *blocks[BLOCKS];
    ok(kvb_alloc(server->kv, tier, BLOCKS, NULL, blocks, NULL));
    for (uint32_t i = 0; tier == KVB_TIER_HOST && i < BLOCKS; i++)
        memset(bytes_of(server, blocks[i]), 0xee, BLOCK_BYTES);
    ok(kvb_block_unref(server->kv, blocks, BLOCKS, NULL));
}

/* HOST -> DEVICE, where alone they are then, and back. */
static void there_and_back(struct server *server)
{
    struct kvb_block *sources[BLOCKS], *targets[BLOCKS];
    struct kvb_op *op = NULL;
    uint32_t good = 0;
    store_in_host(server);
    find_in(server, KVB_TIER_HOST, sources);
    ok(kvb_alloc(server->kv, KVB_TIER_DEVICE, BLOCKS, NULL, targets, NULL));
    struct kvb_onboard up = {
        .size = sizeof up, .sources = sources, .targets = targets, .count = BLOCKS};
    ok(kvb_onboard(server->kv, &up, &op));
    ok(kvb_block_unref(server->kv, sources, BLOCKS, NULL));
    ok(kvb_op_wait(server->kv, op, GIVE_UP_NS));
    ok(kvb_op_take(server->kv, op, targets, BLOCKS, &good));
    ok(kvb_op_release(server->kv, op));
    assert_int_equal(good, BLOCKS);
    evict(server, KVB_TIER_HOST);
    ok(kvb_block_offload(server->kv, targets, BLOCKS, 50, NULL, NULL));
    ok(kvb_manager_flush(server->kv, GIVE_UP_NS));
    ok(kvb_block_unref(server->kv, targets, BLOCKS, NULL));
    evict(server, KVB_TIER_DEVICE);
    find_in(server, KVB_TIER_HOST, sources);
    for (uint32_t i = 0; i < BLOCKS; i++) {
        const unsigned char *bytes = bytes_of(server, sources[i]);
        for (size_t at = 0; at < BLOCK_BYTES; at++)
            assert_int_equal(bytes[at], value(i, at));
    }
    ok(kvb_block_unref(server->kv, sources, BLOCKS, NULL));
}

static void live(struct server *server, uint32_t progress)
{
    create(server, progress);
    there_and_back(server);
    destroy(server);
}

/* ---- Contexts -------------------------------------------------------------------------------- */

/* Before any other test of this program: a context of the runtime's own stays until the end. */
static void test_context_that_the_manager_alone_has_made_goes_with_it(void **state)
{
    static const uint32_t progress[] = {KVB_PROGRESS_POLL, KVB_PROGRESS_THREAD};
    assert_false(has_context());
    for (uint32_t i = 0; i < 4; i++) {
        create(*state, progress[i % 2]);
        assert_true(has_context());
        there_and_back(*state);
        destroy(*state);
        assert_false(has_context());
    }
}

static void test_context_stays_while_another_manager_has_it(void **state)
{
    struct server *server = *state, other = {.kv = NULL};
    create(server, KVB_PROGRESS_THREAD);
    create(&other, KVB_PROGRESS_THREAD);
    server->second = other.kv;
    there_and_back(server);
    destroy(server);
    assert_true(has_context());
    there_and_back(&other);
    server->second = NULL;
    destroy(&other);
    assert_false(has_context());
}

static void test_manager_that_is_refused_leaves_no_context(void **state)
{
    struct server *server = *state;
    struct kvb_layout layout = {
        .size = sizeof layout, .layers = LAYERS, .parts = PARTS, .chunk_bytes = CHUNK};
    unsigned char *host = calloc(BLOCKS, BLOCK_BYTES);
    struct kvb_tier_config tier = {.size = sizeof tier,
                                   .tier = KVB_TIER_DEVICE,
                                   .block_count = BLOCKS - 1,
                                   .memory_kind = KVB_MEMORY_CUDA,
                                   .memory = host + 64 - (uintptr_t)host % 64,
                                   .memory_bytes = (BLOCKS - 1) * BLOCK_BYTES};
    struct kvb_config config = {.size = sizeof config,
                                .tokens_per_block = TOKENS,
                                .layout = &layout,
                                .tiers = &tier,
                                .tier_count = 1};
    struct kvb_diagnosis diagnosis = {.size = sizeof diagnosis};
    assert_int_equal(kvb_manager_create(&config, &server->kv, &diagnosis), KVB_EINVAL);
    assert_non_null(strstr(diagnosis.message, "not memory of a CUDA device"));
    assert_null(server->kv);
    assert_false(has_context());
    free(host);
}

/* ---- Captures -------------------------------------------------------------------------------- */

static bool works(struct capture *capture, const char *call, cudaError_t error)
{
    if (capture->failed == NULL && error != cudaSuccess) {
        capture->failed = call;
        capture->error = error;
    }
    return error == cudaSuccess;
}
#define WORKS(call) works(capture, #call, (call))

#if KVB_TEST_CUDA

static void begin(struct capture *capture, cudaStream_t stream)
{
    (void)WORKS(fake_cuda_capture_begin(stream, cudaStreamCaptureModeGlobal));
}

static void end(struct capture *capture, cudaStream_t stream)
{
    (void)WORKS(fake_cuda_capture_end(stream));
}

#else

static void copy_half(struct capture *capture, cudaStream_t stream, size_t half)
{
    (void)WORKS(cudaMemcpyAsync(capture->device + half * CHUNK, capture->pinned + half * CHUNK,
                                CHUNK, cudaMemcpyHostToDevice, stream));
}

static void begin(struct capture *capture, cudaStream_t stream)
{
    if (WORKS(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal)))
        copy_half(capture, stream, 0);
}

/* The graph holds what was captured before the manager came, and what was after it. */
static void end(struct capture *capture, cudaStream_t stream)
{
    cudaGraph_t graph = NULL;
    cudaGraphExec_t executable = NULL;
    copy_half(capture, stream, 1);
    if (!WORKS(cudaStreamEndCapture(stream, &graph)))
        return;
    memset(capture->pinned, 0x3c, 2 * CHUNK);
    if (WORKS(cudaGraphInstantiate(&executable, graph, 0)) &&
        WORKS(cudaGraphLaunch(executable, stream))) {
        (void)WORKS(cudaMemcpyAsync(capture->pinned + 2 * CHUNK, capture->device, 2 * CHUNK,
                                    cudaMemcpyDeviceToHost, stream));
        (void)WORKS(cudaStreamSynchronize(stream));
        if (memcmp(capture->pinned, capture->pinned + 2 * CHUNK, 2 * CHUNK) != 0)
            (void)works(capture, "the graph's copies", cudaErrorUnknown);
        (void)WORKS(cudaGraphExecDestroy(executable));
    }
    (void)WORKS(cudaGraphDestroy(graph));
}

#endif

static void *capture_a_graph(void *argument)
{
    struct capture *capture = argument;
    cudaStream_t stream = NULL;
    void *pinned = NULL, *device = NULL;
    (void)WORKS(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    (void)WORKS(cudaHostAlloc(&pinned, 4 * (size_t)CHUNK, cudaHostAllocDefault));
    (void)WORKS(cudaMalloc(&device, 2 * (size_t)CHUNK));
    capture->pinned = pinned;
    capture->device = device;
    if (capture->failed == NULL)
        begin(capture, stream);
    kv_wait_signal(&capture->begun);
    if (!kv_wait_for(&capture->end, 1))
        (void)works(capture, "waiting for the test", cudaErrorTimeout);
    if (capture->failed == NULL)
        end(capture, stream);
    (void)WORKS(cudaStreamDestroy(stream));
    (void)WORKS(cudaFreeHost(pinned));
    (void)WORKS(cudaFree(device));
    return NULL;
}

static void begin_capture(struct capture *capture)
{
    memset(capture, 0, sizeof *capture);
    kv_wait_init(&capture->begun);
    kv_wait_init(&capture->end);
    ok(pthread_create(&capture->thread, NULL, capture_a_graph, capture));
    capture->running = true;
    assert_true(kv_wait_for(&capture->begun, 1));
}

static void end_capture(struct capture *capture)
{
    assert_true(finish_capture(capture));
    if (capture->failed != NULL)
        fail_msg("%s: %s", capture->failed, cudaGetErrorName(capture->error));
}

/* Creating pins, allocates and calibrates; destroying frees. */
static void test_capture_survives_whole_lives_of_managers(void **state)
{
    struct server *server = *state;
    begin_capture(&server->capture);
    live(server, KVB_PROGRESS_POLL);
    live(server, KVB_PROGRESS_THREAD);
    end_capture(&server->capture);
}

static void test_captures_begin_and_end_while_a_manager_moves(void **state)
{
    struct server *server = *state;
    create(server, KVB_PROGRESS_THREAD);
    for (uint32_t i = 0; i < 8; i++) {
        begin_capture(&server->capture);
        if (i % 2 == 0)
            there_and_back(server);
        end_capture(&server->capture);
        if (i % 2 == 1)
            there_and_back(server);
    }
    destroy(server);
}

/* The capture began after the manager, and ends when it is gone: destroy unpins and frees. */
static void test_capture_survives_a_manager_that_another_thread_destroys(void **state)
{
    struct server *server = *state;
    create(server, KVB_PROGRESS_THREAD);
    there_and_back(server);
    begin_capture(&server->capture);
    destroy(server);
    end_capture(&server->capture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(server, test_context_that_the_manager_alone_has_made_goes_with_it),
        TEST(server, test_context_stays_while_another_manager_has_it),
        TEST(server, test_manager_that_is_refused_leaves_no_context),
        TEST(server, test_capture_survives_whole_lives_of_managers),
        TEST(server, test_captures_begin_and_end_while_a_manager_moves),
        TEST(server, test_capture_survives_a_manager_that_another_thread_destroys),
    };
    need_device();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
