/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engines of a manager: one for host memory, and one for each other kind that its tiers are of,
 * and who moves what. Of two tiers the one that is not on the host says which engine; two of which
 * neither is work one after the other (transfer/relay.h).
 *
 * Owns       the engines.
 * Callers    offload/pipeline creates; offload/round submits and reaps; api/ imports fences. Fixed
 *            after create: no lock.
 * Invariants all engines count one counter (KVB_FENCE_COUNTER), so a ticket of one means the same
 *            to the others. Points in the streams of a GPU are an order of their own, and which of
 *            these tickets a block of the device waits for stands here: `tickets` only grows, and
 *            one that is left over from a slot's earlier life is reached long since.
 */
#ifndef KVBI_TRANSFER_ENGINES_H
#define KVBI_TRANSFER_ENGINES_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <kvblock.h>

#include "transfer/engine.h"
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
    _Atomic uint64_t *tickets; /* by the device's slots */
    _Atomic uint64_t counter;  /* signalled so far */
    _Atomic uint64_t awaited;  /* what goes beyond it wakes progress: somebody waits for that */
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

/* As the engines' import. */
int kvbi_engines_import(const struct kvbi_engines *engines, const struct kvb_fence *fence,
                        uint64_t *ticket, struct kvbi_why *why);
/*
 * A transfer into or out of this block of the device waits for this ticket, and for those it waits
 * for already. Any thread.
 */
void kvbi_engines_set_ticket(const struct kvbi_engines *engines, uint32_t slot, uint64_t ticket);
uint64_t kvbi_engines_ticket(const struct kvbi_engines *engines, const struct kvbi_tier *tier,
                             uint32_t slot);
/*
 * The block has a new owner: a ticket that nobody can wait for, and that fails what would, was the
 * former one's.
 */
void kvbi_engines_forget_captured(const struct kvbi_engines *engines, const struct kvbi_tier *tier,
                                  uint32_t slot);
/* True if progress may have something to do. Any thread. */
bool kvbi_engines_signal(struct kvbi_engines *engines, uint64_t value);

/*
 * How far the tickets are reached, as far as is known. No lock, no call of a driver's. Of a GPU
 * that has failed: all the way.
 */
uint64_t kvbi_engines_stream_reached(const struct kvbi_engines *engines); /* `streams` is set */
static inline struct kvbi_tickets kvbi_engines_reached(const struct kvbi_engines *engines)
{
    return (struct kvbi_tickets){
        .counter = atomic_load(&engines->counter),
        .stream = engines->streams != NULL ? kvbi_engines_stream_reached(engines) : 0};
}
/* What a transfer into or out of the slot waits for; `ticket`: the slot's. */
static inline struct kvbi_tickets kvbi_engines_tickets(const struct kvbi_engines *engines,
                                                       const struct kvbi_tier *tier, uint32_t slot,
                                                       uint64_t ticket)
{
    return (struct kvbi_tickets){.counter = ticket,
                                 .stream = kvbi_engines_ticket(engines, tier, slot)};
}
/*
 * Progress is about to sleep, and wants to look again once anything beyond `until` is reached.
 * False: that is so already.
 */
bool kvbi_engines_await(struct kvbi_engines *engines, struct kvbi_tickets until);
/*
 * Gives up a copy that waits for its counter ticket, between these two: it completes with
 * KVB_ECANCELED, in the next reap. False: it has begun, or is about to. From progress; under the
 * store's lock.
 */
bool kvbi_engines_recall(const struct kvbi_engines *engines, const struct kvbi_tier *from,
                         const struct kvbi_tier *to, uint32_t place, uint64_t cookie);
/* May this ticket be waited for by blocks of a device only? */
static inline bool kvbi_engines_is_stream_ticket(const struct kvbi_engines *engines,
                                                 uint64_t ticket)
{
    return (ticket & KVBI_TICKET_STREAM) && engines->streams != NULL;
}
/* For operations on a device: kvbi_stream_ops of its engine. */
uint32_t kvbi_engines_flight(const struct kvbi_engines *engines, uint32_t slot);
int kvbi_engines_wait_stream(const struct kvbi_engines *engines, uint64_t flights,
                             uint64_t stream_ticket, void *stream, uint32_t layer,
                             struct kvbi_why *why);
/* Something that reap could complete now. */
bool kvbi_engines_ready(const struct kvbi_engines *engines);
void kvbi_engines_drain(const struct kvbi_engines *engines);

#endif
