/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A kind that works like one that there is, but for what a test bends: to see that the conformance
 * test of tiers finds it.
 *
 *     bent_kind_start(&tier_recipe_memory, how); // to each tier once it is made; or NULL
 *     bent_kind.is = ...;                        // of the kind itself
 *     bent_kind_expect_found("name of a promise");
 */
#ifndef KVB_TEST_BENT_KIND_H
#define KVB_TEST_BENT_KIND_H

#include "support/tier_recipes.h"

extern struct kvbi_kind bent_kind;
extern const struct kvbi_kind *bent_kind_real;
/* What tiers of it do; `how` changes these, or the tier. */
extern struct kvbi_tier_ops bent_tier_ops;
extern struct kvbi_lasting_ops bent_lasting_ops;

void bent_kind_start(const struct tier_recipe *base, void (*how)(struct kvbi_tier *tier));

/* The promise of this name is not kept, and it is said why. */
void bent_kind_expect_found(const char *promise);
/* Every promise that says anything about it is. */
void bent_kind_expect_all_kept(void);

#endif
