/* SPDX-License-Identifier: Apache-2.0 */
/* The tier DEVICE on a GPU. See kv_device.h. */
#include "support/kv_device.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DRIVER_WITH_BATCHES 12080

static _Atomic bool held; /* a stream */

/*
 * A program that cannot run here says so before CMocka starts. The context stays until the end, as
 * a server's does.
 */
__attribute__((constructor)) void kv_device_need_gpu(void)
{
    int count = 0;
    cudaError_t error = cudaGetDeviceCount(&count);
    if (error == cudaSuccess && count > 0 && cudaSetDevice(0) == cudaSuccess &&
        cudaFree(NULL) == cudaSuccess)
        return;
    (void)fprintf(stderr, "skipped: no GPU: %s\n", cudaGetErrorString(error));
    exit(77);
}

static void or_die(cudaError_t error)
{
    if (error == cudaSuccess)
        return;
    (void)fprintf(stderr, "the test's own call to CUDA failed: %s\n", cudaGetErrorName(error));
    exit(1);
}

bool kv_device_is_cuda(void)
{
    return true;
}

void kv_device_start(struct kvb_tier_config *tiers, uint32_t count)
{
    int driver = 0;
    or_die(cudaDriverGetVersion(&driver));
    if (count > 0 && tiers[0].tier == KVB_TIER_DEVICE && tiers[0].memory == NULL &&
        tiers[0].layer_memory == NULL) {
        tiers[0].memory_kind = KVB_MEMORY_CUDA;
        if (tiers[0].copy_method == 0)
            tiers[0].copy_method = driver >= DRIVER_WITH_BATCHES ? KVB_COPY_BATCH : KVB_COPY_PLAIN;
    }
}

size_t kv_device_end(void)
{
    return cudaGetLastError() != cudaSuccess;
}

void kv_device_let_go(void)
{
    atomic_store(&held, false);
}

/*
 * Waits for the device, and polls. True if that has changed what the manager tells of itself: there
 * may be more.
 */
bool kv_device_moved(struct kvb_manager *kv)
{
    struct kvb_stats before, after;
    memset(&before, 0, sizeof before);
    memset(&after, 0, sizeof after);
    before.size = after.size = sizeof after;
    or_die(cudaDeviceSynchronize());
    bool told = kvb_manager_stats(kv, &before) == 0;
    while (kvb_manager_poll(kv, KVB_FOREVER) == 1)
        ;
    return told && kvb_manager_stats(kv, &after) == 0 && memcmp(&before, &after, sizeof after) != 0;
}

static bool is_on_device(const void *address)
{
    struct cudaPointerAttributes attributes;
    or_die(cudaPointerGetAttributes(&attributes, address));
    return attributes.type == cudaMemoryTypeDevice;
}

unsigned char *kv_device_begin_write(void *address, size_t bytes)
{
    return is_on_device(address) ? malloc(bytes) : address;
}

void kv_device_end_write(void *address, unsigned char *written, size_t bytes)
{
    if (written != address) {
        or_die(cudaMemcpy(address, written, bytes, cudaMemcpyHostToDevice));
        free(written);
    }
}

const unsigned char *kv_device_read(const void *address, size_t bytes)
{
    if (!is_on_device(address))
        return address;
    void *copy = malloc(bytes);
    or_die(cudaMemcpy(copy, address, bytes, cudaMemcpyDeviceToHost));
    return copy;
}

void kv_device_end_read(const void *address, const unsigned char *bytes)
{
    if (bytes != address)
        free((void *)(uintptr_t)bytes);
}

static void stand(void *unused)
{
    (void)unused;
    while (atomic_load(&held))
        ;
}

void kv_device_hold(cudaStream_t stream)
{
    atomic_store(&held, true);
    or_die(cudaLaunchHostFunc(stream, stand, NULL));
}

void kv_device_release(cudaStream_t stream)
{
    (void)stream;
    atomic_store(&held, false);
}

cudaError_t kv_device_capture_begin(cudaStream_t stream)
{
    return cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal);
}

cudaError_t kv_device_capture_end(cudaStream_t stream)
{
    cudaGraph_t graph = NULL;
    cudaError_t error = cudaStreamEndCapture(stream, &graph);
    if (graph != NULL)
        or_die(cudaGraphDestroy(graph));
    return error;
}
