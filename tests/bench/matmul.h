/* SPDX-License-Identifier: Apache-2.0 */
/*
 * matmul - products of bf16 matrices on a stream of their own, in place of the server's kernels
 *
 * Owns       matrices of small whole numbers, so that every element of the product is exact; stream
 *            and events.
 * Callers    bench_gpu. One file behind this header is in a build: matmul.cu, or matmul_none.c
 *            where there is no nvcc.
 * Why        it is there to be disturbed: tensor cores, shared memory, caches and the GPU's memory
 *            are all busy. Time is the GPU's own.
 */
#ifndef BENCH_MATMUL_H
#define BENCH_MATMUL_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct matmul;

#define MATMUL_QUEUE_MAX 512u /* fewer than a stream takes before a launch waits */

/*
 * On the current device. NULL and a reason: built without nvcc, or the GPU has no bf16. Other
 * failures end the program.
 */
struct matmul *matmul_create(const char **why);
void matmul_destroy(struct matmul *matmul);

/* `count` products, one after the other. Returns at once. */
void matmul_start(struct matmul *matmul, uint32_t count);
bool matmul_over(struct matmul *matmul);
/* What was started last took so long. It is over. */
double matmul_seconds(struct matmul *matmul);
/* Compares elements with what they must be, all over the product. */
bool matmul_right(struct matmul *matmul);

#ifdef __cplusplus
}
#endif

#endif
