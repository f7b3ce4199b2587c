/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every public call begins with: the manager, the checks that all of them share, and how array
 * calls report.
 *
 * Owns       struct kvb_manager.
 * Callers    api/ only.
 * Lock       none of its own; each call takes the store's for KVBI_LOCK_BATCH blocks at most
 *            (struct kvbi_section).
 */
#ifndef KVBI_API_MANAGER_H
#define KVBI_API_MANAGER_H

#include <stdbool.h>
#include <stdint.h>

#include <kvblock.h>

#include "api/refuse.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/platform.h"
#include "offload/pipeline.h"
#include "offload/progress.h"
#include "offload/recover.h"
#include "store/store.h"
#include "transfer/tiers.h"

struct kvb_manager {
    struct kvbi_memory memory;
    struct kvbi_clock clock;
    struct kvbi_log log;
    struct kvbi_fork_guard guard;
    struct kvb_layout layout;
    uint64_t block_bytes;
    struct kvbi_tier tiers[KVB_TIER_COUNT];
    struct kvbi_store store;
    struct kvbi_recovery recovery;
    struct kvbi_pipeline pipeline;
    struct kvbi_progress progress;
    struct kvbi_refusals refusals;
};

/* What create has made of it so far, in reverse order. */
void kvbi_manager_free(struct kvb_manager *manager);

/* 0, KVB_EINVAL (NULL) or KVB_EFORK. First in every call. */
int kvbi_enter(const struct kvb_manager *manager);

/* The same, and the array, called `name`, is there if count > 0. */
int kvbi_enter_array(struct kvb_manager *manager, enum kvbi_call call, const char *name,
                     const void *array, uint32_t count);

/* The pool of a block that somebody holds; NULL for anything else. */
struct kvbi_pool *kvbi_held_pool(struct kvb_manager *manager, const struct kvb_block *block);

/* 0 if the caller is the block's sole holder (steps hold too), else KVB_EINVAL or KVB_ESHARED. */
int kvbi_sole_holder(struct kvb_manager *manager, const struct kvb_block *block);

/*
 * The store's lock. Releasing it wakes progress if something came up for it meanwhile, so that no
 * call can forget to.
 */
void kvbi_lock(struct kvb_manager *manager);
void kvbi_unlock(struct kvb_manager *manager);

/*
 * A section: the store's lock, from taking it to its release, for at most KVBI_LOCK_BATCH elements
 * in a row.
 */
struct kvbi_section {
    struct kvb_manager *manager;
    uint32_t left; /* 0: not held */
    /* when it began: the clock is shared by all threads, and read where it is needed only */
    uint64_t now_ns;
    struct kvbi_parking parking;
};

void kvbi_section_next(struct kvbi_section *section); /* begin it, or go on, or let others in */
void kvbi_section_end(struct kvbi_section *section);

/*
 * One user less of an element's block, after kvbi_section_next. What it parks is offered when the
 * section ends.
 */
void kvbi_section_unref(struct kvbi_section *section, struct kvbi_pool *pool,
                        struct kvb_block *block);

/* The engine's ticket of a fence (NULL: 0), or the refusal of the call, told. No lock held. */
int kvbi_import_fence(struct kvb_manager *manager, enum kvbi_call call,
                      const struct kvb_fence *fence, uint64_t *ticket);

/* Why progress cannot be driven, or waited for, by this thread. Returns `error`. */
int kvbi_refuse_progress(struct kvb_manager *manager, enum kvbi_call call, int error);
int kvbi_may_wait(struct kvb_manager *manager, enum kvbi_call call); /* 0, or that */

/* May the blocks of this tier wait for the fence? Else KVB_EUNSUPPORTED, told. No lock held. */
int kvbi_takes_fence(struct kvb_manager *manager, enum kvbi_call call, const struct kvbi_pool *pool,
                     const struct kvb_fence *fence, uint64_t ticket);

/*
 * What is wrong with a fence that the blocks of this tier cannot wait for, as words of an element.
 */
void kvbi_roll_fence(struct kvbi_roll *roll, uint32_t i, const struct kvb_block *block,
                     const struct kvb_fence *fence);

struct kvbi_namespace_name;
/* NULL: no such namespace. */
static inline const struct kvbi_namespace_name *kvbi_space(const struct kvb_manager *manager,
                                                           uint32_t id)
{
    return kvbi_store_namespace(&manager->store, id);
}

/* How many namespaces there are: ids from 0 on. */
static inline uint32_t kvbi_spaces_open(const struct kvb_manager *manager)
{
    return kvbi_store_namespace_count(&manager->store);
}

#endif
