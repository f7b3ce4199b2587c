/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What white-box tests may put in place of the real thing. In every build; api/testing.h is the only door to set it.
 *
 * Callers    api/ passes it down at create; engines ask copy_fault. Immutable after create.
 */
#ifndef KVBI_BASE_HOOKS_H
#define KVBI_BASE_HOOKS_H

#include <stdint.h>

struct kvbi_hash_ops;

struct kvbi_hooks {
    /* In place of the dispatched XXH3, to force collisions; NULL: the real one. */
    const struct kvbi_hash_ops *hash;
    /* Non-zero: this one copy fails with that code and writes nothing. NULL: none fails. Runs in progress, no lock held. */
    int (*copy_fault)(void *context, uint32_t from_tier, uint32_t from_slot, uint32_t to_tier, uint32_t to_slot);
    void *context;
};

#endif
