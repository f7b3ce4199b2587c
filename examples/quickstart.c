/* SPDX-License-Identifier: Apache-2.0 */
// One sequence through kvblock: prefilled, registered, offloaded, evicted, found again and
// brought back.
#include <kvblock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CALL(call) check((call), #call)
static void check(int code, const char *call)
{
    if (code)
        exit(fprintf(stderr, "%s: %s\n", call, kvb_strerror(code)) ? 1 : 2);
}

enum {
    BLOCK_TOKENS = 16,
    BLOCKS = 4,
    PROMPT_TOKENS = BLOCKS * BLOCK_TOKENS,
    DEVICE_BLOCKS = 8,
    BLOCK_BYTES = 8192
};

int main(void)
{
    // 8 blocks of "GPU" memory above 32 of host memory; to keep it short, a block is one
    // chunk.
    struct kvb_layout layout = {
        .size = sizeof layout, .layers = 1, .parts = 1, .chunk_bytes = BLOCK_BYTES};
    struct kvb_tier_config tiers[] = {
        {.size = sizeof *tiers, .tier = KVB_TIER_DEVICE, .block_count = DEVICE_BLOCKS},
        {.size = sizeof *tiers, .tier = KVB_TIER_HOST, .block_count = 32}};
    struct kvb_config config = {
        .size = sizeof config, .tokens_per_block = BLOCK_TOKENS, .layout = &layout};
    config.tiers = tiers, config.tier_count = 2;
    struct kvb_manager *kv;
    CALL(kvb_manager_create(&config, &kv, NULL));

    // A prompt, and the names of its blocks: each covers its own tokens and everything
    // before them.
    uint32_t prompt[PROMPT_TOKENS], good;
    for (uint32_t i = 0; i < PROMPT_TOKENS; i++)
        prompt[i] = 1000 + i;
    struct kvb_seq seqs[BLOCKS];
    size_t count;
    CALL(kvb_hash_tokens(kv, 0, NULL, prompt, PROMPT_TOKENS, seqs, BLOCKS, &count));

    // Prefill. Nothing is cached yet, so every block is new: name its tokens, launch the
    // step, let it write.
    struct kvb_block *blocks[BLOCKS], *sources[BLOCKS], *others[DEVICE_BLOCKS];
    void *bytes, *expected = (char[BLOCK_BYTES]){0};
    CALL(kvb_alloc(kv, KVB_TIER_DEVICE, BLOCKS, NULL, blocks, NULL));
    for (uint32_t i = 0; i < BLOCKS; i++) {
        // a server passes arrays to these calls, one call for all blocks
        struct kvb_block_init init = {
            .size = sizeof init, .position = i, .parent = i ? &seqs[i - 1] : NULL};
        struct kvb_append append = {.size = sizeof append, .count = BLOCK_TOKENS};
        append.tokens = prompt + i * BLOCK_TOKENS;
        CALL(kvb_block_init(kv, &blocks[i], &init, 1, NULL));
        CALL(kvb_block_append(kv, &blocks[i], &append, 1, NULL));
        CALL(kvb_block_schedule(kv, &blocks[i], 1, NULL));
        CALL(kvb_block_address(kv, blocks[i], 0, 0, &bytes));
        memset(bytes, 'a' + (int)i, BLOCK_BYTES); // the forward pass
        CALL(kvb_block_compute_done(kv, &blocks[i], &append.taken, 1, NULL, NULL));
    }
    // findable from here on, and offered to the host
    CALL(kvb_block_register(kv, blocks, BLOCKS, NULL, NULL, NULL));
    CALL(kvb_block_unref(kv, blocks, BLOCKS, NULL)); // parked: evictable, still findable
    // a server need not wait; here we want to see it
    CALL(kvb_manager_flush(kv, KVB_FOREVER));

    // Other requests take the whole device tier: the prompt is evicted there. Its copies in
    // host memory stay.
    CALL(kvb_alloc(kv, KVB_TIER_DEVICE, DEVICE_BLOCKS, NULL, others, NULL));
    CALL(kvb_block_unref(kv, others, DEVICE_BLOCKS, NULL));

    // The prompt comes again: find it, bring it up into new blocks, look at every byte.
    struct kvb_query query = {.size = sizeof query, .tokens = prompt};
    query.token_count = PROMPT_TOKENS;
    struct kvb_hit hits[BLOCKS];
    CALL(kvb_match(kv, &query, hits, BLOCKS, &count));
    // all of tier HOST here; hits of tier DEVICE would be used as they are
    for (size_t i = 0; i < count; i++)
        sources[i] = hits[i].block;
    CALL(kvb_alloc(kv, KVB_TIER_DEVICE, BLOCKS, NULL, blocks, NULL));
    struct kvb_onboard up = {
        .size = sizeof up, .sources = sources, .targets = blocks, .count = (uint32_t)count};
    struct kvb_op *op;
    CALL(kvb_onboard(kv, &up, &op));
    CALL(kvb_op_wait(kv, op, KVB_FOREVER)); // or poll, or take a callback
    // blocks[0, good) hold the prefix, others are to be computed
    CALL(kvb_op_take(kv, op, blocks, up.count, &good));
    CALL(kvb_op_release(kv, op));
    for (uint32_t i = 0; i < good; i++) {
        CALL(kvb_block_address(kv, blocks[i], 0, 0, &bytes));
        memset(expected, 'a' + (int)i, BLOCK_BYTES);
        CALL(memcmp(bytes, expected, BLOCK_BYTES) ? KVB_ECORRUPT : KVB_OK);
    }
    printf("found %zu of %d blocks in host, %u came back right\n", count, BLOCKS, good);
    CALL(kvb_block_unref(kv, sources, up.count, NULL));
    CALL(kvb_block_unref(kv, blocks, BLOCKS, NULL));
    CALL(kvb_manager_destroy(kv));
    return good == BLOCKS ? 0 : 1;
}
