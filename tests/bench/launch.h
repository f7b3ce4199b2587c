/* SPDX-License-Identifier: Apache-2.0 */
/*
 * launch - a kernel that does nothing, in place of the many small ones of a server's step
 *
 * Owns       the kernel.
 * Callers    bench_gpu. One file behind this header is in a build: launch.cu, launch_none.c where
 *            there is no nvcc, launch_stand_in.c on the stand-in for CUDA.
 * Why        a launch takes the driver's lock. How long it takes is what a server sees of whoever
 *            else takes that lock meanwhile.
 */
#ifndef BENCH_LAUNCH_H
#define BENCH_LAUNCH_H

#include <cuda_runtime_api.h>
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

bool launch_available(void);
/* One, on the current device's stream. */
cudaError_t launch_nothing(cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
