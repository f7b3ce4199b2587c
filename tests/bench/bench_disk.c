/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_disk - blocks to disk and back through the whole manager, beside a bare io_uring loop in the same minute
 *
 * Public header only, linked to the library as it ships. docs/performance.md says what the rows mean.
 * Exit: 0, 1 if a row misses its bar, 2 if a call failed or the command line is wrong, 77 if there is no io_uring to compare with.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bare_loop.h"
#include "disk_stage.h"
#include "pairs.h"
#include "rows.h"

#define BAR 0.9
#define PAIRS 60u
#define PAIRS_QUICK 2u
#define HALF_BYTES ((uint64_t)256 << 20) /* a half of a pair moves */
#define HALF_BYTES_QUICK ((uint64_t)16 << 20)
#define HALVES_A_FILE 4u

/* What the library's engine has in flight at most. */
#define DEPTH_COUNT 64u
#define DEPTH_BYTES ((uint64_t)8 << 20)

static const struct {
    const char *name;
    uint64_t bytes;
} sizes[] = {{"64k", (uint64_t)64 << 10},
             {"256k", (uint64_t)256 << 10},
             {"1m", (uint64_t)1 << 20},
             {"2m", (uint64_t)2 << 20}};
#define SIZE_COUNT (sizeof sizes / sizeof *sizes)

struct options {
    bool quick, json;
    uint32_t pairs;
    uint32_t progress, disk_engine, batch, depth;
    uint64_t half_bytes;
    int only; /* index into sizes, -1: all */
    char path[4096];
};

struct bench {
    const struct options *options;
    struct disk_stage stage;
    struct bare_loop bare;
    uint32_t *order, *slots; /* of the file; the bare loop's of this round */
    struct pairs *down, *up;
};

/* ---- Halves of a pair --------------------------------------------------------------------------------------------- */

static double cpu_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void library_half(struct bench *bench, struct pairs *pairs, uint64_t (*move)(struct disk_stage *stage))
{
    struct side *side = &pairs->library;
    flights_begin(&side->flights);
    double cpu = cpu_seconds();
    side->seconds[pairs->count] = (double)move(&bench->stage) / 1e9;
    side->cpu_seconds += cpu_seconds() - cpu;
    flights_end();
}

static void bare_half(struct bench *bench, struct pairs *pairs, bool write)
{
    struct side *side = &pairs->bare;
    flights_begin(&side->flights);
    double cpu = cpu_seconds();
    side->seconds[pairs->count] =
        (double)bare_loop_move(&bench->bare, write, bench->slots, bench->stage.host_count) / 1e9;
    side->cpu_seconds += cpu_seconds() - cpu;
    flights_end();
}

/* As many slots as the library moves, anywhere in the file but where it has blocks that it will read. */
static void choose_slots(struct bench *bench)
{
    uint32_t count = 0;
    random_order(bench->order, bench->stage.disk_count);
    for (uint32_t i = 0; count < bench->stage.host_count; i++)
        if (!bench->stage.in_use[bench->order[i]])
            bench->slots[count++] = bench->order[i];
}

/* One pair of each direction. Who goes first alternates. */
static void measure_round(struct bench *bench, bool bare_first)
{
    struct disk_stage *stage = &bench->stage;
    disk_stage_offer(stage);
    if (bare_first) {
        choose_slots(bench);
        bare_half(bench, bench->down, true);
    }
    library_half(bench, bench->down, disk_stage_down);
    disk_stage_swap(stage);
    if (!bare_first) {
        choose_slots(bench);
        bare_half(bench, bench->down, true);
        library_half(bench, bench->up, disk_stage_up);
        bare_half(bench, bench->up, false);
    } else {
        choose_slots(bench);
        bare_half(bench, bench->up, false);
        library_half(bench, bench->up, disk_stage_up);
    }
    disk_stage_close_round(stage);
    bench->down->count++;
    bench->up->count++;
}

/* ---- A size ------------------------------------------------------------------------------------------------------- */

static void name_pairs(struct pairs *pairs, const char *direction, const char *size, double bytes, uint32_t depth)
{
    (void)snprintf(pairs->name, sizeof pairs->name, "%s.%s", direction, size);
    pairs->gigabytes = bytes / 1e9;
    pairs->depth = depth;
}

static bool run_size(const struct options *options, uint32_t size, struct pairs_report *report)
{
    uint64_t bytes = sizes[size].bytes, piece = bytes < PIECE_BYTES ? bytes : PIECE_BYTES;
    uint32_t depth = DEPTH_BYTES / piece < DEPTH_COUNT ? (uint32_t)(DEPTH_BYTES / piece) : DEPTH_COUNT;
    struct bench bench = {.options = options};
    struct disk_stage_config config = {.path = options->path,
                                       .block_bytes = bytes,
                                       .host_count = (uint32_t)(options->half_bytes / bytes),
                                       .progress = options->progress,
                                       .disk_engine = options->disk_engine,
                                       .batch = options->batch,
                                       .depth = options->depth};
    config.disk_count = HALVES_A_FILE * config.host_count;
    disk_stage_create(&bench.stage, &config);
    bool works = bare_loop_create(&bench.bare, options->path, bytes, config.host_count, depth);
    bench.order = memory_take(config.disk_count, sizeof *bench.order);
    bench.slots = memory_take(config.host_count, sizeof *bench.slots);
    bench.down = memory_take(2, sizeof *bench.down);
    bench.up = bench.down + 1;
    name_pairs(bench.down, "offload", sizes[size].name, (double)options->half_bytes, depth);
    name_pairs(bench.up, "onboard", sizes[size].name, (double)options->half_bytes, depth);
    while (works && bench.down->count < options->pairs && !(pairs_precise(bench.down) && pairs_precise(bench.up)))
        measure_round(&bench, bench.down->count % 2 == 1);
    if (works) {
        report->engine = bench.stage.engine;
        pairs_report_row(report, bench.down);
        pairs_report_row(report, bench.up);
        bare_loop_destroy(&bench.bare);
    }
    disk_stage_destroy(&bench.stage);
    free(bench.order);
    free(bench.slots);
    free(bench.down);
    return works;
}

/* ---- Command line ------------------------------------------------------------------------------------------------- */

static void usage(FILE *out)
{
    (void)fprintf(
        out, "usage: bench_disk [--json] [--quick] [--path FILE] [--pairs N] [--only SIZE] [--progress thread|poll]\n"
             "                  [--engine auto|uring|posix] [--batch N] [--depth N] [--mib N] [--help]\n\n"
             "  --json         rows as a JSON array instead of a table\n"
             "  --quick        little data and 2 pairs: a few seconds, figures of no use, no bar\n"
             "  --path FILE    the disk tier's file, 1 GiB (in TMPDIR or the current folder);\n"
             "                 removed at the end unless it was there before\n"
             "  --pairs N      at most N pairs a row, 2 to 999 (60)\n"
             "  --only SIZE    blocks of 64k, 256k, 1m or 2m alone\n"
             "  --progress     who moves: the manager's thread, or the caller in kvb_manager_flush (thread)\n"
             "  --engine       the disk tier's engine (auto)\n"
             "  --batch, --depth N   of the lane (the library's defaults)\n"
             "  --mib N        MiB that a half of a pair moves, 16 to 512 (256); the file is four times that\n"
             "  --help         this text\n");
}

static void refuse(const char *what, const char *which)
{
    (void)fprintf(stderr, "bench_disk: %s: %s\n", what, which);
    usage(stderr);
    exit(2);
}

static uint32_t number_option(const char *name, const char *text, uint32_t low, uint32_t high)
{
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || value < low || value > high)
        refuse(name, text);
    return (uint32_t)value;
}

static uint32_t word_option(const char *name, const char *text, const char *const *words, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (strcmp(text, words[i]) == 0)
            return i;
    refuse(name, text);
    return 0;
}

static void read_value(struct options *options, const char *name, const char *text)
{
    static const char *const progress[] = {"thread", "poll"}, *const engines[] = {"auto", "uring", "posix"};
    const char *names[SIZE_COUNT];
    for (uint32_t i = 0; i < SIZE_COUNT; i++)
        names[i] = sizes[i].name;
    if (strcmp(name, "--path") == 0)
        (void)snprintf(options->path, sizeof options->path, "%s", text);
    else if (strcmp(name, "--pairs") == 0)
        options->pairs = number_option(name, text, 2, PAIRS_MAX);
    else if (strcmp(name, "--only") == 0)
        options->only = (int)word_option(name, text, names, SIZE_COUNT);
    else if (strcmp(name, "--progress") == 0)
        options->progress = word_option(name, text, progress, 2);
    else if (strcmp(name, "--engine") == 0)
        options->disk_engine = word_option(name, text, engines, 3);
    else if (strcmp(name, "--batch") == 0)
        options->batch = number_option(name, text, 1, 64);
    else if (strcmp(name, "--depth") == 0)
        options->depth = number_option(name, text, 1, 64);
    else if (strcmp(name, "--mib") == 0)
        options->half_bytes = (uint64_t)(number_option(name, text, 16, 512) & ~1u) << 20;
    else
        refuse("unknown option", name);
}

static struct options read_options(int argc, char **argv)
{
    struct options options = {.only = -1};
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0) {
            options.json = true;
        } else if (strcmp(argv[i], "--quick") == 0) {
            options.quick = true;
        } else if (strcmp(argv[i], "--help") == 0) {
            usage(stdout);
            exit(0);
        } else {
            if (i + 1 == argc)
                refuse("unknown option, or its value is missing", argv[i]);
            read_value(&options, argv[i], argv[i + 1]);
            i++;
        }
    }
    if (options.pairs == 0)
        options.pairs = options.quick ? PAIRS_QUICK : PAIRS;
    if (options.half_bytes == 0)
        options.half_bytes = options.quick ? HALF_BYTES_QUICK : HALF_BYTES;
    if (options.path[0] == '\0') {
        const char *folder = getenv("TMPDIR");
        (void)snprintf(options.path, sizeof options.path, "%s/bench_disk.%ld", folder != NULL ? folder : ".",
                       (long)getpid());
    }
    return options;
}

static struct options options;

static void remove_file(void)
{
    (void)unlink(options.path);
}

int main(int argc, char **argv)
{
    options = read_options(argc, argv);
    if (access(options.path, F_OK) != 0 && atexit(remove_file) != 0)
        return 2;
    struct pairs_report report = {.json = options.json, .bar = options.quick ? 0 : BAR};
    bool works = true;
    pairs_report_begin(&report);
    for (uint32_t i = 0; works && i < SIZE_COUNT; i++)
        if (options.only < 0 || options.only == (int)i)
            works = run_size(&options, i, &report);
    pairs_report_end(&report);
    if (!works)
        (void)fprintf(stderr, "bench_disk: no io_uring here to compare with\n");
    return !works ? 77 : report.failed > 0 ? 1 : 0;
}
