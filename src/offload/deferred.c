/* SPDX-License-Identifier: Apache-2.0 */
/* What waits for its tickets. See deferred.h. */
#include "offload/deferred.h"

static const struct kvbi_tickets for_ever = {.counter = UINT64_MAX, .stream = UINT64_MAX};

void kvbi_deferred_init(struct kvbi_deferred *deferred, void *nodes, size_t stride)
{
    *deferred = (struct kvbi_deferred){.until = for_ever, .cursor = KVBI_NONE};
    kvbi_bands_init(&deferred->list, nodes, stride);
}

void kvbi_deferred_keep(struct kvbi_deferred *deferred, struct kvbi_tickets tickets,
                        struct kvbi_tickets reached)
{
    if (tickets.counter > reached.counter && tickets.counter - 1 < deferred->until.counter)
        deferred->until.counter = tickets.counter - 1;
    if (tickets.stream > reached.stream && tickets.stream - 1 < deferred->until.stream)
        deferred->until.stream = tickets.stream - 1;
}

void kvbi_deferred_add(struct kvbi_deferred *deferred, uint32_t index, unsigned band,
                       struct kvbi_tickets tickets, struct kvbi_tickets reached)
{
    kvbi_bands_push_young(&deferred->list, index, band);
    kvbi_deferred_keep(deferred, tickets, reached);
    if (kvbi_tickets_reached(tickets, reached)) /* a signal, since the caller has looked */
        deferred->until = (struct kvbi_tickets){0};
    deferred->changes++;
}

static void take_out(struct kvbi_deferred *deferred, uint32_t index)
{
    if (deferred->cursor == index)
        deferred->cursor = kvbi_bands_next_in_order(&deferred->list, index);
    kvbi_bands_remove(&deferred->list, index);
}

/* A walk goes upwards: it comes to the node there, once more if it has been here. */
void kvbi_deferred_raise(struct kvbi_deferred *deferred, uint32_t index, unsigned band)
{
    take_out(deferred, index);
    kvbi_bands_push_young(&deferred->list, index, band);
    if (deferred->walking && deferred->cursor == KVBI_NONE)
        deferred->cursor = index;
}

void kvbi_deferred_remove(struct kvbi_deferred *deferred, uint32_t index)
{
    take_out(deferred, index);
    deferred->changes++;
    if (kvbi_deferred_count(deferred) == 0)
        deferred->until = for_ever;
}

bool kvbi_deferred_due(const struct kvbi_deferred *deferred, struct kvbi_tickets reached)
{
    return deferred->walking || reached.counter > deferred->until.counter ||
           reached.stream > deferred->until.stream;
}

static void begin_walk(struct kvbi_deferred *deferred)
{
    deferred->walking = true;
    deferred->cursor = kvbi_bands_lowest(&deferred->list);
    deferred->until = for_ever;
}

void kvbi_deferred_await_room(struct kvbi_deferred *deferred, uint64_t room)
{
    if (!deferred->for_room) /* else those that came before have not seen what came since */
        deferred->room_seen = room;
    deferred->for_room = true;
}

void kvbi_deferred_note_room(struct kvbi_deferred *deferred, uint64_t room)
{
    if (!deferred->for_room || deferred->room_seen == room || deferred->walking)
        return;
    deferred->for_room = false;
    begin_walk(deferred);
}

uint32_t kvbi_deferred_next(struct kvbi_deferred *deferred)
{
    if (!deferred->walking)
        begin_walk(deferred);
    uint32_t index = deferred->cursor;
    if (index == KVBI_NONE)
        deferred->walking = false;
    else
        deferred->cursor = kvbi_bands_next_in_order(&deferred->list, index);
    return index;
}
