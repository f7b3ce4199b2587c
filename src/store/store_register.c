/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Publishing computed blocks: first copy, copy beside those of other tiers, duplicate, collision.
 *
 * Callers    api/ through store.h. Lock: the store's.
 * Rules      one content has one entry; one entry has at most one indexed copy a tier. A block
 *            whose hash stands for other content is never indexed, nor is a descendant while its
 *            parent's hash stands for other content: otherwise a match by tokens could walk from
 *            one chain into another. What was named before its name was forgotten is never indexed
 *            either (moments.h).
 */
#include <string.h>

#include "store/contents.h"
#include "store/store.h"

static bool same_tokens(const struct kvbi_store *store, const struct kvbi_entry *entry,
                        uint32_t record)
{
    if (entry->record == KVBI_NONE)
        return true; /* the caller compares digests */
    const struct kvbi_record_shape *shape = &store->records.shape;
    return memcmp(kvbi_record_tokens(shape, kvbi_store_record(store, entry->record)),
                  kvbi_record_tokens(shape, kvbi_store_record(store, record)),
                  (size_t)shape->tokens_per_block * sizeof(uint32_t)) == 0;
}

static bool same_parent(const struct kvbi_store *store, uint32_t id, struct kvbi_record *record)
{
    const struct kvbi_entry *entry = kvbi_index_at(&store->index, id);
    bool has_parent = record->flags & KVBI_RECORD_HAS_PARENT;
    if (has_parent != ((entry->flags & KVBI_ENTRY_HAS_PARENT) != 0))
        return false;
    if (!has_parent)
        return true;
    if (store->index.key_bytes > 0)
        return memcmp(kvbi_index_parent_key(&store->index, id),
                      kvbi_record_parent_key(&store->records.shape, record),
                      store->index.key_bytes) == 0;
    return entry->parent_hash == record->parent.hash;
}

enum sameness {
    SAME,
    OTHER,        /* other content under the same name */
    OLD_UNPROVEN, /* alike, but what came before the indexed one is not known */
    NEW_UNPROVEN  /* alike, but what came before the new one is not known */
};

static enum sameness compare_content(const struct kvbi_store *store, uint32_t id,
                                     uint32_t record_index)
{
    const struct kvbi_entry *entry = kvbi_index_at(&store->index, id);
    struct kvbi_record *record = kvbi_store_record(store, record_index);
    const uint64_t *old = kvbi_store_digest_locked(store, entry);
    bool old_known = kvbi_digest_known(old), new_known = kvbi_digest_known(record->name.digest);
    if (entry->namespace_id != record->namespace_id || !same_parent(store, id, record))
        return OTHER;
    /* neither tokens nor digest: nothing says that it is other content, or the same */
    if (entry->record == KVBI_NONE && !old_known)
        return OLD_UNPROVEN;
    if (!same_tokens(store, entry, record_index))
        return OTHER;
    if (old_known != new_known)
        return new_known ? OLD_UNPROVEN : NEW_UNPROVEN;
    return memcmp(old, record->name.digest, sizeof record->name.digest) == 0 ? SAME : OTHER;
}

/* The parent's hash stands for other content than the one this block was computed behind. */
static bool parent_is_other_content(struct kvbi_store *store, const struct kvbi_record *record)
{
    if (store->index.key_bytes > 0 || !(record->flags & KVBI_RECORD_HAS_PARENT) ||
        !kvbi_digest_known(record->parent.digest))
        return false;
    uint32_t parent = kvbi_store_find_locked(store, record->parent.hash, NULL);
    if (parent == KVBI_NONE)
        return false;
    const uint64_t *digest = kvbi_index_at(&store->index, parent)->name.digest;
    return memcmp(digest, record->parent.digest, sizeof record->parent.digest) != 0;
}

/*
 * The digest of a block under the caller's key: behind its namespace, or behind what its parent's
 * key stands for now.
 */
static void complete_keyed_name(struct kvbi_store *store, struct kvbi_record *record)
{
    const uint64_t *before = NULL;
    memset(record->name.digest, 0, sizeof record->name.digest);
    if (record->flags & KVBI_RECORD_HAS_PARENT) {
        uint32_t parent = kvbi_store_find_locked(
            store, record->parent.hash, kvbi_record_parent_key(&store->records.shape, record));
        if (parent != KVBI_NONE)
            before = kvbi_store_digest_locked(store, kvbi_index_at(&store->index, parent));
    } else {
        before = kvbi_namespaces_name(&store->namespaces, record->namespace_id)->digest;
    }
    if (before != NULL && kvbi_digest_known(before)) /* else the first match by tokens binds it */
        kvbi_digest_chain(&store->hash, before, record->parent.digest, record->name.digest);
}

static void set_registered(const struct kvbi_store *store, struct kvb_block *block)
{
    struct kvbi_move move = {.tokens_per_block = store->hash.tokens_per_block};
    int error = kvbi_life_move(block, KVBI_EDGE_REGISTER, &move, NULL);
    KVBI_ASSERT(error == 0);
    (void)error;
}

/*
 * The record of a fresh copy goes to its entry. Back if the entry has one that knows as much; one
 * of tokens alone gives way.
 */
static void hand_in_record(struct kvbi_store *store, struct kvbi_entry *entry, uint32_t fresh)
{
    uint32_t spare = entry->record;
    if (spare == KVBI_NONE || kvbi_record_names(kvbi_store_record(store, spare)) == NULL)
        entry->record = fresh;
    else
        spare = fresh;
    if (spare != KVBI_NONE)
        kvbi_records_unref(&store->records, spare);
}

/* The block becomes the indexed copy of its tier. */
static void attach(struct kvbi_store *store, struct kvbi_pool *pool, struct kvb_block *block,
                   uint32_t id, bool announce)
{
    struct kvbi_entry *entry = kvbi_index_at(&store->index, id);
    set_registered(store, block);
    hand_in_record(store, entry, block->record);
    block->record = KVBI_NONE;
    block->entry = id;
    entry->copies[pool->tier] = kvbi_pool_slot(pool, block);
    entry->ready |= (uint8_t)(1u << pool->tier);
    pool->registered++;
    if (announce)
        kvbi_store_emit_locked(store, KVB_EVENT_STORED, pool->tier, id);
}

static uint32_t new_entry(struct kvbi_store *store, uint32_t record_index)
{
    struct kvbi_record *record = kvbi_store_record(store, record_index);
    uint32_t id = kvbi_index_insert(&store->index, record->name.hash, kvbi_record_key(record));
    struct kvbi_entry *entry = kvbi_index_at(&store->index, id);
    entry->name = record->name;
    entry->namespace_id = record->namespace_id;
    if (record->flags & KVBI_RECORD_HAS_PARENT) {
        entry->flags = KVBI_ENTRY_HAS_PARENT;
        entry->parent_hash = record->parent.hash;
        if (store->index.key_bytes > 0)
            memcpy(kvbi_index_parent_key(&store->index, id),
                   kvbi_record_parent_key(&store->records.shape, record), store->index.key_bytes);
    }
    return id;
}

/*
 * Nobody uses or reads the old copy: the fresh one, which is in use, takes its place. Nothing is
 * announced.
 */
static void take_over(struct kvbi_store *store, struct kvbi_pool *pool, struct kvb_block *old,
                      struct kvb_block *block)
{
    uint32_t id = old->entry;
    if (block->priority == KVB_PRIORITY_DEFAULT && block->retention_ns == 0) {
        block->priority = old->priority;
        block->retention_ns = old->retention_ns;
    }
    attach(store, pool, block, id, false);
    kvbi_store_drop_offer_locked(store, pool, old);
    old->entry = KVBI_NONE;
    /* its users stay 0, so that no weak handle upgrades meanwhile */
    kvbi_pool_take_out_of_order(pool, old);
    kvbi_store_free_locked(store, pool, old);
}

/*
 * The same content is indexed in this tier already, ready or on its way, or what is indexed cannot
 * be told from it.
 */
static int register_duplicate(struct kvbi_store *store, struct kvbi_pool *pool,
                              struct kvb_block **block, uint32_t id, bool share, uint64_t now_ns)
{
    const struct kvbi_entry *entry = kvbi_index_at(&store->index, id);
    struct kvb_block *old = &pool->slots[entry->copies[pool->tier]];
    bool ready = entry->ready & 1u << pool->tier;
    pool->duplicates++;
    if (ready && share) {
        int error = kvbi_store_ref_locked(store, pool, old);
        if (error != 0)
            return error;
        kvbi_store_unref_locked(store, pool, *block, now_ns);
        *block = old;
    } else if (ready && old->place == KVBI_PLACE_PARKED && old->holds == 0) {
        take_over(store, pool, old, *block);
    } else {
        set_registered(store, *block); /* unindexed: keeps its own record */
    }
    return 0;
}

/*
 * Named, and perhaps computed with what a server has given up since: it lives, but is found by
 * nobody.
 */
static bool is_stale(const struct kvbi_store *store, const struct kvbi_record *record)
{
    uint64_t moment = kvbi_record_moment(record);
    return kvbi_moments_passed(&store->moments, moment) &&
           kvbi_moments_stale(&store->moments, moment,
                              store->namespaces.entries[record->namespace_id].forgotten,
                              record->name.hash);
}

int kvbi_store_register_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                               struct kvb_block **block, bool share, uint64_t now_ns)
{
    kvbi_lock_assert_held(&store->lock);
    if (!kvbi_life_allows(*block, KVBI_EDGE_REGISTER))
        return KVB_ESTATE;
    uint32_t record_index = (*block)->record;
    struct kvbi_record *record = kvbi_store_record(store, record_index);
    if (is_stale(store, record)) {
        set_registered(store, *block);
        pool->stale++;
        return 0;
    }
    if (store->index.key_bytes > 0)
        complete_keyed_name(store, record);
    uint32_t id = kvbi_index_find(&store->index, record->name.hash, kvbi_record_key(record));
    bool dead =
        id != KVBI_NONE && !kvbi_index_alive(&store->index, kvbi_index_at(&store->index, id));
    enum sameness sameness =
        id == KVBI_NONE || dead ? SAME : compare_content(store, id, record_index);
    if (sameness == OTHER || parent_is_other_content(store, record)) {
        pool->collisions++;
        return KVB_ECOLLISION;
    }
    if (sameness == NEW_UNPROVEN) {
        /* lives, but is not found: nothing says that it is what the index promises */
        set_registered(store, *block);
        pool->duplicates++;
        return 0;
    }
    if (dead || sameness == OLD_UNPROVEN) {
        kvbi_store_forget_locked(store, id);
        id = KVBI_NONE;
    }
    if (id == KVBI_NONE)
        id = new_entry(store, record_index);
    if (kvbi_index_at(&store->index, id)->copies[pool->tier] != KVBI_NONE)
        return register_duplicate(store, pool, block, id, share, now_ns);
    attach(store, pool, *block, id, true);
    return 0;
}
