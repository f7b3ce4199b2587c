/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Doors for white-box tests. In every build, exported by none: only the unhidden twin
 * `kvblock_testing` lets tests in.
 * Callers: tests. The public create is kvbi_manager_create_hooked without hooks.
 */
#ifndef KVBI_API_TESTING_H
#define KVBI_API_TESTING_H

#include <stddef.h>
#include <stdint.h>

#include <kvblock.h>

#include "base/hooks.h"

/*
 * `hooks` (may be NULL) must outlive the manager. With kinds in them a tier is of another kind than
 * its configuration means: DISK and REMOTE in memory (transfer/kind.h, kvbi_kind_memory), or a kind
 * of the test's own.
 */
int kvbi_manager_create_hooked(const struct kvb_config *config, const struct kvbi_hooks *hooks,
                               struct kvb_manager **manager, struct kvb_diagnosis *diagnosis);

/*
 * Walk every table under the lock and compare each invariant that the modules' heads state: places
 * against counts, order against parked blocks, index against copies, records against users, lanes
 * against holds, books. 0, or KVB_EINVAL with what is wrong in words. Call it while no other thread
 * is inside a call.
 */
int kvbi_manager_check(struct kvb_manager *manager, char *message, size_t message_bytes);

/*
 * The most steps (kvbi_lock_step) of one section, from taking the store's lock to its release,
 * since this was asked last. A step is a block, item, offer or entry that is looked at: one that is
 * revoked, evicted and handed out takes three.
 */
uint32_t kvbi_testing_longest_section(struct kvb_manager *manager);

/* Give a held block's slot another generation, to reach the wrap-around without 2^44 reuses. */
void kvbi_testing_set_generation(struct kvb_manager *manager, struct kvb_block *block,
                                 uint64_t generation);

/*
 * From now on the end of an operation is told to nobody: what its `done` would write to is gone.
 * One that is being told at this moment is told.
 */
void kvbi_testing_mute(struct kvb_manager *manager);

/*
 * The end of a manager that kvb_manager_destroy refuses, because handles are held that nobody knows
 * any more, or that is not sound: its threads stop, its files are closed as by a kill, its memory
 * is given back. Every handle is void. No other thread may be inside a call.
 */
void kvbi_testing_abandon(struct kvb_manager *manager);

#endif
