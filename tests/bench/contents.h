/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the suites measure on: managers, and contents (tokens and their names) to put into them.
 *
 * Callers    the suites. One thread.
 * Invariants all managers here have 16 tokens a block, poll mode and the same digest seed, so one
 *            content has the same names in all of them.
 * Why        pools are aged before anything is measured: contents lie in random slots, and the
 *            eviction order is another random order. A fresh pool hands out neighbours, and the
 *            hardware's prefetcher hides what a server would pay.
 */
#ifndef BENCH_CONTENTS_H
#define BENCH_CONTENTS_H

#include <kvblock.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BLOCK_TOKENS 16u

/* Ends the program, naming the call: a benchmark of calls that fail measures nothing. */
#define CALL(call) call_check((call), #call)
void call_check(int code, const char *call);
#define EXPECT(condition) call_check((condition) ? 0 : KVB_ESTATE, #condition)

void *memory_take(size_t count, size_t size); /* never NULL */

uint64_t random_next(void);
uint32_t random_below(uint32_t bound);
void random_order(uint32_t *order, uint32_t count); /* a permutation of [0, count) */

/* `block_count` blocks in sequences of `run_blocks` each (the last may be shorter). */
struct contents {
    uint32_t block_count, run_blocks;
    uint32_t *tokens;      /* BLOCK_TOKENS a block */
    struct kvb_seq *names; /* one a block */
    struct kvb_block_init *inits;
    struct kvb_append *appends;
};

void contents_create(struct contents *contents, uint32_t block_count, uint32_t run_blocks);
void contents_destroy(struct contents *contents);
/*
 * New random tokens, and their names. given_names: init gets the block's own name too, so that
 * append hashes nothing.
 */
void contents_renew(struct contents *contents, struct kvb_manager *manager, bool given_names);

/* One memory tier of tiny blocks. */
struct kvb_manager *manager_of(uint32_t block_count);

/*
 * Empty -> Registered for `count` blocks, which the caller holds. Inits and appends of the contents
 * begin at `first`.
 */
void blocks_register(struct kvb_manager *manager, struct kvb_block **blocks,
                     struct kvb_block_init *inits, struct kvb_append *appends, uint32_t count);

/*
 * Takes all blocks of the tier DEVICE, registers the contents in random order and parks them in
 * another random order.
 */
void manager_fill(struct kvb_manager *manager, const struct contents *contents);

#endif
