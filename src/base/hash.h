/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hash - XXH3 in the fastest instruction set of this machine
 *
 * Owns one compilation of XXH3 per instruction set, and the choice between them. All give the same
 * values: these are on disk and on the wire.
 * Callers: token hashes, checksums; any thread, no lock. The table is constant: keep the pointer
 * per manager.
 * Why not libxxhash: its plain entry points are SSE2 (18 GB/s at 64 KiB; AVX2 35-42, AVX-512 45-58,
 * one Xeon thread) and its dispatching ones exist in the shared library only.
 */
#ifndef KVBI_BASE_HASH_H
#define KVBI_BASE_HASH_H

#include "base/platform.h"

#include <stddef.h>
#include <stdint.h>

struct kvbi_hash128 {
    uint64_t low, high;
};

struct kvbi_hash_ops {
    uint64_t (*hash64)(const void *data, size_t bytes, uint64_t seed); /* XXH3_64bits_withSeed */
    /* XXH3_128bits_withSeed */
    struct kvbi_hash128 (*hash128)(const void *data, size_t bytes, uint64_t seed);
    const char *name;
};

/*
 * isa: at most what kvbi_isa_detect says. Never NULL; what this build does not have falls back to
 * the baseline.
 */
const struct kvbi_hash_ops *kvbi_hash_select(enum kvbi_isa isa);

/* For kvbi_hash_select only. */
extern const struct kvbi_hash_ops kvbi_hash_baseline;
extern const struct kvbi_hash_ops kvbi_hash_avx2;
extern const struct kvbi_hash_ops kvbi_hash_avx512;

#endif
