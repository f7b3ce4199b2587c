/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rigs that are open already, and scenes around a rig, on top of kv_test.h.
 *
 *     struct scene {
 *         struct kv_rig rig;                    // comes first: *state is a rig as well
 *         struct kvb_block *blocks[2];
 *     };
 *
 *     static int scene_setup(void **state)
 *     {
 *         struct scene *scene = kv_scene_begin(state, sizeof *scene);
 *         kv_rig_open(&scene->rig);
 *         ...
 *         return 0;
 *     }
 *
 *     #define scene_teardown kv_scene_end
 */
#ifndef KVB_TEST_SUPPORT_SCENE_H
#define KVB_TEST_SUPPORT_SCENE_H

#include "support/kv_test.h"
#include "support/test.h"

/* TEST(kv_opened, ...): the defaults of kv_rig_init. */
int kv_opened_setup(void **state);
#define kv_opened_teardown kv_scene_end

/*
 * TEST(kv_two_tiers, ...): a HOST of KV_BLOCKS below, to which nothing goes by itself. Not open
 * yet.
 */
int kv_two_tiers_setup(void **state);
#define kv_two_tiers_teardown kv_scene_end

int kv_opened_two_tiers_setup(void **state);
#define kv_opened_two_tiers_teardown kv_scene_end

/* Their second tier, for a rig of another kind. */
void kv_rig_add_host(struct kv_rig *rig);

/* Zeroes, but for the rig in front, which has the defaults and is not open. *state is the scene. */
void *kv_scene_begin(void **state, size_t bytes);

/* The teardown of a scene that owns nothing but the rig in front. */
int kv_scene_end(void **state);

#endif
