/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cuda_runtime_api - the part of the CUDA runtime that kvblock uses, declared here
 *
 * Owns types, values and prototypes, as of CUDA 13.0, so that the GPU engine compiles where no
 * toolkit is installed. The tests put this folder before everything and link the stand-in runtime
 * (fake_cuda.h); builds of the library itself use the toolkit's header of the same name.
 * Invariants: every value, size, offset and signature is that of the real header;
 * tests/fake_cuda/header_check.c holds it there wherever a toolkit is installed. A call that is
 * missing in stand_in_calls.h does not compile in the tests, which is how it gets noticed that the
 * stand-in must learn it.
 */
#ifndef FAKE_CUDA_RUNTIME_API_H
#define FAKE_CUDA_RUNTIME_API_H

#define CUDART_VERSION 13000

/* What tells a translation unit that it sees the stand-in. */
#define FAKE_CUDA 1

#define CUDART_CB

#include "stand_in_values.h"

#include <stddef.h>

typedef enum cudaError cudaError_t;
typedef struct CUstream_st *cudaStream_t;
typedef struct CUevent_st *cudaEvent_t;
typedef struct cudaArray *cudaArray_t;
typedef void (*cudaHostFn_t)(void *userData);

#define cudaStreamLegacy ((cudaStream_t)0x1)
#define cudaStreamPerThread ((cudaStream_t)0x2)

#include "stand_in_structs.h"

#ifdef __cplusplus
extern "C" {
#endif

#include "stand_in_calls.h"

#ifdef __cplusplus
}
#endif

#endif
