/* SPDX-License-Identifier: Apache-2.0 */
/* Building and taking down the store; handles, room and fills. See store.h; register, match and forget have files of their own. */
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
                                     config->path_counts[tier] > 0 ? config->path_counts[tier] : 1,
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

struct kvbi_pool *kvbi_store_pool_of(struct kvbi_store *store, const struct kvb_block *block)
{
    for (unsigned tier = 0; tier < KVB_TIER_COUNT; tier++)
        if (kvbi_pool_owns(&store->pools[tier], block))
            return &store->pools[tier];
    return NULL;
}

/* ---- Handles ---------------------------------------------------------------------------------------------------- */

int kvbi_store_hold_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                           struct kvb_block *block)
{
    kvbi_lock_assert_held(&store->lock);
    if (block->place != KVBI_PLACE_PARKED)
        return kvbi_slot_ref(block);
    kvbi_pool_take_out_of_order(pool, block);
    kvbi_pool_leave(pool, block);
    atomic_fetch_add_explicit(&block->word, 1, memory_order_relaxed);
    kvbi_pool_enter(pool, block, KVBI_PLACE_HELD);
    return 0;
}

/* Copies further down are used by this use: an inclusive lower tier keeps the order in which blocks were really used. */
static void touch_copies_below(struct kvbi_store *store, const struct kvbi_entry *entry,
                               uint32_t tier, uint64_t now_ns)
{
    for (uint32_t below = tier + 1; below < KVB_TIER_COUNT; below++) {
        if (!(entry->ready & 1u << below))
            continue;
        struct kvbi_pool *pool = &store->pools[below];
        struct kvb_block *copy = &pool->slots[entry->copies[below]];
        if (copy->place != KVBI_PLACE_PARKED)
            continue;
        uint64_t deadline_ns;
        unsigned band = kvbi_pool_band(copy, now_ns, &deadline_ns);
        kvbi_pool_take_out_of_order(pool, copy);
        pool->policy->ops->insert(pool->policy, entry->copies[below], band, deadline_ns, now_ns);
    }
}

/* A slot has become free or evictable. */
static void note_room(struct kvbi_store *store, struct kvbi_pool *pool)
{
    pool->room++;
    store->work |= pool->room_wanted;
    pool->room_wanted = false;
}

static void park(struct kvbi_store *store, struct kvbi_pool *pool, struct kvb_block *block,
                 uint64_t now_ns)
{
    uint64_t deadline_ns;
    unsigned band = kvbi_pool_band(block, now_ns, &deadline_ns);
    kvbi_pool_leave(pool, block);
    kvbi_pool_enter(pool, block, KVBI_PLACE_PARKED);
    pool->policy->ops->insert(pool->policy, kvbi_pool_slot(pool, block), band, deadline_ns, now_ns);
    touch_copies_below(store, kvbi_index_at(&store->index, block->entry), pool->tier, now_ns);
    note_room(store, pool);
}

void kvbi_store_free_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                            struct kvb_block *block)
{
    struct kvbi_move nothing = {0};
    bool registered = kvbi_life_get(block).state == KVB_STATE_REGISTERED;
    int error =
        kvbi_life_move(block, registered ? KVBI_EVENT_EVICT : KVBI_EVENT_RESET, &nothing, NULL);
    kvbi_records_unref(&store->records, block->record);
    block->record = KVBI_NONE;
    if (error == 0) {
        kvbi_pool_give(pool, block);
    } else {
        kvbi_pool_leave(pool, block);
        kvbi_pool_enter(pool, block, KVBI_PLACE_RETIRED);
    }
    note_room(store, pool);
}

/*
 * A lane still uses the slot, and nobody holds it any more. What a transfer fills may be there,
 * whole, in the end, but to those who knew the block it is gone, and stays gone: it goes on in a
 * new generation. If there is none, its content is not expected any more.
 */
static void linger(struct kvbi_store *store, struct kvbi_pool *pool, struct kvb_block *block)
{
    uint64_t word = atomic_load_explicit(&block->word, memory_order_relaxed);
    kvbi_pool_leave(pool, block);
    kvbi_pool_enter(pool, block, KVBI_PLACE_QUARANTINED);
    if (kvbi_life_get(block).state == KVB_STATE_REGISTERED)
        return; /* it is read, and freed afterwards */
    if (kvbi_word_generation(word) < KVBI_GENERATION_MAX)
        atomic_store_explicit(&block->word, word + (UINT64_C(1) << KVBI_USERS_BITS),
                              memory_order_release);
    else if (block->entry != KVBI_NONE)
        kvbi_store_detach_locked(store, pool, block);
}

enum kvbi_release kvbi_store_release_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                                            struct kvb_block *block, uint64_t now_ns)
{
    kvbi_lock_assert_held(&store->lock);
    /* Acquire: what former holders read and wrote happens before the slot is parked or used again. */
    uint64_t before = atomic_fetch_sub_explicit(&block->word, 1, memory_order_acq_rel);
    KVBI_ASSERT(kvbi_word_users(before) > 0);
    if (kvbi_word_users(before) > 1)
        return KVBI_RELEASE_SHARED;
    pool->released++;
    if (block->entry != KVBI_NONE &&
        !kvbi_index_alive(&store->index, kvbi_index_at(&store->index, block->entry)))
        kvbi_store_forget_locked(store, block->entry);
    if (kvbi_life_get(block).state == KVB_STATE_REGISTERED && block->entry != KVBI_NONE) {
        park(store, pool, block, now_ns);
        return KVBI_RELEASE_PARKED;
    }
    if (block->lane_pins > 0) {
        linger(store, pool, block);
        return KVBI_RELEASE_LINGERS;
    }
    kvbi_store_free_locked(store, pool, block);
    return KVBI_RELEASE_FREED;
}

/* ---- Room ------------------------------------------------------------------------------------------------------- */

void kvbi_store_evict_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                             struct kvb_block *block)
{
    kvbi_pool_take_out_of_order(pool, block);
    kvbi_store_drop_offer_locked(store, pool, block);
    kvbi_store_detach_locked(store, pool, block);
    kvbi_store_free_locked(store, pool, block);
    pool->evicted++;
}

struct kvb_block *kvbi_store_take_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                                         bool user, unsigned band_max, uint64_t now_ns)
{
    kvbi_lock_assert_held(&store->lock);
    struct kvb_block *block;
    kvbi_pool_search(pool, store->lock.hold);
    while ((block = kvbi_pool_take(pool, user ? KVBI_PLACE_HELD : KVBI_PLACE_TRANSFER)) == NULL) {
        struct kvb_block *victim =
            pool->cut_short ? NULL : kvbi_pool_victim(pool, band_max, now_ns);
        if (victim == NULL)
            return NULL;
        kvbi_store_evict_locked(store, pool, victim);
        if (pool->free_count == 0 && !kvbi_pool_pass(pool)) /* the slot has been retired */
            return NULL;
    }
    if (user) {
        block->record = kvbi_records_take(&store->records);
        atomic_fetch_add_explicit(&block->word, 1, memory_order_relaxed);
    } else {
        kvbi_pool_pin(pool, block);
    }
    pool->allocated++;
    return block;
}

/* ---- Fills ------------------------------------------------------------------------------------------------------ */

void kvbi_store_fill_begin_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                                  struct kvb_block *target, uint32_t entry)
{
    struct kvbi_move nothing = {0};
    struct kvbi_entry *content = kvbi_index_at(&store->index, entry);
    KVBI_ASSERT(content->copies[pool->tier] == KVBI_NONE);
    int error = kvbi_life_move(target, KVBI_EVENT_FILL, &nothing, NULL);
    KVBI_ASSERT(error == 0);
    (void)error;
    if (target->place == KVBI_PLACE_HELD)
        kvbi_pool_pin(pool, target);
    target->entry = entry;
    content->copies[pool->tier] = kvbi_pool_slot(pool, target);
}

void kvbi_store_order_below_parent_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                                          struct kvb_block *block, uint64_t now_ns)
{
    const struct kvbi_entry *entry = kvbi_index_at(&store->index, block->entry);
    const void *parent_key =
        store->index.key_bytes > 0 ? kvbi_index_parent_key(&store->index, block->entry) : NULL;
    uint32_t parent = KVBI_NONE;
    if (entry->flags & KVBI_ENTRY_HAS_PARENT)
        parent = kvbi_store_find_locked(store, entry->parent_hash, parent_key);
    uint64_t deadline_ns;
    unsigned band = kvbi_pool_band(block, now_ns, &deadline_ns);
    const struct kvbi_policy_ops *policy = pool->policy->ops;
    if (parent != KVBI_NONE && (kvbi_index_at(&store->index, parent)->ready & 1u << pool->tier))
        policy->insert_below(pool->policy, kvbi_pool_slot(pool, block), band, deadline_ns,
                             kvbi_index_at(&store->index, parent)->copies[pool->tier], now_ns);
    else
        policy->insert(pool->policy, kvbi_pool_slot(pool, block), band, deadline_ns, now_ns);
}

static void publish_fill(struct kvbi_store *store, struct kvbi_pool *pool, struct kvb_block *target,
                         uint64_t now_ns)
{
    struct kvbi_move move = {.tokens_per_block = store->hash.tokens_per_block};
    struct kvbi_entry *entry = kvbi_index_at(&store->index, target->entry);
    int error = kvbi_life_move(target, KVBI_EVENT_FILLED, &move, NULL);
    KVBI_ASSERT(error == 0);
    (void)error;
    kvbi_records_unref(&store->records, target->record); /* from now on it shares the entry's */
    target->record = KVBI_NONE;
    entry->ready |= (uint8_t)(1u << pool->tier);
    pool->registered++;
    kvbi_store_emit_locked(store, KVB_EVENT_STORED, pool->tier, target->entry);
    if (target->place == KVBI_PLACE_HELD)
        return;
    kvbi_pool_leave(pool, target);
    kvbi_pool_enter(pool, target, KVBI_PLACE_PARKED);
    kvbi_store_order_below_parent_locked(store, pool, target, now_ns);
    note_room(store, pool);
}

static void reset_fill(struct kvbi_store *store, struct kvbi_pool *pool, struct kvb_block *target)
{
    struct kvbi_move nothing = {0};
    if (target->entry != KVBI_NONE)
        kvbi_store_detach_locked(store, pool, target);
    kvbi_slot_forget_content(target);
    int error = kvbi_life_move(target, KVBI_EVENT_FILL_FAILED, &nothing, NULL);
    KVBI_ASSERT(error == 0);
    (void)error;
}

bool kvbi_store_fill_end_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                                struct kvb_block *target, bool verified, uint64_t now_ns)
{
    if (target->entry != KVBI_NONE &&
        !kvbi_index_alive(&store->index, kvbi_index_at(&store->index, target->entry)))
        kvbi_store_forget_locked(store, target->entry);
    bool publish = verified && target->entry != KVBI_NONE;
    kvbi_pool_unpin(pool, target, now_ns);
    if (publish) {
        publish_fill(store, pool, target, now_ns);
        return true;
    }
    reset_fill(store, pool, target);
    if (target->place != KVBI_PLACE_HELD)
        kvbi_store_free_locked(store, pool, target);
    return false;
}

void kvbi_store_fill_abandon_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                                    struct kvb_block *target)
{
    kvbi_pool_unpin(pool, target, 0);
    reset_fill(store, pool, target);
}

void kvbi_store_unpin_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                             struct kvb_block *block, uint64_t now_ns)
{
    kvbi_pool_unpin(pool, block, now_ns);
    note_room(store, pool);
    if (block->lane_pins == 0 && block->place == KVBI_PLACE_QUARANTINED)
        kvbi_store_free_locked(store, pool, block);
}
