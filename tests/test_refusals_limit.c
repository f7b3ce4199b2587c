/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much is told: 16 lines in a second a function and kind, the rest counted; one line a call,
 * about the element that matters; nothing where the logger must not be called.
 */
#include <sys/wait.h>
#include <unistd.h>

#include "api/refuse.h"
#include "base/log.h"
#include "support/kv_scene.h"
#include "support/refusal.h"

/* What create has said is not counted. */
static int two_tiers_setup(void **state)
{
    (void)kv_opened_two_tiers_setup(state);
    struct kv_rig *rig = *state;
    rig->log.count = 0;
    return 0;
}
#define two_tiers_teardown kv_scene_end

static void refused_times(struct kv_rig *rig, int times)
{
    for (int i = 0; i < times; i++)
        kv_expect(kvb_unpin_all(rig->kv, 0, NULL), KVB_EINVAL);
}

static void test_a_function_tells_16_in_a_second(void **state)
{
    struct kv_rig *rig = *state;
    refused_times(rig, 16);
    assert_int_equal(rig->log.count, 16);
    kv_advance(rig, KV_SECOND - 1);
    refused_times(rig, 10);
    assert_int_equal(rig->log.count, 16);
}

static void test_the_first_of_a_later_second_says_how_many_were_left_out(void **state)
{
    struct kv_rig *rig = *state;
    const char *line = "kvb_unpin_all: owner is 0, must be any other number";
    refused_times(rig, 53);
    assert_string_equal(kv_log_last(&rig->log)->text, line);
    kv_advance(rig, KV_SECOND);
    refused_times(rig, 1);
    assert_int_equal(rig->log.count, 17);
    assert_string_equal(kv_log_last(&rig->log)->text,
                        "kvb_unpin_all: owner is 0, must be any other number; 37 more lines of "
                        "kvb_unpin_all were left out before this one");
    refused_times(rig, 1);
    assert_string_equal(kv_log_last(&rig->log)->text, line);
    kv_advance(rig, KV_SECOND);
    refused_times(rig, 1);
    assert_string_equal(kv_log_last(&rig->log)->text, line);
}

static void test_functions_are_counted_apart(void **state)
{
    struct kv_rig *rig = *state;
    refused_times(rig, 20);
    kv_expect(kvb_unpin(rig->kv, 0, NULL, 0, NULL), KVB_EINVAL);
    assert_int_equal(rig->log.count, 17);
    assert_string_equal(kv_log_last(&rig->log)->text,
                        "kvb_unpin: owner is 0, must be any other number");
}

/* A storm of answers hides no refusal. */
static void test_answers_and_refusals_are_counted_apart(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *blocks[2 * KV_BLOCKS];
    for (int i = 0; i < 40; i++)
        kv_expect(kvb_alloc(rig->kv, 0, 9, NULL, blocks, NULL), KVB_ENOSPC);
    assert_int_equal(rig->log.count, 16);
    assert_int_equal(kv_log_last(&rig->log)->level, KVB_LOG_DEBUG);
    kv_expect(kvb_alloc(rig->kv, 4, 1, NULL, blocks, NULL), KVB_EINVAL);
    assert_int_equal(rig->log.count, 17);
    assert_int_equal(kv_log_last(&rig->log)->level, KVB_LOG_WARN);
}

/* The line keeps its name and counts: what is cut are the words between them. */
static void test_a_line_that_is_too_long_keeps_its_end(void **state)
{
    struct kv_rig *rig = *state;
    char words[KVBI_LOG_BYTES];
    memset(words, 'x', sizeof words - 1);
    words[sizeof words - 1] = '\0';
    refused_times(rig, 17);
    kv_advance(rig, KV_SECOND);
    kv_expect(kvbi_refuse(rig->kv, KVBI_CALL_UNPIN_ALL, KVB_EINVAL, "%s", words), KVB_EINVAL);
    const char *text = kv_log_last(&rig->log)->text;
    assert_true(strncmp(text, "kvb_unpin_all: xxxx", 19) == 0);
    assert_non_null(
        strstr(text, "xxx...; 1 more lines of kvb_unpin_all were left out before this one"));
}

/* ---- One line a call ------------------------------------------------------------------------- */

static void test_an_array_tells_its_first_refused_element_and_how_many(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *blocks[100];
    memset(blocks, 0, sizeof blocks);
    kv_ok(kvb_alloc(rig->kv, 0, 3, NULL, blocks, NULL));
    kv_expect(kvb_block_ref(rig->kv, blocks, 100, NULL), KVB_EINVAL);
    assert_int_equal(rig->log.count, 1);
    assert_string_equal(kv_log_last(&rig->log)->text,
                        "kvb_block_ref: blocks[3] is NULL, must be a block that is held (97 of "
                        "100 elements refused)");
    kv_expect(kvb_block_unref(rig->kv, blocks, 100, NULL), KVB_EINVAL); /* from the last on */
    assert_int_equal(rig->log.count, 2);
    assert_non_null(strstr(kv_log_last(&rig->log)->text, "blocks[3] is NULL"));
    kv_ok(kvb_block_unref(rig->kv, blocks, 3, NULL));
}

/*
 * Element 0 got an answer, element 1 was refused: the line is about the mistake, the call returns
 * the first error.
 */
static void test_an_array_tells_a_refusal_rather_than_an_answer(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_weak weaks[3] = {{.tier = 0, .slot = 0, .generation = 9}, {.tier = 7}, {.tier = 8}};
    struct kvb_block *blocks[3];
    int results[3];
    weaks[1].generation = weaks[2].generation = 1;
    kv_expect(kvb_weak_upgrade(rig->kv, weaks, 3, blocks, results), KVB_ESTALE);
    assert_int_equal(results[1], KVB_EINVAL);
    assert_int_equal(rig->log.count, 1);
    assert_int_equal(kv_log_last(&rig->log)->level, KVB_LOG_WARN);
    assert_int_equal(kv_log_last(&rig->log)->code, KVB_EINVAL);
    assert_string_equal(kv_log_last(&rig->log)->text,
                        "kvb_weak_upgrade: weaks[1].tier is 7, must be 0..3 (3 of 3 elements "
                        "refused)");
}

/* ---- Where nothing is told ------------------------------------------------------------------- */

static void test_success_tells_nothing(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_ok(kvb_block_reset(rig->kv, &block, 1, NULL));
    kv_unref(rig, block);
    kv_ok(kvb_unpin_all(rig->kv, 1, NULL));
    assert_int_equal(rig->log.count, 0);
}

/* Locks that other threads held at the fork stay held in the child: the logger's too. */
static void test_a_child_after_fork_calls_no_logger(void **state)
{
    struct kv_rig *rig = *state;
    int status = 0;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        int code = kvb_unpin_all(rig->kv, 0, NULL);
        _exit(code == KVB_EFORK && rig->log.count == 0 ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void test_a_manager_without_logger_is_refused_all_the_same(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *blocks[2] = {NULL, NULL};
    rig->config.logger = (struct kvb_logger){NULL, NULL};
    kv_rig_open(rig);
    kv_expect(kvb_unpin_all(rig->kv, 0, NULL), KVB_EINVAL);
    kv_expect(kvb_block_cancel(rig->kv, blocks, 2, NULL), KVB_EINVAL);
    kv_expect(kvb_block_unref(rig->kv, blocks, 2, NULL), KVB_EINVAL);
}

/* ---- The limit itself ------------------------------------------------------------------------ */

static void test_limit_late_thread_does_not_open_an_old_second(void **state)
{
    (void)state;
    struct kvbi_line_limit limit = {0};
    uint32_t left = 9;
    assert_true(kvbi_line_limit_pass(&limit, 5 * KV_SECOND, &left));
    assert_int_equal(left, 0);
    for (int i = 1; i < KVBI_LINES_A_SECOND; i++)
        assert_true(kvbi_line_limit_pass(&limit, 4 * KV_SECOND, &left));
    assert_false(kvbi_line_limit_pass(&limit, 4 * KV_SECOND, &left));
    assert_false(kvbi_line_limit_pass(&limit, 5 * KV_SECOND, &left));
    assert_true(kvbi_line_limit_pass(&limit, 6 * KV_SECOND, &left));
    assert_int_equal(left, 2);
}

enum { THREADS = 4, REFUSALS = 5000 };

static void *refuse_many(void *arg)
{
    struct kvb_manager *kv = arg;
    for (int i = 0; i < REFUSALS; i++)
        if (kvb_unpin_all(kv, 0, NULL) != KVB_EINVAL)
            return NULL;
    return arg;
}

static void test_threads_share_the_limit_and_lose_no_count(void **state)
{
    struct kv_rig *rig = *state;
    pthread_t threads[THREADS];
    char words[64];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, refuse_many, rig->kv), 0);
    for (int i = 0; i < THREADS; i++) {
        void *through = NULL;
        pthread_join(threads[i], &through);
        assert_ptr_equal(through, rig->kv);
    }
    assert_int_equal(rig->log.count, 16);
    kv_advance(rig, KV_SECOND);
    refused_times(rig, 1);
    (void)snprintf(words, sizeof words, "; %d more lines", THREADS * REFUSALS - 16);
    assert_non_null(strstr(kv_log_last(&rig->log)->text, words));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(two_tiers, test_a_function_tells_16_in_a_second),
        TEST(two_tiers, test_the_first_of_a_later_second_says_how_many_were_left_out),
        TEST(two_tiers, test_functions_are_counted_apart),
        TEST(two_tiers, test_answers_and_refusals_are_counted_apart),
        TEST(two_tiers, test_a_line_that_is_too_long_keeps_its_end),
        TEST(two_tiers, test_an_array_tells_its_first_refused_element_and_how_many),
        TEST(two_tiers, test_an_array_tells_a_refusal_rather_than_an_answer),
        TEST(two_tiers, test_success_tells_nothing),
        TEST(two_tiers, test_a_child_after_fork_calls_no_logger),
        TEST(kv_rig, test_a_manager_without_logger_is_refused_all_the_same),
        TEST(bare, test_limit_late_thread_does_not_open_an_old_second),
        TEST(two_tiers, test_threads_share_the_limit_and_lose_no_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
