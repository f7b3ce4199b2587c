/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every transfer engine has to keep: the promises of transfer/engine.h, each a test of its
 * own.
 *
 * A recipe makes a bench: an engine, the two tiers that it copies between, and how to get at their
 * blocks. To put a new engine to the test is to write its recipe:
 *
 *     static bool open_mine(struct engine_bench *bench)
 *     {
 *         ... bench->upper.tier = ..., bench->engine = ...;
 *         return true;
 *     }
 *     const struct engine_recipe recipes[] = {
 *         {.name = "mine", .open = open_mine, .close = close_mine}};
 *     return engine_conformance_run(recipes, 1);
 *
 * Most are made by a tier_pair, which is there for that. A promise that is not kept says in words
 * what happened instead.
 */
#ifndef KVB_TEST_ENGINE_CONFORMANCE_H
#define KVB_TEST_ENGINE_CONFORMANCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "support/tier_pair.h"
#include "support/traffic.h"

#define BENCH_CAPACITY 16u

struct engine_recipe;

/* One of the two tiers. */
struct bench_side {
    const struct kvbi_tier *tier;
    const struct tier_access *access;
    /* what its blocks have to have, by slot; the conformance test's own */
    uint64_t keys[PAIR_BLOCKS];
};

struct engine_bench {
    const struct engine_recipe *recipe;
    /* Of the recipe: */
    struct kvbi_engine *engine;
    struct bench_side upper, lower; /* PAIR_BLOCKS each */
    uint32_t capacity;              /* copies with the engine at most: half of that, or fewer */
    int64_t allocated_bytes;        /* by the engine's create */
    int64_t uncounted_bytes;        /* of these, that bytes is known to leave out */
    bool keeps;           /* recall gives nothing back: what was taken is as good as begun */
    bool ready_idly;      /* ready is known to be true now and then with nothing there */
    bool half_in_reap;    /* it has an event, and a part of it works in reap only */
    void (*get_on)(void); /* lets the device get on; NULL: it does so by itself */
    struct tier_pair pair;
    void *self;
    /* The conformance test's: */
    struct traffic traffic;
    uint64_t next_key;
    struct {
        struct bench_side *side;
        uint32_t slot;
        uint64_t key;
        bool landed;
    } targets[TRAFFIC_MAX]; /* by number of the copy */
};

struct engine_recipe {
    const char *name;
    /* Why such an engine cannot be had here, in words; NULL: it can. May be NULL. */
    const char *(*missing)(void);
    /* False: bench->pair.message says why. Closed all the same. */
    bool (*open)(struct engine_bench *bench);
    /* Legal twice. False: something else is not as it has to be, and was said. */
    bool (*close)(struct engine_bench *bench);
    const void *how; /* the recipe's own */
};

struct engine_promise {
    const char *name;
    bool (*is_kept)(struct engine_bench *bench); /* false: bench->traffic.demand says why */
};

/* NULL: no more. */
const struct engine_promise *engine_promise_at(size_t i);

/*
 * What recipes made by a pair have in common, once its tiers are configured: opens it, and
 * describes it as the bench.
 */
bool engine_bench_open_pair(struct engine_bench *bench, bool own_thread,
                            const struct tier_access *upper, const struct tier_access *lower);

/*
 * Around one promise, for who wants to see one broken. Begin: false: it says why. End: false:
 * memory was not given back.
 */
bool engine_bench_begin(struct engine_bench *bench, const struct engine_recipe *recipe);
bool engine_bench_end(struct engine_bench *bench);

/*
 * Every promise for every recipe that can be had here; the others are named. How many tests have
 * failed.
 */
int engine_conformance_run(const struct engine_recipe *recipes, size_t count);

#endif
