/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory/engine - from host memory to host memory, by the processor, inside reap
 *
 * Owns       its queue (transfer/copy_queue.h).
 * Callers    transfer/engines creates one for every manager, for its counter; else see engine.h.
 */
#ifndef KVBI_TRANSFER_MEMORY_ENGINE_H
#define KVBI_TRANSFER_MEMORY_ENGINE_H

#include <stdint.h>

#include "base/memory.h"
#include "transfer/engine.h"

/*
 * `lines` must outlive it. `capacity`: copies in the queue at most; taken at create. `hooks` (may
 * be NULL): fault injection, see base/hooks.h. KVB_ENOMEM.
 */
int kvbi_engine_memcpy_create(struct kvbi_engine **engine, const struct kvbi_memory *memory,
                              struct kvbi_clock *clock, const struct kvbi_lines *lines,
                              uint32_t capacity, const struct kvbi_hooks *hooks);

#endif
