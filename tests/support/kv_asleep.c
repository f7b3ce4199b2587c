/* SPDX-License-Identifier: Apache-2.0 */
/* See kv_asleep.h. */
#include "support/kv_asleep.h"

bool kv_is_asleep(struct kvb_manager *kv)
{
    return !atomic_load(&kv->progress.signalled) && atomic_load(&kv->progress.sleeping);
}

bool kv_falls_asleep(struct kvb_manager *kv)
{
    time_t give_up = time(NULL) + KV_GIVE_UP_S;
    while (!kv_is_asleep(kv)) {
        if (time(NULL) > give_up)
            return false;
        (void)sched_yield();
    }
    return true;
}
