/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Offload and onboard between two tiers in host memory, through the whole manager, beside glibc's
 * memcpy between random blocks of the same two arenas.
 *
 * Offload: time from kvb_block_offload until kvb_manager_poll has nothing left. Both pools are full
 * and aged, so every copy goes from a random block to a random block and evicts one below. Onboard:
 * one block, from kvb_onboard until `done`.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "suites.h"

#define POLL_NS 10000000u

struct stage {
    struct kvb_manager *manager;
    uint64_t block_bytes;
    unsigned char *device, *host; /* the tiers' memory */
    size_t device_bytes, host_bytes;
    uint32_t device_count, host_count;
    uint32_t offload_count; /* blocks a round */
    struct contents contents;
    struct kvb_block **blocks, **shuffled;
    uint32_t *order;
};

static unsigned char *arena_take(size_t bytes)
{
    size_t page = (size_t)2 << 20,
           length = bytes + page; /* from a multiple of 2 MiB on, for huge pages */
    unsigned char *memory =
        mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        CALL(KVB_ENOMEM);
    size_t head = (size_t)(-(uintptr_t)memory & (page - 1));
    (void)munmap(memory, head);
    (void)munmap(memory + head + bytes, page - head);
    (void)madvise(memory + head, bytes, MADV_HUGEPAGE);
    memset(memory + head, 1, bytes);
    return memory + head;
}

static void stage_create(struct stage *stage, uint64_t block_bytes, uint32_t device_count,
                         uint32_t host_count, uint32_t offload_count)
{
    *stage = (struct stage){.block_bytes = block_bytes,
                            .device_bytes = device_count * block_bytes,
                            .host_bytes = host_count * block_bytes,
                            .device_count = device_count,
                            .host_count = host_count,
                            .offload_count = offload_count};
    stage->device = arena_take(stage->device_bytes);
    stage->host = arena_take(stage->host_bytes);
    struct kvb_layout layout = {
        .size = sizeof layout, .layers = 1, .parts = 1, .chunk_bytes = block_bytes};
    struct kvb_tier_config tiers[] = {{.size = sizeof *tiers,
                                       .tier = KVB_TIER_DEVICE,
                                       .block_count = device_count,
                                       .trigger = KVB_OFFLOAD_MANUAL,
                                       .memory = stage->device,
                                       .memory_bytes = stage->device_bytes},
                                      {.size = sizeof *tiers,
                                       .tier = KVB_TIER_HOST,
                                       .block_count = host_count,
                                       .memory = stage->host,
                                       .memory_bytes = stage->host_bytes}};
    struct kvb_config config = {.size = sizeof config,
                                .tokens_per_block = BLOCK_TOKENS,
                                .layout = &layout,
                                .tiers = tiers,
                                .tier_count = 2,
                                .progress = KVB_PROGRESS_POLL,
                                .digest_seed = 1};
    CALL(kvb_manager_create(&config, &stage->manager, NULL));
    contents_create(&stage->contents, offload_count, 32);
    stage->blocks = memory_take(offload_count, sizeof *stage->blocks);
    stage->shuffled = memory_take(offload_count, sizeof *stage->shuffled);
    stage->order = memory_take(offload_count, sizeof *stage->order);
}

static void stage_destroy(struct stage *stage)
{
    CALL(kvb_manager_destroy(stage->manager));
    contents_destroy(&stage->contents);
    free(stage->blocks);
    free(stage->shuffled);
    free(stage->order);
    (void)munmap(stage->device, stage->device_bytes);
    (void)munmap(stage->host, stage->host_bytes);
}

static struct kvb_lane_stats lane_down(struct kvb_manager *manager)
{
    struct kvb_stats stats = {.size = sizeof stats};
    CALL(kvb_manager_stats(manager, &stats));
    for (uint32_t i = 0; i < stats.lane_count; i++)
        if (stats.lanes[i].from_tier == KVB_TIER_DEVICE)
            return stats.lanes[i];
    EXPECT(stats.lane_count == 0);
    return (struct kvb_lane_stats){0};
}

static void poll_until_idle(struct kvb_manager *manager)
{
    int more;
    do
        more = kvb_manager_poll(manager, POLL_NS);
    while (more == 1);
    CALL(more);
}

/* ---- Offload --------------------------------------------------------------------------------- */

/* New contents, held, in whatever slots eviction gives. */
static void register_new(struct stage *stage)
{
    contents_renew(&stage->contents, stage->manager, true);
    CALL(kvb_alloc(stage->manager, KVB_TIER_DEVICE, stage->offload_count, NULL, stage->blocks,
                   NULL));
    blocks_register(stage->manager, stage->blocks, stage->contents.inits, stage->contents.appends,
                    stage->offload_count);
}

static void park_shuffled(struct stage *stage)
{
    random_order(stage->order, stage->offload_count);
    for (uint32_t i = 0; i < stage->offload_count; i++)
        stage->shuffled[i] = stage->blocks[stage->order[i]];
    CALL(kvb_block_unref(stage->manager, stage->shuffled, stage->offload_count, NULL));
}

/* ns for the whole round */
static uint64_t offload_round(struct stage *stage)
{
    register_new(stage);
    uint64_t before = lane_down(stage->manager).transferred;
    uint64_t since = now_ns();
    CALL(kvb_block_offload(stage->manager, stage->blocks, stage->offload_count,
                           KVB_PRIORITY_DEFAULT, NULL, NULL));
    poll_until_idle(stage->manager);
    uint64_t ns = now_ns() - since;
    EXPECT(lane_down(stage->manager).transferred - before == stage->offload_count);
    park_shuffled(stage);
    return ns;
}

static uint64_t memcpy_round(const struct stage *stage)
{
    uint64_t since = now_ns();
    for (uint32_t i = 0; i < stage->offload_count; i++)
        memcpy(stage->host + random_below(stage->host_count) * stage->block_bytes,
               stage->device + random_below(stage->device_count) * stage->block_bytes,
               stage->block_bytes);
    return now_ns() - since;
}

/* Until both pools are full and in random order. */
static void age(struct stage *stage)
{
    uint32_t rounds = (stage->host_count + stage->device_count) / stage->offload_count + 1;
    for (uint32_t i = 0; i < rounds; i++)
        (void)offload_round(stage);
}

static double gigabytes_per_second(const struct stage *stage, uint64_t ns)
{
    return (double)stage->offload_count * (double)stage->block_bytes / (double)ns;
}

static void offload_row(const struct plan *plan, struct stage *stage, const char *name)
{
    struct samples *lane = memory_take(2, sizeof *lane), *plain = lane + 1;
    for (uint32_t round = 0; round < plan->rounds; round++) {
        samples_add(plain, gigabytes_per_second(stage, memcpy_round(stage)));
        samples_add(lane, gigabytes_per_second(stage, offload_round(stage)));
    }
    struct row row = row_of(name, "GB/s", lane, plain, "memcpy, random block to random block");
    report_row(plan->report, &row);
    free(lane);
}

/* Blocks so small that only the manager's own work is left. */
static void offload_cost_row(const struct plan *plan)
{
    struct stage stage;
    struct samples *cost = memory_take(1, sizeof *cost);
    stage_create(&stage, 64, 16384, 32768, 4096);
    age(&stage);
    for (uint32_t round = 0; round < plan->rounds; round++)
        samples_add(cost, (double)offload_round(&stage) / stage.offload_count);
    struct row row = row_of("offload.64b", "ns/block", cost, NULL, NULL);
    report_row(plan->report, &row);
    stage_destroy(&stage);
    free(cost);
}

/* ---- Onboard --------------------------------------------------------------------------------- */

static void onboarded(void *arg, struct kvb_op *op, int status, uint32_t good_count)
{
    (void)op;
    EXPECT(status == 0 && good_count == 1);
    *(bool *)arg = true;
}

/* A content that is below and not above, held. */
static struct kvb_block *pick_below(struct stage *stage, const struct kvb_seq *names,
                                    uint32_t count)
{
    for (;;) {
        struct kvb_query query = {
            .size = sizeof query, .keys = &names[random_below(count)], .key_count = 1};
        struct kvb_hit hit;
        size_t found;
        CALL(kvb_match(stage->manager, &query, &hit, 1, &found));
        if (found == 0)
            continue;
        if (hit.tier == KVB_TIER_HOST)
            return hit.block;
        CALL(kvb_block_unref(stage->manager, &hit.block, 1, NULL));
    }
}

static double onboard_us(struct stage *stage, const struct kvb_seq *names, uint32_t count)
{
    struct kvb_block *source = pick_below(stage, names, count), *target;
    struct kvb_op *op;
    uint32_t good;
    bool done = false;
    CALL(kvb_alloc(stage->manager, KVB_TIER_DEVICE, 1, NULL, &target, NULL));
    struct kvb_onboard request = {.size = sizeof request,
                                  .sources = &source,
                                  .targets = &target,
                                  .count = 1,
                                  .done = onboarded,
                                  .arg = &done};
    uint64_t since = now_ns();
    CALL(kvb_onboard(stage->manager, &request, &op));
    while (!done)
        EXPECT(kvb_manager_poll(stage->manager, POLL_NS) >= 0);
    double us = (double)(now_ns() - since) / 1e3;
    CALL(kvb_op_take(stage->manager, op, &target, 1, &good));
    EXPECT(good == 1);
    CALL(kvb_op_release(stage->manager, op));
    CALL(kvb_block_unref(stage->manager, &source, 1, NULL));
    CALL(kvb_block_unref(stage->manager, &target, 1, NULL));
    return us;
}

static double memcpy_us(const struct stage *stage)
{
    uint64_t since = now_ns();
    memcpy(stage->device + random_below(stage->device_count) * stage->block_bytes,
           stage->host + random_below(stage->host_count) * stage->block_bytes, stage->block_bytes);
    return (double)(now_ns() - since) / 1e3;
}

static void tail_row(const struct plan *plan, const char *name, const struct samples *value,
                     const struct samples *baseline, const char *against)
{
    struct row row = row_of(name, "us", value, baseline, against);
    row.value = samples_quantile(value, 0.99);
    row.baseline = samples_quantile(baseline, 0.99);
    row.noise = row.baseline_noise = NAN;
    report_row(plan->report, &row);
}

static void onboard_rows(const struct plan *plan, struct stage *stage)
{
    struct samples *onboard = memory_take(2, sizeof *onboard), *plain = onboard + 1;
    uint32_t kept = stage->host_count;
    struct kvb_seq *names = memory_take(kept, sizeof *names);
    for (uint32_t at = 0; at < kept; at += stage->offload_count) {
        (void)offload_round(stage);
        memcpy(names + at, stage->contents.names, stage->offload_count * sizeof *names);
    }
    for (uint32_t i = 0; i < (plan->quick ? 100 : 2000); i++) {
        samples_add(plain, memcpy_us(stage));
        samples_add(onboard, onboard_us(stage, names, kept));
    }
    struct row row =
        row_of("onboard.64k.median", "us", onboard, plain, "memcpy, random block to random block");
    report_row(plan->report, &row);
    tail_row(plan, "onboard.64k.p99", onboard, plain, "memcpy, p99");
    free(names);
    free(onboard);
}

void suite_move(const struct plan *plan)
{
    uint32_t scale = plan->quick ? 16 : 1; /* full: 0.5 GiB above, 1 GiB below */
    struct stage stage;
    offload_cost_row(plan);
    stage_create(&stage, (uint64_t)64 << 10, 8192 / scale, 16384 / scale, 4096 / scale);
    age(&stage);
    offload_row(plan, &stage, "offload.64k");
    onboard_rows(plan, &stage);
    stage_destroy(&stage);
    stage_create(&stage, (uint64_t)1 << 20, 512 / scale, 1024 / scale, 256 / scale);
    age(&stage);
    offload_row(plan, &stage, "offload.1m");
    stage_destroy(&stage);
}
