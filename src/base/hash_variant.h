/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hash_variant - the body of hash_baseline.c, hash_avx2.c and hash_avx512.c
 *
 * The includer sets KVBI_HASH_VARIANT (its suffix) and, above the baseline, XXH_VECTOR; the build
 * gives it the compiler flags. XXH_INLINE_ALL makes every function of xxhash.h static, so no
 * instruction of one variant can end up in another by way of the linker.
 */
#ifndef KVBI_HASH_VARIANT
#error "hash_variant.h is for the hash_*.c files"
#endif

#define XXH_INLINE_ALL
#include <xxhash.h>

#define KVBI_HASH_NAME__(suffix) kvbi_hash_##suffix
#define KVBI_HASH_NAME_(suffix) KVBI_HASH_NAME__(suffix)
#define KVBI_HASH_TEXT__(suffix) #suffix
#define KVBI_HASH_TEXT_(suffix) KVBI_HASH_TEXT__(suffix)

static uint64_t hash64(const void *data, size_t bytes, uint64_t seed)
{
    return XXH3_64bits_withSeed(data, bytes, seed);
}

static struct kvbi_hash128 hash128(const void *data, size_t bytes, uint64_t seed)
{
    XXH128_hash_t hash = XXH3_128bits_withSeed(data, bytes, seed);
    return (struct kvbi_hash128){.low = hash.low64, .high = hash.high64};
}

const struct kvbi_hash_ops KVBI_HASH_NAME_(KVBI_HASH_VARIANT) = {
    .hash64 = hash64,
    .hash128 = hash128,
    .name = KVBI_HASH_TEXT_(KVBI_HASH_VARIANT),
};
