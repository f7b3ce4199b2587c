/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pool of records (block/record.h): names and tokens of contents that have a copy in memory, or
 * an event under way.
 *
 * Owns       the memory of all records and the stack of free ones.
 * Callers    store/ under its lock.
 * Invariants a record has users > 0 exactly while it is not on the stack. There are as many records
 *            as blocks in memory tiers, events in the ring, and events that are being shown
 *            (delivered, or visited by walks) can use; every one in use belongs to a different one
 *            of those, so take cannot fail.
 * Lock       the store's.
 */
#ifndef KVBI_STORE_RECORDS_H
#define KVBI_STORE_RECORDS_H

#include <stddef.h>
#include <stdint.h>

#include "base/memory.h"
#include "block/record.h"

struct kvbi_records {
    const struct kvbi_memory *memory;
    unsigned char *base;
    uint32_t *free_stack;
    uint32_t free_count, capacity;
    struct kvbi_record_shape shape;
};

/* KVB_ENOMEM. tokens and keys as in the configuration; fills `shape`. */
int kvbi_records_create(struct kvbi_records *records, const struct kvbi_memory *memory,
                        uint32_t capacity, uint32_t tokens_per_block, uint32_t key_bytes);
void kvbi_records_destroy(struct kvbi_records *records); /* legal on a zeroed object */
size_t kvbi_records_bytes(const struct kvbi_records *records);

static inline struct kvbi_record *kvbi_records_at(const struct kvbi_records *records,
                                                  uint32_t index)
{
    return (struct kvbi_record *)(void *)(records->base + (size_t)index * records->shape.stride);
}

/* A record with one user, its head cleared. */
uint32_t kvbi_records_take(struct kvbi_records *records);
void kvbi_records_ref(struct kvbi_records *records, uint32_t index);
/* The last one puts it back on the stack. KVBI_NONE is legal and does nothing. */
void kvbi_records_unref(struct kvbi_records *records, uint32_t index);

#endif
