/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Device blocks in a GPU's memory, or in host memory if the options say so. See device.h.
 *
 * A pinned chunk stands between the two, and each copy is waited for: the replay measures kvblock,
 * not this. Compiled against the stand-in for the runtime it is the replay of the tests.
 */
#include "device.h"

#include <cuda_runtime_api.h>

#ifdef FAKE_CUDA
#include "fake_cuda.h"
const char *const device_memory_name = "fake-cuda";
#else
const char *const device_memory_name = "cuda";
#endif

static struct {
    int on_gpu;
    size_t chunk_bytes;
    void *staged;
    cudaStream_t stream;
} device;

int device_open(int on_gpu, size_t chunk_bytes)
{
    device.on_gpu = on_gpu;
    device.chunk_bytes = chunk_bytes;
    if (!on_gpu)
        return 0;
    return cudaSetDevice(0) || cudaHostAlloc(&device.staged, chunk_bytes, cudaHostAllocDefault) ||
                   cudaStreamCreateWithFlags(&device.stream, cudaStreamNonBlocking)
               ? -1
               : 0;
}

static int copy(void *to, const void *from, enum cudaMemcpyKind kind)
{
    return cudaMemcpyAsync(to, from, device.chunk_bytes, kind, device.stream) ||
                   cudaStreamSynchronize(device.stream)
               ? -1
               : 0;
}

void *device_write_begin(void *chunk)
{
    return device.on_gpu ? device.staged : chunk;
}

int device_write_end(void *chunk)
{
    return device.on_gpu ? copy(chunk, device.staged, cudaMemcpyHostToDevice) : 0;
}

const void *device_read(void *chunk)
{
    if (!device.on_gpu)
        return chunk;
    return copy(device.staged, chunk, cudaMemcpyDeviceToHost) ? NULL : device.staged;
}

int device_close(void)
{
    int bad = 0;
    if (device.stream)
        bad |= cudaStreamDestroy(device.stream) != cudaSuccess;
    if (device.staged)
        bad |= cudaFreeHost(device.staged) != cudaSuccess;
    device.stream = NULL;
    device.staged = NULL;
#ifdef FAKE_CUDA
    bad |= device.on_gpu && fake_cuda_end() != 0;
#endif
    return bad ? -1 : 0;
}
