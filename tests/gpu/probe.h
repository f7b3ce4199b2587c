/* SPDX-License-Identifier: Apache-2.0 */
/*
 * probe - what the CUDA runtime does where src/transfer/cuda and tests/fake_cuda assume something
 *
 * One numbered line a question, and it never stops:
 *
 *     probe 13: cudaEventQuery of an event that was never recorded = 0 cudaSuccess (want 0) ok
 *
 * Owns       the questions, in groups: a process each, so that what hangs or breaks its context
 *            takes nothing else along. A question that is not answered in time ends its group.
 * Invariants a number means one question for ever: docs/gpu.md names them. Numbers rise within a
 *            group. What is wanted is what the engine relies on and what the stand-in answers; a
 *            question of which neither depends has no want, and is told.
 * Built      on the runtime itself (probe_on_gpu.c), and on the stand-in (probe_on_stand_in.c),
 *            where a ctest fails unless everything is answered as it is wanted: the stand-in's
 *            assumptions are the wants.
 */
#ifndef KVB_GPU_PROBE_H
#define KVB_GPU_PROBE_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "transfer/cuda/gather.h"

/* ---- Answers (probe.c). Each prints its line and gives the next question its time anew. ------ */

/* A code of CUDA's. */
void probe_code(unsigned number, const char *what, cudaError_t answer, cudaError_t want);
/* A number. */
void probe_number(unsigned number, const char *what, long long answer, long long want);
void probe_at_least(unsigned number, const char *what, long long answer, long long least);
/* What nothing depends on. */
void probe_told(unsigned number, const char *what, double answer, const char *unit);
/* The same in words. */
__attribute__((format(printf, 3, 4))) void probe_said(unsigned number, const char *what,
                                                      const char *format, ...);
/* Why there is no answer here. */
void probe_unasked(unsigned number, const char *what, const char *why);
/*
 * Not a question: what the questions need. Says in a line without a number that it failed, which
 * counts as an answer that is not as wanted, and leaves no error pending.
 */
#define PROBE_NEED(call) probe_need((call), #call)
bool probe_need(cudaError_t error, const char *call);

/* ---- What every group has (probe.c) ---------------------------------------------------------- */

struct probe_scene {
    cudaStream_t a, b;     /* non-blocking */
    unsigned char *device; /* `bytes` of each */
    unsigned char *pinned;
    size_t bytes;
};

/* Measured on a GPU; on the stand-in it only has to run. */
static inline unsigned probe_times(bool on_stand_in, unsigned on_gpu)
{
    return on_stand_in ? (on_gpu + 99) / 100 : on_gpu;
}

double probe_us(void);

/* The signature has changed in 13.0. One attribute for all copies. */
cudaError_t probe_batch(void *const *to, const void *const *from, const size_t *bytes, size_t count,
                        struct cudaMemcpyAttributes attributes, cudaStream_t stream);
/* To the device or from it, sources in any order unless `in_stream_order`. */
struct cudaMemcpyAttributes probe_attributes(bool up, bool in_stream_order, bool overlap);

/*
 * An entry point of the driver, by its name and the version of its signature, so that the program
 * starts without one. False: there is none.
 */
bool probe_driver(const char *name, unsigned version, void *function);

/* ---- What differs between the runtime and the stand-in --------------------------------------- */

/* Four bytes of pinned memory that a stream writes, and with them all that was before the write. */
uint32_t probe_read_word(const void *word);

extern const bool probe_on_stand_in;
/* A run begins, a run ends: what the stand-in reports is not asked here. */
void probe_begin(void);
void probe_end(void);
/* What is enqueued on the stream behind this waits. One stream at a time. */
void probe_hold(cudaStream_t stream);
void probe_release(cudaStream_t stream);
cudaError_t probe_capture_begin(cudaStream_t stream);
cudaError_t probe_capture_end(cudaStream_t stream);
/* Is there a primary context on device 0? -1: nobody says. */
int probe_context_is_active(void);

/* ---- Kernels: probe_kernels.cu, probe_kernels_none.c without nvcc, the stand-in's ------------ */

bool probe_kernels_available(void);
cudaError_t probe_kernel_empty(cudaStream_t stream);
/* The library's own kernel, with this many thread blocks. */
cudaError_t probe_kernel_gather(unsigned thread_blocks, const struct kvbi_gather *gather,
                                cudaStream_t stream);

/* ---- The groups ------------------------------------------------------------------------------ */

void probe_contexts(const struct probe_scene *none);     /*   1 -   9 */
void probe_first_launch(const struct probe_scene *none); /* 10 - 14 */
void probe_errors(const struct probe_scene *scene);      /*  15 -  39 */
void probe_memory(const struct probe_scene *scene);      /*  40 -  59 */
void probe_batches(const struct probe_scene *scene);     /*  60 -  69 */
void probe_captures(const struct probe_scene *scene);    /*  70 -  99 */
void probe_streams(const struct probe_scene *scene);     /* 100 - 119 */
void probe_defaults(const struct probe_scene *scene);    /* 120 - 139 */
void probe_words(const struct probe_scene *scene);       /* 140 - 149 */
void probe_depths(const struct probe_scene *scene);      /* 150 - 159 */
void probe_costs(const struct probe_scene *scene);       /* 160 - 179 */
void probe_pinning(const struct probe_scene *scene);     /* 180 - 189 */
void probe_speeds(const struct probe_scene *scene);      /* 200 - 229 */

#endif
