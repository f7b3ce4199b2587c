/* SPDX-License-Identifier: Apache-2.0 */
/*
 * event_log - see event_log.h.
 *
 * A LOST has no number of its own: it carries that of the last event it stands for, so that a
 * reader sees sequence == previous + 1 everywhere, and previous + lost_count at a LOST. Events that
 * are dropped while a LOST is the youngest in the ring are added to that one: a full ring never has
 * two in a row.
 * `lost_total` counts what was dropped; 0 where nobody listens.
 */
#include "store/event_log.h"

#include <string.h>

#include "base/bands.h"
#include "base/debug.h"

#define PLACE_ALIGN 8u

/* One event in the ring. The key follows, then the parent's. */
struct place {
    uint64_t sequence;
    uint32_t record;
    uint32_t number; /* LOST: how many; else the namespace */
    uint8_t kind, tier;
    bool has_parent;
};

int kvbi_event_log_create(struct kvbi_event_log *log, const struct kvbi_memory *memory,
                          uint32_t capacity, struct kvbi_event_shape shape)
{
    KVBI_ASSERT(shape.parent_bytes <= shape.key_bytes && shape.key_bytes <= KVB_KEY_BYTES_MAX);
    uint32_t bytes = (uint32_t)sizeof(struct place) + shape.key_bytes + shape.parent_bytes;
    *log = (struct kvbi_event_log){.memory = memory,
                                   .capacity = capacity,
                                   .stride = (bytes + PLACE_ALIGN - 1) & ~(PLACE_ALIGN - 1),
                                   .shape = shape};
    if (capacity == 0)
        return 0;
    log->ring = kvbi_memory_alloc_raw(memory, capacity, log->stride, 0);
    if (log->ring != NULL)
        return 0;
    *log = (struct kvbi_event_log){.memory = NULL};
    return KVB_ENOMEM;
}

void kvbi_event_log_destroy(struct kvbi_event_log *log)
{
    if (log->memory == NULL)
        return;
    kvbi_memory_free(log->memory, log->ring, log->capacity, log->stride);
    *log = (struct kvbi_event_log){.memory = NULL};
}

size_t kvbi_event_log_bytes(const struct kvbi_event_log *log)
{
    return (size_t)log->capacity * log->stride;
}

/* The place number `nth` from the oldest. 64 bits: head + nth may pass 2^32. */
static struct place *at(const struct kvbi_event_log *log, uint32_t nth)
{
    uint64_t place = ((uint64_t)log->head + nth) % log->capacity;
    return (struct place *)(void *)(log->ring + place * log->stride);
}

static void append_lost(struct kvbi_event_log *log, uint64_t sequence)
{
    KVBI_ASSERT(log->count < log->capacity);
    *at(log, log->count++) = (struct place){
        .sequence = sequence, .record = KVBI_NONE, .number = log->lost, .kind = KVB_EVENT_LOST};
    log->lost = 0;
}

static void append(struct kvbi_event_log *log, const struct kvbi_event_item *item)
{
    KVBI_ASSERT(log->count < log->capacity);
    struct place *place = at(log, log->count++);
    unsigned char *key = (unsigned char *)(place + 1);
    *place = (struct place){.sequence = item->sequence,
                            .record = item->record,
                            .number = item->namespace_id,
                            .kind = (uint8_t)item->kind,
                            .tier = (uint8_t)item->tier,
                            .has_parent = item->has_parent};
    memcpy(key, item->key, log->shape.key_bytes);
    memcpy(key + log->shape.key_bytes, item->parent, log->shape.parent_bytes);
}

static void take_out(const struct kvbi_event_log *log, const struct place *place,
                     struct kvbi_event_item *item)
{
    const unsigned char *key = (const unsigned char *)(place + 1);
    bool lost = place->kind == KVB_EVENT_LOST;
    item->sequence = place->sequence;
    item->kind = place->kind;
    item->tier = place->tier;
    item->namespace_id = lost ? 0 : place->number;
    item->record = place->record;
    item->lost_count = lost ? place->number : 0;
    item->has_parent = place->has_parent;
    if (lost)
        return; /* no key has been put there */
    memcpy(item->key, key, log->shape.key_bytes);
    memset(item->parent, 0, log->shape.key_bytes);
    memcpy(item->parent, key + log->shape.key_bytes, log->shape.parent_bytes);
}

static void add_saturated(uint32_t *count)
{
    if (*count < UINT32_MAX)
        ++*count;
}

/* The ring is full. */
static void drop(struct kvbi_event_log *log, uint64_t sequence)
{
    struct place *youngest = at(log, log->count - 1);
    log->lost_total++;
    if (youngest->kind == KVB_EVENT_LOST) {
        add_saturated(&youngest->number);
        youngest->sequence = sequence;
    } else {
        add_saturated(&log->lost);
    }
}

void kvbi_event_log_push(struct kvbi_event_log *log, struct kvbi_records *records,
                         struct kvbi_event_item *item)
{
    item->sequence = ++log->sequence;
    if (log->capacity == 0)
        return;
    if (log->lost > 0 && log->count < log->capacity)
        append_lost(log, item->sequence - 1);
    if (log->count == log->capacity) {
        drop(log, item->sequence);
        return;
    }
    if (item->record != KVBI_NONE)
        kvbi_records_ref(records, item->record);
    append(log, item);
}

bool kvbi_event_log_pop(struct kvbi_event_log *log, struct kvbi_event_item *item)
{
    if (log->count == 0 && log->lost > 0)
        append_lost(log, log->sequence); /* nothing has been put there since they were dropped */
    if (log->count == 0)
        return false;
    take_out(log, at(log, 0), item);
    log->count--;
    log->head = log->count == 0 ? 0 : (log->head + 1) % log->capacity;
    log->shown += item->record != KVBI_NONE;
    return true;
}

void kvbi_event_log_release(struct kvbi_event_log *log, struct kvbi_records *records,
                            const struct kvbi_event_item *item)
{
    log->shown -= item->record != KVBI_NONE;
    kvbi_records_unref(records, item->record);
}

uint32_t kvbi_event_log_records(const struct kvbi_event_log *log)
{
    uint32_t records = 0;
    for (uint32_t i = 0; i < log->count; i++)
        records += at(log, i)->record != KVBI_NONE;
    return records;
}

bool kvbi_event_log_pending(const struct kvbi_event_log *log)
{
    return log->count > 0 || log->lost > 0;
}

struct kvb_event kvbi_event_view(const struct kvbi_event_item *item,
                                 const struct kvbi_records *records)
{
    bool about_copy = item->kind == KVB_EVENT_STORED || item->kind == KVB_EVENT_REMOVED;
    bool tokens = item->record != KVBI_NONE;
    return (struct kvb_event){
        .size = sizeof(struct kvb_event),
        .kind = item->kind,
        .sequence = item->sequence,
        .tier = item->tier,
        .namespace_id = item->namespace_id,
        .key = about_copy ? item->key : NULL,
        .parent_key = about_copy && item->has_parent ? item->parent : NULL,
        .tokens = tokens
                      ? kvbi_record_tokens(&records->shape, kvbi_records_at(records, item->record))
                      : NULL,
        .token_count = tokens ? records->shape.tokens_per_block : 0,
        .lost_count = item->lost_count};
}
