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
    uint64_t counter;   /* the counter's value: what waits for a later one is not ready */
    bool allow_unready; /* or one that is not ready, where there is no other */
    /* Out, with NULL: the earliest ticket among those that are not ready; 0: there are none. */
    uint64_t earliest;
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

/* ---- Before a batch: what it will touch is warmed, all of it at once ------------------------- */

/* `count` blocks of the pool will be taken: what evicting for them touches. */
void kvbi_store_warm_take_locked(const struct kvbi_store *store, const struct kvbi_pool *pool,
                                 uint32_t count);

/* What is in the blocks will be looked at. Their slots are warm, or will be. */
void kvbi_store_warm_contents_locked(const struct kvbi_store *store,
                                     struct kvb_block *const *blocks, uint32_t count);

/* Blocks of the pool will be parked, below their parents. Their slots are warm, or will be. */
void kvbi_store_warm_parked_locked(const struct kvbi_store *store, const struct kvbi_pool *pool,
                                   const uint32_t *slots, uint32_t count);

/*
 * Named blocks will be registered: what finding their names touches. Once before the lock is taken,
 * once under it.
 */
void kvbi_store_warm_names(const struct kvbi_store *store, struct kvb_block *const *blocks,
                           uint32_t count);
void kvbi_store_warm_names_locked(const struct kvbi_store *store, struct kvb_block *const *blocks,
                                  uint32_t count);

/* ---- Finding --------------------------------------------------------------------------------- */

/* Up to KVBI_LOCK_BATCH consecutive blocks of a sequence. */
struct kvbi_probe {
    /* built-in: the names; the caller's keys: hash and digest of each */
    const struct kvb_seq *names;
    const unsigned char *keys;         /* the caller's keys, or NULL */
    const unsigned char *before;       /* the caller's key before the first, or NULL at the root */
    const struct kvb_seq *name_before; /* the same for built-in hashes */
    const uint32_t *tokens;            /* or NULL: names are trusted */
    uint32_t namespace_id;
    uint32_t count;
};

/*
 * The leading run, with one user more each: hits[0..return). *error: KVB_EAGAIN if a block has too
 * many handles.
 */
uint32_t kvbi_store_match_locked(struct kvbi_store *store, const struct kvbi_probe *probe,
                                 struct kvb_hit *hits, int *error);
/* The leading run, nothing more: counts by fastest tier are added. */
uint32_t kvbi_store_lookup_locked(struct kvbi_store *store, const struct kvbi_probe *probe,
                                  uint64_t tier_counts[KVB_TIER_COUNT]);
/* Warms the buckets, before the lock is taken. */
void kvbi_store_warm_probe(const struct kvbi_store *store, const struct kvbi_probe *probe);

/*
 * The digest of an entry's content and all before it; zero: not known. With the caller's keys
 * registration knows it if the parent was indexed by then. Else the first match by tokens binds the
 * content to what it has found it behind: in its record, because the digest in the entry is part of
 * what a disk's payload is verified by.
 */
const uint64_t *kvbi_store_digest_locked(const struct kvbi_store *store,
                                         const struct kvbi_entry *entry);

/* The live entry of a name or key. KVBI_NONE: none. */
uint32_t kvbi_store_find_locked(struct kvbi_store *store, uint64_t hash, const void *key);

/* ---- Forgetting ------------------------------------------------------------------------------ */

/*
 * Drop one copy from the index, with its event; the entry goes with the last one. The block is the
 * caller's to deal with.
 */
void kvbi_store_detach_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                              struct kvb_block *block);
/* Drop one copy that turned out unreadable; who uses or reads the block keeps it until then. */
void kvbi_store_forget_copy_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                                   struct kvb_block *block);
/* Drop all copies of a content: parked ones are freed, used ones stay unindexed. */
void kvbi_store_forget_locked(struct kvbi_store *store, uint32_t entry);
/*
 * What has this name, or key, is forgotten, and blocks that are named so already are not published
 * any more, indexed or not. 0; KVB_ENOENT: it was not indexed.
 */
int kvbi_store_invalidate_locked(struct kvbi_store *store, const void *key);
/* The same for a namespace. The caller sweeps: what is registered behind the sweep is younger. */
void kvbi_store_forget_namespace_locked(struct kvbi_store *store, uint32_t namespace_id);
/*
 * Entries [*cursor, *cursor + 64): forget the dead ones (namespace_id NULL) or those of a
 * namespace. False at the end.
 */
bool kvbi_store_sweep_locked(struct kvbi_store *store, uint32_t *cursor,
                             const uint32_t *namespace_id, uint64_t *removed);
/*
 * Everything stored or named so far is dead from here on; emits CLEARED. The caller sweeps, with
 * clears locked. Returns how many clears have begun.
 */
uint64_t kvbi_store_begin_clear_locked(struct kvbi_store *store);

/* ---- Files ----------------------------------------------------------------------------------- */

/*
 * A file goes out of service: what is kept there is not found any more, nothing is put there. The
 * caller forgets what it has.
 */
void kvbi_store_lose_file_locked(struct kvbi_store *store, struct kvbi_pool *pool, uint32_t file);
/* And is used again, all of its slots. The caller puts them back. */
void kvbi_store_serve_file_locked(struct kvbi_store *store, struct kvbi_pool *pool, uint32_t file);
/*
 * KVBI_LOCK_BATCH slots of the file, from the one at *cursor (first: the file's number) on. False
 * at the end.
 */
bool kvbi_store_forget_file_locked(struct kvbi_store *store, struct kvbi_pool *pool, uint32_t file,
                                   uint64_t *cursor);
bool kvbi_store_put_back_file_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                                     uint32_t file, uint64_t *cursor);

/* ---- Adopting -------------------------------------------------------------------------------- */

/* A block that was there before this process. Nothing is kept but copies. */
struct kvbi_adoption {
    uint32_t slot;
    uint64_t generation; /* of the slot, when it was written */
    struct kvb_seq name; /* hash: with the caller's keys that of the key */
    uint64_t parent_hash;
    bool has_parent;
    uint32_t namespace_id;
    uint8_t priority;
    const void *key, *parent_key; /* the caller's, or not looked at */
};

enum kvbi_adopt {
    KVBI_ADOPTED,
    /*
     * another slot has what this name stands for: *other. Or stood for: a name may get other
     * content
     */
    KVBI_ADOPT_PRESENT,
    KVBI_ADOPT_REFUSED /* the slot or one of the values cannot be */
};

/*
 * What is in the slots of a pool that outlived a process becomes findable. In between begin and end
 * nobody else uses the store's pool, and no slot of it is given out. First each block is adopted,
 * in any order, then those that are adopted are put in order. The lock may be released in between,
 * and should be every KVBI_LOCK_BATCH blocks.
 */
void kvbi_store_adopt_begin_locked(struct kvbi_store *store, struct kvbi_pool *pool);
/*
 * Blocks of this hash will be adopted: warms what finding it touches first. For all of a batch
 * before the first is adopted.
 */
void kvbi_store_adopt_warm_locked(const struct kvbi_store *store, uint64_t hash);
/* Registered, indexed, parked and announced; without place in the eviction order. */
enum kvbi_adopt kvbi_store_adopt_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                                        const struct kvbi_adoption *adoption, uint32_t *other);
/*
 * After KVBI_ADOPT_PRESENT: this slot has what the name stands for from now on, and `other` is
 * free.
 */
void kvbi_store_adopt_replace_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                                     const struct kvbi_adoption *adoption, uint32_t other);
/*
 * A slot that is not adopted, but was written in this generation: the next one is a later one, so
 * that no two contents ever had the same slot and generation.
 */
void kvbi_store_adopt_generation_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                                        uint32_t slot, uint64_t generation);
/* A slot that is not to be used again. */
void kvbi_store_adopt_retired_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                                     uint32_t slot);
/*
 * Adopted slots go after all that were put in order before them, each after the one before, as far
 * as priorities allow. written: that is the order in which they were written, parents first, and
 * nothing is known of their use: directly below their parents instead. Each slot once;
 * KVBI_LOCK_BATCH at most.
 */
void kvbi_store_adopt_order_locked(struct kvbi_store *store, struct kvbi_pool *pool,
                                   const uint32_t *slots, uint32_t count, bool written);
void kvbi_store_adopt_end_locked(struct kvbi_store *store, struct kvbi_pool *pool);

/* ---- Events ---------------------------------------------------------------------------------- */

/* Emit an event about one copy. */
void kvbi_store_emit_locked(struct kvbi_store *store, uint32_t kind, uint32_t tier, uint32_t entry);
/*
 * The same picture without putting it into the ring. Tokens' record is named, without a user more.
 */
void kvbi_store_picture_locked(const struct kvbi_store *store, uint32_t kind, uint32_t tier,
                               uint32_t entry, struct kvbi_event_item *item);

/* ---- Statistics ------------------------------------------------------------------------------ */

/* Its part of the picture: tiers, index, events, pins. */
void kvbi_store_stats_locked(const struct kvbi_store *store, struct kvb_stats *stats);

/* ---- Checking -------------------------------------------------------------------------------- */

/* Every invariant, by walking everything. NULL, or which one is broken. */
const char *kvbi_store_check_locked(struct kvbi_store *store);
/* The most steps of one hold of the lock since this was asked last. Debug builds only, else 0. */
uint32_t kvbi_store_longest_hold_locked(struct kvbi_store *store);

#endif
