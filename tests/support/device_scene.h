/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server on whatever has CUDA, the stand-in and a real GPU alike: for programs that are built for
 * both (tests/test_cuda_device*.c). It makes no use of what only one of the two can do.
 *
 *     struct device_scene *scene = *state;
 *     device_scene_init(scene, device_blocks, host_blocks);
 *     scene->rig.config.progress = ...;        // change what the test is about
 *     kv_rig_open(&scene->rig);
 *     ...
 *     ... TEST(device_scene, test_something) ...
 *
 * The device begins with device_scene_init and ends, with the server's stream and memory, after the
 * manager. Whatever waits here gives up loudly after KV_GIVE_UP_S.
 */
#ifndef KVB_TEST_SUPPORT_DEVICE_SCENE_H
#define KVB_TEST_SUPPORT_DEVICE_SCENE_H

#include <cuda_runtime_api.h>

#include "support/kv_scene.h"
#include "support/move_test.h"

#define DEVICE_SCENE_MEMORY_MAX 16

struct device_scene {
    struct kv_rig rig; /* comes first: *state is a rig as well */
    bool begun;
    cudaStream_t server;
    void *memory[DEVICE_SCENE_MEMORY_MAX]; /* of the device */
    void *pinned[DEVICE_SCENE_MEMORY_MAX];
};

void cuda_ok_at(cudaError_t error, const char *call, const char *file, int line);
#define cuda_ok(call) cuda_ok_at((call), #call, __FILE__, __LINE__)

/* ---- The scene ------------------------------------------------------------------------------- */

/* Zeroes, but for the rig in front, which has the defaults and is not open. *state is the scene. */
void *device_scene_make(void **state, size_t bytes);

int device_scene_setup(void **state);
int device_scene_teardown(void **state);

/* The manager, if it is open, and all that is the server's. Whether all was well. */
bool device_scene_end(struct device_scene *scene);

/* Ends what there is, which must be well, and begins: a rig without tiers, a stream. */
void device_scene_begin(struct device_scene *scene);
/* The same with DEVICE, and HOST unless it has 0 blocks. */
void device_scene_init(struct device_scene *scene, uint32_t device_blocks, uint32_t host_blocks);
void device_scene_layout(struct device_scene *scene, uint32_t layers, uint32_t parts,
                         uint64_t chunk_bytes);

/* Memory of the server's, which goes with the scene. */
void *device_scene_malloc(struct device_scene *scene, size_t bytes);
void *device_scene_malloc_pinned(struct device_scene *scene, size_t bytes);

/* ---- Moving ---------------------------------------------------------------------------------- */

/* All that the manager has to do is done. */
void device_scene_flush(struct device_scene *scene);

/* The run is found whole, with its fastest copies in `tier`; held, its bytes not looked at. */
void device_scene_hold(struct device_scene *scene, struct mv_run *run, uint32_t tier);

/* A run in DEVICE goes down, and is evicted there: the tier below alone has it. */
void device_scene_sink(struct device_scene *scene, struct mv_run *run, uint64_t seed,
                       uint32_t count);
/*
 * From `tier` into these blocks, or into some if there are none; every byte of each is looked at,
 * and the blocks are given back.
 */
void device_scene_lift(struct device_scene *scene, struct mv_run *run, uint32_t tier,
                       struct kvb_block *const *targets, uint32_t flags);
/* Both, with targets in another order than the sources: every byte goes both ways. */
void device_scene_round_trip(struct device_scene *scene, uint64_t seed, uint32_t count,
                             uint32_t flags);

/* The operation's end has come; beside the manager's thread, or by polling. */
void device_scene_wait(struct device_scene *scene, struct kvb_op *op);

/*
 * Until the lane has moved as many blocks in all. Beside the manager's own thread: nothing is said
 * of when.
 */
void device_scene_await_transferred(struct device_scene *scene, uint32_t from_tier,
                                    uint32_t to_tier, uint64_t count);

#endif
