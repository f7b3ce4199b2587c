/* SPDX-License-Identifier: Apache-2.0 */
/* See cuda_scene.h. */
#include "support/cuda_scene.h"

#include "support/kv_scene.h"

/* ---- The scene ------------------------------------------------------------------------------- */

void *cuda_scene_make(void **state, size_t bytes)
{
    struct cuda_scene *scene = kv_scene_begin(state, bytes);
    scene->config = kv_device_config;
    return scene;
}

int cuda_scene_setup(void **state)
{
    (void)cuda_scene_make(state, sizeof(struct cuda_scene));
    return 0;
}

int cuda_opened_setup(void **state)
{
    cuda_scene_open_tiers(cuda_scene_make(state, sizeof(struct cuda_scene)), 4, 4);
    return 0;
}

void cuda_scene_begin(struct cuda_scene *scene)
{
    kv_rig_init(&scene->rig);
    kv_rig_no_tiers(&scene->rig);
    if (!scene->begun)
        kv_device_start(NULL, 0);
    scene->begun = true;
}

void cuda_scene_init(struct cuda_scene *scene, uint32_t device_blocks, uint32_t host_blocks)
{
    cuda_scene_begin(scene);
    kv_rig_add_tier(&scene->rig, KVB_TIER_DEVICE, device_blocks, KVB_OFFLOAD_MANUAL);
    kv_rig_add_tier(&scene->rig, KVB_TIER_HOST, host_blocks, KVB_OFFLOAD_MANUAL);
}

void cuda_scene_open_hooked(struct cuda_scene *scene, const struct kvbi_hooks *hooks)
{
    kv_rig_open_hooked(&scene->rig, hooks);
    cuda_ok(cudaSetDevice((int)scene->rig.tiers[0].device));
    cuda_ok(cudaStreamCreateWithFlags(&scene->server, cudaStreamNonBlocking));
}

void cuda_scene_open(struct cuda_scene *scene)
{
    cuda_scene_open_hooked(scene, NULL);
}

void cuda_scene_open_tiers(struct cuda_scene *scene, uint32_t device_blocks, uint32_t host_blocks)
{
    cuda_scene_init(scene, device_blocks, host_blocks);
    cuda_scene_open(scene);
}

static void **free_place(void **places)
{
    for (uint32_t i = 0; i < CUDA_SCENE_MEMORY_MAX; i++)
        if (places[i] == NULL)
            return &places[i];
    fail_msg("more memory than the scene keeps");
    return NULL;
}

void *cuda_scene_malloc(struct cuda_scene *scene, size_t bytes)
{
    void **place = free_place(scene->memory);
    cuda_ok(cudaMalloc(place, bytes));
    return *place;
}

void *cuda_scene_malloc_pinned(struct cuda_scene *scene, size_t bytes)
{
    void **place = free_place(scene->pinned);
    cuda_ok(cudaHostAlloc(place, bytes, cudaHostAllocPortable));
    return *place;
}

static bool succeeds(cudaError_t error, const char *call)
{
    if (error != cudaSuccess)
        print_error("%s: %s\n", call, cudaGetErrorName(error));
    return error == cudaSuccess;
}

static bool end_stream(struct cuda_scene *scene)
{
    if (scene->server == NULL)
        return true;
    bool good = succeeds(cudaStreamSynchronize(scene->server), "cudaStreamSynchronize");
    good = succeeds(cudaStreamDestroy(scene->server), "cudaStreamDestroy") && good;
    scene->server = NULL;
    return good;
}

/* Whatever has been reported by now, or leaked, was not taken. */
static bool end_run(struct cuda_scene *scene)
{
    bool good = true;
    for (uint32_t i = 0; i < CUDA_SCENE_MEMORY_MAX; i++) {
        if (scene->memory[i] != NULL)
            good = succeeds(cudaFree(scene->memory[i]), "cudaFree") && good;
        if (scene->pinned[i] != NULL)
            good = succeeds(cudaFreeHost(scene->pinned[i]), "cudaFreeHost") && good;
        scene->memory[i] = scene->pinned[i] = NULL;
    }
    bool quiet = !scene->begun || kv_device_end() == 0;
    scene->begun = false;
    if (!quiet)
        print_error("the stand-in for CUDA has reported something\n");
    return quiet && good;
}

bool cuda_scene_end(struct cuda_scene *scene)
{
    kv_device_config = scene->config;
    kv_device_let_go();
    bool good = end_stream(scene);
    good = kv_rig_end(&scene->rig) && good;
    return end_run(scene) && good;
}

int cuda_scene_teardown(void **state)
{
    struct cuda_scene *scene = *state;
    bool good = cuda_scene_end(scene);
    free(scene);
    return good ? 0 : -1;
}

void cuda_scene_close_at(const char *file, int line, struct cuda_scene *scene)
{
    bool good = end_stream(scene);
    kv_rig_close_at(file, line, &scene->rig);
    if (!end_run(scene) || !good)
        _fail(file, line);
}

void cuda_scene_close_lost_at(const char *file, int line, struct cuda_scene *scene,
                              const struct kvbi_tier *pinned)
{
    struct kv_rig *rig = &scene->rig;
    void *memory = pinned->base;
    uint64_t bytes = pinned->block_count * pinned->block_bytes;
    kv_check_at(file, line, rig);
    kv_expect_at(kvb_manager_destroy(rig->kv), KVB_OK, "kvb_manager_destroy", file, line);
    rig->kv = NULL;
    scene->server = NULL; /* went with its context */
    bool good = kv_rig_leave_device(rig);
    good = end_run(scene) && good;
    if (!good || rig->heap.live_blocks != 1 || rig->heap.live_bytes != (int64_t)bytes) {
        print_error("%lld blocks, %lld bytes not freed\n", (long long)rig->heap.live_blocks,
                    (long long)rig->heap.live_bytes);
        _fail(file, line);
    }
    kv_heap_free(&rig->heap, memory, bytes);
    assert_int_equal(rig->heap.wrong_frees, 0);
}

/* ---- What a server passes -------------------------------------------------------------------- */

struct kvb_fence cuda_stream_fence(cudaStream_t stream)
{
    return (struct kvb_fence){.kind = KVB_FENCE_CUDA_STREAM, .handle = (uint64_t)(uintptr_t)stream};
}

struct kvb_fence cuda_scene_fence(const struct cuda_scene *scene)
{
    return cuda_stream_fence(scene->server);
}

void cuda_scene_store(struct cuda_scene *scene, struct mv_run *run, uint64_t seed, uint32_t count,
                      const struct kvb_fence *fence)
{
    struct kv_rig *rig = &scene->rig;
    mv_name(rig, run, seed, count);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, count, NULL, run->blocks, NULL));
    for (uint32_t i = 0; i < count; i++) {
        uint32_t computed = KV_TOKENS;
        kv_init(rig, run->blocks[i], 0, i, i == 0 ? NULL : &run->seqs[i - 1]);
        kv_append(rig, run->blocks[i], run->tokens + (size_t)i * KV_TOKENS, KV_TOKENS, 0);
        kv_schedule(rig, run->blocks[i]);
        cuda_scene_compute(scene, run->blocks[i], run->seqs[i].hash);
        kv_ok(kvb_block_compute_done(rig->kv, &run->blocks[i], &computed, 1, fence, NULL));
    }
    kv_ok(kvb_block_register(rig->kv, run->blocks, count, NULL, NULL, NULL));
    kv_check(rig);
}

void cuda_scene_offer(struct cuda_scene *scene, const struct mv_run *run)
{
    for (uint32_t i = 0; i < run->count; i++)
        mv_offer(&scene->rig, run->blocks[i], 50);
}

struct kvb_lane_stats cuda_scene_down(struct cuda_scene *scene)
{
    return mv_lane(&scene->rig, KVB_TIER_DEVICE, KVB_TIER_HOST);
}

/* ---- Kernels --------------------------------------------------------------------------------- */

struct kernel {
    uint32_t count;
    uint64_t chunk_bytes, seed;
    unsigned char *chunks[CUDA_SCENE_CHUNKS_MAX]; /* layer, part */
    /* layer << 48 + part << 40, as kv_payload_fill has it */
    uint64_t numbers[CUDA_SCENE_CHUNKS_MAX];
};

static void write_pattern(void *arg)
{
    const struct kernel *kernel = arg;
    for (uint32_t c = 0; c < kernel->count; c++) {
        unsigned char *bytes = fake_cuda_storage(kernel->chunks[c]);
        for (uint64_t i = 0; i < kernel->chunk_bytes; i++)
            bytes[i] = (unsigned char)kv_mix(kernel->seed + kernel->numbers[c] + i);
    }
}

void cuda_scene_launch(struct cuda_scene *scene, struct kvb_block *block, uint32_t first,
                       uint32_t layers, bool writes, uint64_t seed)
{
    struct fake_cuda_range ranges[CUDA_SCENE_CHUNKS_MAX];
    struct kernel kernel = {.chunk_bytes = scene->rig.layout.chunk_bytes, .seed = seed};
    for (uint32_t layer = first; layer < first + layers; layer++)
        for (uint32_t part = 0; part < scene->rig.layout.parts; part++) {
            void *address = NULL;
            kv_ok(kvb_block_address(scene->rig.kv, block, layer, part, &address));
            kernel.chunks[kernel.count] = address;
            kernel.numbers[kernel.count] = ((uint64_t)layer << 48) + ((uint64_t)part << 40);
            ranges[kernel.count++] = (struct fake_cuda_range){address, kernel.chunk_bytes, writes};
        }
    cuda_ok(fake_cuda_kernel(scene->server, writes ? write_pattern : NULL, &kernel, sizeof kernel,
                             ranges, kernel.count));
}

void cuda_scene_compute(struct cuda_scene *scene, struct kvb_block *block, uint64_t seed)
{
    cuda_scene_launch(scene, block, 0, scene->rig.layout.layers, true, seed);
}

void cuda_scene_attend(struct cuda_scene *scene, struct kvb_block *block)
{
    cuda_scene_launch(scene, block, 0, scene->rig.layout.layers, false, 0);
}
