/* SPDX-License-Identifier: Apache-2.0 */
/* What engine.h promises of submit, and of copies: all or none, each once, every byte right. */
#include "support/engine_bench.h"

/* ---- Submit ---------------------------------------------------------------------------------- */

static bool has_all_operations(struct engine_bench *bench)
{
    const struct kvbi_engine_ops *ops = bench->engine->ops;
    const struct kvbi_stream_ops *streams = bench->engine->streams;
    void *operation; /* both structs are pointers and nothing else */
    for (size_t at = 0; at < sizeof *ops; at += sizeof operation) {
        memcpy(&operation, (const char *)ops + at, sizeof operation);
        MUST(bench, operation != NULL, "operation %zu of the engine is NULL",
             at / sizeof operation);
    }
    for (size_t at = 0; streams != NULL && at < sizeof *streams; at += sizeof operation) {
        memcpy(&operation, (const char *)streams + at, sizeof operation);
        MUST(bench, operation != NULL, "operation %zu of its streams is NULL",
             at / sizeof operation);
    }
    MUST(bench, ops->name[0] != '\0', "it has no name");
    return true;
}

static bool takes_all_or_none(struct engine_bench *bench)
{
    struct kvbi_copy copies[PAIR_BLOCKS];
    uint32_t capacity = bench->capacity;
    bench_fill_all(bench);
    for (uint32_t i = 0; i < capacity + 2; i++)
        copies[i] = bench_plan_waiting(bench, i % 2 == 0, i, TO_COME);
    KEPT(traffic_refused(&bench->traffic, copies, capacity + 1));
    KEPT(traffic_submit(&bench->traffic, copies, capacity - 1, false)); /* nothing was taken */
    KEPT(traffic_refused(&bench->traffic, copies + capacity, 2));
    KEPT(traffic_submit(&bench->traffic, copies + capacity - 1, 1, false));
    KEPT(traffic_refused(&bench->traffic, copies + capacity, 1));
    KEPT(bench_signal(bench, TO_COME, true));
    KEPT(traffic_collect(&bench->traffic, capacity));
    KEPT(traffic_nothing_comes(&bench->traffic)); /* of what was refused */
    for (uint32_t i = 0; i < capacity; i++)
        KEPT(bench_ended_with(bench, &copies[i], 0));
    return bench_bytes_are_right(bench);
}

static bool takes_nothing_gladly(struct engine_bench *bench)
{
    struct kvbi_copy copies[PAIR_BLOCKS];
    bench_fill_all(bench);
    KEPT(traffic_submit(&bench->traffic, NULL, 0, true));
    for (uint32_t i = 0; i < bench->capacity; i++)
        copies[i] = bench_plan_waiting(bench, true, i, TO_COME);
    KEPT(traffic_submit(&bench->traffic, copies, bench->capacity, false));
    KEPT(traffic_submit(&bench->traffic, NULL, 0, false)); /* room for none is enough */
    KEPT(bench_signal(bench, TO_COME, true));
    KEPT(traffic_collect_all(&bench->traffic));
    return bench_all_done(bench);
}

/* ---- Copies ---------------------------------------------------------------------------------- */

enum order { RISING, FALLING, SHUFFLED, IN_RUNS, ORDERS };

/* The slots of one half. In runs: three follow one another, and the next three lie elsewhere. */
static void arrange(uint32_t *slots, uint32_t first, enum order order, uint64_t *seed)
{
    for (uint32_t i = 0; i < HALF; i++)
        slots[i] = first + (order == FALLING   ? HALF - 1 - i
                            : order == IN_RUNS ? i / 3 * 5 % (HALF / 3) * 3 + i % 3
                                               : i);
    for (uint32_t i = HALF; order == SHUFFLED && i-- > 1;) {
        uint32_t j = kv_random(seed, i + 1), slot = slots[i];
        slots[i] = slots[j];
        slots[j] = slot;
    }
}

enum direction { UP, DOWN, BOTH };

/*
 * As many as there is room for, in batches of any size, from slots in the one order to slots in the
 * other. What goes down does so between the lower halves of both tiers, so that no slot is source
 * and target at once.
 */
static bool copy_round(struct engine_bench *bench, enum order from, enum order to,
                       enum direction direction, uint64_t *seed)
{
    struct kvbi_copy copies[HALF];
    uint32_t sources[2][HALF], targets[2][HALF];
    for (uint32_t down = 0; down < 2; down++) {
        arrange(sources[down], down ? 0 : HALF, from, seed);
        arrange(targets[down], down ? 0 : HALF, to, seed);
    }
    for (uint32_t i = 0; i < bench->capacity; i++) {
        bool down = direction == BOTH ? i / 2 % 2 == 0 : direction == DOWN;
        copies[i] = bench_plan(bench, down, sources[down][i], targets[down][i]);
    }
    for (uint32_t i = 0, count; i < bench->capacity; i += count) {
        count = 1 + kv_random(seed, 5);
        if (count > bench->capacity - i)
            count = bench->capacity - i;
        KEPT(traffic_submit(&bench->traffic, copies + i, count, kv_random(seed, 3) == 0));
    }
    return traffic_collect(&bench->traffic, bench->capacity);
}

static bool copies_all_orders(struct engine_bench *bench, enum direction direction)
{
    uint64_t seed = 7;
    for (enum order from = RISING; from < ORDERS; from++)
        for (enum order to = RISING; to < ORDERS; to++) {
            bench_fill_all(bench);
            KEPT(copy_round(bench, from, to, direction, &seed));
            KEPT(bench_all_done(bench));
        }
    return traffic_nothing_comes(&bench->traffic);
}

static bool copies_down(struct engine_bench *bench)
{
    return copies_all_orders(bench, DOWN);
}

static bool copies_up(struct engine_bench *bench)
{
    return copies_all_orders(bench, UP);
}

static bool copies_both_ways(struct engine_bench *bench)
{
    return copies_all_orders(bench, BOTH);
}

/* What has come out makes room; nothing of an earlier round comes back in a later one. */
static bool room_comes_back(struct engine_bench *bench)
{
    uint64_t seed = 8;
    bench_fill_all(bench);
    for (uint32_t round = 0; round < 60; round++)
        KEPT(copy_round(bench, SHUFFLED, SHUFFLED, round % 2 == 0 ? DOWN : UP, &seed));
    return bench_all_done(bench);
}

/* What is written down comes up again, by the engine alone. */
static bool brings_back_what_it_took(struct engine_bench *bench)
{
    bench_fill_all(bench);
    for (uint32_t slot = 0; slot < PAIR_BLOCKS; slot++) {
        struct kvbi_copy down = bench_plan(bench, true, slot, PAIR_BLOCKS - 1 - slot);
        KEPT(traffic_submit(&bench->traffic, &down, 1, false));
        KEPT(traffic_collect_all(&bench->traffic));
    }
    KEPT(bench_all_done(bench));
    for (uint32_t slot = 0; slot < PAIR_BLOCKS; slot++)
        bench_fill(bench, &bench->upper, slot);
    for (uint32_t slot = 0; slot < PAIR_BLOCKS; slot++) {
        struct kvbi_copy up = bench_plan(bench, false, slot, (slot * 5) % PAIR_BLOCKS);
        KEPT(traffic_submit(&bench->traffic, &up, 1, true));
        KEPT(traffic_collect_all(&bench->traffic));
    }
    return bench_all_done(bench);
}

/*
 * Which is begun first is seen of an engine that works in reap only; of others, that none is lost.
 */
static bool begins_urgent_ones_first(struct engine_bench *bench)
{
    struct kvbi_copy copies[8];
    bench_fill_all(bench);
    for (uint32_t i = 0; i < 8; i++)
        copies[i] = bench_plan(bench, true, 3 * i, PAIR_BLOCKS - 1 - 2 * i);
    KEPT(traffic_submit(&bench->traffic, copies, 6, false));
    KEPT(traffic_submit(&bench->traffic, copies + 6, 2, true));
    KEPT(traffic_collect_by(&bench->traffic, 2, 1, KVB_FOREVER));
    for (uint32_t i = 6; bench->traffic.epoll < 0 && i < 8; i++)
        KEPT(bench_ended_with(bench, &copies[i], 0));
    KEPT(traffic_collect_all(&bench->traffic));
    return bench_all_done(bench);
}

const struct engine_promise engine_promises_copies[] = {
    {"every operation is there", has_all_operations},
    {"submit takes all or none", takes_all_or_none},
    {"submit of no copy is taken, also without room", takes_nothing_gladly},
    {"copies down come out once, with their bytes", copies_down},
    {"copies up come out once, with their bytes", copies_up},
    {"copies both ways come out once, with their bytes", copies_both_ways},
    {"what came out makes room", room_comes_back},
    {"what went down comes up", brings_back_what_it_took},
    {"urgent copies are begun first", begins_urgent_ones_first},
    {NULL, NULL},
};
