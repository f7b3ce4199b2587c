/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which files of a tier are in service, and which tiers: what their answers say about them, losing
 * one, putting one back.
 *
 *    SERVING ──KVB_DISK_ERRORS_MAX errors in a row──► FORGETTING ──all slots──► OUT
 *       ▲                                                ▲                       │ put back, once
 *       │                                                │                       │ nothing moves
 *       └─────────────all slots───────── RETURNING ──────┘ ◄─────────────────────┘
 *
 * Owns       the standing of each file, and what its tier and the log are still to be told.
 * Callers    offload/round, api/disk. Tiers say what an answer means
 *            (kvbi_lasting_ops.answered); what that leads to is decided here.
 * Invariants from the moment that a file or a tier is lost nothing there is found (store); what it
 *            held is forgotten later, in steps, with its events.
 * Lock       the store's for all that is named ..._locked.
 */
#ifndef KVBI_OFFLOAD_HEALTH_H
#define KVBI_OFFLOAD_HEALTH_H

#include <stdbool.h>
#include <stdint.h>

#include <kvblock.h>

#include "store/store.h"
#include "transfer/tier.h"

enum kvbi_file_stage {
    KVBI_FILE_SERVING = 0,
    KVBI_FILE_FORGETTING, /* out of service; what it had is being forgotten */
    KVBI_FILE_OUT,
    KVBI_FILE_RETURNING /* in service again; slots that were lost with it are becoming free */
};

/* The same as others see it. */
enum kvbi_file_state {
    KVBI_FILE_IN_SERVICE,
    KVBI_FILE_BUSY, /* out of service, but copies are under way there, or it is being forgotten */
    KVBI_FILE_OUT_OF_SERVICE
};

struct kvbi_file_health {
    uint8_t stage;   /* enum kvbi_file_stage */
    uint32_t errors; /* in a row */
    /* Copies to or from it that the engine has, and slots that its tier is to retire. */
    uint32_t moving;
    uint64_t cursor; /* FORGETTING, RETURNING: the next slot */
    /*
     * Slots condemned for one of these errors: whether it was the slot's or the file's fault, the
     * next I/O that succeeds will tell.
     */
    uint32_t suspects[KVB_DISK_ERRORS_MAX], suspect_count;
};

/* By one batch of completions: its own, and the suspects of before, of one tier that has files. */
#define KVBI_CONDEMNED_MAX (KVBI_LOCK_BATCH + KVB_DISK_PATHS_MAX * KVB_DISK_ERRORS_MAX)

struct kvbi_health {
    struct kvbi_store *store;
    struct kvbi_tier *tiers; /* KVB_TIER_COUNT, by tier */
    struct kvbi_file_health files[KVB_TIER_COUNT][KVB_DISK_PATHS_MAX];
    /* Of a tier that is lost as a whole: the next slot to forget; KVBI_NONE: nothing to do. */
    uint64_t lost_cursors[KVB_TIER_COUNT];
    /* From the completions that progress has just applied, until it has told tiers and log: */
    struct {
        uint32_t tier, slot; /* that the tier is to retire */
    } condemned[KVBI_CONDEMNED_MAX];
    uint32_t condemned_count;
    uint32_t lost_unlogged[KVB_TIER_COUNT]; /* bit per file: out of service */
};

void kvbi_health_init(struct kvbi_health *health, struct kvbi_store *store,
                      struct kvbi_tier *tiers);

/* ---- Files ----------------------------------------------------------------------------------- */

/* The engine gets a copy to or from a slot. Of a tier without files: does nothing, as the next. */
void kvbi_health_begun_locked(struct kvbi_health *health, const struct kvbi_pool *pool,
                              uint32_t slot);
/*
 * It has answered. KVB_DISK_ERRORS_MAX bad answers in a row take the file out of service: its
 * copies are not found any more, nothing is put there; what is in transfer ends. `condemned`: the
 * slot is retired as soon as nobody uses it; in the file too, but after an error only once the file
 * has shown that it works. Should it be lost instead, the slot is lost with it, and comes back with
 * it.
 */
void kvbi_health_answered_locked(struct kvbi_health *health, struct kvbi_pool *pool, uint32_t slot,
                                 int result, bool condemned);
/*
 * After a batch of answers: tiers retire what is condemned, and the log hears of that and of files
 * that are lost. No lock held. Progress.
 */
void kvbi_health_tell(struct kvbi_health *health);

enum kvbi_file_state kvbi_health_state_locked(const struct kvbi_health *health,
                                              const struct kvbi_pool *pool, uint32_t file);
/*
 * A file that is OUT is in service again, and its slots are free, but for those condemned one by
 * one: KVBI_LOCK_BATCH slots a call. True: call again. Of any other file: does nothing.
 */
bool kvbi_health_put_back_locked(struct kvbi_health *health, struct kvbi_pool *pool, uint32_t file);

/* ---- Tiers ----------------------------------------------------------------------------------- */

/*
 * Asks the tiers, takes those that have failed out of service, and says so. True if there was one
 * that had not been noticed. No lock held. Progress.
 */
bool kvbi_health_look(struct kvbi_health *health);

/*
 * Forgets what lost files and tiers held, with its events, KVBI_LOCK_BATCH slots of one at a time.
 * True if there was something to do.
 */
bool kvbi_health_forget_locked(struct kvbi_health *health);

#endif
