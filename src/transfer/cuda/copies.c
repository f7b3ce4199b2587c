/* SPDX-License-Identifier: Apache-2.0 */
/* copies - see copies.h. */
#include "transfer/cuda/copies.h"

#include <string.h>

/*
 * Below it, copies disturb the server's kernels less if the engine may interleave them (cudf 23675,
 * RMM 2511).
 */
#define OVERLAP_BYTES ((size_t)128 << 10)
/* CUDA 12.8, of driver and runtime: what has cudaMemcpyBatchAsync. */
#define BATCH_VERSION 12080

/* ---- One call -------------------------------------------------------------------------------- */

/* Has it been put onto the stream? */
static cudaError_t count_one(struct kvbi_cuda_copier *copier, struct kvbi_cuda_scope *scope,
                             cudaError_t error)
{
    copier->entries += error == cudaSuccess;
    return kvbi_cuda_check(scope, error);
}

static cudaError_t issue_plain(struct kvbi_cuda_copier *copier, struct kvbi_cuda_scope *scope,
                               bool to_device, cudaStream_t stream)
{
    enum cudaMemcpyKind kind = to_device ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToHost;
    cudaError_t error = cudaSuccess;
    for (uint32_t i = 0; error == cudaSuccess && i < copier->count; i++)
        error = count_one(
            copier, scope,
            cudaMemcpyAsync(copier->to[i], copier->from[i], copier->bytes[i], kind, stream));
    return error;
}

static bool all_small(const struct kvbi_cuda_copier *copier)
{
    for (uint32_t i = 0; i < copier->count; i++)
        if (copier->bytes[i] > OVERLAP_BYTES)
            return false;
    return true;
}

/*
 * A source on the device is read in stream order: what a ticket stands for comes before it. One in
 * host memory is complete before the call and unchanged until the host has seen the copy end, so it
 * may be read at any time.
 */
static cudaError_t issue_batch(struct kvbi_cuda_copier *copier, struct kvbi_cuda_scope *scope,
                               bool to_device, cudaStream_t stream)
{
#if CUDART_VERSION >= 12080
    struct cudaMemLocation device = {.type = cudaMemLocationTypeDevice, .id = copier->cuda->device};
    struct cudaMemLocation host = {.type = cudaMemLocationTypeHost};
    struct cudaMemcpyAttributes attributes = {
        .srcAccessOrder = to_device ? cudaMemcpySrcAccessOrderAny : cudaMemcpySrcAccessOrderStream,
        .srcLocHint = to_device ? host : device,
        .dstLocHint = to_device ? device : host,
        .flags =
            all_small(copier) ? cudaMemcpyFlagPreferOverlapWithCompute : cudaMemcpyFlagDefault};
    size_t first = 0;
#if CUDART_VERSION >= 13000
    return count_one(copier, scope,
                     cudaMemcpyBatchAsync((void *const *)copier->to,
                                          (const void *const *)copier->from, copier->bytes,
                                          copier->count, &attributes, &first, 1, stream));
#else /* not tested: by the signature of CUDA 12.8 */
    size_t failed = 0;
    return count_one(copier, scope,
                     cudaMemcpyBatchAsync(copier->to, (void **)copier->from, copier->bytes,
                                          copier->count, &attributes, &first, 1, &failed, stream));
#endif
#else
    (void)copier, (void)to_device, (void)stream, (void)all_small;
    return kvbi_cuda_check(scope, cudaErrorNotSupported);
#endif
}

/* ---- Chunks one by one ----------------------------------------------------------------------- */

struct collecting {
    struct kvbi_cuda_copier *copier;
    struct kvbi_cuda_scope *scope;
    bool batch, to_device;
    cudaStream_t stream;
    const void *device_memory,
        *registration; /* where the last chunk is: beyond either a copy does not go */
};

static cudaError_t flush(const struct collecting *collecting)
{
    struct kvbi_cuda_copier *copier = collecting->copier;
    cudaError_t error = cudaSuccess;
    if (copier->count > 0)
        error =
            collecting->batch
                ? issue_batch(copier, collecting->scope, collecting->to_device, collecting->stream)
                : issue_plain(copier, collecting->scope, collecting->to_device, collecting->stream);
    copier->count = 0;
    return error;
}

static cudaError_t add(const struct collecting *collecting, unsigned char *to,
                       const unsigned char *from, size_t bytes, bool same_memory)
{
    struct kvbi_cuda_copier *copier = collecting->copier;
    uint32_t last = copier->count - 1;
    if (copier->count > 0 && same_memory &&
        (unsigned char *)copier->to[last] + copier->bytes[last] == to &&
        (const unsigned char *)copier->from[last] + copier->bytes[last] == from) {
        copier->bytes[last] += bytes;
        return cudaSuccess;
    }
    cudaError_t error = copier->count == KVBI_CUDA_BATCH_MAX ? flush(collecting) : cudaSuccess;
    copier->to[copier->count] = to;
    copier->from[copier->count] = from;
    copier->bytes[copier->count++] = bytes;
    return error;
}

static cudaError_t add_chunk(struct collecting *collecting, const struct kvbi_cuda_pair *pair,
                             uint32_t layer, uint32_t part)
{
    const struct kvbi_cuda_copier *copier = collecting->copier;
    const struct kvbi_strides *strides = copier->strides;
    unsigned char *device = kvbi_strides_chunk(strides, copier->base, pair->slot, layer, part);
    unsigned char *host = pair->host + ((uint64_t)layer * strides->parts + part) * strides->chunk;
    const void *memory = strides->bases != NULL ? strides->bases[layer] : copier->base;
    bool same_memory =
        memory == collecting->device_memory && pair->registration == collecting->registration;
    collecting->device_memory = memory;
    collecting->registration = pair->registration;
    return collecting->to_device ? add(collecting, device, host, strides->chunk, same_memory)
                                 : add(collecting, host, device, strides->chunk, same_memory);
}

static cudaError_t copy_chunks(struct collecting *collecting, const struct kvbi_cuda_load *load)
{
    cudaError_t error = cudaSuccess;
    collecting->copier->count = 0;
    for (uint32_t i = 0; i < load->count; i++)
        for (uint32_t layer = load->first; layer < load->first + load->layers; layer++)
            for (uint32_t part = 0;
                 error == cudaSuccess && part < collecting->copier->strides->parts; part++)
                error = add_chunk(collecting, &load->pairs[i], layer, part);
    return error == cudaSuccess ? flush(collecting) : error;
}

/* ---- Rectangles ------------------------------------------------------------------------------ */

/* Rows of one chunk, in planes: one side of a copy. */
struct side {
    unsigned char *start;
    uint64_t pitch, plane; /* from row to row, from plane to plane; plane is a multiple of pitch */
};

static struct cudaPitchedPtr pitched(const struct side *side, uint64_t width)
{
    return (struct cudaPitchedPtr){.ptr = side->start,
                                   .pitch = side->pitch,
                                   .xsize = width,
                                   .ysize = side->plane / side->pitch};
}

static cudaError_t copy_rows(struct kvbi_cuda_copier *copier, struct kvbi_cuda_scope *scope,
                             const struct side *device, const struct side *host, uint64_t width,
                             uint32_t rows, uint32_t planes, bool to_device, cudaStream_t stream)
{
    const struct side *to = to_device ? device : host, *from = to_device ? host : device;
    enum cudaMemcpyKind kind = to_device ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToHost;
    if (planes == 1)
        return count_one(copier, scope,
                         cudaMemcpy2DAsync(to->start, to->pitch, from->start, from->pitch, width,
                                           rows, kind, stream));
    struct cudaMemcpy3DParms box = {.srcPtr = pitched(from, width),
                                    .dstPtr = pitched(to, width),
                                    .extent = {.width = width, .height = rows, .depth = planes},
                                    .kind = kind};
    return count_one(copier, scope, cudaMemcpy3DAsync(&box, stream));
}

/* Are all chunks of a block at one distance? */
static bool is_flat(const struct kvbi_strides *s)
{
    return s->bases == NULL && (s->parts == 1 || s->layer == s->parts * s->part);
}

/* Are its layers planes of parts? */
static bool is_box(const struct kvbi_strides *s)
{
    return s->bases == NULL && s->layer % s->part == 0 && s->layer / s->part >= s->parts;
}

/* A block as one rectangle of layers x parts rows, or as a box, or layer by layer. */
static cudaError_t copy_block(struct kvbi_cuda_copier *copier, struct kvbi_cuda_scope *scope,
                              const struct kvbi_cuda_pair *pair, const struct kvbi_cuda_load *load,
                              cudaStream_t stream)
{
    const struct kvbi_strides *s = copier->strides;
    uint64_t host_layer = (uint64_t)s->parts * s->chunk;
    struct side device = {kvbi_strides_chunk(s, copier->base, pair->slot, load->first, 0),
                          s->parts > 1 ? s->part : s->layer, s->layer};
    struct side host = {pair->host + load->first * host_layer, s->chunk, host_layer};
    if (load->layers == 1)
        device.pitch = s->part;
    if (load->layers == 1 || is_flat(s))
        return copy_rows(copier, scope, &device, &host, s->chunk, load->layers * s->parts, 1,
                         load->to_device, stream);
    if (is_box(s))
        return copy_rows(copier, scope, &device, &host, s->chunk, s->parts, load->layers,
                         load->to_device, stream);
    cudaError_t error = cudaSuccess;
    for (uint32_t layer = load->first; error == cudaSuccess && layer < load->first + load->layers;
         layer++) {
        device =
            (struct side){kvbi_strides_chunk(s, copier->base, pair->slot, layer, 0), s->part, 0};
        host.start = pair->host + layer * host_layer;
        error = copy_rows(copier, scope, &device, &host, s->chunk, s->parts, 1, load->to_device,
                          stream);
    }
    return error;
}

/* ---- The kernel ------------------------------------------------------------------------------ */

static cudaError_t copy_by_kernel(struct kvbi_cuda_copier *copier, struct kvbi_cuda_scope *scope,
                                  const struct kvbi_cuda_load *load, cudaStream_t stream)
{
    const struct kvbi_strides *strides = copier->strides;
    cudaError_t error = cudaSuccess;
    for (uint32_t begin = 0; error == cudaSuccess && begin < load->count;
         begin += KVBI_GATHER_BLOCKS_MAX) {
        struct kvbi_gather gather = {.base = copier->base,
                                     .bases = copier->bases_on_device,
                                     .chunk = strides->chunk,
                                     .layer_stride = strides->layer,
                                     .part_stride = strides->part,
                                     .block_stride = strides->block,
                                     .first_layer = load->first,
                                     .layers = load->layers,
                                     .parts = strides->parts,
                                     .to_device = load->to_device,
                                     .grid = copier->grids[load->to_device]};
        for (; gather.count < KVBI_GATHER_BLOCKS_MAX && begin + gather.count < load->count;
             gather.count++) {
            gather.slots[gather.count] = load->pairs[begin + gather.count].slot;
            gather.host[gather.count] = load->pairs[begin + gather.count].host;
        }
        error = count_one(copier, scope, kvbi_gather_launch(&gather, stream));
    }
    return error;
}

cudaError_t kvbi_cuda_upload_bases(struct kvbi_cuda_scope *scope,
                                   const struct kvbi_strides *strides, unsigned char ***on_device,
                                   cudaStream_t stream)
{
    void *table = NULL, *staged = NULL;
    size_t bytes = strides->layers * sizeof *strides->bases;
    if (strides->bases == NULL)
        return cudaSuccess;
    cudaError_t error = kvbi_cuda_check(scope, cudaMalloc(&table, bytes));
    *on_device = table;
    if (error == cudaSuccess)
        error = kvbi_cuda_check(scope, cudaHostAlloc(&staged, bytes, cudaHostAllocPortable));
    if (error == cudaSuccess)
        memcpy(staged, strides->bases, bytes);
    if (error == cudaSuccess)
        error = kvbi_cuda_check(
            scope, cudaMemcpyAsync(table, staged, bytes, cudaMemcpyHostToDevice, stream));
    if (error == cudaSuccess)
        error = kvbi_cuda_check(scope, cudaStreamSynchronize(stream));
    if (staged != NULL)
        (void)kvbi_cuda_check(scope, cudaFreeHost(staged));
    return error;
}

/* ---- All of them ----------------------------------------------------------------------------- */

cudaError_t kvbi_cuda_copy(struct kvbi_cuda_copier *copier, struct kvbi_cuda_scope *scope,
                           enum kvb_copy_method method, const struct kvbi_cuda_load *load,
                           cudaStream_t stream)
{
    struct collecting collecting = {.copier = copier,
                                    .scope = scope,
                                    .batch = method == KVB_COPY_BATCH,
                                    .to_device = load->to_device,
                                    .stream = stream};
    cudaError_t error = cudaSuccess;
    switch (method) {
    case KVB_COPY_KERNEL:
        return copy_by_kernel(copier, scope, load, stream);
    case KVB_COPY_RECT:
        for (uint32_t i = 0; error == cudaSuccess && i < load->count; i++)
            error = copy_block(copier, scope, &load->pairs[i], load, stream);
        return error;
    default:
        return copy_chunks(&collecting, load);
    }
}

/* Of one block, joined as far as its own chunks are neighbours. */
static uint64_t runs_of_block(const struct kvbi_strides *s, uint32_t layers)
{
    bool parts_joined = s->parts == 1 || s->part == s->chunk;
    bool layers_joined = s->bases == NULL && parts_joined && s->layer == s->parts * s->chunk;
    return layers_joined ? 1 : (uint64_t)layers * (parts_joined ? 1 : s->parts);
}

uint64_t kvbi_cuda_copy_entries(const struct kvbi_cuda_copier *copier, enum kvb_copy_method method,
                                uint32_t blocks, uint32_t layers)
{
    const struct kvbi_strides *s = copier->strides;
    uint64_t runs = blocks * runs_of_block(s, layers);
    switch (method) {
    case KVB_COPY_KERNEL:
        return (blocks + KVBI_GATHER_BLOCKS_MAX - 1) / KVBI_GATHER_BLOCKS_MAX;
    case KVB_COPY_RECT:
        return (uint64_t)blocks * (layers == 1 || is_flat(s) || is_box(s) ? 1 : layers);
    case KVB_COPY_BATCH:
        return (runs + KVBI_CUDA_BATCH_MAX - 1) / KVBI_CUDA_BATCH_MAX;
    default:
        return runs;
    }
}

/* ---- What can be had ------------------------------------------------------------------------- */

/* Every address and stride that the kernel computes is a multiple of what it moves at a time. */
static bool kernel_possible(const struct kvbi_cuda_copier *copier, struct kvbi_cuda_scope *scope)
{
    const struct kvbi_strides *s = copier->strides;
    uint64_t bits =
        s->chunk | (s->parts > 1 ? s->part : 0) | (s->layers > 1 ? s->layer : 0) | s->block;
    for (uint32_t i = 0; i < (s->bases != NULL ? s->layers : 0); i++)
        bits |= (uintptr_t)s->bases[i];
    int same_pointer = 0;
    cudaError_t error = kvbi_cuda_check(
        scope, cudaDeviceGetAttribute(&same_pointer, cudaDevAttrCanUseHostPointerForRegisteredMem,
                                      copier->cuda->device));
    return kvbi_gather_available() &&
           ((bits | (uintptr_t)copier->base) & (KVBI_GATHER_ALIGNMENT - 1)) == 0 &&
           error == cudaSuccess && same_pointer != 0;
}

static bool pitches_fit(const struct kvbi_cuda_copier *copier, struct kvbi_cuda_scope *scope)
{
    const struct kvbi_strides *s = copier->strides;
    int most = 0;
    cudaError_t error = kvbi_cuda_check(
        scope, cudaDeviceGetAttribute(&most, cudaDevAttrMaxPitch, copier->cuda->device));
    return error == cudaSuccess && (s->parts == 1 || s->part <= (uint64_t)most) &&
           (s->parts > 1 || s->bases != NULL || s->layer <= (uint64_t)most);
}

static bool has_batches(struct kvbi_cuda_scope *scope)
{
    int driver = 0;
    (void)kvbi_cuda_check(scope, cudaDriverGetVersion(&driver));
    return driver >= BATCH_VERSION && CUDART_VERSION >= BATCH_VERSION;
}

bool kvbi_cuda_method_possible(const struct kvbi_cuda_copier *copier, struct kvbi_cuda_scope *scope,
                               enum kvb_copy_method method)
{
    switch (method) {
    case KVB_COPY_BATCH:
        return has_batches(scope);
    case KVB_COPY_RECT:
        return pitches_fit(copier, scope);
    case KVB_COPY_KERNEL:
        return kernel_possible(copier, scope);
    default:
        return true;
    }
}

bool kvbi_cuda_method_works(const struct kvbi_cuda_copier *copier, enum kvb_copy_method method)
{
    switch (method) {
    case KVB_COPY_BATCH:
        return copier->batch;
    case KVB_COPY_RECT:
        return copier->rect;
    case KVB_COPY_KERNEL:
        return copier->kernel;
    default:
        return true;
    }
}

const char *kvbi_cuda_method_name(enum kvb_copy_method method)
{
    static const char *const names[] = {"auto", "plain", "rect", "batch", "kernel"};
    return names[method];
}
