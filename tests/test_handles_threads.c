/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handles under threads: the edge from 1 to 0 and back, against eviction.
 */
#include "support/kv_scene.h"

/*
 * Few blocks, many hands: each thread computes contents (which evicts), upgrades weak handles that
 * others left, matches, and lets go. The count of a block crosses 1 -> 0 -> 1 all the time while
 * allocations evict it. A weak handle that upgrades must show the content it was made of.
 */
enum { THREADS = 4, CONTENTS = 6, ROUNDS = 4000 };

struct shared {
    struct kvb_manager *kv;
    pthread_mutex_t mutex;
    struct kvb_weak weaks[CONTENTS];
    struct kvb_seq names[CONTENTS];
    uint32_t tokens[CONTENTS][KV_TOKENS];
    _Atomic int errors, upgraded, stale, computed, matched;
};

struct worker {
    pthread_t thread;
    struct shared *shared;
    uint64_t seed;
    uint32_t contents; /* how many of them it uses */
};

static void note(struct shared *shared, bool right)
{
    if (!right)
        atomic_fetch_add(&shared->errors, 1);
}

/* The holder of `block` looks at it: it is content `c`, for as long as it is held. */
static void look(struct shared *shared, struct kvb_block *block, uint32_t c)
{
    struct kvb_seq name = {0};
    struct kvb_block_info info = {.size = sizeof info};
    note(shared,
         kvb_block_describe(shared->kv, block, &info) == 0 && info.state == KVB_STATE_REGISTERED);
    note(shared, kvb_block_key(shared->kv, block, &name) == 0);
    note(shared, memcmp(&name, &shared->names[c], sizeof name) == 0);
    note(shared, kvb_block_ref(shared->kv, &block, 1, NULL) == 0);
    note(shared, kvb_block_unref(shared->kv, &block, 1, NULL) == 0);
}

static void compute(struct shared *shared, uint32_t c)
{
    struct kvb_block *block = NULL;
    struct kvb_block_init init = {.size = sizeof init};
    struct kvb_append append = {
        .size = sizeof append, .tokens = shared->tokens[c], .count = KV_TOKENS};
    struct kvb_weak weak;
    if (kvb_alloc(shared->kv, KVB_TIER_DEVICE, 1, NULL, &block, NULL) != 0)
        return; /* the others hold them all */
    note(shared, kvb_block_init(shared->kv, &block, &init, 1, NULL) == 0);
    note(shared, kvb_block_append(shared->kv, &block, &append, 1, NULL) == 0);
    note(shared, kvb_block_schedule(shared->kv, &block, 1, NULL) == 0);
    note(shared,
         kvb_block_compute_done(shared->kv, &block, &(uint32_t){KV_TOKENS}, 1, NULL, NULL) == 0);
    note(shared, kvb_block_register(shared->kv, &block, 1, NULL, NULL, NULL) == 0);
    note(shared, kvb_block_weak(shared->kv, block, &weak) == 0);
    look(shared, block, c);
    pthread_mutex_lock(&shared->mutex);
    shared->weaks[c] = weak;
    pthread_mutex_unlock(&shared->mutex);
    note(shared, kvb_block_unref(shared->kv, &block, 1, NULL) == 0);
    atomic_fetch_add(&shared->computed, 1);
}

static void try_upgrade(struct shared *shared, uint32_t c)
{
    struct kvb_block *block = NULL;
    pthread_mutex_lock(&shared->mutex);
    struct kvb_weak weak = shared->weaks[c];
    pthread_mutex_unlock(&shared->mutex);
    int code = kvb_weak_upgrade(shared->kv, &weak, 1, &block, NULL);
    if (code != 0) {
        note(shared, code == KVB_ESTALE && block == NULL);
        atomic_fetch_add(&shared->stale, 1);
        return;
    }
    look(shared, block, c);
    note(shared, kvb_block_unref(shared->kv, &block, 1, NULL) == 0);
    atomic_fetch_add(&shared->upgraded, 1);
}

static void try_match(struct shared *shared, uint32_t c)
{
    struct kvb_query query = kv_query(0, shared->tokens[c], KV_TOKENS);
    struct kvb_hit hit;
    size_t count = 0;
    note(shared, kvb_match(shared->kv, &query, &hit, 1, &count) == 0);
    if (count == 1) {
        look(shared, hit.block, c);
        note(shared, kvb_block_unref(shared->kv, &hit.block, 1, NULL) == 0);
        atomic_fetch_add(&shared->matched, 1);
    }
}

static void *work(void *arg)
{
    struct worker *worker = arg;
    for (int i = 0; i < ROUNDS; i++) {
        uint32_t c = kv_random(&worker->seed, worker->contents);
        switch (kv_random(&worker->seed, 4)) {
        case 0:
            compute(worker->shared, c);
            break;
        case 1:
            try_match(worker->shared, c);
            break;
        default:
            try_upgrade(worker->shared, c);
        }
    }
    return NULL;
}

static void run_threads(struct kv_rig *rig, uint32_t block_count, uint32_t contents)
{
    static struct shared shared;
    static struct worker workers[THREADS];
    memset(&shared, 0, sizeof shared);
    pthread_mutex_init(&shared.mutex, NULL);
    rig->tiers[0].block_count = block_count;
    kv_rig_open(rig);
    shared.kv = rig->kv;
    for (uint32_t c = 0; c < CONTENTS; c++) {
        size_t count = 0;
        kv_tokens(shared.tokens[c], KV_TOKENS, 100 + c);
        kv_ok(kvb_hash_tokens(rig->kv, 0, NULL, shared.tokens[c], KV_TOKENS, &shared.names[c], 1,
                              &count));
    }
    for (uint64_t i = 0; i < THREADS; i++) {
        workers[i].shared = &shared;
        workers[i].seed = kv_mix(i);
        workers[i].contents = contents;
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(workers[i].thread, NULL);
    assert_int_equal(shared.errors, 0);
    assert_true(shared.computed > 0 && shared.upgraded + shared.stale > 0);
    assert_int_equal(kv_stats(rig).tiers[0].held_count, 0);
}

static void test_upgrade_against_eviction_by_threads_shows_the_right_content(void **state)
{
    run_threads(*state, 4, CONTENTS);
}

/*
 * One block, all threads on its edge: what is parked, upgraded and evicted is always the same slot.
 */
static void test_upgrade_of_the_only_block_by_threads_shows_the_right_content(void **state)
{
    run_threads(*state, 1, CONTENTS);
}

/*
 * One content: every block that is computed takes the place of the one before, while others upgrade
 * that.
 */
static void test_upgrade_against_duplicates_by_threads_shows_the_right_content(void **state)
{
    run_threads(*state, 4, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kv_rig, test_upgrade_against_eviction_by_threads_shows_the_right_content),
        TEST(kv_rig, test_upgrade_of_the_only_block_by_threads_shows_the_right_content),
        TEST(kv_rig, test_upgrade_against_duplicates_by_threads_shows_the_right_content),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
