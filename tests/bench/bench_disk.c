/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_disk - blocks to disk and back through the whole manager, beside fio or a bare io_uring
 * loop in the same minute
 *
 * Linked to the library as it ships; public header only, but for the hash function, whose cost is
 * told apart. docs/performance.md says what the rows mean.
 * Exit: 0, 1 if a row misses its bar, 2 if a call failed or the command line is wrong, 77 if there
 * is no io_uring to compare with.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bare_loop.h"
#include "base/hash.h"
#include "command_line.h"
#include "cpu.h"
#include "disk_stage.h"
#include "fio.h"
#include "pairs.h"
#include "recovery.h"
#include "rows.h"
#include "support/leftovers.h"

#define BAR 0.95
#define POSIX_BAR 0.85
#define RECOVERY_SLOTS ((uint32_t)1 << 20)
#define RECOVERY_BAR 1.0 /* seconds */
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
    double cpu_bar; /* ms/GiB without hashing; 0: none */
} sizes[] = {{"64k", (uint64_t)64 << 10, 60},
             {"256k", (uint64_t)256 << 10, 0},
             {"1m", (uint64_t)1 << 20, 15},
             {"2m", (uint64_t)2 << 20, 0}};
#define SIZE_COUNT (sizeof sizes / sizeof *sizes)
#define ONLY_POSIX_SIZE 2 /* 1m */
#define ONLY_RECOVERY ((int)SIZE_COUNT)

struct options {
    bool quick, json, bare;
    uint32_t pairs;
    uint32_t progress, disk_engine, batch, depth;
    uint64_t half_bytes;
    int only;  /* index into sizes, ONLY_RECOVERY, -1: all */
    int order; /* 0 random, 1 sequential, -1: both */
    char path[4096], ring_path[4112];
};

/* What one table row pair (offload, onboard) measures. */
enum baseline { BASELINE_FIO, BASELINE_BARE, BASELINE_RING };
static const char *const baseline_names[] = {"fio", "bare", "ring"};

struct scene {
    const char *size;
    uint64_t block_bytes;
    uint32_t disk_engine, depth;
    enum baseline baseline; /* fio, the bare loop, or the library's own ring on another file */
    bool sequential;
    double bar, cpu_bar;
};

struct bench {
    const struct options *options;
    const struct scene *scene;
    struct disk_stage stage, ring; /* ring: for BASELINE_RING */
    struct bare_loop bare;
    const struct kvbi_hash_ops *hash;
    volatile uint64_t hashes; /* nobody reads them: they are to be made all the same */
    uint32_t *order, *slots;  /* of the file; the bare loop's of this round */
    struct pairs *down, *up;
};

/* ---- Halves of a pair ------------------------------------------------------------------------ */

/* What one I/O of the baseline moves. */
static uint64_t unit_of(const struct bench *bench)
{
    uint64_t bytes = bench->scene->block_bytes;
    return bytes < PIECE_BYTES ? bytes : PIECE_BYTES;
}

/* The library's own function over what has just been moved, as long as that is in no cache. */
static double hash_seconds(struct bench *bench, const struct disk_stage *stage)
{
    double before = cpu_now().caller;
    for (uint64_t at = 0; at < stage->memory_bytes; at += stage->block_bytes)
        bench->hashes += bench->hash->hash64(stage->memory + at, (size_t)stage->block_bytes, at);
    return cpu_now().caller - before;
}

static void stage_half(struct bench *bench, struct disk_stage *stage, struct side *side,
                       uint32_t pair, uint64_t (*move)(struct disk_stage *stage))
{
    flights_begin(&side->flights, unit_of(bench));
    struct cpu before = cpu_now();
    side->seconds[pair] = (double)move(stage) / 1e9;
    struct cpu after = cpu_now();
    flights_end();
    side->cpu_seconds += after.process - before.process;
    side->caller_seconds += after.caller - before.caller;
    side->hash_seconds += after.hash >= 0 ? after.hash - before.hash : hash_seconds(bench, stage);
}

static void library_half(struct bench *bench, struct pairs *pairs,
                         uint64_t (*move)(struct disk_stage *stage))
{
    stage_half(bench, &bench->stage, &pairs->library, pairs->count, move);
}

static void ring_half(struct bench *bench, struct pairs *pairs,
                      uint64_t (*move)(struct disk_stage *stage))
{
    stage_half(bench, &bench->ring, &pairs->baseline, pairs->count, move);
}

/* As many slots as the library moves, but where it has blocks that it will read. */
static void choose_slots(struct bench *bench)
{
    uint32_t count = 0, slot_count = bench->stage.disk_count;
    if (!bench->scene->sequential)
        random_order(bench->order, slot_count);
    for (uint32_t i = 0; i < slot_count && bench->scene->sequential; i++)
        bench->order[i] = i;
    for (uint32_t i = 0; count < bench->stage.host_count; i++)
        if (!bench->stage.in_use[bench->order[i]])
            bench->slots[count++] = bench->order[i];
}

static void bare_half(struct bench *bench, struct pairs *pairs, bool write)
{
    struct side *side = &pairs->baseline;
    choose_slots(bench);
    flights_begin(&side->flights, unit_of(bench));
    struct cpu before = cpu_now();
    side->seconds[pairs->count] =
        (double)bare_loop_move(&bench->bare, write, bench->slots, bench->stage.host_count) / 1e9;
    side->cpu_seconds += cpu_now().process - before.process;
    flights_end();
}

/* Anywhere in the file, or in one part of it after the other. */
static void fio_half(struct bench *bench, struct pairs *pairs, bool write)
{
    const struct disk_stage *stage = &bench->stage;
    bool sequential = bench->scene->sequential;
    uint64_t part = sequential ? pairs->count % HALVES_A_FILE * stage->memory_bytes : 0;
    struct fio_job job = {.path = bench->options->path,
                          .offset = DATA_OFFSET + part,
                          .region_bytes = sequential ? stage->memory_bytes
                                                     : HALVES_A_FILE * stage->memory_bytes,
                          .block_bytes = stage->block_bytes,
                          .move_bytes = stage->memory_bytes,
                          .depth = bench->scene->depth,
                          .write = write,
                          .sequential = sequential,
                          .direct = bench->bare.direct};
    struct fio_result result = fio_run(&job);
    pairs->baseline.seconds[pairs->count] = result.seconds;
    pairs->baseline.cpu_seconds += result.cpu_seconds;
}

static void baseline_half(struct bench *bench, struct pairs *pairs, bool write)
{
    if (bench->scene->baseline == BASELINE_FIO)
        fio_half(bench, pairs, write);
    else
        bare_half(bench, pairs, write);
}

/*
 * One pair of each direction. Who goes first alternates. fio writes where it likes: what the
 * library wrote before is lost then.
 */
static void measure_round(struct bench *bench, bool baseline_first)
{
    struct disk_stage *stage = &bench->stage;
    disk_stage_offer(stage);
    if (baseline_first)
        baseline_half(bench, bench->down, true);
    library_half(bench, bench->down, disk_stage_down);
    if (!baseline_first && bench->scene->baseline == BASELINE_FIO) {
        baseline_half(bench, bench->down, true);
        disk_stage_repeat(stage);
    }
    disk_stage_swap(stage);
    if (!baseline_first && bench->scene->baseline != BASELINE_FIO)
        baseline_half(bench, bench->down, true);
    if (baseline_first)
        baseline_half(bench, bench->up, false);
    library_half(bench, bench->up, disk_stage_up);
    if (!baseline_first)
        baseline_half(bench, bench->up, false);
    disk_stage_close_round(stage);
    bench->down->count++;
    bench->up->count++;
}

/* The same of two managers, each with its own file. */
static void measure_round_of_two(struct bench *bench, bool ring_first)
{
    uint64_t (*const moves[])(struct disk_stage * stage) = {disk_stage_down, disk_stage_up};
    struct pairs *const both[] = {bench->down, bench->up};
    disk_stage_offer(&bench->stage);
    disk_stage_offer(&bench->ring);
    for (uint32_t i = 0; i < 2; i++) {
        if (ring_first)
            ring_half(bench, both[i], moves[i]);
        library_half(bench, both[i], moves[i]);
        if (!ring_first)
            ring_half(bench, both[i], moves[i]);
        both[i]->count++;
        if (i == 0) {
            disk_stage_swap(&bench->stage);
            disk_stage_swap(&bench->ring);
        }
    }
    disk_stage_close_round(&bench->stage);
    disk_stage_close_round(&bench->ring);
}

/* ---- A scene --------------------------------------------------------------------------------- */

static void set_up_pairs(const struct scene *scene, struct pairs *pairs, const char *direction,
                         uint64_t bytes)
{
    (void)snprintf(pairs->name, sizeof pairs->name, "%s%s.%s.%s", direction,
                   scene->disk_engine == KVB_DISK_ENGINE_POSIX ? ".posix" : "", scene->size,
                   scene->sequential ? "seq" : "random");
    pairs->gigabytes = (double)bytes / 1e9;
    pairs->depth = scene->depth;
    pairs->against = baseline_names[scene->baseline];
    pairs->bar = scene->bar;
    pairs->cpu_bar = scene->cpu_bar;
}

static struct disk_stage_config config_of(const struct options *options, const struct scene *scene)
{
    uint32_t host_count = (uint32_t)(options->half_bytes / scene->block_bytes);
    return (struct disk_stage_config){.path = options->path,
                                      .block_bytes = scene->block_bytes,
                                      .host_count = host_count,
                                      .disk_count = HALVES_A_FILE * host_count,
                                      .progress = options->progress,
                                      .disk_engine = scene->disk_engine,
                                      .batch = options->batch,
                                      .depth = options->depth,
                                      .sequential = scene->sequential};
}

static bool precise(const struct bench *bench)
{
    return pairs_precise(bench->down) && pairs_precise(bench->up);
}

static void measure_pairs(struct bench *bench, struct pairs_report *report)
{
    bool of_two = bench->scene->baseline == BASELINE_RING;
    set_up_pairs(bench->scene, bench->down, "offload", bench->options->half_bytes);
    set_up_pairs(bench->scene, bench->up, "onboard", bench->options->half_bytes);
    while (bench->down->count < bench->options->pairs && !precise(bench)) {
        bool baseline_first = bench->down->count % 2 == 1;
        if (of_two)
            measure_round_of_two(bench, baseline_first);
        else
            measure_round(bench, baseline_first);
    }
    memcpy(report->engine, bench->stage.engine, sizeof report->engine);
    pairs_report_row(report, bench->down);
    pairs_report_row(report, bench->up);
}

/* False: there is no ring to compare with. */
static bool measure(const struct options *options, const struct scene *scene,
                    struct pairs_report *report)
{
    struct bench bench = {
        .options = options, .scene = scene, .hash = kvbi_hash_select(kvbi_isa_detect())};
    struct disk_stage_config config = config_of(options, scene);
    disk_stage_create(&bench.stage, &config);
    bool works = bare_loop_create(&bench.bare, options->path, scene->block_bytes, config.host_count,
                                  scene->depth);
    bench.order = memory_take(config.disk_count, sizeof *bench.order);
    bench.slots = memory_take(config.host_count, sizeof *bench.slots);
    bench.down = memory_take(2, sizeof *bench.down);
    bench.up = bench.down + 1;
    if (works && scene->baseline == BASELINE_RING) {
        struct disk_stage_config ring = config;
        ring.path = options->ring_path;
        ring.disk_engine = KVB_DISK_ENGINE_URING;
        disk_stage_create(&bench.ring, &ring);
    }
    if (works)
        measure_pairs(&bench, report);
    if (works && scene->baseline == BASELINE_RING)
        disk_stage_destroy(&bench.ring);
    if (works)
        bare_loop_destroy(&bench.bare);
    disk_stage_destroy(&bench.stage);
    free(bench.order);
    free(bench.slots);
    free(bench.down);
    return works;
}

/* ---- All scenes ------------------------------------------------------------------------------ */

static uint32_t depth_of(uint64_t block_bytes)
{
    uint64_t piece = block_bytes < PIECE_BYTES ? block_bytes : PIECE_BYTES;
    return DEPTH_BYTES / piece < DEPTH_COUNT ? (uint32_t)(DEPTH_BYTES / piece) : DEPTH_COUNT;
}

static bool measure_size(const struct options *options, uint32_t size, enum baseline baseline,
                         struct pairs_report *report)
{
    bool works = true;
    for (int sequential = 0; works && sequential < 2; sequential++) {
        struct scene scene = {.size = sizes[size].name,
                              .block_bytes = sizes[size].bytes,
                              .disk_engine = options->disk_engine,
                              .depth = depth_of(sizes[size].bytes),
                              .sequential = sequential != 0,
                              .baseline = baseline,
                              .bar = options->quick ? 0 : BAR,
                              .cpu_bar = options->quick ? 0 : sizes[size].cpu_bar};
        if (options->order < 0 || options->order == sequential)
            works = measure(options, &scene, report);
    }
    return works;
}

/* The threads that stand in for a ring, beside the ring. */
static bool measure_posix(const struct options *options, struct pairs_report *report)
{
    struct scene scene = {.size = "1m",
                          .block_bytes = (uint64_t)1 << 20,
                          .disk_engine = KVB_DISK_ENGINE_POSIX,
                          .depth = depth_of((uint64_t)1 << 20),
                          .baseline = BASELINE_RING,
                          .bar = options->quick ? 0 : POSIX_BAR};
    return measure(options, &scene, report);
}

/*
 * Opening a file of a million blocks. They are as small as slots can be: their payloads are not
 * looked at.
 */
static void measure_recovery(const struct options *options, struct pairs_report *report)
{
    struct disk_stage_config config = {
        .path = options->path,
        .block_bytes = 4096,
        .host_count = options->quick ? RECOVERY_SLOTS / 256 : RECOVERY_SLOTS / 16,
        .disk_count = options->quick ? RECOVERY_SLOTS / 64 : RECOVERY_SLOTS,
        .progress = options->progress,
        .disk_engine = options->disk_engine};
    double bar = options->quick ? 0 : RECOVERY_BAR;
    pairs_report_seconds(report, "recovery.closed", recovery_seconds(&config, false), bar);
    pairs_report_seconds(report, "recovery.killed", recovery_seconds(&config, true), bar);
}

static bool measure_all(const struct options *options, struct pairs_report *report)
{
    bool fio = !options->bare && fio_is_there(), works = true;
    if (!fio && !options->bare)
        (void)fprintf(stderr,
                      "bench_disk: no fio here: compared with a bare io_uring loop instead\n");
    for (uint32_t i = 0; works && i < SIZE_COUNT; i++)
        if (options->only < 0 || options->only == (int)i)
            works = measure_size(options, i, fio ? BASELINE_FIO : BASELINE_BARE, report);
    if (works && options->disk_engine == KVB_DISK_ENGINE_AUTO && options->order != 1 &&
        (options->only < 0 || options->only == ONLY_POSIX_SIZE))
        works = measure_posix(options, report);
    if (works && (options->only < 0 || options->only == ONLY_RECOVERY))
        measure_recovery(options, report);
    return works;
}

/* ---- Command line ---------------------------------------------------------------------------- */

static void usage(FILE *out)
{
    (void)fprintf(
        out,
        "usage: bench_disk [--json] [--quick] [--path FILE] [--pairs N] [--only SIZE]\n"
        "                  [--progress thread|poll] [--engine auto|uring|posix]\n"
        "                  [--order both|random|seq] [--baseline fio|bare]\n"
        "                  [--batch N] [--depth N] [--mib N] [--help]\n\n"
        "  --json         rows as a JSON array instead of a table\n"
        "  --quick        little data and 2 pairs: a few seconds, figures of no use, no bar\n"
        "  --path FILE    the disk tier's file, 4.3 GiB, 1 GiB with --only (in TMPDIR or the\n"
        "                 current folder);\n"
        "                 removed at the end, after a kill too, unless it was there before\n"
        "  --pairs N      at most N pairs a row, 2 to 999 (60)\n"
        "  --only SIZE    blocks of 64k, 256k, 1m or 2m alone, or recovery\n"
        "  --progress     who moves: the manager's thread, or the caller of flush (thread)\n"
        "  --engine       the disk tier's engine (auto)\n"
        "  --order        slots of the file in random order, one after the other, or both in turn\n"
        "                 (both)\n"
        "  --baseline     fio's io_uring engine, or a loop around a ring of its own (fio, where\n"
        "                 it is installed)\n"
        "  --batch, --depth N   of the lane (the library's defaults)\n"
        "  --mib N        MiB that a half of a pair moves, 16 to 512 (256); the file is four\n"
        "                 times that\n"
        "  --help         this text\n");
}

static void read_value(void *given, const char *name, const char *text)
{
    struct options *options = given;
    static const char *const progress[] = {"thread", "poll"}, *const engines[] = {"auto", "uring",
                                                                                  "posix"};
    static const char *const orders[] = {"random", "seq", "both"}, *const baselines[] = {"fio",
                                                                                         "bare"};
    const char *names[SIZE_COUNT + 1];
    for (uint32_t i = 0; i < SIZE_COUNT; i++)
        names[i] = sizes[i].name;
    names[ONLY_RECOVERY] = "recovery";
    if (strcmp(name, "--path") == 0)
        (void)snprintf(options->path, sizeof options->path, "%s", text);
    else if (strcmp(name, "--pairs") == 0)
        options->pairs = number_option(name, text, 2, PAIRS_MAX);
    else if (strcmp(name, "--only") == 0)
        options->only = (int)word_option(name, text, names, SIZE_COUNT + 1);
    else if (strcmp(name, "--progress") == 0)
        options->progress = word_option(name, text, progress, 2);
    else if (strcmp(name, "--engine") == 0)
        options->disk_engine = word_option(name, text, engines, 3);
    else if (strcmp(name, "--order") == 0)
        options->order = (int)word_option(name, text, orders, 3);
    else if (strcmp(name, "--baseline") == 0)
        options->bare = word_option(name, text, baselines, 2) == 1;
    else if (strcmp(name, "--batch") == 0)
        options->batch = number_option(name, text, 1, 64);
    else if (strcmp(name, "--depth") == 0)
        options->depth = number_option(name, text, 1, 64);
    else if (strcmp(name, "--mib") == 0)
        options->half_bytes = (uint64_t)(number_option(name, text, 16, 512) & ~1u) << 20;
    else
        command_line_refuse("unknown option", name);
}

static struct options read_options(int argc, char **argv)
{
    struct options options = {.only = -1, .order = -1};
    const struct command_line line = {.program = "bench_disk",
                                      .usage = usage,
                                      .value = read_value,
                                      .json = &options.json,
                                      .quick = &options.quick};
    command_line_read(&line, &options, argc, argv);
    if (options.order == 2)
        options.order = -1;
    if (options.pairs == 0)
        options.pairs = options.quick ? PAIRS_QUICK : PAIRS;
    if (options.half_bytes == 0)
        options.half_bytes = options.quick ? HALF_BYTES_QUICK : HALF_BYTES;
    if (options.path[0] == '\0') {
        const char *folder = getenv("TMPDIR");
        (void)snprintf(options.path, sizeof options.path, "%s/bench_disk.%ld",
                       folder != NULL ? folder : ".", (long)getpid());
    }
    (void)snprintf(options.ring_path, sizeof options.ring_path, "%s.ring", options.path);
    return options;
}

static struct options options;

static void remove_file(void)
{
    (void)unlink(options.path);
}

static void remove_ring_file(void)
{
    (void)unlink(options.ring_path);
}

/* At the end, and after a kill too; but what was there before. */
static bool remove_files_at_end(void)
{
    static char *command[] = {"/bin/rm", "-f", "--", NULL, NULL, NULL};
    uint32_t count = 3;
    bool mine = access(options.path, F_OK) != 0, ring_mine = access(options.ring_path, F_OK) != 0;
    if (mine)
        command[count++] = options.path;
    if (ring_mine)
        command[count++] = options.ring_path;
    return (count == 3 || leftovers_at_end(command)) && (!mine || atexit(remove_file) == 0) &&
           (!ring_mine || atexit(remove_ring_file) == 0);
}

int main(int argc, char **argv)
{
    options = read_options(argc, argv);
    if (!remove_files_at_end())
        return 2;
    struct pairs_report report = {.json = options.json};
    pairs_report_begin(&report);
    bool works = measure_all(&options, &report);
    pairs_report_end(&report);
    if (!works)
        (void)fprintf(stderr, "bench_disk: no io_uring here to compare with\n");
    return !works ? 77 : report.failed > 0 ? 1 : 0;
}
