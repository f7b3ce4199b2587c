/* SPDX-License-Identifier: Apache-2.0 */
/* See tier_pair.h. */
#include "support/tier_pair.h"

#include "transfer/disk/io.h"
#include "transfer/disk/tier.h"

void tier_pair_init(struct tier_pair *pair, uint32_t upper, uint32_t lower)
{
    *pair = (struct tier_pair){
        .layout = {.size = sizeof pair->layout, .layers = PAIR_LAYERS, .parts = PAIR_PARTS},
        .upper = upper,
        .lower = lower,
        .purpose = {.layout = &pair->layout,
                    .tokens_per_block = KV_TOKENS,
                    .key_bytes = PAIR_KEY_BYTES,
                    .hash = kvbi_hash_select(kvbi_isa_detect())}};
    pair->memory = (struct kvbi_memory){{kv_heap_alloc, kv_heap_free, &pair->heap}};
    kvbi_clock_init(&pair->clock, NULL);
    kvbi_log_init(&pair->log, NULL);
    tier_pair_set_chunk(pair, PAIR_CHUNK);
    pair->configs[upper] = (struct kvb_tier_config){
        .size = sizeof(struct kvb_tier_config), .tier = upper, .block_count = PAIR_BLOCKS};
    pair->configs[lower] = (struct kvb_tier_config){.size = sizeof(struct kvb_tier_config),
                                                    .tier = lower,
                                                    .block_count = PAIR_BLOCKS,
                                                    .pin_duty_percent = 100};
}

void tier_pair_set_chunk(struct tier_pair *pair, uint64_t chunk_bytes)
{
    pair->layout.chunk_bytes = chunk_bytes;
    pair->purpose.block_bytes = chunk_bytes * pair->layout.layers * pair->layout.parts;
}

int tier_pair_open(struct tier_pair *pair)
{
    struct kvb_tier_config resolved[KVB_TIER_COUNT];
    const struct kvbi_kind *kinds[KVB_TIER_COUNT] = {NULL};
    struct kvbi_tiers_config tiers = {
        .configs = resolved, .kinds = kinds, .purpose = pair->purpose};
    memcpy(resolved, pair->configs, sizeof resolved);
    for (uint32_t i = 0; i < KVB_TIER_COUNT; i++) {
        kinds[i] = pair->kinds[i] != NULL ? pair->kinds[i] : kvbi_kind_of(&pair->configs[i]);
        if (resolved[i].path != NULL) {
            resolved[i].paths = &resolved[i].path;
            resolved[i].path_count = 1;
        }
    }
    return kvbi_tiers_create(pair->tiers, &pair->memory, &tiers, pair->message,
                             sizeof pair->message);
}

/* Beside the engines themselves there is the memory between two that work one after the other. */
static int64_t beside_engines(const struct tier_pair *pair)
{
    const struct kvbi_engines *engines = &pair->engines;
    return (int64_t)(engines->between.block_count * engines->between.block_bytes);
}

int tier_pair_connect(struct tier_pair *pair, uint32_t capacity, bool own_thread)
{
    int64_t before = pair->heap.live_bytes;
    const struct kvbi_engines_config config = {.tiers = pair->tiers,
                                               .configs = pair->configs,
                                               .capacity = capacity,
                                               .own_thread = own_thread,
                                               .memory = &pair->memory,
                                               .clock = &pair->clock,
                                               .log = &pair->log};
    int error = kvbi_engines_create(&pair->engines, &config);
    if (error != 0) {
        (void)snprintf(pair->message, sizeof pair->message, "%.200s", pair->engines.said);
        return error;
    }
    pair->engines_took = pair->heap.live_bytes - before - beside_engines(pair);
    return kvbi_tiers_register(pair->tiers, pair->configs, &pair->log, NULL);
}

int tier_pair_commit(struct tier_pair *pair)
{
    int error = 0;
    for (uint32_t i = 0; error == 0 && i < KVB_TIER_COUNT; i++)
        if (pair->tiers[i].lasting != NULL)
            error = pair->tiers[i].lasting->commit(&pair->tiers[i], pair->message,
                                                   sizeof pair->message);
    return error;
}

struct kvbi_tier *tier_pair_upper(struct tier_pair *pair)
{
    return &pair->tiers[pair->upper];
}

struct kvbi_tier *tier_pair_lower(struct tier_pair *pair)
{
    return &pair->tiers[pair->lower];
}

struct kvbi_engine *tier_pair_engine(const struct tier_pair *pair)
{
    return kvbi_engines_between(&pair->engines, &pair->tiers[pair->upper],
                                &pair->tiers[pair->lower]);
}

void tier_pair_wrap(struct tier_pair *pair, struct kvbi_engine *wrapper)
{
    const struct kvbi_engine *inner = tier_pair_engine(pair);
    for (uint32_t i = 0; i < pair->engines.count; i++)
        if (pair->engines.all[i] == inner)
            pair->engines.all[i] = wrapper;
    for (uint32_t i = 0; i < KVB_TIER_COUNT; i++)
        if (pair->engines.of[i] == inner)
            pair->engines.of[i] = wrapper;
}

int64_t tier_pair_engine_took(const struct tier_pair *pair)
{
    const struct kvbi_engine *engine = tier_pair_engine(pair);
    int64_t others =
        (int64_t)kvbi_engines_bytes(&pair->engines) - (int64_t)engine->ops->bytes(engine);
    return pair->engines_took - others;
}

/* What a test that has failed has left there. */
static void give_up_all(struct kvbi_engine *engine)
{
    struct kvbi_completion completions[64];
    bool more = true;
    engine->ops->drain(engine);
    for (uint32_t turns = 0; more && turns < 1000; turns++) {
        uint32_t count = engine->ops->reap(engine, completions, 64, KVB_FOREVER, &more);
        more |= count > 0;
    }
}

void tier_pair_disconnect(struct tier_pair *pair)
{
    for (uint32_t i = 0; i < pair->engines.count; i++)
        give_up_all(pair->engines.all[i]);
    kvbi_engines_destroy(&pair->engines);
}

void tier_pair_close(struct tier_pair *pair)
{
    tier_pair_disconnect(pair);
    kvbi_tiers_destroy(pair->tiers);
}

bool tier_pair_gave_all_back(const struct tier_pair *pair)
{
    return pair->heap.live_blocks == 0 && pair->heap.live_bytes == 0 && pair->heap.wrong_frees == 0;
}

/* ---- Bytes ----------------------------------------------------------------------------------- */

void content_write(void *block, uint64_t bytes, uint64_t key)
{
    unsigned char *at = block;
    for (uint64_t i = 0; i < bytes; i += 8) {
        uint64_t word = kv_mix((key << 32) + i), left = bytes - i;
        memcpy(at + i, &word, left < 8 ? (size_t)left : 8);
    }
}

bool content_is(const void *block, uint64_t bytes, uint64_t key)
{
    const unsigned char *at = block;
    for (uint64_t i = 0; i < bytes; i += 8) {
        uint64_t word = kv_mix((key << 32) + i), left = bytes - i;
        if (memcmp(at + i, &word, left < 8 ? (size_t)left : 8) != 0)
            return false;
    }
    return true;
}

struct kvbi_identity content_identity(uint64_t key)
{
    return (struct kvbi_identity){
        .hash = key, .digest = {key + 1, key + 2}, .generation = key % 1000 + 1};
}

struct kvbi_label content_label(uint64_t key, uint64_t clears)
{
    const struct kvbi_identity identity = content_identity(key);
    struct kvbi_label label = {.hash = identity.hash,
                               .digest = {identity.digest[0], identity.digest[1]},
                               .parent_hash = key - 1,
                               .space_hash = 9,
                               .space_digest = {8, 7},
                               .generation = identity.generation,
                               .clears = clears,
                               .has_parent = 1,
                               .priority = (uint8_t)(key % 101)};
    for (uint32_t i = 0; i < PAIR_KEY_BYTES; i++) {
        label.key[i] = (unsigned char)(key + i);
        label.parent_key[i] = (unsigned char)(key * 3 + i);
    }
    return label;
}

static void fill_memory(const struct kvbi_tier *tier, uint32_t slot, uint64_t key)
{
    content_write(kvbi_tier_address(tier, slot), tier->block_bytes, key);
}

static bool memory_has(const struct kvbi_tier *tier, uint32_t slot, uint64_t key)
{
    return content_is(kvbi_tier_address(tier, slot), tier->block_bytes, key);
}

const struct tier_access tier_access_memory = {.fill = fill_memory, .has = memory_has};

static void *take_block(const struct kvbi_tier *tier)
{
    void *block = malloc((size_t)tier->block_bytes);
    if (block == NULL)
        abort();
    return block;
}

/* Past the engine, and then named as the engine does it. */
static void fill_disk(const struct kvbi_tier *tier, uint32_t slot, uint64_t key)
{
    struct kvbi_disk *disk = tier->self;
    const struct kvbi_identity identity = content_identity(key);
    struct kvbi_disk_publication publication = {
        .slot = slot, .identity = kvbi_disk_identity(disk, slot, &identity)};
    void *block = take_block(tier);
    content_write(block, tier->block_bytes, key);
    if (kvbi_disk_write(kvbi_disk_file_of(disk, slot)->io.table_fd, block,
                        (size_t)tier->block_bytes, kvbi_disk_offset(disk, slot)) != 0)
        abort();
    publication.checksum = kvbi_disk_checksum(disk, publication.identity, block);
    kvbi_disk_publish(disk, &publication, 1);
    free(block);
}

static bool disk_has(const struct kvbi_tier *tier, uint32_t slot, uint64_t key)
{
    const struct kvbi_disk *disk = tier->self;
    void *block = take_block(tier);
    bool has = kvbi_disk_read(kvbi_disk_file_of(disk, slot)->io.table_fd, block,
                              (size_t)tier->block_bytes, kvbi_disk_offset(disk, slot)) == 0 &&
               content_is(block, tier->block_bytes, key);
    free(block);
    return has;
}

const struct tier_access tier_access_disk = {.fill = fill_disk, .has = disk_has};
