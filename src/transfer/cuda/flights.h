/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flights - batches of copies that are on a stream
 *
 * Owns       the streams, a fixed number of flights with their events and words, and registered
 *            buffers for blocks that are not registered themselves.
 * Callers    the engine: begin, ask, land, all from progress. The events of a flight may be waited
 *            for by any thread.
 * Invariants a flight is on one stream. Behind its last copy its number is written to its word, and
 *            its `done` event is recorded behind that: who has seen either has seen the write, so
 *            that no write of an earlier use comes after one of a later. The registered buffers of
 *            its blocks are given back only after the host has seen it over.
 * Lock       none. `layered` and `by_stream` are atomic: whoever makes a stream wait reads them.
 *            The rest of a flight that is running may be read by whoever knows from the engine,
 *            under its lock, that it is: it changes before it gets there and after it has left.
 *            When a stream was asked last is atomic: of several who look, one asks.
 * Why        two streams each way, and two more for what waits for tickets: copies that could run
 *            are never queued behind a server's step, nor those that wait for one line behind
 *            those that wait for another. A flight whose end cannot be recorded is asked for by its
 *            stream: neither buffer is given back on a guess.
 *            An event is asked seldom, because the question takes a lock that the server's launches
 *            need: a word says that a flight is over, and the event that it never will be.
 *            A stream takes about 1,000 entries, and then the call that enqueues one more waits in
 *            the driver (vllm issue 29013), with progress in it. So entries are counted.
 */
#ifndef KVBI_TRANSFER_CUDA_FLIGHTS_H
#define KVBI_TRANSFER_CUDA_FLIGHTS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "transfer/copy_queue.h"
#include "transfer/cuda/copies.h"
#include "transfer/cuda/tickets.h"
#include "transfer/cuda/words.h"

#define KVBI_FLIGHTS 32u
#define KVBI_FLIGHT_BLOCKS_MAX 64u
#define KVBI_STREAMS_EACH_WAY 4u
#define KVBI_STREAMS_WAITING 2u /* the last of them: for what waits for tickets */
#define KVBI_BOUNCE_BLOCKS_MAX 16u
/* Of the flights of one stream: half of what a stream takes. */
#define KVBI_STREAM_ENTRIES 512u
/* Between two questions to the driver about one stream: while words answer, and where none does. */
#define KVBI_ASK_NS UINT64_C(1000000)
#define KVBI_ASK_WITHOUT_WORD_NS UINT64_C(8000)

struct kvbi_flight {
    cudaEvent_t done;
    cudaEvent_t *layers; /* one a layer */
    _Atomic bool layered;
    bool running;
    bool to_device;
    _Atomic bool by_stream; /* `done` could not be recorded */
    uint32_t stream;
    uint32_t bounces; /* registered buffers that its blocks have */
    uint32_t entries; /* of its stream */
    uint32_t number;  /* of this use, which its word will have; it may wrap */
    bool by_word;     /* else nothing was written */
    /* what it waits for, by its own or by what is before it on its stream */
    struct kvbi_tickets tickets;
    int result; /* of all its blocks that have no other */
    struct kvbi_copy_list items;
};

/* What can be asked whether a flight is over. */
struct kvbi_flight_witness {
    cudaEvent_t done; /* NULL: its stream only */
    cudaStream_t stream;
    uint32_t on, word, number; /* which stream that is; its word, and what will be there */
    bool by_word;
};

struct kvbi_flight_stream {
    cudaStream_t stream;
    struct kvbi_cuda_waited waited;
    struct kvbi_tickets tickets; /* the latest that its flights wait for, of one or two lines */
    uint32_t flights, entries;
    _Atomic uint64_t asked_ns; /* when the driver was, last; 0: it may be at once */
};

struct kvbi_flights {
    struct kvbi_cuda *cuda;
    const struct kvbi_memory *memory;
    uint32_t layer_count, created, running;
    struct kvbi_flight all[KVBI_FLIGHTS];
    cudaEvent_t *layer_events;
    struct kvbi_flight_stream streams[2 * KVBI_STREAMS_EACH_WAY];
    uint32_t next_stream[2]; /* by to_device: which stream of that way is next */
    struct kvbi_cuda_words words;

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

/* What is to be done, and after which tickets. */
struct kvbi_flight_plan {
    struct kvbi_cuda_copier *copier;
    struct kvbi_cuda_tickets *points;
    struct kvbi_cuda_load load;
    uint32_t stream; /* kvbi_flights_stream */
    uint64_t now_ns;
    struct kvbi_tickets tickets; /* on streams, not seen reached: of one or two lines, or none */
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
 * Where one would go that waits for these tickets: to the emptier of two if for none; else to a
 * stream on which nothing waits but for the same lines. KVBI_NONE: there is none now.
 */
uint32_t kvbi_flights_stream(const struct kvbi_flights *flights, bool to_device,
                             struct kvbi_tickets tickets);
/* Is it one for what waits? */
static inline bool kvbi_flights_stream_waits(uint32_t stream)
{
    return stream % KVBI_STREAMS_EACH_WAY >= KVBI_STREAMS_EACH_WAY - KVBI_STREAMS_WAITING;
}
/* How many entries it may take there. */
uint32_t kvbi_flights_room(const struct kvbi_flights *flights, uint32_t stream);
/*
 * How many it takes there at most, as a flight of so many blocks, with all that the stream has to
 * wait for.
 */
uint64_t kvbi_flights_entries(const struct kvbi_flights *flights,
                              const struct kvbi_flight_plan *plan, uint32_t blocks);

/*
 * Puts the copies on a stream. If the method fails, block by block, as many as the stream takes
 * without making the caller wait: then errors[i] says which could not be enqueued, and the others
 * are on their way.
 */
void kvbi_flight_begin(struct kvbi_flights *flights, struct kvbi_flight *flight,
                       struct kvbi_cuda_scope *scope, const struct kvbi_flight_plan *plan,
                       cudaError_t *errors);
struct kvbi_flight_witness kvbi_flight_witness(const struct kvbi_flights *flights,
                                               const struct kvbi_flight *flight);
/* Does its word say that it is over? No call of the driver's. Any thread. */
bool kvbi_flight_seen(const struct kvbi_flights *flights, struct kvbi_flight_witness witness);
/*
 * Is it time to ask the driver, or `anyway`? Then that has to be done: nobody else will be told so
 * for a while. Any thread.
 */
bool kvbi_flight_may_ask(struct kvbi_flights *flights, struct kvbi_flight_witness witness,
                         uint64_t now_ns, bool anyway);
/* The driver had an answer, which somebody else is to get as well: its stream may be asked anew. */
void kvbi_flight_ask_again(struct kvbi_flights *flights, struct kvbi_flight_witness witness);
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
