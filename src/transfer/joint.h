/* SPDX-License-Identifier: Apache-2.0 */
/*
 * joint - points on two lines of which no stream can wait for both
 *
 * Owns       the set of points that is being waited for, and the one that is being gathered.
 * Callers    transfer/engines: add from any thread, the rest from progress.
 * Invariants a ticket on KVBI_LINE_JOINT names a set. It is reached once every point that
 *            was added to that set is, and all earlier sets are.
 * Lock       `lock` (rank KVBI_RANK_ENGINE), so that the store's may be held; no call of a driver's
 *            under it.
 * Why        a slot holds one ticket, and may have been given two points, for example a counter's
 *            and a stream's. Two sets are enough for any number of slots: points that come
 *            while one set is waited for are gathered in the next. What is added last may so
 *            wait for what was added before it, and nothing is ever early; no room can run out.
 */
#ifndef KVBI_TRANSFER_JOINT_H
#define KVBI_TRANSFER_JOINT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/lock.h"
#include "block/ticket.h"

struct kvbi_joint_set {
    uint64_t number;
    uint64_t lines[KVBI_LINE_COUNT / 64];
    uint64_t since[KVBI_LINE_COUNT]; /* reached when the line's first point was added */
    uint64_t until[KVBI_LINE_COUNT]; /* the latest point on each line */
};

struct kvbi_joint {
    struct kvbi_lines *lines;
    struct kvbi_lock lock;
    struct kvbi_joint_set waited, gathered; /* without lines: there is none */
};

/* `lines` must outlive it. 0, or KVB_ENOMEM: no lock. */
int kvbi_joint_init(struct kvbi_joint *joint, struct kvbi_lines *lines);
void kvbi_joint_fini(struct kvbi_joint *joint);

/* A ticket that is reached once both are. */
uint64_t kvbi_joint_add(struct kvbi_joint *joint, uint64_t a, uint64_t b);

/* Lets the line come as far as its points are reached. True: it has advanced. */
bool kvbi_joint_advance(struct kvbi_joint *joint);

/* What the line waits for: for whoever awaits one of its tickets. */
void kvbi_joint_await(struct kvbi_joint *joint, struct kvbi_awaited *awaited);

#endif
