/* SPDX-License-Identifier: Apache-2.0 */
/* A fixed pool of labels. See labels.h. */
#include "offload/labels.h"

#include <string.h>

int kvbi_labels_create(struct kvbi_labels *labels, const struct kvbi_memory *memory,
                       uint32_t capacity)
{
    *labels = (struct kvbi_labels){.memory = memory, .capacity = capacity, .free_count = capacity};
    labels->labels = kvbi_memory_alloc(memory, capacity, sizeof *labels->labels, 64);
    labels->free_stack = kvbi_memory_alloc(memory, capacity, sizeof *labels->free_stack, 0);
    if (labels->labels == NULL || labels->free_stack == NULL) {
        kvbi_labels_destroy(labels);
        return KVB_ENOMEM;
    }
    for (uint32_t i = 0; i < capacity; i++)
        labels->free_stack[i] = i;
    return 0;
}

void kvbi_labels_destroy(struct kvbi_labels *labels)
{
    if (labels->memory == NULL)
        return;
    kvbi_memory_free(labels->memory, labels->free_stack, labels->capacity,
                     sizeof *labels->free_stack);
    kvbi_memory_free(labels->memory, labels->labels, labels->capacity, sizeof *labels->labels);
    *labels = (struct kvbi_labels){.memory = NULL};
}

size_t kvbi_labels_bytes(const struct kvbi_labels *labels)
{
    return (size_t)labels->capacity * (sizeof *labels->labels + sizeof *labels->free_stack);
}

static void describe(struct kvbi_label *label, const struct kvbi_store *store,
                     const struct kvb_block *block, uint32_t payload_bytes)
{
    const struct kvbi_index *index = &store->index;
    const struct kvbi_entry *entry = kvbi_index_at(index, block->entry);
    const struct kvbi_namespace_name *space =
        kvbi_namespaces_name(&store->namespaces, entry->namespace_id);
    *label = (struct kvbi_label){
        .hash = entry->name.hash,
        .digest = {entry->name.digest[0], entry->name.digest[1]},
        .space_hash = space->salt_hash,
        .space_digest = {space->digest[0], space->digest[1]},
        .generation =
            kvbi_word_generation(atomic_load_explicit(&block->word, memory_order_relaxed)),
        .clears = store->clears,
        .has_parent = (entry->flags & KVBI_ENTRY_HAS_PARENT) != 0,
        .priority = block->retention_ns == 0 ? block->priority : KVB_PRIORITY_DEFAULT,
        .payload_bytes = payload_bytes};
    if (index->key_bytes > 0)
        memcpy(label->key, kvbi_index_key(index, block->entry), index->key_bytes);
    if (!label->has_parent)
        return;
    label->parent_hash = entry->parent_hash;
    if (index->key_bytes > 0)
        memcpy(label->parent_key, kvbi_index_parent_key(index, block->entry), index->key_bytes);
}

struct kvbi_label *kvbi_labels_take_locked(struct kvbi_labels *labels,
                                           const struct kvbi_store *store,
                                           const struct kvb_block *block, uint32_t payload_bytes)
{
    kvbi_lock_assert_held(&store->lock);
    KVBI_ASSERT(labels->free_count > 0);
    struct kvbi_label *label = &labels->labels[labels->free_stack[--labels->free_count]];
    describe(label, store, block, payload_bytes);
    return label;
}

void kvbi_labels_give_locked(struct kvbi_labels *labels, const struct kvbi_store *store,
                             const struct kvbi_label *label)
{
    kvbi_lock_assert_held(&store->lock);
    labels->free_stack[labels->free_count++] = (uint32_t)(label - labels->labels);
}
