/* SPDX-License-Identifier: Apache-2.0 */
/*
 * events - points in streams, and everything that waits for one
 *
 * Owns the table of events. An event stands for the point of its last record, or for none (then it
 * counts as reached); a wait means the point of that moment, so that recording the event anew
 * changes nothing for who waits already.
 */
#include "internal.h"

#include <stdlib.h>

#define EVENT_TAG ((uintptr_t)0xE7)
#define EVENT_SLOT_BITS 24

static struct fake_event *events;
static size_t event_count;
static size_t event_capacity;

static cudaEvent_t handle_of(size_t slot)
{
    return (cudaEvent_t)(EVENT_TAG << 56 |
                         (uintptr_t)(events[slot].generation & 0xffffffff) << EVENT_SLOT_BITS |
                         slot);
}

struct fake_event *fake_event_find(cudaEvent_t handle, const char *call)
{
    size_t slot = (uintptr_t)handle & (((uintptr_t)1 << EVENT_SLOT_BITS) - 1);
    if (slot < event_count && events[slot].live && handle_of(slot) == handle)
        return &events[slot];
    fake_report(FAKE_CUDA_BAD_HANDLE, "%s: %p is no event, or one that was destroyed", call,
                (void *)handle);
    return NULL;
}

static size_t take_slot(void)
{
    for (size_t slot = 0; slot < event_count; slot++)
        if (!events[slot].live)
            return slot;
    events = fake_grow(events, event_count, &event_capacity, sizeof *events);
    events[event_count] = (struct fake_event){.live = false};
    return event_count++;
}

static void set_point(struct fake_event *event, struct fake_point *point)
{
    if (event->point)
        fake_point_unref(event->point);
    event->point = point;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *handle, unsigned int flags)
{
    cudaError_t error = fake_enter(__func__, FAKE_MAKES_CONTEXT);
    if (!error && flags & ~(unsigned)(cudaEventBlockingSync | cudaEventDisableTiming))
        error = cudaErrorInvalidValue;
    if (!error) {
        size_t slot = take_slot();
        unsigned generation = events[slot].generation + 1;
        events[slot] = (struct fake_event){
            .live = true, .generation = generation, .device = fake_this_thread()->device};
        *handle = handle_of(slot);
    }
    return fake_leave(error);
}

cudaError_t cudaEventDestroy(cudaEvent_t handle)
{
    struct fake_event *event;
    cudaError_t error = fake_enter_event(__func__, 0, handle, &event);
    if (!error) {
        set_point(event, NULL);
        event->live = false;
    }
    return fake_leave(error);
}

/* ---- In streams ------------------------------------------------------------------------------ */

static cudaError_t record(struct fake_event *event, struct fake_stream *stream, const char *call)
{
    if (event->device != stream->device) {
        fake_report(FAKE_CUDA_WRONG_DEVICE, "%s: an event of device %d in a stream of device %d",
                    call, event->device, stream->device);
        return cudaErrorInvalidResourceHandle;
    }
    cudaError_t error = fake_capture_check_legacy(stream, call, false);
    if (error)
        return error;
    event->captured = stream->capture != cudaStreamCaptureStatusNone;
    if (event->captured) {
        fake_report(FAKE_CUDA_CAPTURE,
                    "%s on stream %u, which captures: the event is part of the graph now", call,
                    fake_stream_slot(stream));
        return cudaSuccess;
    }
    struct fake_task *task = fake_task_new(FAKE_TASK_RECORD, call);
    fake_stream_meet_default(stream);
    task->point = fake_point_new(&stream->clock);
    task->point->references++;
    set_point(event, task->point);
    fake_stream_enqueue(stream, task, NULL);
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t handle, cudaStream_t stream_handle)
{
    struct fake_stream *stream;
    struct fake_event *event = NULL;
    cudaError_t error = fake_enter_stream(__func__, 0, stream_handle, &stream);
    if (!error && !(event = fake_event_find(handle, __func__)))
        error = cudaErrorInvalidResourceHandle;
    return fake_leave(error ? error : record(event, stream, __func__));
}

static cudaError_t wait_for(struct fake_stream *stream, const struct fake_event *event,
                            const char *call)
{
    cudaError_t error = fake_capture_check_legacy(stream, call, false);
    if (error)
        return error;
    if (stream->capture != cudaStreamCaptureStatusNone)
        return fake_capture_break(stream, cudaErrorStreamCaptureIsolation, call,
                                  "waits for work outside of the capture");
    if (event->captured) {
        fake_report(FAKE_CUDA_CAPTURE,
                    "%s: the event was recorded in a capture, and pulls stream %u into it", call,
                    fake_stream_slot(stream));
        return cudaErrorStreamCaptureIsolation;
    }
    if (!event->point)
        return cudaSuccess;
    struct fake_task *task = fake_task_new(FAKE_TASK_WAIT, call);
    task->point = event->point;
    task->point->references++;
    fake_stream_enqueue(stream, task, NULL);
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream_handle, cudaEvent_t handle, unsigned int flags)
{
    struct fake_stream *stream;
    const struct fake_event *event = NULL;
    cudaError_t error = fake_enter_stream(__func__, 0, stream_handle, &stream);
    if (!error && flags != cudaEventWaitDefault)
        error = cudaErrorInvalidValue;
    if (!error && !(event = fake_event_find(handle, __func__)))
        error = cudaErrorInvalidResourceHandle;
    return fake_leave(error ? error : wait_for(stream, event, __func__));
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream_handle, cudaHostFn_t function, void *user_data)
{
    struct fake_stream *stream;
    cudaError_t error = fake_enter_stream(__func__, 0, stream_handle, &stream);
    if (!error && stream->capture != cudaStreamCaptureStatusNone) {
        fake_report(FAKE_CUDA_CAPTURE, "%s on stream %u, which captures", __func__,
                    fake_stream_slot(stream));
    } else if (!error) {
        struct fake_task *task = fake_task_new(FAKE_TASK_HOST_FUNCTION, __func__);
        task->point = fake_point_new(&stream->clock);
        task->host_function = function;
        task->user_data = user_data;
        fake_stream_enqueue(stream, task, NULL);
    }
    return fake_leave(error);
}

/* ---- Seen by the host ------------------------------------------------------------------------ */

static cudaError_t observe(struct fake_point *point)
{
    fake_host_observes(&point->clock);
    fake_edge_to(point);
    return cudaSuccess;
}

static cudaError_t refuse_captured(const struct fake_event *event, const char *call)
{
    if (!event->captured)
        return cudaSuccess;
    fake_report(FAKE_CUDA_CAPTURE, "%s of an event that was recorded in a capture", call);
    return cudaErrorCapturedEvent;
}

cudaError_t cudaEventQuery(cudaEvent_t handle)
{
    struct fake_event *event;
    cudaError_t error = fake_enter_event(__func__, FAKE_UNSAFE_IN_CAPTURE, handle, &event);
    if (!error)
        error = refuse_captured(event, __func__);
    if (!error && event->point)
        error = event->point->reached ? observe(event->point) : cudaErrorNotReady;
    return fake_leave(error);
}

cudaError_t cudaEventSynchronize(cudaEvent_t handle)
{
    struct fake_event *event;
    cudaError_t error =
        fake_enter_event(__func__, FAKE_UNSAFE_IN_CAPTURE | FAKE_MAY_WAIT, handle, &event);
    if (!error)
        error = refuse_captured(event, __func__);
    if (!error && event->point) {
        struct fake_point *point = event->point;
        int device = event->device;
        point->references++;
        while (!point->reached && !point->lost)
            fake_wait(&fake.changed);
        error = point->reached ? observe(point) : fake_broken(device);
        fake_point_unref(point);
    }
    return fake_leave(error);
}

static cudaError_t refuse_capturing(struct fake_stream *stream, const char *call)
{
    if (stream->capture == cudaStreamCaptureStatusNone)
        return cudaSuccess;
    return fake_capture_break(stream, cudaErrorStreamCaptureUnsupported, call,
                              "asks how far a capture is");
}

cudaError_t cudaStreamQuery(cudaStream_t handle)
{
    struct fake_stream *stream;
    cudaError_t error = fake_enter_stream(__func__, FAKE_UNSAFE_IN_CAPTURE, handle, &stream);
    if (!error)
        error = refuse_capturing(stream, __func__);
    if (!error && !fake_stream_idle(stream))
        error = cudaErrorNotReady;
    if (!error) {
        fake_host_observes(&stream->clock);
        fake_edge_to(stream);
    }
    return fake_leave(error);
}

/* Until all is over that was enqueued before the call. */
static cudaError_t drain(struct fake_stream *stream)
{
    struct fake_clock until = stream->clock;
    while (!fake_stream_over(stream, until.tick[fake_stream_slot(stream)]) &&
           !fake_broken(stream->device))
        fake_wait(&fake.changed);
    if (fake_broken(stream->device))
        return fake_broken(stream->device);
    fake_host_observes(&until);
    fake_edge_to(stream);
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle)
{
    struct fake_stream *stream;
    cudaError_t error =
        fake_enter_stream(__func__, FAKE_UNSAFE_IN_CAPTURE | FAKE_MAY_WAIT, handle, &stream);
    if (!error)
        error = refuse_capturing(stream, __func__);
    return fake_leave(error ? error : drain(stream));
}

cudaError_t cudaDeviceSynchronize(void)
{
    cudaError_t error =
        fake_enter(__func__, FAKE_MAKES_CONTEXT | FAKE_UNSAFE_IN_CAPTURE | FAKE_MAY_WAIT);
    int device = fake_this_thread()->device;
    for (unsigned slot = 0; !error && slot < FAKE_MAX_STREAMS; slot++) {
        struct fake_stream *stream = &fake.streams[slot];
        if (stream->has_thread && stream->device == device)
            error = drain(stream);
    }
    return fake_leave(error);
}

size_t fake_events_live(void)
{
    size_t live = 0;
    for (size_t slot = 0; slot < event_count; slot++)
        live += events[slot].live && !fake_broken(events[slot].device);
    return live;
}

void fake_events_clear(void)
{
    for (size_t slot = 0; slot < event_count; slot++)
        set_point(&events[slot], NULL);
    free(events);
    events = NULL;
    event_count = event_capacity = 0;
}
