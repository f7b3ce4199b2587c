/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hash_avx2 - XXH3 for x86-64 with AVX2; compiled with the flags for it, empty elsewhere. See
 * hash.h.
 */
#include "base/hash.h"

#if defined(__x86_64__)
#if !defined(__AVX2__)
#error "the build gives this file the flags of its instruction set"
#endif
#define KVBI_HASH_VARIANT avx2
#define XXH_VECTOR XXH_AVX2
#include "base/hash_variant.h"
#endif
