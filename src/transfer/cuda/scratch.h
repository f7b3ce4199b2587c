/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scratch - memory of the GPU's and of the host's for calibration to copy between: like the tier's,
 * only smaller
 *
 * Owns       both, from take to give.
 * Callers    transfer/cuda/calibrate.
 * Invariants its strides are in the order of the tier's, and its chunks next to each other where
 *            the tier's are. It has room for two loads of equally many blocks.
 * Lock       none: one caller at a time.
 */
#ifndef KVBI_TRANSFER_CUDA_SCRATCH_H
#define KVBI_TRANSFER_CUDA_SCRATCH_H

#include "transfer/cuda/copies.h"

/*
 * Of both loads together. At 50 GB/s as many bytes take a third of a millisecond, and the slowest
 * batch that has been published as many chunks in 0.7 ms: more would tell no more, and repeating it
 * for each method would take longer than a server should wait.
 */
#define KVBI_SCRATCH_BYTES ((uint64_t)16 << 20)
#define KVBI_SCRATCH_CHUNKS 256u
#define KVBI_SCRATCH_LOAD_MAX KVBI_GATHER_BLOCKS_MAX

struct kvbi_cuda_scratch {
    const struct kvbi_memory *memory;
    struct kvbi_strides strides;
    unsigned char *device, **bases_on_device;
    void *host;
    uint32_t load_blocks; /* of each load: pairs [0, load_blocks) are the first's */
    struct kvbi_cuda_pair pairs[2 * KVBI_SCRATCH_LOAD_MAX];
};

/*
 * For copies as between memory with the copier's strides and the host, by its kernel too where that
 * is possible. `stream` is used and waited for. Whatever is said, give takes back what was taken.
 */
cudaError_t kvbi_cuda_scratch_take(struct kvbi_cuda_scratch *scratch, struct kvbi_cuda_scope *scope,
                                   const struct kvbi_cuda_copier *copier, cudaStream_t stream);
/* No copy is under way there. Legal on zeroes. */
void kvbi_cuda_scratch_give(struct kvbi_cuda_scratch *scratch, struct kvbi_cuda_scope *scope);

#endif
