/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every invariant of the store, by walking everything. For tests: no call of the library's own
 * comes here.
 *
 * Callers    api/check. Lock: the store's.
 */
#include "store/contents.h"
#include "store/store.h"

static const char *check_place(const struct kvbi_store *store, const struct kvbi_pool *pool,
                               const struct kvb_block *block)
{
    uint64_t users = kvbi_word_users(atomic_load_explicit(&block->word, memory_order_acquire));
    struct kvbi_life life = kvbi_life_get(block);
    bool ordered = pool->policy->ops->contains(pool->policy, kvbi_pool_slot(pool, block));
    bool passed = block->flags & KVBI_SLOT_PASSED;
    if ((block->place == KVBI_PLACE_USED) != (users > 0))
        return "USED exactly while users > 0";
    if (ordered != (block->place == KVBI_PLACE_PARKED && !passed))
        return "in the order exactly while PARKED and not PASSED";
    if (passed && block->holds == 0)
        return "PASSED only while held";
    if (block->holds < kvbi_slot_ondeck(block))
        return "what is on deck is pinned";
    if ((block->flags & KVBI_SLOT_LOST) && block->place != KVBI_PLACE_RETIRED)
        return "LOST only while RETIRED";
    switch (block->place) {
    case KVBI_PLACE_FREE:
        return life.state == KVB_STATE_EMPTY && block->entry == KVBI_NONE &&
                       block->record == KVBI_NONE && block->holds == 0 &&
                       block->offer == KVBI_NONE && block->flags == 0
                   ? NULL
                   : "a FREE slot is Empty and has nothing";
    case KVBI_PLACE_PARKED:
        return life.state == KVB_STATE_REGISTERED && block->entry != KVBI_NONE
                   ? NULL
                   : "PARKED means Registered and indexed";
    case KVBI_PLACE_TRANSFER:
    case KVBI_PLACE_QUARANTINED:
        return block->holds > 0 ? NULL : "a slot in transfer is held";
    default:
        break;
    }
    if (block->place == KVBI_PLACE_USED && life.state != KVB_STATE_REGISTERED &&
        block->record == KVBI_NONE)
        return "an unregistered block that is used owns a record";
    (void)store;
    return NULL;
}

static const char *check_entry_of(const struct kvbi_store *store, const struct kvbi_pool *pool,
                                  const struct kvb_block *block)
{
    if (block->entry == KVBI_NONE)
        return NULL;
    const struct kvbi_entry *entry = kvbi_index_at(&store->index, block->entry);
    bool ready = entry->ready & 1u << pool->tier;
    if (!entry->used || entry->copies[pool->tier] != kvbi_pool_slot(pool, block))
        return "a block's entry names the block";
    if (ready != (kvbi_life_get(block).state == KVB_STATE_REGISTERED))
        return "a copy is ready exactly when its block is Registered";
    return NULL;
}

static const char *check_pool(const struct kvbi_store *store, const struct kvbi_pool *pool)
{
    uint32_t counts[KVBI_PLACE_RETIRED + 1] = {0}, held = 0, revocable = 0, ordered = 0;
    uint32_t retired[KVB_DISK_PATHS_MAX] = {0};
    const char *wrong = NULL;
    for (uint32_t i = 0; i < pool->block_count && wrong == NULL; i++) {
        const struct kvb_block *block = &pool->slots[i];
        counts[block->place]++;
        retired[kvbi_pool_file(pool, i)] += block->place == KVBI_PLACE_RETIRED;
        if (block->place == KVBI_PLACE_PARKED) {
            held += block->holds > 0;
            revocable += kvbi_slot_is_revocable(block);
            ordered += !(block->flags & KVBI_SLOT_PASSED);
        }
        wrong = kvbi_life_check(block, store->hash.tokens_per_block);
        if (wrong == NULL)
            wrong = check_place(store, pool, block);
        if (wrong == NULL)
            wrong = check_entry_of(store, pool, block);
    }
    if (wrong != NULL)
        return wrong;
    if (counts[KVBI_PLACE_FREE] != pool->free_count ||
        counts[KVBI_PLACE_USED] != pool->used_count ||
        counts[KVBI_PLACE_PARKED] != pool->parked_count ||
        counts[KVBI_PLACE_RETIRED] != pool->retired_count ||
        counts[KVBI_PLACE_TRANSFER] + counts[KVBI_PLACE_QUARANTINED] != pool->transfer_count)
        return "the counts by place are those of the slots";
    for (uint32_t file = 0; file < pool->file_count; file++)
        if (retired[file] != pool->files[file].retired)
            return "retired slots are counted by file";
    if (held != pool->parked_held_count || revocable != pool->revocable_count)
        return "held and revocable are those of the parked slots";
    if (ordered != pool->policy->ops->count(pool->policy))
        return "the order holds what is parked";
    return NULL;
}

static const char *check_index(const struct kvbi_store *store)
{
    uint32_t used = 0;
    for (uint32_t id = 0; id < store->index.untouched; id++) {
        const struct kvbi_entry *entry = kvbi_index_at(&store->index, id);
        bool any = false, in_memory = false;
        if (!entry->used)
            continue;
        used++;
        for (unsigned tier = 0; tier < KVB_TIER_COUNT; tier++) {
            if (entry->copies[tier] == KVBI_NONE) {
                if (entry->ready & 1u << tier)
                    return "a ready copy exists";
                continue;
            }
            any = true;
            in_memory |= (entry->ready & 1u << tier) && store->pools[tier].in_memory;
            if (store->pools[tier].slots[entry->copies[tier]].entry != id)
                return "an entry's copies name the entry";
        }
        if (!any)
            return "an entry has a copy";
        if (entry->record != KVBI_NONE && !in_memory)
            return "an entry without a copy in memory has no record";
        if (kvbi_index_find(&store->index, entry->name.hash,
                            store->index.key_bytes > 0 ? kvbi_index_key(&store->index, id)
                                                       : NULL) != id)
            return "an entry is found by its name";
    }
    return used == store->index.count ? NULL : "the index counts its entries";
}

/* Users of records: blocks that own one, entries, events in the ring or being delivered, walks. */
static const char *check_records(const struct kvbi_store *store)
{
    uint64_t expected = 0, users = 0;
    for (unsigned tier = 0; tier < KVB_TIER_COUNT; tier++)
        for (uint32_t i = 0; i < store->pools[tier].block_count; i++)
            expected += store->pools[tier].slots[i].record != KVBI_NONE;
    for (uint32_t id = 0; id < store->index.untouched; id++)
        expected += kvbi_index_at(&store->index, id)->used &&
                    kvbi_index_at(&store->index, id)->record != KVBI_NONE;
    expected += kvbi_event_log_records(&store->events) + store->events.shown + store->walked;
    for (uint32_t i = 0; i < store->records.capacity; i++)
        users += kvbi_store_record(store, i)->users;
    return users == expected ? NULL
                             : "every user of a record is a block, an entry, an event or a walk";
}

const char *kvbi_store_check_locked(struct kvbi_store *store)
{
    kvbi_lock_assert_held(&store->lock);
    const char *wrong = NULL;
    for (unsigned tier = 0; tier < KVB_TIER_COUNT && wrong == NULL; tier++)
        if (store->pools[tier].slots != NULL)
            wrong = check_pool(store, &store->pools[tier]);
    if (wrong == NULL)
        wrong = check_index(store);
    if (wrong == NULL)
        wrong = check_records(store);
    return wrong;
}

uint32_t kvbi_store_longest_hold_locked(struct kvbi_store *store)
{
    uint32_t longest = 0;
    kvbi_lock_assert_held(&store->lock);
#if KVBI_DEBUG
    longest = store->lock.steps_max;
    store->lock.steps_max = 0;
#endif
    return longest;
}
