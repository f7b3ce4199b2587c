/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one interface of all transfer engines: batches of {source, target} in, one result a block
 * out.
 *
 * An engine moves bytes between two kinds of memory. It never calls the pipeline, never moves a
 * state: it posts completions, which progress reaps and applies. Progress alone calls submit, reap
 * and drain (one thread at a time); calls about tickets come from any thread.
 *
 * Tickets: a ticket is a point to wait for, a number in the engine's own order of things. `import`
 * makes it of a caller's fence, in the call that takes the fence, and it never refers to the
 * caller's objects after that. 0 is always reached. Tickets of one engine are ordered: of two, the
 * larger one implies the smaller. The engine of a GPU has a second order, of points in the server's
 * streams: a ticket with the bit KVBI_TICKET_STREAM is a number in that one, and means nothing to
 * other engines.
 *
 * Lock       each engine its own, rank KVBI_RANK_ENGINE, never held while bytes move.
 */
#ifndef KVBI_TRANSFER_ENGINE_H
#define KVBI_TRANSFER_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include <kvblock.h>

#include "base/memory.h"
#include "base/why.h"
#include "transfer/tier.h"

#define KVBI_TICKET_STREAM (UINT64_C(1) << 63)

/*
 * One ticket in each of the two orders: how far something has come, or has to. The counter's, and
 * that of the server's streams on the GPU (without KVBI_TICKET_STREAM).
 */
struct kvbi_tickets {
    uint64_t counter, stream;
};

static inline bool kvbi_tickets_reached(struct kvbi_tickets tickets, struct kvbi_tickets reached)
{
    return tickets.counter <= reached.counter && tickets.stream <= reached.stream;
}

static inline struct kvbi_tickets kvbi_tickets_latest(struct kvbi_tickets a, struct kvbi_tickets b)
{
    return (struct kvbi_tickets){.counter = a.counter > b.counter ? a.counter : b.counter,
                                 .stream = a.stream > b.stream ? a.stream : b.stream};
}

struct kvbi_copy {
    const struct kvbi_tier *from, *to;
    uint32_t from_slot, to_slot;
    uint64_t ticket; /* of the counter: not before it is reached */
    /* of the GPU's order, without KVBI_TICKET_STREAM: nor before this one; 0: none */
    uint64_t stream_ticket;
    uint64_t cookie; /* the submitter's, returned with the completion */
    /* submit says here what `recall` is to name it by; NULL: it will not be recalled. */
    uint32_t *place;
    /* Of the side that outlives the process; where there is none it means nothing. */
    struct kvbi_identity identity;
    /* To such a side: what it is to say of the block. The submitter's, until completion. */
    const struct kvbi_label *label;
    bool layered; /* onto a device's streams: layer by layer, so that they can wait for each */
};

struct kvbi_completion {
    uint64_t cookie;
    int result; /* 0, KVB_ECANCELED (never started), or why the target's bytes are garbage */
    /* Not to be used again: a slot of a file, or a target that a lost device may still write. */
    bool condemned;
};

struct kvbi_clock;
struct kvbi_engine;
struct kvbi_hooks;

struct kvbi_engine_ops {
    const char *name;
    void (*destroy)(struct kvbi_engine *engine);
    /*
     * Takes all `count` copies or none: 0, or KVB_EAGAIN if the queue has no room for all. `urgent`
     * ones (onboarding) are begun before any other that has not begun. Engines to whom it makes a
     * difference join adjacent slots into one copy.
     */
    int (*submit)(struct kvbi_engine *engine, const struct kvbi_copy *copies, uint32_t count,
                  bool urgent);
    /*
     * Up to `max` completions. Engines without a device of their own do the copying here, until
     * `until_ns` by the clock has passed (at least one copy is completed if any is ready). Sets
     * *more if copies are ready that time did not allow.
     */
    uint32_t (*reap)(struct kvbi_engine *engine, struct kvbi_completion *completions, uint32_t max,
                     uint64_t until_ns, bool *more);
    /* Readable while completions wait; -1 if the engine works in reap only. */
    int (*wake_fd)(struct kvbi_engine *engine);
    /* Something that reap could complete now? Any thread. */
    bool (*ready)(struct kvbi_engine *engine);
    /*
     * Give up what has not begun, wait for what has. All of it comes out of reap, the former with
     * KVB_ECANCELED.
     */
    void (*drain)(struct kvbi_engine *engine);
    /*
     * The ticket of a fence. KVB_EINVAL: a kind that this engine does not know. A GPU's: also
     * KVB_EAGAIN, KVB_EDEVICE. `why` (may be NULL) gets words where the fence itself does not show
     * what is wrong with it.
     */
    int (*import)(struct kvbi_engine *engine, const struct kvb_fence *fence, uint64_t *ticket,
                  struct kvbi_why *why);
    /* What it has allocated for its tables. */
    size_t (*bytes)(const struct kvbi_engine *engine);
    /* KVB_FENCE_COUNTER has been signalled up to `value`. True if copies may have become ready. */
    bool (*signal)(struct kvbi_engine *engine, uint64_t value);
    /*
     * Gives up a copy that waits for its ticket: all of it comes out of reap, with KVB_ECANCELED.
     * False: it does not wait for that, or not any more. In constant time; the one call besides
     * calls about tickets that may be made under the store's lock.
     */
    bool (*recall)(struct kvbi_engine *engine, uint32_t place, uint64_t cookie);
};

/*
 * Of an engine that works on the streams of a device. Events are points in these streams, numbered
 * in one order; a flight is a batch of copies that has begun.
 */
#define KVBI_FLIGHT_NONE 64u
#define KVBI_FLIGHT_QUEUED 65u
struct kvbi_stream_ops {
    /*
     * The flight, below 64, that writes this slot of the device. KVBI_FLIGHT_NONE: the engine has
     * no copy into it; KVBI_FLIGHT_QUEUED: it has not begun. Any thread; no lock.
     */
    uint32_t (*flight)(struct kvbi_engine *engine, uint32_t slot);
    /*
     * Was this number the fence of a stream or event that turned out to be part of a capture? What
     * waits for it fails. Any thread.
     */
    bool (*captured)(struct kvbi_engine *engine, uint64_t ticket);
    /* The event up to which all are known to be reached. Any thread, no lock, no driver's call. */
    uint64_t (*reached)(struct kvbi_engine *engine);
    /*
     * As long as no event beyond `until` is reached, wake_fd is to become readable now and then
     * (UINT64_MAX: not for that). From progress.
     */
    void (*watch)(struct kvbi_engine *engine, uint64_t until);
    /*
     * Makes `stream`, the caller's, wait for the flights of which a bit is set, up to and including
     * `layer`, and for `event` (0: none). A flight that is over by then costs nothing; one that has
     * begun anew since is waited for as well: more than was asked for, and never less. Any thread,
     * no lock held. 0, KVB_EINVAL, KVB_EDEVICE; KVB_EAGAIN: a flight has no end that can be waited
     * for. `why` gets words where the device's runtime has some.
     */
    int (*wait)(struct kvbi_engine *engine, uint64_t flights, uint64_t ticket, void *stream,
                uint32_t layer, struct kvbi_why *why);
};

/* What an engine says of itself, with a little room. */
#define KVBI_ENGINE_SAID_BYTES 448

struct kvbi_engine {
    const struct kvbi_engine_ops *ops;
    const struct kvbi_stream_ops *streams; /* NULL: it knows none */
    /*
     * wake_fd stays readable, and is waited for edge-triggered (EPOLLET). Only if it was created
     * for that.
     */
    bool edge_triggered;
};

/* What an engine is made from: by transfer/engines, for operation create_engine of a tier. */
struct kvbi_engines_config {
    const struct kvbi_tier *tiers; /* KVB_TIER_COUNT, by tier */
    const struct kvb_tier_config *configs;
    struct kvbi_engine *host;        /* of host memory, made already; or NULL */
    const struct kvbi_tier *between; /* memory of a relay that it will also copy to; or NULL */
    uint32_t capacity;               /* copies with each engine at most */
    bool own_thread; /* submit and reap come from the manager's thread; else from whoever polls */
    const struct kvbi_memory *memory;
    struct kvbi_clock *clock;
    const struct kvbi_log *log;
    const struct kvbi_hooks *hooks; /* or NULL */
};

#endif
