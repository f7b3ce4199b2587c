/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two lanes out of one tier: DEVICE into HOST, and into REMOTE, which is memory here. A store, its
 * lanes and the engine for memory, put together by hand: no configuration has such lanes.
 */
#ifndef KVB_TEST_TWO_WAYS_H
#define KVB_TEST_TWO_WAYS_H

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "base/hooks.h"
#include "block/lifecycle.h"
#include "offload/lanes.h"
#include "support/failing_memory.h"
#include "transfer/memory/engine.h"
#include "transfer/memory/tier.h"

/* More of them than are revoked in one go. */
enum { WAYS_BLOCKS = KVBI_LOCK_BATCH + 16, WAYS_TOKENS = 4, WAYS_BYTES = 256 };

struct ways {
    struct failing_memory failing;
    struct kvbi_memory memory;
    struct kvbi_clock clock;
    struct kvbi_log log;
    struct kvbi_hooks hooks;
    uint32_t fails_into; /* copies into this tier fail */
    struct kvbi_store store;
    struct kvbi_tier tiers[KVB_TIER_COUNT];
    struct kvb_tier_config configs[KVB_TIER_COUNT];
    struct kvbi_engines fences; /* counter alone: the copies are made by `engine` */
    struct kvbi_engine *engine;
    struct kvbi_lanes lanes;
    struct kvbi_pool *pool; /* DEVICE's */
    uint32_t next_token;
};

void ways_lock(struct ways *w);

void ways_unlock(struct ways *w);

/* Places, pins, index, chains and the books of both lanes. */
void ways_check(struct ways *w);

/* Not open yet. The teardown checks what the test has left, and that all memory comes back. */
int ways_setup(void **state);
int ways_teardown(void **state);
/* Each deck has room for so many. */
struct ways *ways_open(void **state, uint32_t trigger, uint32_t ondeck_capacity);

struct kvbi_lane *ways_lane_into(struct ways *w, uint32_t tier);

const struct kvb_lane_stats *ways_stats(struct ways *w, uint32_t tier);

/* Where the block's offer to a lane is. FREE: it has none. */
enum kvbi_offer_stage ways_stage(struct ways *w, const struct kvb_block *block, uint32_t tier);

void ways_expect_stages(struct ways *w, const struct kvb_block *block,
                        enum kvbi_offer_stage into_host, enum kvbi_offer_stage into_remote);

/* ---- A server ------------------------------------------------------------------------------- */

void ways_let_go(struct ways *w, struct kvb_block *block);

/* As kvb_alloc takes one: a search that is cut short goes on in the next hold. */
struct kvb_block *ways_alloc_one(struct ways *w);

/* Room for everything is made, and given back. */
void ways_alloc_all(struct ways *w);

/* A registered block, held. Its content is new. */
struct kvb_block *ways_store_one(struct ways *w);

int ways_offer(struct ways *w, struct kvb_block *block);

int ways_cancel(struct ways *w, struct kvb_block *block);

void ways_forget(struct ways *w, const struct kvb_block *block);

/* Is a copy of the block in that tier, and found? */
bool ways_has_copy(struct ways *w, const struct kvb_block *block, uint32_t tier);

/* ---- Progress ------------------------------------------------------------------------------- */

/* What a lane gives the engine next. */
struct ways_batch {
    struct kvbi_copy copies[KVBI_LOCK_BATCH];
    uint32_t count;
};

void ways_take(struct ways *w, uint32_t tier, struct ways_batch *batch);

void ways_carry_out(struct ways *w, uint32_t tier, struct ways_batch *batch);

/* All that waits for the lane, or is on its deck. */
void ways_move_all(struct ways *w, uint32_t tier);

#endif
