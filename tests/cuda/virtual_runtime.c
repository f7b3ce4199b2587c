/* SPDX-License-Identifier: Apache-2.0 */
/* virtual_runtime - see virtual_runtime.h. */
#include "cuda/virtual_runtime.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "transfer/cuda/gather.h"

static struct virtual_costs costs;
static struct virtual_books books;
static double clock_us, gpu_us; /* now, and until when the GPU has work */
static uint64_t chunk;
static bool loaded[VIRTUAL_METHODS];
static uint32_t waiting_chunks; /* called and not waited for */
static int waiting_method;

/* ---- Costs ----------------------------------------------------------------------------------- */

static double published_piece_us(uint64_t bytes, bool to_device)
{
    double gbps = 55;
    if (to_device)
        gbps = bytes < 28 << 10 ? 6.8 : bytes < 64 << 10 ? 40 : bytes < 1 << 20 ? 50 : 55;
    double us = (double)bytes / gbps / 1e3;
    return us < 0.6 ? 0.6 : us;
}

static double flat_piece_us(uint64_t bytes, bool to_device)
{
    (void)to_device;
    return (double)bytes / 10e3;
}

struct virtual_costs virtual_published(void)
{
    return (struct virtual_costs){
        .call_us = {[KVB_COPY_PLAIN] = 2.3,
                    [KVB_COPY_RECT] = 3.5,
                    [KVB_COPY_BATCH] = 4,
                    [KVB_COPY_KERNEL] = 4},
        .descriptor_us = 0.5,
        .synchronize_us = 5,
        .loading_ms = {[KVB_COPY_PLAIN] = 0.3, [KVB_COPY_BATCH] = 1, [KVB_COPY_KERNEL] = 3},
        .piece_us = published_piece_us,
        .slowness = {1, 1, 1, 1, 1},
        .start_us = 6,
        .block_gbps = 48,
        .link_gbps = 50,
        .malloc_us = 50,
        .pinned_us_per_mib = 100,
        .multiprocessors = 132,
        .driver = 13000};
}

struct virtual_costs virtual_flat(void)
{
    return (struct virtual_costs){.piece_us = flat_piece_us,
                                  .slowness = {1, 1, 1, 1, 1},
                                  .block_gbps = 10,
                                  .link_gbps = 10,
                                  .multiprocessors = 132,
                                  .driver = 13000};
}

void virtual_start(const struct virtual_costs *with, uint64_t chunk_bytes)
{
    costs = *with;
    chunk = chunk_bytes;
    clock_us = clock_us + 1e6;
    gpu_us = 0;
    waiting_chunks = 0;
    for (int i = 0; i < VIRTUAL_METHODS; i++)
        loaded[i] = false;
    books = (struct virtual_books){.began_us = clock_us};
}

const struct virtual_books *virtual_books(void)
{
    return &books;
}

double virtual_elapsed_us(void)
{
    return clock_us - books.began_us;
}

/* ---- Time ------------------------------------------------------------------------------------ */

int clock_gettime(clockid_t id, struct timespec *now)
{
    (void)id;
    double seconds = (double)(time_t)(clock_us / 1e6);
    now->tv_sec = (time_t)seconds;
    now->tv_nsec = (long)((clock_us - seconds * 1e6) * 1e3);
    return 0;
}

static bool refused(enum kvb_copy_method method, uint32_t chunks, bool to_device)
{
    return (to_device || !costs.only_up) && costs.chunks_max[method] > 0 &&
           chunks > costs.chunks_max[method];
}

/* The CPU's part of a copy's call, and what the books say of it. */
static void call(enum kvb_copy_method method, uint32_t chunks)
{
    books.copies[method]++;
    books.last_call_us = clock_us;
    waiting_chunks += chunks;
    waiting_method = (int)method;
    clock_us += loaded[method] ? 0 : costs.loading_ms[method] * 1e3;
    loaded[method] = true;
    clock_us += costs.call_us[method];
}

static void queue_on_gpu(enum kvb_copy_method method, double us)
{
    gpu_us = (gpu_us > clock_us ? gpu_us : clock_us) + us * costs.slowness[method];
}

static uint32_t chunks_of(uint64_t bytes)
{
    return (uint32_t)((bytes + chunk - 1) / chunk);
}

/* ---- Copies ---------------------------------------------------------------------------------- */

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    (void)to, (void)from, (void)stream;
    call(KVB_COPY_PLAIN, chunks_of(bytes));
    queue_on_gpu(KVB_COPY_PLAIN, costs.piece_us(bytes, kind == cudaMemcpyHostToDevice));
    return cudaSuccess;
}

static void copy_rows(uint64_t width, uint64_t rows, enum cudaMemcpyKind kind)
{
    call(KVB_COPY_RECT, (uint32_t)rows * chunks_of(width));
    queue_on_gpu(KVB_COPY_RECT,
                 (double)rows * costs.piece_us(width, kind == cudaMemcpyHostToDevice));
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                              size_t width, size_t height, enum cudaMemcpyKind kind,
                              cudaStream_t stream)
{
    (void)to, (void)to_pitch, (void)from, (void)from_pitch, (void)stream;
    copy_rows(width, height, kind);
    return cudaSuccess;
}

cudaError_t cudaMemcpy3DAsync(const struct cudaMemcpy3DParms *box, cudaStream_t stream)
{
    (void)stream;
    copy_rows(box->extent.width, box->extent.height * box->extent.depth, box->kind);
    return cudaSuccess;
}

cudaError_t cudaMemcpyBatchAsync(void *const *to, const void *const *from, const size_t *bytes,
                                 size_t count, struct cudaMemcpyAttributes *attributes,
                                 size_t *first, size_t attribute_count, cudaStream_t stream)
{
    (void)to, (void)from, (void)first, (void)attribute_count, (void)stream;
    bool to_device = attributes->srcAccessOrder == cudaMemcpySrcAccessOrderAny;
    uint32_t chunks = 0;
    for (size_t i = 0; i < count; i++)
        chunks += chunks_of(bytes[i]);
    call(KVB_COPY_BATCH, chunks);
    if (refused(KVB_COPY_BATCH, chunks, to_device))
        return cudaErrorNotSupported;
    double preparing_us = costs.descriptor_us * (double)count;
    clock_us += costs.overlap ? 0 : preparing_us;
    for (size_t i = 0; i < count; i++)
        queue_on_gpu(KVB_COPY_BATCH, costs.piece_us(bytes[i], to_device));
    clock_us += costs.overlap ? preparing_us : 0;
    return cudaSuccess;
}

bool kvbi_gather_available(void)
{
    return true;
}

cudaError_t kvbi_gather_launch(const struct kvbi_gather *g, cudaStream_t stream)
{
    (void)stream;
    if (g->grid == 0 || g->grid > VIRTUAL_GRID_MAX)
        return cudaErrorInvalidConfiguration;
    double gbps = g->grid * costs.block_gbps;
    uint32_t chunks = g->count * g->layers * g->parts;
    books.launches[g->grid]++;
    call(KVB_COPY_KERNEL, chunks);
    if (refused(KVB_COPY_KERNEL, chunks, g->to_device != 0))
        return cudaErrorInvalidValue;
    gbps = gbps < costs.link_gbps ? gbps : costs.link_gbps;
    queue_on_gpu(KVB_COPY_KERNEL, costs.start_us + (double)chunks * (double)g->chunk / gbps / 1e3);
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    (void)stream;
    clock_us = (gpu_us > clock_us ? gpu_us : clock_us) + costs.synchronize_us;
    if (waiting_chunks > 0)
        books.trials[waiting_method]++;
    if (waiting_chunks > books.trial_chunks_max)
        books.trial_chunks_max = waiting_chunks;
    waiting_chunks = 0;
    return cudaSuccess;
}

/* ---- Memory ---------------------------------------------------------------------------------- */

/* In front of what is given out: what it has cost and will again. */
union header {
    double us;
    max_align_t alignment;
    unsigned char room[64];
};

static cudaError_t take(void **memory, size_t bytes, double us)
{
    union header *header = aligned_alloc(64, sizeof *header + (bytes + 63) / 64 * 64);
    if (header == NULL)
        return cudaErrorMemoryAllocation;
    header->us = us;
    clock_us += us;
    books.allocations++;
    *memory = header + 1;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **memory, size_t bytes)
{
    return take(memory, bytes, costs.malloc_us);
}

cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned flags)
{
    (void)flags;
    return take(memory, bytes,
                costs.malloc_us + costs.pinned_us_per_mib * (double)bytes / (1 << 20));
}

cudaError_t cudaFree(void *memory)
{
    if (memory == NULL)
        return cudaSuccess;
    union header *header = (union header *)memory - 1;
    clock_us += header->us;
    books.allocations--;
    free(header);
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *memory)
{
    return cudaFree(memory);
}

/* ---- What else is asked ---------------------------------------------------------------------- */

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device)
{
    (void)device;
    *value = attribute == cudaDevAttrMultiProcessorCount ? costs.multiprocessors
             : attribute == cudaDevAttrMaxPitch          ? 2147483647
                                                         : 1;
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = costs.driver;
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    static char one;
    (void)flags;
    *stream = (cudaStream_t)(void *)&one;
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    (void)stream;
    return cudaSuccess;
}

cudaError_t cudaPeekAtLastError(void)
{
    return cudaSuccess;
}

cudaError_t cudaGetLastError(void)
{
    return cudaSuccess;
}

cudaError_t cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode *mode)
{
    (void)mode;
    return cudaSuccess;
}

const char *cudaGetErrorName(cudaError_t error)
{
    static char name[32];
    (void)snprintf(name, sizeof name, "error %d", (int)error);
    return name;
}

/* device.c has more calls than a choice of copies makes. */
static cudaError_t nobody_calls(const char *name)
{
    (void)fprintf(stderr, "%s: a call that no copy makes\n", name);
    abort();
}

const char *cudaGetErrorString(cudaError_t error)
{
    return cudaGetErrorName(error);
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    (void)version;
    return nobody_calls(__func__);
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    (void)stream;
    return nobody_calls(__func__);
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    (void)least, (void)greatest;
    return nobody_calls(__func__);
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority)
{
    (void)stream, (void)flags, (void)priority;
    return nobody_calls(__func__);
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *pointer)
{
    (void)attributes, (void)pointer;
    return nobody_calls(__func__);
}

cudaError_t cudaGetDeviceCount(int *count)
{
    (void)count;
    return nobody_calls(__func__);
}

cudaError_t cudaDeviceGetPCIBusId(char *text, int length, int device)
{
    (void)text, (void)length, (void)device;
    return nobody_calls(__func__);
}

cudaError_t cudaGetDriverEntryPointByVersion(const char *symbol, void **function, unsigned version,
                                             unsigned long long flags,
                                             enum cudaDriverEntryPointQueryResult *result)
{
    (void)symbol, (void)function, (void)version, (void)flags, (void)result;
    return nobody_calls(__func__);
}
