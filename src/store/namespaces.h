/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Namespaces: (salt, adapter name) pairs and the small ids that stand for them.
 *
 * Owns       copies of the strings, and what each namespace contributes to hashes.
 * Callers    api/ opens; everybody reads names by id.
 * Invariants equal byte strings have one id; id 0 is the empty pair; ids are never reused, so that an id held by a block can
 *            never come to mean another tenant.
 * Lock       open: the store's lock. Reading by id: none; entries are written before `count` is raised (release/acquire).
 */
#ifndef KVBI_STORE_NAMESPACES_H
#define KVBI_STORE_NAMESPACES_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "base/memory.h"
#include "block/token_hash.h"

#define KVBI_NAMESPACE_STRING_MAX 4096

struct kvbi_namespace {
    struct kvbi_namespace_name name;
    void *strings; /* salt, then adapter */
    uint32_t salt_bytes, adapter_bytes;
};

struct kvbi_namespaces {
    const struct kvbi_memory *memory;
    struct kvbi_namespace *entries;
    uint32_t *table; /* open addressing, id + 1; 0 empty */
    uint32_t table_mask;
    uint32_t capacity; /* id 0 included */
    size_t string_bytes;
    _Atomic uint32_t count;
};

/* Opens id 0. KVB_ENOMEM. */
int kvbi_namespaces_create(struct kvbi_namespaces *spaces, const struct kvbi_memory *memory,
                           const struct kvbi_token_hash *hash, uint32_t capacity);
void kvbi_namespaces_destroy(struct kvbi_namespaces *spaces); /* legal on a zeroed object */

/* Under the store lock. 0, KVB_ENOSPC, KVB_ENOMEM. Lengths have been checked. */
int kvbi_namespaces_open(struct kvbi_namespaces *spaces, const struct kvbi_token_hash *hash, const void *salt,
                         size_t salt_bytes, const void *adapter, size_t adapter_bytes, uint32_t *id);

/* NULL if there is no such id. No lock. */
const struct kvbi_namespace_name *kvbi_namespaces_name(const struct kvbi_namespaces *spaces, uint32_t id);

size_t kvbi_namespaces_bytes(const struct kvbi_namespaces *spaces); /* allocated, strings included */

#endif
