/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handles: ref, unref, weak handles; registering; priority; what a block is.
 *
 * Callers    the public. Lock: the store's, in turns of KVBI_LOCK_BATCH blocks.
 */
#include <string.h>

#include "api/explain.h"
#include "api/manager.h"
#include "base/struct_in.h"
#include "store/contents.h"

/* ---- Handles --------------------------------------------------------------------------------- */

int kvb_block_ref(struct kvb_manager *manager, struct kvb_block *const *blocks, uint32_t count,
                  int *results)
{
    struct kvbi_roll roll;
    int error = kvbi_enter_array(manager, KVBI_CALL_BLOCK_REF, "blocks", blocks, count);
    if (error != 0)
        return error;
    kvbi_roll_begin(&roll, manager, KVBI_CALL_BLOCK_REF, "blocks", count, results);
    for (uint32_t i = 0; i < count; i++) {
        bool ours = kvbi_store_pool_of(&manager->store, blocks[i]) != NULL;
        kvbi_note(&roll, i, ours ? kvbi_slot_ref(blocks[i]) : KVB_EINVAL);
    }
    if (kvbi_roll_unexplained(&roll))
        kvbi_explain_ref(&roll, blocks[roll.told_at]);
    return kvbi_roll_end(&roll);
}

/* The caller's handle, and no step's: a block whose step is out outlives all of its handles. */
static int unref_one(struct kvbi_section *section, struct kvb_block *block)
{
    struct kvbi_pool *pool = kvbi_store_pool_of(&section->manager->store, block);
    if (pool == NULL)
        return KVB_EINVAL;
    uint32_t steps = kvbi_life_get(block).steps;
    if (steps > 0 &&
        kvbi_word_users(atomic_load_explicit(&block->word, memory_order_acquire)) <= steps)
        return KVB_EINVAL;
    if (kvbi_slot_unref_shared(block))
        return 0;
    kvbi_section_next(section);
    if (kvbi_word_users(atomic_load_explicit(&block->word, memory_order_acquire)) == 0)
        return KVB_EINVAL;
    kvbi_section_unref(section, pool, block);
    return 0;
}

int kvb_block_unref(struct kvb_manager *manager, struct kvb_block *const *blocks, uint32_t count,
                    int *results)
{
    struct kvbi_roll roll;
    int error = kvbi_enter_array(manager, KVBI_CALL_BLOCK_UNREF, "blocks", blocks, count);
    if (error != 0)
        return error;
    kvbi_roll_begin(&roll, manager, KVBI_CALL_BLOCK_UNREF, "blocks", count, results);
    struct kvbi_section section = {.manager = manager};
    for (uint32_t i = count; i-- > 0;)
        kvbi_note(&roll, i, unref_one(&section, blocks[i]));
    kvbi_section_end(&section);
    if (kvbi_roll_unexplained(&roll))
        kvbi_explain_unref(&roll, blocks[roll.told_at]);
    return kvbi_roll_end(&roll);
}

int kvb_block_weak(struct kvb_manager *manager, const struct kvb_block *block,
                   struct kvb_weak *weak)
{
    int error = kvbi_enter(manager);
    if (weak != NULL)
        *weak = (struct kvb_weak){0};
    if (error == 0)
        error = kvbi_refuse_null(manager, KVBI_CALL_BLOCK_WEAK, "weak", weak);
    if (error != 0)
        return error;
    const struct kvbi_pool *pool = kvbi_held_pool(manager, block);
    if (pool == NULL)
        return kvbi_refuse_not_held(manager, KVBI_CALL_BLOCK_WEAK, "block", block);
    *weak = (struct kvb_weak){.tier = pool->tier,
                              .slot = kvbi_pool_slot(pool, block),
                              .generation = kvbi_word_generation(
                                  atomic_load_explicit(&block->word, memory_order_acquire))};
    return 0;
}

/* Nobody holds it: if it is parked, and still the same content, it is taken out of the order. */
static int upgrade_parked_locked(struct kvb_manager *manager, struct kvbi_pool *pool,
                                 struct kvb_block *block, uint64_t generation)
{
    uint64_t word = atomic_load_explicit(&block->word, memory_order_acquire);
    if (kvbi_word_generation(word) != generation)
        return KVB_ESTALE;
    if (kvbi_store_is_closing(&manager->store))
        return KVB_ESTATE;
    if (kvbi_word_users(word) == 0 &&
        (block->place != KVBI_PLACE_PARKED || !kvbi_store_is_known_locked(&manager->store, block)))
        return KVB_ESTALE; /* of the latter, a clear has just not come to the slot yet */
    return kvbi_store_ref_locked(&manager->store, pool, block);
}

/* A handle that was taken without the lock, while destroy was counting: it counts, or it goes. */
static int confirm_upgrade(struct kvb_manager *manager, struct kvbi_section *section,
                           struct kvbi_pool *pool, struct kvb_block *block)
{
    if (!kvbi_store_is_closing(&manager->store))
        return 0;
    kvbi_section_next(section); /* destroy has decided by then */
    if (!kvbi_store_is_closing(&manager->store))
        return 0;
    kvbi_section_unref(section, pool, block);
    return KVB_ESTATE;
}

static int upgrade_one(struct kvb_manager *manager, const struct kvb_weak *weak,
                       struct kvbi_section *section, struct kvb_block **out)
{
    *out = NULL;
    struct kvbi_pool *pool =
        weak->tier < KVB_TIER_COUNT ? kvbi_store_pool(&manager->store, weak->tier) : NULL;
    if (pool == NULL || weak->slot >= pool->block_count)
        return weak->generation == 0 ? KVB_ESTALE : KVB_EINVAL;
    struct kvb_block *block = &pool->slots[weak->slot];
    int error = kvbi_slot_upgrade_used(block, weak->generation);
    if (error == 0)
        error = confirm_upgrade(manager, section, pool, block);
    if (error == KVB_EBUSY) {
        kvbi_section_next(section);
        error = upgrade_parked_locked(manager, pool, block, weak->generation);
    }
    if (error == 0)
        *out = block;
    return error;
}

int kvb_weak_upgrade(struct kvb_manager *manager, const struct kvb_weak *weaks, uint32_t count,
                     struct kvb_block **blocks, int *results)
{
    struct kvbi_roll roll;
    int error = kvbi_enter_array(manager, KVBI_CALL_WEAK_UPGRADE, "weaks", weaks, count);
    if (blocks != NULL && count > 0)
        memset(blocks, 0, count * sizeof *blocks);
    if (error == 0)
        error = kvbi_enter_array(manager, KVBI_CALL_WEAK_UPGRADE, "blocks", blocks, count);
    if (error != 0)
        return error;
    kvbi_roll_begin(&roll, manager, KVBI_CALL_WEAK_UPGRADE, "weaks", count, results);
    struct kvbi_section section = {.manager = manager};
    for (uint32_t i = 0; i < count; i++)
        kvbi_note(&roll, i, upgrade_one(manager, &weaks[i], &section, &blocks[i]));
    kvbi_section_end(&section);
    if (kvbi_roll_unexplained(&roll))
        kvbi_explain_upgrade(&roll, &weaks[roll.told_at]);
    return kvbi_roll_end(&roll);
}

/* ---- register -------------------------------------------------------------------------------- */

/* Everything that needs no lock: the name, from the tokens, the call or init. */
static int prepare_register(struct kvbi_roll *roll, uint32_t i, struct kvb_block *block,
                            const void *key)
{
    struct kvb_manager *manager = roll->manager;
    int error = kvbi_sole_holder(manager, block);
    if (error == 0 && !kvbi_life_allows(block, KVBI_EDGE_REGISTER))
        error = KVB_ESTATE;
    if (error != 0)
        return kvbi_roll_edge(roll, i, error, block, KVBI_EDGE_REGISTER);
    const struct kvbi_store *store = &manager->store;
    struct kvbi_record *record = kvbi_store_record(store, block->record);
    if ((record->flags & KVBI_RECORD_LATER) && !(record->flags & KVBI_RECORD_HAS_PARENT))
        return kvbi_roll_why(roll, i, KVB_EINVAL, block,
                             ": its parent is missing: init gave a position above 0 and parent "
                             "NULL; only position 0 has none");
    const struct kvbi_record_shape *shape = kvbi_store_shape(store);
    if (key != NULL && shape->key_bytes > 0) {
        if ((record->flags & KVBI_RECORD_HAS_PARENT) &&
            memcmp(key, kvbi_record_parent_key(shape, record), shape->key_bytes) == 0)
            return kvbi_roll_why(roll, i, KVB_EINVAL, block,
                                 ": its key in options.keys is its parent's, must be its own");
        memcpy(kvbi_record_key(record), key, shape->key_bytes);
        record->flags |= KVBI_RECORD_GIVEN;
        record->flags &= (uint16_t)~KVBI_RECORD_NAMED;
    }
    if (record->flags & KVBI_RECORD_NAMED)
        return 0;
    return kvbi_record_name(kvbi_store_hash(store), kvbi_space(manager, record->namespace_id),
                            shape, record)
               ? 0
               : kvbi_roll_why(
                     roll, i, KVB_EINVAL, block,
                     ": it has no key: with key_bytes %u options.keys or init must give one",
                     shape->key_bytes);
}

static int set_register_ticket(struct kvb_manager *manager, struct kvb_block *block,
                               uint64_t ticket)
{
    const struct kvbi_lanes *lanes = kvbi_pipeline_lanes(&manager->pipeline);
    const struct kvbi_pool *pool = kvbi_store_pool_of(&manager->store, block);
    int refused = kvbi_lanes_takes_ticket(lanes, pool, ticket);
    if (refused == 0)
        kvbi_lanes_set_ticket(lanes, block, ticket);
    return refused;
}

static int register_locked(struct kvb_manager *manager, struct kvb_block **block, bool share,
                           uint64_t now_ns)
{
    struct kvbi_pool *pool = kvbi_store_pool_of(&manager->store, *block);
    struct kvb_block *own = *block;
    int error = kvbi_store_register_locked(&manager->store, pool, block, share, now_ns);
    if (error == 0 && *block == own)
        kvbi_lanes_registered_locked(kvbi_pipeline_lanes(&manager->pipeline), pool, own);
    return error;
}

/* What registering a batch takes besides its blocks. */
struct registering {
    struct kvb_manager *manager;
    struct kvbi_roll *roll;
    const unsigned char *keys; /* or NULL */
    bool share;
    uint64_t ticket, now_ns;
};

/* Blocks [begin, begin + count) of the call: named before the lock is taken, published under it. */
static void register_batch(const struct registering *what, struct kvb_block **blocks,
                           uint32_t begin, uint32_t count, int codes[KVBI_LOCK_BATCH])
{
    struct kvb_manager *manager = what->manager;
    struct kvb_block *named[KVBI_LOCK_BATCH];
    uint32_t named_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        const void *key = what->keys == NULL
                              ? NULL
                              : what->keys + (begin + i) * kvbi_store_key_stride(&manager->store);
        codes[i] = prepare_register(what->roll, begin + i, blocks[begin + i], key);
        if (codes[i] == 0)
            codes[i] = set_register_ticket(manager, blocks[begin + i], what->ticket);
        if (codes[i] == 0)
            named[named_count++] = blocks[begin + i];
    }
    kvbi_store_warm_names(&manager->store, named, named_count);
    kvbi_lock(manager);
    kvbi_store_warm_names_locked(&manager->store, named, named_count);
    for (uint32_t i = 0; i < count; i++)
        if (codes[i] == 0)
            codes[i] = register_locked(manager, &blocks[begin + i], what->share, what->now_ns);
    kvbi_unlock(manager);
}

/* 0, or what is wrong with the options. */
static int check_options(struct kvb_manager *manager, const struct kvb_register *options)
{
    struct kvbi_why why;
    if (!kvbi_struct_fits(options, options->size, sizeof *options)) {
        kvbi_struct_why(&why, "options", "kvb_register", options, options->size, sizeof *options);
        return kvbi_refuse(manager, KVBI_CALL_BLOCK_REGISTER, KVB_EINVAL, "%s", why.text);
    }
    if (options->flags > KVB_REGISTER_SHARE)
        return kvbi_refuse(manager, KVBI_CALL_BLOCK_REGISTER, KVB_EINVAL,
                           "options.flags is 0x%x, must be 0, KVB_REGISTER_KEEP (%u) or "
                           "KVB_REGISTER_SHARE (%u)",
                           options->flags, KVB_REGISTER_KEEP, KVB_REGISTER_SHARE);
    return 0;
}

int kvb_block_register(struct kvb_manager *manager, struct kvb_block **blocks, uint32_t count,
                       const struct kvb_register *options, const struct kvb_fence *fence,
                       int *results)
{
    static const struct kvb_register none = {.size = sizeof none};
    struct kvbi_roll roll;
    struct registering what = {.manager = manager, .roll = &roll};
    int error = kvbi_enter_array(manager, KVBI_CALL_BLOCK_REGISTER, "blocks", blocks, count);
    if (options == NULL)
        options = &none;
    if (error == 0)
        error = check_options(manager, options);
    if (error == 0)
        error = kvbi_import_fence(manager, KVBI_CALL_BLOCK_REGISTER, fence, &what.ticket);
    if (error != 0)
        return error;
    kvbi_roll_begin(&roll, manager, KVBI_CALL_BLOCK_REGISTER, "blocks", count, results);
    what.keys = options->keys;
    what.share = options->flags == 0 ? kvbi_store_shares(&manager->store)
                                     : options->flags == KVB_REGISTER_SHARE;
    what.now_ns = kvbi_clock_now(&manager->clock);
    for (uint32_t begin = 0; begin < count; begin += KVBI_LOCK_BATCH) {
        int codes[KVBI_LOCK_BATCH];
        uint32_t n = count - begin < KVBI_LOCK_BATCH ? count - begin : KVBI_LOCK_BATCH;
        register_batch(&what, blocks, begin, n, codes);
        for (uint32_t i = 0; i < n; i++)
            kvbi_note(&roll, begin + i, codes[i]);
        if (kvbi_roll_unexplained(&roll))
            kvbi_explain_register(&roll, blocks[roll.told_at], fence);
    }
    return kvbi_roll_end(&roll);
}

/* ---- Priority -------------------------------------------------------------------------------- */

int kvb_block_set_priority(struct kvb_manager *manager, struct kvb_block *const *blocks,
                           uint32_t count, uint32_t priority, uint64_t duration_ns, int *results)
{
    struct kvbi_roll roll;
    int error = kvbi_enter_array(manager, KVBI_CALL_BLOCK_SET_PRIORITY, "blocks", blocks, count);
    if (error == 0 && priority > KVB_PRIORITY_MAX)
        error = kvbi_refuse(manager, KVBI_CALL_BLOCK_SET_PRIORITY, KVB_EINVAL,
                            "priority is %u, must be 0..%d", priority, KVB_PRIORITY_MAX);
    if (error != 0)
        return error;
    kvbi_roll_begin(&roll, manager, KVBI_CALL_BLOCK_SET_PRIORITY, "blocks", count, results);
    struct kvbi_section section = {.manager = manager};
    uint64_t now_ns = kvbi_clock_now(&manager->clock);
    uint64_t until_ns =
        duration_ns == 0 || duration_ns > UINT64_MAX - now_ns ? 0 : now_ns + duration_ns;
    for (uint32_t i = 0; i < count; i++) {
        bool held = kvbi_held_pool(manager, blocks[i]) != NULL;
        if (held) {
            kvbi_section_next(&section);
            blocks[i]->priority = (uint8_t)priority;
            blocks[i]->retention_ns = until_ns;
        }
        kvbi_note(&roll, i, held ? 0 : KVB_EINVAL);
    }
    kvbi_section_end(&section);
    if (kvbi_roll_unexplained(&roll))
        (void)kvbi_roll_not_held(&roll, roll.told_at, blocks[roll.told_at]);
    return kvbi_roll_end(&roll);
}

/* ---- What a block is ------------------------------------------------------------------------- */

int kvb_block_describe(struct kvb_manager *manager, const struct kvb_block *block,
                       struct kvb_block_info *info)
{
    int error = kvbi_enter(manager);
    if (error == 0)
        error = kvbi_refuse_out(manager, KVBI_CALL_BLOCK_DESCRIBE, "info", "kvb_block_info", info,
                                sizeof *info);
    if (error != 0)
        return error;
    const struct kvbi_pool *pool = kvbi_held_pool(manager, block);
    if (pool == NULL)
        return kvbi_refuse_not_held(manager, KVBI_CALL_BLOCK_DESCRIBE, "block", block);
    uint64_t deadline_ns;
    kvbi_lock(manager);
    struct kvbi_life life = kvbi_life_get(block);
    bool indexed =
        life.state == KVB_STATE_REGISTERED && kvbi_store_is_known_locked(&manager->store, block);
    *info = (struct kvb_block_info){
        .size = sizeof *info,
        .tier = pool->tier,
        .slot = kvbi_pool_slot(pool, block),
        .state = life.state,
        .token_count = life.tokens,
        .computed_count = life.computed,
        .step_count = life.steps,
        .holder_count =
            (uint32_t)kvbi_word_users(atomic_load_explicit(&block->word, memory_order_acquire)),
        .priority = kvbi_pool_band(block, kvbi_clock_now(&manager->clock), &deadline_ns),
        .indexed = indexed};
    kvbi_unlock(manager);
    return 0;
}

uint32_t kvb_block_slot(const struct kvb_manager *manager, const struct kvb_block *block)
{
    if (kvbi_enter(manager) != 0)
        return UINT32_MAX;
    return kvbi_store_slot_of(&manager->store, block);
}

int kvb_block_key(struct kvb_manager *manager, const struct kvb_block *block, void *key)
{
    int error = kvbi_enter(manager);
    if (error == 0 && key != NULL)
        memset(key, 0, kvbi_store_key_stride(&manager->store));
    if (error == 0)
        error = kvbi_refuse_null(manager, KVBI_CALL_BLOCK_KEY, "key", key);
    if (error != 0)
        return error;
    if (kvbi_held_pool(manager, block) == NULL)
        return kvbi_refuse_not_held(manager, KVBI_CALL_BLOCK_KEY, "block", block);
    kvbi_lock(manager);
    const void *known = kvbi_store_key_of_locked(&manager->store, block);
    if (known != NULL)
        memcpy(key, known, kvbi_store_key_stride(&manager->store));
    kvbi_unlock(manager);
    return known != NULL ? 0 : kvbi_refuse_key(manager, block, KVB_ENOENT);
}

int kvb_block_address(struct kvb_manager *manager, const struct kvb_block *block, uint32_t layer,
                      uint32_t part, void **address)
{
    int error = kvbi_enter(manager);
    if (address != NULL)
        *address = NULL;
    if (error == 0 &&
        (address == NULL || layer >= manager->layout.layers || part >= manager->layout.parts))
        error = kvbi_refuse_chunk(manager, layer, part, address);
    if (error != 0)
        return error;
    const struct kvbi_pool *pool = kvbi_held_pool(manager, block);
    if (pool == NULL)
        return kvbi_refuse_not_held(manager, KVBI_CALL_BLOCK_ADDRESS, "block", block);
    if (!pool->in_memory)
        return kvbi_refuse(manager, KVBI_CALL_BLOCK_ADDRESS, KVB_EUNSUPPORTED,
                           "block is in tier %s, which is kept in a file and has no addresses",
                           kvbi_tier_name(pool->tier));
    *address = kvbi_tier_chunk(&manager->tiers[pool->tier], kvbi_pool_slot(pool, block), layer,
                               part, &manager->layout);
    return 0;
}
