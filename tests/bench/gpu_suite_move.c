/* SPDX-License-Identifier: Apache-2.0 */
/* gpu_suite_move - throughput of the lanes, one way and both ways; see gpu_suites.h. */
#include "gpu_suites.h"

#include <stdio.h>
#include <stdlib.h>

#define BAR_BOTH 1.6

/* K and V of 32 layers apart, as servers keep them, and next to each other. */
const struct gpu_layout gpu_layouts[GPU_LAYOUTS] = {
    {"contiguous.2m", 1, 1, (uint64_t)2 << 20, 0.97},
    {"layers.64k", 32, 2, (uint64_t)64 << 10, 0.9},
    {"layers.32k", 32, 2, (uint64_t)32 << 10, 0.8},
    {"layers.16k", 32, 2, (uint64_t)16 << 10, 0.85},
    {"layers.4k", 32, 2, (uint64_t)4 << 10, 0.7}};

double gigabytes_a_second(uint64_t bytes, uint64_t ns)
{
    return (double)bytes / (double)ns;
}

uint32_t gpu_bench_set_blocks(const struct gpu_bench *bench, const struct gpu_layout *layout)
{
    return (uint32_t)(bench->options->set_bytes /
                      (layout->layers * layout->parts * layout->chunk_bytes));
}

void gpu_bench_open(struct gpu_bench *bench, const struct gpu_layout *layout, uint32_t set_blocks,
                    uint32_t sets, struct gpu_stage *stage)
{
    const struct gpu_options *options = bench->options;
    struct gpu_stage_config config = {.layers = layout->layers,
                                      .parts = layout->parts,
                                      .chunk_bytes = layout->chunk_bytes,
                                      .set_blocks = set_blocks,
                                      .sets = sets,
                                      .device = options->device,
                                      .method = options->method,
                                      .batch = options->batch,
                                      .depth = options->depth};
    gpu_stage_create(stage, &config, &bench->bare);
}

void gpu_bench_row(struct gpu_bench *bench, struct row *row, double bar, bool bar_is_floor,
                   const struct gpu_stage *stage)
{
    row->bar = bench->options->quick ? 0 : bar;
    row->bar_is_floor = bar_is_floor;
    row->engine = stage != NULL ? stage->engine : NULL;
    gpu_run_row(bench->run, row);
}

/* ---- One way --------------------------------------------------------------------------------- */

struct one_way {
    struct samples down, up, bare_down, bare_up;
};

enum { ROW_DOWN, ROW_UP };

/* What is compared here came down. */
static void measure_bare(struct gpu_stage *stage, struct one_way *samples, uint32_t round)
{
    uint64_t bytes = stage->set_bytes;
    gpu_run_at(stage->bare->run, ROW_DOWN, round);
    samples_add(&samples->bare_down, gigabytes_a_second(bytes, gpu_bare_down(stage->bare, bytes)));
    samples_add(&samples->bare_up, gigabytes_a_second(bytes, gpu_bare_up(stage->bare, bytes)));
}

static uint64_t time_down(struct gpu_stage *stage, struct gpu_set *set)
{
    uint64_t since = now_ns();
    gpu_stage_start_down(stage, set);
    gpu_stage_flush(stage);
    return now_ns() - since;
}

static uint64_t time_up(struct gpu_stage *stage, struct gpu_set *set)
{
    uint64_t since = now_ns();
    gpu_stage_start_up(stage, set);
    gpu_stage_flush(stage);
    return now_ns() - since;
}

static void measure_one_way(struct gpu_stage *stage, struct one_way *samples, uint32_t round)
{
    struct gpu_set *set = &stage->sets[0];
    bool bare_first = round % 2 == 0 && round > 0;
    gpu_run_at(stage->bare->run, ROW_DOWN, round);
    gpu_stage_offer(stage, set, true);
    if (bare_first)
        measure_bare(stage, samples, round);
    samples_add(&samples->down, gigabytes_a_second(stage->set_bytes, time_down(stage, set)));
    gpu_stage_clear_device(stage);
    gpu_stage_find(stage, set);
    gpu_stage_check_host(stage, set);
    gpu_run_at(stage->bare->run, ROW_UP, round);
    samples_add(&samples->up, gigabytes_a_second(stage->set_bytes, time_up(stage, set)));
    if (!bare_first)
        measure_bare(stage, samples, round);
    gpu_run_at(stage->bare->run, ROW_UP, round);
    gpu_stage_take_ops(stage, set);
    gpu_stage_check_device(stage, set);
    gpu_stage_drop(stage, set);
    gpu_stage_clear_device(stage);
}

static void report_one_way(struct gpu_bench *bench, const struct gpu_stage *stage,
                           const char *down_name, const char *up_name, double bar,
                           const struct one_way *samples)
{
    struct row down =
        row_of(down_name, "GB/s", &samples->down, &samples->bare_down, "one cudaMemcpyAsync");
    struct row up = row_of(up_name, "GB/s", &samples->up, &samples->bare_up, "one cudaMemcpyAsync");
    gpu_bench_row(bench, &down, bar, true, stage);
    gpu_bench_row(bench, &up, bar, true, stage);
}

static void run_layout(struct gpu_bench *bench, const struct gpu_layout *layout)
{
    struct gpu_stage stage;
    char down[48], up[48];
    (void)snprintf(down, sizeof down, "offload.%s", layout->name);
    (void)snprintf(up, sizeof up, "onboard.%s", layout->name);
    if (!gpu_run_unit(bench->run, (const char *const[]){[ROW_DOWN] = down, [ROW_UP] = up}, 2))
        return;
    /* the first: of the round that ages the pools */
    struct one_way *samples = memory_take(2, sizeof *samples);
    gpu_bench_open(bench, layout, gpu_bench_set_blocks(bench, layout), 1, &stage);
    for (uint32_t round = 0; round <= bench->options->rounds; round++)
        measure_one_way(&stage, &samples[round > 0], round);
    report_one_way(bench, &stage, down, up, layout->bar, &samples[1]);
    gpu_stage_destroy(&stage);
    free(samples);
}

void gpu_suite_move(struct gpu_bench *bench)
{
    for (uint32_t i = 0; i < GPU_LAYOUTS; i++)
        run_layout(bench, &gpu_layouts[i]);
}

/* ---- Both ways at once ----------------------------------------------------------------------- */

void gpu_bench_sink(struct gpu_stage *stage, struct gpu_set *set)
{
    gpu_stage_offer(stage, set, true);
    gpu_stage_start_down(stage, set);
    gpu_stage_flush(stage);
    gpu_stage_clear_device(stage);
    gpu_stage_find(stage, set);
}

void gpu_bench_start_both(struct gpu_stage *stage, struct gpu_set *rising, struct gpu_set *sinking)
{
    gpu_stage_start_down(stage, sinking);
    gpu_stage_start_up(stage, rising);
}

void gpu_bench_end_both(struct gpu_stage *stage, struct gpu_set *rising, struct gpu_set *sinking,
                        bool check)
{
    gpu_stage_take_ops(stage, rising);
    if (check)
        gpu_stage_check_device(stage, rising);
    gpu_stage_drop(stage, rising);
    gpu_stage_clear_device(stage);
    gpu_stage_find(stage, sinking);
    if (check)
        gpu_stage_check_host(stage, sinking);
}

struct both {
    struct samples lanes, one_way, bare;
};

enum { ROW_LANES, ROW_BARE };
static const char *const both_rows[] =
    {[ROW_LANES] = "both.contiguous.2m", [ROW_BARE] = "both.bare"};

/* The baseline is the mean of a copy each way, one after the other. */
static void measure_bare_ways(struct gpu_stage *stage, struct both *samples, uint32_t round)
{
    uint64_t bytes = stage->set_bytes;
    gpu_run_at(stage->bare->run, ROW_BARE, round + 1);
    double down = gigabytes_a_second(bytes, gpu_bare_down(stage->bare, bytes));
    double up = gigabytes_a_second(bytes, gpu_bare_up(stage->bare, bytes));
    samples_add(&samples->one_way, (down + up) / 2);
    samples_add(&samples->bare, gigabytes_a_second(2 * bytes, gpu_bare_both(stage->bare, bytes)));
}

static void measure_both(struct gpu_stage *stage, struct both *samples, uint32_t round)
{
    struct gpu_set *rising = &stage->sets[round % 2], *sinking = &stage->sets[(round + 1) % 2];
    gpu_stage_offer(stage, sinking, true);
    if (round / 2 % 2 == 0)
        measure_bare_ways(stage, samples, round);
    gpu_run_at(stage->bare->run, ROW_LANES, round + 1);
    uint64_t since = now_ns();
    gpu_bench_start_both(stage, rising, sinking);
    gpu_stage_flush(stage);
    samples_add(&samples->lanes, gigabytes_a_second(2 * stage->set_bytes, now_ns() - since));
    if (round / 2 % 2 == 1)
        measure_bare_ways(stage, samples, round);
    gpu_run_at(stage->bare->run, ROW_LANES, round + 1);
    gpu_bench_end_both(stage, rising, sinking, true);
}

void gpu_suite_both(struct gpu_bench *bench)
{
    const struct gpu_layout *layout = &gpu_layouts[GPU_CONTIGUOUS];
    struct gpu_stage stage;
    if (!gpu_run_unit(bench->run, both_rows, 2))
        return;
    struct both *samples = memory_take(1, sizeof *samples);
    gpu_bench_open(bench, layout, gpu_bench_set_blocks(bench, layout), 2, &stage);
    gpu_bench_sink(&stage, &stage.sets[0]);
    for (uint32_t round = 0; round < bench->options->rounds; round++)
        measure_both(&stage, samples, round);
    struct row lanes = row_of(both_rows[ROW_LANES], "GB/s", &samples->lanes, &samples->one_way,
                              "one cudaMemcpyAsync");
    struct row bare = row_of(both_rows[ROW_BARE], "GB/s", &samples->bare, &samples->one_way,
                             "one cudaMemcpyAsync");
    gpu_bench_row(bench, &lanes, BAR_BOTH, true, &stage);
    gpu_bench_row(bench, &bare, 0, true, NULL);
    gpu_stage_drop(&stage, &stage.sets[bench->options->rounds % 2]);
    gpu_stage_destroy(&stage);
    free(samples);
}
