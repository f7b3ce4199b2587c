/* SPDX-License-Identifier: Apache-2.0 */
/* gpu_stage - see gpu_stage.h. */
#include "gpu_stage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu_run.h"
#include "rows.h"

/* Blocks of one sequence, and of one onboard operation. */
#define RUN_BLOCKS 32u
#define PIN_NS_MAX UINT64_C(120000000000)
#define SPOILT_FROM_END 3u

static uint32_t op_count(const struct gpu_stage *stage)
{
    return (stage->config.set_blocks + RUN_BLOCKS - 1) / RUN_BLOCKS;
}

/* The i-th operation's blocks begin at i x RUN_BLOCKS. */
static uint32_t op_blocks(const struct gpu_stage *stage, uint32_t i)
{
    uint32_t left = stage->config.set_blocks - i * RUN_BLOCKS;
    return left < RUN_BLOCKS ? left : RUN_BLOCKS;
}

/* ---- Bytes ----------------------------------------------------------------------------------- */

/*
 * SplitMix64 at position `i` of the stream that begins at `seed`: no word waits for the one before
 * it.
 */
static uint64_t word_at(uint64_t seed, uint64_t i)
{
    uint64_t z = seed + (i + 1) * UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

static void write_words(unsigned char *to, uint64_t bytes, uint64_t seed)
{
    uint64_t *words = (uint64_t *)(void *)to;
    for (uint64_t i = 0; i < bytes / sizeof *words; i++)
        words[i] = word_at(seed, i);
}

static bool words_are(const unsigned char *from, uint64_t bytes, uint64_t seed)
{
    const uint64_t *words = (const uint64_t *)(const void *)from;
    uint64_t wrong = 0;
    for (uint64_t i = 0; i < bytes / sizeof *words; i++)
        wrong |= words[i] ^ word_at(seed, i);
    return wrong == 0;
}

/* Where a chunk of the set's i-th block lies, and what is to be there. */
struct chunk {
    unsigned char *address;
    uint32_t layer;
    uint64_t seed;
};

static struct chunk chunk_of(const struct gpu_stage *stage, const struct gpu_set *set,
                             const struct kvb_block *block, uint32_t i, uint32_t n)
{
    struct chunk chunk = {.layer = n / stage->config.parts};
    void *address;
    CALL(kvb_block_address(stage->manager, block, chunk.layer, n % stage->config.parts, &address));
    chunk.address = address;
    chunk.seed = set->contents.names[i].digest[0] + ((uint64_t)n << 32);
    return chunk;
}

static uint32_t chunks_a_block(const struct gpu_stage *stage)
{
    return stage->config.layers * stage->config.parts;
}

/* The tensors lie in a buffer one after the other. */
static uint64_t offset_of(const struct gpu_stage *stage, const struct chunk *chunk)
{
    return chunk->layer * stage->layer_bytes +
           (uint64_t)((uintptr_t)chunk->address - (uintptr_t)stage->layer_memory[chunk->layer]);
}

static void upload(struct gpu_stage *stage)
{
    struct gpu_bare *bare = stage->bare;
    for (uint32_t layer = 0; layer < stage->config.layers; layer++)
        CUDA(cudaMemcpyAsync(stage->layer_memory[layer], bare->out + layer * stage->layer_bytes,
                             stage->layer_bytes, cudaMemcpyHostToDevice, bare->server));
    CUDA(cudaStreamSynchronize(bare->server));
}

static void download(struct gpu_stage *stage)
{
    struct gpu_bare *bare = stage->bare;
    for (uint32_t layer = 0; layer < stage->config.layers; layer++)
        CUDA(cudaMemcpyAsync(bare->back + layer * stage->layer_bytes, stage->layer_memory[layer],
                             stage->layer_bytes, cudaMemcpyDeviceToHost, bare->server));
    CUDA(cudaStreamSynchronize(bare->server));
}

/*
 * What the other set has on the device is not uploaded over: nothing of it is there while a set is
 * offered.
 */
static void fill_blocks(struct gpu_stage *stage, const struct gpu_set *set)
{
    for (uint32_t i = 0; i < stage->config.set_blocks; i++)
        for (uint32_t n = 0; n < chunks_a_block(stage); n++) {
            struct chunk chunk = chunk_of(stage, set, set->blocks[i], i, n);
            write_words(stage->bare->out + offset_of(stage, &chunk), stage->config.chunk_bytes,
                        chunk.seed);
        }
    upload(stage);
}

static void say_wrong(const struct gpu_stage *stage, uint32_t i, uint32_t n,
                      const unsigned char *found, uint64_t seed)
{
    char where[96];
    uint32_t parts = stage->config.parts;
    unsigned char *expected = memory_take(1, stage->config.chunk_bytes);
    write_words(expected, stage->config.chunk_bytes, seed);
    (void)snprintf(where, sizeof where, "block %u, layer %u, part %u", i, n / parts, n % parts);
    gpu_run_wrong(stage->bare->run, where, expected, found, stage->config.chunk_bytes);
    free(expected);
}

/* The n-th chunk of the i-th block was found there. What --spoil damages is put back. */
static void check_chunk(const struct gpu_stage *stage, uint32_t i, uint32_t n, unsigned char *found,
                        uint64_t seed)
{
    uint64_t bytes = stage->config.chunk_bytes;
    bool last = i == stage->config.set_blocks - 1 && n == chunks_a_block(stage) - 1;
    unsigned char spoilt = last && gpu_run_spoils(stage->bare->run) ? 0xff : 0;
    found[bytes - SPOILT_FROM_END] ^= spoilt;
    if (!words_are(found, bytes, seed))
        say_wrong(stage, i, n, found, seed);
    found[bytes - SPOILT_FROM_END] ^= spoilt;
}

void gpu_stage_check_host(const struct gpu_stage *stage, const struct gpu_set *set)
{
    for (uint32_t i = 0; i < stage->config.set_blocks; i++)
        for (uint32_t n = 0; n < chunks_a_block(stage); n++) {
            struct chunk chunk = chunk_of(stage, set, set->sources[i], i, n);
            check_chunk(stage, i, n, chunk.address, chunk.seed);
        }
}

void gpu_stage_check_bytes(const struct gpu_stage *stage, const struct gpu_set *set, uint32_t i,
                           unsigned char *bytes)
{
    for (uint32_t n = 0; n < chunks_a_block(stage); n++) {
        struct chunk chunk = chunk_of(stage, set, set->sources[i], i, n);
        check_chunk(stage, i, n, bytes + n * stage->config.chunk_bytes, chunk.seed);
    }
}

void gpu_stage_check_device(struct gpu_stage *stage, const struct gpu_set *set)
{
    download(stage);
    for (uint32_t i = 0; i < stage->config.set_blocks; i++)
        for (uint32_t n = 0; n < chunks_a_block(stage); n++) {
            struct chunk chunk = chunk_of(stage, set, set->blocks[i], i, n);
            check_chunk(stage, i, n, stage->bare->back + offset_of(stage, &chunk), chunk.seed);
        }
}

/* ---- Steps ----------------------------------------------------------------------------------- */

static void shuffle(struct kvb_block **blocks, uint32_t count)
{
    for (uint32_t i = count; i > 1; i--) {
        uint32_t j = random_below(i);
        struct kvb_block *block = blocks[j];
        blocks[j] = blocks[i - 1];
        blocks[i - 1] = block;
    }
}

void gpu_stage_offer(struct gpu_stage *stage, struct gpu_set *set, bool fill)
{
    contents_renew(&set->contents, stage->manager, true);
    if (fill)
        fill_blocks(stage, set);
    blocks_register(stage->manager, set->blocks, set->contents.inits, set->contents.appends,
                    stage->config.set_blocks);
}

void gpu_stage_start_down(struct gpu_stage *stage, struct gpu_set *set)
{
    CALL(kvb_block_offload(stage->manager, set->blocks, stage->config.set_blocks,
                           KVB_PRIORITY_DEFAULT, NULL, NULL));
}

void gpu_stage_start_up(struct gpu_stage *stage, struct gpu_set *set)
{
    for (uint32_t i = 0; i < op_count(stage); i++) {
        struct kvb_onboard request = {.size = sizeof request,
                                      .sources = set->sources + i * RUN_BLOCKS,
                                      .targets = set->blocks + i * RUN_BLOCKS,
                                      .count = op_blocks(stage, i)};
        CALL(kvb_onboard(stage->manager, &request, &set->ops[i]));
    }
}

void gpu_stage_flush(struct gpu_stage *stage)
{
    CALL(kvb_manager_flush(stage->manager, KVB_FOREVER));
}

void gpu_stage_take_ops(struct gpu_stage *stage, struct gpu_set *set)
{
    for (uint32_t i = 0; i < op_count(stage); i++) {
        uint32_t good;
        CALL(kvb_op_take(stage->manager, set->ops[i], set->blocks + i * RUN_BLOCKS,
                         op_blocks(stage, i), &good));
        EXPECT(good == op_blocks(stage, i));
        CALL(kvb_op_release(stage->manager, set->ops[i]));
    }
}

void gpu_stage_clear_device(struct gpu_stage *stage)
{
    shuffle(stage->blocks, stage->block_count);
    CALL(kvb_block_unref(stage->manager, stage->blocks, stage->block_count, NULL));
    CALL(kvb_alloc(stage->manager, KVB_TIER_DEVICE, stage->block_count, NULL, stage->blocks, NULL));
    shuffle(stage->blocks, stage->block_count);
}

void gpu_stage_find(struct gpu_stage *stage, struct gpu_set *set)
{
    uint32_t count = stage->config.set_blocks;
    struct kvb_hit *hits = memory_take(count, sizeof *hits);
    struct kvb_query query = {
        .size = sizeof query, .keys = set->contents.names, .key_count = count};
    size_t found;
    CALL(kvb_match(stage->manager, &query, hits, count, &found));
    EXPECT(found == count);
    for (uint32_t i = 0; i < count; i++) {
        EXPECT(hits[i].tier == KVB_TIER_HOST);
        set->sources[i] = hits[i].block;
    }
    free(hits);
}

void gpu_stage_drop(struct gpu_stage *stage, struct gpu_set *set)
{
    shuffle(set->sources, stage->config.set_blocks);
    CALL(kvb_block_unref(stage->manager, set->sources, stage->config.set_blocks, NULL));
}

/* ---- Create and destroy ---------------------------------------------------------------------- */

static void create_manager(struct gpu_stage *stage)
{
    const struct gpu_stage_config *config = &stage->config;
    struct kvb_layout layout = {.size = sizeof layout,
                                .layers = config->layers,
                                .parts = config->parts,
                                .chunk_bytes = config->chunk_bytes,
                                .part_stride = stage->block_count * config->chunk_bytes,
                                .block_stride = config->chunk_bytes};
    struct kvb_tier_config tiers[] = {
        {.size = sizeof *tiers,
         .tier = KVB_TIER_DEVICE,
         .block_count = stage->block_count,
         .trigger = KVB_OFFLOAD_MANUAL,
         .batch = config->batch,
         .depth = config->depth,
         .memory_bytes = stage->layer_bytes,
         .memory_kind = KVB_MEMORY_CUDA,
         .device = config->device,
         .copy_method = config->method,
         .layer_memory = stage->layer_memory},
        {.size = sizeof *tiers, .tier = KVB_TIER_HOST, .block_count = stage->block_count}};
    struct kvb_config manager = {.size = sizeof manager,
                                 .tokens_per_block = BLOCK_TOKENS,
                                 .layout = &layout,
                                 .tiers = tiers,
                                 .tier_count = 2,
                                 .digest_seed = 1};
    struct kvb_diagnosis diagnosis = {.size = sizeof diagnosis};
    if (kvb_manager_create(&manager, &stage->manager, &diagnosis) == 0)
        return;
    (void)fprintf(stderr, "bench_gpu: %s\n", diagnosis.message);
    exit(2);
}

static void await_pinning(struct gpu_stage *stage)
{
    struct kvb_stats stats = {.size = sizeof stats};
    uint64_t give_up = now_ns() + PIN_NS_MAX;
    do {
        CALL(kvb_manager_stats(stage->manager, &stats));
        EXPECT(stats.unpinnable_bytes == 0 && now_ns() < give_up);
    } while (stats.pinned_bytes < stage->block_count * stage->block_bytes);
    memcpy(stage->engine, stats.engine, sizeof stage->engine);
}

static void create_set(struct gpu_stage *stage, struct gpu_set *set, uint32_t first)
{
    contents_create(&set->contents, stage->config.set_blocks, RUN_BLOCKS);
    set->blocks = stage->blocks + first;
    set->sources = memory_take(stage->config.set_blocks, sizeof(struct kvb_block *));
    set->ops = memory_take(op_count(stage), sizeof(struct kvb_op *));
}

void gpu_stage_create(struct gpu_stage *stage, const struct gpu_stage_config *config,
                      struct gpu_bare *bare)
{
    *stage = (struct gpu_stage){.config = *config, .bare = bare};
    stage->block_count = config->set_blocks * config->sets;
    stage->block_bytes = (uint64_t)config->layers * config->parts * config->chunk_bytes;
    stage->set_bytes = config->set_blocks * stage->block_bytes;
    stage->layer_bytes = config->parts * config->chunk_bytes * stage->block_count;
    EXPECT(config->layers <= GPU_STAGE_LAYERS_MAX &&
           config->layers * stage->layer_bytes <= bare->bytes);
    for (uint32_t layer = 0; layer < config->layers; layer++)
        CUDA(cudaMalloc(&stage->layer_memory[layer], stage->layer_bytes));
    create_manager(stage);
    stage->blocks = memory_take(stage->block_count, sizeof(struct kvb_block *));
    for (uint32_t i = 0; i < config->sets; i++)
        create_set(stage, &stage->sets[i], i * config->set_blocks);
    CALL(kvb_alloc(stage->manager, KVB_TIER_DEVICE, stage->block_count, NULL, stage->blocks, NULL));
    shuffle(stage->blocks, stage->block_count);
    await_pinning(stage);
}

void gpu_stage_destroy(struct gpu_stage *stage)
{
    CALL(kvb_block_unref(stage->manager, stage->blocks, stage->block_count, NULL));
    CALL(kvb_manager_destroy(stage->manager));
    for (uint32_t layer = 0; layer < stage->config.layers; layer++)
        CUDA(cudaFree(stage->layer_memory[layer]));
    for (uint32_t i = 0; i < stage->config.sets; i++) {
        contents_destroy(&stage->sets[i].contents);
        free(stage->sets[i].sources);
        free(stage->sets[i].ops);
    }
    free(stage->blocks);
}
