/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Samples of interleaved rounds, and the rows that come out of them.
 *
 * Callers    the suites. One thread.
 * Why        medians: on a shared machine single rounds are off by more than any effect worth
 *            measuring. The noise of a row is half the distance between the quartiles of its
 *            rounds, relative to the median.
 */
#ifndef BENCH_ROWS_H
#define BENCH_ROWS_H

#include <stdbool.h>
#include <stdint.h>

#define SAMPLES_MAX 20000

struct samples {
    uint32_t count;
    double values[SAMPLES_MAX];
};

void samples_add(struct samples *samples, double value); /* silently full at SAMPLES_MAX */
/* q in 0..1; NAN if there are none */
double samples_quantile(const struct samples *samples, double q);
double samples_median(const struct samples *samples);
double samples_noise(const struct samples *samples);

struct row {
    char name[48];
    const char *unit;
    double value, noise;
    double baseline, baseline_noise; /* NAN: none */
    const char *against;             /* what the baseline is; NULL: none */
    double bar;         /* 0: none yet. For the ratio, or the value of a row without baseline */
    bool bar_is_floor;  /* more is better */
    const char *engine; /* what the library said of its engines; NULL: nothing to say */
    bool failed; /* bytes were wrong, or a call failed: no bar is met, and no figure is good */
};

/* `baseline` may be NULL, and then so may `against`. */
struct row row_of(const char *name, const char *unit, const struct samples *value,
                  const struct samples *baseline, const char *against);

struct report {
    bool json;
    uint32_t count, failed, missed; /* rows: all of them, those that failed, those below a bar */
};

/* begin, row for each, end: a table, or with `json` an array of one object a line. */
void report_begin(struct report *report);
void report_row(struct report *report, const struct row *row);
void report_end(struct report *report);

uint64_t now_ns(void);

#endif
