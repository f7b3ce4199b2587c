/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server on the stand-in for CUDA: a stream of its own, kernels that write and read blocks, and a rig whose DEVICE is the GPU's.
 *
 *     struct cuda_scene scene;
 *     cuda_scene_init(&scene, device_blocks, host_blocks);  // the run of the stand-in begins; change scene.rig.tiers, layout, ...
 *     cuda_scene_open(&scene);
 *     ...
 *     cuda_scene_close(&scene);                             // nothing may be left that was reported and not taken
 *
 * Kernels say which ranges they touch, so that the stand-in reports a race whenever nothing orders them with a copy, however the
 * timing was.
 */
#ifndef KVB_TEST_SUPPORT_CUDA_SCENE_H
#define KVB_TEST_SUPPORT_CUDA_SCENE_H

#include "api/manager.h"
#include "support/move_test.h"

#define CUDA_SCENE_CHUNKS_MAX 64

struct cuda_scene {
    struct kv_rig rig;
    cudaStream_t server;
};

static inline void cuda_ok_at(cudaError_t error, const char *call, const char *file, int line)
{
    if (error != cudaSuccess) {
        print_error("%s: %s\n", call, cudaGetErrorName(error));
        _fail(file, line);
    }
}
#define cuda_ok(call) cuda_ok_at((call), #call, __FILE__, __LINE__)

static inline void cuda_scene_init(struct cuda_scene *scene, uint32_t device_blocks,
                                   uint32_t host_blocks)
{
    memset(scene, 0, sizeof *scene);
    mv_two_tiers(&scene->rig, device_blocks, host_blocks, KVB_OFFLOAD_MANUAL);
    kv_device_start(NULL, 0);
}

static inline void cuda_scene_open_hooked(struct cuda_scene *scene, const struct kvbi_hooks *hooks)
{
    kv_rig_open_hooked(&scene->rig, hooks);
    cuda_ok(cudaSetDevice((int)scene->rig.tiers[0].device));
    cuda_ok(cudaStreamCreateWithFlags(&scene->server, cudaStreamNonBlocking));
}

static inline void cuda_scene_open(struct cuda_scene *scene)
{
    cuda_scene_open_hooked(scene, NULL);
}

#define cuda_scene_close(scene) cuda_scene_close_at(__FILE__, __LINE__, (scene))
static inline void cuda_scene_close_at(const char *file, int line, struct cuda_scene *scene)
{
    if (scene->server != NULL) {
        cuda_ok_at(cudaStreamSynchronize(scene->server), "cudaStreamSynchronize", file, line);
        cuda_ok_at(cudaStreamDestroy(scene->server), "cudaStreamDestroy", file, line);
    }
    kv_rig_close_at(file, line, &scene->rig);
    if (kv_device_end() != 0) {
        print_error("the stand-in for CUDA has reported something\n");
        _fail(file, line);
    }
}

/* The context is lost: CUDA keeps what is pinned in it, and destroy leaves that memory alone: `pinned`, a tier's, and nothing else. */
#define cuda_scene_close_lost(scene, pinned)                                                       \
    cuda_scene_close_lost_at(__FILE__, __LINE__, (scene), (pinned))
static inline void cuda_scene_close_lost_at(const char *file, int line, struct cuda_scene *scene,
                                            const struct kvbi_tier *pinned)
{
    struct kv_rig *rig = &scene->rig;
    void *memory = pinned->base;
    uint64_t bytes = pinned->block_count * pinned->block_bytes;
    kv_check_at(file, line, rig);
    kv_expect_at(kvb_manager_destroy(rig->kv), KVB_OK, "kvb_manager_destroy", file, line);
    rig->kv = NULL;
    bool reported = !kv_rig_leave_device(rig);
    if (kv_device_end() != 0 || reported || rig->heap.live_blocks != 1 ||
        rig->heap.live_bytes != (int64_t)bytes) {
        print_error("%lld blocks, %lld bytes not freed\n", (long long)rig->heap.live_blocks,
                    (long long)rig->heap.live_bytes);
        _fail(file, line);
    }
    kv_heap_free(&rig->heap, memory, bytes);
    assert_int_equal(rig->heap.wrong_frees, 0);
}

static inline struct kvb_fence cuda_scene_fence(const struct cuda_scene *scene)
{
    return (struct kvb_fence){.kind = KVB_FENCE_CUDA_STREAM,
                              .handle = (uint64_t)(uintptr_t)scene->server};
}

/* ---- Kernels ------------------------------------------------------------------------------------------------------ */

struct cuda_scene_kernel {
    uint32_t count;
    uint64_t chunk_bytes, seed;
    unsigned char *chunks[CUDA_SCENE_CHUNKS_MAX]; /* layer, part */
    uint64_t
        numbers[CUDA_SCENE_CHUNKS_MAX]; /* layer << 48 + part << 40, as kv_payload_fill has it */
};

static inline void cuda_scene_write_pattern(void *arg)
{
    const struct cuda_scene_kernel *kernel = arg;
    for (uint32_t c = 0; c < kernel->count; c++) {
        unsigned char *bytes = fake_cuda_storage(kernel->chunks[c]);
        for (uint64_t i = 0; i < kernel->chunk_bytes; i++) {
            bytes[i] = (unsigned char)kv_mix(kernel->seed + kernel->numbers[c] + i);
        }
    }
}

/* Launches a kernel over layers [first, first + layers) of a block. */
static inline void cuda_scene_launch(struct cuda_scene *scene, struct kvb_block *block,
                                     uint32_t first, uint32_t layers, bool writes, uint64_t seed)
{
    struct fake_cuda_range ranges[CUDA_SCENE_CHUNKS_MAX];
    struct cuda_scene_kernel kernel = {.chunk_bytes = scene->rig.layout.chunk_bytes, .seed = seed};
    for (uint32_t layer = first; layer < first + layers; layer++) {
        for (uint32_t part = 0; part < scene->rig.layout.parts; part++) {
            void *address = NULL;
            kv_ok(kvb_block_address(scene->rig.kv, block, layer, part, &address));
            kernel.chunks[kernel.count] = address;
            kernel.numbers[kernel.count] = ((uint64_t)layer << 48) + ((uint64_t)part << 40);
            ranges[kernel.count++] = (struct fake_cuda_range){address, kernel.chunk_bytes, writes};
        }
    }
    cuda_ok(fake_cuda_kernel(scene->server, writes ? cuda_scene_write_pattern : NULL, &kernel,
                             sizeof kernel, ranges, kernel.count));
}

/* The forward pass: writes the whole block. */
static inline void cuda_scene_compute(struct cuda_scene *scene, struct kvb_block *block,
                                      uint64_t seed)
{
    cuda_scene_launch(scene, block, 0, scene->rig.layout.layers, true, seed);
}

/* Attention: reads the whole block. */
static inline void cuda_scene_attend(struct cuda_scene *scene, struct kvb_block *block)
{
    cuda_scene_launch(scene, block, 0, scene->rig.layout.layers, false, 0);
}

/* A run that is computed on the server's stream and registered; `fence` as the server passes it with compute_done, or NULL. */
static inline void cuda_scene_store(struct cuda_scene *scene, struct mv_run *run, uint64_t seed,
                                    uint32_t count, const struct kvb_fence *fence)
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

#endif
