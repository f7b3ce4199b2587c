/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Token hashing: names from tokens.
 *
 * Owns       the two chains: the interoperable 64-bit sequence hash (docs/architecture.md, "Names")
 *            and the seeded 128-bit digest beside it that tells colliding contents apart.
 * Callers    api/ (kvb_hash_tokens, appends), store/ (matching by tokens).
 * Lock       none; pure functions of their arguments.
 */
#ifndef KVBI_BLOCK_TOKEN_HASH_H
#define KVBI_BLOCK_TOKEN_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <kvblock.h>

#include "base/hash.h"
#include "block/record.h"

struct kvbi_token_hash {
    const struct kvbi_hash_ops *ops;
    uint64_t digest_seed;
    uint32_t tokens_per_block;
};

/*
 * What a namespace contributes: the seed of its block hashes, and the digest that its chains begin
 * with.
 */
struct kvbi_namespace_name {
    uint64_t salt_hash;
    uint64_t digest[2];
};

void kvbi_namespace_name(const struct kvbi_token_hash *hash, const void *salt, size_t salt_bytes,
                         const void *adapter, size_t adapter_bytes,
                         struct kvbi_namespace_name *name);

/*
 * The name of one full block. parent NULL: the first of its sequence. A parent without digest gives
 * a name without.
 */
void kvbi_name_block(const struct kvbi_token_hash *hash, const struct kvbi_namespace_name *space,
                     const struct kvb_seq *parent, const uint32_t *tokens, struct kvb_seq *name);

/* The 64-bit hash under which a caller's key is indexed. */
uint64_t kvbi_key_hash(const struct kvbi_token_hash *hash, const void *key, size_t key_bytes);

/*
 * The two halves of a digest, for blocks under the caller's keys: of one block's tokens, and of
 * that behind its parent's.
 */
void kvbi_digest_tokens(const struct kvbi_token_hash *hash, const uint32_t *tokens,
                        uint64_t own[2]);
void kvbi_digest_chain(const struct kvbi_token_hash *hash, const uint64_t parent[2],
                       const uint64_t own[2], uint64_t digest[2]);

/*
 * Complete a full record's name from its tokens. False if it cannot be named: built-in hashes need
 * the parent's name, the caller's keys the key itself. A complete name given at init stands. Under
 * the caller's keys the digest depends on what the parent's key stands for, which is known at
 * registration: until then the record has the half of its tokens (record.h).
 */
bool kvbi_record_name(const struct kvbi_token_hash *hash, const struct kvbi_namespace_name *space,
                      const struct kvbi_record_shape *shape, struct kvbi_record *record);

static inline bool kvbi_digest_known(const uint64_t digest[2])
{
    return (digest[0] | digest[1]) != 0;
}

#endif
