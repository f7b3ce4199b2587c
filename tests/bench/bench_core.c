/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_core - what the calls of kvblock cost, beside a baseline measured in the same rounds
 *
 * Public header only, linked to the library as it ships. docs/performance.md says what the rows
 * mean. Exit: 0, 1 if a row misses its bar, 2 if a call failed or the command line is wrong.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "suites.h"

#define ROUNDS 21u
#define ROUNDS_QUICK 3u

static const struct {
    const char *name;
    void (*run)(const struct plan *plan);
    const char *text;
} suites[] = {
    {"life", suite_life, "a block from alloc to eviction, whole and by step"},
    {"handles", suite_handles, "ref and unref, one thread and two"},
    {"find", suite_find, "hashing, match, lookup, and the unref that follows"},
    {"tables", suite_tables, "bytes of tables a block"},
    {"move", suite_move, "offload and onboard between two tiers in host memory"},
};
#define SUITE_COUNT (sizeof suites / sizeof *suites)

struct options {
    bool quick, json;
    uint32_t rounds; /* 0: default */
    int only;        /* index into suites, -1: all */
};

const char *size_name(uint64_t count)
{
    static char names[4][24];
    static unsigned turn;
    char *name = names[turn++ % 4];
    if (count % 1000000 == 0)
        (void)snprintf(name, sizeof *names, "%um", (unsigned)(count / 1000000));
    else if (count % 1000 == 0)
        (void)snprintf(name, sizeof *names, "%uk", (unsigned)(count / 1000));
    else
        (void)snprintf(name, sizeof *names, "%llu", (unsigned long long)count);
    return name;
}

static void usage(FILE *out)
{
    (void)fprintf(out,
                  "usage: bench_core [--json] [--quick] [--rounds N] [--only SUITE] [--help]\n\n"
                  "  --json        rows as a JSON array instead of a table\n"
                  "  --quick       small sizes and few rounds: a few seconds, figures of no use\n"
                  "  --rounds N    interleaved rounds a row, 3 to 999 (21; with --quick 3)\n"
                  "  --only SUITE  one suite alone:\n");
    for (size_t i = 0; i < SUITE_COUNT; i++)
        (void)fprintf(out, "                  %-8s %s\n", suites[i].name, suites[i].text);
    (void)fprintf(out, "  --help        this text\n");
}

static void refuse(const char *what, const char *which)
{
    (void)fprintf(stderr, "bench_core: %s: %s\n", what, which);
    usage(stderr);
    exit(2);
}

static uint32_t number_option(const char *text)
{
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || value < 3 || value > 999)
        refuse("--rounds takes a number from 3 to 999", text);
    return (uint32_t)value;
}

static int suite_option(const char *text)
{
    for (size_t i = 0; i < SUITE_COUNT; i++)
        if (strcmp(text, suites[i].name) == 0)
            return (int)i;
    refuse("no such suite", text);
    return -1;
}

static struct options read_options(int argc, char **argv)
{
    struct options options = {.only = -1};
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i];
        bool takes_value = strcmp(name, "--rounds") == 0 || strcmp(name, "--only") == 0;
        if (takes_value && ++i == argc)
            refuse("a value is missing", name);
        if (strcmp(name, "--json") == 0) {
            options.json = true;
        } else if (strcmp(name, "--quick") == 0) {
            options.quick = true;
        } else if (strcmp(name, "--rounds") == 0) {
            options.rounds = number_option(argv[i]);
        } else if (strcmp(name, "--only") == 0) {
            options.only = suite_option(argv[i]);
        } else if (strcmp(name, "--help") == 0) {
            usage(stdout);
            exit(0);
        } else {
            refuse("unknown option", name);
        }
    }
    return options;
}

int main(int argc, char **argv)
{
    struct options options = read_options(argc, argv);
    struct report report = {.json = options.json};
    struct plan plan = {
        .quick = options.quick, .rounds = options.quick ? ROUNDS_QUICK : ROUNDS, .report = &report};
    if (options.rounds > 0)
        plan.rounds = options.rounds;
    report_begin(&report);
    for (size_t i = 0; i < SUITE_COUNT; i++)
        if (options.only < 0 || options.only == (int)i)
            suites[i].run(&plan);
    report_end(&report);
    return report.missed > 0 ? 1 : 0;
}
