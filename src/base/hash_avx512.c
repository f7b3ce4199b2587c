/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hash_avx512 - XXH3 for x86-64 with AVX512; compiled with the flags for it, empty elsewhere. See
 * hash.h.
 */
#include "base/hash.h"

#if defined(__x86_64__)
#if !defined(__AVX512F__)
#error "the build gives this file the flags of its instruction set"
#endif
#define KVBI_HASH_VARIANT avx512
#define XXH_VECTOR XXH_AVX512
#include "base/hash_variant.h"
#endif
