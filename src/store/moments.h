/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moments: what was named before its name was forgotten is not published after it.
 *
 * A server exchanges its weights, or an adapter's, while requests compute: it clears, and blocks
 * that were named before then end their computation and are registered. Their names stand for other
 * bytes by now. So each forgetting (a clear, an invalidated namespace, an invalidated key) has a
 * number, its moment; a block keeps the latest moment from before its first token was named; and
 * registration compares the two.
 *
 * Owns       the count of forgettings, the moment of the last clear, those of keys. A namespace's
 *            is in namespaces.h.
 * Callers    store/ under its lock; api/ reads `now` without it.
 * Invariants now only grows, and every moment noted is one that it had. A key's moment is kept by
 *            its hash in a table of fixed size, each place of which keeps the latest of all keys
 *            there: two keys of one place can make a block of the one unindexed for the sake of the
 *            other. They never let anything stale through.
 * Lock       the store's; `now` is written under it.
 * Why        a table in place of a list: nobody knows how many keys are forgotten while a block
 *            computes, nor which of those that are not indexed will be registered.
 *
 * Wrap-around: a record keeps 48 bits. At a million forgettings a second that is nine years; from
 * then on blocks count as older than they are, and are left unindexed where their namespace or key
 * is forgotten, or all is cleared.
 */
#ifndef KVBI_STORE_MOMENTS_H
#define KVBI_STORE_MOMENTS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/memory.h"

struct kvbi_moments {
    const struct kvbi_memory *memory;
    _Atomic uint64_t now; /* forgettings so far */
    uint64_t cleared;     /* the moment of the last clear; 0: none */
    uint64_t *keys;       /* by hash; 0: none */
    uint32_t key_shift;   /* place = spread(hash) >> shift */
    uint32_t key_count;   /* a power of two */
};

/* blocks: how many may be in computation at once; two bytes are taken for each. KVB_ENOMEM. */
int kvbi_moments_create(struct kvbi_moments *moments, const struct kvbi_memory *memory,
                        uint32_t blocks);
void kvbi_moments_destroy(struct kvbi_moments *moments); /* legal on a zeroed object */
size_t kvbi_moments_bytes(const struct kvbi_moments *moments);

/*
 * The moment of who is named now. No lock: whoever is named while somebody forgets is older or
 * younger, as it comes.
 */
static inline uint64_t kvbi_moments_now(const struct kvbi_moments *moments)
{
    return atomic_load_explicit(&moments->now, memory_order_relaxed);
}

/* One forgetting more, of something whose moment others keep: its moment. */
uint64_t kvbi_moments_next(struct kvbi_moments *moments);
void kvbi_moments_clear(struct kvbi_moments *moments);
void kvbi_moments_forget_key(struct kvbi_moments *moments, uint64_t hash);

/* Was anything at all forgotten since? Mostly not, and then no table is looked at. */
static inline bool kvbi_moments_passed(const struct kvbi_moments *moments, uint64_t moment)
{
    return moment < kvbi_moments_now(moments);
}

/*
 * Was a block of this key named, at `moment`, before a clear, its namespace's moment `space`, or
 * its key's?
 */
bool kvbi_moments_stale(const struct kvbi_moments *moments, uint64_t moment, uint64_t space,
                        uint64_t hash);

#endif
