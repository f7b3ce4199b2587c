/* SPDX-License-Identifier: Apache-2.0 */
/*
 * calibrate - what works on this GPU with this driver and this layout, and what is fastest. See
 * copies.h.
 *
 * Why        which method wins depends on chunk size, count, device and driver (docs/gpu.md);
 *            measured here it needs no table that is wrong on the next GPU. The measurement is on
 *            memory of its own: the tier's may be the caller's, who may be using it.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "transfer/cuda/copies.h"
#include "transfer/cuda/cuda.h"

/*
 * As much as fits into a batch of large blocks. At 50 GB/s it takes a third of a millisecond, each
 * way.
 */
#define SCRATCH_BYTES ((uint64_t)16 << 20)
#define BLOCKS_MAX 32u
#define ROUNDS 3
/*
 * No copy begins once it is over. A method that takes twice as long as the best is measured once
 * and no more.
 */
#define BUDGET_NS UINT64_C(30000000)
/* What knows batches (CUDA 12.8). */
#define BATCH_DRIVER 12080

struct scratch {
    struct kvbi_cuda_copier *copier;
    struct kvbi_cuda_scope *scope;
    struct kvbi_strides strides;
    uint64_t block_bytes;
    unsigned char *device;
    unsigned char **bases_on_device;
    void *host;
    cudaStream_t stream;
    uint32_t blocks;
    /* the end of a copy could not be waited for: the memory is not to be touched again */
    bool broken;
    struct kvbi_cuda_pair pairs[BLOCKS_MAX];
};

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* ---- Memory like the tier's, only smaller ---------------------------------------------------- */

/*
 * Large blocks: fewer layers, and chunks of which less is copied. How large they are decides
 * nothing any more by then.
 */
static void clip(struct kvbi_strides *strides)
{
    uint64_t chunk = SCRATCH_BYTES / strides->parts / KVBI_GATHER_ALIGNMENT * KVBI_GATHER_ALIGNMENT;
    if (chunk < KVBI_GATHER_ALIGNMENT)
        chunk = KVBI_GATHER_ALIGNMENT;
    if (strides->chunk > chunk)
        strides->chunk = chunk;
    uint64_t layers = SCRATCH_BYTES / (strides->parts * strides->chunk);
    if (strides->layers > layers)
        strides->layers = layers > 0 ? (uint32_t)layers : 1;
}

/*
 * These strides with `blocks` blocks: in the same order, next to each other where they are so
 * there, with a gap of one chunk where they are not. Layers with bases of their own become the
 * outermost dimension, and are given bases again.
 */
static void shrink(const struct kvbi_strides *from, uint32_t blocks, struct kvbi_strides *to)
{
    struct {
        uint64_t from, *to;
        uint32_t count;
    } sorted[3] = {{from->part, &to->part, from->parts},
                   {from->layer, &to->layer, from->layers},
                   {from->block, &to->block, blocks}};
    *to = (struct kvbi_strides){.layers = from->layers, .parts = from->parts, .chunk = from->chunk};
    if (from->bases != NULL)
        sorted[1].from = UINT64_MAX;
    for (int i = 1; i < 3; i++)
        for (int j = i; j > 0 && sorted[j].from < sorted[j - 1].from; j--) {
            __typeof__(sorted[0]) swap = sorted[j];
            sorted[j] = sorted[j - 1];
            sorted[j - 1] = swap;
        }
    uint64_t here = from->chunk, there = from->chunk;
    for (int i = 0; i < 3; i++) {
        *sorted[i].to = sorted[i].from == there ? here : here + from->chunk;
        there = sorted[i].from * (sorted[i].count - 1) + there;
        here = *sorted[i].to * (sorted[i].count - 1) + here;
    }
    to->span_bytes = here;
}

/*
 * Where the tier's layers have bases, the scratch's have them, too: copies are cut there, and the
 * kernel looks them up.
 */
static cudaError_t take_bases(struct scratch *scratch)
{
    struct kvbi_strides *strides = &scratch->strides;
    if (scratch->copier->strides->bases == NULL)
        return cudaSuccess;
    strides->bases = kvbi_memory_alloc(scratch->copier->cuda->memory, strides->layers,
                                       sizeof *strides->bases, 0);
    if (strides->bases == NULL)
        return cudaErrorMemoryAllocation;
    for (uint32_t i = 0; i < strides->layers; i++)
        strides->bases[i] = scratch->device + i * strides->layer;
    return cudaSuccess;
}

static cudaError_t take_scratch(struct scratch *scratch)
{
    struct kvbi_cuda_scope *scope = scratch->scope;
    struct kvbi_strides clipped = *scratch->copier->strides;
    void *device = NULL;
    clip(&clipped);
    scratch->block_bytes = (uint64_t)clipped.layers * clipped.parts * clipped.chunk;
    uint64_t blocks = SCRATCH_BYTES / scratch->block_bytes;
    scratch->blocks = blocks < 1 ? 1 : blocks > BLOCKS_MAX ? BLOCKS_MAX : (uint32_t)blocks;
    shrink(&clipped, scratch->blocks, &scratch->strides);
    cudaError_t error = kvbi_cuda_check(scope, cudaMalloc(&device, scratch->strides.span_bytes));
    scratch->device = device;
    if (error == cudaSuccess)
        error = kvbi_cuda_check(scope, cudaHostAlloc(&scratch->host,
                                                     scratch->blocks * scratch->block_bytes,
                                                     cudaHostAllocPortable | cudaHostAllocMapped));
    return error == cudaSuccess ? take_bases(scratch) : error;
}

/* Every other slot: neighbours would be joined, which lanes cannot count on. */
static void make_pairs(struct scratch *scratch)
{
    for (uint32_t i = 0; i < scratch->blocks; i++)
        scratch->pairs[i] = (struct kvbi_cuda_pair){
            .slot = i / 2 + (i % 2) * ((scratch->blocks + 1) / 2),
            .host = (unsigned char *)scratch->host + i * scratch->block_bytes};
}

static void give_scratch(struct scratch *scratch)
{
    if (scratch->stream != NULL) {
        (void)kvbi_cuda_check(scratch->scope, cudaStreamSynchronize(scratch->stream));
        (void)kvbi_cuda_check(scratch->scope, cudaStreamDestroy(scratch->stream));
    }
    if (scratch->host != NULL)
        (void)kvbi_cuda_check(scratch->scope, cudaFreeHost(scratch->host));
    if (scratch->bases_on_device != NULL)
        (void)kvbi_cuda_check(scratch->scope, cudaFree(scratch->bases_on_device));
    if (scratch->device != NULL)
        (void)kvbi_cuda_check(scratch->scope, cudaFree(scratch->device));
    if (scratch->strides.bases != NULL)
        kvbi_memory_free(scratch->copier->cuda->memory, scratch->strides.bases,
                         scratch->strides.layers, sizeof *scratch->strides.bases);
}

/* ---- Trying ---------------------------------------------------------------------------------- */

/* How long a batch takes, from the call to its end; UINT64_MAX: it does not work. */
static uint64_t time_once(struct scratch *scratch, enum kvb_copy_method method, bool to_device)
{
    struct kvbi_cuda_copier *copier = scratch->copier;
    if (scratch->broken)
        return UINT64_MAX;
    struct kvbi_cuda_load load = {.pairs = scratch->pairs,
                                  .count = scratch->blocks,
                                  .layers = scratch->strides.layers,
                                  .to_device = to_device};
    const struct kvbi_strides *strides = copier->strides;
    unsigned char *base = copier->base, **bases = copier->bases_on_device;
    copier->strides = &scratch->strides;
    copier->base = scratch->device;
    copier->bases_on_device = scratch->bases_on_device;
    uint64_t start = now_ns();
    cudaError_t error = kvbi_cuda_copy(copier, scratch->scope, method, &load, scratch->stream);
    cudaError_t end = kvbi_cuda_check(scratch->scope, cudaStreamSynchronize(scratch->stream));
    uint64_t took = now_ns() - start;
    scratch->broken = end != cudaSuccess;
    copier->strides = strides;
    copier->base = base;
    copier->bases_on_device = bases;
    return error == cudaSuccess && end == cudaSuccess ? took : UINT64_MAX;
}

/* One that nobody has asked for is not tried for longer than the calibration may take. */
static void try_one(struct scratch *scratch, enum kvb_copy_method method, uint64_t give_up_ns,
                    bool *works)
{
    *works = *works && now_ns() < give_up_ns && time_once(scratch, method, false) != UINT64_MAX &&
             time_once(scratch, method, true) != UINT64_MAX;
}

/* Not the worst anywhere. */
static enum kvb_copy_method unmeasured(const struct kvbi_cuda_copier *copier)
{
    return copier->batch ? KVB_COPY_BATCH : KVB_COPY_PLAIN;
}

static enum kvb_copy_method fastest(struct scratch *scratch, bool to_device, uint64_t give_up_ns)
{
    static const enum kvb_copy_method methods[] = {KVB_COPY_BATCH, KVB_COPY_PLAIN, KVB_COPY_KERNEL,
                                                   KVB_COPY_RECT};
    enum kvb_copy_method best = unmeasured(scratch->copier);
    uint64_t best_ns = UINT64_MAX;
    for (size_t m = 0; m < sizeof methods / sizeof *methods; m++) {
        if (!kvbi_cuda_method_works(scratch->copier, methods[m]))
            continue;
        for (int round = 0; round < ROUNDS && now_ns() < give_up_ns; round++) {
            uint64_t took = time_once(scratch, methods[m], to_device);
            bool hopeless = took / 2 > best_ns;
            if (took < best_ns) {
                best_ns = took;
                best = methods[m];
            }
            if (hopeless)
                break;
        }
    }
    return best;
}

/* One way must not use up the other's time. */
static void choose(struct scratch *scratch, uint64_t give_up_ns)
{
    struct kvbi_cuda_copier *copier = scratch->copier;
    uint64_t now = now_ns();
    copier->methods[0] =
        fastest(scratch, false, now < give_up_ns ? now + (give_up_ns - now) / 2 : now);
    copier->methods[1] = fastest(scratch, true, give_up_ns);
}

/* ---- What the layout and the GPU allow ------------------------------------------------------- */

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

/* The kernel reads the layers' bases from the device's memory. */
static cudaError_t upload_bases(struct kvbi_cuda_scope *scope, const struct kvbi_strides *strides,
                                unsigned char ***on_device, cudaStream_t stream)
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

static int refuse_tables(const struct scratch *scratch, cudaError_t error, char *message,
                         size_t message_bytes)
{
    (void)snprintf(message, message_bytes,
                   "tiers[DEVICE]: CUDA device %d has no room for tables: %s (%d)",
                   scratch->copier->cuda->device, cudaGetErrorName(error), (int)error);
    return error == cudaErrorMemoryAllocation ? KVB_ENOMEM : KVB_EDEVICE;
}

/* What may work, for all that is known before it is tried. */
static int find_possible(struct scratch *scratch, enum kvb_copy_method method, char *message,
                         size_t message_bytes)
{
    struct kvbi_cuda_copier *copier = scratch->copier;
    bool all = method == KVB_COPY_AUTO;
    int driver = 0;
    (void)kvbi_cuda_check(scratch->scope, cudaDriverGetVersion(&driver));
    copier->batch = (all || method == KVB_COPY_BATCH) && driver >= BATCH_DRIVER &&
                    CUDART_VERSION >= BATCH_DRIVER;
    copier->rect = (all || method == KVB_COPY_RECT) && pitches_fit(copier, scratch->scope);
    copier->kernel = (all || method == KVB_COPY_KERNEL) && kernel_possible(copier, scratch->scope);
    cudaError_t error = kvbi_cuda_check(
        scratch->scope, cudaStreamCreateWithFlags(&scratch->stream, cudaStreamNonBlocking));
    if (error == cudaSuccess && copier->kernel)
        error = upload_bases(scratch->scope, copier->strides, &copier->bases_on_device,
                             scratch->stream);
    if (error == cudaErrorMemoryAllocation && all) {
        copier->kernel = false; /* without its table */
        return 0;
    }
    return error != cudaSuccess ? refuse_tables(scratch, error, message, message_bytes) : 0;
}

/*
 * What does. Without room to try it in, what may work is believed: a flight that its method refuses
 * is made chunk by chunk.
 */
static int find_methods(struct scratch *scratch, enum kvb_copy_method method, char *message,
                        size_t message_bytes)
{
    struct kvbi_cuda_copier *copier = scratch->copier;
    cudaError_t error = scratch->stream != NULL ? take_scratch(scratch) : cudaErrorMemoryAllocation;
    if (error == cudaSuccess && copier->kernel)
        error = upload_bases(scratch->scope, &scratch->strides, &scratch->bases_on_device,
                             scratch->stream);
    if (error != cudaSuccess && error != cudaErrorMemoryAllocation)
        return refuse_tables(scratch, error, message, message_bytes);
    copier->methods[0] = copier->methods[1] = method != KVB_COPY_AUTO ? method : unmeasured(copier);
    if (error != cudaSuccess)
        return 0;
    /* Whether what the caller has named works is not a matter of time. */
    uint64_t give_up_ns = method == KVB_COPY_AUTO ? now_ns() + BUDGET_NS : UINT64_MAX;
    make_pairs(scratch);
    try_one(scratch, KVB_COPY_BATCH, give_up_ns, &copier->batch);
    try_one(scratch, KVB_COPY_RECT, give_up_ns, &copier->rect);
    try_one(scratch, KVB_COPY_KERNEL, give_up_ns, &copier->kernel);
    if (method == KVB_COPY_AUTO)
        choose(scratch, give_up_ns);
    return 0;
}

static int refuse_method(enum kvb_copy_method method, char *message, size_t message_bytes)
{
    (void)snprintf(message, message_bytes,
                   "tiers[DEVICE].copy_method: %s does not work here (driver, layout or build)",
                   kvbi_cuda_method_name(method));
    return KVB_EUNSUPPORTED;
}

int kvbi_cuda_copier_create(struct kvbi_cuda_copier *copier, struct kvbi_cuda *cuda,
                            unsigned char *base, enum kvb_copy_method method, char *message,
                            size_t message_bytes)
{
    struct kvbi_cuda_scope scope;
    struct scratch scratch = {.copier = copier, .scope = &scope};
    *copier = (struct kvbi_cuda_copier){.cuda = cuda, .strides = &cuda->strides, .base = base};
    kvbi_cuda_enter(cuda, &scope);
    int error = find_possible(&scratch, method, message, message_bytes);
    if (error == 0)
        error = find_methods(&scratch, method, message, message_bytes);
    if (error == 0 && !kvbi_cuda_method_works(copier, method))
        error = refuse_method(method, message, message_bytes);
    give_scratch(&scratch);
    kvbi_cuda_leave(&scope);
    if (scratch.broken || kvbi_cuda_lost(cuda)) {
        (void)snprintf(message, message_bytes, "tiers[DEVICE]: copies on CUDA device %d do not end",
                       cuda->device);
        if (kvbi_cuda_lost(cuda))
            kvbi_cuda_why(cuda, message, message_bytes);
        error = KVB_EDEVICE;
    }
    if (error != 0)
        kvbi_cuda_copier_destroy(copier);
    return error;
}

void kvbi_cuda_copier_destroy(struct kvbi_cuda_copier *copier)
{
    struct kvbi_cuda_scope scope;
    if (copier->bases_on_device == NULL || kvbi_cuda_context_lost(copier->cuda))
        return;
    kvbi_cuda_enter(copier->cuda, &scope);
    (void)kvbi_cuda_check(&scope, cudaFree(copier->bases_on_device));
    kvbi_cuda_leave(&scope);
    copier->bases_on_device = NULL;
}
