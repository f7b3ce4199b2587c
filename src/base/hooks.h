/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What white-box tests may put in place of the real thing. In every build; api/testing.h is the
 * only door to set it.
 *
 * Callers    api/ passes it down at create; engines ask copy_fault and io_fault, transfer/engines
 *            `keeps`, api/config `kinds`, cuda/registration pin_*. Immutable after create.
 */
#ifndef KVBI_BASE_HOOKS_H
#define KVBI_BASE_HOOKS_H

#include <stdbool.h>
#include <stdint.h>

struct kvb_clock;
struct kvbi_cond;
struct kvbi_hash_ops;
struct kvbi_kind;
struct kvbi_lock;

#define KVBI_HOOKS_TIERS 4 /* KVB_TIER_COUNT */

struct kvbi_hooks {
    /* In place of the dispatched XXH3, to force collisions; NULL: the real one. */
    const struct kvbi_hash_ops *hash;
    /*
     * Non-zero: this one copy fails with that code and writes nothing. NULL: none fails. Runs in
     * progress, no lock held.
     */
    int (*copy_fault)(void *context, uint32_t from_tier, uint32_t from_slot, uint32_t to_tier,
                      uint32_t to_slot);
    /*
     * After each I/O of a disk engine: *result is what the system said, bytes or -errno. Non-zero:
     * the engine is to believe the changed *result instead. NULL: it believes the system. Runs in
     * progress or in a thread of the engine, no lock held.
     */
    int (*io_fault)(void *context, bool write, uint32_t slot, int64_t *result);
    /*
     * By tier (enum kvb_tier): a kind of memory that this tier is to be of, whatever its
     * configuration says; NULL: the kind that it means. Three tiers in memory are had so
     * (transfer/kind.h: kvbi_kind_memory), and kinds of a test's own.
     */
    const struct kvbi_kind *kinds[KVBI_HOOKS_TIERS];
    /*
     * In place of CLOCK_MONOTONIC, and of kvbi_cond_timedwait, for the pauses between two
     * registrations of host memory. Each may be NULL. The wait is called with `lock`, which it may
     * give back meanwhile, and may return early.
     */
    const struct kvb_clock *pin_clock;
    void (*pin_wait)(void *context, struct kvbi_cond *cond, struct kvbi_lock *lock,
                     uint64_t timeout_ns);
    bool keeps; /* Engines give back nothing that they have taken: as if all of it had begun. */
    void *context;
};

#endif
