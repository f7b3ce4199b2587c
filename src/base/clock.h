/* SPDX-License-Identifier: Apache-2.0 */
/*
 * clock - the time that a manager lives by
 *
 * Owns the caller's clock (copied) and the largest time it has shown.
 * Callers: anything in src/, any thread, under locks too: the header forbids a clock to call back into the library.
 * Invariant: kvbi_clock_now never goes backwards, whatever the caller's clock does: eviction order, deadlines and
 * latencies are differences of two readings.
 * Lock: none; the maximum is one atomic word. A clock that has jumped ahead shows its maximum until real time is there.
 */
#ifndef KVBI_BASE_CLOCK_H
#define KVBI_BASE_CLOCK_H

#include <kvblock.h>
#include <stdatomic.h>
#include <stdint.h>

struct kvbi_clock {
    struct kvb_clock c;
    _Atomic uint64_t latest_ns;
};

/* `source` is copied; NULL, or one without a function, stands for CLOCK_MONOTONIC. */
void kvbi_clock_init(struct kvbi_clock *clock, const struct kvb_clock *source);

/* Nanoseconds since some fixed point. */
uint64_t kvbi_clock_now(struct kvbi_clock *clock);

#endif
