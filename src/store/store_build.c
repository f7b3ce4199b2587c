/* SPDX-License-Identifier: Apache-2.0 */
/* What a store is made of: create, destroy, bytes. See store.h. */
#include "store/store.h"

static uint32_t sum_blocks(const struct kvbi_store_config *config, bool in_memory_only)
{
    uint64_t sum = 0;
    for (unsigned tier = 0; tier < KVB_TIER_COUNT; tier++)
        sum += in_memory_only && config->on_disk[tier] ? 0 : config->block_counts[tier];
    return (uint32_t)sum; /* the configuration's reader has checked that it fits */
}

/* Contents in memory bring no namespaces along: as many as may be opened, where there is a disk. */
static uint32_t adoptable_namespaces(const struct kvbi_store_config *config)
{
    bool any = false;
    for (unsigned tier = 0; tier < KVB_TIER_COUNT; tier++)
        any |= config->on_disk[tier];
    return any ? config->namespace_capacity : 0;
}

/* Of a parent's name the index knows the hash only. */
static struct kvbi_event_shape event_shape(const struct kvbi_store_config *config)
{
    if (config->key_bytes > 0)
        return (struct kvbi_event_shape){config->key_bytes, config->key_bytes};
    return (struct kvbi_event_shape){sizeof(struct kvb_seq), sizeof(uint64_t)};
}

static int create_parts(struct kvbi_store *store, const struct kvbi_store_config *config)
{
    int error = kvbi_namespaces_create(&store->namespaces, config->memory, &store->hash,
                                       config->namespace_capacity, adoptable_namespaces(config));
    for (unsigned tier = 0; error == 0 && tier < KVB_TIER_COUNT; tier++)
        if (config->block_counts[tier] > 0)
            error = kvbi_pool_create(&store->pools[tier], config->memory, tier,
                                     config->block_counts[tier],
                                     config->file_counts[tier] > 0 ? config->file_counts[tier] : 1,
                                     !config->on_disk[tier], config->policy);
    if (error == 0)
        error = kvbi_index_create(&store->index, config->memory, sum_blocks(config, false),
                                  config->key_bytes);
    if (error == 0)
        error = kvbi_records_create(&store->records, config->memory,
                                    sum_blocks(config, true) + config->event_capacity +
                                        KVBI_RECORDS_SPARE,
                                    config->tokens_per_block, config->key_bytes);
    if (error == 0)
        error = kvbi_moments_create(&store->moments, config->memory, sum_blocks(config, true));
    if (error == 0)
        error = kvbi_event_log_create(&store->events, config->memory, config->event_capacity,
                                      event_shape(config));
    if (error == 0)
        error = kvbi_pins_create(&store->pins, config->memory, config->pin_capacity);
    return error;
}

int kvbi_store_create(struct kvbi_store *store, const struct kvbi_store_config *config)
{
    *store = (struct kvbi_store){.memory = config->memory,
                                 .clock = config->clock,
                                 .log = config->log,
                                 .hash = {.ops = config->hash,
                                          .digest_seed = config->digest_seed,
                                          .tokens_per_block = config->tokens_per_block},
                                 .key_stride = config->key_bytes > 0 ? config->key_bytes
                                                                     : sizeof(struct kvb_seq),
                                 .duplicate = config->duplicate,
                                 .serving = (1u << KVB_TIER_COUNT) - 1};
    if (kvbi_lock_init(&store->lock, KVBI_RANK_STORE) != 0) {
        store->memory = NULL; /* nothing to destroy */
        return KVB_ENOMEM;
    }
    if (kvbi_lock_init(&store->clear_lock, KVBI_RANK_CLEAR) != 0) {
        kvbi_lock_fini(&store->lock);
        store->memory = NULL;
        return KVB_ENOMEM;
    }
    int error = create_parts(store, config);
    if (error != 0)
        kvbi_store_destroy(store);
    return error;
}

void kvbi_store_destroy(struct kvbi_store *store)
{
    if (store->memory == NULL)
        return;
    kvbi_pins_destroy(&store->pins);
    kvbi_event_log_destroy(&store->events);
    kvbi_moments_destroy(&store->moments);
    kvbi_records_destroy(&store->records);
    kvbi_index_destroy(&store->index);
    for (unsigned tier = 0; tier < KVB_TIER_COUNT; tier++)
        kvbi_pool_destroy(&store->pools[tier]);
    kvbi_namespaces_destroy(&store->namespaces);
    kvbi_lock_fini(&store->clear_lock);
    kvbi_lock_fini(&store->lock);
    store->memory = NULL;
}

size_t kvbi_store_bytes(const struct kvbi_store *store)
{
    size_t bytes = kvbi_index_bytes(&store->index) + kvbi_records_bytes(&store->records) +
                   kvbi_event_log_bytes(&store->events) + kvbi_pins_bytes(&store->pins) +
                   kvbi_namespaces_bytes(&store->namespaces) + kvbi_moments_bytes(&store->moments);
    for (unsigned tier = 0; tier < KVB_TIER_COUNT; tier++)
        bytes += kvbi_pool_bytes(&store->pools[tier]);
    return bytes;
}
