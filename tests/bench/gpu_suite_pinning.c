/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gpu_suite_pinning - how soon all of a host tier is pinned, beside a cudaHostAlloc of as many
 * bytes
 *
 * Why        from kvb_manager_create until the statistics say that all is pinned, so that starting
 *            threads, taking the memory and a GPU tier of one block count as well. Without
 *            calibration, which is not pinning.
 */
#include "gpu_suites.h"

#include <stdio.h>
#include <stdlib.h>

#define BLOCK_BYTES ((uint64_t)2 << 20)
#define ROUNDS 3u
#define BAR 2.0
#define GIB 1073741824.0

static double gibibytes_a_second(uint64_t bytes, uint64_t ns)
{
    return (double)bytes / GIB / ((double)ns / 1e9);
}

static double pin_by_manager(const struct gpu_options *options)
{
    struct kvb_layout layout = {
        .size = sizeof layout, .layers = 1, .parts = 1, .chunk_bytes = BLOCK_BYTES};
    struct kvb_tier_config tiers[] = {
        {.size = sizeof *tiers,
         .tier = KVB_TIER_DEVICE,
         .block_count = 1,
         .memory_kind = KVB_MEMORY_CUDA,
         .device = options->device,
         .copy_method = KVB_COPY_PLAIN},
        {.size = sizeof *tiers,
         .tier = KVB_TIER_HOST,
         .block_count = (uint32_t)(options->pin_bytes / BLOCK_BYTES)}};
    struct kvb_config config = {.size = sizeof config,
                                .tokens_per_block = BLOCK_TOKENS,
                                .layout = &layout,
                                .tiers = tiers,
                                .tier_count = 2};
    struct kvb_stats stats = {.size = sizeof stats};
    struct kvb_manager *manager;
    uint64_t since = now_ns();
    CALL(kvb_manager_create(&config, &manager, NULL));
    do {
        CALL(kvb_manager_stats(manager, &stats));
        EXPECT(stats.unpinnable_bytes == 0);
    } while (stats.pinned_bytes < options->pin_bytes);
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

void gpu_suite_pinning(struct gpu_bench *bench)
{
    struct samples *samples = memory_take(2, sizeof *samples);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        samples_add(&samples[0], pin_by_manager(bench->options));
        samples_add(&samples[1], pin_bare(bench->options));
    }
    struct row row = row_of("pinning", "GiB/s", &samples[0], &samples[1], "cudaHostAlloc");
    gpu_bench_row(bench, &row, BAR, true, NULL);
    free(samples);
}
