/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store that adopts, and nothing around it: a DEVICE of four blocks, and a DISK whose slots the
 * test says to have outlived a process. Its lock is held from the setup to the teardown.
 */
#ifndef KVB_TEST_SUPPORT_ADOPT_SCENE_H
#define KVB_TEST_SUPPORT_ADOPT_SCENE_H

#include "store/contents.h"
#include "store/store.h"
#include "support/failing_memory.h"
#include "support/test.h"

enum { ADOPT_SLOTS = 16, ADOPT_MANY = 5000, ADOPT_TOKENS = 4, ADOPT_KEY = 8 };

struct adopt_scene {
    struct failing_memory failing;
    struct kvbi_memory memory;
    struct kvbi_clock clock;
    struct kvbi_log log;
    struct kvbi_store store;
    struct kvbi_pool *pool; /* the DISK's */
};

/* ADOPT_SLOTS on the disk; the same with keys of the caller's; ADOPT_MANY. */
int adopt_scene_setup(void **state);
int adopt_keyed_setup(void **state);
int adopt_many_setup(void **state);
int adopt_scene_teardown(void **state);
#define adopt_keyed_teardown adopt_scene_teardown
#define adopt_many_teardown adopt_scene_teardown

/* The content number `number` in `slot`; with number > 0 a child of the one before. */
struct kvbi_adoption adopt_content(uint32_t number, uint32_t slot);

/* Adopts it; puts a slot behind all that are in the order; both. */
void adopt(struct adopt_scene *scene, const struct kvbi_adoption *adoption);
void adopt_in_order(struct adopt_scene *scene, uint32_t slot);
void adopt_one(struct adopt_scene *scene, const struct kvbi_adoption *adoption);

/* Adoption is over; and the store is sound. */
void adopt_end(struct adopt_scene *scene);
void adopt_check(struct adopt_scene *scene);

bool adopt_found(struct adopt_scene *scene, uint32_t number);
uint64_t adopt_generation(struct adopt_scene *scene, uint32_t slot);

/* The slot that is given out next, evicting if need be; KVBI_NONE. */
uint32_t adopt_take_slot(struct adopt_scene *scene);

#endif
