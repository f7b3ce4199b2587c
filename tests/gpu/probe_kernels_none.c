/* SPDX-License-Identifier: Apache-2.0 */
/* probe_kernels_none - in place of probe_kernels.cu where there is no nvcc. See probe.h. */
#include "probe.h"

bool probe_kernels_available(void)
{
    return false;
}

cudaError_t probe_kernel_empty(cudaStream_t stream)
{
    (void)stream;
    return cudaErrorNotSupported;
}

cudaError_t probe_kernel_gather(unsigned thread_blocks, const struct kvbi_gather *gather,
                                cudaStream_t stream)
{
    (void)thread_blocks;
    (void)gather;
    (void)stream;
    return cudaErrorNotSupported;
}
