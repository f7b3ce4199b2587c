/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pool: the slots of one tier, and where each of them is.
 *
 * Owns       the slots, the stack of free ones, the eviction order, the counts by place.
 * Callers    store/ only, under the store's lock; slots may be named and found by address without
 *            it.
 * Invariants every slot is in exactly one place (enum kvbi_place) and the counts say how many are
 *            in each. A slot is in the eviction order exactly while it is PARKED and not PASSED.
 *            `pinned`: PARKED with holds > 0; `revocable`: those of which all pins are on-deck
 *            ones. available = free + parked - pinned + revocable.
 *            Slot s is kept in file s % file_count; memory has one file, which is never out. No
 *            slot of a file that is out is given out or freed: it is retired, and marked LOST.
 *            Those that were free stay on the stack until they come up.
 * Lock       the store's.
 */
#ifndef KVBI_STORE_POOL_H
#define KVBI_STORE_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <kvblock.h>

#include "base/memory.h"
#include "block/slot.h"
#include "store/policy.h"

struct kvbi_pool_file {
    uint32_t retired; /* of its slots */
    uint64_t hits;
};

/* Who is told of each block that becomes revocable, or is no longer. */
struct kvbi_pool_watch {
    void (*revocable)(void *context, const struct kvb_block *block, bool is_revocable);
    void *context;
};

struct kvbi_pool {
    const struct kvbi_memory *memory;
    struct kvb_block *slots; /* NULL: no such tier */
    uint32_t *free_stack;
    struct kvbi_policy *policy;
    uint32_t tier;
    uint32_t block_count;
    bool in_memory;    /* its contents have a record */
    bool room_awaited; /* a lane waits for a slot here */
    uint64_t room;     /* how often a slot has become free or evictable */
    uint32_t free_count, used_count, parked_count, transfer_count, retired_count;
    uint32_t parked_held_count, revocable_count;
    struct kvbi_pool_watch watch; /* or nobody */
    uint64_t search_section;      /* the section in which room was looked for last, */
    uint32_t passed;              /* how many slots were passed in it in vain, */
    uint32_t unready;             /* and how many were not ready for a transfer, */
    uint32_t budget;              /* and with how many ended retentions it may still deal, */
    bool cut_short;               /* and whether the last search ended because of that */
    uint64_t allocated, evicted, registered, duplicates, collisions, stale, hits;
    uint64_t last_unrefs; /* how often a user let go of a block for good */
    uint32_t file_count;
    uint32_t files_out; /* bit per file: out of service */
    struct kvbi_pool_file files[KVB_DISK_PATHS_MAX];
};

int kvbi_pool_create(struct kvbi_pool *pool, const struct kvbi_memory *memory, uint32_t tier,
                     uint32_t block_count, uint32_t file_count, bool in_memory,
                     const struct kvbi_policy_ops *policy); /* KVB_ENOMEM */
void kvbi_pool_destroy(struct kvbi_pool *pool);             /* legal on a zeroed object */
size_t kvbi_pool_bytes(const struct kvbi_pool *pool);

static inline uint32_t kvbi_pool_slot(const struct kvbi_pool *pool, const struct kvb_block *block)
{
    return (uint32_t)(block - pool->slots);
}

static inline uint32_t kvbi_pool_available(const struct kvbi_pool *pool)
{
    return pool->free_count + pool->parked_count - pool->parked_held_count + pool->revocable_count;
}

static inline uint32_t kvbi_pool_file(const struct kvbi_pool *pool, uint32_t slot)
{
    return pool->file_count == 1 ? 0 : slot % pool->file_count;
}

/* How many slots are kept there. */
static inline uint32_t kvbi_pool_file_slots(const struct kvbi_pool *pool, uint32_t file)
{
    return file < pool->block_count ? (pool->block_count - file - 1) / pool->file_count + 1 : 0;
}

/* Is the slot's file in service? */
static inline bool kvbi_pool_serves(const struct kvbi_pool *pool, uint32_t slot)
{
    return pool->files_out == 0 || !(pool->files_out & 1u << kvbi_pool_file(pool, slot));
}

/* Is it a slot of this pool? By address alone. */
bool kvbi_pool_owns(const struct kvbi_pool *pool, const struct kvb_block *block);

/*
 * Take the block out of its place's counts, and put it into another's. Every change of place, or of
 * pins, is in between.
 */
void kvbi_pool_leave(struct kvbi_pool *pool, struct kvb_block *block);
void kvbi_pool_enter(struct kvbi_pool *pool, struct kvb_block *block, enum kvbi_place place);

/*
 * Looking for room: one search, take and victim by turns, in the section that has this
 * number. Slots that are of no use are passed, for good, KVBI_LOCK_BATCH in one section: then the
 * search is cut short, finds nothing, and goes on from there in another section.
 */
void kvbi_pool_search(struct kvbi_pool *pool, uint64_t section);
/* One more is passed. False: not in this section. */
bool kvbi_pool_pass(struct kvbi_pool *pool);

/* A free slot, in place `place`. NULL: none is free, or cut short. */
struct kvb_block *kvbi_pool_take(struct kvbi_pool *pool, enum kvbi_place place);
/*
 * Back to the free stack with the next generation; or retired, if there is none, if it is CONDEMNED
 * or its file is out. Its life is Empty by now, and it is not offered any more.
 */
void kvbi_pool_give(struct kvbi_pool *pool, struct kvb_block *block);
/*
 * A slot of a file that is out was CONDEMNED for errors of the whole file: it is LOST with the
 * others, now or when it is given back.
 */
void kvbi_pool_uncondemn(struct kvbi_pool *pool, struct kvb_block *block);
/* Its file is in service again: a LOST slot becomes free. Others are left alone. */
void kvbi_pool_put_back(struct kvbi_pool *pool, struct kvb_block *block);
/* The free stack anew, from the slots that are FREE: slot 0 on top. */
void kvbi_pool_restack(struct kvbi_pool *pool);

/* Effective priority at `now_ns`, and the deadline of it (0: none left). */
unsigned kvbi_pool_band(const struct kvb_block *block, uint64_t now_ns, uint64_t *deadline_ns);

/*
 * The parked block that eviction would take next, of a band of at most `band_max`. Ones that a lane
 * holds are taken out of the order (PASSED) when they are met, and come back oldest when nobody
 * holds them any more. NULL: none, or cut short.
 */
struct kvb_block *kvbi_pool_victim(struct kvbi_pool *pool, unsigned band_max, uint64_t now_ns);

/*
 * A PARKED block leaves the order, because somebody uses it or its content goes. Its place is still
 * PARKED.
 */
void kvbi_pool_take_out_of_order(struct kvbi_pool *pool, struct kvb_block *block);

/*
 * The slots whose content is indexed, from the one that eviction would take first to the last,
 * whatever their deadlines: at most `max`. Those that somebody uses are the last, in the order of
 * their numbers: they are in use. Returns how many.
 */
uint32_t kvbi_pool_order(const struct kvbi_pool *pool, uint32_t *slots, uint32_t max);

/*
 * One lane or operation more, or less, that reads or writes the block. unhold puts a PASSED block
 * back into the order.
 */
void kvbi_pool_hold(struct kvbi_pool *pool, struct kvb_block *block);
void kvbi_pool_unhold(struct kvbi_pool *pool, struct kvb_block *block, uint64_t now_ns);
/*
 * One of its pins, which is there already, is on a lane's deck; or is no longer, and still there.
 */
void kvbi_pool_put_on_deck(struct kvbi_pool *pool, struct kvb_block *block);
void kvbi_pool_take_off_deck(struct kvbi_pool *pool, struct kvb_block *block);

#endif
