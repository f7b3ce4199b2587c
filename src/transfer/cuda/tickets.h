/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tickets - points in the server's streams, each by an event of our own
 *
 * Owns       a ring of events, taken at create, and the GPU's lines (block/ticket.h): some with a
 *            stream of ours, the others for streams of the server.
 * Callers    import, both and wait from any thread; look from progress, and from an import that
 *            finds the ring full.
 * Invariants numbers are given out in one order over all lines; that of ticket n lies at n modulo
 *            the ring's size. A number whose place is taken is left out, so a ticket that is not
 *            reached for long is in nobody's way. A line's tickets are a chain in order; those
 *            before its first are reached, or void: of a call that was refused, so that nobody has
 *            them, or captured. A line belongs to one stream until all of its tickets are reached.
 * Lock       `lock` (rank KVBI_RANK_ENGINE) guards all of it, never held while CUDA is called:
 *            recording may block in the driver while a stream's queue is full. Between looking up
 *            an event and using it the event may be given out anew: whoever waits for it then waits
 *            for a later ticket, which is more and never less.
 * Why        a line a stream, so that what waits for one stream waits for no other. A ticket is one
 *            word for a slot, and implies those before it on its line: two calls that record in one
 *            stream at once may do so in either order, so whoever waits for a ticket waits for the
 *            events of all before it as well. For the same reason a stream's handle is name enough
 *            for it: if it is another stream's by then, nothing is early. An event of the server's
 *            cannot be kept, so one of our streams waits for it and records its own behind.
 *            Between the question whether a stream is being captured and the record it may begin to
 *            be. Then our event is a node of the server's graph, and stands for no point in time.
 *            Asking once more finds that, but for a capture that ended in between: such a ticket is
 *            captured, and what waits for it fails. The next record makes the event a plain one
 *            again.
 */
#ifndef KVBI_TRANSFER_CUDA_TICKETS_H
#define KVBI_TRANSFER_CUDA_TICKETS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/lock.h"
#include "base/log.h"
#include "base/why.h"
#include "block/ticket.h"
#include "transfer/cuda/device.h"
#include "transfer/engine.h"

/*
 * Tickets that are not reached, at once. A step has two or three, and seldom are more than a few
 * steps under way.
 */
#define KVBI_CUDA_TICKETS 1024u
/*
 * Lines with a stream of ours: for the server's events, and for what waits for two streams, and
 * where there are more streams than lines. Two, as each is a stream more that competes for the
 * GPU's queues.
 */
#define KVBI_CUDA_LINE_EVENTS 0u
#define KVBI_CUDA_LINE_BOTH 1u
#define KVBI_CUDA_OWN_LINES 2u
/*
 * Of one stream of ours, at once: half of what a stream takes before the caller waits in the driver
 * (vllm issue 29013). An event of the server's takes two of them.
 */
#define KVBI_CUDA_OWN_ENTRIES 512u

struct kvbi_cuda_ticket {
    cudaEvent_t event;
    uint64_t number;  /* 0: it is free */
    uint32_t next;    /* on its line, or KVBI_NONE */
    uint32_t entries; /* of a stream of ours */
    bool recorded;
    bool refused; /* its ticket is nobody's */
};

struct kvbi_cuda_line {
    cudaStream_t stream;    /* ours, or the server's: whose tickets they are */
    uint32_t first, last;   /* of those that are not reached; places in the ring */
    _Atomic uint32_t count; /* written with the lock, read without */
    uint32_t entries;       /* of theirs */
    uint64_t used;          /* the number of its last ticket; 0: it has had none */
};

struct kvbi_cuda_tickets {
    struct kvbi_cuda *cuda;
    const struct kvbi_log *log;
    struct kvbi_lines *lines;
    struct kvbi_cuda_ticket *ring;
    uint32_t created; /* events that exist */

    struct kvbi_lock lock;
    uint64_t next;
    uint32_t pending; /* on all lines */
    struct {
        uint64_t a, b, ticket;
    } last_both; /* blocks of one call have the same two */
    struct kvbi_cuda_line all[KVBI_LINE_STREAMS];
};

/* Which of the GPU's lines a ticket is on, from 0. */
static inline uint32_t kvbi_cuda_line_of(uint64_t ticket)
{
    return kvbi_ticket_line(ticket) - KVBI_LINE_STREAM;
}

/* What a stream has waited for, by line. All zero: nothing. */
struct kvbi_cuda_waited {
    uint64_t numbers[KVBI_LINE_STREAMS];
};

/* `lines` must outlive it. 0, or KVB_ENOMEM, KVB_EDEVICE. */
int kvbi_cuda_tickets_create(struct kvbi_cuda_tickets *tickets, struct kvbi_cuda *cuda,
                             struct kvbi_lines *lines, const struct kvbi_log *log);
void kvbi_cuda_tickets_destroy(struct kvbi_cuda_tickets *tickets); /* legal on a zeroed object */

/* kvbi_stream_ops.import and .both. */
int kvbi_cuda_tickets_import(struct kvbi_cuda_tickets *tickets, const struct kvb_fence *fence,
                             uint64_t *ticket, struct kvbi_why *why);
uint64_t kvbi_cuda_tickets_both(struct kvbi_cuda_tickets *tickets, uint64_t a, uint64_t b);

/* Looks, and lets the lines advance. */
void kvbi_cuda_tickets_look(struct kvbi_cuda_tickets *tickets, struct kvbi_cuda_scope *scope);

/* How many events there are to wait for at most, for who has waited for `waited`. No lock. */
uint32_t kvbi_cuda_tickets_count(const struct kvbi_cuda_tickets *tickets,
                                 const struct kvbi_cuda_waited *waited, uint64_t ticket);
/*
 * `stream`, which has waited for `waited`, waits for `ticket` and all before it on its line. Any
 * thread. The caller checks the result: it knows whose the stream is.
 */
cudaError_t kvbi_cuda_tickets_wait(struct kvbi_cuda_tickets *tickets, cudaStream_t stream,
                                   struct kvbi_cuda_waited *waited, uint64_t ticket);

/*
 * May the library enqueue on this stream of the caller's, or have it wait? 0, or KVB_EINVAL,
 * KVB_EDEVICE and why.
 */
int kvbi_cuda_tickets_check_stream(const struct kvbi_cuda_tickets *tickets,
                                   struct kvbi_cuda_scope *scope, cudaStream_t stream,
                                   struct kvbi_why *why);
/* A stream of ours that is asked whether the context is well. */
static inline cudaStream_t kvbi_cuda_tickets_own(const struct kvbi_cuda_tickets *tickets)
{
    return tickets->all[0].stream;
}

#endif
