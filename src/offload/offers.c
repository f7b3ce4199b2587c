/* SPDX-License-Identifier: Apache-2.0 */
/* A fixed pool of offers, and the chain through those of a block. See offers.h. */
#include "offload/offers.h"

#include <kvblock.h>

#include "base/debug.h"

int kvbi_offers_create(struct kvbi_offers *offers, const struct kvbi_memory *memory, uint32_t count)
{
    *offers = (struct kvbi_offers){.memory = memory, .count = count, .free_head = KVBI_NONE};
    offers->all = kvbi_memory_alloc(memory, count, sizeof *offers->all, 64);
    if (offers->all != NULL)
        return 0;
    *offers = (struct kvbi_offers){0};
    return KVB_ENOMEM;
}

void kvbi_offers_destroy(struct kvbi_offers *offers)
{
    if (offers->memory != NULL)
        kvbi_memory_free(offers->memory, offers->all, offers->count, sizeof *offers->all);
    *offers = (struct kvbi_offers){0};
}

size_t kvbi_offers_bytes(const struct kvbi_offers *offers)
{
    return (size_t)offers->count * sizeof *offers->all;
}

uint32_t kvbi_offers_new(struct kvbi_offers *offers, struct kvb_block *block, uint32_t slot,
                         uint8_t lane, uint8_t priority)
{
    uint32_t id = offers->free_head;
    if (id != KVBI_NONE)
        offers->free_head = offers->all[id].node.next;
    else
        id = offers->untouched++;
    KVBI_ASSERT(id < offers->count);
    uint64_t word = atomic_load_explicit(&block->word, memory_order_relaxed);
    offers->all[id] = (struct kvbi_offer){.generation = kvbi_word_generation(word),
                                          .slot = slot,
                                          .target = KVBI_NONE,
                                          .other = block->offer,
                                          .priority = priority,
                                          .lane = lane};
    block->offer = id;
    return id;
}

void kvbi_offers_unlink(const struct kvbi_offers *offers, struct kvb_block *block, uint32_t id)
{
    uint32_t *link = &block->offer;
    while (*link != KVBI_NONE && *link != id)
        link = &offers->all[*link].other;
    if (*link == id)
        *link = offers->all[id].other;
}

void kvbi_offers_free(struct kvbi_offers *offers, uint32_t id)
{
    offers->all[id].stage = KVBI_OFFER_FREE;
    offers->all[id].node.next = offers->free_head;
    offers->free_head = id;
}
