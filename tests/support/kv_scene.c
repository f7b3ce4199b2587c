/* SPDX-License-Identifier: Apache-2.0 */
/* See kv_scene.h. */
#include "support/kv_scene.h"

void *kv_scene_begin(void **state, size_t bytes)
{
    struct kv_rig *rig = calloc(1, bytes);
    assert_non_null(rig);
    kv_rig_init(rig);
    *state = rig;
    return rig;
}

int kv_scene_end(void **state)
{
    return kv_rig_teardown(state);
}

int kv_opened_setup(void **state)
{
    kv_rig_open(kv_scene_begin(state, sizeof(struct kv_rig)));
    return 0;
}

void kv_rig_add_host(struct kv_rig *rig)
{
    kv_rig_add_tier(rig, KVB_TIER_HOST, KV_BLOCKS, KVB_OFFLOAD_MANUAL);
}

int kv_two_tiers_setup(void **state)
{
    kv_rig_add_host(kv_scene_begin(state, sizeof(struct kv_rig)));
    return 0;
}

int kv_opened_two_tiers_setup(void **state)
{
    (void)kv_two_tiers_setup(state);
    kv_rig_open(*state);
    return 0;
}
