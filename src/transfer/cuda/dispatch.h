/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dispatch - items of the GPU's engine into flights and out of them
 *
 * Owns       the engine's state: the queue, tickets, flights and copier; for each item that has
 *            begun a note; for each slot of the device who writes it.
 * Callers    engine_cuda, from progress; the table of writers is read by any thread.
 * Invariants an item is in the queue's lists, in `deferred`, in one flight, or in `completed`. An
 *            item whose copy could not be enqueued stays in its flight to the end: parts of it may
 *            be on the way. The slot table says NONE only before submit and after the end.
 * Lock       the queue's, for its lists, `deferred`, `order` and `completed`; notes, flights and
 *            the copier are progress's alone, but that flights in `order` may be read with it.
 *            Never held while CUDA is called.
 */
#ifndef KVBI_TRANSFER_CUDA_DISPATCH_H
#define KVBI_TRANSFER_CUDA_DISPATCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "transfer/cuda/cuda.h"
#include "transfer/cuda/flights.h"

_Static_assert(KVBI_FLIGHTS < KVBI_FLIGHT_NONE, "the slot table holds flights, NONE and QUEUED");

struct kvbi_cuda_note {
    int result;      /* of an item that is in a flight or completed: 0 or why not */
    uint32_t bounce; /* or KVBI_NONE */
    /* the GPU was lost while it may have been writing the host's block, and may be still */
    bool abandoned;
};

struct kvbi_cuda_engine {
    struct kvbi_engine engine;
    struct kvbi_memory memory;
    const struct kvbi_hooks *hooks;
    const struct kvbi_log *log;
    const struct kvbi_tier *device;
    struct kvbi_cuda *cuda;
    struct kvbi_cuda_tickets tickets;
    struct kvbi_flights flights;
    struct kvbi_cuda_copier *copier;
    struct kvbi_cuda_note *notes;
    _Atomic uint8_t *writers; /* by slot of the device */
    int timer;
    long timer_ns; /* 0: it stands */
    bool own_thread;
    struct kvbi_clock *clock;
    /*
     * The clock may stand still: what has passed by the timer since it stands at `stands_ns`, less
     * what was taken for a reason to ask flights; has anything, since progress last looked?
     */
    uint64_t stands_ns, ticked_ns;
    bool ticked;
    bool look_now;  /* all of them, whatever the time is */
    bool lost_seen; /* under the queue's lock; since then a lost GPU is asked at pauses, too */
    uint64_t tickets_asked_ns;

    struct kvbi_copy_queue queue;
    struct kvbi_copy_list completed;
    /* by urgent: enough waits for tickets already, or no stream may wait for theirs as well */
    struct kvbi_copy_list deferred[2];
    struct kvbi_awaited awaited; /* by those */
    bool landed;                 /* a flight that had waited has, since they were looked at */
    bool watched;                /* kvbi_stream_ops.watch; progress's alone */
    uint8_t order[KVBI_FLIGHTS]; /* running flights, the oldest first */
    uint32_t order_count;
};

/*
 * Who writes the copy's target, if that is of the device: a flight's number, KVBI_FLIGHT_NONE or
 * KVBI_FLIGHT_QUEUED.
 */
void kvbi_cuda_set_writer(struct kvbi_cuda_engine *e, const struct kvbi_copy *copy,
                          uint32_t writer);
/* Puts on streams what is ready and has a flight and buffers. */
void kvbi_cuda_launch(struct kvbi_cuda_engine *e, struct kvbi_cuda_scope *scope);
/* The caller has the queue's lock: what is deferred goes back in front of what is ready. */
void kvbi_cuda_resume_locked(struct kvbi_cuda_engine *e);
/* Completes the items of flights that have landed. */
void kvbi_cuda_land(struct kvbi_cuda_engine *e, struct kvbi_cuda_scope *scope);
/* Completes what was given up before it began, and with a lost GPU whatever has not begun. */
void kvbi_cuda_give_up(struct kvbi_cuda_engine *e);
/* Completed items become completions. *more: some are left. */
uint32_t kvbi_cuda_emit(struct kvbi_cuda_engine *e, struct kvbi_completion *completions,
                        uint32_t max, bool *more);

#endif
