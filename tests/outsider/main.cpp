/* SPDX-License-Identifier: Apache-2.0 */
/* An outsider in C++: the same installed header and library. */
#include <kvblock.h>

#include <cstdio>
#include <cstring>

int main()
{
    kvb_layout layout{};
    layout.size = sizeof layout;
    layout.layers = layout.parts = 1;
    layout.chunk_bytes = 256;
    kvb_tier_config tier{};
    tier.size = sizeof tier;
    tier.tier = KVB_TIER_DEVICE;
    tier.block_count = 2;
    kvb_config config{};
    config.size = sizeof config;
    config.tokens_per_block = 4;
    config.layout = &layout;
    config.tiers = &tier;
    config.tier_count = 1;
    config.progress = KVB_PROGRESS_POLL;
    kvb_diagnosis diagnosis{};
    diagnosis.size = sizeof diagnosis;
    kvb_manager *kv = nullptr;
    kvb_block *block = nullptr;
    int error = kvb_manager_create(&config, &kv, &diagnosis);
    if (!error)
        error = kvb_alloc(kv, KVB_TIER_DEVICE, 1, nullptr, &block, nullptr);
    if (!error)
        error = kvb_block_unref(kv, &block, 1, nullptr);
    if (!error)
        error = kvb_manager_destroy(kv);
    std::printf("C++: kvblock %s: %s\n", kvb_version(),
                error ? diagnosis.message : kvb_error_name(error));
    return error != 0;
}
