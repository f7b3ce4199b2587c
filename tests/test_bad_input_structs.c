/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Structs of another size than this version knows, and requests that cannot be met: each mistake
 * has its own answer and changes nothing.
 */
#include "support/kv_scene.h"

static const uint32_t T[] = {1, 2, 3, 4, 5, 6, 7, 8};

static void test_struct_without_size_is_invalid(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_manager *kv = rig->kv;
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    struct kvb_block_init init = {.size = 0};
    struct kvb_append append = {.tokens = T, .count = 1};
    struct kvb_register options = {.size = 0};
    struct kvb_block_info info = {.size = 0};
    struct kvb_stats stats = {.size = 0};
    struct kvb_onboard onboard = {.size = 0};
    struct kvb_op *op = NULL;
    kv_expect(kvb_block_init(kv, &block, &init, 1, NULL), KVB_EINVAL);
    kv_init(rig, block, 0, 0, NULL);
    kv_expect(kvb_block_append(kv, &block, &append, 1, NULL), KVB_EINVAL);
    kv_append(rig, block, T, KV_TOKENS, 0);
    kv_schedule(rig, block);
    kv_done(rig, block, KV_TOKENS);
    kv_expect(kvb_block_register(kv, &block, 1, &options, NULL, NULL), KVB_EINVAL);
    assert_int_equal(kv_describe(rig, block).state, KVB_STATE_COMPLETE);
    kv_expect(kvb_block_describe(kv, block, &info), KVB_EINVAL);
    kv_expect(kvb_manager_stats(kv, &stats), KVB_EINVAL);
    kv_expect(kvb_onboard(kv, &onboard, &op), KVB_EINVAL);
    assert_null(op);
    kv_unref(rig, block);
}

static void test_init_with_unknown_tail_in_use_is_invalid(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    struct {
        struct kvb_block_init known;
        uint64_t tail;
    } init = {{.size = sizeof init}, 1};
    int code = kvb_block_init(rig->kv, &block, &init.known, 1, NULL);
    kv_unref(rig, block);
    kv_expect(code, KVB_EINVAL);
}

static void test_append_with_unknown_tail_in_use_is_invalid(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    struct {
        struct kvb_append known;
        uint64_t tail;
    } append = {{.size = sizeof append, .tokens = T, .count = KV_TOKENS}, 1};
    kv_init(rig, block, 0, 0, NULL);
    int code = kvb_block_append(rig->kv, &block, &append.known, 1, NULL);
    kv_unref(rig, block);
    kv_expect(code, KVB_EINVAL);
}

static void test_register_with_unknown_tail_in_use_is_invalid(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    struct {
        struct kvb_register known;
        uint64_t tail;
    } options = {{.size = sizeof options}, 1};
    kv_complete(rig, block, 0, 0, NULL, T);
    int code = kvb_block_register(rig->kv, &block, 1, &options.known, NULL, NULL);
    kv_unref(rig, block);
    kv_expect(code, KVB_EINVAL);
}

static void test_query_with_unknown_tail_in_use_is_invalid(void **state)
{
    struct kv_rig *rig = *state;
    struct {
        struct kvb_query known;
        uint64_t tail;
    } query = {{.size = sizeof query, .tokens = T, .token_count = KV_TOKENS}, 1};
    uint64_t tiers[KVB_TIER_COUNT];
    kv_expect(kvb_lookup(rig->kv, &query.known, tiers), KVB_EINVAL);
}

static void test_onboard_with_unknown_tail_in_use_is_invalid(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *source = NULL, *target = kv_alloc(rig, KVB_TIER_DEVICE);
    struct kvb_op *op = NULL;
    kv_store_run(rig, KVB_TIER_HOST, 0, T, 1, &source);
    struct {
        struct kvb_onboard known;
        uint64_t tail;
    } request = {{.size = sizeof request, .sources = &source, .targets = &target, .count = 1}, 1};
    kv_expect(kvb_onboard(rig->kv, &request.known, &op), KVB_EINVAL);
    assert_null(op);
    kv_unref(rig, source);
    kv_unref(rig, target);
}

static void test_structs_with_unknown_zero_tail_are_accepted(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_manager *kv = rig->kv;
    struct kvb_block *block = kv_alloc(rig, KVB_TIER_DEVICE);
    struct {
        struct kvb_block_init known;
        uint64_t tail;
    } init = {{.size = sizeof init}, 0};
    struct {
        struct kvb_append known;
        uint64_t tail;
    } append = {{.size = sizeof append, .tokens = T, .count = KV_TOKENS}, 0};
    struct {
        struct kvb_register known;
        uint64_t tail;
    } options = {{.size = sizeof options}, 0};
    struct {
        struct kvb_query known;
        uint64_t tail;
    } query = {{.size = sizeof query, .tokens = T, .token_count = KV_TOKENS}, 0};
    uint64_t tiers[KVB_TIER_COUNT];
    kv_ok(kvb_block_init(kv, &block, &init.known, 1, NULL));
    kv_ok(kvb_block_append(kv, &block, &append.known, 1, NULL));
    kv_schedule(rig, block);
    kv_done(rig, block, KV_TOKENS);
    kv_ok(kvb_block_register(kv, &block, 1, &options.known, NULL, NULL));
    kv_ok(kvb_lookup(kv, &query.known, tiers));
    assert_int_equal(tiers[0], 1);
    kv_unref(rig, block);
}

static void test_structs_in_an_array_are_read_at_their_distance(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *blocks[3];
    struct {
        struct kvb_append known;
        uint64_t tail;
    } appends[3];
    int results[3] = {1, 1, 1};
    memset(appends, 0, sizeof appends);
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 3, NULL, blocks, NULL));
    for (uint32_t i = 0; i < 3; i++) {
        kv_init(rig, blocks[i], 0, 0, NULL);
        appends[i].known = (struct kvb_append){
            .size = sizeof appends[i], .flags = KVB_MORE, .tokens = T, .count = i + 1};
    }
    kv_ok(kvb_block_append(rig->kv, blocks, &appends[0].known, 3, results));
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(results[i], 0);
        assert_int_equal(kv_describe(rig, blocks[i]).token_count, i + 1);
        assert_int_equal(appends[i].known.taken, i + 1);
    }
    kv_ok(kvb_block_unref(rig->kv, blocks, 3, NULL));
}

static void test_unknown_fence_kind_is_invalid(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_manager *kv = rig->kv;
    struct kvb_fence fence = {.kind = 9};
    struct kvb_block *block = NULL, *source = NULL, *target = kv_alloc(rig, KVB_TIER_DEVICE);
    struct kvb_op *op = NULL;
    kv_expect(kvb_alloc(kv, 0, 1, &fence, &block, NULL), KVB_EINVAL);
    assert_null(block);
    block = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_init(rig, block, 0, 0, NULL);
    kv_append(rig, block, T, KV_TOKENS, 0);
    kv_schedule(rig, block);
    kv_expect(kvb_block_compute_done(kv, &block, &(uint32_t){KV_TOKENS}, 1, &fence, NULL),
              KVB_EINVAL);
    assert_int_equal(kv_describe(rig, block).step_count, 1);
    kv_done(rig, block, KV_TOKENS);
    kv_expect(kvb_block_register(kv, &block, 1, NULL, &fence, NULL), KVB_EINVAL);
    assert_int_equal(kv_describe(rig, block).state, KVB_STATE_COMPLETE);
    kv_register(rig, block);
    kv_expect(kvb_block_offload(kv, &block, 1, 1, &fence, NULL), KVB_EINVAL);
    kv_store_run(rig, KVB_TIER_HOST, 0, T + 4, 1, &source);
    struct kvb_onboard onboard = {.size = sizeof onboard,
                                  .sources = &source,
                                  .targets = &target,
                                  .count = 1,
                                  .fence = &fence};
    kv_expect(kvb_onboard(kv, &onboard, &op), KVB_EINVAL);
    assert_null(op);
    kv_unref(rig, block);
    kv_unref(rig, source);
    kv_unref(rig, target);
}

static void test_offload_of_what_cannot_be_offloaded_is_refused(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *empty = kv_alloc(rig, KVB_TIER_DEVICE), *top = NULL, *bottom = NULL;
    kv_store_run(rig, KVB_TIER_DEVICE, 0, T, 1, &top);
    kv_store_run(rig, KVB_TIER_HOST, 0, T + 4, 1, &bottom);
    kv_expect(kvb_block_offload(rig->kv, &empty, 1, 1, NULL, NULL), KVB_ESTATE);
    kv_expect(kvb_block_offload(rig->kv, &bottom, 1, 1, NULL, NULL), KVB_ENOENT);
    kv_expect(kvb_block_offload(rig->kv, &top, 1, 101, NULL, NULL), KVB_EINVAL);
    kv_expect(kvb_block_offload_cancel(rig->kv, &top, 1, NULL), KVB_ENOENT);
    kv_unref(rig, empty);
    kv_unref(rig, top);
    kv_unref(rig, bottom);
}

static void test_onboard_of_what_cannot_be_onboarded_is_refused(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *source = NULL, *device = NULL, *empty = kv_alloc(rig, KVB_TIER_DEVICE);
    struct kvb_block *host = kv_alloc(rig, KVB_TIER_HOST);
    kv_store_run(rig, KVB_TIER_HOST, 0, T, 1, &source);
    kv_store_run(rig, KVB_TIER_DEVICE, 0, T + 4, 1, &device);
    struct kvb_block *sources[] = {source, source}, *same[] = {empty, empty},
                     *mixed[] = {empty, host};
    const struct kvb_onboard good = {
        .size = sizeof good, .sources = sources, .targets = &empty, .count = 1};
    struct kvb_onboard bad[10];
    for (int i = 0; i < 10; i++)
        bad[i] = good;
    const int codes[10] = {KVB_EINVAL, KVB_EINVAL, KVB_EINVAL, KVB_EINVAL, KVB_EINVAL,
                           KVB_EINVAL, KVB_EINVAL, KVB_EINVAL, KVB_ESTATE, KVB_ESTATE};
    bad[0].count = 0;
    bad[1].sources = NULL;
    bad[2].targets = NULL;
    bad[3].flags = 1u << 31;
    bad[4].flags = KVB_ONBOARD_PRIORITY;
    bad[4].priority = 101;
    bad[5].targets = same;
    bad[5].count = 2;
    bad[6].targets = mixed;
    bad[6].count = 2;
    bad[7].sources = &device;
    bad[8].targets = &device;
    bad[9].sources = &host;
    for (int i = 0; i < 10; i++) {
        struct kvb_op *op = (struct kvb_op *)(uintptr_t)1;
        int code = kvb_onboard(rig->kv, &bad[i], &op);
        if (code != codes[i] || op != NULL)
            fail_msg("request %d: %s, expected %s", i, kvb_error_name(code),
                     kvb_error_name(codes[i]));
    }
    struct kvb_op *op = NULL;
    kv_expect(kvb_onboard(rig->kv, NULL, &op), KVB_EINVAL);
    kv_expect(kvb_onboard(rig->kv, &good, NULL), KVB_EINVAL);
    assert_int_equal(kv_describe(rig, empty).holder_count, 1);
    assert_int_equal(kv_describe(rig, empty).state, KVB_STATE_EMPTY);
    kv_unref(rig, source);
    kv_unref(rig, device);
    kv_unref(rig, empty);
    kv_unref(rig, host);
}

static void test_op_null_is_legal_to_release_only(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block = NULL;
    uint32_t good = 0;
    kv_ok(kvb_op_release(rig->kv, NULL));
    kv_expect(kvb_op_take(rig->kv, NULL, &block, 1, &good), KVB_EINVAL);
    kv_expect(kvb_op_wait(rig->kv, NULL, 0), KVB_EINVAL);
    kv_expect(kvb_op_cancel(rig->kv, NULL), KVB_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kv_opened_two_tiers, test_struct_without_size_is_invalid),
        TEST(kv_opened_two_tiers, test_init_with_unknown_tail_in_use_is_invalid),
        TEST(kv_opened_two_tiers, test_append_with_unknown_tail_in_use_is_invalid),
        TEST(kv_opened_two_tiers, test_register_with_unknown_tail_in_use_is_invalid),
        TEST(kv_opened_two_tiers, test_query_with_unknown_tail_in_use_is_invalid),
        TEST(kv_opened_two_tiers, test_onboard_with_unknown_tail_in_use_is_invalid),
        TEST(kv_opened_two_tiers, test_structs_with_unknown_zero_tail_are_accepted),
        TEST(kv_opened_two_tiers, test_structs_in_an_array_are_read_at_their_distance),
        TEST(kv_opened_two_tiers, test_unknown_fence_kind_is_invalid),
        TEST(kv_opened_two_tiers, test_offload_of_what_cannot_be_offloaded_is_refused),
        TEST(kv_opened_two_tiers, test_onboard_of_what_cannot_be_onboarded_is_refused),
        TEST(kv_opened_two_tiers, test_op_null_is_legal_to_release_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
