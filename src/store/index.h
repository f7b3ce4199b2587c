/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The index: one entry per content, from its name to its copies in all tiers.
 *
 * Owns       the entries, the buckets, the caller's keys beside them.
 * Callers    store/, under the store's lock.
 * Invariants an entry exists exactly while it has a copy, ready or being filled, so there are never
 *            more entries than blocks: capacity is fixed at create and nothing rehashes. `ready`
 *            bit t: copies[t] is published; without it that copy is being filled. An entry of an
 *            older epoch is dead: nobody finds it, a clear frees it. `record` is there exactly
 *            while a memory tier has a ready copy, or a source that a registration brought.
 * Lock       the store's.
 * Why        64 bytes: a probe costs one line for the bucket and one for the entry. The chain
 *            digest, not a link to the parent's entry, says what came before: a parent may be
 *            evicted and come back without orphaning its children.
 */
#ifndef KVBI_STORE_INDEX_H
#define KVBI_STORE_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <kvblock.h>

#include "base/bands.h"
#include "base/memory.h"

enum kvbi_entry_flags { KVBI_ENTRY_HAS_PARENT = 1 };

struct kvbi_entry {
    struct kvb_seq name;             /* as in struct kvbi_record */
    uint64_t parent_hash;            /* with KVBI_ENTRY_HAS_PARENT */
    uint32_t copies[KVB_TIER_COUNT]; /* slot, or KVBI_NONE */
    uint32_t next;                   /* in the bucket, or on the free list */
    uint32_t record;                 /* or KVBI_NONE */
    uint32_t namespace_id;
    uint8_t ready; /* bit per tier */
    uint8_t flags;
    uint8_t epoch;
    uint8_t used;
};

_Static_assert(sizeof(struct kvbi_entry) == 64, "an entry is one cache line");

struct kvbi_index {
    const struct kvbi_memory *memory;
    struct kvbi_entry *entries;
    uint32_t *buckets;
    unsigned char *keys;   /* own and parent's, 2 x key_bytes an entry; NULL with built-in hashes */
    uint32_t bucket_shift; /* bucket = spread(hash) >> shift */
    uint32_t bucket_count;
    uint32_t capacity, count;
    uint32_t free_head, untouched; /* recycled entries; those never used begin at `untouched` */
    uint32_t key_bytes;
    uint8_t epoch;
};

int kvbi_index_create(struct kvbi_index *index, const struct kvbi_memory *memory, uint32_t capacity,
                      uint32_t key_bytes);         /* KVB_ENOMEM */
void kvbi_index_destroy(struct kvbi_index *index); /* legal on a zeroed object */
size_t kvbi_index_bytes(const struct kvbi_index *index);

static inline struct kvbi_entry *kvbi_index_at(const struct kvbi_index *index, uint32_t id)
{
    return &index->entries[id];
}

/* The caller's key of an entry, and its parent's. Only with key_bytes > 0. */
static inline unsigned char *kvbi_index_key(const struct kvbi_index *index, uint32_t id)
{
    return index->keys + (size_t)id * 2 * index->key_bytes;
}

static inline unsigned char *kvbi_index_parent_key(const struct kvbi_index *index, uint32_t id)
{
    return kvbi_index_key(index, id) + index->key_bytes;
}

static inline bool kvbi_index_alive(const struct kvbi_index *index, const struct kvbi_entry *entry)
{
    return entry->epoch == index->epoch;
}

/* The entry of this hash (and key, with the caller's keys), dead or alive. KVBI_NONE: none. */
uint32_t kvbi_index_find(const struct kvbi_index *index, uint64_t hash, const void *key);

/*
 * A new entry without copies, alive, in its bucket. There must be none of this name, and room (see
 * the invariant).
 */
uint32_t kvbi_index_insert(struct kvbi_index *index, uint64_t hash, const void *key);
void kvbi_index_erase(struct kvbi_index *index, uint32_t id);

/*
 * Two stages of warming what a probe touches, for batches: the bucket, then the entry at its head.
 */
void kvbi_index_warm_bucket(const struct kvbi_index *index, uint64_t hash);
/* that entry, or KVBI_NONE */
uint32_t kvbi_index_warm_entry(const struct kvbi_index *index, uint64_t hash);

#endif
