/* SPDX-License-Identifier: Apache-2.0 */
/* deadlines - see deadlines.h. */
#include "base/deadlines.h"

#include "base/debug.h"

#include <stddef.h>

int kvbi_deadlines_create(struct kvbi_deadlines *deadlines, const struct kvbi_memory *memory,
                          uint32_t capacity)
{
    *deadlines = (struct kvbi_deadlines){.memory = memory, .capacity = capacity};
    deadlines->heap = kvbi_memory_alloc_raw(memory, capacity, sizeof *deadlines->heap, 0);
    deadlines->place = kvbi_memory_alloc(memory, capacity, sizeof *deadlines->place, 0);
    if (deadlines->heap != NULL && deadlines->place != NULL)
        return 0;
    kvbi_deadlines_destroy(deadlines);
    return KVB_ENOMEM;
}

void kvbi_deadlines_destroy(struct kvbi_deadlines *deadlines)
{
    if (deadlines->memory == NULL)
        return;
    kvbi_memory_free(deadlines->memory, deadlines->place, deadlines->capacity,
                     sizeof *deadlines->place);
    kvbi_memory_free(deadlines->memory, deadlines->heap, deadlines->capacity,
                     sizeof *deadlines->heap);
    *deadlines = (struct kvbi_deadlines){.memory = NULL};
}

static bool is_before(struct kvbi_deadline a, struct kvbi_deadline b)
{
    if (a.deadline_ns != b.deadline_ns)
        return a.deadline_ns < b.deadline_ns;
    return a.order != b.order ? (int32_t)(a.order - b.order) < 0 : a.id < b.id;
}

static void put(struct kvbi_deadlines *deadlines, uint32_t at, struct kvbi_deadline entry)
{
    deadlines->heap[at] = entry;
    deadlines->place[entry.id] = at + 1;
}

/* Moves the hole at `at` up to where `entry` belongs, and fills it. */
static void sift_up(struct kvbi_deadlines *deadlines, uint32_t at, struct kvbi_deadline entry)
{
    while (at > 0) {
        uint32_t parent = (at - 1) / 2;
        if (!is_before(entry, deadlines->heap[parent]))
            break;
        put(deadlines, at, deadlines->heap[parent]);
        at = parent;
    }
    put(deadlines, at, entry);
}

static void sift_down(struct kvbi_deadlines *deadlines, uint32_t at, struct kvbi_deadline entry)
{
    for (;;) {
        uint64_t child = 2 * (uint64_t)at + 1;
        if (child >= deadlines->count)
            break;
        if (child + 1 < deadlines->count &&
            is_before(deadlines->heap[child + 1], deadlines->heap[child]))
            child++;
        if (!is_before(deadlines->heap[child], entry))
            break;
        put(deadlines, at, deadlines->heap[child]);
        at = (uint32_t)child;
    }
    put(deadlines, at, entry);
}

/* Fills the hole at `at` with `entry`, which may belong above or below it. */
static void sift(struct kvbi_deadlines *deadlines, uint32_t at, struct kvbi_deadline entry)
{
    if (at > 0 && is_before(entry, deadlines->heap[(at - 1) / 2]))
        sift_up(deadlines, at, entry);
    else
        sift_down(deadlines, at, entry);
}

static void insert(struct kvbi_deadlines *deadlines, struct kvbi_deadline entry)
{
    KVBI_ASSERT(entry.id < deadlines->capacity);
    if (deadlines->place[entry.id] != 0)
        sift(deadlines, deadlines->place[entry.id] - 1, entry);
    else
        sift_up(deadlines, deadlines->count++, entry);
}

void kvbi_deadlines_set(struct kvbi_deadlines *deadlines, uint32_t id, uint64_t deadline_ns)
{
    deadlines->order++;
    insert(deadlines,
           (struct kvbi_deadline){.deadline_ns = deadline_ns, .id = id, .order = deadlines->order});
}

void kvbi_deadlines_hand_over(struct kvbi_deadlines *deadlines, uint32_t from, uint32_t to)
{
    KVBI_ASSERT(deadlines->place[from] != 0 && deadlines->place[to] == 0);
    uint32_t at = deadlines->place[from] - 1;
    struct kvbi_deadline entry = deadlines->heap[at];
    entry.id = to;
    deadlines->place[from] = 0;
    put(deadlines, at, entry);
}

void kvbi_deadlines_remove(struct kvbi_deadlines *deadlines, uint32_t id)
{
    KVBI_ASSERT(id < deadlines->capacity);
    /* the former spares a cache miss where nobody has one */
    if (deadlines->count == 0 || deadlines->place[id] == 0)
        return;
    uint32_t hole = deadlines->place[id] - 1;
    deadlines->place[id] = 0;
    deadlines->count--;
    if (hole != deadlines->count)
        sift(deadlines, hole, deadlines->heap[deadlines->count]);
}

bool kvbi_deadlines_is_due(const struct kvbi_deadlines *deadlines, uint32_t id, uint64_t now_ns)
{
    KVBI_ASSERT(id < deadlines->capacity);
    return deadlines->place[id] != 0 &&
           deadlines->heap[deadlines->place[id] - 1].deadline_ns <= now_ns;
}

bool kvbi_deadlines_contains(const struct kvbi_deadlines *deadlines, uint32_t id)
{
    KVBI_ASSERT(id < deadlines->capacity);
    return deadlines->place[id] != 0;
}

uint32_t kvbi_deadlines_count(const struct kvbi_deadlines *deadlines)
{
    return deadlines->count;
}

bool kvbi_deadlines_first(const struct kvbi_deadlines *deadlines, struct kvbi_deadline *first)
{
    if (deadlines->count == 0)
        return false;
    *first = deadlines->heap[0];
    return true;
}

bool kvbi_deadlines_pop_due(struct kvbi_deadlines *deadlines, uint64_t now_ns, uint32_t *id)
{
    if (deadlines->count == 0 || deadlines->heap[0].deadline_ns > now_ns)
        return false;
    *id = deadlines->heap[0].id;
    kvbi_deadlines_remove(deadlines, *id);
    return true;
}
