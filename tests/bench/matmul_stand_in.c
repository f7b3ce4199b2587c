/* SPDX-License-Identifier: Apache-2.0 */
/*
 * matmul_stand_in - see matmul.h; on the stand-in for CUDA: no products, but the lanes beside them
 * run as beside real ones.
 */
#include "matmul.h"

#include <stddef.h>

#define LOOKS 3u

struct matmul {
    uint32_t looks; /* until it says that it is over */
};

struct matmul *matmul_create(const char **why)
{
    static struct matmul matmul;
    *why = NULL;
    return &matmul;
}

void matmul_destroy(struct matmul *matmul)
{
    (void)matmul;
}

void matmul_start(struct matmul *matmul, uint32_t count)
{
    (void)count;
    matmul->looks = LOOKS;
}

bool matmul_over(struct matmul *matmul)
{
    return --matmul->looks == 0;
}

double matmul_seconds(struct matmul *matmul)
{
    (void)matmul;
    return 1e-3;
}

bool matmul_right(struct matmul *matmul)
{
    return matmul->looks == 0;
}
