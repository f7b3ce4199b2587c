/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gather - see gather.h.
 *
 * A warp takes a chunk at a time and keeps UNROLL x 512 bytes of it in flight: the link's round
 * trip is about a microsecond, so what is under way at once is what decides (Little's law; 64 KiB a
 * microsecond are 64 GB/s).
 */
#include "transfer/cuda/gather.h"

#define THREAD_BLOCKS 16
#define THREADS 512
#define WARP 32
#define UNROLL 8

static __device__ unsigned char *device_chunk(const struct kvbi_gather &g, uint32_t block,
                                              uint32_t layer, uint32_t part)
{
    unsigned char *start = g.bases != nullptr ? g.bases[layer] : g.base + layer * g.layer_stride;
    return start + g.slots[block] * g.block_stride + part * g.part_stride;
}

/* The words from `lane` on, every WARP-th. Streaming: nobody reads these lines here again soon. */
static __device__ void move(uint4 *to, const uint4 *from, uint64_t words, unsigned lane)
{
    uint64_t i = lane;
    for (; i + (UNROLL - 1) * WARP < words; i += UNROLL * WARP) {
        uint4 loaded[UNROLL];
#pragma unroll
        for (int n = 0; n < UNROLL; n++)
            loaded[n] = __ldcs(&from[i + n * WARP]);
#pragma unroll
        for (int n = 0; n < UNROLL; n++)
            __stcs(&to[i + n * WARP], loaded[n]);
    }
    for (; i < words; i += WARP)
        __stcs(&to[i], __ldcs(&from[i]));
}

static __global__ void __launch_bounds__(THREADS)
    gather(const __grid_constant__ struct kvbi_gather g)
{
    const uint32_t per_block = g.layers * g.parts, total = g.count * per_block;
    const uint32_t step = gridDim.x * (THREADS / WARP);
    for (uint32_t n = blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP; n < total; n += step) {
        uint32_t block = n / per_block, row = n % per_block;
        unsigned char *device =
            device_chunk(g, block, g.first_layer + row / g.parts, row % g.parts);
        unsigned char *host = g.host[block] + ((uint64_t)g.first_layer * g.parts + row) * g.chunk;
        move((uint4 *)(g.to_device ? device : host), (const uint4 *)(g.to_device ? host : device),
             g.chunk / sizeof(uint4), threadIdx.x % WARP);
    }
}

extern "C" bool kvbi_gather_available(void)
{
    return true;
}

extern "C" cudaError_t kvbi_gather_launch(const struct kvbi_gather *g, cudaStream_t stream)
{
    void *arguments[] = {const_cast<struct kvbi_gather *>(g)};
    return cudaLaunchKernel(gather, dim3(THREAD_BLOCKS), dim3(THREADS), arguments, 0, stream);
}
