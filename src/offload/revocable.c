/* SPDX-License-Identifier: Apache-2.0 */
/* A binary heap, the youngest on top. See revocable.h. */
#include "offload/revocable.h"

#include <kvblock.h>

#include "base/debug.h"

int kvbi_revocable_create(struct kvbi_revocable *revocable, const struct kvbi_memory *memory,
                          struct kvbi_offer *offers, uint32_t capacity)
{
    *revocable = (struct kvbi_revocable){.memory = memory, .offers = offers, .capacity = capacity};
    revocable->heap = kvbi_memory_alloc_raw(memory, capacity, sizeof *revocable->heap, 64);
    if (revocable->heap != NULL)
        return 0;
    *revocable = (struct kvbi_revocable){0};
    return KVB_ENOMEM;
}

void kvbi_revocable_destroy(struct kvbi_revocable *revocable)
{
    if (revocable->memory != NULL)
        kvbi_memory_free(revocable->memory, revocable->heap, revocable->capacity,
                         sizeof *revocable->heap);
    *revocable = (struct kvbi_revocable){0};
}

size_t kvbi_revocable_bytes(const struct kvbi_revocable *revocable)
{
    return (size_t)revocable->capacity * sizeof *revocable->heap;
}

/* Places in offers are 1 + the index, so that a fresh offer is nowhere. */
static void put(struct kvbi_revocable *revocable, uint32_t at, struct kvbi_revocable_offer one)
{
    revocable->heap[at] = one;
    revocable->offers[one.offer].node.extra = at + 1;
}

static void rise(struct kvbi_revocable *revocable, uint32_t at, struct kvbi_revocable_offer one)
{
    while (at > 0 && revocable->heap[(at - 1) / 2].age < one.age) {
        put(revocable, at, revocable->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    put(revocable, at, one);
}

static void sink(struct kvbi_revocable *revocable, uint32_t at, struct kvbi_revocable_offer one)
{
    for (uint32_t child; (child = 2 * at + 1) < revocable->count; at = child) {
        if (child + 1 < revocable->count &&
            revocable->heap[child + 1].age > revocable->heap[child].age)
            child++;
        if (revocable->heap[child].age < one.age)
            break;
        put(revocable, at, revocable->heap[child]);
    }
    put(revocable, at, one);
}

void kvbi_revocable_add(struct kvbi_revocable *revocable, uint32_t offer)
{
    KVBI_ASSERT(revocable->count < revocable->capacity);
    KVBI_ASSERT(revocable->offers[offer].node.extra == 0);
    rise(revocable, revocable->count++,
         (struct kvbi_revocable_offer){revocable->offers[offer].ondeck_age, offer});
}

void kvbi_revocable_remove(struct kvbi_revocable *revocable, uint32_t offer)
{
    KVBI_ASSERT(revocable->offers[offer].node.extra != 0);
    uint32_t at = revocable->offers[offer].node.extra - 1;
    struct kvbi_revocable_offer last = revocable->heap[--revocable->count];
    revocable->offers[offer].node.extra = 0;
    if (at == revocable->count)
        return;
    if (at > 0 && revocable->heap[(at - 1) / 2].age < last.age)
        rise(revocable, at, last);
    else
        sink(revocable, at, last);
}
