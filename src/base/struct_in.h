/* SPDX-License-Identifier: Apache-2.0 */
/*
 * struct_in - reads a public struct that may come from an older or newer header
 *
 * Owns the rule by which public structs grow: each starts with `uint32_t size` (sizeof at the
 * caller), new fields go to the end, zero means default. An older caller's missing tail reads as
 * zeroes; a newer caller's tail must be zero, or it asks for something that this library does not
 * know.
 * Callers: every public function that takes such a struct. Lock: none.
 */
#ifndef KVBI_BASE_STRUCT_IN_H
#define KVBI_BASE_STRUCT_IN_H

#include <kvblock.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/why.h"

/* A size above this is taken for an uninitialised field; no public struct comes near. */
#define KVBI_STRUCT_BYTES_MAX 4096

/*
 * dst: `known` bytes, the struct as this library knows it; minimum: the size of its first version.
 * dst->size becomes `known`. KVB_EINVAL: src is NULL, smaller than `minimum`, larger than
 * KVBI_STRUCT_BYTES_MAX, or has a non-zero byte past `known`; dst is all zero then. src and dst
 * must not overlap.
 */
KVB_NODISCARD int kvbi_struct_in(void *dst, size_t known, size_t minimum, const void *src);

/*
 * Is a struct of `size` bytes, of which `known` are understood here, big enough, and zero beyond
 * them?
 */
KVB_NODISCARD bool kvbi_struct_fits(const void *src, size_t size, size_t known);

/*
 * Why a struct of `size` bytes at `src` does not fit, of which `known` are understood: `name` as
 * the caller calls it ("inits[3]"), `type` as the header does ("kvb_block_init"). Reads no more of
 * it than kvbi_struct_fits does.
 */
void kvbi_struct_why(struct kvbi_why *why, const char *name, const char *type, const void *src,
                     size_t size, size_t known);

/* Element i of an array of structs that say their own size. */
static inline const void *kvbi_stride(const void *array, uint32_t size, uint32_t i)
{
    return (const unsigned char *)array + (size_t)size * i;
}

#endif
