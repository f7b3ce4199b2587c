/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gpu_suite_pinning - how soon all of a host tier is pinned, beside a cudaHostAlloc of as many
 * bytes, and what a launch on the server's stream waits for meanwhile
 *
 * Why        from kvb_manager_create until the statistics say that all is pinned, so that starting
 *            threads, taking the memory and a GPU tier of one block count as well. Without
 *            calibration, which is not pinning.
 *            Launches go out at a fixed rate, as a server's do. One after the other, nearly all of
 *            them would fall into the pauses between two registrations, and the few that wait would
 *            not be seen in any average; the slowest of a hundred is said beside it.
 */
#include "gpu_suites.h"

#include <stdio.h>
#include <stdlib.h>

#include "empty.h"

#define BLOCK_BYTES ((uint64_t)2 << 20)
#define ROUNDS 3u
#define BAR 2.0
#define GIB 1073741824.0
#define FULL_DUTY 100u
#define DEFAULT_DUTY 0u
#define LAUNCH_EVERY_NS UINT64_C(200000)
#define LAUNCHES_IDLE 2000u
#define LAUNCHES_IDLE_QUICK 20u

static double gibibytes_a_second(uint64_t bytes, uint64_t ns)
{
    return (double)bytes / GIB / ((double)ns / 1e9);
}

static struct kvb_manager *start_pinning(const struct gpu_options *options, uint32_t duty_percent)
{
    struct kvb_layout layout = {
        .size = sizeof layout, .layers = 1, .parts = 1, .chunk_bytes = BLOCK_BYTES};
    struct kvb_tier_config tiers[] = {{.size = sizeof *tiers,
                                       .tier = KVB_TIER_DEVICE,
                                       .block_count = 1,
                                       .memory_kind = KVB_MEMORY_CUDA,
                                       .device = options->device,
                                       .copy_method = KVB_COPY_PLAIN},
                                      {.size = sizeof *tiers,
                                       .tier = KVB_TIER_HOST,
                                       .block_count = (uint32_t)(options->pin_bytes / BLOCK_BYTES),
                                       .pin_duty_percent = duty_percent}};
    struct kvb_config config = {.size = sizeof config,
                                .tokens_per_block = BLOCK_TOKENS,
                                .layout = &layout,
                                .tiers = tiers,
                                .tier_count = 2};
    struct kvb_manager *manager;
    CALL(kvb_manager_create(&config, &manager, NULL));
    return manager;
}

static bool is_pinned(struct kvb_manager *manager, const struct gpu_options *options)
{
    struct kvb_stats stats = {.size = sizeof stats};
    CALL(kvb_manager_stats(manager, &stats));
    EXPECT(stats.unpinnable_bytes == 0);
    return stats.pinned_bytes >= options->pin_bytes;
}

/* ---- Throughput ------------------------------------------------------------------------------ */

static double pin_by_manager(const struct gpu_options *options, uint32_t duty_percent)
{
    uint64_t since = now_ns();
    struct kvb_manager *manager = start_pinning(options, duty_percent);
    while (!is_pinned(manager, options))
        ;
    double speed = gibibytes_a_second(options->pin_bytes, now_ns() - since);
    CALL(kvb_manager_destroy(manager));
    return speed;
}

static double pin_bare(const struct gpu_options *options)
{
    void *memory;
    uint64_t since = now_ns();
    CUDA(cudaHostAlloc(&memory, options->pin_bytes, cudaHostAllocPortable));
    double speed = gibibytes_a_second(options->pin_bytes, now_ns() - since);
    CUDA(cudaFreeHost(memory));
    return speed;
}

static void measure_throughput(struct gpu_bench *bench)
{
    static const char *const names[] = {"pinning", "pinning.default_duty"};
    if (!gpu_run_unit(bench->run, names, 2))
        return;
    struct samples *samples = memory_take(3, sizeof *samples);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        gpu_run_at(bench->run, 0, round + 1);
        samples_add(&samples[0], pin_by_manager(bench->options, FULL_DUTY));
        samples_add(&samples[2], pin_bare(bench->options));
        gpu_run_at(bench->run, 1, round + 1);
        samples_add(&samples[1], pin_by_manager(bench->options, DEFAULT_DUTY));
    }
    struct row full = row_of(names[0], "GiB/s", &samples[0], &samples[2], "cudaHostAlloc");
    struct row half = row_of(names[1], "GiB/s", &samples[1], &samples[2], "cudaHostAlloc");
    gpu_bench_row(bench, &full, BAR, true, NULL);
    gpu_bench_row(bench, &half, 0, true, NULL);
    free(samples);
}

/* ---- Launches -------------------------------------------------------------------------------- */

/* What one round has seen, and the rounds. */
struct launches {
    struct samples one;
    struct samples mean, slowest, idle_mean, idle_slowest, pinned;
};

static double mean_of(const struct samples *samples)
{
    double sum = 0;
    for (uint32_t i = 0; i < samples->count; i++)
        sum += samples->values[i];
    return sum / samples->count;
}

/* From the launch until an event behind it is seen; then until it is time for the next. */
static void launch_one(struct gpu_bare *bare, struct samples *samples)
{
    uint64_t since = now_ns();
    CUDA(empty_launch(bare->server));
    gpu_bare_await_server(bare);
    samples_add(samples, (double)(now_ns() - since) / 1e3);
    while (now_ns() - since < LAUNCH_EVERY_NS)
        ;
}

static void end_launches(struct samples *one, struct samples *mean, struct samples *slowest)
{
    samples_add(mean, mean_of(one));
    samples_add(slowest, samples_quantile(one, 0.99));
    one->count = 0;
}

/* The idle ones are of the same manager, once all is pinned. */
static void measure_round(struct gpu_bench *bench, struct launches *l, uint32_t duty_percent)
{
    const struct gpu_options *options = bench->options;
    uint32_t idle = options->quick ? LAUNCHES_IDLE_QUICK : LAUNCHES_IDLE;
    launch_one(&bench->bare, &l->one); /* loads the kernel, the first time */
    l->one.count = 0;
    uint64_t since = now_ns();
    struct kvb_manager *manager = start_pinning(options, duty_percent);
    do
        launch_one(&bench->bare, &l->one);
    while (!is_pinned(manager, options));
    samples_add(&l->pinned, gibibytes_a_second(options->pin_bytes, now_ns() - since));
    end_launches(&l->one, &l->mean, &l->slowest);
    for (uint32_t i = 0; i < idle; i++)
        launch_one(&bench->bare, &l->one);
    end_launches(&l->one, &l->idle_mean, &l->idle_slowest);
    CALL(kvb_manager_destroy(manager));
}

static void measure_launches(struct gpu_bench *bench, uint32_t duty_percent,
                             const char *const *names)
{
    const char *why = empty_missing();
    if (!gpu_run_unit(bench->run, names, 3))
        return;
    if (why != NULL) {
        (void)fprintf(stderr, "bench_gpu: no row %s: %s\n", names[0], why);
        return;
    }
    struct launches *l = memory_take(1, sizeof *l);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        gpu_run_at(bench->run, 0, round + 1);
        measure_round(bench, l, duty_percent);
    }
    struct row mean = row_of(names[0], "us", &l->mean, &l->idle_mean, "once all is pinned");
    struct row slowest =
        row_of(names[1], "us", &l->slowest, &l->idle_slowest, "once all is pinned");
    struct row pinned = row_of(names[2], "GiB/s", &l->pinned, NULL, NULL);
    gpu_bench_row(bench, &mean, 0, false, NULL);
    gpu_bench_row(bench, &slowest, 0, false, NULL);
    gpu_bench_row(bench, &pinned, 0, true, NULL);
    free(l);
}

void gpu_suite_pinning(struct gpu_bench *bench)
{
    static const char *const launch[] = {"pinning.launch", "pinning.launch.p99",
                                         "pinning.launch.pinned"};
    static const char *const full[] = {"pinning.full_duty.launch", "pinning.full_duty.launch.p99",
                                       "pinning.full_duty.launch.pinned"};
    measure_throughput(bench);
    measure_launches(bench, DEFAULT_DUTY, launch);
    measure_launches(bench, FULL_DUTY, full);
}
