/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one interface of all transfer engines: batches of {source, target} in, one result a block
 * out.
 *
 * An engine moves bytes between two kinds of memory. It never calls the pipeline, never moves a
 * state: it posts completions, which progress reaps and applies. Progress alone calls submit, reap
 * and drain (one thread at a time); calls about tickets come from any thread.
 *
 * Tickets (block/ticket.h): points to wait for, each on a line. A copy waits for two. Those on a
 * GPU's lines only the GPU's engine is given, whose streams wait for them; for all others the copy
 * waits at the host, with every engine. All engines of a manager look at the same lines.
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
#include "block/ticket.h"
#include "transfer/tier.h"

struct kvbi_copy {
    const struct kvbi_tier *from, *to;
    uint32_t from_slot, to_slot;
    struct kvbi_tickets tickets; /* not before both are reached */
    uint64_t cookie;             /* the submitter's, returned with the completion */
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
    /* What it has allocated for its tables. */
    size_t (*bytes)(const struct kvbi_engine *engine);
    /*
     * A line has advanced. True if copies that wait at the host may have become ready. Any thread.
     */
    bool (*signal)(struct kvbi_engine *engine);
    /*
     * Gives up a copy that waits at the host for a ticket: all of it comes out of reap, with
     * KVB_ECANCELED. False: it does not wait for that, or not any more. In constant time; the one
     * call besides calls about tickets that may be made under the store's lock.
     */
    bool (*recall)(struct kvbi_engine *engine, uint32_t place, uint64_t cookie);
};

/* The latest points on the lines of a GPU that a stream is to wait for. All zero: none. */
struct kvbi_stream_points {
    uint64_t lines; /* bits, from KVBI_LINE_STREAM on: `numbers` of the others mean nothing */
    uint64_t numbers[KVBI_LINE_STREAMS];
};

static inline void kvbi_stream_points_add(struct kvbi_stream_points *points, uint64_t ticket)
{
    uint32_t line = kvbi_ticket_line(ticket) - KVBI_LINE_STREAM;
    uint64_t number = kvbi_ticket_number(ticket), bit = UINT64_C(1) << line;
    if (!(points->lines & bit) || number > points->numbers[line])
        points->numbers[line] = number;
    points->lines |= bit;
}

/* The ticket of a line of which the bit is set. */
static inline uint64_t kvbi_stream_point(const struct kvbi_stream_points *points, uint32_t bit)
{
    return kvbi_ticket(KVBI_LINE_STREAM + bit, points->numbers[bit]);
}

/*
 * Of an engine that works on the streams of a device. A flight is a batch of copies that has begun.
 */
#define KVBI_FLIGHT_NONE 64u
#define KVBI_FLIGHT_QUEUED 65u
struct kvbi_stream_ops {
    /*
     * The ticket of a fence of the device's kinds: of the point's own line, if it is in a stream.
     * KVB_EINVAL, KVB_EAGAIN: too many are not reached, KVB_EDEVICE; `why` (may be NULL) gets words
     * where the fence itself does not show what is wrong with it. Any thread, no lock held.
     */
    int (*import)(struct kvbi_engine *engine, const struct kvb_fence *fence, uint64_t *ticket,
                  struct kvbi_why *why);
    /*
     * A ticket that is reached once both are, which are on the device's lines; 0: there is none to
     * be had. Any thread, no lock held.
     */
    uint64_t (*both)(struct kvbi_engine *engine, uint64_t a, uint64_t b);
    /*
     * The flight, below 64, that writes this slot of the device. KVBI_FLIGHT_NONE: the engine has
     * no copy into it; KVBI_FLIGHT_QUEUED: it has not begun. Any thread; no lock.
     */
    uint32_t (*flight)(struct kvbi_engine *engine, uint32_t slot);
    /*
     * Somebody awaits a ticket on the device's lines: wake_fd is to become readable now and then.
     * From progress.
     */
    void (*watch)(struct kvbi_engine *engine, bool awaited);
    /*
     * Makes `stream`, the caller's, wait for the flights of which a bit is set, up to and including
     * `layer`, and for `points`. A flight that is over by then costs nothing; one that has begun
     * anew since is waited for as well: more than was asked for, and never less. Any thread, no
     * lock held. 0, KVB_EINVAL, KVB_EDEVICE; KVB_EAGAIN: a flight has no end that can be waited
     * for. `why` gets words where the device's runtime has some.
     */
    int (*wait)(struct kvbi_engine *engine, uint64_t flights,
                const struct kvbi_stream_points *points, void *stream, uint32_t layer,
                struct kvbi_why *why);
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
    struct kvbi_lines *lines;        /* the manager's */
    uint32_t capacity;               /* copies with each engine at most */
    bool own_thread; /* submit and reap come from the manager's thread; else from whoever polls */
    const struct kvbi_memory *memory;
    struct kvbi_clock *clock;
    const struct kvbi_log *log;
    const struct kvbi_hooks *hooks; /* or NULL */
};

#endif
