/* SPDX-License-Identifier: Apache-2.0 */
/* pairs - see pairs.h. */
#include "pairs.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "contents.h"

#define GIB 1073741824.0
#define NORMAL_975 1.959964

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *sorted, size_t count)
{
    return (sorted[(count - 1) / 2] + sorted[count / 2]) / 2;
}

/* All means of two, and of one with itself, in order. */
static double *walsh_averages(const struct pairs *pairs, size_t *count)
{
    double *averages = memory_take((size_t)pairs->count * (pairs->count + 1) / 2, sizeof *averages);
    *count = 0;
    for (uint32_t i = 0; i < pairs->count; i++)
        for (uint32_t j = i; j < pairs->count; j++)
            averages[(*count)++] = (log(pairs->bare.seconds[i] / pairs->library.seconds[i]) +
                                    log(pairs->bare.seconds[j] / pairs->library.seconds[j])) /
                                   2;
    qsort(averages, *count, sizeof *averages, ascending);
    return averages;
}

struct interval pairs_interval(const struct pairs *pairs)
{
    size_t count;
    double *averages = walsh_averages(pairs, &count), n = pairs->count;
    struct interval interval = {.ratio = exp(median(averages, count)), .low = 0, .high = INFINITY};
    double outside = floor(n * (n + 1) / 4 - NORMAL_975 * sqrt(n * (n + 1) * (2 * n + 1) / 24));
    if (pairs->count >= PAIRS_MIN) {
        interval.low = exp(averages[(size_t)outside]);
        interval.high = exp(averages[count - 1 - (size_t)outside]);
    }
    free(averages);
    return interval;
}

bool pairs_precise(const struct pairs *pairs)
{
    if (pairs->count < PAIRS_MIN)
        return false;
    struct interval interval = pairs_interval(pairs);
    return (interval.high - interval.low) / 2 <= PAIRS_PRECISION;
}

/* ---- Rows --------------------------------------------------------------------------------------------------------- */

static double speed(const struct pairs *pairs, const struct side *side)
{
    double sorted[PAIRS_MAX];
    for (uint32_t i = 0; i < pairs->count; i++)
        sorted[i] = pairs->gigabytes / side->seconds[i];
    qsort(sorted, pairs->count, sizeof *sorted, ascending);
    return median(sorted, pairs->count);
}

static double cpu_ms_per_gib(const struct pairs *pairs, const struct side *side)
{
    return 1e3 * side->cpu_seconds / (pairs->gigabytes * 1e9 / GIB * pairs->count);
}

static void print_histogram(const char *name, const struct flights *flights)
{
    const char *comma = "";
    printf(", \"%s\": {", name);
    for (uint32_t n = 1; n <= FLIGHTS_MAX; n++) {
        if (flights->counts[n] == 0)
            continue;
        printf("%s\"%u\": %llu", comma, n, (unsigned long long)flights->counts[n]);
        comma = ", ";
    }
    printf("}");
}

static void print_json(const struct pairs_report *report, const struct pairs *pairs, bool ok)
{
    struct interval interval = pairs_interval(pairs);
    printf("%s{\"name\": \"%s\", \"value\": %.6g, \"unit\": \"GB/s\", \"baseline\": %.6g, \"ratio\": %.4f",
           report->count == 0 ? "" : ",\n", pairs->name, speed(pairs, &pairs->library), speed(pairs, &pairs->bare),
           interval.ratio);
    if (pairs->count >= PAIRS_MIN)
        printf(", \"ratio_low\": %.4f, \"ratio_high\": %.4f", interval.low, interval.high);
    else
        printf(", \"ratio_low\": null, \"ratio_high\": null");
    printf(", \"pairs\": %u", pairs->count);
    if (report->bar > 0)
        printf(", \"bar\": %.2f", report->bar);
    else
        printf(", \"bar\": null");
    printf(", \"ok\": %s, \"cpu_ms_per_gib\": %.4g, \"baseline_cpu_ms_per_gib\": %.4g, \"depth\": %u",
           ok ? "true" : "false", cpu_ms_per_gib(pairs, &pairs->library), cpu_ms_per_gib(pairs, &pairs->bare),
           pairs->depth);
    print_histogram("inflight", &pairs->library.flights);
    print_histogram("baseline_inflight", &pairs->bare.flights);
    printf(", \"engine\": \"%s\"}", report->engine);
}

/* Depth, and the shares of completions that came with up to a quarter, a half, three quarters, all of it in flight. */
static void print_quarters(const struct flights *flights, uint32_t depth)
{
    uint64_t total = flights_total(flights), quarters[4] = {0};
    if (total == 0) {
        printf("  %19s", "not known");
        return;
    }
    for (uint32_t n = 1; n <= FLIGHTS_MAX; n++) {
        uint32_t quarter = (4 * n - 1) / depth;
        quarters[quarter < 3 ? quarter : 3] += flights->counts[n];
    }
    printf("  %4.1f", flights_mean(flights));
    for (uint32_t i = 0; i < 4; i++)
        printf(" %3.0f", 100.0 * (double)quarters[i] / (double)total);
}

static void print_text(const struct pairs *pairs, bool ok)
{
    struct interval interval = pairs_interval(pairs);
    printf("%-14s %6.3f %6.3f   %5.3f  %5.3f..%5.3f %5u  %6.1f %6.1f  %5u", pairs->name, speed(pairs, &pairs->library),
           speed(pairs, &pairs->bare), interval.ratio, interval.low, interval.high, pairs->count,
           cpu_ms_per_gib(pairs, &pairs->library), cpu_ms_per_gib(pairs, &pairs->bare), pairs->depth);
    print_quarters(&pairs->library.flights, pairs->depth);
    print_quarters(&pairs->bare.flights, pairs->depth);
    printf("%s\n", ok ? "" : "  MISSES ITS BAR");
}

void pairs_report_begin(struct pairs_report *report)
{
    if (report->json)
        printf("[\n");
}

void pairs_report_row(struct pairs_report *report, const struct pairs *pairs)
{
    bool ok = report->bar <= 0 || pairs_interval(pairs).high >= report->bar;
    if (report->json) {
        print_json(report, pairs, ok);
    } else {
        if (report->count == 0)
            printf(
                "%s\n\n%-14s %13s   %5s  %12s %5s  %13s  %5s  %20s  %20s\n%-14s %6s %6s %35s %6s %6s %7s  %20s  %20s\n",
                report->engine, "", "GB/s", "ratio", "95 %", "pairs", "CPU ms/GiB", "depth", "kvblock: in flight",
                "bare: in flight", "", "kvb", "bare", "", "kvb", "bare", "", "mean  1/4 1/2 3/4  1",
                "mean  1/4 1/2 3/4  1");
        print_text(pairs, ok);
    }
    (void)fflush(stdout);
    report->count++;
    report->failed += !ok;
}

void pairs_report_end(const struct pairs_report *report)
{
    if (report->json)
        printf("\n]\n");
    else
        printf("\nIn flight: mean, and the share of completions (%%) that came with up to a quarter, a half, three "
               "quarters and all\nof the depth in flight.\n");
}
