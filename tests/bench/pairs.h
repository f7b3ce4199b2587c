/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pairs - a ratio measured in interleaved pairs until it is known well enough, and the row that
 * comes out of it
 *
 * Callers    bench_disk. One thread.
 * Why        on a shared disk, identical runs differ by 1.2 times as a rule and by up to 2.4 times;
 *            the two halves of a pair, measured one after the other, see the same weather more
 *            often than not. The ratio is the Hodges-Lehmann estimate over the logarithms of the
 *            pairs' ratios, its 95 % interval that of Wilcoxon's signed ranks (Hollander, Wolfe,
 *            Chicken: Nonparametric Statistical Methods, 3.2 and 3.3; normal approximation): a pair
 *            that a neighbour has spoilt counts as one pair, not by how badly.
 */
#ifndef BENCH_PAIRS_H
#define BENCH_PAIRS_H

#include <stdbool.h>
#include <stdint.h>

#include "flights.h"

#define PAIRS_MAX 999u
#define PAIRS_MIN 8u         /* fewer have no such interval */
#define PAIRS_PRECISION 0.05 /* enough: half the interval's width */

struct side {
    double seconds[PAIRS_MAX];
    double cpu_seconds;    /* of the process, all pairs together */
    double caller_seconds; /* of these, the calling thread's */
    /*
     * of these, of the thread that hashes; without one, what hashing as many bytes took in between
     */
    double hash_seconds;
    struct flights flights;
};

struct pairs {
    char name[32];
    double gigabytes; /* one half of a pair moves, 10^9 bytes */
    uint32_t count;
    struct side library, baseline;
    const char *against;
    uint32_t depth;      /* I/Os that may be in flight */
    double bar, cpu_bar; /* for the ratio, and for CPU without hashing in ms/GiB; 0: none */
};

struct interval {
    double ratio, low, high; /* speeds: library / baseline */
};

/* PAIRS_MIN pairs at least, else low and high are 0 and infinite. */
struct interval pairs_interval(const struct pairs *pairs);
bool pairs_precise(const struct pairs *pairs);

#define HASH_BAR 100.0 /* ms/GiB */

struct pairs_report {
    bool json;
    char engine[192]; /* what the library says of its engines */
    uint32_t count, failed;
};

void pairs_report_begin(struct pairs_report *report);
void pairs_report_row(struct pairs_report *report, const struct pairs *pairs);
/* A row of its own kind: seconds, at most `bar` of them (0: none). */
void pairs_report_seconds(struct pairs_report *report, const char *name, double seconds,
                          double bar);
void pairs_report_end(const struct pairs_report *report);

#endif
