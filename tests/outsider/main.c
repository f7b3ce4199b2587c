/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An outsider: knows the installed header and library, nothing else. One block down to HOST and
 * found there.
 */
#include <kvblock.h>

#include <stdio.h>
#include <string.h>

enum { TOKENS = 4, BYTES = 256 };

int main(void)
{
    struct kvb_layout layout = {
        .size = sizeof layout, .layers = 1, .parts = 1, .chunk_bytes = BYTES};
    struct kvb_tier_config tiers[] = {
        {.size = sizeof *tiers, .tier = KVB_TIER_DEVICE, .block_count = 2},
        {.size = sizeof *tiers, .tier = KVB_TIER_HOST, .block_count = 2}};
    struct kvb_config config = {.size = sizeof config,
                                .tokens_per_block = TOKENS,
                                .layout = &layout,
                                .tiers = tiers,
                                .tier_count = 2};
    struct kvb_manager *kv = NULL;
    struct kvb_block *block = NULL;
    struct kvb_block_init init = {.size = sizeof init};
    uint32_t tokens[TOKENS] = {1, 2, 3, 4};
    struct kvb_append append = {.size = sizeof append, .tokens = tokens, .count = TOKENS};
    struct kvb_query query = {.size = sizeof query, .tokens = tokens, .token_count = TOKENS};
    struct kvb_stats stats = {.size = sizeof stats};
    uint64_t found[KVB_TIER_COUNT] = {0};
    int error = kvb_manager_create(&config, &kv, NULL);
    if (!error)
        error = kvb_alloc(kv, KVB_TIER_DEVICE, 1, NULL, &block, NULL);
    if (!error)
        error = kvb_block_init(kv, &block, &init, 1, NULL);
    if (!error)
        error = kvb_block_append(kv, &block, &append, 1, NULL);
    if (!error)
        error = kvb_block_schedule(kv, &block, 1, NULL);
    if (!error)
        error = kvb_block_compute_done(kv, &block, &append.taken, 1, NULL, NULL);
    if (!error)
        error = kvb_block_register(kv, &block, 1, NULL, NULL, NULL);
    if (!error)
        error = kvb_manager_flush(kv, KVB_FOREVER);
    if (!error)
        error = kvb_lookup(kv, &query, found);
    if (!error)
        error = kvb_manager_stats(kv, &stats);
    if (!error)
        error = kvb_block_unref(kv, &block, 1, NULL);
    if (!error)
        error = kvb_manager_destroy(kv);
    printf("C: kvblock %s: %s, found %d, transferred %d\n", kvb_version(), kvb_error_name(error),
           (int)found[0], (int)stats.lanes[0].transferred);
    return error != 0 || found[KVB_TIER_DEVICE] != 1 || stats.lanes[0].transferred != 1;
}
