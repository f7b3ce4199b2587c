/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stand_in_values - the enumerators and flags of cuda_runtime_api.h, each list once
 *
 * As lists, so that header_check.c compares every one with the toolkit's, and the stand-in names
 * every error it knows.
 */
#ifndef FAKE_CUDA_STAND_IN_VALUES_H
#define FAKE_CUDA_STAND_IN_VALUES_H

/* Name, number, text of cudaGetErrorString. */
#define STAND_IN_ERRORS(X)                                                                         \
    X(cudaSuccess, 0, "no error")                                                                  \
    X(cudaErrorInvalidValue, 1, "invalid argument")                                                \
    X(cudaErrorMemoryAllocation, 2, "out of memory")                                               \
    X(cudaErrorInitializationError, 3, "initialization error")                                     \
    X(cudaErrorCudartUnloading, 4, "driver shutting down")                                         \
    X(cudaErrorInvalidConfiguration, 9, "invalid configuration argument")                          \
    X(cudaErrorInvalidPitchValue, 12, "invalid pitch argument")                                    \
    X(cudaErrorInvalidHostPointer, 16, "invalid host pointer")                                     \
    X(cudaErrorInvalidDevicePointer, 17, "invalid device pointer")                                 \
    X(cudaErrorInvalidMemcpyDirection, 21, "invalid copy direction for memcpy")                    \
    X(cudaErrorStubLibrary, 34, "CUDA driver is a stub library")                                   \
    X(cudaErrorInsufficientDriver, 35,                                                             \
      "CUDA driver version is insufficient for CUDA runtime version")                              \
    X(cudaErrorCallRequiresNewerDriver, 36,                                                        \
      "API call is not supported in the installed CUDA driver")                                    \
    X(cudaErrorDevicesUnavailable, 46, "CUDA-capable device(s) is/are busy or unavailable")        \
    X(cudaErrorIncompatibleDriverContext, 49, "incompatible driver context")                       \
    X(cudaErrorInvalidDeviceFunction, 98, "invalid device function")                               \
    X(cudaErrorNoDevice, 100, "no CUDA-capable device is detected")                                \
    X(cudaErrorInvalidDevice, 101, "invalid device ordinal")                                       \
    X(cudaErrorDeviceUninitialized, 201, "invalid device context")                                 \
    X(cudaErrorNoKernelImageForDevice, 209,                                                        \
      "no kernel image is available for execution on the device")                                  \
    X(cudaErrorECCUncorrectable, 214, "uncorrectable ECC error encountered")                       \
    X(cudaErrorNvlinkUncorrectable, 220,                                                           \
      "uncorrectable NVLink error detected during the execution")                                  \
    X(cudaErrorUnsupportedPtxVersion, 222,                                                         \
      "the provided PTX was compiled with an unsupported toolchain.")                              \
    X(cudaErrorContained, 226,                                                                     \
      "Invalid access of peer GPU memory over nvlink or a hardware error")                         \
    X(cudaErrorOperatingSystem, 304, "OS call failed or operation not supported on this OS")       \
    X(cudaErrorInvalidResourceHandle, 400, "invalid resource handle")                              \
    X(cudaErrorIllegalState, 401, "the operation cannot be performed in the present state")        \
    X(cudaErrorSymbolNotFound, 500, "named symbol not found")                                      \
    X(cudaErrorNotReady, 600, "device not ready")                                                  \
    X(cudaErrorIllegalAddress, 700, "an illegal memory access was encountered")                    \
    X(cudaErrorLaunchOutOfResources, 701, "too many resources requested for launch")               \
    X(cudaErrorLaunchTimeout, 702, "the launch timed out and was terminated")                      \
    X(cudaErrorContextIsDestroyed, 709, "context is destroyed")                                    \
    X(cudaErrorAssert, 710, "device-side assert triggered")                                        \
    X(cudaErrorHostMemoryAlreadyRegistered, 712,                                                   \
      "part or all of the requested memory range is already mapped")                               \
    X(cudaErrorHostMemoryNotRegistered, 713,                                                       \
      "pointer does not correspond to a registered memory region")                                 \
    X(cudaErrorHardwareStackError, 714, "hardware stack error")                                    \
    X(cudaErrorIllegalInstruction, 715, "an illegal instruction was encountered")                  \
    X(cudaErrorMisalignedAddress, 716, "misaligned address")                                       \
    X(cudaErrorInvalidAddressSpace, 717, "operation not supported on global/shared address space") \
    X(cudaErrorInvalidPc, 718, "invalid program counter")                                          \
    X(cudaErrorLaunchFailure, 719, "unspecified launch failure")                                   \
    X(cudaErrorTensorMemoryLeak, 721, "tensor memory not completely freed")                        \
    X(cudaErrorNotPermitted, 800, "operation not permitted")                                       \
    X(cudaErrorNotSupported, 801, "operation not supported")                                       \
    X(cudaErrorSystemNotReady, 802, "system not yet initialized")                                  \
    X(cudaErrorSystemDriverMismatch, 803,                                                          \
      "system has unsupported display driver / cuda driver combination")                           \
    X(cudaErrorCompatNotSupportedOnDevice, 804,                                                    \
      "forward compatibility was attempted on non supported HW")                                   \
    X(cudaErrorMpsConnectionFailed, 805,                                                           \
      "MPS client failed to connect to the MPS control daemon or the MPS server")                  \
    X(cudaErrorMpsRpcFailure, 806, "MPS server and MPS client have lost each other")               \
    X(cudaErrorMpsClientTerminated, 810, "the MPS client has been terminated by the server")       \
    X(cudaErrorStreamCaptureUnsupported, 900, "operation not permitted when stream is capturing")  \
    X(cudaErrorStreamCaptureInvalidated, 901,                                                      \
      "operation failed due to a previous error during capture")                                   \
    X(cudaErrorStreamCaptureMerge, 902,                                                            \
      "operation would result in a merge of separate capture sequences")                           \
    X(cudaErrorStreamCaptureUnmatched, 903,                                                        \
      "capture was not ended in the same stream as it began")                                      \
    X(cudaErrorStreamCaptureUnjoined, 904, "capturing stream has unjoined work")                   \
    X(cudaErrorStreamCaptureIsolation, 905,                                                        \
      "dependency created on uncaptured work in another stream")                                   \
    X(cudaErrorStreamCaptureImplicit, 906,                                                         \
      "operation would make the legacy stream depend on a capturing blocking stream")              \
    X(cudaErrorCapturedEvent, 907,                                                                 \
      "operation not permitted on an event last recorded in a capturing stream")                   \
    X(cudaErrorStreamCaptureWrongThread, 908,                                                      \
      "attempt to terminate a thread-local capture sequence from another thread")                  \
    X(cudaErrorTimeout, 909, "wait operation timed out")                                           \
    X(cudaErrorExternalDevice, 911,                                                                \
      "an async error has occured in external entity outside of CUDA")                             \
    X(cudaErrorFunctionNotLoaded, 913,                                                             \
      "the function handle is not loaded when calling an API that requires a loaded function")     \
    X(cudaErrorUnknown, 999, "unknown error")

#define STAND_IN_MEMCPY_KINDS(X)                                                                   \
    X(cudaMemcpyHostToHost, 0)                                                                     \
    X(cudaMemcpyHostToDevice, 1)                                                                   \
    X(cudaMemcpyDeviceToHost, 2)                                                                   \
    X(cudaMemcpyDeviceToDevice, 3)                                                                 \
    X(cudaMemcpyDefault, 4)

#define STAND_IN_MEMORY_TYPES(X)                                                                   \
    X(cudaMemoryTypeUnregistered, 0)                                                               \
    X(cudaMemoryTypeHost, 1)                                                                       \
    X(cudaMemoryTypeDevice, 2)                                                                     \
    X(cudaMemoryTypeManaged, 3)

#define STAND_IN_LOCATION_TYPES(X)                                                                 \
    X(cudaMemLocationTypeInvalid, 0)                                                               \
    X(cudaMemLocationTypeDevice, 1)                                                                \
    X(cudaMemLocationTypeHost, 2)                                                                  \
    X(cudaMemLocationTypeHostNuma, 3)                                                              \
    X(cudaMemLocationTypeHostNumaCurrent, 4)

#define STAND_IN_ACCESS_ORDERS(X)                                                                  \
    X(cudaMemcpySrcAccessOrderInvalid, 0)                                                          \
    X(cudaMemcpySrcAccessOrderStream, 1)                                                           \
    X(cudaMemcpySrcAccessOrderDuringApiCall, 2)                                                    \
    X(cudaMemcpySrcAccessOrderAny, 3)                                                              \
    X(cudaMemcpySrcAccessOrderMax, 0x7FFFFFFF)

#define STAND_IN_MEMCPY_FLAGS(X)                                                                   \
    X(cudaMemcpyFlagDefault, 0)                                                                    \
    X(cudaMemcpyFlagPreferOverlapWithCompute, 1)

#define STAND_IN_CAPTURE_STATUSES(X)                                                               \
    X(cudaStreamCaptureStatusNone, 0)                                                              \
    X(cudaStreamCaptureStatusActive, 1)                                                            \
    X(cudaStreamCaptureStatusInvalidated, 2)

#define STAND_IN_CAPTURE_MODES(X)                                                                  \
    X(cudaStreamCaptureModeGlobal, 0)                                                              \
    X(cudaStreamCaptureModeThreadLocal, 1)                                                         \
    X(cudaStreamCaptureModeRelaxed, 2)

#define STAND_IN_DRIVER_ENTRY_POINT_RESULTS(X)                                                     \
    X(cudaDriverEntryPointSuccess, 0)                                                              \
    X(cudaDriverEntryPointSymbolNotFound, 1)                                                       \
    X(cudaDriverEntryPointVersionNotSufficent, 2)

#define STAND_IN_DEVICE_ATTRIBUTES(X)                                                              \
    X(cudaDevAttrMaxThreadsPerBlock, 1)                                                            \
    X(cudaDevAttrMaxPitch, 11)                                                                     \
    X(cudaDevAttrMultiProcessorCount, 16)                                                          \
    X(cudaDevAttrIntegrated, 18)                                                                   \
    X(cudaDevAttrCanMapHostMemory, 19)                                                             \
    X(cudaDevAttrComputeMode, 20)                                                                  \
    X(cudaDevAttrPciBusId, 33)                                                                     \
    X(cudaDevAttrPciDeviceId, 34)                                                                  \
    X(cudaDevAttrAsyncEngineCount, 40)                                                             \
    X(cudaDevAttrUnifiedAddressing, 41)                                                            \
    X(cudaDevAttrPciDomainId, 50)                                                                  \
    X(cudaDevAttrComputeCapabilityMajor, 75)                                                       \
    X(cudaDevAttrComputeCapabilityMinor, 76)                                                       \
    X(cudaDevAttrStreamPrioritiesSupported, 78)                                                    \
    X(cudaDevAttrPageableMemoryAccess, 88)                                                         \
    X(cudaDevAttrCanUseHostPointerForRegisteredMem, 91)                                            \
    X(cudaDevAttrHostRegisterSupported, 99)                                                        \
    X(cudaDevAttrHostNumaId, 134)

/* Macros in the toolkit's header. */
#define STAND_IN_FLAGS(X)                                                                          \
    X(cudaEnableDefault, 0)                                                                        \
    X(cudaHostAllocDefault, 0)                                                                     \
    X(cudaHostAllocPortable, 1)                                                                    \
    X(cudaHostAllocMapped, 2)                                                                      \
    X(cudaHostAllocWriteCombined, 4)                                                               \
    X(cudaHostRegisterDefault, 0)                                                                  \
    X(cudaHostRegisterPortable, 1)                                                                 \
    X(cudaHostRegisterMapped, 2)                                                                   \
    X(cudaHostRegisterIoMemory, 4)                                                                 \
    X(cudaHostRegisterReadOnly, 8)                                                                 \
    X(cudaStreamDefault, 0)                                                                        \
    X(cudaStreamNonBlocking, 1)                                                                    \
    X(cudaEventDefault, 0)                                                                         \
    X(cudaEventBlockingSync, 1)                                                                    \
    X(cudaEventDisableTiming, 2)                                                                   \
    X(cudaEventInterprocess, 4)                                                                    \
    X(cudaEventWaitDefault, 0)                                                                     \
    X(cudaEventWaitExternal, 1)

#ifdef FAKE_CUDA
#define STAND_IN_ENUMERATOR(name, value) name = value,
#define STAND_IN_ERROR_ENUMERATOR(name, value, text) name = value,
enum cudaError { STAND_IN_ERRORS(STAND_IN_ERROR_ENUMERATOR) };
enum cudaMemcpyKind { STAND_IN_MEMCPY_KINDS(STAND_IN_ENUMERATOR) };
enum cudaMemoryType { STAND_IN_MEMORY_TYPES(STAND_IN_ENUMERATOR) };
enum cudaMemLocationType { STAND_IN_LOCATION_TYPES(STAND_IN_ENUMERATOR) };
enum cudaMemcpySrcAccessOrder { STAND_IN_ACCESS_ORDERS(STAND_IN_ENUMERATOR) };
enum cudaMemcpyFlags { STAND_IN_MEMCPY_FLAGS(STAND_IN_ENUMERATOR) };
enum cudaStreamCaptureStatus { STAND_IN_CAPTURE_STATUSES(STAND_IN_ENUMERATOR) };
enum cudaStreamCaptureMode { STAND_IN_CAPTURE_MODES(STAND_IN_ENUMERATOR) };
enum cudaDriverEntryPointQueryResult { STAND_IN_DRIVER_ENTRY_POINT_RESULTS(STAND_IN_ENUMERATOR) };
enum cudaDeviceAttr { STAND_IN_DEVICE_ATTRIBUTES(STAND_IN_ENUMERATOR) };
enum { STAND_IN_FLAGS(STAND_IN_ENUMERATOR) };
#undef STAND_IN_ENUMERATOR
#undef STAND_IN_ERROR_ENUMERATOR
#endif

#endif
