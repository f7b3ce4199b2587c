/* SPDX-License-Identifier: Apache-2.0 */
/* Places and counts. See pool.h. */
#include "store/pool.h"

#include "base/debug.h"
#include "base/lock.h"
#include "block/lifecycle.h"

int kvbi_pool_create(struct kvbi_pool *pool, const struct kvbi_memory *memory, uint32_t tier,
                     uint32_t block_count, uint32_t file_count, bool in_memory,
                     const struct kvbi_policy_ops *policy)
{
    *pool = (struct kvbi_pool){.memory = memory,
                               .tier = tier,
                               .block_count = block_count,
                               .in_memory = in_memory,
                               .free_count = block_count,
                               .file_count = file_count};
    pool->slots = kvbi_memory_alloc(memory, block_count, sizeof *pool->slots, 64);
    pool->free_stack = kvbi_memory_alloc_raw(memory, block_count, sizeof *pool->free_stack, 64);
    if (pool->slots == NULL || pool->free_stack == NULL ||
        policy->create(&pool->policy, memory, pool->slots, block_count) != 0) {
        kvbi_pool_destroy(pool);
        return KVB_ENOMEM;
    }
    for (uint32_t i = 0; i < block_count; i++) {
        struct kvb_block *block = &pool->slots[i];
        atomic_init(&block->word, UINT64_C(1) << KVBI_USERS_BITS);
        kvbi_life_init(block);
        block->record = block->entry = block->offer = KVBI_NONE;
        kvbi_slot_forget_content(block);
        pool->free_stack[i] = block_count - 1 - i; /* as kvbi_pool_restack */
    }
    return 0;
}

void kvbi_pool_destroy(struct kvbi_pool *pool)
{
    if (pool->memory == NULL)
        return;
    if (pool->policy != NULL)
        pool->policy->ops->destroy(pool->policy);
    kvbi_memory_free(pool->memory, pool->free_stack, pool->block_count, sizeof *pool->free_stack);
    kvbi_memory_free(pool->memory, pool->slots, pool->block_count, sizeof *pool->slots);
    *pool = (struct kvbi_pool){0};
}

size_t kvbi_pool_bytes(const struct kvbi_pool *pool)
{
    if (pool->slots == NULL)
        return 0;
    return (size_t)pool->block_count * (sizeof *pool->slots + sizeof *pool->free_stack) +
           pool->policy->ops->bytes(pool->policy);
}

bool kvbi_pool_owns(const struct kvbi_pool *pool, const struct kvb_block *block)
{
    uintptr_t first = (uintptr_t)pool->slots, address = (uintptr_t)block;
    return pool->slots != NULL && address >= first &&
           address - first < (uintptr_t)pool->block_count * sizeof *pool->slots &&
           (address - first) % sizeof *pool->slots == 0;
}

static uint32_t *place_count(struct kvbi_pool *pool, uint8_t place)
{
    switch (place) {
    case KVBI_PLACE_FREE:
        return &pool->free_count;
    case KVBI_PLACE_USED:
        return &pool->used_count;
    case KVBI_PLACE_PARKED:
        return &pool->parked_count;
    case KVBI_PLACE_RETIRED:
        return &pool->retired_count;
    default:
        return &pool->transfer_count;
    }
}

/* The counts of a slot's file are kept for RETIRED only. */
static uint32_t *retired_of_file(struct kvbi_pool *pool, const struct kvb_block *block)
{
    return &pool->files[kvbi_pool_file(pool, kvbi_pool_slot(pool, block))].retired;
}

static void count_revocable(struct kvbi_pool *pool, const struct kvb_block *block, bool enters)
{
    if (!kvbi_slot_is_revocable(block))
        return;
    pool->revocable_count += enters ? 1 : UINT32_MAX;
    if (pool->watch.revocable != NULL)
        pool->watch.revocable(pool->watch.context, block, enters);
}

void kvbi_pool_leave(struct kvbi_pool *pool, struct kvb_block *block)
{
    --*place_count(pool, block->place);
    if (block->place == KVBI_PLACE_PARKED) {
        pool->parked_held_count -= block->holds > 0;
        count_revocable(pool, block, false);
    } else if (block->place == KVBI_PLACE_RETIRED) {
        --*retired_of_file(pool, block);
    }
}

void kvbi_pool_enter(struct kvbi_pool *pool, struct kvb_block *block, enum kvbi_place place)
{
    block->place = (uint8_t)place;
    ++*place_count(pool, block->place);
    if (place == KVBI_PLACE_PARKED) {
        pool->parked_held_count += block->holds > 0;
        count_revocable(pool, block, true);
    } else if (place == KVBI_PLACE_RETIRED) {
        ++*retired_of_file(pool, block);
    }
}

static void retire(struct kvbi_pool *pool, struct kvb_block *block, enum kvbi_slot_flags why)
{
    block->flags = (uint8_t)why;
    kvbi_pool_enter(pool, block, KVBI_PLACE_RETIRED);
}

static void stack(struct kvbi_pool *pool, struct kvb_block *block)
{
    pool->free_stack[pool->free_count] = kvbi_pool_slot(pool, block);
    kvbi_pool_enter(pool, block, KVBI_PLACE_FREE);
}

void kvbi_pool_search(struct kvbi_pool *pool, uint64_t section)
{
    if (pool->search_section != section)
        pool->passed = pool->unready = 0, pool->budget = KVBI_LOCK_BATCH;
    pool->search_section = section;
    pool->cut_short = false;
}

bool kvbi_pool_pass(struct kvbi_pool *pool)
{
    pool->cut_short = pool->passed == KVBI_LOCK_BATCH;
    pool->passed += !pool->cut_short;
    return !pool->cut_short;
}

struct kvb_block *kvbi_pool_take(struct kvbi_pool *pool, enum kvbi_place place)
{
    while (pool->free_count > 0) {
        kvbi_lock_step();
        uint32_t slot = pool->free_stack[pool->free_count - 1];
        struct kvb_block *block = &pool->slots[slot];
        bool serves = kvbi_pool_serves(pool, slot);
        if (!serves && !kvbi_pool_pass(pool))
            return NULL;
        kvbi_pool_leave(pool, block);
        if (serves) {
            kvbi_pool_enter(pool, block, place);
            return block;
        }
        retire(pool, block, KVBI_SLOT_LOST);
    }
    return NULL;
}

void kvbi_pool_give(struct kvbi_pool *pool, struct kvb_block *block)
{
    uint64_t generation =
        kvbi_word_generation(atomic_load_explicit(&block->word, memory_order_relaxed));
    bool condemned = block->flags & KVBI_SLOT_CONDEMNED;
    KVBI_ASSERT(block->offer == KVBI_NONE);
    kvbi_pool_leave(pool, block);
    block->entry = KVBI_NONE;
    kvbi_slot_forget_content(block); /* `ticket` stays: who wrote here last may be writing still */
    block->flags = 0;
    if (generation < KVBI_GENERATION_MAX)
        atomic_store_explicit(&block->word, (generation + 1) << KVBI_USERS_BITS,
                              memory_order_release);
    if (generation == KVBI_GENERATION_MAX)
        kvbi_pool_enter(pool, block, KVBI_PLACE_RETIRED);
    else if (condemned)
        retire(pool, block, KVBI_SLOT_CONDEMNED);
    else if (!kvbi_pool_serves(pool, kvbi_pool_slot(pool, block)))
        retire(pool, block, KVBI_SLOT_LOST);
    else
        stack(pool, block);
}

void kvbi_pool_uncondemn(struct kvbi_pool *pool, struct kvb_block *block)
{
    KVBI_ASSERT(!kvbi_pool_serves(pool, kvbi_pool_slot(pool, block)));
    if (!(block->flags & KVBI_SLOT_CONDEMNED))
        return;
    block->flags &= (uint8_t)~KVBI_SLOT_CONDEMNED;
    if (block->place == KVBI_PLACE_RETIRED)
        block->flags |= KVBI_SLOT_LOST;
}

void kvbi_pool_put_back(struct kvbi_pool *pool, struct kvb_block *block)
{
    if (!(block->flags & KVBI_SLOT_LOST))
        return;
    kvbi_pool_leave(pool, block);
    block->flags &= (uint8_t)~KVBI_SLOT_LOST;
    stack(pool, block);
}

void kvbi_pool_restack(struct kvbi_pool *pool)
{
    uint32_t count = 0;
    for (uint32_t slot = pool->block_count; slot-- > 0;) /* runs of neighbours for the engines */
        if (pool->slots[slot].place == KVBI_PLACE_FREE)
            pool->free_stack[count++] = slot;
    KVBI_ASSERT(count == pool->free_count);
}

unsigned kvbi_pool_band(const struct kvb_block *block, uint64_t now_ns, uint64_t *deadline_ns)
{
    *deadline_ns = block->retention_ns;
    if (block->retention_ns == 0 || now_ns < block->retention_ns)
        return block->priority;
    *deadline_ns = 0;
    return KVB_PRIORITY_DEFAULT;
}

struct kvb_block *kvbi_pool_victim(struct kvbi_pool *pool, unsigned band_max, uint64_t now_ns)
{
    const struct kvbi_policy_ops *policy = pool->policy->ops;
    for (;;) {
        kvbi_lock_step();
        unsigned band = 0;
        uint32_t slot = policy->victim(pool->policy, now_ns, &pool->budget, &band);
        if (slot == KVBI_NONE && band == KVBI_BAND_AGAIN) {
            /* a section's work has been done on them */
            pool->cut_short = true;
            return NULL;
        }
        if (slot == KVBI_NONE || band > band_max)
            return NULL;
        struct kvb_block *block = &pool->slots[slot];
        if (block->holds == 0)
            return block;
        if (!kvbi_pool_pass(pool))
            return NULL;
        policy->remove(pool->policy, slot);
        block->flags |= KVBI_SLOT_PASSED;
    }
}

void kvbi_pool_take_out_of_order(struct kvbi_pool *pool, struct kvb_block *block)
{
    if (block->flags & KVBI_SLOT_PASSED)
        block->flags &= (uint8_t)~KVBI_SLOT_PASSED;
    else
        pool->policy->ops->remove(pool->policy, kvbi_pool_slot(pool, block));
}

uint32_t kvbi_pool_order(const struct kvbi_pool *pool, uint32_t *slots, uint32_t max)
{
    uint32_t count = pool->policy->ops->order(pool->policy, slots, max);
    for (uint32_t slot = 0; slot < pool->block_count && count < max; slot++) {
        const struct kvb_block *block = &pool->slots[slot];
        if (block->place == KVBI_PLACE_USED && block->entry != KVBI_NONE &&
            kvbi_life_get(block).state == KVB_STATE_REGISTERED)
            slots[count++] = slot;
    }
    return count;
}

void kvbi_pool_hold(struct kvbi_pool *pool, struct kvb_block *block)
{
    enum kvbi_place place = block->place;
    kvbi_pool_leave(pool, block);
    block->holds++;
    kvbi_pool_enter(pool, block, place);
}

void kvbi_pool_unhold(struct kvbi_pool *pool, struct kvb_block *block, uint64_t now_ns)
{
    enum kvbi_place place = block->place;
    kvbi_pool_leave(pool, block);
    block->holds--;
    kvbi_pool_enter(pool, block, place);
    if (block->holds == 0 && (block->flags & KVBI_SLOT_PASSED)) {
        uint64_t deadline_ns;
        unsigned band = kvbi_pool_band(block, now_ns, &deadline_ns);
        block->flags &= (uint8_t)~KVBI_SLOT_PASSED;
        pool->policy->ops->insert_oldest(pool->policy, kvbi_pool_slot(pool, block), band,
                                         deadline_ns);
    }
}

void kvbi_pool_put_on_deck(struct kvbi_pool *pool, struct kvb_block *block)
{
    enum kvbi_place place = block->place;
    kvbi_pool_leave(pool, block);
    block->flags = (uint8_t)(block->flags + KVBI_SLOT_ONDECK);
    KVBI_ASSERT(block->holds >= kvbi_slot_ondeck(block));
    kvbi_pool_enter(pool, block, place);
}

void kvbi_pool_take_off_deck(struct kvbi_pool *pool, struct kvb_block *block)
{
    enum kvbi_place place = block->place;
    kvbi_pool_leave(pool, block);
    KVBI_ASSERT(kvbi_slot_ondeck(block) > 0);
    block->flags = (uint8_t)(block->flags - KVBI_SLOT_ONDECK);
    kvbi_pool_enter(pool, block, place);
}
