/* SPDX-License-Identifier: Apache-2.0 */
/* launch_none - see launch.h; in builds without nvcc. */
#include "launch.h"

bool launch_available(void)
{
    return false;
}

cudaError_t launch_nothing(cudaStream_t stream)
{
    (void)stream;
    return cudaErrorNotSupported;
}
