/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A budget of writes: how many blocks may go to a disk now, and when the next one may.
 *
 * Owns       two token buckets, one for what a second allows and one for what a day does. Each
 *            begins full and fills continuously. The first has room for what a second allows, the
 *            second an hour's share of a day, each one block at least: so in any 24 hours no more
 *            than 25/24 of what a day allows is written, and each create brings no more than 1/24
 *            of it anew.
 * Callers    offload/lane.
 * Invariants blocks are spent only if kvbi_budget_blocks has just allowed them.
 * Lock       the store's.
 * Why        a bucket is kept as the time at which it will be full again (GCRA, ITU-T I.371): no
 *            remainders, nothing to bring up to date. What is counted is payload; padding to a page
 *            and 256 bytes of table entry a block come on top.
 */
#ifndef KVBI_OFFLOAD_BUDGET_H
#define KVBI_OFFLOAD_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

struct kvbi_bucket {
    uint64_t block_ns; /* how long it takes to fill it by one block; 0: no limit */
    uint64_t depth_ns; /* how long from empty to full */
    uint64_t full_at_ns;
};

struct kvbi_budget {
    struct kvbi_bucket second, day;
};

/* Bytes that may be written per second and per day; 0: no limit. */
void kvbi_budget_init(struct kvbi_budget *budget, uint64_t bytes_per_second, uint64_t bytes_per_day,
                      uint64_t block_bytes);

/* How many blocks may be written now, at most `max`. */
uint32_t kvbi_budget_blocks(const struct kvbi_budget *budget, uint32_t max, uint64_t now_ns);
void kvbi_budget_spend(struct kvbi_budget *budget, uint64_t now_ns); /* one block */

/* From when on kvbi_budget_blocks allows at least one; in the past if it does now. */
uint64_t kvbi_budget_next_ns(const struct kvbi_budget *budget);

#endif
