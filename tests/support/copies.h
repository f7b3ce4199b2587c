/* SPDX-License-Identifier: Apache-2.0 */
/* A recorder of the copies that engines begin, which can make them fail: a hook of a manager's. */
#ifndef KVB_TEST_COPIES_H
#define KVB_TEST_COPIES_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "api/testing.h"

#define MV_COPY_MAX 512

struct mv_copy {
    uint32_t from_tier, from_slot, to_tier, to_slot;
};

struct mv_copies {
    _Atomic uint32_t count;   /* ever; the first MV_COPY_MAX are kept */
    _Atomic uint32_t fail_at; /* this copy (from 1) fails; 0: none */
    _Atomic bool fail_onwards;
    _Atomic int code;
    struct mv_copy list[MV_COPY_MAX];
    struct kvbi_hooks hooks;
};

/* Its hook, with the recorder as the context. */
int mv_copy_fault(void *context, uint32_t from_tier, uint32_t from_slot, uint32_t to_tier,
                  uint32_t to_slot);

/* The n-th copy from now on (from 1) fails, or it and all after it. */
void mv_fail(struct mv_copies *copies, uint32_t nth, bool onwards);
void mv_heal(struct mv_copies *copies);

#endif
