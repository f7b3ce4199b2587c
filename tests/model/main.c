/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The model: model_short [--avoid NAME[,NAME]] [--notes COUNT] OPERATIONS [SEED]
 *
 * World after world of the seeds SEED, SEED + 1 ..., until OPERATIONS are done. Without a
 * difference: one line, and 0. At the first one: the world, the latest operations, what differs,
 * the seed that shows it; and 1.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "world.h"

static const struct {
    void (*run)(struct world *w);
    uint32_t weight; /* times what the world draws for it */
} kinds[] = {
    {op_request, 16},  {op_unref, 16},   {op_poll, 14},
    {op_match, 6},     {op_alloc, 3},    {op_init, 3},
    {op_append, 6},    {op_schedule, 5}, {op_compute_done, 8},
    {op_register, 4},  {op_cancel, 1},   {op_compute_failed, 1},
    {op_truncate, 1},  {op_reset, 1},    {op_clone, 5},
    {op_ref, 1},       {op_weak, 3},     {op_upgrade, 3},
    {op_pin, 1},       {op_unpin, 2},    {op_priority, 3},
    {op_lookup, 3},    {op_read, 3},     {op_lift, 20},
    {op_lift_end, 40}, {op_offload, 5},  {op_offload_cancel, 1},
    {op_signal, 4},    {op_time, 5},
};
/* What would leave nothing to look at, were it as frequent as the rest. */
static const struct {
    void (*run)(struct world *w);
    uint32_t per_thousand;
} rare[] = {
    {op_invalidate, 8}, {op_invalidate_space, 2}, {op_clear, 1}, {op_restart, 6}, {op_drain, 3},
    {op_walk, 4},       {op_retain_many, 3}};
enum { KINDS = sizeof kinds / sizeof *kinds, RARE = sizeof rare / sizeof *rare };

static const struct {
    const char *name;
    enum avoid fault;
} faults[] = {{"stale_names", AVOID_STALE_NAMES}, {"clone_disk", AVOID_CLONE_DISK},
              {"fence_lost", AVOID_FENCE_LOST},   {"leftovers", AVOID_LEFTOVERS},
              {"clear_stuck", AVOID_CLEAR_STUCK}, {"clock", AVOID_CLOCK},
              {"expiry", AVOID_EXPIRY},           {"keyed_order", AVOID_KEYED_ORDER},
              {"fence_hol", AVOID_FENCE_HOL},     {"join_cancelled", AVOID_JOIN_CANCELLED}};

static char folder[128];

static void remove_folder(void)
{
    char path[160];
    snprintf(path, sizeof path, "%s/blocks", folder);
    (void)!unlink(path);
    (void)!rmdir(folder);
}

/* A call that does not return is a difference as well: the world that shows it is named. */
enum { PATIENCE_S = 120 };
static char stands[128];

static void tell_that_it_stands(int signal_number)
{
    (void)signal_number;
    (void)!write(STDOUT_FILENO, stands, strlen(stands));
    remove_folder();
    _exit(1);
}

static void one_operation(struct world *w)
{
    uint32_t total = 0, roll = pick(w, 1000);
    for (uint32_t i = 0; i < RARE; i++) {
        if (roll < rare[i].per_thousand) {
            rare[i].run(w);
            return;
        }
        roll -= rare[i].per_thousand;
    }
    for (uint32_t i = 0; i < KINDS; i++)
        total += kinds[i].weight * w->weights[i];
    roll = total > 0 ? pick(w, total) : 0;
    for (uint32_t i = 0; i < KINDS; i++) {
        uint32_t weight = kinds[i].weight * w->weights[i];
        if (roll < weight) {
            kinds[i].run(w);
            return;
        }
        roll -= weight;
    }
}

/* A server that holds nearly all finds nothing to do. */
static void keep_room(struct world *w)
{
    uint32_t in_use = 0, blocks = w->setup.tiers[TIER_DEVICE].blocks;
    for (uint32_t s = 0; s < blocks; s++)
        in_use += held(&w->blocks[TIER_DEVICE][s]);
    for (uint32_t i = 0; in_use * 4 > blocks * 3 && i < 4; i++)
        op_unref(w);
}

static void one_world(uint64_t seed, uint64_t operations, uint32_t avoid, struct tally *tally)
{
    static struct world w; /* large */
    snprintf(stands, sizeof stands,
             "DIFFERENCE: a call does not return\nreplay: tests/model/run.sh %llu %llu\n",
             (unsigned long long)operations, (unsigned long long)seed);
    alarm(PATIENCE_S);
    world_open(&w, seed, avoid, folder, tally);
    for (w.number = 0; w.number < operations; w.number++) {
        one_operation(&w);
        if (w.number % 2 == 0)
            keep_room(&w);
        check_counts(&w);
        tally->operations++;
    }
    world_close(&w);
}

static uint32_t read_avoid(char *list)
{
    uint32_t avoid = 0;
    for (char *name = strtok(list, ","); name != NULL; name = strtok(NULL, ",")) {
        size_t i = 0;
        while (i < sizeof faults / sizeof *faults && strcmp(name, faults[i].name) != 0)
            i++;
        if (i == sizeof faults / sizeof *faults) {
            fprintf(stderr, "no such fault: %s\n", name);
            exit(2);
        }
        avoid |= (uint32_t)faults[i].fault;
    }
    return avoid;
}

static void summary(const struct tally *t)
{
    printf("model: %llu operations in %llu worlds without a difference: %llu registered, %llu "
           "unindexed, %llu shared, %llu takeovers, %llu hits, %llu misses, %llu blocks read, %llu "
           "evicted, %llu moved down, %llu lifted, %llu joined, %llu late writes, %llu clones, "
           "%llu retentions ended, %llu events lost, %llu walks, %llu restarts\n",
           (unsigned long long)t->operations, (unsigned long long)t->worlds,
           (unsigned long long)t->registered, (unsigned long long)t->unindexed,
           (unsigned long long)t->shared, (unsigned long long)t->takeovers,
           (unsigned long long)t->hits, (unsigned long long)t->misses, (unsigned long long)t->read,
           (unsigned long long)t->evicted, (unsigned long long)t->moved_down,
           (unsigned long long)t->lifted, (unsigned long long)t->joined,
           (unsigned long long)t->late, (unsigned long long)t->clones,
           (unsigned long long)t->expired, (unsigned long long)t->lost,
           (unsigned long long)t->walks, (unsigned long long)t->restarts);
}

int main(int argc, char **argv)
{
    struct tally tally = {.notes_wanted = 30};
    uint32_t avoid = 0;
    for (; argc > 2 && argv[1][0] == '-'; argc -= 2, argv += 2) {
        if (strcmp(argv[1], "--avoid") == 0)
            avoid = read_avoid(argv[2]);
        else if (strcmp(argv[1], "--notes") == 0)
            tally.notes_wanted = strtoull(argv[2], NULL, 10) % NOTES;
    }
    if (argc < 2 || argc > 3) {
        fprintf(stderr, "model_short [--avoid NAME[,NAME]] [--notes COUNT] OPERATIONS [SEED]\n");
        return 2;
    }
    uint64_t operations = strtoull(argv[1], NULL, 10);
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    const char *temporary = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%.90s/kvblock-model-XXXXXX",
             temporary != NULL ? temporary : "/tmp");
    if (mkdtemp(folder) == NULL) {
        perror(folder);
        return 2;
    }
    atexit(remove_folder);
    signal(SIGALRM, tell_that_it_stands);
    for (; tally.operations < operations; seed++) {
        uint64_t length = 200 + mix(seed) % 2000, left = operations - tally.operations;
        one_world(seed, length < left ? length : left, avoid, &tally);
    }
    summary(&tally);
    return 0;
}
