/* SPDX-License-Identifier: Apache-2.0 */
/* What waits for its tickets. See deferred.h. */
#include "offload/deferred.h"

void kvbi_deferred_init(struct kvbi_deferred *deferred, const struct kvbi_lines *lines, void *nodes,
                        size_t stride)
{
    *deferred = (struct kvbi_deferred){.lines = lines, .cursor = KVBI_NONE};
    kvbi_bands_init(&deferred->list, nodes, stride);
}

void kvbi_deferred_keep(struct kvbi_deferred *deferred, struct kvbi_tickets tickets)
{
    kvbi_awaited_add_both(&deferred->awaited, deferred->lines, tickets);
}

void kvbi_deferred_add(struct kvbi_deferred *deferred, uint32_t index, unsigned band,
                       struct kvbi_tickets tickets, const struct kvbi_awaited *targets)
{
    kvbi_bands_push_young(&deferred->list, index, band);
    if (targets != NULL && kvbi_tickets_reached(deferred->lines, tickets))
        kvbi_awaited_merge(&deferred->awaited, targets);
    else /* a ticket may have been reached since the caller has looked */
        kvbi_deferred_keep(deferred, tickets);
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
        kvbi_awaited_clear(&deferred->awaited);
}

bool kvbi_deferred_due(const struct kvbi_deferred *deferred)
{
    return deferred->walking || kvbi_awaited_due(&deferred->awaited, deferred->lines);
}

static void begin_walk(struct kvbi_deferred *deferred)
{
    deferred->walking = true;
    deferred->cursor = kvbi_bands_lowest(&deferred->list);
    kvbi_awaited_clear(&deferred->awaited);
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
