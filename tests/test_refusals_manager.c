/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Progress, the manager and its tiers, one of them in a file: each documented error leaves one line
 * that names its cause.
 */
#include "support/file_scene.h"
#include "support/move_test.h"
#include "support/refusal.h"

/* ---- The manager ----------------------------------------------------------------------------- */

static int three_tiers_setup(void **state)
{
    struct kv_rig *rig = kv_scene_begin(state, sizeof *rig);
    mv_three_tiers(rig, KV_BLOCKS, KV_BLOCKS, KV_BLOCKS);
    kv_rig_open(rig);
    return 0;
}
#define three_tiers_teardown kv_scene_end

static void test_manager_calls_name_what_is_wrong(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_fence late = {.kind = KVB_FENCE_COUNTER, .handle = 1};
    struct kvb_stats stats = {.size = 8};
    struct kvb_disk_stats disk = {.size = 0};
    void *base;
    uint64_t bytes;
    struct mv_run run;
    mv_store(rig, &run, KVB_TIER_DEVICE, 1, 4);
    refuses(rig, kvb_manager_next_timeout(rig->kv, NULL), KVB_EINVAL, "timeout_ns is NULL");
    refuses(rig, kvb_tier_memory(rig->kv, 4, &base, &bytes), KVB_EINVAL, "tier is 4, must be 0..3");
    refuses(rig, kvb_tier_memory(rig->kv, 3, &base, &bytes), KVB_ENOENT,
            "tier is 3 (REMOTE), which is not configured");
    refuses(rig, kvb_tier_memory(rig->kv, 0, NULL, &bytes), KVB_EINVAL, "base is NULL");
    refuses(rig, kvb_tier_memory(rig->kv, 0, &base, NULL), KVB_EINVAL, "bytes is NULL");
    refuses(rig, kvb_manager_stats(rig->kv, &stats), KVB_EINVAL,
            "stats->size is 8, must be set to sizeof(struct kvb_stats)");
    refuses(rig, kvb_disk_stats(rig->kv, 0, &disk), KVB_EINVAL,
            "stats->size is 0, must be set to sizeof(struct kvb_disk_stats)");
    disk.size = sizeof disk;
    refuses(rig, kvb_disk_stats(rig->kv, 0, &disk), KVB_ENOENT,
            "path is 0, and no tier of this manager is kept in files");
    refuses(rig, kvb_disk_put_back(rig->kv, 0), KVB_ENOENT,
            "path is 0, and no tier of this manager is kept in files");
    refuses(rig, kvb_manager_destroy(rig->kv), KVB_EBUSY, "4 handles are still held, must be 0");
    kv_ok(kvb_block_offload(rig->kv, run.blocks, 1, 0, &late, NULL));
    answers(rig, kvb_manager_flush(rig->kv, 0), KVB_ETIMEDOUT,
            "not all lanes were idle within 0 ns");
    kv_ok(kvb_fence_signal(rig->kv, 0, 1));
    kv_ok(kvb_fence_signal(rig->kv, 63, (UINT64_C(1) << 56) - 1));
    refuses(rig, kvb_fence_signal(rig->kv, 64, 1), KVB_EINVAL, "line is 64, must be 0..63");
    refuses(rig, kvb_fence_signal(rig->kv, 0, UINT64_C(1) << 56), KVB_EINVAL,
            "value is 72057594037927936, must be below 2^56");
    kv_flush(rig);
    mv_drop(rig, &run);
}

static void *poll_there(void *kv)
{
    return (void *)(intptr_t)kvb_manager_poll(kv, 0);
}

static void *flush_there(void *kv)
{
    return (void *)(intptr_t)kvb_manager_flush(kv, 0);
}

/* The same as `refuses` for a call that another thread makes. */
static void refuses_there(struct kv_rig *rig, void *(*there)(void *kv), const char *call,
                          const char *words)
{
    size_t before = rig->log.count;
    pthread_t thread;
    void *code = NULL;
    kv_advance(rig, KV_SECOND);
    assert_int_equal(pthread_create(&thread, NULL, there, rig->kv), 0);
    pthread_join(thread, &code);
    refusal_check(__FILE__, __LINE__, &rig->log, before, (int)(intptr_t)code, KVB_ETHREAD,
                  KVB_LOG_WARN, call, words);
}

static void test_progress_of_another_thread_is_named(void **state)
{
    struct kv_rig *rig = *state;
    kv_poll(rig);
    refuses_there(rig, poll_there, "kvb_manager_poll",
                  "progress belongs to the thread that polled first, and this is another");
    refuses_there(rig, flush_there, "kvb_manager_flush", "progress belongs to the thread");
}

static void test_progress_of_a_manager_with_a_thread_is_named(void **state)
{
    struct kv_rig *rig = *state;
    rig->config.progress = KVB_PROGRESS_THREAD;
    kv_rig_open(rig);
    refuses(rig, kvb_manager_poll(rig->kv, 0), KVB_ETHREAD,
            "progress is KVB_PROGRESS_THREAD: the manager polls itself");
    refuses(rig, kvb_manager_event_fd(rig->kv), KVB_EUNSUPPORTED,
            "progress is KVB_PROGRESS_THREAD, must be KVB_PROGRESS_POLL");
}

static struct {
    struct kvb_manager *kv;
    int codes[3];
} inside;

static void call_from_within(void *context, const struct kvb_event *event)
{
    (void)context;
    (void)event;
    inside.codes[0] = kvb_manager_destroy(inside.kv);
    inside.codes[1] = kvb_manager_poll(inside.kv, 0);
    inside.codes[2] = kvb_manager_flush(inside.kv, 0);
}

static void test_calls_from_a_callback_are_named(void **state)
{
    struct kv_rig *rig = *state;
    static const char *const lines[] = {
        "kvb_manager_destroy: called from a callback, whose return it would wait for",
        "kvb_manager_poll: called from a callback, whose return it would wait for",
        "kvb_manager_flush: called from a callback, whose return it would wait for"};
    rig->config.sink.deliver = call_from_within;
    kv_rig_open(rig);
    inside.kv = rig->kv;
    struct mv_run run;
    mv_park(rig, &run, KVB_TIER_DEVICE, 1, 1);
    kv_poll(rig);
    for (int i = 0; i < 3; i++) {
        kv_expect(inside.codes[i], KVB_EDEADLK);
        assert_true(kv_log_has(&rig->log, lines[i]));
    }
}

/* ---- A tier in a file ------------------------------------------------------------------------ */

static void test_disk_calls_name_tier_and_path(void **state)
{
    struct file_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct kvb_disk_stats stats = {.size = sizeof stats};
    struct kvb_block *block;
    void *base;
    uint64_t bytes;
    kv_rig_open(rig);
    refuses(rig, kvb_alloc(rig->kv, KVB_TIER_DISK, 1, NULL, &block, NULL), KVB_EUNSUPPORTED,
            "tier is 2 (DISK), which is kept in a file: only lanes take blocks there");
    refuses(rig, kvb_tier_memory(rig->kv, KVB_TIER_DISK, &base, &bytes), KVB_EUNSUPPORTED,
            "tier is 2 (DISK), which is kept in a file and has no memory");
    refuses(rig, kvb_disk_stats(rig->kv, 1, &stats), KVB_ENOENT, "path is 1, must be 0..0");
    refuses(rig, kvb_disk_put_back(rig->kv, 1), KVB_ENOENT, "path is 1, must be 0..0");
    refuses(rig, kvb_disk_put_back(rig->kv, 0), KVB_ESTATE, "it is in service");
    assert_true(kv_log_has(&rig->log, scene->place.file));
}

/*
 * A block that came back from the file has no tokens to clone, and no addresses while it is there.
 */
static void test_blocks_of_a_file_are_named(void **state)
{
    struct file_scene *scene = *state;
    struct kv_rig *rig = &scene->rig;
    struct kvb_query query = {.size = sizeof query};
    struct kvb_block *targets[2];
    struct kvb_hit hit;
    struct kvb_op *op;
    void *address;
    size_t count;
    uint32_t good;
    struct mv_run run;
    rig->tiers[0].trigger = rig->tiers[1].trigger = KVB_OFFLOAD_ON_REGISTER;
    kv_rig_open(rig);
    mv_park(rig, &run, KVB_TIER_DEVICE, 1, 1);
    kv_flush(rig);
    kv_rig_close(rig);
    kv_rig_open(rig);
    query.keys = run.seqs;
    query.key_count = 1;
    kv_ok(kvb_match(rig->kv, &query, &hit, 1, &count));
    assert_int_equal(count, 1);
    refuses(rig, kvb_block_address(rig->kv, hit.block, 0, 0, &address), KVB_EUNSUPPORTED,
            "block is in tier DISK, which is kept in a file and has no addresses");
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_HOST, 2, NULL, targets, NULL));
    struct kvb_onboard up = {
        .size = sizeof up, .sources = &hit.block, .targets = targets, .count = 1};
    kv_ok(kvb_onboard(rig->kv, &up, &op));
    kv_flush(rig);
    kv_ok(kvb_op_take(rig->kv, op, targets, 1, &good));
    kv_ok(kvb_op_release(rig->kv, op));
    assert_int_equal(good, 1);
    answers(rig, kvb_block_clone(rig->kv, targets[0], targets[1]), KVB_ENOENT,
            "has no known names: it came back from a file");
    kv_ok(kvb_block_unref(rig->kv, targets, 2, NULL));
    kv_unref(rig, hit.block);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(three_tiers, test_manager_calls_name_what_is_wrong),
        TEST(kv_opened, test_progress_of_another_thread_is_named),
        TEST(kv_rig, test_progress_of_a_manager_with_a_thread_is_named),
        TEST(kv_rig, test_calls_from_a_callback_are_named),
        TEST(file_scene, test_disk_calls_name_tier_and_path),
        TEST(file_scene, test_blocks_of_a_file_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
