/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names and finding: namespaces, hashing, match, lookup, invalidate.
 *
 * Callers    the public. Lock: the store's, a batch at a time; hashing happens before it is taken.
 */
#include <string.h>

#include "api/manager.h"
#include "base/struct_in.h"

/* ---- Names ------------------------------------------------------------------------------------------------------ */

int kvb_namespace_open(struct kvb_manager *manager, const void *salt, size_t salt_bytes,
                       const void *adapter, size_t adapter_bytes, uint32_t *namespace_id)
{
    int error = kvbi_enter(manager);
    if (namespace_id == NULL)
        return error != 0 ? error : KVB_EINVAL;
    *namespace_id = 0;
    if (error == 0 &&
        (salt_bytes > KVBI_NAMESPACE_STRING_MAX || adapter_bytes > KVBI_NAMESPACE_STRING_MAX ||
         (salt == NULL && salt_bytes > 0) || (adapter == NULL && adapter_bytes > 0)))
        error = KVB_EINVAL;
    if (error != 0)
        return error;
    struct kvbi_store *store = &manager->store;
    kvbi_lock(manager);
    error = kvbi_namespaces_open(&store->namespaces, &store->hash, salt, salt_bytes, adapter,
                                 adapter_bytes, namespace_id);
    kvbi_unlock(manager);
    return error;
}

int kvb_hash_tokens(struct kvb_manager *manager, uint32_t namespace_id,
                    const struct kvb_seq *parent, const uint32_t *tokens, size_t token_count,
                    struct kvb_seq *seqs, size_t capacity, size_t *count)
{
    int error = kvbi_enter(manager);
    if (count == NULL)
        return error != 0 ? error : KVB_EINVAL;
    *count = 0;
    if (error != 0 || (token_count > 0 && tokens == NULL))
        return error != 0 ? error : KVB_EINVAL;
    if (manager->store.index.key_bytes > 0)
        return KVB_EUNSUPPORTED;
    const struct kvbi_namespace_name *space = kvbi_space(manager, namespace_id);
    if (space == NULL)
        return KVB_ENOENT;
    uint32_t per_block = manager->store.hash.tokens_per_block;
    *count = token_count / per_block;
    if (*count > capacity)
        return KVB_ENOSPC;
    if (*count > 0 && seqs == NULL)
        return KVB_EINVAL;
    for (size_t i = 0; i < *count; i++)
        kvbi_name_block(&manager->store.hash, space, i > 0 ? &seqs[i - 1] : parent,
                        tokens + i * per_block, &seqs[i]);
    return 0;
}

/* ---- A query as a row of probes --------------------------------------------------------------------------------- */

struct cursor {
    struct kvb_manager *manager;
    struct kvb_query query;
    const struct kvbi_namespace_name *space;
    size_t count, done;
    struct kvb_seq last; /* name of the block before `done` */
    struct kvb_seq names[KVBI_LOCK_BATCH];
};

static int open_query(struct cursor *cursor, struct kvb_manager *manager,
                      const struct kvb_query *given, size_t capacity)
{
    struct kvb_query *query = &cursor->query;
    if (given == NULL || kvbi_struct_in(query, sizeof *query, sizeof *query, given) != 0 ||
        query->flags != 0 || query->reserved != 0)
        return KVB_EINVAL;
    if ((query->tokens == NULL && query->keys == NULL) ||
        (query->tokens == NULL && query->token_count > 0) ||
        (query->keys == NULL && query->key_count > 0))
        return KVB_EINVAL;
    const struct kvbi_store *store = &manager->store;
    if (query->keys == NULL && store->index.key_bytes > 0)
        return KVB_EUNSUPPORTED;
    size_t in_tokens =
        query->tokens == NULL ? SIZE_MAX : query->token_count / store->hash.tokens_per_block;
    size_t in_keys = query->keys == NULL ? SIZE_MAX : query->key_count;
    cursor->manager = manager;
    cursor->count = in_tokens < in_keys ? in_tokens : in_keys;
    if (cursor->count > capacity)
        cursor->count = capacity;
    cursor->done = 0;
    cursor->space = kvbi_space(manager, query->namespace_id);
    return cursor->space == NULL ? KVB_ENOENT : 0;
}

/* Names of the caller's keys: a tag each, and with tokens the digests that blocks registered behind one another have. */
static void name_keys(struct cursor *cursor, const struct kvbi_probe *probe)
{
    const struct kvbi_store *store = &cursor->manager->store;
    const uint64_t *before = cursor->done > 0 ? cursor->last.digest : cursor->space->digest;
    for (uint32_t i = 0; i < probe->count; i++) {
        struct kvb_seq *name = &cursor->names[i];
        uint64_t own[2];
        *name = (struct kvb_seq){
            .hash = kvbi_key_tag(&store->hash, probe->keys + (size_t)i * store->index.key_bytes,
                                 store->index.key_bytes)};
        if (probe->tokens == NULL)
            continue;
        kvbi_digest_tokens(&store->hash, probe->tokens + (size_t)i * store->hash.tokens_per_block,
                           own);
        kvbi_digest_chain(&store->hash, before, own, name->digest);
        before = name->digest;
    }
}

/* Names without digest, of which the tokens are there: completed. The run ends before a name that is not of its tokens. */
static void complete_names(struct cursor *cursor, struct kvbi_probe *probe)
{
    const struct kvbi_store *store = &cursor->manager->store;
    for (uint32_t i = 0; i < probe->count; i++) {
        struct kvb_seq *name = &cursor->names[i], computed;
        if (kvbi_digest_known(name->digest))
            continue;
        kvbi_name_block(&store->hash, cursor->space,
                        i > 0 ? &cursor->names[i - 1] : probe->name_before,
                        probe->tokens + (size_t)i * store->hash.tokens_per_block, &computed);
        if (computed.hash != name->hash)
            probe->count = i;
        else
            *name = computed;
    }
}

static void name_tokens(struct cursor *cursor, const struct kvbi_probe *probe)
{
    const struct kvbi_store *store = &cursor->manager->store;
    const struct kvb_seq *parent = probe->name_before;
    for (uint32_t i = 0; i < probe->count; i++) {
        kvbi_name_block(&store->hash, cursor->space, parent,
                        probe->tokens + (size_t)i * store->hash.tokens_per_block,
                        &cursor->names[i]);
        parent = &cursor->names[i];
    }
}

/* The next batch, hashed and with its buckets on the way into the cache. False: nothing is left. */
static bool next_probe(struct cursor *cursor, struct kvbi_probe *probe)
{
    const struct kvbi_store *store = &cursor->manager->store;
    size_t left = cursor->count - cursor->done;
    if (left == 0)
        return false;
    const unsigned char *keys = cursor->query.keys;
    *probe =
        (struct kvbi_probe){.names = cursor->names,
                            .namespace_id = cursor->query.namespace_id,
                            .count = left < KVBI_LOCK_BATCH ? (uint32_t)left : KVBI_LOCK_BATCH};
    if (cursor->query.tokens != NULL)
        probe->tokens = cursor->query.tokens + cursor->done * store->hash.tokens_per_block;
    if (cursor->done > 0)
        probe->name_before = &cursor->last;
    if (store->index.key_bytes > 0) {
        probe->keys = keys + cursor->done * store->key_stride;
        probe->before = cursor->done > 0 ? probe->keys - store->key_stride : NULL;
        name_keys(cursor, probe);
    } else if (keys != NULL) {
        memcpy(cursor->names, keys + cursor->done * store->key_stride,
               probe->count * sizeof *cursor->names);
        if (probe->tokens != NULL)
            complete_names(cursor, probe);
    } else {
        name_tokens(cursor, probe);
    }
    kvbi_store_prefetch(store, probe);
    return probe->count > 0;
}

/* The batch is done, all of it found. */
static void advance(struct cursor *cursor, const struct kvbi_probe *probe)
{
    cursor->last = cursor->names[probe->count - 1];
    cursor->done += probe->count;
}

/* ---- match and lookup ------------------------------------------------------------------------------------------- */

int kvb_match(struct kvb_manager *manager, const struct kvb_query *query, struct kvb_hit *hits,
              size_t capacity, size_t *count)
{
    struct cursor cursor;
    struct kvbi_probe probe;
    int error = kvbi_enter(manager);
    if (count == NULL)
        return error != 0 ? error : KVB_EINVAL;
    *count = 0;
    if (error == 0 && capacity > 0 && hits == NULL)
        error = KVB_EINVAL;
    if (error == 0)
        error = open_query(&cursor, manager, query, capacity);
    while (error == 0 && next_probe(&cursor, &probe)) {
        kvbi_lock(manager);
        uint32_t run = kvbi_store_match_locked(&manager->store, &probe, hits + *count, &error);
        kvbi_unlock(manager);
        *count += run;
        if (run < probe.count)
            break;
        advance(&cursor, &probe);
    }
    return error;
}

int kvb_lookup(struct kvb_manager *manager, const struct kvb_query *query,
               uint64_t tier_counts[KVB_TIER_COUNT])
{
    struct cursor cursor;
    struct kvbi_probe probe;
    int error = kvbi_enter(manager);
    if (tier_counts == NULL)
        return error != 0 ? error : KVB_EINVAL;
    memset(tier_counts, 0, KVB_TIER_COUNT * sizeof *tier_counts);
    if (error == 0)
        error = open_query(&cursor, manager, query, SIZE_MAX);
    while (error == 0 && next_probe(&cursor, &probe)) {
        kvbi_lock(manager);
        uint32_t run = kvbi_store_lookup_locked(&manager->store, &probe, tier_counts);
        kvbi_unlock(manager);
        if (run < probe.count)
            break;
        advance(&cursor, &probe);
    }
    return error;
}

/* ---- Forgetting ------------------------------------------------------------------------------------------------- */

static int invalidate_locked(struct kvb_manager *manager, const unsigned char *key)
{
    struct kvbi_store *store = &manager->store;
    struct kvb_seq name = {0};
    if (store->index.key_bytes > 0)
        name.hash = kvbi_key_tag(&store->hash, key, store->index.key_bytes);
    else
        memcpy(&name, key, sizeof name);
    kvbi_store_forget_key_locked(store, name.hash);
    uint32_t entry = kvbi_store_find_locked(store, name.hash, key);
    if (entry == KVBI_NONE)
        return KVB_ENOENT;
    const struct kvb_seq *indexed = &kvbi_index_at(&store->index, entry)->name;
    if (store->index.key_bytes == 0 && kvbi_digest_known(name.digest) &&
        (indexed->digest[0] != name.digest[0] || indexed->digest[1] != name.digest[1]))
        return KVB_ENOENT; /* other content under the same hash */
    kvbi_store_forget_locked(store, entry);
    return 0;
}

int kvb_invalidate(struct kvb_manager *manager, const void *keys, uint32_t count, int *results)
{
    int first = 0, error = kvbi_enter_array(manager, keys, count);
    uint32_t first_at = UINT32_MAX;
    if (error != 0)
        return error;
    struct kvbi_turn turn = {.manager = manager};
    for (uint32_t i = 0; i < count; i++) {
        kvbi_turn_next(&turn);
        const unsigned char *key = (const unsigned char *)keys + i * manager->store.key_stride;
        kvbi_report(results, i, invalidate_locked(manager, key), &first, &first_at);
    }
    kvbi_turn_end(&turn);
    return first;
}

int kvb_invalidate_namespace(struct kvb_manager *manager, uint32_t namespace_id, uint64_t *removed)
{
    uint64_t count = 0;
    uint32_t cursor = 0;
    int error = kvbi_enter(manager);
    if (removed != NULL)
        *removed = 0;
    if (error == 0 && kvbi_space(manager, namespace_id) == NULL)
        error = KVB_ENOENT;
    for (bool more = error == 0, first = true; more; first = false) {
        kvbi_lock(manager);
        if (first)
            kvbi_store_forget_namespace_locked(&manager->store, namespace_id);
        more = kvbi_store_sweep_locked(&manager->store, &cursor, &namespace_id, &count);
        kvbi_unlock(manager);
    }
    if (removed != NULL)
        *removed = count;
    return error;
}
