/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The GPU as the rest of the library sees it: a tier in its memory, pinned host memory, an engine between the two.
 *
 * Owns       nothing; no type of CUDA's appears here, so that a build without CUDA puts absent.c in place of this folder.
 * Callers    offload/tiers creates tiers and pinning, offload/engines the engine; api/ asks for addresses, statistics and fences.
 * Lock       each its own; said where it matters.
 */
#ifndef KVBI_TRANSFER_CUDA_CUDA_H
#define KVBI_TRANSFER_CUDA_CUDA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <kvblock.h>

#include "base/log.h"
#include "base/memory.h"
#include "transfer/engine.h"
#include "transfer/tier.h"

struct kvbi_cuda;

/*
 * A tier in the memory of the GPU `config->device`: the caller's, or its own. Everything that is wrong with driver, device, layout
 * or memory is found here and said in `message`. KVB_EUNSUPPORTED, KVB_EINVAL, KVB_ENOMEM, KVB_EDEVICE.
 */
int kvbi_tier_cuda_create(struct kvbi_tier *tier, const struct kvbi_memory *memory,
                          const struct kvb_tier_config *config, const struct kvb_layout *layout,
                          uint64_t block_bytes, char *message, size_t message_bytes);
/* For kvbi_tier_destroy. Legal on NULL. */
void kvbi_cuda_close(struct kvbi_cuda *cuda, unsigned char *owned_base);

/* Has the GPU failed, or the tier's memory gone? Any thread. */
bool kvbi_cuda_lost(const struct kvbi_cuda *cuda);
/* Why, in words; empty if it has not. */
void kvbi_cuda_why(const struct kvbi_cuda *cuda, char *why, size_t bytes);

/*
 * Pins the host tier `tier` for the GPU, by `threads` threads of its own (0: before it returns). What cannot be pinned is said in the
 * log and counted. KVB_ENOMEM: no thread.
 */
int kvbi_pinning_create(struct kvbi_tier *tier, struct kvbi_cuda *cuda, const struct kvbi_log *log,
                        uint32_t threads);
/*
 * Waits for what is being pinned. Legal on NULL. False: CUDA keeps some of the memory registered. Whoever gave it away would have the next
 * owner of the same addresses copy to and from the pages that were there before.
 */
bool kvbi_pinning_destroy(struct kvbi_pinning *pinning);
/* Any thread. */
uint64_t kvbi_pinning_bytes(const struct kvbi_pinning *pinning);
uint64_t kvbi_pinning_refused_bytes(const struct kvbi_pinning *pinning);

struct kvbi_engine_cuda_config {
    const struct kvbi_tier *device; /* the tier in CUDA memory */
    enum kvb_copy_method method;
    uint32_t capacity;
    const struct kvbi_log *log;
    const struct kvbi_hooks *hooks;
};

#define KVBI_CUDA_SAID_BYTES 96
/* 0; else `said` has the reason. Afterwards `said` tells the statistics how it copies. */
int kvbi_engine_cuda_create(struct kvbi_engine **engine, const struct kvbi_memory *memory,
                            const struct kvbi_engine_cuda_config *config, char *said,
                            size_t said_bytes);

/*
 * The flight, below 64, that writes this slot of the device. KVBI_FLIGHT_NONE: the engine has no copy into it; KVBI_FLIGHT_QUEUED:
 * it has not begun. Any thread; no lock.
 */
#define KVBI_FLIGHT_NONE 64u
#define KVBI_FLIGHT_QUEUED 65u
uint32_t kvbi_engine_cuda_flight(struct kvbi_engine *engine, uint32_t slot);
/* Was this number the fence of a stream or event that turned out to be part of a capture? What waits for it fails. Any thread. */
bool kvbi_engine_cuda_spoiled(struct kvbi_engine *engine, uint64_t event);
/* The fence up to which all are known to be reached. Any thread, no lock, no call of CUDA's. */
uint64_t kvbi_engine_cuda_reached(struct kvbi_engine *engine);
/*
 * As long as no fence beyond `until` is reached, event_fd is to become readable now and then
 * (UINT64_MAX: not for that). From progress.
 */
void kvbi_engine_cuda_watch(struct kvbi_engine *engine, uint64_t until);
/*
 * Makes `stream` (a cudaStream_t) wait for the flights of which a bit is set, up to and including `layer`, and for the fence `event` (0:
 * none). A flight that is over by then costs nothing; one that has begun anew since is waited for as well, which is more than was asked
 * for and never less. Any thread, no lock held. 0, KVB_EINVAL, KVB_EDEVICE; KVB_EAGAIN: a flight has no end that can be waited for.
 * `why` gets words where CUDA has some.
 */
int kvbi_engine_cuda_wait(struct kvbi_engine *engine, uint64_t flights, uint64_t event,
                          void *stream, uint32_t layer, struct kvbi_why *why);

#endif
