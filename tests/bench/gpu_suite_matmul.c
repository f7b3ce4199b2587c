/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gpu_suite_matmul - what a stream of bf16 products loses while lanes move blocks both ways without
 * a pause
 *
 * Why        once with blocks of one chunk, which the copy engines take, and once with small ones,
 *            where a kernel of the library's may take multiprocessors from the server's.
 */
#include "gpu_suites.h"

#include <stdio.h>
#include <stdlib.h>

#include "matmul.h"

#define BAR 1.05
#define LONG_ENOUGH_S 0.2
#define LONG_ENOUGH_QUICK_S 0.02
#define TRIAL 16u

static double run_alone(struct matmul *matmul, uint32_t count)
{
    matmul_start(matmul, count);
    while (!matmul_over(matmul))
        ;
    return matmul_seconds(matmul);
}

/* So many that a run takes long enough for the lanes to move several sets. */
static uint32_t choose_count(struct matmul *matmul, double seconds)
{
    (void)run_alone(matmul, TRIAL);
    double count = seconds / (run_alone(matmul, TRIAL) / TRIAL);
    return count < 1 ? 1 : count > MATMUL_QUEUE_MAX ? MATMUL_QUEUE_MAX : (uint32_t)count;
}

struct load {
    struct gpu_stage *stage;
    uint32_t turn; /* which set is found in host memory */
    struct samples alone, beside, lanes;
};

/*
 * The products begin once the lanes have something to do, and the lanes go on until they are over.
 */
static void run_beside_lanes(struct load *load, struct matmul *matmul, uint32_t count)
{
    struct gpu_stage *stage = load->stage;
    uint64_t bytes = 0, since = now_ns();
    do {
        struct gpu_set *rising = &stage->sets[load->turn], *sinking = &stage->sets[1 - load->turn];
        gpu_stage_offer(stage, sinking, false);
        gpu_bench_start_both(stage, rising, sinking);
        if (bytes == 0)
            matmul_start(matmul, count);
        gpu_stage_flush(stage);
        gpu_bench_end_both(stage, rising, sinking, false);
        load->turn = 1 - load->turn;
        bytes += 2 * stage->set_bytes;
    } while (!matmul_over(matmul));
    samples_add(&load->lanes, gigabytes_a_second(bytes, now_ns() - since));
    samples_add(&load->beside, 1e3 * matmul_seconds(matmul));
}

static void report_load(struct gpu_bench *bench, const struct load *load, const char *const *names)
{
    struct row matmul =
        row_of(names[0], "ms", &load->beside, &load->alone, "the same products alone");
    struct row lanes = row_of(names[1], "GB/s", &load->lanes, NULL, NULL);
    gpu_bench_row(bench, &matmul, BAR, false, load->stage);
    gpu_bench_row(bench, &lanes, 0, true, load->stage);
}

static void run_load(struct gpu_bench *bench, struct matmul *matmul,
                     const struct gpu_layout *layout, const char *const *names)
{
    struct gpu_stage stage;
    struct load *load = memory_take(1, sizeof *load);
    load->stage = &stage;
    uint32_t count =
        choose_count(matmul, bench->options->quick ? LONG_ENOUGH_QUICK_S : LONG_ENOUGH_S);
    gpu_bench_open(bench, layout, gpu_bench_set_blocks(bench, layout), 2, &stage);
    gpu_bench_sink(&stage, &stage.sets[0]);
    for (uint32_t round = 0; round < bench->options->rounds; round++) {
        gpu_run_at(bench->run, 0, round + 1);
        samples_add(&load->alone, 1e3 * run_alone(matmul, count));
        run_beside_lanes(load, matmul, count);
    }
    if (!matmul_right(matmul))
        gpu_run_wrong_result(bench->run, "elements of the product");
    report_load(bench, load, names);
    gpu_stage_drop(&stage, &stage.sets[load->turn]);
    gpu_stage_destroy(&stage);
    free(load);
}

static void run_layout(struct gpu_bench *bench, const struct gpu_layout *layout)
{
    const char *why;
    char products[48], lanes[48];
    (void)snprintf(products, sizeof products, "matmul.%s", layout->name);
    (void)snprintf(lanes, sizeof lanes, "matmul.%s.lanes", layout->name);
    const char *const names[] = {products, lanes};
    if (!gpu_run_unit(bench->run, names, 2))
        return;
    struct matmul *matmul = matmul_create(&why);
    if (matmul == NULL) {
        (void)fprintf(stderr, "bench_gpu: no row %s: %s\n", products, why);
        return;
    }
    run_load(bench, matmul, layout, names);
    matmul_destroy(matmul);
}

void gpu_suite_matmul(struct gpu_bench *bench)
{
    run_layout(bench, &gpu_layouts[GPU_CONTIGUOUS]);
    run_layout(bench, &gpu_layouts[GPU_LAYERS_16K]);
}
