/* SPDX-License-Identifier: Apache-2.0 */
/*
 * copy_queue - the copies an engine has taken: which wait for a ticket, which are ready, which were
 * given up
 *
 * Owns       a fixed array of items and the lists through it. Every item is in exactly one list:
 *            free, waiting (for the counter to reach its ticket), one of the two ready ones,
 *            cancelled (completes through reap), or one of the engine's own (what it has begun).
 *            Items are named by their index, so that an engine keeps what it knows of them beside.
 * Callers    engines.
 * Invariants lists run first in, first out; waiting_ticket is the smallest ticket in the waiting
 *            list (UINT64_MAX: it is empty), so that the list is walked only when the counter has
 *            passed it: waiting copies delay nobody.
 * Lock       `lock` guards everything below it. It is the engine's lock too: what an engine shares
 *            between threads hangs on it. The copy of an item that an engine has begun is the
 *            engine's alone, and read without.
 */
#ifndef KVBI_TRANSFER_COPY_QUEUE_H
#define KVBI_TRANSFER_COPY_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bands.h"
#include "base/lock.h"
#include "base/memory.h"

#include "transfer/engine.h"

struct kvbi_copy_item {
    struct kvbi_copy copy;
    uint32_t next; /* in its list, or KVBI_NONE */
    uint32_t prev; /* in the waiting list, whose first has none */
    bool urgent;
    bool waits; /* it is in the waiting list */
};

struct kvbi_copy_list {
    uint32_t first, last, count; /* first and last mean nothing while count is 0 */
};

struct kvbi_copy_queue {
    const struct kvbi_memory *memory;
    struct kvbi_copy_item *items;
    uint32_t capacity;

    struct kvbi_lock lock;
    struct kvbi_copy_list free, waiting, cancelled;
    struct kvbi_copy_list ready[2]; /* by urgent */
    uint64_t counter, waiting_ticket;
};

/* `memory` must outlive it. KVB_ENOMEM. */
KVB_NODISCARD int kvbi_copy_queue_create(struct kvbi_copy_queue *queue,
                                         const struct kvbi_memory *memory, uint32_t capacity);
void kvbi_copy_queue_destroy(struct kvbi_copy_queue *queue);
size_t kvbi_copy_queue_bytes(const struct kvbi_copy_queue *queue); /* what create has allocated */

/* All `count` copies or none: 0 or KVB_EAGAIN. Takes the lock. */
int kvbi_copy_queue_submit(struct kvbi_copy_queue *queue, const struct kvbi_copy *copies,
                           uint32_t count, bool urgent);

void kvbi_copy_push_locked(struct kvbi_copy_queue *queue, struct kvbi_copy_list *list,
                           uint32_t index);
/* not empty */
uint32_t kvbi_copy_pop_locked(struct kvbi_copy_queue *queue, struct kvbi_copy_list *list);
/* Empties `from`. O(1). */
void kvbi_copy_append_locked(struct kvbi_copy_queue *queue, struct kvbi_copy_list *to,
                             struct kvbi_copy_list *from);

/* Sorts the waiting list anew if the counter has reached one of its tickets. */
void kvbi_copy_promote_locked(struct kvbi_copy_queue *queue);

/* The ready list to take from next; empty if nothing is ready. */
struct kvbi_copy_list *kvbi_copy_next_locked(struct kvbi_copy_queue *queue);

/* Something is ready or cancelled, or is waiting for what has happened. */
bool kvbi_copy_ready_locked(const struct kvbi_copy_queue *queue);

/* Gives up all that is waiting or ready. */
void kvbi_copy_cancel_locked(struct kvbi_copy_queue *queue);

/* Up to `max` cancelled items become completions and free. */
uint32_t kvbi_copy_complete_cancelled_locked(struct kvbi_copy_queue *queue,
                                             struct kvbi_completion *completions, uint32_t max);

/* A fence of the host's side: a ticket is a value of the counter. KVB_EINVAL: another kind. */
int kvbi_ticket_import(const struct kvb_fence *fence, uint64_t *ticket);

/* kvbi_engine_ops.recall: a waiting copy with this cookie is given up. Takes the lock. */
bool kvbi_copy_queue_recall(struct kvbi_copy_queue *queue, uint32_t index, uint64_t cookie);

/* The counter has reached `value`. True if waiting copies may have become ready. Takes the lock. */
bool kvbi_copy_queue_signal(struct kvbi_copy_queue *queue, uint64_t value);

#endif
