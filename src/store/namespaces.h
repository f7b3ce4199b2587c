/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Namespaces: (salt, adapter name) pairs and the small ids that stand for them.
 *
 * Owns       copies of the strings, and what each namespace contributes to hashes.
 * Callers    api/ opens; offload/recover adopts those of blocks that were in a file; everybody
 *            reads names by id.
 * Invariants equal byte strings have one id; id 0 is the empty pair; ids are never reused, so that
 *            an id that a block has can never come to mean another tenant. An adopted one is known
 *            by its name only, until it is opened: its strings are those of the first open whose
 *            name is the same, and of no other from then on. Adopted ones that nobody opens take no
 *            room from those that are opened.
 * Lock       open, adopt: the store's lock. Reading by id: none; entries are written before `count`
 *            is raised (release/acquire).
 */
#ifndef KVBI_STORE_NAMESPACES_H
#define KVBI_STORE_NAMESPACES_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/memory.h"
#include "block/token_hash.h"

#define KVBI_NAMESPACE_STRING_MAX 4096

struct kvbi_namespace {
    struct kvbi_namespace_name name;
    void *strings; /* salt, then adapter */
    /* the moment (moments.h) of its last invalidation; 0: none. The store lock's */
    uint64_t forgotten;
    uint32_t salt_bytes, adapter_bytes;
    bool unbound; /* adopted, its strings are not known yet */
};

struct kvbi_namespaces {
    const struct kvbi_memory *memory;
    struct kvbi_namespace *entries;
    uint32_t *table; /* open addressing, id + 1; 0 empty */
    uint32_t table_mask;
    uint32_t capacity;      /* of opened ones, id 0 included */
    uint32_t adoptable;     /* of unbound ones, at a time */
    uint32_t unbound_count; /* the others are opened */
    size_t string_bytes;
    _Atomic uint32_t count; /* all of them */
};

/* Opens id 0. adoptable: how many may be adopted and not opened yet. KVB_ENOMEM. */
int kvbi_namespaces_create(struct kvbi_namespaces *spaces, const struct kvbi_memory *memory,
                           const struct kvbi_token_hash *hash, uint32_t capacity,
                           uint32_t adoptable);
void kvbi_namespaces_destroy(struct kvbi_namespaces *spaces); /* legal on a zeroed object */

/* Under the store lock. 0, KVB_ENOSPC, KVB_ENOMEM. Lengths have been checked. */
int kvbi_namespaces_open(struct kvbi_namespaces *spaces, const struct kvbi_token_hash *hash,
                         const void *salt, size_t salt_bytes, const void *adapter,
                         size_t adapter_bytes, uint32_t *id);

/*
 * The id of a namespace of which nothing but the name is known; a new one if need be. Under the
 * store lock. 0 or KVB_ENOSPC.
 */
int kvbi_namespaces_adopt(struct kvbi_namespaces *spaces, const struct kvbi_namespace_name *name,
                          uint32_t *id);

/* NULL if there is no such id. No lock. */
const struct kvbi_namespace_name *kvbi_namespaces_name(const struct kvbi_namespaces *spaces,
                                                       uint32_t id);

/* allocated, strings included */
size_t kvbi_namespaces_bytes(const struct kvbi_namespaces *spaces);

#endif
