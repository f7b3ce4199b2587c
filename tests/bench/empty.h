/* SPDX-License-Identifier: Apache-2.0 */
/*
 * empty - a kernel that does nothing: what a launch costs by itself
 *
 * Callers    bench_gpu. One file behind this header is in a build: empty.cu, or empty_none.c where
 *            there is no nvcc.
 */
#ifndef BENCH_EMPTY_H
#define BENCH_EMPTY_H

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

/* NULL: there is one. Else why not. */
const char *empty_missing(void);

/* One thread of it, on the current device. Returns what the launch said. */
cudaError_t empty_launch(cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
