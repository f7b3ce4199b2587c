/* SPDX-License-Identifier: Apache-2.0 */
/*
 * registration - host memory that a GPU reads and writes directly
 *
 * Owns       the registration of a host tier's memory, piece by piece, and the threads that make
 *            it.
 * Callers    cuda.h has create and destroy; the engine asks whether a block is registered.
 * Invariants pieces are whole pages, share none and are registered in order of address;
 *            registered_pieces only grows. A block that lies in one of them is registered. Where
 *            the memory begins on a page that is every block; else one at each edge lies in two and
 *            never counts as registered. A piece that is refused ends it: what is behind stays
 *            unregistered, is counted, and said. Between two registrations, whoever makes them,
 *            lies a pause (the caller's duty_percent) that destroy ends.
 * Lock       `lock` (rank KVBI_RANK_ENGINE) hands pieces to the threads; registered_pieces is
 *            atomic.
 * Why        pages are touched by several threads at once and on the GPU's own node before one
 *            thread registers them: registering is one call at a time in the driver, and faulting 4
 *            KiB pages inside it takes most of its time. Pieces are small and apart, because every
 *            launch of the process waits while one is registered: back to back they have kept a
 *            server's launches out for as long as all of it took (TensorRT-LLM #17773, vLLM
 *            #42632). The first blocks are registered at once; a copy that crosses two
 *            registrations is refused by CUDA.
 *            registration.c cuts, creates and destroys; registration_work.c is what the threads do.
 */
#ifndef KVBI_TRANSFER_CUDA_REGISTRATION_H
#define KVBI_TRANSFER_CUDA_REGISTRATION_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/hooks.h"
#include "base/lock.h"
#include "transfer/cuda/cuda.h"
#include "transfer/cuda/device.h"

#define KVBI_REGISTER_THREADS_MAX 64u

struct kvbi_cuda_registration {
    struct kvbi_registration registration; /* how the tier knows it; its first member */
    struct kvbi_cuda *cuda;
    const struct kvbi_memory *memory;
    const struct kvbi_log *log;
    const struct kvbi_hooks *hooks; /* or NULL */
    unsigned char *origin;          /* the first piece begins here: the page of the first block */
    uint64_t lead_bytes;            /* from there to the first block */
    uint64_t total_bytes, block_bytes;
    uint64_t piece_bytes, piece_count;
    bool owned; /* the memory is the library's */
    bool given; /* the caller has registered it, nobody knows in which pieces: each block is one */
    int node;   /* the GPU's, or -1 */
    pthread_t threads[KVBI_REGISTER_THREADS_MAX];
    uint32_t thread_count;
    uint32_t duty_percent;
    struct kvbi_clock clock; /* CLOCK_MONOTONIC: the driver's locks know no other */
    _Atomic uint64_t registered_pieces, refused_bytes;
    _Atomic bool refused; /* a piece has been, and ended it */

    struct kvbi_lock lock;
    uint64_t next_touch; /* piece */
    bool *touched;
    bool stop;
    bool registering;         /* a thread is */
    bool waiting;             /* a thread does, for the end of a pause */
    uint64_t quiet_until_ns;  /* nothing is registered before; 0: nothing has been */
    struct kvbi_cond stopped; /* `stop` ends a pause */
};

/* Of the blocks that lie in one of the first `pieces`. */
uint64_t kvbi_cuda_registration_bytes_within(const struct kvbi_cuda_registration *r,
                                             uint64_t pieces);
/*
 * The pages of a piece. The first and the last may share a page with what lies beside: registering
 * that does no harm.
 */
void kvbi_cuda_registration_piece_range(const struct kvbi_cuda_registration *r, uint64_t piece,
                                        unsigned char **start, uint64_t *bytes);

/*
 * Pages that this thread touches first come from the GPU's node, if it has some. Where it is not
 * allowed they come from anywhere.
 */
void kvbi_cuda_registration_prefer_node(int node);
/*
 * Touches and registers pieces until there is no more to do for this thread: all is registered or
 * somebody else will see to the rest, a piece was refused, or the registration is being destroyed.
 */
void kvbi_cuda_registration_work(struct kvbi_cuda_registration *r);

extern const struct kvbi_registration_ops kvbi_cuda_registration_ops;

/* What has been pinned of this tier; NULL: it has not been tried. */
static inline struct kvbi_cuda_registration *kvbi_cuda_registration_of(const struct kvbi_tier *tier)
{
    struct kvbi_registration *registration = tier->registration;
    return registration != NULL && registration->ops == &kvbi_cuda_registration_ops
               ? (struct kvbi_cuda_registration *)(void *)registration
               : NULL;
}

static inline bool kvbi_cuda_registration_covers(const struct kvbi_cuda_registration *r,
                                                 uint32_t slot)
{
    if (r == NULL)
        return false;
    uint64_t start = r->lead_bytes + slot * r->block_bytes, last = start + r->block_bytes - 1;
    return start / r->piece_bytes == last / r->piece_bytes &&
           last / r->piece_bytes <
               atomic_load_explicit(&r->registered_pieces, memory_order_acquire);
}

/* A name for the piece that a covered block lies in: equal for blocks that one copy may move. */
static inline const void *kvbi_cuda_registration_piece(const struct kvbi_cuda_registration *r,
                                                       uint32_t slot)
{
    uint64_t start = r->lead_bytes + slot * r->block_bytes;
    return r->origin + start / r->piece_bytes * r->piece_bytes;
}

#endif
