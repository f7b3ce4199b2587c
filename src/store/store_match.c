/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding the leading run of a sequence, a batch at a time.
 *
 * Callers    api/ through store.h. Lock: the store's.
 * Why        at a million blocks a probe is three cache misses: bucket, entry, slot. Each is asked
 *            for over the whole batch before the first is needed, so that they overlap.
 */
#include <string.h>

#include "store/contents.h"
#include "store/store.h"

uint32_t kvbi_store_find_locked(struct kvbi_store *store, uint64_t hash, const void *key)
{
    kvbi_lock_assert_held(&store->lock);
    uint32_t id = kvbi_index_find(&store->index, hash, key);
    if (id != KVBI_NONE && !kvbi_index_alive(&store->index, kvbi_index_at(&store->index, id)))
        return KVBI_NONE;
    return id;
}

void kvbi_store_warm_probe(const struct kvbi_store *store, const struct kvbi_probe *probe)
{
    for (uint32_t i = 0; i < probe->count; i++)
        kvbi_index_warm_bucket(&store->index, probe->names[i].hash);
}

static const void *key_at(const struct kvbi_store *store, const struct kvbi_probe *probe,
                          uint32_t i)
{
    return probe->keys != NULL ? probe->keys + (size_t)i * store->index.key_bytes : NULL;
}

static bool parent_matches(const struct kvbi_store *store, const struct kvbi_probe *probe,
                           uint32_t i, uint32_t id)
{
    const struct kvbi_entry *entry = kvbi_index_at(&store->index, id);
    bool has_parent = entry->flags & KVBI_ENTRY_HAS_PARENT;
    if (probe->keys != NULL) {
        const void *before = i > 0 ? key_at(store, probe, i - 1) : probe->before;
        return has_parent == (before != NULL) &&
               (before == NULL || memcmp(before, kvbi_index_parent_key(&store->index, id),
                                         store->index.key_bytes) == 0);
    }
    const struct kvb_seq *before = i > 0 ? &probe->names[i - 1] : probe->name_before;
    return has_parent == (before != NULL) && (before == NULL || before->hash == entry->parent_hash);
}

/* The names that memory has of an entry. NULL: none. */
static struct kvbi_record *names_of(const struct kvbi_store *store, const struct kvbi_entry *entry)
{
    return entry->record == KVBI_NONE ? NULL
                                      : kvbi_record_names(kvbi_store_record(store, entry->record));
}

const uint64_t *kvbi_store_digest_locked(const struct kvbi_store *store,
                                         const struct kvbi_entry *entry)
{
    kvbi_lock_assert_held(&store->lock);
    const struct kvbi_record *names =
        kvbi_digest_known(entry->name.digest) ? NULL : names_of(store, entry);
    return names != NULL ? names->name.digest : entry->name.digest;
}

static bool same_digest(const uint64_t a[2], const uint64_t b[2])
{
    return a[0] == b[0] && a[1] == b[1];
}

static bool same_tokens(const struct kvbi_store *store, const struct kvbi_probe *probe, uint32_t i,
                        const struct kvbi_entry *entry)
{
    uint32_t n = store->hash.tokens_per_block;
    return memcmp(
               kvbi_record_tokens(&store->records.shape, kvbi_store_record(store, entry->record)),
               probe->tokens + (size_t)i * n, n * sizeof *probe->tokens) == 0;
}

/*
 * A block under the caller's key that was registered before its parent. Its parent's key is that of
 * a content that the run has found, tokens compared: that is taken for what it was computed behind,
 * once and for all.
 */
static bool bind(struct kvbi_store *store, const struct kvbi_probe *probe, uint32_t i,
                 const struct kvbi_entry *entry)
{
    struct kvbi_record *names = names_of(store, entry);
    if (probe->keys == NULL || names == NULL || !same_tokens(store, probe, i, entry))
        return false;
    memcpy(names->name.digest, probe->names[i].digest, sizeof names->name.digest);
    return true;
}

/* With tokens everything is compared; without, the names are trusted as far as they go. */
static bool content_matches(struct kvbi_store *store, const struct kvbi_probe *probe, uint32_t i,
                            uint32_t id)
{
    const struct kvbi_entry *entry = kvbi_index_at(&store->index, id);
    const uint64_t *digest = probe->names[i].digest;
    if (probe->tokens == NULL)
        return same_digest(digest, entry->name.digest) || !kvbi_digest_known(digest);
    if (!kvbi_digest_known(digest) || entry->namespace_id != probe->namespace_id ||
        !parent_matches(store, probe, i, id))
        return false;
    const uint64_t *known = kvbi_store_digest_locked(store, entry);
    if (!kvbi_digest_known(known))
        return bind(store, probe, i, entry);
    if (!same_digest(digest, known))
        return false;
    /* no copy in memory: the digest stands for the tokens */
    return entry->record == KVBI_NONE || same_tokens(store, probe, i, entry);
}

/*
 * Tiers that have the content and are in service, and where only some of their files are, in one of
 * those.
 */
static unsigned tiers_of(const struct kvbi_store *store, const struct kvbi_entry *entry)
{
    unsigned tiers = entry->ready & store->serving;
    for (unsigned doubtful = tiers & store->impaired; doubtful != 0; doubtful &= doubtful - 1) {
        unsigned tier = (unsigned)__builtin_ctz(doubtful);
        if (!kvbi_pool_serves(&store->pools[tier], entry->copies[tier]))
            tiers &= ~(1u << tier);
    }
    return tiers;
}

static uint32_t fastest_tier(const struct kvbi_store *store, const struct kvbi_entry *entry)
{
    return (uint32_t)__builtin_ctz(tiers_of(store, entry));
}

/* The leading run as entries. ref: their slots will be written. */
static uint32_t probe_run(struct kvbi_store *store, const struct kvbi_probe *probe,
                          uint32_t ids[KVBI_LOCK_BATCH], bool ref)
{
    uint32_t found = 0, run = 0;
    for (uint32_t i = 0; i < probe->count; i++)
        kvbi_index_warm_entry(&store->index, probe->names[i].hash);
    for (; found < probe->count; found++) {
        uint32_t id =
            kvbi_store_find_locked(store, probe->names[found].hash, key_at(store, probe, found));
        if (id == KVBI_NONE || tiers_of(store, kvbi_index_at(&store->index, id)) == 0)
            break;
        const struct kvbi_entry *entry = kvbi_index_at(&store->index, id);
        uint32_t tier = fastest_tier(store, entry);
        if (ref)
            __builtin_prefetch(&store->pools[tier].slots[entry->copies[tier]], 1);
        if (probe->tokens != NULL && entry->record != KVBI_NONE)
            __builtin_prefetch(
                kvbi_record_tokens(&store->records.shape, kvbi_store_record(store, entry->record)));
        ids[found] = id;
    }
    while (run < found && content_matches(store, probe, run, ids[run]))
        run++;
    return run;
}

/*
 * A content that came up from a disk has no tokens; who has just proved to know them brings them
 * along, and nothing else.
 */
static void adopt_tokens(struct kvbi_store *store, const struct kvbi_probe *probe, uint32_t i,
                         uint32_t id)
{
    struct kvbi_entry *entry = kvbi_index_at(&store->index, id);
    bool in_memory = false;
    for (unsigned tier = 0; tier < KVB_TIER_COUNT; tier++)
        in_memory |= (entry->ready & 1u << tier) && store->pools[tier].in_memory;
    if (entry->record != KVBI_NONE || !in_memory)
        return;
    uint32_t n = store->hash.tokens_per_block;
    entry->record = kvbi_records_take(&store->records);
    memcpy(kvbi_record_tokens(&store->records.shape, kvbi_store_record(store, entry->record)),
           probe->tokens + (size_t)i * n, n * sizeof *probe->tokens);
}

uint32_t kvbi_store_match_locked(struct kvbi_store *store, const struct kvbi_probe *probe,
                                 struct kvb_hit *hits, int *error)
{
    kvbi_lock_assert_held(&store->lock);
    uint32_t ids[KVBI_LOCK_BATCH];
    if (atomic_load(&store->closing)) {
        *error = KVB_ESTATE;
        return 0;
    }
    uint32_t run = probe_run(store, probe, ids, true);
    for (uint32_t i = 0; i < run; i++) {
        const struct kvbi_entry *entry = kvbi_index_at(&store->index, ids[i]);
        uint32_t tier = fastest_tier(store, entry);
        struct kvbi_policy *policy = store->pools[tier].policy;
        hits[i] = (struct kvb_hit){.block = &store->pools[tier].slots[entry->copies[tier]],
                                   .tier = tier,
                                   .slot = entry->copies[tier]};
        policy->ops->warm(policy, hits[i].slot);
    }
    if (probe->tokens != NULL)
        for (uint32_t i = 0; i < run; i++)
            adopt_tokens(store, probe, i, ids[i]);
    for (uint32_t i = 0; i < run; i++) {
        struct kvbi_pool *pool = &store->pools[hits[i].tier];
        *error = kvbi_store_ref_locked(store, pool, hits[i].block);
        if (*error != 0)
            return i;
        pool->hits++;
        pool->files[kvbi_pool_file(pool, hits[i].slot)].hits++;
    }
    return run;
}

uint32_t kvbi_store_lookup_locked(struct kvbi_store *store, const struct kvbi_probe *probe,
                                  uint64_t tier_counts[KVB_TIER_COUNT])
{
    kvbi_lock_assert_held(&store->lock);
    uint32_t ids[KVBI_LOCK_BATCH];
    uint32_t run = probe_run(store, probe, ids, false);
    for (uint32_t i = 0; i < run; i++)
        tier_counts[fastest_tier(store, kvbi_index_at(&store->index, ids[i]))]++;
    return run;
}
