/* SPDX-License-Identifier: Apache-2.0 */
/* See kv_wait.h. */
#include "support/kv_wait.h"

void kv_wait_init(struct kv_wait *wait)
{
    pthread_condattr_t monotonic;
    memset(wait, 0, sizeof *wait);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&wait->mutex, NULL);
    pthread_cond_init(&wait->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

void kv_wait_signal(struct kv_wait *wait)
{
    pthread_mutex_lock(&wait->mutex);
    wait->count++;
    pthread_cond_broadcast(&wait->changed);
    pthread_mutex_unlock(&wait->mutex);
}

bool kv_wait_for(struct kv_wait *wait, uint64_t count)
{
    struct timespec give_up;
    int code = 0;
    clock_gettime(CLOCK_MONOTONIC, &give_up);
    give_up.tv_sec += KV_GIVE_UP_S;
    pthread_mutex_lock(&wait->mutex);
    while (wait->count < count && code == 0)
        code = pthread_cond_timedwait(&wait->changed, &wait->mutex, &give_up);
    bool reached = wait->count >= count;
    pthread_mutex_unlock(&wait->mutex);
    return reached;
}
