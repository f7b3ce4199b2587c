/* SPDX-License-Identifier: Apache-2.0 */
/* What the two halves of the adapter share. */
#ifndef MODEL_ADAPTER_INSIDE_H
#define MODEL_ADAPTER_INSIDE_H

#include <kvblock.h>

#include "adapter.h"
#include "base/hooks.h"

enum { BATCH_MAX = 256 }; /* names in one call */

struct kv {
    struct kvbi_hooks hooks;
    struct kvb_manager *manager;
    struct kv_setup setup;
    size_t name_bytes;
    bool files;
    _Atomic uint64_t fence_given, fence_reached; /* exact where one thread calls */
    _Atomic int64_t balance;
};

struct event kv_event_of(const struct kv *kv, const struct kvb_event *given);

#endif
