/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a block is called, and which record knows.
 *
 * Callers    api/, through store.h. Lock: the store's.
 */
#include "store/store.h"

/* Of a block without an entry: its record's, once all of its tokens are there, or one was given. */
static const void *own_key(const struct kvbi_store *store, const struct kvb_block *block)
{
    struct kvbi_record *record =
        block->record == KVBI_NONE ? NULL : kvbi_store_record(store, block->record);
    bool given = record != NULL && (record->flags & (KVBI_RECORD_NAMED | KVBI_RECORD_GIVEN));
    if (!given || kvbi_life_get(block).state == KVB_STATE_EMPTY)
        return NULL;
    return store->index.key_bytes > 0 ? (const void *)kvbi_record_key(record) : &record->name;
}

const void *kvbi_store_key_of_locked(const struct kvbi_store *store, const struct kvb_block *block)
{
    kvbi_lock_assert_held(&store->lock);
    if (block->entry == KVBI_NONE)
        return own_key(store, block);
    if (!kvbi_store_is_known_locked(store, block))
        return NULL;
    return store->index.key_bytes > 0 ? (const void *)kvbi_index_key(&store->index, block->entry)
                                      : &kvbi_index_at(&store->index, block->entry)->name;
}

uint32_t kvbi_store_lend_record_locked(struct kvbi_store *store, const struct kvb_block *block)
{
    uint32_t record = block->record;
    kvbi_lock_assert_held(&store->lock);
    if (record == KVBI_NONE && kvbi_store_is_known_locked(store, block))
        record = kvbi_index_at(&store->index, block->entry)->record;
    if (record == KVBI_NONE || kvbi_record_names(kvbi_store_record(store, record)) == NULL)
        return KVBI_NONE;
    kvbi_records_ref(&store->records, record);
    return record;
}

void kvbi_store_return_record_locked(struct kvbi_store *store, uint32_t record)
{
    kvbi_lock_assert_held(&store->lock);
    kvbi_records_unref(&store->records, record);
}

int kvbi_store_open_namespace_locked(struct kvbi_store *store, const void *salt, size_t salt_bytes,
                                     const void *adapter, size_t adapter_bytes, uint32_t *id)
{
    kvbi_lock_assert_held(&store->lock);
    return kvbi_namespaces_open(&store->namespaces, &store->hash, salt, salt_bytes, adapter,
                                adapter_bytes, id);
}
