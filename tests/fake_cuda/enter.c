/* SPDX-License-Identifier: Apache-2.0 */
/*
 * enter - the beginning and the end of every entry point, and the last error of a thread
 *
 * Owns what a thread brings along: its current device, its last error, its capture mode.
 * Last errors as in the real runtime: an error of any call, cudaErrorNotReady included, stays until
 * cudaGetLastError takes it; a sticky one comes back for ever; without a usable driver every call
 * says so and nothing clears it.
 */
#include "internal.h"

static _Thread_local struct fake_thread thread;

struct fake_thread *fake_this_thread(void)
{
    if (thread.run != fake.run)
        thread = (struct fake_thread){.run = fake.run};
    return &thread;
}

void fake_enter_helper(void)
{
    fake_lock();
    if (!fake.started) {
        fake_unlock();
        fake_cuda_start(NULL);
        fake_lock();
    }
}

static cudaError_t driver_error(void)
{
    return fake.config.no_driver || fake.config.driver_version / 1000 < CUDART_VERSION / 1000
               ? cudaErrorInsufficientDriver
               : cudaSuccess;
}

static cudaError_t check_thread(const char *call, unsigned flags)
{
    if (fake_this_thread()->server && flags & FAKE_MAY_WAIT)
        fake_report(FAKE_CUDA_SYNCHRONISED, "%s on the server's thread", call);
    if (!fake_this_thread()->in_host_function)
        return cudaSuccess;
    fake_report(FAKE_CUDA_MISUSE, "%s inside a host function", call);
    return cudaErrorNotPermitted;
}

/* What can be wrong before the arguments are looked at. `device`: whom the call concerns. */
static cudaError_t enter_for(const char *call, unsigned flags, int device)
{
    cudaError_t error = check_thread(call, flags);
    if (!error)
        error = driver_error();
    if (!error && !(flags & FAKE_WITHOUT_DEVICE))
        error = fake.config.devices ? fake_broken(device) : cudaErrorNoDevice;
    if (!error)
        error = fake_call_planned(call, device);
    if (!error && flags & FAKE_UNSAFE_IN_CAPTURE)
        error = fake_capture_check_unsafe(call);
    if (!error && flags & FAKE_MAKES_CONTEXT && !fake_context_is_pushed())
        fake.has_context[device] = true;
    return error;
}

cudaError_t fake_enter(const char *call, unsigned flags)
{
    fake_enter_helper();
    fake_call_count(call);
    return enter_for(call, flags, fake_this_thread()->device);
}

cudaError_t fake_enter_stream(const char *call, unsigned flags, cudaStream_t handle,
                              struct fake_stream **stream)
{
    fake_enter_helper();
    fake_call_count(call);
    *stream = driver_error() || !fake.config.devices ? NULL : fake_stream_find(handle, call);
    cudaError_t error =
        enter_for(call, flags, *stream ? (*stream)->device : fake_this_thread()->device);
    return error || *stream ? error : cudaErrorInvalidResourceHandle;
}

cudaError_t fake_enter_event(const char *call, unsigned flags, cudaEvent_t handle,
                             struct fake_event **event)
{
    fake_enter_helper();
    fake_call_count(call);
    *event = driver_error() || !fake.config.devices ? NULL : fake_event_find(handle, call);
    cudaError_t error =
        enter_for(call, flags, *event ? (*event)->device : fake_this_thread()->device);
    return error || *event ? error : cudaErrorInvalidResourceHandle;
}

cudaError_t fake_leave(cudaError_t error)
{
    if (error)
        fake_this_thread()->last_error = error;
    fake_unlock();
    return error;
}

/* ---- Last errors ----------------------------------------------------------------------------- */

static cudaError_t last_error(const char *call, bool clear)
{
    fake_enter_helper();
    fake_call_count(call);
    struct fake_thread *self = fake_this_thread();
    cudaError_t error = driver_error();
    if (!error && fake.config.devices)
        error = fake_broken(self->device);
    if (!error) {
        error = self->last_error;
        if (clear)
            self->last_error = cudaSuccess;
    }
    fake_unlock();
    return error;
}

cudaError_t cudaGetLastError(void)
{
    return last_error(__func__, true);
}

cudaError_t cudaPeekAtLastError(void)
{
    return last_error(__func__, false);
}

const char *cudaGetErrorName(cudaError_t error)
{
    switch (error) {
#define ERROR_NAME(name, number, text)                                                             \
    case name:                                                                                     \
        return #name;
        STAND_IN_ERRORS(ERROR_NAME)
#undef ERROR_NAME
    }
    return "unrecognized error code";
}

const char *cudaGetErrorString(cudaError_t error)
{
    switch (error) {
#define ERROR_TEXT(name, number, text)                                                             \
    case name:                                                                                     \
        return text;
        STAND_IN_ERRORS(ERROR_TEXT)
#undef ERROR_TEXT
    }
    return "unrecognized error code";
}
