/* SPDX-License-Identifier: Apache-2.0 */
/*
 * explain - why a block refused, found out after the call has let go of the store's lock
 *
 * The functions that hold the lock return codes and nothing else, so that success costs nothing;
 * what a code stood for is looked up here, from what the caller holds and therefore cannot have
 * changed. Where another thread may have changed it all the same, the words follow from the code
 * alone.
 * Callers    api/, with no lock held, where an element of a roll has no words
 *            (kvbi_roll_unexplained). All are about element roll->told_at, which is the block or
 *            the value given.
 */
#ifndef KVBI_API_EXPLAIN_H
#define KVBI_API_EXPLAIN_H

#include "api/refuse.h"

void kvbi_explain_ref(struct kvbi_roll *roll, const struct kvb_block *block);
void kvbi_explain_unref(struct kvbi_roll *roll, const struct kvb_block *block);
void kvbi_explain_upgrade(struct kvbi_roll *roll, const struct kvb_weak *weak);
void kvbi_explain_register(struct kvbi_roll *roll, const struct kvb_block *block,
                           const struct kvb_fence *fence);
void kvbi_explain_offload(struct kvbi_roll *roll, const struct kvb_block *block,
                          const struct kvb_fence *fence);
void kvbi_explain_offload_cancel(struct kvbi_roll *roll, const struct kvb_block *block);
void kvbi_explain_pin(struct kvbi_roll *roll, const struct kvb_block *block);
void kvbi_explain_unpin(struct kvbi_roll *roll, const struct kvb_block *block, uint64_t owner);

/* The fields of a request that say nothing about blocks. 0, or KVB_EINVAL and its line. */
int kvbi_check_request(struct kvb_manager *manager, const struct kvb_onboard *request);

/*
 * The pair of an onboarding that was refused, of which nothing is reserved any more. Returns
 * `code`.
 */
int kvbi_refuse_pair(struct kvb_manager *manager, const struct kvb_onboard *request, uint32_t i,
                     int code);

/*
 * Of kvb_op_take and kvb_op_wait_stream, on which the engine may have had words. They return the
 * code.
 */
int kvbi_refuse_take(struct kvb_manager *manager, const struct kvb_op *op, uint32_t count,
                     int error);
int kvbi_refuse_wait_stream(struct kvb_manager *manager, const void *stream, int error,
                            struct kvbi_why *why);

/* Of kvb_block_key and kvb_block_address. They return the code. */
int kvbi_refuse_key(struct kvb_manager *manager, const struct kvb_block *block, int error);
int kvbi_refuse_chunk(struct kvb_manager *manager, uint32_t layer, uint32_t part, void **address);

#endif
