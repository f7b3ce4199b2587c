/* SPDX-License-Identifier: Apache-2.0 */
/*
 * probe_kernels - the kernels that the probe launches. See probe.h.
 *
 * The library's own kernel is asked, by its source: what it does with how many thread blocks is one
 * of the questions.
 */
#include "transfer/cuda/gather.cu"

static __global__ void empty()
{
}

extern "C" {
#include "probe.h"

bool probe_kernels_available(void)
{
    return true;
}

cudaError_t probe_kernel_empty(cudaStream_t stream)
{
    return cudaLaunchKernel(empty, dim3(1), dim3(32), nullptr, 0, stream);
}

cudaError_t probe_kernel_gather(unsigned thread_blocks, const struct kvbi_gather *g,
                                cudaStream_t stream)
{
    struct kvbi_gather given = *g;
    given.grid = thread_blocks;
    return kvbi_gather_launch(&given, stream);
}
}
