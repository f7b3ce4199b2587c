/* SPDX-License-Identifier: Apache-2.0 */
/*
 * copy_queue - the copies an engine has taken: which wait for a ticket, which are ready, which were
 * given up
 *
 * Owns       a fixed array of items and the lists through it. Every item is in exactly one list:
 *            free, waiting (at the host, for a ticket that no stream waits for), one of the ready,
 *            cancelled (completes through reap), or one of the engine's own (what it has begun).
 *            Items are named by their index, so that an engine keeps what it knows of them beside.
 * Callers    engines.
 * Invariants lists run first in, first out; `awaited` has a ticket of each waiting copy, so that
 *            the list is walked only when a line has come to one: waiting copies delay nobody.
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
    const struct kvbi_lines *lines;
    struct kvbi_copy_item *items;
    uint32_t capacity;

    struct kvbi_lock lock;
    struct kvbi_copy_list free, waiting, cancelled;
    struct kvbi_copy_list ready[2]; /* by urgent */
    bool told;                      /* signal has said so since waiting copies became ready */
    bool promoted;                  /* they have become ready, and signal has not said so yet */
    struct kvbi_awaited awaited;
};

/* `memory` and `lines` must outlive it. KVB_ENOMEM. */
KVB_NODISCARD int kvbi_copy_queue_create(struct kvbi_copy_queue *queue,
                                         const struct kvbi_memory *memory,
                                         const struct kvbi_lines *lines, uint32_t capacity);
void kvbi_copy_queue_destroy(struct kvbi_copy_queue *queue);
size_t kvbi_copy_queue_bytes(const struct kvbi_copy_queue *queue); /* what create has allocated */

/* All `count` copies or none: 0 or KVB_EAGAIN. Takes the lock. */
int kvbi_copy_queue_submit(struct kvbi_copy_queue *queue, const struct kvbi_copy *copies,
                           uint32_t count, bool urgent);

void kvbi_copy_push_locked(struct kvbi_copy_queue *queue, struct kvbi_copy_list *list,
                           uint32_t index);
/* not empty */
uint32_t kvbi_copy_pop_locked(struct kvbi_copy_queue *queue, struct kvbi_copy_list *list);
/* Is a stream of the GPU to wait for something on behalf of the copy? */
static inline bool kvbi_copy_stands_behind(const struct kvbi_lines *lines,
                                           const struct kvbi_copy *copy)
{
    uint64_t source = copy->tickets.source, target = copy->tickets.target;
    return (kvbi_ticket_is_stream(source) && !kvbi_ticket_reached(lines, source)) ||
           (kvbi_ticket_is_stream(target) && !kvbi_ticket_reached(lines, target));
}

/* Empties `from`. O(1). */
void kvbi_copy_append_locked(struct kvbi_copy_queue *queue, struct kvbi_copy_list *to,
                             struct kvbi_copy_list *from);

/* Sorts the waiting list anew if one of its tickets is reached. */
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

/* kvbi_engine_ops.recall: a waiting copy with this cookie is given up. Takes the lock. */
bool kvbi_copy_queue_recall(struct kvbi_copy_queue *queue, uint32_t index, uint64_t cookie);

/*
 * kvbi_engine_ops.signal: have waiting copies become ready, also if a thread of the engine's has
 * seen it first? Takes the lock.
 */
bool kvbi_copy_queue_signal(struct kvbi_copy_queue *queue);
/* The same. */
bool kvbi_copy_due_locked(const struct kvbi_copy_queue *queue);

#endif
