/* SPDX-License-Identifier: Apache-2.0 */
/* empty_none - see empty.h; in builds without nvcc. */
#include "empty.h"

#include <stddef.h>

const char *empty_missing(void)
{
    return "built without nvcc";
}

cudaError_t empty_launch(cudaStream_t stream)
{
    (void)stream;
    return cudaErrorNotSupported;
}
