/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A record: the names and tokens of one content, shared by its copies in memory tiers and by events
 * not yet delivered.
 *
 * Owns       the layout of a record (the pool of them is store/records.h).
 * Callers    block/token_hash and block/lifecycle's callers write it while one unregistered block
 *            owns it; after registration it is read-only, but for the digest that a match may bind
 *            it to (store/store_match).
 * Invariants tokens of a shared record are all there. Names are there exactly with
 *            KVBI_RECORD_NAMES: a content that came back from a disk has its tokens from whoever
 *            has proved to know them, and nobody knows the rest. So who reads a record that he has
 *            not named himself asks kvbi_record_names.
 * Lock       none while owned by an unregistered block; `users` and the free list are the store
 *            lock's.
 */
#ifndef KVBI_BLOCK_RECORD_H
#define KVBI_BLOCK_RECORD_H

#include <stdint.h>

#include <kvblock.h>

enum kvbi_record_flags {
    KVBI_RECORD_HAS_PARENT = 1, /* parent (and parent key) are set */
    KVBI_RECORD_NAMED = 2,      /* name (and key) are set: all tokens are known */
    KVBI_RECORD_GIVEN = 4,      /* ... because the caller gave the name at init */
    /* namespace, moment, parent or that there is none: init or clone has set them */
    KVBI_RECORD_NAMES = 8,
    KVBI_RECORD_LATER = 16 /* not the first of its sequence, whether or not the parent is known */
};

/*
 * With built-in hashes `name` and `parent` are the sequence hashes themselves. With the caller's
 * keys the hashes are those of the keys, which follow (own, then parent's, key_bytes each);
 * parent.digest is the digest of this block's own tokens, from which registration makes name.digest
 * with the help of the parent's entry. Where there is none, a match does so later.
 */
struct kvbi_record {
    struct kvb_seq name;
    struct kvb_seq parent;
    uint32_t namespace_id;
    uint16_t flags;
    uint16_t moment_high; /* 48 bits: forgettings before it was named (store/moments.h) */
    uint32_t moment_low;
    uint32_t users; /* unregistered block, or index entry, and events */
};

_Static_assert(sizeof(struct kvbi_record) == 64, "a record's head is one cache line");

/* How records lie in their pool; fixed at create. */
struct kvbi_record_shape {
    uint32_t tokens_per_block;
    uint32_t key_bytes; /* 0: built-in hashes */
    uint32_t tokens_offset;
    uint32_t stride;
};

static inline uint32_t *kvbi_record_tokens(const struct kvbi_record_shape *shape,
                                           struct kvbi_record *record)
{
    return (uint32_t *)(void *)((unsigned char *)record + shape->tokens_offset);
}

static inline void kvbi_record_set_moment(struct kvbi_record *record, uint64_t moment)
{
    record->moment_high = (uint16_t)(moment >> 32);
    record->moment_low = (uint32_t)moment;
}

static inline uint64_t kvbi_record_moment(const struct kvbi_record *record)
{
    return (uint64_t)record->moment_high << 32 | record->moment_low;
}

/* The record of some content, to be read beyond its tokens. NULL: it has nothing else. */
static inline struct kvbi_record *kvbi_record_names(struct kvbi_record *record)
{
    return (record->flags & KVBI_RECORD_NAMES) != 0 ? record : NULL;
}

static inline unsigned char *kvbi_record_key(struct kvbi_record *record)
{
    return (unsigned char *)record + sizeof *record;
}

static inline unsigned char *kvbi_record_parent_key(const struct kvbi_record_shape *shape,
                                                    struct kvbi_record *record)
{
    return (unsigned char *)record + sizeof *record + shape->key_bytes;
}

#endif
