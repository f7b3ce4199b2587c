/* SPDX-License-Identifier: Apache-2.0 */
/*
 * clock - the time that a manager lives by
 *
 * Owns the caller's clock (copied), what it has shown last and the time that has passed by it.
 * Callers: anything in src/, any thread, under locks too: the header forbids a clock to call back
 * into the library.
 * Invariant: kvbi_clock_now never goes backwards, whatever the caller's clock does: eviction order,
 * deadlines and latencies are differences of two readings. A step back adds nothing and time goes
 * on from there: holding it at its maximum would stop budgets and deadlines for the length of the
 * step.
 * Lock: none. A reading counts only if no other has counted since it began, else the clock is read
 * again: two readings that overtake each other would look like a step back. The default clock
 * cannot step back, and the line that all threads share is left alone.
 */
#ifndef KVBI_BASE_CLOCK_H
#define KVBI_BASE_CLOCK_H

#include <kvblock.h>
#include <stdatomic.h>
#include <stdint.h>

struct kvbi_clock {
    struct kvb_clock c;
    _Atomic uint64_t readings; /* that have counted, twice; odd while one is being counted */
    uint64_t shown_ns, passed_ns;
};

/* `source` is copied; NULL, or one without a function, stands for CLOCK_MONOTONIC. */
void kvbi_clock_init(struct kvbi_clock *clock, const struct kvb_clock *source);

/* Nanoseconds since some fixed point. */
uint64_t kvbi_clock_now(struct kvbi_clock *clock);

#endif
