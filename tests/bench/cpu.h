/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpu - whose CPU time it was
 *
 * Owns       nothing.
 * Callers    bench_disk, while the threads that it asks about are asleep: the kernel adds up the
 *            time of a running one late.
 */
#ifndef BENCH_CPU_H
#define BENCH_CPU_H

struct cpu {
    double process; /* seconds, all threads, kernel included; so are the others */
    double caller;  /* the calling thread's part */
    double hash;    /* the library's threads' for checksums. Negative: there is none */
};

struct cpu cpu_now(void);

#endif
