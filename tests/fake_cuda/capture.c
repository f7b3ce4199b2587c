/* SPDX-License-Identifier: Apache-2.0 */
/*
 * capture - streams that record a graph instead of running, and the calls that such a stream does
 * not survive
 *
 * Owns the rule of cudaThreadExchangeStreamCaptureMode: potentially unsafe calls (allocation,
 * registration, questions about progress) are refused, and break the capture, while this thread
 * captures, or any thread in global mode; a thread whose own mode is relaxed is exempt, one whose
 * mode is thread-local heeds only itself. Why a thread is known by the address of its state: it is
 * there anyway and two threads never share it.
 */
#include "internal.h"

static bool conflicts(const struct fake_stream *stream, const struct fake_thread *thread)
{
    if (stream->capture != cudaStreamCaptureStatusActive ||
        stream->capture_mode == cudaStreamCaptureModeRelaxed ||
        thread->capture_mode == cudaStreamCaptureModeRelaxed)
        return false;
    if (stream->capture_thread == thread)
        return true;
    return stream->capture_mode == cudaStreamCaptureModeGlobal &&
           thread->capture_mode == cudaStreamCaptureModeGlobal;
}

cudaError_t fake_capture_break(struct fake_stream *stream, cudaError_t code, const char *call,
                               const char *what)
{
    fake_report(FAKE_CUDA_CAPTURE, "%s breaks the capture of stream %u: it %s", call,
                fake_stream_slot(stream), what);
    stream->capture = cudaStreamCaptureStatusInvalidated;
    return code;
}

cudaError_t fake_capture_check_unsafe(const char *call)
{
    cudaError_t error = cudaSuccess;
    for (unsigned slot = 0; slot < FAKE_MAX_STREAMS; slot++)
        if (conflicts(&fake.streams[slot], fake_this_thread()))
            error =
                fake_capture_break(&fake.streams[slot], cudaErrorStreamCaptureUnsupported, call,
                                   "is potentially unsafe, and the thread's mode is not relaxed");
    return error;
}

cudaError_t fake_capture_check_legacy(const struct fake_stream *stream, const char *call, bool asks)
{
    cudaError_t error = cudaSuccess;
    for (unsigned slot = 0; stream->legacy && slot < FAKE_MAX_STREAMS; slot++) {
        struct fake_stream *other = &fake.streams[slot];
        if (!other->live || !other->blocking || other->device != stream->device ||
            other->capture == cudaStreamCaptureStatusNone)
            continue;
        error = cudaErrorStreamCaptureImplicit;
        if (!asks)
            (void)fake_capture_break(other, error, call,
                                     "is on the legacy stream, which would wait for it");
    }
    return error;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, enum cudaStreamCaptureStatus *status)
{
    struct fake_stream *stream;
    cudaError_t error = fake_enter_stream(__func__, 0, handle, &stream);
    if (!error && !status)
        error = cudaErrorInvalidValue;
    if (!error)
        error = fake_capture_check_legacy(stream, __func__, true);
    if (!error)
        *status = stream->capture;
    return fake_leave(error);
}

cudaError_t cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode *mode)
{
    cudaError_t error = fake_enter(__func__, 0);
    if (!error && (!mode || (int)*mode < 0 || *mode > cudaStreamCaptureModeRelaxed))
        error = cudaErrorInvalidValue;
    if (!error) {
        enum cudaStreamCaptureMode before = fake_this_thread()->capture_mode;
        fake_this_thread()->capture_mode = *mode;
        *mode = before;
    }
    return fake_leave(error);
}

cudaError_t fake_cuda_capture_begin(cudaStream_t handle, enum cudaStreamCaptureMode mode)
{
    struct fake_stream *stream;
    cudaError_t error = fake_enter_stream(__func__, 0, handle, &stream);
    if (!error && stream->capture != cudaStreamCaptureStatusNone)
        error = cudaErrorIllegalState;
    if (!error && stream->legacy)
        error = cudaErrorStreamCaptureUnsupported;
    if (!error) {
        stream->capture = cudaStreamCaptureStatusActive;
        stream->capture_mode = mode;
        stream->capture_thread = fake_this_thread();
    }
    return fake_leave(error);
}

cudaError_t fake_cuda_capture_end(cudaStream_t handle)
{
    struct fake_stream *stream;
    cudaError_t error = fake_enter_stream(__func__, 0, handle, &stream);
    if (!error && stream->capture == cudaStreamCaptureStatusNone)
        error = cudaErrorIllegalState;
    if (!error) {
        bool broken = stream->capture == cudaStreamCaptureStatusInvalidated;
        stream->capture = cudaStreamCaptureStatusNone;
        error = broken ? cudaErrorStreamCaptureInvalidated : cudaSuccess;
    }
    return fake_leave(error);
}
