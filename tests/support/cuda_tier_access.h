/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks in memory of the stand-in for CUDA, as tier_pair.h gets at blocks.
 *
 * The stand-in looks whether all that is done to memory is ordered: that of the device, and with
 * tier_access_pinned that of the host as well, as far as it is pinned.
 */
#ifndef KVB_TEST_CUDA_TIER_ACCESS_H
#define KVB_TEST_CUDA_TIER_ACCESS_H

#include "support/tier_pair.h"

extern const struct tier_access tier_access_cuda; /* chunk by chunk */
extern const struct tier_access tier_access_pinned;

#endif
