/* SPDX-License-Identifier: Apache-2.0 */
/* scratch - see scratch.h. */
#include "transfer/cuda/scratch.h"

#define LOAD_BYTES (KVBI_SCRATCH_BYTES / 2)
#define LOAD_CHUNKS (KVBI_SCRATCH_CHUNKS / 2)

static uint32_t least_of(uint64_t a, uint64_t b)
{
    return (uint32_t)(a < b ? a : b);
}

/*
 * Large blocks: fewer layers and parts, and chunks of which less is copied. How large they are
 * decides nothing any more by then.
 */
static void clip(struct kvbi_strides *strides)
{
    strides->parts = least_of(strides->parts, LOAD_CHUNKS);
    uint64_t chunk = LOAD_BYTES / strides->parts / KVBI_GATHER_ALIGNMENT * KVBI_GATHER_ALIGNMENT;
    if (strides->chunk > chunk)
        strides->chunk = chunk;
    strides->layers = least_of(strides->layers, LOAD_CHUNKS / strides->parts);
    strides->layers = least_of(strides->layers, LOAD_BYTES / (strides->parts * strides->chunk));
}

/*
 * These strides, with the counts and the chunk of `to` and `blocks` blocks: in the same order, next
 * to each other where they are so there, with a gap of one chunk where they are not. Layers with
 * bases of their own become the outermost dimension, and are given bases again.
 */
static void shrink(const struct kvbi_strides *from, uint32_t blocks, struct kvbi_strides *to)
{
    struct {
        uint64_t from, *to;
        uint32_t from_count, count;
    } sorted[3] = {{from->part, &to->part, from->parts, to->parts},
                   {from->layer, &to->layer, from->layers, to->layers},
                   {from->block, &to->block, blocks, blocks}};
    if (from->bases != NULL)
        sorted[1].from = UINT64_MAX;
    for (int i = 1; i < 3; i++)
        for (int j = i; j > 0 && sorted[j].from < sorted[j - 1].from; j--) {
            __typeof__(sorted[0]) swap = sorted[j];
            sorted[j] = sorted[j - 1];
            sorted[j - 1] = swap;
        }
    uint64_t here = to->chunk, there = from->chunk;
    for (int i = 0; i < 3; i++) {
        *sorted[i].to = sorted[i].from == there ? here : here + to->chunk;
        there = sorted[i].from * (sorted[i].from_count - 1) + there;
        here = *sorted[i].to * (sorted[i].count - 1) + here;
    }
    to->span_bytes = here;
}

/*
 * Where the tier's layers have bases, the scratch's have them, too: copies are cut there, and the
 * kernel looks them up.
 */
static cudaError_t take_bases(struct kvbi_cuda_scratch *scratch)
{
    struct kvbi_strides *strides = &scratch->strides;
    strides->bases = kvbi_memory_alloc(scratch->memory, strides->layers, sizeof *strides->bases, 0);
    if (strides->bases == NULL)
        return cudaErrorMemoryAllocation;
    for (uint32_t i = 0; i < strides->layers; i++)
        strides->bases[i] = scratch->device + i * strides->layer;
    return cudaSuccess;
}

/* Every other slot: neighbours would be joined, which lanes cannot count on. */
static void make_pairs(struct kvbi_cuda_scratch *scratch, uint64_t block_bytes)
{
    for (uint32_t i = 0; i < 2 * scratch->load_blocks; i++)
        scratch->pairs[i] =
            (struct kvbi_cuda_pair){.slot = i / 2 + (i % 2) * scratch->load_blocks,
                                    .host = (unsigned char *)scratch->host + i * block_bytes};
}

cudaError_t kvbi_cuda_scratch_take(struct kvbi_cuda_scratch *scratch, struct kvbi_cuda_scope *scope,
                                   const struct kvbi_cuda_copier *copier, cudaStream_t stream)
{
    const struct kvbi_strides *whole = copier->strides;
    struct kvbi_strides *strides = &scratch->strides;
    void *device = NULL;
    *scratch = (struct kvbi_cuda_scratch){
        .memory = copier->cuda->memory,
        .strides = {.layers = whole->layers, .parts = whole->parts, .chunk = whole->chunk}};
    clip(strides);
    uint32_t chunks = strides->layers * strides->parts;
    uint64_t block_bytes = chunks * strides->chunk;
    scratch->load_blocks =
        least_of(KVBI_SCRATCH_LOAD_MAX, least_of(LOAD_CHUNKS / chunks, LOAD_BYTES / block_bytes));
    shrink(whole, 2 * scratch->load_blocks, strides);
    cudaError_t error = kvbi_cuda_check(scope, cudaMalloc(&device, strides->span_bytes));
    scratch->device = device;
    if (error == cudaSuccess)
        error = kvbi_cuda_check(scope, cudaHostAlloc(&scratch->host,
                                                     2 * scratch->load_blocks * block_bytes,
                                                     cudaHostAllocPortable | cudaHostAllocMapped));
    if (error == cudaSuccess && whole->bases != NULL)
        error = take_bases(scratch);
    if (error == cudaSuccess && copier->kernel)
        error = kvbi_cuda_upload_bases(scope, strides, &scratch->bases_on_device, stream);
    make_pairs(scratch, block_bytes);
    return error;
}

void kvbi_cuda_scratch_give(struct kvbi_cuda_scratch *scratch, struct kvbi_cuda_scope *scope)
{
    if (scratch->host != NULL)
        (void)kvbi_cuda_check(scope, cudaFreeHost(scratch->host));
    if (scratch->bases_on_device != NULL)
        (void)kvbi_cuda_check(scope, cudaFree(scratch->bases_on_device));
    if (scratch->device != NULL)
        (void)kvbi_cuda_check(scope, cudaFree(scratch->device));
    if (scratch->strides.bases != NULL)
        kvbi_memory_free(scratch->memory, scratch->strides.bases, scratch->strides.layers,
                         sizeof *scratch->strides.bases);
}
