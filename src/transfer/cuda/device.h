/* SPDX-License-Identifier: Apache-2.0 */
/*
 * device - one GPU: its context, whether it is still there, and how calls to CUDA leave no trace in
 * the caller's thread
 *
 * Owns       a reference on the GPU's primary context, which the server shares; the tier's memory
 *            if it is the library's.
 * Callers    transfer/cuda/. Every call to CUDA is made between enter and leave, and its result
 *            goes through kvbi_cuda_check.
 * Invariants after leave the thread's current context and capture mode are what they were before
 *            enter, and an error of ours is not pending; an error that was pending before enter
 *            still is one. `failure` is set once and never cleared.
 * Lock       none; `failure` is atomic, the rest is fixed at create.
 * Why        the context is pushed through the driver: cudaSetDevice, to put back what was there,
 *            would make a context on a GPU that the caller's thread has named but never used.
 *            Relaxed capture mode: while any thread of the server captures a graph in global mode,
 *            an event query of ours would break it otherwise.
 */
#ifndef KVBI_TRANSFER_CUDA_DEVICE_H
#define KVBI_TRANSFER_CUDA_DEVICE_H

#include <cuda_runtime_api.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/memory.h"
#include "transfer/strides.h"

/* Beside CUDA's own numbers: the tier's memory is no device memory any more. */
#define KVBI_CUDA_MEMORY_GONE (-1)

/*
 * The driver's functions that the runtime has no name for. CUcontext and CUresult stay opaque: no
 * header of the driver's.
 */
struct kvbi_cuda_driver {
    int (*retain)(void **context, int device);
    int (*release)(int device);
    int (*push)(void *context);
    int (*pop)(void **context);
    /* cuStreamWriteValue32, of its second version; NULL: this driver has none */
    int (*write_value)(cudaStream_t stream, unsigned long long address, uint32_t value,
                       unsigned flags);
};

struct kvbi_cuda {
    const struct kvbi_memory *memory;
    int device;
    void *context;
    struct kvbi_cuda_driver driver;
    struct kvbi_strides strides;
    const void *first_byte; /* of the tier's memory: is it still the device's? */
    char bus_id[32];        /* as sysfs spells it; empty: not known */
    _Atomic int failure;    /* 0, a sticky cudaError_t, or KVBI_CUDA_MEMORY_GONE */
};

struct kvbi_cuda_scope {
    struct kvbi_cuda *cuda;
    enum cudaStreamCaptureMode mode; /* the thread's own */
    bool pushed;
    bool pending; /* an error was pending before */
    bool failed;  /* a call of ours has left one */
};

/* Drivers, ordinal, context. 0, or the reason in `message`. */
int kvbi_cuda_open(struct kvbi_cuda **cuda, const struct kvbi_memory *memory, uint32_t device,
                   char *message, size_t message_bytes);

/* Nestable. */
void kvbi_cuda_enter(struct kvbi_cuda *cuda, struct kvbi_cuda_scope *scope);
void kvbi_cuda_leave(struct kvbi_cuda_scope *scope);
/* Remembers what went wrong, for leave, and for ever if it is the context. Returns `error`. */
cudaError_t kvbi_cuda_check(struct kvbi_cuda_scope *scope, cudaError_t error);
/*
 * The same for a question about an event or stream of our own: any answer but yes and not yet is
 * the context's end, whatever it says.
 */
cudaError_t kvbi_cuda_check_own(struct kvbi_cuda_scope *scope, cudaError_t error);
/*
 * The same for an event of our own: one that a capture has taken is no use any more, and says
 * nothing about the context.
 */
cudaError_t kvbi_cuda_check_event(struct kvbi_cuda_scope *scope, cudaError_t error);
/*
 * The same for a call on a stream or event of the caller's, which may be another GPU's, or none: it
 * is believed about our context only if `own`, a stream of ours, agrees.
 */
cudaError_t kvbi_cuda_check_foreign(struct kvbi_cuda_scope *scope, cudaError_t error,
                                    cudaStream_t own);

/* Is the context lost with this code? */
bool kvbi_cuda_is_sticky(cudaError_t error);
/* Is it a capture that stands in the way? */
bool kvbi_cuda_is_of_capture(cudaError_t error);

static inline bool kvbi_cuda_context_lost(const struct kvbi_cuda *cuda)
{
    return atomic_load_explicit(&cuda->failure, memory_order_acquire) > 0;
}

/*
 * A stream for copies one way. Whoever waits for what comes up waits for it before a step: it goes
 * first where kernels compete.
 */
cudaError_t kvbi_cuda_create_stream(struct kvbi_cuda_scope *scope, bool to_device,
                                    cudaStream_t *stream);

/* A copy failed: is the tier's memory still what it was? If not, the tier is lost from here on. */
void kvbi_cuda_look_at_memory(struct kvbi_cuda_scope *scope);

/* KVB_E... of an error that a call on behalf of a copy or ticket has met. */
int kvbi_cuda_code(const struct kvbi_cuda *cuda, cudaError_t error);

#endif
