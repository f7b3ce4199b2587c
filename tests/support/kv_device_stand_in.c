/* SPDX-License-Identifier: Apache-2.0 */
/* The tier DEVICE on the stand-in for CUDA. See kv_device.h. */
#include "support/kv_device.h"

#include <stdlib.h>

struct fake_cuda_config kv_device_config = {.seed = 11};
static uint32_t rigs;
static uint64_t tasks_seen;

bool kv_device_is_cuda(void)
{
    return true;
}

void kv_device_start(struct kvb_tier_config *tiers, uint32_t count)
{
    if (rigs++ == 0) {
        fake_cuda_start(&kv_device_config);
        tasks_seen = 0;
    }
    if (count > 0 && tiers[0].tier == KVB_TIER_DEVICE && tiers[0].memory == NULL &&
        tiers[0].layer_memory == NULL) {
        tiers[0].memory_kind = KVB_MEMORY_CUDA;
        tiers[0].copy_method = tiers[0].copy_method != 0 ? tiers[0].copy_method : KVB_COPY_BATCH;
    }
}

size_t kv_device_end(void)
{
    return --rigs == 0 ? fake_cuda_end() : 0;
}

void kv_device_let_go(void)
{
    if (rigs > 0)
        fake_cuda_release(NULL);
}

bool kv_device_moved(struct kvb_manager *kv)
{
    (void)kv;
    fake_cuda_quiesce();
    uint64_t tasks_before = tasks_seen;
    tasks_seen = fake_cuda_tasks_run();
    return tasks_seen != tasks_before;
}

unsigned char *kv_device_begin_write(void *address, size_t bytes)
{
    return fake_cuda_is_device_pointer(address) ? malloc(bytes) : address;
}

void kv_device_end_write(void *address, unsigned char *written, size_t bytes)
{
    if (written != address) {
        fake_cuda_write(address, written, bytes);
        free(written);
    }
}

const unsigned char *kv_device_read(const void *address, size_t bytes)
{
    if (!fake_cuda_is_device_pointer(address))
        return address;
    void *copy = malloc(bytes);
    fake_cuda_read(copy, address, bytes);
    return copy;
}

void kv_device_end_read(const void *address, const unsigned char *bytes)
{
    if (bytes != address)
        free((void *)(uintptr_t)bytes);
}

void kv_device_hold(cudaStream_t stream)
{
    fake_cuda_hold(stream);
}

void kv_device_release(cudaStream_t stream)
{
    fake_cuda_release(stream);
}

cudaError_t kv_device_capture_begin(cudaStream_t stream)
{
    return fake_cuda_capture_begin(stream, cudaStreamCaptureModeGlobal);
}

cudaError_t kv_device_capture_end(cudaStream_t stream)
{
    return fake_cuda_capture_end(stream);
}
