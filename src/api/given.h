/* SPDX-License-Identifier: Apache-2.0 */
/*
 * given - is what a call on unregistered blocks was given as the header says? Else what is wrong
 * with it, in words
 *
 * Callers    api/block_life.c, with no lock held. What a block's state says is not asked here.
 */
#ifndef KVBI_API_GIVEN_H
#define KVBI_API_GIVEN_H

#include <stddef.h>
#include <stdint.h>

#include "api/refuse.h"

/* Without a size there is no way from one element to the next. 0, or KVB_EINVAL and its line. */
int kvbi_check_distance(struct kvb_manager *manager, enum kvbi_call call, const char *array,
                        const char *type, const void *elements, uint32_t size, size_t known,
                        size_t alignment);

/* What is wrong with element i of `array` as a struct. Returns KVB_EINVAL. */
int kvbi_refuse_struct(struct kvbi_roll *roll, uint32_t i, const char *array, const char *type,
                       const void *element, size_t size, size_t known);

/* The flags and tokens of one append. 0, or KVB_EINVAL and its words. */
int kvbi_check_append(struct kvbi_roll *roll, uint32_t i, const struct kvb_block *block,
                      const struct kvb_append *append, uint32_t size);

/* Why a step does not finish. Returns `error`. */
int kvbi_refuse_step(struct kvbi_roll *roll, uint32_t i, int error, const struct kvb_block *block,
                     enum kvbi_edge edge, uint32_t computed, const struct kvb_fence *fence);

/* Why a clone is refused: of the source if it is that, else of the target. Returns `error`. */
int kvbi_refuse_clone(struct kvb_manager *manager, const struct kvb_block *source,
                      const struct kvb_block *target, int error);

#endif
