/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pointers that are no handles: every call that takes a block refuses them.
 */
#include "support/life.h"

/* ---- Pointers that are no handles ------------------------------------------------------------ */

/*
 * Every call that takes a block says KVB_EINVAL to this one, in a manager with the tiers DEVICE and
 * HOST.
 */
static void refused_by_all(struct kv_rig *rig, struct kvb_block *bad)
{
    struct kvb_manager *kv = rig->kv;
    struct kvb_block *good = kv_alloc(rig, KVB_TIER_DEVICE);
    struct kvb_block *source = kv_alloc(rig, KVB_TIER_HOST);
    struct kvb_block *in_place = bad;
    struct kvb_block_init init = {.size = sizeof init};
    struct kvb_append append = {.size = sizeof append, .tokens = life_tokens, .count = 1};
    struct kvb_block_info info = {.size = sizeof info};
    struct kvb_weak weak;
    struct kvb_seq key;
    struct kvb_op *op = NULL;
    void *address = NULL;
    uint32_t one = 1;

    kv_complete(rig, source, 0, 0, NULL, life_tokens + 4);
    kv_register(rig, source);
    kv_expect(kvb_block_ref(kv, &bad, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_block_unref(kv, &bad, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_block_weak(kv, bad, &weak), KVB_EINVAL);
    kv_expect(kvb_block_init(kv, &bad, &init, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_block_append(kv, &bad, &append, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_block_schedule(kv, &bad, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_block_cancel(kv, &bad, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_block_compute_done(kv, &bad, &one, 1, NULL, NULL), KVB_EINVAL);
    kv_expect(kvb_block_compute_failed(kv, &bad, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_block_truncate(kv, &bad, &one, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_block_reset(kv, &bad, 1, NULL), KVB_EINVAL);
    kv_expect(kvb_block_clone(kv, bad, good), KVB_EINVAL);
    kv_expect(kvb_block_clone(kv, source, bad), KVB_EINVAL);
    kv_expect(kvb_block_register(kv, &in_place, 1, NULL, NULL, NULL), KVB_EINVAL);
    kv_expect(kvb_block_set_priority(kv, &bad, 1, 1, 0, NULL), KVB_EINVAL);
    kv_expect(kvb_block_describe(kv, bad, &info), KVB_EINVAL);
    kv_expect(kvb_block_key(kv, bad, &key), KVB_EINVAL);
    kv_expect(kvb_block_address(kv, bad, 0, 0, &address), KVB_EINVAL);
    kv_expect(kvb_pin(kv, 1, &bad, 1, 0, NULL), KVB_EINVAL);
    /* of a block that is free or parked it may know that there is no pin */
    int unpin = kvb_unpin(kv, 1, &bad, 1, NULL);
    kv_expect(unpin, kvb_block_slot(kv, bad) == UINT32_MAX || unpin != KVB_ENOENT ? KVB_EINVAL
                                                                                  : KVB_ENOENT);
    kv_expect(kvb_block_offload(kv, &bad, 1, 1, NULL, NULL), KVB_EINVAL);
    kv_expect(kvb_block_offload_cancel(kv, &bad, 1, NULL), KVB_EINVAL);

    struct kvb_onboard onboard = {
        .size = sizeof onboard, .sources = &bad, .targets = &good, .count = 1};
    kv_expect(kvb_onboard(kv, &onboard, &op), KVB_EINVAL);
    onboard.sources = &source;
    onboard.targets = &bad;
    kv_expect(kvb_onboard(kv, &onboard, &op), KVB_EINVAL);

    assert_int_equal(kv_describe(rig, good).state, KVB_STATE_EMPTY);
    assert_int_equal(kv_describe(rig, good).holder_count, 1);
    kv_unref(rig, good);
    kv_unref(rig, source);
}

static void test_null_element_is_refused_by_every_call(void **state)
{
    struct kv_rig *rig = *state;
    refused_by_all(rig, NULL);
    assert_int_equal(kvb_block_slot(rig->kv, NULL), UINT32_MAX);
}

static void test_pointer_to_elsewhere_is_refused_by_every_call(void **state)
{
    struct kv_rig *rig = *state;
    static _Alignas(64) unsigned char elsewhere[256];
    struct kvb_block *bad = (struct kvb_block *)(void *)(elsewhere + 64);
    refused_by_all(rig, bad);
    assert_int_equal(kvb_block_slot(rig->kv, bad), UINT32_MAX);
}

static void test_pointer_to_nothing_is_refused_by_every_call(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *low = (struct kvb_block *)(uintptr_t)64;
    struct kvb_block *high = (struct kvb_block *)(UINTPTR_MAX - 63);
    refused_by_all(rig, low);
    refused_by_all(rig, high);
    assert_int_equal(kvb_block_slot(rig->kv, low), UINT32_MAX);
    assert_int_equal(kvb_block_slot(rig->kv, high), UINT32_MAX);
}

static void test_misaligned_pointer_into_the_pool_is_refused_by_every_call(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    struct kvb_block *bad = (struct kvb_block *)((uintptr_t)block + 8);
    refused_by_all(rig, bad);
    assert_int_equal(kvb_block_slot(rig->kv, bad), UINT32_MAX);
    kv_unref(rig, block);
}

struct two_managers {
    struct kv_rig rig, other;
};

static int two_managers_setup(void **state)
{
    struct two_managers *managers = kv_scene_begin(state, sizeof *managers);
    kv_rig_add_host(&managers->rig);
    kv_rig_open(&managers->rig);
    kv_rig_init(&managers->other);
    kv_rig_open(&managers->other);
    return 0;
}

static int two_managers_teardown(void **state)
{
    struct two_managers *managers = *state;
    bool good = kv_rig_end(&managers->other);
    return kv_scene_end(state) == 0 && good ? 0 : -1;
}

static void test_block_of_another_manager_is_refused_by_every_call(void **state)
{
    struct two_managers *managers = *state;
    struct kvb_block *bad = kv_alloc(&managers->other, KVB_TIER_DEVICE);
    refused_by_all(&managers->rig, bad);
    assert_int_equal(kvb_block_slot(managers->rig.kv, bad), UINT32_MAX);
    kv_unref(&managers->other, bad);
}

static void test_free_block_is_refused_by_every_call(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *blocks[KV_BLOCKS];
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_HOST, KV_BLOCKS, NULL, blocks, NULL));
    kv_ok(kvb_block_unref(rig->kv, blocks, KV_BLOCKS, NULL));
    /*
     * One of them is taken inside refused_by_all; which one is the pool's business, but it will be
     * the same again.
     */
    struct kvb_block *next = kv_alloc(rig, KVB_TIER_HOST);
    kv_unref(rig, next);
    refused_by_all(rig, blocks[0] != next ? blocks[0] : blocks[1]);
}

static void test_parked_block_is_refused_by_every_call(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *bad = life_registered(rig, life_tokens);
    kv_unref(rig, bad);
    refused_by_all(rig, bad);
    assert_int_equal(kv_run_length(rig, 0, life_tokens, KV_TOKENS), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kv_opened_two_tiers, test_null_element_is_refused_by_every_call),
        TEST(kv_opened_two_tiers, test_pointer_to_elsewhere_is_refused_by_every_call),
        TEST(kv_opened_two_tiers, test_pointer_to_nothing_is_refused_by_every_call),
        TEST(kv_opened_two_tiers, test_misaligned_pointer_into_the_pool_is_refused_by_every_call),
        TEST(two_managers, test_block_of_another_manager_is_refused_by_every_call),
        TEST(kv_opened_two_tiers, test_free_block_is_refused_by_every_call),
        TEST(kv_opened_two_tiers, test_parked_block_is_refused_by_every_call),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
