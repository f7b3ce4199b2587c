/* SPDX-License-Identifier: Apache-2.0 */
/*
 * devices - versions, ordinals and attributes
 *
 * Owns nothing but the tables of what the stand-in's devices claim to be.
 */
#include "internal.h"

#include <stdio.h>

cudaError_t cudaDriverGetVersion(int *version)
{
    fake_enter_helper();
    fake_call_count(__func__);
    if (version)
        *version = fake.config.no_driver ? 0 : fake.config.driver_version;
    return fake_leave(version ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    fake_enter_helper();
    fake_call_count(__func__);
    if (version)
        *version = CUDART_VERSION;
    return fake_leave(version ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t cudaGetDeviceCount(int *count)
{
    cudaError_t error = fake_enter(__func__, FAKE_WITHOUT_DEVICE);
    if (!error && !count)
        error = cudaErrorInvalidValue;
    if (!error)
        *count = fake.config.devices;
    if (!error && !fake.config.devices)
        error = cudaErrorNoDevice;
    return fake_leave(error);
}

/* A thread may ask for its device, and leave a broken one. */
cudaError_t cudaGetDevice(int *device)
{
    cudaError_t error = fake_enter(__func__, FAKE_WITHOUT_DEVICE);
    if (!error && !fake.config.devices)
        error = cudaErrorNoDevice;
    if (!error && !device)
        error = cudaErrorInvalidValue;
    if (!error)
        *device = fake_this_thread()->device;
    return fake_leave(error);
}

cudaError_t cudaSetDevice(int device)
{
    cudaError_t error = fake_enter(__func__, FAKE_WITHOUT_DEVICE);
    if (!error && !fake.config.devices)
        error = cudaErrorNoDevice;
    if (!error && (device < 0 || device >= fake.config.devices))
        error = cudaErrorInvalidDevice;
    if (!error) {
        fake_this_thread()->device = device;
        fake.has_context[device] = true;
        error = fake.broken[device];
    }
    return fake_leave(error);
}

static int attribute_of(enum cudaDeviceAttr attribute, int device)
{
    switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
        return 1024;
    case cudaDevAttrMaxPitch:
        return 2147483647;
    case cudaDevAttrMultiProcessorCount:
        return 132;
    case cudaDevAttrPciBusId:
        return 0x10 + device;
    case cudaDevAttrAsyncEngineCount:
        return 3;
    case cudaDevAttrComputeCapabilityMajor:
        return 9;
    case cudaDevAttrCanMapHostMemory:
    case cudaDevAttrUnifiedAddressing:
    case cudaDevAttrStreamPrioritiesSupported:
    case cudaDevAttrCanUseHostPointerForRegisteredMem:
    case cudaDevAttrHostRegisterSupported:
        return 1;
    case cudaDevAttrHostNumaId:
        return -1; /* says nothing */
    case cudaDevAttrIntegrated:
    case cudaDevAttrComputeMode:
    case cudaDevAttrPciDeviceId:
    case cudaDevAttrPciDomainId:
    case cudaDevAttrComputeCapabilityMinor:
    case cudaDevAttrPageableMemoryAccess:
        return 0;
    }
    return -1;
}

/* Asks the driver about a device without making a context there. */
static cudaError_t enter_device_question(const char *call, int device)
{
    cudaError_t error = fake_enter(call, FAKE_WITHOUT_DEVICE);
    if (!error && !fake.config.devices)
        error = cudaErrorNoDevice;
    if (!error && (device < 0 || device >= fake.config.devices))
        error = cudaErrorInvalidDevice;
    return error;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device)
{
    cudaError_t error = enter_device_question(__func__, device);
    if (!error && !value)
        error = cudaErrorInvalidValue;
    if (!error)
        *value = attribute_of(attribute, device);
    return fake_leave(error);
}

cudaError_t cudaDeviceGetPCIBusId(char *text, int length, int device)
{
    cudaError_t error = enter_device_question(__func__, device);
    if (!error && (!text || length < 13))
        error = cudaErrorInvalidValue;
    if (!error)
        snprintf(text, (size_t)length, "0000:%02X:00.0", (0x10 + device) & 0xff);
    return fake_leave(error);
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    cudaError_t error = fake_enter(__func__, FAKE_MAKES_CONTEXT);
    if (!error && least)
        *least = 0;
    if (!error && greatest)
        *greatest = -5;
    return fake_leave(error);
}

cudaError_t cudaStreamGetDevice(cudaStream_t handle, int *device)
{
    struct fake_stream *stream;
    cudaError_t error = fake_enter_stream(__func__, 0, handle, &stream);
    if (!error && !device)
        error = cudaErrorInvalidValue;
    if (!error)
        *device = stream->device;
    return fake_leave(error);
}
