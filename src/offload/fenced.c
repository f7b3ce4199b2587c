/* SPDX-License-Identifier: Apache-2.0 */
/* What waits for a fence. See fenced.h. */
#include "offload/fenced.h"

static const struct kvbi_point for_ever = {.ticket = UINT64_MAX, .event = UINT64_MAX};

void kvbi_fenced_init(struct kvbi_fenced *fenced, void *nodes, size_t stride)
{
    *fenced = (struct kvbi_fenced){.until = for_ever, .cursor = KVBI_NONE};
    kvbi_bands_init(&fenced->list, nodes, stride);
}

void kvbi_fenced_keep(struct kvbi_fenced *fenced, struct kvbi_point point,
                      struct kvbi_point reached)
{
    if (point.ticket > reached.ticket && point.ticket - 1 < fenced->until.ticket)
        fenced->until.ticket = point.ticket - 1;
    if (point.event > reached.event && point.event - 1 < fenced->until.event)
        fenced->until.event = point.event - 1;
}

void kvbi_fenced_add(struct kvbi_fenced *fenced, uint32_t index, unsigned band,
                     struct kvbi_point point, struct kvbi_point reached)
{
    kvbi_bands_push_young(&fenced->list, index, band);
    kvbi_fenced_keep(fenced, point, reached);
    if (kvbi_point_reached(point, reached)) /* a signal, since the caller has looked */
        fenced->until = (struct kvbi_point){0};
    fenced->changes++;
}

static void take_out(struct kvbi_fenced *fenced, uint32_t index)
{
    if (fenced->cursor == index)
        fenced->cursor = kvbi_bands_next_in_order(&fenced->list, index);
    kvbi_bands_remove(&fenced->list, index);
}

/* A walk goes upwards: it comes to the node there, once more if it has been here. */
void kvbi_fenced_raise(struct kvbi_fenced *fenced, uint32_t index, unsigned band)
{
    take_out(fenced, index);
    kvbi_bands_push_young(&fenced->list, index, band);
    if (fenced->walking && fenced->cursor == KVBI_NONE)
        fenced->cursor = index;
}

void kvbi_fenced_remove(struct kvbi_fenced *fenced, uint32_t index)
{
    take_out(fenced, index);
    fenced->changes++;
    if (kvbi_fenced_count(fenced) == 0)
        fenced->until = for_ever;
}

bool kvbi_fenced_due(const struct kvbi_fenced *fenced, struct kvbi_point reached)
{
    return fenced->walking || reached.ticket > fenced->until.ticket ||
           reached.event > fenced->until.event;
}

static void begin_walk(struct kvbi_fenced *fenced)
{
    fenced->walking = true;
    fenced->cursor = kvbi_bands_lowest(&fenced->list);
    fenced->until = for_ever;
}

void kvbi_fenced_want_room(struct kvbi_fenced *fenced, uint64_t room)
{
    if (!fenced->for_room) /* else those that came before have not seen what came since */
        fenced->room_seen = room;
    fenced->for_room = true;
}

void kvbi_fenced_note_room(struct kvbi_fenced *fenced, uint64_t room)
{
    if (!fenced->for_room || fenced->room_seen == room || fenced->walking)
        return;
    fenced->for_room = false;
    begin_walk(fenced);
}

uint32_t kvbi_fenced_next(struct kvbi_fenced *fenced)
{
    if (!fenced->walking)
        begin_walk(fenced);
    uint32_t index = fenced->cursor;
    if (index == KVBI_NONE)
        fenced->walking = false;
    else
        fenced->cursor = kvbi_bands_next_in_order(&fenced->list, index);
    return index;
}
