/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gpu_run - a run of bench_gpu: what goes wrong with one row does not take the rows after it along
 *
 * Owns       the report, which row is being measured, what was wrong with it, and the process that
 *            measures.
 * Callers    bench_gpu starts it; suites say what they measure; whoever compares bytes says what is
 *            wrong. One thread.
 * Invariants the parent never calls CUDA. It reads and writes what is shared with its child only
 *            while there is none. The array of --json is closed by the parent, whatever becomes of
 *            the child.
 * Why        after some errors of CUDA nothing works any more but in a new process, and a call that
 *            never returns can only be ended from outside. So the suites run in a child; where one
 *            ends early, the next child goes on with the rows behind those that it was at.
 */
#ifndef BENCH_GPU_RUN_H
#define BENCH_GPU_RUN_H

#include <stdbool.h>
#include <stdint.h>

#include "rows.h"

#define GPU_UNIT_ROWS 4u

struct gpu_run_row {
    char name[48];
    uint64_t wrong; /* comparisons that found a difference */
    bool printed;
};

/* Shared between the two processes. */
struct gpu_run {
    struct report report;
    bool begun;       /* its head has been printed */
    bool complete;    /* all suites are through */
    bool in_unit;     /* the child is at `rows` */
    uint32_t unit;    /* units that the child has come to, those that it skipped included */
    uint32_t through; /* units that earlier children have come to */
    struct gpu_run_row rows[GPU_UNIT_ROWS];
    uint32_t row_count, row, round;
    const char *spoil; /* name of a row, or NULL */
    bool spoiled;
};

/*
 * Runs `body` in a child until it is complete, again after each end before that, and prints what is
 * around the rows. Returns the exit status of bench_gpu: 0; 1: a row misses its bar; 2: a call
 * failed, or bytes were wrong; 77: `body` called _exit with it before gpu_run_begin; 128 and the
 * signal that ended it; what a child ended with after the last row.
 */
int gpu_run(bool json, const char *spoil, void (*body)(struct gpu_run *run, void *context),
            void *context);

/* ---- In the child ---------------------------------------------------------------------------- */

/* Before the first unit. */
void gpu_run_begin(struct gpu_run *run);
/* All suites are through. */
void gpu_run_complete(struct gpu_run *run);

/*
 * From here on these rows are measured, together. False: an earlier child has been at them, and
 * they are to be left out.
 */
bool gpu_run_unit(struct gpu_run *run, const char *const *rows, uint32_t count);
/*
 * What is compared from here on belongs to that row of the unit. Round 0: one that does not count.
 */
void gpu_run_at(struct gpu_run *run, uint32_t row, uint32_t round);

/*
 * `expected` is not `found`: said on stderr with row and round, `where` (words) and the first byte
 * that differs, and the row fails. Of one row it says the first few.
 */
void gpu_run_wrong(struct gpu_run *run, const char *where, const unsigned char *expected,
                   const unsigned char *found, uint64_t bytes);
/* The same for a result of which there are no bytes to show. */
void gpu_run_wrong_result(struct gpu_run *run, const char *what);

/* True once: what is about to be compared is to be damaged (--spoil names this row). */
bool gpu_run_spoils(struct gpu_run *run);

/* Prints it. It has failed if bytes were wrong. */
void gpu_run_row(struct gpu_run *run, struct row *row);

#endif
