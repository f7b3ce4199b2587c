/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waiting until the manager's own thread has done all that there is to do, without a call that
 * would wake it.
 */
#ifndef KVB_TEST_SUPPORT_ASLEEP_H
#define KVB_TEST_SUPPORT_ASLEEP_H

#include <sched.h>
#include <stdbool.h>
#include <time.h>

#include "api/manager.h"
#include "support/give_up.h"

/*
 * Whether the manager's thread sleeps and nobody has woken it since: it stays so until somebody
 * does, or its next deadline. In this order: it takes note of a wake-up awake, so who sleeps after
 * that has looked at everything that came up before.
 */
bool kv_is_asleep(struct kvb_manager *kv);

/* Within KV_GIVE_UP_S, which only a failure takes. */
bool kv_falls_asleep(struct kvb_manager *kv);

#endif
