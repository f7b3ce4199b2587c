/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The calls on blocks: each documented error leaves one line that names its cause. Counts and
 * states as the header has them.
 */
#include "support/kv_scene.h"
#include "support/refusal.h"

static struct kvb_block *blocks[KV_BLOCKS];
static const uint32_t tokens[] = {1, 2, 3, 4, 5, 6, 7, 8};
static int foreign; /* an address that is no block's */

static struct kvb_block *none(void)
{
    return (struct kvb_block *)(void *)&foreign;
}

/* Two tiers; blocks[0..3] Empty, Partial, Ready, Complete; blocks[4] Registered; all held once. */
static int five_blocks_setup(void **state)
{
    (void)kv_opened_two_tiers_setup(state);
    struct kv_rig *rig = *state;
    kv_ok(kvb_alloc(rig->kv, KVB_TIER_DEVICE, 5, NULL, blocks, NULL));
    kv_init(rig, blocks[1], 0, 0, NULL);
    kv_append(rig, blocks[1], tokens, 2, KVB_MORE);
    kv_init(rig, blocks[2], 0, 0, NULL);
    kv_append(rig, blocks[2], tokens, 2, 0);
    kv_complete(rig, blocks[3], 0, 0, NULL, tokens);
    kv_complete(rig, blocks[4], 0, 0, NULL, tokens + 4);
    kv_register(rig, blocks[4]);
    return 0;
}

static int five_blocks_teardown(void **state)
{
    struct kv_rig *rig = *state;
    bool good = true;
    for (int i = 0; i < 5; i++)
        good = (blocks[i] == NULL || kvb_block_unref(rig->kv, &blocks[i], 1, NULL) == 0) && good;
    return kv_scene_end(state) == 0 && good ? 0 : -1;
}

/* ---- Room and handles ------------------------------------------------------------------------ */

static void test_alloc_names_tier_fence_and_shortage(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *more[KV_BLOCKS + 1];
    struct kvb_fence fence = {.kind = 9};
    uint32_t missing;
    refuses(rig, kvb_alloc(rig->kv, 4, 1, NULL, more, NULL), KVB_EINVAL, "tier is 4, must be 0..3");
    refuses(rig, kvb_alloc(rig->kv, KVB_TIER_DISK, 1, NULL, more, NULL), KVB_ENOENT,
            "tier is 2 (DISK), which is not configured");
    refuses(rig, kvb_alloc(rig->kv, 0, 1, NULL, NULL, NULL), KVB_EINVAL,
            "blocks is NULL, count is 1");
    refuses(rig, kvb_alloc(rig->kv, 0, 1, &fence, more, NULL), KVB_EINVAL,
            "fence of kind 9 (unknown), handle 0x0: must be one of 0..");
    fence = (struct kvb_fence){.kind = KVB_FENCE_COUNTER, .line = 64};
    refuses(rig, kvb_alloc(rig->kv, 0, 1, &fence, more, NULL), KVB_EINVAL,
            "fence of kind 1 (KVB_FENCE_COUNTER), handle 0x0: line is 64, must be 0..63");
    fence = (struct kvb_fence){.kind = KVB_FENCE_COUNTER, .handle = UINT64_C(1) << 56};
    refuses(rig, kvb_alloc(rig->kv, 0, 1, &fence, more, NULL), KVB_EINVAL,
            "handle 0x100000000000000: a counter's value must be below 2^56");
    fence = (struct kvb_fence){.kind = KVB_FENCE_NONE, .line = 7};
    refuses(rig, kvb_alloc(rig->kv, 0, 1, &fence, more, NULL), KVB_EINVAL,
            "handle 0x0: line is 7, must be 0: only counters have lines");
    answers(rig, kvb_alloc(rig->kv, 0, 6, NULL, more, &missing), KVB_ENOSPC,
            "3 of 6 blocks of tier DEVICE (8 in all) are missing, and held by the caller");
    assert_int_equal(missing, 3);
    answers(rig, kvb_alloc(rig->kv, 0, KV_BLOCKS + 1, NULL, more, NULL), KVB_ENOSPC,
            "6 of 9 blocks of tier DEVICE (8 in all) are missing, and the tier has fewer in all");
}

static void test_alloc_says_that_transfers_hold_what_is_missing(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *more[KV_BLOCKS];
    struct kvb_fence fence = {.kind = KVB_FENCE_COUNTER, .handle = 1};
    kv_ok(kvb_block_offload(rig->kv, &blocks[4], 1, 0, &fence, NULL));
    kv_poll(rig);
    kv_unref(rig, blocks[4]);
    blocks[4] = NULL;
    answers(rig, kvb_alloc(rig->kv, 0, 4, NULL, more, NULL), KVB_EAGAIN,
            "1 of 4 blocks of tier DEVICE (8 in all) are missing, which transfers will give back");
    kv_ok(kvb_fence_signal(rig->kv, 0, 1));
    kv_poll(rig);
}

static void test_fence_of_a_gpu_without_one_is_named(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block;
    struct kvb_fence fence = {.kind = KVB_FENCE_CUDA_STREAM, .handle = 0x10};
    if (strstr(kv_stats(rig).engine, "cuda") != NULL)
        return;
    refuses(rig, kvb_alloc(rig->kv, 1, 1, &fence, &block, NULL), KVB_EINVAL,
            "fence of kind 2 (KVB_FENCE_CUDA_STREAM), handle 0x10: needs a tier in CUDA memory");
}

static void test_blocks_that_are_none_are_named_by_index(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *some[3] = {blocks[0], NULL, none()}, *gone = kv_alloc(rig, KVB_TIER_HOST);
    struct kvb_weak weak;
    int results[3];
    kv_unref(rig, gone);
    refuses(rig, kvb_block_ref(rig->kv, some, 3, results), KVB_EINVAL,
            "blocks[1] is NULL, must be a block that is held (2 of 3 elements refused)");
    kv_unref(rig, blocks[0]);
    assert_int_equal(results[0], 0);
    refuses(rig, kvb_block_ref(rig->kv, some + 2, 1, NULL), KVB_EINVAL,
            "which is no block of this manager");
    refuses(rig, kvb_block_ref(rig->kv, &gone, 1, NULL), KVB_EINVAL,
            "blocks[0] (HOST/0) is held by nobody, must be a block that is");
    refuses(rig, kvb_block_unref(rig->kv, &gone, 1, NULL), KVB_EINVAL,
            "blocks[0] (HOST/0) is held by nobody");
    refuses(rig, kvb_block_unref(rig->kv, some + 1, 2, NULL), KVB_EINVAL,
            "blocks[0] is NULL, must be a block that is held (2 of 2 elements refused)");
    refuses(rig, kvb_block_weak(rig->kv, gone, &weak), KVB_EINVAL,
            "block (HOST/0) is held by nobody");
    refuses(rig, kvb_block_weak(rig->kv, blocks[0], NULL), KVB_EINVAL, "weak is NULL");
    refuses(rig, kvb_block_set_priority(rig->kv, &gone, 1, 1, 0, NULL), KVB_EINVAL,
            "blocks[0] (HOST/0) is held by nobody");
    refuses(rig, kvb_block_set_priority(rig->kv, blocks, 1, 101, 0, NULL), KVB_EINVAL,
            "priority is 101, must be 0..100");
}

static void test_unref_of_what_only_steps_hold_says_so(void **state)
{
    struct kv_rig *rig = *state;
    kv_schedule(rig, blocks[2]);
    kv_unref(rig, blocks[2]);
    refuses(rig, kvb_block_unref(rig->kv, &blocks[2], 1, NULL), KVB_EINVAL,
            "blocks[0] (DEVICE/2): the 1 handles left are of its steps: compute_done gives them");
    kv_ok(kvb_block_compute_failed(rig->kv, &blocks[2], 1, NULL));
    blocks[2] = NULL;
}

static void test_handles_that_are_used_up_are_an_answer(void **state)
{
    struct kv_rig *rig = *state;
    enum { ALL = (1 << 20) - 2 };
    struct kvb_block **many = malloc(ALL * sizeof *many), *again;
    struct kvb_weak weak;
    struct kvb_query query = kv_query(0, tokens + 4, KV_TOKENS);
    struct kvb_hit hit;
    size_t count;
    assert_non_null(many);
    for (uint32_t i = 0; i < ALL; i++)
        many[i] = blocks[4];
    kv_ok(kvb_block_weak(rig->kv, blocks[4], &weak));
    kv_ok(kvb_block_ref(rig->kv, many, ALL, NULL));
    answers(rig, kvb_block_ref(rig->kv, &blocks[4], 1, NULL), KVB_EAGAIN,
            "blocks[0] (DEVICE/4) has all the 1048575 handles that it can have");
    answers(rig, kvb_weak_upgrade(rig->kv, &weak, 1, &again, NULL), KVB_EAGAIN,
            "weaks[0] (DEVICE/4) has all the 1048575 handles");
    answers(rig, kvb_pin(rig->kv, 1, &blocks[4], 1, 0, NULL), KVB_EAGAIN,
            "blocks[0] (DEVICE/4) has all the 1048575 handles");
    answers(rig, kvb_match(rig->kv, &query, &hit, 1, &count), KVB_EAGAIN,
            "block 0 of the run has all the 1048575 handles");
    kv_ok(kvb_block_unref(rig->kv, many, ALL, NULL));
    free(many);
}

static void test_weak_handles_are_named_with_what_they_say(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_weak weaks[3] = {
        {0}, {.tier = 5, .generation = 1}, {.tier = 1, .slot = 8, .generation = 1}};
    struct kvb_block *out[3];
    kv_ok(kvb_block_weak(rig->kv, blocks[0], &weaks[0]));
    kv_ok(kvb_block_reset(rig->kv, blocks, 1, NULL));
    answers(rig, kvb_weak_upgrade(rig->kv, weaks, 1, out, NULL), KVB_ESTALE,
            "weaks[0] (DEVICE/0, generation 1): that content is gone from there");
    refuses(rig, kvb_weak_upgrade(rig->kv, weaks + 1, 2, out, NULL), KVB_EINVAL,
            "weaks[0].tier is 5, must be 0..3 (2 of 2 elements refused)");
    refuses(rig, kvb_weak_upgrade(rig->kv, weaks + 2, 1, out, NULL), KVB_EINVAL,
            "weaks[0].slot is 8, but HOST has 8 blocks");
    refuses(rig, kvb_weak_upgrade(rig->kv, weaks, 2, NULL, NULL), KVB_EINVAL,
            "blocks is NULL, count is 2");
}

/* ---- A block's life -------------------------------------------------------------------------- */

static void test_init_names_field_and_element(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *two[2] = {kv_alloc(rig, KVB_TIER_HOST), kv_alloc(rig, KVB_TIER_HOST)};
    struct kvb_seq seq = {.hash = 5};
    struct kvb_block_init good = {.size = sizeof good}, inits[2] = {good, good};
    inits[0].size = 0;
    refuses(rig, kvb_block_init(rig->kv, two, inits, 2, NULL), KVB_EINVAL,
            "inits[0].size is 0, must be set to sizeof(struct kvb_block_init) (32)");
    inits[0].size = sizeof good + 1;
    refuses(rig, kvb_block_init(rig->kv, two, inits, 1, NULL), KVB_EINVAL,
            "inits[0].size is 33, must be a multiple of 8");
    inits[0] = good;
    inits[1].parent = &seq;
    refuses(rig, kvb_block_init(rig->kv, two, inits, 2, NULL), KVB_EINVAL,
            "blocks[1] (HOST/1): inits[1].position is 0 and parent is given, must be NULL there "
            "(1 of 2 elements refused)");
    inits[1] = (struct kvb_block_init){.size = sizeof good, .reserved = 3};
    refuses(rig, kvb_block_init(rig->kv, two + 1, inits + 1, 1, NULL), KVB_EINVAL,
            "inits[0].reserved is 3, must be 0");
    inits[1] =
        (struct kvb_block_init){.size = sizeof good, .position = 1, .parent = &seq, .key = &seq};
    refuses(rig, kvb_block_init(rig->kv, two + 1, inits + 1, 1, NULL), KVB_EINVAL,
            "inits[0].key is the parent's, must be its own");
    inits[1] = (struct kvb_block_init){.size = sizeof good, .namespace_id = 4};
    refuses(rig, kvb_block_init(rig->kv, two + 1, inits + 1, 1, NULL), KVB_ENOENT,
            "inits[0].namespace_id is 4, must be 0..0");
    refuses(rig, kvb_block_init(rig->kv, two, &good, 1, NULL), KVB_ESTATE,
            "blocks[0] (HOST/0): init is not allowed in Partial, only in Empty");
    refuses(rig, kvb_block_init(rig->kv, two, NULL, 1, NULL), KVB_EINVAL,
            "inits is NULL, count is 1");
    kv_ok(kvb_block_unref(rig->kv, two, 2, NULL));
}

static void test_init_names_the_byte_of_an_unknown_tail(void **state)
{
    struct kv_rig *rig = *state;
    struct {
        struct kvb_block_init known;
        uint64_t tail;
    } init = {{.size = sizeof init}, 1};
    refuses(rig, kvb_block_init(rig->kv, blocks, &init.known, 1, NULL), KVB_EINVAL,
            "blocks[0]: inits[0]: byte 32 is 1; this version knows 32 bytes");
}

static void test_append_names_field_and_element(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_append good = {.size = sizeof good, .tokens = tokens, .count = 1}, append = good;
    append.size = 8;
    refuses(rig, kvb_block_append(rig->kv, &blocks[1], &append, 1, NULL), KVB_EINVAL,
            "appends[0].size is 8, must be set to sizeof(struct kvb_append)");
    append = good;
    append.flags = 6;
    refuses(rig, kvb_block_append(rig->kv, &blocks[1], &append, 1, NULL), KVB_EINVAL,
            "appends[0].flags is 0x6, must be 0 or KVB_MORE (1)");
    append = good;
    append.tokens = NULL;
    refuses(rig, kvb_block_append(rig->kv, &blocks[1], &append, 1, NULL), KVB_EINVAL,
            "appends[0].tokens is NULL, count is 1");
    append = good;
    refuses(rig, kvb_block_append(rig->kv, &blocks[2], &append, 1, NULL), KVB_ESTATE,
            "append is not allowed in Ready, only in Partial or Inflight");
    kv_init(rig, blocks[0], 0, 0, NULL);
    append.count = 0;
    refuses(rig, kvb_block_append(rig->kv, blocks, &append, 1, NULL), KVB_EINVAL,
            "blocks[0] (DEVICE/0): appends[0].count is 0 without KVB_MORE, and no token");
    kv_append(rig, blocks[0], tokens, 4, 0);
    kv_schedule(rig, blocks[0]);
    append.count = 3;
    refuses(rig, kvb_block_append(rig->kv, blocks, &append, 1, NULL), KVB_ENOSPC,
            "appends[0].count is 3, and all 4 tokens of the block are named");
    kv_ok(kvb_block_compute_failed(rig->kv, blocks, 1, NULL));
    refuses(rig, kvb_block_append(rig->kv, blocks, NULL, 1, NULL), KVB_EINVAL,
            "appends is NULL, count is 1");
}

static void test_steps_are_named_with_state_and_range(void **state)
{
    struct kv_rig *rig = *state;
    uint32_t computed = 4;
    refuses(rig, kvb_block_schedule(rig->kv, blocks, 1, NULL), KVB_ESTATE,
            "blocks[0] (DEVICE/0): schedule is not allowed in Empty, only in Ready or Inflight");
    refuses(rig, kvb_block_cancel(rig->kv, blocks, 1, NULL), KVB_ESTATE,
            "cancel is not allowed in Empty, only in Ready");
    refuses(rig, kvb_block_compute_done(rig->kv, blocks, &computed, 1, NULL, NULL), KVB_ESTATE,
            "compute_done is not allowed in Empty, only in Inflight");
    refuses(rig, kvb_block_compute_failed(rig->kv, blocks, 1, NULL), KVB_ESTATE,
            "compute_failed is not allowed in Empty, only in Inflight");
    refuses(rig, kvb_block_compute_done(rig->kv, blocks, NULL, 1, NULL, NULL), KVB_EINVAL,
            "computed is NULL, count is 1");
    kv_schedule(rig, blocks[2]);
    refuses(rig, kvb_block_compute_done(rig->kv, &blocks[2], &computed, 1, NULL, NULL), KVB_EINVAL,
            "blocks[0] (DEVICE/2): computed[0] is 4, must be 0..2");
    refuses(rig, kvb_block_reset(rig->kv, blocks + 2, 3, NULL), KVB_ESTATE,
            "blocks[0] (DEVICE/2): reset is not allowed in Inflight, only in Empty, Partial, Ready "
            "or Complete (2 of 3 elements refused)");
    kv_ok(kvb_block_compute_failed(rig->kv, &blocks[2], 1, NULL));
}

static void test_outstanding_steps_that_are_used_up_are_an_answer(void **state)
{
    struct kv_rig *rig = *state;
    for (int i = 0; i < 4095; i++)
        kv_schedule(rig, blocks[2]);
    answers(rig, kvb_block_schedule(rig->kv, &blocks[2], 1, NULL), KVB_EAGAIN,
            "blocks[0] (DEVICE/2) has 4095 outstanding steps, which is as many as it can have");
    for (int i = 0; i < 4095; i++)
        kv_ok(kvb_block_compute_failed(rig->kv, &blocks[2], 1, NULL));
}

static void test_generations_that_are_used_up_are_an_answer(void **state)
{
    struct kv_rig *rig = *state;
    kvbi_testing_set_generation(rig->kv, blocks[0], (UINT64_C(1) << 44) - 1);
    answers(rig, kvb_block_reset(rig->kv, blocks, 1, NULL), KVB_EAGAIN,
            "blocks[0] (DEVICE/0) has no generation left");
}

static void test_truncate_names_the_range(void **state)
{
    struct kv_rig *rig = *state;
    uint32_t count = 3;
    refuses(rig, kvb_block_truncate(rig->kv, &blocks[1], &count, 1, NULL), KVB_EINVAL,
            "blocks[0] (DEVICE/1): token_counts[0] is 3, must be 0..2");
    refuses(rig, kvb_block_truncate(rig->kv, &blocks[4], &count, 1, NULL), KVB_ESTATE,
            "truncate is not allowed in Registered, only in Partial, Ready or Complete");
    refuses(rig, kvb_block_truncate(rig->kv, blocks, NULL, 1, NULL), KVB_EINVAL,
            "token_counts is NULL, count is 1");
}

/* Every call that takes a sole holder, on a block with two. */
static void test_shared_blocks_are_named_with_their_holders(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block_init init = {.size = sizeof init};
    struct kvb_append append = {.size = sizeof append};
    struct kvb_block *shared[5];
    uint32_t n = 0;
    const char *words = "has 2 holders (0 steps among them), ";
    memcpy(shared, blocks, sizeof shared);
    kv_ok(kvb_block_ref(rig->kv, shared, 5, NULL));
    refuses(rig, kvb_block_init(rig->kv, shared, &init, 1, NULL), KVB_ESHARED, words);
    refuses(rig, kvb_block_append(rig->kv, shared + 1, &append, 1, NULL), KVB_ESHARED, words);
    refuses(rig, kvb_block_schedule(rig->kv, shared + 2, 1, NULL), KVB_ESHARED, words);
    refuses(rig, kvb_block_cancel(rig->kv, shared + 2, 1, NULL), KVB_ESHARED, words);
    refuses(rig, kvb_block_truncate(rig->kv, shared + 2, &n, 1, NULL), KVB_ESHARED, words);
    refuses(rig, kvb_block_reset(rig->kv, shared, 1, NULL), KVB_ESHARED, words);
    refuses(rig, kvb_block_compute_done(rig->kv, shared, &n, 1, NULL, NULL), KVB_ESHARED, words);
    refuses(rig, kvb_block_compute_failed(rig->kv, shared, 1, NULL), KVB_ESHARED, words);
    refuses(rig, kvb_block_clone(rig->kv, shared[4], shared[0]), KVB_ESHARED,
            "target (DEVICE/0) has 2 holders");
    refuses(
        rig, kvb_block_register(rig->kv, shared + 3, 1, NULL, NULL, NULL), KVB_ESHARED,
        "blocks[0] (DEVICE/3) has 2 holders (0 steps among them), register takes a sole holder");
    kv_ok(kvb_block_unref(rig->kv, shared, 5, NULL));
}

static void test_clone_names_source_or_target(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *other = kv_alloc(rig, KVB_TIER_HOST);
    refuses(rig, kvb_block_clone(rig->kv, blocks[1], blocks[1]), KVB_EINVAL,
            "source (DEVICE/1) is the target as well, must be another block");
    refuses(rig, kvb_block_clone(rig->kv, none(), blocks[0]), KVB_EINVAL, "source is 0x");
    refuses(rig, kvb_block_clone(rig->kv, blocks[1], NULL), KVB_EINVAL, "target is NULL");
    refuses(rig, kvb_block_clone(rig->kv, other, blocks[0]), KVB_ESTATE,
            "source (HOST/0) is Empty, must have tokens named");
    refuses(rig, kvb_block_clone(rig->kv, blocks[1], blocks[2]), KVB_ESTATE,
            "target (DEVICE/2): init is not allowed in Ready, only in Empty");
    kv_unref(rig, other);
}

/* ---- register -------------------------------------------------------------------------------- */

static void test_register_names_options_and_state(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_register options = {.size = 4}, flags = {.size = sizeof flags, .flags = 3};
    struct kvb_fence fence = {.kind = 9};
    refuses(rig, kvb_block_register(rig->kv, blocks, 1, &options, NULL, NULL), KVB_EINVAL,
            "options.size is 4, must be set to sizeof(struct kvb_register) (16)");
    refuses(rig, kvb_block_register(rig->kv, blocks, 1, &flags, NULL, NULL), KVB_EINVAL,
            "options.flags is 0x3, must be 0, KVB_REGISTER_KEEP (1) or KVB_REGISTER_SHARE (2)");
    refuses(rig, kvb_block_register(rig->kv, blocks, 1, NULL, &fence, NULL), KVB_EINVAL,
            "fence of kind 9 (unknown)");
    refuses(rig, kvb_block_register(rig->kv, blocks, 3, NULL, NULL, NULL), KVB_ESTATE,
            "blocks[0] (DEVICE/0): register is not allowed in Empty, only in Complete (3 of 3");
    refuses(rig, kvb_block_register(rig->kv, NULL, 3, NULL, NULL, NULL), KVB_EINVAL,
            "blocks is NULL, count is 3");
}

static void test_register_names_the_missing_parent(void **state)
{
    struct kv_rig *rig = *state;
    kv_complete(rig, blocks[0], 0, 1, NULL, tokens);
    refuses(rig, kvb_block_register(rig->kv, blocks, 1, NULL, NULL, NULL), KVB_EINVAL,
            "blocks[0] (DEVICE/0): its parent is missing: init gave a position above 0 and parent "
            "NULL; only position 0 has none");
}

static void test_register_of_a_collision_is_an_answer(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_seq key = {0};
    kv_ok(kvb_block_key(rig->kv, blocks[4], &key));
    key.digest[0] ^= 1; /* the hash of blocks[4], and another content's digest */
    struct kvb_block_init init = {.size = sizeof init, .key = &key};
    struct kvb_append append = {.size = sizeof append, .tokens = tokens, .count = 4};
    uint32_t computed = 4;
    kv_ok(kvb_block_init(rig->kv, blocks, &init, 1, NULL));
    kv_ok(kvb_block_append(rig->kv, blocks, &append, 1, NULL));
    kv_schedule(rig, blocks[0]);
    kv_ok(kvb_block_compute_done(rig->kv, blocks, &computed, 1, NULL, NULL));
    answers(rig, kvb_block_register(rig->kv, blocks, 1, NULL, NULL, NULL), KVB_ECOLLISION,
            "blocks[0] (DEVICE/0): its hash, or its parent's, is indexed for other content");
}

static void test_register_with_the_callers_keys_names_the_key(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block *block;
    const char key[8] = "key", parent[8] = "parent";
    struct kvb_register options = {.size = sizeof options, .keys = parent};
    struct kvb_query query = kv_query(0, tokens, KV_TOKENS);
    struct kvb_seq seqs[1];
    struct kvb_hit hit;
    size_t count;
    rig->config.key_bytes = sizeof key;
    kv_rig_open(rig);
    block = kv_alloc(rig, KVB_TIER_DEVICE);
    kv_complete(rig, block, 0, 1, parent, tokens);
    refuses(rig, kvb_block_register(rig->kv, &block, 1, NULL, NULL, NULL), KVB_EINVAL,
            "blocks[0] (DEVICE/0): it has no key: with key_bytes 8 options.keys or init must give");
    refuses(rig, kvb_block_register(rig->kv, &block, 1, &options, NULL, NULL), KVB_EINVAL,
            "blocks[0] (DEVICE/0): its key in options.keys is its parent's");
    refuses(rig, kvb_hash_tokens(rig->kv, 0, NULL, tokens, 4, seqs, 1, &count), KVB_EUNSUPPORTED,
            "the manager has the caller's keys (key_bytes 8)");
    refuses(rig, kvb_match(rig->kv, &query, &hit, 1, &count), KVB_EUNSUPPORTED,
            "query.keys is NULL, must be given: the manager has the caller's keys (key_bytes 8)");
    kv_unref(rig, block);
}

/* ---- What a block is ------------------------------------------------------------------------- */

static void test_info_key_and_address_name_what_is_wrong(void **state)
{
    struct kv_rig *rig = *state;
    struct kvb_block_info info = {0};
    struct kvb_seq key;
    void *address;
    refuses(rig, kvb_block_describe(rig->kv, blocks[0], &info), KVB_EINVAL,
            "info->size is 0, must be set to sizeof(struct kvb_block_info) (40)");
    refuses(rig, kvb_block_describe(rig->kv, blocks[0], NULL), KVB_EINVAL, "info is NULL");
    info.size = sizeof info;
    refuses(rig, kvb_block_describe(rig->kv, none(), &info), KVB_EINVAL, "block is 0x");
    refuses(rig, kvb_block_key(rig->kv, blocks[4], NULL), KVB_EINVAL, "key is NULL");
    refuses(rig, kvb_block_key(rig->kv, NULL, &key), KVB_EINVAL, "block is NULL");
    answers(rig, kvb_block_key(rig->kv, blocks[1], &key), KVB_ENOENT,
            "block (DEVICE/1) is Partial with 2 of 4 tokens named");
    kv_ok(kvb_block_key(rig->kv, blocks[4], &key));
    kv_ok(kvb_invalidate(rig->kv, &key, 1, NULL));
    answers(rig, kvb_block_key(rig->kv, blocks[4], &key), KVB_ENOENT,
            "block (DEVICE/4) has no name any more: its content was invalidated or cleared");
    refuses(rig, kvb_block_address(rig->kv, blocks[0], 2, 0, &address), KVB_EINVAL,
            "layer is 2, must be 0..1");
    refuses(rig, kvb_block_address(rig->kv, blocks[0], 0, 7, &address), KVB_EINVAL,
            "part is 7, must be 0..1");
    refuses(rig, kvb_block_address(rig->kv, blocks[0], 0, 0, NULL), KVB_EINVAL, "address is NULL");
    refuses(rig, kvb_block_address(rig->kv, NULL, 0, 0, &address), KVB_EINVAL, "block is NULL");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(five_blocks, test_alloc_names_tier_fence_and_shortage),
        TEST(five_blocks, test_alloc_says_that_transfers_hold_what_is_missing),
        TEST(five_blocks, test_fence_of_a_gpu_without_one_is_named),
        TEST(five_blocks, test_blocks_that_are_none_are_named_by_index),
        TEST(five_blocks, test_unref_of_what_only_steps_hold_says_so),
        TEST(five_blocks, test_handles_that_are_used_up_are_an_answer),
        TEST(five_blocks, test_weak_handles_are_named_with_what_they_say),
        TEST(five_blocks, test_init_names_field_and_element),
        TEST(five_blocks, test_init_names_the_byte_of_an_unknown_tail),
        TEST(five_blocks, test_append_names_field_and_element),
        TEST(five_blocks, test_steps_are_named_with_state_and_range),
        TEST(five_blocks, test_outstanding_steps_that_are_used_up_are_an_answer),
        TEST(five_blocks, test_generations_that_are_used_up_are_an_answer),
        TEST(five_blocks, test_truncate_names_the_range),
        TEST(five_blocks, test_shared_blocks_are_named_with_their_holders),
        TEST(five_blocks, test_clone_names_source_or_target),
        TEST(five_blocks, test_register_names_options_and_state),
        TEST(five_blocks, test_register_names_the_missing_parent),
        TEST(five_blocks, test_register_of_a_collision_is_an_answer),
        TEST(kv_rig, test_register_with_the_callers_keys_names_the_key),
        TEST(five_blocks, test_info_key_and_address_name_what_is_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
