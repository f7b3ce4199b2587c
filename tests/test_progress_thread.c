/* SPDX-License-Identifier: Apache-2.0 */
/* Progress by the manager's own thread. */
#include <dirent.h>
#include <pthread.h>

#include "support/modes.h"

struct elsewhere {
    struct kv_rig *rig;
    struct kvb_op *op;
    int poll, flush, wait, destroy;
};

static void test_polling_is_refused_where_the_manager_has_its_own_thread(void **state)
{
    struct kv_rig *rig = *state;
    mv_open_two(rig, 8, 8, KVB_OFFLOAD_MANUAL);
    kv_expect(kvb_manager_poll(rig->kv, 0), KVB_ETHREAD);
    kv_expect(kvb_manager_event_fd(rig->kv), KVB_EUNSUPPORTED);
    modes_settle(rig);
}

/* Threads of this process that are called "kvblock" and have every signal blocked that can be. */
static uint32_t own_threads(bool *all_blocked)
{
    DIR *tasks = opendir("/proc/self/task");
    uint32_t count = 0;
    assert_non_null(tasks);
    *all_blocked = true;
    for (struct dirent *task; (task = readdir(tasks)) != NULL;) {
        char path[300], line[256];
        unsigned long long blocked = 0;
        bool ours = false;
        if (task->d_name[0] == '.')
            continue;
        (void)snprintf(path, sizeof path, "/proc/self/task/%s/status", task->d_name);
        FILE *status = fopen(path, "r");
        if (status == NULL)
            continue;
        while (fgets(line, sizeof line, status) != NULL) {
            ours |= strcmp(line, "Name:\tkvblock\n") == 0;
            (void)sscanf(line, "SigBlk: %llx", &blocked);
        }
        fclose(status);
        count += ours;
        *all_blocked &= !ours || (blocked & 0x7ffffffeULL & ~(1ULL << 8) & ~(1ULL << 18)) ==
                                     (0x7ffffffeULL & ~(1ULL << 8) & ~(1ULL << 18));
    }
    closedir(tasks);
    return count;
}

static void test_one_named_thread_with_signals_blocked_lives_as_long_as_the_manager(void **state)
{
    struct kv_rig *rig = *state;
    bool blocked = false;
    mv_open_two(rig, 8, 8, KVB_OFFLOAD_MANUAL);
    modes_settle(rig);
    assert_int_equal(own_threads(&blocked), 1);
    assert_true(blocked);
    kv_rig_close(rig);
    /* /proc shows a thread a little longer than its join takes. */
    modes_await(rig, own_threads(&blocked) == 0);
}

static void *flush_for_ever(void *argument)
{
    struct elsewhere *elsewhere = argument;
    elsewhere->flush = kvb_manager_flush(elsewhere->rig->kv, KVB_FOREVER);
    return NULL;
}

static void *wait_for_ever(void *argument)
{
    struct elsewhere *elsewhere = argument;
    elsewhere->wait = kvb_op_wait(elsewhere->rig->kv, elsewhere->op, KVB_FOREVER);
    return NULL;
}

static void test_several_threads_wait_at_once_and_all_return(void **state)
{
    struct kv_rig *rig = *state;
    struct mv_run run, below;
    struct mv_done done;
    pthread_t threads[4];
    mv_open_two(rig, 8, 8, KVB_OFFLOAD_ON_REGISTER);
    mv_store_beside(rig, &below, KVB_TIER_HOST, 2, 2, 0);
    struct kvb_op *op = mv_bring_beside(rig, &below, KVB_TIER_DEVICE, 1, 0, &done);
    struct elsewhere elsewhere[4];
    for (uint32_t i = 0; i < 4; i++) {
        elsewhere[i] = (struct elsewhere){.rig = rig, .op = op, .flush = 1, .wait = 1};
        assert_int_equal(pthread_create(&threads[i], NULL,
                                        i % 2 == 0 ? flush_for_ever : wait_for_ever, &elsewhere[i]),
                         0);
    }
    mv_store_beside(rig, &run, KVB_TIER_DEVICE, 1, 2, 1);
    kv_ok(kvb_fence_signal(rig->kv, 0, 1));
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(i % 2 == 0 ? elsewhere[i].flush : elsewhere[i].wait, 0);
    }
    kv_ok(kvb_op_release(rig->kv, op));
    mv_drop_beside(rig, &run);
    mv_drop_beside(rig, &below);
    modes_settle(rig);
}

int main(void)
{
    const struct CMUnitTest by_thread[] = {
        TEST(threaded, test_polling_is_refused_where_the_manager_has_its_own_thread),
        TEST(threaded, test_one_named_thread_with_signals_blocked_lives_as_long_as_the_manager),
        TEST(threaded, test_several_threads_wait_at_once_and_all_return),
    };
    return cmocka_run_group_tests_name("progress, threaded", by_thread, NULL, NULL);
}
