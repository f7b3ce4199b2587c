/* SPDX-License-Identifier: Apache-2.0 */
/* gather_none - in place of gather.cu where there is no compiler for it. See gather.h. */
#include "transfer/cuda/gather.h"

bool kvbi_gather_available(void)
{
    return false;
}

cudaError_t kvbi_gather_launch(const struct kvbi_gather *gather, cudaStream_t stream)
{
    (void)gather, (void)stream;
    return cudaErrorNotSupported;
}
