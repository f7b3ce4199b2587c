/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server on the stand-in for CUDA: a stream of its own, kernels that write and read blocks, and a
 * rig whose DEVICE is the GPU's.
 *
 *     struct cuda_scene *scene = *state;
 *     kv_device_config.devices = 2;                     // of the run that begins here
 *     cuda_scene_init(scene, device_blocks, host_blocks);
 *     scene->rig.config.progress = ...;                 // change what the test is about
 *     cuda_scene_open(scene);
 *     ...
 *     ... TEST(cuda_scene, test_something) ...          // nothing is left that was reported
 *
 * TEST(cuda_opened, ...) has four blocks in each tier and is open. A scene of a test's own has this
 * one in front:
 *
 *     static int workshop_setup(void **state)
 *     {
 *         struct workshop *workshop = cuda_scene_make(state, sizeof *workshop);
 *         ...
 *         return 0;
 *     }
 *
 *     #define workshop_teardown cuda_scene_teardown
 *
 * Kernels say which ranges they touch, so that the stand-in reports a race whenever nothing orders
 * them with a copy, however the timing was.
 */
#ifndef KVB_TEST_SUPPORT_CUDA_SCENE_H
#define KVB_TEST_SUPPORT_CUDA_SCENE_H

#include "api/manager.h"
#include "support/device_scene.h" /* cuda_ok */
#include "support/move_test.h"
#include "support/test.h"

#define CUDA_SCENE_CHUNKS_MAX 64
#define CUDA_SCENE_MEMORY_MAX 8

struct cuda_scene {
    struct kv_rig rig; /* comes first: *state is a rig as well */
    cudaStream_t server;

    /* the scene's own */
    struct fake_cuda_config config;      /* of the runs of the tests after this one */
    bool begun;                          /* a run of the stand-in */
    void *memory[CUDA_SCENE_MEMORY_MAX]; /* of the device */
    void *pinned[CUDA_SCENE_MEMORY_MAX];
};

/* ---- The scene ------------------------------------------------------------------------------- */

/* Zeroes, but for the rig in front, which has the defaults and is not open. *state is the scene. */
void *cuda_scene_make(void **state, size_t bytes);

int cuda_scene_setup(void **state);
int cuda_opened_setup(void **state);
int cuda_scene_teardown(void **state);
#define cuda_opened_teardown cuda_scene_teardown

/* Closes whatever is open, and whether all was well; for teardowns with more to do. */
bool cuda_scene_end(struct cuda_scene *scene);

/*
 * A fresh rig without tiers, and with DEVICE and HOST; the run of the stand-in begins, if it has
 * not.
 */
void cuda_scene_begin(struct cuda_scene *scene);
void cuda_scene_init(struct cuda_scene *scene, uint32_t device_blocks, uint32_t host_blocks);

void cuda_scene_open(struct cuda_scene *scene);
void cuda_scene_open_hooked(struct cuda_scene *scene, const struct kvbi_hooks *hooks);

/* cuda_scene_init and cuda_scene_open. */
void cuda_scene_open_tiers(struct cuda_scene *scene, uint32_t device_blocks, uint32_t host_blocks);

/* Memory of the server's, which goes when the manager has gone. */
void *cuda_scene_malloc(struct cuda_scene *scene, size_t bytes);
void *cuda_scene_malloc_pinned(struct cuda_scene *scene, size_t bytes);

/* For tests that look at something afterwards, or begin again. */
#define cuda_scene_close(scene) cuda_scene_close_at(__FILE__, __LINE__, (scene))
void cuda_scene_close_at(const char *file, int line, struct cuda_scene *scene);

/*
 * The context is lost: CUDA keeps what is pinned in it, and destroy leaves that memory alone:
 * `pinned`, a tier's, and nothing else.
 */
#define cuda_scene_close_lost(scene, pinned)                                                       \
    cuda_scene_close_lost_at(__FILE__, __LINE__, (scene), (pinned))
void cuda_scene_close_lost_at(const char *file, int line, struct cuda_scene *scene,
                              const struct kvbi_tier *pinned);

/* ---- What a server passes -------------------------------------------------------------------- */

struct kvb_fence cuda_stream_fence(cudaStream_t stream);
struct kvb_fence cuda_scene_fence(const struct cuda_scene *scene); /* its own stream's */

/*
 * A run that is computed on the server's stream and registered; `fence` as with compute_done, or
 * NULL.
 */
void cuda_scene_store(struct cuda_scene *scene, struct mv_run *run, uint64_t seed, uint32_t count,
                      const struct kvb_fence *fence);

/* All blocks of the run, one by one. */
void cuda_scene_offer(struct cuda_scene *scene, const struct mv_run *run);

/* The lane from DEVICE to HOST. */
struct kvb_lane_stats cuda_scene_down(struct cuda_scene *scene);

/* ---- Kernels --------------------------------------------------------------------------------- */

/* Launches a kernel over layers [first, first + layers) of a block. */
void cuda_scene_launch(struct cuda_scene *scene, struct kvb_block *block, uint32_t first,
                       uint32_t layers, bool writes, uint64_t seed);

/* The forward pass: writes the whole block. */
void cuda_scene_compute(struct cuda_scene *scene, struct kvb_block *block, uint64_t seed);

/* Attention: reads the whole block. */
void cuda_scene_attend(struct cuda_scene *scene, struct kvb_block *block);

#endif
