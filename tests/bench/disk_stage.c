/* SPDX-License-Identifier: Apache-2.0 */
/* disk_stage - see disk_stage.h. */
#include "disk_stage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bare_loop.h"
#include "rows.h"

/* Blocks of one sequence, and of one onboard operation. */
#define RUN_BLOCKS 32u

/* ---- Bytes that tell blocks apart ------------------------------------------------------------ */

static uint64_t *mark_at(const struct disk_stage *stage, const struct kvb_block *block, uint32_t i)
{
    void *address;
    uint64_t offset = i == 0   ? 0
                      : i == 1 ? stage->block_bytes / 2
                               : stage->block_bytes - sizeof(uint64_t);
    CALL(kvb_block_address(stage->manager, block, 0, 0, &address));
    return (uint64_t *)(void *)((char *)address + offset);
}

static void put_marks(const struct disk_stage *stage)
{
    for (uint32_t block = 0; block < stage->host_count; block++)
        for (uint32_t i = 0; i < 3; i++)
            *mark_at(stage, stage->blocks[block], i) = stage->contents.names[block].hash + i;
}

static void check_marks(const struct disk_stage *stage)
{
    for (uint32_t block = 0; block < stage->host_count; block++)
        for (uint32_t i = 0; i < 3; i++)
            EXPECT(*mark_at(stage, stage->blocks[block], i) ==
                   stage->contents.names[block].hash + i);
}

/* ---- Steps of a round ------------------------------------------------------------------------ */

static void swap(struct kvb_block **a, struct kvb_block **b)
{
    struct kvb_block *block = *a;
    *a = *b;
    *b = block;
}

/*
 * Evicted later on in random order; with `sequential` in the order of the array, whose last element
 * is parked first.
 */
static void unref_in_order(struct disk_stage *stage, struct kvb_block **blocks, uint32_t count)
{
    for (uint32_t i = count; i > 1 && !stage->sequential; i--)
        swap(&blocks[random_below(i)], &blocks[i - 1]);
    for (uint32_t i = 0; i < count / 2 && stage->sequential; i++)
        swap(&blocks[i], &blocks[count - 1 - i]);
    CALL(kvb_block_unref(stage->manager, blocks, count, NULL));
}

void disk_stage_offer(struct disk_stage *stage)
{
    contents_renew(&stage->contents, stage->manager, true);
    CALL(kvb_alloc(stage->manager, KVB_TIER_HOST, stage->host_count, NULL, stage->blocks, NULL));
    put_marks(stage);
    blocks_register(stage->manager, stage->blocks, stage->contents.inits, stage->contents.appends,
                    stage->host_count);
}

static uint64_t transferred_down(struct disk_stage *stage)
{
    struct kvb_stats stats = {.size = sizeof stats};
    CALL(kvb_manager_stats(stage->manager, &stats));
    for (uint32_t i = 0; i < stats.lane_count; i++)
        if (stats.lanes[i].from_tier == KVB_TIER_HOST)
            return stats.lanes[i].transferred;
    return 0;
}

uint64_t disk_stage_down(struct disk_stage *stage)
{
    uint64_t before = transferred_down(stage), since = now_ns();
    CALL(kvb_block_offload(stage->manager, stage->blocks, stage->host_count, KVB_PRIORITY_DEFAULT,
                           NULL, NULL));
    CALL(kvb_manager_flush(stage->manager, KVB_FOREVER));
    uint64_t ns = now_ns() - since;
    EXPECT(transferred_down(stage) - before == stage->host_count);
    return ns;
}

void disk_stage_repeat(struct disk_stage *stage)
{
    CALL(kvb_block_unref(stage->manager, stage->blocks, stage->host_count, NULL));
    disk_stage_offer(stage);
    (void)disk_stage_down(stage);
}

static uint32_t find_on_disk(struct disk_stage *stage, const struct kvb_seq *names, uint32_t count,
                             struct kvb_block **blocks, bool *in_use)
{
    struct kvb_hit *hits = memory_take(count, sizeof *hits);
    struct kvb_query query = {.size = sizeof query, .keys = names, .key_count = count};
    size_t found;
    CALL(kvb_match(stage->manager, &query, hits, count, &found));
    for (size_t i = 0; i < found; i++) {
        EXPECT(hits[i].tier == KVB_TIER_DISK);
        blocks[i] = hits[i].block;
        if (in_use != NULL)
            in_use[hits[i].slot] = true;
    }
    free(hits);
    return (uint32_t)found;
}

void disk_stage_swap(struct disk_stage *stage)
{
    CALL(kvb_block_unref(stage->manager, stage->blocks, stage->host_count, NULL));
    CALL(kvb_alloc(stage->manager, KVB_TIER_HOST, stage->host_count, NULL, stage->blocks, NULL));
    memset(stage->in_use, 0, stage->disk_count * sizeof *stage->in_use);
    EXPECT(find_on_disk(stage, stage->contents.names, stage->host_count, stage->sources,
                        stage->in_use) == stage->host_count);
}

uint64_t disk_stage_up(struct disk_stage *stage)
{
    uint32_t op_count = (stage->host_count + RUN_BLOCKS - 1) / RUN_BLOCKS;
    struct kvb_op **ops = memory_take(op_count, sizeof(struct kvb_op *));
    uint64_t since = now_ns();
    for (uint32_t i = 0; i < op_count; i++) {
        uint32_t at = i * RUN_BLOCKS, left = stage->host_count - at;
        struct kvb_onboard request = {.size = sizeof request,
                                      .sources = stage->sources + at,
                                      .targets = stage->blocks + at,
                                      .count = left < RUN_BLOCKS ? left : RUN_BLOCKS};
        CALL(kvb_onboard(stage->manager, &request, &ops[i]));
    }
    CALL(kvb_manager_flush(stage->manager, KVB_FOREVER));
    uint64_t ns = now_ns() - since;
    for (uint32_t i = 0; i < op_count; i++) {
        uint32_t at = i * RUN_BLOCKS, left = stage->host_count - at,
                 count = left < RUN_BLOCKS ? left : RUN_BLOCKS, good;
        CALL(kvb_op_take(stage->manager, ops[i], stage->blocks + at, count, &good));
        EXPECT(good == count);
        CALL(kvb_op_release(stage->manager, ops[i]));
    }
    free(ops);
    return ns;
}

void disk_stage_close_round(struct disk_stage *stage)
{
    check_marks(stage);
    unref_in_order(stage, stage->blocks, stage->host_count);
    unref_in_order(stage, stage->sources, stage->host_count);
}

/* ---- Create and destroy ---------------------------------------------------------------------- */

/* Every slot is written, by blocks in no order; the order of eviction is another one. */
static void age(struct disk_stage *stage)
{
    uint32_t kept = 0, capacity = stage->disk_count + stage->host_count;
    struct kvb_seq *names = memory_take(capacity, sizeof *names);
    struct kvb_block **blocks = memory_take(capacity, sizeof(struct kvb_block *));
    for (; kept < stage->disk_count; kept += stage->host_count) {
        disk_stage_offer(stage);
        (void)disk_stage_down(stage);
        disk_stage_swap(stage);
        memcpy(names + kept, stage->contents.names, stage->host_count * sizeof *names);
        CALL(kvb_block_unref(stage->manager, stage->blocks, stage->host_count, NULL));
        CALL(kvb_block_unref(stage->manager, stage->sources, stage->host_count, NULL));
    }
    EXPECT(find_on_disk(stage, names, stage->disk_count, blocks, NULL) == stage->disk_count);
    unref_in_order(stage, blocks, stage->disk_count);
    free(blocks);
    free(names);
}

struct kvb_manager *disk_manager_create(const struct disk_stage_config *config, void *memory,
                                        bool empty)
{
    struct kvb_layout layout = {
        .size = sizeof layout, .layers = 1, .parts = 1, .chunk_bytes = config->block_bytes};
    struct kvb_tier_config tiers[] = {{.size = sizeof *tiers,
                                       .tier = KVB_TIER_HOST,
                                       .block_count = config->host_count,
                                       .trigger = KVB_OFFLOAD_MANUAL,
                                       .batch = config->batch,
                                       .depth = config->depth,
                                       .memory = memory,
                                       .memory_bytes = config->host_count * config->block_bytes},
                                      {.size = sizeof *tiers,
                                       .tier = KVB_TIER_DISK,
                                       .block_count = config->disk_count,
                                       .path = config->path,
                                       .disk_flags = empty ? KVB_DISK_START_EMPTY : 0,
                                       .disk_engine = config->disk_engine}};
    struct kvb_config whole = {.size = sizeof whole,
                               .tokens_per_block = BLOCK_TOKENS,
                               .layout = &layout,
                               .tiers = tiers,
                               .tier_count = 2,
                               .progress = config->progress,
                               .digest_seed = 1};
    struct kvb_diagnosis diagnosis = {.size = sizeof diagnosis};
    struct kvb_manager *manager;
    if (kvb_manager_create(&whole, &manager, &diagnosis) != 0) {
        (void)fprintf(stderr, "bench_disk: %s\n", diagnosis.message);
        exit(2);
    }
    return manager;
}

void disk_stage_create(struct disk_stage *stage, const struct disk_stage_config *config)
{
    *stage = (struct disk_stage){.block_bytes = config->block_bytes,
                                 .memory_bytes = config->host_count * config->block_bytes,
                                 .host_count = config->host_count,
                                 .disk_count = config->disk_count,
                                 .sequential = config->sequential};
    stage->memory = arena_take(stage->memory_bytes);
    stage->manager = disk_manager_create(config, stage->memory, true);
    struct kvb_stats stats = {.size = sizeof stats};
    CALL(kvb_manager_stats(stage->manager, &stats));
    memcpy(stage->engine, stats.engine, sizeof stage->engine);
    contents_create(&stage->contents, config->host_count, RUN_BLOCKS);
    stage->blocks = memory_take(config->host_count, sizeof(struct kvb_block *));
    stage->sources = memory_take(config->host_count, sizeof(struct kvb_block *));
    stage->in_use = memory_take(config->disk_count, sizeof *stage->in_use);
    age(stage);
}

void disk_stage_destroy(struct disk_stage *stage)
{
    CALL(kvb_manager_destroy(stage->manager));
    contents_destroy(&stage->contents);
    free(stage->blocks);
    free(stage->sources);
    free(stage->in_use);
    arena_free(stage->memory, stage->memory_bytes);
}
