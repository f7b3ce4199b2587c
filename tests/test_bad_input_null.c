/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every function without a manager, in a child after fork, and with NULL or zero in place of an
 * argument.
 */
#include "support/kv_scene.h"

#include <sys/wait.h>
#include <unistd.h>

static const uint32_t T[] = {1, 2, 3, 4, 5, 6, 7, 8};

/* ---- Every function: NULL, fork -------------------------------------------------------------- */

/* Arguments that are right, for a manager with DEVICE and HOST. */
struct arguments {
    struct kvb_block *empty, *other, *source;
    struct kvb_op *op;
};

static int visit_nothing(void *arg, const struct kvb_event *event)
{
    (void)arg;
    (void)event;
    return 0;
}

/*
 * Call every function that returns a code, with `manager` and otherwise right arguments; count
 * other answers than `code`.
 */
static int count_other_answers(struct kvb_manager *manager, const struct arguments *with, int code)
{
    struct kvb_block *block = with->empty, *in_place = with->empty, *got = NULL;
    struct kvb_block_init init = {.size = sizeof init};
    struct kvb_append append = {.size = sizeof append, .tokens = T, .count = 1};
    struct kvb_block_info info = {.size = sizeof info};
    struct kvb_stats stats = {.size = sizeof stats};
    struct kvb_query query = kv_query(0, T, KV_TOKENS);
    struct kvb_onboard onboard = {
        .size = sizeof onboard, .sources = &with->source, .targets = &with->other, .count = 1};
    struct kvb_weak weak = {0};
    struct kvb_seq seq = {0};
    struct kvb_hit hit;
    struct kvb_op *op = NULL;
    uint64_t number = 0, tiers[KVB_TIER_COUNT];
    uint32_t small = 0;
    size_t count = 0;
    void *address = NULL;
    const struct {
        const char *call;
        int answer;
    } answers[] = {
#define CALL(call) {#call, call}
        CALL(kvb_manager_poll(manager, 0)),
        CALL(kvb_manager_event_fd(manager)),
        CALL(kvb_manager_next_timeout(manager, &number)),
        CALL(kvb_manager_flush(manager, 0)),
        CALL(kvb_manager_clear(manager)),
        CALL(kvb_tier_memory(manager, 0, &address, &number)),
        CALL(kvb_fence_signal(manager, 0, 1)),
        CALL(kvb_namespace_open(manager, "a", 1, NULL, 0, &small)),
        CALL(kvb_hash_tokens(manager, 0, NULL, T, KV_TOKENS, &seq, 1, &count)),
        CALL(kvb_alloc(manager, 0, 1, NULL, &got, NULL)),
        CALL(kvb_block_ref(manager, &block, 1, NULL)),
        CALL(kvb_block_unref(manager, &block, 1, NULL)),
        CALL(kvb_block_weak(manager, block, &weak)),
        CALL(kvb_weak_upgrade(manager, &weak, 1, &got, NULL)),
        CALL(kvb_block_init(manager, &block, &init, 1, NULL)),
        CALL(kvb_block_append(manager, &block, &append, 1, NULL)),
        CALL(kvb_block_schedule(manager, &block, 1, NULL)),
        CALL(kvb_block_cancel(manager, &block, 1, NULL)),
        CALL(kvb_block_compute_done(manager, &block, &small, 1, NULL, NULL)),
        CALL(kvb_block_compute_failed(manager, &block, 1, NULL)),
        CALL(kvb_block_truncate(manager, &block, &small, 1, NULL)),
        CALL(kvb_block_reset(manager, &block, 1, NULL)),
        CALL(kvb_block_clone(manager, with->source, block)),
        CALL(kvb_block_register(manager, &in_place, 1, NULL, NULL, NULL)),
        CALL(kvb_block_set_priority(manager, &block, 1, 1, 0, NULL)),
        CALL(kvb_block_describe(manager, block, &info)),
        CALL(kvb_block_key(manager, with->source, &seq)),
        CALL(kvb_block_address(manager, block, 0, 0, &address)),
        CALL(kvb_match(manager, &query, &hit, 1, &count)),
        CALL(kvb_lookup(manager, &query, tiers)),
        CALL(kvb_invalidate(manager, &seq, 1, NULL)),
        CALL(kvb_invalidate_namespace(manager, 0, NULL)),
        CALL(kvb_index_walk(manager, visit_nothing, NULL)),
        CALL(kvb_pin(manager, 1, &block, 1, 0, NULL)),
        CALL(kvb_unpin(manager, 1, &block, 1, NULL)),
        CALL(kvb_unpin_all(manager, 1, NULL)),
        CALL(kvb_block_offload(manager, &block, 1, 1, NULL, NULL)),
        CALL(kvb_block_offload_cancel(manager, &block, 1, NULL)),
        CALL(kvb_onboard(manager, &onboard, &op)),
        CALL(kvb_op_take(manager, with->op, &got, 1, &small)),
        CALL(kvb_op_wait(manager, with->op, 0)),
        CALL(kvb_op_cancel(manager, with->op)),
        CALL(kvb_op_release(manager, with->op)),
        CALL(kvb_manager_stats(manager, &stats)),
#undef CALL
    };
    int wrong = 0;
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++)
        if (answers[i].answer != code) {
            print_error("%s: %s (%d)\n", answers[i].call, kvb_error_name(answers[i].answer),
                        answers[i].answer);
            wrong++;
        }
    return wrong;
}

static struct arguments right_arguments(struct kv_rig *rig)
{
    struct arguments with = {.empty = kv_alloc(rig, KVB_TIER_DEVICE)};
    struct kvb_block *target = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_store_run(rig, KVB_TIER_HOST, 0, T, 1, &with.source);
    struct kvb_onboard onboard = {
        .size = sizeof onboard, .sources = &with.source, .targets = &target, .count = 1};
    kv_ok(kvb_onboard(rig->kv, &onboard, &with.op));
    with.other = kv_alloc(rig, KVB_TIER_DEVICE);
    return with;
}

/* The op goes on and ends well; everything is given back. */
static void use_up(struct kv_rig *rig, const struct arguments *with)
{
    struct kvb_block *taken = NULL;
    uint32_t good = 0;
    kv_ok(kvb_op_wait(rig->kv, with->op, KVB_FOREVER));
    kv_ok(kvb_op_take(rig->kv, with->op, &taken, 1, &good));
    assert_int_equal(good, 1);
    kv_ok(kvb_op_release(rig->kv, with->op));
    kv_unref(rig, taken);
    kv_unref(rig, with->empty);
    kv_unref(rig, with->other);
    kv_unref(rig, with->source);
}

static void test_null_manager_is_invalid_for_every_function(void **state)
{
    struct kv_rig *rig = *state;
    struct arguments with = right_arguments(rig);
    assert_int_equal(count_other_answers(NULL, &with, KVB_EINVAL), 0);
    assert_int_equal(kv_describe(rig, with.empty).state, KVB_STATE_EMPTY);
    use_up(rig, &with);
}

static void test_null_manager_where_no_code_is_returned(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    assert_int_equal(kvb_key_bytes(NULL), 0);
    assert_int_equal(kvb_key_bytes(rig->kv), sizeof(struct kvb_seq));
    assert_int_equal(kvb_block_slot(NULL, block), UINT32_MAX);
    kv_ok(kvb_manager_destroy(NULL));
    kv_unref(rig, block);
}

/* In a child: every call says so, and the parent goes on as if nothing had been. */
static void answers_in_a_child(struct kv_rig *rig)
{
    struct arguments with = right_arguments(rig);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        int wrong = count_other_answers(rig->kv, &with, KVB_EFORK);
        wrong += kvb_manager_destroy(rig->kv) != KVB_EFORK;
        fflush(NULL);
        _exit(wrong);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    use_up(rig, &with);
}

static void test_child_after_fork_is_refused_by_every_function(void **state)
{
    struct kv_rig *rig = *state;
    answers_in_a_child(rig);
    assert_int_equal(kv_run_length(rig, 0, T, KV_TOKENS), 1);
}

static void test_child_after_fork_of_a_manager_with_a_thread_is_refused(void **state)
{
    struct kv_rig *rig = *state;
    rig->config.progress = KVB_PROGRESS_THREAD;
    kv_rig_open(rig);
    answers_in_a_child(rig);
    kv_flush(rig);
}

/* ---- NULL and zero elsewhere ----------------------------------------------------------------- */

static void test_null_array_with_a_count_is_invalid(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_manager *kv = rig->kv;
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE), *none = NULL;
    struct kvb_block_init init = {.size = sizeof init};
    struct kvb_append append = {.size = sizeof append, .count = 1};
    struct kvb_weak weak = {0};
    struct kvb_seq seq;
    uint32_t zero = 0;
    size_t count = 0;

    kv_expect(kvb_alloc(kv, 0, 1, NULL, NULL, NULL), KVB_EINVAL);
    kv_expect(kvb_block_ref(kv, NULL, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_block_unref(kv, NULL, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_weak_upgrade(kv, NULL, 1, &none, NULL), KVB_EINVAL);
    kv_expect(kvb_weak_upgrade(kv, &weak, 1, NULL, NULL), KVB_EINVAL);
    kv_expect(kvb_block_init(kv, NULL, &init, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_block_init(kv, &block, NULL, 1, NULL), KVB_EINVAL);
    kv_init(rig, block, 0, 0, NULL);
    kv_expect(kvb_block_append(kv, NULL, &append, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_block_append(kv, &block, NULL, 1, NULL), KVB_EINVAL);
    /* count 1, tokens NULL */
    kv_expect(kvb_block_append(kv, &block, &append, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_block_schedule(kv, NULL, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_block_cancel(kv, NULL, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_block_compute_done(kv, NULL, &zero, 1, NULL, NULL), KVB_EINVAL);
    kv_expect(kvb_block_compute_done(kv, &block, NULL, 1, NULL, NULL), KVB_EINVAL);
    kv_expect(kvb_block_compute_failed(kv, NULL, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_block_truncate(kv, NULL, &zero, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_block_truncate(kv, &block, NULL, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_block_reset(kv, NULL, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_block_register(kv, NULL, 1, NULL, NULL, NULL), KVB_EINVAL);
    kv_expect(kvb_block_set_priority(kv, NULL, 1, 1, 0, NULL), KVB_EINVAL);
    kv_expect(kvb_invalidate(kv, NULL, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_pin(kv, 1, NULL, 1, 0, NULL), KVB_EINVAL);
    kv_expect(kvb_unpin(kv, 1, NULL, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_block_offload(kv, NULL, 1, 1, NULL, NULL), KVB_EINVAL);
    kv_expect(kvb_block_offload_cancel(kv, NULL, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_hash_tokens(kv, 0, NULL, NULL, KV_TOKENS, &seq, 1, &count), KVB_EINVAL);
    kv_expect(kvb_hash_tokens(kv, 0, NULL, T, KV_TOKENS, NULL, 1, &count), KVB_EINVAL);
    kv_expect(kvb_namespace_open(kv, NULL, 1, NULL, 0, &zero), KVB_EINVAL);
    kv_expect(kvb_namespace_open(kv, NULL, 0, NULL, 1, &zero), KVB_EINVAL);

    assert_int_equal(kv_describe(rig, block).state, KVB_STATE_PARTIAL);
    assert_int_equal(kv_describe(rig, block).token_count, 0);
    kv_unref(rig, block);
}

static void test_null_where_an_answer_goes_is_invalid(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_manager *kv = rig->kv;
    struct kvb_block *block = NULL;
    struct kvb_query query = kv_query(0, T, KV_TOKENS);
    struct kvb_hit hit;
    struct kvb_seq seq;
    uint64_t bytes = 0;
    void *base = NULL;
    size_t count = 0;
    kv_store_run(rig, KVB_TIER_DEVICE, 0, T, 1, &block);
    kv_expect(kvb_manager_next_timeout(kv, NULL), KVB_EINVAL);
    kv_expect(kvb_tier_memory(kv, 0, NULL, &bytes), KVB_EINVAL);
    kv_expect(kvb_tier_memory(kv, 0, &base, NULL), KVB_EINVAL);
    kv_expect(kvb_namespace_open(kv, "a", 1, NULL, 0, NULL), KVB_EINVAL);
    kv_expect(kvb_hash_tokens(kv, 0, NULL, T, KV_TOKENS, &seq, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_block_weak(kv, block, NULL), KVB_EINVAL);
    kv_expect(kvb_block_describe(kv, block, NULL), KVB_EINVAL);
    kv_expect(kvb_block_key(kv, block, NULL), KVB_EINVAL);
    kv_expect(kvb_block_address(kv, block, 0, 0, NULL), KVB_EINVAL);
    kv_expect(kvb_match(kv, NULL, &hit, 1, &count), KVB_EINVAL);
    kv_expect(kvb_match(kv, &query, NULL, 1, &count), KVB_EINVAL);
    kv_expect(kvb_match(kv, &query, &hit, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_lookup(kv, &query, NULL), KVB_EINVAL);
    kv_expect(kvb_lookup(kv, NULL, (uint64_t[KVB_TIER_COUNT]){0}), KVB_EINVAL);
    kv_expect(kvb_index_walk(kv, NULL, NULL), KVB_EINVAL);
    kv_expect(kvb_manager_stats(kv, NULL), KVB_EINVAL);
    assert_int_equal(kv_describe(rig, block).holder_count, 1);
    kv_unref(rig, block);
}

static void test_answers_are_cleared_on_errors(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_manager *kv = rig->kv;
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE), *got = block;
    struct kvb_seq key, zero = {0};
    struct kvb_weak weak = {1, 1, 1}, no_weak = {0};
    struct kvb_query query = kv_query(9, T, KV_TOKENS);
    struct kvb_hit hit;
    void *address = block;
    uint64_t number = 9, tiers[KVB_TIER_COUNT] = {9, 9, 9, 9}, no_tiers[KVB_TIER_COUNT] = {0};
    uint32_t small = 9;
    size_t count = 9;
    memset(&key, 0xff, sizeof key);

    kv_expect(kvb_tier_memory(kv, KVB_TIER_DISK, &address, &number), KVB_ENOENT);
    assert_null(address);
    assert_int_equal(number, 0);
    address = block;
    number = 9;
    kv_expect(kvb_tier_memory(kv, KVB_TIER_COUNT, &address, &number), KVB_EINVAL);
    assert_null(address);
    assert_int_equal(number, 0);
    address = block;
    kv_expect(kvb_block_address(kv, block, KV_LAYERS, 0, &address), KVB_EINVAL);
    assert_null(address);
    kv_expect(kvb_block_key(kv, block, &key), KVB_ENOENT);
    assert_memory_equal(&key, &zero, sizeof key);
    kv_expect(kvb_block_weak(kv, NULL, &weak), KVB_EINVAL);
    assert_memory_equal(&weak, &no_weak, sizeof weak);
    kv_expect(kvb_alloc(kv, KVB_TIER_DISK, 1, NULL, &got, &small), KVB_ENOENT);
    assert_null(got);
    assert_int_equal(small, 0);
    small = 9;
    kv_expect(kvb_namespace_open(kv, NULL, 1, NULL, 0, &small), KVB_EINVAL);
    assert_int_equal(small, 0);
    kv_expect(kvb_match(kv, &query, &hit, 1, &count), KVB_ENOENT);
    assert_int_equal(count, 0);
    kv_expect(kvb_lookup(kv, &query, tiers), KVB_ENOENT);
    assert_memory_equal(tiers, no_tiers, sizeof tiers);
    kv_unref(rig, block);
}

static void test_count_0_does_nothing(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_manager *kv = rig->kv;
    kv_ok(kvb_block_ref(kv, NULL, 0, NULL));
    kv_ok(kvb_block_unref(kv, NULL, 0, NULL));
    kv_ok(kvb_weak_upgrade(kv, NULL, 0, NULL, NULL));
    kv_ok(kvb_block_init(kv, NULL, NULL, 0, NULL));
    kv_ok(kvb_block_append(kv, NULL, NULL, 0, NULL));
    kv_ok(kvb_block_schedule(kv, NULL, 0, NULL));
    kv_ok(kvb_block_cancel(kv, NULL, 0, NULL));
    kv_ok(kvb_block_compute_done(kv, NULL, NULL, 0, NULL, NULL));
    kv_ok(kvb_block_compute_failed(kv, NULL, 0, NULL));
    kv_ok(kvb_block_truncate(kv, NULL, NULL, 0, NULL));
    kv_ok(kvb_block_reset(kv, NULL, 0, NULL));
    kv_ok(kvb_block_register(kv, NULL, 0, NULL, NULL, NULL));
    kv_ok(kvb_block_set_priority(kv, NULL, 0, 1, 0, NULL));
    kv_ok(kvb_invalidate(kv, NULL, 0, NULL));
    kv_ok(kvb_pin(kv, 1, NULL, 0, 0, NULL));
    kv_ok(kvb_unpin(kv, 1, NULL, 0, NULL));
    kv_ok(kvb_block_offload(kv, NULL, 0, 1, NULL, NULL));
    kv_ok(kvb_block_offload_cancel(kv, NULL, 0, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kv_opened_two_tiers, test_null_manager_is_invalid_for_every_function),
        TEST(kv_opened_two_tiers, test_null_manager_where_no_code_is_returned),
        TEST(kv_opened_two_tiers, test_child_after_fork_is_refused_by_every_function),
        TEST(kv_two_tiers, test_child_after_fork_of_a_manager_with_a_thread_is_refused),
        TEST(kv_opened_two_tiers, test_null_array_with_a_count_is_invalid),
        TEST(kv_opened_two_tiers, test_null_where_an_answer_goes_is_invalid),
        TEST(kv_opened_two_tiers, test_answers_are_cleared_on_errors),
        TEST(kv_opened_two_tiers, test_count_0_does_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
