/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tests that fail on purpose, to see what they leave behind. They run in a child, which is the same
 * program again with the name of the test: it says what its CMocka has counted, and what is left.
 *
 *     if (count == 2)                                   // in main
 *         return run_failing_test(failing, sizeof failing / sizeof *failing, arguments[1]);
 *     ...
 *     expect_clean_failure("fails_midway", "on purpose");            // in a test
 */
#ifndef KVB_TEST_CLEAN_FAILURE_H
#define KVB_TEST_CLEAN_FAILURE_H

#include "support/test.h"

/*
 * The child's exit status: 0 if the test has failed, and no thread, descriptor or folder is left.
 */
int run_failing_test(const struct CMUnitTest *failing, size_t count, const char *name);

/* It does that, and says `words`. */
void expect_clean_failure(const char *name, const char *words);

#endif
