/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tiers of a manager: which kind of memory, or which files, each of them is, and what is pinned for a GPU.
 *
 * Owns       the choice of kind for each configured tier.
 * Callers    api/manager creates them first, because the files of a disk tier bring the seed that names are made with, and destroys
 *            them last. Fixed after create: no lock.
 */
#ifndef KVBI_TRANSFER_TIERS_H
#define KVBI_TRANSFER_TIERS_H

#include <stddef.h>
#include <stdint.h>

#include <kvblock.h>

#include "base/hash.h"
#include "base/log.h"
#include "base/memory.h"
#include "transfer/tier.h"

struct kvbi_tiers_config {
    const struct kvb_tier_config *configs; /* defaults resolved; by tier; block_count 0: absent */
    const struct kvb_layout *layout;
    uint64_t block_bytes;
    uint32_t tokens_per_block, key_bytes;
    uint64_t digest_seed; /* 0: the files' own */
    const char *model;
    const struct kvbi_hash_ops *hash;
};

/* Fills tiers[KVB_TIER_COUNT]. On an error all is undone, and `message` has the reason if there is more to say than the code does. */
KVB_NODISCARD int kvbi_tiers_create(struct kvbi_tier *tiers, const struct kvbi_memory *memory,
                                    const struct kvbi_tiers_config *config, char *message,
                                    size_t message_bytes);
/*
 * Host memory below a GPU is pinned for it. After the engines exist: its threads would disturb the calibration. `log` must outlive the
 * tiers. On an error kvbi_tiers_destroy is still to be called.
 */
KVB_NODISCARD int kvbi_tiers_pin(struct kvbi_tier *tiers, const struct kvb_tier_config *configs,
                                 const struct kvbi_log *log);
void kvbi_tiers_destroy(struct kvbi_tier *tiers); /* legal on zeroed ones */

/* The disk among them, or NULL. */
struct kvbi_disk *kvbi_tiers_disk(const struct kvbi_tier *tiers);

#endif
