/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A kind of memory of the tests' own: blocks in host memory that only its own engine may touch, in
 * "files" that fail as they are told to.
 *
 *     struct kv_faulty faulty;
 *     kv_faulty_init(&faulty);
 *     kv_rig_add_tier(rig, KVB_TIER_DISK, 8, KVB_OFFLOAD_MANUAL)->memory = &faulty;
 *     rig->kinds[KVB_TIER_DISK] = &kv_faulty_kind;      // all that it takes to register a kind
 *
 * It shows what the library asks of a kind, and that nobody asks which kind it is. What was done to
 * it is counted; `faulty` must outlive the manager.
 */
#ifndef KVB_TEST_FAULTY_KIND_H
#define KVB_TEST_FAULTY_KIND_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "transfer/kind.h"

#define KV_FAULTY_FILES 2u

struct kv_faulty {
    /* The script: */
    int write_result, read_result; /* what copies to it, or from it, end with; 0: they succeed */
    uint32_t only_file;            /* of these, those of this file only; UINT32_MAX: all */
    bool condemns;                 /* such a failure condemns the slot */
    _Atomic bool lost;             /* its memory has failed as a whole */
    /* What has happened: */
    uint32_t writes, reads, committed, destroyed, engines;
    uint32_t retired_count, last_retired;
    uint32_t renewed[KV_FAULTY_FILES];
    uint32_t closed, closed_order_count;
    uint64_t clears; /* of the latest clear */
    uint64_t last_label_hash;
};

void kv_faulty_init(struct kv_faulty *faulty);

extern const struct kvbi_kind kv_faulty_kind;

#endif
