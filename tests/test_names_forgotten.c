/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What was named before a clear, or before its namespace or key was forgotten, is never found after
 * it: whatever state its block is in by then, wherever it is on its way to, and whoever took its
 * names.
 */
#include <sched.h>

#include "support/kv_scene.h"
#include "support/move_test.h"

enum forget { CLEAR, SPACE, KEY, FORGETS };

/* One block of one content, "the" content of a test. */
static uint32_t space, other_space, tokens[KV_TOKENS];
static struct kvb_seq name;

static void open_rig(struct kv_rig *rig, uint32_t trigger, uint32_t duplicate)
{
    size_t count = 0;
    mv_two_tiers(rig, KV_BLOCKS, KV_BLOCKS, trigger);
    rig->config.duplicate = duplicate;
    mv_open_recorded(rig);
    kv_ok(kvb_namespace_open(rig->kv, NULL, 0, "adapter", 7, &space));
    kv_ok(kvb_namespace_open(rig->kv, NULL, 0, "another", 7, &other_space));
    kv_tokens(tokens, KV_TOKENS, 1);
    kv_ok(kvb_hash_tokens(rig->kv, space, NULL, tokens, KV_TOKENS, &name, 1, &count));
}

static void forget(struct kv_rig *rig, enum forget what)
{
    int code;
    switch (what) {
    case CLEAR:
        kv_ok(kvb_manager_clear(rig->kv));
        break;
    case SPACE:
        kv_ok(kvb_invalidate_namespace(rig->kv, space, NULL));
        break;
    case KEY:
    case FORGETS:
        code = kvb_invalidate(rig->kv, &name, 1, NULL);
        assert_true(code == 0 || code == KVB_ENOENT);
        break;
    }
    kv_check(rig);
}

static bool is_found(struct kv_rig *rig)
{
    return kv_run_length(rig, space, tokens, KV_TOKENS) == 1;
}

static uint64_t stale_count(struct kv_rig *rig, uint32_t tier)
{
    return kv_stats(rig).tiers[tier].stale;
}

/* Registered as a stale one: found by nobody, counted, and gone with its last handle. */
static void expect_stale(struct kv_rig *rig, struct kvb_block *block)
{
    mv_step(rig); /* what others have announced is not counted here */
    uint64_t stale = stale_count(rig, KVB_TIER_DEVICE);
    size_t stored = mv_event_count(rig, KVB_EVENT_STORED, KVB_TIER_DEVICE);
    uint64_t free_count = kv_stats(rig).tiers[KVB_TIER_DEVICE].free_count;
    kv_register(rig, block);
    kv_check(rig);
    struct kvb_block_info info = kv_describe(rig, block);
    assert_int_equal(info.state, KVB_STATE_REGISTERED);
    assert_int_equal(info.indexed, 0);
    assert_int_equal(stale_count(rig, KVB_TIER_DEVICE), stale + 1);
    kv_expect(kvb_block_offload(rig->kv, &block, 1, 50, NULL, NULL), KVB_ESTATE);
    kv_unref(rig, block);
    mv_step(rig);
    assert_false(is_found(rig));
    assert_int_equal(mv_event_count(rig, KVB_EVENT_STORED, KVB_TIER_DEVICE), stored);
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_DEVICE].free_count, free_count + 1);
    assert_int_equal(rig->copies.count, 0);
}

/* Registered as ever. */
static void expect_found(struct kv_rig *rig, struct kvb_block *block)
{
    uint64_t stale = stale_count(rig, KVB_TIER_DEVICE);
    kv_register(rig, block);
    assert_int_equal(kv_describe(rig, block).indexed, 1);
    assert_true(is_found(rig));
    assert_int_equal(stale_count(rig, KVB_TIER_DEVICE), stale);
    kv_unref(rig, block);
}

/* The content, Complete, initialised now. */
static struct kvb_block *complete(struct kv_rig *rig, uint32_t tier)
{
    struct kvb_block *block = kv_alloc(rig, tier);
    kv_complete(rig, block, space, 0, NULL, tokens);
    return block;
}

/* ---- Between init and register --------------------------------------------------------------- */

enum moment { AFTER_INIT, AFTER_A_TOKEN, AFTER_ALL, IN_A_STEP, COMPLETE, MOMENTS };

static void forget_at(struct kv_rig *rig, enum moment at, enum moment here, enum forget what)
{
    if (at == here)
        forget(rig, what);
}

static struct kvb_block *compute_across(struct kv_rig *rig, enum moment at, enum forget what)
{
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_init(rig, block, space, 0, NULL);
    forget_at(rig, at, AFTER_INIT, what);
    kv_append(rig, block, tokens, 1, KVB_MORE);
    forget_at(rig, at, AFTER_A_TOKEN, what);
    kv_append(rig, block, tokens + 1, KV_TOKENS - 1, 0);
    forget_at(rig, at, AFTER_ALL, what);
    kv_schedule(rig, block);
    forget_at(rig, at, IN_A_STEP, what);
    kv_done(rig, block, KV_TOKENS);
    forget_at(rig, at, COMPLETE, what);
    return block;
}

static void test_block_that_was_named_before_is_never_found(void **state)
{
    struct kv_rig *rig = *state;
    for (enum forget what = CLEAR; what < FORGETS; what++)
        for (enum moment at = AFTER_INIT; at < MOMENTS; at++) {
            open_rig(rig, KVB_OFFLOAD_ON_REGISTER, KVB_DUPLICATE_KEEP);
            expect_stale(rig, compute_across(rig, at, what));
            kv_rig_close(rig);
        }
}

static void test_block_that_is_named_after_it_is_found(void **state)
{
    struct kv_rig *rig = *state;
    for (enum forget what = CLEAR; what < FORGETS; what++) {
        open_rig(rig, KVB_OFFLOAD_MANUAL, KVB_DUPLICATE_KEEP);
        struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
        forget(rig, what);
        kv_complete(rig, block, space, 0, NULL, tokens);
        expect_found(rig, block);
        kv_rig_close(rig);
    }
}

static void test_other_namespaces_and_keys_are_left_alone(void **state)
{
    struct kv_rig *rig = *state;
    open_rig(rig, KVB_OFFLOAD_MANUAL, KVB_DUPLICATE_KEEP);
    struct kvb_seq other = {.hash = ~name.hash};
    struct kvb_block *block = complete(rig, KVB_TIER_DEVICE);
    kv_ok(kvb_invalidate_namespace(rig->kv, other_space, NULL));
    kv_ok(kvb_invalidate_namespace(rig->kv, 0, NULL));
    kv_expect(kvb_invalidate(rig->kv, &other, 1, NULL), KVB_ENOENT);
    expect_found(rig, block);
}

static void test_truncated_block_is_as_old_as_before(void **state)
{
    struct kv_rig *rig = *state;
    static const uint32_t kept[] = {0, 1};
    for (enum forget what = CLEAR; what < FORGETS; what++)
        for (uint32_t i = 0; i < 2; i++) {
            open_rig(rig, KVB_OFFLOAD_MANUAL, KVB_DUPLICATE_KEEP);
            struct kvb_block *block = complete(rig, KVB_TIER_DEVICE);
            forget(rig, what);
            kv_ok(kvb_block_truncate(rig->kv, &block, &kept[i], 1, NULL));
            kv_append(rig, block, tokens + kept[i], KV_TOKENS - kept[i], 0);
            kv_schedule(rig, block);
            kv_done(rig, block, KV_TOKENS);
            expect_stale(rig, block);
            kv_rig_close(rig);
        }
}

static void test_block_that_is_reset_and_named_anew_is_found(void **state)
{
    struct kv_rig *rig = *state;
    open_rig(rig, KVB_OFFLOAD_MANUAL, KVB_DUPLICATE_KEEP);
    struct kvb_block *block = complete(rig, KVB_TIER_DEVICE);
    forget(rig, CLEAR);
    kv_ok(kvb_block_reset(rig->kv, &block, 1, NULL));
    kv_complete(rig, block, space, 0, NULL, tokens);
    expect_found(rig, block);
}

/* The key may be given in the very call that registers. */
static void test_keyed_block_is_stale_under_any_key_that_was_invalidated(void **state)
{
    struct kv_rig *rig = *state;
    for (uint32_t given = 0; given < 2; given++) {
        static const unsigned char keys[3][8] = {"first", "second", "third"};
        rig->config.key_bytes = sizeof *keys;
        kv_rig_open(rig);
        struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
        kv_complete(rig, block, 0, 0, NULL, tokens);
        kv_expect(kvb_invalidate(rig->kv, keys[0], 1, NULL), KVB_ENOENT);
        struct kvb_register options = {.size = sizeof options, .keys = keys[given]};
        kv_ok(kvb_block_register(rig->kv, &block, 1, &options, NULL, NULL));
        assert_int_equal(kv_describe(rig, block).indexed, given);
        assert_int_equal(stale_count(rig, KVB_TIER_DEVICE), 1 - given);
        kv_unref(rig, block);
        kv_rig_close(rig);
    }
}

/* ---- Clones ---------------------------------------------------------------------------------- */

static struct kvb_block *clone_of(struct kv_rig *rig, const struct kvb_block *source)
{
    struct kvb_block *clone = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_ok(kvb_block_clone(rig->kv, source, clone));
    kv_append(rig, clone, NULL, 0, 0);
    kv_schedule(rig, clone);
    kv_done(rig, clone, KV_TOKENS);
    return clone;
}

static void test_clone_of_block_that_was_named_before_is_never_found(void **state)
{
    struct kv_rig *rig = *state;
    for (enum forget what = CLEAR; what < FORGETS; what++) {
        open_rig(rig, KVB_OFFLOAD_MANUAL, KVB_DUPLICATE_KEEP);
        struct kvb_block *source = complete(rig, KVB_TIER_DEVICE);
        forget(rig, what);
        expect_stale(rig, clone_of(rig, source));
        kv_unref(rig, source);
        kv_rig_close(rig);
    }
}

static void test_clone_taken_before_from_a_registered_block_is_never_found(void **state)
{
    struct kv_rig *rig = *state;
    for (enum forget what = CLEAR; what < FORGETS; what++) {
        open_rig(rig, KVB_OFFLOAD_MANUAL, KVB_DUPLICATE_KEEP);
        struct kvb_block *source = complete(rig, KVB_TIER_DEVICE);
        kv_register(rig, source);
        struct kvb_block *clone = clone_of(rig, source);
        forget(rig, what);
        expect_stale(rig, clone);
        kv_unref(rig, source);
        kv_rig_close(rig);
    }
}

static void test_clone_of_stale_block_is_never_found(void **state)
{
    struct kv_rig *rig = *state;
    open_rig(rig, KVB_OFFLOAD_MANUAL, KVB_DUPLICATE_KEEP);
    struct kvb_block *source = compute_across(rig, COMPLETE, CLEAR);
    kv_register(rig, source);
    expect_stale(rig, clone_of(rig, source));
    kv_unref(rig, source);
}

/* ---- Beside the same content of after it ----------------------------------------------------- */

/* It takes no place from a fresh one, parked or held, and is not exchanged for one. */
static void stale_beside_fresh(struct kv_rig *rig, uint32_t duplicate, bool parked)
{
    open_rig(rig, KVB_OFFLOAD_MANUAL, duplicate);
    struct kvb_block *block = compute_across(rig, COMPLETE, CLEAR),
                     *fresh = complete(rig, KVB_TIER_DEVICE), *before = block;
    kv_register(rig, fresh);
    if (parked)
        kv_unref(rig, fresh);
    kv_ok(kvb_block_register(rig->kv, &block, 1, NULL, NULL, NULL));
    assert_ptr_equal(block, before);
    assert_int_equal(kv_describe(rig, block).indexed, 0);
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_DEVICE].duplicates, 0);
    struct kvb_query query = kv_query(space, tokens, KV_TOKENS);
    struct kvb_hit hit;
    size_t count;
    kv_ok(kvb_match(rig->kv, &query, &hit, 1, &count));
    assert_int_equal(count, 1);
    assert_ptr_equal(hit.block, fresh);
    kv_unref(rig, fresh);
    if (!parked)
        kv_unref(rig, fresh);
    kv_unref(rig, block);
    kv_rig_close(rig);
}

static void test_stale_block_takes_nothing_from_a_fresh_one(void **state)
{
    struct kv_rig *rig = *state;
    for (uint32_t parked = 0; parked < 2; parked++) {
        stale_beside_fresh(rig, KVB_DUPLICATE_KEEP, parked);
        stale_beside_fresh(rig, KVB_DUPLICATE_SHARE, parked);
    }
}

static void test_fresh_block_is_found_beside_a_stale_one(void **state)
{
    struct kv_rig *rig = *state;
    open_rig(rig, KVB_OFFLOAD_MANUAL, KVB_DUPLICATE_KEEP);
    struct kvb_block *block = compute_across(rig, COMPLETE, KEY),
                     *fresh = complete(rig, KVB_TIER_DEVICE);
    kv_register(rig, block);
    expect_found(rig, fresh);
    kv_unref(rig, block);
    assert_true(is_found(rig));
}

/*
 * A name that stands for other content by now: the stale block is no collision, because it is not
 * looked up.
 */
static void test_stale_block_collides_with_nothing(void **state)
{
    struct kv_rig *rig = *state;
    static const unsigned char key[8] = "key";
    uint32_t other[KV_TOKENS];
    struct kvb_register options = {.size = sizeof options, .keys = key};
    rig->config.key_bytes = sizeof key;
    kv_rig_open(rig);
    kv_tokens(other, KV_TOKENS, 2);
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE),
                     *fresh = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_complete(rig, block, 0, 0, NULL, tokens);
    kv_ok(kvb_manager_clear(rig->kv));
    kv_complete(rig, fresh, 0, 0, NULL, other);
    kv_ok(kvb_block_register(rig->kv, &fresh, 1, &options, NULL, NULL));
    kv_ok(kvb_block_register(rig->kv, &block, 1, &options, NULL, NULL));
    assert_int_equal(kv_stats(rig).tiers[KVB_TIER_DEVICE].collisions, 0);
    assert_int_equal(kv_describe(rig, fresh).indexed, 1);
    kv_unref(rig, fresh);
    kv_unref(rig, block);
}

/* ---- On its way ------------------------------------------------------------------------------ */

static uint64_t found_anywhere(struct kv_rig *rig)
{
    mv_step(rig);
    mv_expect_books(rig, true);
    return kv_run_length(rig, space, tokens, KV_TOKENS);
}

/* Registered in `tier`, its bytes to be there when the counter reaches 1; held. */
static struct kvb_block *registered_behind_fence(struct kv_rig *rig, uint32_t tier)
{
    struct kvb_fence fence = {.kind = KVB_FENCE_COUNTER, .handle = 1};
    struct kvb_block *block = complete(rig, tier);
    kv_ok(kvb_block_register(rig->kv, &block, 1, NULL, &fence, NULL));
    return block;
}

static void test_copy_down_ends_without_publishing_in_any_lane(void **state)
{
    struct kv_rig *rig = *state;
    for (enum forget what = CLEAR; what < FORGETS; what++)
        for (uint32_t tier = KVB_TIER_DEVICE; tier <= KVB_TIER_HOST; tier++) {
            size_t count;
            mv_three_tiers(rig, KV_BLOCKS, KV_BLOCKS, KV_BLOCKS);
            rig->tiers[0].trigger = rig->tiers[1].trigger = KVB_OFFLOAD_ON_REGISTER;
            mv_open_recorded(rig);
            kv_ok(kvb_namespace_open(rig->kv, NULL, 0, "adapter", 7, &space));
            kv_tokens(tokens, KV_TOKENS, 1);
            kv_ok(kvb_hash_tokens(rig->kv, space, NULL, tokens, KV_TOKENS, &name, 1, &count));
            struct kvb_block *block = registered_behind_fence(rig, tier);
            mv_step(rig);
            assert_int_equal(mv_lane(rig, tier, tier + 1).inflight, 1);
            forget(rig, what);
            mv_signal(rig, 1);
            assert_int_equal(found_anywhere(rig), 0);
            assert_int_equal(mv_lane(rig, tier, tier + 1).failed_invalidated, 1);
            kv_unref(rig, block);
            kv_rig_close(rig);
        }
}

/* Two operations bring the content up, the second one joins the first: neither gets it. */
static void test_copy_up_and_who_joins_it_end_without_the_content(void **state)
{
    struct kv_rig *rig = *state;
    for (enum forget what = CLEAR; what < FORGETS; what++) {
        struct kvb_block *targets[2];
        struct kvb_op *ops[2];
        uint32_t good = 1;
        open_rig(rig, KVB_OFFLOAD_MANUAL, KVB_DUPLICATE_KEEP);
        struct kvb_block *block = registered_behind_fence(rig, KVB_TIER_HOST);
        for (uint32_t i = 0; i < 2; i++) {
            targets[i] = kv_alloc(rig, KVB_TIER_DEVICE);
            struct kvb_onboard request = mv_request(&block, &targets[i], 1, NULL);
            kv_ok(kvb_onboard(rig->kv, &request, &ops[i]));
        }
        mv_step(rig);
        assert_int_equal(mv_lane(rig, KVB_TIER_HOST, KVB_TIER_DEVICE).joined, 1);
        forget(rig, what);
        mv_signal(rig, 1);
        assert_int_equal(found_anywhere(rig), 0);
        for (uint32_t i = 0; i < 2; i++) {
            kv_ok(kvb_op_take(rig->kv, ops[i], &targets[i], 1, &good));
            assert_int_equal(good, 0);
            kv_ok(kvb_op_release(rig->kv, ops[i]));
            kv_unref(rig, targets[i]);
        }
        kv_unref(rig, block);
        kv_rig_close(rig);
    }
}

/* ---- While the sweep is under way ------------------------------------------------------------ */

#define MANY 2048
#define EACH 16

struct crowd {
    struct kvb_manager *kv;
    struct kvb_block *blocks[MANY];
    _Atomic bool begun, swept, failed;
};

/* Half of them before the sweep begins, the last ones after its end, the others as it comes. */
static void *register_all(void *argument)
{
    struct crowd *crowd = argument;
    for (uint32_t i = 0; i < MANY; i += EACH) {
        atomic_store(&crowd->begun, i >= MANY / 2);
        while (i + EACH == MANY && !atomic_load(&crowd->swept))
            (void)sched_yield();
        if (kvb_block_register(crowd->kv, crowd->blocks + i, EACH, NULL, NULL, NULL) != 0)
            atomic_store(&crowd->failed, true);
    }
    return NULL;
}

/* All were named before the call, whenever they are registered. */
static void test_blocks_registered_during_the_sweep_are_not_found_after_it(void **state)
{
    static struct crowd crowd;
    static uint32_t run[MANY * KV_TOKENS];
    struct kv_rig *rig = *state;
    pthread_t thread;
    rig->tiers[0].block_count = MANY;
    kv_rig_open(rig);
    crowd = (struct crowd){.kv = rig->kv};
    kv_ok(kvb_namespace_open(rig->kv, NULL, 0, "adapter", 7, &space));
    kv_tokens(run, MANY * KV_TOKENS, 3);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, MANY, NULL, crowd.blocks, NULL));
    for (uint32_t i = 0; i < MANY; i++)
        kv_complete(rig, crowd.blocks[i], space, 0, NULL, run + i * KV_TOKENS);
    assert_int_equal(pthread_create(&thread, NULL, register_all, &crowd), 0);
    while (!atomic_load(&crowd.begun))
        (void)sched_yield();
    int code = kvb_invalidate_namespace(rig->kv, space, NULL);
    atomic_store(&crowd.swept, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
    kv_ok(code);
    assert_false(crowd.failed);
    for (uint32_t i = 0; i < MANY; i++)
        assert_int_equal(kv_run_length(rig, space, run + i * KV_TOKENS, KV_TOKENS), 0);
    assert_int_equal(kv_stats(rig).index_entries, 0);
    assert_true(stale_count(rig, KVB_TIER_DEVICE) >= EACH);
    kv_ok(kvb_block_unref(rig->kv, crowd.blocks, MANY, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kv_rig, test_block_that_was_named_before_is_never_found),
        TEST(kv_rig, test_block_that_is_named_after_it_is_found),
        TEST(kv_rig, test_other_namespaces_and_keys_are_left_alone),
        TEST(kv_rig, test_truncated_block_is_as_old_as_before),
        TEST(kv_rig, test_block_that_is_reset_and_named_anew_is_found),
        TEST(kv_rig, test_keyed_block_is_stale_under_any_key_that_was_invalidated),
        TEST(kv_rig, test_clone_of_block_that_was_named_before_is_never_found),
        TEST(kv_rig, test_clone_taken_before_from_a_registered_block_is_never_found),
        TEST(kv_rig, test_clone_of_stale_block_is_never_found),
        TEST(kv_rig, test_stale_block_takes_nothing_from_a_fresh_one),
        TEST(kv_rig, test_fresh_block_is_found_beside_a_stale_one),
        TEST(kv_rig, test_stale_block_collides_with_nothing),
        TEST(kv_rig, test_copy_down_ends_without_publishing_in_any_lane),
        TEST(kv_rig, test_copy_up_and_who_joins_it_end_without_the_content),
        TEST(kv_rig, test_blocks_registered_during_the_sweep_are_not_found_after_it),
    };
    return cmocka_run_group_tests_name("names_forgotten", tests, NULL, NULL);
}
