/* SPDX-License-Identifier: Apache-2.0 */
/* matmul_none - see matmul.h; in builds without nvcc. */
#include "matmul.h"

#include <stddef.h>

struct matmul *matmul_create(const char **why)
{
    *why = "built without nvcc";
    return NULL;
}

void matmul_destroy(struct matmul *matmul)
{
    (void)matmul;
}

void matmul_start(struct matmul *matmul, uint32_t count)
{
    (void)matmul, (void)count;
}

bool matmul_over(struct matmul *matmul)
{
    (void)matmul;
    return true;
}

double matmul_seconds(struct matmul *matmul)
{
    (void)matmul;
    return 0;
}

bool matmul_right(struct matmul *matmul)
{
    (void)matmul;
    return false;
}
