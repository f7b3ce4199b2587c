/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The conformance test of engines finds what is wrong with one: each engine here is host memory's,
 * and breaks one promise of transfer/engine.h.
 */
#include "support/engine_conformance.h"
#include "support/test.h"

enum fault {
    NO_FAULT,
    COMPLETES_TWICE,
    FORGETS_ONE,
    CHANGES_TAGS,
    PASSES_TICKETS,
    TAKES_SOME,
    REFUSES_NOTHING,
    LOSES_ROOM,
    COPIES_OTHER_BYTES,
    COPIES_NOTHING,
    SPILLS,
    FAILS,
    CONDEMNS,
    URGENT_LAST,
    SIGNALS_SILENTLY,
    RECALLS_ANY_TAG,
    RECALLS_TWICE,
    RECALLS_AND_COPIES,
    RECALLS_NOTHING,
    DRAINS_NOTHING,
    DRAINS_INTO_NOTHING,
    CANCELS_AS_DONE,
    NEVER_READY,
    ALWAYS_READY,
    STOPS_WITH_THE_TIME,
    SAYS_NO_MORE,
    GIVES_MORE_THAN_ASKED,
    COUNTS_TOO_LITTLE,
    LEAKS,
    HAS_NO_DRAIN,
};

struct broken {
    struct kvbi_engine engine;
    struct kvbi_engine_ops ops;
    struct kvbi_engine *inner;
    struct engine_bench *bench;
    enum fault fault;
    struct kvbi_completion again; /* to be given a second time; tag 0: none */
    uint32_t seen, taken;
    bool drained;
    struct kvbi_copy recalled; /* to be done all the same */
    struct kvbi_copy last;
};

static struct broken *of(struct kvbi_engine *engine)
{
    return (struct broken *)(void *)engine; /* its first member */
}

/* ---- What it does otherwise than it must ----------------------------------------------------- */

static struct kvbi_copy bend(const struct broken *broken, struct kvbi_copy copy)
{
    if (broken->fault == PASSES_TICKETS)
        copy.tickets.source = 0;
    if (broken->fault == COPIES_OTHER_BYTES && copy.from_slot == 2)
        copy.from_slot = 3;
    if (broken->fault == COPIES_NOTHING && copy.from_slot == 2) {
        copy.to = copy.from;
        copy.to_slot = copy.from_slot;
    }
    return copy;
}

static int submit(struct kvbi_engine *engine, const struct kvbi_copy *copies, uint32_t count,
                  bool urgent)
{
    struct broken *broken = of(engine);
    struct kvbi_copy bent[PAIR_BLOCKS];
    for (uint32_t i = 0; i < count; i++)
        bent[i] = bend(broken, copies[i]);
    if (broken->fault == LOSES_ROOM && broken->taken + count > 3 * BENCH_CAPACITY)
        return KVB_EAGAIN;
    int code = broken->inner->ops->submit(broken->inner, bent, count,
                                          broken->fault == URGENT_LAST ? !urgent : urgent);
    if (code != 0 && broken->fault == TAKES_SOME)
        (void)broken->inner->ops->submit(broken->inner, bent, 1, urgent);
    broken->taken += code == 0 ? count : 0;
    broken->last = count > 0 ? bent[count - 1] : broken->last;
    return broken->fault == REFUSES_NOTHING ? 0 : code;
}

static bool swallows(const struct broken *broken, const struct kvbi_completion *completion)
{
    return (broken->fault == FORGETS_ONE && broken->seen == 5) ||
           (broken->fault == DRAINS_INTO_NOTHING && completion->result == KVB_ECANCELED &&
            broken->drained);
}

static void bend_completion(struct broken *broken, struct kvbi_completion *completion)
{
    completion->cookie += broken->fault == CHANGES_TAGS;
    if (broken->fault == FAILS && broken->seen == 5)
        completion->result = KVB_EIO;
    completion->condemned |= broken->fault == CONDEMNS && broken->seen == 5;
    if (broken->fault == CANCELS_AS_DONE)
        completion->result = 0;
    if (broken->fault == COMPLETES_TWICE && broken->seen == 5)
        broken->again = *completion;
}

static void spill(const struct broken *broken)
{
    const struct kvbi_copy *last = &broken->last;
    if (last->to != NULL && last->to_slot + 1 < last->to->block_count)
        *kvbi_tier_address(last->to, last->to_slot + 1) ^= 1;
}

/* What was recalled is copied nevertheless, before it comes out as cancelled. */
static void copy_recalled(struct broken *broken)
{
    const struct kvbi_copy *copy = &broken->recalled;
    if (copy->to != NULL)
        memcpy(kvbi_tier_address(copy->to, copy->to_slot),
               kvbi_tier_address(copy->from, copy->from_slot), copy->to->block_bytes);
    broken->recalled.to = NULL;
}

static uint32_t reap(struct kvbi_engine *engine, struct kvbi_completion *completions, uint32_t max,
                     uint64_t until_ns, bool *more)
{
    struct broken *broken = of(engine);
    uint32_t kept = 0;
    if (broken->again.cookie != 0 && max > 0) {
        completions[0] = broken->again;
        broken->again.cookie = 0;
        return 1;
    }
    if (broken->fault == STOPS_WITH_THE_TIME && until_ns == 0)
        max = 0;
    if (broken->fault == GIVES_MORE_THAN_ASKED && max == 1)
        max = 2;
    uint32_t count = broken->inner->ops->reap(broken->inner, completions, max, until_ns, more);
    for (uint32_t i = 0; i < count; i++) {
        broken->seen++;
        if (swallows(broken, &completions[i]))
            continue;
        completions[kept] = completions[i];
        bend_completion(broken, &completions[kept++]);
    }
    if (broken->fault == SPILLS && count > 0)
        spill(broken);
    copy_recalled(broken);
    *more = (*more || broken->again.cookie != 0) && broken->fault != SAYS_NO_MORE;
    return kept;
}

static bool ready(struct kvbi_engine *engine)
{
    struct broken *broken = of(engine);
    return broken->fault == ALWAYS_READY ||
           (broken->fault != NEVER_READY && broken->inner->ops->ready(broken->inner));
}

static void drain(struct kvbi_engine *engine)
{
    struct broken *broken = of(engine);
    broken->drained = true;
    if (broken->fault != DRAINS_NOTHING)
        broken->inner->ops->drain(broken->inner);
}

static bool signal_counter(struct kvbi_engine *engine)
{
    struct broken *broken = of(engine);
    return broken->inner->ops->signal(broken->inner) && broken->fault != SIGNALS_SILENTLY;
}

static bool recall(struct kvbi_engine *engine, uint32_t place, uint64_t cookie)
{
    struct broken *broken = of(engine);
    if (broken->fault == RECALLS_NOTHING)
        return false;
    for (uint64_t guess = cookie - 200; broken->fault == RECALLS_ANY_TAG && guess < cookie + 200;
         guess++)
        if (broken->inner->ops->recall(broken->inner, place, guess))
            return true;
    bool recalled = broken->inner->ops->recall(broken->inner, place, cookie);
    if (recalled && broken->fault == RECALLS_AND_COPIES)
        broken->recalled = broken->last;
    return recalled || broken->fault == RECALLS_TWICE;
}

static int event_fd(struct kvbi_engine *engine)
{
    return of(engine)->inner->ops->wake_fd(of(engine)->inner);
}

static size_t bytes(const struct kvbi_engine *engine)
{
    const struct broken *broken = (const struct broken *)(const void *)engine;
    size_t all = sizeof *broken + broken->inner->ops->bytes(broken->inner);
    return broken->fault == COUNTS_TOO_LITTLE ? all - sizeof *broken : all;
}

static void destroy(struct kvbi_engine *engine)
{
    struct broken *broken = of(engine);
    broken->inner->ops->destroy(broken->inner);
    if (broken->fault == LEAKS)
        return;
    kvbi_memory_free(&broken->bench->pair.memory, broken, 1, sizeof *broken);
}

/* ---- The bench ------------------------------------------------------------------------------- */

static enum fault chosen;

static bool open_broken(struct engine_bench *bench)
{
    tier_pair_init(&bench->pair, KVB_TIER_DEVICE, KVB_TIER_HOST);
    if (!engine_bench_open_pair(bench, false, &tier_access_memory, &tier_access_memory))
        return false;
    struct broken *broken = kvbi_memory_alloc(&bench->pair.memory, 1, sizeof *broken, 0);
    if (broken == NULL)
        return false;
    broken->inner = bench->engine;
    broken->bench = bench;
    broken->fault = chosen;
    broken->ops = (struct kvbi_engine_ops){.name = "broken",
                                           .destroy = destroy,
                                           .submit = submit,
                                           .reap = reap,
                                           .wake_fd = event_fd,
                                           .ready = ready,
                                           .drain = chosen == HAS_NO_DRAIN ? NULL : drain,
                                           .bytes = bytes,
                                           .signal = signal_counter,
                                           .recall = recall};
    broken->engine.ops = &broken->ops;
    tier_pair_wrap(&bench->pair, &broken->engine);
    bench->engine = &broken->engine;
    bench->allocated_bytes += (int64_t)sizeof *broken;
    return true;
}

/* As it would be if nothing were wrong with it: what it has kept is freed. */
static bool close_broken(struct engine_bench *bench)
{
    struct broken *broken = bench->engine != NULL ? of(bench->engine) : NULL;
    if (broken != NULL && broken->fault == HAS_NO_DRAIN)
        broken->ops.drain = drain;
    tier_pair_close(&bench->pair);
    bench->engine = NULL;
    return true;
}

/* Does an engine with this fault keep that promise? What its destroy leaks is freed. */
static bool keeps(enum fault fault, const struct engine_promise *promise, struct demand *demand)
{
    static struct engine_bench bench;
    const struct engine_recipe recipe = {
        .name = "broken", .open = open_broken, .close = close_broken};
    chosen = fault;
    bool kept = engine_bench_begin(&bench, &recipe);
    void *engine = bench.engine;
    kept = kept && promise->is_kept(&bench);
    *demand = bench.traffic.demand;
    kept &= engine_bench_end(&bench);
    if (fault == LEAKS)
        kvbi_memory_free(&bench.pair.memory, engine, 1, sizeof(struct broken));
    return kept;
}

/* The promise of this name is not kept, and it is said why. */
static void expect_found(enum fault fault, const char *name)
{
    const struct engine_promise *promise;
    struct demand demand;
    size_t i = 0;
    while ((promise = engine_promise_at(i)) != NULL && strcmp(promise->name, name) != 0)
        i++;
    if (promise == NULL)
        fail_msg("there is no promise \"%s\"", name);
    if (keeps(fault, promise, &demand))
        fail_msg("not found: \"%s\" is kept", name);
    print_message("%s: %s\n", name, demand.complaint);
    assert_string_not_equal(demand.complaint, "");
}

/* ---- Tests ----------------------------------------------------------------------------------- */

static void test_engine_that_is_only_wrapped_keeps_every_promise(void **state)
{
    const struct engine_promise *promise;
    struct demand demand;
    (void)state;
    for (size_t i = 0; (promise = engine_promise_at(i)) != NULL; i++)
        if (!keeps(NO_FAULT, promise, &demand))
            fail_msg("%s: %s", promise->name, demand.complaint);
}

static void test_engine_that_completes_a_copy_twice_is_found(void **state)
{
    (void)state;
    expect_found(COMPLETES_TWICE, "copies down come out once, with their bytes");
}

static void test_engine_that_forgets_a_copy_is_found(void **state)
{
    (void)state;
    expect_found(FORGETS_ONE, "copies up come out once, with their bytes");
}

static void test_engine_that_changes_tags_is_found(void **state)
{
    (void)state;
    expect_found(CHANGES_TAGS, "copies down come out once, with their bytes");
}

static void test_engine_that_lets_a_copy_pass_its_ticket_is_found(void **state)
{
    (void)state;
    expect_found(PASSES_TICKETS, "a copy waits for its ticket, and holds up nobody");
}

static void test_engine_that_takes_a_part_is_found(void **state)
{
    (void)state;
    expect_found(TAKES_SOME, "submit takes all or none");
}

static void test_engine_that_drops_what_it_has_no_room_for_is_found(void **state)
{
    (void)state;
    expect_found(REFUSES_NOTHING, "submit takes all or none");
}

static void test_engine_that_loses_room_is_found(void **state)
{
    (void)state;
    expect_found(LOSES_ROOM, "what came out makes room");
}

static void test_engine_that_copies_other_bytes_is_found(void **state)
{
    (void)state;
    expect_found(COPIES_OTHER_BYTES, "copies both ways come out once, with their bytes");
}

static void test_engine_that_copies_nothing_is_found(void **state)
{
    (void)state;
    expect_found(COPIES_NOTHING, "copies down come out once, with their bytes");
}

static void test_engine_that_writes_into_neighbours_is_found(void **state)
{
    (void)state;
    expect_found(SPILLS, "copies up come out once, with their bytes");
}

static void test_engine_that_fails_a_copy_is_found(void **state)
{
    (void)state;
    expect_found(FAILS, "copies up come out once, with their bytes");
}

static void test_engine_that_condemns_a_slot_is_found(void **state)
{
    (void)state;
    expect_found(CONDEMNS, "a copy waits for its ticket, and holds up nobody");
}

static void test_engine_that_begins_urgent_copies_last_is_found(void **state)
{
    (void)state;
    expect_found(URGENT_LAST, "urgent copies are begun first");
}

static void test_engine_whose_signal_wakes_nobody_is_found(void **state)
{
    (void)state;
    expect_found(SIGNALS_SILENTLY, "a copy waits for its ticket, and holds up nobody");
}

static void test_engine_that_recalls_any_tag_is_found(void **state)
{
    (void)state;
    expect_found(RECALLS_ANY_TAG, "recall gives back a copy that waits, once");
}

static void test_engine_that_recalls_a_copy_twice_is_found(void **state)
{
    (void)state;
    expect_found(RECALLS_TWICE, "recall gives back a copy that waits, once");
}

static void test_engine_that_recalls_what_does_not_wait_is_found(void **state)
{
    (void)state;
    expect_found(RECALLS_TWICE, "recall leaves alone what does not wait");
}

static void test_engine_that_copies_what_it_recalled_is_found(void **state)
{
    (void)state;
    expect_found(RECALLS_AND_COPIES, "recalled copies make room");
}

static void test_engine_that_recalls_nothing_is_found(void **state)
{
    (void)state;
    expect_found(RECALLS_NOTHING, "recall gives back a copy that waits, once");
}

static void test_engine_that_drains_nothing_is_found(void **state)
{
    (void)state;
    expect_found(DRAINS_NOTHING, "drain gives up what has not begun and loses nothing");
}

static void test_engine_that_loses_what_it_drains_is_found(void **state)
{
    (void)state;
    expect_found(DRAINS_INTO_NOTHING, "drain gives up what has not begun and loses nothing");
}

static void test_engine_that_says_done_of_what_it_gave_up_is_found(void **state)
{
    (void)state;
    expect_found(CANCELS_AS_DONE, "recall gives back a copy that waits, once");
}

static void test_engine_that_is_never_ready_is_found(void **state)
{
    (void)state;
    expect_found(NEVER_READY, "ready says whether reap has something");
}

static void test_engine_that_is_always_ready_is_found(void **state)
{
    (void)state;
    expect_found(ALWAYS_READY, "ready says whether reap has something");
}

static void test_engine_that_finishes_none_without_time_is_found(void **state)
{
    (void)state;
    expect_found(STOPS_WITH_THE_TIME, "reap finishes one when time is over");
}

static void test_engine_that_says_no_more_is_found(void **state)
{
    (void)state;
    expect_found(SAYS_NO_MORE, "reap finishes one when time is over");
}

static void test_engine_that_gives_more_than_asked_is_found(void **state)
{
    (void)state;
    expect_found(GIVES_MORE_THAN_ASKED, "reap gives no more than asked for");
}

static void test_engine_that_counts_too_little_is_found(void **state)
{
    (void)state;
    expect_found(COUNTS_TOO_LITTLE, "bytes is what create has allocated");
}

static void test_engine_that_leaks_is_found(void **state)
{
    (void)state;
    expect_found(LEAKS, "destroy gives all memory back");
}

static void test_engine_without_an_operation_is_found(void **state)
{
    (void)state;
    expect_found(HAS_NO_DRAIN, "every operation is there");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(bare, test_engine_that_is_only_wrapped_keeps_every_promise),
        TEST(bare, test_engine_that_completes_a_copy_twice_is_found),
        TEST(bare, test_engine_that_forgets_a_copy_is_found),
        TEST(bare, test_engine_that_changes_tags_is_found),
        TEST(bare, test_engine_that_lets_a_copy_pass_its_ticket_is_found),
        TEST(bare, test_engine_that_takes_a_part_is_found),
        TEST(bare, test_engine_that_drops_what_it_has_no_room_for_is_found),
        TEST(bare, test_engine_that_loses_room_is_found),
        TEST(bare, test_engine_that_copies_other_bytes_is_found),
        TEST(bare, test_engine_that_copies_nothing_is_found),
        TEST(bare, test_engine_that_writes_into_neighbours_is_found),
        TEST(bare, test_engine_that_fails_a_copy_is_found),
        TEST(bare, test_engine_that_condemns_a_slot_is_found),
        TEST(bare, test_engine_that_begins_urgent_copies_last_is_found),
        TEST(bare, test_engine_whose_signal_wakes_nobody_is_found),
        TEST(bare, test_engine_that_recalls_any_tag_is_found),
        TEST(bare, test_engine_that_recalls_a_copy_twice_is_found),
        TEST(bare, test_engine_that_recalls_what_does_not_wait_is_found),
        TEST(bare, test_engine_that_copies_what_it_recalled_is_found),
        TEST(bare, test_engine_that_recalls_nothing_is_found),
        TEST(bare, test_engine_that_drains_nothing_is_found),
        TEST(bare, test_engine_that_loses_what_it_drains_is_found),
        TEST(bare, test_engine_that_says_done_of_what_it_gave_up_is_found),
        TEST(bare, test_engine_that_is_never_ready_is_found),
        TEST(bare, test_engine_that_is_always_ready_is_found),
        TEST(bare, test_engine_that_finishes_none_without_time_is_found),
        TEST(bare, test_engine_that_says_no_more_is_found),
        TEST(bare, test_engine_that_gives_more_than_asked_is_found),
        TEST(bare, test_engine_that_counts_too_little_is_found),
        TEST(bare, test_engine_that_leaks_is_found),
        TEST(bare, test_engine_without_an_operation_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
