/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flights - batches of copies that are on a stream
 *
 * Owns       the streams, a fixed number of flights with their events, and registered buffers for
 *            blocks that are not registered themselves.
 * Callers    the engine: begin, ask, land, all from progress. The events of a flight may be waited
 *            for by any thread.
 * Invariants a flight is on one stream; its `done` event is recorded behind its last copy. The
 *            registered buffers of its blocks are given back only after the host has seen it over.
 * Lock       none. `layered` and `by_stream` are atomic: whoever makes a stream wait reads them.
 *            The rest of a flight that is running may be read by whoever knows from the engine,
 *            under its lock, that it is: it changes before it gets there and after it has left.
 * Why        two streams each way, and two more for what waits for tickets: copies that could run
 *            are never queued behind a server's step, nor those that wait for one line behind
 *            those that wait for another. A flight whose end cannot be recorded is asked for by its
 *            stream: neither buffer is given back on a guess.
 */
#ifndef KVBI_TRANSFER_CUDA_FLIGHTS_H
#define KVBI_TRANSFER_CUDA_FLIGHTS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "transfer/copy_queue.h"
#include "transfer/cuda/copies.h"
#include "transfer/cuda/tickets.h"

#define KVBI_FLIGHTS 32u
#define KVBI_FLIGHT_BLOCKS_MAX 64u
#define KVBI_STREAMS_EACH_WAY 4u
#define KVBI_STREAMS_WAITING 2u /* the last of them: for what waits for tickets */
#define KVBI_BOUNCE_BLOCKS_MAX 16u

struct kvbi_flight {
    cudaEvent_t done;
    cudaEvent_t *layers; /* one a layer */
    _Atomic bool layered;
    bool running;
    bool to_device;
    _Atomic bool by_stream; /* `done` could not be recorded */
    uint32_t stream;
    uint32_t bounces; /* registered buffers that its blocks have */
    /* what it waits for, by its own or by what is before it on its stream */
    struct kvbi_tickets tickets;
    int result; /* of all its blocks that have no other */
    struct kvbi_copy_list items;
};

/* What can be asked whether a flight is over. */
struct kvbi_flight_witness {
    cudaEvent_t done; /* NULL: its stream only */
    cudaStream_t stream;
};

struct kvbi_flight_stream {
    cudaStream_t stream;
    struct kvbi_cuda_waited waited;
    uint32_t running;            /* flights on it */
    struct kvbi_tickets tickets; /* the latest that they wait for, of one or two lines */
};

struct kvbi_flights {
    struct kvbi_cuda *cuda;
    const struct kvbi_memory *memory;
    uint32_t layer_count, created, running;
    struct kvbi_flight all[KVBI_FLIGHTS];
    cudaEvent_t *layer_events;
    struct kvbi_flight_stream streams[2 * KVBI_STREAMS_EACH_WAY];
    uint32_t next_stream[2]; /* by to_device: which stream of that way is next */

    uint64_t block_bytes;
    unsigned char *bounce; /* registered */
    uint32_t bounce_count;
    uint32_t bounce_free; /* a bit each */
};

/* KVB_ENOMEM, KVB_EDEVICE. */
int kvbi_flights_create(struct kvbi_flights *flights, struct kvbi_cuda *cuda, uint64_t block_bytes);
/* none may be running; legal on a zeroed object */
void kvbi_flights_destroy(struct kvbi_flights *flights);

/* One that is free, or NULL. */
struct kvbi_flight *kvbi_flights_free(struct kvbi_flights *flights);

/* A registered buffer of one block, or KVBI_NONE. */
uint32_t kvbi_flights_take_bounce(struct kvbi_flights *flights);
void kvbi_flights_give_bounce(struct kvbi_flights *flights, uint32_t index);
unsigned char *kvbi_flights_bounce(const struct kvbi_flights *flights, uint32_t index);

/* What is to be done, and after which ticket. */
struct kvbi_flight_plan {
    struct kvbi_cuda_copier *copier;
    struct kvbi_cuda_tickets *points;
    struct kvbi_cuda_load load;
    struct kvbi_tickets tickets; /* on streams, not seen reached: of one or two lines, or none */
    uint32_t stream;             /* kvbi_flights_stream */
    uint32_t bounces;            /* buffers among the blocks */
    bool layered;
};

/* The latest that something waits for, line by line. False: that were a third line. */
bool kvbi_cuda_tickets_merge(struct kvbi_tickets *tickets, uint64_t ticket);
/* Are they on the same lines, whichever way round? */
bool kvbi_cuda_tickets_on_same_lines(struct kvbi_tickets a, struct kvbi_tickets b);

/* What flights have that wait for tickets that are not reached. */
struct kvbi_flights_waiting {
    uint32_t flights, bounces;
};

/*
 * The stream for a flight that waits for these tickets: one on which nothing else waits but for the
 * same lines. KVBI_NONE: there is none now.
 */
uint32_t kvbi_flights_stream(struct kvbi_flights *flights, bool to_device,
                             struct kvbi_tickets tickets);

/*
 * Puts the copies on a stream. If the method fails, block by block: then errors[i] says which could
 * not be enqueued, and the others are on their way.
 */
void kvbi_flight_begin(struct kvbi_flights *flights, struct kvbi_flight *flight,
                       struct kvbi_cuda_scope *scope, const struct kvbi_flight_plan *plan,
                       cudaError_t *errors);
struct kvbi_flight_witness kvbi_flight_witness(const struct kvbi_flights *flights,
                                               const struct kvbi_flight *flight);
/*
 * cudaSuccess: it is over. cudaErrorNotReady. Any other: neither its event nor its stream can be
 * asked, and the context is lost. Nobody says then whether what a copy engine had begun still runs.
 * If the event alone cannot be asked the GPU is lost as well, unless a capture is in the way, but
 * the buffers are not: the stream says when.
 */
cudaError_t kvbi_flight_ask(struct kvbi_flight_witness witness, struct kvbi_cuda_scope *scope);
/* Waits until it is over. */
void kvbi_flight_wait(const struct kvbi_flights *flights, const struct kvbi_flight *flight,
                      struct kvbi_cuda_scope *scope);
/* Does it wait for a ticket that is not reached? */
bool kvbi_flight_waits(const struct kvbi_flight *flight, const struct kvbi_lines *lines);
struct kvbi_flights_waiting kvbi_flights_waiting(const struct kvbi_flights *flights,
                                                 const struct kvbi_lines *lines);
void kvbi_flight_land(struct kvbi_flights *flights, struct kvbi_flight *flight);

#endif
