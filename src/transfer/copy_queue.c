/* SPDX-License-Identifier: Apache-2.0 */
/* copy_queue - see copy_queue.h. */
#include "transfer/copy_queue.h"

#include "base/debug.h"

/* ---- Lists ----------------------------------------------------------------------------------- */

void kvbi_copy_push_locked(struct kvbi_copy_queue *queue, struct kvbi_copy_list *list,
                           uint32_t index)
{
    kvbi_lock_assert_held(&queue->lock);
    queue->items[index].next = KVBI_NONE;
    if (list->count++ == 0)
        list->first = index;
    else
        queue->items[list->last].next = index;
    list->last = index;
}

uint32_t kvbi_copy_pop_locked(struct kvbi_copy_queue *queue, struct kvbi_copy_list *list)
{
    kvbi_lock_assert_held(&queue->lock);
    uint32_t index = list->first;
    KVBI_ASSERT(list->count > 0);
    list->first = queue->items[index].next;
    list->count--;
    return index;
}

void kvbi_copy_append_locked(struct kvbi_copy_queue *queue, struct kvbi_copy_list *to,
                             struct kvbi_copy_list *from)
{
    kvbi_lock_assert_held(&queue->lock);
    if (from->count == 0)
        return;
    if (to->count == 0)
        to->first = from->first;
    else
        queue->items[to->last].next = from->first;
    to->last = from->last;
    to->count += from->count;
    from->count = 0;
}

/* What the host waits for on behalf of a copy: a stream waits by itself. */
static struct kvbi_tickets host_tickets(const struct kvbi_copy *copy)
{
    uint64_t source = copy->tickets.source, target = copy->tickets.target;
    return (struct kvbi_tickets){.source = kvbi_ticket_is_stream(source) ? 0 : source,
                                 .target = kvbi_ticket_is_stream(target) ? 0 : target};
}

/* Into the ready list, or to wait for its tickets. */
static void enqueue_locked(struct kvbi_copy_queue *queue, uint32_t index)
{
    struct kvbi_copy_item *item = &queue->items[index];
    struct kvbi_tickets tickets = host_tickets(&item->copy);
    item->waits = !kvbi_tickets_reached(queue->lines, tickets);
    if (!item->waits) {
        kvbi_copy_push_locked(queue, &queue->ready[item->urgent], index);
        return;
    }
    item->prev = queue->waiting.last;
    kvbi_copy_push_locked(queue, &queue->waiting, index);
    kvbi_awaited_add_both(&queue->awaited, queue->lines, tickets);
}

bool kvbi_copy_due_locked(const struct kvbi_copy_queue *queue)
{
    kvbi_lock_assert_held(&queue->lock);
    return queue->waiting.count > 0 && kvbi_awaited_due(&queue->awaited, queue->lines);
}

void kvbi_copy_promote_locked(struct kvbi_copy_queue *queue)
{
    kvbi_lock_assert_held(&queue->lock);
    if (!kvbi_copy_due_locked(queue))
        return;
    uint32_t count = queue->waiting.count;
    queue->promoted |= !queue->told;
    queue->told = false;
    kvbi_awaited_clear(&queue->awaited);
    while (count-- > 0)
        enqueue_locked(queue, kvbi_copy_pop_locked(queue, &queue->waiting));
}

struct kvbi_copy_list *kvbi_copy_next_locked(struct kvbi_copy_queue *queue)
{
    kvbi_lock_assert_held(&queue->lock);
    return &queue->ready[queue->ready[1].count > 0];
}

bool kvbi_copy_ready_locked(const struct kvbi_copy_queue *queue)
{
    kvbi_lock_assert_held(&queue->lock);
    return queue->ready[0].count > 0 || queue->ready[1].count > 0 || queue->cancelled.count > 0 ||
           kvbi_copy_due_locked(queue);
}

/* ---- In, and out without having been begun --------------------------------------------------- */

int kvbi_copy_queue_submit(struct kvbi_copy_queue *queue, const struct kvbi_copy *copies,
                           uint32_t count, bool urgent)
{
    int result = KVB_EAGAIN;
    kvbi_lock_take(&queue->lock);
    if (count <= queue->free.count) {
        for (uint32_t i = 0; i < count; i++) {
            KVBI_ASSERT(copies[i].from->block_bytes == copies[i].to->block_bytes);
            KVBI_ASSERT(copies[i].from_slot < copies[i].from->block_count);
            KVBI_ASSERT(copies[i].to_slot < copies[i].to->block_count);
            uint32_t index = kvbi_copy_pop_locked(queue, &queue->free);
            queue->items[index] =
                (struct kvbi_copy_item){.copy = copies[i], .next = KVBI_NONE, .urgent = urgent};
            if (copies[i].place != NULL)
                *copies[i].place = index;
            enqueue_locked(queue, index);
        }
        result = 0;
    }
    kvbi_lock_release(&queue->lock);
    return result;
}

/* Out of the middle of the waiting list. */
static void leave_waiting_locked(struct kvbi_copy_queue *queue, uint32_t index)
{
    struct kvbi_copy_list *list = &queue->waiting;
    struct kvbi_copy_item *item = &queue->items[index];
    if (list->first == index)
        list->first = item->next;
    else
        queue->items[item->prev].next = item->next;
    if (list->last == index)
        list->last = item->prev;
    else
        queue->items[item->next].prev = item->prev;
    list->count--;
    item->waits = false;
}

bool kvbi_copy_queue_recall(struct kvbi_copy_queue *queue, uint32_t index, uint64_t cookie)
{
    kvbi_lock_take(&queue->lock);
    const struct kvbi_copy_item *item = &queue->items[index];
    bool recalled = item->waits && item->copy.cookie == cookie &&
                    !kvbi_tickets_reached(queue->lines, host_tickets(&item->copy));
    if (recalled) {
        leave_waiting_locked(queue, index);
        kvbi_copy_push_locked(queue, &queue->cancelled, index);
    }
    kvbi_lock_release(&queue->lock);
    return recalled;
}

void kvbi_copy_cancel_locked(struct kvbi_copy_queue *queue)
{
    kvbi_lock_assert_held(&queue->lock);
    kvbi_copy_append_locked(queue, &queue->cancelled, &queue->ready[1]);
    kvbi_copy_append_locked(queue, &queue->cancelled, &queue->ready[0]);
    for (uint32_t n = 0, index = queue->waiting.first; n < queue->waiting.count; n++) {
        queue->items[index].waits = false;
        index = queue->items[index].next;
    }
    kvbi_copy_append_locked(queue, &queue->cancelled, &queue->waiting);
    kvbi_awaited_clear(&queue->awaited);
}

uint32_t kvbi_copy_complete_cancelled_locked(struct kvbi_copy_queue *queue,
                                             struct kvbi_completion *completions, uint32_t max)
{
    kvbi_lock_assert_held(&queue->lock);
    uint32_t count = 0;
    while (count < max && queue->cancelled.count > 0) {
        uint32_t index = kvbi_copy_pop_locked(queue, &queue->cancelled);
        completions[count++] = (struct kvbi_completion){.cookie = queue->items[index].copy.cookie,
                                                        .result = KVB_ECANCELED};
        kvbi_copy_push_locked(queue, &queue->free, index);
    }
    return count;
}

bool kvbi_copy_queue_signal(struct kvbi_copy_queue *queue)
{
    kvbi_lock_take(&queue->lock);
    bool due = kvbi_copy_due_locked(queue), promoted = queue->promoted;
    queue->told |= due;
    queue->promoted = false;
    kvbi_lock_release(&queue->lock);
    return due || promoted;
}

/* ---- Create and destroy ---------------------------------------------------------------------- */

int kvbi_copy_queue_create(struct kvbi_copy_queue *queue, const struct kvbi_memory *memory,
                           const struct kvbi_lines *lines, uint32_t capacity)
{
    *queue = (struct kvbi_copy_queue){.memory = memory, .lines = lines, .capacity = capacity};
    queue->items = kvbi_memory_alloc_raw(memory, capacity, sizeof *queue->items, 0);
    if (queue->items == NULL)
        return KVB_ENOMEM;
    if (kvbi_lock_init(&queue->lock, KVBI_RANK_ENGINE) != 0) {
        kvbi_memory_free(memory, queue->items, capacity, sizeof *queue->items);
        return KVB_ENOMEM;
    }
    kvbi_lock_take(&queue->lock);
    for (uint32_t i = 0; i < capacity; i++)
        kvbi_copy_push_locked(queue, &queue->free, i);
    kvbi_lock_release(&queue->lock);
    return 0;
}

void kvbi_copy_queue_destroy(struct kvbi_copy_queue *queue)
{
    kvbi_lock_fini(&queue->lock);
    kvbi_memory_free(queue->memory, queue->items, queue->capacity, sizeof *queue->items);
}

size_t kvbi_copy_queue_bytes(const struct kvbi_copy_queue *queue)
{
    return queue->capacity * sizeof *queue->items;
}
