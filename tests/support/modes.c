/* SPDX-License-Identifier: Apache-2.0 */
/* See modes.h. */
#include "support/modes.h"

static int begin(void **state, uint32_t progress)
{
    struct kv_rig *rig = kv_scene_begin(state, sizeof *rig);
    rig->config.progress = progress;
    return 0;
}

int polled_setup(void **state)
{
    return begin(state, KVB_PROGRESS_POLL);
}

int threaded_setup(void **state)
{
    return begin(state, KVB_PROGRESS_THREAD);
}

bool modes_is_polled(const struct kv_rig *rig)
{
    return rig->config.progress == KVB_PROGRESS_POLL;
}

void modes_settle(struct kv_rig *rig)
{
    kv_flush(rig);
    kv_check(rig);
}

size_t modes_events_seen(struct kv_rig *rig)
{
    pthread_mutex_lock(&rig->events.mutex);
    size_t count = rig->events.count;
    pthread_mutex_unlock(&rig->events.mutex);
    return count;
}
