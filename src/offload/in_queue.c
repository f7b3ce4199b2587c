/* SPDX-License-Identifier: Apache-2.0 */
/* Weak handles in priority order, from a fixed pool. See in_queue.h. */
#include "offload/in_queue.h"

#include <kvblock.h>

int kvbi_in_queue_create(struct kvbi_in_queue *queue, const struct kvbi_memory *memory,
                         uint32_t capacity, uint32_t others)
{
    /* One more: the new offer exists while room is made for it. */
    *queue = (struct kvbi_in_queue){.memory = memory,
                                    .capacity = capacity,
                                    .offer_count = capacity + others + 1,
                                    .free_head = KVBI_NONE};
    queue->offers = kvbi_memory_alloc(memory, queue->offer_count, sizeof *queue->offers, 64);
    if (queue->offers == NULL) {
        *queue = (struct kvbi_in_queue){0};
        return KVB_ENOMEM;
    }
    kvbi_bands_init(&queue->waiting, &queue->offers[0].node, sizeof *queue->offers);
    kvbi_fenced_init(&queue->fenced, &queue->offers[0].node, sizeof *queue->offers);
    return 0;
}

void kvbi_in_queue_destroy(struct kvbi_in_queue *queue)
{
    if (queue->memory != NULL)
        kvbi_memory_free(queue->memory, queue->offers, queue->offer_count, sizeof *queue->offers);
    *queue = (struct kvbi_in_queue){0};
}

size_t kvbi_in_queue_bytes(const struct kvbi_in_queue *queue)
{
    return (size_t)queue->offer_count * sizeof *queue->offers;
}

uint32_t kvbi_in_queue_new(struct kvbi_in_queue *queue, uint32_t slot, uint64_t generation,
                           uint8_t priority)
{
    uint32_t id = queue->free_head;
    if (id != KVBI_NONE)
        queue->free_head = queue->offers[id].node.next;
    else
        id = queue->untouched++;
    queue->offers[id] = (struct kvbi_offer){
        .slot = slot, .generation = generation, .priority = priority, .target = KVBI_NONE};
    return id;
}

void kvbi_in_queue_free(struct kvbi_in_queue *queue, uint32_t id)
{
    queue->offers[id].stage = KVBI_OFFER_FREE;
    queue->offers[id].node.next = queue->free_head;
    queue->free_head = id;
}

/* The next to be shed, which stays where it is. KVBI_NONE: nothing waits. */
static uint32_t least_wanted(const struct kvbi_in_queue *queue)
{
    uint32_t ready = kvbi_bands_youngest_of_lowest(&queue->waiting),
             fenced = kvbi_bands_youngest_of_lowest(&queue->fenced.list);
    if (ready == KVBI_NONE || fenced == KVBI_NONE)
        return ready == KVBI_NONE ? fenced : ready;
    return queue->offers[fenced].priority <= queue->offers[ready].priority ? fenced : ready;
}

/*
 * Makes room for one more. Returns what is shed for it, taken out; `id` if that is no better;
 * KVBI_NONE if there was room.
 */
static uint32_t make_room(struct kvbi_in_queue *queue, uint32_t id, bool fenced)
{
    if (kvbi_in_queue_count(queue) < queue->capacity)
        return KVBI_NONE;
    uint32_t shed = least_wanted(queue);
    const struct kvbi_offer *least = &queue->offers[shed], *offer = &queue->offers[id];
    bool yields = !fenced && least->stage == KVBI_OFFER_FENCED;
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

uint32_t kvbi_in_queue_fence(struct kvbi_in_queue *queue, uint32_t id, struct kvbi_point point,
                             struct kvbi_point reached)
{
    uint32_t shed = make_room(queue, id, true);
    if (shed == id)
        return id;
    queue->offers[id].stage = KVBI_OFFER_FENCED;
    kvbi_fenced_add(&queue->fenced, id, queue->offers[id].priority, point, reached);
    return shed;
}

void kvbi_in_queue_unfence(struct kvbi_in_queue *queue, uint32_t id)
{
    kvbi_fenced_remove(&queue->fenced, id);
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
    if (queue->offers[id].stage == KVBI_OFFER_FENCED)
        kvbi_fenced_remove(&queue->fenced, id);
    else
        kvbi_bands_remove(&queue->waiting, id);
}
