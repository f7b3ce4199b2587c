/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rigs for what is promised in both modes of progress, and is tested by the same tests in both:
 *
 *     static const struct CMUnitTest by_polls[] = {TEST(polled, test_wait_returns), ...};
 *     static const struct CMUnitTest by_thread[] = {TEST(threaded, test_wait_returns), ...};
 *
 * Where the manager's thread has to get somewhere, tests wait for that very state, with a limit
 * that only a hang reaches. Nobody looks at the invariants while it is at work.
 */
#ifndef KVB_TEST_MODES_H
#define KVB_TEST_MODES_H

#include <sched.h>
#include <time.h>

#include "support/give_up.h"
#include "support/kv_scene.h"
#include "support/move_test.h"

int polled_setup(void **state);
#define polled_teardown kv_scene_end

int threaded_setup(void **state);
#define threaded_teardown kv_scene_end

bool modes_is_polled(const struct kv_rig *rig);

/* The condition becomes true by progress alone. */
#define modes_await(rig, condition)                                                                \
    do {                                                                                           \
        time_t give_up_ = time(NULL) + KV_GIVE_UP_S;                                               \
        for (;;) {                                                                                 \
            if (modes_is_polled(rig))                                                              \
                kv_poll(rig);                                                                      \
            if (condition)                                                                         \
                break;                                                                             \
            if (time(NULL) > give_up_)                                                             \
                fail_msg("never: %s", #condition);                                                 \
            (void)sched_yield();                                                                   \
        }                                                                                          \
    } while (0)

/* Flushed, so that nobody is inside a call: then the invariants can be looked at. */
void modes_settle(struct kv_rig *rig);

size_t modes_events_seen(struct kv_rig *rig);

#endif
