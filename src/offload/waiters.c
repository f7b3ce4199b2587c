/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rings of those who wait. See waiters.h. Heads and links of nobody are 0, so that fresh memory
 * will do.
 */
#include "offload/waiters.h"

#include "base/debug.h"

_Static_assert(sizeof(struct kvbi_waiter) == 32, "two to a cache line");

int kvbi_waiters_create(struct kvbi_waiters *waiters, const struct kvbi_memory *memory,
                        uint32_t count)
{
    *waiters = (struct kvbi_waiters){.memory = memory, .count = count};
    waiters->nodes = kvbi_memory_alloc(memory, count, sizeof *waiters->nodes, 64);
    if (waiters->nodes != NULL)
        return 0;
    *waiters = (struct kvbi_waiters){0};
    return KVB_ENOMEM;
}

void kvbi_waiters_destroy(struct kvbi_waiters *waiters)
{
    if (waiters->memory != NULL)
        kvbi_memory_free(waiters->memory, waiters->nodes, waiters->count, sizeof *waiters->nodes);
    *waiters = (struct kvbi_waiters){0};
}

size_t kvbi_waiters_bytes(const struct kvbi_waiters *waiters)
{
    return (size_t)waiters->count * sizeof *waiters->nodes;
}

/* ---- Rings ----------------------------------------------------------------------------------- */

/* The closed ring of `oldest` goes behind all of those in another one. */
static void append_ring(struct kvbi_waiters *waiters, uint32_t *head, uint32_t oldest)
{
    struct kvbi_waiter *nodes = waiters->nodes;
    if (*head == 0) {
        *head = oldest + 1;
        return;
    }
    uint32_t first = *head - 1, last = nodes[first].prev, youngest = nodes[oldest].prev;
    nodes[last].next = oldest;
    nodes[oldest].prev = last;
    nodes[youngest].next = first;
    nodes[first].prev = youngest;
}

static void leave_ring(struct kvbi_waiters *waiters, uint32_t *head, uint32_t id)
{
    struct kvbi_waiter *nodes = waiters->nodes, *node = &nodes[id];
    if (node->next == id)
        *head = 0;
    else if (*head == id + 1)
        *head = node->next + 1;
    nodes[node->prev].next = node->next;
    nodes[node->next].prev = node->prev;
}

static bool has_ended(const struct kvbi_waiters *waiters, uint32_t id)
{
    const struct kvbi_waiter *node = &waiters->nodes[id];
    return waiters->nodes[node->on - 1].fill != node->on_fill;
}

/* Do both wait for the same fill? */
static bool together(const struct kvbi_waiters *waiters, uint32_t a, uint32_t b)
{
    const struct kvbi_waiter *nodes = waiters->nodes;
    return a != b && nodes[a].on == nodes[b].on && nodes[a].on_fill == nodes[b].on_fill;
}

/* ---- Waiting --------------------------------------------------------------------------------- */

void kvbi_waiters_wait(struct kvbi_waiters *waiters, uint32_t id, uint32_t slot,
                       enum kvbi_wait kind)
{
    struct kvbi_waiter *node = &waiters->nodes[id], *filled = &waiters->nodes[slot];
    KVBI_ASSERT(node->on == 0 && id != slot);
    node->on = slot + 1;
    node->on_fill = filled->fill;
    node->kind = (uint8_t)kind;
    node->prev = node->next = id;
    append_ring(waiters, &filled->first[kind], id);
}

uint32_t kvbi_waiters_first(const struct kvbi_waiters *waiters, uint32_t slot, enum kvbi_wait kind)
{
    return waiters->nodes[slot].first[kind] - 1;
}

bool kvbi_waiters_waits(const struct kvbi_waiters *waiters, uint32_t id)
{
    return waiters->nodes[id].on != 0;
}

uint32_t kvbi_waiters_on(const struct kvbi_waiters *waiters, uint32_t id)
{
    return kvbi_waiters_waits(waiters, id) && !has_ended(waiters, id) ? waiters->nodes[id].on - 1
                                                                      : KVBI_NONE;
}

uint32_t kvbi_waiters_came(const struct kvbi_waiters *waiters, uint32_t id)
{
    const struct kvbi_waiter *node = &waiters->nodes[id];
    if (node->on == 0)
        return KVBI_NONE;
    /* One that ended well is the latest: the slot is not filled again before all are told. */
    const struct kvbi_waiter *filled = &waiters->nodes[node->on - 1];
    return filled->good && filled->fill == node->on_fill + 1 ? node->on - 1 : KVBI_NONE;
}

/* ---- Ending ---------------------------------------------------------------------------------- */

bool kvbi_waiters_end(struct kvbi_waiters *waiters, uint32_t slot, bool good)
{
    struct kvbi_waiter *filled = &waiters->nodes[slot];
    bool any = false;
    for (unsigned kind = 0; kind < KVBI_WAIT_KINDS; kind++) {
        if (filled->first[kind] == 0)
            continue;
        append_ring(waiters, &waiters->ended, filled->first[kind] - 1);
        filled->first[kind] = 0;
        any = true;
    }
    if (any) {
        filled->fill++;
        filled->good = good;
    }
    return any;
}

struct kvbi_waited kvbi_waiters_stop(struct kvbi_waiters *waiters, uint32_t id)
{
    struct kvbi_waiter *node = &waiters->nodes[id];
    KVBI_ASSERT(node->on != 0);
    struct kvbi_waiter *filled = &waiters->nodes[node->on - 1];
    struct kvbi_waited waited = {.id = id, .slot = node->on - 1, .ended = has_ended(waiters, id)};
    if (waited.ended) {
        waited.good = kvbi_waiters_came(waiters, id) != KVBI_NONE;
        waited.last = !together(waiters, id, node->next) && !together(waiters, id, node->prev);
        leave_ring(waiters, &waiters->ended, id);
    } else {
        leave_ring(waiters, &filled->first[node->kind], id);
    }
    node->on = 0;
    return waited;
}

bool kvbi_waiters_next(struct kvbi_waiters *waiters, struct kvbi_waited *waited)
{
    if (waiters->ended == 0)
        return false;
    *waited = kvbi_waiters_stop(waiters, waiters->ended - 1);
    return true;
}

/* ---- Checking -------------------------------------------------------------------------------- */

static uint32_t ring_length(const struct kvbi_waiters *waiters, uint32_t head)
{
    uint32_t length = 0;
    if (head == 0)
        return 0;
    for (uint32_t id = head - 1; length == 0 || id != head - 1; id = waiters->nodes[id].next)
        length++;
    return length;
}

static const char *check_ring(const struct kvbi_waiters *waiters, uint32_t slot, unsigned kind)
{
    uint32_t head = waiters->nodes[slot].first[kind], id = head - 1;
    for (uint32_t n = ring_length(waiters, head); n > 0; n--, id = waiters->nodes[id].next) {
        const struct kvbi_waiter *node = &waiters->nodes[id];
        if (node->on != slot + 1 || node->kind != kind || has_ended(waiters, id))
            return "a slot's ring has those who wait for its fill";
        if (waiters->nodes[node->next].prev != id)
            return "rings are linked both ways";
    }
    return NULL;
}

const char *kvbi_waiters_check(const struct kvbi_waiters *waiters)
{
    uint32_t waiting = 0, found = ring_length(waiters, waiters->ended);
    for (uint32_t slot = 0; slot < waiters->count; slot++) {
        waiting += waiters->nodes[slot].on != 0;
        for (unsigned kind = 0; kind < KVBI_WAIT_KINDS; kind++) {
            const char *wrong = check_ring(waiters, slot, kind);
            if (wrong != NULL)
                return wrong;
            found += ring_length(waiters, waiters->nodes[slot].first[kind]);
        }
    }
    return waiting == found ? NULL : "who waits is in one ring";
}
