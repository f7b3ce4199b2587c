/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flights - how many blocks a ring had in flight when one of them completed
 *
 * Owns       the counts. It stands between whoever uses a ring and liburing's two functions that
 *            enter the kernel (the linker's --wrap), so the library's engine and the bare loop are
 *            counted the same way, and neither knows.
 * Callers    bench_disk, between measurements; the wrapped functions from whichever one thread
 *            issues at a time.
 * Invariants an I/O counts as so many blocks as it moves, in units of `unit` bytes: the library
 *            moves neighbours together. A completion counts as one in flight itself, and what the
 *            same entry handed over is not counted: a queue of 8 from which 8 are taken at once
 *            counts 8, 7, ... 1. One that was refilled before the next came counts 8 each time.
 * Lock       none: begin and end only while nothing is in flight.
 */
#ifndef BENCH_FLIGHTS_H
#define BENCH_FLIGHTS_H

#include <stdint.h>

#define FLIGHTS_MAX 64u
#define FLIGHTS_TAIL 16u

struct flights {
    /* [n]: blocks that came while n were in flight. [0] is unused; more count as FLIGHTS_MAX */
    uint64_t counts[FLIGHTS_MAX + 1];
    /*
     * [n]: entries that handed something over and left n blocks in the ring, in flight or not yet
     * looked at by its user. Without the first and the last FLIGHTS_TAIL of a measurement, which
     * fill the ring, and have nothing left to refill it with.
     */
    uint64_t left[FLIGHTS_MAX + 1];
    uint32_t tail[FLIGHTS_TAIL]; /* what those left, by turns */
    uint64_t entries;
};

void flights_begin(struct flights *flights, uint64_t unit); /* counts are added to */
void flights_end(void);

uint64_t flights_total(const struct flights *flights);
double flights_mean(const struct flights *flights);
double flights_mean_left(const struct flights *flights);            /* NAN if there are none */
uint32_t flights_quantile(const struct flights *flights, double q); /* 0 if there are none */

#endif
