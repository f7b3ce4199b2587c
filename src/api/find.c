/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names and finding: namespaces, hashing, match, lookup, invalidate.
 *
 * Callers    the public. Lock: the store's, a batch at a time; hashing happens before it is taken.
 */
#include <string.h>

#include "api/manager.h"
#include "base/struct_in.h"
#include "store/contents.h"

/* ---- Names ----------------------------------------------------------------------------------- */

static int check_string(struct kvb_manager *manager, const char *name, const void *string,
                        size_t bytes)
{
    if (bytes > KVBI_NAMESPACE_STRING_MAX)
        return kvbi_refuse(manager, KVBI_CALL_NAMESPACE_OPEN, KVB_EINVAL,
                           "%s_bytes is %zu, must be 0..%d", name, bytes,
                           KVBI_NAMESPACE_STRING_MAX);
    if (string == NULL && bytes > 0)
        return kvbi_refuse(manager, KVBI_CALL_NAMESPACE_OPEN, KVB_EINVAL,
                           "%s is NULL, %s_bytes is %zu", name, name, bytes);
    return 0;
}

static int refuse_namespace(struct kvb_manager *manager, enum kvbi_call call, const char *name,
                            uint32_t id)
{
    return kvbi_refuse(manager, call, KVB_ENOENT, "%s is %u, must be 0..%u (kvb_namespace_open)",
                       name, id, kvbi_spaces_open(manager) - 1);
}

int kvb_namespace_open(struct kvb_manager *manager, const void *salt, size_t salt_bytes,
                       const void *adapter, size_t adapter_bytes, uint32_t *namespace_id)
{
    int error = kvbi_enter(manager);
    if (namespace_id != NULL)
        *namespace_id = 0;
    if (error == 0)
        error = kvbi_refuse_null(manager, KVBI_CALL_NAMESPACE_OPEN, "namespace_id", namespace_id);
    if (error == 0)
        error = check_string(manager, "salt", salt, salt_bytes);
    if (error == 0)
        error = check_string(manager, "adapter", adapter, adapter_bytes);
    if (error != 0)
        return error;
    kvbi_lock(manager);
    error = kvbi_store_open_namespace_locked(&manager->store, salt, salt_bytes, adapter,
                                             adapter_bytes, namespace_id);
    kvbi_unlock(manager);
    if (error == KVB_ENOSPC)
        return kvbi_refuse(manager, KVBI_CALL_NAMESPACE_OPEN, error,
                           "all %u namespaces are open (namespace_capacity)",
                           kvbi_store_namespace_capacity(&manager->store));
    return error == 0
               ? 0
               : kvbi_refuse(manager, KVBI_CALL_NAMESPACE_OPEN, error,
                             "the allocator gave no memory for %zu bytes of salt and adapter",
                             salt_bytes + adapter_bytes);
}

int kvb_hash_tokens(struct kvb_manager *manager, uint32_t namespace_id,
                    const struct kvb_seq *parent, const uint32_t *tokens, size_t token_count,
                    struct kvb_seq *seqs, size_t capacity, size_t *count)
{
    int error = kvbi_enter(manager);
    if (count != NULL)
        *count = 0;
    if (error == 0)
        error = kvbi_refuse_null(manager, KVBI_CALL_HASH_TOKENS, "count", count);
    if (error != 0)
        return error;
    if (token_count > 0 && tokens == NULL)
        return kvbi_refuse(manager, KVBI_CALL_HASH_TOKENS, KVB_EINVAL,
                           "tokens is NULL, token_count is %zu", token_count);
    if (kvbi_store_key_bytes(&manager->store) > 0)
        return kvbi_refuse(manager, KVBI_CALL_HASH_TOKENS, KVB_EUNSUPPORTED,
                           "the manager has the caller's keys (key_bytes %u), not built-in hashes",
                           kvbi_store_key_bytes(&manager->store));
    const struct kvbi_namespace_name *space = kvbi_space(manager, namespace_id);
    if (space == NULL)
        return refuse_namespace(manager, KVBI_CALL_HASH_TOKENS, "namespace_id", namespace_id);
    uint32_t per_block = kvbi_store_tokens_per_block(&manager->store);
    *count = token_count / per_block;
    if (*count > capacity)
        return kvbi_refuse(manager, KVBI_CALL_HASH_TOKENS, KVB_ENOSPC,
                           "capacity is %zu, must be at least %zu for %zu tokens", capacity, *count,
                           token_count);
    if (*count > 0 && seqs == NULL)
        return kvbi_refuse_null(manager, KVBI_CALL_HASH_TOKENS, "seqs", seqs);
    for (size_t i = 0; i < *count; i++)
        kvbi_name_block(kvbi_store_hash(&manager->store), space, i > 0 ? &seqs[i - 1] : parent,
                        tokens + i * per_block, &seqs[i]);
    return 0;
}

/* ---- A query as a row of probes -------------------------------------------------------------- */

struct cursor {
    struct kvb_manager *manager;
    struct kvb_query query;
    const struct kvbi_namespace_name *space;
    size_t count, done;
    struct kvb_seq last; /* name of the block before `done` */
    struct kvb_seq names[KVBI_LOCK_BATCH];
};

/* Takes the query in, or says what is wrong with its fields. */
static int read_query(struct kvb_manager *manager, enum kvbi_call call, struct kvb_query *query,
                      const struct kvb_query *given)
{
    struct kvbi_why why;
    if (kvbi_struct_in(query, sizeof *query, sizeof *query, given) != 0) {
        kvbi_struct_why(&why, "query", "kvb_query", given, given == NULL ? 0 : given->size,
                        sizeof *query);
        return kvbi_refuse(manager, call, KVB_EINVAL, "%s", why.text);
    }
    if (query->flags != 0)
        return kvbi_refuse(manager, call, KVB_EINVAL, "query.flags is 0x%x, must be 0",
                           query->flags);
    if (query->reserved != 0)
        return kvbi_refuse(manager, call, KVB_EINVAL, "query.reserved is %u, must be 0",
                           query->reserved);
    if (query->tokens == NULL && query->token_count > 0)
        return kvbi_refuse(manager, call, KVB_EINVAL,
                           "query.tokens is NULL, query.token_count is %zu", query->token_count);
    if (query->keys == NULL && query->key_count > 0)
        return kvbi_refuse(manager, call, KVB_EINVAL, "query.keys is NULL, query.key_count is %zu",
                           query->key_count);
    if (query->tokens == NULL && query->keys == NULL)
        return kvbi_refuse(manager, call, KVB_EINVAL,
                           "query.tokens and query.keys are NULL, must be one of them at least");
    if (query->keys == NULL && kvbi_store_key_bytes(&manager->store) > 0)
        return kvbi_refuse(
            manager, call, KVB_EUNSUPPORTED,
            "query.keys is NULL, must be given: the manager has the caller's keys (key_bytes %u)",
            kvbi_store_key_bytes(&manager->store));
    return 0;
}

static int open_query(struct cursor *cursor, struct kvb_manager *manager, enum kvbi_call call,
                      const struct kvb_query *given, size_t capacity)
{
    struct kvb_query *query = &cursor->query;
    int error = read_query(manager, call, query, given);
    if (error != 0)
        return error;
    const struct kvbi_store *store = &manager->store;
    size_t in_tokens =
        query->tokens == NULL ? SIZE_MAX : query->token_count / kvbi_store_tokens_per_block(store);
    size_t in_keys = query->keys == NULL ? SIZE_MAX : query->key_count;
    cursor->manager = manager;
    cursor->count = in_tokens < in_keys ? in_tokens : in_keys;
    if (cursor->count > capacity)
        cursor->count = capacity;
    cursor->done = 0;
    cursor->space = kvbi_space(manager, query->namespace_id);
    return cursor->space != NULL
               ? 0
               : refuse_namespace(manager, call, "query.namespace_id", query->namespace_id);
}

/*
 * Names of the caller's keys: a hash each, and with tokens the digests that blocks registered
 * behind one another have.
 */
static void name_keys(struct cursor *cursor, const struct kvbi_probe *probe)
{
    const struct kvbi_store *store = &cursor->manager->store;
    const uint64_t *before = cursor->done > 0 ? cursor->last.digest : cursor->space->digest;
    for (uint32_t i = 0; i < probe->count; i++) {
        struct kvb_seq *name = &cursor->names[i];
        uint64_t own[2];
        *name = (struct kvb_seq){
            .hash = kvbi_key_hash(kvbi_store_hash(store),
                                  probe->keys + (size_t)i * kvbi_store_key_bytes(store),
                                  kvbi_store_key_bytes(store))};
        if (probe->tokens == NULL)
            continue;
        kvbi_digest_tokens(kvbi_store_hash(store),
                           probe->tokens + (size_t)i * kvbi_store_tokens_per_block(store), own);
        kvbi_digest_chain(kvbi_store_hash(store), before, own, name->digest);
        before = name->digest;
    }
}

/*
 * Names without digest, of which the tokens are there: completed. The run ends before a name that
 * is not of its tokens.
 */
static void complete_names(struct cursor *cursor, struct kvbi_probe *probe)
{
    const struct kvbi_store *store = &cursor->manager->store;
    for (uint32_t i = 0; i < probe->count; i++) {
        struct kvb_seq *name = &cursor->names[i], computed;
        if (kvbi_digest_known(name->digest))
            continue;
        kvbi_name_block(kvbi_store_hash(store), cursor->space,
                        i > 0 ? &cursor->names[i - 1] : probe->name_before,
                        probe->tokens + (size_t)i * kvbi_store_tokens_per_block(store), &computed);
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
        kvbi_name_block(kvbi_store_hash(store), cursor->space, parent,
                        probe->tokens + (size_t)i * kvbi_store_tokens_per_block(store),
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
        probe->tokens = cursor->query.tokens + cursor->done * kvbi_store_tokens_per_block(store);
    if (cursor->done > 0)
        probe->name_before = &cursor->last;
    if (kvbi_store_key_bytes(store) > 0) {
        probe->keys = keys + cursor->done * kvbi_store_key_stride(store);
        probe->before = cursor->done > 0 ? probe->keys - kvbi_store_key_stride(store) : NULL;
        name_keys(cursor, probe);
    } else if (keys != NULL) {
        memcpy(cursor->names, keys + cursor->done * kvbi_store_key_stride(store),
               probe->count * sizeof *cursor->names);
        if (probe->tokens != NULL)
            complete_names(cursor, probe);
    } else {
        name_tokens(cursor, probe);
    }
    kvbi_store_warm_probe(store, probe);
    return probe->count > 0;
}

/* The batch is done, all of it found. */
static void advance(struct cursor *cursor, const struct kvbi_probe *probe)
{
    cursor->last = cursor->names[probe->count - 1];
    cursor->done += probe->count;
}

/* ---- match and lookup ------------------------------------------------------------------------ */

int kvb_match(struct kvb_manager *manager, const struct kvb_query *query, struct kvb_hit *hits,
              size_t capacity, size_t *count)
{
    struct cursor cursor;
    struct kvbi_probe probe;
    int error = kvbi_enter(manager);
    if (count != NULL)
        *count = 0;
    if (error == 0)
        error = kvbi_refuse_null(manager, KVBI_CALL_MATCH, "count", count);
    if (error == 0 && capacity > 0 && hits == NULL)
        error = kvbi_refuse(manager, KVBI_CALL_MATCH, KVB_EINVAL, "hits is NULL, capacity is %zu",
                            capacity);
    if (error == 0)
        error = open_query(&cursor, manager, KVBI_CALL_MATCH, query, capacity);
    if (error != 0)
        return error;
    while (error == 0 && next_probe(&cursor, &probe)) {
        kvbi_lock(manager);
        uint32_t run = kvbi_store_match_locked(&manager->store, &probe, hits + *count, &error);
        kvbi_unlock(manager);
        *count += run;
        if (run < probe.count)
            break;
        advance(&cursor, &probe);
    }
    if (error == KVB_ESTATE)
        return kvbi_refuse(manager, KVBI_CALL_MATCH, error, KVBI_CLOSING);
    return error == 0
               ? 0
               : kvbi_refuse(manager, KVBI_CALL_MATCH, error,
                             "block %zu of the run has all the %llu handles that it can have",
                             *count, (unsigned long long)KVBI_USERS_MAX);
}

int kvb_lookup(struct kvb_manager *manager, const struct kvb_query *query,
               uint64_t tier_counts[KVB_TIER_COUNT])
{
    struct cursor cursor;
    struct kvbi_probe probe;
    int error = kvbi_enter(manager);
    if (tier_counts != NULL)
        memset(tier_counts, 0, KVB_TIER_COUNT * sizeof *tier_counts);
    if (error == 0)
        error = kvbi_refuse_null(manager, KVBI_CALL_LOOKUP, "tier_counts", tier_counts);
    if (error == 0)
        error = open_query(&cursor, manager, KVBI_CALL_LOOKUP, query, SIZE_MAX);
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

/* ---- Forgetting ------------------------------------------------------------------------------ */

int kvb_invalidate(struct kvb_manager *manager, const void *keys, uint32_t count, int *results)
{
    struct kvbi_roll roll;
    int error = kvbi_enter_array(manager, KVBI_CALL_INVALIDATE, "keys", keys, count);
    if (error != 0)
        return error;
    kvbi_roll_begin(&roll, manager, KVBI_CALL_INVALIDATE, "keys", count, results);
    struct kvbi_section section = {.manager = manager};
    for (uint32_t i = 0; i < count; i++) {
        kvbi_section_next(&section);
        const unsigned char *key =
            (const unsigned char *)keys + i * kvbi_store_key_stride(&manager->store);
        kvbi_note(&roll, i, kvbi_store_invalidate_locked(&manager->store, key));
    }
    kvbi_section_end(&section);
    if (kvbi_roll_unexplained(&roll))
        (void)kvbi_roll_why(&roll, roll.told_at, roll.told, NULL, " is not in the index");
    return kvbi_roll_end(&roll);
}

int kvb_invalidate_namespace(struct kvb_manager *manager, uint32_t namespace_id, uint64_t *removed)
{
    uint64_t count = 0;
    uint32_t cursor = 0;
    int error = kvbi_enter(manager);
    if (removed != NULL)
        *removed = 0;
    if (error == 0 && kvbi_space(manager, namespace_id) == NULL)
        error =
            refuse_namespace(manager, KVBI_CALL_INVALIDATE_NAMESPACE, "namespace_id", namespace_id);
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
