/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fences - points in the server's streams, as events of our own
 *
 * Owns       a ring of events, taken at create; number n lies at n modulo its size, and numbers are given out in order, from 1.
 * Callers    import from any thread; reached and wait from progress.
 * Invariants numbers below `first` are reached, or void: of a call that was refused, so that nobody has them, or spoiled. An event is
 *            recorded by the call that took its number, and given out anew only once it is below `first`.
 * Lock       `lock` (rank KVBI_RANK_ENGINE) guards the numbers, never held while CUDA is called: recording may block in the driver
 *            while a stream's queue is full. Between looking up an event and using it the event may be given out anew: whoever waits
 *            for it then waits for a later point, which is more and never less.
 * Why        one order for all: "not before n" is one number a block, and a stream that has waited for n has waited for all before.
 *            Between the question whether a stream is being captured and the record it may begin to be. Then our event is a node of the
 *            server's graph, and stands for no point in time. Asking once more finds that, but for a capture that ended in between: such
 *            a number is spoiled, and what waits for it fails. The next record makes the event a plain one again.
 */
#ifndef KVBI_TRANSFER_CUDA_FENCES_H
#define KVBI_TRANSFER_CUDA_FENCES_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/lock.h"
#include "base/log.h"
#include "base/why.h"
#include "transfer/cuda/device.h"

/* Fences that are not reached, at once. A step has two or three, and seldom are more than a few steps under way. */
#define KVBI_CUDA_FENCES 1024u

struct kvbi_cuda_fence {
    cudaEvent_t event;
    bool recorded;
    bool refused;     /* its number is nobody's */
    uint64_t spoiled; /* the last of its numbers that was; 0: none */
};

struct kvbi_cuda_fences {
    struct kvbi_cuda *cuda;
    const struct kvbi_log *log;
    cudaStream_t stream; /* ours: waits for the caller's events and records our own behind */
    struct kvbi_cuda_fence *ring;
    uint32_t created; /* events that exist */

    struct kvbi_lock lock;
    uint64_t first, next;
    _Atomic uint64_t reached; /* the number below `first`; read without the lock */
};

/* 0, or KVB_ENOMEM, KVB_EDEVICE. */
int kvbi_cuda_fences_create(struct kvbi_cuda_fences *fences, struct kvbi_cuda *cuda,
                            const struct kvbi_log *log);
void kvbi_cuda_fences_destroy(struct kvbi_cuda_fences *fences); /* legal on a zeroed object */

/*
 * The number of a fence of one of CUDA's kinds. 0, or KVB_EINVAL, KVB_EAGAIN, KVB_EDEVICE, and
 * `why` (may be NULL) says more.
 */
int kvbi_cuda_fences_import(struct kvbi_cuda_fences *fences, const struct kvb_fence *fence,
                            uint64_t *number, struct kvbi_why *why);

/* The number up to which the host has seen all reached, after a look. From progress, which alone spoils numbers. */
uint64_t kvbi_cuda_fences_passed(struct kvbi_cuda_fences *fences, struct kvbi_cuda_scope *scope);
/* Has it passed without standing for a point in time? What waits for it cannot. Any thread. */
bool kvbi_cuda_fences_spoiled(struct kvbi_cuda_fences *fences, uint64_t number);

/*
 * `stream`, which has waited for all up to *waited, waits for all up to `number`. Any thread. The caller checks the result: it knows whose
 * the stream is.
 */
cudaError_t kvbi_cuda_fences_wait(struct kvbi_cuda_fences *fences, cudaStream_t stream,
                                  uint64_t *waited, uint64_t number);

/*
 * May the library enqueue on this stream of the caller's, or have it wait? 0, or KVB_EINVAL,
 * KVB_EDEVICE and why.
 */
int kvbi_cuda_fences_check_stream(const struct kvbi_cuda_fences *fences,
                                  struct kvbi_cuda_scope *scope, cudaStream_t stream,
                                  struct kvbi_why *why);

#endif
