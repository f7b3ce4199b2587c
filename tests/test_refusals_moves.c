/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding, pins, moving: each documented error leaves one line that names its cause.
 */
#include "support/kv_scene.h"
#include "support/move_test.h"
#include "support/refusal.h"

static struct mv_run run; /* four contents on DEVICE, held */
static const uint32_t tokens[] = {1, 2, 3, 4, 5, 6, 7, 8};

static int held_run_setup(void **state)
{
    struct kv_rig *rig = kv_scene_begin(state, sizeof *rig);
    mv_three_tiers(rig, KV_BLOCKS, KV_BLOCKS, KV_BLOCKS);
    kv_rig_open(rig);
    mv_store(rig, &run, KVB_TIER_DEVICE, 1, 4);
    return 0;
}

static int held_run_teardown(void **state)
{
    struct kv_rig *rig = *state;
    bool good = kvb_block_unref(rig->kv, run.blocks, run.count, NULL) == 0;
    return kv_scene_end(state) == 0 && good ? 0 : -1;
}

/* ---- Names and finding ----------------------------------------------------------------------- */

static void test_namespace_open_names_the_string(void **state)
{
    struct kv_rig *rig = *state;
    uint32_t id;
    static char bytes[4097];
    refuses(rig, kvb_namespace_open(rig->kv, bytes, 4097, NULL, 0, &id), KVB_EINVAL,
            "salt_bytes is 4097, must be 0..4096");
    refuses(rig, kvb_namespace_open(rig->kv, NULL, 0, NULL, 3, &id), KVB_EINVAL,
            "adapter is NULL, adapter_bytes is 3");
    refuses(rig, kvb_namespace_open(rig->kv, NULL, 0, NULL, 0, NULL), KVB_EINVAL,
            "namespace_id is NULL");
    rig->heap.fail_at = rig->heap.calls + 1;
    refuses(rig, kvb_namespace_open(rig->kv, bytes, 7, NULL, 0, &id), KVB_ENOMEM,
            "the allocator gave no memory for 7 bytes of salt and adapter");
    for (size_t i = 1; i < 16; i++)
        kv_ok(kvb_namespace_open(rig->kv, bytes, i, NULL, 0, &id));
    answers(rig, kvb_namespace_open(rig->kv, bytes, 16, NULL, 0, &id), KVB_ENOSPC,
            "all 16 namespaces are open (namespace_capacity)");
}

static void test_hash_tokens_names_the_argument(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_seq seqs[2];
    size_t count;
    refuses(rig, kvb_hash_tokens(rig->kv, 0, NULL, tokens, 8, seqs, 2, NULL), KVB_EINVAL,
            "count is NULL");
    refuses(rig, kvb_hash_tokens(rig->kv, 0, NULL, NULL, 8, seqs, 2, &count), KVB_EINVAL,
            "tokens is NULL, token_count is 8");
    refuses(rig, kvb_hash_tokens(rig->kv, 3, NULL, tokens, 8, seqs, 2, &count), KVB_ENOENT,
            "namespace_id is 3, must be 0..0");
    refuses(rig, kvb_hash_tokens(rig->kv, 0, NULL, tokens, 8, NULL, 2, &count), KVB_EINVAL,
            "seqs is NULL");
    answers(rig, kvb_hash_tokens(rig->kv, 0, NULL, tokens, 8, seqs, 1, &count), KVB_ENOSPC,
            "capacity is 1, must be at least 2 for 8 tokens");
}

static void test_match_and_lookup_name_the_field(void **state)
{
    struct kv_rig *rig = *state;
    const struct kvb_query good = kv_query(0, tokens, 8);
    const struct {
        size_t offset, width;
        uint64_t value;
        int code;
        const char *words;
    } bad[] = {
        {offsetof(struct kvb_query, size), 4, 0, KVB_EINVAL,
         "query.size is 0, must be set to sizeof(struct kvb_query) (48)"},
        {offsetof(struct kvb_query, flags), 4, 2, KVB_EINVAL, "query.flags is 0x2, must be 0"},
        {offsetof(struct kvb_query, reserved), 4, 2, KVB_EINVAL, "query.reserved is 2, must be 0"},
        {offsetof(struct kvb_query, tokens), 8, 0, KVB_EINVAL,
         "query.tokens is NULL, query.token_count is 8"},
        {offsetof(struct kvb_query, key_count), 8, 5, KVB_EINVAL,
         "query.keys is NULL, query.key_count is 5"},
        {offsetof(struct kvb_query, namespace_id), 4, 9, KVB_ENOENT,
         "query.namespace_id is 9, must be 0..0"},
    };
    struct kvb_hit hits[2];
    uint64_t tiers[KVB_TIER_COUNT];
    size_t count;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct kvb_query query = good;
        memcpy((unsigned char *)&query + bad[i].offset, &bad[i].value, bad[i].width);
        refuses(rig, kvb_match(rig->kv, &query, hits, 2, &count), bad[i].code, bad[i].words);
        refuses(rig, kvb_lookup(rig->kv, &query, tiers), bad[i].code, bad[i].words);
    }
    struct kvb_query neither = {.size = sizeof neither};
    refuses(rig, kvb_match(rig->kv, &neither, hits, 2, &count), KVB_EINVAL,
            "query.tokens and query.keys are NULL, must be one of them at least");
    refuses(rig, kvb_match(rig->kv, NULL, hits, 2, &count), KVB_EINVAL, "query is NULL");
    refuses(rig, kvb_match(rig->kv, &good, NULL, 2, &count), KVB_EINVAL,
            "hits is NULL, capacity is 2");
    refuses(rig, kvb_match(rig->kv, &good, hits, 2, NULL), KVB_EINVAL, "count is NULL");
    refuses(rig, kvb_lookup(rig->kv, &good, NULL), KVB_EINVAL, "tier_counts is NULL");
}

static void test_invalidate_names_key_and_namespace(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_seq keys[2] = {run.seqs[0], {.hash = 77}};
    answers(rig, kvb_invalidate(rig->kv, keys, 2, NULL), KVB_ENOENT,
            "keys[1] is not in the index (1 of 2 elements refused)");
    refuses(rig, kvb_invalidate(rig->kv, NULL, 2, NULL), KVB_EINVAL, "keys is NULL, count is 2");
    refuses(rig, kvb_invalidate_namespace(rig->kv, 5, NULL), KVB_ENOENT,
            "namespace_id is 5, must be 0..0");
}

static int walk_deeper(void *kv, const struct kvb_event *event)
{
    (void)event;
    return kvb_index_walk(kv, walk_deeper, kv) != 0;
}

static void test_walks_that_are_used_up_are_an_answer(void **state)
{
    struct kv_rig *rig = *state;
    size_t before = rig->log.count;
    assert_int_equal(kvb_index_walk(rig->kv, walk_deeper, rig->kv), 1);
    assert_int_equal(rig->log.count, before + 1);
    assert_string_equal(kv_log_last(&rig->log)->text,
                        "kvb_index_walk: 16 walks are under way, as many as there can be");
    refuses(rig, kvb_index_walk(rig->kv, NULL, NULL), KVB_EINVAL, "visit is NULL");
}

/* ---- Pins ------------------------------------------------------------------------------------ */

static void test_pins_name_owner_and_block(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *none[2] = {run.blocks[0], NULL}, *many[17];
    for (int i = 0; i < 17; i++)
        many[i] = run.blocks[1];
    refuses(rig, kvb_pin(rig->kv, 0, run.blocks, 1, 0, NULL), KVB_EINVAL,
            "owner is 0, must be any other number");
    refuses(rig, kvb_unpin(rig->kv, 0, run.blocks, 1, NULL), KVB_EINVAL, "owner is 0");
    refuses(rig, kvb_unpin_all(rig->kv, 0, NULL), KVB_EINVAL, "owner is 0");
    refuses(rig, kvb_pin(rig->kv, 1, none, 2, 0, NULL), KVB_EINVAL,
            "blocks[1] is NULL, must be a block that is held (1 of 2 elements refused)");
    kv_ok(kvb_unpin_all(rig->kv, 1, NULL));
    refuses(rig, kvb_unpin(rig->kv, 7, run.blocks, 1, NULL), KVB_ENOENT,
            "blocks[0] (DEVICE/0) has no pin of owner 7");
    refuses(rig, kvb_unpin(rig->kv, 7, none + 1, 1, NULL), KVB_EINVAL, "blocks[0] is NULL");
    answers(rig, kvb_pin(rig->kv, 1, many, 17, 0, NULL), KVB_ENOSPC,
            "blocks[16] (DEVICE/1) cannot be pinned: all 16 pins are in use (pin_capacity) (1 of "
            "17 elements refused)");
    kv_ok(kvb_unpin_all(rig->kv, 1, NULL));
}

/* ---- Down ------------------------------------------------------------------------------------ */

static void test_offload_names_block_and_reason(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *low = kv_alloc(rig, KVB_TIER_DISK), *none = NULL;
    struct kvb_fence late = {.kind = KVB_FENCE_COUNTER, .handle = 1};
    kv_complete(rig, low, 0, 0, NULL, tokens);
    refuses(rig, kvb_block_offload(rig->kv, run.blocks, 1, 101, NULL, NULL), KVB_EINVAL,
            "priority is 101, must be 0..100");
    refuses(rig, kvb_block_offload(rig->kv, &low, 1, 0, NULL, NULL), KVB_ESTATE,
            "blocks[0] (DISK/0) is Complete, must be Registered");
    kv_register(rig, low);
    refuses(rig, kvb_block_offload(rig->kv, &low, 1, 0, NULL, NULL), KVB_ENOENT,
            "blocks[0] (DISK/0) is in the lowest tier, there is none below DISK");
    refuses(rig, kvb_block_offload(rig->kv, &none, 1, 0, NULL, NULL), KVB_EINVAL,
            "blocks[0] is NULL");
    answers(rig, kvb_block_offload_cancel(rig->kv, run.blocks, 2, NULL), KVB_ENOENT,
            "blocks[0] (DEVICE/0) is not offered (2 of 2 elements refused)");
    refuses(rig, kvb_block_offload_cancel(rig->kv, &none, 1, NULL), KVB_EINVAL,
            "blocks[0] is NULL");
    kv_ok(kvb_block_offload(rig->kv, run.blocks, 1, 0, &late, NULL));
    answers(rig, kvb_block_offload(rig->kv, run.blocks, 1, 0, NULL, NULL), KVB_EBUSY,
            "blocks[0] (DEVICE/0) is offered already, and that offer is not done");
    kv_poll(rig);
    answers(rig, kvb_block_offload_cancel(rig->kv, run.blocks, 1, NULL), KVB_EBUSY,
            "blocks[0] (DEVICE/0) is on deck or in transfer");
    kv_ok(kvb_fence_signal(rig->kv, 0, 1));
    kv_poll(rig);
    kv_ok(kvb_invalidate(rig->kv, &run.seqs[1], 1, NULL));
    refuses(rig, kvb_block_offload(rig->kv, run.blocks + 1, 1, 0, NULL, NULL), KVB_ESTATE,
            "blocks[0] (DEVICE/1) is not indexed: a duplicate, or its content was invalidated");
    kv_unref(rig, low);
}

/* ---- Up -------------------------------------------------------------------------------------- */

/* `low`: the contents in HOST, held; targets on DEVICE. */
struct up {
    struct kvb_block *low[2], *targets[2];
    struct kvb_onboard request;
};

static void up_begin(struct kv_rig *rig, struct up *up)
{
    for (int i = 0; i < 2; i++) {
        up->low[i] = kv_alloc(rig, KVB_TIER_HOST);
        kv_complete(rig, up->low[i], 0, 0, NULL, tokens + 4 * i);
        kv_register(rig, up->low[i]);
        up->targets[i] = kv_alloc(rig, KVB_TIER_DEVICE);
    }
    up->request = (struct kvb_onboard){
        .size = sizeof up->request, .sources = up->low, .targets = up->targets, .count = 2};
}

static void up_end(struct kv_rig *rig, struct up *up)
{
    kv_ok(kvb_block_unref(rig->kv, up->low, 2, NULL));
    kv_ok(kvb_block_unref(rig->kv, up->targets, 2, NULL));
}

static void test_onboard_names_the_field(void **state)
{
    struct kv_rig *rig = *state;
    struct up up;
    struct kvb_op *op;
    struct kvb_onboard bad;
    struct kvb_fence fence = {.kind = 9};
    up_begin(rig, &up);
#define REFUSES(field, value, code, words)                                                         \
    do {                                                                                           \
        bad = up.request;                                                                          \
        bad.field = (value);                                                                       \
        refuses(rig, kvb_onboard(rig->kv, &bad, &op), code, words);                                \
    } while (0)
    REFUSES(size, 0, KVB_EINVAL, "request.size is 0, must be set to sizeof(struct kvb_onboard)");
    REFUSES(count, 0, KVB_EINVAL, "request.count is 0, must be 1..4294967294");
    REFUSES(sources, NULL, KVB_EINVAL, "request.sources is NULL, count is 2");
    REFUSES(targets, NULL, KVB_EINVAL, "request.targets is NULL, count is 2");
    REFUSES(flags, 8, KVB_EINVAL, "request.flags is 0x8, must be of KVB_ONBOARD_PRIORITY (1)");
    REFUSES(fence, &fence, KVB_EINVAL, "fence of kind 9");
    bad = up.request;
    bad.flags = KVB_ONBOARD_PRIORITY;
    bad.priority = 101;
    refuses(rig, kvb_onboard(rig->kv, &bad, &op), KVB_EINVAL,
            "request.priority is 101, must be 0..100");
    refuses(rig, kvb_onboard(rig->kv, &up.request, NULL), KVB_EINVAL, "op is NULL");
    refuses(rig, kvb_onboard(rig->kv, NULL, &op), KVB_EINVAL, "request is NULL");
    if (strstr(kv_stats(rig).engine, "cuda") == NULL)
        REFUSES(flags, KVB_ONBOARD_LAYERS, KVB_EUNSUPPORTED,
                "KVB_ONBOARD_LAYERS, which is for targets in CUDA memory; targets[0] is in tier D");
#undef REFUSES
    up_end(rig, &up);
}

static void test_onboard_names_the_pair(void **state)
{
    struct kv_rig *rig = *state;
    struct up up;
    struct kvb_op *op;
    struct kvb_block *pair[2];
    up_begin(rig, &up);
    struct kvb_onboard bad = up.request;
    bad.sources = pair;
    memcpy(pair, up.low, sizeof pair);
    pair[1] = run.blocks[1];
    refuses(rig, kvb_onboard(rig->kv, &bad, &op), KVB_EINVAL,
            "sources[1] (DEVICE/1) is in tier DEVICE, the target's tier; a source must lie below");
    pair[1] = NULL;
    refuses(rig, kvb_onboard(rig->kv, &bad, &op), KVB_EINVAL, "sources[1] is NULL");
    pair[1] = kv_alloc(rig, KVB_TIER_HOST);
    refuses(rig, kvb_onboard(rig->kv, &bad, &op), KVB_ESTATE,
            "sources[1] (HOST/2) is Empty, must be Registered");
    bad.sources = up.low;
    bad.targets = pair;
    struct kvb_block *host = pair[1];
    pair[0] = up.targets[0];
    refuses(rig, kvb_onboard(rig->kv, &bad, &op), KVB_EINVAL,
            "targets[1] (HOST/2) is in tier HOST, must be in DEVICE as targets[0] is");
    pair[1] = up.targets[0];
    refuses(rig, kvb_onboard(rig->kv, &bad, &op), KVB_EINVAL,
            "targets[1] (DEVICE/4) is given twice, as targets[0] already");
    pair[1] = NULL;
    refuses(rig, kvb_onboard(rig->kv, &bad, &op), KVB_EINVAL, "targets[1] is NULL");
    pair[1] = run.blocks[1];
    refuses(rig, kvb_onboard(rig->kv, &bad, &op), KVB_ESTATE,
            "targets[1] (DEVICE/1) is Registered, must be Empty");
    pair[1] = up.targets[1];
    kv_ok(kvb_block_ref(rig->kv, &pair[1], 1, NULL));
    refuses(rig, kvb_onboard(rig->kv, &bad, &op), KVB_ESHARED,
            "targets[1] (DEVICE/5) has other holders");
    kv_unref(rig, pair[1]);
    bad.sources = run.blocks;
    pair[0] = pair[1] = host;
    refuses(rig, kvb_onboard(rig->kv, &bad, &op), KVB_EINVAL,
            "sources[0] (DEVICE/0) is in tier DEVICE, above the target; a source must lie below");
    pair[0] = kv_alloc(rig, KVB_TIER_DISK);
    refuses(rig, kvb_onboard(rig->kv, &bad, &op), KVB_EINVAL,
            "targets[0] is in tier DISK, the lowest, must be in one with a tier below it");
    kv_unref(rig, pair[0]);
    kv_unref(rig, host);
    up_end(rig, &up);
}

static void test_operations_name_what_is_wrong_with_them(void **state)
{
    struct kv_rig *rig = *state;
    struct up up;
    struct kvb_op *op, *second, *foreign = (struct kvb_op *)(void *)&up;
    struct kvb_fence fence = {.kind = KVB_FENCE_COUNTER, .handle = 1};
    struct kvb_block *again[2];
    uint32_t good;
    up_begin(rig, &up);
    up.request.fence = &fence;
    memcpy(again, up.targets, sizeof again);
    kv_ok(kvb_onboard(rig->kv, &up.request, &op));
    struct kvb_onboard other = up.request;
    other.targets = again;
    refuses(rig, kvb_onboard(rig->kv, &other, &second), KVB_ESTATE, "must be Empty");
    answers(rig, kvb_op_take(rig->kv, op, up.targets, 2, &good), KVB_EAGAIN,
            "the operation is not finished");
    answers(rig, kvb_op_wait(rig->kv, op, 0), KVB_ETIMEDOUT,
            "the operation was not finished within 0 ns");
    refuses(rig, kvb_op_take(rig->kv, op, up.targets, 1, &good), KVB_EINVAL,
            "count is 1, must be the operation's 2");
    refuses(rig, kvb_op_take(rig->kv, op, NULL, 2, &good), KVB_EINVAL, "blocks is NULL");
    refuses(rig, kvb_op_take(rig->kv, op, up.targets, 2, NULL), KVB_EINVAL, "good_count is NULL");
    refuses(rig, kvb_op_take(rig->kv, NULL, up.targets, 2, &good), KVB_EINVAL, "op is NULL");
    refuses(rig, kvb_op_wait(rig->kv, foreign, 0), KVB_EINVAL, "which is no operation of this");
    refuses(rig, kvb_op_cancel(rig->kv, foreign), KVB_EINVAL, "which is no operation of this");
    refuses(rig, kvb_op_release(rig->kv, foreign), KVB_EINVAL, "which is no operation of this");
    refuses(rig, kvb_op_wait_stream(rig->kv, op, &up, 9), KVB_EINVAL,
            "layer is 9, must be 0..1 or KVB_ALL_LAYERS");
    refuses(rig, kvb_op_wait_stream(rig->kv, foreign, &up, 0), KVB_EINVAL,
            "which is no operation of this manager");
    if (strstr(kv_stats(rig).engine, "cuda") == NULL)
        refuses(rig, kvb_op_wait_stream(rig->kv, op, &up, 0), KVB_EUNSUPPORTED,
                "the operation's targets are in tier DEVICE, which is not in CUDA memory");
    kv_ok(kvb_fence_signal(rig->kv, 0, 1));
    kv_flush(rig);
    kv_ok(kvb_op_take(rig->kv, op, up.targets, 2, &good));
    refuses(rig, kvb_op_take(rig->kv, op, again, 2, &good), KVB_ESTATE,
            "the operation's blocks were taken already");
    kv_ok(kvb_op_release(rig->kv, op));
    up_end(rig, &up);
}

static void test_operations_that_are_used_up_are_an_answer(void **state)
{
    struct kv_rig *rig = *state;
    struct up up;
    struct kvb_op *ops[8], *ninth;
    up_begin(rig, &up);
    up.request.count = 1;
    for (int i = 0; i < 8; i++) {
        struct kvb_block *target = i == 0 ? up.targets[0] : up.targets[1];
        up.request.targets = &target;
        kv_ok(kvb_onboard(rig->kv, &up.request, &ops[i]));
        kv_flush(rig);
        uint32_t good;
        kv_ok(kvb_op_take(rig->kv, ops[i], i == 0 ? &up.targets[0] : &up.targets[1], 1, &good));
        if (i > 0) {
            kv_unref(rig, up.targets[1]);
            up.targets[1] = kv_alloc(rig, KVB_TIER_DEVICE);
        }
    }
    up.request.targets = &up.targets[1];
    answers(rig, kvb_onboard(rig->kv, &up.request, &ninth), KVB_EAGAIN,
            "8 operations are not released, as many as there can be (op_capacity)");
    for (int i = 0; i < 8; i++)
        kv_ok(kvb_op_release(rig->kv, ops[i]));
    up_end(rig, &up);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(held_run, test_namespace_open_names_the_string),
        TEST(held_run, test_hash_tokens_names_the_argument),
        TEST(held_run, test_match_and_lookup_name_the_field),
        TEST(held_run, test_invalidate_names_key_and_namespace),
        TEST(held_run, test_walks_that_are_used_up_are_an_answer),
        TEST(held_run, test_pins_name_owner_and_block),
        TEST(held_run, test_offload_names_block_and_reason),
        TEST(held_run, test_onboard_names_the_field),
        TEST(held_run, test_onboard_names_the_pair),
        TEST(held_run, test_operations_name_what_is_wrong_with_them),
        TEST(held_run, test_operations_that_are_used_up_are_an_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
