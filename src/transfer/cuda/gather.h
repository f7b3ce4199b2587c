/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gather - chunks between a GPU's memory and registered host memory by a kernel, which reads and
 * writes both directly
 *
 * Owns       the kernel. One file behind this header is in each build: gather.cu, gather_none.c
 *            where there is no nvcc, and a function in C in tests on the stand-in runtime.
 * Callers    transfer/cuda/copies.
 * Why        a copy engine takes about as long for 4 KiB as for 28 (docs/gpu.md): below that a
 *            kernel with enough bytes in flight is several times faster. Each of its thread blocks
 *            takes a multiprocessor from the server's own kernels, hence so few: calibration says
 *            how many.
 */
#ifndef KVBI_TRANSFER_CUDA_GATHER_H
#define KVBI_TRANSFER_CUDA_GATHER_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stdint.h>

/* What chunk sizes, strides and addresses are multiples of: it moves 16 bytes at a time. */
#define KVBI_GATHER_ALIGNMENT 16u
#define KVBI_GATHER_BLOCKS_MAX 64u

/* Passed to the kernel by value. */
struct kvbi_gather {
    unsigned char *base;         /* the device's */
    unsigned char *const *bases; /* one a layer, in device memory; or NULL */
    uint64_t chunk, layer_stride, part_stride, block_stride;
    uint32_t first_layer, layers, parts, count;
    uint32_t to_device;
    uint32_t grid; /* thread blocks; 0: cudaErrorInvalidConfiguration */
    uint32_t slots[KVBI_GATHER_BLOCKS_MAX];
    /* where each block begins there: layer, part, without gaps */
    unsigned char *host[KVBI_GATHER_BLOCKS_MAX];
};

#ifdef __cplusplus
extern "C" {
#endif

bool kvbi_gather_available(void);
/* What the launch itself says: an error that the caller's thread has pending stays there. */
cudaError_t kvbi_gather_launch(const struct kvbi_gather *gather, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
