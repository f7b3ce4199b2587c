/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A manager with thousands of blocks and operations, for tests of how much is done under one hold
 * of the lock. Steps are counted (kvbi_testing_longest_section), never time. The bound is
 * KVBI_LOCK_BATCH wherever one call or round does one kind of thing.
 */
#ifndef KVB_TEST_CROWD_H
#define KVB_TEST_CROWD_H

#include "base/lock.h"
#include "support/kv_scene.h"
#include "support/move_test.h"

enum { CROWD = 1500 };

struct crowd {
    struct kv_rig rig;
    struct kvb_block *source, *blocks[CROWD + 1];
    struct kvb_op *ops[CROWD + 1];
    uint32_t done, good, cancelled; /* operations */
};

int crowd_setup(void **state);
#define crowd_teardown kv_scene_end

/* Not open yet. The keys are numbers, and there may be CROWD + 3 operations. */
void crowd_configure(struct crowd *crowd, uint32_t device_blocks, uint32_t host_blocks,
                     uint32_t trigger);
/* Gives back the operations and the source, and expects that nothing else is left. */
void crowd_end(struct crowd *crowd);

/* Registered root blocks, held: the keys are their numbers, from `first` on. */
void crowd_put(struct crowd *crowd, uint32_t tier, uint64_t first, struct kvb_block **blocks,
               uint32_t count);

/* A `done`, of which the argument is the crowd. */
void crowd_count_done(void *arg, struct kvb_op *op, int status, uint32_t good_count);

void crowd_poll_once(struct crowd *crowd);

/* The longest hold since this was asked last, in steps. */
uint32_t crowd_longest_hold(struct crowd *crowd);
void crowd_forget_holds(struct crowd *crowd);
void crowd_expect_short_sections(struct crowd *crowd);

#endif
