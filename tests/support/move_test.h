/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tests about moving blocks share, on top of kv_test.h: contents whose bytes follow from their
 * name, lanes and their books, events by tier, operations that are known to succeed.
 *
 *     struct kv_rig *rig = *state;
 *     struct mv_run run;                   // a chain of contents: names, tokens, blocks
 *     mv_open_two(rig, 4, 4, KVB_OFFLOAD_MANUAL);
 *     mv_store(rig, &run, KVB_TIER_DEVICE, seed, count);
 *
 * Every step looks at the invariants after it, unless it says otherwise.
 */
#ifndef KVB_TEST_MOVE_H
#define KVB_TEST_MOVE_H

#include "support/kv_test.h"
#include "support/kv_wait.h"

#define MV_RUN_MAX 64

/* ---- Rigs ------------------------------------------------------------------------------------ */

/* DEVICE and HOST, the pipeline of tests that are about one lane, instead of what the rig has. */
void mv_two_tiers(struct kv_rig *rig, uint32_t device_blocks, uint32_t host_blocks,
                  uint32_t trigger);
/* The same with DISK in memory below; nothing goes down by itself. */
void mv_three_tiers(struct kv_rig *rig, uint32_t device_blocks, uint32_t host_blocks,
                    uint32_t disk_blocks);

/* The tier's lane: on deck, a batch, batches at once, in-queue. */
void mv_bounds(struct kv_rig *rig, uint32_t tier_index, uint32_t ondeck, uint32_t batch,
               uint32_t depth, uint32_t queue);

void mv_open_two(struct kv_rig *rig, uint32_t device_blocks, uint32_t host_blocks,
                 uint32_t trigger);
void mv_open_three(struct kv_rig *rig, uint32_t device_blocks, uint32_t host_blocks,
                   uint32_t disk_blocks);

/*
 * DEVICE and HOST with the narrowest lane: one place on deck, one with the engine, 8 in the
 * in-queue. Nothing goes down by itself, and no copy that waits for a fence is with the engine.
 */
void mv_open_narrow(struct kv_rig *rig, uint32_t device_blocks, uint32_t host_blocks);

/* Open with every copy recorded, in rig->copies. */
void mv_open_recorded(struct kv_rig *rig);

/*
 * Open so that each copy takes 10 ms of the rig's clock, which is more than progress does between
 * two looks at the time.
 */
void mv_open_slow(struct kv_rig *rig);

/* ---- Contents -------------------------------------------------------------------------------- */

/* A chain of contents from the root. The payload of each is that of its sequence hash. */
struct mv_run {
    uint32_t count;
    uint32_t tokens[MV_RUN_MAX * KV_TOKENS];
    struct kvb_seq seqs[MV_RUN_MAX];
    struct kvb_block *blocks[MV_RUN_MAX];
};

/* Names only. */
void mv_name(struct kv_rig *rig, struct mv_run *run, uint64_t seed, uint32_t count);

/* Compute blocks [from, count) of the run into run->blocks: Empty before, Complete afterwards. */
void mv_compute(struct kv_rig *rig, struct mv_run *run, uint32_t from);

/*
 * A run, computed and registered in a tier; the caller holds each block once. Written after the
 * counter has come to `fence_value` (0: by now).
 */
void mv_store_after(struct kv_rig *rig, struct mv_run *run, uint32_t tier, uint64_t seed,
                    uint32_t count, uint64_t fence_value);

void mv_store(struct kv_rig *rig, struct mv_run *run, uint32_t tier, uint64_t seed, uint32_t count);

void mv_drop(struct kv_rig *rig, struct mv_run *run);

/* The same two beside the manager's thread, where nobody may look at the invariants. */
void mv_store_beside(struct kv_rig *rig, struct mv_run *run, uint32_t tier, uint64_t seed,
                     uint32_t count, uint64_t fence_value);
void mv_drop_beside(struct kv_rig *rig, const struct mv_run *run);

/* Stored, and parked at once: the youngest of its tier. */
void mv_park(struct kv_rig *rig, struct mv_run *run, uint32_t tier, uint64_t seed, uint32_t count);

/* `count` contents that have nothing to do with each other, each a run of one block, held. */
void mv_store_each(struct kv_rig *rig, struct mv_run *runs, uint32_t tier, uint64_t seed,
                   uint32_t count);
void mv_drop_each(struct kv_rig *rig, struct mv_run *runs, uint32_t count);

void mv_offer(struct kv_rig *rig, struct kvb_block *block, uint32_t priority);
/* The first block of each run, in their order. */
void mv_offer_each(struct kv_rig *rig, struct mv_run *runs, uint32_t count, uint32_t priority);

/*
 * `count` contents of one block each, in DEVICE, written after the counter has come to
 * `fence_value` (0: by now), and offered. The caller holds them.
 */
void mv_offer_after(struct kv_rig *rig, struct mv_run *runs, uint64_t seed, uint32_t count,
                    uint64_t fence_value, uint32_t priority);

bool mv_bytes_are(struct kv_rig *rig, struct kvb_block *block, const struct kvb_seq *seq);

/* Leading blocks of the run whose fastest copy is in `tier`. */
uint64_t mv_in_tier(struct kv_rig *rig, const struct mv_run *run, uint32_t tier);

uint64_t mv_found(struct kv_rig *rig, const struct mv_run *run);

/* Match the run: blocks held in run->blocks, bytes of each verified. Returns how many. */
uint32_t mv_match(struct kv_rig *rig, struct mv_run *run);

/* The whole run is there, its fastest copies in `tier`, every byte right. Nothing is held then. */
void mv_expect_in(struct kv_rig *rig, struct mv_run *run, uint32_t tier);

/* Each of them is there, and not in a faster tier. */
void mv_expect_each_in(struct kv_rig *rig, struct mv_run *runs, uint32_t count, uint32_t tier);

/* `count` Empty blocks. */
void mv_alloc_many(struct kv_rig *rig, uint32_t tier, uint32_t count, struct kvb_block **blocks);
/* One whose memory is free once the counter has come to `fence_value`. */
struct kvb_block *mv_alloc_after(struct kv_rig *rig, uint32_t tier, uint64_t fence_value);

/* Everything that is parked in a tier goes; its free blocks are scribbled over. */
void mv_evict_all(struct kv_rig *rig, uint32_t tier);

/* ---- Events ---------------------------------------------------------------------------------- */

/*
 * The sequence hash that the n-th delivered event of this kind in this tier was about; 0: there are
 * not that many.
 */
uint64_t mv_event(const struct kv_rig *rig, uint32_t kind, uint32_t tier, size_t nth);

size_t mv_event_count(const struct kv_rig *rig, uint32_t kind, uint32_t tier);

/* ---- Lanes ----------------------------------------------------------------------------------- */

struct kvb_lane_stats mv_lane(struct kv_rig *rig, uint32_t from, uint32_t to);
struct kvb_lane_stats mv_down(struct kv_rig *rig); /* from DEVICE to HOST */
struct kvb_lane_stats mv_up(struct kv_rig *rig);   /* from HOST to DEVICE */

/* offered = transferred + skipped + ... in every lane; with `idle` nothing is pending. */
void mv_expect_books(struct kv_rig *rig, bool idle);

/* ---- Operations ------------------------------------------------------------------------------ */

/* What `done` said. */
struct mv_done {
    _Atomic uint32_t calls;
    int status;
    uint32_t good_count;
    struct kvb_op *op;
};

void mv_done_record(void *arg, struct kvb_op *op, int status, uint32_t good_count);
/* `done` has run, once. */
void mv_expect_done(const struct mv_done *done, int status, uint32_t good_count);

/* A `done` that only wakes who waits: its argument is a struct kv_wait. */
void mv_done_signal(void *wait, struct kvb_op *op, int status, uint32_t good_count);

/* An onboarding request of `count` blocks with `done` recorded. */
struct kvb_onboard mv_request(struct kvb_block *const *sources, struct kvb_block *const *targets,
                              uint32_t count, struct mv_done *done);
/* Starts what must start. */
struct kvb_op *mv_onboard(struct kv_rig *rig, const struct kvb_onboard *request);

/*
 * Starts bringing the run's matched blocks up into fresh ones of `tier`. The sources are let go at
 * once.
 */
struct kvb_op *mv_bring_up(struct kv_rig *rig, struct mv_run *run, uint32_t tier,
                           struct mv_done *done);
/* The same into these. */
struct kvb_op *mv_bring_into(struct kv_rig *rig, struct mv_run *run,
                             struct kvb_block *const *targets, struct mv_done *done);
/* A content of one block, into `target`, with a priority. */
struct kvb_op *mv_bring_with_priority(struct kv_rig *rig, struct mv_run *run,
                                      struct kvb_block *target, uint32_t priority,
                                      struct mv_done *done);

/*
 * The held blocks of the run, into fresh ones of `tier` that are free once the counter has come to
 * `fence_value`. Beside the manager's thread: nobody looks at the invariants.
 */
struct kvb_op *mv_bring_beside(struct kv_rig *rig, const struct mv_run *run, uint32_t tier,
                               uint64_t fence_value, uint64_t timeout_ns, struct mv_done *done);

/*
 * Takes an op's blocks into run->blocks and releases the op. Returns good_count, whose bytes are
 * right.
 */
uint32_t mv_take(struct kv_rig *rig, struct mv_run *run, struct kvb_op *op);
/* Gives back what mv_take handed out, NULLs left out. */
void mv_drop_taken(struct kv_rig *rig, struct mv_run *run);
/* Both: so many of the op's blocks are good. */
void mv_end(struct kv_rig *rig, struct mv_run *run, struct kvb_op *op, uint32_t good_count);

/*
 * Brings the run's block into `target`, and cancels while the engine writes there
 * (rig->hooks.keeps: it cannot be recalled). Another block, Empty, stands in for the target:
 * run->blocks[0].
 */
void mv_cancel_in_transfer(struct kv_rig *rig, struct mv_run *run, struct kvb_block *target);

/* ---- Progress -------------------------------------------------------------------------------- */

struct kvb_fence mv_fence(uint64_t value); /* of the counter */
void mv_signal(struct kv_rig *rig, uint64_t value);

/* Poll until nothing is left to do. */
#define mv_step(rig)                                                                               \
    do {                                                                                           \
        kv_poll(rig);                                                                              \
        kv_check(rig);                                                                             \
    } while (0)

/* The counter comes to `value`, and what has waited for that goes on. */
#define mv_reach(rig, value)                                                                       \
    do {                                                                                           \
        mv_signal((rig), (value));                                                                 \
        mv_step(rig);                                                                              \
    } while (0)

#endif
