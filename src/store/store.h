/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store: all pools, the index over them, and the one lock that guards both.
 *
 * Owns       pools, index, records, events, pins, namespaces. It knows neither lanes nor engines: a
 *            lane holds blocks, takes targets and reports fills through the calls below.
 * Files      store_build     create, destroy, bytes
 *            store_handles   who uses a block, users and lanes' pins, and its end
 *            store_room      slots for new content: taking, evicting, giving back
 *            store_target    which slot a transfer writes
 *            store_fills     a transfer begins, ends, or is given up
 *            store_register  publishing what was computed
 *            store_match     finding
 *            store_names     what a block is called, and who knows
 *            store_forget    dropping contents from the index; events and pictures of them
 *            store_files     files that go out of service and come back
 *            store_adopt     what outlived an earlier process
 *            store_warm      bringing in what a batch will touch
 *            store_stats     the part of statistics
 *            store_check     every invariant, for tests
 * Callers    offload/ and api/. Functions named ..._locked assert `lock` (in debug builds).
 * Invariants those of its parts, and between them:
 *            - a block with an entry is named in that entry's copies; one being filled has its
 *              ready bit clear;
 *            - PARKED means Registered, with an entry, users 0; USED means users > 0; FREE means
 *              Empty, users 0;
 *            - TRANSFER and QUARANTINED mean users 0 and holds > 0: a lane still reads or writes
 *              there;
 *            - a Registered block without an entry is an unindexed duplicate, was invalidated, or
 *              was named before what it is was forgotten and registered after it: it is freed, not
 *              parked;
 *            - an unregistered block that came from kvb_alloc owns a record; a registered one
 *              shares its entry's.
 *            - no copy in a file that is out of service is found; it stays in the index until it is
 *              forgotten;
 *            - `work` is set wherever something comes up for progress: an event, an offer, room
 *              that a lane waits for.
 * Lock       `lock`, rank KVBI_RANK_STORE. Hashing, copying tokens and moving unregistered blocks
 *            happen outside of it.
 */
#ifndef KVBI_STORE_STORE_H
#define KVBI_STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <kvblock.h>

#include "base/clock.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/memory.h"
#include "block/lifecycle.h"
#include "block/ticket.h"
#include "block/token_hash.h"
#include "store/event_log.h"
#include "store/index.h"
#include "store/moments.h"
#include "store/namespaces.h"
#include "store/pins.h"
#include "store/pool.h"
#include "store/records.h"

/* Index walks at the same time. */
#define KVBI_WALKERS_MAX 16

/*
 * What the store asks of those who have something waiting for a block: offload/ sets it, before
 * anything is stored. Called under the lock.
 */
struct kvbi_store_asks {
    /*
     * The block's content is forgotten or evicted: an offer of it that no engine has is worth
     * nothing.
     */
    void (*drop_offer)(void *context, struct kvbi_pool *pool, struct kvb_block *block);
    void *context;
};

/*
 * Records beside those of blocks and of events in the ring: each walk, and the delivery of events,
 * keeps a batch alive.
 */
#define KVBI_RECORDS_SPARE ((KVBI_WALKERS_MAX + 1) * KVBI_LOCK_BATCH)

struct kvbi_store {
    /* set at create, read by anyone */
    const struct kvbi_memory *memory;
    struct kvbi_clock *clock;
    const struct kvbi_log *log;
    struct kvbi_token_hash hash;
    size_t key_stride; /* kvb_key_bytes */
    enum kvb_duplicate duplicate;
    struct kvbi_namespaces namespaces; /* names are read without the lock */
    struct kvbi_store_asks asks;       /* zeroed: nobody has anything waiting */
    struct kvbi_moments moments;       /* `now` is read without the lock */

    struct kvbi_lock clear_lock; /* one clear at a time; taken before `lock` */
    struct kvbi_lock lock;

    /* under `lock`, but for slots as slot.h says and records of unregistered blocks */
    struct kvbi_pool pools[KVB_TIER_COUNT];
    struct kvbi_index index;
    struct kvbi_records records;
    struct kvbi_event_log events;
    struct kvbi_pins pins;
    uint64_t pins_expired;
    /*
     * bit per tier: copies there are found; cleared when the last of its files goes out of service
     */
    uint8_t serving;
    uint8_t impaired;     /* bit per tier: some of its files are out of service */
    uint64_t clears;      /* that have begun */
    _Atomic bool closing; /* destroy has begun: no handle is handed out any more. Read without the
                             lock by who takes one without it */
    uint32_t walkers;     /* index walks under way; each may keep a batch of records */
    uint32_t walked;      /* records that they keep, users of the same one counted each */
    bool work; /* something has come up for progress: a caller that releases the lock wakes it */
    /* by tier: tickets of slots that the last search for a target found not ready */
    struct kvbi_awaited awaited[KVB_TIER_COUNT];
};

struct kvbi_store_config {
    const struct kvbi_memory *memory;
    struct kvbi_clock *clock;
    const struct kvbi_log *log;
    const struct kvbi_hash_ops *hash;
    uint64_t digest_seed;
    uint32_t tokens_per_block, key_bytes;
    enum kvb_duplicate duplicate;
    const struct kvbi_policy_ops *policy;
    uint32_t block_counts[KVB_TIER_COUNT];
    bool on_disk[KVB_TIER_COUNT];         /* contents there have no record */
    uint32_t file_counts[KVB_TIER_COUNT]; /* 0: 1 */
    uint32_t event_capacity, pin_capacity, namespace_capacity;
};

/* KVB_ENOMEM */
int kvbi_store_create(struct kvbi_store *store, const struct kvbi_store_config *config);
void kvbi_store_destroy(struct kvbi_store *store); /* legal on a zeroed object */
size_t kvbi_store_bytes(const struct kvbi_store *store);

/* ---- The lock -------------------------------------------------------------------------------- */

static inline void kvbi_store_lock(struct kvbi_store *store)
{
    kvbi_lock_take(&store->lock);
}

static inline void kvbi_store_unlock(struct kvbi_store *store)
{
    kvbi_lock_release(&store->lock);
}

/* One clear at a time, in as many holds of the lock as it takes. */
static inline void kvbi_store_lock_clear(struct kvbi_store *store)
{
    kvbi_lock_take(&store->clear_lock);
}

static inline void kvbi_store_unlock_clear(struct kvbi_store *store)
{
    kvbi_lock_release(&store->clear_lock);
}

/* Has something come up for progress since this was asked last? */
static inline bool kvbi_store_take_work_locked(struct kvbi_store *store)
{
    bool work = store->work;
    kvbi_lock_assert_held(&store->lock);
    store->work = false;
    return work;
}

/* Is the tier in service? Of a disk: any of its files. Under the lock. */
static inline bool kvbi_store_serves(const struct kvbi_store *store, uint32_t tier)
{
    return (store->serving >> tier & 1) != 0;
}

/* ---- No lock --------------------------------------------------------------------------------- */

/* The pool of a block, by address; NULL for foreign pointers. */
struct kvbi_pool *kvbi_store_pool_of(struct kvbi_store *store, const struct kvb_block *block);

/* Its slot in there; KVBI_NONE for foreign pointers. */
uint32_t kvbi_store_slot_of(const struct kvbi_store *store, const struct kvb_block *block);

/* Its counts are the lock's. A tier that is not configured has no slots. */
static inline struct kvbi_pool *kvbi_store_pool(struct kvbi_store *store, uint32_t tier)
{
    return &store->pools[tier];
}

static inline uint32_t kvbi_store_tokens_per_block(const struct kvbi_store *store)
{
    return store->hash.tokens_per_block;
}

/* Of the caller's keys; 0: names are built-in hashes. */
static inline uint32_t kvbi_store_key_bytes(const struct kvbi_store *store)
{
    return store->index.key_bytes;
}

/* From one name, or key, to the next in an array of the caller's: kvb_key_bytes. */
static inline size_t kvbi_store_key_stride(const struct kvbi_store *store)
{
    return store->key_stride;
}

static inline const struct kvbi_token_hash *kvbi_store_hash(const struct kvbi_store *store)
{
    return &store->hash;
}

static inline const struct kvbi_record_shape *kvbi_store_shape(const struct kvbi_store *store)
{
    return &store->records.shape;
}

static inline struct kvbi_record *kvbi_store_record(const struct kvbi_store *store, uint32_t record)
{
    return kvbi_records_at(&store->records, record);
}

/* What kvb_block_register does with a duplicate unless told otherwise. */
static inline bool kvbi_store_shares(const struct kvbi_store *store)
{
    return store->duplicate == KVB_DUPLICATE_SHARE;
}

/* The moment (moments.h) of who is named now. */
static inline uint64_t kvbi_store_moment(const struct kvbi_store *store)
{
    return kvbi_moments_now(&store->moments);
}

/* NULL: no such namespace. */
static inline const struct kvbi_namespace_name *kvbi_store_namespace(const struct kvbi_store *store,
                                                                     uint32_t id)
{
    return kvbi_namespaces_name(&store->namespaces, id);
}

/* How many namespaces there are: ids from 0 on. */
static inline uint32_t kvbi_store_namespace_count(const struct kvbi_store *store)
{
    return atomic_load_explicit(&store->namespaces.count, memory_order_acquire);
}

/* How many can be opened. */
static inline uint32_t kvbi_store_namespace_capacity(const struct kvbi_store *store)
{
    return store->namespaces.capacity;
}

/* Has destroy begun? Who has taken a handle without the lock asks after it. */
static inline bool kvbi_store_is_closing(const struct kvbi_store *store)
{
    return atomic_load(&store->closing);
}

/* ---- Closing --------------------------------------------------------------------------------- */

/*
 * From here on no handle is handed out; false: that was so already. Under the lock, in the hold in
 * which handles are counted, or while nobody else is in a call.
 */
static inline bool kvbi_store_close(struct kvbi_store *store)
{
    return !atomic_exchange(&store->closing, true);
}

/* Somebody holds something: not yet. In the same hold. */
static inline void kvbi_store_reopen(struct kvbi_store *store)
{
    atomic_store(&store->closing, false);
}

/* Users of all slots, in all tiers, but for those that pins stand for. Walks all of it. */
uint64_t kvbi_store_handles_locked(const struct kvbi_store *store);

/* ---- Handles --------------------------------------------------------------------------------- */

/* What became of a block at its last unref. */
enum kvbi_unref { KVBI_UNREF_SHARED, KVBI_UNREF_PARKED, KVBI_UNREF_FREED, KVBI_UNREF_QUARANTINED };

/* One user more of a Registered block, parked or used. 0 or KVB_EAGAIN. */
int kvbi_store_ref_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                          struct kvb_block *block);
/*
 * One user less; the last one parks, frees, or leaves it to the transfer that still uses it. users
 * must be > 0.
 */
enum kvbi_unref kvbi_store_unref_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                                        struct kvb_block *block, uint64_t now_ns);

/* ---- Room ------------------------------------------------------------------------------------ */

/* Of the store's own files: a slot has become free or evictable. */
static inline void kvbi_store_note_room_locked(struct kvbi_store *store, struct kvbi_pool *pool)
{
    kvbi_lock_assert_held(&store->lock);
    pool->room++;
    store->work |= pool->room_awaited;
    pool->room_awaited = false;
}

/*
 * A free slot, or an evicted one of a band of at most band_max. user: USED, with one user and a
 * record; else TRANSFER, with one hold of a lane. NULL: there is none; or, if pool->cut_short, the
 * search has passed as many slots as one section may, and goes on from there in the next one.
 */
struct kvb_block *kvbi_store_take_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                                         bool user, unsigned band_max, uint64_t now_ns);

/* What a transfer takes for its target, and what it does not. */
struct kvbi_criteria {
    unsigned band_max;
    const struct kvbi_lines *lines; /* what waits for a ticket that is not reached is not ready */
    bool allow_unready;             /* or one that is not ready, where there is no other */
    /* Out, with NULL: there are some that are not ready, and store->awaited has their tickets. */
    bool unready;
};
/*
 * The same as TRANSFER, but of the first KVBI_LOCK_BATCH free slots and as many of the order one
 * that is ready, before any that is not.
 */
struct kvb_block *kvbi_store_take_target_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                                                struct kvbi_criteria *criteria, uint64_t now_ns);

/* Nobody has an offer of it waiting any more. */
static inline void kvbi_store_drop_offer_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                                                struct kvb_block *block)
{
    kvbi_lock_assert_held(&store->lock);
    if (block->offer != KVBI_NONE && store->asks.drop_offer != NULL)
        store->asks.drop_offer(store->asks.context, pool, block);
}

/* A parked block that no lane holds gives its slot back: free, or retired. */
void kvbi_store_evict_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                             struct kvb_block *block);

/*
 * Nobody uses the slot, no lane does and no entry names it: whatever is in it goes, and it is free.
 * Should a step still be out, which takes more unrefs than refs, the slot is retired: a device may
 * write there.
 */
void kvbi_store_free_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                            struct kvb_block *block);

/* ---- What a block is ------------------------------------------------------------------------- */

/* Is its content in the index, and not cleared? */
static inline bool kvbi_store_is_known_locked(const struct kvbi_store *store,
                                              const struct kvb_block *block)
{
    kvbi_lock_assert_held(&store->lock);
    return block->entry != KVBI_NONE &&
           kvbi_index_alive(&store->index, kvbi_index_at(&store->index, block->entry));
}

/* Its name or key, kvb_key_bytes long. NULL: it has none yet, or not any more. */
const void *kvbi_store_key_of_locked(const struct kvbi_store *store, const struct kvb_block *block);

/*
 * The record that has its names and tokens, its own or its entry's, with a user more, to be given
 * back. KVBI_NONE: nobody knows its names.
 */
uint32_t kvbi_store_lend_record_locked(struct kvbi_store *store, const struct kvb_block *block);
void kvbi_store_return_record_locked(struct kvbi_store *store, uint32_t record);

/* 0, KVB_ENOSPC or KVB_ENOMEM. Lengths have been checked. */
int kvbi_store_open_namespace_locked(struct kvbi_store *store, const void *salt, size_t salt_bytes,
                                     const void *adapter, size_t adapter_bytes, uint32_t *id);

/*
 * The table of pins, which is the lock's. Whoever pins has taken the handle that the pin stands
 * for.
 */
static inline struct kvbi_pins *kvbi_store_pins(struct kvbi_store *store)
{
    return &store->pins;
}

/* ---- Publishing ------------------------------------------------------------------------------ */

/*
 * Complete -> Registered for a sole user whose record is named. *block is replaced if `share` and
 * it is a duplicate. Left unindexed if it was named before a clear, or before its namespace or key
 * was forgotten. 0 or KVB_ECOLLISION, KVB_ESTATE, KVB_EAGAIN (SHARE: too many handles).
 */
int kvbi_store_register_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                               struct kvb_block **block, bool share, uint64_t now_ns);

/*
 * A transfer begins to write `target` (Empty: USED by an operation, or TRANSFER) with the content
 * of `entry`. Holds it once more if it is USED.
 */
void kvbi_store_fill_begin_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                                  struct kvb_block *target, uint32_t entry);
/*
 * The transfer is over; its hold ends. verified: Registered, published, *stored* emitted; parked if
 * nobody uses it, directly below its parent. Else, or if the content was invalidated meanwhile:
 * Empty, and free if nobody uses it. True if it was published.
 */
bool kvbi_store_fill_end_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                                struct kvb_block *target, bool verified, uint64_t now_ns);
/*
 * Before anything was written: the target is Empty again and its content does not come here any
 * more.
 */
void kvbi_store_fill_abandon_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                                    struct kvb_block *target);

/*
 * A PARKED block that is in no order goes directly below its parent, if that is in the pool's
 * order; else it is the youngest.
 */
void kvbi_store_order_below_parent_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                                          struct kvb_block *block, uint64_t now_ns);

/* A lane holds a source while it is on deck or read. */
static inline void kvbi_store_hold_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                                          struct kvb_block *block)
{
    kvbi_lock_assert_held(&store->lock);
    kvbi_pool_hold(pool, block);
}
void kvbi_store_unhold_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                              struct kvb_block *block, uint64_t now_ns);

#endif
