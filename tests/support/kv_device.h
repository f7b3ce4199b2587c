/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tests do with the memory of tier DEVICE: host memory, or with KVB_TEST_CUDA the stand-in's for CUDA, which host code cannot
 * follow a pointer into, or with KVB_TEST_GPU a real GPU's. The same test program is then compiled once more for each.
 *
 * With the stand-in a run begins with the first rig that is opened and ends with the last one that is closed; whatever has been
 * reported by then, or leaked, fails the test.
 */
#ifndef KVB_TEST_SUPPORT_DEVICE_H
#define KVB_TEST_SUPPORT_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <kvblock.h>

#if KVB_TEST_CUDA

#include "fake_cuda.h"

/* Of the next run; a test that wants another sets it before. */
static struct fake_cuda_config kv_device_config = {.seed = 11};
static uint32_t kv_device_rigs;
static uint64_t kv_device_tasks;

static inline bool kv_device_is_cuda(void)
{
    return true;
}

/* Puts DEVICE into CUDA memory, unless the test brings memory of its own. */
static inline void kv_device_start(struct kvb_tier_config *tiers, uint32_t count)
{
    if (kv_device_rigs++ == 0) {
        fake_cuda_start(&kv_device_config);
        kv_device_tasks = 0;
    }
    if (count > 0 && tiers[0].tier == KVB_TIER_DEVICE && tiers[0].memory == NULL &&
        tiers[0].layer_memory == NULL) {
        tiers[0].memory_kind = KVB_MEMORY_CUDA;
        tiers[0].copy_method = tiers[0].copy_method != 0 ? tiers[0].copy_method : KVB_COPY_BATCH;
    }
}

/* How much was reported that nobody has taken. */
static inline size_t kv_device_end(void)
{
    return --kv_device_rigs == 0 ? fake_cuda_end() : 0;
}

/* Lets everything that can run there run. True if something did: there may be something to poll for. */
static inline bool kv_device_moved(struct kvb_manager *kv)
{
    (void)kv;
    fake_cuda_settle();
    uint64_t tasks_before = kv_device_tasks;
    kv_device_tasks = fake_cuda_tasks_run();
    return kv_device_tasks != tasks_before;
}

static inline unsigned char *kv_device_begin_write(void *address, size_t bytes)
{
    return fake_cuda_is_device_pointer(address) ? malloc(bytes) : address;
}

static inline void kv_device_end_write(void *address, unsigned char *written, size_t bytes)
{
    if (written != address) {
        fake_cuda_write(address, written, bytes);
        free(written);
    }
}

static inline const unsigned char *kv_device_read(const void *address, size_t bytes)
{
    if (!fake_cuda_is_device_pointer(address)) {
        return address;
    }
    void *copy = malloc(bytes);
    fake_cuda_read(copy, address, bytes);
    return copy;
}

static inline void kv_device_end_read(const void *address, const unsigned char *bytes)
{
    if (bytes != address) {
        free((void *)(uintptr_t)bytes);
    }
}

/* What is enqueued on the stream behind this waits. */
static inline void kv_device_hold(cudaStream_t stream)
{
    fake_cuda_hold(stream);
}

static inline void kv_device_release(cudaStream_t stream)
{
    fake_cuda_release(stream);
}

static inline cudaError_t kv_device_capture_begin(cudaStream_t stream)
{
    return fake_cuda_capture_begin(stream, cudaStreamCaptureModeGlobal);
}

static inline cudaError_t kv_device_capture_end(cudaStream_t stream)
{
    return fake_cuda_capture_end(stream);
}

#elif KVB_TEST_GPU

#include <cuda_runtime_api.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#define KV_DRIVER_WITH_BATCHES 12080

/* A program that cannot run here says so before CMocka starts. The context stays until the end, as a server's does. */
__attribute__((constructor)) static void kv_device_need_gpu(void)
{
    int count = 0;
    cudaError_t error = cudaGetDeviceCount(&count);
    if (error == cudaSuccess && count > 0 && cudaSetDevice(0) == cudaSuccess &&
        cudaFree(NULL) == cudaSuccess)
        return;
    (void)fprintf(stderr, "skipped: no GPU: %s\n", cudaGetErrorString(error));
    exit(77);
}

static inline void kv_device_or_die(cudaError_t error)
{
    if (error == cudaSuccess)
        return;
    (void)fprintf(stderr, "the test's own call to CUDA failed: %s\n", cudaGetErrorName(error));
    exit(1);
}

static inline bool kv_device_is_cuda(void)
{
    return true;
}

static inline void kv_device_start(struct kvb_tier_config *tiers, uint32_t count)
{
    int driver = 0;
    kv_device_or_die(cudaDriverGetVersion(&driver));
    if (count > 0 && tiers[0].tier == KVB_TIER_DEVICE && tiers[0].memory == NULL &&
        tiers[0].layer_memory == NULL) {
        tiers[0].memory_kind = KVB_MEMORY_CUDA;
        if (tiers[0].copy_method == 0)
            tiers[0].copy_method =
                driver >= KV_DRIVER_WITH_BATCHES ? KVB_COPY_BATCH : KVB_COPY_PLAIN;
    }
}

/* 1 if an error has been left behind in this thread. */
static inline size_t kv_device_end(void)
{
    return cudaGetLastError() != cudaSuccess;
}

/* Waits for the device, and polls. True if that has changed what the manager tells of itself: there may be more. */
static inline bool kv_device_moved(struct kvb_manager *kv)
{
    struct kvb_stats before, after;
    memset(&before, 0, sizeof before);
    memset(&after, 0, sizeof after);
    before.size = after.size = sizeof after;
    kv_device_or_die(cudaDeviceSynchronize());
    bool told = kvb_manager_stats(kv, &before) == 0;
    while (kvb_manager_poll(kv, KVB_FOREVER) == 1)
        ;
    return told && kvb_manager_stats(kv, &after) == 0 && memcmp(&before, &after, sizeof after) != 0;
}

static inline bool kv_device_has(const void *address)
{
    struct cudaPointerAttributes attributes;
    kv_device_or_die(cudaPointerGetAttributes(&attributes, address));
    return attributes.type == cudaMemoryTypeDevice;
}

static inline unsigned char *kv_device_begin_write(void *address, size_t bytes)
{
    return kv_device_has(address) ? malloc(bytes) : address;
}

static inline void kv_device_end_write(void *address, unsigned char *written, size_t bytes)
{
    if (written != address) {
        kv_device_or_die(cudaMemcpy(address, written, bytes, cudaMemcpyHostToDevice));
        free(written);
    }
}

static inline const unsigned char *kv_device_read(const void *address, size_t bytes)
{
    if (!kv_device_has(address)) {
        return address;
    }
    void *copy = malloc(bytes);
    kv_device_or_die(cudaMemcpy(copy, address, bytes, cudaMemcpyDeviceToHost));
    return copy;
}

static inline void kv_device_end_read(const void *address, const unsigned char *bytes)
{
    if (bytes != address) {
        free((void *)(uintptr_t)bytes);
    }
}

/* One stream at a time. Until it is released nobody may synchronise: no kv_poll, no bytes of the device's. */
static _Atomic bool kv_device_held;

static inline void kv_device_stand(void *unused)
{
    (void)unused;
    while (atomic_load(&kv_device_held))
        ;
}

static inline void kv_device_hold(cudaStream_t stream)
{
    atomic_store(&kv_device_held, true);
    kv_device_or_die(cudaLaunchHostFunc(stream, kv_device_stand, NULL));
}

static inline void kv_device_release(cudaStream_t stream)
{
    (void)stream;
    atomic_store(&kv_device_held, false);
}

static inline cudaError_t kv_device_capture_begin(cudaStream_t stream)
{
    return cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal);
}

static inline cudaError_t kv_device_capture_end(cudaStream_t stream)
{
    cudaGraph_t graph = NULL;
    cudaError_t error = cudaStreamEndCapture(stream, &graph);
    if (graph != NULL)
        kv_device_or_die(cudaGraphDestroy(graph));
    return error;
}

#else

static inline bool kv_device_is_cuda(void)
{
    return false;
}

static inline void kv_device_start(struct kvb_tier_config *tiers, uint32_t count)
{
    (void)tiers, (void)count;
}

static inline size_t kv_device_end(void)
{
    return 0;
}

static inline bool kv_device_moved(struct kvb_manager *kv)
{
    (void)kv;
    return false;
}

static inline unsigned char *kv_device_begin_write(void *address, size_t bytes)
{
    (void)bytes;
    return address;
}

static inline void kv_device_end_write(void *address, unsigned char *written, size_t bytes)
{
    (void)address, (void)written, (void)bytes;
}

static inline const unsigned char *kv_device_read(const void *address, size_t bytes)
{
    (void)bytes;
    return address;
}

static inline void kv_device_end_read(const void *address, const unsigned char *bytes)
{
    (void)address, (void)bytes;
}

#endif

#endif
