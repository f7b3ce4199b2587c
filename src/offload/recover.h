/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a tier in files held when they were opened becomes findable again.
 *
 * Owns       nothing: takes what the tier finds in its tables to the store, in two passes. First
 *            every slot that has a block, in the order of the tables, which is fast; then the
 *            eviction order, from the longest unused to the youngest. Before that the files are
 *            committed, at the last moment at which a create may fail for want of anything but the
 *            disk.
 * Callers    api/manager, once, at create: nobody else knows the store yet. Takes the store's lock
 *            for a batch at a time.
 * Invariants a name has one copy: of two slots with the same one the later written counts, whatever
 *            is in them. What cannot be taken over is emptied in the tables in memory, and its slot
 *            is free. Where the files say in which order blocks were used, that is their order;
 *            else they go in the order of their writes, but children before their parents, which
 *            were written first.
 */
#ifndef KVBI_OFFLOAD_RECOVER_H
#define KVBI_OFFLOAD_RECOVER_H

#include <stdint.h>

#include "base/log.h"
#include "store/store.h"
#include "transfer/tier.h"

struct kvbi_recovery {
    struct {
        uint64_t recovered;
        uint64_t superseded; /* another slot has a later write of the same name */
        /* damaged entries, and blocks that the store has no room or no name for */
        uint64_t dropped;
    } files[KVB_DISK_PATHS_MAX];
    uint64_t elapsed_ns; /* real time */
};

/*
 * Of a tier that outlives the process. KVB_ENOMEM: for the time of the call it takes 40 bytes a
 * slot; nothing is written then. Errors of its commit, with its words.
 */
KVB_NODISCARD int kvbi_recover(struct kvbi_store *store, struct kvbi_tier *tier,
                               struct kvbi_recovery *recovery, char *message, size_t message_bytes);

/* Of each file what was unusual at open, and what was found again. `tier` NULL: nothing. */
void kvbi_recovery_log(const struct kvbi_recovery *recovery, const struct kvbi_tier *tier,
                       const struct kvbi_log *log);

#endif
