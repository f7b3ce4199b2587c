/* SPDX-License-Identifier: Apache-2.0 */
/* See device_scene.h. */
#include "support/device_scene.h"

#include <time.h>

#include "support/give_up.h"

#define GIVE_UP_NS ((uint64_t)KV_GIVE_UP_S * KV_SECOND)

void cuda_ok_at(cudaError_t error, const char *call, const char *file, int line)
{
    if (error != cudaSuccess) {
        print_error("%s: %s\n", call, cudaGetErrorName(error));
        _fail(file, line);
    }
}

/* ---- The scene ------------------------------------------------------------------------------- */

void *device_scene_make(void **state, size_t bytes)
{
    return kv_scene_begin(state, bytes);
}

int device_scene_setup(void **state)
{
    (void)device_scene_make(state, sizeof(struct device_scene));
    return 0;
}

bool device_scene_end(struct device_scene *scene)
{
    bool good = kv_rig_end(&scene->rig);
    if (!scene->begun)
        return good;
    if (scene->server != NULL) {
        good = cudaStreamSynchronize(scene->server) == cudaSuccess && good;
        good = cudaStreamDestroy(scene->server) == cudaSuccess && good;
    }
    scene->server = NULL;
    for (uint32_t i = 0; i < DEVICE_SCENE_MEMORY_MAX; i++) {
        good = cudaFree(scene->memory[i]) == cudaSuccess && good;
        good = cudaFreeHost(scene->pinned[i]) == cudaSuccess && good;
        scene->memory[i] = scene->pinned[i] = NULL;
    }
    /* before the end: a call behind it would begin anew */
    const char *error = cudaGetErrorName(cudaPeekAtLastError());
    good = kv_device_end() == 0 && good;
    if (!good)
        print_error("the server's end has failed: %s\n", error);
    scene->begun = false;
    return good;
}

int device_scene_teardown(void **state)
{
    struct device_scene *scene = *state;
    bool good = device_scene_end(scene);
    free(scene);
    return good ? 0 : -1;
}

void device_scene_begin(struct device_scene *scene)
{
    assert_true(device_scene_end(scene));
    kv_rig_init(&scene->rig);
    kv_rig_no_tiers(&scene->rig);
    kv_device_start(NULL, 0);
    scene->begun = true;
    cuda_ok(cudaStreamCreateWithFlags(&scene->server, cudaStreamNonBlocking));
}

void device_scene_init(struct device_scene *scene, uint32_t device_blocks, uint32_t host_blocks)
{
    device_scene_begin(scene);
    kv_rig_add_tier(&scene->rig, KVB_TIER_DEVICE, device_blocks, KVB_OFFLOAD_MANUAL)->memory_kind =
        KVB_MEMORY_CUDA;
    if (host_blocks > 0)
        kv_rig_add_tier(&scene->rig, KVB_TIER_HOST, host_blocks, KVB_OFFLOAD_MANUAL);
}

void device_scene_layout(struct device_scene *scene, uint32_t layers, uint32_t parts,
                         uint64_t chunk_bytes)
{
    scene->rig.layout = (struct kvb_layout){.size = sizeof scene->rig.layout,
                                            .layers = layers,
                                            .parts = parts,
                                            .chunk_bytes = chunk_bytes};
}

static void **free_place(void **places)
{
    for (uint32_t i = 0; i < DEVICE_SCENE_MEMORY_MAX; i++)
        if (places[i] == NULL)
            return &places[i];
    fail_msg("more memory than the scene keeps");
    return NULL;
}

void *device_scene_malloc(struct device_scene *scene, size_t bytes)
{
    void **place = free_place(scene->memory);
    cuda_ok(cudaMalloc(place, bytes));
    return *place;
}

void *device_scene_malloc_pinned(struct device_scene *scene, size_t bytes)
{
    void **place = free_place(scene->pinned);
    cuda_ok(cudaHostAlloc(place, bytes, cudaHostAllocPortable));
    return *place;
}

/* ---- Moving ---------------------------------------------------------------------------------- */

void device_scene_flush(struct device_scene *scene)
{
    kv_ok(kvb_manager_flush(scene->rig.kv, GIVE_UP_NS));
}

void device_scene_wait(struct device_scene *scene, struct kvb_op *op)
{
    kv_ok(kvb_op_wait(scene->rig.kv, op, GIVE_UP_NS));
}

void device_scene_hold(struct device_scene *scene, struct mv_run *run, uint32_t tier)
{
    struct kvb_query query = kv_query(0, run->tokens, (size_t)run->count * KV_TOKENS);
    struct kvb_hit hits[MV_RUN_MAX];
    size_t count = 0;
    assert_int_equal(mv_in_tier(&scene->rig, run, tier), run->count);
    kv_ok(kvb_match(scene->rig.kv, &query, hits, MV_RUN_MAX, &count));
    assert_int_equal(count, run->count);
    for (size_t i = 0; i < count; i++)
        run->blocks[i] = hits[i].block;
}

void device_scene_sink(struct device_scene *scene, struct mv_run *run, uint64_t seed,
                       uint32_t count)
{
    struct kv_rig *rig = &scene->rig;
    mv_store_beside(rig, run, KVB_TIER_DEVICE, seed, count, 0);
    kv_ok(kvb_block_offload(rig->kv, run->blocks, count, 50, NULL, NULL));
    device_scene_flush(scene);
    mv_drop(rig, run);
    mv_evict_all(rig, KVB_TIER_DEVICE);
}

void device_scene_lift(struct device_scene *scene, struct mv_run *run, uint32_t tier,
                       struct kvb_block *const *targets, uint32_t flags)
{
    struct kv_rig *rig = &scene->rig;
    struct kvb_block *some[MV_RUN_MAX];
    device_scene_hold(scene, run, tier);
    if (targets == NULL)
        mv_alloc_many(rig, KVB_TIER_DEVICE, run->count, some);
    struct kvb_onboard request =
        mv_request(run->blocks, targets == NULL ? some : targets, run->count, NULL);
    request.flags = flags;
    struct kvb_op *op = mv_onboard(rig, &request);
    mv_drop_beside(rig, run);
    device_scene_wait(scene, op);
    device_scene_flush(scene);
    assert_int_equal(mv_take(rig, run, op), run->count);
    mv_drop_taken(rig, run);
}

void device_scene_round_trip(struct device_scene *scene, uint64_t seed, uint32_t count,
                             uint32_t flags)
{
    struct kv_rig *rig = &scene->rig;
    struct kvb_block *targets[MV_RUN_MAX];
    struct mv_run run;
    uint32_t below = rig->tiers[1].tier;
    device_scene_sink(scene, &run, seed, count);
    if (below == KVB_TIER_HOST)
        mv_expect_in(rig, &run, KVB_TIER_HOST);
    mv_alloc_many(rig, KVB_TIER_DEVICE, count, targets);
    for (uint32_t i = 0; i < count / 2; i++) { /* the other way round: neighbours go apart */
        struct kvb_block *last = targets[count - 1 - i];
        targets[count - 1 - i] = targets[i];
        targets[i] = last;
    }
    device_scene_lift(scene, &run, below, targets, flags);
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * KV_SECOND + (uint64_t)now.tv_nsec;
}

void device_scene_await_transferred(struct device_scene *scene, uint32_t from_tier,
                                    uint32_t to_tier, uint64_t count)
{
    uint64_t begun_ns = now_ns();
    const struct timespec moment = {.tv_nsec = 100000};
    while (mv_lane(&scene->rig, from_tier, to_tier).transferred < count) {
        if (now_ns() - begun_ns > GIVE_UP_NS)
            fail_msg("the lane has not moved %llu blocks", (unsigned long long)count);
        (void)nanosleep(&moment, NULL);
    }
}
