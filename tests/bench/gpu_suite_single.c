/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gpu_suite_single - one block of 2 MiB, from kvb_onboard until the server's stream has got past
 * the wait for it
 *
 * Why        a pass onboards block after block without a pause, so that the manager's thread is
 *            awake, and is followed by a pass of as many bare copies of 2 MiB on the same stream.
 *            Both end when an event recorded behind is seen by the same loop.
 */
#include <stdlib.h>

#include "gpu_suites.h"

#define PASS_BLOCKS 64u
#define PASSES_A_ROUND 4u
#define BAR_US 15.0

static struct kvb_op *start_one(struct gpu_stage *stage, struct gpu_set *set, uint32_t i)
{
    struct kvb_onboard request = {.size = sizeof request,
                                  .sources = &set->sources[i],
                                  .targets = &set->blocks[i],
                                  .count = 1};
    struct kvb_op *op;
    int error;
    CALL(kvb_onboard(stage->manager, &request, &op));
    while ((error = kvb_op_wait_stream(stage->manager, op, stage->bare->server, KVB_ALL_LAYERS)) ==
           KVB_EAGAIN)
        ;
    CALL(error);
    return op;
}

static void end_one(struct gpu_stage *stage, struct gpu_set *set, uint32_t i, struct kvb_op *op)
{
    uint32_t good = 0;
    int error;
    while ((error = kvb_op_take(stage->manager, op, &set->blocks[i], 1, &good)) == KVB_EAGAIN)
        ;
    CALL(error);
    EXPECT(good == 1);
    CALL(kvb_op_release(stage->manager, op));
}

/* What is enqueued behind the wait finds the bytes. */
static void read_first(struct gpu_stage *stage, struct gpu_set *set)
{
    struct gpu_bare *bare = stage->bare;
    void *address;
    /* asked for while the block is not yet the operation's */
    CALL(kvb_block_address(stage->manager, set->blocks[0], 0, 0, &address));
    struct kvb_op *op = start_one(stage, set, 0);
    CUDA(cudaMemcpyAsync(bare->back, address, stage->block_bytes, cudaMemcpyDeviceToHost,
                         bare->server));
    CUDA(cudaStreamSynchronize(bare->server));
    gpu_stage_check_bytes(stage, set, 0, bare->back);
    end_one(stage, set, 0, op);
}

static double onboard_one(struct gpu_stage *stage, struct gpu_set *set, uint32_t i)
{
    uint64_t since = now_ns();
    struct kvb_op *op = start_one(stage, set, i);
    gpu_bare_await_server(stage->bare);
    double us = (double)(now_ns() - since) / 1e3;
    end_one(stage, set, i, op);
    return us;
}

static double copy_one(struct gpu_stage *stage, uint32_t i)
{
    struct gpu_bare *bare = stage->bare;
    uint64_t at = i * stage->block_bytes, since = now_ns();
    CUDA(cudaMemcpyAsync(bare->device + at, bare->out + at, stage->block_bytes,
                         cudaMemcpyHostToDevice, bare->server));
    gpu_bare_await_server(bare);
    return (double)(now_ns() - since) / 1e3;
}

static const char *const names[] = {"single.2m", "single.2m.over_bare"};

struct singles {
    struct samples blocks, bare, over, pass_blocks, pass_bare;
};

/* The first of each pass is not measured: it wakes the thread, and is read behind its wait. */
static void measure_pass(struct gpu_stage *stage, struct singles *samples, uint32_t pass)
{
    struct gpu_set *set = &stage->sets[0];
    gpu_run_at(stage->bare->run, 0, pass + 1);
    samples->pass_blocks.count = samples->pass_bare.count = 0;
    gpu_bench_sink(stage, set);
    read_first(stage, set);
    for (uint32_t i = 1; i < stage->config.set_blocks; i++)
        samples_add(&samples->pass_blocks, onboard_one(stage, set, i));
    for (uint32_t i = 1; i < stage->config.set_blocks; i++)
        samples_add(&samples->pass_bare, copy_one(stage, i));
    gpu_stage_check_device(stage, set);
    gpu_stage_drop(stage, set);
    gpu_stage_clear_device(stage);
    samples_add(&samples->blocks, samples_median(&samples->pass_blocks));
    samples_add(&samples->bare, samples_median(&samples->pass_bare));
    samples_add(&samples->over,
                samples_median(&samples->pass_blocks) - samples_median(&samples->pass_bare));
}

void gpu_suite_single(struct gpu_bench *bench)
{
    const struct gpu_layout *layout = &gpu_layouts[GPU_CONTIGUOUS];
    struct gpu_stage stage;
    if (!gpu_run_unit(bench->run, names, 2))
        return;
    struct singles *samples = memory_take(1, sizeof *samples);
    uint32_t blocks = gpu_bench_set_blocks(bench, layout);
    gpu_bench_open(bench, layout, blocks < PASS_BLOCKS ? blocks : PASS_BLOCKS, 1, &stage);
    for (uint32_t pass = 0; pass < PASSES_A_ROUND * bench->options->rounds; pass++)
        measure_pass(&stage, samples, pass);
    struct row whole =
        row_of(names[0], "us", &samples->blocks, &samples->bare, "cudaMemcpyAsync of 2 MiB");
    struct row over = row_of(names[1], "us", &samples->over, NULL, NULL);
    gpu_bench_row(bench, &whole, 0, false, &stage);
    gpu_bench_row(bench, &over, BAR_US, false, &stage);
    gpu_stage_destroy(&stage);
    free(samples);
}
