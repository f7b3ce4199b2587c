/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Onboarding: operations that bring blocks up, block by block, each block once for all who want it.
 *
 *   kvb_onboard ─► item per target ─┬─ copy there already ────────────► good (that copy)
 *                                   ├─ being filled: wait on it (join)► good (that copy) or failed
 *                                   └─ claim: queue on the lane below ► good (the target) or failed
 *                                      (through each tier in between, whose copy stays)
 *
 * Owns       operations, items, who waits on which slot, the onboard lanes.
 * Callers    api/ starts, cancels, takes and releases; offload/progress drives lanes, completions
 *            and finished operations.
 * Invariants an item is found by its target slot, and a target belongs to one operation from
 *            kvb_onboard to take or release. pending counts an operation's items that are neither
 *            good nor failed (one more while it is being built). good_count is the lowest failed
 *            index. A WAITING item is among `waiters`, and nothing else is; its slot is being
 *            filled, or was, and it has not been told yet. Until then a block that was filled well
 *            is held, once for all who waited. What is waited for has at least the priority of who
 *            waits. A MOVING item writes its own target. One that belongs to no operation is a
 *            carrier, whose target is a block in a tier on the way up, or an orphan, whose
 *            operation has ended without it; nobody uses its target, only the transfer holds it.
 *            Of a lane's copies at most unready_max, half of inflight_max, wait with the engine for
 *            tickets of their source's or target's; others that are not ready wait in `deferred`,
 *            where they delay nobody.
 * Lock       the store's.
 */
#ifndef KVBI_OFFLOAD_ONBOARD_H
#define KVBI_OFFLOAD_ONBOARD_H

#include <stdbool.h>
#include <stdint.h>

#include <kvblock.h>

#include "base/bands.h"
#include "base/deadlines.h"
#include "offload/lanes.h"
#include "offload/waiters.h"

/* In the cookie of an item's copy, beside its number. */
#define KVBI_COOKIE_ONBOARD (UINT64_C(1) << 63)

enum kvbi_item_stage {
    KVBI_ITEM_NONE = 0,
    KVBI_ITEM_RESERVED, /* its operation is being built */
    KVBI_ITEM_QUEUED,   /* on a lane's queue; source held */
    KVBI_ITEM_MOVING,   /* with the engine, which writes the target; source held */
    /* for the fill of a slot: the same content (join), or a copy of it on the way up */
    KVBI_ITEM_WAITING,
    KVBI_ITEM_GOOD,
    KVBI_ITEM_FAILED
};

struct kvbi_item {
    struct kvbi_band_node node; /* of a lane's queue */
    uint32_t op;                /* or KVBI_NONE: a carrier or an orphan */
    uint32_t index;             /* in the request */
    uint32_t prev, next;        /* items of the operation, in order */
    uint8_t stage;
    uint8_t priority; /* the highest of those who wait for it */
    uint8_t tier;     /* the target's */
    bool claims;      /* the target is being filled for this item, now or when its turn comes */
    struct kvb_block *target; /* what the item is named by */
    struct kvb_block *source; /* QUEUED, MOVING: read from */
    struct kvb_block *result; /* GOOD: where the content is; the target unless joined */
};

enum kvbi_op_state {
    KVBI_OP_FREE = 0,
    KVBI_OP_BUILDING,
    KVBI_OP_RUNNING,
    KVBI_OP_FINISHED,
    KVBI_OP_DELIVERED
};

struct kvb_op {
    uint32_t first, last; /* items, in order of the request */
    uint32_t count, pending, failed_at;
    /* next item to look at when the operation is cut short; KVBI_NONE: nothing to do */
    uint32_t sweep;
    uint32_t next; /* on the finished or free list */
    uint32_t next_cut, prev_cut;
    uint64_t ticket; /* the latest after which its targets were free */
    uint32_t tier;   /* the targets' */
    int abort;       /* 0, KVB_ECANCELED or KVB_ETIMEDOUT */
    int status;
    uint8_t state;
    bool on_cut_list;
    bool released, taken;
    bool layered; /* KVB_ONBOARD_LAYERS */
    kvb_onboard_done done;
    void *arg;
};

struct kvbi_onboard_lane {
    struct kvbi_bands queue;
    bool search_on;                /* room was looked for in the last section, and not to the end */
    struct kvbi_deferred deferred; /* QUEUED too, but their source or target is not ready */
    uint32_t inflight_max, batch;
    uint32_t unready, unready_max; /* copies with the engine that wait there for their tickets */
    struct kvbi_lane_book book;
};

/*
 * What kvbi_item.node.mark says of an item. Its node.extra: where the engine keeps its copy, for a
 * recall.
 */
enum kvbi_item_mark {
    KVBI_ITEM_DEFERRED = 1, /* QUEUED: in the lane's `deferred`, not in its queue */
    KVBI_ITEM_UNREADY = 2,  /* MOVING: one of the lane's `unready` */
};

/* All that are QUEUED on the lane. */
static inline uint32_t kvbi_onboard_lane_queued(const struct kvbi_onboard_lane *lane)
{
    return lane->queue.count + kvbi_deferred_count(&lane->deferred);
}

struct kvbi_op_list {
    uint32_t first, last;
};

struct kvbi_onboarding {
    struct kvbi_lanes *down; /* the lanes of offloading: neighbours, room, triggers */
    struct kvbi_store *store;
    struct kvbi_engines *engines;
    const struct kvbi_tier *tiers; /* by tier */
    struct kvbi_item *items;       /* one a slot of every tier but the lowest */
    uint32_t item_count;
    struct kvbi_waiters waiters;   /* by item */
    uint32_t base[KVB_TIER_COUNT]; /* item of slot 0, or KVBI_NONE for the lowest tier */
    struct kvb_op *ops;
    uint32_t op_capacity, op_free, op_count;
    struct kvbi_deadlines deadlines;
    struct kvbi_op_list finished;
    uint32_t cut_first;                             /* first operation that is to be cut short */
    struct kvbi_onboard_lane lanes[KVB_TIER_COUNT]; /* by the tier they fill */
    uint64_t started, completed, cancelled, timed_out;
    uint32_t aborted; /* at the end: so many of `ops` have been told that they end. Before: all */
};

/*
 * Between onboard.c (operations), onboard_item.c and its neighbours (blocks), onboard_take.c
 * (results).
 */
static inline uint32_t kvbi_op_id(const struct kvbi_onboarding *onboarding, const struct kvb_op *op)
{
    return (uint32_t)(op - onboarding->ops);
}

struct kvbi_item *kvbi_item_at(const struct kvbi_onboarding *onboarding, uint32_t tier,
                               uint32_t slot);
void kvbi_item_begin_locked(struct kvbi_onboarding *onboarding, struct kvbi_item *item,
                            struct kvb_block *source);
/* One step of it, in O(1). False: there is more to do, once more. */
bool kvbi_item_cut_locked(struct kvbi_onboarding *onboarding, struct kvbi_item *item,
                          uint64_t now_ns);
/* An item has become good or failed. */
void kvbi_op_resolve_locked(struct kvbi_onboarding *onboarding, struct kvbi_item *item, bool good);
/*
 * Item lists: an item leaves its operation; two exchange their operations; one takes another's
 * place.
 */
void kvbi_op_unlink_locked(struct kvbi_onboarding *onboarding, struct kvbi_item *item);
void kvbi_op_swap_locked(struct kvbi_onboarding *onboarding, struct kvbi_item *a,
                         struct kvbi_item *b);
void kvbi_op_replace_locked(struct kvbi_onboarding *onboarding, struct kvbi_item *old,
                            struct kvbi_item *item);

/*
 * onboard_deferred.c: items that are not ready. `tier` is the one that the lane fills; the item's
 * own target counts if that is it.
 */
struct kvbi_tickets kvbi_item_tickets(uint32_t tier, const struct kvbi_item *item);
/*
 * May a copy that waits for `tickets` be with the engine? If they are reached, or as one of the few
 * that may wait there.
 */
bool kvbi_item_may_move_locked(const struct kvbi_onboarding *onboarding, uint32_t tier,
                               struct kvbi_tickets tickets);
/* What the lane may take for a carrier's target. */
struct kvbi_criteria kvbi_carrier_criteria(const struct kvbi_onboarding *onboarding, uint32_t tier);
/*
 * A QUEUED item that is in no list is deferred: until its tickets are reached, or `for_target` of
 * the targets that there are.
 */
void kvbi_item_defer_locked(struct kvbi_onboarding *onboarding, uint32_t tier,
                            struct kvbi_item *item, bool for_target);
/* Its copy goes to the engine, and comes back. */
void kvbi_item_claim_locked(struct kvbi_onboarding *onboarding, uint32_t tier,
                            struct kvbi_item *item);
void kvbi_item_unclaim_locked(struct kvbi_onboarding *onboarding, struct kvbi_item *item);
/* A QUEUED item leaves whichever list of its lane it is in. */
void kvbi_item_leave_line_locked(struct kvbi_onboarding *onboarding, uint32_t tier,
                                 struct kvbi_item *item);
/* Those whose tickets are reached are in line again. */
void kvbi_onboarding_resume_locked(struct kvbi_onboarding *onboarding, uint32_t tier);
/*
 * A MOVING item that only waits for a counter ticket is given up: the engine will say
 * KVB_ECANCELED. False: it has begun.
 */
bool kvbi_item_recall_locked(const struct kvbi_onboarding *onboarding,
                             const struct kvbi_item *item);

/* A block that stands in for a target of the operation waits for what that waited for, too. */
void kvbi_op_set_tickets_locked(struct kvbi_onboarding *onboarding, const struct kvb_op *op,
                                struct kvb_block *block);

/* Engines and tiers are those of the lanes, which must outlive it. KVB_ENOMEM. */
int kvbi_onboarding_create(struct kvbi_onboarding *onboarding, struct kvbi_lanes *down,
                           const struct kvb_tier_config *configs, uint32_t op_capacity);
void kvbi_onboarding_destroy(struct kvbi_onboarding *onboarding); /* legal on a zeroed object */
size_t kvbi_onboarding_bytes(const struct kvbi_onboarding *onboarding);
bool kvbi_onboarding_idle_locked(const struct kvbi_onboarding *onboarding);
/* As kvbi_lanes_until_locked, of items. */
void kvbi_onboarding_await_locked(const struct kvbi_onboarding *onboarding,
                                  struct kvbi_awaited *awaited);

/* ---- For api/ -------------------------------------------------------------------------------- */

/* How many operations there can be that are not released. Fixed at create. */
static inline uint32_t kvbi_onboarding_capacity(const struct kvbi_onboarding *onboarding)
{
    return onboarding->op_capacity;
}

/* Is it an operation that the caller may name? By address and state. */
bool kvbi_op_valid_locked(const struct kvbi_onboarding *onboarding, const struct kvb_op *op);

/*
 * An operation being built: nothing of it finishes before kvbi_op_start_locked. NULL: op_capacity
 * reached.
 */
struct kvb_op *kvbi_op_new_locked(struct kvbi_onboarding *onboarding,
                                  const struct kvb_onboard *request, uint32_t tier);
/* Checks one pair and marks the target as this operation's. 0, or the error for the whole call. */
int kvbi_op_reserve_locked(struct kvbi_onboarding *onboarding, struct kvb_op *op,
                           const struct kvb_block *source, struct kvb_block *target);
/* Takes the mark off again. */
void kvbi_op_unreserve_locked(struct kvbi_onboarding *onboarding, const struct kvb_op *op,
                              const struct kvb_block *target);
/* The next reserved block sets off. The target's handle is the operation's from here on. */
void kvbi_op_add_locked(struct kvbi_onboarding *onboarding, struct kvb_op *op,
                        struct kvb_block *source, struct kvb_block *target, uint32_t priority);
void kvbi_op_start_locked(struct kvbi_onboarding *onboarding, struct kvb_op *op,
                          uint64_t deadline_ns);

/* Ends it as soon as progress gets to it. */
void kvbi_op_abort_locked(struct kvbi_onboarding *onboarding, struct kvb_op *op, int status);
/*
 * Up to KVBI_LOCK_BATCH blocks of a finished operation, from its first item that is left: the
 * handles in blocks[index] are handed out, or with blocks NULL given back. False: nothing is left.
 */
bool kvbi_op_take_locked(struct kvbi_onboarding *onboarding, struct kvb_op *op,
                         struct kvb_block **blocks, uint64_t now_ns);
/*
 * Who writes an operation's blocks in the GPU's memory: flights of its engine, a bit each, and the
 * server, up to `ticket`.
 */
struct kvbi_op_writers {
    uint64_t flights;
    struct kvbi_stream_points points;
};
/*
 * Adds to *writers for KVBI_LOCK_BATCH items from *cursor on (KVBI_NONE: the first), which moves
 * on. 1: there are more, 0: that was all, KVB_EAGAIN: one is in no flight yet.
 */
int kvbi_op_writers_locked(const struct kvbi_onboarding *onboarding, const struct kvb_op *op,
                           uint32_t *cursor, struct kvbi_op_writers *writers);
void kvbi_op_free_locked(struct kvbi_onboarding *onboarding, struct kvb_op *op);

/* ---- For offload/progress -------------------------------------------------------------------- */

/* Cuts short what is due or cancelled, KVBI_LOCK_BATCH items at a time. True if there is more. */
bool kvbi_onboarding_cut_locked(struct kvbi_onboarding *onboarding, uint64_t now_ns);
/* Copies for the engine from the lane that fills `tier`: up to `max`. */
uint32_t kvbi_onboarding_take_locked(struct kvbi_onboarding *onboarding, uint32_t tier,
                                     struct kvbi_copy *copies, uint32_t max, uint64_t now_ns);
/* KVBI_LOCK_BATCH items at most will be completed: warms what that touches, all of it at once. */
void kvbi_onboarding_warm_complete_locked(const struct kvbi_onboarding *onboarding,
                                          const uint32_t *items, uint32_t count);
/* The block that a moving item reads. */
const struct kvb_block *kvbi_onboarding_source_locked(const struct kvbi_onboarding *onboarding,
                                                      uint32_t id);
/* The engine's result of item `id`. The block that was published, or NULL. */
struct kvb_block *kvbi_onboarding_complete_locked(struct kvbi_onboarding *onboarding, uint32_t id,
                                                  int result, uint64_t now_ns);
/* The fill of a slot by an offload lane is over. */
void kvbi_onboarding_filled_locked(struct kvbi_onboarding *onboarding, uint32_t tier, uint32_t slot,
                                   bool good);
/* KVBI_LOCK_BATCH at most of those whose fill is over go on, or fail. True if somebody is left. */
bool kvbi_onboarding_wake_locked(struct kvbi_onboarding *onboarding, uint64_t now_ns);
/* The next finished operation whose `done` has not run. NULL: none. */
struct kvb_op *kvbi_onboarding_next_finished_locked(struct kvbi_onboarding *onboarding);
/* Destroy: everything ends, as kvbi_onboarding_cut_locked gets to it. */
void kvbi_onboarding_abort_all_locked(struct kvbi_onboarding *onboarding);
/* Handles that operations have, for destroy's count. */
uint64_t kvbi_onboarding_handles_locked(const struct kvbi_onboarding *onboarding);
/* As kvbi_lanes_stats_locked, of the lanes up and of operations. */
void kvbi_onboarding_stats_locked(const struct kvbi_onboarding *onboarding, uint64_t now_ns,
                                  struct kvb_stats *stats);

/* ---- For tests ------------------------------------------------------------------------------- */

/* Every invariant, by walking everything. NULL, or which one is broken. */
const char *kvbi_onboarding_check_locked(const struct kvbi_onboarding *onboarding);
/* No `done` of an operation that is under way is called any more. */
void kvbi_onboarding_mute_locked(struct kvbi_onboarding *onboarding);

#endif
