/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For the promises alone: steps on a bench, and what the blocks of both tiers have to have.
 *
 * The bench keeps books: what is copied is known by slot, so that after any promise every byte of
 * both tiers can be looked at, of those as well that nobody has copied to.
 */
#ifndef KVB_TEST_ENGINE_BENCH_H
#define KVB_TEST_ENGINE_BENCH_H

#include "support/engine_conformance.h"

/* In a promise: the condition holds, or the promise is not kept, and the words say why. */
#define MUST(bench, ...) DEMAND(&(bench)->traffic.demand, __VA_ARGS__)
/* In a promise: the step has not said that the promise is not kept. */
#define KEPT(step)                                                                                 \
    do {                                                                                           \
        if (!(step))                                                                               \
            return false;                                                                          \
    } while (0)

#define HALF (PAIR_BLOCKS / 2) /* at least the capacity */
#define TO_COME 1000u          /* a ticket that is not reached unless a test says so */

/* Other bytes than ever before. */
void bench_fill(struct engine_bench *bench, struct bench_side *side, uint32_t slot);
void bench_fill_all(struct engine_bench *bench);

/* The next copy, down or up. Nothing that is out may touch its target, or write its source. */
struct kvbi_copy bench_plan(struct engine_bench *bench, bool down, uint32_t from, uint32_t to);
struct kvbi_copy bench_plan_waiting(struct engine_bench *bench, bool down, uint32_t slot,
                                    uint64_t ticket);
uint32_t bench_number(const struct kvbi_copy *copy);
const struct traffic_copy *bench_outcome(const struct engine_bench *bench,
                                         const struct kvbi_copy *copy);

bool bench_ended_with(struct engine_bench *bench, const struct kvbi_copy *copy, int result);
/* Every block of both tiers has what it has to have. */
bool bench_bytes_are_right(struct engine_bench *bench);
/* And all copies have come out as done. */
bool bench_all_done(struct engine_bench *bench);

/* must_say: copies wait for that value or a smaller one. */
bool bench_signal(struct engine_bench *bench, uint64_t value, bool must_say);
bool bench_is_ready(struct engine_bench *bench, bool must, const char *when);
/*
 * Later copies with a ticket that is reached go through, slots 20 to 25 of both, and nothing else
 * does.
 */
bool bench_others_pass(struct engine_bench *bench, uint64_t ticket);

/* The last of each has no name. */
extern const struct engine_promise engine_promises_copies[];
extern const struct engine_promise engine_promises_tickets[];

#endif
