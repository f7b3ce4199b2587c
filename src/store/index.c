/* SPDX-License-Identifier: Apache-2.0 */
/* Chained hashing over arrays of fixed size. See index.h. */
#include "store/index.h"

#include <string.h>

/*
 * At least; rounded up to a power of two. One bucket an entry costs half a cache miss more per
 * probe (docs/performance.md).
 */
#define BUCKETS_PER_ENTRY 2

/*
 * Sequence hashes are uniform, a caller's keys are hashed already; the multiplication guards
 * against a poor test hash.
 */
static uint32_t bucket_of(const struct kvbi_index *index, uint64_t hash)
{
    return (uint32_t)(hash * UINT64_C(0x9E3779B97F4A7C15) >> index->bucket_shift);
}

int kvbi_index_create(struct kvbi_index *index, const struct kvbi_memory *memory, uint32_t capacity,
                      uint32_t key_bytes)
{
    uint32_t bits = 4;
    while (bits < 31 && (UINT64_C(1) << bits) < (uint64_t)capacity * BUCKETS_PER_ENTRY)
        bits++;
    *index = (struct kvbi_index){.memory = memory,
                                 .bucket_shift = 64 - bits,
                                 .bucket_count = UINT32_C(1) << bits,
                                 .capacity = capacity,
                                 .free_head = KVBI_NONE,
                                 .key_bytes = key_bytes};
    index->entries = kvbi_memory_alloc(memory, capacity, sizeof *index->entries, 64);
    index->buckets = kvbi_memory_alloc_raw(memory, index->bucket_count, sizeof *index->buckets, 64);
    if (key_bytes > 0)
        index->keys = kvbi_memory_alloc(memory, capacity, (size_t)2 * key_bytes, 64);
    if (index->entries == NULL || index->buckets == NULL ||
        (key_bytes > 0 && index->keys == NULL)) {
        kvbi_index_destroy(index);
        return KVB_ENOMEM;
    }
    /* KVBI_NONE */
    memset(index->buckets, 0xff, (size_t)index->bucket_count * sizeof *index->buckets);
    return 0;
}

void kvbi_index_destroy(struct kvbi_index *index)
{
    if (index->memory == NULL)
        return;
    kvbi_memory_free(index->memory, index->keys, index->capacity, (size_t)2 * index->key_bytes);
    kvbi_memory_free(index->memory, index->buckets, index->bucket_count, sizeof *index->buckets);
    kvbi_memory_free(index->memory, index->entries, index->capacity, sizeof *index->entries);
    *index = (struct kvbi_index){0};
}

size_t kvbi_index_bytes(const struct kvbi_index *index)
{
    return (size_t)index->capacity * (sizeof *index->entries + (size_t)2 * index->key_bytes) +
           (size_t)index->bucket_count * sizeof *index->buckets;
}

uint32_t kvbi_index_find(const struct kvbi_index *index, uint64_t hash, const void *key)
{
    uint32_t id = index->buckets[bucket_of(index, hash)];
    while (id != KVBI_NONE) {
        const struct kvbi_entry *entry = kvbi_index_at(index, id);
        if (entry->name.hash == hash &&
            (index->key_bytes == 0 ||
             memcmp(kvbi_index_key(index, id), key, index->key_bytes) == 0))
            return id;
        id = entry->next;
    }
    return KVBI_NONE;
}

static uint32_t take_entry(struct kvbi_index *index)
{
    uint32_t id = index->free_head;
    if (id != KVBI_NONE)
        index->free_head = kvbi_index_at(index, id)->next;
    else
        id = index->untouched++;
    index->count++;
    return id;
}

uint32_t kvbi_index_insert(struct kvbi_index *index, uint64_t hash, const void *key)
{
    uint32_t id = take_entry(index);
    uint32_t bucket = bucket_of(index, hash);
    struct kvbi_entry *entry = kvbi_index_at(index, id);
    *entry = (struct kvbi_entry){.name.hash = hash,
                                 .copies = {KVBI_NONE, KVBI_NONE, KVBI_NONE, KVBI_NONE},
                                 .next = index->buckets[bucket],
                                 .record = KVBI_NONE,
                                 .epoch = index->epoch,
                                 .used = 1};
    if (index->key_bytes > 0)
        memcpy(kvbi_index_key(index, id), key, index->key_bytes);
    index->buckets[bucket] = id;
    return id;
}

void kvbi_index_erase(struct kvbi_index *index, uint32_t id)
{
    struct kvbi_entry *entry = kvbi_index_at(index, id);
    uint32_t *link = &index->buckets[bucket_of(index, entry->name.hash)];
    while (*link != id)
        link = &kvbi_index_at(index, *link)->next;
    *link = entry->next;
    entry->used = 0;
    entry->next = index->free_head;
    index->free_head = id;
    index->count--;
}

void kvbi_index_warm_bucket(const struct kvbi_index *index, uint64_t hash)
{
    __builtin_prefetch(&index->buckets[bucket_of(index, hash)]);
}

uint32_t kvbi_index_warm_entry(const struct kvbi_index *index, uint64_t hash)
{
    uint32_t id = index->buckets[bucket_of(index, hash)];
    if (id != KVBI_NONE)
        __builtin_prefetch(kvbi_index_at(index, id));
    return id;
}
