/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gpu_suites - what bench_gpu measures
 *
 * Callers    bench_gpu. One thread; each suite measures in rounds of its own, library and baseline
 *            in turns, and prints its rows. It says which rows it is at (gpu_run_unit) before the
 *            first call that can fail, and in which round (gpu_run_at) before bytes are compared.
 */
#ifndef BENCH_GPU_SUITES_H
#define BENCH_GPU_SUITES_H

#include <stdbool.h>
#include <stdint.h>

#include "gpu_run.h"
#include "gpu_stage.h"
#include "rows.h"

struct gpu_options {
    bool quick, json;
    const char *only;  /* a suite; NULL: all */
    const char *spoil; /* a row; NULL: none */
    uint32_t device, method, batch, depth;
    uint32_t rounds;
    uint64_t set_bytes; /* one direction moves */
    uint64_t pin_bytes;
};

struct gpu_bench {
    const struct gpu_options *options;
    struct gpu_run *run;
    struct gpu_bare bare;
};

/* A layout, and how fast the lanes must be with it, relative to a contiguous copy. */
struct gpu_layout {
    const char *name;
    uint32_t layers, parts;
    uint64_t chunk_bytes;
    double bar;
};

#define GPU_LAYOUTS 5
extern const struct gpu_layout gpu_layouts[GPU_LAYOUTS];
#define GPU_CONTIGUOUS 0 /* one chunk a block */
#define GPU_LAYERS_16K 3

void gpu_bench_open(struct gpu_bench *bench, const struct gpu_layout *layout, uint32_t set_blocks,
                    uint32_t sets, struct gpu_stage *stage);
/* Prints; with --quick without bar. A bar of 0: none. */
void gpu_bench_row(struct gpu_bench *bench, struct row *row, double bar, bool bar_is_floor,
                   const struct gpu_stage *stage);
uint32_t gpu_bench_set_blocks(const struct gpu_bench *bench, const struct gpu_layout *layout);
double gigabytes_a_second(uint64_t bytes, uint64_t ns);

/* Offered and down and found: only host memory has it. */
void gpu_bench_sink(struct gpu_stage *stage, struct gpu_set *set);
/*
 * Set `rising` goes up while set `sinking`, which is offered, goes down: started, not waited for.
 */
void gpu_bench_start_both(struct gpu_stage *stage, struct gpu_set *rising, struct gpu_set *sinking);
/*
 * After flush: `rising` is up and dropped, `sinking` is found. Compares every byte of both if
 * `check`.
 */
void gpu_bench_end_both(struct gpu_stage *stage, struct gpu_set *rising, struct gpu_set *sinking,
                        bool check);

void gpu_suite_move(struct gpu_bench *bench);    /* each layout, down and up */
void gpu_suite_both(struct gpu_bench *bench);    /* down and up at once */
void gpu_suite_single(struct gpu_bench *bench);  /* one block, from the call to the fence */
void gpu_suite_matmul(struct gpu_bench *bench);  /* what the server's kernels lose */
void gpu_suite_launch(struct gpu_bench *bench);  /* what the server's calls lose */
void gpu_suite_pinning(struct gpu_bench *bench); /* how soon host memory is pinned */

#endif
