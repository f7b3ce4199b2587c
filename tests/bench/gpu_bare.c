/* SPDX-License-Identifier: Apache-2.0 */
/* gpu_bare - see gpu_bare.h. */
#include "gpu_bare.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu_run.h"
#include "rows.h"

void cuda_check(cudaError_t error, const char *call)
{
    if (error == cudaSuccess)
        return;
    (void)fprintf(stderr, "bench_gpu: %s: %s (%d): %s\n", call, cudaGetErrorName(error), (int)error,
                  cudaGetErrorString(error));
    exit(2);
}

void gpu_bare_create(struct gpu_bare *bare, struct gpu_run *run, int device, uint64_t bytes)
{
    void *out, *back, *memory;
    CUDA(cudaSetDevice(device));
    CUDA(cudaHostAlloc(&out, bytes, cudaHostAllocPortable));
    CUDA(cudaHostAlloc(&back, bytes, cudaHostAllocPortable));
    CUDA(cudaMalloc(&memory, 2 * bytes));
    *bare =
        (struct gpu_bare){.run = run, .bytes = bytes, .out = out, .back = back, .device = memory};
    CUDA(cudaStreamCreateWithFlags(&bare->up, cudaStreamNonBlocking));
    CUDA(cudaStreamCreateWithFlags(&bare->down, cudaStreamNonBlocking));
    CUDA(cudaStreamCreateWithFlags(&bare->server, cudaStreamNonBlocking));
    CUDA(cudaEventCreateWithFlags(&bare->event, cudaEventDisableTiming));
}

void gpu_bare_destroy(struct gpu_bare *bare)
{
    CUDA(cudaEventDestroy(bare->event));
    CUDA(cudaStreamDestroy(bare->up));
    CUDA(cudaStreamDestroy(bare->down));
    CUDA(cudaStreamDestroy(bare->server));
    CUDA(cudaFree(bare->device));
    CUDA(cudaFreeHost(bare->out));
    CUDA(cudaFreeHost(bare->back));
}

static void start_up(struct gpu_bare *bare, uint64_t bytes)
{
    CUDA(cudaMemcpyAsync(bare->device, bare->out, bytes, cudaMemcpyHostToDevice, bare->up));
}

static void start_down(struct gpu_bare *bare, const unsigned char *from, uint64_t bytes)
{
    CUDA(cudaMemcpyAsync(bare->back, from, bytes, cudaMemcpyDeviceToHost, bare->down));
}

uint64_t gpu_bare_up(struct gpu_bare *bare, uint64_t bytes)
{
    uint64_t since = now_ns();
    start_up(bare, bytes);
    CUDA(cudaStreamSynchronize(bare->up));
    return now_ns() - since;
}

/* Nothing of an earlier copy is left in `back` that could pass for this one. */
static void clear_back(struct gpu_bare *bare, uint64_t bytes)
{
    memset(bare->back, 0, bytes);
}

static void compare_back(struct gpu_bare *bare, uint64_t bytes)
{
    if (gpu_run_spoils(bare->run))
        bare->back[bytes - 1] ^= 0xff;
    if (memcmp(bare->out, bare->back, bytes) != 0)
        gpu_run_wrong(bare->run, "the bare copy", bare->out, bare->back, bytes);
}

uint64_t gpu_bare_down(struct gpu_bare *bare, uint64_t bytes)
{
    (void)gpu_bare_up(bare, bytes);
    clear_back(bare, bytes);
    uint64_t since = now_ns();
    start_down(bare, bare->device, bytes);
    CUDA(cudaStreamSynchronize(bare->down));
    uint64_t ns = now_ns() - since;
    compare_back(bare, bytes);
    return ns;
}

uint64_t gpu_bare_both(struct gpu_bare *bare, uint64_t bytes)
{
    unsigned char *second = bare->device + bare->bytes;
    CUDA(cudaMemcpyAsync(second, bare->out, bytes, cudaMemcpyHostToDevice, bare->up));
    CUDA(cudaStreamSynchronize(bare->up));
    clear_back(bare, bytes);
    uint64_t since = now_ns();
    start_up(bare, bytes);
    start_down(bare, second, bytes);
    CUDA(cudaStreamSynchronize(bare->up));
    CUDA(cudaStreamSynchronize(bare->down));
    uint64_t ns = now_ns() - since;
    compare_back(bare, bytes);
    return ns;
}

void gpu_bare_await_server(struct gpu_bare *bare)
{
    cudaError_t error;
    CUDA(cudaEventRecord(bare->event, bare->server));
    while ((error = cudaEventQuery(bare->event)) == cudaErrorNotReady)
        ;
    CUDA(error);
}
