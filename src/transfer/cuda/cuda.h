/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The GPU as the rest of the library sees it: a tier in its memory, registered host memory, an
 * engine between the two.
 *
 * Owns       nothing; no type of CUDA's appears here, so that a build without CUDA puts absent.c in
 *            place of this folder.
 * Callers    transfer/kinds lists the kind, and nobody else includes this; all others come through
 *            transfer/tier.h and transfer/engine.h.
 * Lock       each its own; said where it matters.
 */
#ifndef KVBI_TRANSFER_CUDA_CUDA_H
#define KVBI_TRANSFER_CUDA_CUDA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <kvblock.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "transfer/engine.h"
#include "transfer/kind.h"
#include "transfer/tier.h"

struct kvbi_cuda;
struct kvbi_cuda_registration;

extern const struct kvbi_kind kvbi_kind_cuda;

/*
 * For kvbi_kind_cuda: is what a configuration says of a tier in CUDA memory right, as far as can be
 * seen without a GPU. Also in a build without CUDA, which refuses such a tier only after it.
 */
int kvbi_cuda_check_config(const struct kvb_tier_config *config, const struct kvb_layout *layout,
                           uint64_t block_bytes, char *message, size_t message_bytes);

/*
 * A tier in the memory of the GPU `config->device`: the caller's, or its own. Everything that is
 * wrong with driver, device, layout or memory is found here and said in `message`.
 * KVB_EUNSUPPORTED, KVB_EINVAL, KVB_ENOMEM, KVB_EDEVICE.
 */
int kvbi_tier_cuda_create(struct kvbi_tier *tier, const struct kvbi_memory *memory,
                          const struct kvb_tier_config *config, const struct kvb_layout *layout,
                          uint64_t block_bytes, char *message, size_t message_bytes);

extern const struct kvbi_tier_ops kvbi_cuda_ops;

/* The GPU behind a tier of this kind; NULL: it is of another. */
static inline struct kvbi_cuda *kvbi_cuda_of(const struct kvbi_tier *tier)
{
    return tier->ops == &kvbi_cuda_ops ? tier->self : NULL;
}
/* Legal on NULL. */
void kvbi_cuda_close(struct kvbi_cuda *cuda, unsigned char *owned_base);

/* Has the GPU failed, or the tier's memory gone? Any thread. */
bool kvbi_cuda_lost(const struct kvbi_cuda *cuda);
/* Why, in words; empty if it has not. */
void kvbi_cuda_why(const struct kvbi_cuda *cuda, char *why, size_t bytes);

/*
 * Registers the memory of the host tier `tier` for the GPU. What cannot be registered is said in
 * the log and counted. KVB_ENOMEM: no thread.
 */
int kvbi_cuda_registration_create(struct kvbi_tier *tier, struct kvbi_cuda *cuda,
                                  const struct kvbi_register_config *config);
/*
 * Waits for what is being registered, not for a pause between two registrations, and makes none:
 * nobody is served from this memory any more. Legal on NULL. False: CUDA keeps some of the memory
 * registered. Whoever gave it away would have the next owner of the same addresses copy to and from
 * the pages that were there before.
 */
bool kvbi_cuda_registration_destroy(struct kvbi_cuda_registration *r);
/* Any thread. */
uint64_t kvbi_cuda_registration_bytes(const struct kvbi_cuda_registration *r);
uint64_t kvbi_cuda_registration_refused_bytes(const struct kvbi_cuda_registration *r);

struct kvbi_engine_cuda_config {
    const struct kvbi_tier *device; /* the tier in CUDA memory */
    enum kvb_copy_method method;
    uint32_t capacity;
    struct kvbi_lines *lines; /* must outlive it */
    /* progress is the manager's thread; else it runs as often as the server asks */
    bool own_thread;
    struct kvbi_clock *clock;
    const struct kvbi_log *log;
    const struct kvbi_hooks *hooks;
};

/* 0; else `said` has the reason. Afterwards `said` tells the statistics how it copies. */
int kvbi_engine_cuda_create(struct kvbi_engine **engine, const struct kvbi_memory *memory,
                            const struct kvbi_engine_cuda_config *config, char *said,
                            size_t said_bytes);

#endif
