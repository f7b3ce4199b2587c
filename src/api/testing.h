/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Doors for white-box tests. In every build, exported by none: only the unhidden twin `kvblock_testing` lets tests in.
 * Callers: tests. The public create is kvbi_manager_create_hooked without hooks.
 */
#ifndef KVBI_API_TESTING_H
#define KVBI_API_TESTING_H

#include <stddef.h>
#include <stdint.h>

#include <kvblock.h>

struct kvbi_hash_ops;

struct kvbi_hooks {
    /* In place of the dispatched XXH3, to force collisions; NULL: the real one. */
    const struct kvbi_hash_ops *hash;
    /* Non-zero: this one copy fails with that code and writes nothing. NULL: none fails. Runs in progress, no lock held. */
    int (*copy_fault)(void *context, uint32_t from_tier, uint32_t from_slot, uint32_t to_tier, uint32_t to_slot);
    void *context;
};

int kvbi_manager_create_hooked(const struct kvb_config *config, const struct kvbi_hooks *hooks,
                               struct kvb_manager **manager, struct kvb_diagnosis *diagnosis);

/*
 * Walk every table under the lock and compare each invariant that the modules' heads state: places against counts, order
 * against parked blocks, index against copies, records against users, lanes against pins, books. 0, or KVB_EINVAL with what is
 * wrong in words. Call it while no other thread is inside a call.
 */
int kvbi_manager_check(struct kvb_manager *manager, char *message, size_t message_bytes);

/* Give a held block's slot another generation, to reach the wrap-around without 2^44 reuses. */
void kvbi_testing_set_generation(struct kvb_manager *manager, struct kvb_block *block, uint64_t generation);

#endif
