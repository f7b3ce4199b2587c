/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Labels: what the table of a disk is to say about the blocks that a lane is writing there.
 *
 * Owns       one label for each copy that the lane may have with the engine.
 * Callers    offload/lane: takes one when it aims a copy, gives it back when the copy is over.
 * Lock       the store's. The engine reads a label that is taken without it: nobody writes it then.
 */
#ifndef KVBI_OFFLOAD_LABELS_H
#define KVBI_OFFLOAD_LABELS_H

#include <stddef.h>
#include <stdint.h>

#include "base/memory.h"
#include "store/store.h"
#include "transfer/label.h"

struct kvbi_labels {
    const struct kvbi_memory *memory;
    struct kvbi_label *labels;
    uint32_t *free_stack;
    uint32_t capacity, free_count;
};

int kvbi_labels_create(struct kvbi_labels *labels, const struct kvbi_memory *memory,
                       uint32_t capacity);            /* KVB_ENOMEM */
void kvbi_labels_destroy(struct kvbi_labels *labels); /* legal on a zeroed object */
size_t kvbi_labels_bytes(const struct kvbi_labels *labels);

/*
 * Describes `block`, a slot of the disk that is about to be filled with its entry's content. There
 * must be one left. A priority that is for a time only is not written down: after a restart it
 * would be for ever.
 */
struct kvbi_label *kvbi_labels_take_locked(struct kvbi_labels *labels,
                                           const struct kvbi_store *store,
                                           const struct kvb_block *block, uint32_t payload_bytes);
void kvbi_labels_give_locked(struct kvbi_labels *labels, const struct kvbi_store *store,
                             const struct kvbi_label *label);

#endif
