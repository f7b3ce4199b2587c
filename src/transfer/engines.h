/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engines of a manager: one for host memory, and one for each other kind that its tiers are of,
 * and who moves what. Of two tiers the one that is not on the host says which engine; two of which
 * neither is work one after the other (transfer/relay.h).
 *
 * Owns       the engines.
 * Callers    offload/pipeline creates; offload/round submits and reaps; api/ imports fences. Fixed
 *            after create: no lock.
 * Invariants all engines look at one set of lines, so a ticket means the same to each. Those of the
 *            counters advance by signal, those of the GPU's streams by its engine's looks, the
 *            joint one by advance.
 */
#ifndef KVBI_TRANSFER_ENGINES_H
#define KVBI_TRANSFER_ENGINES_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <kvblock.h>

#include "transfer/engine.h"
#include "transfer/joint.h"
#include "transfer/tier.h"

/* One for host memory, and one for each kind of another that a tier is of. */
#define KVBI_ENGINE_MAX (KVB_TIER_COUNT + 1)

struct kvbi_engines {
    struct kvbi_engine *all[KVBI_ENGINE_MAX]; /* [0]: memory to memory */
    uint32_t count;
    /* By tier: who moves blocks into and out of it; those of one kind share one. NULL: absent. */
    struct kvbi_engine *of[KVB_TIER_COUNT];
    /* Between two tiers of which neither is on the host. It owns both of their engines. Or NULL. */
    struct kvbi_engine *relay;
    struct kvbi_tier between; /* the relay's memory */
    /* Of the tier on a device's streams, which knows their fences; both NULL: there is none. */
    struct kvbi_engine *streams;
    const struct kvbi_tier *device;
    struct kvbi_lines lines;
    struct kvbi_joint joint;
    /* by counter: what comes to it wakes progress, since somebody waits for that; or UINT64_MAX */
    _Atomic uint64_t awaited[KVBI_LINE_COUNTERS];
    uint64_t awaited_lines; /* bits: the others are UINT64_MAX. Progress's own */
    const struct kvbi_memory *memory;
    const struct kvbi_hooks *hooks; /* or NULL */
    char said[512];                 /* which ones, how, and why not others */
};

/* 0; else `said` has the reason. `config`->between is filled in here. */
int kvbi_engines_create(struct kvbi_engines *engines, const struct kvbi_engines_config *config);
void kvbi_engines_destroy(struct kvbi_engines *engines); /* legal on a zeroed object */
/* What all of them have allocated for their tables. */
size_t kvbi_engines_bytes(const struct kvbi_engines *engines);

/* Who copies between these two. */
struct kvbi_engine *kvbi_engines_between(const struct kvbi_engines *engines,
                                         const struct kvbi_tier *from, const struct kvbi_tier *to);

/*
 * The ticket of a fence (NULL: 0). KVB_EINVAL: a kind that is not known here, or a line or handle
 * out of range; of a device's kinds what kvbi_stream_ops.import says. `why` (may be NULL) gets
 * words where the fence itself does not show what is wrong with it. No lock held.
 */
int kvbi_engines_import(const struct kvbi_engines *engines, const struct kvb_fence *fence,
                        uint64_t *ticket, struct kvbi_why *why);
/*
 * A ticket that is reached once both are: one of the two where that is enough. `both` lets a stream
 * of the device wait for both, where both are points of its streams, so that other streams can wait
 * for the result; with no lock held. `latest` asks no driver: the store's lock may be held.
 */
uint64_t kvbi_engines_both(struct kvbi_engines *engines, uint64_t a, uint64_t b);
uint64_t kvbi_engines_latest(struct kvbi_engines *engines, uint64_t a, uint64_t b);
static inline bool kvbi_engines_captured(const struct kvbi_engines *engines, uint64_t ticket)
{
    return ticket != 0 && kvbi_lines_captured(&engines->lines, ticket);
}
/* A slot changes hands: that of a capture, which nobody can wait for, was the former owner's. */
static inline void kvbi_engines_forget_captured(const struct kvbi_engines *engines,
                                                uint64_t *ticket)
{
    if (kvbi_engines_captured(engines, *ticket))
        *ticket = 0;
}
/* A counter has come to `value`. True if progress may have something to do. Any thread. */
bool kvbi_engines_signal(struct kvbi_engines *engines, uint32_t line, uint64_t value);
/* The joint line, and with a lost GPU its lines. From progress, after the engines were reaped. */
void kvbi_engines_advance(struct kvbi_engines *engines);
/*
 * Progress is about to sleep, and wants to look again once anything of `awaited` is reached, to
 * which is added what the joint line waits for. False: that is so already.
 */
bool kvbi_engines_await(struct kvbi_engines *engines, struct kvbi_awaited *awaited);
/*
 * Gives up a copy that waits at the host for a ticket, between these two: it completes with
 * KVB_ECANCELED, in the next reap. False: it has begun, or is about to. From progress; under the
 * store's lock.
 */
bool kvbi_engines_recall(const struct kvbi_engines *engines, const struct kvbi_tier *from,
                         const struct kvbi_tier *to, uint32_t place, uint64_t cookie);
/* For operations on a device: kvbi_stream_ops of its engine. */
uint32_t kvbi_engines_flight(const struct kvbi_engines *engines, uint32_t slot);
int kvbi_engines_wait_stream(const struct kvbi_engines *engines, uint64_t flights,
                             const struct kvbi_stream_points *points, void *stream, uint32_t layer,
                             struct kvbi_why *why);
/* Something that reap could complete now. */
bool kvbi_engines_ready(const struct kvbi_engines *engines);
void kvbi_engines_drain(const struct kvbi_engines *engines);

#endif
