/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What white-box tests may put in place of the real thing. In every build; api/testing.h is the
 * only door to set it.
 *
 * Callers    api/ passes it down at create; engines ask copy_fault and io_fault, transfer/engines
 *            `keeps`, api/config `kinds`. Immutable after create.
 */
#ifndef KVBI_BASE_HOOKS_H
#define KVBI_BASE_HOOKS_H

#include <stdbool.h>
#include <stdint.h>

struct kvbi_hash_ops;
struct kvbi_kind;

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
    bool keeps; /* Engines give back nothing that they have taken: as if all of it had begun. */
    void *context;
};

#endif
