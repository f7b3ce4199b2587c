/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bench, and running all promises on it. See engine_conformance.h; the promises are in
 * engine_promises*.c.
 */
#include "support/engine_conformance.h"

#include "support/test.h"

#define TESTS_MAX 512

/* ---- The bench ------------------------------------------------------------------------------- */

bool engine_bench_open_pair(struct engine_bench *bench, bool own_thread,
                            const struct tier_access *upper, const struct tier_access *lower)
{
    struct tier_pair *pair = &bench->pair;
    if (tier_pair_open(pair) != 0 || tier_pair_connect(pair, BENCH_CAPACITY, own_thread) != 0 ||
        tier_pair_commit(pair) != 0)
        return false;
    bench->engine = tier_pair_engine(pair);
    bench->upper = (struct bench_side){.tier = tier_pair_upper(pair), .access = upper};
    bench->lower = (struct bench_side){.tier = tier_pair_lower(pair), .access = lower};
    bench->capacity = BENCH_CAPACITY;
    bench->allocated_bytes = tier_pair_engine_took(pair);
    return true;
}

bool engine_bench_begin(struct engine_bench *bench, const struct engine_recipe *recipe)
{
    memset(bench, 0, sizeof *bench);
    bench->recipe = recipe;
    bench->next_key = 1000;
    if (!recipe->open(bench))
        return demand_fails(&bench->traffic.demand, "not opened: %s", bench->pair.message);
    bool begun = traffic_begin(&bench->traffic, bench->engine, bench->get_on);
    bench->traffic.half_in_reap = bench->half_in_reap;
    return begun;
}

bool engine_bench_end(struct engine_bench *bench)
{
    traffic_end(&bench->traffic);
    bool well = bench->recipe->close(bench);
    return tier_pair_gave_all_back(&bench->pair) && well;
}

/* ---- As tests -------------------------------------------------------------------------------- */

struct trial {
    const struct engine_recipe *recipe;
    const struct engine_promise *promise;
    struct engine_bench *bench;
    char name[160];
};

static int trial_setup(void **state)
{
    struct trial *trial = *state;
    trial->bench = calloc(1, sizeof *trial->bench);
    if (trial->bench != NULL && engine_bench_begin(trial->bench, trial->recipe))
        return 0;
    if (trial->bench != NULL) {
        print_error("%s: %s\n", trial->name, trial->bench->traffic.demand.complaint);
        (void)engine_bench_end(trial->bench);
    }
    free(trial->bench);
    return -1;
}

static int trial_teardown(void **state)
{
    struct trial *trial = *state;
    bool well = engine_bench_end(trial->bench);
    if (!well)
        print_error("%s: %lld blocks, %lld bytes not freed, %llu freed with a wrong size\n",
                    trial->name, (long long)trial->bench->pair.heap.live_blocks,
                    (long long)trial->bench->pair.heap.live_bytes,
                    (unsigned long long)trial->bench->pair.heap.wrong_frees);
    free(trial->bench);
    return well ? 0 : -1;
}

static void hold_to_the_promise(void **state)
{
    const struct trial *trial = *state;
    if (!trial->promise->is_kept(trial->bench))
        fail_msg("%s: %s", trial->name, trial->bench->traffic.demand.complaint);
}

int engine_conformance_run(const struct engine_recipe *recipes, size_t count)
{
    static struct CMUnitTest tests[TESTS_MAX];
    static struct trial trials[TESTS_MAX];
    size_t total = 0;
    for (size_t r = 0; r < count; r++) {
        const char *why = recipes[r].missing != NULL ? recipes[r].missing() : NULL;
        if (why != NULL) {
            print_message("SKIPPED: %s: %s\n", recipes[r].name, why);
            continue;
        }
        const struct engine_promise *promise;
        for (size_t p = 0; (promise = engine_promise_at(p)) != NULL && total < TESTS_MAX;
             p++, total++) {
            struct trial *trial = &trials[total];
            *trial = (struct trial){.recipe = &recipes[r], .promise = promise};
            (void)snprintf(trial->name, sizeof trial->name, "%s: %s", recipes[r].name,
                           promise->name);
            tests[total] = (struct CMUnitTest){.name = trial->name,
                                               .test_func = hold_to_the_promise,
                                               .setup_func = trial_setup,
                                               .teardown_func = trial_teardown,
                                               .initial_state = trial};
        }
    }
    return _cmocka_run_group_tests("engine conformance", tests, total, NULL, NULL);
}
