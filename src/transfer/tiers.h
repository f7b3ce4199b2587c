/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tiers of a manager, each of the kind that its configuration means.
 *
 * Owns       nothing of its own: creates all of them, or none.
 * Callers    api/manager creates them first, because files bring the seed that names are made with,
 *            and destroys them last. Fixed after create: no lock.
 */
#ifndef KVBI_TRANSFER_TIERS_H
#define KVBI_TRANSFER_TIERS_H

#include <stddef.h>
#include <stdint.h>

#include <kvblock.h>

#include "base/log.h"
#include "base/memory.h"
#include "transfer/kind.h"
#include "transfer/tier.h"

struct kvbi_tiers_config {
    const struct kvb_tier_config *configs; /* defaults resolved; by tier; block_count 0: absent */
    const struct kvbi_kind *const *kinds;  /* by tier */
    struct kvbi_purpose purpose;
};

/*
 * Fills tiers[KVB_TIER_COUNT]. On an error all is undone, and `message` has the reason if there is
 * more to say than the code does.
 */
KVB_NODISCARD int kvbi_tiers_create(struct kvbi_tier *tiers, const struct kvbi_memory *memory,
                                    const struct kvbi_tiers_config *config, char *message,
                                    size_t message_bytes);
/*
 * Host memory below a device is registered with it. After the engines exist: the threads that do it
 * would disturb the calibration. `log` and `hooks` (may be NULL) must outlive the tiers. On an
 * error kvbi_tiers_destroy is still to be called.
 */
KVB_NODISCARD int kvbi_tiers_register(struct kvbi_tier *tiers,
                                      const struct kvb_tier_config *configs,
                                      const struct kvbi_log *log, const struct kvbi_hooks *hooks);
void kvbi_tiers_destroy(struct kvbi_tier *tiers); /* legal on zeroed ones */

/* The one among them that outlives the process, or NULL. */
struct kvbi_tier *kvbi_tiers_lasting(struct kvbi_tier *tiers);
/* What all of them have allocated for their tables, and what they add to the picture. */
size_t kvbi_tiers_bytes(const struct kvbi_tier *tiers);
void kvbi_tiers_statistics(const struct kvbi_tier *tiers, struct kvb_stats *stats);

#endif
