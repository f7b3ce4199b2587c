/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waiting for a callback that runs on the manager's own thread: the callback signals, the test
 * waits until it has been signalled often enough.
 */
#ifndef KVB_TEST_SUPPORT_WAIT_H
#define KVB_TEST_SUPPORT_WAIT_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <pthread.h>

#include "support/give_up.h"

struct kv_wait {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    uint64_t count;
};

void kv_wait_init(struct kv_wait *wait);

void kv_wait_signal(struct kv_wait *wait);

/*
 * Whether it has been signalled `count` times. False after KV_GIVE_UP_S: something did not happen.
 */
bool kv_wait_for(struct kv_wait *wait, uint64_t count);

#endif
