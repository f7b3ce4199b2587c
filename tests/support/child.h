/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Children of a test, which assert nothing: they answer by their exit status.
 *
 *     assert_int_equal(child_run(body, argument), 0);
 */
#ifndef KVB_TEST_CHILD_H
#define KVB_TEST_CHILD_H

#include <sys/types.h>

/* What `body` returns in a child of its own, 0 to 255; -1: the child did not come to that. */
int child_run(int (*body)(void *argument), void *argument);

/* The two halves of it. */
pid_t child_start(int (*body)(void *argument), void *argument);
int child_status(pid_t child);

#endif
