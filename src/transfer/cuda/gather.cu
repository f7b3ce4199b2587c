/* SPDX-License-Identifier: Apache-2.0 */
/* gather - see gather.h, and gather_thread.h for what it does. */
#include "transfer/cuda/gather.h"

#define KVBI_GATHER_FUNCTION static __device__ __forceinline__
typedef uint4 kvbi_gather_word;
#define kvbi_gather_memory(address) (address)
/* Streaming: nobody reads these lines here again soon. */
#define kvbi_gather_load(from) __ldcs(from)
#define kvbi_gather_store(to, word) __stcs(to, word)

#include "transfer/cuda/gather_thread.h"

static __global__ void __launch_bounds__(KVBI_GATHER_THREADS)
    gather(const __grid_constant__ struct kvbi_gather g)
{
    kvbi_gather_thread(&g, g.bases, blockIdx.x, threadIdx.x);
}

extern "C" bool kvbi_gather_available(void)
{
    return true;
}

extern "C" cudaError_t kvbi_gather_launch(const struct kvbi_gather *g, cudaStream_t stream)
{
    void *arguments[] = {const_cast<struct kvbi_gather *>(g)};
    return cudaLaunchKernel(gather, dim3(g->grid), dim3(KVBI_GATHER_THREADS), arguments, 0, stream);
}
