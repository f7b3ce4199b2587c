/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtual_runtime - a CUDA runtime on which copies take time and move nothing
 *
 * Owns       a clock of its own, which clock_gettime shows to the whole program; a GPU with one
 *            copy engine, multiprocessors and a queue; costs; the books of what was called.
 * Callers    tests of what is decided by time, linked with sources of transfer/cuda and with
 *            neither a toolkit nor the stand-in that moves bytes. One thread.
 * Invariants nothing depends on the machine that it runs on: time passes by calls alone.
 * Why        a choice by measurement can be tested only where measurements are known. Each call
 *            takes its time on the CPU, and puts its copies' time behind what the GPU has queued;
 *            cudaStreamSynchronize waits for the queue.
 */
#ifndef KVB_TEST_VIRTUAL_RUNTIME_H
#define KVB_TEST_VIRTUAL_RUNTIME_H

#include <stdbool.h>
#include <stdint.h>

#include <cuda_runtime_api.h>
#include <kvblock.h>

#define VIRTUAL_METHODS 5 /* by enum kvb_copy_method */
#define VIRTUAL_GRID_MAX 16

struct virtual_costs {
    /* CPU: a call, and each copy that a batch names in it */
    double call_us[VIRTUAL_METHODS], descriptor_us, synchronize_us;
    double loading_ms[VIRTUAL_METHODS]; /* once, in the first call */
    bool overlap; /* the copy engine begins with the first descriptor, not behind the call */
    /* the copy engine's time for so many bytes in one piece */
    double (*piece_us)(uint64_t bytes, bool to_device);
    double slowness[VIRTUAL_METHODS]; /* what the GPU's time is multiplied by */
    /* the kernel: until it moves, each thread block's share, and all that the link gives */
    double start_us, block_gbps, link_gbps;
    /* cudaMalloc and cudaHostAlloc, and as long again when it is freed */
    double malloc_us, pinned_us_per_mib;
    int multiprocessors, driver;
    /* calls that name more chunks are refused; 0: none is */
    uint32_t chunks_max[VIRTUAL_METHODS];
    bool only_up; /* those down are not */
};

/*
 * Of an H100 with 132 multiprocessors, as published: batches in which copies below 28 KiB go up at
 * 6.8 GB/s (vLLM 42212), 0.5 us for each descriptor (vLLM 48434), 2.3 us a call (FlexKV 193), 48
 * GB/s a thread block (SGLang 40278).
 */
struct virtual_costs virtual_published(void);

/*
 * By which ratios are exact: no call takes any time, one method's copies as long as the other's, 10
 * GB/s, and the kernel's at any grid.
 */
struct virtual_costs virtual_flat(void);

/* What has been called since the start. */
struct virtual_books {
    double began_us;                         /* the clock's */
    double last_call_us;                     /* when the latest copy was called */
    uint32_t copies[VIRTUAL_METHODS];        /* calls */
    uint32_t trials[VIRTUAL_METHODS];        /* times that copies of the method were waited for */
    uint32_t trial_chunks_max;               /* of those that were waited for at once */
    uint32_t launches[VIRTUAL_GRID_MAX + 1]; /* of the kernel, by grid */
    int allocations;                         /* that have not been freed */
};

/* `chunk_bytes` tells the books how many chunks a copy is. */
void virtual_start(const struct virtual_costs *costs, uint64_t chunk_bytes);
const struct virtual_books *virtual_books(void);
double virtual_elapsed_us(void);

#endif
