/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every test of the house begins with: CMocka and one macro.
 *
 *     static void test_alloc_of_zero_blocks_succeeds(void **state)
 *     {
 *         struct kv_rig *rig = *state;
 *         ...
 *     }
 *
 *     const struct CMUnitTest tests[] = {TEST(kv_rig, test_alloc_of_zero_blocks_succeeds), ...};
 *
 * A rig is a pair of functions, `<rig>_setup` and `<rig>_teardown`. The setup makes what the test
 * needs and leaves it in *state; the teardown looks whether all is well and takes it down again,
 * also where the test has failed midway: then it leaves no thread, file or folder behind either. A
 * teardown that is not content says why and returns -1, which fails the test. It asserts nothing
 * itself, because what comes after a failed assertion does not run. Nor does it run after a setup
 * that has failed.
 */
#ifndef KVB_TEST_H
#define KVB_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define TEST(rig, test) cmocka_unit_test_setup_teardown(test, rig##_setup, rig##_teardown)

/* The rig of a test that needs none. */
#define bare_setup NULL
#define bare_teardown NULL

#endif
