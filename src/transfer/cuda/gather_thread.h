/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gather_thread - what each thread of the gather kernel does
 *
 * Owns       the kernel's arithmetic: which bytes of which chunk a warp takes, and which words of
 *            them a thread. Pure.
 * Callers    gather.cu, and in tests the function in C that stands in for it: it runs the same
 *            lines once for every thread of the grid, so what tests compare byte by byte is what
 *            the GPU will do, but for the few names that whoever includes this gives first:
 *                KVBI_GATHER_FUNCTION    what the functions are declared as
 *                kvbi_gather_word        a type of KVBI_GATHER_ALIGNMENT bytes
 *                kvbi_gather_memory(p)   where address p is read and written
 *                kvbi_gather_load(from), kvbi_gather_store(to, word)
 * Invariants the pieces of a chunk cover it without gaps and do not overlap; so do the words of the
 *            lanes of a warp in a piece. A launch has fewer than 2^32 pieces.
 * Why        a warp takes a piece at a time and keeps UNROLL x 512 bytes of it in flight: the
 *            link's round trip is about a microsecond, so what is under way at once is what decides
 *            (Little's law; 64 KiB a microsecond, which is what one thread block has, are 64 GB/s).
 *            One warp for all of a large chunk would leave most of the grid without work where
 *            chunks are few.
 */
#ifndef KVBI_TRANSFER_CUDA_GATHER_THREAD_H
#define KVBI_TRANSFER_CUDA_GATHER_THREAD_H

#include "transfer/cuda/gather.h"

#define KVBI_GATHER_THREADS 512u /* of a thread block */
#define KVBI_GATHER_WARP 32u
#define KVBI_GATHER_UNROLL 8u
/* What one warp takes of a chunk at most. */
#define KVBI_GATHER_PIECE_MAX ((uint64_t)16 << 10)
/* A warp's step: pieces end on it, so that no two warps share a line of the GPU's cache. */
#define KVBI_GATHER_STEP ((uint64_t)KVBI_GATHER_WARP * KVBI_GATHER_ALIGNMENT)

#ifdef __CUDACC__
#define KVBI_GATHER_UNROLLED _Pragma("unroll")
#else
#define KVBI_GATHER_UNROLLED
#endif

struct kvbi_gather_piece {
    unsigned char *device, *host;
    uint64_t bytes;
};

/* Of each chunk. */
KVBI_GATHER_FUNCTION uint32_t kvbi_gather_pieces(const struct kvbi_gather *g)
{
    return (uint32_t)((g->chunk + KVBI_GATHER_PIECE_MAX - 1) / KVBI_GATHER_PIECE_MAX);
}

/* All but the last of a chunk, which may have less: as equal as whole steps allow. */
KVBI_GATHER_FUNCTION uint64_t kvbi_gather_piece_bytes(const struct kvbi_gather *g, uint32_t pieces)
{
    uint64_t steps = (g->chunk + KVBI_GATHER_STEP - 1) / KVBI_GATHER_STEP;
    return (steps + pieces - 1) / pieces * KVBI_GATHER_STEP;
}

/* The n-th piece of the launch. `bases` is the table that g->bases names, where it can be read. */
KVBI_GATHER_FUNCTION struct kvbi_gather_piece kvbi_gather_piece(const struct kvbi_gather *g,
                                                                unsigned char *const *bases,
                                                                uint32_t n)
{
    const uint32_t pieces = kvbi_gather_pieces(g), rows = g->layers * g->parts;
    const uint32_t chunk = n / pieces, block = chunk / rows, row = chunk % rows;
    const uint32_t layer = g->first_layer + row / g->parts, part = row % g->parts;
    const uint64_t most = kvbi_gather_piece_bytes(g, pieces), begin = n % pieces * most;
    const uint64_t left = begin < g->chunk ? g->chunk - begin : 0;
    unsigned char *start = bases != NULL ? bases[layer] : g->base + layer * g->layer_stride;
    struct kvbi_gather_piece piece;
    piece.device = start + g->slots[block] * g->block_stride + part * g->part_stride + begin;
    piece.host = g->host[block] + ((uint64_t)g->first_layer * g->parts + row) * g->chunk + begin;
    piece.bytes = left < most ? left : most;
    return piece;
}

/* The words from `lane` on, every WARP-th. */
KVBI_GATHER_FUNCTION void kvbi_gather_move(kvbi_gather_word *to, const kvbi_gather_word *from,
                                           uint64_t words, uint32_t lane)
{
    uint64_t i = lane;
    for (; i + (KVBI_GATHER_UNROLL - 1) * KVBI_GATHER_WARP < words;
         i += KVBI_GATHER_UNROLL * KVBI_GATHER_WARP) {
        kvbi_gather_word loaded[KVBI_GATHER_UNROLL];
        KVBI_GATHER_UNROLLED
        for (uint32_t n = 0; n < KVBI_GATHER_UNROLL; n++)
            loaded[n] = kvbi_gather_load(&from[i + n * KVBI_GATHER_WARP]);
        KVBI_GATHER_UNROLLED
        for (uint32_t n = 0; n < KVBI_GATHER_UNROLL; n++)
            kvbi_gather_store(&to[i + n * KVBI_GATHER_WARP], loaded[n]);
    }
    for (; i < words; i += KVBI_GATHER_WARP)
        kvbi_gather_store(&to[i], kvbi_gather_load(&from[i]));
}

/* All that thread `thread` of thread block `block` does. */
KVBI_GATHER_FUNCTION void kvbi_gather_thread(const struct kvbi_gather *g,
                                             unsigned char *const *bases, uint32_t block,
                                             uint32_t thread)
{
    const uint32_t warps = KVBI_GATHER_THREADS / KVBI_GATHER_WARP;
    const uint32_t total = g->count * g->layers * g->parts * kvbi_gather_pieces(g);
    for (uint32_t n = block * warps + thread / KVBI_GATHER_WARP; n < total; n += g->grid * warps) {
        const struct kvbi_gather_piece piece = kvbi_gather_piece(g, bases, n);
        void *device = kvbi_gather_memory(piece.device), *host = kvbi_gather_memory(piece.host);
        kvbi_gather_move((kvbi_gather_word *)(g->to_device ? device : host),
                         (const kvbi_gather_word *)(g->to_device ? host : device),
                         piece.bytes / KVBI_GATHER_ALIGNMENT, thread % KVBI_GATHER_WARP);
    }
}

#endif
