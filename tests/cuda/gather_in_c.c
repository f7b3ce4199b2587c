/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gather_in_c - in place of gather.cu in tests: each thread of the kernel, one after the other, as
 * one kernel of the stand-in runtime
 *
 * What a thread does is gather_thread.h's, which gather.cu compiles as well: only how memory is
 * found, read and written is said here. It says which ranges it reads and writes, so that the
 * stand-in checks them like any other work of a stream.
 */
#include <stdlib.h>
#include <string.h>

#include "fake_cuda.h"
#include "transfer/cuda/gather.h"

typedef struct {
    unsigned char bytes[KVBI_GATHER_ALIGNMENT];
} kvbi_gather_word;

#define KVBI_GATHER_FUNCTION static inline

static void *kvbi_gather_memory(unsigned char *address)
{
    return fake_cuda_storage(address);
}

static kvbi_gather_word kvbi_gather_load(const kvbi_gather_word *from)
{
    return *from;
}

static void kvbi_gather_store(kvbi_gather_word *to, kvbi_gather_word word)
{
    *to = word;
}

#include "transfer/cuda/gather_thread.h"

static unsigned char *const *table_of(const struct kvbi_gather *g)
{
    return g->bases != NULL ? fake_cuda_storage(g->bases) : NULL;
}

static void gather(void *args)
{
    const struct kvbi_gather *g = args;
    for (uint32_t block = 0; block < g->grid; block++)
        for (uint32_t thread = 0; thread < KVBI_GATHER_THREADS; thread++)
            kvbi_gather_thread(g, table_of(g), block, thread);
}

bool kvbi_gather_available(void)
{
    return true;
}

cudaError_t kvbi_gather_launch(const struct kvbi_gather *g, cudaStream_t stream)
{
    uint32_t count = g->count * g->layers * g->parts * kvbi_gather_pieces(g);
    if (stream == NULL || stream == cudaStreamLegacy || stream == cudaStreamPerThread)
        abort(); /* no copy of the library's goes there, and the stand-in leaves kernels alone */
    if (g->grid == 0)
        return cudaErrorInvalidConfiguration;
    struct fake_cuda_range *ranges = calloc(2 * (size_t)count + 1, sizeof *ranges);
    if (ranges == NULL)
        return cudaErrorMemoryAllocation;
    for (uint32_t n = 0; n < count; n++) {
        struct kvbi_gather_piece piece = kvbi_gather_piece(g, table_of(g), n);
        ranges[2 * n] = (struct fake_cuda_range){piece.device, piece.bytes, g->to_device};
        ranges[2 * n + 1] = (struct fake_cuda_range){piece.host, piece.bytes, !g->to_device};
    }
    size_t range_count = 2 * (size_t)count;
    if (g->bases != NULL)
        ranges[range_count++] = (struct fake_cuda_range){
            g->bases, (g->first_layer + g->layers) * sizeof *g->bases, false};
    cudaError_t error = fake_cuda_kernel(stream, gather, g, sizeof *g, ranges, range_count);
    free(ranges);
    return error;
}
