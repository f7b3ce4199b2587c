/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gather_in_c - in place of gather.cu in tests: the same copies, as one kernel of the stand-in
 * runtime
 *
 * It says which ranges it reads and writes, so that the stand-in checks them like any other work of
 * a stream.
 */
#include <stdlib.h>
#include <string.h>

#include "fake_cuda.h"
#include "transfer/cuda/gather.h"

static uint32_t chunk_count(const struct kvbi_gather *g)
{
    return g->count * g->layers * g->parts;
}

static void chunk_at(const struct kvbi_gather *g, uint32_t n, unsigned char **device,
                     unsigned char **host)
{
    uint32_t per_block = g->layers * g->parts, block = n / per_block, row = n % per_block;
    uint32_t layer = g->first_layer + row / g->parts, part = row % g->parts;
    unsigned char *start = g->bases != NULL ? ((unsigned char **)fake_cuda_storage(g->bases))[layer]
                                            : g->base + layer * g->layer_stride;
    *device = start + g->slots[block] * g->block_stride + part * g->part_stride;
    *host = g->host[block] + ((uint64_t)g->first_layer * g->parts + row) * g->chunk;
}

static void gather(void *args)
{
    const struct kvbi_gather *g = args;
    for (uint32_t n = 0; n < chunk_count(g); n++) {
        unsigned char *device, *host;
        chunk_at(g, n, &device, &host);
        memcpy(fake_cuda_storage(g->to_device ? device : host),
               fake_cuda_storage(g->to_device ? host : device), g->chunk);
    }
}

bool kvbi_gather_available(void)
{
    return true;
}

cudaError_t kvbi_gather_launch(const struct kvbi_gather *g, cudaStream_t stream)
{
    if (stream == NULL || stream == cudaStreamLegacy || stream == cudaStreamPerThread)
        abort(); /* no copy of the library's goes there, and the stand-in leaves kernels alone */
    uint32_t count = chunk_count(g);
    struct fake_cuda_range *ranges = calloc(2 * (size_t)count + 1, sizeof *ranges);
    if (ranges == NULL)
        return cudaErrorMemoryAllocation;
    for (uint32_t n = 0; n < count; n++) {
        unsigned char *device, *host;
        chunk_at(g, n, &device, &host);
        ranges[2 * n] = (struct fake_cuda_range){device, g->chunk, g->to_device};
        ranges[2 * n + 1] = (struct fake_cuda_range){host, g->chunk, !g->to_device};
    }
    size_t range_count = 2 * (size_t)count;
    if (g->bases != NULL)
        ranges[range_count++] = (struct fake_cuda_range){
            g->bases, (g->first_layer + g->layers) * sizeof *g->bases, false};
    cudaError_t error = fake_cuda_kernel(stream, gather, g, sizeof *g, ranges, range_count);
    free(ranges);
    return error;
}
