/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events: the bounded ring between the store, which numbers them under its lock, and progress,
 * which delivers them.
 *
 * Owns       the ring, the sequence counter, the count of what was lost.
 * Callers    store/ pushes under its lock; offload/progress pops, delivers without a lock, and
 *            releases under the lock.
 * Invariants sequence numbers are dense and ascending in the ring. On overflow events are dropped
 *            and counted; the next push that finds room first puts one LOST there, so nothing later
 *            overtakes it. STORED keeps its record alive (one user) until released, so tokens are
 *            there at delivery.
 * Lock       the store's.
 * Why        a place in the ring is as long as this manager's keys and no longer (56 bytes with
 *            built-in hashes, 24 and two keys with the caller's), and an empty ring begins at its
 *            first place again: a default that is wide enough for every block costs address space,
 *            and memory only as far as the ring has ever been full.
 */
#ifndef KVBI_STORE_EVENT_LOG_H
#define KVBI_STORE_EVENT_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <kvblock.h>

#include "base/memory.h"
#include "store/records.h"

/*
 * One event outside of the ring; of key and parent as many bytes are set as the manager's keys
 * have.
 */
struct kvbi_event_item {
    uint64_t sequence;
    uint32_t kind; /* enum kvb_event_kind */
    uint32_t tier;
    uint32_t namespace_id;
    uint32_t record; /* KVBI_NONE: no tokens */
    uint32_t lost_count;
    bool has_parent;
    /* receivers read a struct kvb_seq here */
    _Alignas(struct kvb_seq) unsigned char key[KVB_KEY_BYTES_MAX];
    _Alignas(struct kvb_seq) unsigned char parent[KVB_KEY_BYTES_MAX];
};

struct kvbi_event_shape {
    uint32_t key_bytes;
    uint32_t parent_bytes; /* that are kept; the rest of key_bytes is zero when it is delivered */
};

struct kvbi_event_log {
    const struct kvbi_memory *memory;
    unsigned char *ring;
    uint32_t stride;
    struct kvbi_event_shape shape;
    uint32_t capacity; /* 0: nobody listens, pushes only count sequence numbers */
    uint32_t head, count;
    uint32_t lost;     /* dropped since the last LOST was put into the ring */
    uint32_t shown;    /* popped and not yet released, with a record: being delivered */
    uint64_t sequence; /* of the latest event */
    uint64_t lost_total;
};

int kvbi_event_log_create(struct kvbi_event_log *log, const struct kvbi_memory *memory,
                          uint32_t capacity, struct kvbi_event_shape shape); /* KVB_ENOMEM */
void kvbi_event_log_destroy(struct kvbi_event_log *log); /* legal on a zeroed object */
size_t kvbi_event_log_bytes(const struct kvbi_event_log *log);

/*
 * Numbers the event (item->sequence is written) and takes a user of item->record if it goes into
 * the ring with one.
 */
void kvbi_event_log_push(struct kvbi_event_log *log, struct kvbi_records *records,
                         struct kvbi_event_item *item);

/*
 * Copies the oldest event out. False: none. If events were lost and the ring is empty, yields the
 * LOST.
 */
bool kvbi_event_log_pop(struct kvbi_event_log *log, struct kvbi_event_item *item);

/* After delivery: gives the record back. */
void kvbi_event_log_release(struct kvbi_event_log *log, struct kvbi_records *records,
                            const struct kvbi_event_item *item);

/* The event as its receiver sees it; points into `item` and its record. */
struct kvb_event kvbi_event_view(const struct kvbi_event_item *item,
                                 const struct kvbi_records *records);

/* How many events in the ring have a user of a record. Walks all of it. */
uint32_t kvbi_event_log_records(const struct kvbi_event_log *log);

/* Something to deliver? */
bool kvbi_event_log_pending(const struct kvbi_event_log *log);

#endif
