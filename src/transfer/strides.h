/* SPDX-License-Identifier: Apache-2.0 */
/*
 * strides - where the chunks of a block lie in memory that somebody else has laid out
 *
 * Owns       the arithmetic of struct kvb_layout's strides, and the check that no two chunks
 *            overlap. Pure.
 * Callers    api/config checks; the tier in CUDA memory keeps one; whoever asks for a chunk's
 *            address.
 * Invariants of one that kvbi_strides_check has accepted: no sum below overflows, all chunks lie
 *            within `span_bytes` of their base and are disjoint.
 * Why        chunks are nested: sorted by stride, each dimension steps over all that the smaller
 *            ones span. Every layout that attention kernels read is of that kind, and then n
 *            comparisons prove what n^2 chunks would have to be compared for.
 */
#ifndef KVBI_TRANSFER_STRIDES_H
#define KVBI_TRANSFER_STRIDES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <kvblock.h>

struct kvbi_strides {
    uint32_t layers, parts;
    uint64_t chunk, layer, part, block; /* bytes */
    unsigned char **bases;              /* one a layer; NULL: layer x stride from the tier's base */
    uint64_t span_bytes;                /* from a base to the end of the last chunk there */
};

/*
 * The layout's strides, 0s resolved, for `block_count` blocks; `layered`: layers have bases of
 * their own, and their stride is none. 0, or KVB_EINVAL with what overlaps or overflows, in words.
 */
int kvbi_strides_read(struct kvbi_strides *strides, const struct kvb_layout *layout,
                      uint32_t block_count, bool layered, char *message, size_t message_bytes);

/* Layers' bases: set, and further apart than what lies at them. 0 or KVB_EINVAL, in words. */
int kvbi_strides_check_bases(const struct kvbi_strides *strides, void *const *bases, char *message,
                             size_t message_bytes);

/* Where a block's chunks lie relative to each other as in all other memory, and blocks as well. */
bool kvbi_strides_contiguous(const struct kvbi_strides *strides);

static inline unsigned char *kvbi_strides_chunk(const struct kvbi_strides *strides,
                                                unsigned char *base, uint32_t slot, uint32_t layer,
                                                uint32_t part)
{
    unsigned char *start =
        strides->bases != NULL ? strides->bases[layer] : base + layer * strides->layer;
    return start + slot * strides->block + part * strides->part;
}

#endif
