/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Eviction order behind a small interface: which parked block of a pool goes next.
 *
 * Owns       the order of the blocks that it was given; in each slot the field `order`, and nothing
 *            else.
 * Callers    store/pool, under the store's lock. A new policy is a new file and one line in
 *            policy.c.
 * Rules      every operation is O(1) or O(log n). Lower bands go first. A deadline (0: none) is
 *            when a block falls back to KVB_PRIORITY_DEFAULT, as if last used then. However many
 *            deadlines pass at once, no call deals with more than 64 of them, and the order is what
 *            it would be if each had been dealt with on time.
 *            "Cold" is the oldest tenth of the order, for the trigger of that name.
 * Lock       the store's.
 */
#ifndef KVBI_STORE_POLICY_H
#define KVBI_STORE_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/memory.h"
#include "block/slot.h"

struct kvbi_policy;

/* In a band's place: ask again. */
#define KVBI_BAND_AGAIN KVBI_BAND_COUNT

struct kvbi_policy_ops {
    const char *name;
    int (*create)(struct kvbi_policy **policy, const struct kvbi_memory *memory,
                  struct kvb_block *slots, uint32_t count);
    void (*destroy)(struct kvbi_policy *policy);
    /* A user's last unref, or a use through another tier: youngest of its band. */
    void (*insert)(struct kvbi_policy *policy, uint32_t slot, unsigned band, uint64_t deadline_ns,
                   uint64_t now_ns);
    /*
     * Parked by a lane: goes directly before `parent` if that is in the same band, else youngest of
     * its band.
     */
    void (*insert_below)(struct kvbi_policy *policy, uint32_t slot, unsigned band,
                         uint64_t deadline_ns, uint32_t parent, uint64_t now_ns);
    /* An eviction passed it by because it was held: oldest of its band. */
    void (*insert_oldest)(struct kvbi_policy *policy, uint32_t slot, unsigned band,
                          uint64_t deadline_ns);
    void (*remove)(struct kvbi_policy *policy, uint32_t slot);
    bool (*contains)(const struct kvbi_policy *policy, uint32_t slot);
    /*
     * The next to go and its band, left in place. KVBI_NONE: nothing is there, or with
     * KVBI_BAND_AGAIN: deadlines that have passed stand in the way. *budget: with so many of them
     * it deals at most, and takes off those with which it has.
     */
    uint32_t (*victim)(struct kvbi_policy *policy, uint64_t now_ns, uint32_t *budget,
                       unsigned *band);
    /* Up to `max` of all, from the one that goes first to the last, as if no further deadline came.
     * Deals with all that have passed: for the end only. */
    uint32_t (*order)(struct kvbi_policy *policy, uint32_t *slots, uint32_t max);
    /*
     * Up to `max` of those that go next, without promise: for warming what their eviction will
     * touch.
     */
    uint32_t (*ahead)(const struct kvbi_policy *policy, uint32_t *slots, uint32_t max);
    /* The slot will be removed soon: warms what that touches. */
    void (*warm)(const struct kvbi_policy *policy, uint32_t slot);
    /* One block that has become cold since it was inserted, each once. KVBI_NONE: no more. */
    uint32_t (*next_cold)(struct kvbi_policy *policy, uint64_t now_ns);
    size_t (*bytes)(const struct kvbi_policy *policy);
    uint32_t (*count)(const struct kvbi_policy *policy);
};

struct kvbi_policy {
    const struct kvbi_policy_ops *ops;
};

/* By name; NULL: the default. NULL if there is none of that name. */
const struct kvbi_policy_ops *kvbi_policy_find(const char *name);

/* All names, as "lru, fifo". */
void kvbi_policy_names(char *names, size_t bytes);

extern const struct kvbi_policy_ops kvbi_policy_lru;

#endif
