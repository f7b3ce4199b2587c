/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What engine.h promises of tickets: what waits for them, who gives them, and how it is given up.
 */
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "support/engine_bench.h"
#include "support/signal.h"

/* ---- Tickets --------------------------------------------------------------------------------- */

static bool holds_back_what_waits(struct engine_bench *bench)
{
    struct kvbi_copy held[4];
    bench_fill_all(bench);
    for (uint32_t i = 0; i < 4; i++)
        held[i] = bench_plan_waiting(bench, i % 2 == 0, i, i < 2 ? 7 : 9);
    KEPT(traffic_submit(&bench->traffic, held, 4, false));
    KEPT(bench_others_pass(bench, 0));
    KEPT(bench_signal(bench, 6, false));
    KEPT(bench_others_pass(bench, 6));
    KEPT(bench_is_ready(bench, false, "while all that is there waits for a ticket"));
    KEPT(bench_bytes_are_right(bench));
    KEPT(bench_signal(bench, 7, true));
    KEPT(traffic_collect(&bench->traffic, 2));
    KEPT(bench_ended_with(bench, &held[0], 0));
    KEPT(bench_ended_with(bench, &held[1], 0));
    KEPT(bench_others_pass(bench, 7));
    KEPT(bench_signal(bench, 2000, true)); /* the larger one implies the smaller */
    KEPT(traffic_collect(&bench->traffic, 2));
    return bench_all_done(bench);
}

static bool what_is_reached_stays_reached(struct engine_bench *bench)
{
    bench_fill_all(bench);
    KEPT(bench_signal(bench, 50, false));
    KEPT(bench_signal(bench, 3, false)); /* a late one */
    KEPT(bench_others_pass(bench, 50));
    return bench_all_done(bench);
}

/* Of urgent ones and of those that go both ways, too. */
static bool holds_back_a_whole_queue(struct engine_bench *bench)
{
    struct kvbi_copy copies[PAIR_BLOCKS];
    uint32_t out = bench->capacity;
    bench_fill_all(bench);
    for (uint32_t i = 0; i < bench->capacity; i++) {
        copies[i] = bench_plan_waiting(bench, i % 3 == 0, i, 10 + (i * 7) % bench->capacity);
        KEPT(traffic_submit(&bench->traffic, &copies[i], 1, i % 2 != 0));
    }
    for (uint64_t value = 10; out > 0; value++, out--) {
        KEPT(traffic_nothing_comes(&bench->traffic));
        KEPT(bench_signal(bench, value, true));
        KEPT(traffic_collect(&bench->traffic, 1));
        for (uint32_t i = 0; i < bench->capacity; i++)
            MUST(bench,
                 bench_outcome(bench, &copies[i])->over == (copies[i].tickets.source <= value),
                 "copy %u waits for %" PRIu64 ", and the counter is at %" PRIu64, i,
                 copies[i].tickets.source, value);
    }
    return bench_all_done(bench);
}

struct signaller {
    struct kvbi_lines *lines;
    struct kvbi_engine *engine;
    uint64_t last;
    atomic_bool over;
};

static void *signal_all(void *argument)
{
    struct signaller *signaller = argument;
    for (uint64_t value = 1; value <= signaller->last; value++) {
        (void)signal_line(signaller->lines, signaller->engine, 0, value);
        (void)sched_yield();
    }
    atomic_store(&signaller->over, true);
    return NULL;
}

/*
 * As collect, but that nobody wakes the caller: reap is asked as long as the other thread signals.
 */
static bool collect_signalled(struct engine_bench *bench, const struct signaller *signaller)
{
    uint32_t came;
    bool more;
    while (bench->traffic.out > 0 && !atomic_load(&signaller->over)) {
        KEPT(traffic_reap(&bench->traffic, TRAFFIC_ALL, KVB_FOREVER, &came, &more));
        (void)bench->engine->ops->ready(bench->engine);
        (void)sched_yield();
    }
    return traffic_collect_all(&bench->traffic);
}

static bool other_threads_signal(struct engine_bench *bench)
{
    struct signaller signaller = {
        .lines = &bench->pair.engines.lines, .engine = bench->engine, .last = bench->capacity};
    pthread_t thread;
    bench_fill_all(bench);
    for (uint32_t i = 0; i < bench->capacity; i++) {
        struct kvbi_copy copy = bench_plan_waiting(bench, i % 2 == 0, i, i + 1);
        KEPT(traffic_submit(&bench->traffic, &copy, 1, false));
    }
    MUST(bench, pthread_create(&thread, NULL, signal_all, &signaller) == 0,
         "there is no thread to be had");
    bool kept = collect_signalled(bench, &signaller);
    (void)pthread_join(thread, NULL);
    return kept && bench_all_done(bench);
}

/* ---- Giving up ------------------------------------------------------------------------------- */

static bool recall(struct engine_bench *bench, uint32_t place, uint64_t cookie, bool must,
                   const char *what)
{
    bool said = bench->engine->ops->recall(bench->engine, place, cookie);
    MUST(bench, said == must, "recall of %s says %s", what,
         said ? "that it was given up" : "that it does not wait");
    return true;
}

/* The second of three. */
static bool recalls_what_waits(struct engine_bench *bench)
{
    struct kvbi_copy copies[3];
    uint32_t places[3];
    bool gives = !bench->keeps;
    bench_fill_all(bench);
    for (uint32_t i = 0; i < 3; i++) {
        copies[i] = bench_plan_waiting(bench, i != 2, i, 5);
        copies[i].place = &places[i];
    }
    KEPT(traffic_submit(&bench->traffic, copies, 3, false));
    KEPT(recall(bench, places[1], copies[1].cookie + 99, false, "another tag"));
    KEPT(recall(bench, places[1], copies[1].cookie, gives, "a copy that waits"));
    KEPT(recall(bench, places[1], copies[1].cookie, false, "what was given up before"));
    if (gives) {
        KEPT(bench_is_ready(bench, true, "with a copy that was given up"));
        KEPT(traffic_collect(&bench->traffic, 1));
        KEPT(bench_ended_with(bench, &copies[1], KVB_ECANCELED));
        KEPT(recall(bench, places[1], copies[1].cookie, false, "what has come out"));
    }
    KEPT(traffic_nothing_comes(&bench->traffic));
    KEPT(bench_signal(bench, 5, true));
    KEPT(traffic_collect_all(&bench->traffic));
    KEPT(traffic_nothing_comes(&bench->traffic));
    KEPT(bench_ended_with(bench, &copies[0], 0));
    KEPT(bench_ended_with(bench, &copies[1], gives ? KVB_ECANCELED : 0));
    KEPT(bench_ended_with(bench, &copies[2], 0));
    return bench_bytes_are_right(bench);
}

static bool recalls_nothing_that_does_not_wait(struct engine_bench *bench)
{
    uint32_t place, later_place;
    bench_fill_all(bench);
    struct kvbi_copy copy = bench_plan_waiting(bench, true, 1, 5);
    copy.place = &place;
    KEPT(traffic_submit(&bench->traffic, &copy, 1, false));
    KEPT(bench_signal(bench, 5, true));
    KEPT(recall(bench, place, copy.cookie, false, "a copy whose ticket is reached"));
    KEPT(traffic_collect(&bench->traffic, 1));
    KEPT(bench_ended_with(bench, &copy, 0));
    KEPT(recall(bench, place, copy.cookie, false, "what has come out"));
    struct kvbi_copy ready = bench_plan(bench, false, 9, 9);
    ready.place = &later_place;
    KEPT(traffic_submit(&bench->traffic, &ready, 1, false));
    KEPT(recall(bench, later_place, ready.cookie, false, "a copy that waits for nothing"));
    KEPT(traffic_collect(&bench->traffic, 1));
    return bench_all_done(bench);
}

/* All but one of a full queue: the room that they held is there again. */
static bool recalled_ones_make_room(struct engine_bench *bench)
{
    struct kvbi_copy copies[PAIR_BLOCKS];
    uint32_t places[PAIR_BLOCKS], capacity = bench->capacity;
    bench_fill_all(bench);
    for (uint32_t i = 0; i < capacity; i++) {
        copies[i] = bench_plan_waiting(bench, i % 2 == 0, i, TO_COME);
        copies[i].place = &places[i];
    }
    KEPT(traffic_submit(&bench->traffic, copies, capacity, false));
    for (uint32_t i = capacity; i-- > 1;)
        KEPT(recall(bench, places[i], copies[i].cookie, !bench->keeps, "a copy that waits"));
    if (!bench->keeps) {
        KEPT(traffic_collect(&bench->traffic, capacity - 1));
        KEPT(bench_bytes_are_right(bench));
        KEPT(bench_others_pass(bench, 0));
    }
    KEPT(bench_signal(bench, TO_COME, true));
    KEPT(traffic_collect_all(&bench->traffic));
    KEPT(bench_ended_with(bench, &copies[0], 0));
    return bench_bytes_are_right(bench);
}

/* Some wait, some could be begun, and of these some may have been. */
static bool drains(struct engine_bench *bench)
{
    struct kvbi_copy waiting[4], ready[9];
    bench_fill_all(bench);
    for (uint32_t i = 0; i < 4; i++)
        waiting[i] = bench_plan_waiting(bench, i % 2 == 0, i, TO_COME);
    for (uint32_t i = 0; i < 9; i++)
        ready[i] = bench_plan(bench, i % 2 != 0, 10 + 2 * i, 10 + 2 * i);
    KEPT(traffic_submit(&bench->traffic, waiting, 4, false));
    KEPT(traffic_submit(&bench->traffic, ready, 6, false));
    KEPT(traffic_submit(&bench->traffic, ready + 6, 3, true));
    bench->engine->ops->drain(bench->engine);
    KEPT(traffic_collect(&bench->traffic, 13));
    KEPT(traffic_nothing_comes(&bench->traffic));
    for (uint32_t i = 0; i < 4; i++)
        KEPT(bench_ended_with(bench, &waiting[i], KVB_ECANCELED));
    for (uint32_t i = 0; i < 9; i++)
        if (bench_outcome(bench, &ready[i])->result != KVB_ECANCELED)
            KEPT(bench_ended_with(bench, &ready[i], 0));
    return bench_bytes_are_right(bench); /* what was never started has written nothing */
}

static bool drains_when_idle(struct engine_bench *bench)
{
    bench_fill_all(bench);
    KEPT(bench_others_pass(bench, 0));
    bench->engine->ops->drain(bench->engine);
    KEPT(traffic_nothing_comes(&bench->traffic));
    KEPT(bench_is_ready(bench, false, "after a drain with nothing there"));
    return bench_all_done(bench);
}

const struct engine_promise engine_promises_tickets[] = {
    {"a copy waits for its ticket, and holds up nobody", holds_back_what_waits},
    {"a ticket that is reached stays reached", what_is_reached_stays_reached},
    {"a queue of tickets comes out in their order", holds_back_a_whole_queue},
    {"other threads signal", other_threads_signal},
    {"recall gives back a copy that waits, once", recalls_what_waits},
    {"recall leaves alone what does not wait", recalls_nothing_that_does_not_wait},
    {"recalled copies make room", recalled_ones_make_room},
    {"drain gives up what has not begun and loses nothing", drains},
    {"drain of an idle engine does nothing", drains_when_idle},
    {NULL, NULL},
};
