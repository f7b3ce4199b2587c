/* SPDX-License-Identifier: Apache-2.0 */
/* contents - see contents.h. */
#include "contents.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define TINY_BLOCK_BYTES 64
#define FILL_BATCH 64u

void call_check(int code, const char *call)
{
    if (code == 0)
        return;
    (void)fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, call, kvb_strerror(code));
    exit(2);
}

void *memory_take(size_t count, size_t size)
{
    void *memory = calloc(count > 0 ? count : 1, size);
    if (memory == NULL) {
        (void)fprintf(stderr, "%s: out of memory\n", program_invocation_short_name);
        exit(2);
    }
    return memory;
}

/* SplitMix64 (Steele, Lea, Flood 2014). */
uint64_t random_next(void)
{
    static uint64_t state = 1;
    uint64_t z = state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

uint32_t random_below(uint32_t bound)
{
    return (uint32_t)((random_next() >> 32) * bound >> 32);
}

void random_order(uint32_t *order, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t j = random_below(i + 1);
        order[i] = order[j];
        order[j] = i;
    }
}

void contents_create(struct contents *contents, uint32_t block_count, uint32_t run_blocks)
{
    *contents = (struct contents){.block_count = block_count, .run_blocks = run_blocks};
    contents->tokens = memory_take((size_t)block_count * BLOCK_TOKENS, sizeof *contents->tokens);
    contents->names = memory_take(block_count, sizeof *contents->names);
    contents->inits = memory_take(block_count, sizeof *contents->inits);
    contents->appends = memory_take(block_count, sizeof *contents->appends);
}

void contents_destroy(struct contents *contents)
{
    free(contents->tokens);
    free(contents->names);
    free(contents->inits);
    free(contents->appends);
    *contents = (struct contents){0};
}

void contents_renew(struct contents *contents, struct kvb_manager *manager, bool given_names)
{
    size_t named;
    for (size_t i = 0; i < (size_t)contents->block_count * BLOCK_TOKENS; i++)
        contents->tokens[i] = (uint32_t)random_next();
    for (uint32_t at = 0; at < contents->block_count; at += contents->run_blocks) {
        uint32_t left = contents->block_count - at,
                 run = left < contents->run_blocks ? left : contents->run_blocks;
        CALL(kvb_hash_tokens(manager, 0, NULL, contents->tokens + (size_t)at * BLOCK_TOKENS,
                             (size_t)run * BLOCK_TOKENS, contents->names + at, run, &named));
    }
    for (uint32_t i = 0; i < contents->block_count; i++) {
        uint32_t position = i % contents->run_blocks;
        contents->inits[i] =
            (struct kvb_block_init){.size = sizeof *contents->inits,
                                    .position = position,
                                    .parent = position > 0 ? &contents->names[i - 1] : NULL,
                                    .key = given_names ? &contents->names[i] : NULL};
        contents->appends[i] =
            (struct kvb_append){.size = sizeof *contents->appends,
                                .tokens = contents->tokens + (size_t)i * BLOCK_TOKENS,
                                .count = BLOCK_TOKENS};
    }
}

struct kvb_manager *manager_of(uint32_t block_count)
{
    struct kvb_layout layout = {
        .size = sizeof layout, .layers = 1, .parts = 1, .chunk_bytes = TINY_BLOCK_BYTES};
    struct kvb_tier_config tier = {
        .size = sizeof tier, .tier = KVB_TIER_DEVICE, .block_count = block_count};
    struct kvb_config config = {.size = sizeof config,
                                .tokens_per_block = BLOCK_TOKENS,
                                .layout = &layout,
                                .tiers = &tier,
                                .tier_count = 1,
                                .progress = KVB_PROGRESS_POLL,
                                .digest_seed = 1};
    struct kvb_manager *manager;
    CALL(kvb_manager_create(&config, &manager, NULL));
    return manager;
}

void blocks_register(struct kvb_manager *manager, struct kvb_block **blocks,
                     struct kvb_block_init *inits, struct kvb_append *appends, uint32_t count)
{
    uint32_t computed[FILL_BATCH];
    for (uint32_t i = 0; i < FILL_BATCH; i++)
        computed[i] = BLOCK_TOKENS;
    for (uint32_t at = 0; at < count; at += FILL_BATCH) {
        uint32_t n = count - at < FILL_BATCH ? count - at : FILL_BATCH;
        CALL(kvb_block_init(manager, blocks + at, inits + at, n, NULL));
        CALL(kvb_block_append(manager, blocks + at, appends + at, n, NULL));
        CALL(kvb_block_schedule(manager, blocks + at, n, NULL));
        CALL(kvb_block_compute_done(manager, blocks + at, computed, n, NULL, NULL));
        CALL(kvb_block_register(manager, blocks + at, n, NULL, NULL, NULL));
    }
}

static void register_in_order(struct kvb_manager *manager, struct kvb_block **blocks,
                              const struct contents *contents, const uint32_t *order)
{
    struct kvb_block_init inits[FILL_BATCH];
    struct kvb_append appends[FILL_BATCH];
    for (uint32_t at = 0; at < contents->block_count; at += FILL_BATCH) {
        uint32_t left = contents->block_count - at, n = left < FILL_BATCH ? left : FILL_BATCH;
        for (uint32_t i = 0; i < n; i++) {
            inits[i] = contents->inits[order[at + i]];
            appends[i] = contents->appends[order[at + i]];
        }
        blocks_register(manager, blocks + at, inits, appends, n);
    }
}

void manager_fill(struct kvb_manager *manager, const struct contents *contents)
{
    uint32_t count = contents->block_count;
    struct kvb_block **blocks = memory_take(count, sizeof(struct kvb_block *));
    struct kvb_block **shuffled = memory_take(count, sizeof(struct kvb_block *));
    uint32_t *order = memory_take(count, sizeof *order);
    CALL(kvb_alloc(manager, KVB_TIER_DEVICE, count, NULL, blocks, NULL));
    random_order(order, count);
    register_in_order(manager, blocks, contents, order);
    random_order(order, count);
    for (uint32_t i = 0; i < count; i++)
        shuffled[i] = blocks[order[i]];
    CALL(kvb_block_unref(manager, shuffled, count, NULL));
    free(order);
    free(shuffled);
    free(blocks);
}
