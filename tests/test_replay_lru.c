/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hits of kvb_replay against an independent simulation of an exact LRU over the ids of the same
 * trace.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/replay_run.h"

struct entry {
    uint64_t id, used_at;
};

static struct entry *find_entry(struct entry *entries, size_t count, uint64_t id)
{
    while (count-- > 0)
        if (entries[count].id == id)
            return &entries[count];
    return NULL;
}

static struct entry *oldest_entry(struct entry *entries, size_t count)
{
    struct entry *oldest = entries;
    for (struct entry *entry = entries; entry < entries + count; entry++)
        if (entry->used_at < oldest->used_at)
            oldest = entry;
    return oldest;
}

/*
 * Hits of the leading runs; then all blocks of the request are touched, tail first, so that the
 * head is youngest.
 */
static uint64_t simulate_lru(const struct replay_folder *folder, size_t capacity)
{
    char path[128], *line = NULL;
    path_in_folder(folder, path, "trace");
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    struct entry *entries = calloc(capacity, sizeof *entries);
    uint64_t ids[512], hits = 0, time = 0;
    size_t filled = 0, line_bytes = 0;
    while (getline(&line, &line_bytes, file) > 0) {
        size_t count = 0;
        char *at = strchr(line, '[');
        for (; count < 512 && *at != ']'; count++)
            ids[count] = strtoull(at + 1, &at, 10);
        for (size_t i = 0; i < count && find_entry(entries, filled, ids[i]); i++)
            hits++;
        while (count-- > 0) {
            struct entry *entry = find_entry(entries, filled, ids[count]);
            if (!entry)
                entry = filled < capacity ? &entries[filled++] : oldest_entry(entries, filled);
            *entry = (struct entry){ids[count], ++time};
        }
    }
    free(entries);
    free(line);
    fclose(file);
    return hits;
}

static void test_replay_one_tier_hits_as_an_exact_lru(void **state)
{
    struct replay_folder *folder = *state;
    static const size_t sizes[] = {120, 700};
    for (int seed = 1; seed <= 3; seed++) {
        write_workload(folder, seed, 1500);
        for (size_t i = 0; i < 2; i++) {
            struct run run;
            replay(folder, &run,
                   QUIET_JSON "--host-blocks 0 --device-blocks %zu --progress %s trace", sizes[i],
                   progress_modes[(i + (size_t)seed) % 2]);
            assert_good(&run);
            double exact = (double)simulate_lru(folder, sizes[i]);
            if (hits_of(run.out) < exact * 0.998 || hits_of(run.out) > exact * 1.002)
                fail_msg("seed %d, %zu blocks: %.0f hits, an exact LRU has %.0f", seed, sizes[i],
                         hits_of(run.out), exact);
        }
    }
}

static void test_replay_two_tiers_hit_nearly_as_an_lru_of_the_lower(void **state)
{
    struct replay_folder *folder = *state;
    static const struct {
        size_t device, host;
    } sizes[] = {{130, 700}, {200, 2500}};
    for (int seed = 4; seed <= 6; seed++) {
        write_workload(folder, seed, 1500);
        for (size_t i = 0; i < 2; i++) {
            struct run run;
            replay(folder, &run,
                   QUIET_JSON "--device-blocks %zu --host-blocks %zu --progress %s trace",
                   sizes[i].device, sizes[i].host, progress_modes[(i + (size_t)seed) % 2]);
            assert_good(&run);
            double lower = (double)simulate_lru(folder, sizes[i].host);
            if (hits_of(run.out) < lower * 0.98)
                fail_msg("seed %d, %zu + %zu blocks: %.0f hits, an LRU of the lower tier's size "
                         "has %.0f",
                         seed, sizes[i].device, sizes[i].host, hits_of(run.out), lower);
        }
    }
}

static void test_replay_with_a_disk_hits_nearly_as_an_lru_of_the_disk(void **state)
{
    struct replay_folder *folder = *state;
    static const struct {
        size_t device, host, disk;
    } sizes[] = {{130, 400, 1500}, {200, 700, 2500}, {130, 0, 2500}};
    write_workload(folder, 7, 1000);
    for (size_t i = 0; i < 3; i++) {
        struct run run;
        replay(folder, &run,
               QUIET_JSON "--device-blocks %zu --host-blocks %zu --disk-blocks %zu --disk blocks "
                          "--progress %s trace",
               sizes[i].device, sizes[i].host, sizes[i].disk, progress_modes[i % 2]);
        assert_good(&run);
        double lowest = (double)simulate_lru(folder, sizes[i].disk);
        if (hits_of(run.out) < lowest * 0.98)
            fail_msg("%zu + %zu + %zu blocks: %.0f hits, an LRU of the disk's size has %.0f",
                     sizes[i].device, sizes[i].host, sizes[i].disk, hits_of(run.out), lowest);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(replay_folder, test_replay_one_tier_hits_as_an_exact_lru),
        TEST(replay_folder, test_replay_two_tiers_hit_nearly_as_an_lru_of_the_lower),
        TEST(replay_folder, test_replay_with_a_disk_hits_nearly_as_an_lru_of_the_disk),
    };
    return run_replay_tests(KVB_REPLAY_PATH, tests, sizeof tests / sizeof *tests);
}
