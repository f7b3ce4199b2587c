/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gpu_bare - CUDA without kvblock: what the rows of bench_gpu are compared with
 *
 * Owns       two pinned buffers, a piece of the GPU's memory, three streams, an event.
 * Callers    bench_gpu's files. One thread.
 * Invariants a copy is one cudaMemcpyAsync of contiguous memory, timed from the call until the host
 *            has seen its end; `out` holds whatever was uploaded last, so every bare copy moves
 *            fresh random bytes, and is compared.
 */
#ifndef BENCH_GPU_BARE_H
#define BENCH_GPU_BARE_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Ends the program, naming the call. */
#define CUDA(call) cuda_check((call), #call)
void cuda_check(cudaError_t error, const char *call);

struct gpu_run;

struct gpu_bare {
    struct gpu_run *run; /* is told of wrong bytes */
    uint64_t bytes;      /* of each buffer; the device's is twice that, one for each direction */
    unsigned char *out, *back; /* pinned */
    unsigned char *device;
    cudaStream_t up, down, server;
    cudaEvent_t event;
};

void gpu_bare_create(struct gpu_bare *bare, struct gpu_run *run, int device, uint64_t bytes);
void gpu_bare_destroy(struct gpu_bare *bare);

/*
 * The first `bytes` of `out` go up, or what went up last comes down to `back`, where it is
 * compared. ns.
 */
uint64_t gpu_bare_up(struct gpu_bare *bare, uint64_t bytes);
uint64_t gpu_bare_down(struct gpu_bare *bare, uint64_t bytes);
/* Both at once. ns until both are over. */
uint64_t gpu_bare_both(struct gpu_bare *bare, uint64_t bytes);

/* Looks without pause until what `server` has been given is over. */
void gpu_bare_await_server(struct gpu_bare *bare);

#ifdef __cplusplus
}
#endif

#endif
