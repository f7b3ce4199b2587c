/* SPDX-License-Identifier: Apache-2.0 */
/* All promises of transfer/engine.h, and those about events, time and memory. */
#include "support/engine_bench.h"

#include <inttypes.h>

/* ---- Events and time ------------------------------------------------------------------------- */

/* Without a look at reap before, and again and again. -1: all comes out of one reap. */
static bool event_announces_completions(struct engine_bench *bench)
{
    bool more;
    uint32_t came;
    bench_fill_all(bench);
    for (uint32_t round = 0; round < 8; round++) {
        struct kvbi_copy copies[3];
        for (uint32_t i = 0; i < 3; i++)
            copies[i] = bench_plan(bench, round % 2 == 0, 4 * i + round, 30 - 5 * i + round);
        KEPT(traffic_submit(&bench->traffic, copies, 3, round % 3 == 0));
        while (bench->traffic.epoll >= 0 && bench->traffic.out > 0) {
            KEPT(traffic_wait(&bench->traffic));
            do {
                KEPT(traffic_reap(&bench->traffic, 1, KVB_FOREVER, &came, &more));
            } while (came > 0 || more);
        }
        if (bench->traffic.epoll < 0)
            KEPT(traffic_reap(&bench->traffic, TRAFFIC_ALL, KVB_FOREVER, &came, &more));
        MUST(bench, bench->traffic.out == 0, "event_fd is -1, and one reap left %u of 3",
             bench->traffic.out);
    }
    return bench_all_done(bench);
}

static bool says_whether_it_is_ready(struct engine_bench *bench)
{
    bench_fill_all(bench);
    KEPT(bench_is_ready(bench, false, "before the first copy"));
    for (uint32_t round = 0; round < 4; round++) {
        struct kvbi_copy copy = bench_plan(bench, round % 2 == 0, round, round + 8);
        KEPT(traffic_submit(&bench->traffic, &copy, 1, false));
        while (!bench->engine->ops->ready(bench->engine)) {
            MUST(bench, bench->traffic.epoll >= 0,
                 "ready is false, event_fd is -1, and a copy could be done");
            KEPT(traffic_wait(&bench->traffic));
        }
        KEPT(traffic_collect(&bench->traffic, 1));
        KEPT(bench_is_ready(bench, false, "after the last copy has come out"));
    }
    return bench_all_done(bench);
}

/* Far apart, so that none goes with another; time is over before each begins. */
static bool finishes_one_when_time_is_over(struct engine_bench *bench)
{
    uint32_t came;
    bool more;
    bench_fill_all(bench);
    for (uint32_t i = 0; i < bench->capacity; i++) {
        struct kvbi_copy copy = bench_plan(bench, i % 2 == 0, 3 * i, 3 * i);
        KEPT(traffic_submit(&bench->traffic, &copy, 1, i % 3 == 0));
    }
    while (bench->traffic.epoll < 0 && bench->traffic.out > 0) {
        KEPT(traffic_reap(&bench->traffic, TRAFFIC_ALL, 0, &came, &more));
        MUST(bench, came > 0, "reap finished none of %u that are ready", bench->traffic.out);
        MUST(bench, more == (bench->traffic.out > 0), "reap says that there is %s, and %u are left",
             more ? "more" : "no more", bench->traffic.out);
    }
    KEPT(traffic_collect_by(&bench->traffic, bench->traffic.out, TRAFFIC_ALL, 0));
    return bench_all_done(bench);
}

/* One by one, and what is left over for want of place is said to be there. */
static bool gives_no_more_than_asked(struct engine_bench *bench)
{
    bool more;
    uint32_t came;
    bench_fill_all(bench);
    for (uint32_t i = 0; i < bench->capacity; i++) {
        struct kvbi_copy copy = bench_plan(bench, i % 2 == 0, i, i);
        KEPT(traffic_submit(&bench->traffic, &copy, 1, false));
    }
    KEPT(traffic_reap(&bench->traffic, 0, KVB_FOREVER, &came, &more));
    KEPT(traffic_collect_by(&bench->traffic, bench->capacity, 1, KVB_FOREVER));
    return bench_all_done(bench);
}

/* ---- What it takes --------------------------------------------------------------------------- */

/*
 * To the byte: every allocation is a table or the engine itself, so one that is missing is one that
 * somebody forgot, and would be missing times the capacity.
 */
static bool accounts_for_its_memory(struct engine_bench *bench)
{
    int64_t said = (int64_t)bench->engine->ops->bytes(bench->engine);
    int64_t before = bench->pair.heap.live_bytes;
    MUST(bench, said + bench->uncounted_bytes == bench->allocated_bytes,
         "bytes is %" PRId64 ", and create has allocated %" PRId64, said, bench->allocated_bytes);
    bench_fill_all(bench);
    KEPT(bench_others_pass(bench, 0));
    MUST(bench, bench->pair.heap.live_bytes == before, "copying has allocated %" PRId64 " bytes",
         bench->pair.heap.live_bytes - before);
    MUST(bench, (int64_t)bench->engine->ops->bytes(bench->engine) == said, "bytes has changed");
    return bench_all_done(bench);
}

static bool gives_its_memory_back(struct engine_bench *bench)
{
    bench_fill_all(bench);
    KEPT(bench_others_pass(bench, 0));
    KEPT(bench_all_done(bench));
    bool given = engine_bench_end(bench);
    MUST(bench, given,
         "%lld pieces, %lld bytes are left after destroy, %llu were freed with a wrong size",
         (long long)bench->pair.heap.live_blocks, (long long)bench->pair.heap.live_bytes,
         (unsigned long long)bench->pair.heap.wrong_frees);
    return true;
}

/* ---- On a device's streams ------------------------------------------------------------------- */

static bool names_who_writes(struct engine_bench *bench)
{
    const struct kvbi_stream_ops *streams = bench->engine->streams;
    struct kvbi_engine *engine = bench->engine;
    MUST(bench, streams == NULL || bench->upper.tier->on_streams || bench->lower.tier->on_streams,
         "it has streams, and none of its tiers is on any");
    if (streams == NULL)
        return true;
    bench_fill_all(bench);
    struct kvbi_copy copy = bench_plan_waiting(bench, false, 6, TO_COME);
    MUST(bench, streams->flight(engine, 6) == KVBI_FLIGHT_NONE,
         "a slot is written before the first copy");
    KEPT(traffic_submit(&bench->traffic, &copy, 1, false));
    MUST(bench, streams->flight(engine, 6) == KVBI_FLIGHT_QUEUED,
         "a copy waits for its ticket, and its target is written by %u",
         streams->flight(engine, 6));
    KEPT(bench_signal(bench, TO_COME, true));
    KEPT(traffic_collect(&bench->traffic, 1));
    MUST(bench, streams->flight(engine, 6) == KVBI_FLIGHT_NONE,
         "a copy has come out, and its target is written by %u", streams->flight(engine, 6));
    return bench_all_done(bench);
}

static const struct engine_promise others[] = {
    {"the event announces completions", event_announces_completions},
    {"ready says whether reap has something", says_whether_it_is_ready},
    {"reap finishes one when time is over", finishes_one_when_time_is_over},
    {"reap gives no more than asked for", gives_no_more_than_asked},
    {"bytes is what create has allocated", accounts_for_its_memory},
    {"destroy gives all memory back", gives_its_memory_back},
    {"flight names who writes a slot of the device", names_who_writes},
    {NULL, NULL},
};

const struct engine_promise *engine_promise_at(size_t i)
{
    const struct engine_promise *const tables[] = {engine_promises_copies, engine_promises_tickets,
                                                   others};
    for (size_t t = 0; t < sizeof tables / sizeof *tables; t++)
        for (const struct engine_promise *promise = tables[t]; promise->name != NULL; promise++)
            if (i-- == 0)
                return promise;
    return NULL;
}
