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
            averages[(*count)++] = (log(pairs->baseline.seconds[i] / pairs->library.seconds[i]) +
                                    log(pairs->baseline.seconds[j] / pairs->library.seconds[j])) /
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

/* ---- Rows ------------------------------------------------------------------------------------ */

static double speed(const struct pairs *pairs, const struct side *side)
{
    double sorted[PAIRS_MAX];
    for (uint32_t i = 0; i < pairs->count; i++)
        sorted[i] = pairs->gigabytes / side->seconds[i];
    qsort(sorted, pairs->count, sizeof *sorted, ascending);
    return median(sorted, pairs->count);
}

static double ms_per_gib(const struct pairs *pairs, double seconds)
{
    return 1e3 * seconds / (pairs->gigabytes * 1e9 / GIB * pairs->count);
}

static double cpu_without_hashing(const struct pairs *pairs)
{
    return ms_per_gib(pairs, pairs->library.cpu_seconds - pairs->library.hash_seconds);
}

static bool fast_enough(const struct pairs *pairs)
{
    return pairs->bar <= 0 || pairs_interval(pairs).high >= pairs->bar;
}

static bool cheap_enough(const struct pairs *pairs)
{
    if (pairs->bar <= 0)
        return true;
    return (pairs->cpu_bar <= 0 || cpu_without_hashing(pairs) <= pairs->cpu_bar) &&
           ms_per_gib(pairs, pairs->library.hash_seconds) <= HASH_BAR;
}

static void print_number(const char *name, double value)
{
    if (isfinite(value))
        printf(", \"%s\": %.4g", name, value);
    else
        printf(", \"%s\": null", name);
}

static void print_histogram(const char *name, const uint64_t *counts)
{
    const char *comma = "";
    printf(", \"%s\": {", name);
    for (uint32_t n = 0; n <= FLIGHTS_MAX; n++) {
        if (counts[n] == 0)
            continue;
        printf("%s\"%u\": %llu", comma, n, (unsigned long long)counts[n]);
        comma = ", ";
    }
    printf("}");
}

static void print_json(const struct pairs_report *report, const struct pairs *pairs, bool ok)
{
    struct interval interval = pairs_interval(pairs);
    bool enough = pairs->count >= PAIRS_MIN;
    printf("%s{\"name\": \"%s\", \"value\": %.6g, \"unit\": \"GB/s\", \"baseline\": %.6g, "
           "\"against\": \"%s\"",
           report->count == 0 ? "" : ",\n", pairs->name, speed(pairs, &pairs->library),
           speed(pairs, &pairs->baseline), pairs->against);
    print_number("ratio", interval.ratio);
    print_number("ratio_low", enough ? interval.low : NAN);
    print_number("ratio_high", enough ? interval.high : NAN);
    printf(", \"pairs\": %u, \"depth\": %u", pairs->count, pairs->depth);
    print_number("bar", pairs->bar > 0 ? pairs->bar : NAN);
    print_number("cpu_bar", pairs->cpu_bar > 0 ? pairs->cpu_bar : NAN);
    printf(", \"ok\": %s", ok ? "true" : "false");
    print_number("cpu_ms_per_gib", cpu_without_hashing(pairs));
    print_number("hash_ms_per_gib", ms_per_gib(pairs, pairs->library.hash_seconds));
    print_number("caller_ms_per_gib", ms_per_gib(pairs, pairs->library.caller_seconds));
    print_number("baseline_cpu_ms_per_gib",
                 ms_per_gib(pairs, pairs->baseline.cpu_seconds - pairs->baseline.hash_seconds));
    print_histogram("inflight", pairs->library.flights.counts);
    print_histogram("left", pairs->library.flights.left);
    print_histogram("baseline_inflight", pairs->baseline.flights.counts);
    printf(", \"engine\": \"%s\"}", report->engine);
}

static void print_quarters(const struct flights *flights, uint32_t depth)
{
    uint64_t quarters[4] = {0}, total = flights_total(flights);
    if (total == 0) {
        printf("%24s", "-");
        return;
    }
    for (uint32_t n = 1; n <= FLIGHTS_MAX; n++) {
        uint32_t quarter = (4 * n - 1) / depth;
        quarters[quarter < 4 ? quarter : 3] += flights->counts[n];
    }
    printf(" %5.1f", flights_mean(flights));
    for (uint32_t i = 0; i < 4; i++)
        printf(" %3.0f", 100.0 * (double)quarters[i] / (double)total);
    if (isfinite(flights_mean_left(flights)))
        printf("  %4.0f", 100 * flights_mean_left(flights) / depth);
    else
        printf("  %4s", "-");
}

static void print_text(const struct pairs *pairs)
{
    struct interval interval = pairs_interval(pairs);
    printf("%-22s %6.3f %6.3f %-5s  %5.3f  %5.3f..%5.3f %3u   %6.1f %6.1f %6.1f %6.1f  %3u",
           pairs->name, speed(pairs, &pairs->library), speed(pairs, &pairs->baseline),
           pairs->against, interval.ratio, interval.low, interval.high, pairs->count,
           cpu_without_hashing(pairs), ms_per_gib(pairs, pairs->library.caller_seconds),
           ms_per_gib(pairs, pairs->library.hash_seconds),
           ms_per_gib(pairs, pairs->baseline.cpu_seconds - pairs->baseline.hash_seconds),
           pairs->depth);
    print_quarters(&pairs->library.flights, pairs->depth);
    printf("%s%s\n", fast_enough(pairs) ? "" : "  MISSES ITS BAR",
           cheap_enough(pairs) ? "" : "  MISSES ITS CPU BAR");
}

static void print_head(const struct pairs_report *report)
{
    printf("%s\n\n%-22s %19s  %5s  %12s %3s   %27s  %3s  %s\n", report->engine, "", "GB/s", "ratio",
           "95 %", "n", "CPU ms/GiB", "depth", "in flight (%)");
    printf("%-22s %6s %6s %33s   %6s %6s %6s %6s %5s %5s %3s %3s %3s %3s  %4s\n", "", "kvb", "base",
           "", "kvb", "caller", "hash", "base", "", "mean", "1/4", "1/2", "3/4", "1", "left");
}

void pairs_report_begin(struct pairs_report *report)
{
    if (report->json)
        printf("[\n");
}

void pairs_report_row(struct pairs_report *report, const struct pairs *pairs)
{
    bool ok = fast_enough(pairs) && cheap_enough(pairs);
    if (!report->json && report->count == 0)
        print_head(report);
    if (report->json)
        print_json(report, pairs, ok);
    else
        print_text(pairs);
    (void)fflush(stdout);
    report->count++;
    report->failed += !ok;
}

void pairs_report_seconds(struct pairs_report *report, const char *name, double seconds, double bar)
{
    bool ok = bar <= 0 || seconds <= bar;
    if (report->json) {
        printf("%s{\"name\": \"%s\", \"value\": %.4g, \"unit\": \"s\"",
               report->count == 0 ? "" : ",\n", name, seconds);
        print_number("bar", bar > 0 ? bar : NAN);
        printf(", \"ok\": %s}", ok ? "true" : "false");
    } else {
        printf("%-22s %6.3f s%s\n", name, seconds, ok ? "" : "  MISSES ITS BAR");
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
        printf(
            "\nCPU: of the whole process without hashing; of it, what the calling thread spent; "
            "hashing as many bytes; the baseline.\nIn flight: mean of blocks, and the share of "
            "them that came with up to a quarter, a half, three quarters and all of the\ndepth in "
            "flight; left: how full entries that submit leave the ring.\n");
}
