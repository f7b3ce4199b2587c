/* SPDX-License-Identifier: Apache-2.0 */
/* For the promises of tiers alone: steps on a scene. False: scene->demand says why. */
#ifndef KVB_TEST_TIER_SCENE_H
#define KVB_TEST_TIER_SCENE_H

#include "support/tier_conformance.h"

#define SCENE_CAPACITY 16u

/* In a promise: the condition holds, or the promise is not kept, and the words say why. */
#define MUST(scene, ...) DEMAND(&(scene)->demand, __VA_ARGS__)
#define KEPT(step)                                                                                 \
    do {                                                                                           \
        if (!(step))                                                                               \
            return false;                                                                          \
    } while (0)

/* ---- Lives of a tier ------------------------------------------------------------------------- */

/* What recipe's configurations point to, and they themselves. */
void tier_scene_prepare(struct tier_scene *scene, const struct tier_recipe *recipe);
bool tier_scene_clean_up(struct tier_scene *scene);

bool tier_scene_create(struct tier_scene *scene);
bool tier_scene_commit(struct tier_scene *scene); /* and connects it with its peer */
bool tier_scene_scan(struct tier_scene *scene, uint32_t at_a_time);
bool tier_scene_open(struct tier_scene *scene); /* all three */
/* As after a kill. Legal at any time. */
void tier_scene_kill(struct tier_scene *scene);
/* Cleanly; order[0] was used first. */
void tier_scene_close(struct tier_scene *scene, const uint32_t *order, uint32_t count);

/* ---- Blocks ---------------------------------------------------------------------------------- */

/* Content `key` into the slot. Decided after so many clears. */
bool tier_scene_write_after(struct tier_scene *scene, uint32_t slot, uint64_t key, uint64_t clears);
bool tier_scene_write(struct tier_scene *scene, uint32_t slot, uint64_t key);
/* The slot is read under that identity: *result; if it is 0, the bytes are those of the content. */
bool tier_scene_read(struct tier_scene *scene, uint32_t slot, uint64_t key,
                     const struct kvbi_identity *identity, int *result);
/* It is there; or it is not to be had. */
bool tier_scene_has(struct tier_scene *scene, uint32_t slot, uint64_t key);
bool tier_scene_lacks(struct tier_scene *scene, uint32_t slot, uint64_t key);
/* The scan has found it there, with all that its label said, and it is there. */
bool tier_scene_found(struct tier_scene *scene, uint32_t slot, uint64_t key);

/* The numbers of all slots, in a random order. */
void tier_scene_shuffle(uint32_t *slots, uint64_t *seed);

extern const struct tier_promise tier_promises_kind[]; /* the last of each has no name */
extern const struct tier_promise tier_promises_lasting[];

#endif
