/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recipes of tier_conformance.h that every build has: host memory, the disk, the tests' own kind.
 */
#ifndef KVB_TEST_TIER_RECIPES_H
#define KVB_TEST_TIER_RECIPES_H

#include "support/tier_conformance.h"

extern const struct tier_recipe tier_recipe_memory;
extern const struct tier_recipe tier_recipe_given_memory; /* the caller's */
extern const struct tier_recipe tier_recipe_disk;         /* one file, by `path` */
extern const struct tier_recipe tier_recipe_disks;        /* three, by `paths` */
extern const struct tier_recipe tier_recipe_faulty;

#endif
