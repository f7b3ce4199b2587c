/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gpu_suite_launch - how long a launch takes the server's thread while lanes move blocks both ways
 *
 * Why        the products of gpu_suite_matmul are long, and launched long before they run: they
 *            show what the lanes take of the GPU. A step of decoding is hundreds of short kernels,
 *            and what it loses is in the calls, which share a lock of the driver's with the
 *            manager's thread. So calls are measured, a burst at a time, and not their ends.
 */
#include <stdio.h>
#include <stdlib.h>

#include "empty.h"
#include "gpu_suites.h"

#define BAR 1.1
#define ROW "launch.layers.16k"
#define BURST 64u /* a stream takes many times that without waiting */
#define BURSTS_ALONE 200u
#define BURSTS_ALONE_QUICK 4u

struct launches {
    struct gpu_stage *stage;
    uint32_t turn;                /* which set is found in host memory */
    struct samples alone, beside; /* a round's medians */
    struct samples bursts;        /* of this round */
};

/* us a launch. The stream is empty before, and after. */
static double launch_burst(struct gpu_bare *bare)
{
    uint64_t since = now_ns();
    for (uint32_t i = 0; i < BURST; i++)
        CUDA(empty_launch(bare->server));
    double us = (double)(now_ns() - since) / 1e3 / BURST;
    CUDA(cudaStreamSynchronize(bare->server));
    return us;
}

static void measure_alone(struct launches *launches, uint32_t bursts)
{
    launches->bursts.count = 0;
    for (uint32_t i = 0; i < bursts; i++)
        samples_add(&launches->bursts, launch_burst(launches->stage->bare));
    samples_add(&launches->alone, samples_median(&launches->bursts));
}

/* As long as the lanes have something to do. */
static void measure_beside_lanes(struct launches *launches)
{
    struct gpu_stage *stage = launches->stage;
    struct gpu_set *rising = &stage->sets[launches->turn],
                   *sinking = &stage->sets[1 - launches->turn];
    int error;
    launches->bursts.count = 0;
    gpu_stage_offer(stage, sinking, false);
    gpu_bench_start_both(stage, rising, sinking);
    do
        samples_add(&launches->bursts, launch_burst(stage->bare));
    while ((error = kvb_manager_flush(stage->manager, 0)) == KVB_ETIMEDOUT);
    CALL(error);
    gpu_bench_end_both(stage, rising, sinking, false);
    launches->turn = 1 - launches->turn;
    samples_add(&launches->beside, samples_median(&launches->bursts));
}

static void report_launches(struct gpu_bench *bench, const struct launches *launches)
{
    struct row row =
        row_of(ROW, "us", &launches->beside, &launches->alone, "the same launches, lanes idle");
    gpu_bench_row(bench, &row, BAR, false, launches->stage);
}

void gpu_suite_launch(struct gpu_bench *bench)
{
    static const char *const names[] = {ROW};
    const struct gpu_layout *layout = &gpu_layouts[GPU_LAYERS_16K];
    struct gpu_stage stage;
    if (!gpu_run_unit(bench->run, names, 1))
        return;
    if (empty_missing() != NULL) {
        (void)fprintf(stderr, "bench_gpu: no row " ROW ": %s\n", empty_missing());
        return;
    }
    struct launches *launches = memory_take(1, sizeof *launches);
    launches->stage = &stage;
    gpu_bench_open(bench, layout, gpu_bench_set_blocks(bench, layout), 2, &stage);
    gpu_bench_sink(&stage, &stage.sets[0]);
    for (uint32_t round = 0; round < bench->options->rounds; round++) {
        gpu_run_at(bench->run, 0, round + 1);
        measure_alone(launches, bench->options->quick ? BURSTS_ALONE_QUICK : BURSTS_ALONE);
        measure_beside_lanes(launches);
    }
    report_launches(bench, launches);
    gpu_stage_drop(&stage, &stage.sets[launches->turn]);
    gpu_stage_destroy(&stage);
    free(launches);
}
