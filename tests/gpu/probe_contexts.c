/* SPDX-License-Identifier: Apache-2.0 */
/* probe_contexts - contexts, the first kernel, errors that stay pending. See probe.h. */
#include "probe.h"

#include <stdint.h>

/* Results of the driver are CUresult; those that are met here have cudaError_t's numbers. */
struct driver {
    int (*retain)(void **context, int device);
    int (*release)(int device);
    int (*push)(void *context);
    int (*pop)(void **context);
};

static bool find_driver(struct driver *driver)
{
    return probe_driver("cuDevicePrimaryCtxRetain", 7000, &driver->retain) &&
           probe_driver("cuDevicePrimaryCtxRelease", 11000, &driver->release) &&
           probe_driver("cuCtxPushCurrent", 4000, &driver->push) &&
           probe_driver("cuCtxPopCurrent", 4000, &driver->pop);
}

/* Once more after the last holder has given it back: does it work when it is made anew? */
static cudaError_t use_context_made_anew(const struct driver *driver)
{
    void *context = NULL;
    cudaStream_t stream = NULL;
    cudaError_t error = (cudaError_t)driver->retain(&context, 0);
    if (error != cudaSuccess)
        return error;
    error = (cudaError_t)driver->push(context);
    if (error == cudaSuccess)
        error = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    if (error == cudaSuccess && probe_kernels_available())
        error = probe_kernel_empty(stream);
    if (error == cudaSuccess)
        error = cudaStreamSynchronize(stream);
    if (stream != NULL)
        (void)PROBE_NEED(cudaStreamDestroy(stream));
    (void)driver->pop(&context);
    (void)driver->release(0);
    return error;
}

void probe_contexts(const struct probe_scene *none)
{
    struct driver driver = {.retain = NULL};
    void *context = NULL;
    int count = 0, device = -1;
    (void)none;
    (void)PROBE_NEED(cudaGetDeviceCount(&count));
    probe_number(1, "the driver's functions for contexts are found by name and version",
                 find_driver(&driver), 1);
    if (driver.pop == NULL)
        return;
    probe_number(2, "a primary context is active after cudaGetDeviceCount and these look-ups",
                 probe_context_is_active(), 0);
    probe_code(3, "cuDevicePrimaryCtxRetain(0)", (cudaError_t)driver.retain(&context, 0),
               cudaSuccess);
    probe_code(4, "cuCtxPushCurrent", (cudaError_t)driver.push(context), cudaSuccess);
    (void)PROBE_NEED(cudaGetDevice(&device));
    probe_number(5, "cudaGetDevice then", device, 0);
    (void)driver.pop(&context);
    (void)driver.release(0);
    probe_told(6, "a primary context is active after its last holder released it",
               probe_context_is_active(), "");
    cudaError_t error = use_context_made_anew(&driver);
    if (error == cudaSuccess)
        error = use_context_made_anew(&driver);
    probe_code(7, "a stream and a kernel in a primary context that is made anew, twice", error,
               cudaSuccess);
    (void)PROBE_NEED(cudaSetDevice(0));
    probe_number(8, "a primary context is active after cudaSetDevice(0)", probe_context_is_active(),
                 1);
}

/* Calibration has 30 ms in all, and is the first to launch the kernel. */
void probe_first_launch(const struct probe_scene *none)
{
    cudaStream_t stream;
    (void)none;
    double since = probe_us();
    if (!PROBE_NEED(cudaSetDevice(0)) || !PROBE_NEED(cudaFree(NULL)) ||
        !PROBE_NEED(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking)))
        return;
    probe_told(10, "a context and a stream in a new process", (probe_us() - since) / 1e3, "ms");
    if (!probe_kernels_available()) {
        probe_unasked(11, "the first launch of a kernel", "built without nvcc");
    } else {
        since = probe_us();
        (void)PROBE_NEED(probe_kernel_empty(stream));
        (void)PROBE_NEED(cudaStreamSynchronize(stream));
        probe_told(11, "the first launch of a kernel, until it is over", (probe_us() - since) / 1e3,
                   "ms");
        since = probe_us();
        (void)PROBE_NEED(probe_kernel_empty(stream));
        (void)PROBE_NEED(cudaStreamSynchronize(stream));
        probe_told(12, "the second", (probe_us() - since) / 1e3, "ms");
    }
    (void)PROBE_NEED(cudaStreamDestroy(stream));
}

/* ---- Errors ---------------------------------------------------------------------------------- */

static void ask_pending(const struct probe_scene *scene, cudaEvent_t event)
{
    void *memory = NULL;
    probe_code(15, "cudaMalloc of half the address space", cudaMalloc(&memory, SIZE_MAX / 2),
               cudaErrorMemoryAllocation);
    probe_code(16, "cudaPeekAtLastError then", cudaPeekAtLastError(), cudaErrorMemoryAllocation);
    (void)cudaStreamQuery(scene->a);
    probe_code(17, "cudaPeekAtLastError after a call that succeeded", cudaPeekAtLastError(),
               cudaErrorMemoryAllocation);
    probe_code(18, "cudaGetLastError", cudaGetLastError(), cudaErrorMemoryAllocation);
    probe_code(19, "cudaGetLastError again", cudaGetLastError(), cudaSuccess);
    probe_code(20, "cudaEventQuery of an event that was never recorded", cudaEventQuery(event),
               cudaSuccess);
    probe_hold(scene->a);
    (void)PROBE_NEED(cudaEventRecord(event, scene->a));
    probe_code(21, "cudaEventQuery of one that is not reached", cudaEventQuery(event),
               cudaErrorNotReady);
    probe_code(22, "cudaPeekAtLastError then", cudaPeekAtLastError(), cudaErrorNotReady);
    probe_code(23, "cudaGetLastError takes it", cudaGetLastError(), cudaErrorNotReady);
    probe_code(24, "cudaStreamQuery of a stream that is not through", cudaStreamQuery(scene->a),
               cudaErrorNotReady);
    (void)cudaGetLastError();
    probe_release(scene->a);
    (void)PROBE_NEED(cudaStreamSynchronize(scene->a));
    probe_code(25, "cudaEventQuery once it is reached", cudaEventQuery(event), cudaSuccess);
}

static void ask_attributes(void)
{
    static const struct {
        enum cudaDeviceAttr attribute;
        int least; /* 0: told */
        const char *what;
    } questions[] = {
        {cudaDevAttrHostRegisterSupported, 1, "HostRegisterSupported"},
        {cudaDevAttrCanUseHostPointerForRegisteredMem, 1, "CanUseHostPointerForRegisteredMem"},
        {cudaDevAttrUnifiedAddressing, 1, "UnifiedAddressing"},
        {cudaDevAttrMaxPitch, 0x7fffffff, "MaxPitch"},
        {cudaDevAttrAsyncEngineCount, 2, "AsyncEngineCount"},
        {cudaDevAttrHostNumaId, 0, "HostNumaId"},
        {cudaDevAttrPageableMemoryAccess, 0, "PageableMemoryAccess"},
        {cudaDevAttrMultiProcessorCount, 0, "MultiProcessorCount"},
    };
    for (unsigned i = 0; i < sizeof questions / sizeof *questions; i++) {
        int value = -1;
        (void)PROBE_NEED(cudaDeviceGetAttribute(&value, questions[i].attribute, 0));
        if (questions[i].least > 0)
            probe_at_least(28 + i, questions[i].what, value, questions[i].least);
        else
            probe_told(28 + i, questions[i].what, value, "");
    }
    int least = 0, greatest = 0;
    (void)PROBE_NEED(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    probe_at_least(36, "priorities of streams beside the default one", least - greatest, 1);
}

void probe_errors(const struct probe_scene *scene)
{
    cudaEvent_t event;
    static char never_registered[4096];
    if (!PROBE_NEED(cudaEventCreateWithFlags(&event, cudaEventDisableTiming)))
        return;
    ask_pending(scene, event);
    probe_code(26, "cudaHostUnregister of what is not registered",
               cudaHostUnregister(never_registered), cudaErrorHostMemoryNotRegistered);
    probe_code(27, "cudaGetLastError then", cudaGetLastError(), cudaErrorHostMemoryNotRegistered);
    ask_attributes();
    (void)PROBE_NEED(cudaEventDestroy(event));
}
