/* SPDX-License-Identifier: Apache-2.0 */
/* What answers lead to. See health.h. */
#include "offload/health.h"

#include "store/contents.h"

void kvbi_health_init(struct kvbi_health *health, struct kvbi_store *store, struct kvbi_tier *tiers)
{
    *health = (struct kvbi_health){.store = store, .tiers = tiers};
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++)
        health->lost_cursors[tier] = KVBI_NONE;
}

/* ---- Files ----------------------------------------------------------------------------------- */

static bool has_files(const struct kvbi_health *health, uint32_t tier)
{
    return health->tiers[tier].lasting != NULL;
}

static struct kvbi_file_health *file_of(struct kvbi_health *health, const struct kvbi_pool *pool,
                                        uint32_t slot)
{
    return &health->files[pool->tier][kvbi_pool_file(pool, slot)];
}

void kvbi_health_begun_locked(struct kvbi_health *health, const struct kvbi_pool *pool,
                              uint32_t slot)
{
    kvbi_lock_assert_held(&health->store->lock);
    if (has_files(health, pool->tier))
        file_of(health, pool, slot)->moving++;
}

static bool in_service(const struct kvbi_file_health *file)
{
    return file->stage == KVBI_FILE_SERVING || file->stage == KVBI_FILE_RETURNING;
}

static void lose(struct kvbi_health *health, struct kvbi_pool *pool, struct kvbi_file_health *file)
{
    uint32_t number = (uint32_t)(file - health->files[pool->tier]);
    file->stage = KVBI_FILE_FORGETTING;
    file->cursor = number;
    health->lost_unlogged[pool->tier] |= 1u << number;
    kvbi_store_lose_file_locked(health->store, pool, number);
    while (file->suspect_count > 0)
        kvbi_pool_uncondemn(pool, &pool->slots[file->suspects[--file->suspect_count]]);
}

/* The tier is told with no lock held; until then the file counts as in use. */
static void retire_in_file(struct kvbi_health *health, const struct kvbi_pool *pool,
                           struct kvbi_file_health *file, uint32_t slot)
{
    KVBI_ASSERT(health->condemned_count < KVBI_CONDEMNED_MAX);
    file->moving++;
    uint32_t at = health->condemned_count++;
    health->condemned[at].tier = pool->tier;
    health->condemned[at].slot = slot;
}

/* True, once for each slot: it is now. */
static bool condemn(struct kvbi_pool *pool, uint32_t slot)
{
    struct kvb_block *block = &pool->slots[slot];
    bool already = block->flags & KVBI_SLOT_CONDEMNED;
    block->flags |= KVBI_SLOT_CONDEMNED;
    return !already;
}

static void note_good(struct kvbi_health *health, const struct kvbi_pool *pool,
                      struct kvbi_file_health *file)
{
    file->errors = 0;
    while (file->suspect_count > 0)
        retire_in_file(health, pool, file, file->suspects[--file->suspect_count]);
}

static void note_bad(struct kvbi_health *health, struct kvbi_pool *pool,
                     struct kvbi_file_health *file, uint32_t slot, bool condemned)
{
    if (!in_service(file))
        return; /* its slots are lost anyway */
    if (condemned && condemn(pool, slot))
        file->suspects[file->suspect_count++] = slot;
    if (++file->errors == KVB_DISK_ERRORS_MAX)
        lose(health, pool, file);
}

void kvbi_health_answered_locked(struct kvbi_health *health, struct kvbi_pool *pool, uint32_t slot,
                                 int result, bool condemned)
{
    const struct kvbi_tier *tier = &health->tiers[pool->tier];
    kvbi_lock_assert_held(&health->store->lock);
    if (!has_files(health, pool->tier))
        return;
    struct kvbi_file_health *file = file_of(health, pool, slot);
    file->moving--;
    switch (tier->lasting->answered(tier, result)) {
    case KVBI_ANSWER_GOOD:
        note_good(health, pool, file);
        break;
    case KVBI_ANSWER_BAD:
        note_bad(health, pool, file, slot, condemned);
        break;
    case KVBI_ANSWER_SILENT:
        if (condemned && condemn(pool, slot))
            retire_in_file(health, pool, file, slot);
        break;
    }
}

static void say_lost(const struct kvbi_health *health, uint32_t number, uint32_t files)
{
    const struct kvbi_tier *tier = &health->tiers[number];
    for (; files != 0; files &= files - 1)
        kvbi_log(health->store->log, KVB_LOG_ERROR, KVB_EIO,
                 "tier %s: path %d, %s, is out of service after %d errors in a row: its blocks are "
                 "misses from now on",
                 kvbi_tier_name(number), __builtin_ctz(files),
                 tier->lasting->file_path(tier, (uint32_t)__builtin_ctz(files)),
                 KVB_DISK_ERRORS_MAX);
}

void kvbi_health_tell(struct kvbi_health *health)
{
    for (uint32_t i = 0; i < health->condemned_count; i++) {
        struct kvbi_tier *tier = &health->tiers[health->condemned[i].tier];
        tier->lasting->retire(tier, health->condemned[i].slot);
        kvbi_log(health->store->log, KVB_LOG_WARN, KVB_EIO, "tier %s: slot %u is not used any more",
                 kvbi_tier_name(tier->tier), health->condemned[i].slot);
    }
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT; tier++) {
        say_lost(health, tier, health->lost_unlogged[tier]);
        health->lost_unlogged[tier] = 0;
    }
    if (health->condemned_count == 0)
        return;
    kvbi_lock_take(&health->store->lock);
    while (health->condemned_count > 0) {
        uint32_t at = --health->condemned_count;
        const struct kvbi_pool *pool = &health->store->pools[health->condemned[at].tier];
        file_of(health, pool, health->condemned[at].slot)->moving--;
    }
    kvbi_lock_release(&health->store->lock);
}

/* The next file of this tier that is being forgotten. False: there is none. */
static bool forget_files(struct kvbi_health *health, struct kvbi_pool *pool)
{
    for (uint32_t number = 0; number < pool->file_count; number++) {
        struct kvbi_file_health *file = &health->files[pool->tier][number];
        if (file->stage != KVBI_FILE_FORGETTING)
            continue;
        if (!kvbi_store_forget_file_locked(health->store, pool, number, &file->cursor))
            file->stage = KVBI_FILE_OUT;
        return true;
    }
    return false;
}

enum kvbi_file_state kvbi_health_state_locked(const struct kvbi_health *health,
                                              const struct kvbi_pool *pool, uint32_t number)
{
    const struct kvbi_file_health *file = &health->files[pool->tier][number];
    kvbi_lock_assert_held(&health->store->lock);
    if (in_service(file))
        return KVBI_FILE_IN_SERVICE;
    return file->stage == KVBI_FILE_OUT && file->moving == 0 ? KVBI_FILE_OUT_OF_SERVICE
                                                             : KVBI_FILE_BUSY;
}

bool kvbi_health_put_back_locked(struct kvbi_health *health, struct kvbi_pool *pool,
                                 uint32_t number)
{
    kvbi_lock_assert_held(&health->store->lock);
    struct kvbi_file_health *file = &health->files[pool->tier][number];
    if (kvbi_health_state_locked(health, pool, number) == KVBI_FILE_OUT_OF_SERVICE) {
        *file = (struct kvbi_file_health){.stage = KVBI_FILE_RETURNING, .cursor = number};
        /* First: what it frees is not to be lost again. */
        kvbi_store_serve_file_locked(health->store, pool, number);
    }
    if (file->stage != KVBI_FILE_RETURNING)
        return false;
    if (kvbi_store_put_back_file_locked(health->store, pool, number, &file->cursor))
        return true;
    file->stage = KVBI_FILE_SERVING;
    return false;
}

/* ---- Tiers ----------------------------------------------------------------------------------- */

/* With all of its files the tier is out of service; that it is lost is said by itself. */
static void lose_all_files(struct kvbi_health *health, uint32_t tier)
{
    struct kvbi_pool *pool = &health->store->pools[tier];
    uint32_t unsaid = health->lost_unlogged[tier];
    for (uint32_t file = 0; file < pool->file_count; file++)
        if (in_service(&health->files[tier][file]))
            lose(health, pool, &health->files[tier][file]);
    health->lost_unlogged[tier] = unsaid;
}

/* True the first time. */
static bool lose_tier_locked(struct kvbi_health *health, uint32_t tier)
{
    uint8_t bit = (uint8_t)(1u << tier);
    if (!(health->store->serving & bit))
        return false;
    if (has_files(health, tier)) {
        lose_all_files(health, tier);
        return true;
    }
    health->store->serving &= (uint8_t)~bit;
    health->lost_cursors[tier] = 0;
    return true;
}

bool kvbi_health_look(struct kvbi_health *health)
{
    char why[160];
    bool any = false;
    for (uint32_t number = 0; number < KVB_TIER_COUNT; number++) {
        const struct kvbi_tier *tier = &health->tiers[number];
        if (tier->ops == NULL || !tier->ops->lost(tier, why, sizeof why))
            continue;
        kvbi_lock_take(&health->store->lock);
        bool first = lose_tier_locked(health, number);
        kvbi_lock_release(&health->store->lock);
        if (first)
            kvbi_log(health->store->log, KVB_LOG_ERROR, KVB_EDEVICE,
                     "tier %s is out of service: %s; its blocks are misses from now on",
                     kvbi_tier_name(number), why);
        any |= first;
    }
    return any;
}

static bool forget_tier(struct kvbi_health *health, struct kvbi_pool *pool)
{
    uint64_t *cursor = &health->lost_cursors[pool->tier];
    if (*cursor == KVBI_NONE)
        return false;
    if (!kvbi_store_forget_file_locked(health->store, pool, 0, cursor))
        *cursor = KVBI_NONE;
    return true;
}

bool kvbi_health_forget_locked(struct kvbi_health *health)
{
    kvbi_lock_assert_held(&health->store->lock);
    bool worked = false;
    for (uint32_t tier = 0; tier < KVB_TIER_COUNT && !worked; tier++) {
        struct kvbi_pool *pool = &health->store->pools[tier];
        worked = has_files(health, tier) ? forget_files(health, pool) : forget_tier(health, pool);
    }
    return worked;
}
