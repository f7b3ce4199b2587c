/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The same tests once for each of several variants of what they are about.
 *
 *     int failed = 0;
 *     for (size_t i = 0; i < 2; i++)
 *         failed += run_variant(variants[i].name, &variants[i], tests, count);
 *
 * The variant is what a test's setup finds in *state; its name stands behind the test's.
 */
#ifndef KVB_TEST_VARIANTS_H
#define KVB_TEST_VARIANTS_H

#include "support/test.h"

/* How many failed. */
int run_variant(const char *name, const void *variant, const struct CMUnitTest *tests,
                size_t count);

#endif
