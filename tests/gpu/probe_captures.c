/* SPDX-License-Identifier: Apache-2.0 */
/* probe_captures - calls beside a server that captures a graph, and into it. See probe.h. */
#include "probe.h"

#include <pthread.h>
#include <stdlib.h>

#define BYTES ((size_t)65536)

struct beside {
    const struct probe_scene *scene;
    cudaStream_t capturing;
    cudaEvent_t event; /* recorded outside */
};

static void be_relaxed(void)
{
    enum cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    (void)PROBE_NEED(cudaThreadExchangeStreamCaptureMode(&mode));
}

static int status_of(cudaStream_t stream)
{
    enum cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    cudaError_t error = cudaStreamIsCapturing(stream, &status);
    if (error != cudaSuccess)
        (void)cudaGetLastError();
    return error == cudaSuccess ? (int)status : -(int)error;
}

static cudaError_t forget(cudaError_t error)
{
    if (error != cudaSuccess)
        (void)cudaGetLastError();
    return error;
}

/* What the engine does while a thread of the server's captures in global mode. */
static void *ask_beside(void *argument)
{
    const struct beside *beside = argument;
    const struct probe_scene *scene = beside->scene;
    void *memory = NULL, *host = aligned_alloc(4096, BYTES), *to[1] = {scene->device};
    const void *from[1] = {scene->pinned};
    const size_t bytes[1] = {4096};
    be_relaxed();
    probe_code(70, "relaxed, while another thread captures globally: cudaEventQuery",
               cudaEventQuery(beside->event), cudaSuccess);
    probe_code(
        71, "cudaMemcpyBatchAsync",
        forget(probe_batch(to, from, bytes, 1, probe_attributes(true, false, false), scene->b)),
        cudaSuccess);
    probe_code(72, "cudaEventRecord", cudaEventRecord(beside->event, scene->b), cudaSuccess);
    probe_code(73, "cudaMalloc", cudaMalloc(&memory, BYTES), cudaSuccess);
    (void)PROBE_NEED(cudaFree(memory));
    probe_code(74, "cudaHostRegister", cudaHostRegister(host, BYTES, cudaHostRegisterPortable),
               cudaSuccess);
    probe_code(75, "cudaHostUnregister", cudaHostUnregister(host), cudaSuccess);
    probe_code(76, "cudaStreamSynchronize", cudaStreamSynchronize(scene->b), cudaSuccess);
    probe_number(77, "status of the capturing stream (1: active; negative: a code)",
                 status_of(beside->capturing), cudaStreamCaptureStatusActive);
    free(host);
    return NULL;
}

static void *ask_unrelaxed(void *argument)
{
    const struct beside *beside = argument;
    probe_code(79, "cudaEventQuery of a thread whose mode is global as well",
               forget(cudaEventQuery(beside->event)), cudaErrorStreamCaptureUnsupported);
    return NULL;
}

static void ask_in_thread(void *(*ask)(void *), struct beside *beside)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, ask, beside) == 0)
        (void)pthread_join(thread, NULL);
}

static void ask_events(const struct probe_scene *scene, cudaStream_t capturing, cudaEvent_t ours)
{
    (void)PROBE_NEED(probe_capture_begin(capturing));
    probe_code(81, "cudaEventRecord of ours on a stream that captures",
               cudaEventRecord(ours, capturing), cudaSuccess);
    probe_code(82, "cudaEventQuery of it, relaxed", forget(cudaEventQuery(ours)),
               cudaErrorCapturedEvent);
    probe_told(83, "cudaStreamEndCapture then (0: the question left it whole)",
               forget(probe_capture_end(capturing)), "");
    probe_code(84, "cudaEventQuery of it after the capture", forget(cudaEventQuery(ours)),
               cudaErrorCapturedEvent);
    (void)PROBE_NEED(cudaEventRecord(ours, scene->a));
    (void)PROBE_NEED(cudaStreamSynchronize(scene->a));
    probe_code(85, "cudaEventQuery once it is recorded outside", cudaEventQuery(ours), cudaSuccess);

    (void)PROBE_NEED(probe_capture_begin(capturing));
    (void)PROBE_NEED(cudaEventRecord(ours, capturing));
    probe_said(86, "a stream of ours that waits for an event of the capture",
               "%d; its status then %d", (int)forget(cudaStreamWaitEvent(scene->b, ours, 0)),
               status_of(scene->b));
    probe_told(87, "cudaStreamEndCapture then", forget(probe_capture_end(capturing)), "");
    probe_number(88, "status of our stream after the capture (0: none)", status_of(scene->b),
                 cudaStreamCaptureStatusNone);
    (void)PROBE_NEED(cudaEventRecord(ours, scene->a));
    (void)PROBE_NEED(cudaStreamSynchronize(scene->a));
}

static void ask_what_breaks(cudaStream_t capturing, cudaEvent_t ours)
{
    (void)PROBE_NEED(probe_capture_begin(capturing));
    probe_code(89, "a capturing stream that waits for an event from outside",
               forget(cudaStreamWaitEvent(capturing, ours, 0)), cudaErrorStreamCaptureIsolation);
    probe_code(90, "cudaStreamEndCapture then", forget(probe_capture_end(capturing)),
               cudaErrorStreamCaptureInvalidated);
    (void)PROBE_NEED(probe_capture_begin(capturing));
    probe_code(91, "cudaStreamQuery of a capturing stream", forget(cudaStreamQuery(capturing)),
               cudaErrorStreamCaptureUnsupported);
    probe_code(92, "cudaStreamEndCapture then", forget(probe_capture_end(capturing)),
               cudaErrorStreamCaptureInvalidated);
}

static void ask_legacy(cudaEvent_t ours)
{
    cudaStream_t blocking;
    if (!PROBE_NEED(cudaStreamCreateWithFlags(&blocking, cudaStreamDefault)))
        return;
    (void)PROBE_NEED(probe_capture_begin(blocking));
    probe_number(95, "status of the legacy stream while a blocking one captures (negative: a code)",
                 status_of(cudaStreamLegacy), -cudaErrorStreamCaptureImplicit);
    probe_code(96, "cudaEventRecord of ours on the legacy stream",
               forget(cudaEventRecord(ours, cudaStreamLegacy)), cudaErrorStreamCaptureImplicit);
    probe_told(97, "cudaStreamEndCapture then", forget(probe_capture_end(blocking)), "");
    (void)PROBE_NEED(cudaStreamDestroy(blocking));
}

void probe_captures(const struct probe_scene *scene)
{
    struct beside beside = {.scene = scene};
    cudaEvent_t ours;
    if (!PROBE_NEED(cudaStreamCreateWithFlags(&beside.capturing, cudaStreamNonBlocking)) ||
        !PROBE_NEED(cudaEventCreateWithFlags(&beside.event, cudaEventDisableTiming)) ||
        !PROBE_NEED(cudaEventCreateWithFlags(&ours, cudaEventDisableTiming)))
        return;
    (void)PROBE_NEED(cudaEventRecord(beside.event, scene->a));
    (void)PROBE_NEED(cudaStreamSynchronize(scene->a));
    (void)PROBE_NEED(probe_capture_begin(beside.capturing));
    ask_in_thread(ask_beside, &beside);
    probe_code(78, "cudaStreamEndCapture after all that",
               forget(probe_capture_end(beside.capturing)), cudaSuccess);
    (void)PROBE_NEED(probe_capture_begin(beside.capturing));
    ask_in_thread(ask_unrelaxed, &beside);
    probe_code(80, "cudaStreamEndCapture then", forget(probe_capture_end(beside.capturing)),
               cudaErrorStreamCaptureInvalidated);
    be_relaxed();
    ask_events(scene, beside.capturing, ours);
    ask_what_breaks(beside.capturing, ours);
    ask_legacy(ours);
    (void)PROBE_NEED(cudaEventDestroy(ours));
    (void)PROBE_NEED(cudaEventDestroy(beside.event));
    (void)PROBE_NEED(cudaStreamDestroy(beside.capturing));
}
