/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One store of one tier, open, with contents that are named by a seed: for each a root block of its
 * own.
 *
 *     struct store_scene *scene = *state;   // or struct kv_rig *rig = *state;
 *     store_park(&scene->rig, 1, 35, 0);
 *     store_take_all_free(scene);
 *     store_evicts(scene, 1);               // what is taken goes back in the teardown
 */
#ifndef KVB_TEST_SUPPORT_STORE_SCENE_H
#define KVB_TEST_SUPPORT_STORE_SCENE_H

#include "support/life.h"

struct store_scene {
    struct kv_rig rig; /* comes first: *state is a rig as well */
    struct kvb_block *taken[KV_BLOCKS];
    uint32_t taken_count;
};

int store_scene_setup(void **state);
int store_scene_teardown(void **state);

/* Of a run that fills the tier. */
extern uint32_t store_tokens[KV_BLOCKS * KV_TOKENS];

struct kvb_tier_stats device_stats(struct kv_rig *rig);

/* The content of this seed (life_store), parked with a priority. */
void store_park(struct kv_rig *rig, uint64_t seed, uint32_t priority, uint64_t duration_ns);

/* Whether it is found. */
bool store_has(struct kv_rig *rig, uint64_t seed);

/* Blocks taken, to leave no room. */
void store_take(struct store_scene *scene, uint32_t count);
void store_take_all_free(struct store_scene *scene);

/* Evicts one block; it must be the one of this seed. */
void store_evicts(struct store_scene *scene, uint64_t seed);

#endif
