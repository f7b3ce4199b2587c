/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pipeline: what moves blocks, put together; and what becomes of a tier, or a path of one, that
 * fails.
 *
 * Owns       the lanes of both directions, the engines. The tiers must outlive it.
 * Callers    api/, offload/round, offload/progress. Nothing that it is made of knows it.
 * Invariants onboard.lanes[t] exists where a lane leaves tier t.
 * Lock       the store's for everything named ..._locked; the rest is fixed at create.
 */
#ifndef KVBI_OFFLOAD_PIPELINE_H
#define KVBI_OFFLOAD_PIPELINE_H

#include <stdbool.h>
#include <stdint.h>

#include <kvblock.h>

#include "offload/lanes.h"
#include "offload/onboard.h"
#include "store/store.h"
#include "transfer/engines.h"
#include "transfer/tier.h"

enum kvbi_path_stage {
    KVBI_PATH_STAGE_SERVING = 0,
    KVBI_PATH_STAGE_FORGETTING, /* out of service; what it held is being forgotten */
    KVBI_PATH_STAGE_OUT,
    KVBI_PATH_STAGE_RETURNING /* in service again; slots that were lost with it are becoming free */
};

/* One path of the disk. */
struct kvbi_path {
    uint8_t stage;   /* enum kvbi_path_stage */
    uint32_t errors; /* in a row */
    uint32_t
        moving; /* copies to or from it that the engine has, and slots that the disk is to retire */
    uint64_t cursor; /* FORGETTING, RETURNING: the next slot */
    /* slots condemned for one of these errors: whether it was the slot's or the path's fault, the next I/O that succeeds will tell */
    uint32_t suspects[KVB_DISK_ERRORS_MAX], suspect_count;
};

/* The same as others see it. */
enum kvbi_path_state {
    KVBI_PATH_IN_SERVICE,
    KVBI_PATH_BUSY, /* out of service, but copies are still under way there, or it is still being forgotten */
    KVBI_PATH_OUT
};

/* By one batch of completions: its own, and the suspects of before. */
#define KVBI_CONDEMNED_MAX (KVBI_LOCK_BATCH + KVB_DISK_PATHS_MAX * KVB_DISK_ERRORS_MAX)

struct kvbi_pipeline {
    struct kvbi_store *store;
    struct kvbi_engines engines;
    struct kvb_admission admission;
    const struct kvbi_tier *tiers; /* KVB_TIER_COUNT, by tier */
    struct kvbi_lanes lanes;
    struct kvbi_onboarding onboard;
    struct kvbi_path paths[KVB_DISK_PATHS_MAX];
    /* from the completions that progress has just applied, until it has told disk and log: */
    uint32_t condemned[KVBI_CONDEMNED_MAX]; /* slots that the disk is to retire */
    uint32_t condemned_count;
    uint32_t lost_unsaid; /* bit per path: out of service */
    uint32_t
        device_lost_cursor; /* of a GPU that has failed: the next slot to forget; KVBI_NONE: nothing to do */
};

struct kvbi_pipeline_config {
    const struct kvb_tier_config
        *configs; /* defaults resolved; one a tier, by index; block_count 0: absent */
    const struct kvbi_tier *tiers;
    struct kvb_admission admission;
    uint32_t op_capacity;
    bool own_thread;
    const struct kvbi_hooks *hooks;
};

int kvbi_pipeline_create(struct kvbi_pipeline *pipeline, struct kvbi_store *store,
                         const struct kvbi_pipeline_config *config, char *message,
                         size_t message_bytes);
void kvbi_pipeline_destroy(struct kvbi_pipeline *pipeline); /* legal on a zeroed object */
size_t kvbi_pipeline_bytes(const struct kvbi_pipeline *pipeline);

/* Beyond which point somebody who waits for a fence in front of a lane is to be looked at. */
struct kvbi_point kvbi_pipeline_until_locked(const struct kvbi_pipeline *pipeline);

/* Nothing queued, on deck or in transfer in any lane, no operation unfinished. */
bool kvbi_pipeline_idle_locked(const struct kvbi_pipeline *pipeline);

/* ---- Paths of the disk ---------------------------------------------------------------------------------------------- */

/* The engine gets a copy to or from a slot. Memory has no paths: then nothing is done, here and in the next. */
void kvbi_pipeline_disk_begun_locked(struct kvbi_pipeline *pipeline, const struct kvbi_pool *pool,
                                     uint32_t slot);
/*
 * It has answered. KVB_DISK_ERRORS_MAX errors in a row take the path out of service: its copies are not found any more, nothing is put
 * there; what is in transfer ends. Content that fails verification (KVB_ECORRUPT) is neither an error nor a success of the path: a kill
 * tears what it finds under way, side by side. Nor is KVB_EDEVICE: a GPU has failed to take or give the bytes. `condemned`: the slot is
 * retired as soon as nobody uses it; in the file too, but after an error only once the path has shown that it works. Should it be lost
 * instead, the slot is lost with it, and comes back with it.
 */
void kvbi_pipeline_disk_answered_locked(struct kvbi_pipeline *pipeline, struct kvbi_pool *pool,
                                        uint32_t slot, int result, bool condemned);
/* The disk has been told about the slots in `condemned`. */
void kvbi_pipeline_disk_told_locked(struct kvbi_pipeline *pipeline);
/* Forgets what a lost path held, with its events, KVBI_LOCK_BATCH slots at a time. True if there was something to do. */
bool kvbi_pipeline_forget_lost_locked(struct kvbi_pipeline *pipeline);

enum kvbi_path_state kvbi_pipeline_path_state_locked(const struct kvbi_pipeline *pipeline,
                                                     uint32_t path);
/*
 * A path that is OUT is in service again, and its slots are free, but for those condemned one by one: KVBI_LOCK_BATCH slots a call. True: call
 * again. Of any other path: does nothing.
 */
bool kvbi_pipeline_put_back_locked(struct kvbi_pipeline *pipeline, uint32_t path);

/* ---- A GPU ---------------------------------------------------------------------------------------------------------- */

/* It has failed: DEVICE is out of service. True the first time. */
bool kvbi_pipeline_note_device_locked(struct kvbi_pipeline *pipeline);
/* Forgets what was there, with its events, KVBI_LOCK_BATCH slots at a time. True if there was something to do. */
bool kvbi_pipeline_forget_device_locked(struct kvbi_pipeline *pipeline);

#endif
