/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hash_baseline - XXH3 in what every processor of the target has (SSE2 on x86-64, NEON on AArch64).
 * See hash.h.
 */
#include "base/hash.h"

#define KVBI_HASH_VARIANT baseline
#include "base/hash_variant.h"
