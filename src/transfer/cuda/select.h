/* SPDX-License-Identifier: Apache-2.0 */
/*
 * select - which items the next flight takes, and which wait in front of the streams
 *
 * Owns       nothing: the lists are the engine's (dispatch.h).
 * Callers    dispatch, from progress.
 * Invariants all items of a flight wait for the same lines, or none does. A flight that waits for a
 *            ticket has no more entries than its stream has room for, and one that does not either,
 *            or it is a single block on an empty stream. So no call of progress waits in the driver
 *            for a stream to take more, but for blocks that are more than a stream takes by
 *            themselves, which then wait for copies only.
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
    uint64_t room;               /* entries of its stream that it may take */
    struct kvbi_tickets tickets; /* that its stream waits for, of one or two lines */
};

/*
 * Takes what the next flight is to have, with a buffer for each that is not registered. Empty:
 * nothing can begin. What would have to wait for a ticket, and may not on a stream, is deferred.
 */
void kvbi_cuda_select_locked(struct kvbi_cuda_engine *e, struct kvbi_cuda_selection *selection);
/* The plan of its flight, but for the pairs and the time. */
struct kvbi_flight_plan kvbi_cuda_select_plan(struct kvbi_cuda_engine *e,
                                              const struct kvbi_cuda_selection *selection);

#endif
