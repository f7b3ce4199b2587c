/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An offload lane: one tier to a lower one, in three stages.
 *
 *    offer ──► on deck (held, bounded) ─take─► engine ─complete─► copy below, source let go
 *       │          ▲            │ revoke: room was needed
 *       └► in-queue (weak) ◄────┘ refill: best first; the upgrade is the commitment
 *          deferred (weak): until its tickets are reached
 *
 * Owns       its offers' stages and its counters; above a disk the labels of what is written there,
 *            and the budget of writes.
 * Callers    offload/lanes (triggers, room), offload/round and offload/progress (take, complete).
 * Invariants ondeck <= ondeck_capacity; taken <= inflight_max; only those hold. Room on deck means
 *            an empty in-queue, once the lock is released by progress; those that are deferred do
 *            not count. Of copies whose source or target is not ready at most unready_max, half of
 *            inflight_max, are on deck or taken: the rest is deferred, and delays nobody. A block
 *            has at most one offer to a lane (kvbi_offers_find). offered = transferred + skipped +
 *            discarded + shed + failed + cancelled + pending, after every call.
 * Lock       the store's.
 */
#ifndef KVBI_OFFLOAD_LANE_H
#define KVBI_OFFLOAD_LANE_H

#include <stdbool.h>
#include <stdint.h>

#include <kvblock.h>

#include "offload/budget.h"
#include "offload/in_queue.h"
#include "offload/labels.h"
#include "offload/offers.h"
#include "offload/revocable.h"
#include "store/store.h"
#include "transfer/engine.h"
#include "transfer/engines.h"

/* Counters that both kinds of lane keep; `stats` is the public picture less the gauges. */
struct kvbi_lane_book {
    struct kvb_lane_stats stats;
    uint32_t inflight;
    uint64_t busy_since_ns;
    bool throttled; /* the budget delays blocks, since: */
    uint64_t throttled_since_ns;
};

struct kvbi_lane {
    struct kvbi_store *store;
    struct kvbi_offers *offers; /* out of the tier `from`: its own and those of other lanes */
    uint8_t number;             /* among the lanes out of `from`: what names its own */
    struct kvbi_pool *from, *to;
    const struct kvbi_tier *from_tier, *to_tier;
    uint32_t trigger; /* enum kvb_trigger, resolved */
    uint32_t ondeck_capacity, inflight_max, batch;
    uint32_t unready, unready_max;      /* offers marked so */
    const struct kvbi_engines *engines; /* for their tickets */
    struct kvbi_in_queue queue;
    struct kvbi_bands deck; /* one band: first in, first out */
    /* of those on deck: whose block is parked, and held by nobody else */
    struct kvbi_revocable revocable;
    uint64_t ondeck_ages; /* how many have gone on deck */
    struct kvbi_lane_book book;
    struct kvbi_labels labels; /* above a disk */
    struct kvbi_budget budget;
};

/* For both kinds of lane: copies that went to the engine, or came back. */
void kvbi_lane_book_begin(struct kvbi_lane_book *book, uint32_t count, uint64_t now_ns);
void kvbi_lane_book_end(struct kvbi_lane_book *book, uint64_t now_ns);
/* One that came back with `result`, and whether its content was published. */
void kvbi_lane_book_complete(struct kvbi_lane_book *book, int result, bool published,
                             uint64_t bytes, uint64_t now_ns);
/* The public picture, of a lane on which so many wait or are on deck. */
void kvbi_lane_book_stats(const struct kvbi_lane_book *book, uint32_t queued, uint32_t ondeck,
                          uint64_t now_ns, struct kvb_lane_stats *stats);
/* Does it balance, with so many that wait or are on deck? NULL, or what is wrong. */
const char *kvbi_lane_book_check(const struct kvbi_lane_book *book, uint32_t waiting);

/*
 * Under which identity a disk keeps `named`'s content in `slot`. Under the store's lock; `named`
 * has an entry.
 */
struct kvbi_identity kvbi_lane_identity(const struct kvbi_store *store,
                                        const struct kvb_block *named,
                                        const struct kvb_block *slot);

struct kvbi_lane_config {
    struct kvbi_engines *engines;
    const struct kvbi_tier *from, *to;
    const struct kvb_tier_config *above, *below; /* theirs */
    struct kvbi_offers *offers;
    uint8_t number;
};

/* How many offers the lane can have at once; `above`: the tier that it leaves. */
uint32_t kvbi_lane_offer_count(const struct kvb_tier_config *above);
int kvbi_lane_create(struct kvbi_lane *lane, struct kvbi_store *store,
                     const struct kvbi_lane_config *config); /* KVB_ENOMEM */
void kvbi_lane_destroy(struct kvbi_lane *lane);              /* legal on a zeroed object */
size_t kvbi_lane_bytes(const struct kvbi_lane *lane);

/* Offers a Registered, indexed block that the lane has no offer of yet. */
void kvbi_lane_offer_locked(struct kvbi_lane *lane, struct kvb_block *block, uint32_t priority);
/* Takes back what waits. 0, KVB_ENOENT or KVB_EBUSY. */
int kvbi_lane_cancel_locked(struct kvbi_lane *lane, struct kvb_block *block);
/* An offer's content is forgotten: if it waits, in the queue or on deck, it is discarded. */
void kvbi_lane_forget_locked(struct kvbi_lane *lane, uint32_t offer);
/* One that is on deck waits in the queue again, pinning nothing, or is shed. */
void kvbi_lane_revoke_locked(struct kvbi_lane *lane, uint32_t offer, uint64_t now_ns);
/* Cancels what has not been taken (destroy), KVBI_LOCK_BATCH at a time. False: nothing was left. */
bool kvbi_lane_cancel_all_locked(struct kvbi_lane *lane, uint64_t now_ns);

/* Up to `max` offers for the engine, as far as the budget goes, off the deck, which is refilled. */
uint32_t kvbi_lane_take_locked(struct kvbi_lane *lane, uint32_t *offers, uint32_t max,
                               uint64_t now_ns);
/* When the budget lets go of a block that it delays. False: it delays none. */
bool kvbi_lane_next_locked(const struct kvbi_lane *lane, uint64_t *next_ns);
/* A taken offer that admission refuses. */
void kvbi_lane_refuse_locked(struct kvbi_lane *lane, uint32_t offer, uint64_t now_ns);
/*
 * KVBI_LOCK_BATCH taken offers at most will be aimed, or completed: warms what that touches, all of
 * it at once.
 */
void kvbi_lane_warm_aim_locked(const struct kvbi_lane *lane, const uint32_t *offers,
                               uint32_t count);
void kvbi_lane_warm_complete_locked(const struct kvbi_lane *lane, const uint32_t *offers,
                                    uint32_t count);
enum kvbi_aim {
    KVBI_AIM_DROPPED, /* skipped or discarded instead, and counted */
    KVBI_AIM_COPY,    /* paid for from here on */
    KVBI_AIM_AGAIN    /* room was looked for, and not to the end: once more in the next section */
};
/* Gives a taken offer its target and describes the copy. */
enum kvbi_aim kvbi_lane_aim_locked(struct kvbi_lane *lane, uint32_t offer, struct kvbi_copy *copy,
                                   uint64_t now_ns);
/* The engine's word on it. The block below if it was published there, else NULL. */
struct kvb_block *kvbi_lane_complete_locked(struct kvbi_lane *lane, uint32_t offer, int result,
                                            uint64_t now_ns);

/* ---- Between lane.c and lane_deferred.c (what is not ready) ---------------------------------- */

/* The offer ends here; the caller has counted why. */
void kvbi_lane_drop_locked(struct kvbi_lane *lane, uint32_t offer);
/*
 * May the offer be on deck, or with the engine? If its source is ready, or as one of the few that
 * may wait there; then it is marked so.
 */
bool kvbi_lane_claim_locked(struct kvbi_lane *lane, struct kvbi_offer *offer);
/* Its target waits for `ticket`: as one of the few, whatever their number. */
void kvbi_lane_claim_target_locked(struct kvbi_lane *lane, struct kvbi_offer *offer,
                                   uint64_t ticket);
/* It is neither on deck nor with the engine any more. */
void kvbi_lane_unclaim_locked(struct kvbi_lane *lane, struct kvbi_offer *offer);
/*
 * An offer that is in no list and holds nothing is deferred: until its source's ticket is reached,
 * or, `for_target`, one of the targets that the last search has found not ready.
 */
void kvbi_lane_defer_locked(struct kvbi_lane *lane, uint32_t offer, bool for_target);
/* Those whose tickets are reached are in line again. */
void kvbi_lane_resume_locked(struct kvbi_lane *lane);

static inline uint32_t kvbi_lane_ondeck(const struct kvbi_lane *lane)
{
    return kvbi_bands_count(&lane->deck);
}

static inline uint32_t kvbi_lane_pending(const struct kvbi_lane *lane)
{
    return kvbi_in_queue_count(&lane->queue) + kvbi_lane_ondeck(lane) + lane->book.inflight;
}

#endif
