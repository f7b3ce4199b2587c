/* SPDX-License-Identifier: Apache-2.0 */
/* launch_stand_in - see launch.h; on the stand-in for CUDA: no figures, but the same calls. */
#include "fake_cuda.h"
#include "launch.h"

bool launch_available(void)
{
    return true;
}

cudaError_t launch_nothing(cudaStream_t stream)
{
    return fake_cuda_kernel(stream, NULL, NULL, 0, NULL, 0);
}
