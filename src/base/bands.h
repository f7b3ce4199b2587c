/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bands - 101 lists, one per priority, with constant-time access to the lowest and highest that has
 * anything
 *
 * Owns the links `prev`, `next`, `band` and `linked` of nodes embedded in a caller's array; `mark`,
 * `spare` and `extra` are the caller's and never touched. A node is named by its index in that
 * array; a zeroed node is an unlinked one.
 * Callers: eviction policies (priority orders eviction) and queues (priority orders transfers).
 * Invariants: a list runs from oldest (`prev` is KVBI_NONE) to youngest (`next` is KVBI_NONE); bit
 * b of the bitmap is set exactly while list b is not empty; `count` is the number of linked nodes.
 * Lock: the caller's.
 * Why: every operation is O(1) and touches at most three nodes, 16 bytes each.
 */
#ifndef KVBI_BASE_BANDS_H
#define KVBI_BASE_BANDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KVBI_NONE UINT32_MAX
#define KVBI_BAND_COUNT 101 /* priorities 0..100 */

struct kvbi_band_node {
    uint32_t prev; /* older */
    uint32_t next; /* younger */
    uint8_t band;
    uint8_t linked;
    uint8_t mark;
    uint8_t spare;
    uint32_t extra;
};

struct kvbi_bands {
    char *nodes;
    size_t stride;
    uint32_t count;
    uint64_t filled[2]; /* bit b: band b is not empty */
    uint32_t oldest[KVBI_BAND_COUNT];
    uint32_t youngest[KVBI_BAND_COUNT];
};

/*
 * nodes: the node embedded in element 0 of the array; stride: that array's element size. The array
 * must outlive this.
 */
void kvbi_bands_init(struct kvbi_bands *bands, void *nodes, size_t stride);

/* The node must not be linked. band: 0..100. */
void kvbi_bands_push_young(struct kvbi_bands *bands, uint32_t index, unsigned band);
void kvbi_bands_push_old(struct kvbi_bands *bands, uint32_t index, unsigned band);

/*
 * Into the band of `neighbour`, which is linked, directly on its older side: offered just before
 * it.
 */
void kvbi_bands_insert_older_than(struct kvbi_bands *bands, uint32_t index, uint32_t neighbour);

/* The node must be linked. */
void kvbi_bands_remove(struct kvbi_bands *bands, uint32_t index);

bool kvbi_bands_is_linked(const struct kvbi_bands *bands, uint32_t index);
uint32_t kvbi_bands_count(const struct kvbi_bands *bands);

/* All of these: KVBI_NONE if there is none. */
/* oldest of the lowest band that is not empty */
uint32_t kvbi_bands_lowest(const struct kvbi_bands *bands);
/* oldest of the highest band that is not empty */
uint32_t kvbi_bands_highest(const struct kvbi_bands *bands);
uint32_t kvbi_bands_youngest_of_lowest(const struct kvbi_bands *bands);
uint32_t kvbi_bands_first(const struct kvbi_bands *bands, unsigned band); /* oldest of that band */
/* the next younger within the band */
uint32_t kvbi_bands_next(const struct kvbi_bands *bands, uint32_t index);

/*
 * The same, and after the youngest of a band the oldest of the next band above: a walk from
 * kvbi_bands_lowest sees all.
 */
uint32_t kvbi_bands_next_in_order(const struct kvbi_bands *bands, uint32_t index);

#endif
