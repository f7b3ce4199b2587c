/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a block: alloc (which evicts), init, append of 16 tokens, schedule, compute_done,
 * register, unref (which parks), in calls of 32 blocks on pools where every block is parked and
 * every alloc must evict.
 *
 * Arrays for the calls are made beforehand. Rounds alternate between the pools and the baseline.
 */
#include <stdio.h>
#include <stdlib.h>

#include "suites.h"

#define BATCH 32u
#define SAMPLE_BLOCKS 1024u /* half a millisecond or so: few samples meet another process */
#define POOLS_MAX 3

enum step { ALLOC, INIT, APPEND, SCHEDULE, DONE, REGISTER, UNREF, STEP_COUNT };
static const char *const step_names[STEP_COUNT] = {
    "alloc+evict", "init", "append16", "schedule", "compute_done", "register", "unref"};

struct pool {
    uint32_t block_count;
    struct kvb_manager *manager;
    struct samples hash, whole, named, steps[STEP_COUNT], alloc_free;
};

static void pool_create(struct pool *pool, uint32_t block_count)
{
    struct contents fill;
    pool->block_count = block_count;
    pool->manager = manager_of(block_count);
    contents_create(&fill, block_count, BATCH);
    contents_renew(&fill, pool->manager, true);
    manager_fill(pool->manager, &fill);
    contents_destroy(&fill);
}

static void lap(uint64_t *steps, enum step step, uint64_t *since)
{
    if (steps == NULL)
        return;
    uint64_t now = now_ns();
    steps[step] += now - *since;
    *since = now;
}

/* The lives of SAMPLE_BLOCKS blocks from `first` on. steps: NULL, or gets the time of each step. */
static void live(struct kvb_manager *manager, const struct contents *contents, uint32_t first,
                 uint64_t *steps)
{
    struct kvb_block *blocks[BATCH];
    uint32_t computed[BATCH];
    for (uint32_t i = 0; i < BATCH; i++)
        computed[i] = BLOCK_TOKENS;
    uint64_t since = steps == NULL ? 0 : now_ns();
    for (uint32_t at = first; at < first + SAMPLE_BLOCKS; at += BATCH) {
        CALL(kvb_alloc(manager, KVB_TIER_DEVICE, BATCH, NULL, blocks, NULL));
        lap(steps, ALLOC, &since);
        CALL(kvb_block_init(manager, blocks, contents->inits + at, BATCH, NULL));
        lap(steps, INIT, &since);
        CALL(kvb_block_append(manager, blocks, contents->appends + at, BATCH, NULL));
        lap(steps, APPEND, &since);
        CALL(kvb_block_schedule(manager, blocks, BATCH, NULL));
        lap(steps, SCHEDULE, &since);
        CALL(kvb_block_compute_done(manager, blocks, computed, BATCH, NULL, NULL));
        lap(steps, DONE, &since);
        CALL(kvb_block_register(manager, blocks, BATCH, NULL, NULL, NULL));
        lap(steps, REGISTER, &since);
        CALL(kvb_block_unref(manager, blocks, BATCH, NULL));
        lap(steps, UNREF, &since);
    }
}

static double hash_ns(struct kvb_manager *manager, const struct contents *contents, uint32_t first)
{
    struct kvb_seq names[BATCH];
    size_t named;
    uint64_t since = now_ns();
    for (uint32_t at = first; at < first + SAMPLE_BLOCKS; at += BATCH)
        CALL(kvb_hash_tokens(manager, 0, NULL, contents->tokens + (size_t)at * BLOCK_TOKENS,
                             BATCH * BLOCK_TOKENS, names, BATCH, &named));
    return (double)(now_ns() - since) / SAMPLE_BLOCKS;
}

static double live_ns(struct kvb_manager *manager, const struct contents *contents, uint32_t first)
{
    uint64_t since = now_ns();
    live(manager, contents, first, NULL);
    return (double)(now_ns() - since) / SAMPLE_BLOCKS;
}

static void live_by_step(struct pool *pool, const struct contents *contents, uint32_t first)
{
    uint64_t steps[STEP_COUNT] = {0};
    live(pool->manager, contents, first, steps);
    for (unsigned step = 0; step < STEP_COUNT; step++)
        samples_add(&pool->steps[step], (double)steps[step] / SAMPLE_BLOCKS);
}

/* Blocks that are free when alloc comes, and go back as they came. */
static double alloc_free_ns(struct kvb_manager *manager, uint32_t times)
{
    struct kvb_block *blocks[BATCH];
    uint64_t in_alloc = 0;
    CALL(kvb_alloc(manager, KVB_TIER_DEVICE, BATCH, NULL, blocks, NULL));
    CALL(kvb_block_unref(manager, blocks, BATCH, NULL));
    for (uint32_t i = 0; i < times; i++) {
        uint64_t since = now_ns();
        CALL(kvb_alloc(manager, KVB_TIER_DEVICE, BATCH, NULL, blocks, NULL));
        in_alloc += now_ns() - since;
        CALL(kvb_block_unref(manager, blocks, BATCH, NULL));
    }
    return (double)in_alloc / times / BATCH;
}

static void round_of(struct pool *pool, struct contents *contents)
{
    uint32_t count = contents->block_count;
    contents_renew(contents, pool->manager, true);
    /* the other pools have been through the caches */
    for (uint32_t at = 0; at < count; at += SAMPLE_BLOCKS)
        live(pool->manager, contents, at, NULL);
    contents_renew(contents, pool->manager, false);
    for (uint32_t at = 0; at < count; at += SAMPLE_BLOCKS) {
        samples_add(&pool->hash, hash_ns(pool->manager, contents, at));
        samples_add(&pool->whole, live_ns(pool->manager, contents, at));
    }
    contents_renew(contents, pool->manager, true);
    for (uint32_t at = 0; at < count; at += SAMPLE_BLOCKS)
        samples_add(&pool->named, live_ns(pool->manager, contents, at));
    contents_renew(contents, pool->manager, false);
    for (uint32_t at = 0; at < count; at += SAMPLE_BLOCKS) {
        live_by_step(pool, contents, at);
        samples_add(&pool->alloc_free, alloc_free_ns(pool->manager, SAMPLE_BLOCKS / BATCH));
    }
}

static void row(const struct plan *plan, const char *what, const struct pool *pool,
                const struct samples *value, const struct samples *baseline, const char *against)
{
    char name[48];
    (void)snprintf(name, sizeof name, "life.%s.%s", size_name(pool->block_count), what);
    struct row row = row_of(name, "ns/block", value, baseline, against);
    report_row(plan->report, &row);
}

static void report_pool(const struct plan *plan, const struct pool *pool, const struct pool *first)
{
    char against[48];
    (void)snprintf(against, sizeof against, "the same at %s blocks", size_name(first->block_count));
    row(plan, "whole", pool, &pool->whole, &pool->hash, "kvb_hash_tokens of the same tokens");
    row(plan, "whole.names_given", pool, &pool->named, &pool->hash,
        "kvb_hash_tokens of the same tokens");
    const bool growth = pool != first;
    if (growth)
        row(plan, "whole.growth", pool, &pool->whole, &first->whole, against);
    for (unsigned step = 0; step < STEP_COUNT; step++)
        row(plan, step_names[step], pool, &pool->steps[step], growth ? &first->steps[step] : NULL,
            growth ? against : NULL);
    row(plan, "alloc_from_free", pool, &pool->alloc_free, growth ? &first->alloc_free : NULL,
        growth ? against : NULL);
}

void suite_life(const struct plan *plan)
{
    static const uint32_t sizes[POOLS_MAX] = {10000, 1000000, 4000000},
                          quick_sizes[POOLS_MAX] = {10000, 50000, 0};
    const uint32_t *chosen = plan->quick ? quick_sizes : sizes;
    struct pool *pools = memory_take(POOLS_MAX, sizeof *pools);
    struct contents contents;
    unsigned count = 0;
    while (count < POOLS_MAX && chosen[count] > 0) {
        pool_create(&pools[count], chosen[count]);
        count++;
    }
    contents_create(&contents, plan->quick ? SAMPLE_BLOCKS : 8 * SAMPLE_BLOCKS, BATCH);
    for (uint32_t round = 0; round < plan->rounds; round++)
        for (unsigned i = 0; i < count; i++)
            round_of(&pools[i], &contents);
    for (unsigned i = 0; i < count; i++) {
        report_pool(plan, &pools[i], &pools[0]);
        CALL(kvb_manager_destroy(pools[i].manager));
    }
    contents_destroy(&contents);
    free(pools);
}
