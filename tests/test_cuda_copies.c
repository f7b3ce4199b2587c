/* SPDX-License-Identifier: Apache-2.0 */
/* What becomes one copy, what calibration may take, and which errors end a context. */
#include "support/cuda_scene.h"
#include "transfer/cuda/copies.h"
#include "transfer/cuda/cuda.h"

/* ---- Errors ---------------------------------------------------------------------------------- */

static void test_errors_that_end_a_context_are_known(void **state)
{
    (void)state;
    static const int lost[] = {4,   214, 220, 226, 700, 702, 709, 710, 714, 715,
                               716, 717, 718, 719, 721, 805, 806, 810, 911, 999};
    static const int harmless[] = {0, 1, 2, 400, 600, 712, 801, 900};
    for (size_t i = 0; i < sizeof lost / sizeof *lost; i++)
        assert_true(kvbi_cuda_is_sticky((cudaError_t)lost[i]));
    for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++)
        assert_false(kvbi_cuda_is_sticky((cudaError_t)harmless[i]));
}

/* ---- One copy or two ------------------------------------------------------------------------- */

#define CHUNK 256

/*
 * Two blocks of two layers, next to each other everywhere; each layer at a base of its own, or not.
 * Calls that take them down.
 */
static unsigned calls_for_two_blocks(struct cuda_scene *scene, bool bases, bool one_registration)
{
    char message[256];
    struct kvbi_memory memory;
    struct kvbi_cuda *cuda;
    struct kvbi_cuda_scope scope;
    cudaStream_t stream;
    cuda_scene_begin(scene);
    kv_ok(kvbi_memory_init(&memory, NULL));
    kv_ok(kvbi_cuda_open(&cuda, &memory, 0, message, sizeof message));
    unsigned char *device = cuda_scene_malloc(scene, 4 * CHUNK);
    unsigned char *host = cuda_scene_malloc_pinned(scene, 4 * CHUNK);
    cuda_ok(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    unsigned char *layers[2] = {device, device + CHUNK};
    struct kvbi_strides strides = {.layers = 2,
                                   .parts = 1,
                                   .chunk = CHUNK,
                                   .layer = CHUNK,
                                   .part = CHUNK,
                                   .block = 2 * CHUNK,
                                   .bases = bases ? layers : NULL};
    static struct kvbi_cuda_copier copier;
    copier = (struct kvbi_cuda_copier){.cuda = cuda, .strides = &strides, .base = device};
    struct kvbi_cuda_pair pairs[2] = {
        {.slot = 0, .host = host, .registration = host},
        {.slot = 1, .host = host + 2 * CHUNK, .registration = one_registration ? host : device}};
    struct kvbi_cuda_load load = {.pairs = pairs, .count = 2, .layers = 2};
    unsigned before = fake_cuda_calls("cudaMemcpyAsync");
    kvbi_cuda_enter(cuda, &scope);
    cuda_ok(kvbi_cuda_copy(&copier, &scope, KVB_COPY_PLAIN, &load, stream));
    kvbi_cuda_leave(&scope);
    unsigned calls = fake_cuda_calls("cudaMemcpyAsync") - before;
    cuda_ok(cudaStreamSynchronize(stream));
    cuda_ok(cudaStreamDestroy(stream));
    kvbi_cuda_close(cuda, NULL);
    return calls;
}

static void test_neighbours_of_one_registration_are_one_copy(void **state)
{
    assert_int_equal(calls_for_two_blocks(*state, false, true), 1);
}

static void test_neighbours_of_two_registrations_are_two_copies(void **state)
{
    assert_int_equal(calls_for_two_blocks(*state, false, false), 2);
}

static void test_neighbours_of_two_layers_with_bases_are_two_copies(void **state)
{
    assert_int_equal(calls_for_two_blocks(*state, true, true), 4);
}

/* 20 blocks of 4 MiB, neighbours on both sides; 16 of them are one registration. */
static void test_blocks_at_the_edge_of_a_registration_are_copied_without_a_detour(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    cuda_scene_init(scene, 20, 20);
    rig->layout = (struct kvb_layout){
        .size = sizeof rig->layout, .layers = 1, .parts = 1, .chunk_bytes = 4 << 20};
    rig->tiers[0].memory_kind = KVB_MEMORY_CUDA;
    rig->tiers[0].copy_method = KVB_COPY_BATCH;
    mv_bounds(rig, 0, 64, 60, 2, 400);
    cuda_scene_open(scene);
    struct mv_run runs[2];
    unsigned before = fake_cuda_calls("cudaMemcpyAsync");
    for (uint32_t i = 0; i < 2; i++) { /* the second flight crosses the edge */
        cuda_scene_store(scene, &runs[i], 100 + i, i == 0 ? 12 : 8, NULL);
        cuda_ok(cudaStreamSynchronize(scene->server));
        kv_ok(kvb_block_offload(rig->kv, runs[i].blocks, runs[i].count, 50, NULL, NULL));
        mv_step(rig);
    }
    assert_int_equal(fake_cuda_calls("cudaMemcpyAsync"), before);
    assert_int_equal(cuda_scene_down(scene).transferred, 20);
    for (uint32_t i = 0; i < 2; i++)
        mv_drop(rig, &runs[i]);
}

/* ---- The kernel ------------------------------------------------------------------------------ */

#define KIB UINT64_C(1024)
#define GUARD 64

struct gather_case {
    uint64_t chunk;
    uint32_t layers, parts, count, first, grid;
};

/* Not one of another's bytes, nor twice the same within a chunk's pieces. */
static unsigned char byte_of(const struct gather_case *it, uint64_t i)
{
    return (unsigned char)kv_mix(i * 31 + it->chunk + it->grid);
}

/*
 * Copies layers from `first` on of `count` blocks by the kernel, one way, and compares every byte
 * of the other side, also those that no chunk has.
 */
static void gather_one_way(struct cuda_scene *scene, struct kvbi_cuda *cuda,
                           const struct gather_case *it, bool to_device)
{
    uint64_t gap = it->chunk + GUARD, part = it->count * gap, layer = it->parts * part;
    uint64_t device_bytes = it->layers * layer, host_block = it->layers * it->parts * it->chunk;
    uint64_t host_bytes = it->count * host_block + GUARD;
    unsigned char *device = cuda_scene_malloc(scene, device_bytes);
    unsigned char *host = cuda_scene_malloc_pinned(scene, host_bytes);
    unsigned char *model = malloc(device_bytes), *host_model = malloc(host_bytes);
    struct kvbi_cuda_pair *pairs = calloc(it->count, sizeof *pairs);
    struct kvbi_strides strides = {.layers = it->layers,
                                   .parts = it->parts,
                                   .chunk = it->chunk,
                                   .layer = layer,
                                   .part = part,
                                   .block = gap};
    static struct kvbi_cuda_copier copier;
    copier = (struct kvbi_cuda_copier){
        .cuda = cuda, .strides = &strides, .base = device, .grids = {it->grid, it->grid}};
    for (uint64_t i = 0; i < device_bytes; i++)
        model[i] = byte_of(it, i);
    for (uint64_t i = 0; i < host_bytes; i++)
        host[i] = host_model[i] = byte_of(it, device_bytes + i);
    fake_cuda_write(device, model, device_bytes);
    for (uint32_t b = 0; b < it->count; b++) {
        pairs[b] =
            (struct kvbi_cuda_pair){.slot = it->count - 1 - b, .host = host + b * host_block};
        for (uint32_t n = it->first * it->parts; n < it->layers * it->parts; n++) {
            unsigned char *there =
                kvbi_strides_chunk(&strides, model, pairs[b].slot, n / it->parts, n % it->parts);
            unsigned char *here = host_model + b * host_block + n * it->chunk;
            memcpy(to_device ? there : here, to_device ? here : there, it->chunk);
        }
    }
    struct kvbi_cuda_load load = {.pairs = pairs,
                                  .count = it->count,
                                  .first = it->first,
                                  .layers = it->layers - it->first,
                                  .to_device = to_device};
    struct kvbi_cuda_scope scope;
    cudaStream_t stream;
    cuda_ok(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    kvbi_cuda_enter(cuda, &scope);
    cudaError_t error = kvbi_cuda_copy(&copier, &scope, KVB_COPY_KERNEL, &load, stream);
    kvbi_cuda_leave(&scope);
    cuda_ok(error);
    cuda_ok(cudaStreamSynchronize(stream));
    cuda_ok(cudaStreamDestroy(stream));
    unsigned char *moved = malloc(device_bytes);
    fake_cuda_read(moved, device, device_bytes);
    assert_memory_equal(moved, model, device_bytes);
    assert_memory_equal(host, host_model, host_bytes);
    free(moved);
    free(pairs);
    free(host_model);
    free(model);
}

/* One chunk, few, many; below, at and above what one warp takes, in and out of step. */
static void test_kernel_moves_every_byte_of_every_piece(void **state)
{
    static const struct gather_case cases[] = {
        {16, 1, 1, 1, 0, 2},
        {16 * KIB, 1, 1, 1, 0, 1},
        {16 * KIB + 16, 1, 1, 1, 0, 2},
        {32 * KIB - 16, 1, 1, 2, 0, 4},
        {24 * KIB, 2, 2, 3, 1, 2},
        {40 * KIB + 48, 3, 2, 2, 1, 8},
        {1024 * KIB + 16, 1, 1, 1, 0, 2},
        {528, 5, 2, 64, 2, 4},
        {17 * KIB, 2, 2, 64, 0, 2},
        {4 * KIB, 3, 1, 130, 0, 1},
    };
    struct cuda_scene *scene = *state;
    for (size_t i = 0; i < 2 * sizeof cases / sizeof *cases; i++) {
        char message[256];
        struct kvbi_memory memory;
        struct kvbi_cuda *cuda;
        cuda_scene_begin(scene);
        kv_ok(kvbi_memory_init(&memory, NULL));
        kv_ok(kvbi_cuda_open(&cuda, &memory, 0, message, sizeof message));
        gather_one_way(scene, cuda, &cases[i / 2], i % 2 != 0);
        kvbi_cuda_close(cuda, NULL);
        cuda_scene_close(scene);
    }
}

/* ---- Calibration ----------------------------------------------------------------------------- */

static void test_layers_with_bases_are_tried_as_they_are_copied(void **state)
{
    enum { LAYERS = 4, BLOCKS = 40 };
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    void *layers[LAYERS];
    cuda_scene_init(scene, BLOCKS, BLOCKS);
    for (uint32_t i = 0; i < LAYERS; i++)
        layers[i] = cuda_scene_malloc(scene, 2 * BLOCKS * CHUNK);
    rig->layout = (struct kvb_layout){.size = sizeof rig->layout,
                                      .layers = LAYERS,
                                      .parts = 2,
                                      .chunk_bytes = CHUNK,
                                      .part_stride = BLOCKS * CHUNK,
                                      .block_stride = CHUNK};
    rig->tiers[0].memory_kind = KVB_MEMORY_CUDA;
    rig->tiers[0].layer_memory = layers;
    rig->tiers[0].memory_bytes = 2 * BLOCKS * CHUNK;
    rig->tiers[0].copy_method = KVB_COPY_RECT;
    cuda_scene_open(scene);
    assert_int_equal(fake_cuda_calls("cudaMemcpy3DAsync"), 0);
    /* two layers of one block each way, layer by layer */
    assert_int_equal(fake_cuda_calls("cudaMemcpy2DAsync"), 2 * 2);
}

/*
 * What the engine says, made for blocks of one chunk in memory of the caller's. Without room: no
 * cudaMalloc after the caller's succeeds.
 */
static void expect_methods(struct cuda_scene *scene, uint32_t method, uint64_t chunk, bool room,
                           const char *words)
{
    struct kv_rig *rig = &scene->rig;
    cuda_scene_init(scene, 2, 2);
    rig->layout = (struct kvb_layout){
        .size = sizeof rig->layout, .layers = 1, .parts = 1, .chunk_bytes = chunk};
    rig->tiers[0].memory_kind = KVB_MEMORY_CUDA;
    rig->tiers[0].memory = cuda_scene_malloc(scene, 2 * chunk);
    rig->tiers[0].memory_bytes = 2 * chunk;
    rig->tiers[0].copy_method = method;
    if (!room)
        fake_cuda_fail("cudaMalloc", 1, cudaErrorMemoryAllocation, FAKE_CUDA_FOR_EVER);
    cuda_scene_open(scene);
    struct kvb_stats stats = kv_stats(rig);
    if (strstr(stats.engine, words) == NULL)
        fail_msg("\"%s\" does not contain \"%s\"", stats.engine, words);
    fake_cuda_forget_faults();
}

static void test_no_room_for_calibration_is_no_error(void **state)
{
    struct cuda_scene *scene = *state;
    expect_methods(scene, KVB_COPY_AUTO, CHUNK, false, "down batch, up batch");
    cuda_scene_close(scene);
    expect_methods(scene, KVB_COPY_KERNEL, CHUNK, false, "down kernel x4, up kernel x4");
}

static void test_large_blocks_are_calibrated_in_bounded_memory(void **state)
{
    enum { LARGE = 48 << 20 };
    struct cuda_scene *scene = *state;
    kv_device_config.device_bytes = 2 * LARGE + LARGE - 1;
    cuda_scene_begin(scene);
    unsigned before = fake_cuda_calls("cudaMemcpyBatchAsync");
    expect_methods(scene, KVB_COPY_AUTO, LARGE, true, "cuda 0");
    assert_true(fake_cuda_calls("cudaMemcpyBatchAsync") > before); /* there was room to try it */
}

static void test_host_memory_is_pinned_after_calibration(void **state)
{
    struct cuda_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct kvb_manager *manager = NULL;
    cuda_scene_init(scene, 4, 4);
    rig->tiers[0].memory_kind = KVB_MEMORY_CUDA;
    rig->tiers[0].copy_method = KVB_COPY_BATCH;
    fake_cuda_fail("cudaMemcpyBatchAsync", 1, cudaErrorNotSupported, FAKE_CUDA_FOR_EVER);
    kv_expect(kvb_manager_create(&rig->config, &manager, NULL), KVB_EUNSUPPORTED);
    assert_int_equal(fake_cuda_calls("cudaHostRegister"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(bare, test_errors_that_end_a_context_are_known),
        TEST(cuda_scene, test_neighbours_of_one_registration_are_one_copy),
        TEST(cuda_scene, test_neighbours_of_two_registrations_are_two_copies),
        TEST(cuda_scene, test_neighbours_of_two_layers_with_bases_are_two_copies),
        TEST(cuda_scene, test_blocks_at_the_edge_of_a_registration_are_copied_without_a_detour),
        TEST(cuda_scene, test_kernel_moves_every_byte_of_every_piece),
        TEST(cuda_scene, test_layers_with_bases_are_tried_as_they_are_copied),
        TEST(cuda_scene, test_no_room_for_calibration_is_no_error),
        TEST(cuda_scene, test_large_blocks_are_calibrated_in_bounded_memory),
        TEST(cuda_scene, test_host_memory_is_pinned_after_calibration),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
