/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The model by many threads: model_threads_short REQUESTS [SEED]
 *
 * Several servers on one small instance with its own progress thread. Which of them comes first
 * nobody knows, so only that is checked which holds in any order: the bytes of every block that
 * somebody holds, answers that no order can give, events that follow each other, and at the end
 * books, tables and memory. Written for ThreadSanitizer.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server.h"

/* ---- A town ---------------------------------------------------------------------------------- */

static void compare_at_rest(struct town *town)
{
    struct world *w = &town->world;
    server_reach_fences(town);
    expect_code(w, "flush", kv_flush(w->kv), OK);
    truth_rebuild(w);
    for (uint32_t c = 0; c < w->contents; c++) {
        w->allowed[c] = true;
        for (uint32_t t = 0; t < TIERS; t++)
            w->presence[c][t] = w->picture[c][t] ? YES : NO;
    }
    check_counts(w);
    check_quiet(w);
}

static void run_town(struct town *town, uint64_t seed, uint64_t requests, struct tally *tally)
{
    static const uint32_t sizes[][TIERS] = {{24, 40, 0}, {24, 30, 60}, {30, 0, 40}, {40, 0, 0}};
    struct server servers[SERVERS] = {{0}};
    pthread_t threads[SERVERS];
    memset(town, 0, sizeof *town);
    pthread_mutex_init(&town->late_lock, NULL);
    atomic_store(&town->requests_left, requests);
    world_open_threads(&town->world, seed, sizes[seed % 4], tally);
    for (uint64_t i = 0; i < SERVERS; i++) {
        servers[i] = (struct server){.town = town,
                                     .w = &town->world,
                                     .random = mix(seed * SERVERS + i),
                                     .owner = i + 1,
                                     .weak_content = -1};
        if (pthread_create(&threads[i], NULL, server_run, &servers[i]) != 0)
            differ(&town->world, "a thread could not be started");
    }
    for (uint32_t i = 0; i < SERVERS; i++)
        pthread_join(threads[i], NULL);
    compare_at_rest(town);
    world_close_threads(&town->world);
    pthread_mutex_destroy(&town->late_lock);
}

int main(int argc, char **argv)
{
    static struct town town;
    struct tally tally = {.notes_wanted = 0};
    uint64_t read = 0, lifted_blocks = 0, computed = 0, found = 0, served = 0;
    if (argc < 2 || argc > 3) {
        fprintf(stderr, "model_threads_short REQUESTS [SEED]\n");
        return 2;
    }
    uint64_t requests = strtoull(argv[1], NULL, 10);
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    for (; served < requests; seed++) {
        uint64_t now = requests - served < 2000 ? requests - served : 2000;
        run_town(&town, seed, now, &tally);
        served += now;
        read += town.read;
        lifted_blocks += town.lifted;
        computed += town.computed;
        found += town.found;
    }
    printf("model by %d threads: %llu requests in %llu worlds without a difference: %llu found, "
           "%llu computed, %llu lifted, %llu read, %llu events lost\n",
           SERVERS, (unsigned long long)served, (unsigned long long)tally.worlds,
           (unsigned long long)found, (unsigned long long)computed,
           (unsigned long long)lifted_blocks, (unsigned long long)read,
           (unsigned long long)tally.lost);
    return 0;
}
