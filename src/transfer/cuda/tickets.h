/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tickets - points in the server's streams, each by an event of our own
 *
 * Owns       a ring of events, taken at create; that of ticket n lies at n modulo its size, and
 *            tickets are given out in order, from 1.
 * Callers    import from any thread; reached and wait from progress.
 * Invariants tickets below `first` are reached, or void: of a call that was refused, so that nobody
 *            has them, or captured. An event is recorded by the call that took its ticket, and
 *            given out anew only once it is below `first`.
 * Lock       `lock` (rank KVBI_RANK_ENGINE) guards the tickets, never held while CUDA is called:
 *            recording may block in the driver while a stream's queue is full. Between looking up
 *            an event and using it the event may be given out anew: whoever waits for it then waits
 *            for a later ticket, which is more and never less.
 * Why        one order for all: "not before n" is one ticket a block, and a stream that has waited
 *            for n has waited for all before. Between the question whether a stream is being
 *            captured and the record it may begin to be. Then our event is a node of the server's
 *            graph, and stands for no point in time. Asking once more finds that, but for a capture
 *            that ended in between: such a ticket is captured, and what waits for it fails. The
 *            next record makes the event a plain one again.
 */
#ifndef KVBI_TRANSFER_CUDA_TICKETS_H
#define KVBI_TRANSFER_CUDA_TICKETS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/lock.h"
#include "base/log.h"
#include "base/why.h"
#include "transfer/cuda/device.h"

/*
 * Tickets that are not reached, at once. A step has two or three, and seldom are more than a few
 * steps under way.
 */
#define KVBI_CUDA_TICKETS 1024u
/*
 * Of those the caller's events, for which the stream of ours has two entries each: with more of
 * them it might take no more (KVBI_STREAM_ENTRIES), and the caller would wait in the driver.
 */
#define KVBI_CUDA_TICKETS_OF_EVENTS 256u

struct kvbi_cuda_ticket {
    cudaEvent_t event;
    bool recorded;
    bool refused; /* its ticket is nobody's */
    bool of_event;
    uint64_t captured; /* the last of its tickets that was recorded into a graph; 0: none */
};

struct kvbi_cuda_tickets {
    struct kvbi_cuda *cuda;
    const struct kvbi_log *log;
    cudaStream_t stream; /* ours: waits for the caller's events and records our own behind */
    struct kvbi_cuda_ticket *ring;
    uint32_t created; /* events that exist */

    struct kvbi_lock lock;
    uint64_t first, next;
    uint32_t of_events;       /* from `first` on */
    _Atomic uint64_t reached; /* the ticket below `first`; read without the lock */
};

/* 0, or KVB_ENOMEM, KVB_EDEVICE. */
int kvbi_cuda_tickets_create(struct kvbi_cuda_tickets *tickets, struct kvbi_cuda *cuda,
                             const struct kvbi_log *log);
void kvbi_cuda_tickets_destroy(struct kvbi_cuda_tickets *tickets); /* legal on a zeroed object */

/*
 * The ticket of a fence of one of CUDA's kinds. 0, or KVB_EINVAL, KVB_EAGAIN, KVB_EDEVICE, and
 * `why` (may be NULL) says more.
 */
int kvbi_cuda_tickets_import(struct kvbi_cuda_tickets *tickets, const struct kvb_fence *fence,
                             uint64_t *ticket, struct kvbi_why *why);

/*
 * The ticket up to which the host has seen all reached, after a look. From progress, which alone
 * finds them captured.
 */
uint64_t kvbi_cuda_tickets_passed(struct kvbi_cuda_tickets *tickets, struct kvbi_cuda_scope *scope);
/* Has it passed without standing for a point in time? What waits for it cannot. Any thread. */
bool kvbi_cuda_tickets_captured(struct kvbi_cuda_tickets *tickets, uint64_t ticket);

/*
 * `stream`, which has waited for all up to *waited, waits for all up to `ticket`. Any thread. The
 * caller checks the result: it knows whose the stream is.
 */
cudaError_t kvbi_cuda_tickets_wait(struct kvbi_cuda_tickets *tickets, cudaStream_t stream,
                                   uint64_t *waited, uint64_t ticket);

/*
 * May the library enqueue on this stream of the caller's, or have it wait? 0, or KVB_EINVAL,
 * KVB_EDEVICE and why.
 */
int kvbi_cuda_tickets_check_stream(const struct kvbi_cuda_tickets *tickets,
                                   struct kvbi_cuda_scope *scope, cudaStream_t stream,
                                   struct kvbi_why *why);

#endif
