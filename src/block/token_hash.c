/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The formulas. Source of the 64-bit chain: NVIDIA Dynamo's KV router (little-endian u32 tokens,
 * XXH3-64, seed 1337). The digest chain is ours: digest[i] = XXH3-128(digest[i-1] ||
 * XXH3-128(tokens[i])), both seeded, beginning with a digest of salt and adapter name. It needs no
 * resident parent and survives the parent's eviction and return.
 */
#include "block/token_hash.h"

#include <string.h>

#define CHAIN_SEED UINT64_C(1337)

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "tokens and chains are hashed as little-endian bytes in place");

/* Zero means "not known" in struct kvb_seq, so no digest may come out as zero. */
static void store_digest(struct kvbi_hash128 value, uint64_t digest[2])
{
    digest[0] = value.low;
    digest[1] = value.high;
    if (!kvbi_digest_known(digest))
        digest[0] = 1;
}

void kvbi_namespace_name(const struct kvbi_token_hash *hash, const void *salt, size_t salt_bytes,
                         const void *adapter, size_t adapter_bytes,
                         struct kvbi_namespace_name *name)
{
    name->salt_hash = CHAIN_SEED;
    if (adapter_bytes > 0)
        name->salt_hash += hash->ops->hash64(adapter, adapter_bytes, 0);
    if (salt_bytes > 0)
        name->salt_hash += hash->ops->hash64(salt, salt_bytes, 1);

    struct kvbi_hash128 salt_digest = hash->ops->hash128(salt, salt_bytes, hash->digest_seed);
    struct kvbi_hash128 adapter_digest =
        hash->ops->hash128(adapter, adapter_bytes, ~hash->digest_seed);
    uint64_t both[4] = {salt_digest.low, salt_digest.high, adapter_digest.low, adapter_digest.high};
    store_digest(hash->ops->hash128(both, sizeof both, hash->digest_seed), name->digest);
}

void kvbi_digest_tokens(const struct kvbi_token_hash *hash, const uint32_t *tokens, uint64_t own[2])
{
    struct kvbi_hash128 value = hash->ops->hash128(
        tokens, (size_t)hash->tokens_per_block * sizeof *tokens, hash->digest_seed);
    own[0] = value.low;
    own[1] = value.high;
}

void kvbi_digest_chain(const struct kvbi_token_hash *hash, const uint64_t parent[2],
                       const uint64_t own[2], uint64_t digest[2])
{
    uint64_t link[4] = {parent[0], parent[1], own[0], own[1]};
    store_digest(hash->ops->hash128(link, sizeof link, hash->digest_seed), digest);
}

static void chain_digest(const struct kvbi_token_hash *hash, const uint64_t parent[2],
                         const uint32_t *tokens, uint64_t digest[2])
{
    /* Not by way of the two above: their halves in memory cost a third of the whole name. */
    struct kvbi_hash128 own = hash->ops->hash128(
        tokens, (size_t)hash->tokens_per_block * sizeof *tokens, hash->digest_seed);
    uint64_t link[4] = {parent[0], parent[1], own.low, own.high};
    store_digest(hash->ops->hash128(link, sizeof link, hash->digest_seed), digest);
}

void kvbi_name_block(const struct kvbi_token_hash *hash, const struct kvbi_namespace_name *space,
                     const struct kvb_seq *parent, const uint32_t *tokens, struct kvb_seq *name)
{
    uint64_t block = hash->ops->hash64(tokens, (size_t)hash->tokens_per_block * sizeof *tokens,
                                       space->salt_hash);
    struct kvb_seq result = {.hash = block};
    if (parent == NULL) {
        chain_digest(hash, space->digest, tokens, result.digest);
    } else {
        uint64_t link[2] = {parent->hash, block};
        result.hash = hash->ops->hash64(link, sizeof link, CHAIN_SEED);
        if (kvbi_digest_known(parent->digest))
            chain_digest(hash, parent->digest, tokens, result.digest);
    }
    *name = result;
}

uint64_t kvbi_key_hash(const struct kvbi_token_hash *hash, const void *key, size_t key_bytes)
{
    return hash->ops->hash64(key, key_bytes, hash->digest_seed);
}

bool kvbi_record_name(const struct kvbi_token_hash *hash, const struct kvbi_namespace_name *space,
                      const struct kvbi_record_shape *shape, struct kvbi_record *record)
{
    const uint32_t *tokens = kvbi_record_tokens(shape, record);
    if (shape->key_bytes > 0) {
        if (!(record->flags & KVBI_RECORD_GIVEN))
            return false;
        record->name.hash = kvbi_key_hash(hash, kvbi_record_key(record), shape->key_bytes);
        kvbi_digest_tokens(hash, tokens, record->parent.digest);
    } else {
        const struct kvb_seq *parent =
            (record->flags & KVBI_RECORD_HAS_PARENT) ? &record->parent : NULL;
        if ((record->flags & KVBI_RECORD_LATER) && parent == NULL)
            return false;
        /*
         * A given name without digest would make the block unfindable by tokens, so only a complete
         * one saves the work.
         */
        if (!(record->flags & KVBI_RECORD_GIVEN) || !kvbi_digest_known(record->name.digest))
            kvbi_name_block(hash, space, parent, tokens, &record->name);
    }
    record->flags |= KVBI_RECORD_NAMED;
    return true;
}
