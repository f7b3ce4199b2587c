/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hashing, match and lookup of a sequence of 8,192 blocks, all of them parked, in a small and a
 * large index; and the bytes of tables a block.
 *
 * In the large index every call gets a sequence that has not been looked at for many rounds, so its
 * tables come from memory; the small one holds a single such sequence and stays in the caches.
 */
#include <stdio.h>
#include <stdlib.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "suites.h"

#define RUN_BLOCKS 8192u
#define RUN_TOKENS (RUN_BLOCKS * BLOCK_TOKENS)

struct index {
    uint32_t block_count;
    struct kvb_manager *manager;
    struct contents contents;
    uint32_t next_run;
    struct samples bare, hash, match_tokens, match_keys, match_held, unref, lookup_tokens,
        lookup_keys;
};

static void index_create(struct index *index, uint32_t block_count)
{
    index->block_count = block_count;
    index->manager = manager_of(block_count);
    contents_create(&index->contents, block_count, RUN_BLOCKS);
    contents_renew(&index->contents, index->manager, true);
    manager_fill(index->manager, &index->contents);
}

static void index_destroy(struct index *index)
{
    contents_destroy(&index->contents);
    CALL(kvb_manager_destroy(index->manager));
}

/* The first block of the run whose turn it is. */
static uint32_t next_run(struct index *index)
{
    uint32_t runs = index->block_count / RUN_BLOCKS;
    return index->next_run++ % runs * RUN_BLOCKS;
}

static struct kvb_query query_of(const struct index *index, uint32_t first, bool by_keys)
{
    if (by_keys)
        return (struct kvb_query){.size = sizeof(struct kvb_query),
                                  .keys = index->contents.names + first,
                                  .key_count = RUN_BLOCKS};
    return (struct kvb_query){.size = sizeof(struct kvb_query),
                              .tokens = index->contents.tokens + (size_t)first * BLOCK_TOKENS,
                              .token_count = RUN_TOKENS};
}

static double per_block(uint64_t since)
{
    return (double)(now_ns() - since) / RUN_BLOCKS;
}

static double hash_ns(struct index *index)
{
    static struct kvb_seq names[RUN_BLOCKS];
    const uint32_t *tokens = index->contents.tokens + (size_t)next_run(index) * BLOCK_TOKENS;
    size_t named;
    uint64_t since = now_ns();
    CALL(kvb_hash_tokens(index->manager, 0, NULL, tokens, RUN_TOKENS, names, RUN_BLOCKS, &named));
    return per_block(since);
}

/* The 64-bit chain alone, as a router computes it: no digest. Reference for the naming itself. */
static double bare_ns(struct index *index)
{
    static uint64_t chain[RUN_BLOCKS];
    const uint32_t *tokens = index->contents.tokens + (size_t)next_run(index) * BLOCK_TOKENS;
    uint64_t since = now_ns();
    for (uint32_t i = 0; i < RUN_BLOCKS; i++) {
        uint64_t block = XXH3_64bits_withSeed(tokens + (size_t)i * BLOCK_TOKENS,
                                              BLOCK_TOKENS * sizeof *tokens, 1337);
        uint64_t link[2] = {i > 0 ? chain[i - 1] : 0, block};
        chain[i] = i > 0 ? XXH3_64bits_withSeed(link, sizeof link, 1337) : block;
    }
    double ns = per_block(since);
    volatile uint64_t sink = chain[RUN_BLOCKS - 1]; /* so that the loop is not dropped */
    (void)sink;
    return ns;
}

static void match_round(struct index *index, bool by_keys, struct samples *match)
{
    static struct kvb_hit hits[RUN_BLOCKS], again[RUN_BLOCKS];
    static struct kvb_block *blocks[RUN_BLOCKS];
    struct kvb_query query = query_of(index, next_run(index), by_keys);
    size_t count;
    uint64_t since = now_ns();
    CALL(kvb_match(index->manager, &query, hits, RUN_BLOCKS, &count));
    samples_add(match, per_block(since));
    EXPECT(count == RUN_BLOCKS);
    for (uint32_t i = 0; i < RUN_BLOCKS; i++)
        blocks[i] = hits[i].block;
    if (!by_keys) {
        since = now_ns();
        CALL(kvb_match(index->manager, &query, again, RUN_BLOCKS, &count));
        samples_add(&index->match_held, per_block(since));
        CALL(kvb_block_unref(index->manager, blocks, RUN_BLOCKS, NULL));
        since = now_ns();
        CALL(kvb_block_unref(index->manager, blocks, RUN_BLOCKS, NULL));
        samples_add(&index->unref, per_block(since));
    } else {
        CALL(kvb_block_unref(index->manager, blocks, RUN_BLOCKS, NULL));
    }
}

static void lookup_round(struct index *index, bool by_keys, struct samples *lookup)
{
    uint64_t tiers[KVB_TIER_COUNT];
    struct kvb_query query = query_of(index, next_run(index), by_keys);
    uint64_t since = now_ns();
    CALL(kvb_lookup(index->manager, &query, tiers));
    samples_add(lookup, per_block(since));
    EXPECT(tiers[KVB_TIER_DEVICE] == RUN_BLOCKS);
}

/*
 * Once through the caches what a small index has in them. A large one has other runs in them by the
 * next call.
 */
static void warm_up(struct index *index)
{
    static struct kvb_hit hits[RUN_BLOCKS];
    struct kvb_query query = query_of(index, next_run(index), false);
    size_t count;
    CALL(kvb_match(index->manager, &query, hits, RUN_BLOCKS, &count));
    for (uint32_t i = RUN_BLOCKS; i-- > 0;)
        CALL(kvb_block_unref(index->manager, &hits[i].block, 1, NULL));
}

static void round_of(struct index *index)
{
    warm_up(index);
    samples_add(&index->bare, bare_ns(index));
    samples_add(&index->hash, hash_ns(index));
    match_round(index, false, &index->match_tokens);
    match_round(index, true, &index->match_keys);
    lookup_round(index, false, &index->lookup_tokens);
    lookup_round(index, true, &index->lookup_keys);
}

static void row(const struct plan *plan, const char *call, const struct index *index,
                const char *how, const struct samples *value, const struct samples *baseline,
                const char *against)
{
    char name[48];
    (void)snprintf(name, sizeof name, "%s.%s%s", call, size_name(index->block_count), how);
    struct row row = row_of(name, "ns/block", value, baseline, against);
    report_row(plan->report, &row);
}

static void report_index(const struct plan *plan, const struct index *index)
{
    static const char chain[] = "kvb_hash_tokens of as many tokens";
    row(plan, "hash_tokens", index, "", &index->hash, &index->bare, "the XXH3-64 chain alone");
    row(plan, "match", index, ".tokens", &index->match_tokens, &index->hash, chain);
    row(plan, "match", index, ".keys", &index->match_keys, &index->hash, chain);
    row(plan, "match", index, ".tokens.held", &index->match_held, &index->hash, chain);
    row(plan, "unref_after_match", index, "", &index->unref, &index->hash, chain);
    row(plan, "lookup", index, ".tokens", &index->lookup_tokens, &index->hash, chain);
    row(plan, "lookup", index, ".keys", &index->lookup_keys, &index->hash, chain);
}

static void report_growth(const struct plan *plan, const struct index *small,
                          const struct index *large)
{
    char against[48];
    (void)snprintf(against, sizeof against, "the same at %s blocks", size_name(small->block_count));
    row(plan, "match", large, ".tokens.growth", &large->match_tokens, &small->match_tokens,
        against);
    row(plan, "match", large, ".keys.growth", &large->match_keys, &small->match_keys, against);
}

void suite_find(const struct plan *plan)
{
    static const uint32_t sizes[2] = {10000, 1000000}, quick_sizes[2] = {10000, 50000};
    struct index *indexes = memory_take(2, sizeof *indexes);
    for (unsigned i = 0; i < 2; i++)
        index_create(&indexes[i], plan->quick ? quick_sizes[i] : sizes[i]);
    for (uint32_t round = 0; round < plan->rounds; round++)
        for (unsigned i = 0; i < 2; i++)
            round_of(&indexes[i]);
    for (unsigned i = 0; i < 2; i++)
        report_index(plan, &indexes[i]);
    report_growth(plan, &indexes[0], &indexes[1]);
    for (unsigned i = 0; i < 2; i++)
        index_destroy(&indexes[i]);
    free(indexes);
}

/* ---- Bytes of tables ------------------------------------------------------------------------- */

static void table_row(const struct plan *plan, uint32_t tier_count)
{
    static const char *const names[] = {"tables.1_tier", "tables.2_tiers"};
    uint32_t blocks = plan->quick ? 50000 : 1000000;
    struct kvb_layout layout = {.size = sizeof layout, .layers = 1, .parts = 1, .chunk_bytes = 64};
    struct kvb_tier_config tiers[] = {
        {.size = sizeof *tiers, .tier = KVB_TIER_DEVICE, .block_count = blocks / tier_count},
        {.size = sizeof *tiers, .tier = KVB_TIER_HOST, .block_count = blocks / tier_count}};
    struct kvb_config config = {.size = sizeof config,
                                .tokens_per_block = BLOCK_TOKENS,
                                .layout = &layout,
                                .tiers = tiers,
                                .tier_count = tier_count,
                                .progress = KVB_PROGRESS_POLL};
    struct kvb_manager *manager;
    struct kvb_stats stats = {.size = sizeof stats};
    static struct samples bytes[2];
    CALL(kvb_manager_create(&config, &manager, NULL));
    CALL(kvb_manager_stats(manager, &stats));
    samples_add(&bytes[tier_count - 1], (double)stats.table_bytes / blocks);
    CALL(kvb_manager_destroy(manager));
    struct row row = row_of(names[tier_count - 1], "B/block", &bytes[tier_count - 1], NULL, NULL);
    report_row(plan->report, &row);
}

void suite_tables(const struct plan *plan)
{
    table_row(plan, 1);
    table_row(plan, 2);
}
