/* SPDX-License-Identifier: Apache-2.0 */
/*
 * event_log - see event_log.h.
 *
 * A LOST has no number of its own: it carries that of the last event it stands for, so that a reader sees
 * sequence == previous + 1 everywhere, and previous + lost_count at a LOST. Events that are dropped while a LOST is the
 * youngest in the ring are added to that one: a full ring never holds two in a row.
 * `lost_total` counts what was dropped; 0 where nobody listens.
 */
#include "store/event_log.h"

#include "base/bands.h"
#include "base/debug.h"

int kvbi_event_log_create(struct kvbi_event_log *log, const struct kvbi_memory *memory,
                          uint32_t capacity)
{
    *log = (struct kvbi_event_log){.memory = memory, .capacity = capacity};
    if (capacity == 0)
        return 0;
    log->ring = kvbi_memory_alloc(memory, capacity, sizeof *log->ring, 0);
    if (log->ring != NULL)
        return 0;
    *log = (struct kvbi_event_log){.memory = NULL};
    return KVB_ENOMEM;
}

void kvbi_event_log_destroy(struct kvbi_event_log *log)
{
    if (log->memory == NULL)
        return;
    kvbi_memory_free(log->memory, log->ring, log->capacity, sizeof *log->ring);
    *log = (struct kvbi_event_log){.memory = NULL};
}

size_t kvbi_event_log_bytes(const struct kvbi_event_log *log)
{
    return (size_t)log->capacity * sizeof *log->ring;
}

static struct kvbi_event_item lost_item(uint64_t sequence, uint32_t lost_count)
{
    return (struct kvbi_event_item){.sequence = sequence,
                                    .kind = KVB_EVENT_LOST,
                                    .record = KVBI_NONE,
                                    .lost_count = lost_count};
}

/* The place number `nth` from the oldest. 64 bits: head + nth may pass 2^32. */
static struct kvbi_event_item *at(const struct kvbi_event_log *log, uint32_t nth)
{
    return &log->ring[((uint64_t)log->head + nth) % log->capacity];
}

static void append(struct kvbi_event_log *log, const struct kvbi_event_item *item)
{
    KVBI_ASSERT(log->count < log->capacity);
    *at(log, log->count++) = *item;
}

static void add_saturated(uint32_t *count)
{
    if (*count < UINT32_MAX)
        ++*count;
}

/* The ring is full. */
static void drop(struct kvbi_event_log *log, uint64_t sequence)
{
    struct kvbi_event_item *youngest = at(log, log->count - 1);
    log->lost_total++;
    if (youngest->kind == KVB_EVENT_LOST) {
        add_saturated(&youngest->lost_count);
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
    if (log->lost > 0 && log->count < log->capacity) {
        struct kvbi_event_item lost = lost_item(item->sequence - 1, log->lost);
        append(log, &lost);
        log->lost = 0;
    }
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
    if (log->count > 0) {
        *item = *at(log, 0);
        log->head = (log->head + 1) % log->capacity;
        log->count--;
        log->shown += item->record != KVBI_NONE;
        return true;
    }
    if (log->lost == 0)
        return false;
    *item = lost_item(log->sequence,
                      log->lost); /* nothing has been put into the ring since they were dropped */
    log->lost = 0;
    return true;
}

void kvbi_event_log_release(struct kvbi_event_log *log, struct kvbi_records *records,
                            const struct kvbi_event_item *item)
{
    log->shown -= item->record != KVBI_NONE;
    kvbi_records_unref(records, item->record);
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
