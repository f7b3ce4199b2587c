/* SPDX-License-Identifier: Apache-2.0 */
/* Weak handles in priority order. See in_queue.h. */
#include "offload/in_queue.h"

void kvbi_in_queue_init(struct kvbi_in_queue *queue, const struct kvbi_lines *lines,
                        struct kvbi_offer *offers, uint32_t capacity)
{
    *queue = (struct kvbi_in_queue){.offers = offers, .capacity = capacity};
    kvbi_bands_init(&queue->waiting, &offers[0].node, sizeof *offers);
    kvbi_deferred_init(&queue->deferred, lines, &offers[0].node, sizeof *offers);
}

/* The next to be shed, which stays where it is. KVBI_NONE: nothing waits. */
static uint32_t lowest_waiting(const struct kvbi_in_queue *queue)
{
    uint32_t ready = kvbi_bands_youngest_of_lowest(&queue->waiting),
             deferred = kvbi_bands_youngest_of_lowest(&queue->deferred.list);
    if (ready == KVBI_NONE || deferred == KVBI_NONE)
        return ready == KVBI_NONE ? deferred : ready;
    return queue->offers[deferred].priority <= queue->offers[ready].priority ? deferred : ready;
}

/*
 * Makes room for one more. Returns what is shed for it, taken out; `id` if that is no better;
 * KVBI_NONE if there was room.
 */
static uint32_t make_room(struct kvbi_in_queue *queue, uint32_t id, bool deferred)
{
    if (kvbi_in_queue_count(queue) < queue->capacity)
        return KVBI_NONE;
    uint32_t shed = lowest_waiting(queue);
    const struct kvbi_offer *least = &queue->offers[shed], *offer = &queue->offers[id];
    bool yields = !deferred && least->stage == KVBI_OFFER_DEFERRED;
    if (least->priority > offer->priority || (least->priority == offer->priority && !yields))
        return id;
    kvbi_in_queue_remove(queue, shed);
    return shed;
}

uint32_t kvbi_in_queue_push(struct kvbi_in_queue *queue, uint32_t id)
{
    uint32_t shed = make_room(queue, id, false);
    if (shed == id)
        return id;
    queue->offers[id].stage = KVBI_OFFER_QUEUED;
    kvbi_bands_push_young(&queue->waiting, id, queue->offers[id].priority);
    return shed;
}

uint32_t kvbi_in_queue_defer(struct kvbi_in_queue *queue, uint32_t id, struct kvbi_tickets tickets,
                             const struct kvbi_awaited *targets)
{
    uint32_t shed = make_room(queue, id, true);
    if (shed == id)
        return id;
    queue->offers[id].stage = KVBI_OFFER_DEFERRED;
    kvbi_deferred_add(&queue->deferred, id, queue->offers[id].priority, tickets, targets);
    return shed;
}

void kvbi_in_queue_resume(struct kvbi_in_queue *queue, uint32_t id)
{
    kvbi_deferred_remove(&queue->deferred, id);
    queue->offers[id].stage = KVBI_OFFER_QUEUED;
    kvbi_bands_push_young(&queue->waiting, id, queue->offers[id].priority);
}

uint32_t kvbi_in_queue_pop(struct kvbi_in_queue *queue)
{
    uint32_t id = kvbi_bands_highest(&queue->waiting);
    if (id != KVBI_NONE)
        kvbi_in_queue_remove(queue, id);
    return id;
}

void kvbi_in_queue_remove(struct kvbi_in_queue *queue, uint32_t id)
{
    if (queue->offers[id].stage == KVBI_OFFER_DEFERRED)
        kvbi_deferred_remove(&queue->deferred, id);
    else
        kvbi_bands_remove(&queue->waiting, id);
}
