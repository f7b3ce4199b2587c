/* SPDX-License-Identifier: Apache-2.0 */
/* See store_scene.h. */
#include "support/store_scene.h"

uint32_t store_tokens[KV_BLOCKS * KV_TOKENS];

int store_scene_setup(void **state)
{
    struct store_scene *scene = kv_scene_begin(state, sizeof *scene);
    kv_tokens(store_tokens, KV_BLOCKS * KV_TOKENS, 5);
    kv_rig_open(&scene->rig);
    return 0;
}

int store_scene_teardown(void **state)
{
    struct store_scene *scene = *state;
    if (scene->taken_count > 0)
        (void)kvb_block_unref(scene->rig.kv, scene->taken, scene->taken_count, NULL);
    return kv_rig_teardown(state);
}

struct kvb_tier_stats device_stats(struct kv_rig *rig)
{
    return kv_stats(rig).tiers[KVB_TIER_DEVICE];
}

void store_park(struct kv_rig *rig, uint64_t seed, uint32_t priority, uint64_t duration_ns)
{
    struct kvb_block *block = life_store(rig, seed);
    kv_ok(kvb_block_set_priority(rig->kv, &block, 1, priority, duration_ns, NULL));
    kv_unref(rig, block);
}

bool store_has(struct kv_rig *rig, uint64_t seed)
{
    uint32_t tokens[KV_TOKENS];
    kv_tokens(tokens, KV_TOKENS, seed);
    return kv_run_length(rig, 0, tokens, KV_TOKENS) == 1;
}

void store_take(struct store_scene *scene, uint32_t count)
{
    kv_ok(kvb_alloc(scene->rig.kv, KVB_TIER_DEVICE, count, NULL, scene->taken + scene->taken_count,
                    NULL));
    scene->taken_count += count;
}

void store_take_all_free(struct store_scene *scene)
{
    store_take(scene, (uint32_t)device_stats(&scene->rig).free_count);
}

void store_evicts(struct store_scene *scene, uint64_t seed)
{
    struct kv_rig *rig = &scene->rig;
    assert_true(store_has(rig, seed));
    uint64_t parked = device_stats(rig).parked_count;
    store_take(scene, 1);
    assert_int_equal(device_stats(rig).parked_count, parked - 1);
    assert_false(store_has(rig, seed));
}
