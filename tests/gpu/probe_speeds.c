/* SPDX-License-Identifier: Apache-2.0 */
/*
 * probe_speeds - bytes a second by method, size of the chunks and thread blocks. See probe.h.
 *
 * Chunks are scattered on the device and in another order in host memory, so that no two make a
 * run. Best of 3. Nothing here has a want: these are figures to decide by.
 */
#include "probe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH 2048u
#define KERNEL_BLOCKS KVBI_GATHER_BLOCKS_MAX

enum method { IN_ORDER, ANY_ORDER, OVERLAPPING, PLAIN, KERNEL };

struct load {
    const struct probe_scene *scene;
    size_t chunk, count;
    bool up;
    unsigned thread_blocks;
    void **to;
    const void **from;
    size_t *bytes;
};

static void lay_out(struct load *load)
{
    for (size_t i = 0; i < load->count; i++) {
        unsigned char *device = load->scene->device + 2 * i * load->chunk,
                      *pinned = load->scene->pinned + (i * 1237 % load->count) * load->chunk;
        load->to[i] = load->up ? device : pinned;
        load->from[i] = load->up ? pinned : device;
        load->bytes[i] = load->chunk;
    }
}

static cudaError_t copy_in_batches(const struct load *load, enum method method)
{
    cudaError_t error = cudaSuccess;
    struct cudaMemcpyAttributes attributes =
        probe_attributes(load->up, method == IN_ORDER || !load->up, method == OVERLAPPING);
    for (size_t i = 0; i < load->count && error == cudaSuccess; i += BATCH)
        error = probe_batch(load->to + i, load->from + i, load->bytes + i,
                            load->count - i < BATCH ? load->count - i : BATCH, attributes,
                            load->scene->a);
    return error;
}

static cudaError_t copy_one_by_one(const struct load *load)
{
    cudaError_t error = cudaSuccess;
    for (size_t i = 0; i < load->count && error == cudaSuccess; i++)
        error = cudaMemcpyAsync(load->to[i], load->from[i], load->chunk,
                                load->up ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToHost,
                                load->scene->a);
    return error;
}

/* The same chunks as blocks of one part: a chunk a layer, every second place on the device. */
static cudaError_t copy_by_kernel(const struct load *load)
{
    struct kvbi_gather gather = {.base = load->scene->device, .chunk = load->chunk, .parts = 1};
    gather.count = load->count < KERNEL_BLOCKS ? (uint32_t)load->count : KERNEL_BLOCKS;
    gather.layers = (uint32_t)(load->count / gather.count);
    gather.block_stride = 2 * load->chunk;
    gather.layer_stride = gather.count * gather.block_stride;
    gather.to_device = load->up;
    for (uint32_t i = 0; i < gather.count; i++) {
        gather.slots[i] = i;
        gather.host[i] =
            load->scene->pinned + (size_t)(i * 37 % gather.count) * gather.layers * load->chunk;
    }
    return probe_kernel_gather(load->thread_blocks, &gather, load->scene->a);
}

/* GB/s; negative: a code. */
static double speed_of(const struct load *load, enum method method)
{
    double best = 0;
    for (int round = 0; round < 3; round++) {
        double since = probe_us();
        cudaError_t error = method == PLAIN    ? copy_one_by_one(load)
                            : method == KERNEL ? copy_by_kernel(load)
                                               : copy_in_batches(load, method);
        if (error == cudaSuccess)
            error = cudaStreamSynchronize(load->scene->a);
        if (!probe_need(error, "a copy whose speed is asked"))
            return -(double)error;
        double speed = (double)(load->count * load->chunk) / (probe_us() - since) / 1e3;
        best = speed > best ? speed : best;
    }
    return best;
}

static void ask_kernel(char *text, size_t bytes, struct load *load)
{
    int length = snprintf(text, bytes, "kernel by 1 2 4 8 16 thread blocks");
    for (load->thread_blocks = 1; load->thread_blocks <= 16; load->thread_blocks *= 2)
        length += snprintf(text + length, bytes - (size_t)length, " %.1f", speed_of(load, KERNEL));
}

static void ask_chunk(unsigned number, struct load *load, size_t total)
{
    char what[96], kernel[128] = "no kernel: built without nvcc";
    load->count = total / load->chunk;
    lay_out(load);
    double by_order = speed_of(load, IN_ORDER), by_any = speed_of(load, ANY_ORDER),
           by_overlap = speed_of(load, OVERLAPPING);
    if (probe_kernels_available())
        ask_kernel(kernel, sizeof kernel, load);
    load->count = load->count > 4096 ? 4096 : load->count; /* each is a call */
    lay_out(load);
    (void)snprintf(what, sizeof what, "GB/s %s in chunks of %zu KiB", load->up ? "up" : "down",
                   load->chunk >> 10);
    probe_said(number, what,
               "batch in stream order %.1f, any %.1f, overlapping %.1f, plain %.1f, "
               "%s",
               by_order, by_any, by_overlap, speed_of(load, PLAIN), kernel);
}

static void ask_one_copy(unsigned number, const struct probe_scene *scene, bool up)
{
    struct load one = {.scene = scene, .chunk = scene->bytes / 4, .count = 1, .up = up};
    void *to[1] = {up ? scene->device : scene->pinned};
    const void *from[1] = {up ? scene->pinned : scene->device};
    size_t bytes[1] = {one.chunk};
    one.to = to;
    one.from = from;
    one.bytes = bytes;
    probe_told(number, up ? "one copy up" : "one copy down", speed_of(&one, PLAIN), "GB/s");
}

void probe_speeds(const struct probe_scene *scene)
{
    static const size_t chunks_kib[] = {4, 8, 16, 24, 32, 64, 128, 2048};
    size_t total = probe_on_stand_in ? (size_t)4 << 20 : (size_t)128 << 20;
    struct load load = {.scene = scene};
    load.to = calloc(total / 4096, sizeof *load.to);
    load.from = calloc(total / 4096, sizeof *load.from);
    load.bytes = calloc(total / 4096, sizeof *load.bytes);
    if (load.to == NULL || load.from == NULL || load.bytes == NULL)
        abort();
    ask_one_copy(200, scene, true);
    ask_one_copy(201, scene, false);
    for (unsigned i = 0; i < sizeof chunks_kib / sizeof *chunks_kib; i++) {
        load.chunk = chunks_kib[i] << 10;
        load.up = true;
        ask_chunk(202 + 2 * i, &load, total);
        load.up = false;
        ask_chunk(203 + 2 * i, &load, total);
    }
    free(load.to);
    free(load.from);
    free(load.bytes);
}
