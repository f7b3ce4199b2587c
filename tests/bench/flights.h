/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flights - how many I/Os a ring had in flight when one of them completed
 *
 * Owns       the counts. It stands between whoever uses a ring and liburing's two functions that enter the kernel (the linker's
 *            --wrap), so the library's engine and the bare loop are counted the same way, and neither knows.
 * Callers    bench_disk, between measurements; the wrapped functions from whichever one thread issues at a time.
 * Invariants a completion counts as one in flight itself, and what the same entry handed over is not counted: a queue of 8 from
 *            which 8 are taken at once counts 8, 7, ... 1. One that was refilled before the next came counts 8 each time.
 * Lock       none: begin and end only while nothing is in flight.
 */
#ifndef BENCH_FLIGHTS_H
#define BENCH_FLIGHTS_H

#include <stdint.h>

#define FLIGHTS_MAX 64u

struct flights {
    uint64_t counts[FLIGHTS_MAX +
                    1]; /* [n]: completions that came while n were in flight. [0] is unused; more count as 64 */
};

void flights_begin(struct flights *flights); /* counts are added to */
void flights_end(void);

uint64_t flights_total(const struct flights *flights);
double flights_mean(const struct flights *flights);
uint32_t flights_quantile(const struct flights *flights, double q); /* 0 if there are none */

#endif
