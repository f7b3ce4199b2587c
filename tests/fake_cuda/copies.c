/* SPDX-License-Identifier: Apache-2.0 */
/*
 * copies - what puts bytes in motion: plain, strided and batched copies, and kernels
 *
 * Owns nothing. Each call becomes one task whose ranges were all checked before; bytes move when
 * the stream's thread gets there, never in the call.
 */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

/* Checks everything it is given, and takes in what is good; one report a copy. */
static cudaError_t add_copy(struct fake_task *task, const struct fake_stream *stream, void *to,
                            const void *from, size_t bytes)
{
    cudaError_t error = cudaSuccess;
    if (bytes)
        error = fake_memory_check(from, bytes, stream->device, task->call);
    if (bytes && !error)
        error = fake_memory_check(to, bytes, stream->device, task->call);
    if (!error)
        fake_task_copy(task, to, from, bytes);
    return error;
}

static bool on_device(const void *address)
{
    const struct fake_block *block = fake_block_find(address);
    return block && block->kind == FAKE_BLOCK_DEVICE;
}

static cudaError_t check_kind(const void *to, const void *from, enum cudaMemcpyKind kind,
                              const char *call)
{
    bool down = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    bool up = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    if (kind == cudaMemcpyDefault || (on_device(from) == down && on_device(to) == up))
        return cudaSuccess;
    fake_report(FAKE_CUDA_WRONG_KIND, "%s: kind %d, but %p is %s and %p is %s", call, (int)kind,
                from, on_device(from) ? "device memory" : "host memory", to,
                on_device(to) ? "device memory" : "host memory");
    return cudaErrorInvalidValue;
}

/* Enqueues the task, or drops it where `error` says so. Takes the task over. */
static cudaError_t submit(struct fake_stream *stream, struct fake_task *task, cudaError_t error,
                          const struct fake_clock *reads_after)
{
    if (!error && stream->capture != cudaStreamCaptureStatusNone)
        fake_report(FAKE_CUDA_CAPTURE, "%s on stream %u, which captures: it does not run now",
                    task->call, fake_stream_slot(stream));
    if (error || stream->capture != cudaStreamCaptureStatusNone) {
        fake_task_release(task);
        return error;
    }
    bool disjoint = fake_spans_sort(&task->writes);
    fake_spans_sort(&task->reads);
    if (!disjoint || fake_spans_meet(&task->reads, &task->writes))
        fake_report(FAKE_CUDA_BATCH_RACE, "%s on stream %u: what it writes overlaps", task->call,
                    fake_stream_slot(stream));
    fake_stream_enqueue(stream, task, reads_after);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t handle)
{
    struct fake_stream *stream;
    cudaError_t error = fake_enter_stream(__func__, 0, handle, &stream);
    if (!error) {
        struct fake_task *task = fake_task_new(FAKE_TASK_COPY, __func__);
        error = add_copy(task, stream, to, from, bytes);
        if (!error && bytes)
            error = check_kind(to, from, kind, __func__);
        error = submit(stream, task, error, NULL);
    }
    return fake_leave(error);
}

/* ---- Strided --------------------------------------------------------------------------------- */

struct pitched {
    char *start;
    size_t pitch;       /* from row to row */
    size_t slice_bytes; /* from slice to slice */
};

static cudaError_t copy_rows(const char *call, struct fake_stream *stream, struct pitched to,
                             struct pitched from, struct cudaExtent extent,
                             enum cudaMemcpyKind kind)
{
    size_t rows = extent.height * extent.depth;
    if (!extent.width || !rows)
        return cudaSuccess;
    if ((extent.height > 1 || extent.depth > 1) &&
        (to.pitch < extent.width || from.pitch < extent.width)) {
        fake_report(FAKE_CUDA_MISUSE, "%s: rows of %zu bytes, but pitches of %zu and %zu", call,
                    extent.width, to.pitch, from.pitch);
        return cudaErrorInvalidPitchValue;
    }
    struct fake_task *task = fake_task_new(FAKE_TASK_COPY, call);
    cudaError_t error = cudaSuccess;
    for (size_t row = 0; row < rows && !error; row++) {
        size_t slice = row / extent.height, line = row % extent.height;
        error = add_copy(task, stream, to.start + slice * to.slice_bytes + line * to.pitch,
                         from.start + slice * from.slice_bytes + line * from.pitch, extent.width);
    }
    if (!error)
        error = check_kind(to.start, from.start, kind, call);
    return submit(stream, task, error, NULL);
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                              size_t width, size_t height, enum cudaMemcpyKind kind,
                              cudaStream_t handle)
{
    struct fake_stream *stream;
    cudaError_t error = fake_enter_stream(__func__, 0, handle, &stream);
    if (!error) {
        struct pitched into = {.start = to, .pitch = to_pitch};
        struct pitched out_of = {.start = (char *)(uintptr_t)from, .pitch = from_pitch};
        struct cudaExtent extent = {.width = width, .height = height, .depth = 1};
        error = copy_rows(__func__, stream, into, out_of, extent, kind);
    }
    return fake_leave(error);
}

/* Only linear memory: no arrays. */
static struct pitched pitched_of(struct cudaPitchedPtr pointer, struct cudaPos position)
{
    size_t slice_bytes = pointer.pitch * pointer.ysize;
    size_t offset = position.x + position.y * pointer.pitch + position.z * slice_bytes;
    return (struct pitched){
        .start = (char *)pointer.ptr + offset, .pitch = pointer.pitch, .slice_bytes = slice_bytes};
}

cudaError_t cudaMemcpy3DAsync(const struct cudaMemcpy3DParms *parameters, cudaStream_t handle)
{
    struct fake_stream *stream;
    cudaError_t error = fake_enter_stream(__func__, 0, handle, &stream);
    if (!error && (!parameters || parameters->srcArray || parameters->dstArray))
        error = cudaErrorInvalidValue;
    if (!error && parameters->extent.depth > 1 &&
        (parameters->srcPtr.ysize < parameters->extent.height ||
         parameters->dstPtr.ysize < parameters->extent.height)) {
        fake_report(FAKE_CUDA_MISUSE, "%s: slices of %zu rows, but ysize says fewer", __func__,
                    parameters->extent.height);
        error = cudaErrorInvalidValue;
    }
    if (!error)
        error = copy_rows(__func__, stream, pitched_of(parameters->dstPtr, parameters->dstPos),
                          pitched_of(parameters->srcPtr, parameters->srcPos), parameters->extent,
                          parameters->kind);
    return fake_leave(error);
}

/* ---- Batches --------------------------------------------------------------------------------- */

struct batch {
    void *const *to;
    const void *const *from;
    const size_t *bytes;
    size_t count;
    const struct cudaMemcpyAttributes *attributes;
    const size_t *firsts; /* where each of the attributes begins to hold */
    size_t attribute_count;
};

/* The words for what is wrong with it, or NULL. */
static const char *find_misuse(const struct batch *batch)
{
    if (!batch->to || !batch->from || !batch->bytes || !batch->attributes || !batch->firsts)
        return "an array is missing";
    if (!batch->count || !batch->attribute_count || batch->attribute_count > batch->count)
        return "no copies, no attributes, or more attributes than copies";
    if (batch->count > fake.config.batch_copies)
        return "more copies than drivers were seen to survive";
    if (batch->firsts[0])
        return "attrsIdxs[0] is not 0";
    for (size_t i = 0; i < batch->attribute_count; i++) {
        if ((i && batch->firsts[i] <= batch->firsts[i - 1]) || batch->firsts[i] >= batch->count)
            return "attrsIdxs does not rise, or points past the copies";
        if (batch->attributes[i].srcAccessOrder != cudaMemcpySrcAccessOrderStream &&
            batch->attributes[i].srcAccessOrder != cudaMemcpySrcAccessOrderAny)
            return "srcAccessOrder is neither Stream nor Any (the stand-in knows no other)";
        if (batch->attributes[i].flags & ~(unsigned)cudaMemcpyFlagPreferOverlapWithCompute)
            return "unknown flags";
    }
    for (size_t i = 0; i < batch->count; i++)
        if (!batch->bytes[i])
            return "a copy of no bytes";
    return NULL;
}

static bool in_stream_order(const struct batch *batch, size_t copy)
{
    size_t which = 0;
    while (which + 1 < batch->attribute_count && batch->firsts[which + 1] <= copy)
        which++;
    return batch->attributes[which].srcAccessOrder == cudaMemcpySrcAccessOrderStream;
}

/*
 * Copies whose sources follow the stream, and those whose sources only follow the host, are a task
 * each.
 */
static cudaError_t add_batch(const struct batch *batch, size_t count,
                             const struct fake_stream *stream, struct fake_task *by_stream,
                             struct fake_task *by_host)
{
    for (size_t i = 0; i < count; i++) {
        struct fake_task *task = in_stream_order(batch, i) ? by_stream : by_host;
        cudaError_t error = add_copy(task, stream, batch->to[i], batch->from[i], batch->bytes[i]);
        if (error)
            return error;
    }
    return cudaSuccess;
}

static cudaError_t submit_batch(const struct batch *batch, struct fake_stream *stream,
                                const char *call)
{
    cudaError_t planned = cudaSuccess;
    size_t count = batch->count;
    if (fake_descriptor_planned(&count, &planned) && count > batch->count)
        count = batch->count;
    struct fake_task *by_stream = fake_task_new(FAKE_TASK_COPY, call),
                     *by_host = fake_task_new(FAKE_TASK_COPY, call);
    cudaError_t error = add_batch(batch, count, stream, by_stream, by_host);
    if (by_host->copy_count || error)
        error = submit(stream, by_host, error, &fake.host);
    else
        fake_task_release(by_host);
    if (by_stream->copy_count || error)
        error = submit(stream, by_stream, error, NULL);
    else
        fake_task_release(by_stream);
    return error ? error : planned;
}

cudaError_t cudaMemcpyBatchAsync(void *const *to, const void *const *from, const size_t *bytes,
                                 size_t count, struct cudaMemcpyAttributes *attributes,
                                 size_t *firsts, size_t attribute_count, cudaStream_t handle)
{
    struct fake_stream *stream;
    cudaError_t error = fake_enter_stream(__func__, 0, handle, &stream);
    if (!error) {
        struct batch batch = {.to = to,
                              .from = from,
                              .bytes = bytes,
                              .count = count,
                              .attributes = attributes,
                              .firsts = firsts,
                              .attribute_count = attribute_count};
        const char *misuse = find_misuse(&batch);
        if (misuse)
            fake_report(FAKE_CUDA_MISUSE, "%s: %s", __func__, misuse);
        error = misuse ? cudaErrorInvalidValue : submit_batch(&batch, stream, __func__);
    }
    return fake_leave(error);
}

/* ---- Kernels --------------------------------------------------------------------------------- */

static cudaError_t launch(struct fake_stream *stream, struct fake_task *task,
                          const struct fake_cuda_range *ranges, size_t count)
{
    cudaError_t error = fake_capture_check_legacy(stream, task->call, false);
    if (!error && fake_this_thread()->device != stream->device) {
        fake_report(FAKE_CUDA_WRONG_DEVICE, "%s: device %d is current, the stream is on device %d",
                    task->call, fake_this_thread()->device, stream->device);
        error = cudaErrorInvalidResourceHandle;
    }
    for (size_t i = 0; i < count && !error; i++) {
        error = fake_memory_check(ranges[i].start, ranges[i].bytes, stream->device, task->call);
        fake_spans_add(ranges[i].written ? &task->writes : &task->reads, ranges[i].start,
                       ranges[i].bytes);
    }
    if (error || stream->capture != cudaStreamCaptureStatusNone) {
        fake_task_release(task);
        return error;
    }
    fake_spans_sort(&task->reads);
    fake_spans_sort(&task->writes);
    fake_stream_enqueue(stream, task, NULL);
    return cudaSuccess;
}

cudaError_t fake_cuda_kernel(cudaStream_t handle, fake_cuda_kernel_fn function,
                             const void *arguments, size_t argument_bytes,
                             const struct fake_cuda_range *ranges, size_t range_count)
{
    struct fake_stream *stream;
    cudaError_t error = fake_enter_stream(__func__, 0, handle, &stream);
    if (!error) {
        struct fake_task *task = fake_task_new(FAKE_TASK_KERNEL, __func__);
        task->kernel = function;
        task->args = argument_bytes ? malloc(argument_bytes) : NULL;
        if (task->args)
            memcpy(task->args, arguments, argument_bytes);
        error = launch(stream, task, ranges, range_count);
    }
    return fake_leave(error);
}
