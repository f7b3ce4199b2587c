/* SPDX-License-Identifier: Apache-2.0 */
/* rows - see rows.h. */
#include "rows.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void samples_add(struct samples *samples, double value)
{
    if (samples->count < SAMPLES_MAX)
        samples->values[samples->count++] = value;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double samples_quantile(const struct samples *samples, double q)
{
    static double sorted[SAMPLES_MAX];
    if (samples->count == 0)
        return NAN;
    memcpy(sorted, samples->values, samples->count * sizeof *sorted);
    qsort(sorted, samples->count, sizeof *sorted, ascending);
    double at = q * (double)(samples->count - 1);
    uint32_t below = (uint32_t)at, above = below + 1 < samples->count ? below + 1 : below;
    return sorted[below] + (sorted[above] - sorted[below]) * (at - (double)below);
}

double samples_median(const struct samples *samples)
{
    return samples_quantile(samples, 0.5);
}

double samples_noise(const struct samples *samples)
{
    return (samples_quantile(samples, 0.75) - samples_quantile(samples, 0.25)) / 2 /
           samples_median(samples);
}

struct row row_of(const char *name, const char *unit, const struct samples *value,
                  const struct samples *baseline, const char *against)
{
    struct row row = {.unit = unit,
                      .value = samples_median(value),
                      .noise = samples_noise(value),
                      .baseline = NAN,
                      .baseline_noise = NAN,
                      .against = against};
    (void)snprintf(row.name, sizeof row.name, "%s", name);
    if (baseline != NULL) {
        row.baseline = samples_median(baseline);
        row.baseline_noise = samples_noise(baseline);
    }
    return row;
}

static double ratio_of(const struct row *row)
{
    return row->value / row->baseline;
}

static bool row_misses(const struct row *row)
{
    double measured = isnan(row->baseline) ? row->value : ratio_of(row);
    return row->bar != 0 && !(row->bar_is_floor ? measured >= row->bar : measured <= row->bar);
}

static bool row_ok(const struct row *row)
{
    return !row->failed && !row_misses(row);
}

static void print_number(const char *name, double value)
{
    if (isfinite(value))
        printf(", \"%s\": %.6g", name, value);
    else
        printf(", \"%s\": null", name);
}

static void print_json(const struct row *row, bool first)
{
    printf("%s{\"name\": \"%s\"", first ? "" : ",\n", row->name);
    print_number("value", row->value);
    printf(", \"unit\": \"%s\"", row->unit);
    print_number("baseline", row->baseline);
    print_number("ratio", ratio_of(row));
    print_number("bar", row->bar == 0 ? NAN : row->bar);
    printf(", \"ok\": %s", row_ok(row) ? "true" : "false");
    printf(", \"failed\": %s", row->failed ? "true" : "false");
    print_number("noise", row->noise);
    print_number("baseline_noise", row->baseline_noise);
    if (row->engine != NULL)
        printf(", \"engine\": \"%s\"", row->engine);
    printf("}");
}

static const char *percent(char text[16], double noise)
{
    if (isnan(noise))
        return "";
    (void)snprintf(text, 16, "%.1f%%", 100 * noise);
    return text;
}

static void print_text(const struct row *row)
{
    char noise[16], baseline_noise[16];
    if (isnan(row->value))
        printf("%-30s %9s %-8s %6s", row->name, "-", row->unit, "");
    else
        printf("%-30s %9.4g %-8s %6s", row->name, row->value, row->unit,
               percent(noise, row->noise));
    if (!isnan(row->baseline))
        printf(" %9.4g %6s %7.2f  %s", row->baseline, percent(baseline_noise, row->baseline_noise),
               ratio_of(row), row->against);
    if (row->engine != NULL)
        printf("; %s", row->engine);
    if (row->bar != 0 && !row->failed)
        printf("; bar %s %.4g: %s", row->bar_is_floor ? ">=" : "<=", row->bar,
               row_misses(row) ? "MISSES" : "met");
    printf("%s\n", row->failed ? "; FAILED" : "");
}

void report_begin(struct report *report)
{
    if (report->json)
        printf("[\n");
    else
        printf("%-30s %9s %-8s %6s %9s %6s %7s  %s\n", "name", "value", "unit", "+-", "baseline",
               "+-", "ratio", "baseline is");
}

void report_row(struct report *report, const struct row *row)
{
    if (report->json)
        print_json(row, report->count == 0);
    else
        print_text(row);
    (void)fflush(stdout);
    report->count++;
    report->failed += row->failed;
    report->missed += !row->failed && row_misses(row);
}

void report_end(struct report *report)
{
    if (report->json)
        printf("\n]\n");
    else
        printf(
            "\nMedians of interleaved rounds; +- is half the distance between the quartiles of the "
            "rounds.\n");
}
