/* SPDX-License-Identifier: Apache-2.0 */
/*
 * addresses - what a pointer is, and whether a task or a test may use what it points to
 *
 * Owns nothing: looks things up in memory.c's table.
 */
#include "internal.h"

#include <string.h>

cudaError_t fake_memory_check(const void *address, size_t bytes, int device, const char *call)
{
    const struct fake_block *block = fake_block_find(address);
    if (!block) {
        fake_report(!fake_is_device_address(address) ? FAKE_CUDA_PAGEABLE
                    : fake_was_device_block(address) ? FAKE_CUDA_FREED
                                                     : FAKE_CUDA_BOUNDS,
                    "%s: %p + %zu is nothing that is allocated or pinned", call, address, bytes);
        return cudaErrorInvalidValue;
    }
    if (bytes > block->bytes - ((uintptr_t)address - block->start)) {
        fake_report(FAKE_CUDA_BOUNDS,
                    "%s: %p + %zu ends past %p + %zu, the one piece that it starts in", call,
                    address, bytes, (void *)block->start, block->bytes);
        return cudaErrorInvalidValue;
    }
    if (block->kind == FAKE_BLOCK_DEVICE && device >= 0 && block->device != device) {
        fake_report(FAKE_CUDA_WRONG_DEVICE, "%s: %p is on device %d, the stream on device %d", call,
                    address, block->device, device);
        return cudaErrorInvalidValue;
    }
    return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *pointer)
{
    cudaError_t error = fake_enter(__func__, FAKE_MAKES_CONTEXT);
    if (!error && !attributes)
        error = cudaErrorInvalidValue;
    if (!error) {
        const struct fake_block *block = fake_block_find(pointer);
        void *address = (void *)(uintptr_t)pointer;
        bool on_device = block && block->kind == FAKE_BLOCK_DEVICE;
        memset(attributes, 0, sizeof *attributes);
        attributes->type = !block      ? cudaMemoryTypeUnregistered
                           : on_device ? cudaMemoryTypeDevice
                                       : cudaMemoryTypeHost;
        attributes->device = block ? block->device : -2; /* cudaInvalidDeviceId */
        attributes->devicePointer = block ? address : NULL;
        attributes->hostPointer = on_device ? NULL : address;
    }
    return fake_leave(error);
}

cudaError_t cudaHostGetDevicePointer(void **device_pointer, void *host_pointer, unsigned int flags)
{
    cudaError_t error = fake_enter(__func__, FAKE_MAKES_CONTEXT);
    const struct fake_block *block = error ? NULL : fake_block_find(host_pointer);
    if (!error && (flags || !device_pointer || !block || block->kind == FAKE_BLOCK_DEVICE))
        error = cudaErrorInvalidValue;
    if (!error)
        *device_pointer = host_pointer; /* one address for both sides, as with unified addressing */
    return fake_leave(error);
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes)
{
    cudaError_t error = fake_enter(__func__, FAKE_MAKES_CONTEXT);
    if (!error) {
        *total_bytes = fake.config.device_bytes;
        *free_bytes = *total_bytes - fake.arenas[fake_this_thread()->device].used_bytes;
    }
    return fake_leave(error);
}

/* ---- For tests ------------------------------------------------------------------------------- */

bool fake_cuda_is_device_pointer(const void *pointer)
{
    fake_enter_helper();
    const struct fake_block *block = fake_block_find(pointer);
    bool is = block && block->kind == FAKE_BLOCK_DEVICE;
    fake_unlock();
    return is;
}

bool fake_cuda_is_pinned(const void *pointer, size_t bytes)
{
    fake_enter_helper();
    const struct fake_block *block = fake_block_find(pointer);
    bool is = block && block->kind != FAKE_BLOCK_DEVICE &&
              bytes <= block->bytes - ((uintptr_t)pointer - block->start);
    fake_unlock();
    return is;
}

void *fake_cuda_storage(const void *pointer)
{
    fake_enter_helper();
    void *storage = fake_storage(pointer);
    fake_unlock();
    return storage;
}

/* Where host code may now do what it says to device memory; NULL after a report. */
static void *open_device(const void *device, size_t bytes, bool written, const char *call)
{
    fake_enter_helper();
    bool good = !fake_memory_check(device, bytes, -1, call) &&
                fake_log_check_host(device, bytes, written, call);
    void *storage = good ? fake_storage(device) : NULL;
    fake_unlock();
    return storage;
}

void fake_cuda_read(void *to, const void *device_from, size_t bytes)
{
    const void *from = open_device(device_from, bytes, false, __func__);
    if (from)
        memcpy(to, from, bytes);
}

void fake_cuda_write(void *device_to, const void *from, size_t bytes)
{
    void *to = open_device(device_to, bytes, true, __func__);
    if (to)
        memcpy(to, from, bytes);
}

void fake_cuda_fill(void *device_to, int value, size_t bytes)
{
    void *to = open_device(device_to, bytes, true, __func__);
    if (to)
        memset(to, value, bytes);
}

int fake_cuda_compare(const void *device, const void *expected, size_t bytes)
{
    const void *storage = open_device(device, bytes, false, __func__);
    return storage ? memcmp(storage, expected, bytes) : -1;
}
