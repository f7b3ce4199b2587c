/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The second half of the store's calls: what it knows of contents, wherever their copies lie.
 *
 * Owns       nothing beyond store.h.
 * Callers    offload/ and api/, as there. Functions named ..._locked assert the store's lock.
 */
#ifndef KVBI_STORE_CONTENTS_H
#define KVBI_STORE_CONTENTS_H

#include "store/store.h"

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
