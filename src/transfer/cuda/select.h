/* SPDX-License-Identifier: Apache-2.0 */
/*
 * select - which items the next flight takes, and which wait in front of the streams
 *
 * Owns       nothing: the lists are the engine's (dispatch.h).
 * Callers    dispatch, from progress.
 * Invariants a flight that waits for a ticket has no more entries than its stream has room for, and
 *            one that does not either, or it is a single block on an empty stream. So no call of
 *            progress waits in the driver for a stream to take more, but for blocks that are more
 *            than a stream takes by themselves, which then wait for copies only.
 * Lock       the queue's, for what is called ..._locked.
 * Why        a step of the server may last. What waits for it on a stream keeps its flight, its
 *            buffers and its entries meanwhile, so it gets a part of each; the rest is deferred.
 */
#ifndef KVBI_TRANSFER_CUDA_SELECT_H
#define KVBI_TRANSFER_CUDA_SELECT_H

#include <stdint.h>

#include "transfer/cuda/dispatch.h"

/* Items for one flight. The pairs are dispatch's. */
struct kvbi_cuda_selection {
    struct kvbi_copy_list items;
    struct kvbi_cuda_pair pairs[KVBI_FLIGHT_BLOCKS_MAX];
    uint32_t indices[KVBI_FLIGHT_BLOCKS_MAX];
    uint32_t count; /* of pairs: items less those that fail at once */
    uint32_t bounces;
    uint32_t stream;
    uint64_t room;   /* entries of its stream that it may take */
    uint64_t ticket; /* past those that are passed, or 0 */
};

/*
 * Takes what the next flight is to have, with a buffer for each that is not registered. Empty:
 * nothing can begin. What would have to wait for a ticket past `passed`, and may not on a stream,
 * is deferred.
 */
void kvbi_cuda_select_locked(struct kvbi_cuda_engine *e, struct kvbi_cuda_selection *selection,
                             uint64_t passed);
/* The plan of its flight, but for the pairs and the time. */
struct kvbi_flight_plan kvbi_cuda_select_plan(struct kvbi_cuda_engine *e,
                                              const struct kvbi_cuda_selection *selection);
/* Might something that is deferred begin, now that tickets have passed up to there? */
bool kvbi_cuda_may_resume(const struct kvbi_cuda_engine *e, uint64_t passed);

#endif
