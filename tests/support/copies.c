/* SPDX-License-Identifier: Apache-2.0 */
/* See copies.h. */
#include "support/copies.h"

#include <kvblock.h>

int mv_copy_fault(void *context, uint32_t from_tier, uint32_t from_slot, uint32_t to_tier,
                  uint32_t to_slot)
{
    struct mv_copies *copies = context;
    uint32_t number = atomic_fetch_add(&copies->count, 1) + 1;
    uint32_t fail_at = atomic_load(&copies->fail_at);
    if (number <= MV_COPY_MAX)
        copies->list[number - 1] = (struct mv_copy){from_tier, from_slot, to_tier, to_slot};
    return fail_at != 0 &&
                   (number == fail_at || (number > fail_at && atomic_load(&copies->fail_onwards)))
               ? atomic_load(&copies->code)
               : 0;
}

void mv_fail(struct mv_copies *copies, uint32_t nth, bool onwards)
{
    atomic_store(&copies->code, KVB_EIO);
    atomic_store(&copies->fail_onwards, onwards);
    atomic_store(&copies->fail_at, atomic_load(&copies->count) + nth);
}

void mv_heal(struct mv_copies *copies)
{
    atomic_store(&copies->fail_at, 0);
}
