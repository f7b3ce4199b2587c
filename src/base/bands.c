/* SPDX-License-Identifier: Apache-2.0 */
/* bands - see bands.h. */
#include "base/bands.h"

#include "base/debug.h"

_Static_assert(sizeof(struct kvbi_band_node) == 16, "four nodes to a cache line");

static struct kvbi_band_node *node_at(const struct kvbi_bands *bands, uint32_t index)
{
    return (struct kvbi_band_node *)(void *)(bands->nodes + (size_t)index * bands->stride);
}

static void mark_filled(struct kvbi_bands *bands, unsigned band)
{
    bands->filled[band / 64] |= UINT64_C(1) << (band % 64);
}

static void mark_empty(struct kvbi_bands *bands, unsigned band)
{
    bands->filled[band / 64] &= ~(UINT64_C(1) << (band % 64));
}

/* The lowest filled band that is >= from, or KVBI_BAND_COUNT. from: 0..KVBI_BAND_COUNT. */
static unsigned filled_from(const struct kvbi_bands *bands, unsigned from)
{
    for (unsigned word = from / 64; word < 2; word++) {
        uint64_t bits = bands->filled[word];
        if (word == from / 64)
            bits &= ~UINT64_C(0) << (from % 64);
        if (bits != 0)
            return word * 64 + (unsigned)__builtin_ctzll(bits);
    }
    return KVBI_BAND_COUNT;
}

void kvbi_bands_init(struct kvbi_bands *bands, void *nodes, size_t stride)
{
    bands->nodes = nodes;
    bands->stride = stride;
    bands->count = 0;
    bands->filled[0] = bands->filled[1] = 0;
    for (unsigned band = 0; band < KVBI_BAND_COUNT; band++)
        bands->oldest[band] = bands->youngest[band] = KVBI_NONE;
}

/*
 * Links `index` between two neighbours of one band, either of which may be KVBI_NONE: the end of
 * the list.
 */
static void link_between(struct kvbi_bands *bands, uint32_t index, unsigned band, uint32_t older,
                         uint32_t younger)
{
    struct kvbi_band_node *node = node_at(bands, index);
    KVBI_ASSERT(!node->linked);
    KVBI_ASSERT(band < KVBI_BAND_COUNT);
    node->prev = older;
    node->next = younger;
    node->band = (uint8_t)band;
    node->linked = 1;
    if (older == KVBI_NONE)
        bands->oldest[band] = index;
    else
        node_at(bands, older)->next = index;
    if (younger == KVBI_NONE)
        bands->youngest[band] = index;
    else
        node_at(bands, younger)->prev = index;
    mark_filled(bands, band);
    bands->count++;
}

void kvbi_bands_push_young(struct kvbi_bands *bands, uint32_t index, unsigned band)
{
    KVBI_ASSERT(band < KVBI_BAND_COUNT);
    link_between(bands, index, band, bands->youngest[band], KVBI_NONE);
}

void kvbi_bands_push_old(struct kvbi_bands *bands, uint32_t index, unsigned band)
{
    KVBI_ASSERT(band < KVBI_BAND_COUNT);
    link_between(bands, index, band, KVBI_NONE, bands->oldest[band]);
}

void kvbi_bands_insert_older_than(struct kvbi_bands *bands, uint32_t index, uint32_t neighbour)
{
    const struct kvbi_band_node *beside = node_at(bands, neighbour);
    KVBI_ASSERT(beside->linked);
    link_between(bands, index, beside->band, beside->prev, neighbour);
}

void kvbi_bands_remove(struct kvbi_bands *bands, uint32_t index)
{
    struct kvbi_band_node *node = node_at(bands, index);
    unsigned band = node->band;
    KVBI_ASSERT(node->linked);
    if (node->prev == KVBI_NONE)
        bands->oldest[band] = node->next;
    else
        node_at(bands, node->prev)->next = node->next;
    if (node->next == KVBI_NONE)
        bands->youngest[band] = node->prev;
    else
        node_at(bands, node->next)->prev = node->prev;
    node->linked = 0;
    if (bands->oldest[band] == KVBI_NONE)
        mark_empty(bands, band);
    bands->count--;
}

bool kvbi_bands_is_linked(const struct kvbi_bands *bands, uint32_t index)
{
    return node_at(bands, index)->linked != 0;
}

uint32_t kvbi_bands_count(const struct kvbi_bands *bands)
{
    return bands->count;
}

uint32_t kvbi_bands_lowest(const struct kvbi_bands *bands)
{
    unsigned band = filled_from(bands, 0);
    return band < KVBI_BAND_COUNT ? bands->oldest[band] : KVBI_NONE;
}

uint32_t kvbi_bands_highest(const struct kvbi_bands *bands)
{
    for (unsigned word = 2; word-- > 0;)
        if (bands->filled[word] != 0)
            return bands->oldest[word * 64 + 63 - (unsigned)__builtin_clzll(bands->filled[word])];
    return KVBI_NONE;
}

uint32_t kvbi_bands_youngest_of_lowest(const struct kvbi_bands *bands)
{
    unsigned band = filled_from(bands, 0);
    return band < KVBI_BAND_COUNT ? bands->youngest[band] : KVBI_NONE;
}

uint32_t kvbi_bands_first(const struct kvbi_bands *bands, unsigned band)
{
    KVBI_ASSERT(band < KVBI_BAND_COUNT);
    return bands->oldest[band];
}

uint32_t kvbi_bands_next(const struct kvbi_bands *bands, uint32_t index)
{
    const struct kvbi_band_node *node = node_at(bands, index);
    KVBI_ASSERT(node->linked);
    return node->next;
}

uint32_t kvbi_bands_next_in_order(const struct kvbi_bands *bands, uint32_t index)
{
    const struct kvbi_band_node *node = node_at(bands, index);
    KVBI_ASSERT(node->linked);
    if (node->next != KVBI_NONE)
        return node->next;
    unsigned band = filled_from(bands, node->band + 1u);
    return band < KVBI_BAND_COUNT ? bands->oldest[band] : KVBI_NONE;
}
