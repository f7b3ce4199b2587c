/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store by many threads at once.
 */
#include "support/kv_picture.h"
#include "support/kv_scene.h"

/*
 * Everything at once: requests, forgetting, walks, pins, with the manager's thread delivering
 * through a ring that is too small. Nobody ever reads bytes of another content, and what is left is
 * consistent.
 */
enum { THREADS = 4, ROUNDS = 1500 };

struct worker {
    pthread_t thread;
    struct kv_rig *rig;
    uint64_t seed;
    int errors, reused, computed;
};

static void worker_note(struct worker *worker, bool right)
{
    worker->errors += !right;
}

static bool payload_matches(struct kv_rig *rig, struct kvb_block *block, uint64_t hash)
{
    void *address = NULL;
    uint64_t seen = 0;
    if (kvb_block_address(rig->kv, block, 0, 0, &address) != 0)
        return false;
    memcpy(&seen, address, sizeof seen);
    return seen == hash;
}

static bool payload_write(struct kv_rig *rig, struct kvb_block *block, uint64_t hash)
{
    void *address = NULL;
    if (kvb_block_address(rig->kv, block, 0, 0, &address) != 0)
        return false;
    memcpy(address, &hash, sizeof hash);
    return true;
}

/* A root block: found or computed, looked at, let go. */
static void worker_request(struct worker *worker)
{
    struct kv_rig *rig = worker->rig;
    uint32_t tokens[KV_TOKENS], done = KV_TOKENS;
    struct kvb_seq seq;
    struct kvb_hit hit;
    size_t count = 0;
    kv_tokens(tokens, KV_TOKENS, kv_random(&worker->seed, 12));
    struct kvb_query query = kv_query(0, tokens, KV_TOKENS);
    worker_note(worker, kvb_hash_tokens(rig->kv, 0, NULL, tokens, KV_TOKENS, &seq, 1, &count) == 0);
    if (kv_random(&worker->seed, 3) != 0) {
        worker_note(worker, kvb_match(rig->kv, &query, &hit, 1, &count) == 0);
        if (count == 1) {
            worker->reused++;
            worker_note(worker, payload_matches(rig, hit.block, seq.hash));
            worker_note(worker, kvb_block_unref(rig->kv, &hit.block, 1, NULL) == 0);
            return;
        }
    }
    struct kvb_block *block = NULL;
    struct kvb_block_init init = {.size = sizeof init};
    struct kvb_append append = {.size = sizeof append, .tokens = tokens, .count = KV_TOKENS};
    struct kvb_register options = {.size = sizeof options, .flags = kv_random(&worker->seed, 3)};
    struct kvb_weak weak;
    if (kvb_alloc(rig->kv, KVB_TIER_DEVICE, 1, NULL, &block, NULL) != 0)
        return;
    worker->computed++;
    worker_note(worker, kvb_block_init(rig->kv, &block, &init, 1, NULL) == 0);
    worker_note(worker, kvb_block_append(rig->kv, &block, &append, 1, NULL) == 0);
    worker_note(worker, kvb_block_schedule(rig->kv, &block, 1, NULL) == 0);
    worker_note(worker, payload_write(rig, block, seq.hash));
    worker_note(worker, kvb_block_compute_done(rig->kv, &block, &done, 1, NULL, NULL) == 0);
    worker_note(worker, kvb_block_register(rig->kv, &block, 1, &options, NULL, NULL) == 0);
    worker_note(worker, kvb_block_set_priority(rig->kv, &block, 1, kv_random(&worker->seed, 101), 0,
                                               NULL) == 0);
    worker_note(worker, payload_matches(rig, block, seq.hash));
    worker_note(worker, kvb_block_weak(rig->kv, block, &weak) == 0);
    worker_note(worker, kvb_pin(rig->kv, worker->seed, &block, 1, 0, NULL) == 0);
    worker_note(worker, kvb_block_unref(rig->kv, &block, 1, NULL) == 0);
    worker_note(worker, kvb_unpin_all(rig->kv, worker->seed, NULL) == 0);
    if (kvb_weak_upgrade(rig->kv, &weak, 1, &block, NULL) == 0) {
        worker_note(worker, payload_matches(rig, block, seq.hash));
        worker_note(worker, kvb_block_unref(rig->kv, &block, 1, NULL) == 0);
    }
}

static int visit_nothing(void *arg, const struct kvb_event *event)
{
    return arg == NULL && event->key == NULL;
}

static void *worker_run(void *arg)
{
    struct worker *worker = arg;
    struct kv_rig *rig = worker->rig;
    struct kvb_stats stats = {.size = sizeof stats};
    for (int round = 0; round < ROUNDS; round++) {
        struct kvb_seq key;
        uint32_t tokens[KV_TOKENS];
        size_t count = 0;
        switch (kv_random(&worker->seed, 40)) {
        case 0:
            worker_note(worker, kvb_manager_clear(rig->kv) == 0);
            break;
        case 1:
            worker_note(worker, kvb_invalidate_namespace(rig->kv, 0, NULL) == 0);
            break;
        case 2:
        case 3:
            kv_tokens(tokens, KV_TOKENS, kv_random(&worker->seed, 12));
            worker_note(worker,
                        kvb_hash_tokens(rig->kv, 0, NULL, tokens, KV_TOKENS, &key, 1, &count) == 0);
            int code = kvb_invalidate(rig->kv, &key, 1, NULL);
            worker_note(worker, code == 0 || code == KVB_ENOENT);
            break;
        case 4:
            worker_note(worker, kvb_index_walk(rig->kv, visit_nothing, NULL) == 0);
            break;
        case 5:
            worker_note(worker, kvb_manager_stats(rig->kv, &stats) == 0);
            break;
        default:
            worker_request(worker);
        }
    }
    return NULL;
}

struct scene {
    struct kv_rig rig; /* comes first: *state is a rig as well */
    struct picture picture;
};

static int scene_setup(void **state)
{
    (void)kv_scene_begin(state, sizeof(struct scene));
    return 0;
}

#define scene_teardown kv_scene_end

static void test_store_by_threads_keeps_contents_apart(void **state)
{
    struct scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct worker workers[THREADS] = {{0}};
    int errors = 0, reused = 0, computed = 0;
    rig->config.event_capacity = 4;
    rig->config.progress = KVB_PROGRESS_THREAD;
    rig->config.sink = (struct kvb_event_sink){picture_deliver, &scene->picture};
    kv_rig_open(rig);
    scene->picture.kv = rig->kv;
    for (uint64_t i = 0; i < THREADS; i++) {
        workers[i].rig = rig;
        workers[i].seed = (i + 1) << 40;
        assert_int_equal(pthread_create(&workers[i].thread, NULL, worker_run, &workers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
        errors += workers[i].errors;
        reused += workers[i].reused;
        computed += workers[i].computed;
    }
    assert_int_equal(errors, 0);
    assert_true(reused > 0 && computed > 0);
    kv_flush(rig);
    picture_catch_up(&scene->picture);
    assert_picture_is_live(rig, &scene->picture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(scene, test_store_by_threads_keeps_contents_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
