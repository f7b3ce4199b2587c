/* SPDX-License-Identifier: Apache-2.0 */
/* Moving, whatever happens: a small world in which random calls meet random failures. */
#include "support/kv_scene.h"
#include "support/move_test.h"

#define CHAINS 5
#define CHAIN_LENGTH 4

struct world {
    struct kv_rig rig;
    struct mv_run chains[CHAINS];
    struct kvb_block *held[8]; /* Registered, each with its content's hash */
    uint64_t held_hash[8];
    struct kvb_op *ops[4];
    struct mv_run op_runs[4];
    uint64_t seed, fence;
    uint64_t verified;
};

static int world_setup(void **state)
{
    (void)kv_scene_begin(state, sizeof(struct world));
    return 0;
}

#define world_teardown kv_scene_end

/* An ordinary outcome: 0, or one of two errors that the state of things may call for. */
static void world_expect(int code, int or_this, int or_that)
{
    if (code != or_this && code != or_that)
        kv_expect(code, KVB_OK);
}

static void world_keep(struct world *world, struct kvb_block *block, uint64_t hash)
{
    for (uint32_t i = 0; i < 8; i++)
        if (world->held[i] == NULL) {
            world->held[i] = block;
            world->held_hash[i] = hash;
            return;
        }
    kv_unref(&world->rig, block);
}

static void world_let_go(struct world *world, uint32_t which)
{
    if (world->held[which] == NULL)
        return;
    assert_true(kv_payload_is(&world->rig, world->held[which], world->held_hash[which]));
    world->verified++;
    kv_unref(&world->rig, world->held[which]);
    world->held[which] = NULL;
}

/*
 * Compute what is missing of a chain, in a random tier; sometimes the bytes are only there when a
 * fence says so.
 */
static void world_compute(struct world *world, struct mv_run *chain, uint32_t tier)
{
    struct kvb_fence fence = mv_fence(world->fence + 1);
    uint32_t found = mv_match(&world->rig, chain);
    uint32_t missing = chain->count - found;
    int code = kvb_alloc(world->rig.kv, tier, missing, NULL, chain->blocks + found, NULL);
    if (code == 0) {
        mv_compute(&world->rig, chain, found);
        bool late = kv_random(&world->seed, 4) == 0;
        kv_ok(kvb_block_register(world->rig.kv, chain->blocks + found, missing, NULL,
                                 late ? &fence : NULL, NULL));
        found = chain->count;
    }
    world_expect(code, KVB_EAGAIN, KVB_ENOSPC);
    for (uint32_t i = found; i-- > 0;) {
        if (kv_random(&world->seed, 4) == 0)
            world_keep(world, chain->blocks[i], chain->seqs[i].hash);
        else
            kv_unref(&world->rig, chain->blocks[i]);
    }
}

static void world_onboard(struct world *world, const struct mv_run *chain)
{
    uint32_t which = kv_random(&world->seed, 4);
    if (world->ops[which] != NULL) {
        kv_ok(kvb_op_cancel(world->rig.kv, world->ops[which]));
        return;
    }
    struct mv_run *run = &world->op_runs[which];
    struct kvb_block *targets[CHAIN_LENGTH];
    *run = *chain;
    uint32_t found = mv_match(&world->rig, run), tier = kv_random(&world->seed, 2);
    bool above = found > 0 && kvb_alloc(world->rig.kv, tier, found, NULL, targets, NULL) == 0;
    if (above) {
        struct kvb_onboard request = mv_request(run->blocks, targets, found, NULL);
        request.timeout_ns = kv_random(&world->seed, 3) == 0 ? KV_MS : 0;
        int code = kvb_onboard(world->rig.kv, &request, &world->ops[which]);
        if (code != 0) { /* a source is in the target's tier already, or above */
            assert_int_equal(code, KVB_EINVAL);
            kv_ok(kvb_block_unref(world->rig.kv, targets, found, NULL));
        }
    }
    kv_ok(kvb_block_unref(world->rig.kv, run->blocks, found, NULL));
    run->count = found;
}

static void world_take(struct world *world, uint32_t which)
{
    uint32_t good = 0;
    struct mv_run *run = &world->op_runs[which];
    if (world->ops[which] == NULL)
        return;
    int code = kvb_op_take(world->rig.kv, world->ops[which], run->blocks, run->count, &good);
    if (code == KVB_EAGAIN)
        return;
    kv_expect(code, KVB_OK);
    kv_ok(kvb_op_release(world->rig.kv, world->ops[which]));
    world->ops[which] = NULL;
    for (uint32_t i = run->count; i-- > 0;) {
        if (run->blocks[i] == NULL)
            continue;
        if (i < good)
            assert_true(mv_bytes_are(&world->rig, run->blocks[i], &run->seqs[i]));
        kv_unref(&world->rig, run->blocks[i]);
    }
}

static void world_step(struct world *world)
{
    struct kv_rig *rig = &world->rig;
    struct mv_run *chain = &world->chains[kv_random(&world->seed, CHAINS)];
    uint32_t any = kv_random(&world->seed, 8);
    switch (kv_random(&world->seed, 14)) {
    case 0:
    case 1:
    case 2:
        world_compute(world, chain, KVB_TIER_DEVICE);
        break;
    case 3:
        world_compute(world, chain, KVB_TIER_HOST + kv_random(&world->seed, 2));
        break;
    case 4:
        if (world->held[any] != NULL)
            world_expect(kvb_block_offload(rig->kv, &world->held[any], 1,
                                           kv_random(&world->seed, 101), NULL, NULL),
                         KVB_EBUSY,
                         kv_describe(rig, world->held[any]).indexed ? KVB_ENOENT : KVB_ESTATE);
        break;
    case 5:
        if (world->held[any] != NULL)
            world_expect(kvb_block_offload_cancel(rig->kv, &world->held[any], 1, NULL), KVB_EBUSY,
                         KVB_ENOENT);
        break;
    case 6:
        if (world->held[any] != NULL)
            kv_ok(kvb_block_set_priority(rig->kv, &world->held[any], 1,
                                         kv_random(&world->seed, 101), KV_MS, NULL));
        break;
    case 7:
        world_let_go(world, any);
        break;
    case 8:
        world_onboard(world, chain);
        break;
    case 9:
        world_take(world, any % 4);
        break;
    case 10:
        world_expect(kvb_invalidate(rig->kv, &chain->seqs[any % CHAIN_LENGTH], 1, NULL), KVB_ENOENT,
                     KVB_OK);
        if (any == 0)
            kv_ok(kvb_manager_clear(rig->kv));
        break;
    case 11:
        kv_ok(kvb_fence_signal(rig->kv, 0, ++world->fence));
        kv_advance(rig, KV_MS / 4);
        break;
    case 12:
        mv_fail(&world->rig.copies, 1 + any, false);
        break;
    default:
        world_expect(kvb_manager_poll(rig->kv, any < 4 ? 0 : KVB_FOREVER), 1, KVB_OK);
        break;
    }
    kv_check(rig);
    mv_expect_books(rig, false);
}

static void run_world(struct world *world, uint64_t seed)
{
    memset(world, 0, sizeof *world);
    kv_rig_init(&world->rig);
    mv_three_tiers(&world->rig, 9, 8, 10);
    world->seed = seed * UINT64_C(1000003);
    world->rig.tiers[0].trigger = 1 + kv_random(&world->seed, 4);
    world->rig.tiers[1].trigger = 1 + kv_random(&world->seed, 4);
    for (uint32_t i = 0; i < 2; i++)
        mv_bounds(&world->rig, i, 1 + kv_random(&world->seed, 3), 1 + kv_random(&world->seed, 3),
                  1 + kv_random(&world->seed, 2), 1 + kv_random(&world->seed, 4));
    mv_open_recorded(&world->rig);
    for (uint32_t i = 0; i < CHAINS; i++)
        mv_name(&world->rig, &world->chains[i], i + 1, CHAIN_LENGTH);
    for (uint32_t step = 0; step < 400; step++)
        world_step(world);
    kv_ok(kvb_fence_signal(world->rig.kv, 0, (UINT64_C(1) << 56) - 1));
    mv_step(&world->rig);
    for (uint32_t i = 0; i < 4; i++)
        world_take(world, i);
    for (uint32_t i = 0; i < 8; i++)
        world_let_go(world, i);
    mv_step(&world->rig);
    mv_expect_books(&world->rig, true);
    assert_true(world->verified > 0);
    kv_rig_close(&world->rig);
}

static void test_books_and_invariants_hold_under_random_calls(void **state)
{
    for (uint64_t seed = 1; seed <= 60; seed++)
        run_world(*state, seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(world, test_books_and_invariants_hold_under_random_calls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
