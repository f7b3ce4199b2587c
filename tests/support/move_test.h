/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tests about moving blocks share, on top of kv_test.h: a recorder of copies that can make them fail, contents whose
 * bytes follow from their name, events by tier, operations that are known to succeed.
 *
 *     struct mv_copies copies;                    // every copy the engine begins, in order; mv_fail(&copies, n, code)
 *     mv_open(&rig, &copies);
 *     struct mv_run run;                          // a chain of contents: names, tokens, blocks
 *     mv_store(&rig, &run, KVB_TIER_DEVICE, seed, count);
 */
#ifndef KVB_TEST_MOVE_H
#define KVB_TEST_MOVE_H

#include "support/kv_test.h"

#define MV_COPY_MAX 512
#define MV_RUN_MAX 64

/* ---- Copies ------------------------------------------------------------------------------------------------------- */

struct mv_copy {
    uint32_t from_tier, from_slot, to_tier, to_slot;
};

struct mv_copies {
    _Atomic uint32_t count;   /* ever; the first MV_COPY_MAX are kept */
    _Atomic uint32_t fail_at; /* this copy (from 1) fails; 0: none */
    _Atomic bool fail_onwards;
    _Atomic int code;
    struct mv_copy list[MV_COPY_MAX];
    struct kvbi_hooks hooks;
};

int mv_copy_fault(void *context, uint32_t from_tier, uint32_t from_slot, uint32_t to_tier,
                  uint32_t to_slot);

/* The n-th copy from now on (from 1) fails, or it and all after it. */
void mv_fail(struct mv_copies *copies, uint32_t nth, bool onwards);

void mv_heal(struct mv_copies *copies);

/* Open with every copy recorded. */
void mv_open(struct kv_rig *rig, struct mv_copies *copies);

/* A rig with DEVICE and HOST, the pipeline of tests that are about one lane. */
void mv_two_tiers(struct kv_rig *rig, uint32_t device_blocks, uint32_t host_blocks,
                  uint32_t trigger);

void mv_three_tiers(struct kv_rig *rig, uint32_t device_blocks, uint32_t host_blocks,
                    uint32_t disk_blocks);

/* The tier's lane: on deck, a batch, batches at once, in-queue. */
void mv_bounds(struct kv_rig *rig, uint32_t tier_index, uint32_t ondeck, uint32_t batch,
               uint32_t depth, uint32_t queue);

/* ---- Contents ----------------------------------------------------------------------------------------------------- */

/* A chain of contents from the root. The payload of each is that of its sequence hash. */
struct mv_run {
    uint32_t count;
    uint32_t tokens[MV_RUN_MAX * KV_TOKENS];
    struct kvb_seq seqs[MV_RUN_MAX];
    struct kvb_block *blocks[MV_RUN_MAX];
};

/* Names only. */
void mv_name(struct kv_rig *rig, struct mv_run *run, uint64_t seed, uint32_t count);

/* Compute blocks [from, count) of the run into run->blocks, which are Empty; Complete afterwards. */
void mv_compute(struct kv_rig *rig, struct mv_run *run, uint32_t from);

/* A run, computed and registered in a tier; the caller holds each block once. `fence`: written after it. */
void mv_store_after(struct kv_rig *rig, struct mv_run *run, uint32_t tier, uint64_t seed,
                    uint32_t count, uint64_t fence_value);

void mv_store(struct kv_rig *rig, struct mv_run *run, uint32_t tier, uint64_t seed, uint32_t count);

void mv_drop(struct kv_rig *rig, struct mv_run *run);

/* Stored, and parked at once: the youngest of its tier. */
void mv_park(struct kv_rig *rig, struct mv_run *run, uint32_t tier, uint64_t seed, uint32_t count);

/* `count` contents that have nothing to do with each other, each a run of one block, held. */
void mv_store_each(struct kv_rig *rig, struct mv_run *runs, uint32_t tier, uint64_t seed,
                   uint32_t count);

void mv_offer(struct kv_rig *rig, struct kvb_block *block, uint32_t priority);

bool mv_bytes_are(struct kv_rig *rig, struct kvb_block *block, const struct kvb_seq *seq);

/* Leading blocks of the run whose fastest copy is in `tier`. */
uint64_t mv_in_tier(struct kv_rig *rig, const struct mv_run *run, uint32_t tier);

uint64_t mv_found(struct kv_rig *rig, const struct mv_run *run);

/* Match the run: blocks held in run->blocks, bytes of each verified. Returns how many. */
uint32_t mv_match(struct kv_rig *rig, struct mv_run *run);

/* The whole run is there, its fastest copies in `tier`, every byte right. Holds nothing afterwards. */
void mv_expect_in(struct kv_rig *rig, struct mv_run *run, uint32_t tier);

/* Everything that is parked in a tier goes; its free blocks are scribbled over. */
void mv_evict_all(struct kv_rig *rig, uint32_t tier);

/* ---- Events ------------------------------------------------------------------------------------------------------- */

/* The sequence hash that the n-th delivered event of this kind in this tier was about; 0: there are not that many. */
uint64_t mv_event(const struct kv_rig *rig, uint32_t kind, uint32_t tier, size_t nth);

size_t mv_event_count(const struct kv_rig *rig, uint32_t kind, uint32_t tier);

/* ---- Lanes -------------------------------------------------------------------------------------------------------- */

struct kvb_lane_stats mv_lane(struct kv_rig *rig, uint32_t from, uint32_t to);

/* offered = transferred + skipped + ... in every lane; with `idle` nothing is pending. */
void mv_expect_books(struct kv_rig *rig, bool idle);

/* ---- Operations --------------------------------------------------------------------------------------------------- */

/* What `done` said. */
struct mv_done {
    _Atomic uint32_t calls;
    int status;
    uint32_t good_count;
    struct kvb_op *op;
};

void mv_done_record(void *arg, struct kvb_op *op, int status, uint32_t good_count);

/* An onboarding request of `count` blocks with `done` recorded. */
struct kvb_onboard mv_request(struct kvb_block *const *sources, struct kvb_block *const *targets,
                              uint32_t count, struct mv_done *done);

/* Starts bringing the run's matched blocks up into fresh ones of `tier`. The sources are let go at once. */
struct kvb_op *mv_bring_up(struct kv_rig *rig, struct mv_run *run, uint32_t tier,
                           struct mv_done *done);

/* Takes an op's blocks into run->blocks and releases the op. Returns good_count, whose bytes are right. */
uint32_t mv_take(struct kv_rig *rig, struct mv_run *run, struct kvb_op *op);

/* Gives back what mv_take handed out, NULLs left out. */
void mv_drop_taken(struct kv_rig *rig, struct mv_run *run);

void mv_signal(struct kv_rig *rig, uint64_t value);

/* Poll, and the invariants hold afterwards. */
#define mv_step(rig)                                                                               \
    do {                                                                                           \
        kv_poll(rig);                                                                              \
        kv_check(rig);                                                                             \
    } while (0)

#endif
