/* SPDX-License-Identifier: Apache-2.0 */
/* empty_stand_in - see empty.h; on the stand-in for CUDA: a kernel that touches nothing. */
#include "empty.h"

#include "fake_cuda.h"

const char *empty_missing(void)
{
    return NULL;
}

cudaError_t empty_launch(cudaStream_t stream)
{
    return fake_cuda_kernel(stream, NULL, NULL, 0, NULL, 0);
}
