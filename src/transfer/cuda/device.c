/* SPDX-License-Identifier: Apache-2.0 */
/* device - see device.h. */
#include "transfer/cuda/device.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "transfer/cuda/cuda.h"

/* Names since CUDA 12.8 for what a newer driver tells an older runtime, too. */
#define CONTAINED 226
#define TENSOR_MEMORY_LEAK 721

static void fail(struct kvbi_cuda *cuda, int failure)
{
    int none = 0;
    (void)atomic_compare_exchange_strong(&cuda->failure, &none, failure);
}

/* ---- Entering and leaving -------------------------------------------------------------------- */

void kvbi_cuda_enter(struct kvbi_cuda *cuda, struct kvbi_cuda_scope *scope)
{
    *scope = (struct kvbi_cuda_scope){.cuda = cuda, .mode = cudaStreamCaptureModeRelaxed};
    scope->pushed = cuda->driver.push(cuda->context) == 0;
    if (!scope->pushed) /* only a context that is gone cannot be pushed */
        fail(cuda, cudaErrorContextIsDestroyed);
    scope->pending = cudaPeekAtLastError() != cudaSuccess;
    (void)kvbi_cuda_check(scope, cudaThreadExchangeStreamCaptureMode(&scope->mode));
}

void kvbi_cuda_leave(struct kvbi_cuda_scope *scope)
{
    void *popped;
    (void)kvbi_cuda_check(scope, cudaThreadExchangeStreamCaptureMode(&scope->mode));
    if (scope->failed && !scope->pending)
        (void)cudaGetLastError();
    if (scope->pushed)
        (void)scope->cuda->driver.pop(&popped);
}

bool kvbi_cuda_is_sticky(cudaError_t error)
{
    switch ((int)error) {
    case cudaErrorCudartUnloading:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case CONTAINED:
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorContextIsDestroyed:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case TENSOR_MEMORY_LEAK:
    case cudaErrorMpsConnectionFailed:
    case cudaErrorMpsRpcFailure:
    case cudaErrorMpsClientTerminated:
    case cudaErrorExternalDevice:
    case cudaErrorUnknown: /* nobody knows what it has left behind */
        return true;
    default:
        return false;
    }
}

cudaError_t kvbi_cuda_check(struct kvbi_cuda_scope *scope, cudaError_t error)
{
    if (error == cudaSuccess)
        return error;
    scope->failed = true;
    if (kvbi_cuda_is_sticky(error))
        fail(scope->cuda, (int)error);
    return error;
}

cudaError_t kvbi_cuda_check_own(struct kvbi_cuda_scope *scope, cudaError_t error)
{
    (void)kvbi_cuda_check(scope, error);
    if (error != cudaSuccess && error != cudaErrorNotReady)
        fail(scope->cuda, (int)error);
    return error;
}

bool kvbi_cuda_is_of_capture(cudaError_t error)
{
    return error >= cudaErrorStreamCaptureUnsupported && error <= cudaErrorCapturedEvent;
}

cudaError_t kvbi_cuda_check_event(struct kvbi_cuda_scope *scope, cudaError_t error)
{
    return kvbi_cuda_is_of_capture(error) ? kvbi_cuda_check(scope, error)
                                          : kvbi_cuda_check_own(scope, error);
}

cudaError_t kvbi_cuda_check_foreign(struct kvbi_cuda_scope *scope, cudaError_t error,
                                    cudaStream_t own)
{
    if (error == cudaSuccess)
        return error;
    scope->failed = true;
    /* an event of the caller's may have put it into a capture */
    if (kvbi_cuda_is_sticky(error))
        (void)kvbi_cuda_check_event(scope, cudaStreamQuery(own));
    return error;
}

cudaError_t kvbi_cuda_create_stream(struct kvbi_cuda_scope *scope, bool to_device,
                                    cudaStream_t *stream)
{
    int least = 0, greatest = 0;
    cudaError_t error = kvbi_cuda_check(scope, cudaDeviceGetStreamPriorityRange(&least, &greatest));
    if (error != cudaSuccess)
        return error;
    return kvbi_cuda_check(scope, cudaStreamCreateWithPriority(stream, cudaStreamNonBlocking,
                                                               to_device ? greatest : least));
}

/* ---- Being lost ------------------------------------------------------------------------------ */

bool kvbi_cuda_lost(const struct kvbi_cuda *cuda)
{
    return atomic_load_explicit(&cuda->failure, memory_order_acquire) != 0;
}

void kvbi_cuda_why(const struct kvbi_cuda *cuda, char *why, size_t bytes)
{
    int failure = atomic_load_explicit(&cuda->failure, memory_order_acquire);
    if (failure == 0)
        (void)snprintf(why, bytes, "%s", "");
    else if (failure == KVBI_CUDA_MEMORY_GONE)
        (void)snprintf(why, bytes,
                       "its memory is no memory of CUDA device %d any more: freed while in use",
                       cuda->device);
    else
        (void)snprintf(why, bytes, "the context of CUDA device %d has failed: %s (%d)",
                       cuda->device, cudaGetErrorName((cudaError_t)failure), failure);
}

static bool is_device_memory(struct kvbi_cuda_scope *scope, const void *address)
{
    struct cudaPointerAttributes attributes = {.type = cudaMemoryTypeUnregistered};
    cudaError_t error = kvbi_cuda_check(scope, cudaPointerGetAttributes(&attributes, address));
    if (error != cudaSuccess && error != cudaErrorInvalidValue)
        return true; /* CUDA does not say */
    return error == cudaSuccess && attributes.type == cudaMemoryTypeDevice;
}

void kvbi_cuda_look_at_memory(struct kvbi_cuda_scope *scope)
{
    const struct kvbi_strides *strides = &scope->cuda->strides;
    uint32_t bases = strides->bases != NULL ? strides->layers : 1;
    for (uint32_t i = 0; i < bases && !kvbi_cuda_lost(scope->cuda); i++)
        if (!is_device_memory(scope,
                              strides->bases != NULL ? strides->bases[i] : scope->cuda->first_byte))
            fail(scope->cuda, KVBI_CUDA_MEMORY_GONE);
}

int kvbi_cuda_code(const struct kvbi_cuda *cuda, cudaError_t error)
{
    if (error == cudaSuccess)
        return 0;
    return kvbi_cuda_lost(cuda) ? KVB_EDEVICE : KVB_EIO;
}

/* ---- Opening --------------------------------------------------------------------------------- */

/* What the first call says where there is no GPU to be had. */
static int refuse_driver(cudaError_t error, char *message, size_t message_bytes)
{
    int driver = 0, runtime = CUDART_VERSION;
    (void)cudaDriverGetVersion(&driver);
    (void)cudaRuntimeGetVersion(&runtime);
    if (driver == 0)
        (void)snprintf(
            message, message_bytes,
            "tiers[DEVICE]: no NVIDIA driver on this machine (libcuda.so.1 is not there)");
    else if (error == cudaErrorInsufficientDriver)
        (void)snprintf(
            message, message_bytes,
            "tiers[DEVICE]: the NVIDIA driver is too old: it is made for CUDA %d.%d, this "
            "libkvblock for %d.%d",
            driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    else if (error == cudaErrorNoDevice)
        (void)snprintf(
            message, message_bytes,
            "tiers[DEVICE]: there is no CUDA device (CUDA_VISIBLE_DEVICES may hide them)");
    else
        (void)snprintf(message, message_bytes, "tiers[DEVICE]: CUDA does not start: %s (%d): %s",
                       cudaGetErrorName(error), (int)error, cudaGetErrorString(error));
    return KVB_EUNSUPPORTED;
}

static int find_device(uint32_t device, char *message, size_t message_bytes)
{
    int count = 0;
    cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess)
        return refuse_driver(error, message, message_bytes);
    if (device < (uint32_t)count)
        return 0;
    (void)snprintf(message, message_bytes,
                   "tiers[DEVICE].device: %u is none of the %d CUDA devices (from 0)", device,
                   count);
    return KVB_EINVAL;
}

/* Since CUDA 11 (cuDevicePrimaryCtxRelease_v2) and 4: every driver that starts at all has them. */
static bool find_entry_point(const char *name, unsigned version, void *function)
{
    enum cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
    cudaError_t error =
        cudaGetDriverEntryPointByVersion(name, function, version, cudaEnableDefault, &found);
#else
    (void)version;
    cudaError_t error = cudaGetDriverEntryPoint(name, function, cudaEnableDefault, &found);
#endif
    return error == cudaSuccess && found == cudaDriverEntryPointSuccess;
}

/* The last since CUDA 11.7, and nobody depends on it. */
static int find_driver(struct kvbi_cuda_driver *driver, char *message, size_t message_bytes)
{
    if (!find_entry_point("cuStreamWriteValue32", 11070, &driver->write_value))
        driver->write_value = NULL;
    if (find_entry_point("cuDevicePrimaryCtxRetain", 7000, &driver->retain) &&
        find_entry_point("cuDevicePrimaryCtxRelease", 11000, &driver->release) &&
        find_entry_point("cuCtxPushCurrent", 4000, &driver->push) &&
        find_entry_point("cuCtxPopCurrent", 4000, &driver->pop))
        return 0;
    (void)snprintf(message, message_bytes,
                   "tiers[DEVICE]: the NVIDIA driver has no entry points for contexts");
    return KVB_EUNSUPPORTED;
}

static void find_bus_id(struct kvbi_cuda *cuda)
{
    if (cudaDeviceGetPCIBusId(cuda->bus_id, (int)sizeof cuda->bus_id, cuda->device) != cudaSuccess)
        cuda->bus_id[0] = '\0';
    for (char *c = cuda->bus_id; *c != '\0'; c++)
        *c = (char)tolower((unsigned char)*c);
}

/* The context and a home for it. */
static int open_context(struct kvbi_cuda **out, const struct kvbi_memory *memory, int device,
                        char *message, size_t message_bytes)
{
    struct kvbi_cuda cuda = {.memory = memory, .device = device};
    int error = find_driver(&cuda.driver, message, message_bytes);
    if (error != 0)
        return error;
    int refused = cuda.driver.retain(&cuda.context, device);
    if (refused != 0) {
        (void)snprintf(message, message_bytes,
                       "tiers[DEVICE]: CUDA device %d gives no context: error %d of the driver",
                       device, refused);
        return KVB_EDEVICE;
    }
    find_bus_id(&cuda);
    *out = kvbi_memory_alloc(memory, 1, sizeof **out, _Alignof(struct kvbi_cuda));
    if (*out == NULL) {
        (void)cuda.driver.release(device);
        return KVB_ENOMEM;
    }
    **out = cuda;
    return 0;
}

int kvbi_cuda_open(struct kvbi_cuda **out, const struct kvbi_memory *memory, uint32_t device,
                   char *message, size_t message_bytes)
{
    bool pending = cudaPeekAtLastError() != cudaSuccess;
    *out = NULL;
    int error = find_device(device, message, message_bytes);
    if (error == 0)
        error = open_context(out, memory, (int)device, message, message_bytes);
    if (!pending)
        (void)cudaGetLastError();
    return error;
}

/*
 * A lost context keeps what it has: freeing there fails, and resetting the device would be the
 * server's to decide.
 */
void kvbi_cuda_close(struct kvbi_cuda *cuda, unsigned char *owned_base)
{
    struct kvbi_cuda_scope scope;
    if (cuda == NULL)
        return;
    const struct kvbi_memory *memory = cuda->memory;
    if (owned_base != NULL && !kvbi_cuda_context_lost(cuda)) {
        kvbi_cuda_enter(cuda, &scope);
        (void)kvbi_cuda_check(&scope, cudaFree(owned_base));
        kvbi_cuda_leave(&scope);
    }
    (void)cuda->driver.release(cuda->device);
    if (cuda->strides.bases != NULL)
        kvbi_memory_free(memory, cuda->strides.bases, cuda->strides.layers,
                         sizeof *cuda->strides.bases);
    kvbi_memory_free(memory, cuda, 1, sizeof *cuda);
}
