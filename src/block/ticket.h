/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A ticket is a point to wait for: a number on a line.
 *
 * Owns       nothing: the lines of a manager are in transfer/engines.
 * Callers    block/ (a slot holds one), store/ and offload/ (what waits), transfer/ (who advances).
 * Invariants on one line the larger number implies the smaller. Two lines have nothing to do with
 *            each other: what waits for one never waits for another. A line's `reached` only grows,
 *            and is written by whoever advances the line: callers of kvb_fence_signal, progress
 *            for the rest.
 * Lock       none: `reached` is atomic. struct kvbi_awaited is its owner's.
 * Why        lines 0..63 are the caller's counters; 64..126 are points in the streams of a GPU; the
 *            last is for points on two lines of which no stream can wait for both
 *            (transfer/joint.h). 56 bits of a number: a counter that is raised every nanosecond
 *            takes two years to use them up.
 */
#ifndef KVBI_BLOCK_TICKET_H
#define KVBI_BLOCK_TICKET_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define KVBI_LINE_COUNT 128u
#define KVBI_LINE_COUNTERS 64u
#define KVBI_LINE_STREAM 64u /* the first of the GPU's */
#define KVBI_LINE_STREAMS 63u
#define KVBI_LINE_JOINT 127u

#define KVBI_NUMBER_BITS 56
#define KVBI_NUMBER_MAX ((UINT64_C(1) << KVBI_NUMBER_BITS) - 1)

/* Tickets that stand for no point in time, as many as are remembered. */
#define KVBI_CAPTURED_MAX 256u

struct kvbi_lines {
    _Atomic uint64_t reached[KVBI_LINE_COUNT];
    _Atomic uint64_t moves; /* how often one of them has advanced */
    _Atomic uint64_t captured[KVBI_CAPTURED_MAX];
    _Atomic uint64_t captured_count; /* so far; the latest are remembered */
};

/* Two, of both of which something waits: a copy for its source's and its target's. 0: for none. */
struct kvbi_tickets {
    uint64_t source, target;
};

static inline uint64_t kvbi_ticket(uint32_t line, uint64_t number)
{
    return (uint64_t)line << KVBI_NUMBER_BITS | number;
}

static inline uint32_t kvbi_ticket_line(uint64_t ticket)
{
    return (uint32_t)(ticket >> KVBI_NUMBER_BITS);
}

static inline uint64_t kvbi_ticket_number(uint64_t ticket)
{
    return ticket & KVBI_NUMBER_MAX;
}

/* Can a stream of the GPU wait for it? Else only the host can. */
static inline bool kvbi_ticket_is_stream(uint64_t ticket)
{
    uint32_t line = kvbi_ticket_line(ticket);
    return line >= KVBI_LINE_STREAM && line < KVBI_LINE_JOINT;
}

static inline bool kvbi_ticket_reached(const struct kvbi_lines *lines, uint64_t ticket)
{
    return ticket == 0 || kvbi_ticket_number(ticket) <=
                              atomic_load_explicit(&lines->reached[kvbi_ticket_line(ticket)],
                                                   memory_order_acquire);
}

static inline bool kvbi_tickets_reached(const struct kvbi_lines *lines, struct kvbi_tickets tickets)
{
    return kvbi_ticket_reached(lines, tickets.source) && kvbi_ticket_reached(lines, tickets.target);
}

/* The line has come to `number`, unless it is further already. True: it has advanced. */
bool kvbi_lines_advance(struct kvbi_lines *lines, uint32_t line, uint64_t number);

/*
 * A point in a stream has turned out to be part of a graph: it stands for no point in time, and
 * what waits for it fails. Said before its line advances to it: who sees it reached sees this too.
 */
void kvbi_lines_capture(struct kvbi_lines *lines, uint64_t ticket);
bool kvbi_lines_captured(const struct kvbi_lines *lines, uint64_t ticket);

/*
 * What somebody waits for: the earliest number on each line. As long as no line has come to its
 * own, nothing of it can have become ready. All zero: nobody waits.
 */
struct kvbi_awaited {
    uint64_t lines[KVBI_LINE_COUNT / 64]; /* bits: `numbers` of the others mean nothing */
    bool now;                             /* something is ready already */
    uint64_t numbers[KVBI_LINE_COUNT];
};

void kvbi_awaited_clear(struct kvbi_awaited *awaited);
void kvbi_awaited_add(struct kvbi_awaited *awaited, uint64_t ticket);
void kvbi_awaited_merge(struct kvbi_awaited *awaited, const struct kvbi_awaited *other);
/*
 * Has a line come to the number that is awaited there? In one order with kvbi_lines_advance: who
 * has said what he awaits, and looks then, misses nothing.
 */
bool kvbi_awaited_due(const struct kvbi_awaited *awaited, const struct kvbi_lines *lines);
/* The first line from `line` on that is awaited; KVBI_LINE_COUNT: none. */
uint32_t kvbi_awaited_next(const struct kvbi_awaited *awaited, uint32_t line);

/* Of what waits for both of two tickets: one that is not reached, if there is one. */
static inline void kvbi_awaited_add_both(struct kvbi_awaited *awaited,
                                         const struct kvbi_lines *lines,
                                         struct kvbi_tickets tickets)
{
    if (!kvbi_ticket_reached(lines, tickets.source))
        kvbi_awaited_add(awaited, tickets.source);
    else if (!kvbi_ticket_reached(lines, tickets.target))
        kvbi_awaited_add(awaited, tickets.target);
    else
        awaited->now = true;
}

#endif
