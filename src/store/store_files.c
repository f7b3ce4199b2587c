/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of a tier that go out of service and come back.
 *
 * Callers    offload/health through contents.h. Lock: the store's.
 * Why        losing a file is one step for everybody who looks: no copy there is found from then
 *            on. Forgetting what it has, with its events, and taking its slots back later are many
 *            short ones, so that no call waits for a million slots.
 */
#include "store/contents.h"
#include "store/store.h"

static void note_service(struct kvbi_store *store, const struct kvbi_pool *pool)
{
    uint8_t bit = (uint8_t)(1u << pool->tier);
    uint32_t all = (1u << pool->file_count) - 1;
    store->impaired =
        (uint8_t)(pool->files_out != 0 ? store->impaired | bit : store->impaired & ~bit);
    store->serving =
        (uint8_t)(pool->files_out != all ? store->serving | bit : store->serving & ~bit);
    store->work = true;
}

void kvbi_store_lose_file_locked(struct kvbi_store *store, struct kvbi_pool *pool, uint32_t file)
{
    kvbi_lock_assert_held(&store->lock);
    pool->files_out |= 1u << file;
    note_service(store, pool);
}

void kvbi_store_serve_file_locked(struct kvbi_store *store, struct kvbi_pool *pool, uint32_t file)
{
    kvbi_lock_assert_held(&store->lock);
    pool->files_out &= ~(1u << file);
    note_service(store, pool);
}

bool kvbi_store_forget_file_locked(struct kvbi_store *store, struct kvbi_pool *pool, uint32_t file,
                                   uint64_t *cursor)
{
    kvbi_lock_assert_held(&store->lock);
    KVBI_ASSERT(*cursor % pool->file_count == file);
    for (uint32_t n = 0; n < KVBI_LOCK_BATCH && *cursor < pool->block_count;
         n++, *cursor += pool->file_count) {
        struct kvb_block *block = &pool->slots[*cursor];
        if (block->entry != KVBI_NONE && kvbi_life_get(block).state == KVB_STATE_REGISTERED)
            kvbi_store_forget_copy_locked(store, pool, block);
    }
    return *cursor < pool->block_count;
}

bool kvbi_store_put_back_file_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                                     uint32_t file, uint64_t *cursor)
{
    kvbi_lock_assert_held(&store->lock);
    KVBI_ASSERT(*cursor % pool->file_count == file);
    for (uint32_t n = 0; n < KVBI_LOCK_BATCH && *cursor < pool->block_count;
         n++, *cursor += pool->file_count)
        kvbi_pool_put_back(pool, &pool->slots[*cursor]);
    store->work = true;
    return *cursor < pool->block_count;
}
